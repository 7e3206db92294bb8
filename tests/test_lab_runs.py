"""minst.lab: the declared grid, pre-training, measuring, and the runner that keeps processes busy."""

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

from minst import backbones, cli, rle
from minst.config import MobileInstConfig
from minst.data.coco import COCO
from minst.data.shapes import CATEGORIES, ShapesConfig, write_shapes_dataset
from minst.data.transforms import frame_instances
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.ytvis import evaluate_ytvis
from minst.lab import decoders, measure, runs
from minst.lab.associations import ASSOCIATIONS
from minst.lab.grid import FULL, SHIPPED, SMOKE, VARIANTS, backbone_config, backbone_of, metrics_of, train_config
from minst.lab.measure import FIGURES, KEPT, pairs, scenes
from minst.lab.runs import run_lab
from minst.lab.statistics import GROUPS
from minst.losses import set_losses
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
        assert (other["threads"], other["data"]) == (1, "data/train-0")
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


@pytest.mark.parametrize("of, speed", [(of, speed) for of, speeds in SHIPPED.items() for speed in speeds])
def test_what_is_compared_of_shipped_weights(of, speed):
    found = pairs(of, speed)
    rules = {f"{by} {t}" for by in (*ASSOCIATIONS, "oracle") for t in (1, 3)}
    wanted = {f"{by} {t}" for by in ("cosine", "told") for t in (1, 3, 6)} if speed == "cut" else set()
    if of == "shapes-tiny" and speed != "cut":
        wanted |= {"cosine 1", "cosine 3", "cosine 6", "cosine 12", "frozen 3", "frozen 6"}
    assert {name for pair in found.values() for name in pair} == wanted | (rules if speed == "medium" else set())
    for says, (ours, theirs) in found.items():
        (by, t), (other, before) = ours.split(), theirs.split()
        # one thing is changed
        assert other == "cosine" and (t == before) != (by == other) and ours != theirs, says
        assert f"T = {t}" in says and (by == other or t == before)


def test_a_set_of_clips_is_named_by_what_it_is_for():
    train, val, frames = (FULL.clips(f"{what}-2") for what in ("train", "val", "frames"))
    assert [train[0], val[0], frames[0]] == [600, 400, 1600] and train[1] == val[1] == frames[1]
    assert (train[2:], val[2:], frames[3:]) == ((2, "train"), (2, "val"), ("val", True)) and frames[2] != val[2]
    slow, medium, cut = (FULL.clips(f"shipped-{speed}") for speed in ("slow", "medium", "cut"))
    assert medium == cut and medium[0] == 2 * slow[0] == 100
    assert (slow[1].speed, medium[1].speed) == (0.4, 1.0) and slow[2:] == medium[2:]


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


def test_video_ap_is_that_of_the_tracker_s_ten_best_tracks(model, clips):
    found = measure.track_all(model, clips, ["cosine 3", "none 1"])
    for name, interval, rule in (("cosine 3", 3, "cosine"), ("none 1", 1, ASSOCIATIONS["none"])):
        tracker, best = KernelTracker(model, interval, rule, score_threshold=EVALUATION_THRESHOLD), []
        for clip in clips:
            entries = tracker.track(clip).to_ytvis(clip.video["id"], clips.category_ids)
            best += sorted(entries, key=lambda e: -e["score"])[:KEPT]
        assert found[name][0] == pytest.approx(evaluate_ytvis(clips.dataset, best)["AP"], abs=2e-3) and found[name][0] > 0.05
        # two clips: the first group is the first, without which the second is alone
        second = [e for e in best if e["video_id"] == clips[1].video["id"]]
        assert found[name][1] == pytest.approx(evaluate_ytvis(clips[1].annotations(), second)["AP"], abs=2e-3)
        assert found[name].shape == (1 + GROUPS,) and found[name][3] == found[name][0]
    assert found["cosine 3"][0] != found["none 1"][0]


