"""minst.lab: the declared grid, pre-training, measuring, and the runner that keeps processes busy."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    assert times["mask 1"]["other"] == 0 < times["mask 1"]["key"] and times["mask 3"]["other"] > 0


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
    asked = {"started": [], "fail": set(), "slow": set(), "seconds": 30, "processes": []}

    def start(job, lab, device, lock):
        asked["started"].append(job.name)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.with_name("train.json").write_text("{}")
        write = f"import pathlib, time; time.sleep({asked['seconds'] if job.name in asked['slow'] else 0}); "
        write += (
            "raise SystemExit(3)" if job.name in asked["fail"] else f"pathlib.Path(r'{job.result}').write_text('{{}}')"
        )
        asked["processes"].append(subprocess.Popen([sys.executable, "-c", write]))
        assert sum(process.poll() is None for process in asked["processes"]) <= 2
        return asked["processes"][-1]

    monkeypatch.setattr(runs, "_start", start)
    monkeypatch.setattr(runs, "_write_clips", lambda *arguments: None)
    return asked


def test_backbones_first_seeds_outside_and_what_is_done_is_not_done_again(tmp_path, quick, capfd):
    done = run_lab(["images", "full"], 2, tmp_path, TINY, jobs=1, device="cpu")
    assert quick["started"] == ["topformer-tiny", "full-0", "images-0", "full-1", "images-1"]
    assert [run.name for run in done] == quick["started"][1:] and all(run.is_done for run in done)
    assert re.search(r"full-1 +done in 00:0\d", capfd.readouterr().err)
    quick["started"].clear()
    run_lab(["images", "full"], 2, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == []
    run_lab(["full", "shapes-tiny"], 3, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["full-2", "shapes-tiny"]


def test_the_whole_grid_holds_every_variant_and_the_shipped_weights():
    every = [Run(Path("lab"), name, seed) for seed in (0, 1) for name in VARIANTS]
    names = [job.name for job in runs._jobs(Path("lab"), [*VARIANTS, *SHIPPED], every)]
    assert names == ["topformer-tiny", "seaformer-tiny", "mobilenetv2-0.6", *(run.name for run in every), *SHIPPED]


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


def test_shipped_weights_are_judged_by_shapes_of_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "of_shipped", lambda: [Setting("medium", by, 3) for by in ("none", "centred")])
    runs._write_clips(tmp_path / "data", TINY)
    found = json.loads(measure.measure_shipped(tmp_path, "shapes-tiny-images", TINY).read_text())
    assert [(row["by"], row["value"]) for row in found["settings"]] == [("none", 3), ("centred", 3)]
    assert found["variant"] == "shapes-tiny-images" and max(row["AP"] for row in found["settings"]) > 0.2


def test_a_run_that_fails_stops_no_other_and_without_its_backbone_none_begins(tmp_path, quick, capfd):
    names = ["full", "decoder=local", "images", "seaformer-tiny"]
    quick["fail"] |= {"decoder=local-0", "seaformer-tiny"}
    with pytest.raises(RuntimeError, match=r"2 of 6 have failed .*decoder=local-0: .*job.log.* 1 runs have not begun for"):
        run_lab(names, 1, tmp_path, TINY, jobs=2, device="cpu")
    assert sum(run.is_done for run in find_runs(tmp_path)) == 2 and "seaformer-tiny-0" not in quick["started"]
    assert re.search(r"decoder=local-0 +FAILED after", capfd.readouterr().err)
    quick["fail"].clear()
    quick["started"].clear()
    run_lab(names, 1, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["seaformer-tiny", "decoder=local-0", "seaformer-tiny-0"]


def test_never_more_at_a_time_than_jobs_and_ctrl_c_leaves_no_process_behind(tmp_path, quick, monkeypatch):
    """The fixture counts processes; here all but the backbone take half a minute."""
    quick["slow"] |= {"full-0", "images-0", "queries=10-0"}
    real, pressed = time.sleep, []

    def sleep(seconds):
        real(seconds)
        if len(quick["processes"]) == 3 and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        run_lab(["full", "images", "queries=10"], 1, tmp_path, TINY, jobs=2, device="cpu")
    assert [process.poll() for process in quick["processes"]] == [0, -signal.SIGTERM, -signal.SIGTERM]


LAB = '{"version": 1, "budget": %s, "grid": [%s]}'
BUDGET = json.dumps(dataclasses.asdict(TINY))


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"version": 1}', "lab.json: lacks `budget`"),
        ('{"version": 1, "bud', "lab.json: broken JSON at line 1"),
        ("", "lab.json: is empty"),
        ("[" * 10**5, "lab.json: expected `object`, got `array`"),
        ('{"a":' * 10**5, "lab.json: "),
        (LAB % (BUDGET.replace("2", '"two"', 1), ""), "lab.json: budget.pretraining: expected `int`, got `str`"),
        (LAB % (BUDGET, '{"name": "full", "group": [], "says": ""}'), "lab.json: grid[0].group: expected `str`"),
        (LAB % (BUDGET, ""), "holds runs of another grid"),
        (LAB % (json.dumps(dataclasses.asdict(FULL)), ""), "holds runs of another budget (full), not of 'tiny'"),
    ],
)
def test_a_lab_json_that_is_foreign_or_broken_is_named(tmp_path, quick, text, words):
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)) as said:
        run_lab(["full"], 1, tmp_path, TINY, device="cpu")
    assert len(str(said.value)) < 400 and not quick["started"]


def test_arguments_are_checked_before_anything_is_written(tmp_path, quick, capsys):
    out = tmp_path / "lab"
    for arguments, words in [
        (["full", "decoder=both"], "no run decoder=both; there are: full, decoder=global"),
        (["--seeds", "0"], "seeds"),
        (["--seeds", "1000000000000"], "--seeds: 1000000000000 is out of range"),
        (["--jobs", "0"], "jobs"),
        *[(["--device", "cuda"], "PyTorch sees no GPU")] * (not torch.cuda.is_available()),
    ]:
        try:
            status = cli.main(["lab", "run", *arguments, "--out", str(out)])
        except SystemExit as left:
            status = left.code
        said = capsys.readouterr().err
        assert status == 2 and words in said and said.count("\n") == 1 and not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        cli.main(["lab", "run", "full", "--out", str(tmp_path / "file")])
    assert "file" in capsys.readouterr().err


def alive(pid):
    """Is this process still there, and no zombie?"""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="flock, /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_holds_the_lock_and_ends_with_who_has_started_it(tmp_path, how):
    """A lab whose only job trains for ever; its runner is killed."""
    program = f"""
