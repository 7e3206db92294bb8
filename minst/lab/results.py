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
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

import numpy as np
from msgspec import Meta

from minst.data.formats import read_typed
from minst.lab.grid import SHIPPED
from minst.lab.matches import Matches, average_precision
from minst.lab.runs import Run, find_runs, read_lab
from minst.lab.statistics import Comparison, Estimate, Spread, compare, spread

__all__ = ["COLUMNS", "IMAGE", "JUDGED", "MASK", "VIDEO", "Lab", "Measured", "Row"]

IMAGE, VIDEO, MASK = "image", ("video", "medium", "cosine", 3), ("video", "medium", "mask", 3)
JUDGED = {"image": IMAGE, "video": VIDEO}
COLUMNS: dict[Hashable, str] = {
    IMAGE: "image AP",
    VIDEO: "video AP, cosine",
    MASK: "video AP, mask",
    ("retention", 3): "retention 3",
    ("retention", 10): "retention 10",
}


Whole = Annotated[int, Meta(ge=0, le=2**32)]
Table = list[list[Whole]]  # a row a clip
DISTANCES = tuple[Literal[1], Literal[3], Literal[10]]  # as minst.lab.measure has them
IMAGE_AP = {"rows": str, "instances": Table}  # what `Matches.to_dict` has written
TRACKER = {"speed": str, "by": str, "value": float, "AP": float, "AP50": float, "pairs": Table}
TRACKER |= IMAGE_AP | dict.fromkeys(("keys", "frames", "moved", "associated"), Whole)
METRICS = {
    "version": Literal[1],
    "torch": str,
    "model": TypedDict("Cost", {"macs": float}),
    "image": TypedDict("Image", IMAGE_AP),
    "settings": list[TypedDict("Tracker", TRACKER)],
    # kept, and of how many, at each of the distances
    "consistency": TypedDict("Consistency", {"distances": DISTANCES, "pairs": Table}),
    "seconds_per_iteration": NotRequired[float],  # shipped weights were not trained here
    # of the full model: those of a key frame and of another one; 0 where there was none
    "milliseconds": NotRequired[dict[str, TypedDict("Times", {"key": float, "other": float})]],
}
Metrics = TypedDict("Metrics", METRICS)


@dataclass(eq=False)
class Measured:
    """A run that is done."""

    run: Run
    metrics: dict  # of the type `Metrics`

    def __post_init__(self):
        self.estimate = cache(self.estimate)  # tables and plots ask for the same

    @cached_property
    def settings(self) -> dict[tuple, dict]:
        """What was measured of each tracker, by (speed, by, value)."""
        return {(row["speed"], row["by"], row["value"]): row for row in self.metrics["settings"]}

    def tracker(self, *setting: str | float) -> dict:
        """What was measured of one; ValueError where it was not."""
        if setting not in self.settings:
            raise ValueError(f"{self.run.folder}: nothing was measured of the tracker {setting}")
        return self.settings[setting]

    def estimate(self, key: Hashable) -> Estimate:
        """The number of this key; ValueError where it was not measured."""
        if key == IMAGE or key[0] == "video":
            entry = self.metrics["image"] if key == IMAGE else self.tracker(*key[1:])
            matches = Matches.from_dict(entry)
            return Estimate(len(matches.instances), lambda w: average_precision(matches, w))
        consistency = self.metrics["consistency"]
        kept = consistency if key[0] == "retention" else self.tracker(*key[1:4])
        column = 2 * consistency["distances"].index(key[-1])
        pairs = np.array(kept["pairs"], dtype=float)[:, column : column + 2]
        return Estimate(len(pairs), lambda weights: _share(weights @ pairs))


def _share(sums: np.ndarray) -> np.ndarray:
    """What was kept, of how many (B, 2) -> the share (B,)."""
    kept, of = sums.T
    return np.divide(kept, of, out=np.full(len(sums), np.nan), where=of > 0)


