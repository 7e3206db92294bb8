"""Training: batches that depend on (seed, iteration, rank) alone, the schedule, the average, and
resuming for real."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from minst import training
from minst.config import PRESETS, MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, ShapesFrame, shapes_clip
from minst.engine import keep_memory, spawn
from minst.losses import LOSS_WEIGHTS, set_losses
from minst.matcher import Instances, hungarian_match
from minst.model import MobileInst
from minst.training import (
    ClipBatches,
    ShapesTraining,
    TrainConfig,
    learning_rate,
    train,
    training_losses,
)

CLIPS = ShapesTraining(0, ShapesConfig(width=80, height=72, frames=6))


def config(out="unused", **changes) -> TrainConfig:
    small = {
        "pairs": 1,
        "height": 64,
        "width": 64,
        "iterations": 4,
        "save_every": 2,
        "log_every": 1,
        "workers": 0,
        "threads": 1,
        "warmup": 2,
        "max_gap": 3,
    }
    return TrainConfig(**{"out": str(out), **small, **changes})


@pytest.fixture(autouse=True)
def threads():
    """A run sets the number of threads; the rest of the tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------ batches


class Recorded:
    """Clips that note which of them, and which of their frames, were asked for."""

    def __init__(self, length=6):
        self.asked, self.length = [], length

    def __call__(self, index):
        self.asked.append((index, []))
        outer = self

        class Clip:
            labels = np.array([3])

            def __len__(self):
                return outer.length

            def render(self, t):
                outer.asked[-1][1].append(t)
                mask = np.zeros((1, 72, 80), dtype=bool)
                mask[0, 20:50, 20:60] = True
                return ShapesFrame(
                    np.full((72, 80, 3), 25 * t, dtype=np.uint8), mask, np.array([1200])
                )

        return Clip()


def equal(a, b):
    return torch.equal(a[0], b[0]) and a[2] is b[2] and all(
        torch.equal(x, y) for one, two in zip(a[1], b[1], strict=True) for x, y in zip(one, two)
    )  # fmt: skip


def test_a_batch_is_a_function_of_seed_iteration_and_rank():
    batches = ClipBatches(config(pairs=2), CLIPS, 1, 2)
    expected = [batches[i] for i in range(3)]
    again = ClipBatches(config(pairs=2), CLIPS, 1, 2)
    torch.manual_seed(123)  # whoever asks, and in whatever order
    assert all(equal(again[i], expected[i]) for i in (2, 0, 1))
    others = [
        batches[1],
        ClipBatches(config(pairs=2), CLIPS, 0, 2)[0],
        ClipBatches(config(pairs=2, seed=1), ShapesTraining(1, CLIPS.config), 1, 2)[0],
    ]
    assert not any(torch.equal(other[0], expected[0][0]) for other in others)


def test_ranks_draw_apart_even_from_equal_clips():
    """Gap, direction, crop and colours of two processes are not the same draw."""
    frames = [
        ClipBatches(config(pairs=2), lambda index: CLIPS(0), rank, 2)[0][0] for rank in (0, 1)
    ]
    assert not torch.equal(*frames)


def test_form_of_pairs_and_of_images():
    for image_share, is_pairs in ((0.0, True), (1.0, False)):
        frames, instances, said, _ = ClipBatches(
            config(pairs=3, image_share=image_share, width=128), CLIPS
        )[0]
        assert said is is_pairs and frames.shape == (6, 3, 64, 128) and frames.dtype == torch.uint8
        assert len(instances) == 6 and all(
            target.masks.shape[1:] == (32, 64) for target in instances
        )
    assert not any(ClipBatches(config(train_on="images"), CLIPS)[i][2] for i in range(4))


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_targets_have_the_stride_that_was_asked_for(stride):
    """The same masks on another grid: nothing else of a batch changes."""
    (frames, instances, *_), fine = (
        ClipBatches(config(target_stride=s), CLIPS)[0] for s in (stride, 1)
    )
    assert torch.equal(frames, fine.frames) and any(len(target.labels) for target in instances)
    for target, pixels in zip(instances, fine.instances, strict=True):
        assert target.masks.shape[1:] == (64 // stride, 64 // stride) and torch.equal(
            target.ids, pixels.ids
        )
        cells = pixels.masks.view(-1, 64 // stride, stride, 64 // stride, stride)
        torch.testing.assert_close(target.masks, cells.mean((2, 4)))


def test_frames_t_come_first_and_gaps_stay_in_bounds():
    clips = Recorded(length=9)
    gaps, backwards = set(), set()
    batches = ClipBatches(config(pairs=2, image_share=0.0, max_gap=3, iterations=40), clips)
    for i in range(40):
        frames, instances, *_ = batches[i]
        for k, (_, (first, second)) in enumerate(clips.asked[-2:]):
            gaps.add(abs(first - second)), backwards.add(first > second)
            brightness = [float(frames[k + 2 * half].float().mean()) for half in (0, 1)]
            if abs(first - second) == 3:  # brightness rises with time, colour jitter or not
                assert (brightness[0] < brightness[1]) is (first < second)
    assert gaps == {1, 2, 3} and backwards == {True, False}
    clips.length = 2  # a clip shorter than the largest gap
    batches[0]


def test_no_clip_is_ever_seen_twice():
    seen = []
    for rank in (0, 1):
        clips = Recorded()
        batches = ClipBatches(config(pairs=4, image_share=0.5, iterations=12), clips, rank, 2)
        for i in range(12):
            batches[i]
        seen += [index for index, _ in clips.asked]
    assert len(seen) == len(set(seen))


def test_shapes_are_those_of_the_training_split():
    clip, expected = CLIPS(5), shapes_clip("train", 5, CLIPS.config, 0)
    assert np.array_equal(clip.render(2).image, expected.render(2).image)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"pairs": 3, "processes": 2}, "2 processes cannot share 3 pairs"),
        (
            {"query_passing": "none"},
            "query_passing is 'none'; choose one of shared, kept, fresh, off",
        ),
        ({"train_on": "videos"}, "train_on is 'videos'; choose one of pairs, images"),
        ({"train_on": "tokens", "token_weight": 0.0}, "tokens are all there is to learn"),
        ({"target_stride": 3}, "target_stride is 3; choose one of 1, 2, 4, 8"),
        ({"width": 32}, "width is 32; it must be at least 64"),
        ({"save_every": 0}, "save_every"),
        ({"freeze_norms": "off"}, "freeze_norms is 'off', not of type bool"),
        ({"pairs": True}, "pairs is True, not of type int"),
        ({"iterations": 2.5}, "iterations is 2.5, not of type int"),
        ({"lr": "high"}, "lr is 'high', not of type float"),
        ({"data": None}, "data is None, not of type str"),
        ({"processes": 10**6, "pairs": 10**6}, "processes is 1000000; it must be .* at most 1024"),
        ({"workers": 10**6}, "workers is 1000000"),
        ({"threads": -1}, "threads is -1"),
        ({"lr": math.nan}, "lr is nan"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


# ----------------------------------------------------------------------------------------- one step


def test_learning_rate_by_hand():
    c = TrainConfig(iterations=100, warmup=10, cosine_share=0.4, final_lr=0.1)
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 30: 1.0, 60: 1.0, 70: quarter, 80: 0.55, 100: 0.1}
    assert {i: learning_rate(i, c) for i in expected} == pytest.approx(expected)
    rates = [learning_rate(i, c) for i in range(60, 100)]
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(0, TrainConfig(warmup=0)) == 1.0


