"""Other ways to associate, and two trackers that go beyond the paper.

    association(name, means)         one of ASSOCIATIONS, as `KernelTracker` takes it
    AdaptiveT(model, agreement)  a key frame when old kernels no longer fit (beyond the paper)
    FrozenX6(model, T)               X6 of the key frame on the frames after it (beyond the paper)

All associations end in the same Hungarian assignment, of

    none         1 where slot and query are the same: who segments it now did so before
    cosine-all   cos(K_old, K_new) of all kernels, live or not
    cosine       cos * s_old * s_new, the tracker's: the paper's in its fair reading
    greedy       cos, largest first, without looking back
    centred      cos(K_old - mean of its query, K_new - mean of its query)
    dot          K_old . K_new
    mask-alone   dice of the masks
    mask         dice * s_old * s_new, the tracker's: ours

Deviation: everything here but "cosine"; the paper compares none of them.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from minst import tracking
from minst.model import Frame, MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD
from minst.results import FrameResult
from minst.tracking import Candidates, KernelTracker, cosine_similarity, mask_similarity

__all__ = ["ASSOCIATIONS", "AdaptiveT", "FrozenX6", "Moves", "association", "mean_kernels"]


def greedy(similarity: Tensor) -> Tensor:
    """The assignment that always takes the largest similarity left, (N, N), as ones among zeros."""
    left, chosen = similarity.clone(), torch.zeros_like(similarity)
    for _ in range(len(left)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        chosen[row, column] = 1
        left[row], left[:, column] = -torch.inf, -torch.inf
    return chosen


def by_centred(means: Tensor, old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """Cosine less the means (N, D) of the queries whose kernels these are."""
    return cosine_similarity(old.kernels - means[old.queries], new.kernels - means[new.queries])


ASSOCIATIONS = {
    "none": lambda old, new, x_mask: (old.queries[:, None] == new.queries).float(),
    "cosine-all": lambda old, new, x_mask: cosine_similarity(old.kernels, new.kernels),
    "cosine": tracking.by_cosine,
    "greedy": lambda old, new, x_mask: greedy(cosine_similarity(old.kernels, new.kernels)),
    "centred": by_centred,
    "dot": lambda old, new, x_mask: old.kernels @ new.kernels.T,
    "mask-alone": lambda old, new, x_mask: mask_similarity(old.kernels, new.kernels, x_mask),
    "mask": tracking.by_masks,
}


def association(name: str, means: Tensor | None = None) -> tracking.Association:
    """One of `ASSOCIATIONS`; means (N, D): what `mean_kernels` says, for "centred" alone."""
    if name not in ASSOCIATIONS:
        raise ValueError(f"association is {name!r}; choose one of {', '.join(ASSOCIATIONS)}")
    if name != "centred":
        return ASSOCIATIONS[name]
    if means is None:
        raise ValueError("centred needs the mean kernel of each query: mean_kernels(model, images)")
    return partial(by_centred, means)


@torch.inference_mode()
def mean_kernels(model: MobileInst, images: Iterable[np.ndarray]) -> Tensor:
    """The mean kernel of every query over images (H, W, 3): (N, D).

    What all kernels of a query share says nothing of instances.
    """
    kernels = [model.encode(image_to_batch(image)).out.kernels[0] for image in images]
    return torch.stack(kernels).mean(0)


class Moves:
    """How often a live slot goes on with another query (`moved`) or its own (`stayed`); `keys`.

    Summed over the videos that were watched.
    """

    def __init__(self):
        self.keys = self.moved = self.stayed = 0

    def watch(self, tracker: KernelTracker, results: Iterable) -> Iterator[FrameResult]:
        """Hand on what `tracker` says of the frames of a video, counting."""
        before = None  # (N,) the queries of the slots at the last key frame
        for result in results:
            if result.is_key:
                now, live = tracker.slots.queries, tracker.slots.scores >= tracker.score_threshold
                if before is not None:
                    changed = (now != before)[live]
                    self.moved += int(changed.sum())
                    self.stayed += int((~changed).sum())
                self.keys, before = self.keys + 1, now
            yield result


class AdaptiveT(KernelTracker):
    """A key frame when agreement falls below `agreement` times what it was on the last one.

    Agreement: dice of the soft masks of the old kernels with the same masks made hard, mean over
    the slots by their scores. A kernel that fits draws sharp masks. It cannot see an instance that
    enters: nobody draws it yet. So after `longest` frames there is a key frame in any case.
    """

    def __init__(self, model: MobileInst, agreement: float, longest: int = 12):
        super().__init__(model, longest, "mask", score_threshold=EVALUATION_THRESHOLD)
        self.agreement, self.longest = agreement, longest

    @torch.inference_mode()
    def advance(self, frame: Frame) -> FrameResult:
        """`KernelTracker.advance`, with a key frame wherever agreement has dropped."""
        stale = self.slots is not None
        stale = stale and self.agreement_with(frame) < self.agreement * self.at_key_frame
        # At an interval of 1 this frame is a key frame.
        self.reuse_interval = 1 if stale else self.longest
        result = super().advance(frame)
        if result.is_key:
            self.at_key_frame = self.agreement_with(frame)
        return result

    def agreement_with(self, frame: Frame) -> float:
        """How sharp are the masks that the slots' kernels draw on this frame? In [0, 1]."""
        soft = frame.masks(self.slots.kernels[None])[0].sigmoid().flatten(1)  # (N, h * w)
        hard = (soft > 0.5).float()
        sharp = 2 * (soft * hard).sum(1) / (soft.sum(1) + hard.sum(1))  # (N,)
        return float((sharp * self.slots.scores).sum() / self.slots.scores.sum())


class FrozenX6(KernelTracker):
    """On frames between key frames the transformer blocks are skipped: X6 is the key frame's.

    For TopFormer, and for videos of one resolution.
    """

    @torch.inference_mode()
    def step(self, frame: Tensor | np.ndarray) -> FrameResult:
        """`KernelTracker.step`, with X6 of the last key frame in between."""
        image = image_to_batch(frame)
        if self.frame % self.reuse_interval == 0:
            encoded = self.model.encode(image)
            self.x6 = encoded.x6
        else:
            encoded = encode_with(self.model, image, self.x6)
        return self.advance(encoded)


def encode_with(model: MobileInst, frames: Tensor, x6: Tensor) -> Frame:
    """`model.encode` with X6 (B, C6, h, w) of another frame: the backbone's convolutions alone."""
    backbone = model.backbone
    x, token_padding = model._pad((frames - model.pixel_mean) / model.pixel_std, None)
    tokens, semantics = backbone.tpm(x), x6.split(backbone.tpm.channels, dim=1)
    local = [backbone.SIM[i](tokens[i], semantics[i]) for i in (1, 2, 3)]
    x_mask = model.mask_decoder(*local, x6)
    return Frame(model, x6, x_mask, token_padding, tuple(frames.shape[-2:]))
