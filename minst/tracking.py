"""Tracking by kernels: reuse within a clip, association between key frames (paper: "Efficient Tracking with Kernel
Reuse and Association").

    key frame t          encode + decode           kernels K^t, scores; matched one to one with the last key frame's
    frames t+1 .. t+T-1  encode only               M^{t+i} = K^t . X_mask^{t+i},  i = 1..T-1       (kernel reuse)

    association "cosine": Hungarian on cos(K_old, K_new) * s_old * s_new                     the paper's, see below
    association "mask":   Hungarian on dice(K_old . X_mask^t, K_new . X_mask^t) * s_old * s_new      ours, see below

Online: one frame in, its identities and masks out. The state is one kernel, one running class score and a few numbers
for each of the N queries, whatever the length of the video. Only `track` gathers a whole video, as run-length codes.

Symbols: N queries = number of slots, K classes, D channels, H W frame size, h w = ceil(H/8), ceil(W/8).

Assumption: Hungarian assignment, as in MinVIS; the class score of a track is its mean over the key frames that saw it.
Assumption: scores in "cosine". In the paper duplicates are suppressed, so that only live kernels are there to be
    associated. Here N kernels always are, and the silent ones of an instance look like its live one: without the scores
    a silent duplicate often inherits the identity (lesson 07 measures it; minst.lab has the cosine of all kernels).
Deviation: "mask" is not in the paper. It asks what the old kernels segment in the new frame, which costs one more
    product, and so recovers an instance whose kernel has changed with its query.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.data.ytvis import encode_mask
from minst.matcher import pairwise_dice
from minst.model import Frame, MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.results import FrameResult, Track, VideoResult

__all__ = [
    "ASSOCIATIONS",
    "Candidates",
    "FrameResult",
    "KernelTracker",
    "Track",
    "VideoResult",
    "assign",
    "cosine_similarity",
    "mask_similarity",
]


class Candidates(NamedTuple):
    """What an association may look at, of the slots (old) or of the queries of a new key frame."""

    kernels: Tensor  # (N, D)
    scores: Tensor  # (N,) in [0, 1], of the best class
    queries: Tensor  # (N,) long, whose kernels these are


# old, new, X_mask (D, h, w) of the new frame -> similarity of every old with every new one (N, N), the larger the better
Association = Callable[[Candidates, Candidates, Tensor], Tensor]


def cosine_similarity(old: Tensor, new: Tensor) -> Tensor:
    """Cosine of every old kernel with every new one: (N, D), (N, D) -> (N, N) in [-1, 1]."""
    return F.normalize(old, dim=-1) @ F.normalize(new, dim=-1).T


def mask_similarity(old: Tensor, new: Tensor, x_mask: Tensor) -> Tensor:
    """Dice of what every old and every new kernel segments in the new frame.

    old, new (N, D), x_mask (D, h, w) -> (N, N) in [0, 1].
    """
    old_masks = apply_kernels(old[None], x_mask[None])[0].sigmoid()  # (N, h, w)
    new_masks = apply_kernels(new[None], x_mask[None])[0].sigmoid()
    return pairwise_dice(old_masks.flatten(1), new_masks.flatten(1))


def by_cosine(old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """cos(K_old, K_new) * s_old * s_new: kernels that look alike, if both are live."""
    return cosine_similarity(old.kernels, new.kernels) * old.scores[:, None] * new.scores[None, :]


def by_masks(old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """dice(K_old . X_mask, K_new . X_mask) * s_old * s_new: kernels that segment the same, if both are live."""
    return mask_similarity(old.kernels, new.kernels, x_mask) * old.scores[:, None] * new.scores[None, :]


ASSOCIATIONS: dict[str, Association] = {"cosine": by_cosine, "mask": by_masks}


def assign(similarity: Tensor) -> Tensor:
    """One-to-one assignment of largest total similarity (N, N): the new query of every slot, (N,) long."""
    # Where similarities are equal (all zero, say) a query stays in its slot.
    tie_break = 1e-6 * torch.eye(len(similarity), device=similarity.device)
    _, columns = linear_sum_assignment((similarity + tie_break).cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, device=similarity.device)


class KernelTracker:
    """Online video instance segmentation with a MobileInst.

    Args:
        model: in eval mode (set here), fused or not. reuse_interval: T, a key frame every T frames.
        association: "cosine" (paper) | "mask" (ours) | a function such as `by_cosine`.
        score_threshold: identities are reported on frames where the score of their key frame is at least this.
        mask_threshold: a pixel belongs to a mask when its probability is at least this.
        min_area: masks of fewer pixels are not reported.
        max_absence: after so many frames without being seen an identity ends; what its query finds later is new.

    Another model fits in if it has `eval()`, `config.class_names` and `encode(image (1, 3, H, W))`, whose result has
    `size` (H, W), `out` (class scores by `scores()`, kernels, mask features) and `masks(kernels)`, as `Frame` has.

    Bad frames (wrong shape or type, smaller than 64 x 64, not finite) raise ValueError with the frame's number and
    leave the state as it was: skip the frame and go on. A change of resolution is allowed between frames: it makes
    the next frame a key frame and keeps the identities, since kernels do not depend on the resolution.
    """

    def __init__(
        self,
        model: MobileInst,
        reuse_interval: int = 3,
        association: str | Association = "cosine",
        score_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        min_area: int = 12,
        max_absence: int = 1000,
    ):
        if reuse_interval < 1 or int(reuse_interval) != reuse_interval:
            raise ValueError(f"reuse_interval is {reuse_interval!r}; it must be a whole number of at least 1")
        if not callable(association) and association not in ASSOCIATIONS:
            raise ValueError(f"association is {association!r}; choose one of {tuple(ASSOCIATIONS)}")
        if not (0 <= score_threshold <= 1 and 0 < mask_threshold < 1):
            raise ValueError(f"thresholds {score_threshold}, {mask_threshold}: must lie between 0 and 1")
        self.model = model.eval()
        self.reuse_interval = int(reuse_interval)
        self.association = association
        self.score_threshold = score_threshold
        self.mask_logit = float(np.log(mask_threshold / (1 - mask_threshold)))  # sigmoid(logit) = threshold
        self.min_area = min_area
        self.max_absence = max_absence
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a video."""
        self.frame = 0
        self.similarity: Tensor | None = None  # (N, N) of the last association, slots x new queries
        self.assignment: Tensor | None = None  # (N,) the new query of every slot
        self.slots: Slots | None = None
        self._since_key = 0
        self._size: tuple[int, int] | None = None
        self._next_id = 1

    @torch.inference_mode()
    def step(self, frame: Tensor | np.ndarray) -> FrameResult:
        """The next frame, (3, H, W) floats in [0, 1] or (H, W, 3) bytes -> its identities, classes, scores, masks."""
        try:
            image = image_to_batch(frame)
            if not torch.isfinite(image).all():
                raise ValueError("holds NaN or infinite values; skip it, the state is unchanged")
            encoded = self.model.encode(image)
        except ValueError as error:
            raise ValueError(f"frame {self.frame}: {error}") from None
        return self.advance(encoded)

    @torch.inference_mode()
    def advance(self, frame: Frame) -> FrameResult:
        """`step` for a frame that `model.encode` has already seen: the same clip again, with other settings."""
        is_key = self.slots is None or self._since_key >= self.reuse_interval or frame.size != self._size
        if is_key:
            self._key_frame(frame)
        # Between key frames nothing is decoded: the kernels of the slots are used as they are.
        self._since_key = 1 if is_key else self._since_key + 1
        self._size = frame.size
        result = self._report(frame, is_key)
        self.frame += 1
        return result

    def track(self, video: Iterable[Tensor | np.ndarray]) -> VideoResult:
        """The loop over `step` from a fresh state, then video-level scores. Keeps run-length codes, not masks.

        A track's class score is its mean over the key frames that saw it: unlike the running scores of `step` it
        needs the whole video. Raises ValueError for a video without frames.
        """
        self.reset()
        return self.gather(self.step(frame) for frame in video)

    def gather(self, results: Iterable[FrameResult]) -> VideoResult:
        """The tracks of a whole video from the results of its frames, each asked for when the last was looked at."""
        seen: dict[int, dict[int, dict]] = {}  # identity -> frame -> RLE
        means: dict[int, list[float]] = {}  # identity -> class scores
        for result in results:
            for identity, segmentation in zip(result.ids, result.segmentations, strict=True):
                seen.setdefault(identity, {})[result.frame] = segmentation
            # Of all identities that live, reported on this frame or not: a key frame counts if it saw them.
            means |= self.slots.class_scores()
        if not self.frame:
            raise ValueError("track: the video has no frames")
        tracks = [
            Track(identity, means[identity], [frames.get(t) for t in range(self.frame)])
            for identity, frames in seen.items()
        ]
        tracks.sort(key=lambda track: -track.score)
        return VideoResult(tracks, self.frame, self.model.config.class_names)

    def _key_frame(self, frame: Frame) -> None:
        """New kernels and scores for every slot."""
        out = frame.out
        class_scores, kernels = out.scores()[0], out.kernels[0]  # (N, K), (N, D)
        queries = torch.arange(len(kernels), device=kernels.device)
        if self.slots is None:
            # The first key frame: slot n holds query n.
            self.slots, order = Slots(kernels, class_scores), queries
        else:
            # Which new query goes on with which slot?
            new = Candidates(kernels, class_scores.amax(-1), queries)
            associate = ASSOCIATIONS.get(self.association, self.association)
            self.similarity = associate(self.slots.candidates(), new, out.mask_features[0])  # (N, N)
            self.assignment = order = assign(self.similarity)  # (N,)
        self.slots.take(kernels[order], class_scores[order], order, self.frame, self.score_threshold)
        self.slots.end_unseen_since(self.frame - self.max_absence)

    def _report(self, frame: Frame, is_key: bool) -> FrameResult:
        """Masks of the live slots alone: kernels of the last key frame, mask features of this frame."""
        slots = self.slots
        live = (slots.scores >= self.score_threshold).nonzero().squeeze(1)  # (n,)
        # M^{t+i} = K^t . X_mask^{t+i}: of n live slots, not of all N queries, which is what makes reuse cheap
        mask_logits = frame.masks(slots.kernels[live][None])  # (1, n, h, w)
        masks = (upsample_masks(mask_logits, frame.size)[0] >= self.mask_logit).cpu().numpy()  # (n, H, W)
        found = [(int(slot), mask) for slot, mask in zip(live, masks) if mask.sum() >= self.min_area]
        # A slot that shows something for the first time gets an identity.
        for slot, _ in found:
            if not slots.ids[slot]:
                slots.ids[slot], self._next_id = self._next_id, self._next_id + 1
        means = slots.means()
        found.sort(key=lambda item: -float(means[item[0]].max()))
        return FrameResult(
            frame=self.frame,
            is_key=is_key,
            ids=[slots.ids[slot] for slot, _ in found],
            labels=[int(means[slot].argmax()) for slot, _ in found],
            scores=[float(means[slot].max()) for slot, _ in found],
            segmentations=[encode_mask(mask) for _, mask in found],
            queries=[int(slots.queries[slot]) for slot, _ in found],
        )


