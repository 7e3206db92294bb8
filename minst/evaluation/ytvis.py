"""Video average precision by the YouTube-VIS protocol (ytvoseval): COCO's, with tracks in the place of masks.

A prediction is a whole track, one mask (or none) a frame, with one category and one score. Two tracks overlap by

    IoU(p, g) = sum_t |p_t ∩ g_t| / sum_t |p_t ∪ g_t|       a frame where one is missing adds the other's area below

so an identity that jumps to another object pays in both sums. All else is COCO's: thresholds 0.5 ... 0.95, precision at
101 recalls, at most 1 / 10 / 100 predictions per video and category, crowds ignored (but compared by the plain IoU).
Small, medium and large end at 128^2 and 256^2, by the mean area over the frames in which the track is present.

How it is made fast: lay all frames behind one another, and a track is *one* mask on a line of T * H * W pixels, the
sums above a plain IoU. With F_g(x) = the pixels of g before x, |p ∩ g| = sum over the runs [a, b) of p of
F_g(b) - F_g(a), and F_g is piecewise linear: one `np.interp` for all predictions. All numbers are integers below 2^53,
so it is exact.

    gt, results --check--> tracks --run_lengths--> runs (R, 2) --np.interp--> IoU (D, G) --COCOeval--> precision, recall

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from pycocotools.cocoeval import COCOeval

from minst.evaluation.coco import (
    by_id,
    check_annotation_ids,
    compress,
    figures,
    finite,
    integer,
    is_finite,
    kind,
    mean_of_known,
    read_ground_truth,
    read_results,
    run_lengths,
    value,
    warn_of_unknown_categories,
)

__all__ = ["YTVISEval", "evaluate_ytvis"]

BLOCK = 200_000  # characters of RLE text unpacked at a time: the arrays made of more would leave the processor's cache


def evaluate_ytvis(gt: str | os.PathLike | dict, results: str | os.PathLike | list) -> dict:
    """Video mask AP: the 12 figures of the official evaluator, per category and per video too.

    gt: YouTube-VIS annotations, a path or a dict. results: a path or a list of {video_id, category_id, score,
    segmentations: [RLE or None per frame]}.

    Returns {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl": float,
    "per_category": {name: the same 12}, "per_video": {video id: {"AP", "AP50"}}}, fractions of 1. A video's AP is that
    of an evaluation with this video alone: their mean is not the AP of the whole. -1: no ground truth to measure by.
    """
    evaluation = YTVISEval(gt, results).run()
    precision, recall = evaluation.precision, evaluation.recall
    answer = figures(precision, recall)
    answer["per_category"] = {
        name: figures(precision[:, :, [k]], recall[:, [k]]) for k, name in enumerate(evaluation.category_names())
    }
    answer["per_video"] = {v: evaluation.video_figures(v) for v in sorted(evaluation.videos)}
    return answer


class YTVISEval(COCOeval):
    """pycocotools' COCOeval with videos as its images and tracks as its masks.

    After `run()`: `precision` (10, 101, K, 4, 3), `recall` (10, K, 4, 3), `ious` {(video, category): (D, G)}, D in
    falling order of score. K: the categories in order of id; 4: all, small, medium, large; 3: at most 1, 10, 100.
    """

    def __init__(self, gt: str | os.PathLike | dict, results: str | os.PathLike | list):
        super().__init__(iouType="segm")
        gt, results = read_ground_truth(gt, "videos"), read_results(results)
        self.videos = {i: _Video(v, i) for i, v in by_id(gt["videos"], "videos").items()}
        self.categories = by_id(gt["categories"], "categories")
        self.truths = [_read_truth(a, i, self.videos) for i, a in enumerate(gt["annotations"])]
        check_annotation_ids(self.truths, self.categories)
        self.predictions = [_read_prediction(r, i, self.videos) for i, r in enumerate(results)]
        warn_of_unknown_categories(self.predictions, self.categories)
        self.params.imgIds, self.params.catIds = sorted(self.videos), sorted(self.categories)
        self.params.areaRng = [[0, 1e5**2], [0, 128**2], [128**2, 256**2], [256**2, 1e5**2]]

    def run(self) -> YTVISEval:
        """Evaluate and accumulate, silently; returns itself."""
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self.evaluate()
            self.accumulate()
        return self

    @property
    def precision(self) -> np.ndarray:
        """(IoU, recall, category, area, detections) of pycocotools, -1 where nothing is known; after `run`."""
        return self.eval["precision"]

    @property
    def recall(self) -> np.ndarray:
        """(IoU, category, area, detections) of pycocotools, -1 where nothing is known; after `run`."""
        return self.eval["recall"]

    def category_names(self) -> list[str]:
        """Names in the order of K; two categories of one name, or one without, are told apart by their ids."""
        names = {c: str(self.categories[c].get("name") or f"category {c}") for c in self.params.catIds}
        count = Counter(names.values())
        return [name if count[name] == 1 else f"{name} ({c})" for c, name in names.items()]

    def video_figures(self, video: int) -> dict[str, float]:
        """AP and AP50 as if `video` were the whole data set: `accumulate` in small, without its loops."""
        column, videos, areas = self.params.imgIds.index(video), len(self.params.imgIds), len(self.params.areaRng)
        entries = (self.evalImgs[k * areas * videos + column] for k in range(len(self.params.catIds)))
        entries = [e for e in entries if e is not None and (e["gtIgnore"] == 0).any()]
        precision = np.zeros((len(entries), len(self.params.iouThrs), len(self.params.recThrs)))  # (categories, T, R)
        for k, e in enumerate(entries):
            hit, counts = e["dtMatches"] != 0, ~e["dtIgnore"]  # (T, D), best score first
            hits = np.cumsum(hit & counts, axis=1)
            recalls = hits / np.count_nonzero(e["gtIgnore"] == 0)
            best = hits / (np.cumsum(counts, axis=1) + np.spacing(1))
            best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]  # at this recall or beyond
            for t in np.flatnonzero(hit.any(axis=1)):
                reached = np.searchsorted(recalls[t], self.params.recThrs)
                precision[k, t] = np.append(best[t], 0.0)[reached]
        return {"AP": mean_of_known(precision), "AP50": mean_of_known(precision[:, 0])}

    # --- the steps of COCOeval that differ for tracks; `evaluate` calls them

    def _prepare(self) -> None:
        """Sort tracks by (video, category), measure their areas, compare them: video by video, to bound memory."""
        self._gts, self._dts, self._overlaps = defaultdict(list), defaultdict(list), {}
        self.evalImgs, self.eval, self._matches = defaultdict(list), {}, {}
        per_video: dict[int, list] = {v: [] for v in self.videos}
        for track in self.truths + self.predictions:
            per_video[track["video_id"]].append(track)
        for v, tracks in per_video.items():
            line = {id(track): runs for track, runs in zip(tracks, _lay_out(tracks, self.videos[v]), strict=True)}
            for track in tracks:
                (self._dts if "score" in track else self._gts)[v, track["category_id"]].append(track)
            for c in {track["category_id"] for track in tracks}:
                dts = sorted(self._dts[v, c], key=lambda d: -d["score"])[: self.params.maxDets[-1]]  # stable
                self._dts[v, c] = dts
                self._overlaps[v, c] = _track_ious([line[id(d)] for d in dts], [line[id(g)] for g in self._gts[v, c]])

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray:  # noqa: N802, N803 (COCOeval's names)
        """IoU (D, G) of the predictions, best score first, with the ground truth of one video and category."""
        return self._overlaps.get((imgId, catId), np.zeros((0, 0)))

    def evaluateImg(self, imgId: int, catId: int, aRng: list, maxDet: int) -> dict | None:  # noqa: N802, N803
        """Matches of one video, category and area range, with what `accumulate` reads."""
        gts, dts = self._gts[imgId, catId], self._dts[imgId, catId]
        if not gts and not dts:
            return None
        ignored = tuple(bool(g["ignore"] or not aRng[0] <= g["area"] <= aRng[1]) for g in gts)
        if (imgId, catId, ignored) not in self._matches:  # area ranges often ignore the same ones
            self._matches[imgId, catId, ignored] = self._match(imgId, catId, ignored)
        found, ignore = self._matches[imgId, catId, ignored]
        outside = np.array([not aRng[0] <= d["area"] <= aRng[1] for d in dts], dtype=bool)
        return {
            "dtIds": [d["id"] for d in dts],
            "gtIds": [g["id"] for g in gts],
            "dtScores": [d["score"] for d in dts],
            "dtMatches": found,
            "dtIgnore": ignore | ((found == 0) & outside),
            "gtIgnore": np.array(ignored, dtype=int),
        }

    def _match(self, video: int, category: int, ignored: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Which prediction finds which ground truth, per threshold: COCOeval's greedy rule without its long way round.

        Best score first, each takes the free track it overlaps most (of equals the last), and one that is ignored (a
        crowd, or outside the area range) only if no other is left. A crowd stays free.
        Returns the ids found (T, D), 0 for none, and whether they are ignored (T, D).
        """
        gts, ious = self._gts[video, category], self._overlaps[video, category]
        groups = [[g for g, out in enumerate(ignored) if out == group] for group in (False, True)]
        thresholds = [min(t, 1 - 1e-10) for t in self.params.iouThrs.tolist()]
        found, ignore = np.zeros((len(thresholds), len(ious))), np.zeros((len(thresholds), len(ious)), dtype=bool)
        taken: list[set] = [set() for _ in thresholds]
        for d, row in enumerate(ious.tolist() if gts else ()):
            top = max(row)
            for t, threshold in enumerate(thresholds):
                if top < threshold:
                    break  # thresholds rise: most predictions end here at once
                for group in groups:
                    free = [g for g in group if row[g] >= threshold and (gts[g]["iscrowd"] or g not in taken[t])]
                    if free:
                        best = max(free, key=lambda g: (row[g], g))  # noqa: B023
                        taken[t].add(best)
                        found[t, d], ignore[t, d] = gts[best]["id"], ignored[best]
                        break
        return found, ignore


