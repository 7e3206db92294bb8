"""SeaFormer: attention squeezed to one row and one column, so that it stays cheap at 1/32 too.

    frame -> smb1 (1/4) -> smb2 (1/8) -> smb3 (1/16) -> smb4 (1/32) -> trans1 -> smb5 (1/64) -> trans2
                              |              |                           |                        |
                              X3             X4                          X5                       X6

Squeeze: averaged over its width, a map (H, W) has H tokens, and attention among them costs H^2 instead of (H W)^2;
the same over its height. The sum of the two is spread back over the map. Detail that averaging loses comes from a
depth-wise convolution of q, k and v beside it, gated by the attention's output.

Deviation: the official fusion of local and global features belongs to its segmentation head, not to the backbone.
MobileInst's mask decoder does that work here; so `injection` changes nothing (see `minst.backbones.build`).

Lesson: notebooks/02_backbone.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import h_sigmoid
from .base import BackboneFeatures, Conv2dBN, ConvStage, Row, Transformer

__all__ = ["SEAFORMER_SIZES", "SeaFormer"]

# of each stage the table of layers (kernel size, expansion, channels, stride); heads and depth of both transformers
SEAFORMER_SIZES = {
    "tiny": dict(
        stages=[[(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)], [(5, 3, 32, 2), (5, 3, 32, 1)],
                [(3, 3, 64, 2), (3, 3, 64, 1)], [(5, 3, 128, 2)], [(3, 6, 160, 2)]],
        heads=4, depth=2),
    "small": dict(
        stages=[[(3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)], [(5, 3, 48, 2), (5, 3, 48, 1)],
                [(3, 3, 96, 2), (3, 3, 96, 1)], [(5, 4, 160, 2)], [(3, 6, 192, 2)]],
        heads=6, depth=3),
    "base": dict(
        stages=[[(3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)], [(5, 3, 64, 2), (5, 3, 64, 1)],
                [(3, 3, 128, 2), (3, 3, 128, 1)], [(5, 4, 192, 2)], [(3, 6, 256, 2)]],
        heads=8, depth=4),
}  # fmt: skip


class AxisPosition(nn.Module):
    """Adds a learned position embedding of 16 places, stretched to the length of the axis."""

    def __init__(self, channels: int, places: int = 16):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, places))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, S) -> the same
        """(B, C, S) -> the same, with the positions of S places added."""
        # linear interpolation, written as a bilinear one of height 1: mobile runtimes know only that operator
        place = F.interpolate(self.pos_embed[:, :, None], (1, x.shape[-1]), mode="bilinear", align_corners=False)
        return x + place[:, :, 0]


class SqueezeAxialAttention(nn.Module):
    """h_sigmoid(proj(relu6(v + rows + columns))) * detail(q, k, v)."""

    def __init__(self, dim: int, key_dim: int, heads: int, value_ratio: int):
        super().__init__()
        self.heads = heads
        self.scale = key_dim**-0.5
        qk_dim = key_dim * heads
        v_dim = qk_dim * value_ratio
        self.to_q, self.to_k, self.to_v = Conv2dBN(dim, qk_dim), Conv2dBN(dim, qk_dim), Conv2dBN(dim, v_dim)
        self.pos_emb_rowq, self.pos_emb_rowk = AxisPosition(qk_dim), AxisPosition(qk_dim)
        self.pos_emb_columnq, self.pos_emb_columnk = AxisPosition(qk_dim), AxisPosition(qk_dim)
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), Conv2dBN(v_dim, v_dim))
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), Conv2dBN(v_dim, v_dim))
        self.proj = nn.Sequential(nn.ReLU6(), Conv2dBN(v_dim, dim))
        mixed = 2 * qk_dim + v_dim
        self.dwconv = Conv2dBN(mixed, mixed, 3, groups=mixed)
        self.pwconv = Conv2dBN(mixed, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        detail = self.pwconv(F.relu6(self.dwconv(torch.cat([q, k, v], dim=1))))
        # averaged over W: one token a row; over H: one token a column
        rows = self.attend(self.pos_emb_rowq(q.mean(3)), self.pos_emb_rowk(k.mean(3)), v.mean(3))  # (B, C_v, H)
        columns = self.attend(self.pos_emb_columnq(q.mean(2)), self.pos_emb_columnk(k.mean(2)), v.mean(2))
        rows = self.proj_encode_row(rows[:, :, :, None])  # (B, C_v, H, 1), spreads over the width below
        columns = self.proj_encode_column(columns[:, :, None, :])  # (B, C_v, 1, W)
        return h_sigmoid(self.proj(v + rows + columns)) * detail

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q^T k / sqrt(d)) v among the S tokens of one axis: (B, C_q, S), (B, C_q, S), (B, C_v, S)."""
        q, k, v = (t.unflatten(1, (self.heads, -1)) for t in (q, k, v))  # (B, heads, d, S)
        weights = (q.transpose(-2, -1) @ k * self.scale).softmax(-1)  # (B, heads, S, S)
        return (v @ weights.transpose(-2, -1)).flatten(1, 2)  # (B, C_v, S)


class SeaFormer(nn.Module):
    """Args:
        stages, heads, depth: one size of `SEAFORMER_SIZES`. token_stride: 64 (official), or 32: smb5 at stride 1.
    """

    optional_keys = None

    def __init__(self, stages: Sequence[Sequence[Row]], heads: int, depth: int, token_stride: int = 64):
        super().__init__()
        if token_stride == 32:
            kernel_size, expansion, channels, _ = stages[4][0]
            stages = [*stages[:4], [(kernel_size, expansion, channels, 1), *stages[4][1:]]]
        self.smb1 = ConvStage(stages[0], stem="stem_block")
        self.smb2 = ConvStage(stages[1], self.smb1.out_channels)
        self.smb3 = ConvStage(stages[2], self.smb2.out_channels)
        self.smb4 = ConvStage(stages[3], self.smb3.out_channels)
        self.smb5 = ConvStage(stages[4], self.smb4.out_channels)
        c3, c4, c5, c6 = (stage.out_channels for stage in (self.smb2, self.smb3, self.smb4, self.smb5))
        self.trans1 = Transformer(SqueezeAxialAttention, (c5, 16, heads, 2), depth, mlp_ratio=2)
        self.trans2 = Transformer(SqueezeAxialAttention, (c6, 24, heads, 2), depth, mlp_ratio=4)
        self.out_channels: tuple[int, int, int, int] = (c3, c4, c5, c6)

    def forward(self, x: Tensor) -> BackboneFeatures:
        """(B, 3, H, W), normalised."""
        x3 = self.smb2(self.smb1(x))
        x4 = self.smb3(x3)
        x5 = self.trans1(self.smb4(x4))
        x6 = self.trans2(self.smb5(x5))
        return BackboneFeatures(x3, x4, x5, x6)
