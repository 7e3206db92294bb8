"""minst.mobile.lite: the C++ benchmarker is compiled once and run on real .ptl files.

Oracles: the outputs of the module that was exported, and the sums of what the program prints. No test says how fast
anything must be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.bundled_inputs import augment_model_with_bundled_inputs

import minst
from minst.mobile import lite
from minst.mobile.export import WRITERS
from minst.mobile.lite import bench_lite, compile_benchmark
from minst.mobile.programs import make_programs

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:TypedStorage is deprecated"
)  # TorchScript
KEYS = {"median_ms", "p95_ms", "spread", "min_ms", "load_ms", "first_run_ms", "peak_mb", "cores", "iterations",
        "threads", "ms", "log"}  # fmt: skip


class Affine(nn.Module):
    """Two inputs, so that their order and number matter; 0.5 x A + y."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(
            torch.tensor([[1.0, -2.0], [0.25, 3.0], [-1.5, 0.5]]), requires_grad=False
        )

    def forward(self, x, y):
        return 0.5 * x @ self.a + y


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """lite_benchmark.cpp, compiled once for this session."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler (g++, clang++) on PATH")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache of programs")))
        return compile_benchmark()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """affine.ptl with two bundled inputs (the second ones plus one), bare.ptl without, plain.pt, torn.ptl."""
    folder = tmp_path_factory.mktemp("models with a space")
    scripted = torch.jit.script(Affine().eval())
    scripted.save(str(folder / "plain.pt"))
    scripted._save_for_lite_interpreter(str(folder / "bare.ptl"))
    twice = [(torch.ones(2, 3), torch.ones(2, 1)), (2 * torch.ones(2, 3), 2 * torch.ones(2, 1))]
    augment_model_with_bundled_inputs(scripted, twice)
    scripted._save_for_lite_interpreter(str(folder / "affine.ptl"))
    whole = (folder / "affine.ptl").read_bytes()
    (folder / "torn.ptl").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def key_frame(tmp_path_factory):
    """The shipped model's key program as a .ptl, and what it says eagerly of its first bundled frame."""
    if not torch._C._is_xnnpack_enabled():
        pytest.skip("this torch has no XNNPACK: the extra 'lite'")
    model = minst.MobileInst.from_pretrained("shapes-tiny").fuse()
    made = make_programs(model, (128, 192), frames=1)[0]
    path = tmp_path_factory.mktemp("key") / "key.ptl"
    path.write_bytes(WRITERS["lite"](made, {}))
    return path, made.run(made.inputs["frame"])


@pytest.fixture
def use(program, monkeypatch):
    """bench_lite finds the session's program."""
    monkeypatch.setattr(lite, "compile_benchmark", lambda: program)


