"""Lesson 11: a foreign model's factors, attention over T frames, query or instance, an adapter."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minst.adapters import from_transformers
from minst.course.pictures import plot_lines  # noqa: F401  the lesson draws with it
from minst.course.verdict import Verdict, difference, examine, judge, normal, say
from minst.data.ytvis import Clip
from minst.evaluation.consistency import HOLD_IOU, assign_queries, mask_ious
from minst.model import apply_kernels
from minst.predict import encode, masks_of_queries
from minst.protocol import QueryFrame, QueryModel
from minst.samples import data_folder
from minst.visualize.style import CENTER, GREY, Picture, bare, headline, new_figure, rgb

__all__ = ["attention_bytes", "encode_frames", "factors", "instance_wins"]

IDEAS = ("K . X_mask", "query passing", "kernel reuse", "association")


@cache
def foreign_model() -> QueryModel:
    """The shipped Mask2Former in its adapter; ImportError where `transformers` is missing."""
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        logging.disable(logging.WARNING)  # that its backbone is not the usual one
        try:
            return from_transformers(data_folder() / "foreign" / "mask2former-tiny")
        finally:
            logging.disable(logging.NOTSET)


def factors(answer: Callable) -> Verdict:
    """factors(model, pixels) -> kernels (B, N, D), mask features (B, D, h, w) of a Mask2Former."""

    def reference(model, pixels):
        said, decoder = model(pixel_values=pixels), model.model.transformer_module.decoder
        queries = decoder.layernorm(said.transformer_decoder_last_hidden_state)
        return decoder.mask_predictor.mask_embedder(queries), said.pixel_decoder_last_hidden_state

    def fault(got, model, pixels):
        said, given = model(pixel_values=pixels), tuple(pixels.shape)
        own, queries = said.masks_queries_logits, said.transformer_decoder_last_hidden_state
        if isinstance(got, Tensor) or got[0].shape == own.shape:
            hint = "Two tensors are asked: what is multiplied to make the masks, not the masks."
            return say(hint)
        kernels, features = got
        if kernels.ndim == 3 and kernels.shape[1] == len(pixels) != kernels.shape[0]:
            hint = "The kernels are (N, B, D), the order inside of the decoder; (B, N, D) is asked."
            return say(hint)
        if features.shape[-2:] != own.shape[-2:]:
            hint = "The masks are finer: of the pixel decoder's levels take the last."
            yours = "For pixels {given} yours are {shape}."
            return say(hint, yours, given=given, shape=tuple(features.shape))
        made = apply_kernels(kernels, features)
        if torch.allclose(made, own, atol=1e-3, rtol=1e-3):
            return ""
        hint, embedder = "", model.model.transformer_module.decoder.mask_predictor.mask_embedder
        if torch.allclose(kernels, queries):
            hint = "These are the queries; a small network of the model makes kernels of them."
        elif torch.allclose(kernels, embedder(queries), atol=1e-4):
            hint = "The decoder normalises its queries before it makes kernels of them."
        wrong = "for pixels {given} K . X_mask is up to {far:.3g} away from its own mask logits."
        return say(wrong, hint, given=given, far=(made - own).abs().max())

    rng, model = np.random.default_rng(), foreign_model().model
    cases = ((model, normal(rng, 2, 3, *(32 * rng.integers(3, 6, 2)))) for _ in range(2))
    praise = "Their product is what the library calls masks_queries_logits."
    with torch.no_grad():
        return examine(answer, factors, cases, fault, praise, reference)


def attention_bytes(answer: Callable) -> Verdict:
    """attention_bytes(frames, tokens, queries, heads) -> bytes for a clip, bytes frame by frame."""

    def attention_bytes(frames, tokens, queries, heads):
        return 4 * heads * (frames * tokens) ** 2, 4 * heads * queries * tokens

    def but(clip=lambda L, S, N: (L * S) ** 2, online=lambda L, S, N: N * S, size=4, heads=None):
        return lambda L, S, N, h: [size * (heads or h) * of(L, S, N) for of in (clip, online)]

    def draw(rng):
        return tuple(rng.integers((2, 50, 10, 2), (40, 300, 50, 9)).tolist())

    mistakes = [
        "Tokens of every frame ask tokens of every frame: L enters squared, as the tokens do.",
        but(clip=lambda L, S, N: L * S**2),
        "Over a clip tokens ask tokens; the queries have no part in it.",
        but(clip=lambda L, S, N: N * L * S),
        "Frame by frame, the weights of one frame are gone before the next frame comes.",
        but(online=lambda L, S, N: L * N * S),
        "Frame by frame, it is the queries that ask the tokens.",
        but(online=lambda L, S, N: S**2),
        "Each head has weights of its own.",
        but(heads=1),
        "A number of float32 takes four bytes.",
        but(size=1),
        "The clip comes first, frame by frame second.",
        lambda *given: attention_bytes(*given)[::-1],
    ]
    return judge(answer, attention_bytes, draw, mistakes)


def instance_wins(answer: Callable) -> Verdict:
    """instance_wins(kernels (L, N, D), handovers (rows, 4)) -> share that the instance wins."""

    cosine = partial(torch.cosine_similarity, dim=-1)

    def instance_wins(kernels, handovers, alike=cosine, count=lambda gain: (gain > 0).double()):
        t, u, old, new = torch.as_tensor(handovers).T
        before = kernels[t, old]
        gain = alike(before, kernels[u, new]) - alike(before, kernels[u, old])
        return count(gain).mean()

    def draw(rng):
        L, N, rows = rng.integers((5, 5, 20), (9, 9, 40))
        lengths = torch.from_numpy(rng.uniform(0.2, 5, (L, N, 1))).float()
        t, old, step = rng.integers((0, 0, 1), (L - 2, N, N), (rows, 3)).T
        handovers = np.stack([t, t + 2, old, (old + step) % N], axis=1)
        return normal(rng, L, N, 6) * lengths, torch.from_numpy(handovers)

    mistakes = [
        "A long kernel has large products, whatever its direction: divide by both lengths.",
        partial(instance_wins, alike=lambda a, b: (a * b).sum(-1)),
        "This is the share in which the query wins.",
        partial(instance_wins, count=lambda gain: (gain < 0).double()),
        "These are handovers counted; divide by how many there are.",
        lambda kernels, handovers: len(handovers) * instance_wins(kernels, handovers),
        "This is the mean gain; count in how many handovers it is above zero.",
        partial(instance_wins, count=lambda gain: gain),
        "Both rivals are kernels of frame u: in frame t the old kernel meets itself, cosine 1.",
        lambda kernels, handovers: 0.0,
    ]
    return judge(answer, instance_wins, draw, mistakes)


class Prototypes(nn.Module):
    """Somebody else's network, with other habits than ours; it sees blue, green and red things.

    forward: images (B, H, W, 3) in 0 .. 255, blue first -> a dict of
        "protos" (B, H/8, W/8, 4) and "coefficients" (B, 4, 4), whose products are mask logits
        "logits" (B, 4, 4), for a softmax over red, green, blue, "no object"
    """

    def __init__(self):
        super().__init__()
        colors = torch.tensor([[30.0, -30, -30], [-30, 30, -30], [-30, -30, 30], [0, 0, 0]])
        self.register_buffer("coefficients", torch.cat([colors, torch.full((4, 1), -15)], dim=1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        colors = nn.functional.avg_pool2d(images.movedim(-1, 1) / 255, 8)  # (B, 3, h, w)
        protos = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=1).movedim(1, -1)
        surest = (protos @ self.coefficients.T).flatten(1, 2).amax(1) / 3  # (B, N)
        logits = nn.functional.one_hot(torch.tensor([2, 1, 0, 3]), 4) * surest[..., None]
        logits[..., 3] = -surest
        coefficients = self.coefficients.expand(len(images), -1, -1)
        return {"protos": protos, "coefficients": coefficients, "logits": logits}


def encode_frames(answer: Callable) -> Verdict:
    """encode_frames(model, frames (B, 3, H, W)) -> QueryFrame of a `Prototypes`."""

    def classes(logits):
        return logits.softmax(-1)[..., :-1]

    def reference(model, frames, scale=255, flip=(1,), back=(0, 3, 1, 2), classes=classes):
        said = model(scale * frames.flip(flip).movedim(1, -1))
        features, size = said["protos"].permute(back), tuple(frames.shape[-2:])
        return QueryFrame(features, lambda: (classes(said["logits"]), said["coefficients"]), size)

    def view(frame):
        return {"classes": frame.out.class_logits.sigmoid(), "masks": frame.out.mask_logits}

    mistakes = [
        "The last column says how little is there: it is no class, so leave it out.",
        partial(reference, classes=lambda logits: logits.softmax(-1)),
        "Softmax needs the column of no object as a rival: cut it off afterwards.",
        partial(reference, classes=lambda logits: logits[..., :-1].softmax(-1)),
        "These classes exclude each other: softmax, not sigmoid.",
        partial(reference, classes=lambda logits: logits[..., :-1].sigmoid()),
        "This network wants 0 .. 255; ours gives 0 .. 1.",
        partial(reference, scale=1),
        "This network wants blue first; ours gives red first.",
        partial(reference, flip=()),
        "Height and width have changed places.",
        partial(reference, back=(0, 3, 2, 1)),
    ]

    def fault(got, model, frames):
        if not isinstance(got, QueryFrame):
            return say("it gives a {kind}, a QueryFrame is asked.", kind=type(got).__name__)
        try:
            seen = view(got)
        except TypeError:
            hint = "`decode` is a function that takes nothing and gives probabilities and kernels."
            return say(hint)
        if got.size != tuple(frames.shape[-2:]):
            wrong = "its size is {size}; the frames are {shape}."
            return say(wrong, size=got.size, shape=tuple(frames.shape))
        if not (problem := difference(seen, view(reference(model, frames)))):
            return ""
        slips = zip(mistakes[::2], mistakes[1::2])
        hints = (hint for hint, slip in slips if not difference(seen, view(slip(model, frames))))
        wrong = "for frames {shape} this is wrong: {problem}"
        return say(wrong, next(hints, ""), shape=tuple(frames.shape), problem=problem)

    rng = np.random.default_rng()
    cases = ((Prototypes(), torch.from_numpy(rng.random((2, 3, 64, 96))).float()) for _ in "ab")
    praise = "Its scores and masks arrive whole: tracker, Fig 2 and evaluation can have it."
    return examine(answer, encode_frames, cases, fault, praise, reference)


class Allocations(TorchDispatchMode):
    """Counts the `bytes` of all tensors that operations make while it is entered."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        before, after = (filter(torch.is_tensor, tree_leaves(tree)) for tree in (args, made))
        known = {x.untyped_storage().data_ptr() for x in before}
        new = (x.untyped_storage() for x in after)  # unless it is a view, or changed in place
        self.bytes += sum(store.nbytes() for store in new if store.data_ptr() not in known)
        return made


