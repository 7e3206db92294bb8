"""The generator: what a clip promises (sizes, disjoint masks, determinism), how hard the default split is, files."""

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from benchmarks.shapes_statistics import clip_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from minst.data import shapes
from minst.data.creatures import CREATURES, angle, clip_patch, disc, ellipse, limb, wave
from minst.data.shapes import (
    CATEGORIES,
    SPLITS,
    ShapesClip,
    ShapesConfig,
    shapes_clip,
    write_shapes_dataset,
)

SMALL = ShapesConfig(width=96, height=72, frames=6)


def frames_equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b))


# ------------------------------------------------------------------------------------------------ one clip


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), index=st.integers(0, 2**32 - 1), width=st.integers(64, 200),
       height=st.integers(48, 160), frames=st.integers(1, 40), speed=st.floats(0, 4), t=st.floats(0, 0.999))
def test_any_clip_is_well_formed(seed, index, width, height, frames, speed, t):
    clip = ShapesClip(ShapesConfig(width=width, height=height, frames=frames, speed=speed), seed, index)
    frame = clip.render(int(t * frames))
    n = len(clip.labels)
    assert len(clip) == frames and 2 <= n <= 6
    assert clip.labels.dtype == np.int64 and set(clip.labels) <= set(range(len(CATEGORIES)))
    assert frame.image.shape == (height, width, 3) and frame.image.dtype == np.uint8
    assert frame.masks.shape == (n, height, width) and frame.masks.dtype == bool
    areas = frame.masks.sum((1, 2))
    assert frame.masks.sum(0).max() <= 1  # visible masks are disjoint
    assert (areas <= frame.amodal).all() and not ((areas > 0) & (areas < shapes.MIN_AREA)).any()


def test_frames_do_not_depend_on_the_order_of_drawing():
    forward, backward = shapes_clip("val", 5, SMALL), shapes_clip("val", 5, SMALL)
    first = [forward.render(t) for t in range(6)]
    second = [backward.render(t) for t in reversed(range(6))][::-1]
    assert all(frames_equal(a, b) for a, b in zip(first, second))
    assert frames_equal(shapes_clip("val", 5, SMALL).render(4), first[4])
    assert not np.array_equal(first[0].image, first[3].image)


def test_clips_are_the_same_on_every_machine():
    """Digest made once, on x86-64 with NumPy 2.4: images, masks, areas of two clips. If it changes, all figures do."""
    digest = hashlib.sha256()
    square = ShapesConfig(width=160, height=160, frames=9)
    for split, index, config in (("train", 3, ShapesConfig()), ("val", 1, square)):
        clip = shapes_clip(split, index, config)
        digest.update(clip.labels.astype("<i8").tobytes())
        for t in (0, 8):
            image, masks, amodal = clip.render(t)
            digest.update(image.tobytes() + np.packbits(masks).tobytes() + amodal.astype("<i8").tobytes())
    assert digest.hexdigest()[:32] == "e3e9360ba33160ef97f0e4b246a477c8"


def test_pixels_do_not_hang_on_the_last_bits_of_sines(monkeypatch):
    """A machine whose sin, cos, atan2 err in the eighth digit (real ones: the sixteenth) still draws the same clip."""
    clips = [("train", 7), ("val", 2), ("test", 5)]
    before = [shapes_clip(*clip, SMALL).render(t) for clip in clips for t in range(6)]
    for module, names in ((shapes.math, ("sin", "cos", "atan2")), (np, ("sin", "cos"))):
        for name in names:
            monkeypatch.setattr(module, name, lambda *x, exact=getattr(module, name): exact(*x) * (1 + 1e-8))
    after = [shapes_clip(*clip, SMALL).render(t) for clip in clips for t in range(6)]
    assert all(frames_equal(a, b) for a, b in zip(before, after))


