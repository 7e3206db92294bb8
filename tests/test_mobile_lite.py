"""minst.mobile.lite: the C++ benchmarker is compiled once and run on real .ptl files;
Python stands in for it.

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
import warnings
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.bundled_inputs import InflatableArg, augment_model_with_bundled_inputs
from torch.utils.mobile_optimizer import optimize_for_mobile

import minst
from minst.mobile import lite
from minst.mobile.lite import bench_lite, compile_benchmark
from minst.mobile.programs import make_programs

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:TypedStorage is deprecated"
)  # TorchScript
KEYS = {"runner", "median_ms", "p95_ms", "spread", "min_ms", "load_ms", "first_run_ms", "peak_mb", "cores", "iterations",
        "threads", "ms", "log"}  # fmt: skip
ONES = {"input_dims": "2,3;2,1"}


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
    if not os.environ.get("CXX") and not any(
        shutil.which(name) for name in ("g++", "clang++", "c++")
    ):
        pytest.skip("no C++ compiler (g++, clang++) on PATH")
    return compile_benchmark(cache=tmp_path_factory.mktemp("cache of programs"))


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
    """The shipped model's key program as a .ptl with a bundled frame, and what it says of that frame eagerly."""
    folder = tmp_path_factory.mktemp("key")
    # fused: optimize_for_mobile's own folding forgets the shift of a traced convolution without bias
    made = make_programs(
        minst.MobileInst.from_pretrained("shapes-tiny").fuse(), (128, 192), frames=1
    )[0]
    frame = made.inputs["frame"]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        optimised = optimize_for_mobile(torch.jit.trace(made.module, frame, check_trace=False))
    small = InflatableArg((255 * frame).round().byte(), "{}.float() / 255")
    augment_model_with_bundled_inputs(optimised, [(small,)])
    optimised._save_for_lite_interpreter(str(folder / "key.ptl"))
    return folder / "key.ptl", made.run(frame)


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


def test_the_log_is_that_of_speed_benchmark_torch(program, models):
    log = run(
        program,
        f"--model={models / 'affine.ptl'}",
        "--use_bundled_input=0",
        "--warmup=2",
        "--iter=7",
        "--report_pep=true",
    )
    lines = log.splitlines()
    assert lines[:3] == ["Starting benchmark.", "Running warmup runs.", "Main runs."]
    observed = [re.fullmatch(r"PyTorchObserver (\{.*\})", line)[1] for line in lines[3:10]]
    observed = [json.loads(text) for text in observed]
    number = r"[\d.]+(?:e[+-]\d+)?"
    mean, rate = re.fullmatch(
        rf"Main run finished\. Microseconds per iter: ({number})\. Iters per second: ({number})",
        lines[10],
    ).groups()
    exact = ours(log)
    assert len(lines) == 12 and set(exact) == {
        "load_us",
        "first_run_us",
        "peak_bytes",
        "cores",
        "iterations_us",
    }
    for entry, us in zip(observed, exact["iterations_us"], strict=True):
        assert entry == {"type": "NET", "unit": "us", "metric": "latency", "value": str(int(us))}
    assert float(mean) * float(rate) == pytest.approx(1e6, rel=1e-4)
    # the mean is of one clock around all iterations: their sum and what lies between them
    assert fmean(exact["iterations_us"]) <= float(mean) * 1.0001
    assert exact["load_us"] > 0 and exact["peak_bytes"] > 10e6 and exact["cores"] > 0


def test_the_mean_is_that_of_the_iterations(program, key_frame):
    """Where an iteration is long, nothing but iterations counts."""
    log = run(
        program,
        f"--model={key_frame[0]}",
        "--use_bundled_input=0",
        "--warmup=1",
        "--iter=4",
        "--pthreadpool_size=1",
    )
    mean = float(re.search(r"Microseconds per iter: ([\d.e+]+)\. ", log)[1])
    assert mean == pytest.approx(fmean(ours(log)["iterations_us"]), rel=0.02)
    assert ours(log)["cores"] <= 1.02 and "PyTorchObserver" not in log


