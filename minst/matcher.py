"""Which query answers for which instance: one-to-one bipartite matching (paper: "Loss Function"; as in SparseInst).

    score(query n, instance m) = dice(mask n, mask m)^0.8 * p(class of m | query n)^0.2       maximised by Hungarian

Symbols: N queries, M instances of one image, K classes, P pixels of a mask (H/8 * W/8).

Assumption: the paper says bipartite matching and nothing of its cost; the cost is SparseInst's, whose losses it follows.

Lesson: notebooks/05_losses.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["Instances", "hungarian_match", "matching_scores", "pairwise_dice", "resize_masks"]


class Instances(NamedTuple):
    """The ground truth of one frame. `ids` tell which instance is which across the frames of one video."""

    labels: Tensor  # (M,) long, class 0..K-1
    masks: Tensor  # (M, H, W) or (M, H/8, W/8), float in [0, 1] (soft after resizing) or bool
    ids: Tensor  # (M,) long


def resize_masks(masks: Tensor, size: tuple[int, int], stride: int = 8) -> Tensor:
    """Full-size masks (M, H, W) -> soft masks (M, h, w) at the size of the mask logits, float32.

    Zero-padded at the right and the bottom to `stride * size`, then resized bilinearly and kept soft. Masks that
    already have the size are returned as they are (as float).
    """
    count, height, width = masks.shape
    masks = masks.float()
    if (height, width) == tuple(size) or count == 0:
        return masks.reshape(count, *((height, width) if count else size))
    if height > size[0] * stride or width > size[1] * stride:
        raise ValueError(f"masks of {height} x {width} do not belong to mask logits of {size[0]} x {size[1]} at 1/{stride}")
    masks = F.pad(masks, (0, size[1] * stride - width, 0, size[0] * stride - height))
    return F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def pairwise_dice(predictions: Tensor, targets: Tensor) -> Tensor:
    """dice = 2 x.y / (x.x + y.y + 1e-4) of probabilities (N, P) with soft masks (M, P) -> (N, M) in [0, 1]."""
    overlap = predictions @ targets.T  # (N, M)
    sizes = predictions.square().sum(-1)[:, None] + targets.square().sum(-1)[None, :]
    return 2 * overlap / (sizes + 1e-4)


def matching_scores(class_logits: Tensor, mask_logits: Tensor, instances: Instances) -> Tensor:
    """dice^0.8 * p^0.2 of one image: logits (N, K), (N, h, w), masks of the instances (M, h, w) -> (N, M)."""
    probability = class_logits.float().sigmoid()[:, instances.labels]  # (N, M)
    dice = pairwise_dice(mask_logits.float().sigmoid().flatten(1), instances.masks.float().flatten(1))
    return dice.pow(0.8) * probability.pow(0.2)


@torch.no_grad()
def hungarian_match(
    class_logits: Tensor, mask_logits: Tensor, instances: Sequence[Instances]
) -> list[tuple[Tensor, Tensor]]:
    """For every image of the batch the matched queries and their instances, two index tensors of equal length.

    class_logits (B, N, K), mask_logits (B, N, h, w), masks of the instances (M, h, w). An image without instances
    gives two empty tensors; with more instances than queries, N of them are matched, each with its own target.
    Non-finite scores (a diverged model) raise FloatingPointError, since no assignment of them means anything.
    """
    matches = []
    for classes, masks, target in zip(class_logits, mask_logits, instances, strict=True):
        with torch.autocast(masks.device.type, enabled=False):  # three digits of bf16 are too few to compare scores
            scores = matching_scores(classes, masks, target)
        if not torch.isfinite(scores).all():
            raise FloatingPointError("matching: scores are not finite; look at the mask and class logits for NaN")
        rows, columns = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
        matches.append(tuple(torch.as_tensor(i, dtype=torch.long, device=scores.device) for i in (rows, columns)))
    return matches
