import numpy as np
import pytest
import torch

from minst.data.shapes import ShapesConfig, shapes_clip
from minst.model import MobileInst, image_to_batch
from minst.samples import load_sample
from minst.tracking import KernelTracker
from minst.visualize.recording import Recording, Settings, read_frames
from minst.weights import trained_side

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))


@pytest.fixture(scope="module")
def shipped() -> MobileInst:
    return MobileInst.from_pretrained("shapes-tiny").fuse()


@pytest.fixture(scope="module")
def recording(shipped) -> Recording:
    return Recording(shipped, read_frames(load_sample("occlusion")))


def numbered(count: int):
    for t in range(count):
        yield np.full((64, 80, 3), t % 256, np.uint8)


@pytest.mark.parametrize(
    "total, limit", [(1, 4), (4, 4), (5, 4), (8, 4), (9, 4), (2000, 64), (7, 1)]
)
def test_a_long_video_is_thinned_evenly_from_its_first_frame(total, limit):
    frames = read_frames(numbered(total), limit)
    assert frames.total == total and frames.truth is None
    step = 1 if len(frames.times) < 2 else frames.times[1]
    assert list(frames.times) == list(range(0, total, step if len(frames.times) > 1 else total))
    assert [int(image[0, 0, 0]) for image in frames.images] == [t % 256 for t in frames.times]
    assert len(frames.images) <= limit and (step == 1 or 2 * len(frames.images) >= limit)


def test_reading_never_holds_more_than_it_may():
    alive, most = 0, 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None or isinstance(self.base, bytearray)

    def video():
        nonlocal alive, most
        for _ in range(300):
            frame = np.ndarray.__new__(Frame, (64, 64, 3), np.uint8, bytearray(64 * 64 * 3))
            alive += 1
            most = max(most, alive)
            yield frame

    read_frames(video(), 10)
    assert most <= 13


def test_large_frames_and_their_annotations_shrink_together():
    big = shapes_clip("val", 3, ShapesConfig(width=512, height=384, frames=2))
    frames = read_frames(big, max_side=128)
    assert frames.images[0].shape == (96, 128, 3) and frames.truth[0].shape == (
        len(big.labels),
        96,
        128,
    )
    for full, small in zip(big.render(1).masks, frames.truth[1]):
        assert small.sum() == pytest.approx(full.sum() / 16, rel=0.1, abs=6)
    assert read_frames(CLIP).images[0].shape == (96, 128, 3)  # small ones stay


def test_a_clip_is_read_at_the_size_at_which_it_would_be_tracked():
    big = shapes_clip("val", 3, ShapesConfig(width=1280, height=960, frames=2))
    shots = read_frames(big, shorter_side=480, frames=range(9))
    assert [image.shape for image in shots.images] == [(480, 640, 3)] * 2
    assert shots.truth[1].shape == (len(big.labels), 480, 640) and shots.total == 2
    shipped = MobileInst.from_pretrained("shapes-tiny")  # trained on frames of 256 x 192
    assert trained_side(shipped.fuse()) == 192
    assert read_frames(big, shorter_side=trained_side(shipped)).images[1].shape == (192, 256, 3)
    small = read_frames(CLIP, shorter_side=480)
    assert (small.images[0] == CLIP.render(0).image).all()  # small ones stay


def test_videos_that_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        read_frames([])
    with pytest.raises(ValueError, match="at least"):
        read_frames(numbered(2), 0)
    with pytest.raises(ValueError, match="frame 0.*64 x 64"):
        Recording(
            MobileInst.from_pretrained("shapes-tiny"),
            read_frames([np.zeros((40, 80, 3), np.uint8)]),
        )


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(1, "cosine", 0.3, 0.4), Settings(7, "mask", 0.7, 0.6)]
)
def test_a_replay_is_what_a_tracker_says_of_the_video(shipped, recording, settings):
    tracker = KernelTracker(shipped, *settings)
    expected = [tracker.step(image) for image in load_sample("occlusion")]
    replay = recording.replay(settings)
    assert replay.frames == expected
    assert replay.keys == [t - t % settings.reuse_interval for t in range(30)]
    result = KernelTracker(shipped, *settings).track(load_sample("occlusion"))
    assert {t.id: t.segmentations for t in replay.result.tracks} == {
        t.id: t.segmentations for t in result.tracks
    }


def test_a_replay_does_not_run_the_network(recording, monkeypatch):
    monkeypatch.setattr(recording.model, "encode", None)
    monkeypatch.setattr(recording.model, "decode", None)
    assert recording.replay(Settings(2)).frames


