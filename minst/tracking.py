"""Tracking by kernels: reuse within a clip, association between key frames (paper: "Efficient Tracking with Kernel
Reuse and Association").

    key frame t          encode + decode           kernels K^t, scores; matched one to one with the last key frame's
    frames t+1 .. t+T-1  encode only               M^{t+i} = K^t . X_mask^{t+i},  i = 1..T-1       (kernel reuse)

    association "cosine": Hungarian on cos(K_old, K_new)                                 what the paper states
    association "mask":   Hungarian on dice(K_old . X_mask^t, K_new . X_mask^t) * s_old * s_new    ours, see below

Online: one frame in, its identities and masks out. The state is one kernel, one running class score and a few numbers
for each of the N queries, whatever the length of the video. Only `track` gathers a whole video, as run-length codes.

Symbols: N queries = number of slots, K classes, D channels, H W frame size, h w = H/8, W/8.

Assumption: Hungarian assignment, as in MinVIS; the class score of a track is its mean over key frames (where it is seen).
Deviation: "mask" is not in the paper. Kernels learn to carry the query's identity more than the instance's, and then
    cosine returns every query to itself. Asking instead what the old kernels segment in the new frame costs one dot
    product and recovers an instance that changed its query.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle_codec
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.data.ytvis import encode_mask
from minst.matcher import pairwise_dice
from minst.model import Encoded, MobileInst, apply_kernels, as_frames, upsample_masks

__all__ = [
    "FrameResult",
    "KernelTracker",
    "Track",
    "VideoResult",
    "assign",
    "cosine_similarity",
    "mask_similarity",
]

ASSOCIATIONS = ("cosine", "mask")


def cosine_similarity(old: Tensor, new: Tensor) -> Tensor:
    """Cosine of every old kernel with every new one: (N, D), (N, D) -> (N, N) in [-1, 1]."""
    return F.normalize(old, dim=-1) @ F.normalize(new, dim=-1).T


def mask_similarity(old: Tensor, new: Tensor, x_mask: Tensor, old_scores: Tensor, new_scores: Tensor) -> Tensor:
    """Dice of what old and new kernels segment in the new frame, times both scores.

    old, new (N, D), x_mask (D, h, w), scores (N,) in [0, 1] -> (N, N) in [0, 1].
    """
    masks_old, masks_new = (apply_kernels(k[None], x_mask[None])[0].sigmoid().flatten(1) for k in (old, new))
    return pairwise_dice(masks_old, masks_new) * old_scores[:, None] * new_scores[None, :]


def assign(similarity: Tensor) -> Tensor:
    """One-to-one assignment of largest total similarity (N, N): the new query of every slot, (N,) long."""
    # equal similarities (all zero, say) leave a query in its slot
    tie_break = 1e-6 * torch.eye(len(similarity), device=similarity.device)
    _, columns = linear_sum_assignment((similarity + tie_break).cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, device=similarity.device)


class FrameResult(NamedTuple):
    """What the tracker says of one frame, best score first; all that it knows online."""

    frame: int  # 0, 1, ...
    is_key: bool
    ids: list[int]  # identities, from 1
    labels: list[int]  # class 0..K-1: the best of the running mean
    scores: list[float]  # running score of that class
    segmentations: list[dict]  # compressed RLE, `size` = the frame's
    queries: list[int]  # the query whose kernel segments it

    def masks(self) -> np.ndarray:
        """The masks (n, H, W) bool, decoded."""
        if not self.segmentations:
            return np.zeros((0, 0, 0), dtype=bool)
        return rle_codec.decode(self.segmentations).astype(bool).transpose(2, 0, 1)


class Track(NamedTuple):
    """One identity over a whole video."""

    id: int
    class_scores: list[float]  # (K,) the mean over its key frames
    segmentations: list[dict | None]  # one a frame; None where it is not seen

    @property
    def label(self) -> int:
        """The best class, 0..K-1."""
        return int(np.argmax(self.class_scores))

    @property
    def score(self) -> float:
        """The score of the best class, in [0, 1]."""
        return float(max(self.class_scores))


class VideoResult(NamedTuple):
    """All tracks of a video, best first, and the frames they were seen in."""

    tracks: list[Track]
    num_frames: int
    class_names: tuple[str, ...]

    def to_ytvis(self, video_id: int, category_ids: list[int] | None = None, min_score: float = 0.02) -> list[dict]:
        """Entries of a YouTube-VIS result file: one for every track and class whose score is at least `min_score`.

        category_ids: the file's id of class 0..K-1; default 1..K. Raises ValueError when frames differ in size,
        which that format cannot say.
        """
        sizes = {tuple(s["size"]) for t in self.tracks for s in t.segmentations if s is not None}
        if len(sizes) > 1:
            raise ValueError(f"video {video_id}: frames of sizes {sorted(sizes)}; YouTube-VIS knows one size a video")
        return [
            {
                "video_id": video_id,
                "category_id": category_ids[label] if category_ids else label + 1,
                "score": float(score),
                "segmentations": track.segmentations,
            }
            for track in self.tracks
            for label, score in enumerate(track.class_scores)
            if score >= min_score
        ]


class KernelTracker:
    """Online video instance segmentation with a MobileInst.

    Args:
        model: in eval mode (set here), fused or not. reuse_interval: T, a key frame every T frames.
        association: "cosine" (paper) | "mask" (ours).
        score_threshold: identities are reported on frames where the score of their key frame is at least this.
        mask_threshold: a pixel belongs to a mask when its probability is at least this.
        min_area: masks of fewer pixels are not reported.
        max_absence: after so many frames without being seen an identity ends; what its query finds later is new.

    Bad frames (wrong shape or type, smaller than 64 x 64, not finite) raise ValueError with the frame's number and
    leave the state as it was: skip the frame and go on. A change of resolution is allowed between frames: it makes
    the next frame a key frame and keeps the identities, since kernels do not depend on the resolution.
    """

    def __init__(
        self,
        model: MobileInst,
        reuse_interval: int = 3,
        association: str = "cosine",
        score_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        min_area: int = 12,
        max_absence: int = 1000,
    ):
        if reuse_interval < 1 or int(reuse_interval) != reuse_interval:
            raise ValueError(f"reuse_interval is {reuse_interval!r}; it must be a whole number of at least 1")
        if association not in ASSOCIATIONS:
            raise ValueError(f"association is {association!r}; choose one of {ASSOCIATIONS}")
        if not (0 <= score_threshold <= 1 and 0 < mask_threshold < 1):
            raise ValueError(f"thresholds {score_threshold}, {mask_threshold}: must lie between 0 and 1")
        self.model = model.eval()
        self.reuse_interval = int(reuse_interval)
        self.association = association
        self.score_threshold = score_threshold
        self.mask_logit = float(np.log(mask_threshold / (1 - mask_threshold)))
        self.min_area = min_area
        self.max_absence = max_absence
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a video."""
        self.frame = 0
        self.similarity: Tensor | None = None  # (N, N) of the last association, slots x new queries
        self.assignment: Tensor | None = None  # (N,) the new query of every slot
        self._since_key = 0
        self._size: tuple[int, int] | None = None
        self._next_id = 1
        self._slots: _Slots | None = None

    @torch.inference_mode()
    def step(self, frame: Tensor | np.ndarray) -> FrameResult:
        """The next frame, (3, H, W) floats in [0, 1] or (H, W, 3) bytes -> its identities, classes, scores, masks."""
        try:
            image = as_frames(frame)
            if not torch.isfinite(image).all():
                raise ValueError("holds NaN or infinite values; skip it, the state is unchanged")
            encoded = self.model.encode(image)
        except ValueError as error:
            raise ValueError(f"frame {self.frame}: {error}") from None
        return self.advance(encoded)

    @torch.inference_mode()
    def advance(self, encoded: Encoded) -> FrameResult:
        """`step` for a frame that `model.encode` has already seen: the same clip again, with other settings."""
        is_key = self._slots is None or self._since_key >= self.reuse_interval or encoded.size != self._size
        if is_key:
            self._key_frame(encoded)
        self._since_key = 1 if is_key else self._since_key + 1
        self._size = encoded.size
        result = self._report(encoded, is_key)
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
        seen: dict[int, dict[int, dict]] = {}  # id -> frame -> RLE
        means: dict[int, list[float]] = {}
        for result in results:
            for i, identity in enumerate(result.ids):
                seen.setdefault(identity, {})[result.frame] = result.segmentations[i]
            means.update(self._class_scores(result.ids))
        if not self.frame:
            raise ValueError("track: the video has no frames")
        tracks = [
            Track(identity, means[identity], [frames.get(t) for t in range(self.frame)])
            for identity, frames in seen.items()
        ]
        tracks.sort(key=lambda track: -track.score)
        return VideoResult(tracks, self.frame, self.model.config.class_names)

    def _key_frame(self, encoded: Encoded) -> None:
        out = self.model.decode(encoded)
        class_scores, kernels = out.scores()[0], out.kernels[0]  # (N, K), (N, D)
        if self._slots is None:
            self._slots = _Slots(kernels, class_scores)
        else:
            self.similarity = self._similarity(out, class_scores.amax(-1))
            self.assignment = assign(self.similarity)
        slots = self._slots
        order = torch.arange(len(kernels), device=kernels.device) if self.assignment is None else self.assignment
        slots.take(kernels[order], class_scores[order], order, self.frame, self.score_threshold)
        ended = slots.seen & (self.frame - slots.last_seen > self.max_absence)
        slots.clear(ended)

    def _similarity(self, out, new_scores: Tensor) -> Tensor:
        old, new = self._slots.kernels, out.kernels[0]
        if self.association == "cosine":
            return cosine_similarity(old, new)
        return mask_similarity(old, new, out.mask_features[0], self._slots.scores, new_scores)

    def _report(self, encoded: Encoded, is_key: bool) -> FrameResult:
        """Masks of the live slots alone: kernels of the last key frame, mask features of this frame."""
        slots = self._slots
        live = (slots.scores >= self.score_threshold).nonzero().squeeze(1)
        mask_logits = encoded.masks(slots.kernels[live][None])
        masks = (upsample_masks(mask_logits, encoded.size)[0] >= self.mask_logit).cpu().numpy()  # (n, H, W)
        found = [(int(slot), mask) for slot, mask in zip(live, masks) if mask.sum() >= self.min_area]
        for slot, _ in found:
            if not slots.ids[slot]:
                slots.ids[slot], self._next_id = self._next_id, self._next_id + 1
        scores = slots.means()
        found.sort(key=lambda item: -float(scores[item[0]].max()))
        return FrameResult(
            frame=self.frame,
            is_key=is_key,
            ids=[slots.ids[slot] for slot, _ in found],
            labels=[int(scores[slot].argmax()) for slot, _ in found],
            scores=[float(scores[slot].max()) for slot, _ in found],
            segmentations=[encode_mask(mask) for _, mask in found],
            queries=[int(slots.queries[slot]) for slot, _ in found],
        )

    def _class_scores(self, ids: list[int]) -> dict[int, list[float]]:
        means = self._slots.means()
        return {identity: means[self._slots.ids.index(identity)].tolist() for identity in ids}


