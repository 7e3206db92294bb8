"""Where a data set keeps its annotations and its images: every layout in use, by names alone.

    YouTube-VIS 2019   train.json  or                        train/JPEGImages/<video>/00000.jpg
                       annotations/instances_train_sub.json
    YouTube-VIS 2021   train/instances.json                  train/JPEGImages/<video>/00000.jpg
    OVIS               annotations_train.json                train/<video>/img_0000001.jpg
    COCO               annotations/instances_train2017.json  train2017/000000000009.jpg
    Roboflow (COCO)    train/_annotations.coco.json          train/<image>.jpg
    CVAT (COCO)        annotations/instances_default.json    images/<image>.jpg
    ours               annotations.json                      JPEGImages/<video>/00000.jpg

    find_annotations(root, split) -> the file
    find_images(root, split, file_name) -> the folder that its names start from

Lesson: notebooks/10_capstone.ipynb
"""

import re
from pathlib import Path

from minst.data.files import inside

__all__ = ["SPLITS", "find_annotations", "find_images", "split_of"]

SPLITS = ("train", "valid", "val", "test")  # looked for in this order when none is named
SAME = {"val": "valid", "valid": "val"}  # COCO writes "val", YouTube-VIS "valid"
WHOLE = (
    "annotations.json", "annotations/instances.json", "instances.json", "_annotations.coco.json",
    "instances_default.json", "annotations/instances_default.json",
)  # fmt: skip
OF_A_SPLIT = (
    "{}.json", "{}/instances.json", "{}/annotations.json", "{}/_annotations.coco.json",
    "instances_{}.json", "instances_{}2017.json", "instances_{}2014.json", "instances_{}_sub.json",
    "annotations_{}.json", "youtube_vis_2019_{}.json", "youtube_vis_2021_{}.json",
    "image_info_{}2017.json", "image_info_{}.json",
)  # fmt: skip

IMAGES_OF_A_SPLIT = (
    ("{}/JPEGImages", "{}/images", "{}"),  # before "images", and after it
    ("{}2017", "{}2014", "images/{}", "images/{}2017"),
)


def find_annotations(root: str | Path, split: str | None = None) -> Path:
    """The annotation file: of one split, or, if none is named, the only file, else that of "train".

    Each name is looked for in `root`, then in `root`/annotations. FileNotFoundError lists what was
    looked for.
    """
    root = Path(root)
    if split and Path(split).name != str(split):
        what = "not a name such as 'train'; a file is given as annotations=..."
        raise ValueError(f"split is {str(split)!r}, {what}")
    names = [pattern.format(s) for s in _spellings(split) or SPLITS for pattern in OF_A_SPLIT]
    names += [f"annotations/{name}" for name in names]
    for name in names if split else (*WHOLE, *names):
        if (root / name).is_file():
            return root / name
    if not root.is_dir():
        what = "a file, not the" if root.exists() else "no such"
        raise FileNotFoundError(f"{root}: {what} folder of a data set")
    tried = [pattern.format(split or "SPLIT") for pattern in OF_A_SPLIT]
    tried = ", ".join(tried if split else [*WHOLE, *tried])
    which = "" if split else f" (SPLIT is {', '.join(SPLITS)})"
    what = f"none of {tried}{which} is there or in annotations/; name the file"
    raise FileNotFoundError(f"{root}: {what}")


def find_images(root: str | Path, split: str | None, file_name: str) -> Path:
    """The folder that the names in an annotation file start from: the first that holds `file_name`.

    If none does, the first folder that exists, so that the error about the image names a likely
    place. ValueError for a name that leads out of the data set.
    """
    words = _spellings(split)
    if split and "-" in split:
        words.append(split.partition("-")[0])  # COCO's "test-dev" is a part of the images of "test"
    own, within = ([name.format(w) for w in words for name in names] for names in IMAGES_OF_A_SPLIT)
    names = ["JPEGImages", *own, "images", "images/default", *within, ""]
    folders = [Path(root) / name for name in names]
    for folder in folders:
        if inside(folder, file_name).is_file():
            return folder
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def split_of(root: str | Path, annotations: str | Path) -> str | None:
    """The split that an annotation file, or else its folder, is named after; or None."""
    root, path = Path(root), Path(annotations)
    for name in [path.stem] if path.parent == root else [path.stem, path.parent.name]:
        found = re.search(rf"(?:^|[_-])({'|'.join(SPLITS)})(?:20\d\d)?(?:[_-]|$)", name)
        if found:
            return found[1]
    return None


def _spellings(split: str | None) -> list[str]:
    return [word for word in (split, SAME.get(split)) if word]
