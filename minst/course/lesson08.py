"""Lesson 08: a convolution's cost, a file for a phone, a log, fair benchmarks, paired shares."""

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import nn
from torch.jit.mobile import _export_operator_list, _load_for_lite_interpreter
from torch.utils.flop_counter import FlopCounterMode

from minst.course.verdict import Verdict, difference, examine, judge, say
from minst.mobile.logs import parse_log
from minst.mobile.runtime import quiet, require
from minst.visualize.style import GREY, INK, RED, Picture, bare, headline, new_figure, rgb

__all__ = ["conv_cost", "fair_times", "paired_share", "read_log", "save_for_phone"]


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


def save_for_phone(answer: Callable) -> Verdict:
    """A number, and a file. Where torch has no XNNPACK, `or_ours` is None and a line says so."""

    def reference(module, example, path):
        from torch.utils.mobile_optimizer import optimize_for_mobile

        with quiet():
            traced = torch.jit.trace(module, example)
            optimize_for_mobile(traced)._save_for_lite_interpreter(path)
        return (_load_for_lite_interpreter(path)(example) - module(example)).abs().max().item()

    def fault(got, module, example, path):
        if not Path(path).is_file():
            hint = "Nothing is at `path`: optimized._save_for_lite_interpreter(path) writes it."
            return say(hint)
        try:
            loaded = _load_for_lite_interpreter(path)
        except RuntimeError:
            return say("The lite interpreter cannot load this file; save() writes another format.")
        if not any(name.startswith("prepacked::") for name in _export_operator_list(loaded)):
            hint = "The file is not optimised: optimize_for_mobile(traced) returns a new module."
            return say(hint)
        apart = loaded(example) - module(example)
        if not (problem := difference(got, apart.abs().max())):
            return ""
        hints = {
            "Compare the loaded file with `module` itself.": 0 * apart.max(),
            "This is the mean; one place that is far off counts.": apart.abs().mean(),
            "Take the absolute value before the largest.": apart.max(),
            "The difference itself is asked, no share.": apart.abs().max() / module(example).max(),
        }
        told = (hint for hint, mistake in hints.items() if not difference(got, mistake))
        return say("{problem}", next(told, ""), problem=problem)

    def cases():
        for i in range(3):
            # the norm shifts a convolution that has no bias
            layers = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
            nn.init.normal_(layers[1].bias, std=2.0)
            yield nn.Sequential(*layers).eval(), torch.rand(1, 3, 12, 12), f"{folder}/{i}.ptl"

    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), quiet():
        verdict = examine(answer, save_for_phone, cases(), fault, reference=reference)
    try:
        require("lite")
    except ImportError as error:
        reason = verdict.reason if verdict.state == "not attempted" else str(error)
        return Verdict("not attempted", "save_for_phone", reason)
    return verdict


def paired_share(answer: Callable) -> Verdict:
    """paired_share(part, whole, k) -> (median, low, high) of the shares of single rounds."""

    def paired_share(part, whole, k, centre=median, ends=lambda k: (k - 1, -k)):
        shares = sorted(a / b for a, b in zip(part, whole))
        return centre(shares), *(shares[place] for place in ends(k))

    def draw(rng):
        rounds = rng.integers(10, 20)
        # a machine that is now fast, now slow
        whole = rng.uniform(20, 60) * rng.permutation(np.geomspace(1, 6, rounds))
        part = whole * rng.normal(rng.uniform(0.2, 0.6), 0.05, rounds)
        return part.round(2).tolist(), whole.round(2).tolist(), rng.integers(2, 5)

    mistakes = [
        "Divide round by round, then take the median: a quotient of two medians mixes rounds.",
        lambda part, whole, k: (median(part) / median(whole), *paired_share(part, whole, k)[1:]),
        "Sort the shares. Whoever sorts the times first pairs a fast round with a slow one.",
        lambda part, whole, k: paired_share(sorted(part), sorted(whole), k),
        "This is the whole by the part; the part by the whole is asked.",
        lambda part, whole, k: paired_share(whole, part, k),
        "The first number is the mean: one bad round moves it, not the median.",
        partial(paired_share, centre=fmean),
        "Those are the smallest and the largest share; the k-th from either end are asked.",
        partial(paired_share, ends=lambda k: (0, -1)),
        "Python counts from 0: the k-th smallest is shares[k - 1], the k-th largest shares[-k].",
        partial(paired_share, ends=lambda k: (k, -k - 1)),
        partial(paired_share, ends=lambda k: (k, -k)),
        partial(paired_share, ends=lambda k: (k - 1, -k - 1)),
        "Low comes before high.",
        partial(paired_share, ends=lambda k: (-k, k - 1)),
        "This is what remains; the share itself is asked.",
        lambda part, whole, k: paired_share([b - a for a, b in zip(part, whole)], whole, k),
    ]
    return judge(answer, paired_share, draw, mistakes)


