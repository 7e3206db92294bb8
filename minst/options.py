"""What may be chosen: ranges, declared once beside the field, and a command line made from them.

    lr: Positive = 1.5e-3  # peak learning rate        a field of a dataclass, or a parameter
      --check-->         ValueError before any work begins, for NaN and for what is out of range
      --add_options-->   --lr X   peak learning rate (default: 0.0015)

The type says what is allowed; the comment beside, or above, says what it is.

Lesson: notebooks/00_start_here.ipynb
"""

import argparse
import dataclasses
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

__all__ = ["Count", "File", "Folder", "FrameSize", "Natural", "NewFile", "NewFolder", "NewPicture",
           "Number", "Pixels", "Port", "Positive", "Range", "Report", "Share", "Size", "Threads",
           "add_options", "check", "check_call"]  # fmt: skip


class Range(NamedTuple):
    """Finite numbers from `least` to `most`, larger than `above`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def holds(self, value: float) -> bool:
        """Whether a number is within; NaN never is, nor is infinity."""
        # not math.isfinite, which cannot look at whole numbers of 400 digits
        return abs(value) < math.inf and self.above < value and self.least <= value <= self.most

    def __str__(self) -> str:
        bounds = {"above": self.above, "at least": self.least, "at most": self.most}
        return " and ".join(f"{word} {n:g}" for word, n in bounds.items() if math.isfinite(n))


Count = Annotated[int, Range(1, 10**9)]
Natural = Annotated[int, Range(0, 2**32)]
Pixels = Annotated[int, Range(64, 8192)]  # a side of what a network sees
Positive = Annotated[float, Range(above=0)]
Number = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Port = Annotated[int, Range(1, 65535)]
FrameSize = tuple[Pixels, Pixels]  # height, width
Threads = Annotated[int, Range(1, 256)]


def size(text: str) -> tuple[int, int]:
    """ "256x192", width x height, as (height, width)."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if not match:
        what = "is not WIDTHxHEIGHT, of up to 9999 pixels, such as 256x192"
        raise argparse.ArgumentTypeError(f"{text!r} {what}")
    return int(match[2]), int(match[1])


def new_folder(text: str) -> str:
    """A folder to be written to, which need not be there yet: refused before any work is done."""
    path = Path(text).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not text or not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {there} is read-only")
    return text


def new_file(text: str) -> str:
    """The same for a file; folders above it are made."""
    path = Path(text)
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder or a device; name a file")
    new_folder(str(path.absolute().parent))
    return text


def new_picture(text: str) -> str:
    """The same for a figure, whose ending says what it will be."""
    if Path(new_file(text)).suffix.lower() in (".png", ".pdf", ".svg"):
        return text
    raise argparse.ArgumentTypeError(f"{text!r}: write .png, .pdf or .svg")


def report(text: str) -> str:
    """The same for a file in a folder that is there already."""
    folder = Path(text).absolute().parent
    if folder.is_dir():
        return new_file(text)
    raise argparse.ArgumentTypeError(f"{text!r}: there is no folder {folder}; make it first")


Size = Annotated[tuple[int, int], size]
File = Annotated[str, "FILE"]
Folder = Annotated[str, "DIR"]
NewFile = Annotated[str, new_file]
NewFolder = Annotated[str, new_folder]
NewPicture = Annotated[str, new_picture]
Report = Annotated[str, report]
METAVARS = {int: "N", float: "X", size: "WxH", new_folder: "DIR"}
METAVARS |= dict.fromkeys((new_file, new_picture, report), "FILE")


def check(fields: object, what: str) -> None:
    """ValueError for the first field of a dataclass that is no choice of its, or out of range."""
    check_call(type(fields), vars(fields), what)


def check_call(described: Callable | type, values: Mapping[str, object], what: str = "") -> None:
    """The same of a function's arguments: values are its `locals()`, before its first line."""
    for name, hint in get_type_hints(described, include_extras=True).items():
        wrong = _wrong(hint, values[name]) if name in values else None
        if wrong:
            where = what or described.__name__
            raise ValueError(f"{where}: {name} is {values[name]!r}; {wrong}")


