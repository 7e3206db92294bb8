"""Lesson 07: which modules run on which frame, association by cosine, a whole tracker, a blind spot, running scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.course.verdict import Mistake, Verdict, correct, judge, not_attempted, wrong
from minst.model import Frame, FrameOutput, MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.samples import load_sample, sample_names
from minst.tracking import KernelTracker, Slots, assign, cosine_similarity

__all__ = ["cosine_association", "fool_cosine", "modules_run", "running_class_scores", "track"]

EVERY = ["backbone", "mask decoder"]


def modules_run(answer: Callable) -> Verdict:
    """modules_run(frame, reuse_interval) -> list of str: what runs on this frame, in the order in which it runs."""

    def modules_run(frame, reuse_interval):
        key = frame % reuse_interval == 0
        return EVERY + ["instance decoder"] * key + ["association"] * (key and frame > 0)

    def draw(rng):
        interval = int(rng.integers(1, 7))
        return int(rng.integers(0, 3 * interval + 1)) * int(rng.integers(0, 4) > 0), interval

    return judge(
        answer,
        modules_run,
        draw,
        [
            Mistake(
                lambda t, T: EVERY + ["instance decoder", "association"] * (t % T == 0),
                "On frame 0 there is no older kernel: nothing to associate with.",
            ),
            Mistake(
                lambda t, T: EVERY + ["instance decoder"] * (t % T == 0) + ["association"] * (t > 0),
                "Between key frames a kernel stays with its slot: there is nothing to associate.",
            ),
            Mistake(
                lambda t, T: modules_run(t, T) if t % T == 0 else [],
                "Kernel reuse needs X_mask of every frame: backbone and mask decoder never rest.",
            ),
            Mistake(
                lambda t, T: modules_run(t, 1),
                "The instance decoder makes new kernels; between key frames the old ones are reused.",
            ),
            Mistake(
                lambda t, T: modules_run(t + 1, T),
                "Frames count from 0, and frame 0 is a key frame: key frames are the multiples of T.",
            ),
        ],
        rounds=60,
    )


def cosine_association(answer: Callable) -> Verdict:
    """cosine_association(old (N, D), new (N, D)) -> (N,) whole numbers: the new query of every old kernel."""

    def cosine_association(old, new):
        return assign(cosine_similarity(old, new))

    def best(similarity):
        return torch.as_tensor(linear_sum_assignment(similarity.numpy(), maximize=True)[1])

    def draw(rng):
        old = torch.from_numpy(rng.normal(size=(int(rng.integers(8, 13)), 4)).astype(np.float32))
        new = old[rng.permutation(len(old))] + 0.6 * torch.from_numpy(rng.normal(size=old.shape).astype(np.float32))
        sizes = torch.from_numpy(rng.uniform(0.2, 5.0, (2, len(old), 1)).astype(np.float32))
        return old * sizes[0], new * sizes[1]

    return judge(
        answer,
        cosine_association,
        draw,
        [
            Mistake(
                lambda old, new: cosine_similarity(old, new).argmax(1),
                "Each old kernel takes its favourite, so two may take the same. One to one: linear_sum_assignment.",
            ),
            Mistake(
                lambda old, new: best(old @ new.T),
                "Long kernels win here: divide each kernel by its length before the product.",
            ),
            Mistake(
                lambda old, new: best(-cosine_similarity(old, new)),
                "linear_sum_assignment minimises a cost unless it is told maximize=True.",
            ),
            Mistake(
                lambda old, new: cosine_association(old, new).argsort(),
                "This is the old kernel of every new query; asked is the new query of every old kernel.",
            ),
            Mistake(
                lambda old, new: best(-torch.cdist(old, new)),
                "Distances also measure length; the cosine compares directions alone.",
            ),
            Mistake(lambda old, new: torch.arange(len(old)), "Nothing is associated: every query keeps its own index."),
        ],
    )


def track(answer: Callable) -> Verdict:
    """track(model, frames, reuse_interval, threshold) -> [{identity: mask (H, W) bool}] of every frame.

    Held against `KernelTracker(model, reuse_interval, "cosine", threshold, min_area=0)` on a shipped clip, whose
    association is cosine times both scores. The decoder numbers its queries anew on every frame, so that only
    association keeps identities.
    """

    def track(model, frames, reuse_interval, threshold):
        tracker = KernelTracker(model, reuse_interval, "cosine", threshold, min_area=0)
        return [dict(zip(found.ids, found.masks())) for found in map(tracker.step, frames)]

    def draw(rng):
        clip, interval = load_sample(str(rng.choice(sample_names()))), int(rng.integers(2, 4))
        step = (len(clip) - 1) // (3 * interval)  # far apart, so that much happens from one key frame to the next
        frames = [clip.image(step * t) for t in range(3 * interval + 1)]
        return _Renumbering(_model(), frames, rng), frames, interval, float(rng.choice([0.3, 0.4, 0.5]))

    def slip(name):
        return _Soft(lambda *given: _track(*given, slip=name))

    mistakes = [
        Mistake(slip("none"), "Nobody is associated: on the next key frame the decoder's rows mean other instances."),
        Mistake(slip("inverse"), "The rows are put in order the wrong way round: slot i goes on with new[columns[i]]."),
        Mistake(
            slip("every"), "Every frame is treated as a key frame; kernels are made on frames 0, T, 2 T, ... only."
        ),
        Mistake(
            slip("still"), "Masks stand still between key frames: apply the old kernels to the X_mask of this frame."
        ),
        Mistake(
            slip("first"), "Association always looks back to frame 0; it compares with the last key frame's kernels."
        ),
        Mistake(slip("scores"), "Kernels are put in the order of the slots, but their scores are not."),
        Mistake(
            slip("silent"),
            "The cosine alone lets silent duplicates compete: multiply it by the score of the slot and of the new query.",
        ),
        Mistake(
            slip("slot"), "Identities are 1, 2, 3, ... in the order in which slots are first live, not slot numbers."
        ),
    ]
    answer = _Soft(answer) if callable(answer) else answer
    praise = "Identities and masks are KernelTracker's own, in 20 lines."
    return judge(answer, _Soft(track), draw, mistakes, rounds=3, tolerance=0.1, praise=praise)


def fool_cosine(answer: Callable) -> Verdict:
    """fool_cosine(x_mask (D, h, w)) -> old, new, both (2, D): instances swap their queries, cosine sees nothing."""
    exercise = "fool_cosine"
    if not callable(answer):
        return wrong(exercise, f"a {type(answer).__name__} was handed over; hand over the function, without brackets.")
    for _ in range(4):
        x_mask = _two_instances(np.random.default_rng())
        try:
            old, new = (torch.as_tensor(kernels).detach().float() for kernels in answer(x_mask.clone()))
        except NotImplementedError:
            return not_attempted(exercise)
        except Exception as error:
            return wrong(exercise, f"it raises or returns no pair (old, new): {type(error).__name__}: {error}")
        if (shapes := (tuple(old.shape), tuple(new.shape))) != ((2, len(x_mask)),) * 2:
            return wrong(exercise, f"the shapes of old and new are {shapes}, expected (2, {len(x_mask)}) each.")
        before, after = (apply_kernels(kernels[None], x_mask[None])[0] > 0 for kernels in (old, new))
        true = x_mask[:2] > 0
        if (before != true).any():
            return wrong(exercise, "old[0] . x_mask is to be positive exactly on A (channel 0), old[1] . x_mask on B.")
        if (after == true).all():
            return wrong(
                exercise, "nothing has moved: new[0] still segments A. The instances must change their queries."
            )
        if (after != true.flip(0)).any():
            return wrong(exercise, "new[0] . x_mask is to be positive exactly on B, new[1] . x_mask on A.")
        if assign(cosine_similarity(old, new)).tolist() != [0, 1]:
            return wrong(exercise, "cosine sees this swap. Give each query a large part of its own where X_mask is 0.")
    return correct(exercise, "Cosine says: nobody moved. The masks of the old kernels would have told.")


def running_class_scores(answer: Callable) -> Verdict:
    """running_class_scores(scores (T, K), reuse_interval, threshold) -> (T, K): what is known after every frame."""

    def running_class_scores(scores, reuse_interval, threshold, every=False, unseen=False):
        slot, known = Slots(torch.zeros(1, 1), scores[:1]), []
        for t, now in enumerate(scores):
            if every or t % reuse_interval == 0:
                slot.take(torch.zeros(1, 1), now[None], torch.zeros(1), t, -1.0 if unseen else threshold)
            known.append(slot.means()[0])
        return torch.stack(known)

    def draw(rng):
        interval, seen = int(rng.integers(2, 4)), rng.choice([0.4, 1.0], 12)
        seen[[0, interval]], seen[[1, 2 * interval]] = 1.0, 0.4  # seen, then not: so that every mistake shows
        scores = (0.5 + 0.5 * rng.random((12, 3))) * seen[:, None]
        return torch.from_numpy(scores.astype(np.float32)), interval, 0.5

    return judge(
        answer,
        running_class_scores,
        draw,
        [
            Mistake(
                lambda *given: running_class_scores(*given, every=True),
                "Only key frames have new scores: the instance decoder does not run between them.",
            ),
            Mistake(
                lambda *given: running_class_scores(*given, unseen=True),
                "A key frame whose best score is below the threshold did not see the instance: leave it out.",
            ),
            Mistake(
                lambda *given: running_class_scores(*given)[-1:].expand(len(given[0]), -1),
                "Every frame has the mean of the whole video: online, frame t knows nothing of later ones.",
            ),
            Mistake(
                lambda s, T, threshold: (
                    (s * (s.amax(1, keepdim=True) >= threshold) * (torch.arange(len(s)) % T == 0)[:, None]).cumsum(0)
                    / torch.arange(1, len(s) + 1)[:, None]
                ),
                "Divide by the number of key frames counted, not by the number of frames.",
            ),
        ],
    )


@lru_cache(1)
def _model() -> MobileInst:
    return MobileInst.from_pretrained("shapes-tiny").fuse()


class _Renumbering:
    """A model whose decoder numbers its queries anew on every frame; each frame is computed once."""

    def __init__(self, model: MobileInst, frames: list[np.ndarray], rng: np.random.Generator):
        self.model, self.config, self._frames = model, model.config, {}
        for image in map(image_to_batch, frames):
            with torch.no_grad():
                frame = model.encode(image)
                order = torch.from_numpy(rng.permutation(frame.out.kernels.shape[1]))
                frame.out = _renumbered(frame.out, order)  # in the place of what the frame would decode
            self._frames[_key(image)] = frame

    def encode(self, frames: Tensor, padding_mask: Tensor | None = None) -> Frame:
        known = self._frames.get(_key(frames))
        return self.model.encode(frames, padding_mask) if known is None else known

    def decode(self, frame: Frame) -> FrameOutput:
        return frame.out

    def __call__(self, frames: Tensor) -> FrameOutput:
        return self.encode(frames).out

    def eval(self) -> _Renumbering:
        return self

    def __deepcopy__(self, memo) -> _Renumbering:
        return self


def _renumbered(out: FrameOutput, order: Tensor) -> FrameOutput:
    """All that belongs to the queries in another order; X_mask belongs to none of them."""
    moved = {name: getattr(out, name)[:, order] for name in out._fields if name != "mask_features"}
    return out._replace(**moved)


def _key(frames: Tensor) -> bytes:
    return frames.detach().numpy().tobytes()


@torch.no_grad()
def _track(model, frames, reuse_interval, threshold, slip=""):
    """The exercise's tracker, with one slip of a student's."""
    ids, result, kernels, scores, first = {}, [], None, None, None
    for t, image in enumerate(frames):
        frame = model.encode(image_to_batch(image))
        if t % reuse_interval == 0 or slip == "every":
            new, unordered = frame.out.kernels[0], frame.out.scores()[0].amax(-1)
            order = torch.arange(len(new))
            if t and slip != "none":
                similarity = cosine_similarity(first if slip == "first" else kernels, new)
                order = assign(similarity if slip == "silent" else similarity * scores[:, None] * unordered)
                order = order.argsort() if slip == "inverse" else order
            kernels, scores, seen = new[order], unordered if slip == "scores" else unordered[order], frame
            first = kernels if first is None else first
        live = (scores >= threshold).nonzero().flatten().tolist()
        logits = (seen if slip == "still" else frame).masks(kernels[live][None])
        masks = upsample_masks(logits, frame.size)[0] >= 0
        for slot in live:
            ids.setdefault(slot, slot + 1 if slip == "slot" else len(ids) + 1)
        result.append({ids[slot]: mask.numpy() for slot, mask in zip(live, masks)})
    return result


class _Soft:
    """A tracker with its masks blurred a little: a pixel that rounding moves over the threshold then makes no odds."""

    def __init__(self, tracker: Callable, name: str = "track"):
        self.tracker, self.__name__, self.__code__ = tracker, name, getattr(tracker, "__code__", None)

    def __call__(self, *given):
        found = self.tracker(*given)
        if not isinstance(found, list) or not all(isinstance(frame, dict) for frame in found):
            return found
        return [{i: uniform_filter(np.asarray(mask, float), 9) for i, mask in frame.items()} for frame in found]


def _two_instances(rng: np.random.Generator) -> Tensor:
    """X_mask (D, h, w): channel 0 is +1 on instance A and -1 elsewhere, channel 1 the same for B, the others are 0."""
    height, width = int(rng.integers(4, 8)), 2 * int(rng.integers(3, 6))
    x_mask = torch.zeros(int(rng.integers(4, 9)), height, width)
    x_mask[:2] = -1
    for m, left in enumerate((0, width // 2)):
        top, start = int(rng.integers(0, height - 2)), left + int(rng.integers(0, width // 2 - 1))
        x_mask[m, top : top + 2, start : start + 2] = 1
    return x_mask
