"""Converters: one tiny clip, written by hand in five formats, gives the same masks; there and back; bad input."""

import base64
import hashlib
import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_codec

from minst.cli import main
from minst.labels.convert import FORMATS, convert, guess_format, to_indexed_png
from minst.labels.convert.davis import palette
from minst.data.video import write_mp4
from minst.data.ytvis import YouTubeVIS

HERE = Path(__file__).parent / "data" / "convert"
NAMES = ("f8", "f9", "f10")
OF_CVAT = ("f08", "f09", "f10")

# The clip that the files in tests/data/convert hold: 4 rows, 6 columns, a car that leaves and a pedestrian that stays.
# Down the columns, zeros first: the car [5, 2, 2, 1, 14] and [9, 2, 2, 1, 10], the pedestrian [18, 2, 2, 2]. As text a
# number below 16 is the character 48 + n, 18 is "b0", and from the fourth on stands the difference to the last but one:
# 5, 2, 2, 1 - 2, 14 - 2 = "522O<"; 9, 2, 2, -1, 8 = "922O8"; "b0220".
CLIP = (
    """
    ......
    .aa...
    .a..bb
    ....bb
    """,
    """
    ......
    ..aa..
    ..a.bb
    ....bb
    """,
    """
    ......
    ......
    ....bb
    ....bb
    """,
)


def masks_of(picture, letters="ab"):
    """(n, H, W) bool of a picture in letters."""
    pixels = np.array([list(line) for line in picture.split()])
    return np.stack([pixels == letter for letter in letters])


