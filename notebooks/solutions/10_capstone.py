"""Reference solutions of lesson 10, capstone. Made by notebooks/build.py: do not edit."""

# %%
import hashlib, json, shutil, tempfile
from pathlib import Path
import numpy as np, torch, minst
from PIL import Image
from minst import data, visualize
from minst.course import lesson10 as check
from minst.labels import check_dataset, split_annotations
from minst.labels.convert import convert
from minst.labels.convert.common import polygon_mask
from minst.evaluation import evaluate_ytvis, identity_events, write_results, write_submission
from minst.mobile.export import export
from minst.training import TrainConfig, train

# %%
def polygon_area(points: np.ndarray) -> float:
    """The area within a polygon, in square pixels: no count of pixels, so it need not be whole.

    points (corners, 2): x, y of each corner, in order, clockwise or not; the last joins the first.
    """
    (x, y), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    return float(abs((x * y1 - x1 * y).sum()) / 2)

# %%
print(check.polygon_area(polygon_area))

# %%
def class_ids(categories: list[dict]) -> tuple[dict[int, int], list[int]]:
    """({id of the file: class}, [id of class 0, of class 1, ...]) for a file's list of {"id": ..., "name": ...}.

    Classes are 0, 1, ... in the order of the list; ids may have gaps and any order.
    """
    back = [category["id"] for category in categories]
    return {number: k for k, number in enumerate(back)}, back

# %%
print(check.class_ids(class_ids))

# %%
def validation_frames(frames: list[str], seed: int, val: float) -> list[str]:
    """The frames of the validation side, in their order. Frames are named "video/frame.jpg"; val is a share, 0 to 1."""
    def place(frame):
        text = f"{seed}:{frame.split('/')[0]}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64

    return [frame for frame in frames if place(frame) < val]

# %%
print(check.validation_frames(validation_frames))

# %%
def linear_scaling(
    lr: float, iterations: int, recipe_batch: int, per_gpu: int, gpus: int, accumulate: int
) -> tuple[float, int]:
    """(learning rate, rounded iterations) where each of `gpus` sees `per_gpu` images, `accumulate` times per step."""
    times = per_gpu * gpus * accumulate / recipe_batch
    return lr * times, round(iterations / times)

# %%
print(check.linear_scaling(linear_scaling))

# %%
def top_entries(results: list[dict], limit: int) -> list[dict]:
    """The `limit` entries of highest score of each video, best first; videos by rising id.

    An entry has "video_id", "category_id", "score" (no two are equal); categories share the limit.
    """
    kept = []
    for video in sorted({entry["video_id"] for entry in results}):
        own = [entry for entry in results if entry["video_id"] == video]
        kept += sorted(own, key=lambda entry: -entry["score"])[:limit]
    return kept

# %%
print(check.top_entries(top_entries))
