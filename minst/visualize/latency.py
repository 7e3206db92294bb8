"""How long a frame takes in each runtime, on one core: bars of the table that `bench_mobile` measures.

    rows of minst.mobile.compare.bench_mobile -> plot_latency     a panel for each model (down) and frame size (across)

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

from math import exp, log
from statistics import mean

from minst.visualize.style import GREY, INK, Picture, headline, new_figure, rgb

__all__ = ["plot_latency"]

NAMES = {"eager": "eager PyTorch", "fused": "eager, norms folded", "torchscript": "TorchScript", "lite": "PyTorch Lite",
         "executorch": "ExecuTorch", "onnx": "ONNX Runtime"}  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 0.145, 0.995, 0.98, 0.3  # of the width; of the width; inches; inches
ROW, GAP = 0.19, 0.38  # inches


def plot_latency(result: dict) -> Picture:
    """Milliseconds of a key frame: bars are medians, whiskers reach to the 95th percentile, numbers are ms and the
    ratio to eager. The fastest runtime of each panel is coloured.

    result: of `bench_mobile`. Raises ValueError where nothing was measured.
    """
    rows = result["rows"]
    measured = [row for row in rows if "missing" not in row]
    if not measured:
        raise ValueError(
            f"none of these {len(rows)} rows was measured; bench_mobile says in each what was missing"
        )
    models, sizes, runtimes = (
        list(dict.fromkeys(row[field] for row in rows)) for field in ("model", "size", "runtime")
    )
    panel = ROW * len(runtimes)
    height = TOP + len(models) * (panel + GAP) - GAP + BOTTOM
    fig = new_figure(height)
    width = (RIGHT - LEFT) / len(sizes)
    for i, model in enumerate(models):
        foot = (height - TOP - i * (panel + GAP) - panel) / height
        for j, size in enumerate(sizes):
            axes = fig.add_axes((LEFT + j * width, foot, 0.96 * width, panel / height))
            _panel(
                axes,
                [row for row in rows if (row["model"], row["size"]) == (model, size)],
                runtimes,
            )
            axes.set_title(f"{model}, {size} x {size}", fontsize=8, color=INK, loc="left", pad=3)
            if j == 0:
                axes.set_yticks(
                    range(len(runtimes)), [NAMES.get(name, name) for name in runtimes], fontsize=7
                )
    headline(fig, _finding(measured), _note(result))
    return fig


def _panel(axes, rows: list[dict], runtimes: list[str]) -> None:
    there = {row["runtime"]: row for row in rows if "missing" not in row}
    best = min(there, key=lambda name: there[name]["median_ms"], default=None)
    most = max((row["p95_ms"] for row in there.values()), default=1.0)
    for y, runtime in enumerate(runtimes):
        if runtime not in there:
            axes.text(0, y, " not measured here", va="center", fontsize=7, color=GREY)
            continue
        row, first = there[runtime], runtime == best
        color = rgb(1) if first else INK if runtime == "eager" else GREY
        axes.barh(y, row["median_ms"], 0.72, color=color)
        axes.plot(
            [row["median_ms"], row["p95_ms"]],
            [y, y],
            color=INK,
            linewidth=1,
            marker="|",
            markevery=[1],
            markersize=4,
        )
        ratio = (
            "" if row["to_eager"] is None or runtime == "eager" else f", x {row['to_eager']:.2f}"
        )
        axes.text(max(row["median_ms"], row["p95_ms"]) + 0.02 * most, y, f"{_number(row['median_ms'])} ms{ratio}",
                  va="center", fontsize=7, color=INK, weight="bold" if first else "normal")  # fmt: skip
    axes.set(xlim=(0, 1.5 * most), ylim=(len(runtimes) - 0.4, -0.6), xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(GREY)


def _finding(rows: list[dict]) -> str:
    """The runtime that needs least of eager's time, by the geometric mean over all panels that have both."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["to_eager"] is not None and row["runtime"] != "eager":
            ratios.setdefault(row["runtime"], []).append(row["to_eager"])
    if not ratios:
        return f"A key frame takes {_number(min(row['median_ms'] for row in rows))} ms at best on one core"
    means = {runtime: exp(mean(map(log, values))) for runtime, values in ratios.items()}
    best = min(means, key=means.get)
    if means[best] >= 1:
        return "On one core no runtime is faster than eager PyTorch"
    return f"On one core {NAMES.get(best, best)} takes {means[best]:.0%} of eager PyTorch's time"


def _note(result: dict) -> str:
    return (
        f"Key frame: bar = median of {result['rounds']} rounds in turns, whisker to the 95th percentile, x = times eager. "
        f"{result['device']['cpu']}, one thread."
    )


def _number(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}"