from pathlib import Path
from minst.lab import runs
runs._write_clips = lambda *given: None
real = runs._start
def start(job, lab, device, lock):
    process = real(job, lab, device, lock)
    Path(r"{tmp_path}", "pid").write_text(str(process.pid))
    return process
runs._start = start
runs.run_lab(["full"], 1, r"{tmp_path}", runs.Budget(**{dataclasses.asdict(TINY)}), device="cpu")
"""
    # The job's own modules: training that never ends, and a file that is being written.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import sys
if "minst.lab.runs" in sys.orig_argv:
    import time
    from pathlib import Path
    import minst.lab.pretrain
    from minst.data.files import replacing
    def pretrain(*given):
        with replacing(Path(r"{tmp_path}", "half.bin")):
            Path(r"{tmp_path}", "busy").write_text("")
            while True:
                time.sleep(0.01)
    minst.lab.pretrain.pretrain = pretrain
""")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    runner = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    wait_for(lambda: (tmp_path / "busy").exists() and (tmp_path / "pid").exists())
    job = int((tmp_path / "pid").read_text())
    assert alive(job) and list(tmp_path.glob(".half.*"))
    try:
        os.kill(job, signal.SIGSTOP)  # it cannot notice yet
        runner.send_signal(how)
        runner.wait(1200)
        assert not free(tmp_path)
        os.kill(job, signal.SIGCONT)
        wait_for(lambda: not alive(job))
    finally:
        with contextlib.suppress(OSError):
            os.kill(job, signal.SIGKILL)
    wait_for(lambda: free(tmp_path))  # its last thread has gone too
    assert not list(tmp_path.glob(".half.*"))


def free(folder):
    try:
        with runs._alone(folder):
            return True
    except ValueError as error:
        assert "another `minst lab run` is at work here" in str(error)
        return False


def wait_for(condition):
    until = time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_folder_without_a_lab_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no lab"):
        find_runs(tmp_path)


# ------------------------------------------------------------------------------------------------ all of it


def test_a_real_run_from_nothing_to_a_report_by_the_command_line(tmp_path, monkeypatch, capfd):
    """Interrupted by a kill in the middle of training, it goes on; then the report of a single run."""
    monkeypatch.setattr("minst.lab.grid.SMOKE", TINY)
    out = tmp_path / "lab with space"
    command = ["lab", "run", "full", "--smoke", "--out", str(out)]
    # a shell that started pytest in the background has Ctrl-C ignored, and so would this process
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += f"import minst.lab.grid as g; g.SMOKE = g.Budget(**{dataclasses.asdict(TINY)}); "
    program += f"from minst.cli import main; raise SystemExit(main({command}))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 1200
    while not (out / "full-0" / "job.log").is_file() and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(1200) == 130 and "the same command goes on" in process.stderr.read()
    assert not (out / "full-0" / "metrics.json").is_file()

    wait_for(lambda: free(out))  # a process that made clips for the training may need a moment more
    assert cli.main(command) == 0
    said = capfd.readouterr()
    assert "1 runs are done" in said.out and "full-0" in said.err
    metrics = json.loads((out / "full-0" / "metrics.json").read_text())
    assert metrics["variant"] == "full" and len(metrics["settings"]) == len(settings("full"))
    train = json.loads((out / "full-0" / "train.json").read_text())
    assert train["train_on"] == "pairs" and train["out"] == "full-0" and train["data"] == "data/train"
    assert Run(out, "full", 0).is_done
    assert cli.main(["lab", "report", str(out), "--no-plots"]) == 0
    assert "(`full`, 1)" in (out / "report" / "README.md").read_text()
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
    held = {"version": 1, "budget": dataclasses.asdict(TINY), "grid": []}
    (tmp_path / "lab.json").write_text(json.dumps(held))
    job = runs.Job(("run", "full", "0"), tmp_path / "full-0" / "metrics.json")
    with runs._alone(tmp_path) as lock:
        process = runs._start(job, tmp_path, "cpu", lock)
        assert process.wait(1200) != 0  # there is no backbone
    assert "backbone.safetensors" in (tmp_path / "full-0" / "job.log").read_text()
