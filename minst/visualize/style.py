"""What all figures share: colours, sizes, the headline, and how a figure is saved.

Figures are made without pyplot, so that none is shown or kept by accident: a function returns its Figure, a notebook
shows the last value of a cell (no `%matplotlib inline` is needed), `save` writes it.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from minst.visualize.masks import color_of

__all__ = ["GREY", "INK", "RED", "WIDTH", "caption", "headline", "new_figure", "rgb", "save"]

WIDTH = 9.4  # inches: a notebook's column; printed over the text width of A4, 8 points become 5.5
INK, GREY, RED = (
    "#222222",
    "#9a9a9a",
    "#e8000b",
)  # text and axes, what is absent or secondary, what went wrong


def rgb(identity: int) -> tuple[float, float, float]:
    """`color_of` an identity 1, 2, ... as matplotlib wants it: the same instance has the same colour everywhere."""
    return tuple(c / 255 for c in color_of(identity))


class Picture(Figure):
    """A Figure that a notebook shows by itself; `alt` is its text for those who do not see it (`headline` sets it)."""

    alt = "a figure without a headline"

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def png(self, dpi: int = 100) -> bytes:
        """The figure as the bytes of a PNG."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return self.png(), {"alt": self.alt}


def new_figure(height: float, width: float = WIDTH) -> Picture:
    """An empty white figure of `height` inches."""
    return Picture(figsize=(width, height), facecolor="white")


def headline(fig: Figure, head: str, note: str = "") -> None:
    """One sentence that says what the figure shows, and a smaller one that says how to read it. Takes 0.6 inches."""
    inch = 1 / fig.get_figheight()
    fig.alt = f"{head}. {note}" if note else head
    fig.text(0.012, 1 - 0.1 * inch, head, fontsize=13, fontweight="bold", color=INK, va="top")
    fig.text(0.012, 1 - 0.38 * inch, note, fontsize=8, color="#555555", va="top")


def caption(axes, text: str, pad: float = 14) -> None:
    """Words to the left of a row of pictures."""
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=7, color=INK, labelpad=pad)


def save(fig: Figure, path: str | Path, dpi: int = 150) -> Path:
    """Write a figure as .png, .pdf or .svg; a file that is there is replaced."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{path}: write .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=dpi)
    return path
