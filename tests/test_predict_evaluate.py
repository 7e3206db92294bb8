"""A model on a folder: every figure is what its own function says of the same tracks and queries, at the price of one."""

import json
import sys

import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.evaluation import ConsistencyMeter, IdentityMeter, evaluate_ytvis
from minst.evaluation.consistency import frame_share
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.predict import (
    EVALUATION_THRESHOLD,
    encode,
    evaluate_folder,
    masks_of_queries,
)
from minst.tracking import KernelTracker


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "val"
    write_shapes_dataset(folder, 2, ShapesConfig(frames=7, speed=2.0), seed=1)
    return YouTubeVIS(folder)


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


def query_masks(model, clip):
    """The mask of every query in every frame, each as a key frame: T arrays (N, H, W) bool."""
    return [masks_of_queries(encode(model, image)) for image in clip]


@pytest.fixture(scope="module")
def figures(model, dataset):
    return evaluate_folder(dataset, model, reuse_interval=2, association="mask")


def test_ap_is_that_of_tracks_of_low_score(model, dataset, figures):
    tracker = KernelTracker(model, 2, "mask", score_threshold=EVALUATION_THRESHOLD)
    results = [
        entry
        for clip in (dataset[0], dataset[1])
        for entry in tracker.track(clip).to_ytvis(clip.video["id"])
    ]
    expected = evaluate_ytvis(dataset.dataset, results)
    assert {key: figures[key] for key in expected} == expected and figures["AP"] > 0.3


def test_identities_are_those_of_the_tracker_as_it_is(model, dataset, figures):
    meter, tracker = IdentityMeter(), KernelTracker(model, 2, "mask")
    for clip in (dataset[0], dataset[1]):
        meter.add_clip(tracker.track(clip), clip)
    expected = {"score_threshold": 0.5, **meter.result()}
    assert json.dumps(figures["identity"]) == json.dumps(expected)
    assert (
        set(figures["identity"]["per_category"]) <= set(dataset.categories)
        and figures["identity"]["visible"] > 20
    )


def test_consistency_is_that_of_the_queries(model, dataset, figures):
    said = figures["consistency"]
    assert said["clips"] == 2 and said["held"] > 10
    parts = []
    for clip in (dataset[0], dataset[1]):
        names = [clip.categories[label] for label in clip.labels]
        with torch.inference_mode():
            outs = [model(image_to_batch(image)) for image in clip]
        classes = [model.config.class_names.index(name) for name in names]
        probabilities = [out.class_logits[0].sigmoid().numpy()[:, classes] for out in outs]
        scores = [out.scores()[0].amax(-1).numpy() for out in outs]
        truths = [clip.masks(t) for t in range(7)]
        meter = ConsistencyMeter().add_clip(
            query_masks(model, clip), truths, names, probabilities, scores
        )
        parts.append(meter.result())
    assert said["holders"] == pytest.approx(
        sum(p["holders"] * p["held"] for p in parts) / said["held"]
    )
    assert said["sure_holders"] == pytest.approx(
        sum(p["sure_holders"] * p["held"] for p in parts) / said["held"]
    )
    for k in (1, 5, 10):
        assert said["pairs"][k] == {
            key: sum(p["pairs"][k][key] for p in parts) for key in ("kept", "of")
        }
    assert said["held"] == sum(p["held"] for p in parts) and said["visible"] == sum(
        p["visible"] for p in parts
    )
    for group in ("low", "medium", "high"):
        held = [p["per_difficulty"]["size"][group]["held"] for p in parts]
        assert said["per_difficulty"]["size"][group]["held"] == sum(held)
    assert set(said["per_category"]) == set().union(*(p["per_category"] for p in parts))


def test_every_frame_is_computed_once(model, dataset, monkeypatch):
    calls = {"encode": 0, "decode": 0}
    for name in calls:

        def counted(self, given, *rest, name=name, original=getattr(MobileInst, name)):
            calls[name] += 1
            return original(self, given, *rest)

        monkeypatch.setattr(MobileInst, name, counted)
    evaluate_folder(dataset, model, reuse_interval=2, videos=1)
    assert calls == {"encode": 7, "decode": 7}


def test_the_frame_share_is_that_of_the_first_frame_of_each_clip(model, dataset, figures):
    with torch.inference_mode():
        outs = [model(image_to_batch(dataset[i].image(0))) for i in (0, 1)]
    queries = np.stack([out.global_queries[0].numpy() for out in outs])
    kernels = np.stack([out.kernels[0].numpy() for out in outs])
    assert figures["frame_share"] == pytest.approx(
        {"global_queries": frame_share(queries), "kernels": frame_share(kernels)}, rel=1e-4
    )


