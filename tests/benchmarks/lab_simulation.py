"""How often do the lab's intervals hold the truth, and what do they see? Labs that are drawn, not run.

    python tests/benchmarks/lab_simulation.py [--labs 20000 --worlds 150 --out results/lab/simulation.json]

Two kinds of worlds, in both of which the truth is known:

    numbers   the difference of row r and seed s is d_r + e_rs - f_s, normal, where f_s is the base's own luck, which all
              rows of its family share. Rows are alike, or one is 1.6 times as noisy and another 0.6 times.
    AP        clips with 3 instances each, easy and hard; runs that are lucky or not; variants that like some clips and not
              others. A detection is right at some thresholds and has a score; AP ranks them all, as of real runs.
              Seeds have clips of their own, as in minst.lab, or all have the same clips.

Ways to an interval: a t of each row by itself (S - 1 degrees of freedom); a pooled t that takes all R (S - 1) numbers for
independent; the pooled t of `minst.lab.statistics.Family`, which knows that the base's luck is shared; a bootstrap over seeds. And of one model on one set of clips (two rules of association): the jackknife of `compare_clips`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from minst.lab.statistics import Family, compare_clips, groups, holm

sys.path.append(str(Path(__file__).parent))
from lab_matches import ROW, Matches, average_precision  # noqa: E402

ROWS, KINDS = 9, 4


def draw_numbers(rng, labs: int, seeds: int, truth: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Differences (labs, R, S); sd (R,): of the difference of one seed, half of its variance the base's."""
    base = rng.normal(0, np.sqrt(0.5), (labs, 1, seeds))
    own = rng.normal(0, 1, (labs, len(truth), seeds)) * np.sqrt(sd**2 - 0.5 + 1e-12)[:, None]
    return truth[:, None] + own - base


