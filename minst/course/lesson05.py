"""Lesson 05: who is matched and told what, matching scores, dice and focal loss, a trap."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from minst import losses, matcher
from minst.course.pictures import plot_curves  # noqa: F401  the lesson draws with it
from minst.course.verdict import HALF, Verdict, examine, judge, normal, numbers, say
from minst.visualize.style import RED, Picture, headline, new_figure, plain

__all__ = ["dice_loss", "focal_term", "greedy_trap", "matching_scores", "target_counts"]


def target_counts(answer: Callable) -> Verdict:
    """target_counts(N, G, C) -> (queries matched, left over, class targets of 1, targets of 0)."""

    def target_counts(n, m, k):
        return min(n, m), n - min(n, m), min(n, m), n * k - min(n, m)

    def draw(rng):
        return rng.integers(6, 15), rng.choice([*range(1, 6), *range(16, 21)]), rng.integers(2, 9)

    def zeros(count):
        return lambda n, m, k: (*target_counts(n, m, k)[:3], count(n, m, k))

    mistakes = [
        "There may be more instances than queries: then only N of them find a query.",
        lambda n, m, k: (m, n - m, m, n * k - m),
        "With more instances than queries only N are matched; the others teach nobody.",
        lambda n, m, k: (m, max(n - m, 0), m, n * k - m),
        "A matched query has targets of 0 as well, for all classes but that of its instance.",
        zeros(lambda n, m, k: max(n - m, 0) * k),
        "A matched query has one target of 1, at the class of its instance; its others have 0.",
        lambda n, m, k: (min(n, m), max(n - m, 0), min(n, m) * k, max(n - m, 0) * k),
        "Every query has a target for every class: N times C of them, not N.",
        zeros(lambda n, m, k: max(n - m, 0)),
        "There is no background class: a left-over query has a target of 0 for each of C classes.",
        zeros(lambda n, m, k: n * (k + 1) - min(n, m)),
        lambda n, m, k: (*target_counts(n, m, k)[:2], n, n * k),
        lambda n, m, k: (*target_counts(n, m, k)[:2], n, n * (k + 1) - n),
    ]
    return judge(answer, target_counts, draw, mistakes, rounds=24)


def matching_scores(answer: Callable) -> Verdict:
    """matching_scores(classes (N, C), mask_logits (N, R), labels (G,), masks (G, R)) -> (N, G)."""

    def matching_scores(classes, logits, labels, masks):
        target = matcher.Instances(labels, masks[:, None], torch.arange(len(labels)))
        return matcher.matching_scores(classes, logits[:, None], target)

    def wrong(c, z, labels, y, mask=torch.sigmoid, odds=torch.sigmoid, powers=(0.8, 0.2), size=2):
        x, p = mask(z), odds(c)[:, labels]
        dice = 2 * x @ y.T / ((x**size).sum(-1)[:, None] + (y**size).sum(-1) + 1e-4)
        return dice ** powers[0] * p ** powers[1]

    def draw(rng):
        n, m, k = rng.integers((5, 2, 3), (8, 5, 7))
        labels, masks = rng.integers(0, k, m), torch.from_numpy(rng.random((m, 12))).float()
        return 1.5 * normal(rng, n, k), 1.5 * normal(rng, n, 12), torch.from_numpy(labels), masks

    mistakes = [
        "Mask logits are not probabilities yet: x is their sigmoid.",
        partial(wrong, mask=lambda z: z),
        "Class logits are not probabilities yet: p is their sigmoid.",
        partial(wrong, odds=lambda c: c),
        "Softmax lets classes compete; here each has its own sigmoid, without a background class.",
        partial(wrong, odds=lambda c: c.softmax(-1)),
        "The powers are swapped: 0.8 belongs to the dice, 0.2 to the class.",
        partial(wrong, powers=(0.2, 0.8)),
        "The powers are missing: dice to the 0.8, p to the 0.2.",
        partial(wrong, powers=(1, 1)),
        "The sizes are x.x and y.y, sums of squares; these are plain sums.",
        partial(wrong, size=1),
    ]
    return judge(answer, matching_scores, draw, mistakes, tolerance=HALF)


def dice_loss(answer: Callable) -> Verdict:
    """dice_loss(logits (R,), target (R,)) -> 1 - 2 x.y / (x.x + y.y + 1e-4), x = sigmoid."""

    def dice_loss(logits, target):
        return losses.dice_loss(logits[None], target[None], 1.0)

    def of(x, y, power=2, factor=2.0):
        return 1 - factor * (x * y).sum() / ((x**power).sum() + (y**power).sum() + 1e-4)

    def draw(rng):
        target = torch.from_numpy(rng.random(20) * (rng.random(20) < 0.6))
        return 2 * normal(rng, 20), target.float()

    mistakes = [
        "x is the sigmoid of the logits; raw logits stand here.",
        of,
        "This is dice itself, 1 for a perfect mask: the loss is 1 - dice.",
        lambda logits, target: 1 - dice_loss(logits, target),
        "Sizes are sums of squares. With plain sums a soft target that is reached has a loss.",
        lambda logits, target: of(logits.sigmoid(), target, power=1),
        "The 2 is missing: a perfect mask would have loss 0.5.",
        lambda logits, target: of(logits.sigmoid(), target, factor=1.0),
        "A threshold has no gradient, so nothing would be learned: keep the probabilities.",
        lambda logits, target: of((logits > 0).float(), target),
    ]
    return judge(answer, dice_loss, draw, mistakes, tolerance=HALF, learned=True)


def focal_term(answer: Callable) -> Verdict:
    """focal_term(logits (n,), targets (n,), alpha, gamma) -> alpha_t (1 - p_t)^gamma CE, (n,)."""

    def focal_term(logits, targets, alpha, gamma):
        pairs = zip(logits, targets)
        return torch.stack([losses.focal_loss(z, y, 1.0, alpha, gamma) for z, y in pairs])

    def chosen(y, a, b):  # a where the target is 1, b where it is 0
        return torch.where(y == 1, a, b)

    def wrong(logits, y, alpha, gamma, base=lambda p, p_t: 1 - p_t, weight=chosen):
        p = logits.sigmoid()
        p_t = chosen(y, p, 1 - p)
        return -weight(y, alpha, 1 - alpha) * base(p, p_t) ** gamma * p_t.log()

    def draw(rng):
        targets = torch.arange(8) % 2 == rng.integers(2)
        logits = torch.from_numpy(rng.uniform(-3, 3, 8)).float()
        return logits, targets.float(), rng.uniform(0.1, 0.4), rng.uniform(1.2, 3)

    mistakes = [
        "For a target of 0 what is right has p_t = 1 - p, so its factor is p^gamma.",
        partial(wrong, base=lambda p, p_t: 1 - p),
        "This forgets the hard ones: the factor is (1 - p_t)^gamma, not p_t^gamma.",
        partial(wrong, base=lambda p, p_t: p_t),
        "alpha weighs targets of 1 only; targets of 0 have 1 - alpha.",
        partial(wrong, weight=lambda y, a, b: a),
        "alpha is exchanged: targets of 1 have alpha, targets of 0 have 1 - alpha.",
        partial(wrong, weight=lambda y, a, b: chosen(y, b, a)),
        "alpha_t is missing.",
        partial(wrong, weight=lambda y, a, b: 1.0),
        "The sign: a cross-entropy is -log p_t, never negative.",
        lambda *given: -focal_term(*given),
        "It is summed up; give one value for each element.",
        lambda *given: focal_term(*given).sum(),
    ]
    return judge(answer, focal_term, draw, mistakes, tolerance=HALF, learned=True)


def greedy_trap(answer: Callable) -> Verdict:
    """greedy_trap(N, G) -> scores (N, G) of which greedy gets < 60 % of the best sum."""
    shares = []

    def reference(num_queries, num_instances):
        scores = np.zeros((num_queries, num_instances))
        scores[:2, :2] = [[1.0, 0.9], [0.9, 0.0]]
        return scores

    def fault(got, n, m):
        scores = numbers(got, n, m)
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            wrong = "scores lie in [0, 1]; these reach from {low:.3g} to {high:.3g}."
            return say(wrong, low=scores.min(), high=scores.max())
        best = linear_sum_assignment(scores, maximize=True)
        most, first, taken = scores[best].sum(), _greedy(scores), _luckiest(scores, best)
        if taken < 0.6 * most:
            shares.append(taken / most)
            return ""
        got = "with {n} queries and {m} instances greedy gets {taken:.2f} of {most:.2f} at best."
        if first < 0.6 * most:
            hint = "Equal scores are no trap, greedy escapes if it is lucky: make one the largest."
        elif taken >= most - 1e-6:
            hint = "Let the largest score block two, one in its row, one in its column."
        else:
            hint = "What it blocks should be nearly as large as what it takes, the rest nothing."
        return say(got, hint, n=n, m=m, taken=taken, most=most)

    rng = np.random.default_rng()
    cases = [(m + rng.integers(0, 4).item(), m) for m in (2, 3, rng.integers(4, 8).item())]
    verdict = examine(answer, greedy_trap, cases, fault, reference=reference)
    most = "Greedy gets at most {share:.0%} of the best sum."
    praise = "Less than a half it never gets: can you see why?"
    return replace(verdict, reason=say(most, praise, share=max(shares))) if verdict else verdict


def _greedy(scores: np.ndarray, first: np.ndarray | float = 0.0) -> float:
    """The sum of the largest score, the largest of what its row and its column leave, and so on.

    first: (N, G), which of equal scores is taken: the one where this is largest.
    """
    left, total = scores.copy(), 0.0
    for _ in range(min(scores.shape)):
        tied = np.where(left == left.max(), 1.0 + first, 0.0)
        row, column = np.unravel_index(tied.argmax(), left.shape)
        total += scores[row, column]
        left[row], left[:, column] = -1, -1
    return total


def _luckiest(scores: np.ndarray, best: tuple[np.ndarray, np.ndarray]) -> float:
    """The most that greedy gets, if of equal scores it takes one of the best assignment."""
    wanted = np.zeros(scores.shape)
    wanted[best] = 1.0
    backwards = np.arange(scores.size).reshape(scores.shape)
    return max(_greedy(scores, first) for first in (0.0, wanted, backwards))


def plot_landscape(loss: Callable, target: tuple[float, float], name: str) -> Picture:
    """A loss (logits (2,), target (2,)) -> number over two logits, and 40 steps downhill."""
    axis, goal = torch.linspace(-6, 6, 31), torch.tensor(target)
    path = [torch.tensor([-4.0, 4.0])]
    with torch.enable_grad():
        for _ in range(40):
            z = path[-1].clone().requires_grad_()
            path.append(z.detach() - torch.autograd.grad(loss(z, goal), z)[0])
    path = torch.stack(path)
    height = torch.tensor([[float(loss(torch.stack([a, b]), goal)) for a in axis] for b in axis])
    fig = new_figure()
    end = " and ".join(f"{p:.2f}" for p in path[-1].sigmoid())
    note = "Left: the loss (dark = low); the walk from the cross to the disc. Right: its steps."
    goals = " and ".join(f"{p:g}" for p in target)
    headline(fig, f"{name}: 40 steps lead to {end}; the targets are {goals}", note)
    spans = ((0.6, 4.0), (5.6, 3.6))
    left, right = (plain(fig.place(x, 0.75, width, 2.9, below=0.5)) for x, width in spans)
    levels = torch.linspace(0, max(1.0, float(height.max())), 11)
    shades = left.contourf(axis, axis, height, levels, cmap="Greys_r")
    fig.colorbar(shades, cax=fig.place(4.7, 0.75, 0.1, 2.9)).ax.tick_params(labelsize=7)
    left.plot(*path.T, ".-", color=RED, markersize=4, linewidth=1)
    for place, mark in ((0, "X"), (-1, "o")):
        left.plot(*path[place], mark, color=RED, markersize=10)
    left.set(xlabel="logit of pixel 1", ylabel="logit of pixel 2")
    for i, style in enumerate(("-", "--")):
        label = f"pixel {i + 1}, target {target[i]:g}"
        right.plot(path[:, i].sigmoid(), style, color=RED, label=label)
    right.set(xlabel="step", ylabel="probability", ylim=(-0.05, 1.05))
    right.legend(fontsize=8, frameon=False)
    return fig
