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


def count(holder, fits, visible, k, counts=None, keeps=None):
    """Written with loops: counts(t, m, query), keeps(t, m, query)."""
    kept = of = 0
    for t in range(len(holder) - k):
        for m, query in enumerate(holder[t]):
            if (counts or (lambda t, m, q: q >= 0 and visible[t + k, m]))(t, m, query):
                of += 1
                kept += bool((keeps or (lambda t, m, q: fits[t + k, q, m]))(t, m, query))
    return kept, of


def gone_counts(holder, fits, visible, k):
    return count(holder, fits, visible, k, counts=lambda t, m, q: q >= 0)


def nobody_counts(holder, fits, visible, k):
    return count(holder, fits, visible, k, counts=lambda t, m, q: visible[t + k, m])


def anybody(holder, fits, visible, k):
    return count(holder, fits, visible, k, keeps=lambda t, m, q: fits[t + k, :, m].any())


def holder_again(holder, fits, visible, k):
    return count(holder, fits, visible, k, keeps=lambda t, m, q: holder[t + k, m] == q)


def all_the_way(holder, fits, visible, k):
    return count(holder, fits, visible, k, keeps=lambda t, m, q: fits[t : t + k + 1, q, m].all())


def next_frame(holder, fits, visible, k):
    return count(holder, fits, visible, 1)


def other_order(holder, fits, visible, k):
    return count(holder, fits, visible, k)[::-1]


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


def from_anywhere(frames, gap, rng):
    return right_pair(frames, gap, np.random.default_rng())


def from_numpy(frames, gap, rng):
    delta = np.random.randint(1, min(gap, frames - 1) + 1)
    t = np.random.randint(frames - delta)
    return turn((t, t + delta), np.random)


def with_delta(frames, gap, rng):
    delta = rng.integers(1, min(gap, frames - 1) + 1)
    return rng.integers(frames - delta), delta


def with_signed_delta(frames, gap, rng):
    t, delta = with_delta(frames, gap, rng)
    return (t, delta) if rng.random() < 0.5 else (t + delta, -delta)


def delta_first(frames, gap, rng):
    return with_delta(frames, gap, rng)[::-1]


def right_pair(frames, gap, rng):
    delta = rng.integers(1, min(gap, frames - 1) + 1)
    t = rng.integers(frames - delta)
    return turn((t, t + delta), rng)


def pixels_come_along(parts):
    return [p for p in parts if p in ("mask decoder", "local decoder", "kernel head", "mask losses")]


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
    ("needed_later", pixels_come_along, "pixels"),
    ("retention", gone_counts, "not visible"),
    ("retention", nobody_counts, "-1 is nobody"),
    ("retention", anybody, "*same* query"),
    ("retention", holder_again, "Who holds it then"),
    ("retention", all_the_way, "in between do not matter"),
    ("retention", next_frame, "one frame ahead"),
    ("retention", other_order, "come first"),
    ("pass_queries", global_again, "ran at frame t"),
    ("pass_queries", from_the_start, "learned queries"),
    ("pass_queries", no_heads, "is used as a kernel"),
    ("pass_queries", nobody_speaks, "who speaks"),
    ("pass_queries", no_look, "never look"),
    ("sample_pair", from_numpy, "rng that is given"),
    ("sample_pair", from_anywhere, "rng that is given"),
    ("sample_pair", with_delta, "delta itself"),
    ("sample_pair", with_signed_delta, "delta itself"),
    ("sample_pair", delta_first, "first number of a pair is always"),
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

    assert check.pass_queries(keeps) and len({id(d) for d in seen}) >= 3
    assert not np.allclose(seen[0].queries, seen[1].queries)


def test_the_right_answer_in_another_form():
    assert check.retention(lambda *given: np.array(count(*given), np.float16))
    assert check.sample_pair(lambda *given: np.array(right_pair(*given)))
    assert check.sample_pair(lambda *given: list(map(torch.tensor, right_pair(*given))))


def test_a_stub_goes_on_with_ours():
    def stub(*given):
        raise NotImplementedError

    ours = check.sample_pair(stub).or_ours
    assert check.sample_pair(ours) and ours(4, 3, np.random.default_rng(1)) == ours(4, 3, np.random.default_rng(1))
