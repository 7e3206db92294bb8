"""Bipartite matching as a picture: who wants whom, and who gets it.

    queries of a frame x its instances ─ dice^0.8 p^0.2 ─> (N, G) ─ Hungarian ─> plot_matching
    any scores (N, G), made by hand too ────────────────────────────────────────> plot_assignment

Symbols: N queries, G instances. Instance m = 0, 1, .. has the colour m + 1 in every figure.

Lesson: notebooks/05_losses.ipynb
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.patches import Ellipse, Rectangle
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minst.data.transforms import resize_masks
from minst.matcher import Instances, matching_scores
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.visualize.features import frame_at
from minst.visualize.masks import class_name, draw_frame, faded
from minst.visualize.style import BLUE, CENTER, INK, RED, Picture, headline, new_figure, rgb

__all__ = ["plot_assignment", "plot_matching"]

MAX_ROWS = 12  # queries whose numbers can still be read
DUPLICATE_SCORE = 0.5


def plot_matching(model: MobileInst, video, frame: int = 0) -> Picture:
    """`plot_assignment` of the matcher: queries of a frame of an annotated clip, instances in it.

    Matched are all N queries; shown the 12 of best score, those that want the same instance below
    each other. Left over and of score 0.5 or more is a duplicate. Raises ValueError without
    visible annotations or such a frame.
    """
    image = frame_at(video, frame)
    masks = video.render(frame).masks if hasattr(video, "labels") else np.zeros((0, 1, 1))
    seen = np.flatnonzero(masks.any((1, 2)))  # as in training: what is not visible is no target
    if not len(seen):
        raise ValueError(f"plot_matching: frame {frame} has no annotated instance to match")
    with torch.inference_mode():
        out = model.eval()(image_to_batch(image))
    labels = torch.as_tensor(np.asarray(video.labels)[seen], dtype=torch.long)
    parts = labels, resize_masks(torch.from_numpy(masks[seen])), torch.arange(len(seen))
    target = Instances(*(part.to(out.kernels.device) for part in parts))
    scores = matching_scores(out.class_logits[0], out.mask_logits[0], target).cpu()  # (N, G)
    pairs = _best_pairs(scores.numpy())
    best = scores.amax(1).tolist()
    # query -> the instance that it gets or would like
    wants = dict(enumerate(scores.argmax(1).tolist())) | pairs
    rows = sorted(wants, key=lambda q: (q not in pairs, -best[q]))[: max(MAX_ROWS, len(pairs))]
    rows.sort(key=lambda q: (wants[q], q not in pairs, -best[q]))

    names = instance_names(model, video)
    soft = upsample_masks(out.mask_logits[:, rows], image.shape[:2])[0].sigmoid().cpu().numpy()
    pictures = [
        ((0.9 * (1 - mask) + mask * rgb(int(seen[wants[q]]) + 1)) * 255).astype(np.uint8)
        for q, mask in zip(rows, soft[..., None])
    ]
    instances = [draw_frame(faded(image), [masks[m]], [m + 1], scale=1, opacity=0.7) for m in seen]
    title = f"One query for one instance: {len(pairs)} of {len(scores)} queries matched"
    copies = sum(q not in pairs and best[q] >= DUPLICATE_SCORE for q in wants)
    title += f", {copies} duplicate{'s' * (copies > 1)} left over" if copies else ""
    named = [f"query {q}" for q in rows], [names[m] for m in seen]
    return plot_assignment(scores[rows], *named, title, pictures, instances)


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
    pairs = _best_pairs(matrix)
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
    box = {"fill": False, "edgecolor": BLUE, "linewidth": 2.2}
    for i, j in pairs.items():
        axes.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, **box))
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


def _best_pairs(scores: np.ndarray) -> dict[int, int]:
    """{row: column} of the one-to-one assignment of largest sum, as `hungarian_match` finds it."""
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist()))


def instance_names(model: MobileInst, video) -> list[str]:
    """["fish 1", ...], a name an annotated instance; empty without annotations."""
    names = getattr(video, "categories", None) or model.config.class_names
    labels = enumerate(getattr(video, "labels", ()), start=1)
    return [f"{class_name(names, int(label))} {m}" for m, label in labels]


def draw_numbers(axes, matrix: np.ndarray, fontsize: float, leading_zero: bool = True) -> None:
    """A matrix as numbers on grey: the higher, the darker."""
    shade = (matrix - matrix.min()) / max(float(np.ptp(matrix)), 1e-12)
    axes.imshow(0.45 * shade, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for (i, j), value in np.ndenumerate(matrix):
        text = f"{value:z.2f}"  # z: no -0.00
        text = text if leading_zero else text.replace("0.", ".")
        axes.text(j, i, text, fontsize=fontsize, color=INK, **CENTER)


def ring(row: float, column: float, color: str, size: tuple[float, float] = (0.9, 0.84)) -> Ellipse:
    """An ellipse about a cell of the matrix, dashed where something is wrong."""
    line = "--" if color == RED else "-"
    return Ellipse((column, row), *size, fill=False, edgecolor=color, linestyle=line, linewidth=1.6)