class Small(nn.Module):
    """What a state needs of a model, in three parts."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.queries = nn.Parameter(torch.randn(5, 4))
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize(("longest", "steps"), [(0.9, 120), (0.999, 30), (0.05, 4), (0.0, 4)])
def test_the_average_grows_with_the_run(longest, steps):
    torch.manual_seed(0)
    model = Small()
    state = training.State(model, config(ema=longest, token_weight=0.0))
    by_hand = None
    for step in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
            model.backbone(torch.randn(2, 3, 4, 4) + step)
        state.average.update_parameters(model)
        now = {k: v.double().clone() for k, v in model.state_dict().items()}
        keep = 0 if step == 0 else min(longest, (1 + step) / (10 + step))
        by_hand = now if step == 0 else {k: keep * by_hand[k] + (1 - keep) * now[k] for k in now}
    averaged = state.average.module.state_dict()
    for key, value in by_hand.items():
        if "num_batches" not in key:
            torch.testing.assert_close(averaged[key].double(), value, atol=1e-5, rtol=1e-5)
    assert "backbone.1.running_mean" in averaged


def test_a_short_run_ships_nothing_of_its_random_weights():
    model = Small()
    state = training.State(model, config(token_weight=0.0))  # 0.999, as users get it
    for value in [1.0] + 99 * [0.0]:  # what the first step left, as a share of the average
        nn.init.constant_(model.queries, value)
        state.average.update_parameters(model)
    assert state.average.module.queries.max() < 1e-6


def test_parameter_groups():
    state = training.State(
        Small(), config(lr=0.1, backbone_lr=0.5, weight_decay=0.2, token_weight=0.0)
    )
    names = {id(p): name for name, p in state.model.named_parameters()}
    groups = {names[id(p)]: (group["lr"], group["weight_decay"])
              for group in state.optimizer.param_groups for p in group["params"]}  # fmt: skip
    assert groups == {
        "backbone.0.weight": (0.05, 0.2),
        "backbone.0.bias": (0.05, 0.0),
        "backbone.1.weight": (0.05, 0.0),
        "backbone.1.bias": (0.05, 0.0),
        "queries": (0.1, 0.0),
        "head.weight": (0.1, 0.2),
        "head.bias": (0.1, 0.0),
    }


def test_weighted_sum():
    weights = {
        **{"cls": 2, "dice": 2, "pixel": 2, "obj": 1, "token": 3},
        **{"pass_dice": 2 * 0.5, "pass_pixel": 2 * 0.5},
        **{
            "global_cls": 2 * 0.25,
            "global_dice": 2 * 0.25,
            "global_pixel": 2 * 0.25,
            "global_obj": 0.25,
        },
    }
    names = list(weights)
    c = config(passing_weight=0.5, global_weight=0.25, token_weight=3)
    for name, weight in weights.items():
        alone = {other: torch.tensor(float(other == name)) for other in names}
        assert training.weighted_sum(alone, c) == weight, name
    losses = {name: torch.tensor(2.0**i) for i, name in enumerate(names)}
    assert training.weighted_sum(losses, c) == sum(
        weights[name] * 2**i for i, name in enumerate(names)
    )
    assert LOSS_WEIGHTS["obj"] == 1.0


def test_token_loss_by_hand():
    """Two instances of one class lie in one cell: the larger counts. Another class covers a quarter
    of the next."""
    logits = torch.zeros(2, 3, 1, 2)
    masks = torch.zeros(2, 4, 8)
    masks[0, :2, :4] = 1.0  # half of the left cell: target 1
    masks[1, :2, :2] = 1.0  # a quarter: 0.5
    masks = torch.cat([masks, masks[1:].flip(-1)])  # a quarter of the right cell, another class
    targets = [
        Instances(torch.tensor([2, 2, 0]), masks, torch.arange(3)),
        Instances(torch.tensor([]).long(), torch.zeros(0, 4, 8), torch.tensor([]).long()),
    ]
    logits[0, 2, 0, 0], logits[0, 0, 0, 1] = 1.5, -0.5

    def bce(x, y):
        p = 1 / (1 + math.exp(-x))
        return -(y * math.log(p) + (1 - y) * math.log(1 - p))

    expected = (bce(1.5, 1.0) + bce(-0.5, 0.5) + 10 * bce(0.0, 0.0)) / 4
    assert training.token_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def batch():
    found = ClipBatches(config(pairs=2, image_share=0.0), CLIPS)[0]
    return found._replace(frames=found.frames.float().div(255))


def test_losses_of_a_batch(make_model, batch):
    model = make_model()
    c = config()
    images = training_losses(model, batch._replace(is_pairs=False), c)
    pairs = training_losses(model, batch, c, nn.Conv2d(model.backbone.out_channels[-1], 8, 1))
    assert images.keys() == LOSS_WEIGHTS.keys() | {f"global_{name}" for name in LOSS_WEIGHTS}
    assert pairs.keys() == images.keys() | {"pass_dice", "pass_pixel", "token"}
    for name, value in images.items():
        torch.testing.assert_close(pairs[name], value)
    out = model(batch.frames)
    for name, value in set_losses(
        out.class_logits, out.objectness, out.mask_logits, batch.instances
    )[0].items():
        torch.testing.assert_close(pairs[name], value)


# ------------------------------------------------------------------------------- query passing, Q_G


def mask_losses_by_hand(mask_logits, matches, instances, count):
    """Dice and cross-entropy of every matched query with its instance, on the targets' grid,
    divided by `count`."""
    dice = pixel = 0.0
    for logits, (queries, found), target in zip(mask_logits, matches, instances, strict=True):
        for query, m in zip(queries.tolist(), found.tolist()):
            y = target.masks[m]
            logit = nn.functional.interpolate(
                logits[query][None, None], size=y.shape, mode="bilinear"
            )[0, 0]
            x = logit.sigmoid()
            dice += 1 - 2 * (x * y).sum() / ((x * x).sum() + (y * y).sum() + 1e-4)
            # -y log x - (1 - y) log(1 - x), where x may be so near 0 or 1 that its logarithm is not
            # to be had
            pixel += (nn.functional.softplus(logit) - y * logit).mean()
    return {"dice": dice / count, "pixel": pixel / count}


@pytest.fixture(scope="module")
def passing(make_model):
    """Two pairs in which something comes and something goes, with what the model says of each side
    by itself."""
    model = make_model()
    batch = ClipBatches(config(pairs=2, image_share=0.0), CLIPS)[2]
    batch = batch._replace(frames=batch.frames.float().div(255))
    now, later = batch.instances[:2], batch.instances[2:]
    now[0] = Instances(*(x[1:] for x in now[0]))  # one is not there yet in frame t
    later[1] = Instances(*(x[:-1] for x in later[1]))  # one has gone by frame t + delta
    batch = batch._replace(instances=now + later)
    with torch.no_grad():
        here, there = model(batch.frames[:2]), model.encode(batch.frames[2:])
        passed = model.instance_decoder.local(
            here.global_queries, there.padded_x_mask, there.token_padding
        )
        masks = torch.einsum("bnd,bdhw->bnhw", passed.kernels, there.x_mask)
        fresh = hungarian_match(there.out.class_logits, masks, later)
        matches = matching(model(batch.frames), batch.instances)
        sides = zip(matches[:2], now, later, strict=True)
        kept = [kept_by_hand(*side) for side in sides]
        held = {"all": matches, "shared": matches[2:], "kept": kept, "fresh": fresh}
    return model, batch, masks, held


def matching(out, instances):
    return hungarian_match(out.class_logits, out.mask_logits, instances)


def kept_by_hand(match, now, later):
    ids = later.ids.tolist()
    kept = [(q, ids.index(int(now.ids[m]))) for q, m in zip(*match) if int(now.ids[m]) in ids]
    return torch.tensor([int(q) for q, _ in kept]).long(), torch.tensor([m for _, m in kept]).long()


@torch.no_grad()
@pytest.mark.parametrize("way", ["shared", "kept", "fresh"])
def test_what_a_passed_query_is_held_to(passing, way):
    """shared: to what frame t + delta's own matching says (the paper); kept: to what it had; fresh:
    matched anew."""
    model, batch, masks, held = passing
    later = batch.instances[2:]
    both = sum(int(torch.isin(b.ids, a.ids).sum()) for a, b in zip(batch.instances[:2], later))
    count = both if way == "kept" else sum(len(target.labels) for target in later)
    assert both < sum(len(target.labels) for target in later)  # something has come
    expected = mask_losses_by_hand(masks, held[way], later, count)
    losses = training_losses(model, batch, config(query_passing=way))
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"pass_{name}"], value, atol=1e-4, rtol=1e-3)
    others = [
        mask_losses_by_hand(masks, held[other], later, count)["dice"]
        for other in held
        if other not in (way, "all")
    ]
    assert all(
        abs(other - expected["dice"]) > 1e-3 for other in others
    )  # the three ways are told apart here


def test_shared_is_the_papers_and_the_default():
    assert TrainConfig().query_passing == "shared"


@torch.no_grad()
@pytest.mark.parametrize("way", ["shared", "kept"])
def test_two_equal_frames_pass_what_is_there(make_model, batch, way):
    """Instance by instance: so the loss of passed queries is that of the frame itself."""
    still = batch._replace(frames=torch.cat([batch[0][:2]] * 2), instances=batch[1][:2] * 2)
    losses = training_losses(make_model(), still, config(query_passing=way))
    torch.testing.assert_close(losses["pass_pixel"], losses["pixel"])
    torch.testing.assert_close(losses["pass_dice"], losses["dice"])


@torch.no_grad()
def test_the_global_queries_are_held_to_the_same_instances(passing):
    """Deep supervision: what the heads say of Q_G, with the pairs that the whole decoder was
    matched to."""
    model, batch, _, held = passing
    out, matches = model(batch.frames), held["all"]
    said = model.instance_decoder.heads(out.global_queries + model.instance_decoder.queries)
    masks = torch.einsum("bnd,bdhw->bnhw", said.kernels, out.mask_features)
    count = sum(len(target.labels) for target in batch.instances)
    expected = mask_losses_by_hand(masks, matches, batch.instances, count)
    wanted, obj = torch.zeros_like(said.class_logits), 0.0
    for i, (target, (queries, found)) in enumerate(zip(batch.instances, matches)):
        for query, m in zip(queries.tolist(), found.tolist()):
            wanted[i, query, target.labels[m]] = 1.0
            y = target.masks[m]
            x = nn.functional.interpolate(
                masks[i, query][None, None], size=y.shape, mode="bilinear"
            )[0, 0].sigmoid()
            iou = ((x >= 0.4) & (y > 0.5)).sum() / ((x >= 0.4) | (y > 0.5)).sum()
            logit = said.objectness[i, query]
            obj += nn.functional.softplus(logit) - iou * logit
    expected["cls"] = (
        sigmoid_focal_loss(said.class_logits, wanted, alpha=0.25, gamma=2.0, reduction="sum")
        / count
    )
    expected["obj"] = obj / count
    losses = training_losses(model, batch, config())
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"global_{name}"], value, atol=1e-4, rtol=1e-3)
        assert abs(value - losses[name]) > 1e-3  # Q_G does not yet know what Q_L knows
    without = training_losses(model, batch, config(global_weight=0.0))
    assert (
        without.keys()
        == {name for name in losses if not name.startswith("global_")}
        != losses.keys()
    )
    for name, value in without.items():
        assert torch.equal(losses[name], value), name


def test_deep_supervision_adds_no_parameter_and_teaches_the_global_decoder(passing):
    model, batch, *_ = passing
    names = dict(model.named_parameters())
    states = [training.State(model, config(global_weight=weight)) for weight in (0.0, 1.0)]
    assert len(states[0].parameters) == len(states[1].parameters)
    losses = training_losses(model, batch, config())
    total = sum(value for name, value in losses.items() if name.startswith("global_"))
    grads = torch.autograd.grad(total, list(names.values()), allow_unused=True)
    moved = {name for name, grad in zip(names, grads) if grad is not None and grad.any()}
    for part in ("queries", "global_projection", "global_norm", "global_decoder", "heads"):
        assert any(name.startswith(f"instance_decoder.{part}") for name in moved), part
    assert not any(".local_decoder." in name for name in moved)


def test_a_batch_without_any_instance_has_losses_and_finite_gradients(make_model, batch):
    """All of them, so that no process of several waits for a gradient that never comes."""
    model = make_model()
    nothing = [Instances(*(x[:0] for x in target)) for target in batch.instances]
    losses = training_losses(model, batch._replace(instances=nothing), config())
    assert losses.keys() >= {
        "cls",
        "dice",
        "pixel",
        "obj",
        "pass_dice",
        "pass_pixel",
        "global_dice",
        "global_pixel",
    }
    for name, value in losses.items():
        assert bool(value > 0) is name.endswith("cls"), name
    training.weighted_sum(losses, config()).backward()
    # adding one number to all keys changes no softmax: the bias of k is without effect by nature
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name


def test_one_clip_is_learned_by_heart(batch):
    torch.manual_seed(0)
    model = MobileInst(
        MobileInstConfig.preset("shapes-tiny", num_queries=8, num_classes=len(CATEGORIES))
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(30):
        losses = training_losses(model, batch, config())
        total = training.weighted_sum(losses, config())
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        totals.append(float(total.detach()))
    assert 0 < np.mean(totals[-3:]) < 0.6 * np.mean(totals[:3])


# --------------------------------------------------------------------------------------- whole runs


def weights(out) -> bytes:
    return (Path(out) / "weights" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    before = torch.get_num_threads()
    train(config(out), clips=CLIPS)
    torch.set_num_threads(before)
    return out


def log(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def losses_of(out):
    return [{k: v for k, v in line.items() if k != "seconds_per_iteration"} for line in log(out)]


def test_a_run_writes_log_config_and_weights(uninterrupted):
    assert [line["iteration"] for line in log(uninterrupted)] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for line in log(uninterrupted) for value in line.values())
    assert json.loads((uninterrupted / "train.json").read_text())["pairs"] == 1
    model = MobileInst.from_pretrained(uninterrupted / "weights")
    assert model.config.class_names == CATEGORIES and model.trained_size == (64, 64)
    checkpoint = torch.load(uninterrupted / "checkpoint.pt", weights_only=True)
    assert checkpoint["iteration"] == 4
    assert all(
        torch.equal(v, checkpoint["average"][f"module.{k}"]) for k, v in model.state_dict().items()
    )
    names = {"train.json", "log.jsonl", "checkpoint.pt", "weights", "train.lock"}
    assert {path.name for path in uninterrupted.iterdir()} == names


KILLED = """
import sys
from minst.data.shapes import ShapesConfig
from minst.training import ShapesTraining, TrainConfig, train
clips = ShapesTraining(0, ShapesConfig(width=80, height=72, frames=6))
train(TrainConfig(**eval(sys.argv[1])), clips=clips)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
def test_a_killed_run_goes_on_to_the_same_weights(uninterrupted, tmp_path):
    """SIGKILL after some checkpoint has appeared; another process, with other workers, goes on."""
    out = tmp_path / "killed"
    arguments = {**training.asdict(config(out)), "save_every": 1, "workers": 1}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, repr(arguments)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 1200
    while (
        not (out / "checkpoint.pt").is_file()
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(out / "checkpoint.pt", weights_only=True)["iteration"]
    assert 1 <= reached <= 4 and (process.returncode == -signal.SIGKILL or reached == 4)
    train(config(out), clips=CLIPS)
    assert weights(out) == weights(uninterrupted)
    assert losses_of(out) == losses_of(uninterrupted)


class Killed(BaseException):
    pass


def kill_at(monkeypatch, target, name, call, after=False):
    """Let the `call`-th call of target.name be the last thing that happens (`after`: having
    happened)."""
    original, calls = getattr(target, name), []

    def dying(*args, **kwargs):
        calls.append(0)
        if len(calls) == call and not after:
            raise Killed
        result = original(*args, **kwargs)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(target, name, dying)


@pytest.mark.parametrize(
    "target, name, call, after",
    [
        (training, "step", 1, False),  # before any checkpoint
        (training, "step", 3, True),
        (training.torch, "save", 2, True),  # the new checkpoint is not yet in its place
        (os, "replace", 2, False),  # train.json is there, log.jsonl is not
        (os, "replace", 8, False),
        (os, "replace", 8, True),  # around the last moment of all
        (MobileInst, "save_pretrained", 2, False),
        (MobileInst, "save_pretrained", 2, True),
    ],
)
def test_death_at_any_moment_loses_nothing(
    uninterrupted, tmp_path, monkeypatch, target, name, call, after
):
    with monkeypatch.context() as patch:
        kill_at(patch, target, name, call, after)
        with pytest.raises(Killed):
            train(config(tmp_path), clips=CLIPS)
    if (tmp_path / "log.jsonl").is_file():  # the last line may have been cut
        with open(tmp_path / "log.jsonl", "a") as file:
            file.write('{"iteration": 4, "lo')
    train(config(tmp_path), clips=CLIPS)
    assert weights(tmp_path) == weights(uninterrupted)
    assert losses_of(tmp_path) == losses_of(uninterrupted)


def test_another_config_is_refused_and_a_restart_is_not(uninterrupted, tmp_path, monkeypatch):
    train(config(tmp_path, iterations=2, lr=0.01), clips=CLIPS)
    with pytest.raises(ValueError, match="another lr, seed"):
        train(config(tmp_path, iterations=2, lr=0.1, seed=5), clips=CLIPS)
    with pytest.raises(ValueError, match="another iterations"):  # the rate had begun to decay
        train(config(tmp_path, iterations=9, lr=0.01), clips=CLIPS)
    # a restart that dies early must not be continued from the old run's checkpoint
    with monkeypatch.context() as patch:
        kill_at(patch, training, "step", 2)
        with pytest.raises(Killed):
            train(config(tmp_path), resume=False, clips=CLIPS)
    train(config(tmp_path), clips=CLIPS)
    assert weights(tmp_path) == weights(uninterrupted)


def test_a_run_may_be_made_longer_before_it_decays(tmp_path):
    train(config(tmp_path / "a", cosine_share=0.5, iterations=4), clips=CLIPS)
    train(config(tmp_path / "b", cosine_share=0.0, iterations=2), clips=CLIPS)
    train(config(tmp_path / "b", cosine_share=0.5, iterations=4), clips=CLIPS)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_model_of_ones_own_is_trained(uninterrupted, tmp_path):
    """The model that the config names, given by hand, learns the same; it is that very model which
    changes."""
    torch.manual_seed(config().seed)
    model = training.initial_model(config())
    before = model.instance_decoder.queries.detach().clone()
    train(config(tmp_path), clips=CLIPS, model=model)
    assert weights(tmp_path) == weights(uninterrupted)
    assert not torch.equal(model.instance_decoder.queries, before)


def test_switches_are_fields_of_the_model():
    assert training.switches("") == {}
    found = training.switches("pooling=avg,bottom_up=off,num_queries=5,normalise_global=on")
    assert found == {
        "pooling": "avg",
        "bottom_up": False,
        "num_queries": 5,
        "normalise_global": True,
    }
    model = training.initial_model(config(switches="num_queries=5,normalise_global=off"))
    assert model.config.num_queries == 5 and model.config.normalise_global is False
    for wrong in (
        "decoder=local",
        "bottom_up=maybe",
        "num_queries=many",
        "pooling",
        "class_names=a",
    ):
        with pytest.raises(ValueError, match=f"'{wrong}' is no switch"):
            training.switches(wrong)


def test_the_folder_of_an_earlier_release_is_refused(uninterrupted, tmp_path):
    """Its train.json has other names for some fields: that is another run, and said so in one
    line."""
    shutil.copytree(uninterrupted, tmp_path / "old")
    written = json.loads((tmp_path / "old" / "train.json").read_text())
    for name in ("cosine_share", "query_passing", "target_stride"):
        del written[name]
    (tmp_path / "old" / "train.json").write_text(
        json.dumps({**written, "decay": 0.5, "identity": "kept"})
    )
    with pytest.raises(ValueError, match="holds a run with another .*query_passing") as caught:
        train(config(tmp_path / "old"), clips=CLIPS)
    assert len(str(caught.value).splitlines()) == 1


def test_a_diverged_model_stops_the_run_with_the_place(tmp_path):
    c = config(tmp_path, pairs=1)
    state = training.start(c)
    batches = ClipBatches(c, CLIPS)
    training.step(state, [batches[0]], 0, c)
    with torch.no_grad():
        state.model.instance_decoder.heads.kernel.bias[0] = float("nan")
    before = state.model.instance_decoder.queries.clone()
    with pytest.raises(FloatingPointError, match="loss not finite at iteration 42 .matching"):
        training.step(state, [batches[1]], 41, c)
    # where nothing is to be matched, the loss itself tells
    with torch.no_grad():
        state.model.instance_decoder.heads.kernel.bias[0] = 0.0
        state.model.instance_decoder.heads.classes.bias[0] = float("inf")
    nothing = [Instances(t.labels[:0], t.masks[:0], t.ids[:0]) for t in batches[1].instances]
    with pytest.raises(FloatingPointError, match=r"iteration 7 \(.*cls"):
        training.step(state, [batches[1]._replace(instances=nothing, is_pairs=False)], 6, c)
    assert torch.equal(state.model.instance_decoder.queries, before)


def test_a_gradient_that_is_not_finite_reaches_no_weight(tmp_path):
    c = config(tmp_path)
    state = training.start(c)
    state.model.instance_decoder.queries.register_hook(lambda grad: grad * float("inf"))
    before = state.model.instance_decoder.queries.detach().clone()
    with pytest.raises(FloatingPointError, match="gradient not finite at iteration 1"):
        training.step(state, [ClipBatches(c, CLIPS)[0]], 0, c)
    assert torch.equal(state.model.instance_decoder.queries, before)


def diverging(monkeypatch, at):
    """From iteration `at` on the loss is not finite."""
    weighted = training.weighted_sum
    calls = []

    def broken(losses, c):
        calls.append(0)
        return weighted(losses, c) * (math.inf if len(calls) > at else 1.0)

    monkeypatch.setattr(training, "weighted_sum", broken)


def test_after_a_divergence_the_advice_can_be_followed(tmp_path, monkeypatch):
    """A checkpoint is promised where there is one, and a lower rate may go on from it."""
    with monkeypatch.context() as patch:
        diverging(patch, 1)
        with pytest.raises(
            FloatingPointError, match="at iteration 2 .*no checkpoint was written: "
        ):
            train(config(tmp_path), clips=CLIPS)
    assert not (tmp_path / "checkpoint.pt").exists()
    with monkeypatch.context() as patch:
        diverging(patch, 3)
        said = "at iteration 4 .*weights of iteration 2, its last checkpoint, are finite: resume"
        with pytest.raises(FloatingPointError, match=said):
            train(config(tmp_path, max_grad_norm=2.0), clips=CLIPS)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizer"]
    with pytest.raises(ValueError, match="another lr"):
        train(config(tmp_path, lr=1.0), clips=CLIPS)
    train(config(tmp_path, lr=1e-4, max_grad_norm=1.0), clips=CLIPS)
    assert [line["iteration"] for line in log(tmp_path)] == [1, 2, 3, 4]
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizer"]
    rates = [state["param_groups"][0]["lr"] for state in (before, after)]
    assert rates[1] < 0.1 * rates[0]  # the lower one is in force
    assert json.loads((tmp_path / "train.json").read_text())["lr"] == 1e-4


def test_weights_that_are_not_finite_become_no_checkpoint(tmp_path, monkeypatch):
    step = training.step

    def poisoned(state, *rest):
        losses = step(state, *rest)
        state.model.instance_decoder.queries.data[0, 0] = math.nan
        return losses

    monkeypatch.setattr(training, "step", poisoned)
    with pytest.raises(FloatingPointError, match="weights not finite after iteration 1"):
        train(config(tmp_path, save_every=1), clips=CLIPS)
    assert not (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "weights").exists()


def edit_checkpoint(out, change):
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    change(state)
    torch.save(state, out / "checkpoint.pt")


def poison(state):
    next(iter(state["model"].values()))[:] = math.nan


DAMAGE = {
    "empty checkpoint": lambda out: (out / "checkpoint.pt").write_bytes(b""),
    "cut checkpoint": lambda out: (out / "checkpoint.pt").write_bytes(
        (out / "checkpoint.pt").read_bytes()[:5000]
    ),
    "foreign checkpoint": lambda out: (out / "checkpoint.pt").write_bytes(b"GIF89a" * 99),
    "a checkpoint of others": lambda out: torch.save({"a": 1}, out / "checkpoint.pt"),
    "a checkpoint that holds itself": lambda out: edit_checkpoint(
        out, lambda state: state.update(model=state)
    ),
    "another model": lambda out: edit_checkpoint(out, lambda s: s["model"].popitem()),
    "no optimiser": lambda out: edit_checkpoint(out, lambda s: s.update(optimizer={})),
    "an iteration that is none": lambda out: edit_checkpoint(
        out, lambda s: s.update(iteration="x")
    ),
    "a negative iteration": lambda out: edit_checkpoint(out, lambda s: s.update(iteration=-3)),
    "weights that are no numbers": lambda out: edit_checkpoint(out, poison),
    "empty train.json": lambda out: (out / "train.json").write_text(""),
    "cut train.json": lambda out: (out / "train.json").write_text('{"lr": 0.00'),
    "a list as train.json": lambda out: (out / "train.json").write_text("[1]"),
    "foreign train.json": lambda out: (out / "train.json").write_text('{"lr": "high"}'),
    "no train.json": lambda out: (out / "train.json").unlink(),
    "deep train.json": lambda out: (out / "train.json").write_text("[" * 99_999),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_of_a_run_are_refused_in_one_line(uninterrupted, tmp_path, case):
    out = tmp_path / "run"
    shutil.copytree(uninterrupted, out)
    DAMAGE[case](out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="checkpoint.pt|another") as caught:
        train(config(out), clips=CLIPS)
    said = str(caught.value)
    assert str(out) in said and "--restart" in said and len(said.splitlines()) == 1
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_broken_line_of_the_log_is_no_reason_to_stop(tmp_path):
    train(config(tmp_path, cosine_share=0.0, iterations=2), clips=CLIPS)
    first, second = (tmp_path / "log.jsonl").read_text().splitlines()
    broken = [
        '{"iteration": 1, "lo}',
        "",
        "[]",
        "7",
        '{"loss": 3}',
        '{"iteration": "x"}',
        "[" * 9999,
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([first, *broken, "\0\0\0", second]))
    train(config(tmp_path, cosine_share=0.0, iterations=3), clips=CLIPS)
    assert [line["iteration"] for line in log(tmp_path)] == [1, 2, 3]


@pytest.mark.skipif(os.name == "nt", reason="no limit of a file's size here")
def test_a_full_disk_is_said_in_one_line_and_leaves_what_was_there(uninterrupted, tmp_path):
    """A limit on the size of files is to a writer what a full disk is."""
    import resource

    out = tmp_path / "run"
    train(config(out, iterations=2, cosine_share=0.0), clips=CLIPS)
    before = (out / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint.pt") as caught:
            train(config(out, iterations=4, cosine_share=0.0), clips=CLIPS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        with pytest.raises(OSError, match="log.jsonl"):
            training._log(out, 3, {"loss": 1.0}, 0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(caught.value).splitlines()) == 1
    assert (out / "checkpoint.pt").read_bytes() == before
    assert not list(out.rglob(".*"))


# -------------------------------------------------------------------------------- who owns a folder


# What a shell starts in the background ignores Ctrl-C, and so would this.
TRAIN = """
import signal, sys
from minst.training import TrainConfig, train
signal.signal(signal.SIGINT, signal.default_int_handler)
train(TrainConfig(out=sys.argv[1], iterations=10**6, pairs=2, height=64, width=64, threads=1,
                  log_every=1, save_every=1, workers=1, processes=int(sys.argv[2]), device="cpu"))
"""


def started(out, processes):
    """A training in a process of its own, which has written a line of its log."""
    command = [sys.executable, "-c", TRAIN, str(out), str(processes)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 1200
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "log.jsonl").is_file() and (out / "log.jsonl").read_text().count("\n") > 1:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    return process


def descendants(pid):
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(child)]
    return found


def living(pids):
    alive = []
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                alive.append(pid)
    return alive


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@LINUX
@pytest.mark.parametrize(
    "processes, ending", [(2, signal.SIGKILL), (2, signal.SIGINT), (1, signal.SIGTERM)]
)
def test_a_run_has_one_owner_and_leaves_nobody_behind(tmp_path, processes, ending):
    """Whatever ends the parent alone ends its children within seconds, and the log stays whole."""
    process = started(tmp_path, processes)
    with pytest.raises(ValueError, match=f"{tmp_path}: another `minst train` is at work here"):
        train(config(tmp_path), clips=CLIPS)
    children = descendants(process.pid)
    assert len(children) >= processes
    process.send_signal(ending)
    process.wait(1200)
    deadline = time.monotonic() + 120
    while living(children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not living(children)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] >= 1
    if ending == signal.SIGTERM:
        assert not list(tmp_path.rglob(".*"))
    train(config(tmp_path), resume=False, clips=CLIPS)  # the folder is free again
    assert len(log(tmp_path)) == 4 and not list(tmp_path.rglob(".*"))


# ----------------------------------------------------------------------------------- shared batches


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one part: with pairs and images, from weights that know something."""
    out = tmp_path_factory.mktemp("alone")
    train(shared(out), clips=CLIPS)
    return out


def shared(out, **changes) -> TrainConfig:
    """Batch norms frozen: without them, each share of a batch would be normalised by itself."""
    frozen = {
        "init": "shapes-tiny",
        "freeze_norms": True,
        "pairs": 4,
        "image_share": 0.5,
        "device": "cpu",
        "lr": 1e-4,
    }
    return config(out, **{**frozen, **changes})


@pytest.mark.parametrize(
    "change", [{"processes": 2}, {"accumulate": 2}, {"processes": 2, "accumulate": 2}]
)
def test_a_shared_batch_is_the_whole_batch(alone, tmp_path, change):
    train(shared(tmp_path, **change), clips=CLIPS)
    one, other = losses_of(alone), losses_of(tmp_path)
    assert len(one) == len(other) == 4 and {line.keys() >= {"pass_dice"} for line in one} == {
        True,
        False,
    }
    for ours, theirs in zip(other, one):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    trained = [
        MobileInst.from_pretrained(out / "weights").state_dict() for out in (alone, tmp_path)
    ]
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, atol=1e-4, rtol=1e-3)


def test_shares_of_unequal_counts_add_up(make_model):
    """Frames with 3, 0, 1 and 2 instances: the mean of the parts' losses is the loss of all
    four."""
    torch.manual_seed(0)
    model = make_model()
    masks = (torch.rand(6, 32, 32) > 0.7).float()
    several = [Instances(torch.arange(n), masks[:n], torch.arange(n)) for n in (3, 0, 1, 2)]
    whole = training.Batch(
        torch.rand(4, 3, 64, 64), several, True, None
    )  # pairs: frames 0 and 2, 1 and 3
    halves = [training.Batch(whole.frames[i::2], several[i::2], True, None) for i in (0, 1)]
    # frames 2 and 3, which are t + delta, show 1 + 2; of these, frame 0 shows the one and frame 1
    # nothing
    for way, passed_on in (("shared", 3.0), ("fresh", 3.0), ("kept", 1.0)):
        c = config(token_weight=0.0, query_passing=way)
        assert (
            training.instance_counts([whole], c)
            == training.instance_counts(halves, c)
            == (6.0, passed_on)
        )
        expected = training_losses(model, whole, c)
        parts = [training_losses(model, half, c, counts=(6 / 2, passed_on / 2)) for half in halves]
        for name, value in expected.items():
            torch.testing.assert_close(
                (parts[0][name] + parts[1][name]) / 2, value, atol=1e-5, rtol=1e-5
            )


def test_pairs_without_passing_are_the_same_frames_and_no_passing_loss(make_model, batch):
    """query_passing="off" is its control: everything equal but the losses of passed queries."""
    settings = [config(pairs=2, image_share=0.5, query_passing=way) for way in ("shared", "off")]
    for i in range(3):
        shared, off = (ClipBatches(c, CLIPS)[i] for c in settings)
        assert torch.equal(shared.frames, off.frames) and shared.is_pairs == off.is_pairs
    model = make_model()
    with_passing, without = (training_losses(model, batch, c) for c in settings)
    assert (
        without.keys()
        == {name for name in with_passing if not name.startswith("pass_")}
        != with_passing.keys()
    )
    for name, value in without.items():
        torch.testing.assert_close(value, with_passing[name])


@pytest.mark.parametrize("backbone", ["topformer-tiny", "seaformer-tiny", "mobilenetv2"])
def test_checkpointing_changes_memory_alone(batch, backbone, monkeypatch):
    monkeypatch.setitem(PRESETS, "other", {**PRESETS["shapes-tiny"], "backbone": backbone})

    def run(checkpointing):
        torch.manual_seed(0)
        state = training.start(config(checkpointing=checkpointing, preset="other"))
        torch.manual_seed(1)  # drop path
        losses = state.wrapped(batch, (5.0, 2.0))
        training.weighted_sum(losses, config()).backward()
        return (
            losses,
            [p.grad for p in state.parameters],
            dict(state.model.named_buffers()),
            kept(state),
        )

    def kept(state):
        """Bytes that a forward pass keeps for the backward pass, each storage once."""
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (stored.append(t), t)[1], lambda t: t
        ):
            state.model.mask_decoder(*state.model.backbone(batch.frames))
        return sum(
            {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in stored}.values()
        )

    plain, light = run(False), run(True)
    assert light[3] < 0.5 * plain[3]
    for a, b in zip(plain[0].values(), light[0].values(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(plain[1], light[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    for name, value in plain[2].items():
        if "num_batches" not in name:
            torch.testing.assert_close(
                light[2][name], value
            )  # statistics are learned once, not twice
    assert any("running_mean" in name for name in plain[2])


def test_bf16_is_near(batch):
    torch.manual_seed(0)
    model = MobileInst.from_pretrained("shapes-tiny").train()
    training.freeze_norms(model)
    exact = training_losses(model, batch, config())
    with training.Engine("cpu", "bf16").autocast():
        near = training_losses(model, batch, config())
    assert near["cls"].dtype == torch.float32
    for name, value in exact.items():
        assert 0 < abs(near[name].item() - value.item()) < 0.1 * value.item() + 0.02, name


def test_frozen_norms_stay_and_all_else_learns(tmp_path):
    train(shared(tmp_path), clips=CLIPS)
    before, after = (
        MobileInst.from_pretrained("shapes-tiny").state_dict(),
        MobileInst.from_pretrained(tmp_path / "weights"),
    )
    for name, value in after.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, before[name])
    assert not torch.equal(after.instance_decoder.queries, before["instance_decoder.queries"])


def test_what_is_wrong_in_a_process_is_said_by_the_first(tmp_path):
    train(shared(tmp_path, iterations=2), clips=CLIPS)
    with pytest.raises(ValueError, match="holds a run with another lr; choose another --out"):
        train(shared(tmp_path, processes=2, iterations=2, lr=0.5), clips=CLIPS)


def die(rank_that_dies):
    if os.environ["RANK"] == rank_that_dies:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(100)


@LINUX
def test_a_process_that_is_killed_ends_the_others_and_is_named():
    started = time.monotonic()
    with pytest.raises(ChildProcessError, match="process 1 terminated with signal SIGKILL"):
        spawn(die, 2, "1")
    assert time.monotonic() - started < 90


# --------------------------------------------------------------------------------------- the allocator


@pytest.mark.skipif(not keep_memory(), reason="glibc's malloc alone")
@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_is_kept_costs_no_page_faults(kept):
    """In a process of its own: blocks of 40 MB are taken and given back, as a step of training does."""
    program = f"""
import torch
from minst.engine import keep_memory
from minst.mobile.timing import page_faults
if {kept}:
    assert keep_memory()
for _ in range(5):
    before = page_faults()
    for _ in range(8):
        blocks = [torch.empty(10 * 2**20).fill_(1) for _ in range(2)]
        del blocks
print(page_faults() - before)
"""
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=True)
    # the default maps such blocks anew each time: 10,240 pages of 4 kB, fewer if pages are larger
    assert (int(done.stdout) < 100) == kept, done.stdout


def test_a_training_on_the_cpu_keeps_its_memory(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "keep_memory", lambda: asked.append(1))
    train(config(tmp_path, iterations=1, device="cpu"), clips=CLIPS)
    assert asked
