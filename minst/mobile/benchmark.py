"""Where the milliseconds of a frame go, what kernel reuse saves, and whether the data keeps up (paper: Tab 7, Fig 1).

    bench_latency   input, backbone, mask decoder | instance decoder, masks, association | upsampling, RLE, drawing
                    every frame                   | key frames only                      | every frame
    bench_data      frames a second that ClipBatches makes  :  frames a second that a training step takes in

All that is compared is measured in turns within one run, so that a machine busy with other things slows all alike.
Milliseconds are wall time. Kernel reuse is held against its own limit, since two of three frames skip that decoder:

    mean(T = 3) / mean(T = 1)  <=  1 - (2/3) * share of the instance decoder + 0.02

The mean frame at T is (key + (T - 1) * other) / T of the two medians: the median of all frames would be that of a frame
between key frames, and a plain mean would also count the machine's hiccups.

Assumption: one still picture, frame after frame. A model with random weights finds nothing in it, and masks of nothing
    cost nothing, so its `LIVE` best queries count as found; shipped weights keep what they find.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from minst import training
from minst.config import MobileInstConfig
from minst.data.shapes import ShapesConfig, shapes_clip
from minst.environment import environment
from minst.model import Frame, FrameOutput, MobileInst, image_to_batch, upsample_masks
from minst.tracking import ASSOCIATIONS, Candidates, KernelTracker, assign, encode_mask
from minst.training import ClipBatches, ShapesTraining, TrainConfig
from minst.visualize.masks import draw_frame

__all__ = ["allocator", "bench_data", "bench_latency"]

INTERVALS = (1, 3, 6)
WARM_UP = 6  # frames not counted, a multiple of every interval: the first one that counts is a key frame
LIVE = 5  # instances that a model with random weights is taken to find
MARGIN = 0.02  # what the mean frame at T = 3 may cost beyond its share
DATA_TARGET = 2.0  # clips must be made so many times as fast as they are trained on


def bench_latency(
    preset: str | None = None,
    size: tuple[int, int] = (640, 640),
    threads: int = 1,
    frames: int = 30,
    json_path: str | Path | None = None,
    weights: str | None = None,
) -> dict:
    """Milliseconds of a frame: stages apart, fused and not, and the mean frame at T = 1, 3, 6 (fused). Prints tables.

    preset: a config with random weights (default topformer-tiny); or weights: shipped ones by name, or a folder.
    size: (H, W). frames: how many every row is measured on.
    Returns, and writes to `json_path`, {"stages": {"fused" | "not fused": {stage: row}}, "intervals": {"1" | "3" | "6":
    row with "mean_ms"}, "reuse": {...}, "threads", "torch", "cpu", "allocator", ...}; row = {"median_ms", "p95_ms"}.
    Raises ValueError for numbers out of range, an unknown preset, or preset and weights together.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"bench: size is {size!r}; it must be (height, width)")
    _check(height=(size[0], 64), width=(size[1], 64), threads=(threads, 1), frames=(frames, 2))
    if preset and weights:
        raise ValueError(f"bench: preset {preset!r} and weights {weights!r}; give one of them")
    name = weights or preset or "topformer-tiny"
    image = shapes_clip("val", 0, ShapesConfig(width=size[1], height=size[0], frames=2)).render(0).image
    with _setting(threads):
        plain = MobileInst.from_pretrained(name) if weights else MobileInst(MobileInstConfig.preset(name)).eval()
        models = {"fused": copy.deepcopy(plain).fuse(), "not fused": plain}
        threshold = 0.3 if weights else _threshold(models["fused"], image)
        staged = {kind: defaultdict(list) for kind in models}  # stage -> ms of every frame
        tracked = {t: [] for t in INTERVALS}  # (is_key, ms, instances) of every frame
        jobs = [partial(_staged_frame, models[kind], image, threshold, staged[kind]) for kind in models]
        for t in INTERVALS:
            # random weights may draw nothing at all, and are taken to have found something
            area = 12 if weights else 0
            tracker = KernelTracker(models["fused"], t, "mask", threshold, min_area=area)
            jobs.append(partial(_tracked_frame, tracker, image, tracked[t]))
        for i in range(WARM_UP + frames):
            turn = i % len(jobs)  # the order turns: nobody always follows the same neighbour
            for job in jobs[turn:] + jobs[:turn]:
                job()
    rows = {kind: {stage: _row(ms[WARM_UP:]) for stage, ms in stages.items()} for kind, stages in staged.items()}
    intervals = {str(t): _interval_row(t, tracked[t][WARM_UP:]) for t in INTERVALS}
    result = {"model": name, "size": list(size), "threads": threads, "frames": frames, **_machine(), "stages": rows,
              "intervals": intervals, "reuse": _reuse(rows["fused"], intervals)}  # fmt: skip
    _print_latency(result)
    return _write(result, json_path)


