"""Does a query stay on its object? The number behind the paper's Fig 2, for all instances and for easy and hard ones.

    query masks (T, N, H, W) bool ┐                      ┌ who holds whom: one-to-one, IoU >= 0.5 ┐
                                  ├-> IoU (T, N, M) -----┤                                        ├-> retention[k]
    true masks  (T, M, H, W) bool ┤                      └ the same query's IoU k frames later    ┘
                                  └-> occlusion, speed, size of an instance (difficulty.py)

A query *holds* an instance in frame t when the one-to-one assignment by mask IoU pairs the two with IoU >= 0.5.
*Retention* at distance k is the share of held pairs, the instance visible at t + k, in which the same query still has
IoU >= 0.5 with it at t + k: the plain IoU, not the assignment. (To count who segments an instance best would mislead:
two or three queries often hold it, and take turns at being best.)

Symbols: T frames, N queries, M instances of a clip (a row a track; all False where it is not visible).

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np
from scipy.optimize import linear_sum_assignment

from minst.evaluation.difficulty import GroupedCounts, clip_measures, difficulty_levels, frame_measures

__all__ = ["ConsistencyMeter", "assign_queries", "mask_ious", "query_consistency"]

HOLD_IOU = 0.5


def query_consistency(
    query_masks: Iterable, gt_masks: Iterable, max_distance: int = 10, categories: Sequence[str] | None = None
) -> dict:
    """`ConsistencyMeter` for one clip: its `add_clip` says what goes in, its `result` what comes out."""
    return ConsistencyMeter(max_distance).add_clip(query_masks, gt_masks, categories).result()


class ConsistencyMeter:
    """Collects held pairs over the clips of a split; counts add up, so long clips weigh more than short ones."""

    def __init__(self, max_distance: int = 10):
        if max_distance < 1:
            raise ValueError(f"max_distance must be at least 1, got {max_distance}")
        self.distances = range(1, max_distance + 1)
        self.clips = self.used_in_clips = 0
        self.queries: set[int] = set()
        self.counts = GroupedCounts(3 + 2 * max_distance)  # instances, held, visible, kept[k], of[k]

    def add_clip(
        self, query_masks: Iterable, gt_masks: Iterable, categories: Sequence[str] | None = None
    ) -> ConsistencyMeter:
        """Two sequences or iterators over the T frames of a clip: bool (N, H, W) and bool (M, H, W), N and M constant.

        query_masks holds the binarised mask of every query; only one frame of each is looked at at a time.
        categories: names of the M instances, for the figures per category. The masks tell how hard an instance is.
        """
        ious, measures = [], []
        for t, (queries, truths) in enumerate(zip_longest(query_masks, gt_masks)):
            if queries is None or truths is None:
                short = "query_masks" if queries is None else "gt_masks"
                raise ValueError(f"{short} ends after {t} frames, the other goes on: give both for every frame")
            queries, truths = np.asarray(queries), np.asarray(truths)
            try:
                ious.append(mask_ious(queries, truths))
            except ValueError as error:
                raise ValueError(f"frame {t}: {error}") from None
            if ious[-1].shape != ious[0].shape:
                raise ValueError(f"frame {t}: (N, M) is {ious[-1].shape}, in frame 0 it was {ious[0].shape}")
            measures.append(frame_measures(truths))
        if not ious:
            raise ValueError("a clip needs at least one frame")
        frames = np.stack(measures)  # (T, M, 7), areas first
        levels = difficulty_levels(clip_measures(frames))
        return self.add_ious(np.stack(ious), frames[..., 0] > 0, categories, levels)

    def add_ious(
        self,
        ious: np.ndarray,
        visible: np.ndarray,
        categories: Sequence[str] | None = None,
        levels: Sequence[dict] | None = None,
    ) -> ConsistencyMeter:
        """The same from IoU (T, N, M) between queries and instances, and visible (T, M) bool.

        levels: `difficulty_levels` of the M instances, for the figures per difficulty.
        """
        if ious.ndim != 3 or visible.shape != (ious.shape[0], ious.shape[2]):
            raise ValueError(f"ious must be (T, N, M) and visible (T, M), got {ious.shape} and {visible.shape}")
        instances, count = ious.shape[2], len(self.distances)
        held, kept, of = np.zeros(instances, int), np.zeros((instances, count), int), np.zeros((instances, count), int)
        clip_queries: set[int] = set()
        for t, frame in enumerate(ious):
            pairs = [(q, m) for q, m in assign_queries(frame) if visible[t, m]]
            clip_queries.update(q for q, _ in pairs)
            for q, m in pairs:
                held[m] += 1
                later = slice(t + 1, t + 1 + count)
                there = visible[later, m]  # fewer than `count` at the end of the clip
                of[m, : len(there)] += there
                kept[m, : len(there)] += there & (ious[later, q, m] >= HOLD_IOU)
        seen = visible.sum(axis=0)
        counts = np.column_stack([seen > 0, held, seen, kept, of])
        self.counts.add(counts, categories, levels)
        self.clips += 1
        self.used_in_clips += len(clip_queries)
        self.queries |= clip_queries
        return self

    def result(self) -> dict:
        """The figures of all clips so far; NaN where nothing was there to count.

        retention         {k: share}, k = 1 ... max_distance
        pairs             {k: {"kept", "of"}}, its counts, which may be summed over meters
        instances         how many were visible at all
        held, visible     pairs of query and instance, and instances to hold, summed over frames
        held_share        held / visible
        per_category      {name: the above}; empty where no categories were given
        per_difficulty    {"occlusion" | "speed" | "size": {"low" | "medium" | "high": the above}}
        queries_used      how many different queries (by their index) ever hold an instance
        queries_per_clip  how many do in a clip, on average over `clips`
        """
        return {
            **self.counts.result(self._figures),
            "queries_used": len(self.queries),
            "queries_per_clip": share(self.used_in_clips, self.clips),
            "clips": self.clips,
        }

    def _figures(self, counts: np.ndarray) -> dict:
        instances, held, visible, *pairs = counts.tolist()
        kept, of = pairs[: len(self.distances)], pairs[len(self.distances) :]
        return {
            "retention": {k: share(a, b) for k, a, b in zip(self.distances, kept, of, strict=True)},
            "pairs": {k: {"kept": a, "of": b} for k, a, b in zip(self.distances, kept, of, strict=True)},
            "instances": instances,
            "held": held,
            "visible": visible,
            "held_share": share(held, visible),
        }


def assign_queries(mask_ious: np.ndarray) -> list[tuple[int, int]]:
    """IoU (N, M) -> pairs (query, instance): the one-to-one assignment of largest total IoU, less pairs below 0.5."""
    ious = np.asarray(mask_ious)
    if ious.ndim != 2 or not np.isfinite(ious).all():
        raise ValueError(f"mask_ious must be a finite (N, M) array, got shape {ious.shape}")
    rows, columns = linear_sum_assignment(ious, maximize=True)
    return [(int(q), int(m)) for q, m in zip(rows, columns, strict=True) if ious[q, m] >= HOLD_IOU]


def mask_ious(queries: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """IoU (N, M) of bool masks (N, H, W) and (M, H, W) of one frame; 0 where both are empty."""
    for name, masks in (("query masks", queries), ("true masks", truths)):
        if masks.ndim != 3 or masks.dtype != bool:
            got = f"{masks.dtype} {masks.shape}"
            raise ValueError(f"{name} must be bool (count, H, W), in NumPy, got {got}; binarise, or .numpy()")
    if queries.shape[1:] != truths.shape[1:]:
        raise ValueError(f"query masks are {queries.shape[1:]}, true masks {truths.shape[1:]}: resize one of them")
    pixels = queries.shape[1] * queries.shape[2]
    number = np.float32 if pixels <= 2**24 else np.float64  # up to there float32 counts exactly
    q, g = queries.reshape(-1, pixels).astype(number), truths.reshape(-1, pixels).astype(number)
    both = q @ g.T  # (N, M): a product of 0s and 1s counts the pixels in both
    either = q.sum(axis=1)[:, None] + g.sum(axis=1)[None] - both
    return np.divide(both, either, out=np.zeros(both.shape), where=either > 0, dtype=np.float64)


def share(part: float, of: float) -> float:
    """part / of; NaN where `of` is 0."""
    return part / of if of else float("nan")
