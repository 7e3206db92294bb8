"""Lesson 02: sizes of X3..X6, multiply-accumulates, squeezed attention, what pooling cannot see."""

import itertools
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minst.backbones.base import InvertedResidual
from minst.backbones.seaformer import SqueezeAxialAttention
from minst.backbones.topformer import TopFormer
from minst.course.verdict import Verdict, difference, examine, judge, normal

__all__ = ["level_sizes", "macs_of_inverted_residual", "row_attention", "unseen_change"]


def level_sizes(answer: Callable) -> Verdict:
    """level_sizes(height, width) -> [(h, w) of X3, X4, X5, X6], padded to multiples of 64 first."""

    def level_sizes(*size, multiple=64, strides=(8, 16, 32, 64), up=False):
        padded = [n + -n % multiple for n in size]  # a test holds it to the backbone's own maps
        return [tuple(-(-n // s) if up else n // s for n in padded) for s in strides]

    mistakes = [
        "Floor division loses the last pixels; pad to the next multiples of 64 before dividing.",
        partial(level_sizes, multiple=1),
        "Rounding up at each level is not padding: pad to multiples of 64 first.",
        partial(level_sizes, multiple=1, up=True),
        "32 is the stride of X5. X6 has 64: pad to multiples of 64.",
        partial(level_sizes, multiple=32),
        "The levels are X3 to X6, at strides 8, 16, 32 and 64: two to the power of the level.",
        partial(level_sizes, strides=(4, 8, 16, 32)),
        "X6 at 1/32 is the shipped model's, a deviation for small frames; the paper's is at 1/64.",
        partial(level_sizes, strides=(8, 16, 32, 32)),
        "Height comes first, as in (B, C, H, W).",
        lambda height, width: level_sizes(width, height),
    ]
    return judge(answer, level_sizes, lambda rng: rng.integers(70, 900, 2), mistakes, rounds=20)


def macs_of_inverted_residual(answer: Callable) -> Verdict:
    """macs_of_inverted_residual(channels in, out, kernel_size, stride, expansion, h, w) -> int."""

    def macs_of_inverted_residual(i, o, kernel_size, stride, expansion, height, width):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block = InvertedResidual(i, o, kernel_size, stride, expansion)
            block(torch.empty(1, i, height, width))
        return counter.get_total_flops() // 2

    def imitate(dense=False, late_stride=False, early_stride=False, always_expand=False):
        def count(i, o, k, s, e, h, w):
            hidden, fine, coarse = i * e, h * w, h * w // s**2
            inside, after = (coarse if early_stride else fine), (fine if late_stride else coarse)
            expand = inside * i * hidden if e != 1 or always_expand else 0
            return expand + after * k * k * hidden * (hidden if dense else 1) + after * hidden * o

        return count

    # kernel size, stride, expansion: none is left to luck
    kinds = itertools.cycle([(3, 2, 4), (5, 2, 3), (3, 1, 6), (3, 1, 1), (5, 2, 6), (3, 2, 1)])

    def draw(rng):
        return *rng.integers(8, 65, 2), *next(kinds), *(2 * rng.integers(4, 30, 2))

    mistakes = [
        "One multiplication with its addition is one MAC, not two.",
        lambda *given: 2 * macs_of_inverted_residual(*given),
        "Depth-wise: a wide channel is filtered alone, hidden * k * k for each output cell.",
        imitate(dense=True),
        "The depth-wise convolution carries the stride: fewer cells from there on.",
        imitate(late_stride=True),
        "The expansion comes before the stride: it runs on all height * width cells.",
        imitate(early_stride=True),
        "With expansion 1 there is no expanding convolution at all.",
        imitate(always_expand=True),
        "This is one plain convolution; the block has three: expand, depth-wise k x k, project.",
        lambda i, o, k, s, e, h, w: i * o * k * k * (h * w // s**2),
    ]
    praise = "Equal to what is counted while minst's own block runs."
    return judge(answer, macs_of_inverted_residual, draw, mistakes, tolerance=1e-9, praise=praise)


def row_attention(answer: Callable) -> Verdict:
    """row_attention(q, k (B, d, H, W), v (B, d_v, H, W)) -> (B, d_v, H): SeaFormer's, one head."""

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

    def draw(rng):
        return [2 * normal(rng, 2, channels, 5, 6) for channels in (4, 4, 7)]

    mistakes = [
        "TopFormer leaves the scale out; SeaFormer multiplies the scores by d ** -0.5.",
        imitate(power=0.0),
        "Divide the scores by the square root of d, not by d.",
        imitate(power=-1.0),
        "Softmax over the wrong axis: a query row's weights over all key rows sum to 1.",
        imitate(axis=-2),
        "Output row i mixes the values v[j] by weights[i, j]: transpose the weights.",
        imitate(turned=False),
        "These are attending columns: for rows, average over the width, the last axis.",
        imitate(average=2),
    ]
    praise = "H tokens instead of H W: H^2 pairs instead of (H W)^2."
    return judge(answer, row_attention, draw, mistakes, praise=praise)


def unseen_change(answer: Callable) -> Verdict:
    """unseen_change(feature (B, C, H, W), cell) -> another map, the same to `TopFormer.pool`."""

    def fault(got, feature, cell):
        if not isinstance(got, Tensor) or got.shape != feature.shape:
            said = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            return f"expected a tensor of shape {tuple(feature.shape)}, it gives {said}."
        if torch.equal(got, feature):
            return "nothing has changed: the pooled tokens are the same, and so is the map."
        grid = torch.empty(2, 1, 2, 3)  # the coarsest token: it says how many cells there are
        options = SimpleNamespace(token_stride=32)
        before, after = (TopFormer.pool(options, [x, grid])[:, :3] for x in (feature, got))
        if seen := difference(after, before):
            hint = "Values may move within a block only; none may be lost (a swap needs a copy)."
            return f"the pooled token betrays it: {seen}. {hint}"
        changed = F.max_pool2d((got - feature).abs(), cell) > 1e-3  # (B, C, 2, 3)
        if not changed.all():
            left = f"{(~changed).sum()} of {changed.numel()}"
            return f"{left} blocks (each channel counted) are as they were; change every one."
        return ""

    rng = np.random.default_rng()
    cases = [(normal(rng, 2, 3, 2 * cell, 3 * cell), cell) for cell in (2, 4, 8)]
    praise = "X6 cannot tell the two apart. X3 to X5 can: that is why the fine levels stay."
    return examine(answer, unseen_change, cases, fault, praise)
