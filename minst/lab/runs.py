"""Runs of the grid: several at a time, each a process of its own.

Interrupted, they go on; done, they are not repeated.

    <folder>/lab.json               budget and grid; a folder holds one of each only
             data/{train,slow,medium,fast}/      clips in YouTube-VIS form, the same for every run
             backbones/<name>/backbone.safetensors, log.jsonl      what the runs start from
             <variant>-<seed>/train.json, log.jsonl      the training, as `minst train` writes it
                              metrics.json       written last: its presence says that it is done
                              checkpoint.pt, weights/, job.log
             shipped/<name>.json     measurements of shipped weights, which are not trained here

Seeds are the outer loop: when half of the grid is done, every variant has been run with half of the
seeds.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from minst.data.files import read_json, replacing
from minst.data.shapes import write_shapes_dataset
from minst.lab.grid import FULL, PRETRAINED, SHIPPED, SPEEDS, VARIANTS, Budget, Variant, backbone_of

__all__ = ["Run", "find_runs", "read_lab", "run_lab"]

METRICS = "metrics.json"
# what PyTorch's allocator gives back and takes again in every step costs a third of the time of small frames
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": 1 << 32,
    "MALLOC_TRIM_THRESHOLD_": 1 << 34,
    "MALLOC_TOP_PAD_": 1 << 28,
}


class Run(NamedTuple):
    """One training and its measurements, in a folder of its own."""

    lab: Path
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.variant}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.lab / self.name

    @property
    def is_done(self) -> bool:
        """Has it been trained and measured?"""
        return (self.folder / METRICS).is_file()


class Job(NamedTuple):
    """A process to be run: a run of the grid, a backbone's pre-training, or shipped weights."""

    arguments: tuple[str, ...]  # of minst.lab.job
    steps: int
    result: Path  # is there when it is done
    needs: Path | None = None  # must be there before it can start

    @property
    def name(self) -> str:
        """As users know it."""
        return "-".join(self.arguments[1:])

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.result.parent

    def steps_done(self) -> int:
        """How far its log says that it is."""
        if self.result.is_file():
            return self.steps
        with contextlib.suppress(OSError, ValueError, IndexError):
            return json.loads((self.folder / "log.jsonl").read_text().splitlines()[-1])["iteration"]
        return 0


def read_lab(folder: str | Path) -> tuple[dict, dict[str, Variant], str]:
    """The budget of a lab, the rows of its grid, which may be an older one, and a note on it or "".

    FileNotFoundError where there is no lab, ValueError where lab.json says too little.
    """
    path = Path(folder) / "lab.json"
    if not path.is_file():
        hint = f"`minst lab run --out {folder}` makes one"
        raise FileNotFoundError(f"{folder} is no lab (lab.json is missing); {hint}")
    held = read_json(path)
    if not isinstance(held, dict) or not {"budget", "grid"} <= set(held):
        raise ValueError(f"{path} lacks a budget or a grid: of an older minst; choose another one")
    grid = {row["name"]: Variant(**row) for row in held["grid"]}
    return held["budget"], grid, held.get("note", "")


def find_runs(folder: str | Path) -> list[Run]:
    """All runs ever started in `folder`, in the order of its grid; raises as `read_lab` does."""
    folder, found = Path(folder), []
    order = list(read_lab(folder)[1])
    for path in folder.glob("*-*/train.json"):
        variant, _, seed = path.parent.name.rpartition("-")
        if variant in order and seed.isdecimal():
            found.append(Run(folder, variant, int(seed)))
    return sorted(found, key=lambda run: (order.index(run.variant), run.seed))


def run_lab(
    names: Sequence[str] = (),
    seeds: int = 3,
    folder: str | Path = "runs/lab",
    budget: Budget = FULL,
    jobs: int | None = None,
    device: str = "auto",
) -> list[Run]:
    """Train and measure the variants `names` (none: all) with the seeds 0 .. seeds - 1.

    names: of `VARIANTS`, and of `SHIPPED` weights, which are measured alone. jobs: runs at a time;
    None: two on a CPU, with one thread each, eight on an accelerator. What is done is skipped, so
    that the same call goes on after an interruption. Returns the runs. Raises ValueError for
    unknown names or a folder with another budget; RuntimeError, after all else is done, says which
    runs have failed and where their log is.
    """
    known = [*VARIANTS, *SHIPPED]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"lab: no run {', '.join(unknown)}; there are: {', '.join(known)}")
    if seeds < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"lab: {seeds} seeds, {jobs} jobs; both must be at least 1")
    device = _device(device)
    folder = Path(folder)
    chosen = [name for name in known if not names or name in names]
    runs = [Run(folder, name, seed) for seed in range(seeds) for name in chosen if name in VARIANTS]
    with _alone(folder):
        _claim(folder, budget)
        todo = _jobs(folder, chosen, runs, budget)
        if todo:
            _write_clips(folder / "data", budget)
            _work(todo, folder, jobs or (2 if device == "cpu" else 8), device)
    return runs


