"""Augmentation of clips, the same for every frame of a pair, by torchvision's transforms v2.

    frames (L, 3, H, W) uint8, masks (L, G, H, W) bool
      --augmentation(size)--> the same, cropped, flipped, resized
      --frame_instances--> Instances of each frame: what is left of them, on the targets' grid

One draw of random numbers serves all leading dimensions: both frames of a pair move together.

Lesson: notebooks/06_temporal_training.ipynb
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from minst.config import MASK_STRIDE
from minst.matcher import Instances

__all__ = ["augmentation", "frame_instances", "multi_scale", "resize_masks", "transform_clip"]

# Assumption: targets at 1/2 (SparseInst: 1/4). At 1/8 they hold an IoU of 0.85 with the truth at
# most.
TARGET_STRIDE = 2  # of the masks that a loss compares them with
MIN_VISIBLE = 12  # pixels of a mask below which an instance is not to be learned
COLOR = 0.25  # the strength of the jitter of brightness, contrast and saturation


def augmentation(
    size: tuple[int, int], min_scale: float = 0.5, flip: float = 0.5, jitter: float = 0.5
) -> v2.Compose:
    """A crop of `min_scale`..1 of the area at `size` (H, W); a flip to the other side, jittered
    colours, each with its probability."""
    ratio = size[1] / size[0]
    crop = v2.RandomResizedCrop(
        size, scale=(min_scale, 1.0), ratio=(ratio * 0.85, ratio / 0.85), antialias=False
    )
    return _varied(crop, flip, jitter)


def multi_scale(short_sides: Sequence[int], long_side: int, jitter: float = 0.0) -> v2.Compose:
    """A shorter side out of `short_sides`, pixels, the longer one at most `long_side`; flip and
    colours as in `augmentation`.

    The whole picture is kept, in its proportions (the paper: shorter sides 416 to 640 for COCO).
    """
    resize = v2.RandomShortestSize(list(short_sides), long_side, antialias=True)
    return _varied(resize, 0.5, jitter)


def _varied(geometry: v2.Transform, flip: float, jitter: float) -> v2.Compose:
    colors = v2.ColorJitter(brightness=COLOR, contrast=COLOR, saturation=COLOR)
    return v2.Compose([geometry, v2.RandomHorizontalFlip(flip), v2.RandomApply([colors], jitter)])


def transform_clip(transform: v2.Transform, frames: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """frames (L, 3, H, W) uint8 and masks (L, G, H, W) bool, moved alike, as plain tensors."""
    count, instances = masks.shape[:2]
    flat = tv_tensors.Mask(masks.flatten(0, 1).to(torch.uint8))  # v2 takes (..., H, W)
    image, flat = transform(tv_tensors.Image(frames), flat)
    image, flat = image.as_subclass(Tensor), flat.as_subclass(Tensor)
    return image, flat.view(count, instances, *flat.shape[-2:]).bool()


def resize_masks(masks: Tensor, stride: int = TARGET_STRIDE) -> Tensor:
    """Masks of pixels (G, H, W), bool or 0..1 -> the covered share of each cell (G, H', W').

    H' = ceil(H/8) * 8/stride, so that cells lie on those of the mask logits; what lies beyond the
    frame is empty. stride: pixels along a cell, 1, 2, 4 or 8; ValueError for another one.
    """
    if stride not in (1, 2, 4, 8):
        raise ValueError(f"stride is {stride!r}; a cell of a target has 1, 2, 4 or 8 pixels a side")
    G, H, W = masks.shape
    masks = F.pad(masks.float(), (0, -W % MASK_STRIDE, 0, -H % MASK_STRIDE))
    if not G:  # pooling refuses what is empty
        return masks[:, ::stride, ::stride]
    # y(cell) = its covered pixels / its pixels
    return F.avg_pool2d(masks[:, None], stride)[:, 0]


def frame_instances(masks: Tensor, labels: Tensor, stride: int = TARGET_STRIDE) -> Instances:
    """The instances of one frame with at least 12 visible pixels, masks by `resize_masks`.

    The id of an instance is its index in `labels` (G,), the same in all frames of a clip.
    """
    ids = (masks.flatten(1).sum(1) >= MIN_VISIBLE).nonzero().squeeze(1)
    return Instances(labels[ids], resize_masks(masks[ids], stride), ids)