def _track_ious(dts: list[tuple], gts: list[tuple]) -> np.ndarray:
    """IoU (D, G) of tracks of one video, each as `_lay_out` gives it."""
    ious = np.zeros((len(dts), len(gts)))
    if not ious.size:
        return ious
    bounds = np.cumsum([0] + [len(runs) for runs, _, _ in dts])
    ours = np.empty((bounds[-1], 2))  # (runs of all predictions, 2)
    for (runs, begin, _), (a, b) in zip(dts, pairwise(bounds.tolist()), strict=True):
        np.subtract(runs, begin, out=ours[a:b])
    sizes = np.array([size for _, _, size in dts])  # (D,)
    for j, (runs, begin, size) in enumerate(gts):
        length = runs[:, 1] - runs[:, 0]
        covered = np.cumsum(length)
        before = np.stack([covered - length, covered], axis=1)  # F_g at the borders of g's runs
        inside = np.interp(ours.reshape(-1), runs.reshape(-1) - begin, before.reshape(-1)).reshape(-1, 2)
        starts, ends = np.add.reduceat(inside, bounds[:-1], axis=0).T
        both = ends - starts
        either = sizes + size - both
        ious[:, j] = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return ious


def _lay_out(tracks: list[dict], video: _Video) -> list[tuple[np.ndarray, int]]:
    """Lay each track of one video on a line of T * H * W pixels; give predictions their mean area.

    Returns for each track its runs (R, 2) int64, [start, end), where its line begins among these numbers, and its
    pixels in all. R >= T: a frame without a mask has an empty run. Tracks of equal masks (one under several categories)
    are unpacked once.
    """
    unique: dict[tuple, int] = {}
    which = [unique.setdefault(tuple(track["masks"]), len(unique)) for track in tracks]
    distinct = list(unique)
    lines, means = [], []
    text_size = sum(len(text) for masks in distinct for text in masks if text is not None)
    block = 1 + BLOCK * len(distinct) // (text_size + 1)  # tracks at a time
    for start in range(0, len(distinct), block):
        texts = [video.empty if text is None else text for masks in distinct[start : start + block] for text in masks]

        def where(mask: int) -> str:
            track, frame = divmod(start * video.frames + mask, video.frames)  # noqa: B023
            return f"{tracks[which.index(track)]['where']}: segmentations[{frame}]"

        rows, first = run_lengths(texts, video.pixels, where)
        borders = np.cumsum(rows.reshape(-1)).reshape(-1, 2)  # every mask sums to H * W: frames fall into place
        bounds = [*first[:: video.frames].tolist(), len(rows)]
        areas = np.add.reduceat(rows[:, 1], first).reshape(-1, video.frames)  # (tracks of the block, T)
        sizes = areas.sum(axis=1)
        means += (sizes / np.maximum((areas > 0).sum(axis=1), 1)).tolist()
        begins = range(0, len(sizes) * video.frames * video.pixels, video.frames * video.pixels)
        slices = (borders[a:b] for a, b in pairwise(bounds))
        lines += zip(slices, begins, sizes.tolist(), strict=True)

    for track, i in zip(tracks, which, strict=True):
        track.setdefault("area", means[i])  # ground truth keeps the mean of the file's `areas`
    return [lines[i] for i in which]


