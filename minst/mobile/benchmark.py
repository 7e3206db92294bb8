"""Where the milliseconds of a frame go, what kernel reuse saves, and whether the data keeps up.

    bench_latency   input, backbone, mask decoder       every frame
                    instance decoder, association       key frames only
                    masks, upsampling, RLE, drawing     every frame
    bench_data      frames a second that ClipBatches makes  :  that a training step takes in

Paper: Tab 7, Fig 1. Milliseconds are wall time. Kernel reuse is held against its own limit, since
two of three frames skip the instance decoder:

    mean(T = 3) / mean(T = 1)  <=  1 - (2/3) * share of the instance decoder + 0.02

The mean frame at T follows from the two medians (`timing.mean_frame`).

Assumption: one still picture, frame after frame. A model with random weights finds nothing in it,
    and masks of nothing cost nothing, so its `LIVE` best queries count as found; shipped weights
    keep what they find.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from minst import training
from minst.config import MobileInstConfig
from minst.data.shapes import ShapesConfig, shapes_clip
from minst.environment import environment
from minst.mobile import timing
from minst.model import Frame, FrameOutput, MobileInst, image_to_batch, upsample_masks
from minst.tracking import ASSOCIATIONS, Candidates, KernelTracker, assign, encode_mask
from minst.training import ClipBatches, ShapesTraining, TrainConfig
from minst.visualize.masks import draw_frame

__all__ = ["bench_data", "bench_latency"]

INTERVALS = (1, 3, 6)
# Frames not counted, a multiple of every interval: the first that counts is a key frame.
WARM_UP = 6
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
    """Print milliseconds of a frame: its stages, fused and not, and the mean frame at T = 1, 3, 6.

    Args:
        preset: a config with random weights (default topformer-tiny).
        weights: in its place shipped ones by name, or a folder.
        size: (H, W). frames: how many every row is measured on.
    Returns, and writes to `json_path`, {"stages": {"fused" | "not fused": {stage: row}},
    "intervals": {"1" | "3" | "6": row with "mean_ms"}, "reuse": {...}, "threads", "torch", "cpu",
    "allocator", ...}; row = {"median_ms", "p95_ms"}.
    Raises ValueError for numbers out of range, an unknown preset, or preset and weights together.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"bench: size is {size!r}; it must be (height, width)")
    timing.check_whole(
        height=(size[0], 64), width=(size[1], 64), threads=(threads, 1), frames=(frames, 2)
    )
    if preset and weights:
        raise ValueError(f"bench: preset {preset!r} and weights {weights!r}; give one of them")
    name = weights or preset or "topformer-tiny"
    clip = shapes_clip("val", 0, ShapesConfig(width=size[1], height=size[0], frames=2))
    image = clip.render(0).image
    with timing.fixed_setting(threads):
        if weights:
            plain = MobileInst.from_pretrained(name)
        else:
            plain = MobileInst(MobileInstConfig.preset(name)).eval()
        models = {"fused": copy.deepcopy(plain).fuse(), "not fused": plain}
        threshold = 0.3 if weights else _threshold(models["fused"], image)
        # random weights may draw nothing at all, and are taken to have found something
        area = 12 if weights else 0
        staged = {kind: defaultdict(list) for kind in models}  # stage -> ms of every frame
        tracked = {t: [] for t in INTERVALS}  # (is_key, ms, instances) of every frame
        jobs = [
            partial(_staged_frame, model, image, threshold, staged[kind])
            for kind, model in models.items()
        ]
        for t in INTERVALS:
            tracker = KernelTracker(models["fused"], t, "mask", threshold, min_area=area)
            jobs.append(partial(_tracked_frame, tracker, image, tracked[t]))
        for job in timing.turns(jobs, WARM_UP + frames):
            job()
    stages = {
        kind: {stage: timing.summarize(ms[WARM_UP:]) for stage, ms in times.items()}
        for kind, times in staged.items()
    }
    intervals = {str(t): _interval_row(t, tracked[t][WARM_UP:]) for t in INTERVALS}
    result = {
        **_setting(name, size, threads),
        "frames": frames,
        "stages": stages,
        "intervals": intervals,
        "reuse": _reuse(stages["fused"], intervals),
    }
    _print_latency(result)
    timing.write_json(result, json_path)
    return result


