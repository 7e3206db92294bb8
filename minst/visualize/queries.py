"""Queries are good trackers: Fig 2 of the paper, with the numbers behind it.

    frames t = 0..T-1, each a key frame of its own ─ model ─> scores (T, N), kernels (T, N, D), masks (T, N, h, w)

     frames    masks coloured by query: same query, same colour; one strip for each model        what is seen
     query a   its mask in every frame, red where it does not hold its       cos(K_t^a, K_u^a)   why it works
     query b   instance, its score below; two models: one row below the other      (T, T)
     below     in which frames it holds its instance, and their share                            how well

Nothing is tracked or passed on between the frames: that a row shows one object is the model's own doing.

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
from itertools import islice
from math import ceil
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.evaluation.consistency import HOLD_IOU, assign_queries, mask_ious
from minst.matcher import pairwise_dice
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.tracking import cosine_similarity
from minst.visualize.masks import class_name, draw_frame, frames_of
from minst.visualize.style import GREY, INK, RED, WIDTH, caption, headline, new_figure, rgb

__all__ = ["QueryStates", "choose_queries", "plot_query_consistency", "query_states"]

MAX_ROWS, MAX_PAIRS = 4, 3  # of one model; of two, compared
VISIBLE_SCORE = 0.3  # queries below this are not drawn on the frames unless they are chosen
WEAK_SHARE = 0.3  # queries below this share of the best one's score have nothing to show
DUPLICATE_DICE = 0.5  # mean dice over the frames from which on two queries count as one object
GAP = 0.02  # white space on either side of a cell of a strip, as a share of its width
SLIVER = 0.1  # share of an instance's largest area below which it chooses no query


class QueryStates(NamedTuple):
    """All queries in T frames, every one computed as a key frame."""

    images: list[np.ndarray]  # T x (H, W, 3) bytes
    scores: Tensor  # (T, N, K) in [0, 1]
    kernels: Tensor  # (T, N, D)
    mask_logits: Tensor  # (T, N, h, w)
    probabilities: Tensor  # (T, N, K) of the classes, without objectness

    def soft_masks(self, query: int) -> np.ndarray:
        """The mask of a query as probabilities at the size of the frames: (T, H, W) in [0, 1]."""
        logits = upsample_masks(self.mask_logits[:, query : query + 1], self.images[0].shape[:2])
        return logits[:, 0].sigmoid().cpu().numpy()

    def similarity(self, query: int, other: int | None = None) -> np.ndarray:
        """cos(K_t, K_u) of a query's kernels (or of its with another query's) over all pairs of frames: (T, T)."""
        other = query if other is None else other
        return cosine_similarity(self.kernels[:, query], self.kernels[:, other]).cpu().numpy()

    def of_instances(self, video, count: int, class_names: Sequence[str]) -> np.ndarray:
        """Probability of the class of each of `count` annotated instances: (T, N, M); not known: 1.

        class_names: the model's, whose order may not be that of the video's categories.
        """
        found = np.ones((*self.scores.shape[:2], count))
        theirs = getattr(video, "categories", None)
        for m, label in enumerate(getattr(video, "labels", ())):
            if class_names and theirs:
                known = theirs[label] in class_names
                label = class_names.index(theirs[label]) if known else -1
            if 0 <= label < self.probabilities.shape[-1]:
                found[:, :, m] = self.probabilities[:, :, label].cpu()
        return found


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


@torch.inference_mode()
def query_states(model: MobileInst, video, num_frames: int = 11, start: int = 0) -> QueryStates:
    """Run the model on frames start .. start + num_frames - 1 (fewer if the video ends), each by itself.

    video: a clip with `render(t)` or any iterable of frames. Raises ValueError when it has no frame `start`, or frames
    of different sizes.
    """
    if num_frames < 1 or start < 0:
        raise ValueError(
            f"num_frames is {num_frames}, start {start}; at least one frame, from 0 on"
        )
    images = list(islice(frames_of(video, start), num_frames))
    if not images:
        raise ValueError(f"the video has no frame {start}")
    outs = []
    for t, image in enumerate(images):
        if image.shape != images[0].shape or image.shape[2:] != (3,) or image.dtype != np.uint8:
            raise ValueError(
                f"frame {start + t} is {image.dtype} {image.shape}: give bytes (H, W, 3), all of one size"
            )
        out = model.eval()(image_to_batch(image))
        parts = out.scores(), out.kernels, out.mask_logits, out.class_logits.sigmoid()
        outs.append([part[0] for part in parts])
    return QueryStates(images, *(torch.stack(parts) for parts in zip(*outs)))


def choose_queries(states: QueryStates, count: int = MAX_ROWS) -> list[int]:
    """The queries of highest mean score over the frames, without weak ones and those that segment what another does."""
    masks = states.mask_logits.sigmoid().flatten(2)  # (T, N, hw)
    overlap = torch.stack([pairwise_dice(m, m) for m in masks]).mean(0)  # (N, N)
    scores = states.scores.amax(-1).mean(0)  # (N,)
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
    queries=None,
    start: int = 0,
) -> Figure:
    """Fig 2: the same query segments the same instance in `num_frames` consecutive frames. Returns a Figure.

    model: one, or {name: model} of one or two, which are then compared on the same frames and instances.
    video: a clip with `render(t)`, whose annotations tell where a query holds its instance, or an iterable of frames.
    queries: which to show of a single model, 1 to 4; the instance of each is what it holds in the first frame in which
    it holds anything, and no two have the same.

    By default the rows are the annotated instances seen in most frames (4; 3 for two models), each with the query that
    holds it in the first frame in which one does. Without annotations: `choose_queries` of the first model, and the
    second model's queries of the most similar masks.
    """
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    if not 1 <= len(models) <= 2:
        raise ValueError(f"models {list(models)}: give one model, or one or two as {{name: model}}")
    first, *rest = models.values()
    states = [query_states(first, video, num_frames, start)]
    states += [query_states(other, states[0].images, num_frames) for other in rest]
    count, num_queries = states[0].scores.shape[:2]
    if queries is not None:
        if (
            rest
            or not 0 < len(queries) <= MAX_ROWS
            or len({*queries} & {*range(num_queries)}) < len(queries)
        ):
            words = f"give 1 to {MAX_ROWS} of 0..{num_queries - 1}, each once, of a single model"
            raise ValueError(f"queries {list(queries)}: {words}")
        queries = [int(q) for q in queries]
    truth = (
        np.stack([video.render(start + t).masks for t in range(count)])
        if hasattr(video, "render")
        else None
    )
    nets = zip(states, models.values()) if truth is not None else ()
    said = [s.of_instances(video, truth.shape[1], net.config.class_names) for s, net in nets]
    instances, picks, identities = _choose(states, truth, said, queries)
    names = [name if len(name) <= 25 else name[:24] + "…" for name in map(str, models)]
    rows = [
        [
            _row(s, q, chosen, m, ids[q], net.config.class_names, truth)
            for q, m in zip(chosen, instances)
        ]
        for s, net, chosen, ids in zip(states, models.values(), picks, identities)
    ]  # of each model
    page = _layout(states[0], len(instances), len(models), any(_share(own)[1] for own in rows))
    _title(page.fig, names, states, rows, truth)
    for k, (name, own) in enumerate(zip(names, rows)):
        who = f"{name}\n" if rest else ""
        _strip(
            page.frames[k], [_colored(states[k], t, picks[k], identities[k]) for t in range(count)]
        )
        caption(page.frames[k], f"{who}frames, masks\ncoloured by query")
        for axes, row in zip(page.masks[k :: len(models)], own):
            _mask_row(axes, row, f"{who}query {row.query}\n{row.label}")
        if page.tracks:
            _tracks(page.tracks[k], own, who + "held {} of {}\n({})".format(*_share(own)))
    _similarity_matrices(page, [row for same in zip(*rows) for row in same])
    step = ceil(count / page.room)  # so that the numbers do not touch
    words = [f"frame {start}", *(f"+{t}" for t in range(step, count, step))]
    last = [*page.masks, *page.tracks][-1]
    last.set_xticks(range(0, count, step), words, fontsize=7)
    if not page.tracks:  # below the scores
        last.tick_params(length=0, pad=15)
    return page.fig


def _choose(states: list[QueryStates], truth, said: list[np.ndarray], queries) -> tuple:
    """The instance of each row (None: unknown), the queries of each model for them, each model's {query: identity}.

    truth: (T, M, H, W) or None. said: of each model the probabilities (T, N, M) of the instances'
    classes. queries: of the first model, or None. An identity is a colour: instance + 1 for the
    queries that hold or are to hold it.
    """
    limit = min(MAX_ROWS if len(states) == 1 else MAX_PAIRS, states[0].scores.shape[1])
    if truth is None or not truth.any():
        chosen = choose_queries(states[0], limit) if queries is None else queries
        picks = [chosen, *(_most_similar(states[0], chosen, other) for other in states[1:])]
        return (
            [None] * len(chosen),
            picks,
            [{q: i + 1 for i, q in enumerate(pick)} for pick in picks],
        )
    area = truth.sum((2, 3))  # (T, M)
    ious = [
        _ious(s, truth) * (area >= SLIVER * area.max(0))[:, None] for s in states
    ]  # each (T, N, M)
    holders = [_first_holders(iou, p) for iou, p in zip(ious, said)]
    if queries is not None:
        owners = {i: m for m, i in _first_holders(ious[0][:, queries], said[0][:, queries]).items()}
        instances, picks = [owners.get(i) for i in range(len(queries))], [queries]
    else:
        seen = (area > 0).sum(0)
        instances = sorted(
            np.flatnonzero(seen).tolist(), key=lambda m: (-seen[m], -area[:, m].sum())
        )[:limit]
        for held, iou in zip(holders, ious):
            for (
                m
            ) in instances:  # what is never held has the nearest query of those that hold nothing
                free = np.where(
                    np.isin(range(iou.shape[1]), list(held.values())), -1, iou[:, :, m].sum(0)
                )
                held.setdefault(m, int(free.argmax()))
        picks = [[held[m] for m in instances] for held in holders]
    ids = [(truth.shape[1] + i if m is None else m) + 1 for i, m in enumerate(instances)]
    spare = [{q: m + 1 for m, q in held.items() if m not in instances} for held in holders]
    return instances, picks, [own | dict(zip(pick, ids)) for own, pick in zip(spare, picks)]


def _ious(states: QueryStates, truth: np.ndarray) -> np.ndarray:
    """IoU of all queries with all instances (T, M, H, W) in every frame: (T, N, M)."""
    masks = (upsample_masks(logits[None], truth.shape[2:])[0] >= 0 for logits in states.mask_logits)
    return np.stack([mask_ious(found.cpu().numpy(), true) for found, true in zip(masks, truth)])


def _first_holders(ious: np.ndarray, said: np.ndarray) -> dict[int, int]:
    """IoU and p(class) (T, N, M) -> {instance: the first to hold it that held none before}."""
    holders: dict[int, int] = {}
    for frame, probabilities in zip(ious, said):
        for query, instance in assign_queries(frame, probabilities):
            if instance not in holders and query not in holders.values():
                holders[instance] = query
    return holders


def _most_similar(states: QueryStates, queries: list[int], other: QueryStates) -> list[int]:
    """For each query, another model's of the most similar soft mask in the first frame where it has one; one-to-one."""
    mine, theirs = (s.mask_logits.sigmoid().flatten(2).cpu() for s in (states, other))  # (T, N, hw)
    first = [int((mine[:, q] >= 0.5).any(1).int().argmax()) for q in queries]
    overlap = [pairwise_dice(mine[t, q : q + 1], theirs[t])[0] for t, q in zip(first, queries)]
    return linear_sum_assignment(torch.stack(overlap).numpy(), maximize=True)[1].tolist()


