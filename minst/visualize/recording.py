"""A clip computed once and then looked at from all sides: the network sees each frame once.

    video ─ read_frames ─> at most `max_frames` images ─ encode ─> Recording ─ replay ─> Replay

A Recording has a Frame for each, which is decoded once and remembers it: a KernelTracker with
another T, association or threshold runs over 30 frames in some 50 ms on one core. Memory is
bounded: of a longer video every k-th frame is kept (k = 2, 4, 8, ... grows while it is read).

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minst.evaluation.consistency import mask_ious
from minst.evaluation.identity import IdentityEvents, identity_events
from minst.model import image_to_batch, upsample_masks
from minst.protocol import EncodedFrame, QueryModel
from minst.results import FrameResult, gather_frames
from minst.tracking import KernelTracker, cosine_similarity
from minst.visualize.masks import resized, resized_masks, shown_frames

__all__ = ["Recording", "Replay", "Settings", "Shots", "read_frames"]

MAX_FRAMES = 64
# Pixels of the longer side, unless the shorter one falls below what a model takes.
MAX_SIDE, MIN_SIDE = 384, 64


class Settings(NamedTuple):
    """What can be changed without running the network again."""

    reuse_interval: int = 3
    association: str = "mask"
    score_threshold: float = 0.5
    mask_threshold: float = 0.5


class Shots(NamedTuple):
    """Images to record, of a video of `total` frames or, where they were chosen, of more."""

    images: list[np.ndarray]  # (H, W, 3) bytes
    truth: list[np.ndarray] | None  # (G, H, W) bool each
    times: Sequence[int]  # which of the video they are
    total: int


def read_frames(
    video,
    max_frames: int = MAX_FRAMES,
    max_side: int = MAX_SIDE,
    shorter_side: int | None = None,
    frames: Sequence[int] | None = None,
) -> Shots:
    """A whole video, thinned and made smaller until it fits into bounded memory; or some frames.

    video: an iterable of frames, or a clip with `render(t)`, which also has annotations. Larger
    frames are scaled to a longer side of `max_side` pixels, or to `shorter_side` where that is
    given, such as `trained_side(model)`. frames: these alone, from 0 on; fewer if the video ends
    where it is a range, else ValueError. So without frames, or for those that are not bytes
    (H, W, 3) of one size.
    """
    if max_frames < 1 or max_side < MIN_SIDE:
        raise ValueError(f"max_frames is {max_frames}, max_side {max_side}; at least 1, {MIN_SIDE}")
    if frames is not None and min(frames, default=-1) < 0:
        raise ValueError(f"frames are {frames}: give at least one, from 0 on")
    last = None if frames is None else max(frames) + 1
    kept, shape, step, total = {}, None, 1, 0
    for t, (image, masks) in enumerate(islice(shown_frames(video), last)):
        total, shape = t + 1, shape or image.shape
        if image.shape != shape or shape[2:] != (3,) or image.dtype != np.uint8:
            got = f"{image.dtype} {image.shape}"
            raise ValueError(f"frame {t} is {got}: give bytes (H, W, 3), all of one size")
        if frames is None and len(kept) == max_frames and t % step == 0:
            step *= 2
            kept = {time: shot for time, shot in kept.items() if time % step == 0}
        if t % step == 0 if frames is None else t in frames:
            longer, shorter = max(shape[:2]), min(shape[:2])
            share = max(max_side / longer, MIN_SIDE / shorter)
            kept[t] = _shrunk(image, masks, shorter_side / shorter if shorter_side else share)
    if total and not isinstance(frames, range | None) and max(frames) >= total:
        raise ValueError(f"there is no frame {max(frames)}: the video has {total}, from 0 on")
    if not kept:
        raise ValueError("the video has no frames")
    images, truth = map(list, zip(*kept.values()))
    return Shots(images, None if truth[0] is None else truth, list(kept), total)


class Recording:
    """What a model says of every frame of a video, each computed as a key frame.

    Attributes: images, truth, times, total (see `Shots`); frames (L Frames, without the mask logits
    of all queries, which are large, and come again from the kernels); kernels (L, N, D), class
    scores (L, N, C), probabilities of the classes without objectness (L, N, C), all in [0, 1];
    scores (L, N) of the best class.
    progress: called with the list of images, yields them; a progress bar.
    """

    def __init__(self, model: QueryModel, shots: Shots, progress: Callable = iter):
        self.images, self.truth, self.times, self.total = shots
        self.model, self.config = model.eval(), model.config
        self.frames: list[EncodedFrame] = []
        with torch.inference_mode():
            for t, image in enumerate(progress(self.images)):
                try:
                    self.frames.append(model.encode(image_to_batch(image)).forget_masks())
                except ValueError as error:
                    raise ValueError(f"frame {self.times[t]}: {error}") from None
        outs = [frame.out for frame in self.frames]
        self.kernels = torch.cat([out.kernels for out in outs])
        self.class_scores = torch.cat([out.scores() for out in outs])
        self.probabilities = torch.cat([out.class_logits.sigmoid() for out in outs])
        self.scores = self.class_scores.amax(-1)

    def __len__(self) -> int:
        return len(self.images)

    def masks(self, t: int) -> np.ndarray:
        """The annotation of frame `t`: (G, H, W) bool."""
        return self.truth[t]

    def replay(self, settings: Settings) -> Replay:
        """Track all frames. Raises ValueError for settings that a tracker refuses."""
        tracker = KernelTracker(self.model, *settings)
        return Replay(self, settings, [tracker.advance(frame) for frame in self.frames])

    @torch.inference_mode()
    def mask_logits(self, t: int) -> Tensor:
        """The masks of all queries in frame `t`: (N, h, w)."""
        return self.frames[t].masks(self.kernels[t][None])[0]

    def found(self, t: int, queries: list[int] | slice = slice(None)) -> np.ndarray:
        """The masks of queries in frame `t`, cut at 1/2, at the size of the frame: (n, H, W)."""
        logits = self.mask_logits(t)[queries]
        return (upsample_masks(logits[None], self.images[t].shape[:2])[0] >= 0).cpu().numpy()

    def ious(self, t: int) -> np.ndarray:
        """IoU of all queries with all annotated instances in frame `t`: (N, G)."""
        return mask_ious(self.found(t), self.truth[t])

    @torch.inference_mode()
    def soft_mask(self, query: int, key: int, t: int) -> np.ndarray:
        """The mask in frame `t` by a query's kernel of frame `key`: (H, W) in [0, 1]."""
        logits = self.frames[t].masks(self.kernels[key, query][None, None])
        return upsample_masks(logits, self.images[t].shape[:2])[0, 0].sigmoid().cpu().numpy()

    def similarity(self, query: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        """cos of a query's kernel of frame `key` with its own over time (L,), with all (L, N)."""
        cosine = cosine_similarity(self.kernels[key, query][None], self.kernels.flatten(0, 1))
        cosine = cosine.view(len(self), -1).cpu().numpy()  # (L, N)
        return cosine[:, query], cosine


class Replay:
    """A recording tracked with certain settings.

    Attributes: frames (L FrameResults), result (VideoResult), keys (L,) the key frame whose kernels
    each frame uses, handovers [(frame, id, old query, new query)], identity (IdentityEvents, or
    None without annotations).
    """

    def __init__(self, recording: Recording, settings: Settings, frames: list[FrameResult]):
        self.settings, self.frames = settings, frames
        keys = (frame.frame if frame.is_key else 0 for frame in frames)
        self.keys: list[int] = list(accumulate(keys, max))
        self.result = gather_frames(frames, recording.config.class_names)
        self.handovers = list(_handovers(frames))
        self.identity: IdentityEvents | None = (
            None if recording.truth is None else identity_events(self.result, recording)
        )

    def serves(self, query: int) -> list[int]:
        """The identity that a query's kernel segments in each frame, 0 = none."""
        return [next((i for i, q in zip(f.ids, f.queries) if q == query), 0) for f in self.frames]

    def queries_at(self, t: int, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        """The query of the best mask at each point ys x xs of frame `t`, in [0, 1]; -1 if none."""
        frame = self.frames[t]
        found = np.full((len(ys), len(xs)), -1)
        # The best comes last, and lies on top.
        for query, mask in reversed([*zip(frame.queries, frame.masks())]):
            pixels = ((at * n).astype(int).clip(max=n - 1) for at, n in zip((ys, xs), mask.shape))
            found[mask[np.ix_(*pixels)]] = query
        return found

    def query_at(self, t: int, x: float, y: float) -> int | None:
        """The query of the best mask at a point of frame `t`, x, y in [0, 1]; None if none."""
        found = int(self.queries_at(t, np.array([y]), np.array([x])).item())
        return None if found < 0 else found

    def best_query(self, recording: Recording) -> int:
        """The query that serves most frames; where no track is found, the one of highest score."""
        served = Counter(q for frame in self.frames for q in frame.queries)
        return served.most_common(1)[0][0] if served else int(recording.scores.amax(0).argmax())


def _handovers(frames: list[FrameResult]) -> Iterator[tuple[int, int, int, int]]:
    """Where an identity goes on with another query than the one that it was seen with last."""
    last: dict[int, int] = {}
    for frame in frames:
        for identity, query in zip(frame.ids, frame.queries):
            if last.get(identity, query) != query:
                yield frame.frame, identity, last[identity], query
            last[identity] = query


def _shrunk(
    image: np.ndarray, masks: np.ndarray | None, share: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """A frame and its annotation (G, H, W), `share` times as large if that is smaller."""
    if share >= 1:
        return np.ascontiguousarray(image), masks
    size = tuple(round(side * share) for side in image.shape[:2])
    small = resized(image, size, Image.Resampling.BOX)
    return small, None if masks is None else resized_masks(masks, size)
