"""minst.mobile.compare: every runtime has its row, figures follow from each other.

What is missing is said.
"""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from tqdm.auto import tqdm

import minst
from minst.mobile import compare, timing
from minst.mobile.compare import RUNTIMES, bench_mobile
from minst.mobile.runtime import load_program

ONE = {"presets": ["shapes-tiny"], "sizes": [64], "runtimes": ["eager", "torchscript"], "rounds": 2}


@pytest.fixture(scope="module")
def here():
    """Few rounds, and a peak that is not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "WARM_UP", 1)
        patch.setattr(compare, "core_peak", lambda: {"gflop_s": 50.0, "gb_s": 10.0})
        yield patch


@pytest.fixture(scope="module")
def measured(here, tmp_path_factory):
    """(result, its JSON file, folder of programs): three runtimes, and one that is not installed."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "executorch.runtime", None)
        options = {**ONE, "runtimes": ["eager", "executorch", "torchscript", "onnx"], "rounds": 3}
        result = bench_mobile(
            **options, json_path=folder / "out.json", programs_folder=folder / "programs"
        )
    return result, folder / "out.json", folder / "programs"


def rows_of(result):
    return {row["runtime"]: row for row in result["rows"]}


def test_every_runtime_has_its_row_in_order(measured):
    result, *_ = measured
    assert [row["runtime"] for row in result["rows"]] == [
        "eager",
        "executorch",
        "torchscript",
        "onnx",
    ]
    missing = rows_of(result).pop("executorch")
    assert (
        "executorch cannot be imported" in missing["missing"] and "minst env" in missing["missing"]
    )
    assert set(missing) == {"model", "size", "runtime", "missing"}
    for name in ("eager", "torchscript", "onnx"):
        row = rows_of(result)[name]
        assert (row["model"], row["size"]) == ("shapes-tiny", 64)
        assert (
            0 < row["median_ms"] <= row["p95_ms"]
            and 0 < row["reuse"]["median_ms"] <= row["reuse"]["p95_ms"]
        )
        assert row["load_ms"] > 0 and row["first_ms"] > 0 and row["faults"] >= 0
        stages = ["features", "instance decoder", "masks", "upsampling", "drawing"]
        assert list(row["stages"]) == stages and list(row["mean_ms"]) == ["1", "3", "6"]


def test_figures_follow_from_each_other(measured):
    result, *_ = measured
    eager, macs = (
        rows_of(result)["eager"],
        minst.summary(minst.mobile.programs.settled_model("shapes-tiny"), (64, 64)),
    )
    for name in ("eager", "torchscript", "onnx"):
        row = rows_of(result)[name]
        key, reuse, stages = row["median_ms"], row["reuse"]["median_ms"], row["stages"]
        assert stages["features"] + stages["instance decoder"] + stages["masks"] == pytest.approx(
            key
        )
        assert row["mean_ms"] == pytest.approx(
            {"1": key, "3": (key + 2 * reuse) / 3, "6": (key + 5 * reuse) / 6}
        )
        assert row["to_eager"] == pytest.approx(key / eager["median_ms"])
        assert row["macs"] == macs["total"]["macs"]
        assert row["peak_fraction"] == pytest.approx(2 * row["macs"] / (key / 1e3) / 50e9)
        assert ("difference" in row) == (name != "eager")
        assert name == "eager" or 0 < row["difference"] <= 1e-4
        assert stages["drawing"] == eager["stages"]["drawing"]  # once for all


def test_rows_by_hand(tmp_path):
    """Medians of key, reuse and masks 30, 20 and 4 ms; eager 60 ms; 3 GMACs in 30 ms are 200 GFLOP/s."""
    case = compare.Case("m", 64, 3 * 10**9, tmp_path / "m", tmp_path / "m" / "64x64")
    case.programs.mkdir(parents=True)
    bundled = 3 * 3 * 64 * 64  # three frames
    (case.programs / "key.ptl").write_bytes(bytes(1_000_000 + bundled))
    (case.weights / "model.safetensors").write_bytes(bytes(2_000_000))
    ms = {"key": [10.0, 30.0, 50.0], "reuse": [20.0, 20.0, 90.0], "masks": [4.0, 3.0, 5.0]}
    outside = {"upsampling": [1.0, 2.0, 9.0], "drawing": [5.0]}
    times = {
        "eager": {name: [(60.0, 900), (60.0, 1100)] for name in ms},
        "lite": {name: [(x, 7) for x in row] for name, row in ms.items()},
        compare.OUTSIDE: {name: [(x, 0) for x in row] for name, row in outside.items()},
    }
    cold = {"eager": {"load_ms": 1.0}, "lite": {"load_ms": 7.0}, "onnx": {"missing": "it ended"}}
    names = ["eager", "lite", "onnx"]
    eager, row, lost = compare._rows(case, names, times, cold, {"gflop_s": 800.0})
    assert row["median_ms"] == 30 and row["reuse"]["median_ms"] == 20 and row["to_eager"] == 0.5
    assert row["p95_ms"] == pytest.approx(48)  # nine tenths of the way from 30 to 50
    assert (eager["faults"], row["faults"], row["reuse"]["faults"]) == (1000, 7, 7)
    stages = {"features": 16, "instance decoder": 10, "masks": 4, "upsampling": 2, "drawing": 5}
    assert row["stages"] == stages
    assert row["mean_ms"] == pytest.approx({"1": 30, "3": 70 / 3, "6": 130 / 6})
    assert row["peak_fraction"] == pytest.approx(0.25) and row["load_ms"] == 7
    assert row["file_mb"] == 1 and eager["file_mb"] == 2 and eager["to_eager"] == 1
    assert lost == {"model": "m", "size": 64, "runtime": "onnx", "missing": "it ended"}


