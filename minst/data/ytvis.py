"""Videos with annotations in YouTube-VIS form (2019, 2021, OVIS, ours), read on demand.

    annotations.json, train.json, ... (`layouts`)   videos, categories, annotations (one a track)
    JPEGImages/<video>/<frame>.jpg, ...

    YouTubeVIS(DIR)[i] -> Clip: frames (H, W, 3) bytes by number, labels (M,), masks (M, H, W) of a frame

Opening a file notes where its entries lie (`json_index`); a track is parsed when it is asked for, a mask is decoded for
its frame, and a frame is read from its file. Classes are 0..K-1 in the file's order of categories; `category_ids` maps
them back to the ids of the file.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle_codec

from minst.data.files import inside, read_image, read_json
from minst.data.json_index import Entries, JsonFile, integer, scan
from minst.data.layouts import find_annotations, find_images, split_of

__all__ = ["Clip", "ClipFrame", "YouTubeVIS", "decode_mask", "encode_mask"]

FAR = 1e5  # pixels: a polygon that leads further out would take gigabytes to draw


class ClipFrame(NamedTuple):
    """One frame and its ground truth."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (M, H, W) bool, all False where an instance is not to be seen


class Clip:
    """One video: frames are read when asked for. Iterating gives its images, in order.

    Attributes: name, height, width, video (its entry), tracks (its annotations, parsed at first use), categories and
    category_ids of the file, labels (M,) of its tracks as classes 0..K-1, crowd (M,) bool (a group, not one instance).
    """

    def __init__(self, dataset: YouTubeVIS, video: dict, labels: np.ndarray, crowd: np.ndarray, tracks: Callable):
        self.root, self.split, self.video, self.labels, self.crowd = dataset.root, dataset.split, video, labels, crowd
        self.file, self.categories, self.category_ids = dataset.file, dataset.categories, dataset.category_ids
        self.height, self.width = video["height"], video["width"]
        names = video["file_names"]
        self.name = (Path(names[0]).parent.name if names else "") or str(video["id"])
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
        """Frame `t` as (H, W, 3) bytes. A missing or broken file, or one of another size, is a ValueError."""
        path = inside(self.folder, self.video["file_names"][t])
        image = read_image(path)
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(f"{path}: {image.shape[1]}x{image.shape[0]}, its record says {self.width}x{self.height}")
        return image

    def masks(self, t: int) -> np.ndarray:
        """The ground-truth masks of frame `t`: (M, H, W) bool."""
        masks = np.zeros((len(self.tracks), self.height, self.width), dtype=bool)
        for mask, track in zip(masks, self.tracks, strict=True):
            try:
                mask[:] = decode_mask(track["segmentations"][t], self.height, self.width)
            except ValueError as error:
                raise ValueError(f"{self.file}: annotation of id {track['id']}, frame {t}: {error}") from None
        return masks

    def render(self, t: int) -> ClipFrame:
        """Image and masks of frame `t`: the interface of `minst.data.shapes.ShapesClip`."""
        return ClipFrame(self.image(t), self.masks(t))

    def annotations(self) -> dict:
        """The ground truth of this video alone, as a YouTube-VIS dict."""
        return {"info": {}, "videos": [self.video], "categories": self._category_entries, "annotations": self.tracks}


