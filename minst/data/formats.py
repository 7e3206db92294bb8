"""What stands in an annotation file, as types: YouTube-VIS form (videos) and COCO form (images).

    YouTube-VIS  {"videos": [Video, ...], "categories": [Category, ...],
                  "annotations": [Track, ...]}
    COCO         {"images": [Image, ...], "categories": [Category, ...],
                  "annotations": [Annotation, ...]}

Only what a reader needs is typed: other keys (bboxes, areas, length, info, ...) may hold anything.

    read_typed(path, kind) -> its content
    JsonFile(path).entries("videos", Video) -> (Video, where its text lies), one at a time
                 later: source.read([where, ...]) -> those entries with all their keys

So a large file is parsed once and not held: worker processes share nothing but a path and a few
numbers. An error names the place, as in "annotations[7].segmentations[3].size: expected `array`,
got `int`".

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from minst import rle

__all__ = [
    "COCO", "YTVIS", "Annotation", "Area", "Box", "Category", "Form", "Id", "Image", "JsonFile",
    "Mask", "Polygon", "RunLengths", "Source", "Track", "Video", "explained", "read_typed", "typed",
]  # fmt: skip

Id = Annotated[int, Meta(ge=-(2**62), le=2**62)]  # a whole number that 64 bits can hold
Pixels = Annotated[int, Meta(ge=1, le=rle.SIDE)]
Polygon = Annotated[list[float], Meta(min_length=6)]  # x1, y1, x2, y2, ...: at least three points
Box = Annotated[list[float], Meta(min_length=4, max_length=4)]  # x, y, width, height
Area = Annotated[float, Meta(ge=0)]  # in pixels
MARK = b"\xef\xbb\xbf"  # some editors begin a file in UTF-8 with it
# what stands between two values of an object, if no key stands there twice
KEY = re.compile(rb'[\s{,]*"((?:[^"\\]|\\.)*)"\s*:\s*')


class RunLengths(Struct):
    """A mask as the lengths of its runs, as `minst.rle` reads them."""

    size: tuple[Pixels, Pixels]  # height, width
    counts: str | list[int]  # compressed, or as numbers


Mask = RunLengths | list[Polygon]


class Category(Struct):
    """What an instance may be."""

    id: Id
    name: str


class Picture(Struct):
    """What an image and a video have in common."""

    id: Id
    height: Pixels
    width: Pixels

    def __post_init__(self):
        rle.check_frame(self.height, self.width)


class Video(Picture):
    """Frames of one size."""

    file_names: list[str]


class Image(Picture):
    """One image: a video of one frame."""

    file_name: str

    @property
    def file_names(self) -> list[str]:
        """Its name alone."""
        return [self.file_name]


class Track(Struct):
    """One instance in every frame of its video."""

    id: Id
    video_id: Id
    category_id: Id
    segmentations: list[Mask | None]  # one for each frame; None or []: not to be seen in it
    iscrowd: Literal[0, 1] | bool | None = 0  # a group, not one instance


class Annotation(Struct):
    """One instance in its image."""

    id: Id
    image_id: Id
    category_id: Id
    segmentation: Mask | None
    iscrowd: Literal[0, 1] | bool | None = 0

    @property
    def video_id(self) -> int:
        """The image is the video."""
        return self.image_id

    @property
    def segmentations(self) -> list[Mask | None]:
        """Its mask alone."""
        return [self.segmentation]


class Form(NamedTuple):
    """One of the two forms: its types, and how it calls its things."""

    name: str
    pictures: str  # the list of
    picture: type[Video | Image]
    track: type[Track | Annotation]
    names: str  # keys of a picture and of a track
    owner: str
    masks: str
    boxes: str
    areas: str


YTVIS = Form(
    "YouTube-VIS", "videos", Video, Track,
    "file_names", "video_id", "segmentations", "bboxes", "areas",
)  # fmt: skip
COCO = Form(
    "COCO", "images", Image, Annotation,
    "file_name", "image_id", "segmentation", "bbox", "area",
)  # fmt: skip


class Source(NamedTuple):
    """A file as it was when it was opened; small, so that worker processes may hold it."""

    path: Path
    size: int
    changed: int  # nanoseconds

    def read(self, spans: Iterable[tuple[int, int]]) -> list[dict]:
        """The entries from byte to byte. ValueError when the file has changed since."""
        with open(self.path, "rb") as file:
            if _stamp(file) != self[1:]:
                what = "has changed since it was opened; open the data set again"
                raise ValueError(f"{self.path}: {what}")
            entries = []
            for start, stop in spans:
                file.seek(int(start))
                try:
                    entries.append(msgspec.json.decode(file.read(int(stop - start))))
                except ValueError as error:  # a text that is no UTF-8
                    raise ValueError(f"{self.path}: from byte {start} on: {error}") from None
            return entries


class JsonFile:
    """A JSON object, open: `values` are those of its keys, not yet parsed.

    Raises OSError, or ValueError that says what the file is instead, or where it is broken.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with open(path, "rb") as file:
            self.source = Source(self.path, *_stamp(file))
            self._text = _without_mark(file.read())
        self.values = _decode(self.path, self._text, dict[str, Raw])
        at = 0
        for text in sorted(self.values.values(), key=_address):
            start = _address(text) - _address(self._text)
            key = KEY.match(self._text, at)
            if key.end() != start:  # a value lies between them that was dropped
                twice = f"the key {key[1].decode('utf-8', 'replace')!r} stands twice"
                raise ValueError(f"{self.path}: {twice} at the top of the file")
            at = start + memoryview(text).nbytes

    def parsed(self, key: str, kind: Any) -> Any:
        """The value of a key; ValueError names the place that is not of this kind."""
        return self._parsed(self.values[key], msgspec.json.Decoder(kind), key)

    def entries(self, key: str, kind: type[Struct]) -> Iterator[tuple[Struct, tuple[int, int]]]:
        """The entries of the list under `key`, each with its first byte and the one after its last.

        None where there is no such key, or null. ValueError names the place of another kind.
        """
        texts = self.parsed(key, list[Raw] | None) if key in self.values else None
        decoder, first = msgspec.json.Decoder(kind), _address(self._text)
        for i, text in enumerate(texts or ()):
            start = _address(text) - first
            entry = self._parsed(text, decoder, f"{key}[{i}]")
            yield entry, (start, start + memoryview(text).nbytes)

    def _parsed(self, text: Raw, decoder: msgspec.json.Decoder, place: str) -> Any:
        try:
            return decoder.decode(text)
        except (ValueError, RecursionError) as error:
            place, what = explained(error, place)
            raise ValueError(f"{self.path}: {place}: {what}") from None


