"""One model, six ways to run it, one core: measured in turns within one run, in one table (paper: latency on a mobile).

    weights --save--> eager, fused eager                       key frame    everything
            --export-> torchscript, lite, executorch, onnx     reuse frame  features, then K . X_mask
                                     |                         masks        K . X_mask alone
           rounds in turns in this process  +  a process of its own each for load, first run and memory

    features = reuse - masks     instance decoder = key - reuse     mean(T) = (key + (T - 1) * reuse) / T    of medians

Upsampling and drawing (of the `LIVE` best queries) lie outside every program and cost all alike. The order turns from
round to round, so that a machine busy with other things slows all alike. `malloc`: the same frames in processes that
take turns, some with glibc's default allocator, some that keep their memory, and the page faults of each. Where the
default gives memory back depends on what lies at the top of the heap: of equal processes some pay for thousands of page
faults a frame and some for none, at small sizes. Eager figures of one process share in that luck.

Assumption: peak memory is what loading and running the key program adds to a process that has imported its runtime
    (and torch); a lite file is counted without the frames bundled in it. Files are read from the system's cache.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

import minst
from minst.config import PRESETS
from minst.environment import environment
from minst.macs import summary
from minst.mobile.benchmark import INTERVALS, LIVE, _check, _row, _setting, allocator
from minst.mobile.export import _quiet, metadata, parity, write_program
from minst.mobile.optimize import check_xnnpack
from minst.mobile.programs import KeyFrame, Program, make_programs, real_frames, settled_model
from minst.mobile.roofline import core_peak, peak_fraction
from minst.mobile.runtime import SUFFIXES, load_program
from minst.model import MobileInst, upsample_masks
from minst.visualize.masks import draw_frame

__all__ = ["RUNTIMES", "bench_mobile"]

# runtime -> the packages it needs beyond torch, to export and to run
RUNTIMES = {"eager": (), "fused": (), "torchscript": (), "lite": (), "executorch": ("executorch.runtime",),
            "onnx": ("onnx", "onnxscript", "onnxruntime")}  # fmt: skip
MODELS = ("topformer-tiny", "topformer-small", "topformer-base")
OUTSIDE = "outside of all programs"
BUNDLED = 3  # frames in a lite file, of one byte a number
WARM_UP = 3  # rounds not counted: TorchScript compiles in its first runs
PROCESSES = 3  # with each allocator
KEEP = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
}  # as `allocator` advises
# seconds that exports and a process take on an idle core: for the estimate alone
EXPORT_S, PROCESS_S = {"torchscript": 8, "lite": 9, "onnx": 18, "executorch": 50}, 4


def bench_mobile(
    presets: Sequence[str] | None = None,
    sizes: Sequence[int] = (320, 512, 640),
    runtimes: Sequence[str] = tuple(RUNTIMES),
    rounds: int = 20,
    json_path: str | Path | None = None,
    weights: str | None = None,
    programs_folder: str | Path | None = None,
) -> dict:
    """Every runtime x model x size on one thread. Prints the table, returns it, and writes it to `json_path`.

    presets: with random weights, batch norms settled on real frames (default `MODELS`); or weights: shipped ones by
    name, or a folder. sizes: of square frames. programs_folder: where exported programs are kept for the next run,
    which takes them if they still give this model's outputs; default is a temporary folder.
    Returns {"device", "peak", "rounds", "rows", "malloc", "seconds"}. A row: "model", "size", "runtime" and either
    "missing" (why) or "median_ms", "p95_ms" (key frame), "reuse" (the same two), "mean_ms" {"1" | "3" | "6"}, "stages"
    {name: ms}, "to_eager" (ratio of medians), "macs", "peak_fraction", "file_mb", "load_ms", "first_ms", "peak_mb",
    "imports_mb" (the process before it loads) and, of exported ones, "difference" (see `minst.mobile.export.parity`).
    The default grid takes some 15 minutes on two idle cores, half of it for the exports.
    Raises ValueError (unknown names, numbers out of range, presets and weights together) or OSError (json_path cannot
    be written), both before the work starts.
    """
    _check_grid(sizes, runtimes, rounds, json_path)
    models, started = _models(presets, weights), time.perf_counter()
    missing = {runtime: why for runtime in runtimes if (why := _missing(runtime))}
    able, seconds, rows = [runtime for runtime in runtimes if runtime not in missing], {}, []
    with _setting(1), _folder(programs_folder) as folder:
        device, peak = _device(), core_peak()
        cases = [
            _case(name, model, size, folder, peak)
            for name, model in models.items()
            for size in sizes
        ]
        with _progress(cases, able, rounds) as bar:
            with _timed(seconds, "exports"):
                exported = _export_all(cases, able, bar)
            for case in cases:
                runs, why = _loaded(case, runtimes, exported[case], missing)
                with _timed(seconds, "rounds"):
                    times = _measure(case, runs, rounds, bar)
                with _timed(seconds, "processes"):
                    alone = {
                        runtime: {
                            **exported[case].get(runtime, {}),
                            **_cold_start(case, runtime, bar),
                        }
                        for runtime in runs
                    }
                rows += _rows(case, runtimes, times, alone, why, peak)
            with _timed(seconds, "malloc"):
                # large frames show it best
                malloc = _malloc(max(cases[: len(sizes)], key=lambda case: case.size), rounds)
    seconds["all"] = time.perf_counter() - started
    result = {
        "device": device,
        "peak": peak,
        "rounds": rounds,
        "rows": rows,
        "malloc": malloc,
        "seconds": seconds,
    }
    _print(result)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {json_path}")
    return result


class Case(NamedTuple):
    """One model at one frame size; its weights lie in folder/model, its programs in folder/model/SIZE."""

    model: str
    size: int
    folder: Path
    macs: int
    turn_s: float  # what a turn of one runtime may take: for the estimate alone

    @property
    def weights(self) -> Path:
        """Where the weights of this model lie."""
        return self.folder / self.model

    @property
    def programs(self) -> Path:
        """Where its exported programs of this size lie."""
        return self.weights / f"{self.size}x{self.size}"


# ---------------------------------------------------------------------------------------------- before the work


def _models(presets: Sequence[str] | None, weights: str | None) -> dict[str, MobileInst]:
    if presets is not None and weights is not None:
        raise ValueError(
            f"bench: presets {list(presets)} and weights {weights!r}; give one of them"
        )
    if weights is not None:
        return {Path(weights).resolve().name: MobileInst.from_pretrained(weights)}
    presets = _several("presets", MODELS if presets is None else presets, PRESETS)
    return {preset: settled_model(preset) for preset in presets}


def _check_grid(
    sizes: Sequence[int], runtimes: Sequence[str], rounds: int, json_path: str | Path | None
) -> None:
    for size in _several("sizes", sizes):
        _check(size=(size, 64))
    _several("runtimes", runtimes, RUNTIMES)
    _check(rounds=(rounds, 2))
    if json_path is not None:  # found out now rather than after a quarter of an hour
        there = Path(json_path).exists()
        with open(json_path, "a"):
            pass
        if not there:
            Path(json_path).unlink()


def _several(what: str, values: Sequence, known: Collection | None = None) -> list:
    """`values` as a list: at least one, none twice, all of them known."""
    if isinstance(values, (str, int)) or not values or len(set(values)) < len(values):
        raise ValueError(
            f"bench: {what} is {values!r}; it must be a list of at least one, none of them twice"
        )
    for value in values:
        if known is not None and value not in known:
            raise ValueError(f"bench: {what} holds {value!r}; there are {', '.join(known)}")
    return list(values)


def _missing(runtime: str) -> str | None:
    """Why this machine cannot run it, in one line."""
    try:
        if runtime == "lite":
            check_xnnpack()
    except ImportError as error:
        return str(error)
    for package in RUNTIMES[runtime]:
        try:
            with _quiet():
                importlib.import_module(package)
        except ImportError as error:
            return f"{package.partition('.')[0]} cannot be imported ({_line(str(error))}); `minst env` says what to do"
    return None


def _device() -> dict:
    """What the figures depend on, before the work starts."""
    found, policy = environment(), Path("/sys/devices/system/cpu/cpu0/cpufreq")
    shown = {name: path.read_text().strip() if (path := policy / file).is_file() else "not visible" for name, file in
             (("governor", "scaling_governor"), ("khz_now", "scaling_cur_freq"), ("khz_max", "cpuinfo_max_freq"))}  # fmt: skip
    versions = {
        name: found["packages"].get(name, {}).get("installed")
        for name in ("executorch", "onnxruntime")
    }
    return {"cpu": found["cpu"], "cores": found["cores"], **shown, "threads": 1, "allocator": allocator(),
            "torch": torch.__version__, **versions,
            "python": found["python"], "os": found["platform"], "minst": minst.__version__,
            "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}  # fmt: skip


def _case(name: str, model: MobileInst, size: int, folder: Path, peak: dict) -> Case:
    model.save_pretrained(folder / name)
    macs = summary(model, (size, size))["total"]["macs"]
    # a key frame and a reuse frame at a third of the core's peak
    return Case(name, size, folder, macs, 2 * 3 * 2e-9 * macs / peak["gflop_s"])


@contextlib.contextmanager
def _folder(given: str | Path | None) -> Iterator[Path]:
    with (
        tempfile.TemporaryDirectory() if given is None else contextlib.nullcontext(given) as folder
    ):
        yield Path(folder)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = seconds.get(what, 0) + time.perf_counter() - start


def _progress(cases: list[Case], runtimes: list[str], rounds: int) -> tqdm:
    """A bar over the seconds that an idle machine would take."""
    exports = (
        sum(EXPORT_S[runtime] for runtime in runtimes if runtime in SUFFIXES)
        / _workers()
        * len(cases)
    )
    frames = sum(case.turn_s for case in cases) * (WARM_UP + rounds) * len(runtimes)
    total = exports + frames + PROCESS_S * len(cases) * len(runtimes)
    print(
        f"{len(cases) * len(runtimes)} configurations, about {total / 60:.0f} minutes if nothing else runs"
    )
    form = "{desc:32}{percentage:3.0f} %|{bar:20}| {elapsed}, {remaining} left"
    return tqdm(total=1.001 * total, bar_format=form, disable=None)


def _workers() -> int:
    return min(os.cpu_count() or 1, 4)


# ---------------------------------------------------------------------------------------------- processes


def _export_all(cases: list[Case], runtimes: list[str], bar: tqdm) -> dict[Case, dict[str, dict]]:
    """All programs, written by processes that leave nothing behind here; {case: {runtime: what `_export` says}}."""
    said = {case: {} for case in cases}
    jobs = [(case, runtime) for case in cases for runtime in runtimes if runtime in SUFFIXES]
    jobs.sort(
        key=lambda job: -EXPORT_S[job[1]]
    )  # the longest first, so that no core waits at the end
    with ThreadPoolExecutor(_workers()) as pool:
        waiting = {pool.submit(_ask, _export, str(c.weights), runtime, str(c.programs), c.size): (c, runtime)
                   for c, runtime in jobs}  # fmt: skip
        for done in as_completed(waiting):
            case, runtime = waiting[done]
            said[case][runtime] = done.result()
            bar.set_description(f"exported {case.model} {case.size} {runtime}"[:31])
            bar.update(EXPORT_S[runtime] / _workers())
    return said


def _export(weights: str, format: str, out: str, size: int) -> dict:
    """In a process of its own: key, reuse and masks, unless they are there and still right.

    Returns {"difference": the largest to eager}; ValueError where they differ.
    """
    torch.set_num_threads(1)
    Path(out).mkdir(parents=True, exist_ok=True)
    model, worst = MobileInst.from_pretrained(weights), 0.0
    for fused, eager in zip(_programs(copy.deepcopy(model).fuse(), size), _programs(model, size)):
        path = Path(out) / f"{eager.name}{SUFFIXES[format]}"
        difference = _kept(path, eager)
        if difference is None:
            about = metadata(fused, model, Path(weights).name, (size, size))
            write_program(fused._replace(examples=eager.examples), format, path, about)
            difference = max(parity(path, eager).values())
        worst = max(worst, difference)
    return {"difference": worst}


def _programs(model: MobileInst, size: int) -> list[Program]:
    return [
        program
        for part in ("full", "masks")
        for program in make_programs(model, (size, size), part)
    ]


def _kept(path: Path, eager: Program) -> float | None:
    """How far a file of an earlier run lies from this model; None where it is too far, or of other versions."""
    try:
        about = load_program(path).metadata
        written_by = (about["torch"], about["minst"]) == (torch.__version__, minst.__version__)
        return max(parity(path, eager).values()) if written_by else None
    except (OSError, ValueError):
        return None


def _cold_start(case: Case, runtime: str, bar: tqdm) -> dict:
    bar.set_description(f"process {case.model} {case.size} {runtime}"[:31])
    bar.update(PROCESS_S)
    return _ask(_cold, str(case.weights), str(_program(case, "key", runtime)), runtime, case.size)


def _cold(weights: str, path: str, runtime: str, size: int) -> dict:
    """In a process of its own: the key program loaded and run for the first time, and the memory that this adds."""
    torch.set_num_threads(1)
    for package in RUNTIMES[runtime]:
        importlib.import_module(package)
    frame, imports = torch.rand(1, 3, size, size), _memory(reset=True)
    laps = [time.perf_counter()]
    if runtime in SUFFIXES:
        run = load_program(path)
    else:
        model = MobileInst.from_pretrained(weights)
        model = model.fuse() if runtime == "fused" else model
        run = Program("key", KeyFrame(model).eval(), []).run
    laps.append(time.perf_counter())
    with torch.inference_mode():
        run(frame)
        laps.append(time.perf_counter())
        for _ in range(3):
            run(frame)
    load, first = (1e3 * (end - start) for start, end in zip(laps, laps[1:]))
    return {
        "load_ms": load,
        "first_ms": first,
        "peak_mb": _memory() - imports,
        "imports_mb": imports,
    }


def _memory(reset: bool = False) -> float:
    """The most memory (MB) that this process has held, since the last reset where the system has one (Linux)."""
    import resource

    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobytes = int(found[1]) if found else most / (1024 if sys.platform == "darwin" else 1)
    return 1.024e-3 * kilobytes


def _malloc(case: Case, rounds: int) -> dict:
    """ms and page faults of a frame under glibc's default allocator and one that keeps its memory, in turns."""
    if platform.libc_ver()[0] != "glibc":
        return {"missing": f"{allocator()} is not glibc's"}
    untouched = {
        k: v for k, v in os.environ.items() if k not in (*KEEP, "GLIBC_TUNABLES", "LD_PRELOAD")
    }
    with contextlib.ExitStack() as stack:
        start, children = (
            partial(_start, _faults, str(case.weights), case.size, pipe=subprocess.PIPE),
            [],
        )
        # few rounds ask for a quick look: then one process of each kind will do
        for kind, env in min(PROCESSES, 1 + rounds // 10) * (
            ("default", untouched),
            ("tuned", {**untouched, **KEEP}),
        ):
            children.append((kind, stack.enter_context(start(env=env)), []))
            stack.callback(children[-1][1].kill)
        for i in range(WARM_UP + rounds):
            turn = i % len(children)
            for _, child, laps in children[turn:] + children[:turn]:
                laps.append(_turn_of(child))
    rows = {
        kind: _faults_row([laps[WARM_UP:] for k, _, laps in children if k == kind])
        for kind in ("default", "tuned")
    }
    cost = {
        name: row["median_ms"] / rows["tuned"][name]["median_ms"] - 1
        for name, row in rows["default"].items()
    }
    return {"model": case.model, "size": case.size, **rows, "cost": cost}


