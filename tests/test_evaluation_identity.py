"""Identities against the truth: hand-made clips, trackeval's CLEAR and brute force as oracles, input to be refused."""

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minst.evaluation import IdentityMeter, identity_events, tracking_figures
from minst.evaluation.difficulty import clip_measures, difficulty_levels, frame_measures
from minst.evaluation.identity import (
    EVENT_KINDS,
    HOTA_FIGURES,
    ID_FIGURES,
    IdentityEvents,
    _cover,
    _scores,
    _trackeval_data,
)
from minst.results import FrameResult, Track, VideoResult, gather_frames
from minst.tracking import encode_mask

SIZE = (4, 40)


def as_trackeval_reads(found):
    return _trackeval_data(found.visible, found.seen, found.ious)


def tracking_scores(results, clips):
    """Those of an IdentityMeter alone."""
    found = [identity_events(*pair) for pair in zip(results, clips, strict=True)]
    return _scores([as_trackeval_reads(of) for of in found])


class Scene:
    """A clip of hand-made masks (T, M, H, W)."""

    def __init__(self, masks, labels=None, categories=None):
        self.truth = np.asarray(masks)
        if labels is not None:
            self.labels = np.array(labels)
        if categories:
            self.categories = categories

    def __len__(self):
        return len(self.truth)

    def masks(self, t):
        return self.truth[t]


def bar(start, stop=None, size=SIZE):
    """A mask of the columns start..stop-1 (a number alone: the ten columns of cell `start`; None: empty)."""
    mask = np.zeros(size, dtype=bool)
    if start is not None:
        begin, end = (start * 10, start * 10 + 10) if stop is None else (start, stop)
        mask[:, begin:end] = True
    return mask


def scene(*rows, **about):
    """Each row an instance: its cell in every frame, None where it is out of sight."""
    return Scene(
        np.array([[bar(cell) for cell in frame] for frame in zip(*rows, strict=True)]), **about
    )


def result(frames, *tracks):
    """Each track (id, cells): where its mask is in every frame, a cell, (start, stop) or None."""
    made = []
    for identity, cells in tracks:
        masks = [
            None if c is None else encode_mask(bar(*c) if isinstance(c, tuple) else bar(c))
            for c in cells
        ]
        made.append(Track(identity, [0.9], masks))
    return VideoResult(made, frames, ("thing",))


def events_of(truth, *tracks):
    return [tuple(e) for e in identity_events(result(len(truth), *tracks), truth).events]


# ---------------------------------------------------------------------------------------------- events


def test_perfect_tracks_are_found_and_nothing_else():
    truth = scene([0, 0, 0], [2, 2, 1])
    found = identity_events(result(3, (7, [2, 2, 1]), (4, [0, 0, 0])), truth)
    assert [tuple(e) for e in found.events] == [(0, 0, "found", 0, 4), (0, 1, "found", 0, 7)]
    assert (
        found.ids.tolist() == [7, 4]
        and found.covers.tolist() == [[1, 0]] * 3
        and found.held_by.tolist() == [[4, 7]] * 3
    )
    assert found.seen.all() and found.visible.all() and found.ious.shape == (3, 2, 2)
    assert found.ious[0].tolist() == [[0, 1], [1, 0]]


def test_two_identities_change_places():
    truth = scene([0] * 4, [2] * 4)
    assert events_of(truth, (1, [0, 0, 2, 2]), (2, [2, 2, 0, 0]))[2:] == [
        (2, 0, "swap", 1, 2),
        (2, 1, "swap", 2, 1),
    ]


def test_lost_while_visible_and_covered_again_is_a_fragmentation():
    truth = scene([0] * 5)
    said = events_of(truth, (1, [0, None, None, 0, 0]))
    assert said == [(0, 0, "found", 0, 1), (1, 0, "lost", 1, 0), (3, 0, "again", 1, 1)]
    said = events_of(truth, (1, [0, None, None, 3, 3]), (2, [None, None, None, 0, 0]))
    assert said[1:] == [(1, 0, "lost", 1, 0), (3, 0, "again", 1, 2), (3, 0, "swap", 1, 2)]


