"""What a kernel knows of its query and of its instance, and how two key frames are associated.

    T key frames ─ model ─> kernels (T, N, D) ─ PCA ─> (T, N, 2)                        plot_kernels
                                              └ less the mean of each query ─ PCA ─> (T, N, 2)
    kernels of two frames ─ cosine | cosine, centred per query | dice of masks ┐
    scores of two frames ─────────────────────────────────────── s_old * s_new ┴─> plot_similarity

    sum |K_t^q - mean|^2  =  sum |mean^q - mean|^2  +  sum |K_t^q - mean^q|^2
         all variance           between queries            within a query, over time

Symbols: T frames, N queries, M instances, D channels. Instance m = 0, 1, .. has the colour m + 1.

Assumption: a query holds the instance that `assign_queries` gives it: of those with IoU >= 0.5 it
    has the best matching score. Several queries may segment one instance: an association is right
    if the new query has IoU >= 0.5 with what the old one held.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from minst.evaluation.consistency import HOLD_IOU, assign_queries
from minst.model import MobileInst
from minst.tracking import Candidates, KernelTracker, assign, by_cosine, by_masks
from minst.visualize.assignment import draw_numbers, instance_names, ring, short
from minst.visualize.masks import class_name, draw_frame, faded, place_labels
from minst.visualize.queries import choose_queries, class_probabilities, query_states
from minst.visualize.recording import Recording
from minst.visualize.style import (
    BLUE,
    CENTER,
    GREY,
    INK,
    RED,
    Picture,
    headline,
    new_figure,
    rgb,
)

__all__ = ["plot_kernels", "plot_similarity"]

MAX_FRAMES = 100
MIN_LIVE, MAX_LIVE = 4, 10  # queries shown: enough to compare, and their numbers can still be read
LIVE_SCORE = 0.3
LIGHT = "#d4d4d4"
TITLE = {"fontsize": 8.5, "color": INK, "loc": "left", "pad": 4}
TAG = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}  # about a label


def plot_kernels(
    model: MobileInst, video, num_frames: int | None = None, start: int = 0
) -> Picture:
    """All kernels in their plane of largest variance; beside it less each query's mean kernel.

    video: a clip with `render(t)` or an iterable of frames; without annotations the colours are the
    identities that `KernelTracker` (association "mask", every frame a key frame) finds.
    num_frames: default all, at most 100.
    """
    recording = query_states(model, video, MAX_FRAMES if num_frames is None else num_frames, start)
    owner, names, source = _owners(recording, video)  # (T, N), -1: none
    count, queries = owner.shape
    kernels = recording.kernels.cpu().double()  # (T, N, D)
    centred = kernels - kernels.mean(0)
    between = _explained(kernels.flatten(0, 1), np.tile(np.arange(queries), count))
    held = torch.from_numpy(owner >= 0)

    fig = new_figure(5.2)
    note = f"{count} frame{'s' * (count > 1)} x {queries} queries, a dot each. "
    note += f"Colour: {source}; grey: none. "
    note += "Line: the way of a query from ring to diamond, dots grow with time."
    share = f"{100 * between:.0f} % of their variance lies between queries"
    headline(fig, f"Kernels tell queries apart: {share}", note)
    left, right = (fig.place(x, 0.88, 4.28, 4.0) for x in (0.31, 5.03))
    least = max(1, count // 8)  # frames that a query must hold an instance to be worth a label
    groups = [
        (q, m)
        for q in range(queries)
        for m in range(len(names))
        if (owner[:, q] == m).sum() >= least
    ]
    labels = {f"q{q} {names[m]}": (q, m) for q, m in groups}
    _cloud(left, kernels, kernels.flatten(0, 1), owner, labels)
    basis = centred[held] if held.any() else centred.flatten(0, 1)
    _cloud(right, centred, basis, owner, {name: (slice(None), m) for m, name in enumerate(names)})
    left.set_title("the kernels", **TITLE)
    title = f"less each query's mean kernel: {100 * (1 - between):.0f} % is left"
    right.set_title(title, **TITLE)
    if held.any():
        share = 100 * _explained(centred[held], owner[owner >= 0])
        words = f"which instance it is explains {share:.0f} %\n"
        words += "of what is left of the coloured kernels"
        words = words if count > 1 else "one frame: every kernel is its own mean"
        right.text(0.02, 0.02, words, transform=right.transAxes, fontsize=7.5, color=INK)
    return fig


def plot_similarity(
    model: MobileInst, video, first: int = 0, second: int = 3, mean: Tensor | None = None
) -> Picture:
    """Three ways to associate the queries of two key frames; where annotated, with the truth.

    cosine of the kernels (the paper's); the same less each query's `mean` kernel (N, D); dice of
    masks (ours). Each is multiplied with both scores, as the tracker does. mean: default over all
    frames of the video, at most 100. It then holds much of the very instances, and two frames may
    lie on opposite sides of it; a mean over other clips says better what is the query's own.
    Assigned are all N queries; shown, with their scores, are the live ones (an instance held or
    score >= 0.3, in either frame), by the instance that they hold: at most 10, and other ones of
    best score if fewer than 4.
    Raises ValueError unless 0 <= first < second and the video has a frame `second`.
    """
    pair = (first, second)
    if not 0 <= first < second:
        words = "give two different frames in their order, from 0 on"
        raise ValueError(f"first is {first}, second {second}: {words}")
    recording = query_states(model, video, max(MAX_FRAMES, second + 1))
    if len(recording) <= second:
        raise ValueError(f"second is {second}, but the video ends with frame {len(recording) - 1}")
    mean = recording.kernels.mean(0) if mean is None else mean.to(recording.kernels)
    if mean.shape != recording.kernels.shape[1:]:
        wanted = tuple(recording.kernels.shape[1:])
        raise ValueError(f"mean is {tuple(mean.shape)}; a mean kernel a query is {wanted}")
    names = instance_names(model, video)
    said = class_probabilities(recording, video, len(names))
    ious, held = zip(*(_held(recording, said, t) for t in pair))
    true = {q: np.flatnonzero(ious[1][:, m] >= HOLD_IOU).tolist() for q, m in held[0].items()}
    true = {q: columns for q, columns in true.items() if columns}
    live = _live(recording.scores[list(pair)].amax(0), held)
    matrices = _similarities(recording, first, second, mean)
    chosen = [assign(matrix).tolist() for matrix in matrices]
    found = [sum(new[q] in columns for q, columns in true.items()) for new in chosen]

    fig = new_figure()
    head = f"Which query of frame {second} goes on with which of frame {first}?"
    if names:
        head = f"No instance is held in both frames, {first} and {second}"
    if true:
        pairs = f"{len(true)} true pair{'s' * (len(true) > 1)}"
        head = f"Of {pairs} cosine finds {found[0]}, centred cosine {found[1]}, masks {found[2]}"
    note = f"Rows: queries of frame {first}; columns: of frame {second} in the same order, "
    note += f"so on the diagonal a query stays itself. Shown: {len(live)} of {len(mean)}, "
    headline(fig, head, note + "the live ones first.")
    side, places = 2.34, (1.28, 3.97, 6.66)  # inches
    height, width = recording.images[0].shape[:2]
    tall = side * min(height / width, 1.0)
    upper = [fig.place(x, 0.82, side, tall) for x in places]
    for axes, t, iou, holds in zip(upper, pair, ious, held):
        _picture(axes, recording, t, iou, holds, live)
    _legend(upper[2], side, tall, bool(true))
    titles = ("cosine x scores (the paper's)", "centred cosine x scores", "masks x scores (ours)")
    rows, columns = (_row_names(recording, t, live, h, names) for t, h in zip(pair, held))
    for i, (x, matrix, new) in enumerate(zip(places, matrices, chosen)):
        axes = fig.place(x, 0.82 + tall + 0.36, side, side, below=1.25)
        axes.set_title(f"{titles[i]}: {found[i]} of {len(true)}" if true else titles[i], **TITLE)
        shown = matrix.cpu().numpy()[np.ix_(live, live)]
        draw_numbers(axes, shown, 6.5, leading_zero=False)
        _marks(axes, live, new, true)
        axes.set_xticks(range(len(live)), columns, rotation=90)
        axes.set_yticks(range(len(live)), [] if i else rows)
        axes.tick_params(labelsize=7, length=0, pad=6, labelcolor=INK)
        bar = {"transform": axes.transAxes, "clip_on": False, "linewidth": 0}
        cell = 1 / len(live)
        for k, q in enumerate(live):  # a bar in the colour of what the query holds
            if q in held[0] and not i:
                color = rgb(held[0][q] + 1)
                axes.add_patch(
                    Rectangle((-0.03, 1 - (k + 1) * cell), 0.02, cell, color=color, **bar)
                )
            if q in held[1]:
                color = rgb(held[1][q] + 1)
                axes.add_patch(Rectangle((k * cell, -0.03), cell, 0.02, color=color, **bar))
    return fig


def _owners(recording: Recording, video) -> tuple[np.ndarray, list[str], str]:
    """What each query holds in each frame (T, N), -1: nothing; the things' names; who says so."""
    names = instance_names(recording.model, video)
    owner = np.full(recording.scores.shape, -1)
    if names:
        said = class_probabilities(recording, video, len(names))
        for t in range(len(owner)):
            for query, instance in _held(recording, said, t)[1].items():
                owner[t, query] = instance
        return owner, names, "the instance that the query holds"
    tracker = KernelTracker(recording.model, reuse_interval=1, association="mask")
    labels = {}
    for t, frame in enumerate(recording.frames):
        found = tracker.advance(frame)
        owner[t, found.queries] = np.array(found.ids, int) - 1
        labels.update(zip(found.ids, found.labels))
    classes = recording.config.class_names
    names = [f"{class_name(classes, labels[i])} {i}" for i in sorted(labels)]
    return owner, names, "what the tracker found, no annotations"


def _held(recording: Recording, said: np.ndarray, t: int) -> tuple[np.ndarray, dict[int, int]]:
    """Of frame `t`: IoU of queries and instances (N, M), and {query: the instance that it holds}.

    said: probabilities of the instances' classes (T, N, M); M is 0 without annotations.
    """
    if not said.shape[2]:
        return said[t], {}
    ious = recording.ious(t)
    return ious, dict(assign_queries(ious, said[t]))


def _explained(x: Tensor, groups: np.ndarray) -> float:
    """The share of the variance of x (n, D) between the groups (n,); 0 if nothing varies."""
    x = x - x.mean(0)
    parts = [x[groups == g] for g in np.unique(groups)]
    between = sum(len(part) * float(part.mean(0).square().sum()) for part in parts)
    return between / max(float(x.square().sum()), 1e-12)


def _cloud(axes, kernels: Tensor, basis: Tensor, owner: np.ndarray, labels: dict) -> None:
    """Kernels (T, N, D) on two principal axes of `basis` (n, D). labels: {text: (queries, m)}."""
    mean = basis.mean(0)
    _, sizes, directions = torch.linalg.svd(basis - mean, full_matrices=False)
    points = np.zeros((*owner.shape, 2))
    points[..., : len(directions)] = (kernels - mean) @ directions[:2].T
    share = [*(sizes.square() / sizes.square().sum().clamp(min=1e-12)).tolist(), 0.0]
    colors = {m: rgb(m + 1) for m in range(owner.max() + 1)} | {-1: LIGHT}
    axes.scatter(*points[owner < 0].T, s=5, color=LIGHT, linewidths=0)
    for q in np.flatnonzero((owner >= 0).any(0)):
        seen = np.flatnonzero(owner[:, q] >= 0)
        way = np.arange(seen[0], seen[-1])
        steps = np.stack([points[way, q], points[way + 1, q]], axis=1)
        shades = [colors[m] for m in owner[way + 1, q]]
        axes.add_collection(LineCollection(steps, colors=shades, linewidths=0.7, alpha=0.6))
        shades = [colors[m] for m in owner[seen, q]]
        size = 6 + 16 * seen / len(owner)
        axes.scatter(*points[seen, q].T, s=size, color=shades, linewidths=0, zorder=3)
        for t, marker in ((seen[0], "o"), (seen[-1], "D")):
            look = {"facecolor": "white", "edgecolor": colors[owner[t, q]], "linewidths": 1.3}
            axes.scatter(*points[t, q], s=22, marker=marker, zorder=4, **look)
    axes.margins(0.08)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GREY)
    look = {"fontsize": 7.5, "color": INK, "labelpad": 3}
    whose = "" if len(basis) == owner.size else " (of the coloured)"
    axes.set_xlabel(f"first axis: {100 * share[0]:.0f} % of the variance{whose}", **look)
    axes.set_ylabel(f"second: {100 * share[1]:.0f} %", **look)
    _labels(axes, points, owner, labels, colors)


