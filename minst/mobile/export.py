"""From PyTorch to a file that a device runs, in four formats, each compared before it is kept.

    weights -> MobileInst -> fuse() -> programs (key, reuse | features | masks) -> DIR/NAME.ptl, ...
                                                                                     |
    reloaded and run on real frames: |difference to unfused eager| <= 1e-4 of the largest output

    lite         trace -> optimize_for_mobile (prepacked XNNPACK convolutions), bundled frames; the
                 frame is turned to channels-last first, the order in which XNNPACK computes
    torchscript  trace -> freeze
    executorch   torch.export -> edge dialect -> XNNPACK delegate
    onnx         torch.onnx.export

Assumption: batch norms are folded before export; no quantisation, no half precision, as in the
    paper.
Deviation: CONV_BN_FUSION, the optimiser's own folding, is left out. In a traced module it loses the
    bias of a convolution without one: other results, no message (pytorch issue 76807).

Lesson: notebooks/08_on_device_latency.ipynb
"""

import copy
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import minst
from minst.data.files import replacing
from minst.mobile.programs import Program, make_programs
from minst.mobile.runtime import (
    FORMAT_VERSION,
    FORMATS,
    METADATA,
    METADATA_METHOD,
    load_program,
    quiet,
    require,
    sealed,
)
from minst.model import MobileInst

__all__ = ["TOLERANCE", "channels_last_frame", "export", "parity"]

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
        format: one of `FORMATS`.
        out: the folder. A file that was there is replaced only by one with equal outputs.
        progress: told a line about every file.
    Raises ValueError (unknown format or part, a size out of range, an output that differs),
    OSError (nothing can be written there, the disk is full), ImportError (what the installed
    packages cannot do).
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(FORMATS)}")
    require(format)
    model, name = weights, "a model"
    if not isinstance(model, MobileInst):
        model, name = MobileInst.from_pretrained(weights), Path(weights).name
    truth = make_programs(model, size, part)
    fused = make_programs(copy.deepcopy(model).fuse(), size, part)
    out, written = _folder(out), []
    for program, eager in zip(fused, truth, strict=True):
        # the frames are the same; kernels and features, too, come from the model as it is
        program = program._replace(examples=eager.examples)
        path = out / f"{program.name}{FORMATS[format].suffix}"
        with quiet():
            body = WRITERS[format](program, metadata(program, model, name, size))
        with replacing(path) as new:
            new.write_bytes(body)
            differences = parity(new, eager)
        written.append(path)
        if progress:
            worst, size_mb = max(differences, key=differences.get), path.stat().st_size / 1e6
            said = f"largest difference {differences[worst]:.1e} ({worst})"
            progress(f"{path}  {size_mb:.1f} MB, {said}")
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


def parity(path: str | Path, eager: Program) -> dict[str, float]:
    """{output: `Program.differences` between the file and the eager program over its examples}.

    Raises ValueError above `TOLERANCE`.
    """
    worst = eager.differences(load_program(path))
    for name, difference in worst.items():
        if difference > TOLERANCE:
            what = f"{name} of {eager.name!r} differs from eager PyTorch by {difference:.1e}"
            allowed = f"of its largest value, {TOLERANCE:.0e} is allowed"
            raise ValueError(f"export: {what} {allowed}; nothing was written")
    return worst


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


def _folder(out: str | Path) -> Path:
    out = Path(out)
    if out.is_file() or out.suffix in [about.suffix for about in FORMATS.values()]:
        what = f"key{out.suffix}, reuse{out.suffix}, ... go into a folder"
        raise ValueError(f"export: {out} is the name of a file; {what}")
    out.mkdir(parents=True, exist_ok=True)
    return out


# All writers give bytes: torch's own, told a file name, end the process where the disk is full.


def _trace(program: Program) -> torch.jit.ScriptModule:
    with torch.no_grad():
        return torch.jit.trace(program.module, tuple(program.inputs.values()), check_trace=False)


def _lite(program: Program, about: dict) -> bytes:
    from torch.utils.bundled_inputs import InflatableArg, augment_model_with_bundled_inputs
    from torch.utils.mobile_optimizer import MobileOptimizerType, optimize_for_mobile

    def packed(name: str, value: Tensor) -> InflatableArg:
        if name == "frame":  # as bytes, a quarter of its size
            return InflatableArg(value.mul(255).round().to(torch.uint8), "{}.float().div(255)")
        return InflatableArg(value.clone(), "{}")

    traced = _trace(channels_last_frame(program))
    module = optimize_for_mobile(traced, {MobileOptimizerType.CONV_BN_FUSION})
    # a benchmarker then runs on real frames, not on ones
    bundled = [tuple(packed(*item) for item in example.items()) for example in program.examples]
    augment_model_with_bundled_inputs(module, bundled)
    return module._save_to_buffer_for_lite_interpreter(_extra_files={METADATA: json.dumps(about)})


def _torchscript(program: Program, about: dict) -> bytes:
    module = torch.jit.freeze(_trace(program))
    return module.save_to_buffer(_extra_files={METADATA: json.dumps(about)})


def _executorch(program: Program, about: dict) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    # the compiler of .pte files looks for `flatc` on PATH; pip puts it beside the interpreter
    search = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), search])
    try:
        graph = torch.export.export(program.module, tuple(program.inputs.values()))
        edge = to_edge_transform_and_lower(
            graph,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA_METHOD: json.dumps(about)},
        )
        return sealed(bytes(edge.to_executorch().buffer))
    finally:
        os.environ["PATH"] = search


def _onnx(program: Program, about: dict) -> bytes:
    import onnx

    model = torch.onnx.export(
        program.module,
        tuple(program.inputs.values()),
        input_names=list(program.inputs),
        output_names=list(program.outputs),
        dynamo=True,
        verbose=False,
    ).model_proto
    entry = onnx.StringStringEntryProto(key=METADATA, value=json.dumps(about))
    model.metadata_props.append(entry)
    return sealed(model.SerializeToString())


# format -> function(program, metadata): the bytes of its file, unchecked
WRITERS = {"lite": _lite, "torchscript": _torchscript, "executorch": _executorch, "onnx": _onnx}
