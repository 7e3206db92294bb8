"""Lesson 04's checks: wrong answers get their hint."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

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


def position_everywhere(queries, tokens, position, w_q, w_k, w_v):
    x = tokens + position
    return F.softmax((queries @ w_q) @ (x @ w_k).T / queries.shape[-1] ** 0.5, dim=-1) @ (x @ w_v)


def position_in_values(queries, tokens, position, w_q, w_k, w_v):
    shares = F.softmax((queries @ w_q) @ (tokens @ w_k).T / queries.shape[-1] ** 0.5, dim=-1)
    return shares @ (tokens + position) @ w_v


def position_forgotten(queries, tokens, position, w_q, w_k, w_v):
    return (
        F.softmax((queries @ w_q) @ (tokens @ w_k).T / queries.shape[-1] ** 0.5, dim=-1)
        @ tokens
        @ w_v
    )


def not_scaled(queries, tokens, position, w_q, w_k, w_v):
    return F.softmax((queries @ w_q) @ ((tokens + position) @ w_k).T, dim=-1) @ (tokens @ w_v)


def scaled_by_d(queries, tokens, position, w_q, w_k, w_v):
    return F.softmax(
        (queries @ w_q) @ ((tokens + position) @ w_k).T / queries.shape[-1], dim=-1
    ) @ (tokens @ w_v)


def over_queries(queries, tokens, position, w_q, w_k, w_v):
    scores = (
        torch.einsum("nd,sd->ns", queries @ w_q, (tokens + position) @ w_k)
        / queries.shape[1] ** 0.5
    )
    return scores.softmax(dim=0) @ (tokens @ w_v)


def scores_alone(queries, tokens, position, w_q, w_k, w_v):
    return ((queries @ w_q) @ ((tokens + position) @ w_k).T / queries.shape[1] ** 0.5) @ (
        tokens @ w_v
    )


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
    ("instance_scores", classes_compete, "compete"),
    ("instance_scores", no_root, "square root is missing"),
    ("instance_scores", best_class, "all K scores"),
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
    @torch.no_grad()
    def of_the_package(queries, tokens, position, w_q, w_k, w_v):
        attention = MultiHeadAttention(queries.shape[1], heads=1)
        attention.out = torch.nn.Identity()
        for linear, weight in ((attention.q, w_q), (attention.k, w_k), (attention.v, w_v)):
            linear.weight.copy_(weight.T)
        return attention(queries[None], (tokens + position)[None], tokens[None])[0]

    assert check.cross_attention(of_the_package)


def test_a_check_leaves_the_random_state_alone(solved):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check.one_voice(solved["one_voice"])
    assert torch.equal(torch.get_rng_state(), before)
