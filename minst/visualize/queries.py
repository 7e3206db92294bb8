"""Queries are good trackers: Fig 2 of the paper, with the numbers behind it.

    frames t = 0..T-1, each a key frame of its own ─ model ─> scores (T, N), kernels (T, N, D), masks (T, N, h, w)

     frames    masks coloured by query: same query, same colour                                  what is seen
     query a   its mask in every frame, red where it lost its instance       cos(K_t^a, K_u^a)   why it works
     query b   ...                                                           (T, T)
     below     cos(K_t, K_0) of the queries, against that of other queries

Nothing is tracked or passed on between the frames: that a row shows one object is the model's own doing.

Symbols: T frames, N queries, M instances, K classes, D channels, h w = H/8, W/8.

Assumption: a query's instance is the annotated one with the largest sum of IoU over the frames; it *holds* it where
    that IoU is at least 0.5. Shown are the queries of highest mean score, one for each object.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minst.matcher import pairwise_dice
from minst.model import MobileInst, upsample_masks
from minst.tracking import cosine_similarity
from minst.visualize.masks import class_name, color_of, draw_frame, frames_of
from minst.visualize.style import GREY, INK, RED, caption, headline, new_figure

__all__ = ["QueryStates", "choose_queries", "plot_query_consistency", "query_states"]

MAX_ROWS = 4
VISIBLE_SCORE = 0.3  # queries below this are not drawn on the frames unless they are chosen
WEAK_SHARE = 0.3  # queries below this share of the best one's score have nothing to show
DUPLICATE_DICE = 0.5  # mean dice over the frames from which on two queries count as one object
HOLD_IOU = 0.5
GAP = 0.02  # white space on either side of a cell of a strip, as a share of its width


class QueryStates(NamedTuple):
    """All queries in T frames, every one computed as a key frame."""

    images: list[np.ndarray]  # T x (H, W, 3) bytes
    scores: Tensor  # (T, N, K) in [0, 1]
    kernels: Tensor  # (T, N, D)
    mask_logits: Tensor  # (T, N, h, w)

    def soft_masks(self, query: int) -> np.ndarray:
        """The mask of a query as probabilities at the size of the frames: (T, H, W) in [0, 1]."""
        logits = upsample_masks(self.mask_logits[:, query : query + 1], self.images[0].shape[:2])
        return logits[:, 0].sigmoid().cpu().numpy()

    def similarity(self, query: int, other: int | None = None) -> np.ndarray:
        """cos(K_t, K_u) of a query's kernels (or of its with another query's) over all pairs of frames: (T, T)."""
        other = query if other is None else other
        return cosine_similarity(self.kernels[:, query], self.kernels[:, other]).cpu().numpy()


@torch.inference_mode()
def query_states(model: MobileInst, video, num_frames: int = 11, start: int = 0) -> QueryStates:
    """Run the model on frames start .. start + num_frames - 1 (fewer if the video ends), each by itself.

    video: a clip with `render(t)` or any iterable of frames. Raises ValueError when it has no frame `start`.
    """
    if num_frames < 1 or start < 0:
        raise ValueError(f"num_frames is {num_frames}, start {start}; at least one frame, from 0 on")
    images = list(islice(frames_of(video, start), num_frames))
    if not images:
        raise ValueError(f"the video has no frame {start}")
    device = model.pixel_mean.device
    outs = []
    for image in images:
        frame = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1).float().div(255)
        out = model.eval()(frame[None])
        outs.append((out.scores()[0], out.kernels[0], out.mask_logits[0]))
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
    model: MobileInst, video, num_frames: int = 11, queries: Sequence[int] | None = None, start: int = 0
) -> Figure:
    """Fig 2: the same query segments the same instance in `num_frames` consecutive frames.

    video: a clip with `render(t)`, whose annotations then tell where a query holds its instance and where it loses it
    (red), or any iterable of frames. queries: which to show, at most 4; default `choose_queries`. Returns a Figure.
    """
    states = query_states(model, video, num_frames, start)
    count, num_queries = states.scores.shape[:2]
    queries = choose_queries(states) if queries is None else list(queries)
    if not 0 < len(queries) <= MAX_ROWS or any(not 0 <= q < num_queries for q in queries):
        raise ValueError(f"queries {queries}: give 1 to {MAX_ROWS} of 0..{num_queries - 1}")
    truth = [video.render(start + t).masks for t in range(count)] if hasattr(video, "render") else None
    colors = {query: color_of(i + 1) for i, query in enumerate(queries)}
    soft = {query: states.soft_masks(query) for query in queries}
    fate = {query: _fate(soft[query], truth) for query in queries}
    matrices = [states.similarity(query) for query in queries]

    fig, frames_axes, mask_axes, matrix_axes, bar_axes, line_axes = _layout(states, len(queries))
    _title(fig, count, [held for _, held in fate.values()])
    _strip(frames_axes, [_colored(states, t, queries) for t in range(count)])
    caption(frames_axes, "frames, masks\ncoloured by query")
    for axes, query in zip(mask_axes, queries):
        instance, held = fate[query]
        outline = None if instance is None else np.stack([masks[instance] for masks in truth])
        _mask_row(axes, states, query, soft[query], colors[query], outline, held, model.config.class_names)
    _similarity_matrices(fig, matrix_axes, bar_axes, matrices)
    _similarity_lines(line_axes, states, queries, matrices, list(colors.values()), start)
    return fig


def _layout(states: QueryStates, rows: int) -> tuple:
    """Figure and axes, placed in inches: a strip for the frames, one for each query, matrices beside, lines below."""
    width, left, right, top, bottom, gap, lines = 9.4, 1.2, 1.15, 0.68, 0.3, 0.06, 0.6
    height, image_width = states.images[0].shape[:2]
    strip = width - left - right
    cell = min(max(strip / len(states.images) * height / image_width, 0.5), 2.0)
    total = top + (rows + 1) * (cell + gap) + 0.1 + lines + bottom
    fig = new_figure(total, width)

    def axes(x, y, w, h):
        """y from the top."""
        return fig.add_axes((x / width, 1 - (y + h) / total, w / width, h / total))

    frames = axes(left, top, strip, cell)
    ys = [top + (i + 1) * (cell + gap) for i in range(rows)]
    masks = [axes(left, y, strip, cell) for y in ys]
    side = min(cell, 0.7)
    matrices = [axes(left + strip + 0.14, y + (cell - side) / 2, side, side) for y in ys]
    bar = axes(left + strip + 0.14, ys[-1] + cell + 0.12, side, 0.07)
    return fig, frames, masks, matrices, bar, axes(left, ys[-1] + cell + gap + 0.1, strip, lines)


def _title(fig: Figure, count: int, held: list[list[bool | None]]) -> None:
    seen = [h for row in held for h in row if h is not None]
    head = f"One query, one instance? {count} frames, a colour for each query"
    note = "Every frame is computed by itself: no tracking, nothing is passed on between frames."
    if seen:
        head = f"One query, one instance: held {sum(seen)} of {len(seen)} times ({100 * sum(seen) / len(seen):.0f} %)"
        note += f"  White line: the annotation.  Red: the query lost its instance (IoU < {HOLD_IOU})."
    headline(fig, head, note)


def _colored(states: QueryStates, t: int, queries: Sequence[int]) -> np.ndarray:
    """Frame t with the masks of the chosen queries over those of other good ones that segment something else."""
    scores = states.scores[t].amax(-1)
    masks = states.mask_logits[t].sigmoid().flatten(1)
    overlap = pairwise_dice(masks, masks[list(queries)]).amax(-1)  # (N,) with the chosen
    others = ((scores >= VISIBLE_SCORE) & (overlap < DUPLICATE_DICE)).nonzero().flatten().tolist()
    order = [*(q for q in others if q not in queries), *sorted(queries, key=lambda q: float(scores[q]))]
    # the chosen have the colours of their rows, every other one has its own in all frames
    identity = {q: queries.index(q) + 1 if q in queries else MAX_ROWS + 1 + q for q in order}
    logits = upsample_masks(states.mask_logits[t : t + 1, order], states.images[t].shape[:2])[0]
    image = states.images[t]
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)  # so that colour means query and nothing else
    image = (0.15 * image + 0.55 * grey + 0.3 * 255).astype(np.uint8)
    return draw_frame(image, (logits >= 0).cpu().numpy(), [identity[q] for q in order], scale=1, opacity=0.65)


def _fate(soft: np.ndarray, truth: list[np.ndarray] | None) -> tuple[int | None, list[bool | None]]:
    """The instance of a query with masks (T, H, W), and in which frames it holds it; None where it is not seen."""
    if truth is None or not len(truth[0]):
        return None, [None] * len(soft)
    found, masks = soft[:, None] >= 0.5, np.stack(truth)  # (T, 1, H, W), (T, M, H, W)
    union = (found | masks).sum((-2, -1))
    iou = (found & masks).sum((-2, -1)) / np.maximum(union, 1)  # (T, M)
    instance = int(iou.sum(0).argmax())
    visible = masks[:, instance].any((-2, -1))
    return instance, [bool(i >= HOLD_IOU) if v else None for i, v in zip(iou[:, instance], visible)]


def _strip(axes, cells: list[np.ndarray]) -> None:
    """Pictures of one size (h, w, 3) beside each other; picture t is centred on x = t."""
    height, width = cells[0].shape[:2]
    gap = np.full((height, max(1, round(GAP * width)), 3), 255, np.uint8)
    strip = np.concatenate([part for cell in cells for part in (gap, cell, gap)], axis=1)
    axes.imshow(strip, extent=(-0.5, len(cells) - 0.5, 1, 0), aspect="auto", interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _mask_row(axes, states, query, soft, color, outline, held, names) -> None:
    """The soft mask of one query in every frame, in one window that holds all it ever covers."""
    window = _window((soft >= 0.5).any(0) | (False if outline is None else outline.any(0)))
    rgb = np.array(color) / 255
    ramp = LinearSegmentedColormap.from_list("", [(0, "#08080f"), (0.75, tuple(rgb)), (1, tuple(0.55 * rgb + 0.45))])
    cells = [(ramp(mask[window])[..., :3] * 255).astype(np.uint8) for mask in soft]
    _strip(axes, cells)
    rows, columns = cells[0].shape[:2]
    share = columns / (columns + 2 * max(1, round(GAP * columns)))  # of a cell's place, without its gaps
    for t, holds in enumerate(held):
        if outline is not None and outline[t][window].any():
            x = t + ((np.arange(columns) + 0.5) / columns - 0.5) * share
            axes.contour(x, (np.arange(rows) + 0.5) / rows, outline[t][window], [0.5], colors="white", linewidths=0.6)
        elif outline is not None:
            axes.text(t, 0.5, "not visible", color=GREY, fontsize=6, ha="center", va="center")
        if holds is False:
            frame = Rectangle((t - share / 2, 0), share, 1, fill=False, edgecolor=RED, linewidth=2.5, clip_on=False)
            axes.add_patch(frame)
    means = states.scores[:, query].mean(0)
    label = int(means.argmax())
    seen = [h for h in held if h is not None]
    words = f"query {query}\n{class_name(names, label)} {float(means[label]):.2f}"
    caption(axes, words + (f"\nheld {sum(seen)} of {len(seen)}" if seen else ""))
    axes.add_patch(Rectangle((-0.014, 0), 0.008, 1, transform=axes.transAxes, clip_on=False, color=tuple(rgb)))


def _window(ever: np.ndarray) -> tuple[slice, slice]:
    """The smallest window of the frame's own shape that holds all of a mask (H, W), with a margin; all if empty."""
    height, width = ever.shape
    if not ever.any():
        return slice(0, height), slice(0, width)
    ends = [np.flatnonzero(ever.any(axis))[[0, -1]] for axis in (1, 0)]
    share = max((last - first + 1) / n for (first, last), n in zip(ends, ever.shape))
    share = min(share * 1.12, 1.0)
    slices = []
    for (first, last), n in zip(ends, ever.shape):
        size = max(round(share * n), 1)
        low = min(max((first + last + 1 - size) // 2, 0), n - size)
        slices.append(slice(low, low + size))
    return slices[0], slices[1]


def _similarity_matrices(fig: Figure, matrix_axes, bar_axes, matrices: list[np.ndarray]) -> None:
    """cos(K_t, K_u) of every row's query, on one scale, its mean over t != u beside."""
    low = min(0.5, *(float(np.floor(m.min() * 10) / 10) for m in matrices), 1.0)
    for axes, matrix in zip(matrix_axes, matrices):
        shown = axes.imshow(matrix, vmin=low, vmax=1, cmap="cividis", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_linewidth(0.5)
        apart = matrix[~np.eye(len(matrix), dtype=bool)]
        if apart.size:
            axes.text(1.08, 0.5, f"{apart.mean():.2f}", transform=axes.transAxes, fontsize=7.5, color=INK, va="center")
    title = "cosine of its kernels,\nframe by frame;\ntheir mean"
    matrix_axes[0].set_title(title, fontsize=6.5, color=INK, pad=5, loc="left")
    bar = fig.colorbar(shown, cax=bar_axes, orientation="horizontal", ticks=[low, 1.0])
    bar.outline.set_linewidth(0.5)
    bar.ax.set_xticklabels([f"{low:.1f}", "1"])
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1, color=GREY)


def _similarity_lines(axes, states: QueryStates, queries, matrices, colors, start: int) -> None:
    """cos(K_t, K_0) of each chosen query, and the mean over pairs of different chosen queries for comparison."""
    frames = range(len(states.images))
    curves = [matrix[:, 0] for matrix in matrices]
    pairs = [states.similarity(a, b)[:, 0] for a in queries for b in queries if a != b]
    if pairs:
        curves.append(np.mean(pairs, axis=0))
        axes.plot(frames, curves[-1], color=GREY, linewidth=1.2, linestyle="--")
        below = curves[-1].mean() > 0.35  # where there is room for words
        place = {"xytext": (0, -4 if below else 3), "textcoords": "offset points", "va": "top" if below else "bottom"}
        words = "kernels of different queries"
        axes.annotate(words, (frames[-1], curves[-1][-1]), **place, fontsize=6.5, color="#666666", ha="right")
    for curve, color in zip(curves, colors):
        axes.plot(frames, curve, color=tuple(c / 255 for c in color), linewidth=1.6, marker="o", markersize=2.5)
    low = min(0.0, *(float(curve.min()) for curve in curves), 0.0)
    axes.set(xlim=(-0.5, len(frames) - 0.5), ylim=(low - 0.08, 1.1), xticks=frames, yticks=[0, 1])
    axes.set_xticklabels([f"frame {start}", *(f"+{t}" for t in frames[1:])])
    axes.tick_params(labelsize=7, length=2, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    caption(axes, f"cosine with its\nkernel in frame {start}", pad=5)
