"""Runs of the grid: several at a time, each a process of its own.

Interrupted, they go on; done, they are not repeated.

    <folder>/lab.json               budget and grid; a folder holds one of each only
             data/{train,val,frames}-<seed>/      clips, the same for every run of a seed
             backbones/<name>/backbone.safetensors, log.jsonl      what the runs start from
             <variant>-<seed>/train.json, log.jsonl      the training, as `minst train` writes it
                              metrics.json       written last: its presence says that it is done
                              checkpoint.pt, weights/, job.log
             shipped/<name>-<speed>.json     measurements of shipped weights

Seeds are the outer loop: when half of the grid is done, every variant has been run with half of the
seeds. A process holds the lock of the folder too, and ends when the one that has started it ends,
however that was: nobody ever writes into a run that another still writes.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import msgspec
import torch
from tqdm import tqdm

from minst.data.files import replacing
from minst.data.formats import read_typed
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.engine import Engine, keep_memory
from minst.lab import decoders, grid
from minst.lab.grid import FULL, SHIPPED, VARIANTS, Budget, Variant
from minst.lab.measure import measure_run, measure_shipped
from minst.options import Count, Range, check_call
from minst.training import train

__all__ = ["Run", "find_runs", "read_lab", "run_lab"]

METRICS = "metrics.json"
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # several jobs share the machine


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

    arguments: tuple[str, ...]  # of `main`
    result: Path  # is there when it is done
    needs: Path | None = None  # must be there before it can start

    @property
    def name(self) -> str:
        """As users know it."""
        return "-".join(self.arguments[1:])

    @property
    def log(self) -> Path:
        """What the process says."""
        return self.result.with_name("job.log")


class LabFile(msgspec.Struct):
    """What stands in lab.json."""

    budget: Budget
    grid: list[Variant]
    version: int = 1


def read_lab(folder: str | Path) -> tuple[Budget, dict[str, Variant]]:
    """The budget of a lab, and the rows of its grid, which may be an older one.

    FileNotFoundError where there is no lab, ValueError names what is wrong in its lab.json.
    """
    path = Path(folder) / "lab.json"
    if not path.is_file():
        hint = f"`minst lab run --out {folder}` makes one"
        raise FileNotFoundError(f"{folder} is no lab (lab.json is missing); {hint}")
    held = read_typed(path, LabFile)
    return held.budget, {row.name: row for row in held.grid}


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
    seeds: Annotated[int, Range(1, 1000)] = 3,
    folder: str | Path = "runs/lab",
    budget: Budget = FULL,
    jobs: Count | None = None,
    device: str = "auto",
) -> list[Run]:
    """Train and measure the variants `names` (none: all) with the seeds 0 .. seeds - 1.

    names: of `VARIANTS`, and of `SHIPPED` weights, which are measured alone; rows that others start
    from are trained as well. seeds: 1 to 1000. jobs: runs at a time; None: two on a CPU, with one
    thread each, eight on an accelerator. What is done is skipped, so that the same call goes on
    after an interruption. Returns the runs. Raises ValueError for unknown names or a folder with
    another budget; RuntimeError, after all else is done, says which runs have failed and where
    their log is.
    """
    known = [*VARIANTS, *SHIPPED]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"lab: no run {', '.join(unknown)}; there are: {', '.join(known)}")
    check_call(run_lab, locals(), "lab")
    device = Engine(device).device.type
    folder = Path(folder)
    starts = {VARIANTS[name].start for name in names if name in VARIANTS}
    chosen = [name for name in known if not names or name in {*names, *starts}]
    runs = [Run(folder, name, seed) for seed in range(seeds) for name in chosen if name in VARIANTS]
    with _alone(folder) as lock:
        _claim(folder, budget)
        todo = _jobs(folder, [name for name in chosen if name in SHIPPED], runs)
        if todo:
            _write_clips(folder / "data", budget, todo)
            _work(todo, jobs or (2 if device == "cpu" else 8), (folder, device, lock))
    return runs


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[TextIO]:
    """Two labs in one folder would write into each other's runs. Jobs hold this lock as well."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lab.lock", "w") as lock:
        if os.name == "posix":  # Windows has no such locks
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: another `minst lab run` is at work here") from None
        yield lock


def _claim(folder: Path, budget: Budget) -> None:
    """Write lab.json, or see that it holds this budget and this grid."""
    path = folder / "lab.json"
    if not path.is_file():
        rows = [asdict(row) for row in VARIANTS.values()]
        with replacing(path) as beside:
            ours = {"version": 1, "budget": asdict(budget), "grid": rows}
            beside.write_text(json.dumps(ours, indent=1) + "\n")
    held, held_grid = read_lab(folder)
    wrong = "" if held_grid == VARIANTS else "grid"
    if held != budget:
        wrong = f"budget ({held.name}), not of {budget.name!r}"
    if wrong:
        raise ValueError(f"{folder} holds runs of another {wrong}; choose another --out")


