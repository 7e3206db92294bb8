"""One function per loss, and their weighted sum (paper: "Loss Function"; formulas as in SparseInst).

    L = 2 L_cls + 2 L_mask + 1 L_obj,     L_mask = L_dice + L_pixel
    L_cls    focal loss (alpha 0.25, gamma 2) over all queries and classes, divided by the number of instances
    L_dice   1 - 2 x.y / (x.x + y.y + 1e-4), summed over matched pairs, divided by the number of instances
    L_pixel  binary cross-entropy, mean over the pixels, summed over matched pairs, divided by the number of instances
    L_obj    binary cross-entropy of the matched queries' objectness against the IoU of their masks, likewise

Symbols: B batch, N queries, K classes, M matched pairs, h w size of the mask logits (H/8, W/8).

Assumption: L_mask weighs dice and cross-entropy alike (SparseInst: 2 and 5; the paper gives one weight, 2, for both).

Lesson: notebooks/05_losses.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minst.matcher import Instances, hungarian_match, resize_masks

__all__ = [
    "LOSS_WEIGHTS",
    "dice_loss",
    "focal_loss",
    "mask_iou",
    "mask_losses",
    "objectness_loss",
    "pixel_loss",
    "set_losses",
]

LOSS_WEIGHTS = {"cls": 2.0, "dice": 2.0, "pixel": 2.0, "obj": 1.0}  # the paper's lambdas 2, 2, 1


def focal_loss(
    logits: Tensor, targets: Tensor, num_instances: float, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum over all elements of alpha_t (1 - p_t)^gamma * BCE, divided by `num_instances`; targets 0/1, any shape."""
    p = logits.sigmoid()
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (alpha_t * (1 - p_t) ** gamma * bce).sum() / num_instances


def dice_loss(logits: Tensor, targets: Tensor, num_instances: float) -> Tensor:
    """Sum over pairs of 1 - dice, divided by `num_instances`; logits and targets in [0, 1] are (M, P)."""
    x = logits.sigmoid()
    overlap = (x * targets).sum(-1)
    sizes = x.square().sum(-1) + targets.square().sum(-1)
    return (1 - 2 * overlap / (sizes + 1e-4)).sum() / num_instances


def pixel_loss(logits: Tensor, targets: Tensor, num_instances: float | None = None) -> Tensor:
    """Mean binary cross-entropy over the pixels of all pairs (M, P); 0 when there is no pair.

    The mean is that of `num_instances` pairs when M of them are only a process's share.
    """
    pixels = logits.numel() if num_instances is None else num_instances * logits.shape[-1]
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / max(pixels, 1)


@torch.no_grad()
def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of (sigmoid >= 0.4) with (target > 0.5), pair by pair: (M, P), (M, P) -> (M,)."""
    x, y = logits.sigmoid() >= 0.4, targets > 0.5
    return (x & y).sum(-1) / ((x | y).sum(-1) + 1e-6)


def objectness_loss(logits: Tensor, iou: Tensor, num_instances: float | None = None) -> Tensor:
    """Mean binary cross-entropy of objectness (M,) against the IoU (M,) of the predicted masks; 0 without pairs.

    The mean is that of `num_instances` pairs when M of them are only a process's share.
    """
    count = max(logits.numel(), 1) if num_instances is None else num_instances
    return F.binary_cross_entropy_with_logits(logits, iou, reduction="sum") / count


def mask_losses(mask_logits: Tensor, masks: Tensor, num_instances: float) -> dict[str, Tensor]:
    """The two mask losses of matched pairs, logits and soft masks (M, h, w); also those of query passing."""
    logits, targets = mask_logits.float().flatten(1), masks.float().flatten(1)
    return {"dice": dice_loss(logits, targets, num_instances), "pixel": pixel_loss(logits, targets, num_instances)}


def set_losses(
    class_logits: Tensor,  # (B, N, K)
    objectness: Tensor,  # (B, N)
    mask_logits: Tensor,  # (B, N, h, w)
    instances: Sequence[Instances],  # B of them, masks (M, H, W) or (M, h, w)
    num_instances: float | None = None,
) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Match, then every loss unweighted: {"cls", "dice", "pixel", "obj"} as scalars, and the matches.

    All are differentiable and finite for images without instances, also for a batch without any.
    `num_instances` is what all are divided by: the number of ground truths of the batch, at least 1, or, where a batch is
    shared, the part of that number that makes the shares' losses average to those of the whole.
    """
    size = tuple(mask_logits.shape[-2:])
    instances = [target._replace(masks=resize_masks(target.masks, size)) for target in instances]
    matches = hungarian_match(class_logits, mask_logits, instances)
    if num_instances is None:
        num_instances = float(max(1, sum(len(target.labels) for target in instances)))
    image = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(matches)])  # (M,)
    query = torch.cat([queries for queries, _ in matches])
    labels = torch.cat([target.labels[found] for target, (_, found) in zip(instances, matches)])
    masks = torch.cat([target.masks[found] for target, (_, found) in zip(instances, matches)])

    one_hot = torch.zeros_like(class_logits, dtype=torch.float32)
    one_hot[image, query, labels] = 1.0
    logits = mask_logits[image, query].float()  # (M, h, w)
    iou = mask_iou(logits.flatten(1), masks.flatten(1))
    losses = {
        "cls": focal_loss(class_logits.float(), one_hot, num_instances),
        **mask_losses(logits, masks, num_instances),
        "obj": objectness_loss(objectness[image, query].float(), iou, num_instances),
    }
    return losses, matches
