"""Lesson 00: the names of the tasks, instance maps, what online means, swapped identities."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate, cycle, product

import numpy as np

from minst.course.pictures import plot_lines  # noqa: F401  lesson 00 draws with it
from minst.course.verdict import Verdict, judge
from minst.evaluation import evaluate_ytvis
from minst.protocol import QueryModel
from minst.tracking import KernelTracker, encode_mask

__all__ = ["instance_map", "running_mean", "swap_identities", "task_name"]


def task_name(answer: Callable) -> Verdict:
    """task_name(separates_objects: bool, through_time: bool) -> str."""

    def task_name(separates_objects, through_time):
        if not separates_objects:
            return "semantic segmentation"
        return "video instance segmentation" if through_time else "instance segmentation"

    mistakes = [
        "Time alone is not enough: without separate objects there is nobody to follow.",
        lambda objects, time: "video instance segmentation" if time else task_name(objects, time),
        "What does it take to know the second swan again in the next frame?",
        lambda objects, time: task_name(objects, False),
    ]

    def in_lower_case(name):
        return " ".join(name.lower().split()) if isinstance(name, str) else name

    cases = cycle(product((False, True), repeat=2))
    return judge(answer, task_name, lambda rng: next(cases), mistakes, view=in_lower_case)


def instance_map(answer: Callable) -> Verdict:
    """instance_map(masks (G, H, W) bool) -> (H, W): 0, or g + 1 on instance g, later on top."""

    def instance_map(masks, joined=np.max):
        return joined(masks * np.arange(1, len(masks) + 1)[:, None, None], 0)

    def draw(rng):
        return (rng.random((rng.integers(2, 5), 5, 7)) < 0.4,)

    mistakes = [
        "0 is kept for the background: instance g becomes g + 1.",
        lambda masks: instance_map(masks) - 1,
        lambda masks: np.maximum(instance_map(masks) - 1, 0),
        "All instances share one value: that is a semantic map. Give each its own number.",
        lambda masks: masks.any(0),
        "Where instances overlap the numbers are added up; the later one lies on top here.",
        partial(instance_map, joined=np.sum),
        "Where instances overlap the first one wins; the later one lies on top here.",
        lambda masks: np.where(masks.any(0), masks.argmax(0) + 1, 0),
    ]
    return judge(answer, instance_map, draw, mistakes)


def running_mean(answer: Callable) -> Verdict:
    """running_mean(scores: list of floats) -> list: after every frame, the mean of all so far."""

    def running_mean(scores):
        return [sum(scores[: t + 1]) / (t + 1) for t in range(len(scores))]

    def draw(rng):
        return (rng.random(rng.integers(3, 9)).round(3).tolist(),)

    mistakes = [
        "This is the mean over the whole video: online, frame t knows nothing of later frames.",
        lambda scores: [sum(scores) / len(scores)] * len(scores),
        "Divide by the frames seen so far, t + 1; online the length of the video is not known.",
        lambda scores: np.cumsum(scores) / len(scores),
        "The current frame has been seen as well: include it.",
        lambda scores: [0.0, *running_mean(scores)[:-1]],
        "These are sums; divide by the number of frames seen so far.",
        lambda scores: np.cumsum(scores),
        "The newest score counts as much as all before it: after frame t it counts 1 / (t + 1).",
        lambda scores: list(accumulate(scores, lambda mean, score: (mean + score) / 2)),
    ]
    return judge(answer, running_mean, draw, mistakes, tolerance=1e-3)


def swap_identities(answer: Callable) -> Verdict:
    """swap_identities(masks (G, L, H, W) bool, frame) -> with 0 and 1 swapped from `frame` on."""

    def swap_identities(masks, frame, stop=None):
        swapped = masks.copy()
        swapped[:2, frame:stop] = masks[1::-1, frame:stop]
        return swapped

    def aliased(masks, frame):
        swapped = masks.copy()
        swapped[0, frame:] = swapped[1, frame:]
        return swapped

    def draw(rng):
        return rng.random((3, 6, 4, 5)) < 0.5, rng.integers(1, 5)

    mistakes = [
        "They are swapped in one frame only; from `frame` on means frame, frame + 1, ...",
        lambda masks, frame: swap_identities(masks, frame, frame + 1),
        "After the first assignment the old masks of instance 0 are gone: swap through a copy.",
        aliased,
        "It starts one frame late: `frame` itself is swapped too.",
        lambda masks, frame: swap_identities(masks, frame + 1),
        "All frames are swapped: before `frame` nothing changes.",
        lambda masks, frame: swap_identities(masks, 0),
    ]
    praise = "Every frame is still perfect. The next code cell asks the judge of whole tracks."
    return judge(answer, swap_identities, draw, mistakes, praise=praise)


def scores_over_time(model: QueryModel, clip: Iterable, identity: int) -> list[float]:
    """The score that each frame by itself gives to one identity, from its first frame on."""
    tracker, scores = KernelTracker(model, reuse_interval=1, association="mask"), []
    for image in clip:
        tracker.step(image)
        slots = dict(zip(tracker.slots.ids, tracker.slots.scores.tolist()))
        scores += [slots[identity]] if identity in slots else []
    return scores


def judged(predictions: np.ndarray, truths: np.ndarray, labels: list | None = None) -> dict:
    """What the judge says of tracks (R, L, H, W) bool, best first, of truths (G, L, H, W) bool.

    labels: the class of each prediction and truth; default one class for all.
    """
    labels = [0] * max(len(predictions), len(truths)) if labels is None else list(map(int, labels))

    def entries(tracks):
        for k, masks in enumerate(tracks):
            codes = [encode_mask(mask) if mask.any() else None for mask in masks]
            ids = {"id": k + 1, "video_id": 1, "category_id": labels[k], "score": 1 / (k + 1)}
            yield ids | {"segmentations": codes, "areas": masks.sum((1, 2)).tolist()}

    video = {"id": 1} | dict(zip(("length", "height", "width"), truths.shape[1:]))
    categories = [{"id": label, "name": str(label)} for label in set(labels)]
    said = {"videos": [video], "categories": categories, "annotations": list(entries(truths))}
    return evaluate_ytvis(said, list(entries(predictions)))
