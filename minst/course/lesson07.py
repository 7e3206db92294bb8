"""Lesson 07: modules by frame, association by cosine, a blind spot, a tracker, all from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import uniform_filter
from torch import Tensor
from torch.utils._pytree import tree_leaves

from minst.course.pictures import Film, plot_lines  # noqa: F401  the lesson draws with it
from minst.course.pictures import film as loop
from minst.course.verdict import Verdict, attempt, difference, examine, judge, normal, numbers, say
from minst.data.transforms import frame_instances
from minst.losses import LOSS_WEIGHTS, Pairs, dice_loss, focal_loss, set_losses
from minst.matcher import hungarian_match, matching_scores
from minst.model import FrameOutput, MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.samples import load_sample, sample_names
from minst.tracking import Candidates, KernelTracker, assign, by_cosine, cosine_similarity
from minst.visualize.masks import draw_frame, resized, resized_masks

__all__ = ["cosine_association", "fool_cosine", "from_memory", "modules_run", "track"]


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

    def greedy(old, new, in_turn=False):
        left, order = cosine_similarity(old, new), torch.zeros(len(old), dtype=torch.long)
        for row in range(len(old)):
            best = left[row].argmax() + row * len(new) if in_turn else left.argmax()
            i, j = divmod(int(best), len(new))
            order[i], left[i], left[:, j] = j, -torch.inf, -torch.inf
        return order

    mistakes = [
        "The best pair first is greedy: the *total* counts, which linear_sum_assignment finds.",
        greedy,
        partial(greedy, in_turn=True),
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
    return judge(answer, cosine_association, _two_key_frames, mistakes)


def _two_key_frames(rng):
    """Kernels (n, 4) of all lengths, and their likes in another order."""
    n = rng.integers(8, 13)
    old = normal(rng, n, 4)
    new = old[rng.permutation(n)] + 0.6 * normal(rng, n, 4)
    sizes = torch.from_numpy(rng.uniform(0.2, 5.0, (2, n, 1))).float()
    return old * sizes[0], new * sizes[1]


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
        clip, interval = _some_clip(), rng.integers(2, 4).item()
        step = (len(clip) - 1) // (3 * interval)  # far apart: much happens between two key frames
        frames = [clip.image(step * t) for t in range(3 * interval + 1)]
        return _renumbering(), frames, interval, rng.choice([0.3, 0.4, 0.5])

    def blur(found):
        """A pixel that rounding moves over the threshold then makes no odds."""
        film = found if isinstance(found, (list, tuple)) else [found]
        soft = partial(uniform_filter, size=9)
        return [{i: soft(np.asarray(m, float)) for i, m in frame.items()} for frame in film]

    mistakes = [
        "Nobody is associated: on the next key frame the decoder's rows mean other instances.",
        partial(_track, slip="none"),
        "The rows are put in order the wrong way round: slot i goes on with new[columns[i]].",
        partial(_track, slip="inverse"),
        "Every frame is treated as a key frame; kernels are made on frames 0, T, 2 T, ... only.",
        partial(_track, slip="every"),
        "Masks stand still between key frames: apply the old kernels to the X_mask of this frame.",
        partial(_track, slip="still"),
        "Association always looks back to frame 0; it compares with the last key frame's kernels.",
        partial(_track, slip="first"),
        "Kernels are put in the order of the slots, but their scores are not.",
        partial(_track, slip="scores"),
        "The silent duplicates compete: multiply the cosine by the scores of both, slot and query.",
        partial(_track, slip="silent"),
        "All slots are associated, live or not: a silent one keeps its kernel and its identity.",
        partial(_track, slip="live"),
        "Identities are 1, 2, 3, ... in the order in which slots are first live, not slot numbers.",
        partial(_track, slip="slot"),
    ]
    praise = "Identities and masks are KernelTracker's own, in 20 lines."
    return judge(answer, track, draw, mistakes, rounds=3, tolerance=0.1, view=blur, praise=praise)


def fool_cosine(answer: Callable) -> Verdict:
    """fool_cosine(x_mask (D, h, w)) -> old, new (2, D) each: a swap that cosine does not see."""

    def fault(got, x_mask):
        old, new = (torch.from_numpy(numbers(k, 2, len(x_mask))).float() for k in got)
        before, after = (apply_kernels(k[None], x_mask[None])[0] > 0 for k in (old, new))
        true = x_mask[:2] > 0
        if (before != true).any():
            return say("old[0] . x_mask is to be positive exactly on A (channel 0), old[1]'s on B.")
        if (after == true).all():
            return say("nothing has moved: new[0] still segments A. Instances must change queries.")
        if (after != true.flip(0)).any():
            return say("new[0] . x_mask is to be positive exactly on B, new[1] . x_mask on A.")
        if assign(cosine_similarity(old, new)).tolist() != [0, 1]:
            return say("cosine sees this swap. Give each query a large part where X_mask is 0.")
        return ""

    def reference(x_mask):
        kernels = torch.zeros(2, 2, len(x_mask))  # old, new; query; channel
        kernels[0, [0, 1], [0, 1]] = kernels[1, [0, 1], [1, 0]] = 1.0  # what the masks see
        kernels[:, [0, 1], [2, 3]] = 3.0  # which query I am
        return kernels[0], kernels[1]

    cases = [(_two_instances(np.random.default_rng()),) for _ in range(4)]
    praise = "Cosine says: nobody moved. The masks of the old kernels would have told."
    return examine(answer, fool_cosine, cases, fault, praise, reference)


def from_memory(answer: Callable | dict | type) -> Verdict:
    """from_memory(model) -> {stage: function}: MobileInst in small functions, each judged alone."""
    stages = _stages(model := _shipped())
    if isinstance(answer, type):
        answer = {name: getattr(answer, name) for name in stages if hasattr(answer, name)}
    given = (answer, None, False) if isinstance(answer, dict) else None
    mine, verdict, _ = given or attempt("from_memory", answer, (model,))
    if verdict is None and not (isinstance(mine, dict) and mine and set(mine) <= set(stages)):
        verdict = Verdict("wrong", "from_memory", difference(mine, stages))
    if verdict is not None:
        return replace(verdict, or_ours=_ours)
    said = {name: Verdict("not attempted", name) for name in stages}
    for name in mine:
        ours, *given = stages[name]
        slips = RUNNING if name == "running" else ()
        shapes = str([tuple(x.shape) for x in tree_leaves(ours(*given))])[1:-1]
        how = {"praise": shapes, "exercise": name}
        said[name] = judge_stage(mine[name], ours, lambda rng, of=given: of, slips, **how)
    right = [name for name in said if said[name]]

    def or_ours(model):
        """The answer's stages that are right, and ours for all others."""
        yours = answer if isinstance(answer, dict) else answer(model)
        return _ours(model) | {name: yours[name] for name in right}

    wrong = any(verdict.state == "wrong" for verdict in said.values())
    state = "wrong" if wrong else "correct" if len(right) == len(said) else "not attempted"
    agree = "{right} of {all} stages agree with minst."
    lines = [say(agree, right=len(right), all=len(said))]
    lines += [f"{str(v)[0]} {v.exercise}  {v.reason}".rstrip() for v in said.values()]
    return Verdict(state, "from_memory", "\n".join(lines), or_ours)


