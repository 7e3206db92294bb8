"""COCO files whose images are frames of videos and whose annotations carry track ids.

    images[i]       file_name; video_id and frame_id (CocoVID, BDD100K) or frame_index (TAO). Without
                    video_id a folder in file_name is a video, without a number frames are in the
                    natural order of their names (CVAT).
    annotations[i]  image_id, category_id, and track_id or instance_id, which may stand in
                    `attributes` (CVAT)

A track is crowd when one of its annotations is (`iscrowd`, or BDD100K's `ignore`).

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from minst import rle
from minst.data import formats
from minst.data.files import inside, natural, read_image
from minst.data.layouts import find_images
from minst.labels.convert.common import Found, Track, Video, box_mask, only_file

__all__ = ["read_coco"]

KNOWN = {"image_id": "images", "category_id": "categories"}


class Frame(Struct):
    """One of `images`."""

    id: int
    file_name: str
    video_id: int | str | None = None
    frame_id: float | None = None
    frame_index: float | None = None
    height: float | None = None
    width: float | None = None

    @property
    def video(self) -> int | str:
        """The video that it is of."""
        folder = str(PurePosixPath(self.file_name.replace("\\", "/")).parent).strip("./")
        return folder if self.video_id is None else self.video_id

    @property
    def place(self) -> tuple:
        """Sort key within its video."""
        number = self.frame_index if self.frame_id is None else self.frame_id
        return (-1, natural(self.file_name)) if number is None else (number, [])


class Shape(Struct):
    """One of `annotations`."""

    image_id: int
    category_id: int
    segmentation: Any = None  # looked at by `minst.rle`
    bbox: Any = None  # needed without a segmentation
    track_id: int | str | None = None
    instance_id: int | str | None = None
    attributes: Any = None
    iscrowd: Any = 0
    ignore: Any = 0


class Named(Struct):
    """One of `videos`."""

    id: int | str
    name: str | None = None
    file_name: str | None = None


def read_coco(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in the order of their ids, or of the names of their folders."""
    file = only_file(source, ".json", source, source / "annotations")
    opened = formats.JsonFile(file)
    for key in ("images", "categories", "annotations"):
        if key not in opened.values:
            raise ValueError(f"{file}: no list {key!r}")
    categories = {c.id: c.name for c, _ in opened.entries("categories", formats.Category)}
    found.categories.extend(categories.values())
    named = {v.id: v.name or v.file_name for v, _ in opened.entries("videos", Named)}
    videos = _grouped(opened, "images", Frame, "video")
    shapes = _grouped(opened, "annotations", Shape, "image_id")
    ids = set()
    for where, frame in chain.from_iterable(videos.values()):
        if frame.id in ids:
            raise ValueError(f"{where}: the id {frame.id} stands there twice")
        ids.add(frame.id)
    for where, shape in chain.from_iterable(shapes.values()):
        for key, known in (("image_id", ids), ("category_id", categories)):
            if getattr(shape, key) not in known:
                what = f"{key} {getattr(shape, key)} is not among the {KNOWN[key]}"
                raise ValueError(f"{where}: {what}")
    beside = file.parent.name == "annotations"
    root, split = file.parent.parent if beside else file.parent, file.stem.split("_", 1)[-1]
    for key in sorted(videos, key=natural):
        frames = sorted(videos[key], key=lambda named_frame: named_frame[1].place)
        names = [frame.file_name.replace("\\", "/") for _, frame in frames]
        folder = images or find_images(root, split, names[0])
        paths = [inside(folder, name) for name in names]
        height, width = size = read_image(paths[0]).shape[:2]
        for where, frame in frames:
            if frame.height not in (None, height) or frame.width not in (None, width):
                what = f"its size is not {width}x{height}, that of the video's first image"
                raise ValueError(f"{where}: {what}")
        tracks = _tracks([shapes[frame.id] for _, frame in frames], size, categories, found)
        yield Video(str(named.get(key) or key or root.resolve().name), size, paths, tracks)


def _grouped(opened: formats.JsonFile, name: str, kind: type[Struct], key: str) -> dict:
    """The entries of a list, each with its place in the file, by one of their fields."""
    groups = defaultdict(list)
    for i, (entry, _) in enumerate(opened.entries(name, kind)):
        groups[getattr(entry, key)].append((f"{opened.path}: {name}[{i}]", entry))
    return groups


def _tracks(
    frames: list[list[tuple[str, Shape]]], size: tuple[int, int], categories: dict, found: Found
) -> list[Track]:
    tracks: dict[int | str, Track] = {}
    for t, shapes in enumerate(frames):
        for where, shape in shapes:
            identity, category = _identity(shape, where), categories[shape.category_id]
            track = tracks.setdefault(identity, Track(category, {}))
            if track.category != category:
                what = f"track {identity} is a {category} here, a {track.category} before"
                raise ValueError(f"{where}: {what}")
            if t in track.masks:
                what = f"track {identity} has another annotation in the same frame"
                raise ValueError(f"{where}: {what}")
            track.masks[t] = _mask(shape, size, where, found)
            if shape.iscrowd or shape.ignore:
                tracks[identity] = track._replace(crowd=True)
    return [tracks[identity] for identity in sorted(tracks, key=natural)]


def _identity(shape: Shape, where: str) -> int | str:
    attributes = shape.attributes if isinstance(shape.attributes, dict) else {}
    said = (shape.track_id, shape.instance_id, *map(attributes.get, ("track_id", "instance_id")))
    for identity in said:
        if isinstance(identity, int | str):
            return identity
    what = "no track_id, instance_id or attributes.track_id; which instance is it?"
    raise ValueError(f"{where}: {what}")


def _mask(shape: Shape, size: tuple[int, int], where: str, found: Found) -> dict:
    try:
        if shape.segmentation:
            return rle.encode(rle.decode(shape.segmentation, *size))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    where_box = f"{where}: without a segmentation; bbox"
    left, top, width, height = formats.typed(shape.bbox, formats.Box, where_box)
    return rle.encode(box_mask([left, top, left + width, top + height], size, where, found))
