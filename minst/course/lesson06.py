"""Lesson 06: what query passing runs at frame t+delta, who keeps which instance, retention, passing, how pairs are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

import minst.temporal
from minst.course.verdict import Mistake, Verdict, attempt, correct, judge, wrong
from minst.evaluation.consistency import ConsistencyMeter
from minst.instance_decoder import DualInstanceDecoder
from minst.matcher import Instances
from minst.model import apply_kernels

__all__ = ["kept_pairs", "needed_later", "pass_queries", "retention", "sample_pair"]

NEEDED = ("backbone", "mask decoder", "local decoder", "kernel head", "mask losses")
PARTS = (*NEEDED, "global decoder", "class head", "objectness head", "class loss", "objectness loss")


def needed_later(answer: Callable) -> Verdict:
    """needed_later(parts: list of names) -> those that passed queries need for frame t+delta, in the same order."""

    def those(*names):
        return lambda parts: [part for part in parts if part in names]

    return judge(
        answer,
        those(*NEEDED),
        lambda rng: (rng.permutation(PARTS)[: int(rng.integers(6, 11))].tolist(),),
        [
            Mistake(
                those(*NEEDED, PARTS[5]), "The global decoder ran at frame t: Q_G is its output, and enters behind it."
            ),
            Mistake(those(*PARTS), "The queries skip one decoder, and their classes are not judged at t+delta."),
            Mistake(
                those(*(part for part in NEEDED if part != "local decoder")),
                "Q_G has seen frame t alone: the local decoder lets it look at frame t+delta.",
            ),
            Mistake(
                those(*NEEDED[2:]), "X_L and X_mask are those of frame t+delta: what computes them from its pixels?"
            ),
            Mistake(
                those(*NEEDED, *PARTS[6:]), "Only masks are judged: a passed query gets no class or objectness loss."
            ),
        ],
        exercise="needed_later",
        rounds=12,
    )


def kept_pairs(answer: Callable) -> Verdict:
    """kept_pairs(queries, found, ids_now, ids_later) -> (queries that are kept, indices into ids_later)."""

    def kept_pairs(queries, found, ids_now, ids_later):
        now, later = (Instances(ids, torch.zeros(len(ids), 1, 1), ids) for ids in (ids_now, ids_later))
        return minst.temporal.kept_pairs((queries, found), now, later)

    def by_place(queries, found, ids_now, ids_later):
        return queries[found < len(ids_later)], found[found < len(ids_later)]

    def gone_as_zero(queries, found, ids_now, ids_later):
        return queries, (ids_now[found][:, None] == ids_later).float().argmax(1)

    def found_now(queries, found, ids_now, ids_later):
        there = torch.isin(ids_now[found], ids_later)
        return queries[there], found[there]

    def as_ids(queries, found, ids_now, ids_later):
        kept, found = found_now(queries, found, ids_now, ids_later)
        return kept, ids_now[found]

    def draw(rng):
        ids = torch.as_tensor(rng.permutation(np.arange(3, 40)))
        ids_now, ids_later = ids[:5], ids[2:8][torch.as_tensor(rng.permutation(6))]  # two are gone, three are new
        return torch.as_tensor(rng.permutation(20)[:4]), torch.as_tensor(rng.permutation(5)[:4]), ids_now, ids_later

    return judge(
        answer,
        kept_pairs,
        draw,
        [
            Mistake(by_place, "An index is a place in a list, not an identity: at t+delta the list has another order."),
            Mistake(
                gone_as_zero, "An instance that is gone is left out with its query; here it points at another one."
            ),
            Mistake(found_now, "The second tensor still counts in frame t; masks will be taken from frame t+delta."),
            Mistake(as_ids, "These are identities; what is asked for is where they stand in ids_later."),
        ],
    )


def retention(answer: Callable) -> Verdict:
    """retention(held (T, N) instance or -1, visible (T, M) bool, distance) -> share of held pairs held by the same query."""

    def retention(held, visible, distance):
        ious = (held[:, :, None] == np.arange(visible.shape[1])).astype(float)  # (T, N, M): 1 where it holds
        return ConsistencyMeter(distance).add_ious(ious, visible).result()["retention"][distance]

    def counted(keeps, counts=lambda before, there: (before >= 0) & there):
        def share(held, visible, distance):
            before, after = held[:-distance], held[distance:]
            there = np.take_along_axis(visible[distance:], before.clip(min=0), axis=1)
            between = [held[k : len(before) + k] for k in range(distance)]
            of = counts(before, there)
            return (keeps(before, after, between) & of).sum() / of.sum()

        return share

    def same(before, after, between):
        return before == after

    def anybody(before, after, between):
        return (before[:, :, None] == after[:, None, :]).any(2)

    def throughout(before, after, between):
        return np.all([before == frame for frame in (*between, after)], axis=0)

    def draw(rng):
        frames, queries, instances = int(rng.integers(14, 20)), 6, 4
        visible, held = rng.random((frames, instances)) < 0.75, np.full((frames, queries), -1)
        home = rng.permutation(queries)[:instances]
        for t in range(frames):
            if rng.random() < 0.4:
                home = rng.permutation(queries)[:instances]
            for m in range(instances):
                held[t, home[m]] = m if visible[t, m] and rng.random() < 0.9 else -1
        return held, visible, int(rng.integers(2, 5))

    gone = counted(same, lambda before, there: before >= 0)
    none = counted(same, lambda before, there: np.ones_like(there))
    return judge(
        answer,
        retention,
        draw,
        [
            Mistake(gone, "An instance that is not visible at t + distance cannot be held: such pairs do not count."),
            Mistake(none, "Here -1 counts like an instance; a query that holds nothing at t is no pair."),
            Mistake(counted(anybody), "Some query holds it, perhaps another one; retention asks for the *same* query."),
            Mistake(counted(throughout), "Frames in between do not matter: a query may let go and come back."),
            Mistake(lambda h, v, k: retention(h, v, 1), "It looks one frame ahead, whatever the distance is."),
        ],
        rounds=8,
    )


class _Decoder(DualInstanceDecoder):
    """Two of one kind count as equal, so that `judge` can compare the arguments before and after."""

    __hash__ = torch.nn.Module.__hash__

    def __eq__(self, other) -> bool:
        return type(self) is type(other)


def pass_queries(answer: Callable) -> Verdict:
    """pass_queries(decoder, global_queries (B, N, D), x_mask (B, D, h, w)) -> mask logits (B, N, h, w)."""

    def pass_queries(decoder, global_queries, x_mask, stage="local_decoder", pool=None, learned=False, head=True):
        content = decoder.queries.expand_as(global_queries) if learned else global_queries
        pooled = (pool or decoder.pool)(x_mask, decoder.pool_size)
        tokens = pooled.flatten(2).transpose(1, 2)
        place = decoder.position(*pooled.shape[-2:])
        content = getattr(decoder, stage)(content, decoder.queries, tokens, place)
        return apply_kernels(decoder.predict(content).kernels if head else content, x_mask)

    def reference(decoder, global_queries, x_mask):
        return apply_kernels(decoder.local(global_queries, x_mask).kernels, x_mask)

    def draw(rng):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            decoder = _Decoder(24, 32, 5, 4, heads=4, pool_size=4).requires_grad_(False).eval()
            return decoder, torch.randn(2, 5, 32), torch.randn(2, 32, 8, 16)

    def but(**changes):
        return lambda *given: pass_queries(*given, **changes)

    def no_look(decoder, content, x_mask):
        return apply_kernels(decoder.predict(content).kernels, x_mask)

    def anonymous(decoder, content, x_mask):
        tokens, place = decoder.local_tokens(x_mask)
        content = decoder.local_decoder(content, decoder.queries, tokens, place)
        return apply_kernels(decoder.heads(content).kernels, x_mask)

    return judge(
        answer,
        reference,
        draw,
        [
            Mistake(
                but(stage="global_decoder"),
                "That is the global decoder, which ran at frame t; passed queries enter the local one, local_decoder.",
            ),
            Mistake(but(learned=True), "The learned queries have seen nothing; the content starts from global_queries."),
            Mistake(but(pool=F.avg_pool2d), "X_L is pooled by the maximum (decoder.pool), not by the mean."),
            Mistake(
                but(head=False),
                "The content is used as a kernel; the heads make the kernel: decoder.predict(content).kernels.",
            ),
            Mistake(
                anonymous, "The heads do not know who speaks: decoder.predict adds the learned queries before them."
            ),
            Mistake(no_look, "The queries never look at frame t+delta: the local decoder is left out."),
        ],
        exercise="pass_queries",
        rounds=3,
    )


def sample_pair(answer: Callable) -> Verdict:
    """sample_pair(num_frames, max_gap, rng) -> (frame t, frame t+delta), drawn as `minst.training` does."""
    name, draws = "sample_pair", 3000
    rng = np.random.default_rng()
    for frames, most in ((6, 3), (3, 5), (9, 4)):
        where = f"with {frames} frames and max_gap {most}"
        drawn = []
        for _ in range(draws):
            pair, verdict = attempt(name, answer, frames, most, rng, where=f"{where}, ")
            if verdict is not None:
                return verdict
            drawn.append(pair)
        try:
            pairs = np.array([[int(t) for t in pair] for pair in drawn])
            assert pairs.shape == (draws, 2)
        except (AssertionError, TypeError, ValueError):
            return wrong(name, f"{where} it gives {drawn[0]!r}; expected two frame numbers, (t, t + delta).")
        if reason := _trouble(pairs, frames, most):
            return wrong(name, f"{where} {reason}")
    return correct(name, "Any two frames of a clip may meet, neither order is preferred, and none meets itself.")


def _trouble(pairs: np.ndarray, frames: int, most: int) -> str:
    """What is wrong with many drawn pairs (n, 2), or "". A right answer fails once in some 10^10 times."""
    outside = pairs[(pairs < 0).any(1) | (pairs >= frames).any(1)]
    if len(outside):
        return f"it draws the pair {tuple(outside[0].tolist())}: the last frame is {frames - 1}. Draw t so that t+delta exists."
    gaps, top = np.abs(pairs[:, 1] - pairs[:, 0]), min(most, frames - 1)
    if not gaps.all():
        return "delta is sometimes 0: a frame paired with itself teaches nothing about time. delta begins at 1."
    if gaps.max() > top:
        return f"it draws a gap of {gaps.max()}: at most max_gap = {most}."
    shares = np.bincount(gaps, minlength=top + 1)[1:] / len(gaps)
    if not shares[-1]:
        return f"delta is never {top}: `rng.integers(low, high)` leaves `high` out."
    backwards = (pairs[:, 1] < pairs[:, 0]).mean()
    if _far(backwards, 0.5, len(pairs)):
        return f"{100 * backwards:.0f} % of pairs are played backwards; it should be half of them."
    if any(_far(share, 1 / top, len(pairs)) for share in shares):
        said = ", ".join(f"{share:.2f}" for share in shares)
        return f"the gaps 1 to {top} have the shares {said}; all should be alike. Draw delta first, then a t that fits."
    starts = np.bincount(pairs.min(1)[gaps == top], minlength=frames - top) / max(1, (gaps == top).sum())
    if any(_far(share, 1 / (frames - top), (gaps == top).sum()) for share in starts):
        return f"with gap {top} not every t that fits is drawn alike often. Which is the last t that fits?"
    return ""


def _far(share: float, expected: float, count: int) -> bool:
    return abs(share - expected) > 6.5 * np.sqrt(expected * (1 - expected) / count)
