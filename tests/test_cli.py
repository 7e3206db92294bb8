"""The command line: exit statuses, one line for what goes wrong, and every command calls its function as it says."""

import dataclasses
import importlib
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import types
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch
from PIL import Image

import minst
from minst import cli
from minst.cli import build_parser, main
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.options import comments
from minst.samples import weights_for, weights_names
from minst.visualize.recording import Settings


def run(*argv):
    """(exit status, stdout, stderr) of one command in this process; SystemExit is a status as in a shell."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:
            status = stop.code or 0
    return status, out.getvalue(), err.getvalue()


def assert_refused(*argv, word="", status=2):
    """One line on stderr, `minst: …`, that says `word`; and the exit status."""
    got, _, err = run(*argv)
    assert got == status, (argv, err)
    assert err.startswith("minst: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err and word in err, err


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained shapes-tiny, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("weights")
    config = minst.MobileInstConfig.preset("shapes-tiny", class_names=CATEGORIES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        minst.MobileInst(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A folder of seven images."""
    folder = tmp_path_factory.mktemp("frames")
    clip = shapes_clip("test", 0, ShapesConfig(width=128, height=96, frames=7), seed=3)
    for t in range(len(clip)):
        Image.fromarray(clip.render(t).image).save(folder / f"{t}.png")
    return folder


def call_of(monkeypatch, module, function, answer=None):
    """Put a stand-in in the place of module.function; the list of its calls, {parameter: value} each.

    What the function itself does not take is a TypeError.
    """
    taken = inspect.signature(getattr(importlib.import_module(module), function))
    calls = []

    def stand_in(*args, **kwargs):
        given = taken.bind(*args, **kwargs).arguments
        more = given.pop("options", {})
        calls.append({**given, **more})
        return answer

    monkeypatch.setattr(f"{module}.{function}", stand_in)
    return calls


# ---------------------------------------------------------------------------- starting, help, wrong arguments


