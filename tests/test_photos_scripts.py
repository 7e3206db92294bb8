"""The scripts around photos-tiny: how its photographs are prepared, and how it is measured.

They are no part of the package. Each is held against an oracle that is slow, short and written
another way.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from minst.data.coco import open_folder
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


def test_with_persons_their_class_masks_are_crowds_and_some_sources_are_not_labelled(prepare):
    entries = [{"category": "person", "segmentation": encode(box(0, 9)), "iscrowd": 0}]
    assert prepare.instances("voc", "voc-ffffff01.jpg", entries)[0]["iscrowd"] == 1
    assert prepare.instances("coco", "coco-0.jpg", entries)[0]["iscrowd"] == 0


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
    (image,) = prepare.read_source(photos, "cats", ["cat", "person"])
    assert image["not_labelled"] == ["person"]
    (image,) = prepare.read_source(photos, "cats", ["cat"])
    assert "not_labelled" not in image


def test_parts_of_one_animal_become_its_whole(prepare):
    entries = [
        {"category": "cat", "segmentation": encode(box(a, b)), "iscrowd": 0}
        for a, b in ((0, 30), (50, 70))
    ]
    (whole,) = prepare.instances("voc", "voc-08517eaa.jpg", entries)
    assert (decode(whole["segmentation"], 64, 96) == box(0, 30) | box(50, 70)).all()
    entries[1]["category"] = "dog"
    with pytest.raises(ValueError, match="two categories"):
        prepare.instances("voc", "voc-08517eaa.jpg", entries)


def test_an_earlier_folder_is_not_written_over(prepare, prepared, tmp_path):
    with pytest.raises(FileExistsError, match="name another folder"):
        prepare.prepare(tmp_path, prepared["out"], ["cat"])
