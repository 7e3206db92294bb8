"""COCO figures of single frames, and what every evaluation here shares: entries checked, COCOeval.

    ground truth  {"images", "categories", "annotations"}  ┐
                                                           ├-check-> COCOeval -> 12 figures
    results       [{image_id, category_id, score, ...}]    ┘

Wrong input stops with a ValueError that names the place ("results[17].score: expected `float`, got
`str`"). What is given is not changed; nothing is printed.

Lesson: notebooks/01_task_and_data.ipynb
"""

import contextlib
import io
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from pycocotools.cocoeval import COCOeval

from minst import rle
from minst.data.formats import Id, Picture, read_typed, typed

__all__ = ["FIGURES", "Evaluation", "evaluate_coco", "figures"]

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Area = Annotated[float, msgspec.Meta(ge=0, le=1e10)]  # COCOeval's widest range ends at 1e10


class Category(msgspec.Struct):
    """A category of the ground truth."""

    id: Id
    name: Any = None


class Annotation(msgspec.Struct):
    """An instance in an image of the ground truth."""

    id: Id
    image_id: Id
    category_id: Id
    area: Area
    segmentation: Any = None  # run-length code or polygons; `rle` checks it
    iscrowd: bool | int | None = 0  # a group that need not be found, and may be found many times


class Images(msgspec.Struct):
    """A ground truth file in COCO form, as far as evaluation reads it."""

    images: list[Picture]
    categories: list[Category]
    annotations: list[Annotation]


class Scored(msgspec.Struct):
    """A prediction: how sure it is of which category."""

    category_id: Id
    score: float

    def __post_init__(self):
        if not math.isfinite(self.score):
            raise ValueError(f"'score' must be a finite number, got {self.score}")


class Detection(Scored):
    """A predicted instance in an image."""

    image_id: Id
    segmentation: Any = None


def evaluate_coco(gt: str | os.PathLike | dict, results: str | os.PathLike | list) -> dict:
    """The 12 COCO figures of masks in images, as pycocotools computes them; -1 = unknown.

    gt: COCO annotations, a path or a dict. results: a path or a list of {image_id, category_id,
    score, segmentation (RLE)}. Small, medium and large are told by the area of the mask.
    """
    evaluation = Evaluation(gt, results).run()
    return figures(evaluation.precision, evaluation.recall)


