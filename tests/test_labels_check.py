"""The validator: each defect is planted once, found once, named with file and entry, and nothing else is reported."""

import copy
import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_codec

from minst.cli import main
from minst.data.coco import COCO
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.labels.check import ERRORS, WARNINGS, Finding, Mask, _measure, check_dataset
from minst.data.ytvis import YouTubeVIS

SMALL = ShapesConfig(width=96, height=72, frames=4)
H, W, T = 72, 96, 4
FULL = {"size": [H, W], "counts": [0, H * W]}
ALL = rle_codec.encode(np.ones((H, W), np.uint8, order="F"))["counts"].decode()[
    1:
]  # its second number: H * W


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """{form: a whole data set of three videos (images)}; the first annotation is seen in every frame, by choice."""
    folders = {}
    for form in ("videos", "images"):
        folders[form] = tmp_path_factory.mktemp(form)
        write_shapes_dataset(folders[form], videos=3, config=SMALL, seed=7, images=form == "images")
        data = json.loads((folders[form] / "annotations.json").read_text())
        if form == "videos":
            data["annotations"].sort(key=lambda a: sum(mask is None for mask in a["segmentations"]))
            assert None not in data["annotations"][0]["segmentations"]
        (folders[form] / "annotations.json").write_text(json.dumps(data))
    return folders


@pytest.fixture
def planted(sources, tmp_path):
    """planted(form, change) -> folder: a copy in which change(data, folder) has planted a defect."""

    def plant(form, change):
        folder = tmp_path / "data"
        shutil.copytree(sources[form], folder)
        data = json.loads((folder / "annotations.json").read_text())
        changed = change(data, folder)
        (folder / "annotations.json").write_text(json.dumps(data if changed is None else changed))
        return folder

    return plant


def found(folder, **options):
    """[(kind, file relative to the folder, entry)] of all problems."""
    report = check_dataset(folder, **options)
    return [(p.kind, Path(p.file).relative_to(folder).as_posix(), p.entry) for p in report.problems]


def set_to(path, value):
    """A change: data at `path` ("annotations", 0, "bboxes") becomes `value`."""

    def change(data, folder):
        *before, last = path
        for key in before:
            data = data[key]
        data[last] = value

    return change


def drop(*path):
    def change(data, folder):
        *before, last = path
        for key in before:
            data = data[key]
        del data[last]

    return change


@pytest.mark.parametrize("form", ["videos", "images"])
def test_a_whole_data_set_has_no_problem_and_is_counted(sources, form):
    report = check_dataset(sources[form])
    data = json.loads((sources[form] / "annotations.json").read_text())
    many = [
        a["segmentations"] if form == "videos" else [a["segmentation"]] for a in data["annotations"]
    ]
    masks = sum(mask is not None for track in many for mask in track)
    assert report.problems == [] and report.notes == []
    assert report.counts == {form: 3, "frames": 3 * T if form == "videos" else 3, "instances": len(many),
                             "masks": masks, "categories": len(CATEGORIES)}  # fmt: skip
    assert [row["name"] for row in report.categories] == list(CATEGORIES)
    for row in report.categories:
        mine = [a for a in data["annotations"] if a["category_id"] == row["id"]]
        assert row["instances"] == len(mine) and row[form] == len(
            {a[form[:-1] + "_id"] for a in mine}
        )
    assert sum(row["masks"] for row in report.categories) == masks


