"""The bricks of every part: ConvNorm, MultiHeadAttention and SinePositionEmbedding.

Lesson: notebooks/04_dual_decoder.ipynb
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNorm", "MultiHeadAttention", "SinePositionEmbedding", "fold_batch_norms"]


def h_sigmoid(x: Tensor) -> Tensor:
    """Hard sigmoid relu6(x + 3) / 6: a gate in [0, 1] that costs no exponential; any shape."""
    return F.relu6(x + 3.0) / 6.0


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of `x` to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, activation: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride).

    Sides that the stride does not divide are rounded up. activation: a module, None for none.
    """

    # The convolution's name in a state dict. Subclasses take that of public checkpoints.
    conv_name = "conv"

    def __init__(self, c_in: int, c_out: int, kernel_size=1, stride=1, groups=1, activation=None):
        super().__init__()
        # The batch norm shifts by itself, so a bias would be one shift too many.
        padding = kernel_size // 2
        conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, groups=groups, bias=False)
        # The official initialisation: a variance of 2 / fan out, that of one group.
        nn.init.normal_(conv.weight, std=math.sqrt(2.0 / (kernel_size**2 * c_out / groups)))
        self.add_module(self.conv_name, conv)
        self.bn = nn.BatchNorm2d(c_out)
        self.act = nn.Identity() if activation is None else activation


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution directly before it, in place; return `module`.

    Both must stand in one `nn.Sequential`, as in `ConvNorm` and in torchvision. Outputs stay the
    same within rounding, and a second time changes nothing. RuntimeError in training mode.
    """
    if module.training:
        raise RuntimeError("batch norms are folded in eval mode alone; call model.eval() first")
    for part in module.modules():
        if isinstance(part, nn.Sequential):
            for i, (conv, bn) in enumerate(itertools.pairwise(part)):
                if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                    # In eval mode a norm is a factor and a shift per channel: new weights do both.
                    part[i], part[i + 1] = nn.utils.fuse_conv_bn_eval(conv, bn), nn.Identity()
    return module


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v in each of `heads` slices of d channels; dim: D = heads * d."""

    # Deviation: `torch.nn.MultiheadAttention` is not used, since its fused inference path does not
    # export to mobile runtimes. tests/test_layers.py proves that ours computes the same.

    def __init__(self, dim: int, heads: int = 8):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels; choose a divisor")
        self.heads, self.d = heads, dim // heads
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,  # (B, N, D)
        key: Tensor,  # (B, S, D)
        value: Tensor,  # (B, S, D)
        padding_mask: Tensor | None = None,  # (B, S) bool, True = not a token, look away
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, N, D), and with `return_weights` the attention (B, heads, N, S); rows sum to 1."""
        B, N, _ = query.shape
        # Each head gets d of the D channels, and so can look at something else than the others.
        q = self.q(query).view(B, N, self.heads, self.d).transpose(1, 2)  # (B, heads, N, d)
        k = self.k(key).view(B, -1, self.heads, self.d).transpose(1, 2)  # (B, heads, S, d)
        v = self.v(value).view(B, -1, self.heads, self.d).transpose(1, 2)  # (B, heads, S, d)
        # A = softmax(q k^T / sqrt(d)): how much each query looks at each token. A sum of d products
        # grows like sqrt(d); divided by it, the softmax stays soft however wide the heads are.
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.d)  # (B, heads, N, S)
        if padding_mask is not None:
            # exp(-inf) = 0, so that padding gets no share at all.
            scores = scores.masked_fill(padding_mask[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1)  # (B, heads, N, S)
        # A v: the values, weighed by these shares. Then the heads lie side by side again.
        out = self.out((weights @ v).transpose(1, 2).flatten(2))  # (B, N, D)
        return (out, weights) if return_weights else out


class SinePositionEmbedding(nn.Module):
    """Where a token lies: waves of its row (first half of the D channels), then of its column.

    dim: D, ValueError unless a multiple of 4. temperature: the longest wave over the shortest.
    """

    # Assumption: 100 (DETR: 10000), since on a dozen of cells a longer wave is a constant.
    def __init__(self, dim: int, temperature: float = 100.0):
        super().__init__()
        if dim % 4:
            raise ValueError(f"sine position embedding: {dim} channels is not a multiple of 4")
        # w_i = tau^(-4i / D), i = 0 .. D/4 - 1: from one wave on the axis down to nearly 1/tau.
        # This is a float32 table made once. Computed in `forward` from whole numbers, it would be
        # traced to float64 constants, which mobile runtimes refuse.
        exponent = torch.arange(dim // 4, dtype=torch.float32) / (dim // 4)
        self.register_buffer("frequencies", temperature**-exponent, persistent=False)  # (D/4,)

    def forward(self, height: int, width: int) -> Tensor:
        """Of every cell of a map, (1, H*W, D), row by row as in `x.flatten(2).transpose(1, 2)`."""
        rows = self._waves(height)[:, None, :].expand(-1, width, -1)  # (H, W, D/2)
        columns = self._waves(width)[None, :, :].expand(height, -1, -1)  # (H, W, D/2)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)[None]

    def _waves(self, length: int) -> Tensor:
        """One axis of L cells: PE(p) = [sin(a_p w_i), cos(a_p w_i)] -> (L, D/2)."""
        # In the precision of the weights, since what is added to a token must be of its kind.
        like = self.frequencies
        cells = torch.arange(length, dtype=like.dtype, device=like.device)
        # a_p = 2 pi (p + 1/2) / L, the middle of cell p as an angle: an axis is one full turn,
        # whatever its length, as in DETR. So "upper left" does not move with the resolution.
        angles = (cells + 0.5) * (2 * math.pi / length)  # (L,)
        angles = angles[:, None] * self.frequencies  # (L, D/4)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
