"""Query consistency: hand-made clips, an oracle by brute force, input that must be refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minst.evaluation import ConsistencyMeter, assign_queries, query_consistency
from minst.evaluation.consistency import frame_share, mask_ious
from minst.matcher import Instances, matching_scores


def boxes(*columns, size=(4, 12), count=None):
    """(count, H, W) masks, each a block of the given columns (None: empty)."""
    masks = np.zeros((len(columns), *size), dtype=bool)
    for i, c in enumerate(columns):
        if c is not None:
            masks[i, :, c[0] : c[1]] = True
    return masks


def test_the_holder_is_sure_of_the_class_not_the_best_outline():
    # query 0 draws a little better, query 1 knows what it is; query 2 knows it too, but draws something else
    ious, probabilities = np.array([[0.8], [0.7], [0.4]]), np.array([[0.05], [0.9], [0.99]])
    assert assign_queries(ious, probabilities) == [(1, 0)]
    assert assign_queries(ious) == [
        (0, 0)
    ]  # where nobody says anything of classes, the outline decides


def test_a_holder_needs_half_and_more():
    assert assign_queries(np.array([[0.5, 0.0], [0.0, 0.4999]])) == [(0, 0)]
    assert assign_queries(np.zeros((3, 0))) == [] and assign_queries(np.zeros((0, 2))) == []
    with pytest.raises(ValueError, match=r"\(N, G\)"):
        assign_queries(np.zeros(3))
    with pytest.raises(ValueError, match=r"probabilities must be finite and \(2, 1\)"):
        assign_queries(np.zeros((2, 1)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="probabilities must be finite"):
        assign_queries(np.zeros((2, 1)), np.full((2, 1), np.nan))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_the_holder_is_who_the_matcher_would_take(n, m, seed):
    """Against the matcher's own score, computed from masks; instances are disjoint, as the truth is."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, m + 1, 40)  # whose pixel it is; m = nobody's
    truths = (owner == np.arange(m)[:, None])[:, None]  # (M, 1, 40)
    queries = (truths[rng.integers(0, m, n)] ^ (rng.random((n, 1, 40)) < 0.1)).astype(bool)
    logits = rng.normal(size=(n, m)).astype(np.float32)
    ious = mask_ious(queries, truths)
    instances = Instances(torch.arange(m), torch.from_numpy(truths), torch.arange(m))
    masks = torch.from_numpy(np.where(queries, 40.0, -40.0))
    scores = matching_scores(torch.from_numpy(logits), masks, instances).numpy()
    said = assign_queries(ious, 1 / (1 + np.exp(-logits)))
    fits = ious >= 0.5
    assert [k for _, k in said] == np.flatnonzero(fits.any(axis=0)).tolist()
    for q, k in said:  # of two that differ by rounding alone, either
        assert fits[q, k] and scores[q, k] == pytest.approx(scores[fits[:, k], k].max(), abs=1e-4)


def test_iou_of_masks():
    queries, truths = boxes((0, 4), (2, 6), None), boxes((0, 4), None)
    np.testing.assert_allclose(mask_ious(queries, truths), [[1, 0], [1 / 3, 0], [0, 0]])


def test_a_query_that_lets_go():
    truth = [boxes((0, 4))] * 4
    queries = [
        boxes((0, 4), (8, 12)),
        boxes((0, 4), (8, 12)),
        boxes((8, 12), (0, 4)),
        boxes((8, 12), (0, 4)),
    ]
    result = query_consistency(queries, truth, max_distance=4)
    # held: query 0 in frames 0 and 1, query 1 in frames 2 and 3; of the pairs one frame apart only 1 -> 2 is lost
    assert (
        result["held"] == result["visible"] == 4
        and result["held_share"] == 1
        and result["queries_used"] == 2
    )
    assert result["pairs"] == {
        1: {"kept": 2, "of": 3},
        2: {"kept": 0, "of": 2},
        3: {"kept": 0, "of": 1},
        4: {"kept": 0, "of": 0},
    }
    assert result["retention"][1] == pytest.approx(2 / 3) and math.isnan(result["retention"][4])


