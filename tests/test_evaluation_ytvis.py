"""Video AP: the official evaluator's figures, an oracle of our own, properties; malformed input by name."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from minst.evaluation import FIGURES, YTVISEval, evaluate_ytvis

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "ytvis"
THRESHOLDS = np.linspace(0.5, 0.95, 10)
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools' decode


def rle(mask, text=True):
    code = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "size": [int(n) for n in code["size"]],
        "counts": code["counts"].decode() if text else code["counts"],
    }


def uncompressed(mask):
    flat = np.concatenate([[0], np.asarray(mask, dtype=int).reshape(-1, order="F"), [2]])
    edges = (
        np.flatnonzero(np.diff(flat))
        if flat[1] == 0
        else np.concatenate([[0], np.flatnonzero(np.diff(flat))])
    )
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


def data_set(tracks, predictions, frames=3, size=(8, 10), categories=(1, 2), videos=(1,), **extra):
    """tracks: (video, category, masks), predictions: (video, category, score, masks); a mask is an array or None."""
    gt = {
        "videos": [
            {"id": v, "height": size[0], "width": size[1], "length": frames} for v in videos
        ],
        "categories": [{"id": c, "name": f"kind {c}"} for c in categories],
        "annotations": [
            {
                "id": i + 1,
                "video_id": v,
                "category_id": c,
                "iscrowd": 0,
                "segmentations": [None if m is None else rle(m) for m in masks],
                "areas": [None if m is None else int(m.sum()) for m in masks],
            }
            | extra
            for i, (v, c, masks) in enumerate(tracks)
        ],
    }
    results = [
        {
            "video_id": v,
            "category_id": c,
            "score": s,
            "segmentations": [None if m is None else rle(m) for m in masks],
        }
        for v, c, s, masks in predictions
    ]
    return gt, results


def block(top, left, height=4, width=4, size=(8, 10)):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def random_case(seed, videos=3, frames=3, size=(8, 10), crowd=0.15, scale=1):
    """Blocks that predictions hit more or less well, some frames empty, equal scores, unknown and empty categories."""
    rng = np.random.default_rng(seed)

    def some(near):
        places = [np.maximum(near + rng.integers(-1, 2, 2), 0) for _ in range(frames)]
        masks = [np.kron(block(*place), np.ones((scale, scale), dtype=bool)) for place in places]
        return [None if rng.random() < 0.15 else mask for mask in masks]

    tracks, predictions = [], []
    for v in rng.permutation(videos) + 3:
        for _ in range(rng.integers(0, 4)):
            place = rng.integers(0, 5, 2)
            category = int(rng.choice([1, 2, 7]))
            tracks.append((int(v), category, some(place)))
            for _ in range(rng.integers(0, 4)):
                label = category if rng.random() < 0.7 else int(rng.choice([1, 2, 9]))
                predictions.append((int(v), label, float(rng.integers(1, 6)) / 5, some(place)))
    gt, results = data_set(
        tracks,
        predictions,
        frames,
        (size[0] * scale, size[1] * scale),
        (1, 2, 7, 9),
        range(3, 3 + videos),
    )
    for annotation in gt["annotations"]:
        annotation["iscrowd"] = int(rng.random() < crowd)
    return gt, results


# ------------------------------------------------------------------------------------------------ official figures


@pytest.mark.parametrize("case", ["a_generic", "b_sparse"])
def test_equal_to_the_official_evaluator(case):
    folder = GOLDEN / case
    if not folder.is_dir():
        pytest.skip("the golden results of the official evaluator are not beside this checkout")
    official = json.loads((folder / "stats.json").read_text())
    evaluation = YTVISEval(folder / "gt.json", folder / "results.json").run()
    np.testing.assert_allclose(
        evaluation.precision, np.load(folder / "precision.npy"), atol=1e-12, rtol=0
    )
    np.testing.assert_allclose(
        evaluation.recall, np.load(folder / "recall.npy"), atol=1e-12, rtol=0
    )
    np.testing.assert_allclose(
        evaluation.eval["scores"], np.load(folder / "scores.npy"), atol=0, rtol=0
    )
    for name, ious in np.load(folder / "ious.npz").items():
        ours = evaluation.ious[tuple(map(int, name.split("_")))]
        assert ours.size == ious.size and np.array_equal(ours.reshape(ious.shape), ious), (
            name
        )  # to the last bit
    figures = evaluate_ytvis(
        *(json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "results"))
    )
    np.testing.assert_allclose(
        [figures[name] for name in FIGURES], official["stats"], atol=1e-12, rtol=0
    )
    per_category = [c["AP"] for c in figures["per_category"].values()]
    np.testing.assert_allclose(
        per_category, list(official["per_category_AP"].values()), atol=1e-12, rtol=0
    )


# -------------------------------------------------------------------------------------------------- our own oracle


def oracle(gt, results, areas=(0, 1e10), most=100):
    """The protocol once more, on decoded masks, in plain loops: {category: {threshold: (AP, recall)}}."""

    def decode(track, video):
        return [
            None if s is None else mask_utils.decode(s).astype(bool) for s in track["segmentations"]
        ]

    def overlap(p, g):
        both = sum(
            (a & b).sum() for a, b in zip(p, g, strict=True) if a is not None and b is not None
        )
        alone = sum(m.sum() for track in (p, g) for m in track if m is not None)
        return both / (alone - both) if alone else 0.0

    def mean(numbers):
        numbers = [n for n in numbers if n]
        return sum(numbers) / len(numbers) if numbers else 0

    answer = {}
    for c in sorted(k["id"] for k in gt["categories"]):
        answer[c] = {}
        for threshold in THRESHOLDS:
            events, positives = [], 0  # (score, hit) of all predictions that are not ignored
            for v in sorted(x["id"] for x in gt["videos"]):
                truths = [
                    a for a in gt["annotations"] if (a["video_id"], a["category_id"]) == (v, c)
                ]
                skip = [
                    bool(a["iscrowd"]) or not areas[0] <= mean(a["areas"]) <= areas[1]
                    for a in truths
                ]
                positives += skip.count(False)
                free = set(range(len(truths)))
                mine = [r for r in results if (r["video_id"], r["category_id"]) == (v, c)]
                for r in sorted(mine, key=lambda r: -r["score"])[:most]:
                    p = decode(r, v)
                    options = [(not skip[i], overlap(p, decode(truths[i], v)), i) for i in free]
                    options = [o for o in options if o[1] >= threshold]
                    size = mean([m.sum() for m in p if m is not None])
                    if options:
                        regular, _, i = max(options)
                        if not truths[i]["iscrowd"]:
                            free.remove(i)
                        if regular:
                            events.append((r["score"], True))
                    elif areas[0] <= size <= areas[1]:
                        events.append((r["score"], False))
            if not positives:
                continue
            events.sort(key=lambda e: -e[0])
            hits = np.cumsum([hit for _, hit in events])
            curve = [(h / positives, h / (n + 1)) for n, h in enumerate(hits)]
            points = [
                max((p for r, p in curve if r >= level), default=0.0)
                for level in np.linspace(0, 1, 101)
            ]
            answer[c][threshold] = (np.mean(points), curve[-1][0] if curve else 0.0)
    return answer


def mean_of(answer, which, only=None):
    values = [
        ap[which] for c in answer.values() for t, ap in c.items() if only is None or t == only
    ]
    return np.mean(values) if values else -1


@pytest.mark.filterwarnings("ignore:results")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_against_the_oracle(seed):
    gt, results = random_case(seed)
    figures, answer = evaluate_ytvis(gt, results), oracle(gt, results)
    assert figures["AP"] == pytest.approx(mean_of(answer, 0), abs=1e-9)
    assert figures["AP50"] == pytest.approx(mean_of(answer, 0, THRESHOLDS[0]), abs=1e-9)
    assert figures["AP75"] == pytest.approx(mean_of(answer, 0, THRESHOLDS[5]), abs=1e-9)
    assert figures["AR100"] == pytest.approx(mean_of(answer, 1), abs=1e-9)
    assert figures["AR1"] == pytest.approx(mean_of(oracle(gt, results, most=1), 1), abs=1e-9)
    for c in answer:
        assert figures["per_category"][f"kind {c}"]["AP"] == pytest.approx(
            mean_of({c: answer[c]}, 0), abs=1e-9
        )
    for video in gt["videos"]:
        alone = dict(
            gt,
            videos=[video],
            annotations=[a for a in gt["annotations"] if a["video_id"] == video["id"]],
        )
        only = oracle(alone, [r for r in results if r["video_id"] == video["id"]])
        assert figures["per_video"][video["id"]]["AP"] == pytest.approx(mean_of(only, 0), abs=1e-9)
        assert figures["per_video"][video["id"]]["AP50"] == pytest.approx(
            mean_of(only, 0, 0.5), abs=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_area_ranges_against_the_oracle(seed):
    """Blocks of 4 x 4 cells: at 32 pixels a cell exactly 128^2, which is small and medium, at 64 medium and large."""
    gt, results = random_case(seed, videos=2, frames=2, crowd=0, scale=32 if seed % 2 else 64)
    results = [r for r in results if r["category_id"] != 9]
    figures = evaluate_ytvis(gt, results)
    for letter, areas in (("s", (0, 128**2)), ("m", (128**2, 256**2)), ("l", (256**2, 1e10))):
        answer = oracle(gt, results, areas)
        assert figures[f"AP{letter}"] == pytest.approx(mean_of(answer, 0), abs=1e-9)
        assert figures[f"AR{letter}"] == pytest.approx(mean_of(answer, 1), abs=1e-9)


# ---------------------------------------------------------------------------------------------- a second oracle


def track_map(gt, results):
    """The 12 figures by TrackEval's TrackMAP, which owes nothing to pycocotools' COCOeval.

    It knows one limit of detections at a time and one category; crowds it lets match only once.
    """
    from trackeval.metrics import TrackMAP

    def in_frames(track):
        codes = enumerate(track["segmentations"])
        return {t: {**s, "counts": s["counts"].encode()} for t, s in codes if s}

    def mean(values):
        return float(np.mean(values)) if len(values) else 0.0

    def sequence(video, category):
        truths, tracks = (
            [e for e in side if (e["video_id"], e["category_id"]) == (video, category)]
            for side in (gt["annotations"], results)
        )
        tracks = sorted(tracks, key=lambda r: -r["score"])
        sizes = [[mask_utils.area(s) for s in in_frames(r).values()] for r in tracks]
        return {
            "gt_track_ids": [a["id"] for a in truths],
            "dt_track_ids": list(range(1, len(tracks) + 1)),
            "gt_tracks": [in_frames(a) for a in truths],
            "dt_tracks": [in_frames(r) for r in tracks],
            "gt_track_areas": [mean([x for x in a["areas"] if x]) for a in truths],
            "dt_track_areas": [mean([x for x in areas if x]) for areas in sizes],
            "gt_track_iscrowd": [a["iscrowd"] for a in truths],
            "dt_track_scores": np.array([r["score"] for r in tracks]),
            "iou_type": "mask",
        }

    figures = {}
    for most in (1, 10, 100):
        areas = [[0, 128**2], [128**2, 256**2], [256**2, 1e10]]
        metric = TrackMAP({"PRINT_CONFIG": False, "USE_TIME_RANGES": False, "MAX_DETECTIONS": most,
                           "AREA_RANGES": areas})  # fmt: skip
        found = []
        for category in sorted(c["id"] for c in gt["categories"]):
            videos = sorted(v["id"] for v in gt["videos"])
            parts = {v: metric.eval_sequence(sequence(v, category)) for v in videos}
            found.append(metric.combine_sequences(parts))

        def over_categories(name, thresholds=slice(None)):
            values = np.array([of_one[name] for of_one in found])[:, thresholds]  # noqa: B023
            return float(values[values > -1].mean()) if (values > -1).any() else -1.0

        figures[f"AR{most}"] = over_categories("AR_all")
    figures |= {"AP": over_categories("AP_all"), "AP50": over_categories("AP_all", [0])}
    figures["AP75"] = over_categories("AP_all", [5])
    for letter in "sml":
        figures[f"AP{letter}"] = over_categories(f"AP_area_{letter}")
        figures[f"AR{letter}"] = over_categories(f"AR_area_{letter}")
    return figures


@pytest.mark.filterwarnings("ignore:results")
@pytest.mark.parametrize("seed, scale", [(0, 1), (1, 32), (7, 32), (8, 64), (13, 32)])
def test_against_trackeval(seed, scale):
    """Of equal overlaps TrackMAP takes the last, and of equal scores the first, as COCOeval does."""
    pytest.importorskip("trackeval")
    gt, results = random_case(seed, videos=4, frames=2, crowd=0, scale=scale)
    figures = evaluate_ytvis(gt, results)
    assert {name: figures[name] for name in FIGURES} == pytest.approx(
        track_map(gt, results), abs=1e-9
    )
    assert 0 < figures["AP"] < 1


# ------------------------------------------------------------------------------------------------------ properties


def two_tracks(swap=False):
    a, b = [block(0, 0)] * 4, [block(4, 6)] * 4
    gt, _ = data_set([(1, 1, a), (1, 1, b)], [], frames=4)
    if swap:
        a, b = a[:2] + b[2:], b[:2] + a[2:]
    return gt, data_set([], [(1, 1, 0.9, a), (1, 1, 0.8, b)], frames=4)[1]


def test_perfect_tracks_are_worth_one_and_swapped_identities_nothing():
    assert evaluate_ytvis(*two_tracks())["AP"] == pytest.approx(1)
    swapped = evaluate_ytvis(*two_tracks(swap=True))
    assert (
        swapped["AP50"] == 0 and swapped["AR100"] == 0
    )  # half of each track, 2 of 6 frames in both: IoU 1/3


@pytest.mark.filterwarnings("ignore:results")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.randoms())
def test_order_does_not_matter_when_scores_differ(seed, shuffler):
    gt, results = random_case(seed)
    for i, r in enumerate(results):
        r["score"] += i * 1e-6
    shuffled = results[:]
    shuffler.shuffle(shuffled)
    assert evaluate_ytvis(gt, results) == evaluate_ytvis(gt, shuffled)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_truth_as_prediction_is_perfect(seed):
    gt, _ = random_case(seed, crowd=0)
    gt["annotations"] = [a for a in gt["annotations"] if any(a["areas"])]
    results = [
        {"score": 0.5} | {k: a[k] for k in ("video_id", "category_id", "segmentations")}
        for a in gt["annotations"]
    ]
    figures = evaluate_ytvis(gt, results)
    assert figures["AP"] == pytest.approx(1 if results else -1) and figures["AR100"] == (
        1 if results else -1
    )


def test_ties_go_to_the_earlier_video_and_entry():
    good, bad = [block(0, 0)] * 3, [block(4, 6)] * 3
    for first in (3, 8):  # the video in which the prediction is right
        gt, results = data_set(
            [(first, 1, good)], [(8, 1, 0.5, good), (3, 1, 0.5, good)], videos=(8, 3)
        )
        assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(1 if first == 3 else 0.5)
    gt, results = data_set([(1, 1, good)], [(1, 1, 0.5, bad), (1, 1, 0.5, good)])
    assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(0.5)
    assert evaluate_ytvis(gt, results[::-1])["AP"] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:results")
@pytest.mark.parametrize("seed", range(8))
def test_figures_of_a_video_are_those_of_an_evaluation_with_it_alone(seed):
    gt, results = random_case(seed, videos=4)
    for video in gt["videos"]:
        one = dict(
            gt,
            videos=[video],
            annotations=[a for a in gt["annotations"] if a["video_id"] == video["id"]],
        )
        alone = evaluate_ytvis(one, [r for r in results if r["video_id"] == video["id"]])
        ours = evaluate_ytvis(gt, results)["per_video"][video["id"]]
        assert ours == pytest.approx({"AP": alone["AP"], "AP50": alone["AP50"]}, abs=1e-12)


def test_an_overlap_of_exactly_the_threshold_is_a_match():
    gt, results = data_set(
        [(1, 1, [block(0, 0, 4, 4)] * 3)], [(1, 1, 0.5, [block(0, 0, 4, 2)] * 3)]
    )
    assert evaluate_ytvis(gt, results)["AP50"] == pytest.approx(1)


def test_of_equal_overlaps_the_last_truth_is_taken():
    """The protocol's way; here it costs the second prediction its match."""
    left, right, between = [block(0, 0)] * 3, [block(0, 2)] * 3, [block(0, 1)] * 3
    for truths, ap50 in (([left, right], 51 / 101), ([right, left], 1)):
        gt, results = data_set(
            [(1, 1, t) for t in truths], [(1, 1, 0.9, between), (1, 1, 0.8, right)]
        )
        assert evaluate_ytvis(gt, results)["AP50"] == pytest.approx(ap50)


