"""minst.lab: the declared grid, pre-training, measuring, and the runner that keeps processes busy."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minst import backbones, cli
from minst.config import MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.ytvis import evaluate_ytvis
from minst.lab import measure, runs
from minst.lab import pretrain as pretraining
from minst.lab.associations import ASSOCIATIONS
from minst.lab.grid import FULL, SHIPPED, SMOKE, VARIANTS, backbone_of, train_config
from minst.lab.matches import KEPT, Matches, average_precision
from minst.lab.measure import ADAPTIVE, FROZEN, INTERVALS, PROBED, Setting, settings
from minst.lab.pretrain import pretrain
from minst.lab.runs import Run, find_runs, run_lab
from minst.macs import summary
from minst.model import MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD
from minst.results import Track, VideoResult
from minst.tracking import KernelTracker
from minst.training import switches
from minst.weights import load_backbone_weights

TINY = dataclasses.replace(SMOKE, name="tiny", pretraining=2, iterations=3, train_clips=4, val_clips=1, save_every=2)


# ------------------------------------------------------------------------------------------------ the grid


def test_every_variant_is_the_full_model_with_one_thing_changed():
    full = dataclasses.asdict(train_config("full", 0, FULL))
    for name, variant in VARIANTS.items():
        other = dataclasses.asdict(train_config(name, 0, FULL))
        changed = {k for k in full if full[k] != other[k]} - {"out", "backbone_weights"}
        if variant.decoder:  # the one thing; where there is one decoder alone the losses of Q_G go with it
            assert changed == (set() if "-" in variant.decoder else {"global_weight"}), name
        else:
            assert len(changed) == (name != "full"), f"{name}: {changed}"
        assert len(switches(other["switches"])) <= 1
        assert variant.judged_by in ("image", "video") and (not variant.claim or variant.paper)


def test_seeds_and_budgets_change_nothing_else():
    first, second = (dataclasses.asdict(train_config("images", seed, FULL)) for seed in (0, 1))
    assert {k for k in first if first[k] != second[k]} == {"seed", "out"}


def test_backbones_are_compared_at_equal_macs():
    macs = {}
    for name in ("full", "seaformer-tiny", "mobilenetv2-0.6"):
        changed = switches(VARIANTS[name].changes.get("switches", ""))
        model = MobileInst(MobileInstConfig.preset("shapes-tiny", num_classes=4, **changed))
        macs[name] = summary(model, (128, 128))["total"]["macs"]
        assert model.config.backbone == backbone_of(name)
    assert max(macs.values()) < 1.12 * min(macs.values()), macs


def test_settings_hold_the_issue_s_grid_once_each():
    full = settings("full")
    assert len(full) == len(set(full))
    for speed in ("slow", "medium", "fast"):
        for t in INTERVALS:
            assert {Setting(speed, "cosine", t), Setting(speed, "mask", t)} <= set(full)
        assert {Setting(speed, "frozen", t) for t in FROZEN} <= set(full)
        assert {Setting(speed, "adaptive", a) for a in ADAPTIVE} <= set(full)
    assert INTERVALS == (1, 2, 3, 4, 6, 9, 12)
    for name in PROBED:
        assert {Setting("medium", by, t) for by in ASSOCIATIONS for t in (1, 3, 6)} <= set(settings(name))
    assert settings("pooling=avg") == [Setting("medium", "cosine", 3), Setting("medium", "mask", 3)]


# ------------------------------------------------------------------------------------------------ measuring


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips that the shipped weights know, of every speed."""
    folder = tmp_path_factory.mktemp("lab") / "data"
    for name, speed in {"train": 1.0, "slow": 0.4, "medium": 1.0, "fast": 2.0}.items():
        split = "train" if name == "train" else "val"
        config = ShapesConfig(width=160, height=128, frames=9, min_instances=2, max_instances=3, speed=speed)
        write_shapes_dataset(folder / name, 2, config, 5, split)
    return folder


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def measured(data, model):
    wanted = [Setting("medium", "cosine", 3), Setting("medium", "centred", 1), Setting("fast", "mask", 2),
              Setting("fast", "frozen", 3), Setting("slow", "adaptive", 0.98)]  # fmt: skip
    return measure._measure_clips(model, data, wanted)


