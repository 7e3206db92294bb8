"""Why milliseconds do not follow MACs: the layers along the network, and under the roof of the core they ran on.

    rows of minst.mobile.roofline.layer_table -> plot_layers     share of MACs above, share of time below, block by block
                        and core_peak's peak  -> plot_roofline   GFLOP/s over FLOP / byte, a dot a layer

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import math
import re
from itertools import groupby

import numpy as np
from matplotlib.ticker import NullFormatter

from minst.visualize.style import GREY, INK, Picture, headline, new_figure, rgb

__all__ = ["plot_layers", "plot_roofline"]

# what layers are alike, and their colour: the first that fits the start of a row's kind
FAMILIES = {
    "3x3 convolutions": (("conv 3", "conv 5"), rgb(1)),
    "1x1, linear": (("conv 1", "linear"), rgb(2)),
    "attention, masks": (("attention matmul", "mask product"), rgb(5)),
    "depth-wise": (("depth-wise", "grouped"), rgb(4)),
    "resizing": (("resize",), rgb(3)),
    "between layers": (("other",), GREY),
    "ReLU, sums, pools, norms": (("",), "#555555"),
}
CHEAP = (
    "depth-wise",
    "resizing",
    "between layers",
    "ReLU, sums, pools, norms",
)  # few MACs, or none
NUMBER_AT = (
    (0, 9),
    (0, -15),
    (11, -3),
)  # points from the dot of the slowest layer, of the second, of the third


def plot_layers(rows: list[dict]) -> Picture:
    """Share of the frame's MACs (up) and of its time (down) of each block of layers, in the order in which they run.

    rows: of `layer_table`. Raises ValueError where there are none.
    """
    macs, ms = _totals(rows)
    blocks = _blocks(rows)
    fig = new_figure(4.8)
    axes = fig.add_axes((0.075, 0.195, 0.92, 0.565))
    _bars(axes, blocks, macs, ms)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlim=(-0.6, len(blocks) - 0.4))
    axes.set_xticks(
        range(len(blocks)), [label for (_, label), _ in blocks], rotation=90, fontsize=6.8
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g} %")
    axes.use_sticky_edges = False  # else the highest bar touches the frame
    axes.margins(y=0.06)
    place = {
        "transform": axes.get_yaxis_transform(),
        "rotation": 90,
        "fontsize": 8,
        "weight": "bold",
        "color": INK,
    }
    axes.text(-0.058, 0, " MACs ▶", va="bottom", **place)
    axes.text(-0.058, 0, "◀ time ", va="top", **place)
    _parts(axes, blocks, macs, ms)
    fig.legend(
        fontsize=7,
        frameon=False,
        loc="upper left",
        ncols=7,
        bbox_to_anchor=(0.0, 0.885),
        columnspacing=1.4,
    )
    _plain(axes)
    headline(fig, *_imbalance(rows, macs, ms))
    return fig


def plot_roofline(rows: list[dict], peak: dict[str, float]) -> Picture:
    """GFLOP/s of every layer with MACs over its intensity, below the roof min(peak, bandwidth * intensity).

    rows: of `layer_table`, peak: of `core_peak`. Raises ValueError where no layer has MACs.
    """
    macs, ms = _totals(rows)
    layers = sorted((row for row in rows if row["macs"]), key=lambda row: -row["ms"])
    fig = new_figure(4.9)
    axes = fig.add_axes((0.07, 0.1, 0.92, 0.765))
    low, high = (
        min(row["intensity"] for row in layers) / 1.6,
        max(row["intensity"] for row in layers) * 1.6,
    )
    _roofs(axes, peak, np.geomspace(low, high, 200))
    _dots(axes, layers)
    _names(axes, layers, peak)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_ylim(max(min(row["gflop_s"] for row in layers) / 2, 0.02), 2 * peak["gflop_s"])
    axes.set_xlabel("FLOP for each byte read or written", fontsize=8, color=INK)
    axes.set_ylabel("GFLOP/s", fontsize=8, color=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    _plain(axes)
    headline(fig, *_verdict(rows, layers, macs, ms, peak))
    return fig


def _bars(axes, blocks: list, macs: int, ms: float) -> None:
    """For each block two stacks of families, in percent."""
    for sign, field, whole in ((1, "macs", macs), (-1, "ms", ms)):
        foot = np.zeros(len(blocks))
        for family, (_, color) in FAMILIES.items():
            of_family = (
                [row[field] for row in block if _family(row) == family] for _, block in blocks
            )
            share = sign * np.array([100 * sum(values) / whole for values in of_family])
            at = np.flatnonzero(share)
            axes.bar(at, share[at], 0.8, foot[at], color=color, label=family if sign < 0 else None)
            foot += share


def _dots(axes, layers: list[dict]) -> None:
    for family, (_, color) in FAMILIES.items():
        own = [row for row in layers if _family(row) == family]
        if own:
            x, y = [row["intensity"] for row in own], [row["gflop_s"] for row in own]
            area = [6 + 3000 * row["share"] for row in own]
            axes.scatter(
                x, y, area, color=color, alpha=0.75, edgecolors="white", linewidths=0.6, zorder=3
            )
            axes.scatter([], [], 40, color=color, label=family)


def _imbalance(rows: list[dict], macs: int, ms: float) -> tuple[str, str]:
    """Headline and note of the bars."""
    cheap = [row for row in rows if _family(row) in CHEAP]
    few, long = (
        sum(row[field] for row in cheap) / whole for field, whole in (("macs", macs), ("ms", ms))
    )
    head = (
        f"Time does not follow MACs: layers with {few:.0%} of the MACs take {long:.0%} of the time"
    )
    note = f"{macs / 1e6:,.0f} million MACs, {ms:.0f} ms. If time followed MACs, the lower half would mirror the upper one. "
    return head, note + "Pink, green and grey: hardly any MACs."


def _verdict(
    rows: list[dict], layers: list[dict], macs: int, ms: float, peak: dict
) -> tuple[str, str]:
    """Headline and note of the roofline."""
    deep = [row for row in layers if _family(row) == "depth-wise"]
    reached = [
        2e-6 * m / t / peak["gflop_s"] for m, t in ((macs, ms), _totals(deep) if deep else (0, 1))
    ]
    head = f"The frame reaches {reached[0]:.0%} of what this core can multiply"
    head += f", its depth-wise layers {reached[1]:.0%}" if deep else ""
    without = sum(row["share"] for row in rows if not row["macs"])
    note = f"A dot is a layer, its area the time it takes. What has no MACs has no dot, and takes {without:.0%} of the time."
    return head, note


def _family(row: dict) -> str:
    return next(name for name, (starts, _) in FAMILIES.items() if row["kind"].startswith(starts))


def _totals(rows: list[dict]) -> tuple[int, float]:
    macs, ms = (sum(row[field] for row in rows) for field in ("macs", "ms"))
    if not macs or not ms > 0:
        raise ValueError(
            f"no layer of these {len(rows)} rows has MACs and time; give those of layer_table"
        )
    return macs, ms


def _blocks(rows: list[dict]) -> list[tuple[tuple[str, str], list[dict]]]:
    """((part, label), its rows): by layer or stage in backbone and mask decoder, the other parts whole."""
    blocks: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        inner = ".".join(row["name"].split(".")[1 : 2 if row["part"] == "mask decoder" else 3])
        label = re.sub(r"^tpm\.|\.(conv|transformer_blocks)$", "", inner) or "in between"
        key = (row["part"], label if row["part"] in ("backbone", "mask decoder") else row["part"])
        # what lies between stands at the end of its part
        before = blocks.pop(key, []) if row["kind"] == "other" else blocks.get(key, [])
        blocks[key] = [*before, row]
    return list(blocks.items())


def _parts(axes, blocks: list, macs: int, ms: float) -> None:
    """A line above the blocks of each larger part, with its shares."""
    place = axes.get_xaxis_transform()
    for part, group in groupby(enumerate(blocks), key=lambda item: item[1][0][0]):
        found = [(i, row) for i, (_, block) in group for row in block]
        first, last = found[0][0], found[-1][0]
        if first == last:
            continue
        shares = [
            sum(row[field] for _, row in found) / whole
            for field, whole in (("macs", macs), ("ms", ms))
        ]
        axes.plot(
            [first - 0.4, last + 0.4],
            [1.03, 1.03],
            color=INK,
            linewidth=1,
            transform=place,
            clip_on=False,
        )
        words = f"{part}: {shares[0]:.0%} of MACs, {shares[1]:.0%} of time"
        axes.text(
            (first + last) / 2, 1.05, words, transform=place, ha="center", fontsize=8, color=INK
        )


def _roofs(axes, peak: dict, x: np.ndarray) -> None:
    for field, style, words in (("gb_s", "-", "memory"), ("cache_gb_s", "--", "cache")):
        axes.plot(
            x,
            np.minimum(peak["gflop_s"], peak[field] * x),
            style,
            color=INK,
            linewidth=1.2,
            zorder=2,
        )
        at, angle = x[0] * 1.1, math.degrees(math.atan(peak[field]))
        axes.text(at, 1.2 * peak[field] * at, f"{words} {peak[field]:.0f} GB/s", fontsize=7.5, color=INK, rotation=angle,
                  rotation_mode="anchor", transform_rotates_text=True)  # fmt: skip
    ridge = peak["gflop_s"] / peak["gb_s"]
    axes.text(
        ridge,
        1.12 * peak["gflop_s"],
        f"matrix products {peak['gflop_s']:.0f} GFLOP/s",
        fontsize=7.5,
        color=INK,
    )


def _names(axes, layers: list[dict], peak: dict) -> None:
    """A number at the dots of the slowest layers, and what it stands for below."""
    words = ["the slowest layers"]
    for i, (row, at) in enumerate(zip(layers, NUMBER_AT), start=1):
        roof = min(peak["gflop_s"], peak["gb_s"] * row["intensity"])
        words.append(
            f"{i}  {row['name']}: {row['kind']}, {row['ms']:.1f} ms, {row['gflop_s'] / roof:.0%} of its roof"
        )
        axes.annotate(str(i), (row["intensity"], row["gflop_s"]), at, textcoords="offset points", fontsize=8,
                      weight="bold", color=INK, ha="center", zorder=4)  # fmt: skip
    axes.text(
        0.34,
        0.025,
        "\n".join(words),
        transform=axes.transAxes,
        fontsize=7,
        color=INK,
        linespacing=1.5,
    )


def _plain(axes) -> None:
    axes.tick_params(labelsize=7, length=2, color=GREY)
    axes.tick_params(axis="x", labelsize=6.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
