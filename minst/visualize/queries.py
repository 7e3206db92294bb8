"""Queries are good trackers: Fig 2 of the paper, with the numbers behind it.

    frames t = 0..T-1, each a key frame of its own ─ model ─> Recording: scores, kernels, masks

     frames    masks coloured by query; one strip for each model             what is seen
     query a   its mask in every frame, red where it does     cos(K_t, K_u)  why it works
     query b   not hold its instance, its score below            (T, T)
     below     in which frames it holds its instance, and their share        how well

Nothing is tracked or passed on between the frames: that a row shows one object is the model's own
doing. Of two models one has its row below the other's, for the same instance.

Symbols: T frames, N queries, M instances, K classes, D channels, h w = H/8, W/8.

Who holds an instance, `minst.evaluation.consistency` says: of the queries with IoU >= 0.5 the one
of the best matching score.

Assumption: a query is chosen, and its instance fixed, when it first holds one, so that the frames
    after it can go wrong: the best in hindsight would flatter. What is less than a tenth of the
    instance, as when it just comes into view, does not choose: a sliver fits anything.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.optimize import linear_sum_assignment

from minst.evaluation.consistency import HOLD_IOU, assign_queries
from minst.matcher import pairwise_dice
from minst.model import MobileInst
from minst.tracking import cosine_similarity
from minst.visualize.masks import class_name, draw_frame, faded
from minst.visualize.recording import Recording, read_clip
from minst.visualize.style import (
    CENTER,
    GREY,
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

__all__ = ["choose_queries", "class_probabilities", "plot_query_consistency", "query_states"]

MAX_ROWS, MAX_PAIRS = 4, 3  # of one model; of two, compared
VISIBLE_SCORE = 0.3  # queries below this are not drawn on the frames unless they are chosen
WEAK_SHARE = 0.3  # queries below this share of the best one's score have nothing to show
DUPLICATE_DICE = 0.5  # mean dice over the frames from which on two queries count as one object
GAP = 0.02  # white space on either side of a cell of a strip, as a share of its width
SLIVER = 0.1  # share of an instance's largest area below which it chooses no query


class _Row(NamedTuple):
    """A query of one model, and the instance that it is to hold, if one is known."""

    query: int
    color: tuple[float, float, float]
    label: str  # class and mean score
    soft: np.ndarray  # (T, H, W) in [0, 1]
    scores: list[float]  # T, of the best class
    similarity: np.ndarray  # (T, T)
    others: list[float]  # mean cosine with the kernels of each other row of the model
    outline: np.ndarray | None  # (T, H, W) bool, the instance
    held: list[bool | None]  # T; None where the instance is not visible, or unknown


def query_states(model: MobileInst, video, num_frames: int = 11, start: int = 0) -> Recording:
    """What a model says of frames start .. start + num_frames - 1, fewer if the video ends.

    video: a clip with `render(t)` or any iterable of frames. ValueError as of `read_clip`.
    """
    return Recording(model, read_clip(video, num_frames, start))


def class_probabilities(recording: Recording, video, count: int) -> np.ndarray:
    """p of the class of each of `count` annotated instances: (T, N, M); where not known, 1.

    The model's classes may not stand in the order of the video's categories.
    """
    names, theirs = recording.config.class_names, getattr(video, "categories", None)
    found = np.ones((*recording.scores.shape, count))
    for m, label in enumerate(getattr(video, "labels", ())):
        if names and theirs:
            label = names.index(theirs[label]) if theirs[label] in names else -1
        if 0 <= label < recording.probabilities.shape[-1]:
            found[:, :, m] = recording.probabilities[:, :, label].cpu()
    return found


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
    model: MobileInst | Mapping[str, MobileInst],
    video,
    num_frames: int = 11,
    queries: Sequence[int] | None = None,
    start: int = 0,
) -> Picture:
    """Fig 2: the same query segments the same instance in `num_frames` consecutive frames.

    model: one, or {name: model} of one or two, which are compared on the same frames and instances.
    video: a clip with `render(t)`, whose annotations tell where a query holds its instance, or an
    iterable of frames. queries: which to show of a single model, 1 to 4; the instance of each is
    what it holds in the first frame in which it holds anything, and no two have the same.

    By default the rows are the annotated instances seen in most frames (4; 3 for two models), each
    with the query that holds it in the first frame in which one does. Without annotations:
    `choose_queries` of the first model, and the second model's queries of the most similar masks.
    """
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    if not 1 <= len(models) <= 2:
        words = "give one model, or one or two as {name: model}"
        raise ValueError(f"models {list(models)}: {words}")
    shots = read_clip(video, num_frames, start)
    recordings = [Recording(each, shots) for each in models.values()]
    if queries is not None:
        num_queries = recordings[0].scores.shape[1]
        known = len({*queries} & {*range(num_queries)}) == len(queries)
        if len(models) > 1 or not known or not 0 < len(queries) <= MAX_ROWS:
            words = f"give 1 to {MAX_ROWS} of 0..{num_queries - 1}, each once, of a single model"
            raise ValueError(f"queries {list(queries)}: {words}")
        queries = [int(q) for q in queries]
    truth = None if shots.truth is None else np.stack(shots.truth)  # (T, M, H, W)
    of = recordings if truth is not None else ()
    said = [class_probabilities(recording, video, truth.shape[1]) for recording in of]
    instances, picks, identities = _choose(recordings, truth, said, queries)
    # of each model
    rows = [
        [_row(r, query, chosen, m, colors[query], truth) for query, m in zip(chosen, instances)]
        for r, chosen, colors in zip(recordings, picks, identities)
    ]
    names = [name if len(name) <= 25 else name[:24] + "…" for name in map(str, models)]
    strips = [
        [_colored(r, t, chosen, colors) for t in range(len(r))]
        for r, chosen, colors in zip(recordings, picks, identities)
    ]
    fig = _page(strips, rows, names, start)
    _title(fig, names, recordings, rows, truth)
    return fig


def _choose(recordings: list[Recording], truth, said: list[np.ndarray], queries) -> tuple:
    """The rows' instances (None: unknown), each model's queries for them, its {query: identity}.

    truth: (T, M, H, W) or None. said: of each model the probabilities (T, N, M) of the instances'
    classes. queries: of the first model, or None. An identity is a colour: instance + 1 for the
    queries that hold or are to hold it.
    """
    first = recordings[0]
    limit = min(MAX_ROWS if len(recordings) == 1 else MAX_PAIRS, first.scores.shape[1])
    if truth is None or not truth.any():
        chosen = choose_queries(first, limit) if queries is None else queries
        picks = [chosen, *(_most_similar(first, chosen, other) for other in recordings[1:])]
        return [None] * len(chosen), picks, [{q: i + 1 for i, q in enumerate(p)} for p in picks]
    area = truth.sum((2, 3))  # (T, M)
    enough = (area >= SLIVER * area.max(0))[:, None]
    ious = [np.stack([r.ious(t) for t in range(len(r))]) * enough for r in recordings]  # (T, N, M)
    holders = [_first_holders(iou, p) for iou, p in zip(ious, said)]
    if queries is not None:
        owners = _first_holders(ious[0][:, queries], said[0][:, queries])
        owners = {i: m for m, i in owners.items()}
        instances, picks = [owners.get(i) for i in range(len(queries))], [queries]
    else:
        seen = (area > 0).sum(0)
        order = sorted(np.flatnonzero(seen).tolist(), key=lambda m: (-seen[m], -area[:, m].sum()))
        instances = order[:limit]
        for held, iou in zip(holders, ious):
            # what is never held has the nearest query of those that hold nothing
            for m in instances:
                taken = np.isin(range(iou.shape[1]), list(held.values()))
                held.setdefault(m, int(np.where(taken, -1, iou[:, :, m].sum(0)).argmax()))
        picks = [[held[m] for m in instances] for held in holders]
    ids = [(truth.shape[1] + i if m is None else m) + 1 for i, m in enumerate(instances)]
    spare = [{q: m + 1 for m, q in held.items() if m not in instances} for held in holders]
    return instances, picks, [own | dict(zip(pick, ids)) for own, pick in zip(spare, picks)]


def _first_holders(ious: np.ndarray, said: np.ndarray) -> dict[int, int]:
    """IoU and p(class) (T, N, M) -> {instance: the first to hold it that held none before}."""
    holders: dict[int, int] = {}
    for frame, probabilities in zip(ious, said):
        for query, instance in assign_queries(frame, probabilities):
            if instance not in holders and query not in holders.values():
                holders[instance] = query
    return holders


def _most_similar(mine: Recording, queries: list[int], other: Recording) -> list[int]:
    """For each query another model's of the most similar mask, where it first has one."""
    overlap = []
    for query in queries:
        masks = torch.stack([mine.mask_logits(t)[query] for t in range(len(mine))]).flatten(1)
        t = int((masks >= 0).any(1).int().argmax())
        theirs = other.mask_logits(t).sigmoid().flatten(1)
        overlap.append(pairwise_dice(masks[t : t + 1].sigmoid(), theirs)[0])
    return linear_sum_assignment(torch.stack(overlap).cpu().numpy(), maximize=True)[1].tolist()


