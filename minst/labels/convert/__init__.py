"""`minst data convert`: what other tools and benchmarks write ─> YouTube-VIS form, and back.

    one of FORMATS, or its zip ─ read ─> Videos ─ link, tracks_of ─> OUT/annotations.json
                                                                     OUT/JPEGImages/<video>/<frame>
    DIR in YouTube-VIS form ─ to_indexed_png ─> OUT/JPEGImages, OUT/meta.json
                                                OUT/Annotations/<video>/<frame>.png

JPEG and PNG files that are upright are copied byte for byte; other images become PNG, frames of a
film JPEG (quality 95, the only pixels that change). Masks become compressed RLE with area and box;
ids count from 1; the same source gives the same files. Attributes, scores and shapes without an
area (points, lines, skeletons) are lost; what can be counted stands in `info.lost` of the file, and
the command says it. On the way to davis crowd regions, and pixels under a later instance, are lost,
too.

Lesson: notebooks/10_capstone.ipynb
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst import rle
from minst.data.files import ORIENTATION, inside, new_folder, open_image, read_image
from minst.data.formats import JsonFile
from minst.labels.convert import files
from minst.labels.convert.coco import read_coco
from minst.labels.convert.common import UNSEEN, Found, Video, refuse, tracks_of
from minst.labels.convert.cvat import read_cvat
from minst.labels.convert.davis import davis_videos, masks_in, read_davis, read_sav, to_indexed_png
from minst.labels.convert.labelme import labelme_folders, read_labelme
from minst.labels.convert.mots import mots_sequences, read_mots
from minst.labels.convert.yolo import read_yolo, yolo_folders

__all__ = ["FORMATS", "convert", "guess_format", "to_indexed_png"]


class Format(NamedTuple):
    """A format: how it is read and recognised."""

    read: Callable[[Path, Path | None, Found], Iterable[Video]]
    # what of a source speaks for it, "" if nothing does; or the key of its JSON files
    seen: Callable[[Path], str] | str
    identities: str = "identity"  # where it says who is who


def _cvat_seen(source: Path) -> str:
    texts = [source] if source.suffix == ".xml" else files.visible(source, ".xml")
    names = [text.name for text in texts if "<annotations" in files.head(text)]
    return f"{names[0]} holds <annotations>" if names else ""


def _mots_seen(source: Path) -> str:
    for name, place in mots_sequences(source):
        if place.is_dir():
            return f"instances/ holds PNG files of {name}"
        row = files.head(place).split()[:6]
        is_row = len(row) == 6 and all(word.isdecimal() for word in row[:5])
        if is_row and int(row[1]) // 1000 in (int(row[2]), 10):
            return f"{place.name} begins with frame, id, class, height, width"
    return ""


def _davis_seen(source: Path) -> str:
    folder, _ = masks_in(source)
    videos = davis_videos(folder) if folder != source else {}
    return next((f"{folder.name}/{video.name}/ holds PNG files" for video in videos), "")


def _yolo_seen(source: Path) -> str:
    what = "holds lines of a class and shares of an image"
    return next((f"{folder.name}/ {what}" for folder in yolo_folders(source)), "")


FORMATS = {
    "cvat": Format(read_cvat, _cvat_seen, "attribute track_id"),
    "mots": Format(read_mots, _mots_seen),
    "davis": Format(read_davis, _davis_seen),
    "yolo": Format(read_yolo, _yolo_seen, "id at the end of the line"),
    "labelme": Format(read_labelme, "shapes"),
    "coco": Format(read_coco, "images", "track_id, instance_id or attributes.track_id"),
    "sav": Format(read_sav, "masklet"),
}


def convert(
    source: str | Path,
    out: str | Path,
    format: str | None = None,
    images: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    link: bool = False,
) -> Path:
    """Write `source` in YouTube-VIS form into `out`, a new or empty folder; returns its
    annotations.json.

    source: a file, a folder, or a zip of one. format: one of FORMATS; None guesses. images: folder
    of the images (cvat, yolo, sav: or video file), if not beside the source. progress: is told the
    format, what speaks for it, and what is lost. link: make tracks by overlap of shapes without an
    identity. ValueError names file and entry, and nothing is left of `out`.
    """
    source, images = Path(source), Path(images) if images else None
    for path in (source, images):
        if path and not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    if format not in (None, *FORMATS):
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    found, said = Found(link, [], Counter(), []), []
    with new_folder(out) as new, files.unpacked(source) as folder:
        folder = _unwrapped(folder, format) if source.is_file() else folder
        if not format:
            format, why = guess_format(folder)
            said = [f"guessed: {why}"]
        dataset = _write(format, folder, images, found, new)
        lost = {what: count for what, count in found.lost.items() if count}
        dataset["info"] = {"description": f"converted from {format} by minst", "lost": lost}
        text = json.dumps(dataset, ensure_ascii=False)
        (new / "annotations.json").write_text(text, encoding="utf-8")
    losses = [f"lost: {count} {what}" for what, count in lost.items()]
    for line in (f"format: {format}", *said, *found.notes, *losses) if progress else ():
        progress(line)
    return Path(out) / "annotations.json"


def guess_format(source: Path) -> tuple[str, str]:
    """(format, what of `source` speaks for it); ValueError says what is there, if nothing does."""
    for name, format in FORMATS.items():
        if callable(format.seen) and (why := format.seen(source)):
            return name, why
    folders = labelme_folders(source) if source.is_dir() else []
    firsts = [files.visible(folder, ".json")[0] for folder in folders]
    keys: set[str] = set()
    for file in [source] if source.suffix == ".json" else firsts:
        keys = {*JsonFile(file).values}
        for name, format in FORMATS.items():
            if format.seen in keys:
                return name, f"{file.name} has the key {format.seen!r}"
        if "videos" in keys:
            raise ValueError(f"{source}: is in YouTube-VIS form already")
    held = Counter(path.suffix or path.name for path in files.visible(source) if path.is_file())
    seen = [f"{count} {suffix}" for suffix, count in held.most_common(4)]
    seen += [f"{folder.name}/" for folder in files.subfolders(source)[:4]]
    seen += [f"JSON with the keys {', '.join(sorted(keys)[:6])}"] if keys else []
    what = f"looks like none of {', '.join(FORMATS)}; say which it is (--from)"
    raise ValueError(f"{source}: {what}. There is {', '.join(seen) or 'nothing that they hold'}")


def _unwrapped(folder: Path, format: str | None) -> Path:
    """The first folder, of those with nothing but the next one in them, that is a source."""
    levels = [folder]
    while len(inner := files.visible(levels[-1])) == 1 and inner[0].is_dir():
        levels += inner
    for level in levels:
        with contextlib.suppress(ValueError):
            if format in (None, guess_format(level)[0]):
                return level
    return folder


def _write(format: str, source: Path, images: Path | None, found: Found, folder: Path) -> dict:
    """Images into `folder`/JPEGImages, annotations into a YouTube-VIS dict."""
    entries, annotations, names = [], [], set()
    read, _, identities = FORMATS[format]
    for video in tqdm(read(source, images, found), desc="convert", unit="video"):
        name = video.name.replace("\\", "/").replace("/", "-")
        refuse(source, f"two videos are called {name}", name in names)
        names.add(name)
        images_of = _write_images(video, inside(folder / "JPEGImages", name))
        length, (height, width) = len(images_of), video.size
        size = {"height": height, "width": width, "length": length}
        paths = [f"{name}/{image}" for image in images_of]
        entries.append({"id": len(entries) + 1, "file_names": paths, **size})
        last = max((shape.frame for shape in video.shapes), default=0)
        what = f"shapes in frame {last}, but only {length} images (from 0 on)"
        refuse(f"video {video.name}", what, last >= length)
        for track in tracks_of(video, identities, found):
            masks = [track[t].mask if t in track else None for t in range(length)]
            masks = [mask if mask and rle_codec.area(mask) else None for mask in masks]
            category = next(iter(track.values())).category
            if not any(masks):
                found.lost[UNSEEN] += 1
                continue
            if category not in found.categories:
                found.categories.append(category)
            annotations.append({
                "id": len(annotations) + 1,
                "video_id": len(entries),
                "iscrowd": int(any(shape.crowd for shape in track.values())),
                "category_id": found.categories.index(category) + 1,
                **size,
                **rle.track(masks),
            })  # fmt: skip
    bare = len(entries) - len({annotation["video_id"] for annotation in annotations})
    if bare:
        found.notes.append(f"note: {bare} of {len(entries)} videos have no instance")
    categories = [{"id": i, "name": name} for i, name in enumerate(found.categories, 1)]
    return {"videos": entries, "categories": categories, "annotations": annotations}


def _write_images(video: Video, folder: Path) -> list[str]:
    """Copies or writes the images of a video; returns their names."""
    folder.mkdir(parents=True)
    names: list[str] = []
    for item in video.images:
        name, source = (item.name, item) if isinstance(item, Path) else item
        path = inside(folder, name)
        is_array = isinstance(source, np.ndarray)
        is_kept = path.suffix.lower() in (".jpg", ".jpeg", ".png")
        is_kept = is_kept and (is_array or _is_upright(source))
        path = path if is_kept else path.with_suffix(".png")
        refuse(f"video {video.name}", f"two images are called {path.name}", path.exists())
        image = source if is_array else read_image(source, video.size)
        (height, width), wanted = image.shape[:2], f"{video.size[1]}x{video.size[0]}"
        what = f"{width}x{height}, its video {video.name} is {wanted}"
        refuse(source if isinstance(source, Path) else name, what, (height, width) != video.size)
        if is_kept and not is_array:
            path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        else:
            Image.fromarray(image).save(path, quality=95)
        names.append(path.name)
    refuse(f"video {video.name}", "no images", not names)
    return names


def _is_upright(source: Path | bytes) -> bool:
    """Are pixels stored as they are to be seen? Readers that know no EXIF see the rest wrong."""
    with open_image(source) as image:
        return image.getexif().get(ORIENTATION, 1) == 1
