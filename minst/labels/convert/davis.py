"""Folders of indexed PNGs (DAVIS, YouTube-VOS), in and out.

    JPEGImages/[480p/]<video>/<frame>.jpg
    Annotations/[480p/]<video>/<frame>.png   pixel = instance, 255 = void
    meta.json   {"videos": {<video>: {"objects": {"1": {"category": ..., "frames": [...]}}}}}
                as in YouTube-VOS

Frames without a PNG are not annotated, which is not the same as empty: they are left out. A video
whose only number is 255 is one of DAVIS 2016's black and white ones: there 255 is the object.
Without meta.json the category is "object".

Out: later instances lie over earlier ones; crowd regions stay out; meta.json keeps the categories
and their order.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import colorsys
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from msgspec import Struct
from PIL import Image
from pycocotools import mask as rle_codec

from minst.data.files import inside
from minst.data.formats import read_typed
from minst.data.ytvis import Clip, YouTubeVIS
from minst.labels.convert import common
from minst.labels.convert.common import Found, Track, Video

__all__ = ["palette", "read_davis", "to_indexed_png"]

VOID = 255
# folders of DAVIS: the first that is there is read
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
INDEXED = ("P", "L"), "one of a palette, whose pixels are numbers of instances"


class Meta(Struct):
    """meta.json."""

    videos: dict[str, Any]
    categories: list = []


def read_davis(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders."""
    resolution = next((s for s in RESOLUTIONS if (source / "Annotations" / s).is_dir()), "")
    masks_in = source / "Annotations" / resolution
    images_in = (images or source / "JPEGImages") / resolution
    category_of = _categories(source / "meta.json", found)
    videos = [folder for folder in common.subfolders(masks_in) if common.image_files(folder)]
    if not videos:
        raise ValueError(f"{masks_in}: no folders of PNG files there")
    for folder in videos:
        shown = common.image_files(images_in / folder.name)
        paths, size, masks = common.numbered_frames(folder, shown, *INDEXED, found)
        if set(masks) != {VOID}:
            void = list(masks.pop(VOID, {}).values())
            found.lost["void pixels (255), now background"] += int(rle_codec.area(void).sum())
        tracks = [Track(category_of(folder.name, n), masks[n]) for n in sorted(masks)]
        yield Video(folder.name, size, paths, tracks)


def _categories(file: Path, found: Found) -> Callable[[str, int], str]:
    """The category of an instance, by video and number."""
    if not file.is_file():
        return lambda video, number: "object"
    meta = read_typed(file, Meta)
    found.categories.extend(map(str, meta.categories))

    def category_of(video: str, number: int) -> str:
        try:
            return str(meta.videos[video]["objects"][str(number)]["category"])
        except (KeyError, TypeError):
            place = f"videos, {video}, objects, {number}"
            raise ValueError(f"{file}: no category in {place}") from None

    return category_of


def to_indexed_png(
    folder: str | Path,
    out: str | Path,
    split: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a data set in YouTube-VIS form as JPEGImages/, Annotations/, meta.json into `out`, a new
    or empty folder.

    progress: is told what is lost. ValueError for a video of more than 254 instances, or what
    `YouTubeVIS` finds wrong.
    """
    dataset, lost, videos = YouTubeVIS(folder, split=split), Counter(), {}
    with common.new_folder(out) as new:
        for clip in dataset:
            first = PurePosixPath(*clip.video["file_names"][:1])
            name = "-".join(first.parent.parts) or clip.name  # one folder deep, as DAVIS has them
            if name in videos:
                raise ValueError(f"{dataset.file}: two videos are called {name}")
            videos[name] = {"objects": _write(clip, new, name, lost)}
        meta = {"videos": videos, "categories": list(dataset.categories)}
        (new / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    for what, count in lost.items():
        if progress and count:
            progress(f"lost: {count} {what}")
    return Path(out)


def _write(clip: Clip, new: Path, name: str, lost: Counter) -> dict:
    """The images and PNGs of one video; returns its objects as meta.json lists them."""
    kept = np.flatnonzero(~clip.crowd)
    lost["crowd tracks"] += int(clip.crowd.sum())
    if len(kept) >= VOID:
        what = f"{len(kept)} instances; a PNG of 8 bit numbers at most {VOID - 1}"
        raise ValueError(f"video {name}: {what}")
    categories = [clip.categories[clip.labels[m]] for m in kept]
    objects = {str(n): {"category": c, "frames": []} for n, c in enumerate(categories, 1)}
    images, pngs = (inside(new / kind, name) for kind in ("JPEGImages", "Annotations"))
    images.mkdir(parents=True)
    pngs.mkdir(parents=True)
    for t, file_name in enumerate(clip.video["file_names"]):
        source = inside(clip.folder, file_name)
        target = pngs / f"{source.stem}.png"
        if target.exists():
            raise ValueError(f"{source}: the video has two frames called {source.stem}")
        clip.image(t)  # is it there, whole, and of the right size?
        shutil.copyfile(source, images / source.name)
        index, masks = np.zeros((clip.height, clip.width), np.uint8), clip.masks(t)
        for n, m in enumerate(kept, 1):
            lost["pixels of instances under a later one"] += int((index[masks[m]] > 0).sum())
            index[masks[m]] = n
            if masks[m].any():
                objects[str(n)]["frames"].append(source.stem)
        picture = Image.fromarray(index)
        picture.putpalette(palette())
        picture.save(target)
    return objects


def palette() -> list[int]:
    """256 colours, r g b after r g b: 0 black, 255 grey, between them neighbours of unlike hue and
    brightness."""
    colors = [(0.0, 0.0, 0.0)]
    for n in range(254):
        saturation, value = ((1.0, 0.85), (0.55, 1.0), (0.9, 0.55))[n % 3]
        # of several steps tried, with this one the first 21 lie furthest apart
        colors.append(colorsys.hsv_to_rgb(n * 0.29 % 1, saturation, value))
    return [round(255 * c) for color in [*colors, (0.75, 0.75, 0.75)] for c in color]