class YouTubeVIS:
    """A folder of videos in YouTube-VIS form: len(dataset), dataset[i] -> Clip. Worker processes may hold it.

    Args:
        root: the folder. split: "train", "valid", ...; without one, the only annotation file, or the first.
        annotations: the file, when it is none of the usual names or lies elsewhere.
    Attributes: root, split, file, categories (names), category_ids, category_entries, track_counts (n,): how many
    annotations each video has.
    Raises FileNotFoundError (what was looked for) or ValueError (what is wrong with the file, which entry).
    """

    unit, _items, _owner = "video", "videos", "video_id"

    def __init__(self, root: str | Path, split: str | None = None, annotations: str | Path | None = None):
        self.root = Path(root)
        self.file = Path(annotations) if annotations else find_annotations(root, split)
        self.split = split or split_of(self.root, self.file)
        rows = {self._items: self._item_row, "annotations": self._annotation_row}
        self._json, lists, keys = scan(self.file, rows, whole=["categories"])
        items, annotations = lists[self._items], lists["annotations"]
        if items is None:
            raise ValueError(f"{self.file}: no list {self._items!r}; {looks_like(keys)}")
        self._item_spans = items.spans
        self._keep_categories(keys.get("categories"))
        self._keep_annotations(items.rows, annotations or Entries(*np.zeros((2, 0, 2), dtype=np.int64)))

    def __len__(self) -> int:
        return len(self._item_spans)

    def __getitem__(self, i: int) -> Clip:
        i = range(len(self))[i]  # IndexError where there is none; negative numbers count from the end
        (item,) = self._json.read(self._item_spans[i : i + 1])
        mine = slice(self._first[i], self._first[i + 1])
        tracks = partial(_read_tracks, self._json, self._track_spans[mine], self._as_track)
        return Clip(self, self._as_video(item), self._labels[mine], self._crowd[mine], tracks)

    @property
    def dataset(self) -> dict:
        """The whole file, parsed anew: for small ones."""
        return read_json(self.file)

    @property
    def track_counts(self) -> np.ndarray:
        """How many instances each video has: (videos,) int."""
        return np.diff(self._first)

    def _keep_categories(self, entries) -> None:
        if not isinstance(entries, list):
            raise ValueError(f"{self.file}: no list 'categories'")
        for i, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise ValueError("must be an object")
                integer(entry, "id"), require_text(entry, "name")
            except ValueError as error:
                raise ValueError(f"{self.file}: categories[{i}]: {error}") from None
        self.category_entries = entries
        self.categories = tuple(entry["name"] for entry in entries)
        self.category_ids = [entry["id"] for entry in entries]

    def _keep_annotations(self, items: np.ndarray, annotations: Entries) -> None:
        """Check them against videos and categories, and sort them by video."""
        ids, owner, category, crowd, length = annotations.rows.reshape(-1, 5).T
        item_ids, lengths = items.reshape(-1, 2).T
        category_ids = np.array(self.category_ids, dtype=np.int64)
        for name, known in ((self._items, item_ids), ("categories", category_ids), ("annotations", ids)):
            self._refuse_twice(name, known)
        item = self._positions(owner, item_ids, self._owner, self._items)
        labels = self._positions(category, category_ids, "category_id", "categories")
        for i in np.flatnonzero(lengths[item] != length)[:1]:
            given = f"{length[i]} segmentations for {lengths[item[i]]} frames"
            raise ValueError(f"{self.file}: annotations[{i}]: {given}")
        order = np.argsort(item, kind="stable")
        self._labels, self._crowd, self._track_spans = labels[order], crowd[order] > 0, annotations.spans[order]
        self._first = np.searchsorted(item[order], np.arange(len(items) + 1))

    def _refuse_twice(self, name: str, ids: np.ndarray) -> None:
        order = np.argsort(ids, kind="stable")
        for k in np.flatnonzero(np.diff(ids[order]) == 0)[:1]:
            first, second = order[k : k + 2]
            raise ValueError(f"{self.file}: {name}[{second}]: id {ids[second]} is that of {name}[{first}], too")

    def _positions(self, wanted: np.ndarray, ids: np.ndarray, key: str, name: str) -> np.ndarray:
        """Where in `ids` each wanted id stands."""
        for i in np.flatnonzero(~np.isin(wanted, ids))[:1]:
            raise ValueError(f"{self.file}: annotations[{i}]: {key} {wanted[i]} is not among the {name}")
        order = np.argsort(ids)
        return order[np.searchsorted(ids, wanted, sorter=order)]

    # what COCO does in another way

    @staticmethod
    def _item_row(video: dict) -> tuple[int, int]:
        names = video.get("file_names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("'file_names' must be a list of names" if "file_names" in video else "lacks 'file_names'")
        return picture_id(video), len(names)

    @staticmethod
    def _annotation_row(track: dict) -> tuple[int, ...]:
        if "video_id" not in track and "image_id" in track:
            raise ValueError(f"lacks 'video_id'; {looks_like(('images',))}")
        masks = track.get("segmentations")
        if not isinstance(masks, list):
            raise ValueError("lacks 'segmentations'" if masks is None else "'segmentations' must be a list")
        ids = (integer(track, key) for key in ("id", "video_id", "category_id"))
        return *ids, bool(track.get("iscrowd")), len(masks)

    @staticmethod
    def _as_video(item: dict) -> dict:
        return item

    @staticmethod
    def _as_track(entry: dict) -> dict:
        return entry


def encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) bool -> compressed RLE with `counts` as text, as JSON wants it."""
    rle = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(segmentation, height: int, width: int) -> np.ndarray:
    """A compressed or uncompressed RLE, polygons or None -> mask (height, width) bool; ValueError says what is wrong.

    A run-length code that does not cover the frame exactly is refused here, before anything trusts it.
    """
    if segmentation is None or segmentation == []:
        return np.zeros((height, width), dtype=bool)
    if isinstance(segmentation, list):
        return _draw(segmentation, height, width)
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("a mask must be null, polygons, or RLE with 'size' and 'counts'")
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"a mask of {' x '.join(map(str, np.ravel(size)))} in a frame of {height} x {width}")
    counts = _unpack(counts) if isinstance(counts, (str, bytes)) else np.asarray(counts)
    if counts.ndim != 1 or counts.dtype.kind != "i" or counts.min() < 0:
        raise ValueError("not a valid RLE: its counts must be whole numbers >= 0")
    covered = sum(counts.tolist())  # Python's numbers do not overflow
    if covered != height * width:
        raise ValueError(f"not a valid RLE: it covers {covered} pixels of {height * width}")
    return np.repeat(np.arange(len(counts)) % 2 > 0, counts).reshape(width, height).T


def _unpack(text: str | bytes) -> np.ndarray:
    """The counts in compressed RLE: little-endian numbers of five bits a character, from the fourth on differences to
    the count before the last. Bit 32 says "goes on", bit 16 of a number's last character is its sign."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    char = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if not len(char) or char.min() < 0 or char.max() > 63 or char[-1] >= 32:
        raise ValueError("not a valid RLE: its text is empty, breaks off, or holds characters that RLE never uses")
    last = np.flatnonzero(char < 32)
    first = np.append(0, last[:-1] + 1)
    digits = last - first + 1
    if digits.max() > 7:
        raise ValueError("not a valid RLE: one of its counts is too large")
    place = np.arange(len(char)) - np.repeat(first, digits)
    counts = np.add.reduceat((char & 31) << 5 * place, first) - ((char[last] & 16) << 1 << 5 * (digits - 1))
    counts[1::2], counts[2::2] = np.cumsum(counts[1::2]), np.cumsum(counts[2::2])
    return counts


