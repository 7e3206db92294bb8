"""Kernel reuse within a clip, kernel association between key frames (paper: "Efficient Tracking").

    key frame t          encode, decode   kernels K^t, matched one to one with the last key frame's
    frames t+1 .. t+T-1  encode           M^{t+i} = K^t . X_mask^{t+i}, i = 1..T-1   (kernel reuse)

    association "cosine": Hungarian on cos(K_old, K_new) * s_old * s_new          the paper's
    association "mask":   Hungarian on dice(K_old . X_mask, K_new . X_mask) * s_old * s_new    ours

Online: one frame in, its identities and masks out, with a state of constant size. `track` alone
gathers a video, as run-length codes.

Symbols: N queries = number of slots, C classes, D channels, H W frame size, h w = H/8, W/8.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.data.ytvis import encode_mask
from minst.matcher import pairwise_dice
from minst.model import apply_kernels, image_to_batch, upsample_masks
from minst.protocol import EncodedFrame, QueryModel
from minst.results import FrameResult, Track, VideoResult, gather_frames

__all__ = ["ASSOCIATIONS", "Candidates", "FrameResult", "KernelTracker", "Track", "VideoResult"]


class Candidates(NamedTuple):
    """What an association may look at, of the slots (old) or of a new key frame's queries (new)."""

    kernels: Tensor  # (N, D)
    scores: Tensor  # (N,) in [0, 1], of the best class
    queries: Tensor  # (N,) long, whose kernels these are


# old, new, X_mask (D, h, w) of the new frame -> similarity (N, N), the larger the better
Association = Callable[[Candidates, Candidates, Tensor], Tensor]


def cosine_similarity(old: Tensor, new: Tensor) -> Tensor:
    """Cosine of every old kernel with every new one: (N, D), (N, D) -> (N, N) in [-1, 1]."""
    return F.normalize(old, dim=-1) @ F.normalize(new, dim=-1).T


def mask_similarity(old: Tensor, new: Tensor, x_mask: Tensor) -> Tensor:
    """Dice of what kernels segment in the new frame: (N, D), (N, D), (D, h, w) -> (N, N)."""
    kernels = torch.stack([old, new])  # (2, N, D)
    masks = apply_kernels(kernels, x_mask.expand(2, -1, -1, -1)).sigmoid()  # (2, N, h, w)
    return pairwise_dice(*masks.flatten(2))


