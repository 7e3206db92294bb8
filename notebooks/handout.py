"""The one-page hand-out: `python notebooks/handout.py` writes handout.pdf and ko/handout.pdf (A4, landscape).

The architecture with all shapes (`visualize.plot_pipeline`), the symbols, and the equations that one page can bear. Its
words in Korean are in source/ko/words.json; the figure keeps the names of the code, as the figures of every lesson do.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import torch
from language import LANGUAGES, say
from matplotlib import font_manager
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.image import imread

from minst import MobileInst, MobileInstConfig, visualize
from minst.visualize import fonts

TITLE = "MobileInst: video instance segmentation on the mobile"
SOURCE = "Zhang et al., AAAI 2024 (arXiv 2303.17594), as taught in minst. Shapes: a frame of 640 x 640."

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


def families(text: str) -> list[str]:
    """What draws a text beside matplotlib's own fonts, which have no Hangul; [] where they suffice."""
    path = fonts.font_for(text)
    if path is None:  # no page of boxes
        raise SystemExit("No font here has the letters of this hand-out. For Korean: python -m pip install '.[fonts]'")
    if path == fonts.USUAL:
        return []
    for file in (Path(path), Path(path).with_stem(f"{Path(path).stem}Bold")):
        if file.exists():
            font_manager.fontManager.addfont(file)
    return [font_manager.FontProperties(fname=path).get_name()]


def handout(language: str = "en") -> Figure:
    """A4, landscape: the pipeline above, symbols and equations below."""
    word = say("handout", language)
    equations = [[name, *map(word, (name, equation, meaning))] for name, equation, meaning in EQUATIONS]
    title, source, *symbols = map(word, (TITLE, SOURCE, *SYMBOLS))
    others = families("".join([title, source, *symbols, *sum(equations, [])]))
    plain, mono = (dict(family=[own, *others]) for own in ("DejaVu Sans", "DejaVu Sans Mono"))
    page = Figure(figsize=(11.69, 8.27), facecolor="white")
    page.text(0.04, 0.955, title, fontsize=18, fontweight="bold", **plain)
    page.text(0.04, 0.925, source, fontsize=9, **plain)
    with torch.device("meta"):  # shapes only
        model = MobileInst(MobileInstConfig.preset("topformer-base"))
    pipeline = imread(io.BytesIO(visualize.plot_pipeline(model, size=(640, 640)).png(dpi=220)))
    width = 0.92
    height = width * 11.69 / 8.27 * pipeline.shape[0] / pipeline.shape[1]
    axes = page.add_axes([0.04, 0.905 - height, width, height])
    axes.imshow(pipeline, interpolation="antialiased")
    axes.set_axis_off()
    y = 0.885 - height
    page.text(0.04, y, "\n".join(symbols), fontsize=8, va="top", linespacing=1.6, **plain)
    for i, (english, name, equation, meaning) in enumerate(equations):
        line = y - 0.105 - i * (y - 0.15) / (len(EQUATIONS) - 1)
        page.text(0.04, line, name, fontsize=9.5, fontweight="bold", **plain)
        page.text(0.15, line, equation, fontsize=9.5, **mono)
        page.text(0.565, line, meaning, fontsize=9, color="#444444", **plain)
        if name != english:
            page.text(0.04, line - 0.015, f"({english})", fontsize=6.5, color="#444444", **plain)
    return page


if __name__ == "__main__":
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # NanumGothic's bold says that it is semibold
    for language in ("en", *LANGUAGES):
        figure = handout(language)
        FigureCanvasPdf(figure)
        path = Path(__file__).parent / ("" if language == "en" else language) / "handout.pdf"
        figure.savefig(path, metadata={"CreationDate": None, "Title": "MobileInst"})
