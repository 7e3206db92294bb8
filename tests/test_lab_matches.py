"""AP of a part of the clips, as the lab takes it, and of samples, as its simulation does: against the whole evaluation
on data sets in which clips are really missing, or really repeat."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from minst.evaluation.coco import Evaluation, evaluate_coco, mean_of_known
from minst.evaluation.ytvis import YTVISEval, evaluate_ytvis
from minst.lab import measure
from minst.lab.statistics import GROUPS

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from lab_matches import KEPT, average_precision, keep  # noqa: E402

SIZE, FRAMES, KINDS = 12, 3, 2


def code(mask):
    found = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def box(rng, jitter=0):
    mask = np.zeros((FRAMES, SIZE, SIZE), bool)
    y, x, h, w = *rng.integers(0, 6, 2), *rng.integers(3, 6, 2)
    mask[:, y : y + h, x : x + w] = True
    return mask


def shifted(mask, rng):
    return np.roll(mask, rng.integers(-1, 2, 2), axis=(1, 2))


def made(seed, videos=4, wrong=3):
    """A small ground truth and results of it, with shifted, missing and invented masks and distinct scores."""
    rng = np.random.default_rng(seed)
    truth = {"videos": [], "categories": [{"id": k + 1, "name": f"k{k}"} for k in range(KINDS)], "annotations": []}
    results = []
    for v in range(1, videos + 1):
        truth["videos"].append({"id": v, "height": SIZE, "width": SIZE, "length": FRAMES})
        masks = [(box(rng), int(rng.integers(KINDS)) + 1) for _ in range(rng.integers(0, 4))]
        for mask, kind in masks:
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "video_id": v, "category_id": kind,
                "segmentations": [code(m) for m in mask], "areas": [int(m.sum()) for m in mask], "iscrowd": 0,
            })  # fmt: skip
        guesses = [(shifted(m, rng), k) for m, k in masks if rng.random() < 0.8]
        guesses += [(box(rng), int(rng.integers(KINDS)) + 1) for _ in range(wrong)]
        for mask, kind in guesses:
            segmentations = [code(m) for m in mask]
            results.append({"video_id": v, "category_id": kind, "score": rng.random(), "segmentations": segmentations})
    return truth, results


def kept(truth, results):
    return keep(YTVISEval(truth, results).run(), list(range(len(truth["videos"]))))


def repeated(truth, results, times):
    """The same data set in which video i stands times[i] times, under new ids."""
    new, found, number = copy.deepcopy(truth) | {"videos": [], "annotations": []}, [], 0
    for video, count in zip(truth["videos"], times):
        for _ in range(count):
            number += 1
            new["videos"].append(video | {"id": number})
            mine = [a for a in truth["annotations"] if a["video_id"] == video["id"]]
            new["annotations"] += [a | {"video_id": number, "id": 1000 * number + a["id"]} for a in mine]
            found += [r | {"video_id": number} for r in results if r["video_id"] == video["id"]]
    return new, found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_part_of_the_clips_is_judged_as_if_it_were_all(seed, kept_clips):
    truth, results = made(seed)
    videos = [number for number, is_kept in enumerate(kept_clips, 1) if is_kept]
    wanted = evaluate_ytvis(*repeated(truth, results, kept_clips)) if videos else {"AP": -1.0}
    found = YTVISEval(truth, results).run().precision_of(videos)
    assert mean_of_known(found) == pytest.approx(wanted["AP"], abs=1e-9)


def as_images(truth, results):
    """The first frame of each clip, in COCO form."""
    entries = [
        {**entry, "image_id": entry["video_id"], "segmentation": entry["segmentations"][0], "area": 20.0}
        for entry in [*truth["annotations"], *results]
    ]
    labels = len(truth["annotations"])
    return {"images": truth["videos"], "categories": truth["categories"], "annotations": entries[:labels]}, entries[labels:]


@pytest.mark.parametrize("form, evaluate", [(YTVISEval, evaluate_ytvis), (Evaluation, evaluate_coco)])
def test_the_lab_leaves_out_every_twentieth_clip_from_each_on(form, evaluate):
    clips = GROUPS + 3
    truth, results = made(5, videos=clips)
    prepare = as_images if form is Evaluation else lambda *both: both
    found = measure.average_precision(form(*prepare(truth, results)))
    assert found.shape == (1 + GROUPS,) and found[0] == pytest.approx(evaluate(*prepare(truth, results))["AP"], abs=1e-9)
    for group in (0, 2, GROUPS - 1):
        part = repeated(truth, results, [int(i % GROUPS != group) for i in range(clips)])
        assert found[1 + group] == pytest.approx(evaluate(*prepare(*part))["AP"], abs=1e-9)
    assert len(set(found.tolist())) > GROUPS / 2


def test_nothing_to_find_counts_as_nothing_found():
    truth, _ = made(0)
    assert (measure.average_precision(YTVISEval(truth | {"annotations": []}, [])) == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_all_clips_once_is_the_evaluation_itself(seed):
    truth, results = made(seed)
    figures = evaluate_ytvis(truth, results)
    matches = kept(truth, results)
    if figures["AP"] < 0:
        assert np.isnan(average_precision(matches)).all()
        return
    assert average_precision(matches)[0] == pytest.approx(figures["AP"], abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_weights_are_repeated_clips(seed, times):
    truth, results = made(seed)
    found = average_precision(kept(truth, results), np.array([times]))[0]
    wanted = evaluate_ytvis(*repeated(truth, results, times))["AP"] if any(times) else -1.0
    assert np.isnan(found) if wanted < 0 else found == pytest.approx(wanted, abs=1e-9)


def test_many_samples_at_once_are_each_alone():
    truth, results = made(3, videos=6)
    matches, weights = kept(truth, results), np.random.default_rng(0).integers(0, 3, (20, 6))
    alone = [average_precision(matches, row[None])[0] for row in weights]
    np.testing.assert_allclose(average_precision(matches, weights), alone)


def test_only_the_best_predictions_of_a_video_count():
    truth, results = made(1, wrong=30)
    best = []
    for video in truth["videos"]:
        mine = sorted((r for r in results if r["video_id"] == video["id"]), key=lambda r: -r["score"])
        assert len(mine) > KEPT
        best += mine[:KEPT]
    matches = kept(truth, results)
    assert len(matches.rows) == KEPT * len(truth["videos"])
    assert average_precision(matches)[0] == pytest.approx(evaluate_ytvis(truth, best)["AP"], abs=1e-9)


def test_frames_of_a_clip_may_be_videos_of_their_own():
    truth, results = made(2, videos=4)
    matches = keep(YTVISEval(truth, results).run(), [0, 0, 1, 1])  # two clips of two frames
    found = average_precision(matches, np.array([[2, 0]]))[0]
    assert found == pytest.approx(evaluate_ytvis(*repeated(truth, results, [2, 2, 0, 0]))["AP"], abs=1e-9)


def test_nothing_predicted_is_nothing_found_and_nothing_to_find_is_unknown():
    truth, _ = made(0)
    assert average_precision(kept(truth, []))[0] == 0
    assert np.isnan(average_precision(kept(truth | {"annotations": []}, [])))


def test_weights_of_another_number_of_clips_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        average_precision(kept(*made(0)), np.ones((2, 5)))