def bench_data(
    threads: int = 1, batches: int = 20, json_path: str | Path | None = None, config: TrainConfig | None = None
) -> dict:
    """Frames a second that one core makes (clips, augmentation) and that one training step takes in; prints both.

    threads: of the network; clips are always made by one. config: the run to measure, by default `minst train`'s own.
    Returns, and writes to `json_path`, {"data": row, "training": row, "ratio", "target", "reached", ...}; a row holds
    "frames_per_s", and "median_ms" and "p95_ms" of a batch.
    """
    _check(threads=(threads, 1), batches=(batches, 1))
    config = config or TrainConfig()
    clips, frames = ClipBatches(config, ShapesTraining(config.seed)), 2 * config.pairs
    times = {"data": [], "training": []}
    with _setting(threads):
        state = training.start(config)
        for i in range(2 + batches):  # two to warm up
            torch.set_num_threads(1)
            start = time.perf_counter()
            batch = clips[i]
            times["data"].append(1e3 * (time.perf_counter() - start))
            torch.set_num_threads(threads)
            start = time.perf_counter()
            training.step(state, [batch], i, config)
            times["training"].append(1e3 * (time.perf_counter() - start))
    rows = {name: {"frames_per_s": 1e3 * frames / median(ms[2:]), **_row(ms[2:])} for name, ms in times.items()}
    ratio = rows["data"]["frames_per_s"] / rows["training"]["frames_per_s"]
    result = {"model": config.preset, "size": [config.height, config.width], "threads": threads, "batches": batches,
              "frames_per_batch": frames, **_machine(), **rows, "ratio": ratio, "target": DATA_TARGET,
              "reached": ratio >= DATA_TARGET}  # fmt: skip
    _print_rows("", {"frames/s": "frames_per_s", "ms a batch": "median_ms", "p95": "p95_ms"}, rows.items())
    verdict = "reached" if ratio >= DATA_TARGET else "missed"
    print(f"\nclips on one core : training on {threads} thread(s) = {ratio:.2f} (at least {DATA_TARGET:g}: {verdict})")
    return _write(result, json_path)


def allocator() -> str:
    """The malloc in force. glibc's default gives big blocks back after every frame and pays for it in page faults."""
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in os.environ.get("LD_PRELOAD", ""):
            return name
    if platform.libc_ver()[0] != "glibc":
        return f"that of {platform.system()}"
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    tuned = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    tuned = [setting for setting in tuned if "MALLOC" in setting or "glibc.malloc" in setting]
    advice = "default (try MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_MMAP_THRESHOLD_=4294967296)"
    return "glibc, " + ("tuned: " + ", ".join(tuned) if tuned else advice)


@torch.inference_mode()
def _staged_frame(model: MobileInst, image: np.ndarray, threshold: float, times: dict[str, list[float]]) -> None:
    """One key frame, piece by piece: what `KernelTracker.step` does, and drawing."""
    last = first = time.perf_counter()

    def lap(stage: str, value):
        """the value was computed before this call: what it took ends here."""
        nonlocal last
        now = time.perf_counter()
        times[stage].append(1e3 * (now - last))
        last = now
        return value

    pixels = image_to_batch(image)
    x, padding = lap("input", model._pad((pixels - model.pixel_mean) / model.pixel_std, None))
    x3, x4, x5, x6 = lap("backbone", model.backbone(x))
    x_mask = lap("mask decoder", model.mask_decoder(x3, x4, x5, x6))
    said, q_g = lap("instance decoder", model.instance_decoder(x6, x_mask, padding))
    frame = Frame(model, x6, x_mask, padding, image.shape[:2])
    masks = lap("masks K.X_mask", frame.masks(said.kernels))  # (1, N, h, w)
    scores = FrameOutput(*said, frame.x_mask, masks, q_g).scores()[0].amax(-1)  # (N,)
    # The frame is still, so the kernels of the last key frame are those of this one.
    same = Candidates(said.kernels[0], scores, torch.arange(len(scores)))
    lap("association", assign(ASSOCIATIONS["mask"](same, same, frame.x_mask[0])))
    live = scores >= threshold
    found = lap("upsampling", upsample_masks(masks[:, live], frame.size)[0].ge(0).numpy())
    lap("run-length codes", [encode_mask(mask) for mask in found])
    lap("drawing", draw_frame(image, list(found), list(range(1, len(found) + 1))))
    times["whole frame"].append(1e3 * (last - first))


