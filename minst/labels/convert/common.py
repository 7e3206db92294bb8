"""What the readers of all formats share: a video as they hand it over, masks from shapes, folders.

    polygon_mask  points (x, y) in pixels, (0, 0) the corner of the first pixel ─> mask (H, W) bool

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minst import rle
from minst.data.files import natural, new_folder, open_image, read_image

__all__ = [
    "Found", "Masks", "Track", "Video", "box_mask", "ellipse_mask", "image_files", "new_folder",
    "numbered_frames", "only_file", "pasted_mask", "polygon_mask", "read_text", "subfolders",
]  # fmt: skip

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


Masks = dict[int, dict[int, dict]]  # of each instance, by index of the frame: RLE


class Track(NamedTuple):
    """One instance of a video."""

    category: str
    masks: dict[int, dict]  # RLE by index of the frame, where it is visible
    crowd: bool = False


class Video(NamedTuple):
    """One video, its images not yet read."""

    name: str
    size: tuple[int, int]  # height, width
    # files; or a name, and the content of a file or (H, W, 3) bytes
    images: Iterable[Path | tuple[str, bytes | np.ndarray]]
    tracks: list[Track]


class Found(NamedTuple):
    """What a reader notes: categories in the file's order, and how much of what is lost."""

    categories: list[str]
    lost: Counter


def polygon_mask(points: list, size: tuple[int, int], where: str) -> np.ndarray:
    """The inside of a polygon [(x, y), ...], as pycocotools draws it; it may leave the frame."""
    try:
        return rle.decode([np.asarray(points, dtype=float).ravel().tolist()], *size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def box_mask(
    box: list, size: tuple[int, int], where: str, found: Found, degrees: float = 0.0
) -> np.ndarray:
    """A box left, top, right, bottom, filled: all that is known of an object without a mask."""
    found.lost["boxes without a mask became filled rectangles"] += 1
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return polygon_mask(_turned(np.array(corners, dtype=float), degrees), size, where)


def ellipse_mask(
    x: float, y: float, across: float, down: float, size: tuple[int, int], where: str,
    degrees: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """The inside of an ellipse of centre x, y and half axes across, down."""
    turns = np.linspace(0, 2 * math.pi, 128, endpoint=False)
    points = np.stack([x + across * np.cos(turns), y + down * np.sin(turns)], axis=1)
    return polygon_mask(_turned(points, degrees), size, where)


def pasted_mask(
    patch: np.ndarray, left: int, top: int, size: tuple[int, int], where: str
) -> np.ndarray:
    """A smaller mask (h, w), laid into the frame with its corner at (left, top)."""
    height, width = patch.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        what = (
            f"a mask of {width}x{height} at {left}, {top} leaves the frame of {size[1]}x{size[0]}"
        )
        raise ValueError(f"{where}: {what}")
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = patch
    return mask


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned clockwise, as seen, about the middle of their extent."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (points.min(0) + points.max(0)) / 2
    return (points - middle) @ np.array([[c, s], [-s, c]]) + middle


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order; none if it is no folder."""
    return [path for path in _listed(folder) if path.suffix.lower() in IMAGES]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder in natural order; none if it is no folder."""
    return [path for path in _listed(folder) if path.is_dir()]


def _listed(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in paths if p.name[0] != "."), key=lambda path: natural(path.name))


def only_file(source: Path, suffix: str, *folders: Path) -> Path:
    """`source`, if it is a file, else the only file of this suffix in the folders."""
    if source.is_file():
        return source
    files = [path for folder in folders for path in sorted(folder.glob(f"*{suffix}"))]
    if len(files) == 1:
        return files[0]
    names = ", ".join(path.name for path in files[:4])
    which = f"several {suffix} files ({names})" if files else f"no {suffix} file"
    raise ValueError(f"{source}: {which} there; name the one to read")


def read_text(path: Path) -> str:
    """A text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{error.reason} at byte {error.start}"
        raise ValueError(f"{path}: not text in UTF-8 ({place})") from None


def numbered_frames(
    folder: Path, images: list[Path], modes: tuple[str, ...], what: str, found: Found
) -> tuple[list[Path], tuple[int, int], Masks]:
    """PNGs whose pixels are numbers of instances, 0 the background, each named as its image.

    modes: of Pillow, one channel; what: those modes in words. Returns the images that have a PNG,
    their size, and the masks.
    """
    files = {path.stem: path for path in image_files(folder)}
    for missing in sorted(files.keys() - {path.stem for path in images})[:1]:
        raise ValueError(f"{files[missing]}: there is no image of this name")
    paths = [path for path in images if path.stem in files]
    found.lost["frames without a PNG, left out"] += len(images) - len(paths)
    size, masks = read_image(paths[0]).shape[:2], {}
    for t, path in enumerate(files[path.stem] for path in paths):
        with open_image(path) as image:
            numbers, mode = np.array(image), image.mode
        if mode not in modes:
            raise ValueError(f"{path}: an image of mode {mode}, not {what}")
        if numbers.shape != size:
            (height, width), wanted = numbers.shape, f"{size[1]}x{size[0]}"
            raise ValueError(f"{path}: {width}x{height}, its image is {wanted}")
        for number in np.unique(numbers[numbers > 0]).tolist():
            masks.setdefault(number, {})[t] = rle.encode(numbers == number)
    return paths, size, masks