def _labels(axes, points: np.ndarray, owner: np.ndarray, labels: dict, colors: dict) -> None:
    """Each text above its kernels, none over another."""
    box, anchors, shown = axes.get_window_extent(), [], []
    for text, (queries, instance) in labels.items():
        mine = np.zeros(owner.shape, bool)
        mine[:, queries] = owner[:, queries] == instance
        if mine.any():
            middle, upper = np.quantile(points[mine], (0.5, 0.8), axis=0)
            x, y = axes.transData.transform((middle[0], upper[1]))
            anchors.append((x - box.x0, box.y1 - y - 4))
            shown.append((text, colors[instance]))
    sizes = [(round(5.6 * len(text)) + 6, 14) for text, _ in shown]  # pixels, at 100 an inch
    places = place_labels(anchors, sizes, (int(box.width), int(box.height)))
    for (x0, y0, x1, y1), (text, color) in zip(places, shown):
        pixels = (box.x0 + (x0 + x1) / 2, box.y1 - (y0 + y1) / 2)
        place = axes.transData.inverted().transform(pixels)
        tag = TAG | {"edgecolor": color}
        axes.text(*place, text, fontsize=6.5, color=INK, zorder=6, bbox=tag, **CENTER)


def _live(scores: Tensor, held: tuple[dict[int, int], ...]) -> list[int]:
    """4 to 10 queries: those that hold an instance, by instance, then by score, down to 0.3."""
    # What it held first comes first.
    place = {q: (m, k) for k in (1, 0) for q, m in held[k].items()}
    order = sorted(range(len(scores)), key=lambda q: (q not in place, -float(scores[q])))
    alive = sum(q in place or bool(scores[q] >= LIVE_SCORE) for q in order)
    live = order[: min(max(MIN_LIVE, alive), MAX_LIVE)]
    return sorted(live, key=lambda q: (q not in place, place.get(q, 0), -float(scores[q])))


