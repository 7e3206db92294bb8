"""Reading COCO folders: a hand-written one, any random one, and what is no COCO."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_codec

import minst
from minst.data.coco import COCO
from minst.data.ytvis import YouTubeVIS

SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]  # pixels (1, 1) to (2, 2)


def truth():
    """Two images of 6 x 4 and 5 x 3, one without annotations between them; categories with gaps, in no order."""
    return {
        "info": {"year": 2017},
        "annotations": [  # before the images, as some tools write them
            {
                "id": 11,
                "image_id": 9,
                "category_id": 90,
                "segmentation": SQUARE,
                "area": 4.0,
                "bbox": [1, 1, 2, 2],
            },
            {
                "id": 7,
                "image_id": 3,
                "category_id": 0,
                "segmentation": None,
                "iscrowd": 0,
                "bbox": [-3, -1, -2, 0],
            },
            {
                "id": 8,
                "image_id": 9,
                "category_id": 0,
                "iscrowd": 1,
                "segmentation": {"size": [4, 6], "counts": [23, 1]},
            },
            {
                "id": 9,
                "image_id": 9,
                "category_id": 18,
                "segmentation": {"size": [4, 6], "counts": "0h0"},
            },
        ],
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "width": 6, "height": 4},
            {"id": 5, "file_name": "名 5.jpg", "width": 6, "height": 4},
            {"id": 3, "file_name": "3.png", "width": 5, "height": 3},
        ],
        "categories": [
            {"id": 90, "name": "brush"},
            {"id": 0, "name": "nothing"},
            {"id": 18, "name": "Hund"},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    write(tmp_path, truth())
    for image in truth()["images"]:
        Image.new("RGB", (image["width"], image["height"]), (9, 9, 9)).save(
            tmp_path / "train2017" / image["file_name"]
        )
    return tmp_path


def write(folder, dataset):
    path = folder / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(dataset, ensure_ascii=False), encoding="utf-8")


def test_a_hand_written_folder(folder):
    dataset = minst.data.COCO(folder, "train")
    assert (
        isinstance(dataset, COCO)
        and len(dataset) == 3
        and dataset.track_counts.tolist() == [3, 0, 1]
    )
    assert dataset.categories == ("brush", "nothing", "Hund") and dataset.category_ids == [
        90,
        0,
        18,
    ]
    clip = dataset[0]
    assert len(clip) == 1 and clip.name == "9" and (clip.height, clip.width) == (4, 6)
    assert clip.labels.tolist() == [0, 1, 2] and clip.crowd.tolist() == [False, True, False]
    masks = clip.masks(0)
    square, corner = np.zeros((2, 4, 6), dtype=bool)
    square[1:3, 1:3] = corner[3, 5] = True
    assert np.array_equal(
        masks, [square, corner, np.ones((4, 6))]
    )  # "0h0": no background, 24 pixels
    for i in range(3):
        assert (
            dataset[i].image(0).shape == (dataset[i].height, dataset[i].width, 3)
            and dataset[i].image(0).max() == 9
        )
    assert (
        dataset[1].masks(0).shape == (0, 4, 6)
        and dataset[2].masks(0).tolist() == np.zeros((1, 3, 5)).tolist()
    )


def test_an_image_is_a_video_of_one_frame(folder):
    clip = COCO(folder)[0]
    (folder / "video.json").write_text(json.dumps(clip.annotations()))
    again = YouTubeVIS(folder, "train", annotations=folder / "video.json")[0]
    assert np.array_equal(again.render(0).masks, clip.masks(0)) and np.array_equal(
        again.image(0), clip.image(0)
    )
    assert (
        again.labels.tolist() == clip.labels.tolist()
        and again.crowd.tolist() == clip.crowd.tolist()
    )
    track = clip.tracks[0]
    assert (
        track["areas"] == [4.0]
        and track["bboxes"] == [[1, 1, 2, 2]]
        and "segmentation" not in track
    )


@pytest.mark.parametrize("withheld", ["absent", "null", "empty"])
def test_withheld_labels(folder, withheld):
    dataset = truth()
    dataset["annotations"] = {"null": None, "empty": []}.get(withheld)
    if withheld == "absent":
        del dataset["annotations"]
    write(folder, dataset)
    assert [len(clip.labels) for clip in COCO(folder)] == [0, 0, 0] and COCO(folder)[0].masks(
        0
    ).shape == (0, 4, 6)


def broken(i=3, **change):
    def apply(dataset):
        dataset["annotations"][i] = {**dataset["annotations"][i], **change}
        for key in [key for key, value in change.items() if value is ...]:
            del dataset["annotations"][i][key]

    return apply


@pytest.mark.parametrize("change, message", [
    (broken(image_id=...), r"annotations\[3\]: lacks `image_id`"),
    (broken(image_id=4), r"annotations\[3\]: image_id 4 is not among the images"),
    (broken(category_id=...), r"annotations\[3\]: lacks `category_id`"),
    (broken(category_id=1), r"annotations\[3\]: category_id 1 is not among the categories"),
    (broken(category_id=None), r"annotations\[3\]\.category_id: expected `int`, got `null`"),
    (broken(segmentation=...), r"annotations\[3\]: lacks `segmentation`"),
    (broken(id=7), r"annotations\[3\]: id 7 is that of annotations\[1\], too"),
    (lambda d: d["images"][1].pop("file_name"), r"images\[1\]: lacks `file_name`"),
    (lambda d: d["images"][1].update(id=9), r"images\[1\]: id 9 is that of images\[0\], too"),
    (lambda d: d["images"][2].update(height=-3), r"images\[2\]\.height: expected `int` >= 1"),
    (lambda d: d.pop("images"), "no list 'images'; at its top stand 'info', 'annotations', 'categories'"),
    (lambda d: d.update(videos=d.pop("images")), "no list 'images'; it looks like a YouTube-VIS file"),
    (lambda d: d.update(annotations=[{"id": 1, "video_id": 1}]), r"\[0\]: lacks `image_id`"),
    (lambda d: d.update(categories=None), "categories: expected `array`, got `null`"),
    (lambda d: d["categories"].pop(1), r"annotations\[1\]: category_id 0 is not among the categories"),
])  # fmt: skip
def test_what_is_broken_is_named(folder, change, message):
    dataset = truth()
    change(dataset)
    write(folder, dataset)
    with pytest.raises(ValueError, match=message) as refused:
        COCO(folder)
    assert "instances_train2017.json: " in str(refused.value)


def test_broken_masks_and_images_are_named_when_their_turn_comes(folder):
    dataset = truth()
    dataset["annotations"][2]["segmentation"]["counts"] = [23, 2]
    dataset["images"][1]["file_name"] = "../../secret.jpg"
    write(folder, dataset)
    (folder / "train2017" / "000000000009.jpg").write_bytes(b"")
    Image.new("RGB", (3, 5)).save(folder / "train2017" / "3.png")
    dataset = COCO(folder)
    with pytest.raises(
        ValueError, match="2017.json: annotation of id 8, frame 0: .*covers 25 pixels of 24"
    ):
        dataset[0].masks(0)
    with pytest.raises(ValueError, match="000000000009.jpg: not a readable image"):
        dataset[0].image(0)
    with pytest.raises(ValueError, match="leads out of the data set"):
        dataset[1].image(0)
    with pytest.raises(ValueError, match="3.png: 3x5, its record says 5x3"):
        dataset[2].image(0)


@given(
    sizes=st.dictionaries(
        st.integers(0, 2**40), st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=4
    ),
    categories=st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_any_data_set_comes_back_in_any_order(tmp_path_factory, sizes, categories, order):
    images = [
        {"id": i, "file_name": f"å{i}.jpg", "height": h, "width": w} for i, (h, w) in sizes.items()
    ]
    annotations, masks = [], {}
    for i in range(order.randrange(6) if images else 0):
        image = order.choice(images)
        mask = np.array(
            [[order.random() < 0.5 for _ in range(image["width"])] for _ in range(image["height"])]
        )
        encoded = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
        rle = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        entry = {
            "id": 50 - i,
            "image_id": image["id"],
            "category_id": order.choice(categories),
            "segmentation": rle,
        }
        annotations.append(dict(order.sample([*entry.items(), ("iscrowd", i % 2)], 5)))
        masks[50 - i] = mask
    lists = {
        "images": images,
        "annotations": annotations,
        "categories": [{"name": "x", "id": c} for c in categories],
    }
    file = tmp_path_factory.getbasetemp() / "any_coco.json"
    file.write_text(json.dumps(dict(order.sample(list(lists.items()), 3))), encoding="utf-8")
    for dataset in (read := COCO(file.parent, annotations=file), pickle.loads(pickle.dumps(read))):
        assert dataset.dataset == lists and len(dataset) == len(images)
        for clip, image in zip(dataset, images, strict=True):
            expected = [entry for entry in annotations if entry["image_id"] == image["id"]]
            assert clip.video == {**image, "file_names": [image["file_name"]], "length": 1}
            assert [track["id"] for track in clip.tracks] == [entry["id"] for entry in expected]
            assert [clip.category_ids[label] for label in clip.labels] == [
                e["category_id"] for e in expected
            ]
            assert clip.crowd.tolist() == [bool(entry["iscrowd"]) for entry in expected]
            assert all(
                np.array_equal(m, masks[e["id"]])
                for m, e in zip(clip.masks(0), expected, strict=True)
            )


def test_names_of_the_package():
    assert (
        minst.data.COCO is COCO
        and minst.data.YouTubeVIS is YouTubeVIS
        and minst.data.layouts.find_images
    )
    from minst.data import files, read_video, write_shapes_dataset

    assert files.inside and callable(read_video) and callable(write_shapes_dataset)
    assert {"COCO", "YouTubeVIS", "read_video"} <= set(dir(minst.data))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        minst.data.nonsense
    with pytest.raises(ImportError):
        from minst.data import nonsense  # noqa: F401
