"""What stands in the folder of a lab, as numbers that a report can compare.

    metrics.json of every run --Row-->      values of its seeds, in points of 100
    all of it                 --Lab-->      rows in the order of the grid, families, shipped weights

A figure is a name of `minst.lab.measure.FIGURES`.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from minst.data.formats import read_typed
from minst.lab.grid import SHIPPED, Variant
from minst.lab.measure import settings
from minst.lab.runs import find_runs, read_lab
from minst.lab.statistics import GROUPS, Comparison, Family, Figure, compare_clips, holm

__all__ = ["Lab", "Row", "Shipped"]

METRICS = {
    "version": int,
    "commit": str,
    "torch": str,
    "figures": dict[str, TypedDict("Figure", {"value": float, "without": list[float]})],
    "macs": NotRequired[int | dict[str, int]],
    "seconds of a step": NotRequired[float],  # shipped weights were not trained here
    "seconds of measuring": NotRequired[float],
}
Metrics = TypedDict("Metrics", METRICS)


class Row(NamedTuple):
    """A variant: the metrics of its runs that are done, by their seeds."""

    name: str
    runs: dict[int, dict]  # of the type `Metrics`

    def values(self, figure: str) -> dict[int, float]:
        """In points, by seed; without those of which it was not measured."""
        found = {seed: run["figures"].get(figure) for seed, run in self.runs.items()}
        return {seed: 100 * each["value"] for seed, each in found.items() if each}

    def differences(self, base: "Row", figure: str) -> dict[int, float]:
        """Points by which this row is above another, of each seed that both have."""
        theirs = base.values(figure)
        return {s: ours - theirs[s] for s, ours in self.values(figure).items() if s in theirs}


class Shipped(NamedTuple):
    """Shipped weights on clips of one speed."""

    name: str
    speed: str
    metrics: dict

    def figure(self, setting: str) -> Figure:
        """Video AP of a setting that was measured, in points."""
        found = self.metrics["figures"][setting]
        return Figure(100 * found["value"], [100 * x for x in found["without"]])

    def pairs(self) -> dict[str, tuple[str, str]]:
        """What is compared: {in words: (a setting, what it stands in the place of)}."""
        found = {}
        for by, t in settings(self.name, self.speed):
            if by in ("frozen", "told"):
                says = "X6 frozen" if by == "frozen" else "told of the cut"
                found[f"{says}, T = {t}"] = f"{by} {t}", f"cosine {t}"
            elif by != "cosine":
                found[f"{by} for cosine, T = {t}"] = f"{by} {t}", f"cosine {t}"
            elif t > 1:
                found[f"T = {t} for 1"] = f"{by} {t}", f"{by} 1"
        return {says: each for says, each in found.items() if {*each} <= {*self.metrics["figures"]}}


class Lab:
    """What stands in the folder of a lab. ValueError or FileNotFoundError when there is nothing, or
    a file is not as it should be.

    `variants` are the rows as they were when the lab was run.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        budget, self.variants = read_lab(folder)
        self.budget = asdict(budget)
        runs = find_runs(folder)
        self.unfinished = [run for run in runs if not run.is_done]
        done = [(run, _metrics(run.folder / "metrics.json")) for run in runs if run.is_done]
        self.rows: dict[str, Row] = {}
        for run, found in done:
            self.rows.setdefault(run.variant, Row(run.variant, {})).runs[run.seed] = found
        files = {
            (name, speed): self.folder / "shipped" / f"{name}-{speed}.json"
            for name, speeds in SHIPPED.items()
            for speed in speeds
        }
        self.shipped = [Shipped(*of, _metrics(f)) for of, f in files.items() if f.is_file()]
        if not done and not self.shipped:
            todo = f"`minst lab run --out {folder}` goes on"
            raise ValueError(f"{folder}: no run is done yet; {todo}")
        reasons = self.folder / "reasons.json"
        self.reasons = read_typed(reasons, dict[str, str]) if reasons.is_file() else {}

    def family(self, base: str, figure: str) -> Family:
        """All rows that are compared with `base`, by a figure."""
        held = self.rows.get(base)
        members = [row for row in self.rows.values() if self.variants[row.name].base == base]
        others = [row for row in members if held and row.name != base]
        return Family({row.name: row.differences(held, figure) for row in others})

    def difference(self, name: str, figure: str = "") -> Comparison | None:
        """A row less its base; figure "": what judges it. None where they share no seed."""
        variant = self.variants[name]
        family = self.family(variant.base, figure or variant.judged_by)
        return family.compare(name) if name in family.rows else None

    @cached_property
    def judged(self) -> dict[str, tuple[Variant, Comparison, float]]:
        """Every row with a difference in what judges it, and its p among all of them (Holm)."""
        found = {name: self.difference(name) for name in self.rows}
        found = {name: each for name, each in found.items() if each}
        adjusted = holm({name: each.p for name, each in found.items()})
        return {name: (self.variants[name], found[name], adjusted[name]) for name in found}

    @cached_property
    def compared(self) -> list[tuple[Shipped, str, tuple[str, str], Comparison, float]]:
        """The same of what was measured without training: weights, in words, settings."""
        pairs = [(each, *pair) for each in self.shipped for pair in each.pairs().items()]
        found = [compare_clips(*map(shipped.figure, pair)) for shipped, _, pair in pairs]
        adjusted = holm({place: each.p for place, each in enumerate(found)})
        return [(*pairs[place], each, adjusted[place]) for place, each in enumerate(found)]


def _metrics(file: Path) -> dict:
    """ValueError names the file, and the place in it, that no run has written."""
    metrics = read_typed(file, Metrics)
    wrong = "" if metrics["version"] == 2 else f"version {metrics['version']}, not 2"
    for name, figure in metrics["figures"].items():
        if len(figure["without"]) != GROUPS or not all(map(math.isfinite, figure["without"])):
            wrong = f"{name} has not {GROUPS} finite values in `without`"
    if wrong:
        again = "remove it, and `minst lab run` measures again"
        raise ValueError(f"{file}: {wrong}; {again}")
    return metrics
