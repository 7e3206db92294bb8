"""minst.mobile.phone with a played phone: a fake `adb` on PATH that copies files and really runs what is sent to `sh`.

The phone is a folder. /data/local/tmp and /sys of a remote string become that folder's; its bin/ has getprop, taskset,
logcat and a sleep that does not sleep. The benchmarkers are scripts that note how they were called and write the log of
the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minst.cli import build_parser
from minst.mobile import phone, serve
from minst.mobile.export import export
from minst.mobile.logs import parse_log
from minst.mobile.phone import bench_phone, phone_commands

ADB = r"""
import json, os, pathlib, shutil, subprocess, sys
root = pathlib.Path(os.environ["PHONE"])
argv = sys.argv[1:]
with open(root / "calls", "a") as calls:
    calls.write(json.dumps(argv) + "\n")
serial, argv = (argv[1], argv[2:]) if argv[0] == "-s" else (None, argv)
verb, *rest = argv
there = lambda text: text.replace("/data/local/tmp", f"{root}/data/local/tmp").replace("/sys/", f"{root}/sys/")
def broken(name):
    if (root / name).exists():
        sys.exit((root / name).read_text())
broken("gone")
if verb == "shell":  # as adb does: what follows is joined by blanks and read by the phone's shell
    environment = {"PATH": f"{root}/bin:/usr/bin:/bin", "PHONE": str(root)}
    done = subprocess.run(["/bin/sh", "-c", there(" ".join(rest))], env=environment, capture_output=True, text=True)
    print(done.stdout.replace(str(root), "").replace("\n", "\r\n"), end="")
    print(done.stderr, end="", file=sys.stderr)
    sys.exit(done.returncode)