@torch.inference_mode()
def _similarities(recording: Recording, first: int, second: int, mean: Tensor) -> list[Tensor]:
    """Old x new queries, (N, N) each: cosine, less each query's mean (N, D), masks; x scores."""
    x_mask, every = recording.frames[second].x_mask[0], torch.arange(len(mean))
    old, new = (
        Candidates(recording.kernels[t], recording.scores[t], every) for t in (first, second)
    )
    centred = (side._replace(kernels=side.kernels - mean) for side in (old, new))
    return [by_cosine(old, new, x_mask), by_cosine(*centred, x_mask), by_masks(old, new, x_mask)]


def _picture(axes, recording: Recording, t: int, iou, holds: dict[int, int], live) -> None:
    """Frame t with the masks of queries that hold an instance, else of one an object, numbered."""
    colors = {q: m + 1 for q, m in holds.items()}
    colors = colors or {q: i + 1 for i, q in enumerate(choose_queries(recording, MAX_LIVE))}
    image, masks = recording.images[t], recording.found(t, list(colors))
    painted = draw_frame(faded(image), list(masks), list(colors.values()), scale=2)
    axes.imshow(painted, extent=(0, image.shape[1], image.shape[0], 0))
    for (q, color), mask in zip(colors.items(), masks):
        if mask.any():
            same = [p for p in live if p != q and q in holds and iou[p, holds[q]] >= HOLD_IOU]
            alone = mask & (masks.sum(0) == 1)  # where a label does not hide another mask
            y, x = np.argwhere(alone if alone.any() else mask).mean(0)
            words, box = " ".join(f"q{p}" for p in [q, *same]), TAG | {"edgecolor": rgb(color)}
            axes.text(x, y, words, fontsize=6.5, color=INK, bbox=box, **CENTER)
    axes.set_title(f"frame {t}", **TITLE)
    axes.axis("off")