@pytest.mark.parametrize("command", ["", "train", "bench mobile"])
def test_python_m_minst_helps_within_half_a_second(command):
    before = os.times()
    argv = [sys.executable, "-m", "minst", *command.split(), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    after = os.times()
    assert done.returncode == 0 and done.stderr == ""
    if not command:
        for name in ("demo", "track", "eval", "train", "data", "env", "summary", "bench"):
            assert f"\n    {name} " in done.stdout
    # processor time: what the clock shows depends on who else is at work
    assert (
        after.children_user + after.children_system - before.children_user - before.children_system
        < 0.5
    )


def test_version():
    assert run("--version") == (0, f"minst {minst.__version__}\n", "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command):
    status, out, err = run(*command.split(), "--help")
    assert status == 0 and err == "" and out.startswith(f"usage: minst {command} [-h]")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "COMMAND"),
        (["fly"], "'fly'"),
        (["data"], "WHAT"),
        (["bench", "speed"], "'speed'"),
        (["track"], "video"),
        (["demo", "--reuse-interval", "2.5"], "'2.5'"),
        (["demo", "--reuse", "3"], "--reuse"),  # no guessing at abbreviations
        (["track", "x", "--association", "name"], "'mask'"),
        (["track", "x", "--score-threshold", "high"], "'high'"),
        (["data", "shapes", "--out", "x", "--size", "256"], "256x192"),
        (["data", "shapes", "--videos", "3"], "--out"),
        (["summary", "--preset", "huge"], "'topformer-base'"),
        (["summary", "--preset", "shapes-tiny", "--weights", "shapes-tiny"], "not allowed with"),
        (["train", "--iterations", "many"], "'many'"),
        (["env", "now"], "now"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(argv, word):
    assert_refused(*argv, word=word)


def test_bad_input_is_refused_in_one_line(tmp_path, weights, frames):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "annotations.json").write_text('{"videos": [')
    (tmp_path / "empty").mkdir()
    assert_refused("track", tmp_path / "none.mp4", word="none.mp4")
    assert_refused(
        "track",
        tmp_path / "text.mp4",
        "--weights",
        weights,
        "--out",
        tmp_path / "o",
        word="text.mp4",
    )
    assert_refused(
        "track", tmp_path / "empty", "--weights", weights, "--out", tmp_path / "o", word="empty"
    )
    assert_refused("track", frames, "--weights", "no-such", "--out", tmp_path / "o", word="no-such")
    assert_refused(
        "track",
        frames,
        "--weights",
        tmp_path / "empty",
        "--out",
        tmp_path / "o",
        word="config.json",
    )
    assert_refused(
        "track", frames, "--weights", weights, "--out", tmp_path / "text.mp4", word="text.mp4"
    )
    assert_refused(
        "track", frames, "--weights", weights, "--reuse-interval", 0, word="must be at least 1"
    )
    assert_refused("track", frames, "--weights", weights, "--score-threshold", 1.5, word="1.5")
    assert_refused("summary", "--preset", "shapes-tiny", "--size", "32x32", word="64 x 64")
    assert_refused("data", "shapes", "--out", tmp_path, "--videos", "1", word="empty")
    assert_refused("data", "shapes", "--out", tmp_path / "o2", "--speed", "9", word="speed")
    assert_refused_after_progress(
        run("data", "shapes", "--out", tmp_path / "o2", "--seed", "-1"), "seed"
    )
    assert_refused("train", "--out", tmp_path / "r", "--iterations", "0", word="--iterations")
    assert_refused("train", "--out", tmp_path / "r", "--preset", "huge", word="huge")
    assert not (tmp_path / "o" / "results.json").exists()


def outputs():
    """(command, option) of everything that a command writes."""
    for command, function in cli.COMMANDS.items():
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            if name in ("out", "json", "log", "logs") and parameter.kind is parameter.KEYWORD_ONLY:
                yield command, name


NEEDED = {"track": ["v"], "predict": ["d"], "eval": ["d"], "submit": ["r", "--annotations", "a"], "data check": ["d"],
          "data preview": ["d"], "data split": ["a"], "data convert": ["s", "--out", "o"], "bench lite": ["m"],
          "bench phone": ["m"], "bench parse": ["-"], "data shapes": ["--out", "o"]}  # fmt: skip


@pytest.mark.parametrize("command, name", list(outputs()))
def test_what_cannot_be_written_is_refused_before_the_work(monkeypatch, tmp_path, command, name):
    """No function of a command is called: the file is looked at first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    argv = [*command.split(), *NEEDED.get(command, []), f"--{name}"]
    monkeypatch.setattr(cli, "_sigterm_raises", None)  # what `main` calls before the work
    for wrong in ("file/below.json", "file/a/b"):
        assert_refused(*argv, wrong, word=f"--{name}")
    assert_refused(*argv, "x" * 300, word="too long")
    kind = str(inspect.signature(cli.COMMANDS[command], eval_str=True).parameters[name].annotation)
    for wrong in ("file", "pipe", "") if "new_folder" in kind else ("folder", "pipe", ""):
        assert_refused(*argv, wrong, word=f"--{name}")
    if name in ("json", "log"):
        assert_refused(*argv, "no/dir/x.json", word="there is no folder")
    assert (tmp_path / "file").read_text() == "mine" and not list((tmp_path / "folder").iterdir())


def test_sigterm_leaves_whole_files_or_none(monkeypatch, weights, frames, tmp_path):
    """While frames are tracked, while results are written; and it is as ever afterwards."""
    from minst.data.shapes import write_shapes_dataset
    from minst.tracking import KernelTracker

    write_shapes_dataset(tmp_path / "set", 1, ShapesConfig(width=128, height=96, frames=4), seed=3)
    out = tmp_path / "out"
    out.mkdir()
    names = ("results.json", "tracks.mp4", "r.json")
    for name in names:
        (out / name).write_text("before")
    advance = KernelTracker.advance

    def stopped(self, frame):
        if self.frame == 2:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, frame)

    monkeypatch.setattr(KernelTracker, "advance", stopped)
    for argv in (
        ["track", frames, "--weights", weights, "--out", out],
        ["predict", tmp_path / "set", "--weights", weights, "--out", out / "r.json"],
    ):
        status, _, err = run(*argv)
        assert status == 143 and err.splitlines()[-1].startswith("minst: interrupted")
    assert {p.name: p.read_text() for p in out.iterdir()} == dict.fromkeys(names, "before")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (ValueError("two\nlines"), 2, "two lines"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 2, "a/b: No such file"),
        (FileExistsError("there already"), 2, "there already"),
        (NotADirectoryError("no folder"), 2, "no folder"),
        (PermissionError(13, "Permission denied", "c"), 2, "c: Permission denied"),
        (FloatingPointError("loss is not finite"), 1, "not finite"),
        (ModuleNotFoundError("No module named 'av'", name="av"), 1, "'av'"),
        (MemoryError(), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_of_a_command_become_a_status_and_one_line(monkeypatch, error, status, word):
    def fail(**_):
        raise error

    monkeypatch.setattr("minst.predict.run_demo", fail)
    assert_refused("demo", status=status, word=word)


def test_other_errors_keep_their_traceback(monkeypatch):
    """A fault of ours must not look like a fault of the user's."""
    monkeypatch.setattr("minst.predict.run_demo", lambda **_: {}["gone"])
    with pytest.raises(KeyError):
        main(["demo"])


def test_a_closed_pipe_is_no_error():
    code = """
import sys, types
sys.modules["minst.predict"] = demo = types.ModuleType("minst.predict")
demo.run_demo = lambda **_: print("x" * 1_000_000)
from minst.cli import main
sys.exit(main(["demo"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()  # nobody reads
    assert process.stderr.read() == "" and process.wait() == 1


# ---------------------------------------------------------------------------- commands call their functions


def test_demo_passes_its_arguments_on(monkeypatch):
    said = {"sample": "s", "frames": 1, "tracks": [], "ms_key": 1.0, "ms_reuse": None, "AP": 0.5,
            "AP50": 0.5, "files": {}, "seconds": 1.0}  # fmt: skip
    calls = call_of(monkeypatch, "minst.predict", "run_demo", said)
    assert run("demo")[0] == 0
    assert run("demo", "--sample", "twins", "--out", "d", "--reuse-interval", "6")[0] == 0
    assert calls == [
        {"out": "minst-demo", "sample": None, "reuse_interval": 3},
        {"out": "d", "sample": "twins", "reuse_interval": 6},
    ]


def test_eval_prints_the_figures_and_writes_them(monkeypatch, tmp_path):
    figures = {
        "AP": 0.5123,
        "consistency": {"retention": {"1": 0.95}, "pairs": {"1": {"of": 20}}},
        "per_category": {"fish": {"AP": 0.25}},
        "identity": {"swaps": 3, "HOTA": float("nan"), "note": "install trackeval"},
        "weights": "w",
    }
    calls = call_of(monkeypatch, "minst.predict", "evaluate_folder", figures)
    argv = [
        "eval",
        "DIR",
        "--weights",
        "w",
        "--reuse-interval",
        6,
        "--association",
        "cosine",
        "--videos",
        2,
    ]
    status, out, _ = run(*argv, "--json", tmp_path / "out.json")
    assert status == 0
    assert run(*argv, "--size", 200)[0] == 0
    usual = {"folder": "DIR", "weights": "w", "reuse_interval": 6, "association": "cosine", "videos": 2}
    usual |= {"split": None, "annotations": None}
    assert calls == [{**usual, "size": None}, {**usual, "size": 200}]
    assert [line.split() for line in out.splitlines()[:-1]] == [
        ["AP", "0.5123"],
        ["consistency", "retention", "1", "0.95"],
        ["identity", "swaps", "3"],
        ["identity", "HOTA", "nan"],
        ["note:", "install", "trackeval"],
    ]
    figures["identity"]["HOTA"] = None  # JSON has no NaN
    assert json.loads((tmp_path / "out.json").read_text()) == figures


def test_explore_passes_its_arguments_on(monkeypatch):
    calls = call_of(monkeypatch, "minst.visualize.serve", "serve")
    usual = {"source": "easy", "weights": weights_for("easy"), "settings": Settings(), "port": 8866}
    usual |= {"host": "127.0.0.1", "browser": True, "others": []}
    assert run("explore")[0] == 0
    options = [
        "--weights",
        "a",
        "b",
        "--reuse-interval",
        5,
        "--association",
        "cosine",
        "--port",
        99,
        "--host",
        "0.0.0.0",
    ]
    assert run("explore", "twins", *options, "--no-browser")[0] == 0
    named = {"source": "twins", "weights": ["a", "b"], "settings": Settings(5, "cosine"), "port": 99}
    assert calls == [usual, {**usual, **named, "host": "0.0.0.0", "browser": False}]


def test_explore_shows_a_model_of_others_alone_or_beside_weights(monkeypatch, of_others):
    calls = call_of(monkeypatch, "minst.visualize.serve", "serve")
    assert run("explore", "cats.mp4", "--model", "org/m", "--revision", "v1", "--size", 300)[0] == 0
    assert run("explore", "cats.mp4", "--model", "org/m", "--weights", "a", "b")[0] == 0
    assert [(call["weights"], call["others"]) for call in calls] == [
        ([], [("org/m", "v1", 300)]),
        (["a", "b"], [("org/m", None, None)]),
    ]
    assert of_others == [("org/m", "v1", 300), ("org/m", None, None)]  # each has been tried


def test_explore_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    status, _, err = run("explore", "easy")
    assert status == 1 and "mobileinst[notebooks]" in err and "Traceback" not in err


def test_bench_passes_its_arguments_on(monkeypatch):
    calls = call_of(monkeypatch, "minst.mobile.benchmark", "bench_latency")
    assert (
        run(
            "bench",
            "latency",
            "--preset",
            "seaformer-tiny",
            "--size",
            "320x256",
            "--threads",
            2,
            "--json",
            "b.json",
        )[0]
        == 0
    )
    assert run("bench", "latency", "--weights", "w", "--frames", 5)[0] == 0
    usual = {
        "preset": None,
        "weights": None,
        "size": (640, 640),
        "threads": 1,
        "frames": 30,
        "json_path": None,
    }
    said = {"preset": "seaformer-tiny", "size": (256, 320), "threads": 2, "json_path": "b.json"}
    assert calls == [{**usual, **said}, {**usual, "weights": "w", "frames": 5}]
    calls = call_of(monkeypatch, "minst.mobile.benchmark", "bench_data")
    assert run("bench", "data", "--batches", 5)[0] == 0
    assert calls == [{"threads": 1, "batches": 5, "json_path": None}]


def test_train_has_an_argument_for_every_field(monkeypatch):
    from minst import training

    calls = []
    monkeypatch.setattr(
        training, "train", lambda config, resume: calls.append((config, resume)) or "runs/weights"
    )
    _, text, _ = run("train", "--help")
    text = " ".join(text.split())
    fields = dataclasses.fields(training.TrainConfig)
    said = comments(training.TrainConfig)
    for field in fields:
        usual = (
            "" if field.default is False or field.default == "" else f" (default: {field.default})"
        )
        assert (
            f"--{field.name.replace('_', '-')}" in text
            and f"{said[field.name]}{usual}" in text
            and said[field.name]
        )
    # another value for every field, of its own type, arrives
    wanted = {f.name: _other(f) for f in fields}
    # of `init` and `switches` one at a time, since weights say what they are of
    given = [wanted | {"switches": ""}, wanted | {"init": ""}]
    for values in given:
        argv = [_said(name.replace("_", "-"), value) for name, value in values.items()]
        assert run("train", *sum(argv, []))[0] == 0
    assert run("train", "--restart") == (0, "weights: runs/weights\n", "")
    arrived = [(training.TrainConfig(**values), True) for values in given]
    assert calls == [*arrived, (training.TrainConfig(), False)]
    assert [type(getattr(calls[0][0], f.name)) for f in fields] == [type(f.default) for f in fields]


def _said(name, value):
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _other(field):
    chosen = {"train_on": "images", "query_passing": "fresh", "precision": "bf16", "device": "cpu", "target_stride": 4,
              "short_max": 900}  # fmt: skip
    if field.name in chosen:
        return chosen[field.name]
    if isinstance(field.default, (bool, str)):
        return "other" if isinstance(field.default, str) else not field.default
    return field.default / 2 if isinstance(field.default, float) else 2 * field.default or 1


def test_a_recipe_is_the_ground_and_arguments_stand_on_it(monkeypatch):
    from minst import training
    from minst.recipes import recipe

    calls = []
    monkeypatch.setattr(training, "train", lambda config, resume: calls.append(config))
    assert (
        run("train", "--config", "coco", "--data", "d", "--pairs", "2", "--no-checkpointing")[0]
        == 0
    )
    assert run("train", "--config", "coco", "--data", "d", "--pairs", "2", "--lr", "0.5")[0] == 0
    assert calls == [recipe("coco", data="d", pairs=2), recipe("coco", data="d", pairs=2, lr=0.5)]
    assert_refused("train", "--config", "ovis", word="--data DIR")
    assert_refused("train", "--config", "imagenet", word="youtubevis-2019")


def test_an_interrupted_training_says_how_to_go_on(monkeypatch):
    from minst import training

    def interrupted(config, resume):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert_refused("train", status=130, word="goes on from the last checkpoint")


def test_summary_prints_what_the_function_counts(weights):
    from minst.macs import summary
    from minst.model import MobileInst

    status, out, _ = run("summary", "--weights", weights, "--size", "256x128")
    counted = summary(MobileInst.from_pretrained(weights), (128, 256))
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert status == 0 and rows == {
        k: [f"{v['params']:,}", f"{v['macs'] / 1e9:.3f}", "G"] for k, v in counted.items()
    }
    assert (
        run("summary", "--preset", "shapes-tiny", "--size", "256x128")[1].splitlines()[-1]
        == out.splitlines()[-1]
    )


def test_data_shapes_writes_clips_and_images(tmp_path):
    from minst.data.ytvis import YouTubeVIS

    argv = [
        "data",
        "shapes",
        "--videos",
        2,
        "--frames",
        3,
        "--size",
        "128x96",
        "--seed",
        7,
        "--split",
        "test",
        "--speed",
        2,
    ]
    assert run(*argv, "--out", tmp_path / "v")[0] == 0
    data = YouTubeVIS(tmp_path / "v")
    expected = shapes_clip(
        "test", 1, ShapesConfig(width=128, height=96, frames=3, speed=2.0), seed=7
    )
    assert (
        len(data) == 2
        and np.abs(data[1].image(2).astype(int) - expected.render(2).image).mean() < 5
    )
    assert run(*argv, "--images", "--out", tmp_path / "i")[0] == 0
    assert len(json.loads((tmp_path / "i" / "annotations.json").read_text())["images"]) == 2


def test_env_says_what_there_is():
    status, out, _ = run("env")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert status == 0 and f"{sys.version_info.major}.{sys.version_info.minor}." in rows["python"]
    for name in (
        "minst",
        "cpu",
        "XNNPACK",
        "torch",
        "numpy",
        "scipy",
        "pycocotools",
        "av",
        "clips",
        "weights",
    ):
        assert name in rows


def env_with(monkeypatch, installed: dict, wanted: list[tuple[str, str]]):
    """environment() where packages have these versions (else 99) and these (requirement, extra) are wanted."""
    from packaging.requirements import Requirement

    from minst import environment as module

    monkeypatch.setattr(module, "installed", lambda name: installed.get(name, "99"))
    monkeypatch.setattr(module, "requirements", lambda: [(Requirement(line), extra) for line, extra in wanted])
    return module.environment()


def test_env_names_the_command_that_installs_what_is_missing(monkeypatch):
    from minst.environment import report

    wanted = [("torch>=2.12,<2.13", ""), ("torchvision>=0.27,<0.28", ""), ("av>=12.3", ""), ("pytest>=8", "test")]
    installed = {"torch": "2.13.0", "torchvision": "0.27.1+cpu", "av": None}
    found = env_with(monkeypatch, installed, wanted)
    command = f'{sys.executable} -m pip install "torch<2.13,>=2.12" "av>=12.3"'
    assert found["problems"] == [f"needed: torch, av; install with: {command}"]
    assert found["problems"][0] in report(found)
    installed |= {"torch": "2.12.1", "av": "18.0", "pytest": "7.4"}
    assert env_with(monkeypatch, installed, wanted)["problems"] == [
        f"for the extra 'test': pytest; install with: {sys.executable} -m pip install \"pytest>=8\""
    ]
    installed["pytest"] = "8.0"
    assert "nothing is missing" in report(env_with(monkeypatch, installed, wanted))


def test_env_says_what_is_not_for_this_python_and_asks_nobody_to_mend_it(monkeypatch):
    from minst.environment import report

    wanted = [("torch>=2.12", ""), ("torch>=2.12,<2.13", "lite"), ('executorch>=1.3; python_version < "3.9"', "mobile")]
    installed = {"torch": "2.14.1", "executorch": None}
    found = env_with(monkeypatch, installed, wanted)
    assert [row["state"] for row in found["packages"][:2]] == ["ok", "another version"]
    assert found["packages"][2]["state"] == f"not for Python {found['python']}"
    assert [line.partition(";")[0] for line in found["problems"]] == ["for the extra 'lite': torch"]
    assert f"not for Python {found['python']}" in report(found)


def test_env_says_that_torch_has_no_xnnpack_and_who_needs_it(monkeypatch):
    from minst.environment import environment, report

    monkeypatch.setattr(torch._C, "_is_xnnpack_enabled", lambda: False)
    (line,) = [line for line in report(environment()).splitlines() if line.startswith("XNNPACK")]
    assert "the extra 'lite'" in line and "--format lite" in line


def test_versions_are_compared_as_numbers():
    from minst.environment import satisfies

    assert (
        satisfies("2.12.1+cpu", ">=2.12,<2.13")
        and satisfies("10.0", ">=9.9")
        and satisfies("2.0", ">=2.0.0")
    )
    assert (
        not satisfies("2.13", ">=2.12,<2.13")
        and not satisfies("2.9", ">=2.12")
        and not satisfies("1.0", "!=1.0")
    )


def test_requirements_of_a_wheel_are_read_from_its_metadata(monkeypatch, tmp_path):
    from minst import environment as module

    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "minst" / "environment.py"))
    lines = ["torch<2.13,>=2.12", "pycocotools (>=2.0.8)", 'pytest>=8; extra == "test"', "numpy>=2.0"]
    lines += ["executorch>=1.3; (python_version < '3.99') and extra == 'mobile'"]
    monkeypatch.setattr(module.importlib.metadata, "requires", lambda name: lines)
    found = [(needed.name, str(needed.specifier), extra) for needed, extra in module.requirements()]
    assert found == [
        ("numpy", ">=2.0", ""),
        ("pycocotools", ">=2.0.8", ""),
        ("torch", "<2.13,>=2.12", ""),
        ("executorch", ">=1.3", "mobile"),
        ("pytest", ">=8", "test"),
    ]
    monkeypatch.setattr(module, "installed", {"torch": "2.12.1", "executorch": "1.3.1"}.get)
    assert module._row(*module.requirements()[3])["state"] == "ok"


# ---------------------------------------------------------------------------- minst track


def test_track_writes_a_video_and_results(weights, frames, tmp_path):
    from minst.data.video import read_video
    from minst.tracking import KernelTracker

    out = tmp_path / "out"
    status, text, _ = run(
        "track",
        frames,
        "--weights",
        weights,
        "--out",
        out,
        "--reuse-interval",
        2,
        "--score-threshold",
        0.05,
    )
    assert (
        status == 0
        and "7 frames" in text
        and sorted(p.name for p in out.iterdir()) == ["results.json", "tracks.mp4"]
    )
    images = list(read_video(frames))
    drawn = list(read_video(out / "tracks.mp4"))
    assert len(drawn) == len(images)
    # the same as tracking all at once, which keeps everything in memory
    model = minst.MobileInst.from_pretrained(weights).fuse()
    whole = KernelTracker(model, 2, "mask", 0.05).track(images)
    results = json.loads((out / "results.json").read_text())
    assert {e["id"]: e["segmentations"] for e in results} == {
        t.id: t.segmentations for t in whole.tracks
    }
    assert [e["score"] for e in results] == sorted(
        (e["score"] for e in results), reverse=True
    ) and results


def test_track_fills_the_gaps_of_a_track_with_null(tmp_path):
    from minst.predict import TracksOnDisk
    from minst.tracking import FrameResult

    tracks = TracksOnDisk(tmp_path, ("fish", "snail"))
    seen = {0: [4], 1: [], 2: [4, 9], 3: [9], 4: []}
    for t, ids in seen.items():
        codes = [{"size": [2, 2], "counts": f"{t}{i}"} for i in ids]
        tracks.take(FrameResult(t, True, ids, [1] * len(ids), [0.1 * i for i in ids], codes, ids))
    tracks.write(tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    found = {e["id"]: [s and s["counts"] for s in e["segmentations"]] for e in results}
    assert found == {9: [None, None, "29", "39", None], 4: ["04", None, "24", None, None]}
    assert [(e["video_id"], e["category_id"], e["category"]) for e in results] == [
        (1, 2, "snail")
    ] * 2
    assert [row["frames"] for row in tracks.table()] == [2, 2]


def test_track_without_objects_writes_an_empty_list(weights, frames, tmp_path):
    assert (
        run("track", frames, "--weights", weights, "--out", tmp_path, "--score-threshold", 1)[0]
        == 0
    )
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_track_leaves_an_earlier_result_alone_when_it_fails(weights, frames, tmp_path):
    broken, out = tmp_path / "frames", tmp_path / "out"
    broken.mkdir()
    for path in frames.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (64, 64)).save(broken / "6.png")  # of another size than the others
    out.mkdir()
    for name in ("results.json", "tracks.mp4"):
        (out / name).write_text("before")
    assert_refused_after_progress(run("track", broken, "--weights", weights, "--out", out), "6.png")
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "results.json": "before",
        "tracks.mp4": "before",
    }


def assert_refused_after_progress(outcome, word):
    status, _, err = outcome
    last = err.replace("\r", "\n").strip().splitlines()[-1]
    assert status == 2 and last.startswith("minst: ") and word in last and "Traceback" not in err


def test_the_parser_knows_all_commands_of_readme():
    """`build_parser` is what tests/test_packaging.py checks README's commands with."""
    parsed = build_parser().parse_args(["train", "--lr", "0.5"])
    assert parsed.lr == 0.5 and parsed.function is cli.train


# ---------------------------------------------------------------------------- models of others


@pytest.fixture
def of_others(monkeypatch, colours):
    """`--model NAME` gives a stand-in, without transformers; the list of what was asked for."""
    from minst import adapters

    asked = []

    def load(*arguments):
        asked.append(arguments)
        return colours("Fish", "pizza", "TURTLE")

    monkeypatch.setattr(adapters, "from_transformers", load)
    cached = {"org/name": "hub/models--org--name/snapshots/0123abc/config.json"}
    hub = types.SimpleNamespace(try_to_load_from_cache=lambda name, file: cached.get(name))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return asked


@pytest.mark.parametrize("more, noted", [((), True), (("--revision", "v1"), False)])
def test_who_names_no_revision_is_told_which_one_came(monkeypatch, of_others, more, noted):
    said = {"interrupted": False, "ms_per_frame": 1.0, "frames": 1, "tracks": [], "video": None, "results": "r"}
    call_of(monkeypatch, "minst.predict", "track_video", said)
    code, out, _ = run("track", "a.mp4", "--model", "org/name", *more)
    assert code == 0 and ("--revision 0123abc brings these very weights again" in out) == noted
    assert "--revision" not in run("track", "a.mp4", "--model", "org/elsewhere")[1]


def test_model_takes_the_place_of_weights(monkeypatch, of_others, tmp_path):
    said = {"interrupted": False, "ms_per_frame": 1.0, "frames": 1, "tracks": [], "video": None, "results": "r"}
    calls = call_of(monkeypatch, "minst.predict", "track_video", said)
    assert run("track", "a.mp4", "--model", "org/name", "--revision", "v1", "--size", 256)[0] == 0
    assert run("track", "a.mp4", "--model", "org/name", "--reuse-interval", 6)[0] == 0
    assert run("track", "a.mp4", "--weights", weights_names()[0], "--size", 256, "--association", "cosine")[0] == 0
    assert run("track", "a.mp4")[0] == 0
    assert of_others == [("org/name", "v1", 256), ("org/name", None, None)]
    # the size is told to the model of others, or to the loop over frames
    assert [(call["reuse_interval"], call["association"], call["size"]) for call in calls] == [
        (3, "mask", None),
        (6, "mask", None),
        (3, "cosine", 256),
        (3, "mask", None),
    ]
    usual = {"score_threshold": 0.5, "every": 1, "max_frames": None, "video": True}
    assert all(usual.items() <= call.items() for call in calls)
    models = [call["weights"] for call in calls]
    assert [type(model).__name__ for model in models[:2]] == ["Colours"] * 2
    assert models[2:] == [weights_names()[0], weights_for("a.mp4")[0]]


@pytest.fixture
def with_photos(monkeypatch):
    """As if weights of photographs shipped."""
    monkeypatch.setattr("minst.samples.weights_names", lambda: ["photos-tiny", "shapes-tiny", "shapes-tiny-images"])
    monkeypatch.setattr("minst.samples.weights_classes", lambda name: {"photos-tiny": ["cat", "dog"]}[name])


NOTE = "note: photos-tiny was chosen, which knows cat and dog alone; --model NAME"


def test_film_that_is_not_ours_gets_weights_of_photographs_and_a_line_says_so(monkeypatch, with_photos, tmp_path):
    """Of every command that looks at a film; ours and weights that are named get no line of this kind."""
    said = {"interrupted": False, "ms_per_frame": 1.0, "frames": 1, "tracks": [], "video": None, "results": "r"}
    shown, chosen = call_of(monkeypatch, "minst.visualize.serve", "serve"), []
    takers = {"track_video": (2, said), "evaluate_folder": (1, {"AP": 0.5}), "predict_folder": (1, [])}
    for name, (place, answer) in takers.items():

        def stand_in(*args, place=place, answer=answer, **kwargs):
            chosen.append(args[place])
            return answer

        monkeypatch.setattr(f"minst.predict.{name}", stand_in)
    ours = minst.samples.data_folder() / "clips"
    for film in ("a.mp4", ours):
        out = ["--out", tmp_path / "results.json"]
        for command in (["track", film], ["explore", film], ["eval", film], ["predict", film, *out]):
            status, printed, err = run(*command)
            assert status == 0 and printed.count(NOTE) == int(film == "a.mp4"), (command, err)
    assert chosen == ["photos-tiny"] * 3 + ["shapes-tiny"] * 3
    assert [call["weights"] for call in shown] == [["photos-tiny"], ["shapes-tiny", "shapes-tiny-images"]]
    printed = run("track", "a.mp4", "--weights", "shapes-tiny")[1]
    assert NOTE not in printed and "drawn creatures alone" in printed
    assert NOTE not in run("track", "a.mp4", "--weights", "photos-tiny")[1]


def test_fig2_of_film_that_is_not_ours_is_of_weights_of_photographs(monkeypatch, with_photos, colours, tmp_path):
    asked = []
    monkeypatch.setattr("minst.protocol.open_model", lambda name: asked.append(name) or colours("cat", "dog", "owl"))
    for film in ("chelsea", "easy"):
        printed = run("fig2", film, "--count", 2, "--out", tmp_path / f"{film}.png")[1]
        assert printed.count(NOTE) == int(film == "chelsea") and (tmp_path / f"{film}.png").is_file()
    assert asked == ["photos-tiny", "shapes-tiny"]


def test_demo_of_the_photograph(monkeypatch, with_photos):
    said = {"sample": "chelsea", "frames": 1, "tracks": [], "ms_key": 1.0, "ms_reuse": None, "AP": 0.5, "AP50": 1.0}
    calls = call_of(monkeypatch, "minst.predict", "run_demo", {**said, "files": {}, "seconds": 1.0})
    lines = [NOTE in run("demo", *argv)[1] for argv in (["--photo"], ["--sample", "chelsea"], ["--film"], ["--sample", "easy"], [])]
    assert lines == [True, True, True, False, False]
    assert [call["sample"] for call in calls] == ["chelsea", "chelsea", "walk", "easy", None]
    for two in (["--photo", "--sample", "easy"], ["--photo", "--film"], ["--film", "--sample", "walk"]):
        assert_refused("demo", *two, word="one of --photo, --film and --sample")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["track", "a.mp4", "--weights", "w", "--model", "m"], "--weights or --model, not both"),
        (["track", "a.mp4", "--revision", "v1"], "--revision goes with --model"),
        (["explore", "--size", "200"], "--size goes with --model"),
        (["fig2", "easy", "--revision", "v1"], "--revision goes with --model"),
        (["fig2", "easy", "--out", "fig.jpg"], ".png, .pdf or .svg"),
        (["fig2", "easy", "--frames", "0", "30"], "no frame 30: the video has 24"),
        (["fig2", "easy", "--frames", "0", "--every", "2"], "--frames, or --every"),
        (["fig2", "easy", "--frames", *map(str, range(65))], "up to 64 --frames"),
        (["fig2", "easy", "--frames", "-1"], "-1"),
        (["fig2", "easy", "--count", "65"], "at most 64"),
        (["fig2", "easy", "--tile", "9000"], "at most 512"),
        (["fig2", "none.mp4"], "none.mp4"),
        (["fig2", "easy", "--weights", "nope"], "nope"),
        (["fig2", "easy", "--weights", "a", "b", "c"], "nothing"),
    ],
)  # fmt: skip
def test_wrong_arguments_about_models_and_figures_are_refused(of_others, monkeypatch, tmp_path, argv, word):
    monkeypatch.chdir(tmp_path)
    if word == "nothing":
        shipped = minst.samples.weights_folder("shapes-tiny")
        argv, word = [*argv[:3], *weights_names(), shipped], "one or two"
    assert_refused(*argv, word=word)
    assert not list(tmp_path.iterdir())


