"""Temporal training via query passing (paper: "Temporal Training via Query Passing", Fig 4).

    frame t:        Q -> global decoder -> Q_G^t -> local decoder -> masks M^t            usual losses
                                            |
    frame t+delta:  X_L^{t+delta} -------> local decoder -> kernels -> M~^{t+delta}       mask losses only

No new parameter and no new loss: the local decoder learns to find, in another frame, the instance that a query already
stands for. At inference nothing of this runs.

Which instance is a passed query held to? "shared" is what the paper says, the other two are ablations (lesson 09):

    shared   M~^{t+delta} shares the targets of M^{t+delta}: frame t+delta's own matching says who answers for whom
    kept     the instance that frame t's matching gave the query; one that is gone is left out
    fresh    the passed masks are matched anew

The two frames of a pair may be matched one by one, as the paper's image losses are, or together (`match_pairs`): then a
query answers for one instance in both of them, and "shared" and "kept" are the same.

Symbols: P pairs of frames, N queries, D channels, h w cells of the mask logits, M instances of a frame.

Deviation: the shipped weights were trained with the two frames matched together. It is what makes a query stay with its
    instance although each frame is computed by itself.
Assumption: delta is drawn uniformly from 1..max_gap, and the pair is played backwards half of the time.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minst.losses import Pairs, count_instances, mask_losses
from minst.matcher import Instances, best_match, matching_scores

__all__ = ["Match", "kept_pairs", "match_pairs", "query_passing_losses"]

Match = tuple[Tensor, Tensor]  # queries and instances of one image, two index tensors of equal length


def kept_pairs(match: Match, now: Instances, later: Instances) -> Match:
    """The match (queries, instances) of frame t carried to frame t+delta by identity ("kept").

    Returns (queries, indices into `later`) of those instances that are still there; both of equal length, maybe 0.
    """
    queries, found = match
    # Row i, column j: is the instance of pair i the j-th instance of frame t+delta?
    same = now.ids[found][:, None] == later.ids[None, :]  # (matched, M_later)
    rows, columns = same.nonzero(as_tuple=True)
    return queries[rows], columns


@torch.no_grad()
def match_pairs(class_logits: Tensor, mask_logits: Tensor, instances: Sequence[Instances]) -> list[Match]:
    """One matching for both frames of a pair: class_logits (2P, N, K), mask_logits (2P, N, h, w), 2P x Instances.

    Every second half is t+delta of the first. Returns 2P matches, as `matcher.hungarian_match` does. An instance that
    only one of the frames shows is matched by what that frame says.
    """
    P, N = len(instances) // 2, class_logits.shape[1]
    matches: list[Match] = [None] * (2 * P)
    for p in range(P):
        both = (p, P + p)
        ids = torch.cat([instances[b].ids for b in both]).unique()  # (M,) of the pair
        # score(n, m) = sum over the frames that show m of dice^0.8 p^0.2
        total = class_logits.new_zeros(N, len(ids), dtype=torch.float32)
        for b in both:
            with torch.autocast(mask_logits.device.type, enabled=False):
                scores = matching_scores(class_logits[b], mask_logits[b], instances[b])  # (N, M_b)
            total[:, torch.searchsorted(ids, instances[b].ids)] += scores
        queries, found = best_match(total)
        # Each frame gets the part of the matching that it shows.
        for b in both:
            rows, columns = (ids[found][:, None] == instances[b].ids).nonzero(as_tuple=True)
            matches[b] = queries[rows], columns
    return matches


def query_passing_losses(
    passed_logits: Tensor,  # (P, N, h, w), `model.pass_queries(Q_G of frames t, frames t+delta)`
    matches: Sequence[Match],  # P of them: which query is held to which instance of frame t+delta
    later: Sequence[Instances],  # the instances of the P frames t+delta
    num_instances: float | None = None,  # what both are divided by; default: the number of `later`
) -> dict[str, Tensor]:
    """L_mask of passed queries at frames t+delta, {"dice", "pixel"}; zero, with a gradient, without any instance."""
    if num_instances is None:
        num_instances = count_instances(later)
    # M~^{t+delta} is judged like any other mask: by dice and cross-entropy against its instance.
    pairs = Pairs.of(matches, later)
    return mask_losses(passed_logits, pairs, num_instances)
