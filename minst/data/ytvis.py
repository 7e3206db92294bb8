"""Videos with annotations in YouTube-VIS form, read on demand.

    DIR/annotations.json (or DIR/annotations/instances.json)   videos, categories, annotations (one a track)
    DIR/JPEGImages/<video>/<frame>.jpg

    YouTubeVIS(DIR)[i] -> Clip: frames (H, W, 3) bytes by number, labels (M,), masks (M, H, W) of a frame

Classes are 0..K-1 in the file's order of categories; `category_ids` maps them back to the ids of the file.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle_codec

from minst.data.files import inside, read_image, read_json

__all__ = ["Clip", "ClipFrame", "YouTubeVIS", "decode_mask"]

ANNOTATION_FILES = ("annotations.json", "annotations/instances.json", "instances.json", "train.json", "valid.json")
IMAGE_FOLDER = "JPEGImages"


class ClipFrame(NamedTuple):
    """One frame and its ground truth."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (M, H, W) bool, all False where an instance is not to be seen


class Clip:
    """One video: frames are read when asked for. Iterating gives its images, in order.

    Attributes: name, height, width, video (its entry), tracks (its annotations), categories and category_ids of
    the file, labels (M,) of its tracks as classes 0..K-1.
    """

    def __init__(self, root: Path, video: dict, tracks: list[dict], categories: list[dict]):
        self.root, self.video, self.tracks = root, video, tracks
        self.categories = tuple(c["name"] for c in categories)
        self.category_ids = [c["id"] for c in categories]
        self._category_entries = categories
        self.height, self.width = video["height"], video["width"]
        self.name = Path(video["file_names"][0]).parent.name or str(video["id"])
        self.labels = np.array([self.category_ids.index(t["category_id"]) for t in tracks], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.video["file_names"])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.image(t) for t in range(len(self)))

    def image(self, t: int) -> np.ndarray:
        """Frame `t` as (H, W, 3) bytes. A missing or broken file, or one of another size, is a ValueError."""
        path = inside(self.root / IMAGE_FOLDER, self.video["file_names"][t])
        image = read_image(path)
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(f"{path}: {image.shape[1]}x{image.shape[0]}, its video says {self.width}x{self.height}")
        return image

    def masks(self, t: int) -> np.ndarray:
        """The ground-truth masks of frame `t`: (M, H, W) bool."""
        masks = [decode_mask(track["segmentations"][t], self.height, self.width) for track in self.tracks]
        return np.stack(masks) if masks else np.zeros((0, self.height, self.width), dtype=bool)

    def render(self, t: int) -> ClipFrame:
        """Image and masks of frame `t`: the interface of `minst.data.shapes.ShapesClip`."""
        return ClipFrame(self.image(t), self.masks(t))

    def annotations(self) -> dict:
        """The ground truth of this video alone, as a YouTube-VIS dict."""
        return {"info": {}, "videos": [self.video], "categories": self._category_entries, "annotations": self.tracks}


class YouTubeVIS:
    """A folder of videos in YouTube-VIS form.

    Args:
        root: the folder. annotations: the file, when it is none of the usual names.
    Raises FileNotFoundError (what was looked for) or ValueError (what is wrong with the file, which entry).
    """

    def __init__(self, root: str | Path, annotations: str | Path | None = None):
        self.root = Path(root)
        self.file = Path(annotations) if annotations else self._find_file()
        self.dataset = read_json(self.file)
        for key in ("videos", "categories"):
            if not isinstance(self.dataset, dict) or not isinstance(self.dataset.get(key), list):
                raise ValueError(f"{self.file}: no list {key!r}; is this a YouTube-VIS annotation file?")
        for i, video in enumerate(self.dataset["videos"]):
            for key in ("id", "file_names", "height", "width"):
                if key not in video:
                    raise ValueError(f"{self.file}: videos[{i}] lacks {key!r}")
        self._lengths = {video["id"]: len(video["file_names"]) for video in self.dataset["videos"]}
        self.categories = tuple(c["name"] for c in self.dataset["categories"])
        self.category_ids = [c["id"] for c in self.dataset["categories"]]
        self._tracks: dict[int, list[dict]] = {video["id"]: [] for video in self.dataset["videos"]}
        for i, track in enumerate(self.dataset.get("annotations") or []):  # absent or null: labels are withheld
            self._add(i, track)

    def __len__(self) -> int:
        return len(self.dataset["videos"])

    def __getitem__(self, i: int) -> Clip:
        video = self.dataset["videos"][i]
        return Clip(self.root, video, self._tracks[video["id"]], self.dataset["categories"])

    def _find_file(self) -> Path:
        for name in ANNOTATION_FILES:
            if (self.root / name).is_file():
                return self.root / name
        raise FileNotFoundError(f"{self.root}: none of {', '.join(ANNOTATION_FILES)} is there")

    def _add(self, i: int, track: dict) -> None:
        where = f"{self.file}: annotations[{i}]"
        for key in ("video_id", "category_id", "segmentations"):
            if key not in track:
                raise ValueError(f"{where} lacks {key!r}")
        if track["video_id"] not in self._tracks:
            raise ValueError(f"{where}: video_id {track['video_id']} is not among the videos")
        if track["category_id"] not in self.category_ids:
            raise ValueError(f"{where}: category_id {track['category_id']} is not among the categories")
        given, frames = len(track["segmentations"] or []), self._lengths[track["video_id"]]
        if given != frames:
            raise ValueError(f"{where}: {given} segmentations for {frames} frames")
        self._tracks[track["video_id"]].append(track)


def decode_mask(segmentation, height: int, width: int) -> np.ndarray:
    """A compressed or uncompressed RLE, polygons or None -> mask (height, width) bool; ValueError at another size."""
    if segmentation is None or segmentation == []:
        return np.zeros((height, width), dtype=bool)
    if isinstance(segmentation, list):
        segmentation = rle_codec.merge(rle_codec.frPyObjects(segmentation, height, width))
    elif list(segmentation["size"]) != [height, width]:
        raise ValueError(f"a mask of {' x '.join(map(str, segmentation['size']))} in a frame of {height} x {width}")
    elif isinstance(segmentation["counts"], list):
        segmentation = rle_codec.frPyObjects(segmentation, height, width)
    return rle_codec.decode(segmentation).astype(bool)