def intervals(d: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and half width (labs, R) of each way; the last is `Family`, for all labs at once."""
    labs, R, S = d.shape
    mean, own = d.mean(2), d.var(2, ddof=1)
    pooled = own.mean(1, keepdims=True)  # (labs, 1)
    u = np.minimum(1, d.mean(1).var(1, ddof=1)[:, None] / pooled)
    df = np.maximum(S - 1, 1 / (u**2 / (S - 1) + (1 - u) ** 2 / ((R - 1) * (S - 1))))
    ways = {"own t": (own, S - 1), "pooled t, R (S - 1)": (pooled, R * (S - 1)), "pooled t": (pooled, df)}
    return {
        name: (mean, stats.t.ppf(0.975, freedom) * np.sqrt(variance / S) + 0 * mean)
        for name, (variance, freedom) in ways.items()
    }


def as_family(d: np.ndarray) -> Family:
    """Differences (R, S) of one lab."""
    return Family({str(row): dict(enumerate(each.tolist())) for row, each in enumerate(d)})


def bootstrap(rng, d: np.ndarray, samples: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Ends (labs, R) of the middle 95 % of samples of the seeds."""
    weights = rng.multinomial(d.shape[2], np.full(d.shape[2], 1 / d.shape[2]), size=samples)
    drawn = d @ weights.T / d.shape[2]  # (labs, R, samples)
    return tuple(np.percentile(drawn, [2.5, 97.5], axis=2))


def coverage(labs: int, seeds: int) -> dict:
    """Of intervals, in percent, where the truth is 0; half widths in units of most rows' sd of one seed."""
    rng, found = np.random.default_rng([17594, seeds]), {}
    for name, first in (("alike", [1.0, 1.0]), ("unlike", [1.6, 0.75])):
        sd = np.array([*first, *[1.0] * (ROWS - 2)])
        d = draw_numbers(rng, labs, seeds, np.zeros(ROWS), sd)
        found[name] = {}
        for way, (mean, half) in intervals(d).items():
            held = np.abs(mean) <= half
            found[name][way] = {
                "coverage": round(100 * float(held.mean()), 1),
                "of the noisiest row": round(100 * float(held[:, 0].mean()), 1),
                "half width": round(float(half.mean()), 2),
            }
        low, high = bootstrap(rng, d[: labs // 20])
        found[name]["bootstrap over seeds"] = {"coverage": round(100 * float(((low <= 0) & (high >= 0)).mean()), 1)}
    return found


def alarms(labs: int, seeds: int) -> dict:
    """Labs in percent in which any of the rows seems to differ although none does: each row at 5 %, and after Holm."""
    d, alone, corrected = np.zeros(ROWS), 0, 0
    for lab in draw_numbers(np.random.default_rng([2, seeds]), labs, seeds, d, np.ones(ROWS)):
        family = as_family(lab)
        found = {name: family.compare(name) for name in family.rows}
        alone += min(each.p for each in found.values()) < 0.05
        corrected += min(each.p for each in holm(found).values()) < 0.05
    return {"each row at 5 %": round(100 * alone / labs, 1), "after Holm": round(100 * corrected / labs, 1)}


def power(labs: int, seeds: int, effect: float) -> float:
    """How often, in percent, the interval of a row that differs by so many sd lies above 0."""
    truth = np.zeros(ROWS)
    truth[0] = effect
    d = draw_numbers(np.random.default_rng([3, seeds]), labs, seeds, truth, np.ones(ROWS))
    mean, half = intervals(d)["pooled t"]
    return round(100 * float((mean > half)[:, 0].mean()), 1)


def numbers(labs: int, seeds: int) -> dict:
    """All that is said of normal differences."""
    effects = (1.0, 1.5, 2.0, 3.0)
    return coverage(labs, seeds) | {
        "labs with a false alarm": alarms(min(labs, 1000), seeds),
        "power at an effect of so many sd": {str(effect): power(labs, seeds, effect) for effect in effects},
    }


class World:
    """Clips, and what runs find on them. A run: (clips (V,), likes (V,), luck) -> Matches."""

    def __init__(self, rng, clips: int):
        self.rng, self.clips = rng, clips
        self.hard = rng.normal(0, 0.8, clips)
        self.kinds = rng.integers(KINDS, size=(clips, 3))
        self.instances = np.zeros((clips, KINDS), dtype=int)
        np.add.at(self.instances, (np.repeat(np.arange(clips), 3), self.kinds.ravel()), 1)

    def run(self, quality: float, likes: np.ndarray, noise: np.ndarray | None = None) -> Matches:
        """Three instances a clip, found as well as quality, clip and luck say, and three false alarms."""
        rng, V = self.rng, self.clips
        noise = rng.normal(0, 0.8, (V, 3)) if noise is None else noise
        z = quality - self.hard[:, None] + likes[:, None] + noise
        passed = np.clip(np.floor(5 + 3 * z), 0, 10).astype(int)
        score = 1 / (1 + np.exp(-z - rng.normal(0, 0.5, z.shape)))
        true = np.zeros(3 * V, dtype=ROW)
        true["clip"], true["category"] = np.repeat(np.arange(V), 3), self.kinds.ravel()
        true["score"], true["right"] = score.ravel(), ((1 << passed) - 1).ravel()
        false = true.copy()
        false["category"], false["right"] = rng.integers(KINDS, size=3 * V), 0
        false["score"] = 1 / (1 + np.exp(1.5 - rng.normal(0, 0.7, 3 * V)))
        return Matches(np.concatenate([true, false]), self.instances)


def ap_world(rng, seeds: int, clips: int, own: bool) -> np.ndarray:
    """Differences (R, S) in points of AP of variants that are as good as the base."""
    R, d, worlds = 5, np.zeros((5, seeds)), {}
    for s in range(seeds):
        key = s if own else 0
        if key not in worlds:
            world = World(rng, clips)
            worlds[key] = world, rng.normal(0, 0.15, (R + 1, clips))
        world, likes = worlds[key]
        # the luck of a training
        values = [average_precision(world.run(rng.normal(0, 0.04), like))[0] for like in likes]
        d[:, s] = 100 * (np.array(values[1:]) - values[0])
    return d


def ap(worlds: int, seeds: int, clips: int = 100) -> dict:
    """Coverage of the pooled t in percent, of differences in AP whose truth is 0."""
    found = {}
    for own in (True, False):
        rng, held, sds = np.random.default_rng([303, seeds, own]), [], []
        for _ in range(worlds):
            d = ap_world(rng, seeds, clips, own)
            family = as_family(d)
            sds.append(family.sd)
            held += [c.low <= 0 <= c.high for c in map(family.compare, family.rows)]
        name = "clips of their own" if own else "the same clips"
        found[name] = {"coverage": round(100 * float(np.mean(held)), 1), "sd": round(float(np.mean(sds)), 2)}
    return found


def jackknife(worlds: int, clips: int = 200) -> dict:
    """Coverage of `compare_clips`: two settings that are as good, on the same clips of one model."""
    rng, held, widths = np.random.default_rng(909), [], []
    for _ in range(worlds):
        world, sides = World(rng, clips), []
        noise = rng.normal(0, 0.7, (clips, 3))  # what both see
        for _ in range(2):
            matches = world.run(0.0, np.zeros(clips), noise + rng.normal(0, 0.3, noise.shape))
            sides.append(100 * average_precision(matches, groups(clips)))
        found = compare_clips(*sides)
        held.append(found.low <= 0 <= found.high)
        widths.append(found.high - found.difference)
    return {"coverage": round(100 * float(np.mean(held)), 1), "half width": round(float(np.mean(widths)), 2)}


def simulate(labs: int, worlds: int) -> dict:
    """All of it, as it is committed."""
    found = {"labs": labs, "worlds": worlds, "numbers": {}, "AP": {}}
    for seeds in (3, 4, 5):
        found["numbers"][f"{seeds} seeds"] = numbers(labs, seeds)
    found["AP"]["4 seeds"] = ap(worlds, 4)
    found["jackknife"] = jackknife(4 * worlds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labs", type=int, default=20_000)
    parser.add_argument("--worlds", type=int, default=150)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(simulate(arguments.labs, arguments.worlds), indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
