"""How long a frame takes in each runtime, on one core: bars of what `bench_mobile` measures.

    rows of minst.mobile.benchmark.bench_mobile -> plot_latency     a panel a model and frame size

Lesson: notebooks/08_on_device_latency.ipynb
"""

from itertools import product
from statistics import geometric_mean

from minst.visualize.style import GREY, INK, WIDTH, Picture, bare, headline, new_figure, rgb

__all__ = ["plot_latency"]

NAMES = {
    "eager": "eager PyTorch",
    "fused": "eager, norms folded",
    "torchscript": "TorchScript",
    "lite": "PyTorch Lite",
    "executorch": "ExecuTorch",
    "onnx": "ONNX Runtime",
}
LEFT, TOP, ROW, GAP = 1.36, 0.98, 0.19, 0.38  # inches


def plot_latency(result: dict) -> Picture:
    """Milliseconds of a key frame: bars are medians, whiskers reach to the 95th percentile.

    Beside a bar are its ms and the ratio to eager; the fastest runtime of a panel is coloured.
    result: of `bench_mobile`. Raises ValueError where nothing was measured.
    """
    rows = result["rows"]
    measured = [row for row in rows if "missing" not in row]
    if not measured:
        words = "bench_mobile says in each what was missing"
        raise ValueError(f"none of these {len(rows)} rows was measured; {words}")
    models, sizes, runtimes = (
        list(dict.fromkeys(row[field] for row in rows)) for field in ("model", "size", "runtime")
    )
    fig, panel = new_figure(), ROW * len(runtimes)
    width = (WIDTH - LEFT - 0.05) / len(sizes)
    for i, (model, size) in enumerate(product(models, sizes)):
        line, column = divmod(i, len(sizes))
        place = LEFT + column * width, TOP + line * (panel + GAP)
        axes = bare(fig.place(*place, 0.96 * width, panel, below=0.3))
        _panel(axes, [row for row in rows if (row["model"], row["size"]) == (model, size)])
        axes.set_title(f"{model}, {size} x {size}", fontsize=8, color=INK, loc="left", pad=3)
        if column == 0:
            names = [NAMES.get(name, name) for name in runtimes]
            axes.set_yticks(range(len(runtimes)), names, fontsize=7)
    note = f"Key frame: bar = median of {result['rounds']} rounds in turns, "
    note += "whisker to the 95th percentile, x = times eager. "
    headline(fig, _finding(measured), f"{note}{result['device']['cpu']}, one thread.")
    return fig


def _panel(axes, rows: list[dict]) -> None:
    there = [row for row in rows if "missing" not in row]
    best = min((row["median_ms"] for row in there), default=0.0)
    most = max((row["p95_ms"] for row in there), default=1.0)
    whisker = {"color": INK, "linewidth": 1, "marker": "|", "markevery": [1], "markersize": 4}
    for y, row in enumerate(rows):
        look = {"va": "center", "fontsize": 7, "color": INK}
        if "missing" in row:
            axes.text(0, y, " not measured here", **look | {"color": GREY})
            continue
        median, p95, eager = row["median_ms"], row["p95_ms"], row["runtime"] == "eager"
        color, look["weight"] = INK if eager else GREY, "normal"
        if median == best:
            color, look["weight"] = rgb(1), "bold"
        axes.barh(y, median, 0.72, color=color)
        axes.plot([median, p95], [y, y], **whisker)
        compared = "" if eager or row["to_eager"] is None else f", x {row['to_eager']:.2f}"
        end = max(median, p95) + 0.02 * most
        axes.text(end, y, f"{_number(median)} ms{compared}", **look)
    axes.set(xlim=(0, 1.5 * most), ylim=(len(rows) - 0.4, -0.6))
    axes.tick_params(length=0)


def _finding(rows: list[dict]) -> str:
    """The runtime that needs least of eager's time, by the geometric mean over all panels."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["to_eager"] is not None and row["runtime"] != "eager":
            ratios.setdefault(row["runtime"], []).append(row["to_eager"])
    if not ratios:
        best = _number(min(row["median_ms"] for row in rows))
        return f"A key frame takes {best} ms at best on one core"
    share, best = min((geometric_mean(values), name) for name, values in ratios.items())
    if share >= 1:
        return "On one core no runtime is faster than eager PyTorch"
    return f"On one core {NAMES.get(best, best)} takes {share:.0%} of eager PyTorch's time"


def _number(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}"
