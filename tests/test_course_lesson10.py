"""Lesson 10's checks: likely mistakes get their own hint."""

import contextlib
import hashlib
import io
import json
import math
import runpy
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as MplPath

from minst.course import lesson10
from minst.labels.convert.common import polygon_mask
from minst.labels.convert import convert
from minst.labels import check_dataset, split_annotations
from minst.evaluation.submission import write_submission
from minst.recipes import recipe

ROOT = Path(__file__).resolve().parent.parent
EXERCISES = ["polygon_area", "class_ids", "validation_frames", "top_entries", "linear_scaling"]


@pytest.fixture(scope="module")
def solutions():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        found = runpy.run_path(str(ROOT / "notebooks" / "solutions" / "10_capstone.py"))
    assert printed.getvalue().count("correct") == len(EXERCISES)
    return found


# -------------------------------------------------------------------- wrong answers, as students write them


def area_signed(points):
    total = 0
    for i in range(len(points)):
        a, b = points[i], points[(i + 1) % len(points)]
        total += a[0] * b[1] - b[0] * a[1]
    return total / 2


def area_whole(points):
    return abs(2 * area_signed(points))


def area_open(points):
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:]))) / 2


def area_box(points):
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return (right - left) * (bottom - top)


def area_outline(points):
    return sum(math.dist(points[i - 1], points[i]) for i in range(len(points)))


def area_of_pixels(points):
    """By matplotlib, which is nobody's reference here."""
    y, x = np.mgrid[:130, :160] + 0.5
    return MplPath(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).sum()


def area_of_a_mask(points):
    return int(polygon_mask(points, (400, 400), "p").sum())


def ids_of_names(categories):
    return {c["name"]: k for k, c in enumerate(categories)}, [c["id"] for c in categories]


def ids_and_names(categories):
    return {c["id"]: k for k, c in enumerate(categories)}, [c["name"] for c in categories]


def ids_back_sorted(categories):
    return {c["id"]: k for k, c in enumerate(categories)}, sorted(c["id"] for c in categories)


def ids_minus_one(categories):
    return {c["id"]: c["id"] - 1 for c in categories}, [c["id"] for c in categories]


def ids_sorted(categories):
    ids = sorted(c["id"] for c in categories)
    return {i: ids.index(i) for i in ids}, ids


def ids_by_name(categories):
    ids = [c["id"] for c in sorted(categories, key=lambda c: c["name"])]
    return {i: k for k, i in enumerate(ids)}, ids


def ids_inverse(categories):
    ids = [c["id"] for c in categories]
    return {k: i for k, i in enumerate(ids)}, ids


def ids_from_one(categories):
    ids = [c["id"] for c in categories]
    return {i: k for k, i in enumerate(ids, start=1)}, ids