def _jobs(folder: Path, chosen: Sequence[str], runs: Sequence[Run], budget: Budget) -> list[Job]:
    """What it takes to have all of them done: backbones first, then `runs`, shipped weights last."""
    trained, steps = [], budget.iterations  # measuring shipped weights takes about as long as a run
    for run in runs:
        if not run.is_done:
            weights = folder / PRETRAINED.format(backbone_of(run.variant))
            arguments = ("run", run.variant, str(run.seed))
            trained.append(Job(arguments, steps, run.folder / METRICS, needs=weights))
    backbones = [
        Job(("pretrain", weights.parent.name), budget.pretraining, weights)
        for weights in dict.fromkeys(job.needs for job in trained)
    ]
    shipped = [
        Job(("shipped", name), steps, folder / "shipped" / f"{name}.json")
        for name in chosen
        if name in SHIPPED
    ]
    jobs = [*backbones, *trained, *shipped]
    return [job for job in jobs if not job.result.is_file()]


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("lab: --device cuda, but PyTorch sees no GPU here; choose cpu")
    return device


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two labs in one folder would write into each other's runs."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / "lab.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another `minst lab run` is at work here") from None
        yield


def _claim(folder: Path, budget: Budget) -> None:
    """Write lab.json, or see that it holds this budget and this grid."""
    grid = [asdict(row) for row in VARIANTS.values()]
    path = folder / "lab.json"
    if not path.is_file():
        ours = {"version": 1, "budget": budget.to_dict(), "grid": grid}
        with replacing(path) as beside:
            beside.write_text(json.dumps(ours, indent=1) + "\n")
    held, held_grid, _ = read_lab(folder)
    wrong = "" if held_grid == VARIANTS else "grid"
    if held != budget.to_dict():
        wrong = f"budget ({held.get('name')}), not of {budget.name!r}"
    if wrong:
        raise ValueError(f"{folder} holds runs of another {wrong}; choose another --out")


def _write_clips(folder: Path, budget: Budget) -> None:
    """Training clips and those of each speed; a set is renamed, and so complete, when it is done."""
    shipped = budget.shipped_clips()
    wanted = {
        "train": ("train", budget.clips(), budget.train_clips),
        "shipped/train": ("train", shipped, budget.val_clips),
        "shipped/medium": ("val", shipped, budget.val_clips),
    }
    for name, speed in SPEEDS.items():
        wanted[name] = ("val", budget.clips(speed), budget.val_clips)
    for name, (split, config, count) in wanted.items():
        if not (folder / name).is_dir():
            beside = folder / f"{name}.part"
            if beside.is_dir():
                shutil.rmtree(beside)  # of a run that was killed meanwhile
            write_shapes_dataset(beside, count, config, 0, split)
            beside.rename(folder / name)


def _work(todo: Sequence[Job], lab: Path, jobs: int, device: str) -> None:
    """Keep `jobs` processes busy until all have ended; on the way out none is left behind."""
    waiting, working, failed = list(todo), {}, []
    progress = _Progress(todo)
    try:
        while True:
            ready = [job for job in waiting if job.needs is None or job.needs.is_file()]
            for job in ready[: jobs - len(working)]:
                waiting.remove(job)
                working[job] = _start(job, lab, device)
            if not working:
                break
            progress.show(working)
            time.sleep(0.5)
            for job in [job for job, process in working.items() if process.poll() is not None]:
                if working.pop(job).returncode or not job.result.is_file():
                    failed.append(job)
                progress.ended(job, job in failed)
    finally:
        progress.bar.close()
        for process in working.values():
            process.terminate()
        for process in working.values():
            process.wait()
    if failed:
        logs = "; ".join(f"{job.name}: {job.folder / 'job.log'}" for job in failed)
        said = f"lab: {len(failed)} of {len(todo)} have failed ({logs}); "
        if waiting:
            said += f"{len(waiting)} runs have not begun for want of their backbone; "
        raise RuntimeError(said + "the others are done")


def _start(job: Job, lab: Path, device: str) -> subprocess.Popen:
    job.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "minst.lab.job", device, *job.arguments]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # several jobs share the machine
    malloc = {name: str(value) for name, value in MALLOC.items() if name not in os.environ}
    package = str(Path(__file__).resolve().parents[2])  # of this minst, wherever the process starts
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **malloc, **threads, "PYTHONPATH": path}
    with open(job.folder / "job.log", "a") as log:
        return subprocess.Popen(command, cwd=lab, stdout=log, stderr=log, env=environment)


class _Progress:
    """A bar over the steps of all jobs, in a terminal, and a line for every job that has ended."""

    def __init__(self, todo: Sequence[Job]):
        self.todo, self.started, self.done = list(todo), {}, 0
        total = sum(job.steps for job in todo)
        self.bar = tqdm(total=total, desc="lab", unit="step", disable=None, file=sys.stderr)

    def show(self, working: Iterable[Job]) -> None:
        for job in working:
            self.started.setdefault(job, time.monotonic())
        self.bar.n = sum(job.steps_done() for job in self.todo)
        self.bar.set_postfix_str(", ".join(job.name for job in working))

    def ended(self, job: Job, has_failed: bool) -> None:
        self.done += not has_failed
        what = "FAILED after" if has_failed else "done in"
        seconds = tqdm.format_interval(time.monotonic() - self.started[job])
        line = f"{job.name:<24} {what} {seconds}   {self.done} of {len(self.todo)}"
        tqdm.write(line, file=sys.stderr)
