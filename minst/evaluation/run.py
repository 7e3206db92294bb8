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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from minst.data.coco import COCO, open_folder
from minst.data.files import read_json
from minst.data.ytvis import Clip, YouTubeVIS
from minst.evaluation.coco import evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, mask_ious
from minst.evaluation.identity import IdentityMeter, category_names, gather_frames
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import Encoded, FrameOutput, MobileInst, as_frames, upsample_masks
from minst.prediction import predict_folder
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
    "identity"     what `IdentityMeter.result` says of the tracks of score "score_threshold" and more
    "setting"      videos, reuse_interval, association
    """
    names = model.config.class_names
    if names and set(names) != set(dataset.categories):
        raise ValueError(f"the model knows {', '.join(names)}; {dataset.file} has {', '.join(dataset.categories)}")
    # the model's classes may stand in another order than the file's categories
    ids = [dataset.category_ids[dataset.categories.index(n)] for n in names] if names else dataset.category_ids
    clips = [dataset[i] for i in range(min(videos or len(dataset), len(dataset)))]
    once = _FrameOnce(model)
    ranked = KernelTracker(once, reuse_interval, association, score_threshold=EVALUATION_THRESHOLD)
    shown = KernelTracker(once, reuse_interval, association)
    queries, identities, results = ConsistencyMeter(), IdentityMeter(), []
    for clip in tqdm(clips, desc="evaluating", disable=None):
        shown.reset()
        frames, ious = [], []  # what the other two found, filled while `ranked` asks for images
        results += ranked.track(_watched(clip, once, shown, frames, ious)).to_ytvis(clip.video["id"], ids)
        found = identities.add_clip(gather_frames(frames), clip)
        queries.add_ious(np.stack(ious), found.visible, category_names(clip), found.levels)
    truth = {
        "videos": [clip.video for clip in clips],
        "categories": dataset.category_entries,
        "annotations": [track for clip in clips for track in clip.tracks],
    }
    figures = evaluate_ytvis(truth, results)
    figures["consistency"] = queries.result()
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


def _watched(clip: Clip, model: _FrameOnce, shown: KernelTracker, frames: list, ious: list) -> Iterator[np.ndarray]:
    """The images of a clip; before one is handed on, `shown` tracks it and the queries are compared with the truth."""
    for t, image in enumerate(clip):
        frames.append(shown.step(image))
        ious.append(mask_ious(_masks_of_queries(model, image), clip.masks(t)))
        yield image


class _FrameOnce:
    """A model that remembers the last frame: whoever asks for it next gets what was computed for the first."""

    def __init__(self, model: MobileInst):
        self.model, self.config, self.image = model.eval(), model.config, None

    def eval(self) -> _FrameOnce:
        return self

    def encode(self, image: torch.Tensor) -> Encoded:
        if self.image is None or not torch.equal(self.image, image):
            self.encoded, self.decoded = self.model.encode(image), None
            self.image = image
        return self.encoded

    def decode(self, encoded: Encoded) -> FrameOutput:
        if encoded is not self.encoded:
            raise RuntimeError("only the last frame can be decoded")
        if self.decoded is None:
            self.decoded = self.model.decode(encoded)
        return self.decoded


def query_masks(model: MobileInst, clip: Clip) -> Iterator[np.ndarray]:
    """The mask of every query in every frame, each computed as a key frame: T arrays (N, H, W) bool."""
    return (_masks_of_queries(model, image) for image in clip)


@torch.inference_mode()
def _masks_of_queries(model: MobileInst | _FrameOnce, image: np.ndarray) -> np.ndarray:
    return (upsample_masks(model.decode(model.encode(as_frames(image))).mask_logits, image.shape[:2])[0] > 0).numpy()
