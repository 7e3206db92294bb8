"""Images with annotations in COCO form, read on demand: each is a clip of one frame.

    annotations/instances_train2017.json, ... (`layouts`)   images, categories, annotations (one an instance)
    train2017/000000000009.jpg, ...

    COCO(DIR, "train")[i] -> Clip of length 1: image(0), labels (M,), crowd (M,), masks(0) (M, H, W)

So whatever reads videos reads images, too. The 80 categories of COCO have ids up to 90: classes are 0..K-1 in the file's
order, `category_ids` maps them back.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

from pathlib import Path

from minst.data.json_index import has_key, integer
from minst.data.layouts import find_annotations
from minst.data.ytvis import YouTubeVIS, looks_like, picture_id, require_text

__all__ = ["COCO", "open_folder"]


def open_folder(root: str | Path, split: str | None = None, annotations: str | Path | None = None) -> YouTubeVIS:
    """A folder in YouTube-VIS or in COCO form, whichever its annotation file says; arguments as for the readers."""
    file = Path(annotations) if annotations else find_annotations(root, split)
    videos = has_key(file, "videos") or not has_key(file, "images")  # with neither, the error is about videos
    return (YouTubeVIS if videos else COCO)(root, split, file)


class COCO(YouTubeVIS):
    """A folder of images in COCO form: len(dataset), dataset[i] -> Clip of one frame.

    Arguments, attributes and errors are those of `YouTubeVIS`. A clip's `video` and `tracks` are the entries of the
    file in YouTube-VIS form: `image_id` is `video_id`, `segmentation`, `bbox` and `area` are lists of one.
    """

    unit, _items, _owner = "image", "images", "image_id"

    @staticmethod
    def _item_row(image: dict) -> tuple[int, int]:
        require_text(image, "file_name")
        return picture_id(image), 1

    @staticmethod
    def _annotation_row(entry: dict) -> tuple[int, ...]:
        if "image_id" not in entry and "video_id" in entry:
            raise ValueError(f"lacks 'image_id'; {looks_like(('videos',))}")
        ids = [integer(entry, key) for key in ("id", "image_id", "category_id")]
        if "segmentation" not in entry:
            raise ValueError("lacks 'segmentation'; boxes alone are not enough")
        return *ids, bool(entry.get("iscrowd")), 1

    @staticmethod
    def _as_video(image: dict) -> dict:
        return {**image, "file_names": [image["file_name"]], "length": 1}

    @staticmethod
    def _as_track(entry: dict) -> dict:
        lists = {"segmentations": "segmentation", "bboxes": "bbox", "areas": "area"}
        track = {key: value for key, value in entry.items() if key not in {"image_id", *lists.values()}}
        return {**track, "video_id": entry["image_id"]} | {many: [entry.get(one)] for many, one in lists.items()}
