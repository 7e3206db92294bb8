"""MobileInst: a frame in, queries with classes, objectness, kernels and masks out (paper: "Overall Architecture", Fig 3).

    frames (B, 3, H, W) in [0, 1] -> normalise, pad to a multiple of 64
      -> backbone          X3, X4, X5, X6
      -> mask decoder      X_mask (B, D, H/8, W/8)
      -> instance decoder  class logits (B, N, K), objectness (B, N), kernels K (B, N, D)
      -> M = K . X_mask    mask logits (B, N, H/8, W/8)                       no NMS, no box

`encode` is what a frame between key frames pays for; `decode` is what only a key frame adds. A `Frame` lies between the
two: it decodes itself when it is asked for the first time.

Symbols: B batch, N queries, K classes, D channels, H W frame size, Hp Wp the same padded, h w = ceil(H/8), ceil(W/8).

Assumption: score = sqrt(class probability * objectness), as in SparseInst.
Deviation: frames need not be multiples of 64. Padded tokens are masked in the decoder's attention, but the backbone's
    own attention and pooling do see padding, and positions are shares of the padded frame. Nothing moves when a batch
    is padded to the multiple of 64 that the frame has alone. Otherwise it does, with the shipped weights and frames of
    128 x 192 or 120 x 180 in a batch of 192 x 256: mask probabilities by 0.025 in the mean (single pixels by 0.97), class
    scores by 0.03 (at most 0.8), IoU of the reported masks with those of the frame alone 0.88 and 0.89. So at
    inference give every size its own batch. (`moved` in tests/test_model.py measures it.)

Lesson: notebooks/04_dual_decoder.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst import backbones, weights
from minst.config import MobileInstConfig
from minst.instance_decoder import DualInstanceDecoder
from minst.layers import fold_batch_norms
from minst.mask_decoder import MaskDecoder

__all__ = ["Frame", "FrameOutput", "MobileInst", "apply_kernels", "image_to_batch", "pad_batch", "upsample_masks"]

PAD_MULTIPLE = 64
MASK_STRIDE = 8


class FrameOutput(NamedTuple):
    """What MobileInst says of a batch of frames. Masks are cropped to the frame: h = ceil(H/8), w = ceil(W/8)."""

    class_logits: Tensor  # (B, N, K), a sigmoid each, no "no object" column
    objectness: Tensor  # (B, N) logits: the predicted IoU of the mask
    kernels: Tensor  # (B, N, D)
    mask_features: Tensor  # (B, D, h, w)
    mask_logits: Tensor  # (B, N, h, w) = kernels . mask_features
    global_queries: Tensor  # (B, N, D), what query passing passes on

    def scores(self) -> Tensor:
        """sqrt(class probability * objectness): (B, N, K) in [0, 1]."""
        return (self.class_logits.sigmoid() * self.objectness.sigmoid()[..., None]).sqrt()


class Frame:
    """A frame, or a batch of them, that has been encoded: all that kernel reuse needs.

    Attributes:
        x6: (B, C6, tokens high, tokens wide), of the padded frame.
        padded_x_mask: X_mask (B, D, Hp/8, Wp/8), of the padded frame.
        token_padding: (B, tokens) bool, True = the token lies in padding; None = none does.
        size: (H, W) of the frames as given.
    """

    def __init__(
        self, model: MobileInst, x6: Tensor, x_mask: Tensor, padding: Tensor | None, size: tuple[int, int]
    ):
        self.model, self.x6, self.padded_x_mask, self.token_padding, self.size = model, x6, x_mask, padding, size

    @property
    def x_mask(self) -> Tensor:
        """X_mask without the padding: (B, D, ceil(H/8), ceil(W/8))."""
        h, w = (-(-side // MASK_STRIDE) for side in self.size)
        return self.padded_x_mask[..., :h, :w]

    @cached_property
    def out(self) -> FrameOutput:
        """What the instance decoder says. It is computed once, when it is first asked for."""
        return self.model.decode(self)

    def forget_masks(self) -> Frame:
        """Decode, and keep all but the mask logits of all queries, which are large. Returns self."""
        self.out = self.out._replace(mask_logits=None)
        return self

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (B, N, D), perhaps those of an earlier frame, on this frame: mask logits (B, N, h, w)."""
        return apply_kernels(kernels, self.x_mask)

    def select(self, which: slice) -> Frame:
        """Some frames of the batch."""
        padding = None if self.token_padding is None else self.token_padding[which]
        return Frame(self.model, self.x6[which], self.padded_x_mask[which], padding, self.size)


