"""minst.mobile.benchmark and timing: every row is there and adds up, JSON is what is returned.

No test says how fast anything must be: that is for `minst bench`, on a quiet machine.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial

import pytest
import torch

import minst
from minst.mobile import benchmark, timing
from minst.mobile.benchmark import RUNTIMES, bench_data, bench_latency, bench_mobile
from minst.mobile.programs import settled_model
from minst.mobile.runtime import load_program
from minst.mobile.timing import allocator, summarize, table, turns
from minst.tracking import KernelTracker

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"preset": "shapes-tiny", "size": (64, 128), "frames": 2}
PARTS = ["input", "backbone", "mask decoder", "instance decoder", "masks K.X_mask", "association", "upsampling",
         "run-length codes", "drawing"]  # fmt: skip
ONE = {"presets": ["shapes-tiny"], "sizes": [64], "runtimes": ["eager", "torchscript"], "rounds": 2}


@pytest.fixture(scope="module")
def latency(tmp_path_factory):
    """(result, its JSON, what was printed, {(T, is key): frames}, {id of times: norms})."""
    path, keys, fused = tmp_path_factory.mktemp("bench") / "latency.json", Counter(), {}
    step, staged = KernelTracker.step, benchmark._staged_frame

    def counted(tracker, frame):
        result = step(tracker, frame)
        if result.frame >= benchmark.WARM_UP:
            keys[tracker.reuse_interval, result.is_key] += 1
        return result

    def spied(model, image, threshold, times):
        staged(model, image, threshold, times)
        fused[id(times)] = not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KernelTracker, "step", counted)
        patch.setattr(benchmark, "_staged_frame", spied)
        said = []
        patch.setattr(benchmark, "print", lambda text: said.append(text), raising=False)
        result = bench_latency(**{**SMALL, "frames": 6}, json_path=path)
    return result, path, "\n".join(said), keys, list(fused.values())


def test_latency_has_all_rows_with_positive_numbers(latency):
    result, path, printed, keys, fused = latency
    assert json.loads(path.read_text()) == result
    assert list(result["stages"]) == ["fused", "not fused"] and fused == [True, False]
    assert list(result["intervals"]) == ["1", "3", "6"]
    for stages in result["stages"].values():
        assert list(stages) == [*PARTS, "whole frame"]
        for row in stages.values():
            assert 0 < row["median_ms"] <= row["p95_ms"]
    for row in result["intervals"].values():
        assert row["mean_ms"] > 0 and 0 < row["median_ms"] <= row["p95_ms"]
        assert row["instances"] == benchmark.LIVE  # the still picture and the threshold see to that
    assert keys == {(1, True): 6, (3, True): 2, (3, False): 4, (6, True): 1, (6, False): 5}
    assert (result["model"], result["size"]) == ("shapes-tiny", [64, 128])
    assert (result["frames"], result["threads"]) == (6, 1)
    device = result["device"]
    assert device["torch"] == torch.__version__ and device["cpu"] and device["governor"]
    for words in [*PARTS, "whole frame", "T = 6", "not fused", "p95", "malloc: ", "reuse_limit"]:
        assert words in printed


def test_stages_are_laps_of_one_clock(monkeypatch):
    """With a clock that ticks once a look every part lasts a tick, the whole as many as parts."""
    ticks, expected = iter(range(10_000)), {**dict.fromkeys(PARTS, 1.0), "whole frame": len(PARTS)}
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks) / 1e3)
    result = bench_latency(**SMALL)
    for stages in result["stages"].values():
        assert {name: row["median_ms"] for name, row in stages.items()} == pytest.approx(expected)


def test_limit_and_ratio_of_kernel_reuse(latency):
    result, *_ = latency
    reuse, frame = result["reuse"], result["intervals"]["1"]["mean_ms"]
    share = result["stages"]["fused"]["instance decoder"]["median_ms"] / frame
    assert reuse["instance_decoder_share"] == pytest.approx(share)
    assert reuse["reuse_limit"] == pytest.approx(1.02 - 2 * share / 3)
    assert reuse["measured_ratio"] == pytest.approx(result["intervals"]["3"]["mean_ms"] / frame)
    assert reuse["within"] == (reuse["measured_ratio"] <= reuse["reuse_limit"])


def test_mean_frame_weighs_key_frames_as_often_as_they_come():
    times = [(i % 3 == 0, 9.0 if i % 3 == 0 else 6.0, 5) for i in range(9)]
    times[4] = (False, 600.0, 5)  # a hiccup of the machine
    row = benchmark._interval_row(3, times)
    assert row["mean_ms"] == pytest.approx(7.0) and row["key_ms"] == 9.0 and row["median_ms"] == 6.0
    assert benchmark._interval_row(1, [(True, 9.0, 5)])["mean_ms"] == 9.0


def test_threads_are_used_and_restored_after_a_failure_too(monkeypatch):
    used, before, random = set(), torch.get_num_threads(), torch.get_rng_state()

    def fails(*_):
        used.add(torch.get_num_threads())
        raise RuntimeError("in the middle")

    monkeypatch.setattr(benchmark, "_staged_frame", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        bench_latency(**SMALL, threads=before + 1)
    assert used == {before + 1} and torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": (63, 64)}, r"size is \(63, 64\); it must be at least 64"),
        ({"size": (64.0, 64)}, "it must be a whole number"),
        ({"size": (64, 10**9)}, "at most 8192"),
        ({"size": 640}, "size is 640; it must be 2 numbers, height and width"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 10**9}, "threads is 1000000000; .* at most 256"),
        ({"threads": True}, "threads is True"),
        ({"frames": 1}, "frames is 1"),
        ({"preset": "no-such-model"}, "no-such-model"),
        ({"weights": "shapes-tiny"}, "one of them"),
        ({"json_path": "no/such/folder.json"}, "there is no folder"),
        ({"json_path": "."}, "is a folder"),
    ],
)
def test_wrong_arguments_of_latency(wrong, named, monkeypatch):
    monkeypatch.setattr(benchmark, "shapes_clip", lambda *_: pytest.fail("the work has started"))
    with pytest.raises((ValueError, OSError), match=named):
        bench_latency(**{**SMALL, **wrong})


# ------------------------------------------------------------------------ one model, several runtimes


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(result, its JSON file, folder of programs, what was printed): one runtime is not installed."""
    folder, said = tmp_path_factory.mktemp("compare"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "WARM_UP", 1)
        patch.setattr(benchmark, "core_peak", lambda: {"gflop_s": 50.0, "gb_s": 10.0})
        patch.setattr(benchmark, "print", lambda text: said.append(text), raising=False)
        patch.setitem(sys.modules, "executorch.exir", None)
        options = {**ONE, "runtimes": ["eager", "executorch", "torchscript", "fused"], "rounds": 3}
        where = {"json_path": folder / "out.json", "programs_folder": folder / "programs"}
        result = bench_mobile(**options, **where)
    return result, folder / "out.json", folder / "programs", "\n".join(said)


