"""The PyTorch Lite benchmarker: how long a .ptl takes here, measured as on a phone.

    lite_benchmark.cpp --compiler, once for a torch--> program in the user's cache --.ptl--> log

The program is a process of its own: memory is its own, not the notebook's, and settings of malloc,
which count from a process's start, are those of os.environ. Its flags and its log are those of
PyTorch's speed_benchmark_torch; the last line, "minst: {...}", holds what the official log lacks:
every iteration, loading, the first run, the peak of memory.

Assumption: the inputs stay the same from run to run, so caches are warmer than a camera would leave
    them.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import errno
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from minst.mobile import timing
from minst.options import Count, Natural, Threads, check_call

__all__ = ["bench_lite", "compile_benchmark"]

SOURCE = Path(__file__).with_name("lite_benchmark.cpp")
CAPTURED = {"capture_output": True, "text": True, "errors": "replace"}
INSTALL = (
    "Debian: apt-get install g++; macOS: xcode-select --install; conda: conda install -c "
    "conda-forge cxx-compiler; `minst bench mobile --runtimes lite` needs none"
)


def bench_lite(
    path: str | Path, warmup: Natural = 10, iterations: Count = 50, threads: Threads = 1
) -> dict:
    """Time `forward` of a .ptl with its first bundled input.

    Returns {"median_ms", "p95_ms", "spread" (p95 / median), "min_ms", "load_ms", "first_run_ms",
    "peak_mb" (1e6 bytes, with libtorch), "cores" (CPU time / wall time), "iterations", "threads",
    "ms" (of every iteration), "log" (what was printed)}.
    Raises FileNotFoundError; ValueError for numbers out of range and for what the program says of
    the model; ImportError as `compile_benchmark`.
    """
    check_call(bench_lite, locals(), "bench")
    if not Path(path).is_file():
        what = "no such model; `minst export --format lite` writes one"
        raise FileNotFoundError(errno.ENOENT, what, str(path))
    flags = {"model": Path(path).absolute(), "warmup": warmup, "iter": iterations}
    flags |= {"pthreadpool_size": threads, "report_pep": "true"}
    log = _run([str(compile_benchmark()), *(f"--{name}={value}" for name, value in flags.items())])
    ours = json.loads(log.rpartition("minst: ")[2])
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
        "threads": threads,
        "ms": ms,
        "log": log,
    }


def compile_benchmark() -> Path:
    """The program made from lite_benchmark.cpp and the installed torch, compiled when it is new.

    It is kept in minst/ of $XDG_CACHE_HOME or ~/.cache. The compiler is $CXX where that is set,
    else g++, clang++ or c++. Raises ImportError without one that works, saying what to install, and
    OSError where the cache cannot be written.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cache = Path(home).expanduser().absolute() / "minst"
    # a program finds its libraries in this folder, so another venv needs another program
    folder = Path(torch.__file__).parent
    source = SOURCE.read_bytes() + f"{folder} {platform.machine()}".encode()
    key = hashlib.sha256(source).hexdigest()[:12]
    program = cache / f"lite_benchmark-{torch.__version__}-{key}"
    if program.is_file():
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
        done = subprocess.run(command, check=False, **CAPTURED)
        if done.returncode:
            # the line that says why is rarely the last one, which counts errors
            lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
            telling = [line for line in lines if re.search("error|cannot|undefined", line)]
            cause = next(filter(None, [*telling, *lines[::-1]]), f"exit status {done.returncode}")
            raise ImportError(f"{SOURCE.name} cannot be compiled: {cause}; {INSTALL}")
        os.replace(made, program)  # whoever looks sees all of it or nothing
    return program


def _compiler() -> list[str]:
    """The words that start it: $CXX may be "ccache g++"."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    names = wanted[:1] or ["g++", "clang++", "c++"]
    for name in names:
        if shutil.which(name):
            return wanted or [name]
    looked = ", ".join(names)
    raise ImportError(f"{SOURCE.name} needs a C++ compiler: {looked} is not on PATH; {INSTALL}")


def _run(command: list[str]) -> str:
    """What the benchmarker prints; ValueError with its last words where it fails."""
    done = subprocess.run(command, check=False, **CAPTURED)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1].partition(": ")[2]
        said = last if done.returncode > 0 else f"it was ended by signal {-done.returncode}"
        raise ValueError(f"bench: {said} ({command[1]})")
    return done.stdout
