"""What all benchmarks share: turns, medians, tables, what is said beside a time.

    jobs A B C  --turns-->  A B C | B C A | C A B | ...   --summarize-->  median and 95th percentile

Whatever is compared is measured in turns within one run, and the order turns from round to
round: a machine that is busy slows all alike, and nobody always follows the same neighbour.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

__all__ = ["allocator", "mean_frame", "median_interval", "milliseconds", "said", "summarize",
           "table", "turns"]  # fmt: skip

Job = TypeVar("Job")
FEWEST = 6  # rounds: of fewer, not even the smallest and the largest hold the median at 95 %


def turns(jobs: Sequence[Job], rounds: int) -> Iterator[Job]:
    """Every job once a round; who begins moves on by one from round to round."""
    for i in range(rounds):
        first = i % len(jobs)
        yield from jobs[first:]
        yield from jobs[:first]


def milliseconds(job: Callable, *arguments) -> float:
    """How long one call takes, by wall time."""
    start = time.perf_counter()
    job(*arguments)
    return 1e3 * (time.perf_counter() - start)


def summarize(ms: Sequence[float]) -> dict[str, float]:
    """{"median_ms", "p95_ms"}; the percentile lies between its neighbours as numpy's."""
    return {"median_ms": median(ms), "p95_ms": float(np.percentile(ms, 95))}


def median_interval(values: Sequence[float]) -> dict[str, float | None]:
    """{"median", "low", "high"}: with 95 % the median of the noise lies from low to high.

    These are the k-th smallest and the k-th largest of n values. How many lie below the median is
    as n throws of a coin: k is the largest number with P(fewer than k heads) <= 2.5 %. Of fewer
    than `FEWEST` values low and high are None.
    """
    from scipy.stats import binom

    ordered, k = sorted(values), int(binom.ppf(0.025, len(values), 0.5))
    low, high = (ordered[k - 1], ordered[-k]) if k else (None, None)
    return {"median": median(ordered), "low": low, "high": high}


def said(share: dict[str, float | None]) -> str:
    """ "12 % (10 to 13 %)", or that an interval wider than its median measures nothing."""
    low, high = share["low"], share["high"]
    if low is None or high - low >= share["median"]:
        return "cannot be measured here"
    return f"{share['median']:.0%} ({low:.0%} to {high:.0%})"


def mean_frame(key: float, other: float, interval: int) -> float:
    """Milliseconds of a frame at reuse interval T, from the medians of key frames and of others.

    The median of all frames would be that of a frame between key frames, and a plain mean would
    also count the machine's hiccups.
    """
    return (key + (interval - 1) * other) / interval


@contextlib.contextmanager
def fixed_setting(threads: int) -> Iterator[None]:
    """So many threads of torch and fixed random numbers; both as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(before)


def allocator() -> str:
    """The malloc in force: glibc's default gives big blocks back, and pays in page faults."""
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in os.environ.get("LD_PRELOAD", ""):
            return name
    if platform.libc_ver()[0] != "glibc":
        return f"that of {platform.system()}"
    settings = os.environ.items()
    tuned = [f"{k}={v}" for k, v in settings if k.startswith("MALLOC_") or "glibc.malloc" in v]
    usual = "default (try MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_MMAP_THRESHOLD_=4294967296)"
    return f"glibc, tuned: {', '.join(tuned)}" if tuned else f"glibc, {usual}"


def page_faults() -> int:
    """How often this process has been given a page of memory so far; 0 where nobody counts."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def table(
    corner: str, columns: dict[str, tuple[str, str]], rows: Iterable[tuple[str, dict]]
) -> str:
    """Rows (name, {key: value}) as lines of text, with a line of headings.

    columns: heading -> (key of a row, format such as ".2f"). What a row lacks, or is None, is "-".
    """
    lines = [[corner, *columns]]
    for name, row in rows:
        values = [(row.get(key), form) for key, form in columns.values()]
        lines.append([name, *("-" if x is None else format(x, form) for x, form in values)])
    left, *widths = (max(map(len, column)) for column in zip(*lines))
    line = f"{{:{left}}}" + "".join(f"  {{:>{width}}}" for width in widths)
    return "\n".join(line.format(*cells) for cells in lines)


def write_json(result: dict, path: str | Path | None) -> None:
    """Write the result to the file, if one is given, and say so."""
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {path}")
