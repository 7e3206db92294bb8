"""Reference solutions of lesson 08, on-device latency. Made by notebooks/build.py: do not edit."""

# %%
import copy, shlex, tempfile, textwrap, time
from collections.abc import Callable
from pathlib import Path
from statistics import median
import numpy as np
import torch
import minst
from minst import visualize
from minst.course import lesson08 as check
from minst.mobile import benchmark, export, lite, logs, phone, programs, roofline, runtime, timing

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
def mean_frame(key_ms: float, decoder_ms: float, interval: int) -> tuple[float, float]:
    """What reuse gives: (ms of the mean frame at T = interval, share of key_ms that not even an endless T could pass).

    A key frame takes key_ms. decoder_ms of that is the instance decoder, which the other frames leave out.
    The second number is a share between 0 and 1: what is saved at most.
    """
    reuse_ms = key_ms - decoder_ms
    return (key_ms + (interval - 1) * reuse_ms) / interval, decoder_ms / key_ms

# %%
print(check.mean_frame(mean_frame))

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
def least_ms(macs: int, size: int, gflop_s: float, gb_s: float) -> tuple[float, str]:
    """The least time of a layer on a core, in ms, and what decides: "compute" or "memory".

    macs: of the layer. size: bytes that it reads and writes. gflop_s: 1e9 FLOP a second at best; gb_s: 1e9 bytes.
    """
    compute = 1e3 * 2 * macs / (1e9 * gflop_s)
    memory = 1e3 * size / (1e9 * gb_s)
    return max(compute, memory), "compute" if compute > memory else "memory"

# %%
print(check.least_ms(least_ms))