def test_rounds_take_turns_and_warm_up_is_not_counted(here, measured, monkeypatch):
    """The clock ticks once a look, so every part takes 1 ms; the runs are counted."""
    ran, run = [], compare.Program.run
    ticks = iter([n / 1e3 for n in range(9999)])
    monkeypatch.setattr(timing.time, "perf_counter", ticks.__next__)
    monkeypatch.setattr(timing, "page_faults", iter(range(9999)).__next__)

    def noted(program, *inputs):
        ran.append((program.name, is_fused(program)))
        return run(program, *inputs)

    monkeypatch.setattr(compare.Program, "run", noted)
    case = case_of(measured)
    with tqdm(disable=True) as bar:
        runs, said = compare._ready(case, ["eager", "fused"], bar)
        times = compare._measure(case, runs, 4, bar)
    assert set(said["eager"]) == {"load_ms", "first_ms"}
    assert set(times) == {"eager", "fused", compare.OUTSIDE}
    for runtime in ("eager", "fused"):
        lengths = {name: len(laps) for name, laps in times[runtime].items()}
        assert lengths == {"key": 4, "reuse": 4, "masks": 4}
        ms, faults = zip(*times[runtime]["key"], strict=True)
        assert ms == pytest.approx([1] * 4) and faults == (1,) * 4
    keys = [fused for name, fused in ran if name == "key"]
    assert keys[:2] == [False, True]  # their first runs
    # three jobs, the first of which moves on by one each round:
    # eager fused -, fused - eager, - eager fused
    assert keys[2:] == [False, True, True, False, False, True, False, True, True, False]


def case_of(measured):
    weights = measured[2] / "shapes-tiny"
    return compare.Case("shapes-tiny", 64, 1, weights, weights / "64x64")


def is_fused(program):
    return not any_norms(program.module)


def test_json_is_what_is_returned(measured):
    result, path, _ = measured
    assert json.loads(path.read_text()) == result
    assert set(result) == {"device", "peak", "rounds", "rows", "seconds"} and result["rounds"] == 3
    device = result["device"]
    assert {"cpu", "cores", "governor", "khz_now", "khz_max", "threads", "allocator", "torch", "executorch",
            "onnxruntime", "python", "os", "minst", "load_average", "time"} == set(device)  # fmt: skip
    assert (
        device["torch"] == torch.__version__
        and device["threads"] == 1
        and device["cpu"]
        and device["governor"]
    )
    assert result["seconds"] > 0


def test_table_is_printed(measured, capsys):
    compare._print(measured[0])
    printed = capsys.readouterr().out
    row = rows_of(measured[0])["onnx"]
    line = next(line for line in printed.splitlines() if line.startswith("onnx "))
    assert line.split()[1:5] == [f"{row['median_ms']:.2f}", f"{row['p95_ms']:.2f}", f"{row['reuse']['median_ms']:.2f}",
                                 f"{row['to_eager']:.2f}"]  # fmt: skip
    heads = next(line for line in printed.splitlines() if line.startswith("ms "))
    assert len(heads) == len(line)
    for words in (
        "shapes-tiny, 64 x 64",
        "drawing",
        "missing: executorch",
        "malloc: ",
        "governor",
        "GFLOP/s",
    ):
        assert words in printed


