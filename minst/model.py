"""MobileInst: a frame in, queries with classes, objectness, kernels and masks out (paper: "Overall Architecture", Fig 3).

    frames (B, 3, H, W) in [0, 1] -> normalise, pad to a multiple of 64
      -> backbone          X3, X4, X5, X6
      -> mask decoder      X_mask (B, D, H/8, W/8)
      -> instance decoder  class logits (B, N, K), objectness (B, N), kernels K (B, N, D)
      -> M = K . X_mask    mask logits (B, N, H/8, W/8)                       no NMS, no box

`encode` is what a frame between key frames pays for; `decode` is what only a key frame adds.

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

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minst import backbones
from minst.config import MobileInstConfig
from minst.instance_decoder import DualInstanceDecoder
from minst.layers import fold_batch_norms
from minst.mask_decoder import MaskDecoder

__all__ = ["Encoded", "FrameOutput", "MobileInst", "as_frames", "pad_batch", "summary"]

PAD_MULTIPLE = 64
MASK_STRIDE = 8


class Encoded(NamedTuple):
    """What backbone and mask decoder know of a frame: all that kernel reuse needs."""

    x6: Tensor  # (B, C6, h, w) tokens of the padded frame
    mask_features: Tensor  # (B, D, ceil(Hp/8), ceil(Wp/8)), still padded
    token_padding: Tensor | None  # (B, h*w) bool, True = the token lies in padding
    size: tuple[int, int]  # (H, W) of the frames as given

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (B, N, D), perhaps those of an earlier frame, on this frame: mask logits (B, N, H/8, W/8)."""
        return apply_kernels(kernels, crop(self))


class FrameOutput(NamedTuple):
    """What MobileInst says of a batch of frames. Masks are cropped to the frame: ceil(H/8) x ceil(W/8)."""

    class_logits: Tensor  # (B, N, K), sigmoid each, no "no object" column
    objectness: Tensor  # (B, N) logits: the predicted IoU of the mask
    kernels: Tensor  # (B, N, D)
    mask_features: Tensor  # (B, D, H/8, W/8)
    mask_logits: Tensor  # (B, N, H/8, W/8) = kernels . mask_features
    global_queries: Tensor  # (B, N, D) what query passing passes on

    def scores(self) -> Tensor:
        """sqrt(class probability * objectness): (B, N, K) in [0, 1]."""
        return (self.class_logits.sigmoid() * self.objectness.sigmoid()[..., None]).sqrt()


