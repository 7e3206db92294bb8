"""From PyTorch to a file that a device runs, in four formats, each compared with PyTorch before it is kept.

    weights -> MobileInst -> fuse() -> programs (key, reuse | features | masks) -> DIR/NAME.ptl | .pt | .pte | .onnx
                                                                                 |
                   reloaded and run on real frames: |difference to unfused eager| <= 1e-4 of the largest output

    lite         .ptl   trace -> optimize_for_mobile (prepacked XNNPACK convolutions) -> lite interpreter, bundled frames;
                        the frame is turned to channels-last first, the order in which XNNPACK computes
    torchscript  .pt    trace -> freeze
    executorch   .pte   torch.export -> edge dialect -> XNNPACK delegate
    onnx         .onnx  torch.onnx.export, for ONNX Runtime on phones, desktops and in the browser

Every file carries metadata as JSON (`metadata`): classes, frame size, normalisation, inputs and outputs, versions.

Assumption: batch norms are folded before export; no quantisation, no half precision, as in the paper.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import minst
from minst.mobile.programs import Program, largest_difference, make_programs
from minst.mobile.runtime import (
    FORMAT_VERSION,
    METADATA,
    METADATA_METHOD,
    SUFFIXES,
    load_program,
    sealed,
)
from minst.model import MobileInst

__all__ = ["TOLERANCE", "export", "metadata", "parity", "write_program"]

TOLERANCE = (
    1e-4  # largest difference allowed, relative to the largest value of an output (at least 1)
)
POSTPROCESSING = (
    "outside: score = sqrt(sigmoid(class) * sigmoid(objectness)), threshold, association between key frames, "
    "bilinear upsampling of the mask logits by 8 (align_corners false), cut at logit 0"
)


def export(
    weights: str | Path | MobileInst = "shapes-tiny",
    format: str = "lite",
    out: str | Path = "minst-export",
    size: tuple[int, int] = (192, 256),
    part: str = "full",
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write the programs of `part` for frames of `size` (H, W) into the folder `out`; returns the files.

    weights: shipped ones by name, a folder of save_pretrained, or a model. format: "lite" | "torchscript" |
    "executorch" | "onnx". progress: told a line about every file. A file that was there is replaced only by one that
    passed. Raises ValueError (unknown format or part, a size below 64 x 64, an output that differs), OSError (nothing
    can be written there), ModuleNotFoundError or ImportError (what the installed packages cannot do).
    """
    writer, suffix = _writer(format), SUFFIXES[format]
    model = weights if isinstance(weights, MobileInst) else MobileInst.from_pretrained(weights)
    name = "a model" if isinstance(weights, MobileInst) else Path(weights).name
    truth = make_programs(model, size, part)
    out = _folder(out)
    written = []
    for program, eager in zip(make_programs(copy.deepcopy(model).fuse(), size, part), truth):
        # the frames are the same; kernels and features, too, come from the model as it is
        program = program._replace(examples=eager.examples)
        path = out / f"{program.name}{suffix}"
        with _replacing(path) as temporary:
            writer(program, metadata(program, model, name, size), temporary)
            differences = parity(temporary, eager)
        written.append(path)
        if progress:
            worst = max(differences, key=differences.get)
            progress(
                f"{path}  {path.stat().st_size / 1e6:.1f} MB, largest difference {differences[worst]:.1e} ({worst})"
            )
    return written


