"""Lesson 08: a convolution's cost, the mean frame, a log, a fair benchmark, the roof of a layer."""

from collections.abc import Callable
from functools import partial
from statistics import fmean, median

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minst.course.verdict import Verdict, judge
from minst.mobile.logs import parse_log

__all__ = ["conv_cost", "fair_times", "least_ms", "mean_frame", "read_log"]


def conv_cost(answer: Callable) -> Verdict:
    """conv_cost(height, width, c_in, c_out, kernel, stride, groups) -> (MACs, bytes), float32."""

    def conv_cost(height, width, c_in, c_out, kernel, stride, groups):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
            x = torch.zeros(1, c_in, height, width)
            y = conv(x)
        return counter.get_total_flops() // 2, 4 * (x.numel() + conv.weight.numel() + y.numel())

    def macs(wrong):
        """wrong(MACs, kernel, stride, groups) in the place of the MACs."""
        return lambda *given: (wrong(conv_cost(*given)[0], *given[4:]), conv_cost(*given)[1])

    def no_weights(h, w, c_in, c_out, kernel, stride, groups):
        macs, size = conv_cost(h, w, c_in, c_out, kernel, stride, groups)
        return macs, size - 4 * c_in // groups * c_out * kernel**2

    def draw(rng):
        stride, c_in = rng.integers(1, 3), 4 * rng.integers(2, 9)
        channels = c_in, c_in * rng.integers(1, 4)
        kernel, groups = rng.choice([3, 5]), rng.choice([2, 4, c_in])
        return *(stride * rng.integers(4, 17, 2)), *channels, kernel, stride, groups

    mistakes = [
        "With groups a kernel sees c_in / groups channels: that makes depth-wise layers light.",
        macs(lambda count, kernel, stride, groups: count * groups),
        "Count the places of the output: a stride of 2 halves its height and its width.",
        macs(lambda count, kernel, stride, groups: count * stride**2),
        "A kernel of size k covers k x k places, not k.",
        macs(lambda count, kernel, stride, groups: count // kernel),
        "This counts FLOP: a MAC is one product and one sum, two FLOP.",
        macs(lambda count, kernel, stride, groups: 2 * count),
        "A float32 number has 4 bytes.",
        lambda *given: (conv_cost(*given)[0], conv_cost(*given)[1] // 4),
        "The weights are read as well: c_out x c_in / groups x k x k numbers.",
        no_weights,
    ]
    return judge(answer, conv_cost, draw, mistakes, tolerance=1e-9)


def mean_frame(answer: Callable) -> Verdict:
    """mean_frame(key_ms, decoder_ms, interval) -> (mean ms at T, share that any T saves)."""

    def mean_frame(key, decoder, T):
        return key - decoder + decoder / T, decoder / key

    def draw(rng):
        key = rng.uniform(20, 200)
        return key, key * rng.uniform(0.05, 0.4), rng.integers(3, 9)

    mistakes = [
        "T frames in all: one key frame and T - 1 that reuse its kernels.",
        lambda key, decoder, T: mean_frame(key, decoder, T + 1),
        "This is the median frame, one between key frames: the mean pays for key frames too.",
        lambda key, decoder, T: (key - decoder, decoder / key),
        "Key frames are rarer than the others: weight the two by how often they come.",
        lambda key, decoder, T: mean_frame(key, decoder, 2),
        "The second number is for this T; asked is what even the largest T could save.",
        lambda key, decoder, T: (mean_frame(key, decoder, T)[0], (decoder - decoder / T) / key),
        "The second number is what stays; asked is the share that is saved.",
        lambda key, decoder, T: (mean_frame(key, decoder, T)[0], 1 - decoder / key),
        "Reuse skips the instance decoder alone: the rest runs every frame.",
        lambda key, decoder, T: (key / T, decoder / key),
    ]
    return judge(answer, mean_frame, draw, mistakes)


def read_log(answer: Callable) -> Verdict:
    """read_log(text) -> (median, p95) in ms of the runs in a log of speed_benchmark_torch."""

    def read_log(text):
        parsed = parse_log(text)
        return parsed["median_ms"], parsed["p95_ms"]

    def of_times(summary):
        return lambda text: summary(sorted(parse_log(text)["runs"][0]["times_ms"]))

    def short_alone(times):
        short = [ms for ms in times if ms < 1e3]
        return median(short), np.percentile(short, 95)

    def draw(rng):
        times = rng.uniform(6e4, 9e4, rng.integers(9, 16)).round()
        # one hiccup, which C++ prints as 1.2e+06
        times[rng.integers(len(times))] = 1.2e6 + 10 * rng.integers(1000)
        about = '"type": "NET", "unit": "us", "metric": "latency"'
        runs = [f'PyTorchObserver {{{about}, "value": "{us:g}"}}' for us in times]
        rate = f"Microseconds per iter: {times.mean():g}. Iters per second: {1e6 / times.mean():g}"
        head = ["Starting benchmark.", "Running warmup runs.", "Main runs."]
        noise = "[W] Could not initialize NNPACK!"
        return ("\n".join([*head, noise, *runs, f"Main run finished. {rate}", ""]),)

    mistakes = [
        'The values are in "us": divide by 1000.',
        lambda text: [1e3 * ms for ms in read_log(text)],
        "The first number is the mean, as in the last line: one hiccup moves it, not the median.",
        lambda text: (parse_log(text)["mean_ms"], read_log(text)[1]),
        "The second number is the longest run; p95 has 5 % of the runs above it: np.percentile.",
        of_times(lambda times: (median(times), max(times))),
        "p95 lies between two runs here: np.percentile interpolates.",
        of_times(lambda times: (median(times), times[int(0.95 * (len(times) - 1))])),
        "A run is missing: long times are printed as 1.2e+06, which float() reads.",
        of_times(short_alone),
    ]
    return judge(answer, read_log, draw, mistakes)


def fair_times(answer: Callable) -> Verdict:
    """fair_times(jobs {name: (prepare, run)}, clock, warmup, rounds) -> {name: median ms of run}.

    Judged in a pretended world with a pretended clock: cold first runs, hiccups, a machine that
    gets slower.
    """

    def fair_times(
        jobs, clock, warmup, rounds, centre=median, apart=False, whole=False, cold=False, scale=1e3
    ):
        times = {name: [] for name in jobs}
        turns = list(jobs) * (warmup + rounds)
        for name in sorted(turns, key=list(jobs).index) if apart else turns:
            prepare, run = jobs[name]
            early, given = clock(), prepare()
            start = early if whole else clock()
            run(given)
            times[name].append(scale * (clock() - start))
        return {name: centre(ms if cold else ms[warmup:]) for name, ms in times.items()}

    def draw(rng):
        rounds = 2 * rng.integers(3, 5).item() + 1
        world = _World(rng, warmup := rounds - 1, rounds)
        return world.jobs, world.clock, warmup, rounds

    mistakes = [
        "The clock tells seconds; asked are milliseconds.",
        partial(fair_times, scale=1.0),
        "The first `warmup` runs are slow for reasons of their own: run them, and leave them out.",
        partial(fair_times, cold=True),
        "prepare() is inside: read the clock after it, so that only run is timed.",
        partial(fair_times, whole=True),
        "This is the mean: one hiccup moves it. Take the median.",
        partial(fair_times, centre=fmean),
        "This is the fastest run, which flatters. Take the median.",
        partial(fair_times, centre=min),
        "One job after the other: the machine gets slower, and the last job pays. Take turns.",
        partial(fair_times, apart=True),
        "Nothing of the lie is mended yet: the mean of everything, in seconds, job after job.",
        partial(fair_times, centre=fmean, apart=True, whole=True, cold=True, scale=1.0),
        "These are times of a clock of your own: read the clock that is handed over.",
        lambda jobs, clock, warmup, rounds: dict.fromkeys(jobs, 0.0),
    ]
    return judge(answer, fair_times, draw, mistakes, tolerance=0.05)


def least_ms(answer: Callable) -> Verdict:
    """least_ms(macs, size, gflop_s, gb_s) -> (ms, "compute" | "memory"): the roof of a layer."""

    def least_ms(macs, size, gflop_s, gb_s, decides=max):
        compute, memory = 2e-6 * macs / gflop_s, 1e-6 * size / gb_s
        return decides(compute, memory), "compute" if compute > memory else "memory"

    def exchanged(*given):
        ms, word = least_ms(*given)
        return ms, "memory" if word == "compute" else "compute"

    def draw(rng):
        gflop_s, gb_s = rng.uniform(20, 150), rng.uniform(5, 25)
        size = rng.integers(10**6, 10**8)
        ratio = rng.choice([rng.uniform(0.1, 0.7), rng.uniform(2.5, 8)])  # to the roof's edge
        return int(gflop_s / gb_s * ratio * size / 2), size, gflop_s, gb_s

    mistakes = [
        "One MAC is two FLOP: a product and a sum.",
        lambda macs, *given: least_ms(macs / 2, *given),
        "A core multiplies while it waits for memory: the slower decides, not their sum.",
        partial(least_ms, decides=lambda compute, memory: compute + memory),
        "Both have to be done: the slower of the two decides.",
        partial(least_ms, decides=min),
        "These are seconds; asked are milliseconds.",
        partial(least_ms, decides=lambda compute, memory: max(compute, memory) / 1e3),
        'The words are exchanged: "memory" where moving the bytes takes longer.',
        exchanged,
    ]
    return judge(answer, least_ms, draw, mistakes, rounds=12)


class _World:
    """Time that passes only when a job runs: cold first runs, a hiccup a job, slower and slower."""

    def __init__(self, rng: np.random.Generator, warmup: int, rounds: int):
        names = rng.permutation(["eager", "lite", "onnx"]).tolist()
        self.now, self.warmup, self.total = rng.uniform(10, 1000), warmup, 3 * (warmup + rounds)
        self.ms = dict(zip(names, rng.uniform(20, 90, 3)))
        self.hiccup = {name: warmup + rng.integers(rounds) for name in names}
        self.runs, self.prepared = dict.fromkeys(names, 0), {}
        self.jobs = {name: (partial(self.prepare, name), partial(self.run, name)) for name in names}

    def clock(self) -> float:
        return self.now

    def prepare(self, name: str) -> str:
        self.now += 0.6e-3 * self.ms[name]
        self.prepared[name] = f"frame {self.runs[name]} for {name}"
        return self.prepared[name]

    def run(self, name: str, given: str) -> None:
        if given != self.prepared.get(name):
            wanted = "it takes what prepare() has just returned"
            raise ValueError(f"run of {name!r} was given {given!r}; {wanted}")
        count, hot = self.runs[name], 1 + sum(self.runs.values()) / self.total
        slow = 5 if count < self.warmup else 8 if count == self.hiccup[name] else 1
        self.now += 1e-3 * self.ms[name] * hot * slow
        self.runs[name] += 1
