"""The PyTorch Lite benchmarker: how long a .ptl takes here, measured as speed_benchmark_torch does on a phone.

    lite_benchmark.cpp --compiler, once for a torch--> program in the user's cache --+
                                                                                      +--.ptl--> log --> milliseconds
    no compiler: this module as a program, on Python's lite loader -------------------+

Either runs as a process of its own: memory is the program's, not the notebook's, and settings of malloc, which count
from a process's start, are those of os.environ. Both take the same flags and print the same log; its last line,
"minst: {...}", holds what the official log lacks: every iteration, loading, the first run, the peak of memory.

Assumption: the inputs stay the same from run to run, so caches are warmer than a camera would leave them.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

__all__ = ["bench_lite", "compile_benchmark"]

SOURCE = Path(__file__).with_name("lite_benchmark.cpp")
INSTALL = "Debian: apt-get install g++; macOS: xcode-select --install; conda: conda install -c conda-forge cxx-compiler"
TYPES = {"float": torch.float32, "uint8_t": torch.uint8, "int64": torch.int64}


def bench_lite(
    path: str | Path,
    warmup: int = 10,
    iterations: int = 50,
    threads: int = 1,
    bundled: bool = True,
    input_dims: str | None = None,
    input_type: str | None = None,
    compiled: bool | None = None,
) -> dict:
    """Time `forward` of a .ptl in a process of its own, with its first bundled input or with ones.

    bundled: False takes ones instead, of input_dims "1,3,192,256;1,20,128" (an input each) and input_type "float;float"
        ("float", "uint8_t", "int64"; default float).
    compiled: True lite_benchmark.cpp, False Python's loader, None whichever can be had (said once where it is Python).
    Returns {"runner": "lite_benchmark.cpp" | "python", "median_ms", "p95_ms", "spread" (p95 / median), "min_ms",
    "load_ms", "first_run_ms", "peak_mb" (1e6 bytes, with libtorch and, there, Python; 0 where the system does not say),
    "cores" (CPU time / wall time), "iterations", "threads", "ms" (of every iteration), "log" (what was printed)}.
    Raises FileNotFoundError; ValueError for numbers out of range and for what the runner says of model and inputs;
    ImportError as `compile_benchmark` where compiled is True.
    """
    for name, value, least in (
        ("warmup", warmup, 0),
        ("iterations", iterations, 1),
        ("threads", threads, 1),
    ):
        if type(value) is not int or value < least:
            raise ValueError(
                f"bench: {name} is {value!r}; it must be a whole number of at least {least}"
            )
    if bundled == (input_dims is not None):
        raise ValueError("bench: give input_dims when bundled is False, and only then")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no model {str(path)!r}; minst export --format lite makes one")
    flags = [f"--model={Path(path).absolute()}", f"--warmup={warmup}", f"--iter={iterations}"]
    flags += [f"--pthreadpool_size={threads}", "--report_pep=true"]
    if bundled:
        flags += ["--use_bundled_input=0"]
    else:
        types = input_type or ";".join(["float"] * len(input_dims.split(";")))
        flags += [f"--input_dims={input_dims}", f"--input_type={types}"]
    program = _program(compiled)
    log = _run(program or [sys.executable, "-m", "minst.mobile.lite"], flags)
    return {
        "runner": SOURCE.name if program else "python",
        **_figures(log),
        "threads": threads,
        "log": log,
    }


def compile_benchmark(force: bool = False, cache: str | Path | None = None) -> Path:
    """The program made from lite_benchmark.cpp and the installed torch; compiled when it is not in the cache.

    force: compile all the same. cache: a folder, by default minst/ in $XDG_CACHE_HOME or ~/.cache. The compiler is $CXX
    where that is set, else g++, clang++ or c++. Raises ImportError without one that works, saying what to install, and
    OSError where the cache cannot be written.
    """
    cache = Path(
        cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minst"
    )
    folder = Path(
        torch.__file__
    ).parent  # a program finds its libraries there, so another venv needs another program
    key = hashlib.sha256(
        SOURCE.read_bytes() + f"{folder} {platform.machine()}".encode()
    ).hexdigest()[:12]
    program = cache.absolute() / f"lite_benchmark-{torch.__version__}-{key}"
    if program.is_file() and not force:
        return program
    compiler = _compiler()
    cache.mkdir(parents=True, exist_ok=True)
    print(
        f"compiling {SOURCE.name} with {compiler[0]}, once for torch {torch.__version__}: some 10 to 20 s",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=program.parent) as new:
        made = Path(new) / program.name
        # C++20 as torch's own builder of extensions
        command = [
            *compiler,
            "-O2",
            "-std=c++20",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        ]
        command += [
            "-isystem",
            str(folder / "include"),
            str(SOURCE),
            "-o",
            str(made),
            f"-L{folder / 'lib'}",
        ]
        command += ["-ltorch_cpu", "-lc10", "-Xlinker", "-rpath", "-Xlinker", str(folder / "lib")]
        for step in (command, [str(made), "--help"]):  # it must also find its libraries
            done = subprocess.run(step, capture_output=True, text=True, errors="replace")
            if done.returncode:
                raise ImportError(f"{SOURCE.name} cannot be compiled: {_cause(done)}; {INSTALL}")
        os.replace(made, program)  # whoever looks sees all of it or nothing
    return program


def _compiler() -> list[str]:
    wanted = shlex.split(os.environ.get("CXX", ""))  # may be "ccache g++"
    found = [
        words
        for words in ([wanted] if wanted else [["g++"], ["clang++"], ["c++"]])
        if shutil.which(words[0])
    ]
    if not found:
        looked = (
            f"$CXX is {wanted[0]!r}, which is not on PATH"
            if wanted
            else "none of g++, clang++, c++ is on PATH"
        )
        raise ImportError(f"{SOURCE.name} needs a C++ compiler: {looked}; {INSTALL}")
    return found[0]


def _cause(done: subprocess.CompletedProcess) -> str:
    """The line of a failed compilation that says why: rarely the last one, which counts errors."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line or "cannot" in line or "undefined" in line]
    return (telling or lines[-1:] or [f"exit status {done.returncode}"])[0]


