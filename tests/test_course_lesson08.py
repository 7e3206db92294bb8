"""The checks of lesson 08: students' mistakes meet their hint."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch
from torch.jit.mobile import _load_for_lite_interpreter
from torch.utils.mobile_optimizer import optimize_for_mobile

from minst.course import lesson08 as check
from minst.mobile import timing


def test_another_fair_order_is_correct_too():
    """Every round starts with another job: as fair as the reference."""

    def rotating(jobs, clock, warmup, rounds):
        ms, names = {name: [] for name in jobs}, list(jobs)
        for i in range(warmup + rounds):
            for name in names[i % 3 :] + names[: i % 3]:
                image = jobs[name][0]()
                before = clock()
                jobs[name][1](image)
                if i >= warmup:
                    ms[name].append((clock() - before) * 1000)
        return {name: float(np.median(values)) for name, values in ms.items()}

    for _ in range(30):
        assert check.fair_times(rotating), check.fair_times(rotating)


def test_a_job_wants_what_its_own_prepare_gave():
    def stale(jobs, clock, warmup, rounds):
        images = {name: prepare() for name, (prepare, _) in jobs.items()}
        for name, (_, run) in jobs.items():
            run(images[name])
            run(None)

    assert "prepare()" in check.fair_times(stale).reason


# --- what students write


def all_channels(h, w, c_in, c_out, k, s, g):
    out = (h // s) * (w // s)
    return out * c_out * c_in * k * k, 4 * (h * w * c_in + out * c_out + c_out * c_in // g * k * k)


def input_places(h, w, c_in, c_out, k, s, g):
    weights = k * k * c_in // g * c_out
    return h * w * weights, 4 * (h * w * c_in + weights + h // s * (w // s) * c_out)


def flop(h, w, c_in, c_out, k, s, g):
    weights, out = k * k * c_in // g * c_out, h // s * (w // s)
    return 2 * out * weights, 4 * (h * w * c_in + weights + out * c_out)


def numbers(h, w, c_in, c_out, k, s, g):
    weights, out = k * k * c_in // g * c_out, h // s * (w // s)
    return out * weights, h * w * c_in + weights + out * c_out


def maps_alone(h, w, c_in, c_out, k, s, g):
    out = h // s * (w // s)
    return out * k * k * c_in // g * c_out, 4 * (h * w * c_in + out * c_out)


def side_of_kernel(h, w, c_in, c_out, k, s, g):
    out, seen = h // s * (w // s), c_in // g
    return out * k * seen * c_out, 4 * (h * w * c_in + k * k * seen * c_out + out * c_out)


def shares_of(part, whole):
    return sorted(a / b for a, b in zip(part, whole))


def two_medians(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(part) / np.median(whole), shares[k - 1], shares[-k]


def sorts_times(part, whole, k):
    shares = shares_of(sorted(part), sorted(whole))
    return np.median(shares), shares[k - 1], shares[-k]


def upside_down(part, whole, k):
    shares = shares_of(whole, part)
    return np.median(shares), shares[k - 1], shares[-k]


def mean_share(part, whole, k):
    shares = shares_of(part, whole)
    return np.mean(shares), shares[k - 1], shares[-k]


def extremes(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(shares), shares[0], shares[-1]


def from_zero(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(shares), shares[k], shares[-k]


def from_zero_at_both_ends(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(shares), shares[k], shares[-k - 1]


def high_first(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(shares), shares[-k], shares[k - 1]


def rest(part, whole, k):
    shares = [1 - share for share in shares_of(part, whole)][::-1]
    return np.median(shares), shares[k - 1], shares[-k]


def values(text):
    return [float(line.split('"')[-2]) for line in text.splitlines() if "PyTorchObserver" in line]


def microseconds(text):
    return np.median(values(text)), np.percentile(values(text), 95)


def as_the_last_line(text):
    return statistics.fmean(values(text)) / 1e3, np.percentile(values(text), 95) / 1e3


def longest(text):
    return np.median(values(text)) / 1000, max(values(text)) / 1000


def digits_alone(text):
    us = [
        int(line.split('"')[-2])
        for line in text.splitlines()
        if line.startswith("Py") and "e+" not in line
    ]
    return np.median(us) / 1000, np.percentile(us, 95) / 1000


def no_interpolation(text):
    us = sorted(values(text))
    return statistics.median(us) / 1e3, us[int(0.95 * (len(us) - 1))] / 1e3


def measured(jobs, clock, warmup, rounds, inside=False, skip=True):
    """Students' loops, fair but for what is said."""
    ms = {name: [] for name in jobs}
    for i in range(warmup + rounds):
        for name in jobs:
            if inside:
                start = clock()
                jobs[name][1](jobs[name][0]())
            else:
                image = jobs[name][0]()
                start = clock()
                jobs[name][1](image)
            ms[name] += [1000 * (clock() - start)] if i >= warmup or not skip else []
    return ms