def test_programs_are_kept_while_they_are_this_models(measured):
    case = case_of(measured)
    files = {path.name: path for path in case.programs.glob("*.pt")}
    written = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert set(files) == {"key.pt", "reuse.pt", "masks.pt"}
    files["masks.pt"].write_bytes(files["masks.pt"].read_bytes()[:100])  # damaged
    model = minst.MobileInst.from_pretrained(case.weights)
    assert compare._exported(case, "torchscript", compare._programs(model, 64)) <= 1e-4
    assert load_program(files["masks.pt"])
    new = {name for name, path in files.items() if path.stat().st_mtime_ns != written[name]}
    assert new == {"masks.pt"}
    other = compare.settled_model("shapes-tiny", seed=1)  # other weights, other programs
    other.save_pretrained(case.weights)
    compare._exported(case, "torchscript", compare._programs(other, 64))
    assert files["key.pt"].stat().st_mtime_ns != written["key.pt"]


def test_one_that_cannot_be_exported_does_not_stop_the_others(here, monkeypatch):
    def refuses(*_):
        raise ValueError("export: differs\nin two lines")

    monkeypatch.setattr(compare, "export", refuses)
    eager, script = bench_mobile(**ONE)["rows"]
    assert eager["median_ms"] > 0 and script["missing"] == "export: differs in two lines"


def test_nothing_that_can_run(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.backends.xnnpack", SimpleNamespace(enabled=False))
    (row,) = bench_mobile(**{**ONE, "runtimes": ["lite"]})["rows"]
    assert "XNNPACK" in row["missing"] and torch.__version__ in row["missing"]


def test_shipped_weights_and_no_eager(here, capsys):
    (row,) = bench_mobile(**{**ONE, "presets": None, "runtimes": ["fused"]}, weights="shapes-tiny")[
        "rows"
    ]
    assert row["model"] == "shapes-tiny" and row["to_eager"] is None and row["median_ms"] > 0
    assert re.search(r"fused +[\d.]+ +[\d.]+ +[\d.]+ +- ", capsys.readouterr().out)


def test_threads_are_one_and_restored(here, monkeypatch):
    used, laps = set(), [(1.0, 0)]
    outside = {"upsampling": laps, "drawing": laps}
    times = {compare.OUTSIDE: outside, "fused": {"key": laps, "reuse": laps, "masks": laps}}
    monkeypatch.setattr(
        compare, "_measure", lambda *_: (used.add(torch.get_num_threads()), times)[1]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bench_mobile(**{**ONE, "runtimes": ["fused"]})
        assert used == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"runtimes": ["eager", "tflite"]}, "tflite"),
        ({"runtimes": []}, "runtimes"),
        ({"runtimes": "onnx"}, "runtimes"),
        ({"runtimes": ["onnx", "onnx"]}, "twice"),
        ({"presets": ["no-such-model"]}, "no-such-model"),
        ({"weights": "shapes-tiny"}, "one of them"),
        ({"sizes": [63]}, "size is 63"),
        ({"sizes": 64}, "sizes"),
        ({"sizes": [64.0]}, "size is 64.0"),
        ({"rounds": 1}, "rounds"),
    ],
)
def test_wrong_arguments(wrong, named, monkeypatch):
    monkeypatch.setattr(compare, "core_peak", lambda: pytest.fail("the work has started"))
    with pytest.raises(ValueError, match=named):
        bench_mobile(**{**ONE, **wrong})


def test_json_that_cannot_be_written_is_found_out_first(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "core_peak", lambda: pytest.fail("the work has started"))
    for path in (tmp_path, tmp_path / "no-such-folder" / "out.json"):
        with pytest.raises(OSError):
            bench_mobile(**ONE, json_path=path)
    there = tmp_path / "there.json"
    there.write_text("kept")
    with pytest.raises(ValueError):
        bench_mobile(**{**ONE, "rounds": 0}, json_path=there)
    with pytest.raises(ValueError):
        bench_mobile(**{**ONE, "presets": ["no-such-model"]}, json_path=tmp_path / "new.json")
    assert there.read_text() == "kept" and list(tmp_path.iterdir()) == [there]


def test_all_runtimes_are_named():
    assert list(RUNTIMES) == ["eager", "fused", "torchscript", "lite", "executorch", "onnx"]


def any_norms(model):
    return any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_a_program_that_this_process_cannot_load_is_a_row_too(measured, monkeypatch):
    def refuses(path):
        raise ValueError("ExecuTorch runs on 2 thread(s) in this process")

    monkeypatch.setattr(compare, "load_program", refuses)
    monkeypatch.setattr(compare, "_exported", lambda *_: 0.0)
    case = case_of(measured)
    with tqdm(disable=True) as bar:
        runs, said = compare._ready(case, ["onnx", "eager"], bar)
    why = "ExecuTorch runs on 2 thread(s) in this process"
    assert list(runs) == ["eager"] and said["onnx"] == {"missing": why}