def _tracked_frame(tracker: KernelTracker, image: np.ndarray, times: list[tuple[bool, float, int]]) -> None:
    start = time.perf_counter()
    result = tracker.step(image)
    times.append((result.is_key, 1e3 * (time.perf_counter() - start), len(result.ids)))


@torch.inference_mode()
def _threshold(model: MobileInst, image: np.ndarray) -> float:
    """A score that `LIVE` queries reach and the next best does not."""
    best = model(image_to_batch(image)).scores()[0].amax(-1).sort(descending=True).values
    return float(best[LIVE - 1 : LIVE + 1].mean())


def _row(ms: list[float]) -> dict[str, float]:
    return {"median_ms": median(ms), "p95_ms": float(np.percentile(ms, 95))}


def _interval_row(interval: int, times: list[tuple[bool, float, int]]) -> dict[str, float]:
    """Undrawn frames at reuse interval T; T = 1 knows no frame between key frames."""
    key, other = (median([ms for is_key, ms, _ in times if is_key == kind] or [0.0]) for kind in (True, False))
    instances = float(np.mean([count for *_, count in times]))
    return {"mean_ms": (key + (interval - 1) * other) / interval, "key_ms": key, "instances": instances,
            **_row([ms for _, ms, _ in times])}  # fmt: skip


def _reuse(stages: dict, intervals: dict) -> dict:
    frame = intervals["1"]["mean_ms"]
    share = stages["instance decoder"]["median_ms"] / frame
    limit, ratio = 1 - 2 / 3 * share + MARGIN, intervals["3"]["mean_ms"] / frame
    return {"instance_decoder_share": share, "reuse_limit": limit, "measured_ratio": ratio, "within": ratio <= limit}


@contextlib.contextmanager
def _setting(threads: int) -> Iterator[None]:
    """So many threads and fixed random numbers; both as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(before)


def _check(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if type(value) is not int or value < least:
            raise ValueError(f"bench: {name} is {value!r}; it must be a whole number of at least {least}")


def _machine() -> dict[str, str]:
    return {"torch": torch.__version__, "cpu": environment()["cpu"], "allocator": allocator()}


def _print_latency(result: dict) -> None:
    fused, plain = (result["stages"][kind] for kind in ("fused", "not fused"))
    rows = [(stage, {**fused[stage], **{f"plain_{k}": v for k, v in plain[stage].items()}}) for stage in fused]
    columns = {"fused": "median_ms", "p95": "p95_ms", "not fused": "plain_median_ms", " p95": "plain_p95_ms"}
    _print_rows("ms a key frame", columns, rows)
    rows = [(f"T = {t}, fused", row) for t, row in result["intervals"].items()]
    columns = {"mean": "mean_ms", "key": "key_ms", "median": "median_ms", "p95": "p95_ms", "instances": "instances"}
    _print_rows("ms, not drawn", columns, rows)
    share, limit, ratio, within = result["reuse"].values()
    print(f"\nof the mean frame at T = 1: instance decoder {share:.1%}, mean frame at T = 3 {ratio:.3f}")
    print(f"reuse_limit 1 - 2/3 x share + {MARGIN}: {limit:.3f} ({'within' if within else 'exceeded'})")


def _print_rows(what: str, columns: dict[str, str], rows: Iterable[tuple[str, dict]]) -> None:
    """A table; columns: heading -> key of a row."""
    print(f"\n{what:18}" + "".join(f"{heading:>11}" for heading in columns))
    for name, row in rows:
        print(f"{name:18}" + "".join(f"{row[key]:11.2f}" for key in columns.values()))


def _write(result: dict, json_path: str | Path | None) -> dict:
    (height, width), threads = result["size"], result["threads"]
    print(f"\n{result['model']}, {width}x{height}, {threads} thread(s) of {result['cpu']}, torch {result['torch']}")
    print(f"malloc: {result['allocator']}")
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {json_path}")
    return result
