"""Every layout in use is found by the names of its files; what is looked for is said when there is none."""

import pytest

from minst.data.coco import COCO
from minst.data.layouts import find_annotations, find_images, split_of
from minst.data.ytvis import YouTubeVIS

# the annotation file, one image, the split that is asked for
LAYOUTS = {
    "ours, whole": ("annotations.json", "JPEGImages/a/00000.jpg", None),
    "ours, a split": ("val/annotations.json", "val/JPEGImages/a/00000.jpg", "val"),
    "ours, files of splits": ("val.json", "JPEGImages/a/00000.jpg", "val"),
    "YouTube-VIS 2019": ("train.json", "train/JPEGImages/a/00000.jpg", "train"),
    "YouTube-VIS 2019, sub": (
        "annotations/instances_train_sub.json",
        "train/JPEGImages/a/00000.jpg",
        "train",
    ),
    "YouTube-VIS 2019, mm": (
        "annotations/youtube_vis_2019_valid.json",
        "valid/JPEGImages/a/00000.jpg",
        "valid",
    ),
    "YouTube-VIS 2021": ("valid/instances.json", "valid/JPEGImages/a/00000.jpg", "valid"),
    "OVIS": ("annotations_train.json", "train/a/img_0000001.jpg", "train"),
    "OVIS, in a folder": ("annotations/annotations_valid.json", "valid/a/img_0000001.jpg", "valid"),
    "OVIS, all images": ("annotations_test.json", "images/a/img_0000001.jpg", "test"),
    "COCO": ("annotations/instances_train2017.json", "train2017/a/9.jpg", "train"),
    "COCO by its own name": ("annotations/instances_val2017.json", "val2017/a/9.jpg", "val2017"),
    "COCO 2014": ("annotations/instances_val2014.json", "val2014/a/9.jpg", "val"),
    "Roboflow": ("valid/_annotations.coco.json", "valid/a/9.jpg", "valid"),
    "Roboflow, one folder": ("_annotations.coco.json", "a/9.jpg", None),
    "CVAT": ("annotations/instances_default.json", "images/a/9.jpg", None),
    "CVAT, subset": ("annotations/instances_default.json", "images/default/a/9.jpg", None),
    "COCO in images": ("annotations/instances_val2017.json", "images/val2017/a/9.jpg", "val"),
    "COCO test-dev": ("annotations/image_info_test-dev2017.json", "test2017/a/9.jpg", "test-dev"),
    "one folder": ("annotations/instances.json", "a/1.jpg", None),
    "instances": ("instances.json", "images/a/1.jpg", None),
}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found(tmp_path, layout):
    annotations, image, split = LAYOUTS[layout]
    name = "/".join(image.split("/")[-2:])
    # a data set beside it, of another split, must not be taken for it
    make(
        tmp_path,
        annotations,
        image,
        "train/JPEGImages/other/1.jpg",
        "JPEGImages/other/1.jpg",
        "test/b/1.jpg",
    )
    assert find_annotations(tmp_path, split) == tmp_path / annotations
    assert find_images(tmp_path, split, name) / name == tmp_path / image
    if "test-dev" not in layout:  # without a split the same file is found, and says which it is
        assert find_annotations(tmp_path) == tmp_path / annotations
        found = split_of(tmp_path, tmp_path / annotations)
        assert (
            found == (split and split.rstrip("2017"))
            and find_images(tmp_path, found, name) / name == tmp_path / image
        )


def test_val_is_valid_and_train_comes_first(tmp_path):
    make(tmp_path, "valid.json", "test.json")
    assert (
        find_annotations(tmp_path, "val") == find_annotations(tmp_path) == tmp_path / "valid.json"
    )
    make(tmp_path, "train/instances.json")
    assert find_annotations(tmp_path) == tmp_path / "train/instances.json"
    make(tmp_path, "val.json")
    assert find_annotations(tmp_path, "val") == tmp_path / "val.json"
    make(tmp_path, "annotations.json")
    with pytest.raises(FileNotFoundError):
        find_annotations(tmp_path, "tuning")  # the whole is no part
    assert find_annotations(tmp_path, "val") == tmp_path / "val.json"
    assert (
        find_annotations(tmp_path) == tmp_path / "annotations.json"
    )  # what holds all comes before a part


def test_splits_with_the_same_names_do_not_mix(tmp_path):
    make(tmp_path, "train/JPEGImages/a/1.jpg", "valid/JPEGImages/a/1.jpg")
    for split in ("train", "valid"):
        assert find_images(tmp_path, split, "a/1.jpg") == tmp_path / split / "JPEGImages"


def test_what_was_looked_for_is_said(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none of val\.json, val/instances\.json.*instances_val2017\.json"
    ):
        find_annotations(tmp_path, "val")
    with pytest.raises(
        FileNotFoundError, match=r"annotations\.json.*SPLIT is train, valid, val, test"
    ):
        find_annotations(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_annotations(tmp_path / "nowhere")
    make(tmp_path, "my.json")
    with pytest.raises(FileNotFoundError, match="my.json: a file, not the folder"):
        find_annotations(tmp_path / "my.json")
    with pytest.raises(ValueError, match="annotations="):
        find_annotations(tmp_path, tmp_path / "my.json")


def test_a_missing_image_is_looked_for_in_the_first_folder_there(tmp_path):
    make(tmp_path, "train/JPEGImages/a/1.jpg")
    assert find_images(tmp_path, "train", "b/1.jpg") == tmp_path / "train" / "JPEGImages"
    assert find_images(tmp_path / "nowhere", None, "b/1.jpg") == tmp_path / "nowhere" / "JPEGImages"


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "a/../../x.jpg", r"..\x.jpg", r"C:\x.jpg", "", "a\0b"]
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    make(tmp_path, "secret.jpg", "data/train/1.jpg")
    with pytest.raises(ValueError):
        find_images(tmp_path / "data", "train", name)


def test_loops_of_links_end(tmp_path):
    (tmp_path / "annotations.json").symlink_to("annotations.json")
    (tmp_path / "train").symlink_to("train")
    with pytest.raises(FileNotFoundError, match="none of"):
        find_annotations(tmp_path)
    assert find_images(tmp_path, "train", "train/1.jpg") == tmp_path
    for reader in (YouTubeVIS, COCO):
        with pytest.raises(OSError, match="annotations.json"):
            reader(tmp_path, annotations=tmp_path / "annotations.json")


def test_names_that_are_not_ascii(tmp_path):
    make(tmp_path, "наборы/обучение.json", "наборы/обучение/猫/ä 1.jpg")
    assert find_annotations(tmp_path / "наборы", "обучение").name == "обучение.json"
    assert find_images(tmp_path / "наборы", "обучение", "猫/ä 1.jpg").name == "обучение"