def test_ones_and_bundled_inputs_give_what_eager_gives(program, models):
    eager = Affine()
    flags = [f"--model={models / 'affine.ptl'}", "--iter=1", "--print_output=true"]
    dims = ["--input_dims=2,3;2,1", "--input_type=float;float"]
    for inputs, factor in (
        (["--use_bundled_input=0"], 1),
        (["--use_bundled_input=1"], 2),
        (dims, 1),
    ):
        expected = eager(factor * torch.ones(2, 3), factor * torch.ones(2, 1)).numpy()
        text = run(program, *flags, *inputs).partition("Starting benchmark.")[0]
        assert "CPUFloatType{2,2}" in text
        np.testing.assert_allclose(printed_tensor(text), expected, atol=1e-4)


def test_the_shipped_model_says_what_it_says_eagerly(program, key_frame):
    path, expected = key_frame
    text = run(
        program, f"--model={path}", "--use_bundled_input=0", "--iter=1", "--print_output=true"
    )
    shapes = re.findall(r"CPUFloatType\{([\d,]+)\}", text)
    assert shapes == [",".join(str(n) for n in tensor.shape) for tensor in expected]
    class_logits = printed_tensor(text.partition("[ CPUFloatType")[0])
    np.testing.assert_allclose(
        class_logits, expected[0][0].numpy(), atol=2e-4
    )  # printed with four decimals


@pytest.mark.parametrize(
    "flags, lines",
    [
        (["--iter=3", "--report_pep"], 3),
        (["--report_pep", "true", "--iter", "2"], 2),
        (["--report_pep", "--iter", "2"], 2),
        (["--report_pep=true", "--report_pep=false"], 0),
        (["--report_pep", "false"], 0),
        ([], 0),
    ],
)
def test_flags_are_taken_with_equals_sign_or_as_two_words(program, models, flags, lines):
    log = run(program, "--model", str(models / "affine.ptl"), "--use_bundled_input", "0", *flags)
    assert log.count("PyTorchObserver") == lines
    iterations = next(
        (int(n) for n in re.findall(r"--iter[= ](\d+)", " ".join(flags))), 10
    )  # 10 as officially
    assert len(ours(log)["iterations_us"]) == iterations


def test_the_first_run_is_the_first_of_all(program, models):
    """Without warm-up it is the first that counts; with it, or with a printed output, it is not."""
    flags = [f"--model={models / 'affine.ptl'}", "--use_bundled_input=0", "--iter=3"]
    cold = ours(run(program, *flags))
    assert cold["first_run_us"] == cold["iterations_us"][0]
    for more in (["--warmup=1"], ["--print_output"]):
        warm = ours(run(program, *flags, *more))
        assert warm["first_run_us"] not in warm["iterations_us"] and len(warm["iterations_us"]) == 3


