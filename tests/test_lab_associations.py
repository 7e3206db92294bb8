"""minst.lab.associations: other associations and trackers, against brute force and against the tracker they vary."""

from itertools import permutations

import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, shapes_clip
from minst.lab.associations import (
    ASSOCIATIONS,
    AdaptiveT,
    FrozenX6,
    Moves,
    association,
    encode_with,
    greedy,
    mean_kernels,
)
from minst.model import MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD
from minst.tracking import Candidates, KernelTracker, assign


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def clip():
    found = shapes_clip("val", 3, ShapesConfig(width=160, height=128, frames=14, min_instances=3, max_instances=4), 7)
    return [found.render(t).image for t in range(14)]


def same(a, b):
    return a.tracks == b.tracks


def rival(model, interval, name, means=None):
    return KernelTracker(model, interval, association(name, means), score_threshold=EVALUATION_THRESHOLD)


def follow(tracker, clip):
    """The results of all frames, and what was counted meanwhile."""
    moves = Moves()
    return list(moves.watch(tracker, map(tracker.step, clip))), moves


@pytest.mark.parametrize("name", ["cosine", "mask"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_two_that_ship_are_the_tracker_s_own(model, clip, name, interval):
    shipped = KernelTracker(model, interval, name, score_threshold=EVALUATION_THRESHOLD)
    assert same(rival(model, interval, name).track(clip), shipped.track(clip))


def test_none_never_moves_a_slot_and_says_so(model, clip):
    results, moves = follow(rival(model, 1, "none"), clip)
    owner = {}
    for result in results:
        for identity, query in zip(result.ids, result.queries):
            assert owner.setdefault(identity, query) == query
    assert moves.moved == 0 and moves.stayed > 0 and moves.keys == len(clip)


def test_moved_and_stayed_are_counted_over_key_frames_after_the_first(model, clip):
    tracker, moved, stayed = rival(model, 2, "mask"), 0, 0
    _, moves = follow(rival(model, 2, "mask"), clip)
    before = None
    for frame in clip:
        is_key = tracker.step(frame).is_key
        slots = tracker.slots
        if is_key and before is not None:
            live = slots.scores >= tracker.score_threshold
            moved += int((slots.queries[live] != before[live]).sum())
            stayed += int((slots.queries[live] == before[live]).sum())
        before = slots.queries.clone()
    assert (moves.moved, moves.stayed, moves.keys) == (moved, stayed, 7)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_takes_the_largest_left(seed):
    similarity = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed))
    left = {(r, c): float(similarity[r, c]) for r in range(5) for c in range(5)}
    wanted = {}
    while left:
        r, c = max(left, key=left.get)
        wanted[r] = c
        left = {(i, j): v for (i, j), v in left.items() if i != r and j != c}
    assert assign(greedy(similarity)).tolist() == [wanted[r] for r in range(5)]


def test_greedy_may_be_worse_than_the_best_of_all():
    similarity = torch.tensor([[0.9, 0.8], [0.8, 0.1]])
    assert assign(greedy(similarity)).tolist() == [0, 1] and assign(similarity).tolist() == [1, 0]


@pytest.mark.parametrize("name", ASSOCIATIONS)
def test_every_association_is_one_to_one_on_a_real_clip(model, clip, name):
    tracker = rival(model, 1, name, mean_kernels(model, clip[:3]))
    for frame in clip[:4]:
        tracker.step(frame)
    assert sorted(tracker.slots.queries.tolist()) == list(range(model.config.num_queries))
    assert len(tracker.track(clip[:4]).tracks) > 0


@pytest.fixture(scope="module")
def met(model, clip):
    """The slots after a frame, what the next one offers, and its X_mask."""
    tracker = rival(model, 1, "none")
    tracker.step(clip[0])
    with torch.inference_mode():
        out = model.encode(image_to_batch(clip[1])).out
        queries = torch.arange(model.config.num_queries)
        new = Candidates(out.kernels[0], out.scores()[0].amax(-1), queries)
    slots = tracker.slots
    old = Candidates(slots.kernels, slots.scores, slots.queries)
    return old, new, out.mask_features[0]


def test_similarities_by_hand(met):
    old, new, x_mask = met
    said = {name: association(name)(*met) for name in ASSOCIATIONS if name != "centred"}
    for i, j in [(0, 0), (1, 4), (len(new.scores) - 1, 2)]:
        a, b, scores = old.kernels[i], new.kernels[j], float(old.scores[i] * new.scores[j])
        angle = float(a @ b / (a.norm() * b.norm()))
        first, second = ((kernel[:, None, None] * x_mask).sum(0).sigmoid() for kernel in (a, b))
        dice = float(2 * (first * second).sum() / ((first**2).sum() + (second**2).sum()))
        assert float(said["dot"][i, j]) == pytest.approx(float((a * b).sum()), rel=1e-4)
        assert float(said["cosine-all"][i, j]) == pytest.approx(angle, abs=1e-5)
        assert float(said["cosine"][i, j]) == pytest.approx(angle * scores, abs=1e-5)
        assert float(said["mask-alone"][i, j]) == pytest.approx(dice, abs=1e-3)
        assert float(said["mask"][i, j]) == pytest.approx(dice * scores, abs=1e-3)
        assert float(said["none"][i, j]) == (i == j)