def test_out_of_sight_nothing_is_lost():
    truth = scene([0, None, 0, 0])
    assert events_of(truth, (1, [0, None, 0, 0])) == [(0, 0, "found", 0, 1), (2, 0, "back", 1, 1)]
    assert events_of(truth, (1, [0] + [None] * 3), (2, [None, None, 0, 0])) == [
        (0, 0, "found", 0, 1),
        (2, 0, "swap", 1, 2),
    ]
    # out of sight, then visible and missed: lost when it could be seen again
    assert events_of(truth, (1, [0, None, None, 0])) == [
        (0, 0, "found", 0, 1),
        (2, 0, "lost", 1, 0),
        (3, 0, "again", 1, 1),
    ]
    # missed, out of sight, covered: one fragmentation, not "back"
    truth = scene([0, 0, None, 0])
    assert events_of(truth, (1, [0, None, None, 0]))[1:] == [
        (1, 0, "lost", 1, 0),
        (3, 0, "again", 1, 1),
    ]


def test_never_covered_makes_no_events():
    assert (
        events_of(scene([0, None, 0])) == []
        and events_of(scene([0, None, 0]), (1, [2, 2, 2])) == []
    )


def test_half_covers_and_less_does_not():
    truth = scene([0] * 2)
    assert [e[2] for e in events_of(truth, (1, [(0, 5), (0, 4)]))] == ["found", "lost"]


def test_two_tracks_that_take_turns_at_being_best_swap_nothing():
    truth = scene([0] * 4)
    tracks = (1, [(0, 10), (0, 6), (0, 10), (0, 6)]), (2, [(0, 6), (0, 10), (0, 6), (0, 10)])
    found = identity_events(result(4, *tracks), truth)
    assert [e.kind for e in found.events] == ["found"] and found.covers.tolist() == [[0, -1]] * 4
    # but not for ever: once the first lets go the other has it
    assert events_of(truth, (1, [0, 0, (0, 4), (0, 4)]), (2, [(0, 6)] * 4))[1:] == [
        (2, 0, "swap", 1, 2)
    ]


def test_a_pair_goes_on_whatever_the_rest_may_gain():
    """The pair of IoU 0.5 stays, though the exchange would be worth 1 + 0.9 instead of 0.5."""
    before, now = np.array([[0.9, 0.0], [0.0, 0.9]]), np.array([[0.5, 1.0], [0.9, 0.2]])
    assert _cover(np.stack([before, now])).tolist() == [[0, 1], [0, -1]]
    assert _cover(now[None]).tolist() == [[1, 0]]


def test_events_come_by_frame_then_instance():
    truth = scene([0, 0, 0], [1, 1, 1], [2, 2, 2])
    said = events_of(truth, (1, [2, None, 2]), (2, [None, 0, 0]), (3, [1, 1, None]))
    assert [e[:3] for e in said] == sorted((e[:3] for e in said), key=lambda e: e[:2])
    assert {e[2] for e in said} <= set(EVENT_KINDS)


