"""COCO figures of frames: pycocotools on its own files as the oracle, properties, malformed input by name."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from minst.evaluation import FIGURES, evaluate_coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def rle(mask):
    code = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in code["size"]], "counts": code["counts"].decode()}


def scene(seed=0, images=6, size=(120, 160)):
    """Rectangles of all sizes as polygons, RLE and crowds; predictions beside them."""
    rng = np.random.default_rng(seed)
    gt = {
        "images": [{"id": i + 10, "height": size[0], "width": size[1]} for i in range(images)],
        "categories": [{"id": c, "name": f"kind {c}"} for c in (1, 3, 5)],
        "annotations": [],
    }
    results = []
    for image in gt["images"]:
        for _ in range(rng.integers(0, 5)):
            h, w = rng.integers(8, size[0] - 5), rng.integers(8, size[1] - 5)
            y, x = rng.integers(0, size[0] - h), rng.integers(0, size[1] - w)
            mask = np.zeros(size, dtype=bool)
            mask[y : y + h, x : x + w] = True
            category = int(rng.choice([1, 3]))
            polygon = [[float(n) for n in (x, y, x + w, y, x + w, y + h, x, y + h)]]
            crowd = int(rng.random() < 0.2)
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "iscrowd": crowd,
                    "segmentation": rle(mask) if crowd or rng.random() < 0.5 else polygon,
                    "area": float(mask.sum()),
                    "bbox": [int(n) for n in (x, y, w, h)],
                }
            )
            for _ in range(3):
                moved = np.roll(mask, rng.integers(-3, 4, 2) * rng.integers(0, 4), axis=(0, 1))
                entry = {
                    "image_id": image["id"],
                    "category_id": category,
                    "score": float(rng.integers(1, 9)) / 8,
                }
                entry["segmentation"] = rle(moved)
                results.append(entry)
    return gt, results


def with_boxes(results):
    return [r | {"bbox": mask_utils.toBbox(r["segmentation"]).tolist()} for r in results]


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed, tmp_path):
    gt, results = scene(seed)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "gt.json"))
        reference = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    ours = evaluate_coco(tmp_path / "gt.json", tmp_path / "results.json")
    assert list(ours) == list(FIGURES) and 0 < ours["AP"] < 1
    np.testing.assert_allclose(list(ours.values()), reference.stats, atol=1e-12, rtol=0)
    assert evaluate_coco(gt, results) == ours


def test_boxes_beside_masks_do_not_change_mask_ap():
    gt, results = scene(1)
    triangle = np.tri(120, 160, dtype=bool)
    extra = {"id": 999, "segmentation": rle(triangle), "area": float(triangle.sum())}
    gt["annotations"].append(gt["annotations"][0] | extra)
    assert evaluate_coco(gt, with_boxes(results)) == evaluate_coco(gt, results)


def test_perfect_empty_and_nothing_to_find():
    gt, _ = scene(2)
    gt["annotations"] = [a | {"iscrowd": 0} for a in gt["annotations"]]
    perfect = [
        {k: a[k] for k in ("image_id", "category_id")}
        | {"score": 1.0, "segmentation": as_rle(a["segmentation"])}
        for a in gt["annotations"]
    ]
    assert evaluate_coco(gt, perfect)["AP"] == pytest.approx(1)
    nothing = evaluate_coco(gt, [])
    assert nothing["AP"] == nothing["AP50"] == nothing["AR100"] == 0
    assert set(evaluate_coco(gt | {"annotations": []}, perfect).values()) == {-1.0}
    assert set(evaluate_coco(gt | {"annotations": []}, []).values()) == {-1.0}


def as_rle(segmentation, size=(120, 160)):
    if isinstance(segmentation, dict):
        return segmentation
    code = mask_utils.merge(mask_utils.frPyObjects(segmentation, *size))
    return {"size": list(size), "counts": code["counts"].decode()}


def test_silent_and_unchanged(capsys):
    gt, results = scene(3)
    before = copy.deepcopy((gt, results))
    evaluate_coco(gt, results)
    assert (gt, results) == before and capsys.readouterr() == ("", "")


def test_uncompressed_and_bytes():
    gt, results = scene(4)
    mask = mask_utils.decode(results[0]["segmentation"])
    flat = np.concatenate([[0], mask.reshape(-1, order="F")])
    counts = np.diff(np.flatnonzero(np.diff(flat)), prepend=0, append=mask.size).tolist()
    other = copy.deepcopy(results)
    other[0]["segmentation"]["counts"] = counts
    other[1]["segmentation"]["counts"] = other[1]["segmentation"]["counts"].encode()
    assert evaluate_coco(gt, other) == evaluate_coco(gt, results)


def test_hundreds_of_masks():
    """pycocotools' `area` raises OverflowError on more than 255 masks under NumPy 2; ours must not."""
    gt, results = scene(5, images=60)
    assert len(results) > 255 and 0 < evaluate_coco(gt, results)["AP"] < 1