def test_at_most_100_per_video_and_category():
    good, bad = [block(0, 0)] * 3, [block(4, 6)] * 3
    for before, ar in ((99, 1), (100, 0)):
        gt, results = data_set([(1, 1, good)], [(1, 1, 0.9, bad)] * before + [(1, 1, 0.1, good)])
        figures = evaluate_ytvis(gt, results)
        assert figures["AR100"] == ar and figures["per_video"][1]["AP"] == pytest.approx(ar / 100)
    gt, results = data_set([(1, 1, good)], [(1, 2, 0.9, bad)] * 150 + [(1, 1, 0.1, good)])
    assert evaluate_ytvis(gt, results)["AR1"] == 1  # another category does not use up the places


def test_a_crowd_takes_in_many_and_counts_for_nothing():
    good = [block(0, 0)] * 3
    other = [block(4, 6)] * 3
    gt, results = data_set(
        [(1, 1, good), (1, 1, other)], [(1, 1, 0.9, good)] * 3 + [(1, 1, 0.1, other)]
    )
    gt["annotations"][0]["iscrowd"] = 1
    figures = evaluate_ytvis(gt, results)
    assert figures["AP"] == pytest.approx(1) and figures["per_video"][1]["AP"] == pytest.approx(1)
    part = [
        rle(block(0, 0, 1, 4))
    ] * 3  # all of it inside the crowd, but its plain IoU is 1/4: a false positive
    results[0]["segmentations"] = part
    assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(0.5)


