"""minst.mobile.compare: every runtime has its row, figures follow from each other, what is missing is said.

Processes are answered within this one (they would spend their time importing torch), but for the two tests at the end.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import minst
from minst.mobile import compare
from minst.mobile.compare import RUNTIMES, bench_mobile
from minst.mobile.runtime import load_program

ASK, MALLOC = compare._ask, compare._malloc  # the real ones
ONE = {"presets": ["shapes-tiny"], "sizes": [64], "runtimes": ["eager", "torchscript"], "rounds": 2}


@pytest.fixture(scope="module")
def here():
    """Functions for processes run in this one, one after the other; malloc is not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            compare,
            "_ask",
            lambda function, *arguments: json.loads(json.dumps(function(*arguments))),
        )
        patch.setattr(compare, "_workers", lambda: 1)
        patch.setattr(compare, "WARM_UP", 1)
        patch.setattr(compare, "_malloc", lambda case, rounds: {"missing": "not asked for"})
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
        assert (
            row["load_ms"] > 0
            and row["first_ms"] > 0
            and row["imports_mb"] > 50
            and row["peak_mb"] >= 0
        )
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
    case = compare.Case("m", 64, tmp_path, 3 * 10**9, 0.0)
    case.programs.mkdir(parents=True)
    (case.programs / "key.ptl").write_bytes(
        bytes(1_000_000 + 3 * 3 * 64 * 64)
    )  # of which three frames are bundled
    (case.weights / "model.safetensors").write_bytes(bytes(2_000_000))
    lite = {"key": [10.0, 30.0, 50.0], "reuse": [20.0, 20.0, 90.0], "masks": [4.0, 3.0, 5.0]}
    times = {"eager": {name: [60.0, 60.0] for name in lite}, "lite": lite,
             compare.OUTSIDE: {"upsampling": [1.0, 2.0, 9.0], "drawing": [5.0]}}  # fmt: skip
    cold = {"eager": {"load_ms": 1.0}, "lite": {"load_ms": 7.0}, "onnx": {"missing": "it ended"}}
    eager, row, lost = compare._rows(
        case, ["eager", "lite", "onnx"], times, cold, {}, {"gflop_s": 800.0}
    )
    assert row["median_ms"] == 30 and row["reuse"]["median_ms"] == 20 and row["to_eager"] == 0.5
    assert row["p95_ms"] == pytest.approx(48)  # nine tenths of the way from 30 to 50
    expected = {"features": 16, "instance decoder": 10, "masks": 4, "upsampling": 2, "drawing": 5}
    assert row["stages"] == expected and row["mean_ms"] == pytest.approx(
        {"1": 30, "3": 70 / 3, "6": 130 / 6}
    )
    assert (
        row["peak_fraction"] == pytest.approx(0.25) and row["file_mb"] == 1 and row["load_ms"] == 7
    )
    assert eager["file_mb"] == 2 and eager["to_eager"] == 1
    assert lost == {"model": "m", "size": 64, "runtime": "onnx", "missing": "it ended"}


def test_rounds_take_turns_and_warm_up_is_not_counted(here, measured, monkeypatch):
    """The clock ticks once a look, so every part takes 1 ms; the runs are counted."""
    ran = []
    monkeypatch.setattr(compare.time, "perf_counter", iter([n / 1e3 for n in range(9999)]).__next__)
    run = compare.Program.run
    monkeypatch.setattr(
        compare.Program, "run", lambda p, *x: (ran.append((p.name, is_fused(p))), run(p, *x))[1]
    )
    case = compare.Case("shapes-tiny", 64, measured[2], 1, 0.0)
    with compare._progress([case], [], 1) as bar:
        runs, why = compare._loaded(case, ["eager", "fused", "onnx"], {}, {"onnx": "missing"})
        times = compare._measure(case, runs, 4, bar)
    assert why == {"onnx": "missing"}
    assert set(times) == {"eager", "fused", compare.OUTSIDE}
    for runtime in ("eager", "fused"):
        assert {name: len(ms) for name, ms in times[runtime].items()} == {
            "key": 4,
            "reuse": 4,
            "masks": 4,
        }
        assert times[runtime]["key"] == pytest.approx([1] * 4)
    keys = [fused for name, fused in ran if name == "key"]
    # three jobs, the first of which moves on by one each round: eager fused -, fused - eager, - eager fused
    assert keys == [False, True, True, False, False, True, False, True, True, False]


def is_fused(program):
    return not any_norms(program.module)


def test_json_is_what_is_returned(measured):
    result, path, _ = measured
    assert json.loads(path.read_text()) == result
    assert (
        set(result) == {"device", "peak", "rounds", "rows", "malloc", "seconds"}
        and result["rounds"] == 3
    )
    device = result["device"]
    assert {"cpu", "cores", "governor", "khz_now", "khz_max", "threads", "allocator", "torch", "executorch",
            "onnxruntime", "python", "os", "minst", "load_average", "time"} == set(device)  # fmt: skip
    assert (
        device["torch"] == torch.__version__
        and device["threads"] == 1
        and device["cpu"]
        and device["governor"]
    )
    assert result["seconds"]["all"] >= sum(
        t for name, t in result["seconds"].items() if name != "all"
    )


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
        "malloc not measured",
        "governor",
        "GFLOP/s",
    ):
        assert words in printed


