"""From PyTorch to a file that a device runs, in four formats, each compared before it is kept.

    weights -> MobileInst -> fuse() -> programs (key, reuse | features | masks) -> DIR/NAME.ptl, ...
                                                                                     |
    reloaded and run on real frames: |difference to unfused eager| <= 1e-4 of the largest output

    lite         .ptl   trace -> optimize_for_mobile (prepacked XNNPACK convolutions) -> lite
                        interpreter, bundled frames; the frame is turned to channels-last first,
                        the order in which XNNPACK computes
    torchscript  .pt    trace -> freeze
    executorch   .pte   torch.export -> edge dialect -> XNNPACK delegate
    onnx         .onnx  torch.onnx.export, for ONNX Runtime on phones, desktops and in the browser

Every file carries metadata as JSON (`metadata`): classes, frame size, normalisation, inputs and
outputs, versions.

Assumption: batch norms are folded before export; no quantisation, no half precision, as in the
    paper.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import minst
from minst.mobile.optimize import channels_last_frame, optimize, quiet, trace
from minst.mobile.programs import Program, make_programs
from minst.mobile.runtime import (
    FORMAT_VERSION,
    METADATA,
    METADATA_METHOD,
    SUFFIXES,
    load_program,
    sealed,
)
from minst.model import MobileInst

__all__ = ["TOLERANCE", "WRITERS", "export", "metadata", "parity"]

# Largest difference allowed, relative to the largest value of an output, at least 1.
TOLERANCE = 1e-4
POSTPROCESSING = (
    "outside: score = sqrt(sigmoid(class) * sigmoid(objectness)), threshold, association between "
    "key frames, bilinear upsampling of the mask logits by 8 (align_corners false), cut at logit 0"
)


def export(
    weights: str | Path | MobileInst = "shapes-tiny",
    format: str = "lite",
    out: str | Path = "minst-export",
    size: tuple[int, int] = (192, 256),
    part: str = "full",
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the programs of `part` for frames of `size` (H, W) into a folder; returns the files.

    Args:
        weights: shipped ones by name, a folder of save_pretrained, or a model.
        format: "lite" | "torchscript" | "executorch" | "onnx".
        out: the folder. A file that was there is replaced only by one that passed.
        progress: told a line about every file.
    Raises ValueError (unknown format or part, a size below 64 x 64, an output that differs),
    OSError (nothing can be written there), ModuleNotFoundError or ImportError (what the installed
    packages cannot do).
    """
    if format not in WRITERS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(WRITERS)}")
    if isinstance(weights, MobileInst):
        model, name = weights, "a model"
    else:
        model, name = MobileInst.from_pretrained(weights), Path(weights).name
    truth = make_programs(model, size, part)
    fused = make_programs(copy.deepcopy(model).fuse(), size, part)
    out, written = _folder(out), []
    for program, eager in zip(fused, truth, strict=True):
        # the frames are the same; kernels and features, too, come from the model as it is
        program = program._replace(examples=eager.examples)
        path = out / f"{program.name}{SUFFIXES[format]}"
        with tempfile.TemporaryDirectory(dir=out, prefix=f".{program.name}-") as unfinished:
            new = Path(unfinished) / path.name
            WRITERS[format](program, metadata(program, model, name, size), new)
            differences = parity(new, eager)
            new.replace(path)
        written.append(path)
        if progress:
            worst = max(differences, key=differences.get)
            progress(
                f"{path}  {path.stat().st_size / 1e6:.1f} MB, "
                f"largest difference {differences[worst]:.1e} ({worst})"
            )
    return written


