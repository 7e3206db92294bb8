"""What a tracker says of one frame, of one identity, of a video. Masks are run-length codes.

    KernelTracker.step(frame)   -> FrameResult
    KernelTracker.track(video)  -> VideoResult of Tracks
                                   --to_ytvis-->  entries of a YouTube-VIS results file

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as rle_codec

__all__ = ["FrameResult", "Track", "VideoResult", "gather_frames"]


class FrameResult(NamedTuple):
    """What the tracker says of one frame, best score first; all that it knows online."""

    frame: int  # 0, 1, ...
    is_key: bool
    ids: list[int]  # identities, from 1
    labels: list[int]  # class 0..C-1: the best of the running mean
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
    class_scores: list[float]  # (C,) the mean over the key frames that saw it
    segmentations: list[dict | None]  # one a frame; None where it is not seen

    @property
    def label(self) -> int:
        """The best class, 0..C-1."""
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

    def to_ytvis(
        self, video_id: int, category_ids: list[int | None] | None = None, min_score: float = 0.02
    ) -> list[dict]:
        """Entries of a results file: one a track and class whose score is at least `min_score`.

        category_ids: the file's id of class 0..C-1; default 1..C; None leaves a class out.
        ValueError when frames differ in size, which that format cannot say.
        """
        sizes = {tuple(s["size"]) for t in self.tracks for s in t.segmentations if s is not None}
        if len(sizes) > 1:
            what = f"frames of sizes {sorted(sizes)}; YouTube-VIS knows one size a video"
            raise ValueError(f"video {video_id}: {what}")
        # A track may stand in the file as several classes: the evaluation ranks each by itself.
        return [
            {
                "video_id": video_id,
                "category_id": category_ids[label] if category_ids else label + 1,
                "score": float(score),
                "segmentations": track.segmentations,
            }
            for track in self.tracks
            for label, score in enumerate(track.class_scores)
            if score >= min_score and not (category_ids and category_ids[label] is None)
        ]


def gather_frames(
    frames: Iterable[FrameResult],
    class_names: Sequence[str] = (),
    class_scores: Mapping[int, list[float]] | None = None,
) -> VideoResult:
    """What `KernelTracker.step` said of every frame of a video -> a `VideoResult`.

    class_scores: of every identity, (C,), as `KernelTracker.track` knows them. Without them a track
    has the last score that `step` gave, for its best class alone.
    """
    frames, last, seen = list(frames), {}, {}
    for t, (_, _, *found, _) in enumerate(frames):
        for identity, label, score, code in zip(*found, strict=True):
            # All classes score 0 but the one that `step` named.
            last[identity] = [score * (k == label) for k in range(max(len(class_names), label + 1))]
            seen.setdefault(identity, {})[t] = code
    scores = last if class_scores is None else class_scores
    # One code a frame, None where the identity is not seen.
    every = range(len(frames))
    tracks = [Track(i, scores[i], [codes.get(t) for t in every]) for i, codes in seen.items()]
    tracks.sort(key=lambda track: -track.score)
    return VideoResult(tracks, len(frames), tuple(class_names))
