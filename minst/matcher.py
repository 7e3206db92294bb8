"""Which query answers for which instance: one-to-one bipartite matching (paper: "Loss Function"; as in SparseInst).

    score(query n, instance m) = dice(mask n, mask m)^0.8 * p(class of m | query n)^0.2       maximised by Hungarian

Masks are compared on a grid finer than the mask logits' 1/8: the logits are enlarged bilinearly, as they are when the
model is used, and a target's cell holds the share of it that the instance covers.

Symbols: N queries, M instances of one image, K classes, h w cells of the mask logits (1/8), H' W' of the targets.

Assumption: the paper says bipartite matching and nothing of its cost. Ours is SparseInst's, whose losses it follows.
Assumption: targets at 1/2 (SparseInst: 1/4). At 1/8 a target can hold an IoU of 0.85 with the truth at most.

Lesson: notebooks/05_losses.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = [
    "Instances",
    "best_match",
    "enlarge",
    "hungarian_match",
    "matching_scores",
    "pairwise_dice",
    "resize_masks",
]

MASK_STRIDE = 8  # of the mask logits
TARGET_STRIDE = 2  # of the masks that a loss compares them with


class Instances(NamedTuple):
    """The ground truth of one frame. `ids` tell which instance is which across the frames of one video."""

    labels: Tensor  # (M,) long, class 0..K-1
    masks: Tensor  # (M, H', W') float, the share of each cell that is covered, in [0, 1]; or bool
    ids: Tensor  # (M,) long


def resize_masks(masks: Tensor, stride: int = TARGET_STRIDE) -> Tensor:
    """Masks of pixels (M, H, W), bool or 0..1 -> the share of each cell that they cover, (M, H', W') float32.

    H' = ceil(H/8) * 8/stride: the grid of the mask logits enlarged by 8/stride; what lies beyond the frame is empty.
    stride: pixels along a cell's side, 1, 2, 4 or 8. ValueError for another one.
    """
    if stride not in (1, 2, 4, 8):
        raise ValueError(f"stride is {stride!r}; a cell of a target has a side of 1, 2, 4 or 8 pixels")
    M, H, W = masks.shape
    # Pad at the right and at the bottom to whole cells of the mask logits.
    masks = F.pad(masks.float(), (0, -W % MASK_STRIDE, 0, -H % MASK_STRIDE))
    if not M:  # pooling refuses what is empty
        return masks[:, ::stride, ::stride]
    # y(cell) = covered pixels / all pixels of the cell
    return F.avg_pool2d(masks[:, None], stride)[:, 0]


def enlarge(mask_logits: Tensor, targets: Tensor) -> Tensor:
    """Mask logits (N, h, w) on the grid of targets (M, H', W'), by bilinear interpolation: (N, H', W').

    ValueError when the targets' grid is no whole multiple of the logits'.
    """
    (h, w), (height, width) = mask_logits.shape[-2:], targets.shape[-2:]
    factor = height // h
    if (height, width) != (factor * h, factor * w):
        raise ValueError(f"targets of {height} x {width} cells do not belong to mask logits of {h} x {w}: see resize_masks")
    if factor == 1 or not len(mask_logits):
        return mask_logits.new_zeros(0, height, width) if not len(mask_logits) else mask_logits
    return F.interpolate(mask_logits[:, None], scale_factor=factor, mode="bilinear", align_corners=False)[:, 0]


def pairwise_dice(predictions: Tensor, targets: Tensor) -> Tensor:
    """dice = 2 x.y / (x.x + y.y + 1e-4) of probabilities (N, P) with soft masks (M, P) -> (N, M) in [0, 1]."""
    overlap = predictions @ targets.T  # (N, M)
    sizes = predictions.square().sum(-1)[:, None] + targets.square().sum(-1)[None, :]
    return 2 * overlap / (sizes + 1e-4)


def matching_scores(class_logits: Tensor, mask_logits: Tensor, instances: Instances) -> Tensor:
    """dice^0.8 * p^0.2 of one image: logits (N, K) and (N, h, w), M instances -> (N, M) in [0, 1]."""
    # p(class of m | query n)
    probability = class_logits.float().sigmoid()[:, instances.labels]  # (N, M)
    # dice(mask n, mask m), on the targets' grid
    masks = enlarge(mask_logits.float(), instances.masks).sigmoid()  # (N, H', W')
    dice = pairwise_dice(masks.flatten(1), instances.masks.float().flatten(1))  # (N, M)
    return dice.pow(0.8) * probability.pow(0.2)


@torch.no_grad()
def hungarian_match(
    class_logits: Tensor, mask_logits: Tensor, instances: Sequence[Instances]
) -> list[tuple[Tensor, Tensor]]:
    """For every image of the batch the matched queries and their instances, two index tensors of equal length.

    class_logits (B, N, K), mask_logits (B, N, h, w), B x Instances. An image without instances gives two empty
    tensors; with more instances than queries, N of them are matched, each with its own target.
    Non-finite scores (a diverged model) raise FloatingPointError, since no assignment of them means anything.
    """
    matches = []
    for classes, masks, target in zip(class_logits, mask_logits, instances, strict=True):
        # Three digits of bf16 are too few to compare scores.
        with torch.autocast(masks.device.type, enabled=False):
            matches.append(best_match(matching_scores(classes, masks, target)))
    return matches


def best_match(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The one-to-one assignment of largest total score (N, M): rows and columns, min(N, M) of each."""
    if not torch.isfinite(scores).all():
        raise FloatingPointError("matching: scores are not finite; look at the mask and class logits for NaN")
    rows, columns = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    return tuple(torch.as_tensor(i, dtype=torch.long, device=scores.device) for i in (rows, columns))