def _jobs(folder: Path, shipped: Sequence[str], runs: Sequence[Run]) -> list[Job]:
    """What it takes to have all of them done: backbones first, then runs, shipped weights last."""
    trained = []
    for run in runs:
        needs = folder / grid.PRETRAINED.format(grid.backbone_of(run.variant))
        if start := VARIANTS[run.variant].start:
            needs = run._replace(variant=start).folder / METRICS
        trained.append(Job(("run", run.variant, str(run.seed)), run.folder / METRICS, needs))
    trained = [job for job in trained if not job.result.is_file()]
    backbones = dict.fromkeys(job.needs for job in trained if job.needs.name != METRICS)
    jobs = [Job(("pretrain", weights.parent.name), weights) for weights in backbones] + trained
    for name in shipped:
        for speed in SHIPPED[name]:
            jobs.append(Job(("shipped", name, speed), folder / "shipped" / f"{name}-{speed}.json"))
    return [job for job in jobs if not job.result.is_file()]


def _write_clips(folder: Path, budget: Budget, jobs: Sequence[Job]) -> None:
    """The clips that jobs need; a set is renamed when it is complete."""
    wanted = {}
    for what, _, *of in (job.arguments for job in jobs):
        if what == "shipped":
            speed = "medium" if of[0] == grid.CUT else of[0]
            config = ShapesConfig(frames=grid.SHIPPED_FRAMES, speed=grid.SPEEDS[speed])
            count = budget.shipped_clips // (1 if speed == "medium" else 2)
            wanted[f"shipped-{speed}"] = count, config, grid.SHIPPED_SEED, "val"
            continue
        # A backbone learns from the clips of the first seed.
        seed = int(of[0]) if of else 0
        wanted[f"train-{seed}"] = budget.train_clips, budget.clips(), seed, "train"
        if what == "run":
            wanted[f"val-{seed}"] = budget.val_clips, budget.clips(), seed, "val"
            # Others than those of video AP: another seed of the same split.
            others = grid.SHIPPED_SEED + 1 + seed
            wanted[f"frames-{seed}"] = budget.val_frames, budget.clips(), others, "val", True
    for name, arguments in wanted.items():
        if not (folder / name).is_dir():
            beside = folder / f"{name}.part"
            shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed meanwhile
            write_shapes_dataset(beside, *arguments)
            beside.rename(folder / name)


def _work(todo: Sequence[Job], jobs: int, where: tuple[Path, str, TextIO]) -> None:
    """Keep `jobs` processes busy until all have ended; on the way out none is left behind.

    On a terminal a bar shows how many have; a line says of every job that it has ended.
    """
    waiting, working, failed = list(todo), {}, []
    bar = tqdm(total=len(todo), desc="lab", unit="run", disable=None)
    try:
        while True:
            ready = [job for job in waiting if job.needs is None or job.needs.is_file()]
            for job in ready[: jobs - len(working)]:
                waiting.remove(job)
                working[job] = _start(job, *where), time.monotonic()
            if not working:
                break
            bar.set_postfix_str(", ".join(job.name for job in working))
            time.sleep(0.5)
            for job, (process, since) in list(working.items()):
                if process.poll() is None:
                    continue
                del working[job]
                has_failed = process.returncode != 0 or not job.result.is_file()
                failed += [job] * has_failed
                what = "FAILED after" if has_failed else "done in"
                seconds = tqdm.format_interval(time.monotonic() - since)
                tqdm.write(f"{job.name:<24} {what} {seconds}", file=sys.stderr)
                bar.update()
    finally:
        bar.close()
        left = [process for process, _ in working.values()]
        for process in left:
            process.terminate()
        for process in left:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
    if failed:
        logs = "; ".join(f"{job.name}: {job.log}" for job in failed)
        said = f"lab: {len(failed)} of {len(todo)} have failed ({logs}); "
        if waiting:
            said += f"{len(waiting)} runs have not begun for want of their backbone; "
        raise RuntimeError(said + "the others are done")


def _start(job: Job, lab: Path, device: str, lock: TextIO) -> subprocess.Popen:
    """The process holds the lock, and a pipe of which nothing comes but its end: that of ours."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    package = str(Path(__file__).resolve().parents[2])  # of this minst, wherever the process starts
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with open(job.log, "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "minst.lab.runs", device, *job.arguments],
            cwd=lab,
            env=os.environ | THREADS | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()] if os.name == "posix" else [],
        )


def main(device: str, what: str, name: str, of: str = "0") -> None:
    """Be the process of a job, in the lab's folder, which says what it may spend."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so no file is left half-written
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    here, budget = Path("."), read_typed("lab.json", LabFile).budget
    torch.set_num_threads(1)
    keep_memory()  # for measuring, too
    if what == "pretrain":
        weights = train(grid.backbone_config(name, budget, device=device))
        with replacing(Path(grid.PRETRAINED.format(name))) as beside:  # there when it is done
            shutil.copy(weights / "model.safetensors", beside)
    elif what == "shipped":
        measure_shipped(here, name, of, budget)
    else:
        config = grid.train_config(name, int(of), budget, device=device)
        order = VARIANTS[name].decoder
        train(config, model=decoders.build(order, config) if order else None)
        measure_run(here, name, int(of), budget)


def _end_with_the_other() -> None:
    """End when the process that has started this one has ended: its end of the pipe is closed."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)  # long enough for what is being written
    os._exit(143)


if __name__ == "__main__":
    main(*sys.argv[1:])
