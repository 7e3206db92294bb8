"""One model, six ways to run it, one core: measured in turns within one run, in one table.

    weights --save--> eager, fused eager                       key frame    everything
            --export-> torchscript, lite, executorch, onnx     reuse frame  features, K . X_mask
                                                               masks        K . X_mask alone

    features = reuse - masks     instance decoder = key - reuse
    mean(T) = (key + (T - 1) * reuse) / T                               all of medians

Paper: latency on a mobile. Upsampling and drawing (of the `LIVE` best queries) lie outside every
program and cost all alike. "faults" are pages of memory that a key frame has to ask the system
for: glibc's default malloc gives large blocks back after each frame. Whether it does depends on
what lies at the top of the heap, so that of equal processes some pay for thousands a frame and some
for none: tests/benchmarks/malloc_faults.py starts several of each kind.

Assumption: files are read from the system's cache. What a program adds to the memory of a process
    that does nothing else is measured by tests/benchmarks/cold_start.py.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import datetime
import importlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

import minst
from minst.config import PRESETS
from minst.environment import environment
from minst.macs import summary
from minst.mobile import timing
from minst.mobile.benchmark import INTERVALS, LIVE
from minst.mobile.export import export, parity
from minst.mobile.optimize import check_xnnpack, quiet
from minst.mobile.programs import (
    PARTS,
    KeyFrame,
    Program,
    make_programs,
    real_frames,
    settled_model,
)
from minst.mobile.roofline import core_peak, peak_fraction
from minst.mobile.runtime import SUFFIXES, load_program
from minst.model import MobileInst, upsample_masks
from minst.visualize.masks import draw_frame

__all__ = ["RUNTIMES", "bench_mobile"]

RUNTIMES = ("eager", "fused", "torchscript", "lite", "executorch", "onnx")
# what is needed beyond torch, to export and to run
PACKAGES = {
    "executorch": ("executorch.runtime",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}
MODELS = ("topformer-tiny", "topformer-small", "topformer-base")
OUTSIDE = "outside of all programs"
BUNDLED = 3  # frames in a lite file, of one byte a number
WARM_UP = 3  # rounds not counted: TorchScript compiles in its first runs


def bench_mobile(
    presets: Sequence[str] | None = None,
    sizes: Sequence[int] = (320, 512, 640),
    runtimes: Sequence[str] = RUNTIMES,
    rounds: int = 20,
    json_path: str | Path | None = None,
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
    Returns {"device", "peak", "rounds", "rows", "seconds"}. A row: "model", "size", "runtime" and
    either "missing" (why) or "median_ms", "p95_ms" (key frame), "faults" (its page faults), "reuse"
    (the same three), "mean_ms" {"1" | "3" | "6"}, "stages" {name: ms}, "to_eager" (ratio of
    medians), "macs", "peak_fraction", "file_mb", "load_ms" and "first_ms" (the key program) and, of
    exported ones, "difference" (see `parity`).
    The default grid takes some 20 minutes on an idle core, more than half of it for the exports.
    Raises ValueError (unknown names, numbers out of range, presets and weights together) or OSError
    (json_path cannot be written), both before the work starts.
    """
    _check_grid(sizes, runtimes, rounds, json_path)
    models, started = _models(presets, weights), time.perf_counter()
    missing = {runtime: why for runtime in runtimes if (why := _missing(runtime))}
    able, rows = [runtime for runtime in runtimes if runtime not in missing], []
    with timing.fixed_setting(1), tempfile.TemporaryDirectory() as temporary:
        folder = Path(programs_folder or temporary)
        device, peak = _device(), core_peak()
        cases = [_case(*model, size, folder) for model in models.items() for size in sizes]
        # getting a runtime ready counts as a round of all of them
        steps = len(cases) * (WARM_UP + rounds + len(able))
        with tqdm(total=steps, disable=None) as bar:
            for case in cases:
                runs, said = _ready(case, able, bar)
                said |= {runtime: {"missing": why} for runtime, why in missing.items()}
                rows += _rows(case, runtimes, _measure(case, runs, rounds, bar), said, peak)
    seconds = time.perf_counter() - started
    result = {"device": device, "peak": peak, "rounds": rounds, "rows": rows, "seconds": seconds}
    _print(result)
    timing.write_json(result, json_path)
    return result