def _ours(model: MobileInst) -> dict[str, Callable]:
    return {name: stage for name, (stage, *_) in _stages(model).items()}


def _stages(model: MobileInst) -> dict[str, tuple]:
    """{stage: (what `minst` does, and what it is given on two frames of some shipped clip)}."""
    rng, decoder, clip = np.random.default_rng(), model.instance_decoder, _some_clip()
    times, labels = rng.integers(len(clip) - 3) + [0, 3], torch.as_tensor(clip.labels)
    frames = torch.cat([image_to_batch(clip.image(t)) for t in times])
    truth = [frame_instances(torch.from_numpy(clip.masks(t)), labels) for t in times]
    frame = model.encode(frames)
    out, x_mask, x6, q, many = frame.out, frame.padded_x_mask, frame.x6, decoder.queries, 5.5
    (x_g, pos), z, (old, new) = decoder.global_tokens(x6), out.global_queries, _two_key_frames(rng)
    said, masks, k = (out.class_logits, out.objectness), out.mask_logits, out.kernels
    matches = hungarian_match(said[0], masks, truth)
    sure = torch.from_numpy(rng.random((2, len(old)))).float()
    pairs, yes = Pairs.of(matches, truth), (normal(rng, *said[0].shape) > 1.3).float()
    drawn, true = pairs.logits(masks).flatten(1), pairs.masks.flatten(1)

    def total(*of):
        parts = set_losses(*of[:4], None, of[4])[0]
        return sum(LOSS_WEIGHTS[name] * part for name, part in parts.items())

    def associate(*of):
        return assign(by_cosine(Candidates(*of[:2], None), Candidates(*of[2:], None), None))

    def passing(q_g, x_mask):
        return apply_kernels(decoder.local(q_g, x_mask).kernels, x_mask)

    attend = decoder.global_decoder.cross_attention
    return {
        "encode": (lambda x: (model.encode(x).x6, model.encode(x).padded_x_mask), frames),
        "attend": (lambda layer, *of: layer(*of), attend, z, x_g + pos, x_g),
        "look": (lambda stage, *of: stage(*of), decoder.local_decoder, z, q, x_g, pos),
        "say": (lambda heads, z, q: tuple(heads(z + q)), decoder.heads, z, q),
        "decode": (lambda *of: (*decoder(*of)[0], decoder(*of)[1]), x6, x_mask),
        "product": (apply_kernels, k, x_mask),
        "score": (lambda *of: FrameOutput(*of, *"KXMQ").scores(), *said),
        "matching": (matching_scores, said[0][0], masks[0], truth[0]),
        "focal": (focal_loss, said[0], yes, many),
        "dice": (dice_loss, drawn, true, many),
        "total": (total, *said, masks, truth, matches),
        "passing": (passing, z[:1], x_mask[1:]),
        "reuse": (lambda k, x: apply_kernels(k.expand(len(x), -1, -1), x), k[0], x_mask),
        "associate": (associate, old, sure[0], new, sure[1]),
        "running": (_running, *_scores_over_time(rng)),
    }


