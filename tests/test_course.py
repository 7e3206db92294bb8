"""What all exercises have in common: solutions pass, stubs wait, nonsense is told, hints are given.

What students write in one lesson, and which hint it meets, is in tests/test_course_lesson00.py and so on.
"""

import contextlib
import functools
import importlib
import io
import runpy
import time
from pathlib import Path

import numpy as np
import pytest
import torch

SOLUTIONS = Path(__file__).resolve().parents[1] / "notebooks" / "solutions"
LESSONS = [importlib.import_module(f"minst.course.lesson{number:02d}") for number in range(12)]
NO_XNNPACK = {"save_for_phone"} if not torch._C._is_xnnpack_enabled() else set()  # which cannot be judged
EXERCISES = [
    pytest.param(number, name, id=f"{number:02d}-{name}", marks=[pytest.mark.skip("no XNNPACK")] * (name in NO_XNNPACK))
    for number, lesson in enumerate(LESSONS)
    for name in lesson.__all__
]
ROUNDS = {1: 3, 6: 3, 7: 2, 9: 4, 2: 10, 5: 20, 8: 10, 10: 20, 11: 3}  # of fresh random input; 5 in the others
each_exercise = pytest.mark.parametrize(("number", "name"), EXERCISES)


@functools.cache
def solutions(number: int) -> dict:
    """What the file of solutions of a lesson defines."""
    grad = torch.is_grad_enabled()
    (file,) = SOLUTIONS.glob(f"{number:02d}_*.py")
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            found = runpy.run_path(str(file))
    finally:
        torch.set_grad_enabled(grad)
    assert printed.getvalue().count(": correct.") == len(set(LESSONS[number].__all__) - NO_XNNPACK)
    return found


@each_exercise
def test_the_solution_is_correct_each_time(number, name):
    for _ in range(ROUNDS.get(number, 5)):
        verdict = getattr(LESSONS[number], name)(solutions(number)[name])
        assert verdict.state == "correct", verdict


@each_exercise
def test_what_is_no_answer_is_said_clearly(number, name):
    def stub(*given):
        raise NotImplementedError("your turn: replace this line")

    def broken(*given):
        return given[99]

    check = getattr(LESSONS[number], name)
    assert check(stub).state == "not attempted"
    for answer, words in [
        (3, "hand over the function, without brackets"),
        (lambda *given: None, "it returns None (is a `return` missing?)"),
        (lambda *given: 1 / 0, "ZeroDivisionError"),
        (lambda: 0, "TypeError"),
        (broken, "line 2 of your function raises IndexError"),
        (broken, f"in {name}("),
        (lambda *given: torch.zeros(2, 1), ""),
        (lambda *given: torch.zeros(7, 9), ""),
        (lambda *given: np.zeros(3), ""),
        (lambda *given: "agrees", ""),
        (lambda *given: (1, [2, 3]), ""),
    ]:
        verdict = check(answer)
        assert verdict.state == "wrong" and words in verdict.reason and verdict.reason, verdict


class Hostile:
    """Has a length, a shape and elements, and lets nobody have them."""

    def _raise(self, *given):
        raise RuntimeError("keep out")

    __len__ = __iter__ = __getitem__ = __eq__ = __array__ = __repr__ = __float__ = __bool__ = _raise
    shape = property(_raise)


def deep(depth=100_000):
    nested = []
    for _ in range(depth):
        nested = [nested]
    return nested


def endless():
    row = [1.0]
    row.append(row)
    return row


def leaves(*given):
    raise SystemExit("x" * 10**6)


def says_much(*given):
    raise ValueError("word\n" * 10**6)


def recurses(*given):
    return recurses(*given)


def itself(*given):
    return itself


ODD = [
    torch.tensor(1.0), np.array(2.0), torch.zeros(0), [], {}, "", "7", float("nan"), float("inf"), 1j, True,
    10**400, [10**400] * 3, "x" * 10**6, ["x" * 10**6] * 4, {"k" * 10**6: 1}, list(range(10**6)), deep(), endless(),
    torch.zeros(1).expand(10**12), torch.zeros(1, 1, 1, 1).expand(2, 3, 10**6, 10**6), torch.eye(3).to_sparse(),
    torch.zeros(2, 3, device="meta"), torch.zeros(2, 2, dtype=torch.cfloat), np.array([1, 2], dtype="M8[s]"),
    np.array([None, 1]), [[1], [1, 2]], (None, [1]), np.full((2, 2), np.nan), Hostile(), [Hostile()] * 2, print, iter([]),
]  # fmt: skip


@each_exercise
def test_whatever_an_answer_gives_it_is_judged_in_a_few_lines(number, name):
    check = getattr(LESSONS[number], name)
    answers = [lambda *given, odd=odd: odd for odd in ODD] + [leaves, says_much, recurses, itself]
    answers += [
        lambda *given: (x for x in given),
        lambda *given: given,
        lambda *given: given[0],
        Hostile(),
    ]
    for answer in answers[:: 8 if name in ("track", "pass_queries") else 1]:  # these take a second
        verdict = check(answer)
        assert verdict.state == "wrong" and "it is too slow" not in verdict.reason
        assert verdict.reason and len(repr(verdict)) < 1200 and repr(verdict).count("\n") == 0, (
            repr(verdict)[:2000]
        )


def test_an_answer_that_sleeps_is_judged_on_what_there_was_time_for(monkeypatch):
    monkeypatch.setattr("minst.course.verdict.PATIENCE", 0.05)
    right, calls = solutions(0)["running_mean"], []

    def slow(scores):
        calls.append(time.sleep(0.06))
        return right(scores)

    assert LESSONS[0].running_mean(slow) and len(calls) == 1
    verdict = LESSONS[6].sample_pair(lambda *given: time.sleep(0.06) or (0, 1))
    assert verdict.state == "wrong" and "too slow to be judged" in verdict.reason


@pytest.mark.parametrize(
    ("number", "name"), [e for e in EXERCISES if e.id != "07-track"]
)  # its mistakes: tests/test_course_lesson07.py
def test_a_listed_mistake_meets_its_hint(number, name, monkeypatch):
    listed = []

    def spy(answer, reference, draw, mistakes=(), **how):
        listed.extend(mistakes)
        return judge(answer, reference, draw, mistakes, **how)

    solution = solutions(number)[name]  # which runs all of the lesson's checks, the first time
    judge = getattr(LESSONS[number], "judge", None)
    monkeypatch.setattr(LESSONS[number], "judge", spy, raising=False)
    check = getattr(LESSONS[number], name)
    check(solution)
    hints = 0
    for item in list(listed):
        if isinstance(item, str):
            hint, hints = item, hints + 1
            continue
        verdict = check(item)
        assert verdict.state == "wrong" and hint in verdict.reason, verdict
    assert hints >= 2 or name in EXAMINED


EXAMINED = {
    "perfect_and_worthless", "unseen_change", "one_voice", "greedy_trap", "sample_pair", "fool_cosine",
    "hidden_by_noise", "factors", "encode_frames", "from_memory", "save_for_phone",
}  # fmt: skip


def test_the_old_name_of_the_course_still_finds_its_lessons():
    from minst.check.verdict import Verdict

    from minst import check
    from minst.check import lesson01

    assert lesson01.counted_frames(solutions(1)["counted_frames"]).state == "correct"
    assert check.__name__ == "minst.check" and Verdict("correct", "x")
