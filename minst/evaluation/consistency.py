"""Does a query stay on its object? The number behind the paper's Fig 2, by kinds of instances.

    query masks (L, N, H, W) bool ┐
                                  ├-> IoU (L, N, G) -> who holds whom, and k frames on: retention[k]
    true masks  (L, G, H, W) bool ┤
                                  └-> occlusion, speed, size of an instance (difficulty.py)

Among the queries whose mask has IoU >= 0.5 with an instance, the one with the best matching score
*holds* it: the score dice^0.8 * p^0.2 of minst/matcher.py, where dice = 2 IoU / (1 + IoU) and p is
the query's probability of the class. So a silent duplicate with a slightly better outline does not
count as the holder. (Two instances never have one holder, for a mask cannot have IoU > 0.5 with
both of two disjoint masks.)

*Retention* at distance k is the share of held pairs, the instance visible at t + k, in which the
same query still has IoU >= 0.5 with it at t + k: the plain IoU, whoever holds it then. Retention
alone can be gamed, by masks that hold anything. So `held_share` (how many instances are held at
all) and `chance` (the retention of a query drawn by lot) belong beside it. `holders` counts the
duplicates: queries with IoU >= 0.5 per held instance.

Symbols: L frames, N queries, G instances of a clip (a row a track; all False where it is not
visible).

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np

from minst.evaluation import difficulty

__all__ = ["ConsistencyMeter", "assign_queries", "frame_share", "mask_ious", "query_consistency"]

HOLD_IOU = 0.5
SURE = 0.3  # a query of this score is one that a tracker might report


def query_consistency(
    query_masks: Iterable,
    gt_masks: Iterable,
    max_distance: int = 10,
    categories: Sequence[str] | None = None,
) -> dict:
    """`ConsistencyMeter` for one clip: see its `add_clip` and its `result`."""
    return ConsistencyMeter(max_distance).add_clip(query_masks, gt_masks, categories).result()


class ConsistencyMeter:
    """Collects held pairs over clips; counts add up, so long clips weigh more than short ones."""

    def __init__(self, max_distance: int = 10):
        if max_distance < 1:
            raise ValueError(f"max_distance must be at least 1, got {max_distance}")
        self.distances = range(1, max_distance + 1)
        self.clips = self.used_in_clips = 0
        self.queries: set[int] = set()
        # instances, held, visible, holders, sure holders, kept[k], of[k], fitting[k], drawn[k]
        self.counts = difficulty.GroupedCounts(5 + 4 * max_distance)

    def add_clip(
        self,
        query_masks: Iterable,
        gt_masks: Iterable,
        categories: Sequence[str] | None = None,
        probabilities: Sequence[np.ndarray] | None = None,
        scores: Sequence[np.ndarray] | None = None,
    ) -> ConsistencyMeter:
        """Two sequences or iterators over the L frames of a clip: bool (N, H, W) and (G, H, W).

        query_masks: the binarised mask of every query; one frame of each is looked at at a time.
        categories: names of the G instances, for the figures per category. How hard an instance is
        the masks tell. probabilities, scores: see `add_ious`.
        """
        ious, measures = [], []
        for t, (queries, truths) in enumerate(zip_longest(query_masks, gt_masks)):
            if queries is None or truths is None:
                short = "query_masks" if queries is None else "gt_masks"
                said = f"{short} ends after {t} frames, the other goes on"
                raise ValueError(f"{said}: give both for every frame")
            queries, truths = np.asarray(queries), np.asarray(truths)
            try:
                ious.append(mask_ious(queries, truths))
            except ValueError as error:
                raise ValueError(f"frame {t}: {error}") from None
            if ious[-1].shape != ious[0].shape:
                now, first = ious[-1].shape, ious[0].shape
                raise ValueError(f"frame {t}: (N, G) is {now}, in frame 0 it was {first}")
            measures.append(difficulty.frame_measures(truths))
        if not ious:
            raise ValueError("a clip needs at least one frame")
        frames = np.stack(measures)  # (L, G, 7), areas first
        levels = difficulty.difficulty_levels(difficulty.clip_measures(frames))
        visible = frames[..., 0] > 0
        return self.add_ious(np.stack(ious), visible, categories, levels, probabilities, scores)

    def add_ious(
        self,
        ious: np.ndarray,
        visible: np.ndarray,
        categories: Sequence[str] | None = None,
        levels: Sequence[dict] | None = None,
        probabilities: Sequence[np.ndarray] | None = None,
        scores: Sequence[np.ndarray] | None = None,
    ) -> ConsistencyMeter:
        """The same from IoU (L, N, G) between queries and instances, and visible (L, G) bool.

        levels: `difficulty_levels` of the G instances, for the figures per difficulty.
        probabilities: (L, N, G), of each instance's class by each query; None = all 1.
        scores: (L, N), of each query, in [0, 1]; those of at least 0.3 are "sure". None = all are.
        """
        L, N, G = ious.shape if ious.ndim == 3 else (0, 0, 0)
        if ious.ndim != 3 or visible.shape != (L, G):
            got = f"{ious.shape} and {visible.shape}"
            raise ValueError(f"ious must be (L, N, G) and visible (L, G), got {got}")
        given = np.ones(ious.shape) if probabilities is None else np.asarray(probabilities)
        sure = np.ones((L, N), bool) if scores is None else np.asarray(scores) >= SURE
        if given.shape != (L, N, G) or sure.shape != (L, N):
            got = f"{given.shape} and {sure.shape}"
            raise ValueError(f"probabilities must be {(L, N, G)} and scores {(L, N)}, got {got}")
        fits = ious >= HOLD_IOU  # (L, N, G)
        holder = np.full((L, G), -1)  # the query that holds an instance, -1 = none
        for t in range(L):
            for query, m in assign_queries(ious[t], given[t]):
                holder[t, m] = query
        held = (holder >= 0) & visible  # (L, G)
        holders = (fits & held[:, None]).sum(axis=(0, 1))  # (G,)
        surely = (fits & sure[:, :, None] & held[:, None]).sum(axis=(0, 1))
        kept, of, fitting = (np.zeros((G, len(self.distances)), int) for _ in range(3))
        for i, k in enumerate(self.distances[: max(L - 1, 0)]):
            there = held[:-k] & visible[k:]  # (L - k, G)
            still = np.take_along_axis(fits[k:], holder[:-k, None], axis=1)[:, 0]
            kept[:, i] = (there & still).sum(axis=0)
            of[:, i] = there.sum(axis=0)
            # of all N queries, so many would do: what a query drawn by lot has as a chance
            fitting[:, i] = (there * fits[k:].sum(axis=1)).sum(axis=0)
        clip_queries = set(holder[held].tolist())
        seen, held = visible.sum(axis=0), held.sum(axis=0)  # (G,)
        counts = np.column_stack([seen > 0, held, seen, holders, surely, kept, of, fitting, N * of])
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
        chance            {k: share}, the retention of a query drawn by lot
        holders           queries of IoU >= 0.5 per held pair, its holder included
        sure_holders      those of them with a score of at least 0.3
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
        instances, held, visible, holders, surely = counts[:5].tolist()
        # by distance
        kept, of, fitting, drawn = (
            dict(zip(self.distances, row)) for row in counts[5:].reshape(4, -1).tolist()
        )
        return {
            "retention": {k: share(kept[k], of[k]) for k in self.distances},
            "chance": {k: share(fitting[k], drawn[k]) for k in self.distances},
            "pairs": {k: {"kept": kept[k], "of": of[k]} for k in self.distances},
            "instances": instances,
            "held": held,
            "visible": visible,
            "held_share": share(held, visible),
            "holders": share(holders, held),
            "sure_holders": share(surely, held),
        }


def frame_share(queries: np.ndarray) -> float:
    """How much of queries (F, N, D) depends on the frame? 0: nothing; 1: the frame alone counts.

    share = mean over queries of (variance over frames) / (variance over frames and queries), with
    variances summed over channels; NaN for F < 2. Where that of Q_G is near 0 the global decoder
    ignores the image, and query passing passes a constant. Frames better come of different clips.
    """
    if len(queries) < 2:
        return float("nan")
    over_frames = queries.var(axis=0).mean(axis=0).sum()  # (N, D) -> (D,) -> a number
    over_all = queries.var(axis=(0, 1)).sum()
    return share(float(over_frames), float(over_all))


def assign_queries(
    mask_ious: np.ndarray, probabilities: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Which query holds which instance of a frame: pairs (query, instance), by instance.

    mask_ious (N, G); probabilities (N, G) of each instance's class by each query, None = all 1. An
    instance that no query segments with IoU >= 0.5 has no holder. ValueError for other shapes and
    for values that are not finite.
    """
    ious = np.asarray(mask_ious)
    if ious.ndim != 2 or not np.isfinite(ious).all():
        raise ValueError(f"mask_ious must be a finite (N, G) array, got shape {ious.shape}")
    p = np.ones(ious.shape) if probabilities is None else np.asarray(probabilities)
    if p.shape != ious.shape or not np.isfinite(p).all():
        raise ValueError(f"probabilities must be finite and {ious.shape}, got shape {p.shape}")
    # score = dice^0.8 p^0.2, below 0 where the mask does not fit
    dice = 2 * ious / (1 + ious)
    scores = np.where(ious >= HOLD_IOU, dice**0.8 * p**0.2, -1.0)  # (N, G)
    if not len(scores):
        return []
    best = scores.argmax(axis=0)  # (G,)
    return [(int(q), m) for m, q in enumerate(best) if ious[q, m] >= HOLD_IOU]