VIDEO_DEFECTS = {
    "no list of categories": (set_to(("categories",), None), "wrong field", "categories"),
    "annotations are an object": (set_to(("annotations",), {"a": 1}), "wrong field", "annotations"),
    "a video that is no object": (lambda d, f: d["videos"].append(7), "wrong field", "videos[3]"),
    "video without id": (lambda d, f: d["videos"].append({**d["videos"][0], "id": None, "file_names": ["a.jpg"], "length": 1}) or shutil.copy(f / "JPEGImages/00000/00000.jpg", f / "JPEGImages/a.jpg") and None, "wrong field", "videos[3].id"),
    "length": (set_to(("videos", 0, "length"), 9), "wrong length", "videos[0].length"),
    "no category id": (drop("annotations", 1, "category_id"), "wrong field", "annotations[1].category_id"),
    "category id as text": (set_to(("annotations", 1, "category_id"), "1"), "wrong field", "annotations[1].category_id"),
    "category id 0": (set_to(("annotations", 1, "category_id"), 0), "unknown category", "annotations[1].category_id"),
    "category id as true": (set_to(("annotations", 1, "category_id"), True), "wrong field", "annotations[1].category_id"),
    "unknown video": (set_to(("annotations", 1, "video_id"), 99), "unknown picture", "annotations[1].video_id"),
    "no video id": (drop("annotations", 1, "video_id"), "wrong field", "annotations[1].video_id"),
    "a list as id": (set_to(("annotations", 1, "id"), [1]), "wrong field", "annotations[1].id"),
    "annotation twice": (lambda d, f: d["annotations"].append(d["annotations"][0]), "duplicate id", "annotations[{n}].id"),
    "category twice": (lambda d, f: d["categories"].append(d["categories"][0]), "duplicate id", f"categories[{len(CATEGORIES)}].id"),
    "category without name": (drop("categories", 0, "name"), "wrong field", "categories[0].name"),
    "crowd is a text": (set_to(("annotations", 0, "iscrowd"), "no"), "wrong field", "annotations[0].iscrowd"),
    "segmentations absent": (drop("annotations", 0, "segmentations"), "wrong field", "annotations[0].segmentations"),
    "bboxes are short": (lambda d, f: d["annotations"][0]["bboxes"].pop() and None, "wrong length", "annotations[0].bboxes"),
    "areas are long": (lambda d, f: d["annotations"][0]["areas"].append(3), "wrong length", "annotations[0].areas"),
    "a negative box": (set_to(("annotations", 0, "bboxes", 2), [3, 4, -5, 6]), "wrong box", "annotations[0].bboxes[2]"),
    "a box before the frame": (set_to(("annotations", 0, "bboxes", 2), [-9, 4, 5, 6]), "wrong box", "annotations[0].bboxes[2]"),
    "a box that is not finite": (set_to(("annotations", 0, "bboxes", 2), [3, 4, float("nan"), 6]), "wrong box", "annotations[0].bboxes[2]"),
    "a box of three": (set_to(("annotations", 0, "bboxes", 2), [3, 4, 5]), "wrong box", "annotations[0].bboxes[2]"),
    "a box of a mask that is not there": (lambda d, f: d["annotations"][0]["segmentations"].__setitem__(1, None) or d["annotations"][0]["areas"].__setitem__(1, None), "box off its mask", "annotations[0].bboxes[1]"),
    "a box elsewhere": (set_to(("annotations", 0, "bboxes", 0), [0, 0, 4, 4]), "box off its mask", "annotations[0].bboxes[0]"),
    "a negative area": (set_to(("annotations", 0, "areas", 1), -1), "wrong area", "annotations[0].areas[1]"),
    "an infinite area": (set_to(("annotations", 0, "areas", 1), float("inf")), "wrong area", "annotations[0].areas[1]"),
    "an area as text": (set_to(("annotations", 0, "areas", 1), "12"), "wrong area", "annotations[0].areas[1]"),
    "an area far off": (set_to(("annotations", 0, "areas", 1), H * W), "area off its mask", "annotations[0].areas[1]"),
    "no areas": (drop("annotations", 0, "areas"), "no areas", "annotations[0].areas"),
    "a mask of another size": (set_to(("annotations", 0, "segmentations", 1), {"size": [W, H], "counts": [0, H * W]}), "mask of another size", "annotations[0].segmentations[1]"),
    "a mask that does not cover": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": [5, 5]}), "broken mask", "annotations[0].segmentations[1]"),
    "a text that does not cover": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": "11"}), "broken mask", "annotations[0].segmentations[1]"),
    "a text that is no RLE": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": "\ud800 é~"}), "broken mask", "annotations[0].segmentations[1]"),
    "a text that breaks off": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": "PPPP"}), "broken mask", "annotations[0].segmentations[1]"),
    "a text of a number too long": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": "P" * 8 + "0" + ALL}), "broken mask", "annotations[0].segmentations[1]"),
    "negative runs": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": [-1, H * W + 1]}), "broken mask", "annotations[0].segmentations[1]"),
    "runs that overflow": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": [2**62, 2**62, 2**62, 2**62 + H * W]}), "broken mask", "annotations[0].segmentations[1]"),
    "no size": (set_to(("annotations", 0, "segmentations", 1), {"counts": [0, H * W]}), "broken mask", "annotations[0].segmentations[1]"),
    "a polygon of two points": (set_to(("annotations", 0, "segmentations", 1), [[1, 1, 5, 5]]), "broken mask", "annotations[0].segmentations[1]"),
    "a polygon not in a list": (set_to(("annotations", 0, "segmentations", 1), [1, 1, 5, 1, 5, 5]), "broken mask", "annotations[0].segmentations[1]"),
    "a polygon with nan": (set_to(("annotations", 0, "segmentations", 1), [[1, 1, 5, 1, 5, float("nan")]]), "broken mask", "annotations[0].segmentations[1]"),
    "a polygon beside the frame": (set_to(("annotations", 0, "segmentations", 1), [[100, 1, 120, 1, 120, 9]]), "mask outside the frame", "annotations[0].segmentations[1]"),
    "a polygon beyond the frame": (set_to(("annotations", 0, "segmentations", 1), [[9, 9, 120, 9, 9, 40]]), "mask beyond the frame", "annotations[0].segmentations[1]"),
    "a polygon that no reader draws": (set_to(("annotations", 0, "segmentations", 1), [[9, 9, 1e12, 9, 9, 40]]), "broken mask", "annotations[0].segmentations[1]"),
    "runs that are no list": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": 5}), "broken mask", "annotations[0].segmentations[1]"),
    "a size that is a number": (set_to(("annotations", 0, "segmentations", 1), {"size": 5, "counts": [5]}), "broken mask", "annotations[0].segmentations[1]"),
    "a width that no frame has": (lambda d, f: d["videos"][2].update(width=2**32) or d.update(annotations=[a for a in d["annotations"] if a["video_id"] != d["videos"][2]["id"]]), "wrong field", "videos[2].width"),
    "annotations are a number": (set_to(("annotations",), 5), "wrong field", "annotations"),
    "no frames": (lambda d, f: (d["videos"].append({"id": 99, "height": 9, "width": 9, "length": 0, "file_names": []})), "wrong field", "videos[3].file_names"),
    "no masks": (set_to(("annotations", 0, "segmentations"), []), "wrong length", "annotations[0].segmentations"),
    "a mask as text": (set_to(("annotations", 0, "segmentations", 1), "mask"), "wrong field", "annotations[0].segmentations[1]"),
    "an empty mask": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": [H * W]}), "empty mask", "annotations[0].segmentations[1]"),
    "a mask of one pixel": (set_to(("annotations", 0, "segmentations", 1), {"size": [H, W], "counts": [100, 1, H * W - 101]}), "mask of 1 pixel", "annotations[0].segmentations[1]"),
    "never visible": (lambda d, f: d["annotations"][0].update({key: [None] * T for key in ("segmentations", "bboxes", "areas")}), "never visible", "annotations[0].segmentations"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIDEO_DEFECTS)
def test_each_defect_is_found_once_and_nothing_else(planted, sources, name):
    change, kind, entry = VIDEO_DEFECTS[name]
    count = len(json.loads((sources["videos"] / "annotations.json").read_text())["annotations"])
    if name == "no list of categories":  # then no annotation's category is known
        folder = planted("videos", lambda d, f: change(d, f) or d.update(annotations=[]))
    else:
        folder = planted("videos", change)
    expected = [(kind, "annotations.json", entry.format(n=count))]
    text = (folder / "annotations.json").read_text()
    if any(word in text for word in ("NaN", "Infinity", "\\ud800")):  # no JSON: readers refuse it
        expected = [("broken file", "annotations.json", ""), *expected]
    assert found(folder) == expected


IMAGE_DEFECTS = {
    "no segmentation": (drop("annotations", 1, "segmentation"), "wrong field", "annotations[1].segmentation"),
    "no polygons": (set_to(("annotations", 1, "segmentation"), []), "empty mask", "annotations[1].segmentation"),
    "a polygon between pixels": (lambda d, f: d["annotations"][1].update(segmentation=[[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]], bbox=[5, 5, 1, 1], area=0), "empty mask", "annotations[1].segmentation"),
    "a negative box": (set_to(("annotations", 1, "bbox"), [3, 4, 5, -6]), "wrong box", "annotations[1].bbox"),
    "a text as area": (set_to(("annotations", 1, "area"), None), "no areas", "annotations[1].area"),
    "unknown image": (set_to(("annotations", 1, "image_id"), 0), "unknown picture", "annotations[1].image_id"),
    "image id twice": (lambda d, f: d["images"].append({**d["images"][0], "file_name": "a.jpg"}) or shutil.copy(f / "images/00000.jpg", f / "images/a.jpg") and None, "duplicate id", "images[3].id"),
    "file named twice": (lambda d, f: d["images"].append({**d["images"][0], "id": 9}), "file named twice", "images[3].file_name"),
    "no height": (lambda d, f: d["images"][0].update(height=0) or d.update(annotations=[a for a in d["annotations"] if a["image_id"] != 1]), "wrong field", "images[0].height"),
    "category 0": (lambda d, f: d["categories"].append({"id": 0, "name": "new"}), "id 0", f"categories[{len(CATEGORIES)}].id"),
    "annotation 0": (set_to(("annotations", 0, "id"), 0), "id 0", "annotations[0].id"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGE_DEFECTS)
def test_each_defect_of_images_too(planted, name):
    change, kind, entry = IMAGE_DEFECTS[name]
    assert found(planted("images", change)) == [(kind, "annotations.json", entry)]


FRAME = "JPEGImages/00001/00002.jpg"


def replace_frame(action):
    def change(data, folder):
        action(folder / FRAME)

    return change


def link_to_itself(path):
    path.unlink()
    os.symlink(path.name, path)


@pytest.mark.parametrize("action, kind, fast", [
    (lambda path: path.unlink(), "missing file", True),
    (lambda path: (path.unlink(), path.mkdir()), "missing file", True),
    (lambda path: path.write_bytes(b""), "unreadable image", True),
    (lambda path: path.write_bytes(b"no image"), "unreadable image", True),
    (lambda path: path.write_bytes(path.read_bytes()[:-300]), "unreadable image", False),
    (lambda path: Image.new("RGB", (W, H + 2)).save(path), "image of another size", True),
    (lambda path: Image.new("RGB", (H, W)).save(path), "image of another size", True),
    (link_to_itself, "link loop", True),
])  # fmt: skip
def test_what_is_wrong_with_a_file(planted, action, kind, fast):
    folder = planted("videos", replace_frame(action))
    expected = [(kind, FRAME, "videos[1].file_names[2]")]
    assert found(folder) == expected
    assert found(folder, read_images=False) == (
        expected if fast else []
    )  # headers do not tell of the end


@pytest.mark.parametrize("name, kind", [
    ("../00000/00000.jpg", "name leads out"), ("/etc/passwd", "name leads out"), ("C:\\a.jpg", "name leads out"),
    ("", "wrong field"), (None, "wrong field"), (["a"], "wrong field"), ("a\0.jpg", "wrong field"),
    ("00000/00000.jpg", "file named twice"), ("./00000/00000.jpg", "file named twice"),
])  # fmt: skip
def test_bad_names(planted, name, kind):
    folder = planted("videos", set_to(("videos", 0, "file_names", 3), name))
    (folder / "JPEGImages/00000/00003.jpg").unlink()
    assert found(folder) == [(kind, "annotations.json", "videos[0].file_names[3]")]


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "\ud800.jpg", "日本/ü.jpg", "\x1b[31m.jpg"])
def test_names_that_no_file_has(planted, name):
    folder = planted("videos", set_to(("videos", 0, "file_names", 0), name))
    (folder / "JPEGImages/00000/00000.jpg").unlink()
    report = check_dataset(folder)
    problems = [p for p in report.problems if p.kind != "broken file"]  # half a pair is no JSON
    assert [(p.kind, p.entry) for p in problems] == [("missing file", "videos[0].file_names[0]")]
    text = str(report)
    text.encode("utf-8")
    assert "\x1b" not in text and str(problems[0]) in text
    assert "日本" in text or "日本" not in name