ERRORS = {
    "no_such.ptl --use_bundled_input=0": "cannot read",
    "torn.ptl --use_bundled_input=0": "is no model of the lite interpreter: PytorchStreamReader failed",
    "plain.pt --use_bundled_input=0": "is no model of the lite interpreter: PytorchStreamReader failed",
    "bare.ptl --use_bundled_input=0": "the model has no bundled inputs",
    "affine.ptl --use_bundled_input=2": "--use_bundled_input 2: the model has 2, from 0",
    "affine.ptl --use_bundled_input=-2": "--use_bundled_input: '-2' must be a whole number of at least -1",
    "affine.ptl": "no inputs: give --use_bundled_input 0, or --input_dims and --input_type",
    "affine.ptl --input_dims=2,3": "--input_type: '' must be float, uint8_t or int64",
    "affine.ptl --input_dims=2,3 --input_type=half": "--input_type: 'half' must be float",
    "affine.ptl --input_dims=2,3;2,1 --input_type=float": "--input_dims has 2 input(s), --input_type 1",
    "affine.ptl --input_dims=2,x --input_type=float": "--input_dims: 'x' must be a whole number of at least 1",
    "affine.ptl --input_dims=2,0 --input_type=float": "--input_dims: '0' must be a whole number of at least 1",
    "affine.ptl --input_dims=2,3 --input_type=float": "the model takes 2 input(s), it was given 1",
    "affine.ptl --input_dims=2,4;2,1 --input_type=float;float": "shapes cannot be multiplied",
    "affine.ptl --use_bundled_input=0 --iter=0": "--iter: '0' must be a whole number of at least 1",
    "affine.ptl --use_bundled_input=0 --warmup=-1": "--warmup: '-1' must be",
    "affine.ptl --use_bundled_input=0 --iter=3x": "--iter: '3x' must be",
    "affine.ptl --use_bundled_input=0 --iters=3": "unknown flag --iters=3",
    "affine.ptl --use_bundled_input=0 iter=3": "unknown flag iter=3",
    "affine.ptl --use_bundled_input=0 --iter": "--iter needs a value",
    "affine.ptl --use_bundled_input=0 --report_pep=maybe": "--report_pep is maybe; it must be true or false",
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors_are_one_line_and_a_status(program, models, words):
    name, *flags = words.split()
    assert ERRORS[words] in run(program, f"--model={models / name}", *flags, status=1)


def test_without_a_model_it_says_so(program):
    assert run(program, status=1) == "lite_benchmark: --model is missing; --help lists the flags"
    assert {"--model", "--iter", "--warmup", "--pthreadpool_size"} <= set(
        run(program, "--help").split()
    )


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread anyway")
def test_one_thread_is_one_thread(program, key_frame):
    """--pthreadpool_size holds for XNNPACK's pool and for OpenMP's: no other thread ever lives."""
    most = {}
    for threads in ("1", "2"):
        flags = [
            f"--model={key_frame[0]}",
            "--use_bundled_input=0",
            "--iter=100000",
            f"--pthreadpool_size={threads}",
        ]
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


def check_figures(found: dict, iterations: int, memory: bool = True) -> None:
    """Every number of a result is what its log says."""
    ms, exact = found["ms"], ours(found["log"])
    assert set(found) == KEYS and found["threads"] == 1
    assert len(ms) == found["iterations"] == iterations == found["log"].count("PyTorchObserver")
    assert ms == pytest.approx([us / 1e3 for us in exact["iterations_us"]])
    assert found["median_ms"] == median(ms) and found["min_ms"] == min(ms)
    assert found["p95_ms"] == pytest.approx(np.percentile(ms, 95))
    assert found["spread"] == pytest.approx(found["p95_ms"] / found["median_ms"])
    assert (
        found["first_run_ms"] == pytest.approx(exact["first_run_us"] / 1e3)
        and found["first_run_ms"] > 0
    )
    assert found["load_ms"] == pytest.approx(exact["load_us"] / 1e3) and found["load_ms"] > 0
    assert found["peak_mb"] == pytest.approx(exact["peak_bytes"] / 1e6)
    assert (found["peak_mb"] > 10) == memory
    assert found["cores"] == exact["cores"] > 0


@pytest.mark.parametrize("inputs", [{}, ONES, {**ONES, "input_type": "int64;uint8_t"}])
def test_bench_lite_says_what_the_program_printed(use, models, inputs):
    found = bench_lite(models / "affine.ptl", 3, 20, **inputs)
    check_figures(found, 20)
    assert found["runner"] == "lite_benchmark.cpp"


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """Nothing in the cache, nothing on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    lite._say_once.cache_clear()


def test_without_a_compiler_python_measures_and_prints_the_same(
    program, models, no_compiler, capsys
):
    """The same log but for the numbers, and a message, once."""
    log = run(program, f"--model={models / 'affine.ptl'}", "--use_bundled_input=0", "--warmup=1",
              "--iter=4", "--report_pep=true", "--pthreadpool_size=1")  # fmt: skip
    threads, found = torch.get_num_threads(), bench_lite(models / "affine.ptl", 1, 4)
    check_figures(found, 4, memory=False)
    assert found["runner"] == "python" and torch.get_num_threads() == threads
    shapes = [
        [
            re.sub(r"[\d.]+(e[+-]?\d+)?", "#", line.partition('"iterations_us"')[0])
            for line in text.splitlines()
        ]
        for text in (log, found["log"])
    ]
    assert shapes[0] == shapes[1]
    assert bench_lite(models / "affine.ptl", 0, 1)["first_run_ms"] > 0
    printed = capsys.readouterr().out
    assert "is on PATH; Debian: " in printed
    assert printed.count("Measured with Python's lite loader instead.") == 1


def test_without_a_compiler_bad_models_are_value_errors_and_ones_an_import_error(
    models, no_compiler
):
    for name, message in {
        "torn.ptl": "torn.ptl is no model of the lite interpreter: PytorchStreamReader failed",
        "plain.pt": "plain.pt is no model of the lite interpreter: PytorchStreamReader failed",
        "bare.ptl": r"the model has no bundled inputs \(.*bare.ptl\); export it with them",
    }.items():
        with pytest.raises(ValueError, match=f"^bench: .*{message}") as caught:
            bench_lite(models / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImportError, match=r"needs a C\+\+ compiler"):
        bench_lite(models / "bare.ptl", **ONES)


def test_memory_is_the_programs_own(use, models, tmp_path):
    """Neither what the caller holds nor what is given back counts, but a model's own peak does."""

    class Greedy(nn.Module):
        def forward(self, x):
            return x.repeat([33554432]).sum()  # 128 MiB for a moment

    torch.jit.script(Greedy())._save_for_lite_interpreter(str(tmp_path / "greedy.ptl"))
    held = torch.ones(100 * 2**20)  # 400 MiB
    small = bench_lite(models / "bare.ptl", 0, 1, **ONES)["peak_mb"]
    large = bench_lite(tmp_path / "greedy.ptl", 0, 1, input_dims="1")["peak_mb"]
    assert small < 300 < held.nbytes / 1e6
    assert 100 < large - small < 200


@pytest.mark.parametrize(
    "name, inputs, message",
    [
        ("torn.ptl", {}, "--model is no model of the lite interpreter: PytorchStreamReader failed"),
        ("bare.ptl", {}, "no bundled inputs"),
        (
            "bare.ptl",
            {**ONES, "input_dims": "2,3"},
            r"the model takes 2 input\(s\), it was given 1",
        ),
        ("bare.ptl", {**ONES, "input_dims": "2,4;1"}, "shapes cannot be multiplied"),
        (
            "bare.ptl",
            {**ONES, "input_type": "float"},
            r"--input_dims has 2 input\(s\), --input_type 1",
        ),
    ],
)
def test_bad_models_and_inputs_are_value_errors(use, models, name, inputs, message):
    with pytest.raises(ValueError, match=f"^bench: .*{message}") as caught:
        bench_lite(models / name, **inputs)
    assert "\n" not in str(caught.value) and str(models / name) in str(caught.value)


def test_a_crash_names_its_signal(models, tmp_path, monkeypatch):
    (tmp_path / "crash").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "crash").chmod(0o755)
    monkeypatch.setattr(lite, "compile_benchmark", lambda: tmp_path / "crash")
    with pytest.raises(
        ValueError,
        match="bench: it was ended by signal 11; do number, shape and type of its inputs fit",
    ):
        bench_lite(models / "affine.ptl")


