"""`minst export` and the mobile benchmarks on the command line: real runs, arguments passed on, errors in one line."""

import json

from test_cli import assert_refused, call_of, run

from minst.mobile.runtime import load_program

LOG = """Starting benchmark.
Running warmup runs.
Main runs.
Main run finished. Microseconds per iter: 121318. Iters per second: 8.24281
"""


def test_export_writes_both_programs_of_the_size_asked_for(tmp_path):
    out = tmp_path / "for the phone"
    status, said, err = run("export", "--format", "torchscript", "--size", "128x96", "--out", out)
    assert (status, err) == (0, "")
    assert [line.split("  ")[0] for line in said.splitlines()] == [
        str(out / "key.pt"),
        str(out / "reuse.pt"),
    ]
    assert load_program(out / "key.pt").metadata["inputs"] == {"frame": [1, 3, 96, 128]}
    assert sorted(path.name for path in out.iterdir()) == [
        "key.pt",
        "reuse.pt",
    ]  # and nothing half written


def test_export_refuses_in_one_line(tmp_path):
    good = ("export", "--format", "torchscript", "--size", "64x64")
    (tmp_path / "file").touch()
    assert_refused("export", "--format", "tflite", word="lite, torchscript, executorch, onnx")
    assert_refused(*good, "--part", "half", word="full, features, masks")
    assert_refused(*good[:-1], "32x64", word="at least 64")
    assert_refused(*good, "--out", tmp_path / "model.pt", word="folder")
    assert_refused(*good, "--out", tmp_path / "file", word="folder")
    assert_refused(*good, "--out", tmp_path / "file" / "below", word="file")
    assert_refused(*good, "--weights", tmp_path / "none", word="none")


def test_parse_reads_a_file_or_what_comes_in(monkeypatch, tmp_path):
    (tmp_path / "log").write_text(LOG)
    status, said, _ = run("bench", "parse", tmp_path / "log", "--json", tmp_path / "log.json")
    assert status == 0 and "121.32" in said and "no median" in said
    figures = json.loads((tmp_path / "log.json").read_text())
    assert figures["mean_ms"] == 121.318 and figures["median_ms"] is None
    with (tmp_path / "log").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run("bench", "parse", "-")[1] in said
    (tmp_path / "log").write_text("")
    assert_refused("bench", "parse", tmp_path / "log", word="empty")
    assert_refused("bench", "parse", tmp_path / "none", word="none")


def test_the_phone_is_reached_only_when_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.ptl").touch()
    status, said, _ = run(
        "bench", "phone", "key.ptl", "--dry-run", "--core", 7, "--rounds", 2, "--cooldown", 9
    )
    assert (
        status == 0
        and said.count("taskset 80 ") == 2
        and "sleep 9" in said
        and "--pthreadpool_size=1" in said
    )
    assert_refused("bench", "phone", "key.onnx", "--dry-run", word="key.onnx")


def test_a_model_that_is_not_there_is_said_before_the_way_to_the_phone(tmp_path):
    for more in ([], ["--adb"]):
        assert_refused("bench", "phone", tmp_path / "nope.ptl", *more, word="no such model")
    (tmp_path / "key.ptl").touch()
    assert_refused("bench", "phone", tmp_path / "key.ptl", word="--adb")
    assert_refused("bench", "phone", "k.ptl", "--dry-run", "--core", 9999999999, word="at most 255")
    assert_refused("bench", "lite", tmp_path / "nope.ptl", word="no such model")


def test_what_is_wrong_is_said_before_any_work(monkeypatch, tmp_path):
    for command in ("latency", "mobile", "layers", "data"):
        monkeypatch.setattr("minst.mobile.timing.fixed_setting", None)  # whoever works needs it
        assert_refused("bench", command, "--json", tmp_path / "no" / "x.json", word="folder")
    assert_refused("bench", "mobile", "--out", tmp_path / "table.jpg", word=".png, .pdf or .svg")
    assert_refused("bench", "latency", "--threads", 10**9, word="at most 256")
    assert_refused("bench", "latency", "--size", "100000x100000", word="up to 9999")
    assert_refused("bench", "layers", "--size", "100000x100000", word="up to 9999")
    assert_refused("bench", "mobile", "--sizes", 100000, word="at most 8192")
    assert_refused("export", "--size", "100000x100000", word="up to 9999")
    assert_refused("bench", "parse", "log", "--json", tmp_path, word="is a folder")
    assert_refused("bench", "web", "--host", "", word="host is ''")
    assert_refused("bench", "web", "--weights", "nope", word="nope")
    assert_refused("bench", "web", "--sample", "nope", word="no shipped clip")


def test_arguments_are_passed_on(monkeypatch):
    calls = call_of(monkeypatch, "minst.mobile.serve", "serve")
    assert run("bench", "web", "--size", "256x192", "--host", "0.0.0.0", "--assets", "a")[0] == 0
    (passed,) = calls
    assert passed["size"] == (192, 256) and passed["host"] == "0.0.0.0" and passed["assets"] == "a"
    assert passed["association"] == "mask" and passed["open_browser"] is False
    calls = call_of(monkeypatch, "minst.mobile.roofline", "bench_layers")
    assert (
        run("bench", "layers", "--preset", "topformer-base", "--size", "512x384", "--out", "d")[0]
        == 0
    )
    (passed,) = calls
    assert (
        passed["size"] == (384, 512)
        and passed["preset"] == "topformer-base"
        and passed["out"] == "d"
    )


def test_lite_prints_figures_and_keeps_the_log(monkeypatch, tmp_path):
    found = {"median_ms": 21.5, "ms": [21.5, 22.0], "log": LOG}
    calls = call_of(monkeypatch, "minst.mobile.lite", "bench_lite", found)
    status, said, _ = run("bench", "lite", "key.ptl", "--iter", 7, "--log", tmp_path / "log")
    assert (
        status == 0
        and "key.ptl" in said
        and "21.5" in said
        and (tmp_path / "log").read_text() == LOG
    )
    assert calls == [{"path": "key.ptl", "warmup": 10, "iterations": 7, "threads": 1}]
