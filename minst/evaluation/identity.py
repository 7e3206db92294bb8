"""Does an identity stay on its instance? Swaps and fragmentations of a result, HOTA, IDF1 and MOTA.

    VideoResult, N tracks    ┐                    ┌ IoU >= 0.5 -> who covers whom -> events
                             ├-> IoU (L, N, G) ---┤
    true masks (L, G, H, W)  ┘                    └ trackeval -> HOTA = sqrt(DetA AssA), IDF1, ...
    files of results and ground truth, by category -> trackeval -> HOTA, IDF1, MOTA, ...

A track *covers* an instance when the frame's one-to-one assignment pairs the two with IoU >= 0.5.
Classes do not matter (AP judges them). As in CLEAR MOT, pairs of the frame before stay together as
long as they reach 0.5, and only what is left is assigned by total IoU: two tracks on one instance
that take turns at being best swap nothing.

    found  covered for the first time
    lost   visible and not covered, but covered in the last frame in which it was visible
    again  covered after frames in which it was visible and not covered: a *fragmentation*
    back   covered by the same id as before it was out of sight: as it should be
    swap   covered by another id than before: an *identity switch*; may come with "again"

Symbols: L frames, N tracks, G instances of a clip. Ids count from 1 (0 = none), instances from 0
(-1 = none).

Assumption: an instance out of sight cannot be lost: a gap is a fragmentation only if the instance
    is visible in it. (CLEAR MOT counts every gap: its Frag and IDSW are not our fragmentations and
    swaps.)
Assumption: on a results file what covers a crowd and no instance is neither right nor wrong, as in
    the AP.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from minst import rle
from minst.evaluation.consistency import HOLD_IOU, share
from minst.evaluation.difficulty import (
    GroupedCounts,
    clip_measures,
    difficulty_levels,
    frame_measures,
)
from minst.evaluation.ytvis import YTVISEval, track_ious
from minst.options import Share, check_call

if TYPE_CHECKING:  # tracking needs torch, comparing masks does not
    from minst.results import VideoResult

__all__ = ["EVENT_KINDS", "IdentityEvent", "IdentityEvents", "IdentityMeter", "category_names",
           "identity_events", "tracking_figures"]  # fmt: skip

EVENT_KINDS = ("found", "lost", "again", "back", "swap")
# means over 19 thresholds of IoU
HOTA_FIGURES = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA")
ID_FIGURES = ("IDF1", "IDP", "IDR")
# at IoU >= 0.5; the last two are counts: switches, gaps while others are tracked
CLEAR_FIGURES = ("MOTA", "MOTP", "IDSW", "Frag")
INSTALL = (
    'HOTA and IDF1 need trackeval; install it with: python3 -m pip install "mobileinst[track]"'
)


class IdentityEvent(NamedTuple):
    """What happened to an instance in a frame."""

    frame: int
    instance: int  # 0..G-1
    kind: str  # one of EVENT_KINDS
    old_id: int  # that covered the instance last; 0 = none yet
    new_id: int  # that covers it now; 0 = none


class IdentityEvents(NamedTuple):
    """Which track covers which instance in every frame, and what happened to the instances."""

    ids: np.ndarray  # (N,) int, in the order of the result's tracks
    seen: np.ndarray  # (L, N) bool, the track has a mask
    covers: np.ndarray  # (L, N) int, the instance that it covers, -1 = none
    visible: np.ndarray  # (L, G) bool
    held_by: np.ndarray  # (L, G) int, the id that covers the instance, 0 = none
    ious: np.ndarray  # (L, N, G)
    events: list[IdentityEvent]  # in order of frame and instance
    levels: list[dict[str, str | None]]  # how hard each instance is, as `difficulty_levels` says it


def identity_events(result: VideoResult, clip) -> IdentityEvents:
    """Compare the tracks of a clip with its ground truth.

    clip: has len() and masks(t) -> (G, H, W) bool, or render(t).masks. Raises ValueError when
    result and clip differ in their number of frames or, naming the frame, in size.
    """
    frames, tracks = len(clip), result.tracks
    lengths = {result.num_frames, *(len(track.segmentations) for track in tracks)}
    if lengths != {frames} or not frames:
        counts = f"the result has {sorted(lengths)} frames, the clip {frames}"
        raise ValueError(f"{counts}: give the result of this clip")
    seen, ious, measures = [], [], []
    for t in range(frames):
        truths = np.asarray(clip.masks(t) if hasattr(clip, "masks") else clip.render(t).masks)
        try:
            codes, _ = rle.check([track.segmentations[t] for track in tracks], *truths.shape[1:])
        except ValueError as error:
            raise ValueError(f"frame {t}: {error}") from None
        seen.append([code is not None for code in codes])
        ious.append(rle.ious(codes, [rle.encode(mask) for mask in truths]))
        measures.append(frame_measures(truths))
    seen, ious, measures = np.array(seen, dtype=bool), np.stack(ious), np.stack(measures)
    visible = measures[..., 0] > 0  # (L, G) of (L, G, 7): the areas
    covers = _cover(ious)
    ids = np.array([track.id for track in tracks], dtype=int)
    held_by = np.zeros(visible.shape, dtype=int)
    at, track = np.nonzero(covers >= 0)
    held_by[at, covers[at, track]] = ids[track]

    instances = range(visible.shape[1])
    events = [e for m in instances for e in _events_of(m, visible[:, m], held_by[:, m])]
    events.sort(key=lambda e: e.frame)  # stable: by instance within a frame, "again" before "swap"
    levels = difficulty_levels(clip_measures(measures))
    return IdentityEvents(ids, seen, covers, visible, held_by, ious, events, levels)


def _cover(ious: np.ndarray) -> np.ndarray:
    """IoU (L, N, G) -> the instance that each track covers, (L, N), -1 = none."""
    covers = np.full(ious.shape[:2], -1)
    kept = np.zeros(ious.shape[1:], dtype=bool)  # pairs of the frame before
    for t, frame in enumerate(ious):
        # a pair that goes on outweighs all the IoU that there may be
        worth = np.where(frame >= HOLD_IOU, frame + kept * (1 + min(frame.shape)), 0)
        rows, columns = linear_sum_assignment(worth, maximize=True)
        good = worth[rows, columns] > 0
        kept[:] = False
        kept[rows[good], columns[good]] = True
        covers[t, rows[good]] = columns[good]
    return covers


def _events_of(instance: int, visible: np.ndarray, held_by: np.ndarray) -> Iterable[IdentityEvent]:
    """The events of one instance from visible (L,) and the id that covers it (L,)."""
    # the id that covered it last; whether it was not covered, or out of sight, since then
    last, lost, away = 0, False, False
    for t, (there, now) in enumerate(zip(visible.tolist(), held_by.tolist(), strict=True)):
        if not there:
            away = True
            continue
        happened = {
            "found": now and not last,
            "lost": last and not now and not lost,
            "again": now and lost,
            "back": now and now == last and away and not lost,
            "swap": now and last and now != last,
        }
        for kind in EVENT_KINDS:
            if happened[kind]:
                yield IdentityEvent(t, instance, kind, last, now)
        last, lost, away = now or last, bool(last and not now), away and not now


class IdentityMeter:
    """Counts fragmentations and swaps over clips: in all, per category, per difficulty."""

    def __init__(self):
        self.clips: list[dict] = []  # as trackeval reads them
        self.counts = GroupedCounts(5)  # instances, visible, covered, fragmentations, swaps

    def add_clip(self, result: VideoResult, clip) -> IdentityEvents:
        """`identity_events` of one clip, counted and returned."""
        found = identity_events(result, clip)
        visible, covered = found.visible.sum(axis=0), (found.held_by > 0).sum(axis=0)  # (G,)
        errors = np.zeros((len(visible), 2), dtype=int)  # fragmentations, swaps
        for event in found.events:
            errors[event.instance] += event.kind == "again", event.kind == "swap"
        counts = np.column_stack([visible > 0, visible, covered, errors])
        self.counts.add(counts, category_names(clip), found.levels)
        self.clips.append(_trackeval_data(found.visible, found.seen, found.ious))
        return found

    def result(self) -> dict:
        """The figures of all clips so far; NaN where nothing was there to count.

        instances, visible     how many were visible at all, and summed over frames
        covered_share          the share of `visible` that a track covers
        fragmentations, swaps  how often one was lost while visible and covered again; changed id
        per_category, per_difficulty    the above of each group, as in `ConsistencyMeter`
        HOTA_FIGURES, ID_FIGURES  by trackeval: fractions over all clips, as it combines them;
                               without it a "note" how to get them
        """
        try:
            scores = _scores(self.clips)
        except ImportError as error:
            scores = {"note": str(error)}
        return {**self.counts.result(_figures), **scores}


def _figures(counts: np.ndarray) -> dict:
    instances, visible, covered, fragmentations, swaps = counts.tolist()
    sums = {"instances": instances, "visible": visible, "covered_share": share(covered, visible)}
    return {**sums, "fragmentations": fragmentations, "swaps": swaps}


def category_names(clip) -> list[str] | None:
    """The category of every instance, "class 3" where a clip has labels alone, None where not."""
    labels, names = getattr(clip, "labels", None), getattr(clip, "categories", None)
    return None if labels is None else [names[i] if names else f"class {i}" for i in labels]


def tracking_figures(
    gt: str | os.PathLike | dict, results: str | os.PathLike | list, score_threshold: Share = 0.5
) -> dict:
    """HOTA, IDF1 and CLEAR by trackeval of a results file's tracks from `score_threshold` on.

    gt, results: as for `evaluate_ytvis`. A track counts in its own category alone. Returns
    HOTA_FIGURES, ID_FIGURES, CLEAR_FIGURES of all categories together, then "mean": {the fractions
    among them: averaged over the categories that have instances}, "per_category": {name: all},
    "score_threshold". Fractions of 1; NaN where there is neither instance nor track, and for "mean"
    without instances. Without trackeval: ImportError with the command to install it.
    """
    names = (HOTA_FIGURES, ID_FIGURES, CLEAR_FIGURES)
    check_call(tracking_figures, locals())
    checked = YTVISEval(gt, results)
    sure = [track for track in checked.predictions if track["score"] >= score_threshold]

    # (category, video) -> truths, predictions; `YTVISEval` has warned of other categories
    groups: dict[tuple[int, int], tuple] = defaultdict(lambda: ([], []))
    for side, tracks in enumerate((checked.truths, sure)):
        for track in tracks:
            groups[track["category_id"], track["video_id"]][side].append(track)
    clips: dict[int, list[dict]] = {category: [] for category in checked.params.catIds}
    for (category, video), tracks in groups.items():
        if category in clips:
            clips[category].append(_overlaps(*tracks, checked.pictures[video].length))
    scores = [_scores(found, names) for found in clips.values()]
    seen = [any(clip["num_gt_dets"] for clip in found) for found in clips.values()]
    known = list(compress(scores, seen))
    fractions = HOTA_FIGURES + ID_FIGURES + CLEAR_FIGURES[:2]
    nothing = [dict.fromkeys(fractions, float("nan"))]
    return {
        **_scores(list(chain(*clips.values())), names),
        "mean": {f: float(np.mean([of_one[f] for of_one in known or nothing])) for f in fractions},
        "per_category": dict(zip(checked.category_names(), scores, strict=True)),
        "score_threshold": score_threshold,
    }


def _overlaps(truths: list[dict], tracks: list[dict], frames: int) -> dict:
    """One video and category as trackeval reads it; what covers a crowd alone is hidden from it."""
    instances = [truth for truth in truths if not truth["iscrowd"]]
    crowds = [truth for truth in truths if truth["iscrowd"]]
    visible, seen = (
        np.array([entry["pixels"] for entry in side]).reshape(-1, frames).T > 0  # (L, ...)
        for side in (instances, tracks)
    )
    ious = track_ious(tracks, instances, frames)  # (L, N, G)
    on_crowd = (track_ious(tracks, crowds, frames) >= HOLD_IOU).any(axis=2)
    on_instance = (ious >= HOLD_IOU).any(axis=2)
    return _trackeval_data(visible, seen & ~(on_crowd & ~on_instance), ious)


def _scores(
    clips: Sequence[dict], figures: Sequence[tuple[str, ...]] = (HOTA_FIGURES, ID_FIGURES)
) -> dict[str, float]:
    """figures: which of trackeval's HOTA, Identity and CLEAR, in this order."""
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if not any(clip["num_gt_dets"] + clip["num_tracker_dets"] for clip in clips):
        return dict.fromkeys((name for names in figures for name in names), float("nan"))
    scores: dict[str, float] = {}
    quiet = {"PRINT_CONFIG": False}
    for metric, names in zip((HOTA(), Identity(quiet), CLEAR(quiet)), figures):
        parts = {i: metric.eval_sequence(clip) for i, clip in enumerate(clips)}
        found = metric.combine_sequences(parts)
        scores |= {name: float(np.mean(found[name])) for name in names}
    return scores


def _trackeval_data(visible: np.ndarray, seen: np.ndarray, ious: np.ndarray) -> dict:
    """A clip as trackeval reads it: who is in a frame, numbered without gaps, and their IoU.

    visible (L, G) and seen (L, N) bool, ious (L, N, G).
    """
    data: dict = {"num_timesteps": len(visible)}
    for name, there in (("gt", visible), ("tracker", seen)):
        ever = there.any(axis=0)
        number = ever.cumsum() - 1
        data |= {f"num_{name}_ids": int(ever.sum()), f"num_{name}_dets": int(there.sum())}
        data[f"{name}_ids"] = [number[row] for row in there]
    rows = zip(ious, seen, visible, strict=True)
    data["similarity_scores"] = [of[tracks][:, instances].T for of, tracks, instances in rows]
    return data