def _program(compiled: bool | None) -> list[str] | None:
    """The compiled benchmarker; None: measure with Python."""
    if compiled is False:
        return None
    try:
        return [str(compile_benchmark())]
    except (ImportError, OSError) as error:
        if compiled:
            raise
        _say_once(f"{error}. Measured with Python's lite loader instead.")
        return None


@functools.cache
def _say_once(text: str) -> None:
    print(text, flush=True)


def _run(program: list[str], flags: list[str]) -> str:
    """What a benchmarker prints; ValueError with its last words where it fails."""
    places = [
        str(Path(__file__).resolve().parents[2]),
        os.environ.get("PYTHONPATH", ""),
    ]  # the same minst there
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
    done = subprocess.run(
        [*program, *flags], capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode:
        signal = f"it was ended by signal {-done.returncode}; do number, shape and type of its inputs fit the model?"
        said = done.stderr.strip().splitlines()[-1:] or [""]
        raise ValueError(
            f"bench: {signal if done.returncode < 0 else said[0].partition(': ')[2]} ({flags[0]})"
        )
    return done.stdout


def _figures(log: str) -> dict:
    ours = json.loads(log[log.rindex("minst: ") + len("minst: ") :])
    ms = [us / 1e3 for us in ours["iterations_us"]]
    middle, p95 = median(ms), float(np.percentile(ms, 95))
    return {"median_ms": middle, "p95_ms": p95, "spread": p95 / middle, "min_ms": min(ms),
            "load_ms": ours["load_us"] / 1e3, "first_run_ms": ours["first_run_us"] / 1e3,
            "peak_mb": ours["peak_bytes"] / 1e6, "cores": ours["cores"], "iterations": len(ms), "ms": ms}  # fmt: skip


# From here on what `python -m minst.mobile.lite` does: lite_benchmark.cpp in Python, for who has no compiler.


@torch.inference_mode()
def _benchmark(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.pthreadpool_size)
    start = time.perf_counter()
    module = _load(options.model)
    load_us = 1e6 * (time.perf_counter() - start)
    inputs = (
        _ones(options)
        if options.use_bundled_input < 0
        else _bundled(module, options.use_bundled_input)
    )
    times = []

    def run() -> None:
        start = time.perf_counter()
        module(*inputs)
        times.append(1e6 * (time.perf_counter() - start))

    print("Starting benchmark.\nRunning warmup runs.")
    for _ in range(options.warmup):
        run()
    print("Main runs.")
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(options.iter):
        run()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    main = times[options.warmup :]
    for us in main if options.report_pep == "true" else []:
        print(
            f'PyTorchObserver {{"type": "NET", "unit": "us", "metric": "latency", "value": "{int(us)}"}}'
        )
    mean = 1e6 * wall / options.iter
    print(f"Main run finished. Microseconds per iter: {mean:g}. Iters per second: {1e6 / mean:g}")
    ours = {
        "load_us": load_us,
        "first_run_us": times[0],
        "peak_bytes": _peak_bytes(),
        "cores": cpu / wall,
    }
    print(f"minst: {json.dumps({**ours, 'iterations_us': main})}")


def _ones(options: argparse.Namespace) -> list[torch.Tensor]:
    dims, types = options.input_dims.split(";"), options.input_type.split(";")
    if len(dims) != len(types):
        raise ValueError(f"--input_dims has {len(dims)} input(s), --input_type {len(types)}")
    for name, allowed in ((name, TYPES) for name in types if name not in TYPES):
        raise ValueError(f"--input_type: {name!r} must be {', '.join(allowed)}")
    for text in (
        text for shape in dims for text in shape.split(",") if not text.isdecimal() or int(text) < 1
    ):
        raise ValueError(f"--input_dims: {text!r} must be a whole number of at least 1")
    return [torch.ones([int(n) for n in d.split(",")], dtype=TYPES[t]) for d, t in zip(dims, types)]


def _load(path: str):
    from torch.jit.mobile import _load_for_lite_interpreter

    try:
        return _load_for_lite_interpreter(path)
    except RuntimeError as error:
        cause = str(error).partition(". This is an internal miniz")[0].partition("\n")[0]
        raise ValueError(f"--model is no model of the lite interpreter: {cause}") from None


def _bundled(module, index: int) -> tuple[torch.Tensor, ...]:
    if not module.find_method("get_all_bundled_inputs"):
        raise ValueError(
            "the model has no bundled inputs; export it with them, or give --input_dims and --input_type"
        )
    bundled = module.run_method("get_all_bundled_inputs")
    if index >= len(bundled):
        raise ValueError(f"--use_bundled_input {index}: the model has {len(bundled)}, from 0")
    return bundled[index]


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if (
        status.is_file()
    ):  # not ru_maxrss: on Linux that starts with the size of the process that started this one
        return 1024 * sum(
            int(line.split()[1])
            for line in status.read_text().splitlines()
            if line.startswith("VmHWM")
        )
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _main() -> None:
    parser = argparse.ArgumentParser("minst.mobile.lite")
    for name in ("model", "input_dims", "input_type", "report_pep"):
        parser.add_argument(f"--{name}", default="")
    for name, default in {
        "use_bundled_input": -1,
        "warmup": 0,
        "iter": 10,
        "pthreadpool_size": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    try:
        _benchmark(parser.parse_args())
    except (RuntimeError, ValueError) as error:
        sys.exit(f"minst.mobile.lite: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    _main()