def test_a_backslash_is_found_or_named(planted):
    """Made on Windows: where the readers find the image, so does the check; else it says what to write."""
    name = "00000\\00000.jpg"
    problems = check_dataset(planted("videos", set_to(("videos", 0, "file_names", 0), name))).errors
    assert all("backslash is part of a name here, write /" in p.what for p in problems)
    assert {p.entry for p in problems} <= {"videos[0].file_names[0]"} and len(problems) <= 1


def test_many_keys_that_stand_twice_take_no_time(planted):
    folder = planted("videos", lambda data, _: None)
    file = folder / "annotations.json"
    keys = "".join(f'"k{i % 30000}": 1, ' for i in range(60_000))
    file.write_text("{" + keys + file.read_text()[1:])
    assert len(check_dataset(folder, read_images=False).problems) == 30_000


def test_names_that_are_not_ascii_are_found(planted):
    def change(data, folder):
        data["videos"][0]["file_names"][0] = "日本/ü é.jpg"
        (folder / "JPEGImages/日本").mkdir()
        (folder / "JPEGImages/00000/00000.jpg").rename(folder / "JPEGImages/日本/ü é.jpg")

    assert found(planted("videos", change)) == []


def test_images_that_nothing_mentions_but_not_behind_links(planted):
    def change(data, folder):
        extra = folder / "JPEGImages/extra"
        shutil.copytree(folder / "JPEGImages/00000", extra)
        (extra / "notes.txt").write_text("no image")
        shutil.copy(folder / FRAME, folder / "JPEGImages/00001/99999.PNG")
        (folder / "JPEGImages/00001/._hidden.jpg").write_text("no image")
        os.symlink("../../JPEGImages", extra / "loop")

    folder = planted("videos", change)
    assert sorted(found(folder)) == [
        ("images not named", "JPEGImages/00001", ""),
        ("images not named", "JPEGImages/extra", ""),
    ]
    said = [p.what for p in check_dataset(folder).warnings]
    assert said == [
        "1 of its 5 images are named by no entry, the first is '99999.PNG'",
        "4 of its 4 images are named by no entry, the first is '00000.jpg'",
    ]


