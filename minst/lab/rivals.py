"""Other ways to associate, and two that go beyond the paper, as trackers that change one step of `KernelTracker`.

    Rival(model, T, association)     "none", "cosine", "greedy", "scores", "centred", "dot", "mask"
    AdaptiveRival(model, agreement)  a key frame when the old kernels no longer fit (beyond the paper)
    FrozenX6(model, T)               X6 of the key frame on the frames after it (beyond the paper)

All associations but greedy end in the same Hungarian assignment, of

    none      1 where slot and query are the same: whoever segments it now is who segmented it before
    cosine    cos(K_old, K_new), the paper's             greedy    the same, largest first, without looking back
    scores    cos * s_old * s_new                        centred   cos(K_old - mean of its query, K_new - mean of its)
    dot       K_old . K_new                              mask      ours: dice of the masks * s_old * s_new

Deviation: everything here but "cosine"; the paper compares none of them.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from minst.evaluation.run import EVALUATION_THRESHOLD
from minst.model import Encoded, FrameOutput, MobileInst, as_frames
from minst.tracking import FrameResult, KernelTracker, cosine_similarity, mask_similarity

__all__ = ["ASSOCIATIONS", "AdaptiveRival", "FrozenX6", "Rival", "greedy", "mean_kernels"]

ASSOCIATIONS = ("none", "cosine", "greedy", "scores", "centred", "dot", "mask")


class Rival(KernelTracker):
    """`KernelTracker` with another similarity; counts how often a live slot goes on with another query.

    means (N, D): what `mean_kernels` says of the queries, for "centred" alone. Shows tracks of score 0.1 and more, as
    AP wants them.
    """

    def __init__(
        self, model: MobileInst, reuse_interval: int = 3, association: str = "cosine", means: Tensor | None = None
    ):
        if association not in ASSOCIATIONS:
            raise ValueError(f"association is {association!r}; choose one of {', '.join(ASSOCIATIONS)}")
        if association == "centred" and means is None:
            raise ValueError("association centred needs the mean kernel of every query: mean_kernels(model, frames)")
        super().__init__(model, reuse_interval, score_threshold=EVALUATION_THRESHOLD)
        self.rival, self.means = association, means
        self.moved = self.stayed = self.keys = 0  # summed over videos

    def _similarity(self, out: FrameOutput, new_scores: Tensor) -> Tensor:
        slots, new = self._slots, out.kernels[0]
        old = slots.kernels
        if self.rival == "none":
            return (slots.queries[:, None] == torch.arange(len(new), device=new.device)).float()
        if self.rival == "dot":
            return old @ new.T
        if self.rival == "mask":
            return mask_similarity(old, new, out.mask_features[0], slots.scores, new_scores)
        if self.rival == "centred":
            old, new = old - self.means[slots.queries], new - self.means
        similarity = cosine_similarity(old, new)
        if self.rival == "scores":
            return similarity * slots.scores[:, None] * new_scores
        return greedy(similarity) if self.rival == "greedy" else similarity

    def _key_frame(self, encoded: Encoded) -> None:
        before = self._slots.queries if self._slots else None
        super()._key_frame(encoded)
        self.keys += 1
        if before is not None:
            live = self._slots.scores >= self.score_threshold
            moved = int((self._slots.queries != before)[live].sum())
            self.moved, self.stayed = self.moved + moved, self.stayed + int(live.sum()) - moved


class AdaptiveRival(Rival):
    """A key frame when agreement falls below `agreement` times what it was on the last one, or after 12 frames.

    Agreement: dice of the soft masks of the old kernels with the same masks made hard, mean over the slots by their
    scores. A kernel that fits draws sharp masks. It cannot see an instance that enters: nobody draws it yet.
    """

    def __init__(self, model: MobileInst, agreement: float, association: str = "mask", longest: int = 12):
        super().__init__(model, longest, association)
        self.agreement = agreement

    @torch.inference_mode()
    def advance(self, encoded: Encoded) -> FrameResult:
        """`KernelTracker.advance`, with a key frame wherever agreement has dropped."""
        if self._slots is not None and self._agreement(encoded) < self.agreement * self._at_key:
            self._since_key = self.reuse_interval
        result = super().advance(encoded)
        if result.is_key:
            self._at_key = self._agreement(encoded)
        return result

    def _agreement(self, encoded: Encoded) -> float:
        soft = encoded.masks(self._slots.kernels[None])[0].sigmoid().flatten(1)  # (N, h * w)
        hard = (soft > 0.5).float()
        sharp = 2 * (soft * hard).sum(1) / (soft.sum(1) + hard.sum(1))  # (N,)
        return float((sharp * self._slots.scores).sum() / self._slots.scores.sum())


class FrozenX6(Rival):
    """On frames between key frames the transformer blocks are skipped: X6 is that of the key frame. TopFormer alone."""

    @torch.inference_mode()
    def step(self, frame: Tensor | np.ndarray) -> FrameResult:
        """`KernelTracker.step`, with X6 of the last key frame in between."""
        image = as_frames(frame)
        if self._slots is None or self._since_key >= self.reuse_interval:
            encoded = self.model.encode(image)
            self._x6 = encoded.x6
        else:
            encoded = encode_with(self.model, image, self._x6)
        return self.advance(encoded)


def encode_with(model: MobileInst, frames: Tensor, x6: Tensor) -> Encoded:
    """`model.encode` with X6 (B, C6, h, w) of another frame: token pyramid, injection and mask decoder alone."""
    backbone = model.backbone
    x, token_padding = model._pad((frames - model.pixel_mean) / model.pixel_std, None)
    tokens, semantics = backbone.tpm(x), x6.split(backbone.tpm.channels, dim=1)
    local = [backbone.SIM[i](tokens[i], semantics[i]) for i in (1, 2, 3)]
    return Encoded(x6, model.mask_decoder(*local, x6), token_padding, tuple(frames.shape[-2:]))


def greedy(similarity: Tensor) -> Tensor:
    """The one-to-one assignment that always takes the largest similarity left, (N, N), as ones among zeros."""
    left, chosen = similarity.clone(), torch.zeros_like(similarity)
    for _ in range(len(left)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        chosen[row, column] = 1
        left[row], left[:, column] = -torch.inf, -torch.inf
    return chosen


@torch.inference_mode()
def mean_kernels(model: MobileInst, frames: Iterable[np.ndarray]) -> Tensor:
    """The mean kernel of every query over images (H, W, 3): (N, D). What all its kernels share says nothing of instances."""
    kernels = [model.decode(model.encode(as_frames(frame))).kernels[0] for frame in frames]
    return torch.stack(kernels).mean(0)