def test_every_runtime_has_its_row_in_order_and_figures_follow_from_each_other(measured):
    result, path, _, printed = measured
    assert json.loads(path.read_text()) == result
    assert [r["runtime"] for r in result["rows"]] == ["eager", "executorch", "torchscript", "fused"]
    eager, missing, script, fused = result["rows"]
    assert (
        "needs the package executorch" in missing["missing"] and "minst env" in missing["missing"]
    )
    assert set(missing) == {"model", "size", "runtime", "missing"}
    macs = minst.summary(settled_model("shapes-tiny"), (64, 64))["total"]["macs"]
    for row in (eager, script, fused):
        assert (row["model"], row["size"]) == ("shapes-tiny", 64)
        key, reuse, stages = row["median_ms"], row["reuse_ms"], row["stages"]
        assert 0 < key <= row["p95_ms"] and row["first_ms"] > 0 and row["faults"] >= 0
        assert list(stages) == ["features", "instance decoder", "masks"]
        assert sum(stages.values()) == pytest.approx(key)
        means = {"1": key, "3": (key + 2 * reuse) / 3, "6": (key + 5 * reuse) / 6}
        assert row["mean_ms"] == pytest.approx(means)
        assert row["to_eager"] == pytest.approx(key / eager["median_ms"])
        assert row["peak_fraction"] == pytest.approx(2 * macs / (key / 1e3) / 50e9)
        # three rounds are too few for an interval
        assert row["decoder_share"]["low"] is None and -5 < row["decoder_share"]["median"] < 1
        assert ("difference" in row) == ("load_ms" in row) == (row is script)
    assert 0 < script["difference"] <= 1e-4
    line = next(line for line in printed.splitlines() if line.startswith("torchscript "))
    figures = (script["median_ms"], script["p95_ms"], script["reuse_ms"], script["to_eager"])
    assert line.split()[1:5] == [f"{x:.2f}" for x in figures]
    for words in ("shapes-tiny, 64 x 64", "missing: the format executorch", "malloc: ", "GFLOP/s",
                  "instance decoder, of a key frame: eager cannot be measured here, torchscript"):  # fmt: skip
        assert words in printed