def _row(
    states: QueryStates, query: int, chosen, instance: int | None, identity: int, names, truth
) -> _Row:
    means = states.scores[:, query].mean(0)
    label = f"{class_name(names, int(means.argmax()))} {float(means.max()):.2f}"
    others = [float(states.similarity(query, q).mean()) for q in chosen if q != query]
    soft, outline, held = states.soft_masks(query), None, [None] * len(states.images)
    if instance is not None:
        outline, found = truth[:, instance], soft >= 0.5
        iou = (found & outline).sum((1, 2)) / np.maximum((found | outline).sum((1, 2)), 1)
        held = [bool(i >= HOLD_IOU) if seen else None for i, seen in zip(iou, outline.any((1, 2)))]
    scores = states.scores[:, query].amax(-1).tolist()
    own = states.similarity(query)
    return _Row(query, rgb(identity), label, soft, scores, own, others, outline, held)


def _layout(states: QueryStates, rows: int, models: int, annotated: bool) -> SimpleNamespace:
    """Figure and axes, placed in inches from the top: strips of frames and of masks, matrices beside, tracks below."""
    height, width = states.images[0].shape[:2]
    left, right = 1.2 if models == 1 else 1.65, 1.24
    cell = min(
        (WIDTH - left - right) / len(states.images) * height / width, 5 / (rows + 1) / models
    )  # its height
    strip = cell * width / height * len(states.images)
    place, gap = max(cell, 0.4), 0.18  # three lines of words need 0.4, scores 0.12
    tops = [
        0.72 + i * (place + gap) + 0.12 * (models - 1) * (i // models)
        for i in range((rows + 1) * models)
    ]
    end = tops[-1] + place + 0.18  # below it stands the scale of the matrices
    track = 0.17 * rows
    tracks = [end + 0.28 + i * (track + 0.12) for i in range(models if annotated else 0)]
    total = (tracks[-1] + track if tracks else end) + 0.32
    fig = new_figure(total)

    def axes(x, y, w, h):
        return fig.add_axes(
            (x / WIDTH, 1 - (y + h) / total, w / WIDTH, h / total), xticks=[], yticks=[]
        )

    strips = [axes(left, y + (place - cell) / 2, strip, cell) for y in tops]
    beside, side = left + strip + 0.14, min(place, 0.6)
    matrices = [axes(beside, y + (place - side) / 2, side, side) for y in tops[models:]]
    below = {
        "tracks": [axes(left, y, strip, track) for y in tracks],
        "bar": axes(beside, end, side, 0.06),
    }
    page = {
        "fig": fig,
        "frames": strips[:models],
        "masks": strips[models:],
        "matrices": matrices,
        "room": strip / 0.42,
    }
    return SimpleNamespace(**page, **below)


def _share(rows: list[_Row]) -> tuple[int, int, str]:
    """How often these queries hold their instances, of how many times in which those are visible."""
    seen = [h for row in rows for h in row.held if h is not None]
    return sum(seen), len(seen), f"{100 * sum(seen) / max(len(seen), 1):.0f} %"


def _title(
    fig: Figure, names: list[str], states: list[QueryStates], rows: list[list[_Row]], truth
) -> None:
    count, shares = len(rows[0][0].held), [_share(r) for r in rows]
    frames = f"{count} frame{'s' * (count > 1)}"
    head = f"One query, one instance? {frames}, a colour for each query"
    note = "Every frame is computed by itself, nothing is passed on.  Below a mask: its score."
    if shares[0][1]:
        both = ", ".join(f"{share[2]} {name}" for name, share in zip(names, shares))
        head = "One query, one instance: " + (
            both if len(rows) > 1 else "held {} of {} times ({})".format(*shares[0])
        )
        note += f"  White line: the annotation.  Red, crossed: not held (IoU < {HOLD_IOU})."
    elif not any(
        ((s.scores.amax(-1) >= VISIBLE_SCORE) & (s.mask_logits >= 0).any(-1).any(-1)).any()
        for s in states
    ):
        head = f"Nothing found in {frames}: no mask scores {VISIBLE_SCORE} or more"
    note += "  No annotated instance is visible." * (truth is not None and not truth.any())
    headline(fig, head, note)


def _colored(
    states: QueryStates, t: int, queries: Sequence[int], identities: dict[int, int]
) -> np.ndarray:
    """Frame t with the masks of the chosen queries over those of other good ones that segment something else."""
    scores = states.scores[t].amax(-1)
    masks = states.mask_logits[t].sigmoid().flatten(1)
    overlap = pairwise_dice(masks, masks[list(queries)]).amax(-1)  # (N,) with the chosen
    others = ((scores >= VISIBLE_SCORE) & (overlap < DUPLICATE_DICE)).nonzero().flatten().tolist()
    order = [
        *(q for q in others if q not in queries),
        *sorted(queries, key=lambda q: float(scores[q])),
    ]
    own = (
        max(identities.values()) + 1
    )  # the others have colours of their own, the same in all frames
    ids = [identities.get(q, own + q) for q in order]
    logits = upsample_masks(states.mask_logits[t : t + 1, order], states.images[t].shape[:2])[0]
    image = states.images[t]
    grey = np.repeat(
        image.mean(-1, keepdims=True), 3, axis=-1
    )  # so that colour means query and nothing else
    image = (0.15 * image + 0.55 * grey + 0.3 * 255).astype(np.uint8)
    return draw_frame(image, (logits >= 0).cpu().numpy(), ids, scale=1, opacity=0.65)


def _strip(axes, cells: list[np.ndarray]) -> None:
    """Pictures of one size (h, w, 3) beside each other; picture t is centred on x = t."""
    small = max(1, cells[0].shape[1] // 320)  # a cell is printed an inch wide or less
    cells = [np.asarray(Image.fromarray(cell).reduce(small)) for cell in cells]
    height, width = cells[0].shape[:2]
    gap = np.full((height, max(1, round(GAP * width)), 3), 255, np.uint8)
    strip = np.concatenate([part for cell in cells for part in (gap, cell, gap)], axis=1)
    axes.imshow(
        strip, extent=(-0.5, len(cells) - 0.5, 1, 0), aspect="auto", interpolation="antialiased"
    )
    axes.spines[:].set_visible(False)


def _mask_row(axes, row: _Row, words: str) -> None:
    """The soft mask of one query in every frame, in one window that holds all it and its instance ever cover."""
    window = _window(
        (row.soft >= 0.5).any(0) | (False if row.outline is None else row.outline.any(0))
    )
    color = np.array(row.color)
    ramp = LinearSegmentedColormap.from_list(
        "", [(0, 0.02 * color), (0.75, color), (1, 0.55 * color + 0.45)]
    )
    cells = [(ramp(mask[window])[..., :3] * 255).astype(np.uint8) for mask in row.soft]
    _strip(axes, cells)
    width = cells[0].shape[1]
    share = width / (width + 2 * max(1, round(GAP * width)))  # of a cell's place, without its gaps
    room = axes.get_position().width * WIDTH / len(cells)  # inches of a cell
    for t in range(0, len(cells), ceil(0.25 / room)):  # so that the numbers do not touch
        place = {"xytext": (0, -3.5), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(f"{row.scores[t]:.2f}", (t, 1), **place, fontsize=6, color=INK)
    for t, holds in enumerate(row.held):
        if row.outline is not None and row.outline[t][window].any():
            place = {"extent": (t - share / 2, t + share / 2, 0, 1), "origin": "lower"}
            axes.contour(row.outline[t][window], [0.5], colors="white", linewidths=0.6, **place)
        elif row.outline is not None and room > 0.4:
            axes.text(
                t, 0.5, "not\nvisible", color="#bbbbbb", fontsize=6.5, ha="center", va="center"
            )
        if holds is False:
            axes.add_patch(
                Rectangle((t - share / 2, 0), share, 1, fill=False, ec=RED, lw=2, clip_on=False)
            )
            mark = "lost" if True in row.held[:t] else "not yet" if True in row.held else "never"
            mark = f"× {mark}" if room > 0.5 else "×"
            tag = {"facecolor": RED, "edgecolor": "none", "pad": 1.2}
            axes.text(
                t - share / 2,
                0,
                mark,
                color="white",
                fontsize=6.5,
                weight="bold",
                va="top",
                bbox=tag,
            )
    caption(axes, words)
    axes.spines["left"].set(visible=True, color=row.color, linewidth=5, position=("outward", 5))


def _window(ever: np.ndarray) -> tuple[slice, slice]:
    """The smallest window of the frame's own shape that holds all of a mask (H, W), with a margin; all if empty."""
    ever = ever if ever.any() else ~ever
    ends = [np.flatnonzero(ever.any(axis))[[0, -1]] for axis in (1, 0)]
    share = min(
        1.12 * max((last - first + 1) / n for (first, last), n in zip(ends, ever.shape)), 1.0
    )
    slices = []
    for (first, last), n in zip(ends, ever.shape):
        size = max(round(share * n), 1)
        low = min(max((first + last + 1 - size) // 2, 0), n - size)
        slices.append(slice(low, low + size))
    return slices[0], slices[1]


def _similarity_matrices(page: SimpleNamespace, rows: list[_Row]) -> None:
    """cos(K_t, K_u) of every row's query, on one scale; beside, its mean over t != u and that with other queries."""
    low = min(0.5, *(float(np.floor(row.similarity.min() * 10) / 10) for row in rows), 1.0)
    for axes, row in zip(page.matrices, rows):
        shown = axes.imshow(
            row.similarity, vmin=low, vmax=1, cmap="cividis", interpolation="nearest"
        )
        apart = row.similarity[~np.eye(len(row.held), dtype=bool)]
        words = f"{apart.mean():.2f}" if apart.size else ""
        words += f"\n({np.mean(row.others):.2f})" if row.others else ""
        axes.text(
            1.08, 0.5, words.strip(), transform=axes.transAxes, fontsize=7.5, color=INK, va="center"
        )
    title = "cosine of its kernels\nbetween frames: mean\n(with the others')"
    page.matrices[0].set_title(title, fontsize=6.5, color=INK, pad=5, x=-0.1, ha="left")
    bar = page.fig.colorbar(
        shown, cax=page.bar, orientation="horizontal", ticks=[low, 1.0], format="%.1g"
    )
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1, color=GREY)


def _tracks(axes, rows: list[_Row], words: str) -> None:
    """A line of cells for each query of a model: held, not held, instance not visible; and the share beside."""
    for i, row in enumerate(rows):
        for t, holds in enumerate(row.held if row.outline is not None else []):
            face = row.color if holds else "white" if holds is False else "#dddddd"
            axes.add_patch(
                Rectangle(
                    (t - 0.47, i + 0.14), 0.94, 0.72, fc=face, ec=RED, lw=1.2 * (holds is False)
                )
            )
            if holds is False:
                axes.plot(t, i + 0.5, marker="x", color=RED, markersize=4.5, markeredgewidth=1.4)
        held, of, percent = _share([row])
        beside = {
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
            "va": "center",
            "fontsize": 7,
        }
        axes.annotate(
            f"{held} of {of} ({percent})" if of else "holds no instance",
            (1, i + 0.5),
            (5, 0),
            **beside,
        )
        axes.annotate("■", (0, i + 0.5), (-5, 0), color=row.color, ha="center", **beside)
    axes.set(xlim=(-0.5, len(rows[0].held) - 0.5), ylim=(len(rows), 0))
    axes.spines[:].set_visible(False)
    caption(axes, words)
