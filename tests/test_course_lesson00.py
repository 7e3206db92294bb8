"""minst.course.lesson00: plausible mistakes get their hint."""

import numpy as np
import pytest
import torch

import minst
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


def map_zero_is_an_instance(masks):
    out = np.zeros(masks.shape[1:], int)
    for i, mask in enumerate(masks):
        out[mask] = i
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


def half_old_half_new(scores):
    means = scores[:1]
    for score in scores[1:]:
        means.append(0.5 * means[-1] + 0.5 * score)
    return means


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
        (lesson00.instance_map, map_zero_is_an_instance, "0 is kept"),
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
        (lesson00.running_mean, half_old_half_new, "counts 1 / (t + 1)"),
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


def named_with_capitals(objects, time):
    name = "Instance Segmentation" if objects else "Semantic segmentation"
    return f"Video {name}" if objects and time else name


def map_by_maximum(masks):
    return torch.from_numpy(masks * np.arange(1, len(masks) + 1)[:, None, None]).amax(0)


def means_in_place(scores):
    for t in range(1, len(scores)):
        scores[t] = (t * scores[t - 1] + scores[t]) / (t + 1)
    return scores


def swap_in_place(masks, frame):
    masks[:2, frame:] = masks[:2, frame:][::-1].copy()
    return masks


@pytest.mark.parametrize(
    "check, answer",
    [
        (lesson00.task_name, named_with_capitals),
        (lesson00.instance_map, map_by_maximum),
        (lesson00.running_mean, means_in_place),
        (lesson00.running_mean, lambda s: np.cumsum(s) / np.arange(1, len(s) + 1)),
        (lesson00.running_mean, lambda s: tuple(np.cumsum(s).astype("f4") / range(1, len(s) + 1))),
        (lesson00.running_mean, lambda s: (np.cumsum(s) / range(1, len(s) + 1)).astype("f2")),
        (lesson00.swap_identities, swap_in_place),
        (lesson00.swap_identities, lambda m, f: torch.from_numpy(swap_in_place(m, f)).float()),
    ],
)
def test_other_ways_to_be_right(check, answer):
    for _ in range(5):
        assert check(answer), check(answer)


def test_a_wrong_answer_can_be_tried_again_on_the_input_that_the_check_kept():
    verdict = lesson00.instance_map(map_from_zero)
    assert (map_from_zero(*verdict.given) == verdict.got).all()
    assert (verdict.expected == verdict.got + 1).all()
    assert (verdict.or_ours(*verdict.given) == verdict.expected).all()


def test_a_score_of_one_frame_is_what_the_tracker_reports_of_its_first_frame():
    model, clip = minst.MobileInst.from_pretrained("shapes-tiny"), minst.load_sample("easy")
    images = [clip.image(0), clip.image(1)]
    first, second = lesson00.scores_over_time(model, images, identity=1)
    tracker = minst.KernelTracker(model, reuse_interval=1, association="mask")
    means = [dict(zip(r.ids, r.scores))[1] for r in map(tracker.step, images)]
    np.testing.assert_allclose(means, [first, (first + second) / 2], rtol=1e-5)


def test_swapped_tracks_lose_their_ap_and_the_others_keep_theirs():
    clip = minst.load_sample("easy")
    tracks = np.stack([clip.masks(t) for t in range(len(clip))], axis=1)
    swapped = np.concatenate([tracks[:, :12], tracks[[1, 0, 2], 12:]], axis=1)
    assert lesson00.judged(tracks, tracks, clip.labels)["AP"] == pytest.approx(1)
    assert lesson00.judged(swapped, tracks, clip.labels)["AP"] == pytest.approx(1 / 3)
    assert lesson00.judged(swapped[:2], tracks[:2])["AP"] == 0
