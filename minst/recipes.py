"""Training recipes as `TrainConfig`s: the paper's (COCO images first, then temporal training on videos), and our own.

    recipe("coco", data=DIR)                         270,000 steps of 16 images, shorter sides 416 to 640
      -> runs/coco/weights
    recipe("youtubevis-2019", data=DIR, init="runs/coco/weights")      pairs of frames, shorter sides 360 to 480
    recipe("finetune", data=DIR)                     your own dozen of labelled frames, from the shipped weights

Another `pairs` (frames in a step / 2) scales the learning rate linearly, and the numbers of steps inversely, so
that as many images are seen; what is given by name is taken as it is. `accumulate` and processes change none of this:
they only cut the same batch.

From the paper (nothing more of its training is public): AdamW; COCO with shorter sides 416 to 640 and longer ones up to
864; video with 360 to 480; a backbone that knows ImageNet; image batches first, temporal training on videos afterwards.

Assumption: 270,000 steps of 16 images, which is SparseInst's schedule, and 100 queries. (A public reproduction on images
    alone takes batches of 64, a learning rate of 5e-5 and weighs the pixel loss with 5.)
Assumption: learning rate 1e-4 for 16 images, half of it in the backbone, weight decay 0.05, 1,000 steps of warm-up, a
    cosine over the last 22 % in the place of steps (SparseInst, whose losses the paper follows, cuts its rate at 78 %
    and 93 %); no colour jitter; gradients clipped at 1; no moving average to speak of (0.999).
Assumption: video training: 12,000 steps (OVIS 20,000) of 8 pairs, 5e-5, frames 1 to 5 apart, no image batches.
Assumption: with more than one process on GPUs, batch norms are synchronised.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

from minst.training import TrainConfig

__all__ = ["RECIPES", "recipe"]

_PAPER = {
    "preset": "topformer-base",
    "pairs": 8,
    "jitter_probability": 0.0,
    "token_weight": 0.0,  # the backbone comes with what ImageNet taught it
    "backbone_lr": 0.5,
    "weight_decay": 0.05,
    "warmup": 1000,
    "cosine_share": 0.22,
    "short_min": 416,
    "short_max": 640,
    "long_max": 864,
    "workers": 4,
    "save_every": 5000,
    "precision": "bf16",
}
_IMAGES = {**_PAPER, "iterations": 270_000, "lr": 1e-4, "train_on": "images"}
_VIDEO = {**_PAPER, "iterations": 12_000, "lr": 5e-5, "image_share": 0.0, "short_min": 360, "short_max": 480}
_VIDEO |= {"warmup": 500, "save_every": 1000}

RECIPES = {
    "shapes": {},
    "coco": {**_IMAGES, "out": "runs/coco", "split": "train"},
    "youtubevis-2019": {**_VIDEO, "out": "runs/youtubevis-2019", "split": "train"},
    "youtubevis-2021": {**_VIDEO, "out": "runs/youtubevis-2021", "split": "train"},
    # a dozen labelled frames on top of what the shipped weights know (lesson 10: how these values were found)
    "finetune": {
        "out": "runs/mine",
        "init": "shapes-tiny",
        "iterations": 150,
        "pairs": 4,
        "lr": 5e-4,
        "backbone_lr": 0.1,
        "freeze_norms": True,  # a few frames make poor statistics
        "ema": 0.95,
        "token_weight": 0.0,
        "min_scale": 0.4,
        "warmup": 10,
        "cosine_share": 0.7,
        "max_gap": 2,
    },
    "ovis": {**_VIDEO, "out": "runs/ovis", "split": "train", "iterations": 20_000},
}


def recipe(name: str, **changes) -> TrainConfig:
    """The recipe `name` with single fields replaced; another `pairs` scales what depends on it. ValueError: what exists."""
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
    fields = RECIPES[name] | changes
    if name != "shapes":
        if not fields.get("data"):
            raise ValueError(f"training: the recipe {name} needs the folder of its data set: --data DIR")
        fields = _scaled(RECIPES[name], changes) | changes
    return TrainConfig(**fields)


def _scaled(fields: dict, changes: dict) -> dict:
    """The linear rule (Goyal et al., 2017): k times the batch, k times the rate, a k-th of the steps."""
    factor = changes.get("pairs", fields["pairs"]) / fields["pairs"]
    if factor <= 0:
        return fields  # TrainConfig says what is wrong with it
    return fields | {
        "lr": fields["lr"] * factor,
        "iterations": max(1, round(fields["iterations"] / factor)),
        "warmup": max(1, round(fields["warmup"] / factor)),
    }