class MobileInst(nn.Module):
    """The whole network. `MobileInst(config)` starts from random weights, `from_pretrained` from a folder."""

    def __init__(self, config: MobileInstConfig):
        super().__init__()
        self.config = config
        self.backbone = backbones.build(config.backbone, injection=config.injection, token_stride=config.token_stride)
        channels = self.backbone.out_channels  # C3, C4, C5, C6
        self.mask_decoder = MaskDecoder(channels, config.dim, config.semantic_enhancer, config.bottom_up)
        self.instance_decoder = DualInstanceDecoder(
            channels[-1],
            config.dim,
            config.num_queries,
            config.num_classes,
            heads=config.heads,
            pooling=config.pooling,
            pool_size=config.token_stride // MASK_STRIDE,
            normalise_global=config.normalise_global,
        )
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor, padding_mask: Tensor | None = None) -> FrameOutput:
        """frames (B, 3, H, W) floats in [0, 1], H and W at least 64 -> FrameOutput.

        padding_mask (B, H, W) bool, True where a frame smaller than the batch was padded (see `pad_batch`).
        Raises ValueError for another shape or an integer dtype.
        """
        return self.decode(self.encode(frames, padding_mask))

    def encode(self, frames: Tensor, padding_mask: Tensor | None = None) -> Frame:
        """Backbone and mask decoder alone: the price of a frame between key frames."""
        _check_frames(frames)
        H, W = frames.shape[-2:]
        x = (frames.to(self.pixel_mean.device) - self.pixel_mean) / self.pixel_std
        # Padding is the mean colour, as far from any edge as a colour can be.
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[:, None], 0.0)
        x, token_padding = self._pad(x, padding_mask)
        # The pyramid: local features at 1/8, 1/16, 1/32, and one global feature.
        x3, x4, x5, x6 = self.backbone(x)
        # One mask feature for all instances of the frame.
        x_mask = self.mask_decoder(x3, x4, x5, x6)  # (B, D, Hp/8, Wp/8)
        return Frame(self, x6, x_mask, token_padding, (H, W))

    def decode(self, frame: Frame) -> FrameOutput:
        """Queries, heads and masks from what `encode` gave: what only a key frame pays for."""
        # The decoder attends to the padded frame, whose padding is masked.
        said, q_g = self.instance_decoder(frame.x6, frame.padded_x_mask, frame.token_padding)
        # M = K . X_mask
        mask_logits = frame.masks(said.kernels)  # (B, N, h, w)
        return FrameOutput(*said, frame.x_mask, mask_logits, q_g)

    def pass_queries(self, global_queries: Tensor, frame: Frame) -> Tensor:
        """Another frame's Q_G (B, N, D) through this frame's local decoder -> mask logits M~ (B, N, h, w)."""
        # Fig 4: the queries are of frame t, X_L and X_mask of frame t+delta.
        said = self.instance_decoder.local(global_queries, frame.padded_x_mask, frame.token_padding)
        return frame.masks(said.kernels)

    def _pad(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Pad at the right and the bottom to multiples of 64, and say which tokens see padding alone.

        x (B, 3, H, W) -> (B, 3, Hp, Wp); padding_mask (B, H, W) bool or None -> (B, tokens) bool, or None: none does.
        """
        B, _, H, W = x.shape
        right, bottom = -W % PAD_MULTIPLE, -H % PAD_MULTIPLE
        if padding_mask is None and right == bottom == 0:
            return x, None
        # 1 where a pixel belongs to the frame; what we add is outside.
        inside = x.new_ones(B, 1, H, W)
        if padding_mask is not None:
            inside = inside.masked_fill(padding_mask[:, None], 0.0)
        inside = F.pad(inside, (0, right, 0, bottom))  # (B, 1, Hp, Wp)
        # A token is a cell of stride x stride pixels. It may be attended to if any of them is inside.
        stride = self.config.token_stride
        token_inside = F.max_pool2d(inside, stride, stride=stride)  # (B, 1, tokens high, tokens wide)
        return F.pad(x, (0, right, 0, bottom)), token_inside.flatten(1) == 0

    def fuse(self) -> MobileInst:
        """Fold every batch norm into its convolution, in place, for inference; sets eval mode. Returns self."""
        return fold_batch_norms(self.eval())

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write model.safetensors (floats as `dtype`) and config.json into `folder`; an unfused model only."""
        weights.save(self, folder, dtype)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, class_names: Sequence[str] | None = None) -> MobileInst:
        """A shipped model by name ("shapes-tiny") or one that `save_pretrained` wrote; in eval mode, float32.

        With `class_names` a model for these categories, to be trained on: those that the weights know by name keep what
        was learned of them, the others start as in a new model (`torch.manual_seed` decides).
        Raises FileNotFoundError (what was looked for, what is shipped) or ValueError (the key or field at fault).
        """
        return weights.load(cls, name_or_folder, class_names)


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """M = K . X_mask (paper, eq. of kernel reuse): (B, N, D), (B, D, h, w) -> (B, N, h, w)."""
    B, D, h, w = mask_features.shape
    # A 1x1 convolution whose weights the frame itself has chosen, written as a product of matrices.
    return (kernels @ mask_features.reshape(B, D, h * w)).view(B, kernels.shape[1], h, w)


