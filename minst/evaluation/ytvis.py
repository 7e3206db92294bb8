"""Video average precision by the YouTube-VIS protocol (ytvoseval): COCO's, with tracks for masks.

A prediction is a whole track, one mask (or none) a frame, with one category and one score. Two
tracks overlap by

    IoU(p, g) = sum_t |p_t ∩ g_t| / sum_t |p_t ∪ g_t|

and a frame where one is missing adds the other's area below: an identity that jumps to another
object pays in both sums. All else is COCO's: thresholds 0.5 ... 0.95, precision at 101 recalls, at
most 1 / 10 / 100 predictions a video and category, crowds ignored (but compared by the plain IoU).
Small, medium and large end at 128^2 and 256^2, by the mean area over the frames in which the track
is present.

    gt, results --check--> tracks --pycocotools, frame by frame--> IoU (D, G) --COCOeval--> figures

Lesson: notebooks/01_task_and_data.ipynb
"""

import os
from collections import Counter
from typing import Annotated, Any

import msgspec
import numpy as np

from minst import rle
from minst.data.formats import Id, Pixels
from minst.evaluation.coco import Area, Category, Evaluation, Scored, figures, mean_of_known

__all__ = ["YTVISEval", "evaluate_ytvis", "track_ious"]


class Video(msgspec.Struct):
    """A video of the ground truth."""

    id: Id
    height: Pixels
    width: Pixels
    # frames; if it is not there, as many as `file_names`
    length: Annotated[int, msgspec.Meta(ge=1)] | None = None
    file_names: list | None = None

    def __post_init__(self):
        names = self.length if self.file_names is None else len(self.file_names)
        if not names:
            raise ValueError("'length' or 'file_names' must say how many frames it has")
        if names != (self.length or names):
            raise ValueError(f"length is {self.length}, but there are {names} file_names")
        self.length = names


class Annotation(msgspec.Struct):
    """A track of the ground truth: one entry a frame."""

    id: Id
    video_id: Id
    category_id: Id
    segmentations: list[Any]  # run-length code, polygons or null each; `rle` checks them
    areas: list[Area | None]
    iscrowd: bool | int | None = 0  # a group that need not be found, and may be found many times


class Videos(msgspec.Struct):
    """A ground truth file in YouTube-VIS form, as far as evaluation reads it."""

    videos: list[Video]
    categories: list[Category]
    annotations: list[Annotation]


class Prediction(Scored):
    """A predicted track: one run-length code or null a frame."""

    video_id: Id
    segmentations: list[Any]


def evaluate_ytvis(gt: str | os.PathLike | dict, results: str | os.PathLike | list) -> dict:
    """Video mask AP: the 12 figures of the official evaluator, per category and per video too.

    gt: YouTube-VIS annotations, a path or a dict. results: a path or a list of {video_id,
    category_id, score, segmentations: [RLE or None per frame]}.

    Returns {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl":
    float, "per_category": {name: the same 12}, "per_video": {video id: {"AP", "AP50"}}}, fractions
    of 1. A video's AP is that of an evaluation with this video alone: their mean is not the AP of
    the whole. -1: no ground truth to measure by.
    """
    evaluation = YTVISEval(gt, results).run()
    precision, recall = evaluation.precision, evaluation.recall
    answer = figures(precision, recall)
    answer["per_category"] = {
        name: figures(precision[:, :, [k]], recall[:, [k]])
        for k, name in enumerate(evaluation.category_names())
    }
    answer["per_video"] = {v: evaluation.video_figures(v) for v in sorted(evaluation.pictures)}
    return answer


class YTVISEval(Evaluation):
    """`Evaluation` with videos as its pictures and tracks as its masks, one code or None a frame.

    "area" is the mean over the frames with a mask.
    """

    truth, prediction = Videos, Prediction
    pictures_of, picture_id = "videos", "video_id"

    def __init__(self, gt: str | os.PathLike | dict, results: str | os.PathLike | list):
        super().__init__(gt, results)
        self.params.areaRng = [[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]]

    def _masks(self, track: dict) -> list[tuple[str, Any]]:
        return [(f"segmentations[{t}]", mask) for t, mask in enumerate(track["segmentations"])]

    def _measure(self, track: dict) -> None:
        """Add the mean area over the frames in which a track is: of labels, the file's own."""
        video = self.pictures[track["video_id"]]
        for key in ("segmentations", "areas"):
            count = len(track.get(key, track["segmentations"]))
            if count != video.length:
                frames = f"video {video.id} has {video.length} frames"
                raise ValueError(f"{track['where']}: {key} has {count} entries, {frames}")
        present = [area for area in track.get("areas", track["pixels"]) if area]
        track["area"] = float(np.mean(present)) if present else 0.0

    def category_names(self) -> list[str]:
        """Names in the order of K; two categories of one name, or one without, are told apart by
        their ids."""
        names = {c: str(self.categories[c].name or f"category {c}") for c in self.params.catIds}
        count = Counter(names.values())
        return [name if count[name] == 1 else f"{name} ({c})" for c, name in names.items()]

    def video_figures(self, video: int) -> dict[str, float]:
        """AP and AP50 as if `video` were the whole data set."""
        precision = self.precision_of([video])
        return {"AP": mean_of_known(precision), "AP50": mean_of_known(precision[0])}

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray:
        """IoU (D, G) of the best predictions with the ground truth of one video and category."""
        ours, theirs = self._dts[imgId, catId][: self.params.maxDets[-1]], self._gts[imgId, catId]
        if not ours or not theirs:
            return np.zeros((0, 0))
        ious = track_ious(ours, theirs, self.pictures[imgId].length)  # (L, N, G)
        # of one frame: IoU = both / either, and |p| + |g| = both + either
        p, g = (np.array([track["pixels"] for track in side]).T for side in (ours, theirs))
        sizes = p[:, :, None] + g[:, None, :]
        # a count of pixels is a whole number: rounded it is exact
        both = np.rint(sizes * ious / (1 + ious))
        either = sizes - both
        return both.sum(axis=0) / np.maximum(either.sum(axis=0), 1)


def track_ious(ours: list[dict], theirs: list[dict], frames: int) -> np.ndarray:
    """IoU (frames, N, G) in each frame of tracks of one video, as `YTVISEval` holds them."""
    sides = [
        [[track["codes"][t] for track in side] for side in (ours, theirs)] for t in range(frames)
    ]
    return np.stack([rle.ious(*side) for side in sides])
