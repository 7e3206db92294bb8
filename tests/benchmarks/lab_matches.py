"""Average precision of any sample of the clips, from what is kept of one evaluation.

    YTVISEval --keep--> Matches: for each prediction its clip, category, score and the thresholds at
                        which it is right
    Matches, weights (B, V) --average_precision--> (B,)     B samples of the V clips, each clip so
                                                            many times

AP is no mean over clips: it ranks all predictions together. So whoever leaves clips out, or draws
them again, must rank anew; a weight of 2 counts a clip twice, one of 0 leaves it out, and all
samples are ranked at once. Kept are the ten best predictions of a clip (of a frame, for images), as
the YouTube-VIS servers do; the AP of the table is that of these.

The simulation draws thousands of such samples. The lab itself leaves out twenty groups, for which `Evaluation.precision_of` does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minst.evaluation.ytvis import YTVISEval

__all__ = ["Matches", "average_precision", "keep"]

KEPT = 10
RECALLS = np.linspace(0.0, 1.0, 101)
ROW = np.dtype([("clip", "<u2"), ("category", "u1"), ("score", "<f4"), ("right", "<u2")])


class Matches(NamedTuple):
    """Predictions in no particular order, and how many instances there are to find."""

    rows: np.ndarray  # (n,) of ROW; bit i of `right`: it has found an instance at IoU 0.5 + 0.05 i
    instances: np.ndarray  # (V, C) int: instances of a category in a clip


def keep(evaluation: YTVISEval, clips: Sequence[int]) -> Matches:
    """What a finished evaluation without crowds says of its `KEPT` best predictions a video.

    clips: the clip 0 .. V - 1 of each video, in the order of `evaluation.params.imgIds` (frames of
    one clip may be videos of their own).
    """
    params = evaluation.params
    categories, step = range(len(params.catIds)), len(params.areaRng) * len(params.imgIds)
    rows, instances = [], np.zeros((max(clips) + 1, len(categories)), dtype=np.int64)
    for v, clip in enumerate(clips):
        found = []
        for k in categories:
            entry = evaluation.evalImgs[k * step + v]
            if entry is None:
                continue
            instances[clip, k] += len(entry["gtIds"])
            bits = (entry["dtMatches"] != 0).T @ (1 << np.arange(10))  # (D,)
            scored = zip(entry["dtScores"], bits.tolist(), strict=True)
            found += [(clip, k, score, right) for score, right in scored]
        rows += sorted(found, key=lambda row: -row[2])[:KEPT]
    return Matches(np.array(rows, dtype=ROW), instances)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """AP (B,) in 0..1 of B samples of the clips; weights (B, V): how often each holds a clip.

    weights: None: all clips once. NaN for a sample without an instance.
    """
    count, kinds = matches.instances.shape
    weights = np.ones((1, count)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != count:
        raise ValueError(f"weights must be (B, {count}), one column a clip, got {weights.shape}")
    to_find = weights @ matches.instances  # (B, C)
    total = np.zeros(len(weights))
    for k in range(kinds):
        rows = matches.rows[matches.rows["category"] == k]
        rows = rows[np.argsort(-rows["score"], kind="stable")]
        each = weights[:, rows["clip"]]  # (B, n)
        seen = np.cumsum(each, axis=1)
        for bit in range(10):
            right = (rows["right"] >> bit) & 1 == 1
            # Recall rises at hits alone, and precision is highest there: nothing else need be
            # looked at.
            hits = np.cumsum(each[:, right], axis=1)
            total += _one_precision(hits, seen[:, right], to_find[:, k])
    known = 10 * (to_find > 0).sum(axis=1)
    return np.divide(total, known, out=np.full(len(weights), np.nan), where=known > 0)


def _one_precision(hits: np.ndarray, seen: np.ndarray, to_find: np.ndarray) -> np.ndarray:
    """AP (B,) of one category at one threshold from running sums (B, hits), best score first."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    recall = hits / np.maximum(to_find, 1)[:, None]
    precision = hits / (seen + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or beyond
    reached = np.searchsorted(RECALLS, recall, side="right")  # of the 101 recalls, so far
    new = np.diff(reached, axis=1, prepend=0)
    return np.where(to_find > 0, (best * new).sum(axis=1) / len(RECALLS), 0.0)
