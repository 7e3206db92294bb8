"""CVAT for video 1.1: one XML file of tracks, each shape with its frame.

    annotations.xml   <track id label> <polygon | mask | box | ellipse frame outside keyframe z_order ...>
    images/           frame_000000.png, ... ; or the images beside the file, or the video that <source> names

CVAT lists every frame of a track, interpolated ones too: nothing is interpolated here, and a frame that is not listed,
or has outside="1", does not show the object. Where shapes of different z_order overlap, the higher one is in front and
hides the others; shapes of one z_order keep their overlap.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from minst import rle
from minst.data.files import inside, read_image
from minst.data.video import read_video, video_info
from minst.labels.convert.common import (
    Found,
    Track,
    Video,
    box_mask,
    ellipse_mask,
    image_files,
    only_file,
    polygon_mask,
    read_text,
)  # fmt: skip

__all__ = ["read_cvat"]


def read_cvat(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """The one video of the file."""
    file = only_file(source, ".xml", source)
    root = _parse(file)
    tracks, steps, place = root.findall("track"), _steps(root, file), images or _images(file, root)
    found.categories.extend(name.text or "" for name in root.findall("meta//label/name"))
    if place.is_file():
        info = video_info(place)
        name, size, frames = place.stem, (info.height, info.width), _film(place, steps)
        numbers: Mapping[int, int] | range = steps
    else:
        paths = image_files(place)
        if not paths:
            raise ValueError(
                f"{place}: no images of the frames there; say where they are (--images)"
            )
        name, size, frames = (
            file.resolve().parent.name,
            read_image(paths[0]).shape[:2],
            [(p.name, p) for p in paths],
        )
        numbers = _numbers(paths, steps)
    shown = [
        shape
        for i, track in enumerate(tracks)
        for shape in _shapes(i, track, numbers, steps.step, file, found)
    ]
    yield Video(
        name, size, frames, _tracks([t.get("label") or "" for t in tracks], shown, size, found)
    )


def _parse(file: Path) -> ElementTree.Element:
    """The root of an XML file that declares no document type: entities, and what they can do, begin there."""
    text = read_text(file)
    if "<!DOCTYPE" in text or "\0" in text:  # zeros: UTF-16, which the parser would see through
        raise ValueError(
            f"{file}: declares a DOCTYPE, or is not in UTF-8, which CVAT never does; refused"
        )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{file}: broken XML: {error}") from None
    if root.tag != "annotations":
        raise ValueError(f"{file}: <{root.tag}> is not the <annotations> of CVAT")
    if root.find("image") is not None:
        raise ValueError(
            f"{file}: this is CVAT for images, which has no tracks; export as CVAT for video 1.1"
        )
    if len({track.get("task_id") for track in root.findall("track")}) > 1:
        raise ValueError(f"{file}: holds several tasks; export them one by one")
    return root


def _images(file: Path, root: ElementTree.Element) -> Path:
    """Where the frames are: the folder images/, the video that <source> names, or the folder of the file."""
    film = root.findtext("meta//source")
    if (file.parent / "images").is_dir():
        return file.parent / "images"
    return (
        inside(file.parent, film) if film and inside(file.parent, film).is_file() else file.parent
    )


def _steps(root: ElementTree.Element, file: Path) -> range:
    """The numbers of the task's frames in its video."""
    start, stop = (root.findtext(f"meta//{name}") or "" for name in ("start_frame", "stop_frame"))
    step = re.search(r"step\s*=\s*([1-9][0-9]*)", root.findtext("meta//frame_filter") or "")
    first, last = (
        _whole(start or "0", f"{file}: start_frame"),
        _whole(stop or "999999999", f"{file}: stop_frame"),
    )
    if last < first:
        raise ValueError(f"{file}: stop_frame {last} comes before start_frame {first}")
    return range(first, last + 1, int(step[1]) if step else 1)


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


def _numbers(paths: list[Path], steps: range) -> dict[int, int]:
    """Index of the image by number of the frame: what frame_000012.png says of itself, else counted in order."""
    said = [re.fullmatch(r"frame_([0-9]+)", path.stem) for path in paths]
    if all(said):
        return {int(number[1]): t for t, number in enumerate(said)}
    return {steps.start + steps.step * t: t for t in range(len(paths))}