def _running(scores, interval, threshold, each=False):
    """Mean class scores of an identity, as known by each frame: (L, C) -> (L, C)."""
    key = (torch.arange(len(scores)) % interval == 0)[:, None]
    counts = key & ((scores if each else scores.amax(1, keepdim=True)) >= threshold)
    return (scores * counts).cumsum(0) / counts.cumsum(0).clamp(min=1)


def _scores_over_time(rng):
    """Scores (12, 3), a reuse interval and a threshold, on which every mistake shows."""
    interval, seen = rng.integers(2, 4).item(), rng.choice([0.4, 1.0], 12)
    seen[[0, interval]], seen[[1, 2 * interval]] = 1.0, 0.4
    scores = (0.5 + 0.5 * rng.random((12, 3))) * seen[:, None]
    scores[0, 1] = 0.1  # of one class, in a frame that counts
    return torch.from_numpy(scores).float(), interval, 0.5


RUNNING = [
    "Only key frames have new scores: the instance decoder does not run between them.",
    lambda scores, T, threshold: _running(scores, 1, threshold),
    "A key frame whose best score is below the threshold did not see it: leave it out.",
    lambda scores, T, threshold: _running(scores, T, -1.0),
    "The limit is for the best class: where that reaches it, all classes of the frame count.",
    partial(_running, each=True),
    "Every frame has the mean of the whole video: online, frame t knows nothing of later ones.",
    lambda scores, *how: _running(scores, *how)[-1:].expand(len(scores), -1),
]
judge_stage = partial(judge, rounds=1)


def film(frames: list, found: list[dict], keys: int, cut: int, words: str) -> Film:
    """A loop of frames and {identity: mask}; below it time: key frames black, a cut red."""
    drawn, size = [], len(frames)
    for t, (image, masks) in enumerate(zip(frames, found)):
        outlines = resized_masks([np.asarray(mask) for mask in masks.values()], (144, 192))
        small = faint(resized(image, (144, 192)), 0.3)
        picture = draw_frame(small, outlines, list(masks), [str(i) for i in masks], 1)
        colors = [(0, 0, 0) if s % keys == 0 else (190, 190, 190) for s in range(size)]
        colors[cut] = (200, 0, 0)
        bar = np.full((14, size, 14, 3), 255, np.uint8)
        bar[8:, :, 1:] = np.array(colors)[:, None]
        bar[3:, t, 1:] = colors[t]
        bar = resized(bar.reshape(14, -1, 3), (14, 192), Image.Resampling.NEAREST)
        drawn.append(np.concatenate([picture, bar]))
    return loop(drawn, words)


def faint(image: np.ndarray, contrast: float = 0.15) -> np.ndarray:
    """A frame, grey, pale and in few shades, so that masks stand out and pictures are small."""
    shades = (250 - contrast * (255 - uniform_filter(image.mean(-1), 5))) // 9 * 9
    return shades.astype(np.uint8)[..., None].repeat(3, axis=-1)


def _some_clip():
    return load_sample(str(np.random.default_rng().choice(sample_names())))


@lru_cache(1)
def _shipped() -> MobileInst:
    return MobileInst.from_pretrained("shapes-tiny").fuse().requires_grad_(False)


@lru_cache(1)
def _renumbering() -> MobileInst:
    """A model that numbers its queries anew on every frame; it computes a frame once."""
    model, known = MobileInst.from_pretrained("shapes-tiny").fuse().requires_grad_(False), {}
    encode, decode = model.encode, model.decode

    def encode_once(frames):
        key = frames.numpy().tobytes()
        if key not in known:
            known[key] = encode(frames)
        return known[key]

    def decode_in_another_order(frame):
        out, chance = decode(frame), torch.Generator()
        chance.manual_seed(int(1000 * frame.x6.abs().sum()))
        order = torch.randperm(model.config.num_queries, generator=chance)
        of_queries = [name for name in out._fields if name != "mask_features"]
        return out._replace(**{name: getattr(out, name)[:, order] for name in of_queries})

    model.encode, model.decode = encode_once, decode_in_another_order
    model.__deepcopy__ = lambda memo: model  # answers get this one, with what it knows
    return model


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
                similarity = similarity * both
                if slip == "live":  # the others take what is left, in its order
                    similarity = similarity * (scores >= threshold)[:, None]
                order = assign(similarity)
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