def test_a_film_without_frames_has_no_figure(tmp_path, frames):
    (tmp_path / "empty").mkdir()
    assert_refused("fig2", tmp_path / "empty", word="no .jpg")
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert_refused("fig2", tmp_path / "empty.mp4", word="empty.mp4")


def test_fig2_of_weights_and_of_a_model_of_others(of_others, frames, weights, tmp_path):
    for out, argv, head in (
        ("new/a.png", ["easy", "--model", "org/m", "--count", 2], "One query, one instance"),
        ("b.PDF", [frames, "--weights", weights, "--frames", 5, 0, "--tile", 100], "2 frames"),
        ("c.svg", [frames, "--every", 4], "2 frames"),
        ("d.png", ["easy", "--weights", weights, "--model", "org/m", "--frames", 3], "% m"),
    ):
        status, text, err = run("fig2", *argv, "--out", tmp_path / out)
        assert (status, err) == (0, "") and head in text and text.endswith(f"written: {tmp_path / out}\n")
        start = (tmp_path / out).read_bytes()[:5]
        assert start in (b"\x89PNG\r", b"%PDF-", b"<?xml")
    assert of_others == [("org/m", None, None)] * 2
    assert run("fig2", frames, "--weights", weights, "--tile", 300, "--count", 6, "--out", tmp_path / "e.png")[0] == 0
    assert Image.open(tmp_path / "e.png").width == pytest.approx(6 * 300 + 2.44 * 150, abs=5)  # 2.44 inches of words


