"""A seeded fuzz of what strangers' files hold: one line of ValueError or OSError, never anything else."""

import json
import random

import pytest
from PIL import Image

from minst import rle
from minst.data.coco import open_folder
from minst.data.files import read_json

VALUES = [None, True, 0, -1, 1, 5, 64, 1e9, -1e9, 1e8, 2**32, 2**63, 10**30, 0.5, float("inf"), float("nan"), "", "x",
          "0h0", [], [[]], {}, [1, 2, 3, 4, 5, 6], [[0, 0, 5, 0, 5, 5]], [[0, 0, 1e9, 0, 1e9, 5]], "é", "a\\b.jpg",
          {"size": 5, "counts": "0"}, {"size": [48, 64], "counts": [3072]}, ["a.jpg"], "../a.jpg"]  # fmt: skip
LISTS = {"categories": [{"id": 1, "name": "c"}]}
PICTURE = {"id": 1, "width": 64, "height": 48}
TRACK = {"id": 1, "category_id": 1, "iscrowd": 0}
SQUARE = [[0, 0, 9, 0, 9, 9]]
FORMS = [
    {
        "images": [PICTURE | {"file_name": "a.jpg"}],
        "annotations": [TRACK | {"image_id": 1, "segmentation": SQUARE}],
        **LISTS,
    },
    {
        "videos": [PICTURE | {"file_names": ["a.jpg"]}],
        "annotations": [TRACK | {"video_id": 1, "segmentations": [SQUARE]}],
        **LISTS,
    },
]


def value(rng, depth=0):
    kind = rng.random()
    if kind < 0.7 or depth > 2:
        return rng.choice(VALUES)
    if kind < 0.85:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {rng.choice(["id", "size", "counts"]): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def refused(call) -> None:
    try:
        call()
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 2000


@pytest.mark.parametrize("seed", range(4))
def test_masks(seed):
    rng = random.Random(seed)
    for _ in range(500):
        size = rng.choice([48, 1, 70_000, 4]), rng.choice([64, 1, 2**32, 6])
        refused(lambda size=size: rle.decode(value(rng), *size))


@pytest.mark.parametrize("seed", range(4))
def test_annotation_files(tmp_path, seed):
    rng, file = random.Random(seed), tmp_path / "annotations.json"
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    for _ in range(150):
        dataset = json.loads(json.dumps(rng.choice(FORMS)))
        name = rng.choice(list(dataset))
        entry = dataset[name][0]
        if rng.random() < 0.2:
            dataset[name] = value(rng)
        else:
            entry[rng.choice(list(entry))] = value(rng)
        text = json.dumps(dataset)
        if rng.random() < 0.2:
            text = text[: rng.randrange(len(text))]
        if rng.random() < 0.1:
            text = text.replace('"id"', '"id": 2, "id"', 1)
        content = bytearray(text.encode())
        if content and rng.random() < 0.1:
            content[rng.randrange(len(content))] = rng.randrange(256)
        file.write_bytes(rng.choice([b"", b"", b"\xef\xbb\xbf"]) + content)
        refused(lambda: read_json(file))
        refused(lambda: [(c.masks(0), c.image(0)) for c in open_folder(tmp_path) if len(c)])
