"""Folders of indexed PNGs (DAVIS, YouTube-VOS), in and out.

    JPEGImages/[480p/]<video>/<frame>.jpg     Annotations/[480p/]<video>/<frame>.png   pixel = instance, 255 = void
    meta.json   {"videos": {<video>: {"objects": {"1": {"category": ..., "frames": [...]}}}}}   as in YouTube-VOS

Frames without a PNG are not annotated, which is not the same as empty: they are left out. A video whose only number is
255 is one of DAVIS 2016's black and white ones: there 255 is the object. Without meta.json the category is "object".

Out: later instances lie over earlier ones; crowd regions stay out; meta.json keeps the categories and their order.

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

from minst import rle
from minst.data.files import inside, read_image
from minst.data.formats import read_typed
from minst.data.ytvis import Clip, YouTubeVIS
from minst.labels.convert.common import (
    Found, Track, Video, image_files, index_image, new_folder, subfolders,
)  # fmt: skip

__all__ = ["palette", "read_davis", "to_indexed_png"]

VOID = 255
# folders of DAVIS: the first that is there is read
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


class Meta(Struct):
    """meta.json."""

    videos: dict[str, Any]
    categories: list = []


def read_davis(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders."""
    resolution = next((s for s in RESOLUTIONS if (source / "Annotations" / s).is_dir()), "")
    masks, pictures = (
        source / "Annotations" / resolution,
        (images or source / "JPEGImages") / resolution,
    )
    objects = _objects(source / "meta.json", found)
    videos = [folder for folder in subfolders(masks) if image_files(folder)]
    if not videos:
        raise ValueError(f"{masks}: no folders of PNG files there")
    for folder in videos:
        annotated = {path.stem: path for path in image_files(folder)}
        paths = image_files(pictures / folder.name)
        if missing := annotated.keys() - {path.stem for path in paths}:
            raise ValueError(
                f"{annotated[min(missing)]}: no image of this name in {pictures / folder.name}"
            )
        found.lost["frames without a PNG, left out"] += len(paths) - len(annotated)
        paths = [path for path in paths if path.stem in annotated]
        size = read_image(paths[0]).shape[:2]
        masks_of = _masks([annotated[path.stem] for path in paths], size, found)
        tracks = [Track(objects(folder.name, n), masks_of[n]) for n in sorted(masks_of)]
        yield Video(folder.name, size, [(path.name, path) for path in paths], tracks)


def _objects(file: Path, found: Found) -> Callable[[str, int], str]:
    """The category of an instance, by video and number."""
    if not file.is_file():
        return lambda video, number: "object"
    meta = read_typed(file, Meta)
    found.categories.extend(map(str, meta.categories))

    def category(video: str, number: int) -> str:
        try:
            return str(meta.videos[video]["objects"][str(number)]["category"])
        except (KeyError, TypeError):
            place = f"videos, {video}, objects, {number}"
            raise ValueError(f"{file}: no category in {place}") from None

    return category


def _masks(paths: list[Path], size: tuple[int, int], found: Found) -> dict[int, dict[int, dict]]:
    """{instance: {index of the frame: RLE}}."""
    tracks, void = {}, 0
    for t, path in enumerate(paths):
        index = index_image(
            path, ("P", "L"), "one of a palette, whose pixels are numbers of instances", size
        )
        void += int((index == VOID).sum())
        for number in np.unique(index[index > 0]).tolist():
            tracks.setdefault(number, {})[t] = rle.encode(index == number)
    if set(tracks) != {VOID}:
        tracks.pop(VOID, None)
        found.lost["void pixels (255), now background"] += void
    return tracks


def to_indexed_png(
    folder: str | Path,
    out: str | Path,
    split: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a data set in YouTube-VIS form as JPEGImages/, Annotations/, meta.json into `out`, a new or empty folder.

    progress: is told what is lost. ValueError for a video of more than 254 instances, or what `YouTubeVIS` finds wrong.
    """
    dataset, lost, videos = YouTubeVIS(folder, split=split), Counter(), {}
    with new_folder(out) as new:
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
        raise ValueError(
            f"video {name}: {len(kept)} instances; a PNG of 8 bit numbers at most {VOID - 1}"
        )
    objects = {
        str(n): {"category": clip.categories[clip.labels[m]], "frames": []}
        for n, m in enumerate(kept, 1)
    }
    for kind in ("JPEGImages", "Annotations"):
        inside(new / kind, name).mkdir(parents=True)
    for t, file_name in enumerate(clip.video["file_names"]):
        source = inside(clip.folder, file_name)
        target = new / "Annotations" / name / f"{source.stem}.png"
        if target.exists():
            raise ValueError(f"{source}: the video has two frames called {source.stem}")
        clip.image(t)  # is it there, whole, and of the right size?
        shutil.copyfile(source, new / "JPEGImages" / name / source.name)
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
    """256 colours, r g b after r g b: 0 black, 255 grey, between them neighbours of unlike hue and brightness."""
    colors = [(0.0, 0.0, 0.0)]
    for n in range(254):
        shade = ((1.0, 0.85), (0.55, 1.0), (0.9, 0.55))[n % 3]  # saturation, value
        colors.append(
            colorsys.hsv_to_rgb(n * 0.29 % 1, *shade)
        )  # of several steps tried, the first 21 lie furthest apart
    return [round(255 * c) for color in [*colors, (0.75, 0.75, 0.75)] for c in color]