def test_a_video_behind_a_link_is_a_video(planted, tmp_path):
    def change(data, folder):
        (folder / "JPEGImages/00000").rename(tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", folder / "JPEGImages/00000")

    assert found(planted("videos", change)) == []


@pytest.mark.parametrize(
    "withheld", [drop("annotations"), set_to(("annotations",), None), set_to(("annotations",), [])]
)
def test_withheld_labels_are_a_note(planted, withheld):
    report = check_dataset(planted("videos", withheld))
    assert report.problems == [] and len(report.notes) == 1 and "withheld" in report.notes[0]
    assert "withheld" in str(report)


@pytest.mark.parametrize("content, word", [
    ('{"videos": [', "line 1, column 13"), ("", "is empty"), ('{"a": ' + "[" * 100_000, "nest|recursion"),
    ('{"videos": ' + "9" * 5000 + "}", "digits"), ('[{"video_id": 1, "score": 0.5}]', "results"), ("3", "got `int`"),
    ('{"shapes": [], "imagePath": "a.jpg"}', "labelme"), ('{"info": {}}', "no list 'videos'"),
    ('{"videos": [{"id": 1}], "images": [{"id": 1, "video_id": 1}]}', "convert"), (b"\xff\xfe\x00", "UTF-8"),
])  # fmt: skip
def test_files_that_are_no_annotations(sources, tmp_path, content, word):
    file = tmp_path / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (problem,) = check_dataset(sources["videos"], annotations=file).problems
    assert (problem.kind, problem.file, problem.entry) == ("broken file", str(file), "")
    assert any(w in problem.what for w in word.split("|")), problem.what


def test_all_problems_are_reported_and_saved(planted, tmp_path):
    def change(data, folder):
        for i in range(5):
            data["annotations"][i]["category_id"] = 50 + i
        data["annotations"][6]["areas"][0] = -3
        shutil.rmtree(folder / "JPEGImages/00002")
        (folder / FRAME).write_bytes(b"")

    folder = planted("videos", change)
    report = check_dataset(folder)
    assert (
        len(report.errors) == 5 + 1 + T + 1
        and report.warnings == []
        and "zero bytes" in str(report)
    )
    lines = str(report).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("error   unknown category"))
    assert (
        " 5  " in lines[at]
        and "annotations[2].category_id" in lines[at + 2]
        and lines[at + 3].endswith("… and 2 more")
    )
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [p["entry"] for p in saved["problems"]] == [p.entry for p in report.problems]
    assert saved["problems"][0] == {"level": "error", "kind": "unknown category", "file": str(folder / "annotations.json"),
                                    "entry": "annotations[0].category_id", "what": "50 is the id of none of the categories"}  # fmt: skip
    assert saved["counts"] == report.counts and saved["form"] == "YouTube-VIS"


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_dataset(tmp_path)
    with pytest.raises(OSError, match="nothing"):
        check_dataset(tmp_path / "nothing", annotations=tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        check_dataset(tmp_path, annotations=tmp_path / "a.json")


# ------------------------------------------------------------------------------------------------ masks


def measured(mask, size):
    """The kind of problem, and the mask without one."""
    try:
        return "", _measure(mask, size)
    except Finding as found:
        return found.args[0], Mask()


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_rle_is_measured_as_pycocotools_does(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    text = code["counts"].decode()
    runs, pixels = [], mask.T.ravel().tolist()  # by hand
    value = False
    while pixels:
        n = next((i for i, pixel in enumerate(pixels) if pixel != value), len(pixels))
        runs, pixels, value = [*runs, n], pixels[n:], not value
    for counts in (text, runs):
        kind, own = measured({"size": [height, width], "counts": counts}, (height, width))
        area = int(mask.sum())
        assert kind == {0: "empty mask", 1: "mask of 1 pixel"}.get(area, "")
        if area > 1:
            assert own.area == area and list(own.box) == rle_codec.toBbox(code).tolist()


@given(st.text(max_size=30))
def test_no_text_breaks_the_unpacking(text):
    kind, own = measured({"size": [7, 9], "counts": text}, (7, 9))
    assert kind in ("", "broken mask", "empty mask", "mask of 1 pixel")


def test_no_polygon_in_a_frame_of_unknown_size_takes_no_memory():
    assert measured([], None)[0] == "empty mask"


coordinate = st.floats(-1, 61) | st.integers(0, 60)


@settings(max_examples=200)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8))
def test_polygons_are_measured_as_pycocotools_does(points):
    polygon = [float(value) for point in points for value in point]
    kind, own = measured([polygon], (60, 60))
    code = rle_codec.merge(rle_codec.frPyObjects([polygon], 60, 60))
    drawn = int(rle_codec.area(code))
    if kind == "mask outside the frame":
        assert drawn == 0
    else:
        assert kind == {0: "empty mask", 1: "mask of 1 pixel"}.get(drawn, "")
        assert drawn <= 1 or (
            own.area == drawn and list(own.box) == rle_codec.toBbox(code).tolist()
        )


