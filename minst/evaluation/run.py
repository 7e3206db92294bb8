"""A model on a folder of annotated videos: video AP, whether queries stay on instances, whether identities do.

    DIR in YouTube-VIS form ─┬─> tracks of score 0.1 and more                -> AP
                             ├─> tracks of score 0.5 and more                -> swaps, fragmentations, HOTA, IDF1
                             └─> every frame as a key frame -> query masks   -> retention

AP ranks tracks by score. Identities need one set of tracks that all count: those of a second tracker, at its default
threshold, which are what a user sees. The three look at a frame together: the network computes it once.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from minst.data.coco import COCO, open_folder
from minst.data.files import read_json
from minst.data.ytvis import Clip, YouTubeVIS
from minst.evaluation.coco import evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, FrameShare, mask_ious
from minst.evaluation.identity import IdentityMeter, category_names
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import Frame, MobileInst, image_to_batch, upsample_masks
from minst.prediction import predict_folder
from minst.results import FrameResult, gather_frames
from minst.tracking import KernelTracker

__all__ = ["EVALUATION_THRESHOLD", "evaluate_folder", "evaluate_model", "query_masks", "write_figures"]

# AP ranks all tracks, so that sure and unsure ones both count; a picture wants the sure ones alone
EVALUATION_THRESHOLD = 0.1


def evaluate_folder(
    folder: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    videos: int | None = None,
    split: str | None = None,
    annotations: str | Path | None = None,
) -> dict:
    """`evaluate_model` with weights by name or folder, on the first `videos` of a folder.

    A folder in COCO form: the figures of `evaluate_coco` on its first `videos` images.

    Raises ValueError when the categories of folder and model differ, or labels are withheld.
    """
    dataset = open_folder(folder, split, annotations)
    if isinstance(dataset, COCO):
        results = list(predict_folder(dataset, weights, videos=videos))
        figures = evaluate_coco(_first_images(read_json(dataset.file), videos), results)
    else:
        model = MobileInst.from_pretrained(weights).fuse()
        figures = evaluate_model(model, dataset, reuse_interval, association, videos)
    figures["weights"], figures["folder"] = str(weights), Path(folder).name
    return figures


def _first_images(truth: dict, count: int | None) -> dict:
    images = truth["images"][:count]
    ids = {image["id"] for image in images}
    if truth.get("annotations") is None:
        return truth  # whose labels are withheld: `evaluate_coco` says so
    return {**truth, "images": images, "annotations": [a for a in truth["annotations"] if a["image_id"] in ids]}


def evaluate_model(
    model: MobileInst,
    dataset: YouTubeVIS,
    reuse_interval: int = 3,
    association: str = "mask",
    videos: int | None = None,
) -> dict:
    """The dict of `evaluate_ytvis` (figures in 0..1, per category, per video) and

    "consistency"  what `ConsistencyMeter.result` says of the queries, each frame a key frame of its own
    "frame_share"  what `FrameShare.result` says of the queries after each stage and of the kernels
    "identity"     what `IdentityMeter.result` says of the tracks of score "score_threshold" and more
    "setting"      videos, reuse_interval, association
    """
    names = model.config.class_names
    if names and set(names) != set(dataset.categories):
        raise ValueError(f"the model knows {', '.join(names)}; {dataset.file} has {', '.join(dataset.categories)}")
    # the model's classes may stand in another order than the file's categories
    ids = [dataset.category_ids[dataset.categories.index(n)] for n in names] if names else dataset.category_ids
    clips = [dataset[i] for i in range(min(videos or len(dataset), len(dataset)))]
    ranked = KernelTracker(model, reuse_interval, association, score_threshold=EVALUATION_THRESHOLD)
    shown = KernelTracker(model, reuse_interval, association)
    queries, identities, shares, results = ConsistencyMeter(), IdentityMeter(), FrameShare(), []
    for clip in tqdm(clips, desc="evaluating", disable=None):
        watched = _Watched(clip, shown, [names.index(n) for n in category_names(clip)] if names else clip.labels)
        results += ranked.gather(map(ranked.advance, watched.frames(ranked))).to_ytvis(clip.video["id"], ids)
        found = identities.add_clip(gather_frames(watched.results), clip)
        of_queries = (np.stack(x) for x in (watched.probabilities, watched.scores))
        queries.add_ious(np.stack(watched.ious), found.visible, category_names(clip), found.levels, *of_queries)
        shares.add(watched.first)
    truth = {
        "videos": [clip.video for clip in clips],
        "categories": dataset.category_entries,
        "annotations": [track for clip in clips for track in clip.tracks],
    }
    figures = evaluate_ytvis(truth, results)
    figures["consistency"] = queries.result()
    figures["frame_share"] = shares.result()
    figures["identity"] = {"score_threshold": shown.score_threshold, **identities.result()}
    figures["setting"] = {"videos": len(clips), "reuse_interval": reuse_interval, "association": association}
    return figures


def write_figures(figures: dict, path: str | Path) -> None:
    """Figures as JSON, which has no NaN: where a group had nothing to count stands null."""

    def known(value):
        if isinstance(value, dict):
            return {key: known(part) for key, part in value.items()}
        if isinstance(value, list):
            return [known(part) for part in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    Path(path).write_text(json.dumps(known(figures), indent=1, allow_nan=False) + "\n")


class _Watched:
    """A clip that several look at together: the network sees each frame once."""

    def __init__(self, clip: Clip, shown: KernelTracker, labels: Sequence[int]):
        self.clip, self.shown, self.labels = clip, shown, list(labels)
        self.results: list[FrameResult] = []  # of `shown`
        self.ious: list[np.ndarray] = []  # (N, M) each
        self.probabilities: list[np.ndarray] = []  # (N, M) each, of the class of each instance
        self.scores: list[np.ndarray] = []  # (N,) each
        self.first: Frame | None = None

    def frames(self, ranked: KernelTracker) -> Iterator[Frame]:
        """The frames, for `ranked`; before one is handed on, `shown` tracks it and the queries meet the truth."""
        ranked.reset()
        self.shown.reset()
        for t, image in enumerate(self.clip):
            frame = encode(ranked.model, image)
            self.first = self.first or frame
            self.results.append(self.shown.advance(frame))
            self.ious.append(mask_ious(masks_of_queries(frame), self.clip.masks(t)))
            self.probabilities.append(frame.out.class_logits[0].sigmoid()[:, self.labels].cpu().numpy())
            self.scores.append(frame.out.scores()[0].amax(-1).cpu().numpy())
            yield frame


@torch.inference_mode()
def encode(model: MobileInst, image: np.ndarray) -> Frame:
    """One image (H, W, 3) bytes as the network sees it."""
    return model.encode(image_to_batch(image))


@torch.inference_mode()
def masks_of_queries(frame: Frame) -> np.ndarray:
    """The mask of every query of a key frame: (N, H, W) bool."""
    return (upsample_masks(frame.out.mask_logits, frame.size)[0] > 0).cpu().numpy()


def query_masks(model: MobileInst, clip: Clip) -> Iterator[np.ndarray]:
    """The mask of every query in every frame, each computed as a key frame: T arrays (N, H, W) bool."""
    return (masks_of_queries(encode(model, image)) for image in clip)
