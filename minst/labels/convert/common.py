"""What the readers of all formats share: a video as they hand it over, its tracks, masks of shapes.

    reader ─> Video of Shapes ─ link (if asked for) ─ tracks_of ─> those of each instance, by frame

    polygon_mask  points (x, y) in pixels, (0, 0) the corner of the first pixel ─> mask (H, W) bool
    link          masks of a category in frames t, t + 1 ─ IoU, Hungarian ─> pairs from 0.1 on

Lesson: notebooks/10_capstone.ipynb
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from minst import rle

__all__ = [
    "BOXES", "NO_AREA", "UNSEEN", "Found", "Shape", "Video", "corners", "ellipse", "polygon_mask",
    "refuse", "tracks_of", "window",
]  # fmt: skip

BOXES = "boxes without a mask became filled rectangles"
UNSEEN = "instances that no frame shows"
NO_AREA = "{}, left out (no area)"
LEAST = 0.1  # IoU of an instance in two neighbouring frames
TOLD = 20  # linked tracks of a video


class Shape(NamedTuple):
    """What is drawn in one frame."""

    where: str  # "labels/00000.json: shapes[3]"
    frame: int  # index within its video
    identity: Hashable  # the same in all frames of an instance; None: the file does not say
    category: str
    mask: dict  # RLE
    crowd: bool = False


class Video(NamedTuple):
    """One video, its images not yet read."""

    name: str
    size: tuple[int, int]  # height, width
    # files; or a name, and the content of a file or (H, W, 3) bytes
    images: Iterable[Path | tuple[str, bytes | np.ndarray]]
    shapes: list[Shape]
    parts: bool = False  # several shapes of one identity in a frame are its parts, no mistake


class Found(NamedTuple):
    """What a reader is told, and what it notes."""

    link: bool  # make tracks by overlap of shapes that have no identity
    categories: list[str]  # in the file's order
    lost: Counter  # how much of what
    notes: list[str]  # lines for the user


def refuse(where: object, what: str, wrong: object = True) -> None:
    """ValueError if something is wrong."""
    if wrong:
        raise ValueError(f"{where}: {what}")


def tracks_of(video: Video, identities: str, found: Found) -> list[dict[int, Shape]]:
    """The shapes of each instance by frame, in the order in which their identities come first.

    identities: where the format says who is who.
    """
    tracks: dict[Hashable, dict[int, Shape]] = defaultdict(dict)
    for shape in _linked(video, found):
        where, t, identity, category, mask, crowd = shape
        what = f"no {identities}; which instance is it? --link makes tracks by overlap"
        refuse(where, what, identity is None)
        track = tracks[identity]
        before = next(iter(track.values()), shape).category
        what = f"track {identity} is a {category} here, a {before} before"
        refuse(where, what, before != category)
        if t in track:
            what = f"track {identity} has another annotation in the same frame"
            refuse(where, what, not (video.parts or crowd))
            parts = [rle.decode(part, *video.size) for part in (track[t].mask, mask)]
            shape = shape._replace(mask=rle.encode(parts[0] | parts[1]))
        track[t] = shape
    return [*tracks.values()]


def _linked(video: Video, found: Found) -> list[Shape]:
    """The shapes of a video; those without identity get one, if asked for.

    An instance that a frame misses is another one afterwards. Each chain is told with its least
    overlap, so that doubtful ones are seen.
    """
    frames: dict = defaultdict(lambda: defaultdict(list))
    for shape in video.shapes if found.link else ():
        if shape.identity is None:
            frames[shape.category][shape.frame].append(shape)
    if not frames:
        return video.shapes
    chains = [chain for shapes in frames.values() for chain in _chains(shapes)]
    linked = [shape for shape in video.shapes if shape.identity is not None]
    count = len(video.shapes) - len(linked)
    found.notes.append(f"linked: {video.name}: {count} shapes became {len(chains)} tracks")
    for i, chain in enumerate(chains):
        shapes, overlaps = zip(*chain)
        first, last = shapes[0].frame, shapes[-1].frame
        told = f"frames {first} to {last}, least overlap {min(overlaps):.2f}"
        told = told if last > first else f"frame {first} alone"
        found.notes.extend([f"  {shapes[0].category}: {told}"] * (i < TOLD))
        linked += [shape._replace(identity=("linked", i)) for shape in shapes]
    found.notes.extend([f"  … and {len(chains) - TOLD} more"] * (len(chains) > TOLD))
    return linked


def _chains(frames: dict[int, list[Shape]]) -> list[list[tuple[Shape, float]]]:
    """The shapes of each instance of one category, each with its IoU with the one before."""
    chains: list[list[tuple[Shape, float]]] = []
    ends: list[list[tuple[Shape, float]]] = []  # the chains that may go on
    for t in sorted(frames):
        ends = [chain for chain in ends if chain[-1][0].frame == t - 1]
        ious = rle.ious([chain[-1][0].mask for chain in ends], [s.mask for s in frames[t]])
        pairs = {j: (ends[i], ious[i, j]) for i, j in zip(*linear_sum_assignment(-ious))}
        for j, shape in enumerate(frames[t]):
            chain, overlap = pairs.get(j, ([], 0.0))
            if overlap < LEAST:
                chain, overlap = [], 1.0
                chains.append(chain)
                ends.append(chain)
            chain.append((shape, overlap))
    return chains


# ------------------------------------------------------------------------------------- masks


def polygon_mask(points: list, size: tuple[int, int], where: str) -> np.ndarray:
    """The inside of a polygon [(x, y), ...], as pycocotools draws it; it may leave the frame."""
    try:
        return rle.decode([np.asarray(points, dtype=float).ravel().tolist()], *size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def corners(box: list, degrees: float = 0.0) -> np.ndarray:
    """The polygon of a box left, top, right, bottom, turned about its middle."""
    left, top, right, bottom = box
    points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return _turned(np.array(points, dtype=float), degrees)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> np.ndarray:
    """A polygon of 128 corners for an ellipse of centre x, y and half axes across, down."""
    turns = np.linspace(0, 2 * math.pi, 128, endpoint=False)
    points = np.stack([x + across * np.cos(turns), y + down * np.sin(turns)], axis=1)
    return _turned(points, degrees)


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned clockwise, as seen, about the middle of their extent."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (points.min(0) + points.max(0)) / 2
    return (points - middle) @ np.array([[c, s], [-s, c]]) + middle


def window(
    left: int, top: int, width: int, height: int, size: tuple[int, int], where: str
) -> tuple[slice, slice]:
    """The rows and columns of a smaller mask whose first pixel is at (left, top)."""
    what = f"a mask of {width}x{height} at {left}, {top} leaves the frame of {size[1]}x{size[0]}"
    refuse(where, what, min(left, top) < 0 or left + width > size[1] or top + height > size[0])
    return slice(top, top + height), slice(left, left + width)
