"""COCO files whose images are frames of videos and whose annotations carry track ids.

    images[i]       file_name; video_id and frame_id (CocoVID, BDD100K) or frame_index (TAO). Without video_id a folder
                    in file_name is a video, without a number frames are in the natural order of their names (CVAT).
    annotations[i]  image_id, category_id, and track_id or instance_id, which may stand in `attributes` (CVAT)

A track is crowd when one of its annotations is (`iscrowd`, or BDD100K's `ignore`).

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from minst.data.convert.common import Found, Track, Video, box_mask, field, only_file
from minst.data.files import inside, natural, read_image, read_json
from minst.data.layouts import find_images
from minst.data.ytvis import decode_mask, encode_mask

__all__ = ["read_coco"]


def read_coco(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in the order of their ids, or of the names of their folders."""
    file = only_file(source, ".json", source, source / "annotations")
    data = read_json(file)
    categories = {}
    for where, category in _entries(data, "categories", file):
        categories[field(category, "id", int, where)] = field(category, "name", str, where)
    found.categories.extend(categories.values())
    videos, shapes = _frames(data, file), _shapes(data, categories, file)
    named = {
        field(video, "id", (int, str), where): video.get("name") or video.get("file_name")
        for where, video in (_entries(data, "videos", file) if data.get("videos") else ())
    }
    root, split = (
        file.parent.parent if file.parent.name == "annotations" else file.parent,
        file.stem.split("_", 1)[-1],
    )
    for key in sorted(videos, key=natural):
        frames = sorted(videos[key], key=_place)
        folder = images or find_images(root, split, frames[0][1]["file_name"])
        paths = [inside(folder, image["file_name"]) for _, image in frames]
        size = read_image(paths[0]).shape[:2]
        for where, image in frames:
            if (image.get("height", size[0]), image.get("width", size[1])) != size:
                raise ValueError(
                    f"{where}: its size is not {size[1]}x{size[0]}, that of the video's first image"
                )
        tracks = _tracks(
            [shapes.pop(image["id"], []) for _, image in frames], size, categories, found
        )
        yield Video(
            str(named.get(key) or key or root.resolve().name),
            size,
            [(p.name, p) for p in paths],
            tracks,
        )
    for where, annotation in (entry for entries in shapes.values() for entry in entries):
        raise ValueError(f"{where}: image_id {annotation['image_id']} is not among the images")


def _entries(data, key: str, file: Path) -> Iterator[tuple[str, dict]]:
    return (
        (f"{file}: {key}[{i}]", entry) for i, entry in enumerate(field(data, key, list, str(file)))
    )


def _frames(data: dict, file: Path) -> dict[object, list]:
    """{video: [(where, image), ...]}."""
    videos, ids = defaultdict(list), set()
    for where, image in _entries(data, "images", file):
        if field(image, "id", int, where) in ids:
            raise ValueError(f"{where}: the id {image['id']} stands there twice")
        ids.add(image["id"])
        image["file_name"] = field(image, "file_name", str, where).replace("\\", "/")
        folder = str(PurePosixPath(image["file_name"]).parent).strip("./")
        key = (
            folder if image.get("video_id") is None else field(image, "video_id", (int, str), where)
        )
        videos[key].append((where, image))
    return videos


def _place(frame: tuple[str, dict]) -> tuple:
    """Sort key of a frame in its video."""
    where, image = frame
    key = next((key for key in ("frame_id", "frame_index") if key in image), None)
    return (
        (field(image, key, (int, float), where), []) if key else (-1, natural(image["file_name"]))
    )


def _shapes(data: dict, categories: dict, file: Path) -> dict[int, list]:
    """{image: [(where, annotation), ...]}."""
    shapes = defaultdict(list)
    for where, annotation in _entries(data, "annotations", file):
        if field(annotation, "category_id", int, where) not in categories:
            raise ValueError(
                f"{where}: category_id {annotation['category_id']} is not among the categories"
            )
        shapes[field(annotation, "image_id", int, where)].append((where, annotation))
    return shapes


def _tracks(
    frames: list[list], size: tuple[int, int], categories: dict, found: Found
) -> list[Track]:
    tracks: dict[object, Track] = {}
    for t, shapes in enumerate(frames):
        for where, annotation in shapes:
            identity, category = _identity(annotation, where), categories[annotation["category_id"]]
            track = tracks.setdefault(identity, Track(category, {}))
            if track.category != category:
                raise ValueError(
                    f"{where}: track {identity} is a {category} here, a {track.category} before"
                )
            if t in track.masks:
                raise ValueError(
                    f"{where}: track {identity} has another annotation in the same frame"
                )
            track.masks[t] = _mask(annotation, size, where, found)
            if annotation.get("iscrowd") or annotation.get("ignore"):
                tracks[identity] = track._replace(crowd=True)
    return [tracks[identity] for identity in sorted(tracks, key=natural)]


def _identity(annotation: dict, where: str) -> int | str:
    for place in (annotation, annotation.get("attributes")):
        for key in ("track_id", "instance_id"):
            if isinstance(place, dict) and isinstance(place.get(key), int | str):
                return place[key]
    raise ValueError(
        f"{where}: no track_id, instance_id or attributes.track_id; which instance is it?"
    )


def _mask(annotation: dict, size: tuple[int, int], where: str, found: Found) -> dict:
    try:
        if annotation.get("segmentation"):
            return encode_mask(decode_mask(annotation["segmentation"], *size))
        left, top, width, height = map(float, field(annotation, "bbox", list, "without a mask"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    return encode_mask(box_mask([left, top, left + width, top + height], size, where, found))
