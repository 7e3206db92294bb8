"""A model on a data set: images in COCO form, and several processes that share the work."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.ytvis import decode_mask
from minst.evaluation import evaluate_results
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.predict import category_ids, evaluate_folder, network_size, predict_folder
from minst.protocol import QueryConfig
from minst.engine import Engine

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = ShapesConfig(width=128, height=96, frames=4)


@pytest.fixture(scope="module")
def weights(make_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    make_model(class_names=CATEGORIES, num_classes=len(CATEGORIES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images in COCO form, their categories in another order and with other ids than the model's classes."""
    path = write_shapes_dataset(tmp_path_factory.mktemp("d") / "coco", 5, SIZE, images=True)
    file = json.loads(path.read_text())
    file["categories"] = [{**c, "id": 7 * c["id"]} for c in reversed(file["categories"])]
    file["annotations"] = [{**a, "category_id": 7 * a["category_id"]} for a in file["annotations"]]
    path.write_text(json.dumps(file))
    return path.parent


def test_detections_of_images(images, weights):
    """By a plain loop over queries and classes."""
    entries = list(predict_folder(images, weights, score_threshold=0.4))
    model = MobileInst.from_pretrained(weights).fuse()
    file = json.loads((images / "annotations.json").read_text())
    id_of = {c["name"]: c["id"] for c in file["categories"]}
    assert [e["image_id"] for e in entries] == sorted(e["image_id"] for e in entries)
    for image in file["images"]:
        from minst.data.files import read_image

        with torch.inference_mode():
            out = model(image_to_batch(read_image(images / "images" / image["file_name"])))
            masks = upsample_masks(out.mask_logits, (96, 128))[0] > 0
        expected = {}
        for query in range(8):
            for label, name in enumerate(CATEGORIES):
                score = float(
                    (
                        out.class_logits[0, query, label].sigmoid()
                        * out.objectness[0, query].sigmoid()
                    ).sqrt()
                )
                if score >= 0.4:
                    expected[round(score, 5), id_of[name]] = masks[query].numpy()
        mine = [e for e in entries if e["image_id"] == image["id"]]
        assert [e["score"] for e in mine] == sorted((e["score"] for e in mine), reverse=True)
        assert {
            (round(e["score"], 5), e["category_id"]) for e in mine
        } == expected.keys() and expected
        for entry in mine:
            mask = expected[round(entry["score"], 5), entry["category_id"]]
            np.testing.assert_array_equal(decode_mask(entry["segmentation"], 96, 128), mask)


def test_an_image_has_at_most_a_hundred_detections(images, make_model, tmp_path):
    make_model(class_names=CATEGORIES, num_classes=8, num_queries=30).save_pretrained(tmp_path)
    entries = list(predict_folder(images, tmp_path, videos=1, score_threshold=0.0))
    assert len(entries) == 100 and len({(e["category_id"], e["score"]) for e in entries}) == 100


def test_small_inputs_give_masks_of_the_images_size(images, weights):
    entries = list(predict_folder(images, weights, size=64, videos=2))
    assert entries and all(e["segmentation"]["size"] == [96, 128] for e in entries)


def test_truth_as_results_is_perfect(images):
    truth = json.loads((images / "annotations.json").read_text())
    results = [{**a, "score": 0.9} for a in truth["annotations"]]
    assert evaluate_results(images / "annotations.json", results)["AP"] == pytest.approx(1.0)


def test_a_folder_of_images_is_judged(images):
    """The shipped weights on creatures they know; the first three images alone are another figure."""
    figures = evaluate_folder(images)
    assert figures == evaluate_results(images / "annotations.json", list(predict_folder(images))) | {
        "weights": "shapes-tiny", "folder": images.name}  # fmt: skip
    assert figures["AP50"] > 0.3
    assert evaluate_folder(images, videos=3)["AP"] not in (figures["AP"], -1.0)


class Share(Engine):
    """One of three processes: it notes what it has itself, and is told what all have."""

    def __init__(self, rank, of_all=()):
        super().__init__("cpu")
        self.rank, self.processes, self.of_all, self.own = rank, 3, of_all, None

    def gather(self, items):
        self.own = items
        return self.of_all