class Slots:
    """N places for identities. Slot s keeps identity ids[s], whichever query segments it from key frame to key frame.

        slots          queries of the last key frame    assignment        queries now
        s = 0  id 1    4                                4  (stays)        4
        s = 1  id 2    0                                2  (moves)        2
        s = 2  none    2                                0  (is left)      0

    assignment[s] is the query of the new key frame that continues slot s. So `kernels[assignment]` are the new kernels
    in the order of the slots, and nothing else has to be moved.
    """

    def __init__(self, kernels: Tensor, class_scores: Tensor):
        N, device = len(kernels), kernels.device
        self.kernels = kernels.clone()  # (N, D) of the last key frame
        self.scores = torch.zeros(N, device=device)  # (N,) of the last key frame
        self.queries = torch.arange(N, device=device)  # (N,) whose kernels these are
        self.total = torch.zeros_like(class_scores)  # (N, K) summed over the key frames that saw it
        self.count = torch.zeros(N, device=device)  # (N,) how many did
        self.last_seen = torch.zeros(N, device=device)  # (N,) frame
        self.ids = [0] * N  # 0 = no identity yet

    def candidates(self) -> Candidates:
        """What an association may look at."""
        return Candidates(self.kernels, self.scores, self.queries)

    def take(self, kernels: Tensor, class_scores: Tensor, queries: Tensor, frame: int, threshold: float) -> None:
        """A key frame's kernels (N, D), class scores (N, K) and queries (N,), in the order of the slots."""
        self.kernels, self.queries = kernels, queries
        self.scores = class_scores.amax(-1)
        # Only the key frames that see an identity say what it is.
        present = self.scores >= threshold
        self.total += class_scores * present[:, None]
        self.count += present
        self.last_seen[present] = frame

    def end_unseen_since(self, frame: float) -> None:
        """Forget the identities that were last seen before `frame`."""
        ended = (self.count > 0) & (self.last_seen < frame)
        self.total[ended], self.count[ended] = 0, 0
        for slot in ended.nonzero().flatten().tolist():
            self.ids[slot] = 0

    def means(self) -> Tensor:
        """Mean class scores over the key frames that saw the slot: (N, K)."""
        return self.total / self.count.clamp(min=1)[:, None]

    def class_scores(self) -> dict[int, list[float]]:
        """The same, of every identity."""
        means = self.means().tolist()
        return {identity: means[slot] for slot, identity in enumerate(self.ids) if identity}
