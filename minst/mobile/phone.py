"""A program on one big core of a phone: the exact adb commands, printed or run (paper: latency).

    adb push runner, model
    -> record                cores, governor, thermal zones
    -> [taskset MASK ./runner --... -> cool down -> pull log] x rounds
    -> record -> rm          parse_log -> median, p95, spread

What follows `adb shell` is read by the phone's own shell, so it is one string, quoted for it.

Assumption: the big core is the one with the highest cpuinfo_max_freq, of equals the last. Nothing
    on the phone is set: no root, so the governor and the temperature are recorded, not fixed.
Deviation: `executor_runner` knows no bundled inputs and feeds ones; the time of a dense network
    does not depend on it.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import contextlib
import errno
import re
import shlex
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from minst.mobile import timing
from minst.mobile.logs import RUNNER, SPEED, parse_log, report_log
from minst.options import Count, Range, Report, check_call

__all__ = ["bench_phone", "phone_commands"]

REMOTE = "/data/local/tmp/minst"  # where adb may write and start programs without root
TIMEOUT_S = 600  # for each command
BUILD = "notebooks/PHONE.md has its steps, versions, disk and time; `minst lessons` copies it"
RECORD = (
    "for p in ro.product.manufacturer ro.product.model ro.soc.model ro.board.platform "
    'ro.build.version.release; do echo "$p=$(getprop $p)"; done; '
    "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq "
    "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor "
    "/sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp; "
    'do echo "$f=$(cat "$f" 2>/dev/null)"; done'
)


# benchmarker -> the ending of its models; the line that the phone reads, to be formatted: program
# and model (quoted), mask, warmup, iterations, both (their sum), log
RUNNERS = {
    SPEED: (
        ".ptl",
        "taskset {mask} {program} --model={model} --use_bundled_input=0 --warmup={warmup} "
        "--iter={iterations} --report_pep=true --pthreadpool_size=1 > {log} 2>&1",
    ),
    RUNNER: (
        ".pte",
        # it has no warm-up: once with `warmup` executions, once with so many more (see `logs`);
        # what its own process wrote to logcat is appended: PHONE.md has it write to stderr instead
        "rm -f {log}; for n in {warmup} {both}; do "
        "taskset {mask} {program} --model_path={model} --num_executions=$n --cpu_threads=1 "
        ">> {log} 2>&1 & pid=$!; wait $pid; status=$?; sleep 1; "
        "logcat -d --pid=$pid -s ExecuTorch:I >> {log} 2>/dev/null; "
        "[ $status = 0 ] || exit $status; done",
    ),
}


class PhoneCommand(NamedTuple):
    """One command to run here, and why."""

    argv: tuple[str, ...]
    why: str
    step: str  # "push" | "record" | "run" | "pull" | "cool" | "clean"


def phone_commands(
    model: str | Path,
    runner: Literal["speed_benchmark_torch", "executor_runner"],
    binary: str | Path,
    serial: str | None = None,
    core: Annotated[int, Range(0, 255)] | None = None,  # as many as a mask is read for
    warmup: Count = 5,
    iterations: Count = 50,
    rounds: Annotated[int, Range(1, 1000)] = 3,
    cooldown_s: Annotated[int, Range(0, 86400)] = 30,  # a day
    logs: str | Path = ".",
) -> list[PhoneCommand]:
    """Every command of a measurement, in order.

    Args:
        runner: "speed_benchmark_torch" (.ptl with bundled inputs) or "executor_runner" (.pte).
        binary: its file, built for the phone.
        serial: which phone; without it adb takes $ANDROID_SERIAL, or the only one.
        core: without it MASK stands in its place.
        logs: folder here that receives round-1.log, ...
    Raises ValueError for numbers out of range, or a runner that cannot load such a model.
    """
    check_call(phone_commands, locals(), "phone")
    model, binary = Path(model), Path(binary)
    ending, line = RUNNERS[runner]
    if model.suffix != ending:
        what = f"{runner} loads {ending}, not {model.name!r}; `minst export` writes both kinds"
        raise ValueError(f"phone: {what}")
    if model.name == binary.name:
        what = f"model and benchmarker are both called {model.name!r}; rename one of them"
        raise ValueError(f"phone: {what}")
    commands, chosen = [], ("-s", serial) if serial else ()

    def adb(why: str, step: str, *arguments: str) -> None:
        commands.append(PhoneCommand(("adb", *chosen, *arguments), why, step))

    there = [f"{REMOTE}/{path.name}" for path in (binary, model)]
    adb("a folder that needs no root", "push", "shell", f"mkdir -p {REMOTE}")
    adb("the benchmarker", "push", "push", _here(binary), there[0])
    adb("the model", "push", "push", _here(model), there[1])
    adb("make it a program", "push", "shell", f"chmod 755 {shlex.quote(there[0])}")
    adb("which phone, which cores, governor, how warm", "record", "shell", RECORD)
    fields = {
        "program": shlex.quote(f"./{binary.name}"),
        "model": shlex.quote(model.name),
        "mask": "MASK" if core is None else f"{1 << core:x}",
        "warmup": warmup,
        "iterations": iterations,
        "both": warmup + iterations,
    }
    for i in range(1, rounds + 1):
        if i > 1 and cooldown_s:
            commands.append(PhoneCommand(("sleep", str(cooldown_s)), "cool down", "cool"))
        log = f"round-{i}.log"
        there.append(f"{REMOTE}/{log}")
        on_phone = f"cd {REMOTE} || exit 1; {line.format(**fields, log=log)}"
        adb(f"round {i} of {rounds}: one thread on one core", "run", "shell", on_phone)
        adb("its log", "pull", "pull", there[-1], _here(Path(logs) / log))
    adb("how warm it is now", "record", "shell", RECORD)
    clean = f"rm -f {' '.join(map(shlex.quote, there))}; rmdir {REMOTE} 2>/dev/null; true"
    adb("leave nothing behind", "clean", "shell", clean)
    return commands


def bench_phone(
    model: str | Path,
    runner: str | None = None,
    binary: str | Path | None = None,
    serial: str | None = None,
    core: int | None = None,
    dry_run: bool = False,
    json_path: Report | None = None,
    logs: str | Path | None = None,
    warmup: int = 5,
    iterations: int = 50,
    rounds: int = 3,
    cooldown_s: int = 30,
) -> dict:
    """Measure `model` on the phone that adb sees, or print the commands.

    Args:
        runner: by default what the model's ending asks for; binary: its file.
        core: by default the fastest.
        dry_run: print the commands, which needs neither adb, phone, nor benchmarker.
        logs: a folder that keeps the logs. The others are those of `phone_commands`.
    Returns, prints and writes to `json_path` what `parse_log` says, its "runs" being the rounds,
    and "model", "runner", "serial", "core", "device", "after" (records), "settings"; a dry run
    returns {"commands": [one line each]}.
    Raises ValueError for wrong arguments and for a log without a result, OSError for files, adb and
    the phone.
    """
    check_call(bench_phone, locals(), "phone")
    runner = runner or (RUNNER if Path(model).suffix == ".pte" else SPEED)
    settings = {"warmup": warmup, "iterations": iterations}
    settings |= {"rounds": rounds, "cooldown_s": cooldown_s}
    prepare = partial(phone_commands, model, runner, binary or runner, **settings)
    commands = prepare(serial, core, logs=logs or ".")
    built = binary is not None and Path(binary).is_file()
    if not Path(model).is_file():
        what = "no such model; `minst export` writes one"
        raise FileNotFoundError(errno.ENOENT, what, str(model))
    if dry_run:
        return _print_commands(commands, None if built else runner)
    if not built:
        what = f"{binary or runner} is not there (--binary FILE)"
        raise OSError(f"phone: {what}; to build it: {BUILD}")
    with tempfile.TemporaryDirectory() as folder:
        if logs:
            Path(logs).mkdir(parents=True, exist_ok=True)
        record = next(command for command in commands if command.step == "record")
        device = _parse_record(_adb(record.argv))
        core = _big_core(device) if core is None else core
        texts, after = _measure(prepare(serial, core, logs=logs or folder), warmup)
    result = {"model": str(model), "runner": runner, "serial": serial, "core": core}
    result |= {"device": device, "after": after, "settings": settings}
    result |= parse_log("\n".join(texts), warmup)
    print(_report(result))
    timing.write_json(result, json_path)
    return result


def _print_commands(commands: list[PhoneCommand], to_build: str | None) -> dict:
    lines = [shlex.join(command.argv) for command in commands]
    if to_build:
        print(f"# {to_build} is to be built for the phone: {BUILD}")
    if any("taskset MASK" in line for line in lines):
        fastest = "the core whose cpuinfo_max_freq is highest (core 7: 80)"
        print(f"# MASK: 1 << core, hexadecimal, of {fastest}")
    for line, command in zip(lines, commands, strict=True):
        print(f"# {command.why}\n{line}")
    return {"commands": lines}


def _here(path: Path) -> str:
    """A path that no program takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _adb(argv: tuple[str, ...], timeout_s: float | None = None) -> str:
    """Run adb; what it printed. OSError where it fails."""
    said, failure = _try(argv, timeout_s or TIMEOUT_S)
    if failure:
        raise OSError(f"phone: {failure}")
    return said


