"""Folders of PNGs (DAVIS, YouTube-VOS, SAM 2, SA-V), in and out, and SA-V's JSON, in.

    JPEGImages/[480p/]<video>/<frame>.jpg
    Annotations/[480p/]<video>/<frame>.png            pixel = instance, 255 = void
    Annotations/[480p/]<video>/<object>/<frame>.png   black and white, a folder for each instance
    meta.json   {"videos": {<video>: {"objects": {"1": {"category": ..., "frames": [...]}}}}}
                as in YouTube-VOS
    <name>.json   SA-V: masklet[frame][object] = RLE, of every fourth frame of <video_id>.mp4

Frames without a PNG are not annotated, which is not the same as empty: they are left out. A video
whose only number is 255 is one of DAVIS 2016's black and white ones: there 255 is the object.
Without meta.json the category is "object".

Out: later instances lie over earlier ones; crowd regions stay out; meta.json keeps the categories
and their order.

Lesson: notebooks/10_capstone.ipynb
"""

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

from minst import rle
from minst.data.files import inside, new_folder, read_image
from minst.data.formats import read_typed
from minst.data.ytvis import Clip, YouTubeVIS
from minst.labels.convert import files
from minst.labels.convert.common import Found, Shape, Video, refuse

__all__ = ["davis_videos", "masks_in", "palette", "read_davis", "read_sav", "to_indexed_png"]

VOID = 255
# where masks are: the first that is there is read
PLACES = (
    "Annotations/480p", "Annotations/Full-Resolution", "Annotations/1080p", "Annotations_6fps",
    "Annotations", "",
)  # fmt: skip
IMAGES = "JPEGImages", "JPEGImages_24fps"
MODES = "P L 1", "one of a palette, whose pixels are numbers of instances"


class Meta(Struct):
    """meta.json."""

    videos: dict[str, Any]
    categories: list = []


class Masklets(Struct):
    """SA-V's JSON of one video."""

    video_id: str
    masklet: list[list[Any]]  # RLE of each object in each annotated frame, looked at by `minst.rle`
    masklet_id: list[int | str]
    video_frame_count: float = float("inf")


def davis_videos(masks_in: Path) -> dict[Path, dict[str, Path]]:
    """The folders of PNGs of each video's folder, by the object that they show; "": of all."""
    found = {}
    for folder in files.subfolders(masks_in):
        objects = {"": folder} if files.visible(folder, ".png") else {}
        objects = objects or {f.name: f for f in files.subfolders(folder)}
        pngs = {name: f for name, f in objects.items() if files.visible(f, ".png")}
        found |= {folder: pngs} if pngs else {}
    return found


def masks_in(source: Path) -> tuple[Path, str]:
    """Where the folders of PNGs are, and the folder of images that goes with it."""
    place = next((place for place in PLACES if (source / place).is_dir()), "")
    return source / place, place.partition("/")[2]


