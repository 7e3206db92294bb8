"""Tracking: kernel reuse against the formula, association against brute force, identities in
scripted scenes where the right answer is known, and a state that neither grows nor breaks."""

import copy
import itertools
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle_codec

from minst import results, tracking
from minst.data.video import read_video, write_mp4
from minst.evaluation import evaluate_ytvis
from minst.model import FrameOutput, MobileInst, apply_kernels, image_to_batch
from minst.samples import load_sample, sample_names
from minst.tracking import (
    ASSOCIATIONS,
    Candidates,
    KernelTracker,
    assign,
    cosine_similarity,
    mask_similarity,
)


def make_tracker(*args, **options) -> KernelTracker:
    return KernelTracker(*args, **{"score_threshold": 0.3, **options})


# --------------------------------------------------------------------------------------- similarity


def test_cosine_by_hand():
    old = torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    new = torch.tensor([[6.0, 8.0], [1.0, 0.0], [-3.0, -4.0]])
    expected = torch.tensor([[1.0, 0.6, -1.0], [-0.8, 0.0, 0.8], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(cosine_similarity(old, new), expected)


def some_candidates(count, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randperm(count, generator=generator)
    kernels = torch.randn(count, channels, generator=generator)
    return Candidates(kernels, torch.rand(count, generator=generator), queries)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@settings(max_examples=25)
@given(count=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_associations_in_numpy(count, seed):
    """cosine and dice, pair by pair; both times the two scores."""
    old, new = (some_candidates(count, 5, seed + i) for i in (0, 1))
    x_mask = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed))
    cosine, dice = np.zeros((2, count, count))
    for i, a in enumerate(old.kernels.double().numpy()):
        for j, b in enumerate(new.kernels.double().numpy()):
            cosine[i, j] = a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))
            x, y = (sigmoid(np.einsum("d,dhw->hw", k, x_mask.double().numpy())) for k in (a, b))
            dice[i, j] = 2 * (x * y).sum() / ((x * x).sum() + (y * y).sum() + 1e-4)
    live = np.outer(old.scores.numpy(), new.scores.numpy())
    np.testing.assert_allclose(cosine_similarity(old.kernels, new.kernels), cosine, atol=1e-5)
    np.testing.assert_allclose(mask_similarity(old.kernels, new.kernels, x_mask), dice, atol=1e-5)
    np.testing.assert_allclose(ASSOCIATIONS["cosine"](old, new, x_mask), cosine * live, atol=1e-5)
    np.testing.assert_allclose(ASSOCIATIONS["mask"](old, new, x_mask), dice * live, atol=1e-5)
    assert set(ASSOCIATIONS) == {"cosine", "mask"} and dice.min() >= 0 and dice.max() <= 1


