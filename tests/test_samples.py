"""What ships: found from a clone and from a wheel, complete, unchanged, and showing what it is said
to show."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

import minst
from minst import samples
from minst.cli import build_parser
from minst.data.shapes import ShapesConfig, shapes_clip, write_shapes_dataset
from minst.data.ytvis import Clip

NAMES = ["easy", "occlusion", "twins", "in-and-out", "fast", "crowd"]
FOLDER = Path(__file__).resolve().parent.parent / "data_samples"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A package in a folder of its own: `elsewhere("…/data_samples")` puts one clip and two models
    there."""
    package = tmp_path / "site" / "minst"
    package.mkdir(parents=True)
    monkeypatch.setattr(samples, "__file__", str(package / "samples.py"))

    def fill(place):
        folder = package / place
        write_shapes_dataset(
            folder / "clips", 1, ShapesConfig(width=64, height=48, frames=2), seed=1
        )
        for name in ("tiny", "large"):
            (folder / "weights" / name).mkdir(parents=True)
            (folder / "weights" / name / "config.json").write_text("{}")
        (folder / "weights" / "notes").mkdir()
        (folder / "weights" / "notes" / "log.jsonl").write_text("{}")
        return folder.resolve()

    return fill


@pytest.mark.parametrize("place", ["shipped/data_samples", "../data_samples"])
def test_samples_are_found_in_a_wheel_and_beside_a_clone(elsewhere, place):
    folder = elsewhere(place)
    assert samples.data_folder().resolve() == folder
    assert samples.sample_names() == ["00000"] and len(samples.load_sample("00000")) == 2
    assert samples.weights_names() == ["large", "tiny"]
    assert samples.weights_folder("tiny").resolve() == folder / "weights" / "tiny"
    (folder.parent / "results" / "lab").mkdir(parents=True)
    assert samples.results_folder("lab").resolve() == folder.parent / "results" / "lab"
    with pytest.raises(FileNotFoundError, match="results/none is neither at"):
        samples.results_folder("none")


def test_what_is_not_there_is_an_error_that_lists_what_is(elsewhere):
    with pytest.raises(
        FileNotFoundError, match="data_samples is neither at .*minst.* nor at .*site"
    ):
        samples.data_folder()
    elsewhere("shipped/data_samples")
    with pytest.raises(ValueError, match="no shipped clip 'none'; there are: 00000"):
        samples.load_sample("none")
    with pytest.raises(FileNotFoundError, match="'none'.*shipped: large, tiny"):
        samples.weights_folder("none")
    with pytest.raises(FileNotFoundError, match="notes"):
        samples.weights_folder("notes")


# ---------------------------------------------------------------------------- the shipped files


def test_the_six_clips():
    assert minst.sample_names() == NAMES
    for name in NAMES:
        clip = minst.load_sample(name)
        assert isinstance(clip, Clip) and clip.name == name and 24 <= len(clip) <= 36
        assert clip.image(len(clip) - 1).shape == (clip.height, clip.width, 3) == (192, 256, 3)
        assert clip.masks(0).shape == (len(clip.labels), 192, 256) and len(clip.labels) >= 2


def test_the_twelve_images():
    truth = COCO(str(FOLDER / "images" / "annotations.json"))
    assert len(truth.imgs) == 12 and len(truth.anns) >= 24
    assert all(
        (FOLDER / "images" / "images" / image["file_name"]).is_file()
        for image in truth.imgs.values()
    )
    for annotation in truth.anns.values():
        assert truth.annToMask(annotation).sum() == annotation["area"]


