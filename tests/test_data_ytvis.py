"""Reading YouTube-VIS folders: what a generated one holds comes back; what is broken is named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_codec

from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip, write_shapes_dataset
from minst.data.files import read_image
from minst.data.ytvis import YouTubeVIS, decode_mask

SMALL = ShapesConfig(width=96, height=72, frames=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ytvis")
    write_shapes_dataset(root, videos=2, config=SMALL, seed=7, split="val")
    return root


def test_a_written_folder_comes_back(folder):
    dataset = YouTubeVIS(folder)
    assert len(dataset) == 2 and dataset.categories == CATEGORIES
    for i in range(2):
        clip, source = dataset[i], shapes_clip("val", i, SMALL, 7)
        assert len(clip) == 5 and (clip.height, clip.width) == (72, 96) and clip.category_ids == dataset.category_ids
        rendered = [source.render(t) for t in range(5)]
        # an instance that is never seen has no track: the rest keep their order
        seen = np.stack([frame.masks for frame in rendered]).any((0, 2, 3))
        assert clip.labels.tolist() == np.asarray(source.labels)[seen].tolist() and clip.labels.dtype == np.int64
        for t, (image, frame) in enumerate(zip(clip, rendered, strict=True)):
            read = clip.render(t)
            assert np.array_equal(read.masks, frame.masks[seen]) and read.masks.dtype == bool
            assert np.array_equal(read.image, image) and image.shape == (72, 96, 3) and image.dtype == np.uint8
            assert np.abs(image.astype(int) - frame.image).mean() < 8  # JPEG
    assert [dataset[i].video["id"] for i in range(2)] == [video["id"] for video in dataset.dataset["videos"]]


def test_annotations_of_one_video_are_a_dataset(folder):
    clip = YouTubeVIS(folder)[1]
    alone = json.loads(json.dumps(clip.annotations()))
    assert [v["id"] for v in alone["videos"]] == [clip.video["id"]] and len(alone["categories"]) == len(CATEGORIES)
    assert len(alone["annotations"]) == len(clip.labels)
    assert {t["video_id"] for t in alone["annotations"]} == {clip.video["id"]}


def test_images_can_be_written_to(folder):
    """torch.from_numpy warns of arrays that cannot."""
    assert YouTubeVIS(folder)[0].image(0).flags.writeable


# ------------------------------------------------------------------------------------------------ masks


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 2**31))
def test_every_encoding_of_a_mask_is_read(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    compressed = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    text = {**compressed, "counts": compressed["counts"].decode()}
    counts, value = [], False  # by hand: lengths of runs down the columns, zeros first
    flat = mask.T.flatten().tolist()
    while flat:
        run = next((i for i, pixel in enumerate(flat) if pixel != value), len(flat))
        counts.append(run)
        flat, value = flat[run:], not value
    for encoding in (compressed, text, {"size": [height, width], "counts": counts}):
        decoded = decode_mask(encoding, height, width)
        assert decoded.dtype == bool and np.array_equal(decoded, mask)


def test_polygons_of_several_parts_and_null():
    mask = decode_mask([[1, 1, 5, 1, 5, 4, 1, 4], [8, 2, 10, 2, 10, 6, 8, 6]], 8, 12)
    expected = np.zeros((8, 12), dtype=bool)
    expected[1:4, 1:5] = expected[2:6, 8:10] = True
    assert np.array_equal(mask, expected)
    for nothing in (None, []):
        assert decode_mask(nothing, 4, 6).shape == (4, 6) and not decode_mask(nothing, 4, 6).any()


def test_a_mask_of_another_size_is_refused():
    for encoding in ({"size": [4, 6], "counts": [24]}, rle_codec.encode(np.zeros((4, 6), dtype=np.uint8, order="F"))):
        with pytest.raises(ValueError, match="4 x 6.*8 x 6"):
            decode_mask(encoding, 8, 6)


# ------------------------------------------------------------------------------------------------ what is broken


def edited(folder, tmp_path, change):
    """The annotation file with a change, beside the same images."""
    dataset = json.loads((folder / "annotations.json").read_text())
    dataset = change(dataset) or dataset
    (tmp_path / "edited.json").write_text(json.dumps(dataset))
    return tmp_path / "edited.json"


@pytest.mark.parametrize("withheld", ["absent", "null", "empty"])
def test_withheld_labels_leave_videos_without_tracks(folder, tmp_path, withheld):
    def change(dataset):
        dataset["annotations"] = {"null": None, "empty": []}.get(withheld)
        if withheld == "absent":
            del dataset["annotations"]

    clip = YouTubeVIS(folder, edited(folder, tmp_path, change))[0]
    assert clip.labels.shape == (0,) and clip.masks(0).shape == (0, 72, 96) and clip.image(4).shape == (72, 96, 3)


def test_sparse_category_ids_become_classes_and_back(folder, tmp_path):
    def change(dataset):
        for category in dataset["categories"]:
            category["id"] = category["id"] * 10 + 3
        dataset["categories"].reverse()
        for track in dataset["annotations"]:
            track["category_id"] = track["category_id"] * 10 + 3

    clip, before = YouTubeVIS(folder, edited(folder, tmp_path, change))[0], YouTubeVIS(folder)[0]
    assert clip.labels.tolist() == [len(CATEGORIES) - 1 - label for label in before.labels]
    assert [clip.category_ids[label] for label in clip.labels] == [t["category_id"] for t in clip.tracks]


def broken(**change):
    def apply(dataset):
        for key, value in change.items():
            if value is None:
                del dataset["annotations"][1][key]
            else:
                dataset["annotations"][1][key] = value

    return apply


@pytest.mark.parametrize("change, message", [
    (broken(video_id=None), r"annotations\[1\] lacks 'video_id'"),
    (broken(category_id=None), r"annotations\[1\] lacks 'category_id'"),
    (broken(segmentations=None), r"annotations\[1\] lacks 'segmentations'"),
    (broken(video_id=99), r"annotations\[1\]: video_id 99"),
    (broken(category_id=99), r"annotations\[1\]: category_id 99"),
    (broken(segmentations=[None]), r"annotations\[1\]: 1 segmentations for 5 frames"),
    (lambda d: d.pop("videos") and None, "no list 'videos'"),
    (lambda d: d.update(categories={}), "no list 'categories'"),
    (lambda d: d["videos"][1].pop("file_names") and None, r"videos\[1\] lacks 'file_names'"),
    (lambda d: d["videos"], "no list 'videos'"),
])  # fmt: skip
def test_a_broken_entry_is_named(folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        YouTubeVIS(folder, edited(folder, tmp_path, change))


def test_missing_and_broken_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="annotations.json"):
        YouTubeVIS(tmp_path)
    (tmp_path / "annotations.json").write_text('{"videos": [}\n')
    with pytest.raises(ValueError, match="annotations.json: broken JSON at line 1, column 13"):
        YouTubeVIS(tmp_path)
    dataset = YouTubeVIS(tmp_path, folder / "annotations.json")  # annotations without their images
    name = dataset[0].video["file_names"][2].rpartition("/")[2]
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        dataset[0].image(2)


def test_every_usual_place_of_the_file(folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text((folder / "annotations.json").read_text())
    assert len(YouTubeVIS(tmp_path)) == 2


def test_images_that_are_none_or_of_another_size(folder, tmp_path):
    whole = (folder / "JPEGImages" / YouTubeVIS(folder)[0].video["file_names"][0]).read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(ValueError, match="bad.jpg: not a readable image"):
            read_image(tmp_path / "bad.jpg")

    clip = YouTubeVIS(folder)[0]
    clip.root = tmp_path
    path = tmp_path / "JPEGImages" / clip.video["file_names"][3]
    path.parent.mkdir(parents=True)
    Image.new("RGB", (96, 70)).save(path)
    with pytest.raises(ValueError, match=f"{path.name}: 96x70, its video says 96x72"):
        clip.image(3)
    Image.new("L", (96, 72), 9).save(path)  # grey images become three equal channels
    assert clip.image(3).shape == (72, 96, 3)
