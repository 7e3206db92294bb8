"""Lesson 08: what a convolution costs, the mean frame under kernel reuse, a log, a fair benchmark, the roof of a layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import fmean, median

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minst.course.verdict import Mistake, Verdict, judge
from minst.mobile.logs import parse_log

__all__ = ["conv_cost", "fair_times", "least_ms", "mean_frame", "read_log"]


def conv_cost(answer: Callable) -> Verdict:
    """conv_cost(height, width, c_in, c_out, kernel, stride, groups) -> (MACs, bytes) of a float32 convolution."""

    def conv_cost(height, width, c_in, c_out, kernel, stride, groups):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
            x = torch.zeros(1, c_in, height, width)
            y = conv(x)
        return counter.get_total_flops() // 2, 4 * (x.numel() + conv.weight.numel() + y.numel())

    def draw(rng):
        stride, c_in = int(rng.integers(1, 3)), 4 * int(rng.integers(2, 9))
        groups = int(rng.choice([2, 4, c_in]))
        height, width = (stride * int(n) for n in rng.integers(4, 17, 2))
        return height, width, c_in, c_in * int(rng.integers(1, 4)), int(rng.choice([3, 5])), stride, groups

    def but(wrong):
        """The right pair with one of it changed: wrong(arguments, macs, bytes) -> pair."""
        return lambda *given: wrong(given, *conv_cost(*given))

    return judge(
        answer,
        conv_cost,
        draw,
        [
            Mistake(
                but(lambda g, macs, size: (macs * g[6], size)),
                "With groups a kernel sees c_in / groups channels only: that is what makes depth-wise layers light.",
            ),
            Mistake(
                but(lambda g, macs, size: (macs * g[5] ** 2, size)),
                "Count the places of the output: a stride of 2 halves its height and its width.",
            ),
            Mistake(
                but(lambda g, macs, size: (macs // g[4], size)),
                "A kernel of size k covers k x k places, not k.",
            ),
            Mistake(
                but(lambda g, macs, size: (2 * macs, size)),
                "This counts FLOP: a MAC is one product and one sum, two FLOP.",
            ),
            Mistake(but(lambda g, macs, size: (macs, size // 4)), "A float32 number has 4 bytes."),
            Mistake(
                but(lambda g, macs, size: (macs, size - 4 * g[2] // g[6] * g[3] * g[4] ** 2)),
                "The weights are read as well: c_out x c_in / groups x k x k numbers.",
            ),
        ],
        tolerance=1e-9,
    )


def mean_frame(answer: Callable) -> Verdict:
    """mean_frame(key_ms, decoder_ms, interval) -> (ms of the mean frame at T, largest share of it that any T saves)."""

    def mean_frame(key_ms, decoder_ms, interval):
        return key_ms - decoder_ms + decoder_ms / interval, decoder_ms / key_ms

    def draw(rng):
        key = float(rng.uniform(20, 200))
        return key, float(key * rng.uniform(0.05, 0.4)), int(rng.integers(3, 9))

    return judge(
        answer,
        mean_frame,
        draw,
        [
            Mistake(
                lambda k, d, T: ((k + T * (k - d)) / (T + 1), d / k),
                "T frames in all: one key frame and T - 1 that reuse its kernels.",
            ),
            Mistake(
                lambda k, d, T: (k - d, d / k),
                "This is a frame between key frames (and the median frame): the mean pays for the key frame too.",
            ),
            Mistake(
                lambda k, d, T: (k - d / 2, d / k),
                "Key frames are rarer than the others: weight the two by how often they come.",
            ),
            Mistake(
                lambda k, d, T: (k - d + d / T, (d - d / T) / k),
                "The second number is for this T; asked is what even the largest T could save.",
            ),
            Mistake(
                lambda k, d, T: (k - d + d / T, 1 - d / k),
                "The second number is what stays; asked is the share that is saved.",
            ),
            Mistake(
                lambda k, d, T: (k / T, d / k), "Reuse skips the instance decoder alone: the rest runs every frame."
            ),
        ],
    )


def read_log(answer: Callable) -> Verdict:
    """read_log(text) -> (median, p95) in ms of the PyTorchObserver lines of a speed_benchmark_torch log."""

    def read_log(text):
        parsed = parse_log(text)
        return parsed["median_ms"], parsed["p95_ms"]

    def draw(rng):
        times = rng.uniform(6e4, 9e4, int(rng.integers(9, 16))).round()
        times[rng.integers(len(times))] = 1.2e6 + 10 * rng.integers(1000)  # one hiccup, which C++ prints as 1.2e+06
        lines = ["Starting benchmark.", "Running warmup runs.", "Main runs.", "[W] Could not initialize NNPACK!"]
        for us in times:
            about = f'"type": "NET", "unit": "us", "metric": "latency", "value": "{us:g}"'
            lines.append(f"PyTorchObserver {{{about}}}")
        mean = times.mean()
        lines.append(f"Main run finished. Microseconds per iter: {mean:g}. Iters per second: {1e6 / mean:g}")
        return ("\n".join(lines) + "\n",)

    def times(text):
        return parse_log(text)["runs"][0]["times_ms"]

    return judge(
        answer,
        read_log,
        draw,
        [
            Mistake(lambda t: tuple(1e3 * x for x in read_log(t)), 'The values are in "us": divide by 1000.'),
            Mistake(
                lambda t: (parse_log(t)["mean_ms"], read_log(t)[1]),
                "The first number is the mean, as in the last line: one hiccup moves it, the median hardly.",
            ),
            Mistake(
                lambda t: (median(times(t)), max(times(t))),
                "The second number is the longest run; 95 % of the runs are faster than p95: np.percentile.",
            ),
            Mistake(
                lambda t: (median(times(t)), sorted(times(t))[int(0.95 * (len(times(t)) - 1))]),
                "p95 lies between two runs here: np.percentile interpolates.",
            ),
            Mistake(
                lambda t: (
                    median([x for x in times(t) if x < 1e3]),
                    np.percentile([x for x in times(t) if x < 1e3], 95),
                ),
                "A run is missing: long times are printed as 1.2e+06, which float() reads.",
            ),
        ],
    )


def fair_times(answer: Callable) -> Verdict:
    """fair_times(jobs {name: (prepare, run)}, clock, warmup, rounds) -> {name: median ms of run}.

    Judged in a pretended world with a pretended clock: cold first runs, hiccups, a machine that gets slower.
    """

    def fair_times(jobs, clock, warmup, rounds, centre=median, apart=False, whole=False, cold=False, scale=1e3):
        times = {name: [] for name in jobs}
        turns = [(name, i) for i in range(warmup + rounds) for name in jobs]
        for name, _ in sorted(turns, key=lambda turn: list(jobs).index(turn[0])) if apart else turns:
            prepare, run = jobs[name]
            early, given = clock(), prepare()
            start = early if whole else clock()
            run(given)
            times[name].append(scale * (clock() - start))
        return {name: centre(ms if cold else ms[warmup:]) for name, ms in times.items()}

    def draw(rng):
        rounds = 2 * int(rng.integers(3, 5)) + 1
        world = _World(rng, warmup := rounds - 1, rounds)
        return world.jobs, _Step(world, "", "clock"), warmup, rounds

    return judge(
        answer,
        fair_times,
        draw,
        [
            Mistake(partial(fair_times, scale=1.0), "The clock tells seconds; asked are milliseconds."),
            Mistake(
                partial(fair_times, cold=True),
                "The first `warmup` runs are slow for reasons of their own: run them, and leave them out.",
            ),
            Mistake(
                partial(fair_times, whole=True),
                "prepare() is inside: read the clock after it, so that only run is timed.",
            ),
            Mistake(partial(fair_times, centre=fmean), "This is the mean: one hiccup moves it. Take the median."),
            Mistake(partial(fair_times, centre=min), "This is the fastest run, which flatters. Take the median."),
            Mistake(
                partial(fair_times, apart=True),
                "One job after the other: the machine gets slower meanwhile, and the last job pays. Take turns.",
            ),
            Mistake(
                partial(fair_times, centre=fmean, apart=True, whole=True, cold=True, scale=1.0),
                "Nothing of the lie is mended yet: it takes the mean of everything, in seconds, one job after the other.",
            ),
            Mistake(
                lambda jobs, clock, warmup, rounds: dict.fromkeys(jobs, 0.0),
                "These are times of a clock of your own: read the clock that is handed over.",
            ),
        ],
        tolerance=0.05,
    )


def least_ms(answer: Callable) -> Verdict:
    """least_ms(macs, size, gflop_s, gb_s) -> (ms, "compute" | "memory"): the roof of a layer, and what holds it down."""

    def least_ms(macs, size, gflop_s, gb_s):
        compute, memory = 2e-6 * macs / gflop_s, 1e-6 * size / gb_s
        return max(compute, memory), "compute" if compute > memory else "memory"

    def draw(rng):
        gflop_s, gb_s = float(rng.uniform(20, 150)), float(rng.uniform(5, 25))
        size = int(rng.integers(10**6, 10**8))
        roof = gflop_s / gb_s * rng.choice([rng.uniform(0.1, 0.7), rng.uniform(2.5, 8)])  # FLOP for each byte
        return int(roof * size / 2), size, gflop_s, gb_s

    def but(wrong):
        """wrong(compute, memory) -> ms, with the right word."""
        return lambda m, s, f, b: (wrong(2e-6 * m / f, 1e-6 * s / b), least_ms(m, s, f, b)[1])

    return judge(
        answer,
        least_ms,
        draw,
        [
            Mistake(lambda m, s, f, b: least_ms(m / 2, s, f, b), "One MAC is two FLOP: a product and a sum."),
            Mistake(
                but(lambda compute, memory: compute + memory),
                "A core multiplies while it waits for memory: the slower of the two decides, not their sum.",
            ),
            Mistake(
                but(lambda compute, memory: min(compute, memory)),
                "Both have to be done: the slower of the two decides.",
            ),
            Mistake(
                but(lambda compute, memory: max(compute, memory) / 1e3), "These are seconds; asked are milliseconds."
            ),
            Mistake(
                lambda *given: (least_ms(*given)[0], {"compute": "memory", "memory": "compute"}[least_ms(*given)[1]]),
                'The words are exchanged: "memory" where moving the bytes takes longer.',
            ),
        ],
        rounds=12,
    )


class _World:
    """Time that only passes when a job runs: cold first runs, one hiccup a job, a machine that gets slower."""

    def __init__(self, rng: np.random.Generator, warmup: int, rounds: int):
        names = [str(name) for name in rng.permutation(["eager", "lite", "onnx"])]
        self.now, self.runs, self.prepared, self.warmup = (
            float(rng.uniform(10, 1000)),
            dict.fromkeys(names, 0),
            {},
            warmup,
        )
        self.ms = {name: float(ms) for name, ms in zip(names, rng.uniform(20, 90, 3))}
        self.hiccup = {name: warmup + int(rng.integers(rounds)) for name in names}
        self.total = 3 * (warmup + rounds)
        self.jobs = {name: (_Step(self, name, "prepare"), _Step(self, name, "run")) for name in names}

    def clock(self, name: str) -> float:
        return self.now

    def prepare(self, name: str) -> str:
        self.now += 0.6e-3 * self.ms[name]
        self.prepared[name] = f"frame {self.runs[name]} for {name}"
        return self.prepared[name]

    def run(self, name: str, given: str) -> None:
        if given != self.prepared.get(name):
            raise ValueError(f"run of {name!r} was given {given!r}; it takes what prepare() has just returned")
        count, hot = self.runs[name], 1 + sum(self.runs.values()) / self.total
        slow = 5 if count < self.warmup else 8 if count == self.hiccup[name] else 1
        self.now += 1e-3 * self.ms[name] * hot * slow
        self.runs[name] += 1


class _Step:
    """One function of a `_World`; all are equal, so that a world that went on is not taken for a changed argument."""

    def __init__(self, world: _World, name: str, what: str):
        self.world, self.name, self.what = world, name, what

    def __call__(self, *given):
        return getattr(self.world, self.what)(self.name, *given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Step)
