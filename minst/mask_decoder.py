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
        *local_channels, global_channels = in_channels
        self.laterals = nn.ModuleList(ConvNorm(c, dim) for c in local_channels)
        self.enhancers = (
            nn.ModuleList(SemanticEnhancer(global_channels, dim) for _ in local_channels) if semantic_enhancer else None
        )
        self.top_down = nn.ModuleList(ConvNorm(dim, dim, 3, activation=nn.ReLU()) for _ in range(3))  # P3, P4, P5
        self.down = nn.ModuleList(ConvNorm(dim, dim, 3, 2, groups=dim) for _ in range(2)) if bottom_up else None
        self.bottom_up = nn.ModuleList(ConvNorm(dim, dim, 3, activation=nn.ReLU()) for _ in range(2)) if bottom_up else None
        self.out = ConvNorm(dim, dim, 3)

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor, x6: Tensor) -> Tensor:
        """(B, C3, H/8, W/8), (B, C4, H/16, W/16), (B, C5, H/32, W/32), (B, C6, ..) -> (B, D, H/8, W/8)."""
        l3, l4, l5 = (lateral(x) for lateral, x in zip(self.laterals, (x3, x4, x5)))
        if self.enhancers is not None:
            l3, l4, l5 = (enhance(x, x6) for enhance, x in zip(self.enhancers, (l3, l4, l5)))
        p5 = self.top_down[2](l5)
        p4 = self.top_down[1](l4 + resize_to(p5, l4))
        p3 = self.top_down[0](l3 + resize_to(p4, l3))
        if self.bottom_up is not None:
            n4 = self.bottom_up[0](p4 + self.down[0](p3))
            n5 = self.bottom_up[1](p5 + self.down[1](n4))
            p3 = p3 + resize_to(n4 + resize_to(n5, n4), p3)
        return self.out(p3)
