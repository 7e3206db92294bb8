"""Logs of the phone benchmarkers: what their lines say, and what they do not (paper: Tab 1).

    speed_benchmark_torch      its end alone: a mean, no median; on iOS in milliseconds
      --report_pep=true        and one line a run of the network: median, p95, spread
    executor_runner            (ExecuTorch) the sum of all executions; newer ones one line each, too

`executor_runner` has no warm-up of its own: its first execution, which unpacks weights, is in the
sum. Where each execution has its line, the first ones are left out. Where only the sum is told, run
it twice, with w and with w + n executions: (second sum - first sum) / n is the mean of n warm ones.
A log with neither is marked.

Assumption: nothing is derived that a format does not tell; a mean alone has no median, so it is
    None.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import re
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from minst.mobile import timing
from minst.options import Natural, check_call

__all__ = ["parse_log", "report_log"]

SPEED, RUNNER = "speed_benchmark_torch", "executor_runner"
TIME = r"(?P<time>[-+.\w]+?)"  # C++ also prints 1.02e+06, inf and nan
PER_MS = {"Micro": 1000, "us": 1000, "Milli": 1, "ms": 1, None: 1}
# what a line means: (program, event) -> pattern
LINES = {
    (SPEED, "start"): r"Starting benchmark\.",
    (SPEED, "main"): r"Main runs\.?$",
    (SPEED, "time"): r'PyTorchObserver\s*{.*"unit": "(?P<unit>us|ms)".*"metric": "latency"'
    rf'.*"value": "{TIME}"\s*}}',
    (SPEED, "end"): r"Main run finished\. (?P<unit>Micro|Milli)seconds per iter: "
    rf"{TIME}\. Iters per second",
    (RUNNER, "start"): r"Model file .* is loaded\.",
    (RUNNER, "time"): rf"Iteration \d+ of \d+: {TIME} ms$",
    (RUNNER, "end"): rf"Model executed successfully (?P<count>\d+) time\(s\) in {TIME} ms\.",
}
# iOS begins a line before "Iters"
IOS = re.compile(r"(Milliseconds per iter: [-+.\w]+?)\.?\s*\n.*(Iters per second)")
# a line with these that is none of the above
CUT = r"PyTorchObserver|seconds per iter|executed successfully \d+ time"
CRASH = (
    r"segmentation fault|CANNOT LINK|permission denied|aborted|illegal instruction|bus error|killed"
    r"|fatal signal|terminating|uncaught exception|not executable|exec format error"
    r"|inaccessible or not found|no such file|unknown command line flag|failed to parse"
    r"|enforce fail|does not have bundled inputs|has only \d+ bundled|failed.*0x[0-9a-f]+"
    r"|out of memory"
)


def parse_log(text: str, warmup: Natural = 5) -> dict:
    """Milliseconds of every run of a benchmarker that `text` tells of, and of all together.

    warmup: how many first executions of `executor_runner` are not counted, 5 as in
    `minst bench phone` (`speed_benchmark_torch` has its own --warmup, which its log does not say).
    Returns {"format": "speed_benchmark_torch" | "executor_runner", "runs": [run, ...], and over all
    runs "iterations", "mean_ms", "median_ms", "p95_ms", "spread_ms" (longest - shortest),
    "run_spread_ms" (largest - smallest median of a run, or mean where there is none; None for one
    run), "cold"}. A run has "iterations", "mean_ms", "median_ms", "p95_ms", "spread_ms",
    "times_ms", "first_ms" (where told), "cold" (the mean holds the first, cold execution too).
    None stands for what the log does not tell. Raises ValueError for an empty log, another
    program's, one without times, an interrupted one (the line that says why is quoted).
    """
    check_call(parse_log, locals())
    # adb may end lines with \r\n or \r\r\n
    lines = [line.strip() for line in IOS.sub(r"\1. \2", text).splitlines()]
    if not any(lines):
        what = "the benchmarker wrote nothing, or its output went elsewhere (2>&1)"
        raise ValueError(f"log: it is empty; {what}")
    program, found = _runs(lines)
    if program == SPEED:
        runs = [_run(len(times) or None, mean, times) for _, mean, times in found]
    else:
        runs = _runner_runs(found, warmup)
    times = [ms for run in runs for ms in run["times_ms"]]
    counts = [run["iterations"] for run in runs]
    means = [run["mean_ms"] for run in runs]
    centres = [run["mean_ms"] if run["median_ms"] is None else run["median_ms"] for run in runs]
    known = None not in counts
    return {
        "format": program,
        "runs": runs,
        "iterations": sum(counts) if known else None,
        "mean_ms": float(np.average(means, weights=counts if known else None)),
        **_spread(times if all(run["times_ms"] for run in runs) else []),
        "run_spread_ms": max(centres) - min(centres) if len(runs) > 1 else None,
        "cold": any(run["cold"] for run in runs),
    }


def report_log(parsed: dict) -> str:
    """What `parse_log` returned as a small table; "-" for what the log does not tell."""
    columns = {"iterations": ("iterations", "d")}
    for name in ("median", "p95", "spread", "mean", "first"):
        columns[name] = (f"{name}_ms", ".2f")
    rows = [(f"run {i}", run) for i, run in enumerate(parsed["runs"], 1)]
    rows += [("all", parsed)] if len(rows) > 1 else []
    said = [timing.table(f"{parsed['format']}, ms", columns, rows)]
    if parsed["run_spread_ms"] is not None:
        said.append(f"from run to run: {parsed['run_spread_ms']:.2f} ms")
    if parsed["median_ms"] is None:
        more = "--report_pep=true" if parsed["format"] == SPEED else "a newer executor_runner"
        what = "a mean alone: the log tells no single times, so there is no median"
        said.append(f"{what} ({more} would tell them)")
    if parsed["cold"]:
        what = "run it once more with fewer executions to take it off"
        said.append(f"the first, cold execution is in the mean: {what}")
    return "\n".join(said)


def _runs(lines: list[str]) -> tuple[str, list[tuple[int, float, list[float]]]]:
    """The program, and of each run what its end says (count or 0, ms) and its times in ms."""
    programs, found, times = set(), [], []
    state = None  # the last event of a run that is not over
    for i, line in enumerate(lines):
        if (read := _event(line)) is None:
            continue
        program, event, said = read
        if event == "start" and state:
            _interrupted(lines[:i], state)
        programs.add(program)
        state = event
        if event == "time":
            times.append(_ms(said, line))
        if event == "end":
            found.append((int(said.get("count", 0)), _ms(said, line), times))
            times, state = [], None
    if state or not found:
        _interrupted(lines, state)
    if len(programs) > 1:
        raise ValueError(f"log: two programs wrote it, {SPEED} and {RUNNER}; parse one at a time")
    return programs.pop(), found


def _event(line: str) -> tuple[str, str, dict[str, str]] | None:
    """Program, event, and what the line says by name: "time", "unit", "count"."""
    for (program, event), pattern in LINES.items():
        if match := re.search(pattern, line):
            return program, event, match.groupdict()
    if re.search(CUT, line):
        raise ValueError(f"log: a line is cut or of another version: {line[:120]!r}")
    return None


def _interrupted(lines: list[str], state: str | None) -> None:
    """Say why the run that these lines end with has no result."""
    crash = [line[:200] for line in lines if re.search(CRASH, line, re.IGNORECASE)]
    if crash:  # "Aborted" often follows the line that says why
        raise ValueError(f"log: the benchmarker failed: {' / '.join(crash[-2:])!r}")
    if any("Model executed successfully" in line for line in lines):
        raise ValueError(f"log: this {RUNNER} tells no times; build a newer one (v1.3.1)")
    if state is None:
        begin = next(filter(None, lines))[:80]
        raise ValueError(f"log: neither {SPEED} nor {RUNNER} wrote this; it begins {begin!r}")
    where = "in its warm-up or while loading" if state == "start" else "in its main runs"
    what = f"the benchmarker was interrupted {where}; the line with the result is missing"
    raise ValueError(f"log: {what}")


def _ms(said: dict[str, str], line: str) -> float:
    text = said["time"]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        what = f"{text!r} is no time; were there 0 iterations? the line is {line[:120]!r}"
        raise ValueError(f"log: {what}")
    return value / PER_MS[said.get("unit")]


def _runner_runs(found: list[tuple[int, float, list[float]]], warmup: int) -> list[dict]:
    """Runs of no more than `warmup` executions are warm-ups: left out, but for the next sum."""
    runs, colds, before = [], [], (0, 0.0)
    for count, total, times in found:
        warm, counted = count - warmup, times[warmup:]
        if times and abs(sum(times) - total) > 1e-5 * (count + 1):  # each is printed to a millionth
            what = f"{len(times)} executions have a line, {count} were run in {total} ms"
            raise ValueError(f"log: {what}: lines are lost")
        first = times[0] if times else None
        cold = _run(count, total / count, times, first, cold=True)
        if warm <= 0:
            colds.append(cold)
        elif times:
            runs.append(_run(warm, fmean(counted), counted, first, cold=not warmup))
        elif warmup and before[0] == warmup:
            if total <= before[1]:
                what = f"{count} executions took no longer than {warmup} before"
                raise ValueError(f"log: {what}: a busy device; repeat")
            runs.append(_run(warm, (total - before[1]) / warm))
        else:
            runs.append(cold)
        before = count, total
    return runs or colds


def _run(
    iterations: int | None,
    mean: float,
    times: Sequence[float] = (),
    first: float | None = None,
    cold: bool = False,
) -> dict:
    run = {"iterations": iterations, "mean_ms": mean, **_spread(times)}
    return {**run, "times_ms": list(times), "first_ms": first, "cold": cold}


def _spread(times: Sequence[float]) -> dict:
    if not times:
        return dict.fromkeys(("median_ms", "p95_ms", "spread_ms"))
    return {**timing.summarize(times), "spread_ms": max(times) - min(times)}
