"""Large annotation files without holding them: where each entry lies, and the few numbers by which it is found.

    {"videos": [{...}, ...], "annotations": [{...}, ...], ...}
        one pass, 4 MB at a time, one entry at a time ─> for each entry its bytes in the file, and `row(entry)`, integers
        later: file.read([span, ...])                 ─> those entries, parsed again, as UTF-8

The pass is made by the json module itself on text in which each byte stands for one character (latin-1), so that
places in the text are places in the file. What remains is two small arrays a list: nothing that worker processes would
have to copy, and no open file, so an index can be pickled. A file that has changed since is refused.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

__all__ = ["Entries", "JsonFile", "has_key", "integer", "scan"]

WINDOW = 1 << 22  # bytes read at a time; an entry that is longer makes the window grow
MARGIN = 16  # what is parsed up to here before the window's end may go on behind it: 12 | 34, tr | ue, 1.5e | 3
SPACE = re.compile(r"[ \t\n\r]*")


class JsonFile(NamedTuple):
    """A file as it was when it was scanned."""

    path: Path
    size: int
    changed: int  # nanoseconds

    def read(self, spans: Iterable[tuple[int, int]]) -> list:
        """The values at these places, (first byte, byte after the last). ValueError when the file has changed since."""
        with open(self.path, "rb") as file:
            if _stamp(file) != self[1:]:
                raise ValueError(f"{self.path}: has changed since it was opened; open the data set again")
            return [self._read(file, int(start), int(stop)) for start, stop in spans]

    def _read(self, file: BinaryIO, start: int, stop: int):
        file.seek(start)
        try:
            return json.loads(file.read(stop - start).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: not UTF-8 ({error.reason} at byte {start + error.start})") from None


class Entries(NamedTuple):
    """The entries of one list of a file."""

    spans: np.ndarray  # (n, 2) int64: first byte, byte after the last
    rows: np.ndarray  # (n, k) int64: what `row` gave


def scan(
    path: str | Path, rows: dict[str, Callable[[dict], tuple[int, ...]]], whole: Iterable[str] = ()
) -> tuple[JsonFile, dict[str, Entries | None], dict]:
    """Pass once over a JSON object.

    rows: for each list to index a function entry -> its row of integers, or ValueError. whole: keys whose values are
    kept. Returns the file, the lists (None: absent or null), and all top-level keys, with None for what is not in
    `whole`. ValueError says where a file is broken, in which entry, and which key stands twice in an object.
    """
    path = Path(path)
    with open(path, "rb") as file:
        source = JsonFile(path, *_stamp(file))
        text = _Text(path, file)
        lists, keys, spans = dict.fromkeys(rows), {}, {}
        _expect_object(text)
        for key in text.members(keys):
            keys[key] = None
            if key not in rows:
                spans[key] = text.skip()
            elif text.peek() == "[":
                lists[key] = _entries(text, key, rows[key])
            elif text.value()[0] is not None:
                raise ValueError(f"{path}: {key!r} must be a list")
        if text.peek():
            raise text.broken("something follows the object")
    keys.update({key: source.read([spans[key]])[0] for key in whole if key in spans})
    return source, lists, keys


def has_key(path: str | Path, wanted: str) -> bool:
    """Does this key stand at the top of a JSON object? Reads no further than to it."""
    with open(path, "rb") as file:
        text = _Text(Path(path), file)
        _expect_object(text)
        for key in text.members({}):
            if key == wanted:
                return True
            text.skip()
    return False


def integer(entry: dict, key: str) -> int:
    """`entry[key]`, a whole number; ValueError says what is there instead."""
    number = entry.get(key)
    if type(number) is int and abs(number) < 1 << 62:  # True is no number, and one of 30 digits is no id
        return number
    raise ValueError(f"{key} is {number!r}, no whole number" if key in entry else f"lacks {key!r}")


def _stamp(file: BinaryIO) -> tuple[int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _entries(text: _Text, key: str, row: Callable[[dict], tuple[int, ...]]) -> Entries:
    spans, rows, count = array("q"), array("q"), 0
    for entry, *span in text.elements(key):
        try:
            if type(entry) is not dict:
                raise ValueError("must be an object")
            rows.extend(row(entry))
        except ValueError as error:
            raise ValueError(f"{text.path}: {key}[{count}]: {error}") from None
        spans.extend(span)
        count += 1
    numbers = np.array(rows, dtype=np.int64)
    return Entries(
        np.array(spans, dtype=np.int64).reshape(-1, 2), numbers.reshape(count, len(numbers) // max(count, 1))
    )


def _expect_object(text: _Text) -> None:
    """ValueError that says what the file is, unless it is an object."""
    found = text.peek()
    if not found:
        raise ValueError(f"{text.path}: is empty")
    if found == "[":
        first = next(text.elements(), (None,))[0]
        what = "a list of results, with scores" if isinstance(first, dict) and "score" in first else "a list"
        raise ValueError(f"{text.path}: {what}; annotations are an object that holds lists")
    if found != "{":
        raise ValueError(f"{text.path}: no annotations in JSON: begins with {found!r}, not with an object")


class _Text:
    """A window that moves over a file, one character a byte."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.file, self.name, self.count = path, file, "", 0
        self.text, self.place, self.start = "", 0, 0  # `place` in the text, which begins at `start`
        self.parse = json.JSONDecoder(object_pairs_hook=_unique).scan_once
        if self.peek() == "ï" and self.text[self.place :].startswith("ï»¿"):  # a mark that some editors begin with
            self.place += 3

    def peek(self) -> str:
        """The next character that is not a space; "" at the end."""
        while True:
            self.place = SPACE.match(self.text, self.place).end()
            if self.place < len(self.text) or not self._more():
                return self.text[self.place : self.place + 1]

    def value(self) -> tuple[object, int, int]:
        """The next value whole, and its span."""
        self.peek()
        while True:
            try:
                value, end = self.parse(self.text, self.place)
                if end + MARGIN <= len(self.text) or not self._more():
                    span = self.start + self.place, self.start + end
                    self.place = end
                    return value, *span
            except StopIteration as error:
                self._more_after("Expecting value", error.value)
            except json.JSONDecodeError as error:
                self._more_after(error.msg, error.pos)
            except (ValueError, RecursionError) as error:  # a key twice, a number of 5,000 digits, a hundred thousand [
                raise self.broken(str(error)) from None

    def skip(self) -> tuple[int, int]:
        """Pass over the next value, a list entry by entry; returns its span."""
        if self.peek() != "[":
            return self.value()[1:]
        start = self.start + self.place
        for _ in self.elements():
            pass
        return start, self.start + self.place

    def elements(self, name: str = "") -> Iterator[tuple[object, int, int]]:
        """The values of the list that begins here, and their spans."""
        self.place += 1
        self.name, self.count = name, 0  # for errors
        more = self.peek() != "]"
        while more:
            yield self.value()
            more = self._more_of("]")
            self.count += 1
        self.place += 1
        self.name = ""

    def members(self, seen: dict) -> Iterator[str]:
        """The keys of the object that begins here; whoever asks reads the value before the next key."""
        self.place += 1
        more = self.peek() != "}"
        while more:
            if self.peek() != '"':
                raise self.broken("Expecting property name enclosed in double quotes")
            key, start, _ = self.value()
            if key in seen:
                raise self.broken(f"the key {key!r} stands there twice", start - self.start)
            if self.peek() != ":":
                raise self.broken("Expecting ':' delimiter")
            self.place += 1
            yield key
            more = self._more_of("}")
        self.place += 1

    def broken(self, what: str, place: int | None = None) -> ValueError:
        """An error with line and column of a place in the text (the next character)."""
        place = self.start + (self.place if place is None else place)
        self.file.seek(0)
        before, rest = self.file.read(place), self.file.read().rstrip()
        line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        if what.startswith("Unterminated") or not rest.endswith((b"}", b"]")):
            what += "; the file breaks off, was it copied whole?"
        if self.name:
            what += f" (in {self.name}[{self.count}])"
        return ValueError(f"{self.path}: broken JSON at line {line}, column {column}: {what}")

    def _more_of(self, close: str) -> bool:
        """Pass a comma, or stay at the bracket that closes."""
        found = self.peek()
        if found != "," and found != close:
            raise self.broken("Expecting ',' delimiter")
        self.place += found == ","
        return found == ","

    def _more_after(self, what: str, place: int) -> None:
        """Go on after an error where the window may have cut a value, else raise it."""
        cut = place + MARGIN > len(self.text) or what.startswith("Unterminated")
        if not cut or not self._more():
            raise self.broken(what, place) from None

    def _more(self) -> bool:
        """Let go of what is read, and lengthen what is left; False, and nothing changes, at the end of the file."""
        read = self.file.read(max(WINDOW, len(self.text) - self.place))
        if read:
            self.text = self.text[self.place :] + read.decode("latin-1")
            self.start, self.place = self.start + self.place, 0
        return bool(read)


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return found