def takes_the_mean(*given):
    return {name: np.mean(ms) for name, ms in measured(*given).items()}


def takes_the_best(*given):
    return {name: min(ms) for name, ms in measured(*given).items()}


def counts_the_cold(*given):
    return {name: np.median(ms) for name, ms in measured(*given, skip=False).items()}


def prepares_inside(*given):
    return {name: np.median(ms) for name, ms in measured(*given, inside=True).items()}


def in_seconds(*given):
    return {name: np.median(ms) / 1000 for name, ms in measured(*given).items()}


def own_clock(jobs, clock, warmup, rounds):
    return {
        name: np.median(ms)
        for name, ms in measured(jobs, time.perf_counter, warmup, rounds).items()
    }


def one_after_the_other(jobs, clock, warmup, rounds):
    return {
        name: np.median(measured({name: job}, clock, warmup, rounds)[name])
        for name, job in jobs.items()
    }


def lying(jobs, clock, warmup, rounds):
    times = {}
    for name, (prepare, run) in jobs.items():
        start = clock()
        for _ in range(warmup + rounds):
            run(prepare())
        times[name] = (clock() - start) / (warmup + rounds)
    return times


def saves(
    module, example, path, optimise=True, lite=True, where="", compare=lambda a, b: (a - b).abs().max()
):
    graph = torch.jit.trace(module, example)
    graph = optimize_for_mobile(graph) if optimise else torch.jit.freeze(graph)
    if lite:
        graph._save_for_lite_interpreter(path + where)
        graph = _load_for_lite_interpreter(path + where)
    else:
        torch.jit.save(graph, path)
    return compare(graph(example), module(example))


def keeps_the_trace(*given):
    return saves(*given, optimise=False)


def full_format(*given):
    return saves(*given, lite=False)


def elsewhere(*given):
    return saves(*given, where=".ptl")


def with_itself(*given):
    return saves(*given, compare=lambda a, b: 0.0)


def mean_difference(*given):
    return saves(*given, compare=lambda a, b: (a - b).abs().mean())


def relative(*given):
    return saves(*given, compare=lambda a, b: (a - b).abs().max() / b.max())


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("conv_cost", all_channels, "c_in / groups channels"),
        ("conv_cost", input_places, "stride"),
        ("conv_cost", flop, "two FLOP"),
        ("conv_cost", numbers, "4 bytes"),
        ("conv_cost", maps_alone, "weights are read"),
        ("conv_cost", side_of_kernel, "k x k"),
        ("paired_share", two_medians, "two medians"),
        ("paired_share", sorts_times, "Sort the shares"),
        ("paired_share", upside_down, "whole by the part"),
        ("paired_share", mean_share, "is the mean"),
        ("paired_share", extremes, "smallest and the largest"),
        ("paired_share", from_zero, "counts from 0"),
        ("paired_share", from_zero_at_both_ends, "counts from 0"),
        ("paired_share", high_first, "Low comes before high"),
        ("paired_share", rest, "what remains"),
        ("read_log", microseconds, "divide by 1000"),
        ("read_log", as_the_last_line, "hiccup"),
        ("read_log", longest, "longest run"),
        ("read_log", digits_alone, "1.2e+06"),
        ("read_log", no_interpolation, "interpolates"),
        ("fair_times", takes_the_mean, "mean: one hiccup"),
        ("fair_times", takes_the_best, "fastest"),
        ("fair_times", counts_the_cold, "warmup"),
        ("fair_times", prepares_inside, "after it"),
        ("fair_times", in_seconds, "milliseconds"),
        ("fair_times", own_clock, "of your own"),
        ("fair_times", one_after_the_other, "Take turns"),
        ("fair_times", lying, "Nothing of the lie"),
    ],
)
def test_students_meet_their_hint(name, answer, word):
    for _ in range(5):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


