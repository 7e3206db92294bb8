"""How an answer is judged: on fresh random input, against a reference, likely misconceptions named.

    draw(rng) -> arguments --copies--> answer(...) ---compare---> Verdict
                          '----------> reference(...) (minst's own function, wherever there is one)
                          '----------> mistakes: a hint, and what somebody whom it helps would give

A mistake is code, not a pattern in a text: a hint is given only when the answer behaves like the
mistake on every input.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Verdict", "difference", "examine", "judge", "normal"]

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
        said = f"{MARKS[self.state]} {self.exercise}: {self.state}"
        return f"{said}{joint} {self.reason}" if self.reason else f"{said}."


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Random numbers for a `draw`: a standard normal tensor, float32."""
    return torch.from_numpy(rng.standard_normal(shape)).float()


def judge(
    answer: Callable,
    reference: Callable,
    draw: Callable[[np.random.Generator], Iterable],
    mistakes: Sequence[str | Callable] = (),
    *,
    exercise: str | None = None,
    rounds: int = 6,
    tolerance: float = 1e-4,
    view: Callable[[Any], Any] = lambda result: result,
    praise: str = "",
) -> Verdict:
    """Run `answer` on `rounds` fresh draws beside `reference`; the first difference and its reason.

    draw: random arguments. mistakes: a hint, the functions that it is for, another hint, ...
    exercise: default the name of `reference`. tolerance: absolute and relative.
    view: what of a result is compared. More is drawn, ten times as much at most, while a mistake
    passes as the right answer: strides of 1 alone, say, happen once in 64 checks and hide that
    somebody counts the places of the input.
    """
    exercise = exercise or reference.__name__
    hints = {}  # of every mistake
    for item in mistakes:
        if isinstance(item, str):
            hint = item
        else:
            hints[item] = hint
    unseen = likely = list(hints)  # those that have given the right answer so far; and this answer
    problem = ""
    for done in range(10 * rounds):
        if done >= rounds and not unseen:
            break
        given = tuple(_plain(value) for value in draw(np.random.default_rng()))
        expected = view(reference(*copy.deepcopy(given)))
        got, verdict = _attempt(exercise, answer, given)
        if verdict is not None:
            return verdict
        got = view(got)
        problem = problem or difference(got, expected, tolerance)
        imitated = {m: _imitated(m, given, view) for m in {*unseen, *likely}}
        unseen = [m for m in unseen if _alike(imitated[m], expected, tolerance)]
        likely = [m for m in likely if _alike(imitated[m], got, tolerance)]
    if not problem:
        return Verdict("correct", exercise, praise)
    hint = f" {hints[likely[0]]}" if likely else ""
    return Verdict("wrong", exercise, f"{problem}.{hint}")


def examine(
    answer: Callable,
    exercise: str,
    cases: Iterable[tuple],
    fault: Callable[..., str],
    praise: str = "",
) -> Verdict:
    """Judge an exercise with many right answers.

    cases: arguments of the answer. fault(what the answer gives, *arguments): why that is wrong,
    or "".
    """
    for given in cases:
        got, verdict = _attempt(exercise, answer, given)
        if verdict is not None:
            return verdict
        reason = f"{difference(got, given)}." if got is None else fault(got, *given)
        if reason:
            return Verdict("wrong", exercise, reason)
    return Verdict("correct", exercise, praise)


def difference(got: Any, expected: Any, tolerance: float = 1e-4, where: str = "") -> str:
    """What tells `got` from `expected`: "" | a clause naming type, length, key, shape, element."""
    at = f"{where}: " if where else ""
    if got is None and expected is not None:
        return f"{at}it returns None (is a `return` missing?)"
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            shown = sorted(map(str, got)) if isinstance(got, dict) else type(got).__name__
            keys = sorted(map(str, expected))
            return f"{at}expected a dict with the keys {keys}, it gives {shown}"
        return _first(
            difference(got[k], expected[k], tolerance, f"{where}[{k!r}]") for k in expected
        )
    if isinstance(expected, (tuple, list)):
        if isinstance(got, (torch.Tensor, np.ndarray)) and got.ndim:
            got = list(got)
        if not isinstance(got, (tuple, list)):
            return f"{at}expected {len(expected)} values, it gives one {type(got).__name__}"
        if len(got) != len(expected):
            return f"{at}expected {len(expected)} values, it gives {len(got)}"
        return _first(
            difference(g, e, tolerance, f"{where or 'value'}[{i}]")
            for i, (g, e) in enumerate(zip(got, expected))
        )
    if isinstance(expected, (torch.Tensor, np.ndarray, float, int, np.generic)):
        return _numbers(got, expected, tolerance, at)
    try:
        same = type(got) is type(expected) and bool(got == expected)
    except Exception:  # an exotic type of the student's: it is not the expected one
        same = False
    return "" if same else f"{at}it gives {got!r}, expected {expected!r}"