def test_front_hides_back_and_hidden_parts_are_counted():
    """Drawn alone, every creature shows what the others hide; on a larger stage, also what the border cuts off."""
    clip = ShapesClip(ShapesConfig(crowding=4, occlusion=3, min_instances=4), 11, 2)
    n, hidden, cut_off = len(clip.labels), 0, 0
    for t in (0, 8, 16, 23):
        frame = clip.render(t)
        alone, whole = np.full((n, 192, 256), -1, np.int8), np.full((n, 592, 656), -1, np.int8)
        for i in range(n):
            clip._paint_object(np.zeros((3, 192, 256), np.float32), alone[i], i, t)
            clip._objects[i].path += 200
            clip._paint_object(np.zeros((3, 592, 656), np.float32), whole[i], i, t)
            clip._objects[i].path -= 200
            assert frame.amodal[i] == ((whole[i] == i).sum() if (alone[i] == i).any() else 0)
            cut_off += frame.amodal[i] > (alone[i] == i).sum() > 0
        front = np.zeros((192, 256), bool)
        for i in reversed(range(n)):
            expected = (alone[i] == i) & ~front
            assert np.array_equal(frame.masks[i], expected & (expected.sum() >= shapes.MIN_AREA))
            hidden += frame.masks[i].sum() < (alone[i] == i).sum()
            front |= alone[i] == i
    assert hidden and cut_off


def test_too_little_to_be_seen_counts_as_absent(monkeypatch):
    frame = shapes_clip("val", 5).render(3)
    areas = frame.masks.sum((1, 2))
    limit = int(np.sort(areas[areas > 0])[1])  # just too much for the smallest that can be seen
    monkeypatch.setattr(shapes, "MIN_AREA", limit)
    masks = shapes_clip("val", 5).render(3).masks
    kept = areas >= limit
    assert ((areas > 0) & ~kept).any() and kept.any()
    assert not masks[~kept].any() and np.array_equal(masks[kept], frame.masks[kept])


def test_objects_leave_and_come_back():
    """Over 60 clips every manner of coming and going occurs: enters, leaves, is gone in between."""
    kinds = set()
    for index in range(60):
        clip = shapes_clip("val", index, ShapesConfig(width=64, height=48))
        outside = np.stack([clip.render(t).amodal == 0 for t in range(24)], 1)  # (n, T)
        for row in outside:
            runs = "".join("-" if gone else "+" for gone in row[np.r_[True, row[1:] != row[:-1]]])
            kinds.add(runs)
    assert {"+", "-+", "+-", "+-+"} <= kinds


# ------------------------------------------------------------------------------------------------ splits and seeds


def test_splits_never_share_a_seed():
    seen = {}
    for split in SPLITS:
        for seed in (0, 1, 2, 3, 4, 7, 2**30 - 1):
            clip = shapes_clip(split, 0, SMALL, seed)
            assert seen.setdefault(clip.seed, (split, seed)) == (split, seed)
    pictures = {shapes_clip(split, i, SMALL, seed).render(0).image.tobytes()
                for split in SPLITS for i in range(3) for seed in range(3)}
    assert len(pictures) == 27


# ------------------------------------------------------------------------------------------------ difficulty


@pytest.fixture(scope="module")
def statistics():
    return clip_statistics(shapes_clip("val", i) for i in range(40))


def test_default_split_is_as_hard_as_promised(statistics):
    """Issue ranges, a little wider where 40 clips leave room for chance; tests/benchmarks measures many more."""
    assert statistics["videos"] == 40 and statistics["frames_per_video"] == 24 and statistics["categories"] == 8
    assert 3 <= statistics["instances_per_video"] <= 4
    assert 0.04 <= statistics["visible_area"] <= 0.12
    assert 0.38 <= statistics["half_hidden"] <= 0.6
    assert 0.22 <= statistics["in_and_out"] <= 0.45
    assert 0.015 <= statistics["speed"] <= 0.022


