"""What a kernel knows of its query and of its instance, and how two key frames are associated.

    T key frames ─ model ─> kernels (T, N, D) ─ PCA ─> (T, N, 2)                                    plot_kernels
                                              └ less the mean of each query ─ PCA ─> (T, N, 2)
    kernels of two frames ─ cosine | cosine, centred per query | dice of masks ┐
    scores of two frames ─────────────────────────────────────── s_old * s_new ┴─> (N, N)           plot_similarity

    sum |K_t^q - mean|^2  =  sum |mean^q - mean|^2  +  sum |K_t^q - mean^q|^2
         all variance           between queries            within a query, over time

Symbols: T frames, N queries, M instances, D channels. Instance m = 0, 1, .. has the colour m + 1 in every figure.

Assumption: a query holds the instance that `assign_queries` gives it: of those with IoU >= 0.5 it
    has the best matching score. Several queries may segment one instance: an association is right
    if the new query has IoU >= 0.5 with what the old one held.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minst.evaluation.consistency import HOLD_IOU, assign_queries, mask_ious
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.tracking import Candidates, KernelTracker, assign, by_cosine, by_masks
from minst.visualize.assignment import BLUE, draw_numbers, faded, instance_names, ring, short
from minst.visualize.masks import class_name, draw_frame, place_labels
from minst.visualize.queries import QueryStates, choose_queries, query_states
from minst.visualize.style import GREY, INK, RED, WIDTH, headline, new_figure, rgb

__all__ = ["plot_kernels", "plot_similarity"]

MAX_FRAMES = 100
MIN_LIVE, MAX_LIVE = 4, 10  # queries shown: enough to compare, and their numbers can still be read
LIVE_SCORE = 0.3
LIGHT = "#d4d4d4"


def plot_kernels(model: MobileInst, video, num_frames: int | None = None, start: int = 0) -> Figure:
    """All kernels of all frames in the plane of their largest variance; beside it less each query's mean kernel.

    video: a clip with `render(t)` or an iterable of frames; without annotations the colours are the identities that
    `KernelTracker` (association "mask", every frame a key frame) finds. num_frames: default all, at most 100.
    """
    states = query_states(model, video, MAX_FRAMES if num_frames is None else num_frames, start)
    owner, names, source = _owners(model, video, states, start)  # (T, N), -1: none
    count, queries = owner.shape
    kernels = states.kernels.cpu().double()  # (T, N, D)
    centred = kernels - kernels.mean(0)
    between = _explained(kernels.flatten(0, 1), np.tile(np.arange(queries), count))
    held = torch.from_numpy(owner >= 0)

    fig = new_figure(5.2)
    note = f"{count} frame{'s' * (count > 1)} x {queries} queries, a dot each. Colour: {source}; grey: none. "
    note += "Line: the way of a query from ring to diamond, dots grow with time."
    headline(
        fig,
        f"Kernels tell queries apart: {100 * between:.0f} % of their variance lies between queries",
        note,
    )
    left, right = (fig.add_axes((x, 0.06, 0.455, 0.77)) for x in (0.033, 0.535))
    least = max(1, count // 8)  # frames that a query must hold an instance to be worth a label
    groups = [
        (q, m)
        for q in range(queries)
        for m in range(len(names))
        if (owner[:, q] == m).sum() >= least
    ]
    _cloud(
        left, kernels, kernels.flatten(0, 1), owner, {f"q{q} {names[m]}": (q, m) for q, m in groups}
    )
    basis = centred[held] if held.any() else centred.flatten(0, 1)
    _cloud(right, centred, basis, owner, {name: (slice(None), m) for m, name in enumerate(names)})
    left.set_title("the kernels", fontsize=8.5, color=INK, loc="left", pad=4)
    title = f"less each query's mean kernel: {100 * (1 - between):.0f} % is left"
    right.set_title(title, fontsize=8.5, color=INK, loc="left", pad=4)
    if held.any():
        share = 100 * _explained(centred[held], owner[owner >= 0])
        words = (
            f"which instance it is explains {share:.0f} %\nof what is left of the coloured kernels"
        )
        words = words if count > 1 else "one frame: every kernel is its own mean"
        right.text(
            0.02, 0.02, words, transform=right.transAxes, fontsize=7.5, color=INK, va="bottom"
        )
    return fig


def plot_similarity(
    model: MobileInst, video, first: int = 0, second: int = 3, mean: Tensor | None = None
) -> Figure:
    """Three ways to associate the queries of two key frames, each with its assignment and, where annotated, the truth.

    cosine of the kernels (the paper's); the same less each query's `mean` kernel (N, D); dice of
    masks (ours). Each is multiplied with both scores, as the tracker does. mean: default over all
    frames of the video, at most 100. It then holds much of the very instances, and two frames may
    lie on opposite sides of it; a mean over other clips says better what is the query's own.
    Assigned are all N queries; shown, with their scores, are the live ones (an instance held or
    score >= 0.3, in either frame), by the instance that they hold: at most 10, and other ones of
    best score if fewer than 4.
    Raises ValueError unless 0 <= first < second and the video has a frame `second`.
    """
    if not 0 <= first < second:
        raise ValueError(
            f"first is {first}, second {second}: give two different frames in their order, from 0 on"
        )
    states = query_states(model, video, max(MAX_FRAMES, second + 1))
    if len(states.images) <= second:
        raise ValueError(
            f"second is {second}, but the video ends with frame {len(states.images) - 1}"
        )
    mean = states.kernels.mean(0) if mean is None else mean.to(states.kernels)
    if mean.shape != states.kernels.shape[1:]:
        raise ValueError(
            f"mean is {tuple(mean.shape)}; a mean kernel a query is {tuple(states.kernels.shape[1:])}"
        )
    pair, names = (first, second), instance_names(model, video)
    ious = [_ious(states, video, t, t) for t in pair]  # (N, M) each
    said = states.of_instances(video, len(names), model.config.class_names)[list(pair)]
    held = [dict(assign_queries(iou, p)) for iou, p in zip(ious, said)]  # query -> instance
    true = {q: np.flatnonzero(ious[1][:, m] >= HOLD_IOU).tolist() for q, m in held[0].items()}
    true = {q: columns for q, columns in true.items() if columns}
    live = _live(states.scores.amax(-1)[list(pair)].amax(0), held)
    matrices = _similarities(model, states, first, second, mean)
    chosen = [assign(matrix).tolist() for matrix in matrices]
    found = [sum(new[q] in columns for q, columns in true.items()) for new in chosen]

    side, left, gap, top, bottom = 2.34, 1.28, 0.35, 0.82, 1.25  # inches
    picture = side * min(states.images[0].shape[0] / states.images[0].shape[1], 1.0)
    total = top + picture + 0.36 + side + bottom
    fig = new_figure(total)
    head = f"Which query of frame {second} goes on with which of frame {first}?"
    if names:
        head = f"No instance is held in both frames, {first} and {second}"
    if true:
        pairs = f"{len(true)} true pair{'s' * (len(true) > 1)}"
        head = f"Of {pairs} cosine finds {found[0]}, centred cosine {found[1]}, masks {found[2]}"
    note = f"Rows: queries of frame {first}; columns: of frame {second} in the same order, so on the diagonal a query "
    headline(
        fig, head, f"{note}stays itself. Shown: {len(live)} of {len(mean)}, the live ones first."
    )
    places = [(left + i * (side + gap)) / WIDTH for i in range(3)]
    upper = [
        fig.add_axes((x, 1 - (top + picture) / total, side / WIDTH, picture / total))
        for x in places
    ]
    lower = [fig.add_axes((x, bottom / total, side / WIDTH, side / total)) for x in places]
    for axes, t, iou, holds in zip(upper, pair, ious, held):
        _picture(axes, states, t, iou, holds, live)
    _legend(upper[2], side, picture, bool(true))
    titles = ("cosine x scores (the paper's)", "centred cosine x scores", "masks x scores (ours)")
    for i, (axes, matrix, new) in enumerate(zip(lower, matrices, chosen)):
        title = f"{titles[i]}: {found[i]} of {len(true)}" if true else titles[i]
        axes.set_title(title, fontsize=8.5, color=INK, loc="left", pad=4)
        draw_numbers(axes, matrix.cpu().numpy()[np.ix_(live, live)], 6.5, leading_zero=False)
        _marks(axes, live, new, true)
        axes.set_xticks(
            range(len(live)), _row_names(model, states, second, live, held[1], names), rotation=90
        )
        axes.set_yticks(
            range(len(live)), [] if i else _row_names(model, states, first, live, held[0], names)
        )
        axes.tick_params(labelsize=7, length=0, pad=6, labelcolor=INK)
        for k, q in enumerate(live):  # a bar in the colour of what the query holds
            cell = 1 / len(live)
            if q in held[0] and not i:
                axes.add_patch(
                    _bar((-0.03, 1 - (k + 1) * cell), 0.02, cell, rgb(held[0][q] + 1), axes)
                )
            if q in held[1]:
                axes.add_patch(_bar((k * cell, -0.03), cell, 0.02, rgb(held[1][q] + 1), axes))
    return fig


def _owners(
    model: MobileInst, video, states: QueryStates, start: int
) -> tuple[np.ndarray, list[str], str]:
    """What every query holds in every frame (T, N), -1 for nothing; the names of these things; who says so."""
    names = instance_names(model, video)
    owner = np.full(states.scores.shape[:2], -1)
    if names:
        said = states.of_instances(video, len(names), model.config.class_names)
        for t in range(len(owner)):
            for query, instance in assign_queries(_ious(states, video, t, start + t), said[t]):
                owner[t, query] = instance
        return owner, names, "the instance that the query holds"
    tracker, labels = KernelTracker(model, reuse_interval=1, association="mask"), {}
    for t, image in enumerate(states.images):
        found = tracker.step(image)
        owner[t, found.queries] = np.array(found.ids, int) - 1
        labels.update(zip(found.ids, found.labels))
    names = [f"{class_name(model.config.class_names, labels[i])} {i}" for i in sorted(labels)]
    return owner, names, "what the tracker found, no annotations"


def _ious(states: QueryStates, video, t: int, frame: int) -> np.ndarray:
    """IoU (N, M) of the queries in frame t of the states with the instances in `frame` of the video; M may be 0."""
    size = states.images[t].shape[:2]
    masks = video.render(frame).masks if hasattr(video, "labels") else np.zeros((0, *size), bool)
    return mask_ious(
        (upsample_masks(states.mask_logits[t : t + 1], size)[0] >= 0).cpu().numpy(), masks
    )


def _explained(x: Tensor, groups: np.ndarray) -> float:
    """The share of the variance of x (n, D) that lies between the groups (n,): eta squared, 0 if nothing varies."""
    x = x - x.mean(0)
    between = sum(
        float((groups == g).sum() * x[groups == g].mean(0).square().sum())
        for g in np.unique(groups)
    )
    return between / max(float(x.square().sum()), 1e-12)


def _cloud(axes, kernels: Tensor, basis: Tensor, owner: np.ndarray, labels: dict) -> None:
    """Kernels (T, N, D) on the first two principal axes of `basis` (n, D). labels: {text: (queries, instance)}."""
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
        axes.scatter(
            *points[seen, q].T, s=6 + 16 * seen / len(owner), color=shades, linewidths=0, zorder=3
        )
        for t, marker in ((seen[0], "o"), (seen[-1], "D")):
            edge = {
                "facecolor": "white",
                "edgecolor": colors[owner[t, q]],
                "linewidths": 1.3,
                "zorder": 4,
            }
            axes.scatter(*points[t, q], s=22, marker=marker, **edge)
    axes.margins(0.08)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GREY)
    whose = "" if len(basis) == owner.size else " (of the coloured)"
    axes.set_xlabel(
        f"first axis: {100 * share[0]:.0f} % of the variance{whose}",
        fontsize=7.5,
        color=INK,
        labelpad=3,
    )
    axes.set_ylabel(f"second: {100 * share[1]:.0f} %", fontsize=7.5, color=INK, labelpad=3)
    _labels(axes, points, owner, labels, colors)


def _labels(axes, points: np.ndarray, owner: np.ndarray, labels: dict, colors: dict) -> None:
    """Each text above its kernels, none over another."""
    box, anchors, shown = axes.get_window_extent(), [], []
    for text, (queries, instance) in labels.items():
        mine = np.zeros(owner.shape, bool)
        mine[:, queries] = owner[:, queries] == instance
        if mine.any():
            x, y = axes.transData.transform(
                np.quantile(points[mine], (0.5, 0.8), axis=0)[[0, 1], [0, 1]]
            )
            anchors.append((x - box.x0, box.y1 - y - 4))
            shown.append((text, colors[instance]))
    sizes = [(round(5.6 * len(text)) + 6, 14) for text, _ in shown]  # pixels, at 100 an inch
    for (x0, y0, x1, y1), (text, color) in zip(
        place_labels(anchors, sizes, (int(box.width), int(box.height))), shown
    ):
        place = axes.transData.inverted().transform(
            (box.x0 + (x0 + x1) / 2, box.y1 - (y0 + y1) / 2)
        )
        frame = {
            "boxstyle": "round,pad=0.12",
            "facecolor": "white",
            "edgecolor": color,
            "alpha": 0.85,
        }
        axes.text(
            *place, text, fontsize=6.5, color=INK, ha="center", va="center", zorder=6, bbox=frame
        )


def _live(scores: Tensor, held: list[dict[int, int]]) -> list[int]:
    """4 to 10 queries: those that hold an instance, by instance, then others by score, from 0.3 on if there are 4."""
    place = {
        q: (m, k) for k in (1, 0) for q, m in held[k].items()
    }  # what it held first comes first
    order = sorted(range(len(scores)), key=lambda q: (q not in place, -float(scores[q])))
    count = max(MIN_LIVE, sum(q in place or bool(scores[q] >= LIVE_SCORE) for q in order))
    live = order[: min(count, MAX_LIVE)]
    return sorted(live, key=lambda q: (q not in place, place.get(q, 0), -float(scores[q])))


@torch.inference_mode()
def _similarities(
    model: MobileInst, states: QueryStates, first: int, second: int, mean: Tensor
) -> list[Tensor]:
    """Old x new queries, (N, N) each: cosine, less each query's mean (N, D), masks; x scores."""
    x_mask = model.encode(image_to_batch(states.images[second])).x_mask[0]
    scores, every = states.scores.amax(-1), torch.arange(len(mean))
    old, new = (Candidates(states.kernels[t], scores[t], every) for t in (first, second))
    centred = (side._replace(kernels=side.kernels - mean) for side in (old, new))
    return [by_cosine(old, new, x_mask), by_cosine(*centred, x_mask), by_masks(old, new, x_mask)]


def _picture(
    axes, states: QueryStates, t: int, iou: np.ndarray, holds: dict[int, int], live: list[int]
) -> None:
    """Frame t with the masks of the queries that hold an instance, else of one query an object, numbered."""
    colors = {q: m + 1 for q, m in holds.items()}
    colors = colors or {q: i + 1 for i, q in enumerate(choose_queries(states, MAX_LIVE))}
    image = states.images[t]
    (height, width), chosen = image.shape[:2], list(colors)
    masks = (
        upsample_masks(states.mask_logits[t : t + 1, chosen], (height, width))[0].cpu().numpy() >= 0
    )
    painted = draw_frame(faded(image), list(masks), list(colors.values()), scale=2)
    axes.imshow(painted, extent=(0, width, height, 0))
    for (q, color), mask in zip(colors.items(), masks):
        if mask.any():
            same = [p for p in live if p != q and q in holds and iou[p, holds[q]] >= HOLD_IOU]
            alone = mask & (masks.sum(0) == 1)  # where a label does not hide another mask
            y, x = (float(i.mean()) for i in np.nonzero(alone if alone.any() else mask))
            box = {
                "boxstyle": "round,pad=0.15",
                "facecolor": "white",
                "edgecolor": rgb(color),
                "alpha": 0.85,
            }
            words = " ".join(f"q{p}" for p in [q, *same])
            axes.text(x, y, words, fontsize=6.5, color=INK, ha="center", va="center", bbox=box)
    axes.set_title(f"frame {t}", fontsize=8.5, color=INK, loc="left", pad=4)
    axes.axis("off")


def _row_names(
    model: MobileInst, states: QueryStates, t: int, live, holds: dict[int, int], names
) -> list[str]:
    """Query, the instance that it holds (in brackets the class it says if none), and its score."""
    scores = states.scores[t].amax(-1).tolist()
    said = [
        class_name(model.config.class_names, int(label)) for label in states.scores[t].argmax(-1)
    ]
    what = [names[holds[q]] if q in holds else f"({said[q]})" for q in live]
    return [f"q{q} {thing}  {short(scores[q])}" for q, thing in zip(live, what)]


def _bar(corner: tuple[float, float], width: float, height: float, color, axes) -> Rectangle:
    return Rectangle(
        corner, width, height, transform=axes.transAxes, clip_on=False, color=color, linewidth=0
    )


def _marks(axes, live: list[int], new: list[int], true: dict[int, list[int]]) -> None:
    """Boxes for the assignment, rings for the truth; where they disagree red, dashed, and apart."""
    for i, q in enumerate(live):
        right = new[q] in true.get(q, ())
        color = (BLUE if right else RED) if q in true else GREY
        if new[q] in live:
            place = (live.index(new[q]) - 0.47, i - 0.47)
            axes.add_patch(
                Rectangle(
                    place, 0.94, 0.94, fill=False, edgecolor=color, linewidth=2 if q in true else 1
                )
            )
        else:
            axes.text(
                len(live) - 0.45, i, f"\u2192q{new[q]}", fontsize=6.5, color=color, va="center"
            )
        for p in set(true.get(q, ())) & set(live):
            axes.add_patch(ring(i, live.index(p), BLUE if right else RED, "-" if right else "--"))


def _legend(axes, width: float, height: float, truth: bool) -> None:
    """What the marks mean. The axes measure inches."""
    lines = [("box", GREY, "assigned")]
    if truth:
        lines = [("both", BLUE, "assigned, and right"), ("ring", BLUE, "as right: a duplicate"),
                 ("box", RED, "assigned, but wrong"), ("ring", RED, "true, but missed"),
                 ("box", GREY, "assigned; had nothing, or what is gone")]  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    for i, (shape, color, words) in enumerate(lines):
        y = 0.15 + 0.27 * i
        if shape != "ring":
            axes.add_patch(
                Rectangle((0.05, y - 0.11), 0.22, 0.22, fill=False, edgecolor=color, linewidth=1.6)
            )
        if shape != "box":
            axes.add_patch(ring(y, 0.16, color, "--" if color == RED else "-", (0.16, 0.16)))
        axes.text(0.35, y, words, fontsize=7.5, color=INK, va="center")
    words = "\u2192 q7: assigned to a query not shown\nq3 (fish)  .12: holds nothing; its score"
    axes.text(
        0.05, 0.05 + 0.27 * len(lines), words, fontsize=7.5, color=INK, va="top", linespacing=1.5
    )
    axes.axis("off")