def run(program: Path, *flags: str, status: int = 0) -> str:
    """stdout; or, where it must fail, its one line on stderr."""
    done = subprocess.run([str(program), *flags], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    if not status:
        return done.stdout
    assert done.stderr.startswith("lite_benchmark: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def ours(log: str) -> dict:
    return json.loads(log.splitlines()[-1].removeprefix("minst: "))


def printed_tensor(text: str) -> np.ndarray:
    """Numbers of a small 2D tensor as libtorch prints it, without a common factor."""
    rows = [line.split() for line in text.splitlines() if re.fullmatch(r"[\s\d.e+-]+", line)]
    return np.array(rows, dtype=np.float64)


def test_the_log_is_that_of_speed_benchmark_torch_and_the_figures_are_its(use, models):
    found = bench_lite(models / "affine.ptl", 2, 7)
    log, exact, ms = found["log"], ours(found["log"]), found["ms"]
    lines = log.splitlines()
    assert lines[:3] == ["Starting benchmark.", "Running warmup runs.", "Main runs."]
    observed = [re.fullmatch(r"PyTorchObserver (\{.*\})", line)[1] for line in lines[3:10]]
    observed = [json.loads(text) for text in observed]
    number = r"[\d.]+(?:e[+-]\d+)?"
    mean, rate = re.fullmatch(
        rf"Main run finished\. Microseconds per iter: ({number})\. Iters per second: ({number})",
        lines[10],
    ).groups()
    names = {"load_us", "first_run_us", "peak_bytes", "cores", "iterations_us"}
    assert len(lines) == 12 and set(exact) == names
    for entry, us in zip(observed, exact["iterations_us"], strict=True):
        assert entry == {"type": "NET", "unit": "us", "metric": "latency", "value": str(int(us))}
    assert float(mean) * float(rate) == pytest.approx(1e6, rel=1e-4)
    # the mean is of one clock around all iterations: their sum and what lies between them
    assert fmean(exact["iterations_us"]) <= float(mean) * 1.0001
    assert set(found) == KEYS and (found["threads"], found["iterations"]) == (1, 7)
    assert ms == pytest.approx([us / 1e3 for us in exact["iterations_us"]])
    assert found["median_ms"] == median(ms) and found["min_ms"] == min(ms)
    assert found["p95_ms"] == pytest.approx(np.percentile(ms, 95))
    assert found["spread"] == pytest.approx(found["p95_ms"] / found["median_ms"])
    assert found["first_run_ms"] == pytest.approx(exact["first_run_us"] / 1e3)
    assert found["load_ms"] == pytest.approx(exact["load_us"] / 1e3) and found["load_ms"] > 0
    assert found["peak_mb"] == pytest.approx(exact["peak_bytes"] / 1e6) and found["peak_mb"] > 10
    assert found["cores"] == exact["cores"] > 0


def test_bundled_inputs_give_what_eager_gives(program, models):
    flags = [f"--model={models / 'affine.ptl'}", "--iter=1", "--print_output=true"]
    for index in (0, 1):
        expected = Affine()((index + 1) * torch.ones(2, 3), (index + 1) * torch.ones(2, 1)).numpy()
        log = run(program, *flags, f"--use_bundled_input={index}")
        text = log.partition("Starting benchmark.")[0]
        assert "CPUFloatType{2,2}" in text
        np.testing.assert_allclose(printed_tensor(text), expected, atol=1e-4)


def test_the_shipped_model_says_what_it_says_eagerly(program, key_frame):
    path, expected = key_frame
    log = run(program, f"--model={path}", "--iter=4", "--warmup=1", "--print_output=true")
    shapes = re.findall(r"CPUFloatType\{([\d,]+)\}", log)
    assert shapes == [",".join(str(n) for n in tensor.shape) for tensor in expected]
    class_logits = printed_tensor(log.partition("[ CPUFloatType")[0])
    # printed with four decimals
    np.testing.assert_allclose(class_logits, expected[0][0].numpy(), atol=2e-4)
    # where an iteration is long, hardly anything but iterations counts; a busy machine adds to either
    mean = float(re.search(r"Microseconds per iter: ([\d.e+]+)\. ", log)[1])
    assert mean == pytest.approx(fmean(ours(log)["iterations_us"]), rel=0.25)
    assert ours(log)["cores"] <= 1.02 and "PyTorchObserver" not in log


def test_the_first_run_is_the_first_of_all(program, models):
    """Without warm-up it is the first that counts; with it, it is not."""
    flags = [f"--model={models / 'affine.ptl'}", "--iter=3"]
    cold, warm = ours(run(program, *flags)), ours(run(program, *flags, "--warmup=1"))
    assert cold["first_run_us"] == cold["iterations_us"][0]
    assert warm["first_run_us"] not in warm["iterations_us"] and len(warm["iterations_us"]) == 3


ERRORS = {
    "no_such.ptl": "cannot read",
    "torn.ptl": "is no model of the lite interpreter: PytorchStreamReader failed",
    "plain.pt": "is no model of the lite interpreter: PytorchStreamReader failed",
    "bare.ptl": "the model has no bundled inputs",
    "affine.ptl --use_bundled_input=2": "--use_bundled_input: the model has 2, from 0",
    "affine.ptl --use_bundled_input=-1": "--use_bundled_input: the model has 2, from 0",
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors_are_one_line_and_a_status(program, models, words):
    name, *flags = words.split()
    assert ERRORS[words] in run(program, f"--model={models / name}", *flags, status=1)


@pytest.mark.parametrize("flag", ["--iters=3", "--iter"])
def test_a_flag_that_is_none_is_named(program, models, flag):
    argv = [str(program), f"--model={models / 'affine.ptl'}", flag]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1 and flag in done.stderr and not done.stdout


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread anyway")
def test_one_thread_is_one_thread(program, key_frame):
    """--pthreadpool_size holds for XNNPACK's pool and for OpenMP's: no other thread ever lives."""
    most = {}
    for threads in ("1", "2"):
        flags = [f"--model={key_frame[0]}", "--iter=100000", f"--pthreadpool_size={threads}"]
        process = subprocess.Popen([str(program), *flags], stdout=subprocess.PIPE, text=True)
        try:
            while process.stdout.readline() != "Main runs.\n":
                pass
            time.sleep(0.3)  # some iterations, so that every pool is made
            most[threads] = len(os.listdir(f"/proc/{process.pid}/task"))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert most["1"] == 1 < most["2"]


def test_bad_models_are_value_errors(use, models):
    for name, message in {"torn.ptl": "is no model of the lite", "bare.ptl": "no bundled"}.items():
        with pytest.raises(ValueError, match=f"^bench: .*{message}") as caught:
            bench_lite(models / name)
        assert "\n" not in str(caught.value) and str(models / name) in str(caught.value)


def test_a_crash_names_its_signal(models, tmp_path, monkeypatch):
    (tmp_path / "crash").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "crash").chmod(0o755)
    monkeypatch.setattr(lite, "compile_benchmark", lambda: tmp_path / "crash")
    with pytest.raises(ValueError, match="bench: it was ended by signal 11"):
        bench_lite(models / "affine.ptl")


def test_bad_numbers_are_refused_before_anything_runs(models, monkeypatch):
    monkeypatch.setattr(lite, "compile_benchmark", None)
    for bad in ({"warmup": -1}, {"iterations": 0}, {"threads": -1}, {"threads": 10**9}, {"threads": 1.0},
                {"iterations": True}, {"iterations": 2**31}):  # fmt: skip
        with pytest.raises(ValueError, match=f"bench: {next(iter(bad))} is "):
            bench_lite(models / "affine.ptl", **bad)
    for name in ("no_such.ptl", ""):
        with pytest.raises(FileNotFoundError, match="no such model"):
            bench_lite(models / name)


def fake_compiler(folder: Path, *lines: str) -> str:
    """A $CXX that notes its calls in calls.txt and, by `lines`, does something with the file after -o."""
    folder.mkdir(exist_ok=True)
    script = folder / "fake c++"
    note = f'echo called >> "{folder}/calls.txt"'
    script.write_text(
        "\n".join(["#!/bin/sh", note, 'while [ "$1" != -o ]; do shift; done', *lines]) + "\n"
    )
    script.chmod(0o755)
    return f"'{script}'"


def calls(folder: Path) -> int:
    return len((folder / "bin" / "calls.txt").read_text().splitlines())


@pytest.fixture
def fake(tmp_path, monkeypatch):
    makes = ("printf '#!/bin/sh\\necho fake\\n' > \"$2\"", 'chmod +x "$2"')
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "bin", *makes))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    return tmp_path


