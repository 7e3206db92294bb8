"""Lesson 03: shapes in the mask decoder, top-down sums, the enhancer, masks by a product, signs."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

import minst.model
from minst.course.verdict import Verdict, judge, normal
from minst.layers import h_sigmoid
from minst.mask_decoder import resize_to

__all__ = ["apply_kernels", "level_shapes", "semantic_enhancer", "top_down", "unreachable"]


def level_shapes(answer: Callable) -> Verdict:
    """level_shapes(height, width, dim) -> {"P3", ..., "X_mask": (channels, rows, columns)}."""

    def level_shapes(height, width, dim, strides=(8, 16, 32, 16, 32, 8)):
        names = ("P3", "P4", "P5", "N4", "N5", "X_mask")
        return {name: (dim, height // s, width // s) for name, s in zip(names, strides)}

    def at(*strides):
        return partial(level_shapes, strides=strides)

    def widened(height, width, dim, power):
        shapes = level_shapes(height, width, dim)
        return {k: (int(dim * (height / 8 / h) ** power), h, w) for k, (_, h, w) in shapes.items()}

    def draw(rng):
        return *(64 * rng.choice(range(2, 12), 2, replace=False)), 4 * rng.integers(5, 60)

    mistakes = [
        "Rows come before columns: height first, then width.",
        lambda height, width, dim: level_shapes(width, height, dim),
        "X_mask stays at 1/8; only the masks made of it are enlarged, later.",
        at(8, 16, 32, 16, 32, 1),
        "X_mask lies at 1/8, like P3, the finest level: nothing in the decoder is finer.",
        at(8, 16, 32, 16, 32, 4),
        "The number of a level is a power of two: level 3 lies at 1/2^3 = 1/8.",
        at(3, 4, 5, 4, 5, 3),
        "The number names the scale, before and after: N4 is as large as P4, N5 as P5.",
        at(8, 16, 32, 32, 64, 8),
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
        partial(top_down, up=_nearest),
        "Use align_corners=False: cells have an area, and do not meet at their outermost centres.",
        partial(top_down, up=_corners),
        "P3 gets the lateral of level 4, so that nothing of level 5 arrives: hand on P4, the sum.",
        lambda l3, l4, l5: (l3 + resize_to(l4, l3), l4 + resize_to(l5, l4), l5),
        "P3 gets level 5 straight away and misses level 4: hand on P4, the sum.",
        lambda l3, l4, l5: (l3 + resize_to(l5, l3), l4 + resize_to(l5, l4), l5),
        "The order is turned round: P3, the finest, comes first.",
        lambda *levels: top_down(*levels)[::-1],
        "That is P3 alone; return P3, P4 and P5.",
        lambda *levels: top_down(*levels)[0],
    ]
    return judge(answer, top_down, draw, mistakes)


def semantic_enhancer(answer: Callable) -> Verdict:
    """semantic_enhancer(local, gate, value) -> local * up(h_sigmoid(gate)) + up(value)."""

    def semantic_enhancer(local, gate, value, up=resize_to, squash=h_sigmoid):
        return local * up(squash(gate), local) + up(value, local)

    def draw(rng):
        h, w, k = rng.integers(2, 5, 3)
        return normal(rng, 2, 3, h * k, w * k), 3 * normal(rng, 2, 3, h, w), normal(rng, 2, 3, h, w)

    mistakes = [
        "The scene arrives in blocks: F.interpolate's default is nearest, say mode='bilinear'.",
        partial(semantic_enhancer, up=_nearest),
        "Aligned corners make tokens slide towards the border: use align_corners=False.",
        partial(semantic_enhancer, up=_corners),
        "The gate is used as it is; h_sigmoid squashes it between 0, shut, and 1, open.",
        partial(semantic_enhancer, squash=lambda gate: gate),
        "That is the smooth sigmoid; the enhancer uses the hard one, without an exponential.",
        partial(semantic_enhancer, squash=torch.sigmoid),
        "The value is multiplied; it is added, or a shut gate would leave nothing at all.",
        lambda x, gate, value: x * resize_to(h_sigmoid(gate), x) * resize_to(value, x),
        "h_sigmoid comes after the upsampling here; it is bent, so squash the few tokens first.",
        lambda x, gate, value: x * h_sigmoid(resize_to(gate, x)) + resize_to(value, x),
        "The value is missing: gate, then add what the scene knows.",
        lambda x, gate, value: semantic_enhancer(x, gate, 0 * value),
        "Gate and value have changed places: h_sigmoid is for the gate.",
        lambda x, gate, value: semantic_enhancer(x, value, gate),
    ]
    return judge(answer, semantic_enhancer, draw, mistakes)


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
    return judge(answer, right, draw, mistakes)


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


def _nearest(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def _corners(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
