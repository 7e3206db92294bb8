"""What the network makes of a frame: its feature maps as colours.

    frame ─ backbone ─> X3, X4, X5, X6 ─ lateral ─> before ─ semantic enhancer (X6) ─> after ─ fusion ─> X_mask
                        1/8 1/16 1/32               at each of the levels 3, 4, 5                        1/8

    (C, h, w) ─ PCA over the h w positions ─> its three directions of largest variance ─> red, green, blue

Panels can be compared by colour only where they share a PCA: before and after one enhancer.

Symbols: C channels, H W frame size, h w = H, W over the stride, rounded up.

Lesson: notebooks/03_mask_decoder.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from minst.model import MobileInst, image_to_batch
from minst.visualize.masks import frames_of
from minst.visualize.style import INK, WIDTH, headline, new_figure

__all__ = ["FrameFeatures", "frame_features", "pca_rgb", "plot_features"]

LEVELS = ("X3", "X4", "X5", "X6")


class FrameFeatures(NamedTuple):
    """Feature maps (C, h, w) of one frame, without its padding."""

    maps: dict[str, Tensor]  # X3, X4, X5, X6, X_mask
    strides: dict[
        str, int
    ]  # of `maps`: a cell has stride x stride pixels; the last ones may overhang the frame
    before: dict[
        str, Tensor
    ]  # X3, X4, X5 as their semantic enhancers get them; empty where these are off
    after: dict[str, Tensor]  # and as they leave them


def frame_features(model: MobileInst, image: np.ndarray) -> FrameFeatures:
    """The feature maps of one image (H, W, 3) in bytes, caught on their way through `model.encode`."""
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

    def cropped(name, x):
        rows, columns = (math.ceil(n / strides[name]) for n in image.shape[:2])
        return x[0, :, :rows, :columns].cpu()

    return FrameFeatures(
        {name: cropped(name, x) for name, x in maps.items()},
        strides,
        {name: cropped(name, inputs[0]) for name, (inputs, _) in caught.items()},
        {name: cropped(name, output) for name, (_, output) in caught.items()},
    )


def pca_rgb(*maps: Tensor) -> tuple[list[np.ndarray], float]:
    """Maps (C, h_i, w_i), C >= 3 -> pictures (h_i, w_i, 3) in [0, 1] by one PCA for all; the share of variance shown.

    The sign of a direction is free; here its largest channel counts positive, so that no picture flips between runs.
    """
    x = torch.cat([m.detach().double().flatten(1) for m in maps], dim=1)  # (C, P)
    x = x - x.mean(1, keepdim=True)
    variances, directions = torch.linalg.eigh(x @ x.T)  # ascending
    top = directions[:, -3:].flip(1).T  # (3, C), the largest variance first
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    # a direction without variance is rounding, which must not be stretched to full contrast
    top = top * (variances[-3:].flip(0) > 1e-9 * variances[-1])[:, None]
    scores = top @ x  # (3, P)
    low, high = torch.quantile(
        scores, torch.tensor([0.01, 0.99], dtype=x.dtype), dim=1
    )  # (3,) each
    varies = (high > low)[:, None]  # what does not is grey
    colors = torch.where(varies, (scores - low[:, None]) / (high - low)[:, None], 0.5).clamp(0, 1)
    parts = colors.split([m.shape[1] * m.shape[2] for m in maps], dim=1)
    pictures = [part.T.reshape(*m.shape[1:], 3).numpy() for part, m in zip(parts, maps)]
    return pictures, float(variances[-3:].sum() / variances.sum().clamp_min(1e-30))


def plot_features(model: MobileInst, video, frame: int = 0) -> Figure:
    """X3, X4, X5, X6 and X_mask of a frame as colours, and each level before and after its semantic enhancer.

    video: a clip with `render(t)` or any iterable of frames. ValueError for a frame that is not there.
    """
    image = frame_at(video, frame)
    maps, strides, before, after = frame_features(model, image)
    fig, panel = _layout(*image.shape[:2], rows=3 if before else 2)
    panel(0, 0, image, f"frame {frame}\n3 x {image.shape[0]} x {image.shape[1]}")
    for name, x in maps.items():
        row, column = (1.5 if before else 1, 4) if name == "X_mask" else (0, int(name[1]) - 2)
        (picture,), share = pca_rgb(x)
        panel(row, column, picture, f"{name}, 1/{strides[name]}{_words(x, share)}", strides[name])
    head, changes = f"Features of frame {frame}; semantic enhancers are off in this model", []
    for column, name in enumerate(before, 1):
        x, y = before[name], after[name]
        pictures, share = pca_rgb(x, y)
        for row, when, picture in zip((1, 2), ("before", "after"), pictures):
            panel(
                row,
                column,
                picture,
                f"{name} {when}, 1/{strides[name]}{_words(x, share)}",
                strides[name],
            )
        changes.append(f"{name} by {100 * float((y - x).norm() / x.norm()):.0f} %")
    if changes:
        head = f"Features of frame {frame}: semantic enhancers change {', '.join(changes)}"
        panel(1, 0, None, "before the\nsemantic enhancer,\nafter a 1x1\nconvolution")
        panel(
            2,
            0,
            None,
            "after: X6 decides\nwhat counts\n\nchange: norm of\nafter - before over\nnorm of before",
        )
    note = "Colours: the 3 directions in which a panel's features vary most (% of variance). Compare them in a panel"
    headline(fig, head, f"{note}, and from before to after." if changes else f"{note} only.")
    return fig


def frame_at(video, frame: int) -> np.ndarray:
    """Image (H, W, 3) number `frame` of a clip with `render(t)` or of an iterable; ValueError where there is none."""
    if frame != int(frame) or frame < 0:
        raise ValueError(f"frame is {frame}; frames are counted 0, 1, 2, ...")
    image = next(frames_of(video, int(frame)), None)
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


def _layout(height: int, width: int, rows: int) -> tuple:
    """A figure with room for rows x 5 pictures, and `panel`, which puts one there: cells of stride x stride pixels."""
    aspect, gap, words, top = width / height, 0.1, 0.33, 0.6  # inches
    wide = min((WIDTH - 6 * gap) / 5, 2.3 * aspect)
    tall, left = wide / aspect, (WIDTH - 5 * wide - 4 * gap) / 2
    total = top + rows * (tall + words + gap) + gap
    fig = new_figure(total)

    def panel(
        row: float, column: int, picture: np.ndarray | None, text: str, stride: int = 1
    ) -> None:
        x, y = left + column * (wide + gap), top + row * (tall + words + gap) + words
        axes = fig.add_axes((x / WIDTH, 1 - (y + tall) / total, wide / WIDTH, tall / total))
        axes.set_axis_off()
        if picture is None:
            axes.text(
                0.97,
                0.5,
                text,
                fontsize=8,
                color=INK,
                ha="right",
                va="center",
                transform=axes.transAxes,
            )
            return
        extent = (0, picture.shape[1] * stride, picture.shape[0] * stride, 0)
        axes.imshow(picture, extent=extent, interpolation="nearest")
        axes.set(xlim=(0, width), ylim=(height, 0))  # the last cells may overhang the frame
        axes.set_title(text, fontsize=6.5, color=INK, pad=3, loc="left")

    return fig, panel


def _words(x: Tensor, share: float) -> str:
    return f"\n{' x '.join(map(str, x.shape))}, {100 * share:.0f} % shown"
