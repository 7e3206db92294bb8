"""The figures of a lab's report: differences, reuse interval and speed, associations, beyond the paper.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from minst.lab.grid import SPEEDS
from minst.lab.measure import ADAPTIVE, FROZEN, INTERVALS
from minst.lab.report import Lab, Row, milliseconds
from minst.visualize.style import GREY, INK, RED, headline, new_figure, rgb

__all__ = ["PLOTS", "has_data", "plot_associations", "plot_beyond", "plot_differences", "plot_intervals"]

GREEN = "#1a7f37"
BLUE = "#0b62c4"


def has_data(lab: Lab, name: str) -> bool:
    """Has the lab measured what the plot `name` shows?"""
    if name == "differences":
        return len(lab.rows) > 1
    return all("milliseconds" in run.metrics for run in lab.full.runs)


def plot_differences(lab: Lab) -> Figure:
    """Every variant's difference to the full model in the figure that decides, with its interval and each seed."""
    names = [name for name in lab.rows if name != "full" and lab.difference(name)]
    fig = new_figure(1.25 + 0.27 * len(names))
    inch = 1 / fig.get_figheight()
    axes = fig.add_axes((0.33, 0.5 * inch, 0.64, 1 - 1.15 * inch))
    axes.axvline(0, color=INK, linewidth=1)
    for y, name in enumerate(reversed(names)):
        found = lab.difference(name)
        sure = found.low > 0 or found.high < 0
        color = (RED if found.high < 0 else GREEN) if sure else GREY
        axes.plot([found.low, found.high], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
        axes.plot(found.seeds, [y] * len(found.seeds), "|", color=color, markersize=9, markeredgewidth=1.2)
        axes.plot(found.difference, y, "o", color=color, markersize=5.5, markerfacecolor=color if sure else "white")
    labels = [f"{v.says}{'  *' if v.claim else ''}" for v in map(lab.variants.get, reversed(names))]
    axes.set_yticks(range(len(names)), labels, fontsize=7.5)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("points of AP more (right) or fewer (left) than the full model", fontsize=8)
    _plain(axes)
    worse = sum(lab.difference(n).high < 0 for n in names)
    head = f"{worse} of {len(names)} changes surely make the model worse, at this scale"
    note = "Point: mean (hollow: the 95 % interval, the line, holds 0). Ticks: each seed. *: the paper says worse. Temporal rows: "
    note += "video AP; others: image AP."
    headline(fig, head, note)
    return fig


def plot_intervals(lab: Lab) -> Figure:
    """Video AP and consistency of tracks over T for each speed, by cosine and by mask, and the time of a frame."""
    fig = new_figure(4.9)
    full = lab.full
    rows = [("cosine", "by cosine (paper)"), ("mask", "by mask (ours)")]
    kinds = [("video AP", lambda s, by, t: ("video", s, by, t)),
             ("tracks kept 10 frames on, %", lambda s, by, t: ("tracks", s, by, t, 10))]  # fmt: skip
    for k, (what, key) in enumerate(kinds):
        means = [full.spread(key(s, by, t)).mean for s in SPEEDS for by, _ in rows for t in INTERVALS]
        low, high = min(means), max(means)
        for i, (by, title) in enumerate(rows):
            axes = fig.add_axes((0.065 + 0.325 * i, 0.52 - 0.42 * k, 0.27, 0.31))
            for j, speed in enumerate(SPEEDS):
                _band(axes, full, [key(speed, by, t) for t in INTERVALS], INTERVALS, rgb(j + 1), speed)
            if k:
                axes.set_ylim(0, 100)
            elif high > low:
                axes.set_ylim(low - 0.4 * (high - low), high + 0.15 * (high - low))
            axes.set_xticks(INTERVALS)
            _titled(axes, f"{what}, {title}", "T: a key frame every T frames" if k else "")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")
    axes = fig.add_axes((0.73, 0.52, 0.25, 0.31))
    for j, (by, _) in enumerate(rows):
        times = [milliseconds(full, by, t) for t in INTERVALS]
        axes.plot(INTERVALS, [100 * t / times[0] for t in times], "o-", color=(BLUE, RED)[j], markersize=3, label=by,
                  linewidth=(4, 1.2)[j], alpha=(0.5, 1)[j])  # fmt: skip
    axes.set_ylim(0, 108)
    axes.set_xticks(INTERVALS)
    _titled(axes, "time of a frame, % of T = 1", "T")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")
    lost = {s: full.against(full, ("video", s, "mask", 12), ("video", s, "mask", 1)).difference for s in SPEEDS}
    said = ", ".join(f"{speed} {value:+.1f}" for speed, value in lost.items()).replace("-", "−")
    headline(
        fig,
        f"T = 12 in the place of 1, by mask: {said} points of AP",
        "Band: ± one standard deviation over seeds. Axes of AP do not begin at 0.",
    )
    return fig


def plot_associations(lab: Lab) -> Figure:
    """Video AP of every association at T = 1, 3, 6 for the probed models and the shipped weights."""
    across = 3
    down = -(-len(lab.probed) // across)
    fig = new_figure(0.85 + 2.2 * down)
    inch = 1 / fig.get_figheight()
    for i, (says, row) in enumerate(lab.probed.items()):
        left, bottom = 0.06 + 0.31 * (i % across), 1 - (0.95 + 1.4 + 2.2 * (i // across)) * inch
        axes = fig.add_axes((left, bottom, 0.27, 1.4 * inch))
        names = row.associations
        for k, t in enumerate((1, 3, 6)):
            found = [row.spread(("video", "medium", by, t)) for by in names]
            places = [x + 0.27 * (k - 1) for x in range(len(names))]
            heights, errors = [s.mean for s in found], [0 if s.sd != s.sd else s.sd for s in found]
            error = {"yerr": errors, "error_kw": {"elinewidth": 0.8, "ecolor": INK}} if any(errors) else {}
            axes.bar(places, heights, 0.26, color=(BLUE, "#6ea6e0", "#bcd7f3")[k], label=f"T = {t}", **error)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
        _titled(axes, says, "")
    fig.legend(*axes.get_legend_handles_labels(), fontsize=7.5, frameon=False, loc="upper right", ncols=3)
    cosine, none = (("video", "medium", by, 1) for by in ("cosine", "none"))
    gains = {says: row.against(row, cosine, none).difference for says, row in lab.probed.items()}
    said = f"{min(gains.values()):+.1f} to {max(gains.values()):+.1f}".replace("-", "−")
    head = f"Cosine against no association at T = 1: {said} points"
    headline(fig, head, "Video AP on medium clips. Thin lines: ± one standard deviation over seeds.")
    return fig


def plot_beyond(lab: Lab) -> Figure:
    """Video AP against milliseconds: fixed T, frozen X6, adaptive T, for each speed."""
    fig = new_figure(3.1)
    kinds = [
        ("mask", INTERVALS, (1, 3, 12), "fixed T", BLUE),  # third: the points that are named; all would overlap
        ("frozen", FROZEN, FROZEN, "frozen X6", RED),
        ("adaptive", ADAPTIVE, ADAPTIVE[-1:], "adaptive T", GREEN),
    ]
    means = [lab.full.spread(("video", s, by, v)).mean for s in SPEEDS for by, values, *_ in kinds for v in values]
    low, high = min(means), max(*means, min(means) + 1)
    for i, speed in enumerate(SPEEDS):
        axes = fig.add_axes((0.065 + 0.315 * i, 0.16, 0.27, 0.56))
        axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        for by, values, named, label, color in kinds:
            points = [(milliseconds(lab.full, by, v), lab.full.spread(("video", speed, by, v)).mean) for v in values]
            axes.plot(*zip(*points), "o-", color=color, markersize=3.5, linewidth=1, label=label)
            for (x, y), value in zip(points, values):
                if value in named:
                    name, above = (f"{value:g}", -8) if by == "adaptive" else (f"T{value}", -8 if value == 12 else 3)
                    axes.annotate(name, (x, y), xytext=(2, above), textcoords="offset points", fontsize=6, color=color)
        _titled(axes, f"{speed} clips", "milliseconds a frame (medium clips)")
    fig.legend(*axes.get_legend_handles_labels(), fontsize=7.5, frameon=False, loc="upper right", ncols=3)
    head = "Beyond the paper: accuracy against time"
    headline(
        fig,
        head,
        "Video AP, association by mask. Adaptive: the number is the agreement below which a key frame is taken.",
    )
    return fig


PLOTS: dict[str, Callable[[Lab], Figure]] = {
    "differences": plot_differences,
    "intervals": plot_intervals,
    "associations": plot_associations,
    "beyond": plot_beyond,
}


def _band(axes, row: Row, keys, xs, color, label: str) -> None:
    found = [row.spread(key) for key in keys]
    mean = [s.mean for s in found]
    axes.plot(xs, mean, "o-", color=color, markersize=3, label=label)
    sds = [0 if s.sd != s.sd else s.sd for s in found]
    axes.fill_between(
        xs, [m - s for m, s in zip(mean, sds)], [m + s for m, s in zip(mean, sds)], color=color, alpha=0.15, lw=0
    )


def _titled(axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=8, color=INK, loc="left", pad=4)
    axes.set_xlabel(below, fontsize=7.5)
    _plain(axes)


def _plain(axes) -> None:
    axes.tick_params(labelsize=7, length=2, color=GREY, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
