"""The semantic-enhanced mask decoder: one mask feature for all instances (paper: Fig 3, section
"Semantic-enhanced Mask Decoder").

    X3 (1/8)  -> lateral -> enhance -> P3 -----------> down --.     .--> + -> 3x3 -> X_mask (1/8)
    X4 (1/16) -> lateral -> enhance -> P4 <- up P5 -> N4 -----|-----' up
    X5 (1/32) -> lateral -> enhance -> P5 -----------> N5 ----' up
    X6 (tokens) ---------------^
              top-down: P5 -> P4 -> P3    bottom-up: P3 -> N4 -> N5    top-down: N5 -> N4 -> N3

Symbols: B batch, C3 .. C6 channels of X3 .. X6, D channels of X_mask, H W frame size.

Lesson: notebooks/03_mask_decoder.ipynb
"""

from collections.abc import Sequence

from torch import Tensor, nn

from minst.layers import ConvNorm, h_sigmoid, resize_to

__all__ = ["MaskDecoder", "SemanticEnhancer"]


# Assumption: the paper draws no formula of it; ours is that of TopFormer's semantic injection.
class SemanticEnhancer(nn.Module):
    """local * h_sigmoid(gate(X6)) + value(X6): the scene decides which local features count."""

    def __init__(self, global_channels: int, dim: int):
        super().__init__()
        self.gate = ConvNorm(global_channels, dim)
        self.value = ConvNorm(global_channels, dim)

    def forward(self, local: Tensor, x6: Tensor) -> Tensor:
        """Local features (B, D, h, w) and X6 (B, C6, h6, w6) -> (B, D, h, w)."""
        # Both are computed on the few tokens and upsampled afterwards, a fraction of the cost. For
        # the value that changes nothing, for the gate little: h_sigmoid has corners.
        gate = resize_to(h_sigmoid(self.gate(x6)), local)
        value = resize_to(self.value(x6), local)
        return local * gate + value


# Assumption: the paper names iterative top-down and bottom-up fusion with 3x3 convolutions. Ours:
# sums, one 3x3 convolution after each, one round down - up - down.
class MaskDecoder(nn.Module):
    """X3, X4, X5 and X6 -> X_mask."""

    def __init__(
        self,
        in_channels: Sequence[int],  # (C3, C4, C5, C6)
        dim: int,  # D
        semantic_enhancer: bool = True,  # inject X6 into every level
        bottom_up: bool = True,  # the bottom-up pass and the second top-down one
    ):
        super().__init__()
        c3, c4, c5, c6 = in_channels
        self.lateral_x3, self.lateral_x4 = ConvNorm(c3, dim), ConvNorm(c4, dim)
        self.lateral_x5 = ConvNorm(c5, dim)
        # A model without a part must not carry its parameters: they would never learn.
        self.semantic_enhancer, self.bottom_up = semantic_enhancer, bottom_up
        if semantic_enhancer:
            self.enhance_x3 = SemanticEnhancer(c6, dim)
            self.enhance_x4 = SemanticEnhancer(c6, dim)
            self.enhance_x5 = SemanticEnhancer(c6, dim)
        # "fuse" is the 3x3 convolution that mixes a sum of two levels.
        self.fuse_p5, self.fuse_p4, self.fuse_p3 = _fuse(dim), _fuse(dim), _fuse(dim)
        if bottom_up:
            # Depth-wise, at stride 2: 1/8 -> 1/16 and 1/16 -> 1/32.
            self.down_p3 = ConvNorm(dim, dim, 3, 2, groups=dim)
            self.down_n4 = ConvNorm(dim, dim, 3, 2, groups=dim)
            self.fuse_n4, self.fuse_n5 = _fuse(dim), _fuse(dim)
        # Assumption: X_mask is linear (no ReLU at the end), so that a kernel can say yes and no
        # with the same channel.
        self.out = ConvNorm(dim, dim, 3)

    def forward(self, x3: Tensor, x4: Tensor, x5: Tensor, x6: Tensor) -> Tensor:
        """(B, C3, H/8, W/8), (B, C4, H/16, W/16), (B, C5, H/32, W/32), X6 -> (B, D, H/8, W/8)."""
        # Every level gets D channels, and learns from X6 what the scene shows.
        l3, l4, l5 = self.lateral_x3(x3), self.lateral_x4(x4), self.lateral_x5(x5)
        if self.semantic_enhancer:
            l3, l4 = self.enhance_x3(l3, x6), self.enhance_x4(l4, x6)
            l5 = self.enhance_x5(l5, x6)
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
    return ConvNorm(dim, dim, 3, activation=nn.ReLU())