def _row(
    recording: Recording, query: int, chosen, instance: int | None, identity: int, truth
) -> _Row:
    means = recording.class_scores[:, query].mean(0)
    label = class_name(recording.config.class_names, int(means.argmax()))
    kernels = recording.kernels.transpose(0, 1)  # (N, T, D)
    cosines = {q: cosine_similarity(kernels[query], kernels[q]).cpu().numpy() for q in chosen}
    soft = np.stack([recording.soft_mask(query, t, t) for t in range(len(recording))])
    outline, held = None, [None] * len(recording)
    if instance is not None:
        outline, found = truth[:, instance], soft >= 0.5
        iou = (found & outline).sum((1, 2)) / np.maximum((found | outline).sum((1, 2)), 1)
        visible = outline.any((1, 2))
        held = [bool(i >= HOLD_IOU) if seen else None for i, seen in zip(iou, visible)]
    return _Row(
        query=query,
        color=rgb(identity),
        label=f"{label} {float(means.max()):.2f}",
        soft=soft,
        scores=recording.scores[:, query].tolist(),
        similarity=cosines.pop(query),
        others=[float(cosine.mean()) for cosine in cosines.values()],
        outline=outline,
        held=held,
    )


def _page(strips: list, rows: list[list[_Row]], names: list[str], start: int) -> Picture:
    """Strips of frames, then of masks with a matrix beside each, then the tracks. All in inches."""
    (models, count), (height, width) = (len(strips), len(strips[0])), strips[0][0].shape[:2]
    left, right = (1.2 if models == 1 else 1.65), 1.24
    cell = (WIDTH - left - right) / count * height / width  # its height
    cell = min(cell, 5 / (len(rows[0]) + 1) / models)
    strip = cell * width / height * count
    place, gap = max(cell, 0.4), 0.18  # three lines of words need 0.4, scores 0.12
    beside, side = left + strip + 0.14, min(place, 0.6)
    whose = [f"{name}\n" if models > 1 else "" for name in names]
    fig, top = new_figure(), 0.72
    for who, cells in zip(whose, strips):
        axes = bare(fig.place(left, top + (place - cell) / 2, strip, cell))
        _strip(axes, cells)
        caption(axes, f"{who}frames, masks\ncoloured by query")
        top += place + gap
    matrices = []
    for same in zip(*rows):  # the queries of all models for one instance
        top += 0.12 * (models - 1)
        for who, row in zip(whose, same):
            last = bare(fig.place(left, top + (place - cell) / 2, strip, cell))
            _mask_row(last, row, f"{who}query {row.query}\n{row.label}")
            axes = fig.place(beside, top + (place - side) / 2, side, side)
            axes.set(xticks=[], yticks=[])
            matrices.append((axes, row))
            top += place + gap
    bar = fig.place(beside, top, side, 0.06, below=0.26)
    _similarity_matrices(matrices, bar)
    annotated = any(_share(own)[1] for own in rows)
    for who, own in zip(whose, rows if annotated else ()):
        top += 0.17 * len(own) + 0.12 if own is not rows[0] else 0.28
        last = bare(fig.place(left, top, strip, 0.17 * len(own), below=0.32))
        _tracks(last, own, who + "held {} of {}\n({})".format(*_share(own)))
    step = ceil(count * 0.42 / strip)  # so that the numbers do not touch
    words = [f"frame {start}", *(f"+{t}" for t in range(step, count, step))]
    last.set_xticks(range(0, count, step), words, fontsize=7)
    if not annotated:  # below the scores
        last.tick_params(length=0, pad=15)
    return fig