def test_plain_iou_later_not_the_assignment():
    """Two queries on one instance: the one not assigned any more still has it."""
    truth = [boxes((0, 4))] * 2
    result = query_consistency(
        [boxes((0, 4), (0, 3)), boxes((0, 3), (0, 4))], truth, max_distance=1
    )
    assert result["retention"] == {1: 1.0} and result["queries_used"] == 2


def test_invisible_instances_are_no_loss():
    truth = [boxes((0, 4)), boxes(None), boxes((0, 4))]
    result = query_consistency([boxes((0, 4)), boxes(None), boxes((0, 4))], truth, max_distance=2)
    assert result["pairs"] == {1: {"kept": 0, "of": 0}, 2: {"kept": 1, "of": 1}}
    assert result["visible"] == 2 and result["held"] == 2


def test_a_lost_query_counts_against():
    truth = [boxes((0, 4))] * 2
    assert query_consistency([boxes((0, 4)), boxes(None)], truth, max_distance=1)["retention"] == {
        1: 0.0
    }


def test_half_is_enough_to_stay():
    truth = [boxes((0, 4))] * 2
    assert query_consistency([boxes((0, 4)), boxes((0, 2))], truth, max_distance=1)[
        "retention"
    ] == {1: 1.0}


def test_queries_are_counted_once_in_all_and_once_a_clip():
    meter = ConsistencyMeter()
    for queries in (
        boxes((0, 4), None, None),
        boxes(None, (0, 4), None),
        boxes((0, 4), None, None),
    ):
        meter.add_clip([queries] * 2, [boxes((0, 4))] * 2)
    assert meter.result()["queries_used"] == 2 and meter.result()["queries_per_clip"] == 1


def test_clips_add_up_and_iterators_do():
    rng = np.random.default_rng(0)
    clips = [
        (rng.random((t, 5, 4, 4)) > 0.3, rng.random((t, m, 4, 4)) > 0.3)
        for t, m in ((6, 2), (9, 3), (4, 0))
    ]
    meter = ConsistencyMeter(max_distance=3)
    for queries, truths in clips:
        meter.add_clip(iter(queries), (g for g in truths))
    whole, parts = meter.result(), [query_consistency(q, g, max_distance=3) for q, g in clips]
    for k in (1, 2, 3):
        assert whole["pairs"][k] == {
            key: sum(p["pairs"][k][key] for p in parts) for key in ("kept", "of")
        }
    assert whole["held"] == sum(p["held"] for p in parts) and whole["clips"] == 3
    assert whole["queries_per_clip"] == pytest.approx(sum(p["queries_used"] for p in parts) / 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 10**6))
def test_against_brute_force(frames, n, m, seed):
    rng = np.random.default_rng(seed)
    queries, truths = rng.random((frames, n, 3, 3)) > 0.3, rng.random((frames, m, 3, 3)) > 0.3
    truths[rng.random((frames, m)) < 0.3] = False
    result = query_consistency(queries, truths, max_distance=3)

    def iou(t, q, g):
        a, b = queries[t, q], truths[t, g]
        return (a & b).sum() / max((a | b).sum(), 1)

    held = []
    for t in range(frames):
        for g in range(m):
            q = max(range(n), key=lambda q: iou(t, q, g))
            if iou(t, q, g) >= 0.5:
                held.append((t, q, g))
    assert result["held"] == len(held) and result["queries_used"] == len({q for _, q, _ in held})
    fitting = sum(iou(t, q, g) >= 0.5 for t, _, g in held for q in range(n))
    each = fitting / len(held) if held else np.nan
    assert [result["holders"], result["sure_holders"]] == pytest.approx([each, each], nan_ok=True)
    for k in (1, 2, 3):
        of = [(t, q, g) for t, q, g in held if t + k < frames and truths[t + k, g].any()]
        kept = sum(iou(t + k, q, g) >= 0.5 for t, q, g in of)
        assert result["pairs"][k] == {"kept": kept, "of": len(of)}
        drawn = [iou(t + k, q, g) >= 0.5 for t, _, g in of for q in range(n)]
        assert result["chance"][k] == pytest.approx(
            np.mean(drawn) if drawn else np.nan, nan_ok=True
        )


