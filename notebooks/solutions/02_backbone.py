"""Reference solutions of lesson 02, backbone. Made by notebooks/build.py: do not edit."""

# %%
from itertools import product
from time import process_time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import minst
from minst import backbones, visualize
from minst.backbones.topformer import TOPFORMER_SIZES
from minst.course import lesson02 as check
from minst.layers import ConvNorm, h_sigmoid

# %%
def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(h, w) of X3, X4, X5 and X6 for a frame of height x width pixels, at the paper's strides.

    The frame is first padded, right and below, to the next multiples of 64.
    """
    height, width = height + -height % 64, width + -width % 64
    return [(height // stride, width // stride) for stride in (8, 16, 32, 64)]

# %%
print(check.level_sizes(level_sizes))

# %%
def macs_of_inverted_residual(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int,
    height: int, width: int,
) -> int:
    """MACs of an inverted residual on an input (1, in_channels, height, width).

    height and width are multiples of `stride`. With expansion 1 there is no expanding convolution.
    """
    hidden = in_channels * expansion
    cells_in, cells_out = height * width, height * width // stride**2
    expand = cells_in * in_channels * hidden if expansion != 1 else 0
    return expand + cells_out * hidden * kernel_size**2 + cells_out * hidden * out_channels

# %%
print(check.macs_of_inverted_residual(macs_of_inverted_residual))

# %%
def row_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The row half of squeeze-axial attention, one head.

    q, k: (B, d, h, w), v: (B, d_v, h, w) -> (B, d_v, h). Average all three over the width, then attend
    among the h rows, (02.2), with SeaFormer's scale d ** -0.5.
    """
    q, k, v = q.mean(3), k.mean(3), v.mean(3)
    weights = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1)
    return v @ weights.mT

# %%
print(check.row_attention(row_attention))

# %%
def unseen_change(feature: torch.Tensor, cell: int) -> torch.Tensor:
    """A fine map (B, C, H, W) -> another one, with the same mean over every block of cell x cell values.

    Every block must change, in every channel. H and W are multiples of `cell`, which is even.
    """
    blocks = feature.unflatten(3, (-1, cell))  # (B, C, H, W / cell, cell)
    return blocks.flip(4).flatten(3)

# %%
print(check.unseen_change(unseen_change))