needs_xnnpack = pytest.mark.skipif(not torch._C._is_xnnpack_enabled(), reason="this torch has no XNNPACK")


@needs_xnnpack
@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (keeps_the_trace, "not optimised"),
        (full_format, "save() writes another format"),
        (elsewhere, "Nothing is at `path`"),
        (with_itself, "with `module` itself"),
        (mean_difference, "is the mean"),
        (relative, "no share"),
    ],
)
def test_a_file_that_is_none_for_a_phone_meets_its_hint(answer, word):
    verdict = check.save_for_phone(answer)
    assert verdict.state == "wrong" and word in verdict.reason, verdict
    assert verdict.or_ours is not None and len(verdict.given) == 3


@needs_xnnpack
def test_a_tensor_is_taken_for_a_number_and_a_path_may_be_handed_on():
    assert check.save_for_phone(saves)
    assert check.save_for_phone(lambda *given: saves(*given).item())


def test_without_xnnpack_the_lesson_goes_on(monkeypatch):
    def stub(module, example, path):
        raise NotImplementedError

    with_it = check.save_for_phone(stub)
    monkeypatch.setattr(torch._C, "_is_xnnpack_enabled", lambda: False)
    without = check.save_for_phone(stub)
    assert repr(without) == repr(with_it)  # the line of the stub is that of every torch
    assert without.or_ours is None
    tried = check.save_for_phone(keeps_the_trace)
    assert tried.state == "not attempted" and "XNNPACK" in tried.reason and "mobileinst[lite]" in tried.reason


def test_paired_shares_are_minsts():
    """The lesson's k is that of timing.median_interval, and so are the numbers."""
    rng = np.random.default_rng(0)
    for n, k in ((12, 3), (20, 6)):
        part, whole = rng.random(n), 1 + rng.random(n)
        assert check.paired_share(lambda part, whole, k: two_numbers(part, whole, k))
        found = timing.median_interval(list(part / whole))
        assert two_numbers(part, whole, k) == pytest.approx(tuple(found.values()))


def two_numbers(part, whole, k):
    shares = shares_of(part, whole)
    return np.median(shares), shares[k - 1], shares[-k]


def test_convolutions_are_those_of_the_model():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 5, 1, 2, groups=4))
    found = check.convolutions(net, (16, 24))
    assert found == [(16, 24, 3, 4, 3, 2, 1), (8, 12, 4, 4, 5, 1, 4)]


def test_axes_of_a_few_milliseconds_have_labels():
    """The first picture once had a logarithmic axis with one label."""
    for low, high in ((18, 27), (5, 900), (0.3, 0.5), (101, 149)):
        fig = check.plot_runs({"a": [low, high]}, {"median": low}, "head", "note")
        axes = fig.axes[0]
        fig.canvas.draw()
        inside = [t for t in axes.get_yticks() if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert 3 <= len(inside) <= 15 and all(labels), (low, high, inside)


def test_bars_say_their_words_and_mark_what_is_wrong():
    rows = {"eager": {"a": 2.0, "b": 1.0}, "file": {"a": 1.0, "b": 1.0}}
    fig = check.plot_bars(rows, {"eager": "3 ms", "file": "2 ms"}, "head", "note", wrong={"file"})
    axes = fig.axes[0]
    assert {"3 ms", "2 ms"} <= {text.get_text().strip() for text in axes.texts}
    assert [bar.get_width() for bar in axes.patches] == [2, 1, 1, 1]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[2] == colours[3] not in colours[:2] and colours[0] != colours[1]
