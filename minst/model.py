"""MobileInst: a frame in; classes, objectness, kernels and masks of N queries out (paper: Fig 3).

    frames (B, 3, H, W) in [0, 1] -> normalise, pad to a multiple of 64
      -> backbone          X3, X4, X5, X6
      -> mask decoder      X_mask (B, D, H/8, W/8)
      -> instance decoder  class logits (B, N, C), objectness (B, N), kernels K (B, N, D)
      -> M = K . X_mask    mask logits (B, N, H/8, W/8)                    no NMS, no box

`encode` is what a frame between key frames pays for; `decode` is what only a key frame adds.
A `Frame` lies between the two: it decodes itself when it is first asked to.

Symbols: B batch, N queries, C classes, D channels, H W frame size, Hp Wp the same padded,
    h w = ceil(H/8), ceil(W/8).

Lesson: notebooks/04_dual_decoder.ipynb
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst import backbones, weights
from minst.config import MASK_STRIDE, MobileInstConfig
from minst.instance_decoder import DualInstanceDecoder
from minst.layers import fold_batch_norms
from minst.mask_decoder import MaskDecoder

__all__ = ["Frame", "FrameOutput", "MobileInst", "apply_kernels", "upsample_masks"]

PAD_MULTIPLE = 64


class FrameOutput(NamedTuple):
    """What MobileInst says of a batch of frames; masks are cropped to the frames."""

    class_logits: Tensor  # (B, N, C), a sigmoid each, no "no object" column
    objectness: Tensor  # (B, N) logits: the predicted IoU of the mask
    kernels: Tensor  # (B, N, D)
    mask_features: Tensor  # (B, D, h, w)
    mask_logits: Tensor  # (B, N, h, w) = kernels . mask_features
    global_queries: Tensor  # (B, N, D), what query passing passes on

    # Assumption: the score, as in SparseInst. The paper only says that objectness re-scores.
    def scores(self) -> Tensor:
        """sqrt(class probability * objectness): (B, N, C) in [0, 1]."""
        return (self.class_logits.sigmoid() * self.objectness.sigmoid()[..., None]).sqrt()


@dataclass(eq=False)
class Frame:
    """A frame, or a batch of them, that has been encoded: all that kernel reuse needs."""

    model: "MobileInst"
    x6: Tensor  # (B, C6, tokens high, tokens wide), of the padded frame
    padded_x_mask: Tensor  # (B, D, Hp/8, Wp/8)
    token_padding: Tensor | None  # (B, tokens) bool, True = it lies in padding; None = none does
    size: tuple[int, int]  # (H, W) of the frames as given

    @property
    def x_mask(self) -> Tensor:
        """X_mask without the padding: (B, D, ceil(H/8), ceil(W/8))."""
        h, w = (-(-side // MASK_STRIDE) for side in self.size)
        return self.padded_x_mask[..., :h, :w]

    @cached_property
    def out(self) -> FrameOutput:
        """What the instance decoder says. It is computed once, when it is first asked for."""
        return self.model.decode(self)

    def forget_masks(self) -> Self:
        """Decode, and keep all but the mask logits, which are large. Returns self."""
        self.out = self.out._replace(mask_logits=None)
        return self

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (B, N, D), perhaps of an earlier frame, on this one: mask logits (B, N, h, w)."""
        return apply_kernels(kernels, self.x_mask)

    def select(self, which: slice) -> Self:
        """Some frames of the batch."""
        padding = None if self.token_padding is None else self.token_padding[which]
        return Frame(self.model, self.x6[which], self.padded_x_mask[which], padding, self.size)