def number(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def side_by_frame(frames, seed, val):
    return [f for f in frames if number(f"{seed}:{f}") < val]


def side_without_seed(frames, seed, val):
    return [f for f in frames if number(f.split("/")[0]) < val]


def side_of_training(frames, seed, val):
    return [f for f in frames if number(f"{seed}:{f.split('/')[0]}") >= val]


def side_by_pythons_hash(frames, seed, val):
    return [f for f in frames if hash(f"{seed}:{f.split('/')[0]}") % 2**64 / 2**64 < val]


def side_little(frames, seed, val):
    def part(name):
        return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") / 2**64

    return [f for f in frames if part(f.split("/")[0]) < val]


def side_videos(frames, seed, val):
    names = dict.fromkeys(f.split("/")[0] for f in frames)
    return [v for v in names if number(f"{seed}:{v}") < val]


def side_first(frames, seed, val):
    return frames[: int(round(len(frames) * val))]


def top_of_all(results, limit):
    return sorted(results, key=lambda r: r["score"], reverse=True)[:limit]


def top_per_category(results, limit):
    kept = []
    for v in sorted({r["video_id"] for r in results}):
        here = [r for r in results if r["video_id"] == v]
        for c in sorted({r["category_id"] for r in here}):
            kept += sorted((r for r in here if r["category_id"] == c), key=lambda r: -r["score"])[
                :limit
            ]
    return sorted(kept, key=lambda r: (r["video_id"], -r["score"]))


def top_worst(results, limit):
    videos = sorted({r["video_id"] for r in results})
    return [
        r
        for v in videos
        for r in sorted((x for x in results if x["video_id"] == v), key=lambda x: x["score"])[
            :limit
        ]
    ]


def top_unsorted(results, limit):
    return [
        r
        for v in sorted({r["video_id"] for r in results})
        for r in [x for x in results if x["video_id"] == v][:limit]
    ]


def top_shuffled(results, limit):
    kept = []
    for r in sorted(results, key=lambda r: -r["score"]):
        if sum(k["video_id"] == r["video_id"] for k in kept) < limit:
            kept.append(r)
    return kept


def scaled_in_parts(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus * accumulate / recipe_batch
    return lr * k, iterations / k


def scaled_cut(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus * accumulate / recipe_batch
    return lr * k, int(iterations / k)


def scaled_root(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus * accumulate / recipe_batch
    return lr * math.sqrt(k), round(iterations / k)


def scaled_inverse(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus * accumulate / recipe_batch
    return lr / k, round(iterations / k)


def scaled_one_gpu(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * accumulate / recipe_batch
    return lr * k, round(iterations / k)


def scaled_at_once(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus / recipe_batch
    return lr * k, round(iterations / k)


def scaled_same_length(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    return lr * per_gpu * gpus * accumulate / recipe_batch, iterations


def scaled_longer(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
    k = per_gpu * gpus * accumulate / recipe_batch
    return lr * k, round(iterations * k)


WRONG = [
    ("polygon_area", area_signed, "absolute"), ("polygon_area", area_whole, "half"), ("polygon_area", area_open, "missing"),
    ("polygon_area", area_of_pixels, "count of pixels"), ("polygon_area", area_of_a_mask, "count of pixels"),
    ("polygon_area", area_box, "box"), ("polygon_area", area_outline, "length"),
    ("class_ids", ids_minus_one, "gaps"), ("class_ids", ids_sorted, "that of the ids"), ("class_ids", ids_by_name, "by name"),
    ("class_ids", ids_of_names, "not the names"), ("class_ids", ids_and_names, "way back lists ids, class by class"),
    ("class_ids", ids_back_sorted, "here they are sorted"),
    ("class_ids", ids_inverse, "turned round"), ("class_ids", ids_from_one, "from 0"),
    ("validation_frames", side_by_frame, "both sides"), ("validation_frames", side_without_seed, "seed is not used"),
    ("validation_frames", side_by_pythons_hash, "from process to process"), ("validation_frames", side_little, "big-endian"),
    ("validation_frames", side_videos, "These are videos"),
    ("validation_frames", side_of_training, "training side"), ("validation_frames", side_first, "first frames"),
    ("top_entries", top_of_all, "together"), ("top_entries", top_worst, "worst"),
    ("top_entries", top_unsorted, "before the cut"), ("top_entries", top_shuffled, "another order"),
    ("linear_scaling", scaled_in_parts, "is whole"), ("linear_scaling", scaled_cut, "is whole"),
    ("linear_scaling", scaled_root, "square root"), ("linear_scaling", scaled_inverse, "larger steps"),
    ("linear_scaling", scaled_one_gpu, "their number"), ("linear_scaling", scaled_at_once, "Accumulated"),
    ("linear_scaling", scaled_same_length, "more images"), ("linear_scaling", scaled_longer, "fewer iterations"),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, answer, hint", WRONG, ids=[answer.__name__ for _, answer, _ in WRONG]
)
def test_a_likely_mistake_gets_its_hint(name, answer, hint):
    for _ in range(20):
        verdict = getattr(lesson10, name)(answer)
        assert verdict.state == "wrong" and hint in verdict.reason, verdict


def top_per_category_unsorted(results, limit):
    pairs = sorted({(r["video_id"], r["category_id"]) for r in results})
    groups = ([r for r in results if (r["video_id"], r["category_id"]) == pair] for pair in pairs)
    return [r for group in groups for r in sorted(group, key=lambda r: -r["score"])[:limit]]


def top_of_categories(results, limit):
    kept = []
    for c in sorted({r["category_id"] for r in results}):
        kept += sorted((r for r in results if r["category_id"] == c), key=lambda r: -r["score"])[:limit]
    return kept


@pytest.mark.parametrize("answer", [top_per_category, top_per_category_unsorted, top_of_categories])
def test_the_limit_of_each_category_gets_its_hint(answer):
    for _ in range(20):
        verdict = lesson10.top_entries(answer)
        assert verdict.state == "wrong" and "whatever the categories" in verdict.reason, verdict


def area_by_triangles(points):
    """With float32, and as an array."""
    return np.array(abs(area_signed(points)), dtype=np.float32)


RIGHT = [
    ("polygon_area", area_by_triangles),
    ("polygon_area", lambda points: abs(area_signed(points.tolist()))),
    ("class_ids", lambda categories: [{i: k for k, i in enumerate(ids_minus_one(categories)[1])}, np.array(ids_minus_one(categories)[1])]),
    ("validation_frames", lambda frames, seed, val: np.array([f for f in frames if f not in side_of_training(frames, seed, val)])),
    ("validation_frames", lambda frames, seed, val: tuple(f for f in frames if f not in side_of_training(frames, seed, val))),
    ("linear_scaling", lambda *given: np.array([scaled_same_length(*given)[0], np.rint(scaled_in_parts(*given)[1])])),
]  # fmt: skip


@pytest.mark.parametrize("name, answer", RIGHT)
def test_a_right_answer_in_another_form_is_right(name, answer):
    for _ in range(5):
        verdict = getattr(lesson10, name)(answer)
        assert verdict.state == "correct", verdict
        assert verdict.or_ours is answer


@pytest.mark.parametrize("name", EXERCISES)
def test_the_lesson_goes_on_with_ours_until_an_answer_is_correct(name):
    def stub(*given):
        raise NotImplementedError

    ours = getattr(lesson10, name)(stub).or_ours
    assert getattr(lesson10, name)(ours).state == "correct"


# -------------------------------------------------------------------- the references are what the package does


def test_the_solution_of_top_entries_is_what_a_zip_holds(solutions, tmp_path):
    rng = np.random.default_rng(0)
    video = {"length": 1, "height": 2, "width": 2, "file_names": ["a/0.jpg"]}
    truth = {
        "videos": [{"id": i, **video} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2)],
    }
    mask = {"size": [2, 2], "counts": "04"}
    results = [
        {"video_id": int(rng.integers(1, 4)), "category_id": int(rng.integers(1, 3)), "score": int(s) / 100,
         "segmentations": [mask]}
        for s in rng.permutation(60)
    ]  # fmt: skip
    write_submission(results, truth, tmp_path / "results.zip", top=10)
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert json.loads(archive.read("results.json")) == solutions["top_entries"](results, 10)


@pytest.mark.parametrize("per_gpu, gpus, accumulate", [(8, 1, 1), (16, 4, 1), (2, 1, 4), (8, 2, 2)])
def test_the_solution_of_linear_scaling_is_what_a_recipe_does(solutions, per_gpu, gpus, accumulate):
    base, scaled = (
        recipe("coco", data="-", pairs=frames // 2) for frames in (16, per_gpu * gpus * accumulate)
    )
    got = solutions["linear_scaling"](base.lr, base.iterations, 16, per_gpu, gpus, accumulate)
    assert got == (pytest.approx(scaled.lr), scaled.iterations)


def test_the_solution_of_validation_frames_is_the_side_that_a_split_takes(solutions, tmp_path):
    videos = [{"id": i, "file_names": [f"{i}/0.jpg", f"{i}/1.jpg"]} for i in range(1, 41)]
    owned = [{"id": i, "video_id": i, "category_id": 1} for i in range(1, 41)]
    content = {"videos": videos, "categories": [{"id": 1, "name": "crab"}], "annotations": owned}
    (tmp_path / "all.json").write_text(json.dumps(content))
    split_annotations(tmp_path / "all.json", tmp_path / "split", val=0.3, seed=5)
    held = json.loads((tmp_path / "split" / "valid.json").read_text())["videos"]
    frames = [name for video in videos for name in video["file_names"]]
    assert solutions["validation_frames"](frames, 5, 0.3) == [
        n for video in held for n in video["file_names"]
    ]


@pytest.mark.parametrize("which", range(4))
def test_each_planted_defect_is_the_one_error_that_the_check_finds(which, tmp_path):
    convert(ROOT / "data_samples" / "capstone" / "labelled", tmp_path / "mine")
    assert not check_dataset(tmp_path / "mine").errors
    shutil.copytree(tmp_path / "mine", tmp_path / "hers")
    lesson10.plant_defect(tmp_path / "hers", which)
    wanted = ("image of another size", "wrong length", "duplicate id", "unknown category")[which]
    assert [problem.kind for problem in check_dataset(tmp_path / "hers").errors] == [wanted]
