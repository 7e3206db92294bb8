"""The pictures of a lab's report: differences, T and speed, associations, beyond the paper.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from collections.abc import Callable, Hashable, Iterable

import numpy as np
from matplotlib.axes import Axes

from minst.lab.grid import SPEEDS
from minst.lab.measure import ADAPTIVE, FROZEN, INTERVALS
from minst.lab.results import Lab, Row
from minst.lab.statistics import signed
from minst.visualize.style import GREY, INK, RED, Picture, headline, new_figure, plain, rgb

__all__ = ["PLOTS", "plot_associations", "plot_beyond", "plot_differences", "plot_intervals"]

GREEN = "#1a7f37"
BLUE = "#0b62c4"
PANEL = 2.54  # inches: three of them stand in a row, about three inches apart
LEGEND = {"fontsize": 7.5, "frameon": False}


def plot_differences(lab: Lab) -> Picture:
    """Every variant's difference to the full model in what decides, its interval, each seed."""
    found = {name: lab.difference(name) for name in lab.rows}
    found = {name: difference for name, difference in found.items() if difference}
    fig = new_figure()
    axes = fig.place(3.1, 0.65, 6.0, 0.1 + 0.27 * len(found), below=0.5)
    axes.axvline(0, color=INK, linewidth=1)
    for y, (mean, low, high, seeds) in enumerate(found.values()):
        sure = low > 0 or high < 0
        color = (RED if high < 0 else GREEN) if sure else GREY
        axes.plot([low, high], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
        axes.plot(seeds, [y] * len(seeds), "|", color=color, markersize=9, markeredgewidth=1.2)
        axes.plot(mean, y, "o", color=color, ms=5.5, markerfacecolor=color if sure else "white")
    variants = [lab.variants[name] for name in found]
    axes.set_yticks(range(len(found)), [v.says + "  *" * bool(v.claim) for v in variants])
    axes.set_ylim(len(found) - 0.3, -0.7)
    axes.set_xlabel("points of AP more (right) or fewer (left) than the full model", fontsize=8)
    plain(axes)
    sure = sum(difference.low > 0 or difference.high < 0 for difference in found.values())
    misses = (
        f"{sure} of {len(found)} intervals misses zero"
        if sure == 1
        else f"{sure} of {len(found)} intervals miss zero"
    )
    headline(
        fig,
        f"{misses}; by chance alone it would be {0.05 * len(found):.1f}",
        "Point: mean (hollow: the 95 % interval, the line, holds 0). Ticks: each seed. *: the "
        "paper says worse. Temporal rows: video AP; others: image AP.",
    )
    return fig


def plot_intervals(lab: Lab) -> Picture:
    """Video AP and consistency of tracks over T for each speed and association, and the time."""
    fig, full = new_figure(), lab.full
    ways = {"cosine": "by cosine (paper)", "mask": "by mask (ours)"}
    ap = [("video", speed, by, t) for speed in SPEEDS for by in ways for t in INTERVALS]
    rows = [  # beginning and end of the keys, place, title, limits
        ("video", (), 0.83, "video AP", _range(full, ap, 0.4, 0.15)),
        ("tracks", (10,), 2.89, "tracks kept 10 frames on, %", (0, 100)),
    ]
    for i, (by, title) in enumerate(ways.items()):
        for kind, end, top, what, limits in rows:
            axes = fig.place(0.61 + 3.05 * i, top, PANEL, 1.52, below=0.5)
            for color, speed in zip(map(rgb, (1, 2, 3)), SPEEDS):
                means, sds = _means(full, [(kind, speed, by, t, *end) for t in INTERVALS])
                axes.plot(INTERVALS, means, "o-", color=color, markersize=3, label=speed)
                band = {"color": color, "alpha": 0.15, "lw": 0}
                axes.fill_between(INTERVALS, means - sds, means + sds, **band)
            axes.set(ylim=limits, xticks=INTERVALS)
            _titled(axes, f"{what}, {title}", "T: a key frame every T frames" * (kind == "tracks"))
    axes.legend(loc="lower left", **LEGEND)
    axes = fig.place(6.86, 0.83, 2.35, 1.52)
    # one lies on the other: the first is broad and pale
    looks = {"color": BLUE, "linewidth": 4, "alpha": 0.5}, {"color": RED, "linewidth": 1.2}
    for by, look in zip(ways, looks):
        times = np.array([full.milliseconds(by, t) for t in INTERVALS])
        axes.plot(INTERVALS, 100 * times / times[0], "o-", markersize=3, label=by, **look)
    axes.set(ylim=(0, 108), xticks=INTERVALS)
    _titled(axes, "time of a frame, % of T = 1", "T")
    axes.legend(loc="lower left", **LEGEND)
    said = []
    for speed in SPEEDS:
        lost = full.against(full, ("video", speed, "mask", 12), ("video", speed, "mask", 1))
        said.append(f"{speed} {signed(lost.difference)}")
    headline(
        fig,
        f"T = 12 in the place of 1, by mask: {', '.join(said)} points of AP",
        "Band: ± one standard deviation over seeds. Axes of AP do not begin at 0.",
    )
    return fig


def plot_associations(lab: Lab) -> Picture:
    """Video AP of every association at T = 1, 3, 6: the probed models and the shipped weights."""
    fig, across = new_figure(), 3
    for i, (says, row) in enumerate(lab.probed.items()):
        left, top = 0.56 + 2.91 * (i % across), 0.95 + 2.2 * (i // across)
        axes, names = fig.place(left, top, PANEL, 1.4, below=0.7), row.associations
        for k, (t, color) in enumerate({1: BLUE, 3: "#6ea6e0", 6: "#bcd7f3"}.items()):
            heights, sds = _means(row, [("video", "medium", by, t) for by in names])
            look = {"yerr": sds, "error_kw": {"elinewidth": 0.8, "ecolor": INK}} if any(sds) else {}
            places = np.arange(len(names)) + 0.27 * (k - 1)
            axes.bar(places, heights, 0.26, color=color, label=f"T = {t}", **look)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        _titled(axes, says, "")
    fig.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=3, **LEGEND)
    cosine, none = (("video", "medium", by, 1) for by in ("cosine", "none"))
    gains = [row.against(row, cosine, none).difference for row in lab.probed.values()]
    said = f"{signed(min(gains))} to {signed(max(gains))} points"
    headline(
        fig,
        f"Cosine against no association at T = 1: {said}",
        "Video AP on medium clips. Thin lines: ± one standard deviation over seeds.",
    )
    return fig


def plot_beyond(lab: Lab) -> Picture:
    """Video AP against milliseconds: fixed T, frozen X6, adaptive T, for each speed."""
    fig, full = new_figure(), lab.full
    kinds = [  # third: the points that are named; all would overlap
        ("mask", INTERVALS, (1, 3, 12), "fixed T", BLUE),
        ("frozen", FROZEN, FROZEN, "frozen X6", RED),
        ("adaptive", ADAPTIVE, ADAPTIVE[-1:], "adaptive T", GREEN),
    ]
    shown = [("video", s, by, v) for s in SPEEDS for by, values, *_ in kinds for v in values]
    limits = _range(full, shown, below=0.05, above=0.1)
    for i, speed in enumerate(SPEEDS):
        axes = fig.place(0.61 + 2.96 * i, 0.87, PANEL, 1.74, below=0.5)
        axes.set_ylim(limits)
        for by, values, named, label, color in kinds:
            times = [full.milliseconds(by, value) for value in values]
            means, _ = _means(full, [("video", speed, by, value) for value in values])
            axes.plot(times, means, "o-", color=color, markersize=3.5, linewidth=1, label=label)
            for value, *place in zip(values, times, means):
                if value in named:
                    name = f"{value:g}" if by == "adaptive" else f"T{value}"
                    above = -8 if by == "adaptive" or value == 12 else 3
                    look = {"textcoords": "offset points", "fontsize": 6, "color": color}
                    axes.annotate(name, place, xytext=(2, above), **look)
        _titled(axes, f"{speed} clips", "milliseconds a frame (medium clips)")
    fig.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=3, **LEGEND)
    headline(
        fig,
        "Beyond the paper: accuracy against time",
        "Video AP, association by mask. Adaptive: the number is the agreement below which a key "
        "frame is taken.",
    )
    return fig


PLOTS: dict[str, Callable[[Lab], Picture]] = {
    "differences": plot_differences,
    "intervals": plot_intervals,
    "associations": plot_associations,
    "beyond": plot_beyond,
}


def _means(row: Row, keys: Iterable[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the seeds of each key; of one seed the latter is 0."""
    means, sds = np.array([row.spread(key)[:2] for key in keys]).T
    return means, np.nan_to_num(sds)


def _range(row: Row, keys: Iterable[Hashable], below: float, above: float) -> tuple[float, float]:
    """Limits of an axis that shows all of their means, with some of its length below and above."""
    means, _ = _means(row, keys)
    low, high = means.min(), max(means.max(), means.min() + 1)
    return low - below * (high - low), high + above * (high - low)


def _titled(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=8, color=INK, loc="left", pad=4)
    axes.set_xlabel(below, fontsize=7.5)
    plain(axes)