def write_images(folder, names=NAMES, suffix=".jpg", size=(6, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", size, (40 * i, 90, 200)).save(folder / f"{name}{suffix}")


def png(folder, name, array, mode=None):
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array, mode)
    if mode == "P":
        image.putpalette(palette())
    image.save(folder / f"{name}.png")


def source_of(kind, folder):
    """The clip in one of the formats, with its images."""
    if kind == "coco":
        write_images(folder / "images" / "clip")
        (folder / "annotations").mkdir()
        shutil.copy(HERE / "coco.json", folder / "annotations" / "instances.json")
    elif kind == "labelme":
        shutil.copytree(HERE / "labelme", folder, dirs_exist_ok=True)
        write_images(folder)
    elif kind == "cvat":  # which numbers images in the order of their characters
        write_images(folder / "images", OF_CVAT)
        shutil.copy(HERE / "cvat.xml", folder / "annotations.xml")
    elif kind == "mots":  # KITTI's layout
        write_images(folder / "training" / "image_02" / "0003", suffix=".png")
        (folder / "instances_txt").mkdir()
        shutil.copy(HERE / "mots.txt", folder / "instances_txt" / "0003.txt")
    elif kind == "mots png":
        write_images(folder / "images" / "0003")
        for name, picture in zip(NAMES, CLIP):
            a, b = masks_of(picture)
            png(folder / "instances" / "0003", name, (a * 1001 + b * 2001).astype(np.uint16))
    elif kind == "davis":
        write_images(folder / "JPEGImages" / "480p" / "clip")
        for name, picture in zip(NAMES, CLIP):
            a, b = masks_of(picture)
            png(
                folder / "Annotations" / "480p" / "clip",
                name,
                (a * 1 + b * 4).astype(np.uint8),
                "P",
            )
        objects = {
            "1": {"category": "car", "frames": ["f8", "f9"]},
            "4": {"category": "pedestrian", "frames": ["f8"]},
        }
        (folder / "meta.json").write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    return folder


KINDS = ("coco", "labelme", "cvat", "mots", "mots png", "davis")


def converted(source, out, **options):
    return YouTubeVIS(convert(source, out, **options).parent)


def assert_masks(clip, *pictures, letters="ab"):
    assert len(clip) == len(pictures)
    for t, picture in enumerate(pictures):
        assert np.array_equal(clip.masks(t), masks_of(picture, letters)), (
            t,
            clip.masks(t).astype(int),
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_clip_out_of_every_format(kind, tmp_path):
    source, said = source_of(kind, tmp_path / "in"), []
    dataset = converted(source, tmp_path / "out", progress=said.append)
    (clip,) = dataset
    assert_masks(clip, *CLIP)
    assert dataset.categories == ("car", "pedestrian") and dataset.category_ids == [1, 2]
    assert clip.labels.tolist() == [0, 1] and not clip.crowd.any()
    assert said[0] == f"format: {kind.split()[0]}"
    assert said[1].startswith("guessed: ")
    suffix = ".png" if kind == "mots" else ".jpg"
    names = OF_CVAT if kind == "cvat" else NAMES
    assert [Path(n).name for n in clip.video["file_names"]] == [n + suffix for n in names]
    images = sorted(
        p for p in source.rglob(f"*{suffix}") if p.parts[-2] in ("clip", "in", "images", "0003")
    )
    images = [p for p in images if "instances" not in p.parts]
    for path in images:  # byte for byte
        name = clip.video["file_names"][0].rpartition("/")[0]
        assert (
            tmp_path / "out" / "JPEGImages" / name / path.name
        ).read_bytes() == path.read_bytes()
    car, pedestrian = clip.tracks
    assert car["areas"] == [3, 3, None] and pedestrian["areas"] == [4, 4, 4]
    assert (
        car["bboxes"] == [[1, 1, 2, 2], [2, 1, 2, 2], None]
        and pedestrian["bboxes"] == [[4, 2, 2, 2]] * 3
    )
    assert (car["id"], pedestrian["id"], clip.video["id"]) == (1, 2, 1) and len(images) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in",
        "out",
    ]  # nothing of the unfinished folder is left


def digest(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*.*")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_source_gives_the_same_files(kind, tmp_path):
    source = source_of(kind, tmp_path / "in")
    for out in ("a", "b"):
        convert(source, tmp_path / out)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_and_there_again(kind, tmp_path):
    before = converted(source_of(kind, tmp_path / "in"), tmp_path / "a")
    said = []
    to_indexed_png(tmp_path / "a", tmp_path / "b", progress=said.append)
    after = converted(tmp_path / "b", tmp_path / "c")
    assert said == [] and after.categories == before.categories
    (video,) = json.loads((tmp_path / "b" / "meta.json").read_text())["videos"].values()
    names = OF_CVAT if kind == "cvat" else NAMES
    assert [objects["frames"] for objects in video["objects"].values()] == [
        [*names[:2]],
        [*names],
    ]
    (tmp_path / "a" / "JPEGImages" / before[0].video["file_names"][1]).write_bytes(b"")
    with pytest.raises(ValueError, match="f0?9.*: not a readable image"):
        to_indexed_png(tmp_path / "a", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    for mine, theirs in zip(after, before, strict=True):
        assert mine.annotations() == theirs.annotations()


# ------------------------------------------------------------------------------------------------ COCO


def coco_with(tmp_path, change):
    source = source_of("coco", tmp_path / "in")
    file = source / "annotations" / "instances.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return source


@pytest.mark.parametrize("place", ["track_id", "attributes", "frame_index", "names alone", "text"])
def test_track_ids_and_frames_as_other_tools_write_them(tmp_path, place):
    def change(data):
        for a in data["annotations"]:
            identity = a.pop("instance_id")
            if place == "attributes":  # CVAT
                a["attributes"] = {"occluded": False, "keyframe": True, "track_id": identity}
            else:
                a["track_id"] = f"id {identity}" if place == "text" else identity
        for image in data["images"]:
            number = image.pop("frame_id")
            if place == "frame_index":  # TAO
                image["frame_index"] = 100 - number  # against the order of names
            elif place in ("names alone", "attributes"):
                del image["video_id"]
                image["file_name"] = image["file_name"].replace("/", "\\")
            else:
                image["frame_id"] = number

    (clip,) = converted(coco_with(tmp_path, change), tmp_path / "out")
    assert_masks(clip, *(CLIP[::-1] if place == "frame_index" else CLIP))
    assert clip.name == "clip"


def test_coco_crowd_and_what_is_drawn_from_boxes(tmp_path):
    def change(data):
        data["annotations"][4][key] = True

    for key in ("ignore", "iscrowd"):
        said, out = [], tmp_path / key / "out"
        (clip,) = converted(coco_with(tmp_path / key, change), out, progress=said.append)
        assert clip.crowd.tolist() == [False, True]
    assert said[::2] == ["format: coco", "lost: 1 boxes without a mask became filled rectangles"]
    assert json.loads((out / "annotations.json").read_text())["info"]["lost"] == {
        said[2].removeprefix("lost: 1 "): 1
    }


def test_masks_without_a_pixel(tmp_path):
    def change(data):
        for i in (0, 3, 4):
            data["annotations"][i]["segmentation"] = {"size": [4, 6], "counts": [24]}
        data["annotations"][2]["segmentation"] = [[7, 1, 9, 1, 9, 3]]  # right of the frame

    said = []
    (clip,) = converted(coco_with(tmp_path, change), tmp_path / "out", progress=said.append)
    assert said[::2] == ["format: coco", "lost: 1 instances that no frame shows"]
    assert clip.labels.tolist() == [0] and clip.tracks[0]["areas"] == [None, 3, None]


def test_two_videos_of_one_name_and_names_with_folders(tmp_path):
    def change(data):
        data["videos"] = [{"id": 7, "name": "a/clip"}, {"id": 8, "name": name}]
        data["images"][0]["video_id"] = 8

    for name, message in (("a/clip", "two videos are called a-clip"), ("b/clip", None)):
        source = coco_with(tmp_path / name, change)
        if message:
            assert_refused(source, tmp_path / name / "out", message)
        else:
            assert [clip.name for clip in converted(source, tmp_path / name / "out")] == [
                "a-clip",
                "b-clip",
            ]


def setting(where, key, value):
    """A change of data[where[0]][where[1]][key]; None takes the key away."""

    def change(data):
        entry = data[where[0]][where[1]]
        entry.pop(key, None) if value is None else entry.update({key: value})

    return change


@pytest.mark.parametrize("change, message", [
    (lambda d: d.pop("images") and None, "instances.json: no list 'images'"),
    (lambda d: d.update(annotations={}), "annotations: expected `array | null`, got `object`"),
    (setting(("annotations", 1), "instance_id", None), r"annotations\[1\]: no track_id, instance_id"),
    (setting(("annotations", 3), "image_id", 12), r"annotations\[3\]: track 10 has another annotation in the same fr"),
    (setting(("annotations", 4), "category_id", 5), r"annotations\[4\]: track 10 is a car here, a pedestrian before"),
    (setting(("annotations", 2), "category_id", 99), r"annotations\[2\]: category_id 99"),
    (setting(("annotations", 2), "image_id", 99), r"annotations\[2\]: image_id 99"),
    (setting(("annotations", 2), "image_id", None), r"annotations\[2\]: lacks `image_id`"),
    (setting(("annotations", 0), "segmentation", {"size": [6, 4], "counts": "522O<"}), r"annotations\[0\]: .*6 x 4"),
    (setting(("annotations", 0), "segmentation", {"size": [4, 6], "counts": "522"}), r"annotations\[0\]: .* covers 9"),
    (setting(("annotations", 0), "segmentation", [[1, 1, 2, 2]]), r"annotations\[0\]: .*three points"),
    (setting(("annotations", 0), "segmentation", [["a"] * 6]), r"annotations\[0\]: polygon 0"),
    (setting(("annotations", 0), "segmentation", 5), r"annotations\[0\]: a mask must be"),
    (setting(("annotations", 3), "bbox", [1, 2]), r"annotations\[3\]"),
    (setting(("annotations", 3), "bbox", None), r"annotations\[3\]: without a segmentation; bbox: expected `array`, got `null`"),
    (setting(("images", 1), "id", True), r"images\[1\]\.id: expected `int`, got `bool`"),
    (setting(("images", 1), "id", 31), r"images\[1\]: id 31 is that of images\[0\], too"),
    (setting(("images", 1), "frame_id", "one"), r"images\[1\]"),
    (setting(("images", 1), "height", 5), r"images\[\d\]: its size"),
    (setting(("images", 1), "file_name", "../f8.jpg"), "leads out of the data set"),
    (setting(("images", 1), "file_name", "/etc/f8.jpg"), "leads out of the data set"),
    (setting(("images", 1), "file_name", "clip/f7.jpg"), "f7.jpg: no such file"),
    (setting(("images", 1), "file_name", "clip/f9.jpg"), "two images are called f9.jpg"),
    (setting(("categories", 0), "name", None), r"categories\[0\]: lacks `name`"),
    (setting(("videos", 0), "name", ".."), "leads out of the data set"),
    (setting(("videos", 0), "id", None), r"videos\[0\]: lacks `id`"),
    (setting(("images", 1), "video_id", [7]), r"images\[1\]\.video_id: expected `int \| str \| null`, got `array`"),
])  # fmt: skip
def test_bad_coco(tmp_path, change, message):
    assert_refused(coco_with(tmp_path, change), tmp_path / "out", message, format="coco")


def assert_refused(source, out, message, **options):
    """A ValueError of one line that says it, and nothing is left."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(ValueError, match=message) as raised:
        convert(source, out, **options)
    assert "\n" not in str(raised.value) and sorted(out.parent.iterdir()) == before


def test_one_json_of_several_must_be_named(tmp_path):
    source = source_of("coco", tmp_path / "in")
    file = source / "annotations" / "instances.json"
    shutil.copy(file, file.with_name("captions.json"))
    assert_refused(
        source,
        tmp_path / "out",
        r"several .json files \(captions.json, instances.json\) there; name the one",
    )
    assert_masks(converted(file, tmp_path / "out")[0], *CLIP)
    shutil.move(file, source / "annotations.json")
    shutil.rmtree(source / "annotations")
    assert_masks(converted(source, tmp_path / "out2")[0], *CLIP)


# ------------------------------------------------------------------------------------------------ labelme


def labelme_with(tmp_path, change, name="f9"):
    source = source_of("labelme", tmp_path / "in")
    data = json.loads((source / f"{name}.json").read_text())
    change(data)
    (source / f"{name}.json").write_text(json.dumps(data))
    return source


def embedded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_masks_and_images_inside_the_file(tmp_path):
    #  ......   a patch of 2 x 3 at (3, 1), its points the first and the last pixel
    #  ...c.c
    #  ....c.
    #  ......
    patch = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)

    def change(data):
        shape = {
            "label": "cross",
            "shape_type": "mask",
            "points": [[3, 1], [5, 2]],
            "mask": embedded(patch),
        }
        data["shapes"] = [shape]
        data["imageData"] = base64.b64encode((tmp_path / "in" / "f9.jpg").read_bytes()).decode()

    source = labelme_with(tmp_path, change)
    content = (source / "f9.jpg").read_bytes()
    (source / "f9.jpg").unlink()
    (clip,) = converted(source, tmp_path / "out")
    assert_masks(clip, CLIP[0], "...... ...c.c ....c. ......", CLIP[2], letters="abc")
    assert (tmp_path / "out" / "JPEGImages" / "in" / "f9.jpg").read_bytes() == content


def test_labelme_folders_are_videos_and_images_without_json_are_left_out(tmp_path):
    for name in ("Straße 2", "Straße 10"):
        source_of("labelme", tmp_path / "in" / name)
        write_images(
            tmp_path / "in" / name, ["f11", "._f8"]
        )  # macOS leaves files such as the second
    said = []
    dataset = converted(tmp_path / "in", tmp_path / "out", progress=said.append)
    assert [clip.name for clip in dataset] == ["Straße 2", "Straße 10"] and [
        len(clip) for clip in dataset
    ] == [3, 3]
    assert "lost: 2 images without a .json file, left out" in said
    source_of("labelme", tmp_path / "in" / ".hidden")
    assert len(converted(tmp_path / "in", tmp_path / "out2")) == 2
    assert dataset[1].image(2).shape == (4, 6, 3)


def test_labelme_groups_and_labels_are_identities(tmp_path):
    """A group_id counts within its label; a label without one is one instance, two of it in a frame are refused."""

    def change(data):
        data["shapes"][0]["label"] = "car"  # no group_id: another car than the one of group 1
        data["shapes"].append(
            {"label": "bus", "group_id": 1, "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}
        )

    dataset = converted(labelme_with(tmp_path, change), tmp_path / "out")
    assert [dataset.categories[label] for label in dataset[0].labels] == [
        "car",
        "pedestrian",
        "car",
        "bus",
    ]
    source = labelme_with(tmp_path, lambda data: data["shapes"].append(dict(data["shapes"][0])))
    assert_refused(
        source, tmp_path / "out2", r"f9.json: shapes\[2\]: a second 'pedestrian' .* set group_id"
    )


def shape(**change):
    return lambda data: data["shapes"][1].update(change)


@pytest.mark.parametrize("change, message", [
    (shape(points=[[1, 1], [2, 2]]), r"f9.json: shapes\[1\]: .*three points"),
    (shape(points=[[1, 1], [2, 2], ["x", 1]]), r"f9.json: shapes\[1\]\.points\[2\]\[0\]: expected `float`"),
    (shape(points=[[1, 1], [2, 2], [float("nan"), 1]]), "f9.json: broken JSON at line 1, .*NaN"),
    (shape(points=[[1, 1], [2, 2], [1e12, 1]]), r"f9.json: shapes\[1\]: "),
    (shape(points=None), r"f9.json: shapes\[1\]\.points: expected `array`, got `null`"),
    (shape(label=None), r"f9.json: shapes\[1\]\.label: expected `str`, got `null`"),
    (shape(shape_type="circle", points=[[1, 1]]), r"f9.json: shapes\[1\]: a circle has two points"),
    (shape(shape_type="circle", points=[1, 2]), r"f9.json: shapes\[1\]\.points\[0\]: expected `array`"),
    (shape(shape_type="mask", points=[[1, 1], [2, 2]]), r"f9.json: shapes\[1\]: 'mask' is not a readable PNG"),
    (shape(shape_type="mask", points=[[1, 1], [2, 2]], mask="AAAA"), r"shapes\[1\]: 'mask' is not a readable PNG"),
    (shape(shape_type="mask", points=[[5, 1], [6, 2]], mask=embedded(np.ones((2, 2), bool))), "2x2 at 5, 1 leaves"),
    (lambda d: d.update(imageHeight=5), "f9.json: imageWidth x imageHeight is 6x5, the video 6x4"),
    (lambda d: d.update(imagePath="../f9.jpg"), "f9.json: its image .*/f9.jpg is missing"),
    (lambda d: d.update(imagePath="../../f9.jpg"), "leads out of the data set"),
    (lambda d: d.update(imagePath="..\\..\\f9.jpg"), "leads out of the data set"),
    (lambda d: d.update(imagePath="/etc/f9.jpg"), "leads out of the data set"),
    (lambda d: d.update(imagePath="C:\\f9.jpg"), "leads out of the data set"),
    (lambda d: d.update(imagePath="f7.jpg"), "f9.json: its image .*f7.jpg is missing, and imageData embeds none"),
    (lambda d: d.update(imagePath="f7.jpg", imageData="AAAA"), "f9.json: .*imageData is not readable"),
    (lambda d: d.update(imagePath="f8.jpg"), "two images are called f8.jpg"),
    (lambda d: d.pop("shapes") and None, "f9.json: lacks `shapes`"),
])  # fmt: skip
def test_bad_labelme(tmp_path, change, message):
    assert_refused(labelme_with(tmp_path, change), tmp_path / "out", message)


# ------------------------------------------------------------------------------------------------ CVAT


def cvat_with(tmp_path, *changes):
    source = source_of("cvat", tmp_path / "in")
    text = (source / "annotations.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (source / "annotations.xml").write_text(text)
    return source


def test_cvat_shape_in_front_hides_the_others(tmp_path):
    # the car is drawn over two pixels of the pedestrian in frame 0, and lies in front
    #   ......
    #   ......
    #   ...aab
    #   ....bb
    old = 'rle="0, 3, 1" left="1" top="1" width="2" height="2" z_order="0"'
    new = 'rle="0,2" left="3" top="2" width="2" height="1" z_order="2"'
    said = []
    (clip,) = converted(cvat_with(tmp_path, (old, new)), tmp_path / "out", progress=said.append)
    assert_masks(clip, "...... ...... ...aab ....bb", *CLIP[1:])
    assert "lost: 1 pixels behind a shape of higher z_order" in said
    (clip,) = converted(cvat_with(tmp_path / "same", (old, new[:-2] + '0"')), tmp_path / "out2")
    assert clip.masks(0).sum() == 6 and clip.masks(0).all(0).sum() == 1  # one z_order: they overlap


def test_cvat_runs_go_row_by_row(tmp_path):
    old, new = (
        'rle="0, 3, 1" left="1" top="1" width="2"',
        'rle="1, 1, 2, 2" left="1" top="1" width="3"',
    )
    (clip,) = converted(cvat_with(tmp_path, (old, new)), tmp_path / "out")
    assert_masks(clip, "...... ..a... ..aabb ....bb", *CLIP[1:])  # .a. over .aa


def test_cvat_boxes_ellipses_and_turns(tmp_path):
    polygon = '<polygon frame="0" keyframe="1" outside="0" occluded="0" points="4.00,2.00;6.00,2.00;6.00,4.00;4.00,4.00"'
    end = '<attribute name="mood">calm</attribute>\n    </polygon>'
    box = '<box frame="0" outside="0" xtl="{}" ytl="{}" xbr="{}" ybr="{}" rotation="{}"'
    for i, (tag, start, picture) in enumerate((
        ("box", box.format(4, 2, 6, 4, 0), CLIP[0]),
        ("box", box.format(1, 1, 5, 3, 90), "..bb.. .abb.. .abb.. ..bb.."),  # 4 x 2 stands upright: 2 x 4 about (3, 2)
        ("ellipse", '<ellipse frame="0" outside="0" cx="5" cy="3" rx="1.2" ry="1.2"', CLIP[0]),
    )):  # fmt: skip
        source = cvat_with(tmp_path / str(i), (polygon, start), (end, f"</{tag}>"))
        (clip,) = converted(source, tmp_path / f"out{i}")
        assert np.array_equal(clip.masks(0)[1], masks_of(picture, "b")[0]), clip.masks(0)[1].astype(
            int
        )
    source = cvat_with(tmp_path / "tilted", (polygon, box.format(0, 1, 6, 3, 20)), (end, "</box>"))
    rows, columns = np.nonzero(converted(source, tmp_path / "out")[0].masks(0)[1])
    assert (
        rows[columns > 3].mean() > rows[columns < 2].mean() + 0.5
    )  # turned clockwise: its right end went down


def test_cvat_of_a_part_of_a_video_file(tmp_path):
    """The task took frames 1, 3 and 5: numbers in the file are those of the video."""
    levels = [0, 40, 80, 120, 160, 200, 240]
    source = cvat_with(
        tmp_path,
        ("<start_frame>0</start_frame>", "<start_frame>1</start_frame>"),
        ("<stop_frame>2</stop_frame>", "<stop_frame>5</stop_frame><frame_filter>step=2</frame_filter>"),
        ("<name>clip</name>", "<name>clip</name><source>film.mp4</source>"),
        ('frame="2"', 'frame="5"'), ('frame="1"', 'frame="3"'), ('frame="0"', 'frame="1"'),
    )  # fmt: skip
    shutil.rmtree(source / "images")
    write_mp4([np.full((4, 6, 3), level, dtype=np.uint8) for level in levels], source / "film.mp4")
    said = []
    (clip,) = converted(source, tmp_path / "out", progress=said.append)
    assert clip.name == "film" and said[::2] == ["format: cvat"]
    assert clip.video["file_names"] == ["film/000001.jpg", "film/000003.jpg", "film/000005.jpg"]
    assert_masks(clip, *CLIP)
    assert [round(clip.image(t).mean() / 40) for t in range(3)] == [1, 3, 5]
    (source / "film.mp4").rename(tmp_path / "film.mp4")
    assert len(converted(source, tmp_path / "out2", images=tmp_path / "film.mp4")[0]) == 3
    write_images(tmp_path / "frames", OF_CVAT)  # in the order of the task
    assert_masks(converted(source, tmp_path / "out4", images=tmp_path / "frames")[0], *CLIP)
    write_mp4([np.zeros((4, 6, 3), np.uint8)] * 4, tmp_path / "film.mp4")  # two frames of the task
    assert_refused(
        source,
        tmp_path / "out3",
        "shapes in frame 2, but only 2 images",
        images=tmp_path / "film.mp4",
    )


def test_cvat_video_with_broken_frames_is_refused(tmp_path, monkeypatch):
    """`read_video` skips them: what comes after would get the masks of other frames."""

    def reader(path):
        try:
            yield from [np.zeros((4, 6, 3), np.uint8)] * 9
        finally:  # when it is closed, too
            warnings.warn(f"{path}: skipped 1 that is broken", stacklevel=1)

    source = source_of("cvat", tmp_path / "in")
    write_mp4([np.zeros((4, 6, 3), np.uint8)] * 3, tmp_path / "film.mp4")
    monkeypatch.setattr("minst.labels.convert.files.read_video", reader)
    assert_refused(
        source,
        tmp_path / "out",
        "film.mp4: skipped 1 that is broken; give",
        images=tmp_path / "film.mp4",
    )


def test_cvat_task_beyond_the_end_of_its_video(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.xml").write_text(
        "<annotations><meta><start_frame>9</start_frame></meta></annotations>"
    )
    write_mp4([np.zeros((4, 6, 3), np.uint8)] * 3, tmp_path / "film.mp4")
    assert_refused(source, tmp_path / "out", "video film: no images", images=tmp_path / "film.mp4")


def test_cvat_names_that_say_their_number_and_gaps_between_shapes(tmp_path):
    changes = [(f'frame="{n}"', f'frame="{n * 4 + 9}"') for n in (2, 1, 0)]
    source = cvat_with(tmp_path, *changes)
    shutil.rmtree(source / "images")
    write_images(source / "images", [f"frame_{n:06d}" for n in (9, 13, 17)])
    said = []
    assert_masks(converted(source, tmp_path / "out", progress=said.append)[0], *CLIP)
    assert "lost: 12 frames that the file leaves out within a track, taken for not visible" in said


MASK = 'rle="0, 3, 1" left="1"'
POLYGON = '<polygon frame="1" keyframe="0"'


@pytest.mark.parametrize("old, new, message", [
    ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "DOCTYPE"),
    ("</annotations>", "", "annotations.xml: broken XML: .*line"),
    ("annotations>", "people>", "<people> is not the <annotations>"),
    (MASK, 'rle="0, 3" left="1"', r"track 0 \(car\), frame 0: rle covers 3 pixels, its box 2x2"),
    (MASK, 'rle="0, -3, 7" left="1"', r"track 0 \(car\), frame 0: rle\[1\]: expected `int` >= 0"),
    (MASK, 'rle="0, 3, 1" left="5"', r"track 0 \(car\), frame 0: a mask of 2x2 at 5, 1 leaves the frame of 6x4"),
    (MASK, 'rle="0, 3, 1"', r"track 0 \(car\), frame 0: lacks `left`"),
    ('outside="0" occluded="0" points="4.00,2.00;6.00,2.00;6.00,4.00;4.00,4.00"', 'points="1,1;2,2"', "three points"),
    ('points="4.00', 'points="four', r"track 1 \(pedestrian\), frame 0: "),
    (POLYGON, '<polygon frame="0"', r"track 1 \(pedestrian\), frame 0: stands there twice"),
    (POLYGON, '<polygon frame="3"', r"track 1 \(pedestrian\), frame 3: there is no image"),
    (POLYGON, "<polygon", r"track 1 \(pedestrian\), frame None: lacks `frame`"),
    ("polygon frame", 'box xtl="a" frame', "mismatched tag"),
    ("<stop_frame>2", "<stop_frame>two", r"meta\.stop_frame: expected `int`, got `str`"),
    ("<name>clip</name>", "<source>../film.mp4</source>", "leads out of the data set"),
    ("<stop_frame>2", "<start_frame>9</start_frame><stop_frame>-2", r"meta\.stop_frame: expected `int` >= 0"),
    ("<start_frame>0", "<start_frame>3", "stop_frame 2 comes before start_frame 3"),
    ('id="1"', 'id="1" task_id="8"', "holds several tasks"),
])  # fmt: skip
def test_bad_cvat(tmp_path, old, new, message):
    source = cvat_with(tmp_path, (old, new))
    if "source" in new:
        shutil.rmtree(source / "images")
    assert_refused(source, tmp_path / "out", message, format="cvat")


def test_cvat_shape_after_the_last_image_of_a_task_without_end(tmp_path):
    changes = ("<stop_frame>2</stop_frame>", ""), (POLYGON, POLYGON.replace("1", "3", 1))
    message = r"track 1 \(pedestrian\), frame 3: there is no image of this frame"
    assert_refused(cvat_with(tmp_path, *changes), tmp_path / "out", message)


def test_xml_bombs_in_other_encodings_are_refused(tmp_path):
    source = source_of("cvat", tmp_path / "in")
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>'
    (source / "annotations.xml").write_bytes(text.encode("utf-16"))
    assert_refused(source, tmp_path / "out", "not text in UTF-8")
    (source / "annotations.xml").write_bytes(
        text.encode("utf-16-le")
    )  # no mark at its start: text full of zeros
    assert_refused(source, tmp_path / "out", "DOCTYPE")
    (source / "annotations.xml").write_text(text)
    assert_refused(source, tmp_path / "out", "DOCTYPE")


# ------------------------------------------------------------------------------------------------ MOTS


def test_motschallenge_layout_and_regions_to_be_ignored(tmp_path):
    source = tmp_path / "in"
    for name in ("MOTS20-02", "MOTS20-11"):
        write_images(source / name / "img1", ["000001", "000002"])
        (source / name / "gt").mkdir()
        # the region: runs [4, 4, 16], whose text is "44" and 16 in two characters, "`0"
        lines = [
            "1 2007 2 4 6 522O<",
            "1 10000 10 4 6 44`0",
            "2 10000 10 4 6 44`0",
            "2 10000 10 4 6 b0220",
        ]
        (source / name / "gt" / "gt.txt").write_text("\n".join(lines) + "\n")
    dataset = converted(source, tmp_path / "out")
    assert [clip.name for clip in dataset] == ["MOTS20-02", "MOTS20-11"] and dataset.categories == (
        "car",
        "pedestrian",
    )
    clip = dataset[1]
    assert clip.crowd.tolist() == [False, True, True] and clip.labels.tolist() == [1, 0, 1]
    ignored = np.zeros((2, 4, 6), bool)
    ignored[:, :, 1] = True  # four zeros are the first column, four ones the second
    ignored[1, 2:, 4:] = True
    for t in range(2):
        assert np.array_equal(clip.masks(t)[1], ignored[t]) and np.array_equal(
            clip.masks(t)[2], ignored[t]
        )


def test_mots_of_cvat_names_its_classes(tmp_path):
    source = tmp_path / "täsk"
    write_images(source / "images")
    for name, picture in zip(NAMES[:2], CLIP):
        a, b = masks_of(picture)
        png(source / "instances", name, (a * 2001 + b * 4002).astype(np.uint16))
    (source / "instances" / "labels.txt").write_text("cat\nHündchen\nbird\n", encoding="utf-8")
    said = []
    dataset = converted(source, tmp_path / "out", progress=said.append)
    assert dataset.categories == ("cat", "Hündchen", "bird", "class 4") and dataset[
        0
    ].labels.tolist() == [1, 3]
    assert_masks(dataset[0], *CLIP[:2])
    assert said[::2] == ["format: mots", "lost: 1 frames without a PNG, left out"]


def test_mots_texts_beside_their_labels(tmp_path):
    write_images(tmp_path / "in" / "images" / "a")
    shutil.copy(HERE / "mots.txt", tmp_path / "in" / "a.txt")
    (tmp_path / "in" / "labels.txt").write_text("cat\ndog\n")
    dataset = converted(tmp_path / "in", tmp_path / "out")
    assert len(dataset) == 1 and dataset.categories == ("cat", "dog")
    assert_masks(dataset[0], *CLIP)


@pytest.mark.parametrize("line, message", [
    ("8 1001 1 4 6", "line 6: not 'frame id class height width rle'"),
    ("8 x 1 4 6 522O<", "line 6: not 'frame id class"),
    ("8 1002 2 4 6 522O<", "line 6: id 1002 is not of class 2"),
    ("8 5 0 4 6 522O<", "line 6: id 5 is not of class 0"),
    ("7 1002 1 4 6 522O<", "line 6: there is no image of frame 7"),
    ("8 1002 1 6 4 522O<", "line 6: a mask of 4x6, the images are 6x4"),
    ("8 1002 1 4 6 522", "line 6: .* covers 9 pixels of 24"),
    ("8 1002 1 4 6 ~~", "line 6: not a valid RLE"),
    ("8 1001 1 4 6 522O<", "line 6: track 1001 has another annotation in the same frame"),
])  # fmt: skip
def test_bad_mots_text(tmp_path, line, message):
    source = source_of("mots", tmp_path / "in")
    with (source / "instances_txt" / "0003.txt").open("a") as file:
        file.write(line + "\n")
    assert_refused(source, tmp_path / "out", message)


def test_bad_mots_pngs_and_images(tmp_path):
    source = source_of("mots png", tmp_path / "in")
    folder = source / "instances" / "0003"
    for array, message in (
        (np.ones((4, 6), np.uint8), "f8.png: an image of mode L, not the 16 bit"),
        (np.ones((4, 6), np.uint16), "f8.png: id 1 has no class"),
        (np.full((6, 4), 1001, np.uint16), "f8.png: 4x6, its image is 6x4"),
    ):
        png(folder, "f8", array)
        assert_refused(source, tmp_path / "out", message)
    (folder / "f8.png").write_bytes(b"")
    assert_refused(source, tmp_path / "out", "f8.png: not a readable image")
    (folder / "f8.png").unlink()
    png(folder, "f7", np.full((4, 6), 1001, np.uint16))
    assert_refused(source, tmp_path / "out", "f7.png: there is no image of this name")
    shutil.rmtree(source / "images")
    assert_refused(source, tmp_path / "out", "no images of video 0003 there")


# ------------------------------------------------------------------------------------------------ DAVIS


def test_davis_void_frames_without_png_and_no_meta(tmp_path):
    #   ......      1 ......     v is void, 255
    #   .aavv.
    #   .a..bb
    #   ....bb
    source = source_of("davis", tmp_path / "in")
    (source / "meta.json").unlink()
    folder = source / "Annotations" / "480p" / "clip"
    a, b, v = masks_of("...... .aavv. .a..bb ....bb", "abv")
    png(folder, "f8", (a * 1 + b * 4 + v * 255).astype(np.uint8), "P")
    (folder / "f9.png").unlink()
    said = []
    dataset = converted(source, tmp_path / "out", progress=said.append)
    assert dataset.categories == ("object",)
    assert_masks(dataset[0], CLIP[0], CLIP[2])
    assert said == [
        "format: davis",
        "guessed: 480p/clip/ holds PNG files",
        "lost: 1 frames without a PNG, left out",
        "lost: 2 void pixels (255), now background",
    ]


def test_davis_2016_black_and_white(tmp_path):
    write_images(tmp_path / "in" / "JPEGImages" / "dog", ["00000"])
    mask = masks_of(CLIP[0])[1]
    png(tmp_path / "in" / "Annotations" / "dog", "00000", mask.astype(np.uint8) * 255)
    (clip,) = converted(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(clip.masks(0), mask[None])


def test_bad_davis(tmp_path):
    source = source_of("davis", tmp_path / "in")
    folder, meta = source / "Annotations" / "480p" / "clip", source / "meta.json"
    for array, message in (
        (np.ones((4, 6), np.uint16), "f8.png: an image of mode I;16, not one of a palette"),
        (np.ones((4, 6, 3), np.uint8), "f8.png: an image of mode RGB, not one of a palette"),
        (np.ones((6, 4), np.uint8), "f8.png: 4x6, its image is 6x4"),
        (np.full((4, 6), 9, np.uint8), "meta.json: no category in videos, clip, objects, 9"),
    ):
        png(folder, "f8", array)
        assert_refused(source, tmp_path / "out", message)
    png(folder, "f8", np.ones((4, 6), np.uint8))
    for text, message in (
        ('{"videos": {}}', "meta.json: no category in videos, clip, objects, 1"),
        ('{"videos": {}, "categories": 3}', "meta.json: categories: expected `array`, got `int`"),
        ('{"videos": ', "meta.json: broken JSON at line 1"),
        ("[]", "meta.json: expected `object`, got `array`"),
        (
            '{"videos": {"clip": {"objects": {"1": {}}}}}',
            "meta.json: no category in videos, clip, objects, 1",
        ),
    ):
        meta.write_text(text)
        assert_refused(source, tmp_path / "out", message)
    meta.unlink()
    write_images(source / "JPEGImages" / "480p" / "clip", ["f9"], size=(5, 4))
    assert_refused(
        source, tmp_path / "out", "f9.jpg: 5x4, its video clip is 6x4|f9.png: 6x4, its image"
    )
    (source / "JPEGImages" / "480p" / "clip" / "f9.jpg").unlink()
    assert_refused(source, tmp_path / "out", "f9.png: there is no image of this name")
    shutil.rmtree(folder)
    assert_refused(source, tmp_path / "out", "no folders of PNG files", format="davis")


# ------------------------------------------------------------------------------------------------ out: indexed PNGs


def write_ytvis(folder, masks, crowd=()):
    """masks (M, T, H, W) bool -> a data set with one video; tracks are told by hand-made RLE."""
    count, length, height, width = masks.shape
    names = [f"v/{t:05d}.jpg" for t in range(length)]
    write_images(
        folder / "JPEGImages" / "v", [f"{t:05d}" for t in range(length)], size=(width, height)
    )
    rle = lambda mask: {
        **(r := rle_codec.encode(np.asfortranarray(mask, np.uint8))),
        "counts": r["counts"].decode(),
    }  # noqa: E731
    tracks = [{"id": m + 1, "video_id": 1, "category_id": m % 3 + 1, "iscrowd": int(m in crowd), "height": height,
               "width": width, "length": length, "segmentations": [rle(x) if x.any() else None for x in track],
               "areas": [int(x.sum()) or None for x in track], "bboxes": [None] * length}
              for m, track in enumerate(masks)]  # fmt: skip
    video = {"id": 1, "file_names": names, "height": height, "width": width, "length": length}
    categories = [{"id": i, "name": name} for i, name in enumerate(("z", "ä", "b"), 1)]
    data = {"videos": [video], "categories": categories, "annotations": tracks}
    (folder / "annotations.json").write_text(json.dumps(data))


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_indexed_pngs_keep_masks_that_do_not_overlap(data, tmp_path):
    height, width, length = (data.draw(st.integers(1, n)) for n in (9, 9, 3))
    numbers = st.lists(
        st.integers(0, 4), min_size=length * height * width, max_size=length * height * width
    )
    index = np.array(data.draw(numbers)).reshape(length, height, width)
    present = [n for n in range(1, 5) if (index == n).any()]
    masks = (
        np.stack([index == n for n in present]) if present else np.zeros((0, *index.shape), bool)
    )
    for name in ("a", "b", "c"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    write_ytvis(tmp_path / "a", masks)
    to_indexed_png(tmp_path / "a", tmp_path / "b")
    for t in range(length):  # the pixel is the number of the instance
        picture = Image.open(tmp_path / "b" / "Annotations" / "v" / f"{t:05d}.png")
        expected = sum(
            ((m + 1) * mask[t] for m, mask in enumerate(masks)), np.zeros((height, width), int)
        )
        assert picture.mode == "P" and np.array_equal(np.array(picture), expected)
    before, after = YouTubeVIS(tmp_path / "a"), converted(tmp_path / "b", tmp_path / "c")
    assert after.categories == before.categories == ("z", "ä", "b")
    assert after[0].labels.tolist() == before[0].labels.tolist()
    for t in range(length):
        assert np.array_equal(after[0].masks(t), masks[:, t])


def test_later_instances_lie_over_earlier_and_crowd_stays_out(tmp_path):
    #   aab    a and b overlap in the middle column of the first row
    masks = np.zeros((3, 1, 1, 3), bool)
    masks[0, 0, 0, :2] = masks[1, 0, 0, 1:] = masks[2] = True
    write_ytvis(tmp_path / "a", masks, crowd=[2])
    said = []
    to_indexed_png(tmp_path / "a", tmp_path / "b", progress=said.append)
    assert np.array(Image.open(tmp_path / "b" / "Annotations" / "v" / "00000.png")).tolist() == [
        [1, 2, 2]
    ]
    assert said == ["lost: 1 crowd tracks", "lost: 1 pixels of instances under a later one"]
    meta = json.loads((tmp_path / "b" / "meta.json").read_text())
    assert meta["videos"]["v"]["objects"] == {
        "1": {"category": "z", "frames": ["00000"]},
        "2": {"category": "ä", "frames": ["00000"]},
    }
    source, copy = (tmp_path / name / "JPEGImages" / "v" / "00000.jpg" for name in "ab")
    assert source.read_bytes() == copy.read_bytes()


def test_at_most_254_instances(tmp_path):
    masks = np.zeros((255, 1, 1, 255), bool)
    masks[np.arange(255), 0, 0, np.arange(255)] = True
    write_ytvis(tmp_path / "a", masks[:254])
    to_indexed_png(tmp_path / "a", tmp_path / "b")
    (clip,) = converted(tmp_path / "b", tmp_path / "c")
    assert np.array_equal(clip.masks(0), masks[:254, 0])
    write_ytvis(tmp_path / "d", masks)
    with pytest.raises(ValueError, match="video v: 255 instances; .*at most 254"):
        to_indexed_png(tmp_path / "d", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_colours_can_be_told_apart():
    colors = np.array(palette()).reshape(256, 3)
    assert colors[0].tolist() == [0, 0, 0] and colors.min() >= 0 and colors.max() <= 255
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(256, dtype=int)
    assert (
        apart.min() > 0 and apart[:22, :22].min() >= 90
    )  # all differ, those of the first twenty clearly


# ------------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("kind", KINDS)
def test_formats_are_guessed_from_files_too(kind, tmp_path):
    source = source_of(kind, tmp_path)
    assert guess_format(source)[0] == kind.split()[0]
    files = {"coco": "annotations/instances.json", "labelme": "f8.json", "cvat": "annotations.xml",
             "mots": "instances_txt/0003.txt"}  # fmt: skip
    if kind in files:
        assert guess_format(source / files[kind])[0] == kind


def test_one_labelme_file_is_a_video_of_one_frame(tmp_path):
    source = source_of("labelme", tmp_path / "in")
    said = []
    (clip,) = converted(source / "f9.json", tmp_path / "out", progress=said.append)
    assert len(clip) == 1 and clip.masks(0).sum() == 7 and said[::2] == ["format: labelme"]


def test_images_elsewhere(tmp_path):
    for kind, place in (
        ("coco", "images"),
        ("cvat", "images"),
        ("mots", "training/image_02"),
        ("davis", "JPEGImages"),
    ):
        source = source_of(kind, tmp_path / kind)
        shutil.move(source / place, tmp_path / f"{kind} elsewhere")
        assert_refused(
            source, tmp_path / "out", "no such file|no images|there is no image of this name"
        )
        (clip,) = converted(source, tmp_path / f"{kind} out", images=tmp_path / f"{kind} elsewhere")
        assert_masks(clip, *CLIP)
    source = source_of("labelme", tmp_path / "labels" / "clip")
    for place in ("pictures", "pictures/clip"):  # one folder for all videos, or one each
        (tmp_path / place).mkdir()
        for path in (*source.glob("*.jpg"), *(tmp_path / "pictures").glob("*.jpg")):
            shutil.move(path, tmp_path / place)
        out = tmp_path / place.replace("/", " ") / "out"
        out.parent.mkdir(exist_ok=True)
        assert_masks(converted(source.parent, out, images=tmp_path / "pictures")[0], *CLIP)


@pytest.mark.parametrize("format", [None, *FORMATS])
def test_empty_folders_and_those_that_are_not_there(format, tmp_path):
    (tmp_path / "in").mkdir()
    assert_refused(tmp_path / "in", tmp_path / "out", f"^{tmp_path}/in", format=format)
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder"):
        convert(tmp_path / "gone", tmp_path / "out", format=format)


@pytest.mark.parametrize("kind, file", [
    ("coco", "annotations/instances.json"), ("labelme", "f9.json"), ("davis", "meta.json"), ("cvat", "annotations.xml"),
])  # fmt: skip
def test_files_that_break_off(kind, file, tmp_path):
    source = source_of(kind, tmp_path / "in")
    content = (source / file).read_bytes()
    for keep in (len(content) // 2, 1):
        (source / file).write_bytes(content[:keep])
        assert_refused(source, tmp_path / "out", f"{Path(file).name}: broken", format=kind)
    (source / file).write_bytes(content.replace(b"car", b"\xff").replace(b"flags", b"\xff"))
    assert_refused(source, tmp_path / "out", f"{Path(file).name}: .*not .* in UTF-8", format=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_broken_or_of_another_size(kind, tmp_path):
    source = source_of(kind, tmp_path / "in")
    place = {"coco": "images/clip/f9.jpg", "labelme": "f9.jpg", "cvat": "images/f09.jpg", "davis":
             "JPEGImages/480p/clip/f9.jpg", "mots": "training/image_02/0003/f9.png"}  # fmt: skip
    path = source / place.get(kind, "images/0003/f9.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(source, tmp_path / "out", f"{path.name}: not a readable image")
    Image.new("RGB", (7, 4)).save(path)
    assert_refused(source, tmp_path / "out", f"{path.name}: 7x4, its video .* is 6x4")
    path.unlink()
    assert_refused(
        source,
        tmp_path / "out",
        "no such file|is missing|no image|there is no|2 images, the task has 3",
    )


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    source = source_of("davis", tmp_path / "in")
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out")  # an empty one is filled
    for write in (convert, to_indexed_png):
        with pytest.raises(ValueError, match="out is not an empty folder"):
            write(tmp_path / "in" if write is convert else tmp_path / "out", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is not an empty folder"):
        convert(source, tmp_path / "file")
    with pytest.raises(ValueError, match="'voc' is none of cvat, mots"):
        convert(source, tmp_path / "new", format="voc")
    with pytest.raises(ValueError, match="YouTube-VIS form already"):
        convert(tmp_path / "out" / "annotations.json", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_images_of_other_kinds_become_png(tmp_path):
    def change(data):
        for image in data["images"]:
            image["file_name"] = image["file_name"].replace(".jpg", ".bmp")

    source = coco_with(tmp_path, change)
    write_images(source / "images" / "clip", suffix=".bmp")
    (clip,) = converted(source, tmp_path / "out")
    assert clip.video["file_names"][1] == "clip/f9.png"
    assert clip.image(1)[0, 0].tolist() == [40, 90, 200]  # exact
    assert Image.open(tmp_path / "out" / "JPEGImages" / "clip" / "f9.png").format == "PNG"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    source = source_of("cvat", tmp_path / "in")

    def full(path, _):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="not written .No space left") as raised:
        convert(source, tmp_path / "out")
    assert raised.value.filename == str(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command(tmp_path, capsys):
    source = source_of("labelme", tmp_path / "in")
    assert main(
        ["data", "convert", str(source), "--from", "labelme", "--out", str(tmp_path / "a")]
    ) in (0, None)
    out = capsys.readouterr().out
    assert "format: labelme\nlost: 1 boxes without a mask became filled rectangles\n" in out
    assert f"written: {tmp_path / 'a' / 'annotations.json'}" in out
    assert main(
        ["data", "convert", str(tmp_path / "a"), "--to", "davis", "--out", str(tmp_path / "b")]
    ) in (0, None)
    assert f"written: {tmp_path / 'b'}" in capsys.readouterr().out
    assert len(converted(tmp_path / "b", tmp_path / "c")[0]) == 3
    assert (
        main(["data", "convert", str(source), "--from", "mots", "--out", str(tmp_path / "d")]) == 2
    )
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith(f"minst: {source}: no instances_txt/")
    )
    assert (
        main(
            [
                "data",
                "convert",
                str(source),
                "--to",
                "davis",
                "--from",
                "coco",
                "--out",
                str(tmp_path / "d"),
            ]
        )
        == 2
    )
    assert "--from" in capsys.readouterr().err
    assert (
        main(["data", "convert", str(source), "--split", "train", "--out", str(tmp_path / "d")])
        == 2
    )
    assert "--split" in capsys.readouterr().err and not (tmp_path / "d").exists()
