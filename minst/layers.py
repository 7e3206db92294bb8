"""The three bricks that every part of MobileInst is built from.

    ConvNorm              convolution -> batch norm -> activation, foldable into one convolution for inference
    MultiHeadAttention    softmax(q k^T / sqrt(d)) v with explicit q, k, v projections
    SinePositionEmbedding where a token lies, as sines and cosines (PAPER.md: on X_G and X_L)

Symbols: B batch, N queries, S tokens, C channels, D = channels of a query, H W height and width.

Deviation: `torch.nn.MultiheadAttention` is not used, because its fused inference path does not export to mobile
runtimes; `tests/test_layers.py` proves that ours computes the same.

Lesson: notebooks/04_dual_decoder.ipynb
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNorm", "MultiHeadAttention", "SinePositionEmbedding", "fold_batch_norms", "h_sigmoid"]


def h_sigmoid(x: Tensor) -> Tensor:
    """Hard sigmoid relu6(x + 3) / 6: a gate in [0, 1] that costs no exponential."""
    return F.relu6(x + 3.0) / 6.0


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, optional activation; 'same' padding at stride 1.

    `conv_name` is the attribute under which the convolution is stored: subclasses change it to keep the key names
    of public checkpoints.
    """

    conv_name = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ):
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.add_module(self.conv_name, conv)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = activation if activation is not None else nn.Identity()
        # the official initialisation: fan out of a grouped convolution
        nn.init.normal_(conv.weight, std=math.sqrt(2.0 / (kernel_size * kernel_size * out_channels / groups)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""
        return self.act(self.bn(getattr(self, self.conv_name)(x)))

    def fold(self) -> None:
        """Fold the batch norm's running statistics into the convolution. In place; needs eval mode; idempotent."""
        if isinstance(self.bn, nn.Identity):
            return
        if self.training:
            raise RuntimeError("batch norms can only be folded in eval mode; call model.eval() first")
        conv = getattr(self, self.conv_name)
        setattr(self, self.conv_name, nn.utils.fuse_conv_bn_eval(conv, self.bn))
        self.bn = nn.Identity()


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every `ConvNorm` below `module` (in place) and return it. Outputs stay the same within rounding.

    A convolution directly before a batch norm in an `nn.Sequential` (torchvision's way) is folded as well.
    """
    for part in module.modules():
        if isinstance(part, ConvNorm):
            part.fold()
        elif isinstance(part, nn.Sequential):
            for i, (conv, bn) in enumerate(itertools.pairwise(part)):
                if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                    if bn.training:
                        raise RuntimeError("batch norms can only be folded in eval mode; call model.eval() first")
                    part[i], part[i + 1] = nn.utils.fuse_conv_bn_eval(conv, bn), nn.Identity()
    return module


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over `heads` slices of the channels, then one output projection.

    Args:
        dim: channels D of queries and output. heads: must divide D. key_dim: channels of keys and values (default D).
    """

    def __init__(self, dim: int, heads: int = 8, key_dim: int | None = None):
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention: {heads} heads do not divide {dim} channels; choose a divisor of {dim}")
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(key_dim or dim, dim)
        self.v = nn.Linear(key_dim or dim, dim)
        self.out = nn.Linear(dim, dim)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,  # (B, N, D)
        key: Tensor,  # (B, S, C)
        value: Tensor,  # (B, S, C)
        padding_mask: Tensor | None = None,  # (B, S) bool, True = not a token, look away
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return (B, N, D), and with `return_weights` also the attention (B, heads, N, S), whose rows sum to 1."""
        q, k, v = self._split(self.q(query)), self._split(self.k(key)), self._split(self.v(value))
        # A = softmax(q k^T / sqrt(d))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, heads, N, S)
        if padding_mask is not None:
            scores = scores.masked_fill(padding_mask[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # (B, N, D)
        out = self.out(mixed)
        return (out, weights) if return_weights else out

    def _split(self, x: Tensor) -> Tensor:  # (B, S, D) -> (B, heads, S, D/heads)
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)


class SinePositionEmbedding(nn.Module):
    """Sines and cosines of the token's row (first half of the channels) and column (second half).

    Positions are centres of cells scaled to (0, 2 pi), as in DETR, so that the embedding of "upper left" does not
    change with the resolution. The frequencies are a float32 table made once: computed inside `forward` from
    integers they would trace to float64 constants, which mobile runtimes refuse.

    Args:
        dim: channels of the embedding, a multiple of 4. temperature: ratio of the longest to the shortest wave
            (DETR: 10000; `Assumption:` 100, since on a dozen of cells a longer wave is a constant).
    """

    def __init__(self, dim: int, temperature: float = 100.0):
        super().__init__()
        if dim % 4:
            raise ValueError(f"sine position embedding: {dim} channels is not a multiple of 4")
        exponent = torch.arange(dim // 4, dtype=torch.float32) / (dim // 4)
        self.register_buffer("frequencies", temperature**-exponent, persistent=False)  # (dim/4,)

    def forward(self, height: int, width: int) -> Tensor:
        """Return (1, height * width, dim), row by row: the order of `x.flatten(2).transpose(1, 2)`."""
        rows, columns = self._waves(height), self._waves(width)  # (H, dim/2), (W, dim/2)
        rows = rows[:, None, :].expand(-1, width, -1)
        columns = columns[None, :, :].expand(height, -1, -1)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)[None]  # (1, H*W, dim)

    def _waves(self, length: int) -> Tensor:
        position = torch.arange(length, dtype=torch.float32, device=self.frequencies.device)
        angle = ((position + 0.5) * (2 * math.pi / length))[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