def test_centred_does_not_see_what_a_query_always_adds(model, clip, met):
    """A constant of each query's own, in its kernels and their mean alike, changes the cosine and not the centred one."""
    means, (old, new, x_mask) = mean_kernels(model, clip), met
    own = torch.randn(means.shape, generator=torch.Generator().manual_seed(0)) * 3
    moved = [of._replace(kernels=of.kernels + own) for of in (old, new)]
    before, after = association("centred", means)(*met), association("centred", means + own)(*moved, x_mask)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    plain = association("cosine-all")
    assert (plain(*moved, x_mask) - plain(*met)).abs().max() > 0.1


def test_centred_takes_the_mean_of_the_query_that_a_slot_has_now(model, clip, met):
    centred, (old, new, x_mask) = association("centred", mean_kernels(model, clip)), met
    order = torch.randperm(len(old.scores), generator=torch.Generator().manual_seed(1))
    turned = Candidates(*(values[order] for values in old))
    torch.testing.assert_close(centred(turned, new, x_mask), centred(*met)[order])


def test_mean_kernels_is_the_mean(model, clip):
    kernels = [model(image_to_batch(frame)).kernels[0] for frame in clip[:3]]
    torch.testing.assert_close(mean_kernels(model, clip[:3]), sum(kernels) / 3)


def test_what_is_missing_or_unknown_is_said():
    with pytest.raises(ValueError, match="centred needs the mean kernel"):
        association("centred")
    with pytest.raises(ValueError, match="'iou'.*none, cosine"):
        association("iou")


def test_agreement_that_nothing_reaches_makes_every_frame_a_key_frame(model, clip):
    tracker = AdaptiveT(model, 1e9)
    assert same(tracker.track(clip), rival(model, 1, "mask").track(clip))
    tracker.reset()
    assert follow(tracker, clip)[1].keys == len(clip)


def test_agreement_that_all_reach_leaves_one_in_twelve(model, clip):
    tracker = AdaptiveT(model, 0.0)
    assert same(tracker.track(clip), rival(model, 12, "mask").track(clip))
    tracker.reset()
    assert follow(tracker, clip)[1].keys == 2


def test_a_still_picture_needs_no_key_frame_and_one_without_instances_does(model, clip):
    still = AdaptiveT(model, 0.99)
    assert [still.step(clip[0]).is_key for _ in range(6)] == [True] + [False] * 5
    assert still.step(np.full_like(clip[0], 127)).is_key  # the lights are out: nothing that the kernels know


@torch.inference_mode()
def test_agreement_by_hand(model, clip):
    tracker = AdaptiveT(model, 0.9)
    tracker.step(clip[0])
    encoded, total = model.encode(image_to_batch(clip[4])), 0.0
    for kernel, score in zip(tracker.slots.kernels, tracker.slots.scores):
        soft = encoded.masks(kernel[None, None])[0, 0].sigmoid()
        inside = float(soft[soft > 0.5].sum())
        total += float(score) * 2 * inside / (float(soft.sum()) + int((soft > 0.5).sum()))
    assert tracker.agreement_with(encoded) == pytest.approx(total / float(tracker.slots.scores.sum()), abs=1e-5)


def test_frozen_x6_of_the_same_picture_changes_nothing(model, clip):
    frame = image_to_batch(clip[0])
    encoded = model.encode(frame)
    again = encode_with(model, frame, encoded.x6)
    torch.testing.assert_close(again.x_mask, encoded.x_mask)
    assert again.size == encoded.size
    torch.testing.assert_close(again.token_padding, encoded.token_padding)


def test_frozen_x6_enters_wherever_x6_does(model, clip, monkeypatch):
    """The same as the whole network with a transformer that answers what it said of the key frame."""
    x6, frame = model.encode(image_to_batch(clip[0])).x6, image_to_batch(clip[5])
    frozen = encode_with(model, frame, x6)
    with monkeypatch.context() as patch:
        patch.setattr(model.backbone.trans, "forward", lambda pooled: x6)
        whole = model.encode(frame)
    torch.testing.assert_close(frozen.x_mask, whole.x_mask)
    assert (frozen.x_mask - model.encode(frame).x_mask).abs().max() > 0.01


def test_frozen_x6_is_the_key_frames_own_and_no_other(model, clip):
    tracker, seen = FrozenX6(model, 3, "mask"), []
    real = tracker.advance
    tracker.advance = lambda encoded: (seen.append(encoded.x6), real(encoded))[1]
    for frame in clip[:6]:
        tracker.step(frame)
    for t in range(6):
        torch.testing.assert_close(seen[t], model.encode(image_to_batch(clip[t - t % 3])).x6)
    assert not torch.equal(seen[0], seen[3])
    assert same(FrozenX6(model, 1, "mask").track(clip), KernelTracker(model, 1, "mask").track(clip))


def test_assign_is_the_best_of_all_permutations():
    similarity = torch.rand(4, 4, generator=torch.Generator().manual_seed(3))
    best = max(permutations(range(4)), key=lambda p: sum(float(similarity[i, j]) for i, j in enumerate(p)))
    assert assign(similarity).tolist() == list(best)