class MobileInst(nn.Module):
    """The whole network. `MobileInst(config)` starts from random weights."""

    def __init__(self, config: MobileInstConfig):
        super().__init__()
        self.config = config
        # (height, width) of the frames that its weights have learned from; None = nobody has said.
        self.trained_size: tuple[int, int] | None = None
        self.backbone = backbones.build(config.backbone, config.injection, config.token_stride)
        channels = self.backbone.out_channels  # C3, C4, C5, C6
        enhance, bottom_up = config.semantic_enhancer, config.bottom_up
        self.mask_decoder = MaskDecoder(channels, config.dim, enhance, bottom_up)
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
        for name in ("pixel_mean", "pixel_std"):
            value = torch.tensor(getattr(config, name)).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, frames: Tensor, padding_mask: Tensor | None = None) -> FrameOutput:
        """frames (B, 3, H, W) floats in [0, 1], H and W at least 64; ValueError for others.

        padding_mask: (B, H, W) bool, True where a smaller frame was padded (`pad_batch`).
        """
        return self.decode(self.encode(frames, padding_mask))

    def encode(self, frames: Tensor, padding_mask: Tensor | None = None) -> Frame:
        """Backbone and mask decoder alone: the price of a frame between key frames."""
        check_frames(frames)
        H, W = frames.shape[-2:]
        # Where the weights are, and in their precision: a float64 frame is welcome, too.
        frames = frames.to(self.pixel_mean.device, self.pixel_mean.dtype)
        x = (frames - self.pixel_mean) / self.pixel_std
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
        """Another frame's Q_G (B, N, D), this frame's local decoder -> M~ (B, N, h, w)."""
        # Fig 4: the queries are of frame t, X_L and X_mask of frame t+delta.
        said = self.instance_decoder.local(global_queries, frame.padded_x_mask, frame.token_padding)
        return frame.masks(said.kernels)

    # Deviation: frames need not be multiples of 64. The decoders do not attend to padded tokens,
    # but the backbone sees padding, so that a frame in a batch of larger ones is not computed as it
    # is alone (tests/test_model.py, `moved`, measures by how much). At inference give every size
    # its own batch.
    def _pad(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, 3, Hp, Wp), padded at the right and the bottom, and which tokens see padding alone:
        (B, tokens) bool, None for none.
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
        # A token is a cell of stride x stride pixels. It counts if any of them is inside.
        stride = self.config.token_stride
        token_inside = F.max_pool2d(inside, stride, stride=stride)  # (B, 1, h_tokens, w_tokens)
        return F.pad(x, (0, right, 0, bottom)), token_inside.flatten(1) == 0

    def fuse(self) -> Self:
        """Fold every batch norm into its convolution, in place; sets eval mode. Returns self."""
        return fold_batch_norms(self.eval())

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write model.safetensors (floats as `dtype`) and config.json; an unfused model only."""
        weights.save(self, folder, dtype)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, class_names=None) -> Self:
        """A shipped model by name, or one that `save_pretrained` wrote; in eval mode, float32.

        class_names: for these categories, to be trained on; known ones keep what was learned.
        FileNotFoundError says what was looked for and what is shipped, ValueError what is wrong.
        """
        return weights.load(cls, name_or_folder, class_names)


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """M = K . X_mask (paper, eq. of kernel reuse): (B, N, D), (B, D, h, w) -> (B, N, h, w)."""
    B, D, h, w = mask_features.shape
    # A 1x1 convolution whose weights the frame itself has chosen, written as a product of matrices.
    return (kernels @ mask_features.reshape(B, D, h * w)).view(B, kernels.shape[1], h, w)


def upsample_masks(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits (B, N, h, w) at 1/s, h = ceil(H/s), -> (B, N, H, W), bilinear; size: (H, W)."""
    B, N, h, w = mask_logits.shape
    # Interpolation refuses what is empty.
    if not N:
        return mask_logits.new_zeros(B, 0, *size)
    # s is 8 of MobileInst, 4 of `minst.adapters`. Below 50 pixels ceil(H / h) may be less than 8.
    stride = MASK_STRIDE if h == -(-size[0] // MASK_STRIDE) else -(-size[0] // h)
    full = (h * stride, w * stride)
    upsampled = F.interpolate(mask_logits, size=full, mode="bilinear", align_corners=False)
    return upsampled[..., : size[0], : size[1]]


def image_to_batch(image: Tensor | np.ndarray) -> Tensor:
    """One image, (H, W, 3) or (3, H, W), bytes or floats in [0, 1] -> (1, 3, H, W) floats.

    An array, a tensor or a picture of Pillow's. ValueError for another shape, dtype or range.
    """
    if hasattr(image, "convert"):  # Pillow's: perhaps grey, with a palette, or transparent
        image = image.convert("RGB")
    if not isinstance(image, Tensor):
        # A copy, since torch warns of arrays that are read-only.
        array = np.array(image, order="C")
        if array.dtype.kind not in "uf":
            raise ValueError(f"must be an image, got {type(image).__name__} of {array.dtype}")
        image = torch.from_numpy(array)
    if image.ndim == 3 and image.shape[-1] == 3:
        image = image.permute(2, 0, 1)
    if image.ndim != 3:
        raise ValueError(f"must be (3, H, W) or (H, W, 3), got {tuple(image.shape)}, one frame")
    if image.dtype == torch.uint8:
        image = image.float().div(255)
    check_frames(image[None])
    return image[None]


def check_frames(frames: Tensor) -> None:
    """The commonest mistakes: bytes as they are, 0..255 as floats, frames normalised before."""
    shape = tuple(getattr(frames, "shape", ()))
    if not isinstance(frames, Tensor) or len(shape) != 4 or shape[1] != 3:
        got = shape if isinstance(frames, Tensor) else type(frames).__name__
        raise ValueError(f"frames must be a tensor (B, 3, H, W), got {got}; use image_to_batch")
    if min(shape[2:]) < PAD_MULTIPLE:
        raise ValueError(f"frames must be at least 64 x 64, got {shape[2:]}; resize or pad them")
    said = "frames must be floats in [0, 1]"
    if not frames.is_floating_point():
        raise ValueError(f"{said}, got {frames.dtype}; divide bytes by 255")
    # While a program is made of the model, frames stand for all frames and have no values.
    traced = torch.jit.is_tracing() or torch.compiler.is_compiling() or frames.is_meta
    if traced or not len(frames):
        return
    low, high = (float(value) for value in frames.aminmax())
    # Not exactly 0 and 1, since resizing may swing over at an edge. NaN is nowhere in between.
    if not -1 <= low <= high <= 2:
        hint = "divide bytes by 255, leave normalising to the model, and NaN out"
        raise ValueError(f"{said}, got {low:.3g} .. {high:.3g}; {hint}")
