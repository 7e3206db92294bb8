"""Backbones: agreement with the official code, shapes, cost, folding, export, reading of checkpoints."""

import argparse
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minst import backbones
from minst.backbones.base import BackboneFeatures, InvertedResidual, Transformer, TransformerBlock
from minst.backbones.seaformer import AxisPosition, SqueezeAxialAttention
from minst.backbones.topformer import Attention
from minst.layers import fold_batch_norms
from minst.weights import load_backbone_weights

GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference outputs of the official code at {GOLDEN}")


def golden(name):
    return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


def calibrate(network):
    """Show its batch norms some data and return it in eval mode: at their initial values activations explode or
    vanish, attention saturates, and rounding alone changes the outputs by percents."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 128, 128))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def make(name, **options):
    torch.manual_seed(0)
    return calibrate(backbones.build(name, **options))


@torch.no_grad()
def run(backbone, x):
    return backbone(x)


def error(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_agree(ours, theirs, tolerance=2e-5):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    assert max(error(a, b) for a, b in zip(ours, theirs)) <= tolerance


# ---- the official code ------------------------------------------------------------------------------------------


@needs_golden
@pytest.mark.parametrize("name", [n for n in backbones.NAMES if not n.startswith("mobilenetv2")])
def test_keys_and_shapes_are_the_official_ones(name):
    official = json.loads((GOLDEN / "state_dict_keys.json").read_text())[name.replace("-", "_")]
    assert {k: list(v.shape) for k, v in backbones.build(name).state_dict().items()} == official


@needs_golden
def test_topformer_agrees_with_the_official_code():
    g = golden("topformer_tiny")
    backbone = backbones.build("topformer-tiny").eval()
    backbone.load_state_dict(g["state_dict"], strict=True)
    with torch.no_grad():
        assert_agree(backbone.tpm(g["input"]), g["tokens"])
    assert_agree(run(backbone, g["input"]), [*g["out"], g["global"]])
    odd = g["extra"]  # 225 x 331: a wrong pooling size shows here only
    assert_agree(run(backbone, odd["input"]), [*odd["out"], odd["global"]])

    plain = backbones.build("topformer-tiny", injection=False).eval()
    plain.load_state_dict({k: v for k, v in g["state_dict"].items() if not k.startswith("SIM.")}, strict=True)
    assert_agree(run(plain, g["input"]), g["out_no_injection"][1:])


@needs_golden
def test_seaformer_agrees_with_the_official_code():
    g = golden("seaformer_tiny")
    backbone = backbones.build("seaformer-tiny").eval()
    backbone.load_state_dict(g["state_dict"], strict=True)
    out = run(backbone, g["input"])
    assert_agree([out.x3, out.x5, out.x6], g["out"])
    assert_agree([out.x5, out.x6], g["trans"])
    out = run(backbone, g["extra"]["input"])
    assert_agree([out.x3, out.x5, out.x6], g["extra"]["out"])


COST = {  # parameters, without injection, G multiply-additions at 512 x 512 (OFFICIAL.md)
    "topformer-tiny": (1_369_920, 1_293_888, 0.455),
    "topformer-small": (2_968_464, 2_808_336, 0.843),
    "topformer-base": (4_958_048, 4_683_104, 1.326),
    "seaformer-tiny": (1_620_096, 1_620_096, 0.467),
    "seaformer-small": (3_912_656, 3_912_656, 0.877),
    "seaformer-base": (8_485_664, 8_485_664, 1.532),
}


@pytest.mark.parametrize("name", COST)
def test_parameters_and_multiply_additions(name):
    with_injection, without, gmacs = COST[name]
    backbone = backbones.build(name).eval()
    assert sum(p.numel() for p in backbone.parameters()) == with_injection
    assert sum(p.numel() for p in backbones.build(name, injection=False).parameters()) == without
    with FlopCounterMode(display=False) as counter:
        run(backbone.to("meta"), torch.empty(1, 3, 512, 512, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=6e-4)


# ---- shapes and properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", backbones.NAMES)
@pytest.mark.parametrize("token_stride", [64, 32])
@pytest.mark.parametrize("injection", [True, False])
def test_strides_and_channels(name, token_stride, injection):
    backbone = backbones.build(name, injection=injection, token_stride=token_stride).eval().to("meta")
    for height, width in ((128, 192), (129, 331)):  # the second is odd at 1/32 as well: 5 x 11
        out = run(backbone, torch.empty(2, 3, height, width, device="meta"))
        assert isinstance(out, BackboneFeatures)
        for feature, channels, stride in zip(out, backbone.out_channels, (8, 16, 32, token_stride), strict=True):
            assert feature.shape == (2, channels, -(-height // stride), -(-width // stride))


def test_injection_changes_topformer_channels_only():
    assert backbones.build("topformer-tiny").out_channels == (128, 128, 128, 208)
    assert backbones.build("topformer-tiny", injection=False).out_channels == (32, 64, 96, 208)
    for name in ("seaformer-tiny", "mobilenetv2"):
        assert backbones.build(name).out_channels == backbones.build(name, injection=False).out_channels


@pytest.mark.parametrize("name", ["topformer-tiny", "seaformer-tiny", "mobilenetv2"])
def test_batch_equals_its_members(name):
    backbone = make(name).double()
    frames = torch.randn(3, 3, 100, 132, dtype=torch.float64)
    single = [run(backbone, frame[None]) for frame in frames]
    assert_agree(run(backbone, frames), [torch.cat(level) for level in zip(*single)], 1e-9)


@pytest.mark.parametrize("name", backbones.NAMES)
def test_folding_keeps_outputs(name):
    backbone = make(name)
    frames = torch.randn(1, 3, 128, 160)
    expected, exact = run(backbone, frames), run(copy.deepcopy(backbone).double(), frames.double())
    assert_agree(run(fold_batch_norms(copy.deepcopy(backbone).double()), frames.double()), exact, 1e-9)
    noise = max(error(a.double(), b) for a, b in zip(expected, exact))  # of float32 alone, folded or not
    folded = fold_batch_norms(backbone)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert_agree(run(folded, frames), expected, max(1e-4, 3 * noise))
    run(fold_batch_norms(folded), frames)  # a second time changes nothing


def test_folding_in_training_mode_is_refused():
    with pytest.raises(RuntimeError, match="eval"):
        fold_batch_norms(backbones.build("mobilenetv2"))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["topformer-tiny", "seaformer-tiny", "mobilenetv2"])
def test_traces_and_exports_without_warnings_about_data(name, recwarn):
    backbone, example, other = make(name), torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)
    traced = torch.jit.trace(backbone, example)
    assert not [w for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]
    assert_agree(run(traced, other), run(backbone, other), 1e-4)
    exported = torch.export.export(backbone, (example,)).module()
    assert_agree(run(exported, other), run(backbone, other), 1e-4)


@pytest.mark.parametrize("name", backbones.NAMES)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    backbone = backbones.build(name)
    out = backbone(torch.randn(2, 3, 128, 128))
    assert all(feature.requires_grad for feature in out)
    sum(feature.square().mean() for feature in out).backward()
    assert not [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


# ---- the bricks, against other ways to compute them --------------------------------------------------------------


def test_topformer_attention_is_plain_unscaled_attention():
    torch.manual_seed(0)
    attention = Attention(24, key_dim=8, heads=3, value_ratio=2).eval()
    x = torch.randn(2, 24, 3, 5)
    q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (attention.to_q, attention.to_k, attention.to_v))
    heads = [
        nn.functional.scaled_dot_product_attention(qh, kh, vh, scale=1.0)
        for qh, kh, vh in zip(q.split(8, -1), k.split(8, -1), v.split(16, -1))
    ]
    expected = attention.proj(torch.cat(heads, -1).transpose(1, 2).reshape(2, 48, 3, 5))
    torch.testing.assert_close(attention(x), expected)


def test_squeezed_attention_is_plain_attention_on_each_axis():
    torch.manual_seed(0)
    attention = SqueezeAxialAttention(24, key_dim=8, heads=3, value_ratio=2)
    q, k, v = torch.randn(2, 24, 7), torch.randn(2, 24, 7), torch.randn(2, 48, 7)
    heads = [
        nn.functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in qkv)).transpose(1, 2)
        for qkv in zip(q.split(8, 1), k.split(8, 1), v.split(16, 1))
    ]
    torch.testing.assert_close(attention.attend(q, k, v), torch.cat(heads, 1))


@pytest.mark.parametrize("length", [1, 7, 16, 33])
def test_axis_position_is_linear_interpolation(length):
    position = AxisPosition(6)
    expected = nn.functional.interpolate(position.pos_embed, size=length, mode="linear", align_corners=False)
    torch.testing.assert_close(position(torch.zeros(2, 6, length)), expected.expand(2, -1, -1))


def test_inverted_residual_adds_its_input_only_where_it_can():
    for stride, out_channels, residual in ((1, 8, True), (2, 8, False), (1, 12, False)):
        block = InvertedResidual(8, out_channels, 3, stride, 2).eval()
        nn.init.zeros_(block.conv[-1].bn.weight)  # silences the branch
        x = torch.randn(1, 8, 6, 6)
        assert torch.equal(block(x), x) if residual else not block(x).any()


def test_a_block_skips_each_branch_for_whole_samples_and_keeps_the_mean():
    """Two branches of constants: x + 1 and then + 10, each in training with probability 3/4, as 4/3 of it."""

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x, self.value)

    torch.manual_seed(0)
    block, x = TransformerBlock(Constant(1.0), Constant(10.0), 0.25), torch.zeros(4000, 2, 1, 3)
    assert torch.equal(block.eval()(x), x + 11)
    out = block.train()(x)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3, 40 / 3, 44 / 3])  # the branches are drawn apart
    assert torch.equal(out, out[:, :1, :, :1].expand_as(out))
    assert out.mean().item() == pytest.approx(11.0, abs=0.3)


@pytest.mark.parametrize("depth, rates", [(1, [0.0]), (3, [0.0, 0.05, 0.1]), (5, [0.0, 0.025, 0.05, 0.075, 0.1])])
def test_drop_path_grows_with_depth_and_every_block_has_its_own_attention(depth, rates):
    blocks = Transformer(lambda: Attention(8, key_dim=4, heads=2, value_ratio=2), 8, depth, 2).transformer_blocks
    assert [block.drop_path.p for block in blocks] == pytest.approx(rates)
    assert all(block.drop_path.mode == "row" for block in blocks)
    assert len({id(p) for p in blocks.parameters()}) == depth * len(list(blocks[0].parameters()))


def test_models_import_without_torchvision():
    """Importing it takes over a second; only who builds a backbone waits for it."""
    code = "import sys, minst.model, minst.backbones; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_initialisation():
    torch.manual_seed(0)
    backbone = backbones.build("topformer-base")
    depthwise = backbone.trans.transformer_blocks[0].mlp.dwconv
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03) and not depthwise.bias.any()
    dense = backbone.trans.transformer_blocks[0].mlp.fc1.c.weight
    assert dense.std().item() == pytest.approx((2 / dense.shape[0]) ** 0.5, rel=0.02)
    assert all(p.eq(1).all() for key, p in backbone.named_parameters() if key.endswith("bn.weight"))


@pytest.mark.parametrize("name", ["topformer-huge", "resnet50", "", "mobilenetv2-tiny"])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=f"{name}.*topformer-tiny.*seaformer-base, mobilenetv2"):
        backbones.build(name)


def test_unknown_token_stride():
    with pytest.raises(ValueError, match="token_stride is 16"):
        backbones.build("topformer-tiny", token_stride=16)


# ---- checkpoints -------------------------------------------------------------------------------------------------


def state(name="topformer-tiny", **options):
    return make(name, **options).state_dict()


def same(backbone, weights):
    return all(torch.equal(v, weights[k]) for k, v in backbone.state_dict().items() if k in weights)


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".pth", lambda s: s),
        (".safetensors", lambda s: s),
        (".pth", lambda s: {"state_dict": s, "epoch": 3, "args": argparse.Namespace(lr=0.1)}),
        (".pt", lambda s: {"model": {"state_dict": s}}),
        (".pth", lambda s: {"state_dict": {k: torch.zeros_like(v) for k, v in s.items()}, "state_dict_ema": s}),
        (".pth", lambda s: {"state_dict": {f"module.backbone.{k}": v for k, v in s.items()}}),
        (".safetensors", lambda s: {f"backbone.{k}": v for k, v in s.items()}),
    ],
    ids=["flat", "safetensors", "state_dict", "model", "ema", "module.backbone.", "backbone."],
)
def test_load_finds_the_weights(tmp_path, suffix, wrap):
    weights, path = state(), tmp_path / f"w{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(wrap(weights | {"head.fc.weight": torch.ones(2)}), path)
    backbone = backbones.build("topformer-tiny")
    report = load_backbone_weights(backbone, path)
    assert same(backbone, weights) and not report.missing_keys
    assert report.unexpected_keys == ["head.fc.weight"]


def test_load_imagenet_checkpoint_without_injection(tmp_path):
    torch.save(state(injection=False), tmp_path / "w.pth")
    report = load_backbone_weights(backbones.build("topformer-tiny"), tmp_path / "w.pth")
    assert report.missing_keys and all(key.startswith("SIM.") for key in report.missing_keys)
    assert not report.unexpected_keys
    torch.save(state(), tmp_path / "w.pth")  # the other way round
    report = load_backbone_weights(backbones.build("topformer-tiny", injection=False), tmp_path / "w.pth")
    assert not report.missing_keys
    assert report.unexpected_keys and all(key.startswith("SIM.") for key in report.unexpected_keys)


def test_load_torchvision_mobilenet(tmp_path):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    theirs = calibrate(mobilenet_v2(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    backbone = backbones.build("mobilenetv2").eval()
    report = load_backbone_weights(backbone, tmp_path / "w.pth")
    assert report.missing_keys and all(key.startswith("x6.") for key in report.missing_keys)
    unexpected = {key.rsplit(".", 1)[0] for key in report.unexpected_keys}
    assert unexpected == {"features.18.0", "features.18.1", "classifier.1"}
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        out = run(backbone, x)
        torch.testing.assert_close(out.x3, theirs.features[:7](x))
        torch.testing.assert_close(out.x4, theirs.features[:14](x))
        torch.testing.assert_close(theirs.features[18](out.x5), theirs.features(x))


def test_half_precision_checkpoint(tmp_path):
    weights = {k: v.half() if v.is_floating_point() else v for k, v in state().items()}
    save_file(weights, tmp_path / "w.safetensors")
    backbone = backbones.build("topformer-tiny")
    load_backbone_weights(backbone, tmp_path / "w.safetensors")
    assert all(p.dtype == torch.float32 for p in backbone.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"tpm.stem.0.c.weight": torch.zeros(8, 3, 3, 3)},
         r"tpm\.stem\.0\.c\.weight is \(8, 3, 3, 3\) in the file, \(16, 3, 3, 3\) in the backbone"),
        (lambda s: {k: v for k, v in s.items() if k != "tpm.layer1.conv.0.c.weight"},
         r"tpm\.layer1\.conv\.0\.c\.weight is missing"),
        (lambda s: {k: v for k, v in s.items() if k != "SIM.1.global_act.bn.weight"},
         r"SIM\.1\.global_act\.bn\.weight is missing"),
        (lambda s: {"features.0.0.weight": torch.zeros(2)},
         r"tpm\.stem.* is missing in the file, .*another backbone or size"),
        (lambda s: {"state_dict": {}}, r"tpm\.stem.* is missing"),
        (lambda s: {"state_dict": "weights"}, r"tpm\.stem.* is missing"),
        (lambda s: holds_itself(), r"tpm\.stem.* is missing|not readable"),
        (lambda s: [1, 2], "not readable as weights.*not tensors alone"),
        (lambda s: torch.ones(3), "not readable as weights.*not tensors alone"),
        (lambda s: {5: torch.ones(3)}, "not readable as weights.*not tensors alone"),
        (lambda s: s | {"backbone.tpm.stem.0.c.weight": torch.ones(16, 3, 3, 3)}, "twice, with and without a prefix"),
    ],
    ids=["shape", "key", "part of the injection", "other network", "empty", "word", "itself", "list", "tensor", "number", "twice"],
)  # fmt: skip
def test_wrong_checkpoints_are_refused_by_name_and_change_nothing(tmp_path, change, message):
    backbone = backbones.build("topformer-tiny")
    before = copy.deepcopy(backbone.state_dict())
    torch.save(change(state()), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone_weights(backbone, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert same(backbone, before)


def holds_itself():
    found = {}
    found["model"] = found
    return found


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unreadable_files(tmp_path, suffix):
    backbone, path = backbones.build("topformer-tiny"), tmp_path / f"w{suffix}"
    with pytest.raises(FileNotFoundError, match=rf"No such file.*w\{suffix}"):
        load_backbone_weights(backbone, path)
    for content in (b"", b"<html>404</html>", pickle.dumps({"state_dict": Trap()}), b"PK\x03\x04" + bytes(64)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"w\{suffix} is not readable as weights: .* convert it to \.safetensors"):
            load_backbone_weights(backbone, path)
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ValueError, match="not readable as weights") as caught:
        load_backbone_weights(backbone, path)
    if suffix == ".pth":  # the cause names what was not run
        assert "_Fail was not an allowed global" in str(caught.value.__cause__)


def test_any_other_suffix_is_read_as_a_file_of_torch(tmp_path):
    path, weights = tmp_path / "w.bin", state()
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"w\.bin is not readable as weights"):
        load_backbone_weights(backbones.build("topformer-tiny"), path)
    torch.save(weights, path)
    backbone = backbones.build("topformer-tiny")
    load_backbone_weights(backbone, path)
    assert same(backbone, weights)
