"""Backbones: frames (B, 3, H, W) -> local X3, X4, X5 (1/8, 1/16, 1/32) and a global X6 (1/64).

Lesson: notebooks/02_backbone.ipynb
"""

from torch import nn

from minst.backbones.mobilenet import MOBILENET_WIDTHS, MobileNetV2
from minst.backbones.seaformer import SEAFORMER_SIZES, SeaFormer
from minst.backbones.topformer import TOPFORMER_SIZES, TopFormer

__all__ = ["NAMES", "build"]

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