def test_nothing_predicted_nothing_labelled():
    gt, results = data_set([(1, 1, [block(0, 0)] * 3)], [])
    figures = evaluate_ytvis(gt, [])
    assert figures["AP"] == figures["AP50"] == figures["AR100"] == 0 and figures["APl"] == -1
    assert figures["per_category"]["kind 2"]["AP"] == -1 and figures["per_video"] == {
        1: {"AP": 0.0, "AP50": 0.0}
    }
    gt, results = data_set([], [(1, 1, 0.5, [block(0, 0)] * 3)], videos=(1, 2))
    assert all(evaluate_ytvis(gt, results)[name] == -1 for name in FIGURES)
    assert all(evaluate_ytvis(gt, [])[name] == -1 for name in FIGURES)
    empty = {"videos": [], "categories": [], "annotations": []}
    assert evaluate_ytvis(empty, [])["AP"] == -1


def test_tracks_without_any_mask_overlap_nothing():
    none, some = [None] * 3, [block(0, 0)] * 3
    gt, results = data_set([(1, 1, none), (1, 1, some)], [(1, 1, 0.9, none), (1, 1, 0.8, some)])
    evaluation = YTVISEval(gt, results).run()
    assert np.array_equal(evaluation.ious[1, 1], [[0, 0], [0, 1]])


