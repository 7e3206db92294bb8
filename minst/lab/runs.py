"""Runs of the grid, each of them a job that is done once.

    <folder>/lab.json               budget and grid; a folder holds one of each only
             data/{train,val,frames}-<seed>/      clips, the same for every run of a seed
             backbones/<name>/backbone.safetensors, log.jsonl      what the runs start from
             <variant>-<seed>/train.json, log.jsonl      the training, as `minst train` writes it
                              metrics.json       written last: its presence says that it is done
                              checkpoint.pt, weights/
             shipped/<name>-<speed>.json     measurements of shipped weights
             jobs/<name>.log                 what each job said

Seeds are the outer loop. Several processes may work, each at the first job that has what it needs
and that no other one is at. Interrupted, a job goes on; done, it is not repeated.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import contextlib
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import torch

from minst.data.files import replacing
from minst.data.formats import read_typed
from minst.data.shapes import write_shapes_dataset
from minst.engine import Engine, keep_memory, owned, spawn
from minst.lab import decoders, grid
from minst.lab.grid import FULL, SHIPPED, VARIANTS, Budget, Variant, metrics_of
from minst.lab.measure import measure_run, measure_shipped
from minst.options import Count, Range, check_call
from minst.training import train

__all__ = ["read_lab", "run_lab"]


class LabFile(msgspec.Struct):
    """What stands in lab.json."""

    budget: Budget
    grid: list[Variant]


def read_lab(folder: str | Path) -> LabFile:
    """lab.json; its grid may be an older one. An error says what is wrong, or missing, there."""
    path = Path(folder) / "lab.json"
    if not path.is_file():
        hint = f"`minst lab run --out {folder}` makes one"
        raise FileNotFoundError(f"{folder} is no lab (lab.json is missing); {hint}")
    return read_typed(path, LabFile)


def run_lab(
    names: Sequence[str] = (),
    seeds: Annotated[int, Range(1, 1000)] = 3,
    folder: str | Path = "runs/lab",
    budget: Budget = FULL,
    jobs: Count | None = None,
    device: str = "auto",
) -> list[str]:
    """Train and measure the variants `names` (none: all) with the seeds 0 .. seeds - 1.

    names: of `VARIANTS`, and of `SHIPPED` weights; rows that others start from are trained as well.
    jobs: processes, with one thread each; 1 (always on Windows) is this one; None: two on a CPU,
    eight on an accelerator. What is done is skipped, so that the same call goes on where it was.
    Returns what was to be done. Raises ValueError for unknown names or a folder with another
    budget; RuntimeError, after all else is done, names the logs of what failed.
    """
    known = [*VARIANTS, *SHIPPED]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"lab: no run {', '.join(unknown)}; there are: {', '.join(known)}")
    check_call(run_lab, locals(), "lab")
    device = Engine(device).device.type
    folder, jobs = Path(folder), jobs or (2 if device == "cpu" else 8)
    jobs = 1 if sys.platform == "win32" else jobs  # `owned` has no locks there
    starts = {VARIANTS[name].start for name in names if name in VARIANTS}
    chosen = [name for name in known if not names or name in {*names, *starts}]
    with owned(folder, "lab run"):
        _claim(folder, budget)
        # Trainings name their data relative to the lab, so that it may be moved, or committed.
        with contextlib.chdir(folder), contextlib.ExitStack() as after:
            after.callback(torch.set_num_threads, torch.get_num_threads())
            todo = _jobs(chosen, range(seeds), budget, device)
            for job in todo:
                job.file("failed").unlink(missing_ok=True)
            says = f"{len(todo)} jobs, {jobs} at a time; how far each is: {folder / 'jobs'}"
            print(says, file=sys.stderr)
            if jobs == 1:
                _work(todo)
            elif todo:
                spawn(_work, jobs, todo, meet=False)
            failed = [job for job in todo if job.file("failed").exists()]
    if failed:
        logs = "; ".join(f"{job.name}: {folder / job.file('log')}" for job in failed)
        said = f"lab: {len(failed)} of {len(todo)} have failed ({logs})"
        raise RuntimeError(f"{said}; what needs them has not begun, the others are done")
    return [job.name for job in todo]


def _claim(folder: Path, budget: Budget) -> None:
    """Write lab.json, or see that it holds this budget and this grid."""
    ours, path = LabFile(budget, list(VARIANTS.values())), folder / "lab.json"
    if not path.is_file():
        with replacing(path) as beside:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(ours), indent=1) + b"\n")
    held = read_lab(folder)
    if held != ours:
        wrong = f"budget ({held.budget.name}), not of {budget.name!r}"
        wrong = "grid" if held.budget == budget else wrong
        raise ValueError(f"{folder} holds runs of another {wrong}; choose another --out")


class Job(NamedTuple):
    """What one process does once; paths are relative to the lab."""

    name: str
    result: Path  # is there when it is done
    make: Callable[[], object]
    needs: tuple[Path, ...]  # must be there before

    def file(self, what: str) -> Path:
        """A file of its own: "log", or "failed", which says that it has."""
        return Path("jobs", f"{self.name}.{what}")


def _jobs(chosen: Sequence[str], seeds: Sequence[int], budget: Budget, device: str) -> list[Job]:
    """What it takes to have all of them done, less what is there."""
    here, jobs = Path(), {}

    def need(name: str, result: Path, make: Callable, *needs: Path) -> Path:
        """A file, and the job that makes it if it is missing."""
        if not result.exists():
            jobs.setdefault(name, Job(name, result, make, needs))
        return result

    def clips(name: str) -> Path:
        """The annotations of a set of clips."""
        folder = here / "data" / name
        make = partial(write_shapes_dataset, folder, *budget.clips(name))
        return need(name, folder / "annotations.json", make)  # which is written last

    for seed in seeds:
        for name in (name for name in chosen if name in VARIANTS):
            result, row = metrics_of(here, name, seed), VARIANTS[name]
            if result.exists():
                continue
            if row.start:
                before = metrics_of(here, row.start, seed)
            else:
                backbone = grid.backbone_of(name)
                before = here / grid.PRETRAINED.format(backbone)
                make = partial(_pretrain, before, budget, device)
                # It learns from the clips of the first seed.
                before = need(backbone, before, make, clips("train-0"))
            sets = [clips(f"{what}-{seed}") for what in ("train", "val", "frames")]
            need(f"{name}-{seed}", result, partial(_run, name, seed, budget, device), before, *sets)
    for name in (name for name in chosen if name in SHIPPED):
        for speed in SHIPPED[name]:
            result = metrics_of(here, name, speed)
            if not result.exists():
                make = partial(measure_shipped, here, name, speed)
                need(result.stem, result, make, clips(f"shipped-{speed}"))
    return list(jobs.values())


def _pretrain(result: Path, budget: Budget, device: str) -> None:
    weights = train(grid.backbone_config(result.parent.name, budget, device))
    with replacing(result) as beside:
        shutil.copy(weights / "model.safetensors", beside)


def _run(variant: str, seed: int, budget: Budget, device: str) -> None:
    config = grid.train_config(variant, seed, budget, device)
    order = VARIANTS[variant].decoder
    train(config, model=decoders.build(order, config) if order else None)
    measure_run(Path(), variant, seed)


def _work(todo: Sequence[Job]) -> None:
    """Do jobs until none is left that could be done."""
    torch.set_num_threads(1)
    keep_memory()  # for measuring, too
    while True:
        left = [job for job in todo if not (job.result.exists() or job.file("failed").exists())]
        ready = [job for job in left if all(path.exists() for path in job.needs)]
        if not ready:
            return
        if not any(map(_do, ready)):
            time.sleep(0.5)  # others are at all of them, and more may follow


def _do(job: Job) -> bool:
    """Do a job; False if another process is at it. What goes wrong stands in its log."""
    with contextlib.ExitStack() as held:
        try:
            # The system frees this lock when the process ends, however that was.
            held.enter_context(owned(Path("jobs"), job.name))
        except ValueError:
            return False
        if job.result.exists():  # by now
            return True
        began, log = time.monotonic(), held.enter_context(open(job.file("log"), "a"))
        try:
            with contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
                job.make()
        except Exception:  # noqa: BLE001  whatever it was, the other jobs go on
            traceback.print_exc(file=log)
            job.file("failed").touch()
        what = "done" if job.result.exists() else "FAILED"
        print(f"{job.name:<24} {what} after {time.monotonic() - began:.0f} s", file=sys.stderr)
        return True
