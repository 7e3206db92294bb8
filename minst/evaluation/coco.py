"""COCO figures of single frames, and what every evaluation here shares: reading files, checking entries, masks as runs.

    ground truth  {"images", "categories", "annotations"}  ┐   check    ┌ pycocotools' COCOeval ┐   figures
    results       [{image_id, category_id, score, ...}]    ┘ ---------> └                       ┘ ---------> 12 numbers

A mask travels as a run-length code (RLE): the pixels read column by column, as counts of background, foreground,
background, ... pixels in turn. "Compressed" packs the counts into text, five bits a character, and from the fourth on
stores the difference to the count before the last. `run_lengths` unpacks a thousand such texts with a few numpy calls.
It also checks that every code covers its picture exactly: pycocotools does not, and may loop for ever if one does not.

Wrong input stops with a ValueError that names the entry ("results[17]: ..."). What is given is not changed; nothing is
printed.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from minst.data.files import read_json

__all__ = ["FIGURES", "evaluate_coco", "run_lengths"]

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def evaluate_coco(gt: str | os.PathLike | dict, results: str | os.PathLike | list, iou_type: str = "segm") -> dict:
    """The 12 COCO figures of detections in single images, as pycocotools computes them (-1: nothing to measure).

    gt: COCO annotations, a path or a dict. results: a path or a list of {image_id, category_id, score, and
    segmentation (RLE) or bbox [x, y, width, height]}. iou_type: "segm" or "bbox".

    Small, medium and large are told by the area of what is compared: masks for "segm", even where boxes stand beside.
    """
    if iou_type not in ("segm", "bbox"):
        raise ValueError(f'iou_type must be "segm" or "bbox", got {iou_type!r}')
    gt, results = read_ground_truth(gt, "images"), read_results(results)
    images = by_id(gt["images"], "images")
    categories = by_id(gt["categories"], "categories")
    annotations = [_coco_entry(a, i, images, iou_type, labelled=True) for i, a in enumerate(gt["annotations"])]
    check_annotation_ids(annotations, categories)
    detections = [_coco_entry(r, i, images, iou_type, labelled=False) for i, r in enumerate(results)]
    warn_of_unknown_categories(detections, categories)

    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (annotations, detections):
            if iou_type == "segm":
                _measure_masks(entries)
            side = COCO()
            side.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": entries}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    return figures(evaluation.eval["precision"], evaluation.eval["recall"])


def figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """The 12 figures from COCOeval's arrays: precision (T, R, K, A, M) and recall (T, K, A, M).

    T thresholds 0.5 ... 0.95, R recall points, K categories, A areas (all, small, medium, large), M 1 / 10 / 100
    detections. -1 marks what has no ground truth: it stays out of every mean, and is the figure if nothing is left.
    """
    parts = [precision[..., 0, 2], precision[0, ..., 0, 2], precision[5, ..., 0, 2]]
    parts += [precision[..., area, 2] for area in (1, 2, 3)]
    parts += [recall[..., 0, m] for m in (0, 1, 2)] + [recall[..., area, 2] for area in (1, 2, 3)]
    return {name: mean_of_known(part) for name, part in zip(FIGURES, parts, strict=True)}


def mean_of_known(values: np.ndarray) -> float:
    """The mean of the values that are not -1 ("nothing to count"); -1 where all are."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


# ---------------------------------------------------------------------------------------------- masks as runs