def _wrong(hint: object, value: object) -> str | None:
    """What is wrong with a value by its type: where that is a choice, a range, or yes and no."""
    allowed = get_args(hint)
    if get_origin(hint) in (Union, UnionType):  # X | None
        return None if value is None else _wrong(allowed[0], value)
    if get_origin(hint) is Literal and value not in allowed:
        return f"choose one of {', '.join(map(str, allowed))}"
    if get_origin(hint) is tuple and Ellipsis not in allowed:
        if not isinstance(value, (tuple, list)) or len(value) != len(allowed):
            return f"it must be {len(allowed)} numbers, height and width"
        return next(filter(None, map(_wrong, allowed, value)), None)
    if hint is bool and not isinstance(value, bool):
        return "it must be True or False"
    if get_origin(hint) is Annotated and allowed[1] is report:
        try:
            report(str(value))
        except argparse.ArgumentTypeError as error:
            return str(error)
    if get_origin(hint) is Annotated and isinstance(allowed[1], Range):
        kind, bounds = allowed
        number = isinstance(value, Integral if kind is int else Real)
        if isinstance(value, bool) or not number:
            return f"it must be {'a whole' if kind is int else 'a'} number"
        return None if bounds.holds(value) else f"it must be {bounds}"
    return None


def add_options(
    parser: argparse.ArgumentParser, described: Callable | type, shared: Mapping[str, str] = {}
) -> None:
    """An argument for every parameter of a function, an option for those that are named only.

    A dataclass, or the one that annotates a function's **fields, gives an option for every field,
    which is absent where it was not said. shared: what is said of parameters without a comment.
    Of `preset` and `weights` only one can be said.
    """
    said = {**shared, **{name: text for name, text in comments(described).items() if text}}
    parameters = inspect.signature(described, eval_str=True).parameters
    one_of = parser
    if {"preset", "weights"} <= parameters.keys() and inspect.isfunction(described):
        one_of = parser.add_mutually_exclusive_group()
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            add_options(parser, parameter.annotation, shared)
            continue
        told = _told(parameter.annotation)
        required = parameter.default is parameter.empty
        told["help"] = said[name].replace("%", "%%")
        if not (required or parameter.default is False or parameter.default in (None, "", ())):
            told["help"] += f" (default: {parameter.default})"
        flag = "--" + name.rstrip("_").replace("_", "-")
        if dataclasses.is_dataclass(described):
            is_flag = told.get("action") == "store_true"
            told |= {"action": argparse.BooleanOptionalAction} if is_flag else {}
            parser.add_argument(flag, **told, default=argparse.SUPPRESS)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            told |= {"required": True} if required else {"default": parameter.default}
            (one_of if name in ("preset", "weights") else parser).add_argument(
                flag, **told, dest=name
            )
        else:
            told.pop("metavar", None)
            told |= {} if required else {"nargs": "*" if "nargs" in told else "?"}
            told |= {} if required else {"default": parameter.default}
            parser.add_argument(name, **told)


def comments(described: Callable | type) -> dict[str, str]:
    """{name: the comment beside its line, or on the lines above} of parameters or fields."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(described).splitlines():
        code, _, beside = line.partition("# ")
        name = re.match(r"\s+(\w+):", code)
        if name:
            found.setdefault(name[1], " ".join([*above, beside] if beside else above))
        above = [*above, beside] if beside and not code.strip() else []
    return found


def _told(hint: object) -> dict:
    """What argparse is told of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):  # X | None
        return _told(arguments[0])
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is list:
        return {**_told(arguments[0]), "nargs": "+"}
    if origin is not Annotated:
        return {"action": "store_true"} if hint is bool else _typed(hint)
    kind, extra = arguments
    if isinstance(extra, Range):
        return {**_typed(kind), "type": lambda text: _within(hint, kind, text)}
    return {"type": kind, "metavar": extra} if isinstance(extra, str) else _typed(extra)


def _typed(kind: Callable) -> dict:
    return {"type": kind, "metavar": METAVARS[kind]} if kind in METAVARS else {"type": kind}


def _within(hint: object, kind: type, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: {text!r}") from None
    if wrong := _wrong(hint, value):
        raise argparse.ArgumentTypeError(f"{text} is out of range: {wrong}")
    return value
