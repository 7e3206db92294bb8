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

EQUATIONS = [
    ("masks", "M = K · X_mask", "one kernel per query, one feature map for all; no box, no NMS"),
    ("score", "s = sqrt(p · o)", "class probability p and IoU-aware objectness o, both sigmoids"),
    ("losses", "L = 2 L_cls + 2 L_mask + L_obj", "focal; dice + pixel cross-entropy; objectness against IoU"),
    ("matching", "max  dice^0.8 · p^0.2", "one query for one instance (Hungarian)"),
    (
        "query passing",
        "Q_G of frame t  ->  local decoder of frame t + delta",
        "training only: same instance, other frame",
    ),
    (
        "kernel reuse",
        "M^{t+i} = K^t · X_mask^{t+i},  i = 0 .. T-1",
        "between key frames only backbone and mask decoder run",
    ),
    ("association", "Hungarian on cos(K_old, K_new)", "paper; ours as well: dice of what both segment now"),
]
SYMBOLS = (
    "B batch   T frames, reuse interval   N object queries   D channels of X_mask and kernels   K classes   M instances   "
    "H W frame size\nX3 X4 X5: 1/8, 1/16, 1/32   X6: tokens   X_mask (D, H/8, W/8)   X_G = X6   X_L = max-pooled X_mask   "
    "K (N, D)"
)


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
    y = 0.875 - height
    page.text(0.04, y, SYMBOLS, fontsize=8.5, va="top", linespacing=1.6)
    for i, (name, equation, meaning) in enumerate(EQUATIONS):
        line = y - 0.09 - i * 0.037
        page.text(0.04, line, name, fontsize=9.5, fontweight="bold")
        page.text(0.16, line, equation, fontsize=9.5, family="monospace")
        page.text(0.58, line, meaning, fontsize=9, color="#444444")
    return page


if __name__ == "__main__":
    figure = handout()
    FigureCanvasPdf(figure)
    figure.savefig(Path(__file__).with_name("handout.pdf"), metadata={"CreationDate": None, "Title": "MobileInst"})
