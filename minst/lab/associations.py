"""Rules of association, an oracle among them, and frames that keep the X6 of another.

    none         1 where slot and query are the same: who segments it now did so before
    cosine-all   cos(K_old, K_new) of all kernels, live or not: the paper's, to the letter
    cosine-live  the same, of those with a score of at least 0.3
    cosine       cos * s_old * s_new, the tracker's: the paper's in its fair reading
    mask-all     dice of the masks
    mask         dice * s_old * s_new, the tracker's: ours
    oracle       the truth says which query holds the slot's instance: what is left to be won

All end in the same Hungarian assignment. Deviation: all but "cosine"; the paper compares none.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import numpy as np
import torch
from torch import Tensor

from minst import tracking
from minst.evaluation.consistency import HOLD_IOU, SURE, mask_ious
from minst.model import Frame, MobileInst
from minst.predict import masks_of_queries
from minst.tracking import Candidates, cosine_similarity, mask_similarity

__all__ = ["ASSOCIATIONS", "Oracle", "encode_with"]


def by_live(old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """1 + cos where both are live, so that each such pair comes before all others; else 0."""
    both_live = (old.scores[:, None] >= SURE) & (new.scores[None, :] >= SURE)
    return (1 + cosine_similarity(old.kernels, new.kernels)) * both_live


ASSOCIATIONS = {
    "none": lambda old, new, x_mask: (old.queries[:, None] == new.queries).float(),
    "cosine-all": lambda old, new, x_mask: cosine_similarity(old.kernels, new.kernels),
    "cosine-live": by_live,
    "cosine": tracking.by_cosine,
    "mask-all": lambda old, new, x_mask: mask_similarity(old.kernels, new.kernels, x_mask),
    "mask": tracking.by_masks,
}


class Oracle:
    """An association that is told the truth of each key frame: `see` it, then call.

    A slot keeps the instance that it has held last, also while nobody finds that.
    """

    def __init__(self):
        self.seen = None  # (N,) the instance of each query of the last key frame; -1 = none
        self.slots = self.best = None  # (N,) the instance of each slot, its best score with it

    def see(self, frame: Frame, truths: np.ndarray) -> None:
        """A key frame, and the masks (G, H, W) of its instances, the same G in all of a clip."""
        self.before = self.seen
        ious = mask_ious(masks_of_queries(frame), truths)  # (N, G)
        fits = ious.max(1, initial=0.0) >= HOLD_IOU
        found = ious.argmax(1) if len(truths) else np.zeros(len(ious), int)
        self.seen = torch.from_numpy(np.where(fits, found, -1))

    def __call__(self, old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
        """The scores' product where slot and query hold the same, -1 where they hold others."""
        held = self.before[old.queries]
        if self.slots is None:
            self.slots, self.best = held, torch.zeros_like(old.scores)
        moved = (held >= 0) & (held != self.slots)
        self.slots = torch.where(moved, held, self.slots)
        self.best = torch.where(moved, 0.0, self.best)
        self.best = torch.maximum(self.best, old.scores * (held >= 0))
        # Nobody else's instance may move into a slot whose own is out of sight.
        known = (self.slots >= 0)[:, None] & (self.seen >= 0)
        same = self.slots[:, None] == self.seen
        # Of several slots of one instance the liveliest goes on with its liveliest query.
        score = self.best[:, None] * new.scores
        return torch.where(known, torch.where(same, score, -1.0), 0.0)


def encode_with(model: MobileInst, frames: Tensor, x6: Tensor) -> Frame:
    """`model.encode` of a TopFormer with X6 (B, C6, h, w) of others. Deviation: not the paper's."""
    backbone = model.backbone
    x, token_padding = model._pad((frames - model.pixel_mean) / model.pixel_std, None)
    tokens, semantics = backbone.tpm(x), x6.split(backbone.tpm.channels, dim=1)
    local = [backbone.SIM[i](tokens[i], semantics[i]) for i in (1, 2, 3)]
    x_mask = model.mask_decoder(*local, x6)
    return Frame(model, x6, x_mask, token_padding, tuple(frames.shape[-2:]))
