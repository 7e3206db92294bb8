"""Reference solutions of lesson 08, on-device latency. Made by notebooks/build.py: do not edit."""

# %%
import copy, tempfile, time
from collections.abc import Callable
from pathlib import Path
from statistics import median
import numpy as np
import torch
from torch.jit.mobile import _load_for_lite_interpreter
from torch.utils.mobile_optimizer import optimize_for_mobile
import minst
from minst import visualize
from minst.course import lesson08 as check
from minst.mobile import export, lite, logs, programs, rivals, roofline, runtime, timing

# %%
def fair_times(jobs: dict, clock: Callable, warmup: int, rounds: int) -> dict[str, float]:
    """{name: median ms of run} of `rounds` rounds, after `warmup` that do not count; the jobs take turns.

    jobs: {name: (prepare, run)}; run(prepare()) is one frame, of which only run is to be timed.
    clock(): seconds.
    """
    times = {name: [] for name in jobs}
    for _ in range(warmup + rounds):
        for name, (prepare, run) in jobs.items():
            given = prepare()
            start = clock()
            run(given)
            times[name].append(1e3 * (clock() - start))
    return {name: median(ms[warmup:]) for name, ms in times.items()}

# %%
print(check.fair_times(fair_times))

# %%
def conv_cost(
    height: int, width: int, c_in: int, c_out: int, kernel: int, stride: int, groups: int
) -> tuple[int, int]:
    """MACs and bytes of a convolution without bias on an input (1, c_in, height, width), float32.

    The padding is such that the output is (1, c_out, height / stride, width / stride); both divide. Bytes: of input,
    weights and output, each counted once.
    """
    places = (height // stride) * (width // stride)
    weights = c_out * (c_in // groups) * kernel**2
    return places * weights, 4 * (c_in * height * width + weights + c_out * places)

# %%
print(check.conv_cost(conv_cost))

# %%
def save_for_phone(module: torch.nn.Module, example: torch.Tensor, path: str) -> float:
    """Write `module`, traced with `example` and optimised, to `path` for the lite interpreter, and load the file again.

    module: in eval mode, of one input and one output. Returns the largest absolute difference between what the loaded
    file and the module give for `example`.
    """
    traced = torch.jit.trace(module, example)
    optimized = optimize_for_mobile(traced)
    optimized._save_for_lite_interpreter(path)
    loaded = _load_for_lite_interpreter(path)
    difference = loaded(example) - module(example)
    return difference.abs().max().item()

# %%
print(check.save_for_phone(save_for_phone))

# %%
def read_log(text: str) -> tuple[float, float]:
    """(median, p95) in milliseconds of the runs in a log of speed_benchmark_torch with --report_pep=true.

    A line for each run, between others that do not matter, such as (in one line)
    PyTorchObserver {"type": "NET", "unit": "us", "metric": "latency", "value": "68913"}
    C++ prints a long one as "1.2e+06". p95 as by np.percentile.
    """
    lines = [line for line in text.splitlines() if line.startswith("PyTorchObserver")]
    ms = [float(line.split('"')[-2]) / 1e3 for line in lines]
    return median(ms), float(np.percentile(ms, 95))

# %%
print(check.read_log(read_log))

# %%
def paired_share(part: list[float], whole: list[float], k: int) -> tuple[float, float, float]:
    """(median, low, high) of the shares part / whole of single rounds.

    part, whole: ms, the same round at the same place. low: the k-th smallest share. high: the k-th largest.
    """
    shares = sorted(p / w for p, w in zip(part, whole))
    return median(shares), shares[k - 1], shares[-k]

# %%
print(check.paired_share(paired_share))