def _draw(polygons: list, height: int, width: int) -> np.ndarray:
    for i, points in enumerate(polygons):
        whole = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
        if not whole or not all(type(number) in (int, float) and abs(number) < FAR for number in points):
            raise ValueError(f"polygon {i} must be a list x1, y1, x2, y2, ... of three points or more, near the frame")
    return rle_codec.decode(rle_codec.merge(rle_codec.frPyObjects(polygons, height, width))).astype(bool)


def _read_tracks(file: JsonFile, spans: np.ndarray, as_track: Callable[[dict], dict]) -> list[dict]:
    return [as_track(entry) for entry in file.read(spans)]


def picture_id(item: dict) -> int:
    """The id of a video or image whose height and width are sane."""
    for key in ("height", "width"):
        if integer(item, key) < 1:
            raise ValueError(f"{key} is {item[key]}")
    return integer(item, "id")


def require_text(entry: dict, key: str) -> str:
    """The text under `key`. ValueError, without a place, where there is none."""
    if not isinstance(entry.get(key), str):
        raise ValueError(f"{key} is {entry[key]!r}, no text" if key in entry else f"lacks {key!r}")
    return entry[key]


def looks_like(keys) -> str:
    """What a file is instead, by the keys at its top."""
    if "videos" in keys:
        return "it looks like a YouTube-VIS file, which minst.data.YouTubeVIS reads"
    if "images" in keys:
        return "it looks like a COCO file, which minst.data.COCO reads"
    return f"at its top stand {', '.join(map(repr, keys)) or 'no keys'}"
