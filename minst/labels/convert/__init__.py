"""`minst data convert`: what annotation tools and other benchmarks write ─> YouTube-VIS form, and back.

    coco, labelme, cvat, mots, davis ─ convert ─> OUT/annotations.json
                                                  OUT/JPEGImages/<video>/<frame>
    DIR in YouTube-VIS form ─ to_indexed_png ─> OUT/JPEGImages, OUT/meta.json
                                                OUT/Annotations/<video>/<frame>.png

JPEG and PNG files are copied byte for byte under their own names; other images become PNG, frames of
a video file JPEG (quality 95, the only pixels that change). Masks become compressed RLE with area and
box; ids count from 1; the same source gives the same files. What is lost (counted in `info.lost` of
the file, and said by the command):

    coco      ids, attributes, keypoints, scores; boxes without a mask become filled rectangles
    labelme   flags, descriptions; polygons become pixels; images without a .json; boxes as in coco
    cvat      attributes, occluded, keyframe, groups; z_order, once it has decided who hides whom;
              boxes as in coco
    mots      ids; the one region to be ignored becomes a crowd track for each category
    davis     void pixels (background); frames without a PNG are left out
    ─> davis  crowd; pixels under a later instance; areas, boxes, ids; instances never seen

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst.data.files import inside, read_image, read_json
from minst.labels.convert.coco import read_coco
from minst.labels.convert.common import Found, Video, new_folder
from minst.labels.convert.cvat import read_cvat
from minst.labels.convert.davis import read_davis, to_indexed_png
from minst.labels.convert.labelme import labelme_folders, read_labelme
from minst.labels.convert.mots import mots_sequences, read_mots

__all__ = ["FORMATS", "convert", "guess_format", "to_indexed_png"]

FORMATS = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "mots": read_mots,
    "davis": read_davis,
}


def convert(
    source: str | Path,
    out: str | Path,
    format: str | None = None,
    images: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write `source` in YouTube-VIS form into `out`, a new or empty folder; returns its
    annotations.json.

    format: one of FORMATS; None guesses. images: folder of the images (cvat: or video file), if not
    beside the source. progress: is told the format and what is lost. ValueError names file and entry,
    and nothing is left of `out`.
    """
    source, images, found = Path(source), Path(images) if images else None, Found([], Counter())
    for path in (source, images):
        if path and not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    format = format or guess_format(source)
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
    with new_folder(out) as new:
        dataset = _write(FORMATS[format](source, images, found), found, new)
        lost = {what: count for what, count in found.lost.items() if count}
        dataset["info"] = {"description": f"converted from {format} by minst", "lost": lost}
        text = json.dumps(dataset, ensure_ascii=False)
        (new / "annotations.json").write_text(text, encoding="utf-8")
    for line in (f"format: {format}", *(f"lost: {count} {what}" for what, count in lost.items())):
        if progress:
            progress(line)
    return Path(out) / "annotations.json"


def guess_format(source: str | Path) -> str:
    """The format that the names in `source`, and its first .json file, speak for; ValueError if none
    does."""
    source = Path(source)
    if source.suffix == ".txt" or (source / "instances").is_dir():
        return "mots"
    if source.suffix == ".xml" or any(source.glob("*.xml")):
        return "cvat"
    if (source / "Annotations").is_dir():
        return "davis"
    folders = labelme_folders(source) if source.is_dir() else [source.parent]
    for folder in folders:
        entry = read_json(source if source.is_file() else min(folder.glob("*.json")))
        if isinstance(entry, dict) and "shapes" in entry:
            return "labelme"
        if isinstance(entry, dict) and "images" in entry:
            return "coco"
        if isinstance(entry, dict) and "videos" in entry:
            raise ValueError(f"{source}: is in YouTube-VIS form already")
    if source.is_dir() and mots_sequences(source):
        return "mots"
    raise ValueError(f"{source}: looks like none of {', '.join(FORMATS)}; say which it is (--from)")


def _write(videos: Iterable[Video], found: Found, folder: Path) -> dict:
    """Images into `folder`/JPEGImages, annotations into a YouTube-VIS dict."""
    entries, annotations, names = [], [], set()
    for video in tqdm(videos, desc="convert", unit="video"):
        name = video.name.replace("\\", "/").replace("/", "-")
        if name in names:
            raise ValueError(f"two videos are called {name}")
        names.add(name)
        files = _write_images(video, inside(folder / "JPEGImages", name))
        length, (height, width) = len(files), video.size
        common = {"height": height, "width": width, "length": length}
        files = [f"{name}/{file}" for file in files]
        entries.append({"id": len(entries) + 1, "file_names": files, **common})
        for track in video.tracks:
            last = max(track.masks, default=0)
            if last >= length:
                what = f"shapes in frame {last}, but only {length} images (from 0 on)"
                raise ValueError(f"video {video.name}: {what}")
            masks = [track.masks.get(t) for t in range(length)]
            masks = [mask if mask and rle_codec.area(mask) else None for mask in masks]
            if not any(masks):
                found.lost["instances that no frame shows"] += 1
                continue
            if track.category not in found.categories:
                found.categories.append(track.category)
            annotations.append({
                "id": len(annotations) + 1,
                "video_id": len(entries),
                "iscrowd": int(track.crowd),
                "category_id": found.categories.index(track.category) + 1,
                **common,
                "segmentations": masks,
                "areas": [mask and int(rle_codec.area(mask)) for mask in masks],
                "bboxes": [mask and rle_codec.toBbox(mask).tolist() for mask in masks],
            })  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(found.categories, 1)]
    return {"videos": entries, "categories": categories, "annotations": annotations}


def _write_images(video: Video, folder: Path) -> list[str]:
    """Copies or writes the images of a video; returns their names."""
    folder.mkdir(parents=True)
    names: list[str] = []
    for item in video.images:
        name, source = (item.name, item) if isinstance(item, Path) else item
        path = inside(folder, name)
        is_kept = path.suffix.lower() in (".jpg", ".jpeg", ".png")
        path = path if is_kept else path.with_suffix(".png")
        if path.exists():
            raise ValueError(f"video {video.name}: two images are called {path.name}")
        image = source if isinstance(source, np.ndarray) else read_image(source)
        if image.shape[:2] != video.size:
            said = source if isinstance(source, Path) else name
            (height, width), wanted = image.shape[:2], f"{video.size[1]}x{video.size[0]}"
            raise ValueError(f"{said}: {width}x{height}, its video {video.name} is {wanted}")
        if is_kept and image is not source:
            path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        else:
            Image.fromarray(image).save(path, quality=95)
        names.append(path.name)
    if not names:
        raise ValueError(f"video {video.name}: no images")
    return names
