"""The contact sheet: which videos, frames and images, where they stand, and what is drawn on them."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minst.cli import main
from minst.data.coco import COCO
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.visualize import preview_dataset
from minst.visualize.masks import color_of


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_shapes_dataset(
        folder, videos=5, config=ShapesConfig(width=96, height=72, frames=7), seed=7
    )
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve images of four sizes, in one folder and one file."""
    folder, whole = tmp_path_factory.mktemp("images"), None
    for n, (width, height) in enumerate([(96, 72), (72, 128), (256, 64), (64, 64)]):
        part = folder / f"part{n}"
        config = ShapesConfig(width=width, height=height, frames=2)
        data = json.loads(
            write_shapes_dataset(part, videos=3, config=config, seed=n, images=True).read_text()
        )
        for entry in (*data["images"], *data["annotations"]):
            entry["id"] += 100 * n
        for image in data["images"]:
            image["file_name"] = f"../part{n}/images/{image['file_name']}"[3:]
        for annotation in data["annotations"]:
            annotation["image_id"] += 100 * n
        if whole:
            whole["images"] += data["images"]
            whole["annotations"] += data["annotations"]
        whole = whole or data
    (folder / "annotations.json").write_text(json.dumps(whole))
    return folder


def pictures(fig):
    """[(pixels or None, words below, red words, box in inches)] of every frame of a sheet."""
    width, height = fig.get_size_inches()
    rows = []
    for axes in fig.axes:
        box = axes.get_position()
        red = [t.get_text() for t in axes.texts[:-1]]
        shown = np.asarray(axes.images[0].get_array()) if axes.images else None
        place = (box.x0 * width, (1 - box.y1) * height, box.width * width, box.height * height)
        rows.append((shown, axes.texts[-1].get_text(), red, place))
    return rows


def assert_tidy(fig):
    """Everything within the sheet, and no two frames on top of one another."""
    places = [place for *_, place in pictures(fig)]
    width, height = fig.get_size_inches()
    for i, (x, y, w, h) in enumerate(places):
        assert x >= 0 and y >= 0.6 and x + w <= width + 1e-6 and y + h <= height
        for other in places[:i]:
            apart_x = x >= other[0] + other[2] or other[0] >= x + w
            apart_y = y >= other[1] + other[3] or other[1] >= y + h
            assert apart_x or apart_y


def test_videos_are_rows_of_frames(videos):
    fig = preview_dataset(videos)
    assert_tidy(fig)
    rows = {}
    for shown, words, red, place in pictures(fig):
        rows.setdefault(round(place[1], 3), []).append((shown, words, place))
        assert red == [] and shown.shape[1] / shown.shape[0] == pytest.approx(96 / 72, rel=0.02)
    assert len(rows) == 5
    for row in rows.values():
        frames = [int(words.removeprefix("frame ")) for _, words, _ in row]
        assert (
            frames[0] == 0
            and frames[-1] == 6
            and frames == sorted(set(frames))
            and len(frames) == 5
        )
    said = [t.get_text() for t in fig.texts]
    dataset = YouTubeVIS(videos)
    assert f"{int(dataset.track_counts.sum())} instances" in fig.alt and "All 5 videos" in fig.alt
    for clip in dataset:
        assert clip.name in said
        assert all(
            f"{i + 1} {clip.categories[label]}" in said for i, label in enumerate(clip.labels)
        )
    assert "7 frames, 96x72" in said


def test_a_colour_is_an_identity(videos):
    """Where a mask alone covers a place, the colour of its number is mixed in: nearer to it than the frame was."""
    clip = YouTubeVIS(videos)[0]
    shown = pictures(preview_dataset(videos))[0][0].astype(float)
    height, width = shown.shape[:2]
    frame = np.asarray(Image.fromarray(clip.image(0)).resize((width, height))).astype(float)
    seen = 0
    for i, mask in enumerate(clip.masks(0)):
        inner = np.asarray(Image.fromarray(mask).resize((width, height)))
        if inner.sum() > 500:
            before, after = (
                np.abs(a[inner].mean(0) - color_of(i + 1)).sum() for a in (frame, shown)
            )
            assert after < before
            seen += 1
    assert seen


