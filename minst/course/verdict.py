"""How an answer is judged: on fresh random input, against a reference, likely misconceptions named.

    draw(rng) -> arguments --copies--> answer(...) ---compare---> Verdict
                          '----------> reference(...) (minst's own function, wherever there is one)
                          '----------> mistakes: a hint, and what somebody whom it helps would give

A mistake is code, not a pattern in a text: a hint is given only when the answer behaves like the
mistake on every input. Whatever an answer gives, it is judged: no check raises, and none echoes
more than some lines of it. Every sentence that a student reads goes through `say`, and stands in
ko.json with its Korean.

Lesson: notebooks/00_start_here.ipynb
"""

import copy
import json
import math
import os
import re
import reprlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["HALF", "Verdict", "attempt", "difference", "examine", "judge", "normal", "numbers",
           "plain_text", "say", "shown"]  # fmt: skip

# seconds after which no further input is drawn: an answer that sleeps is judged all the same
PATIENCE = 60.0
BRIEF = reprlib.Repr()
BRIEF.maxstring = BRIEF.maxother = 60
ROWS = (list, tuple, np.ndarray, torch.Tensor)  # what may stand for one another
CHANGEABLE = (list, np.ndarray, torch.Tensor)  # what an answer may change in place
SMALL = 12  # elements of an argument that is shown in full
HALF = 5e-3  # tolerance where an answer may reckon in float16, which keeps three digits

SAID = {
    "not attempted": "○ {exercise}: not attempted. {reason}",
    "wrong": "✘ {exercise}: wrong, because {reason}",
    "correct": "✔ {exercise}: correct. {reason}",
}
INSTEAD = "it gives {got}, expected {expected}."


def say(*sentences: str, **values: Any) -> str:
    """Sentences with {values} filled in; in Korean where the variable MINST_LANGUAGE is "ko".

    Whoever calls it writes whole sentences as plain literals, since they are the keys of ko.json.
    One that is not there stays English.
    """
    known = _korean() if os.environ.get("MINST_LANGUAGE") == "ko" else {}
    return " ".join(known.get(text, text).format(**values) for text in sentences if text)


