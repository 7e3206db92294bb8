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
from minst.data.coco import COCO
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.transforms import frame_instances
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.ytvis import evaluate_ytvis
from minst.lab import measure, runs
from minst.lab.associations import ASSOCIATIONS, FrozenX6
from minst.lab.grid import FULL, SHIPPED, SMOKE, VARIANTS, backbone_of, train_config
from minst.lab.matches import KEPT
from minst.lab.measure import FIGURES, FROZEN, INTERVALS, RULES, Setting, Video, scenes, settings
from minst.lab.statistics import GROUPS
from minst.losses import set_losses
from minst.lab.runs import Run, find_runs, run_lab
from minst.macs import summary
from minst.model import MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD, encode, masks_of_queries
from minst.tracking import KernelTracker
from minst.training import switches
from minst.weights import load_backbone_weights

TINY = dataclasses.replace(SMOKE, name="tiny", pretraining=2, iterations=3, further=2, train_clips=4, save_every=2)


# ------------------------------------------------------------------------------------------------ the grid


def test_every_variant_is_its_base_with_one_thing_changed():
    for name, variant in VARIANTS.items():
        base = dataclasses.asdict(train_config(variant.base, 0, FULL))
        other = dataclasses.asdict(train_config(name, 0, FULL))
        changed = {k for k in base if base[k] != other[k]} - {"out", "backbone_weights"}
        if variant.decoder:  # the one thing; where there is one decoder alone the losses of Q_G go with it
            assert changed == (set() if "-" in variant.decoder else {"global_weight"}), name
        else:
            assert len(changed) == (name != variant.base), f"{name}: {changed}"
        assert len(switches(other["switches"])) <= 1 and VARIANTS[variant.base].base == variant.base
        assert variant.judged_by in FIGURES and (not variant.claim or variant.paper)


def test_a_row_of_training_goes_on_from_the_weights_of_its_seed():
    row = train_config("passing=off", 2, FULL)
    assert (row.init, row.data, row.backbone_weights) == ("full-2/weights", "data/train-2", "")
    assert row.iterations == FULL.further and row.train_on == "pairs" and train_config("full", 2, FULL).train_on == "images"
    assert train_config("images", 0, FULL).train_on == "images" and train_config("images", 0, FULL).init


def test_seeds_and_budgets_change_nothing_else():
    first, second = (dataclasses.asdict(train_config("images", seed, FULL)) for seed in (0, 1))
    assert {k for k in first if first[k] != second[k]} == {"seed", "out", "data", "init"}


def test_backbones_are_compared_at_equal_macs():
    macs = {}
    for name in ("full", "seaformer-tiny", "mobilenetv2-0.6"):
        changed = switches(VARIANTS[name].changes.get("switches", ""))
        model = MobileInst(MobileInstConfig.preset("shapes-tiny", num_classes=4, **changed))
        macs[name] = summary(model, (128, 128))["total"]["macs"]
        assert model.config.backbone == backbone_of(name)
    assert max(macs.values()) < 1.12 * min(macs.values()), macs


def test_settings_hold_the_issue_s_rows_once_each():
    medium = settings("shapes-tiny", "medium")
    assert len(medium) == len(set(medium))
    assert {Setting(by, t) for by in RULES for t in (1, 3)} <= set(medium)
    assert RULES == (*ASSOCIATIONS, "oracle") and INTERVALS == (1, 3, 6, 12)
    for speed in ("slow", "medium", "fast"):
        wanted = {Setting("cosine", t) for t in INTERVALS} | {Setting("frozen", t) for t in FROZEN}
        assert wanted <= set(settings("shapes-tiny", speed))
    assert {Setting("told", 3), Setting("cosine", 3)} <= set(settings("shapes-tiny", "cut"))


