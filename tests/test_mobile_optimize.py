"""PyTorch's mobile optimiser: every pass is seen in the graph, and its outputs are compared."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from minst.layers import fold_batch_norms
from minst.mobile.export import WRITERS, channels_last_frame
from minst.mobile.programs import Program, make_programs
from minst.model import MobileInst

pytestmark = pytest.mark.usefixtures("one_thread")
needs_xnnpack = pytest.mark.skipif(
    not torch._C._is_xnnpack_enabled(), reason="this torch has no XNNPACK: the extra 'lite'"
)
PASSES = ("CONV_BN_FUSION", "INSERT_FOLD_PREPACK_OPS", "HOIST_CONV_PACKED_PARAMS", "REMOVE_DROPOUT", "FUSE_ADD_RELU")
KINDS = ("conv2d", "batch_norm", "relu", "conv2d_clamp_run", "linear_clamp_run", "dropout")


class Net(nn.Module):
    """Two convolutions with batch norms, two ReLUs of which one follows an addition, dropout, a linear layer."""

    outputs = ("out",)

    def __init__(self, bias: bool):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 8, 1, bias=bias), nn.BatchNorm2d(8), nn.Dropout())  # fmt: skip
        self.linear = nn.Linear(8, 4)

    def forward(self, frame):
        x = self.body(frame)
        x = torch.relu(x + x.flip(-1))
        return self.linear(x.mean((2, 3)))


def program(bias: bool) -> Program:
    """Batch norms that matter: means and variances far from 0 and 1."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = Net(bias)
        for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
            for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                value.uniform_(0.5, 2)
        return Program("key", net.eval(), [{"frame": torch.rand(1, 3, 16, 16)} for _ in range(2)])


def optimize(given: Program, passes=PASSES):
    """`optimize_for_mobile` with these rewrites alone."""
    from torch.utils.mobile_optimizer import MobileOptimizerType, optimize_for_mobile

    left_out = {getattr(MobileOptimizerType, name) for name in PASSES if name not in passes}
    with torch.no_grad():
        return optimize_for_mobile(torch.jit.trace(given.module, given.inputs["frame"]), left_out)


def nodes(module) -> list[int]:
    found = Counter(node.kind().partition("::")[2] for node in module.graph.nodes())
    found["conv2d"] += found["_convolution"]
    return [found[kind] for kind in KINDS]


@needs_xnnpack
def test_graphs_hold_what_each_pass_left():
    """Counted by hand from `Net`."""
    folded = program(True)
    folded = folded._replace(module=fold_batch_norms(copy.deepcopy(folded.module)))
    assert nodes(optimize(program(True), ())) == [2, 2, 2, 0, 0, 1]
    assert nodes(optimize(folded, ())) == [2, 0, 2, 0, 0, 1]
    assert nodes(optimize(folded, PASSES[1:2])) == [0, 0, 1, 2, 1, 1]
    assert nodes(optimize(folded)) == [0, 0, 0, 2, 1, 0]  # aten::_add_relu
    from torch.utils.mobile_optimizer import MobileOptimizerType

    known = {name for name in MobileOptimizerType.__members__ if "VULKAN" not in name}
    assert known == set(PASSES)


@needs_xnnpack
def test_only_the_batch_norm_pass_changes_results_and_only_without_bias():
    """pytorch issue 76807. When this fails, that pass has been mended: say so in module and lesson."""
    for bias in (True, False):
        given = program(bias)
        alone, others = optimize(given, PASSES[:1]), optimize(given, PASSES[1:])
        worst = [given.differences(given._replace(module=m).run)["out"] for m in (alone, others)]
        assert (worst[0] > 0.1) == (not bias) and worst[1] < 1e-5
        assert any(isinstance(part, nn.BatchNorm2d) for part in given.module.modules())


@needs_xnnpack
def test_the_shipped_model_survives_and_loses_its_clamps():
    """Its norms are folded before, so the pass that is left out would find nothing to do."""
    model = MobileInst.from_pretrained("shapes-tiny")
    fused = make_programs(copy.deepcopy(model).fuse(), (64, 128), "features")[0]
    optimized, frame = optimize(channels_last_frame(fused), PASSES[1:]), fused.examples[1]["frame"]
    conv, norm, _, prepacked, *_ = nodes(optimized)
    assert prepacked > 50 and conv == norm == 0
    with torch.inference_mode():
        encoded = model.encode(frame)
        for got, want in zip(optimized(frame), (encoded.x6, encoded.x_mask), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


@needs_xnnpack
def test_the_batch_norm_pass_is_left_out_of_a_file(tmp_path):
    """A file of a network whose norms are not folded computes what the network does."""
    given, path = program(False), tmp_path / "net.ptl"
    path.write_bytes(WRITERS["lite"](given, {}))
    from torch.jit.mobile import _load_for_lite_interpreter

    loaded = _load_for_lite_interpreter(str(path))
    assert given.differences(lambda frame: (loaded(frame),))["out"] < 1e-2


def test_differences_are_relative_and_over_all_examples():
    given = program(True)

    class Off(nn.Module):
        outputs = ("out",)

        def forward(self, frame):
            return 100 * given.module(frame) + 3.0 * torch.equal(frame, given.examples[-1]["frame"])

    class Times(Off):
        def forward(self, frame):
            return 100 * given.module(frame)

    largest = float(Times()(given.examples[-1]["frame"]).detach().abs().max())
    assert largest > 10
    found = given._replace(module=Times()).differences(given._replace(module=Off()).run)
    assert found["out"] == pytest.approx(3.0 / largest, rel=1e-3)


def test_channels_last_frame_turns_the_frame_alone(tiny):
    seen = {}

    class See(nn.Module):
        outputs = ("kernels",)

        def forward(self, frame, kernels):
            seen["frame"], seen["kernels"] = frame, kernels
            return kernels

    frame, kernels = torch.rand(1, 3, 64, 64), torch.rand(1, 8, 4)
    turned = channels_last_frame(Program("reuse", See(), [{"frame": frame, "kernels": kernels}]))
    assert torch.equal(turned.run(frame, kernels)[0], kernels) and turned.outputs == ("kernels",)
    assert seen["frame"].stride() == (3 * 64 * 64, 1, 64 * 3, 3)
    assert torch.equal(seen["frame"], frame)
    without = make_programs(tiny, (64, 64), "masks")[0]
    assert channels_last_frame(without) is without