broken(f"no-{verb}")
shutil.copyfile(*((rest[0], there(rest[1])) if verb == "push" else (there(rest[0]), rest[1])))
"""
TOOLS = {
    "getprop": 'case $1 in ro.product.model) echo "Fold 9";; ro.board.platform) echo taro;; *) echo;; esac',
    "taskset": 'echo "$1" >> "$PHONE/masks"; shift; exec "$@"',
    "logcat": 'for a in "$@"; do case $a in --pid=*) cat "$PHONE/logcat-${a#--pid=}";; esac; done',
    "sleep": "true",
}
TORCH = r"""
printf '%s\n' "$@" "--" >> "$PHONE/arguments"
for a in "$@"; do case $a in --model=*) [ -s "${a#--model=}" ] || exit 9;; --iter=*) iter=${a#--iter=};; esac; done
round=$(grep -c -- '^--$' "$PHONE/arguments")
echo "Starting benchmark."; echo "Running warmup runs."
[ -e "$PHONE/crash" ] && [ "$round" = 2 ] && kill -SEGV $$
echo "Main runs."
i=0; while [ $i -lt $iter ]; do i=$((i + 1))
echo "PyTorchObserver {\"type\": \"NET\", \"unit\": \"us\", \"metric\": \"latency\", \"value\": \"${round}0${i}000\"}"; done
echo "Main run finished. Microseconds per iter: ${round}02000. Iters per second: 9"
[ -e "$PHONE/bad-end" ] && exit 3
true
"""
RUNNER = r"""
printf '%s\n' "$@" "--" >> "$PHONE/arguments"
for a in "$@"; do case $a in --num_executions=*) n=${a#--num_executions=};; --model_path=*) model=${a#--model_path=};; esac; done
[ -s "$model" ] || { echo "FileDataLoader::from() failed: 0x22" >&2; exit 134; }
said() { if [ -e "$PHONE/posix" ]; then echo "I 00:00:00.1 executorch:executor_runner.cpp:1] $1" >&2
else echo "11-23 14:02:00.417  $$  $$ I ExecuTorch: $1" >> "$PHONE/logcat-$$"; fi; }
said "Model file $model is loaded."
[ -e "$PHONE/crash" ] && [ "$n" = 5 ] && { said "Loading of method forward failed with status 0x20"; exit 134; }
i=0; while [ $i -lt $n ]; do i=$((i + 1)); said "Iteration $i of $n: ${i}0.5 ms"; done
said "Model executed successfully $n time(s) in $((5 * n * (n + 1))).$((5 * n % 10)) ms."
""".replace(
    "$((5 * n * (n + 1))).$((5 * n % 10))", "$((5 * n * (n + 1) + n / 2)).$((n % 2 * 5))"
)  # sum of i0.5


@pytest.fixture
def play(tmp_path, monkeypatch):
    """play(devices="...", torch=script, runner=script) -> the folder that is the phone; adb is on PATH."""

    def play() -> Path:
        root = tmp_path / "phone"
        (root / "data/local/tmp").mkdir(parents=True)
        for core, khz in enumerate([1_800_000] * 4 + [2_400_000, 2_900_000, 2_900_000, 2_400_000]):
            put(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", f"{khz}\n")
            put(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "schedutil\n")
        for zone, (kind, temp) in enumerate(
            [
                ("cpu-0", "41500"),
                ("battery", "33000"),
                ("odd", "-40000"),
                ("raw", "38"),
                ("hot", "200000"),
            ]
        ):
            put(root / f"sys/class/thermal/thermal_zone{zone}/type", f"{kind}\n")
            put(root / f"sys/class/thermal/thermal_zone{zone}/temp", f"{temp}\n")
        for name, script in TOOLS.items():
            program(root / "bin" / name, "/bin/sh", script)
        program(
            tmp_path / "adb" / "adb", f"{sys.executable} -SE", ADB
        )  # without site-packages: it starts ten times a test
        monkeypatch.setenv("PATH", f"{tmp_path / 'adb'}:/usr/bin:/bin")
        monkeypatch.setenv("PHONE", str(root))
        return root

    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(phone, "time", SimpleNamespace(sleep=naps.append))
    naps.clear()
    return play


naps: list[int] = []
AWKWARD = 'it\'s my "best" $HOME; model'


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def program(path, interpreter, script):
    put(path, f"#!{interpreter}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def files(tmp_path, ending=".ptl", name="key", folder="here"):
    runner = "speed_benchmark_torch" if ending == ".ptl" else "executor_runner"
    put(tmp_path / folder / f"{name}{ending}", "weights")
    put(
        tmp_path / folder / runner, "#!/bin/sh\n" + (TORCH if ending == ".ptl" else RUNNER)
    )  # not yet executable
    return {"model": tmp_path / folder / f"{name}{ending}", "binary": tmp_path / folder / runner}


def calls(root):
    return [json.loads(line) for line in (root / "calls").read_text().splitlines()]


def test_three_rounds_on_the_big_core(play, tmp_path, capsys):
    root, given = play(), files(tmp_path)
    result = bench_phone(
        **given, iterations=3, warmup=2, cooldown_s=7, json_path=tmp_path / "out.json"
    )
    assert [run["times_ms"] for run in result["runs"]] == [
        [100 * r + i for i in (1, 2, 3)] for r in (1, 2, 3)
    ]
    assert (
        result["median_ms"] == 202
        and result["run_spread_ms"] == 200
        and result["mean_ms"] == pytest.approx(202)
    )
    assert (
        result["core"] == 6 and (root / "masks").read_text().split() == ["40"] * 3
    )  # 5 and 6 are as fast: the last
    arguments = (root / "arguments").read_text().split("--\n")[0].splitlines()
    assert arguments == ["--model=key.ptl", "--use_bundled_input=0", "--warmup=2", "--iter=3", "--report_pep=true",
                         "--pthreadpool_size=1"]  # fmt: skip
    device = result["device"]
    assert device["product.model"] == "Fold 9" and device["board.platform"] == "taro"
    assert (
        device["cores"]["6"] == {"max_mhz": 2900, "governor": "schedutil"}
        and len(device["cores"]) == 8
    )
    assert device["celsius"] == result["after"]["celsius"] == {"cpu-0": 41.5, "battery": 33.0}
    assert naps == [7, 7] and not list(
        (root / "data/local/tmp").iterdir()
    )  # cooled between rounds, nothing left
    assert all(call[0] in ("shell", "push", "pull") for call in calls(root))
    assert json.loads((tmp_path / "out.json").read_text()) == result
    printed = capsys.readouterr().out
    assert (
        "Fold 9 taro, core 6 up to 2900 MHz, governor schedutil" in printed and "run 3" in printed
    )
    assert "warmest zone: 42 C before" in printed and "from run to run: 200.00 ms" in printed


@pytest.mark.parametrize("platform", ["posix", "logcat"])
def test_executor_runner_is_run_twice_a_round(play, tmp_path, platform):
    root, given = play(), files(tmp_path, ".pte")
    put(root / platform, "")
    put(
        root / "data/local/tmp/minst/round-1.log", "Model file m is loaded.\n"
    )  # left by a run that was pulled out
    result = bench_phone(
        **given, iterations=4, warmup=2, rounds=2, cooldown_s=0, core=3, logs=tmp_path / "logs"
    )
    assert result["runner"] == "executor_runner" and result["format"] == "executor_runner"
    assert [run["times_ms"] for run in result["runs"]] == [
        [30.5, 40.5, 50.5, 60.5]
    ] * 2 and not result["cold"]
    arguments = (root / "arguments").read_text().split()
    assert arguments[:4] == ["--model_path=key.pte", "--num_executions=2", "--cpu_threads=1", "--"]
    assert [a for a in arguments if a.startswith("--num")] == [
        f"--num_executions={n}" for n in (2, 6, 2, 6)
    ]
    assert (root / "masks").read_text().split() == ["8"] * 4 and naps == []
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "round-1.log",
        "round-2.log",
    ]


@pytest.mark.parametrize("ending", [".ptl", ".pte"])
def test_blanks_quotes_and_dollars_reach_the_phone_whole(play, tmp_path, ending):
    root, given = play(), files(tmp_path, ending, AWKWARD, folder="a folder's")
    result = bench_phone(**given, iterations=2, warmup=1, rounds=1)
    assert (root / "arguments").read_text().splitlines()[0].endswith(f"={AWKWARD}{ending}")
    assert len(result["runs"]) == 1 and not list((root / "data/local/tmp").iterdir())


@pytest.mark.parametrize("ending", [".ptl", ".pte"])
def test_printed_commands_can_be_pasted_into_a_shell(play, tmp_path, monkeypatch, capsys, ending):
    root, given = play(), files(tmp_path, ending, AWKWARD, folder="a folder's")
    settings = {
        "iterations": 2,
        "warmup": 1,
        "rounds": 2,
        "cooldown_s": 0,
        "serial": "R5CX",
        "core": 7,
    }
    bench_phone(**given, dry_run=True, **settings)
    assert not (root / "calls").exists()
    script = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    subprocess.run(["/bin/sh", "-e", "-c", script], check=True, capture_output=True)
    pasted = parse_log("".join(Path(f"round-{i}.log").read_text() for i in (1, 2)), warmup=1)
    assert pasted["iterations"] == 4 and not list((root / "data/local/tmp").iterdir())
    assert calls(root) == [
        list(c.argv[1:]) for c in phone_commands(runner=phone_runner(ending), **given, **settings)
    ]


def phone_runner(ending):
    return {".ptl": "speed_benchmark_torch", ".pte": "executor_runner"}[ending]


def test_a_dry_run_needs_the_model_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("key.pte", "key.ptl"):
        Path(name).touch()
    result = bench_phone("key.pte", dry_run=True, rounds=2, cooldown_s=9)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if not line.startswith("#")]
    assert (
        result == {"commands": lines}
        and sum("taskset MASK ./executor_runner" in line for line in lines) == 2
    )
    assert lines[0] == "adb shell 'mkdir -p /data/local/tmp/minst'" and lines.count("sleep 9") == 1
    assert "# MASK: " in printed and "notebooks/PHONE.md" in printed
    bench_phone(
        "key.ptl", binary=files(tmp_path)["binary"], dry_run=True, serial="a", core=10, logs="kept"
    )
    printed = capsys.readouterr().out
    assert (
        "adb -s a push" in printed
        and "MASK" not in printed
        and "taskset 400 " in printed
        and "kept/round-3.log" in printed
        and "git clone" not in printed
    )


def test_a_path_like_an_option_stays_a_path():
    commands = phone_commands("-x.ptl", "speed_benchmark_torch", "-y", "S", 0)
    assert [c.argv[4] for c in commands if "push" in c.argv] == ["./-y", "./-x.ptl"]


@pytest.mark.parametrize(
    ("said", "help"),
    [
        ("error: no devices/emulators found", "switch on its USB debugging"),
        ("adb: more than one device/emulator", "say which with --serial"),
        ("adb: device offline", "device offline"),
        (
            "adb: device unauthorized.\nOtherwise check for a confirmation dialog on your device.",
            "dialog",
        ),
    ],
)
def test_what_adb_says_of_a_phone_that_cannot_be_used_is_one_line(play, tmp_path, said, help):
    root = play()
    put(root / "gone", said)
    with pytest.raises(OSError, match=f"`adb shell` failed .*{said.splitlines()[-1]}.*") as caught:
        bench_phone(**files(tmp_path))
    assert help in str(caught.value) and "\n" not in str(caught.value) and len(calls(root)) == 1


def test_the_phone_that_was_chosen_is_used(play, tmp_path):
    root = play()
    assert bench_phone(**files(tmp_path), serial="B", iterations=1, rounds=1)["serial"] == "B"
    assert {tuple(call[:2]) for call in calls(root)} == {("-s", "B")}


def test_adb_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="adb is not on PATH: install"):
        bench_phone(**files(tmp_path))


@pytest.mark.parametrize(
    ("name", "said", "named"),
    [
        (
            "no-push",
            "adb: error: failed to copy: remote write failed: No space left on device",
            "push.*No space.*make room",
        ),
        ("no-pull", "adb: error: failed to stat remote object", "pull.*failed to stat"),
        ("gone", "error: device 'R5CX' not found", "shell.*not found"),
    ],
)
def test_adb_fails(play, tmp_path, name, said, named):
    root = play()
    put(root / name, said)
    with pytest.raises(OSError, match=named) as caught:
        bench_phone(**files(tmp_path), rounds=1)
    assert "\n" not in str(caught.value)
    if name != "gone":
        assert not list((root / "data/local/tmp").iterdir())  # cleaned up all the same


def test_a_runner_that_crashes_in_the_second_round(play, tmp_path):
    root = play()
    put(root / "crash", "")
    with pytest.raises(
        ValueError,
        match=r"round 2 \(`adb shell` failed \(139\).*(Segmentation fault|interrupted in its warm-up)",
    ):
        bench_phone(**files(tmp_path), iterations=2)
    assert not list((root / "data/local/tmp").iterdir())


@pytest.mark.parametrize("platform", ["posix", "logcat"])
def test_executor_runner_that_fails_while_warming_up(play, tmp_path, platform):
    root = play()
    put(root / "crash", "")
    put(root / platform, "")
    with pytest.raises(
        ValueError, match=r"round 1 \(`adb shell` failed \(134\).*forward failed with status 0x20"
    ):
        bench_phone(**files(tmp_path, ".pte"))
    assert (root / "arguments").read_text().count(
        "--model_path"
    ) == 1  # and is not started a second time


def test_a_runner_that_ends_badly_after_its_result(play, tmp_path):
    put(play() / "bad-end", "")
    with pytest.raises(ValueError, match=r"round 1 \(`adb shell` failed \(3\).*not counted"):
        bench_phone(**files(tmp_path), iterations=2)


def test_a_runner_for_another_processor(play, tmp_path):
    root, given = play(), files(tmp_path)
    given["binary"].write_bytes(b"\x7fELF\x02 for another one")
    with pytest.raises(ValueError, match="round 1 .*(failed|wrote this)"):
        bench_phone(**given, iterations=2)
    assert not list((root / "data/local/tmp").iterdir())


def test_a_phone_that_hangs(play, tmp_path, monkeypatch):
    play()
    monkeypatch.setattr(phone, "TIMEOUT_S", 2)
    given = files(tmp_path)
    put(
        given["binary"],
        '#!/bin/sh\nwhile :; do /bin/sleep 0.1; [ -e "$PHONE/over" ] && exit; done\n',
    )
    with pytest.raises(OSError, match="no end after 2 s"):
        bench_phone(**given)
    put(Path(os.environ["PHONE"]) / "over", "")  # the script ends itself


def test_a_phone_that_hides_its_cores(play, tmp_path):
    root = play()
    for path in (root / "sys/devices/system/cpu").glob("*/cpufreq/*"):
        path.unlink()
    with pytest.raises(ValueError, match="--core"):
        bench_phone(**files(tmp_path))
    result = bench_phone(**files(tmp_path), core=7, iterations=1, rounds=1)
    assert result["core"] == 7 and result["device"]["cores"] == {}


def test_files_that_are_missing(play, tmp_path):
    root, given = play(), files(tmp_path)
    for binary in (None, tmp_path / "nowhere"):
        with pytest.raises(OSError, match=r"--binary.*notebooks/PHONE\.md.*`minst lessons` copies it"):
            bench_phone(given["model"], binary=binary)
    with pytest.raises(FileNotFoundError) as caught:
        bench_phone(tmp_path / "no.ptl", binary=given["binary"])
    assert caught.value.filename == str(tmp_path / "no.ptl") and not (root / "calls").exists()
    with pytest.raises(FileNotFoundError, match="no such model; `minst export` writes one"):
        bench_phone(tmp_path / "no.ptl", dry_run=True)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (
            {"runner": "tflite"},
            "runner is 'tflite'; choose one of speed_benchmark_torch, executor_runner",
        ),
        ({"model": "key.onnx"}, "loads .ptl, not 'key.onnx'"),
        ({"model": "key.pte"}, "loads .ptl, not 'key.pte'"),
        ({"model": "key.ptl", "binary": "a/key.ptl"}, "rename"),
        ({"core": 256}, "core is 256"),
        ({"core": 9999999999}, "core is 9999999999; it must be .* at most 255"),
        ({"core": -1}, "core"),
        ({"core": 1.0}, "core"),
        ({"warmup": 0}, "warmup"),
        ({"iterations": True}, "iterations"),
        ({"rounds": 0}, "rounds"),
        ({"cooldown_s": 1.5}, "cooldown_s"),
    ],
)
def test_wrong_arguments(wrong, named):
    with pytest.raises(ValueError, match=named):
        bench_phone(
            **{"model": "key.ptl", "runner": "speed_benchmark_torch", "dry_run": True, **wrong}
        )


def test_what_is_printed_is_what_is_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"{AWKWARD}.ptl").touch()
    result = bench_phone(f"{AWKWARD}.ptl", dry_run=True)
    argv = [
        list(c.argv)
        for c in phone_commands(f"{AWKWARD}.ptl", "speed_benchmark_torch", "speed_benchmark_torch")
    ]
    assert [shlex.split(line) for line in result["commands"]] == argv


# ----------------------------------------------------------------------------------- the page beside lesson 08

PAGE = Path(__file__).parent.parent / "notebooks" / "PHONE.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_a_recipe_for_each_runner():
    recipes = "\n".join(blocks("bash"))
    for runner in phone.RUNNERS:
        assert f"/{runner}\n" in recipes, f"nothing says where {runner} lies"
    assert "v2.8.0" in recipes and '"cmake>=3.27,<4"' in recipes
    assert f"onnxruntime-web@{serve.ORT_VERSION} " in recipes


def test_commands_of_the_page_are_commands_of_minst():
    lines = re.findall(r"^minst .*?(?= &&|$)", "\n".join(blocks("bash")), re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        build_parser().parse_args(shlex.split(line)[1:])


def test_the_script_for_termux_times_a_program(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (script,) = blocks("python")
    (tmp_path / "time_onnx.py").write_text(script)
    export("shapes-tiny", "onnx", tmp_path, (64, 64))
    for name in ("key.onnx", "reuse.onnx"):
        argv = [sys.executable, "time_onnx.py", name]
        said = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(rf"{name}: median \d+\.\d ms, p95 \d+\.\d ms\n", said)
