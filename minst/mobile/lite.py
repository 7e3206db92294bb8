"""The PyTorch Lite benchmarker: how long a .ptl takes here, measured as on a phone.

    lite_benchmark.cpp --compiler, once for a torch--> program in the user's cache --.ptl--> log
    no compiler: Python's lite loader, in this process -----------------------------.ptl--> log

The program is a process of its own: memory is its own, not the notebook's, and settings of malloc,
which count from a process's start, are those of os.environ. Its flags and its log are those of
PyTorch's speed_benchmark_torch; the last line, "minst: {...}", holds what the official log lacks:
every iteration, loading, the first run, the peak of memory. Python says the same of a file with
bundled inputs, but for the memory.

Assumption: the inputs stay the same from run to run, so caches are warmer than a camera would leave
    them.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from minst.mobile import timing

__all__ = ["bench_lite", "compile_benchmark"]

SOURCE = Path(__file__).with_name("lite_benchmark.cpp")
INSTALL = (
    "Debian: apt-get install g++; macOS: xcode-select --install; "
    "conda: conda install -c conda-forge cxx-compiler"
)


def bench_lite(
    path: str | Path,
    warmup: int = 10,
    iterations: int = 50,
    threads: int = 1,
    input_dims: str | None = None,
    input_type: str | None = None,
) -> dict:
    """Time `forward` of a .ptl with its first bundled input, or with ones.

    Args:
        input_dims: for ones, shapes such as "1,3,192,256;1,20,128" (an input each).
        input_type: "float" (the default), "uint8_t" or "int64" of each, such as "float;float".
    Returns {"runner": "lite_benchmark.cpp" | "python" (without a compiler, which is said once),
    "median_ms", "p95_ms", "spread" (p95 / median), "min_ms", "load_ms", "first_run_ms", "peak_mb"
    (1e6 bytes, with libtorch; 0 where it is not known), "cores" (CPU time / wall time),
    "iterations", "threads", "ms" (of every iteration), "log" (what was printed)}.
    Raises FileNotFoundError; ValueError for numbers out of range and for what the runner says of
    model and inputs; ImportError as `compile_benchmark` for ones without a compiler.
    """
    timing.check_whole(warmup=(warmup, 0), iterations=(iterations, 1), threads=(threads, 1))
    if not Path(path).is_file():
        raise FileNotFoundError(f"no model {str(path)!r}; minst export --format lite makes one")
    try:
        program = compile_benchmark()
    except (ImportError, OSError) as error:
        if input_dims is not None:
            raise
        _say_once(f"{error}. Measured with Python's lite loader instead.")
        runner, log = "python", _python_log(Path(path), warmup, iterations, threads)
    else:
        flags = [f"--model={Path(path).absolute()}", f"--warmup={warmup}", f"--iter={iterations}"]
        flags += [f"--pthreadpool_size={threads}", "--report_pep=true"]
        if input_dims is None:
            flags += ["--use_bundled_input=0"]
        else:
            types = input_type or ";".join(["float"] * len(input_dims.split(";")))
            flags += [f"--input_dims={input_dims}", f"--input_type={types}"]
        runner, log = SOURCE.name, _run(program, flags)
    return {"runner": runner, **_figures(log), "threads": threads, "log": log}


def compile_benchmark(force: bool = False, cache: str | Path | None = None) -> Path:
    """The program made from lite_benchmark.cpp and the installed torch, compiled when it is new.

    force: compile all the same. cache: a folder, by default minst/ in $XDG_CACHE_HOME or ~/.cache.
    The compiler is $CXX where that is set, else g++, clang++ or c++. Raises ImportError without one
    that works, saying what to install, and OSError where the cache cannot be written.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cache = Path(cache or Path(home).expanduser() / "minst").absolute()
    # a program finds its libraries in this folder, so another venv needs another program
    folder = Path(torch.__file__).parent
    source = SOURCE.read_bytes() + f"{folder} {platform.machine()}".encode()
    key = hashlib.sha256(source).hexdigest()[:12]
    program = cache / f"lite_benchmark-{torch.__version__}-{key}"
    if program.is_file() and not force:
        return program
    compiler, once = _compiler(), f"once for torch {torch.__version__}: some 10 to 20 s"
    cache.mkdir(parents=True, exist_ok=True)
    print(f"compiling {SOURCE.name} with {compiler[0]}, {once}", flush=True)
    libraries, abi = str(folder / "lib"), int(torch.compiled_with_cxx11_abi())
    with tempfile.TemporaryDirectory(dir=cache) as new:
        made = str(Path(new) / program.name)
        # C++20 as torch's own builder of extensions
        command = [*compiler, "-O2", "-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"]
        command += ["-isystem", str(folder / "include"), str(SOURCE), "-o", made]
        command += [f"-L{libraries}", "-ltorch_cpu", "-lc10"]
        command += ["-Xlinker", "-rpath", "-Xlinker", libraries]
        for step in (command, [made, "--help"]):  # it must also find its libraries
            done = subprocess.run(
                step, check=False, capture_output=True, text=True, errors="replace"
            )
            if done.returncode:
                raise ImportError(f"{SOURCE.name} cannot be compiled: {_cause(done)}; {INSTALL}")
        os.replace(made, program)  # whoever looks sees all of it or nothing
    return program