@pytest.mark.parametrize("speed, association, interval", [("medium", "cosine", 3), ("fast", "mask", 2)])
def test_video_ap_is_that_of_the_tracker_s_ten_best_tracks(data, model, measured, speed, association, interval):
    clips = YouTubeVIS(data / speed)
    tracker = KernelTracker(model, interval, association, score_threshold=EVALUATION_THRESHOLD)
    best = []
    for i in range(len(clips)):
        entries = tracker.track(clips[i]).to_ytvis(clips[i].video["id"], clips.category_ids)
        best += sorted(entries, key=lambda e: -e["score"])[:KEPT]
    truth = json.loads((data / speed / "annotations.json").read_text())
    wanted = evaluate_ytvis(truth, best)
    row = next(r for r in measured["settings"] if (r["speed"], r["by"], r["value"]) == (speed, association, interval))
    assert row["AP"] == pytest.approx(wanted["AP"], abs=1e-6) and row["AP50"] == pytest.approx(wanted["AP50"], abs=1e-6)
    assert row["AP"] > 0.05 and row["frames"] == 18 and row["keys"] == 2 * -(-9 // interval)
    assert average_precision(Matches.from_dict(row))[0] == pytest.approx(row["AP"], abs=1e-6)


def test_image_ap_is_that_of_frames_alone(data, model, measured):
    """Every sixth frame from the fourth: 2 clips x 1 frame (of 9, number 3), each judged as a video of one frame."""
    clips = YouTubeVIS(data / "medium")
    truth, results = {"videos": [], "categories": clips.category_entries, "annotations": []}, []
    for i in range(len(clips)):
        clip = clips[i]
        truth["videos"].append({"id": i + 1, "height": 128, "width": 160, "length": 1})
        for track in clip.tracks:
            if track["segmentations"][3]:
                truth["annotations"].append({**track, "id": len(truth["annotations"]) + 1, "video_id": i + 1,
                                             "segmentations": [track["segmentations"][3]], "areas": [track["areas"][3]]})  # fmt: skip
        with torch.inference_mode():
            out = model(torch.from_numpy(clip.image(3)).permute(2, 0, 1)[None].float() / 255)
        masks = torch.nn.functional.interpolate(out.mask_logits, scale_factor=8, mode="bilinear")[0] > 0
        entries = [(float(out.scores()[0, q, k]), q, k) for q in range(20) for k in range(len(CATEGORIES))]
        for score, q, k in sorted(entries, reverse=True)[:KEPT]:
            results.append({"video_id": i + 1, "category_id": clips.category_ids[k], "score": score,
                            "segmentations": [measure.encode_mask(masks[q].numpy())]})  # fmt: skip
    assert measured["image"]["AP"] == pytest.approx(evaluate_ytvis(truth, results)["AP"], abs=1e-6)
    assert measured["image"]["AP"] > 0.05


def test_consistency_is_kept_by_clip(data, model, measured):
    from minst.evaluation.consistency import ConsistencyMeter
    from minst.predict import encode, masks_of_queries

    clips = YouTubeVIS(data / "medium")
    for i, row in enumerate(measured["consistency"]["pairs"]):
        with torch.inference_mode():
            logits = [model(image_to_batch(image)).class_logits[0] for image in clips[i]]
        probabilities = [frame.sigmoid()[:, clips[i].labels].numpy() for frame in logits]
        truths = (clips[i].masks(t) for t in range(9))
        found = (masks_of_queries(encode(model, image)) for image in clips[i])
        meter = ConsistencyMeter(10).add_clip(found, truths, probabilities=probabilities)
        pairs = meter.result()["pairs"]
        assert row == [pairs[k][what] for k in (1, 3, 10) for what in ("kept", "of")]


@pytest.mark.parametrize("speed, association, interval", [("medium", "cosine", 3), ("fast", "mask", 2)])
def test_consistency_of_tracks_is_that_of_their_masks_as_pixels(data, model, measured, speed, association, interval):
    from minst.evaluation.consistency import query_consistency

    row = next(r for r in measured["settings"] if (r["speed"], r["by"], r["value"]) == (speed, association, interval))
    clips = YouTubeVIS(data / speed)
    assert len(row["pairs"]) == len(clips)
    for i, found in enumerate(row["pairs"]):
        tracker = KernelTracker(model, interval, association, score_threshold=EVALUATION_THRESHOLD)
        tracks = np.zeros((9, 40, 128, 160), dtype=bool)  # (T, K, H, W), drawn from what `step` says of each frame
        for t, frame in enumerate(clips[i]):
            said = tracker.step(frame)
            tracks[t, said.ids] = said.masks()
        pairs = query_consistency(tracks, (clips[i].masks(t) for t in range(9)))["pairs"]
        assert found == [pairs[k][what] for k in (1, 3, 10) for what in ("kept", "of")]
        assert found[1] > 0


def test_an_instance_out_of_sight_need_not_be_held():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    code = measure.encode_mask(mask)
    track = Track(1, [1.0], [code, code, None, None, code])
    instance = {"segmentations": [code, code, None, code, code]}  # hidden in frame 2, lost by the track in frame 3
    pairs = measure._track_pairs(VideoResult([track], 5, ("fish",)), [instance])
    assert pairs == [1, 1, 1, 2, 0, 0]  # 1 on: 0-1; 3 on: 0-3 lost, 1-4 kept


def test_times_are_of_every_setting_and_of_its_own_key_frames(data, model):
    times = measure.frame_times(model, YouTubeVIS(data / "medium"), 1)
    assert {f"mask {t}" for t in INTERVALS} | {f"frozen {t}" for t in FROZEN} <= set(times)
    assert times["mask 1"]["other"] == 0 and times["mask 1"]["mean"] == times["mask 1"]["key"] > 0
    third = times["mask 3"]
    assert third["mean"] == pytest.approx((third["key"] + 2 * third["other"]) / 3, abs=2e-3)


# ------------------------------------------------------------------------------------------------ pre-training


def test_pretraining_goes_on_where_it_stopped_and_gives_weights_that_load(tmp_path, data, monkeypatch):
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(data)
    budget = dataclasses.replace(TINY, pretraining=4)
    straight = load_file(pretrain("topformer-tiny", tmp_path / "straight", budget))

    class Stop(Exception):
        pass

    real, seen = pretraining._step, []

    def step(*arguments):
        if len(seen) == 3:
            raise Stop
        seen.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(pretraining, "_step", step)
        pretrain("topformer-tiny", tmp_path / "stopped", budget)
    stopped = load_file(pretrain("topformer-tiny", tmp_path / "stopped", budget))
    assert straight.keys() == stopped.keys()
    assert all(torch.equal(straight[key], stopped[key]) for key in straight)
    logs = [(tmp_path / name / "backbones/topformer-tiny/log.jsonl").read_text() for name in ("straight", "stopped")]
    assert logs[0] == logs[1] and [json.loads(line)["iteration"] for line in logs[0].splitlines()] == [2, 4]
    path = tmp_path / "straight/backbones/topformer-tiny/backbone.safetensors"
    average = torch.load(path.with_name("checkpoint.pt"), weights_only=True)["average"]
    assert all(torch.equal(value, average[f"module.backbone.{key}"]) for key, value in straight.items())
    assert not load_backbone_weights(backbones.build("topformer-tiny", token_stride=32), path).missing_keys


# ------------------------------------------------------------------------------------------------ the runner


@pytest.fixture
def quick(monkeypatch):
    """Jobs that only write their result; `fail` and `slow` hold names of jobs that do not, or take their time."""
    asked = {"started": [], "fail": set(), "slow": set(), "seconds": 30}

    def start(job, lab, device):
        asked["started"].append(job.name)
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "train.json").write_text("{}")
        write = f"import pathlib, time; time.sleep({asked['seconds'] if job.name in asked['slow'] else 0}); "
        write += (
            "raise SystemExit(3)" if job.name in asked["fail"] else f"pathlib.Path(r'{job.result}').write_text('{{}}')"
        )
        return subprocess.Popen([sys.executable, "-c", write])

    monkeypatch.setattr(runs, "_start", start)
    monkeypatch.setattr(runs, "_write_clips", lambda *arguments: None)
    return asked


