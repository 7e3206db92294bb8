"""Lesson 03: masks by a product, shapes in the mask decoder, the enhancer, top-down sums, signs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

import minst.model
from minst.course.pictures import Film, film
from minst.course.verdict import HALF, Verdict, judge, normal
from minst.layers import h_sigmoid, resize_to
from minst.visualize.masks import resized
from minst.visualize.style import CENTER, INK, Picture, bare, headline, new_figure

__all__ = ["apply_kernels", "level_shapes", "semantic_enhancer", "top_down", "unreachable"]


def level_shapes(answer: Callable) -> Verdict:
    """level_shapes(height, width, dim) -> {"P3", ..., "X_mask": (channels, rows, columns)}."""

    def level_shapes(height, width, dim, strides=(8, 16, 32, 16, 32, 8)):
        names = ("P3", "P4", "P5", "N4", "N5", "X_mask")
        return {name: (dim, height // s, width // s) for name, s in zip(names, strides)}

    def widened(height, width, dim, power):
        shapes = level_shapes(height, width, dim)
        return {k: (int(dim * (height / 8 / h) ** power), h, w) for k, (_, h, w) in shapes.items()}

    def draw(rng):
        return *(64 * rng.choice(range(2, 12), 2, replace=False)), 4 * rng.integers(5, 60)

    mistakes = [
        "Rows come before columns: height first, then width.",
        lambda height, width, dim: level_shapes(width, height, dim),
        "X_mask stays at 1/8; only the masks made of it are enlarged, later.",
        partial(level_shapes, strides=(8, 16, 32, 16, 32, 1)),
        "X_mask lies at 1/8, like P3, the finest level: nothing in the decoder is finer.",
        partial(level_shapes, strides=(8, 16, 32, 16, 32, 4)),
        "The number of a level is a power of two: level 3 lies at 1/2^3 = 1/8.",
        partial(level_shapes, strides=(3, 4, 5, 4, 5, 3)),
        "The number names the scale, before and after: N4 is as large as P4, N5 as P5.",
        partial(level_shapes, strides=(8, 16, 32, 32, 64, 8)),
        "All levels have D channels: the laterals see to that.",
        partial(widened, power=-1),
        "All levels have D channels: the laterals see to that. Only backbones widen.",
        partial(widened, power=1),
    ]
    return judge(answer, level_shapes, draw, mistakes)


def top_down(answer: Callable) -> Verdict:
    """top_down(l3, l4, l5) -> (P3, P4, P5): bilinear upsampling and sums, no convolutions."""

    def top_down(l3, l4, l5, up=resize_to):
        p4 = l4 + up(l5, l4)
        return l3 + up(p4, l3), p4, l5

    def draw(rng):
        h, w = rng.integers(2, 5, 2)
        return [normal(rng, 2, 3, h * k, w * k) for k in (4, 2, 1)]

    mistakes = [
        "That looks like nearest upsampling, the default of F.interpolate: say mode='bilinear'.",
        partial(top_down, up=partial(_resized, mode="nearest")),
        "Use align_corners=False: cells have an area, and do not meet at their outermost centres.",
        partial(top_down, up=partial(_resized, mode="bilinear", align_corners=True)),
        "P3 gets the lateral of level 4, so that nothing of level 5 arrives: hand on P4, the sum.",
        lambda l3, l4, l5: (l3 + resize_to(l4, l3), l4 + resize_to(l5, l4), l5),
        "P3 gets level 5 straight away and misses level 4: hand on P4, the sum.",
        lambda l3, l4, l5: (l3 + resize_to(l5, l3), l4 + resize_to(l5, l4), l5),
        "The order is turned round: P3, the finest, comes first.",
        lambda *levels: top_down(*levels)[::-1],
        "That is P3 alone; return P3, P4 and P5.",
        lambda *levels: top_down(*levels)[0],
    ]
    return judge(answer, top_down, draw, mistakes, tolerance=HALF)


def semantic_enhancer(answer: Callable) -> Verdict:
    """semantic_enhancer(local, x6, to_gate, to_value) -> the local features, gated and refilled."""

    def semantic_enhancer(local, x6, to_gate, to_value, up=resize_to, squash=h_sigmoid):
        return local * up(squash(to_gate(x6)), local) + up(to_value(x6), local)

    right = semantic_enhancer

    def gated(x, x6, to_gate, to_value):
        return x * resize_to(h_sigmoid(to_gate(x6)), x)

    def draw(rng):
        h, w, k = rng.integers(2, 5, 3)
        gate, value = (torch.nn.utils.skip_init(torch.nn.Conv2d, 5, 3, 1) for _ in range(2))
        for conv, size in ((gate, 1.5), (value, 0.5)):
            conv.requires_grad_(False).weight.copy_(size * normal(rng, 3, 5, 1, 1))
            conv.bias.copy_(size * normal(rng, 3))
        return normal(rng, 2, 3, h * k, w * k), normal(rng, 2, 5, h, w), gate, value

    mistakes = [
        "The scene arrives in blocks: F.interpolate's default is nearest, say mode='bilinear'.",
        partial(right, up=partial(_resized, mode="nearest")),
        "Aligned corners make tokens slide towards the border: use align_corners=False.",
        partial(right, up=partial(_resized, mode="bilinear", align_corners=True)),
        "The gate is used as it is; h_sigmoid squashes it between 0, shut, and 1, open.",
        partial(right, squash=lambda gate: gate),
        "That is the smooth sigmoid; the enhancer uses the hard one, without an exponential.",
        partial(right, squash=torch.sigmoid),
        "The value is multiplied; it is added, or a shut gate would leave nothing at all.",
        lambda x, x6, gate, value: gated(x, x6, gate, value) * resize_to(value(x6), x),
        "Upsampled before h_sigmoid, which is bent: squash the few tokens first, then upsample.",
        lambda x, x6, gate, value: x * h_sigmoid(resize_to(gate(x6), x)) + resize_to(value(x6), x),
        "The value is missing: gate, then add what the scene knows.",
        gated,
        "The value is squashed too; h_sigmoid is for the gate alone.",
        lambda x, x6, gate, value: right(x, x6, gate, lambda _: h_sigmoid(value(x6))),
        "Gate and value have changed places: h_sigmoid is for the gate.",
        lambda x, x6, gate, value: right(x, x6, value, gate),
    ]
    return judge(answer, semantic_enhancer, draw, mistakes, tolerance=HALF)


def apply_kernels(answer: Callable) -> Verdict:
    """apply_kernels(kernels (B, N, D), x_mask (B, D, h, w)) -> mask logits (B, N, h, w)."""

    right = minst.model.apply_kernels

    def draw(rng):
        batch, queries, dim, h, w = rng.choice(range(2, 9), 5, replace=False)
        return normal(rng, batch, queries, dim), normal(rng, batch, dim, h, w)

    mistakes = [
        "These are probabilities; logits are asked for, whose sign is the mask.",
        lambda kernels, x_mask: right(kernels, x_mask).sigmoid(),
        "That is the mask already; return the logits.",
        lambda kernels, x_mask: right(kernels, x_mask) > 0,
        "A kernel sums over channels; a mean makes every logit smaller by the factor D.",
        lambda kernels, x_mask: right(kernels, x_mask) / kernels.shape[-1],
        "The queries come second: b n h w on the right.",
        lambda kernels, x_mask: right(kernels, x_mask).movedim(1, -1),
        "The frames of the batch are added up: b must stand on the right as well.",
        lambda kernels, x_mask: right(kernels, x_mask).sum(0),
        "All frames get the kernels of the first one: let b run through both.",
        lambda kernels, x_mask: right(kernels[:1].expand(len(kernels), -1, -1), x_mask),
        "The kernels are scaled to length 1; their length says how sure the mask is.",
        lambda kernels, x_mask: right(F.normalize(kernels, dim=-1), x_mask),
    ]
    return judge(answer, right, draw, mistakes, tolerance=HALF)


def unreachable(answer: Callable) -> Verdict:
    """unreachable(x_mask (D, h, w), before a ReLU) -> (h, w) bool: cells out of reach."""

    def unreachable(x_mask):
        return (x_mask <= 0).all(0)

    def draw(rng):
        x_mask = normal(rng, rng.integers(2, 4), 6, 7)
        return (torch.where(normal(rng, *x_mask.shape) > 1.0, 0.0, x_mask),)  # some exactly 0

    mistakes = [
        "One clipped channel does no harm: a kernel may rest on another that is above 0 there.",
        lambda x_mask: (x_mask <= 0).any(0),
        "That is one kernel only, all ones: others weigh otherwise; each channel is clipped alone.",
        lambda x_mask: x_mask.sum(0) <= 0,
        "These are the cells that a kernel can reach; the others are asked for.",
        lambda x_mask: ~unreachable(x_mask),
        "A channel at exactly 0 is no help either: whatever its weight, it adds 0.",
        lambda x_mask: (x_mask < 0).all(0),
        "Can a kernel lift a cell where the ReLU has left only zeros?",
        lambda x_mask: torch.zeros_like(x_mask[0], dtype=torch.bool),
    ]
    praise = "Before the ReLU only a cell with 0 in every channel is out of reach."
    return judge(answer, unreachable, draw, mistakes, praise=praise)


def film_of_sums(terms: torch.Tensor, sums: torch.Tensor, true: torch.Tensor, alt: str) -> Film:
    """A short GIF: each term (L, h, w), the sum so far (L, h, w), its mask against true (h, w)."""
    frames, colors = [], matplotlib.colormaps["coolwarm"]
    for done, (term, total) in enumerate(zip(terms.numpy(), sums.numpy()), start=1):
        shares = [np.round(8 * x / np.abs(x).max()) / 8 for x in (term, total)]  # a small file
        maps = [colors(0.5 + 0.5 * share)[..., :3] for share in shares]
        mask = np.where((total > 0)[..., None], [1.0, 1, 1], [0.0, 0, 0])
        mask[(total > 0) != true.numpy()] = (0.9, 0.1, 0.1)
        canvas = Image.new("RGB", (512, 140), "white")
        words = f"channel no. {done}, weighted", f"sum of {done}", "its mask; red: wrong"
        for i, (x, text) in enumerate(zip((*maps, mask), words)):
            picture = resized((255 * x).astype(np.uint8), (120, 160), Image.Resampling.NEAREST)
            canvas.paste(Image.fromarray(picture), (4 + 172 * i, 18))
            ImageDraw.Draw(canvas).text((4 + 172 * i, 2), text, "#222222", font_size=12)
        frames.append(np.asarray(canvas))
    return film(frames, alt)


def plot_decoder(shapes: dict[str, tuple[int, int, int]]) -> Picture:
    """The levels of the mask decoder and the ways between them, with these shapes in the boxes."""
    places = {"X3": (0, 0), "X4": (0, 1), "X5": (0, 2), "P3": (1, 0), "P4": (1, 1), "P5": (1, 2),
              "N4": (2, 1), "N5": (2, 2), "N4 + up(N5)": (3, 1), "X_mask": (3, 0)}  # fmt: skip
    ways = [("X5", "P5"), ("X4", "P4"), ("X3", "P3"), ("P5", "P4"), ("P4", "P3"), ("P3", "N4"),
            ("P4", "N4"), ("N4", "N5"), ("P5", "N5"), ("N5", "N4 + up(N5)"), ("N4", "N4 + up(N5)"),
            ("N4 + up(N5)", "X_mask"), ("P3", "X_mask")]  # fmt: skip
    fig = new_figure()
    note = "A box with a shape is a 3x3 convolution of the sum of all that enters it."
    headline(fig, "Down, up, and down again: three scales become one map", note)
    axes = bare(fig.place(0.2, 0.7, 9, 3.2))
    axes.set(xlim=(-0.6, 3.5), ylim=(2.7, -0.4))
    for start, end in ways:
        color = "#d9822b" if places[start][1] > places[end][1] else "#0072b2"
        color = INK if places[start][1] == places[end][1] else color
        shrink = 19 if places[start][0] == places[end][0] else 30
        look = {"arrowstyle": "-|>", "color": color, "shrinkA": 19, "shrinkB": shrink}
        axes.annotate("", places[end], places[start], arrowprops=look)
    for name, place in places.items():
        size = " x ".join(map(str, shapes[name])) if name in shapes else ""
        size = "1x1, enhancer (X6)" if name.startswith("X") and not size else size
        box = {"facecolor": "#dbe9f6" if name == "X_mask" else "white", "edgecolor": INK, "pad": 6}
        axes.text(*place, f"{name}\n{size}".strip(), fontsize=8, bbox=box, **CENTER)
    for level, scale in enumerate(("1/8", "1/16", "1/32")):
        axes.text(-0.55, level, scale, fontsize=9, **CENTER)
    axes.text(0.75, 2.6, "orange: upsampled      blue: 3x3 depth-wise, stride 2", fontsize=8)
    return fig


def _resized(x: torch.Tensor, like: torch.Tensor, **how) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], **how)
