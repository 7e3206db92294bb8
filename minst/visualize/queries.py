"""Queries are good trackers: Fig 2 of the paper, with the numbers behind it.

    frames t = 0..L-1, each a key frame of its own ─ model ─> Recording: scores, kernels, masks

     frames    masks coloured by query; one strip for each model             what is seen
     query a   its mask in every frame, red where it does     cos(K_t, K_u)  why it works
     query b   not hold its instance, its score below            (L, L)

Nothing is tracked or passed on between the frames: that a row shows one object is the model's own
doing. Who holds an instance, `minst.evaluation.consistency` says.

Symbols: L frames, N queries, G instances, C classes.

Assumption: a query is chosen, and its instance fixed, when it first holds one, so that the frames
    after it can go wrong: the best in hindsight would flatter. What is less than a tenth of the
    instance, as when it just comes into view, does not choose: a sliver fits anything.

Lesson: notebooks/06_temporal_training.ipynb
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.ndimage import find_objects

from minst.evaluation.consistency import HOLD_IOU, assign_queries, mask_ious
from minst.matcher import pairwise_dice
from minst.protocol import QueryModel, category_key
from minst.tracking import cosine_similarity
from minst.visualize.masks import class_name, draw_frame, faded
from minst.visualize.recording import Recording, read_frames
from minst.visualize.style import (
    CENTER,
    INK,
    RED,
    WIDTH,
    Picture,
    bare,
    caption,
    headline,
    new_figure,
    rgb,
)
from minst.weights import trained_side

__all__ = ["choose_queries", "class_probabilities", "plot_query_consistency"]

MAX_ROWS, MAX_PAIRS = 4, 3  # of one model; of two, compared
VISIBLE_SCORE = 0.3  # queries below this are not drawn on the frames unless they are chosen
WEAK_SHARE = 0.3  # queries below this share of the best one's score have nothing to show
DUPLICATE_DICE = 0.5  # mean dice over the frames from which on two queries count as one object
GAP = 0.02  # white space on either side of a cell of a strip, as a share of its width
SHORTER_SIDE = 480  # of frames, where the weights do not know theirs
SLIVER = 0.1  # share of an instance's largest area below which it chooses no query


class _Row(NamedTuple):
    """A query of one model, and the instance that it is to hold, if one is known."""

    query: int
    color: tuple[float, float, float]
    label: str  # class and mean score
    soft: np.ndarray  # (L, H, W) in [0, 1]
    scores: list[float]  # L, of the best class
    similarity: np.ndarray  # (L, L)
    others: list[float]  # mean cosine with the kernels of each other row of the model
    outline: np.ndarray | None  # (L, H, W) bool, the instance
    held: list[bool | None]  # L; None where the instance is not visible, or unknown


def class_probabilities(recording: Recording, video, count: int) -> np.ndarray:
    """p of the class of each of `count` annotated instances: (L, N, G); where not known, 1.

    The model's classes may not stand in the order of the video's categories.
    """
    names = [category_key(name) for name in recording.config.class_names]
    labels, theirs = getattr(video, "labels", [-1] * count), getattr(video, "categories", None)
    if names and theirs:
        keys = [category_key(theirs[label]) for label in labels]
        labels = [names.index(key) if key in names else -1 for key in keys]
    known = range(recording.probabilities.shape[-1])
    labels = [label if label in known else -1 for label in labels]  # the last: 1
    return F.pad(recording.probabilities, (0, 1), value=1.0)[..., labels].cpu().numpy()


def choose_queries(recording: Recording, count: int = MAX_ROWS) -> list[int]:
    """The queries of best mean score, but for weak ones and those that repeat another."""
    masks = (recording.mask_logits(t).sigmoid().flatten(1) for t in range(len(recording)))
    overlap = torch.stack([pairwise_dice(m, m) for m in masks]).mean(0)  # (N, N)
    scores = recording.scores.mean(0)  # (N,)
    chosen: list[int] = []
    for query in scores.argsort(descending=True).tolist():
        if scores[query] < WEAK_SHARE * scores.max():
            break
        if len(chosen) < count and all(overlap[query, other] < DUPLICATE_DICE for other in chosen):
            chosen.append(query)
    return chosen


def plot_query_consistency(
    model: QueryModel | Mapping[str, QueryModel],
    video,
    num_frames: int = 11,
    frames: Sequence[int] | None = None,
    tile: float | None = None,
) -> Picture:
    """Fig 2: the same query segments the same instance in the first `num_frames` frames.

    model: one, or {name: model} of one or two, which are compared on the same frames and instances.
    video: a clip with `render(t)`, whose annotations tell where a query holds its instance, or an
    iterable of frames, for one model. frames: others than the first, as for `read_frames`.
    tile: width of a frame in the figure, in inches; by default the figure is as wide as a page.

    The rows are the annotated instances seen in most frames (4; 3 for two models), each with the
    query that holds it in the first frame in which one does; without annotations `choose_queries`.
    ValueError as of `read_frames`, and for two models without annotations.
    """
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    if not 1 <= len(models) <= 2:
        raise ValueError(f"models {list(models)}: give one model, or one or two as {{name: model}}")
    side = trained_side(next(iter(models.values()))) or SHORTER_SIDE
    frames = range(num_frames) if frames is None else frames
    shots = read_frames(video, shorter_side=side, frames=frames)
    recordings = [Recording(each, shots) for each in models.values()]
    truth = None if shots.truth is None else np.stack(shots.truth)  # (L, G, H, W)
    if truth is not None and truth.any():
        said = [class_probabilities(each, video, truth.shape[1]) for each in recordings]
        instances, picks = _holders(recordings, truth, said)
    elif len(models) == 1:
        picks = [choose_queries(recordings[0])]
        instances = [None] * len(picks[0])
    else:
        raise ValueError("two models are compared on annotated instances, and none is visible here")
    # An instance has the colour that it has everywhere.
    colors = [i + 1 if m is None else m + 1 for i, m in enumerate(instances)]
    strips, rows = [], []  # of each model
    for each, chosen in zip(recordings, picks):
        identities = dict(zip(chosen, colors))
        strips.append([_colored(each, t, identities) for t in range(len(each))])
        rows.append([_row(each, q, identities, m, truth) for q, m in zip(chosen, instances)])
    names = [name if len(name) <= 25 else name[:24] + "…" for name in map(str, models)]
    fig = _page(strips, rows, names, shots.times, tile)
    _title(fig, names, recordings, rows)
    return fig


def _holders(
    recordings: list[Recording], truth: np.ndarray, said: list[np.ndarray]
) -> tuple[list[int], list[list[int]]]:
    """The instances of the rows, and each model's queries for them.

    truth: (L, G, H, W). said: of each model the probabilities (L, N, G) of the instances' classes.
    """
    area = truth.sum((2, 3))  # (L, G)
    seen = (area > 0).sum(0)
    order = sorted(np.flatnonzero(seen).tolist(), key=lambda m: (-seen[m], -area[:, m].sum()))
    instances = order[: MAX_ROWS if len(recordings) == 1 else MAX_PAIRS]
    enough, picks = (area >= SLIVER * area.max(0))[:, None], []
    for recording, p in zip(recordings, said):
        ious = np.stack([recording.ious(t) for t in range(len(recording))]) * enough  # (L, N, G)
        held = _first_holders(ious, p)
        for m in instances:  # what is never held has the nearest query of those that hold nothing
            taken = np.isin(range(ious.shape[1]), list(held.values()))
            held.setdefault(m, int(np.where(taken, -1, ious[:, :, m].sum(0)).argmax()))
        picks.append([held[m] for m in instances])
    return instances, picks


def _first_holders(ious: np.ndarray, said: np.ndarray) -> dict[int, int]:
    """IoU and p(class) (L, N, G) -> {instance: the first to hold it that held none before}."""
    holders: dict[int, int] = {}
    for frame, probabilities in zip(ious, said):
        for query, instance in assign_queries(frame, probabilities):
            if instance not in holders and query not in holders.values():
                holders[instance] = query
    return holders


def _row(
    recording: Recording, query: int, identities: dict[int, int], instance: int | None, truth
) -> _Row:
    """A query, {query: its colour} of all rows of its model, its instance in truth (L, G, H, W)."""
    means = recording.class_scores[:, query].mean(0)
    label = class_name(recording.config.class_names, int(means.argmax()))
    kernels = recording.kernels.transpose(0, 1)  # (N, L, D)
    cosines = {q: cosine_similarity(kernels[query], kernels[q]).cpu().numpy() for q in identities}
    soft = np.stack([recording.soft_mask(query, t, t) for t in range(len(recording))])
    outline, held = None, [None] * len(recording)
    if instance is not None:
        outline = truth[:, instance]
        ious = [mask_ious(m[None] >= 0.5, true[None])[0, 0] for m, true in zip(soft, outline)]
        held = [bool(iou >= HOLD_IOU) if o.any() else None for iou, o in zip(ious, outline)]
    return _Row(
        query=query,
        color=rgb(identities[query]),
        label=f"{label} {float(means.max()):.2f}",
        soft=soft,
        scores=recording.scores[:, query].tolist(),
        similarity=cosines.pop(query),
        others=[float(cosine.mean()) for cosine in cosines.values()],
        outline=outline,
        held=held,
    )


def _page(
    strips: list, rows: list[list[_Row]], names: list[str], times: Sequence[int], tile: float | None
) -> Picture:
    """Strips of frames, then of masks with a matrix beside each. All in inches."""
    (models, count), (height, width) = (len(strips), len(strips[0])), strips[0][0].shape[:2]
    left, right = (1.2 if models == 1 else 1.65), 1.24
    cell = (tile or (WIDTH - left - right) / count) * height / width  # its height
    cell = cell if tile else min(cell, 5 / (len(rows[0]) + 1) / models)
    strip, place, gap = cell * width / height * count, max(cell, 0.5), 0.18
    side = min(place, 0.6)
    low = min(0.5, *(float(row.similarity.min()) for own in rows for row in own))
    low = np.floor(10 * low) / 10
    whose = [f"{name}\n" if models > 1 else "" for name in names]
    fig, top = new_figure(width=max(WIDTH, left + strip + right)), 0.72
    for who, cells in zip(whose, strips):
        axes = bare(fig.place(left, top + (place - cell) / 2, strip, cell))
        _strip(axes, cells)
        caption(axes, f"{who}frames, masks\ncoloured by query")
        top += place + gap
    title = "cosine of its kernels\nbetween frames: mean\n(with the others')\n"
    title += f"dark {low:.1f}, bright 1"
    for same in zip(*rows):  # the queries of all models for one instance
        top += 0.12 * (models - 1)
        for who, row in zip(whose, same):
            last = bare(fig.place(left, top + (place - cell) / 2, strip, cell, below=0.36))
            held = "held {} of {}".format(*_share([row])) if row.outline is not None else ""
            _mask_row(last, row, f"{who}query {row.query}\n{row.label}\n{held}".strip())
            axes = fig.place(left + strip + 0.14, top + (place - side) / 2, side, side)
            _similarity(axes, row, low)
            axes.set_title(title, fontsize=6.5, color=INK, pad=5, x=-0.1, ha="left")
            title = ""  # it stands above the first alone
            top += place + gap
    step = ceil(count * 0.42 / strip)  # so that the numbers do not touch
    words = [f"frame {times[0]}", *(f"+{t - times[0]}" for t in times[step::step])]
    last.set_xticks(range(0, count, step), words, fontsize=7)
    last.tick_params(length=0, pad=15)  # below the scores
    return fig


def _share(rows: list[_Row]) -> tuple[int, int, str]:
    """How often these queries hold their instances, of how often those are visible."""
    seen = [h for row in rows for h in row.held if h is not None]
    return sum(seen), len(seen), f"{100 * sum(seen) / max(len(seen), 1):.0f} %"


def _title(fig: Picture, names: list[str], recordings: list[Recording], rows) -> None:
    count, shares = len(recordings[0]), [_share(own) for own in rows]
    frames = f"{count} frame{'s' * (count > 1)}"
    head = f"One query, one instance? {frames}, a colour for each query"
    note = "Every frame is computed by itself, nothing is passed on.  Below a mask: its score."
    if shares[0][1]:
        both = ", ".join(f"{share[2]} {name}" for name, share in zip(names, shares))
        alone = "held {} of {} times ({})".format(*shares[0])
        head = f"One query, one instance: {both if len(rows) > 1 else alone}"
        note += f"  White line: the annotation.  Red, crossed: not held (IoU < {HOLD_IOU})."
    elif recordings[0].scores.max() < VISIBLE_SCORE:
        head = f"Nothing found in {frames}: no mask scores {VISIBLE_SCORE} or more"
    elif recordings[0].truth is not None:
        note += "  No annotated instance is visible."
    headline(fig, head, note)


def _colored(recording: Recording, t: int, identities: dict[int, int]) -> np.ndarray:
    """Frame t: masks of the chosen queries over those of other good ones, of something else."""
    scores = recording.scores[t]
    masks = recording.mask_logits(t).sigmoid().flatten(1)
    overlap = pairwise_dice(masks, masks[list(identities)]).amax(-1)  # (N,) with the chosen
    others = ((scores >= VISIBLE_SCORE) & (overlap < DUPLICATE_DICE)).nonzero().flatten().tolist()
    order = [q for q in others if q not in identities]
    order += sorted(identities, key=lambda q: float(scores[q]))
    # The others have colours of their own, the same in all frames.
    own = max(identities.values()) + 1
    ids = [identities.get(q, own + q) for q in order]
    image = faded(recording.images[t])  # so that colour means query and nothing else
    return draw_frame(image, recording.found(t, order), ids, scale=1, opacity=0.65)


def _strip(axes, cells: Sequence[np.ndarray]) -> None:
    """Pictures of one size (h, w, 3) beside each other; picture t is centred on x = t."""
    small = max(1, int(cells[0].shape[1] / 320 / max(_room(axes, len(cells)), 1)))
    cells = np.stack([np.asarray(Image.fromarray(cell).reduce(small)) for cell in cells])
    gap = max(1, round(GAP * cells.shape[2]))
    cells = np.pad(cells, ((0, 0), (0, 0), (gap, gap), (0, 0)), constant_values=255)
    extent = (-0.5, len(cells) - 0.5, 1, 0)
    strip = np.concatenate(cells, axis=1)
    axes.imshow(strip, extent=extent, aspect="auto", interpolation="antialiased")


def _room(axes, count: int) -> float:
    """Inches of the width of one of `count` cells."""
    return axes.get_position().width * axes.figure.get_figwidth() / count


def _mask_row(axes, row: _Row, words: str) -> None:
    """The soft mask of a query in every frame, in a window that holds all that is ever covered."""
    outline = np.zeros(row.soft.shape, bool) if row.outline is None else row.outline
    window = _window((row.soft >= 0.5).any(0) | outline.any(0))
    color = np.array(row.color)
    stops = [(0, 0.02 * color), (0.75, color), (1, 0.55 * color + 0.45)]
    ramp = LinearSegmentedColormap.from_list("", stops)
    cells = [(ramp(mask[window])[..., :3] * 255).astype(np.uint8) for mask in row.soft]
    _strip(axes, cells)
    width = cells[0].shape[1]
    share = width / (width + 2 * max(1, round(GAP * width)))  # of a cell's place, without its gaps
    room = _room(axes, len(cells))
    for t in range(0, len(cells), ceil(0.25 / room)):  # so that the numbers do not touch
        below = {"xytext": (0, -3.5), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(f"{row.scores[t]:.2f}", (t, 1), fontsize=6, color=INK, **below)
    for t, holds in enumerate(row.held):
        left = t - share / 2
        if outline[t][window].any():
            place = {"extent": (left, left + share, 0, 1), "origin": "lower"}
            axes.contour(outline[t][window], [0.5], colors="white", linewidths=0.6, **place)
        elif row.outline is not None and room > 0.4:
            axes.text(t, 0.5, "not\nvisible", color="#bbbbbb", fontsize=6.5, **CENTER)
        if holds is False:
            edge = {"fill": False, "edgecolor": RED, "linewidth": 2, "clip_on": False}
            axes.add_patch(Rectangle((left, 0), share, 1, **edge))
            mark = "lost" if True in row.held[:t] else "not yet" if True in row.held else "never"
            mark = f"× {mark}" if room > 0.5 else "×"
            look = {"color": "white", "fontsize": 6.5, "weight": "bold", "va": "top"}
            tag = {"facecolor": RED, "edgecolor": "none", "pad": 1.2}
            axes.text(left, 0, mark, bbox=tag, **look)
    caption(axes, words)
    axes.spines["left"].set(visible=True, color=row.color, linewidth=5, position=("outward", 5))


def _window(ever: np.ndarray) -> tuple[slice, ...]:
    """The least window of the frame's shape about a mask (H, W), with a margin; all if empty."""
    (box,) = find_objects((ever if ever.any() else ~ever).astype(np.uint8))
    share = 1.12 * max((side.stop - side.start) / n for side, n in zip(box, ever.shape))
    slices = []
    for side, n in zip(box, ever.shape):
        size = max(round(min(share, 1.0) * n), 1)
        low = min(max((side.start + side.stop - size) // 2, 0), n - size)
        slices.append(slice(low, low + size))
    return tuple(slices)


def _similarity(axes, row: _Row, low: float) -> None:
    """cos(K_t, K_u) of a row's query; beside, its mean over t != u, and with other queries."""
    axes.set(xticks=[], yticks=[])
    axes.imshow(row.similarity, vmin=low, vmax=1, cmap="cividis", interpolation="nearest")
    apart = row.similarity[~np.eye(len(row.held), dtype=bool)]
    words = f"{apart.mean():.2f}" if apart.size else ""
    words += f"\n({np.mean(row.others):.2f})" if row.others else ""
    beside = {"transform": axes.transAxes, "va": "center", "fontsize": 7.5, "color": INK}
    axes.text(1.08, 0.5, words.strip(), **beside)
