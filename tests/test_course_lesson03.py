"""Checks of lesson 03: plausible mistakes get their hint."""

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

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


def blocks(local, x6, to_gate, to_value):
    size = local.shape[2:]
    return local * F.interpolate(hard(to_gate(x6)), size) + F.interpolate(to_value(x6), size)


def raw_gate(local, x6, to_gate, to_value):
    return local * bilinear(to_gate(x6), local) + bilinear(to_value(x6), local)


def smooth_gate(local, x6, to_gate, to_value):
    return local * bilinear(1 / (1 + (-to_gate(x6)).exp()), local) + bilinear(to_value(x6), local)


def value_multiplied(local, x6, to_gate, to_value):
    return bilinear(hard(to_gate(x6)), local) * local * bilinear(to_value(x6), local)


def squashed_late(local, x6, to_gate, to_value):
    return local * hard(bilinear(to_gate(x6), local)) + bilinear(to_value(x6), local)


def scene_upsampled_first(local, x6, to_gate, to_value):
    large = bilinear(x6, local)
    return local * hard(to_gate(large)) + to_value(large)


def value_squashed(local, x6, to_gate, to_value):
    return local * bilinear(hard(to_gate(x6)), local) + bilinear(hard(to_value(x6)), local)


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
    (check.semantic_enhancer, squashed_late, "squash the few tokens first"),
    (check.semantic_enhancer, scene_upsampled_first, "squash the few tokens first"),
    (check.semantic_enhancer, value_squashed, "for the gate alone"),
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


def enhanced_in_place(local, x6, to_gate, to_value):
    local *= bilinear(hard(to_gate(x6)), local)
    local += bilinear(to_value(x6), local)
    return local


def summed_in_place(l3, l4, l5):
    l4 += bilinear(l5, l4)
    l3 += bilinear(l4, l3)
    return [l3.numpy(), l4.numpy(), l5]


def masks_in_halves(kernels, x_mask):
    return torch.einsum("bnd,bdhw->bnhw", kernels.half(), x_mask.half())


def shapes_as_lists(height, width, dim):
    return {
        key: list(shape) for key, shape in SOLUTIONS["level_shapes"](height, width, dim).items()
    }


def by_numpy(x_mask):
    return x_mask.numpy().max(0) <= 0


@pytest.mark.parametrize(
    "judge, answer",
    [
        (check.semantic_enhancer, enhanced_in_place),
        (check.top_down, summed_in_place),
        (check.apply_kernels, masks_in_halves),
        (check.level_shapes, shapes_as_lists),
        (check.unreachable, by_numpy),
    ],
    ids=lambda value: value.__name__,
)
def test_other_right_answers_pass(judge, answer):
    verdict = judge(answer)
    assert verdict, verdict


@pytest.mark.parametrize("name", check.__all__)
def test_the_lesson_goes_on_with_ours_and_ours_is_right(name):
    def stub(*given):
        raise NotImplementedError

    judge = getattr(check, name)
    assert judge(judge(stub).or_ours)


def test_the_film_has_a_frame_per_term_and_ends_on_the_whole_sum():
    terms = torch.linspace(-1, 1, 3 * 24 * 32).view(3, 24, 32)
    film = check.film_of_sums(terms, terms.cumsum(0), terms.sum(0) > 0, "a mask grows")
    picture = Image.open(io.BytesIO(film.gif))
    picture.seek(picture.n_frames - 1)
    last = np.asarray(picture.convert("RGB")).astype(int)[18:138, 348:508]
    assert picture.n_frames >= 3 and "alt='a mask grows'" in film._repr_html_()
    red = (last[..., 0] > 150) & (last[..., 1] < 100)
    assert not red.any() and (last > 200).all(-1).mean() > 0.3


def test_the_diagram_has_the_shapes_that_it_is_given():
    shapes = SOLUTIONS["level_shapes"](192, 256, 64)
    words = "\n".join(t.get_text() for t in check.plot_decoder(shapes).axes[0].texts)
    assert all(f"{name}\n{' x '.join(map(str, s))}" in words for name, s in shapes.items())


def summed_on_the_spot(l3, l4, l5):
    l4 += bilinear(l5, l4)
    l3 += bilinear(l4, l3)
    return l3, l4, l5


def test_gradients_pass_through_answers_that_work_in_place():
    gate, value, lateral = (torch.nn.Conv2d(4, 4, 1) for _ in "gvl")
    x3, x4, x5 = (torch.randn(1, 4, 4 * k, 4 * k) for k in (4, 2, 1))
    enhance = check.semantic_enhancer(enhanced_in_place).or_ours
    add = check.top_down(summed_on_the_spot).or_ours
    levels = [enhance(lateral(x), x5, gate, value) for x in (x3, x4, x5)]
    kept = [x.detach().clone() for x in levels]
    add(*levels)[0].sum().backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in (gate, value, lateral))
    assert all(torch.equal(x, y) for x, y in zip(levels, kept))