def metadata(program: Program, model: MobileInst, weights: str, size: tuple[int, int]) -> dict:
    """What a file says of itself: plain values, the same in every format."""
    config = model.config
    return {
        "format_version": FORMAT_VERSION,
        "minst": minst.__version__,
        "torch": torch.__version__,
        "program": program.name,
        "weights": weights,
        "size": list(size),
        "classes": list(config.class_names) or [str(k) for k in range(config.num_classes)],
        "inputs": {name: list(value.shape) for name, value in program.inputs.items()},
        "outputs": {
            name: list(x.shape)
            for name, x in zip(program.outputs, program.run(*program.inputs.values()))
        },
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
    loaded, worst = load_program(path), dict.fromkeys(eager.outputs, 0.0)
    for example in eager.examples:
        for name, want, got in zip(
            eager.outputs, eager.run(*example.values()), loaded(*example.values())
        ):
            if got.shape != want.shape or not torch.isfinite(got).all():
                raise ValueError(
                    f"export: {name} is {tuple(got.shape)} in the file, {tuple(want.shape)} eagerly, or not finite"
                )
            worst[name] = max(worst[name], largest_difference(want, got))
    for name, difference in worst.items():
        if difference > tolerance:
            raise ValueError(
                f"export: {name} of {eager.name!r} differs from eager PyTorch by {difference:.1e} of its largest value; "
                f"{tolerance:.0e} is allowed: this runtime does not compute this model, nothing was written"
            )
    return worst


def write_program(program: Program, format: str, path: str | Path, about: dict) -> None:
    """Write one program as it is, unchecked: for variants whose outputs may differ (`parity` tells by how much)."""
    with _replacing(Path(path)) as temporary:
        _writer(format)(program, about, temporary)


def trace(program: Program) -> torch.jit.ScriptModule:
    """The program as TorchScript, for its shapes."""
    with _quiet(), torch.no_grad():
        return torch.jit.trace(program.module, tuple(program.inputs.values()), check_trace=False)


def bundle(module: torch.jit.ScriptModule, examples: list[dict[str, Tensor]]) -> None:
    """Put the examples into a TorchScript module: a benchmarker then runs on real frames instead of ones."""
    from torch.utils import bundled_inputs

    packed = [
        tuple(_packed(name, value) for name, value in example.items()) for example in examples
    ]
    with _quiet():
        bundled_inputs.augment_model_with_bundled_inputs(module, packed)


def _packed(name: str, value: Tensor):
    """A frame as bytes, a quarter of its size; anything else as it is."""
    from torch.utils.bundled_inputs import InflatableArg

    if name != "frame":
        return InflatableArg(value.clone(), "{}")
    return InflatableArg(value.mul(255).round().to(torch.uint8), "{}.float().div(255)")


def _folder(out: str | Path) -> Path:
    out = Path(out)
    if out.is_file() or out.suffix in SUFFIXES.values():
        raise ValueError(
            f"export: {out} is the name of a file; key{out.suffix}, reuse{out.suffix}, ... go into a folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _writer(format: str) -> Callable[[Program, dict, Path], None]:
    writers = {"lite": _lite, "torchscript": _torchscript, "executorch": _executorch, "onnx": _onnx}
    if format not in writers:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(writers)}")
    return writers[format]


def _lite(program: Program, about: dict, path: Path) -> None:
    from minst.mobile.optimize import channels_last_frame, optimize

    module = optimize(trace(channels_last_frame(program)))
    bundle(module, program.examples)
    with _quiet():
        module._save_for_lite_interpreter(str(path), _extra_files={METADATA: json.dumps(about)})


def _torchscript(program: Program, about: dict, path: Path) -> None:
    with _quiet():
        torch.jit.freeze(trace(program)).save(str(path), _extra_files={METADATA: json.dumps(about)})


def _executorch(program: Program, about: dict, path: Path) -> None:
    # the compiler of .pte files looks for `flatc` on PATH; pip puts it beside the interpreter
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with _quiet(), _environment(PATH=search):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        graph = torch.export.export(program.module, tuple(program.inputs.values()))
        edge = to_edge_transform_and_lower(
            graph,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA_METHOD: json.dumps(about)},
        )
        path.write_bytes(sealed(bytes(edge.to_executorch().buffer)))


def _onnx(program: Program, about: dict, path: Path) -> None:
    import onnx
    import onnxscript  # noqa: F401  torch.onnx needs it, and says so less clearly

    with _quiet():
        graph = torch.onnx.export(
            program.module,
            tuple(program.inputs.values()),
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamo=True,
            verbose=False,
        )
    model = graph.model_proto
    model.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=json.dumps(about)))
    path.write_bytes(sealed(model.SerializeToString()))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when all went well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters' warnings are about their own insides: deprecated names, shapes that a trace makes constant."""
    loggers = [
        logging.getLogger(name)
        for name in (
            "torch",
            "torch.onnx",
            "torch.export",
            "onnxscript",
            "torchao",
            "executorch",
            "root",
        )
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