def handovers(model: QueryModel, clips: Iterable[Clip], gap: int = 3) -> tuple[Tensor, Tensor]:
    """Where another query takes an instance over: kernels (L, N, D), rows (n, 4).

    A row t, u, old, new: in frame t the query `old` holds the instance; in frame u = t + gap the
    query `new` does, and the mask of `old` fits it no more. Model and clips share their categories.
    """
    kernels, rows = [], []
    for clip in clips:
        start, ious, holders = len(kernels), [], []
        for t, image in enumerate(clip):
            out = (frame := encode(model, image)).out
            ious.append(mask_ious(masks_of_queries(frame), clip.masks(t)))
            held = assign_queries(ious[t], out.class_logits[0].sigmoid()[:, clip.labels].numpy())
            holders.append({instance: query for query, instance in held})
            kernels.append(out.kernels[0])
        for t in range(len(clip) - gap):
            for instance, old in holders[t].items():
                new, u = holders[t + gap].get(instance), t + gap
                if new is not None and ious[u][old, instance] < HOLD_IOU:
                    rows.append((start + t, start + u, old, new))
    return torch.stack(kernels), torch.tensor(rows)


def plot_family(models: dict[str, tuple[int, str]]) -> Picture:
    """Which ideas are in which models: {name: (year, "#o..")}; # as here, o in another form."""
    fig = new_figure()
    note = "Full: the same idea as in MobileInst. Ring: another form of it. Year: first preprint."
    headline(fig, "The product K . X_mask is in nearly all of them", note)
    axes = bare(fig.place(0.15, 0.7, 9, 0.24 * (len(models) + 1)))
    axes.set(xlim=(0, 9), ylim=(len(models) - 0.5, -1.5))
    ideas = zip(IDEAS, map(rgb, (1, 2, 3, 4)))
    columns = [(3.6 + 1.5 * i, idea, color) for i, (idea, color) in enumerate(ideas)]
    for x, idea, _ in columns:
        axes.text(x, -1, idea, fontsize=9, fontweight="bold", **CENTER)
    for row, (name, (year, marks)) in enumerate(models.items()):
        ours = name == "MobileInst"
        color = "#fff2cc" if ours else ("#f6f6f6", "white")[row % 2]
        axes.axhspan(row - 0.5, row + 0.5, color=color)
        axes.text(0.1, row, year, va="center", fontsize=9, color=GREY)
        axes.text(0.7, row, name, va="center", fontsize=9, fontweight="bold" if ours else None)
        for mark, (x, _, color) in zip(marks, columns):
            if mark in "#o":
                fill = color if mark == "#" else "none"
                axes.scatter(x, row, 60, facecolors=[fill], edgecolors=[color])
    return fig