class MobileInst(nn.Module):
    """The whole network. `MobileInst(config)` starts from random weights, `from_pretrained` from a folder."""

    def __init__(self, config: MobileInstConfig):
        super().__init__()
        self.config = config
        self.backbone = backbones.build(config.backbone, injection=config.injection, token_stride=config.token_stride)
        channels = self.backbone.out_channels
        self.mask_decoder = MaskDecoder(channels, config.dim, config.semantic_enhancer, config.bottom_up)
        self.instance_decoder = DualInstanceDecoder(
            channels[-1],
            config.dim,
            config.num_queries,
            config.num_classes,
            heads=config.heads,
            decoder=config.decoder,
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

    def encode(self, frames: Tensor, padding_mask: Tensor | None = None) -> Encoded:
        """Backbone and mask decoder alone: the price of a frame between key frames."""
        _check_frames(frames)
        height, width = frames.shape[-2:]
        x = (frames.to(self.pixel_mean.device) - self.pixel_mean) / self.pixel_std
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[:, None], 0.0)
        x, token_padding = self._pad(x, padding_mask)
        x3, x4, x5, x6 = self.backbone(x)
        return Encoded(x6, self.mask_decoder(x3, x4, x5, x6), token_padding, (height, width))

    def decode(self, encoded: Encoded) -> FrameOutput:
        """Queries, heads and masks from what `encode` gave: what only a key frame pays for."""
        x6, x_mask, padding, _ = encoded
        global_queries, queries = self.instance_decoder(x6, x_mask, padding)
        class_logits, objectness, kernels = self.instance_decoder.heads(queries)
        x_mask = crop(encoded)
        return FrameOutput(class_logits, objectness, kernels, x_mask, apply_kernels(kernels, x_mask), global_queries)

    def pass_queries(self, global_queries: Tensor, encoded: Encoded) -> Tensor:
        """Another frame's Q_G (B, N, D) through this frame's last decoder stage -> mask logits (B, N, H/8, W/8)."""
        queries = self.instance_decoder.last_stage(global_queries, *encoded[:3])
        _, _, kernels = self.instance_decoder.heads(queries)
        return encoded.masks(kernels)

    def _pad(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        batch, _, height, width = x.shape
        right, bottom = -width % PAD_MULTIPLE, -height % PAD_MULTIPLE
        if padding_mask is None and not right and not bottom:
            return x, None
        inside = x.new_ones(batch, 1, height, width) if padding_mask is None else (~padding_mask[:, None]).to(x.dtype)
        inside = F.pad(inside, (0, right, 0, bottom))
        # a token counts as padding only when no pixel of its cell lies inside the frame
        tokens_inside = F.max_pool2d(inside, self.config.token_stride, stride=self.config.token_stride)
        return F.pad(x, (0, right, 0, bottom)), tokens_inside.flatten(1) == 0

    def fuse(self) -> MobileInst:
        """Fold every batch norm into its convolution, in place, for inference; sets eval mode. Returns self."""
        return fold_batch_norms(self.eval())

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write model.safetensors (floats as `dtype`) and config.json into `folder`; an unfused model only."""
        if any(isinstance(m, nn.Identity) and name.endswith(".bn") for name, m in self.named_modules()):
            raise ValueError("save_pretrained: this model is fused; save the one before fuse()")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / "model.safetensors"), {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, class_names: Sequence[str] | None = None) -> MobileInst:
        """A shipped model by name ("shapes-tiny") or one that `save_pretrained` wrote; in eval mode, float32.

        With `class_names` a model for these categories, to be trained on: those that the weights know by name keep what
        was learned of them, the others start as in a new model (`torch.manual_seed` decides).
        Raises FileNotFoundError (what was looked for, what is shipped) or ValueError (the key or field at fault).
        """
        folder = _weights_folder(name_or_folder)
        try:
            config = MobileInstConfig.from_dict(json.loads((folder / "config.json").read_text()))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'config.json'} is no MobileInst config: {error}") from None
        model = cls(config)
        try:
            state = load_file(str(folder / "model.safetensors"))
        except SafetensorError as error:
            raise ValueError(f"{folder / 'model.safetensors'} is no safetensors file, or cut short: {error}") from None
        _check_state(state, model.state_dict(), folder)
        if class_names is not None and tuple(class_names) != config.class_names:
            model = cls(replace(config, class_names=tuple(class_names), num_classes=len(class_names)))
            state |= _same_classes(state, config.class_names, model)
        model.load_state_dict(state)
        return model.eval()


def as_frames(image: Tensor | np.ndarray) -> Tensor:
    """One image, (H, W, 3) bytes or (3, H, W) floats in [0, 1] -> (1, 3, H, W) floats; ValueError for another shape."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"arrays must be (H, W, 3) bytes, got {image.shape} {image.dtype}")
        image = (
            torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1).float().div(255)
        )  # a copy: it may be read-only
    if image.ndim != 3:
        raise ValueError(f"must be (3, H, W), got {tuple(image.shape)}: one frame at a time")
    return image[None]


