"""Lesson 00: the names of the tasks, instance maps, what online means, swapped identities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minst.course.verdict import Mistake, Verdict, judge

__all__ = ["instance_map", "running_mean", "swap_identities", "task_name"]


def task_name(answer: Callable) -> Verdict:
    """task_name(separates_objects: bool, through_time: bool) -> str."""

    def task_name(separates_objects, through_time):
        if not separates_objects:
            return "semantic segmentation"
        return "video instance segmentation" if through_time else "instance segmentation"

    return judge(
        answer,
        task_name,
        lambda rng: (bool(rng.integers(2)), bool(rng.integers(2))),
        [
            Mistake(
                lambda objects, time: "video instance segmentation" if time else task_name(objects, time),
                "Time alone is not enough: without separate objects there is nobody to follow.",
            ),
            Mistake(
                lambda objects, time: "instance segmentation" if objects else "semantic segmentation",
                "What does it take to know the second swan again in the next frame?",
            ),
        ],
        rounds=100,  # four cases: all of them, practically always
    )


def instance_map(answer: Callable) -> Verdict:
    """instance_map(masks (M, H, W) bool) -> (H, W) whole numbers, 0 = background, m + 1 = instance m, later on top."""

    def instance_map(masks):
        image = np.zeros(masks.shape[1:], dtype=np.int64)
        for m, mask in enumerate(masks):
            image[mask] = m + 1
        return image

    return judge(
        answer,
        instance_map,
        lambda rng: (rng.random((int(rng.integers(2, 5)), 5, 7)) < 0.4,),
        [
            Mistake(lambda m: instance_map(m) - 1, "0 is kept for the background: instance m becomes m + 1."),
            Mistake(
                lambda m: m.any(0), "All instances share one value: that is a semantic map. Give each its own number."
            ),
            Mistake(
                lambda m: (m * np.arange(1, len(m) + 1)[:, None, None]).sum(0),
                "Where instances overlap the numbers are added up; the later instance should replace the earlier one.",
            ),
            Mistake(
                lambda m: np.where(m.any(0), m.argmax(0) + 1, 0),
                "Where instances overlap the first one wins; the later one lies on top here.",
            ),
        ],
    )


def running_mean(answer: Callable) -> Verdict:
    """running_mean(scores: list of floats) -> list: after every frame the mean of all scores so far."""

    def running_mean(scores):
        return [sum(scores[: t + 1]) / (t + 1) for t in range(len(scores))]

    return judge(
        answer,
        running_mean,
        lambda rng: (rng.random(int(rng.integers(3, 9))).round(3).tolist(),),
        [
            Mistake(
                lambda s: [sum(s) / len(s)] * len(s),
                "This is the mean over the whole video: at frame t an online method has not seen the frames after it.",
            ),
            Mistake(
                lambda s: [sum(s[: t + 1]) / len(s) for t in range(len(s))],
                "Divide by the number of frames seen so far, t + 1; the length of the video is not known online.",
            ),
            Mistake(lambda s: [0.0, *running_mean(s)[:-1]], "The current frame has been seen as well: include it."),
            Mistake(lambda s: np.cumsum(s).tolist(), "These are sums; divide by the number of frames seen so far."),
        ],
    )


def swap_identities(answer: Callable) -> Verdict:
    """swap_identities(masks (M, T, H, W) bool, frame) -> the same, with instances 0 and 1 swapped from `frame` on."""

    def swap_identities(masks, frame):
        swapped = masks.copy()
        swapped[0, frame:], swapped[1, frame:] = masks[1, frame:], masks[0, frame:]
        return swapped

    def only_there(masks, frame):
        swapped = masks.copy()
        swapped[[0, 1], frame] = masks[[1, 0], frame]
        return swapped

    def aliased(masks, frame):
        swapped = masks.copy()
        swapped[0, frame:] = swapped[1, frame:]
        swapped[1, frame:] = swapped[0, frame:]
        return swapped

    return judge(
        answer,
        swap_identities,
        lambda rng: (rng.random((3, 6, 4, 5)) < 0.5, int(rng.integers(1, 5))),
        [
            Mistake(only_there, "They are swapped in one frame only; from `frame` on means frame, frame + 1, ..."),
            Mistake(aliased, "After the first assignment the old masks of instance 0 are gone: swap through a copy."),
            Mistake(lambda m, t: swap_identities(m, t + 1), "It starts one frame late: `frame` itself is swapped too."),
            Mistake(lambda m, t: swap_identities(m, 0), "All frames are swapped: before `frame` nothing changes."),
        ],
        praise="Every frame by itself is still perfect. Lesson 01 computes what the video metric says of it.",
    )
