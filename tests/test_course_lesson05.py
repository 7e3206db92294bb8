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


def background_learns_too(n, m, k):
    matched = min(m, n)
    return matched, n - matched, n, n * (k + 1) - n


def background_is_another_zero(n, m, k):
    matched = min(m, n)
    return matched, n - matched, matched, n * (k + 1) - matched


def background_takes_a_class(n, m, k):
    matched = min(m, n)
    return matched, n - matched, n, n * k


def alpha_exchanged(logits, targets, alpha, gamma):
    return focal(logits, targets, 1 - alpha, gamma)


def focal_right(logits, targets, alpha, gamma):
    p = targets * logits.sigmoid() + (1 - targets) * (1 - logits.sigmoid())
    return -(targets * alpha + (1 - targets) * (1 - alpha)) * (1 - p).pow(gamma) * p.log()


def tied(n, m):
    result = np.zeros((n, m))
    result[0, :2] = result[1, 0] = 0.8  # which of the three is taken decides all
    return result


def tied_backwards(n, m):
    return tied(n, m)[::-1, ::-1]


def forgets_what_the_gradient_needs(logits, target):
    value = dice(logits, target)
    target.zero_()
    return value


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
    ("target_counts", background_learns_too, "no background class"),
    ("target_counts", background_is_another_zero, "no background class"),
    ("target_counts", background_takes_a_class, "no background class"),
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
    ("focal_term", alpha_exchanged, "alpha is exchanged"),
    ("focal_term", lambda *a: focal_right(*a).detach(), "no gradient comes back"),
    ("focal_term", lambda *a: focal(*a), "no gradient comes back"),
    ("dice_loss", forgets_what_the_gradient_needs, "no gradient comes back"),
    ("dice_loss", lambda z, y: dice(z, y).item(), "no gradient comes back"),
    ("dice_loss", lambda z, y: dice(z, y).detach().numpy(), "no gradient comes back"),
    ("greedy_trap", tied, "if it is lucky"),
    ("greedy_trap", tied_backwards, "one in its column"),
    ("greedy_trap", lambda n, m: np.full((n, m), 0.5), "one in its column"),
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


def half(function):
    return lambda *given: function(
        *(x.half() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given)
    )


def test_other_kinds_of_numbers_are_right_too():
    for _ in range(5):
        assert lesson05.dice_loss(half(dice))
        assert lesson05.dice_loss(lambda z, y: dice(z.double(), y))
        assert lesson05.matching_scores(half(scores))
        assert lesson05.matching_scores(lambda *given: scores(*given).tolist())
        assert lesson05.focal_term(half(focal_right))
        assert lesson05.target_counts(
            lambda n, m, k: [min(n, m), n - min(n, m), min(n, m), n * k - min(n, m)]
        )


def test_terms_in_a_list_become_the_tensor_that_the_lesson_trains_with():
    verdict = lesson05.focal_term(lambda *given: list(focal_right(*given)))
    logits = torch.randn(6, requires_grad=True)
    verdict.or_ours(logits, torch.ones(6), 0.25, 2.0).sum().backward()
    assert verdict and logits.grad.abs().sum() > 0


def test_what_works_in_place_is_right_and_can_be_trained_with():
    def in_place(logits, target):
        return dice(logits.mul_(1.0), target.add_(0.0))

    verdict, y = lesson05.dice_loss(in_place), torch.rand(8)
    kernel, before = torch.randn(8, requires_grad=True), y.clone()
    verdict.or_ours(2 * kernel, y).backward()
    assert verdict and kernel.grad.abs().sum() > 0 and torch.equal(y, before)


def test_a_lesson_goes_on_with_ours_where_nothing_is_right():
    for answer in (table(0.4), tied, lambda n, m: None):
        assert lesson05.greedy_trap(lesson05.greedy_trap(answer).or_ours)
    ours = lesson05.dice_loss(lambda z, y: dice(z, y).item()).or_ours
    assert ours(torch.randn(5, requires_grad=True), torch.rand(5)).requires_grad


def test_of_equal_scores_greedy_may_take_any():
    scores = np.array([[0.8, 0.8], [0.8, 0.0]])
    best = np.array([0, 1]), np.array([1, 0])
    assert lesson05._greedy(scores) == 0.8 and lesson05._luckiest(scores, best) == 1.6


def test_pictures_of_losses_have_their_words():
    line = torch.linspace(0, 1, 5)
    curves = {"a": (line, line), "_b": (line, line), "!c": (line, line)}
    fig = lesson05.plot_curves({"one": curves, "two": curves}, "head", "note", ylim=(0, 1))
    assert fig.alt == "head. note" and [len(axes.lines) for axes in fig.axes] == [3, 3]
    shown = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert shown == ["a", "c"]
    walk = lesson05.plot_landscape(lambda z, y: (z.sigmoid() - y).square().sum(), (1.0, 0.0), "L2")
    assert "40 steps" in walk.alt