def crop(encoded: Encoded) -> Tensor:
    """X_mask without the padding: (B, D, ceil(H/8), ceil(W/8))."""
    height, width = encoded.size
    return encoded.mask_features[..., : -(-height // MASK_STRIDE), : -(-width // MASK_STRIDE)]


def apply_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """M = K . X_mask (paper, eq. of kernel reuse): (B, N, D), (B, D, h, w) -> (B, N, h, w)."""
    batch, dim, height, width = mask_features.shape
    return (kernels @ mask_features.reshape(batch, dim, height * width)).view(batch, kernels.shape[1], height, width)


def upsample_masks(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits (B, N, h, w) at 1/8 -> (B, N, H, W), bilinear; `size` is (H, W) of the frame."""
    batch, count, height, width = mask_logits.shape
    if not count:  # interpolation refuses what is empty; a frame without instances has no masks
        return mask_logits.new_zeros(batch, 0, *size)
    full = (height * MASK_STRIDE, width * MASK_STRIDE)
    upsampled = F.interpolate(mask_logits, size=full, mode="bilinear", align_corners=False)
    return upsampled[..., : size[0], : size[1]]


def pad_batch(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Frames (3, H_i, W_i) of any sizes -> one batch (B, 3, H, W) and its padding mask (B, H, W).

    The mask is None when all have one size, so that such a batch is computed as without padding.
    """
    height, width = (max(f.shape[d] for f in frames) for d in (-2, -1))
    if all(f.shape[-2:] == (height, width) for f in frames):
        return torch.stack(list(frames)), None
    batch = frames[0].new_zeros(len(frames), 3, height, width)
    mask = torch.ones(len(frames), height, width, dtype=torch.bool)
    for i, frame in enumerate(frames):
        h, w = frame.shape[-2:]
        batch[i, :, :h, :w] = frame
        mask[i, :h, :w] = False
    return batch, mask.to(batch.device)


def summary(model: MobileInst, size: tuple[int, int] = (640, 640)) -> dict[str, dict[str, float]]:
    """Parameters and multiply-accumulates (MACs) of one frame of `size` (H, W), part by part.

    Returns {part: {"params": int, "macs": int}} for backbone, mask_decoder, instance_decoder, masks and total.
    """
    from torch.utils.flop_counter import FlopCounterMode  # brings 70 MB that only counting needs

    frames = torch.zeros(1, 3, *size, device=model.pixel_mean.device)
    training = model.training
    counter = FlopCounterMode(display=False)
    # whatever the caller's mode: the counter hooks on gradients
    with torch.inference_mode(False), torch.enable_grad(), counter:
        model.eval()(frames)
    model.train(training)
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    table = {}
    for part in ("backbone", "mask_decoder", "instance_decoder"):
        params = sum(p.numel() for p in getattr(model, part).parameters())
        # `decode` calls the heads itself, so that the counter does not see them within the instance decoder
        table[part] = {
            "params": params,
            "macs": sum(flops.get(f"MobileInst.{n}", 0) for n in (part, f"{part}.heads")) // 2,
        }
    whole = {"params": sum(p.numel() for p in model.parameters()), "macs": flops["Global"] // 2}
    table["masks"] = {"params": 0, "macs": whole["macs"] - sum(row["macs"] for row in table.values())}
    return {**table, "total": whole}


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(
            f"frames must be (B, 3, H, W), got {tuple(frames.shape)}; add a batch dimension with frames[None]"
        )
    if not frames.is_floating_point():
        raise ValueError(f"frames must be floats in [0, 1], got {frames.dtype}; divide bytes by 255")
    if min(frames.shape[-2:]) < PAD_MULTIPLE:
        raise ValueError(f"frames must be at least 64 x 64, got {tuple(frames.shape[-2:])}; resize or pad them")


def _weights_folder(name_or_folder: str | Path) -> Path:
    from minst.samples import weights_folder  # samples is above the model; only a name needs it

    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = weights_folder(str(name_or_folder))
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no MobileInst folder: {' and '.join(missing)} missing")
    return folder


CLASS_HEAD = "instance_decoder.heads.classes."


def _same_classes(state: dict[str, Tensor], known: Sequence[str], model: MobileInst) -> dict[str, Tensor]:
    """The class head of `model`, with the rows of categories that stand in `known` taken from `state` by name."""
    head = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(CLASS_HEAD)}
    for row, name in enumerate(model.config.class_names):
        if name in known:
            for key, tensor in head.items():
                tensor[row] = state[key][known.index(name)]
    return head


def _check_state(state: dict[str, Tensor], expected: dict[str, Tensor], folder: Path) -> None:
    """Refuse weights of another model, naming the first key at fault."""
    for key in expected:
        if key not in state:
            raise ValueError(f"{folder}: the weights lack {key!r}; config.json describes another model")
        if state[key].shape != expected[key].shape:
            shapes = f"{tuple(state[key].shape)} in the file, {tuple(expected[key].shape)} by config.json"
            raise ValueError(f"{folder}: {key!r} has shape {shapes}")
    extra = [key for key in state if key not in expected]
    if extra:
        raise ValueError(
            f"{folder}: the weights hold {extra[0]!r} ({len(extra)} such keys), unknown to config.json's model"
        )