def _row_names(recording: Recording, t: int, live, holds: dict[int, int], names) -> list[str]:
    """Query, the instance that it holds (in brackets the class it says if none), and its score."""
    classes, said = recording.config.class_names, recording.class_scores[t].argmax(-1).tolist()
    what = [names[holds[q]] if q in holds else f"({class_name(classes, said[q])})" for q in live]
    scores = [short(score) for score in recording.scores[t, live].tolist()]
    return [f"q{q} {thing}  {score}" for q, thing, score in zip(live, what, scores)]


def _marks(axes, live: list[int], new: list[int], true: dict[int, list[int]]) -> None:
    """Boxes for the assignment, rings for the truth; where they disagree red, dashed, and apart."""
    for i, q in enumerate(live):
        right = new[q] in true.get(q, ())
        color = (BLUE if right else RED) if q in true else GREY
        if new[q] in live:
            look = {"fill": False, "edgecolor": color, "linewidth": 2 if q in true else 1}
            axes.add_patch(Rectangle((live.index(new[q]) - 0.47, i - 0.47), 0.94, 0.94, **look))
        else:
            words = f"\u2192q{new[q]}"
            axes.text(len(live) - 0.45, i, words, fontsize=6.5, color=color, va="center")
        for p in set(true.get(q, ())) & set(live):
            axes.add_patch(ring(i, live.index(p), BLUE if right else RED, "-" if right else "--"))