def test_malloc_is_said_in_words(measured, capsys):
    """Two processes of two frames each, and one: medians are of all frames, page faults of each process."""
    default = [
        [{"eager": (30.0, 900)}, {"eager": (40.0, 1100)}],
        [{"eager": (30.0, 0)}, {"eager": (40.0, 0)}],
    ]
    tuned = [[{"eager": (20.0, 0)}, {"eager": (30.0, 2)}]]
    rows = {"default": compare._faults_row(default), "tuned": compare._faults_row(tuned)}
    assert rows["default"]["eager"] == {"median_ms": 35, "p95_ms": 40, "faults": [1000, 0]}
    compare._print(
        {
            **measured[0],
            "malloc": {"model": "m", "size": 64, **rows, "cost": {"eager": 35 / 25 - 1}},
        }
    )
    said = "35.00 ms (1000, 0 page faults a frame), tuned 25.00 (1): the default costs +40%"
    assert said in capsys.readouterr().out


def test_programs_are_kept_while_they_are_this_models(measured):
    weights = measured[2] / "shapes-tiny"
    write = partial(compare._export, format="torchscript", out=str(weights / "64x64"), size=64)
    files = {path.name: path for path in weights.rglob("*.pt")}
    written = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert set(files) == {"key.pt", "reuse.pt", "masks.pt"}
    files["masks.pt"].write_bytes(files["masks.pt"].read_bytes()[:100])  # damaged
    assert set(write(str(weights))) == {"difference"} and load_program(files["masks.pt"])
    assert [files[name].stat().st_mtime_ns == written[name] for name in files] == [
        name != "masks.pt" for name in files
    ]
    compare.settled_model("shapes-tiny", seed=1).save_pretrained(
        weights
    )  # other weights, other programs
    write(str(weights))
    assert files["key.pt"].stat().st_mtime_ns != written["key.pt"]


def test_one_that_cannot_be_exported_does_not_stop_the_others(here, monkeypatch):
    ask = compare._ask

    def refuses(function, *arguments):
        return (
            {"missing": "export: differs"}
            if function is compare._export
            else ask(function, *arguments)
        )

    monkeypatch.setattr(compare, "_ask", refuses)
    eager, script = bench_mobile(**ONE)["rows"]
    assert eager["median_ms"] > 0 and script["missing"] == "export: differs"


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
    used, outside = (
        set(),
        {
            compare.OUTSIDE: {"upsampling": [1.0], "drawing": [1.0]},
            "fused": dict.fromkeys(("key", "reuse", "masks"), [1.0]),
        },
    )
    monkeypatch.setattr(
        compare, "_measure", lambda *_: (used.add(torch.get_num_threads()), outside)[1]
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


def test_a_process_that_fails_says_why_in_one_line(tmp_path):
    said = ASK(compare._export, str(tmp_path), "onnx", str(tmp_path / "out"), 64)
    assert said["missing"].startswith("FileNotFoundError") and "\n" not in said["missing"]


@pytest.mark.skipif(
    compare.platform.libc_ver()[0] != "glibc", reason="the allocator in question is glibc's"
)
def test_malloc_in_processes_that_take_turns(here, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "PROCESSES", 1)
    monkeypatch.setenv(
        "MALLOC_TRIM_THRESHOLD_", "4294967296"
    )  # the default one must not inherit it
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "4294967296")
    compare.settled_model("shapes-tiny").save_pretrained(tmp_path / "m")
    started, start = [], compare._start
    monkeypatch.setattr(
        compare, "_start", lambda *a, env, **k: (started.append(env), start(*a, env=env, **k))[1]
    )
    malloc = MALLOC(compare.Case("m", 512, tmp_path, 1, 0.0), rounds=3)
    assert [env.get("MALLOC_TRIM_THRESHOLD_") for env in started] == [None, "4294967296"]
    assert [env.get("MALLOC_MMAP_THRESHOLD_") for env in started] == [None, "4294967296"]
    assert set(malloc) == {"model", "size", "default", "tuned", "cost"}
    for model in ("eager", "fused"):
        default, tuned = malloc["default"][model], malloc["tuned"][model]
        assert (
            0 < default["median_ms"] <= default["p95_ms"]
        )  # whether malloc costs faults differs from run to run
        assert malloc["cost"][model] == pytest.approx(default["median_ms"] / tuned["median_ms"] - 1)


def test_all_runtimes_are_named():
    assert list(RUNTIMES) == ["eager", "fused", "torchscript", "lite", "executorch", "onnx"]


def test_another_result_is_refused(tmp_path, monkeypatch):
    model = compare.settled_model("shapes-tiny")
    model.save_pretrained(tmp_path / "m")
    programs = compare._programs
    wrong = {True: compare.settled_model("shapes-tiny", seed=1).fuse(), False: model}
    monkeypatch.setattr(
        compare, "_programs", lambda m, size: programs(wrong[not any_norms(m)], size)
    )
    with pytest.raises(ValueError, match="differs from eager"):
        compare._export(str(tmp_path / "m"), "torchscript", str(tmp_path / "out"), 64)


def any_norms(model):
    return any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_a_program_that_this_process_cannot_load_is_a_row_too(measured, monkeypatch):
    def refuses(path):
        raise ValueError("ExecuTorch runs on 2 thread(s) in this process")

    monkeypatch.setattr(compare, "load_program", refuses)
    case = compare.Case("shapes-tiny", 64, measured[2], 1, 0.0)
    runs, why = compare._loaded(case, ["onnx", "eager"], {}, {})
    assert list(runs) == ["eager"] and why == {
        "onnx": "ExecuTorch runs on 2 thread(s) in this process"
    }