@pytest.mark.parametrize("command", ["track", "fig2", "explore"])
def test_what_shapes_weights_cannot_know_is_said_in_one_line(monkeypatch, of_others, frames, weights, tmp_path, command):
    def notes(*argv):
        out = {"explore": [], "track": ["--out", tmp_path / "o"], "fig2": ["--out", tmp_path / "o.png"]}[command]
        status, text, _ = run(command, *argv, *out)
        assert status == 0
        return [line for line in text.splitlines() if line.startswith("note: ")]

    served = call_of(monkeypatch, "minst.visualize.serve", "serve") if command == "explore" else []
    (line,) = notes(frames, "--weights", "shapes-tiny")
    assert "shapes-tiny" in line and "--model facebook/" in line and "lesson 10" in line
    assert notes(frames, "--model", "org/m") == [] and notes(frames, "--weights", weights) == []
    ours = minst.samples.data_folder() / "clips" / "JPEGImages" / "easy"
    assert notes(ours) == []
    assert len(served) == (4 if command == "explore" else 0)


def test_predict_and_eval_take_a_model_of_others(of_others, tmp_path):
    from minst.data.shapes import write_shapes_dataset

    folder = write_shapes_dataset(tmp_path / "set", 1, ShapesConfig(width=128, height=96, frames=3), seed=3).parent
    status, text, _ = run("predict", folder, "--model", "org/m", "--out", tmp_path / "r.json")
    assert status == 0 and text.count("note: ") == 2 and "pizza" in text
    ids = {e["category_id"] for e in json.loads((tmp_path / "r.json").read_text())}
    assert ids <= {CATEGORIES.index("fish") + 1, CATEGORIES.index("turtle") + 1}
    status, text, _ = run("eval", folder, "--model", "org/m", "--json", tmp_path / "e.json")
    assert status == 0 and text.count("note: ") == 2
    assert json.loads((tmp_path / "e.json").read_text())["weights"] == "Colours"


def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path, frames):
    """Of the real library, with the hub switched off, as without a network."""
    pytest.importorskip("transformers", reason='transformers is missing: pip install "mobileinst[models]"')
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    for argv in (["track", frames], ["fig2", "easy"]):
        argv = [sys.executable, "-m", "minst", *map(str, argv), "--model", "nobody/nothing-here"]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if line.startswith("minst: ")]
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert len(said) == 1 and "hf download nobody/nothing-here" in said[0] and "folder" in said[0]
    assert_refused("track", frames, "--model", tmp_path, word="holds no model")
