"""A video in, an annotated video and its tracks out, in memory that does not grow with the length of the video.

    read_video --> KernelTracker.step --> draw_frame --> tracks.mp4
                          |
                          +--> one file of run-length codes an identity --> results.json (YouTube-VIS results)

Category and score of a track are the running ones of the last frame that saw it: all that an online tracker knows.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from minst.data.video import read_video, video_info, write_mp4
from minst.model import MobileInst
from minst.tracking import FrameResult, KernelTracker
from minst.visualize.masks import class_name, draw_frame

__all__ = ["track_video"]

FOLDER_FPS = 8.0  # images in a folder do not say how fast they were taken


def track_video(
    source: str | Path,
    out: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    score_threshold: float = 0.5,
) -> dict:
    """Track a video file or a folder of images; write `out`/tracks.mp4 and `out`/results.json.

    Files of an earlier run are replaced when the new ones are complete. Raises what `read_video`, `from_pretrained` and
    `KernelTracker.step` raise.

    Returns {"frames": int, "tracks": [{"track", "category", "score", "frames"}], "ms_per_frame": float of the tracker
    alone, "video": Path, "results": Path}; results.json has one entry a track, its id and category by name included.
    """
    info = video_info(source)
    model = MobileInst.from_pretrained(weights).fuse()
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    video, results = out / "tracks.mp4", out / "results.json"
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        tracks = _Tracks(Path(folder), model.config.class_names)
        frames = tqdm(read_video(source), total=info.frames, desc="tracking", unit="frame")
        write_mp4(tracks.annotated(frames, tracker), Path(folder) / video.name, info.fps or FOLDER_FPS)
        tracks.write(Path(folder) / results.name)
        for path in (video, results):
            os.replace(Path(folder) / path.name, path)
    said = {"frames": tracker.frame, "tracks": tracks.table(), "ms_per_frame": 1000 * tracks.seconds / tracker.frame}
    return {**said, "video": video, "results": results}


class _Tracks:
    """What is known of every identity: a few values here, its masks in a file of lines "frame, run-length code"."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]):
        self.folder, self.class_names = folder, class_names
        self.last: dict[int, tuple[int, float]] = {}  # id -> label, score
        self.count: dict[int, int] = {}  # id -> frames that saw it
        self.seconds, self.frames = 0.0, 0

    def annotated(self, frames: Iterable[np.ndarray], tracker: KernelTracker) -> Iterator[np.ndarray]:
        """Track, remember and draw, a frame at a time."""
        for image in frames:
            start = time.perf_counter()
            result = tracker.step(image)
            self.seconds += time.perf_counter() - start
            self.take(result)
            texts = [f"{i} {class_name(self.class_names, k)}" for i, k in zip(result.ids, result.labels)]
            yield draw_frame(image, result.masks(), result.ids, texts)

    def take(self, result: FrameResult) -> None:
        self.frames = result.frame + 1
        for identity, label, score, code in zip(result.ids, result.labels, result.scores, result.segmentations):
            self.last[identity] = (label, score)
            self.count[identity] = self.count.get(identity, 0) + 1
            with open(self.folder / str(identity), "a") as file:
                file.write(f"{result.frame} {json.dumps(code)}\n")

    def table(self) -> list[dict]:
        """The tracks, best score first."""
        ids = sorted(self.last, key=lambda identity: -self.last[identity][1])
        return [
            {
                "track": identity,
                "category": class_name(self.class_names, self.last[identity][0]),
                "score": self.last[identity][1],
                "frames": self.count[identity],
            }
            for identity in ids
        ]

    def write(self, path: Path) -> None:
        """Put the files of all identities together, with null for the frames that did not see them."""
        with open(path, "w") as file:
            file.write("[")
            for number, row in enumerate(self.table()):
                identity = row["track"]
                label, score = self.last[identity]
                entry = {"video_id": 1, "category_id": label + 1, "score": score, "id": identity}
                entry["category"] = row["category"]
                file.write((",\n" if number else "\n") + json.dumps(entry)[:-1] + ', "segmentations": [')
                file.writelines(self._codes(identity))
                file.write("]}")
            file.write("\n]\n")

    def _codes(self, identity: int) -> Iterator[str]:
        expected = 0
        with open(self.folder / str(identity)) as file:
            for line in file:
                frame, code = line.split(" ", 1)
                yield "null, " * (int(frame) - expected) + code.strip() + (", " if int(frame) + 1 < self.frames else "")
                expected = int(frame) + 1
        missing = self.frames - expected
        yield ", ".join(["null"] * missing)
