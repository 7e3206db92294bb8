"""TopFormer: a pyramid of convolutions, and one small transformer that looks at all its levels.

    frame -- tpm --> tokens at 1/4, 1/8, 1/16, 1/32 -- pool, join --> (B, C6, H/64, W/64)
                          | 1/8, 1/16, 1/32                              | trans: 4 blocks
                          v                                              v
                     SIM: semantic injection <------- slices of ------- X6, the global feature
                          '--> X3, X4, X5: local detail that knows what the whole scene shows

Attention over (H/64 * W/64) tokens instead of all pixels is what makes it mobile: at 640 pixels
these are 100 (paper: "Overall Architecture").

Lesson: notebooks/02_backbone.ipynb
"""

import itertools
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.backbones.base import BackboneFeatures, Conv2dBN, ConvStage, Rows, Transformer
from minst.layers import ConvNorm, h_sigmoid, resize_to

__all__ = ["TOPFORMER_SIZES", "TopFormer"]

# levels: the layers of 1/4, 1/8, 1/16 and 1/32, each (kernel size, expansion, channels, stride)
TOPFORMER_SIZES = {
    "topformer-tiny": {"heads": 4, "local_channels": 128, "levels": [
        [(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)], [(5, 3, 32, 2), (5, 3, 32, 1)],
        [(3, 3, 64, 2), (3, 3, 64, 1)], [(5, 6, 96, 2), (5, 6, 96, 1)]]},
    "topformer-small": {"heads": 6, "local_channels": 192, "levels": [
        [(3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)], [(5, 3, 48, 2), (5, 3, 48, 1)],
        [(3, 3, 96, 2), (3, 3, 96, 1)], [(5, 6, 128, 2), (5, 6, 128, 1), (3, 6, 128, 1)]]},
    "topformer-base": {"heads": 8, "local_channels": 256, "levels": [
        [(3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)], [(5, 3, 64, 2), (5, 3, 64, 1)],
        [(3, 3, 128, 2), (3, 3, 128, 1)], [(5, 6, 160, 2), (5, 6, 160, 1), (3, 6, 160, 1)]]},
}  # fmt: skip


