"""Lesson 04's checks: wrong answers get their hint."""

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from minst.course import lesson04 as check
from minst.layers import MultiHeadAttention
from minst.visualize import attention_maps

SOLUTIONS = (
    Path(__file__).resolve().parent.parent / "notebooks" / "solutions" / "04_dual_decoder.py"
)


@pytest.fixture(scope="module")
def solved():
    grad = torch.is_grad_enabled()
    yield runpy.run_path(str(SOLUTIONS))
    torch.set_grad_enabled(grad)


# how a student gets it wrong, and a word of the hint
def local_at_an_eighth(height, width, queries, heads, token_stride):
    s = height * width // token_stride**2
    return [
        (1, heads, queries, s),
        (1, heads, queries, height * width // 64),
        (1, heads, queries, queries),
    ]


def tokens_ask(height, width, queries, heads, token_stride):
    s = height * width // token_stride**2
    return [(1, heads, s, queries), (1, heads, s, queries), (1, heads, queries, queries)]


def no_heads(height, width, queries, heads, token_stride):
    s = height * width // token_stride**2
    return [(1, queries, s), (1, queries, s), (1, queries, queries)]


def no_batch(height, width, queries, heads, token_stride):
    s = height * width // token_stride**2
    return [(heads, queries, s), (heads, queries, s), (heads, queries, queries)]


def always_64(height, width, queries, heads, token_stride):
    s = height // 64 * width // 64
    return [(1, heads, queries, s)] * 2 + [(1, heads, queries, queries)]


def no_self_attention(height, width, queries, heads, token_stride):
    s = height * width // token_stride**2
    return [(1, heads, queries, s) for _ in range(3)]


def attention(q, k, v, power=0.5, dim=-1):
    shares = F.softmax(q @ k.T / q.shape[-1] ** power, dim=dim)
    return shares, torch.matmul(shares, v)


def position_everywhere(queries, tokens, position, w_q, w_k, w_v):
    x = tokens + position
    return attention(queries @ w_q, x @ w_k, x @ w_v)


def position_in_values(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, tokens @ w_k, (tokens + position) @ w_v)


def position_forgotten(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, tokens @ w_k, tokens @ w_v)


def position_after_the_weights(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, torch.add(tokens @ w_k, position), tokens @ w_v)


def weights_exchanged(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_k, (tokens + position) @ w_q, tokens @ w_v)


def with_a_residual(queries, tokens, position, w_q, w_k, w_v):
    shares, mixture = attention(queries @ w_q, (tokens + position) @ w_k, tokens @ w_v)
    return shares, mixture + queries


def not_scaled(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, (tokens + position) @ w_k, tokens @ w_v, power=0)


def scaled_by_d(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, (tokens + position) @ w_k, tokens @ w_v, power=1)


def over_queries(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, (tokens + position) @ w_k, tokens @ w_v, dim=0)


def scores_alone(queries, tokens, position, w_q, w_k, w_v):
    scores = (queries @ w_q) @ ((tokens + position) @ w_k).T / queries.shape[1] ** 0.5
    return scores, scores @ (tokens @ w_v)


def right(queries, tokens, position, w_q, w_k, w_v):
    return attention(queries @ w_q, (tokens + position) @ w_k, tokens @ w_v)


def scores_in_the_place_of_shares(*given):
    return right(*given)[0].log(), right(*given)[1]


def without_gradient(*given):
    return [x.detach() for x in right(*given)]


def in_numpy(*given):
    return [x.detach().numpy() for x in right(*given)]


def background_added(class_logits, objectness):
    logits = torch.cat([class_logits, torch.zeros(len(class_logits), 1)], dim=1)
    p = logits.softmax(dim=1)[:, :-1]
    return torch.sqrt(p * objectness.sigmoid()[:, None])


def background_last(class_logits, objectness):
    return torch.sqrt(class_logits.sigmoid()[:, :-1] * objectness.sigmoid()[:, None])


def background_last_of_a_softmax(class_logits, objectness):
    return torch.sqrt(class_logits.softmax(1)[:, :-1] * objectness.sigmoid()[:, None])


def classes_compete(class_logits, objectness):
    return torch.sqrt(torch.softmax(class_logits, dim=1) * torch.sigmoid(objectness).unsqueeze(1))


def no_root(class_logits, objectness):
    return torch.sigmoid(class_logits) * torch.sigmoid(objectness).unsqueeze(1)


def best_class(class_logits, objectness):
    return torch.sqrt(class_logits.sigmoid().max(dim=1).values * objectness.sigmoid())


def class_alone(class_logits, objectness):
    return class_logits.sigmoid()


def raw_objectness(class_logits, objectness):
    return torch.sqrt(class_logits.sigmoid() * objectness.view(-1, 1))


def upsampled(x, **how):
    height, width = x.shape[-2:]
    return F.interpolate(x.unsqueeze(0), size=(8 * height, 8 * width), **how).squeeze(0)


def products(kernels, mask_features):
    return (kernels @ mask_features.flatten(1)).view(len(kernels), *mask_features.shape[1:])


def logits_returned(kernels, mask_features):
    return upsampled(products(kernels, mask_features), mode="bilinear")


def sigmoid_first(kernels, mask_features):
    return upsampled(products(kernels, mask_features).sigmoid(), mode="bilinear")


def threshold(kernels, mask_features):
    return logits_returned(kernels, mask_features).sigmoid() > 0.5


def repeated(kernels, mask_features):
    return (
        products(kernels, mask_features).repeat_interleave(8, 1).repeat_interleave(8, 2).sigmoid()
    )


def corners(kernels, mask_features):
    return upsampled(
        products(kernels, mask_features), mode="bilinear", align_corners=True
    ).sigmoid()


def small(kernels, mask_features):
    return products(kernels, mask_features).sigmoid()


def shuffled(queries):
    return queries.flip(0)


def parallel(queries):
    return torch.arange(1, len(queries) + 1)[:, None] * queries[0]


def two_alike(queries):
    return torch.cat([queries[:1], queries[:1], queries[2:]])


def one_query(queries):
    return queries[:1]


WRONG = [
    ("attention_shapes", local_at_an_eighth, "pooling"),
    ("attention_shapes", tokens_ask, "A row for each query"),
    ("attention_shapes", no_heads, "Every head"),
    ("attention_shapes", no_batch, "batch"),
    ("attention_shapes", always_64, "token_stride"),
    ("attention_shapes", no_self_attention, "there are no tokens"),
    ("cross_attention", position_everywhere, "brought home"),
    ("cross_attention", position_in_values, "position is in the values; the keys"),
    ("cross_attention", position_forgotten, "without it tokens are a set"),
    ("cross_attention", not_scaled, "all or nothing"),
    ("cross_attention", scaled_by_d, "square root of D, not by D"),
    ("cross_attention", over_queries, "over the queries"),
    ("cross_attention", scores_alone, "not shares yet"),
    ("cross_attention", position_after_the_weights, "added after w_k"),
    ("cross_attention", weights_exchanged, "are exchanged"),
    ("cross_attention", with_a_residual, "residual comes later"),
    ("cross_attention", lambda *given: right(*given)[::-1], "come first"),
    ("cross_attention", lambda *given: right(*given)[1], "Two values are asked"),
    ("cross_attention", lambda *given: right(*given)[0], "Two values are asked"),
    ("cross_attention", without_gradient, "no gradient comes back"),
    ("cross_attention", in_numpy, "no gradient comes back"),
    ("instance_scores", background_added, "no background class: all C"),
    ("instance_scores", background_last, "no background class: the last"),
    ("instance_scores", background_last_of_a_softmax, "no background class: the last"),
    ("instance_scores", classes_compete, "compete"),
    ("instance_scores", no_root, "square root is missing"),
    ("instance_scores", best_class, "all C scores"),
    ("instance_scores", class_alone, "objectness is not used"),
    ("instance_scores", raw_objectness, "needs its sigmoid"),
    ("masks_from_kernels", logits_returned, "sigmoid is missing"),
    ("masks_from_kernels", sigmoid_first, "before the upsampling"),
    ("masks_from_kernels", threshold, "without a threshold"),
    ("masks_from_kernels", repeated, "bilinear"),
    ("masks_from_kernels", corners, "corners"),
    ("masks_from_kernels", small, "still at 1/8"),
    ("one_voice", shuffled, "shuffled alike"),
    ("one_voice", parallel, "parallel but not equal"),
    ("one_voice", two_alike, "kernel 2 differs from kernel 0. Row 2"),
    ("one_voice", one_query, "N queries, all of them"),
    ("one_voice", lambda queries: queries / 0, "not finite"),
    ("one_voice", lambda queries: queries.tolist(), "list, expected a tensor"),
]


@pytest.mark.parametrize("name, answer, word", WRONG, ids=lambda x: getattr(x, "__name__", None))
def test_a_wrong_answer_gets_its_hint(name, answer, word):
    for _ in range(5):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


def test_other_ways_to_be_right():
    assert check.one_voice(lambda queries: torch.zeros_like(queries))
    assert check.one_voice(lambda queries: queries.mean(0, keepdim=True).expand_as(queries))
    assert check.masks_from_kernels(
        lambda k, x: upsampled(products(k, x), mode="bilinear", align_corners=False).sigmoid()
    )


def in_half(function):
    return lambda *given: function(*(x.half() for x in given))


def in_double(function):
    return lambda *given: function(*(x.double() for x in given))


def as_lists(function):
    return lambda *given: function(*given).tolist()


@pytest.mark.parametrize("name", ["cross_attention", "instance_scores", "masks_from_kernels"])
def test_other_kinds_of_numbers_are_right_too(name, solved):
    ways = [in_half, in_double] + [as_lists] * (name != "cross_attention")
    for way in ways:
        for _ in range(5):
            verdict = getattr(check, name)(way(solved[name]))
            assert verdict, verdict
    assert check.cross_attention(lambda *given: list(map(list, right(*given))))
    lesson_goes_on = check.cross_attention(in_half(right)).or_ours
    assert [part.dtype for part in lesson_goes_on(*torch.randn(6, 4, 4))] == 2 * [torch.float32]


def test_what_works_in_place_is_right_and_spares_its_arguments_afterwards():
    def first_for_all(queries):
        queries[1:] = queries[0]
        return queries

    def adds_in_place(queries, tokens, position, w_q, w_k, w_v):
        position += tokens
        return attention(queries @ w_q, position @ w_k, tokens @ w_v)

    verdict, given = check.one_voice(first_for_all), torch.randn(5, 4)
    before = given.clone()
    assert verdict and torch.equal(verdict.or_ours(given), before[:1].expand(5, 4))
    assert torch.equal(given, before)
    verdict, parts = check.cross_attention(adds_in_place), torch.randn(6, 4, 4)
    parts.requires_grad_()
    before = parts.detach().clone()
    shares, mixture = verdict.or_ours(*parts)
    mixture.sum().backward()
    assert verdict and parts.grad.abs().sum() > 0 and torch.equal(parts, before)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_a_lesson_goes_on_with_ours_where_nothing_is_right():
    queries = torch.randn(3, 4)
    for answer in (one_query, shuffled, lambda queries: queries.missing):
        ours = check.one_voice(answer).or_ours(queries)
        assert torch.equal(ours, queries[:1].expand(3, 4))
    shares, _ = check.cross_attention(without_gradient).or_ours(*torch.randn(6, 4, 4))
    torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_a_film_is_a_loop_with_a_still_and_words():
    image, mask = np.zeros((192, 256, 3), np.uint8), np.zeros((192, 256), bool)
    mask[50:90, 60:99] = True
    shares = torch.rand(2, 6, 8)
    looks = [
        check.plot_look(image, mask, each, torch.randn(64), torch.randn(64), f"Step {i}")
        for i, each in enumerate(shares)
    ]
    film = check.film(looks)
    frames = Image.open(io.BytesIO(film.gif))
    assert frames.n_frames >= 2 and frames.info["loop"] == 0 and film.alt == looks[-1].alt
    assert "Step 1" in film._repr_html_() and film._repr_png_()[0].startswith(b"\x89PNG")


def test_shapes_are_those_of_the_model(make_model, solved):
    """The exercise's formula against the maps that a model really makes."""
    model = make_model()
    frames, config = torch.rand(1, 3, 128, 192), model.config
    expected = solved["attention_shapes"](
        128, 192, config.num_queries, config.heads, config.token_stride
    )
    for weights, shape in zip(attention_maps(model, frames).weights, expected):
        assert tuple(weights.flatten(3).shape) == shape


def test_cross_attention_is_that_of_the_package():
    def of_the_package(queries, tokens, position, w_q, w_k, w_v):
        attention = MultiHeadAttention(queries.shape[1], heads=1)
        attention.out = torch.nn.Identity()
        for linear, weight in ((attention.q, w_q), (attention.k, w_k), (attention.v, w_v)):
            linear.weight = torch.nn.Parameter(weight.T)
        given = queries[None], (tokens + position)[None], tokens[None]
        mixture, shares = attention(*given, return_weights=True)
        return shares[0, 0], mixture[0]

    verdict = check.cross_attention(of_the_package)
    assert verdict, verdict


def test_a_check_leaves_the_random_state_alone(solved):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check.one_voice(solved["one_voice"])
    assert torch.equal(torch.get_rng_state(), before)
