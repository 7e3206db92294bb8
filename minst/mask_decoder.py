"""The semantic-enhanced mask decoder: one mask feature for all instances (paper: "Semantic-enhanced Mask Decoder", Fig 3).

    X3 (1/8)  -> lateral -> enhancer -> P3 ---------> down --.        .--> + -> 3x3 -> X_mask (B, D, H/8, W/8)
    X4 (1/16) -> lateral -> enhancer -> P4 <- up P5 -> N4 ---|--------' up
    X5 (1/32) -> lateral -> enhancer -> P5 ----------> N5 ---' up
    X6 (tokens) ----------------^ (every enhancer)
                  top-down: P5 -> P4 -> P3     bottom-up: P3 -> N4 -> N5     top-down again: N5 -> N4 -> X_mask

Symbols: B batch, D channels, H W frame size.

Assumption: the paper names iterative top-down and bottom-up fusion with 3x3 convolutions and a semantic enhancer, and
    draws no formula. Ours: sums, one 3x3 convolution after each, one round down - up - down. The enhancer is
    local * h_sigmoid(gate(X6)) + value(X6), X6 upsampled bilinearly, as in TopFormer's semantic injection.
Assumption: X_mask is linear (no ReLU at the end), so that a kernel can say yes and no with the same channel.

Lesson: notebooks/03_mask_decoder.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from minst.layers import ConvNorm, h_sigmoid

__all__ = ["MaskDecoder", "SemanticEnhancer"]


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of `x` to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class SemanticEnhancer(nn.Module):
    """local * h_sigmoid(gate(global)) + value(global): the scene decides which local features count."""

    def __init__(self, global_channels: int, dim: int):
        super().__init__()
        self.gate = ConvNorm(global_channels, dim)
        self.value = ConvNorm(global_channels, dim)

    def forward(self, local: Tensor, x6: Tensor) -> Tensor:  # (B, D, h, w), (B, C6, h6, w6) -> (B, D, h, w)
        """Local tokens (B, D, h, w) and X6 (B, C6, h6, w6) -> (B, D, h, w)."""
        # computed on the few tokens and upsampled afterwards, a fraction of the cost; for the value the result is the
        # same, for the gate nearly so (h_sigmoid has corners)
        return local * resize_to(h_sigmoid(self.gate(x6)), local) + resize_to(self.value(x6), local)


class MaskDecoder(nn.Module):
    """X3, X4, X5 and X6 -> X_mask.

    Args:
        in_channels: channels (C3, C4, C5, C6). dim: channels D of X_mask.
        semantic_enhancer: inject X6 into every level. bottom_up: the bottom-up pass and the second top-down one.
    """

    def __init__(
        self, in_channels: Sequence[int], dim: int, semantic_enhancer: bool = True, bottom_up: bool = True
    ):
        super().__init__()
        c3, c4, c5, c6 = in_channels
        self.lateral_x3, self.lateral_x4, self.lateral_x5 = ConvNorm(c3, dim), ConvNorm(c4, dim), ConvNorm(c5, dim)
        # An ablation without a part must not carry its parameters: they would never learn.
        self.semantic_enhancer, self.bottom_up = semantic_enhancer, bottom_up
        if semantic_enhancer:
            self.enhance_x3 = SemanticEnhancer(c6, dim)
            self.enhance_x4 = SemanticEnhancer(c6, dim)
            self.enhance_x5 = SemanticEnhancer(c6, dim)
        self.fuse_p5, self.fuse_p4, self.fuse_p3 = _fuse(dim), _fuse(dim), _fuse(dim)
        if bottom_up:
            self.down_p3 = ConvNorm(dim, dim, 3, 2, groups=dim)  # 1/8 -> 1/16, depth-wise
            self.down_n4 = ConvNorm(dim, dim, 3, 2, groups=dim)  # 1/16 -> 1/32
            self.fuse_n4, self.fuse_n5 = _fuse(dim), _fuse(dim)
        self.out = ConvNorm(dim, dim, 3)

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor, x6: Tensor) -> Tensor:
        """(B, C3, H/8, W/8), (B, C4, H/16, W/16), (B, C5, H/32, W/32), (B, C6, ..) -> (B, D, H/8, W/8)."""
        # Every level gets D channels, and learns from X6 what the scene shows.
        l3, l4, l5 = self.lateral_x3(x3), self.lateral_x4(x4), self.lateral_x5(x5)
        if self.semantic_enhancer:
            l3, l4, l5 = self.enhance_x3(l3, x6), self.enhance_x4(l4, x6), self.enhance_x5(l5, x6)
        # Top-down: what the coarse levels understand goes to the fine ones.
        p5 = self.fuse_p5(l5)  # (B, D, H/32, W/32)
        p4 = self.fuse_p4(l4 + resize_to(p5, l4))  # (B, D, H/16, W/16)
        p3 = self.fuse_p3(l3 + resize_to(p4, l3))  # (B, D, H/8, W/8)
        if not self.bottom_up:
            return self.out(p3)
        # Bottom-up: where edges lie exactly goes back to the coarse levels.
        n4 = self.fuse_n4(p4 + self.down_p3(p3))  # (B, D, H/16, W/16)
        n5 = self.fuse_n5(p5 + self.down_n4(n4))  # (B, D, H/32, W/32)
        # Top-down again, by sums alone.
        n3 = p3 + resize_to(n4 + resize_to(n5, n4), p3)  # (B, D, H/8, W/8)
        return self.out(n3)


def _fuse(dim: int) -> ConvNorm:
    """The 3x3 convolution that mixes a sum of two levels."""
    return ConvNorm(dim, dim, 3, activation=nn.ReLU())