def test_statistics_against_a_clip_counted_by_hand():
    class Clip:  # 2 frames of 10 x 20: one creature moves by 4 and is cut in half, another leaves
        labels = np.array([3, 3])

        def __len__(self):
            return 2

        def render(self, t):
            masks = np.zeros((2, 10, 20), bool)
            masks[0, 2:6, 4 * t : 4 * t + 4 - t] = True  # 16 then 12 pixels, centroid x 1.5 then 5
            masks[1, :5, 10:12] = t == 0
            return shapes.ShapesFrame(np.zeros((10, 20, 3), np.uint8), masks, np.array([25, 0 if t else 10]))

    found = clip_statistics([Clip()])
    assert found["instances"] == 2 and found["categories"] == 1
    assert found["visible_area"] == pytest.approx((16 + 12 + 10) / 3 / 200)
    assert found["half_hidden"] == 0.5 and found["in_and_out"] == 0.5 and found["speed"] == pytest.approx(3.5 / 20)
    with pytest.raises(ValueError, match="no clips"):
        clip_statistics([])


def measure(**knobs):
    config = ShapesConfig(width=128, height=96, frames=12, **knobs)
    return clip_statistics(shapes_clip("test", i, config) for i in range(16))


def test_speed_knob():
    still, slow, fast = (measure(speed=s)["speed"] for s in (0, 0.5, 2))
    assert still < 0.002 < slow < 0.5 * fast  # growth alone moves a centroid a little


def test_occlusion_and_crowding_knobs():
    inside = dict(min_instances=3, max_instances=3)
    assert measure(occlusion=0, **inside)["half_hidden"] + 0.15 < measure(occlusion=3, **inside)["half_hidden"]
    few, usual, many = (measure(crowding=c)["instances_per_video"] for c in (0, 1, 4))
    assert few == 2 < usual < many


def test_clutter_knob_touches_only_the_background():
    plain, busy = (shapes_clip("val", 4, dataclasses.replace(SMALL, clutter=c)) for c in (0, 4))
    a, b = plain.render(2), busy.render(2)
    assert np.array_equal(a.masks, b.masks)
    changed = (a.image != b.image).any(2)
    assert changed.any() and not changed[a.masks.any(0)].mean() > 0.1  # thin edges blend with what lies behind


def test_category_knob_keeps_the_ids():
    config = dataclasses.replace(SMALL, category=("snail", "leaf"))
    labels = {int(k) for i in range(12) for k in shapes_clip("val", i, config).labels}
    assert labels == {CATEGORIES.index("snail"), CATEGORIES.index("leaf")}


def test_colour_does_not_tell_the_category():
    """Hue of the body, drawn for each kind: every third of the colour circle is used by every kind."""
    import colorsys

    hues = {k: set() for k in range(len(CATEGORIES))}
    for index in range(150):
        for thing in shapes_clip("train", index, SMALL)._objects:
            r, g, b = thing.colors["base"].ravel() / 255
            hues[thing.label].add(int(3 * colorsys.rgb_to_hsv(r, g, b)[0]))
    assert all(found == {0, 1, 2} for found in hues.values())


# ------------------------------------------------------------------------------------------------ the drawings


def grid(step=0.02, half=2.2):
    line = np.arange(-half, half, step, dtype=np.float32)
    return np.meshgrid(line, line)


@pytest.mark.parametrize("name", CATEGORIES)
def test_creature_keeps_to_its_reach_and_area(name):
    creature, (u, v) = CREATURES[name], grid()
    areas, silhouettes = [], []
    for turn in range(8):
        d, layers = creature.draw(u, v, np.sin(turn * np.pi / 4).item(), np.cos(turn * np.pi / 4).item())
        assert d.dtype == np.float32 and d.shape == u.shape
        assert all(layer.dtype == np.float32 and layer.shape == u.shape for layer, _ in layers)
        inside = d <= 0
        assert abs(u[inside]).max() <= creature.reach[0] and abs(v[inside]).max() <= creature.reach[1]
        areas.append(inside.sum() * 0.02**2)
        silhouettes.append(inside)
    assert np.mean(areas) == pytest.approx(creature.area, rel=0.03)
    moved = (silhouettes[2] != silhouettes[6]).sum() / silhouettes[2].sum()
    assert moved > (0.2 if name in ("fish", "butterfly", "jellyfish") else 0.03)  # it deforms as it moves


