"""What PyTorch's mobile optimiser does to a program, one pass at a time (paper: latency).

    traced graph
        CONV_BN_FUSION             folds batch norms (in place of it: `MobileInst.fuse()`)
        INSERT_FOLD_PREPACK_OPS    XNNPACK convolutions, clamps inside
        HOIST_CONV_PACKED_PARAMS   weights to the top
        REMOVE_DROPOUT, FUSE_ADD_RELU

`optimize_step_by_step` runs `optimize_for_mobile` with one pass more at a time and says of each
what is left in the graph, how far the outputs are from eager PyTorch, and the time.

Deviation: CONV_BN_FUSION is not trusted. In a traced module it scales the weights of a convolution
    without bias and loses the bias that it should add: other results, no message (pytorch issue
    76807). Batch norms are folded before tracing; the pass then finds none.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from statistics import median

import torch
from torch import Tensor, nn

from minst.layers import fold_batch_norms
from minst.mobile.programs import Program
from minst.mobile.timing import milliseconds, table, turns

__all__ = [
    "KINDS",
    "PASSES",
    "channels_last_frame",
    "check_xnnpack",
    "count_nodes",
    "optimize",
    "optimize_step_by_step",
    "print_steps",
    "quiet",
    "trace",
]

# in the order in which `optimize_for_mobile` runs them; dropout has nothing to do in eval mode
PASSES = {
    "CONV_BN_FUSION": "folds batch norms, but for a traced convolution without bias loses the bias "
    "it should add",
    "INSERT_FOLD_PREPACK_OPS": "convolutions and linear layers become XNNPACK's, weights packed "
    "once, clamps inside",
    "HOIST_CONV_PACKED_PARAMS": "moves packed weights to the top module",
    "REMOVE_DROPOUT": "removes dropout",
    "FUSE_ADD_RELU": "joins an addition and the ReLU after it",
}
RELUS = ("aten::relu", "aten::relu_", "aten::relu6", "aten::hardtanh", "aten::hardtanh_")
KINDS = {
    "conv2d": ("aten::conv2d", "aten::_convolution"),
    "batch_norm": ("aten::batch_norm",),
    "relu": RELUS,
    "prepacked conv": ("prepacked::conv2d_clamp_run",),
    "prepacked linear": ("prepacked::linear_clamp_run",),
    "dropout": ("aten::dropout", "aten::dropout_", "aten::feature_dropout"),
}


def trace(program: Program) -> torch.jit.ScriptModule:
    """The program as TorchScript, for its shapes."""
    with quiet(), torch.no_grad():
        return torch.jit.trace(program.module, tuple(program.inputs.values()), check_trace=False)


def optimize(
    module: torch.jit.ScriptModule, passes: tuple[str, ...] = tuple(PASSES)
) -> torch.jit.ScriptModule:
    """`optimize_for_mobile` with these passes alone on a traced or scripted module.

    The module is frozen in any case. Raises ImportError where torch has no XNNPACK.
    """
    from torch.utils.mobile_optimizer import MobileOptimizerType, optimize_for_mobile

    check_xnnpack()
    left_out = {getattr(MobileOptimizerType, name) for name in PASSES if name not in passes}
    return optimize_for_mobile(module, left_out)


class _ChannelsLastFrame(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.outputs = module, module.outputs

    def forward(self, frame: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.module(frame.contiguous(memory_format=torch.channels_last), *others)


def channels_last_frame(program: Program) -> Program:
    """The program with its frame (1, 3, H, W) turned to channels-last in memory first.

    Shapes and values stay. A program without a frame is returned as it is.
    """
    if "frame" not in program.inputs:
        return program
    return program._replace(module=_ChannelsLastFrame(program.module).eval())


def check_xnnpack() -> None:
    """ImportError, which says what to do, where torch cannot run `optimize_for_mobile`."""
    if not importlib.import_module("torch.backends.xnnpack").enabled:
        raise ImportError(
            f"torch {torch.__version__} is built without XNNPACK (so are all wheels from 2.13 on: "
            "pytorch issue 189532, PR 185297), which optimize_for_mobile needs: pip install "
            "'torch>=2.12,<2.13' 'torchvision>=0.27,<0.28', or export with --format executorch, "
            "onnx or torchscript"
        )


def optimize_step_by_step(program: Program, rounds: int = 10) -> list[dict]:
    """The passes, one more a row, of a program whose batch norms are not folded; it stays as it is.

    Returns rows {"pass", "what": one line, "nodes": {kind of `KINDS` | "total": int} or None for
    eager modules, "largest_difference": to eager over all examples, relative to an output's largest
    value (at least 1), "median_ms"}.
    Rows: eager; traced and frozen; CONV_BN_FUSION alone; then, batch norms folded before tracing,
    one pass after another, at last with `channels_last_frame`. All are timed in turns, `rounds`
    times (after two to warm up), on as many threads as torch has.
    Raises ValueError for fewer than one round, ImportError as `check_xnnpack`.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    check_xnnpack()
    rows = [
        {
            "pass": name,
            "what": what,
            "nodes": count_nodes(module) if isinstance(module, torch.jit.ScriptModule) else None,
            "largest_difference": max(
                program.differences(program._replace(module=module).run).values()
            ),
            "module": module,
            "ms": [],
        }
        for name, what, module in _steps(program)
    ]
    with torch.inference_mode():
        for row in turns(rows, 2 + rounds):
            row["ms"].append(milliseconds(row["module"], *program.inputs.values()))
    for row in rows:
        row["median_ms"] = median(row.pop("ms")[2:])
        del row["module"]
    return rows


def print_steps(rows: list[dict]) -> None:
    """The rows of `optimize_step_by_step` as a table."""
    columns = {kind: (kind, "d") for kind in (*KINDS, "total")}
    columns |= {"difference": ("largest_difference", ".1e"), "ms": ("median_ms", ".2f")}
    print(table("", columns, [(row["pass"], {**row, **(row["nodes"] or {})}) for row in rows]))
    for row in rows:
        print(f"{row['pass']}: {row['what']}")


def count_nodes(module: torch.jit.ScriptModule) -> dict[str, int]:
    """How many operations of each of `KINDS` a frozen module's graph holds, and all ("total")."""
    found = Counter(node.kind() for node in _nodes(module.graph))
    counts = {kind: sum(found[name] for name in names) for kind, names in KINDS.items()}
    return counts | {"total": found.total()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own insides.

    Deprecated names, shapes that a trace makes constant: nothing that a user could mend.
    """
    names = ("torch", "torch.onnx", "torch.export", "onnxscript", "torchao", "executorch", "root")
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


def _steps(program: Program) -> list[tuple[str, str, nn.Module]]:
    """(name, what it does, module) of every row."""
    folded = program._replace(module=fold_batch_norms(copy.deepcopy(program.module)))
    plain, fused = trace(program), trace(folded)
    turned = trace(channels_last_frame(folded))
    first, *others = PASSES
    before_tracing = "batch norms folded by minst before tracing, in place of that pass"
    steps = [
        ("eager", "PyTorch as it is", program.module),
        ("traced", "one graph with constant weights, no pass yet", optimize(plain, ())),
        (first, PASSES[first], optimize(plain, (first,))),
        ("fuse()", before_tracing, optimize(fused, ())),
    ]
    for i, name in enumerate(others, 1):
        steps.append((f"+ {name}", PASSES[name], optimize(fused, tuple(others[:i]))))
    once = "turns the frame to NHWC once, for all convolutions"
    return [*steps, ("+ channels-last frame", once, optimize(turned))]


def _nodes(block):
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
