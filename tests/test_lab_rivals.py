"""minst.lab.rivals: other associations and trackers, against brute force and against the tracker they vary."""

from itertools import permutations

import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, shapes_clip
from minst.evaluation.run import EVALUATION_THRESHOLD
from minst.lab.rivals import ASSOCIATIONS, AdaptiveRival, FrozenX6, Rival, encode_with, greedy, mean_kernels
from minst.model import MobileInst, as_frames
from minst.tracking import KernelTracker, assign


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def clip():
    found = shapes_clip("val", 3, ShapesConfig(width=160, height=128, frames=14, min_instances=3, max_instances=4), 7)
    return [found.render(t).image for t in range(14)]


def same(a, b):
    return a.tracks == b.tracks


@pytest.mark.parametrize("association", ["cosine", "mask"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_two_that_ship_are_the_tracker_itself(model, clip, association, interval):
    shipped = KernelTracker(model, interval, association, score_threshold=EVALUATION_THRESHOLD)
    assert same(Rival(model, interval, association).track(clip), shipped.track(clip))


def test_none_never_moves_a_slot_and_says_so(model, clip):
    tracker = Rival(model, 1, "none")
    results = [tracker.step(frame) for frame in clip]
    owner = {}
    for result in results:
        for identity, query in zip(result.ids, result.queries):
            assert owner.setdefault(identity, query) == query
    assert tracker.moved == 0 and tracker.stayed > 0 and tracker.keys == len(clip)


def test_moved_and_stayed_are_counted_over_key_frames_after_the_first(model, clip):
    tracker, moved, stayed = Rival(model, 2, "mask"), 0, 0
    before = None
    for frame in clip:
        is_key = tracker.step(frame).is_key
        slots = tracker._slots
        if is_key and before is not None:
            live = slots.scores >= tracker.score_threshold
            moved += int((slots.queries[live] != before[live]).sum())
            stayed += int((slots.queries[live] == before[live]).sum())
        before = slots.queries.clone()
    assert (tracker.moved, tracker.stayed, tracker.keys) == (moved, stayed, 7)


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


@pytest.mark.parametrize("association", ASSOCIATIONS)
def test_every_association_is_one_to_one_on_a_real_clip(model, clip, association):
    means = mean_kernels(model, clip[:3])
    tracker = Rival(model, 1, association, means)
    for frame in clip[:4]:
        tracker.step(frame)
    assert sorted(tracker._slots.queries.tolist()) == list(range(model.config.num_queries))
    assert len(tracker.track(clip[:4]).tracks) > 0


def similarity_of(model, clip, association, means=None, change=lambda out: out):
    tracker = Rival(model, 1, association, means)
    tracker.step(clip[0])
    with torch.inference_mode():
        out = change(model.decode(model.encode(as_frames(clip[1]))))
        return tracker, out, tracker._similarity(out, out.scores()[0].amax(-1))


def test_similarities_by_hand(model, clip):
    tracker, out, dot = similarity_of(model, clip, "dot")
    old, new, n = tracker._slots.kernels, out.kernels[0], model.config.num_queries
    scores, new_scores = tracker._slots.scores, out.scores()[0].amax(-1)
    _, _, cosine = similarity_of(model, clip, "cosine")
    _, _, weighted = similarity_of(model, clip, "scores")
    for i, j in [(0, 0), (1, 4), (n - 1, 2)]:
        angle = float(old[i] @ new[j] / (old[i].norm() * new[j].norm()))
        assert float(dot[i, j]) == pytest.approx(float((old[i] * new[j]).sum()), rel=1e-4)
        assert float(cosine[i, j]) == pytest.approx(angle, abs=1e-5)
        assert float(weighted[i, j]) == pytest.approx(angle * float(scores[i] * new_scores[j]), abs=1e-5)


def test_centred_does_not_see_what_a_query_always_adds(model, clip):
    """A constant of each query's own, in its kernels and their mean alike, changes the cosine and not the centred one."""
    means = mean_kernels(model, clip)
    tracker, out, before = similarity_of(model, clip, "centred", means)
    own = torch.randn(means.shape, generator=torch.Generator().manual_seed(0)) * 3
    tracker.means = means + own
    tracker._slots.kernels = tracker._slots.kernels + own
    moved = out._replace(kernels=out.kernels + own)
    torch.testing.assert_close(tracker._similarity(moved, None), before, atol=1e-4, rtol=1e-4)
    tracker.rival = "cosine"
    assert (tracker._similarity(moved, None) - before).abs().max() > 0.1


def test_centred_takes_the_mean_of_the_query_that_a_slot_has_now(model, clip):
    means = mean_kernels(model, clip)
    tracker, out, before = similarity_of(model, clip, "centred", means)
    order = torch.randperm(len(means), generator=torch.Generator().manual_seed(1))
    tracker._slots.kernels, tracker._slots.queries = tracker._slots.kernels[order], tracker._slots.queries[order]
    torch.testing.assert_close(tracker._similarity(out, None), before[order])


def test_mean_kernels_is_the_mean(model, clip):
    kernels = [model(as_frames(frame)).kernels[0] for frame in clip[:3]]
    torch.testing.assert_close(mean_kernels(model, clip[:3]), sum(kernels) / 3)


def test_what_is_missing_or_unknown_is_said(model):
    with pytest.raises(ValueError, match="centred needs the mean kernel"):
        Rival(model, 1, "centred")
    with pytest.raises(ValueError, match="'iou'.*none, cosine"):
        Rival(model, 1, "iou")


def test_agreement_that_nothing_reaches_makes_every_frame_a_key_frame(model, clip):
    tracker = AdaptiveRival(model, 1e9)
    assert same(tracker.track(clip), Rival(model, 1, "mask").track(clip)) and tracker.keys == len(clip)


def test_agreement_that_all_reach_leaves_one_in_twelve(model, clip):
    tracker = AdaptiveRival(model, 0.0)
    assert same(tracker.track(clip), Rival(model, 12, "mask").track(clip)) and tracker.keys == 2


def test_a_still_picture_needs_no_key_frame_and_one_without_instances_does(model, clip):
    still = AdaptiveRival(model, 0.99)
    assert [still.step(clip[0]).is_key for _ in range(6)] == [True] + [False] * 5
    assert still.step(np.full_like(clip[0], 127)).is_key  # the lights are out: nothing that the kernels know


@torch.inference_mode()
def test_agreement_by_hand(model, clip):
    tracker = AdaptiveRival(model, 0.9)
    tracker.step(clip[0])
    encoded, total = model.encode(as_frames(clip[4])), 0.0
    for kernel, score in zip(tracker._slots.kernels, tracker._slots.scores):
        soft = encoded.masks(kernel[None, None])[0, 0].sigmoid()
        inside = float(soft[soft > 0.5].sum())
        total += float(score) * 2 * inside / (float(soft.sum()) + int((soft > 0.5).sum()))
    assert tracker._agreement(encoded) == pytest.approx(total / float(tracker._slots.scores.sum()), abs=1e-5)


def test_frozen_x6_of_the_same_picture_changes_nothing(model, clip):
    frame = as_frames(clip[0])
    encoded = model.encode(frame)
    again = encode_with(model, frame, encoded.x6)
    torch.testing.assert_close(again.mask_features, encoded.mask_features)
    assert again.size == encoded.size
    torch.testing.assert_close(again.token_padding, encoded.token_padding)


def test_frozen_x6_enters_wherever_x6_does(model, clip, monkeypatch):
    """The same as the whole network with a transformer that answers what it said of the key frame."""
    x6, frame = model.encode(as_frames(clip[0])).x6, as_frames(clip[5])
    frozen = encode_with(model, frame, x6)
    with monkeypatch.context() as patch:
        patch.setattr(model.backbone.trans, "forward", lambda pooled: x6)
        whole = model.encode(frame)
    torch.testing.assert_close(frozen.mask_features, whole.mask_features)
    assert (frozen.mask_features - model.encode(frame).mask_features).abs().max() > 0.01


def test_frozen_x6_is_the_key_frames_own_and_no_other(model, clip):
    tracker, seen = FrozenX6(model, 3, "mask"), []
    real = tracker.advance
    tracker.advance = lambda encoded: (seen.append(encoded.x6), real(encoded))[1]
    for frame in clip[:6]:
        tracker.step(frame)
    for t in range(6):
        torch.testing.assert_close(seen[t], model.encode(as_frames(clip[t - t % 3])).x6)
    assert not torch.equal(seen[0], seen[3])
    assert same(FrozenX6(model, 1, "mask").track(clip), Rival(model, 1, "mask").track(clip))


def test_assign_is_the_best_of_all_permutations():
    similarity = torch.rand(4, 4, generator=torch.Generator().manual_seed(3))
    best = max(permutations(range(4)), key=lambda p: sum(float(similarity[i, j]) for i, j in enumerate(p)))
    assert assign(similarity).tolist() == list(best)
