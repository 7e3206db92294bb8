"""A model on a folder of annotated videos: video AP of its tracks, and whether its queries stay on their instances.

    DIR in YouTube-VIS form -> KernelTracker.track -> results -> AP
                            -> every frame as a key frame -> query masks -> retention

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from minst.data.ytvis import Clip, YouTubeVIS
from minst.evaluation.consistency import ConsistencyMeter
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import MobileInst, upsample_masks
from minst.tracking import KernelTracker

__all__ = ["EVALUATION_THRESHOLD", "evaluate_folder", "evaluate_model", "query_masks"]

# AP ranks all tracks, so that sure and unsure ones both count; a picture wants the sure ones alone
EVALUATION_THRESHOLD = 0.1


def evaluate_folder(
    folder: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    videos: int | None = None,
) -> dict:
    """`evaluate_model` with weights by name or folder, on the first `videos` of a folder.

    Raises ValueError when the categories of folder and model differ, or labels are withheld.
    """
    dataset, model = YouTubeVIS(folder), MobileInst.from_pretrained(weights).fuse()
    figures = evaluate_model(model, dataset, reuse_interval, association, videos)
    figures["weights"], figures["folder"] = str(weights), Path(folder).name
    return figures


def evaluate_model(
    model: MobileInst, dataset: YouTubeVIS, reuse_interval: int = 3, association: str = "mask", videos: int | None = None
) -> dict:
    """The dict of `evaluate_ytvis` (figures in 0..1, per category, per video) and "consistency", "setting"."""
    names = model.config.class_names
    if names and set(names) != set(dataset.categories):
        raise ValueError(f"the model knows {', '.join(names)}; {dataset.file} has {', '.join(dataset.categories)}")
    # the model's classes may stand in another order than the file's categories
    ids = [dataset.category_ids[dataset.categories.index(n)] for n in names] if names else dataset.category_ids
    clips = [dataset[i] for i in range(min(videos or len(dataset), len(dataset)))]
    tracker = KernelTracker(model, reuse_interval, association, score_threshold=EVALUATION_THRESHOLD)
    meter, results = ConsistencyMeter(), []
    for clip in tqdm(clips, desc="evaluating", disable=None):
        results += tracker.track(clip).to_ytvis(clip.video["id"], ids)
        meter.add_clip(query_masks(model, clip), (clip.masks(t) for t in range(len(clip))))
    truth = {
        **dataset.dataset,
        "videos": [clip.video for clip in clips],
        "annotations": [track for clip in clips for track in clip.tracks],
    }
    figures = evaluate_ytvis(truth, results)
    figures["consistency"] = meter.result()
    figures["setting"] = {"videos": len(clips), "reuse_interval": reuse_interval, "association": association}
    return figures


@torch.inference_mode()
def query_masks(model: MobileInst, clip: Clip) -> Iterator[np.ndarray]:
    """The mask of every query in every frame, each computed as a key frame: T arrays (N, H, W) bool."""
    for image in clip:
        frame = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
        yield (upsample_masks(model(frame).mask_logits, image.shape[:2])[0] > 0).numpy()
