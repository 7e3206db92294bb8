"""Reading YouTube-VIS folders: what a generated one holds comes back; what is broken is named."""

import json
import multiprocessing
import os
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minst.data import ytvis
from minst.data.files import read_image
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip, write_shapes_dataset
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
        assert (
            len(clip) == 5
            and (clip.height, clip.width) == (72, 96)
            and clip.category_ids == dataset.category_ids
        )
        rendered = [source.render(t) for t in range(5)]
        # an instance that is never seen has no track: the rest keep their order
        seen = np.stack([frame.masks for frame in rendered]).any((0, 2, 3))
        assert (
            clip.labels.tolist() == np.asarray(source.labels)[seen].tolist()
            and clip.labels.dtype == np.int64
        )
        for t, (image, frame) in enumerate(zip(clip, rendered, strict=True)):
            read = clip.render(t)
            assert np.array_equal(read.masks, frame.masks[seen]) and read.masks.dtype == bool
            assert (
                np.array_equal(read.image, image)
                and image.shape == (72, 96, 3)
                and image.dtype == np.uint8
            )
            assert np.abs(image.astype(int) - frame.image).mean() < 8  # JPEG
    assert [dataset[i].video["id"] for i in range(2)] == [
        video["id"] for video in dataset.dataset["videos"]
    ]


def test_annotations_of_one_video_are_a_dataset(folder):
    clip = YouTubeVIS(folder)[1]
    alone = json.loads(json.dumps(clip.annotations()))
    assert [v["id"] for v in alone["videos"]] == [clip.video["id"]] and len(
        alone["categories"]
    ) == len(CATEGORIES)
    assert len(alone["annotations"]) == len(clip.labels)
    assert {t["video_id"] for t in alone["annotations"]} == {clip.video["id"]}


def test_images_can_be_written_to(folder):
    """torch.from_numpy warns of arrays that cannot."""
    assert YouTubeVIS(folder)[0].image(0).flags.writeable


# ------------------------------------------------------------------------------------------------ masks (see test_rle.py)


def runs(mask):
    counts, value = [], False
    flat = mask.T.flatten().tolist()
    while flat:
        run = next((i for i, pixel in enumerate(flat) if pixel != value), len(flat))
        counts.append(run)
        flat, value = flat[run:], not value
    return counts


def packed(counts):
    """The text form, from its definition: differences from the fourth on, five bits a character, low ones first."""
    text = ""
    for i, count in enumerate(counts):
        number = count - counts[i - 2] if i > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(seed=st.integers(0, 2**31), corners=st.integers(3, 8))