def test_only_sure_queries_are_sure_holders_and_the_sure_one_holds():
    """Three queries on one instance; the silent one draws best, and lets go in frame 1."""
    truth = [boxes((0, 8))] * 2
    queries = [boxes((0, 8), (0, 7), (0, 6)), boxes((8, 12), (0, 7), (0, 6))]
    probabilities, scores = [[[0.1], [0.8], [0.2]]] * 2, [[0.1, 0.8, 0.31]] * 2
    said = query_consistency(queries, truth, 1)
    assert said["retention"] == {1: 0.0} and said["holders"] == said["sure_holders"] == 2.5
    said = ConsistencyMeter(1).add_clip(queries, truth, None, probabilities, scores).result()
    assert said["retention"] == {1: 1.0} and said["holders"] == 2.5 and said["sure_holders"] == 2.0
    assert said["chance"] == {1: pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="probabilities must be"):
        ConsistencyMeter(1).add_clip(queries, truth, None, probabilities[:1])


def test_the_frame_share_of_queries():
    rng = np.random.default_rng(0)
    who, when = rng.normal(size=(1, 5, 3)), rng.normal(size=(4, 1, 3))
    assert frame_share(np.repeat(who, 4, axis=0)) == pytest.approx(0)  # the same in every frame
    assert frame_share(np.repeat(when, 5, axis=1)) == pytest.approx(
        1
    )  # all that counts is the frame
    values = who + 0.7 * when
    over_frames = np.mean([values[:, n, d].var() for n in range(5) for d in range(3)])
    over_all = np.mean([values[:, :, d].var() for d in range(3)])
    assert (
        frame_share(values) == pytest.approx(over_frames / over_all)
        and 0.1 < frame_share(values) < 0.9
    )
    assert math.isnan(frame_share(values[:1]))


@pytest.mark.parametrize(
    "queries, truths, message",
    [
        (
            np.zeros((2, 1, 4, 4), bool),
            np.zeros((3, 1, 4, 4), bool),
            "query_masks ends after 2 frames",
        ),
        (
            np.zeros((3, 1, 4, 4), bool),
            np.zeros((2, 1, 4, 4), bool),
            "gt_masks ends after 2 frames",
        ),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4), bool), "frame 0: query masks must be bool"),
        (np.zeros((2, 1, 4, 4), bool), np.zeros((2, 1, 8, 8), bool), "resize"),
        (
            [np.zeros((1, 4, 4), bool), np.zeros((2, 4, 4), bool)],
            np.zeros((2, 1, 4, 4), bool),
            "frame 1",
        ),
        ([], [], "at least one frame"),
    ],
)
def test_what_is_refused(queries, truths, message):
    with pytest.raises(ValueError, match=message):
        query_consistency(queries, truths)


def test_distance_and_shapes_are_checked():
    with pytest.raises(ValueError, match="max_distance"):
        ConsistencyMeter(max_distance=0)
    with pytest.raises(ValueError, match=r"\(L, N, G\)"):
        ConsistencyMeter().add_ious(np.zeros((2, 3, 1)), np.zeros((2, 3), bool))