def test_what_is_in_the_cache_is_not_compiled_again(fake, capsys, monkeypatch):
    first = compile_benchmark()
    assert first.parent == fake / "a cache" / "minst"
    assert os.access(first, os.X_OK) and "compiling" in capsys.readouterr().out
    assert torch.__version__ in first.name
    assert compile_benchmark() == first and calls(fake) == 1 and not capsys.readouterr().out
    assert os.listdir(first.parent) == [first.name]  # nothing half-made stays
    monkeypatch.setenv("CXX", "no-such-c++")
    assert compile_benchmark() == first
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(fake))
    monkeypatch.setenv("HOME", str(fake / "home"))
    shutil.copytree(fake / "a cache", fake / "home" / ".cache")
    assert compile_benchmark().parent == fake / "home" / ".cache" / "minst"


def test_another_source_or_torch_is_another_program(fake, monkeypatch):
    programs = {compile_benchmark()}
    changed = fake / "lite_benchmark.cpp"
    changed.write_bytes(lite.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(lite, "SOURCE", changed)
    programs.add(compile_benchmark())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    programs.add(compile_benchmark())
    monkeypatch.setattr(torch, "__file__", str(fake / "other" / "torch" / "__init__.py"))
    programs.add(compile_benchmark())
    assert len(programs) == calls(fake) == 4


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "echo 'x.cpp:3:1: error: no such thing' >&2; echo '1 error generated.' >&2; exit 1",
            "error: no such",
        ),
        ("echo nothing to say >&2; exit 1", "nothing to say"),
        ("exit 3", "exit status 3"),
    ],
)
def test_a_failed_compilation_leaves_nothing_and_says_why(tmp_path, monkeypatch, line, cause):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "bin", line))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    message = rf"cannot be compiled: .*{cause}.*; Debian: apt-get install g\+\+; macOS"
    with pytest.raises(ImportError, match=message) as caught:
        compile_benchmark()
    assert "\n" not in str(caught.value) and os.listdir(tmp_path / "minst") == []


def test_without_a_compiler_it_says_what_to_install(models, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    message = (
        r"needs a C\+\+ compiler: g\+\+, clang\+\+, c\+\+ is not on PATH; Debian: .*bench mobile"
    )
    with pytest.raises(ImportError, match=message):
        bench_lite(models / "affine.ptl")
    monkeypatch.setenv("CXX", "no-such-c++ -v")
    with pytest.raises(ImportError, match=r"compiler: no-such-c\+\+ is not on PATH"):
        compile_benchmark()
