"""The programs that a device runs: MobileInst cut where the tracker needs it, for one frame size.

    full      key    frame                  -> class_logits, objectness, kernels, mask_features,
                                               mask_logits
              reuse  frame, kernels         -> mask_logits         features, then K . X_mask with
                                                                   the kernels given
    features         frame                  -> x6, mask_features   backbone and mask decoder alone
    masks            kernels, mask_features -> mask_logits         K . X_mask alone

Paper: kernel reuse. A frame is (1, 3, H, W) floats in [0, 1]: normalisation and padding to a
multiple of 64 are inside every program. What follows the masks is outside, for it depends on how
many instances there are: scores = sqrt(class probability * objectness), the threshold, association
between key frames, bilinear upsampling by 8, the cut at probability 0.5.

Symbols: N queries, K classes, D channels, H W frame size, h w = ceil(H/8), ceil(W/8).

Assumption: batch 1 and a fixed size, as on a phone: every shape is a constant that the optimisers
    can use.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from minst.config import MobileInstConfig
from minst.model import MobileInst, apply_kernels, image_to_batch
from minst.options import FrameSize, check_call
from minst.samples import load_sample

__all__ = ["PARTS", "Program", "make_programs", "real_frames", "settled_model"]

PARTS = {"full": ("key", "reuse"), **{name: (name,) for name in ("features", "masks", "reuse")}}


class KeyFrame(nn.Module):
    """Everything that MobileInst says of a frame, but for what only training needs."""

    outputs = ("class_logits", "objectness", "kernels", "mask_features", "mask_logits")

    def __init__(self, model: MobileInst):
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> (1, N, K), (1, N), (1, N, D), (1, D, h, w), (1, N, h, w)."""
        return self.model(frame)[:5]


class ReuseFrame(KeyFrame):
    """A frame between key frames: its own mask features, the kernels of the last key frame."""

    outputs = ("mask_logits",)

    def forward(self, frame: Tensor, kernels: Tensor) -> Tensor:
        """(1, 3, H, W), (1, N, D) -> (1, N, h, w)."""
        return self.model.encode(frame).masks(kernels)


