"""Lesson 05's verdicts: wrong answers get the hint they need."""

import numpy as np
import pytest
import torch

from minst.course import lesson05


def all_instances_find_one(n, m, k):
    matched = m
    return matched, n - matched, matched, n * k - matched


def no_negative_queries(n, m, k):
    return m, max(0, n - m), m, n * k - m


def matched_all_one(n, m, k):
    matched = n if m > n else m
    return matched, n - matched, matched * k, (n - matched) * k


def zeros_of_the_left_over_only(n, m, k):
    matched = sorted([n, m])[0]
    return matched, n - matched, matched, (n - matched) * k


def no_classes(n, m, k):
    matched = min(n, m)
    return matched, n - matched, matched, n - matched


def scores(
    classes, logits, labels, masks, sigmoid=True, softmax=False, powers=(0.8, 0.2), squares=True
):
    result = torch.zeros(len(classes), len(labels))
    for q in range(len(classes)):
        for m in range(len(labels)):
            x, y = logits[q], masks[m]
            x = 1 / (1 + torch.exp(-x)) if sigmoid else x
            p = torch.softmax(classes[q], 0) if softmax else torch.sigmoid(classes[q])
            size = (x**2).sum() + (y**2).sum() if squares else x.sum() + y.sum()
            result[q, m] = (2 * (x * y).sum() / (size + 1e-4)) ** powers[0] * p[
                labels[m]
            ] ** powers[1]
    return result


def dice(logits, target, loss=True, squares=True, two=2):
    x = torch.sigmoid(logits)
    size = (x**2 + target**2).sum() if squares else (x + target).sum()
    value = two * (x * target).sum() / (size + 1e-4)
    return 1 - value if loss else value


def dice_of_logits(logits, target):
    return 1 - 2 * torch.dot(logits, target) / (logits.norm() ** 2 + target.norm() ** 2 + 1e-4)


def dice_of_thresholded(logits, target):
    x = (torch.sigmoid(logits) >= 0.5).float()
    return 1 - 2 * (x * target).sum() / (x.sum() + (target**2).sum() + 1e-4)


def focal(logits, targets, alpha, gamma, flip=True, both=False, no_alpha=False, easy=False, sign=1):
    values = []
    for z, y in zip(logits.tolist(), targets.tolist()):
        p = 1 / (1 + np.exp(-z))
        right = p if y else 1 - p
        a = 1.0 if no_alpha else (alpha if y or both else 1 - alpha)
        base = right if easy else (1 - right if flip else 1 - p)
        values.append(sign * a * base**gamma * -np.log(right))
    return torch.tensor(values)


def table(corner: float):
    def trap(n, m):
        result = np.zeros((n, m))
        result[:2, :2] = [[1.0, 0.9], [0.9, corner]]
        return result.tolist()

    return trap


WRONG = [
    ("target_counts", all_instances_find_one, "more instances"),
    ("target_counts", no_negative_queries, "teach nobody"),
    ("target_counts", matched_all_one, "one target of 1"),
    ("target_counts", zeros_of_the_left_over_only, "as well"),
    ("target_counts", no_classes, "every class"),
    ("target_counts", lambda n, m, k: n, "4 values"),
    ("matching_scores", lambda *a: scores(*a, softmax=True), "compete"),
    ("matching_scores", lambda *a: scores(*a, powers=(0.2, 0.8)), "swapped"),
    ("matching_scores", lambda *a: scores(*a, powers=(1, 1)), "missing"),
    ("matching_scores", lambda *a: scores(*a, squares=False), "squares"),
    ("matching_scores", lambda *a: scores(*a, sigmoid=False), "x is their sigmoid"),
    ("matching_scores", lambda *a: scores(*a).T, "shape"),
    ("matching_scores", lambda c, z, labels, y: z @ y, "raises RuntimeError"),
    ("dice_loss", dice_of_logits, "raw logits"),
    ("dice_loss", lambda z, y: dice(z, y, loss=False), "dice itself"),
    ("dice_loss", lambda z, y: dice(z, y, squares=False), "squares"),
    ("dice_loss", lambda z, y: dice(z, y, two=1), "2 is missing"),
    ("dice_loss", dice_of_thresholded, "no gradient"),
    ("dice_loss", lambda z, y: None, "return"),
    ("dice_loss", lambda z, y: dice(z, y).expand(20), "shape"),
    ("focal_term", lambda *a: focal(*a, flip=False), "p^gamma"),
    ("focal_term", lambda *a: focal(*a, both=True), "targets of 1 only"),
    ("focal_term", lambda *a: focal(*a, no_alpha=True), "alpha_t is missing"),
    ("focal_term", lambda *a: focal(*a, easy=True), "hard ones"),
    ("focal_term", lambda *a: focal(*a, sign=-1), "sign"),
    ("focal_term", lambda *a: focal(*a).sum(), "summed"),
    ("greedy_trap", table(1.0), "block"),
    ("greedy_trap", table(0.4), "nearly as large"),
    ("greedy_trap", lambda n, m: np.array(table(0.0)(n, m)) * 3, "[0, 1]"),
    ("greedy_trap", lambda n, m: np.full((n, m), np.nan), "[0, 1]"),
    ("greedy_trap", lambda n, m: np.zeros((n, m)), "block"),
    ("greedy_trap", lambda n, m: np.array(table(0.0)(n, m + 1)), "shape"),
    ("greedy_trap", lambda n, m: np.array([[1, 0.9], [0.9, 0]]), "shape"),
    ("greedy_trap", lambda n, m: None, "return"),
    ("greedy_trap", lambda n, m: 1 / 0, "ZeroDivisionError"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_wrong_answer_gets_its_hint(name, answer, word):
    for _ in range(10):
        verdict = getattr(lesson05, name)(answer)
        assert verdict.state == "wrong"
        assert word in verdict.reason, verdict.reason


def test_the_trap_may_be_a_tensor_or_lists():
    assert lesson05.greedy_trap(table(0.0))
    assert lesson05.greedy_trap(lambda n, m: torch.tensor(table(0.0)(n, m)))