def test_rows_by_hand():
    """Medians of key, reuse, masks 30, 20, 4 ms; eager 60 ms; 3 GMACs in 30 ms are 200 GFLOP/s."""
    ms = {"key": [10.0, 30.0, 50.0], "reuse": [20.0, 20.0, 90.0], "masks": [4.0, 3.0, 5.0]}
    times = {
        "eager": {name: [(60.0, 900), (60.0, 1100)] for name in ms},
        "onnx": {name: [(x, 7) for x in row] for name, row in ms.items()},
    }
    known = {name: {"runtime": name} for name in ("eager", "onnx")}
    known["lite"] = {"runtime": "lite", "missing": "it ended"}
    eager, row, lost = benchmark._rows(known, times, 3 * 10**9, {"gflop_s": 800.0})
    assert row["median_ms"] == 30 and row["reuse_ms"] == 20 and row["to_eager"] == 0.5
    assert row["p95_ms"] == pytest.approx(48)  # nine tenths of the way from 30 to 50
    assert (eager["faults"], row["faults"], eager["to_eager"]) == (1000, 7, 1)
    stages = {"features": 16, "instance decoder": 10, "masks": 4}
    assert row["stages"] == stages and row["peak_fraction"] == pytest.approx(0.25)
    assert row["mean_ms"] == pytest.approx({"1": 30, "3": 70 / 3, "6": 130 / 6})
    assert lost == {"runtime": "lite", "missing": "it ended"}


def test_shares_are_paired_within_rounds():
    """A machine that gets slower: the decoder takes a fifth of every round's key frame, nothing else would."""
    slow = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    keys = [(10 * x, 0) for x in slow]
    reuse = [(8 * x, 0) for x in slow]
    times = {"onnx": {"key": keys, "reuse": reuse, "masks": keys}}
    (row,) = benchmark._rows({"onnx": {"runtime": "onnx"}}, times, 10**9, {"gflop_s": 800.0})
    assert row["decoder_share"] == pytest.approx({"median": 0.2, "low": 0.2, "high": 0.2})
    times["onnx"]["reuse"] = [*reuse[1:], reuse[0]]  # the same times in other rounds tell nothing
    (row,) = benchmark._rows({"onnx": {"runtime": "onnx"}}, times, 10**9, {"gflop_s": 800.0})
    assert timing.said(row["decoder_share"]) == "cannot be measured here"


def test_rounds_take_turns_and_warm_up_is_not_counted(monkeypatch):
    """The clock ticks once a look, so every part takes 1 ms; the runs are counted."""
    ran, ticks = [], iter([n / 1e3 for n in range(9999)])
    monkeypatch.setattr(timing.time, "perf_counter", ticks.__next__)
    monkeypatch.setattr(timing, "page_faults", iter(range(9999)).__next__)
    monkeypatch.setattr(benchmark, "WARM_UP", 2)
    runs = {name: {"key": partial(ran.append, name)} for name in "abc"}
    times = benchmark._measure(runs, 2)
    assert "".join(ran) == "abc" + "bca" + "cab" + "abc"
    for laps in times.values():
        ms, faults = zip(*laps["key"], strict=True)
        assert ms == pytest.approx([1, 1]) and faults == (1, 1)


def test_programs_are_kept_while_they_are_this_models(measured):
    folder = measured[2] / "shapes-tiny" / "64x64"
    model = settled_model("shapes-tiny")
    files = {name: folder / f"{name}.pt" for name in ("key", "reuse", "masks")}

    def written():
        return {name: path.stat().st_mtime_ns for name, path in files.items()}

    before = written()
    with torch.inference_mode():
        eager = benchmark._programs(model, 64)
        benchmark._loaded(model, "torchscript", eager, 64, folder, {})
        assert written() == before
        files["masks"].write_bytes(files["masks"].read_bytes()[:100])  # damaged
        row = {}
    benchmark._loaded(model, "torchscript", eager, 64, folder, row)
    assert row["difference"] <= 1e-4 and load_program(files["masks"])
    other = settled_model("shapes-tiny", seed=1)  # other weights, other programs
    key = benchmark._programs(other, 64)[0]
    assert not benchmark._is_of(files["key"], key)


