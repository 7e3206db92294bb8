import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minst import MobileInst, MobileInstConfig, predict, samples
from minst.cli import main
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.video import read_video, video_info
from minst.evaluation import evaluate_ytvis
from minst.results import FrameResult


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A folder like data_samples: two short clips, and weights that find *something* in every frame."""
    root = tmp_path_factory.mktemp("data_samples")
    write_shapes_dataset(root / "clips", 2, ShapesConfig(width=128, height=96, frames=7), seed=5)
    torch.manual_seed(0)
    model = MobileInst(MobileInstConfig.preset("shapes-tiny", class_names=CATEGORIES))
    torch.nn.init.constant_(model.instance_decoder.heads.classes.bias, 0.0)
    model.save_pretrained(root / "weights" / "shapes-tiny")
    return root


@pytest.fixture
def here(shipped, monkeypatch):
    monkeypatch.setattr(samples, "data_folder", lambda: shipped)


def test_demo_tells_and_writes_everything(here, tmp_path, capsys, monkeypatch):
    out, said = tmp_path / "deep" / "demo", {}
    whole = predict.run_demo
    monkeypatch.setattr(
        predict, "run_demo", lambda **said_to: said.update(whole(**said_to)) or said
    )
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "\r" not in printed.err  # no progress bars where there is no terminal
    assert sorted(p.name for p in out.iterdir()) == [
        "fig2.png",
        "results.json",
        "tracks.gif",
        "tracks.mp4",
    ]
    assert said["files"] == {p.name: str(p) for p in out.iterdir()}

    clip = samples.load_sample(samples.sample_names()[0])
    assert said["sample"] == clip.name and said["frames"] == 7 and said["tracks"]
    rows = [line.split() for line in printed.out.splitlines()]
    for track in said["tracks"]:
        row = [track["track"], track["category"], f"{track['score']:.3f}", track["frames"]]
        assert list(map(str, row)) in rows
        assert track["category"] in CATEGORIES and 0 < track["frames"] <= 7
    assert said["ms_key"] > 0 and said["ms_reuse"] > 0
    assert f"key frames {said['ms_key']:.1f} ms, others {said['ms_reuse']:.1f} ms" in printed.out
    assert f"AP {100 * said['AP']:.1f}, AP50 {100 * said['AP50']:.1f}" in printed.out

    entries = json.loads((out / "results.json").read_text())
    assert evaluate_ytvis(clip.annotations(), entries)["AP"] == said["AP"]
    assert {e["video_id"] for e in entries} == {clip.video["id"]}
    assert video_info(out / "tracks.mp4")[:3] == (256, 192, 7)
    assert len(list(read_video(out / "tracks.mp4"))) == 7
    with Image.open(out / "tracks.gif") as gif, Image.open(out / "fig2.png") as figure:
        assert gif.n_frames == 7 and figure.width > 1300


def test_demo_replaces_its_files_and_takes_another_clip(here, tmp_path):
    (tmp_path / "results.json").write_text("old")
    (tmp_path / "mine.txt").write_text("stays")
    name = samples.sample_names()[1]
    said = predict.run_demo(tmp_path, sample=name, reuse_interval=1)
    assert said["sample"] == name and said["ms_reuse"] is None
    assert isinstance(json.loads((tmp_path / "results.json").read_text()), list)
    assert (tmp_path / "mine.txt").read_text() == "stays"


def test_demo_of_a_photograph_takes_its_weights_and_maps_categories_by_name(here, shipped, tmp_path, monkeypatch):
    """Classes of another order than the file's, and one that it lacks; the rows are those of the file."""
    real = Path(samples.__file__).parents[1] / "data_samples" / "photo"
    torch.manual_seed(0)
    config = MobileInstConfig.preset("shapes-tiny", num_classes=3, class_names=["owl", "dog", "cat"])
    model = MobileInst(config)
    torch.nn.init.constant_(model.instance_decoder.heads.classes.bias, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(samples, "data_folder", lambda: tmp_path / "data")
        shutil.copytree(shipped, tmp_path / "data")
        shutil.copytree(real, tmp_path / "data" / "photo")
        with pytest.raises(ValueError, match="no category fits; .* has .*cat"):
            predict.run_demo(tmp_path / "out", "chelsea")  # shapes are all that ships
        model.save_pretrained(tmp_path / "data" / "weights" / "photos-tiny")
        said = predict.run_demo(tmp_path / "out", "chelsea", reuse_interval=15)
    assert said["sample"] == "chelsea" and said["frames"] == 30 and said["tracks"]
    assert {row["category"] for row in said["tracks"]} <= {"owl", "dog", "cat"}
    entries = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {entry["category_id"] for entry in entries} == {1, 2}


class Sleeper:
    """A tracker that works for `milliseconds`: every third frame is a key frame."""

    def __init__(self, milliseconds):
        self.milliseconds, self.frame, self.model = milliseconds, 0, None

    def step(self, image):
        time.sleep(self.milliseconds[self.frame] / 1000)
        self.frame += 1
        return FrameResult(self.frame - 1, self.frame % 3 == 1, [], [], [], [], [])


def test_times_are_those_of_the_work_and_not_of_reading():
    """And key frames are timed apart from the frames between."""

    class Slow(list):
        def __iter__(self):
            for image in super().__iter__():
                time.sleep(0.03)
                yield image

    times = {True: [], False: []}
    clip = Slow([np.zeros((64, 64, 3), np.uint8)] * 4)
    results = list(predict._timed(clip, Sleeper([0, 10, 20, 30]), times))
    assert [r.frame for r in results] == [0, 1, 2, 3]
    (first, last), (one, two) = times[True], times[False]
    assert first < 8 and 10 <= one < 28 and 20 <= two and 30 <= last


def test_demo_says_so_when_nothing_is_found(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        predict, "KernelTracker", lambda model, **kw: real(model, score_threshold=1.0, **kw)
    )
    real = __import__("minst.tracking", fromlist=["KernelTracker"]).KernelTracker
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "no tracks found" in printed and "AP 0.0" in printed


def test_demo_errors_are_clear(here, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(OSError, match=str(file)):
            predict.run_demo(out)
    assert file.read_text() == "mine"
    with pytest.raises(ValueError, match="no shipped clip 'nope'"):
        predict.run_demo(tmp_path / "o", sample="nope")
    with pytest.raises(ValueError, match="reuse_interval"):
        predict.run_demo(tmp_path / "o", reuse_interval=0)
