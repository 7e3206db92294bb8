"""Lesson 09: verdicts of intervals, the jackknife of pairs, what pairs alone tell, how many seeds.

Symbols: a figure is (1 + GROUPS,) points of AP, with all clips and without each group of them.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from minst.course.pictures import plot_lines  # noqa: F401  (the lesson draws with it)
from minst.course.verdict import Verdict, examine, judge, numbers, plain_text, say
from minst.lab.statistics import GROUPS, Comparison, pseudo_values, seeds_needed, spread
from minst.visualize.style import GREY, INK, RED, Picture, headline, new_figure, plain, rgb

T_19 = 2.093  # of a t with 19 degrees of freedom, 2.5 % lie above

__all__ = ["hidden_by_noise", "paired_interval", "seeds_for", "verdict_of"]


def verdict_of(answer: Callable) -> Verdict:
    """verdict_of(difference, low, high, claim) -> "agrees", "disagrees", "cannot tell" or so."""

    def verdict_of(difference, low, high, claim):
        return Comparison(difference, low, high, ()).verdict(claim)

    def claiming(wrong):
        return lambda difference, low, high, claim: verdict_of(difference, low, high, wrong(claim))

    def draw(rng):
        difference, half = rng.choice([-1, 1]) * rng.uniform(0.2, 3), rng.uniform(0.1, 5)
        high = difference + half * rng.uniform(0.5, 1.5)
        return difference, difference - half, high, rng.integers(-1, 2)

    mistakes = [
        "The mean decides here. A claim holds only when the whole interval lies on its side.",
        lambda difference, low, high, claim: verdict_of(*[difference] * 3, claim),
        "The claim's sign is turned round: +1 says worse, so a difference below zero agrees.",
        claiming(lambda claim: -claim),
        "An interval across zero refutes nothing: the claimed effect may be inside.",
        lambda *given: verdict_of(*given).replace("cannot tell", "disagrees"),
        "An interval across zero confirms nothing: no effect is inside as well.",
        lambda *given: verdict_of(*given).replace("cannot tell", "agrees"),
        "With claim 0 nothing is said of this row, so there is nothing to agree with.",
        claiming(lambda claim: claim or 1),
        "Claim -1 says that the setting is better; this treats it as worse.",
        claiming(abs),
    ]
    return judge(answer, verdict_of, draw, mistakes, rounds=80, view=plain_text)


def paired_interval(answer: Callable) -> Verdict:
    """paired_interval(ours, theirs (1 + GROUPS,)) -> (low, high), by the jackknife."""

    def error(d, values=pseudo_values, ddof=1, of=GROUPS):
        return values(d).std(ddof=ddof) / math.sqrt(of)

    def around(middle, half):
        return float(middle - half), float(middle + half)

    def paired_interval(ours, theirs, t=T_19, **otherwise):
        d = ours - theirs
        return around(d[0], t * error(d, **otherwise))

    def apart(ours, theirs):
        (a, b), (c, d) = (paired_interval(x, 0 * x) for x in (ours, theirs))
        return a - d, b - c

    def about_the_mean(ours, theirs):
        d = ours - theirs
        return around(pseudo_values(d).mean(), T_19 * error(d))

    def draw(rng):
        shared = rng.normal(0, 0.3, GROUPS)
        values = rng.uniform(30, 70, 2)
        without = (values + rng.normal(0, 0.2, 2))[:, None] + shared
        without += rng.normal(0, 0.1, without.shape)
        return (np.append(value, rest) for value, rest in zip(values, without))

    mistakes = [
        "The difference is ours - theirs, not theirs - ours.",
        lambda ours, theirs: paired_interval(theirs, ours),
        "These are differences without a group. They are alike, since they share 18 of 20 groups: "
        "take the pseudo-values, 20 times the whole less 19 times the rest.",
        partial(paired_interval, values=lambda d: d[1:]),
        "A mean of 20 values varies less than one of them: divide by the root of 20.",
        partial(paired_interval, of=1),
        "The standard deviation of a sample divides by 19: `ddof=1`.",
        partial(paired_interval, ddof=0),
        "1.96 is for a known spread. With 20 values t is 2.093.",
        partial(paired_interval, t=1.96),
        "The middle is the difference with all clips, the first of the 21.",
        about_the_mean,
        "This is an interval for each model, then the difference of their ends: pairing is lost.",
        apart,
        unpaired_interval,
    ]
    return judge(answer, paired_interval, draw, mistakes, rounds=4)


def hidden_by_noise(answer: Callable) -> Verdict:
    """hidden_by_noise(seeds) -> changed, full: AP that pairs can tell apart, two tables cannot."""

    def reference(seeds):
        full = [20 + 5.0 * seed for seed in range(seeds)]
        return [ap - 1 - 0.3 * (seed % 2) for seed, ap in enumerate(full)], full

    def fault(got, seeds):
        changed, full = (numbers(values, seeds) for values in got)
        if not all(((values >= 0) & (values <= 100)).all() for values in (changed, full)):
            return say("AP is a number from 0 to 100.")
        values = (changed, full, changed - full)
        (_, ours), (_, theirs), (mean, sd) = (spread(v.tolist()) for v in values)
        if sd < 0.1 - 1e-9:
            alike = "the differences are too alike: standard deviation {sd:.2f}, 0.1 is asked."
            return say(alike, sd=sd)
        if abs(mean) > 2 + 1e-9:
            far = "the models differ by {points:.1f} points; at most 2 are asked."
            return say(far, points=abs(mean))
        reach = 1.96 / math.sqrt(seeds)
        paired, unpaired = reach * sd, reach * math.hypot(ours, theirs)
        if mean - paired > 0:
            return say("the changed model is better here. Changed comes first, and is to be worse.")
        if mean + paired >= 0:
            wide = "the paired interval of {seeds} seeds reaches {high:+.1f}: it is not below zero."
            hint = "Let both models share the noise."
            return say(wide, hint, seeds=seeds, high=mean + paired)
        if mean + unpaired < 0:
            hint = "two tables can tell these apart as well. Let seeds differ more, in both models."
            return say(hint)
        return ""

    cases = zip(np.random.default_rng().permutation(np.arange(4, 13))[:4].tolist())
    praise = "Two tables would have said: cannot tell. The pairs can."
    return examine(answer, hidden_by_noise, cases, fault, praise, reference)


def seeds_for(answer: Callable) -> Verdict:
    """seeds_for(differences, effect) -> int: seeds that show `effect`, from paired differences."""

    def need(variance, factor=1.96 + 0.84, whole=math.ceil, least=2):
        """What one would say who estimates the variance of the rows in another way."""
        return lambda rows, effect: max(least, whole(factor**2 * variance(rows) / effect**2))

    def pooled(rows, less=1):
        squares = sum(np.var(row) * len(row) for row in rows)
        return squares / sum(len(row) - less for row in rows if len(row) > 1)

    def averaged(rows, of):
        return np.mean([of(row, ddof=1) for row in rows if len(row) > 1])

    def draw(rng):
        counts, deviations = rng.integers(2, 6, 4), rng.permutation([0.8, 2.0, 5.0, 8.0])
        rows = [rng.normal(rng.uniform(-6, 6), sd, n) for n, sd in zip(counts, deviations)]
        rows.append(rng.normal(0, 3, 1))
        large = rng.random() < 0.3  # then the formula alone says that one seed is enough
        return [row.tolist() for row in rows], rng.uniform(*((30, 60) if large else (0.4, 1.2)))

    mistakes = [
        "Divide the squares by the seeds less one of each row: one is spent on its mean.",
        need(partial(pooled, less=0)),
        "The formula wants the variance; this is the standard deviation.",
        need(lambda rows: math.sqrt(pooled(rows))),
        "With 1.96 alone the effect is seen every other time; four of five need the 0.84 as well.",
        need(pooled, factor=1.96),
        "Standard deviations are averaged. Pool the squares, and divide by the degrees of freedom.",
        need(lambda rows: averaged(rows, np.std) ** 2),
        "Variances of rows are averaged; a row with more seeds has more to say: pool the squares.",
        need(lambda rows: averaged(rows, np.var)),
        "All rows are thrown together: deviations are from each row's own mean.",
        need(lambda rows: np.var(np.concatenate(rows), ddof=1)),
        "At least 2: the formula may say 1, but of a single seed nobody knows the spread.",
        need(pooled, least=0),
        "This is rounded down, so that a seed is missing: round up.",
        need(pooled, whole=math.floor),
        "The effect is squared too, so half the effect takes four times the seeds.",
        lambda rows, effect: need(pooled)(rows, math.sqrt(effect)),
    ]
    return judge(answer, seeds_needed, draw, mistakes, exercise="seeds_for", rounds=20)


def unpaired_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """As `paired_interval`, for who has two tables only: the errors of both models are added."""
    squares = sum(pseudo_values(figure).var(ddof=1) / GROUPS for figure in (ours, theirs))
    middle, half = ours[0] - theirs[0], T_19 * math.sqrt(squares)
    return float(middle - half), float(middle + half)


def row_of(says: str, low: float, high: float) -> tuple[str, Comparison]:
    """A line of `minst.lab.plots.plot_forest` that stands alone, so that its interval decides."""
    middle = (low + high) / 2
    # of a single comparison p is below 0.05 just where the interval misses zero
    return says, Comparison(middle, low, high, (middle,), p=float(low <= 0 <= high))


def plot_intervals(paired: dict[str, tuple], apart: dict[str, tuple]) -> Picture:
    """Intervals of differences in points, {row: (low, high)}: paired, and as of two tables."""
    fig = new_figure()
    wider = np.median([np.ptp(apart[row]) / max(np.ptp(paired[row]), 1e-9) for row in paired])
    note = "95 % intervals. Black: the same clips for both settings. Red: as if each had its own."
    headline(fig, f"Without pairing, the interval is {wider:.1f} times as wide (median)", note)
    axes = plain(fig.place(3.1, 0.65, 6.0, 0.1 + 0.25 * len(paired), below=0.5))
    for found, color, width in ((apart, RED, 1.5), (paired, INK, 5)):
        low, high = np.array(list(found.values())).T
        axes.hlines(range(len(found)), low, high, color=color, linewidth=width)
    axes.axvline(0, color=GREY)
    axes.set_yticks(range(len(paired)), list(paired))
    axes.set_ylim(len(paired) - 0.4, -0.6)
    axes.set_xlabel("points of video AP more than what it is compared with", fontsize=8)
    return fig


def plot_pairs(changed: list[float], full: list[float]) -> Picture:
    """What two tables say of two models, and what their pairs say."""
    ours, theirs = np.array(changed), np.array(full)
    each, root = ours - theirs, 1.96 / math.sqrt(len(ours))
    sds = each.std(ddof=1), math.hypot(ours.std(ddof=1), theirs.std(ddof=1))
    fig = new_figure()
    head = f"The change costs {-each.mean():.1f} points: pairs tell it, two tables hide it"
    headline(fig, head, "Left: a line for each seed. Right: the difference of the means, 95 %.")
    left, right = (plain(fig.place(x, 0.8, w, 2.0, below=0.5)) for x, w in ((0.6, 3), (5.5, 3.6)))
    for seed, pair in enumerate(zip(theirs, ours)):
        left.plot([0, 1], pair, "o-", color=rgb(seed + 1))
    left.set(xlim=(-0.3, 1.3), ylabel="AP")
    left.set_xticks([0, 1], ["the full model", "changed"])
    halves = root * np.array(sds)
    right.errorbar([each.mean()] * 2, [0, 1], xerr=halves, fmt="o", color=INK, capsize=6)
    right.axvline(0, color=GREY)
    ends = [f"{each.mean() - half:+.1f} to {each.mean() + half:+.1f}" for half in halves]
    right.set(ylim=(1.6, -0.6))
    right.set_xlabel("points of AP", fontsize=8)
    right.set_yticks([0, 1], [f"pairs\n{ends[0]}", f"two tables\n{ends[1]}"])
    return fig
