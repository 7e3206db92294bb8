"""What a kernel knows of its query and of its instance, and how two key frames are associated.

    L key frames ─ model ─> kernels (L, N, D) ─ PCA ─> (L, N, 2)                        plot_kernels
                                              └ less the mean of each query ─ PCA ─> (L, N, 2)
    kernels of two frames ─ cosine | cosine, centred per query | dice of masks ┐
    scores of two frames ─────────────────────────────────────── s_old * s_new ┴─> plot_similarity

    sum |K_t^q - mean|^2  =  sum |mean^q - mean|^2  +  sum |K_t^q - mean^q|^2
         all variance           between queries            within a query, over time

Symbols: L frames, N queries, G instances, D channels. Instance m = 0, 1, .. has the colour m + 1.

Assumption: a query holds the instance that `assign_queries` gives it: of those with IoU >= 0.5 it
    has the best matching score. Several queries may segment one instance: an association is right
    if the new query has IoU >= 0.5 with what the old one held.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import numpy as np
import torch
from torch import Tensor

from minst.evaluation.consistency import HOLD_IOU, assign_queries
from minst.protocol import QueryModel
from minst.tracking import Candidates, assign, by_cosine, by_masks
from minst.visualize.assignment import box, draw_numbers, ring
from minst.visualize.masks import class_name, draw_frame, faded, place_labels
from minst.visualize.queries import SHORTER_SIDE, class_probabilities
from minst.visualize.recording import Recording, read_frames
from minst.visualize.style import BLUE, CENTER, GREY, INK, RED, Picture, headline, new_figure, rgb
from minst.weights import trained_side

__all__ = ["plot_kernels", "plot_similarity"]

MAX_FRAMES = 100
MIN_LIVE, MAX_LIVE = 4, 10  # queries shown: enough to compare, and their numbers can still be read
LIVE_SCORE = 0.3
LIGHT = "#d4d4d4"
WORDS, SMALL = {"fontsize": 7.5, "color": INK}, {"fontsize": 6.5, "color": INK}
TITLE = {"fontsize": 8.5, "color": INK, "loc": "left", "pad": 4}
TAG = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}  # about a label
# What the marks of an association mean, boxes and rings.
LEGEND = (
    ("so", BLUE, "assigned, and right"),
    ("o", BLUE, "as right: a duplicate"),
    ("s", RED, "assigned, but wrong"),
    ("o", RED, "true, but missed"),
    ("s", GREY, "assigned; had nothing, or what is gone"),
    ("", INK, "\u2192 q7: assigned to a query not shown"),
    ("", INK, "q3 (fish)  0.12: holds nothing; its score"),
)


def plot_kernels(model: QueryModel, video, num_frames: int = MAX_FRAMES) -> Picture:
    """All kernels in their plane of largest variance; beside it less each query's mean kernel.

    video: an annotated clip with `render(t)`; ValueError for another.
    """
    recording, names, said = _record(model, video, num_frames)
    kernels = recording.kernels.cpu().double()  # (L, N, D)
    count, queries = kernels.shape[:2]
    owner = np.full((count, queries), -1)  # the instance that is held, -1: none
    for t in range(count):
        for q, m in assign_queries(recording.ious(t), said[t]):
            owner[t, q] = m
    centred = kernels - kernels.mean(0)
    between = _explained(kernels.flatten(0, 1), np.tile(np.arange(queries), count))
    colored = torch.from_numpy(owner >= 0)
    basis = centred[colored] if colored.any() else centred.flatten(0, 1)
    instances = {name: owner == m for m, name in enumerate(names)}  # {label: its dots (L, N)}
    pairs = {
        f"q{q} {name}": dots & (np.arange(queries) == q)
        for q in range(queries)
        for name, dots in instances.items()
    }

    fig = new_figure(5.2)
    note = f"{count} frame{'s' * (count > 1)} x {queries} queries, a dot each. "
    note += "Colour: the instance that the query holds; grey: none. "
    note += "Line: the way of a query from ring to diamond, dots grow with time."
    share = f"{100 * between:.0f} % of their variance lies between queries"
    headline(fig, f"Kernels tell queries apart: {share}", note)
    left, right = (fig.place(x, 0.88, 4.28, 4.0) for x in (0.31, 5.03))
    left.set_title("the kernels", **TITLE)
    _cloud(left, kernels, kernels.flatten(0, 1), owner, pairs)
    title = f"less each query's mean kernel: {100 * (1 - between):.0f} % is left"
    right.set_title(title, **TITLE)
    _cloud(right, centred, basis, owner, instances)
    if count > 1 and colored.any():
        share = 100 * _explained(basis, owner[owner >= 0])
        words = f"which instance it is explains {share:.0f} %\n"
        words += "of what is left of the coloured kernels"
        right.text(0.02, 0.02, words, transform=right.transAxes, **WORDS)
    return fig


def plot_similarity(model: QueryModel, video, first: int = 0, second: int = 3) -> Picture:
    """Three ways to associate the queries of two key frames of an annotated clip, with the truth.

    cosine of the kernels (the paper's); the same less each query's mean kernel over the video (its
    first 100 frames, or more up to `second`); dice of masks (ours). Each is multiplied with both
    scores, as the tracker does. Assigned are all N queries; shown, with their scores, are the live
    ones (an instance held or score >= 0.3, in either frame), by the instance that they hold: at
    most 10, and other ones of best score if fewer than 4.
    Raises ValueError unless 0 <= first < second and the video has a frame `second`.
    """
    if not 0 <= first < second:
        words = "give two different frames in their order, from 0 on"
        raise ValueError(f"first is {first}, second {second}: {words}")
    recording, names, said = _record(model, video, max(MAX_FRAMES, second + 1))
    if len(recording) <= second:
        raise ValueError(f"second is {second}, but the video ends with frame {len(recording) - 1}")
    pair = (first, second)
    ious = [recording.ious(t) for t in pair]  # (N, G) each
    held = [dict(assign_queries(iou, said[t])) for t, iou in zip(pair, ious)]
    true = {q: np.flatnonzero(ious[1][:, m] >= HOLD_IOU).tolist() for q, m in held[0].items()}
    true = {q: columns for q, columns in true.items() if columns}
    live = _live(recording.scores[list(pair)].amax(0), held)
    matrices = _similarities(recording, first, second)
    chosen = [assign(matrix).tolist() for matrix in matrices]
    found = [sum(new[q] in columns for q, columns in true.items()) for new in chosen]

    fig = new_figure()
    head = f"No instance is held in both frames, {first} and {second}"
    if true:
        pairs = f"{len(true)} true pair{'s' * (len(true) > 1)}"
        head = f"Of {pairs} cosine finds {found[0]}, centred cosine {found[1]}, masks {found[2]}"
    note = f"Rows: queries of frame {first}; columns: of frame {second} in the same order, "
    note += "so on the diagonal a query stays itself. "
    note += f"Shown: {len(live)} of {len(matrices[0])}, the live ones first."
    headline(fig, head, note)
    side, places = 2.34, (1.28, 3.97, 6.66)  # inches
    height, width = recording.images[0].shape[:2]
    tall, legend = side * min(height / width, 1.0), 0.25 * len(LEGEND)
    for x, t, iou, holds in zip(places, pair, ious, held):
        _picture(fig.place(x, 0.82, side, tall), recording, t, iou, holds, live)
    _legend(fig.place(places[2], 0.82, side, legend), side, legend)
    titles = ("cosine x scores (the paper's)", "centred cosine x scores", "masks x scores (ours)")
    for i, (x, matrix, new) in enumerate(zip(places, matrices, chosen)):
        axes = fig.place(x, 1.18 + max(tall, legend), side, side, below=1.25)
        axes.set_title(f"{titles[i]}: {found[i]} of {len(true)}" if true else titles[i], **TITLE)
        draw_numbers(axes, matrix.cpu().numpy()[np.ix_(live, live)], 6.5, leading_zero=False)
        _marks(axes, live, new, true)
        axes.tick_params(labelsize=7, length=0, pad=6, labelcolor=INK, labelleft=i == 0)
        axes.tick_params("x", rotation=90)
        for axis, t, holds in zip((axes.yaxis, axes.xaxis), pair, held):
            _name(axis, recording, t, live, holds, names)
    return fig


def _record(model: QueryModel, video, count: int) -> tuple[Recording, list[str], np.ndarray]:
    """The first frames, ["fish 1", ..] of G instances, p of their classes (L, N, G)."""
    side = trained_side(model) or SHORTER_SIDE
    shots = read_frames(video, shorter_side=side, frames=range(count))
    if shots.truth is None:
        raise ValueError("kernels are compared by instance: give a clip with annotations")
    recording, classes = Recording(model, shots), getattr(video, "categories", None)
    classes = classes or model.config.class_names
    names = [f"{class_name(classes, int(k))} {m}" for m, k in enumerate(video.labels, start=1)]
    return recording, names, class_probabilities(recording, video, len(names))


def _explained(x: Tensor, groups: np.ndarray) -> float:
    """The share of the variance of x (n, D) between the groups (n,); 0 if nothing varies."""
    x = x - x.mean(0)
    parts = [x[groups == g] for g in np.unique(groups)]
    between = sum(len(part) * float(part.mean(0).square().sum()) for part in parts)
    return between / max(float(x.square().sum()), 1e-12)


def _cloud(axes, kernels: Tensor, basis: Tensor, owner: np.ndarray, labels: dict) -> None:
    """Kernels (L, N, D) on two main axes of `basis` (n, D), with labels {text: its dots (L, N)}."""
    mean = basis.mean(0)
    _, sizes, directions = torch.linalg.svd(basis - mean, full_matrices=False)
    points = np.zeros((*owner.shape, 2))
    points[..., : len(directions)] = (kernels - mean) @ directions[:2].T
    share = [*(sizes.square() / sizes.square().sum().clamp(min=1e-12)).tolist(), 0.0]
    axes.scatter(*points[owner < 0].T, s=5, color=LIGHT, linewidths=0)
    for q in np.flatnonzero((owner >= 0).any(0)):
        seen = np.flatnonzero(owner[:, q] >= 0)
        shades = [rgb(m + 1) for m in owner[seen, q]]
        axes.plot(*points[seen[0] : seen[-1] + 1, q].T, color=shades[0], linewidth=0.7, alpha=0.6)
        size = 6 + 16 * seen / len(owner)
        axes.scatter(*points[seen, q].T, s=size, color=shades, linewidths=0, zorder=3)
        for i, marker in ((0, "o"), (-1, "D")):
            look = {"facecolor": "white", "edgecolor": shades[i], "linewidths": 1.3}
            axes.scatter(*points[seen[i], q], s=22, marker=marker, zorder=4, **look)
    axes.margins(0.08)
    axes.autoscale_view()  # now, since the labels ask where the dots are
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GREY)
    whose = "" if len(basis) == owner.size else " (of the coloured)"
    axes.set_xlabel(f"first axis: {100 * share[0]:.0f} % of the variance{whose}", **WORDS)
    axes.set_ylabel(f"second: {100 * share[1]:.0f} %", **WORDS)
    least = max(1, len(owner) // 8)  # dots that are worth a label
    shown = {text: dots for text, dots in labels.items() if dots.sum() >= least}
    # Above the dots, none over another: in pixels, at 100 an inch.
    size, anchors = axes.get_window_extent().size, []
    for dots in shown.values():
        middle, upper = np.quantile(points[dots], (0.5, 0.8), axis=0)
        x, y = (axes.transData - axes.transAxes).transform((middle[0], upper[1]))  # in 0 .. 1
        anchors.append((x * size[0], (1 - y) * size[1] - 4))
    tags = [(round(5.6 * len(text)) + 6, 14) for text in shown]
    places = place_labels(anchors, tags, tuple(size.astype(int)))
    for (text, dots), corners in zip(shown.items(), places):
        x, y = np.reshape(corners, (2, 2)).mean(0) / size
        look = SMALL | {"bbox": TAG | {"edgecolor": rgb(owner[dots][0] + 1)}, "zorder": 6}
        axes.text(x, 1 - y, text, transform=axes.transAxes, **look, **CENTER)


def _live(scores: Tensor, held: list[dict[int, int]]) -> list[int]:
    """4 to 10 queries: those that hold an instance, by instance, then by score, down to 0.3."""
    # What it held first comes first.
    place = {q: (m, k) for k in (1, 0) for q, m in held[k].items()}
    every = range(len(scores))
    order = sorted(every, key=lambda q: (q not in place, place.get(q), -float(scores[q])))
    alive = sum(q in place or bool(scores[q] >= LIVE_SCORE) for q in every)
    return order[: min(max(MIN_LIVE, alive), MAX_LIVE)]


@torch.inference_mode()
def _similarities(recording: Recording, first: int, second: int) -> list[Tensor]:
    """Old x new queries, (N, N) each: cosine, less each query's mean, masks; times scores."""
    kernels, scores = recording.kernels, recording.scores
    mean, x_mask = kernels.mean(0), recording.frames[second].x_mask[0]
    every = torch.arange(len(mean))
    pair = [Candidates(kernels[t], scores[t], every) for t in (first, second)]
    centred = [side._replace(kernels=side.kernels - mean) for side in pair]
    return [by_cosine(*pair, x_mask), by_cosine(*centred, x_mask), by_masks(*pair, x_mask)]


def _picture(axes, recording: Recording, t: int, iou, holds: dict[int, int], live) -> None:
    """Frame t with the masks of the queries that hold an instance, their numbers and of copies."""
    image, masks = recording.images[t], recording.found(t, list(holds))
    painted = draw_frame(faded(image), list(masks), [m + 1 for m in holds.values()], scale=2)
    axes.imshow(painted, extent=(0, image.shape[1], image.shape[0], 0))
    for (q, m), mask in zip(holds.items(), masks):
        same = [p for p in live if p != q and iou[p, m] >= HOLD_IOU]
        alone = mask & (masks.sum(0) == 1)  # where a label does not hide another mask
        y, x = np.argwhere(alone if alone.any() else mask).mean(0)
        words, look = " ".join(f"q{p}" for p in [q, *same]), SMALL | CENTER
        axes.text(x, y, words, bbox=TAG | {"edgecolor": rgb(m + 1)}, **look)
    axes.set_title(f"frame {t}", **TITLE)
    axes.axis("off")


def _name(axis, recording: Recording, t: int, live, holds: dict[int, int], names) -> None:
    """Query, the instance that it holds (in brackets the class it says if none), and its score."""
    classes, said = recording.config.class_names, recording.class_scores[t].argmax(-1).tolist()
    what = [names[holds[q]] if q in holds else f"({class_name(classes, said[q])})" for q in live]
    scores = recording.scores[t, live].tolist()
    words = [f"q{q} {thing}  {score:.2f}" for q, thing, score in zip(live, what, scores)]
    axis.set_ticks(range(len(live)), words)
    for label, q in zip(axis.get_ticklabels(), live):
        if q in holds:  # the words in the colour of what it holds
            color = (*rgb(holds[q] + 1), 0.35)
            label.set_bbox({"facecolor": color, "edgecolor": "none", "pad": 1.5})


def _marks(axes, live: list[int], new: list[int], true: dict[int, list[int]]) -> None:
    """Boxes for the assignment, rings for the truth; where they disagree red, dashed, and apart."""
    for i, q in enumerate(live):
        right = new[q] in true.get(q, ())
        color = (BLUE if right else RED) if q in true else GREY
        if new[q] in live:
            axes.add_patch(box(i, live.index(new[q]), color))
        else:
            words = f"\u2192q{new[q]}"
            axes.text(len(live) - 0.45, i, words, va="center", **SMALL | {"color": color})
        for p in set(true.get(q, ())) & set(live):
            axes.add_patch(ring(i, live.index(p), BLUE if right else RED))


def _legend(axes, width: float, height: float) -> None:
    """What the marks mean. The axes measure inches."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    for i, (marks, color, words) in enumerate(LEGEND):
        y = 0.25 * i + 0.125
        if "s" in marks:
            axes.add_patch(box(y, 0.16, color, (0.2, 0.2)))
        if "o" in marks:
            axes.add_patch(ring(y, 0.16, color, (0.15, 0.15)))
        axes.text(0.35 if marks else 0.06, y, words, va="center", **WORDS)
    axes.axis("off")
