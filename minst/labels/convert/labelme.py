"""labelme: one .json an image, beside it.

    DIR/<frame>.json, <frame>.jpg      DIR is one video
    DIR/<video>/<frame>.json, ...      each folder is one

    shape: label, group_id, shape_type, points ─> the mask of identity (label, group_id)

Who is who: shapes of one label and group_id are one instance, in all frames; several in one frame are its parts. Shapes
without group_id are one instance a label, as long as no frame holds two of them; if one does, that is an error.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from minst.data.convert.common import (
    Found, Track, Video, box_mask, ellipse_mask, field, image_files, polygon_mask, subfolders,
)  # fmt: skip
from minst.data.files import inside, natural, read_image, read_json
from minst.data.ytvis import encode_mask

__all__ = ["labelme_folders", "read_labelme"]


def labelme_folders(source: Path) -> list[Path]:
    """The folders with .json files: `source` itself, or those in it."""
    return [folder for folder in (source, *subfolders(source)) if any(folder.glob("*.json"))]


def read_labelme(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders, frames in that of their files."""
    folders = [source.parent] if source.is_file() else labelme_folders(source)
    if not folders:
        raise ValueError(f"{source}: no .json file of labelme there or in its folders")
    for folder in folders:
        files = (
            [source]
            if source.is_file()
            else sorted(folder.glob("*.json"), key=lambda p: natural(p.name))
        )
        pictures = next(
            p for p in (images and images / folder.name, images, folder) if p and p.is_dir()
        )
        frames, shapes = [], []
        for file in files:
            entry = read_json(file)
            drawn = field(entry, "shapes", list, f"{file}: not a file of labelme")
            shapes.append((file, drawn, (entry.get("imageHeight"), entry.get("imageWidth"))))
            frames.append(_image(file, entry, pictures))
        stems = {file.stem for file in files}
        unlabelled = [
            path for path in image_files(pictures) if path.stem not in stems and source.is_dir()
        ]
        found.lost["images without a .json file, left out"] += len(unlabelled)
        first = frames[0][1]
        size = read_image(io.BytesIO(first) if isinstance(first, bytes) else first).shape[:2]
        yield Video(folder.resolve().name, size, frames, _tracks(shapes, size, found))


def _image(file: Path, entry: dict, folder: Path) -> tuple[str, Path | bytes]:
    """The file that imagePath names, or what imageData embeds."""
    path = inside(folder, field(entry, "imagePath", str, str(file)).replace("\\", "/"))
    if path.is_file():
        return path.name, path
    if not entry.get("imageData"):
        raise ValueError(f"{file}: its image {path} is missing, and imageData embeds none")
    try:
        data = base64.b64decode(entry["imageData"], validate=True)
        read_image(io.BytesIO(data))
    except (TypeError, ValueError):
        raise ValueError(
            f"{file}: its image {path} is missing, and imageData is not readable"
        ) from None
    return path.name, data


def _tracks(frames: list, size: tuple[int, int], found: Found) -> list[Track]:
    masks: dict[tuple, dict[int, dict]] = {}
    for t, (file, shapes, said) in enumerate(frames):
        if None not in said and said != size:
            raise ValueError(
                f"{file}: imageWidth x imageHeight is {said[1]}x{said[0]}, the video {size[1]}x{size[0]}"
            )
        here: dict[tuple, np.ndarray] = {}
        for i, shape in enumerate(shapes):
            where = f"{file}: shapes[{i}]"
            identity = field(shape, "label", str, where), str(shape.get("group_id"))
            if identity in here and shape.get("group_id") is None:
                raise ValueError(
                    f"{where}: a second {identity[0]!r} in this frame; set group_id to say which is which"
                )
            here[identity] = _mask(shape, size, where, found) | here.get(identity, False)
        for identity, mask in here.items():
            masks.setdefault(identity, {})[t] = encode_mask(mask)
    return [Track(label, frames) for (label, _), frames in masks.items()]


def _mask(shape: dict, size: tuple[int, int], where: str, found: Found) -> np.ndarray:
    kind, points = shape.get("shape_type") or "polygon", field(shape, "points", list, where)
    if kind == "polygon":
        return polygon_mask(points, size, where)
    if kind not in ("rectangle", "circle", "mask"):
        raise ValueError(
            f"{where}: shape_type {kind!r} has no area that could be a mask; draw a polygon instead"
        )
    try:
        (x0, y0), (x1, y1) = np.array(points, dtype=float).tolist()
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a {kind} has two points x, y") from None
    if kind == "rectangle":
        return box_mask([x0, y0, x1, y1], size, where, found)
    if kind == "circle":  # points: the centre, and one on the circle
        radius = math.hypot(x1 - x0, y1 - y0)
        return ellipse_mask(x0, y0, radius, radius, size, where)
    return _pasted(
        field(shape, "mask", str, where), round(min(x0, x1)), round(min(y0, y1)), size, where
    )


def _pasted(text: str, left: int, top: int, size: tuple[int, int], where: str) -> np.ndarray:
    """An embedded PNG, not 0 where the object is, laid into the frame at (left, top)."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            patch = np.array(image.convert("L")) > 0
    except (ValueError, UnidentifiedImageError, OSError, SyntaxError):
        raise ValueError(f"{where}: 'mask' is not a readable PNG in base64") from None
    height, width = patch.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"{where}: a mask of {width}x{height} at {left}, {top} leaves the frame")
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = patch
    return mask
