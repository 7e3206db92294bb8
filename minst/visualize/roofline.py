"""Why milliseconds do not follow MACs: the layers along the network, and under their core's roof.

    rows of minst.mobile.roofline.layer_table -> plot_layers     MACs above, time below, by block
                        and core_peak's peak  -> plot_roofline   GFLOP/s over FLOP / byte

Lesson: notebooks/08_on_device_latency.ipynb
"""

import math
import re
from itertools import groupby

import numpy as np
from matplotlib.ticker import NullFormatter

from minst.visualize.style import GREY, INK, Picture, headline, new_figure, plain, rgb

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
CHEAP = list(FAMILIES)[3:]  # few MACs, or none
# points from the dot of the slowest layer, of the second, of the third
NUMBER_AT = ((0, 9), (0, -15), (11, -3))


def plot_layers(rows: list[dict]) -> Picture:
    """Share of the frame's MACs (up) and time (down) of each block of layers, as they run.

    rows: of `layer_table`. Raises ValueError where there are none.
    """
    macs, ms = _totals(rows)
    blocks, fig = _blocks(rows), new_figure(4.8)
    axes = plain(fig.place(0.7, 1.15, 8.65, 2.71))
    # for each block two stacks of families, in percent
    for sign, field, whole in ((1, "macs", macs), (-1, "ms", ms)):
        foot = np.zeros(len(blocks))
        for family, (_, color) in FAMILIES.items():
            sums = [sum(r[field] for r in own if _family(r) == family) for *_, own in blocks]
            share = sign * 100 * np.array(sums) / whole
            at = np.flatnonzero(share)
            axes.bar(at, share[at], 0.8, foot[at], color=color, label=family if sign < 0 else None)
            foot += share
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlim=(-0.6, len(blocks) - 0.4))
    axes.set_xticks(range(len(blocks)), [name for _, name, _ in blocks], rotation=90, fontsize=6.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g} %")
    axes.use_sticky_edges = False  # else the highest bar touches the frame
    axes.margins(y=0.06)
    look = {"rotation": 90, "fontsize": 8, "weight": "bold"}
    look["transform"] = axes.get_yaxis_transform()
    axes.text(-0.058, 0, " MACs ▶", va="bottom", **look)
    axes.text(-0.058, 0, "◀ time ", va="top", **look)
    # a line above the blocks of each larger part, with its shares
    above = {"transform": axes.get_xaxis_transform(), "color": INK}
    for part, group in groupby(enumerate(blocks), key=lambda item: item[1][0]):
        found = [(i, row) for i, (*_, own) in group for row in own]
        first, last = found[0][0], found[-1][0]
        if first < last:
            axes.plot([first - 0.4, last + 0.4], [1.03, 1.03], linewidth=1, clip_on=False, **above)
            cost, time = _shares([row for _, row in found], macs, ms)
            words = f"{part}: {cost:.0%} of MACs, {time:.0%} of time"
            axes.text((first + last) / 2, 1.05, words, ha="center", fontsize=8, **above)
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.885), "columnspacing": 1.4}
    fig.legend(fontsize=7, frameon=False, ncols=7, **place)
    few, long = _shares([row for row in rows if _family(row) in CHEAP], macs, ms)
    head = f"layers with {few:.0%} of the MACs take {long:.0%} of the time"
    note = f"{macs / 1e6:,.0f} million MACs, {ms:.0f} ms. "
    note += "If time followed MACs, the lower half would mirror the upper one. "
    note += "Pink, green and grey: hardly any MACs."
    headline(fig, f"Time does not follow MACs: {head}", note)
    return fig


