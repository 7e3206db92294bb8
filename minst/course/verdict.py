"""How an answer is judged: on fresh random input, against a reference, with the likely misconception named.

    draw(rng) -> arguments --copies--> answer(...) ---compare---> Verdict
                          '----------> reference(...) (minst's own function, wherever there is one)
                          '----------> mistakes: what a plausible wrong answer would give, and the hint for it

A mistake is code, not a pattern in a text: a hint is given only when the answer behaves like the mistake on every input.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["Mistake", "Verdict", "attempt", "correct", "difference", "judge", "normal", "not_attempted", "wrong"]

MARKS = {"not attempted": "○", "wrong": "✘", "correct": "✔"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check says; a notebook shows it as one line. True when the answer is correct."""

    state: str  # "not attempted" | "wrong" | "correct"
    exercise: str
    reason: str = ""

    def __bool__(self) -> bool:
        return self.state == "correct"

    def __repr__(self) -> str:
        joint = ", because" if self.state == "wrong" else "."
        return (
            f"{MARKS[self.state]} {self.exercise}: {self.state}{joint if self.reason else '.'} {self.reason}".rstrip()
        )


class Mistake(NamedTuple):
    """A plausible wrong answer."""

    imitate: Callable  # takes the arguments of the exercise, gives what somebody with this misconception would
    hint: str  # said when the answer does the same


def not_attempted(exercise: str) -> Verdict:
    """The verdict on an untouched stub."""
    return Verdict("not attempted", exercise, "Replace the line that raises NotImplementedError, then run both cells.")


def wrong(exercise: str, reason: str) -> Verdict:
    """The verdict "wrong, because `reason`"."""
    return Verdict("wrong", exercise, reason)


def correct(exercise: str, reason: str = "") -> Verdict:
    """The verdict "correct", with what else there is to say."""
    return Verdict("correct", exercise, reason)