def random_events(seed, frames=8, tracks=4, instances=3, full=True):
    """IdentityEvents with IoU alone; `full`: everyone is there in every frame."""
    rng = np.random.default_rng(seed)
    seen = np.ones((frames, tracks), bool) if full else rng.random((frames, tracks)) < 0.7
    visible = np.ones((frames, instances), bool) if full else rng.random((frames, instances)) < 0.8
    ious = rng.choice(
        [0.0, 0.2, 0.5, 0.55, 0.7, 0.9],
        (frames, tracks, instances),
        p=[0.4, 0.1, 0.1, 0.1, 0.15, 0.15],
    )
    ious = ious + rng.random(ious.shape) * 0.01 * (ious > 0)  # no ties
    ious *= seen[:, :, None] & visible[:, None]
    return IdentityEvents(np.arange(1, tracks + 1), seen, None, visible, None, ious, [], [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_swaps_and_fragmentations_are_those_of_clear_mot(seed, tracks, instances):
    """With all instances in sight all the time our events are trackeval's IDSW and Frag."""
    clear = pytest.importorskip("trackeval").metrics.CLEAR({"PRINT_CONFIG": False})
    from minst.evaluation.identity import _events_of

    made = random_events(seed, tracks=tracks, instances=instances)
    covers = _cover(made.ious)
    held = np.zeros(made.visible.shape, int)
    for t, k in zip(*np.nonzero(covers >= 0)):
        held[t, covers[t, k]] = k + 1
    kinds = [
        e.kind for m in range(instances) for e in _events_of(m, made.visible[:, m], held[:, m])
    ]
    theirs = clear.eval_sequence(as_trackeval_reads(made))
    assert (kinds.count("swap"), kinds.count("again")) == (theirs["IDSW"], theirs["Frag"])
    assert (covers >= 0).sum() == theirs["CLR_TP"]


# ---------------------------------------------------------------------------------------------- counts


def test_counts_per_category_and_difficulty():
    truth = scene([0] * 5, [2] * 5, [None] * 5, labels=[1, 0, 0], categories=("cat", "dog"))
    meter = IdentityMeter()
    meter.add_clip(
        result(5, (1, [0, None, 0, None, 0]), (2, [2, 2, None, 2, None])), truth
    )  # lost at the end
    meter.add_clip(result(5, (1, [0, 0, 2, 2, 2]), (2, [2, 2, 0, 0, 0])), truth)
    said = meter.result()
    counts = {
        "instances": 4,
        "visible": 20,
        "covered_share": 16 / 20,
        "fragmentations": 3,
        "swaps": 2,
    }
    assert {k: said[k] for k in counts} == counts
    assert said["per_category"] == {
        "cat": {
            "instances": 2,
            "visible": 10,
            "covered_share": 0.8,
            "fragmentations": 1,
            "swaps": 1,
        },
        "dog": {
            "instances": 2,
            "visible": 10,
            "covered_share": 0.8,
            "fragmentations": 2,
            "swaps": 1,
        },
    }
    for levels in said[
        "per_difficulty"
    ].values():  # the instance that is never visible belongs to no level
        assert sum(figures["instances"] for figures in levels.values()) == 4
        assert sum(figures["swaps"] for figures in levels.values()) == 2
    assert said["per_difficulty"]["size"]["high"]["instances"] == 4  # a quarter of the frame
    assert math.isnan(said["per_difficulty"]["size"]["low"]["covered_share"])


def test_levels_are_those_of_the_masks():
    rng = np.random.default_rng(3)
    truth = Scene(rng.random((4, 3, 6, 6)) > 0.5)
    found = identity_events(VideoResult([], 4, ()), truth)
    assert found.levels == difficulty_levels(
        clip_measures(np.stack([frame_measures(masks) for masks in truth.truth]))
    )


def test_categories_without_names():
    meter = IdentityMeter()
    meter.add_clip(result(1), scene([0], labels=[3]))
    assert set(meter.result()["per_category"]) == {"class 3"}
    meter = IdentityMeter()
    meter.add_clip(result(1), scene([0]))
    assert meter.result()["per_category"] == {}


# ---------------------------------------------------------------------------------------------- HOTA, IDF1


def test_perfect_tracking_is_one():
    pytest.importorskip("trackeval")
    truth, tracks = scene([0] * 4, [2, 2, None, 3]), [(5, [0] * 4), (9, [2, 2, None, 3])]
    scores = tracking_scores([result(4, *tracks)] * 2, [truth] * 2)
    assert tuple(scores) == HOTA_FIGURES + ID_FIGURES and all(
        type(v) is float for v in scores.values()
    )
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))
    # an instance that is never visible and a track without a mask are nothing to be missed
    truth = scene([None] * 4, [0] * 4, [2, 2, None, 3])
    assert tracking_scores([result(4, (1, [None] * 4), *tracks)], [truth]) == pytest.approx(scores)


def test_halves_that_change_places():
    """Two instances, eight frames, ids swapped in the middle: all detected, each association 4 / (8 + 8 - 4) = 1/3."""
    pytest.importorskip("trackeval")
    truth = scene([0] * 8, [2] * 8)
    scores = tracking_scores([result(8, (1, [0] * 4 + [2] * 4), (2, [2] * 4 + [0] * 4))], [truth])
    assert scores["DetA"] == pytest.approx(1) and scores["AssA"] == pytest.approx(1 / 3)
    assert scores["HOTA"] == pytest.approx(math.sqrt(1 / 3)) and scores["AssRe"] == pytest.approx(
        0.5
    )
    assert scores["IDF1"] == scores["IDP"] == scores["IDR"] == pytest.approx(0.5)


