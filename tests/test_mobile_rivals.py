"""The rival of MobileInst: its shapes and sizes, counted by hand, and a comparison that is paired within rounds."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from test_cli import assert_refused, call_of, run
from torchvision.models import resnet50

from minst.mobile import rivals, roofline, timing
from minst.mobile.rivals import PARTS, RIVAL, SparseInst, bench_rivals


@pytest.fixture(scope="module")
def rival():
    torch.manual_seed(0)
    return SparseInst()


def conv(c_in, c_out, k=1):
    return c_in * c_out * k * k + c_out


# a branch: four 3x3 convolutions, the first of which sees two coordinates
BRANCH = conv(258, 256, 3) + 3 * conv(256, 256, 3)


def test_shapes_and_that_nothing_is_left_to_learn_from_a_batch(rival):
    frames = torch.rand(2, 3, 128, 192)
    with torch.no_grad():
        logits, objectness, kernels, masks = rival(frames)
        alone = rival(frames[1:])
    assert logits.shape == (2, 100, 80) and objectness.shape == (2, 100, 1)
    assert kernels.shape == (2, 100, 128) and masks.shape == (2, 100, 16, 24)
    assert not rival.training
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in rival.modules())
    for both, one in zip((logits, objectness, kernels, masks), alone):
        torch.testing.assert_close(both[1:], one, rtol=1e-3, atol=1e-4)


def test_parameters_by_hand(rival):
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in rival.named_children()
    }
    # ResNet-50 without its norms (two numbers a channel) and its classifier
    net = resnet50(weights=None)
    norms = sum(m.weight.numel() * 2 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert count["backbone"] == 25_557_032 - (2048 * 1000 + 1000) - norms == 23_454_912
    laterals = conv(512, 256) + conv(1024, 256) + conv(2048, 256)
    pooling = 4 * conv(256, 64) + conv(256 + 4 * 64, 256)
    neck = laterals + pooling + 3 * conv(256, 256, 3) + conv(3 * 256, 256)
    assert count["mask_decoder"] == neck + BRANCH + conv(256, 128)
    heads = conv(256, 80) + conv(256, 1) + conv(256, 128)
    assert count["instance_decoder"] == BRANCH + conv(256, 100, 3) + heads


def test_maps_say_where_instances_are(rival):
    """An instance is the mean of G under its map: an even map gives the plain mean."""
    decoder = rivals._InstanceDecoder(3, 5).eval()
    torch.nn.init.zeros_(decoder.maps.weight)
    features = torch.rand(1, 258, 6, 7)
    with torch.no_grad():
        mean = decoder.branch(features).mean((2, 3))
        for head, got in zip(decoder.heads, decoder(features)):
            torch.testing.assert_close(got, head(mean)[:, None].expand(1, 5, -1))


def test_coordinates_begin_at_the_upper_left(rival):
    levels = [torch.zeros(1, c, s, 2 * s) for c, s in ((512, 16), (1024, 8), (2048, 4))]
    with torch.no_grad():
        features, masks = rival.mask_decoder(*levels)
    x, y = features[0, :2]
    assert x[:, 0].eq(-1).all() and x[:, -1].eq(1).all() and x[0].diff().gt(0).all()
    assert y[0].eq(-1).all() and y[-1].eq(1).all() and y[:, 0].diff().gt(0).all()
    assert masks.shape == (1, 128, 16, 32)


def test_macs_of_a_branch_by_hand(rival):
    with torch.no_grad():
        rows = roofline.describe(rival, torch.rand(1, 3, 64, 128))
    found = sum(row["macs"] for row in rows if row["name"].startswith("instance_decoder.branch"))
    assert found == 8 * 16 * 9 * 256 * (258 + 3 * 256)
    assert {row["part"] for row in rows} >= set(PARTS)


@pytest.fixture
def played(monkeypatch):
    """Rounds without a network: MobileInst takes 40 % of what the rival takes in the same round."""
    models = {"small": torch.nn.Linear(10, 100), "rival": torch.nn.Linear(100, 100)}
    slow = iter(range(10**6))
    laps = {"small": [], "rival": []}

    def part_times(model, frame):
        name = next(key for key, one in models.items() if one is model)
        factor = 1 + next(slow) // 2  # a machine that gets slower from round to round
        laps[name].append(factor)
        share = 4.0 if name == "small" else 10.0
        return [0.0, share * factor / 2, share * factor / 4, share * factor / 4, 0.0]

    monkeypatch.setattr(rivals, "settled_model", lambda preset: type("M", (), {"fuse": lambda _: models["small"]})())
    monkeypatch.setattr(rivals, "SparseInst", lambda: models["rival"])
    monkeypatch.setattr(roofline, "part_times", part_times)
    rows = [{"part": part, "macs": 10**6 * (i + 1), "bytes": 10**6 * (i + 3)} for i, part in enumerate(PARTS)]
    monkeypatch.setattr(roofline, "describe", lambda *_: rows)
    return laps


def test_the_ratio_is_paired_within_rounds(played, capsys, tmp_path):
    result = bench_rivals(size=(64, 128), rounds=8, json_path=str(tmp_path / "r.json"))
    assert result["ratio"] == pytest.approx({"median": 0.4, "low": 0.4, "high": 0.4})
    assert {name: len(laps) for name, laps in played.items()} == {"small": 10, "rival": 10}
    assert result["size"] == [64, 128] and result["rounds"] == 8
    assert json.loads((tmp_path / "r.json").read_text()) == result
    ours, theirs = result["rows"]["topformer-base"], result["rows"][RIVAL]
    factors = np.array(played["small"][rivals.WARM_UP :])
    assert ours["median_ms"] == pytest.approx(4 * np.median(factors))
    assert ours["p95_ms"] == pytest.approx(4 * np.percentile(factors, 95))
    assert list(ours["ms"]) == list(ours["macs"]) == list(PARTS)
    assert ours["ms"]["backbone"] == pytest.approx(2 * np.median(factors))
    assert theirs["weights_mb"] == 4 * (100 * 100 + 100) / 1e6 and theirs["layer_mb"] == 5
    head, *lines, last = capsys.readouterr().out.splitlines()[:4]
    assert head.split("  ")[0] == "128x64, one thread"
    for column in ("median_ms", *PARTS, "weights_mb", "layer_mb", "million MACs"):
        assert column in head
    assert lines[0].startswith("topformer-base") and lines[1].startswith(RIVAL)
    assert "6" in lines[0].split()[-1]  # million MACs of all parts
    assert last == "topformer-base takes this share of the rival's time: 40% (40% to 40%)"


def test_the_small_model_is_the_smaller_one():
    """A real run, at the least size: no time is asserted, but what is counted is."""
    result = bench_rivals("topformer-tiny", (64, 64), rounds=6)
    ours, theirs = result["rows"]["topformer-tiny"], result["rows"][RIVAL]
    for name in ("backbone", "mask decoder", "instance decoder"):
        assert 0 < ours["macs"][name] < theirs["macs"][name] and ours["ms"][name] > 0
    assert ours["weights_mb"] < theirs["weights_mb"] / 5
    assert theirs["weights_mb"] == pytest.approx(4 * (23_454_912 + 5_480_320 + 2_649_141) / 1e6)
    ratio = result["ratio"]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"preset": "no-such-model"}, "no-such-model"),
        ({"size": (320, 570)}, "multiples of 64"),
        ({"size": (300, 576)}, "multiples of 64"),
        ({"size": (32, 64)}, "at least 64"),
        ({"rounds": 5}, "rounds is 5; it must be .*at least 6"),
        ({"json_path": "no/such/folder.json"}, "there is no folder"),
    ],
)
def test_wrong_arguments(wrong, named, monkeypatch):
    monkeypatch.setattr(rivals, "SparseInst", lambda: pytest.fail("the work has started"))
    with pytest.raises((ValueError, OSError), match=named):
        bench_rivals(**{"size": (64, 64), **wrong})


def test_the_command_passes_on_what_it_is_told(monkeypatch):
    calls = call_of(monkeypatch, "minst.mobile.rivals", "bench_rivals")
    assert run("bench", "rivals", "--preset", "topformer-tiny", "--size", "192x128", "--rounds", 7)[0] == 0
    assert calls == [{"preset": "topformer-tiny", "size": (128, 192), "rounds": 7, "json_path": None}]
    assert run("bench", "rivals")[0] == 0 and calls[1]["preset"] == "topformer-base"
    assert calls[1]["size"] == (320, 576)
    assert_refused("bench", "rivals", "--rounds", 5, word="at least 6")
    assert_refused("bench", "rivals", "--preset", "resnet50", word="invalid choice")


# ------------------------------------------------------------------------------ the interval of a median


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (30, 10)])
def test_the_interval_is_that_of_the_books(n, k):
    """Ranks as tables of the sign test give them."""
    values = list(np.random.default_rng(n).permutation(n) + 1.0)
    assert timing.median_interval(values) == {"median": (n + 1) / 2, "low": k, "high": n + 1 - k}


def test_too_few_rounds_have_no_interval():
    for n in range(1, timing.FEWEST):
        found = timing.median_interval([float(i) for i in range(n)])
        assert found["low"] is found["high"] is None and timing.said(found) == "cannot be measured here"


def test_the_interval_holds_the_median_at_least_95_times_in_100():
    """All 2^8 ways in which eight values lie below or above the median, each as likely as the next."""
    missed = 0
    for below in (set(c) for r in range(9) for c in combinations(range(8), r)):
        found = timing.median_interval([-1.0 - i if i in below else 1.0 + i for i in range(8)])
        missed += not found["low"] <= 0 <= found["high"]
    assert 0 < missed <= 0.05 * 2**8


def test_an_interval_wider_than_its_median_says_nothing():
    assert timing.said({"median": 0.12, "low": 0.1, "high": 0.13}) == "12% (10% to 13%)"
    for low, high in ((-0.02, 0.1), (0.0, 0.12), (0.05, 0.18)):
        assert timing.said({"median": 0.12, "low": low, "high": high}) == "cannot be measured here"