def plot_roofline(rows: list[dict], peak: dict[str, float]) -> Picture:
    """GFLOP/s of every layer with MACs over its intensity, below min(peak, bandwidth * intensity).

    rows: of `layer_table`, peak: of `core_peak`. Raises ValueError where no layer has MACs.
    """
    macs, ms = _totals(rows)
    layers = sorted((row for row in rows if row["macs"]), key=lambda row: -row["ms"])
    fig = new_figure(4.9)
    axes = plain(fig.place(0.66, 0.66, 8.65, 3.75))
    low = min(row["intensity"] for row in layers) / 1.6
    high = max(row["intensity"] for row in layers) * 1.6
    x, flat = np.geomspace(low, high, 200), peak["gflop_s"]
    for field, style, words in (("gb_s", "-", "memory"), ("cache_gb_s", "--", "cache")):
        axes.plot(x, np.minimum(flat, peak[field] * x), style, color=INK, linewidth=1.2, zorder=2)
        look = {"rotation_mode": "anchor", "transform_rotates_text": True, "fontsize": 7.5}
        look["rotation"] = math.degrees(math.atan(peak[field]))
        words = f"{words} {peak[field]:.0f} GB/s"
        axes.text(1.1 * low, 1.32 * peak[field] * low, words, **look)
    words = f"matrix products {flat:.0f} GFLOP/s"
    axes.text(flat / peak["gb_s"], 1.12 * flat, words, fontsize=7.5)
    for family, (_, color) in FAMILIES.items():
        own = [row for row in layers if _family(row) == family]
        points = [(row["intensity"], row["gflop_s"], 6 + 3000 * row["share"]) for row in own]
        if own:
            look = {"alpha": 0.75, "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
            axes.scatter(*zip(*points), color=color, **look)
            axes.scatter([], [], 40, color=color, label=family)
    # a number at the dots of the slowest layers, and what it stands for below
    words = ["the slowest layers"]
    for i, (row, at) in enumerate(zip(layers, NUMBER_AT), start=1):
        roof = min(flat, peak["gb_s"] * row["intensity"])
        what = f"{row['name']}: {row['kind']}, {row['ms']:.1f} ms"
        words.append(f"{i}  {what}, {row['gflop_s'] / roof:.0%} of its roof")
        look = {"fontsize": 8, "weight": "bold", "ha": "center", "zorder": 4}
        dot = row["intensity"], row["gflop_s"]
        axes.annotate(str(i), dot, at, textcoords="offset points", **look)
    look = {"transform": axes.transAxes, "fontsize": 7, "linespacing": 1.5}
    axes.text(0.34, 0.025, "\n".join(words), **look)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_ylim(max(min(row["gflop_s"] for row in layers) / 2, 0.02), 2 * flat)
    axes.set_xlabel("FLOP for each byte read or written", fontsize=8)
    axes.set_ylabel("GFLOP/s", fontsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    head = f"The frame reaches {2e-6 * macs / ms / flat:.0%} of what this core can multiply"
    if deep := [row for row in layers if _family(row) == "depth-wise"]:
        own_macs, own_ms = _totals(deep)
        head += f", its depth-wise layers {2e-6 * own_macs / own_ms / flat:.0%}"
    without = sum(row["share"] for row in rows if not row["macs"])
    note = "A dot is a layer, its area the time it takes. "
    note += f"What has no MACs has no dot, and takes {without:.0%} of the time."
    headline(fig, head, note)
    return fig


def _family(row: dict) -> str:
    return next(name for name, (starts, _) in FAMILIES.items() if row["kind"].startswith(starts))


def _totals(rows: list[dict]) -> tuple[int, float]:
    macs, ms = (sum(row[field] for row in rows) for field in ("macs", "ms"))
    if not macs or not ms > 0:
        words = "has MACs and time; give those of layer_table"
        raise ValueError(f"no layer of these {len(rows)} rows {words}")
    return macs, ms


def _shares(rows: list[dict], macs: int, ms: float) -> tuple[float, float]:
    return sum(row["macs"] for row in rows) / macs, sum(row["ms"] for row in rows) / ms


def _blocks(rows: list[dict]) -> list[tuple[str, str, list[dict]]]:
    """(part, name, its rows): layers or stages of backbone and mask decoder, else parts."""
    blocks: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        inner = ".".join(row["name"].split(".")[1 : 2 if row["part"] == "mask decoder" else 3])
        name = re.sub(r"^tpm\.|\.(conv|transformer_blocks)$", "", inner) or "in between"
        key = (row["part"], name if row["part"] in ("backbone", "mask decoder") else row["part"])
        # what lies between stands at the end of its part
        before = blocks.pop(key, []) if row["kind"] == "other" else blocks.get(key, [])
        blocks[key] = [*before, row]
    return [(*key, own) for key, own in blocks.items()]