def test_one_that_cannot_be_exported_or_loaded_does_not_stop_the_others(monkeypatch, tmp_path):
    def refuses(*_):
        raise ValueError("export: differs\nin two lines")

    monkeypatch.setattr(benchmark, "export", refuses)
    model = settled_model("shapes-tiny")
    runs, rows = benchmark._ready(model, 64, ["torchscript", "eager"], tmp_path)
    assert list(runs) == ["eager"]
    assert rows["torchscript"]["missing"] == "export: differs in two lines"
    monkeypatch.setattr(torch._C, "_is_xnnpack_enabled", lambda: False)
    runs, rows = benchmark._ready(model, 64, ["lite"], tmp_path)
    assert "needs XNNPACK" in rows["lite"]["missing"] and not runs


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"runtimes": ["eager", "tflite"]}, "tflite"),
        ({"runtimes": []}, "runtimes"),
        ({"runtimes": "onnx"}, "runtimes"),
        ({"runtimes": ["onnx", "onnx"]}, "twice"),
        ({"presets": ["no-such-model"]}, "no-such-model"),
        ({"weights": "shapes-tiny"}, "one of them"),
        ({"sizes": [63]}, r"size is \(63, 63\)"),
        ({"sizes": 64}, "sizes"),
        ({"sizes": [10**5]}, "at most 8192"),
        ({"rounds": 1}, "rounds"),
        ({"json_path": "no/such/folder.json"}, "there is no folder"),
    ],
)
def test_wrong_arguments_of_mobile(wrong, named, monkeypatch):
    monkeypatch.setattr(benchmark, "core_peak", lambda: pytest.fail("the work has started"))
    with pytest.raises((ValueError, OSError), match=named):
        bench_mobile(**{**ONE, **wrong})


def test_all_runtimes_are_named():
    assert list(RUNTIMES) == ["eager", "fused", "torchscript", "lite", "executorch", "onnx"]


# ---------------------------------------------------------------------------------- data, and timing


def test_data_counts_frames_of_both(tmp_path, capsys, monkeypatch):
    small = partial(benchmark.TrainConfig, pairs=1, height=64, width=64)
    monkeypatch.setattr(benchmark, "TrainConfig", small)
    result = bench_data(batches=2, json_path=tmp_path / "data.json")
    assert json.loads((tmp_path / "data.json").read_text()) == result
    assert result["frames_per_batch"] == 2 and result["batches"] == 2
    for name in ("data", "training"):
        row = result[name]
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["frames_per_s"] == pytest.approx(2e3 / row["median_ms"])
    ratio = result["training"]["median_ms"] / result["data"]["median_ms"]
    assert result["ratio"] == pytest.approx(ratio) and result["reached"] == (ratio >= 2)
    printed = capsys.readouterr().out
    assert "frames/s" in printed and f"{ratio:.2f}" in printed


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": 10**9}, {"batches": 0}])
def test_wrong_arguments_of_data(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        bench_data(**wrong)


def test_allocator_says_what_is_in_force(monkeypatch):
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(timing.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.x86_ibt=off")
    assert allocator().startswith("glibc, default")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "123")
    assert allocator() == "glibc, tuned: MALLOC_TRIM_THRESHOLD_=123"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=9")
    assert "glibc.malloc.trim_threshold=9" in allocator()
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert allocator() == "jemalloc"
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setattr(timing.platform, "libc_ver", lambda: ("", ""))
    assert allocator().startswith("that of")


def test_turns_move_on_by_one_and_leave_nobody_out():
    assert "".join(turns("abc", 4)) == "abc" + "bca" + "cab" + "abc"
    assert list(turns("abc", 0)) == []


def test_summary_and_table_by_hand():
    row = summarize([30.0, 10.0, 50.0])
    assert row == {"median_ms": 30.0, "p95_ms": pytest.approx(48.0)}  # nine tenths from 30 to 50
    said = table("ms", {"p95": ("p95_ms", ".1f"), "n": ("count", "d")}, [("eager", row), ("b", {})])
    assert said.splitlines() == ["ms      p95  n", "eager  48.0  -", "b         -  -"]
