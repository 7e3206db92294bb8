"""minst.course.lesson00: plausible mistakes get their hint."""

import numpy as np
import pytest

from minst.course import lesson00


def names_by_time(objects, time):
    if time:
        return "video instance segmentation"
    return "instance segmentation" if objects else "semantic segmentation"


def never_video(objects, time):
    return ["semantic segmentation", "instance segmentation"][objects]


def map_from_zero(masks):
    out = np.full(masks.shape[1:], -1)
    for i in range(len(masks)):
        out[masks[i]] = i
    return out


def map_added(masks):
    out = np.zeros(masks.shape[1:], int)
    for i, mask in enumerate(masks, start=1):
        out += i * mask
    return out


def map_first_on_top(masks):
    out = np.zeros(masks.shape[1:], int)
    for i in reversed(range(len(masks))):
        out[masks[i]] = i + 1
    return out


def swap_by_views(masks, frame):
    out = masks.copy()
    out[0, frame:], out[1, frame:] = out[1, frame:], out[0, frame:]
    return out


def swap_one_frame(masks, frame):
    out = masks.copy()
    out[0, frame], out[1, frame] = masks[1, frame], masks[0, frame]
    return out


def swap_late(masks, frame):
    out = masks.copy()
    for t in range(masks.shape[1]):
        if t > frame:
            out[:2, t] = masks[[1, 0], t]
    return out


@pytest.mark.parametrize(
    "check, answer, words",
    [
        (lesson00.task_name, names_by_time, "nobody to follow"),
        (lesson00.task_name, never_video, "second swan"),
        (lesson00.instance_map, map_from_zero, "0 is kept"),
        (lesson00.instance_map, map_added, "added up"),
        (lesson00.instance_map, map_first_on_top, "first one wins"),
        (lesson00.instance_map, lambda masks: masks.max(0).astype(int), "semantic map"),
        (lesson00.running_mean, lambda s: [float(np.mean(s)) for _ in s], "whole video"),
        (
            lesson00.running_mean,
            lambda s: [float(np.sum(s[: i + 1])) for i, _ in enumerate(s)],
            "These are sums",
        ),
        (
            lesson00.running_mean,
            lambda s: [0.0] + [float(np.mean(s[:i])) for i in range(1, len(s))],
            "include it",
        ),
        (lesson00.swap_identities, swap_by_views, "through a copy"),
        (lesson00.swap_identities, swap_one_frame, "one frame only"),
        (lesson00.swap_identities, swap_late, "one frame late"),
        (lesson00.swap_identities, lambda masks, frame: masks[[1, 0, 2]], "All frames are swapped"),
    ],
)
def test_mistakes_get_their_hint(check, answer, words):
    for _ in range(20):  # fresh draws each time
        said = check(answer)
        assert said.state == "wrong" and words in said.reason, said