def test_figures_per_category_and_difficulty_add_up():
    rng = np.random.default_rng(1)
    meter, alone = (
        ConsistencyMeter(max_distance=2),
        {name: ConsistencyMeter(max_distance=2) for name in "ab"},
    )
    for names in ("ab", "bb", "b"):
        # instances that do not overlap, so that each can be looked at alone
        truths = np.zeros((12, len(names), 4, 12), bool)
        for m in range(len(names)):
            truths[:, m, :, 6 * m : 6 * m + 6] = rng.random((12, 4, 6)) > 0.2
        queries = truths & (rng.random((12, len(names), 1, 1)) > 0.3)
        meter.add_clip(queries, truths, list(names))
        for name in set(names):
            mine = [m for m, n in enumerate(names) if n == name]
            alone[name].add_clip(queries, truths[:, mine])
    said = meter.result()
    for name, expected in ((n, m.result()) for n, m in alone.items()):
        figures = said["per_category"][name]
        assert figures == {key: expected[key] for key in figures}
    assert set(said["per_category"]) == {"a", "b"} and said["instances"] == 5
    for levels in said["per_difficulty"].values():
        assert list(levels) == ["low", "medium", "high"]
        assert sum(f["held"] for f in levels.values()) == said["held"] > 0
        assert sum(f["instances"] for f in levels.values()) == 5
        for k in (1, 2):
            for key in ("kept", "of"):
                assert sum(f["pairs"][k][key] for f in levels.values()) == said["pairs"][k][key] > 0


def test_difficulty_comes_from_the_masks_or_as_given():
    small, large = boxes((0, 1)), boxes((0, 12))
    for truth, level in ((small, "high"), (large, "high")):
        per = query_consistency([truth] * 2, [truth] * 2)["per_difficulty"]
        assert (
            per["size"][level]["held"] == 2
            and per["speed"]["low"]["held"] == per["occlusion"]["low"]["held"] == 2
        )
    tiny = boxes((0, 1), size=(4, 100))
    per = query_consistency([tiny] * 2, [tiny] * 2)["per_difficulty"]["size"]
    assert (
        per["low"]["held"] == 2
        and per["low"]["retention"][1] == 1
        and math.isnan(per["high"]["held_share"])
    )
    given = {"occlusion": "high", "speed": "medium", "size": None}
    said = (
        ConsistencyMeter()
        .add_ious(np.ones((2, 1, 1)), np.ones((2, 1), bool), ["x"], [given])
        .result()
    )
    per = said["per_difficulty"]
    assert per["occlusion"]["high"]["held"] == per["speed"]["medium"]["held"] == 2
    assert (
        all(figures["held"] == 0 for figures in per["size"].values())
        and said["per_category"]["x"]["held_share"] == 1
    )
    assert (
        ConsistencyMeter()
        .add_ious(np.ones((2, 1, 1)), np.ones((2, 1), bool))
        .result()["per_category"]
        == {}
    )


def test_names_must_match_the_instances():
    meter = ConsistencyMeter()
    for options in ({"categories": ["a", "b"]}, {"levels": []}):
        with pytest.raises(ValueError, match="for 1 instances"):
            meter.add_ious(np.ones((2, 1, 1)), np.ones((2, 1), bool), **options)
    with pytest.raises(ValueError, match="0 categories for 1 instances"):
        meter.add_clip([boxes((0, 4))], [boxes((0, 4))], [])
    assert meter.result()["clips"] == meter.result()["held"] == 0


def test_a_clip_without_instances_counts_as_a_clip():
    said = query_consistency(
        np.zeros((3, 2, 4, 4), bool), np.zeros((3, 0, 4, 4), bool), categories=[]
    )
    assert (
        said["clips"] == 1
        and said["visible"] == 0
        and math.isnan(said["held_share"])
        and said["queries_per_clip"] == 0
    )


def test_what_is_out_of_sight_does_not_count_whatever_its_iou():
    visible = np.array([[True, False], [False, False]])
    said = (
        ConsistencyMeter(max_distance=1).add_ious(np.ones((2, 2, 2)) * np.eye(2), visible).result()
    )
    assert (
        said["pairs"] == {1: {"kept": 0, "of": 0}}
        and said["instances"] == said["visible"] == said["held"] == 1
    )