def metadata(program: Program, model: MobileInst, weights: str, size: tuple[int, int]) -> dict:
    """What a file says of itself: plain values, the same in every format."""
    config, outputs = model.config, program.run(*program.inputs.values())
    return {
        "format_version": FORMAT_VERSION,
        "minst": minst.__version__,
        "torch": torch.__version__,
        "program": program.name,
        "weights": weights,
        "size": list(size),
        "classes": list(config.class_names) or [str(k) for k in range(config.num_classes)],
        "inputs": {name: list(value.shape) for name, value in program.inputs.items()},
        "outputs": {name: list(x.shape) for name, x in zip(program.outputs, outputs, strict=True)},
        "normalisation": {
            "input": "RGB in [0, 1]",
            "inside": True,
            "mean": config.pixel_mean,
            "std": config.pixel_std,
        },
        "postprocessing": POSTPROCESSING,
        "token_stride": config.token_stride,
    }


def parity(path: str | Path, eager: Program, tolerance: float = TOLERANCE) -> dict[str, float]:
    """{output: `largest_difference` between the file and the eager program over its examples}.

    Raises ValueError above `tolerance`.
    """
    worst = eager.differences(load_program(path))
    for name, difference in worst.items():
        if difference > tolerance:
            raise ValueError(
                f"export: {name} of {eager.name!r} differs from eager PyTorch by {difference:.1e} "
                f"of its largest value; {tolerance:.0e} is allowed: this runtime does not compute "
                "this model, nothing was written"
            )
    return worst


def _folder(out: str | Path) -> Path:
    out = Path(out)
    if out.is_file() or out.suffix in SUFFIXES.values():
        raise ValueError(
            f"export: {out} is the name of a file; key{out.suffix}, reuse{out.suffix}, ... "
            "go into a folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _lite(program: Program, about: dict, path: Path) -> None:
    module = optimize(trace(channels_last_frame(program)))
    _bundle(module, program.examples)
    with quiet():
        module._save_for_lite_interpreter(str(path), _extra_files={METADATA: json.dumps(about)})


def _bundle(module: torch.jit.ScriptModule, examples: list[dict[str, Tensor]]) -> None:
    """Put the examples into the module: a benchmarker then runs on real frames, not on ones."""
    from torch.utils.bundled_inputs import InflatableArg, augment_model_with_bundled_inputs

    def packed(name: str, value: Tensor) -> InflatableArg:
        if name == "frame":  # as bytes, a quarter of its size
            return InflatableArg(value.mul(255).round().to(torch.uint8), "{}.float().div(255)")
        return InflatableArg(value.clone(), "{}")

    inputs = [tuple(packed(*item) for item in example.items()) for example in examples]
    with quiet():
        augment_model_with_bundled_inputs(module, inputs)


def _torchscript(program: Program, about: dict, path: Path) -> None:
    with quiet():
        module = torch.jit.freeze(trace(program))
        module.save(str(path), _extra_files={METADATA: json.dumps(about)})


def _executorch(program: Program, about: dict, path: Path) -> None:
    # the compiler of .pte files looks for `flatc` on PATH; pip puts it beside the interpreter
    search = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), search])
    try:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            graph = torch.export.export(program.module, tuple(program.inputs.values()))
            edge = to_edge_transform_and_lower(
                graph,
                partitioner=[XnnpackPartitioner()],
                constant_methods={METADATA_METHOD: json.dumps(about)},
            )
            path.write_bytes(sealed(bytes(edge.to_executorch().buffer)))
    finally:
        os.environ["PATH"] = search


def _onnx(program: Program, about: dict, path: Path) -> None:
    import onnx
    import onnxscript  # noqa: F401  torch.onnx needs it, and says so less clearly

    with quiet():
        graph = torch.onnx.export(
            program.module,
            tuple(program.inputs.values()),
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamo=True,
            verbose=False,
        )
    model = graph.model_proto
    entry = onnx.StringStringEntryProto(key=METADATA, value=json.dumps(about))
    model.metadata_props.append(entry)
    path.write_bytes(sealed(model.SerializeToString()))


# format -> function(program, metadata, path) that writes the program as it is, unchecked
WRITERS = {"lite": _lite, "torchscript": _torchscript, "executorch": _executorch, "onnx": _onnx}
