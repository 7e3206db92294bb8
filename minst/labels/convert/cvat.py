"""CVAT for video 1.1: one XML file of tracks, each shape with its frame.

    annotations.xml   <track id label> <polygon | mask | box | ellipse frame outside z_order ...>
    images/           frame_000000.png, ... ; or the images beside the file, or the video that
                      <source> names

CVAT lists every frame of a track, interpolated ones too: nothing is interpolated here, and a frame
that is not listed, or has outside="1", does not show the object. Where shapes of different z_order
overlap, the higher one is in front and hides the others; shapes of one z_order keep their overlap.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import numpy as np
from msgspec import Meta, Struct

from minst import rle
from minst.data.files import inside, read_image
from minst.data.formats import typed
from minst.data.video import read_video, video_info
from minst.labels.convert import common
from minst.labels.convert.common import Found, Track, Video

__all__ = ["read_cvat"]

Whole = Annotated[int, Meta(ge=0)]


class Task(Struct):
    """What <meta> says."""

    start_frame: Whole = 0
    stop_frame: Whole = 999_999_999
    frame_filter: str = ""
    source: str = ""  # the name of the video

    @property
    def steps(self) -> range:
        """The numbers of the task's frames in its video."""
        step = re.search(r"step\s*=\s*([1-9][0-9]*)", self.frame_filter)
        return range(self.start_frame, self.stop_frame + 1, int(step[1]) if step else 1)


class Shape(Struct, kw_only=True):
    """The attributes of what is drawn in one frame."""

    frame: Whole
    outside: str = "0"  # "1": not to be seen
    z_order: int = 0
    rotation: float = 0  # degrees


class Polygon(Shape):
    """Its corners: "x,y;x,y;..."."""

    points: str


class Box(Shape):
    """Left, top, right, bottom."""

    xtl: float
    ytl: float
    xbr: float
    ybr: float


class Ellipse(Shape):
    """Centre and half axes."""

    cx: float
    cy: float
    rx: float
    ry: float


class Runs(Shape):
    """Runs row by row within a box, background first: "5, 2, ..."."""

    rle: str
    left: Whole
    top: Whole
    width: Whole
    height: Whole


KINDS = {"polygon": Polygon, "box": Box, "ellipse": Ellipse, "mask": Runs}


