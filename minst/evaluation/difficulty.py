"""How hard is an instance to follow? Occlusion, speed and size, and counts grouped by them.

    true masks of a frame (G, H, W) bool -> area, centroid, box (G, 7)
    of the L frames of a clip            -> occlusion, speed, size (G,) -> "low" | "medium" | "high"

Lengths are in units in which the frame's area is 1, so that resolution does not matter.

Assumption: *occlusion* is the share of the frames in which it is visible where its area falls below
    0.85 of its largest within 5 frames while another instance's box covers more than 0.2 of its own
    box. What nobody annotated (a tree) or the frame's border hides does not count. On 50 clips of
    shapes, whose generator knows what is hidden, it ranks instances as the share of frames with
    more than a tenth behind others does (Spearman 0.73), and independently of what the border cuts
    off (-0.03). The drop in area alone would measure the border (0.66, against 0.21).
Assumption: *speed* is the mean way of the centroid from one frame to the next, in square roots of
    the mean area: what moves by its own width overlaps its last mask no more, however large the
    object and the frame are.
Assumption: *size* is the mean area, as a share of the frame.

Symbols: L frames, G instances of a clip (a row a track; all False where it is not visible).

Lesson: notebooks/06_temporal_training.ipynb
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["ASPECTS", "LEVELS", "GroupedCounts", "clip_measures", "difficulty_levels",
           "frame_measures"]  # fmt: skip

LEVELS = ("low", "medium", "high")
# aspect -> where "medium" and "high" begin; of the val split of shapes each has a sixth or more
ASPECTS = {"occlusion": (0.04, 0.25), "speed": (0.075, 0.11), "size": (0.05, 0.08)}
SHRUNK, COVERED, NEARBY = 0.85, 0.2, 5  # of occlusion: share of the area, share of the box, frames


def difficulty_levels(measures: dict[str, np.ndarray]) -> list[dict[str, str | None]]:
    """`clip_measures` -> of each instance {aspect: "low" | "medium" | "high", None for NaN}."""
    columns = [
        [None if np.isnan(v) else LEVELS[np.digitize(v, steps)] for v in measures[aspect]]
        for aspect, steps in ASPECTS.items()
    ]
    return [dict(zip(ASPECTS, row, strict=True)) for row in zip(*columns, strict=True)]


def frame_measures(masks: np.ndarray) -> np.ndarray:
    """Masks (G, H, W) bool of a frame -> (G, 7): area, centroid x y, box left top right bottom.

    All are 0 where a mask is empty.
    """
    lines = masks.sum(axis=1), masks.sum(axis=2)  # (G, W), (G, H): pixels in a column, in a row
    area = lines[0].sum(axis=1)
    center = [line @ (np.arange(line.shape[1]) + 0.5) / np.maximum(area, 1) for line in lines]
    first = [(line > 0).argmax(axis=1) for line in lines]
    last = [line.shape[1] - (line[:, ::-1] > 0).argmax(axis=1) for line in lines]
    pixels = masks.shape[1] * masks.shape[2]
    lengths = [x / np.sqrt(pixels) for x in center + first + last]
    return np.column_stack([area / pixels, *lengths]) * (area > 0)[:, None]


def clip_measures(frames: np.ndarray) -> dict[str, np.ndarray]:
    """`frame_measures` of a clip, (L, G, 7) -> {"occlusion", "speed", "size"}, each (G,).

    NaN where there is nothing to measure: an instance that is never visible, or never in two frames
    in a row (speed).
    """
    area, center, box = frames[..., 0], frames[..., 1:3], frames[..., 3:]
    seen = area > 0  # (L, G)
    count, both = seen.sum(axis=0), seen[1:] & seen[:-1]
    size = _ratio(area.sum(axis=0), count)
    ways = np.linalg.norm(np.diff(center, axis=0), axis=2)  # (L-1, G)
    near = [area[max(t - NEARBY, 0) : t + NEARBY + 1] for t in range(len(area))]
    largest = np.stack([areas.max(axis=0) for areas in near])
    hidden = (area < SHRUNK * largest) & (_box_cover(box) > COVERED)
    speed = _ratio((ways * both).sum(axis=0), both.sum(axis=0) * np.sqrt(size))
    return {"occlusion": _ratio(hidden.sum(axis=0), count), "speed": speed, "size": size}


def _box_cover(box: np.ndarray) -> np.ndarray:
    """Boxes (L, G, 4) -> (L, G): the largest share of each that one other instance's box covers."""
    low, high = box[..., :2], box[..., 2:]
    left_top = np.maximum(low[:, :, None], low[:, None])  # (L, G, G, 2)
    right_bottom = np.minimum(high[:, :, None], high[:, None])
    both = (right_bottom - left_top).clip(min=0).prod(axis=3)
    both[:, range(box.shape[1]), range(box.shape[1])] = 0  # itself
    whole = (high - low).prod(axis=2)
    return both.max(axis=2, initial=0) / np.where(whole > 0, whole, 1)


def _ratio(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.divide(part, of, out=np.full(np.shape(part), np.nan), where=of > 0)


class GroupedCounts:
    """Sums of counts of instances: over all, a category, or a level of difficulty."""

    def __init__(self, width: int):
        # (group, its name) -> (width,)
        self.sums = defaultdict(lambda: np.zeros(width, dtype=int))

    def add(
        self, counts: np.ndarray, categories: Sequence[str] | None, levels: Sequence[dict] | None
    ) -> None:
        """counts (G, width) of a clip's instances; of each its category and levels, if known."""
        for what, given in (("categories", categories), ("levels", levels)):
            if given is not None and len(given) != len(counts):
                said = f"{len(given)} {what} for {len(counts)} instances"
                raise ValueError(f"{said}; give one for each")
        for i, row in enumerate(counts):
            groups = [("all", "")]
            if categories is not None:
                groups.append(("category", str(categories[i])))
            if levels is not None:
                groups += levels[i].items()  # of level None where unknown
            for group in groups:
                self.sums[group] += row

    def result(self, figures: Callable[[np.ndarray], dict]) -> dict:
        """`figures` of all, of every group in "per_category" and in "per_difficulty"."""
        names = sorted(name for group, name in self.sums if group == "category")
        return {
            **figures(self.sums["all", ""]),
            "per_category": {name: figures(self.sums["category", name]) for name in names},
            "per_difficulty": {
                aspect: {level: figures(self.sums[aspect, level]) for level in LEVELS}
                for aspect in ASPECTS
            },
        }
