"""Where the milliseconds of a frame go, what runtimes and kernel reuse save, whether data keeps up.

    bench_latency   input, backbone, mask decoder       every frame
                    instance decoder, association       key frames only
                    masks, upsampling, RLE, drawing     every frame
    bench_mobile    eager, fused eager, and exported files: torchscript, lite, executorch, onnx
                      features = reuse - masks    instance decoder = key - reuse    masks alone
    bench_data      frames a second that ClipBatches makes  :  that a training step takes in

Paper: Tab 7, Fig 1, latency on a mobile. Milliseconds are wall time. Kernel reuse is held against
its own limit, since two of three frames skip the instance decoder:

    mean(T = 3) / mean(T = 1)  <=  1 - (2/3) * share of the instance decoder + 0.02

"faults" are pages of memory that a key frame has to ask the system for, since glibc's default
malloc gives large blocks back (tests/benchmarks/malloc_faults.py; memory: cold_start.py beside it).

Assumption: one still picture, frame after frame. A model with random weights finds nothing in it,
    and masks of nothing cost nothing, so its `LIVE` best queries count as found; shipped weights
    keep what they find.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import copy
import datetime
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby, product
from pathlib import Path
from statistics import fmean, median
from typing import Annotated

import numpy as np
import torch
from tqdm.auto import tqdm

import minst
from minst import training
from minst.config import PRESETS
from minst.data.shapes import ShapesConfig, shapes_clip
from minst.environment import environment, installed
from minst.macs import summary
from minst.mobile import timing
from minst.mobile.export import export, parity
from minst.mobile.programs import PARTS, Program, benchmark_model, make_programs, real_frames
from minst.mobile.roofline import core_peak, peak_fraction
from minst.mobile.runtime import FORMATS, load_program, require
from minst.model import Frame, FrameOutput, MobileInst, image_to_batch, upsample_masks
from minst.options import Count, FrameSize, Range, Report, Threads, check_call
from minst.tracking import ASSOCIATIONS, Candidates, KernelTracker, assign, encode_mask
from minst.training import ClipBatches, ShapesTraining, TrainConfig
from minst.visualize.masks import draw_frame

__all__ = ["RUNTIMES", "bench_data", "bench_latency", "bench_mobile"]

INTERVALS = (1, 3, 6)
RUNTIMES = ("eager", "fused", "torchscript", "lite", "executorch", "onnx")
MODELS = ("topformer-tiny", "topformer-small", "topformer-base")
# Frames not counted, a multiple of every interval: the first that counts is a key frame, and
# TorchScript has compiled.
WARM_UP = 6
LIVE = 5  # instances that a model with random weights is taken to find
MARGIN = 0.02  # what the mean frame at T = 3 may cost beyond its share
DATA_TARGET = 2.0  # clips must be made so many times as fast as they are trained on
Several = Annotated[int, Range(2, 10**9)]
MS = {"median": ("median_ms", ".2f"), "p95": ("p95_ms", ".2f")}


# ---------------------------------------------------------------------------- a frame's stages


def bench_latency(
    preset: str | None = None,
    size: FrameSize = (640, 640),
    threads: Threads = 1,
    frames: Several = 30,
    json_path: Report | None = None,
    weights: str | None = None,
) -> dict:
    """Print milliseconds of a frame: its stages, fused and not, and the mean frame at T = 1, 3, 6.

    Args:
        preset: a config with random weights (default topformer-tiny).
        weights: in its place shipped ones by name, or a folder.
        size: (H, W). frames: how many every row is measured on.
    Returns, and writes to `json_path`, {"stages": {"fused" | "not fused": {stage: row}},
    "intervals": {"1" | "3" | "6": row with "mean_ms", "key_ms", "instances"}, "reuse": {...},
    "model", "size", "threads", "frames", "device"}; row = {"median_ms", "p95_ms"}.
    Raises ValueError for bad arguments, before the work.
    """
    check_call(bench_latency, locals(), "bench")
    name, plain = benchmark_model(preset if weights else preset or "topformer-tiny", weights)
    models = {"fused": copy.deepcopy(plain).fuse(), "not fused": plain}
    scene = ShapesConfig(width=size[1], height=size[0], frames=2)
    image = shapes_clip("val", 0, scene).render(0).image
    staged = {kind: defaultdict(list) for kind in models}  # stage -> ms of every frame
    tracked = {t: [] for t in INTERVALS}  # (is_key, ms, instances) of every frame
    with timing.fixed_setting(threads):
        threshold = 0.3 if weights else _threshold(models["fused"], image)
        # random weights may draw nothing at all, and are taken to have found something
        area = 12 if weights else 0
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
    result = {"model": name, "size": list(size), "threads": threads, "frames": frames}
    result |= {"stages": stages, "intervals": intervals, "reuse": _reuse(stages, intervals)}
    result["device"] = _device()
    _print_latency(result)
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
    share = stages["fused"]["instance decoder"]["median_ms"] / frame
    ratio, limit = intervals["3"]["mean_ms"] / frame, 1 - 2 / 3 * share + MARGIN
    said = {"instance_decoder_share": share, "measured_ratio": ratio, "reuse_limit": limit}
    return {**said, "within": ratio <= limit}


def _print_latency(result: dict) -> None:
    (height, width), reuse = result["size"], result["reuse"]
    print(f"\n{result['model']}, {width}x{height}")
    for kind, rows in result["stages"].items():
        print("\n" + timing.table(f"ms a key frame, {kind}", MS, rows.items()))
    rows = [(f"T = {t}, fused", row) for t, row in result["intervals"].items()]
    columns = {"mean": ("mean_ms", ".2f"), "key": ("key_ms", ".2f"), **MS}
    columns |= {"instances": ("instances", ".2f")}
    print("\n" + timing.table("ms, not drawn", columns, rows))
    print(
        f"\nof the mean frame at T = 1: instance decoder {reuse['instance_decoder_share']:.1%}, "
        f"mean frame at T = 3 {reuse['measured_ratio']:.3f}\n"
        f"reuse_limit 1 - 2/3 x share + {MARGIN}: {reuse['reuse_limit']:.3f} "
        f"({'within' if reuse['within'] else 'exceeded'})"
    )
    _print_device(result["device"], result["threads"])


# -------------------------------------------------------------------- one model, six ways to run


def bench_mobile(
    presets: Sequence[str] | None = None,
    sizes: Sequence[int] = (320, 512, 640),
    runtimes: Sequence[str] = RUNTIMES,
    rounds: Several = 20,
    json_path: Report | None = None,
    weights: str | None = None,
    programs_folder: str | Path | None = None,
) -> dict:
    """Print every runtime x model x size on one thread; returns it, and writes it to `json_path`.

    Args:
        presets: with random weights, batch norms settled on real frames (default `MODELS`).
        weights: in their place shipped ones by name, or a folder.
        sizes: of square frames.
        programs_folder: where exported programs are kept for the next run, which takes them if
            they still give this model's outputs; default is a temporary folder.
    Returns {"device", "peak", "rounds", "rows"}. A row: "model", "size", "runtime" and either
    "missing" (why) or "median_ms", "p95_ms" (key frame), "faults" (its page faults), "reuse_ms"
    (median), "mean_ms" {"1" | "3" | "6"}, "stages" {name: ms}, "decoder_share" (of a key frame,
    paired within rounds; see `timing.median_interval`), "to_eager" (ratio of medians),
    "peak_fraction", "first_ms" (the key program's first run) and, of exported ones, "load_ms" and
    "difference" (see `parity`). What follows the masks costs all alike: `bench_latency` has it.
    The default grid takes some 20 minutes on an idle core, more than half of it for the exports.
    Raises ValueError for bad arguments, before the work.
    """
    check_call(bench_mobile, locals(), "bench")
    _check_several("sizes", sizes)
    _check_several("runtimes", runtimes, RUNTIMES)
    for size in sizes:
        check_call(real_frames, {"size": (size, size)}, "bench")
    presets = presets if weights or presets is not None else MODELS
    if presets is not None:
        _check_several("presets", presets, PRESETS)
    models = dict(benchmark_model(preset, weights) for preset in presets or [None])
    rows = []
    with timing.fixed_setting(1), tempfile.TemporaryDirectory() as temporary:
        device, peak = _device(), core_peak()
        bar = tqdm(list(product(models.items(), sizes)), disable=None)
        for (name, model), size in bar:
            bar.set_description(f"{name} {size}")
            folder = Path(programs_folder or temporary) / name / f"{size}x{size}"
            runs, known = _ready(model, size, runtimes, folder)
            times = _measure(runs, rounds)
            macs = summary(model, (size, size))["total"]["macs"]
            found = _rows(known, times, macs, peak)
            rows += [{"model": name, "size": size, **row} for row in found]
    result = {"device": device, "peak": peak, "rounds": rounds, "rows": rows}
    _print_mobile(result)
    timing.write_json(result, json_path)
    return result


def _check_several(what: str, values: Sequence, known: Collection | None = None) -> None:
    """A list of at least one, none twice, all of them known."""
    if isinstance(values, (str, int)) or not values or len(set(values)) < len(values):
        what = f"{what} is {values!r}; it must be a list of at least one, none of them twice"
        raise ValueError(f"bench: {what}")
    for value in values:
        if known is not None and value not in known:
            raise ValueError(f"bench: {what} holds {value!r}; there are {', '.join(known)}")


def _ready(
    model: MobileInst, size: int, runtimes: Sequence[str], folder: Path
) -> tuple[dict, dict]:
    """{runtime: {program: function without arguments}} of those that run here, and {runtime: row}.

    The second holds of each runtime what is known before the rounds, or why it is "missing".
    """
    eager, runs, rows = _programs(model, size), {}, {}
    for runtime in runtimes:
        row = rows[runtime] = {"runtime": runtime}
        try:
            if runtime in FORMATS:
                programs = _loaded(model, runtime, eager, size, folder, row)
            else:
                chosen = copy.deepcopy(model).fuse() if runtime == "fused" else model
                programs = {p.name: p.run for p in _programs(chosen, size)}
            jobs = {p.name: partial(programs[p.name], *p.inputs.values()) for p in eager}
            with torch.inference_mode():
                row["first_ms"] = timing.milliseconds(jobs["key"])
            runs[runtime] = jobs
        except Exception as error:  # noqa: BLE001  whatever an exporter or a runtime says
            row["missing"] = " ".join(str(error).split())[:200]
    return runs, rows


def _programs(model: MobileInst, size: int) -> list[Program]:
    """key, reuse and masks."""
    return [p for part in ("full", "masks") for p in make_programs(model, (size, size), part)]


def _loaded(
    model: MobileInst, format: str, eager: list[Program], size: int, folder: Path, row: dict
) -> dict[str, Callable]:
    """The programs of one format, exported unless they are there and still right.

    Raises ValueError where a program is not what eager computes.
    """
    require(format)
    paths = {p.name: folder / f"{p.name}{FORMATS[format].suffix}" for p in eager}
    for part in ("full", "masks"):
        if not all(_is_of(paths[p.name], p) for p in eager if p.name in PARTS[part]):
            export(model, format, folder, (size, size), part)
    row["difference"] = max(max(parity(paths[p.name], p).values()) for p in eager)
    start = time.perf_counter()
    programs = {"key": load_program(paths["key"])}
    row["load_ms"] = 1e3 * (time.perf_counter() - start)
    return programs | {name: load_program(paths[name]) for name in ("reuse", "masks")}


def _is_of(path: Path, eager: Program) -> bool:
    """Whether the file of an earlier run is this program, written by these versions."""
    try:
        about = load_program(path).metadata
        parity(path, eager)
        return (about["torch"], about["minst"]) == (torch.__version__, minst.__version__)
    except (OSError, ValueError):
        return False


@torch.inference_mode()
def _measure(runs: dict, rounds: int) -> dict:
    """{runtime: {program: [(ms, page faults) of a round]}}."""
    times = {name: defaultdict(list) for name in runs}
    for name in timing.turns(list(runs), WARM_UP + rounds):
        for part, job in runs[name].items():
            before = timing.page_faults()
            ms = timing.milliseconds(job)
            times[name][part].append((ms, timing.page_faults() - before))
    return {
        name: {part: laps[WARM_UP:] for part, laps in parts.items()}
        for name, parts in times.items()
    }


def _rows(known: dict[str, dict], times: dict, macs: int, peak: dict) -> list[dict]:
    """The rows of one model and size, in the order of `known`; all figures are of medians."""
    middle = {
        name: {part: median(ms for ms, _ in laps) for part, laps in parts.items()}
        for name, parts in times.items()
    }
    rows = []
    for runtime, row in known.items():
        rows.append(row)
        if "missing" in row:
            continue
        key, reuse, masks = (middle[runtime][name] for name in ("key", "reuse", "masks"))
        laps, faults = zip(*times[runtime]["key"])
        # of one round: a busy machine slows the key frame and the reuse frame beside it alike
        shares = [1 - r / k for k, (r, _) in zip(laps, times[runtime]["reuse"])]
        row |= timing.summarize(laps) | {
            "faults": median(faults),
            "reuse_ms": reuse,
            "mean_ms": {str(t): timing.mean_frame(key, reuse, t) for t in INTERVALS},
            "stages": {"features": reuse - masks, "instance decoder": key - reuse, "masks": masks},
            "decoder_share": timing.median_interval(shares),
            "to_eager": key / middle["eager"]["key"] if "eager" in middle else None,
            "peak_fraction": peak_fraction(macs, key, peak),
        }
    return rows


def _print_mobile(result: dict) -> None:
    columns = {
        **MS,
        "reuse": ("reuse_ms", ".2f"),
        "x eager": ("to_eager", ".2f"),
        "T = 3": ("3", ".2f"),
        "T = 6": ("6", ".2f"),
        "of peak": ("peak_fraction", ".0%"),
        "features": ("features", ".2f"),
        "decoder": ("instance decoder", ".2f"),
        "masks": ("masks", ".2f"),
        "faults": ("faults", ".0f"),
        "load": ("load_ms", ".1f"),
        "first": ("first_ms", ".1f"),
        "difference": ("difference", ".0e"),
    }
    for (model, size), rows in groupby(result["rows"], key=lambda row: (row["model"], row["size"])):
        rows = list(rows)
        there = [{**row, **row["mean_ms"], **row["stages"]} for row in rows if "stages" in row]
        print(f"\n{model}, {size} x {size}")
        print(timing.table("ms", columns, [(row["runtime"], row) for row in there]))
        for row in rows:
            if "missing" in row:
                print(f"{row['runtime']:12}  missing: {row['missing']}")
        decoders = (f"{row['runtime']} {timing.said(row['decoder_share'])}" for row in there)
        print(f"instance decoder, of a key frame: {', '.join(decoders)}")
    peak = result["peak"]
    print(f"\npeak {peak['gflop_s']:.0f} GFLOP/s, {peak['gb_s']:.0f} GB/s")
    _print_device(result["device"], 1)


# ------------------------------------------------------------------------ data, and the machine


def bench_data(threads: Threads = 1, batches: Count = 20, json_path: Report | None = None) -> dict:
    """Print frames a second that one core makes (clips, augmentation) and that training takes in.

    threads: of the network; clips are made by one. The run is that of `minst train`.
    Returns, and writes to `json_path`, {"data": row, "training": row, "ratio", "target", "reached",
    "device", ...}; a row holds "frames_per_s", and "median_ms" and "p95_ms" of a batch.
    Raises ValueError for numbers out of range.
    """
    check_call(bench_data, locals(), "bench")
    config = TrainConfig()
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
    result = {"threads": threads, "batches": batches, "frames_per_batch": frames, **rows}
    result |= {"ratio": ratio, "target": DATA_TARGET, "reached": ratio >= DATA_TARGET}
    result["device"] = _device()
    columns = {"frames/s": ("frames_per_s", ".2f"), **MS}
    print("\n" + timing.table("ms a batch", columns, rows.items()))
    print(
        f"\nclips on one core : training on {threads} thread(s) = {ratio:.2f} "
        f"(at least {DATA_TARGET:g}: {'reached' if result['reached'] else 'missed'})"
    )
    _print_device(result["device"], threads)
    timing.write_json(result, json_path)
    return result


def _device() -> dict:
    """What must be said beside a time; "unknown" where the system does not tell."""
    found = environment()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    said = {name: found[name] for name in ("cpu", "cores", "platform", "python", "minst")}
    said |= {"torch": torch.__version__} | {
        name: installed(name) for name in ("executorch", "onnxruntime")
    }
    return {
        **said,
        "governor": governor.read_text().strip() if governor.is_file() else "unknown",
        "allocator": timing.allocator(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _print_device(device: dict, threads: int) -> None:
    print(
        f"{threads} thread(s) of {device['cpu']}, governor {device['governor']}, "
        f"load {device['load_average']}; malloc: {device['allocator']}"
    )
    versions = ("torch", "executorch", "onnxruntime", "python")
    print(", ".join([*(f"{name} {device[name]}" for name in versions), device["platform"]]))