def bench_data(
    threads: int = 1,
    batches: int = 20,
    json_path: str | Path | None = None,
    config: TrainConfig | None = None,
) -> dict:
    """Print frames a second that one core makes (clips, augmentation) and that training takes in.

    threads: of the network; clips are made by one. config: of the run, by default `minst train`'s.
    Returns, and writes to `json_path`, {"data": row, "training": row, "ratio", "target", "reached",
    ...}; a row holds "frames_per_s", and "median_ms" and "p95_ms" of a batch.
    Raises ValueError for numbers out of range.
    """
    timing.check_whole(threads=(threads, 1), batches=(batches, 1))
    config = config or TrainConfig()
    clips, frames = ClipBatches(config, ShapesTraining(config.seed)), 2 * config.pairs
    times = {"data": [], "training": []}
    with timing.fixed_setting(threads):
        state = training.start(config)
        for i in range(2 + batches):  # two to warm up
            torch.set_num_threads(1)
            start = time.perf_counter()
            batch = clips[i]
            times["data"].append(1e3 * (time.perf_counter() - start))
            torch.set_num_threads(threads)
            times["training"].append(timing.milliseconds(training.step, state, [batch], i, config))
    rows = {
        name: {"frames_per_s": 1e3 * frames / median(ms[2:]), **timing.summarize(ms[2:])}
        for name, ms in times.items()
    }
    ratio = rows["data"]["frames_per_s"] / rows["training"]["frames_per_s"]
    result = {
        **_setting(config.preset, (config.height, config.width), threads),
        "batches": batches,
        "frames_per_batch": frames,
        **rows,
        "ratio": ratio,
        "target": DATA_TARGET,
        "reached": ratio >= DATA_TARGET,
    }
    columns = {
        "frames/s": ("frames_per_s", ".2f"),
        "ms a batch": ("median_ms", ".2f"),
        "p95": ("p95_ms", ".2f"),
    }
    print("\n" + timing.table("", columns, rows.items()))
    verdict = "reached" if result["reached"] else "missed"
    print(
        f"\nclips on one core : training on {threads} thread(s) = {ratio:.2f} "
        f"(at least {DATA_TARGET:g}: {verdict})"
    )
    _print_setting(result)
    timing.write_json(result, json_path)
    return result


@torch.inference_mode()
def _staged_frame(
    model: MobileInst, image: np.ndarray, threshold: float, times: dict[str, list[float]]
) -> None:
    """One key frame, piece by piece: what `KernelTracker.step` does, and drawing."""
    last = first = time.perf_counter()

    def lap(stage: str, value):
        """The value was computed before this call: what it took ends here."""
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


def _tracked_frame(
    tracker: KernelTracker, image: np.ndarray, times: list[tuple[bool, float, int]]
) -> None:
    start = time.perf_counter()
    result = tracker.step(image)
    times.append((result.is_key, 1e3 * (time.perf_counter() - start), len(result.ids)))


@torch.inference_mode()
def _threshold(model: MobileInst, image: np.ndarray) -> float:
    """A score that `LIVE` queries reach and the next best does not."""
    best = model(image_to_batch(image)).scores()[0].amax(-1).sort(descending=True).values
    return float(best[LIVE - 1 : LIVE + 1].mean())


def _interval_row(interval: int, times: list[tuple[bool, float, int]]) -> dict[str, float]:
    """Undrawn frames at reuse interval T; T = 1 knows no frame between key frames."""
    key = median([ms for is_key, ms, _ in times if is_key])
    other = median([ms for is_key, ms, _ in times if not is_key] or [0.0])
    return {
        "mean_ms": timing.mean_frame(key, other, interval),
        "key_ms": key,
        "instances": fmean(count for *_, count in times),
        **timing.summarize([ms for _, ms, _ in times]),
    }


def _reuse(stages: dict, intervals: dict) -> dict:
    """What T = 3 costs of T = 1, and what it may cost."""
    frame = intervals["1"]["mean_ms"]
    share = stages["instance decoder"]["median_ms"] / frame
    limit, ratio = 1 - 2 / 3 * share + MARGIN, intervals["3"]["mean_ms"] / frame
    return {
        "instance_decoder_share": share,
        "reuse_limit": limit,
        "measured_ratio": ratio,
        "within": ratio <= limit,
    }


def _setting(model: str, size: tuple[int, int], threads: int) -> dict:
    """What must be said beside a time."""
    return {
        "model": model,
        "size": list(size),
        "threads": threads,
        "torch": torch.__version__,
        "cpu": environment()["cpu"],
        "allocator": timing.allocator(),
    }


def _print_setting(result: dict) -> None:
    (height, width), threads = result["size"], result["threads"]
    print(
        f"\n{result['model']}, {width}x{height}, {threads} thread(s) of {result['cpu']}, "
        f"torch {result['torch']}\nmalloc: {result['allocator']}"
    )


def _print_latency(result: dict) -> None:
    fused, plain = (result["stages"][kind] for kind in ("fused", "not fused"))
    rows = [
        (stage, {**row, **{f"plain_{key}": ms for key, ms in plain[stage].items()}})
        for stage, row in fused.items()
    ]
    columns = {
        "fused": ("median_ms", ".2f"),
        "p95": ("p95_ms", ".2f"),
        "not fused": ("plain_median_ms", ".2f"),
        " p95": ("plain_p95_ms", ".2f"),
    }
    print("\n" + timing.table("ms a key frame", columns, rows))
    rows = [(f"T = {t}, fused", row) for t, row in result["intervals"].items()]
    keys = ("mean_ms", "key_ms", "median_ms", "p95_ms", "instances")
    columns = {key.removesuffix("_ms"): (key, ".2f") for key in keys}
    print("\n" + timing.table("ms, not drawn", columns, rows))
    share, limit, ratio, within = result["reuse"].values()
    print(
        f"\nof the mean frame at T = 1: instance decoder {share:.1%}, "
        f"mean frame at T = 3 {ratio:.3f}\nreuse_limit 1 - 2/3 x share + {MARGIN}: {limit:.3f} "
        f"({'within' if within else 'exceeded'})"
    )
    _print_setting(result)