class _Video:
    """What is needed of a video: its size and its number of frames."""

    def __init__(self, entry: Mapping, number: int):
        where = f"ground truth video {number}"
        names = entry.get("file_names")
        self.number, self.size = number, [integer(entry, "height", where), integer(entry, "width", where)]
        self.frames = integer(entry, "length", where) if "length" in entry else len(value(entry, "file_names", where))
        if names is not None and len(names) != self.frames:
            raise ValueError(f"{where}: length is {self.frames}, but there are {len(names)} file_names")
        self.pixels = self.size[0] * self.size[1]
        if self.pixels <= 0 or self.frames <= 0:
            raise ValueError(f"{where}: height, width and length must be positive")
        self.empty = compress({"size": self.size, "counts": [self.pixels]}, *self.size, where)

    def masks(self, entry: Mapping, where: str, polygons: bool) -> list[str | None]:
        """The compressed RLE text, or None, of every frame."""
        segmentations = value(entry, "segmentations", where)
        if not isinstance(segmentations, (list, tuple)):
            raise ValueError(f"{where}: segmentations must be a list with one entry a frame, got {kind(segmentations)}")
        if len(segmentations) != self.frames:
            raise ValueError(
                f"{where}: segmentations has {len(segmentations)} entries, video {self.number} has {self.frames} frames"
            )
        return [
            s["counts"]  # what nearly all entries are: no detour
            if type(s) is dict and s.get("size") == self.size and type(s.get("counts")) is str
            else s if s is None else compress(s, *self.size, f"{where}: segmentations[{t}]", polygons)
            for t, s in enumerate(segmentations)
        ]


