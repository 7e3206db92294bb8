"""Query passing: who keeps which instance, what is supervised, where the gradient goes."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minst.losses import mask_losses
from minst.matcher import Instances, hungarian_match
from minst.temporal import kept_pairs, query_passing_losses


def instances(ids, size=(16, 16)) -> Instances:
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
        assert [part.tolist() for part in pairs] == [[], []] and all(part.dtype == torch.long for part in pairs)


SOME_IDS = st.lists(st.integers(0, 12), unique=True, max_size=6)


@given(now=SOME_IDS, later=SOME_IDS, seed=st.integers(0, 2**31))
def test_identity_is_kept_in_any_order(now, later, seed):
    torch.manual_seed(seed)
    matched = int(torch.randint(len(now) + 1, ()))  # not every instance need have found a query
    queries, found = torch.randperm(9)[:matched], torch.randperm(len(now))[:matched]
    holds = {int(q): now[int(m)] for q, m in zip(queries, found)}
    kept = kept_pairs((queries, found), instances(now), instances(later))
    assert {int(q): later[int(m)] for q, m in zip(*kept)} == {q: i for q, i in holds.items() if i in later}


@pytest.fixture(scope="module")
def pair(tiny):
    """Two pairs of frames, with gradients: the model, frames t decoded, frames t + delta encoded."""
    torch.manual_seed(0)
    model = copy.deepcopy(tiny).train()
    frames = torch.rand(4, 3, 128, 128)
    return model, model(frames[:2]), model.encode(frames[2:])


IDS = [10, 20, 30]


def test_the_loss_is_that_of_passed_masks_against_their_own_instances(pair):
    model, now, later = pair
    here, there = [instances(IDS), instances([1, 2])], [instances([30, 40, 10]), instances([3])]
    matches = [match([2, 5, 7], [1, 0, 2]), match([0, 1], [0, 1])]
    losses = query_passing_losses(model, now, later, matches, here, there)
    masks = model.pass_queries(now.global_queries, later)
    expected = mask_losses(torch.stack([masks[0, 5], masks[0, 7]]), there[0].masks[[2, 0]], 2.0)
    assert losses.keys() == {"dice", "pixel"}
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


def test_passing_is_the_local_stage_over_again(pair):
    """A frame's own Q_G, passed to itself, gives its own masks: no parameter beyond the model's takes part."""
    model, now, later = pair
    model.eval()
    frames = torch.rand(2, 3, 128, 128)
    encoded = model.encode(frames)
    out = model.decode(encoded)
    torch.testing.assert_close(model.pass_queries(out.global_queries, encoded), out.mask_logits)
    model.train()


def test_gradients_reach_frame_t_and_only_parameters_that_masks_need(pair):
    model, now, later = pair
    losses = query_passing_losses(model, now, later, [match([0], [0]), match([3], [0])], [instances([5])] * 2,
                                  [instances([5]), instances([6])])  # fmt: skip
    to_queries, to_features = torch.autograd.grad(sum(losses.values()), [now.global_queries, later.mask_features],
                                                  retain_graph=True)  # fmt: skip
    assert to_queries[0].any() and not to_queries[1].any()  # the second pair has lost its instance
    assert to_features[0].any() and not to_features[1].any()
    learned = dict(model.named_parameters())
    grads = torch.autograd.grad(sum(losses.values()), list(learned.values()), retain_graph=True, allow_unused=True)
    moved = {name for name, grad in zip(learned, grads) if grad is not None and grad.any()}
    for part in ("backbone.", "mask_decoder.", "instance_decoder.queries", "instance_decoder.stages.0",
                 "instance_decoder.stages.1", "instance_decoder.heads.kernel"):  # fmt: skip
        assert any(name.startswith(part) for name in moved), part
    assert not any(name.startswith(("instance_decoder.heads.classes", "instance_decoder.heads.obj")) for name in moved)


@pytest.mark.parametrize("identity", ["kept", "fresh"])
def test_nothing_left_to_pass_costs_nothing_and_has_a_gradient(pair, identity):
    model, now, later = pair
    losses = query_passing_losses(model, now, later, [match([], []), match([1], [0])], [instances([]), instances([3])],
                                  [instances([]), instances([])], now.class_logits, identity)  # fmt: skip
    total = sum(losses.values())
    (grad,) = torch.autograd.grad(total, [now.global_queries], retain_graph=True)
    assert total == 0 and not grad.any()


def test_fresh_matches_anew_where_kept_holds_on(pair):
    model, now, later = pair
    masks = model.pass_queries(now.global_queries, later).detach()
    # in frame t + delta, query 1 segments what query 0 was matched to
    there = [Instances(torch.tensor([0]), masks[i, 1:2].sigmoid().gt(0.5).float(), torch.tensor([9])) for i in range(2)]
    here = [there[0], there[1]]
    matches = [match([0], [0])] * 2
    logits = torch.full((2, 8, 8), -2.0)
    kept = query_passing_losses(model, now, later, matches, here, there, logits, "kept")
    fresh = query_passing_losses(model, now, later, matches, here, there, logits, "fresh")
    found = hungarian_match(logits, masks, there)
    best = mask_losses(torch.stack([masks[i, q[0]] for i, (q, _) in enumerate(found)]),
                       torch.cat([t.masks for t in there]), 2.0)  # fmt: skip
    first = mask_losses(masks[:, 0], torch.cat([t.masks for t in there]), 2.0)
    for name in ("dice", "pixel"):
        torch.testing.assert_close(fresh[name].detach(), best[name])
        torch.testing.assert_close(kept[name].detach(), first[name])
    assert fresh["dice"] < kept["dice"]


def test_full_size_masks_are_resized(pair):
    model, now, later = pair
    matches, here = [match([0], [0]), match([], [])], [instances([4]), instances([])]
    full = (torch.rand(1, 128, 128) > 0.5).float()
    small = torch.nn.functional.interpolate(full[None], scale_factor=1 / 8, mode="bilinear")[0]
    a, b = (query_passing_losses(model, now, later, matches, here, [here[0]._replace(masks=m), instances([])])
            for m in (full, small))  # fmt: skip
    torch.testing.assert_close(a, b)
