"""COCO files whose images are frames of videos and whose annotations carry track ids.

    images[i]       file_name; video_id, frame_id (CocoVID, BDD100K) or frame_index (TAO). Without
                    video_id a folder in file_name is a video, without a number frames are in the
                    natural order of their names (CVAT).
    annotations[i]  image_id, category_id, and track_id or instance_id, which may stand in
                    `attributes` (CVAT)

A track is crowd when one of its annotations is (`iscrowd`, or BDD100K's `ignore`).

Lesson: notebooks/10_capstone.ipynb
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from minst import rle
from minst.data import formats
from minst.data.files import inside, natural, read_image
from minst.data.layouts import find_images
from minst.labels.convert import common
from minst.labels.convert.common import Found, Shape, Video, refuse
from minst.labels.convert.files import only_file

__all__ = ["read_coco"]


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


class Annotation(Struct):
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

    @property
    def identity(self) -> int | str | None:
        """The instance that it is of, if the file says so."""
        more = self.attributes if isinstance(self.attributes, dict) else {}
        said = (self.track_id, self.instance_id, more.get("track_id"), more.get("instance_id"))
        return next((identity for identity in said if isinstance(identity, int | str)), None)


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
        refuse(file, f"no list {key!r}", key not in opened.values)
    categories = {c.id: c.name for _, c, _ in opened.entries("categories", formats.Category)}
    found.categories.extend(categories.values())
    named = {v.id: v.name or v.file_name for _, v, _ in opened.entries("videos", Named)}
    videos, annotations = defaultdict(list), {}
    for where, frame, _ in opened.entries("images", Frame):
        videos[frame.video].append((where, frame))
        annotations[frame.id] = []
    known = {"image_id": annotations, "category_id": categories}
    for where, entry, _ in opened.entries("annotations", Annotation, **known):
        annotations[entry.image_id].append((where, entry))
    beside = file.parent.name == "annotations"
    root, split = file.parent.parent if beside else file.parent, file.stem.split("_", 1)[-1]
    for key in sorted(videos, key=natural):
        frames = sorted(videos[key], key=lambda named_frame: named_frame[1].place)
        names = [frame.file_name.replace("\\", "/") for _, frame in frames]
        folder = images or find_images(root, split, names[0])
        paths = [inside(folder, name) for name in names]
        said = frames[0][1].height, frames[0][1].width
        height, width = size = read_image(paths[0], None if None in said else said).shape[:2]
        shapes = []
        for t, (where, frame) in enumerate(frames):
            fits = frame.height in (None, height) and frame.width in (None, width)
            what = f"its size is not {width}x{height}, that of the video's first image"
            refuse(where, what, not fits)
            for where_entry, entry in annotations[frame.id]:
                mask, crowd = _mask(entry, size, where_entry, found), entry.iscrowd or entry.ignore
                label = categories[entry.category_id]
                shapes.append(Shape(where_entry, t, entry.identity, label, mask, bool(crowd)))
        shapes.sort(key=lambda shape: natural(shape.identity))
        yield Video(str(named.get(key) or key or root.resolve().name), size, paths, shapes)


def _mask(entry: Annotation, size: tuple[int, int], where: str, found: Found) -> dict:
    try:
        if entry.segmentation:
            return rle.encode(rle.decode(entry.segmentation, *size))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    where_box = f"{where}: without a segmentation; bbox"
    left, top, width, height = formats.typed(entry.bbox, formats.Box, where_box)
    found.lost[common.BOXES] += 1
    points = common.corners([left, top, left + width, top + height])
    return rle.encode(common.polygon_mask(points, size, where))
