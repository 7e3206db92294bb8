"""The verdicts of lesson 06: likely mistakes get the hint that fits."""

import numpy as np
import pytest
import torch

from minst.course import lesson06 as check
from minst.model import apply_kernels


def all_but_classes(parts):
    return [p for p in parts if "class" not in p and "objectness" not in p]


def features_come_along(parts):
    return [p for p in parts if p in ("local decoder", "kernel head", "mask losses")]


def every_loss(parts):
    return [p for p in parts if p != "global decoder"]


def no_second_look(parts):
    return [p for p in parts if p in ("backbone", "mask decoder", "kernel head", "mask losses")]


def everything(parts):
    return parts[:]


def same_place(queries, found, ids_now, ids_later):
    pairs = [(q, m) for q, m in zip(queries.tolist(), found.tolist()) if m < len(ids_later)]
    return torch.tensor([q for q, _ in pairs]), torch.tensor([m for _, m in pairs])


def gone_is_kept(queries, found, ids_now, ids_later):
    where = {int(i): k for k, i in enumerate(ids_later)}
    return queries, torch.tensor([where.get(int(ids_now[m]), 0) for m in found])


def index_of_now(queries, found, ids_now, ids_later):
    there = torch.isin(ids_now[found], ids_later)
    return queries[there], found[there]


def identities(queries, found, ids_now, ids_later):
    there = torch.isin(ids_now[found], ids_later)
    return queries[there], ids_now[found[there]]


def count(held, visible, distance, counts, keeps):
    kept = of = 0
    for t in range(len(held) - distance):
        for n, m in enumerate(held[t]):
            if counts(t, m):
                of += 1
                kept += bool(keeps(t, n, m))
    return kept / of


def gone_counts(held, visible, k):
    return count(held, visible, k, lambda t, m: m != -1, lambda t, n, m: held[t + k, n] == m)


def anybody(held, visible, k):
    return count(
        held,
        visible,
        k,
        lambda t, m: m >= 0 and visible[t + k, m],
        lambda t, n, m: m in held[t + k],
    )


def all_the_way(held, visible, k):
    counts = lambda t, m: m >= 0 and visible[t + k, m]  # noqa: E731
    return count(held, visible, k, counts, lambda t, n, m: (held[t : t + k + 1, n] == m).all())


def nothing_counts(held, visible, k):
    return float((held[:-k] == held[k:]).mean())


def next_frame(held, visible, k):
    return count(
        held,
        visible,
        1,
        lambda t, m: m >= 0 and visible[t + 1, m],
        lambda t, n, m: held[t + 1, n] == m,
    )


def through(decoder, queries, x_mask, stage="local_decoder"):
    pooled = torch.nn.functional.max_pool2d(x_mask, decoder.pool_size)
    position = decoder.position(pooled.shape[2], pooled.shape[3])
    return getattr(decoder, stage)(
        queries, decoder.queries, pooled.flatten(2).permute(0, 2, 1), position
    )


def global_again(decoder, queries, x_mask):
    return apply_kernels(
        decoder.predict(through(decoder, queries, x_mask, "global_decoder"))[2], x_mask
    )


def from_the_start(decoder, queries, x_mask):
    return apply_kernels(
        decoder.predict(through(decoder, decoder.queries.expand(len(x_mask), -1, -1), x_mask))[2],
        x_mask,
    )


def no_heads(decoder, queries, x_mask):
    return apply_kernels(through(decoder, queries, x_mask), x_mask)


def nobody_speaks(decoder, queries, x_mask):
    return apply_kernels(decoder.heads(through(decoder, queries, x_mask))[2], x_mask)


def no_look(decoder, queries, x_mask):
    return apply_kernels(decoder.predict(queries)[2], x_mask)


def turn(pair, rng):
    return pair if rng.random() < 0.5 else pair[::-1]


def with_zero(frames, gap, rng):
    delta = rng.integers(0, min(gap, frames - 1) + 1)
    t = rng.integers(frames - delta)
    return turn((t, t + delta), rng)


def beyond(frames, gap, rng):
    t = rng.integers(frames)
    return turn((t, t + rng.integers(1, gap + 1)), rng)


def never_longest(frames, gap, rng):
    delta = rng.integers(1, min(gap, frames - 1)) if min(gap, frames - 1) > 1 else 1
    t = rng.integers(frames - delta)
    return turn((t, t + delta), rng)


def forwards(frames, gap, rng):
    delta = rng.integers(1, min(gap, frames - 1) + 1)
    t = rng.integers(frames - delta)
    return t, t + delta


def t_first(frames, gap, rng):
    t = rng.integers(frames - 1)
    return turn((t, t + rng.integers(1, min(gap, frames - 1 - t) + 1)), rng)


def last_left_out(frames, gap, rng):
    delta = rng.integers(1, min(gap, frames - 1) + 1)
    t = rng.integers(max(1, frames - delta - 1))
    return turn((t, t + delta), rng)


WRONG = [
    ("needed_later", all_but_classes, "ran at frame t"),
    ("needed_later", features_come_along, "pixels"),
    ("needed_later", every_loss, "Only masks are judged"),
    ("needed_later", everything, "skip one decoder"),
    ("needed_later", no_second_look, "look at frame t+delta"),
    ("kept_pairs", same_place, "not an identity"),
    ("kept_pairs", gone_is_kept, "left out with its query"),
    ("kept_pairs", index_of_now, "counts in frame t"),
    ("kept_pairs", identities, "These are identities"),
    ("retention", gone_counts, "not visible"),
    ("retention", anybody, "*same* query"),
    ("retention", all_the_way, "in between do not matter"),
    ("retention", nothing_counts, "-1 counts"),
    ("retention", next_frame, "one frame ahead"),
    ("pass_queries", global_again, "ran at frame t"),
    ("pass_queries", from_the_start, "learned queries"),
    ("pass_queries", no_heads, "is used as a kernel"),
    ("pass_queries", nobody_speaks, "who speaks"),
    ("pass_queries", no_look, "never look"),
    ("sample_pair", with_zero, "sometimes 0"),
    ("sample_pair", beyond, "last frame is"),
    ("sample_pair", never_longest, "leaves `high` out"),
    ("sample_pair", forwards, "backwards"),
    ("sample_pair", t_first, "Draw delta first"),
    ("sample_pair", last_left_out, "last t that fits"),
]


@pytest.mark.parametrize(
    "name, answer, hint", WRONG, ids=[f"{name}-{answer.__name__}" for name, answer, _ in WRONG]
)
def test_a_likely_mistake_gets_its_hint(name, answer, hint):
    for _ in range(3):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and hint in verdict.reason, verdict


def test_a_decoder_that_is_an_argument_is_no_change_of_arguments():
    seen = []

    def keeps(decoder, queries, x_mask):
        seen.append(decoder)
        return apply_kernels(decoder.local(queries, x_mask).kernels, x_mask)

    assert check.pass_queries(keeps) and len({id(d) for d in seen}) == 3
    assert not np.allclose(seen[0].queries, seen[1].queries)
