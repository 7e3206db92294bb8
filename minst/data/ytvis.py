"""Videos with annotations in YouTube-VIS form (2019, 2021, OVIS, ours), read on demand.

    annotations.json, train.json, ... (`layouts`)   videos, categories, annotations (one a track)
    JPEGImages/<video>/<frame>.jpg, ...

    YouTubeVIS(DIR)[i] -> Clip: image(t) (H, W, 3) bytes, labels (G,), masks(t) (G, H, W)

Opening a file checks its entries and keeps their text (`formats`); a track is parsed again when it
is asked for, a mask is decoded for its frame, and a frame is read from its file. Classes are 0..C-1
in the file's order of categories; `category_ids` maps them back to the ids of the file.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Raw

from minst.data import formats
from minst.data.files import inside, read_image, read_json
from minst.data.formats import JsonFile
from minst.data.layouts import find_annotations, find_images, split_of
from minst.rle import decode as decode_mask
from minst.rle import encode as encode_mask

__all__ = ["Clip", "ClipFrame", "YouTubeVIS", "decode_mask", "encode_mask"]


class ClipFrame(NamedTuple):
    """One frame and its ground truth."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (G, H, W) bool, all False where an instance is not to be seen


class Clip:
    """One video: frames are read when asked for. Iterating gives its images, in order.

    Attributes: name, height, width, video (its entry), tracks (its annotations, parsed at first
    use), categories and category_ids of the file, labels (G,) of its tracks as classes 0..C-1,
    crowd (G,) bool (a group, not one instance).
    """

    def __init__(self, dataset: YouTubeVIS, video: dict, labels, crowd, tracks: Callable):
        self.root, self.split, self.file = dataset.root, dataset.split, dataset.file
        self.categories, self.category_ids = dataset.categories, dataset.category_ids
        self.video, self.labels, self.crowd = video, labels, crowd
        self.height, self.width = video["height"], video["width"]
        # a path of Windows may have either slash
        folders = [PureWindowsPath(name).parent.name for name in video["file_names"][:1]]
        self.name = "".join(folders) or str(video["id"])
        self._category_entries, self._read_tracks = dataset.category_entries, tracks

    def __len__(self) -> int:
        return len(self.video["file_names"])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.image(t) for t in range(len(self)))

    @cached_property
    def tracks(self) -> list[dict]:
        """The annotations of the instances, checked, in the order of `masks`."""
        return self._read_tracks()

    @cached_property
    def folder(self) -> Path:
        """What the names of its files start from."""
        return find_images(self.root, self.split, self.video["file_names"][0])

    def image(self, t: int) -> np.ndarray:
        """Frame `t` as (H, W, 3) bytes; ValueError for a missing file, or of another size."""
        path = inside(self.folder, self.video["file_names"][t])
        image = read_image(path, (self.height, self.width))
        if image.shape[:2] != (self.height, self.width):
            what = f"{image.shape[1]}x{image.shape[0]}, its record says {self.width}x{self.height}"
            raise ValueError(f"{path}: {what}")
        return image

    def masks(self, t: int) -> np.ndarray:
        """The ground-truth masks of frame `t`: (G, H, W) bool."""
        masks = np.zeros((len(self.tracks), self.height, self.width), dtype=bool)
        for mask, track in zip(masks, self.tracks, strict=True):
            try:
                mask[:] = decode_mask(track["segmentations"][t], self.height, self.width)
            except ValueError as error:
                where = f"annotation of id {track['id']}, frame {t}"
                raise ValueError(f"{self.file}: {where}: {error}") from None
        return masks

    def render(self, t: int) -> ClipFrame:
        """Image and masks of frame `t`: the interface of `minst.data.shapes.ShapesClip`."""
        return ClipFrame(self.image(t), self.masks(t))

    def annotations(self) -> dict:
        """The ground truth of this video alone, as a YouTube-VIS dict."""
        return {
            "info": {},
            "videos": [self.video],
            "categories": self._category_entries,
            "annotations": self.tracks,
        }


