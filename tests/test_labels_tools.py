"""What tools really write: each file is made here, with the masks that are right for it.

The moving square: in frame k it has 12 x 12 pixels, its corner at x = 4 + 6 k, y = 6, in 64 x 48.
"""

import base64
import io
import json
import os
import re
import shutil
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from minst import rle
from minst.cli import main
from minst.data.video import write_mp4
from minst.data.ytvis import YouTubeVIS
from minst.labels.convert import FORMATS, convert, guess_format

W, H = 64, 48
FUZZ = int(os.environ.get("MINST_FUZZ", "25"))  # broken inputs of each format
AREAS, BOXES = [144, 144, 144], [[4.0 + 6 * k, 6.0, 12.0, 12.0] for k in range(3)]


def square(k, across=12):
    """Its corners in frame k."""
    x = 4 + 6 * k
    return [[x, 6], [x + across, 6], [x + across, 18], [x, 18]]


def picture(k):
    """The square in red on grey."""
    image = np.full((H, W, 3), 90, np.uint8)
    image[6:18, 4 + 6 * k : 16 + 6 * k] = (220, 30, 30)
    return image


def write_pictures(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(picture(k)).save(folder / name, quality=95)


def converted(source, out, **options):
    """(annotations in the file, what was said)."""
    said = []
    data = json.loads(convert(source, out, progress=said.append, **options).read_text())
    return data, said


def refused(source, out, words, **options):
    with pytest.raises(ValueError, match=words) as raised:
        convert(source, out, **options)
    assert "\n" not in str(raised.value) and not out.exists()


def assert_square(data):
    (track,) = data["annotations"]
    assert (track["areas"], track["bboxes"]) == (AREAS, BOXES)
    assert [category["name"] for category in data["categories"]] == ["cell"]


def is_red(path):
    """The red pixels of a file as they are stored: no note of a camera is obeyed."""
    pixels = np.array(Image.open(path).convert("RGB")).astype(int)
    return (pixels[..., 0] > 150) & (pixels[..., 1] < 100)


# ------------------------------------------------------------------------------------------------ labelme


def write_labelme(folder, *shapes, **more):
    """Three files of the square, and other shapes in each."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(3):
        own = {"label": "cell", "points": square(k), "group_id": 1, "shape_type": "polygon"}
        entry = {"version": "5.5.0", "flags": {}, "shapes": [own, *shapes], "imagePath": f"{k}.jpg"}
        entry |= {"imageData": None, "imageHeight": H, "imageWidth": W}
        for key, value in more.items():
            target = own if key in own else entry
            target[key] = value(k) if callable(value) else value
        (folder / f"{k}.json").write_text(json.dumps(entry))
    return folder


JPEGS = ("0.jpg", "1.jpg", "2.jpg")


@pytest.mark.parametrize("turn", [2, 3, 4, 5, 6, 7, 8])
def test_what_a_camera_turned_is_written_upright(tmp_path, turn):
    """labelme shows images upright, so the pixels that are written must be, too."""
    source = write_labelme(tmp_path / "in")
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180,
            2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 7: Image.Transpose.TRANSVERSE}[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    for k in range(3):
        stored = Image.fromarray(picture(k)).transpose(undo)
        stored.save(source / f"{k}.jpg", quality=95, exif=exif)
    data, _ = converted(source, tmp_path / "out")
    assert_square(data)
    (clip,) = YouTubeVIS(tmp_path / "out")
    for k, name in enumerate(data["videos"][0]["file_names"]):
        red, (mask,) = is_red(tmp_path / "out" / "JPEGImages" / name), clip.masks(k)
        assert (red & mask).sum() / (red | mask).sum() > 0.95


@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("images", [None, "frames"])
def test_labels_in_another_folder_than_the_images(tmp_path, slash, images):
    write_pictures(tmp_path / "frames", JPEGS)
    path = lambda k: slash.join(["..", "frames", f"{k}.jpg"])  # noqa: E731
    source = write_labelme(tmp_path / "labels", imagePath=path)
    data, _ = converted(source, tmp_path / "out", images=images and tmp_path / images)
    assert_square(data)


def test_images_by_name_where_the_user_says_they_are(tmp_path):
    write_pictures(tmp_path / "elsewhere", JPEGS)
    source = write_labelme(tmp_path / "labels", imagePath=lambda k: f"D:\\work\\{k}.jpg")
    refused(source, tmp_path / "out", "leads out of the data set")
    data, _ = converted(source, tmp_path / "out", images=tmp_path / "elsewhere")
    assert_square(data)


def test_no_image_is_read_from_further_away_than_beside_the_labels(tmp_path):
    write_pictures(tmp_path / "secret", JPEGS)
    path = lambda k: f"../../secret/{k}.jpg"  # noqa: E731
    source = write_labelme(tmp_path / "a" / "labels", imagePath=path)
    refused(source, tmp_path / "out", "leads out of the data set")


def embedded(k, format="png"):
    buffer = io.BytesIO()
    Image.fromarray(picture(k)).save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_embedded_picture_comes_first(tmp_path):
    """As in labelme. imagePath names the .json itself, or an image of something else."""
    for name in ("{}.json", "{}.jpg"):
        source = tmp_path / name[3:]
        source.mkdir()
        for k in range(3):
            Image.new("RGB", (W, H)).save(source / f"{k}.jpg")
        write_labelme(source, imagePath=name.format, imageData=embedded)
        data, _ = converted(source, tmp_path / f"out {name[3:]}")
        assert_square(data)
        names = data["videos"][0]["file_names"]
        assert [n.rpartition("/")[2] for n in names] == ["0.png", "1.png", "2.png"]
        assert all(
            is_red(tmp_path / f"out {name[3:]}" / "JPEGImages" / n).sum() == 144 for n in names
        )


def test_a_file_helps_where_the_embedded_picture_is_broken(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    data, _ = converted(write_labelme(tmp_path / "in", imageData="AAAA"), tmp_path / "out")
    assert_square(data)


@pytest.mark.parametrize("kind", ["rectangle", "oriented_rectangle", "rotation"])
def test_rectangles_of_four_corners(tmp_path, kind):
    write_pictures(tmp_path / "in", JPEGS)
    source = write_labelme(tmp_path / "in", shape_type=kind)
    data, said = converted(source, tmp_path / "out")
    assert_square(data)
    assert "lost: 3 boxes without a mask became filled rectangles" in said
    source = write_labelme(source, shape_type=kind, points=[[1, 1], [2, 2], [3, 3]])
    refused(source, tmp_path / "out2", rf"shapes\[0\]: a {kind} has .*four points")


def test_shapes_without_an_area_are_left_out_and_counted(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    odd = [
        ("point", [[1, 2]]),
        ("line", [[1, 2], [3, 4]]),
        ("linestrip", [[1, 2], [3, 4], [5, 5]]),
        ("blob", []),
    ]
    shapes = [{"label": kind, "points": points, "shape_type": kind} for kind, points in odd]
    data, said = converted(write_labelme(tmp_path / "in", *shapes), tmp_path / "out")
    assert_square(data)
    assert said[2:] == [f"lost: 3 {kind}, left out (no area)" for kind, _ in odd]
    assert data["info"]["lost"] == {f"{kind}, left out (no area)": 3 for kind, _ in odd}


def test_labels_without_a_single_shape_are_said(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    data, said = converted(write_labelme(tmp_path / "in", shapes=[]), tmp_path / "out")
    assert data["annotations"] == [] and "note: 1 of 1 videos have no instance" in said


def test_parts_of_one_instance_are_one_mask(tmp_path):
    """Two shapes of one label and group in a frame; where they overlap, a pixel counts once."""
    write_pictures(tmp_path / "in", JPEGS)
    part = {"label": "cell", "group_id": 1, "points": [[14, 6], [20, 6], [20, 18], [14, 18]]}
    data, _ = converted(write_labelme(tmp_path / "in", part), tmp_path / "out")
    (track,) = data["annotations"]
    assert track["areas"] == [16 * 12, 12 * 12, 14 * 12]  # x from 4 to 20, 10 to 22, 14 to 28
    assert track["bboxes"] == [[4, 6, 16, 12], [10, 6, 12, 12], [14, 6, 14, 12]]


# ------------------------------------------------------------------------------------------------ --link


def two_cells(folder, gap=None):
    """Two squares without group_id that move side by side; with `gap` one is missing in that frame."""
    write_pictures(folder, JPEGS)
    lower = lambda k: [[x, y + 20] for x, y in square(k)]  # noqa: E731
    write_labelme(folder, group_id=None)
    for k in range(3):
        file = folder / f"{k}.json"
        entry = json.loads(file.read_text())
        other = {"label": "cell", "points": lower(k), "group_id": None}
        entry["shapes"] = [other, *entry["shapes"]][
            :: 1 if k % 2 else -1
        ]  # another order each time
        entry["shapes"] = [s for s in entry["shapes"] if k != gap or s is not other]
        file.write_text(json.dumps(entry))
    return folder


def test_link_makes_tracks_by_overlap_and_says_which(tmp_path):
    source = two_cells(tmp_path / "in")
    refused(source, tmp_path / "out", r"a second 'cell' in this frame; set group_id .* or --link")
    data, said = converted(source, tmp_path / "out", link=True)
    tracks = sorted(data["annotations"], key=lambda track: track["bboxes"][0][1])
    lower = [[x, y + 20, w, h] for x, y, w, h in BOXES]
    assert [track["bboxes"] for track in tracks] == [BOXES, lower]
    row = "  cell: frames 0 to 2, least overlap 0.33"  # 6 x 12 of 18 x 12 pixels
    assert said[2:] == ["linked: in: 6 shapes became 2 tracks", row, row]


def test_link_ends_where_a_frame_misses_the_instance(tmp_path):
    data, said = converted(two_cells(tmp_path / "in", gap=1), tmp_path / "out", link=True)
    assert sorted(t["areas"] for t in data["annotations"] if None not in t["areas"]) == [AREAS]
    assert len(data["annotations"]) == 3 and sum(line.endswith(" alone") for line in said) == 2


def test_link_does_not_reach_over_a_frame_even_if_nothing_moved(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    source = write_labelme(tmp_path / "in", group_id=None, points=square(0))
    entry = json.loads((source / "1.json").read_text())
    (source / "1.json").write_text(json.dumps({**entry, "shapes": []}))
    data, _ = converted(source, tmp_path / "out", link=True)
    assert [track["areas"] for track in data["annotations"]] == [
        [144, None, None],
        [None, None, 144],
    ]


def test_link_helps_coco_without_track_ids(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)]
    entries = [
        {"image_id": k, "category_id": 1, "segmentation": [sum(square(k), [])]} for k in range(3)
    ]
    data = {"images": images, "categories": [{"id": 1, "name": "cell"}], "annotations": entries}
    (tmp_path / "in" / "coco.json").write_text(json.dumps(data))
    refused(
        tmp_path / "in",
        tmp_path / "out",
        r"annotations\[0\]: no track_id, instance_id .* --link makes",
    )
    assert_square(converted(tmp_path / "in", tmp_path / "out", link=True)[0])


def test_a_full_folder_is_refused_before_the_zip_is_unpacked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(ValueError, match="out is not an empty folder"):
        convert(tmp_path / "no.zip", tmp_path / "out")


def test_link_never_joins_what_does_not_overlap_or_has_another_label(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    far = lambda k: [[x + 14 * k, y] for x, y in square(k)]  # noqa: E731 20 pixels a frame
    source = write_labelme(tmp_path / "in", group_id=None, points=far)
    assert len(converted(source, tmp_path / "a", link=True)[0]["annotations"]) == 3
    source = write_labelme(source, group_id=None, label=lambda k: f"cell {k}")
    assert len(converted(source, tmp_path / "b", link=True)[0]["annotations"]) == 3


def test_link_leaves_given_identities_alone(tmp_path):
    write_pictures(tmp_path / "in", JPEGS)
    loose = {"label": "cell", "points": square(3)}
    data, said = converted(write_labelme(tmp_path / "in", loose), tmp_path / "out", link=True)
    assert [track["areas"] for track in data["annotations"]] == [AREAS, AREAS]
    assert "linked: in: 3 shapes became 1 tracks" in said


# ------------------------------------------------------------------------------------------------ CVAT


def cvat(shapes, head="", images=""):
    return f"<annotations><version>1.1</version>{head}{shapes}{images}</annotations>"


def corners(k, dy=0):
    return ";".join(f"{x:.2f},{y + dy:.2f}" for x, y in square(k))


def track_of(frames, number=0, places=None):
    """A track whose frame t shows the square at place[t]."""
    shapes = [
        f'<polygon frame="{t}" points="{corners(k)}" z_order="0"/>'
        for t, k in zip(frames, places or frames)
    ]
    return f'<track id="{number}" label="cell">{"".join(shapes)}</track>'


def test_cvat_numbers_images_in_the_order_of_their_characters(tmp_path):
    """CVAT sorts 1, 10, 11, 12, 2, ...: the mask of an image lies on the square of that image."""
    (tmp_path / "in" / "images").mkdir(parents=True)
    names = sorted(f"{k}.png" for k in range(1, 13))
    colors = {}
    for k in range(1, 13):
        image = np.full((H, W, 3), 90, np.uint8)
        x, y = 4 + 4 * (k - 1), 10 + k
        image[y : y + 12, x : x + 12] = (220, 30, 30)
        colors[f"{k}.png"] = image[..., 0] > 150
        Image.fromarray(image).save(tmp_path / "in" / "images" / f"{k}.png")
    shapes = ""
    for t, name in enumerate(names):
        rows, columns = np.nonzero(colors[name])
        box = f'xtl="{columns.min()}" ytl="{rows.min()}" xbr="{columns.max() + 1}" ybr="{rows.max() + 1}"'
        shapes += f'<box frame="{t}" {box}/>'
    text = cvat(
        f'<track id="0" label="cell">{shapes}</track>',
        "<meta><task><stop_frame>11</stop_frame></task></meta>",
    )
    (tmp_path / "in" / "annotations.xml").write_text(text)
    data, said = converted(tmp_path / "in", tmp_path / "out")
    (clip,) = YouTubeVIS(tmp_path / "out")
    for t, name in enumerate(data["videos"][0]["file_names"]):
        assert np.array_equal(clip.masks(t)[0], colors[name.rpartition("/")[2]])
    (note,) = [line for line in said if line.startswith("note: ")]
    assert "1.png, 10.png, 11.png, …" in note and "frame_000000" in note


def test_cvat_images_that_are_too_many_or_too_few_are_not_counted_off(tmp_path):
    write_pictures(tmp_path / "in" / "images", JPEGS)
    for stop in (1, 3):
        head = f"<meta><task><stop_frame>{stop}</stop_frame></task></meta>"
        (tmp_path / "in" / "a.xml").write_text(cvat(track_of([0, 1]), head))
        refused(tmp_path / "in", tmp_path / "out", f"3 images, the task has {stop + 1} frames")


def write_frames(folder):
    write_pictures(folder, [f"frame_{k:06d}.png" for k in range(3)])


def test_cvat_points_and_skeletons_are_left_out_and_counted(tmp_path):
    write_frames(tmp_path / "in" / "images")
    points = "".join(f'<points frame="{t}" outside="{t // 2}" points="1,2;3,4"/>' for t in range(3))
    bones = '<skeleton frame="0"><points label="head" points="1,1"/></skeleton>'
    more = f'<track id="1" label="joint">{points}</track><track id="2" label="body">{bones}</track>'
    (tmp_path / "in" / "annotations.xml").write_text(cvat(track_of(range(3)) + more))
    data, said = converted(tmp_path / "in", tmp_path / "out")
    assert_square(data)
    assert said[2:] == [
        "lost: 2 points, left out (no area)",
        "lost: 1 skeleton, left out (no area)",
    ]


def write_brush(folder):
    """Masks of the brush: a track each."""
    write_frames(folder / "images")
    mask = '<mask frame="{}" rle="0, 144" left="{}" top="6" width="12" height="12" outside="{}"/>'
    tracks = [mask.format(k, 4 + 6 * k, 0) + mask.format(k + 1, 4 + 6 * k, 1) for k in range(3)]
    shapes = [f'<track id="{k}" label="cell">{shape}</track>' for k, shape in enumerate(tracks)]
    (folder / "annotations.xml").write_text(cvat("".join(shapes)))
    return folder


def test_cvat_brush_masks_have_no_identity_and_that_is_said(tmp_path):
    data, said = converted(write_brush(tmp_path / "in"), tmp_path / "out")
    assert len(data["annotations"]) == 3
    (note,) = [line for line in said if line.startswith("note: ")]
    assert "3 of 3 tracks have one frame; CVAT's brush masks have no identity; --link" in note
    data, said = converted(tmp_path / "in", tmp_path / "linked", link=True)
    assert_square(data)
    assert "linked: in: 3 shapes became 1 tracks" in said


def test_cvat_masks_are_measured_before_they_are_made(tmp_path):
    write_frames(tmp_path / "in" / "images")
    shape = f'<mask frame="0" rle="0, {10**18}" left="0" top="0" width="{10**9}" height="{10**9}"/>'
    (tmp_path / "in" / "a.xml").write_text(cvat(f'<track id="0" label="cell">{shape}</track>'))
    refused(
        tmp_path / "in", tmp_path / "out", "1000000000x1000000000 at 0, 0 leaves the frame of 64x48"
    )


def write_cvat_images(folder, identity):
    """CVAT for images: two videos by folder, the second with one frame. identity: of shape k."""
    images = ""
    for k, name in enumerate(["a/1.png", "a/2.png", "a/10.png", "b/0.png"]):
        attributes, inner = identity(k)
        images += f'<image id="{k}" name="{name}" width="64" height="48">'
        images += f'<polygon label="cell" {attributes} points="{corners(k % 3)}" z_order="0">{inner}</polygon>'
        images += '<tag label="night"/></image>'
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(k % 3)).save(folder / "images" / name)
    (folder / "annotations.xml").write_text(cvat("", images=images))
    return folder


@pytest.mark.parametrize("identity", [
    lambda k: ("", '<attribute name="track_id">7</attribute>'),
    lambda k: ('track_id="7"', ""),
    lambda k: ("", '<attribute name="instance_id"> 7 </attribute>'),
])  # fmt: skip
def test_cvat_for_images_with_track_ids(tmp_path, identity):
    source = write_cvat_images(tmp_path / "in", identity)
    data, said = converted(source, tmp_path / "out")
    assert [v["file_names"] for v in data["videos"]] == [
        ["a/1.png", "a/2.png", "a/10.png"],
        ["b/0.png"],
    ]
    first, second = data["annotations"]
    assert (first["areas"], first["bboxes"]) == (AREAS, BOXES) and second["bboxes"] == BOXES[:1]
    assert "lost: 4 tag, left out (no area)" in said


def test_cvat_for_images_without_track_ids_can_be_linked(tmp_path):
    source = write_cvat_images(tmp_path / "in", lambda k: ("", ""))
    refused(
        source,
        tmp_path / "out",
        r"image a/1.png, shape 0 .polygon.: no attribute track_id; .*--link",
    )
    data, _ = converted(source, tmp_path / "out", link=True)
    assert [t["areas"] for t in data["annotations"]] == [AREAS, [144]]


# ------------------------------------------------------------------------------------------------ YOLO


def write_yolo(folder, line, names="names: [cell]", prefix="clip_"):
    """The square in shares of the image; line(polygon, frame) gives the text."""
    (folder / "labels").mkdir(parents=True)
    write_pictures(folder / "images", [f"{prefix}{k}.jpg" for k in (9, 10, 11)])
    for k in range(3):
        polygon = " ".join(f"{x / W:.6f} {y / H:.6f}" for x, y in square(k))
        (folder / "labels" / f"{prefix}{9 + k}.txt").write_text(line(polygon, k) + "\n")
    if names:
        (folder / "data.yaml").write_text(f"train: images\nnc: 1\n{names}\nval: images\n")
    return folder


def box(k):
    return f"{(10 + 6 * k) / W:.6f} {12 / H:.6f} {12 / W:.6f} {12 / H:.6f}"


@pytest.mark.parametrize("line", [
    lambda polygon, k: f"0 {polygon} 1",
    lambda polygon, k: f"0 {polygon} 0.912 1",  # save_conf
    lambda polygon, k: f"0 {polygon} 17",
    lambda polygon, k: f"0 {box(k)} 3",
    lambda polygon, k: f"0 {box(k)} 0.5 3",
])  # fmt: skip
def test_yolo_lines_with_track_ids(tmp_path, line):
    data, said = converted(write_yolo(tmp_path / "in", line), tmp_path / "out")
    assert_square(data)
    assert said[0] == "format: yolo" and data["videos"][0]["file_names"][0] == "clip/clip_9.jpg"
    is_box = len(line("", 0).split()) > 3
    assert ("lost: 3 boxes without a mask became filled rectangles" in said) == is_box


@pytest.mark.parametrize("names", [
    "names: ['cell', dog]", 'names:\n- "cell"\n- dog', "names:\n  0: cell\n  1: dog", "names: {0: cell, 1: dog}",
    "names:\n  1: dog\n  0: cell", "names: [\n  cell,\n  dog ]", "names: # two\n\n  # first\n  0: cell # round\n  1: dog",
])  # fmt: skip
def test_yolo_names_in_every_way_that_yaml_has(tmp_path, names):
    source = write_yolo(tmp_path / "in", lambda polygon, k: f"0 {polygon} 1\n1 {polygon} 2", names)
    data, _ = converted(source, tmp_path / "out")
    of = {c["id"]: c["name"] for c in data["categories"]}
    assert [of[track["category_id"]] for track in data["annotations"]] == ["cell", "dog"]


def test_yolo_without_names_and_with_those_of_a_text(tmp_path):
    source = write_yolo(tmp_path / "in", lambda polygon, k: f"0 {polygon} 1", names="")
    assert converted(source, tmp_path / "a")[0]["categories"] == [{"id": 1, "name": "class 0"}]
    (source / "labels" / "classes.txt").write_text("cell\n")
    (source / "classes.txt").write_text("cell\ndog\n")
    assert [c["name"] for c in converted(source, tmp_path / "b")[0]["categories"]] == [
        "cell",
        "dog",
    ]


def test_yolo_images_without_text_show_nothing_and_no_id_asks_for_link(tmp_path):
    source = write_yolo(tmp_path / "in", lambda polygon, k: f"0 {polygon}")
    refused(
        source, tmp_path / "out", r"clip_9.txt: line 1: no id at the end of the line; .* --link"
    )
    assert_square(converted(source, tmp_path / "a", link=True)[0])
    (source / "labels" / "clip_10.txt").unlink()
    (source / "labels" / "clip_11.txt").write_text("")
    data, _ = converted(source, tmp_path / "b", link=True)
    assert data["annotations"][0]["areas"] == [144, None, None]


def test_yolo_of_a_film_whose_frames_count_from_one(tmp_path):
    source = write_yolo(tmp_path / "in", lambda polygon, k: f"0 {polygon} 1", prefix="film_")
    (tmp_path / "in" / "images").rename(tmp_path / "gone")
    refused(source, tmp_path / "out", "there is no image of this name")
    write_mp4(
        [picture(0)] * 8 + [picture(k) for k in range(3)] + [picture(0)] * 5, tmp_path / "film.mp4"
    )
    data, _ = converted(source, tmp_path / "out", images=tmp_path / "film.mp4")
    (track,) = data["annotations"]
    assert track["areas"] == [None] * 8 + AREAS and len(data["videos"][0]["file_names"]) == 11


def test_yolo_of_several_films_or_of_a_frame_before_the_first(tmp_path):
    source = write_yolo(tmp_path / "in", lambda polygon, k: f"0 {polygon} 1", prefix="film_")
    write_mp4([picture(0)] * 12, tmp_path / "film.mp4")
    text = (source / "labels" / "film_9.txt").read_text()
    several = "texts of several films .film, other"
    for name, words in (
        ("other_1", several),
        ("film_0", "film_0.txt: frames of a film count from 1"),
    ):
        (source / "labels" / f"{name}.txt").write_text(text)
        refused(source, tmp_path / "out", words, images=tmp_path / "film.mp4")
        (source / "labels" / f"{name}.txt").unlink()


@pytest.mark.parametrize("line, words", [
    ("0 0.1 0.1 0.9 x 0.9 0.9 1", "clip_10.txt: line 2: not 'class x1 y1"),
    ("0 0.1 0.1 0.9 nan 0.9 0.9 1", "clip_10.txt: line 2: not 'class x1 y1"),
    ("0 0.1 0.1 300 0.1 0.9 0.9 1", "clip_10.txt: line 2: not 'class x1 y1"),
    ("0", "clip_10.txt: line 2: not 'class x1 y1"),
    ("cell 0.1 0.1 0.9 0.1 0.9 0.9 1", "clip_10.txt: line 2: not 'class x1 y1"),
])  # fmt: skip
def test_bad_yolo(tmp_path, line, words):
    source = write_yolo(
        tmp_path / "in", lambda polygon, k: f"0 {polygon} 1" + f"\n{line}" * (k == 1)
    )
    refused(source, tmp_path / "out", words)


# ------------------------------------------------------------------------------------------------ SAM 2


def write_sam2(folder, masks="Annotations", images="JPEGImages", values=255):
    """A folder of black and white PNGs for each of two objects, the second not in the last frame."""
    write_pictures(folder / images / "clip", [f"{k:05d}.jpg" for k in range(3)])
    for number, rows in (("001", slice(6, 18)), ("002", slice(30, 40))):
        (folder / masks / "clip" / number).mkdir(parents=True)
        for k in range(3):
            mask = np.zeros((H, W), np.uint8)
            width = 12 if number == "001" else 20 * (k < 2)
            mask[rows, 4 + 6 * k : 4 + 6 * k + width] = values
            image = Image.fromarray(mask > 0 if values == 1 else mask)
            image.save(folder / masks / "clip" / number / f"{k:05d}.png")
    return folder


@pytest.mark.parametrize("values", [255, 1])
def test_sam2_a_folder_for_each_object(tmp_path, values):
    data, said = converted(write_sam2(tmp_path / "in", values=values), tmp_path / "out")
    assert said == ["format: davis", "guessed: Annotations/clip/ holds PNG files"]
    assert [track["areas"] for track in data["annotations"]] == [AREAS, [200, 200, None]]
    masks = tmp_path / "in" / "Annotations"  # SAM 2 writes this folder alone
    images = tmp_path / "in" / "JPEGImages"
    data, _ = converted(masks, tmp_path / "b", format="davis", images=images)
    assert [track["areas"] for track in data["annotations"]] == [AREAS, [200, 200, None]]


def test_sav_of_six_frames_a_second_of_twenty_four(tmp_path):
    source = write_sam2(tmp_path / "in", "Annotations_6fps", "JPEGImages_24fps")
    write_pictures(source / "JPEGImages_24fps" / "clip", [f"{k:05d}.jpg" for k in range(9)])
    for path in sorted((source / "Annotations_6fps").rglob("*.png"), reverse=True):
        path.rename(path.with_name(f"{4 * int(path.stem):05d}.png"))
    data, said = converted(source, tmp_path / "out")
    names = [name.rpartition("/")[2] for name in data["videos"][0]["file_names"]]
    assert names == ["00000.jpg", "00004.jpg", "00008.jpg"]
    assert "lost: 6 frames without a PNG, left out" in said


def write_sav(folder, **change):
    masks = []
    for k in range(3):
        mask = np.zeros((H, W), bool)
        mask[6:18, 4 + 6 * k : 16 + 6 * k] = True
        masks.append([rle.encode(mask), rle.encode(mask & (k > 0))])
    data = {"video_id": "sav_1", "video_frame_count": 9.0, "masklet": masks, "masklet_id": [0, 5]}
    folder.mkdir()
    (folder / "sav_1_manual.json").write_text(json.dumps({**data, **change}))
    return folder


def test_sav_json_beside_its_film(tmp_path):
    source = write_sav(tmp_path / "in")
    refused(source, tmp_path / "out", "no frames of sav_1.mp4 there; say where the film is")
    write_mp4([np.full((H, W, 3), 20 * t, np.uint8) for t in range(9)], source / "sav_1.mp4")
    data, said = converted(source, tmp_path / "out")
    assert said[:2] == ["format: sav", "guessed: sav_1_manual.json has the key 'masklet'"]
    assert [track["areas"] for track in data["annotations"]] == [AREAS, [None, 144, 144]]
    (clip,) = YouTubeVIS(tmp_path / "out")
    assert [round(clip.image(t).mean() / 20) for t in range(3)] == [0, 4, 8]
    write_pictures(tmp_path / "frames", [f"{k:05d}.jpg" for k in range(9)])
    data, _ = converted(source / "sav_1_manual.json", tmp_path / "b", images=tmp_path / "frames")
    assert data["videos"][0]["file_names"][1].endswith("/00004.jpg")


@pytest.mark.parametrize("change, words", [
    ({"masklet": [[None], [None, None]]}, r"masklet\[0\]: 1 masks of 2 objects"),
    ({"masklet": [[None, {"size": [H, W], "counts": "11"}]]}, r"masklet\[0\]\[1\]: .*covers 2 pixels"),
    ({"masklet": [[None, [[1, 1, 9, 1, 9, 9]]]]}, r"masklet\[0\]\[1\]: a mask must be null or RLE"),
    ({"masklet": []}, "no frames of sav_1.mp4"),
    ({"masklet": 3}, r"masklet: expected `array`, got `int`"),
    ({"video_id": "../secret"}, "leads out of the data set"),
])  # fmt: skip
def test_bad_sav(tmp_path, change, words):
    source = write_sav(tmp_path / "in", **change)
    write_mp4([picture(0)] * 9, source / "sav_1.mp4")
    write_mp4([picture(0)] * 9, tmp_path / "secret.mp4")
    refused(source, tmp_path / "out", words)


# ------------------------------------------------------------------------------------------------ zips


def zipped(folder, path, top=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("top", ["", "my task/"])
def test_zips_are_read(tmp_path, top):
    source = write_sam2(tmp_path / "in")
    task = zipped(source, tmp_path / "task.ZIP", top)
    data, said = converted(task, tmp_path / "out")
    assert said[0] == "format: davis" and len(data["annotations"]) == 2
    write_frames(tmp_path / "c" / "images")
    (tmp_path / "c" / "annotations.xml").write_text(cvat(track_of(range(3))))
    task = zipped(tmp_path / "c", tmp_path / "cells.zip", top)
    data, _ = converted(task, tmp_path / "out2", format="cvat")
    assert_square(data)
    name = top[:-1] or "cells"
    assert data["videos"][0]["file_names"][0] == f"{name}/frame_000000.png"
    with zipfile.ZipFile(task, "a") as archive:
        archive.writestr("__MACOSX/._annotations.xml", "x")
    assert_square(converted(task, tmp_path / "out3")[0])


def test_errors_within_a_zip_name_the_zip(tmp_path):
    write_frames(tmp_path / "in" / "images")
    (tmp_path / "in" / "annotations.xml").write_text("<annotations><track>")
    task = zipped(tmp_path / "in", tmp_path / "task.zip")
    refused(task, tmp_path / "out", f"^{task}/annotations.xml: broken XML")


@pytest.mark.parametrize(
    "name", ["../evil.xml", "/etc/evil.xml", "a/../../evil.xml", "C:\\evil.xml", "..\\evil.xml"]
)
def test_names_that_lead_out_of_a_zip(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations.xml", cvat(""))
        archive.writestr(name, "x")
    refused(tmp_path / "a.zip", tmp_path / "out", "a.zip: the name .* leads out")
    assert not [*tmp_path.rglob("evil.xml")]


def test_bombs_lies_and_what_is_no_zip(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.xml", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    refused(bomb, tmp_path / "out", r"1 files of 314,572,800 bytes in a zip of .*bomb")
    # a list that says that the file is small: no more than that is read, and its sum is wrong
    content = bytearray(bomb.read_bytes())
    size = struct.pack("<L", 300 * 2**20)
    assert content.count(size) >= 1
    bomb.write_bytes(content.replace(size, struct.pack("<L", 100)))
    refused(bomb, tmp_path / "out", "bomb.zip: not a readable zip")
    (tmp_path / "no.zip").write_text("no zip")
    refused(tmp_path / "no.zip", tmp_path / "out", "no.zip: not a readable zip")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.writestr("a.xml", "x")
        archive.writestr("a.xml/b.xml", "x")
    refused(tmp_path / "both.zip", tmp_path / "out", "both.zip: not a readable zip")
    whole = zipped(write_sam2(tmp_path / "in"), tmp_path / "cut.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    refused(tmp_path / "cut.zip", tmp_path / "out", "cut.zip: not a readable zip")


def test_damaged_zips_end_in_one_line(tmp_path):
    write_frames(tmp_path / "in" / "images")
    (tmp_path / "in" / "a.xml").write_text(cvat(track_of(range(3))))
    whole = zipped(tmp_path / "in", tmp_path / "a.zip").read_bytes()
    rng = np.random.default_rng(7)
    for i in range(4 * FUZZ):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 5)):
            content[at] = rng.integers(256)
        (tmp_path / "a.zip").write_bytes(
            content[: rng.integers(len(whole)) if i % 5 == 0 else None]
        )
        try:
            convert(tmp_path / "a.zip", tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
        except ValueError as error:
            assert "\n" not in str(error) and "a.zip" in str(error)


# ------------------------------------------------------------------------------------------------ guesses


def test_texts_alone_are_not_mots_and_annotations_alone_is_not_davis(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("bring cake\n")
    refused(tmp_path / "texts", tmp_path / "out", r"looks like none of .*--from.*There is 1 .txt")
    voc = tmp_path / "voc" / "Annotations"
    voc.mkdir(parents=True)
    (voc / "0001.xml").write_text("<annotation><object/></annotation>")
    write_pictures(tmp_path / "voc" / "JPEGImages", JPEGS)
    refused(
        tmp_path / "voc",
        tmp_path / "out",
        r"looks like none of .*There is Annotations/, JPEGImages/",
    )
    boxes = tmp_path / "mot" / "gt"
    boxes.mkdir(parents=True)
    (boxes / "gt.txt").write_text("1,1,10,20,30,40,1,-1,-1,-1\n")
    refused(tmp_path / "mot", tmp_path / "out", "looks like none of")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "a.json").write_text('{"rows": [], "columns": []}')
    refused(tmp_path / "json", tmp_path / "out", "JSON with the keys columns, rows")


def test_every_format_says_what_speaks_for_it(tmp_path):
    sources = {
        "labelme": write_labelme(tmp_path / "labelme"),
        "yolo": write_yolo(tmp_path / "yolo", lambda polygon, k: f"0 {polygon} 1"),
        "davis": write_sam2(tmp_path / "davis"),
        "sav": write_sav(tmp_path / "sav"),
        "cvat": write_brush(tmp_path / "cvat"),
        "mots": tmp_path / "mots",
        "coco": tmp_path / "coco",
    }
    (tmp_path / "mots").mkdir()
    (tmp_path / "mots" / "a.txt").write_text("0 1001 1 4 6 522O<\n")
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "a.json").write_text('{"images": []}')
    assert {*sources} == {*FORMATS}
    assert {name: guess_format(source)[0] for name, source in sources.items()} == {
        n: n for n in sources
    }


# ------------------------------------------------------------------------------------------------ the writer


def test_two_images_of_one_name_are_refused_after_their_suffix_changed(tmp_path):
    """a.png and a.bmp both become a.png: one would be written over the other."""
    write_pictures(tmp_path / "in", ["a.png", "a.bmp"])
    images = [{"id": i, "file_name": f"a.{suffix}"} for i, suffix in enumerate(("png", "bmp"))]
    data = {"images": images, "categories": [], "annotations": []}
    (tmp_path / "in" / "coco.json").write_text(json.dumps(data))
    refused(tmp_path / "in", tmp_path / "out", "two images are called a.png")


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("text", [DEEP, f'{{"shapes": {DEEP}}}', f'{{"images": {DEEP}}}', f'{{"masklet": {DEEP}}}',
                                  f'{{"shapes": [], "imagePath": "a.jpg", "x": {DEEP}}}'])  # fmt: skip
def test_json_that_is_nested_too_deeply_is_one_line(tmp_path, text, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(text)
    for chosen in ((), ("--from", "coco"), ("--from", "labelme"), ("--from", "sav")):
        argv = ["data", "convert", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *chosen]
        assert main(argv) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert (
            error.startswith("minst: ")
            and "a.json" in error
            and ("deeply" in error or "expected" in error)
        ), error


def test_the_command_links_and_names_its_options(tmp_path, capsys):
    source = two_cells(tmp_path / "in")
    argv = ["data", "convert", str(source), "--link", "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert "linked: in: 6 shapes became 2 tracks" in capsys.readouterr().out
    assert main([*argv[:-1], str(tmp_path / "b"), "--to", "davis"]) == 2
    assert "--link" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what may come

HARSH = [
    "null",
    "-1",
    "1e400",
    "1e9",
    "[]",
    "{}",
    '""',
    "true",
    "99999999999999999999",
    '"../x"',
    "0.5",
    '"\\ud800"',
    "[[1,2]]",
]


def broken(text, rng):
    """A text with one to three of its numbers, words or bytes replaced, cut out or doubled."""
    for _ in range(rng.integers(1, 4)):
        spots = [m.span() for m in re.finditer(r'"[^"]*"|-?[0-9.]+|null', text)] or [(0, 1)]
        start, stop = spots[rng.integers(len(spots))]
        at = int(rng.integers(len(text) + 1))
        text = [
            lambda: text[:start] + HARSH[rng.integers(len(HARSH))] + text[stop:],
            lambda: text[:start] + text[stop:],
            lambda: text[:at],
            lambda: text[:at] + chr(rng.integers(1, 255)) + text[at + 1 :],
            lambda: text[:at] + text[start:stop] * 3 + text[at:],
        ][rng.integers(5)]()
    return text


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_broken_sources_end_in_one_line(tmp_path, kind):
    """Seeded; whatever stands in the file, the answer is a data set that the reader opens, or a ValueError."""
    rng = np.random.default_rng([*kind.encode()])
    source = tmp_path / "in"
    {
        "labelme": lambda: (write_labelme(source), write_pictures(source, JPEGS)),
        "yolo": lambda: write_yolo(source, lambda polygon, k: f"0 {polygon} 1"),
        "davis": lambda: (write_sam2(source), (source / "meta.json").write_text(json.dumps({"videos": {"clip": {
            "objects": {"1": {"category": "cell"}, "2": {"category": "dog"}}}}}))),
        "sav": lambda: (write_sav(source), write_mp4([picture(0)] * 9, source / "sav_1.mp4")),
        "cvat": lambda: write_cvat_images(source, lambda k: ('track_id="7"', "")) if rng.integers(2) else write_brush(source),
        "mots": lambda: (write_pictures(source / "images" / "a", JPEGS), (source / "a.txt").write_text(
            "".join(f"{k} 1001 1 48 64 {rle.encode(is_cell(k))['counts']}\n" for k in range(3)))),
        "coco": lambda: (write_pictures(source, JPEGS), (source / "a.json").write_text(json.dumps({
            "images": [{"id": k, "file_name": f"{k}.jpg", "height": H, "width": W} for k in range(3)],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [{"image_id": k, "category_id": 1, "track_id": 3, "iscrowd": 0, "bbox": [1, 1, 5, 5],
                             "segmentation": [sum(square(k), [])] if k else None} for k in range(3)]}))),
    }[kind]()  # fmt: skip
    texts = [
        p for p in sorted(source.rglob("*.*")) if p.suffix in (".json", ".xml", ".txt", ".yaml")
    ]
    converted(source, tmp_path / "whole", format=kind)
    for i in range(FUZZ):
        file = texts[rng.integers(len(texts))]
        before = file.read_bytes()
        file.write_text(broken(before.decode(), rng), encoding="utf-8", errors="surrogatepass")
        try:
            out = convert(source, tmp_path / f"out{i}", kind if i % 2 else None, link=bool(i % 3))
            for clip in YouTubeVIS(out.parent):
                clip.masks(0)
        except ValueError as error:
            assert "\n" not in str(error)
        file.write_bytes(before)
        shutil.rmtree(tmp_path / f"out{i}", ignore_errors=True)


def is_cell(k):
    mask = np.zeros((H, W), bool)
    mask[6:18, 4 + 6 * k : 16 + 6 * k] = True
    return mask
