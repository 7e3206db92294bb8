"""minst.course.verdict: what a check says of right, wrong, missing and broken answers."""

import numpy as np
import pytest
import torch

from minst.course import lesson01, lesson02, lesson04, lesson06
from minst.course.verdict import Verdict, difference, examine, judge


def double(x):
    return 2 * x


def draw(rng):
    return (torch.from_numpy(rng.normal(size=(3, 4))),)


HINTS = ["Double, do not square.", "Keep the sign.", "Rows and columns are swapped."]
MISTAKES = [
    HINTS[0],
    lambda x: x * x,
    HINTS[1],
    lambda x: 2 * x.abs(),
    HINTS[2],
    lambda x: (2 * x).T,
]


def verdict(answer):
    return judge(answer, double, draw, MISTAKES)


def test_a_right_answer_in_another_style_is_correct():
    assert verdict(lambda x: x + x)
    assert (
        verdict(lambda x: (2 * x.numpy()).tolist()).state == "correct"
    )  # lists and arrays may stand for tensors


def test_a_stub_is_not_attempted():
    def stub(x):
        raise NotImplementedError("your turn")

    assert verdict(stub).state == "not attempted" and not verdict(stub)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x: x**2, "do not square"),
        (lambda x: 2 * abs(x), "Keep the sign"),
        (lambda x: 2 * x.T, "(4, 3), expected (3, 4) (transposed?). Rows and columns"),
        (lambda x: None, "None (is a `return` missing?)"),
        (lambda x: 2 * x[:2], "shape is (2, 4), expected (3, 4)"),
        (lambda x: 2 * x + 1, "element [0, 0] is"),
        (lambda x: x * float("nan"), "is nan"),
        (lambda x: "a tensor", "'a tensor'"),
        (lambda x: {}["y"], "KeyError"),
        (lambda x, y: x, "TypeError"),
        (double(torch.ones(2)), "hand over the function"),
    ],
)
def test_a_wrong_answer_says_why(answer, words):
    said = verdict(answer)
    assert said.state == "wrong" and words in said.reason, said


def test_no_hint_for_an_answer_that_no_mistake_explains():
    reason = verdict(lambda x: 2 * x + 1).reason
    assert not any(hint in reason for hint in HINTS)


def test_a_mistake_must_explain_every_draw():
    calls = []

    def answer(x):
        calls.append(x)
        return 3 * x if len(calls) == 1 else x**2  # it squares, but not the first time

    said = judge(answer, double, draw, MISTAKES)
    assert said.state == "wrong" and "square" not in said.reason


def test_a_hint_that_is_right_too_is_not_given():
    # this "mistake" equals the right answer on every input, so it cannot be what went wrong
    same = ["nonsense", lambda x: x + x]
    assert "nonsense" not in judge(lambda x: 3 * x, double, draw, same).reason


def test_what_cannot_be_viewed_is_judged_as_it_is():
    said = judge(lambda x: [1, 2, 3], double, draw, view=lambda result: result.sum())
    assert "it gives" in said.reason or "the shape is (3,)" in said.reason
    assert "AttributeError" not in said.reason


def test_a_wrong_answer_shows_its_input():
    """Small arguments in full, large ones by their shape; all of them are kept, whole."""
    given = (7, torch.tensor([[1 / 3, 2], [4, 1e-7]]), [True, False], np.arange(2), torch.ones(5, 3))
    said = judge(lambda n, *x: n, lambda n, *x: n + 1, lambda rng: given, exercise="add")
    called = "add(7, [[0.3333, 2], [4, 1e-07]], [True, False], [0, 1], Tensor (5, 3))"
    assert said.reason.endswith(f"expected 8. It was called as {called}.")
    assert (said.got, said.expected) == (7, 8) and torch.equal(said.given[4], torch.ones(5, 3))


def test_what_was_given_is_that_of_the_first_wrong_round():
    rounds = iter(range(100))
    said = judge(lambda n: 2 * n if n < 3 else n, double, lambda rng: (next(rounds),), MISTAKES[:2])
    assert (said.given, said.got, said.expected) == ((3,), 3, 6)
    broken = judge(lambda n: 1 / 0, double, lambda rng: (4,))
    assert broken.given == (4,) and broken.expected == 8