def test_distances_against_points_counted_one_by_one():
    x, y = grid(0.05, 1.5)
    assert disc(x, y, 0.25, -0.5, 0.5) == pytest.approx(np.hypot(x - 0.25, y + 0.5) - 0.5, abs=1e-5)
    along = np.linspace(0, 1, 400)[:, None, None]  # a limb is a row of discs
    rows = np.hypot(x - (-1 + 1.6 * along), y - 0.3 * along) - 0.2
    assert limb(x, y, -1.0, 0.0, 0.6, 0.3, 0.2, 0.2) == pytest.approx(rows.min(0), abs=3e-3)
    rim = np.linspace(0, 2 * np.pi, 2000)[:, None]
    points = np.stack([x.ravel(), y.ravel()])
    true = np.hypot(points[0] - 0.9 * np.cos(rim), points[1] - 0.6 * np.sin(rim)).min(0)
    found = ellipse(x, y, 0.0, 0.0, 0.9, 0.6).ravel()
    near = true < 0.15
    assert np.abs(np.abs(found) - true)[near].max() < 0.03
    assert ((found < 0) == ((points[0] / 0.9) ** 2 + (points[1] / 0.6) ** 2 < 1)).all()
    away = np.hypot(x, y) > 0.03
    assert angle(y, x)[away] == pytest.approx((np.arctan2(y, x) / (2 * np.pi))[away], abs=1e-3)
    assert wave(x) == pytest.approx(np.sin(2 * np.pi * x), abs=0.06)


def test_patches_at_every_border():
    for y0 in range(-6, 14):
        for x0 in range(-6, 14):
            expected = np.zeros((8, 8), int)
            for y in range(4):
                for x in range(5):
                    if 0 <= y0 + y < 8 and 0 <= x0 + x < 8:
                        expected[y0 + y, x0 + x] = 10 * y + x + 1
            found, meet = np.zeros((8, 8), int), clip_patch((3, 8, 8), y0, x0, (4, 5))
            if meet:
                found[meet[0]] = (np.arange(4)[:, None] * 10 + np.arange(5) + 1)[meet[1]]
            assert np.array_equal(found, expected)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("field, value", [
    ("width", 10), ("height", 0), ("frames", 0), ("frames", 2.5), ("min_instances", 0), ("max_instances", 1),
    ("speed", -1), ("speed", float("nan")), ("occlusion", 9), ("crowding", -0.1), ("clutter", "much"), ("category", ()),
    ("category", ("cow",)), ("category", "fish"), ("min_instances", True)])
def test_bad_config_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"shapes: {field}"):
        ShapesConfig(**{field: value})


def test_bad_clip_arguments():
    with pytest.raises(ValueError, match="split"):
        shapes_clip("validation", 0)
    for seed in (-1, 2**30, 0.5):
        with pytest.raises(ValueError, match="seed"):
            shapes_clip("val", 0, seed=seed)
    with pytest.raises(ValueError, match="index"):
        shapes_clip("val", -1)
    for t in (-1, 6):
        with pytest.raises(ValueError, match="frames 0 .. 5"):
            shapes_clip("val", 0, SMALL).render(t)


# ------------------------------------------------------------------------------------------------ files


