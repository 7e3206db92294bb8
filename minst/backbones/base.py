"""The blocks that TopFormer and SeaFormer share.

    Conv2dBN          convolution + batch norm under the checkpoints' names `c` and `bn`
    InvertedResidual  1x1 expand -> k x k depth-wise -> 1x1 project (+ input): a convolution at a mobile price
    ConvStage         [stem] -> layer1 -> layer2 -> ..., one inverted residual a row of a table
    TransformerBlock  x + attention(x), then x + MLP(x), on maps (B, C, H, W): "tokens" stay where they lie
    DropPath          in training, skips a branch for some samples

Symbols: B batch, C channels, H W height and width, k kernel size.

Attribute names such as `c`, `conv`, `fc1` are those of the official checkpoints, which load with no renaming.

Lesson: notebooks/02_backbone.ipynb
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import ConvNorm

__all__ = ["BackboneFeatures", "Conv2dBN", "ConvStage", "DropPath", "InvertedResidual", "MLP", "Transformer"]

Row = tuple[int, float, int, int]  # kernel size, expansion, output channels, stride


class BackboneFeatures(NamedTuple):
    """What every backbone makes of a frame (B, 3, H, W)."""

    x3: Tensor  # (B, C3, H/8, W/8)    local features
    x4: Tensor  # (B, C4, H/16, W/16)
    x5: Tensor  # (B, C5, H/32, W/32)
    x6: Tensor  # (B, C6, H/64, W/64)  global feature, or H/32 x W/32 with token_stride = 32


class Conv2dBN(ConvNorm):
    """`ConvNorm` whose convolution is called `c`, as in the checkpoints of both mobile transformers."""

    conv_name = "c"


class DropPath(nn.Module):
    """In training, zero the whole branch of a sample with probability `p`; the mean stays. In eval mode, nothing."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not self.training or self.p == 0.0:
            return x
        kept = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.p)
        return x * (kept / (1.0 - self.p))


class InvertedResidual(nn.Module):
    """Narrow -> wide -> narrow: the costly spatial convolution sees each wide channel alone (depth-wise).

    No activation after the projection, for on a narrow map ReLU would destroy what the next block needs.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: float):
        super().__init__()
        hidden = round(in_channels * expansion)
        self.residual = stride == 1 and in_channels == out_channels
        # in place: the maps at 1/2 and 1/4 are the biggest of the network, and memory traffic is what they cost
        expand = [Conv2dBN(in_channels, hidden), nn.ReLU(inplace=True)] if expansion != 1 else []
        depthwise = [Conv2dBN(hidden, hidden, kernel_size, stride, groups=hidden), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*expand, *depthwise, Conv2dBN(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class ConvStage(nn.Sequential):
    """Inverted residuals `layer1`, `layer2`, ..., after a stride-2 convolution if `stem` names one.

    Args:
        rows: (kernel size, expansion, channels, stride) of each layer. in_channels: of `layer1`.
        stem: attribute name of the stem, on which the two official code bases do not agree.
    """

    def __init__(self, rows: Sequence[Row], in_channels: int = 16, stem: str | None = None):
        layers: dict[str, nn.Module] = {}
        if stem is not None:
            layers[stem] = nn.Sequential(Conv2dBN(3, in_channels, 3, stride=2), nn.ReLU(inplace=True))
        for i, (kernel_size, expansion, channels, stride) in enumerate(rows, start=1):
            layers[f"layer{i}"] = InvertedResidual(in_channels, channels, kernel_size, stride, expansion)
            in_channels = channels
        super().__init__(OrderedDict(layers))
        self.out_channels = in_channels


class MLP(nn.Module):
    """1x1 widen -> 3x3 depth-wise -> ReLU6 -> 1x1 narrow. The 3x3 tells neighbours apart: it is the position code."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        hidden = dim * ratio
        self.fc1 = Conv2dBN(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)  # no norm, hence a bias
        self.act = nn.ReLU6()
        self.fc2 = Conv2dBN(hidden, dim)
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2.0 / 9.0))
        nn.init.zeros_(self.dwconv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class TransformerBlock(nn.Module):
    """x + attention(x), then x + MLP(x). No layer norm: each convolution carries a batch norm, which folds away."""

    def __init__(self, attention: nn.Module, dim: int, mlp_ratio: int, drop_path: float):
        super().__init__()
        self.attn = attention
        self.drop_path = DropPath(drop_path)
        self.mlp = MLP(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class Transformer(nn.Module):
    """`depth` blocks; the drop path's probability grows from 0 at the first to `drop_path` at the last.

    Args:
        attention: the class of the attention. attention_args: what it is built with, the dimension first.
    """

    def __init__(
        self, attention: type[nn.Module], attention_args: tuple[int, ...], depth: int, mlp_ratio: int, drop_path=0.1
    ):
        super().__init__()
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        dim = attention_args[0]
        blocks = [TransformerBlock(attention(*attention_args), dim, mlp_ratio, rate) for rate in rates]
        self.transformer_blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.transformer_blocks(x)
