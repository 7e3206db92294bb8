"""Means, spreads, and how sure a difference is: a bootstrap over seeds and clips of paired runs.

    metrics.json --load--> Measured --figure(key)--> value, sample(weights (B, V)) -> (B,)
    compare(variant's figures, full's figures)       difference, its 95 % interval, what each seed says

Two runs of one seed saw the same clips in the same order and are judged by the same clips. So their difference is taken
first, then drawn again: seeds and clips, both with replacement, the same clips for both runs. What is common to both
(a hard clip, a lucky seed) cancels.

Key of a figure: "image", ("video", speed, by, value), ("retention", frames) of queries, and of a tracker's tracks
("tracks", speed, by, value, frames).

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minst.data.files import read_json
from minst.lab.figures import Matches, average_precision
from minst.lab.grid import SHIPPED
from minst.lab.runs import METRICS, Run, find_runs

__all__ = ["Comparison", "Figure", "Measured", "Spread", "compare", "load", "load_shipped", "seeds_needed", "spread"]

SAMPLES = 2000
VERSION = 1


class Figure:
    """One figure of one run: `value`, and `sample(weights)` for samples of the clips; both in 0..1.

    `weights` (B, V) is the same array for a whole report, so its answer is kept.
    """

    def __init__(self, clips: int, of):
        self.clips, self._of, self._kept = clips, of, (None, None)

    @cached_property
    def value(self) -> float:
        """The figure on all clips, once each."""
        return float(self._of(np.ones((1, self.clips)))[0])

    def sample(self, weights: np.ndarray) -> np.ndarray:
        """The figure on samples of the clips: weights (B, V) -> (B,)."""
        if self._kept[0] is not weights:
            self._kept = (weights, self._of(weights))
        return self._kept[1]


@dataclass
class Measured:
    """A run that is done."""

    run: Run
    metrics: dict

    def __post_init__(self):
        self._figures: dict[Hashable, Figure] = {}

    @cached_property
    def _settings(self) -> dict[tuple, dict]:
        return {(row["speed"], row["by"], row["value"]): row for row in self.metrics["settings"]}

    def setting(self, speed: str, by: str, value: float) -> dict:
        """What was measured of a tracker; KeyError where it was not."""
        return self._settings[speed, by, value]

    def figure(self, key: Hashable) -> Figure:
        """The figure of this key; KeyError where it was not measured."""
        if key not in self._figures:
            self._figures[key] = self._make(key)
        return self._figures[key]

    def _make(self, key: Hashable) -> Figure:
        if key == "image":
            matches = Matches.from_dict(self.metrics["image"])
        elif key[0] == "video":
            matches = Matches.from_dict(self.setting(*key[1:]))
        elif key[0] == "retention":
            return self._retention(self.metrics["consistency"]["pairs"], key[1])
        else:
            return self._retention(self.setting(*key[1:4])["pairs"], key[4])
        return Figure(len(matches.instances), lambda weights: average_precision(matches, weights))

    def _retention(self, counts: list[list[int]], frames: int) -> Figure:
        place = 2 * list(self.metrics["consistency"]["distances"]).index(frames)
        pairs = np.array(counts, dtype=float)[:, place : place + 2]  # (V, 2) kept, of

        def share(weights: np.ndarray) -> np.ndarray:
            kept, of = (weights @ pairs).T
            return np.divide(kept, of, out=np.full(len(weights), np.nan), where=of > 0)

        return Figure(len(pairs), share)


def load(folder: str | Path) -> tuple[list[Measured], list[Run]]:
    """The runs of a lab that are done, and those that were started and are not. ValueError names a file at fault."""
    done, open_ = [], []
    for run in find_runs(folder):
        if not run.is_done:
            open_.append(run)
            continue
        done.append(Measured(run, _read(run.folder / METRICS)))
    return done, open_


def load_shipped(folder: str | Path) -> list[Measured]:
    """What was measured of shipped weights, in the order of the grid."""
    paths = {name: Path(folder) / "shipped" / f"{name}.json" for name in SHIPPED}
    return [Measured(Run(Path(folder), name, 0), _read(path)) for name, path in paths.items() if path.is_file()]


def _read(path: Path) -> dict:
    metrics = read_json(path)
    if not isinstance(metrics, dict) or metrics.get("version") != VERSION:
        raise ValueError(f"{path}: no metrics of version {VERSION}; remove it, and `minst lab run` measures again")
    lacking = [key for key in ("image", "settings", "consistency", "model") if key not in metrics]
    if lacking:
        raise ValueError(f"{path}: {lacking[0]!r} is missing; remove it, and `minst lab run` measures again")
    if any("pairs" not in row for row in metrics["settings"]):
        raise ValueError(f"{path}: 'pairs' of a tracker is missing; remove it, and `minst lab run` measures again")
    return metrics


class Spread(NamedTuple):
    """Of the seeds of one row. sd is NaN for one seed."""

    mean: float
    sd: float
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1) of at least one value."""
    values = tuple(values)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Spread(mean, float("nan"), values)
    return Spread(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), values)