# Assumption: the scores in "cosine". In the paper duplicates are suppressed, so that only live
# kernels are there to be associated. Here N always are, and the silent ones of an instance look
# like its live one: without the scores they often inherit its identity (lesson 07 measures it).
def by_cosine(old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """cos(K_old, K_new) * s_old * s_new: kernels that look alike, if both are live."""
    both_live = old.scores[:, None] * new.scores[None, :]  # (N, N)
    return cosine_similarity(old.kernels, new.kernels) * both_live


# Deviation: "mask" is not in the paper. It asks what the old kernels segment in the new frame,
# which costs one more product, and so recovers an instance whose kernel has changed.
def by_masks(old: Candidates, new: Candidates, x_mask: Tensor) -> Tensor:
    """dice(K_old . X_mask, K_new . X_mask) * s_old * s_new: that segment the same, if live."""
    both_live = old.scores[:, None] * new.scores[None, :]  # (N, N)
    return mask_similarity(old.kernels, new.kernels, x_mask) * both_live


ASSOCIATIONS: dict[str, Association] = {"cosine": by_cosine, "mask": by_masks}


# Assumption: Hungarian assignment, as in MinVIS; the paper says one to one.
def assign(similarity: Tensor) -> Tensor:
    """One-to-one assignment of largest total similarity (N, N): each slot's new query (N,)."""
    # Where similarities are equal (all zero, say) a query stays in its slot.
    tie_break = 1e-6 * torch.eye(len(similarity), device=similarity.device)
    _, columns = linear_sum_assignment((similarity + tie_break).cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, device=similarity.device)


class KernelTracker:
    """Online video instance segmentation with a MobileInst, or any model of `minst.protocol`.

    A bad frame raises ValueError with its number and leaves the state as it was. A change of
    resolution makes the next frame a key frame.
    """

    def __init__(
        self,
        model: QueryModel,  # in eval mode (set here), fused or not
        reuse_interval: int = 3,  # T: a key frame every T frames
        association: str | Association = "cosine",  # paper | "mask": ours | one like `by_cosine`
        score_threshold: float = 0.5,  # what scores less is not reported
        mask_threshold: float = 0.5,  # a pixel of at least this probability belongs to a mask
        min_area: int = 12,  # pixels; smaller masks are not reported
        max_absence: int = 1000,  # after so many frames unseen an identity ends
    ):
        if not (reuse_interval >= 1 and float(reuse_interval).is_integer()):
            raise ValueError(f"reuse_interval is {reuse_interval!r}, not a whole number from 1 on")
        if not callable(association) and association not in ASSOCIATIONS:
            raise ValueError(f"association is {association!r}; choose one of {tuple(ASSOCIATIONS)}")
        if not (0 <= score_threshold <= 1 and 0 < mask_threshold < 1):
            raise ValueError(f"thresholds {score_threshold}, {mask_threshold} are not in 0 .. 1")
        self.model, self.reuse_interval = model.eval(), int(reuse_interval)
        self.association, self.score_threshold = association, score_threshold
        # sigmoid(x) >= threshold is x >= log(threshold / (1 - threshold)), without the sigmoid.
        self.mask_logit = math.log(mask_threshold / (1 - mask_threshold))
        self.min_area, self.max_absence = min_area, max_absence
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a video."""
        self.frame = 0
        self.slots: Slots | None = None
        self.similarity: Tensor | None = None  # (N, N) of the last association
        self.assignment: Tensor | None = None  # (N,) the new query of every slot
        self._since_key, self._size, self._next_id = 0, None, 1

    @torch.inference_mode()
    def step(self, frame: Tensor | np.ndarray) -> FrameResult:
        """The next frame, as `image_to_batch` takes it -> what is seen in it."""
        try:
            encoded = self.model.encode(image_to_batch(frame))
        except ValueError as error:
            raise ValueError(f"frame {self.frame}: {error}") from None
        return self.advance(encoded)

    @torch.inference_mode()
    def advance(self, frame: EncodedFrame) -> FrameResult:
        """`step` for a frame that `model.encode` has seen, perhaps for other trackers as well."""
        due = self.slots is None or self._since_key >= self.reuse_interval
        is_key = due or frame.size != self._size
        if is_key:
            self._key_frame(frame)
        # On the frames after it nothing is decoded: the slots' kernels are used as they are.
        self._since_key = 1 if is_key else self._since_key + 1
        result, self._size = self._report(frame, is_key), frame.size
        self.frame += 1
        return result

    def track(self, video: Iterable[Tensor | np.ndarray] | str | Path) -> VideoResult:
        """`step` over a video from a fresh state, then its scores; ValueError without frames.

        video: frames, or what `minst.data.video.read_video` opens: a film, a folder of images.
        """
        if isinstance(video, (str, Path)):
            from minst.data.video import read_video  # needs PyAV, which frames in memory do not

            video = read_video(video)
        if not hasattr(video, "__iter__"):
            what = f"{type(video).__name__} is no video; give its frames, or the path of a film"
            raise ValueError(f"track: {what}")
        self.reset()
        return self.gather(self.step(frame) for frame in video)

    def gather(self, results: Iterable[FrameResult]) -> VideoResult:
        """The tracks of a video, from the results of its frames, taken one by one as they come."""
        frames: list[FrameResult] = []
        means: dict[int, list[float]] = {}  # identity -> class scores
        for result in results:
            frames.append(result)
            # Of all identities that live, reported or not: every key frame that saw them counts.
            means |= self.slots.class_scores()
        if not frames:
            raise ValueError("track: the video has no frames")
        return gather_frames(frames, self.model.config.class_names, means)

    def _key_frame(self, frame: EncodedFrame) -> None:
        """New kernels and scores for every slot."""
        out = frame.out
        # Means are taken in float32, whatever the model computes in.
        class_scores, kernels = out.scores()[0].float(), out.kernels[0]  # (N, C), (N, D)
        order = torch.arange(len(kernels), device=kernels.device)  # slot n holds query n, at first
        if self.slots is None:
            self.slots = Slots(kernels, class_scores)
        else:
            # Which of the new queries goes on with which slot?
            old = Candidates(self.slots.kernels, self.slots.scores, self.slots.queries)
            new = Candidates(kernels, class_scores.amax(-1), order)
            # A rule of one's own is a function, those that we know have names.
            associate = ASSOCIATIONS.get(self.association, self.association)
            self.similarity = associate(old, new, out.mask_features[0])
            self.assignment = order = assign(self.similarity)  # (N,)
        seen = self.score_threshold
        self.slots.take(kernels[order], class_scores[order], order, self.frame, seen)
        self.slots.end_unseen_since(self.frame - self.max_absence)

    def _report(self, frame: EncodedFrame, is_key: bool) -> FrameResult:
        """What is seen in a frame: kernels of the last key frame, mask features of this one."""
        slots = self.slots
        # M^{t+i} = K^t . X_mask^{t+i}, of the n live slots, not of all N: so reuse is cheap.
        live = (slots.scores >= self.score_threshold).nonzero().squeeze(1)  # (n,)
        mask_logits = frame.masks(slots.kernels[live][None])  # (1, n, h, w)
        masks = upsample_masks(mask_logits, frame.size)[0] >= self.mask_logit  # (n, H, W)
        shown = zip(live.tolist(), masks.cpu().numpy())
        found = [(slot, mask) for slot, mask in shown if mask.sum() >= self.min_area]
        # A slot that shows something for the first time gets an identity.
        for slot, _ in found:
            if not slots.ids[slot]:
                slots.ids[slot], self._next_id = self._next_id, self._next_id + 1
        means = slots.means()  # (N, C)
        best, label = means.amax(1).tolist(), means.argmax(1).tolist()
        found.sort(key=lambda item: -best[item[0]])
        order = [slot for slot, _ in found]
        return FrameResult(
            frame=self.frame,
            is_key=is_key,
            ids=[slots.ids[slot] for slot in order],
            labels=[label[slot] for slot in order],
            scores=[best[slot] for slot in order],
            segmentations=[encode_mask(mask) for _, mask in found],
            queries=slots.queries[order].tolist(),
        )


class Slots:
    """N places for identities. Slot s keeps identity ids[s], whichever query segments it."""

    # slots          queries of the last key frame    assignment      queries now
    # s = 0  id 1    4                                4  (stays)      4
    # s = 1  id 2    0                                2  (moves)      2
    # s = 2  none    2                                0  (is left)    0
    #
    # assignment[s] is the query of the new key frame that continues slot s. So kernels[assignment]
    # are the new kernels in the order of the slots, and nothing else has to be moved.

    def __init__(self, kernels: Tensor, class_scores: Tensor):
        N, device = len(kernels), kernels.device
        self.kernels = kernels.clone()  # (N, D) of the last key frame
        self.scores = torch.zeros(N, device=device)  # (N,) of the last key frame
        self.queries = torch.arange(N, device=device)  # (N,) whose kernels these are
        self.total = torch.zeros_like(class_scores)  # (N, C) summed over the key frames that saw it
        self.count = torch.zeros(N, device=device)  # (N,) how many did
        self.last_seen = torch.zeros(N, device=device)  # (N,) frame
        self.ids = [0] * N  # 0 = no identity yet

    def take(self, kernels: Tensor, class_scores: Tensor, queries: Tensor, frame: int, seen: float):
        """A key frame's (N, D), (N, C) and (N,), in the order of the slots."""
        self.kernels, self.queries = kernels, queries
        self.scores = class_scores.amax(-1)
        # Only the key frames that see an identity say what it is.
        present = self.scores >= seen
        self.total += class_scores * present[:, None]
        self.count += present
        self.last_seen[present] = frame

    def end_unseen_since(self, frame: int) -> None:
        """Forget the identities that were last seen before `frame`."""
        ended = (self.count > 0) & (self.last_seen < frame)
        self.total[ended], self.count[ended] = 0, 0
        self.ids = [0 if end else identity for identity, end in zip(self.ids, ended.tolist())]

    def means(self) -> Tensor:
        """Mean class scores over the key frames that saw the slot: (N, C)."""
        return self.total / self.count.clamp(min=1)[:, None]

    def class_scores(self) -> dict[int, list[float]]:
        """The same, of every identity."""
        return {i: means for i, means in zip(self.ids, self.means().tolist()) if i}