def test_youtube_vis_files(tmp_path):
    config = dataclasses.replace(SMALL, frames=20)
    path = write_shapes_dataset(tmp_path / "set", 3, config, seed=7)
    data = json.loads(path.read_text())
    assert path == tmp_path / "set" / "annotations.json"
    assert set(data) == {"info", "licenses", "videos", "categories", "annotations"}
    assert [(c["id"], c["name"]) for c in data["categories"]] == list(enumerate(CATEGORIES, 1))
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    absent = 0
    for number, video in enumerate(data["videos"]):
        clip = shapes_clip("val", number, config, seed=7)
        drawn = [clip.render(t) for t in range(20)]
        assert (video["id"], video["width"], video["height"], video["length"]) == (number + 1, 96, 72, 20)
        assert video["file_names"] == [f"{number:05d}/{t:05d}.jpg" for t in range(20)]
        for name, frame in zip(video["file_names"], drawn):
            image = np.asarray(Image.open(tmp_path / "set" / "JPEGImages" / name)).astype(int)
            assert image.shape == frame.image.shape and np.abs(image - frame.image).mean() < 6
        visible = [i for i in range(len(clip.labels)) if any(f.masks[i].any() for f in drawn)]
        tracks = [a for a in data["annotations"] if a["video_id"] == video["id"]]
        assert [a["category_id"] - 1 for a in tracks] == [clip.labels[i] for i in visible]
        for i, track in zip(visible, tracks):
            assert track["iscrowd"] == 0 and (track["width"], track["height"], track["length"]) == (96, 72, 20)
            lists = (track[name] for name in ("segmentations", "bboxes", "areas"))
            for frame, code, box, area in zip(drawn, *lists, strict=True):
                if not frame.masks[i].any():
                    assert code is None and box is None and area is None
                    absent += 1
                    continue
                assert code["size"] == [72, 96] and isinstance(code["counts"], str)
                assert np.array_equal(rle.decode(code).astype(bool), frame.masks[i])
                ys, xs = np.nonzero(frame.masks[i])
                assert box == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1] and area == len(ys)
    assert absent  # else nothing above has seen a null


def test_coco_files(tmp_path, capsys):
    path = write_shapes_dataset(tmp_path, 4, SMALL, seed=3, split="train", images=True)
    coco = COCO(path)
    assert len(coco.getImgIds()) == 4
    for image in coco.loadImgs(coco.getImgIds()):
        clip = shapes_clip("train", image["id"] - 1, SMALL, seed=3)
        picture = np.asarray(Image.open(tmp_path / "images" / image["file_name"])).astype(int)
        errors = [np.abs(picture - clip.render(t).image).mean() for t in range(6)]
        frame = clip.render(int(np.argmin(errors)))
        assert min(errors) < 6
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        expected = [(int(label) + 1, mask) for label, mask in zip(clip.labels, frame.masks) if mask.any()]
        assert len(annotations) == len(expected)
        for annotation, (category, mask) in zip(annotations, expected):
            assert annotation["category_id"] == category and annotation["area"] == mask.sum()
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)


def test_writing_refuses(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_shapes_dataset(tmp_path, 1, SMALL)
    with pytest.raises(ValueError, match="not an empty folder"):
        write_shapes_dataset(tmp_path / "keep.txt", 1, SMALL)
    with pytest.raises(ValueError, match="videos"):
        write_shapes_dataset(tmp_path / "new", 0, SMALL)
    with pytest.raises(ValueError, match="split"):
        write_shapes_dataset(tmp_path / "new", 1, SMALL, split="nowhere")
    assert [p.name for p in tmp_path.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_writer_leaves_no_half_data_set(tmp_path, blow):
    """Images without annotations would be taken for a data set, and refused the next time."""
    out = tmp_path / "set"
    command = [sys.executable, "-m", "minst", "data", "shapes", "--out", str(out), "--videos", "4000", "--frames", "2"]
    writer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(out.glob("**/*.jpg")):
        assert writer.poll() is None
        time.sleep(0.05)
    writer.send_signal(blow)
    assert writer.wait(1200) == (143 if blow == signal.SIGTERM else -blow)
    left = [path.name for path in out.iterdir()] if out.exists() else []
    assert len(left) == (blow == signal.SIGKILL) and all(name.startswith(".unfinished-") for name in left)
    write_shapes_dataset(out, 1, SMALL)
    assert sorted(path.name for path in out.iterdir()) == ["JPEGImages", "annotations.json"]
