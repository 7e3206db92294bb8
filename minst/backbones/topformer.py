"""TopFormer: a pyramid of convolutions, and one small transformer that looks at all its levels at once.

    frame (B, 3, H, W)
      |  tpm: stem, inverted residuals
      v
    tokens at 1/4, 1/8, 1/16, 1/32 --average-pool each to 1/64, concatenate--> (B, C6, H/64, W/64)
      |                                                                          | trans: 4 blocks
      |  1/8, 1/16, 1/32                                                         v
      +--------------------> SIM: semantic injection <---- its slice of ---- X6, the global feature
                                     |
                             X3, X4, X5: local detail that knows what the whole scene shows

PAPER.md, point 1. Attention over (H/64 * W/64) tokens instead of all pixels is what makes it mobile: at 640 pixels
these are 100. `token_stride = 32` keeps four times as many, for small inputs (`Deviation:` from the paper's 64).

Assumption: semantic injection is on, as in the official backbone; `injection=False` gives the plain tokens.

Lesson: notebooks/02_backbone.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNorm, h_sigmoid
from .base import BackboneFeatures, Conv2dBN, ConvStage, Row, Transformer

__all__ = ["TOPFORMER_SIZES", "TopFormer"]

# rows: (kernel size, expansion, channels, stride) of each layer; token_layers: those that give tokens, from 0
TOPFORMER_SIZES = {
    "tiny": dict(
        rows=[(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1), (5, 3, 32, 2), (5, 3, 32, 1), (3, 3, 64, 2), (3, 3, 64, 1),
              (5, 6, 96, 2), (5, 6, 96, 1)],
        token_layers=(2, 4, 6, 8), heads=4, injected_channels=128),
    "small": dict(
        rows=[(3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1), (5, 3, 48, 2), (5, 3, 48, 1), (3, 3, 96, 2), (3, 3, 96, 1),
              (5, 6, 128, 2), (5, 6, 128, 1), (3, 6, 128, 1)],
        token_layers=(2, 4, 6, 9), heads=6, injected_channels=192),
    "base": dict(
        rows=[(3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1), (5, 3, 64, 2), (5, 3, 64, 1), (3, 3, 128, 2), (3, 3, 128, 1),
              (5, 6, 160, 2), (5, 6, 160, 1), (3, 6, 160, 1)],
        token_layers=(2, 4, 6, 9), heads=8, injected_channels=256),
}  # fmt: skip


class TokenPyramid(ConvStage):
    """Local features at four scales: the outputs of the layers `token_layers`."""

    def __init__(self, rows: Sequence[Row], token_layers: Sequence[int]):
        super().__init__(rows, stem="stem")
        self.token_layers = tuple(token_layers)
        self.channels = tuple(rows[i][2] for i in token_layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> 4 x (B, C_i, H/2^i, W/2^i), i = 2..5."""
        outputs = []
        for layer in self:
            x = layer(x)
            outputs.append(x)
        return [outputs[1 + i] for i in self.token_layers]  # the stem comes first


class Attention(nn.Module):
    """Every cell looks at every cell; 1x1 convolutions with batch norm give q, k and v.

    q and k have few channels, v twice as many. The scores are *not* divided by sqrt(d): the batch norms of q and k
    learn the scale, and the official checkpoints rely on it.
    """

    def __init__(self, dim: int, key_dim: int, heads: int, value_ratio: int):
        super().__init__()
        self.heads = heads
        value_dim = key_dim * heads * value_ratio
        self.to_q = Conv2dBN(dim, key_dim * heads)
        self.to_k = Conv2dBN(dim, key_dim * heads)
        self.to_v = Conv2dBN(dim, value_dim)
        self.proj = nn.Sequential(nn.ReLU6(), Conv2dBN(value_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        batch, _, height, width = x.shape
        q, k, v = (f(x).view(batch, self.heads, -1, height * width) for f in (self.to_q, self.to_k, self.to_v))
        # A = softmax(q^T k), out = v A^T
        weights = (q.transpose(-2, -1) @ k).softmax(-1)  # (B, heads, H*W, H*W)
        mixed = v @ weights.transpose(-2, -1)  # (B, heads, d, H*W)
        return self.proj(mixed.reshape(batch, -1, height, width))


class SemanticInjection(nn.Module):
    """local * gate(global) + value(global): what the scene shows decides which local detail counts."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.local_embedding = ConvNorm(in_channels, out_channels)
        self.global_embedding = ConvNorm(in_channels, out_channels)
        self.global_act = ConvNorm(in_channels, out_channels)

    def forward(self, local: Tensor, semantics: Tensor) -> Tensor:
        """(B, C, h, w), (B, C, H6, W6) -> (B, C_out, h, w)."""
        size = local.shape[-2:]
        # the gate is squashed before it is upsampled, as officially: cheap, and still within [0, 1]
        gate = F.interpolate(h_sigmoid(self.global_act(semantics)), size=size, mode="bilinear", align_corners=False)
        value = F.interpolate(self.global_embedding(semantics), size=size, mode="bilinear", align_corners=False)
        return self.local_embedding(local) * gate + value


class TopFormer(nn.Module):
    """Args:
        rows, token_layers, heads, injected_channels: one size of `TOPFORMER_SIZES`.
        injection: inject X6 into X3..X5. token_stride: 64 (official) or 32.
    """

    optional_keys = "SIM."  # an ImageNet checkpoint was trained without the injection

    def __init__(
        self, rows: Sequence[Row], token_layers: Sequence[int], heads: int, injected_channels: int,
        injection: bool = True, token_stride: int = 64,
    ):  # fmt: skip
        super().__init__()
        self.token_stride = token_stride
        self.tpm = TokenPyramid(rows, token_layers)
        channels = self.tpm.channels
        self.trans = Transformer(Attention, (sum(channels), 16, heads, 2), depth=4, mlp_ratio=2)
        self.SIM = None
        if injection:
            # the finest token is not injected, but keeps its place in the checkpoint's numbering
            injections = [SemanticInjection(c, injected_channels) for c in channels[1:]]
            self.SIM = nn.ModuleList([nn.Identity(), *injections])
        local = (injected_channels,) * 3 if injection else channels[1:]
        self.out_channels: tuple[int, int, int, int] = (*local, sum(channels))

    def forward(self, x: Tensor) -> BackboneFeatures:
        """(B, 3, H, W), normalised."""
        tokens = self.tpm(x)
        x6 = self.trans(self.pool(tokens))
        if self.SIM is None:
            return BackboneFeatures(*tokens[1:], x6)
        semantics = x6.split(self.tpm.channels, dim=1)  # each level takes back the channels that it gave
        local = [self.SIM[i](tokens[i], semantics[i]) for i in (1, 2, 3)]
        return BackboneFeatures(*local, x6)

    def pool(self, tokens: list[Tensor]) -> Tensor:
        """Average every level to the size of X6 and concatenate, fine to coarse: (B, C6, H6, W6)."""
        height, width = tokens[-1].shape[-2:]
        if self.token_stride == 64:
            height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1  # rounded up, as a stride-2 convolution does
        return torch.cat([F.adaptive_avg_pool2d(token, (height, width)) for token in tokens], dim=1)