def _turn_of(child: subprocess.Popen) -> dict:
    child.stdin.write("\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        raise RuntimeError(
            f"bench: the process that measures malloc ended: {_line(child.stderr.read())}"
        )
    return json.loads(answer)


def _faults(weights: str, size: int) -> None:
    """In a process of its own: for every line that comes in, one frame each; {model: [ms, page faults]} goes out."""
    import resource

    torch.set_num_threads(1)
    frame, plain = torch.rand(1, 3, size, size), MobileInst.from_pretrained(weights)
    models = {"eager": plain, "fused": copy.deepcopy(plain).fuse()}
    for _ in sys.stdin:
        said = {}
        for name, model in models.items():
            with torch.inference_mode():
                faults, start = (
                    resource.getrusage(resource.RUSAGE_SELF).ru_minflt,
                    time.perf_counter(),
                )
                model(frame)
                ms = 1e3 * (time.perf_counter() - start)
            said[name] = ms, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        print(json.dumps(said), flush=True)


def _faults_row(processes: list[list[dict]]) -> dict:
    """{model: median and p95 of all frames, and "faults": page faults a frame of each process}."""
    return {name: {**_row([lap[name][0] for laps in processes for lap in laps]),
                   "faults": [mean(lap[name][1] for lap in laps) for laps in processes]}
            for name in processes[0][0]}  # fmt: skip