@dataclass(eq=False)
class Row:
    """A variant: its runs that are done, in the order of their seeds."""

    name: str
    runs: list[Measured]

    def __post_init__(self):
        self.against = cache(self.against)

    def spread(self, key: Hashable) -> Spread:
        """Mean and spread over the seeds, in points (0..100)."""
        return spread([100 * run.estimate(key).value for run in self.runs])

    def against(
        self, other: Row, key: Hashable, other_key: Hashable | None = None
    ) -> Comparison | None:
        """Points by which this row is above the other, over the seeds that both have.

        None where there are none.
        """
        pairs = self._pairs(other, key, other_key or key)
        found = compare(*zip(*pairs)) if pairs else None
        return found and Comparison(
            *(100 * x for x in found[:3]), tuple(100 * x for x in found.seeds)
        )

    def differences(self, other: Row, key: Hashable) -> list[float]:
        """The same difference of each seed, without an interval, which takes its time."""
        return [100 * (ours.value - theirs.value) for ours, theirs in self._pairs(other, key, key)]

    def _pairs(self, other: Row, key: Hashable, other_key: Hashable) -> list[tuple]:
        """The estimates of the seeds that both rows have."""
        theirs = {run.run.seed: run for run in other.runs}
        ours = [(run, theirs[run.run.seed]) for run in self.runs if run.run.seed in theirs]
        return [(one.estimate(key), other.estimate(other_key)) for one, other in ours]

    @property
    def associations(self) -> list[str]:
        """Those that were measured of it at T = 1, 3 and 6; none of most rows."""
        return [by for speed, by, value in self.runs[0].settings if (speed, value) == ("medium", 1)]

    def has(self, *setting: str | float) -> bool:
        """Was a tracker (speed, by, value) measured in every run?"""
        return all(setting in run.settings for run in self.runs)

    def total(self, what: str, *setting: str | float) -> int:
        """A count of a tracker, over all runs; ValueError where it was not measured."""
        return sum(run.tracker(*setting)[what] for run in self.runs)

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
        kinds = ([t[kind] for t in ours if t[kind] > 0] for kind in ("key", "other"))
        key, other = (min(times, default=np.nan) for times in kinds)
        share = self.key_share(by, value)
        return share * key + (1 - share) * other


class Lab:
    """What stands in the folder of a lab. ValueError or FileNotFoundError when there is nothing, or
    a file is not as it should be.

    `variants` are the rows as they were when the lab was run; the report begins with `note`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        budget, self.variants, self.note = read_lab(folder)
        self.budget = asdict(budget)
        runs = find_runs(folder)
        self.unfinished = [run for run in runs if not run.is_done]
        done = [_measured(run, run.folder / "metrics.json") for run in runs if run.is_done]
        if not any(run.run.variant == "full" for run in done):
            missing = "no run of the full model is done, and all is compared with it"
            raise ValueError(f"{folder}: {missing}: `minst lab run full`")
        rows = [Row(name, [r for r in done if r.run.variant == name]) for name in self.variants]
        self.rows = {row.name: row for row in rows if row.runs}
        files = {name: self.folder / "shipped" / f"{name}.json" for name in SHIPPED}
        self.shipped = {
            name: Row(name, [_measured(Run(self.folder, name, 0), file)])
            for name, file in files.items()
            if file.is_file()
        }
        reasons = self.folder / "reasons.json"
        self.reasons = read_typed(reasons, dict[str, str]) if reasons.is_file() else {}

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


def _measured(run: Run, file: Path) -> Measured:
    """ValueError names the file, and the place in it, that no run has written."""
    metrics = read_typed(file, Metrics)
    if run.variant == "full" and "milliseconds" not in metrics:
        raise ValueError(f"{file}: lacks `milliseconds`, as every run of the full model has them")
    distances = metrics["consistency"]["distances"]
    parts = {name: metrics[name] for name in ("image", "consistency")}
    parts |= {f"settings[{i}]": row for i, row in enumerate(metrics["settings"])}
    clips = len(metrics["consistency"]["pairs"])
    for name, part in parts.items():
        try:
            if "rows" in part:
                Matches.from_dict(part)
            if {len(part[key]) for key in ("instances", "pairs") if key in part} != {clips}:
                raise ValueError(f"`consistency` knows {clips} clips, this another number")
            if any(len(row) != 2 * len(distances) for row in part.get("pairs", ())):
                raise ValueError("`pairs` are two numbers for each of `distances`")
        except ValueError as error:
            again = "remove it, and `minst lab run` measures again"
            raise ValueError(f"{file}: {name}: {error}; {again}") from None
    return Measured(run, metrics)