class _Slots:
    """One slot an identity that may be: N of them, for ever."""

    def __init__(self, kernels: Tensor, class_scores: Tensor):
        count, device = len(kernels), kernels.device
        self.kernels = kernels.clone()  # (N, D) of the last key frame
        self.scores = torch.zeros(count, device=device)  # (N,) of the last key frame
        self.queries = torch.arange(count, device=device)
        self.total = torch.zeros_like(class_scores)  # (N, K) summed over the key frames that saw it
        self.count = torch.zeros(count, device=device)
        self.last_seen = torch.zeros(count, device=device)
        self.ids = [0] * count  # 0 = none yet

    @property
    def seen(self) -> Tensor:
        return self.count > 0

    def take(self, kernels: Tensor, class_scores: Tensor, queries: Tensor, frame: int, threshold: float) -> None:
        """A key frame's kernels, scores and queries, in the order of the slots."""
        self.kernels, self.queries = kernels, queries
        self.scores = class_scores.amax(-1)
        present = self.scores >= threshold
        self.total += class_scores * present[:, None]
        self.count += present
        self.last_seen[present] = frame

    def clear(self, ended: Tensor) -> None:
        """Forget the identities of the slots in `ended` (N,) bool."""
        self.total[ended], self.count[ended] = 0, 0
        for slot in ended.nonzero().flatten().tolist():
            self.ids[slot] = 0

    def means(self) -> Tensor:
        """Mean class scores over the key frames that saw the slot: (N, K)."""
        return self.total / self.count.clamp(min=1)[:, None]
