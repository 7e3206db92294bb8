"""Batches of frames of many sizes: padding, crowds, epochs, and that a batch does not depend on how
it is cut."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minst.data.batches import ClipBatches, FolderClips, stack
from minst.data.coco import COCO
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.data.transforms import frame_instances, resize_masks
from minst.data.ytvis import ClipFrame, YouTubeVIS
from minst.recipes import recipe
from minst.training import TrainConfig, training_losses


class Clips:
    """Clips whose size, length and number of instances differ; the last instance of each is a
    crowd."""

    def __init__(self, sizes, length=3):
        self.sizes, self.length = sizes, length

    def __call__(self, index):
        height, width = self.sizes[index % len(self.sizes)]
        count, length = 2 + index % 2, self.length

        class Clip:
            labels = np.arange(count)
            crowd = np.arange(count) == count - 1

            def __len__(self):
                return length

            def render(self, t):
                rng = np.random.default_rng([index, t])
                masks = np.zeros((count, height, width), bool)
                for mask in masks:
                    y, x = rng.integers(0, height - 24), rng.integers(0, width - 24)
                    mask[y : y + 24, x : x + 24] = True
                return ClipFrame(rng.integers(1, 256, (height, width, 3), dtype=np.uint8), masks)

        return Clip()


def config(**changes) -> TrainConfig:
    small = {
        "pairs": 4,
        "iterations": 6,
        "short_min": 64,
        "short_max": 128,
        "long_max": 192,
        "image_share": 0.5,
    }
    return TrainConfig(**{**small, "jitter_probability": 0.0, "device": "cpu", **changes})


SIZES = [(80, 120), (120, 80), (64, 64), (100, 300)]


@pytest.mark.parametrize("processes, accumulate", [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_the_samples_do_not_depend_on_how_a_batch_is_cut(processes, accumulate):
    """Frame by frame without its padding, and instance by instance."""

    def samples(processes, accumulate):
        found = []
        for rank in range(processes):
            batches = ClipBatches(config(accumulate=accumulate), Clips(SIZES), rank, processes)
            for item in range(len(batches)):
                batch = batches[item]
                for i, target in enumerate(batch.instances):
                    inside = slice(None) if batch.padding is None else ~batch.padding[i]
                    values = (
                        batch.frames[i][:, inside].sum().item(),
                        target.masks.sum().item(),
                        *target.labels.tolist(),
                    )
                    found.append((item // accumulate, batch.is_pairs, values))
        return sorted(found)

    assert samples(processes, accumulate) == samples(1, 1)


def test_frames_of_many_sizes_are_padded():
    batches = ClipBatches(config(), Clips(SIZES))
    for item in range(len(batches)):
        frames, instances, is_pairs, padding = batches[item]
        assert frames.shape == (8, 3, *padding.shape[1:]) and len(instances) == 8
        outside = padding[:, None].expand_as(frames)
        assert (
            not frames[outside].any() and frames[~outside].min() >= 1
        )  # zeros beyond a frame, and there alone
        for i, target in enumerate(instances):
            rows, columns = (~padding[i]).any(1), (~padding[i]).any(0)
            height, width = int(rows.sum()), int(columns.sum())
            assert (
                rows[:height].all()
                and columns[:width].all()
                and (~padding[i]).sum() == height * width
            )
            assert 64 <= min(height, width) <= 128 or max(height, width) == 192
            cells = [
                -(-side // 8) * 4 for side in frames.shape[2:]
            ]  # of 2 pixels, in whole cells of 8
            assert list(target.masks.shape[1:]) == cells
            assert (
                not target.masks[:, -(-height // 2) :].any()
                and not target.masks[:, :, -(-width // 2) :].any()
            )
            assert len(target.labels) <= 2 and 2 not in target.labels  # the crowd teaches nothing
        if is_pairs:  # both frames of a pair have one size
            assert torch.equal(padding[:4], padding[4:])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(30, 130), st.integers(30, 130)), min_size=1, max_size=4),
       st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**31))  # fmt: skip
def test_stacked_masks_are_those_of_a_frame_padded_at_full_size(sizes, stride, seed):
    rng = np.random.default_rng(seed)
    samples, full = [], []
    for height, width in sizes:
        masks = torch.from_numpy(rng.random((2, height, width)) > 0.5)
        samples.append(
            (
                torch.ones(1, 3, height, width, dtype=torch.uint8),
                [frame_instances(masks, torch.tensor([4, 1]), stride)],
            )
        )
        full.append(masks)
    batch = stack(samples, is_pairs=False, stride=stride)
    height, width = batch.frames.shape[2:]
    for masks, target in zip(full, batch.instances):
        more = (0, width - masks.shape[2], 0, height - masks.shape[1])
        torch.testing.assert_close(
            target.masks, resize_masks(torch.nn.functional.pad(masks, more), stride)
        )


def test_an_image_that_is_long_and_thin():
    """At most 192 long leaves it 13 high: the batch is as high as the network needs."""
    batch = ClipBatches(config(pairs=1, train_on="images"), Clips([(30, 450)]))[0]
    assert batch.frames.shape[2:] == (64, 192) and batch.padding[:, 20:].all()


def test_a_clip_of_one_frame_is_its_own_pair():
    batch = ClipBatches(config(pairs=1, image_share=0.0), Clips([(80, 120)], length=1))[0]
    assert batch.is_pairs and torch.equal(batch.frames[0], batch.frames[1])


def test_padding_changes_no_loss(make_model):
    """A batch of one size, and the same frames and masks with a margin that the padding mask
    declares."""
    model, c = make_model(), config(token_weight=0.0)
    batch = ClipBatches(
        config(pairs=1, image_share=0.0, short_min=64, short_max=64), Clips([(64, 128)])
    )[0]
    batch = batch._replace(frames=batch.frames.float() / 255)
    wide = torch.nn.functional.pad(batch.frames, (0, 64))
    instances = [
        t._replace(masks=torch.nn.functional.pad(t.masks, (0, 32))) for t in batch.instances
    ]
    padding = torch.zeros(2, 64, 192, dtype=torch.bool)
    padding[:, :, 128:] = True
    plain, padded = (
        training_losses(model, b, c)
        for b in (batch, batch._replace(frames=wide, instances=instances, padding=padding))
    )
    assert set(plain) == set(padded)
    # convolutions look a few pixels beyond the frame's edge, where padding is zero both times
    for name in ("cls", "dice"):
        assert padded[name].item() == pytest.approx(plain[name].item(), rel=0.2), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = write_shapes_dataset(
        tmp_path_factory.mktemp("d") / "vis", 5, ShapesConfig(width=96, height=80, frames=3)
    )
    file = json.loads(path.read_text())
    file["annotations"] = [a for a in file["annotations"] if a["video_id"] != 3]
    path.write_text(json.dumps(file))
    return path.parent


def test_every_epoch_sees_every_annotated_clip_once(folder):
    clips = FolderClips(YouTubeVIS(folder), seed=1)
    names = [clips(i).name for i in range(12)]
    epochs = [names[i : i + 4] for i in (0, 4, 8)]
    assert all(sorted(epoch) == ["00000", "00001", "00003", "00004"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again = FolderClips(YouTubeVIS(folder), seed=1)
    assert [again(i).name for i in (11, 0, 5)] == [names[i] for i in (11, 0, 5)]  # in any order
    assert [FolderClips(YouTubeVIS(folder), seed=2)(i).name for i in range(12)] != names


@pytest.mark.parametrize("image_share, per_step", [(0.0, 4), (1.0, 8), (0.5, 8)])
def test_a_step_takes_the_next_clips(image_share, per_step):
    asked = []
    clips = Clips([(64, 64)])
    batches = ClipBatches(config(image_share=image_share), lambda i: (asked.append(i), clips(i))[1])
    for item in (0, 1, 2):
        asked.clear()
        batch = batches[item]
        assert asked == list(range(item * per_step, item * per_step + (4 if batch.is_pairs else 8)))


def test_shares_that_do_not_come_out_even_are_refused():
    with pytest.raises(
        ValueError, match="2 processes of 4 parts each cannot share 4 pairs evenly; change --pairs"
    ):
        ClipBatches(config(accumulate=4), Clips(SIZES), 0, 2)


def test_images_and_videos_in_one_form(tmp_path):
    write_shapes_dataset(
        tmp_path / "coco", 2, ShapesConfig(width=96, height=80, frames=3), images=True
    )
    clips = FolderClips(COCO(tmp_path / "coco"))
    batch = ClipBatches(
        recipe("coco", data="d", pairs=1, short_min=64, short_max=64, long_max=96), clips
    )[0]
    assert (
        not batch.is_pairs
        and batch.frames.shape[0] == 2
        and all(len(t.labels) for t in batch.instances)
    )
