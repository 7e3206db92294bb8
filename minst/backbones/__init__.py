"""Backbones: from a frame (B, 3, H, W) to local features X3, X4, X5 (1/8, 1/16, 1/32) and one global feature X6.

    build(name)                          a backbone with random weights; `.out_channels` = (C3, C4, C5, C6)
    load_backbone_weights(backbone, f)   fills it from a public checkpoint

Lesson: notebooks/02_backbone.ipynb
"""

from __future__ import annotations

import argparse
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import BackboneFeatures
from .mobilenet import MobileNetV2
from .seaformer import SEAFORMER_SIZES, SeaFormer
from .topformer import TOPFORMER_SIZES, TopFormer

__all__ = ["NAMES", "BackboneFeatures", "LoadReport", "build", "load_backbone_weights"]

# mobilenetv2-0.6: as many MACs as the tiny transformers, for a fair comparison (minst.lab)
MOBILENETS = {"mobilenetv2": 1.0, "mobilenetv2-0.6": 0.6}  # name -> width
NAMES = (*(f"topformer-{s}" for s in TOPFORMER_SIZES), *(f"seaformer-{s}" for s in SEAFORMER_SIZES), *MOBILENETS)


def build(name: str, injection: bool = True, token_stride: int = 64) -> nn.Module:
    """Make a backbone: forward(x (B, 3, H, W), normalised) -> `BackboneFeatures`.

    Args:
        name: one of `NAMES`.
        injection: TopFormer's semantic injection of X6 into X3..X5. SeaFormer and MobileNetV2 have none of their
            own and are the same with and without.
        token_stride: X6 at 1/64 of the frame (the paper) or at 1/32 (for small frames).
    """
    if name not in NAMES:
        raise ValueError(f"backbone {name!r} is unknown; choose one of {', '.join(NAMES)}")
    if token_stride not in (32, 64):
        raise ValueError(f"token_stride is {token_stride!r}, but X6 exists at 32 or 64 only")
    family, _, size = name.partition("-")
    if family == "topformer":
        return TopFormer(**TOPFORMER_SIZES[size], injection=injection, token_stride=token_stride)
    if family == "seaformer":
        return SeaFormer(**SEAFORMER_SIZES[size], token_stride=token_stride)
    return MobileNetV2(token_stride, MOBILENETS[name])


class LoadReport(NamedTuple):
    """What `load_backbone_weights` left alone."""

    missing: tuple[str, ...]  # keys of the backbone that the file lacks: these keep their random values
    unexpected: tuple[str, ...]  # keys of the file that the backbone lacks, such as a classifier's


def load_backbone_weights(backbone: nn.Module, path: str | PathLike) -> LoadReport:
    """Fill a backbone of `build` from a checkpoint (.safetensors, or .pth / .pt, of which only tensors are read).

    Weights may be nested under `state_dict_ema` (preferred), `state_dict` or `model`, and keys may start with
    `module.` or `backbone.`. Keys of a classifier or a head are ignored. Missing keys are an error, except those
    of a part that no ImageNet checkpoint has (TopFormer's injection, MobileNetV2's block of X6) as a whole.
    On any error the backbone keeps the weights that it had.
    """
    path = Path(path)
    loaded = _unnest(_read(path), path)
    expected = backbone.state_dict()
    for key, value in expected.items():
        if key in loaded and loaded[key].shape != value.shape:
            there, here = tuple(loaded[key].shape), tuple(value.shape)
            raise ValueError(f"{path}: {key} is {there} in the file, {here} in the backbone; is it another size?")
    missing = tuple(key for key in expected if key not in loaded)
    part = backbone.optional_keys
    tolerated = part is not None and not any(key.startswith(part) for key in loaded)
    lacking = [key for key in missing if not (tolerated and key.startswith(part))]
    if lacking:
        raise ValueError(f"{path}: keys of the backbone are missing ({_some(lacking)}); the file has {_some(loaded)}")
    backbone.load_state_dict(loaded, strict=False)
    return LoadReport(missing, tuple(key for key in loaded if key not in expected))


def _read(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise ValueError(f"{path}: weights are read from .safetensors, .pth or .pt, not from {path.suffix or 'this'}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # training scripts often store their arguments beside the weights; a Namespace only holds values
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on the byte that is wrong
        # PyTorch's first line advises how to run the code all the same; the cause stands in the middle
        said = (str(error).partition("WeightsUnpickler error: ")[2] or str(error)).partition(". Please use")[0]
        reason = (said.strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path}: not readable as weights ({reason}). Either the file is damaged, or it holds pickled code beyond "
            "tensors, which is never run; convert it to .safetensors where you trust it"
        ) from error


def _unnest(loaded: object, path: Path) -> dict[str, Tensor]:
    """Find the dictionary of tensors, without the prefixes that wrappers put before its keys."""
    while isinstance(loaded, dict):
        inner = [loaded[k] for k in ("state_dict_ema", "state_dict", "model") if isinstance(loaded.get(k), dict)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: no dictionary of tensors in it, but {type(loaded).__name__}")
    tensors: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if isinstance(value, Tensor):
            while key.startswith(("module.", "backbone.")):
                key = key.partition(".")[2]
            if key in tensors:
                raise ValueError(f"{path}: {key} is there twice, with and without a prefix; keep one of the two")
            tensors[key] = value
    return tensors


def _some(names) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
