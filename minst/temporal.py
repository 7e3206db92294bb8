"""Temporal training via query passing (paper: "Temporal Training via Query Passing", Fig 4).

    frame t:       nothing -> global decoder -> Q_G^t -> local decoder -> masks M^t     usual losses
                                                  |
    frame t+delta: X_L^{t+delta} -----------> local decoder -> masks M~^{t+delta}       L_mask alone

No new parameter and no new loss: the local decoder learns to find, in another frame, the instance
that a query already stands for. At inference nothing of this runs.

Which instance is a passed query held to? The first answer is the paper's, the others are ablations:

    shared   M~^{t+delta} shares the targets of M^{t+delta}: frame t+delta's matching decides
    kept     the instance that frame t's matching gave the query; one that is gone is left out
    fresh    the passed masks are matched anew

Symbols: B pairs of frames, N queries, C classes, h w cells of the mask logits, G instances.

Lesson: notebooks/06_temporal_training.ipynb
"""

from collections.abc import Sequence

from torch import Tensor

from minst.losses import Pairs, count_instances, mask_losses
from minst.matcher import Instances, Match, hungarian_match

__all__ = ["kept_pairs", "passed_matches", "query_passing_losses"]


def kept_pairs(match: Match, now: Instances, later: Instances) -> Match:
    """The match of frame t carried to frame t+delta by identity: queries, indices into `later`."""
    queries, found = match
    # Row i, column j: is the instance of pair i the j-th instance of frame t+delta?
    same = now.ids[found][:, None] == later.ids[None, :]  # (matched, M_later)
    rows, columns = same.nonzero(as_tuple=True)
    return queries[rows], columns


def passed_matches(
    way: str,  # "shared", "kept" or "fresh", as above
    class_logits: Tensor,  # (B, N, C) of frames t+delta
    passed_logits: Tensor,  # (B, N, h, w), what passed queries draw there
    matches: Sequence[Match],  # 2 B: of frames t, then of frames t+delta
    instances: Sequence[Instances],  # the same
) -> Sequence[Match]:
    """Of each pair, which instance of frame t+delta a passed query is held to."""
    B = len(passed_logits)
    now, later = instances[:B], instances[B:]
    if way == "fresh":
        return hungarian_match(class_logits, passed_logits, later)
    if way == "kept":
        return [kept_pairs(*of) for of in zip(matches[:B], now, later, strict=True)]
    # M~ shares the targets of M: the query draws in t+delta what the query of its number draws.
    return matches[B:]


def query_passing_losses(
    passed_logits: Tensor,  # (B, N, h, w), `model.pass_queries(Q_G of frames t, frames t+delta)`
    matches: Sequence[Match],  # B: which query is held to which instance of frame t+delta
    later: Sequence[Instances],  # B: the instances of frames t+delta
    num_instances: float | None = None,  # what both are divided by; default: those of `later`
) -> dict[str, Tensor]:
    """L_mask of passed queries at frames t+delta: {"dice", "pixel"}, zero without any instance."""
    if num_instances is None:
        num_instances = count_instances(later)
    # M~^{t+delta} is judged like any other mask, by dice and cross-entropy against its instance.
    return mask_losses(passed_logits, Pairs.of(matches, later), num_instances)
