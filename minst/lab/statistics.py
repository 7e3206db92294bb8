"""How sure is a difference? Intervals of paired runs, of paired clips, and of many rows at once.

    trained rows    a difference a seed, d_1 .. d_S; the spread sd is pooled over the rows of a
                    family, which are compared with one base       d ± t(df) * sd / sqrt(S)
    one model       the same clips, two settings; the jackknife leaves out a twentieth of the clips
                    at a time                                      d ± t(19) * sd / sqrt(20)

Every seed has clips of its own, so that their luck is in the spread of the seeds. The luck of the
base is in all differences of its seed. So R rows of S seeds say less of the spread than R (S - 1)
numbers would, and df (Satterthwaite, 1946) says how much:

    u = var_s(mean_r d_rs) / sd^2          the shared part
    1 / df = u^2 / (S - 1) + (1 - u)^2 / ((R - 1) (S - 1))

tests/benchmarks/lab_simulation.py measures how often these intervals hold the truth.

Assumption: the rows of a family have one spread, of which the seeds of one row say too little.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Comparison", "Family", "compare_clips", "groups", "holm", "pooled_sd", "pseudo_values",
           "seeds_needed", "signed", "spread"]  # fmt: skip

GROUPS = 20  # into which the jackknife cuts clips
LEVEL = 0.95
MARGIN = 1.0  # points: who differs by less is as good


def groups(clips: int) -> np.ndarray:
    """Weights (1 + GROUPS, clips): all clips once; then all but every GROUPS-th, from each on."""
    weights = np.ones((1 + GROUPS, clips))
    for group in range(GROUPS):
        weights[1 + group, group::GROUPS] = 0
    return weights


class Comparison(NamedTuple):
    """A variant less what it is compared with."""

    difference: float
    low: float  # the 95 % interval
    high: float
    seeds: tuple[float, ...]  # the difference of each seed
    # two-sided: how often chance alone would give as much; after `holm`, among all rows
    p: float = math.nan

    def verdict(self, claim: int) -> str:
        """claim +1: it should be worse (a negative difference); -1: better; 0: no claim."""
        if not claim:
            return "no claim"
        # by how much the claim holds, at least and at most
        low, high = (-self.high, -self.low) if claim > 0 else (self.low, self.high)
        return "agrees" if low > 0 else "disagrees" if high < 0 else "cannot tell"

    @property
    def decided(self) -> str:
        """ "worse", "better", "equal" (the interval lies within ± MARGIN), or "open"."""
        if self.p < 1 - LEVEL:
            return "worse" if self.difference < 0 else "better"
        return "equal" if self.low > -MARGIN and self.high < MARGIN else "open"


class Family:
    """Rows that are compared with one base: {row: {seed: difference in points}}."""

    def __init__(self, rows: Mapping[str, Mapping[int, float]]):
        self.rows = {name: dict(each) for name, each in rows.items() if each}
        self.sd = pooled_sd([list(each.values()) for each in self.rows.values()])
        self.freedom = self._freedom() if self.sd > 0 else 0.0

    def _freedom(self) -> float:
        """The df above, from the seeds that all rows have; at least that of one row."""
        tables = list(self.rows.values())
        shared = sorted(set.intersection(*map(set, tables)))
        R, S, least = len(tables), len(shared), max(map(len, tables)) - 1.0
        if R < 2 or S < 2:
            return least
        means = [fmean(each[seed] for each in tables) for seed in shared]
        u = min(1.0, stdev(means) ** 2 / self.sd**2)
        return max(least, 1 / (u**2 / (S - 1) + (1 - u) ** 2 / ((R - 1) * (S - 1))))

    def compare(self, name: str) -> Comparison:
        """Mean, interval and p of one row; NaN where no row has two seeds."""
        each = tuple(self.rows[name].values())
        return _of_t(fmean(each), self.sd / math.sqrt(len(each)), self.freedom, each)

    def detectable(self, seeds: int) -> float:
        """The true difference that so many seeds show four times out of five; NaN without df."""
        reach = stats.t.ppf((1 + LEVEL) / 2, self.freedom) + stats.t.ppf(0.8, self.freedom)
        return float(reach * self.sd / math.sqrt(seeds))


def pooled_sd(rows: Sequence[Sequence[float]]) -> float:
    """The spread of rows about their own means; NaN without two values in any."""
    several = [each for each in rows if len(each) > 1]
    freedom = sum(len(each) - 1 for each in several)
    squares = math.fsum(stdev(each) ** 2 * (len(each) - 1) for each in several)
    return math.sqrt(squares / freedom) if freedom else math.nan


def compare_clips(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Two settings of one model on the same clips; what is drawn by lot are the clips alone.

    ours, theirs: a figure (1 + GROUPS,) in points, of all clips and without each group of them.
    """
    difference = ours - theirs
    value, pseudo = float(difference[0]), pseudo_values(difference)
    error = float(pseudo.std(ddof=1)) / math.sqrt(len(pseudo))
    return _of_t(value, error, len(pseudo) - 1, (value,))


def pseudo_values(figure: np.ndarray) -> np.ndarray:
    """(G,) of the jackknife, from a figure of all clips and without each of G groups: (1 + G,)."""
    whole, without = figure[0], figure[1:]
    return len(without) * whole - (len(without) - 1) * without


def _of_t(mean: float, error: float, freedom: float, each: Sequence[float]) -> Comparison:
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Comparison(mean, mean - half, mean + half, tuple(each), p)


def holm(found: Mapping[Hashable, Comparison]) -> dict[Hashable, Comparison]:
    """The same rows, the p of each as it counts among all of them (Holm, 1979)."""
    largest, adjusted = 0.0, dict(found)
    for rank, name in enumerate(sorted(found, key=lambda name: found[name].p)):
        # The smallest must survive all, the next one less ...; none overtakes one before it.
        largest = max(largest, min(1.0, (len(found) - rank) * found[name].p))
        adjusted[name] = found[name]._replace(p=largest)
    return adjusted


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (with n - 1; NaN for one) of at least one value."""
    several = len(values) > 1 and all(map(math.isfinite, values))
    return fmean(values), stdev(values) if several else math.nan


def seeds_needed(differences: Sequence[Sequence[float]], effect: float) -> int | None:
    """Seeds that show a true difference of `effect` four times out of five, from differences of
    rows, a value a seed: (1.96 + 0.84)^2 sd^2 / effect^2. None without two seeds anywhere."""
    sd = pooled_sd(differences)
    return max(2, math.ceil((1.96 + 0.84) ** 2 * sd**2 / effect**2)) if sd >= 0 else None


def signed(value: float) -> str:
    """A difference as people write it; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−")
