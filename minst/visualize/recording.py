"""A clip computed once and then looked at from all sides: the network sees each frame once, trackers only replay it.

    video ─ read_frames ─> at most `max_frames` images ─ encode ─> Recording ─ replay ─> Replay

A Recording has a Frame for each, which is decoded once and remembers it: a KernelTracker with
another T, association or threshold runs over 30 frames in some 50 ms on one core.

Memory is bounded: of a longer video every k-th frame is kept (k = 2, 4, 8, ... grows while it is read), and large
frames are made smaller.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from minst.evaluation.identity import IdentityEvents, identity_events
from minst.model import Frame, MobileInst, image_to_batch, upsample_masks
from minst.results import FrameResult, gather_frames
from minst.tracking import KernelTracker, cosine_similarity
from minst.visualize.masks import frames_of

__all__ = ["Recording", "Replay", "Settings", "read_frames"]

MAX_FRAMES = 64
MAX_SIDE, MIN_SIDE = (
    384,
    64,
)  # pixels of the longer side, unless the shorter falls below what a model takes


class Settings(NamedTuple):
    """What can be changed without running the network again."""

    reuse_interval: int = 3
    association: str = "mask"
    score_threshold: float = 0.5
    mask_threshold: float = 0.5


class Shots(NamedTuple):
    """Images to record: every `step`-th frame of a video of `total` frames."""

    images: list[np.ndarray]  # (H, W, 3) bytes
    truth: list[np.ndarray] | None  # (M, H, W) bool each
    step: int
    total: int


def read_frames(video, max_frames: int = MAX_FRAMES, max_side: int = MAX_SIDE) -> Shots:
    """Images (and annotations, if the video has `render`) of a clip or iterable of frames, in bounded memory.

    Larger frames are scaled to a longer side of `max_side` pixels. Raises ValueError for a video without frames.
    """
    if max_frames < 1 or max_side < MIN_SIDE:
        raise ValueError(
            f"max_frames is {max_frames}, max_side {max_side}; at least 1 and {MIN_SIDE}"
        )
    kept, step, total = [], 1, 0
    for t, (image, masks) in enumerate(_pairs(video)):
        total = t + 1
        if t % step:
            continue
        if len(kept) == max_frames:
            kept, step = kept[::2], step * 2
            if t % step:
                continue
        kept.append(
            (_shrink(image, max_side), masks if masks is None else _shrink_masks(masks, max_side))
        )
    if not kept:
        raise ValueError("the video has no frames")
    images, truth = zip(*kept)
    return Shots(list(images), None if truth[0] is None else list(truth), step, total)


class Recording:
    """What a model says of every frame of a video, each computed as a key frame.

    Attributes: images, truth, step, total (see `Shots`); frames (T Frames, without the mask logits
    of all queries, which are never looked at together); scores (T, N), kernels (T, N, D).
    progress: called with the list of images, yields them; a progress bar.
    """

    def __init__(self, model: MobileInst, shots: Shots, progress: Callable = iter):
        self.images, self.truth, self.step, self.total = shots
        self.model, self.config = model.eval(), model.config
        self.frames: list[Frame] = []
        with torch.inference_mode():
            for t, image in enumerate(progress(self.images)):
                try:
                    self.frames.append(model.encode(image_to_batch(image)).forget_masks())
                except ValueError as error:
                    raise ValueError(f"frame {t * self.step}: {error}") from None
            self.scores = torch.stack([frame.out.scores()[0].amax(-1) for frame in self.frames])
            self.kernels = torch.stack([frame.out.kernels[0] for frame in self.frames])

    def __len__(self) -> int:
        return len(self.images)

    def masks(self, t: int) -> np.ndarray:
        """The annotation of frame `t`: (M, H, W) bool."""
        return self.truth[t]

    def replay(self, settings: Settings) -> Replay:
        """Track all frames with these settings. Raises ValueError for settings that a tracker refuses."""
        tracker = KernelTracker(self.model, *settings)
        return Replay(self, settings, [tracker.advance(frame) for frame in self.frames])

    @torch.inference_mode()
    def soft_mask(self, query: int, key: int, t: int) -> np.ndarray:
        """The mask in frame `t` by the kernel that the query had in frame `key`: (H, W) in [0, 1]."""
        logits = self.frames[t].masks(self.kernels[key, query][None, None])
        return upsample_masks(logits, self.images[t].shape[:2])[0, 0].sigmoid().cpu().numpy()

    def similarity(self, query: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        """cos of the query's kernel in frame `key` with its own in every frame (T,), and with all others' (T, N)."""
        cosine = cosine_similarity(self.kernels[key, query][None], self.kernels.flatten(0, 1))
        cosine = cosine.view(len(self), -1).cpu().numpy()  # (T, N)
        return cosine[:, query], cosine


class Replay:
    """A recording tracked with certain settings.

    Attributes: frames (T FrameResults), result (VideoResult), keys (T,) the key frame whose kernels each frame uses,
    handovers [(frame, id, old query, new query)], identity (IdentityEvents, or None without annotations).
    """

    def __init__(self, recording: Recording, settings: Settings, frames: list[FrameResult]):
        self.settings, self.frames = settings, frames
        self.keys: list[int] = []
        for frame in frames:
            self.keys.append(frame.frame if frame.is_key else self.keys[-1])
        self.result = gather_frames(frames, recording.config.class_names)
        self.handovers = list(_handovers(frames))
        self.identity: IdentityEvents | None = (
            None if recording.truth is None else identity_events(self.result, recording)
        )

    def serves(self, query: int) -> list[int]:
        """The identity that a query's kernel segments in each frame, 0 = none."""
        return [next((i for i, q in zip(f.ids, f.queries) if q == query), 0) for f in self.frames]

    def query_at(self, t: int, x: float, y: float) -> int | None:
        """The query of the best mask at a point of frame `t`; x, y in [0, 1] of width and height. None: no mask."""
        frame = self.frames[t]
        masks = frame.masks()
        if not len(masks):
            return None
        height, width = masks.shape[1:]
        hit = masks[:, min(int(y * height), height - 1), min(int(x * width), width - 1)]
        return frame.queries[int(hit.argmax())] if hit.any() else None

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


def _pairs(video) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    if hasattr(video, "render"):
        for t in range(len(video)):
            shown = video.render(t)
            yield shown.image, shown.masks
    else:
        for image in frames_of(video):
            yield image, None


def _target(shape: tuple[int, int], max_side: int) -> tuple[int, int]:
    share = min(1.0, max(max_side / max(shape), MIN_SIDE / min(shape)))
    return round(shape[0] * share), round(shape[1] * share)


def _shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    height, width = _target(image.shape[:2], max_side)
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _shrink_masks(masks: np.ndarray, max_side: int) -> np.ndarray:
    height, width = _target(masks.shape[1:], max_side)
    if (height, width) == masks.shape[1:] or not len(masks):
        return masks if len(masks) else np.zeros((0, height, width), dtype=bool)
    soft = torch.nn.functional.interpolate(
        torch.from_numpy(masks)[None].float(), (height, width), mode="area"
    )
    return (soft[0] >= 0.5).numpy()
