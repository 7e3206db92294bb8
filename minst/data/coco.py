"""Images with annotations in COCO form, read on demand: each is a clip of one frame.

    annotations/instances_train2017.json, ... (`layouts`)   images, categories, annotations
    train2017/000000000009.jpg, ...

    COCO(DIR, "train")[i] -> Clip of length 1: image(0), labels (G,), crowd (G,), masks(0) (G, H, W)

So whatever reads videos reads images, too. The 80 categories of COCO have ids up to 90: classes are
0..C-1 in the file's order, `category_ids` maps them back.

Lesson: notebooks/10_capstone.ipynb
"""

from pathlib import Path

from minst.data import formats
from minst.data.layouts import find_annotations
from minst.data.ytvis import YouTubeVIS

__all__ = ["COCO", "holds_images", "open_folder"]


def holds_images(file: str | Path) -> bool:
    """Is this annotation file in COCO form? One with neither videos nor images is not."""
    keys = formats.JsonFile(file).values
    return "images" in keys and "videos" not in keys


def open_folder(
    root: str | Path, split: str | None = None, annotations: str | Path | None = None
) -> YouTubeVIS:
    """A folder in YouTube-VIS or in COCO form, whichever its file says; arguments as theirs."""
    file = Path(annotations) if annotations else find_annotations(root, split)
    return (COCO if holds_images(file) else YouTubeVIS)(root, split, file)


class COCO(YouTubeVIS):
    """A folder of images in COCO form: len(dataset), dataset[i] -> Clip of one frame.

    Arguments, attributes and errors are those of `YouTubeVIS`. A clip's `video` and `tracks` are
    entries in YouTube-VIS form: `image_id` is `video_id`, `segmentation`, `bbox` and `area` are
    lists of one.
    """

    unit, form = "image", formats.COCO

    @staticmethod
    def _as_video(picture: dict) -> dict:
        return {**picture, "file_names": [picture["file_name"]], "length": 1}

    @staticmethod
    def _as_track(entry: dict) -> dict:
        lists = {"segmentations": "segmentation", "bboxes": "bbox", "areas": "area"}
        gone = {"image_id", *lists.values()}
        track = {key: value for key, value in entry.items() if key not in gone}
        track["video_id"] = entry["image_id"]
        return track | {many: [entry.get(one)] for many, one in lists.items()}