def read_log(answer: Callable) -> Verdict:
    """read_log(text) -> (median, p95) in ms of the runs in a log of speed_benchmark_torch."""

    def read_log(text):
        parsed = parse_log(text)
        return parsed["median_ms"], parsed["p95_ms"]

    p95 = partial(np.percentile, q=95)

    def of_times(summary):
        return lambda text: summary(sorted(parse_log(text)["runs"][0]["times_ms"]))

    def draw(rng):
        times = rng.uniform(6e4, 9e4, rng.integers(9, 16)).round()
        # one hiccup, which C++ prints as 1.2e+06
        times[rng.integers(len(times))] = 1.2e6 + 10 * rng.integers(1000)
        return (log_of(times / 1e3),)

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
        of_times(lambda times: (median(short := [t for t in times if t < 1e3]), p95(short))),
    ]
    return judge(answer, read_log, draw, mistakes)


def log_of(ms: Iterable[float]) -> str:
    """Times of runs as the mobile benchmarker would have written them."""
    times = 1e3 * np.asarray(ms)
    about = '"type": "NET", "unit": "us", "metric": "latency"'
    runs = [f'PyTorchObserver {{{about}, "value": "{us:g}"}}' for us in times]
    rate = f"Microseconds per iter: {times.mean():g}. Iters per second: {1e6 / times.mean():g}"
    head = ["Starting benchmark.", "Running warmup runs.", "Main runs."]
    noise = "[W] Could not initialize NNPACK!"
    return "\n".join([*head, noise, *runs, f"Main run finished. {rate}", ""])


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
            wrong = "run of {name!r} was given {given!r}; it takes what prepare() has just returned"
            raise ValueError(say(wrong, name=name, given=given))
        count, hot = self.runs[name], 1 + sum(self.runs.values()) / self.total
        slow = 5 if count < self.warmup else 8 if count == self.hiccup[name] else 1
        self.now += 1e-3 * self.ms[name] * hot * slow
        self.runs[name] += 1


def convolutions(model: nn.Module, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """(height, width, c_in, c_out, kernel, stride, groups) of a frame's convolutions, in order."""
    found = []

    def note(conv, given, _):
        shape = *given[0].shape[2:], conv.in_channels, conv.out_channels
        found.append((*shape, conv.kernel_size[0], conv.stride[0], conv.groups))

    convs = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    hooks = [conv.register_forward_hook(note) for conv in convs]
    model(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return found


def plot_runs(runs: dict[str, Iterable[float]], lines: dict[str, float], head: str, note: str):
    """Milliseconds of runs in their order, on a logarithmic axis; lines: {name: ms} across."""
    fig = new_figure(3.1)
    headline(fig, head, note)
    axes = fig.add_axes((0.075, 0.15, 0.68, 0.63), xlabel="run", ylabel="ms", yscale="log")
    for k, (name, ms) in enumerate(runs.items()):
        axes.plot(list(ms), "o^s"[k], ms=4, color=rgb(1 + k), label=name)
    for style, (name, ms) in zip(("-", "--", ":"), lines.items()):
        axes.axhline(ms, color=INK, ls=style, lw=1, label=f"{name}: {ms:.1f} ms")
    low, high = axes.get_ylim()
    finer = (range(10, 100, step) for step in (5, 2, 1))
    for marks in ([10, 20, 50], [10, 15, 20, 30, 40, 50, 70], *finer):
        ticks = [mark * 10.0**e for e in range(-3, 5) for mark in marks]
        if len(ticks := [tick for tick in ticks if low < tick < high]) >= 3:
            break
    axes.set_yticks(ticks)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=GREY, lw=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7)
    return fig


def plot_bars(rows: dict[str, dict[str, float]], words: dict, head: str, note: str, wrong=()):
    """rows {name: {part: ms}} as stacked bars, `words` {name: text} behind; `wrong` ones red."""
    fig, parts = new_figure(), list(dict.fromkeys(part for row in rows.values() for part in row))
    headline(fig, head, note)
    axes = bare(fig.place(1.75, 0.8 + 0.2 * (len(parts) > 1), 4.6, 0.27 * len(rows)))
    for y, (name, row) in enumerate(rows.items()):
        edges = [0.0, *np.cumsum(list(row.values()))]
        for k, (part, ms) in enumerate(row.items()):
            color = RED if name in wrong else rgb(1 + parts.index(part))
            axes.barh(y, ms, 0.7, left=edges[k], color=color, label=part if not y else None)
        axes.text(edges[-1], y, f" {words[name]}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
    if len(parts) > 1:
        at = {"loc": "lower left", "bbox_to_anchor": (0, 0.98), "ncols": len(parts)}
        axes.legend(**at, frameon=False, fontsize=7)
    return fig


def saving(decoder_share: float, reuse_interval: int) -> Picture:
    """The mean frame over T, in percent of a key frame."""
    T, s = np.arange(1, 13), decoder_share
    fig, now = new_figure(2.7), 1 - s + s / reuse_interval
    note = f"Of a key frame, over T. Dashed: what no T can go below, {1 - s:.1%}."
    headline(fig, f"Decoder {s:.0%}, T = {reuse_interval}: the mean frame costs {now:.1%}", note)
    axes = fig.add_axes((0.07, 0.17, 0.9, 0.56), xlabel="T", ylabel="%", ylim=(0, 105), xticks=T)
    axes.plot(T, 100 * (1 - s + s / T), "o-", color=rgb(1), ms=4)
    axes.plot(reuse_interval, 100 * now, "o", ms=10, mfc="none", color=INK)
    axes.axhline(100 * (1 - s), color=GREY, ls="--", lw=1)
    return fig