def test_all_encodings_mean_the_same():
    mask = block(1, 2, 5, 3)
    parts = [[2, 1, 5, 1, 5, 3, 2, 3], [2, 3, 5, 3, 5, 6, 2, 6]]
    for code in (rle(mask), rle(mask, text=False), uncompressed(mask), parts):
        gt, results = data_set([(1, 1, [mask, None, mask])], [(1, 1, 0.5, [mask, None, mask])])
        gt["annotations"][0]["segmentations"][0] = code
        if not isinstance(code, list):
            results[0]["segmentations"][2] = code
        assert YTVISEval(gt, results).run().ious[1, 1] == 1


def test_unknown_categories_are_left_out_with_a_warning():
    good, bad = [block(0, 0)] * 3, [block(4, 6)] * 3
    gt, results = data_set([(1, 1, good)], [(1, 77, 0.9, bad), (1, 1, 0.5, good)])
    with pytest.warns(UserWarning, match="1 predictions .*77"):
        assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(1)


def test_silent_unchanged_and_fit_for_json(capsys, tmp_path):
    gt, results = random_case(5, crowd=0)
    results = [r for r in results if r["category_id"] != 9]
    before = copy.deepcopy((gt, results))
    figures = evaluate_ytvis(gt, results)
    assert capsys.readouterr() == ("", "") and (gt, results) == before
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert evaluate_ytvis(tmp_path / "gt.json", str(tmp_path / "results.json")) == figures
    json.dumps(figures)
    assert all(type(figures[name]) is float for name in FIGURES)


