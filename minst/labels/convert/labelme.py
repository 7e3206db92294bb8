"""labelme: one .json an image; X-AnyLabeling writes the same.

    DIR/<frame>.json      DIR is one video
    DIR/<video>/...       each folder is one

    shape: label, group_id, shape_type, points ─> the mask of identity (label, group_id)

Who is who: shapes of one label and group_id are one instance, in all frames; several in one frame
are its parts. Shapes without group_id are one instance a label, as long as no frame holds two of
them; if one does, that is an error, unless --link makes tracks by overlap.

The image is what imageData embeds, as in labelme, else the file of imagePath: as it is named from
the .json (beside `DIR` at most), or by its name alone in the folder that --images says.

Lesson: notebooks/10_capstone.ipynb
"""

import base64
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from msgspec import Struct

from minst import rle
from minst.data.files import inside, open_image, read_image
from minst.data.formats import read_typed
from minst.labels.convert import common
from minst.labels.convert.common import Found, Video, refuse
from minst.labels.convert.files import images_of, subfolders, visible

__all__ = ["labelme_folders", "read_labelme"]

# shape_type: how many points it may have; all others have no area
KINDS = {
    "polygon": (), "rectangle": (2, 4), "oriented_rectangle": (4,), "rotation": (4,),
    "circle": (2,), "mask": (2,),
}  # fmt: skip
BOXED = ("rectangle", "oriented_rectangle", "rotation")


class Shape(Struct):
    """What is drawn, one of `shapes`."""

    label: str
    points: list[list[float]]
    group_id: int | str | None = None
    shape_type: str | None = None
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
    return [folder for folder in (source, *subfolders(source)) if visible(folder, ".json")]


def read_labelme(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders, frames in that of their files."""
    root = source if source.is_dir() else source.parent
    folders = labelme_folders(source) if source.is_dir() else [root]
    refuse(source, "no .json file of labelme there or in its folders", not folders)
    for folder in folders:
        files = visible(folder, ".json") if source.is_dir() else [source]
        # images are read when they are written: those that are embedded may be many and large
        frames = (_image(file, images, root) for file in files)
        first = _image(files[0], images, root)
        path, content = (first, first) if isinstance(first, Path) else (files[0], first[1])
        entry = read_typed(files[0], Labels)
        said = entry.image_height, entry.image_width
        size = read_image(content, None if None in said else said).shape[:2]
        shapes, stems = [], {file.stem for file in files}
        for t, file in enumerate(files):
            entry = read_typed(file, Labels)
            stems.add(PurePosixPath(entry.image_path.replace("\\", "/")).stem)
            shapes += _shapes(file, entry, t, size, found)
        unlabelled = [path for path in images_of(path.parent) if path.stem not in stems]
        lost = len(unlabelled) if source.is_dir() else 0
        found.lost["images without a .json file, left out"] += lost
        yield Video(folder.resolve().name, size, frames, shapes, parts=True)


def _image(file: Path, images: Path | None, root: Path) -> Path | tuple[str, bytes]:
    """What imageData embeds, or the file that imagePath names."""
    entry, is_bad = read_typed(file, Labels), False
    name = PurePosixPath(entry.image_path.replace("\\", "/"))
    if entry.image_data:
        try:
            data = base64.b64decode(entry.image_data, validate=True)
            read_image(data)
            with open_image(data) as image:
                suffix = image.format.lower().replace("jpeg", "jpg")
            return f"{name.stem}.{suffix}", data
        except ValueError:
            is_bad = True  # there may be a file
    path = Path(os.path.normpath(file.parent.absolute() / name))
    if images:
        folder = images / file.parent.name
        path = (folder if folder.is_dir() else images) / name.name
    elif ".." not in name.parts or not path.is_relative_to(root.absolute().parent):
        path = inside(file.parent, str(name))
    if path.is_file():
        return path
    what = f"is missing, and imageData {'is not readable' if is_bad else 'embeds none'}"
    raise ValueError(f"{file}: its image {path} {what}; say where it is (--images)")


def _shapes(
    file: Path, entry: Labels, t: int, size: tuple[int, int], found: Found
) -> Iterator[common.Shape]:
    height, width = entry.image_height, entry.image_width
    what = f"imageWidth x imageHeight is {width}x{height}, the video {size[1]}x{size[0]}"
    refuse(file, what, None not in (height, width) and (height, width) != size)
    labels = set()
    for i, shape in enumerate(entry.shapes):
        where = f"{file}: shapes[{i}]"
        kind = shape.shape_type or "polygon"
        if kind not in KINDS:
            found.lost[common.NO_AREA.format(kind)] += 1
            continue
        mask = rle.encode(_mask(kind, shape, size, where, found))
        identity = shape.label, str(shape.group_id)
        if shape.group_id is None:
            what = f"a second {shape.label!r} in this frame; set group_id to say which is which"
            is_second = shape.label in labels and not found.link
            refuse(where, f"{what}, or --link makes tracks by overlap", is_second)
            labels.add(shape.label)
            identity = None if found.link else identity
        yield common.Shape(where, t, identity, shape.label, mask)


def _mask(kind: str, shape: Shape, size: tuple[int, int], where: str, found: Found) -> np.ndarray:
    points, wanted = shape.points, KINDS[kind]
    is_known = all(len(point) == 2 for point in points) and len(points) in (wanted or [len(points)])
    many = " or ".join({2: "two", 4: "four"}[n] for n in wanted) or "three or more"
    refuse(where, f"a {kind} has {many} points x, y", not is_known)
    found.lost[common.BOXES] += kind in BOXED
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        if kind == "rectangle":
            points = common.corners([x0, y0, x1, y1])
        elif kind == "circle":  # points: the centre, and one on the circle
            radius = math.hypot(x1 - x0, y1 - y0)
            points = common.ellipse(x0, y0, radius, radius)
        elif kind == "mask":
            left, top = round(min(x0, x1)), round(min(y0, y1))
            return _pasted(shape.mask or "", left, top, size, where)
    return common.polygon_mask(points, size, where)


def _pasted(text: str, left: int, top: int, size: tuple[int, int], where: str) -> np.ndarray:
    """An embedded PNG, not 0 where the object is, laid into the frame at (left, top)."""
    try:
        with open_image(base64.b64decode(text, validate=True)) as image:
            patch = np.array(image.convert("L")) > 0
    except ValueError:
        raise ValueError(f"{where}: 'mask' is not a readable PNG in base64") from None
    height, width = patch.shape
    mask = np.zeros(size, dtype=bool)
    mask[common.window(left, top, width, height, size, where)] = patch
    return mask
