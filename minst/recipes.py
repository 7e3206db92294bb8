"""What a training may be told, and recipes for it: the paper's, and our own.

    recipe("coco", data=DIR)        270,000 steps of 16 images, shorter sides 416 to 640
      -> runs/coco/weights
    recipe("youtubevis-2019", data=DIR, init="runs/coco/weights")
                                    then pairs of frames, shorter sides 360 to 480
    recipe("photos", data=DIR, backbone_weights=FILE)
                                    images with masks, moved (`minst.data.photos`)
    recipe("finetune", data=DIR)    your own dozen of labelled frames, from the shipped weights

Another `pairs` (frames in a step / 2) scales the learning rate linearly, and the numbers of steps
inversely, so that as many images are seen; what is given by name is taken as it is. `accumulate`
and processes change none of this: they only cut the same batch.

From the paper (nothing more of its training is public): AdamW; COCO with shorter sides 416 to 640
and longer ones up to 864; video with 360 to 480; a backbone that knows ImageNet; image batches
first, temporal training on videos afterwards.

Assumption: 270,000 steps of 16 images, which is SparseInst's schedule, and 100 queries. (A public
    reproduction on images alone takes batches of 64, a learning rate of 5e-5 and weighs the pixel
    loss with 5.)
Assumption: learning rate 1e-4 for 16 images, half of it in the backbone, weight decay 0.05, 1,000
    steps of warm-up, a cosine over the last 22 % in the place of steps (SparseInst, whose losses
    the paper follows, cuts its rate at 78 % and 93 %); no colour jitter; gradients clipped at 1; no
    moving average to speak of (0.999).
Assumption: video training: 12,000 steps (OVIS 20,000) of 8 pairs, 5e-5, frames 1 to 5 apart, no
    image batches.
Assumption: of `photos` all values are ours, chosen by trials (results/photos/TRIALS.md).
Assumption: with more than one process on GPUs, batch norms are synchronised.

Lesson: notebooks/10_capstone.ipynb
"""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from minst.config import MobileInstConfig
from minst.options import Natural, Number, Pixels, Positive, Range, Share, check

__all__ = ["RECIPES", "TrainConfig", "recipe", "switches"]

Few = Annotated[int, Range(0, 1024)]
Side = Annotated[int, Range(0, 8192)]  # pixels
Some = Annotated[int, Range(1, 1024)]
Many = Annotated[int, Range(1, 10**9)]


@dataclass(frozen=True)
class TrainConfig:
    """Every option of `minst train`: its comment is its help, its type says what it may be.

    ValueError names the first field that is out of range.
    """

    out: str = "runs/shapes-tiny"  # folder of log, checkpoint and weights
    preset: str = "shapes-tiny"  # model preset
    switches: str = ""  # fields of the model to change: pooling=avg,bottom_up=off
    init: str = ""  # weights to start from, and their model (a folder or shipped name)
    backbone_weights: str = ""  # a public checkpoint of the backbone alone
    data: str = ""  # folder in YouTube-VIS or COCO form; '' = shapes made on the fly
    split: str = ""  # its split: train, valid, ...; '' = the only one, or train
    annotations: str = ""  # the annotation file, where it has another name or place
    pseudo_clips: bool = False  # images of a folder are moved, instances pasted (minst.data.photos)
    # with --pseudo-clips: names of the categories to learn, with commas; '' = all of the folder
    categories: str = ""
    iterations: Many = 15000  # optimiser steps
    pairs: Many = 8  # pairs of frames a batch (an image batch has twice as many frames)
    accumulate: Many = 1  # parts in which each process computes its share of a batch
    height: Pixels = 192  # height of training frames, pixels
    width: Pixels = 256  # width of training frames, pixels
    short_min: Side = 416  # smallest shorter side, with --short-max
    short_max: Side = 0  # largest shorter side, pixels; 0 = crops of height x width
    long_max: Side = 864  # largest longer side, with --short-max
    image_share: Share = 0.1  # share of image batches, without query passing
    max_gap: Many = 5  # largest distance delta of the frames of a pair
    # pairs of frames of a clip | images, single ones | tokens: images, for the backbone alone
    train_on: Literal["pairs", "images", "tokens"] = "pairs"
    # what a passed query is held to: shared | kept | fresh; off: pairs alone
    query_passing: Literal["shared", "kept", "fresh", "off"] = "shared"
    passing_weight: Number = 1.0  # weight of the losses of query passing
    global_weight: Number = 1.0  # weight of the losses of what the heads say of Q_G; 0 = without
    target_stride: Literal[1, 2, 4, 8] = 2  # pixels along a cell of the targets of masks
    token_weight: Number = 1.0  # weight of the token classifier on X6; 0 = without
    # smallest share of the area that a random crop keeps
    min_scale: Annotated[float, Range(above=0, most=1)] = 0.6
    jitter_probability: Share = 0.5  # how often colours are changed, 0 to 1
    lr: Positive = 1.5e-3  # peak learning rate
    backbone_lr: Number = 1.0  # factor on the learning rate of the backbone
    weight_decay: Number = 0.05  # AdamW's, not on norms, biases and queries
    warmup: Natural = 300  # iterations of linear warm-up
    cosine_share: Share = 0.5  # share of the run, at its end, in which the rate falls
    final_lr: Share = 0.01  # learning rate at the end, as a share of the peak
    max_grad_norm: Positive = 1.0  # largest norm of the gradient
    freeze_norms: bool = False  # batch norms keep their statistics; no drop path
    freeze_blocks: Few = 0  # first blocks of the backbone that stay as they are, norms too
    checkpointing: bool = False  # keep fewer activations, compute them again: less memory
    precision: Literal["fp32", "bf16"] = "fp32"  # fp32 | bf16 (autocast)
    ema: Share = 0.999  # largest decay of the weights' average: less in the first steps
    seed: Natural = 0  # seed of weights, clips and augmentation
    threads: Few = 0  # CPU threads of the network; 0 = torch's choice
    processes: Some = 1  # CPU processes that share each batch (GPUs: accelerate launch)
    workers: Few = 1  # processes that make clips, each; 0 = the training one does
    log_every: Many = 50  # iterations between lines of the log
    save_every: Many = 500  # iterations between checkpoints
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where it trains

    def __post_init__(self):
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            # Exactly: "off" would count as true, true as 1, and a Path is no JSON.
            if type(value) is not kind and (type(value), kind) != (int, float):
                what = f"{field.name} is {value!r}, not of type {kind.__name__}"
                raise ValueError(f"training: {what}")
        check(self, "training")
        if self.train_on == "tokens" and not self.token_weight:
            raise ValueError("training: tokens are all there is to learn, but token_weight is 0")
        if self.pairs % self.processes:
            what = f"{self.processes} processes cannot share {self.pairs} pairs evenly"
            raise ValueError(f"training: {what}")
        if self.short_max and not 64 <= self.short_min <= self.short_max <= self.long_max:
            sides = f"{self.short_min} to {self.short_max}, at most {self.long_max}"
            what = f"shorter sides of {sides}; they must rise, from at least 64 pixels"
            raise ValueError(f"training: {what}")


