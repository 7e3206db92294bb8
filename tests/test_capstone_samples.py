"""The sample set of lesson 10: what make_capstone.py makes, whole, small, and showing what the lesson needs."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from minst.data.creatures import CREATURES
from minst.data.shapes import CATEGORIES, ShapesConfig
from minst.data.video import read_video, video_info
from minst.data.ytvis import YouTubeVIS

SAMPLES = Path(__file__).resolve().parent.parent / "data_samples"
FOLDER = SAMPLES / "capstone"
FILES = sorted((FOLDER / "labelled").glob("*/*.json"))


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_capstone", SAMPLES / "make_capstone.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(maker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("capstone")
    maker.main(folder)
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_the_script_makes_these_files(made):
    new, shipped = files(made), files(FOLDER)
    assert set(new) == set(shipped)
    for name, path in new.items():
        if path.suffix == ".json":
            assert path.read_bytes() == shipped[name].read_bytes(), name
        elif path.suffix == ".jpg":  # another Pillow may round otherwise
            images = [np.asarray(Image.open(p), dtype=int) for p in (path, shipped[name])]
            assert np.abs(images[0] - images[1]).max() <= 3, name


def test_at_most_700_kilobytes():
    assert sum(path.stat().st_size for path in files(FOLDER).values()) <= 700_000


def test_the_crab_stays_out_of_shapes(maker):
    from minst.data import shapes

    before = shapes.shapes_clip("val", 0, ShapesConfig(frames=2)).render(1).image
    with maker.nine_creatures():
        assert shapes.CATEGORIES[-1] == "crab" and len(shapes.CREATURES) == 9
    assert shapes.CATEGORIES == CATEGORIES == tuple(CREATURES) and len(CREATURES) == 8 and "crab" not in CREATURES
    assert np.array_equal(shapes.shapes_clip("val", 0, ShapesConfig(frames=2)).render(1).image, before)


@pytest.mark.parametrize("phase", range(0, 12, 3))
def test_the_crab_lies_within_its_reach_and_has_its_area(maker, phase):
    turn = 2 * np.pi * phase / 12
    u, v = np.arange(-2, 2, 0.01, dtype=np.float32)[None], np.arange(-2, 2, 0.01, dtype=np.float32)[:, None]
    inside = maker.crab(u, v, float(np.sin(turn)), float(np.cos(turn)))[0] <= 0
    rows, columns = np.nonzero(inside)
    assert np.abs(u[0, columns]).max() < maker.CRAB.reach[0] and np.abs(v[rows, 0]).max() < maker.CRAB.reach[1]
    assert inside.sum() * 1e-4 == pytest.approx(maker.CRAB.area, rel=0.05)


# ---------------------------------------------------------------------------------- the twelve frames


def test_twelve_frames_of_four_moments_with_crabs_in_each():
    assert len(FILES) == 12 and len({file.parent for file in FILES}) == 4
    for file in FILES:
        entry = json.loads(file.read_text(encoding="utf-8"))
        assert (file.parent / entry["imagePath"]).is_file() and entry["imageData"] is None
        with Image.open(file.with_suffix(".jpg")) as image:
            assert image.size == (entry["imageWidth"], entry["imageHeight"]) == (256, 192)
        assert "crab" in {shape["label"] for shape in entry["shapes"]}
        assert all(shape["shape_type"] == "polygon" and shape["group_id"] >= 1 for shape in entry["shapes"])


def test_an_identity_keeps_its_number_and_label_within_a_moment():
    for moment in {file.parent for file in FILES}:
        seen = {}
        for file in sorted(moment.glob("*.json")):
            for shape in json.loads(file.read_text(encoding="utf-8"))["shapes"]:
                assert seen.setdefault(shape["group_id"], shape["label"]) == shape["label"]


def test_some_hidden_creatures_are_in_two_parts():
    parts = [[(s["label"], s["group_id"]) for s in json.loads(f.read_text(encoding="utf-8"))["shapes"]] for f in FILES]
    assert sum(len(p) > len(set(p)) for p in parts) >= 4


def test_the_outlines_are_those_of_the_creatures(maker):
    """IoU of each creature's polygons with the mask that was drawn: of 44, none below 0.9."""
    ious = []
    with maker.nine_creatures():
        for moment, (seed, times) in maker.MOMENTS.items():
            clip = maker.scene(seed)
            for t in times:
                masks = clip.render(t).masks
                entry = json.loads((FOLDER / "labelled" / moment / f"{t:05d}.json").read_text(encoding="utf-8"))
                for i in {shape["group_id"] for shape in entry["shapes"]}:
                    own = [shape for shape in entry["shapes"] if shape["group_id"] == i]
                    assert {shape["label"] for shape in own} == {maker.NAMES[clip.labels[i - 1]]}
                    polygons = [np.ravel(shape["points"]).tolist() for shape in own]
                    drawn = rle.decode(rle.merge(rle.frPyObjects(polygons, 192, 256))).astype(bool)
                    ious.append((drawn & masks[i - 1]).sum() / (drawn | masks[i - 1]).sum())
    assert len(ious) == 44 and min(ious) > 0.9 and np.mean(ious) > 0.96


def test_outlines_of_a_mask_with_a_hole_and_two_parts(maker):
    mask = np.zeros((30, 40), bool)
    mask[2:12, 3:18] = True
    mask[5:8, 7:11] = False  # a hole is filled
    mask[20:28, 25:39] = True
    mask[15, 15] = True  # a crumb is left out
    found = maker.outlines(mask)
    drawn = rle.decode(rle.merge(rle.frPyObjects([np.ravel(p).tolist() for p in found], 30, 40)))
    assert len(found) == 2 and abs(int(drawn.sum()) - (10 * 15 + 8 * 14)) <= 12  # corners


# ---------------------------------------------------------------------------------- the clip


def test_the_clip_is_what_its_truth_says(maker):
    info = video_info(FOLDER / "clip.mp4")
    assert (info.width, info.height) == (256, 192) and info.fps == maker.FPS
    clip = YouTubeVIS(FOLDER / "clip_truth")[0]
    frames = list(read_video(FOLDER / "clip.mp4"))
    assert len(frames) == len(clip) == 3 * maker.FPS
    assert sorted(clip.categories[k] for k in clip.labels) == ["crab", "crab", "leaf", "turtle"]
    with maker.nine_creatures():
        scene = maker.scene(maker.CLIP)
        for t in (0, 11, 23):
            drawn = scene.render(t)
            assert np.abs(drawn.image.astype(int) - frames[t]).mean() < 8  # H.264
            assert np.array_equal(drawn.masks, clip.masks(t))


def test_the_clip_is_no_labelled_scene(maker):
    assert maker.CLIP not in {seed for seed, _ in maker.MOMENTS.values()}
