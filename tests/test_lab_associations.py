"""minst.lab.associations: other rules and trackers, by hand, against an oracle's own aim and against the tracker they vary."""

from itertools import permutations

import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, shapes_clip
from minst.lab.associations import ASSOCIATIONS, FrozenX6, Oracle, TellsCuts, encode_with
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


def rival(model, interval, name):
    return KernelTracker(model, interval, ASSOCIATIONS[name], score_threshold=EVALUATION_THRESHOLD)


@pytest.mark.parametrize("name", ["cosine", "mask"])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_two_that_ship_are_the_tracker_s_own(model, clip, name, interval):
    shipped = KernelTracker(model, interval, name, score_threshold=EVALUATION_THRESHOLD)
    assert same(rival(model, interval, name).track(clip), shipped.track(clip))


def test_none_never_moves_a_slot(model, clip):
    owner = {}
    for result in map(rival(model, 1, "none").step, clip):
        for identity, query in zip(result.ids, result.queries):
            assert owner.setdefault(identity, query) == query


@pytest.mark.parametrize("name", ASSOCIATIONS)
def test_every_association_is_one_to_one_on_a_real_clip(model, clip, name):
    tracker = rival(model, 1, name)
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
    said = {name: rule(*met) for name, rule in ASSOCIATIONS.items()}
    for i, j in [(0, 0), (1, 4), (len(new.scores) - 1, 2), (int(old.scores.argmax()), int(new.scores.argmax()))]:
        a, b, scores = old.kernels[i], new.kernels[j], float(old.scores[i] * new.scores[j])
        angle = float(a @ b / (a.norm() * b.norm()))
        first, second = ((kernel[:, None, None] * x_mask).sum(0).sigmoid() for kernel in (a, b))
        dice = float(2 * (first * second).sum() / ((first**2).sum() + (second**2).sum()))
        live = min(float(old.scores[i]), float(new.scores[j])) >= 0.3
        assert float(said["cosine-all"][i, j]) == pytest.approx(angle, abs=1e-5)
        assert float(said["cosine-live"][i, j]) == pytest.approx(live * (1 + angle), abs=1e-5)
        assert float(said["cosine"][i, j]) == pytest.approx(angle * scores, abs=1e-5)
        assert float(said["mask-all"][i, j]) == pytest.approx(dice, abs=1e-3)
        assert float(said["mask"][i, j]) == pytest.approx(dice * scores, abs=1e-3)
        assert float(said["none"][i, j]) == (i == j)
    assert live  # of the last pair, so that the rule has been tried


# ---------------------------------------------------------------------------------------------- the oracle


class Seen:
    """What an oracle looks at of a frame: one square of two rows a query, of 4 instances side by side."""

    def __init__(self, *instances):
        self.instances = instances

    def masks(self):
        found = np.zeros((len(self.instances), 4, 8), bool)
        for query, instance in enumerate(self.instances):
            if instance is not None:
                found[query, :, 2 * instance : 2 * instance + 2] = True
        return found


TRUTH = Seen(0, 1, 2, 3).masks()


@pytest.fixture
def oracle(monkeypatch):
    monkeypatch.setattr("minst.lab.associations.masks_of_queries", lambda frame: frame.masks())
    return Oracle()


def follow(oracle, frames, scores):
    """The queries of all slots after each key frame but the first, as the tracker takes them."""
    queries, told = torch.arange(len(scores[0])), []
    for frame, before, now in zip(frames, [None, *scores], scores):
        oracle.see(frame, TRUTH)
        if before is not None:
            old = Candidates(None, torch.tensor(before)[queries], queries)
            new = Candidates(None, torch.tensor(now), torch.arange(len(now)))
            queries = assign(oracle(old, new, None))
            told.append(queries.tolist())
    return told


def test_the_oracle_goes_on_with_the_query_that_holds_the_slot_s_instance(oracle):
    found = follow(oracle, [Seen(0, 1, None), Seen(1, None, 0)], [[0.9, 0.8, 0.1], [0.8, 0.1, 0.9]])
    assert found == [[2, 0, 1]]


def test_the_oracle_waits_for_an_instance_out_of_sight_and_lets_nobody_else_in(oracle):
    frames = [Seen(0, 1, None), Seen(2, 1, None), Seen(2, 0, 1)]
    first, second = follow(oracle, frames, [[0.9, 0.9, 0.1]] * 3)
    assert first[1] == 1 and first[0] != 0  # query 0 draws a newcomer: not in the slot of instance 0
    assert second[0] == 1 and second[1] == 2 and second[first.index(0)] == 0


def test_of_two_queries_of_an_instance_the_live_one_goes_on_with_the_live_slot(oracle):
    assert follow(oracle, [Seen(0, 0), Seen(0, 0)], [[0.9, 0.2], [0.1, 0.8]]) == [[1, 0]]


def test_the_oracle_needs_no_instances(oracle):
    oracle.see(Seen(None, 0), TRUTH[:0])
    oracle.see(Seen(0, None), TRUTH[:0])
    both = Candidates(None, torch.ones(2), torch.arange(2))
    assert assign(oracle(both, both, None)).tolist() == [0, 1]


# ----------------------------------------------------------------------------------------------- trackers


def test_who_is_told_of_a_cut_begins_anew_there(model, clip):
    tracker = TellsCuts(model, 6, "cosine", score_threshold=EVALUATION_THRESHOLD)
    tracker.cut = 4
    results = [tracker.step(frame) for frame in clip[:8]]
    assert [result.is_key for result in results] == [True] + [False] * 3 + [True] + [False] * 3
    before, after = ({i for r in part for i in r.ids} for part in (results[:4], results[4:]))
    assert before and after and not before & after
    alone = KernelTracker(model, 6, "cosine", score_threshold=EVALUATION_THRESHOLD)
    assert [r.segmentations for r in map(alone.step, clip[4:8])] == [r.segmentations for r in results[4:]]


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
