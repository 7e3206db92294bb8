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
from matplotlib.patches import Rectangle
from torch import Tensor

from minst.evaluation.consistency import HOLD_IOU, assign_queries
from minst.model import MobileInst
from minst.tracking import Candidates, assign, by_cosine, by_masks
from minst.visualize.assignment import draw_numbers, instance_names, ring
from minst.visualize.masks import class_name, draw_frame, faded, place_labels
from minst.visualize.queries import class_probabilities
from minst.visualize.recording import Recording, read_clip
from minst.visualize.style import BLUE, CENTER, GREY, INK, RED, Picture, headline, new_figure, rgb
from minst.weights import trained_side

__all__ = ["plot_kernels", "plot_similarity"]

MAX_FRAMES = 100
MIN_LIVE, MAX_LIVE = 4, 10  # queries shown: enough to compare, and their numbers can still be read
LIVE_SCORE = 0.3
LIGHT = "#d4d4d4"
TITLE = {"fontsize": 8.5, "color": INK, "loc": "left", "pad": 4}
TAG = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}  # about a label
# What the marks of an association mean: (box, ring, colour, words).
LEGEND = (
    (True, True, BLUE, "assigned, and right"),
    (False, True, BLUE, "as right: a duplicate"),
    (True, False, RED, "assigned, but wrong"),
    (False, True, RED, "true, but missed"),
    (True, False, GREY, "assigned; had nothing, or what is gone"),
)


