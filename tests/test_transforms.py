"""Augmentation: the two frames of a pair and their masks move as one; ids stay with their
instances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minst.data.transforms import augmentation, frame_instances, resize_masks, transform_clip


def scene(height=72, width=96, times=2):
    """White rectangles on black, and a mask of each; the same in all frames."""
    masks = torch.zeros(times, 3, height, width, dtype=torch.bool)
    masks[:, 0, 8:40, 10:40] = True
    masks[:, 1, 30:60, 50:90] = True
    frames = masks.any(1)[:, None].expand(-1, 3, -1, -1).to(torch.uint8) * 255
    return frames.contiguous(), masks


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    height=st.sampled_from([64, 80, 100]),
    width=st.sampled_from([64, 96]),
)
def test_masks_follow_the_image_and_frames_each_other(seed, height, width):
    torch.manual_seed(seed)
    frames, masks = transform_clip(
        augmentation((height, width), min_scale=0.4, jitter=0.0), *scene()
    )
    assert frames.shape == (2, 3, height, width) and frames.dtype == torch.uint8
    assert masks.shape == (2, 3, height, width) and masks.dtype == torch.bool
    assert type(frames) is type(masks) is torch.Tensor
    assert torch.equal(frames[0], frames[1]) and torch.equal(masks[0], masks[1])
    bright, covered = frames[0, 0] >= 128, masks[0].any(0)
    assert (bright ^ covered).float().mean() < 0.05  # edges: masks are rounded, by half a pixel
    assert not masks[:, 2].any()  # an instance that is not there does not appear


def test_draws_differ_from_clip_to_clip_and_repeat_with_the_seed():
    def draw(seed):
        torch.manual_seed(seed)
        return transform_clip(augmentation((64, 64)), *scene())[1]

    assert torch.equal(draw(1), draw(1))
    assert sum(torch.equal(draw(1), draw(seed)) for seed in range(2, 8)) == 0


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_to_the_other_side(flip):
    frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    frames[..., :32] = 200  # bright on the left
    masks = frames[:, :1] > 0
    for seed in range(5):
        torch.manual_seed(seed)
        image, mask = transform_clip(
            augmentation((64, 64), min_scale=0.9, flip=flip, jitter=0.0), frames, masks
        )
        left, right = image[..., :20].float().mean(), image[..., -20:].float().mean()
        assert bool(left > right) is (flip == 0.0) and bool(mask[0, 0, 32, 10]) is (flip == 0.0)


def test_colours_change_in_the_image_alone_and_alike_in_both_frames():
    frames, masks = torch.full((2, 3, 64, 64), 120, dtype=torch.uint8), scene(64, 64)[1]
    torch.manual_seed(0)
    plain = transform_clip(augmentation((64, 64), jitter=0.0), frames, masks)
    torch.manual_seed(0)
    colored = transform_clip(augmentation((64, 64), jitter=1.0), frames, masks)
    assert torch.equal(plain[1], colored[1])
    assert not torch.equal(plain[0], colored[0]) and torch.equal(colored[0][0], colored[0][1])


def test_crops_keep_at_least_the_stated_share():
    """A ramp over the frame shows how much of its width and height a crop has kept."""
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    frames = torch.stack([rows, columns, rows])[None].to(torch.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        image, _ = transform_clip(
            augmentation((100, 100), min_scale=0.6, jitter=0.0), frames, frames[:, :1] > 300
        )
        kept = [(image[0, c].float().amax() - image[0, c].float().amin() + 2) / 200 for c in (0, 1)]
        assert kept[0] * kept[1] >= 0.57


def test_a_clip_without_instances():
    frames, masks = transform_clip(
        augmentation((64, 80)), scene()[0], torch.zeros(2, 0, 72, 96, dtype=torch.bool)
    )
    assert frames.shape == (2, 3, 64, 80) and masks.shape == (2, 0, 64, 80)
    nothing = frame_instances(masks[0], torch.zeros(0, dtype=torch.long))
    assert [tuple(x.shape) for x in nothing] == [(0,), (0, 32, 40), (0,)]  # 64 x 80, at one half


def test_instances_of_a_frame_keep_label_and_id():
    masks = torch.zeros(4, 70, 66, dtype=torch.bool)
    masks[0, :4, :3] = True  # 12 pixels: just enough
    masks[1, :11, 0] = True  # 11: too few
    masks[3, 8:48, 8:56] = True
    labels, soft, ids = frame_instances(masks, torch.tensor([7, 6, 5, 4]))
    assert labels.tolist() == [7, 4] and ids.tolist() == [0, 3]
    assert (
        soft.shape == (2, 36, 36) and soft.dtype == torch.float32
    )  # 72 x 72: whole cells of 8 pixels
    assert torch.equal(soft[1, 4:24, 4:28], torch.ones(20, 24)) and soft[1].sum() == 20 * 24


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_targets_hold_what_the_frame_shows(stride):
    """At any stride as many pixels, and those instances that are seen, whatever the size of a
    cell."""
    masks = torch.rand(3, 70, 66) > 0.6
    masks[1] = False
    found = frame_instances(masks, torch.tensor([7, 6, 5]), stride)
    assert found.labels.tolist() == [7, 5] and found.masks.shape == (2, 72 // stride, 72 // stride)
    torch.testing.assert_close(
        found.masks.sum((1, 2)) * stride**2, masks[[0, 2]].sum((1, 2)).float()
    )
    assert torch.equal(found.masks, resize_masks(masks[[0, 2]], stride))