def test_what_was_given_is_kept_where_many_answers_are_right():
    def even(answer):
        """even(n) -> an even number."""
        return examine(answer, even, [(1,), (2,)], lambda got, n: "it is odd." * (got % 2))

    said = even(lambda n: n + 1)
    assert (said.given, said.got) == ((2,), 3)


def test_an_answer_may_work_in_place_and_the_lesson_gives_it_copies():
    """It is judged by what it gives, and nothing that the lesson owns is changed by it."""

    def in_place(x):
        return x.mul_(2)

    said, own = verdict(in_place), torch.ones(2)
    assert said.state == "correct" and said.or_ours is not in_place
    assert torch.equal(said.or_ours(own), torch.full((2,), 2.0)) and torch.equal(own, torch.ones(2))
    assert verdict(lambda x: x.mul_(3)).state == "wrong"


def test_hints_are_told_apart_on_further_draws():
    """Two mistakes that agree on the first six draws: more are drawn until one is left."""
    draws = iter([*[(1,)] * 8, *[(n,) for n in range(2, 60)]])
    mistakes = ["first", lambda n: n + 2, "second", lambda n: 3 * n]
    said = judge(lambda n: 3 * n, double, lambda rng: next(draws), mistakes)
    assert "second" in said.reason and "first" not in said.reason


def test_a_lesson_goes_on_with_the_answer_or_with_ours():
    def stub(x):
        raise NotImplementedError

    def right(x):
        return x + x

    assert verdict(right).or_ours is right
    assert all(verdict(answer).or_ours is double for answer in (stub, lambda x: x, lambda x: 1 / 0, 3))


def test_so_it_does_where_many_answers_are_right():
    def even(answer):
        """even(n) -> an even number."""
        return examine(answer, even, [(1,), (2,)], lambda got, n: "it is odd." * (got % 2), reference=double)

    def right(n):
        return 2 * n + 2

    def stub(n):
        raise NotImplementedError

    assert even(right).or_ours is right
    assert all(even(answer).or_ours is double for answer in (stub, lambda n: 1, lambda n: "x"))


def test_the_line_of_an_error_is_that_of_the_answer():
    def answer(x):
        y = x + 1
        return torch.stack([y, y[0]])

    assert "line 3 of your function raises RuntimeError" in verdict(answer).reason


def test_verdicts_read_as_one_line():
    assert repr(Verdict("wrong", "double", "it is not.")) == "✘ double: wrong, because it is not."
    assert repr(verdict(double)) == "✔ double: correct."


@pytest.mark.parametrize(
    "got, expected, words",
    [
        ({"a": 1}, {"a": 2}, "['a']: it gives 1, expected 2"),
        ({"b": 1}, {"a": 2}, "keys ['a']"),
        ((1, [2, 3]), (1, [2, 4]), "value[1][1]: it gives 3, expected 4"),
        ((1, 2), (1, 2, 3), "3 values, it gives 2"),
        (5, (1, 2), "one int"),
        ("cat", "dog", "'cat', expected 'dog'"),
        (torch.ones(2, 0), np.ones((2, 0)), ""),
        (1, True, ""),
        ([1, 2], torch.tensor([1, 2]), ""),
        (torch.tensor([[1.0, float("nan")]]), torch.tensor([[1.0, float("nan")]]), ""),
        ([[1, 2], [1]], np.ones((2, 2)), "expected numbers of shape (2, 2)"),
        (0.5, 1, "0.5, expected 1"),
        ("7", 7, "it gives '7', expected 7"),
        (7 + 0j, 7, "it gives (7+0j), expected 7"),
        (10**400, 7, "it gives 1000"),
        (torch.tensor(2.0), [2.0, 3.0], "expected 2 values, it gives one Tensor"),
        (torch.zeros(1).expand(10**12), torch.zeros(3), "the shape is (1000000000000,), expected (3,)"),
        ("x" * 10**6, "y", "xxx...xxx"),
    ],
)
def test_difference(got, expected, words):
    assert words in difference(got, expected)
    assert bool(difference(got, expected)) == bool(words)


@pytest.mark.parametrize(
    "check",
    [
        lesson01.perfect_and_worthless,
        lesson02.unseen_change,
        lesson04.one_voice,
        lesson06.sample_pair,
    ],
)
def test_checks_with_a_verdict_of_their_own_say_what_an_attempt_lacks(check):
    def broken(*given):
        return given[99]

    assert "hand over the function" in check("an answer").reason
    assert "line 2 of your function raises IndexError" in check(broken).reason
