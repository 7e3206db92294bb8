"""Means, spreads, and how sure a difference is: a bootstrap over seeds and clips of paired runs.

    compare(estimates of a variant, of the full model)   difference, 95 % interval, each seed

Two runs of one seed saw the same clips in the same order and are judged by the same clips. So their
difference is taken first, then drawn again: seeds and clips, both with replacement, the same clips
for both runs. What is common to both (a hard clip, a lucky seed) cancels.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["Comparison", "Estimate", "Spread", "compare", "draw", "seeds_needed", "signed",
           "spread"]  # fmt: skip

SAMPLES = 2000


class Estimate:
    """One number of one run, in 0..1: `value`, and `sample(weights)` for samples of the clips.

    of: weights (B, V), how often each of B samples holds each of V clips -> (B,). The weights are
    the same array for a whole report, so the answer to them is kept.
    """

    def __init__(self, clips: int, of: Callable[[np.ndarray], np.ndarray]):
        self.clips, self._of, self._kept = clips, of, (None, None)

    @cached_property
    def value(self) -> float:
        """What it is on all clips, once each."""
        return float(self._of(np.ones((1, self.clips)))[0])

    def sample(self, weights: np.ndarray) -> np.ndarray:
        """What it is on samples of the clips: weights (B, V) -> (B,)."""
        if self._kept[0] is not weights:
            self._kept = (weights, self._of(weights))
        return self._kept[1]


class Spread(NamedTuple):
    """Of the seeds of one row. sd is NaN for one seed."""

    mean: float
    sd: float
    values: tuple[float, ...]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1) of at least one value."""
    several = len(values) > 1 and all(map(math.isfinite, values))
    sd = statistics.stdev(values) if several else math.nan
    return Spread(statistics.fmean(values), sd, tuple(values))


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
        # by how much the claim holds, at least and at most
        low, high = (-self.high, -self.low) if claim > 0 else (self.low, self.high)
        return "agrees" if low > 0 else "disagrees" if high < 0 else "cannot tell"


def compare(ours: Sequence[Estimate], theirs: Sequence[Estimate]) -> Comparison:
    """Estimates of the same seeds in the same order, over the same clips.

    ValueError when they cannot be paired.
    """
    clips = {estimate.clips for estimate in (*ours, *theirs)}
    if not ours or len(ours) != len(theirs) or len(clips) != 1:
        pair = f"{len(ours)} runs with {len(theirs)}, on {sorted(clips)} clips"
        raise ValueError(f"cannot pair {pair}")
    weights = draw(SAMPLES, clips.pop(), 0)
    chosen = draw(SAMPLES, len(ours), 1) / len(ours)  # (B, S) shares of the seeds
    samples = [a.sample(weights) - b.sample(weights) for a, b in zip(ours, theirs)]  # S of (B,)
    means = (np.stack(samples, axis=1) * chosen).sum(axis=1)
    means = means[np.isfinite(means)]  # a sample may lack whatever there is to count
    low, high = np.percentile(means, [2.5, 97.5]) if len(means) else (math.nan, math.nan)
    each = tuple(a.value - b.value for a, b in zip(ours, theirs))
    return Comparison(statistics.fmean(each), float(low), float(high), each)


@lru_cache(maxsize=16)
def draw(samples: int, count: int, stream: int) -> np.ndarray:
    """How often each of `count` things is in a sample of `count` drawn with replacement.

    Returns (samples, count). From PCG64's raw bits, which no version of NumPy changes: a report
    comes out the same everywhere.
    """
    seed = np.random.SeedSequence([2303, 17594, stream])
    bits = np.random.PCG64(seed).random_raw(samples * count)
    picked = ((bits >> np.uint64(11)) * 2.0**-53 * count).astype(np.int64).reshape(samples, count)
    return np.stack([np.bincount(row, minlength=count) for row in picked]).astype(float)


def signed(value: float) -> str:
    """A difference as people write it; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def seeds_needed(differences: Sequence[Sequence[float]], effect: float) -> int | None:
    """Seeds after which a true difference of `effect` is seen four times out of five.

    (1.96 + 0.84)^2 sd^2 / effect^2 for a 95 % interval of paired runs, sd pooled over the rows of
    `differences`, a value a seed. None without two seeds anywhere.
    """
    known = [spread(row) for row in differences if len(row) > 1]
    known = [row for row in known if math.isfinite(row.sd)]
    if not known:
        return None
    freedom = sum(len(row.values) - 1 for row in known)
    variance = math.fsum(row.sd**2 * (len(row.values) - 1) for row in known) / freedom
    return max(2, math.ceil((1.96 + 0.84) ** 2 * variance / effect**2))