# ------------------------------------------------------------------------------------------------ what may come

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.builds(copy.deepcopy, st.just(FULL)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "size", "counts", "a"]), inner)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """The path of every value within nested lists and objects."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("form", ["videos", "images"])
@settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_no_corruption_stops_the_check(sources, tmp_path, form, data):
    """Whatever stands in the JSON is reported; and what has no error is opened and decoded by the reader."""
    whole = json.loads((sources[form] / "annotations.json").read_text())
    broken = copy.deepcopy(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(broken)) or [()]))
        if not path:
            break
        *before, last = path
        holder = broken
        for key in before:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(junk)
        else:
            del holder[last]
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(broken))
    report = check_dataset(sources[form], annotations=file, read_images=False)
    assert {p.kind for p in report.problems} <= {*ERRORS, *WARNINGS}
    assert str(report) and all(p.file and p.what for p in report.problems)
    if not report.errors:
        for clip in (YouTubeVIS if form == "videos" else COCO)(sources[form], annotations=file):
            for t in range(len(clip)):
                clip.masks(t)


# ------------------------------------------------------------------------------------------------ the command


def run(*argv):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        return main([str(a) for a in argv]), out.getvalue(), err.getvalue()


def test_the_command_tells_errors_from_warnings(planted, sources, tmp_path):
    status, out, _ = run("data", "check", sources["videos"])
    assert status == 0 and "errors: 0, warnings: 0" in out and "fish" in out
    folder = planted("videos", set_to(("annotations", 0, "areas", 1), H * W))
    status, out, _ = run("data", "check", folder, "--fast")
    assert status == 0 and "errors: 0, warnings: 1" in out and "warning area off its mask" in out
    (folder / FRAME).unlink()
    status, out, _ = run("data", "check", folder, "--json", tmp_path / "all.json")
    assert status == 1 and "errors: 1, warnings: 1" in out and FRAME in out
    assert len(json.loads((tmp_path / "all.json").read_text())["problems"]) == 2
    status, _, err = run("data", "check", tmp_path / "none")
    assert status == 2 and err.startswith("minst: ")


def test_a_key_that_stands_twice(planted):
    folder = planted("videos", lambda data, _: None)
    file = folder / "annotations.json"
    file.write_text('{"note": {"a": 1, "a": 2}, ' + file.read_text()[1:])
    (problem,) = check_dataset(folder).problems
    assert problem.kind == "broken file" and problem.what == "the key 'a' stands twice in one object"


def test_an_image_that_a_camera_turned_has_either_size(planted):
    def change(data, folder):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (H, W)).save(folder / FRAME, exif=exif)
        Image.new("RGB", (W, H)).save(folder / "JPEGImages/00001/00003.jpg", exif=exif)

    assert found(planted("videos", change)) == []