def plot_kernels(model: MobileInst, video, num_frames: int = MAX_FRAMES) -> Picture:
    """All kernels in their plane of largest variance; beside it less each query's mean kernel.

    video: an annotated clip with `render(t)`; ValueError for another.
    """
    recording, names, held = _record(model, video, num_frames)
    owner = np.full(recording.scores.shape, -1)  # (L, N): the instance that is held, -1: none
    for t, holds in enumerate(held):
        owner[t, list(holds)] = list(holds.values())
    count, queries = owner.shape
    kernels = recording.kernels.cpu().double()  # (L, N, D)
    centred = kernels - kernels.mean(0)
    between = _explained(kernels.flatten(0, 1), np.tile(np.arange(queries), count))

    fig = new_figure(5.2)
    note = f"{count} frame{'s' * (count > 1)} x {queries} queries, a dot each. "
    note += "Colour: the instance that the query holds; grey: none. "
    note += "Line: the way of a query from ring to diamond, dots grow with time."
    share = f"{100 * between:.0f} % of their variance lies between queries"
    headline(fig, f"Kernels tell queries apart: {share}", note)
    left, right = (fig.place(x, 0.88, 4.28, 4.0) for x in (0.31, 5.03))
    least = max(1, count // 8)  # frames that a query must hold an instance to be worth a label
    pairs = [(q, m) for q in range(queries) for m in range(len(names))]
    labels = {f"q{q} {names[m]}": (q, m) for q, m in pairs if (owner[:, q] == m).sum() >= least}
    _cloud(left, kernels, kernels.flatten(0, 1), owner, labels)
    colored = torch.from_numpy(owner >= 0)
    basis = centred[colored] if colored.any() else centred.flatten(0, 1)
    _cloud(right, centred, basis, owner, {name: (slice(None), m) for m, name in enumerate(names)})
    left.set_title("the kernels", **TITLE)
    title = f"less each query's mean kernel: {100 * (1 - between):.0f} % is left"
    right.set_title(title, **TITLE)
    if count > 1 and colored.any():
        share = 100 * _explained(centred[colored], owner[owner >= 0])
        words = f"which instance it is explains {share:.0f} %\n"
        words += "of what is left of the coloured kernels"
        right.text(0.02, 0.02, words, transform=right.transAxes, fontsize=7.5, color=INK)
    return fig


def plot_similarity(model: MobileInst, video, first: int = 0, second: int = 3) -> Picture:
    """Three ways to associate the queries of two key frames of an annotated clip, with the truth.

    cosine of the kernels (the paper's); the same less each query's mean kernel over all frames of
    the video (at most 100); dice of masks (ours). Each is multiplied with both scores, as the
    tracker does. Assigned are all N queries; shown, with their scores, are the live ones (an
    instance held or score >= 0.3, in either frame), by the instance that they hold: at most 10, and
    other ones of best score if fewer than 4.
    Raises ValueError unless 0 <= first < second and the video has a frame `second`.
    """
    pair = (first, second)
    if not 0 <= first < second:
        words = "give two different frames in their order, from 0 on"
        raise ValueError(f"first is {first}, second {second}: {words}")
    recording, names, held = _record(model, video, max(MAX_FRAMES, second + 1))
    if len(recording) <= second:
        raise ValueError(f"second is {second}, but the video ends with frame {len(recording) - 1}")
    held, ious = [held[t] for t in pair], [recording.ious(t) for t in pair]
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
    tall = side * min(height / width, 1.0)
    upper = [fig.place(x, 0.82, side, tall) for x in places]
    for axes, t, iou, holds in zip(upper, pair, ious, held):
        _picture(axes, recording, t, iou, holds, live)
    _legend(upper[2], side, tall)
    titles = ("cosine x scores (the paper's)", "centred cosine x scores", "masks x scores (ours)")
    rows, columns = (_names(recording, t, live, h, names) for t, h in zip(pair, held))
    for i, (x, matrix, new) in enumerate(zip(places, matrices, chosen)):
        axes = fig.place(x, 0.82 + tall + 0.36, side, side, below=1.25)
        axes.set_title(f"{titles[i]}: {found[i]} of {len(true)}" if true else titles[i], **TITLE)
        shown = matrix.cpu().numpy()[np.ix_(live, live)]
        draw_numbers(axes, shown, 6.5, leading_zero=False)
        _marks(axes, live, new, true)
        axes.set_xticks(range(len(live)), columns, rotation=90)
        axes.set_yticks(range(len(live)), [] if i else rows)
        axes.tick_params(labelsize=7, length=0, pad=6, labelcolor=INK)
        # The words in the colour of what the query holds.
        for labels, holds in ((axes.get_yticklabels(), held[0]), (axes.get_xticklabels(), held[1])):
            for label, q in zip(labels, live):
                if q in holds:
                    look = {
                        "facecolor": (*rgb(holds[q] + 1), 0.35),
                        "edgecolor": "none",
                        "pad": 1.5,
                    }
                    label.set_bbox(look)
    return fig


def _record(
    model: MobileInst, video, num_frames: int
) -> tuple[Recording, list[str], list[dict[int, int]]]:
    """The recording, its instances' names, and of each frame {query: the instance it holds}."""
    shots = read_clip(video, num_frames, trained_side(model))
    recording, names = Recording(model, shots), instance_names(model, video)
    if recording.truth is None:
        raise ValueError("kernels are compared by instance: give a clip with annotations")
    said = class_probabilities(recording, video, len(names))
    frames = range(len(recording))
    return recording, names, [dict(assign_queries(recording.ious(t), said[t])) for t in frames]


def _explained(x: Tensor, groups: np.ndarray) -> float:
    """The share of the variance of x (n, D) between the groups (n,); 0 if nothing varies."""
    x = x - x.mean(0)
    parts = [x[groups == g] for g in np.unique(groups)]
    between = sum(len(part) * float(part.mean(0).square().sum()) for part in parts)
    return between / max(float(x.square().sum()), 1e-12)


def _cloud(axes, kernels: Tensor, basis: Tensor, owner: np.ndarray, labels: dict) -> None:
    """Kernels (L, N, D) on two principal axes of `basis` (n, D). labels: {text: (queries, m)}."""
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
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GREY)
    look = {"fontsize": 7.5, "color": INK, "labelpad": 3}
    whose = "" if len(basis) == owner.size else " (of the coloured)"
    axes.set_xlabel(f"first axis: {100 * share[0]:.0f} % of the variance{whose}", **look)
    axes.set_ylabel(f"second: {100 * share[1]:.0f} %", **look)
    _labels(axes, points, owner, labels)


def _labels(axes, points: np.ndarray, owner: np.ndarray, labels: dict) -> None:
    """Each text above its kernels, none over another."""
    box, anchors, shown = axes.get_window_extent(), [], []
    for text, (queries, instance) in labels.items():
        mine = np.zeros(owner.shape, bool)
        mine[:, queries] = owner[:, queries] == instance
        if mine.any():
            middle, upper = np.quantile(points[mine], (0.5, 0.8), axis=0)
            x, y = axes.transData.transform((middle[0], upper[1]))
            anchors.append((x - box.x0, box.y1 - y - 4))
            shown.append((text, rgb(instance + 1)))
    sizes = [(round(5.6 * len(text)) + 6, 14) for text, _ in shown]  # pixels, at 100 an inch
    places = place_labels(anchors, sizes, (int(box.width), int(box.height)))
    for (x0, y0, x1, y1), (text, color) in zip(places, shown):
        pixels = (box.x0 + (x0 + x1) / 2, box.y1 - (y0 + y1) / 2)
        place = axes.transData.inverted().transform(pixels)
        tag = TAG | {"edgecolor": color}
        axes.text(*place, text, fontsize=6.5, color=INK, zorder=6, bbox=tag, **CENTER)


