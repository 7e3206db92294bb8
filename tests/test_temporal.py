"""Query passing: who keeps which instance, what is supervised, where the gradient goes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minst.matcher import Instances
from minst.temporal import kept_pairs, query_passing_losses


def instances(ids, size=(64, 64)) -> Instances:
    ids = torch.tensor(ids, dtype=torch.long)
    return Instances(ids % 8, torch.rand(len(ids), *size), ids)


def match(queries, found):
    return torch.tensor(queries, dtype=torch.long), torch.tensor(found, dtype=torch.long)


def test_identity_is_kept_by_hand():
    now = instances([10, 20, 30])
    later = instances([30, 40, 10])  # 20 is gone, 40 is new, the others have changed places
    queries, found = kept_pairs(match([2, 5, 7], [1, 0, 2]), now, later)
    assert queries.tolist() == [5, 7] and found.tolist() == [2, 0]
    for pairs in (kept_pairs(match([2], [1]), now, later), kept_pairs(match([], []), now, later),
                  kept_pairs(match([2, 5], [0, 1]), now, instances([]))):  # fmt: skip
        assert [part.tolist() for part in pairs] == [[], []] and all(
            part.dtype == torch.long for part in pairs
        )


SOME_IDS = st.lists(st.integers(0, 12), unique=True, max_size=6)


@given(now=SOME_IDS, later=SOME_IDS, seed=st.integers(0, 2**31))
def test_identity_is_kept_in_any_order(now, later, seed):
    torch.manual_seed(seed)
    matched = int(torch.randint(len(now) + 1, ()))  # not every instance need have found a query
    queries, found = torch.randperm(9)[:matched], torch.randperm(len(now))[:matched]
    holds = {int(q): now[int(m)] for q, m in zip(queries, found)}
    kept = kept_pairs((queries, found), instances(now), instances(later))
    assert {int(q): later[int(m)] for q, m in zip(*kept)} == {
        q: i for q, i in holds.items() if i in later
    }


# ------------------------------------------------------------------------------------------- losses


def loss_by_hand(logits, masks):
    """1 - dice and the mean cross-entropy of one mask (h, w) with one target (H', W')."""
    x = F.interpolate(logits[None, None], size=masks.shape, mode="bilinear")[0, 0].sigmoid()
    dice = 2 * (x * masks).sum() / ((x * x).sum() + (masks * masks).sum() + 1e-4)
    return 1 - dice, F.binary_cross_entropy(x, masks)


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=3), seed=st.integers(0, 2**31))
def test_the_loss_is_that_of_passed_masks_against_the_instances_they_are_held_to(counts, seed):
    """Pair by pair and query by query; divided by all instances of the frames t + delta, matched or
    not."""
    torch.manual_seed(seed)
    passed = torch.randn(len(counts), 5, 2, 3) * 2
    later = [instances(list(range(count)), (8, 12)) for count in counts]
    held = []
    for count in counts:
        pairs = int(torch.randint(count + 1, ()))
        held.append((torch.randperm(5)[:pairs], torch.randperm(count)[:pairs]))
    expected = torch.zeros(2)
    for i, (queries, found) in enumerate(held):
        for query, m in zip(queries.tolist(), found.tolist()):
            expected += torch.stack(loss_by_hand(passed[i, query], later[i].masks[m]))
    losses = query_passing_losses(passed, held, later)
    assert losses.keys() == {"dice", "pixel"}
    found = torch.stack([torch.as_tensor(losses[name]) for name in ("dice", "pixel")])
    torch.testing.assert_close(found, expected / max(1, sum(counts)), atol=1e-5, rtol=1e-4)
    shared = query_passing_losses(passed, held, later, num_instances=8.0)
    torch.testing.assert_close(
        shared["dice"] * 8, losses["dice"] * max(1, sum(counts)), atol=1e-5, rtol=1e-4
    )


@pytest.fixture(scope="module")
def pair(tiny):
    """Two pairs of frames, with gradients: the model, frames t decoded, frames t + delta
    encoded."""
    torch.manual_seed(0)
    model = copy.deepcopy(tiny).train()
    frames = torch.rand(4, 3, 128, 128)
    return model, model(frames[:2]), model.encode(frames[2:])


def passed_losses(pair, held, later):
    model, now, frame = pair
    return query_passing_losses(model.pass_queries(now.global_queries, frame), held, later)


@torch.no_grad()
def test_passing_is_the_local_decoder_over_again(tiny):
    """A frame's own Q_G, passed to itself, gives its own masks: no parameter beyond the model's
    takes part."""
    frame = tiny.encode(torch.rand(2, 3, 70, 97))
    passed = tiny.pass_queries(frame.out.global_queries, frame)
    torch.testing.assert_close(passed, frame.out.mask_logits)


@torch.no_grad()
def test_passed_queries_look_at_the_later_frame_alone(tiny):
    """Q_G of frame t, X_L and X_mask of frame t + delta; its X6 is not asked for."""
    now, later = (tiny.encode(torch.rand(1, 3, 70, 97)) for _ in range(2))
    q_g, decoder = now.out.global_queries, tiny.instance_decoder
    said = decoder.local(q_g, later.padded_x_mask, later.token_padding)
    expected = torch.einsum("bnd,bdhw->bnhw", said.kernels, later.x_mask)
    passed = tiny.pass_queries(q_g, later)
    torch.testing.assert_close(passed, expected, atol=1e-4, rtol=1e-4)
    later.x6 = torch.full_like(later.x6, float("nan"))
    assert torch.equal(tiny.pass_queries(q_g, later), passed)
    assert not torch.allclose(
        passed, later.masks(now.out.kernels), atol=1e-2
    )  # it is more than kernel reuse


def test_gradients_reach_frame_t_and_only_parameters_that_masks_need(pair):
    model, now, later = pair
    held = [match([0], [0]), match([], [])]  # the second pair is held to nothing
    losses = passed_losses(pair, held, [instances([5]), instances([6])])
    to_queries, to_features = torch.autograd.grad(
        sum(losses.values()), [now.global_queries, later.padded_x_mask], retain_graph=True
    )
    assert to_queries[0].any() and not to_queries[1].any()
    assert to_features[0].any() and not to_features[1].any()
    learned = dict(model.named_parameters())
    grads = torch.autograd.grad(
        sum(losses.values()), list(learned.values()), retain_graph=True, allow_unused=True
    )
    moved = {name for name, grad in zip(learned, grads) if grad is not None and grad.any()}
    for part in (
        "backbone.",
        "mask_decoder.",
        "instance_decoder.queries",
        "instance_decoder.global_projection",
        "instance_decoder.global_norm",
        "instance_decoder.global_decoder",
        "instance_decoder.local_decoder",
        "instance_decoder.heads.kernel",
    ):
        assert any(name.startswith(part) for name in moved), part
    assert not any(
        name.startswith(("instance_decoder.heads.classes", "instance_decoder.heads.obj"))
        for name in moved
    )


def test_nothing_left_to_pass_costs_nothing_and_has_a_gradient(pair):
    """Every pair of frames with another reason: no instance at all, and one that nobody is held
    to."""
    _, now, _ = pair
    for later in ([instances([]), instances([3])], [instances([]), instances([])]):
        total = sum(passed_losses(pair, [match([], []), match([], [])], later).values())
        (grad,) = torch.autograd.grad(total, [now.global_queries], retain_graph=True)
        assert total == 0 and not grad.any()