def test_with_a_cut_the_truth_is_that_of_the_scenes(model, clips):
    found = measure.track_all(model, clips, ["told 1"], has_cuts=True)
    (scene,) = scenes(clips)
    tracker, cut, entries = KernelTracker(model, 1, "cosine", score_threshold=EVALUATION_THRESHOLD), measure.cut_of(scene), []
    for part in (range(cut), range(cut, len(scene))):  # two trackers that know nothing of each other
        for track in tracker.track([scene.image(t) for t in part]).to_ytvis(1, clips.category_ids):
            codes = [None] * part.start + track["segmentations"] + [None] * (len(scene) - part.stop)
            entries.append({**track, "segmentations": codes})
    truth = {"videos": [scene.video], "categories": clips.category_entries, "annotations": scene.tracks}
    assert found["told 1"][0] == pytest.approx(evaluate_ytvis(truth, entries)["AP"], abs=2e-3) and found["told 1"][0] > 0.05


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
                            "segmentations": [rle.encode(masks[q].numpy())]})  # fmt: skip
        targets.append(frame_instances(torch.from_numpy(image.masks(0)), torch.as_tensor(image.labels).long()))
        outs.append(out)
    found = measure.of_frames(model, images)
    assert found["image AP"][0] == pytest.approx(evaluate_ytvis(truth, results)["AP"], abs=1e-6)
    assert found["image AP"][0] > 0.05 and found["image AP"].shape == (1 + GROUPS,)
    batch = (torch.cat([getattr(out, name) for out in outs]) for name in ("class_logits", "objectness", "mask_logits"))
    losses, _ = set_losses(*batch, targets)
    assert found["dice"] == pytest.approx([float(losses["dice"])], abs=1e-5)
    assert found["class"] == pytest.approx([float(losses["cls"])], abs=1e-5)


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
    assert found["retention"] == pytest.approx([said["retention"][3]], abs=1e-6)
    assert found["holders"] == pytest.approx([said["holders"]], abs=1e-6) and found["holders"][0] >= 1
    assert found["share of Q_G"] == pytest.approx([frame_share(np.stack(firsts))], abs=1e-5)
    assert found["video AP"].shape == (1 + GROUPS,)


def test_a_scene_cut_shows_the_first_half_of_one_clip_and_the_second_of_another(clips):
    (scene,) = scenes(clips)
    cut = measure.cut_of(scene)
    assert cut % 3 and cut % 6 and 0 < cut < 9 and len(scene) == 9
    numbers = {track["id"] for clip in (clips[0], clips[1]) for track in clip.tracks}
    assert {track["id"] for track in scene.tracks} <= numbers and {t["video_id"] for t in scene.tracks} == {scene.video["id"]}
    for t in range(9):
        shown = clips[0] if t < cut else clips[1]
        assert (scene.image(t) == shown.image(t)).all()
        codes = [track["segmentations"][t] for track in scene.tracks]
        assert [c for c in codes if c] == [s["segmentations"][t] for s in shown.tracks if s["segmentations"][t]]
        areas = [track["areas"][t] for track in scene.tracks]
        assert [bool(c) for c in codes] == [bool(a) for a in areas]
    assert all(any(track["segmentations"]) for track in scene.tracks)


def test_who_is_in_the_other_scene_alone_is_not_to_be_found(data, clips, tmp_path):
    held, cut = clips.dataset, measure.cut_of(clips[0])
    absent = next(track for track in held["annotations"] if track["video_id"] == clips[0].video["id"])
    absent["segmentations"][:cut] = [None] * cut
    (tmp_path / "annotations.json").write_text(json.dumps(held))
    (tmp_path / "JPEGImages").symlink_to(data / "val-0" / "JPEGImages")
    (scene,) = scenes(YouTubeVIS(tmp_path))
    assert any(absent["segmentations"]) and absent["id"] not in {track["id"] for track in scene.tracks} and scene.tracks


def test_the_code_that_measured_is_named():
    assert re.fullmatch(r"[0-9a-f]{12}\+?|\d+\.\d+.*", measure.commit())


# ------------------------------------------------------------------------------------------------ pre-training