def read_davis(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders."""
    masks, resolution = masks_in(source)
    category_of = _categories(source / "meta.json", found)
    videos = davis_videos(masks)
    refuse(masks, "no folders of PNG files there", not videos)
    for folder, objects in videos.items():
        roots = [images] if images else [source / name for name in IMAGES]
        shown = files.images_of(*(root / resolution / folder.name for root in roots))
        paths, size, shapes = files.numbered(objects, shown, *MODES, found)
        if "" in objects and {shape.identity for shape in shapes} != {VOID}:
            void = [shape.mask for shape in shapes if shape.identity == VOID]
            found.lost["void pixels (255), now background"] += int(rle_codec.area(void).sum())
            shapes = [shape for shape in shapes if shape.identity != VOID]
        shapes = [s._replace(category=category_of(folder.name, s.identity)) for s in shapes]
        yield Video(folder.name, size, paths, shapes)


def _categories(file: Path, found: Found) -> Callable[[str, int | str], str]:
    """The category of an instance, by video and number."""
    if not file.is_file():
        return lambda video, number: "object"
    meta = read_typed(file, Meta)
    found.categories.extend(map(str, meta.categories))

    def category_of(video: str, number: int | str) -> str:
        try:
            return str(meta.videos[video]["objects"][str(number)]["category"])
        except (KeyError, TypeError):
            raise ValueError(f"{file}: no category in videos, {video}, objects, {number}") from None

    return category_of


def read_sav(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """A video for each JSON file, of the frames that are annotated.

    images: the film, or the folder of all films, or that of all frames.
    """
    sources = [source] if source.is_file() else files.visible(source, ".json")
    refuse(source, "no .json file of SA-V there", not sources)
    for file in sources:
        data = read_typed(file, Masklets)
        count = len(data.masklet)
        steps = range(0, 4 * count, 4) if count < data.video_frame_count else range(count)
        place = images or file.parent
        movie = place if place.is_file() else inside(place, f"{data.video_id}.mp4")
        paths = files.images_of(place)[: steps.stop : steps.step]
        what = f"no frames of {movie.name} there; say where the film is (--images)"
        refuse(file, what, not count or not (paths or movie.is_file()))
        if movie.is_file():
            size, frames = files.film(movie, steps)
        else:
            size, frames = read_image(paths[0]).shape[:2], paths
        shapes = []
        for t, masks in enumerate(data.masklet):
            where, many = f"{file}: masklet[{t}]", len(data.masklet_id)
            refuse(where, f"{len(masks)} masks of {many} objects", len(masks) != many)
            try:
                codes, _ = rle.check(masks, *size, polygons=False)
            except rle.MaskError as error:
                raise ValueError(f"{where}[{error.mask}]: {error}") from None
            named = zip(data.masklet_id, codes)
            shapes += [Shape(where, t, i, "object", code) for i, code in named if code]
        yield Video(file.stem, size, frames, shapes)


def to_indexed_png(
    folder: str | Path,
    out: str | Path,
    split: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a data set in YouTube-VIS form as JPEGImages/, Annotations/, meta.json to `out`, a new
    or empty folder.

    progress: is told what is lost. ValueError for a video of more than 254 instances, or what
    `YouTubeVIS` finds wrong.
    """
    dataset, lost, videos = YouTubeVIS(folder, split=split), Counter(), {}
    with new_folder(out) as new:
        for clip in dataset:
            first = PurePosixPath(*clip.video["file_names"][:1])
            name = "-".join(first.parent.parts) or clip.name  # one folder deep, as DAVIS has them
            refuse(dataset.file, f"two videos are called {name}", name in videos)
            videos[name] = {"objects": _write(clip, new, name, lost)}
        meta = {"videos": videos, "categories": list(dataset.categories)}
        (new / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    for what, count in lost.items() if progress else ():
        if count:
            progress(f"lost: {count} {what}")
    return Path(out)


def _write(clip: Clip, new: Path, name: str, lost: Counter) -> dict:
    """The images and PNGs of one video; returns its objects as meta.json lists them."""
    kept = np.flatnonzero(~clip.crowd)
    lost["crowd tracks"] += int(clip.crowd.sum())
    what = f"{len(kept)} instances; a PNG of 8 bit numbers at most {VOID - 1}"
    refuse(f"video {name}", what, len(kept) >= VOID)
    categories = [clip.categories[clip.labels[m]] for m in kept]
    objects = {str(n): {"category": c, "frames": []} for n, c in enumerate(categories, 1)}
    images, pngs = (inside(new / kind, name) for kind in ("JPEGImages", "Annotations"))
    images.mkdir(parents=True)
    pngs.mkdir(parents=True)
    for t, file_name in enumerate(clip.video["file_names"]):
        source = inside(clip.folder, file_name)
        target = pngs / f"{source.stem}.png"
        refuse(source, f"the video has two frames called {source.stem}", target.exists())
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