class Comparison(NamedTuple):
    """A variant less what it is compared with, over the seeds that both have."""

    difference: float
    low: float  # the 95 % interval
    high: float
    seeds: tuple[float, ...]  # the difference of each

    def verdict(self, claim: int) -> str:
        """claim +1: it should be worse (a negative difference); -1: better; 0: no claim."""
        if not claim:
            return "no claim"
        low, high = (-self.high, -self.low) if claim > 0 else (self.low, self.high)  # by how much the claim holds
        return "agrees" if low > 0 else "disagrees" if high < 0 else "cannot tell"


def compare(ours: Sequence[Figure], theirs: Sequence[Figure]) -> Comparison:
    """Figures of the same seeds in the same order, over the same clips. ValueError when they cannot be paired."""
    clips = {figure.clips for figure in (*ours, *theirs)}
    if not ours or len(ours) != len(theirs) or len(clips) != 1:
        raise ValueError(f"cannot pair {len(ours)} runs with {len(theirs)}, on {sorted(clips)} clips")
    weights = draw(SAMPLES, clips.pop(), 0)
    chosen = draw(SAMPLES, len(ours), 1) / len(ours)  # (B, S) shares of the seeds
    samples = np.stack([a.sample(weights) - b.sample(weights) for a, b in zip(ours, theirs)], axis=1)  # (B, S)
    means = (samples * chosen).sum(axis=1)
    means = means[np.isfinite(means)]  # a sample may lack whatever there is to count
    low, high = np.percentile(means, [2.5, 97.5]) if len(means) else (math.nan, math.nan)
    each = tuple(a.value - b.value for a, b in zip(ours, theirs))
    return Comparison(math.fsum(each) / len(each), float(low), float(high), each)


@lru_cache(maxsize=16)
def draw(samples: int, count: int, stream: int) -> np.ndarray:
    """How often each of `count` things is in a sample of `count` drawn with replacement: (samples, count).

    From PCG64's raw bits, which no version of NumPy changes: a report comes out the same everywhere.
    """
    bits = np.random.PCG64(np.random.SeedSequence([2303, 17594, stream])).random_raw(samples * count)
    picked = ((bits >> np.uint64(11)) * 2.0**-53 * count).astype(np.int64).reshape(samples, count)
    return np.stack([np.bincount(row, minlength=count) for row in picked]).astype(float)


def seeds_needed(differences: Sequence[Sequence[float]], effect: float) -> int | None:
    """Seeds after which a true difference of `effect` is seen four times out of five (95 % interval, paired runs).

    (1.96 + 0.84)^2 sd^2 / effect^2, sd pooled over the rows of `differences`, a value a seed.
    None without two seeds anywhere.
    """
    known = [spread(row) for row in differences if len(row) > 1 and all(map(math.isfinite, row))]
    if not known:
        return None
    freedom = sum(len(s.values) - 1 for s in known)
    variance = math.fsum(s.sd**2 * (len(s.values) - 1) for s in known) / freedom
    return max(2, math.ceil((1.96 + 0.84) ** 2 * variance / effect**2))
