"""How quickly, and in how much memory, do the readers open a large annotation file?

    python tests/benchmarks/readers.py [--megabytes 100 --workers 4]

Two files are made in a temporary folder: YouTube-VIS 2019 (40 classes, 1280x720, 36 frames a video, uncompressed RLE)
and COCO (80 classes, 7 polygons an image). Each is opened in fresh processes, by json.loads and by the reader, in
turns: seconds of processor time, the best of five; memory is the largest resident set while opening above that before.
Then DataLoader workers read 1,000 random items: memory is what is theirs alone (Private_* of /proc/self/smaps_rollup).
Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from minst.data.coco import COCO  # noqa: E402
from minst.data.ytvis import YouTubeVIS  # noqa: E402

READERS = {"YouTube-VIS": YouTubeVIS, "COCO": COCO}


def write_youtube_vis(path: Path, size: int) -> None:
    """Tracks of two ellipses a video until there are `size` bytes of them."""
    rng, height, width, frames = random.Random(0), 720, 1280, 36
    videos, tracks, written = [], [], 0
    while written < size:
        number = len(videos) + 1
        names = [f"{number:08x}/{5 * t:05d}.jpg" for t in range(frames)]
        videos.append({"id": number, "width": width, "height": height, "length": frames, "file_names": names})
        for _ in range(2):
            masks, boxes = zip(*(_ellipse(rng, height, width) for _ in range(frames)))
            track = {"id": len(tracks) + 1, "video_id": number, "category_id": rng.randint(1, 40), "iscrowd": 0}
            track |= {"height": height, "width": width, "length": 1, "segmentations": masks, "bboxes": boxes}
            tracks.append(json.dumps(track | {"areas": [sum(m["counts"][1::2]) for m in masks]}))
            written += len(tracks[-1])
    _write(path, {"videos": videos, "categories": _categories(40)}, tracks)


def _ellipse(rng: random.Random, height: int, width: int) -> tuple[dict, list[float]]:
    """One as uncompressed RLE, a run a column, with an edge as ragged as that of a drawn mask."""
    a, b = rng.randint(60, 300), rng.randint(60, 250)
    x0, y0 = rng.randint(a, width - a), rng.randint(b, height - b)
    half = np.maximum(1, b * np.sqrt(1 - (np.arange(-a + 1, a) / a) ** 2) - 2 * np.random.rand(2 * a - 1)).astype(int)
    first = (np.arange(x0 - a + 1, x0 + a) * height + y0 - half).tolist()
    counts, at = [], 0
    for begin, run in zip(first, (2 * half).tolist()):
        counts += [begin - at, run]
        at = begin + run
    return {"size": [height, width], "counts": [*counts, height * width - at]}, [x0 - a, y0 - b, 2.0 * a, 2.0 * b]


def write_coco(path: Path, size: int) -> None:
    """Seven polygons an image, of 24 points, until there are `size` bytes of them."""
    rng, images, entries, written = np.random.default_rng(0), [], [], 0
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    while written < size:
        number = len(images) * 7 + 9
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480, "license": 3})
        for _ in range(7):
            x, y, a = rng.uniform(100, 540), rng.uniform(100, 380), rng.uniform(10, 100, 24)
            points = np.round(np.stack([x + a * np.cos(angle), y + a * np.sin(angle)], 1), 2).ravel().tolist()
            box = [round(v, 2) for v in (x - 100, y - 100, 200.0, 200.0)]
            entry = {"segmentation": [points], "area": round(float(a.sum()), 4), "iscrowd": 0, "image_id": number}
            entry |= {"bbox": box, "category_id": int(rng.integers(1, 81)), "id": len(entries) + 1}
            entries.append(json.dumps(entry))
            written += len(entries[-1])
    _write(path, {"images": images, "categories": _categories(80)}, entries)


def _categories(count: int) -> list[dict]:
    return [{"id": i, "name": f"class {i}", "supercategory": "object"} for i in range(1, count + 1)]


def _write(path: Path, rest: dict, entries: list[str]) -> None:
    path.write_text(f'{json.dumps(rest)[:-1]}, "annotations": [{", ".join(entries)}]}}', encoding="utf-8")


def parse(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def opening(how, path: Path, answer) -> None:
    """Runs in a process of its own: seconds and bytes of `how(path)`."""
    Path("/proc/self/clear_refs").write_text("5")  # forget what imports needed for a moment: the peak starts from here
    before = _status("VmRSS")
    start = time.process_time()
    kept = how(path)
    seconds = time.process_time() - start
    answer.put((seconds, _status("VmHWM") - before, len(kept)))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def opened(path: Path) -> YouTubeVIS:
    return READERS[path.stem](path.parent, annotations=path)


def fresh(target, *args):
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=target, args=(*args, answer))
    process.start()
    found = answer.get()
    process.join()
    return found


class Masks:
    """What a worker does with an item: decode its masks, and say how much memory is the worker's own."""

    def __init__(self, path: Path):
        self.dataset, self.count = opened(path), 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[int, int, int]:
        clip = self.dataset[i]
        self.count += 1
        private = private_bytes() if self.count % 50 in (1, 0) else 0  # slow to ask
        return multiprocessing.current_process().pid, int(clip.masks(len(clip) // 2).sum()), private


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def workers(path: Path, count: int, method: str, answer) -> None:
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than processors: memory is asked
    dataset, most = Masks(path), {}
    some = [i % len(dataset) for i in random.Random(0).sample(range(10**6), 1000)]
    start = time.perf_counter()
    for pid, _, private in DataLoader(dataset, None, sampler=some, num_workers=count, multiprocessing_context=method):
        most.setdefault(pid, []).append(private)
    # what a worker has at its first item is python and torch; what it gains is due to the data set
    answer.put((time.perf_counter() - start, max(max(m) - m[0] for m in most.values()), max(map(max, most.values()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, write in (("YouTube-VIS", write_youtube_vis), ("COCO", write_coco)):
            path = Path(folder) / f"{name}.json"
            write(path, options.megabytes * 10**6)
            size = path.stat().st_size
            runs = {how: [fresh(opening, how, path) for _ in range(5)] for how in (parse, opened)}
            seconds = {how: min(run[0] for run in found) for how, found in runs.items()}
            memory = {how: max(run[1] for run in found) / size for how, found in runs.items()}
            print(f"{name}: {size / 1e6:.0f} MB, {runs[opened][0][2]} items")
            print(f"  json.loads {seconds[parse]:.2f} s, {memory[parse]:.2f} times the file in memory")
            print(f"  {name:10} {seconds[opened]:.2f} s, {memory[opened]:.2f} times the file in memory", end="")
            print(f"   time ratio {seconds[opened] / seconds[parse]:.2f}")
            for method in ("fork", "spawn"):
                took, gained, private = fresh(workers, path, options.workers, method)
                print(
                    f"  {options.workers} workers ({method}): 1,000 items in {took:.1f} s; a worker's own memory",
                    end="",
                )
                print(f" {private / 1e6:.0f} MB, of which {gained / 1e6:.0f} MB came after its first item")


if __name__ == "__main__":
    main()