def test_unknown_categories_warn():
    gt, results = scene(0)
    with pytest.warns(UserWarning, match="1 predictions .*42"):
        assert evaluate_coco(gt, results + [results[0] | {"category_id": 42}]) == evaluate_coco(
            gt, results
        )


@pytest.mark.parametrize(
    "side, change, message",
    [
        ("results", {"image_id": 7}, r"results\[1\]: unknown image_id 7"),
        ("results", {"score": float("inf")}, r"results\[1\]: 'score'"),
        ("results", {"segmentation": None}, r"results\[1\]: 'segmentation' is missing"),
        (
            "results",
            {"segmentation": [[0, 0, 5, 0, 5, 5]]},
            r"results\[1\].segmentation: a mask must be null or RLE.*got list",
        ),
        (
            "results",
            {"segmentation": {"size": [4, 4], "counts": "04"}},
            r"results\[1\].segmentation: a mask of 4 x 4 in a frame of 120 x 160",
        ),
        (
            "results",
            {"segmentation": {"size": [120, 160], "counts": "04"}},
            r"results\[1\].segmentation: .*covers 4 pixels",
        ),
        ("annotations", {"segmentation": []}, r"annotations\[1\]: 'segmentation' has no polygon"),
        (
            "annotations",
            {"segmentation": 5},
            r"annotations\[1\].segmentation: a mask must be null, polygons, or RLE",
        ),
        (
            "annotations",
            {"segmentation": [[0, 0, 1e9, 0, 1e9, 5]]},
            r"annotations\[1\].segmentation: polygon 0 must be .*near the frame",
        ),
        (
            "annotations",
            {"segmentation": [[x for i in range(60_000) for x in (159 * (i % 2), 7)]]},
            r"annotations\[1\].segmentation: polygons 9,\d+,\d+ pixels long; at most 4,194,304",
        ),
        ("images", {"height": 70_000}, r"images\[1\].height: expected `int` <= 65535"),
        ("images", {"width": 2**32}, r"images\[1\].width: expected `int` <= 65535"),
        ("annotations", {"area": None}, r"annotations\[1\].area: expected `float`, got `null`"),
        ("annotations", {"id": 1}, r"annotations\[1\]: id 1 stands there twice"),
        ("annotations", {"category_id": 2}, r"annotations\[1\]: unknown category_id 2"),
    ],
)
def test_malformed_entries_are_named(side, change, message):
    gt, results = scene(0)
    (results if side == "results" else gt[side])[1].update(change)
    with pytest.raises(ValueError, match=message):
        evaluate_coco(gt, results)


def test_malformed_types_and_files(tmp_path):
    gt, results = scene(0)
    sizes_unknown = gt | {"images": [{"id": image["id"]} for image in gt["images"]]}
    with pytest.raises(ValueError, match=r"images\[0\]: lacks `height`"):
        evaluate_coco(sizes_unknown, results)
    with pytest.raises(ValueError, match="withheld"):
        evaluate_coco({"images": gt["images"], "categories": gt["categories"]}, results)
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ValueError, match="half.json"):
        evaluate_coco(tmp_path / "half.json", results)
