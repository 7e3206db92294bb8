"""What a model must offer so that tracker, Fig 2, retention and evaluation can look at it.

    frames (B, 3, H, W) -> model.encode -> frame      mask features: what every frame costs
                           frame.out    -> said       scores, kernels, masks: what a key frame adds
                           frame.masks(K)             K . X_mask, with kernels of any frame

`MobileInst` is such a model; `minst.adapters` makes one of a model of `transformers`. For a model
of your own write `config` and `encode`, and let `encode` return a `QueryFrame`. `open_model` gives
what is named or handed over; `category_key` is equal where two names mean one category.

Symbols: B batch, N queries, C classes, D channels, H W frame size, h w = ceil(H/s), ceil(W/s) for
    any whole stride s: 8 of MobileInst, 4 of QueryFrame. `upsample_masks` finds s by itself.

Lesson: notebooks/11_what_came_after.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.model import FrameOutput, MobileInst, apply_kernels

__all__ = ["EncodedFrame", "QueryConfig", "QueryFrame", "QueryModel", "Said", "category_key",
           "open_model"]  # fmt: skip

STRIDE = 4  # of the mask features of a QueryFrame
TINY = 1e-6
# Names of PASCAL VOC and YouTube-VIS, and what COCO calls the same.
SYNONYMS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


class Said(Protocol):
    """What a model says of a batch of frames. A NamedTuple, since Recording calls `_replace`."""

    class_logits: Tensor  # (B, N, C), whose sigmoid is p(class); no "no object" column
    kernels: Tensor  # (B, N, D)
    mask_features: Tensor  # (B, D, h, w)
    mask_logits: Tensor | None  # (B, N, h, w) = kernels . mask_features
    global_queries: Tensor | None  # (B, N, D), Q_G; None where a model has none

    def scores(self) -> Tensor:
        """By which detections are ranked: (B, N, C) in [0, 1]."""


@runtime_checkable
class EncodedFrame(Protocol):
    """A batch of frames of one size that `encode` has seen."""

    size: tuple[int, int]  # (H, W) of the frames as given

    @property
    def out(self) -> Said:
        """Computed when it is first asked for, and remembered."""

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (B, N, D), perhaps of another frame, on this one: mask logits (B, N, h, w)."""

    def forget_masks(self) -> Self:
        """Compute `out`, and set its `mask_logits`, which are large, to None. Returns self."""


@runtime_checkable
class QueryModel(Protocol):
    """A model whose masks are products of queries' kernels with the mask features of a frame."""

    config: QueryConfig  # or another with these fields

    def eval(self) -> Self:
        """To evaluation mode."""

    def encode(self, frames: Tensor) -> EncodedFrame:
        """frames (B, 3, H, W) floats in [0, 1], at least 64 x 64; ValueError for others."""


class QueryConfig(NamedTuple):
    """What the instruments ask of a model's config."""

    class_names: tuple[str, ...]  # none where the config only numbers its classes
    num_classes: int
    num_queries: int


def open_model(model: str | Path | QueryModel, device: torch.device | None = None) -> QueryModel:
    """Shipped weights by name, a folder that `save_pretrained` wrote, or a model: to evaluation."""
    if isinstance(model, (str, Path)):
        model = MobileInst.from_pretrained(model).fuse()
    return model.to(device).eval() if isinstance(model, nn.Module) else model.eval()


def category_key(name: str) -> str:
    """What names of one category have in common: "Tennis_Racket" is "tennis racket"."""
    key = re.sub(r"[\W_]+", "", name.casefold())
    return SYNONYMS.get(key, key)


class QueryOutput(FrameOutput):
    """A FrameOutput whose `objectness` multiplies the probability, without the root."""

    def scores(self) -> Tensor:
        """p(class) * p(mask): (B, N, C) in [0, 1]."""
        return self.class_logits.sigmoid() * self.objectness.sigmoid()[..., None]


class QueryFrame:
    """A batch of frames that a model has encoded: `minst.protocol.EncodedFrame`.

    features: (B, D, n, m), any grid that begins at the frame's upper left corner.
    decode: returns probabilities (B, N, C) of the classes and kernels (B, N, D).
    size: (H, W) of the frames. inside: share of the grid's height and width that shows the frame,
    less than 1 where it was padded. rate_masks: scores are multiplied with the masks' certainty.
    """

    def __init__(
        self,
        features: Tensor,
        decode: Callable[[], tuple[Tensor, Tensor]],
        size: tuple[int, int],
        inside: tuple[float, float] = (1.0, 1.0),
        rate_masks: bool = True,
    ):
        self.x_mask, self.size = on_frame(features, size, inside), size
        self._decode, self._rate_masks = decode, rate_masks

    @cached_property
    def out(self) -> QueryOutput:
        """What the model says. It is computed once, when it is first asked for."""
        probabilities, kernels = self._decode()
        self._decode = None  # it may hold large features
        masks = self.masks(kernels)  # (B, N, h, w)
        certain = torch.ones_like(kernels[..., 0])  # (B, N)
        if self._rate_masks:
            found = (masks > 0).flatten(2)
            certain = (masks.flatten(2).sigmoid() * found).sum(-1) / (found.sum(-1) + TINY)
        logits, objectness = torch.logit(probabilities, TINY), torch.logit(certain, TINY)
        return QueryOutput(logits, objectness, kernels, self.x_mask, masks, None)

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (B, N, D), perhaps of an earlier frame, on this one: mask logits (B, N, h, w)."""
        return apply_kernels(kernels, self.x_mask)

    def forget_masks(self) -> QueryFrame:
        """Decode, and keep all but the mask logits, which are large. Returns self."""
        self.out = self.out._replace(mask_logits=None)
        return self


def on_frame(features: Tensor, size: tuple[int, int], inside: tuple[float, float]) -> Tensor:
    """Features (B, D, n, m) at the centres of the cells of the frame: (B, D, ceil(H/4), ceil(W/4)).

    inside: the share of the grid's sides that shows the frame.
    """
    centres = []
    for side, share in zip(size, inside):
        cells = torch.arange(-(-side // STRIDE), device=features.device, dtype=features.dtype)
        # from pixels of the frame to -1 .. 1 over the whole grid
        centres.append(2 * share * (cells + 0.5) * STRIDE / side - 1)
    y, x = torch.meshgrid(*centres, indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(features), -1, -1, -1)  # (B, h, w, 2)
    return F.grid_sample(features, grid, padding_mode="border", align_corners=False)