def read_typed(path: str | Path, kind: Any) -> Any:
    """The content of a JSON file; ValueError names the place that is broken or of another kind."""
    return _decode(Path(path), _without_mark(Path(path).read_bytes()), kind)


def typed(value: Any, kind: Any, where: str, strict: bool = True) -> Any:
    """What was read already, as this kind; ValueError names the place, which begins with `where`.

    strict=False: numbers may be text, as in XML.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        place, what = explained(error, where)
        raise ValueError(f"{place}: {what}") from None


def explained(error: Exception, place: str) -> tuple[str, str]:
    """The path of what msgspec refused and its words: ("videos[1].width", "expected `int` >= 1")."""
    if isinstance(error, UnicodeDecodeError):
        return place, f"not text in UTF-8 ({error.reason})"
    what, _, path = str(error).partition(" - at `$")
    what = what.replace("Object missing required field", "Lacks")
    return (place + path.rstrip("`")).lstrip("."), what[:1].lower() + what[1:]


def _decode(path: Path, text: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError:
        raise ValueError(f"{path}: broken JSON: nested too deeply") from None
    except ValueError as error:
        place, what = explained(error, "")
        if type(error) is msgspec.DecodeError:
            place, what = _broken(text, str(error))
        elif not place and what.endswith("got `array`"):
            what += ", as results are; annotations are an object that holds lists"
        raise ValueError(": ".join(part for part in (str(path), place, what) if part)) from None


def _broken(text: bytes, what: str) -> tuple[str, str]:
    """Line and column of a syntax error, and what it may come from."""
    if not text.strip():
        return "", "is empty"
    found = re.search(r"\(byte (\d+)\)", what)
    at = int(found[1]) if found else len(text)
    line, line_start = text.count(b"\n", 0, at) + 1, text.rfind(b"\n", 0, at) + 1
    column = len(text[line_start:at].decode("utf-8", "replace")) + 1
    if found is None or not text.rstrip().endswith(b"}"):
        what += "; the file breaks off, was it copied whole?"
    if text[at:].startswith((b"NaN", b"Infinity", b"-Infinity")):
        what += "; NaN and Infinity are no JSON, write null"
    if text[at : at + 1] > b"\x7f":
        what += "; is it in UTF-8?"
    return f"broken JSON at line {line}, column {column}", what


def _without_mark(text: bytes) -> bytes:
    """Blanks in the place of the mark: all else stays where it is."""
    return b" " * len(MARK) + text[len(MARK) :] if text.startswith(MARK) else text


def _stamp(file: BinaryIO) -> tuple[int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _address(text: bytes | Raw) -> int:
    """Where in memory a text lies: entries are views into the text of the file."""
    return np.frombuffer(text, dtype=np.uint8).__array_interface__["data"][0]