class Case(NamedTuple):
    """One model at one frame size."""

    model: str
    size: int
    macs: int
    weights: Path  # the folder of its weights: folder/model
    programs: Path  # that of its exported programs: folder/model/SIZE


# ------------------------------------------------------------------------------ before the work


def _models(presets: Sequence[str] | None, weights: str | None) -> dict[str, MobileInst]:
    if presets is not None and weights is not None:
        given = f"presets {list(presets)} and weights {weights!r}"
        raise ValueError(f"bench: {given}; give one of them")
    if weights is not None:
        return {Path(weights).resolve().name: MobileInst.from_pretrained(weights)}
    presets = MODELS if presets is None else presets
    _check_several("presets", presets, PRESETS)
    return {preset: settled_model(preset) for preset in presets}


def _check_grid(sizes, runtimes, rounds, json_path) -> None:
    _check_several("sizes", sizes)
    for size in sizes:
        timing.check_whole(size=(size, 64))
    _check_several("runtimes", runtimes, RUNTIMES)
    timing.check_whole(rounds=(rounds, 2))
    if json_path is not None:  # found out now rather than after a quarter of an hour
        there = Path(json_path).exists()
        with open(json_path, "a"):
            pass
        if not there:
            Path(json_path).unlink()


def _check_several(what: str, values: Sequence, known: Collection | None = None) -> None:
    """A list of at least one, none twice, all of them known."""
    if isinstance(values, (str, int)) or not values or len(set(values)) < len(values):
        raise ValueError(
            f"bench: {what} is {values!r}; it must be a list of at least one, none of them twice"
        )
    for value in values:
        if known is not None and value not in known:
            raise ValueError(f"bench: {what} holds {value!r}; there are {', '.join(known)}")


def _missing(runtime: str) -> str | None:
    """Why this machine cannot run it, in one line."""
    try:
        if runtime == "lite":
            check_xnnpack()
    except ImportError as error:
        return str(error)
    for package in PACKAGES.get(runtime, ()):
        try:
            with quiet():
                importlib.import_module(package)
        except ImportError as error:
            name = package.partition(".")[0]
            why = _one_line(error)
            return f"{name} cannot be imported ({why}); `minst env` says what to do"
    return None


