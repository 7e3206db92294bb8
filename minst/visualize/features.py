"""A feature map as colours: the three directions of largest variance become red, green and blue.

    (C, h, w) ─ PCA over the positions ─> (3, h, w) ─ 1st to 99th percentile ─> [0, 1]

Maps can be compared by colour only where they share a PCA.

Lesson: notebooks/03_mask_decoder.ipynb
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["pca_rgb"]


def pca_rgb(*maps: Tensor) -> tuple[list[np.ndarray], float]:
    """Maps (C, h_i, w_i), C >= 3 -> pictures (h_i, w_i, 3) in [0, 1]; the share of variance shown.

    One PCA for all. The sign of a direction is free; here its largest channel counts positive, so
    that no picture flips between runs.
    """
    x = torch.cat([m.detach().double().flatten(1) for m in maps], dim=1)  # (C, P)
    x = x - x.mean(1, keepdim=True)
    variances, directions = torch.linalg.eigh(x @ x.T)  # ascending
    top = directions[:, -3:].flip(1).T  # (3, C), the largest variance first
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    # a direction without variance is rounding, which must not be stretched to full contrast
    top = top * (variances[-3:].flip(0) > 1e-9 * variances[-1])[:, None]
    scores = top @ x  # (3, P)
    ends = torch.tensor([0.01, 0.99], dtype=x.dtype)
    low, high = torch.quantile(scores, ends, dim=1)  # (3,) each
    varies = (high > low)[:, None]  # what does not is grey
    colors = torch.where(varies, (scores - low[:, None]) / (high - low)[:, None], 0.5).clamp(0, 1)
    parts = colors.split([m.shape[1] * m.shape[2] for m in maps], dim=1)
    pictures = [part.T.reshape(*m.shape[1:], 3).numpy() for part, m in zip(parts, maps)]
    return pictures, float(variances[-3:].sum() / variances.sum().clamp_min(1e-30))
