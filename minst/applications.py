"""A video in, an annotated video and its tracks out, in memory that does not grow with the length of the video.

    read_timed --> KernelTracker.step --> draw_frame --> tracks.mp4
                          |
                          +--> one file of run-length codes an identity --> results.json (YouTube-VIS results)

Category and score of a track are the running ones of the last frame that saw it: all that an online tracker knows.
Ctrl-C ends the video there: what was tracked so far is written, complete. A second one leaves without writing.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tqdm.auto import tqdm

from minst.data.video import TimedFrame, VideoInfo, read_timed, video_info, write_mp4
from minst.model import MobileInst
from minst.prediction import at_size, resized
from minst.tracking import FrameResult, KernelTracker
from minst.visualize.masks import class_name, draw_frame

__all__ = ["track_video"]

FOLDER_FPS = 8.0  # images in a folder do not say how fast they were taken
MAX_FPS = 240.0  # what a file says beyond is an error of its header
LINES_IN_MEMORY = 4096  # run-length codes, some 200 bytes each at 720p


def track_video(
    source: str | Path | int,
    out: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    score_threshold: float = 0.5,
    size: int | None = None,
    every: int = 1,
    max_frames: int | None = None,
    video: bool = True,
) -> dict:
    """Track what `read_video` reads; write `out`/results.json and, unless `video` is False, `out`/tracks.mp4.

    size: shorter side, in pixels, of the frames that the network sees; by default that of the video, up to 480. Masks
    are of the video's size all the same.
    every: only frames 0, every, 2 every, ... count; results.json has one mask for each of them. max_frames: of these.
    Files of an earlier run are replaced when the new ones are complete. Raises what `read_video`, `from_pretrained` and
    `KernelTracker.step` raise; ValueError for numbers below their least.

    Returns {"frames": int, "tracks": [{"track", "category", "score", "frames"}], "ms_per_frame": float of the tracker
    alone, "interrupted": bool, "video": Path | None, "results": Path}; results.json has one entry a track, its id and
    category by name included.
    """
    for name, value, least in (("size", size, 64), ("every", every, 1), ("max_frames", max_frames, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    info = video_info(source)
    model = MobileInst.from_pretrained(weights).fuse()
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder, _stop_at_ctrl_c() as stopped:
        tracks = _Tracks(Path(folder), model.config.class_names)
        # up to the last frame wanted: none is read for nothing after it
        frames = islice(read_timed(source), 0, max_frames and (max_frames - 1) * every + 1, every)
        total = _how_many(info, every, max_frames)
        frames = tqdm(_until(stopped, frames), total=total, desc="tracking", unit="frame")
        drawn = tracks.annotated(frames, tracker, size, draw=video)
        if video:
            write_mp4(drawn, Path(folder) / "tracks.mp4", min(info.fps or FOLDER_FPS, MAX_FPS))
        deque(drawn, maxlen=0)  # without a video: to the end all the same
        tracks.write(Path(folder) / "results.json")
        for name in ("tracks.mp4", "results.json")[not video :]:
            os.replace(Path(folder) / name, out / name)
    return {
        "frames": tracker.frame,
        "tracks": tracks.table(),
        "ms_per_frame": 1000 * tracks.seconds / tracker.frame,
        "interrupted": stopped.is_set(),
        "video": out / "tracks.mp4" if video else None,
        "results": out / "results.json",
    }


def _how_many(info: VideoInfo, every: int, max_frames: int | None) -> int | None:
    """How many frames will be tracked, as far as one knows."""
    if info.expected is None:
        return max_frames
    total = -(-info.expected // every)
    return min(total, max_frames or total)


@contextlib.contextmanager
def _stop_at_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, in the place of a KeyboardInterrupt; the second is as ever."""
    stopped = threading.Event()
    here = threading.current_thread() is threading.main_thread()  # only there Python lets signals be handled
    if not here or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
        yield stopped
        return

    def note(*_) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _until(stopped: threading.Event, frames: Iterable[TimedFrame]) -> Iterator[TimedFrame]:
    count = 0
    for frame in frames:
        if stopped.is_set():
            break
        count += 1
        yield frame
    if stopped.is_set() and not count:
        raise KeyboardInterrupt  # nothing was tracked: nothing to keep


class _Tracks:
    """What is known of every identity: a few values here, its masks in a file of lines "frame, run-length code"."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]):
        self.folder, self.class_names = folder, class_names
        self.last: dict[int, tuple[int, float]] = {}  # id -> label, score
        self.count: dict[int, int] = {}  # id -> frames that saw it
        self.lines: dict[int, list[str]] = {}  # id -> what is not yet in its file
        self.seconds, self.frames, self.waiting = 0.0, 0, 0

    def annotated(
        self, frames: Iterable[TimedFrame], tracker: KernelTracker, size: int | None = None, draw: bool = True
    ) -> Iterator[TimedFrame]:
        """Track, remember and draw, a frame at a time."""
        for image, shown in frames:
            start = time.perf_counter()
            result = tracker.step(resized(image, size))
            codes = [at_size(code, *image.shape[:2]) for code in result.segmentations]
            result = result._replace(segmentations=codes)
            self.seconds += time.perf_counter() - start
            self.take(result)
            texts = [f"{i} {class_name(self.class_names, k)}" for i, k in zip(result.ids, result.labels)]
            yield TimedFrame(draw_frame(image, result.masks(), result.ids, texts) if draw else image, shown)

    def take(self, result: FrameResult) -> None:
        self.frames = result.frame + 1
        for identity, label, score, code in zip(result.ids, result.labels, result.scores, result.segmentations):
            self.last[identity] = (label, score)
            self.count[identity] = self.count.get(identity, 0) + 1
            self.lines.setdefault(identity, []).append(f"{result.frame} {json.dumps(code)}\n")
            self.waiting += 1
        if self.waiting >= LINES_IN_MEMORY:  # opening a file for each mask would cost more than writing it
            self._save()

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
        self._save()
        with open(path, "w", encoding="utf-8") as file:
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

    def _save(self) -> None:
        for identity, lines in self.lines.items():
            with open(self.folder / str(identity), "a", encoding="ascii") as file:
                file.writelines(lines)
        self.lines, self.waiting = {}, 0

    def _codes(self, identity: int) -> Iterator[str]:
        expected = 0
        with open(self.folder / str(identity), encoding="ascii") as file:
            for line in file:
                frame, code = line.split(" ", 1)
                yield "null, " * (int(frame) - expected) + code.strip() + (", " if int(frame) + 1 < self.frames else "")
                expected = int(frame) + 1
        missing = self.frames - expected
        yield ", ".join(["null"] * missing)