def test_checksums_cover_every_file():
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    there = {
        p.relative_to(FOLDER).as_posix()
        for p in FOLDER.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert set(listed) == there - {"SHA256SUMS"}
    changed = [
        n
        for n, digest in listed.items()
        if hashlib.sha256((FOLDER / n).read_bytes()).hexdigest() != digest
    ]
    assert not changed, (
        f"run `python data_samples/make_samples.py --sums` if these are meant to change: {changed}"
    )


def test_at_most_fifteen_megabytes_four_of_others_and_ten_of_photographs():
    sizes = {p: p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()}
    parts = [sum(size for path, size in sizes.items() if part in path.parts) for part in ("foreign", "photos-tiny")]
    assert parts[0] <= 4e6 and parts[1] <= 10e6 and sum(sizes.values()) - sum(parts) <= 15e6


def test_the_film_of_a_photograph_and_its_outline():
    """One cat, whose masks move with her and lose what a bar hides; whose photograph it is stands in the file."""
    clip = minst.load_sample(samples.PHOTO)
    assert samples.PHOTO not in minst.sample_names() and clip.name == samples.PHOTO
    assert len(clip) == 30 and clip.image(29).shape == (240, 320, 3)
    assert clip.categories == ("cat", "dog", "person") and clip.labels.tolist() == [0]
    seen = np.array([clip.masks(t)[0] for t in range(30)])
    assert seen.mean((1, 2)).tolist() == pytest.approx([area / 76800 for area in clip.tracks[0]["areas"]])
    # the bar is a sixth of the frame, and passes in the second half
    shares = seen.mean((1, 2))
    assert shares[:15].min() > 0.7 and 0.6 < shares[15:].min() < shares[:15].min() - 0.1
    # her eye is hers, what lies behind her is not
    assert seen[0, 90, 120] and not seen[0, 200, 305]
    said = json.loads((FOLDER / "photo" / "annotations.json").read_text())
    readme = (FOLDER / "README.md").read_text()
    for words in ("Stefan van der Walt", "CC0", "moved photograph"):
        assert words in said["info"]["description"] + said["licenses"][0]["name"] and words in readme


def test_shipped_weights_load_and_stay_below_twelve_megabytes():
    folder = samples.weights_folder("shapes-tiny")
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 12e6
    model = minst.MobileInst.from_pretrained("shapes-tiny")
    assert list(model.config.class_names) == list(minst.load_sample("easy").categories)


def test_photos_tiny_ships_with_its_card_and_without_pictures():
    folder = samples.weights_folder("photos-tiny")
    assert (folder / "model.safetensors").stat().st_size <= 10e6
    names = minst.MobileInst.from_pretrained("photos-tiny").config.class_names
    found = json.loads((folder / "metrics.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found["setting"]["weights_sha256"] == digest  # these weights were measured
    card = (folder / "README.md").read_text()
    assert found["gates"]["cat: AP50 of objects > 5 %"]["passed"]
    assert all(f"{name}s" in card for name in names)
    assert "must not be used to judge people" in card
    assert not list(folder.glob("*.jpg"))


def test_clips_are_what_their_commands_make():
    """README of the folder states one command a clip; the generator still gives these very pictures
    and masks."""
    text = (FOLDER / "README.md").read_text()
    commands = {
        c.split()[-1]: c.split()[1:]
        for c in re.findall(r"^minst data shapes .*$", text, re.MULTILINE)
    }
    assert set(commands) == {*NAMES, "images"}
    for name in NAMES:
        said = build_parser().parse_args(commands[name])
        assert said.split == "test" and said.videos == 1
        knobs = {
            knob: getattr(said, knob) for knob in ("speed", "occlusion", "crowding", "clutter")
        }
        height, width = said.size
        made = shapes_clip(
            "test",
            0,
            ShapesConfig(width=width, height=height, frames=said.frames, **knobs),
            said.seed,
        )
        shipped = minst.load_sample(name)
        assert len(made) == len(shipped)
        for t in (0, len(made) - 1):
            frame = made.render(t)
            assert np.abs(frame.image.astype(int) - shipped.image(t)).mean() < 5  # JPEG
            seen = [
                i
                for i in range(len(made.labels))
                if any(made.render(s).masks[i].any() for s in range(len(made)))
            ]
            assert made.labels[seen].tolist() == shipped.labels.tolist()
            assert np.array_equal(frame.masks[seen], shipped.masks(t))
    images = json.loads((FOLDER / "images" / "annotations.json").read_text())
    said = build_parser().parse_args(commands["images"])
    assert (
        said.images
        and said.videos == len(images["images"])
        and f"seed {said.seed}" in images["info"]["description"]
    )


# ------------------------------------------------------------------ they show what they are said to


def areas(name):
    """Visible pixels (T, M) and labels of a shipped clip, from the annotation file alone."""
    clip = minst.load_sample(name)
    return np.array([[a or 0 for a in track["areas"]] for track in clip.tracks]).T, clip.labels


def steps(name):
    """Moves of the boxes' centres between frames in which an instance is seen, as shares of the
    width."""
    found = []
    for track in minst.load_sample(name).tracks:
        centres = [b and np.array([b[0] + b[2] / 2, b[1] + b[3] / 2]) for b in track["bboxes"]]
        found += [
            np.linalg.norm(b - a) / 256
            for a, b in zip(centres, centres[1:])
            if a is not None and b is not None
        ]
    return np.array(found)


def test_easy_shows_three_kinds_all_the_time():
    seen, labels = areas("easy")
    assert len(set(labels)) == len(labels) == 3 and seen.min() > 500


def test_occlusion_hides_an_instance_that_comes_back():
    seen, _ = areas("occlusion")
    dips = [column[: t + 1].max() > 4 * column[t] and column[t:].max() > 4 * column[t]
            for column in seen.T for t in [1 + int(column[1:-1].argmin())]]  # fmt: skip
    assert any(dips)


def test_twins_share_a_category_and_their_boxes_cross():
    clip = minst.load_sample("twins")
    best = 0.0
    for i, a in enumerate(clip.tracks):
        for b in clip.tracks[:i]:
            if a["category_id"] == b["category_id"]:
                best = max(
                    [best, *(overlap(p, q) for p, q in zip(a["bboxes"], b["bboxes"]) if p and q)]
                )
    assert best > 0.4


def overlap(p, q):
    """Share of the smaller box that lies in the other."""
    w, h = (min(p[k] + p[k + 2], q[k] + q[k + 2]) - max(p[k], q[k]) for k in (0, 1))
    return max(w, 0) * max(h, 0) / min(p[2] * p[3], q[2] * q[3])


def test_in_and_out_leaves_and_comes_back():
    seen, _ = areas("in-and-out")
    assert any(
        (column[:4].min() > 0 and column[-4:].min() > 0 and (column == 0).sum() >= 3)
        for column in seen.T
    )


def test_fast_is_at_least_twice_as_fast_as_easy():
    assert (
        np.median(steps("fast")) > 2 * np.median(steps("easy")) and np.median(steps("fast")) > 0.03
    )


def test_crowd_shows_six():
    seen, labels = areas("crowd")
    assert len(labels) == 6 and np.median((seen > 0).sum(1)) >= 5


@pytest.mark.parametrize("place", ["shipped", ".."])
def test_lessons_are_copied_from_a_wheel_and_from_a_clone(elsewhere, tmp_path, monkeypatch, place):
    """Lessons, solutions and the lab's runs, without what builds them; never over what is there."""
    home = elsewhere(f"{place}/data_samples").parent
    for name in (
        "notebooks/01.ipynb",
        "notebooks/solutions/01.py",
        "notebooks/ko/handout.pdf",
        "notebooks/source/01.py",
        "results/lab/a.json",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "notebooks" / "build.py").write_text("")
    (home / "README.md").write_text("# minst\n\n## The lessons\n\n| 01 |\n\n## Limits\n\nNone.\n")
    (home / "README.ko.md").write_text("# minst\n\n## 레슨\n\n| 01 |\n\n## 한계\n", encoding="utf-8")
    out, whole = tmp_path / "mine", shutil.copytree

    def stopped(source, *rest, **options):
        if source.name == "results":
            raise KeyboardInterrupt
        return whole(source, *rest, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copytree", stopped)
        samples.write_lessons(out)
    assert list(out.iterdir()) == []  # and so it can be done again
    assert samples.write_lessons(out) == out / "notebooks"
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {
        "README.md",
        "README.ko.md",
        "notebooks/01.ipynb",
        "notebooks/solutions/01.py",
        "notebooks/ko/handout.pdf",
        "results/lab/a.json",
    }
    assert (out / "README.ko.md").read_text(encoding="utf-8") == "# 레슨\n\n| 01 |\n"
    assert (out / "README.md").read_text() == "# The lessons\n\n| 01 |\n"
    (out / "notebooks" / "01.ipynb").write_text("my answers")
    with pytest.raises(FileExistsError, match="notebooks is there already; name another folder"):
        samples.write_lessons(out)
    assert (out / "notebooks" / "01.ipynb").read_text() == "my answers"


# ---------------------------------------------------------------------------- what weights know


def test_shapes_weights_are_out_of_place_on_film_that_nobody_drew(tmp_path, monkeypatch):
    made = write_shapes_dataset(tmp_path / "val", 1, ShapesConfig(width=64, height=48, frames=2)).parent
    foreign = tmp_path / "home"
    (foreign / "JPEGImages" / "cat").mkdir(parents=True)
    (foreign / "annotations.json").write_text('{"info": {"description": "my cats"}, "videos": []}')
    frames = made / "JPEGImages" / "00000"
    ours = ["easy", "crowd", made, frames, frames / "00000.jpg", frames / "*.jpg"]
    ours += [FOLDER / "clips" / "JPEGImages" / "easy", FOLDER / "capstone" / "clip.mp4"]
    photo = FOLDER / "photo" / "JPEGImages" / "chelsea"
    theirs = ["chelsea", "walk", photo, photo / "00003.jpg", FOLDER / "photo", "cats.mp4", "0", 0, "eas", tmp_path, foreign, foreign / "JPEGImages" / "cat", foreign / "cat.mp4"]
    for name in ("shapes-tiny", "shapes-tiny-images"):
        assert [film for film in ours if samples.out_of_place(name, film)] == []
        assert [film for film in theirs if not samples.out_of_place(name, film)] == []
    monkeypatch.chdir(made / "JPEGImages")
    assert not samples.out_of_place("shapes-tiny", "00000")
    # weights of one's own, or that have learned something else, know best
    assert not samples.out_of_place("runs/mine/weights", foreign / "cats.mp4")
    monkeypatch.setattr(samples, "weights_names", lambda: ["photos-tiny", "shapes-tiny"])
    assert samples.out_of_place("shapes-tiny", foreign / "cats.mp4")
    assert not samples.out_of_place("photos-tiny", foreign / "cats.mp4")


def test_one_function_names_the_weights_for_a_film(monkeypatch):
    films = ("easy", FOLDER / "capstone" / "clip.mp4"), ("cats.mp4", 0, "chelsea", FOLDER / "photo")
    shapes = ["shapes-tiny", "shapes-tiny-images"]
    for names in (shapes, ["photos-tiny", *shapes]):
        monkeypatch.setattr(samples, "weights_names", lambda names=names: names)
        assert [samples.weights_for(film) for film in films[0]] == [shapes] * 2
        assert [samples.weights_for(film) for film in films[1]] == [names[: len(names) - 2] or shapes] * 4


def test_weights_say_what_they_know():
    assert samples.weights_classes("shapes-tiny") == list(minst.load_sample("easy").categories)
    with pytest.raises(FileNotFoundError, match="no weights 'none'"):
        samples.weights_classes("none")


def test_the_real_film_its_masks_and_whose_it_is():
    """Somebody walks in from below: all of the dark clothes are in the mask, nothing of the empty wall is."""
    clip = minst.load_sample(samples.FILM)
    assert samples.FILM not in minst.sample_names() and clip.name == samples.FILM
    assert len(clip) == 21 and clip.image(20).shape == (180, 320, 3) and clip.labels.tolist() == [2]
    seen = np.array([clip.masks(t)[0] for t in range(21)])
    dark = np.array([clip.image(t).max(-1) < 40 for t in range(21)])
    dark &= ~dark[0]  # a screen on the wall
    assert seen[0].sum() < seen[3].sum() / 3  # only hair is seen at first
    for t in range(3, 21):
        assert (dark & seen)[t].sum() > 0.9 * dark[t].sum() and seen[t].sum() < 1.4 * dark[t].sum()
        rows = np.flatnonzero(seen[t].any(1))
        assert (np.diff(rows) == 1).all() and not seen[t, :, 250:].any()
    said = json.loads((FOLDER / "photo" / "annotations.json").read_text())
    assert said["licenses"][said["videos"][1]["license"] - 1]["name"] == "CC BY 4.0"
    for words in ("Intel", "CC BY 4.0", "one-by-one-person-detection"):
        assert words in said["info"]["description"] and words in (FOLDER / "README.md").read_text()


def test_shipped_weights_follow_who_walks_in():
    clip, model = minst.load_sample(samples.FILM), minst.MobileInst.from_pretrained("photos-tiny").fuse()
    result = minst.KernelTracker(model).track(clip)
    best = max(result.tracks, key=lambda track: track.score)
    assert model.config.class_names[best.label] == "person"
    assert all(code is not None for code in best.segmentations[6:])


def test_shipped_weights_of_photographs_find_the_cat_of_the_film():
    """Where they ship: she is one cat from the first frame to the last, bar or not."""
    if "photos-tiny" not in samples.weights_names():
        pytest.skip("photos-tiny does not ship yet")
    assert samples.weights_classes("photos-tiny")[0] == "cat"
    clip, model = minst.load_sample(samples.PHOTO), minst.MobileInst.from_pretrained("photos-tiny").fuse()
    result = minst.KernelTracker(model).track(clip)
    best = max(result.tracks, key=lambda track: track.score)
    assert model.config.class_names[best.label] == "cat" and None not in best.segmentations
