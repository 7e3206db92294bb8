"""What stands in the folder of a lab, as numbers that a report can compare.

    metrics.json of every run --> Lab: values of rows by seed, families, what is judged and compared

A figure is a name of `minst.lab.measure.FIGURES`; its values are points of 100.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import math
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np

from minst.data.formats import read_typed
from minst.lab.grid import SHIPPED, metrics_of
from minst.lab.measure import pairs
from minst.lab.runs import read_lab
from minst.lab.statistics import GROUPS, Comparison, Family, compare_clips, holm

__all__ = ["Lab"]


class Metrics(TypedDict):
    """What stands in metrics.json, as far as a report needs it."""

    version: int
    commit: str
    torch: str
    # of all clips, and of AP without each group of them; version 2 had dicts
    figures: dict[str, list[float] | dict]
    macs: int | dict[str, int]


class Lab:
    """What stands in the folder of a lab; an error says which file is not as it should be.

    Attributes: budget; variants, {name: row of the grid} as when the lab was run; rows, {name:
    {seed: metrics}} of the runs that are done, and the names of unfinished ones; shipped,
    {(weights, clips): {setting: video AP (21,)}}, and its metrics; reasons, {name: sentence}.
    """

    def __init__(self, folder: str | Path):
        self.folder, held = Path(folder), read_lab(folder)
        self.budget, self.variants = held.budget, {row.name: row for row in held.grid}
        self.rows, self.unfinished, self.shipped, self.shipped_metrics = {}, [], {}, []
        begun = [path.parent.name.rpartition("-") for path in self.folder.glob("*-*/train.json")]
        for name in self.variants:
            for seed in sorted(int(of) for run, _, of in begun if run == name and of.isdecimal()):
                file = metrics_of(self.folder, name, seed)
                if file.is_file():
                    self.rows.setdefault(name, {})[seed] = _read(file)
                else:
                    self.unfinished.append(file.parent.name)
        for of in [(name, speed) for name in SHIPPED for speed in SHIPPED[name]]:
            file = metrics_of(self.folder, *of)
            if file.is_file():
                self.shipped_metrics.append(_read(file))
                figures = self.shipped_metrics[-1]["figures"]
                self.shipped[of] = {name: 100 * np.array(each) for name, each in figures.items()}
        if not self.rows and not self.shipped:
            todo = f"`minst lab run --out {folder}` goes on"
            raise ValueError(f"{folder}: no run is done yet; {todo}")
        reasons = self.folder / "reasons.json"
        self.reasons = read_typed(reasons, dict[str, str]) if reasons.is_file() else {}

    def values(self, name: str, figure: str) -> dict[int, float]:
        """Of a row, by seed; without those of which it was not measured."""
        runs = self.rows.get(name, {})
        found = {seed: run["figures"].get(figure) for seed, run in runs.items()}
        return {seed: 100 * each[0] for seed, each in found.items() if each}

    def family(self, base: str, figure: str) -> Family:
        """All rows less the one that they are compared with, by the seeds that both have."""
        theirs, rows = self.values(base, figure), {}
        for name in self.rows:
            if self.variants[name].base == base != name:
                ours = self.values(name, figure)
                rows[name] = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
        return Family(rows)

    def difference(self, name: str, figure: str = "") -> Comparison | None:
        """A row less its base; figure "": what judges it. None where they share no seed."""
        variant = self.variants[name]
        family = self.family(variant.base, figure or variant.judged_by)
        return family.compare(name) if name in family.rows else None

    @cached_property
    def judged(self) -> dict[str, Comparison]:
        """Each row by what judges it, if it has an interval: two seeds, or others of its family."""
        found = {name: self.difference(name) for name in self.rows}
        return holm({n: each for n, each in found.items() if each and not math.isnan(each.low)})

    @cached_property
    def compared(self) -> list[tuple[str, str, tuple[np.ndarray, np.ndarray], Comparison]]:
        """Without training: weights and clips, what is changed, AP of both settings, verdict."""
        lines = []
        for of, figures in self.shipped.items():
            for says, (ours, theirs) in pairs(*of).items():
                if {ours, theirs} <= {*figures}:
                    lines.append((", ".join(of), says, (figures[ours], figures[theirs])))
        found = holm({place: compare_clips(*line[2]) for place, line in enumerate(lines)})
        return [(*line, found[place]) for place, line in enumerate(lines)]


def _read(file: Path) -> dict:
    """Metrics; ValueError names the file, and the place in it, that no run has written."""
    metrics = read_typed(file, Metrics)
    wrong = ""
    for name, each in metrics["figures"].items():
        is_figure = isinstance(each, list) and len(each) in (1, 1 + GROUPS)
        if not (is_figure and all(map(math.isfinite, each))):
            wrong = f"{name} has not {1 + GROUPS} finite values"
    if metrics["version"] != 3:
        wrong = f"version {metrics['version']}, not 3"
    if wrong:
        raise ValueError(f"{file}: {wrong}; remove it, and `minst lab run` measures again")
    return metrics