# ------------------------------------------------------------------------------------------------ measuring


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips that the shipped weights know, and single frames."""
    folder = tmp_path_factory.mktemp("lab") / "data"
    config = ShapesConfig(width=160, height=128, frames=9, min_instances=2, max_instances=3)
    for name, split in {"train-0": "train", "val-0": "val"}.items():
        write_shapes_dataset(folder / name, 2, config, 5, split)
    write_shapes_dataset(folder / "frames-0", 5, config, 5, "val", images=True)
    return folder


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def clips(data):
    return YouTubeVIS(data / "val-0")


@pytest.fixture(scope="module")
def tracked(model, clips):
    wanted = [Setting("cosine", 3), Setting("frozen", 2), Setting("oracle", 1)]
    return measure.track_all(model, map(Video.of, clips), wanted, clips)


@pytest.mark.parametrize("by, interval", [("cosine", 3), ("frozen", 2)])
def test_video_ap_is_that_of_the_tracker_s_ten_best_tracks(model, clips, tracked, by, interval):
    kind = FrozenX6 if by == "frozen" else KernelTracker
    tracker, best, alone = kind(model, interval, "cosine", score_threshold=EVALUATION_THRESHOLD), [], []
    for i in range(len(clips)):
        entries = tracker.track(clips[i]).to_ytvis(clips[i].video["id"], clips.category_ids)
        best += sorted(entries, key=lambda e: -e["score"])[:KEPT]
        alone.append(evaluate_ytvis(clips[i].annotations(), best[-KEPT:])["AP"] if i == 1 else None)
    found = tracked[f"{by} {interval}"]
    assert found.value == pytest.approx(evaluate_ytvis(clips.dataset, best)["AP"], abs=1e-6) and found.value > 0.05
    # two clips: the first group is the first, without which the second is alone
    second = [e for e in best if e["video_id"] == clips[1].video["id"]]
    assert found.without[0] == pytest.approx(evaluate_ytvis(clips[1].annotations(), second)["AP"], abs=1e-6)
    assert len(found.without) == GROUPS and found.without[2] == found.value


def test_image_ap_and_losses_are_those_of_frames_alone(data, model):
    images = COCO(data / "frames-0")
    truth, results, targets, outs = {"videos": [], "categories": images.category_entries, "annotations": []}, [], [], []
    for i in range(len(images)):
        image = images[i]
        truth["videos"].append({"id": i + 1, "height": 128, "width": 160, "length": 1})
        truth["annotations"] += [{**track, "video_id": i + 1} for track in image.tracks]
        with torch.inference_mode():
            out = model(image_to_batch(image.image(0)))
        masks = torch.nn.functional.interpolate(out.mask_logits, scale_factor=8, mode="bilinear")[0] > 0
        entries = [(float(out.scores()[0, q, k]), q, k) for q in range(20) for k in range(len(CATEGORIES))]
        for score, q, k in sorted(entries, reverse=True)[:KEPT]:
            results.append({"video_id": i + 1, "category_id": images.category_ids[k], "score": score,
                            "segmentations": [measure.encode_mask(masks[q].numpy())]})  # fmt: skip
        targets.append(frame_instances(torch.from_numpy(image.masks(0)), torch.as_tensor(image.labels).long()))
        outs.append(out)
    found = measure.of_frames(model, images)
    assert found["image AP"].value == pytest.approx(evaluate_ytvis(truth, results)["AP"], abs=1e-6)
    assert found["image AP"].value > 0.05
    batch = (torch.cat([getattr(out, name) for out in outs]) for name in ("class_logits", "objectness", "mask_logits"))
    losses, _ = set_losses(*batch, targets)
    assert found["dice"].value == pytest.approx(float(losses["dice"]), abs=1e-5)
    assert found["class"].value == pytest.approx(float(losses["cls"]), abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 9, 16])
@torch.inference_mode()
def test_frames_seen_together_are_as_seen_alone(model, clips, at_once):
    together = list(measure.look(model, iter(clips[0]), at_once))
    assert len(together) == len(clips[0])
    for image, frame in zip(clips[0], together):
        alone = encode(model, image)
        for name in ("x6", "padded_x_mask"):
            torch.testing.assert_close(getattr(frame, name), getattr(alone, name), atol=1e-4, rtol=1e-4)
        for ours, theirs in zip(frame.out, alone.out):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_what_queries_do_is_counted_over_all_clips(model, clips):
    from minst.evaluation.consistency import ConsistencyMeter, frame_share

    meter, firsts = ConsistencyMeter(3), []
    for i in range(len(clips)):
        frames = [encode(model, image) for image in clips[i]]
        with torch.inference_mode():
            given = [frame.out.class_logits[0].sigmoid()[:, clips[i].labels].numpy() for frame in frames]
        meter.add_clip(map(masks_of_queries, frames), (clips[i].masks(t) for t in range(9)), probabilities=given)
        firsts.append(frames[0].out.global_queries[0].numpy())
    said, found = meter.result(), measure.of_clips(model, clips)
    assert found["retention"].value == pytest.approx(said["retention"][3], abs=1e-6)
    assert found["holders"].value == pytest.approx(said["holders"], abs=1e-6) and found["holders"].value >= 1
    assert found["share of Q_G"].value == pytest.approx(frame_share(np.stack(firsts)), abs=1e-5)


def test_a_scene_cut_shows_the_first_half_of_one_clip_and_the_second_of_another(clips):
    (video,) = scenes(clips)
    assert video.cut % 3 and video.cut % 6 and 0 < video.cut < 9
    for t, image in enumerate(video.images):
        shown = clips[0] if t < video.cut else clips[1]
        assert (image == shown.image(t)).all()
        codes = [track["segmentations"][t] for track in video.tracks]
        assert [c for c in codes if c] == [s["segmentations"][t] for s in shown.tracks if s["segmentations"][t]]


def test_the_code_that_measured_is_named():
    assert re.fullmatch(r"[0-9a-f]{12}\+?|\d+\.\d+.*", measure.commit())


# ------------------------------------------------------------------------------------------------ pre-training


def test_a_backbone_learns_to_classify_and_its_file_is_there_when_it_is_done(tmp_path, data, monkeypatch):
    lab = tmp_path
    (lab / "data").symlink_to(data)
    (lab / "lab.json").write_text(LAB % (json.dumps(dataclasses.asdict(TINY)), ""))
    monkeypatch.chdir(lab)
    monkeypatch.setattr(runs.threading.Thread, "start", lambda thread: None)  # which would end these tests with pytest
    real, before = runs.train, signal.getsignal(signal.SIGTERM)
    path = lab / "backbones/topformer-tiny/backbone.safetensors"

    def look(config, **given):
        assert not path.exists()
        return real(config, **given)

    monkeypatch.setattr(runs, "train", look)
    try:
        runs.main("cpu", "pretrain", "topformer-tiny")
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = (path.parent / "log.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"iteration", "loss", "token", "seconds_per_iteration"}
    held = torch.load(path.with_name("checkpoint.pt"), weights_only=True)
    average, found = held["average"], load_file(path)
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in found.items())
    backbone = backbones.build("topformer-tiny", token_stride=32)
    assert not load_backbone_weights(backbone, path).missing_keys
    assert all(torch.equal(value, found[f"backbone.{key}"]) for key, value in backbone.state_dict().items())
    # The backbone has learned, and nothing else: without a gradient AdamW leaves a weight alone.
    torch.manual_seed(1000)
    untrained = dict(MobileInst(MobileInstConfig.preset("shapes-tiny")).named_parameters())
    moved = {key.split(".")[0] for key, value in untrained.items() if not torch.equal(held["model"][key], value)}
    assert moved == {"backbone"}


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
    done = run_lab(["images"], 2, tmp_path, TINY, jobs=1, device="cpu")  # which starts from the weights of "full"
    assert quick["started"] == ["topformer-tiny", "full-0", "images-0", "full-1", "images-1"]
    assert [run.name for run in done] == quick["started"][1:] and all(run.is_done for run in done)
    assert re.search(r"full-1 +done in 00:0\d", capfd.readouterr().err)
    quick["started"].clear()
    run_lab(["images", "full"], 2, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == []
    run_lab(["full", "shapes-tiny-images"], 3, tmp_path, TINY, jobs=2, device="cpu")
    assert quick["started"] == ["full-2", "shapes-tiny-images-medium"]


def test_the_whole_grid_holds_every_variant_and_the_shipped_weights():
    every = [Run(Path("lab"), name, seed) for seed in (0, 1) for name in VARIANTS]
    names = [job.name for job in runs._jobs(Path("lab"), [*SHIPPED], every)]
    shipped = [f"{name}-{speed}" for name, speeds in SHIPPED.items() for speed in speeds]
    assert names == ["topformer-tiny", "seaformer-tiny", "mobilenetv2-0.6", *(run.name for run in every), *shipped]


def test_clips_are_those_of_the_jobs_and_are_written_again_if_that_was_killed(tmp_path):
    part = tmp_path / "val-1.part"
    part.mkdir(parents=True)
    (part / "half").write_text("")
    jobs = [runs.Job(("pretrain", "topformer-tiny"), tmp_path), runs.Job(("run", "full", "1"), tmp_path)]
    jobs += [runs.Job(("shipped", "shapes-tiny", speed), tmp_path) for speed in ("cut", "fast")]
    runs._write_clips(tmp_path, TINY, jobs)
    names = {"train-0", "train-1", "val-1", "frames-1", "shipped-medium", "shipped-fast"}
    assert {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("annotations.json")} == names
    assert len(COCO(tmp_path / "frames-1")) == TINY.val_frames and len(YouTubeVIS(tmp_path / "val-1")) == TINY.val_clips
    before = (tmp_path / "val-1" / "annotations.json").stat().st_mtime_ns
    runs._write_clips(tmp_path, TINY, jobs)
    assert (tmp_path / "val-1" / "annotations.json").stat().st_mtime_ns == before


def test_shipped_weights_are_judged_by_shapes_of_theirs(tmp_path):
    runs._write_clips(tmp_path / "data", TINY, [runs.Job(("shipped", "shapes-tiny", "cut"), tmp_path)])
    found = json.loads(measure.measure_shipped(tmp_path, "shapes-tiny", "cut", TINY).read_text())
    assert set(found["figures"]) == {f"{by} {t}" for by in ("cosine", "told") for t in (1, 3, 6)}
    assert found["variant"] == "shapes-tiny" and found["figures"]["told 1"]["value"] > 0.2


def test_a_run_that_fails_stops_no_other_and_without_its_backbone_none_begins(tmp_path, quick, capfd):
    names = ["full", "decoder=local", "passing=off", "seaformer-tiny"]
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
    quick["slow"] |= {"full-0", "pooling=avg-0", "queries=10-0"}
    real, pressed = time.sleep, []

    def sleep(seconds):
        real(seconds)
        if len(quick["processes"]) == 3 and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        run_lab(["full", "pooling=avg", "queries=10"], 1, tmp_path, TINY, jobs=2, device="cpu")
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
    import minst.training
    from minst.data.files import replacing
    def train(*given, **named):
        with replacing(Path(r"{tmp_path}", "half.bin")):
            Path(r"{tmp_path}", "busy").write_text("")
            while True:
                time.sleep(0.01)
    minst.training.train = train
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
    assert metrics["variant"] == "full" and set(metrics["figures"]) == set(FIGURES)
    train = json.loads((out / "full-0" / "train.json").read_text())
    assert train["train_on"] == "images" and train["out"] == "full-0" and train["data"] == "data/train-0"
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
    assert all(f"| {name}, medium | oracle for cosine" in text for name in SHIPPED)
    # of one seed no row has an interval to be drawn
    assert [path.name for path in (tmp_path / "report").glob("*.png")] == ["shipped.png"]


def test_a_job_that_fails_says_why_in_its_log(tmp_path, data):
    (tmp_path / "data").symlink_to(data)
    held = {"version": 1, "budget": dataclasses.asdict(TINY), "grid": []}
    (tmp_path / "lab.json").write_text(json.dumps(held))
    job = runs.Job(("run", "full", "0"), tmp_path / "full-0" / "metrics.json")
    with runs._alone(tmp_path) as lock:
        process = runs._start(job, tmp_path, "cpu", lock)
        assert process.wait(1200) != 0  # there is no backbone
    assert "backbone.safetensors" in (tmp_path / "full-0" / "job.log").read_text()