def test_a_backbone_learns_to_classify_and_its_file_is_there_when_it_is_done(tmp_path, data, monkeypatch):
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    real, path = runs.train, Path("backbones/topformer-tiny/backbone.safetensors")

    def look(config, **given):
        assert not path.exists() and config == backbone_config("topformer-tiny", TINY, "cpu")
        return real(config, **given)

    monkeypatch.setattr(runs, "train", look)
    runs._pretrain(path, TINY, "cpu")
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
    """Jobs in this process that only write their result; `fail` holds names of jobs that do not."""
    asked = {"started": [], "fail": set()}

    def job(name, result):
        asked["started"].append(name)
        if name in asked["fail"]:
            raise OSError(f"no room for {name}")
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text("{}")

    monkeypatch.setattr(runs, "write_shapes_dataset", lambda folder, *given: job(folder.name, folder / "annotations.json"))
    monkeypatch.setattr(runs, "_pretrain", lambda result, *given: job(result.parent.name, result))
    monkeypatch.setattr(runs, "_run", lambda name, seed, *given: job(f"{name}-{seed}", metrics_of(Path(), name, seed)))
    monkeypatch.setattr(runs, "measure_shipped", lambda lab, of, speed: job(f"{of}-{speed}", lab / f"shipped/{of}-{speed}.json"))
    return asked


def lab_of(tmp_path, names, seeds, jobs=1):
    return run_lab(names, seeds, tmp_path, TINY, jobs=jobs, device="cpu")


def test_clips_and_backbones_first_seeds_outside_and_what_is_done_is_not_done_again(tmp_path, quick, capfd):
    threads = torch.get_num_threads()
    done = lab_of(tmp_path, ["images"], 2)  # which starts from the weights of "full"
    sets = ["val-0", "frames-0"]
    assert done == ["train-0", "topformer-tiny", *sets, "full-0", "images-0", "train-1", "val-1", "frames-1", "full-1", "images-1"]
    assert sorted(quick["started"]) == sorted(done)
    order = quick["started"].index
    for first, then in [("train-0", "topformer-tiny"), ("topformer-tiny", "full-0"), ("val-0", "full-0"), ("full-0", "images-0")]:
        assert order(first) < order(then)
    assert re.search(r"full-1 +done after \d+ s", capfd.readouterr().err) and torch.get_num_threads() == threads
    quick["started"].clear()
    assert lab_of(tmp_path, ["images", "full"], 2) == quick["started"] == []
    lab_of(tmp_path, ["full", "shapes-tiny-images"], 3)
    assert quick["started"] == ["train-2", "val-2", "frames-2", "full-2", "shipped-medium", "shapes-tiny-images-medium"]


def test_the_whole_grid_holds_every_variant_and_the_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [job.name for job in runs._jobs([*VARIANTS, *SHIPPED], range(2), TINY, "cpu")]
    made = [f"{name}-{seed}" for seed in (0, 1) for name in VARIANTS]
    shipped = [f"{of}-{speed}" for of, speeds in SHIPPED.items() for speed in speeds]
    clips = [name for name in names if name.startswith(("train-", "val-", "frames-", "shipped-"))]
    trained = [name for name in names if name not in clips and name not in {"topformer-tiny", "seaformer-tiny", "mobilenetv2-0.6"}]
    assert trained == made + shipped and len(names) == len(set(names)) == len(made) + len(shipped) + 3 + 6 + 4


def test_clips_are_those_of_the_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = {job.name: job for job in runs._jobs(["full", *SHIPPED], range(1, 2), TINY, "cpu")}
    for name in ("train-0", "val-1", "frames-1", "shipped-fast"):
        jobs[name].make()
        assert jobs[name].result.is_file()
    assert len(COCO("data/frames-1")) == TINY.val_frames and len(YouTubeVIS("data/val-1")) == TINY.val_clips
    assert len(YouTubeVIS("data/shipped-fast")[0]) == 15
    left = {job.name for job in runs._jobs(["full", *SHIPPED], range(1, 2), TINY, "cpu")}
    assert {*jobs} - left == {"train-0", "val-1", "frames-1", "shipped-fast"}


def test_shipped_weights_are_judged_by_shapes_of_theirs(tmp_path):
    write_shapes_dataset(tmp_path / "data" / "shipped-cut", *TINY.clips("shipped-cut"))
    found = json.loads(measure.measure_shipped(tmp_path, "shapes-tiny", "cut").read_text())
    assert set(found["figures"]) == {f"{by} {t}" for by in ("cosine", "told") for t in (1, 3, 6)}
    assert found["variant"] == "shapes-tiny" and found["figures"]["told 1"][0] > 0.2


