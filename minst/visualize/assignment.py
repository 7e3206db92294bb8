"""Bipartite matching as a picture: who wants whom, and who gets it.

    scores (N queries, G instances) ─ Hungarian ─> a box for each pair

Lesson: notebooks/05_losses.ipynb
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.patches import Ellipse, Rectangle
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.visualize.style import BLUE, CENTER, GREY, INK, RED, Picture, headline, new_figure

__all__ = ["plot_assignment"]


def plot_assignment(
    scores: Tensor,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    row_images: Sequence[np.ndarray] = (),
    column_images: Sequence[np.ndarray] = (),
) -> Picture:
    """A matrix of scores (N, G) and its one-to-one assignment of largest sum, boxed.

    Images (h, w, 3) stand beside the names. A ring marks the best of a column where the assignment
    decides otherwise. Raises ValueError for a matrix that is empty or not finite.
    """
    matrix = torch.as_tensor(scores).detach().cpu().numpy().astype(float)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        wanted = "a finite matrix (N, G) with at least one row and one column"
        raise ValueError(f"scores must be {wanted}, got shape {matrix.shape}")
    count, width = matrix.shape
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    pairs = dict(zip(rows.tolist(), columns.tolist()))
    fig = new_figure()
    note = f"Box: assigned, sum {sum(matrix[pair] for pair in pairs.items()):.2f}, the largest "
    note += "there is. Ring: the best of a column, where it is not assigned."
    headline(fig, title, note)
    # In inches: a cell of the matrix, and what stands to its left and above it.
    cell, row = min(1.2, 5.4 / width), 0.37
    beside = above = 0.0
    if len(row_images):
        beside = row * row_images[0].shape[1] / row_images[0].shape[0] + 0.06
    if len(column_images):
        above = 0.94 * cell * column_images[0].shape[0] / column_images[0].shape[1] + 0.06
    axes = fig.place(1.0, 0.95, beside + width * cell, above + count * row, below=0.15)
    draw_numbers(axes, matrix, 8)
    left, top, gap = -0.5 - beside / cell, -0.5 - above / row, 0.06
    for i, image in enumerate(row_images):
        axes.imshow(image, extent=(left, -0.5 - gap / cell, i + 0.45, i - 0.45), aspect="auto")
    for j, image in enumerate(column_images):
        axes.imshow(image, extent=(j - 0.47, j + 0.47, -0.5 - gap / row, top), aspect="auto")
    for i in range(count):
        words, color = "left over", "#666666"
        if i in pairs:
            words, color = f"\u2192 {column_names[pairs[i]]}", BLUE
        axes.text(width - 0.5 + 0.12 / cell, i, words, fontsize=7.5, color=color, va="center")
    for i, j in pairs.items():
        axes.add_patch(box(i, j, BLUE))
    for j, i in enumerate(matrix.argmax(0).tolist()):
        if pairs.get(i) != j:
            axes.add_patch(ring(i, j, RED))
    axes.set(xlim=(left, width - 0.5), ylim=(count - 0.5, top))
    axes.xaxis.tick_top()
    slant = {} if cell > 0.7 else {"rotation": 30, "ha": "left"}
    axes.set_xticks(range(width), column_names, **slant)
    axes.set_yticks(range(count), row_names)
    axes.tick_params(labelsize=7.5, length=0, pad=3, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return fig


def draw_numbers(axes, matrix: np.ndarray, fontsize: float, leading_zero: bool = True) -> None:
    """A matrix as numbers on grey: the higher, the darker."""
    shade = (matrix - matrix.min()) / max(float(np.ptp(matrix)), 1e-12)
    axes.imshow(0.45 * shade, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for (i, j), value in np.ndenumerate(matrix):
        text = f"{value:z.2f}"  # z: no -0.00
        text = text if leading_zero else text.replace("0.", ".")
        axes.text(j, i, text, fontsize=fontsize, color=INK, **CENTER)


def box(row: float, column: float, color: str, size=(0.94, 0.9)) -> Rectangle:
    """A rectangle about a cell of the matrix, thin where nothing is right or wrong."""
    corner, width = (column - size[0] / 2, row - size[1] / 2), 1 if color == GREY else 2.2
    return Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=width)


def ring(row: float, column: float, color: str, size=(0.9, 0.84)) -> Ellipse:
    """An ellipse about a cell of the matrix, dashed where something is wrong."""
    line = "--" if color == RED else "-"
    return Ellipse((column, row), *size, fill=False, edgecolor=color, linestyle=line, linewidth=1.6)