def upsample_masks(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits (B, N, h, w) at 1/8 -> (B, N, H, W), bilinear; `size` is (H, W) of the frame."""
    B, N, h, w = mask_logits.shape
    if not N:  # interpolation refuses what is empty; a frame without instances has no masks
        return mask_logits.new_zeros(B, 0, *size)
    full = (h * MASK_STRIDE, w * MASK_STRIDE)
    upsampled = F.interpolate(mask_logits, size=full, mode="bilinear", align_corners=False)
    return upsampled[..., : size[0], : size[1]]


def image_to_batch(image: Tensor | np.ndarray) -> Tensor:
    """One image, (H, W, 3) bytes or (3, H, W) floats in [0, 1] -> (1, 3, H, W) floats; ValueError for another shape."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"arrays must be (H, W, 3) bytes, got {image.shape} {image.dtype}")
        # A copy, since torch warns of arrays that are read-only.
        image = torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)
        image = image.float().div(255)
    if image.ndim != 3:
        raise ValueError(f"must be (3, H, W), got {tuple(image.shape)}: one frame at a time")
    return image[None]


def pad_batch(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Frames (3, H_i, W_i) of any sizes -> one batch (B, 3, H, W) and its padding mask (B, H, W).

    The mask is None when all have one size, so that such a batch is computed as without padding.
    """
    H, W = (max(frame.shape[d] for frame in frames) for d in (-2, -1))
    if all(frame.shape[-2:] == (H, W) for frame in frames):
        return torch.stack(list(frames)), None
    # Everything is padding until a frame is laid over it.
    batch = frames[0].new_zeros(len(frames), 3, H, W)
    padding_mask = torch.ones(len(frames), H, W, dtype=torch.bool)
    for i, frame in enumerate(frames):
        h, w = frame.shape[-2:]
        batch[i, :, :h, :w] = frame
        padding_mask[i, :h, :w] = False
    return batch, padding_mask.to(batch.device)


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(
            f"frames must be (B, 3, H, W), got {tuple(frames.shape)}; add a batch dimension with frames[None]"
        )
    if not frames.is_floating_point():
        raise ValueError(f"frames must be floats in [0, 1], got {frames.dtype}; divide bytes by 255")
    if min(frames.shape[-2:]) < PAD_MULTIPLE:
        raise ValueError(f"frames must be at least 64 x 64, got {tuple(frames.shape[-2:])}; resize or pad them")