def attempt(exercise: str, answer: Callable, *arguments, where: str = "") -> tuple[Any, Verdict | None]:
    """What `answer` gives and None, or None and the verdict on what gives nothing: a stub, an error, no function.

    where: opens the reason of an error, "with 2 tracks, ".
    """
    if not callable(answer):
        reason = f"a {type(answer).__name__} was handed over; hand over the function, without brackets."
        return None, wrong(exercise, reason)
    try:
        return answer(*arguments), None
    except NotImplementedError:
        return None, not_attempted(exercise)
    except Exception as error:
        return None, wrong(exercise, f"{where}{_where(error, answer)} {type(error).__name__}: {error}")


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Random numbers for a `draw`: a standard normal tensor, float32."""
    return torch.from_numpy(rng.standard_normal(shape)).float()


def judge(
    answer: Callable,
    reference: Callable,
    draw: Callable[[np.random.Generator], tuple],
    mistakes: Sequence[Mistake] = (),
    *,
    exercise: str | None = None,
    rounds: int = 6,
    tolerance: float = 1e-4,
    praise: str = "",
) -> Verdict:
    """Run `answer` on `rounds` fresh draws beside `reference`, and say the first difference and the likely reason.

    draw: random arguments, a tuple. tolerance: absolute and relative. exercise: default the name of `reference`.
    The answer gets copies of the arguments; changing them in place is an error of its own.
    """
    exercise = exercise or reference.__name__
    problem, likely = "", list(mistakes)
    for given in _draws(draw, reference, mistakes, rounds, tolerance):
        expected, arguments = reference(*copy.deepcopy(given)), copy.deepcopy(given)
        got, verdict = attempt(exercise, answer, *arguments)
        if verdict is not None:
            return verdict
        if changed := difference(arguments, given, 0.0):
            return wrong(exercise, f"it changes its arguments in place ({changed}); work on a copy.")
        found = difference(got, expected, tolerance)
        problem = problem or found
        likely = [mistake for mistake in likely if _same(mistake, given, got, tolerance)]
    if not problem:
        return correct(exercise, praise)
    return wrong(exercise, " ".join([f"{problem}.", *(mistake.hint for mistake in likely[:1])]))


def difference(got: Any, expected: Any, tolerance: float = 1e-4, where: str = "") -> str:
    """What tells `got` from `expected`: "" | a clause naming type, length, key, shape or the first element."""
    at = f"{where}: " if where else ""
    if got is None and expected is not None:
        return f"{at}it returns None (is a `return` missing?)"
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            shown = sorted(map(str, got)) if isinstance(got, dict) else type(got).__name__
            return f"{at}expected a dict with the keys {sorted(map(str, expected))}, it gives {shown}"
        return _first(difference(got[k], expected[k], tolerance, f"{where}[{k!r}]") for k in expected)
    if isinstance(expected, (tuple, list)):
        if isinstance(got, (torch.Tensor, np.ndarray)):
            got = list(got)
        if not isinstance(got, (tuple, list)):
            return f"{at}expected {len(expected)} values, it gives one {type(got).__name__}"
        if len(got) != len(expected):
            return f"{at}expected {len(expected)} values, it gives {len(got)}"
        pairs = enumerate(zip(got, expected))
        return _first(difference(g, e, tolerance, f"{where or 'value'}[{i}]") for i, (g, e) in pairs)
    if isinstance(expected, (torch.Tensor, np.ndarray, float, int, np.generic)):
        return _numbers(got, expected, tolerance, at)
    try:
        same = type(got) is type(expected) and bool(got == expected)
    except Exception:  # an exotic type of the student's: it is not the expected one
        same = False
    return "" if same else f"{at}it gives {got!r}, expected {expected!r}"


def _numbers(got: Any, expected: Any, tolerance: float, at: str) -> str:
    """Shapes first, then the first differing element; lists, arrays, tensors and numbers may stand for one another."""
    want = _array(expected)
    try:
        have = _array(got)
    except (TypeError, ValueError):
        return f"{at}expected numbers of shape {want.shape}, it gives {got!r:.80}"
    if have.shape != want.shape:
        turned = have.ndim == want.ndim == 2 and have.T.shape == want.shape
        return f"{at}the shape is {have.shape}, expected {want.shape}" + (" (transposed?)" if turned else "")
    if want.size == 0:
        return ""
    differs = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not differs.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(differs)[0])
    place = f"element {list(first)} is" if first else "it gives"
    share = f" ({int(differs.sum())} of {differs.size} elements differ)" if differs.size > 1 else ""
    return f"{at}{place} {_short(have[first], want)}, expected {_short(want[first], want)}{share}"


def _array(value: Any) -> np.ndarray:
    if isinstance(value, (list, tuple)):
        value = np.stack([_array(v) for v in value]) if value else np.zeros(0)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()  # NumPy has no bfloat16
    return np.asarray(value).astype(np.float64)


def _short(value: float, like: np.ndarray) -> str:
    whole = float(value).is_integer() and np.all(like == np.round(like))
    return f"{value:.0f}" if whole else f"{value:.5g}"


def _draws(
    draw: Callable, reference: Callable, mistakes: Sequence[Mistake], rounds: int, tolerance: float
) -> Iterator[tuple]:
    """`rounds` draws, and more (ten times as many at most) while they let one of the mistakes pass as the right answer.

    Strides of 1 alone, say, happen once in 64 checks and hide that somebody counts the places of the input.
    """
    unseen = list(mistakes)
    for done in range(10 * rounds):
        if done >= rounds and not unseen:
            return
        given = draw(np.random.default_rng())
        expected = reference(*copy.deepcopy(given))
        unseen = [mistake for mistake in unseen if _same(mistake, given, expected, tolerance)]
        yield given


def _same(mistake: Mistake, given: tuple, got: Any, tolerance: float) -> bool:
    """Does the answer behave like this mistake here?"""
    try:
        imitated = mistake.imitate(*copy.deepcopy(given))
    except Exception:  # this mistake has nothing to say about this input
        return False
    return not (difference(got, imitated, tolerance) or difference(imitated, got, tolerance))


def _where(error: Exception, answer: Callable) -> str:
    """ "line 3 of your function raises": the innermost line of the answer itself."""
    code = getattr(answer, "__code__", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    return f"line {lines[-1] - code.co_firstlineno + 1} of your function raises" if lines else "it raises"


def _first(problems) -> str:
    return next((problem for problem in problems if problem), "")