def read_cvat(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """The one video of the file."""
    file = common.only_file(source, ".xml", source)
    root = _parse(file)
    meta = {element.tag: element.text for element in root.iterfind("meta//*") if element.text}
    task, tracks = typed(meta, Task, f"{file}: meta", strict=False), root.findall("track")
    if not task.steps:
        what = f"stop_frame {task.stop_frame} comes before start_frame {task.start_frame}"
        raise ValueError(f"{file}: {what}")
    found.categories.extend(name.text or "" for name in root.findall("meta//label/name"))
    place = images or _images(file.parent, task.source)
    if place.is_file():
        info, numbers = video_info(place), task.steps
        name, size, frames = place.stem, (info.height, info.width), _film(place, task.steps)
    else:
        paths = common.image_files(place)
        if not paths:
            what = "no images of the frames there; say where they are (--images)"
            raise ValueError(f"{place}: {what}")
        name, size = file.resolve().parent.name, read_image(paths[0]).shape[:2]
        frames, numbers = paths, _numbers(paths, task.steps)
    labels = [track.get("label", "") for track in tracks]
    layers = defaultdict(list)
    for i, track in enumerate(tracks):
        for where, shape in _visible(track, file, task.steps.step, found):
            if shape.frame not in numbers:
                raise ValueError(f"{where}: there is no image of this frame")
            layers[numbers.index(shape.frame), -shape.z_order].append((i, where, shape))
    yield Video(name, size, frames, _tracks(labels, layers, size, found))


def _parse(file: Path) -> ElementTree.Element:
    """The root of an XML file that declares no document type: entities, and what they can do, begin
    there."""
    text = common.read_text(file)
    if "<!DOCTYPE" in text or "\0" in text:  # zeros: UTF-16, which the parser would see through
        what = "declares a DOCTYPE, or is not in UTF-8, which CVAT never does; refused"
        raise ValueError(f"{file}: {what}")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{file}: broken XML: {error}") from None
    if root.tag != "annotations":
        raise ValueError(f"{file}: <{root.tag}> is not the <annotations> of CVAT")
    if root.find("image") is not None:
        what = "this is CVAT for images, which has no tracks; export as CVAT for video 1.1"
        raise ValueError(f"{file}: {what}")
    if len({track.get("task_id") for track in root.findall("track")}) > 1:
        raise ValueError(f"{file}: holds several tasks; export them one by one")
    return root


def _images(folder: Path, film: str) -> Path:
    """Where the frames are: the folder images/, the video, or the folder of the file."""
    if (folder / "images").is_dir():
        return folder / "images"
    return inside(folder, film) if film and inside(folder, film).is_file() else folder


def _film(path: Path, steps: range) -> Iterator[tuple[str, np.ndarray]]:
    frames = read_video(path)
    for number in count():
        with warnings.catch_warnings(record=True) as broken:
            warnings.simplefilter("always")
            image = next(frames, None) if number <= steps[-1] else frames.close()
        if broken:  # it skipped some: the frames after them would have the masks of others
            raise ValueError(f"{broken[0].message}; give its frames as images (--images)")
        if image is None:
            return
        if number in steps:
            yield f"{number:06d}.jpg", image


def _numbers(paths: list[Path], steps: range) -> list[int] | range:
    """The frame that each image is of: what frame_000012.png says of itself, else counted in order."""
    said = [re.fullmatch(r"frame_([0-9]+)", path.stem) for path in paths]
    return [int(number[1]) for number in said] if all(said) else steps[: len(paths)]


def _visible(
    track: ElementTree.Element, file: Path, step: int, found: Found
) -> Iterator[tuple[str, Shape]]:
    """The visible shapes of one track, each with its place. step: from a frame to the next."""
    of_track, seen, last = f"{file}: track {track.get('id')} ({track.get('label')})", set(), None
    for element in track:
        where = f"{of_track}, frame {element.get('frame')}"
        if element.tag not in KINDS:
            what = f"a {element.tag} has no area that could be a mask; draw a polygon or a mask"
            raise ValueError(f"{where}: {what} instead")
        shape = typed(element.attrib, KINDS[element.tag], where, strict=False)
        if shape.frame in seen:
            raise ValueError(f"{where}: stands there twice")
        seen.add(shape.frame)
        gap = 0 if last is None else max(0, (shape.frame - last) // step - 1)
        found.lost["frames that the file leaves out within a track, taken for not visible"] += gap
        last = None if shape.outside == "1" else shape.frame
        if last is not None:
            yield where, shape


def _tracks(labels: list[str], layers: dict, size: tuple[int, int], found: Found) -> list[Track]:
    """Masks frame by frame, from the highest z_order down: what is in front is cut out of what is
    behind. layers: {(frame, -z_order): [(track, place, shape), ...]}."""
    tracks, before = [Track(label, {}) for label in labels], None
    for t, z in sorted(layers):
        if t != before:
            front, before = np.zeros(size, dtype=bool), t
        masks = [(i, _mask(shape, size, where, found)) for i, where, shape in layers[t, z]]
        for i, mask in masks:
            found.lost["pixels behind a shape of higher z_order"] += int((mask & front).sum())
            tracks[i].masks[t] = rle.encode(mask & ~front)
        front |= np.any([mask for _, mask in masks], axis=0)
    return tracks


def _mask(shape: Shape, size: tuple[int, int], where: str, found: Found) -> np.ndarray:
    match shape:
        case Polygon():
            points = [point.split(",") for point in shape.points.split(";")]
            return common.polygon_mask(points, size, where)
        case Box(xtl=left, ytl=top, xbr=right, ybr=bottom):
            box = [left, top, right, bottom]
            return common.box_mask(box, size, where, found, shape.rotation)
        case Ellipse(cx=x, cy=y, rx=across, ry=down):
            return common.ellipse_mask(x, y, across, down, size, where, shape.rotation)
        case Runs(width=width, height=height):
            words = [word.strip() for word in shape.rle.split(",")]
            runs = typed(words, list[Whole], f"{where}: rle", strict=False)
            if sum(runs) != width * height:
                what = f"rle covers {sum(runs)} pixels, its box {width}x{height}"
                raise ValueError(f"{where}: {what}")
            patch = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            return common.pasted_mask(patch, shape.left, shape.top, size, where)
