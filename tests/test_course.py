"""What all exercises have in common: solutions pass, stubs wait, nonsense is told, hints are given.

What students write in one lesson, and which hint it meets, is in tests/test_course_lesson00.py and so on.
"""

import contextlib
import functools
import importlib
import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

SOLUTIONS = Path(__file__).resolve().parents[1] / "notebooks" / "solutions"
LESSONS = [importlib.import_module(f"minst.course.lesson{number:02d}") for number in range(11)]
EXERCISES = [
    pytest.param(number, name, id=f"{number:02d}-{name}")
    for number, lesson in enumerate(LESSONS)
    for name in lesson.__all__
]
ROUNDS = {1: 3, 7: 2, 9: 4, 2: 10, 5: 20, 8: 10, 10: 20}  # of fresh random input; 5 in the others
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
    assert printed.getvalue().count(": correct.") == len(LESSONS[number].__all__)
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


@pytest.mark.parametrize(
    ("number", "name"), [e for e in EXERCISES if e.id != "07-track"]
)  # its mistakes: tests/test_course_lesson07.py
def test_a_listed_mistake_meets_its_hint(number, name, monkeypatch):
    listed = []

    def spy(answer, reference, draw, mistakes=(), **how):
        listed.extend(mistakes)
        return judge(answer, reference, draw, mistakes, **how)

    judge = getattr(LESSONS[number], "judge", None)
    monkeypatch.setattr(LESSONS[number], "judge", spy, raising=False)
    check = getattr(LESSONS[number], name)
    check(solutions(number)[name])
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
    "hidden_by_noise",
}  # fmt: skip


def test_the_old_name_of_the_course_still_finds_its_lessons():
    from minst.check.verdict import Verdict

    from minst import check
    from minst.check import lesson01

    assert lesson01.counted_frames(solutions(1)["counted_frames"]).state == "correct"
    assert check.__name__ == "minst.check" and Verdict("correct", "x")
