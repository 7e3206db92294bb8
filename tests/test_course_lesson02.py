"""minst.course.lesson02: plausible mistakes get their hint."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import minst
from minst.course import lesson02

SOLVED = Path(__file__).resolve().parent.parent / "notebooks" / "solutions" / "02_backbone.py"


@pytest.fixture(scope="module")
def solutions():
    return runpy.run_path(str(SOLVED))


@pytest.mark.parametrize(("height", "width"), [(100, 130), (192, 256)])
def test_sizes_are_those_of_the_model(solutions, height, width):
    with torch.device("meta"):
        model = minst.MobileInst(minst.MobileInstConfig.preset("topformer-tiny")).eval()
        padded, _ = model._pad(torch.empty(1, 3, height, width), None)
        assert [tuple(x.shape[-2:]) for x in model.backbone(padded)] == solutions["level_sizes"](
            height, width
        )


def sizes_floor(height, width):
    return [(height // s, width // s) for s in [8, 16, 32, 64]]


def sizes_halved(height, width):
    out, h, w = [], height, width
    for level in range(1, 7):
        h, w = (h + 1) // 2, (w + 1) // 2
        if level >= 3:
            out.append((h, w))
    return out


def sizes_from_a_quarter(height, width):
    height, width = (height + 63) // 64 * 64, (width + 63) // 64 * 64
    return [(height // 2**i, width // 2**i) for i in range(2, 6)]


def sizes_width_first(height, width):
    h, w = -(-height // 64), -(-width // 64)
    return [(w * n, h * n) for n in (8, 4, 2, 1)]


def sizes_token_stride_32(height, width):
    h, w = -(-height // 64), -(-width // 64)
    return [(h * n, w * n) for n in (8, 4, 2, 2)]


def sizes_padded_to_32(height, width):
    import math

    height, width = math.ceil(height / 32) * 32, math.ceil(width / 32) * 32
    return [(height // s, width // s) for s in (8, 16, 32, 64)]


def sizes_padded_always(height, width):
    height, width = (n + 64 - n % 64 for n in (height, width))
    return [(height // s, width // s) for s in (8, 16, 32, 64)]


def macs_stride_on_the_projection(i, o, k, s, t, h, w):
    mid = i * t
    wide = h * w * ((i * mid if t != 1 else 0) + mid * k * k)
    return wide + (h // s) * (w // s) * mid * o


def macs_k_for_k_squared(i, o, k, s, t, h, w):
    mid = i * t
    out = (h // s) * (w // s) * (mid * k + mid * o)
    return out + (h * w * i * mid if t != 1 else 0)


def macs_dense(i, o, k, s, t, h, w):
    mid = int(i * t)
    total = h * w * i * mid if t > 1 else 0
    total += (h // s) * (w // s) * mid * mid * k**2
    return total + (h // s) * (w // s) * mid * o


def macs_without_stride(i, o, k, s, t, h, w):
    mid = i * t
    return h * w * ((i * mid if t != 1 else 0) + mid * k * k + mid * o)


def macs_all_strided(i, o, k, s, t, h, w):
    mid = i * t
    return (h // s) * (w // s) * ((i * mid if t != 1 else 0) + mid * k * k + mid * o)


def macs_always_expanding(i, o, k, s, t, h, w):
    mid, out = i * t, (h // s) * (w // s)
    return h * w * i * mid + out * mid * k * k + out * mid * o


def macs_plain(i, o, k, s, t, h, w):
    return k * k * i * o * (h // s) * (w // s)


def flops(i, o, k, s, t, h, w):
    mid, out = i * t, (h // s) * (w // s)
    return 2 * ((h * w * i * mid if t != 1 else 0) + out * mid * k * k + out * mid * o)


def softmax_rows(q, k, v, scale, dim=-1):
    q, k, v = q.mean(-1), k.mean(-1), v.mean(-1)
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) * scale, dim=dim)
    return torch.einsum("bij,bcj->bci", weights, v)


def rows_unscaled(q, k, v):
    return softmax_rows(q, k, v, 1)


def rows_over_d(q, k, v):
    return softmax_rows(q, k, v, 1 / q.size(1))


def rows_wrong_softmax(q, k, v):
    return softmax_rows(q, k, v, q.size(1) ** -0.5, dim=1)


def rows_not_transposed(q, k, v):
    q, k, v = q.mean(3), k.mean(3), v.mean(3)
    return v @ (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(2)


def columns(q, k, v):
    return softmax_rows(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3), q.size(1) ** -0.5)


def rows_asked_by_keys(q, k, v):
    return softmax_rows(k, q, v, q.size(1) ** -0.5)


def same(feature, cell):
    return feature.clone()


def in_place(feature, cell):
    feature[..., ::2] = 0
    return feature


def whole_map_mirrored(feature, cell):
    return feature.flip(-1)


def swap_by_alias(feature, cell):
    out = feature.clone()
    out[..., 0::2], out[..., 1::2] = out[..., 1::2], out[..., 0::2]
    return out


def one_block_only(feature, cell):
    out = feature.clone()
    out[..., 0, 0] += 1
    out[..., 0, 1] -= 1
    return out


def hardly_anything(feature, cell):
    rows, columns = torch.arange(feature.shape[2]), torch.arange(feature.shape[3])
    return feature + 1e-5 - 2e-5 * ((rows[:, None] + columns) % 2)


def smaller(feature, cell):
    return feature[..., ::cell, ::cell]


WRONG = [
    ("level_sizes", sizes_floor, "Floor division"),
    ("level_sizes", sizes_halved, "Rounding up"),
    ("level_sizes", sizes_from_a_quarter, "strides 8, 16, 32 and 64"),
    ("level_sizes", sizes_width_first, "Height comes first"),
    ("level_sizes", sizes_token_stride_32, "deviation"),
    ("level_sizes", sizes_padded_to_32, "stride of X5"),
    ("level_sizes", sizes_padded_always, "needs no padding"),
    ("macs_of_inverted_residual", macs_stride_on_the_projection, "not first on the projection"),
    ("macs_of_inverted_residual", macs_k_for_k_squared, "k * k weights"),
    ("macs_of_inverted_residual", macs_dense, "Depth-wise"),
    ("macs_of_inverted_residual", macs_without_stride, "carries the stride"),
    ("macs_of_inverted_residual", macs_all_strided, "before the stride"),
    ("macs_of_inverted_residual", macs_always_expanding, "no expanding"),
    ("macs_of_inverted_residual", macs_plain, "plain convolution"),
    ("macs_of_inverted_residual", flops, "one MAC"),
    ("row_attention", rows_unscaled, "leaves the scale out"),
    ("row_attention", rows_over_d, "square root"),
    ("row_attention", rows_wrong_softmax, "wrong axis"),
    ("row_attention", rows_not_transposed, "transpose the weights"),
    ("row_attention", columns, "last axis"),
    ("row_attention", rows_asked_by_keys, "changed places"),
    ("unseen_change", same, "nothing has changed"),
    ("unseen_change", in_place, "the pooled token betrays it"),
    ("unseen_change", whole_map_mirrored, "within a block"),
    ("unseen_change", swap_by_alias, "betrays"),
    ("unseen_change", one_block_only, "change every one"),
    ("unseen_change", hardly_anything, "too small to tell"),
    ("unseen_change", smaller, "expected numbers of shape"),
]


@pytest.mark.parametrize(
    ("name", "answer", "word"), WRONG, ids=[answer.__name__ for _, answer, _ in WRONG]
)
def test_mistakes_get_their_hint(name, answer, word):
    for _ in range(3):
        verdict = getattr(lesson02, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


def chessboard(feature, cell, height=1.0):
    rows, columns = torch.arange(feature.shape[2]), torch.arange(feature.shape[3])
    return feature + height - 2 * height * ((rows[:, None] + columns) % 2)


def small_chessboard(feature, cell):
    return chessboard(feature, cell, 1e-3).double().numpy()


def mirrored_in_place(feature, cell):
    for left in range(0, feature.shape[3], cell):
        block = feature[..., left : left + cell]
        block[:] = block.flip(-1).clone()
    return feature


def attention_of_torch(q, k, v):
    q, k, v = (x.mean(-1).mT for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).mT


def attention_in_halves(q, k, v):
    return attention_of_torch(q.half(), k.half(), v.half())


def sizes_as_an_array(height, width):
    whole = np.ceil(np.array([height, width]) / 64)
    return np.stack([whole * n for n in (8, 4, 2, 1)])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("unseen_change", chessboard),
        ("unseen_change", small_chessboard),
        ("unseen_change", mirrored_in_place),
        ("row_attention", attention_of_torch),
        ("row_attention", attention_in_halves),
        ("level_sizes", sizes_as_an_array),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_right_answers_pass(name, answer):
    verdict = getattr(lesson02, name)(answer)
    assert verdict, verdict


@pytest.mark.parametrize("name", lesson02.__all__)
def test_the_lesson_goes_on_with_ours_and_ours_is_right(name):
    def stub(*given):
        raise NotImplementedError

    check = getattr(lesson02, name)
    assert check(check(stub).or_ours)


def test_blue_counts_where_red_is():
    images, masks = lesson02.red_and_blue(40, seed=1)
    red = (images[:, 0] - images[:, 1] - images[:, 2] > 0.4).sum((1, 2))
    blue = images[:, 2] - images[:, 0] - images[:, 1] > 0.3
    assert set(red.tolist()) == {0, 16}
    counted = torch.where(red[:, None, None] > 0, blue[:, ::2, ::2], False)
    assert torch.equal(masks[:, 0] > 0, counted) and masks.sum() == 20 * 8


def test_outlines_lie_on_the_edge_of_a_mask():
    masks = np.zeros((1, 12, 16), bool)
    masks[0, 4:10, 4:12] = True
    drawn = lesson02.outlined(np.zeros((3, 4, 3), np.uint8), masks)
    assert drawn.shape == (12, 16, 3) and drawn[5, 4].min() == 255 and drawn[7, 8].max() == 0
