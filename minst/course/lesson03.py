"""Lesson 03: shapes in the mask decoder, top-down sums, the semantic enhancer, masks by one product, both signs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from minst.course.verdict import Mistake, Verdict, judge, normal
from minst.layers import h_sigmoid
from minst.mask_decoder import resize_to
from minst.model import apply_kernels as minst_apply_kernels

__all__ = ["apply_kernels", "level_shapes", "semantic_enhancer", "top_down", "unreachable"]


def level_shapes(answer: Callable) -> Verdict:
    """level_shapes(height, width, dim) -> {"P3", "P4", "P5", "N4", "N5", "X_mask": (channels, rows, columns)}."""

    def shapes(height, width, dim, strides=(8, 16, 32, 16, 32, 8)):
        names = ("P3", "P4", "P5", "N4", "N5", "X_mask")
        return {name: (dim, height // s, width // s) for name, s in zip(names, strides)}

    def draw(rng):
        height, width = (64 * int(n) for n in rng.choice(range(2, 12), 2, replace=False))
        return height, width, 4 * int(rng.integers(5, 60))

    return judge(
        answer,
        shapes,
        draw,
        [
            Mistake(lambda h, w, d: shapes(w, h, d), "Rows come before columns: height first, then width."),
            Mistake(
                lambda h, w, d: shapes(h, w, d, (8, 16, 32, 16, 32, 1)),
                "X_mask stays at 1/8; only the masks made of it are enlarged, later.",
            ),
            Mistake(
                lambda h, w, d: shapes(h, w, d, (8, 16, 32, 16, 32, 4)),
                "X_mask lies at 1/8, like P3, the finest level: nothing in the decoder is finer.",
            ),
            Mistake(
                lambda h, w, d: shapes(h, w, d, (3, 4, 5, 4, 5, 3)),
                "The number of a level is a power of two: level 3 lies at 1/2^3 = 1/8.",
            ),
            Mistake(
                lambda h, w, d: shapes(h, w, d, (8, 16, 32, 32, 64, 8)),
                "The number names the scale, before and after: N4 is as large as P4, N5 as P5.",
            ),
            Mistake(
                lambda h, w, d: {n: (d * s[1] // (h // 8), *s[1:]) for n, s in shapes(h, w, d).items()},
                "All levels have D channels: the laterals see to that.",
            ),
            Mistake(
                lambda h, w, d: {n: (d * (h // 8) // s[1], *s[1:]) for n, s in shapes(h, w, d).items()},
                "All levels have D channels: the laterals see to that. Only backbones widen as they get coarser.",
            ),
        ],
        exercise="level_shapes",
    )


def top_down(answer: Callable) -> Verdict:
    """top_down(l3, l4, l5) -> (P3, P4, P5): bilinear upsampling and sums, no convolutions."""

    def top_down(l3, l4, l5, up=resize_to):
        p4 = l4 + up(l5, l4)
        return l3 + up(p4, l3), p4, l5

    def draw(rng):
        h, w = (int(n) for n in rng.integers(2, 5, 2))
        return tuple(normal(rng, 2, 3, h * k, w * k) for k in (4, 2, 1))

    return judge(
        answer,
        top_down,
        draw,
        [
            Mistake(
                lambda *levels: top_down(*levels, up=_nearest),
                "That looks like nearest upsampling, the default of F.interpolate: say mode='bilinear'.",
            ),
            Mistake(
                lambda *levels: top_down(*levels, up=_corners),
                "Use align_corners=False: cells have an area, and it is not the outermost centres that meet.",
            ),
            Mistake(
                lambda l3, l4, l5: (l3 + resize_to(l4, l3), l4 + resize_to(l5, l4), l5),
                "P3 gets the lateral of level 4, so that nothing of level 5 arrives: hand on P4, the sum.",
            ),
            Mistake(
                lambda l3, l4, l5: (l3 + resize_to(l5, l3), l4 + resize_to(l5, l4), l5),
                "P3 gets level 5 straight away and misses level 4: hand on P4, the sum.",
            ),
            Mistake(lambda *levels: top_down(*levels)[::-1], "The order is turned round: P3, the finest, comes first."),
            Mistake(lambda *levels: top_down(*levels)[0], "That is P3 alone; return P3, P4 and P5."),
        ],
    )


def semantic_enhancer(answer: Callable) -> Verdict:
    """semantic_enhancer(local, gate, value) -> local * up(h_sigmoid(gate)) + up(value)."""

    def semantic_enhancer(local, gate, value, up=resize_to, squash=h_sigmoid):
        return local * up(squash(gate), local) + up(value, local)

    def draw(rng):
        h, w, k = (int(n) for n in rng.integers(2, 5, 3))
        return normal(rng, 2, 3, h * k, w * k), 3 * normal(rng, 2, 3, h, w), normal(rng, 2, 3, h, w)

    return judge(
        answer,
        semantic_enhancer,
        draw,
        [
            Mistake(
                lambda *maps: semantic_enhancer(*maps, up=_nearest),
                "The scene arrives in blocks: nearest is the default of F.interpolate, say mode='bilinear'.",
            ),
            Mistake(
                lambda *maps: semantic_enhancer(*maps, up=_corners),
                "With align_corners=True tokens slide off their cells towards the border: use align_corners=False.",
            ),
            Mistake(
                lambda *maps: semantic_enhancer(*maps, squash=lambda gate: gate),
                "The gate is used as it is; h_sigmoid squashes it between 0, shut, and 1, open.",
            ),
            Mistake(
                lambda *maps: semantic_enhancer(*maps, squash=torch.sigmoid),
                "That is the smooth sigmoid; the enhancer uses the hard one, h_sigmoid, which needs no exponential.",
            ),
            Mistake(
                lambda local, gate, value: local * resize_to(h_sigmoid(gate), local) * resize_to(value, local),
                "The value is multiplied; it is added, or a shut gate would leave nothing at all.",
            ),
            Mistake(
                lambda local, gate, value: local * h_sigmoid(resize_to(gate, local)) + resize_to(value, local),
                "h_sigmoid comes after the upsampling here; it is bent, so the order matters: squash the few tokens first.",
            ),
            Mistake(
                lambda local, gate, value: local * resize_to(h_sigmoid(gate), local),
                "The value is missing: gate, then add what the scene knows.",
            ),
            Mistake(
                lambda local, gate, value: semantic_enhancer(local, value, gate),
                "Gate and value have changed places: h_sigmoid is for the gate.",
            ),
        ],
    )


def apply_kernels(answer: Callable) -> Verdict:
    """apply_kernels(kernels (B, N, D), x_mask (B, D, h, w)) -> mask logits (B, N, h, w)."""

    def draw(rng):
        batch, queries, dim, h, w = (int(n) for n in rng.choice(range(2, 9), 5, replace=False))
        return normal(rng, batch, queries, dim), normal(rng, batch, dim, h, w)

    def product(equation):
        return lambda kernels, x_mask: torch.einsum(equation, kernels, x_mask)

    return judge(
        answer,
        minst_apply_kernels,
        draw,
        [
            Mistake(
                lambda k, x: minst_apply_kernels(k, x).sigmoid(),
                "These are probabilities; logits are asked for, whose sign is the mask. The sigmoid comes later.",
            ),
            Mistake(lambda k, x: minst_apply_kernels(k, x) > 0, "That is the mask already; return the logits."),
            Mistake(
                lambda k, x: minst_apply_kernels(k, x) / k.shape[-1],
                "A kernel sums over channels; a mean makes every logit smaller by the factor D.",
            ),
            Mistake(product("bnd,bdhw->bhwn"), "The queries come second: b n h w on the right."),
            Mistake(
                product("bnd,bdhw->nhw"), "The frames of the batch are added up: b must stand on the right as well."
            ),
            Mistake(
                lambda k, x: minst_apply_kernels(k[:1].expand(len(k), -1, -1), x),
                "All frames get the kernels of the first one: let b run through both.",
            ),
            Mistake(
                lambda k, x: minst_apply_kernels(F.normalize(k, dim=-1), x),
                "The kernels are scaled to length 1; their length is part of what they say: how sure the mask is.",
            ),
        ],
        exercise="apply_kernels",
    )


def unreachable(answer: Callable) -> Verdict:
    """unreachable(x_mask (D, h, w), before a ReLU) -> (h, w) bool: cells that no kernel can put inside a mask."""

    def unreachable(x_mask):
        return (x_mask <= 0).all(0)

    def draw(rng):
        x_mask = normal(rng, int(rng.integers(2, 4)), 6, 7)
        return (torch.where(normal(rng, *x_mask.shape) > 1.0, 0.0, x_mask),)  # some values are exactly 0

    return judge(
        answer,
        unreachable,
        draw,
        [
            Mistake(
                lambda x: (x <= 0).any(0),
                "One clipped channel does no harm: a kernel may rest on another that is above 0 there.",
            ),
            Mistake(
                lambda x: x.sum(0) <= 0,
                "That is one kernel only, all ones: others weigh differently, and each channel is clipped by itself.",
            ),
            Mistake(
                lambda x: ~unreachable(x),
                "These are the cells that a kernel can reach; the others are asked for.",
            ),
            Mistake(
                lambda x: (x < 0).all(0),
                "A channel at exactly 0 is no help either: whatever its weight, it adds 0.",
            ),
            Mistake(
                lambda x: torch.zeros_like(x[0], dtype=torch.bool),
                "Can a kernel lift a cell where the ReLU has left only zeros?",
            ),
        ],
        praise="Before the ReLU only a cell with 0 in every channel is out of reach.",
    )


def _nearest(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def _corners(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