def run_lengths(
    texts: Sequence[str], pixels: int | np.ndarray, where: Callable[[int], str] = "mask {}".format
) -> tuple[np.ndarray, np.ndarray]:
    """Unpack compressed RLE texts: one row a run, and the first row of each mask.

    texts: n counts. pixels: height * width, one number or (n,). where(i) names mask i in errors.
    Returns rows (R, 2) int64, (background before the run, its length), every mask summing to its `pixels` (the last run
    may be empty), and first (n,): mask i is rows[first[i] : first[i + 1]], never without a row.
    """
    if not texts:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)

    def refuse(bad: np.ndarray, what: str) -> None:
        raise ValueError(f"{where(int(bad[0]))}: not a valid RLE: {what}")

    if not all(texts):
        refuse([texts.index("")], "its counts are empty")
    last = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))) - 1  # (n,) where each text ends
    char = np.frombuffer("".join(texts).encode(), dtype=np.uint8) - np.uint8(48)  # below "0" it wraps round
    if char.max() > 63:
        refuse(np.searchsorted(last, np.flatnonzero(char > 63)), "its counts hold a character that RLE never uses")
    if char[last].max() >= 32:
        refuse(np.flatnonzero(char[last] >= 32), "its counts break off within a number")

    # an odd number of counts ends in background: add an empty run, so that all masks are rows of two
    more_to_come = np.searchsorted(np.flatnonzero(char >= 32), last)
    odd = np.flatnonzero(np.diff(last - more_to_come, prepend=-1) % 2)
    char = np.insert(char, last[odd] + 1, 0)
    last += np.searchsorted(odd, np.arange(len(last)), side="right")

    # a number is little-endian, five bits a character; bit 32 says "goes on", bit 16 of the last character is the sign
    end = np.flatnonzero(char < 32)  # (S,) last character of each number
    number = (((char & 31) ^ 16).view(np.int8) - np.int8(16)).take(end).astype(np.int64)
    going_on = np.flatnonzero(char >= 32)
    opens = np.flatnonzero(np.diff(going_on, prepend=-2) > 1)  # those that begin a number of several characters
    long = going_on[opens] - opens  # and the numbers they begin: characters before, less those that end no number
    digits = np.diff(opens, append=len(going_on)) + 1
    if digits.max(initial=1) > 6:
        refuse(np.searchsorted(last, end[long[digits > 6]]), "one of its counts is too large")
    for place in range(1, digits.max(initial=1)):
        more = long[digits > place]
        number[more] = (number[more] << 5) | (char[end[more] - place] & 31)

    # in both columns a row stores the difference to the row above; only the very first background stands for itself
    rows = number.reshape(-1, 2)
    first = np.concatenate([[0], np.searchsorted(end, last[:-1], side="right") // 2])
    opening = rows[first, 0]
    rows[first, 0] = 0
    for column in (0, 1):
        steps = rows[:, column].copy()
        steps[first[1:]] -= np.add.reduceat(steps, first)[:-1]  # the running sum starts anew with every mask
        rows[:, column] = np.cumsum(steps)
    rows[first, 0] = opening
    rows[np.append(first[1:], len(rows))[odd] - 1, 1] = 0
    if rows.min() < 0:
        refuse(np.searchsorted(first, np.flatnonzero(rows.min(axis=1) < 0), side="right") - 1, "a count is negative")
    covered = np.add.reduceat(number, 2 * first)
    if (covered != pixels).any():
        bad = np.flatnonzero(covered != pixels)
        size = np.broadcast_to(pixels, covered.shape)[bad[0]]
        refuse(bad, f"it covers {covered[bad[0]]} pixels, the picture has {size}")
    return rows, first


def compress(segmentation, height: int, width: int, where: str, polygons: bool = False) -> str | None:
    """The compressed RLE text of one mask given as RLE, compressed or not, or (ground truth) as polygons."""
    if isinstance(segmentation, Mapping):
        counts, pixels = segmentation.get("counts"), height * width
        if list(segmentation.get("size") or ()) != [height, width]:
            raise ValueError(
                f"{where}: the mask's size is {segmentation.get('size')}, the picture's is [{height}, {width}]"
            )
        if isinstance(counts, (str, bytes)):
            return counts if isinstance(counts, str) else counts.decode("latin-1")
        if not isinstance(counts, Sequence) or not all(is_integer(c) and c >= 0 for c in counts):
            raise ValueError(f"{where}: the mask's counts must be a text or a list of integers >= 0")
        if sum(counts) != pixels:
            raise ValueError(f"{where}: not a valid RLE: it covers {sum(counts)} pixels, the picture has {pixels}")
        rle = mask_utils.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
        return rle["counts"].decode()
    if not polygons:
        raise ValueError(f"{where}: a mask must be RLE {{size, counts}}, got {type(segmentation).__name__}")
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, (str, bytes)):
        raise ValueError(f"{where}: a mask must be RLE or a list of polygons, got {type(segmentation).__name__}")
    for part, points in enumerate(segmentation):
        if not isinstance(points, Sequence) or len(points) < 6 or len(points) % 2 or not all(map(is_finite, points)):
            raise ValueError(f"{where}: polygon {part} must be a list x1, y1, x2, y2, ... of at least three points")
    if not segmentation:
        return None
    return mask_utils.merge(mask_utils.frPyObjects(list(map(list, segmentation)), height, width))["counts"].decode()


# ---------------------------------------------------------------------------------------------- reading and checking


def loaded(source):
    """The content of a JSON file if `source` is a path, else `source` itself."""
    return read_json(source) if isinstance(source, (str, os.PathLike)) else source


def read_ground_truth(source, pictures: str) -> dict:
    """The ground truth's object, from a path or as it is. ValueError where it is none, or holds no labels."""
    gt = loaded(source)
    if not isinstance(gt, Mapping):
        raise ValueError(f"ground truth must be an object: '{pictures}', 'categories', 'annotations', got {kind(gt)}")
    if gt.get("annotations") is None and pictures in gt:
        raise ValueError(
            "ground truth has no 'annotations': the labels of the official validation and test sets are withheld; "
            "evaluate on a split whose labels you hold, such as a part of the training set kept aside"
        )
    for key in (pictures, "categories", "annotations"):
        if not isinstance(gt.get(key), list):
            raise ValueError(f"ground truth: '{key}' must be a list, got {kind(gt.get(key))}")
    return gt


def read_results(source) -> list:
    """The list of predictions, from a path or as it is. ValueError where it is no list."""
    results = loaded(source)
    if not isinstance(results, list):
        raise ValueError(f"results must be a list with one object a prediction, got {kind(results)}")
    return results


def by_id(entries: Iterable, what: str) -> dict[int, dict]:
    """{id: entry}; a repeated id is refused."""
    found: dict[int, dict] = {}
    for i, entry in enumerate(entries):
        where = f"ground truth {what}[{i}]"
        number = integer(entry, "id", where)
        if number in found:
            raise ValueError(f"{where}: id {number} stands there twice")
        found[number] = entry
    return found


def check_annotation_ids(annotations: list[dict], categories: Mapping[int, dict]) -> None:
    """ValueError for ids that repeat and categories that are not listed; a warning for the id 0."""
    by_id(annotations, "annotations")
    for i, annotation in enumerate(annotations):
        if annotation["category_id"] not in categories:
            raise ValueError(f"ground truth annotations[{i}]: unknown category_id {annotation['category_id']}")
        if annotation["id"] == 0:
            warnings.warn(
                f"ground truth annotations[{i}] has id 0, which the official protocol takes for 'not matched': "
                "it can never be found. Number annotations from 1.",
                stacklevel=3,
            )


def warn_of_unknown_categories(detections: list[dict], categories: Mapping[int, dict]) -> None:
    """One warning for all predictions whose category the ground truth does not list."""
    unknown = Counter(d["category_id"] for d in detections if d["category_id"] not in categories)
    if unknown:
        warnings.warn(
            f"results: {sum(unknown.values())} predictions of categories that the ground truth does not list are "
            f"left out (category_id {', '.join(map(str, sorted(unknown)))})",
            stacklevel=3,
        )


def value(entry, key: str, where: str):
    """entry[key]. ValueError, naming the place, where it is missing or null, or `entry` no object."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: must be an object, got {kind(entry)}")
    if entry.get(key) is None:
        raise ValueError(f"{where}: '{key}' is {'null' if key in entry else 'missing'}")
    return entry[key]


def integer(entry, key: str, where: str) -> int:
    """entry[key] as int. ValueError, naming the place, where it is no whole number."""
    number = value(entry, key, where)
    if not is_integer(number):
        raise ValueError(f"{where}: '{key}' must be an integer, got {number!r}")
    return int(number)


def finite(entry, key: str, where: str) -> float:
    """entry[key] as float. ValueError, naming the place, where it is no finite number."""
    number = value(entry, key, where)
    if not is_finite(number):
        raise ValueError(f"{where}: '{key}' must be a finite number, got {number!r}")
    return float(number)


def is_integer(number) -> bool:
    """A whole number, and not true or false."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def is_finite(number) -> bool:
    """A finite number, and not true or false."""
    return isinstance(number, Real) and not isinstance(number, (bool, np.bool_)) and math.isfinite(number)


def kind(thing) -> str:
    """What a value of a JSON file is, for a message."""
    return "null" if thing is None else type(thing).__name__


def _coco_entry(entry, index: int, images: Mapping[int, dict], iou_type: str, labelled: bool) -> dict:
    """A checked copy of one annotation (`labelled`) or detection, with what COCOeval reads and nothing else."""
    where = f"ground truth annotations[{index}]" if labelled else f"results[{index}]"
    copy = {key: integer(entry, key, where) for key in ("image_id", "category_id")}
    if copy["image_id"] not in images:
        raise ValueError(f"{where}: unknown image_id {copy['image_id']}")
    if labelled:
        copy["id"], copy["area"] = integer(entry, "id", where), finite(entry, "area", where)
    else:
        copy["id"], copy["score"] = index + 1, finite(entry, "score", where)
    copy["iscrowd"] = int(bool(entry.get("iscrowd", 0))) if labelled else 0
    if iou_type == "bbox":
        box = value(entry, "bbox", where)
        if not isinstance(box, Sequence) or len(box) != 4 or not all(map(is_finite, box)) or min(box[2:]) < 0:
            raise ValueError(f"{where}: 'bbox' must be [x, y, width, height], got {box!r}")
        copy["bbox"] = [float(number) for number in box]
        copy.setdefault("area", copy["bbox"][2] * copy["bbox"][3])
    else:
        image = images[copy["image_id"]]
        size = [integer(image, key, f"image {copy['image_id']}") for key in ("height", "width")]
        text = compress(value(entry, "segmentation", where), *size, where, polygons=labelled)
        if text is None:
            raise ValueError(f"{where}: 'segmentation' has no polygon")
        copy["segmentation"], copy["where"] = {"size": size, "counts": text}, where
    return copy


def _measure_masks(entries: list[dict]) -> None:
    """Check all RLE texts and add the area of detections."""
    masks = [entry["segmentation"] for entry in entries]
    pixels = np.array([math.prod(mask["size"]) for mask in masks], dtype=np.int64)
    rows, first = run_lengths([mask["counts"] for mask in masks], pixels, lambda i: entries[i]["where"])
    areas = np.add.reduceat(rows[:, 1], first) if masks else ()  # pycocotools' own `area` fails on more than 255 masks
    for entry, area in zip(entries, areas, strict=True):
        entry.setdefault("area", float(area))
