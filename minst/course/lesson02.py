"""Lesson 02: sizes of X3..X6, multiply-accumulates, squeezed attention, what pooling cannot see."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minst.backbones.base import InvertedResidual
from minst.backbones.seaformer import SqueezeAxialAttention
from minst.backbones.topformer import TopFormer
from minst.course.verdict import Mistake, Verdict, attempt, correct, difference, judge, normal, wrong

__all__ = ["level_sizes", "macs_of_inverted_residual", "row_attention", "unseen_change"]


def level_sizes(answer: Callable) -> Verdict:
    """level_sizes(height, width) -> [(h, w) of X3, X4, X5, X6], the frame being padded to multiples of 64 first."""

    def level_sizes(height, width):  # tests/test_course_lesson02.py: equal to the backbone's own maps
        return divided(height, width, multiple=64)

    def divided(*size, multiple=1, strides=(8, 16, 32, 64), up=False):
        padded = [n + -n % multiple for n in size]
        return [tuple(-(-n // s) if up else n // s for n in padded) for s in strides]

    return judge(
        answer,
        level_sizes,
        lambda rng: tuple(int(n) for n in rng.integers(70, 900, 2)),
        [
            Mistake(divided, "Floor division loses the last pixels; pad to the next multiples of 64 before dividing."),
            Mistake(
                partial(divided, up=True), "Rounding up at each level is not padding: pad to multiples of 64 first."
            ),
            Mistake(partial(divided, multiple=32), "32 is the stride of X5. X6 has 64: pad to multiples of 64."),
            Mistake(
                partial(divided, multiple=64, strides=(4, 8, 16, 32)),
                "The levels are X3 to X6, at strides 8, 16, 32 and 64: two to the power of the level.",
            ),
            Mistake(
                partial(divided, multiple=64, strides=(8, 16, 32, 32)),
                "X6 at 1/32 is the shipped model's, a deviation for small frames; the paper's X6 is at 1/64.",
            ),
            Mistake(lambda h, w: [size[::-1] for size in level_sizes(h, w)], "Height comes first, as in (B, C, H, W)."),
        ],
        rounds=20,
    )


def macs_of_inverted_residual(answer: Callable) -> Verdict:
    """macs_of_inverted_residual(in_channels, out_channels, kernel_size, stride, expansion, height, width) -> int."""

    def macs_of_inverted_residual(in_channels, out_channels, kernel_size, stride, expansion, height, width):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block = InvertedResidual(in_channels, out_channels, kernel_size, stride, expansion)
            block(torch.empty(1, in_channels, height, width))
        return counter.get_total_flops() // 2

    def imitate(dense=False, late_stride=False, early_stride=False, always_expand=False):
        def count(i, o, k, s, e, h, w):
            hidden, fine, coarse = i * e, h * w, h * w // s**2
            inside, after = (coarse if early_stride else fine), (fine if late_stride else coarse)
            expand = inside * i * hidden if e != 1 or always_expand else 0
            return expand + after * k * k * hidden * (hidden if dense else 1) + after * hidden * o

        return count

    kinds = itertools.cycle([(3, 2, 4), (5, 2, 3), (3, 1, 6), (3, 1, 1), (5, 2, 6), (3, 2, 1)])  # none is left to luck

    def draw(rng):
        i, o, h, w = (int(n) for n in rng.integers((8, 8, 4, 4), (65, 65, 30, 30)))
        return i, o, *next(kinds), 2 * h, 2 * w

    truth = macs_of_inverted_residual
    return judge(
        answer,
        truth,
        draw,
        [
            Mistake(lambda *a: 2 * truth(*a), "One multiplication with its addition is one MAC, not two."),
            Mistake(
                imitate(dense=True),
                "Depth-wise: a wide channel is filtered alone, hidden * k * k for each output cell.",
            ),
            Mistake(
                imitate(late_stride=True), "The depth-wise convolution carries the stride: fewer cells from there on."
            ),
            Mistake(
                imitate(early_stride=True),
                "The expansion comes before the stride: it runs on all height * width cells.",
            ),
            Mistake(imitate(always_expand=True), "With expansion 1 there is no expanding convolution at all."),
            Mistake(
                lambda i, o, k, s, e, h, w: i * o * k * k * (h * w // s**2),
                "This is a plain convolution; the block has three: 1x1 expand, k x k depth-wise, 1x1 project.",
            ),
        ],
        tolerance=1e-9,
        praise="Equal to what is counted while minst's own block runs.",
    )


def row_attention(answer: Callable) -> Verdict:
    """row_attention(q (B, d, H, W), k (B, d, H, W), v (B, d_v, H, W)) -> (B, d_v, H), as in SeaFormer, one head."""

    def row_attention(q, k, v):
        with torch.device("meta"):  # `attend` has no weights
            layer = SqueezeAxialAttention(8, q.shape[1], heads=1, value_ratio=1)
        return layer.attend(q.mean(3), k.mean(3), v.mean(3))

    def imitate(power=-0.5, axis=-1, turned=True, average=3):
        def attend(q, k, v):
            q, k, v = (x.mean(average) for x in (q, k, v))
            weights = (q.mT @ k * q.shape[1] ** power).softmax(axis)
            return v @ (weights.mT if turned else weights)

        return attend

    return judge(
        answer,
        row_attention,
        lambda rng: tuple(2 * normal(rng, 2, c, 5, 6) for c in (4, 4, 7)),
        [
            Mistake(
                imitate(power=0.0), "TopFormer leaves the scale out; SeaFormer multiplies the scores by d ** -0.5."
            ),
            Mistake(imitate(power=-1.0), "Divide the scores by the square root of d, not by d."),
            Mistake(imitate(axis=-2), "Softmax over the wrong axis: a query row's weights over all key rows sum to 1."),
            Mistake(
                imitate(turned=False), "Output row i mixes the values v[j] by weights[i, j]: transpose the weights."
            ),
            Mistake(
                imitate(average=2), "These are attending columns: for rows, average over the width, the last axis."
            ),
        ],
        praise="H tokens instead of H W: H^2 pairs instead of (H W)^2.",
    )


def unseen_change(answer: Callable) -> Verdict:
    """unseen_change(feature (B, C, H, W), cell) -> another map, the same to `TopFormer.pool`; every block must differ."""
    name = "unseen_change"
    for cell in (2, 4, 8):
        feature = torch.randn(2, 3, 2 * cell, 3 * cell)
        given = feature.clone()
        got, verdict = attempt(name, answer, given, cell)
        if verdict is not None:
            return verdict
        if not torch.equal(given, feature):
            return wrong(name, "it changes its argument in place; work on a copy, feature.clone().")
        if not isinstance(got, Tensor) or got.shape != feature.shape:
            said = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            return wrong(name, f"expected a tensor of shape {tuple(feature.shape)}, it gives {said}.")
        if torch.equal(got, feature):
            return wrong(name, "nothing has changed: the pooled tokens are the same, and so is the map.")
        changed = F.max_pool2d((got - feature).abs(), cell) > 1e-3  # (B, C, 2, 3)
        grid = torch.empty(2, 1, 2, 3)  # the coarsest token: it says how many cells there are
        before, after = (TopFormer.pool(SimpleNamespace(token_stride=32), [x, grid])[:, :3] for x in (feature, got))
        if seen := difference(after, before, 1e-4):
            hint = "Values may move within a block only, and none may be lost (a swap needs a copy)."
            return wrong(name, f"the pooled token betrays it: {seen}. {hint}")
        if not changed.all():
            left = f"{int((~changed).sum())} of {changed.numel()}"
            return wrong(name, f"{left} blocks (each channel counted) are as they were; change every one.")
    return correct(name, "X6 cannot tell the two apart. X3 to X5 can: that is why the fine levels stay.")
