"""tests/benchmarks/variants.py: what is 8-bit afterwards, what stays, and that a tracker takes them.

No figures of accuracy: those are for tests/benchmarks/variants_accuracy.py.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from minst.macs import summary
from minst.mobile.export import export
from minst.mobile.runtime import ExportedModel
from minst.model import MobileInst
from minst.samples import load_sample
from minst.tracking import KernelTracker

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # scripts, not a package
from variants import VARIANTS, int8_programs, linear_share, make_variant

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shapes() -> MobileInst:
    return MobileInst.from_pretrained("shapes-tiny")


@pytest.fixture(scope="module")
def int8_onnx(shapes, tmp_path_factory):
    """(folder of the programs, folder of the quantised ones)"""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("onnx")
    export(shapes, "onnx", folder / "float", (64, 128))
    assert int8_programs(folder / "float", folder / "int8") == [
        folder / "int8" / f"{n}.onnx" for n in ("key", "reuse")
    ]
    return folder / "float", folder / "int8"


def test_channels_last_is_the_same_model(shapes):
    made, frame = make_variant(shapes, "channels-last"), torch.rand(1, 3, 128, 192)
    assert all(
        w.is_contiguous(memory_format=torch.channels_last) for w in made.parameters() if w.ndim == 4
    )
    with torch.inference_mode():
        got, want = made(frame), shapes(frame)
        for a, b in zip(got[:5], want[:5]):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.abs().max().clamp(min=1)))
        assert made.encode(frame).x_mask.is_contiguous(memory_format=torch.channels_last)


def test_int8_rounds_linear_layers_alone(shapes):
    made = make_variant(shapes, "int8")
    names = {name for name, part in shapes.named_modules() if isinstance(part, nn.Linear)}
    assert len(names) > 10
    for name in names:
        weight, want = made.get_submodule(name).weight(), shapes.get_submodule(name).weight
        assert weight.dtype == torch.qint8
        # rounding to 8 bits over the whole matrix: at most half a step off
        assert (weight.dequantize() - want).abs().max() <= 1.01 * want.abs().max() / 127
    convolutions = [part for part in made.modules() if isinstance(part, nn.Conv2d)]
    assert convolutions and all(part.weight.dtype == torch.float32 for part in convolutions)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_stays_and_the_variant_tracks(shapes, variant):
    before = {name: value.clone() for name, value in shapes.state_dict().items()}
    made = make_variant(shapes, variant)
    assert before.keys() == shapes.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in shapes.state_dict().items())
    assert all(value.is_contiguous() for value in shapes.state_dict().values())
    frames = list(itertools.islice(load_sample("easy"), 4))
    want, got = KernelTracker(shapes), KernelTracker(made)
    for frame in frames:
        a, b = want.step(frame), got.step(frame)
        assert (
            sorted(a.labels) == sorted(b.labels) and a.labels
        )  # an easy clip: rounding moves no class
    assert variant == "channels-last" or b.scores != a.scores  # something was rounded


def test_linear_share_counted_by_hand(shapes):
    """At 64 x 128 with tokens at 1/32: 8 tokens of X6 and 8 of the pooled X_mask are keys; 20 queries are the rest."""
    macs = 0
    for name, layer in shapes.instance_decoder.named_modules():
        if isinstance(layer, nn.Linear):
            keys_or_values = "cross" in name and name.endswith((".k", ".v"))
            of_tokens = name == "global_projection" or keys_or_values
            macs += layer.in_features * layer.out_features * (8 if of_tokens else 20)
    share = linear_share(shapes, (64, 128))
    assert share == pytest.approx(macs / summary(shapes, (64, 128))["total"]["macs"], rel=1e-6)
    assert 0 < share < 0.1 and not any(part._forward_hooks for part in shapes.modules())


def test_int8_programs_are_small_8_bit_and_carry_the_same_metadata(int8_onnx):
    onnx = pytest.importorskip("onnx")
    before, after = (ExportedModel(folder) for folder in int8_onnx)
    for name in ("key", "reuse"):
        old, new = (folder / f"{name}.onnx" for folder in int8_onnx)
        assert new.stat().st_size < 0.45 * old.stat().st_size
        assert getattr(after, name).metadata == getattr(before, name).metadata
        kinds = [node.op_type for node in onnx.load(new).graph.node]
        assert kinds.count("ConvInteger") > 50 and "Conv" not in kinds
        assert [entry.key for entry in onnx.load(new).metadata_props] == ["minst.json", "sha256"]


def test_int8_programs_are_near_and_not_the_same(int8_onnx, shapes):
    frame = torch.rand(1, 3, 64, 128)
    model = ExportedModel(int8_onnx[1])
    with torch.inference_mode():
        got, want = model.encode(frame).out, shapes(frame)
    away = float(
        (got.mask_features - want.mask_features).abs().mean() / want.mask_features.abs().mean()
    )
    assert 1e-4 < away < 0.5
    assert KernelTracker(model, score_threshold=0.1).step(frame[0]).frame == 0


def test_bad_input(tiny, int8_onnx, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="variant is 'int4'; choose one of channels-last, int8"):
        make_variant(tiny, "int4")
    with pytest.raises(FileNotFoundError, match="does not hold key.onnx and reuse.onnx"):
        int8_programs(tmp_path, tmp_path / "out")
    before = (int8_onnx[0] / "key.onnx").read_bytes()
    with pytest.raises(ValueError, match="choose another folder"):
        int8_programs(int8_onnx[0], int8_onnx[0] / ".")
    assert (int8_onnx[0] / "key.onnx").read_bytes() == before
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    with pytest.raises(ImportError, match="no torch.ao.quantization .*pip install"):
        make_variant(tiny, "int8")