def test_a_choice_is_spread_over_the_data_set(videos):
    fig = preview_dataset(videos, count=3)
    said = [t.get_text() for t in fig.texts]
    names = [clip.name for clip in YouTubeVIS(videos)]
    assert [name in said for name in names] == [
        True,
        False,
        True,
        False,
        True,
    ] and "3 of 5 videos" in fig.alt


def test_portrait_videos_have_more_frames(tmp_path):
    write_shapes_dataset(
        tmp_path, videos=1, config=ShapesConfig(width=72, height=128, frames=12), seed=1
    )
    fig = preview_dataset(tmp_path)
    assert_tidy(fig)
    assert len(fig.axes) == 11 and "All 1 video " in fig.alt


def test_images_of_many_sizes_keep_their_shape(images):
    fig = preview_dataset(images)
    assert_tidy(fig)
    shown, sizes = pictures(fig), {}
    assert len(shown) == 12 and "All 12 images" in fig.alt
    for clip, (picture, words, red, place) in zip(COCO(images), shown, strict=True):
        assert red == [] and place[2] / place[3] == pytest.approx(clip.width / clip.height)
        assert (
            words.endswith("…")
            or words == f"{Path(clip.video['file_names'][0]).name}, {clip.width}x{clip.height}"
        )
        sizes.setdefault(round(place[1], 3), []).append(place)
    for row in sizes.values():
        assert all(p[3] <= 1.68 + 1e-6 for p in row)
        assert row[-1][0] + row[-1][2] <= fig.get_figwidth() - 0.12 + 1e-6


def test_frames_without_labels(videos, tmp_path):
    data = json.loads((videos / "annotations.json").read_text())
    del data["annotations"]
    (tmp_path / "test.json").write_text(json.dumps(data))
    fig = preview_dataset(videos, annotations=tmp_path / "test.json")
    shown = pictures(fig)[0][0]
    frame = Image.fromarray(YouTubeVIS(videos)[0].image(0)).resize(
        shown.shape[1::-1], Image.Resampling.LANCZOS
    )
    assert np.array_equal(shown, np.asarray(frame)) and "withheld" in fig.alt


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_read_is_said_and_hides_nothing_else(videos, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(videos, folder)
    data = json.loads((folder / "annotations.json").read_text())
    (folder / "JPEGImages/00000/00000.jpg").write_bytes(b"")
    (folder / "JPEGImages/00001").rename(folder / "JPEGImages/$\\frac$ 日本")
    for t, name in enumerate(data["videos"][1]["file_names"]):
        data["videos"][1]["file_names"][t] = name.replace("00001/", "$\\frac$ 日本/")
    data["annotations"][-1]["segmentations"] = [{"size": [1, 1], "counts": [1]}] * 7
    (folder / "annotations.json").write_text(json.dumps(data))
    fig = preview_dataset(folder)
    fig.png()  # no formula is set from a name with dollars
    bad = [red[0] for shown, _, red, _ in pictures(fig) if shown is None]
    assert (
        len(bad) == 1 + 5 and "00000.jpg" in bad[0].replace("\n", "") and str(folder) not in bad[0]
    )
    assert "1 x 1" in bad[-1].replace("\n", " ")


def test_what_is_refused(videos, tmp_path):
    with pytest.raises(ValueError, match="count is 0"):
        preview_dataset(videos, count=0)
    with pytest.raises(FileNotFoundError):
        preview_dataset(tmp_path)
    (tmp_path / "annotations.json").write_text(
        '{"videos": [], "categories": [{"id": 1, "name": "a"}]}'
    )
    with pytest.raises(ValueError, match="no videos"):
        preview_dataset(tmp_path)
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(ValueError, match="annotations.json"):
        preview_dataset(tmp_path)


def test_the_command(videos, images, tmp_path):
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()) as err:
        assert (
            main(
                [
                    "data",
                    "preview",
                    str(videos),
                    "--videos",
                    "1",
                    "--out",
                    str(tmp_path / "sheet.png"),
                ]
            )
            == 0
        )
        assert main(["data", "preview", str(images), "--out", str(tmp_path / "sheet.pdf")]) == 0
        assert main(["data", "preview", str(tmp_path)]) == 2
    assert "sheet.png" in out.getvalue() and err.getvalue().startswith("minst: ")
    assert (
        Image.open(tmp_path / "sheet.png").width == 1410
        and (tmp_path / "sheet.pdf").stat().st_size > 5000
    )
