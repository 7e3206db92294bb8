"""Lesson 04: shapes of attention, cross-attention, scores, masks from kernels, one voice."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minst.course.pictures import film  # noqa: F401  the lesson draws with it
from minst.course.verdict import HALF, Verdict, examine, judge, normal, say
from minst.instance_decoder import DualInstanceDecoder
from minst.model import FrameOutput, apply_kernels, upsample_masks
from minst.visualize.style import BLUE, CENTER, GREY, Picture, bare, headline, new_figure, plain

__all__ = ["attention_shapes", "cross_attention", "instance_scores", "masks_from_kernels",
           "one_voice"]  # fmt: skip


def attention_shapes(answer: Callable) -> Verdict:
    """attention_shapes(height, width, queries, heads, token_stride) -> [global, local, among]."""

    def attention_shapes(height, width, queries, heads, token_stride):  # a test asks a model
        tokens = (height // token_stride) * (width // token_stride)
        return [(1, heads, queries, asked) for asked in (tokens, tokens, queries)]

    def unpooled(height, width, *given):
        shapes = attention_shapes(height, width, *given)
        return [shapes[0], (*shapes[1][:3], (height // 8) * (width // 8)), shapes[2]]

    def only(*axes):
        """Of every shape these axes alone, in this order."""
        return lambda *given: [[shape[i] for i in axes] for shape in attention_shapes(*given)]

    def draw(rng):
        return *(64 * rng.integers(1, 6, 2)), *rng.integers((30, 2), (40, 9)), rng.choice([32, 64])

    mistakes = [
        "The local decoder does not look at all of X_mask at 1/8: X_L is X_mask after pooling.",
        unpooled,
        "A row for each query that asks, a column for each that is asked.",
        only(0, 1, 3, 2),
        "In self-attention the queries ask the queries; there are no tokens.",
        lambda *given: attention_shapes(*given)[:1] * 3,
        "The batch dimension is missing: B = 1 comes first.",
        only(1, 2, 3),
        "Every head has an attention of its own: their number comes after the batch.",
        only(0, 2, 3),
        "These are tokens at 1/64; token_stride may be 32.",
        lambda *given: attention_shapes(*given[:4], 64),
    ]
    return judge(answer, attention_shapes, draw, mistakes, rounds=12)


def cross_attention(answer: Callable) -> Verdict:
    """cross_attention(queries (N, D), tokens, position (S, D), w_q, w_k, w_v) -> A, A v."""

    def cross_attention(q, x, position, w_q, w_k, w_v, at=(1, 0), power=0.5, share=F.softmax):
        keys, values = (x + at[0] * position) @ w_k, (x + at[1] * position) @ w_v
        shares = share(q @ w_q @ keys.T / q.shape[1] ** power, dim=-1)
        return shares, shares @ values

    def late(queries, tokens, position, w_q, w_k, w_v):
        shares = (queries @ w_q @ (tokens @ w_k + position).T / len(w_q) ** 0.5).softmax(-1)
        return shares, shares @ tokens @ w_v

    def scores_of(*given):
        return cross_attention(*given, share=lambda scores, dim: scores)

    def draw(rng):
        n, s, d = rng.integers(2, 5), rng.integers(6, 9), rng.choice([9, 12])
        rows = (n, s, s, d, d, d)
        return [normal(rng, count, d) / d**0.25 for count in rows]

    mistakes = [
        "The position is in the values too; it says where to look, and is not brought home.",
        partial(cross_attention, at=(1, 1)),
        "The position is in the values; the keys, which decide where to look, need it.",
        partial(cross_attention, at=(0, 1)),
        "The position is not used: without it tokens are a set without places. Add it to the keys.",
        partial(cross_attention, at=(0, 0)),
        "The position is added after w_k; add it to the tokens first, so that w_k can use it.",
        late,
        "w_q and w_k are exchanged: the queries meet w_q, tokens and position meet w_k.",
        lambda q, x, position, w_q, w_k, w_v: cross_attention(q, x, position, w_k, w_q, w_v),
        "The queries are added to the mixture: that residual comes later, in the decoder.",
        lambda q, *given: (cross_attention(q, *given)[0], q + cross_attention(q, *given)[1]),
        "The scores are not divided by the root of D: softmax becomes all or nothing.",
        partial(cross_attention, power=0),
        "Divide by the square root of D, not by D.",
        partial(cross_attention, power=1),
        "Softmax runs over the queries; each query shares it out over the tokens: last dimension.",
        partial(cross_attention, share=lambda scores, dim: scores.softmax(0)),
        "Scores are not shares yet: a softmax over the tokens is missing.",
        scores_of,
        "The mixture is right; the first value should be the shares, after the softmax.",
        lambda *given: (scores_of(*given)[0], cross_attention(*given)[1]),
        "Two values are asked: the shares A, and the mixture.",
        lambda *given: cross_attention(*given)[1],
        lambda *given: cross_attention(*given)[0],
        "The shares A come first, the mixture second.",
        lambda *given: cross_attention(*given)[::-1],
    ]
    return judge(answer, cross_attention, draw, mistakes, tolerance=HALF, learned=True)


def instance_scores(answer: Callable) -> Verdict:
    """instance_scores(class_logits (N, C), objectness (N,)) -> (N, C): sqrt(class * objectness)."""

    def instance_scores(classes, objectness):
        return FrameOutput(classes, objectness, None, None, None, None).scores()

    def but(shares):
        """Other probabilities of the classes than their sigmoids."""
        return lambda classes, objectness: instance_scores(shares(classes).logit(), objectness)

    def draw(rng):
        n = rng.integers(4, 8)
        return 2 * normal(rng, n, rng.integers(2, n)), 2 * normal(rng, n)

    mistakes = [
        "Softmax makes classes compete; here each has its own sigmoid, and none is background.",
        but(lambda classes: classes.softmax(-1)),
        "There is no background class: all C columns are creatures, with a sigmoid each.",
        but(lambda classes: F.pad(classes, (0, 1)).softmax(-1)[:, :-1]),
        "There is no background class: the last column is a creature like the others.",
        lambda classes, objectness: instance_scores(classes[:, :-1], objectness),
        but(lambda classes: classes.softmax(-1)[:, :-1]),
        "The square root is missing: the score is a geometric mean.",
        lambda classes, objectness: instance_scores(classes, objectness) ** 2,
        "Only the best class is left: give all C scores of a query.",
        lambda classes, objectness: instance_scores(classes, objectness).amax(-1),
        "The objectness is not used: a good name on a bad mask should score low.",
        lambda classes, objectness: classes.sigmoid(),
        "The objectness is a logit as well: it needs its sigmoid.",
        lambda classes, objectness: (classes.sigmoid() * objectness[:, None]).sqrt(),
    ]
    return judge(answer, instance_scores, draw, mistakes, tolerance=HALF)


def masks_from_kernels(answer: Callable) -> Verdict:
    """masks_from_kernels(kernels (N, D), features (D, h, w)) -> probabilities (N, 8 h, 8 w)."""

    def logits(kernels, mask_features):
        return apply_kernels(kernels[None], mask_features[None])

    def masks_from_kernels(kernels, mask_features, last=torch.sigmoid):
        _, height, width = mask_features.shape
        return last(upsample_masks(logits(kernels, mask_features), (8 * height, 8 * width))[0])

    def enlarged(scale=8, **how):
        return lambda *given: F.interpolate(logits(*given), scale_factor=scale, **how)[0].sigmoid()

    def draw(rng):
        (n, d, h) = rng.integers((2, 4, 3), (4, 7, 6))
        return normal(rng, n, d), normal(rng, d, h, h + 1)

    mistakes = [
        "These are logits: the sigmoid is missing.",
        partial(masks_from_kernels, last=lambda x: x),
        "The sigmoid comes before the upsampling; logits are enlarged, so outlines stay crisp.",
        lambda *given: F.interpolate(logits(*given).sigmoid(), scale_factor=8, mode="bilinear")[0],
        "Soft masks are asked for: probabilities, without a threshold.",
        partial(masks_from_kernels, last=lambda x: x > 0),
        'Every cell is repeated 8 x 8 times, the default of F.interpolate; choose mode="bilinear".',
        enlarged(mode="nearest"),
        "The corners are aligned, which moves every mask a little; leave align_corners=False.",
        enlarged(mode="bilinear", align_corners=True),
        "The masks are still at 1/8: upsample them by 8.",
        enlarged(scale=1),
    ]
    return judge(answer, masks_from_kernels, draw, mistakes, tolerance=HALF)


@torch.no_grad()
def one_voice(answer: Callable) -> Verdict:
    """one_voice(queries (N, D)) -> queries that make all N kernels equal, whatever the weights."""

    def fault(got, given):
        if not isinstance(got, Tensor):
            return say("it returns {kind}, expected a tensor.", kind=type(got).__name__)
        if got.shape != given.shape:
            wrong = "the shape is {shape}, expected {expected}: N queries, all of them there."
            return say(wrong, shape=tuple(got.shape), expected=tuple(given.shape))
        if not got.isfinite().all():
            return say("some numbers are not finite: equal answers are asked for, not none.")
        decoder = DualInstanceDecoder(12, 16, 6, 3, heads=4, pool_size=4)
        decoder.queries.copy_(got)
        kernels = decoder(torch.randn(1, 12, 2, 3), torch.randn(1, 16, 8, 12))[0].kernels[0]
        differ = ~torch.isclose(kernels, kernels[:1], rtol=1e-3, atol=1e-4).all(1)  # (N,)
        if not differ.any():
            return ""
        row = int(differ.nonzero()[0])
        if torch.equal(got.sort(0).values, given.sort(0).values):
            hint = "These are the same queries, perhaps shuffled: the answers are shuffled alike."
        elif torch.allclose(F.normalize(got), F.normalize(got[:1]), atol=1e-4):
            hint = "The rows are parallel but not equal: a longer query has larger scores."
        else:
            hint = "Row {row} is not row 0, and a query is known by nothing but its vector."
        return say("kernel {row} differs from kernel 0.", hint, row=row)

    def reference(queries):
        return queries[:1].repeat(len(queries), 1)

    rng = np.random.default_rng()
    cases = [(normal(rng, 6, 16),) for _ in range(3)]
    praise = "Equal queries get equal gradients, too: hence the random start."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.integers(2**31).item())
        return examine(answer, one_voice, cases, fault, praise, reference)


def plot_look(
    image: np.ndarray, mask: np.ndarray, shares: Tensor, mixture: Tensor, goal: Tensor, head: str
) -> Picture:
    """One query's look: the frame lit by its shares (h, w), the shares, what comes home (D,)."""
    fig = new_figure(width=7.4)  # small, since a film has many
    note = "The frame, lit by the shares (line: the creature). The shares in per cent. "
    headline(fig, head, f"{note}What comes home, and the goal.")
    places = ((0.1, 2.1), (2.3, 2.1), (4.85, 2.4))
    lit, percent, home = (fig.place(left, 0.68, width, 1.58, below=0.4) for left, width in places)
    light = F.interpolate(shares[None, None], image.shape[:2], mode="bilinear")[0, 0].numpy()
    lit.imshow(image / 255 * (0.15 + 0.85 * (light / light.max())[..., None]))
    lit.contour(mask, [0.5], colors="white", linewidths=1)
    percent.imshow(shares.numpy(), cmap="viridis", vmin=0, vmax=0.5)
    for (y, x), share in np.ndenumerate(shares.numpy()):
        color = "black" if share > 0.3 else "white"
        percent.text(x, y, f"{100 * share:.0f}", color=color, fontsize=6, **CENTER)
    plain(home).plot(goal.numpy(), color=GREY, linewidth=3, label="goal")
    home.plot(mixture.numpy(), color=BLUE, linewidth=1, label="comes home")
    home.set(ylim=(-2.5, 3), xlabel="channel of D = 64")
    home.legend(fontsize=6.5, frameon=False, loc="upper right", ncols=2)
    home.xaxis.label.set_size(7)
    bare(lit), bare(percent)
    return fig
