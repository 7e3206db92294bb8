"""The one-page hand-out: `python notebooks/handout.py` writes handout.pdf beside itself (A4, landscape).

The architecture with all shapes (`visualize.plot_pipeline`), the symbols, and the equations that one page can bear.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.image import imread

from minst import MobileInst, MobileInstConfig, visualize

EQUATIONS = [  # name, equation, what it says
    ("attention", "A = softmax(q kᵀ / √D),  Z <- Z + A v", "queries ask the tokens X_G, then X_L, and share out over them"),
    ("masks", "M = K · X_mask", "one kernel per query, one feature map for all; no box, no NMS"),
    ("score", "s = √(p · o)", "class probability p, objectness o (predicted IoU), both sigmoids"),
    ("matching", "maximise  dice^0.8 · p^0.2", "one query for each instance (Hungarian)"),
    ("loss", "2 L_cls + 2 L_mask + L_obj", "focal; dice + pixel cross-entropy; objectness against IoU"),
    ("query passing", "Q_G of frame t -> local decoder, t + delta", "training only: the passed queries share the targets of t + delta"),
    ("kernel reuse", "M(t + i) = K(t) · X_mask(t + i),  i < T", "between key frames only backbone and mask decoder run"),
    ("association", "Hungarian on cos(K_old, K_new)", "the paper's; by dice of what both segment now: ours"),
]
SYMBOLS = [
    "B batch   L frames of a clip   T reuse interval   N queries   G true instances   C classes   D channels of queries, "
    "kernels and X_mask   H, W pixels   h, w cells of a map   S tokens",
    "X3, X4, X5 at 1/8, 1/16, 1/32   X6 tokens of the whole frame   X_mask (D, H/8, W/8)   X_G from X6   X_L from "
    "X_mask by max pooling   A attention   P3, P4, P5 levels of the mask decoder",
    "Q learned queries   Z their content: what they have seen so far   Q_G, Q_L content after the global and the local "
    "decoder   K kernels (N, D), as weights of a 1x1 convolution   M masks (N, h, w)",
]


def handout() -> Figure:
    """A4, landscape: the pipeline above, symbols and equations below."""
    page = Figure(figsize=(11.69, 8.27), facecolor="white")
    page.text(0.04, 0.955, "MobileInst: video instance segmentation on the mobile", fontsize=18, fontweight="bold")
    page.text(
        0.04,
        0.925,
        "Zhang et al., AAAI 2024 (arXiv 2303.17594), as taught in minst. Shapes: a frame of 640 x 640.",
        fontsize=9,
    )
    with torch.device("meta"):  # shapes only
        model = MobileInst(MobileInstConfig.preset("topformer-base"))
    pipeline = imread(io.BytesIO(visualize.plot_pipeline(model, size=(640, 640)).png(dpi=220)))
    width = 0.92
    height = width * 11.69 / 8.27 * pipeline.shape[0] / pipeline.shape[1]
    axes = page.add_axes([0.04, 0.905 - height, width, height])
    axes.imshow(pipeline, interpolation="antialiased")
    axes.set_axis_off()
    y = 0.885 - height
    page.text(0.04, y, "\n".join(SYMBOLS), fontsize=8, va="top", linespacing=1.6)
    for i, (name, equation, meaning) in enumerate(EQUATIONS):
        line = y - 0.105 - i * (y - 0.15) / (len(EQUATIONS) - 1)
        page.text(0.04, line, name, fontsize=9.5, fontweight="bold")
        page.text(0.15, line, equation, fontsize=9.5, family="monospace")
        page.text(0.565, line, meaning, fontsize=9, color="#444444")
    return page


if __name__ == "__main__":
    figure = handout()
    FigureCanvasPdf(figure)
    figure.savefig(Path(__file__).with_name("handout.pdf"), metadata={"CreationDate": None, "Title": "MobileInst"})
