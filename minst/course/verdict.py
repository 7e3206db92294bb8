"""How an answer is judged: on fresh random input, against a reference, likely misconceptions named.

    draw(rng) -> arguments --copies--> answer(...) ---compare---> Verdict
                          '----------> reference(...) (minst's own function, wherever there is one)
                          '----------> mistakes: a hint, and what somebody whom it helps would give

A mistake is code, not a pattern in a text: a hint is given only when the answer behaves like the
mistake on every input. Whatever an answer gives, it is judged: no check raises, and none echoes
more than some lines of it.

Lesson: notebooks/00_start_here.ipynb
"""

import copy
import math
import re
import reprlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

__all__ = ["Verdict", "attempt", "difference", "examine", "judge", "normal", "numbers", "shown"]

# seconds after which no further input is drawn: an answer that sleeps is judged all the same
PATIENCE = 60.0
BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = 60
CHANGEABLE = (torch.Tensor, np.ndarray, list)  # what an answer may change in place
ROWS = (list, tuple, np.ndarray, torch.Tensor)  # what may stand for one another

SMALL = 12  # elements of an argument that is shown in full

MARKS = {"not attempted": "○", "wrong": "✘", "correct": "✔"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check says; a notebook shows it as one line. True when the answer is correct."""

    state: str  # "not attempted" | "wrong" | "correct"
    exercise: str
    reason: str = ""
    or_ours: Callable | None = None  # the answer if it is correct, else ours: a lesson goes on
    given: tuple = ()  # of a wrong answer: the arguments on which it went wrong,
    expected: Any = None  # what is right there
    got: Any = None  # and what the answer gave
    hint: str = ""  # of the likely mistake that behaves as the answer does

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
    somebody counts the places of the input. The same holds while this answer behaves like the
    mistakes of two hints.
    """
    exercise = exercise or reference.__name__
    hints = {}  # of every mistake
    for item in mistakes:
        if isinstance(item, str):
            hint = item
        else:
            hints[item] = hint
    unseen = likely = list(hints)  # those that have given the right answer so far; and this answer
    problem, in_place, until = "", False, time.monotonic() + PATIENCE
    for done in range(10 * rounds):
        undecided = problem and len({hints[m] for m in likely}) > 1
        if done >= rounds and not (unseen or undecided) or done and time.monotonic() > until:
            break
        if problem and not likely:  # nothing more will be found out
            break
        given = tuple(_plain(value) for value in draw(np.random.default_rng()))
        expected = view(reference(*copy.deepcopy(given)))
        got, verdict, changes = attempt(exercise, answer, given)
        if verdict is not None:
            return replace(verdict, or_ours=reference, given=given, expected=expected)
        in_place = in_place or changes
        seen = _result(view, got)
        got = got if isinstance(seen, Exception) else seen
        if not problem and (problem := difference(got, expected, tolerance)):
            failed = {"given": given, "expected": expected, "got": got}
        imitated = {m: _result(_imitated, m, given, view) for m in {*unseen, *likely}}
        unseen = [m for m in unseen if _alike(imitated[m], expected, tolerance)]
        likely = [m for m in likely if _alike(imitated[m], got, tolerance)]
    if not problem:
        return Verdict("correct", exercise, praise, on_copies(answer) if in_place else answer)
    failed["hint"] = hints[likely[0]] if likely else ""
    called = f"It was called as {_call(exercise, failed['given'])}."
    reason = " ".join(filter(None, [f"{problem}.", failed["hint"], called]))
    return Verdict("wrong", exercise, reason, reference, **failed)


def examine(
    answer: Callable,
    check: Callable,
    cases: Iterable[tuple],
    fault: Callable[..., str],
    praise: str = "",
    reference: Callable | None = None,
) -> Verdict:
    """Judge an exercise with many right answers; `reference`: one of them, for `or_ours`.

    check: the function that asks; its first line of documentation is what is expected. cases:
    arguments of the answer. fault(what the answer gives, *arguments): why that is wrong, or ""; an
    error of it says that there is nothing to judge.
    """
    exercise, in_place, until = check.__name__, False, time.monotonic() + PATIENCE
    for given in cases:
        got, verdict, changes = attempt(exercise, answer, given)
        if verdict is not None:
            return replace(verdict, or_ours=reference, given=given)
        in_place = in_place or changes
        try:
            reason = f"{difference(got, given)}." if got is None else fault(got, *given)
        except Exception as error:
            reason = f"{shown(error)}; it gives {shown(got)}, expected "
            reason += check.__doc__.splitlines()[0]
        if not reason and time.monotonic() > until:
            reason = f"it is too slow to be judged: {PATIENCE:.0f} s have passed."
        if reason:
            return Verdict("wrong", exercise, reason, reference, given, got=got)
    return Verdict("correct", exercise, praise, on_copies(answer) if in_place else answer)


def difference(got: Any, expected: Any, tolerance: float = 1e-4, where: str = "") -> str:
    """What tells `got` from `expected`: "" | a clause naming type, length, key, shape, element.

    Lists, arrays, tensors and numbers may stand for one another.
    """
    try:
        return _difference(got, expected, tolerance, where)
    except Exception:  # exotic, too deep, too large: no right answer is
        return f"{where}: " * bool(where) + f"it gives {shown(got)}, expected {shown(expected)}"


def _difference(got: Any, expected: Any, tolerance: float, where: str) -> str:
    at = f"{where}: " if where else ""
    if got is None and expected is not None:
        return f"{at}it returns None (is a `return` missing?)"
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            keys = sorted(map(str, expected))
            gives = shown(sorted(map(str, got))) if isinstance(got, dict) else type(got).__name__
            return f"{at}expected a dict with the keys {keys}, it gives {gives}"
        pairs = [(got[key], expected[key], f"{where}[{key!r}]") for key in expected]
    elif isinstance(expected, (tuple, list)):
        count = len(got) if isinstance(got, ROWS) and getattr(got, "ndim", 1) else None
        if count != len(expected):
            gives = f"one {type(got).__name__}" if count is None else count
            return f"{at}expected {len(expected)} values, it gives {gives}"
        places = (f"{where or 'value'}[{i}]" for i in range(len(expected)))
        pairs = zip(got, expected, places)
    elif isinstance(expected, (*ROWS, float, int, np.generic)):
        return _numbers(got, expected, tolerance, at)
    else:
        same = type(got) is type(expected) and bool(got == expected)
        return "" if same else f"{at}it gives {shown(got)}, expected {shown(expected)}"
    problems = (difference(ours, theirs, tolerance, place) for ours, theirs, place in pairs)
    return next(filter(None, problems), "")


def _numbers(got: Any, expected: Any, tolerance: float, at: str) -> str:
    """Shapes first, then the first differing element."""
    want, shape = _array(expected), _shape(got)
    if shape != want.shape and isinstance(got, (*ROWS, float, int, np.generic)):
        hint = " (transposed?)" if len(shape) == 2 and shape[::-1] == want.shape else ""
        return f"{at}the shape is {shape}, expected {want.shape}{hint}"
    have = _result(_array, got)
    if shape != want.shape or isinstance(have, Exception):
        what = f"numbers of shape {want.shape}" if want.ndim else _short(want[()], want)
        return f"{at}it gives {shown(got)}, expected {what}"
    differs = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not differs.any():
        return ""
    first = tuple(np.argwhere(differs)[0].tolist())
    place = f"element {list(first)} is" if first else "it gives"
    share = f" ({differs.sum()} of {differs.size} elements differ)" if differs.size > 1 else ""
    return f"{at}{place} {_short(have[first], want)}, expected {_short(want[first], want)}{share}"


def numbers(value: Any, *shape: int) -> np.ndarray:
    """Numbers of this shape as float64, looked at before they are copied; ValueError for others."""
    if _shape(value) != shape:
        raise ValueError(f"the shape is {_shape(value)}, expected {shape}")
    return _array(value)


def _shape(value: Any, most: int = 8) -> tuple[int, ...]:
    """By the first elements of lists; nothing is copied, however large it is."""
    if isinstance(value, (list, tuple)):
        return (len(value), *(_shape(value[0], most - 1) if value and most else ()))
    return tuple(value.shape) if isinstance(value, (torch.Tensor, np.ndarray)) else ()


def _array(value: Any) -> np.ndarray:
    """Numbers as float64; ValueError for what is none, such as text, or integers beyond 64 bits."""
    if isinstance(value, (list, tuple)):
        value = np.stack([_array(v) for v in value]) if value else np.zeros(0)
    if isinstance(value, torch.Tensor) and not value.is_complex():
        value = value.detach().cpu().double().numpy()  # NumPy has no bfloat16
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"no numbers: {array.dtype}")
    return array.astype(np.float64)


