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
from minst.course.pictures import plot_bars  # noqa: F401  the lesson draws with it
from minst.course.verdict import HALF, Verdict, difference, examine, judge, normal, numbers, say

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
        "Height comes first, as in (B, 3, H, W).",
        lambda height, width: level_sizes(width, height),
        "A size that is a multiple of 64 already needs no padding: n + 64 - n % 64 adds 64 to it.",
        lambda *size: level_sizes(*(n + 64 - n % 64 for n in size)),
    ]
    whole = itertools.cycle([(True, False), (False, False), (False, True), (False, False)])

    def draw(rng):  # multiples of 64 among them: none is left to luck
        sizes = zip(rng.integers(70, 900, 2), rng.integers(2, 14, 2), next(whole))
        return [64 * blocks if even else n for n, blocks, even in sizes]

    return judge(answer, level_sizes, draw, mistakes, rounds=20)


def macs_of_inverted_residual(answer: Callable) -> Verdict:
    """macs_of_inverted_residual(channels in, out, kernel_size, stride, expansion, h, w) -> int."""

    def macs_of_inverted_residual(i, o, kernel_size, stride, expansion, height, width):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block = InvertedResidual(i, o, kernel_size, stride, expansion)
            block(torch.empty(1, i, height, width))
        return counter.get_total_flops() // 2

    def wrong(i, o, k, s, e, h, w, strided="filter, project", dense=False, power=2, always=False):
        hidden, names = i * e, ("expand", "filter", "project")
        cells = [h * w // s**2 if name in strided else h * w for name in names]
        expand = i * hidden if e != 1 or always else 0
        width = k**power * hidden * (hidden if dense else 1)
        return cells[0] * expand + cells[1] * width + cells[2] * hidden * o

    # kernel size, stride, expansion: none is left to luck
    kinds = itertools.cycle([(3, 2, 4), (5, 2, 3), (3, 1, 6), (3, 1, 1), (5, 2, 6), (3, 2, 1)])

    def draw(rng):
        return *rng.integers(8, 65, 2), *next(kinds), *(2 * rng.integers(4, 30, 2))

    mistakes = [
        "One multiplication with its addition is one MAC, not two.",
        lambda *given: 2 * macs_of_inverted_residual(*given),
        "Depth-wise: a wide channel is filtered alone, hidden * k * k for each output cell.",
        partial(wrong, dense=True),
        "The depth-wise convolution carries the stride: fewer cells from there on.",
        partial(wrong, strided=""),
        "The stride is on the depth-wise convolution already, not first on the projection.",
        partial(wrong, strided="project"),
        "The expansion comes before the stride: it runs on all height * width cells.",
        partial(wrong, strided="expand, filter, project"),
        "A kernel of size k has k * k weights, not k.",
        partial(wrong, power=1),
        "With expansion 1 there is no expanding convolution at all.",
        partial(wrong, always=True),
        "This is one plain convolution; the block has three: expand, depth-wise k x k, project.",
        lambda i, o, k, s, e, h, w: i * o * k * k * (h * w // s**2),
    ]
    praise = "Equal to what is counted while minst's own block runs."
    return judge(answer, macs_of_inverted_residual, draw, mistakes, tolerance=1e-9, praise=praise)


def row_attention(answer: Callable) -> Verdict:
    """row_attention(q, k (B, d, h, w), v (B, d_v, h, w)) -> (B, d_v, h): SeaFormer's, one head."""

    with torch.device("meta"):  # `attend` has no weights
        layer = SqueezeAxialAttention(8, 4, heads=1, value_ratio=1)

    def row_attention(q, k, v):
        return layer.attend(q.mean(3), k.mean(3), v.mean(3))

    def wrong(q, k, v, power=-0.5, axis=-1, turned=True, average=3):
        q, k, v = (x.mean(average) for x in (q, k, v))
        weights = (q.mT @ k * q.shape[1] ** power).softmax(axis)
        return v @ (weights.mT if turned else weights)

    def draw(rng):
        return [2 * normal(rng, 2, channels, 5, 6) for channels in (4, 4, 7)]

    mistakes = [
        "TopFormer leaves the scale out; SeaFormer multiplies the scores by d ** -0.5.",
        partial(wrong, power=0.0),
        "Divide the scores by the square root of d, not by d.",
        partial(wrong, power=-1.0),
        "Softmax over the wrong axis: a query row's weights over all key rows sum to 1.",
        partial(wrong, axis=-2),
        "Output row i mixes the values v[j] by weights[i, j]: transpose the weights.",
        partial(wrong, turned=False),
        "These are attending columns: for rows, average over the width, the last axis.",
        partial(wrong, average=2),
        "q and k have changed places: row i of the scores belongs to query i, q^T k.",
        lambda q, k, v: row_attention(k, q, v),
    ]
    praise = "h tokens instead of h w: h^2 pairs instead of (h w)^2."
    return judge(answer, row_attention, draw, mistakes, tolerance=HALF, praise=praise)


def unseen_change(answer: Callable) -> Verdict:
    """unseen_change(feature (B, C, H, W), cell) -> another map, the same to `TopFormer.pool`."""

    def reference(feature, cell):
        return feature.unflatten(3, (-1, cell)).flip(4).flatten(3)

    def fault(got, feature, cell):
        try:
            got = torch.from_numpy(numbers(got, *feature.shape)).float()
        except ValueError:
            wrong = "expected numbers of shape {expected}, it gives a {kind} {shape}."
            shape, kind = tuple(getattr(got, "shape", ())), type(got).__name__
            return say(wrong, expected=tuple(feature.shape), kind=kind, shape=shape)
        if torch.equal(got, feature):
            return say("nothing has changed: the pooled tokens are the same, and so is the map.")
        grid = torch.empty(2, 1, 2, 3)  # the coarsest token: it says how many cells there are
        options = SimpleNamespace(token_stride=32)
        before, after = (TopFormer.pool(options, [x, grid])[:, :3] for x in (feature, got))
        if seen := difference(after, before):
            hint = "Values may move within a block only; none may be lost (a swap needs a copy)."
            return say("the pooled token betrays it: {seen}", hint, seen=seen)
        moved = F.max_pool2d((got - feature).abs(), cell)  # (B, C, 2, 3)
        if (moved == 0).any():
            wrong = "{n} of {all} blocks (each channel counted) are as they were; change every one."
            return say(wrong, n=(moved == 0).sum(), all=moved.numel())
        if moved.min() < 5e-4:  # below what the comparison of means could tell
            hint = "This is too small to tell from rounding; change every block by 0.001 or more."
            return say("a block changes by {most:.1g} at most.", hint, most=moved.min())
        return ""

    rng = np.random.default_rng()
    cases = [(normal(rng, 2, 3, 2 * cell, 3 * cell), cell) for cell in (2, 4, 8)]
    praise = "X6 cannot tell the two apart. X3 to X5 can: that is why the fine levels stay."
    return examine(answer, unseen_change, cases, fault, praise, reference)


def red_and_blue(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 24, 24) of three squares; masks (count, 1, 12, 12) of those that count.

    Two squares are blue, and count where the third is red; in every other image it is green.
    """
    rng = np.random.default_rng(seed)
    images = 0.5 + 0.1 * normal(rng, count, 3, 24, 24)
    masks = torch.zeros(count, 1, 12, 12)
    colors = torch.tensor([[0.2, 0.3, 0.9], [0.2, 0.3, 0.9], [0.9, 0.2, 0.2], [0.2, 0.8, 0.3]])
    for i in range(count):
        places = np.stack(np.unravel_index(rng.permutation(16)[:3], (4, 4)), 1)
        for kind, (y, x) in zip((0, 1, 2 + i % 2), 3 * places + rng.integers(0, 2, (3, 2))):
            image, mask = images[i, :, 2 * y :, 2 * x :], masks[i, 0, y : y + 2, x : x + 2]
            image[:, :4, :4] = colors[kind][:, None, None]
            mask[:] = kind < 2 and i % 2 == 0
    return images, masks


def gridded(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A frame (H, W, 3) with white lines between its rows x columns cells."""
    drawn, (height, width) = image.copy(), image.shape[:2]
    drawn[[i * height // rows for i in range(1, rows)]] = 255
    drawn[:, [i * width // columns for i in range(1, columns)]] = 255
    return drawn


def outlined(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Bytes (h, w, 3), enlarged in blocks to masks (G, H, W), whose outlines are drawn in white."""
    height, width = masks.shape[1:]
    drawn = image.repeat(height // image.shape[0], 0).repeat(width // image.shape[1], 1)
    steps = [masks ^ np.roll(masks, shift, axis) for axis in (1, 2) for shift in (1, 2)]
    drawn[np.any(steps, (0, 1))] = 255
    return drawn