def test_clips_are_combined_by_their_counts():
    """Two frames perfect, six frames missed: IDTP 2, IDFN 6; AssA is that of what was matched."""
    pytest.importorskip("trackeval")
    scores = tracking_scores([result(2, (1, [0, 0])), result(6)], [scene([0] * 2), scene([0] * 6)])
    assert (
        scores["IDR"] == pytest.approx(1 / 4)
        and scores["IDP"] == 1
        and scores["IDF1"] == pytest.approx(2 / 5)
    )
    assert scores["DetA"] == pytest.approx(1 / 4) and scores["AssA"] == pytest.approx(1)
    assert scores["HOTA"] == pytest.approx(
        1 / 2
    )  # sqrt of the combined parts, not a mean over clips


def brute_identity(made):
    """IDTP at its best over all one-to-one maps of instances to tracks; then IDP, IDR, IDF1."""
    agree = (made.ious >= 0.5).sum(axis=0)  # (K, M)
    tracks, instances = agree.shape
    padded = np.vstack([agree, np.zeros((instances, instances), int)])  # an instance may stay alone
    best = max(
        sum(padded[k, m] for m, k in enumerate(map_))
        for map_ in itertools.permutations(range(len(padded)), instances)
    )
    said, true = made.seen.sum(), made.visible.sum()
    return {
        "IDP": best / max(said, 1),
        "IDR": best / max(true, 1),
        "IDF1": 2 * best / max(said + true, 1),
    }