def _share(rows: list[_Row]) -> tuple[int, int, str]:
    """How often these queries hold their instances, of how often those are visible."""
    seen = [h for row in rows for h in row.held if h is not None]
    return sum(seen), len(seen), f"{100 * sum(seen) / max(len(seen), 1):.0f} %"


def _title(fig: Picture, names: list[str], recordings: list[Recording], rows, truth) -> None:
    count, shares = len(recordings[0]), [_share(own) for own in rows]
    frames = f"{count} frame{'s' * (count > 1)}"
    head = f"One query, one instance? {frames}, a colour for each query"
    note = "Every frame is computed by itself, nothing is passed on.  Below a mask: its score."
    if shares[0][1]:
        both = ", ".join(f"{share[2]} {name}" for name, share in zip(names, shares))
        alone = "held {} of {} times ({})".format(*shares[0])
        head = f"One query, one instance: {both if len(rows) > 1 else alone}"
        note += f"  White line: the annotation.  Red, crossed: not held (IoU < {HOLD_IOU})."
    elif not any(_finds_something(recording) for recording in recordings):
        head = f"Nothing found in {frames}: no mask scores {VISIBLE_SCORE} or more"
    note += "  No annotated instance is visible." * (truth is not None and not truth.any())
    headline(fig, head, note)


def _finds_something(recording: Recording) -> bool:
    for t, scores in enumerate(recording.scores):
        masks = (recording.mask_logits(t) >= 0).flatten(1).any(1)
        if (masks & (scores >= VISIBLE_SCORE)).any():
            return True
    return False