class YouTubeVIS:
    """A folder of videos in YouTube-VIS form: len(dataset), dataset[i] -> Clip.

    Args:
        root: the folder. split: "train", "valid", ...; without one, the only file, or the first.
        annotations: the file, when it is none of the usual names or lies elsewhere.
    Attributes: root, split, file, categories (names), category_ids, category_entries, track_counts
    (n,): how many annotations each video has. Worker processes may hold it.
    Raises FileNotFoundError (what was looked for) or ValueError (what is wrong, in which entry).
    """

    unit, form = "video", formats.YTVIS
    _as_video = _as_track = staticmethod(dict)

    def __init__(
        self, root: str | Path, split: str | None = None, annotations: str | Path | None = None
    ):
        self.root = Path(root)
        self.file = Path(annotations) if annotations else find_annotations(root, split)
        self.split = split or split_of(self.root, self.file)
        opened = JsonFile(self.file)
        for key in (self.form.pictures, "categories"):
            if key not in opened.values:
                raise ValueError(f"{self.file}: no list {key!r}; {looks_like(opened.values)}")
        self.category_entries = opened.parsed("categories", list[dict])  # with all their keys
        categories = [category for _, category, _ in opened.entries("categories", formats.Category)]
        self.categories = tuple(category.name for category in categories)
        self.category_ids = [category.id for category in categories]
        self._keep_entries(opened)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Clip:
        i = range(len(self))[i]  # IndexError where there is none; negative ones count from the end
        (picture,) = _parsed(self.file, self._pictures[i : i + 1], self._as_video)
        mine = slice(self._first[i], self._first[i + 1])
        tracks = partial(_parsed, self.file, self._tracks[mine], self._as_track)
        return Clip(self, picture, self._labels[mine], self._crowd[mine], tracks)

    @property
    def dataset(self) -> dict:
        """The whole file, parsed anew: for small ones."""
        return read_json(self.file)

    @property
    def track_counts(self) -> np.ndarray:
        """How many instances each video has: (videos,) int."""
        return np.diff(self._first)

    def _keep_entries(self, opened: JsonFile) -> None:
        """Check videos and annotations; keep their texts and a few numbers, sorted by video."""
        form, self._pictures, tracks = self.form, [], []
        place, lengths, numbers = {}, [], array("q")  # an array: millions of numbers take no room
        for _, picture, text in opened.entries(form.pictures, form.picture):
            place[picture.id] = len(place)
            lengths.append(len(picture.file_names))
            self._pictures.append(text)
        classes = {number: k for k, number in enumerate(self.category_ids)}
        known = {form.owner: place, "category_id": classes}
        for where, track, text in opened.entries("annotations", form.track, **known):
            i, count = place[track.video_id], len(track.segmentations)
            if count != lengths[i]:
                raise ValueError(f"{where}: {count} segmentations for {lengths[i]} frames")
            numbers.extend((i, classes[track.category_id], bool(track.iscrowd)))
            tracks.append(text)
        picture, labels, crowd = np.array(numbers).reshape(-1, 3).T
        order = np.argsort(picture, kind="stable")
        self._tracks = [tracks[i] for i in order]
        self._labels, self._crowd = labels[order], crowd[order].astype(bool)
        # the tracks of video i: from first[i] on, before first[i + 1]
        self._first = np.searchsorted(picture[order], np.arange(len(place) + 1))


def _parsed(file: Path, texts: list[Raw], as_entry: Callable) -> list[dict]:
    try:
        return [as_entry(msgspec.json.decode(text)) for text in texts]
    except ValueError as error:  # a text that is no UTF-8
        raise ValueError(f"{file}: {formats.explained(error, '')[1]}") from None


def looks_like(keys) -> str:
    """What a file is instead, by the keys at its top."""
    if "videos" in keys:
        return "it looks like a YouTube-VIS file, which minst.data.YouTubeVIS reads"
    if "images" in keys:
        return "it looks like a COCO file, which minst.data.COCO reads"
    return f"at its top stand {', '.join(map(repr, keys)) or 'no keys'}"