def test_a_run_that_fails_stops_no_other_and_without_its_backbone_none_begins(tmp_path, quick, capfd):
    names = ["full", "decoder=local", "passing=off", "seaformer-tiny"]
    quick["fail"] |= {"decoder=local-0", "seaformer-tiny"}
    with pytest.raises(RuntimeError, match=r"2 of 9 have failed .*decoder=local-0: .*\.log.*what needs them has not begun") as error:
        lab_of(tmp_path, names, 1)
    assert "seaformer-tiny-0" not in quick["started"] and metrics_of(tmp_path, "passing=off", 0).is_file()
    assert re.search(r"decoder=local-0 +FAILED after", capfd.readouterr().err)
    (log,) = re.findall(r"decoder=local-0: (.+?\.log)", str(error.value))
    assert "no room for decoder=local-0" in Path(log).read_text()
    quick["fail"].clear()
    quick["started"].clear()
    lab_of(tmp_path, names, 1)
    assert sorted(quick["started"]) == ["decoder=local-0", "seaformer-tiny", "seaformer-tiny-0"]


def test_a_job_that_another_process_is_at_is_left_to_it(tmp_path, quick, monkeypatch):
    """Of two jobs one is taken: the other is done first, and the first as soon as it is free."""
    holder = "import sys, time; from pathlib import Path; from minst.engine import owned\n"
    holder += f"with owned(Path({str(tmp_path / 'jobs')!r}), 'train-0'): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        slept = []

        def sleep(seconds):
            assert quick["started"] == ["val-0", "frames-0"]
            slept.append(seconds)
            other.communicate("")  # which ends it, and its lock

        monkeypatch.setattr(time, "sleep", sleep)
        lab_of(tmp_path, ["full"], 1)
    assert slept and quick["started"] == ["val-0", "frames-0", "train-0", "topformer-tiny", "full-0"]


GRID = json.dumps([dataclasses.asdict(row) for row in VARIANTS.values()])
LAB = '{"budget": %s, "grid": %s}'
BUDGET = json.dumps(dataclasses.asdict(TINY))


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"version": 1}', "lab.json: lacks `budget`"),
        ('{"version": 1, "bud', "lab.json: broken JSON at line 1"),
        ("", "lab.json: is empty"),
        ("[" * 10**5, "lab.json: expected `object`, got `array`"),
        ('{"a":' * 10**5, "lab.json: "),
        (LAB % (BUDGET.replace("2", '"two"', 1), "[]"), "lab.json: budget.pretraining: expected `int`, got `str`"),
        (LAB % (BUDGET, '[{"name": "full", "says": []}]'), "lab.json: grid[0].says: expected `str`"),
        (LAB % (BUDGET, "[]"), "holds runs of another grid"),
        (LAB % (json.dumps(dataclasses.asdict(FULL)), GRID), "holds runs of another budget (full), not of 'tiny'"),
    ],
)
def test_a_lab_json_that_is_foreign_or_broken_is_named(tmp_path, quick, text, words):
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)) as said:
        lab_of(tmp_path, ["full"], 1)
    assert len(str(said.value)) < 400 and not quick["started"]


def test_a_lab_goes_on_in_the_folder_that_it_has_written(tmp_path, quick):
    lab_of(tmp_path, ["full"], 1)
    held = json.loads((tmp_path / "lab.json").read_text())
    assert held == json.loads(LAB % (BUDGET, GRID))
    assert lab_of(tmp_path, ["full"], 1) == []


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