def _colored(recording: Recording, t: int, queries: Sequence[int], identities: dict) -> np.ndarray:
    """Frame t: masks of the chosen queries over those of other good ones, of something else."""
    scores = recording.scores[t]
    masks = recording.mask_logits(t).sigmoid().flatten(1)
    overlap = pairwise_dice(masks, masks[list(queries)]).amax(-1)  # (N,) with the chosen
    others = ((scores >= VISIBLE_SCORE) & (overlap < DUPLICATE_DICE)).nonzero().flatten().tolist()
    order = [q for q in others if q not in queries]
    order += sorted(queries, key=lambda q: float(scores[q]))
    # The others have colours of their own, the same in all frames.
    own = max(identities.values()) + 1
    ids = [identities.get(q, own + q) for q in order]
    image = faded(recording.images[t])  # so that colour means query and nothing else
    return draw_frame(image, recording.found(t, order), ids, scale=1, opacity=0.65)


def _strip(axes, cells: list[np.ndarray]) -> None:
    """Pictures of one size (h, w, 3) beside each other; picture t is centred on x = t."""
    small = max(1, cells[0].shape[1] // 320)  # a cell is printed an inch wide or less
    cells = np.stack([np.asarray(Image.fromarray(cell).reduce(small)) for cell in cells])
    gap = max(1, round(GAP * cells.shape[2]))
    cells = np.pad(cells, ((0, 0), (0, 0), (gap, gap), (0, 0)), constant_values=255)
    extent = (-0.5, len(cells) - 0.5, 1, 0)
    strip = np.concatenate(cells, axis=1)
    axes.imshow(strip, extent=extent, aspect="auto", interpolation="antialiased")


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
    room = axes.get_position().width * WIDTH / len(cells)  # inches of a cell
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


def _window(ever: np.ndarray) -> tuple[slice, slice]:
    """The least window of the frame's shape about a mask (H, W), with a margin; all if empty."""
    ever = ever if ever.any() else ~ever
    ends = [np.flatnonzero(ever.any(axis))[[0, -1]] for axis in (1, 0)]
    share = 1.12 * max((last - first + 1) / n for (first, last), n in zip(ends, ever.shape))
    slices = []
    for (first, last), n in zip(ends, ever.shape):
        size = max(round(min(share, 1.0) * n), 1)
        low = min(max((first + last + 1 - size) // 2, 0), n - size)
        slices.append(slice(low, low + size))
    return slices[0], slices[1]


def _similarity_matrices(matrices: list[tuple], scale) -> None:
    """cos(K_t, K_u) of every row's query; beside, its mean over t != u, and with other queries."""
    low = min(0.5, *(float(np.floor(row.similarity.min() * 10) / 10) for _, row in matrices))
    look = {"vmin": low, "vmax": 1, "cmap": "cividis", "interpolation": "nearest"}
    for axes, row in matrices:
        shown = axes.imshow(row.similarity, **look)
        apart = row.similarity[~np.eye(len(row.held), dtype=bool)]
        words = f"{apart.mean():.2f}" if apart.size else ""
        words += f"\n({np.mean(row.others):.2f})" if row.others else ""
        beside = {"transform": axes.transAxes, "va": "center"}
        axes.text(1.08, 0.5, words.strip(), fontsize=7.5, color=INK, **beside)
    title = "cosine of its kernels\nbetween frames: mean\n(with the others')"
    matrices[0][0].set_title(title, fontsize=6.5, color=INK, pad=5, x=-0.1, ha="left")
    how = {"orientation": "horizontal", "ticks": [low, 1.0], "format": "%.1g"}
    scale.figure.colorbar(shown, cax=scale, **how)
    scale.tick_params(labelsize=6.5, length=2, pad=1, color=GREY)


def _tracks(axes, rows: list[_Row], words: str) -> None:
    """A line of cells for each query: held, not held, not visible; and the share beside."""
    beside = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    beside |= {"va": "center", "fontsize": 7}
    for i, row in enumerate(rows):
        for t, holds in enumerate(row.held if row.outline is not None else []):
            face = row.color if holds else "white" if holds is False else "#dddddd"
            look = {"facecolor": face, "edgecolor": RED, "linewidth": 1.2 * (holds is False)}
            axes.add_patch(Rectangle((t - 0.47, i + 0.14), 0.94, 0.72, **look))
            if holds is False:
                axes.plot(t, i + 0.5, marker="x", color=RED, markersize=4.5, markeredgewidth=1.4)
        held, of, percent = _share([row])
        share = f"{held} of {of} ({percent})" if of else "holds no instance"
        axes.annotate(share, (1, i + 0.5), (5, 0), **beside)
        axes.annotate("■", (0, i + 0.5), (-5, 0), color=row.color, ha="center", **beside)
    axes.set(xlim=(-0.5, len(rows[0].held) - 0.5), ylim=(len(rows), 0))
    caption(axes, words)
