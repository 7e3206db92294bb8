"""Lesson 04: shapes of attention, cross-attention, scores, masks from kernels, and what tells queries apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minst.course.verdict import Mistake, Verdict, attempt, correct, judge, normal, wrong
from minst.instance_decoder import DualInstanceDecoder
from minst.layers import MultiHeadAttention
from minst.model import FrameOutput, apply_kernels, upsample_masks

__all__ = ["attention_shapes", "cross_attention", "instance_scores", "masks_from_kernels", "one_voice"]


def attention_shapes(answer: Callable) -> Verdict:
    """attention_shapes(height, width, queries, heads, token_stride) -> [global, local, among queries], each a shape."""

    def attention_shapes(height, width, queries, heads, token_stride):
        decoder = DualInstanceDecoder(8, heads * 4, queries, 2, heads, pool_size=token_stride // 8)
        q, x6 = decoder.queries[None], torch.zeros(1, 8, height // token_stride, width // token_stride)
        x_mask = torch.zeros(1, heads * 4, height // 8, width // 8)
        x_g, x_l = decoder.global_tokens(x6)[0], decoder.local_tokens(x_mask)[0]
        _, a_global = decoder.global_decoder.cross_attention(q, x_g, x_g, return_weights=True)
        _, a_local = decoder.local_decoder.cross_attention(q, x_l, x_l, return_weights=True)
        _, among = decoder.local_decoder.self_attention(q, q, q, return_weights=True)
        return [tuple(weights.shape) for weights in (a_global, a_local, among)]

    def unpooled(h, w, n, heads, s):
        return [(1, heads, n, (h // s) * (w // s)), (1, heads, n, (h // 8) * (w // 8)), (1, heads, n, n)]

    def among_tokens(h, w, n, heads, s):
        return [(1, heads, n, (h // s) * (w // s))] * 3

    def each(change):
        return lambda *given: [change(shape) for shape in attention_shapes(*given)]

    def draw(rng):
        height, width = (64 * int(rng.integers(1, 6)) for _ in range(2))
        return height, width, int(rng.integers(30, 40)), int(rng.integers(2, 9)), int(rng.choice([32, 64]))

    mistakes = [
        Mistake(unpooled, "The local decoder does not look at all of X_mask at 1/8: X_L is X_mask after pooling."),
        Mistake(
            each(lambda s: (s[0], s[1], s[3], s[2])), "A row for each query that asks, a column for each that is asked."
        ),
        Mistake(among_tokens, "In self-attention the queries ask the queries; there are no tokens."),
        Mistake(each(lambda s: s[1:]), "The batch dimension is missing: B = 1 comes first."),
        Mistake(
            each(lambda s: (s[0], *s[2:])),
            "Every head has an attention of its own: their number comes after the batch.",
        ),
        Mistake(
            lambda h, w, n, k, _: attention_shapes(h, w, n, k, 64), "These are tokens at 1/64; token_stride may be 32."
        ),
    ]
    return judge(answer, attention_shapes, draw, mistakes, rounds=12)


def cross_attention(answer: Callable) -> Verdict:
    """cross_attention(queries (N, D), tokens (S, D), position (S, D), w_q, w_k, w_v (D, D)) -> (N, D)."""

    @torch.no_grad()
    def cross_attention(queries, tokens, position, w_q, w_k, w_v):
        attention = MultiHeadAttention(queries.shape[1], heads=1)
        attention.out = nn.Identity()
        for linear, weight in ((attention.q, w_q), (attention.k, w_k), (attention.v, w_v)):
            linear.weight.copy_(weight.T)
        return attention(queries[None], (tokens + position)[None], tokens[None])[0]

    def wrongly(in_keys=1, in_values=0, power=0.5, share=lambda scores: scores.softmax(-1)):
        def attend(queries, tokens, position, w_q, w_k, w_v):
            scores = queries @ w_q @ ((tokens + in_keys * position) @ w_k).T / queries.shape[1] ** power
            return share(scores) @ (tokens + in_values * position) @ w_v

        return attend

    def draw(rng):
        n, s, d = int(rng.integers(2, 5)), int(rng.integers(6, 9)), int(rng.choice([9, 12]))
        return tuple(normal(rng, *shape) / d**0.25 for shape in [(n, d), (s, d), (s, d), (d, d), (d, d), (d, d)])

    mistakes = [
        Mistake(
            wrongly(in_values=1),
            "The position is in the values too; it should say where to look, not be part of what is brought home.",
        ),
        Mistake(
            wrongly(in_keys=0, in_values=1),
            "The position is in the values; the keys, which decide where to look, need it.",
        ),
        Mistake(
            wrongly(in_keys=0),
            "The position is not used: without it tokens are a set without places. Add it to the keys.",
        ),
        Mistake(wrongly(power=0), "The scores are not divided by the root of D: softmax becomes all or nothing."),
        Mistake(wrongly(power=1), "Divide by the square root of D, not by D."),
        Mistake(
            wrongly(share=lambda scores: scores.softmax(0)),
            "Softmax runs over the queries; each query shares its attention out over the tokens: the last dimension.",
        ),
        Mistake(
            wrongly(share=lambda scores: scores), "Scores are not shares yet: a softmax over the tokens is missing."
        ),
    ]
    return judge(answer, cross_attention, draw, mistakes)


def instance_scores(answer: Callable) -> Verdict:
    """instance_scores(class_logits (N, K), objectness (N,)) -> (N, K): sqrt(class probability * objectness)."""

    def instance_scores(class_logits, objectness):
        return FrameOutput(class_logits, objectness, None, None, None, None).scores()

    def softmax(c, o):
        return (c.softmax(-1) * o.sigmoid()[:, None]).sqrt()

    def draw(rng):
        n = int(rng.integers(4, 8))
        return 2 * normal(rng, n, int(rng.integers(2, n))), 2 * normal(rng, n)

    mistakes = [
        Mistake(
            softmax, "Softmax makes the classes compete; here each has a sigmoid of its own, and none is background."
        ),
        Mistake(lambda c, o: instance_scores(c, o) ** 2, "The square root is missing: the score is a geometric mean."),
        Mistake(
            lambda c, o: instance_scores(c, o).amax(-1), "Only the best class is left: give all K scores of a query."
        ),
        Mistake(lambda c, o: c.sigmoid(), "The objectness is not used: a good name on a bad mask should score low."),
        Mistake(
            lambda c, o: (c.sigmoid() * o[:, None]).sqrt(), "The objectness is a logit as well: it needs its sigmoid."
        ),
    ]
    return judge(answer, instance_scores, draw, mistakes)


def masks_from_kernels(answer: Callable) -> Verdict:
    """masks_from_kernels(kernels (N, D), mask_features (D, h, w)) -> probabilities (N, 8 h, 8 w)."""

    def masks_from_kernels(kernels, mask_features):
        _, height, width = mask_features.shape
        small = apply_kernels(kernels[None], mask_features[None])
        return upsample_masks(small, (8 * height, 8 * width))[0].sigmoid()

    def wrongly(before=lambda x: x, after=lambda x: x, **how):
        def masks(kernels, x_mask):
            small = before(apply_kernels(kernels[None], x_mask[None]))
            return after(F.interpolate(small, **{"scale_factor": 8, "mode": "bilinear", **how})[0])

        return masks

    def draw(rng):
        n, d, h = int(rng.integers(2, 4)), int(rng.integers(4, 7)), int(rng.integers(3, 6))
        return normal(rng, n, d), normal(rng, d, h, h + 1)

    mistakes = [
        Mistake(wrongly(), "These are logits: the sigmoid is missing."),
        Mistake(
            wrongly(before=torch.sigmoid),
            "The sigmoid comes before the upsampling; logits are interpolated, so that outlines stay crisp.",
        ),
        Mistake(wrongly(after=lambda x: x > 0), "Soft masks are asked for: probabilities, without a threshold."),
        Mistake(
            wrongly(after=torch.sigmoid, mode="nearest"),
            'Every cell is repeated 8 x 8 times, the default of F.interpolate; choose mode="bilinear".',
        ),
        Mistake(
            wrongly(after=torch.sigmoid, align_corners=True),
            "The corners are aligned, which moves every mask a little; leave align_corners=False.",
        ),
        Mistake(wrongly(after=torch.sigmoid, scale_factor=1), "The masks are still at 1/8: upsample them by 8."),
    ]
    return judge(answer, masks_from_kernels, draw, mistakes)


@torch.no_grad()
def one_voice(answer: Callable) -> Verdict:
    """one_voice(queries (N, D)) -> queries (N, D) with which all N kernels are equal, in decoders of random weights."""
    for _ in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng().integers(2**31)))
            decoder = DualInstanceDecoder(12, 16, 6, 3, heads=4, pool_size=4)
            given, x6, x_mask = decoder.queries.clone(), torch.randn(1, 12, 2, 3), torch.randn(1, 16, 8, 12)
        got, verdict = attempt("one_voice", answer, given.clone())
        if verdict is not None:
            return verdict
        if problem := _malformed(got, given):
            return wrong("one_voice", problem)
        decoder.queries.copy_(got)
        kernels = decoder(x6, x_mask)[0].kernels[0]  # (N, D)
        differ = ~torch.isclose(kernels, kernels[:1], rtol=1e-3, atol=1e-4).all(1)
        if differ.any():
            row = int(differ.nonzero()[0])
            return wrong("one_voice", f"kernel {row} differs from kernel 0. {_why(got, given, row)}")
    return correct(
        "one_voice", "Equal queries get equal gradients, too: training could not part them. Hence the random start."
    )


def _malformed(got, given: Tensor) -> str:
    if not isinstance(got, Tensor):
        return (
            f"it returns {'None (is a `return` missing?)' if got is None else type(got).__name__}, expected a tensor."
        )
    if got.shape != given.shape:
        return f"the shape is {tuple(got.shape)}, expected {tuple(given.shape)}: N queries, all of them there."
    return "" if got.isfinite().all() else "some numbers are not finite: equal answers are asked for, not none."


def _why(got: Tensor, given: Tensor, row: int) -> str:
    if torch.equal(got.sort(0).values, given.sort(0).values):
        return (
            "These are the same queries, perhaps shuffled: the answers are then shuffled alike, and just as different."
        )
    if torch.allclose(F.normalize(got), F.normalize(got[:1]), atol=1e-4):
        return "The rows are parallel but not equal: a longer query has larger scores, and another residual."
    return f"Row {row} of your queries is not row 0, and a query is known by nothing but its vector."