def switches(text: str) -> dict:
    """ "pooling=avg,bottom_up=off" -> {"pooling": "avg", "bottom_up": False}, fields of a model."""
    words, found = {"on": True, "off": False}, {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        number = int(value) if value.isdecimal() else value
        found[name] = words.get(value, number)
    try:
        MobileInstConfig.from_dict(found)
    except ValueError as error:
        what = f"{text!r} is no switch such as pooling=avg, bottom_up=off, num_queries=50"
        raise ValueError(f"config: {what} ({error})") from None
    return found


_PAPER = {
    "preset": "topformer-base",
    "jitter_probability": 0.0,
    "token_weight": 0.0,  # the backbone comes with what ImageNet taught it
    "backbone_lr": 0.5,
    "warmup": 1000,
    "cosine_share": 0.22,
    "short_max": 640,  # from 416 on
    "workers": 4,
    "save_every": 5000,
    "precision": "bf16",
    "split": "train",
}
_VIDEO = {
    **_PAPER,
    "iterations": 12_000,
    "lr": 5e-5,
    "image_share": 0.0,
    "short_min": 360,
    "short_max": 480,
    "warmup": 500,
    "save_every": 1000,
}
_COCO = {"out": "runs/coco", "iterations": 270_000, "lr": 1e-4, "train_on": "images"}

RECIPES = {
    "shapes": {},
    "coco": {**_PAPER, **_COCO},
    "youtubevis-2019": {**_VIDEO, "out": "runs/youtubevis-2019"},
    "youtubevis-2021": {**_VIDEO, "out": "runs/youtubevis-2021"},
    "ovis": {**_VIDEO, "out": "runs/ovis", "iterations": 20_000},
    # Images with masks and no video, moved; the backbone knows photographs (--backbone-weights).
    "photos": {
        "out": "runs/photos",
        "preset": "mobilenetv2",
        "switches": "num_queries=25,dim=96,token_stride=32",
        "pseudo_clips": True,
        "freeze_blocks": 7,  # down to 1/8: edges and textures are those of any photograph
        "lr": 1e-3,
        "backbone_lr": 0.2,  # at 1 what the backbone knows is lost within 500 steps
        "iterations": 12_000,
        "pairs": 4,
        "train_on": "images",  # first, as in the paper: of pairs half the frames are no news
        "min_scale": 0.8,  # pseudo-clips zoom by themselves
    },
    # A dozen labelled frames on top of what the shipped weights know (lesson 10: how these values
    # were found).
    "finetune": {
        "out": "runs/mine",
        "init": "shapes-tiny",
        "iterations": 150,
        "pairs": 4,
        "lr": 5e-4,
        "backbone_lr": 0.1,
        "freeze_norms": True,  # a few frames make poor statistics
        "token_weight": 0.0,
        "min_scale": 0.4,
        "warmup": 10,
        "cosine_share": 0.7,
        "max_gap": 2,
    },
}


def recipe(name: str, **changes) -> TrainConfig:
    """The recipe `name` with single fields replaced; another `pairs` scales what depends on it.

    ValueError says what there is, or that `init` would ignore the switches.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
    fields = RECIPES[name] | changes
    if name != "shapes" and not fields.get("data"):
        raise ValueError(f"training: recipe {name} needs the folder of its data set: --data DIR")
    if fields.get("init") and changes.get("switches"):
        raise ValueError("training: the weights of init say what they are of; leave switches out")
    usual = TrainConfig(**RECIPES[name])
    factor = fields.get("pairs", usual.pairs) / usual.pairs
    if name != "shapes" and factor > 0:
        # The linear rule (Goyal et al., 2017): k times the batch, k times the rate, a k-th of the
        # steps.
        scaled = {"lr": usual.lr * factor}
        for steps in ("iterations", "warmup"):
            scaled[steps] = max(1, round(getattr(usual, steps) / factor))
        fields = RECIPES[name] | scaled | changes
    return TrainConfig(**fields)
