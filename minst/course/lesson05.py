"""Lesson 05: who is matched and told what, matching scores, the dice and the focal loss, a trap for greedy matching."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from minst import losses, matcher
from minst.course.verdict import Mistake, Verdict, correct, judge, not_attempted, wrong

__all__ = ["dice_loss", "focal_term", "greedy_trap", "matching_scores", "target_counts"]


def target_counts(answer: Callable) -> Verdict:
    """target_counts(N, M, K) -> (matched queries, left-over queries, class targets of 1, class targets of 0)."""

    def target_counts(n, m, k):
        return min(n, m), n - min(n, m), min(n, m), n * k - min(n, m)

    def draw(rng):
        return int(rng.integers(6, 15)), int(rng.choice([*range(1, 6), *range(16, 21)])), int(rng.integers(2, 9))

    mistakes = [
        Mistake(lambda n, m, k: (m, n - m, m, n * k - m),
                "There may be more instances than queries: then only N of them find a query."),
        Mistake(lambda n, m, k: (m, max(n - m, 0), m, n * k - m),
                "With more instances than queries only N are matched; the others teach nobody."),
        Mistake(lambda n, m, k: (min(n, m), max(n - m, 0), min(n, m), max(n - m, 0) * k),
                "A matched query has targets of 0 as well, for all classes but that of its instance."),
        Mistake(lambda n, m, k: (min(n, m), max(n - m, 0), min(n, m) * k, max(n - m, 0) * k),
                "A matched query has one target of 1, at the class of its instance; its other classes have 0."),
        Mistake(lambda n, m, k: (min(n, m), max(n - m, 0), min(n, m), max(n - m, 0)),
                "Every query has a target for every class: N times K of them, not N."),
    ]  # fmt: skip
    return judge(answer, target_counts, draw, mistakes, rounds=24)


def matching_scores(answer: Callable) -> Verdict:
    """matching_scores(class_logits (N, K), mask_logits (N, P), labels (M,), masks (M, P)) -> (N, M)."""

    def matching_scores(classes, logits, labels, masks):
        target = matcher.Instances(labels, masks[:, None], torch.arange(len(labels)))
        return matcher.matching_scores(classes, logits[:, None], target)

    def but(mask=torch.sigmoid, odds=torch.sigmoid, powers=(0.8, 0.2), size=torch.square):
        def imitate(classes, logits, labels, masks):
            x, p = mask(logits), odds(classes)[:, labels]
            dice = 2 * x @ masks.T / (size(x).sum(-1)[:, None] + size(masks).sum(-1) + 1e-4)
            return dice ** powers[0] * p ** powers[1]

        return imitate

    def draw(rng):
        n, m, k = int(rng.integers(5, 8)), int(rng.integers(2, 5)), int(rng.integers(3, 7))
        classes, logits, masks = rng.normal(0, 1.5, (n, k)), rng.normal(0, 1.5, (n, 12)), rng.random((m, 12))
        classes, logits, masks = (torch.as_tensor(part, dtype=torch.float32) for part in (classes, logits, masks))
        return classes, logits, torch.as_tensor(rng.integers(0, k, m)), masks

    mistakes = [
        Mistake(but(mask=lambda z: z), "Mask logits are not probabilities yet: x is their sigmoid."),
        Mistake(but(odds=lambda z: z), "Class logits are not probabilities yet: p is their sigmoid."),
        Mistake(but(odds=lambda z: z.softmax(-1)),
                "Softmax lets the classes compete; here each has a sigmoid of its own, and there is no background class."),
        Mistake(but(powers=(0.2, 0.8)), "The powers are swapped: 0.8 belongs to the dice, 0.2 to the class."),
        Mistake(but(powers=(1, 1)), "The powers are missing: dice to the 0.8, p to the 0.2."),
        Mistake(but(size=lambda v: v), "The sizes are x.x and y.y, sums of squares; these are plain sums."),
    ]  # fmt: skip
    return judge(answer, matching_scores, draw, mistakes)


def dice_loss(answer: Callable) -> Verdict:
    """dice_loss(logits (P,), target (P,)) -> 1 - 2 x.y / (x.x + y.y + 1e-4) with x = sigmoid(logits)."""

    def dice_loss(logits, target):
        return losses.dice_loss(logits[None], target[None], 1.0)

    def of(x, y, size=torch.square, factor=2.0):
        return 1 - factor * (x * y).sum() / (size(x).sum() + size(y).sum() + 1e-4)

    def draw(rng):
        parts = rng.normal(0, 2, 20), rng.random(20) * (rng.random(20) < 0.6)
        return tuple(torch.as_tensor(part, dtype=torch.float32) for part in parts)

    mistakes = [
        Mistake(of, "x is the sigmoid of the logits; raw logits stand here."),
        Mistake(lambda z, y: 1 - of(z.sigmoid(), y), "This is dice itself, 1 for a perfect mask: the loss is 1 - dice."),
        Mistake(lambda z, y: of(z.sigmoid(), y, lambda v: v),
                "Sizes are sums of squares. With plain sums a soft target still has a loss when it is reached exactly."),
        Mistake(lambda z, y: of(z.sigmoid(), y, factor=1.0), "The 2 is missing: a perfect mask would have loss 0.5."),
        Mistake(lambda z, y: of((z > 0).float(), y),
                "A threshold has no gradient, so nothing would be learned: keep the probabilities."),
    ]  # fmt: skip
    return judge(answer, dice_loss, draw, mistakes)


def focal_term(answer: Callable) -> Verdict:
    """focal_term(logits (n,), targets (n,), alpha, gamma) -> alpha_t (1 - p_t)^gamma CE, (n,), not summed."""

    def focal_term(logits, targets, alpha, gamma):
        return torch.stack([losses.focal_loss(z, y, 1.0, alpha, gamma) for z, y in zip(logits, targets)])

    def but(base=lambda p, p_t: 1 - p_t, weight=lambda y, a: torch.where(y == 1, a, 1 - a), sign=-1):
        def imitate(logits, targets, alpha, gamma):
            p = logits.sigmoid()
            p_t = torch.where(targets == 1, p, 1 - p)
            return sign * weight(targets, alpha) * base(p, p_t) ** gamma * p_t.log()

        return imitate

    def draw(rng):
        targets = (np.arange(8) % 2 == rng.integers(2)).astype(np.float32)
        logits = rng.uniform(-3, 3, 8).astype(np.float32)
        return torch.from_numpy(logits), torch.from_numpy(targets), rng.uniform(0.1, 0.4), rng.uniform(1.2, 3)

    mistakes = [
        Mistake(but(base=lambda p, p_t: 1 - p), "For a target of 0 what is right has p_t = 1 - p, so its factor is p^gamma."),
        Mistake(but(base=lambda p, p_t: p_t), "This forgets the hard ones: the factor is (1 - p_t)^gamma, not p_t^gamma."),
        Mistake(but(weight=lambda y, a: a), "alpha weighs targets of 1 only; targets of 0 have 1 - alpha."),
        Mistake(but(weight=lambda y, a: 1.0), "alpha_t is missing."),
        Mistake(but(sign=1), "The sign: a cross-entropy is -log p_t, never negative."),
        Mistake(lambda *given: focal_term(*given).sum(), "It is summed up; give one value for each element."),
    ]  # fmt: skip
    return judge(answer, focal_term, draw, mistakes)


def greedy_trap(answer: Callable) -> Verdict:
    """greedy_trap(N, M) -> scores (N, M) in [0, 1]: greedy gets less than 60 % of what Hungarian matching gets."""
    name, rng, share = "greedy_trap", np.random.default_rng(), 0.0
    for m in (2, 3, int(rng.integers(4, 8))):
        n = m + int(rng.integers(0, 4))
        try:
            given = answer(n, m)
            scores = np.array(given.tolist() if isinstance(given, torch.Tensor) else given, dtype=float)
        except NotImplementedError:
            return not_attempted(name)
        except Exception as error:
            return wrong(name, f"greedy_trap({n}, {m}) raises {type(error).__name__}: {error}")
        if given is None:
            return wrong(name, "it returns None (is a `return` missing?).")
        if scores.shape != (n, m):
            return wrong(name, f"greedy_trap({n}, {m}): the shape is {scores.shape}, expected {(n, m)}.")
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            return wrong(name, f"scores lie in [0, 1]; these reach from {scores.min():.3g} to {scores.max():.3g}.")
        most, taken = scores[linear_sum_assignment(scores, maximize=True)].sum(), _greedy(scores)
        got = f"with {n} queries and {m} instances greedy gets {taken:.2f} of {most:.2f}"
        if taken >= most - 1e-6:
            return wrong(
                name,
                f"{got}, the best sum there is. Let the largest score block two, one in its row, one in its column.",
            )
        if taken >= 0.6 * most:
            return wrong(name, f"{got}, {taken / most:.0%}. What greedy blocks should be nearly as large as what it takes, and "
                         "what is left for it worth nothing.")  # fmt: skip
        share = max(share, taken / most)
    return correct(
        name, f"Greedy gets at most {share:.0%} of the best sum. Less than a half it never gets: can you see why?"
    )


def _greedy(scores: np.ndarray) -> float:
    """The sum of the largest score, the largest of what its row and its column leave, and so on."""
    left, total = scores.copy(), 0.0
    for _ in range(min(scores.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        total += scores[row, column]
        left[row], left[:, column] = -1, -1
    return float(total)
