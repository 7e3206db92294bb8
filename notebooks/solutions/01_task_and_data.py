"""Reference solutions of lesson 01, task and data. Made by notebooks/build.py: do not edit."""

# %%
import json
import tempfile
from itertools import permutations
from pathlib import Path
import numpy as np
from pycocotools import mask as rle_codec
import minst
from minst import data, visualize
from minst.course import lesson01 as check
from minst.tracking import encode_mask

# %%
def rle_encode(mask: np.ndarray) -> list[int]:
    """A mask (H, W) bool -> lengths of its runs, read column by column: zeros, ones, zeros, ...

    A mask whose first pixel is a one begins with a run of 0 zeros. The counts add up to H * W.
    """
    pixels = mask.flatten(order="F")
    borders = [0, *(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1).tolist(), len(pixels)]
    counts = np.diff(borders).tolist()
    return [0, *counts] if pixels[0] else counts

# %%
print(check.rle_encode(rle_encode))

# %%
def counted_frames(first: list[bool], second: list[bool]) -> list[int]:
    """Numbers of the frames that contribute to the denominator (the union) of the IoU of two tracks, in order.

    first[t], second[t]: has the first, the second track a mask in frame t?
    """
    return [t for t in range(len(first)) if first[t] or second[t]]

# %%
print(check.counted_frames(counted_frames))

# %%
def tube_iou(predictions: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """IoU of all pairs of tracks: predictions (R, L, H, W) bool, truths (G, L, H, W) bool -> (R, G) floats.

    Every track has a mask in some frame.
    """
    p, g = (tracks.reshape(len(tracks), -1).astype(float) for tracks in (predictions, truths))
    shared = p @ g.T  # (R, G)
    return shared / (p.sum(1)[:, None] + g.sum(1) - shared)

# %%
print(check.tube_iou(tube_iou))

# %%
def average_precision(scores: np.ndarray, hits: np.ndarray, num_truths: int) -> float:
    """AP at one threshold: scores (R,) in no order, hits (R,) bool of the same tracks -> the mean of 101 precisions.

    Recalls: np.linspace(0, 1, 101). num_truths: true tracks, found or not.
    """
    found = np.cumsum(hits[np.argsort(-scores)])
    precision, recall = found / np.arange(1, len(hits) + 1), found / num_truths
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]))

# %%
print(check.average_precision(average_precision))

# %%
def perfect_and_worthless(truths: np.ndarray) -> np.ndarray:
    """Truths (G, L, H, W) bool, G >= 2, of one category -> predictions of the same shape with AP50 = 0.

    In every frame the predictions must be exactly the true masks, each once. All creatures stay in sight.
    """
    num_tracks, num_frames = truths.shape[:2]
    return np.stack([[truths[(g + t) % num_tracks, t] for t in range(num_frames)] for g in range(num_tracks)])

# %%
print(check.perfect_and_worthless(perfect_and_worthless))
