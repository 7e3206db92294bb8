"""The pictures of a lab's report: differences with their intervals, of rows and of shipped weights.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from collections.abc import Sequence

from minst.lab.results import Lab
from minst.lab.statistics import MARGIN, Comparison
from minst.visualize.style import GREY, INK, RED, Picture, headline, new_figure, plain

__all__ = ["PLOTS", "plot_differences", "plot_forest", "plot_shipped"]

COLORS = {"worse": RED, "better": "#1a7f37", "equal": "#0b62c4", "open": GREY}


def plot_differences(lab: Lab) -> Picture:
    """Every row's difference to its base in what judges it, its interval, each seed."""
    rows = ((lab.variants[name], found) for name, found in lab.judged.items())
    lines = [(variant.says + "  *" * bool(variant.claim), found) for variant, found in rows]
    note = "Ticks: each seed. *: the paper says worse."
    return plot_forest(lines, note, "points of AP more than the row that it is compared with")


def plot_shipped(lab: Lab, only: str = "") -> Picture:
    """What needs no training, on the same clips; only: "" = all, or "shapes-tiny, medium", say."""
    lines = [(of, says, found) for of, says, _, found in lab.compared if only in ("", of)]
    lines = [(says if only else f"{of}: {says}", found) for of, says, found in lines]
    return plot_forest(lines, "Intervals over clips.", "points of video AP", 2.5 if only else 4.3)


def plot_forest(
    lines: Sequence[tuple[str, Comparison]], note: str, what: str, left: float = 3.1
) -> Picture:
    """A line for each difference; the colour says what is decided.

    note: more of what is drawn. what: the axis. left: room for the names, in inches.
    """
    fig = new_figure()
    axes = fig.place(left, 0.65, 9.1 - left, 0.1 + 0.25 * len(lines), below=0.5)
    axes.axvspan(-MARGIN, MARGIN, color="#eeeeee", lw=0)
    axes.axvline(0, color=INK, linewidth=1)
    for y, (_, found) in enumerate(lines):
        color = COLORS[found.decided]
        axes.plot([found.low, found.high], [y, y], color=color, linewidth=2.5)
        if len(found.seeds) > 1:
            axes.plot(found.seeds, [y] * len(found.seeds), "|", color=color, markersize=9)
        inside = "white" if found.decided == "open" else color
        axes.plot(found.difference, y, "o", color=color, ms=5.5, markerfacecolor=inside)
    axes.set_yticks(range(len(lines)), [says for says, _ in lines])
    axes.set_ylim(len(lines) - 0.3, -0.7)
    axes.set_xlabel(what, fontsize=8)
    plain(axes)
    said = [found.decided for _, found in lines]
    counts = ", ".join(f"{said.count(word)} {word}" for word in COLORS if word in said)
    about = f"Point: mean (hollow: open). Line: 95 % interval. Grey band: ±{MARGIN:g} point. {note}"
    headline(fig, f"Of {len(lines)} differences: {counts}", about)
    return fig


PLOTS = {"differences": plot_differences, "shipped": plot_shipped}