def _ask(function: Callable, *arguments: str | int) -> dict:
    """What one of this module's functions returns in a fresh process; {"missing": why} where it fails."""
    child = _start(function, *arguments)
    out, errors = child.communicate()
    if child.returncode:
        return {"missing": _line(errors) or f"its process ended with status {child.returncode}"}
    return json.loads(out.splitlines()[-1])


def _start(
    function: Callable, *arguments: str | int, env: dict | None = None, pipe: int | None = None
):
    env = dict(os.environ if env is None else env)
    env["PYTHONPATH"] = os.pathsep.join(
        [str(Path(minst.__file__).parents[1]), env.get("PYTHONPATH", "")]
    )
    code = "import json, sys; from minst.mobile import compare as c; name, *a = json.loads(sys.argv[1]); "
    code += "print(json.dumps(getattr(c, name)(*a)))"
    command = [sys.executable, "-c", code, json.dumps([function.__name__, *arguments])]
    pipes = {
        "stdin": pipe or subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return subprocess.Popen(command, env=env, text=True, **pipes)


def _line(text: str) -> str:
    """The last line: of a traceback it is the error."""
    return " ".join(([""] + text.strip().splitlines())[-1].split())[:200]


# ---------------------------------------------------------------------------------------------- rounds


def _loaded(
    case: Case, runtimes: Sequence[str], exported: dict, missing: dict
) -> tuple[dict, dict]:
    """{runtime: {program: function without arguments}} of those that run here, and {runtime: why} of the others."""
    model, runs = MobileInst.from_pretrained(case.weights), {}
    why = {
        **missing,
        **{name: said["missing"] for name, said in exported.items() if "missing" in said},
    }
    eager = _programs(model, case.size)
    inputs = {program.name: tuple(program.inputs.values()) for program in eager}
    for runtime in [runtime for runtime in runtimes if runtime not in why]:
        try:
            if runtime in SUFFIXES:
                programs = {name: load_program(_program(case, name, runtime)) for name in inputs}
            else:
                made = (
                    eager
                    if runtime == "eager"
                    else _programs(copy.deepcopy(model).fuse(), case.size)
                )
                programs = {program.name: program.run for program in made}
        except (OSError, ValueError) as error:  # such as an ExecuTorch that has its threads already
            why[runtime] = str(error)
            continue
        runs[runtime] = {name: partial(run, *inputs[name]) for name, run in programs.items()}
    return runs, why


@torch.inference_mode()
def _measure(case: Case, runs: dict, rounds: int, bar: tqdm) -> dict[str, dict[str, list[float]]]:
    """{runtime: {program: ms of every round}}, and what lies outside of them under `OUTSIDE`."""
    times = {name: defaultdict(list) for name in (*runs, OUTSIDE)}
    jobs = list(zip(times.values(), [*runs.values(), _outside(case)]))
    for i in range(WARM_UP + rounds):
        turn = i % len(jobs)  # nobody always follows the same neighbour
        for laps, parts in jobs[turn:] + jobs[:turn]:
            for name, part in parts.items():
                start = time.perf_counter()
                part()
                laps[name].append(1e3 * (time.perf_counter() - start))
        bar.set_description(f"{case.model} {case.size}, round {i + 1}"[:31])
        bar.update(case.turn_s * len(runs))
    return {name: {part: ms[WARM_UP:] for part, ms in laps.items()} for name, laps in times.items()}


def _outside(case: Case) -> dict[str, Callable]:
    """What follows the masks, for the `LIVE` best queries; the same whatever ran the model."""
    size = (case.size, case.size)
    frame = real_frames(size, 1)
    out = MobileInst.from_pretrained(case.weights)(frame)
    best = out.scores()[0].amax(-1).argsort(descending=True)[:LIVE]
    logits, image = (
        out.mask_logits[:, best],
        frame[0].permute(1, 2, 0).mul(255).round().byte().numpy(),
    )

    def upsampling() -> np.ndarray:
        return upsample_masks(logits, size)[0].ge(0).numpy()

    found = list(upsampling())
    return {
        "upsampling": upsampling,
        "drawing": partial(draw_frame, image, found, range(1, len(found) + 1)),
    }


def _program(case: Case, name: str, runtime: str) -> Path:
    return case.programs / f"{name}{SUFFIXES.get(runtime, '')}"


# ---------------------------------------------------------------------------------------------- rows


def _rows(
    case: Case, runtimes: Sequence[str], times: dict, alone: dict, missing: dict, peak: dict
) -> list[dict]:
    rows, outside = [], {stage: median(ms) for stage, ms in times[OUTSIDE].items()}
    for runtime in runtimes:
        row = {"model": case.model, "size": case.size, "runtime": runtime}
        why = missing.get(runtime) or alone[runtime].get("missing")
        if why:
            rows.append({**row, "missing": why})
            continue
        key, reuse, masks = (median(times[runtime][name]) for name in ("key", "reuse", "masks"))
        stages = {
            "features": reuse - masks,
            "instance decoder": key - reuse,
            "masks": masks,
            **outside,
        }
        rows.append({**row, **_row(times[runtime]["key"]), "reuse": _row(times[runtime]["reuse"]),
                     "mean_ms": {str(t): (key + (t - 1) * reuse) / t for t in INTERVALS}, "stages": stages,
                     "to_eager": key / median(times["eager"]["key"]) if "eager" in times else None,
                     "macs": case.macs, "peak_fraction": peak_fraction(case.macs, key, peak),
                     "file_mb": _file_mb(case, runtime), **alone[runtime]})  # fmt: skip
    return rows


def _file_mb(case: Case, runtime: str) -> float:
    """Of the key program, or of the weights where there is none."""
    path = (
        _program(case, "key", runtime)
        if runtime in SUFFIXES
        else case.weights / "model.safetensors"
    )
    return (path.stat().st_size - (runtime == "lite") * BUNDLED * 3 * case.size**2) / 1e6


def _print(result: dict) -> None:
    heads = ["key", "p95", "reuse", "x eager", "T = 3", "T = 6", "% peak", "features", "decoder", "masks", "load",
             "first", "MB peak", "MB file"]  # fmt: skip
    for (model, size), rows in groupby(result["rows"], key=lambda row: (row["model"], row["size"])):
        rows = list(rows)
        there = [row for row in rows if "missing" not in row]
        outside = [
            f"{stage} {there[0]['stages'][stage]:.1f} ms"
            for stage in ("upsampling", "drawing")
            if there
        ]
        print(f"\n{model}, {size} x {size}; after every runtime: {', '.join(outside) or 'nothing'}")
        print(f"{'ms':12}" + "".join(f"{head:>9}" for head in heads))
        for row in rows:
            print(
                f"{row['runtime']:12}"
                + (f"  missing: {row['missing']}" if "missing" in row else _cells(row))
            )
    device, peak, malloc = (result[name] for name in ("device", "peak", "malloc"))
    print(
        f"\none thread of {device['cpu']}, governor {device['governor']}, load {device['load_average']} at the start"
    )
    print(
        f"peak {peak['gflop_s']:.0f} GFLOP/s, {peak['gb_s']:.0f} GB/s; malloc: {device['allocator']}"
    )
    print(
        ", ".join(
            f"{name} {device[name]}"
            for name in ("torch", "executorch", "onnxruntime", "python", "os")
        )
    )
    differing = [row for row in result["rows"] if "difference" in row]
    if differing:
        worst = max(differing, key=lambda row: row["difference"])
        print(
            f"largest difference to eager {worst['difference']:.1e} ({worst['runtime']}, {worst['model']}, {worst['size']})"
        )
    _print_malloc(malloc)
    print(
        "took "
        + ", ".join(f"{what} {taken / 60:.1f}" for what, taken in result["seconds"].items())
        + " minutes"
    )


def _cells(row: dict) -> str:
    ratio = "-" if row["to_eager"] is None else f"{row['to_eager']:.2f}"
    times = [row["mean_ms"]["3"], row["mean_ms"]["6"]]
    stages = [row["stages"][stage] for stage in ("features", "instance decoder", "masks")]
    cells = [*(f"{ms:.2f}" for ms in (row["median_ms"], row["p95_ms"], row["reuse"]["median_ms"])), ratio,
             *(f"{ms:.2f}" for ms in times), f"{100 * row['peak_fraction']:.0f}", *(f"{ms:.2f}" for ms in stages),
             *(f"{row[name]:.1f}" for name in ("load_ms", "first_ms", "peak_mb", "file_mb"))]  # fmt: skip
    return "".join(f"{cell:>9}" for cell in cells)


def _print_malloc(malloc: dict) -> None:
    if "missing" in malloc:
        print(f"malloc not measured: {malloc['missing']}")
        return
    print(
        f"malloc, {malloc['model']}, {malloc['size']} x {malloc['size']}: glibc's default, and tuned to keep its memory"
    )
    for model, cost in malloc["cost"].items():
        default, tuned = (malloc[kind][model] for kind in ("default", "tuned"))
        faults = [", ".join(f"{count:.0f}" for count in row["faults"]) for row in (default, tuned)]
        print(f"  {model:6} {default['median_ms']:.2f} ms ({faults[0]} page faults a frame), tuned "
              f"{tuned['median_ms']:.2f} ({faults[1]}): the default costs {cost:+.0%}")  # fmt: skip
