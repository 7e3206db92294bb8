"""Reference solutions of lesson 00, start here. Made by notebooks/build.py: do not edit."""

# %%
import numpy as np

import minst
from minst import visualize
from minst.course import lesson00 as check

# %%
def task_name(separates_objects: bool, through_time: bool) -> str:
    """The name of the task, in lower-case words.

    separates_objects: two swans that touch get two masks. through_time: a swan keeps its identity between frames.
    One of "semantic segmentation", "instance segmentation", "video instance segmentation".
    """
    if not separates_objects:
        return "semantic segmentation"
    return "video instance segmentation" if through_time else "instance segmentation"

# %%
print(check.task_name(task_name))

# %%
def instance_map(masks: np.ndarray) -> np.ndarray:
    """One number per pixel: masks (G, H, W) bool -> (H, W) whole numbers, 0 = background, g + 1 = instance g.

    Where instances overlap, the later one lies on top.
    """
    image = np.zeros(masks.shape[1:], dtype=np.int64)
    for g, mask in enumerate(masks):
        image[mask] = g + 1
    return image

# %%
print(check.instance_map(instance_map))

# %%
def running_mean(scores: list[float]) -> list[float]:
    """After every frame, the mean of the scores so far: [s0, (s0 + s1) / 2, ...]."""
    return [sum(scores[: t + 1]) / (t + 1) for t in range(len(scores))]

# %%
print(check.running_mean(running_mean))

# %%
def swap_identities(masks: np.ndarray, frame: int) -> np.ndarray:
    """Tracks (G, L, H, W) bool -> the same with instances 0 and 1 swapped in `frame` and all later frames."""
    swapped = masks.copy()
    swapped[0, frame:], swapped[1, frame:] = masks[1, frame:], masks[0, frame:]
    return swapped

# %%
print(check.swap_identities(swap_identities))