@cache
def _korean() -> dict[str, str]:
    """{sentence: the Korean one}, in the order of the modules."""
    return json.loads(Path(__file__).with_name("ko.json").read_text(encoding="utf-8"))


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
        return say(SAID[self.state], exercise=self.exercise, reason=self.reason).rstrip()


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Random numbers for a `draw`: a standard normal tensor, float32."""
    return torch.from_numpy(rng.standard_normal(shape)).float()


def plain_text(result: Any) -> Any:
    """A `view` of NumPy's text as Python's, that of `np.where` say."""
    return result.tolist() if isinstance(result, (np.ndarray, np.str_)) else result


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
    learned: bool = False,
) -> Verdict:
    """Run `answer` on `rounds` fresh draws beside `reference`; the first difference and its reason.

    draw: random arguments. mistakes: a hint, the functions that it is for, another hint, ...
    exercise: default the name of `reference`. tolerance: absolute and relative.
    view: what of a result is compared. learned: a gradient must come back to the first argument.
    More is drawn, ten times as much at most, while a mistake passes as the right answer: strides of
    1 alone, say, happen once in 64 checks and hide that somebody counts the places of the input.
    The same holds while this answer behaves like the mistakes of two hints.
    """
    exercise, hints = exercise or reference.__name__, {}  # of every mistake
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
        drawn = draw(np.random.default_rng())
        given = tuple(v.item() if isinstance(v, np.generic) else v for v in drawn)
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
    if problem:
        hint = say(hints[likely[0]]) if likely else ""
        called = say("It was called as {call}.", call=_call(exercise, failed["given"]))
        reason = " ".join(filter(None, [problem, hint, called]))
        return Verdict("wrong", exercise, reason, reference, **failed, hint=hint)
    answer = on_copies(answer) if in_place or learned else answer
    if learned and not _is_learned(answer := _in_tensors(answer, expected), given):
        reason = say(
            "the numbers are right, but no gradient comes back through them.",
            "Training needs one: keep to operations on tensors, without .item(), .detach(), "
            "NumPy or changes in place.",
        )
        return Verdict("wrong", exercise, reason, reference)
    return Verdict("correct", exercise, say(praise), answer)


def _in_tensors(answer: Callable, like: Any) -> Callable:
    """An answer to train with: lists of tensors joined, in the kind of floats that it was given."""

    def joined(got):
        return torch.stack([joined(of) for of in got]) if isinstance(got, (list, tuple)) else got

    def called(*given):
        got, several = answer(*given), isinstance(like, tuple)
        parts = [joined(part).to(given[0].dtype) for part in (got if several else [got])]
        return tuple(parts) if several else parts[0]

    return called


def _is_learned(answer: Callable, given: tuple) -> bool:
    """Does a gradient come back from the (last) result to the first argument?"""
    with torch.enable_grad():
        try:
            got = answer(first := given[0].clone().requires_grad_(), *given[1:])
            last = got[-1] if isinstance(got, tuple) else got
            return bool(torch.autograd.grad(last.sum(), first)[0].any())
        except Exception:  # floats, arrays: whatever it is, nothing is learned with it
            return False


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
            reason = difference(got, given) if got is None else fault(got, *given)
        except Exception as error:
            known = {"error": shown(error), "got": shown(got)}
            asked = say(check.__doc__.splitlines()[0])
            reason = say("{error}; it gives {got}, expected {asked}", **known, asked=asked)
        if not reason and time.monotonic() > until:
            reason = say("it is too slow to be judged: {most:.0f} s have passed.", most=PATIENCE)
        if reason:
            return Verdict("wrong", exercise, reason, reference, given, got=got)
    return Verdict("correct", exercise, say(praise), on_copies(answer) if in_place else answer)


def difference(got: Any, expected: Any, tolerance: float = 1e-4, where: str = "") -> str:
    """What tells `got` from `expected`: "" | a sentence naming type, length, key, shape, element.

    Lists, arrays, tensors and numbers may stand for one another.
    """
    try:
        return _difference(got, expected, tolerance, where)
    except Exception:  # exotic, too deep, too large: no right answer is
        return f"{where}: " * bool(where) + say(INSTEAD, got=shown(got), expected=shown(expected))


def _difference(got: Any, expected: Any, tolerance: float, where: str) -> str:
    at = f"{where}: " if where else ""
    if got is None and expected is not None:
        return at + say("it returns None (is a `return` missing?).")
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            keys = sorted(map(str, expected))
            gives = shown(sorted(map(str, got))) if isinstance(got, dict) else type(got).__name__
            wanted = "expected a dict with the keys {keys}, it gives {gives}."
            return at + say(wanted, keys=keys, gives=gives)
        pairs = [(got[key], expected[key], f"{where}[{key!r}]") for key in expected]
    elif isinstance(expected, (tuple, list)):
        count, wanted = len(expected), "expected {count} values, it gives {gives}."
        if not isinstance(got, ROWS) or not getattr(got, "ndim", 1):
            wanted = "expected {count} values, it gives one {gives}."
            return at + say(wanted, count=count, gives=type(got).__name__)
        if len(got) != count:
            return at + say(wanted, count=count, gives=len(got))
        pairs = zip(got, expected, (f"{where or 'value'}[{i}]" for i in range(count)))
    elif isinstance(expected, (*ROWS, float, int, np.generic)):
        problem = _numbers(got, expected, tolerance)
        return at + problem if problem else ""
    else:
        same = type(got) is type(expected) and bool(got == expected)
        return "" if same else at + say(INSTEAD, got=shown(got), expected=shown(expected))
    problems = (difference(ours, theirs, tolerance, place) for ours, theirs, place in pairs)
    return next(filter(None, problems), "")


def _numbers(got: Any, expected: Any, tolerance: float) -> str:
    """Shapes first, then the first differing element."""
    want, shape = _array(expected), _shape(got)
    if shape != want.shape and isinstance(got, (*ROWS, float, int, np.generic)):
        wrong = "the shape is {shape}, expected {expected}."
        if len(shape) == 2 and shape[::-1] == want.shape:
            wrong = "the shape is {shape}, expected {expected} (transposed?)."
        return say(wrong, shape=shape, expected=want.shape)
    have = _result(_array, got)
    if shape != want.shape or isinstance(have, Exception):
        wrong = "it gives {got}, expected numbers of shape {shape}." if want.ndim else INSTEAD
        wanted = "" if want.ndim else _short(want[()], want)
        return say(wrong, got=shown(got), shape=want.shape, expected=wanted)
    differs = ~np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not differs.any():
        return ""
    first = tuple(np.argwhere(differs)[0].tolist())
    wrong = "element {place} is {got}, expected {expected} ({n} of {size} elements differ)."
    wrong = wrong if first else INSTEAD
    seen = {"got": _short(have[first], want), "expected": _short(want[first], want)}
    return say(wrong, place=list(first), n=differs.sum(), size=differs.size, **seen)


def numbers(value: Any, *shape: int) -> np.ndarray:
    """Numbers of this shape as float64, looked at before they are copied; ValueError for others."""
    if _shape(value) != shape:
        wrong = "the shape is {shape}, expected {expected}"
        raise ValueError(say(wrong, shape=_shape(value), expected=shape))
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
        raise ValueError(say("these are no numbers, but {kind}", kind=array.dtype))
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


def attempt(exercise: str, answer: Callable, given: tuple) -> tuple[Any, Verdict | None, bool]:
    """What `answer` gives for copies of `given`, no verdict yet, and whether it changed the copies.

    Or None, and the verdict on what gives nothing to judge: no function, a stub, an error.
    """
    state, arguments = "wrong", copy.deepcopy(given)
    try:
        if callable(answer):
            got = answer(*arguments)
            changeable = (p for p in zip(arguments, given) if isinstance(p[1], CHANGEABLE))
            return got, None, any(difference(*pair, 0.0) for pair in changeable)
        wrong = "a {kind} was handed over; hand over the function, without brackets."
        reason = say(wrong, kind=type(answer).__name__)
    except NotImplementedError:
        reason = say("Replace the line that raises NotImplementedError, then run both cells.")
        state = "not attempted"
    except KeyboardInterrupt:  # somebody does not want to wait
        raise
    except BaseException as error:  # exit() too would end the lesson
        code = getattr(answer, "__code__", None)
        walk = traceback.walk_tb(error.__traceback__)
        lines = [line - code.co_firstlineno + 1 for frame, line in walk if frame.f_code is code]
        wrong = "line {line} of your function raises {error} (in {call})."
        wrong = wrong if lines else "it raises {error} (in {call})."
        raised = f"{type(error).__name__}: {shown(error, 400)}"
        reason = say(wrong, line=lines and lines[-1], error=raised, call=_call(exercise, given))
    return None, Verdict(state, exercise, reason), False


def on_copies(answer: Callable) -> Callable:
    """An answer that works in place; from now on on copies, so that nothing of a lesson changes."""

    def called(*arguments):
        # clones, so that gradients go on; a network stays itself, or nothing could be trained
        copied = (copy.deepcopy(x) if isinstance(x, CHANGEABLE[:2]) else x for x in arguments)
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