def test_numbers_of_numpy_are_numbers():
    good = [block(0, 0)] * 3
    gt, results = data_set([(1, 1, good)], [(1, 1, 0.5, good)])
    results[0] |= {"video_id": np.int64(1), "category_id": np.int32(1), "score": np.float32(0.5)}
    gt["annotations"][0]["areas"] = np.array([16, 16, 16])
    gt["videos"][0]["height"] = np.int64(8)
    assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(1)
    del gt["videos"][0]["length"]
    gt["videos"][0]["file_names"] = ["0.jpg", "1.jpg", "2.jpg"]
    assert evaluate_ytvis(gt, results)["AP"] == pytest.approx(1)


def test_two_categories_of_one_name():
    gt, results = data_set([(1, 1, [block(0, 0)] * 3)], [])
    for category in gt["categories"]:
        category["name"] = "twin"
    assert set(evaluate_ytvis(gt, results)["per_category"]) == {"twin (1)", "twin (2)"}


# ------------------------------------------------------------------------------------------------- malformed input


def case():
    good = [block(0, 0)] * 3
    return data_set(
        [(1, 1, good), (2, 1, good)], [(1, 1, 0.5, good), (2, 1, 0.5, good)], videos=(1, 2)
    )


def broken(side, index, **change):
    gt, results = case()
    entry = (gt | {"gt": gt["annotations"], "results": results})[side][index]
    for key, new in change.items():
        if new is KeyError:
            del entry[key]
        else:
            entry[key] = new
    return gt, results