def test_bad_numbers_are_refused_before_anything_runs(models, monkeypatch):
    monkeypatch.setattr(lite, "compile_benchmark", None)
    for bad in (
        {"warmup": -1},
        {"iterations": 0},
        {"threads": 0},
        {"threads": 1.0},
        {"iterations": True},
    ):
        with pytest.raises(ValueError, match=f"bench: {next(iter(bad))} is "):
            bench_lite(models / "affine.ptl", **bad)
    for name in ("no_such.ptl", ""):
        with pytest.raises(FileNotFoundError, match="no model"):
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
    path = folder / "calls.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


MAKES_A_PROGRAM = ("printf '#!/bin/sh\\necho fake\\n' > \"$2\"", 'chmod +x "$2"')


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path / "bin", *MAKES_A_PROGRAM))
    return partial(compile_benchmark, cache=tmp_path / "a cache"), tmp_path


def test_what_is_in_the_cache_is_not_compiled_again(fake, capsys):
    compile_it, folder = fake
    first = compile_it()
    assert os.access(first, os.X_OK) and "compiling" in capsys.readouterr().out
    assert torch.__version__ in first.name
    assert compile_it() == first and calls(folder / "bin") == 1 and not capsys.readouterr().out
    assert compile_it(force=True) == first and calls(folder / "bin") == 2
    assert os.listdir(first.parent) == [first.name]  # nothing half-made stays