def test_polygons_against_points_inside(seed, corners):
    """Every pixel whose centre is more than one pixel away from all edges lies inside or outside as geometry says."""
    rng = np.random.default_rng(seed)
    height, width = 20, 30
    points = rng.uniform((-4, -4), (width + 4, height + 4), (corners, 2))
    mask = decode_mask([points.ravel().tolist()], height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    inside, near = np.zeros((height, width), dtype=bool), np.zeros((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
        along = along.clip(0, 1)
        near |= np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) <= 1
        inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    assert np.array_equal(mask | near, inside | near)  # what lies inside twice lies outside


def test_polygons_of_several_parts_and_null():
    mask = decode_mask([[1, 1, 5, 1, 5, 4, 1, 4], [8, 2, 10, 2, 10, 6, 8, 6]], 8, 12)
    expected = np.zeros((8, 12), dtype=bool)
    expected[1:4, 1:5] = expected[2:6, 8:10] = True
    assert np.array_equal(mask, expected)
    for nothing in (None, []):
        assert decode_mask(nothing, 4, 6).shape == (4, 6) and not decode_mask(nothing, 4, 6).any()


def test_masks_of_one_pixel():
    for mask in (
        decode_mask({"size": [1, 1], "counts": [0, 1]}, 1, 1),
        decode_mask([[0, 0, 1, 0, 1, 1, 0, 1]], 1, 1),
    ):
        assert mask.tolist() == [[True]]
    one = decode_mask({"size": [3, 4], "counts": [7, 1, 4]}, 3, 4)
    assert one.sum() == 1 and one[1, 2]


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

    clip = YouTubeVIS(folder, annotations=edited(folder, tmp_path, change))[0]
    assert (
        clip.labels.shape == (0,)
        and clip.masks(0).shape == (0, 72, 96)
        and clip.image(4).shape == (72, 96, 3)
    )


def test_sparse_category_ids_become_classes_and_back(folder, tmp_path):
    def change(dataset):
        for category in dataset["categories"]:
            category["id"] = category["id"] * 10 + 3
        dataset["categories"].reverse()
        for track in dataset["annotations"]:
            track["category_id"] = track["category_id"] * 10 + 3

    clip, before = (
        YouTubeVIS(folder, annotations=edited(folder, tmp_path, change))[0],
        YouTubeVIS(folder)[0],
    )
    assert clip.labels.tolist() == [len(CATEGORIES) - 1 - label for label in before.labels]
    assert [clip.category_ids[label] for label in clip.labels] == [
        t["category_id"] for t in clip.tracks
    ]


def broken(**change):
    def apply(dataset):
        for key, value in change.items():
            if value is None:
                del dataset["annotations"][1][key]
            else:
                dataset["annotations"][1][key] = value

    return apply


@pytest.mark.parametrize("change, message", [
    (broken(video_id=None), r"annotations\[1\]: lacks `video_id`"),
    (broken(category_id=None), r"annotations\[1\]: lacks `category_id`"),
    (broken(segmentations=None), r"annotations\[1\]: lacks `segmentations`"),
    (broken(video_id=99), r"annotations\[1\]: video_id 99"),
    (broken(category_id=99), r"annotations\[1\]: category_id 99"),
    (broken(segmentations=[None]), r"annotations\[1\]: 1 segmentations for 5 frames"),
    (lambda d: d.pop("videos") and None, "no list 'videos'"),
    (lambda d: d.update(categories={}), "categories: expected `array`, got `object`"),
    (lambda d: d.pop("categories") and None, "no list 'categories'"),
    (lambda d: d["videos"][1].pop("file_names") and None, r"videos\[1\]: lacks `file_names`"),
    (broken(id=None), r"annotations\[1\]: lacks `id`"),
    (broken(id=1), r"annotations\[1\]: id 1 is that of annotations\[0\], too"),
    (broken(video_id="1"), r"annotations\[1\]\.video_id: expected `int`, got `str`"),
    (broken(segmentations={}), r"annotations\[1\]\.segmentations: expected `array`, got `object`"),
    (broken(category_id=0), r"annotations\[1\]: category_id 0 is not among"),
    (lambda d: d["videos"].append(d["videos"][0]), r"videos\[2\]: id 1 is that of videos\[0\], too"),
    (lambda d: d["videos"][1].update(file_names=["a.jpg", None]), r"videos\[1\]\.file_names\[1\]: expected `str`, got `null`"),
    (lambda d: d["videos"][1].update(width=0), r"videos\[1\]\.width: expected `int` >= 1"),
    (lambda d: d["videos"][1].pop("height") and None, r"videos\[1\]: lacks `height`"),
    (lambda d: d["categories"].append(d["categories"][1]), r"categories\[\d+\]: id \d+ is that of categories\[1\]"),
    (lambda d: d["categories"][1].pop("name") and None, r"categories\[1\]: lacks `name`"),
    (lambda d: d["categories"].append(7), r"categories\[\d+\]: expected `object`, got `int`"),
    (lambda d: {"images": d["videos"], "categories": [], "annotations": []}, "no list 'videos'; it looks like a COCO"),
    (lambda d: {"images": [], "annotations": [{"id": 1, "image_id": 1}]}, "no list 'videos'; it looks like a COCO"),
    (broken(id=2**63), r"annotations\[1\]\.id: expected `int` <="),
    (broken(iscrowd="no"), r"annotations\[1\]\.iscrowd: expected"),
    (broken(segmentations=[None, {"size": 5, "counts": ""}]), r"annotations\[1\]\.segmentations\[1\]\.size: expected `array`"),
    (broken(segmentations=[[[1, 2, 3, 4]]]), r"annotations\[1\]\.segmentations\[0\]\[0\]: expected `array` of length >= 6"),
    (lambda d: d["videos"][1].update(width=2**32), r"videos\[1\]\.width: expected `int` <= 65535"),
    (lambda d: d["videos"][1].update(file_names=-1), r"videos\[1\]\.file_names: expected `array`, got `int`"),
    (lambda d: {"shapes": [], "imagePath": "a.jpg"}, "no list 'videos'; at its top stand 'shapes', 'imagePath'"),
    (lambda d: d["annotations"], "got `array`, as results are; annotations are an object"),
    (lambda d: [{"video_id": 1, "score": 0.5}], "as results are"),
    (lambda d: d["videos"], "got `array`, as results are; annotations are an object"),
])  # fmt: skip
def test_a_broken_entry_is_named(folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        YouTubeVIS(folder, annotations=edited(folder, tmp_path, change))


def test_missing_and_broken_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="annotations.json"):
        YouTubeVIS(tmp_path)
    (tmp_path / "annotations.json").write_text('{"videos": [}\n')
    with pytest.raises(ValueError, match="annotations.json: broken JSON at line 1, column 13"):
        YouTubeVIS(tmp_path)
    dataset = YouTubeVIS(
        tmp_path, annotations=folder / "annotations.json"
    )  # annotations without their images
    name = dataset[0].video["file_names"][2].rpartition("/")[2]
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        dataset[0].image(2)


def test_every_usual_place_of_the_file(folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text(
        (folder / "annotations.json").read_text()
    )
    assert len(YouTubeVIS(tmp_path)) == 2


def test_grey_of_16_bits_is_scaled_not_cut_off(tmp_path):
    """Levels of 16 bits as `minst track` reads them: v // 257."""
    (tmp_path / "JPEGImages" / "v").mkdir(parents=True)
    levels = np.full((6, 8), 771, np.uint16)
    levels[:, 4:] = 4000
    Image.fromarray(levels).save(tmp_path / "JPEGImages" / "v" / "0.png")
    video = {"id": 1, "height": 6, "width": 8, "file_names": ["v\\0.png"]}  # written on Windows
    dataset = {"videos": [video], "categories": [], "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps(dataset))
    clip = YouTubeVIS(tmp_path)[0]
    assert clip.name == "v" and clip.image(0)[0].tolist() == [[3] * 3] * 4 + [[15] * 3] * 4


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
    with pytest.raises(ValueError, match=f"{path.name}: 96x70, its record says 96x72"):
        clip.image(3)
    Image.new("L", (96, 72), 9).save(path)  # grey images become three equal channels
    assert clip.image(3).shape == (72, 96, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the record says that its masks were drawn on the stored pixels
    Image.new("RGB", (96, 72)).save(path, exif=exif)
    assert clip.image(3).shape == (72, 96, 3)


def test_an_empty_image_and_a_broken_mask_are_named(folder, tmp_path):
    def change(dataset):
        dataset["annotations"][1]["segmentations"][2] = {"size": [72, 96], "counts": [5]}

    dataset = YouTubeVIS(folder, annotations=edited(folder, tmp_path, change))
    clip = dataset[0]
    assert clip.masks(0).any() and clip.masks(1).any()  # others are read
    with pytest.raises(
        ValueError,
        match=r"edited.json: annotation of id 2, frame 2: not a valid RLE: it covers 5 pix",
    ):
        clip.masks(2)
    clip.root = tmp_path
    (tmp_path / "JPEGImages" / clip.name).mkdir(parents=True)
    (tmp_path / "JPEGImages" / clip.video["file_names"][0]).touch()
    (tmp_path / "JPEGImages" / clip.video["file_names"][1]).symlink_to("00001.jpg")  # to itself
    for t in (0, 1):
        with pytest.raises(ValueError, match=f"0000{t}.jpg: not a readable image"):
            clip.image(t)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", r"..\secret.jpg", "C:/x.jpg", "", " "]
)
def test_names_that_lead_out_are_refused(folder, tmp_path, name):
    Image.new("RGB", (96, 72)).save(tmp_path / "secret.jpg")
    (tmp_path / "data").mkdir()

    def change(dataset):
        dataset["videos"][0]["file_names"][3] = dataset["videos"][1]["file_names"][0] = name

    dataset = YouTubeVIS(tmp_path / "data", annotations=edited(folder, tmp_path, change))
    for clip, t in ((dataset[0], 3), (dataset[1], 0)):
        with pytest.raises(ValueError, match="names must stay within|no name of a file"):
            clip.image(t)


def test_a_video_without_frames_and_boxes_of_any_kind(folder, tmp_path):
    def change(dataset):
        dataset["videos"].append({"id": 0, "file_names": [], "height": 1, "width": 1})
        dataset["annotations"][0]["bboxes"] = [[-5, -5, -1, -1], None, [], [1e9] * 4, "x"]

    dataset = YouTubeVIS(folder, annotations=edited(folder, tmp_path, change))
    assert len(dataset[2]) == 0 and dataset[2].name == "0" and list(dataset[2]) == []
    assert dataset[0].masks(0).any()


# ------------------------------------------------------------------------------------------------ any data set


@st.composite
def data_sets(draw):
    """A data set, and the mask of each (annotation, frame)."""
    ids = st.integers(-3, 2**53)
    categories = [
        {"id": i, "name": f"сорт {i}"}
        for i in draw(st.lists(ids, unique=True, min_size=1, max_size=4))
    ]
    videos, tracks, masks = [], [], {}
    for i in draw(st.lists(ids, unique=True, max_size=4)):
        names = [f"видео {i}/{t}.jpg" for t in range(draw(st.integers(0, 3)))]
        size = {"height": draw(st.integers(1, 4)), "width": draw(st.integers(1, 4))}
        videos.append(
            {
                "id": i,
                "file_names": names,
                **size,
                "note": draw(st.sampled_from([None, "ü", [{"a": 1}]])),
            }
        )
    for i in draw(st.lists(ids, unique=True, max_size=6)) if videos else []:
        video = draw(st.sampled_from(videos))
        track = {
            "id": i,
            "video_id": video["id"],
            "category_id": draw(st.sampled_from(categories))["id"],
        }
        crowd = draw(
            st.sampled_from(
                [{}, {"iscrowd": 0}, {"iscrowd": 1}, {"iscrowd": None}, {"iscrowd": True}]
            )
        )
        track |= {**crowd, "segmentations": []}
        for t in range(len(video["file_names"])):
            shape = video["height"], video["width"]
            mask = np.array(
                draw(
                    st.lists(
                        st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]
                    )
                )
            )
            masks[i, t] = mask = mask.reshape(shape)
            forms = [{"size": list(shape), "counts": form(runs(mask))} for form in (list, packed)]
            track["segmentations"].append(
                draw(st.sampled_from(forms if mask.any() else [*forms, None, []]))
            )
        tracks.append(track)
    return {
        "info": {"ä": [1]},
        "videos": videos,
        "categories": categories,
        "annotations": tracks,
    }, masks


def shuffled(value, order):
    """The same in another order of keys, at every depth."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(part, order) for part in value] if isinstance(value, list) else value


@given(
    data=data_sets(),
    order=st.randoms(use_true_random=False),
    indent=st.sampled_from([None, 1]),
    ascii=st.booleans(),
)
def test_any_data_set_comes_back_in_any_order_of_keys(tmp_path_factory, data, order, indent, ascii):
    truth, masks = data
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(
        json.dumps(shuffled(truth, order), indent=indent, ensure_ascii=ascii), encoding="utf-8"
    )
    for dataset in (
        read := YouTubeVIS(file.parent, annotations=file),
        pickle.loads(pickle.dumps(read)),
    ):
        assert (
            len(dataset) == len(truth["videos"]) and dataset.category_entries == truth["categories"]
        )
        assert dataset.dataset == truth and dataset.track_counts.tolist() == [
            len(clip.tracks) for clip in dataset
        ]
        for clip, video in zip(dataset, truth["videos"], strict=True):
            expected = [track for track in truth["annotations"] if track["video_id"] == video["id"]]
            clip = order.choice([clip, pickle.loads(pickle.dumps(clip))])
            assert (
                clip.video == video
                and clip.tracks == expected
                and len(clip) == len(video["file_names"])
            )
            assert [clip.category_ids[label] for label in clip.labels] == [
                t["category_id"] for t in expected
            ]
            assert clip.crowd.tolist() == [bool(track.get("iscrowd")) for track in expected]
            for t in range(len(clip)):
                found = clip.masks(t)
                assert found.shape == (len(expected), video["height"], video["width"])
                assert all(
                    np.array_equal(mask, masks[track["id"], t])
                    for mask, track in zip(found, expected)
                )


# ------------------------------------------------------------------------------------------------ on demand


def test_tracks_are_parsed_when_asked_for(folder, monkeypatch):
    read = []
    whole = ytvis._parsed
    monkeypatch.setattr(
        ytvis, "_parsed", lambda file, texts, kind: read.append(len(texts)) or whole(file, texts, kind)
    )
    dataset = YouTubeVIS(folder)
    assert read == []
    clip = dataset[1]
    assert len(clip.labels) == len(clip.crowd) == dataset.track_counts[1] and read == [
        1
    ]  # its video
    clip.masks(0), clip.masks(1)
    assert read == [1, len(clip.labels)]  # its tracks, once
    with pytest.raises(IndexError):
        dataset[2]
    assert dataset[-1].name == clip.name


def test_memory_does_not_grow_with_the_file(folder, tmp_path):
    """Its text is held, once, and of each entry a few numbers: parsed it would take ten times as much."""

    def change(dataset):
        dataset["annotations"] = [
            {**track, "id": 100 * i + k, "note": "x" * 20_000}
            for i in range(40)
            for k, track in enumerate(dataset["annotations"])
        ]

    file = edited(folder, tmp_path, change)
    tracemalloc.start()
    dataset = YouTubeVIS(folder, annotations=file)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept <= most < file.stat().st_size * 1.2
    assert len(pickle.dumps(dataset)) < file.stat().st_size * 1.1


def test_workers_read_what_was_there_when_it_was_opened(folder, tmp_path):
    file = edited(folder, tmp_path, lambda dataset: None)
    dataset = YouTubeVIS(folder, annotations=file)
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(total, [dataset] * 2, range(2)))
        assert found == [total(dataset, 0), total(dataset, 1)] and all(found)
        file.write_text("changed")
        assert list(pool.map(total, [dataset], [0])) == found[:1]


def test_a_text_that_is_no_utf8_is_named(folder, tmp_path):
    file = edited(folder, tmp_path, lambda dataset: dataset["annotations"][0].update(note="note"))
    file.write_bytes(file.read_bytes().replace(b'"note": "note"', b'"note": "\xff"'))
    with pytest.raises(ValueError, match="edited.json: not text in UTF-8"):
        YouTubeVIS(folder, annotations=file)[0].masks(0)


def total(dataset, i):
    return [int(mask.sum()) for mask in dataset[i].masks(0)]
