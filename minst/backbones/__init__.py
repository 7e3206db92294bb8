"""Backbones: frames (B, 3, H, W) -> local X3, X4, X5 (1/8, 1/16, 1/32) and a global X6 (1/64).

Lesson: notebooks/02_backbone.ipynb
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minst.backbones.mobilenet import MOBILENET_WIDTHS, MobileNetV2
from minst.backbones.seaformer import SEAFORMER_SIZES, SeaFormer
from minst.backbones.topformer import TOPFORMER_SIZES, TopFormer

__all__ = ["NAMES", "build", "load_backbone_weights"]

NAMES = (*TOPFORMER_SIZES, *SEAFORMER_SIZES, *MOBILENET_WIDTHS)


def build(name: str, injection: bool = True, token_stride: int = 64) -> nn.Module:
    """One of `NAMES` with random weights: normalised frames (B, 3, H, W) -> `BackboneFeatures`.

    injection: of X6 into X3..X5, in TopFormer alone. token_stride: of X6, 64 (paper) or 32 (small
    frames). `.out_channels` = (C3, C4, C5, C6). ValueError for another name or stride.
    """
    if token_stride not in (32, 64):
        raise ValueError(f"token_stride is {token_stride!r}, but X6 exists at 32 or 64 only")
    if name in TOPFORMER_SIZES:
        return TopFormer(**TOPFORMER_SIZES[name], injection=injection, token_stride=token_stride)
    if name in SEAFORMER_SIZES:
        return SeaFormer(**SEAFORMER_SIZES[name], token_stride=token_stride)
    if name in MOBILENET_WIDTHS:
        return MobileNetV2(token_stride, MOBILENET_WIDTHS[name])
    raise ValueError(f"backbone {name!r} is unknown; choose one of {', '.join(NAMES)}")


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Fill a backbone of `build` from a checkpoint: .safetensors, or tensors that torch has saved.

    Returns as `load_state_dict` does missing_keys, which keep their values, and unexpected_keys.
    Raises FileNotFoundError, or ValueError that names the first key at fault; nothing is changed.
    """
    state = _read(Path(path))
    # A part that no ImageNet checkpoint has may be missing, but only as a whole.
    absent = not any(key.startswith(backbone.optional_keys) for key in state)
    for key, value in backbone.state_dict().items():
        found = tuple(state[key].shape) if key in state else "missing"
        if found != tuple(value.shape) and not (absent and key.startswith(backbone.optional_keys)):
            wrong = f"{key} is {found} in the file, {tuple(value.shape)} in the backbone"
            raise ValueError(f"{path}: {wrong}; is it a checkpoint of another backbone or size?")
    return backbone.load_state_dict(state, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without what training scripts put around them and before the keys."""
    path.stat()  # A file that is not there says so itself.
    try:
        # Code is never run. A Namespace, such as the arguments of a training, only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            safe = path.suffix == ".safetensors"
            found = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
        for wrapping in ("model", "state_dict_ema", "state_dict"):
            if isinstance(found.get(wrapping), dict):
                found = found[wrapping]
        tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
        state = {re.sub(r"^((module|backbone)\.)+", "", key): tensors[key] for key in tensors}
    except Exception as error:  # What a damaged file raises depends on the byte that is wrong.
        what = "damaged, or not tensors alone; convert it to .safetensors where you trust it"
        raise ValueError(f"{path} is not readable as weights: {what}") from error
    if len(state) < len(tensors):
        raise ValueError(f"{path} holds a key twice, with and without a prefix; keep one of them")
    return state
