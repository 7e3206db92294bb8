"""The dual transformer instance decoder: queries look at the scene, then at the details, and become kernels.

(paper: "Dual Transformer Instance Decoder", Fig 3)

    Q (N, D) --> global stage: keys, values X_G = X6            --> Q_G --.   (Q_G is what query passing passes on)
                                                                          |
    Q_L <------- local stage: keys, values X_L = pool(X_mask) <-----------'
     |
     '--> FFN -> class scores (B, N, K), objectness (B, N), mask kernels (B, N, D)

    stage:  Q <- norm(Q + CrossAttention(Q, X + pos, X));  Q <- norm(Q + SelfAttention(Q))      no feed-forward (paper)

Symbols: B batch, N queries, S tokens, D channels, K classes, C6 channels of X6.

Assumption: cross- before self-attention, post-norm, one FFN of width 2 D before the heads.
Assumption: a decoder of one stage (ablation) passes on the output of that stage, and the stage runs again.

Lesson: notebooks/04_dual_decoder.ipynb
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.layers import MultiHeadAttention, SinePositionEmbedding

__all__ = ["DecoderStage", "DualInstanceDecoder", "InstanceHeads"]


class DecoderStage(nn.Module):
    """One update of the queries: cross-attention to tokens, then self-attention among queries; no feed-forward."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.self_attention = MultiHeadAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, tokens: Tensor, position: Tensor, padding: Tensor | None = None) -> Tensor:
        """queries (B, N, D), tokens (B, S, D), position (1, S, D), padding (B, S) bool -> (B, N, D)."""
        queries = self.norm1(queries + self.cross_attention(queries, tokens + position, tokens, padding))
        return self.norm2(queries + self.self_attention(queries, queries, queries))


class InstanceHeads(nn.Module):
    """The last query -> class scores, IoU-aware objectness, mask kernel."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.classes = nn.Linear(dim, num_classes)
        self.objectness = nn.Linear(dim, 1)
        self.kernel = nn.Linear(dim, dim)
        # nearly all queries are background at first: start every class at a probability of 0.01 (focal loss, sec 3.3)
        nn.init.constant_(self.classes.bias, -math.log(0.99 / 0.01))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> (B, N, K), (B, N), (B, N, D)."""
        queries = self.norm(queries + self.ffn(queries))
        return self.classes(queries), self.objectness(queries).squeeze(-1), self.kernel(queries)


class DualInstanceDecoder(nn.Module):
    """Learned queries, updated from X_G, then from X_L.

    Args:
        global_channels: C6. dim: D. num_queries: N. decoder: the stages in order, joined by '-'.
        pooling: "max" (paper) or "avg". pool_size: cells of X_mask in one token (token stride / 8).
        normalise_global: a LayerNorm on the tokens X_G (not in the paper; an ablation of minst.lab).
    """

    def __init__(
        self,
        global_channels: int,
        dim: int,
        num_queries: int,
        num_classes: int,
        heads: int = 8,
        decoder: str = "global-local",
        pooling: str = "max",
        pool_size: int = 8,
        normalise_global: bool = False,
    ):
        super().__init__()
        self.sources = decoder.split("-")  # what each stage looks at
        self.pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
        self.pool_size = pool_size
        self.queries = nn.Parameter(torch.randn(num_queries, dim))
        self.position = SinePositionEmbedding(dim)
        # an ablation without a global stage must not carry its projection: its parameters would never learn
        self.project_global = nn.Linear(global_channels, dim) if "global" in self.sources else None
        if normalise_global and self.project_global is not None:
            self.project_global = nn.Sequential(self.project_global, nn.LayerNorm(dim))
        self.stages = nn.ModuleList(DecoderStage(dim, heads) for _ in self.sources)
        self.heads = InstanceHeads(dim, num_classes)

    def forward(self, x6: Tensor, x_mask: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x6 (B, C6, h, w), x_mask (B, D, H/8, W/8), padding (B, h*w) bool, True = padding.

        Returns the queries that query passing passes on, Q_G (B, N, D), and the last ones (B, N, D).
        """
        queries = self.queries.expand(x6.shape[0], -1, -1)  # (B, N, D)
        first = self.stages[0](queries, *self.tokens(self.sources[0], x6, x_mask), padding)
        last = self.last_stage(first, x6, x_mask, padding) if len(self.stages) == 2 else first
        return first, last

    def last_stage(self, queries: Tensor, x6: Tensor, x_mask: Tensor, padding: Tensor | None = None) -> Tensor:
        """Update `queries` (B, N, D), perhaps those of another frame, from this frame's tokens: query passing."""
        return self.stages[-1](queries, *self.tokens(self.sources[-1], x6, x_mask), padding)

    def tokens(self, source: str, x6: Tensor, x_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens X_G or X_L (B, S, D) and their position embedding (1, S, D)."""
        # the stride is said although it is the default: ExecuTorch 1.3 looks for it
        x = x6 if source == "global" else self.pool(x_mask, self.pool_size, stride=self.pool_size)  # (B, C, h, w)
        tokens = x.flatten(2).transpose(1, 2)  # (B, S, C)
        tokens = self.project_global(tokens) if source == "global" else tokens
        return tokens, self.position(*x.shape[-2:])