def _legend(axes, width: float, height: float, truth: bool) -> None:
    """What the marks mean. The axes measure inches."""
    lines = [("box", GREY, "assigned")]
    if truth:
        lines = [
            ("both", BLUE, "assigned, and right"),
            ("ring", BLUE, "as right: a duplicate"),
            ("box", RED, "assigned, but wrong"),
            ("ring", RED, "true, but missed"),
            ("box", GREY, "assigned; had nothing, or what is gone"),
        ]
    axes.set(xlim=(0, width), ylim=(height, 0))
    for i, (shape, color, words) in enumerate(lines):
        y = 0.15 + 0.27 * i
        if shape != "ring":
            look = {"fill": False, "edgecolor": color, "linewidth": 1.6}
            axes.add_patch(Rectangle((0.05, y - 0.11), 0.22, 0.22, **look))
        if shape != "box":
            axes.add_patch(ring(y, 0.16, color, "--" if color == RED else "-", (0.16, 0.16)))
        axes.text(0.35, y, words, fontsize=7.5, color=INK, va="center")
    words = "\u2192 q7: assigned to a query not shown\nq3 (fish)  .12: holds nothing; its score"
    look = {"fontsize": 7.5, "color": INK, "va": "top", "linespacing": 1.5}
    axes.text(0.05, 0.05 + 0.27 * len(lines), words, **look)
    axes.axis("off")
