"""What stands in the folder of a lab, as numbers that a report can compare.

    metrics.json of every run --Measured--> estimate(key)     see statistics.py
    runs of one variant       --Row-->      spread over seeds, difference to another row
    all of it                 --Lab-->      rows in the order of the grid, reasons, shipped weights

Key of an estimate: "image", ("video", speed, by, value), ("retention", frames) of queries, and of a
tracker's tracks ("tracks", speed, by, value, frames).

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from minst.data.files import read_json
from minst.lab.grid import SHIPPED
from minst.lab.matches import Matches, average_precision
from minst.lab.runs import METRICS, Run, find_runs, read_lab
from minst.lab.statistics import Comparison, Estimate, Spread, compare, spread

__all__ = ["COLUMNS", "IMAGE", "JUDGED", "MASK", "VIDEO", "Lab", "Measured", "Row", "load"]

VERSION = 1
IMAGE, VIDEO, MASK = "image", ("video", "medium", "cosine", 3), ("video", "medium", "mask", 3)
JUDGED = {"image": IMAGE, "video": VIDEO}
COLUMNS: dict[Hashable, str] = {
    IMAGE: "image AP",
    VIDEO: "video AP, cosine",
    MASK: "video AP, mask",
    ("retention", 3): "retention 3",
    ("retention", 10): "retention 10",
}


@dataclass(eq=False)
class Measured:
    """A run that is done."""

    run: Run
    metrics: dict
    _estimates: dict[Hashable, Estimate] = field(default_factory=dict, repr=False)

    @cached_property
    def settings(self) -> dict[tuple, dict]:
        """What was measured of each tracker, by (speed, by, value)."""
        return {(row["speed"], row["by"], row["value"]): row for row in self.metrics["settings"]}

    def estimate(self, key: Hashable) -> Estimate:
        """The number of this key; KeyError where it was not measured."""
        if key not in self._estimates:
            self._estimates[key] = self._make(key)
        return self._estimates[key]

    def _make(self, key: Hashable) -> Estimate:
        consistency = self.metrics["consistency"]
        if key[0] == "retention":
            return _retention(consistency["pairs"], consistency["distances"].index(key[1]))
        if key[0] == "tracks":
            pairs = self.settings[key[1:4]]["pairs"]
            return _retention(pairs, consistency["distances"].index(key[4]))
        entry = self.metrics["image"] if key == IMAGE else self.settings[key[1:]]
        matches = Matches.from_dict(entry)
        return Estimate(len(matches.instances), lambda w: average_precision(matches, w))


def _retention(counts: list[list[int]], distance: int) -> Estimate:
    """The share that was kept; counts: (V, 2 a distance) of kept, and of how many."""
    pairs = np.array(counts, dtype=float)[:, 2 * distance : 2 * distance + 2]

    def share(weights: np.ndarray) -> np.ndarray:
        kept, of = (weights @ pairs).T
        return np.divide(kept, of, out=np.full(len(weights), np.nan), where=of > 0)

    return Estimate(len(pairs), share)


@dataclass(eq=False)
class Row:
    """A variant: its runs that are done, in the order of their seeds."""

    name: str
    runs: list[Measured]
    _compared: dict = field(default_factory=dict, repr=False)  # tables and plots ask for the same

    def spread(self, key: Hashable) -> Spread:
        """Mean and spread over the seeds, in points (0..100)."""
        return spread([100 * run.estimate(key).value for run in self.runs])

    def against(
        self, other: Row, key: Hashable, other_key: Hashable | None = None
    ) -> Comparison | None:
        """Points by which this row is above the other, over the seeds that both have.

        None where there are none.
        """
        asked = (other, key, other_key or key)
        if asked not in self._compared:
            pairs = self._pairs(*asked)
            found = compare(*zip(*pairs)) if pairs else None
            self._compared[asked] = found and Comparison(
                *(100 * x for x in found[:3]), tuple(100 * x for x in found.seeds)
            )
        return self._compared[asked]

    def differences(self, other: Row, key: Hashable) -> list[float]:
        """The same difference of each seed, without an interval, which takes its time."""
        return [100 * (ours.value - theirs.value) for ours, theirs in self._pairs(other, key, key)]

    def _pairs(self, other: Row, key: Hashable, other_key: Hashable) -> list[tuple]:
        """The estimates of the seeds that both rows have."""
        theirs = {run.run.seed: run for run in other.runs}
        ours = [run for run in self.runs if run.run.seed in theirs]
        return [(run.estimate(key), theirs[run.run.seed].estimate(other_key)) for run in ours]

    @property
    def associations(self) -> list[str]:
        """Those that were measured of it at T = 1, 3 and 6; none of most rows."""
        return [by for speed, by, value in self.runs[0].settings if (speed, value) == ("medium", 1)]

    def has(self, *setting: str | float) -> bool:
        """Was a tracker (speed, by, value) measured in every run?"""
        return all(setting in run.settings for run in self.runs)

    def total(self, what: str, *setting: str | float) -> int:
        """A count of a tracker, over all runs; KeyError where it was not measured."""
        return sum(run.settings[setting][what] for run in self.runs)

    def key_share(self, by: str, value: float) -> float:
        """The share of frames that are key frames, on medium clips."""
        setting = ("medium", by, value)
        return self.total("keys", *setting) / self.total("frames", *setting)

    def milliseconds(self, by: str, value: float) -> float:
        """A frame's time, from those of a key frame and of the others and how many there are.

        The two depend on the kind of tracker alone, not on T: each is the least disturbed
        measurement of all that there are.
        """
        timed = [item for run in self.runs for item in run.metrics["milliseconds"].items()]
        ours = [times for name, times in timed if name.split()[0] == by]
        key, other = (min(t[kind] for t in ours if t[kind] > 0) for kind in ("key", "other"))
        share = self.key_share(by, value)
        return share * key + (1 - share) * other


class Lab:
    """What stands in the folder of a lab. ValueError or FileNotFoundError when there is nothing.

    `variants` are the rows as they were when the lab was run; the report begins with `note`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        runs, self.unfinished = load(folder)
        if not any(run.run.variant == "full" for run in runs):
            missing = "no run of the full model is done, and all is compared with it"
            raise ValueError(f"{folder}: {missing}: `minst lab run full`")
        self.budget, self.variants, self.note = read_lab(self.folder)
        rows = [Row(name, [r for r in runs if r.run.variant == name]) for name in self.variants]
        self.rows = {row.name: row for row in rows if row.runs}
        paths = {name: self.folder / "shipped" / f"{name}.json" for name in SHIPPED}
        self.shipped = {
            name: Row(name, [Measured(Run(self.folder, name, 0), _read(path))])
            for name, path in paths.items()
            if path.is_file()
        }
        reasons = self.folder / "reasons.json"
        self.reasons: dict[str, str] = read_json(reasons) if reasons.is_file() else {}

    @property
    def probed(self) -> dict[str, Row]:
        """The rows of which every association was measured, by their names in tables and plots."""
        says = {name: variant.says for name, variant in self.variants.items()}
        says["full"] = "the full model"
        found = {says[name]: row for name, row in self.rows.items() if row.associations}
        return found | {f"shipped weights: {name}": row for name, row in self.shipped.items()}

    @property
    def full(self) -> Row:
        """The row with which all others are compared."""
        return self.rows["full"]

    def difference(self, name: str) -> Comparison | None:
        """Of what decides this variant, to the full model; None for the full model itself."""
        key = JUDGED[self.variants[name].judged_by]
        return None if name == "full" else self.rows[name].against(self.full, key)


def load(folder: str | Path) -> tuple[list[Measured], list[Run]]:
    """The runs of a lab that are done, and those that were started and are not.

    ValueError names a file at fault.
    """
    runs = find_runs(folder)
    done = [Measured(run, _read(run.folder / METRICS)) for run in runs if run.is_done]
    return done, [run for run in runs if not run.is_done]


def _read(path: Path) -> dict:
    metrics = read_json(path)
    if not isinstance(metrics, dict) or metrics.get("version") != VERSION:
        wrong = f"no metrics of version {VERSION}"
    elif lacking := [k for k in ("image", "settings", "consistency", "model") if k not in metrics]:
        wrong = f"{lacking[0]!r} is missing"
    elif any("pairs" not in row for row in metrics["settings"]):
        wrong = "'pairs' of a tracker is missing"
    else:
        return metrics
    raise ValueError(f"{path}: {wrong}; remove it, and `minst lab run` measures again")