def _live(scores: Tensor, held: list[dict[int, int]]) -> list[int]:
    """4 to 10 queries: those that hold an instance, by instance, then by score, down to 0.3."""
    # What it held first comes first.
    place = {q: (m, k) for k in (1, 0) for q, m in held[k].items()}
    order = sorted(range(len(scores)), key=lambda q: (q not in place, -float(scores[q])))
    alive = sum(q in place or bool(scores[q] >= LIVE_SCORE) for q in order)
    live = order[: min(max(MIN_LIVE, alive), MAX_LIVE)]
    return sorted(live, key=lambda q: (q not in place, place.get(q, 0), -float(scores[q])))


@torch.inference_mode()
def _similarities(recording: Recording, first: int, second: int) -> list[Tensor]:
    """Old x new queries, (N, N) each: cosine, less each query's mean, masks; times scores."""
    mean, x_mask = recording.kernels.mean(0), recording.frames[second].x_mask[0]
    every = torch.arange(len(mean))
    old, new = (
        Candidates(recording.kernels[t], recording.scores[t], every) for t in (first, second)
    )
    centred = (side._replace(kernels=side.kernels - mean) for side in (old, new))
    return [by_cosine(old, new, x_mask), by_cosine(*centred, x_mask), by_masks(old, new, x_mask)]


def _picture(axes, recording: Recording, t: int, iou, holds: dict[int, int], live) -> None:
    """Frame t with the masks of the queries that hold an instance, numbered."""
    image, masks = recording.images[t], recording.found(t, list(holds))
    ids = [m + 1 for m in holds.values()]
    painted = draw_frame(faded(image), list(masks), ids, scale=2)
    axes.imshow(painted, extent=(0, image.shape[1], image.shape[0], 0))
    for (q, m), mask in zip(holds.items(), masks):
        same = [p for p in live if p != q and iou[p, m] >= HOLD_IOU]
        alone = mask & (masks.sum(0) == 1)  # where a label does not hide another mask
        y, x = np.argwhere(alone if alone.any() else mask).mean(0)
        words, box = " ".join(f"q{p}" for p in [q, *same]), TAG | {"edgecolor": rgb(m + 1)}
        axes.text(x, y, words, fontsize=6.5, color=INK, bbox=box, **CENTER)
    axes.set_title(f"frame {t}", **TITLE)
    axes.axis("off")


def _names(recording: Recording, t: int, live, holds: dict[int, int], names) -> list[str]:
    """Query, the instance that it holds (in brackets the class it says if none), and its score."""
    classes, said = recording.config.class_names, recording.class_scores[t].argmax(-1).tolist()
    what = [names[holds[q]] if q in holds else f"({class_name(classes, said[q])})" for q in live]
    scores = recording.scores[t, live].tolist()
    return [f"q{q} {thing}  {score:.2f}" for q, thing, score in zip(live, what, scores)]


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
            axes.add_patch(ring(i, live.index(p), BLUE if right else RED))


def _legend(axes, width: float, height: float) -> None:
    """What the marks mean. The axes measure inches."""
    axes.set(xlim=(0, width), ylim=(height, 0))
    for i, (box, circle, color, words) in enumerate(LEGEND):
        y = 0.15 + 0.27 * i
        if box:
            look = {"fill": False, "edgecolor": color, "linewidth": 1.6}
            axes.add_patch(Rectangle((0.05, y - 0.11), 0.22, 0.22, **look))
        if circle:
            axes.add_patch(ring(y, 0.16, color, (0.16, 0.16)))
        axes.text(0.35, y, words, fontsize=7.5, color=INK, va="center")
    words = "\u2192 q7: assigned to a query not shown\nq3 (fish)  0.12: holds nothing; its score"
    look = {"fontsize": 7.5, "color": INK, "va": "top", "linespacing": 1.5}
    axes.text(0.05, 0.05 + 0.27 * len(LEGEND), words, **look)
    axes.axis("off")
