"""The paper's recipes: what is fixed, what scales with the batch, and that a scaled-down one really
trains."""

import json
import socket
import subprocess
import sys

import pytest
import torch

from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.model import MobileInst
from minst.recipes import RECIPES, recipe
from minst.training import TrainConfig, train

SMALL = ShapesConfig(width=96, height=80, frames=4)
# what makes a recipe small enough for a test, by arguments alone
TINY = {
    "preset": "topformer-tiny",
    "pairs": 1,
    "iterations": 3,
    "warmup": 1,
    "save_every": 3,
    "log_every": 1,
    "workers": 0,
    "threads": 1,
    "short_min": 64,
    "short_max": 128,
    "long_max": 160,
    "device": "cpu",
    "precision": "fp32",
}


def test_what_the_paper_says():
    coco, video = recipe("coco", data="d"), recipe("youtubevis-2019", data="d")
    assert (2 * coco.pairs, coco.iterations) == (16, 270_000)
    assert (coco.short_min, coco.short_max, coco.long_max) == (416, 640, 864)
    assert (video.short_min, video.short_max) == (360, 480)
    assert coco.train_on == "images" and video.train_on == "pairs" and video.image_share == 0
    assert video.query_passing == "shared" and video.passing_weight == 1
    assert recipe("shapes") == TrainConfig()


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("shapes", "finetune")])
@pytest.mark.parametrize("factor", [0.25, 1, 4])
def test_the_linear_rule(name, factor):
    """As many images are seen, and a step's rate grows with its batch."""
    base = recipe(name, data="d")
    pairs = int(base.pairs * factor)
    scaled = recipe(name, data="d", pairs=pairs)
    assert scaled.lr == pytest.approx(base.lr * factor)
    assert scaled.iterations * scaled.pairs == base.iterations * base.pairs
    assert scaled.warmup * scaled.pairs == base.warmup * base.pairs
    cut = recipe(name, data="d", pairs=pairs, accumulate=2)
    assert (cut.lr, cut.iterations) == (
        scaled.lr,
        scaled.iterations,
    )  # parts of a batch are no other batch
    said = recipe(name, data="d", pairs=pairs, lr=0.5, iterations=7, warmup=2)
    assert (said.lr, said.iterations, said.warmup) == (0.5, 7, 2)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("imagenet", {}, "no recipe 'imagenet'; there are: shapes, coco"),
        ("coco", {}, "needs the folder of its data set: --data DIR"),
        ("coco", {"data": "d", "pairs": 0}, "pairs is 0"),
        ("coco", {"data": "d", "short_min": 700}, "shorter sides of 700 to 640"),
        ("photos", {"data": "d", "init": "w", "switches": "dim=64"}, "leave switches out"),
        ("finetune", {"data": "d", "switches": "dim=64"}, "leave switches out"),
    ],
)
def test_what_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(name, **changes)


def test_the_annotation_file_may_have_another_name(tmp_path):
    write_shapes_dataset(tmp_path / "coco", 4, SMALL, seed=1, split="train", images=True)
    file = (tmp_path / "coco" / "annotations.json").rename(tmp_path / "mine.json")
    fields = {"data": str(tmp_path / "coco"), "split": "", **TINY}
    with pytest.raises(FileNotFoundError, match="name the file"):
        train(recipe("coco", **fields, out=str(tmp_path / "a")))
    weights = train(recipe("coco", **fields, annotations=str(file), out=str(tmp_path / "b")))
    assert MobileInst.from_pretrained(weights).config.class_names[0] == "fish"


def test_images_first_then_videos(tmp_path):
    """The two stages on folders made by `minst data shapes`: COCO form, then pairs of frames from
    its weights."""
    write_shapes_dataset(tmp_path / "coco", 4, SMALL, seed=1, split="train", images=True)
    write_shapes_dataset(tmp_path / "vis", 3, SMALL, seed=2, split="train")
    first = recipe("coco", data=str(tmp_path / "coco"), split="", out=str(tmp_path / "a"), **TINY)
    weights = train(first)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all({"cls", "dice", "pixel", "obj"} < line.keys() for line in lines)
    assert not any("pass_dice" in line or "token" in line for line in lines)
    model = MobileInst.from_pretrained(weights)
    assert model.config.num_queries == 100 and model.config.class_names[0] == "fish"

    categories = json.loads((tmp_path / "vis" / "annotations.json").read_text())
    categories["categories"].reverse()  # another order, as YouTube-VIS 2019 and 2021 have
    (tmp_path / "vis" / "annotations.json").write_text(json.dumps(categories))
    second = recipe(
        "youtubevis-2019",
        data=str(tmp_path / "vis"),
        split="",
        init=str(weights),
        out=str(tmp_path / "b"),
        **TINY,
    )
    later = MobileInst.from_pretrained(train(second))
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert all("pass_dice" in line for line in lines)
    assert later.config.class_names == model.config.class_names[::-1]
    head = "instance_decoder.heads.classes.weight"
    near = (later.state_dict()[head] - model.state_dict()[head].flip(0)).abs().max()
    assert (
        near < 1e-2 < (later.state_dict()[head] - model.state_dict()[head]).abs().max()
    )  # rows follow their names


def test_a_folder_without_labels_cannot_teach(tmp_path):
    path = write_shapes_dataset(tmp_path / "vis", 1, SMALL)
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": None}))
    with pytest.raises(ValueError, match="no annotations to learn from"):
        train(
            recipe("ovis", data=str(tmp_path / "vis"), split="", out=str(tmp_path / "run"), **TINY)
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(tmp_path, workers):
    """By the process that reads it, or by the one that trains: in one line, without a traceback."""
    folder = write_shapes_dataset(tmp_path / "vis", 1, SMALL).parent
    for image in folder.glob("JPEGImages/*/*.jpg"):
        image.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"^\S+\.jpg: not a readable image .*`minst data check` finds all such"
    ) as raised:
        train(
            recipe(
                "ovis",
                data=str(folder),
                split="",
                out=str(tmp_path / "run"),
                **TINY | {"workers": workers},
            )
        )
    assert "\n" not in str(raised.value)


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no GPU"):
        train(TrainConfig(out=str(tmp_path), device="cuda"))


def test_accelerate_launches_two_processes_that_agree_with_one(tmp_path):
    """The command line of several machines, on this one's CPU (gloo); batch norms frozen, as shares
    see less."""
    write_shapes_dataset(tmp_path / "vis", 3, SMALL, seed=2, split="train")
    small = {
        **TINY,
        "pairs": 2,
        "iterations": 3,
        "short_min": 96,
        "short_max": 96,
        "init": "shapes-tiny",
    }
    changes = {**small, "data": str(tmp_path / "vis"), "split": "", "freeze_norms": True}
    train(recipe("youtubevis-2019", **changes, out=str(tmp_path / "one")))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    said = [
        part
        for name, value in changes.items()
        if name != "freeze_norms"
        for part in (_flag(name), str(value))
    ]
    command = [
        "-m",
        "minst",
        "train",
        "--config",
        "youtubevis-2019",
        *said,
        "--freeze-norms",
        "--out",
        str(tmp_path / "two"),
    ]
    port = [
        "--main_process_port",
        str(free_port()),
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    done = subprocess.run([*launch, *port, *command], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = [
        [json.loads(line) for line in (tmp_path / out / "log.jsonl").read_text().splitlines()]
        for out in ("one", "two")
    ]
    assert len(one) == len(two) == 3
    for ours, theirs in zip(two, one):
        for name in theirs.keys() - {"seconds_per_iteration"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), name


def _flag(name):
    return f"--{name.replace('_', '-')}"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
