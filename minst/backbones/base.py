"""The blocks that TopFormer and SeaFormer share.

    Conv2dBN          convolution + batch norm under the checkpoints' names `c` and `bn`
    InvertedResidual  1x1 expand -> k x k depth-wise -> 1x1 project (+ input): mobile convolution
    ConvStage         [stem] -> layer1 -> layer2 -> ..., one inverted residual a row of a table
    TransformerBlock  x + attention(x), then x + MLP(x), on maps: tokens stay where they lie

Names such as `c`, `conv`, `fc1` are those of the official checkpoints, which load as they are.

Lesson: notebooks/02_backbone.ipynb
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from minst.layers import ConvNorm

__all__ = ["MLP", "BackboneFeatures", "Conv2dBN", "ConvStage", "InvertedResidual", "Transformer"]

# One row a layer: (kernel size, expansion, output channels, stride).
Rows = list[tuple[int, float, int, int]]


class BackboneFeatures(NamedTuple):
    """What every backbone makes of a frame (B, 3, H, W)."""

    x3: Tensor  # (B, C3, H/8, W/8)    local features
    x4: Tensor  # (B, C4, H/16, W/16)
    x5: Tensor  # (B, C5, H/32, W/32)
    x6: Tensor  # (B, C6, H/64, W/64)  global feature, or H/32 x W/32 with token_stride = 32


class Conv2dBN(ConvNorm):
    """`ConvNorm` whose convolution is called `c`."""

    conv_name = "c"


class InvertedResidual(nn.Module):
    """Narrow -> wide -> narrow: the costly k x k convolution sees each wide channel alone."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int, expansion: float):
        super().__init__()
        self.out_channels = c_out
        self.residual = stride == 1 and c_in == c_out
        hidden = round(c_in * expansion)
        # The activations are in place: the maps at 1/2 and 1/4 are the largest of the network, and
        # what they cost is memory traffic.
        expand = [Conv2dBN(c_in, hidden), nn.ReLU(inplace=True)] if expansion != 1 else []
        depthwise = Conv2dBN(hidden, hidden, kernel_size, stride, groups=hidden)
        # The projection has no activation: a ReLU on so few channels would destroy what the next
        # block needs.
        project = Conv2dBN(hidden, c_out)
        self.conv = nn.Sequential(*expand, depthwise, nn.ReLU(inplace=True), project)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class ConvStage(nn.Sequential):
    """Inverted residuals `layer1`, ..., one a row; a stride-2 convolution may come first."""

    # `stem` is that convolution's name, on which the official code bases do not agree.
    def __init__(self, rows: Rows, in_channels: int = 16, stem: str | None = None):
        super().__init__()
        if stem is not None:
            convolution = Conv2dBN(3, in_channels, 3, stride=2)
            self.add_module(stem, nn.Sequential(convolution, nn.ReLU(inplace=True)))
        for i, (kernel_size, expansion, out_channels, stride) in enumerate(rows, start=1):
            layer = InvertedResidual(in_channels, out_channels, kernel_size, stride, expansion)
            self.add_module(f"layer{i}", layer)
            in_channels = out_channels
        self.out_channels = in_channels


class MLP(nn.Module):
    """1x1 widen -> 3x3 depth-wise -> ReLU6 -> 1x1 narrow."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        hidden = dim * ratio
        self.fc1 = Conv2dBN(dim, hidden)
        # The 3x3 tells neighbours apart: it is the transformer's only position code. It has no norm
        # behind it, hence a bias.
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU6()
        self.fc2 = Conv2dBN(hidden, dim)
        nn.init.normal_(self.dwconv.weight, std=math.sqrt(2.0 / 9.0))
        nn.init.zeros_(self.dwconv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class TransformerBlock(nn.Module):
    """x + attention(x), then x + MLP(x). No layer norm: every convolution has a batch norm."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, drop_path: float):
        # torchvision takes over a second to import: only who builds a transformer waits for it.
        from torchvision.ops import StochasticDepth

        super().__init__()
        self.attn = attention
        # In training a branch is left out with this probability, sample by sample.
        self.drop_path = StochasticDepth(drop_path, "row")
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        # Each cell learns from the others what the scene shows, ...
        x = x + self.drop_path(self.attn(x))
        # ... and mixes the channels of what it has learned.
        return x + self.drop_path(self.mlp(x))


class Transformer(nn.Sequential):
    """`depth` blocks on maps of `dim` channels; `attention` makes the attention of one of them."""

    def __init__(self, attention: Callable[[], nn.Module], dim: int, depth: int, mlp_ratio: int):
        super().__init__()
        # Drop path grows from 0 to 0.1: what the first blocks compute, all others build on.
        rates = [0.1 * i / max(depth - 1, 1) for i in range(depth)]
        blocks = [TransformerBlock(attention(), MLP(dim, mlp_ratio), rate) for rate in rates]
        self.transformer_blocks = nn.Sequential(*blocks)
