"""Lesson 06: pairs, what runs at frame t+delta, passing, who keeps which instance, retention."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

import minst.temporal
from minst.course.pictures import plot_lines  # noqa: F401  the lesson draws with it
from minst.course.verdict import Verdict, examine, judge, say, shown
from minst.evaluation.consistency import ConsistencyMeter
from minst.instance_decoder import DualInstanceDecoder
from minst.matcher import Instances
from minst.model import apply_kernels

__all__ = ["kept_pairs", "needed_later", "pass_queries", "retention", "sample_pair"]


def needed_later(answer: Callable) -> Verdict:
    """needed_later(parts: list of names) -> those that passed queries need for frame t+delta."""

    needed = ("backbone", "mask decoder", "local decoder", "kernel head", "mask losses")
    classes = ("class head", "objectness head", "class loss", "objectness loss")
    parts = (*needed, "global decoder", *classes)

    def those(*names):
        return lambda given: [part for part in given if part in names]

    def draw(rng):
        return (rng.permutation(parts)[: rng.integers(6, 11)].tolist(),)

    mistakes = [
        "The global decoder ran at frame t: Q_G is its output, and enters behind it.",
        those(*needed, "global decoder"),
        "The queries skip one decoder, and their classes are not judged at t+delta.",
        those(*parts),
        "Q_G has seen frame t alone: the local decoder lets it look at frame t+delta.",
        those("backbone", "mask decoder", "kernel head", "mask losses"),
        "X_L and X_mask are those of frame t+delta: what computes them from its pixels?",
        those("local decoder", "kernel head", "mask losses"),
        those(*needed[1:]),
        those("backbone", *needed[2:]),
        "Only masks are judged: a passed query gets no class or objectness loss.",
        those(*needed, *classes),
    ]
    return judge(answer, those(*needed), draw, mistakes, exercise="needed_later", rounds=12)


def kept_pairs(answer: Callable) -> Verdict:
    """kept_pairs(queries, found, ids_now, ids_later) -> (kept queries, indices into ids_later)."""

    def kept_pairs(queries, found, ids_now, ids_later):
        now, later = (Instances(i, torch.zeros(len(i), 1, 1), i) for i in (ids_now, ids_later))
        return minst.temporal.kept_pairs((queries, found), now, later)

    def found_now(queries, found, ids_now, ids_later, as_ids=False):
        there = torch.isin(ids_now[found], ids_later)
        return queries[there], (ids_now[found] if as_ids else found)[there]

    def draw(rng):
        def shuffled(*values):
            return torch.from_numpy(rng.permutation(*values))

        ids = shuffled(np.arange(3, 40))
        later = ids[2:8][shuffled(6)]  # two are gone, three are new
        return shuffled(20)[:4], shuffled(5)[:4], ids[:5], later

    mistakes = [
        "An index is a place in a list, not an identity: at t+delta the list has another order.",
        lambda q, found, now, later: (q[found < len(later)], found[found < len(later)]),
        "An instance that is gone is left out with its query; here it points at another one.",
        lambda q, found, now, later: (q, (now[found][:, None] == later).float().argmax(1)),
        "The second tensor still counts in frame t; masks will be taken from frame t+delta.",
        found_now,
        "These are identities; what is asked for is where they stand in ids_later.",
        partial(found_now, as_ids=True),
    ]
    return judge(answer, kept_pairs, draw, mistakes)


def retention(answer: Callable) -> Verdict:
    """retention(holder (L, G), fits (L, N, G), visible (L, G), distance) -> (kept, of)."""

    def retention(holder, fits, visible, distance):
        holds = np.arange(fits.shape[1])[:, None] == holder[:, None]  # (L, N, G)
        meter = ConsistencyMeter(distance).add_ious(0.6 * fits + 0.3 * holds, visible)
        return tuple(meter.result()["pairs"][distance].values())

    def fits_it(now, holder, fits):
        return np.take_along_axis(fits, now[None, None], 1)[:, 0]

    def wrong(holder, fits, visible, distance, keeps=lambda *held: fits_it(*held)[-1], asks="both"):
        """Moment by moment: the holders `now` (G,), and all from this frame to the later one."""
        kept = of = 0
        for t in range(len(holder) - distance):
            span, now, there = slice(t, t + distance + 1), holder[t], visible[t + distance]
            pairs = {"both": (now >= 0) & there, "now": now >= 0, "there": there}[asks]
            kept += (keeps(now, holder[span], fits[span]) & pairs).sum()
            of += pairs.sum()
        return kept, of

    def draw(rng):
        frames, queries, instances = rng.integers(14, 20), 6, 4
        visible, holder = rng.random((frames, instances)) < 0.75, np.full((frames, instances), -1)
        fits = rng.random((frames, queries, instances)) < 0.3
        home = rng.permutation(queries)[:instances]
        for t in range(frames):
            if rng.random() < 0.4:
                home = rng.permutation(queries)[:instances]
            seen = visible[t] & (rng.random(instances) < 0.9)
            holder[t] = np.where(seen, home, -1)
            fits[t] &= visible[t] & seen
            fits[t, home, np.arange(instances)] = seen
        return holder, fits, visible, rng.integers(2, 5)

    mistakes = [
        "An instance that is not visible at t + distance cannot be held: such pairs do not count.",
        partial(wrong, asks="now"),
        "-1 is nobody; as an index it is the last query, so that nobody's pairs count.",
        partial(wrong, asks="there"),
        "Some query fits it, perhaps another one; retention asks for the *same* query.",
        partial(wrong, keeps=lambda now, holder, fits: fits[-1].any(0)),
        "Who holds it then does not matter: ask whether this query's own mask fits.",
        partial(wrong, keeps=lambda now, holder, fits: holder[-1] == now),
        "Frames in between do not matter: a query may let go and come back.",
        partial(wrong, keeps=lambda *held: fits_it(*held).all(0)),
        "It looks one frame ahead, whatever the distance is.",
        lambda holder, fits, visible, distance: retention(holder, fits, visible, 1),
        "The pairs that are kept come first, all pairs second.",
        lambda *given: retention(*given)[::-1],
    ]
    return judge(answer, retention, draw, mistakes, rounds=8)


def pass_queries(answer: Callable) -> Verdict:
    """pass_queries(decoder, queries (B, N, D), x_mask (B, D, h, w)) -> mask logits (B, N, h, w)."""

    def pass_queries(decoder, queries, x_mask):
        return apply_kernels(decoder.local(queries, x_mask).kernels, x_mask)

    def spoken(decoder, content):
        return decoder.predict(content).kernels

    def wrong(decoder, q, x_mask, stage="local_decoder", pool=F.max_pool2d, speak=spoken):
        pooled = pool(x_mask, decoder.pool_size)
        tokens, place = pooled.flatten(2).mT, decoder.position(*pooled.shape[-2:])
        content = getattr(decoder, stage)(q, decoder.queries, tokens, place)
        return apply_kernels(speak(decoder, content), x_mask)

    def draw(rng):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.integers(2**31).item())
            decoder = DualInstanceDecoder(24, 32, 5, 4, heads=4, pool_size=4)
            return decoder.requires_grad_(False), torch.randn(2, 5, 32), torch.randn(2, 32, 8, 16)

    mistakes = [
        "That is the global decoder, which ran at frame t; the local one, local_decoder, is next.",
        partial(wrong, stage="global_decoder"),
        "The learned queries have seen nothing; the content starts from global_queries.",
        lambda decoder, q, x_mask: pass_queries(decoder, decoder.queries.expand_as(q), x_mask),
        "X_L is pooled by the maximum (decoder.pool), not by the mean.",
        partial(wrong, pool=F.avg_pool2d),
        "The content is used as a kernel; the heads make it: decoder.predict(content).kernels.",
        partial(wrong, speak=lambda decoder, content: content),
        "The heads do not know who speaks: decoder.predict adds the learned queries before them.",
        partial(wrong, speak=lambda decoder, content: decoder.heads(content).kernels),
        "The queries never look at frame t+delta: the local decoder is left out.",
        lambda decoder, q, x_mask: apply_kernels(spoken(decoder, q), x_mask),
    ]
    return judge(answer, pass_queries, draw, mistakes, rounds=3)


def sample_pair(answer: Callable) -> Verdict:
    """sample_pair(num_frames, max_gap, rng) -> (frame t, frame t+delta), as training draws it."""

    drawn, draws = [], 6000

    def fault(got, num_frames, max_gap, rng):
        t, later = got
        drawn.append((int(t), int(later)))
        if len(drawn) % draws:  # judged are many pairs at once
            return ""
        pairs = np.array(drawn[-draws:])  # two of every seed
        if (pairs[::2] != pairs[1::2]).any():
            hint = "Draw with the rng that is given, not with np.random or random."
            return say("the same rng gives different pairs.", hint)
        return _trouble(pairs[::2], num_frames, max_gap)

    def reference(num_frames, max_gap, rng):
        delta = int(rng.integers(1, min(max_gap, num_frames - 1) + 1))
        t = int(rng.integers(num_frames - delta))
        return (t + delta, t) if rng.random() < 0.5 else (t, t + delta)

    seeds = np.random.default_rng().integers(2**62, size=draws // 2).repeat(2)
    kinds = itertools.product(((6, 3), (3, 5), (9, 4)), seeds)
    cases = ((*case, np.random.default_rng(seed)) for case, seed in kinds)
    praise = "Any two frames of a clip may meet, neither order is preferred, and none meets itself."
    return examine(answer, sample_pair, cases, fault, praise, reference)


def _trouble(pairs: np.ndarray, frames: int, most: int) -> str:
    """What is wrong with many drawn pairs (n, 2), or "".

    A right answer fails once in some 10^10 times.
    """

    # hits: for each of many pairs, whether it is one of the expected share
    def far(hits, expected):
        return abs(hits.mean() - expected) > 6.5 * np.sqrt(expected * (1 - expected) / len(hits))

    def wrong(*sentences, **values):
        where = "with {frames} frames and max_gap {most} this is wrong:"
        return say(where, *sentences, frames=frames, most=most, top=top, **values)

    top = min(most, frames - 1)
    itself = (
        "the first number of a pair is always 1 to {top}: delta itself?",
        "the second number of a pair is always 1 to {top}: delta itself?",
    )
    for said, numbers in zip(itself, np.abs(pairs).T):
        if numbers.min() > 0 and numbers.max() <= top < frames - 1:
            hint = "The numbers of two frames are asked, t and t + delta."
            return wrong(said, hint)
    outside = pairs[(pairs < 0).any(1) | (pairs >= frames).any(1)]
    if len(outside):
        drawn, hint = shown(tuple(outside[0].tolist())), "Draw t so that t+delta exists."
        said = "it draws the pair {pair}: the last frame is {last}."
        return wrong(said, hint, pair=drawn, last=frames - 1)
    gaps = np.abs(pairs[:, 1] - pairs[:, 0])
    if not gaps.all():
        return wrong("delta is sometimes 0, which teaches nothing about time: delta begins at 1.")
    if gaps.max() > top:
        return wrong("it draws a gap of {gap}: at most max_gap = {most}.", gap=gaps.max())
    if not (gaps == top).any():
        return wrong("delta is never {top}: `rng.integers(low, high)` leaves `high` out.")
    backwards = pairs[:, 1] < pairs[:, 0]
    if far(backwards, 0.5):
        said = "{share:.0%} of pairs are played backwards; it should be half of them."
        return wrong(said, share=backwards.mean())
    each = [gaps == gap for gap in range(1, top + 1)]
    if any(far(hits, 1 / top) for hits in each):
        shares = ", ".join(f"{hits.mean():.2f}" for hits in each)
        hint = "All should be alike. Draw delta first, then a t that fits."
        return wrong("the gaps 1 to {top} have the shares {shares}.", hint, shares=shares)
    starts = pairs.min(1)[gaps == top]
    if any(far(starts == t, 1 / (frames - top)) for t in range(frames - top)):
        hint = "Which is the last t that fits?"
        return wrong("with gap {top} not every t that fits is drawn alike often.", hint)
    return ""
