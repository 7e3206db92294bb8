"""Reference solutions of lesson 11, what came after, and what stayed. Made by notebooks/build.py: do not edit."""

# %%
import importlib.util
import json
import time
import numpy as np
import torch
import torch.nn.functional as F
import minst
from minst import visualize
from minst.course import lesson11 as check
from minst.evaluation.consistency import assign_queries, mask_ious
from minst.model import apply_kernels, image_to_batch
from minst.predict import encode, masks_of_queries
from minst.protocol import QueryConfig, QueryFrame

# %%
def factors(model: torch.nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernels (B, N, D) and mask features (B, D, h, w) of a Mask2Former of `transformers`.

    pixels (B, 3, H, W), normalised. Their product is what `model(pixel_values=pixels)` gives as `masks_queries_logits`.
    """
    said, decoder = model(pixel_values=pixels), model.model.transformer_module.decoder
    queries = decoder.layernorm(said.transformer_decoder_last_hidden_state)
    return decoder.mask_predictor.mask_embedder(queries), said.pixel_decoder_last_hidden_state

# %%
print(check.factors(factors))

# %%
def attention_bytes(frames: int, tokens: int, queries: int, heads: int) -> tuple[int, int]:
    """Bytes of float32 attention weights that one layer holds at once: (over the clip, frame by frame).

    Over the clip, all tokens of all frames ask each other; `tokens` are those of one frame. Frame by frame, `queries`
    ask the tokens of one frame, whose weights are gone before the next frame comes.
    """
    clip = heads * (frames * tokens) ** 2
    online = heads * queries * tokens
    return 4 * clip, 4 * online

# %%
print(check.attention_bytes(attention_bytes))

# %%
def instance_wins(kernels: torch.Tensor, handovers: torch.Tensor) -> float:
    """The share of handovers in which the instance's new kernel is more like the old kernel than the query's new one.

    kernels (L, N, D), of N queries in L frames. handovers (rows, 4), whole numbers, one row (t, u, old, new) for each.
    More alike means of larger cosine.
    """
    t, u, old, new = handovers.T
    before, of_query, of_instance = kernels[t, old], kernels[u, old], kernels[u, new]
    to_query = torch.cosine_similarity(before, of_query, dim=-1)
    to_instance = torch.cosine_similarity(before, of_instance, dim=-1)
    return (to_instance > to_query).float().mean().item()

# %%
print(check.instance_wins(instance_wins))

# %%
def encode_frames(model: torch.nn.Module, frames: torch.Tensor) -> QueryFrame:
    """What `model`, a `check.Prototypes`, says of frames (B, 3, H, W) in 0 .. 1, red first.

    QueryFrame(features (B, D, h, w), decode, (H, W)), where `decode` is a function without arguments that returns
    probabilities (B, N, C), "no object" left out, and kernels (B, N, D).
    """
    said = model(255 * frames.flip(1).permute(0, 2, 3, 1))
    probabilities = said["logits"].softmax(-1)[..., :-1]
    features = said["protos"].permute(0, 3, 1, 2)
    return QueryFrame(features, lambda: (probabilities, said["coefficients"]), tuple(frames.shape[-2:]))

# %%
print(check.encode_frames(encode_frames))
