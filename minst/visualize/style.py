"""What all figures share: colours, places in inches, the headline, and how a figure is saved.

Figures are made without pyplot, so that none is shown or kept by accident: a function returns its
Figure, a notebook shows the last value of a cell (no `%matplotlib inline` is needed), `save`
writes it.

    fig = new_figure()                             no height: it grows with what is placed on it
    fig.place(left, top, width, height) -> Axes    all in inches from its upper left corner
    fig.write(left, top, "words")
    headline(fig, "what the figure shows", "how to read it")

Lesson: notebooks/00_start_here.ipynb
"""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, ScaledTranslation

from minst.visualize import fonts
from minst.visualize.masks import color_of

__all__ = ["BLUE", "CENTER", "DPI", "GREY", "INK", "RED", "WIDTH", "Picture", "bare", "caption",
           "headline", "new_figure", "plain", "rgb", "save"]  # fmt: skip

DPI = 150  # of a figure that is written as a PNG
WIDTH = 9.4  # inches: a notebook's column; printed over the text width of A4, 8 points become 5.5
# Text and axes, what is absent or secondary, what went wrong, what is right.
INK, GREY, RED, BLUE = "#222222", "#9a9a9a", "#e8000b", "#0072b2"
CENTER = {"ha": "center", "va": "center"}  # of words: they stand about their place


def rgb(identity: int) -> tuple[float, float, float]:
    """`color_of` an identity 1, 2, ... as matplotlib wants it: one colour for it everywhere."""
    return tuple(c / 255 for c in color_of(identity))


class Picture(Figure):
    """A Figure that a notebook shows by itself, and whose parts are placed in inches.

    `alt` is its text for those who do not see it (`headline` sets it).
    """

    alt = "a figure without a headline"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._boxes: dict[Axes, tuple[float, float, float, float]] = {}
        # Inches from the upper left corner, wherever that is once the figure has grown.
        to_corner = ScaledTranslation(0, 1, self.transFigure)
        self._inches = Affine2D().scale(1, -1) + self.dpi_scale_trans + to_corner

    def place(
        self, left: float, top: float, width: float, height: float, below: float = 0.1
    ) -> Axes:
        """Axes of `width` x `height` inches, `left` and `top` inches from the upper left corner.

        A figure that ends less than `below` inches under them grows; what it holds stays in place.
        """
        self._boxes[self.add_axes((0, 0, 1, 1))] = (left, top, width, height)
        self.set_figheight(max(self.get_figheight(), top + height + below))
        wide, tall = self.get_size_inches()
        for axes, (x, y, w, h) in self._boxes.items():
            axes.set_position((x / wide, 1 - (y + h) / tall, w / wide, h / tall))
        return axes

    def write(self, left: float, top: float, text: str, **look) -> Text:
        """Words whose upper left corner is `left`, `top` inches from that of the figure."""
        look = {"color": INK, "va": "top", "transform": self._inches} | look
        return self.text(left, top, text, **look)

    def draw(self, renderer) -> None:
        """As any figure, but words of every script are legible."""
        fonts.cover(self.findobj(Text))
        super().draw(renderer)

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def png(self, dpi: int = 100) -> bytes:
        """The bytes of a PNG file."""
        self.savefig(buffer := io.BytesIO(), format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return self.png(), {"alt": self.alt}


def new_figure(height: float = 0.1, width: float = WIDTH) -> Picture:
    """An empty white figure of `height` inches; `Picture.place` makes it higher as needed."""
    return Picture(figsize=(width, height), facecolor="white")


def headline(fig: Picture, head: str, note: str = "") -> None:
    """What the figure shows in one sentence, and a smaller one: how to read it. 0.6 inches high."""
    fig.alt = f"{head}. {note}" if note else head
    left = 0.012 * fig.get_figwidth()
    fig.write(left, 0.1, head, fontsize=13, fontweight="bold")
    fig.write(left, 0.38, note, fontsize=8, color="#555555")


def caption(axes: Axes, text: str) -> None:
    """Words to the left of a row of pictures."""
    look = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 7, "color": INK}
    axes.set_ylabel(text, labelpad=14, **look)


def bare(axes: Axes) -> Axes:
    """The same axes without ticks and lines about them, as a picture needs none."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def plain(axes: Axes, labelsize: float = 7) -> Axes:
    """The same axes with small ticks and two grey lines, as a curve needs no more."""
    axes.tick_params(labelsize=labelsize, length=2, color=GREY, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
    return axes


def save(fig: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write a figure as .png, .pdf or .svg; a file that is there is replaced."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{path}: write .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=dpi)
    return path
