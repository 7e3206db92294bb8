"""What stands in an annotation file, as types: YouTube-VIS form (videos) and COCO form (images).

    YouTube-VIS  {"videos": [Video, ...], "categories": [Category, ...],
                  "annotations": [Track, ...]}
    COCO         {"images": [Image, ...], "categories": [Category, ...],
                  "annotations": [Annotation, ...]}

Only what a reader needs is typed: other keys (bboxes, areas, length, info, ...) may hold anything.

    read_typed(path, kind) -> its content
    JsonFile(path).entries("videos", Video) -> (its place, Video, its text), one at a time

A text is a view into the file's own, which takes a tenth of what its parsed content would. An error
names the place, as in "annotations[7].segmentations[3].size: expected `array`, got `int`".

Lesson: notebooks/10_capstone.ipynb
"""

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from minst import rle
from minst.data.files import TwiceError, read_json

__all__ = [
    "COCO", "YTVIS", "Annotation", "Area", "Box", "Category", "Form", "Id", "Image", "JsonFile",
    "Mask", "Picture", "Pixels", "Polygon", "RunLengths", "Track", "Video", "explained",
    "read_typed", "typed",
]  # fmt: skip

Id = Annotated[int, Meta(ge=-(2**62), le=2**62)]  # a whole number that 64 bits can hold
Pixels = Annotated[int, Meta(ge=1, le=rle.SIDE)]
Polygon = Annotated[list[float], Meta(min_length=6)]  # x1, y1, x2, y2, ...: at least three points
Box = Annotated[list[float], Meta(min_length=4, max_length=4)]  # x, y, width, height
Area = Annotated[float, Meta(ge=0)]  # in pixels
OF_IDS = {"video_id": "videos", "image_id": "images", "category_id": "categories"}
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
    file_names = property(lambda self: [self.file_name])


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
    # as a track of one frame
    video_id = property(lambda self: self.image_id)
    segmentations = property(lambda self: [self.segmentation])


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


class JsonFile:
    """A JSON object: `values` are those of its keys, not yet parsed.

    Raises OSError, or ValueError that says what the file is instead, or where it is broken.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._text = self.path.read_bytes().removeprefix(MARK)
        self.values = _decode(self.path, self._text, dict[str, Raw])
        at = 0
        for text in sorted(self.values.values(), key=_address):
            start = _address(text) - _address(self._text)
            key = KEY.match(self._text, at)
            if key.end() != start:  # a value lies between them that was dropped
                raise TwiceError(self.path, key[1].decode("utf-8", "replace"))
            at = start + memoryview(text).nbytes

    def parsed(self, key: str, kind: Any) -> Any:
        """The value of a key; ValueError names the place that is not of this kind."""
        return self._parsed(self.values[key], msgspec.json.Decoder(kind), key)

    def entries(
        self, key: str, kind: type[Struct], **known: Container
    ) -> Iterator[tuple[str, Struct, Raw]]:
        """(place, entry, its text: all its keys) of the list under `key`; none where it is null.

        known: the ids that a field may have, as `video_id={1, 2}`. ValueError names the place of
        another kind, of an id that is not known, and of one that an earlier entry has.
        """
        texts = self.parsed(key, list[Raw] | None) if key in self.values else None
        decoder, first = msgspec.json.Decoder(kind), {}
        for i, text in enumerate(texts or ()):
            where = f"{self.path}: {key}[{i}]"
            entry = self._parsed(text, decoder, f"{key}[{i}]")
            if (earlier := first.setdefault(getattr(entry, "id", i), i)) != i:
                raise ValueError(f"{where}: id {entry.id} is that of {key}[{earlier}], too")
            for name, ids in known.items():
                if (wanted := getattr(entry, name)) not in ids:
                    raise ValueError(f"{where}: {name} {wanted} is not among the {OF_IDS[name]}")
            yield where, entry, text

    def _parsed(self, text: Raw, decoder: msgspec.json.Decoder, place: str) -> Any:
        try:
            return decoder.decode(text)
        except (ValueError, RecursionError) as error:
            place, what = explained(error, place)
            raise ValueError(f"{self.path}: {place}: {what}") from None


def read_typed(path: str | Path, kind: Any) -> Any:
    """The content of a JSON file; ValueError names the place that is broken or of another kind."""
    return _decode(Path(path), Path(path).read_bytes().removeprefix(MARK), kind)


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
    """The path of what msgspec refused, its words: ("videos[1].width", "expected `int` >= 1")."""
    if "utf-8" in str(error).lower():  # a UnicodeDecodeError; newer msgspec has its own
        return place, "not text in UTF-8"
    what, _, path = str(error).partition(" - at `$")
    what = what.replace("Object missing required field", "Lacks")
    return (place + path.rstrip("`")).lstrip("."), what[:1].lower() + what[1:]


def _decode(path: Path, text: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        place, what = explained(error, "")
        if not place and what.endswith("got `array`"):
            what += ", as results are; annotations are an object that holds lists"
        raise ValueError(": ".join(part for part in (str(path), place, what) if part)) from None
    except (ValueError, RecursionError) as error:
        read_json(path)  # which says where; only these it takes:
        what = "NaN and Infinity are no JSON, write null; half a character is no text"
        byte = re.search(r"byte (\d+)", str(error))
        line = text.count(b"\n", 0, int(byte[1]) if byte else len(text)) + 1
        raise ValueError(f"{path}: broken JSON at line {line}, {error}; {what}") from None


def _address(text: bytes | Raw) -> int:
    """Where in memory a text lies: a value is a view into the text of the file."""
    return np.frombuffer(text, dtype=np.uint8).__array_interface__["data"][0]