class Features(KeyFrame):
    """Backbone and mask decoder."""

    outputs = ("x6", "mask_features")

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) -> (1, C6, tokens high, tokens wide), (1, D, h, w)."""
        encoded = self.model.encode(frame)
        return encoded.x6, encoded.x_mask


class Masks(nn.Module):
    """M = K . X_mask."""

    outputs = ("mask_logits",)

    def forward(self, kernels: Tensor, mask_features: Tensor) -> Tensor:
        """(1, N, D), (1, D, h, w) -> (1, N, h, w)."""
        return apply_kernels(kernels, mask_features)


class Program(NamedTuple):
    """One thing to export: a module, and real inputs by name."""

    name: str  # "key" | "reuse" | "features" | "masks"
    module: nn.Module
    examples: list[dict[str, Tensor]]  # one a real frame, all of one shape

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The first example: what a program is traced with."""
        return self.examples[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out, in order."""
        return self.module.outputs

    @torch.inference_mode()
    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Eagerly, always a tuple."""
        out = self.module(*inputs)
        return (out,) if isinstance(out, Tensor) else tuple(out)

    def differences(self, run: Callable[..., tuple[Tensor, ...]]) -> dict[str, float]:
        """{output: how far `run` is from this program, at most, over all examples}.

        Relative to the largest absolute value wanted, or to 1 if that is larger. Raises ValueError
        where an output has another shape or is not finite.
        """
        worst = dict.fromkeys(self.outputs, 0.0)
        for example in self.examples:
            wanted, found = self.run(*example.values()), run(*example.values())
            for name, want, got in zip(self.outputs, wanted, found, strict=True):
                if got.shape != want.shape or not torch.isfinite(got).all():
                    shapes = f"{tuple(got.shape)} in the file, {tuple(want.shape)} eagerly"
                    raise ValueError(f"export: {name} is {shapes}, or not finite")
                difference = (got - want).abs().max() / want.abs().max().clamp(min=1)
                worst[name] = max(worst[name], float(difference))
        return worst


def make_programs(
    model: MobileInst, size: tuple[int, int], part: str = "full", frames: int = 3
) -> list[Program]:
    """The programs of `part` for frames of `size` (H, W), with so many real frames as examples.

    They are in eval mode. `model` is not changed and not copied.
    Raises ValueError for an unknown part or size.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; choose one of {', '.join(PARTS)}")
    images = real_frames(size, frames)
    model.eval()
    with torch.inference_mode():
        # a frame is given the kernels of the frame before it, as in kernel reuse
        key = model(images[:1])
        encoded = [model.encode(image[None]) for image in images]
    # tensors of inference mode cannot be traced; a clone made outside of it can
    kernels = {"kernels": key.kernels.clone()}
    frame = [{"frame": image[None]} for image in images]
    features = [{"mask_features": e.x_mask.clone()} for e in encoded]
    # without the instance decoder, which would only make the file larger
    light = copy.copy(model)
    light._modules = {k: part for k, part in model._modules.items() if k != "instance_decoder"}
    made = {
        "key": (KeyFrame(model), frame),
        "reuse": (ReuseFrame(light), [{**one, **kernels} for one in frame]),
        "features": (Features(light), frame),
        "masks": (Masks(), [{**kernels, **one} for one in features]),
    }
    return [Program(name, made[name][0].eval(), made[name][1]) for name in PARTS[part]]


def real_frames(size: FrameSize, count: int = 3, sample: str = "easy") -> Tensor:
    """The first frames of a shipped clip, resized: (count, 3, H, W), multiples of 1/255 in [0, 1].

    `size` is (H, W). Raises ValueError for one out of range, an unknown clip, or a count that it
    does not have.
    """
    check_call(real_frames, locals())
    height, width = size
    clip = load_sample(sample)
    if not 1 <= count <= len(clip):
        raise ValueError(f"the clip {sample!r} has {len(clip)} frames; {count} were asked for")
    images = []
    for image in islice(clip, count):
        if image.shape[:2] != (height, width):
            # bytes stay bytes, so that a bundled frame is small
            picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(picture)
        images.append(image_to_batch(image))
    return torch.cat(images)


def benchmark_model(preset: str | None, weights: str | Path | None) -> tuple[str, MobileInst]:
    """(name, model): a preset, settled, or weights by name or folder. ValueError for both."""
    if preset and weights:
        raise ValueError(f"bench: preset {preset!r} and weights {weights!r}; give one of them")
    if preset:
        return preset, settled_model(preset)
    return Path(weights).resolve().name, MobileInst.from_pretrained(weights).eval()


def settled_model(
    preset: str, seed: int = 0, size: tuple[int, int] = (256, 256), **overrides
) -> MobileInst:
    """A preset with random weights whose batch norms have seen real frames: for timing and parity.

    Untrained batch norms let activations grow into the thousands, where rounding alone moves the
    outputs. So does the backbone's attention, which leaves it to the norms of q and k to divide by
    sqrt(d): here they are told to.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MobileInst(MobileInstConfig.preset(preset, **overrides))
        modules = dict(model.named_modules())
        norms = {name: m for name, m in modules.items() if isinstance(m, nn.BatchNorm2d)}
        for name, norm in norms.items():
            norm.momentum = None  # the plain mean of what it sees
            if ".to_q." in name or ".to_k." in name:  # (q / 4) . (k / 4) = q . k / sqrt(d), d = 16
                nn.init.constant_(norm.weight, 0.25)
        with torch.no_grad():
            model.train()(real_frames(size, 4))
        for norm in norms.values():
            norm.momentum = 0.1
    return model.eval()