def _try(argv: tuple[str, ...], timeout_s: float) -> tuple[str, str]:
    """Run adb: what it printed, and how it failed, or "". OSError without adb or an end."""
    captured = {"capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(argv, check=False, timeout=timeout_s, **captured)
    except FileNotFoundError:
        raise FileNotFoundError(
            "adb is not on PATH: install Android's platform-tools (`apt install adb`, "
            "`brew install android-platform-tools`), or see the commands with --dry-run"
        ) from None
    except subprocess.TimeoutExpired:
        said = shlex.join(argv)[:120]
        raise TimeoutError(f"phone: no end after {timeout_s:g} s: {said}") from None
    if not done.returncode:
        return done.stdout, ""
    said = (done.stderr.strip() or done.stdout.strip() or "nothing was said").splitlines()[-1]
    helps = {"space": "make room on the phone", "no devices": "switch on its USB debugging"}
    helps |= {"more than one": "say which with --serial; `adb devices` lists them"}
    more = "".join(f"; {help}" for word, help in helps.items() if word in said.lower())
    verb = argv[3 if argv[1] == "-s" else 1]
    return done.stdout, f"`adb {verb}` failed ({done.returncode}): {said}{more}"


def _measure(commands: list[PhoneCommand], warmup: int) -> tuple[list[str], dict]:
    """Run the commands: the text of every log, and the last record.

    Whatever happens, the phone is left clean.
    """
    texts, failure, record = [], "", {}
    try:
        for argv, _, step in commands[:-1]:
            if step == "cool":
                time.sleep(int(argv[1]))
            elif step == "run":
                # why a runner fails, stands in its log, which is pulled next
                failure = _try(argv, TIMEOUT_S)[1]
            elif step == "record":
                record = _parse_record(_adb(argv))
            else:
                _adb(argv)
            if step == "pull":
                texts.append(Path(argv[-1]).read_text(errors="replace"))
                _check_log(texts[-1], warmup, len(texts), failure)
    finally:
        # why nothing can be removed has been raised already, or does not spoil the figures
        with contextlib.suppress(OSError):
            _adb(commands[-1].argv, min(TIMEOUT_S, 30))
    return texts, record


def _check_log(text: str, warmup: int, number: int, failure: str) -> None:
    why = failure and "what its log holds up to there is not counted"
    try:
        parse_log(text, warmup)
    except ValueError as error:
        why = str(error).removeprefix("log: ")
    if why:
        after = f" ({failure})" if failure else ""
        raise ValueError(f"phone: round {number}{after}: {why}")


def _parse_record(text: str) -> dict:
    """What `RECORD` printed.

    {"product.model", ..., "cores": {number: {"max_mhz", "governor"}}, "celsius": {zone: degrees}}
    """
    record = dict(re.findall(r"^ro\.(\S+)=(.*?)\s*$", text, re.MULTILINE))
    cores, celsius = {}, {}
    for core, khz in re.findall(r"/cpu(\d+)/cpufreq/cpuinfo_max_freq=(\d+)", text):
        cores.setdefault(core, {})["max_mhz"] = int(khz) // 1000
    for core, governor in re.findall(r"/cpu(\d+)/cpufreq/scaling_governor=(\S+)", text):
        cores.setdefault(core, {})["governor"] = governor
    kinds = dict(re.findall(r"/(thermal_zone\d+)/type=(.*\S)", text))
    for zone, thousandths in re.findall(r"/(thermal_zone\d+)/temp=(\d{4,6})\b", text):
        if 1000 < int(thousandths) < 150_000:
            celsius[kinds.get(zone, zone)] = int(thousandths) / 1000
    return {**record, "cores": cores, "celsius": celsius}


def _big_core(device: dict) -> int:
    """Of the fastest cores the last."""
    cores = device["cores"].items()
    speeds = [(about["max_mhz"], int(core)) for core, about in cores if "max_mhz" in about]
    if not speeds:
        what = "it does not tell how fast its cores are; choose one with --core, often 7"
        raise ValueError(f"phone: {what}")
    return max(speeds)[1]


def _report(result: dict) -> str:
    device = result["device"]
    core = device["cores"].get(str(result["core"]), {})
    names = ("product.manufacturer", "product.model", "board.platform")
    name = " ".join(filter(None, map(device.get, names))) or "a phone without a name"
    warmest = [max(result[when]["celsius"].values(), default=0) for when in ("device", "after")]
    return (
        f"{name}, core {result['core']} up to {core.get('max_mhz', '?')} MHz, "
        f"governor {core.get('governor', '?')}, one thread\n"
        f"warmest zone: {warmest[0]:.0f} C before, {warmest[1]:.0f} C after\n{report_log(result)}"
    )
