"""COCO figures of single frames, and what every evaluation here shares: entries checked, COCOeval.

    ground truth  {"images", "categories", "annotations"}  ┐
                                                           ├-check-> COCOeval -> 12 figures
    results       [{image_id, category_id, score, ...}]    ┘

Wrong input stops with a ValueError that names the place ("results[17].score: Expected `float`, got
`str`"). What is given is not changed; nothing is printed.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
from pycocotools.cocoeval import COCOeval

from minst import rle
from minst.data.files import read_json

__all__ = ["FIGURES", "Evaluation", "evaluate_coco", "figures"]

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

KEYS = {"segm": "segmentation", "bbox": "bbox"}  # what is compared -> where it stands in a file

Count = Annotated[int, msgspec.Meta(ge=1)]
Area = Annotated[float, msgspec.Meta(ge=0, le=1e10)]  # COCOeval's widest range ends at 1e10
Place = Annotated[float, msgspec.Meta(ge=-1e10, le=1e10)]


class Category(msgspec.Struct):
    """A category of the ground truth."""

    id: int
    name: Any = None


class Image(msgspec.Struct):
    """An image of the ground truth. Boxes can be compared without knowing its size."""

    id: int
    height: Count | None = None
    width: Count | None = None


class Annotation(msgspec.Struct):
    """An instance in an image of the ground truth."""

    id: int
    image_id: int
    category_id: int
    area: Area
    segmentation: Any = None  # run-length code or polygons; `rle` checks it
    bbox: tuple[Place, Place, Area, Area] | None = None  # x, y, width, height
    iscrowd: bool | int | None = 0  # a group that need not be found, and may be found many times


class Images(msgspec.Struct):
    """A ground truth file in COCO form, as far as evaluation reads it."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


class Scored(msgspec.Struct):
    """A prediction: how sure it is of which category."""

    category_id: int
    score: float

    def __post_init__(self):
        if not math.isfinite(self.score):
            raise ValueError(f"'score' must be a finite number, got {self.score}")


class Detection(Scored):
    """A predicted instance in an image."""

    image_id: int
    segmentation: Any = None
    bbox: tuple[Place, Place, Area, Area] | None = None


def evaluate_coco(
    gt: str | os.PathLike | dict, results: str | os.PathLike | list, iou_type: str = "segm"
) -> dict:
    """The 12 COCO figures of detections in single images, as pycocotools computes them (-1: nothing
    to measure).

    gt: COCO annotations, a path or a dict. results: a path or a list of {image_id, category_id,
    score, and segmentation (RLE) or bbox [x, y, width, height]}. iou_type: "segm" or "bbox".

    Small, medium and large are told by the area of what is compared: masks for "segm", even where
    boxes stand beside.
    """
    if iou_type not in KEYS:
        raise ValueError(f'iou_type must be "segm" or "bbox", got {iou_type!r}')
    truth = read_ground_truth(gt, Images)
    detections = read_results(results, Detection)
    images = {image.id: image for image in truth.images}
    annotations = _entries(truth.annotations, "ground truth annotations", images, iou_type)
    detections = _entries(detections, "results", images, iou_type)
    evaluation = Evaluation(list(images), truth.categories, annotations, detections, iou_type).run()
    return figures(evaluation.precision, evaluation.recall)


class Evaluation(COCOeval):
    """pycocotools' COCOeval on entries that are checked already; pictures are images, or videos.

    truths, detections: dicts with what COCOeval reads: id, image_id, category_id, area, iscrowd or
    score, and "segmentation" or "bbox". After `run`: `precision`, `recall`, `ious`, `evalImgs`.
    """

    def __init__(
        self,
        pictures: list[int],
        categories: list[Category],
        truths: list[dict],
        detections: list[dict],
        iou_type: str = "segm",
    ):
        super().__init__(iouType=iou_type)
        self.categories = {c.id: c for c in categories}
        self.truths, self.predictions = truths, detections
        self.params.imgIds, self.params.catIds = sorted(pictures), sorted(self.categories)
        for track in truths:
            if track["category_id"] not in self.categories:
                raise ValueError(f"{track['where']}: unknown category_id {track['category_id']}")
            if track["id"] == 0:
                warnings.warn(
                    f"{track['where']} has id 0, which the official protocol takes for 'not "
                    "matched': it can never be found. Number annotations from 1.",
                    stacklevel=4,
                )
        unknown = Counter(
            d["category_id"] for d in detections if d["category_id"] not in self.categories
        )
        if unknown:
            warnings.warn(
                f"results: {sum(unknown.values())} predictions of categories that the ground truth "
                f"does not list are left out (category_id {', '.join(map(str, sorted(unknown)))})",
                stacklevel=4,
            )

    def run(self):
        """Evaluate and accumulate, silently; returns itself."""
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self.evaluate()
            self.accumulate()
        return self

    @property
    def precision(self) -> np.ndarray:
        """(IoU, recall, category, area, detections) of pycocotools, -1 where nothing is known;
        after `run`."""
        return self.eval["precision"]

    @property
    def recall(self) -> np.ndarray:
        """(IoU, category, area, detections) of pycocotools, -1 where nothing is known; after
        `run`."""
        return self.eval["recall"]

    def _prepare(self) -> None:
        """A step of `evaluate`: entries by picture and category, best score first."""
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for g in self.truths:
            self._gts[g["image_id"], g["category_id"]].append(g | {"ignore": g["iscrowd"]})
        for d in sorted(self.predictions, key=lambda d: -d["score"]):  # stable
            self._dts[d["image_id"], d["category_id"]].append(d)


def figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """The 12 figures from COCOeval's arrays: precision (T, R, K, A, M) and recall (T, K, A, M).

    T thresholds 0.5 ... 0.95, R recall points, K categories, A areas (all, small, medium, large), M
    1 / 10 / 100 detections. -1 marks what has no ground truth: it stays out of every mean, and is
    the figure if nothing is left.
    """
    parts = [precision[..., 0, 2], precision[0, ..., 0, 2], precision[5, ..., 0, 2]]
    parts += [precision[..., area, 2] for area in (1, 2, 3)]
    parts += [recall[..., 0, m] for m in (0, 1, 2)] + [recall[..., area, 2] for area in (1, 2, 3)]
    return {name: mean_of_known(part) for name, part in zip(FIGURES, parts, strict=True)}


def mean_of_known(values: np.ndarray) -> float:
    """The mean of the values that are not -1 ("nothing to count"); -1 where all are."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


# ----------------------------------------------------------------------------- reading, checking


def read_ground_truth(source, kind: type):
    """A ground truth file, from a path or as it is, as `kind`: a struct of lists whose entries have
    ids.

    ValueError names the place where it is none, where an id repeats, or says that it holds no
    labels.
    """
    gt = read_json(source) if isinstance(source, (str, os.PathLike)) else source
    if (
        isinstance(gt, Mapping)
        and gt.keys() & {"videos", "images"}
        and gt.get("annotations") is None
    ):
        raise ValueError(
            "ground truth has no 'annotations': the labels of the official validation and test "
            "sets are withheld; evaluate on a split whose labels you hold, such as a part of the "
            "training set kept aside"
        )
    truth = typed(gt, kind, "ground truth ")
    for name in kind.__struct_fields__:
        count = Counter()
        for i, entry in enumerate(getattr(truth, name)):
            count[entry.id] += 1
            if count[entry.id] > 1:
                raise ValueError(f"ground truth {name}[{i}]: id {entry.id} stands there twice")
    return truth


def read_results(source, kind: type) -> list:
    """The list of predictions, from a path or as it is, each as `kind`. ValueError names the
    place."""
    return typed(
        read_json(source) if isinstance(source, (str, os.PathLike)) else source,
        list[kind],
        "results",
    )


def typed(values, kind: type, name: str):
    """Values of a JSON file as msgspec types; NumPy's numbers and arrays count as Python's.

    ValueError names the place by its path in the file, which begins with `name`.
    """
    try:
        plain = msgspec.to_builtins(
            values, builtin_types=(bytes,), enc_hook=lambda value: value.tolist()
        )
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise ValueError(f"{(name + path.lstrip('.')).rstrip('` ')}: {what}") from None


def check_masks(masks: list[list], pictures: list, polygons: bool, place: Callable) -> list[tuple]:
    """The masks of n entries, checked: of each entry (codes, areas), as `rle.check` returns them.

    masks: of each entry a list, one a frame. pictures: of each entry its image or video. polygons:
    whether a mask may be one. place(i, t) names the mask of entry i in frame t in a ValueError.
    """
    of_picture: dict[int, list[int]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        of_picture[picture.id].append(i)
    found: dict[int, tuple] = {}
    for entries in of_picture.values():  # one entry at a time would take three times as long
        height, width = pictures[entries[0]].height, pictures[entries[0]].width
        places = [(i, t) for i in entries for t in range(len(masks[i]))]
        try:
            codes, areas = rle.check([masks[i][t] for i, t in places], height, width, polygons)
        except rle.MaskError as error:
            raise ValueError(f"{place(*places[error.mask])}: {error}") from None
        end = 0
        for i in entries:
            start, end = end, end + len(masks[i])
            found[i] = codes[start:end], areas[start:end]
    return [found[i] for i in range(len(masks))]


def _entries(entries: list, name: str, images: dict[int, Image], iou_type: str) -> list[dict]:
    """Annotations or detections as COCOeval reads them, checked; name: of their list in the
    file."""
    found = []
    for i, entry in enumerate(entries):
        where = f"{name}[{i}]"
        image = images.get(entry.image_id)
        if image is None:
            raise ValueError(f"{where}: unknown image_id {entry.image_id}")
        if getattr(entry, KEYS[iou_type]) is None:
            raise ValueError(f"{where}: '{KEYS[iou_type]}' is missing")
        if iou_type == "segm" and None in (image.height, image.width):
            raise ValueError(f"{where}: its image, {image.id}, lacks 'height' or 'width'")
        read = {"where": where, "image_id": image.id, "category_id": entry.category_id}
        if isinstance(entry, Annotation):
            read |= {"id": entry.id, "area": entry.area, "iscrowd": int(bool(entry.iscrowd))}
        else:
            read |= {"id": i + 1, "score": entry.score}
        found.append(read)

    if iou_type == "bbox":
        for read, entry in zip(found, entries, strict=True):
            read["bbox"] = list(entry.bbox)
            read.setdefault("area", entry.bbox[2] * entry.bbox[3])
        return found
    checked = check_masks(
        [[entry.segmentation] for entry in entries],
        [images[entry.image_id] for entry in entries],
        polygons=bool(entries) and isinstance(entries[0], Annotation),
        place=lambda i, _: f"{name}[{i}].segmentation",
    )
    for read, ([code], [area]) in zip(found, checked, strict=True):
        if code is None:
            raise ValueError(f"{read['where']}: 'segmentation' has no polygon")
        read["segmentation"] = code
        read.setdefault("area", float(area))
    return found
