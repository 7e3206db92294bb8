"""labelme: one .json an image, beside it.

    DIR/<frame>.json, <frame>.jpg      DIR is one video
    DIR/<video>/<frame>.json, ...      each folder is one

    shape: label, group_id, shape_type, points ─> the mask of identity (label, group_id)

Who is who: shapes of one label and group_id are one instance, in all frames; several in one frame are
its parts. Shapes without group_id are one instance a label, as long as no frame holds two of them; if
one does, that is an error.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from msgspec import Struct

from minst import rle
from minst.data.files import inside, natural, open_image, read_image
from minst.data.formats import read_typed
from minst.labels.convert.common import (
    Found,
    Track,
    Video,
    box_mask,
    ellipse_mask,
    image_files,
    pasted_mask,
    polygon_mask,
    subfolders,
)  # fmt: skip

__all__ = ["labelme_folders", "read_labelme"]


class Shape(Struct):
    """What is drawn, one of `shapes`."""

    label: str
    points: list[tuple[float, float]]
    group_id: int | str | None = None
    shape_type: str | None = "polygon"
    mask: str | None = None  # a PNG in base64


class Labels(Struct, rename="camel"):
    """The file of one image."""

    shapes: list[Shape]
    image_path: str
    image_data: str | None = None  # the image in base64
    image_height: int | None = None
    image_width: int | None = None


def labelme_folders(source: Path) -> list[Path]:
    """The folders with .json files: `source` itself, or those in it."""
    return [folder for folder in (source, *subfolders(source)) if any(folder.glob("*.json"))]


def read_labelme(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders, frames in that of their files."""
    folders = [source.parent] if source.is_file() else labelme_folders(source)
    if not folders:
        raise ValueError(f"{source}: no .json file of labelme there or in its folders")
    for folder in folders:
        files = sorted(folder.glob("*.json"), key=lambda path: natural(path.name))
        files = [source] if source.is_file() else files
        places = (images and images / folder.name, images, folder)
        pictures = next(place for place in places if place and place.is_dir())
        labels = [(file, read_typed(file, Labels)) for file in files]
        frames = [_image(file, entry, pictures) for file, entry in labels]
        if source.is_dir():
            stems = {file.stem for file in files}
            unlabelled = sum(path.stem not in stems for path in image_files(pictures))
            found.lost["images without a .json file, left out"] += unlabelled
        first = frames[0] if isinstance(frames[0], Path) else frames[0][1]
        size = read_image(first).shape[:2]
        yield Video(folder.resolve().name, size, frames, _tracks(labels, size, found))


def _image(file: Path, entry: Labels, folder: Path) -> Path | tuple[str, bytes]:
    """The file that imagePath names, or what imageData embeds."""
    path = inside(folder, entry.image_path.replace("\\", "/"))
    if path.is_file():
        return path
    missing = f"{file}: its image {path} is missing, and imageData"
    if not entry.image_data:
        raise ValueError(f"{missing} embeds none")
    try:
        data = base64.b64decode(entry.image_data, validate=True)
        read_image(data)
    except ValueError:
        raise ValueError(f"{missing} is not readable") from None
    return path.name, data


def _tracks(labels: list[tuple[Path, Labels]], size: tuple[int, int], found: Found) -> list[Track]:
    masks: dict[tuple, dict[int, dict]] = {}
    for t, (file, entry) in enumerate(labels):
        said = entry.image_height, entry.image_width
        if None not in said and said != size:
            what = f"{said[1]}x{said[0]}, the video {size[1]}x{size[0]}"
            raise ValueError(f"{file}: imageWidth x imageHeight is {what}")
        here: dict[tuple, np.ndarray] = {}
        for i, shape in enumerate(entry.shapes):
            where = f"{file}: shapes[{i}]"
            identity = shape.label, str(shape.group_id)
            if identity in here and shape.group_id is None:
                what = f"a second {shape.label!r} in this frame; set group_id to say which is which"
                raise ValueError(f"{where}: {what}")
            here[identity] = _mask(shape, size, where, found) | here.get(identity, False)
        for identity, mask in here.items():
            masks.setdefault(identity, {})[t] = rle.encode(mask)
    return [Track(label, frames) for (label, _), frames in masks.items()]


def _mask(shape: Shape, size: tuple[int, int], where: str, found: Found) -> np.ndarray:
    kind = shape.shape_type or "polygon"
    if kind == "polygon":
        return polygon_mask(shape.points, size, where)
    if kind not in ("rectangle", "circle", "mask"):
        what = f"shape_type {kind!r} has no area that could be a mask; draw a polygon instead"
        raise ValueError(f"{where}: {what}")
    if len(shape.points) != 2:
        raise ValueError(f"{where}: a {kind} has two points x, y")
    (x0, y0), (x1, y1) = shape.points
    if kind == "rectangle":
        return box_mask([x0, y0, x1, y1], size, where, found)
    if kind == "circle":  # points: the centre, and one on the circle
        radius = math.hypot(x1 - x0, y1 - y0)
        return ellipse_mask(x0, y0, radius, radius, size, where)
    return _pasted(shape.mask or "", round(min(x0, x1)), round(min(y0, y1)), size, where)


def _pasted(text: str, left: int, top: int, size: tuple[int, int], where: str) -> np.ndarray:
    """An embedded PNG, not 0 where the object is, laid into the frame at (left, top)."""
    try:
        with open_image(base64.b64decode(text, validate=True)) as image:
            patch = np.array(image.convert("L")) > 0
    except ValueError:
        raise ValueError(f"{where}: 'mask' is not a readable PNG in base64") from None
    return pasted_mask(patch, left, top, size, where)