def test_without_trackeval_the_rest_is_there(model, dataset, figures, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackeval", None)
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    said = evaluate_folder(dataset, model, reuse_interval=2, association="mask")["identity"]
    assert "mobileinst[track]" in said.pop("note") and set(figures["identity"]) >= set(said)
    assert json.dumps({key: figures["identity"][key] for key in said}) == json.dumps(said)


def test_a_folder_by_name(dataset):
    said = evaluate_folder(dataset.root, reuse_interval=3, association="cosine", videos=1)
    assert said["setting"] == {"videos": 1, "reuse_interval": 3, "association": "cosine"}
    assert (
        said["weights"] == "shapes-tiny"
        and said["folder"] == "val"
        and said["consistency"]["clips"] == 1
    )


def test_a_clip_without_instances_and_one_of_one_frame(model, dataset):
    lonely = {
        **dataset.dataset,
        "annotations": [a for a in dataset.dataset["annotations"] if a["video_id"] != 1],
    }
    short = {
        **lonely["videos"][1],
        "file_names": lonely["videos"][1]["file_names"][:1],
        "length": 1,
    }
    tracks = [
        {**a, "segmentations": a["segmentations"][:1], "areas": a["areas"][:1]}
        for a in lonely["annotations"]
    ]
    file = dataset.root / "short.json"
    file.write_text(
        json.dumps({**lonely, "videos": [lonely["videos"][0], short], "annotations": tracks})
    )
    said = evaluate_folder(YouTubeVIS(dataset.root, annotations=file), model)
    assert said["consistency"]["clips"] == 2 and np.isnan(said["consistency"]["retention"][1])
    assert said["identity"]["visible"] == said["consistency"]["visible"] > 0
    assert said["identity"]["fragmentations"] == said["identity"]["swaps"] == 0


def test_other_categories_are_refused(model, dataset):
    file = dataset.root / "other.json"
    categories = [{**c, "name": c["name"][::-1]} for c in dataset.dataset["categories"]]
    file.write_text(json.dumps({**dataset.dataset, "categories": categories}))
    with pytest.raises(ValueError, match="no category fits.*the model knows .*fish.*other.json has .*hsif"):
        evaluate_folder(YouTubeVIS(dataset.root, annotations=file), model)


def test_a_category_that_the_model_does_not_know_is_never_found_and_said(model, dataset, figures, capsys):
    """The others' figures stay as they are, however their names are spelled."""
    known = {c["id"]: c["name"] for c in dataset.dataset["categories"]}
    lost = known[dataset.dataset["annotations"][0]["category_id"]]
    spelled = {name: "zebra" if name == lost else f" {name.upper()}_" for name in known.values()}
    file = dataset.root / "spelled.json"
    categories = [{"id": i, "name": spelled[name]} for i, name in known.items()][::-1]
    file.write_text(json.dumps({**dataset.dataset, "categories": categories}))
    said = evaluate_folder(YouTubeVIS(dataset.root, annotations=file), model, 2, "mask")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("note: ") for line in lines)
    assert lines[0].endswith(f": {lost}") and lines[1].endswith(": zebra")
    for name, own in figures["per_category"].items():
        wanted = own if name != lost else {**own, "AP": 0.0}
        assert said["per_category"][spelled[name]]["AP"] == pytest.approx(wanted["AP"])
    assert figures["per_category"][lost]["AP"] > 0
    assert figures["consistency"]["visible"] == said["consistency"]["visible"]


def test_where_the_class_is_unknown_the_mask_alone_says_who_holds_an_instance(model, dataset):
    entries = dataset.dataset["categories"]
    known = entries[max(dataset[0].labels)]["name"]
    file = dataset.root / "one.json"
    categories = [{**c, "name": known if c["name"] == known else f"x{c['id']}"} for c in entries]
    file.write_text(json.dumps({**dataset.dataset, "categories": categories}))
    said = evaluate_folder(YouTubeVIS(dataset.root, annotations=file), model)["consistency"]["pairs"]
    wanted = {"1": 0, "5": 0}
    for clip in (dataset[0], dataset[1]):
        with torch.inference_mode():
            outs = [model(image_to_batch(image)) for image in clip]
        column = model.config.class_names.index(known)
        of_class = np.stack([out.class_logits[0].sigmoid().numpy()[:, column] for out in outs])  # (T, N)
        knows = [clip.categories[label] == known for label in clip.labels]
        probabilities = np.where(knows, of_class[..., None], 1.0)  # (T, N, M)
        truths = [clip.masks(t) for t in range(7)]
        part = ConsistencyMeter().add_clip(query_masks(model, clip), truths, None, probabilities).result()
        wanted = {k: n + part["pairs"][int(k)]["kept"] for k, n in wanted.items()}
    assert {k: said[int(k)]["kept"] for k in wanted} == wanted and wanted["1"] > 10


def test_a_model_of_others_is_evaluated(colours, dataset, tmp_path):
    figures = evaluate_folder(dataset.root, colours("Fish", "pizza", "TURTLE"), videos=1)
    assert figures["weights"] == "Colours" and figures["folder"] == dataset.root.name
    assert figures["setting"]["videos"] == 1 and figures["consistency"]["visible"] > 0


def test_a_query_has_the_pixels_of_probability_one_half_and_more(model, dataset):
    clip = dataset[0]
    for image, masks in zip(clip, query_masks(model, clip), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor(image).permute(2, 0, 1)[None] / 255).mask_logits
        probabilities = upsample_masks(logits, image.shape[:2])[0].sigmoid().numpy()
        assert masks.dtype == bool and (masks == (probabilities > 0.5)).mean() > 0.9999
