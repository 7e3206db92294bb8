"""The first two minutes: a shipped clip tracked, timed, scored and drawn.

    clip ─ KernelTracker (T = 3, masks) ─> VideoResult ─┬─> table, AP on the clip, ms of key and other frames
                                                        └─> tracks.mp4, tracks.gif, fig2.png, results.json

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from tqdm.auto import tqdm

from minst.evaluation import evaluate_ytvis
from minst.model import MobileInst
from minst.samples import load_sample, sample_names
from minst.tracking import KernelTracker
from minst.visualize.masks import animate, class_name, draw_tracks
from minst.visualize.queries import plot_query_consistency
from minst.visualize.style import save

__all__ = ["run_demo"]

FPS = 8


def run_demo(
    out: str | Path = "minst-demo",
    sample: str | None = None,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
) -> dict:
    """Track a shipped clip, print a table of its tracks, and write pictures and results to the folder `out`.

    sample: a name of `minst.sample_names()`, default the first. Files that are there are replaced; a file named `out`
    raises ValueError. Returns what was printed: sample, frames, tracks [{id, category, score, frames}], ms_key and
    ms_reuse (median milliseconds of a key frame and of a frame that reuses its kernels; None if there is none), AP,
    AP50 (fractions of 1, of this clip alone), files {name: path}, seconds.
    """
    started = time.perf_counter()
    out = Path(out)
    clip = load_sample(sample or sample_names()[0])
    model = MobileInst.from_pretrained(weights).fuse()
    tracker = KernelTracker(model, reuse_interval=reuse_interval, association="mask")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out} is or lies in a file; name a folder to write to") from None
    tracker.step(clip.image(0))  # the very first frame pays for setting up: not timed; `track` starts afresh
    milliseconds: list[float] = []
    result = tracker.track(_timed(clip, milliseconds))
    entries = result.to_ytvis(clip.video["id"], clip.category_ids)
    scores = evaluate_ytvis(clip.annotations(), entries)

    files = {name: out / name for name in ("tracks.mp4", "tracks.gif", "fig2.png", "results.json")}
    files["results.json"].write_text(json.dumps(entries))
    drawn = list(_progress(draw_tracks(clip, result), "drawing", len(clip)))
    animate(drawn, files["tracks.mp4"], FPS)
    animate(drawn, files["tracks.gif"], FPS)
    save(plot_query_consistency(model, clip, num_frames=min(11, len(clip))), files["fig2.png"])

    every = tracker.reuse_interval
    ms_key, ms_reuse = _medians(milliseconds, every)
    said = {
        "sample": clip.name,
        "frames": len(clip),
        "tracks": [
            {
                "id": track.id,
                "category": class_name(result.class_names or clip.categories, track.label),
                "score": track.score,
                "frames": sum(code is not None for code in track.segmentations),
            }
            for track in result.tracks
        ],
        "ms_key": ms_key,
        "ms_reuse": ms_reuse,
        "AP": scores["AP"],
        "AP50": scores["AP50"],
        "files": {name: str(path) for name, path in files.items()},
        "seconds": time.perf_counter() - started,
    }
    _tell(said, every)
    return said


def _timed(frames: Iterable, milliseconds: list[float]) -> Iterator:
    """Pass frames on and note how long each was worked on before the next was asked for; reading is not counted."""
    for frame in _progress(frames, "tracking", None):
        start = time.perf_counter()
        yield frame
        milliseconds.append(1000 * (time.perf_counter() - start))


def _medians(milliseconds: list[float], every: int) -> tuple[float, float | None]:
    """Of the key frames 0, T, 2T, ... (the frames of a clip have one size) and of those between; None without."""
    between = [ms for t, ms in enumerate(milliseconds) if t % every]
    return median(milliseconds[::every]), median(between) if between else None


def _progress(frames: Iterable, what: str, total: int | None) -> Iterable:
    return tqdm(frames, desc=what, total=total, unit="frame", leave=False, disable=None)  # None: only on a terminal


def _tell(said: dict, every: int) -> None:
    print(f"{said['sample']}: {said['frames']} frames, a key frame every {every}\n")
    print(f"{'track':>5}  {'category':<12} {'score':>5}  frames seen")
    for track in said["tracks"]:
        seen = f"{track['frames']:>3} of {said['frames']}"
        print(f"{track['id']:>5}  {track['category']:<12} {track['score']:>5.2f}  {seen}")
    if not said["tracks"]:
        print("   no tracks found")
    reuse = f", others {said['ms_reuse']:.1f} ms" if said["ms_reuse"] else ""
    print(f"\nkey frames {said['ms_key']:.1f} ms{reuse} (median)")
    print(f"AP {100 * said['AP']:.1f}, AP50 {100 * said['AP50']:.1f} on this clip")
    print("written: " + ", ".join(said["files"].values()) + f" in {said['seconds']:.1f} s")