class _Shape(NamedTuple):
    track: int
    frame: int
    z_order: int
    shape: ElementTree.Element
    where: str


def _shapes(
    i: int, track: ElementTree.Element, numbers, step: int, file: Path, found: Found
) -> Iterator[_Shape]:
    """The visible shapes of one track."""
    seen, last = set(), None
    for shape in track:
        where = (
            f"{file}: track {track.get('id')} ({track.get('label')}), frame {shape.get('frame')}"
        )
        number = _whole(shape.get("frame"), where)
        if number in seen:
            raise ValueError(f"{where}: stands there twice")
        seen.add(number)
        left_out = 0 if last is None else (number - last) // step - 1
        found.lost["frames that the file leaves out within a track, taken for not visible"] += max(
            0, left_out
        )
        last = None if shape.get("outside") == "1" else number
        if last is None:
            continue
        if number not in numbers:
            raise ValueError(f"{where}: there is no image of this frame")
        t = numbers.index(number) if isinstance(numbers, range) else numbers[number]
        yield _Shape(i, t, _whole(shape.get("z_order") or "0", where), shape, where)


def _tracks(
    labels: list[str], shown: list[_Shape], size: tuple[int, int], found: Found
) -> list[Track]:
    """Masks frame by frame, from the highest z_order down: what is in front is cut out of what is behind."""
    tracks = [Track(label, {}) for label in labels]
    shown = sorted(shown, key=lambda s: (s.frame, -s.z_order))
    for t, shapes in groupby(shown, key=lambda s: s.frame):
        front = np.zeros(size, dtype=bool)
        for _, layer in groupby(shapes, key=lambda s: s.z_order):
            masks = [(s.track, _mask(s.shape, size, s.where, found)) for s in layer]
            for i, mask in masks:
                found.lost["pixels behind a shape of higher z_order"] += int((mask & front).sum())
                tracks[i].masks[t] = rle.encode(mask & ~front)
            front |= np.any([mask for _, mask in masks], axis=0)
    return tracks


def _mask(
    shape: ElementTree.Element, size: tuple[int, int], where: str, found: Found
) -> np.ndarray:
    if shape.tag == "polygon":
        return polygon_mask(
            [point.split(",") for point in (shape.get("points") or "").split(";")], size, where
        )
    if shape.tag == "mask":
        return _runs(shape, size, where)
    if shape.tag not in ("box", "ellipse"):
        raise ValueError(
            f"{where}: a {shape.tag} has no area that could be a mask; draw a polygon or a mask instead"
        )
    names = ("xtl", "ytl", "xbr", "ybr") if shape.tag == "box" else ("cx", "cy", "rx", "ry")
    try:
        numbers, turn = (
            [float(shape.get(name, "")) for name in names],
            float(shape.get("rotation") or 0),
        )
    except ValueError:
        raise ValueError(f"{where}: {', '.join(names)} and rotation must be numbers") from None
    if shape.tag == "box":
        return box_mask(numbers, size, where, found, turn)
    return ellipse_mask(*numbers, size, where, turn)


def _runs(shape: ElementTree.Element, size: tuple[int, int], where: str) -> np.ndarray:
    """CVAT's RLE: runs row by row within a box, background first."""
    left, top, width, height = (
        _whole(shape.get(k), f"{where}: {k}") for k in ("left", "top", "width", "height")
    )
    runs = [_whole(run, f"{where}: rle") for run in (shape.get("rle") or "").split(",")]
    if sum(runs) != width * height:
        raise ValueError(f"{where}: rle covers {sum(runs)} pixels, its box {width}x{height}")
    if left + width > size[1] or top + height > size[0]:
        raise ValueError(f"{where}: the box of the mask leaves the frame of {size[1]}x{size[0]}")
    mask = np.zeros(size, dtype=bool)
    box = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = box
    return mask


def _whole(text: str | None, where: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text or ""):
        raise ValueError(f"{where}: {text!r} is not a whole number from 0 on")
    return int(text)
