"""Bipartite matching as a picture: who wants whom, and who gets it.

    queries of a frame x its instances ─ dice^0.8 p^0.2 ─> (N, M) ─ Hungarian ─> plot_matching
    any scores or costs (N, M), made by hand too ───────────────────────────────> plot_assignment

Symbols: N queries, M instances. Instance m = 0, 1, .. has the colour m + 1 in every figure.

Lesson: notebooks/05_losses.ipynb
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.patches import Ellipse, Rectangle
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.data.transforms import resize_masks
from minst.matcher import Instances, hungarian_match, matching_scores
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.visualize.masks import class_name, draw_frame, faded
from minst.visualize.style import BLUE, CENTER, INK, RED, Picture, headline, new_figure, rgb

__all__ = ["plot_assignment", "plot_matching"]

MAX_ROWS = 12  # queries whose numbers can still be read
DUPLICATE_SCORE = 0.5


def plot_matching(model: MobileInst, video, frame: int = 0) -> Picture:
    """`plot_assignment` of the matcher: queries of a frame of an annotated clip, instances in it.

    Matched are all N queries; shown the 12 of best score, those that want the same instance below
    each other. Left over and of score 0.5 or more is a duplicate. Raises ValueError without
    annotations or such a frame.
    """
    if not (hasattr(video, "render") and hasattr(video, "labels")):
        needs = "a clip with render(t) and labels; else use plot_assignment"
        raise ValueError(f"plot_matching needs annotations: {needs}")
    if not 0 <= frame < len(video):
        raise ValueError(f"frame is {frame}, the clip has the frames 0..{len(video) - 1}")
    shown = video.render(frame)
    image, masks = shown.image, shown.masks
    seen = np.flatnonzero(masks.any((1, 2)))  # as in training: what is not visible is no target
    with torch.inference_mode():
        out = model.eval()(image_to_batch(image))
    labels = torch.as_tensor(np.asarray(video.labels)[seen], dtype=torch.long)
    parts = labels, resize_masks(torch.from_numpy(masks[seen])), torch.arange(len(seen))
    target = Instances(*(part.to(out.kernels.device) for part in parts))
    scores = matching_scores(out.class_logits[0], out.mask_logits[0], target).cpu()  # (N, M)
    (matched,) = hungarian_match(out.class_logits, out.mask_logits, [target])
    pairs = dict(zip(*(indices.tolist() for indices in matched)))
    wants = dict.fromkeys(range(len(scores)), 0)  # query -> the instance that it gets or would like
    if len(seen):
        best = scores.amax(1).tolist()
        wants = dict(enumerate(scores.argmax(1).tolist())) | pairs
    else:
        best = out.scores()[0].amax(-1).tolist()
    rows = sorted(wants, key=lambda q: (q not in pairs, -best[q]))[: max(MAX_ROWS, len(pairs))]
    rows.sort(key=lambda q: (wants[q], q not in pairs, -best[q]))

    names = instance_names(model, video)
    soft = upsample_masks(out.mask_logits[:, rows], image.shape[:2])[0].sigmoid()
    colors = [rgb(int(seen[wants[q]]) + 1 if len(seen) else 1) for q in rows]
    pictures = [
        ((0.9 * (1 - mask) + mask * color) * 255).astype(np.uint8)
        for mask, color in zip(soft.cpu().numpy()[..., None], colors)
    ]
    instances = [draw_frame(faded(image), [masks[m]], [m + 1], scale=1, opacity=0.7) for m in seen]
    title = f"One query for one instance: {len(pairs)} of {len(scores)} queries matched"
    copies = sum(q not in pairs and best[q] >= DUPLICATE_SCORE for q in wants) * bool(len(seen))
    title += f", {copies} duplicate{'s' * (copies > 1)} left over" if copies else ""
    return plot_assignment(
        scores[rows],
        solution=([rows.index(q) for q in pairs], list(pairs.values())),
        row_names=[f"query {q}" for q in rows],
        column_names=[names[m] for m in seen],
        row_images=pictures,
        column_images=instances,
        title=title,
    )


def plot_assignment(
    scores: Tensor,
    solution: tuple[Sequence[int], Sequence[int]] | None = None,
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    row_images: Sequence[np.ndarray] | None = None,
    column_images: Sequence[np.ndarray] | None = None,
    maximize: bool = True,
    title: str | None = None,
) -> Picture:
    """A matrix of scores (N, M), or costs with `maximize` False, and its one-to-one assignment.

    solution: (rows, columns), boxed, as `hungarian_match` returns them for an image; default the
    best there is. Images (h, w, 3) stand beside the names. A ring marks the best of a column where
    the assignment decides otherwise.
    """
    matrix = torch.as_tensor(scores).detach().cpu().numpy().astype(float)
    if matrix.ndim != 2 or not len(matrix) or not np.isfinite(matrix).all():
        wanted = "a finite matrix (N, M) with at least one row"
        raise ValueError(f"scores must be {wanted}, got shape {matrix.shape}")
    count, width = matrix.shape
    whole_matrix = f"{count} rows and {width} columns"
    gain = matrix if maximize else -matrix
    best = linear_sum_assignment(gain, maximize=True)
    solution = best if solution is None else solution
    rows, columns = ([int(i) for i in indices] for indices in solution)
    pairs = dict(zip(rows, columns))
    inside = all(0 <= i < count and 0 <= j < width for i, j in pairs.items())
    if not inside or not len(rows) == len(columns) == len(pairs) == len(set(columns)):
        words = f"is no one-to-one assignment of {whole_matrix}"
        raise ValueError(f"solution {(rows, columns)} {words}")
    row_names = [f"row {i}" for i in range(count)] if row_names is None else row_names
    column_names = [f"column {j}" for j in range(width)] if column_names is None else column_names
    along = {"row_names": row_names, "row_images": row_images}
    across = {"column_names": column_names, "column_images": column_images}
    for size, named in ((count, along), (width, across)):
        for what, given in named.items():
            if given is not None and len(given) != size:
                raise ValueError(f"{what}: {len(given)} for a matrix of {whole_matrix}")
    fig = new_figure()
    most = "largest" if maximize else "smallest"
    whole, reach = matrix[rows, columns].sum(), matrix[best].sum()
    there = "there is" if np.isclose(whole, reach) else f"would be {reach:.2f}"
    note = f"Box: assigned, sum {whole:.2f}, the {most} {there}. "
    note += "Ring: the best of a column, where it is not assigned."
    title = title or f"One to one: {len(pairs)} of {count} rows are chosen"
    headline(fig, title, note if width else "")
    if not width:
        fig.set_figheight(1.5)
        fig.write(0.11, 0.95, "Nothing to assign: there are no columns.", fontsize=9)
        return fig
    # In inches: a cell of the matrix, and what stands to its left and above it.
    cell, row = min(1.2, 5.4 / width), 0.37
    beside = above = 0.0
    if row_images:
        beside = row * row_images[0].shape[1] / row_images[0].shape[0] + 0.06
    if column_images:
        above = 0.94 * cell * column_images[0].shape[0] / column_images[0].shape[1] + 0.06
    axes = fig.place(1.0, 0.95, beside + width * cell, above + count * row, below=0.15)
    draw_numbers(axes, matrix, 8, gain)
    left, top, gap = -0.5 - beside / cell, -0.5 - above / row, 0.06
    for i, image in enumerate(row_images or ()):
        axes.imshow(image, extent=(left, -0.5 - gap / cell, i + 0.45, i - 0.45), aspect="auto")
    for j, image in enumerate(column_images or ()):
        axes.imshow(image, extent=(j - 0.47, j + 0.47, -0.5 - gap / row, top), aspect="auto")
    for i in range(count):
        words, color = "left over", "#666666"
        if i in pairs:
            words, color = f"\u2192 {column_names[pairs[i]]}", BLUE
        axes.text(width - 0.5 + 0.12 / cell, i, words, fontsize=7.5, color=color, va="center")
    box = {"fill": False, "edgecolor": BLUE, "linewidth": 2.2}
    for i, j in pairs.items():
        axes.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, **box))
    for j, i in enumerate(gain.argmax(0).tolist()):
        if pairs.get(i) != j:
            axes.add_patch(ring(i, j, RED, "--"))
    axes.set(xlim=(left, width - 0.5), ylim=(count - 0.5, top))
    axes.xaxis.tick_top()
    slant = {} if cell > 0.7 else {"rotation": 30, "ha": "left"}
    axes.set_xticks(range(width), column_names, **slant)
    axes.set_yticks(range(count), row_names)
    axes.tick_params(labelsize=7.5, length=0, pad=3, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return fig


def instance_names(model: MobileInst, video) -> list[str]:
    """["fish 1", ...], a name an annotated instance; empty without annotations."""
    names = getattr(video, "categories", None) or model.config.class_names
    return [
        f"{class_name(names, int(label))} {m + 1}"
        for m, label in enumerate(getattr(video, "labels", ()))
    ]


def draw_numbers(
    axes,
    matrix: np.ndarray,
    fontsize: float,
    gain: np.ndarray | None = None,
    leading_zero: bool = True,
) -> None:
    """A matrix as numbers on grey: the higher the gain (default the number), the darker."""
    gain = matrix if gain is None else gain
    shade = (gain - gain.min()) / max(float(np.ptp(gain)), 1e-12)
    axes.imshow(0.45 * shade, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for (i, j), value in np.ndenumerate(matrix):
        text = f"{value:.2f}" if leading_zero else short(value)
        axes.text(j, i, text, fontsize=fontsize, color=INK, **CENTER)


def short(number: float) -> str:
    """A number between -1 and 1 with two decimals, and no zero before them: ".87"."""
    return f"{float(number):z.2f}".replace("0.", ".")  # z: no -.00


def ring(
    row: float, column: float, color: str, line: str = "-", size: tuple[float, float] = (0.9, 0.84)
) -> Ellipse:
    """An ellipse about a cell of the matrix."""
    return Ellipse((column, row), *size, fill=False, edgecolor=color, linestyle=line, linewidth=1.6)