def test_another_source_or_torch_is_another_program(fake, monkeypatch):
    compile_it, folder = fake
    programs = {compile_it()}
    changed = folder / "lite_benchmark.cpp"
    changed.write_bytes(lite.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(lite, "SOURCE", changed)
    programs.add(compile_it())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    programs.add(compile_it())
    monkeypatch.setattr(torch, "__file__", str(folder / "other" / "torch" / "__init__.py"))
    programs.add(compile_it())
    assert len(programs) == calls(folder / "bin") == 4


def test_the_cache_is_where_xdg_says(fake, monkeypatch):
    _, folder = fake
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    assert compile_benchmark().parent == folder / "xdg" / "minst"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert compile_benchmark().parent == folder / "home" / ".cache" / "minst"


def test_a_failed_compilation_leaves_nothing_and_says_why(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    for lines, cause in (
        (
            ["echo 'x.cpp:3:1: error: no such thing' >&2; echo '1 error generated.' >&2; exit 1"],
            "error: no such thing",
        ),
        (["echo nothing to say >&2; exit 1"], "nothing to say"),
        (["exit 3"], "exit status 3"),
        (
            [
                'printf \'#!/bin/sh\\necho cannot find libc10 >&2; exit 127\\n\' > "$2"; chmod +x "$2"'
            ],
            "cannot find libc10",
        ),
    ):
        monkeypatch.setenv("CXX", fake_compiler(tmp_path / "bin", *lines))
        with pytest.raises(
            ImportError,
            match=rf"cannot be compiled: .*{cause}; Debian: apt-get install g\+\+; macOS",
        ) as caught:
            compile_benchmark(cache=cache)
        assert "\n" not in str(caught.value) and os.listdir(cache) == []


def test_without_a_compiler_it_says_what_to_install(no_compiler, monkeypatch):
    message = r"needs a C\+\+ compiler: none of g\+\+, clang\+\+, c\+\+ is on PATH; Debian: .*; macOS: .*; conda: "
    with pytest.raises(ImportError, match=message):
        compile_benchmark()
    monkeypatch.setenv("CXX", "no-such-c++ -v")
    with pytest.raises(ImportError, match=r"\$CXX is 'no-such-c\+\+', which is not on PATH"):
        compile_benchmark()


def test_what_is_cached_needs_no_compiler(program, models, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-c++")
    assert compile_benchmark(cache=program.parent) == program


def test_a_cache_that_cannot_be_written_is_an_os_error_and_python_measures(
    fake, models, monkeypatch, capsys
):
    _, folder = fake
    (folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    with pytest.raises(OSError):
        compile_benchmark()
    lite._say_once.cache_clear()
    assert bench_lite(models / "affine.ptl", 0, 1)["runner"] == "python"
    assert str(folder / "file") in capsys.readouterr().out
