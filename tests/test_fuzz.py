"""Broken and odd input, from seeds: every reader and every command refuses it in a line, and stays alive.

A reader may return, or raise ValueError or OSError; a command may end with 0, 1 or 2 and one line that
starts with `minst: `. Nothing else: no traceback, no loop without end, and nothing accepted that a
declared range excludes. What is found in rooms that others mend stands in FAULTS until it is.
"""

import copy
import io
import json
import math
import random
import shutil
import signal
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from inspect import Parameter, signature
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from minst import cli, weights
from minst.data.coco import open_folder
from minst.data.files import read_image
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.video import read_video, write_gif, write_mp4
from minst.evaluation import evaluate_results, write_submission
from minst.labels.check import check_dataset
from minst.labels.convert import convert
from minst.labels.split import split_annotations
from minst.mobile.logs import parse_log, report_log
from minst.model import MobileInst
from minst.options import Range

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
CPU_SECONDS = 20  # of one input; by the clock a busy machine makes everything slow


@contextmanager
def in_time(what):
    """A loop without end becomes a failure that names the input."""

    def stop(*_):
        raise AssertionError(f"{what}: still at work after {CPU_SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def refused(what, function, *arguments):
    """Whether an input is refused; an error of another kind is a failure that shows it."""
    with in_time(what):
        try:
            function(*arguments)
        except (ValueError, OSError) as error:
            assert str(error).strip(), what
            return True
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return False


# --------------------------------------------------------------------------- broken JSON, broken bytes

DEEP = json.loads("[" * 400 + "]" * 400)
ODD = [None, True, False, -1, 0, 1, 7, 2**31, 2**63, 10**30, -0.5, 1e308, math.nan, math.inf, "", "nope", "off", "0",
       "é" * 300, "\0", "\ud800", "../../x", "/etc/passwd", "a\\b", [], {}, [[]], [None], [1, 2], {"size": 5, "counts": 5},
       {"size": [8, 8], "counts": "0"}, [[0, 0, 4, 0]], DEEP]  # fmt: skip


def places(value, path=()):
    """Paths to all parts of a JSON value."""
    yield path
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield from places(part, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def changed(value, rng):
    """A copy with one part replaced, left out, or put in a second time."""
    value = copy.deepcopy(value)
    path = rng.choice([p for p in places(value) if p])
    holder, key = at(value, path[:-1]), path[-1]
    how = rng.random()
    if how < 0.7:
        holder[key] = rng.choice(ODD)
    elif how < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[f"{key}s"] = holder.pop(key)
    return value


def text_of(value, rng):
    """A JSON text that was perhaps cut, doubled, or written by another system."""
    text = json.dumps(value)
    at_ = rng.randrange(len(text))
    how = rng.choice(
        ["as it is"] * 6 + ["cut", "mark", "utf-16", "nested", "byte", "doubled", "empty"]
    )
    if how == "cut":
        return text[:at_].encode()
    if how == "nested":
        return (text[:-1] + ', "x": ' if text.endswith("}") else "[").encode() + b"[" * 100_000
    if how == "byte":
        return text[:at_].encode() + bytes([rng.randrange(256)]) + text[at_:].encode()
    made = {"mark": "\ufeff" + text, "doubled": text + text, "empty": ""}.get(how, text)
    return made.encode("utf-16" if how == "utf-16" else "utf-8")


def damaged(data, rng):
    """Bytes of a file with some changed, left out, or put elsewhere."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 2, 8, 64])):
        i = rng.randrange(max(1, len(data)))
        how = rng.random()
        if how < 0.6 and data:
            data[i % len(data)] = rng.randrange(256)
        elif how < 0.8:
            del data[i : i + rng.choice([1, 5, 100])]
        else:
            data[i:i] = rng.randbytes(rng.choice([1, 4, 50]))
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)


# ----------------------------------------------------------------------------------- what is damaged


@pytest.fixture(scope="module")
def home(tmp_path_factory, make_model):
    """Small whole files of every kind."""
    home = tmp_path_factory.mktemp("fuzz")
    size = ShapesConfig(width=64, height=64, frames=2, crowding=0.5)
    write_shapes_dataset(home / "clips", 2, size, seed=1)
    write_shapes_dataset(home / "images", 2, size, seed=1, images=True)
    model = make_model(class_names=CATEGORIES, num_classes=len(CATEGORIES))
    model.save_pretrained(home / "weights")
    torch.save(model.backbone.state_dict(), home / "backbone.pth")
    (home / "text.txt").write_text("neither this nor that\n")
    (home / "empty").mkdir()
    (home / "occupied" / "notebooks").mkdir(parents=True)
    frames = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(4)]
    write_mp4(frames, home / "film.mp4")
    write_gif(frames, home / "film.gif")
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        Image.fromarray(frames[0]).save(home / f"image.{suffix}")
    return home


@pytest.fixture
def rng(request):
    return random.Random(request.node.name)


def results_of(truth, owner, mask):
    kept = ("category_id", owner, mask)
    entries = [{key: entry[key] for key in kept} for entry in truth["annotations"]]
    return [{**entry, "score": 0.5} for entry in entries]


@pytest.mark.parametrize("form", ["clips", "images"])
def test_annotation_files(home, tmp_path, rng, form):
    """Read, judged, checked and split: by everybody who reads one."""
    truth = json.loads((home / form / "annotations.json").read_text())
    owner = ("video_id", "segmentations") if form == "clips" else ("image_id", "segmentation")
    results = results_of(truth, *owner)
    file = tmp_path / "a.json"

    def read():
        dataset = open_folder(home / form, annotations=file)
        for i in range(len(dataset)):
            clip = dataset[i]
            if clip.height * clip.width < 10**6:
                clip.image(0)
                clip.masks(0)

    for i in range(110):
        file.write_bytes(text_of(changed(truth, rng), rng))
        name = f"{form} {i}: {file.read_bytes()[:3000]!r}"
        refused(f"read {name}", read)
        refused(f"eval {name}", evaluate_results, file, results)
        refused(f"check {name}", check_dataset, home / form, None, file)
        refused(f"split {name}", split_annotations, file, tmp_path / "split")


@pytest.mark.parametrize("form", ["clips", "images"])
def test_results_files(home, tmp_path, rng, form):
    annotations = home / form / "annotations.json"
    truth = json.loads(annotations.read_text())
    owner = ("video_id", "segmentations") if form == "clips" else ("image_id", "segmentation")
    results, file = results_of(truth, *owner), tmp_path / "r.json"
    for i in range(80):
        file.write_bytes(text_of(changed(results, rng), rng))
        name = f"{form} {i}: {file.read_bytes()[:3000]!r}"
        refused(f"eval {name}", evaluate_results, annotations, file)
        if form == "clips":
            refused(f"submit {name}", write_submission, file, annotations, tmp_path / "r.zip")


WRONG_RESULTS = [("score", [None, "0.5", True, math.nan, math.inf, [0.5]]), ("category_id", [None, "1", 1.5, True, 2**63]),
                 ("video_id", [None, "1", 1.5, True, 99, 2**63, [1]]),
                 ("segmentations", [None, {}, [], [None], "0", [{"size": 5, "counts": "0"}] * 2, [DEEP, None],
                                    [{"size": [64, 64], "counts": [-1, 4097]}, None], [[[0, 0, 9, 0, 9, 9]], None],
                                    [{"size": [64, 65], "counts": [4160]}, None]])]  # fmt: skip


@pytest.mark.parametrize("field, values", WRONG_RESULTS)
def test_results_that_must_be_refused(home, field, values):
    truth = json.loads((home / "clips" / "annotations.json").read_text())
    results = results_of(truth, "video_id", "segmentations")
    assert not refused("as it is", evaluate_results, truth, results)
    for value in values:
        wrong = [*results[:-1], {**results[-1], field: value}]
        assert refused(f"{field} {value!r}"[:300], evaluate_results, truth, wrong), (field, value)


def test_weights_folders(home, tmp_path, rng):
    config = json.loads((home / "weights" / "config.json").read_text())
    tensors = (home / "weights" / "model.safetensors").read_bytes()
    for i in range(60):
        values = changed(config, rng)
        text = text_of(values, rng)
        if any(isinstance(v, (int, float)) and abs(v) > 5000 for v in values.values()):
            continue  # gigabytes before it is refused
        (tmp_path / "config.json").write_bytes(text)
        (tmp_path / "model.safetensors").write_bytes(tensors if i % 4 else damaged(tensors, rng))
        refused(f"weights {text!r}", MobileInst.from_pretrained, tmp_path)


def test_checkpoints_of_backbones(home, tmp_path, make_model, rng):
    backbone = make_model().backbone
    state = torch.load(home / "backbone.pth", weights_only=True)
    data = (home / "backbone.pth").read_bytes()
    odd = [
        [],
        {},
        None,
        5,
        "x",
        {"model": 5},
        {"state_dict": [1]},
        {5: torch.zeros(1)},
        {"a": {}},
        torch.zeros(2),
    ]
    for i, value in enumerate(odd):
        torch.save(value, tmp_path / "c.pth")
        assert refused(
            f"checkpoint {value!r}", weights.load_backbone_weights, backbone, tmp_path / "c.pth"
        )
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors")
    assert refused("foreign", weights.load_backbone_weights, backbone, tmp_path / "c.safetensors")
    for i in range(20):
        (tmp_path / "c.pth").write_bytes(damaged(data[: rng.choice([0, 10, 5000, len(data)])], rng))
        refused(f"checkpoint {i}", weights.load_backbone_weights, backbone, tmp_path / "c.pth")
    assert (
        weights.load_backbone_weights(backbone, home / "backbone.pth").missing_keys == [] and state
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_images(home, tmp_path, rng, suffix):
    data = (home / f"image.{suffix}").read_bytes()
    for i in range(40):
        (tmp_path / "i.png").write_bytes(damaged(data, rng))
        refused(f"{suffix} {i}", read_image, tmp_path / "i.png")


@pytest.mark.parametrize("name", ["film.mp4", "film.gif", "text.txt"])
def test_films(home, tmp_path, rng, name):
    data = (home / name).read_bytes()
    for i in range(25):
        path = (
            tmp_path
            / f"{rng.choice(['f', 'take:2', 'http:x', 'é'])}.{rng.choice(['mp4', 'mkv', 'gif', 'txt'])}"
        )
        path.write_bytes(damaged(data, rng))
        refused(f"{name} {i}", lambda p=path: [frame for frame, _ in zip(read_video(p), range(20))])


def test_logs(rng):
    folder = cli.Path(__file__).parent / "data"
    logs = [path.read_text() for path in sorted(folder.glob("*.log"))]
    for i in range(200):
        lines = rng.choice(logs).splitlines()[: rng.randrange(400)]
        text = "\n".join(lines)
        for _ in range(rng.choice([0, 1, 5])):
            words = rng.choice(
                ["nan", "-1", "1e999", "{}", "\0", "9" * 5000, "Main runs.", "Starting benchmark."]
            )
            k = rng.randrange(len(text) + 1)
            text = text[:k] + words + text[k + rng.choice([0, 3, 40]) :]
        refused(f"log {i}: {text[-300:]!r}", lambda t=text: report_log(parse_log(t)))


# ---------------------------------------------------------------------- labels of other tools


def labelme(frame):
    shape = {
        "label": "cat",
        "points": [[4, 6], [16, 6], [16, 18]],
        "group_id": 1,
        "shape_type": "polygon",
        "flags": {},
    }
    return {"version": "5.0", "flags": {}, "shapes": [shape], "imagePath": f"{frame}.png", "imageData": None,
            "imageHeight": 64, "imageWidth": 64}  # fmt: skip


CVAT = """<?xml version="1.0"?><annotations><version>1.1</version><meta><task><size>2</size><original_size><width>64
</width><height>64</height></original_size></task></meta><track id="0" label="cat"><polygon frame="0" outside="0"
occluded="0" keyframe="1" points="4.0,6.0;16.0,6.0;16.0,18.0"/><polygon frame="1" outside="1" occluded="0" keyframe="1"
points="4,6;16,6;16,18"/></track><image id="0" name="0.png" width="64" height="64"><box label="cat" xtl="4" ytl="6"
xbr="16" ybr="18"/></image></annotations>"""
MOTS = "0 1001 1 64 64 {0}\n1 1001 1 64 64 {0}\n"


@pytest.mark.parametrize("kind", ["labelme", "coco", "cvat", "mots"])
def test_labels_of_other_tools(home, tmp_path, rng, kind):
    source = tmp_path / "in"
    (source / "instances_txt").mkdir(parents=True)
    for frame in range(2):
        shutil.copy(home / "image.png", source / f"{frame}.png")
    coco = json.loads((home / "images" / "annotations.json").read_text())
    for image, name in zip(coco["images"], ("0.png", "1.png")):
        image["file_name"] = name
    for i in range(45):
        if kind == "labelme":
            for frame in range(2):
                (source / f"{frame}.json").write_bytes(text_of(changed(labelme(frame), rng), rng))
            given = source
        elif kind == "coco":
            given = source / "coco.json"
            given.write_bytes(text_of(changed(coco, rng), rng))
        else:
            text = CVAT if kind == "cvat" else MOTS.format("PQQ13")
            words = [
                "",
                "-1",
                "nan",
                "1e999",
                "99999999999",
                "x",
                ";",
                "<a>",
                "&x;",
                '"',
                "\n",
                "64 64",
                "é",
            ]
            for _ in range(rng.choice([1, 1, 3])):
                k = rng.randrange(len(text))
                text = text[:k] + rng.choice(words) + text[k + rng.choice([0, 1, 1, 4]) :]
            given = source / ("a.xml" if kind == "cvat" else "m.txt")
            given.write_text(text)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shown = (
            given.read_bytes()[:2000]
            if given.is_file()
            else (source / "0.json").read_bytes()[:2000]
        )
        refused(f"{kind} {i}: {shown!r}", convert, given, tmp_path / "out", kind, source)


# ------------------------------------------------------------------------------------- commands

# What makes every command fail before it works, whatever else is said.
BASE = {"demo": ["--sample", "nope"], "track": ["nope.mp4"], "lessons": ["occupied"], "grade": ["text.txt"], "explore": ["nope"], "fig2": ["nope"], "eval": ["nope"],
        "predict": ["nope"], "submit": ["nope", "--annotations", "nope"], "train": ["--data", "nope"],
        "data shapes": ["--out", "occupied"], "data check": ["nope"], "data preview": ["nope"], "data split": ["nope"],
        "data convert": ["nope", "--out", "new"], "env": ["now"], "summary": ["--weights", "nope"],
        "export": ["--weights", "nope"], "bench latency": ["--weights", "nope"], "bench mobile": ["--weights", "nope"],
        "bench layers": ["--weights", "nope"], "bench rivals": ["now"], "bench lite": ["nope"], "bench phone": ["nope", "--dry-run"],
        "bench parse": ["nope"], "bench web": ["--weights", "nope"], "bench data": ["now"], "lab run": ["nope"],
        "lab report": ["nope"], "lab list": ["now"]}  # fmt: skip
PATHS = ["nope", "", ".", "..", "empty", "text.txt", "clips", "clips/annotations.json", "images", "weights", "film.mp4",
         "image.png", "x" * 300, "text.txt/below", "http:x.mp4", "take:2.mp4", "concat:a|b", "pipe:0", "~", "*", "[",
         "é/ü", "\ud800", "-"]  # fmt: skip
WORDS = [
    "nope",
    "",
    "-1",
    "0",
    "2.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "9" * 30,
    "9" * 400,
    "9" * 5000,
    "0x10",
    "64x64x64",
    "٣",
    "True",
]


def options_of(command):
    """(option, type) of a command, those of a dataclass too; "" for an argument without a name."""
    for name, parameter in signature(cli.COMMANDS[command], eval_str=True).parameters.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if parameter.kind is Parameter.VAR_KEYWORD:
            for field, kind in get_type_hints(parameter.annotation, include_extras=True).items():
                yield "--" + field.replace("_", "-"), kind
        else:
            yield flag if parameter.kind is Parameter.KEYWORD_ONLY else "", parameter.annotation


@pytest.fixture
def run(home, monkeypatch):
    """run(command, argv) -> status and what stands on stderr, in a folder of many files."""
    parser = cli.build_parser()
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    monkeypatch.chdir(home)

    def run(command, argv):
        out, err = io.StringIO(), io.StringIO()
        with (
            in_time((command, argv)),
            redirect_stdout(out),
            redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                status = cli.main([*command.split(), *argv])
            except SystemExit as stop:
                status = stop.code
            except Exception as error:
                raise AssertionError(
                    f"{command} {argv}: {type(error).__name__}: {error}"
                ) from error
        return status, err.getvalue()

    return run


def assert_one_line(command, argv, outcome):
    status, err = outcome
    last = err.replace("\r", "\n").strip().split("\n")[-1]
    assert status in (1, 2) and last.startswith("minst: ") and "Traceback" not in err, (
        command,
        argv,
        outcome,
    )
    assert len(last) < 2000, (command, argv, len(last))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_commands(run, rng, command):
    """Odd values of all options, on top of what makes the command fail."""
    options = [(flag, kind) for flag, kind in options_of(command) if flag]
    for _ in range(22):
        argv = list(BASE[command])
        # not lab run: "images" is one of its variants, and would be trained
        other = not argv[0].startswith("-") and command != "lab run"
        if other and rng.random() < 0.4:
            argv[0] = rng.choice(
                [p for p in PATHS if p != "-" and not (command == "bench lite" and "." in p)]
            )
        for flag, kind in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2]))):
            if flag in argv or flag in ("--adb", "--dry-run", "--restart"):
                continue
            argv += (
                [flag]
                if kind is bool
                else [flag, rng.choice(PATHS if rng.random() < 0.5 else WORDS)]
            )
        status, err = run(command, argv)
        whole = argv[0] != BASE[command][0] and status == 0  # a film for "nope", say
        if not whole and not (command == "data check" and status == 1):
            assert_one_line(command, argv, (status, err))


def test_no_range_is_left_unchecked(run):
    """Every number and every choice of every command, beyond what its type declares."""
    count = 0
    for command in cli.COMMANDS:
        for flag, hint in options_of(command):
            kinds = [hint, *get_args(hint)]
            kinds += [part for kind in kinds for part in get_args(kind)]
            wrong = []
            for bounds in (kind for kind in kinds if isinstance(kind, Range)):
                wrong = [
                    "nan",
                    "inf",
                    "-inf",
                    "",
                    "one",
                    f"{bounds.least - 1:.0f}" if math.isfinite(bounds.least) else "-1",
                ]
                wrong += [f"{bounds.most + 1:.0f}"] if math.isfinite(bounds.most) else []
            if any(get_origin(kind) is Literal for kind in kinds):
                wrong = ["nope", "", "None"]
            for value in wrong:
                count += 1
                argv = [*BASE[command], flag, value] if flag else [value, *BASE[command][1:]]
                status, err = run(command, argv)
                assert status == 2 and f"argument {flag}:" in err and err.count("\n") == 1, (
                    command,
                    argv,
                    err,
                )
    assert count > 300


# --------------------------------------------------------------------- faults of rooms that others mend

# config.json with one field changed: weights.py and config.py of the learning room must refuse it, in a line.
FAULTS = {"pixel_std": [0.2, "a", 0.2], "pixel_mean": [0.2, 0.2], "injection": "off", "heads": True,
          "class_names": ["fish"] * 8, "nested": DEEP}  # fmt: skip


@pytest.mark.parametrize("field", FAULTS)
def test_config_that_must_be_refused(home, tmp_path, field):
    config = json.loads((home / "weights" / "config.json").read_text())
    text = json.dumps(config | {field: FAULTS[field]})
    (tmp_path / "config.json").write_text("[" * 100_000 if field == "nested" else text)
    shutil.copy(home / "weights" / "model.safetensors", tmp_path)
    assert refused(text, MobileInst.from_pretrained, tmp_path)