def _device() -> dict:
    """What the figures depend on, before the work starts."""
    found, clock = environment(), {}
    names = {"governor": "scaling_governor", "khz_now": "scaling_cur_freq"}
    for name, file in {**names, "khz_max": "cpuinfo_max_freq"}.items():
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq") / file
        clock[name] = path.read_text().strip() if path.is_file() else "not visible"
    versions = {
        name: found["packages"].get(name, {}).get("installed")
        for name in ("executorch", "onnxruntime")
    }
    return {
        "cpu": found["cpu"],
        "cores": found["cores"],
        **clock,
        "threads": 1,
        "allocator": timing.allocator(),
        "torch": torch.__version__,
        **versions,
        "python": found["python"],
        "os": found["platform"],
        "minst": minst.__version__,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _case(name: str, model: MobileInst, size: int, folder: Path) -> Case:
    model.save_pretrained(folder / name)
    macs = summary(model, (size, size))["total"]["macs"]
    return Case(name, size, macs, folder / name, folder / name / f"{size}x{size}")


def _file(case: Case, name: str, runtime: str) -> Path:
    return case.programs / f"{name}{SUFFIXES.get(runtime, '')}"


# --------------------------------------------------------------------------------------- rounds


def _ready(case: Case, runtimes: list[str], bar: tqdm) -> tuple[dict, dict]:
    """{runtime: {program: function without arguments}} of those that run here, and what of rows.

    The second holds of each runtime what is known before the rounds, or why it is "missing".
    """
    eager, runs, said = _programs(MobileInst.from_pretrained(case.weights), case.size), {}, {}
    for runtime in runtimes:
        bar.set_description(f"{case.model} {case.size} {runtime}")
        try:
            runs[runtime], said[runtime] = _loaded(case, runtime, eager)
        except Exception as error:  # noqa: BLE001  whatever an exporter or a runtime says
            said[runtime] = {"missing": _one_line(error)}
        bar.update()
    return runs, said


def _loaded(case: Case, runtime: str, eager: list[Program]) -> tuple[dict[str, Callable], dict]:
    """The programs of one runtime, exported where needed, and what their row says so far."""
    inputs = {program.name: program.inputs.values() for program in eager}
    said = {"difference": _exported(case, runtime, eager)} if runtime in SUFFIXES else {}
    start = time.perf_counter()
    if runtime in SUFFIXES:
        key = load_program(_file(case, "key", runtime))
    else:
        model = MobileInst.from_pretrained(case.weights)
        model = model.fuse() if runtime == "fused" else model
        key = Program("key", KeyFrame(model).eval(), []).run
    said["load_ms"] = 1e3 * (time.perf_counter() - start)
    with torch.inference_mode():
        said["first_ms"] = timing.milliseconds(key, *inputs["key"])
    if runtime in SUFFIXES:
        others = {name: load_program(_file(case, name, runtime)) for name in inputs}
    else:
        others = {program.name: program.run for program in _programs(model, case.size)}
    return {name: partial(others[name], *given) for name, given in inputs.items()}, said


def _exported(case: Case, format: str, eager: list[Program]) -> float:
    """Write the programs unless they are there and still right; their largest difference to eager.

    Raises ValueError where a program is not what eager computes.
    """
    worst = []
    for part in ("full", "masks"):
        own = [(_file(case, p.name, format), p) for p in eager if p.name in PARTS[part]]
        if not all(_still_right(*pair) for pair in own):
            export(case.weights, format, case.programs, (case.size, case.size), part)
        worst += [max(parity(*pair).values()) for pair in own]
    return max(worst)


def _still_right(path: Path, eager: Program) -> bool:
    """Whether the file of an earlier run is this model's, written by these versions."""
    try:
        about = load_program(path).metadata
        parity(path, eager)
        return (about["torch"], about["minst"]) == (torch.__version__, minst.__version__)
    except (OSError, ValueError):
        return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _programs(model: MobileInst, size: int) -> list[Program]:
    parts = ("full", "masks")
    return [program for part in parts for program in make_programs(model, (size, size), part)]


@torch.inference_mode()
def _measure(case: Case, runs: dict, rounds: int, bar: tqdm) -> dict:
    """{runtime: {program: [(ms, page faults) of a round]}}; under `OUTSIDE` what lies outside."""
    times = {name: defaultdict(list) for name in (*runs, OUTSIDE)}
    jobs = list(zip(times.values(), [*runs.values(), _outside(case)], strict=True))
    bar.set_description(f"{case.model} {case.size}, rounds")
    for laps, parts in timing.turns(jobs, WARM_UP + rounds):
        for name, part in parts.items():
            before = timing.page_faults()
            ms = timing.milliseconds(part)
            laps[name].append((ms, timing.page_faults() - before))
        bar.update(1 / len(jobs))
    return {
        name: {part: laps[WARM_UP:] for part, laps in parts.items()}
        for name, parts in times.items()
    }


def _outside(case: Case) -> dict[str, Callable]:
    """What follows the masks, for the `LIVE` best queries; the same whatever ran the model."""
    size = (case.size, case.size)
    frame = real_frames(size, 1)
    out = MobileInst.from_pretrained(case.weights)(frame)
    best = out.scores()[0].amax(-1).argsort(descending=True)[:LIVE]
    logits = out.mask_logits[:, best]
    image = frame[0].permute(1, 2, 0).mul(255).round().byte().numpy()

    def upsampling() -> np.ndarray:
        return upsample_masks(logits, size)[0].ge(0).numpy()

    found = list(upsampling())
    ids = range(1, len(found) + 1)
    return {"upsampling": upsampling, "drawing": partial(draw_frame, image, found, ids)}


# ----------------------------------------------------------------------------------------- rows


def _rows(case: Case, runtimes: Sequence[str], times: dict, said: dict, peak: dict) -> list[dict]:
    """The rows of one case, in the order of `runtimes`."""
    found = {
        name: {part: _row(laps) for part, laps in parts.items()} for name, parts in times.items()
    }
    outside = {stage: row["median_ms"] for stage, row in found[OUTSIDE].items()}
    rows = []
    for runtime in runtimes:
        row = {"model": case.model, "size": case.size, "runtime": runtime}
        rows.append(row)
        if "missing" in said[runtime]:
            row |= said[runtime]
            continue
        key, reuse, masks = (
            found[runtime][name]["median_ms"] for name in ("key", "reuse", "masks")
        )
        stages = {"features": reuse - masks, "instance decoder": key - reuse, "masks": masks}
        row |= {
            **found[runtime]["key"],
            "reuse": found[runtime]["reuse"],
            "mean_ms": {str(t): timing.mean_frame(key, reuse, t) for t in INTERVALS},
            "stages": {**stages, **outside},
            "to_eager": key / found["eager"]["key"]["median_ms"] if "eager" in found else None,
            "macs": case.macs,
            "peak_fraction": peak_fraction(case.macs, key, peak),
            "file_mb": _file_mb(case, runtime),
            **said[runtime],
        }
    return rows


def _row(laps: list[tuple[float, int]]) -> dict[str, float]:
    ms, faults = zip(*laps, strict=True)
    return {**timing.summarize(ms), "faults": median(faults)}


def _file_mb(case: Case, runtime: str) -> float:
    """Of the key program, or of the weights where there is none."""
    if runtime not in SUFFIXES:
        return (case.weights / "model.safetensors").stat().st_size / 1e6
    bundled = BUNDLED * 3 * case.size**2 if runtime == "lite" else 0
    return (_file(case, "key", runtime).stat().st_size - bundled) / 1e6


def _print(result: dict) -> None:
    columns = {
        "key": ("median_ms", ".2f"),
        "p95": ("p95_ms", ".2f"),
        "reuse": ("reuse_ms", ".2f"),
        "x eager": ("to_eager", ".2f"),
        "T = 3": ("3", ".2f"),
        "T = 6": ("6", ".2f"),
        "% peak": ("percent", ".0f"),
        "features": ("features", ".2f"),
        "decoder": ("instance decoder", ".2f"),
        "masks": ("masks", ".2f"),
        "faults": ("faults", ".0f"),
        "load": ("load_ms", ".1f"),
        "first": ("first_ms", ".1f"),
        "MB file": ("file_mb", ".1f"),
    }
    for (model, size), rows in groupby(result["rows"], key=lambda row: (row["model"], row["size"])):
        rows = list(rows)
        there = [row for row in rows if "missing" not in row]
        stages = there[0]["stages"] if there else {}
        outside = [f"{name} {stages[name]:.1f} ms" for name in ("upsampling", "drawing") if stages]
        print(f"\n{model}, {size} x {size}; after every runtime: {', '.join(outside) or 'nothing'}")
        print(timing.table("ms", columns, [(row["runtime"], _flat(row)) for row in there]))
        for row in rows:
            if "missing" in row:
                print(f"{row['runtime']:12}  missing: {row['missing']}")
    device, peak = result["device"], result["peak"]
    print(
        f"\none thread of {device['cpu']}, governor {device['governor']}, "
        f"load {device['load_average']} at the start"
    )
    print(
        f"peak {peak['gflop_s']:.0f} GFLOP/s, {peak['gb_s']:.0f} GB/s; "
        f"faults: pages asked for in a key frame; malloc: {device['allocator']}"
    )
    versions = ("torch", "executorch", "onnxruntime", "python", "os")
    print(", ".join(f"{name} {device[name]}" for name in versions))
    differing = [row for row in result["rows"] if "difference" in row]
    if differing:
        worst = max(differing, key=lambda row: row["difference"])
        print(
            f"largest difference to eager {worst['difference']:.1e} "
            f"({worst['runtime']}, {worst['model']}, {worst['size']})"
        )
    print(f"took {result['seconds'] / 60:.1f} minutes")


def _flat(row: dict) -> dict:
    """A row with what the printed table takes from deeper down."""
    percent, reuse = 100 * row["peak_fraction"], row["reuse"]["median_ms"]
    return {**row, **row["mean_ms"], **row["stages"], "percent": percent, "reuse_ms": reuse}
