"""One function per loss (paper: "Loss Function"; formulas as in SparseInst).

    L = 2 L_cls + 2 L_mask + 1 L_obj,     L_mask = L_dice + L_pixel
    L_cls    focal loss (alpha 0.25, gamma 2) over all queries and classes
    L_dice   1 - 2 x.y / (x.x + y.y + 1e-4), over matched pairs
    L_pixel  binary cross-entropy of the masks, mean over their cells, over matched pairs
    L_obj    binary cross-entropy of objectness against the IoU of the mask, over matched pairs
    Each is a sum, divided by the number of instances of the batch.

Symbols: J matched pairs of a batch, H' W' cells of the targets (1/2), R = H' * W'.

Lesson: notebooks/05_losses.ipynb
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from minst.matcher import Instances, Match, check_targets, enlarge, hungarian_match

__all__ = ["LOSS_WEIGHTS", "Pairs", "mask_losses", "set_losses"]

# Assumption: dice and pixel count alike. The paper has one weight for both, SparseInst 2 and 5.
LOSS_WEIGHTS = {"cls": 2.0, "dice": 2.0, "pixel": 2.0, "obj": 1.0}  # the paper's lambdas 2, 2, 1


class Pairs(NamedTuple):
    """Row p: query[p] of image[p] answers for the instance with labels[p] and masks[p]."""

    image: Tensor  # (J,) long, which image of the batch
    query: Tensor  # (J,) long, 0..N-1
    labels: Tensor  # (J,) long, 0..C-1
    masks: Tensor  # (J, H', W') in [0, 1]

    @classmethod
    def of(cls, matches: Sequence[Match], instances: Sequence[Instances]) -> Self:
        """One match and one `Instances` per image."""
        image = [torch.full_like(queries, b) for b, (queries, _) in enumerate(matches)]
        query = [queries for queries, _ in matches]
        labels = [target.labels[found] for target, (_, found) in zip(instances, matches)]
        masks = [target.masks[found] for target, (_, found) in zip(instances, matches)]
        pairs = cls(torch.cat(image), torch.cat(query), torch.cat(labels), torch.cat(masks).float())
        check_targets(pairs.labels, pairs.masks)
        return pairs

    def logits(self, mask_logits: Tensor) -> Tensor:
        """Of mask logits (B, N, h, w) those of the pairs, on their targets' grid: (J, H', W')."""
        # Choose first, enlarge afterwards: J of B * N maps.
        return enlarge(mask_logits[self.image, self.query].float(), self.masks)


def count_instances(instances: Sequence[Instances]) -> float:
    """What the losses of a batch are divided by: its instances, at least 1."""
    return float(max(1, sum(len(target.labels) for target in instances)))


def focal_loss(
    logits: Tensor, targets: Tensor, num_instances: float, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum of alpha_t (1 - p_t)^gamma BCE, divided by `num_instances`; targets 0 or 1, any shape."""
    p = logits.sigmoid()
    # p_t: the probability that was given to what is true
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # (1 - p_t)^gamma: what is easy counts little, or thousands of "no" would drown a few "yes".
    return (alpha_t * (1 - p_t) ** gamma * bce).sum() / num_instances


def dice_loss(logits: Tensor, targets: Tensor, num_instances: float) -> Tensor:
    """Sum over pairs of 1 - dice, divided by `num_instances`; logits and targets are (J, R)."""
    x = logits.sigmoid()
    # dice = 2 x.y / (x.x + y.y): in shares of the instance, so that small ones count as much
    overlap = (x * targets).sum(-1)
    sizes = x.square().sum(-1) + targets.square().sum(-1)
    return (1 - 2 * overlap / (sizes + 1e-4)).sum() / num_instances


def pixel_loss(logits: Tensor, targets: Tensor, num_instances: float) -> Tensor:
    """Mean cross-entropy over cells, summed over pairs (J, R), divided by `num_instances`."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return bce / (num_instances * max(1, logits.shape[-1]))


@torch.no_grad()
def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of (sigmoid >= 0.4) with (target > 0.5), pair by pair: (J, R), (J, R) -> (J,)."""
    x, y = logits.sigmoid() >= 0.4, targets > 0.5
    return (x & y).sum(-1) / ((x | y).sum(-1) + 1e-6)


def objectness_loss(logits: Tensor, iou: Tensor, num_instances: float) -> Tensor:
    """Cross-entropy of objectness (J,) against IoU (J,), summed, divided by `num_instances`."""
    # The target is a number between 0 and 1: even the best answer costs its entropy.
    return F.binary_cross_entropy_with_logits(logits, iou, reduction="sum") / num_instances


def mask_losses(mask_logits: Tensor, pairs: Pairs, num_instances: float) -> dict[str, Tensor]:
    """L_dice and L_pixel of the pairs' masks among mask logits (B, N, h, w)."""
    logits, masks = pairs.logits(mask_logits).flatten(1), pairs.masks.flatten(1)  # (J, R)
    return {
        "dice": dice_loss(logits, masks, num_instances),
        "pixel": pixel_loss(logits, masks, num_instances),
    }


def set_losses(
    class_logits: Tensor,  # (B, N, C)
    objectness: Tensor,  # (B, N)
    mask_logits: Tensor,  # (B, N, h, w)
    instances: Sequence[Instances],  # B of them, masks (G, H', W') by `transforms.resize_masks`
    num_instances: float | None = None,  # what all are divided by; default: `count_instances`
    matches: Sequence[Match] | None = None,  # who answers for whom, where that is decided already
) -> tuple[dict[str, Tensor], Sequence[Match]]:
    """{"cls", "dice", "pixel", "obj"}, scalars without weights, and who answers for whom.

    All are differentiable and finite, also for a batch without any instance.
    """
    if num_instances is None:
        num_instances = count_instances(instances)
    # Who answers for whom? From here on one row is one matched pair, whatever image it is of.
    if matches is None:
        matches = hungarian_match(class_logits, mask_logits, instances)
    pairs = Pairs.of(matches, instances)
    # L_cls: a matched query says yes to its class and no to all others, an unmatched one says no to
    # all. So duplicates are unlearned, and no NMS is needed.
    classes = torch.zeros_like(class_logits, dtype=torch.float32)  # (B, N, C)
    classes[pairs.image, pairs.query, pairs.labels] = 1.0
    # L_mask: of matched pairs alone. An unmatched query may draw whatever it likes.
    logits, masks = pairs.logits(mask_logits).flatten(1), pairs.masks.flatten(1)  # (J, R)
    # L_obj: a query that draws well is to know it.
    said, iou = objectness[pairs.image, pairs.query].float(), mask_iou(logits, masks)  # (J,)
    return {
        "cls": focal_loss(class_logits.float(), classes, num_instances),
        "dice": dice_loss(logits, masks, num_instances),
        "pixel": pixel_loss(logits, masks, num_instances),
        "obj": objectness_loss(said, iou, num_instances),
    }, matches
