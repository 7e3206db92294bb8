"""What the network makes of a frame: its feature maps as colours.

    frame ─ backbone ─> X3, X4, X5, X6 ─ lateral ─> before ─ semantic enhancer (X6) ─> after
                        1/8 1/16 1/32               at each of the levels 3, 4, 5
                                                    after ─ fusion ─> X_mask 1/8

    (C, h, w) ─ PCA over the positions ─> three directions of largest variance ─> red, green, blue

Panels can be compared by colour only where they share a PCA: before and after one enhancer.

Symbols: C channels, H W frame size, h w = H, W over the stride, rounded up.

Lesson: notebooks/03_mask_decoder.ipynb
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minst.model import MobileInst, image_to_batch
from minst.visualize.images import plot_images
from minst.visualize.masks import shown_frames
from minst.visualize.style import Picture

__all__ = ["FrameFeatures", "frame_features", "pca_rgb", "plot_features"]

LEVELS = ("X3", "X4", "X5", "X6")


class FrameFeatures(NamedTuple):
    """Feature maps (C, h, w) of one frame, without its padding."""

    maps: dict[str, Tensor]  # X3, X4, X5, X6, X_mask
    # Of `maps`: a cell has stride x stride pixels; the last ones may overhang the frame.
    strides: dict[str, int]
    # X3, X4, X5 as their semantic enhancers get them, and leave them; empty where these are off.
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def frame_features(model: MobileInst, image: np.ndarray) -> FrameFeatures:
    """The feature maps of an image (H, W, 3) in bytes, caught on their way through `encode`."""
    caught: dict[str, tuple] = {}  # name -> what went in, what came out

    def catch(name):
        return lambda module, inputs, output: caught.__setitem__(name, (inputs, output))

    decoder = model.mask_decoder
    watched = {"backbone": model.backbone, "X_mask": decoder}
    if decoder.semantic_enhancer:
        watched |= {"X3": decoder.enhance_x3, "X4": decoder.enhance_x4, "X5": decoder.enhance_x5}
    with evaluating(model), ExitStack() as hooks:
        for name, module in watched.items():
            hooks.callback(module.register_forward_hook(catch(name)).remove)
        model.encode(image_to_batch(image))
    (padded,), levels = caught.pop("backbone")
    maps = dict(zip(LEVELS, levels)) | {"X_mask": caught.pop("X_mask")[1]}
    strides = {name: padded.shape[-1] // x.shape[-1] for name, x in maps.items()}

    def cropped(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, x in parts.items():
            rows, columns = (math.ceil(n / strides[name]) for n in image.shape[:2])
            found[name] = x[0, :, :rows, :columns].cpu()
        return found

    before = cropped({name: inputs[0] for name, (inputs, _) in caught.items()})
    after = cropped({name: output for name, (_, output) in caught.items()})
    return FrameFeatures(cropped(maps), strides, before, after)


def pca_rgb(*maps: Tensor) -> tuple[list[np.ndarray], float]:
    """Maps (C, h_i, w_i), C >= 3 -> pictures (h_i, w_i, 3) in [0, 1]; the share of variance shown.

    One PCA for all. The sign of a direction is free; here its largest channel counts positive, so
    that no picture flips between runs.
    """
    x = torch.cat([m.detach().double().flatten(1) for m in maps], dim=1)  # (C, P)
    x = x - x.mean(1, keepdim=True)
    variances, directions = torch.linalg.eigh(x @ x.T)  # ascending
    top = directions[:, -3:].flip(1).T  # (3, C), the largest variance first
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    # a direction without variance is rounding, which must not be stretched to full contrast
    top = top * (variances[-3:].flip(0) > 1e-9 * variances[-1])[:, None]
    scores = top @ x  # (3, P)
    ends = torch.tensor([0.01, 0.99], dtype=x.dtype)
    low, high = torch.quantile(scores, ends, dim=1)  # (3,) each
    varies = (high > low)[:, None]  # what does not is grey
    colors = torch.where(varies, (scores - low[:, None]) / (high - low)[:, None], 0.5).clamp(0, 1)
    parts = colors.split([m.shape[1] * m.shape[2] for m in maps], dim=1)
    pictures = [part.T.reshape(*m.shape[1:], 3).numpy() for part, m in zip(parts, maps)]
    return pictures, float(variances[-3:].sum() / variances.sum().clamp_min(1e-30))


def plot_features(model: MobileInst, video, frame: int = 0) -> Picture:
    """X3, X4, X5, X6 and X_mask of a frame as colours; each level before and after its enhancer.

    video: a clip with `render(t)` or any iterable. ValueError for a frame that is not there.
    """
    image = frame_at(video, frame)
    maps, strides, before, after = frame_features(model, image)

    def panels(name: str, *levels: Tensor, when: Sequence[str] = ("",)) -> list[tuple]:
        """Pictures that share a PCA, with their titles."""
        pictures, share = pca_rgb(*levels)
        size = " x ".join(map(str, levels[0].shape))
        words = f"1/{strides[name]}\n{size}, {100 * share:.0f} % shown"
        return [(picture, f"{name}{each}, {words}") for picture, each in zip(pictures, when)]

    own = {name: panels(name, x)[0] for name, x in maps.items()}
    changed = [
        panels(name, before[name], after[name], when=(" before", " after")) for name in before
    ]
    # A column a level; at the left what belongs to all of them.
    shown = [(image, f"frame {frame}\n3 x {image.shape[0]} x {image.shape[1]}")]
    shown += [own["X3"], own["X4"], own["X5"], own["X6"], *(pair[0] for pair in changed)]
    shown += [own["X_mask"], *(pair[1] for pair in changed)]
    head = f"Features of frame {frame}; semantic enhancers are off in this model"
    note = "Colours: the 3 directions of largest variance (% shown). "
    if changed:
        parts = [
            f"{name} by {100 * float((after[name] - x).norm() / x.norm()):.0f} %"
            for name, x in before.items()
        ]
        head = f"Features of frame {frame}: semantic enhancers change {', '.join(parts)}"
        note += "Before and after share them. Change: norm of after - before over norm of before."
    pictures, titles = zip(*shown)
    return plot_images(pictures, titles, head, note, columns=4)


def frame_at(video, frame: int) -> np.ndarray:
    """Image (H, W, 3) number `frame` of a clip or iterable; ValueError where there is none."""
    if frame != int(frame) or frame < 0:
        raise ValueError(f"frame is {frame}; frames are counted 0, 1, 2, ...")
    image, _ = next(shown_frames(video, int(frame)), (None, None))
    if image is None:
        has = f" but {len(video)} frames" if hasattr(video, "__len__") else ""
        raise ValueError(f"the video has no frame {frame}{has}, counted from 0")
    return image


@contextmanager
def evaluating(model: MobileInst) -> Iterator[None]:
    """Eval mode and no gradients within; a model in training goes on training afterwards."""
    training = model.training
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
