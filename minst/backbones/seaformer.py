"""SeaFormer: attention squeezed to one row and one column, so that it stays cheap at 1/32 too.

    frame -> smb1 -> smb2 -> smb3 -> smb4 -> trans1 -> smb5 -> trans2
             1/4     1/8     1/16    1/32              1/64
                     X3      X4              X5                X6

Lesson: notebooks/02_backbone.ipynb
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.backbones.base import BackboneFeatures, Conv2dBN, ConvStage, Rows, Transformer
from minst.layers import h_sigmoid, resize_to

__all__ = ["SEAFORMER_SIZES", "SeaFormer"]

# stages: the layers of smb1 to smb5, each (kernel size, expansion, channels, stride)
SEAFORMER_SIZES = {
    "seaformer-tiny": {"heads": 4, "depth": 2, "stages": [
        [(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)], [(5, 3, 32, 2), (5, 3, 32, 1)],
        [(3, 3, 64, 2), (3, 3, 64, 1)], [(5, 3, 128, 2)], [(3, 6, 160, 2)]]},
    "seaformer-small": {"heads": 6, "depth": 3, "stages": [
        [(3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)], [(5, 3, 48, 2), (5, 3, 48, 1)],
        [(3, 3, 96, 2), (3, 3, 96, 1)], [(5, 4, 160, 2)], [(3, 6, 192, 2)]]},
    "seaformer-base": {"heads": 8, "depth": 4, "stages": [
        [(3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)], [(5, 3, 64, 2), (5, 3, 64, 1)],
        [(3, 3, 128, 2), (3, 3, 128, 1)], [(5, 4, 192, 2)], [(3, 6, 256, 2)]]},
}  # fmt: skip


class AxisPosition(nn.Module):
    """Adds a learned position embedding of 16 places, stretched to the length of the axis."""

    def __init__(self, channels: int, places: int = 16):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, places))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S) -> the same, with the positions of S places added."""
        # This is linear interpolation, written as a bilinear one of height 1: mobile runtimes know
        # no other.
        places = resize_to(self.pos_embed[:, :, None], x[:, :, None])  # (1, C, 1, S)
        return x + places[:, :, 0]


class SqueezeAxialAttention(nn.Module):
    """Attention over H rows and W columns instead of H*W cells: H^2 + W^2 pairs, not (H*W)^2."""

    # key_dim: channels of q and of k in each of the heads; v has `value_ratio` times as many.
    def __init__(self, dim: int, key_dim: int, heads: int, value_ratio: int):
        super().__init__()
        self.heads = heads
        self.scale = key_dim**-0.5
        qk_dim = key_dim * heads
        v_dim = qk_dim * value_ratio
        self.to_q, self.to_k = Conv2dBN(dim, qk_dim), Conv2dBN(dim, qk_dim)
        self.to_v = Conv2dBN(dim, v_dim)
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
        # y = h_sigmoid(proj(relu6(v + A_row + A_col))) * detail(q, k, v)
        # A_row = encode(softmax(q_r^T k_r / sqrt(d)) v_r), where q_r, k_r, v_r are q, k, v averaged
        # over the width; A_col is the same over the height.
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)  # (B, C_qk, H, W) twice, (B, C_v, H, W)
        # Squeeze the width: one token a row. S = H.
        q_row, k_row, v_row = q.mean(3), k.mean(3), v.mean(3)  # (B, C_qk, H) twice, (B, C_v, H)
        rows = self.attend(self.pos_emb_rowq(q_row), self.pos_emb_rowk(k_row), v_row)  # (B, C_v, H)
        rows = self.proj_encode_row(rows[:, :, :, None])  # (B, C_v, H, 1)
        # Squeeze the height: one token a column. S = W.
        q_col, k_col, v_col = q.mean(2), k.mean(2), v.mean(2)  # (B, C_qk, W) twice, (B, C_v, W)
        columns = self.attend(self.pos_emb_columnq(q_col), self.pos_emb_columnk(k_col), v_col)
        columns = self.proj_encode_column(columns[:, :, None, :])  # (B, C_v, 1, W)
        # Fine structure, which squeezing loses, comes from a convolution over q, k and v.
        detail = self.pwconv(F.relu6(self.dwconv(torch.cat([q, k, v], dim=1))))  # (B, C, H, W)
        # Expand: the cell (i, j) gets row i and column j, by broadcasting (H, 1) + (1, W). What
        # the scene shows is the gate of the detail.
        return h_sigmoid(self.proj(v + rows + columns)) * detail

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Among the S tokens of an axis: (B, C_qk, S), (B, C_qk, S), (B, C_v, S) -> (B, C_v, S)."""
        q, k, v = (x.unflatten(1, (self.heads, -1)) for x in (q, k, v))  # (B, heads, d, S)
        # A = softmax(q^T k / sqrt(d)): row s says how much token s looks at each token.
        weights = (q.transpose(-2, -1) @ k * self.scale).softmax(-1)  # (B, heads, S, S)
        # v A^T, and the heads side by side again.
        return (v @ weights.transpose(-2, -1)).flatten(1, 2)  # (B, C_v, S)


# Deviation: nothing is injected. The official fusion of local and global features belongs to its
# segmentation head; MobileInst's mask decoder does that work here.
class SeaFormer(nn.Module):
    """stages, heads, depth: one of `SEAFORMER_SIZES`. token_stride: 64 (official), or 32."""

    # The whole backbone is in an ImageNet checkpoint.
    optional_keys = ()

    def __init__(self, stages: list[Rows], heads: int, depth: int, token_stride: int = 64):
        super().__init__()
        *stages, last = stages
        if token_stride == 32:
            # The first layer of smb5 does not halve its map.
            kernel_size, expansion, channels, _ = last[0]
            last = [(kernel_size, expansion, channels, 1), *last[1:]]
        self.smb1 = ConvStage(stages[0], stem="stem_block")
        self.smb2 = ConvStage(stages[1], self.smb1.out_channels)
        self.smb3 = ConvStage(stages[2], self.smb2.out_channels)
        self.smb4 = ConvStage(stages[3], self.smb3.out_channels)
        self.smb5 = ConvStage(last, self.smb4.out_channels)
        c3, c4, c5, c6 = (s.out_channels for s in (self.smb2, self.smb3, self.smb4, self.smb5))
        attention = partial(SqueezeAxialAttention, heads=heads, value_ratio=2)
        self.trans1 = Transformer(partial(attention, c5, key_dim=16), c5, depth, mlp_ratio=2)
        self.trans2 = Transformer(partial(attention, c6, key_dim=24), c6, depth, mlp_ratio=4)
        self.out_channels: tuple[int, int, int, int] = (c3, c4, c5, c6)

    def forward(self, x: Tensor) -> BackboneFeatures:
        """(B, 3, H, W), normalised -> X3, X4, X5 and X6."""
        # Down to 1/16 convolutions alone, ...
        x3 = self.smb2(self.smb1(x))  # (B, C3, H/8, W/8)
        x4 = self.smb3(x3)  # (B, C4, H/16, W/16)
        # ... then attention too, twice: unlike TopFormer's X5, this one has seen the whole scene.
        x5 = self.trans1(self.smb4(x4))  # (B, C5, H/32, W/32)
        x6 = self.trans2(self.smb5(x5))  # (B, C6, H/64, W/64)
        return BackboneFeatures(x3, x4, x5, x6)