class TokenPyramid(ConvStage):
    """Local features at four scales: what the last layer of each level puts out."""

    def __init__(self, levels: list[Rows]):
        super().__init__([row for level in levels for row in level], stem="stem")
        # Numbers count from the stem, which is 0.
        self.token_layers = tuple(itertools.accumulate(len(level) for level in levels))
        self.channels = tuple(self[i].out_channels for i in self.token_layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> 4 x (B, C_i, H/2^i, W/2^i), i = 2..5."""
        tokens = []
        for i, layer in enumerate(self):
            x = layer(x)
            if i in self.token_layers:
                tokens.append(x)
        return tokens


class Attention(nn.Module):
    """Every cell looks at every cell; key_dim: channels of q and of k in each of the heads."""

    def __init__(self, dim: int, key_dim: int, heads: int, value_ratio: int):
        super().__init__()
        self.heads = heads
        # v has `value_ratio` times as many: what is found is more than what it is found by.
        value_dim = key_dim * heads * value_ratio
        self.to_q = Conv2dBN(dim, key_dim * heads)
        self.to_k = Conv2dBN(dim, key_dim * heads)
        self.to_v = Conv2dBN(dim, value_dim)
        self.proj = nn.Sequential(nn.ReLU6(), Conv2dBN(value_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        B, _, H, W = x.shape
        # Each cell of the map is a token. S = H * W.
        q = self.to_q(x).view(B, self.heads, -1, H * W)  # (B, heads, d, S)
        k = self.to_k(x).view(B, self.heads, -1, H * W)  # (B, heads, d, S)
        v = self.to_v(x).view(B, self.heads, -1, H * W)  # (B, heads, d_v, S)
        # A = softmax(q^T k), not divided by sqrt(d): the batch norms of q and k learn the scale,
        # and the official checkpoints rely on it.
        weights = (q.transpose(-2, -1) @ k).softmax(-1)  # (B, heads, S, S)
        # v A^T: cell s becomes the values of all cells, weighed by row s of A.
        mixed = v @ weights.transpose(-2, -1)  # (B, heads, d_v, S)
        # The heads lie side by side, and the tokens are a map again.
        return self.proj(mixed.reshape(B, -1, H, W))  # (B, C, H, W)


class SemanticInjection(nn.Module):
    """local * gate(global) + value(global): the scene decides which local detail counts."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.local_embedding = ConvNorm(in_channels, out_channels)
        self.global_embedding = ConvNorm(in_channels, out_channels)
        self.global_act = ConvNorm(in_channels, out_channels)

    def forward(self, local: Tensor, semantics: Tensor) -> Tensor:
        """(B, C, h, w), (B, C, H6, W6) -> (B, C_out, h, w)."""
        # Both are computed on the few cells of X6 and enlarged afterwards, as officially: it is
        # cheap, and the gate stays within [0, 1], since interpolation only takes means.
        gate = resize_to(h_sigmoid(self.global_act(semantics)), local)  # (B, C_out, h, w)
        value = resize_to(self.global_embedding(semantics), local)  # (B, C_out, h, w)
        return self.local_embedding(local) * gate + value  # (B, C_out, h, w)


# Deviation: `token_stride` 32, for small frames, keeps four times as many tokens as the paper's 64.
# Assumption: X6 is injected into X3..X5, as in the official backbone; without injection they are
# the plain levels.
class TopFormer(nn.Module):
    """levels, heads, local_channels (C3 = C4 = C5): one of `TOPFORMER_SIZES`."""

    # No ImageNet checkpoint has the injection, since a classifier does without it.
    optional_keys = ("SIM.",)

    def __init__(
        self, levels: list[Rows], heads: int, local_channels: int, injection=True, token_stride=64
    ):
        super().__init__()
        self.token_stride = token_stride
        self.tpm = TokenPyramid(levels)
        channels = self.tpm.channels
        dim = sum(channels)  # C6
        attention = partial(Attention, dim, key_dim=16, heads=heads, value_ratio=2)
        self.trans = Transformer(attention, dim, depth=4, mlp_ratio=2)
        self.SIM = None
        if injection:
            # The finest level is not injected, but keeps its place in the checkpoints' numbering.
            injections = [SemanticInjection(c, local_channels) for c in channels[1:]]
            self.SIM = nn.ModuleList([nn.Identity(), *injections])
        local = (local_channels,) * 3 if injection else channels[1:]
        self.out_channels: tuple[int, int, int, int] = (*local, dim)

    def forward(self, x: Tensor) -> BackboneFeatures:
        """(B, 3, H, W), normalised -> X3, X4, X5 and X6."""
        # Convolutions make the local features: there are too many cells for attention.
        tokens = self.tpm(x)  # 4 x (B, C_i, H/2^i, W/2^i)
        # All levels on one coarse grid, and attention among its few cells: X6 has seen the scene.
        x6 = self.trans(self.pool(tokens))  # (B, C6, H6, W6)
        if self.SIM is None:
            return BackboneFeatures(*tokens[1:], x6)
        # Each level takes back the channels that it gave.
        semantics = x6.split(self.tpm.channels, dim=1)  # 4 x (B, C_i, H6, W6)
        # What it has learned of the scene decides which local detail counts. The level of 1/4 has
        # done its part: masks start at 1/8.
        x3, x4, x5 = (self.SIM[i](tokens[i], semantics[i]) for i in (1, 2, 3))
        return BackboneFeatures(x3, x4, x5, x6)

    def pool(self, tokens: list[Tensor]) -> Tensor:
        """Average every level to the size of X6 and join them, fine to coarse: (B, C6, H6, W6)."""
        H, W = tokens[-1].shape[-2:]
        if self.token_stride == 64:
            # Half of 1/32, rounded up as by a convolution of stride 2.
            H, W = (H - 1) // 2 + 1, (W - 1) // 2 + 1
        return torch.cat([F.adaptive_avg_pool2d(token, (H, W)) for token in tokens], dim=1)