FOREVER = """
import dataclasses, os, sys, time
from pathlib import Path
from minst.lab import runs
from tqdm import tqdm

def forever(folder, *given):
    tqdm(total=1)
    Path("busy-" + str(os.getpid())).write_text("")
    while True:
        time.sleep(0.01)

runs.write_shapes_dataset = forever  # a job that never ends; others wait for it
if __name__ == "__main__":
    print("ready", flush=True)
    runs.run_lab(["full"], 1, sys.argv[1], runs.Budget(**%s), jobs=2, device="cpu")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_lab_and_meanwhile_nobody_else_starts_there(tmp_path, how):
    program = tmp_path / "forever.py"
    program.write_text(FOREVER % dataclasses.asdict(TINY))
    lab = tmp_path / "lab"
    # a shell that started pytest in the background has Ctrl-C ignored, and so would this process
    argv = [sys.executable, "-c", "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')", str(program), str(lab)]  # fmt: skip
    argv = argv if how == signal.SIGINT else [sys.executable, str(program), str(lab)]
    runner = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(list(lab.glob("busy-*"))) == 2 or runner.poll() is not None)
        assert runner.poll() is None
        workers = [int(path.name.removeprefix("busy-")) for path in lab.glob("busy-*")]
        assert runner.pid not in workers and all(map(alive, workers))
        with pytest.raises(ValueError, match="another `minst lab run` is at work here"):
            run_lab(["full"], 1, lab, TINY, device="cpu")
        runner.send_signal(how)
        assert runner.wait(1200) != 0
        wait_for(lambda: not any(map(alive, workers)))
        assert "leaked" not in runner.stderr.read()  # what is said when all have ended
    finally:
        runner.kill()
        runner.wait()


def wait_for(condition):
    until = time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------ all of it


def test_a_real_run_from_nothing_to_a_report_by_the_command_line(tmp_path, monkeypatch, capfd):
    """Stopped in the middle of its training, it goes on; then the report of a single run."""
    monkeypatch.setattr("minst.lab.grid.SMOKE", TINY)
    out = tmp_path / "lab with space"
    command = ["lab", "run", "full", "--smoke", "--jobs", "1", "--out", str(out)]
    real, threads = runs.measure_run, torch.get_num_threads()

    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "measure_run", stop)
    assert cli.main(command) == 130 and "the same command goes on" in capfd.readouterr().err
    assert (out / "full-0" / "checkpoint.pt").is_file() and not metrics_of(out, "full", 0).exists()
    monkeypatch.setattr(runs, "measure_run", real)
    assert cli.main(command) == 0
    torch.set_num_threads(threads)
    said = capfd.readouterr()
    assert "1 jobs were done" in said.out and "full-0" in said.err
    metrics = json.loads(metrics_of(out, "full", 0).read_text())
    assert metrics["variant"] == "full" and set(metrics["figures"]) == set(FIGURES)
    assert {len(each) for name, each in metrics["figures"].items() if "AP" in name} == {1 + GROUPS}
    train = json.loads((out / "full-0" / "train.json").read_text())
    assert train["train_on"] == "images" and train["out"] == "full-0" and train["data"] == "data/train-0"
    assert cli.main(["lab", "report", str(out), "--no-plots"]) == 0
    assert "(`full`, 1)" in (out / "report" / "README.md").read_text()
    assert not list((out / "report").glob("*.png"))


def test_a_run_of_another_decoder_is_trained_and_measured(tmp_path, data, monkeypatch):
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    runs._pretrain(Path("backbones/topformer-tiny/backbone.safetensors"), TINY, "cpu")
    runs._run("decoder=local", 0, TINY, "cpu")
    metrics = json.loads(metrics_of(Path(), "decoder=local", 0).read_text())
    assert (metrics["variant"], metrics["seed"], metrics["version"]) == ("decoder=local", 0, 3)
    assert type(decoders.load("decoder=local-0/weights", "local").instance_decoder).__name__ == "ReorderedDecoder"


@pytest.mark.skipif(not os.environ.get("MINST_LAB_SMOKE"), reason="a minute; CI sets MINST_LAB_SMOKE")
def test_the_whole_grid_at_the_smoke_budget(tmp_path):
    assert cli.main(["lab", "run", "--smoke", "--out", str(tmp_path)]) == 0
    assert cli.main(["lab", "report", str(tmp_path)]) == 0
    text = (tmp_path / "report" / "README.md").read_text()
    assert all(f"(`{name}`, 1)" in text for name in VARIANTS)
    assert all(f"| {name}, medium | oracle for cosine" in text for name in SHIPPED)
    # of one seed no row has an interval to be drawn
    assert [path.name for path in (tmp_path / "report").glob("*.png")] == ["shipped.png"]