def test_a_recording_keeps_no_masks_of_all_queries_and_decodes_once(shipped, monkeypatch):
    decode, asked = type(shipped).decode, []
    monkeypatch.setattr(type(shipped), "decode", lambda *args: asked.append(args) or decode(*args))
    recording = Recording(shipped, read_frames(CLIP))
    assert len(asked) == len(recording.frames) == 6
    for frame, image in zip(recording.frames, recording.images):
        assert frame.out.mask_logits is None and frame.forget_masks() is frame
        with torch.inference_mode():
            out = shipped(image_to_batch(image))
        torch.testing.assert_close(frame.out.kernels, out.kernels)
        torch.testing.assert_close(frame.masks(out.kernels), out.mask_logits)
    assert len(asked) == 2 * 6  # by this test's own calls alone


def test_soft_masks_are_those_that_the_tracker_cuts(recording):
    replay = recording.replay(Settings(3))
    for t in (0, 4, 5):
        frame = replay.frames[t]
        for query, mask in zip(frame.queries, frame.masks()):
            np.testing.assert_array_equal(
                recording.soft_mask(query, replay.keys[t], t) >= 0.5, mask
            )


def test_similarity_is_the_cosine_to_every_kernel(recording):
    own, every = recording.similarity(5, 2)
    kernel = recording.kernels[2, 5]
    for t, query in ((0, 5), (2, 5), (7, 3)):
        expected = float(torch.cosine_similarity(kernel, recording.kernels[t, query], dim=0))
        assert every[t, query] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_array_equal(own, every[:, 5])
    assert own[2] == pytest.approx(1, abs=1e-5) and every.shape == (30, 20)


def test_handovers_are_changes_of_the_query_behind_an_identity(recording):
    replay = recording.replay(Settings(3))
    assert replay.handovers  # this clip has some
    for t, identity, old, new in replay.handovers:
        frame = replay.frames[t]
        assert frame.is_key and frame.queries[frame.ids.index(identity)] == new != old
        before = [f for f in replay.frames[:t] if identity in f.ids][-1]
        assert before.queries[before.ids.index(identity)] == old
    for query in range(20):
        served = replay.serves(query)
        assert all((query in f.queries) == bool(i) for f, i in zip(replay.frames, served))


def test_a_point_gives_the_query_of_the_best_mask_there(recording):
    replay = recording.replay(Settings())
    frame = replay.frames[0]
    for query, mask in zip(frame.queries, frame.masks()):
        alone = mask & (frame.masks().sum(0) == 1)
        y, x = np.argwhere(alone)[len(np.argwhere(alone)) // 2]
        assert replay.query_at(0, (x + 0.5) / 256, (y + 0.5) / 192) == query
    y, x = np.argwhere(~frame.masks().any(0))[0]
    assert replay.query_at(0, (x + 0.5) / 256, (y + 0.5) / 192) is None
    assert replay.query_at(0, 1.0, 1.0) in (None, *frame.queries)  # the very edge is inside


def test_a_clip_without_objects_has_no_tracks_and_still_a_query(shipped):
    recording = Recording(shipped, read_frames([np.full((96, 128, 3), 200, np.uint8)] * 3))
    replay = recording.replay(Settings(score_threshold=0.95))
    assert (
        not replay.result.tracks
        and replay.identity is None
        and replay.query_at(0, 0.5, 0.5) is None
    )
    assert replay.best_query(recording) == int(recording.scores.amax(0).argmax())


def test_with_annotations_a_replay_knows_its_swaps(recording):
    replay = recording.replay(Settings(3))
    assert replay.identity.covers.shape == (30, len(replay.result.tracks))
    assert [t.id for t in replay.result.tracks] == replay.identity.ids.tolist()


def test_frames_are_chosen_by_number_or_by_a_range():
    video = list(numbered(9))
    for chosen in ([0, 3, 8], [5], range(1, 9, 3)):
        shots = read_frames(video, frames=chosen)
        assert list(shots.times) == list(chosen) and [int(image[0, 0, 0]) for image in shots.images] == list(chosen)
    assert list(read_frames(video, frames=range(0, 100, 4)).times) == [0, 4, 8]  # a range ends with the video
    assert list(read_frames(video, 3).times) == [0, 4, 8]
    clip = read_frames(CLIP, frames=[2, 4])
    assert (clip.truth[1] == CLIP.render(4).masks).all()
    with pytest.raises(ValueError, match="no frame 9: the video has 9, from 0 on"):
        read_frames(video, frames=[2, 9])
    for wrong in ([], [-1, 2]):
        with pytest.raises(ValueError, match="frames are .*at least one, from 0 on"):
            read_frames(video, frames=wrong)
    with pytest.raises(ValueError, match="no frames"):
        read_frames([], frames=[3])