def mask_ious(queries: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """IoU (N, G) of bool masks (N, H, W) and (G, H, W) of one frame; 0 where both are empty."""
    for name, masks in (("query masks", queries), ("true masks", truths)):
        if masks.ndim != 3 or masks.dtype != bool:
            got = f"{masks.dtype} {masks.shape}"
            wanted = f"{name} must be bool (count, H, W), in NumPy"
            raise ValueError(f"{wanted}, got {got}; binarise, or .numpy()")
    if queries.shape[1:] != truths.shape[1:]:
        sizes = f"query masks are {queries.shape[1:]}, true masks {truths.shape[1:]}"
        raise ValueError(f"{sizes}: resize one of them")
    pixels = queries.shape[1] * queries.shape[2]
    number = np.float32 if pixels <= 2**24 else np.float64  # up to there float32 counts exactly
    q, g = queries.reshape(-1, pixels).astype(number), truths.reshape(-1, pixels).astype(number)
    both = q @ g.T  # (N, G): a product of 0s and 1s counts the pixels in both
    either = q.sum(axis=1)[:, None] + g.sum(axis=1)[None] - both
    return np.divide(both, either, out=np.zeros(both.shape), where=either > 0, dtype=np.float64)


def share(part: float, of: float) -> float:
    """part / of; NaN where `of` is 0."""
    return part / of if of else float("nan")
