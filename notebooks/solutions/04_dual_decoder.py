"""Reference solutions of lesson 04, dual decoder. Made by notebooks/build.py: do not edit."""

# %%
import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import minst
from minst import visualize
from minst.course import lesson04 as check
from minst.evaluation.consistency import assign_queries, frame_share, mask_ious
from minst.layers import MultiHeadAttention
from minst.model import Frame, image_to_batch, upsample_masks

# %%
def cross_attention(
    queries: Tensor, tokens: Tensor, position: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 4.2, one head: queries (N, D), tokens and position (S, D), weights (D, D) -> A (N, S), mixture (N, D).

    Gradients must come back through it (no .item(), no NumPy): it is trained below.
    """
    q, k, v = queries @ w_q, (tokens + position) @ w_k, tokens @ w_v
    shares = (q @ k.T / q.shape[1] ** 0.5).softmax(-1)
    return shares, shares @ v

# %%
print(check.cross_attention(cross_attention))

# %%
def one_voice(queries: Tensor) -> Tensor:
    """Learned queries (N, D) -> other queries (N, D), with which all N kernels of a frame are equal."""
    return queries[:1].repeat(len(queries), 1)

# %%
print(check.one_voice(one_voice))

# %%
def attention_shapes(height: int, width: int, queries: int, heads: int, token_stride: int) -> list[tuple]:
    """Shapes of the attention weights A of one frame (B = 1): [global decoder, local decoder, among queries].

    height, width: of the frame, multiples of 64. token_stride: from token to token of X6 and X_L, 32 or 64.
    """
    tokens = (height // token_stride) * (width // token_stride)
    return [(1, heads, queries, tokens), (1, heads, queries, tokens), (1, heads, queries, queries)]

# %%
print(check.attention_shapes(attention_shapes))

# %%
def masks_from_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Soft masks at full size: kernels (N, D), X_mask (D, h, w) -> probabilities (N, 8 h, 8 w).

    Kernel times features, then bilinear upsampling by 8, then the sigmoid: in this order.
    """
    logits = torch.einsum("nd,dyx->nyx", kernels, mask_features)
    return F.interpolate(logits[None], scale_factor=8, mode="bilinear")[0].sigmoid()

# %%
print(check.masks_from_kernels(masks_from_kernels))

# %%
def instance_scores(class_logits: Tensor, objectness: Tensor) -> Tensor:
    """Eq. 4.6, of class logits (N, C) and objectness logits (N,): scores (N, C)."""
    return (class_logits.sigmoid() * objectness.sigmoid()[:, None]).sqrt()

# %%
print(check.instance_scores(instance_scores))
