"""How a training went: every number of its log over the iterations, one run alone or several compared.

    log.jsonl (iteration, loss, cls, dice, ...), train.json beside it (the learning rate) -> a panel for each number

Assumption: an iteration that stands twice in a log was computed again after an interruption: the later line wins.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from minst.training import TrainConfig, learning_rate
from minst.visualize.style import GREY, INK, WIDTH, headline, new_figure, rgb

__all__ = ["plot_training", "read_log"]

TITLES = {"loss": "total loss", "cls": "class (focal)", "dice": "mask: dice", "pixel": "mask: BCE", "obj": "objectness",
          "pass_dice": "passed: dice", "pass_pixel": "passed: BCE",
          "global_dice": "masks of Q_G: dice", "global_pixel": "masks of Q_G: BCE",
          "token": "token classifier", "lr": "learning rate", "seconds_per_iteration": "seconds a step"}  # fmt: skip
EXACT = ("lr", "seconds_per_iteration")  # not of a single batch: no points, no smoothing
SMOOTH = 0.035  # sigma of the smoothing, as a share of the points of a part


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The entries of a log.jsonl (or a run's folder) by iteration, each once, "lr" added where train.json tells it."""
    path = Path(path) / "log.jsonl" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"plot_training: there is no file {path}")
    entries = {}
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        try:
            if line.strip():
                values = json.loads(line, parse_constant=int)  # int refuses NaN
                entries[values["iteration"]] = {
                    "loss": values["loss"],
                    **{k: float(v) for k, v in values.items()},
                }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"lacks {error}" if isinstance(error, KeyError) else f"is broken: {line[:60]!r}"
            raise ValueError(f"plot_training: {path}, line {number} {why}") from None
    if not entries:
        raise ValueError(f"plot_training: {path} has no entries")
    arguments = path.with_name(path.stem.replace("log", "train", 1) + ".json")
    if arguments.is_file():
        known = {
            k: v
            for k, v in json.loads(arguments.read_text()).items()
            if k in TrainConfig.__dataclass_fields__
        }
        config = TrainConfig(**known)
        for iteration, entry in entries.items():
            entry.setdefault("lr", config.lr * learning_rate(int(iteration) - 1, config))
    return [entries[iteration] for iteration in sorted(entries)]


def plot_training(log: str | Path | list | dict) -> Figure:
    """Losses, learning rate and whatever else a training has logged.

    log: the path of a log.jsonl or of a run's folder; a list of them, the parts of one training in their order; or
    {name: path or list} to compare runs. Raises ValueError, saying where, for logs that are missing or broken.
    """
    named = log if isinstance(log, dict) else {"": log}
    runs = {
        name: [read_log(p) for p in ([v] if isinstance(v, (str, Path)) else v)]
        for name, v in named.items()
    }
    if not runs or not all(runs.values()):
        raise ValueError("plot_training: no logs given")
    found = {
        field for parts in runs.values() for part in parts for entry in part for field in entry
    } - {"iteration"}
    fields = sorted(found, key=lambda field: ([*TITLES, field].index(field), field))
    columns = 4 if len(fields) <= 8 else 5
    height, gap = 0.65 + 1.5 * -(-len(fields) // columns), 0.45
    side = (WIDTH - 0.15 - columns * gap) / columns
    fig = new_figure(height)
    for k, field in enumerate(fields):
        row, column = divmod(k, columns)
        x, y = gap + column * (side + gap), height - 1.85 - 1.5 * row
        _panel(fig.add_axes((x / WIDTH, y / height, side / WIDTH, 1.05 / height)), field, runs)
    first, *_, last = [
        _smooth(part, "loss")[2] for parts in runs.values() for part in (parts[0], parts[-1])
    ]
    count = sum(int(part[-1]["iteration"]) for part in next(iter(runs.values())))
    head = f"Training: total loss {first[0]:.2f} to {last[-1]:.2f} in {count:,} iterations"
    if isinstance(log, dict):
        head = f"{len(runs)} trainings compared"
        handles = fig.axes[0].get_legend_handles_labels()
        fig.legend(*handles, loc="upper right", ncols=len(runs), fontsize=8, frameon=False)
    note = (
        "Over iterations.  Points: one batch each.  Lines: smoothed; the number is where they end."
    )
    headline(
        fig,
        head,
        note + "  Dotted: the next part begins." * any(len(parts) > 1 for parts in runs.values()),
    )
    return fig


def _smooth(part: list[dict[str, float]], field: str) -> np.ndarray:
    """Iterations, values and smoothed values of a field where the part has it: (3, n)."""
    x, y = (
        np.array([(entry["iteration"], entry[field]) for entry in part if field in entry])
        .reshape(-1, 2)
        .T
    )
    smooth = len(y) and field not in EXACT
    return np.stack(
        [x, y, gaussian_filter1d(y, max(SMOOTH * len(y), 0.5), mode="nearest") if smooth else y]
    )


def _panel(axes, field: str, runs: dict[str, list[list[dict[str, float]]]]) -> None:
    top = end = 0.0
    for i, (name, parts) in enumerate(runs.items(), start=1):
        start = 0.0
        for part in parts:
            x, y, line = _smooth(part, field)
            axes.plot(
                start + x,
                y,
                "" if field in EXACT else ".",
                color=rgb(i),
                markersize=3,
                alpha=0.35,
                mew=0,
            )
            axes.plot(start + x, line, color=rgb(i), linewidth=1.5, label=None if start else name)
            axes.axvline(start, color=GREY, linewidth=0.9, linestyle=":")
            start += part[-1]["iteration"]
            top, end = max(top, line.max(initial=0.0)), max(end, start)
        if len(line):
            place = {"ha": "right", "transform": axes.transAxes}
            axes.text(
                1,
                1.18 - 0.14 * i,
                f"{line[-1]:.2g}",
                color=rgb(i),
                fontsize=7.5,
                weight="bold",
                **place,
            )
    axes.set(xlim=(0, 1.02 * end), ylim=(0, 1.12 * top or 1))
    axes.set_title(
        TITLES.get(field, field.replace("_", " ")), fontsize=7.5, color=INK, loc="left", pad=3
    )
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
    )
    axes.tick_params(labelsize=6.8, length=2, color=GREY, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