@pytest.mark.parametrize("form", ["images", "videos"])
def test_three_processes_give_what_one_gives(images, weights, tmp_path, form):
    folder = images
    if form == "videos":
        folder = write_shapes_dataset(tmp_path / "vis", 4, SIZE).parent
    one = list(predict_folder(folder, weights))
    shares = [Share(rank) for rank in range(3)]
    for share in shares:
        predict_folder(folder, weights, engine=share)
    of_all = [entry for share in shares for entry in share.own]
    key = "image_id" if form == "images" else "video_id"
    assert {e[key] for e in shares[1].own} < {e[key] for e in one}
    together = predict_folder(folder, weights, engine=Share(0, of_all))
    assert list(together) == sorted(one, key=lambda e: e[key])


def listed(names, theirs, ids=None, classes=None):
    """What `category_ids` says of a model and a file with such names: the ids, and the lines."""
    model = SimpleNamespace(config=QueryConfig(names, classes or len(names), 5))
    lines, ids = [], ids or [10 * (i + 1) for i in range(len(theirs))]
    file = SimpleNamespace(categories=tuple(theirs), category_ids=ids, file="a.json")
    return category_ids(model, file, lines.append), lines


def test_categories_meet_by_name():
    names = ("motorcycle", "Tennis racket", "pizza", "aeroplane", "person")
    theirs = ["zebra", "tennis_racket", "Motorbike", "airplane", "Person", "giant_panda"]
    ids, lines = listed(names, theirs, [5, 7, 9, 11, 2, 3])
    assert ids == [9, 7, None, 11, 2]
    assert [line.split(": ")[::2] for line in lines] == [["note", "pizza"], ["note", "zebra, giant_panda"]]
    assert listed(("a", "b"), ["B", "A"]) == ([20, 10], [])
    assert listed((), ["left", "right"], classes=2) == ([10, 20], [])
    for names, classes in ((("dog", "cat"), 2), ((), 3)):
        with pytest.raises(ValueError, match="no category fits.*a.json has .*right") as error:
            listed(names, ["left", "right"], classes=classes)
        assert "\n" not in str(error.value)


def with_categories(images, tmp_path, names):
    """The file of images as if its categories had these names, the rest of them left out."""
    file = json.loads((images / "annotations.json").read_text())
    file["categories"] = [{"id": 7 + i, "name": name} for i, name in enumerate(names)]
    path = tmp_path / f"{len(names)}.json"
    path.write_text(json.dumps({**file, "annotations": None}))
    return path


@pytest.mark.parametrize("form", ["images", "videos"])
def test_classes_that_the_file_lacks_are_left_out(colours, images, tmp_path, form, capsys):
    """Entries for a file without pizza are those for a file with it, less the pizzas."""
    folder, model = images, colours("Fish", "pizza", "turtle")
    if form == "videos":
        folder = write_shapes_dataset(tmp_path / "vis", 2, SIZE).parent
    names = ["TURTLE", "fish", "pizza"]
    found = {
        n: list(predict_folder(folder, model, annotations=with_categories(folder, tmp_path, names[:n]), score_threshold=0.0))
        for n in (2, 3)
    }
    assert "pizza" in capsys.readouterr().out
    assert {e["category_id"] for e in found[3]} == {7, 8, 9}
    assert found[2] == [e for e in found[3] if e["category_id"] != 9] and found[2]


def test_of_several_processes_one_says_what_does_not_fit(colours, images, capsys):
    for rank in range(3):
        list(predict_folder(images, colours("fish", "pizza", "turtle"), videos=1, engine=Share(rank)))
    assert capsys.readouterr().out.count(": pizza") == 1


def test_frames_go_to_a_model_that_resizes_them_as_they_are(colours):
    model = colours("a", "b", "c")
    assert network_size(model, (1080, 1920)) == (480, 853)
    model.seen_side = 800
    assert network_size(model, (1080, 1920)) == (800, 1422) and network_size(model, (540, 960)) == (540, 960)
    model.seen_side = 144  # masks are as fine as frames: small ones are not made smaller
    assert network_size(model, (240, 320)) == (240, 320) and network_size(model, (1080, 1920)) == (480, 853)
    assert network_size(model, (240, 320), size=120) == (120, 160)
