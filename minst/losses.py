"""One function per loss, and their weighted sum (paper: "Loss Function"; formulas as in SparseInst).

    L = 2 L_cls + 2 L_mask + 1 L_obj,     L_mask = L_dice + L_pixel
    L_cls    focal loss (alpha 0.25, gamma 2) over all queries and classes, divided by the number of instances
    L_dice   1 - 2 x.y / (x.x + y.y + 1e-4), summed over matched pairs, divided by the number of instances
    L_pixel  binary cross-entropy, mean over the cells, summed over matched pairs, divided by the number of instances
    L_obj    binary cross-entropy of the matched queries' objectness against the IoU of their masks, likewise

Symbols: B batch, N queries, K classes, P matched pairs of a batch, h w cells of the mask logits (1/8),
    H' W' cells of the targets (1/2), R = H' * W'.

Assumption: L_mask weighs dice and cross-entropy alike (SparseInst: 2 and 5; the paper gives one weight, 2, for both).
Assumption: both are computed on mask logits enlarged to the targets' grid (minst/matcher.py says why).

Lesson: notebooks/05_losses.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minst.matcher import Instances, enlarge, hungarian_match

__all__ = [
    "LOSS_WEIGHTS",
    "Pairs",
    "count_instances",
    "dice_loss",
    "focal_loss",
    "mask_iou",
    "mask_losses",
    "objectness_loss",
    "pixel_loss",
    "set_losses",
]

LOSS_WEIGHTS = {"cls": 2.0, "dice": 2.0, "pixel": 2.0, "obj": 1.0}  # the paper's lambdas 2, 2, 1


class Pairs(NamedTuple):
    """The matched queries of a batch and their instances, all images behind one another.

    Row p says that query[p] of image[p] answers for the instance with labels[p] and masks[p].
    """

    image: Tensor  # (P,) long, which image of the batch
    query: Tensor  # (P,) long, 0..N-1
    labels: Tensor  # (P,) long, 0..K-1
    masks: Tensor  # (P, H', W') in [0, 1]

    @classmethod
    def of(cls, matches: Sequence[tuple[Tensor, Tensor]], instances: Sequence[Instances]) -> Pairs:
        """matches: for each image (queries, instances), two index tensors of equal length."""
        image = [torch.full_like(queries, b) for b, (queries, _) in enumerate(matches)]
        query = [queries for queries, _ in matches]
        labels = [target.labels[found] for target, (_, found) in zip(instances, matches)]
        masks = [target.masks[found] for target, (_, found) in zip(instances, matches)]
        return cls(torch.cat(image), torch.cat(query), torch.cat(labels), torch.cat(masks).float())

    def logits(self, mask_logits: Tensor) -> Tensor:
        """Of mask logits (B, N, h, w) those of the pairs, on the grid of their targets: (P, H', W') float32."""
        # Choose first, enlarge afterwards: P of B * N maps.
        return enlarge(mask_logits[self.image, self.query].float(), self.masks)


def count_instances(instances: Sequence[Instances]) -> float:
    """What the losses of a batch are divided by: its instances, at least 1."""
    return float(max(1, sum(len(target.labels) for target in instances)))


def focal_loss(
    logits: Tensor, targets: Tensor, num_instances: float, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum over all elements of alpha_t (1 - p_t)^gamma * BCE, divided by `num_instances`; targets 0/1, any shape."""
    p = logits.sigmoid()
    # p_t: the probability that was given to what is true
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # (1 - p_t)^gamma: what is easy counts little, or thousands of easy "no" would drown the few "yes"
    return (alpha_t * (1 - p_t) ** gamma * bce).sum() / num_instances


def dice_loss(logits: Tensor, targets: Tensor, num_instances: float) -> Tensor:
    """Sum over pairs of 1 - dice, divided by `num_instances`; logits and targets in [0, 1] are (P, R)."""
    x = logits.sigmoid()
    # dice = 2 x.y / (x.x + y.y): a share of the instance's own size, so that small ones count as much as large ones
    overlap = (x * targets).sum(-1)
    sizes = x.square().sum(-1) + targets.square().sum(-1)
    return (1 - 2 * overlap / (sizes + 1e-4)).sum() / num_instances


def pixel_loss(logits: Tensor, targets: Tensor, num_instances: float) -> Tensor:
    """Binary cross-entropy, mean over the cells of a pair, summed over pairs (P, R), divided by `num_instances`."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return bce / (num_instances * max(1, logits.shape[-1]))


@torch.no_grad()
def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of (sigmoid >= 0.4) with (target > 0.5), pair by pair: (P, R), (P, R) -> (P,)."""
    x, y = logits.sigmoid() >= 0.4, targets > 0.5
    return (x & y).sum(-1) / ((x | y).sum(-1) + 1e-6)


def objectness_loss(logits: Tensor, iou: Tensor, num_instances: float) -> Tensor:
    """Binary cross-entropy of objectness (P,) against the IoU (P,) of the masks, summed, divided by `num_instances`."""
    return F.binary_cross_entropy_with_logits(logits, iou, reduction="sum") / num_instances


def mask_losses(mask_logits: Tensor, pairs: Pairs, num_instances: float) -> dict[str, Tensor]:
    """L_dice and L_pixel of the pairs' masks among mask logits (B, N, h, w); also those of query passing."""
    logits, targets = pairs.logits(mask_logits).flatten(1), pairs.masks.flatten(1)  # (P, R)
    return {"dice": dice_loss(logits, targets, num_instances), "pixel": pixel_loss(logits, targets, num_instances)}


def set_losses(
    class_logits: Tensor,  # (B, N, K)
    objectness: Tensor,  # (B, N)
    mask_logits: Tensor,  # (B, N, h, w)
    instances: Sequence[Instances],  # B of them, masks (M, H', W') by `matcher.resize_masks`
    num_instances: float | None = None,
    matches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> tuple[dict[str, Tensor], Sequence[tuple[Tensor, Tensor]]]:
    """Match, then every loss unweighted: {"cls", "dice", "pixel", "obj"} as scalars, and the matches.

    All are differentiable and finite for images without instances, also for a batch without any.
    num_instances: what all four are divided by. Default: `count_instances`; where a batch is shared, the part of that
    number that makes the shares' losses average to those of the whole.
    matches: who answers for whom, where that has been decided already.
    """
    if num_instances is None:
        num_instances = count_instances(instances)
    # Who answers for whom? From here on one row is one matched pair, whatever image it is of.
    if matches is None:
        matches = hungarian_match(class_logits, mask_logits, instances)
    pairs = Pairs.of(matches, instances)
    # L_cls: a matched query says yes to its class and no to all others, an unmatched one says no to all.
    # So duplicates are unlearned, and no NMS is needed.
    classes = torch.zeros_like(class_logits, dtype=torch.float32)  # (B, N, K)
    classes[pairs.image, pairs.query, pairs.labels] = 1.0
    # L_mask: of matched pairs alone. An unmatched query may draw whatever it likes.
    logits, masks = pairs.logits(mask_logits).flatten(1), pairs.masks.flatten(1)  # (P, R)
    # L_obj: a query that draws well is to know it.
    said = objectness[pairs.image, pairs.query].float()  # (P,)
    return {
        "cls": focal_loss(class_logits.float(), classes, num_instances),
        "dice": dice_loss(logits, masks, num_instances),
        "pixel": pixel_loss(logits, masks, num_instances),
        "obj": objectness_loss(said, mask_iou(logits, masks), num_instances),
    }, matches
