"""Two savings that the paper does not use, to be tried on the side: 8-bit weights and another order in memory.

    "channels-last"  MobileInst, batch norms folded, channels innermost in memory: same numbers but for rounding
    "int8"           MobileInst, linear layers with 8-bit weights; their inputs are rounded to 8 bits frame by frame
    key.onnx, reuse.onnx --int8_programs--> the same with 8-bit weights in convolutions as well, a quarter in size

Beyond the paper's setting: its latencies are of 32-bit networks. variants_accuracy.py measures what each costs in
accuracy; lesson 08 tells its figures.
"""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from minst.macs import summary
from minst.mobile.runtime import SEAL_KEY, ExportedModel, sealed
from minst.model import MobileInst

__all__ = ["VARIANTS", "int8_programs", "linear_share", "make_variant"]

VARIANTS = ("channels-last", "int8")


def make_variant(model: MobileInst, variant: str) -> MobileInst:
    """A fused copy of `model` as "channels-last" or "int8", in eval mode, for KernelTracker and `evaluate_folder`.

    Raises ValueError for an unknown variant, ImportError where torch has no dynamic quantisation (any more).
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; choose one of {', '.join(VARIANTS)}")
    model = copy.deepcopy(model).fuse()
    if variant == "channels-last":
        return model.to(memory_format=torch.channels_last)
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        raise ImportError(
            f"torch {torch.__version__} has no torch.ao.quantization (deprecated in favour of the package torchao): "
            "pip install 'torch>=2.12,<2.13', or take 8-bit ONNX programs (int8_programs)"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def int8_programs(folder: str | Path, out: str | Path) -> list[Path]:
    """key.onnx and reuse.onnx of `folder` (from `minst export --format onnx`) with 8-bit weights, into `out`.

    Convolutions and matrix products with constant weights; what they are given is rounded to 8 bits at each call.
    Raises as ExportedModel, ValueError when `out` is `folder`, ModuleNotFoundError without onnx and onnxruntime.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ExportedModel(folder, "onnx")  # whether they are there, whole, and belong together
    folder, out = Path(folder), Path(out)
    if out.resolve() == folder.resolve():
        raise ValueError(f"int8: {out} holds the programs to be quantised; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for path in (written := [out / f"{name}.onnx" for name in ("key", "reuse")]):
        graph = onnx.load(folder / path.name)
        kept = [entry for entry in graph.metadata_props if entry.key != SEAL_KEY]
        del graph.metadata_props[:]
        del graph.graph.value_info[:]  # onnxruntime infers shapes itself, and stumbles over torch's
        level = logging.getLogger().level
        logging.getLogger().setLevel(
            logging.ERROR
        )  # it advises a preprocessing that these programs do not need
        try:
            # ONNX Runtime's ConvInteger takes unsigned weights alone
            quantize_dynamic(graph, path, weight_type=QuantType.QUInt8)
        finally:
            logging.getLogger().setLevel(level)
        graph = onnx.load(path)
        del graph.metadata_props[:]
        graph.metadata_props.extend(kept)
        path.write_bytes(sealed(graph.SerializeToString()))
    return written


@torch.inference_mode()
def linear_share(model: MobileInst, size: tuple[int, int] = (640, 640)) -> float:
    """The share of a key frame's multiply-accumulates that lies in linear layers, what "int8" can make faster."""
    macs, model = 0, model.eval()

    def count(layer: nn.Linear, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.in_features

    hooks = [
        part.register_forward_hook(count) for part in model.modules() if isinstance(part, nn.Linear)
    ]
    try:
        model(torch.zeros(1, 3, *size))
    finally:
        for hook in hooks:
            hook.remove()
    return macs / summary(model, size)["total"]["macs"]