@settings(max_examples=50)
@given(count=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_assignment_is_the_best_of_all(count, seed):
    similarity = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    found = assign(similarity)
    assert sorted(found.tolist()) == list(range(count)) and found.dtype == torch.long
    best = max(
        sum(similarity[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(count))
    )
    assert float(similarity[range(count), found].sum()) == pytest.approx(float(best), abs=1e-4)


@settings(max_examples=50)
@given(instances=st.integers(1, 4), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("association", ["cosine", "mask"])
def test_a_silent_duplicate_inherits_nothing(association, instances, seed):
    """Every instance has a live kernel and a silent one that is equal to it; queries change places,
    scores shake.

    For "cosine" that is a theorem: with u = score * kernel of length 1, the largest sum of u.v is
    the smallest sum of |u - v|^2, and a live slot that goes on in a silent kernel costs at least
    the gap between their scores.
    """
    generator = torch.Generator().manual_seed(seed)
    kernels = torch.randn(instances, 6, generator=generator).repeat(2, 1)
    live = torch.arange(2 * instances) < instances
    scores = torch.rand(2 * instances, generator=generator) * 0.4
    scores = torch.where(live, 0.5 + scores, scores / 4)

    def candidates():
        order = torch.randperm(2 * instances, generator=generator)
        shaken = scores + 0.02 * torch.rand(len(scores), generator=generator)
        return Candidates(kernels[order], shaken[order], order), live[order]

    (old, old_live), (new, new_live) = candidates(), candidates()
    x_mask = torch.randn(6, 4, 5, generator=generator)
    found = assign(ASSOCIATIONS[association](old, new, x_mask))
    assert torch.equal(new_live[found], old_live)


def plain_cosine(old, new, x_mask):
    """The cosine of all kernels, whatever their scores: what the lab compares with."""
    return cosine_similarity(old.kernels, new.kernels)


def test_the_plain_cosine_lets_a_silent_duplicate_inherit():
    """Why "cosine" weighs by scores: live and silent kernel of one instance are alike, and have
    changed places."""
    live, silent = (0, 0.9, 0), (0, 0.1, 0)
    for association, follows in (("cosine", True), ("mask", True), (plain_cosine, False)):
        tracker = make_tracker(Scripted([[live, silent], [silent, live]]), 1, association)
        first, second = (where(tracker.step(numbered(t))) for t in range(2))
        assert first == {0: 1} and second == ({0: 1} if follows else {0: 2})


def test_equal_similarities_leave_queries_where_they_are():
    assert assign(torch.zeros(5, 5)).tolist() == [0, 1, 2, 3, 4]
    tied = torch.ones(4, 4)
    tied[2, 0] = tied[0, 2] = 2.0
    assert assign(tied).tolist() == [2, 1, 0, 3]


# -------------------------------------------------------------------------------- reuse, real model


def video(count, height=64, width=64, seed=0):
    torch.manual_seed(seed)
    start = F.interpolate(
        torch.rand(1, 3, 8, 8), size=(height, width + count), mode="bicubic"
    ).clamp(0, 1)[0]
    return [start[:, :, t : t + width].contiguous() for t in range(count)]  # a camera that pans


def same(a, b):
    return all(x == y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("association", ["cosine", "mask"])
def test_masks_between_key_frames_are_old_kernels_on_new_features(tiny, interval, association):
    tracker = make_tracker(tiny, interval, association, score_threshold=0.3, min_area=1)
    kernels = scores = None
    for t, frame in enumerate(video(7, 64, 96)):
        result = tracker.step(frame)
        assert result.frame == t and result.is_key is (t % interval == 0)
        with torch.no_grad():
            out = tiny(frame[None])
        if result.is_key:
            kernels, scores = out.kernels[0], out.scores()[0].amax(-1)
        # M^{t+i} = K^t . X_mask^{t+i}
        masks = torch.einsum("nd,dhw->nhw", kernels, out.mask_features[0])
        masks = F.interpolate(masks[None], scale_factor=8, mode="bilinear")[0] >= 0
        expected = {n for n in range(8) if scores[n] >= 0.3 and masks[n].any()}
        assert set(result.queries) == expected and len(result.queries) == len(expected) > 0
        for query, mask in zip(result.queries, torch.from_numpy(result.masks())):
            assert (mask != masks[query]).float().mean() < 1e-3  # rounding at the threshold
        assert len(set(result.ids)) == len(result.ids) and min(result.ids) >= 1
        assert result.scores == sorted(result.scores, reverse=True)
        assert all(segmentation["size"] == [64, 96] for segmentation in result.segmentations)


def test_track_is_the_loop_over_step(tiny):
    frames, tracker, online = video(6), make_tracker(tiny, 2), make_tracker(tiny, 2)
    steps = [online.step(frame) for frame in frames]
    tracker.step(frames[3])  # what was before is forgotten
    found = tracker.track(iter(frames))
    assert found.num_frames == 6 and found.class_names == tiny.config.class_names
    by_id = {}
    for result in steps:
        for identity, segmentation in zip(result.ids, result.segmentations):
            by_id.setdefault(identity, [None] * 6)[result.frame] = segmentation
    assert {track.id: track.segmentations for track in found.tracks} == by_id
    for track in found.tracks:
        assert track.label == int(np.argmax(track.class_scores)) and track.score == max(
            track.class_scores
        )
        assert len(track.class_scores) == 8
    # after the last frame, running scores are those of the whole video
    last = {track.id: track.score for track in found.tracks}
    assert all(last[i] == pytest.approx(s) for i, s in zip(steps[-1].ids, steps[-1].scores))
    assert [t.score for t in found.tracks] == sorted((t.score for t in found.tracks), reverse=True)


def test_bytes_and_floats_are_one_frame(tiny):
    frame = (video(1)[0] * 255).round()
    a = make_tracker(tiny).step(frame / 255)
    b = make_tracker(tiny).step(frame.permute(1, 2, 0).byte().numpy())
    assert same(a, b)


def test_a_film_a_folder_and_what_their_frames_may_be(tiny, tmp_path):
    """A path is tracked as its frames are, whatever form they have."""
    images = [frame.permute(1, 2, 0).mul(255).byte().numpy() for frame in video(4)]
    for t, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{t}.png")
    expected = make_tracker(tiny, 2).track(images)
    assert len(expected.tracks) and expected.num_frames == 4
    pictures = [Image.fromarray(image) for image in images]
    tensors = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    for frames in (tmp_path, str(tmp_path), pictures, tensors, np.stack(images)):
        found = make_tracker(tiny, 2).track(frames)
        assert found == expected
    film = write_mp4(images, tmp_path / "film.mp4")
    from_frames = make_tracker(tiny, 2).track(read_video(film))
    assert make_tracker(tiny, 2).track(str(film)) == from_frames
    with pytest.raises(FileNotFoundError, match="nope.mp4"):
        make_tracker(tiny).track("nope.mp4")
    for wrong in (pictures[0], 7, None):
        with pytest.raises(ValueError, match="is no video; give its frames, or the path"):
            make_tracker(tiny).track(wrong)


def test_queries_have_no_order(tiny):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    permuted = copy.deepcopy(tiny)
    with torch.no_grad():
        permuted.instance_decoder.queries.copy_(tiny.instance_decoder.queries[order])
    frames = video(6)
    for association in ("cosine", "mask"):
        trackers = [make_tracker(m, 2, association) for m in (tiny, permuted)]
        numbers = {}
        for frame in frames:
            a, b = (tracker.step(frame) for tracker in trackers)
            assert sorted(a.queries) == sorted(int(order[q]) for q in b.queries)
            ours, theirs = (dict(zip(r.queries, zip(r.ids, r.scores, r.masks()))) for r in (a, b))
            for query, (identity, score, mask) in theirs.items():
                other, other_score, other_mask = ours[int(order[query])]
                assert (
                    numbers.setdefault(identity, other) == other
                )  # one and the same, under another number
                assert (
                    score == pytest.approx(other_score, abs=1e-4)
                    and (mask != other_mask).mean() < 1e-3
                )


def frames_of(name, count, step):
    """The first frames of a shipped clip, every `step`-th pixel of them, so that a test does not
    take long."""
    clip = load_sample(name)
    return [
        np.ascontiguousarray(clip.image(t)[::step, ::step]) for t in range(min(count, len(clip)))
    ]


@pytest.fixture(scope="module")
def shipped():
    return MobileInst.from_pretrained("shapes-tiny")


@pytest.mark.parametrize("name", sample_names())
def test_encoded_frames_can_be_played_again_and_again(shipped, name, monkeypatch):
    """`advance` over frames that are kept says what `track` says of the pictures, and decodes none
    of them twice."""
    decoded, decode = [], shipped.decode
    pictures = frames_of(name, 6, 2)
    runs = [(1, "cosine"), (1, "mask"), (2, "mask"), (4, "cosine")]
    expected = [KernelTracker(shipped, *run, score_threshold=0.1).track(pictures) for run in runs]
    monkeypatch.setattr(shipped, "decode", lambda frame: (decoded.append(frame), decode(frame))[1])
    with torch.inference_mode():
        kept = [shipped.encode(image_to_batch(picture)) for picture in pictures]
    for run, tracks in list(zip(runs, expected, strict=True))[::-1]:
        tracker = KernelTracker(shipped, *run, score_threshold=0.1)
        assert tracker.gather(tracker.advance(frame) for frame in kept) == tracks
        if run == (4, "cosine"):  # the first to be played again: its key frames alone
            assert [kept.index(frame) for frame in decoded] == [0, 4]
    assert len(expected[0].tracks) and len(decoded) == len({id(frame) for frame in decoded}) == len(
        kept
    )


def test_the_mean_of_a_track_is_over_all_key_frames_that_saw_it(shipped):
    """Clip "fast", T = 5, threshold 0.1: from what the key frames say, one by one.

    Whether the mask of a key frame was large enough to be reported is not asked, nor whether others
    follow.
    """
    tracker = KernelTracker(shipped, 5, "mask", score_threshold=0.1)
    said, slot_of = [], {}  # of every key frame (slots, classes); identity -> slot

    def results():
        for t, picture in enumerate(frames_of("fast", 99, 1)):
            result = tracker.step(picture)
            if t % 5 == 0:
                with torch.inference_mode():
                    scores = shipped(image_to_batch(picture)).scores()[0]
                said.append(scores[tracker.slots.queries])
            slots = {int(query): slot for slot, query in enumerate(tracker.slots.queries)}
            slot_of.update(
                {identity: slots[query] for identity, query in zip(result.ids, result.queries)}
            )
            yield result

    found = tracker.gather(results())
    assert {track.id for track in found.tracks} == set(slot_of) and len(found.tracks) >= 3
    for track in found.tracks:
        counted = [
            scores[slot_of[track.id]] for scores in said if scores[slot_of[track.id]].max() >= 0.1
        ]
        assert track.class_scores == pytest.approx(torch.stack(counted).mean(0).tolist(), abs=1e-5)


# ------------------------------------------------------------------------------------ what plugs in


class Colours:
    """A model of three queries, which are red, green and blue: all that a tracker asks of one."""

    config = types.SimpleNamespace(class_names=("red", "green", "blue"))

    def eval(self):
        return self

    def encode(self, image):
        features = F.avg_pool2d(image, 8) * 20 - 10  # (1, 3, h, w)
        scores = 0.9 * torch.eye(3)[None] * (features.amax((2, 3)) > 0)[:, :, None]
        out = types.SimpleNamespace(
            kernels=torch.eye(3)[None], mask_features=features, scores=lambda: scores
        )
        masks = lambda kernels: apply_kernels(kernels, features)  # noqa: E731
        return types.SimpleNamespace(size=tuple(image.shape[-2:]), out=out, masks=masks)


@pytest.mark.parametrize("association", ["cosine", "mask", plain_cosine])
def test_another_model_can_be_tracked(association):
    pictures = torch.zeros(6, 3, 64, 96)
    for t, picture in enumerate(pictures):
        picture[0, 8:40, 8 * t : 8 * t + 32] = 1.0  # red walks to the right
        if t >= 2:
            picture[2, 40:64, 64:96] = 1.0  # blue comes and stays
    found = KernelTracker(Colours(), 2, association).track(pictures)
    assert sorted(track.label for track in found.tracks) == [0, 2] and found.class_names == (
        "red",
        "green",
        "blue",
    )
    for track in found.tracks:
        seen = [t for t, code in enumerate(track.segmentations) if code]
        assert seen == list(range(0 if track.label == 0 else 2, 6))
        for t in seen:
            mask, truth = (
                rle_codec.decode(track.segmentations[t]),
                pictures[t, track.label].numpy() > 0,
            )
            assert (mask & truth).sum() / (mask | truth).sum() > 0.75
    assert sorted(entry["category_id"] for entry in found.to_ytvis(1)) == [1, 3]


@pytest.mark.parametrize("interval", [1, 3])
def test_an_association_is_given_both_key_frames(tiny, interval):
    """Slots as the last key frame left them, queries and mask feature of this one; what it says is
    what counts."""
    calls, pictures, previous = [], video(7, 64, 96), None

    def reverse(old, new, x_mask):
        calls.append((old, new, x_mask))
        return torch.eye(len(old.scores)).flip(0)

    tracker = make_tracker(tiny, interval, reverse)
    for t, picture in enumerate(pictures):
        tracker.step(picture)
        if t % interval:
            continue
        with torch.inference_mode():
            out = tiny(picture[None])
        if previous is not None:
            (old, new, x_mask), (kernels, scores, queries) = calls.pop(), previous
            assert isinstance(old, Candidates) and isinstance(new, Candidates)
            for ours, theirs in zip(old, (kernels, scores, queries), strict=True):
                torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(new.kernels, out.kernels[0])
            torch.testing.assert_close(new.scores, out.scores()[0].amax(-1))
            assert new.queries.tolist() == list(range(8))
            torch.testing.assert_close(x_mask, out.mask_features[0])
            assert tracker.assignment.tolist() == list(range(8))[::-1]
            assert torch.equal(tracker.similarity, torch.eye(8).flip(0))
        assert not calls  # once for every key frame but the first
        slots = tracker.slots
        torch.testing.assert_close(slots.kernels, out.kernels[0][slots.queries])
        torch.testing.assert_close(slots.scores, out.scores()[0].amax(-1)[slots.queries])
        previous = slots.kernels.clone(), slots.scores.clone(), slots.queries.clone()


def test_results_are_found_where_they_were():
    for name in ("FrameResult", "Track", "VideoResult"):
        assert getattr(tracking, name) is getattr(results, name)


# ---------------------------------------------------------------------------------- scripted scenes


REGIONS = 4


def region(d, height=64, width=64):
    """Channel d of X_mask is the d-th of four stripes of the frame: kernel e_d segments exactly
    that."""
    mask = np.zeros((height, width), dtype=bool)
    mask[:, d * width // 4 : (d + 1) * width // 4] = True
    return mask


class Scripted(torch.nn.Module):
    """A model that says what a script says: `script[t]` has one (region, score, class) a query, or
    None for nothing.

    The number of the frame is written into its first pixel. Kernels carry, `carry` times, a channel
    of their query that no mask shows. A region of None is a query that is sure of something and
    draws nothing.
    """

    def __init__(self, script, classes=3, carry=0.0):
        super().__init__()
        self.script, self.classes, self.decoded, self.carry = script, classes, [], carry
        names = ("a", "b", "c")
        self.config = types.SimpleNamespace(
            class_names=names, num_queries=len(script[0]), num_classes=classes
        )

    def encode(self, frames):
        height, width = frames.shape[-2:]
        x_mask = torch.full((1, REGIONS, height // 8, width // 8), -10.0)
        blank = torch.zeros(1, len(self.script[0]), height // 8, width // 8)
        for d in range(REGIONS):
            x_mask[0, d][torch.from_numpy(region(d, height // 8, width // 8))] = 10.0
        t = round(float(frames[0, 0, 0, 0]) * 1000)
        return ScriptedFrame(self, t, torch.cat([x_mask, blank], 1), (height, width))

    def decode(self, t, x_mask):
        self.decoded.append(t)
        queries = self.script[min(t, len(self.script) - 1)]
        logits = torch.full((1, len(queries), self.classes), 1e-4).logit()
        kernels = torch.full((1, len(queries), REGIONS), 0.25)  # says no everywhere: 2.5 - 3 * 2.5
        for n, query in enumerate(queries):
            if query is not None:
                d, score, label = query
                if d is not None:
                    kernels[0, n] = F.one_hot(torch.tensor(d), REGIONS).float()
                logits[0, n, label] = torch.tensor(score**2).clamp(max=1 - 1e-6).logit()
        objectness = torch.full((1, len(queries)), 30.0)
        kernels = torch.cat([kernels, self.carry * torch.eye(len(queries))[None]], -1)
        return FrameOutput(
            logits, objectness, kernels, x_mask, apply_kernels(kernels, x_mask), kernels
        )


class ScriptedFrame:
    """What a tracker needs of an encoded frame, and no more."""

    def __init__(self, model, t, x_mask, size):
        self.model, self.t, self.x_mask, self.size = model, t, x_mask, size

    @property
    def out(self):
        return self.model.decode(self.t, self.x_mask)

    def masks(self, kernels):
        return apply_kernels(kernels, self.x_mask)


def numbered(t, height=64, width=64):
    frame = torch.zeros(3, height, width)
    frame[0, 0, 0] = t / 1000
    return frame


def where(result):
    """{stripe of the frame: identity}."""
    found = {}
    for identity, mask in zip(result.ids, result.masks()):
        (d,) = (d for d in range(REGIONS) if np.array_equal(mask, region(d, *mask.shape)))
        found[d] = identity
    return found


both = pytest.mark.parametrize("association", ["cosine", "mask"])


@both
@pytest.mark.parametrize("interval", [1, 2])
def test_identities_follow_instances_that_change_their_query(association, interval):
    instances = [(0, 0.9, 0), (1, 0.8, 1), (2, 0.7, 2), (3, 0.6, 0)]
    orders = list(itertools.permutations(range(4)))[::3]
    script = [[instances[i] for i in order] for order in orders]
    tracker = make_tracker(Scripted(script), interval, association)
    results = [tracker.step(numbered(t)) for t in range(len(script))]
    assert all(where(result) == where(results[0]) and len(where(result)) == 4 for result in results)
    for t, result in enumerate(results):
        key = t - t % interval
        assert [script[key][q][0] for q in result.queries] == [
            0,
            1,
            2,
            3,
        ]  # best score first; the query is named
        assert result.labels == [0, 1, 2, 0] and result.scores == pytest.approx(
            [0.9, 0.8, 0.7, 0.6], abs=1e-3
        )


def test_kernels_that_carry_their_query_mislead_the_cosine_but_not_the_masks():
    """Why "mask" is there: two instances change places while the kernels stay much the same."""
    a, b = (0, 0.9, 0), (1, 0.8, 1)
    for association, follows in (("cosine", False), ("mask", True)):
        tracker = make_tracker(Scripted([[a, b], [b, a]], carry=5.0), 1, association)
        first, second = (where(tracker.step(numbered(t))) for t in range(2))
        assert (first == second) is follows and set(first.values()) == set(second.values())


@both
def test_only_key_frames_are_decoded(association):
    model = Scripted([[(0, 0.9, 0), None]])
    tracker = make_tracker(model, 3, association)
    for t in range(8):
        tracker.step(numbered(t))
    assert model.decoded == [0, 3, 6]


@both
def test_what_enters_is_new_and_what_comes_back_is_known(association):
    a, b, c = (0, 0.9, 0), (1, 0.8, 1), (2, 0.7, 2)
    script = [[a, None, None], [a, b, None], [a, None, None], [a, b, None], [a, b, c]]
    tracker = make_tracker(Scripted(script), 1, association)
    results = [where(tracker.step(numbered(t))) for t in range(5)]
    assert [set(result) for result in results] == [{0}, {0, 1}, {0}, {0, 1}, {0, 1, 2}]
    identity = results[-1]
    assert len(set(identity.values())) == 3
    assert all(result[d] == identity[d] for result in results for d in result)


@both
def test_an_identity_ends_after_its_longest_absence(association):
    a, b = (0, 0.9, 0), (1, 0.8, 1)
    for gone, known in ((2, True), (8, False)):
        script = [[a, b]] + [[a, None]] * gone + [[a, b]]
        tracker = make_tracker(Scripted(script), 1, association, max_absence=4)
        results = [tracker.step(numbered(t)) for t in range(len(script))]
        assert where(results[-1])[0] == where(results[0])[0]
        assert (where(results[-1])[1] == where(results[0])[1]) is known


@both
def test_an_identity_that_ended_keeps_its_mean_and_leaves_none_behind(association):
    """The next one of the same slot starts afresh."""
    script = [[(0, 0.9, 0)]] * 2 + [[None]] * 4 + [[(0, 0.6, 1)]]
    tracker = make_tracker(Scripted(script), 1, association, max_absence=2)
    found = tracker.track(numbered(t) for t in range(len(script)))
    means = {track.id: track.class_scores for track in found.tracks}
    assert set(means) == {1, 2}
    assert means[1] == pytest.approx([0.9, 0.01, 0.01], abs=2e-3)
    assert means[2] == pytest.approx([0.01, 0.6, 0.01], abs=2e-3)
    assert tracker.slots.class_scores() == {2: means[2]}  # of those that live


@both
def test_scores_are_means_over_the_key_frames_that_saw_it(association):
    script = [[(0, 0.8, 0), None], [(0, 0.6, 1), None], [None, None], [(0, 0.5, 1), None]]
    tracker = make_tracker(Scripted(script), 1, association)
    results = [tracker.step(numbered(t)) for t in range(4)]
    floor = 0.01  # a class that is not there
    means = [[0.8, floor, floor], [0.7 - 0.3 + floor / 2, 0.3 + floor / 2, floor],
             [(0.8 + 2 * floor) / 3, (1.1 + floor) / 3, floor]]  # fmt: skip
    for result, mean in zip((results[0], results[1], results[3]), means):
        assert result.scores == pytest.approx([max(mean)], abs=2e-3) and result.labels == [
            int(np.argmax(mean))
        ]
    assert results[2].ids == [] and results[2].masks().shape[0] == 0
    (track,) = tracker.track(numbered(t) for t in range(4)).tracks
    assert (
        track.class_scores == pytest.approx(means[-1], abs=2e-3) and track.segmentations[2] is None
    )


# A stripe that is seen, one that is sure of itself and draws nothing, one that is unsure; (score,
# class).
SEEN, HIDDEN, UNSURE = (0, 0.9, 0), (None, 0.5, 1), (0, 0.2, 2)


@pytest.mark.parametrize("association", ["cosine", "mask"])
@pytest.mark.parametrize(
    "script",
    [
        [HIDDEN, SEEN, SEEN],
        [SEEN, HIDDEN, SEEN],
        [SEEN, SEEN, HIDDEN],
        [HIDDEN, SEEN, HIDDEN, SEEN, UNSURE, HIDDEN],
        [UNSURE, SEEN, UNSURE],
        [SEEN, UNSURE, HIDDEN, HIDDEN],
    ],
    ids=["before", "between", "after", "all", "unsure", "at the end"],
)
def test_a_key_frame_counts_if_its_score_is_high_though_its_mask_is_not_reported(
    script, association
):
    """Before the identity is there, between the frames that report it, and after the last of
    them."""
    tracker = make_tracker(Scripted([[query] for query in script]), 1, association)
    (track,) = tracker.track(numbered(t) for t in range(len(script))).tracks
    reported = [t for t, query in enumerate(script) if query is SEEN]
    assert [t for t, code in enumerate(track.segmentations) if code] == reported
    counted = [query for query in script if query[1] >= 0.3]
    mean = [
        sum(score if label == k else 0.01 for _, score, label in counted) / len(counted)
        for k in range(3)
    ]
    assert track.class_scores == pytest.approx(mean, abs=2e-3)


def test_thresholds():
    script = [[(0, 0.65, 0), (1, 0.35, 1)]]
    for threshold, expected in ((0.5, {0}), (0.3, {0, 1}), (0.7, set())):
        assert (
            set(where(make_tracker(Scripted(script), score_threshold=threshold).step(numbered(0))))
            == expected
        )
    for area, count in ((64 * 16, 2), (64 * 16 + 1, 0)):
        assert len(make_tracker(Scripted(script), min_area=area).step(numbered(0)).ids) == count
    # a pixel needs its probability: edges between -10 and 10 move inwards
    strict = make_tracker(Scripted(script), mask_threshold=0.999).step(numbered(0)).masks()
    assert all(0 < mask.sum() < 64 * 16 for mask in strict)


@both
def test_a_change_of_resolution_makes_a_key_frame_and_keeps_identities(association):
    model = Scripted([[(0, 0.9, 0), (3, 0.8, 1)]])
    tracker = make_tracker(model, 4, association)
    sizes = [(64, 64)] * 2 + [(128, 96)] * 2 + [(64, 64)]
    results = [tracker.step(numbered(t, *size)) for t, size in enumerate(sizes)]
    assert [r.is_key for r in results] == [True, False, True, False, True]
    assert all(r.ids == results[0].ids for r in results)
    assert [r.masks().shape[1:] for r in results] == sizes
    with pytest.raises(ValueError, match="video 7.*sizes"):
        tracker.track(numbered(t, *size) for t, size in enumerate(sizes)).to_ytvis(7)


def state(tracker):
    """Everything that a tracker holds, its model aside, down to numbers."""

    def flat(thing):
        if isinstance(thing, torch.Tensor | np.ndarray):
            return [type(thing).__name__, *np.asarray(thing).flatten().tolist()]
        if isinstance(thing, dict):
            return [x for key, value in thing.items() for x in (str(key), *flat(value))]
        if isinstance(thing, list | tuple | set):
            return [x for value in thing for x in flat(value)]
        if hasattr(thing, "__dict__"):
            return flat(vars(thing))
        return [thing]

    return flat({name: value for name, value in vars(tracker).items() if name != "model"})


@both
def test_the_state_does_not_grow(association):
    """An unending stream in which some instance enters or leaves at nearly every frame."""
    rng = np.random.default_rng(0)
    script = [
        [(d, 0.8, 0) if rng.random() < 0.5 else None for d in rng.permutation(REGIONS)]
        for _ in range(600)
    ]
    tracker = make_tracker(Scripted(script), 2, association, max_absence=1)
    sizes = []
    for t in range(600):
        tracker.step(numbered(t))
        sizes.append(len(state(tracker)))
    assert sizes[49] == sizes[-1] and tracker.frame == 600


BAD_FRAMES = {
    "nan": torch.full((3, 64, 64), float("nan")),
    "infinite": torch.full((3, 64, 64), float("inf")),
    "batch": torch.zeros(1, 3, 64, 64),
    "grey": torch.zeros(64, 64),
    "channels": torch.zeros(4, 64, 64),
    "small": torch.zeros(3, 63, 80),
    "0..255 as floats": torch.full((3, 64, 64), 200.0),
    "whole numbers": np.zeros((64, 64, 3), dtype=np.int64),
    "a path": "film.mp4",
    "nothing": None,
}


@pytest.mark.parametrize("bad", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_bad_frame_is_refused_by_number_and_leaves_no_trace(tiny, bad):
    frames, tracker, clean = video(4), make_tracker(tiny, 2), make_tracker(tiny, 2)
    for frame in frames[:3]:
        tracker.step(frame), clean.step(frame)
    before = state(tracker)
    with pytest.raises(ValueError, match="frame 3"):
        tracker.step(bad)
    assert state(tracker) == before
    assert same(tracker.step(frames[3]), clean.step(frames[3]))


def test_a_black_first_frame_is_a_frame(tiny):
    tracker = make_tracker(tiny)
    result = tracker.step(torch.zeros(3, 64, 64))
    assert result.is_key and len(result.ids) == len(result.masks())
    nothing = Scripted([[None, None], [(0, 0.9, 0), None]])
    tracker = make_tracker(nothing, 1)
    first, second = (tracker.step(numbered(t)) for t in range(2))
    assert first.ids == [] and first.segmentations == [] and len(first.masks()) == 0
    assert where(second) == {0: 1}


def test_reset_forgets(tiny):
    frames, tracker = video(5), make_tracker(tiny, 3, "mask")
    first = [tracker.step(frame) for frame in frames]
    tracker.reset()
    assert state(tracker) == state(make_tracker(tiny, 3, "mask"))
    assert all(same(a, tracker.step(frame)) for a, frame in zip(first, frames))


def test_the_similarity_is_kept_for_those_who_look():
    tracker = make_tracker(
        Scripted([[(0, 0.9, 0), (1, 0.8, 1)], [(1, 0.8, 1), (0, 0.9, 0)]]), 1, "cosine"
    )
    tracker.step(numbered(0))
    assert tracker.similarity is None
    tracker.step(numbered(1))
    assert tracker.assignment.tolist() == [1, 0]
    expected = torch.tensor(
        [[0.0, 0.9 * 0.9], [0.8 * 0.8, 0.0]]
    )  # cosine 1 or 0, times both scores
    torch.testing.assert_close(tracker.similarity, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"reuse_interval": 0}, "reuse_interval is 0"),
        ({"reuse_interval": 1.5}, "reuse_interval is 1.5"),
        ({"association": "iou"}, "'iou'; choose"),
        ({"score_threshold": 1.2}, "thresholds 1.2"),
        ({"mask_threshold": 0.0}, "thresholds"),
    ],
)
def test_bad_arguments_are_refused(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelTracker(tiny, **arguments)


def test_an_empty_video_is_refused(tiny):
    with pytest.raises(ValueError, match="no frames"):
        make_tracker(tiny).track([])


# ------------------------------------------------------------------------------------------ results


def annotations(script, frames):
    """Ground truth of a scripted scene whose instances are told by their stripe of the frame."""
    tracks = []
    for d in sorted({query[0] for queries in script for query in queries if query}):
        seen = [next((q for q in queries if q and q[0] == d), None) for queries in script]
        rle = rle_codec.encode(np.asfortranarray(region(d), dtype=np.uint8))
        rle = {"size": rle["size"], "counts": rle["counts"].decode()}
        label = next(q for q in seen if q)[2]
        tracks.append({"id": d + 1, "video_id": 7, "category_id": 10 * label, "iscrowd": 0,
                       "segmentations": [rle if q else None for q in seen],
                       "areas": [1024 if q else None for q in seen],
                       "bboxes": [[16 * d, 0, 16, 64] if q else None for q in seen]})  # fmt: skip
    names = [str(t) for t in range(frames)]
    return {"videos": [{"id": 7, "width": 64, "height": 64, "length": frames, "file_names": names}],
            "categories": [{"id": 10 * k, "name": name} for k, name in enumerate("abc")],
            "annotations": tracks}  # fmt: skip


@both
def test_results_are_what_the_evaluation_reads(association):
    a, b, c = (0, 0.9, 0), (1, 0.8, 1), (3, 0.7, 1)
    script = [[a, c, b], [b, a, c], [c, b, a], [c, None, b]]
    found = make_tracker(Scripted(script), 1, association).track(numbered(t) for t in range(4))
    results = found.to_ytvis(7, category_ids=[0, 10, 20])
    figures = evaluate_ytvis(annotations(script, 4), results)
    assert figures["AP"] == pytest.approx(1.0) or figures["AP"] == pytest.approx(100.0)
    assert {r["video_id"] for r in results} == {7} and all(
        len(r["segmentations"]) == 4 for r in results
    )
    assert {r["category_id"] for r in found.to_ytvis(7)} <= {1, 2, 3}
    assert (
        len(found.to_ytvis(7, min_score=0.0)) == 3 * len(found.tracks)
        and found.to_ytvis(7, min_score=1.0) == []
    )


def test_nothing_found_is_an_empty_result():
    found = make_tracker(Scripted([[None, None]])).track(numbered(t) for t in range(3))
    assert found.tracks == [] and found.num_frames == 3 and found.to_ytvis(1) == []