WRONG_SIZE, WRONG_TOTAL = (
    rle(np.ones((4, 4))),
    {"size": [8, 10], "counts": rle(np.ones((4, 4)))["counts"]},
)


@pytest.mark.parametrize(
    "side, change, message",
    [
        (
            "results",
            {"segmentations": [None] * 2},
            r"results\[1\]: segmentations has 2 entries, video 2 has 3 frames",
        ),
        (
            "results",
            {"segmentations": KeyError},
            r"results\[1\]: lacks `segmentations`",
        ),
        (
            "results",
            {"segmentations": None},
            r"results\[1\].segmentations: expected `array`, got `null`",
        ),
        (
            "results",
            {"segmentations": "abc"},
            r"results\[1\].segmentations: expected `array`, got `str`",
        ),
        (
            "results",
            {"segmentations": [None, WRONG_SIZE, None]},
            r"results\[1\].segmentations\[1\]: a mask of 4 x 4 in a frame of 8 x 10",
        ),
        (
            "results",
            {"segmentations": [None, None, WRONG_TOTAL]},
            r"results\[1\].segmentations\[2\]: .*covers 16 ",
        ),
        (
            "results",
            {"segmentations": [{"size": [8, 10], "counts": [79]}] * 3},
            r"results\[1\].segmentations\[0\].*covers 79 pixels",
        ),
        (
            "results",
            {"segmentations": [{"size": [8, 10], "counts": [-1, 81]}] * 3},
            r"results\[1\].segmentations\[0\].*whole numbers >= 0",
        ),
        (
            "results",
            {"segmentations": [{"size": [8, 10]}] * 3},
            r"results\[1\].segmentations\[0\]: .*with 'size' and 'counts'",
        ),
        (
            "results",
            {"segmentations": [[[0, 0, 4, 0, 4, 4]]] * 3},
            r"results\[1\].segmentations\[0\]: a mask must be null or RLE.*got list",
        ),
        ("results", {"score": KeyError}, r"results\[1\]: lacks `score`"),
        ("results", {"score": float("nan")}, r"results\[1\]: 'score' must be a finite number"),
        ("results", {"score": "0.5"}, r"results\[1\].score: expected `float`, got `str`"),
        ("results", {"score": True}, r"results\[1\].score: expected `float`, got `bool`"),
        ("results", {"video_id": 9}, r"results\[1\]: unknown video_id 9"),
        ("results", {"video_id": "2"}, r"results\[1\].video_id: expected `int`, got `str`"),
        (
            "results",
            {"category_id": KeyError},
            r"results\[1\]: lacks `category_id`",
        ),
        ("results", {"category_id": 1.5}, r"results\[1\].category_id: expected `int`, got `float`"),
        (
            "gt",
            {"segmentations": None},
            r"annotations\[1\].segmentations: expected `array`, got `null`",
        ),
        (
            "gt",
            {"segmentations": [None]},
            r"annotations\[1\]: segmentations has 1 entries, video 2 has 3 frames",
        ),
        (
            "gt",
            {"segmentations": [[[0, 0, 4, 4]]] * 3},
            r"annotations\[1\].segmentations\[0\]: polygon 0",
        ),
        (
            "gt",
            {"segmentations": [WRONG_SIZE] * 3},
            r"annotations\[1\].segmentations\[0\]: a mask of 4 x 4",
        ),
        ("gt", {"id": 1}, r"annotations\[1\]: id 1 stands there twice"),
        ("gt", {"id": KeyError}, r"annotations\[1\]: lacks `id`"),
        ("gt", {"areas": KeyError}, r"annotations\[1\]: lacks `areas`"),
        ("gt", {"areas": [1, 2]}, r"annotations\[1\]: areas has 2 entries, video 2 has 3 frames"),
        (
            "gt",
            {"areas": [1, "2", None]},
            r"annotations\[1\].areas\[1\]: expected `float \| null`, got `str`",
        ),
        ("gt", {"areas": [1, -2, None]}, r"annotations\[1\].areas\[1\]: expected `float` >= 0"),
        (
            "gt",
            {"areas": [1, 2, float("nan")]},
            r"annotations\[1\].areas\[2\]: expected `float` >= 0",
        ),
        ("gt", {"iscrowd": "no"}, r"annotations\[1\].iscrowd: expected `bool \| int \| null`"),
        ("gt", {"video_id": 9}, r"annotations\[1\]: unknown video_id 9"),
        ("gt", {"category_id": 9}, r"annotations\[1\]: unknown category_id 9"),
        ("videos", {"id": 1}, r"videos\[1\]: id 1 stands there twice"),
        ("videos", {"height": KeyError}, r"videos\[1\]: lacks `height`"),
        ("videos", {"height": 0}, r"videos\[1\].height: expected `int` >= 1"),
        ("videos", {"length": 0}, r"videos\[1\].length: expected `int` >= 1"),
        (
            "videos",
            {"length": None},
            r"videos\[1\]: 'length' or 'file_names' must say how many frames",
        ),
        ("videos", {"length": None, "file_names": []}, r"videos\[1\]: 'length' or 'file_names'"),
        (
            "videos",
            {"file_names": ["a.jpg"]},
            r"videos\[1\]: length is 3, but there are 1 file_names",
        ),
        ("categories", {"id": 1}, r"categories\[1\]: id 1 stands there twice"),
    ],
)
def test_malformed_entries_are_named(side, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ytvis(*broken(side, 1, **change))


def test_withheld_labels():
    gt, results = case()
    for labels in ({}, {"annotations": None}):
        withheld = {k: v for k, v in gt.items() if k != "annotations"} | labels
        with pytest.raises(ValueError, match="withheld.*split"):
            evaluate_ytvis(withheld, results)


def test_what_is_no_list_or_no_json(tmp_path):
    gt, results = case()
    with pytest.raises(ValueError, match="results: expected `array`, got `object`"):
        evaluate_ytvis(gt, {"results": results})
    with pytest.raises(ValueError, match=r"results\[0\]: expected `object`, got `array`"):
        evaluate_ytvis(gt, [[1]])
    with pytest.raises(ValueError, match="ground truth: expected `object`, got `array`"):
        evaluate_ytvis([gt], results)
    with pytest.raises(ValueError, match="ground truth: lacks `videos`"):
        evaluate_ytvis({k: v for k, v in gt.items() if k != "videos"}, results)
    with pytest.raises(ValueError, match="ground truth.videos: expected `array`, got `null`"):
        evaluate_ytvis(gt | {"videos": None}, results)
    (tmp_path / "cut.json").write_text('[{"video_id": 1,')
    with pytest.raises(ValueError, match="cut.json: broken JSON"):
        evaluate_ytvis(gt, tmp_path / "cut.json")
    with pytest.raises(FileNotFoundError):
        evaluate_ytvis(tmp_path / "nowhere.json", results)


def test_annotation_id_0_is_pointed_out():
    gt, results = broken("gt", 0, id=0)
    with pytest.warns(UserWarning, match="id 0"):
        evaluate_ytvis(gt, results)