def brute_hota(made):
    """HOTA by its definition, with HOTA's own matching (global alignment) by trying all assignments of a frame."""
    frames, tracks, instances = made.ious.shape
    soft = np.zeros((tracks, instances))
    for iou in made.ious:
        for k, m in np.ndindex(tracks, instances):
            both = iou[k].sum() + iou[:, m].sum() - iou[k, m]
            soft[k, m] += iou[k, m] / both if both > 0 else 0
    true, said = made.visible.sum(axis=0), made.seen.sum(axis=0)
    align = soft / np.maximum(true[None] + said[:, None] - soft, 1e-9)
    pairs = []  # (t, k, m) of the best assignment in every frame
    for t, iou in enumerate(made.ious):
        ks, ms = np.flatnonzero(made.seen[t]), np.flatnonzero(made.visible[t])
        if len(ks) and len(ms):
            few, many, flip = (ks, ms, False) if len(ks) <= len(ms) else (ms, ks, True)
            options = [list(zip(few, p)) for p in itertools.permutations(many, len(few))]
            options = [[(k, m) for m, k in o] if flip else o for o in options]
            best = max(options, key=lambda o: sum(align[k, m] * iou[k, m] for k, m in o))
            pairs += [(t, k, m) for k, m in best]
    figures = []
    for alpha in np.arange(1, 20) * 0.05:
        hits = [(k, m) for t, k, m in pairs if made.ious[t, k, m] >= alpha - 1e-12]
        det = len(hits) / max(true.sum() + said.sum() - len(hits), 1)
        ass = [hits.count(h) / (true[h[1]] + said[h[0]] - hits.count(h)) for h in hits]
        ass = sum(ass) / max(len(hits), 1)
        figures.append((math.sqrt(det * ass), det, ass))
    return dict(zip(("HOTA", "DetA", "AssA"), np.mean(figures, axis=0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3))
def test_scores_against_brute_force(seed, tracks, instances):
    pytest.importorskip("trackeval")
    made = random_events(seed, frames=5, tracks=tracks, instances=instances, full=False)
    if not made.seen.any() and not made.visible.any():
        return
    scores = _scores([as_trackeval_reads(made)])
    expected = brute_identity(made) | brute_hota(made)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_without_trackeval_a_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackeval", None)
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    truth, tracks = scene([0]), result(1, (1, [0]))
    with pytest.raises(ImportError, match=r'python3 -m pip install "mobileinst\[track\]"'):
        tracking_scores([tracks], [truth])
    meter = IdentityMeter()
    meter.add_clip(tracks, truth)
    said = meter.result()
    assert "HOTA" not in said and "mobileinst[track]" in said["note"] and said["swaps"] == 0


def test_silent(capsys):
    pytest.importorskip("trackeval")
    tracking_scores([result(2, (1, [0, 0]))], [scene([0, 0])])
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------------------------------- little, nothing, wrong


def test_nothing_there():
    pytest.importorskip("trackeval")
    empty = Scene(np.zeros((3, 0, *SIZE), bool))
    found = identity_events(result(3), empty)
    assert (
        found.events == []
        and found.covers.shape == (3, 0)
        and found.held_by.shape == (3, 0)
        and found.levels == []
    )
    assert all(math.isnan(v) for v in tracking_scores([result(3)], [empty]).values())
    assert all(math.isnan(v) for v in tracking_scores([], []).values())
    meter = IdentityMeter()
    meter.add_clip(result(3), empty)
    assert meter.result()["visible"] == 0 and math.isnan(meter.result()["covered_share"])
    # tracks of nothing, and instances without tracks
    assert tracking_scores([result(3, (1, [0] * 3))], [empty])["IDF1"] == 0
    found = identity_events(result(3, (1, [0] * 3)), empty)
    assert found.covers.tolist() == [[-1]] * 3 and found.events == []
    assert tracking_scores([result(2)], [scene([0, 0])])["HOTA"] == 0


def test_one_frame_and_a_clip_that_renders():
    class Rendered(Scene):
        masks = property()  # AttributeError: as a clip of shapes, which has render alone

        def render(self, t):
            return type("Frame", (), {"masks": self.truth[t]})

    found = identity_events(result(1, (3, [1])), Rendered(scene([1]).truth))
    assert [tuple(e) for e in found.events] == [(0, 0, "found", 0, 3)]


def test_what_does_not_fit_is_refused():
    truth = scene([0, 0])
    with pytest.raises(ValueError, match=r"the result has \[3\] frames, the clip 2"):
        identity_events(result(3, (1, [0] * 3)), truth)
    with pytest.raises(ValueError, match=r"\[2, 3\] frames"):
        identity_events(VideoResult(result(3, (1, [0] * 3)).tracks, 2, ()), truth)
    with pytest.raises(ValueError, match=r"\[0\] frames"):
        identity_events(result(0), Scene(np.zeros((0, 1, 4, 4), bool)))
    small = Track(1, [0.9], [None, encode_mask(np.ones((2, 2), bool))])
    with pytest.raises(ValueError, match="frame 1: a mask of 2 x 2 in a frame of 4 x 40"):
        identity_events(VideoResult([small], 2, ()), truth)
    with pytest.raises(ValueError):
        tracking_scores([result(2)], [truth, truth])


def test_gathered_frames():
    a, b = encode_mask(bar(0)), encode_mask(bar(1))
    frames = [
        FrameResult(0, True, [2], [1], [0.6], [a], [5]),
        FrameResult(1, False, [], [], [], [], []),
        FrameResult(2, True, [1, 2], [0, 0], [0.9, 0.7], [b, a], [4, 5]),
    ]
    made = gather_frames(iter(frames), ("x", "y"))
    assert made == VideoResult(
        [Track(1, [0.9, 0.0], [None, None, b]), Track(2, [0.7, 0.0], [a, None, a])], 3, ("x", "y")
    )
    assert gather_frames([]) == VideoResult([], 0, ())


# ---------------------------------------------------------------------------------------------- results files


def file_of(*videos):
    """Ground truth: each video a list of instances (category, cells) or (category, cells, crowd)."""
    made = {
        "videos": [],
        "categories": [{"id": 4, "name": "fish"}, {"id": 2, "name": "cat"}],
        "annotations": [],
    }
    for v, instances in enumerate(videos, start=1):
        frames = len(instances[0][1])
        made["videos"].append({"id": v, "height": SIZE[0], "width": SIZE[1], "length": frames})
        for category, cells, *crowd in instances:
            masks = codes(cells)
            areas = [None if mask is None else 40 for mask in masks]
            entry = {
                "id": len(made["annotations"]) + 1,
                "video_id": v,
                "category_id": category,
                "areas": areas,
            }
            made["annotations"].append(
                {**entry, "iscrowd": int(bool(crowd)), "segmentations": masks}
            )
    return made


def codes(cells):
    return [
        None if c is None else encode_mask(bar(*c) if isinstance(c, tuple) else bar(c))
        for c in cells
    ]


def entry(video, category, cells, score=0.9):
    return {
        "video_id": video,
        "category_id": category,
        "score": score,
        "segmentations": codes(cells),
    }


def test_figures_of_a_results_file_by_hand():
    gt = file_of([(4, [0, 0, 0, 0]), (2, [2, 2, 2, 2])], [(4, [1, 1])])
    results = [
        entry(1, 4, [0, 0, None, None]),
        entry(1, 4, [None, None, 0, 0]),  # another track goes on with it
        entry(1, 2, [2, None, 2, None]),
        entry(2, 4, [3, 3]),  # on nothing
        entry(2, 4, [1, 1], score=0.49),  # not sure enough
    ]
    said = tracking_figures(gt, results)
    fish, cat = said["per_category"]["fish"], said["per_category"]["cat"]
    # fish: 6 instances-in-frames, 4 found, 2 missed, 2 wrong, one switch; the longest track keeps 2 of 6 its id
    assert (fish["MOTA"], fish["MOTP"], fish["IDSW"], fish["Frag"]) == pytest.approx(
        ((4 - 2 - 1) / 6, 1, 1, 0)
    )
    assert (fish["IDF1"], fish["IDP"], fish["IDR"]) == pytest.approx((4 / 12, 2 / 6, 2 / 6))
    assert (cat["MOTA"], cat["IDSW"], cat["Frag"], cat["IDF1"]) == pytest.approx(
        (2 / 4, 0, 0, 4 / 6)
    )
    # HOTA, all thresholds alike: DetA = TP / (TP + FN + FP); AssA = mean over TP of shared / either
    assert (cat["DetA"], cat["AssA"], cat["HOTA"]) == pytest.approx((2 / 4, 2 / 4, 0.5))
    assert (fish["DetA"], fish["AssA"]) == pytest.approx((4 / 8, 2 / 4))
    assert (said["MOTA"], said["IDSW"], said["Frag"]) == pytest.approx(((6 - 2 - 1) / 10, 1, 0))
    assert said["IDF1"] == pytest.approx(2 * 4 / (10 + 8)) and said["DetA"] == pytest.approx(6 / 12)
    assert said["mean"]["MOTA"] == pytest.approx((1 / 6 + 1 / 2) / 2) and "IDSW" not in said["mean"]
    assert said["mean"]["HOTA"] == pytest.approx((fish["HOTA"] + cat["HOTA"]) / 2)
    assert said["score_threshold"] == 0.5 and list(said["per_category"]) == ["cat", "fish"]  # by id
    assert tracking_figures(gt, results, 0.4)["per_category"]["fish"]["MOTA"] == pytest.approx(
        (6 - 2 - 1) / 6
    )
    assert tracking_figures(gt, results, 0.4)["score_threshold"] == 0.4


def test_a_gap_while_others_are_tracked_is_a_fragmentation():
    gt = file_of([(4, [0, 0, 0]), (4, [2, 2, 2])])
    said = tracking_figures(gt, [entry(1, 4, [0, None, 0]), entry(1, 4, [2, 2, 2])])
    assert (said["Frag"], said["IDSW"], said["MOTA"]) == (1, 0, pytest.approx(5 / 6))
    # trackeval steps over frames without any track: a gap that all share is no Frag
    assert tracking_figures(gt, [entry(1, 4, [0, None, 0]), entry(1, 4, [2, None, 2])])["Frag"] == 0


def test_the_right_masks_under_another_category_find_nothing():
    said = tracking_figures(file_of([(4, [0, 0])]), [entry(1, 2, [0, 0])])
    assert (
        said["HOTA"] == 0 and said["MOTA"] == -1 and said["mean"]["MOTA"] == 0
    )  # cats: no instances, not in the mean
    assert said["per_category"]["cat"]["HOTA"] == 0 and said["per_category"]["fish"]["DetRe"] == 0


def test_a_crowd_hides_what_covers_nothing_else():
    gt = file_of([(4, [0, 0]), (4, [2, 2], True)])
    perfect = tracking_figures(gt, [entry(1, 4, [0, 0])])
    assert perfect["MOTA"] == 1 and perfect["DetRe"] == 1  # the crowd need not be found
    hidden = tracking_figures(gt, [entry(1, 4, [0, 0]), entry(1, 4, [2, (20, 26)])])
    assert hidden["per_category"]["fish"] == perfect["per_category"]["fish"] and hidden["MOTA"] == 1
    half = tracking_figures(
        gt, [entry(1, 4, [0, 0]), entry(1, 4, [2, (16, 24)])]
    )  # frame 1: covers the crowd by 4/14
    assert half["MOTA"] == pytest.approx((2 - 1) / 2)
    both = file_of([(4, [0, 0]), (4, [0, 0], True)])
    assert (
        tracking_figures(both, [entry(1, 4, [0, 0])])["MOTA"] == 1
    )  # an instance within a crowd still counts


def test_without_instances_or_tracks_figures_are_unknown():
    gt = file_of([(4, [None, None])])
    said = tracking_figures(gt, [])
    assert all(math.isnan(said[name]) for name in (*HOTA_FIGURES, *ID_FIGURES, "MOTA", "IDSW"))
    assert math.isnan(said["mean"]["HOTA"]) and math.isnan(said["per_category"]["cat"]["IDF1"])
    missed = tracking_figures(file_of([(4, [0, 0])]), [])
    assert (missed["HOTA"], missed["MOTA"], missed["IDF1"]) == (0, 0, 0)
    empty = np.zeros(SIZE, bool)
    nothing = {**entry(1, 4, [0, 0]), "segmentations": [encode_mask(empty)] * 2}
    assert (
        tracking_figures(file_of([(4, [0, 0])]), [nothing])["MOTA"] == 0
    )  # an empty mask is no mask


cells = st.lists(st.sampled_from([None, 0, 1, 2, 3, (3, 12), (8, 22)]), min_size=3, max_size=3)


@settings(max_examples=30)
@given(st.lists(cells, min_size=1, max_size=3), st.lists(cells, max_size=3))
def test_one_category_gives_what_tracking_scores_gives(truths, tracks):
    """The other way to the same figures: masks decoded, compared by numpy, classes left out."""
    said = tracking_figures(
        file_of([(4, row) for row in truths]), [entry(1, 4, row) for row in tracks]
    )
    masks = np.array(
        [[bar(*c) if isinstance(c, tuple) else bar(c) for c in frame] for frame in zip(*truths)]
    )
    wanted = tracking_scores([result(3, *enumerate(tracks, start=1))], [Scene(masks)])
    assert {name: said[name] for name in wanted} == pytest.approx(wanted, nan_ok=True)


def test_bad_results_are_refused():
    gt = file_of([(4, [0, 0])])
    short = {**entry(1, 4, [0, 0]), "segmentations": [None, {"size": list(SIZE), "counts": "08"}]}
    with pytest.raises(ValueError, match=r"results\[1\].segmentations\[1\]: .*covers 8"):
        tracking_figures(gt, [entry(1, 4, [0, 0]), short])
    gt["annotations"][0]["segmentations"][0] = {"size": list(SIZE), "counts": "0~"}
    with pytest.raises(ValueError, match=r"ground truth.annotations\[0\].segmentations\[0\]"):
        tracking_figures(gt, [])
    with pytest.raises(ValueError, match="score_threshold is 1.5"):
        tracking_figures(gt, [], 1.5)
    with pytest.warns(UserWarning, match="categories that the ground truth does not list"):
        assert tracking_figures(file_of([(4, [0, 0])]), [entry(1, 77, [0, 0])])["MOTA"] == 0
