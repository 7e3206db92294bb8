"""How a training went: every number of its log over the iterations, one run or several compared.

    log.jsonl (iteration, loss, cls, dice, ...), train.json beside it (the learning rate) -> panels

Assumption: an iteration that stands twice in a log was computed again after an interruption: the
later line wins.

Lesson: notebooks/06_temporal_training.ipynb
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.ndimage import gaussian_filter1d

from minst.training import TrainConfig, learning_rate
from minst.visualize.style import INK, WIDTH, Picture, headline, new_figure, plain, rgb

__all__ = ["plot_training", "read_log"]

TITLES = {
    "loss": "total loss",
    "cls": "class (focal)",
    "dice": "mask: dice",
    "pixel": "mask: BCE",
    "obj": "objectness",
    "pass_dice": "passed: dice",
    "pass_pixel": "passed: BCE",
    "global_dice": "masks of Q_G: dice",
    "global_pixel": "masks of Q_G: BCE",
    "token": "token classifier",
    "lr": "learning rate",
    "seconds_per_iteration": "seconds a step",
}
EXACT = ("lr", "seconds_per_iteration")  # not of a single batch: no points, no smoothing
SMOOTH = 0.035  # sigma of the smoothing, as a share of the points


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The entries of a log.jsonl (or a run's folder), each once; "lr" if train.json tells it."""
    path = Path(path) / "log.jsonl" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"plot_training: there is no file {path}")
    entries = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                values = json.loads(line, parse_constant=int)  # int refuses NaN
                numbers = {key: float(value) for key, value in values.items()}
                entries[values["iteration"]] = {"loss": values["loss"]} | numbers
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"lacks {error}" if isinstance(error, KeyError) else f"is broken: {line[:60]!r}"
            raise ValueError(f"plot_training: {path}, line {number} {why}") from None
    if not entries:
        raise ValueError(f"plot_training: {path} has no entries")
    arguments = path.with_name(path.stem.replace("log", "train", 1) + ".json")
    if arguments.is_file():
        said = json.loads(arguments.read_text())
        known = {k: v for k, v in said.items() if k in TrainConfig.__dataclass_fields__}
        config = TrainConfig(**known)
        for iteration, entry in entries.items():
            entry.setdefault("lr", config.lr * learning_rate(int(iteration) - 1, config))
    return [entries[iteration] for iteration in sorted(entries)]


def plot_training(log: str | Path | dict[str, str | Path]) -> Picture:
    """Losses, learning rate and whatever else a training has logged.

    log: the path of a log.jsonl or of a run's folder; or {name: path} to compare runs. Raises
    ValueError, saying where, for logs that are missing or broken.
    """
    paths = log if isinstance(log, dict) else {"": log}
    runs = {name: read_log(path) for name, path in paths.items()}
    if not runs:
        raise ValueError("plot_training: no logs given")
    found = {field for run in runs.values() for entry in run for field in entry} - {"iteration"}
    fields = sorted(found, key=lambda field: ([*TITLES, field].index(field), field))
    if isinstance(log, dict):
        head = f"{len(runs)} trainings compared"
    else:
        iterations, _, line = _smooth(runs[""], "loss")
        head = f"Training: total loss {line[0]:.2f} to {line[-1]:.2f} in "
        head += f"{iterations[-1]:,.0f} iterations"
    note = "Over iterations.  Points: one batch each.  "
    note += "Lines: smoothed; the number is where they end."
    columns, gap, fig = (4 if len(fields) <= 8 else 5), 0.45, new_figure()
    headline(fig, head, note)
    side = (WIDTH - 0.15 - columns * gap) / columns
    for k, field in enumerate(fields):
        row, column = divmod(k, columns)
        left = gap + column * (side + gap)
        _panel(fig.place(left, 0.8 + 1.5 * row, side, 1.05, below=0.3), field, runs)
    if isinstance(log, dict):
        look = {"loc": "upper right", "ncols": len(runs), "fontsize": 8, "frameon": False}
        fig.legend(*fig.axes[0].get_legend_handles_labels(), **look)
    return fig


def _smooth(run: list[dict[str, float]], field: str) -> np.ndarray:
    """Iterations, values and smoothed values of a field where the run has it: (3, n)."""
    points = [(entry["iteration"], entry[field]) for entry in run if field in entry]
    x, y = np.array(points).reshape(-1, 2).T
    if not len(y) or field in EXACT:
        return np.stack([x, y, y])
    return np.stack([x, y, gaussian_filter1d(y, max(SMOOTH * len(y), 0.5), mode="nearest")])


def _panel(axes: Axes, field: str, runs: dict[str, list[dict[str, float]]]) -> None:
    top, end = 0.0, max(run[-1]["iteration"] for run in runs.values())
    for i, (name, run) in enumerate(runs.items(), start=1):
        (x, y, line), color = _smooth(run, field), rgb(i)
        dots = {"markersize": 3, "alpha": 0.35, "mew": 0, "color": color}
        axes.plot(x, y, "" if field in EXACT else ".", **dots)
        axes.plot(x, line, color=color, linewidth=1.5, label=name)
        top = max(top, line.max(initial=0.0))
        if len(line):
            look = {"color": color, "fontsize": 7.5, "weight": "bold", "ha": "right"}
            place = 1, 1.18 - 0.14 * i
            axes.text(*place, f"{line[-1]:.2g}", transform=axes.transAxes, **look)
    axes.set(xlim=(0, 1.02 * end), ylim=(0, 1.12 * top or 1))
    title = TITLES.get(field, field.replace("_", " "))
    axes.set_title(title, fontsize=7.5, color=INK, loc="left", pad=3)
    axes.locator_params(nbins=4)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
    plain(axes, labelsize=6.8)
