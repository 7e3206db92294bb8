"""How hard an instance is: hand-made masks, the generator's own knowledge, properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from minst.data.shapes import shapes_clip
from minst.evaluation.difficulty import (
    ASPECTS,
    LEVELS,
    GroupedCounts,
    clip_measures,
    difficulty_levels,
    frame_measures,
)


def instance_measures(masks):
    """Of T frames (M, H, W)."""
    return clip_measures(np.stack([frame_measures(np.asarray(frame)) for frame in masks]))


def block(top, left, height, width, size=(40, 60)):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def clip(*rows):
    """Each row an instance: its masks over the frames -> (T, M, H, W)."""
    return np.stack([np.stack(row) for row in rows], axis=1)


GONE = block(0, 0, 0, 0)


def test_size_and_speed_by_hand():
    masks = clip(
        [
            block(0, 0, 10, 10),
            GONE,
            block(0, 30, 10, 10),
            block(3, 34, 10, 10),
            block(3, 34, 20, 10),
        ]
    )
    said = instance_measures(masks)
    mean = (3 * 100 + 200) / 4
    assert said["size"] == pytest.approx(mean / 2400)
    # from the second to the third visible frame (3, 4), to the fourth (5, 0); over the gap nothing is measured
    assert said["speed"] == pytest.approx((5 + 5) / 2 / math.sqrt(mean))


def test_moments_of_a_frame():
    said = frame_measures(np.stack([block(4, 6, 10, 20), GONE]))
    unit = math.sqrt(2400)
    expected = [200 / 2400, *(x / unit for x in (16, 9, 6, 4, 26, 14))]
    np.testing.assert_allclose(said, [expected, [0] * 7])


def hidden(shrink, cover, gap=1):
    """An instance 20 x 20 of which a neighbour hides `shrink` columns in frame `gap`, boxes overlapping by `cover`."""
    whole, part = block(0, 0, 20, 20), block(0, 0, 20, 20 - shrink)
    other = block(20 - cover, 0, 15, 20 - shrink) if cover else block(0, 40, 10, 10)
    frames = [whole] * gap + [part]
    return instance_measures(clip(frames, [block(30, 40, 10, 10)] * gap + [other]))["occlusion"][0]


def test_occlusion_needs_a_shrunk_mask_and_a_neighbour():
    assert (
        hidden(shrink=4, cover=5) == 0.5
    )  # 16 of 20 columns are left; the other's box covers a quarter of its box
    assert hidden(shrink=4, cover=4) == 0  # a fifth is not more than a fifth
    assert hidden(shrink=4, cover=0) == 0  # the border, or a tree
    assert hidden(shrink=3, cover=5) == 0  # 17 of 20: not below 0.85
    assert hidden(shrink=4, cover=5, gap=5) == pytest.approx(1 / 6) and hidden(
        shrink=4, cover=5, gap=6
    ) == pytest.approx(1 / 7)


def test_occlusion_looks_five_frames_both_ways():
    whole, part, other = block(0, 0, 20, 20), block(0, 0, 20, 10), block(10, 0, 15, 10)
    for frames in ([whole] + [part] * 7, [part] * 7 + [whole]):
        assert instance_measures(clip(frames, [other] * 8))["occlusion"][0] == 5 / 8


def test_one_neighbour_must_cover_a_fifth_of_the_box():
    """Two that cover a sixth each do not add up."""
    me, left, right = (
        [block(0, 20, 20, 20), block(0, 22, 20, 15)],
        block(0, 12, 20, 12),
        block(0, 35, 20, 12),
    )
    assert instance_measures(clip(me, [left] * 2, [right] * 2))["occlusion"][0] == 0
    assert (
        instance_measures(clip(me, [block(0, 12, 20, 14)] * 2, [right] * 2))["occlusion"][0] == 0.5
    )


def test_nothing_to_measure():
    said = instance_measures(clip([GONE] * 3, [GONE, block(0, 0, 5, 5), GONE]))
    assert [np.isnan(said[a]).tolist() for a in ASPECTS] == [
        [True, False],
        [True, True],
        [True, False],
    ]
    assert difficulty_levels(said) == [
        dict.fromkeys(ASPECTS),
        {"occlusion": "low", "speed": None, "size": "low"},
    ]
    none = instance_measures(np.zeros((3, 0, 4, 4), bool))
    assert all(v.shape == (0,) for v in none.values()) and difficulty_levels(none) == []
    assert math.isnan(instance_measures([block(0, 0, 5, 5)[None]])["speed"][0])


def test_levels_begin_at_their_thresholds():
    for aspect, (medium, high) in ASPECTS.items():
        values = np.array([0.0, medium - 1e-9, medium, high - 1e-9, high, 9.0])
        measures = {a: values if a == aspect else np.zeros(6) for a in ASPECTS}
        said = [levels[aspect] for levels in difficulty_levels(measures)]
        assert said == ["low", "low", "medium", "medium", "high", "high"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_twice_the_resolution_the_same_measures(seed, instances):
    masks = np.random.default_rng(seed).random((4, instances, 5, 7)) > 0.6
    small, large = (
        instance_measures(masks),
        instance_measures(masks.repeat(2, axis=2).repeat(2, axis=3)),
    )
    for aspect in ASPECTS:
        np.testing.assert_allclose(large[aspect], small[aspect], rtol=1e-12)


def whole_areas(made, t):
    """Pixels of every creature within the frame as if nothing hid it: (M,)."""
    areas = []
    for i in range(len(made.labels)):
        owner = np.full((192, 256), -1, np.int8)
        made._paint_object(np.zeros((3, 192, 256), np.float32), owner, i, t)
        areas.append(np.count_nonzero(owner == i))
    return np.array(areas)


def test_the_generator_agrees():
    """What the generator knows to be behind others ranks the instances alike, and every level occurs."""
    truth, said, levels = [], [], []
    for index in range(16):
        made = shapes_clip("val", index)
        masks = np.stack([made.render(t).masks for t in range(len(made))])  # (T, M, H, W)
        areas, whole = masks.sum((2, 3)), np.stack([whole_areas(made, t) for t in range(len(made))])
        behind = (areas > 0) & (areas < 0.9 * whole)
        truth += (behind.sum(axis=0) / np.maximum((areas > 0).sum(axis=0), 1)).tolist()
        measures = instance_measures(masks)
        said += measures["occlusion"].tolist()
        levels += difficulty_levels(measures)
    assert spearmanr(truth, said).statistic > 0.6
    for aspect in ASPECTS:
        assert {entry[aspect] for entry in levels} >= set(LEVELS)


def test_counts_of_groups():
    counts = GroupedCounts(2)
    easy, hard = dict.fromkeys(ASPECTS, "low"), {"occlusion": "high", "speed": None, "size": "low"}
    counts.add(np.array([[1, 2], [10, 20]]), ["b", "a"], [easy, hard])
    counts.add(np.array([[100, 200]]), ["a"], None)
    counts.add(np.zeros((0, 2), int), [], [])
    said = counts.result(lambda row: {"sums": row.tolist()})
    per_category, levels = said["per_category"], said["per_difficulty"]
    assert said["sums"] == [111, 222] and list(per_category) == ["a", "b"]
    assert per_category == {"a": {"sums": [110, 220]}, "b": {"sums": [1, 2]}}
    assert {a: [levels[a][level]["sums"] for level in LEVELS] for a in levels} == {
        "occlusion": [[1, 2], [0, 0], [10, 20]],
        "speed": [[1, 2], [0, 0], [0, 0]],
        "size": [[11, 22], [0, 0], [0, 0]],
    }
    with pytest.raises(ValueError, match="2 categories for 1 instances"):
        counts.add(np.ones((1, 2), int), ["a", "b"], None)
    with pytest.raises(ValueError, match="0 levels for 1 instances"):
        counts.add(np.ones((1, 2), int), None, [])
    assert counts.result(lambda row: {"sums": row.tolist()})["sums"] == [111, 222]
