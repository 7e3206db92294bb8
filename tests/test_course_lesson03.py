"""Checks of lesson 03: plausible mistakes get their hint."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from minst.course import lesson03 as check

SOLUTIONS = runpy.run_path(
    str(Path(__file__).parents[1] / "notebooks" / "solutions" / "03_mask_decoder.py")
)


def bilinear(x, like, **options):
    return F.interpolate(x, like.shape[-2:], mode="bilinear", **options)


def hard(x):
    return (x / 6 + 0.5).clamp(0, 1)


def rows_and_columns_swapped(height, width, dim):
    third, fourth, fifth = (
        (dim, width // 8, height // 8),
        (dim, width // 16, height // 16),
        (dim, width // 32, height // 32),
    )
    return dict(P3=third, P4=fourth, P5=fifth, N4=fourth, N5=fifth, X_mask=third)


def x_mask_of_the_frame_size(height, width, dim):
    shapes = SOLUTIONS["level_shapes"](height, width, dim)
    return shapes | {"X_mask": (dim, height, width)}


def one_scale_coarser_on_the_way_up(height, width, dim):
    shapes = SOLUTIONS["level_shapes"](height, width, dim)
    return shapes | {"N4": shapes["N5"], "N5": (dim, height // 64, width // 64)}


def channels_that_double(height, width, dim):
    return {
        key: (factor * dim, height // (8 * factor), width // (8 * factor))
        for key, factor in dict(P3=1, P4=2, P5=4, N4=2, N5=4, X_mask=1).items()
    }


def default_interpolation(l3, l4, l5):
    p4 = l4 + F.interpolate(l5, scale_factor=2)
    return l3 + F.interpolate(p4, scale_factor=2), p4, l5


def laterals_alone(l3, l4, l5):
    return [l3 + bilinear(l4, l3), l4 + bilinear(l5, l4), l5]


def coarse_first(l3, l4, l5):
    p4 = l4 + bilinear(l5, l4)
    return l5, p4, l3 + bilinear(p4, l3)


def corners_aligned(l3, l4, l5):
    p4 = l4 + bilinear(l5, l4, align_corners=True)
    return l3 + bilinear(p4, l3, align_corners=True), p4, l5


def blocks(local, gate, value):
    size = local.shape[2:]
    return local * F.interpolate(hard(gate), size) + F.interpolate(value, size)


def raw_gate(local, gate, value):
    return local * bilinear(gate, local) + bilinear(value, local)


def smooth_gate(local, gate, value):
    return local * bilinear(1 / (1 + (-gate).exp()), local) + bilinear(value, local)


def value_multiplied(local, gate, value):
    return bilinear(hard(gate), local) * local * bilinear(value, local)


def squashed_late(local, gate, value):
    return local * hard(bilinear(gate, local)) + bilinear(value, local)


def loop_over_first_kernels(kernels, x_mask):
    masks = [torch.stack([(k[:, None, None] * x).sum(0) for k in kernels[0]]) for x in x_mask]
    return torch.stack(masks)


def probabilities(kernels, x_mask):
    return torch.sigmoid(torch.einsum("bnd,bdhw->bnhw", kernels, x_mask))


def averaged(kernels, x_mask):
    return (kernels[:, :, :, None, None] * x_mask[:, None]).mean(2)


def queries_last(kernels, x_mask):
    return torch.einsum("bnd,bdyx->byxn", kernels, x_mask)


def any_channel(x_mask):
    return (x_mask.relu() == 0).any(0)


def all_ones(x_mask):
    return ~(x_mask.sum(0) > 0)


def the_reachable_ones(x_mask):
    return x_mask.relu().amax(0) > 0


def strictly_negative(x_mask):
    return x_mask.amax(0) < 0


WRONG = [
    (check.level_shapes, rows_and_columns_swapped, "Rows come before columns"),
    (check.level_shapes, x_mask_of_the_frame_size, "stays at 1/8"),
    (check.level_shapes, one_scale_coarser_on_the_way_up, "N4 is as large as P4"),
    (check.level_shapes, channels_that_double, "All levels have D channels"),
    (check.top_down, default_interpolation, "nearest"),
    (check.top_down, laterals_alone, "hand on P4"),
    (check.top_down, coarse_first, "finest, comes first"),
    (check.top_down, corners_aligned, "align_corners=False"),
    (check.semantic_enhancer, blocks, "nearest"),
    (check.semantic_enhancer, raw_gate, "used as it is"),
    (check.semantic_enhancer, smooth_gate, "the hard one"),
    (check.semantic_enhancer, value_multiplied, "it is added"),
    (check.semantic_enhancer, squashed_late, "after the upsampling"),
    (check.apply_kernels, loop_over_first_kernels, "kernels of the first one"),
    (check.apply_kernels, probabilities, "logits are asked for"),
    (check.apply_kernels, averaged, "factor D"),
    (check.apply_kernels, queries_last, "queries come second"),
    (check.unreachable, any_channel, "One clipped channel"),
    (check.unreachable, all_ones, "one kernel only"),
    (check.unreachable, the_reachable_ones, "can reach"),
    (check.unreachable, strictly_negative, "exactly 0"),
]


@pytest.mark.parametrize(
    "judge, answer, hint", WRONG, ids=[answer.__name__ for _, answer, _ in WRONG]
)
def test_a_plausible_mistake_gets_its_hint(judge, answer, hint):
    for _ in range(5):
        verdict = judge(answer)
        assert verdict.state == "wrong" and hint in verdict.reason, verdict