def _read_track(entry, where: str, videos: Mapping[int, _Video], polygons: bool) -> dict:
    track = {key: integer(entry, key, where) for key in ("video_id", "category_id")}
    if track["video_id"] not in videos:
        raise ValueError(f"{where}: unknown video_id {track['video_id']}")
    return track | {"where": where, "masks": videos[track["video_id"]].masks(entry, where, polygons)}


def _read_truth(entry, index: int, videos: Mapping[int, _Video]) -> dict:
    where = f"ground truth annotations[{index}]"
    track = {"id": integer(entry, "id", where)} | _read_track(entry, where, videos, polygons=True)
    areas, frames = value(entry, "areas", where), videos[track["video_id"]].frames
    if not isinstance(areas, (list, tuple)) or len(areas) != frames:
        raise ValueError(f"{where}: 'areas' must be a list of {frames} numbers or nulls, one a frame")
    if not all(a is None or (is_finite(a) and a >= 0) for a in areas):
        raise ValueError(f"{where}: 'areas' holds something that is neither null nor a number >= 0")
    present = [a for a in areas if a]
    crowd = int(bool(entry.get("iscrowd", 0)))
    return track | {"area": float(np.mean(present)) if present else 0.0, "iscrowd": crowd, "ignore": crowd}


def _read_prediction(entry, index: int, videos: Mapping[int, _Video]) -> dict:
    where = f"results[{index}]"
    track = {"id": index + 1, "score": finite(entry, "score", where)}
    return track | _read_track(entry, where, videos, polygons=False)
