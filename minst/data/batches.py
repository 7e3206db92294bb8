"""Training batches from clips: which of their frames, augmented, stacked and padded.

    a folder, YouTube-VIS or COCO  --FolderClips-->     clip(index), every epoch in another order
    moving shapes on the fly       --ShapesTraining-->  clip(index), never one twice
    clip(index) -> labels (G,), render(t)
      --sample--> 1 or 2 frames, augmented alike  --stack-->  Batch

Sample number p of batch i is a function of (seed, i, p) alone. So is a batch then, whoever makes
it, however many processes share it and in however many parts it is computed.

Assumption: delta, the distance of the frames of a pair, is drawn uniformly from 1..max_gap, and
    half of the pairs are played backwards.
Assumption: crowd regions and instances with fewer than 12 visible pixels teach nothing; an image
    without any annotation is left out (one whose instances a crop has removed is not).

Lesson: notebooks/06_temporal_training.ipynb
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from minst.config import MASK_STRIDE
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.data.transforms import augmentation, frame_instances, multi_scale, transform_clip
from minst.matcher import Instances
from minst.recipes import TrainConfig

__all__ = ["Batch", "ClipBatches", "FolderClips", "ShapesTraining", "pad_batch"]

SMALLEST = 64  # the network takes nothing smaller
Sample = tuple[Tensor, list[Instances]]  # frames (L, 3, H, W), and the instances of each


class Batch(NamedTuple):
    """What one forward pass sees. With pairs every second half is t+delta of the first."""

    frames: Tensor  # (F, 3, H, W) uint8
    instances: list[Instances]  # F of them, masks at 1/target_stride
    is_pairs: bool
    # (F, H, W) bool, True beyond a frame that is smaller than the batch; None = nowhere
    padding: Tensor | None


class ClipBatches(Dataset):
    """The share of process `rank` of `processes`: item i * accumulate + a is part `a` of batch `i`.

    `clip(index)` returns an object with `labels` (G,), perhaps `crowd` (G,) bool, `len()` and
    `render(t)` with `.image` (H, W, 3) uint8 and `.masks` (G, H, W) bool.
    """

    def __init__(self, config: TrainConfig, clip: Callable, rank: int = 0, processes: int = 1):
        self.config, self.clip, self.rank, self.processes = config, clip, rank, processes
        if config.pairs % (processes * config.accumulate):
            parts = f"{processes} processes of {config.accumulate} parts each"
            what = f"cannot share {config.pairs} pairs evenly; change --pairs"
            raise ValueError(f"training: {parts} {what}")

    def __len__(self) -> int:
        return self.config.iterations * self.config.accumulate

    def __getitem__(self, item: int) -> Batch:
        c = self.config
        iteration, part = divmod(item, c.accumulate)
        draw = np.random.default_rng([c.seed, iteration]).random()
        is_pairs = c.train_on == "pairs" and draw >= c.image_share
        frames_each = 2 if is_pairs else 1
        share = 2 * c.pairs // frames_each // (self.processes * c.accumulate)
        first = (part * self.processes + self.rank) * share
        transform = self._transform()
        samples = [self._sample(iteration, first + i, frames_each, transform) for i in range(share)]
        return stack(samples, is_pairs, c.target_stride)

    def _transform(self):
        c = self.config
        if c.short_max:
            sides = range(c.short_min, c.short_max + 1, 32)
            return multi_scale(sides, c.long_max, c.jitter_probability)
        return augmentation((c.height, c.width), c.min_scale, jitter=c.jitter_probability)

    def _first_index(self, iteration: int) -> int:
        """The clip of the first sample of a batch, such that no two batches share a clip.

        A batch of pairs needs `pairs` clips, one of images twice as many. Where both occur each has
        room for both.
        """
        c = self.config
        only_pairs = c.train_on == "pairs" and not c.image_share
        return iteration * (c.pairs if only_pairs else 2 * c.pairs)

    def _sample(self, iteration: int, position: int, frames_each: int, transform) -> Sample:
        """One or two frames (L, 3, H, W) of a clip, augmented alike, and their instances."""
        c = self.config
        # position + 1: numpy takes [a, b] and [a, b, 0] for the same
        rng = np.random.default_rng([c.seed, iteration, position + 1])
        torch.manual_seed(int(rng.integers(2**62)))  # what the augmentation draws from
        clip = self.clip(self._first_index(iteration) + position)
        farthest = min(c.max_gap, len(clip) - 1) if frames_each == 2 else 0
        gap = int(rng.integers(1, farthest + 1)) if farthest else 0
        t = int(rng.integers(len(clip) - gap))
        times = [t, t + gap][:frames_each]
        if rng.random() < 0.5:
            times.reverse()
        rendered = [clip.render(time) for time in times]
        kept = ~np.asarray(getattr(clip, "crowd", np.zeros(len(clip.labels))), dtype=bool)
        frames = torch.stack([torch.from_numpy(r.image).permute(2, 0, 1) for r in rendered])
        masks = torch.stack([torch.from_numpy(r.masks[kept]) for r in rendered])
        frames, masks = transform_clip(transform, frames, masks)
        labels = torch.as_tensor(clip.labels[kept], dtype=torch.long)
        return frames, [frame_instances(m, labels, c.target_stride) for m in masks]


def stack(samples: list[Sample], is_pairs: bool, stride: int) -> Batch:
    """First all frames t, then all frames t+delta; smaller ones get zeros right and below."""
    order = [(sample, k) for k in range(2 if is_pairs else 1) for sample in samples]
    batch, padding = pad_batch([frames[k] for (frames, _), k in order], SMALLEST)
    # cells of the targets that lie in the padding are empty
    high, wide = (-(-side // MASK_STRIDE) * MASK_STRIDE // stride for side in batch.shape[-2:])
    instances = []
    for (_, found), k in order:
        masks = found[k].masks
        more = (0, wide - masks.shape[2], 0, high - masks.shape[1])
        instances.append(found[k]._replace(masks=F.pad(masks, more)))
    return Batch(batch, instances, is_pairs, padding)


def pad_batch(frames: Sequence[Tensor], smallest: int = 0) -> tuple[Tensor, Tensor | None]:
    """Frames (3, H_i, W_i) of any sizes -> one batch (B, 3, H, W) and its padding mask (B, H, W).

    The mask is True where there is no frame; None when that is nowhere, so that such a batch is
    computed as without padding. smallest: H and W are at least this.
    """
    H, W = (max(smallest, *(frame.shape[d] for frame in frames)) for d in (-2, -1))
    if all(frame.shape[-2:] == (H, W) for frame in frames):
        return torch.stack(list(frames)), None
    # everything is padding until a frame is laid over it
    batch = frames[0].new_zeros(len(frames), 3, H, W)
    padding_mask = torch.ones(len(frames), H, W, dtype=torch.bool, device=batch.device)
    for i, frame in enumerate(frames):
        h, w = frame.shape[-2:]
        batch[i, :, :h, :w] = frame
        padding_mask[i, :h, :w] = False
    return batch, padding_mask


class ShapesTraining:
    """Clip number `index` of the training split of shapes; worker processes can receive it."""

    categories = CATEGORIES

    def __init__(self, seed: int, config: ShapesConfig | None = None):
        self.seed, self.config = seed, config or ShapesConfig()

    def __call__(self, index: int):
        return shapes_clip("train", index, self.config, self.seed)


class FolderClips:
    """Clip number `index` of an endless series: all annotated ones, every epoch in another order.

    dataset: a `YouTubeVIS` or a `COCO`. ValueError when none of its clips has an annotation.
    """

    def __init__(self, dataset, seed: int = 0):
        self.dataset, self.seed, self.categories = dataset, seed, dataset.categories
        self.annotated = np.flatnonzero(dataset.track_counts)
        self._order = (-1, None)
        if not len(self.annotated):
            why = "no annotations to learn from (those of test, and of some valid, are withheld)"
            raise ValueError(f"{dataset.file}: {why}")

    def __call__(self, index: int):
        epoch, place = divmod(index, len(self.annotated))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._order = epoch, rng.permutation(self.annotated)
        return self.dataset[int(self._order[1][place])]
