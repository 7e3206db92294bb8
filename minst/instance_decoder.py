"""The dual transformer instance decoder: queries look at the scene, then at the details, and become
kernels (paper: "Dual Transformer Instance Decoder", Fig 3).

    nothing -> global decoder <-- X_G = tokens of X6            Q_G, handed on by query passing
    Q_G -----> local decoder <--- X_L = tokens of pool(X_mask)  Q_L
    Q_L -----> heads: class logits (B, N, C), objectness (B, N), mask kernels K (B, N, D)

    The learned queries Q (N, D) say who is asking. Decoders and heads add them to what was seen.

Lesson: notebooks/04_dual_decoder.ipynb
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.layers import MultiHeadAttention, SinePositionEmbedding

__all__ = ["DecoderStage", "DualInstanceDecoder", "InstanceHeads", "Predictions"]


# Assumption: cross- before self-attention, post-norm. The paper says only that the two decoders
# have no feed-forward network; ours has one of width 2 D before the heads.
class DecoderStage(nn.Module):
    """One update of what the queries have seen. It has no feed-forward network: the paper's saving.

    Z <- norm(Z + CrossAttention(Z + Q, X + pos, X))        Z: the content, what has been seen
    Z <- norm(Z + SelfAttention(Z + Q, Z + Q, Z))           Q: the learned queries, who is asking
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.self_attention = MultiHeadAttention(dim, heads)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self, c: Tensor, q: Tensor, x: Tensor, pos: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """c (B, N, D), q (N, D), tokens x (B, S, D), pos (1, S, D), padding (B, S) bool -> c."""
        # Each query looks at the tokens. Who asks, and where a token lies, decides where to look
        # (queries and keys), but is not what is brought back (values).
        c = self.norm1(c + self.cross_attention(c + q, x + pos, x, padding))
        # Each query looks at the other queries: so they agree on who takes which instance.
        return self.norm2(c + self.self_attention(c + q, c + q, c))


class Predictions(NamedTuple):
    """What the heads say of every query."""

    class_logits: Tensor  # (B, N, C), a sigmoid each; there is no "no object" column
    objectness: Tensor  # (B, N) logits: how good is this query's own mask (its IoU)?
    kernels: Tensor  # (B, N, D): K . X_mask is the query's mask


class InstanceHeads(nn.Module):
    """Queries -> class scores, objectness, kernels; the one feed-forward network comes first."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norm = nn.LayerNorm(dim)
        self.classes = nn.Linear(dim, num_classes)
        self.objectness = nn.Linear(dim, 1)
        self.kernel = nn.Linear(dim, dim)
        # At the start nearly all queries are background: let every class begin at sigmoid(bias) =
        # 0.01 (Lin et al., 2017, focal loss, section 3.3).
        nn.init.constant_(self.classes.bias, math.log(0.01 / 0.99))

    def forward(self, q: Tensor) -> Predictions:
        """(B, N, D) -> (B, N, C), (B, N), (B, N, D)."""
        q = self.norm(q + self.ffn(q))
        return Predictions(self.classes(q), self.objectness(q).squeeze(-1), self.kernel(q))


class DualInstanceDecoder(nn.Module):
    """N learned queries, which see the scene (X_G), then the details (X_L)."""

    def __init__(
        self,
        global_channels: int,  # C6
        dim: int,  # D
        num_queries: int,  # N
        num_classes: int,  # C
        heads: int = 8,  # of every attention
        pooling: str = "max",  # X_mask -> X_L: "max" (paper) | "avg"
        pool_size: int = 8,  # cells of X_mask along a token
        normalise_global: bool = True,  # the layer norm on the tokens X_G
    ):
        super().__init__()
        self.pooling, self.pool_size = pooling, pool_size
        self.queries = nn.Parameter(torch.randn(num_queries, dim))  # Q (N, D), of every frame
        self.position = SinePositionEmbedding(dim)
        self.global_projection = nn.Linear(global_channels, dim)  # C6 -> D
        # Deviation: a layer norm on X_G. Without one X6 grows in training until a few tokens take
        # most of the attention (lesson 04 shows it).
        self.global_norm = nn.LayerNorm(dim) if normalise_global else nn.Identity()
        self.global_decoder = DecoderStage(dim, heads)
        self.local_decoder = DecoderStage(dim, heads)
        self.heads = InstanceHeads(dim, num_classes)

    def forward(
        self, x6: Tensor, x_mask: Tensor, padding: Tensor | None = None
    ) -> tuple[Predictions, Tensor]:
        """X6 (B, C6, h, w), X_mask (B, D, H/8, W/8), padding (B, h*w) -> ..., Q_G (B, N, D)."""
        B, (N, D) = len(x6), self.queries.shape
        # Assumption: what is handed on starts from nothing, and learned queries are added where
        # somebody asks, as in DETR. So Q_G holds only what a frame has shown. Where the learned
        # queries are handed on themselves, Q_G becomes little else (data_samples/README.md).
        nothing = x6.new_zeros(B, N, D)
        x_g, pos = self.global_tokens(x6)  # (B, S, D), (1, S, D)
        q_g = self.global_decoder(nothing, self.queries, x_g, pos, padding)  # (B, N, D)
        # Q_G says what is in the scene, and is what query passing hands on. Where exactly is it?
        return self.local(q_g, x_mask, padding), q_g

    def local(self, q_g: Tensor, x_mask: Tensor, padding: Tensor | None = None) -> Predictions:
        """The second half: Q_G (B, N, D) -> predictions for the frame of `x_mask`.

        In query passing Q_G is another frame's (Fig 4); `x_mask` alone says which is segmented.
        """
        x_l, pos = self.local_tokens(x_mask)  # (B, S, D), (1, S, D)
        q_l = self.local_decoder(q_g, self.queries, x_l, pos, padding)  # (B, N, D)
        return self.predict(q_l)

    def predict(self, seen: Tensor) -> Predictions:
        """What the heads say of Q_L (B, N, D). In training Q_G is asked, too: it must see."""
        return self.heads(seen + self.queries)

    def global_tokens(self, x6: Tensor) -> tuple[Tensor, Tensor]:
        """X_G (B, S, D), S = h*w, row by row, and where each token lies (1, S, D)."""
        x_g = self.global_projection(x6.flatten(2).transpose(1, 2))
        return self.global_norm(x_g), self.position(*x6.shape[-2:])

    def local_tokens(self, x_mask: Tensor) -> tuple[Tensor, Tensor]:
        """X_L (B, S, D), the maximum of each block of X_mask, and where it lies (1, S, D)."""
        pooled = self.pool(x_mask, self.pool_size)  # (B, D, h, w)
        return pooled.flatten(2).transpose(1, 2), self.position(*pooled.shape[-2:])

    def pool(self, x_mask: Tensor, size: int) -> Tensor:
        """One value for each block of cells: (B, D, H, W) -> (B, D, H/size, W/size)."""
        # A maximum keeps the detail that a mean washes out (paper, ablation).
        summary = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
        # The stride is said although it is the default, since ExecuTorch 1.3 looks for it.
        return summary(x_mask, size, stride=size)
