"""Reference solutions of lesson 06, temporal training. Made by notebooks/build.py: do not edit."""

# %%
import json
import tempfile

import numpy as np
import torch
from IPython.display import Markdown
from torch import Tensor

import minst
from minst import losses, matcher, temporal, training, visualize
from minst.course import lesson06 as check
from minst.evaluation.consistency import assign_queries, frame_share, mask_ious
from minst.model import apply_kernels, image_to_batch, upsample_masks

# %%
def sample_pair(num_frames: int, max_gap: int, rng: np.random.Generator) -> tuple[int, int]:
    """The numbers of two frames of a clip: (t, t + delta), or, half of the time, (t + delta, t).

    delta is drawn uniformly from 1 to max_gap (or to num_frames - 1, when the clip is shorter), then t uniformly
    from all that leave both frames inside the clip. Draw with rng.integers and rng.random, and with nothing else: the
    same rng must give the same pair.
    """
    delta = int(rng.integers(1, min(max_gap, num_frames - 1) + 1))
    t = int(rng.integers(num_frames - delta))
    return (t + delta, t) if rng.random() < 0.5 else (t, t + delta)

# %%
print(check.sample_pair(sample_pair))

# %%
def needed_later(parts: list[str]) -> list[str]:
    """Those of `parts` that passed queries need for frame t+delta, in the order given; Q_G^t is there already.

    parts: some of "backbone", "mask decoder", "global decoder", "local decoder", "class head", "objectness head",
    "kernel head", "class loss", "objectness loss", "mask losses".
    """
    needed = {"backbone", "mask decoder", "local decoder", "kernel head", "mask losses"}
    return [part for part in parts if part in needed]

# %%
print(check.needed_later(needed_later))

# %%
def pass_queries(decoder: torch.nn.Module, global_queries: Tensor, x_mask: Tensor) -> Tensor:
    """Q_G of frame t (B, N, D) and X_mask of frame t+delta (B, D, h, w) -> mask logits (B, N, h, w).

    decoder: a DualInstanceDecoder; its parts are pool(x_mask, pool_size), position(height, width), learned `queries`,
    global_decoder and local_decoder, both (content, queries, tokens, position), and predict(content), with `.kernels`.
    """
    pooled = decoder.pool(x_mask, decoder.pool_size)
    tokens = pooled.flatten(2).transpose(1, 2)
    place = decoder.position(*pooled.shape[-2:])
    content = decoder.local_decoder(global_queries, decoder.queries, tokens, place)
    return apply_kernels(decoder.predict(content).kernels, x_mask)

# %%
print(check.pass_queries(pass_queries))

# %%
def kept_pairs(queries: Tensor, found: Tensor, ids_now: Tensor, ids_later: Tensor) -> tuple[Tensor, Tensor]:
    """The match of frame t, carried to frame t+delta by identity; instances that are gone are left out.

    queries, found (n,): query queries[i] was matched to instance found[i], an index into ids_now (G,).
    ids_now (G,), ids_later (G',): identities of the instances of the two frames, each once, in any order.
    Returns the kept queries, in their order, and their instances as indices into ids_later.
    """
    rows, columns = (ids_now[found][:, None] == ids_later).nonzero(as_tuple=True)
    return queries[rows], columns

# %%
print(check.kept_pairs(kept_pairs))

# %%
def retention(holder: np.ndarray, fits: np.ndarray, visible: np.ndarray, distance: int) -> tuple[int, int]:
    """(kept, of): how many held pairs there are, and in how many the query's mask fits `distance` frames later.

    holder (L, G): the query that holds instance m in frame t, or -1. fits (L, N, G) bool: does the mask of query n fit
    instance m (IoU >= 0.5)? visible (L, G) bool. A pair of frame t counts in `of` when its instance is visible in
    frame t + distance, and in `kept` when the same query fits it there, whoever holds it then.
    """
    kept = of = 0
    for t in range(len(holder) - distance):
        for m, query in enumerate(holder[t]):
            if query >= 0 and visible[t + distance, m]:
                of += 1
                kept += int(fits[t + distance, query, m])
    return kept, of

# %%
print(check.retention(retention))