def test_backbones_come_first_and_seeds_are_the_outer_loop(tmp_path, quick):
    done = run_lab(["images", "full"], 2, tmp_path, TINY, jobs=1, device="cpu")
    assert quick["started"] == ["topformer-tiny", "full-0", "images-0", "full-1", "images-1"]
    assert [run.name for run in done] == quick["started"][1:] and all(run.is_done for run in done)


def test_what_is_done_is_not_done_again_and_more_seeds_only_add(tmp_path, quick):
    run_lab(["full"], 1, tmp_path, TINY, jobs=2, device="cpu")
    quick["started"].clear()
    run_lab(["full"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == []
    run_lab(["full"], 3, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["full-1", "full-2"]


def test_shipped_weights_are_measured_with_the_whole_grid_or_by_name(tmp_path, quick):
    run_lab(["shapes-tiny"], 3, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["shapes-tiny"]
    run_lab([], 1, tmp_path, TINY, jobs=8, device="cpu")
    assert set(quick["started"]) >= {f"{name}-0" for name in VARIANTS} | {"shapes-tiny-images"}
    assert quick["started"].count("shapes-tiny") == 1


def test_clips_whose_writing_was_killed_are_written_again(tmp_path):
    part = tmp_path / "medium.part"
    part.mkdir(parents=True)
    (part / "half").write_text("")
    runs._write_clips(tmp_path, TINY)
    names = {"train", "slow", "medium", "fast", "shipped/train", "shipped/medium"}
    assert {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("annotations.json")} == names
    before = (tmp_path / "slow" / "annotations.json").stat().st_mtime_ns
    runs._write_clips(tmp_path, TINY)
    assert (tmp_path / "slow" / "annotations.json").stat().st_mtime_ns == before


def test_shipped_weights_are_judged_by_shapes_of_theirs(tmp_path):
    runs._write_clips(tmp_path / "data", TINY)
    found = json.loads(measure.measure_shipped(tmp_path, "shapes-tiny-images", TINY).read_text())
    assert {(row["by"], row["value"]) for row in found["settings"]} == {
        (by, t) for by in ASSOCIATIONS for t in (1, 3, 6)
    }
    assert found["variant"] == "shapes-tiny-images" and max(row["AP"] for row in found["settings"]) > 0.2


def test_a_run_that_fails_stops_no_other_and_is_named(tmp_path, quick):
    quick["fail"].add("decoder=local-0")
    with pytest.raises(RuntimeError, match=r"1 of 4 have failed \(decoder=local-0: .*job.log\)"):
        run_lab(["full", "decoder=local", "images"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert sum(run.is_done for run in find_runs(tmp_path)) == 2
    quick["fail"].clear()
    quick["started"].clear()
    run_lab(["full", "decoder=local", "images"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["decoder=local-0"]


def test_without_its_backbone_a_run_does_not_begin(tmp_path, quick):
    quick["fail"].add("seaformer-tiny")
    with pytest.raises(RuntimeError, match="1 runs have not begun for want of their backbone"):
        run_lab(["full", "seaformer-tiny"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert "seaformer-tiny-0" not in quick["started"] and "full-0" in quick["started"]


def test_never_more_at_a_time_than_jobs(tmp_path, quick, monkeypatch):
    real, at_once = runs._start, []

    def start(job, lab, device):
        process = real(job, lab, device)
        at_once.append(process)
        assert sum(p.poll() is None for p in at_once) <= 2
        return process

    monkeypatch.setattr(runs, "_start", start)
    quick.update(slow={f"{name}-0" for name in VARIANTS}, seconds=1.2)  # longer than the runner's glance
    run_lab(["full", "images", "queries=10", "queries=50"], 1, tmp_path, TINY, jobs=2, device="cpu")


def test_ctrl_c_leaves_no_process_behind(tmp_path, quick, monkeypatch):
    quick["slow"] |= {"full-0", "images-0"}
    real, processes = runs._start, []
    monkeypatch.setattr(runs, "_start", lambda *a: processes.append(real(*a)) or processes[-1])

    real_show = runs._Progress.show

    def show(progress, working):
        real_show(progress, working)
        if len(working) == 2 and len(processes) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs._Progress, "show", show)
    with pytest.raises(KeyboardInterrupt):
        run_lab(["full", "images"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert [process.poll() for process in processes] == [0, -signal.SIGTERM, -signal.SIGTERM]


def test_wrong_arguments_are_said(tmp_path, quick, monkeypatch):
    with pytest.raises(ValueError, match="no run decoder=both; there are: full, decoder=global"):
        run_lab(["full", "decoder=both"], 1, tmp_path, TINY)
    with pytest.raises(ValueError, match="0 seeds"):
        run_lab([], 0, tmp_path, TINY)
    with pytest.raises(ValueError, match="0 jobs"):
        run_lab([], 1, tmp_path, TINY, jobs=0)
    run_lab(["full"], 1, tmp_path, TINY, device="cpu")
    with pytest.raises(ValueError, match="holds runs of another budget \\(tiny\\), not of 'full'"):
        run_lab(["full"], 1, tmp_path, FULL, device="cpu")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="holds runs of another grid"):
        patch.setattr(runs, "VARIANTS", {"full": VARIANTS["full"]})
        run_lab(["full"], 1, tmp_path, TINY, device="cpu")
    (tmp_path / "lab.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="lab.json lacks a budget or a grid"):
        run_lab(["full"], 1, tmp_path, TINY, device="cpu")
    (tmp_path / "lab.json").write_text('{"version": 1, "bud')
    with pytest.raises(ValueError, match="lab.json: broken JSON"):
        run_lab(["full"], 1, tmp_path, TINY, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch sees no GPU"):
            run_lab(["full"], 1, tmp_path, TINY, device="cuda")


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl")
def test_two_labs_in_one_folder_are_refused(tmp_path, quick):
    with runs._alone(tmp_path), pytest.raises(ValueError, match="another `minst lab run` is at work here"):
        run_lab(["full"], 1, tmp_path, TINY, device="cpu")


def test_a_folder_without_a_lab_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no lab"):
        find_runs(tmp_path)


def test_progress_says_how_far_and_how_long(tmp_path, monkeypatch):
    class Terminal:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def isatty(self):
            return True

        def flush(self):
            pass

    terminal, now = Terminal(), [1000.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = [
        runs.Job(("run", "full", f"{i}"), 100, tmp_path / f"full-{i}" / "metrics.json")
        for i in (0, 1, 2)
    ]
    jobs[0].folder.mkdir()
    (jobs[0].folder / "log.jsonl").write_text('{"iteration": 50, "loss": 2.5}\n')
    progress = runs._Progress(jobs)
    progress.show([jobs[0]])
    assert "full-0" in terminal.text and "50/300" in terminal.text
    now[0] += 120
    jobs[0].result.write_text("{}")
    terminal.text = ""
    progress.ended(jobs[0], False)
    assert re.search(r"full-0 +done in 02:00   1 of 3", terminal.text)
    progress.show([jobs[1]])
    assert "full-1" in terminal.text and "100/300" in terminal.text
    progress.ended(jobs[1], True)
    assert re.search(r"full-1 +FAILED after 00:00   1 of 3", terminal.text)
    progress.bar.close()


# ------------------------------------------------------------------------------------------------ all of it


def test_a_real_run_from_nothing_to_a_report_by_the_command_line(tmp_path, monkeypatch, capfd):
    """Interrupted by a kill in the middle of training, it goes on; then the report of a single run."""
    monkeypatch.setattr("minst.lab.grid.SMOKE", TINY)
    out = tmp_path / "lab with space"
    command = ["lab", "run", "full", "images", "--smoke", "--out", str(out)]
    # a shell that started pytest in the background has Ctrl-C ignored, and so would this process
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += f"import minst.lab.grid as g; g.SMOKE = g.Budget(**{TINY.to_dict()}); "
    program += f"from minst.cli import main; raise SystemExit(main({command}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (out / "full-0" / "job.log").is_file() and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130 and "the same command goes on" in process.stderr.read()
    assert not (out / "full-0" / "metrics.json").is_file()

    assert cli.main(command) == 0
    said = capfd.readouterr()
    assert "2 runs are done" in said.out and "images-0" in said.err
    metrics = json.loads((out / "images-0" / "metrics.json").read_text())
    assert metrics["variant"] == "images" and len(metrics["settings"]) == len(settings("images"))
    train = json.loads((out / "images-0" / "train.json").read_text())
    assert train["train_on"] == "images" and train["out"] == "images-0" and train["data"] == "data/train"
    assert Run(out, "full", 0).is_done
    assert cli.main(["lab", "report", str(out), "--no-plots"]) == 0
    assert "(`images`, 1)" in (out / "report" / "README.md").read_text()
    assert not list((out / "report").glob("*.png"))


@pytest.mark.skipif(not os.environ.get("MINST_LAB_SMOKE"), reason="3 minutes; CI sets MINST_LAB_SMOKE")
def test_the_whole_grid_at_the_smoke_budget(tmp_path):
    assert cli.main(["lab", "run", "--smoke", "--out", str(tmp_path)]) == 0
    assert cli.main(["lab", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report" / "README.md").read_text()
    assert all(f"(`{name}`, 1)" in text for name in VARIANTS)
    assert all(f"shipped weights: {name} | mask" in text for name in SHIPPED)
    assert len(list((tmp_path / "report").glob("*.png"))) == 4


def test_a_job_that_fails_says_why_in_its_log(tmp_path, data):
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "lab.json").write_text(json.dumps({"version": 1, "budget": TINY.to_dict()}))
    job = runs.Job(("run", "full", "0"), 3, tmp_path / "full-0" / "metrics.json")
    assert runs._start(job, tmp_path, "cpu").wait(120) != 0  # there is no backbone
    assert "backbone.safetensors" in (tmp_path / "full-0" / "job.log").read_text()
