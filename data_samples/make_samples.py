"""Makes clips/, images/ and SHA256SUMS of this folder (needs minst to be installed).

    python data_samples/make_samples.py             write clips and images with the seeds in CLIPS, then the checksums
    python data_samples/make_samples.py --search    look for these seeds again (minutes) and print the best of each kind
    python data_samples/make_samples.py --sums      only the checksums of what is here (after new weights or pictures)

How the seeds were chosen: clip 0 of the seeds from 2024 on (split "test": never trained on, never used for validation)
is drawn and measured, for CANDIDATES seeds whose categories fit; the one that shows best what its name says is taken.
Splits never share a clip, so no model that was trained on shapes has seen any of them.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from minst.data.shapes import ShapesConfig, shapes_clip, write_shapes_dataset

HERE = Path(__file__).resolve().parent
FIRST_SEED, CANDIDATES, IMAGES = 2024, 100, 12

# name -> the seed that `search` found and the knobs of the generator; what a clip must show stands in `merit`
CLIPS = {
    "easy": (3040, ShapesConfig(frames=24, speed=0.8, occlusion=0.0, crowding=0.6, clutter=0.6)),
    "occlusion": (2182, ShapesConfig(frames=30, occlusion=3.0)),
    "twins": (2284, ShapesConfig(frames=30, occlusion=3.0)),
    "in-and-out": (2162, ShapesConfig(frames=36, occlusion=0.5)),
    "fast": (2066, ShapesConfig(frames=24, speed=2.0)),
    "crowd": (2577, ShapesConfig(frames=30, crowding=4.0)),
}


class Measured:
    """What the masks of a clip say. T frames, n instances."""

    def __init__(self, clip):
        frames = [clip.render(t) for t in range(len(clip))]
        masks = np.stack([f.masks for f in frames])  # (T, n, H, W)
        height, width = masks.shape[-2:]
        self.labels, self.count = clip.labels, len(clip.labels)
        painted = [[f.image[mask].mean(0) if mask.any() else None for mask in f.masks] for f in frames]
        painted = [[colour for colour in column if colour is not None] for column in zip(*painted)]
        self.colours = [np.mean(column or [[0, 0, 0]], 0) for column in painted]  # n x (3,)
        self.seen = masks.sum((2, 3))  # (T, n) visible pixels
        whole = np.stack([f.amodal for f in frames])  # (T, n)
        self.hidden = 1 - self.seen / np.maximum(whole, 1)  # occluded or cut off
        self.outside = whole == 0
        rows, columns = masks.any(3), masks.any(2)
        top, bottom = rows.argmax(2), height - rows[..., ::-1].argmax(2)
        left, right = columns.argmax(2), width - columns[..., ::-1].argmax(2)
        self.inside = (top > 2) & (left > 2) & (bottom < height - 2) & (right < width - 2) & ~self.outside
        self.boxes = np.stack([left, top, right, bottom], -1).astype(float)  # (T, n, 4)
        self.centres = (self.boxes[..., :2] + self.boxes[..., 2:]) / 2
        steps = np.linalg.norm(np.diff(self.centres, axis=0), axis=-1)
        still_there = (self.seen[1:] > 0) & (self.seen[:-1] > 0)
        self.speed = float(np.median(steps[still_there])) / width if still_there.any() else 0.0

    def crossing(self, i: int, j: int) -> float:
        """How clearly two instances pass through one another: 0 unless they meet in mid-clip and change sides."""
        a, b = self.boxes[:, i], self.boxes[:, j]
        sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        both = np.clip(sides, 0, None).prod(-1) * (self.seen[:, i] > 0) * (self.seen[:, j] > 0)
        overlap = both / np.minimum((a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)).clip(1)
        way = self.centres[:, i] - self.centres[:, j]
        turned = way[0] @ way[-1] / max(np.linalg.norm(way[0]) * np.linalg.norm(way[-1]), 1)
        apart = overlap[:3].max() < 0.05 and overlap[-3:].max() < 0.05
        alive = min(self.seen[:, [i, j]].min(0)) > 60
        alike = np.ptp([self.colours[k] / self.colours[k].sum() for k in (i, j)], 0).max() < 0.02  # hue, not brightness
        clear = apart and alive and alike and turned < -0.3 and overlap.max() > 0.4
        return float(-turned * overlap.max()) if clear else 0.0


def may_show(name: str, labels: np.ndarray) -> bool:
    """What can be told before anything is drawn."""
    count, kinds = len(labels), len(set(labels.tolist()))
    return {
        "easy": count == kinds == 3,
        "twins": kinds < count <= 4,
        "crowd": count == 6 and kinds >= 5,
    }.get(name, 3 <= count <= 5)


def merit(name: str, m: Measured) -> float:
    """How well a clip shows what `name` says; 0 or less: not at all."""
    if name == "easy":  # all to be seen, nearly whole, all the time
        return (m.seen.min() > 500) * (m.speed > 0.008) * float(1 - m.hidden.max())
    if name == "occlusion":  # hidden by another, away from the border, and whole again afterwards
        worst = 0.0
        for i in range(m.count):
            covered = np.where(m.inside[:, i] | (m.seen[:, i] == 0) & ~m.outside[:, i], m.hidden[:, i], 0)
            t = int(covered.argmax())
            back = m.hidden[: max(t - 3, 0), i].min(initial=1) < 0.1 and m.hidden[t + 4 :, i].min(initial=1) < 0.1
            worst = max(worst, back * float(np.clip(covered, 0, 0.97).max()))
        return (m.inside.mean() > 0.6) * (worst > 0.7) * (worst + 0.5 * m.inside.mean())
    if name == "twins":  # two of one kind and colour meet and part again on the other's side
        pairs = [(i, j) for i in range(m.count) for j in range(i) if m.labels[i] == m.labels[j]]
        return max((m.crossing(i, j) for i, j in pairs), default=0.0)
    if name == "in-and-out":  # one goes and comes back, others enter or leave
        returns = entries = 0
        for i in range(m.count):
            there = np.flatnonzero(m.seen[:, i] > 60)
            if len(there) < 8:
                continue
            gone = m.outside[there[0] : there[-1], i]
            returns += int(gone.sum() >= 3 and m.seen[:4, i].min() > 300 and m.seen[-4:, i].min() > 300)
            entries += int(m.outside[:2, i].all() or m.outside[-2:, i].all())
        return (returns > 0) * (returns + min(entries, 2) + 0.3 * m.inside.mean())
    if name == "fast":
        return (m.inside.mean() > 0.55) * m.speed
    if name == "crowd":  # six at once
        return float((m.seen > 150).mean() + 0.3 * m.inside.mean())
    raise ValueError(f"make_samples: no idea what clip {name!r} is to show")


def search(name: str) -> list[tuple[float, int]]:
    """(merit, seed) of the candidates for `name`, the best first."""
    clips = (shapes_clip("test", 0, CLIPS[name][1], seed) for seed in itertools.count(FIRST_SEED))
    candidates = itertools.islice((clip for clip in clips if may_show(name, clip.labels)), CANDIDATES)
    # a clip of the test split is drawn from 3 seed + 2
    return sorted(((float(merit(name, Measured(clip))), clip.seed // 3) for clip in candidates), reverse=True)


def command(seed: int, config: ShapesConfig, out: str, videos: int = 1, images: bool = False) -> str:
    """The command that makes the same files."""
    knobs = {k: getattr(config, k) for k in ("speed", "occlusion", "crowding", "clutter")}
    said = "".join(f" --{k} {v:g}" for k, v in knobs.items() if v != 1.0)
    what = f"--videos {videos} --images" if images else f"--videos {videos} --frames {config.frames}"
    return f"minst data shapes {what} --split test --seed {seed}{said} --out {out}"


def merge(parts: dict[str, Path], out: Path) -> None:
    """Folders of one clip each -> one YouTube-VIS folder whose clips bear the names of the parts."""
    merged = None
    for number, (name, part) in enumerate(parts.items(), start=1):
        data = json.loads((part / "annotations.json").read_text())
        shutil.copytree(part / "JPEGImages" / "00000", out / "JPEGImages" / name)
        (video,) = data["videos"]
        files = [f"{name}/{Path(file).name}" for file in video["file_names"]]
        video |= {"id": number, "file_names": files}
        merged = merged or {**data, "videos": [], "annotations": []}
        merged["info"] = {"description": "minst sample clips", "version": "1.0"}
        merged["videos"].append(video)
        for annotation in data["annotations"]:
            merged["annotations"].append({**annotation, "id": len(merged["annotations"]) + 1, "video_id": number})
    (out / "annotations.json").write_text(json.dumps(merged) + "\n")


def write_sums(folder: Path = HERE) -> Path:
    """SHA256SUMS of every file in the folder, in the form of `sha256sum --check`."""
    sums = folder / "SHA256SUMS"
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != sums and "__pycache__" not in p.parts)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in paths]
    sums.write_text("".join(lines))
    return sums


def write_samples(folder: Path = HERE) -> None:
    """Write clips/ and images/, over what is there, and print the command of each."""
    for name in ("clips", "images"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        parts = {name: Path(scratch) / name for name in CLIPS}
        for name, (seed, config) in CLIPS.items():
            write_shapes_dataset(parts[name], 1, config, seed=seed, split="test")
            print(command(seed, config, name))
        merge(parts, folder / "clips")
    write_shapes_dataset(folder / "images", IMAGES, ShapesConfig(), seed=FIRST_SEED, split="test", images=True)
    print(command(FIRST_SEED, ShapesConfig(), "images", IMAGES, images=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--search", action="store_true", help="look for the seeds again and print the best; writes nothing"
    )
    only.add_argument("--sums", action="store_true", help="only the checksums of what is here")
    arguments = parser.parse_args()
    if arguments.search:
        for name in CLIPS:
            print(name, *(f"{seed} ({merit:.3f})" for merit, seed in search(name)[:5]), flush=True)
        return
    if not arguments.sums:
        write_samples()
    print(f"written: {write_sums().relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