class Evaluation(COCOeval):
    """pycocotools' COCOeval on files, or what stands in them, whose entries are checked first.

    truths, predictions: the entries as dicts, with "where" (the place in the file), of predictions
    "id" (from 1), "area", and "codes" and "pixels": what `rle.check` returns of each mask. After
    `run()`: `precision` (10, 101, K, 4, 3) and `recall` (10, K, 4, 3), -1 where nothing is known,
    `ious` {(picture, category): (D, G)}, D in falling order of score, and `evalImgs`. K: the
    categories in order of id; 4: all, small, medium, large; 3: at most 1, 10, 100 detections.
    """

    truth, prediction = Images, Detection  # what the files hold
    pictures_of, picture_id = "images", "image_id"  # by what names

    def __init__(self, gt: str | os.PathLike | dict, results: str | os.PathLike | list):
        super().__init__(iouType="segm")
        file = read_ground_truth(gt, self.truth)
        predictions = read(results, list[self.prediction], "results")
        self.pictures = {picture.id: picture for picture in getattr(file, self.pictures_of)}
        self.categories = {c.id: c for c in file.categories}
        self.params.imgIds, self.params.catIds = sorted(self.pictures), sorted(self.categories)
        self.truths = self._entries(file.annotations, "ground truth.annotations")
        self.predictions = self._entries(predictions, "results")
        for truth in self.truths:
            if truth["category_id"] not in self.categories:
                raise ValueError(f"{truth['where']}: unknown category_id {truth['category_id']}")
            if truth["id"] == 0:
                what = "has id 0, which the official protocol takes for 'not matched'"
                warnings.warn(f"{truth['where']} {what}; number from 1", stacklevel=4)
        ids = (prediction["category_id"] for prediction in self.predictions)
        unknown = [category for category in ids if category not in self.categories]
        if unknown:
            what = f"{len(unknown)} predictions of categories that the ground truth does not list"
            listed = ", ".join(map(str, sorted(set(unknown))))
            warnings.warn(f"results: {what} are left out (category_id {listed})", stacklevel=4)

    def _entries(self, entries: list[msgspec.Struct], name: str) -> list[dict]:
        """What stands in a list of that name, checked."""
        found, of_picture = [], defaultdict(list)
        for i, entry in enumerate(entries):
            made = {"id": i + 1, "where": f"{name}[{i}]", **msgspec.structs.asdict(entry)}
            picture = made[self.picture_id]
            if picture not in self.pictures:
                raise ValueError(f"{made['where']}: unknown {self.picture_id} {picture}")
            found.append(made)
            of_picture[picture].append(made)
        # the masks of a picture are checked together: one by one would take three times as long
        for number, of_one in of_picture.items():
            picture = self.pictures[number]
            masks = [(entry, *mask) for entry in of_one for mask in self._masks(entry)]
            labels = "score" not in of_one[0]  # they alone may be polygons
            size = picture.height, picture.width
            try:
                codes, areas = rle.check([mask for *_, mask in masks], *size, labels)
            except rle.MaskError as error:
                entry, place, _ = masks[error.mask]
                raise ValueError(f"{entry['where']}.{place}: {error}") from None
            for entry in of_one:
                entry["codes"], entry["pixels"] = [], []
            for (entry, *_), code, pixels in zip(masks, codes, areas, strict=True):
                entry["codes"].append(code)
                entry["pixels"].append(int(pixels))
        for entry in found:
            self._measure(entry)
        return found

    def _masks(self, entry: dict) -> list[tuple[str, Any]]:
        """The masks of an entry, each with its place in it."""
        if entry["segmentation"] is None:
            raise ValueError(f"{entry['where']}: 'segmentation' is missing")
        return [("segmentation", entry["segmentation"])]

    def _measure(self, entry: dict) -> None:
        """Put in what COCOeval compares: mask and area, which of annotations the file says."""
        entry["segmentation"] = entry["codes"][0]
        if entry["segmentation"] is None:
            raise ValueError(f"{entry['where']}: 'segmentation' has no polygon")
        entry.setdefault("area", float(entry["pixels"][0]))

    def run(self):
        """Evaluate and accumulate, silently; returns itself."""
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self.evaluate()
            self.accumulate()
        self.precision, self.recall = self.eval["precision"], self.eval["recall"]
        return self

    def precision_of(self, pictures: Sequence[int]) -> np.ndarray:
        """Precision (10, 101, K, 1, 1) as if these, by their ids, were all; -1 = unknown."""
        areas, order = len(self.params.areaRng), {of: i for i, of in enumerate(self.params.imgIds)}
        some = COCOeval(iouType="segm")
        some.params.imgIds, some.params.catIds = list(pictures), self.params.catIds
        some.params.areaRng = self.params.areaRng[:1]
        some.params.maxDets = self.params.maxDets[-1:]
        some._paramsEval = some.params
        # evalImgs goes through the pictures, then the areas, then the categories
        starts = range(0, len(self.evalImgs), areas * len(order))
        some.evalImgs = [self.evalImgs[start + order[of]] for start in starts for of in pictures]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            some.accumulate()
        return some.eval["precision"]

    def _prepare(self) -> None:
        """A step of `evaluate`: entries by picture and category, best score first."""
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for g in self.truths:
            crowd = int(bool(g["iscrowd"]))
            entry = g | {"iscrowd": crowd, "ignore": crowd}
            self._gts[g[self.picture_id], g["category_id"]].append(entry)
        for d in sorted(self.predictions, key=lambda d: -d["score"]):  # stable
            self._dts[d[self.picture_id], d["category_id"]].append(d)


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


def loaded(source: Any) -> Any:
    """What stands in a JSON file, by its path; or what is given, as it is."""
    return read_typed(source, Any) if isinstance(source, (str, os.PathLike)) else source


def read(source: Any, kind: Any, where: str) -> Any:
    """A JSON file, by its path or as it is, as msgspec types; NumPy's numbers count as Python's.

    ValueError names the place by its path in the file, which begins with `where`.
    """
    try:
        plain = msgspec.to_builtins(
            loaded(source), builtin_types=(bytes,), enc_hook=lambda v: v.tolist()
        )
        return typed(plain, kind, where)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply") from None


def read_ground_truth(source, kind: type):
    """A ground truth file, by its path or as it is, as `kind`: lists of entries that have ids.

    ValueError names what is wrong or stands there twice, or says that the file holds no labels.
    """
    gt = loaded(source)
    is_form = isinstance(gt, Mapping) and gt.keys() & {"videos", "images"}
    if is_form and gt.get("annotations") is None:
        raise ValueError(
            "ground truth has no 'annotations': its labels are withheld, as those of test sets and "
            "of YouTube-VIS's validation sets are; evaluate on a split whose labels you hold, such "
            "as a part of the training set kept aside"
        )
    truth = read(gt, kind, "ground truth")
    for name in kind.__struct_fields__:
        ids = set()
        for i, entry in enumerate(getattr(truth, name)):
            if entry.id in ids:
                raise ValueError(f"ground truth.{name}[{i}]: id {entry.id} stands there twice")
            ids.add(entry.id)
    return truth
