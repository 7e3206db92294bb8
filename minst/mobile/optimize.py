"""What PyTorch's mobile optimiser does to a program, one pass at a time (paper: latency on one mobile core).

    traced graph -> fold batch norms -> freeze -> XNNPACK convolutions, clamps inside -> weights to the top -> clean up
                    CONV_BN_FUSION               INSERT_FOLD_PREPACK_OPS   HOIST_CONV_PACKED_PARAMS   the other two

`optimize_step_by_step` runs `optimize_for_mobile` with one pass more at a time and says of each what is left in the
graph, how far the outputs are from eager PyTorch, and the time.

Deviation: CONV_BN_FUSION is not trusted. In a traced module it scales the weights of a convolution without bias and
    loses the bias that it should add: other results, no message (pytorch issue 76807). Batch norms are folded before
    tracing, by `MobileInst.fuse()`; the pass then finds none.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import copy
import importlib
import time
from collections import Counter
from statistics import median

import torch
from torch import Tensor, nn

from minst.layers import fold_batch_norms
from minst.mobile.programs import Program, largest_difference

__all__ = [
    "KINDS",
    "PASSES",
    "channels_last_frame",
    "check_xnnpack",
    "count_nodes",
    "optimize",
    "optimize_step_by_step",
    "print_steps",
]

# in the order in which `optimize_for_mobile` runs them; its own dropout pass has nothing to do in eval mode
PASSES = {
    "CONV_BN_FUSION": "folds batch norms, but for a traced convolution without bias loses the bias it should add",
    "INSERT_FOLD_PREPACK_OPS": "convolutions and linear layers become XNNPACK's, weights packed once, clamps inside",
    "HOIST_CONV_PACKED_PARAMS": "moves packed weights to the top module",
    "REMOVE_DROPOUT": "removes dropout",
    "FUSE_ADD_RELU": "joins an addition and the ReLU after it",
}
KINDS = {
    "conv2d": ("aten::conv2d", "aten::_convolution"),
    "batch_norm": ("aten::batch_norm",),
    "relu": ("aten::relu", "aten::relu_", "aten::relu6", "aten::hardtanh", "aten::hardtanh_"),
    "prepacked conv": ("prepacked::conv2d_clamp_run",),
    "prepacked linear": ("prepacked::linear_clamp_run",),
    "dropout": ("aten::dropout", "aten::dropout_", "aten::feature_dropout"),
}


def optimize(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """All passes of `optimize_for_mobile` on a traced or scripted module; ImportError where torch has no XNNPACK."""
    return _optimized(module, list(PASSES))


class _ChannelsLastFrame(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.outputs = module, module.outputs

    def forward(self, frame: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.module(frame.contiguous(memory_format=torch.channels_last), *others)


def channels_last_frame(program: Program) -> Program:
    """The program with its frame (1, 3, H, W) turned to channels-last in memory first; shapes and values stay.

    A program without a frame is returned as it is.
    """
    if "frame" not in program.inputs:
        return program
    return program._replace(module=_ChannelsLastFrame(program.module).eval())


def check_xnnpack() -> None:
    """ImportError, which says what to do, where the installed torch cannot run `optimize_for_mobile`."""
    if not importlib.import_module("torch.backends.xnnpack").enabled:
        raise ImportError(
            f"torch {torch.__version__} is built without XNNPACK (so are all wheels from 2.13 on: pytorch issue 189532, "
            "PR 185297), which optimize_for_mobile needs: pip install 'torch>=2.12,<2.13' 'torchvision>=0.27,<0.28', or "
            "export with --format executorch, onnx or torchscript"
        )


def optimize_step_by_step(program: Program, rounds: int = 10) -> list[dict]:
    """The passes, one more a row, of a program whose batch norms are not folded; the program is not changed.

    Returns rows {"pass", "what": one line, "nodes": {kind of `KINDS` | "total": int} or None for eager modules,
    "largest_difference": to eager over all examples, relative to an output's largest value (at least 1), "median_ms"}.
    Rows: eager; traced and frozen; CONV_BN_FUSION alone; then, batch norms folded before tracing, one pass after
    another, at last with `channels_last_frame`. All are timed in turns, `rounds` times (after two to warm up), on as
    many threads as torch has.
    Raises ValueError for fewer than one round, ImportError as `check_xnnpack`.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    check_xnnpack()
    steps = _steps(program)
    times = _times([module for _, _, module in steps], program, rounds)
    return [
        {
            "pass": name,
            "what": what,
            "nodes": count_nodes(module) if isinstance(module, torch.jit.ScriptModule) else None,
            "largest_difference": _difference(module, program),
            "median_ms": ms,
        }
        for (name, what, module), ms in zip(steps, times)
    ]


def print_steps(rows: list[dict]) -> None:
    """The rows of `optimize_step_by_step` as a table."""
    width = max(len(row["pass"]) for row in rows)
    kinds = [*KINDS, "total"]
    print(
        f"{'':{width}}"
        + "".join(f"{kind:>{len(kind) + 2}}" for kind in kinds)
        + "  difference        ms"
    )
    for row in rows:
        nodes = row["nodes"] or dict.fromkeys(kinds, "")
        counts = "".join(f"{nodes[kind]:>{len(kind) + 2}}" for kind in kinds)
        print(
            f"{row['pass']:{width}}{counts}{row['largest_difference']:12.1e}{row['median_ms']:10.2f}"
        )
    for row in rows:
        print(f"{row['pass']}: {row['what']}")


def count_nodes(module: torch.jit.ScriptModule) -> dict[str, int]:
    """How many operations of every kind of `KINDS` a frozen module's graph holds, and all ("total")."""
    found = Counter(node.kind() for node in _nodes(module.graph))
    return {kind: sum(found[name] for name in names) for kind, names in KINDS.items()} | {
        "total": found.total()
    }


def _steps(program: Program) -> list[tuple[str, str, nn.Module]]:
    """(name, what it does, module) of every row."""
    from minst.mobile.export import trace  # export imports this module, too

    folded = program._replace(module=fold_batch_norms(copy.deepcopy(program.module)))
    plain, fused = trace(program), trace(folded)
    first, *others = PASSES
    steps = [
        ("eager", "PyTorch as it is", program.module),
        ("traced", "one graph with constant weights, no pass yet", _optimized(plain, [])),
        (first, PASSES[first], _optimized(plain, [first])),
        (
            "fuse()",
            "batch norms folded by minst before tracing, in place of that pass",
            _optimized(fused, []),
        ),
    ]
    for i, name in enumerate(others, 1):
        steps.append((f"+ {name}", PASSES[name], _optimized(fused, others[:i])))
    turned = trace(channels_last_frame(folded))
    return [
        *steps,
        (
            "+ channels-last frame",
            "turns the frame to NHWC once, for all convolutions",
            optimize(turned),
        ),
    ]


def _optimized(module: torch.jit.ScriptModule, passes: list[str]) -> torch.jit.ScriptModule:
    """`optimize_for_mobile` with these passes alone; it freezes the module in any case."""
    from torch.utils.mobile_optimizer import MobileOptimizerType, optimize_for_mobile

    check_xnnpack()
    return optimize_for_mobile(
        module, {getattr(MobileOptimizerType, name) for name in PASSES if name not in passes}
    )


def _nodes(block):
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@torch.inference_mode()
def _times(modules: list[nn.Module], program: Program, rounds: int) -> list[float]:
    """Median milliseconds of every module, measured in turns."""
    ms = [[] for _ in modules]
    inputs = tuple(program.inputs.values())
    for i in range(2 + rounds):
        for k in range(len(modules)):
            k = (k + i) % len(modules)  # the order turns: nobody always follows the same neighbour
            start = time.perf_counter()
            modules[k](*inputs)
            ms[k].append(1e3 * (time.perf_counter() - start))
    return [median(row[2:]) for row in ms]


def _difference(module: nn.Module, program: Program) -> float:
    """The `largest_difference` over outputs and examples."""
    other, worst = program._replace(module=module), 0.0
    for example in program.examples:
        for want, got in zip(program.run(*example.values()), other.run(*example.values())):
            worst = max(worst, largest_difference(want, got))
    return worst
