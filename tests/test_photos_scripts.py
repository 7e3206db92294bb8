"""The scripts around photos-tiny: how its photographs are prepared, and how it is measured.

They are no part of the package. Each is held against an oracle that is slow, short and written
another way.
"""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minst.config import MobileInstConfig
from minst.data.coco import open_folder
from minst.data.video import read_video, write_gif
from minst.data.ytvis import YouTubeVIS
from minst.model import MobileInst
from minst.results import FrameResult
from minst.rle import decode, encode

ROOT = Path(__file__).resolve().parent.parent


def script(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------ preparation


@pytest.fixture(scope="module")
def prepare():
    return script("data_samples/photos_prepare.py")


def photograph(seed: int) -> Image.Image:
    """Soft blobs: as little alike as two photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros((64, 96), bool)
    mask[20:40, left:right] = True
    return mask


def save_source(folder: Path, source: str, images: dict[str, tuple]) -> None:
    """images: {file name: (picture, [(category id, mask), ...])}"""
    (folder / source / "images").mkdir(parents=True)
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": 8, "name": "cat"}, {"id": 12, "name": "dog"}]
    content["categories"] += [{"id": 15, "name": "person"}]
    for number, (name, (picture, things)) in enumerate(images.items(), 5):
        picture.save(folder / source / "images" / name, quality=90)
        entry = {"id": number, "file_name": name, "height": 64, "width": 96}
        content["images"].append(entry)
        for category, mask in things:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0}
            entry |= {"category_id": category, "segmentation": encode(mask)}
            content["annotations"].append(entry)
    if source == "pets":
        content["images"].append(dict(content["images"][0], id=99))  # it stands there twice
    (folder / source / "annotations.json").write_text(json.dumps(content))


def names_in(split: str, source: str, count: int) -> list[str]:
    """Names that the rule, written another way, puts into a split."""
    found, number = [], 0
    while len(found) < count:
        name, number = f"{source}-{number:06}.jpg", number + 1
        held_out = int(hashlib.sha256(f"{source}/{name}".encode()).hexdigest()[:2], 16) < 32
        if held_out == (split == "valid"):
            found.append(name)
    return found


@pytest.fixture(scope="module")
def prepared(prepare, tmp_path_factory):
    photos = tmp_path_factory.mktemp("photos")
    learn, held = names_in("train", "cats", 3), names_in("valid", "cats", 1)
    first = photograph(1)
    cats = {held[0]: (first, [(8, box(0, 30)), (8, box(30, 60))])}
    cats[learn[0]] = (ImageOps.mirror(first), [(8, box(0, 30))])
    cats |= {name: (photograph(10 + i), [(8, box(0, 30))]) for i, name in enumerate(learn[1:])}
    save_source(photos, "cats", cats)
    pets = names_in("train", "pets", 2)
    save_source(
        photos, "pets", {pets[0]: (photograph(20), [(12, box(9, 50))]), pets[1]: (first, [])}
    )
    voc = {
        "voc-0e0ee8aa.jpg": (photograph(30), [(8, box(0, 30)), (15, box(60, 90))]),
        "voc-08517eaa.jpg": (photograph(31), [(8, box(0, 30)), (8, box(50, 70))]),
        "voc-ffffff00.jpg": (photograph(32), [(15, box(0, 9)), (12, box(0, 30))]),
        "voc-ffffff01.jpg": (photograph(33), [(15, box(0, 30))]),
    }
    save_source(photos, "voc", voc)
    save_source(photos, "coco", {"coco-0.jpg": (photograph(40), [(15, box(0, 30))])})
    out = tmp_path_factory.mktemp("out") / "data"
    counts = prepare.prepare(photos, out, ["cat", "dog"])
    return {"out": out, "counts": counts, "learn": learn, "held": held, "pets": pets}


def images_of(out: Path) -> dict[str, tuple]:
    """{file name: (split, [(category, crowd, pixels)], the entry)}, read as `minst train` reads."""
    found = {}
    for split in ("train", "valid"):
        dataset = open_folder(out, split)
        for i in range(len(dataset)):
            clip = dataset[i]
            assert clip.image(0).shape == (64, 96, 3)
            names = [dataset.categories[label] for label in clip.labels]
            things = zip(names, clip.crowd, clip.masks(0).sum((1, 2)).tolist())
            found[clip.video["file_name"]] = (split, list(things), clip.video)
    return found


def test_the_split_goes_by_the_name_alone(prepare, prepared):
    found = images_of(prepared["out"])
    assert found[prepared["held"][0]][0] == "valid"
    assert found[prepared["learn"][1]][0] == found[prepared["learn"][2]][0] == "train"
    shares = [prepare.split_of("cats", f"{i}.jpg") == "valid" for i in range(4000)]
    assert 0.10 < np.mean(shares) < 0.15  # an eighth


def test_a_mirrored_copy_of_a_held_out_image_is_not_learned_from(prepared):
    found = images_of(prepared["out"])
    assert prepared["learn"][0] not in found and prepared["counts"]["across the split"] == 1
    rows = (prepared["out"] / "images.tsv").read_text().splitlines()
    row = next(row.split("\t") for row in rows if prepared["learn"][0] in row)
    path = prepared["out"] / "valid" / "images" / prepared["held"][0]
    assert row[3:] == ["left out", "cat"] and len(row[2]) == 64
    held = next(row.split("\t") for row in rows if prepared["held"][0] in row)
    assert held[2] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_of_unlike_images_are_far_apart_and_of_edited_ones_near(prepare):
    pictures = [photograph(seed) for seed in range(12)]
    edited = [p.resize((70, 50)).point(lambda v: int(0.8 * v + 20)) for p in pictures]
    hashes, others = (
        np.array([prepare.difference_hash(p) for p in which]) for which in (pictures, edited)
    )
    apart = prepare.distances(hashes, others)
    assert apart.shape == (12, 12) and apart.diagonal().max() <= prepare.ALIKE
    assert apart[~np.eye(12, dtype=bool)].min() > prepare.ALIKE
    # one pair by hand, bit by bit
    turned = ImageOps.mirror(edited[1])
    straight = (prepare.difference_hash(pictures[0]) != prepare.difference_hash(edited[1])).sum()
    mirror = (prepare.difference_hash(pictures[0]) != prepare.difference_hash(turned)).sum()
    assert abs(apart[0, 1] - min(straight, mirror)) <= 4  # neighbours that are equal


def test_masks_of_a_class_are_crowds_where_they_hold_several(prepared):
    found = images_of(prepared["out"])
    assert found["voc-0e0ee8aa.jpg"][1] == [("cat", True, 600)]  # listed as several
    assert found["voc-08517eaa.jpg"][1] == [("cat", False, 1000)]  # two parts of one
    assert found["voc-ffffff00.jpg"][1] == [("dog", False, 600)]
    assert found["voc-ffffff01.jpg"][1] == found["coco-0.jpg"][1] == []  # negatives
    assert found[prepared["held"][0]][1] == [("cat", False, 600)] * 2


def test_persons_of_a_class_mask_are_those_that_were_looked_at(prepare):
    voc = {"file_name": "voc-ffffff01.jpg", "height": 64, "width": 96}
    parts = [(0, 9), (20, 30), (40, 60)]
    entries = [
        {"category": "person", "segmentation": encode(box(*part)), "iscrowd": 0} for part in parts
    ]
    found = prepare.instances(voc, "voc", entries, "0+2")
    masks = {e["iscrowd"]: decode(e["segmentation"], 64, 96) for e in found}
    assert len(found) == 2
    assert (masks[0] == box(0, 9) | box(40, 60)).all() and (masks[1] == box(20, 30)).all()
    assert [e["iscrowd"] for e in prepare.instances(voc, "voc", entries)] == [1, 1, 1]
    assert [e["iscrowd"] for e in prepare.instances(voc, "coco", entries)] == [0, 0, 0]
    for wrong in ("3", "0+1 1"):
        with pytest.raises(ValueError, match="voc-ffffff01.jpg"):
            prepare.instances(voc, "voc", entries, wrong)


def test_a_person_that_was_seen_beside_a_cat_is_a_crowd_of_all_the_rest(prepare):
    image = {"file_name": "a.jpg", "height": 64, "width": 96}
    cat = {"category": "cat", "segmentation": encode(box(0, 30)), "iscrowd": 0}
    animal, people = prepare.instances(image, "cats", [cat], "seen")
    assert (animal["category"], animal["iscrowd"]) == ("cat", 0)
    assert (people["category"], people["iscrowd"]) == ("person", 1)
    assert (decode(people["segmentation"], 64, 96) == ~box(0, 30)).all()
    assert len(prepare.instances(image, "cats", [cat])) == 1


def test_every_photograph_in_the_list_of_people_stands_in_the_list_of_the_data(prepare):
    """Both lists ship, so that nobody needs the photographs for this."""
    rows = (prepare.HERE / "weights/photos-tiny/images.tsv").read_text().splitlines()
    listed = {tuple(row.split("\t")[:2]) for row in rows if not row.startswith("#")}
    seen = prepare.seen_people()
    assert set(seen) <= listed and len(seen) > 300
    for (source, _), what in seen.items():
        numbers = what.replace("+", " ").split()
        assert what == "seen" if source != "voc" else len(set(numbers)) == len(numbers)


def test_an_animal_without_its_mask_is_no_negative_and_nothing_is_twice(prepared):
    found = images_of(prepared["out"])
    assert prepared["pets"][1] not in found
    assert found[prepared["pets"][0]][1] == [("dog", False, 820)]
    text = (prepared["out"] / "images.tsv").read_text()
    assert text.count(prepared["pets"][0]) == 1


def test_what_is_not_labelled_is_said(prepare, prepared, tmp_path):
    photos = tmp_path / "photos"
    name = names_in("train", "cats", 1)[0]
    save_source(photos, "cats", {name: (photograph(1), [(8, box(0, 30))])})
    (image,) = prepare.read_source(photos, "cats", ["cat", "car", "person"])
    assert image["not_labelled"] == ["car"]
    (image,) = prepare.read_source(photos, "cats", ["cat"])
    assert "not_labelled" not in image


def test_parts_of_one_animal_become_its_whole(prepare):
    entries = [
        {"category": "cat", "segmentation": encode(box(a, b)), "iscrowd": 0}
        for a, b in ((0, 30), (50, 70))
    ]
    image = {"file_name": "voc-08517eaa.jpg"}
    (whole,) = prepare.instances(image, "voc", entries)
    assert (decode(whole["segmentation"], 64, 96) == box(0, 30) | box(50, 70)).all()
    entries[1]["category"] = "dog"
    with pytest.raises(ValueError, match="two categories"):
        prepare.instances(image, "voc", entries)


def test_an_earlier_folder_is_not_written_over(prepare, prepared, tmp_path):
    with pytest.raises(FileExistsError, match="name another folder"):
        prepare.prepare(tmp_path, prepared["out"], ["cat"])


# ------------------------------------------------------------------------------------ measurements


@pytest.fixture(scope="module")
def measure():
    return script("tests/benchmarks/photos.py")


def scene(seed: int) -> tuple[dict, list[dict]]:
    """Six images with boxes of many sizes, and detections near them and elsewhere."""
    random = np.random.default_rng(seed)
    truth: dict = {"categories": [{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}]}
    truth |= {"images": [], "annotations": []}
    found: list[dict] = []

    def mask(height: int, width: int, top: int, left: int, side: int) -> dict:
        pixels = np.zeros((height, width), bool)
        pixels[max(top, 0) : top + side, max(left, 0) : left + side] = True
        return encode(pixels)

    for number in range(1, 7):
        height, width = (20, 40) if number % 2 else (30, 50)
        image = {"id": number, "height": height, "width": width, "source": "ab"[number % 2]}
        truth["images"].append(image)
        for k in range(4):
            top, left, side = random.integers(0, 12), random.integers(0, 30), random.integers(3, 14)
            category = int(random.choice([2, 4]))
            entry = {"id": 10 * number + k, "image_id": number, "category_id": category}
            entry |= {"iscrowd": int(random.random() < 0.15)}
            code = mask(height, width, top, left, side)
            truth["annotations"].append(entry | {"segmentation": code})
            for _ in range(random.integers(0, 3)):
                place = top + random.integers(-1, 2), left + random.integers(-1, 2)
                shifted = mask(height, width, *place, side)
                found.append({"image_id": number, "category_id": category, "segmentation": shifted})
        spot = mask(height, width, 5, 5, int(random.integers(2, 9)))
        found.append({"image_id": number, "category_id": 2, "segmentation": spot})
    for of in found:
        of["score"] = float(random.uniform(0.05, 1))  # no two are equal
    return truth, found


def slow_ap50(truth: dict, found: list[dict], images: set, category: int, least: float) -> float:
    """Average precision at IoU 0.5 of objects of at least that share, one detection at a time."""
    size = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    pixels = {id(of): decode(of["segmentation"], *size[of["image_id"]]) for of in found}
    pixels |= {
        id(of): decode(of["segmentation"], *size[of["image_id"]]) for of in truth["annotations"]
    }
    share = {number: mask.mean() for number, mask in pixels.items()}
    mine = [of for of in truth["annotations"] if of["category_id"] == category]
    mine = [of for of in mine if of["image_id"] in images]
    counted = [of for of in mine if not of["iscrowd"] and share[id(of)] >= least]
    others = [of for of in mine if all(of is not one for one in counted)]
    taken: set[int] = set()
    outcomes = []
    said = [of for of in found if of["category_id"] == category and of["image_id"] in images]
    for of in sorted(said, key=lambda of: -of["score"]):

        def overlap(of: dict, one: dict) -> float:
            a, b = pixels[id(of)], pixels[id(one)]
            return (a & b).sum() / (a.sum() if one["iscrowd"] else (a | b).sum())

        here = [one for one in counted if one["image_id"] == of["image_id"]]
        free = [one for one in here if id(one) not in taken and overlap(of, one) >= 0.5]
        if free:
            best = max(free, key=lambda one: overlap(of, one))
            taken.add(id(best))
            outcomes.append(True)
            continue
        ignored = [one for one in others if one["image_id"] == of["image_id"]]
        ignored = [one for one in ignored if one["iscrowd"] or id(one) not in taken]
        ignored = [one for one in ignored if overlap(of, one) >= 0.5]
        if ignored:
            taken.add(id(max(ignored, key=lambda one: overlap(of, one))))
        elif share[id(of)] >= least:
            outcomes.append(False)
    if not counted:
        return -1.0
    hits = np.cumsum(outcomes)
    recalls = hits / len(counted)
    precisions = hits / np.arange(1, len(hits) + 1)
    at = [precisions[recalls >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(at))


@pytest.mark.parametrize("seed", range(6))
def test_ap_of_large_objects_against_brute_force(measure, seed):
    truth, found = scene(seed)
    truths, shares = measure.shares_of(truth, found)
    groups = measure.by_source(truth, truths, shares)
    seen_in = {2: set(), 4: set()}
    for of in truth["annotations"]:
        seen_in[of["category_id"]].add(of["image_id"])
    everything = {image["id"] for image in truth["images"]}
    for category, name in ((2, "cat"), (4, "dog")):
        of_a = {i for i in seen_in[category] if i % 2 == 0}
        for group, images in (("all", everything), ("shown", seen_in[category]), ("a", of_a)):
            for area, least in measure.AREAS.items():
                expected = slow_ap50(truth, found, images, category, least)
                assert groups[name][group][area]["AP50"] == pytest.approx(expected, abs=1e-9)
        counts = [groups[name]["all"][area]["instances"] for area in measure.AREAS]
        assert counts == sorted(counts, reverse=True) and groups[name]["all"]["images"] == 6


def test_a_score_is_right_where_cocos_matching_says_so(measure):
    truth, found = scene(3)
    truths, shares = measure.shares_of(truth, found)
    judged = measure.judged(measure.evaluated(truth, truths, shares, set(range(1, 7))))
    assert any(of["iscrowd"] for of in truth["annotations"])
    scores = {score for *_, score, _ in judged}
    ignored = len(found) - len(judged)
    assert len(scores) == len(judged) and 0 < ignored <= len(found) / 2
    rights = sum(right for *_, right in judged)
    assert 0 < rights <= sum(not of["iscrowd"] for of in truth["annotations"])
    assert rights < len(judged)
    assert all(found[number - 1]["score"] == score for number, _, score, _ in judged)


def plate(*spans: tuple[int, int]) -> list[np.ndarray]:
    """Masks of 100 x 100: whole columns from .. to."""
    found = []
    for left, right in spans:
        mask = np.zeros((100, 100), bool)
        mask[:, left:right] = True
        found.append(mask)
    return found


def pairs(measure, things, said, scores=None):
    truth = {"images": [{"id": 7, "height": 100, "width": 100}], "categories": []}
    truth["annotations"] = [
        {"image_id": 7, "category_id": 1, "segmentation": encode(mask)} for mask in things
    ]
    found = [
        {"image_id": 7, "category_id": 1, "segmentation": encode(mask), "score": score}
        for mask, score in zip(said, scores or [0.9] * len(said))
    ]
    counts = measure.neighbours(truth, *measure.shares_of(truth, found), 0.5)
    return counts["pairs"], counts["two_found"], counts["merged"]


def test_neighbours_by_hand(measure):
    two = plate((10, 30), (30, 60))
    assert pairs(measure, two, two) == (1, 1, 0)
    assert pairs(measure, two, plate((10, 60))) == (1, 0, 1)  # one mask over both
    assert pairs(measure, two, plate((10, 30))) == (1, 0, 0)
    assert pairs(measure, two, plate((10, 30), (10, 31))) == (1, 0, 0)  # one of them, twice
    assert pairs(measure, two, []) == (1, 0, 0)
    assert pairs(measure, two, two, [0.9, 0.4]) == (1, 0, 0)  # one is not sure enough
    assert pairs(measure, plate((10, 30), (31, 60)), two)[0] == 1  # a pixel between them
    assert pairs(measure, plate((10, 30), (32, 60)), two)[0] == 0  # two pixels
    assert pairs(measure, plate((10, 30), (30, 34)), two)[0] == 0  # 4 % is too small
    assert pairs(measure, plate((10, 30), (30, 60), (60, 90)), two)[0] == 2
    # the same query in two classes is one prediction
    assert pairs(measure, two, [two[0], two[0]]) == (1, 0, 0)
    assert measure.two_found(np.array([[0.6, 0.6]])) is False


def test_gap_is_the_least_distance_of_two_pixels(measure):
    random = np.random.default_rng(5)
    one, other = (random.random((2, 15, 18)) < 0.03)[:, :, :]
    one[:, 9:], other[:, :9] = False, False
    one[2, 2] = other[10, 15] = True
    points = [np.argwhere(mask) for mask in (one, other)]
    slow = min(np.hypot(*(a - b)) for a in points[0] for b in points[1])
    assert measure.gap(one, other) == pytest.approx(slow)


def test_calibration_by_hand(measure):
    scores = np.array([0.05, 0.15, 0.15, 0.95, 0.95, 1.0])
    right = np.array([False, False, True, True, True, False])
    rows = measure.reliability(scores, right)
    assert [row["count"] for row in rows] == [1, 2, 3]
    assert [row["precision"] for row in rows] == pytest.approx([0, 0.5, 2 / 3])
    assert [row["score"] for row in rows] == pytest.approx([0.05, 0.15, 2.9 / 3])
    error = (0.05 + 2 * 0.35 + 3 * 0.3) / 6
    assert measure.calibration_error(rows) == pytest.approx(error)
    best = measure.best_threshold(scores, right, instances=4)
    # 3 of the 5 best are right: F1 = 2 * 3 / (5 + 4), against 2 * 2 / (3 + 4) for the 3 best
    assert best["threshold"] == 0.15 and best["precision"] == pytest.approx(3 / 5)
    assert best["recall"] == 0.75 and best["F1"] == pytest.approx(2 / 3)


def test_the_monotone_map_never_falls_and_keeps_the_mean(measure):
    random = np.random.default_rng(1)
    scores = random.random(400)
    right = random.random(400) < scores**2
    known, precision = measure.monotone_map(scores, right)
    assert (np.diff(known) >= 0).all() and (np.diff(precision) >= 0).all()
    assert precision.mean() == pytest.approx(right.mean())
    assert np.abs(precision - known**2).mean() < 0.1


def frame(t, ids, labels):
    code = encode(np.ones((4, 4), bool))
    return FrameResult(t, True, ids, labels, [0.9] * len(ids), [code] * len(ids), ids)


def test_names_and_false_animals_are_counted_by_frames(measure):
    film = [
        frame(0, [1, 2], [0, 1]),
        frame(1, [1], [0]),
        frame(2, [1, 2], [1, 1]),
        frame(3, [], []),
    ]
    assert measure.name_changes(film) == {"identities": 2, "steps": 3, "changes": 1}
    assert measure.reported(film, ("cat", "dog")) == {"any": 0.75, "cat": 0.5, "dog": 0.5}

    def of(shows, frames, cat, dog):
        says = {"any": 1.0, "cat": cat, "dog": dog}
        return {"shows": shows, "frames": frames, "reported": says}

    found = {"a": of([], 30, 0.1, 0.2), "b": of(["dog"], 10, 0.5, 0.9), "c": of(["cat"], 50, 1, 0)}
    found["webcam-cat"] = of(["cat"], 40, 1.0, 1.0)  # made of a photograph
    said = measure.false_alarms(found, "cat")
    assert said.pop("worst") == ["b", 0.5]
    assert said == pytest.approx({"films": 2, "mean": 0.3, "all_frames": 0.2})
    said = measure.false_alarms(found, "dog")
    assert said.pop("worst") == ["a", 0.2]
    assert said == pytest.approx({"films": 2, "mean": 0.1, "all_frames": 0.075})
    assert measure.false_alarms({"c": found["c"]}, "cat") == {}


def test_false_photographs_count_only_those_without_an_animal(measure):
    truth = {"images": [{"id": i} for i in range(5)], "annotations": [{"image_id": 0}]}
    found = [{"image_id": i, "score": s} for i, s in ((0, 0.9), (1, 0.6), (1, 0.7), (2, 0.4))]
    said = measure.false_photographs(truth, found, 0.5)
    assert said == {"photographs": 4, "share": 0.25}


def test_gates_compare_in_the_right_direction(measure):
    def group(ap50):
        return {"all": {"> 5 %": {"AP50": ap50}}, "coco": {"> 5 %": {"AP50": 0.2}}}

    figures = {"photographs": {"cat": group(0.8)}, "setting": {"threshold": 0.3}}
    shares = {"0.20": 0.7, "0.30": 0.5}
    figures["neighbours"] = {level: {"two_found_share": of} for level, of in shares.items()}
    figures["false_alarms"] = {"cat": {"all_frames": 0.04, "mean": 0.06}, "dog": {}}
    passed = {name: gate["passed"] for name, gate in measure.gates(figures).items()}
    assert passed == {
        "cat: AP50 of objects > 5 %": True,
        "cat: frames of films without one that report it": True,
        "cat: frames of films without one that report it, mean of the films": False,
        "neighbours stay two": False,
    }
    figures["photographs"]["person"] = group(0.8)
    assert not measure.gates(figures)["person: AP50 of objects > 5 %"]["passed"]  # COCO's count


@pytest.fixture(scope="module")
def measured(measure, prepared, tmp_path_factory):
    """What the whole command writes about a small data set and two films."""
    tmp_path = tmp_path_factory.mktemp("measured")
    torch.manual_seed(0)
    size = {"num_classes": 2, "class_names": ("cat", "dog"), "num_queries": 6, "dim": 16}
    model = MobileInst(MobileInstConfig.preset("topformer-tiny", heads=2, **size))
    model.trained_size = (64, 96)
    model.save_pretrained(tmp_path / "weights")
    clips = tmp_path / "photos" / "clips"
    clips.mkdir(parents=True)
    frames = [np.asarray(photograph(seed)) for seed in range(4)]
    write_gif(frames, clips / "room.gif", 8)
    write_gif(frames, clips / "webcam.gif", 8)
    folders = {
        "--photos": tmp_path / "photos",
        "--data": prepared["out"],
        "--out": tmp_path / "out",
    }
    said = [str(part) for pair in folders.items() for part in pair]
    argv = ["photos.py", str(tmp_path / "weights"), *said, "--threshold", "0.05"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        measure.main()
    return tmp_path


def test_the_whole_command_on_a_small_data_set(measured):
    tmp_path = measured
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["films"]["room"]["frames"] == 4 and figures["films"]["webcam"]["shows"] == ["cat"]
    assert (
        figures["films"]["room"]["shows"] == [] and figures["false_alarms"]["dog"]["films"] == 1
    )
    assert figures["photographs"]["cat"]["cats"]["all"]["instances"] == 2
    digest = hashlib.sha256((tmp_path / "weights" / "model.safetensors").read_bytes()).hexdigest()
    assert figures["setting"]["weights_sha256"] == digest
    text = (tmp_path / "out" / "table.md").read_text()
    assert "FAILED" in text and "cat, untrained model, all" in text
    assert Image.open(tmp_path / "out" / "sheets" / "room.png").width == 4 * 484


def test_films_alone_want_the_figures_of_photographs_first(measure, measured, monkeypatch, capsys):
    """Or an hour of films would end in an error, and with nothing written."""
    out = measured / "elsewhere"
    said = ["--photos", measured / "photos", "--data", measured, "--out", out, "--only", "films"]
    monkeypatch.setattr("sys.argv", [str(part) for part in ["photos.py", measured / "weights", *said]])
    with pytest.raises(SystemExit):
        measure.main()
    assert "holds no figures of photographs; measure these" in capsys.readouterr().err
    assert not list(out.iterdir())


# ------------------------------------------------------------------------------------------- films


@pytest.fixture(scope="module")
def webcam():
    return script("tests/benchmarks/photos_webcam.py")


@pytest.mark.parametrize("size", [(288, 432), (400, 288)])
def test_the_truth_of_a_webcam_film_moves_with_its_picture(webcam, size):
    masks = np.zeros((2, *size), bool)
    masks[0, 100:190, 90:140] = masks[1, 110:170, 160:230] = True
    image = np.where(masks.any(0)[..., None], 230, 20).astype(np.uint8).repeat(3, 2)
    moments = list(webcam.film(image, masks, 40, seed=3))
    assert len(moments) == 40
    gone = []
    for pixels, shown in moments:
        assert pixels.shape == (240, 320, 3) and shown.shape == (2, 240, 320)
        bright = pixels.mean(2) > 120
        assert (bright & shown.any(0)).sum() / (bright | shown.any(0)).sum() > 0.95
        gone.append(not shown[0].any())
    first, last = (encode(moments[t][1][0]) for t in (0, 19))
    assert first != last  # it moves
    sizes = np.array([[mask.sum() for mask in shown] for _, shown in moments])
    assert (sizes[:18] > 0).all()  # the bar comes later
    assert sizes[:18, 1].max() > 1.03 * sizes[:18, 1].min()  # the lens zooms
    assert sizes[20:32].min(0).max() < 0.7 * sizes[:18].min()  # and covers a part


def test_webcam_films_are_written_with_a_truth_that_reads(webcam, prepared, tmp_path):
    name = prepared["held"][0][:11]
    assert webcam.write(prepared["out"], tmp_path, [name], frames=6, seed=0) == [f"webcam-{name}"]
    clip = YouTubeVIS(tmp_path / "truth")[0]
    film = list(read_video(tmp_path / "films" / f"webcam-{name}.mp4"))
    assert len(clip) == len(film) == 6 and clip.masks(2).shape == (2, 240, 320)
    assert np.abs(clip.image(2).astype(int) - film[2]).mean() < 12
    photograph(3).save(tmp_path / "cat.png")
    path = webcam.write_one(tmp_path / "cat.png", tmp_path, frames=3, seed=0)
    assert path.name == "webcam-cat.mp4" and len(list(read_video(path))) == 3
    with pytest.raises(ValueError, match="0 held-out photographs"):
        webcam.write(prepared["out"], tmp_path, ["dogs-"], frames=2, seed=0)


# ------------------------------------------------------------------------------------- calibration


@pytest.fixture(scope="module")
def calibrate():
    return script("tests/benchmarks/photos_calibrate.py")


def test_calibration_finds_the_scale_and_shift_that_made_the_answers(calibrate):
    torch.manual_seed(0)
    logits, labels = torch.randn(30_000, 2) * 3, torch.randint(0, 2, (30_000,))
    made = torch.tensor([[0.4, -1.0], [-0.3, 0.5], [0.1, 0.8]])  # log scale, shift
    right = torch.rand(30_000) < calibrate.scored(made, logits, labels)
    numbers = calibrate.fit(logits, labels, right, classes=2)
    assert (numbers - made).abs().max() < 0.15
    untouched = calibrate.scored(torch.zeros(3, 2), logits, labels)
    by_hand = (logits[:, 0].sigmoid() * logits[:, 1].sigmoid()).sqrt()
    torch.testing.assert_close(untouched, by_hand)


def test_what_is_fitted_is_folded_into_the_heads(calibrate):
    torch.manual_seed(0)
    model = MobileInst(MobileInstConfig.preset("topformer-tiny", num_classes=2, dim=16, heads=2))
    numbers, frames = torch.tensor([[0.4, -1.0], [-0.3, 0.5], [0.1, 0.8]]), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = model.eval()(frames)
    calibrate.fold(model, numbers)
    with torch.inference_mode():
        after = model(frames)
    for label in (0, 1):
        logits = torch.stack([before.class_logits[0, :, label], before.objectness[0]], 1)
        labels = torch.full((len(logits),), label)
        expected = calibrate.scored(numbers, logits, labels)
        torch.testing.assert_close(after.scores()[0, :, label], expected)
    torch.testing.assert_close(after.mask_logits, before.mask_logits)


# ----------------------------------------------------------------------------------- the model card


@pytest.fixture(scope="module")
def ship():
    return script("data_samples/photos_ship.py")


@pytest.fixture
def trained(measured, tmp_path):
    """Figures and a training of one part, as `ship` takes them: [weights, figures, runs]."""
    shutil.copytree(measured / "out", tmp_path / "out")
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.json").write_text('{"data": "/one/of/somebody/data", "seed": 1}')
    (run / "log.jsonl").write_text("{}")
    counts = ["# counted in a test", "film\tthing\tseen\tnamed\tsame\tnote"]
    counts += ["webcam\tcat\t20\t18\t16\t-", "01_dog\tdog\t10\t5\t5\tleaves"]
    (tmp_path / "out" / "counts.tsv").write_text("\n".join(counts))
    return measured / "weights", tmp_path / "out", [run, run]


def test_the_card_is_filled_from_what_was_measured(ship, trained, prepared):
    text = ship.card(trained[0], trained[1], prepared["out"], trained[2])
    assert "finds cats and dogs" in text and "{" not in text
    assert (trained[1] / "table.md").read_text().strip() in text
    # 21 of the 30 frames in which something is seen
    assert "stays in 70 % of the frames" in text and "FAILED" in text
    rows = (prepared["out"] / "images.tsv").read_text().splitlines()
    assert f"{sum('train' in row for row in rows)} photographs, 1 more were held out" in text
    assert "- **pets**, Oxford-IIIT Pet, trimaps: 1 and 0 held out. Licence: CC BY-SA 4.0." in text
    assert "`train-1.json`, `log-1.jsonl`, `train.json`, `log.jsonl`.\n\n## How good" in text
    text = ship.card(trained[0], trained[1], prepared["out"], trained[2], "A mean of both.")
    assert "`log.jsonl`.\nA mean of both.\n\n## How good" in text


def test_only_what_was_measured_and_passed_ships(ship, trained, prepared, tmp_path):
    weights, figures, runs = trained
    said = (weights, figures, prepared["out"], runs, tmp_path / "shipped")
    with pytest.raises(ValueError, match="gate for cats"):
        ship.ship(*said)
    file = figures / "figures.json"
    found = json.loads(file.read_text())
    for gate in found["gates"].values():
        gate["passed"] = True
    file.write_text(json.dumps(found))
    ship.ship(*said)
    names = {path.name for path in (tmp_path / "shipped").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "metrics.json"} <= names
    assert {"train-1.json", "log.jsonl", "images.tsv", "counts.tsv", "reliability.png"} <= names
    arguments = json.loads((tmp_path / "shipped" / "train.json").read_text())
    assert arguments == {"data": "data", "seed": 1}  # no path of a machine
    wrong = [("split", "train", "photographs to learn from"), ("weights_sha256", "0", "figures of other weights")]
    for key, value, why in wrong:
        found["setting"][key] = value
        file.write_text(json.dumps(found))
        with pytest.raises(ValueError, match=why):
            ship.ship(*said)


def test_counts_that_cannot_be_are_refused(ship, tmp_path):
    file = tmp_path / "counts.tsv"
    file.write_text("film\tthing\tseen\tnamed\tsame\tnote\na\tcat\t10\t11\t9\t\n")
    with pytest.raises(ValueError, match="a: same <= named <= seen"):
        ship.read_counts(file)
    assert ship.read_counts(tmp_path / "none.tsv") == []


def test_half_precision_keeps_the_model(ship, measured, tmp_path):
    ship.half(measured / "weights", tmp_path / "half")
    whole, half = (
        MobileInst.from_pretrained(folder) for folder in (measured / "weights", tmp_path / "half")
    )
    sizes = [
        (folder / "model.safetensors").stat().st_size
        for folder in (measured / "weights", tmp_path / "half")
    ]
    assert sizes[1] < 0.6 * sizes[0] and half.trained_size == whole.trained_size == (64, 96)
    torch.testing.assert_close(
        whole.state_dict()["instance_decoder.queries"],
        half.state_dict()["instance_decoder.queries"],
        atol=2e-3,
        rtol=0,
    )


def test_the_mean_of_two_parts_lies_half_way(ship, measured, tmp_path):
    model = MobileInst.from_pretrained(measured / "weights")
    with torch.no_grad():
        model.instance_decoder.queries.add_(2.0)
    model.trained_size = (128, 192)
    model.save_pretrained(tmp_path / "later")
    ship.mean(measured / "weights", tmp_path / "later", tmp_path / "mean")
    mean = MobileInst.from_pretrained(tmp_path / "mean")
    expected = model.instance_decoder.queries - 1.0
    torch.testing.assert_close(mean.instance_decoder.queries, expected)
    assert mean.trained_size == (128, 192)