def _short(value: float, like: np.ndarray) -> str:
    whole = float(value).is_integer() and np.all(like == np.round(like))
    return f"{value:.0f}" if whole else f"{value:.5g}"


def shown(value: Any, most: int = 80) -> str:
    """A value in at most so many characters of one line, whatever it is."""
    try:
        text = value if isinstance(value, BaseException) else BRIEF.repr(value)
        text = " ".join(str(text)[: 4 * most].split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[: most - 2] + " …"


def _plain(value: Any) -> Any:
    """A drawn number as Python's own int, float, bool or str."""
    return value.item() if isinstance(value, np.generic) else value


def attempt(exercise: str, answer: Callable, given: tuple) -> tuple[Any, Verdict | None, bool]:
    """What `answer` gives for copies of `given`, no verdict yet, and whether it changed the copies.

    Or None, and the verdict on what gives nothing to judge: no function, a stub, an error.
    """
    if not callable(answer):
        kind = type(answer).__name__
        reason = f"a {kind} was handed over; hand over the function, without brackets."
        return None, Verdict("wrong", exercise, reason), False
    arguments = copy.deepcopy(given)
    try:
        got = answer(*arguments)
    except NotImplementedError:
        hint = "Replace the line that raises NotImplementedError, then run both cells."
        return None, Verdict("not attempted", exercise, hint), False
    except KeyboardInterrupt:  # somebody does not want to wait
        raise
    except BaseException as error:  # exit() too would end the lesson
        said = f"{_where(error, answer)} {type(error).__name__}: {shown(error, 400)}"
        return None, Verdict("wrong", exercise, f"{said} (in {_call(exercise, given)})"), False
    return got, None, any(map(_changed, arguments, given))


def _changed(now: Any, before: Any) -> bool:
    """Has something that can be changed in place become something else?"""
    return isinstance(before, CHANGEABLE) and bool(difference(now, before, 0.0))


def on_copies(answer: Callable) -> Callable:
    """An answer that works in place; from now on on copies, so that nothing of a lesson changes."""

    def called(*arguments):
        # clones, so that gradients go on; a network stays itself, or nothing could be trained
        copied = (copy.deepcopy(x) if isinstance(x, CHANGEABLE[1:]) else x for x in arguments)
        return answer(*(x.clone() if isinstance(x, torch.Tensor) else x for x in copied))

    return called


def _call(exercise: str, given: tuple) -> str:
    """ "track(2, [[1, 0], [0.5, 2]], Tensor (3, 64))": how an answer was called."""
    return f"{exercise}({', '.join(map(_argument, given))})"


def _argument(value: Any) -> str:
    """A small one in full, of a larger one its type and shape."""
    if not hasattr(value, "shape"):
        return shown(value, 60)
    if math.prod(value.shape) > SMALL:
        return f"{type(value).__name__} {tuple(value.shape)}"
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda x: f"{float(x[0]):.4g}", str(value.tolist()))


def _result(function: Callable, *given: Any) -> Any:
    """What a function gives; where it has nothing to say about this input, the error."""
    try:
        return function(*given)
    except Exception as error:
        return error


def _imitated(mistake: Callable, given: tuple, view: Callable) -> Any:
    return view(mistake(*copy.deepcopy(given)))


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    return not (difference(one, other, tolerance) or difference(other, one, tolerance))


def _where(error: BaseException, answer: Callable) -> str:
    """ "line 3 of your function raises": the innermost line of the answer itself."""
    code = getattr(answer, "__code__", None)
    walk = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in walk if frame.f_code is code]
    if not lines:
        return "it raises"
    return f"line {lines[-1] - code.co_firstlineno + 1} of your function raises"
