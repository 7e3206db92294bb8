"""minst.lab.associations: other rules and trackers, by hand, against an oracle's own aim and against the tracker they vary."""

from itertools import permutations

import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.lab import measure
from minst.lab.associations import ASSOCIATIONS, Oracle, encode_with
from minst.model import MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD
from minst.tracking import Candidates, KernelTracker, assign


@pytest.fixture(scope="module")
def model():
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A clip of a data set."""
    folder = tmp_path_factory.mktemp("associations") / "clips"
    write_shapes_dataset(folder, 1, ShapesConfig(width=160, height=128, frames=14, min_instances=3, max_instances=4), 7, "val")
    return YouTubeVIS(folder)[0]


@pytest.fixture(scope="module")
def clip(shown):
    return list(shown)


@pytest.fixture(scope="module")
def seen(model, clip):
    """Its frames, as the lab has the network see them."""
    return list(measure.look(model, clip))


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


def test_who_is_told_of_a_cut_begins_anew_there(model, shown, seen):
    cut = measure.cut_of(shown)
    assert 0 < cut < len(seen) and cut % 3 and cut % 6
    found = measure.track(model, "told 6", shown, seen)
    spans = [[t for t, code in enumerate(track.segmentations) if code] for track in found.tracks]
    before, after = ([span for span in spans if part(span[0])] for part in (lambda t: t < cut, lambda t: t >= cut))
    assert before and after and all(span[-1] < cut for span in before)
    # from the cut on it is what a tracker says that has seen nothing else
    alone = KernelTracker(model, 6, "cosine", score_threshold=EVALUATION_THRESHOLD)
    anew = alone.gather(map(alone.advance, seen[cut:]))
    ours = [track for track in found.tracks if any(track.segmentations[cut:])]
    assert [t.segmentations[cut:] for t in ours] == [t.segmentations for t in anew.tracks]


@pytest.mark.parametrize("setting", ["cosine 3", "mask 1", "none 6"])
def test_a_setting_is_a_tracker_of_this_rule_and_interval(model, shown, seen, setting):
    by, interval = setting.split()
    tracker = rival(model, int(interval), by)
    assert same(measure.track(model, setting, shown, seen), tracker.gather(map(tracker.advance, seen)))


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


@torch.inference_mode()
def test_frozen_x6_is_the_key_frames_own_and_no_other(model, shown, seen, monkeypatch):
    entered, real = [], KernelTracker.advance
    monkeypatch.setattr(KernelTracker, "advance", lambda tracker, frame: (entered.append(frame), real(tracker, frame))[1])
    frozen = measure.track(model, "frozen 3", shown, seen[:6])
    for t, frame in enumerate(entered):
        assert torch.equal(frame.x6, seen[t - t % 3].x6)
        torch.testing.assert_close(frame.x_mask, encode_with(model, image_to_batch(shown.image(t)), frame.x6).x_mask,
                                   atol=1e-4, rtol=1e-4)  # fmt: skip
    assert not torch.equal(entered[0].x6, entered[3].x6) and len(frozen.tracks) > 1
    assert same(measure.track(model, "frozen 1", shown, seen), measure.track(model, "cosine 1", shown, seen))


def test_the_oracle_is_shown_the_truth_of_key_frames(model, shown, seen, monkeypatch):
    told = []
    monkeypatch.setattr(Oracle, "see", lambda self, frame, masks: told.append((frame, masks)))
    monkeypatch.setattr(Oracle, "__call__", lambda self, old, new, x_mask: torch.eye(len(new.scores)))
    measure.track(model, "oracle 3", shown, seen[:7])
    assert [seen.index(frame) for frame, _ in told] == [0, 3, 6]
    for (_, masks), t in zip(told, (0, 3, 6)):
        assert np.array_equal(masks, shown.masks(t))


def test_assign_is_the_best_of_all_permutations():
    similarity = torch.rand(4, 4, generator=torch.Generator().manual_seed(3))
    best = max(permutations(range(4)), key=lambda p: sum(float(similarity[i, j]) for i, j in enumerate(p)))
    assert assign(similarity).tolist() == list(best)
