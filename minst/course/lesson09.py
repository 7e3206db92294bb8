"""Lesson 09: a verdict from an interval, a paired bootstrap, what pairs alone can tell, how many seeds an effect needs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minst.course.verdict import Mistake, Verdict, attempt, correct, judge, wrong
from minst.lab.statistics import SAMPLES, Comparison, Measured, compare, seeds_needed, spread
from minst.lab.statistics import draw as draw_again

__all__ = ["hidden_by_noise", "paired_interval", "seeds_for", "verdict_of"]


def verdict_of(answer: Callable) -> Verdict:
    """verdict_of(difference, low, high, claim) -> "agrees" | "disagrees" | "cannot tell" | "no claim"."""

    def verdict_of(difference, low, high, claim):
        return Comparison(difference, low, high, ()).verdict(claim)

    def unsure(word):
        return lambda *given: verdict_of(*given).replace("cannot tell", word)

    def draw(rng):
        difference, half = rng.choice([-1, 1]) * rng.uniform(0.2, 3), rng.uniform(0.1, 5)
        low, high = difference - half, difference + half * rng.uniform(0.5, 1.5)
        return float(difference), float(low), float(high), int(rng.integers(-1, 2))

    mistakes = [
        Mistake(
            lambda d, low, high, claim: verdict_of(d, d, d, claim),
            "The mean decides here; a claim holds only when the whole interval lies on its side.",
        ),
        Mistake(
            lambda d, low, high, claim: verdict_of(d, low, high, -claim),
            "The claim's sign is turned round: +1 says worse, so a difference below zero agrees.",
        ),
        Mistake(unsure("disagrees"), "An interval across zero refutes nothing: the claimed effect may be inside."),
        Mistake(unsure("agrees"), "An interval across zero confirms nothing: no effect is inside as well."),
        Mistake(
            lambda d, low, high, claim: verdict_of(d, low, high, claim or 1),
            "Claim 0: the paper says nothing of this row, so there is nothing to agree with.",
        ),
        Mistake(
            lambda d, low, high, claim: verdict_of(d, low, high, abs(claim)),
            "Claim -1 says that the variant is better; this treats it as worse.",
        ),
    ]
    return judge(answer, verdict_of, draw, mistakes, rounds=80)


def paired_interval(answer: Callable) -> Verdict:
    """paired_interval(ours, theirs (S, V, 2), clips (B, V), seeds (B, S)) -> (low, high), held against `compare`."""

    def figures(pairs):  # (S, V, 2)
        return [Measured(None, {"consistency": {"distances": [3], "pairs": p}}).figure(("retention", 3)) for p in pairs]

    def paired_interval(ours, theirs, clips, seeds):
        found = compare(figures(ours), figures(theirs))  # draws these clips and seeds itself
        return found.low, found.high

    def shares(pairs, clips):
        kept, of = np.moveaxis(clips @ pairs, -1, 0)
        return (kept / of).T  # (B, S)

    def by_clip(pairs, clips):
        return clips @ (pairs[..., 0] / pairs[..., 1]).T / clips.shape[1]

    def interval(ours, theirs, clips, seeds, share=shares, ends=(2.5, 97.5)):
        return np.percentile(((share(ours, clips) - share(theirs, clips)) * seeds).mean(1), ends)

    def apart(ours, theirs, clips, seeds):
        (a, b), (c, d) = (interval(x, 0 * x + 1, clips, seeds) for x in (ours, theirs))
        return a - d, b - c

    def draw(rng):
        S, V = int(rng.integers(2, 5)), int(rng.integers(6, 12))
        of = rng.integers(3, 60, (2, S, V))
        kept = rng.binomial(of, np.clip(rng.uniform(0.4, 0.9, (2, S, 1)) + rng.normal(0, 0.2, V), 0.05, 0.95))
        ours, theirs = np.stack([kept, of], axis=-1).astype(float)
        return ours, theirs, draw_again(SAMPLES, V, 0), draw_again(SAMPLES, S, 1)

    mistakes = [
        Mistake(
            lambda a, b, *drawn: paired_interval(b, a, *drawn), "The difference is ours - theirs, not theirs - ours."
        ),
        Mistake(
            lambda *given: interval(*given, share=by_clip),
            "Shares of single clips are averaged; a sample's retention is one sum divided by another.",
        ),
        Mistake(
            lambda a, b, clips, seeds: interval(a, b, clips, np.ones_like(seeds)),
            "Clips are drawn again, seeds are not: use the counts in `seeds`.",
        ),
        Mistake(
            lambda a, b, clips, seeds: interval(a, b, np.ones_like(clips), seeds),
            "Seeds are drawn again, clips are not: weigh each clip by its count in `clips`.",
        ),
        Mistake(
            lambda a, b, clips, seeds: interval(a, b, clips, seeds * len(a)),
            "The drawn seeds are summed; take their mean: divide by their number S.",
        ),
        Mistake(
            lambda *given: interval(*given, ends=(5, 95)),
            "Percentiles 5 and 95 hold the middle 90 %; leave 2.5 % out at each end.",
        ),
        Mistake(apart, "This is an interval for each model, then the difference of their ends: pairing is lost."),
    ]
    return judge(answer, paired_interval, draw, mistakes, rounds=3, praise="The same interval as minst.lab.compare.")


def hidden_by_noise(answer: Callable) -> Verdict:
    """hidden_by_noise(seeds) -> changed, full: `seeds` AP each; pairs can tell them apart, two tables cannot."""
    exercise = "hidden_by_noise"
    for seeds in np.random.default_rng().permutation(np.arange(4, 13))[:4].tolist():
        found, verdict = attempt(exercise, answer, seeds, where=f"with {seeds} seeds, ")
        if verdict is not None:
            return verdict
        try:
            changed, full = (np.asarray(values, dtype=float) for values in found)
        except (TypeError, ValueError):
            return wrong(exercise, f"it gives {found!r:.60}; expected a pair (changed, full) of {seeds} numbers each.")
        if not changed.shape == full.shape == (seeds,):
            return wrong(exercise, f"the shapes are {changed.shape} and {full.shape}, expected ({seeds},) each.")
        if not ((np.stack([changed, full]) >= 0) & (np.stack([changed, full]) <= 100)).all():
            return wrong(exercise, "AP is a number from 0 to 100.")
        ours, theirs, each = (spread(values.tolist()) for values in (changed, full, changed - full))
        if each.sd < 0.1 - 1e-9:
            return wrong(exercise, f"the differences are too alike: standard deviation {each.sd:.2f}, 0.1 is asked.")
        if abs(each.mean) > 2 + 1e-9:
            return wrong(exercise, f"the models differ by {abs(each.mean):.1f} points; at most 2 are asked.")
        paired, unpaired = (1.96 * sd / math.sqrt(seeds) for sd in (each.sd, math.hypot(ours.sd, theirs.sd)))
        if each.mean - paired > 0:
            return wrong(exercise, "the changed model is better here. Changed comes first, and is to be worse.")
        if each.mean + paired >= 0:
            said = f"with {seeds} seeds the paired interval reaches {each.mean + paired:+.1f}"
            return wrong(exercise, f"{said}: it is not wholly below zero. Let both models share the noise.")
        if each.mean + unpaired < 0:
            return wrong(exercise, "two tables can tell these apart as well. Let seeds differ more, for both models.")
    return correct(exercise, "Two tables would have said: cannot tell. The pairs can.")


def seeds_for(answer: Callable) -> Verdict:
    """seeds_for(differences, effect) -> int: seeds after which `effect` is seen, from paired differences of rows."""

    def seeds_for(differences, effect):
        return seeds_needed(differences, effect)

    def need(variance, effect, factor=1.96 + 0.84, whole=math.ceil):
        return max(2, whole(factor**2 * variance / effect**2))

    def pooled(rows, less=1):
        return sum(np.var(row) * len(row) for row in rows) / sum(len(row) - less for row in rows if len(row) > 1)

    def averaged(rows, of):
        return np.mean([of(row, ddof=1) for row in rows if len(row) > 1])

    def draw(rng):
        rows = [rng.normal(rng.uniform(-6, 6), sd, rng.integers(2, 6)) for sd in rng.permutation([0.8, 2.0, 5.0, 8.0])]
        rows.append(rng.normal(0, 3, 1))
        return [row.tolist() for row in rows], float(rng.uniform(0.4, 1.2))

    mistakes = [
        Mistake(
            lambda rows, effect: need(pooled(rows, less=0), effect),
            "Divide the squares by the seeds less one of each row: one is spent on its mean.",
        ),
        Mistake(
            lambda rows, effect: need(math.sqrt(pooled(rows)), effect),
            "The formula wants the variance; this is the standard deviation.",
        ),
        Mistake(
            lambda rows, effect: need(pooled(rows), effect, factor=1.96),
            "With 1.96 alone the effect is seen every other time; four of five need the 0.84 as well.",
        ),
        Mistake(
            lambda rows, effect: need(averaged(rows, np.std) ** 2, effect),
            "Standard deviations are averaged; pool the squares, then divide by the degrees of freedom.",
        ),
        Mistake(
            lambda rows, effect: need(averaged(rows, np.var), effect),
            "Variances of rows are averaged; a row with more seeds has more to say: pool the squares.",
        ),
        Mistake(
            lambda rows, effect: need(np.var(np.concatenate(rows), ddof=1), effect),
            "All rows are thrown together: deviations are from the mean of each row, as rows differ on purpose.",
        ),
        Mistake(
            lambda rows, effect: need(pooled(rows), effect, whole=math.floor),
            "Rounded down, a seed is missing: round up.",
        ),
        Mistake(
            lambda rows, effect: need(pooled(rows) * effect, effect),
            "The effect is squared too: half the effect takes four times the seeds.",
        ),
    ]
    return judge(answer, seeds_for, draw, mistakes, rounds=20)
