"""Lesson 07: modules by frame, association by cosine, a tracker, a blind spot, running scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor

from minst.course.verdict import Verdict, examine, judge, normal, numbers
from minst.model import MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.samples import load_sample, sample_names
from minst.tracking import KernelTracker, Slots, assign, cosine_similarity

__all__ = ["cosine_association", "fool_cosine", "modules_run", "running_class_scores", "track"]


def modules_run(answer: Callable) -> Verdict:
    """modules_run(frame, reuse_interval) -> list of str: what runs on this frame, in its order."""

    def modules_run(frame, reuse_interval):
        key = frame % reuse_interval == 0
        return modules(key, key and frame > 0)

    def modules(decoded, associated):
        always = ["backbone", "mask decoder"]
        return always + ["instance decoder"] * decoded + ["association"] * associated

    def draw(rng):
        interval = rng.integers(1, 7)
        return rng.integers(0, 3 * interval + 1) * (rng.random() < 0.75), interval

    mistakes = [
        "On frame 0 there is no older kernel: nothing to associate with.",
        lambda t, T: modules(t % T == 0, t % T == 0),
        "Between key frames a kernel stays with its slot: there is nothing to associate.",
        lambda t, T: modules(t % T == 0, t > 0),
        "Kernel reuse needs X_mask of every frame: backbone and mask decoder never rest.",
        lambda t, T: modules_run(t, T) if t % T == 0 else [],
        "The instance decoder makes new kernels; between key frames the old ones are reused.",
        lambda t, T: modules_run(t, 1),
        "Frames count from 0, and frame 0 is a key frame: key frames are the multiples of T.",
        lambda t, T: modules_run(t + 1, T),
    ]
    return judge(answer, modules_run, draw, mistakes, rounds=60)


def cosine_association(answer: Callable) -> Verdict:
    """cosine_association(old (N, D), new (N, D)) -> (N,): the new query of every old kernel."""

    def cosine_association(old, new, similarity=cosine_similarity):
        return assign(similarity(old, new))

    def draw(rng):
        n = rng.integers(8, 13)
        old = normal(rng, n, 4)
        new = old[rng.permutation(n)] + 0.6 * normal(rng, n, 4)
        sizes = torch.from_numpy(rng.uniform(0.2, 5.0, (2, n, 1))).float()
        return old * sizes[0], new * sizes[1]

    mistakes = [
        "Each old kernel takes its favourite, so two may take one. One to one is asked for.",
        lambda old, new: cosine_similarity(old, new).argmax(1),
        "Long kernels win here: divide each kernel by its length before the product.",
        lambda old, new: assign(old @ new.T),
        "linear_sum_assignment minimises a cost unless it is told maximize=True.",
        lambda old, new: assign(-cosine_similarity(old, new)),
        "This is the old kernel of every new query; asked is the new query of every old kernel.",
        lambda old, new: cosine_association(old, new).argsort(),
        "Distances also measure length; the cosine compares directions alone.",
        lambda old, new: assign(-torch.cdist(old, new)),
        "Nothing is associated: every query keeps its own index.",
        lambda old, new: torch.arange(len(old)),
    ]
    return judge(answer, cosine_association, draw, mistakes)


def track(answer: Callable) -> Verdict:
    """track(model, frames, reuse_interval, threshold) -> [{identity: mask (H, W)}] of every frame.

    Held against `KernelTracker(model, reuse_interval, "cosine", threshold, min_area=0)` on a
    shipped clip, whose association is cosine times both scores. The decoder numbers its queries
    anew on every frame, so that only association keeps identities.
    """

    def track(model, frames, reuse_interval, threshold):
        tracker = KernelTracker(model, reuse_interval, "cosine", threshold, min_area=0)
        return [dict(zip(found.ids, found.masks())) for found in map(tracker.step, frames)]

    def draw(rng):
        clip, interval = load_sample(str(rng.choice(sample_names()))), rng.integers(2, 4).item()
        step = (len(clip) - 1) // (3 * interval)  # far apart: much happens between two key frames
        frames = [clip.image(step * t) for t in range(3 * interval + 1)]
        return _renumbering(), frames, interval, rng.choice([0.3, 0.4, 0.5])

    def blurred(found):
        """A pixel that rounding moves over the threshold then makes no odds."""
        if not isinstance(found, list) or not all(isinstance(frame, dict) for frame in found):
            return found
        return [
            {i: uniform_filter(np.asarray(mask, float), 9) for i, mask in frame.items()}
            for frame in found
        ]

    def slip(name):
        return partial(_track, slip=name)

    mistakes = [
        "Nobody is associated: on the next key frame the decoder's rows mean other instances.",
        slip("none"),
        "The rows are put in order the wrong way round: slot i goes on with new[columns[i]].",
        slip("inverse"),
        "Every frame is treated as a key frame; kernels are made on frames 0, T, 2 T, ... only.",
        slip("every"),
        "Masks stand still between key frames: apply the old kernels to the X_mask of this frame.",
        slip("still"),
        "Association always looks back to frame 0; it compares with the last key frame's kernels.",
        slip("first"),
        "Kernels are put in the order of the slots, but their scores are not.",
        slip("scores"),
        "The silent duplicates compete: multiply the cosine by the scores of both, slot and query.",
        slip("silent"),
        "Identities are 1, 2, 3, ... in the order in which slots are first live, not slot numbers.",
        slip("slot"),
    ]
    praise = "Identities and masks are KernelTracker's own, in 20 lines."
    return judge(
        answer, track, draw, mistakes, rounds=3, tolerance=0.1, view=blurred, praise=praise
    )


def fool_cosine(answer: Callable) -> Verdict:
    """fool_cosine(x_mask (D, h, w)) -> old, new (2, D) each: a swap that cosine does not see."""

    def fault(got, x_mask):
        old, new = (torch.from_numpy(numbers(k, 2, len(x_mask))).float() for k in got)
        before, after = (apply_kernels(k[None], x_mask[None])[0] > 0 for k in (old, new))
        true = x_mask[:2] > 0
        if (before != true).any():
            return "old[0] . x_mask is to be positive exactly on A (channel 0), old[1]'s on B."
        if (after == true).all():
            return "nothing has moved: new[0] still segments A. Instances must change queries."
        if (after != true.flip(0)).any():
            return "new[0] . x_mask is to be positive exactly on B, new[1] . x_mask on A."
        if assign(cosine_similarity(old, new)).tolist() != [0, 1]:
            return "cosine sees this swap. Give each query a large part where X_mask is 0."
        return ""

    cases = [(_two_instances(np.random.default_rng()),) for _ in range(4)]
    praise = "Cosine says: nobody moved. The masks of the old kernels would have told."
    return examine(answer, fool_cosine, cases, fault, praise)


def running_class_scores(answer: Callable) -> Verdict:
    """running_class_scores(scores (T, K), interval, threshold) -> (T, K), known by frame t."""

    def running_class_scores(scores, reuse_interval, threshold):
        slot, known = Slots(torch.zeros(1, 1), scores[:1]), []
        for t, now in enumerate(scores):
            if t % reuse_interval == 0:
                slot.take(torch.zeros(1, 1), now[None], torch.zeros(1), t, threshold)
            known.append(slot.means()[0])
        return torch.stack(known)

    def over_frames(scores, reuse_interval, threshold):
        counted = torch.arange(len(scores)) % reuse_interval == 0
        counted &= scores.amax(1) >= threshold
        return (scores * counted[:, None]).cumsum(0) / torch.arange(1, len(scores) + 1)[:, None]

    def draw(rng):
        interval, seen = rng.integers(2, 4), rng.choice([0.4, 1.0], 12)
        seen[[0, interval]], seen[[1, 2 * interval]] = 1.0, 0.4  # every mistake is to show
        scores = (0.5 + 0.5 * rng.random((12, 3))) * seen[:, None]
        return torch.from_numpy(scores).float(), interval, 0.5

    mistakes = [
        "Only key frames have new scores: the instance decoder does not run between them.",
        lambda scores, T, threshold: running_class_scores(scores, 1, threshold),
        "A key frame whose best score is below the threshold did not see it: leave it out.",
        lambda scores, T, threshold: running_class_scores(scores, T, -1.0),
        "Every frame has the mean of the whole video: online, frame t knows nothing of later ones.",
        lambda scores, *how: running_class_scores(scores, *how)[-1:].expand(len(scores), -1),
        "Divide by the number of key frames counted, not by the number of frames.",
        over_frames,
    ]
    return judge(answer, running_class_scores, draw, mistakes)


@lru_cache(1)
def _renumbering() -> _Renumbering:
    return _Renumbering.from_pretrained("shapes-tiny").fuse().requires_grad_(False)


class _Renumbering(MobileInst):
    """A model whose decoder numbers its queries anew on every frame; a frame is computed once."""

    def __init__(self, config):
        super().__init__(config)
        self.known = {}

    def encode(self, frames: Tensor, padding_mask: Tensor | None = None):
        key = frames.numpy().tobytes()
        if key not in self.known:
            self.known[key] = super().encode(frames, padding_mask)
        return self.known[key]

    def decode(self, frame):
        out = super().decode(frame)
        chance = torch.Generator().manual_seed(int(1000 * frame.x6.abs().sum()))
        order = torch.randperm(self.config.num_queries, generator=chance)
        of_queries = [name for name in out._fields if name != "mask_features"]
        return out._replace(**{name: getattr(out, name)[:, order] for name in of_queries})

    def __deepcopy__(self, memo) -> _Renumbering:
        return self


def _track(model, frames, reuse_interval, threshold, slip):
    """The exercise's tracker, with one slip of a student's."""
    ids, result, kernels, scores, first = {}, [], None, None, None
    for t, image in enumerate(frames):
        frame = model.encode(image_to_batch(image))
        if t % reuse_interval == 0 or slip == "every":
            new, unordered = frame.out.kernels[0], frame.out.scores()[0].amax(-1)
            order = torch.arange(len(new))
            if t and slip != "none":
                similarity = cosine_similarity(first if slip == "first" else kernels, new)
                both = 1 if slip == "silent" else scores[:, None] * unordered
                order = assign(similarity * both)
                order = order.argsort() if slip == "inverse" else order
            kernels, scores, seen = new[order], unordered[order], frame
            scores = unordered if slip == "scores" else scores
            first = kernels if first is None else first
        live = (scores >= threshold).nonzero().flatten().tolist()
        logits = (seen if slip == "still" else frame).masks(kernels[live][None])
        masks = upsample_masks(logits, frame.size)[0] >= 0
        for slot in live:
            ids.setdefault(slot, slot + 1 if slip == "slot" else len(ids) + 1)
        result.append({ids[slot]: mask.numpy() for slot, mask in zip(live, masks)})
    return result


def _two_instances(rng: np.random.Generator) -> Tensor:
    """X_mask (D, h, w): channel 0 is +1 on instance A, -1 elsewhere; 1 the same for B; others 0."""
    height, width = int(rng.integers(4, 8)), 2 * int(rng.integers(3, 6))
    x_mask = torch.zeros(int(rng.integers(4, 9)), height, width)
    x_mask[:2] = -1
    for m, left in enumerate((0, width // 2)):
        top, start = rng.integers(height - 2), left + rng.integers(width // 2 - 1)
        x_mask[m, top : top + 2, start : start + 2] = 1
    return x_mask