def _compiler() -> list[str]:
    """The words that start it: $CXX may be "ccache g++"."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    if wanted and not shutil.which(wanted[0]):
        looked = f"$CXX is {wanted[0]!r}, which is not on PATH"
        raise ImportError(f"{SOURCE.name} needs a C++ compiler: {looked}; {INSTALL}")
    if wanted:
        return wanted
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    looked = "none of g++, clang++, c++ is on PATH"
    raise ImportError(f"{SOURCE.name} needs a C++ compiler: {looked}; {INSTALL}")


def _cause(done: subprocess.CompletedProcess) -> str:
    """The line of a failed compilation that says why: rarely the last one, which counts errors."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line or "cannot" in line or "undefined" in line]
    return (telling or lines[-1:] or [f"exit status {done.returncode}"])[0]


@functools.cache
def _say_once(text: str) -> None:
    print(text, flush=True)


def _run(program: Path, flags: list[str]) -> str:
    """What the benchmarker prints; ValueError with its last words where it fails."""
    command = [str(program), *flags]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode < 0:
        raise ValueError(
            f"bench: it was ended by signal {-done.returncode}; do number, shape and type of its "
            f"inputs fit the model? ({flags[0]})"
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1].partition(": ")[2]
        raise ValueError(f"bench: {said} ({flags[0]})")
    return done.stdout


@torch.inference_mode()
def _python_log(path: Path, warmup: int, iterations: int, threads: int) -> str:
    """The same log of a measurement in this process, of the first bundled input."""
    from torch.jit.mobile import _load_for_lite_interpreter

    with timing.fixed_setting(threads):
        start = time.perf_counter()
        try:
            module = _load_for_lite_interpreter(str(path))
        except RuntimeError as error:
            cause = str(error).partition(". This is an internal miniz")[0].partition("\n")[0]
            raise ValueError(
                f"bench: {path} is no model of the lite interpreter: {cause}"
            ) from None
        load_us = 1e6 * (time.perf_counter() - start)
        if not module.find_method("get_all_bundled_inputs"):
            raise ValueError(
                f"bench: the model has no bundled inputs ({path}); export it with them"
            )
        inputs = module.run_method("get_all_bundled_inputs")[0]
        warm = [1e3 * timing.milliseconds(module, *inputs) for _ in range(warmup)]
        wall, cpu = time.perf_counter(), time.process_time()
        main = [1e3 * timing.milliseconds(module, *inputs) for _ in range(iterations)]
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    pep = 'PyTorchObserver {{"type": "NET", "unit": "us", "metric": "latency", "value": "{:d}"}}'
    mean = 1e6 * wall / iterations
    ours = {"load_us": load_us, "first_run_us": [*warm, *main][0], "peak_bytes": 0}
    ours |= {"cores": cpu / wall, "iterations_us": main}
    lines = [
        "Starting benchmark.",
        "Running warmup runs.",
        "Main runs.",
        *(pep.format(int(us)) for us in main),
        f"Main run finished. Microseconds per iter: {mean:g}. Iters per second: {1e6 / mean:g}",
        f"minst: {json.dumps(ours)}",
    ]
    return "\n".join(lines) + "\n"


def _figures(log: str) -> dict:
    ours = json.loads(log[log.rindex("minst: ") + len("minst: ") :])
    ms = [us / 1e3 for us in ours["iterations_us"]]
    row = timing.summarize(ms)
    return {
        **row,
        "spread": row["p95_ms"] / row["median_ms"],
        "min_ms": min(ms),
        "load_ms": ours["load_us"] / 1e3,
        "first_run_ms": ours["first_run_us"] / 1e3,
        "peak_mb": ours["peak_bytes"] / 1e6,
        "cores": ours["cores"],
        "iterations": len(ms),
        "ms": ms,
    }
