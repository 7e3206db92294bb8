"""Which query answers for which instance: one-to-one bipartite matching (paper: "Loss Function").

    score(query n, instance m) = dice(mask n, mask m)^0.8 * p(class of m | query n)^0.2
    the one-to-one assignment of largest total score, by the Hungarian algorithm

Masks are compared on a grid finer than the mask logits' 1/8. The logits are enlarged bilinearly, as
they are when the model is used; a target's cell holds the share that the instance covers.

Symbols: N queries, G instances of one image, C classes, h w cells of the mask logits (1/8),
    H' W' cells of the targets (1/2).

Lesson: notebooks/05_losses.ipynb
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["Instances", "Match", "hungarian_match", "matching_scores"]

Match = tuple[Tensor, Tensor]  # queries and instances of one image, index tensors of equal length


class Instances(NamedTuple):
    """The ground truth of one frame. `ids` tell instances apart across the frames of one video."""

    labels: Tensor  # (G,) long, class 0..C-1
    masks: Tensor  # (G, H', W') float, the share of each cell that is covered, in [0, 1]
    ids: Tensor  # (G,) long


def check_targets(labels: Tensor, masks: Tensor, num_classes: int | None = None) -> None:
    """ValueError for labels that are no class, and for masks of 0 and 255 in the place of 1."""
    # Neither stops a training by itself: -1 is Python's last class, a dice of 255 is a number.
    most = (num_classes or 2**31) - 1
    if len(labels) and not 0 <= labels.min() <= labels.max() <= most:
        what = f"labels {labels.tolist()} are not all of the classes 0..{most}"
        raise ValueError(f"instances: {what}")
    # A little more than 1 may be left by whoever has resized them.
    if masks.numel() and not -0.01 <= masks.min() <= masks.max() <= 1.01:
        low, high = float(masks.min()), float(masks.max())
        raise ValueError(f"instances: masks hold {low:g} .. {high:g}; their cells are in [0, 1]")


def enlarge(mask_logits: Tensor, targets: Tensor) -> Tensor:
    """Mask logits (N, h, w), bilinearly, on the grid of targets (G, H', W') -> (N, H', W')."""
    _, h, w = mask_logits.shape
    size = targets.shape[-2:]
    factor = size[0] // h
    if size != (factor * h, factor * w):
        raise ValueError(f"targets of {tuple(size)} cells do not fit mask logits of {(h, w)}")
    return F.interpolate(mask_logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pairwise_dice(predictions: Tensor, targets: Tensor) -> Tensor:
    """dice of probabilities (N, h w) with soft masks (G, h w), in pairs -> (N, G) in [0, 1]."""
    # dice = 2 x.y / (x.x + y.y)
    overlap = predictions @ targets.T  # (N, G)
    sizes = predictions.square().sum(-1)[:, None] + targets.square().sum(-1)[None, :]
    return 2 * overlap / (sizes + 1e-4)


# Assumption: the paper says nothing of the cost. Ours is SparseInst's, whose losses it follows.
def matching_scores(class_logits: Tensor, mask_logits: Tensor, instances: Instances) -> Tensor:
    """dice^0.8 * p^0.2 of one image: logits (N, C) and (N, h, w), G instances -> (N, G)."""
    check_targets(instances.labels, instances.masks, class_logits.shape[-1])
    probability = class_logits.float().sigmoid()[:, instances.labels]  # (N, G)
    masks = enlarge(mask_logits.float(), instances.masks).sigmoid()  # (N, H', W')
    dice = pairwise_dice(masks.flatten(1), instances.masks.float().flatten(1))  # (N, G)
    # The mask decides first: a class can be learned by whoever has the mask.
    return dice.pow(0.8) * probability.pow(0.2)


@torch.no_grad()
def hungarian_match(
    class_logits: Tensor, mask_logits: Tensor, instances: Sequence[Instances]
) -> list[Match]:
    """Of every image of the batch the matched queries and their instances, min(N, G) of them.

    class_logits (B, N, C), mask_logits (B, N, h, w), and one `Instances` per image.
    FloatingPointError for scores that are not finite, as of a model that has diverged.
    """
    matches = []
    for classes, masks, target in zip(class_logits, mask_logits, instances, strict=True):
        # Three digits of bf16 are too few to compare scores.
        with torch.autocast(masks.device.type, enabled=False):
            scores = matching_scores(classes, masks, target)  # (N, G)
        if not torch.isfinite(scores).all():
            raise FloatingPointError("matching: scores are not finite; look for NaN in the logits")
        pair = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
        match = tuple(torch.as_tensor(i, dtype=torch.long, device=scores.device) for i in pair)
        matches.append(match)
    return matches
