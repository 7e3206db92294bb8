"""minst.mobile.logs: recorded logs, made-up numbers, and what is no result: cut, crashed, another program's."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minst.mobile.logs import parse_log, report_log

DATA = Path(__file__).parent / "data"
FIELDS = ("median_ms", "p95_ms", "spread_ms")


def recorded(name):
    return (DATA / name).read_bytes().decode()


def pep(times_us, end="\n"):
    lines = ["Starting benchmark.", "Running warmup runs.", "Main runs."]
    lines += [
        f'PyTorchObserver {{"type": "NET", "unit": "us", "metric": "latency", "value": "{t}"}}'
        for t in times_us
    ]
    mean = sum(map(float, times_us)) / len(times_us) + 20
    return end.join(
        [*lines, f"Main run finished. Microseconds per iter: {mean:.6g}. Iters per second: 1.5", ""]
    )


def executions(times, lines=True):
    each = (
        [f"Iteration {i} of {len(times)}: {ms:f} ms" for i, ms in enumerate(times, 1)]
        if lines
        else []
    )
    said = [
        "Model file m.pte is loaded.",
        *each,
        f"Model executed successfully {len(times)} time(s) in {sum(times):f} ms.",
    ]
    return "".join(
        f"I 00:00:00.000123 executorch:executor_runner.cpp:501] {line}\n" for line in said
    )


def test_the_plain_log_tells_a_mean_and_nothing_else():
    said = parse_log(recorded("speed_mean.log"))
    assert said["format"] == "speed_benchmark_torch" and said["mean_ms"] == pytest.approx(187.45)
    assert (
        all(said[field] is None for field in (*FIELDS, "iterations", "run_spread_ms"))
        and not said["cold"]
    )
    assert len(said["runs"]) == 1 and said["runs"][0]["times_ms"] == []
    assert "no median (--report_pep=true" in report_log(said) and "first, cold" not in report_log(
        said
    )


def test_two_rounds_with_every_run_warnings_crlf_and_an_exponent():
    text = recorded("speed_pep_two_rounds.log")
    assert "\r\n" in text and "[W " in text
    said = parse_log(text)
    first, second = said["runs"]
    assert first["times_ms"] == pytest.approx([161.24, 158.31, 160.02, 174.905, 159.48])
    assert first["median_ms"] == pytest.approx(160.02) and first["mean_ms"] == pytest.approx(
        162.794
    )
    assert first["p95_ms"] == pytest.approx(
        161.24 + 0.8 * (174.905 - 161.24)
    )  # 0.95 * 4 = 3.8 in order of length
    assert first["spread_ms"] == pytest.approx(16.595) and second["spread_ms"] == pytest.approx(
        1204.31 - 161.9
    )
    assert said["iterations"] == 10 and said["median_ms"] == pytest.approx((161.9 + 162.25) / 2)
    assert said["run_spread_ms"] == pytest.approx(163.1 - 160.02) and said[
        "mean_ms"
    ] == pytest.approx(267.2245)
    table = report_log(said).splitlines()
    assert table[1].split()[:4] == ["run", "1", "5", "160.02"] and table[3].split()[:2] == [
        "all",
        "10",
    ]
    assert "from run to run: 3.08 ms" in table[4]
    assert (
        parse_log(text.replace("\r\n", "\r\r\n")) == parse_log(text.replace("\r\n", "\n")) == said
    )


def test_executorch_sums_of_two_runs_are_subtracted():
    said = parse_log(recorded("executorch_sums.log"))  # 5 in 640.5 ms, 25 in 2400.5 ms
    assert said["format"] == "executor_runner" and said["iterations"] == 20 and not said["cold"]
    assert said["mean_ms"] == pytest.approx((2400.5 - 640.5) / 20) and all(
        said[field] is None for field in FIELDS
    )
    assert len(said["runs"]) == 1


def test_an_executorch_sum_alone_is_marked_as_cold():
    said = parse_log(executions([300.0, *[100.0] * 9], lines=False))
    assert said["cold"] and said["mean_ms"] == pytest.approx(120) and said["iterations"] == 10
    assert "first, cold execution is in the mean" in report_log(said)
    unlike = executions([300.0] * 3, lines=False) + executions([100.0] * 9, lines=False)
    assert [run["mean_ms"] for run in parse_log(unlike)["runs"]] == [
        100
    ]  # 3 are no warm-up of 5: not taken off
    warm = recorded("executorch_sums.log")
    both = parse_log(warm + unlike)
    assert [run["cold"] for run in both["runs"]] == [False, True] and both["cold"]
    assert parse_log(unlike)["cold"] and len(parse_log(unlike, warmup=1)["runs"]) == 2


def test_executorch_in_logcat_leaves_the_first_executions_out():
    said = parse_log(recorded("executorch_logcat.log"), warmup=2)
    (run,) = said["runs"]
    assert run["times_ms"] == [88.5, 88.25, 90.75, 97.5, 88.0] and run["first_ms"] == 139.0
    assert (
        run["median_ms"] == 88.5
        and run["mean_ms"] == pytest.approx(453 / 5)
        and run["iterations"] == 5
    )
    assert said["run_spread_ms"] is None and not said["cold"] and said["spread_ms"] == 9.5
    assert report_log(said).splitlines()[1].split()[-1] == "139.00"


def test_executorch_warm_ups_alone_are_all_there_is():
    said = parse_log(executions([200.0, 100.0, 100.0]))
    assert said["cold"] and said["iterations"] == 3 and said["mean_ms"] == pytest.approx(400 / 3)
    assert parse_log(executions([200.0, 100.0, 100.0]), warmup=0)["cold"]


@given(st.lists(st.lists(st.integers(1, 999_999), min_size=1, max_size=20), min_size=1, max_size=4))
def test_any_times_of_speed_benchmark_come_back(rounds):
    said = parse_log("".join(map(pep, rounds)))
    every = [t / 1e3 for times in rounds for t in times]
    assert [run["times_ms"] for run in said["runs"]] == [
        [t / 1e3 for t in times] for times in rounds
    ]
    assert said["median_ms"] == pytest.approx(statistics.median(every)) and said[
        "iterations"
    ] == len(every)
    assert said["p95_ms"] == pytest.approx(np.quantile(every, 0.95))
    assert said["spread_ms"] == pytest.approx(np.ptp(every))
    assert said["mean_ms"] == pytest.approx(statistics.fmean(every) + 0.02, rel=1e-4)
    if len(rounds) > 1:
        middles = [statistics.median(times) / 1e3 for times in rounds]
        assert said["run_spread_ms"] == pytest.approx(np.ptp(middles), abs=1e-9)


@given(st.lists(st.floats(0.01, 1e5), min_size=2, max_size=30), st.integers(0, 30), st.booleans())
def test_any_times_of_executorch_come_back(times, warmup, lines):
    times = [round(t, 6) for t in times]
    warmup = min(warmup, len(times) - 1)
    text = (
        executions(times[:warmup], lines) + executions(times, lines)
        if warmup
        else executions(times, lines)
    )
    said = parse_log(text, warmup)
    counted = times[warmup:]
    assert said["iterations"] == len(counted) and said["cold"] == (warmup == 0)
    assert said["mean_ms"] == pytest.approx(statistics.fmean(counted), rel=1e-3, abs=1e-4)
    assert (said["median_ms"] is None) == (not lines)
    if lines:
        assert said["median_ms"] == pytest.approx(statistics.median(counted))


@given(st.data())
def test_a_log_cut_anywhere_is_never_a_wrong_number(data):
    """Whatever is cut off at the end: either a complaint or the numbers of whole runs."""
    text = pep([161_240, 158_310]) + pep([170_000, 171_000])
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        said = parse_log(cut)
    except ValueError:
        return
    whole = [[161.24, 158.31], [170.0, 171.0]]
    assert [run["times_ms"] for run in said["runs"]] == whole[: len(said["runs"])]


CRASHES = [
    "Segmentation fault",
    "CANNOT LINK EXECUTABLE \"./speed_benchmark_torch\": library \"libc++_shared.so\" not found",
    "/system/bin/sh: ./speed_benchmark_torch: Permission denied",
    "/system/bin/sh: ./speed_benchmark_torch: not executable: 64-bit ELF file",
    "sh: ./speed_benchmark_torch: inaccessible or not found",
    "libc++abi: terminating due to uncaught exception of type c10::Error: open file failed, file path: a.ptl",
    "Model does not have bundled inputs.  Before saving,",
    "ERROR: unknown command line flag 'report_pep'",
    "11-23 14:02:01.418  7042  7042 E ExecuTorch: Loading of method forward failed with status 0x20",
]  # fmt: skip


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("before", ["", "Starting benchmark.\nRunning warmup runs.\n"])
def test_a_crash_is_quoted(crash, before):
    with pytest.raises(ValueError, match="benchmarker failed") as caught:
        parse_log(f"{before}{crash}\r\n")
    assert crash in str(caught.value).replace("\\'", "'") and "\n" not in str(caught.value)


def test_a_crash_in_the_second_run_is_not_the_first_ones_result():
    with pytest.raises(ValueError, match="Segmentation fault"):
        parse_log(pep([160_000]) + "Starting benchmark.\nSegmentation fault\n")
    with pytest.raises(ValueError, match="interrupted"):
        parse_log(pep([160_000])[:-60] + "\nStarting benchmark.\n" + pep([160_000]))
    with pytest.raises(
        ValueError, match="'status 0x20 failed: 0x1 / Aborted'"
    ):  # the reason, and the end
        parse_log("a: Permission denied\nStarting benchmark.\nstatus 0x20 failed: 0x1\nAborted\n")
    noise = "cpuinfo: /sys/devices/soc0: Permission denied\n"  # before a run that ends well: only a warning
    assert parse_log(noise + pep([160_000]) + "Aborted\n")["iterations"] == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        (" \r\n\n", "empty"),
        (
            "Loading model...\nmean 12 ms\n",
            "neither speed_benchmark_torch nor executor_runner.*Loading model",
        ),
        ("Starting benchmark.\nRunning warmup runs.\n", "interrupted in its warm-up"),
        ("Starting benchmark.\nRunning warmup runs.\nMain runs.\n", "interrupted in its main runs"),
        (
            "I x] Model file m.pte is loaded.\nI x] Using method forward\n",
            "interrupted in its warm-up or while loading",
        ),
        (
            "Main runs.\nMain run finished. Microseconds per iter: nan. Iters per second: inf\n",
            "'nan' is no time",
        ),
        (
            "Main runs.\nMain run finished. Microseconds per iter: -5. Iters per second: 1\n",
            "'-5' is no time",
        ),
        ("Main runs.\nMain run finished. Microseconds per it", "main runs"),
        ("Main runs.\nMain run finished. Microseconds per iter: 1213", "cut"),
        (
            'PyTorchObserver {"type": "NET", "unit": "s", "metric": "latency", "value": "12"}\n',
            "another version",
        ),
        (pep([160_000]) + executions([100.0]), "two programs"),
        (executions([100.0] * 7).replace("Iteration 3 of", "Iteration"), "lines are lost"),
        (executions([100.0] * 7).replace("of 7: 100.", "of 7: 400.", 1), "lines are lost"),
        (
            executions([100.0] * 5, lines=False) + executions([50.0] * 7, lines=False),
            "no longer than 5 before",
        ),
    ],
)
def test_no_result_is_said_in_one_line(text, named):
    with pytest.raises(ValueError, match=named) as caught:
        parse_log(text)
    assert "\n" not in str(caught.value)


def test_milliseconds_and_the_two_lines_of_ios():
    """As the tool prints them (a mean of 160.37 ms), and iOS's test app (28.767 ms)."""
    said = parse_log(
        "Starting benchmark.\nRunning warmup runs.\nMain runs.\n"
        "Main run finished. Milliseconds per iter: 160.37. Iters per second: 6.23558\n"
    )
    assert said["mean_ms"] == 160.37 and said["median_ms"] is None
    app = "TestApp[2121:722447] "
    end = [
        f"{app}Main run finished. Milliseconds per iter: 28.767",
        f"{app}Iters per second: : 34.762",
    ]
    for newline in ("\n", "\r\n"):
        lines = [f"{app}Main runs", *end, f"{app}Done.", ""]
        assert parse_log(newline.join(lines))["mean_ms"] == 28.767
    observed = (
        'PyTorchObserver {"type": "NET", "unit": "ms", "metric": "latency", "value": "12.5"}\n'
    )
    times = parse_log(
        observed + "Main run finished. Microseconds per iter: 12500. Iters per second: 80\n"
    )
    assert times["runs"][0]["times_ms"] == [12.5] and times["mean_ms"] == 12.5
    with pytest.raises(ValueError, match="cut or of another version"):
        parse_log(f"{app}Main runs\n{end[0]}")


def test_a_runner_without_times_is_named():
    log = "I x] Model file m.pte is loaded.\nI x] Model executed successfully.\n"
    with pytest.raises(ValueError, match="executor_runner tells no times; build a newer one"):
        parse_log(log)


@pytest.mark.parametrize("warmup", [-1, 1.0, True])
def test_a_wrong_warm_up(warmup):
    with pytest.raises(ValueError, match="warmup"):
        parse_log(recorded("executorch_sums.log"), warmup)