def _numbers(got: Any, expected: Any, tolerance: float, at: str) -> str:
    """Shapes first, then the first differing element.

    Lists, arrays, tensors and numbers may stand for one another.
    """
    want = _array(expected)
    try:
        have = _array(got)
    except (TypeError, ValueError):
        return f"{at}expected numbers of shape {want.shape}, it gives {got!r:.80}"
    if have.shape != want.shape:
        turned = have.ndim == want.ndim == 2 and have.T.shape == want.shape
        hint = " (transposed?)" if turned else ""
        return f"{at}the shape is {have.shape}, expected {want.shape}{hint}"
    differs = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not differs.any():
        return ""
    first = tuple(np.argwhere(differs)[0].tolist())
    place = f"element {list(first)} is" if first else "it gives"
    share = f" ({differs.sum()} of {differs.size} elements differ)" if differs.size > 1 else ""
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


def _plain(value: Any) -> Any:
    """A drawn number as Python's own int, float, bool or str."""
    return value.item() if isinstance(value, np.generic) else value


def _attempt(exercise: str, answer: Callable, given: tuple) -> tuple[Any, Verdict | None]:
    """What `answer` gives for copies of `given`, and no verdict yet; or None, and the verdict.

    The verdict is on what gives nothing to judge: no function, a stub, an error, changed arguments.
    """
    if not callable(answer):
        kind = type(answer).__name__
        reason = f"a {kind} was handed over; hand over the function, without brackets."
        return None, Verdict("wrong", exercise, reason)
    arguments = copy.deepcopy(given)
    try:
        got = answer(*arguments)
    except NotImplementedError:
        hint = "Replace the line that raises NotImplementedError, then run both cells."
        return None, Verdict("not attempted", exercise, hint)
    except Exception as error:
        said = f"{_where(error, answer)} {type(error).__name__}: {error}"
        return None, Verdict("wrong", exercise, f"{said} ({_call(exercise, given)})")
    for now, before in zip(arguments, given):
        can_change = isinstance(before, (torch.Tensor, np.ndarray, list))
        if can_change and (changed := difference(now, before, 0.0)):
            copied = "clone" if isinstance(before, torch.Tensor) else "copy"
            reason = f"it changes its arguments in place ({changed}); work on a copy, .{copied}()."
            return None, Verdict("wrong", exercise, reason)
    return got, None


def _call(exercise: str, given: tuple) -> str:
    """ "in track(2, Tensor (3, 4))": with which arguments an answer was called."""
    shown = [
        f"{type(value).__name__} {tuple(value.shape)}"
        if hasattr(value, "shape")
        else f"{value!r:.30}"
        for value in given
    ]
    return f"in {exercise}({', '.join(shown)})"


def _imitated(imitate: Callable, given: tuple, view: Callable) -> Any:
    """What a mistake gives; where it has nothing to say about this input, the error."""
    try:
        return view(imitate(*copy.deepcopy(given)))
    except Exception as error:
        return error


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    return not (difference(one, other, tolerance) or difference(other, one, tolerance))


def _where(error: Exception, answer: Callable) -> str:
    """ "line 3 of your function raises": the innermost line of the answer itself."""
    code = getattr(answer, "__code__", None)
    walk = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in walk if frame.f_code is code]
    if not lines:
        return "it raises"
    return f"line {lines[-1] - code.co_firstlineno + 1} of your function raises"


def _first(problems: Iterable[str]) -> str:
    return next((problem for problem in problems if problem), "")
