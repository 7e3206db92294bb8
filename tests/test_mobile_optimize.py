"""minst.mobile.optimize: every pass is seen in the graph, its outputs are compared, a torch without XNNPACK says so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from minst.mobile.optimize import (
    PASSES,
    channels_last_frame,
    count_nodes,
    optimize,
    optimize_step_by_step,
    print_steps,
    trace,
)
from minst.mobile.programs import Program, make_programs
from minst.model import MobileInst

pytestmark = pytest.mark.usefixtures("one_thread")
needs_xnnpack = pytest.mark.skipif(
    not torch._C._is_xnnpack_enabled(), reason="this torch has no XNNPACK"
)


class Net(nn.Module):
    """Two convolutions with batch norms, ReLU and ReLU6, an addition before a ReLU, dropout, a linear layer."""

    outputs = ("out",)

    def __init__(self, bias: bool):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Conv2d(8, 8, 1, bias=bias), nn.BatchNorm2d(8), nn.ReLU6(), nn.Dropout())  # fmt: skip
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


@pytest.fixture(scope="module")
def steps():
    if not torch._C._is_xnnpack_enabled():
        pytest.skip("this torch has no XNNPACK")
    return {bias: optimize_step_by_step(program(bias), rounds=1) for bias in (True, False)}


def test_rows_are_the_passes_in_order(steps):
    names = ["eager", "traced", "CONV_BN_FUSION", "fuse()", "+ INSERT_FOLD_PREPACK_OPS", "+ HOIST_CONV_PACKED_PARAMS",
             "+ REMOVE_DROPOUT", "+ FUSE_ADD_RELU", "+ channels-last frame"]  # fmt: skip
    for rows in steps.values():
        assert [row["pass"] for row in rows] == names
        assert all(row["median_ms"] > 0 and row["what"] and "\n" not in row["what"] for row in rows)
    from torch.utils.mobile_optimizer import MobileOptimizerType

    known = {name for name in MobileOptimizerType.__members__ if "VULKAN" not in name}
    assert known == set(PASSES)


def test_graphs_hold_what_each_pass_left(steps):
    """Counted by hand from `Net`: 2 convolutions, 2 norms, 3 clamps of which one follows an addition, 1 linear layer."""
    nodes = {row["pass"]: row["nodes"] for row in steps[True]}
    kinds = ("conv2d", "batch_norm", "relu", "prepacked conv", "prepacked linear")
    assert nodes["eager"] is None
    assert [nodes["traced"][kind] for kind in kinds] == [2, 2, 3, 0, 0]
    assert [nodes["CONV_BN_FUSION"][kind] for kind in kinds] == [2, 0, 3, 0, 0]
    assert [nodes["fuse()"][kind] for kind in kinds] == [2, 0, 3, 0, 0]
    for name in ("+ INSERT_FOLD_PREPACK_OPS", "+ HOIST_CONV_PACKED_PARAMS", "+ REMOVE_DROPOUT"):
        assert [nodes[name][kind] for kind in kinds] == [0, 0, 1, 2, 1]
    assert [nodes["+ FUSE_ADD_RELU"][kind] for kind in kinds] == [0, 0, 0, 2, 1]  # aten::_add_relu
    assert nodes["traced"]["dropout"] == 1 and nodes["+ FUSE_ADD_RELU"]["dropout"] == 0
    assert nodes["fuse()"]["total"] < nodes["traced"]["total"]


def test_only_the_batch_norm_pass_changes_results_and_only_without_bias(steps):
    """pytorch issue 76807. When this fails, that pass has been mended: say so in the module and the lesson."""
    for bias, rows in steps.items():
        for row in rows:
            wrong = row["pass"] == "CONV_BN_FUSION" and not bias
            assert (
                (row["largest_difference"] > 0.1) if wrong else (row["largest_difference"] < 1e-5)
            ), (bias, row)


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


@needs_xnnpack
def test_the_program_is_left_as_it_was():
    given = program(False)
    before = copy.deepcopy(given.module.state_dict())
    optimize_step_by_step(given, rounds=1)
    assert all(
        torch.equal(value, before[name]) for name, value in given.module.state_dict().items()
    )
    assert any(isinstance(part, nn.BatchNorm2d) for part in given.module.modules())


@needs_xnnpack
def test_the_shipped_model_survives_all_passes_and_loses_its_clamps():
    model = MobileInst.from_pretrained("shapes-tiny")
    fused = make_programs(copy.deepcopy(model).fuse(), (64, 128), "features")[0]
    optimized, frame = optimize(trace(channels_last_frame(fused))), fused.examples[1]["frame"]
    nodes = count_nodes(optimized)
    assert nodes["prepacked conv"] > 50 and nodes["conv2d"] == nodes["batch_norm"] == 0
    with torch.inference_mode():
        encoded = model.encode(frame)
        for got, want in zip(optimized(frame), (encoded.x6, encoded.x_mask), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


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
    assert seen["frame"].stride() == (3 * 64 * 64, 1, 64 * 3, 3) and torch.equal(
        seen["frame"], frame
    )
    without = make_programs(tiny, (64, 64), "masks")[0]
    assert channels_last_frame(without) is without


def test_table(capsys, steps):
    print_steps(steps[False])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 9 and "batch_norm" in lines[0] and "ms" in lines[0]
    assert lines[2].split()[:4] == ["traced", "2", "2", "3"]
    assert lines[1].split()[:-2] == ["eager", *"-" * 7]  # no graph, so nothing to count
    assert lines[12].startswith("CONV_BN_FUSION: folds")
    assert len({len(line) for line in lines[1:10]}) == 1  # columns


def test_bad_input_and_a_torch_without_xnnpack(monkeypatch):
    with pytest.raises(ValueError, match="rounds is 0"):
        optimize_step_by_step(program(True), rounds=0)
    monkeypatch.setattr(torch._C, "_is_xnnpack_enabled", lambda: False)
    for call in (
        lambda: optimize(trace(program(True))),
        lambda: optimize_step_by_step(program(True)),
    ):
        with pytest.raises(
            ImportError, match="without XNNPACK.*pip install.*--format executorch"
        ) as error:
            call()
        assert "\n" not in str(error.value) and torch.__version__ in str(error.value)
