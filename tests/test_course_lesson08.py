"""The checks of lesson 08: students' mistakes meet their hint."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from minst.course import lesson08 as check


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


def one_more(key_ms, decoder_ms, interval):
    return (key_ms + interval * (key_ms - decoder_ms)) / (interval + 1), decoder_ms / key_ms


def halves(key_ms, decoder_ms, interval):
    return (key_ms + (key_ms - decoder_ms)) / 2, decoder_ms / key_ms


def middle_frame(key_ms, decoder_ms, interval):
    frames = [key_ms] + (interval - 1) * [key_ms - decoder_ms]
    return statistics.median(frames), decoder_ms / key_ms


def at_this_interval(key_ms, decoder_ms, interval):
    mean = (key_ms + (interval - 1) * (key_ms - decoder_ms)) / interval
    return mean, (key_ms - mean) / key_ms


def stays(key_ms, decoder_ms, interval):
    return key_ms - decoder_ms + decoder_ms / interval, (key_ms - decoder_ms) / key_ms


def rests(key_ms, decoder_ms, interval):
    return key_ms / interval, decoder_ms / key_ms


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


def roof(macs, size, gflop_s, gb_s, choose=max):
    compute, memory = 2 * macs / gflop_s / 1e6, size / gb_s / 1e6
    return choose(compute, memory), "memory" if memory >= compute else "compute"


def one_flop(macs, size, gflop_s, gb_s):
    return roof(macs / 2, size, gflop_s, gb_s)


def added(*given):
    return roof(*given, choose=lambda compute, memory: compute + memory)


def faster_of_the_two(*given):
    return roof(*given, choose=min)


def seconds(*given):
    return roof(*given)[0] / 1000, roof(*given)[1]


def exchanged(*given):
    ms, word = roof(*given)
    return ms, "compute" if word == "memory" else "memory"


@pytest.mark.parametrize(
    ("name", "answer", "word"),
    [
        ("conv_cost", all_channels, "c_in / groups channels"),
        ("conv_cost", input_places, "stride"),
        ("conv_cost", flop, "two FLOP"),
        ("conv_cost", numbers, "4 bytes"),
        ("conv_cost", maps_alone, "weights are read"),
        ("conv_cost", side_of_kernel, "k x k"),
        ("mean_frame", one_more, "T - 1"),
        ("mean_frame", halves, "how often"),
        ("mean_frame", middle_frame, "median frame"),
        ("mean_frame", at_this_interval, "largest T"),
        ("mean_frame", stays, "what stays"),
        ("mean_frame", rests, "instance decoder alone"),
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
        ("least_ms", one_flop, "two FLOP"),
        ("least_ms", added, "not their sum"),
        ("least_ms", faster_of_the_two, "Both have to be done"),
        ("least_ms", seconds, "are seconds"),
        ("least_ms", exchanged, "exchanged"),
    ],
)
def test_students_meet_their_hint(name, answer, word):
    for _ in range(5):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict
