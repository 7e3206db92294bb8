"""Pictures that several lessons draw: bars, curves, and short loops where motion is the idea.

Lesson: notebooks/00_start_here.ipynb
"""

import base64
import io
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator
from PIL import Image

from minst.visualize.masks import animate
from minst.visualize.style import GREY, INK, RED, Picture, headline, new_figure, plain, rgb

__all__ = ["Film", "film", "plot_bars", "plot_curves", "plot_lines", "png"]


class Film(NamedTuple):
    """A short loop as a notebook shows it; its last frame where loops do not play."""

    gif: bytes
    still: bytes  # .png; empty: without
    alt: str

    def __repr__(self) -> str:
        return f"Film: {self.alt}"

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.gif).decode()
        look = f"alt='{escape(self.alt)}' style='max-width:100%'"
        return f"<img {look} src='data:image/gif;base64,{data}'>"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]] | None:
        return (self.still, {"alt": self.alt}) if self.still else None


def film(
    pictures: Sequence[Picture | np.ndarray], alt: str = "", fps: float = 3.0, dpi: int = 75
) -> Film:
    """Pictures, or frames (H, W, 3), one after the other; the last one stays for a while.

    alt: for who cannot see it (default: the text of the last picture).
    """
    stills = [of.png(dpi) if isinstance(of, Picture) else png(of) for of in pictures]
    frames = [np.asarray(Image.open(io.BytesIO(still)).convert("RGB")) for still in stills]
    with tempfile.TemporaryDirectory() as folder:
        path = animate(frames + 6 * frames[-1:], Path(folder) / "film.gif", fps)
        return Film(path.read_bytes(), stills[-1], alt or pictures[-1].alt)


def png(frame: np.ndarray) -> bytes:
    """The file of a frame (H, W, 3) of bytes."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def plot_bars(panels: dict[str, dict[str, float]], head: str, note: str, lit=()) -> Picture:
    """Bars beside one another, with their values above: {title: {name: value}}; `lit` in orange."""
    fig = new_figure()
    headline(fig, head, note)
    width = 9.2 / len(panels)
    for i, (title, values) in enumerate(panels.items()):
        axes = plain(fig.place(0.1 + i * width, 0.95, width - 0.15, 1.9, below=0.45))
        colors = ["#d9822b" if name in lit else "#8fb3d9" for name in values]
        bars = axes.bar(list(values), list(values.values()), color=colors)
        labels = [f"{v:.0f}" if v >= 20 else f"{v:.1f}" for v in values.values()]
        axes.bar_label(bars, labels, fontsize=8)
        axes.set_title(title, fontsize=9, loc="left", pad=10)
        axes.set(yticks=[])
        axes.spines["left"].set_visible(False)
    return fig


def plot_lines(
    panels: dict[str, dict[str, list]], x: list, head: str, note: str, **look
) -> Picture:
    """Curves over x, panels beside one another: {title: {label: values}}; look: of the axes."""
    fig, width = new_figure(), 6.8 / len(panels)
    headline(fig, head, note)
    drawn = []
    for i, (title, curves) in enumerate(panels.items()):
        drawn.append(plain(fig.place(0.6 + i * (width + 0.25), 0.95, width - 0.4, 2.4, below=0.5)))
        for k, (label, values) in enumerate(curves.items()):
            drawn[i].plot(x, values, marker="osv^D"[k], ms=4, color=rgb(k + 1), label=label)
        drawn[i].set_title(title, fontsize=9)
        drawn[i].set(**look)
        drawn[i].xaxis.label.set_fontsize(8)
        if look.get("yscale") == "log":
            drawn[i].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            drawn[i].yaxis.set_major_formatter("{x:g}")
        drawn[i].set_xticks(x, x)
        drawn[i].minorticks_off()
    most = max(drawn, key=lambda axes: len(axes.lines)).get_legend_handles_labels()
    fig.legend(*most, loc="center right", frameon=False, fontsize=8)
    return fig


def plot_curves(
    panels: dict[str, dict[str, tuple]], head: str, note: str, height: float = 2.3, **look
) -> Picture:
    """Curves, panels beside one another: {title: {label: (x, y)}}; look: of the axes.

    A label that begins with "_" is a thin grey line, one with "!" a thick red one.
    """
    fig, width = new_figure(), 9.2 / len(panels)
    headline(fig, head, note)
    for i, (title, curves) in enumerate(panels.items()):
        left = 0.5 + i * width
        axes = plain(fig.place(left, 0.95, width - 0.4, height, below=0.5))
        styles = iter(("-", "--", ":", "-.") * len(curves))
        for label, (x, y) in curves.items():
            grey, red = label.startswith("_"), label.startswith("!")
            color, line = (GREY, 0.7) if grey else (RED, 2.0) if red else (INK, 1.4)
            style = "-" if grey else next(styles)
            axes.plot(x, y, style, color=color, linewidth=line, label=label.lstrip("!"))
        axes.set_title(title, fontsize=9)
        axes.set(**look)
        axes.xaxis.label.set_size(8)
        if i == 0:
            axes.legend(fontsize=7.5, frameon=False)
    return fig
