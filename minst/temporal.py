"""Temporal training via query passing (paper: "Temporal Training via Query Passing", Fig 4).

    frame t:        Q -> global stage -> Q_G^t -> local stage -> masks M^t             usual losses
                                          |
    frame t+delta:  X_L^{t+delta} ------> local stage -> kernels -> M~^{t+delta}       mask losses only

No new parameter and no new loss: the local stage learns to find, in another frame, the instance that a query already
stands for. At inference nothing of this runs.

Symbols: P pairs of frames, N queries, D channels.

Assumption: identity is kept. A passed query is supervised with the instance that it was matched to at frame t; an
    instance that is gone at t+delta is left out. `identity="fresh"` matches anew at t+delta instead (ablation).
Assumption: delta is drawn uniformly from 1..max_gap, and the pair is played backwards half of the time.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minst.losses import mask_losses
from minst.matcher import Instances, hungarian_match, resize_masks
from minst.model import Encoded, FrameOutput, MobileInst

__all__ = ["kept_pairs", "query_passing_losses"]


def kept_pairs(match: tuple[Tensor, Tensor], now: Instances, later: Instances) -> tuple[Tensor, Tensor]:
    """The match (queries, instances) of frame t carried to frame t+delta by identity.

    Returns (queries, indices into `later`) of those instances that are still there; both of equal length, maybe 0.
    """
    queries, found = match
    same = now.ids[found][:, None] == later.ids[None, :]  # (matched, M_later)
    rows, columns = same.nonzero(as_tuple=True)
    return queries[rows], columns


def query_passing_losses(
    model: MobileInst,
    now: FrameOutput,  # P frames t
    later: Encoded,  # the P frames t+delta
    matches: Sequence[tuple[Tensor, Tensor]],  # of frames t
    instances_now: Sequence[Instances],
    instances_later: Sequence[Instances],
    class_logits_later: Tensor | None = None,  # (P, N, K), needed by identity="fresh" alone
    identity: str = "kept",
    num_pairs: float | None = None,
) -> dict[str, Tensor]:
    """Mask losses {"dice", "pixel"} of passed queries at frames t+delta, divided by `num_pairs` (None: their number).

    Zero, with a gradient, when no instance is seen in both frames of any pair.
    """
    mask_logits = model.pass_queries(now.global_queries, later)  # (P, N, h, w)
    size = tuple(mask_logits.shape[-2:])
    instances_later = [target._replace(masks=resize_masks(target.masks, size)) for target in instances_later]
    if identity == "fresh":
        pairs = hungarian_match(class_logits_later, mask_logits, instances_later)
    else:
        pairs = [kept_pairs(*args) for args in zip(matches, instances_now, instances_later, strict=True)]
    frame = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(pairs)])
    query = torch.cat([queries for queries, _ in pairs])
    masks = torch.cat([target.masks[found] for target, (_, found) in zip(instances_later, pairs)])
    return mask_losses(mask_logits[frame, query], masks, num_pairs or float(max(1, len(query))))
