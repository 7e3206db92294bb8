"""The report of a lab: from the metrics of its runs to Markdown, CSV and plots, the same bytes from the same metrics.

    <lab>/*/metrics.json, reasons.json -> <out>/README.md     claims and verdicts, all rows, reuse interval, association, …
                                          runs.csv, rows.csv   every figure of every run; means, spreads, intervals
                                          *.png

reasons.json {variant: sentence} is written by people who have looked at the results; a row without one says nothing.
Keys beside the variants: "retention", "T=3", "T=12", "association", "beyond".

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minst.data.files import read_json, replacing
from minst.lab.grid import SPEEDS
from minst.lab.measure import ADAPTIVE, DISTANCES, FROZEN, INTERVALS
from minst.lab.runs import Run, read_lab
from minst.lab.statistics import Comparison, Measured, Spread, compare, load, load_shipped, seeds_needed, spread

__all__ = ["COLUMNS", "Lab", "Row", "claims_table", "milliseconds", "seeds_table", "write_report"]

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
class Row:
    """A variant: its runs that are done, in the order of their seeds."""

    name: str
    runs: list[Measured]
    _compared: dict = field(default_factory=dict, repr=False)  # tables and plots ask for the same

    def spread(self, key: Hashable) -> Spread:
        """Mean and spread over the seeds, in points (0..100)."""
        return spread([100 * run.figure(key).value for run in self.runs])

    def against(self, other: Row, key: Hashable, other_key: Hashable | None = None) -> Comparison | None:
        """Points by which this row is above the other, over the seeds that both have; None where there are none."""
        asked = (other, key, other_key or key)
        if asked not in self._compared:
            self._compared[asked] = self._compare(*asked)
        return self._compared[asked]

    def differences(self, other: Row, key: Hashable) -> list[float]:
        """The same difference of each seed, without an interval, which takes its time."""
        return [100 * (a.figure(key).value - b.figure(key).value) for a, b in self._partners(other)]

    def _compare(self, other: Row, key: Hashable, other_key: Hashable) -> Comparison | None:
        both = self._partners(other)
        if not both:
            return None
        found = compare([ours.figure(key) for ours, _ in both], [theirs.figure(other_key) for _, theirs in both])
        return Comparison(*(100 * x for x in found[:3]), tuple(100 * x for x in found.seeds))

    def _partners(self, other: Row) -> list[tuple[Measured, Measured]]:
        """The runs of the seeds that both rows have."""
        theirs = {run.run.seed: run for run in other.runs}
        return [(run, theirs[run.run.seed]) for run in self.runs if run.run.seed in theirs]

    @property
    def associations(self) -> list[str]:
        """Those that were measured of it at T = 1, 3 and 6; none of most rows."""
        measured = self.runs[0].metrics["settings"]
        return [s["by"] for s in measured if (s["speed"], s["value"]) == ("medium", 1)]

    def settings(self, speed: str, by: str, value: float) -> list[dict]:
        """What each run measured of a tracker; KeyError where it was not."""
        return [run.setting(speed, by, value) for run in self.runs]


class Lab:
    """What stands in the folder of a lab. ValueError or FileNotFoundError when there is nothing.

    `variants` are the rows as they were when the lab was run; the report begins with `note`.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        runs, self.unfinished = load(folder)
        if not any(run.run.variant == "full" for run in runs):
            raise ValueError(
                f"{folder}: no run of the full model is done, and all is compared with it: `minst lab run full`"
            )
        self.budget, self.variants, self.note = read_lab(self.folder)
        rows = [Row(name, [r for r in runs if r.run.variant == name]) for name in self.variants]
        self.rows = {row.name: row for row in rows if row.runs}
        self.shipped = {run.run.variant: Row(run.run.variant, [run]) for run in load_shipped(folder)}
        reasons = self.folder / "reasons.json"
        self.reasons = read_json(reasons) if reasons.is_file() else {}

    @property
    def probed(self) -> dict[str, Row]:
        """The rows of which every association was measured, by what they are called in tables and plots."""
        says = {name: variant.says for name, variant in self.variants.items()}
        says["full"] = "the full model"
        found = {says[name]: row for name, row in self.rows.items() if row.associations}
        return found | {f"shipped weights: {name}": row for name, row in self.shipped.items()}

    @property
    def full(self) -> Row:
        """The row with which all others are compared."""
        return self.rows["full"]

    def difference(self, name: str) -> Comparison | None:
        """Of the figure that decides this variant, to the full model; None for the full model itself."""
        key = JUDGED[self.variants[name].judged_by]
        return None if name == "full" else self.rows[name].against(self.full, key)


def write_report(folder: str | Path, out: str | Path | None = None, plots: bool = True) -> Path:
    """Write the report of the lab in `folder`; `out`: default <folder>/report. Returns the path of its README.md."""
    lab = Lab(folder)
    out = Path(out) if out else lab.folder / "report"
    pictures = []
    if plots:
        from minst.lab.plots import PLOTS, has_data  # matplotlib: only who draws waits for it
        from minst.visualize.style import save

        pictures = [name for name in PLOTS if has_data(lab, name)]
        for name in pictures:
            save(PLOTS[name](lab), out / f"{name}.png", dpi=100)
    files = {"README.md": markdown(lab, pictures), "runs.csv": _runs_csv(lab), "rows.csv": _rows_csv(lab)}
    for name, text in files.items():
        with replacing(out / name) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    return out / "README.md"


def markdown(lab: Lab, pictures: Sequence[str] = ()) -> str:
    """The tables, as Markdown."""
    parts = [_head(lab), claims_table(lab), _picture("differences", pictures), _all_rows(lab)]
    if _measured(lab.full, "slow", "mask", 12):
        parts += [_intervals(lab), _picture("intervals", pictures)]
    parts += [_associations(lab), _picture("associations", pictures)]
    if _measured(lab.full, "medium", "frozen", 3):
        parts += [_beyond(lab), _picture("beyond", pictures)]
    parts += [seeds_table(lab), _cost(lab)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(lab: Lab) -> str:
    b, done = lab.budget, sum(len(row.runs) for row in lab.rows.values())
    start = f"**{lab.note}**\n\nWritten" if lab.note else "Written"
    return f"""# The ablation lab: results of the budget "{b["name"]}"

{start} by `minst lab report` from the metrics of {done} runs; nothing here is typed by hand but the sentences
"why", which are our reading and no measurement.
{_unfinished(lab.unfinished)}
Each run: {b["iterations"]:,} steps of {b["pairs"]} pairs of 128 x 128 crops, from a backbone that learned to classify for
{b["pretraining"]:,} steps (one for all seeds: no interval holds its luck); {b["train_clips"]} clips to learn from, {b["val_clips"]} of {b["frames"]} frames to judge by. Figures are
points of 100: mean ± standard deviation over the seeds. Differences are to the full model, paired by seed and clip, with
the 95 % interval of a bootstrap over seeds and clips ({_seeds(lab)}; such intervals of few seeds are rather too narrow).
How difficulty, budget and rules were fixed before: [PILOT.md](../PILOT.md)."""


def _unfinished(runs: Sequence[Run]) -> str:
    if not runs:
        return "Every run that was started is here."
    return f"Started and not finished, so not here: {', '.join(run.name for run in runs)}."


def _seeds(lab: Lab) -> str:
    counts = sorted({len(row.runs) for row in lab.rows.values()})
    return f"{counts[-1]} seed{'s' * (counts[-1] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def claims_table(lab: Lab) -> str:
    """The paper's claims, ours, the verdicts and why, as Markdown; empty where nothing was run that has a claim."""
    lines = []
    for name in lab.rows:
        variant = lab.variants[name]
        if variant.claim:
            figure, why = COLUMNS[JUDGED[variant.judged_by]], lab.reasons.get(name, "")
            lines.append(_claim(variant.says, variant.paper, figure, lab.difference(name), 1, why))
    tracking = _tracking_claims(lab)
    if not lines + tracking:
        return ""
    titles = _titles("changed", "the paper says", "ours", "each seed", "with the paper it", "why")
    note = ["", "† Of these the pilot fixed no rule; their form was chosen when two seeds were in."] if tracking else []
    return "\n".join(["## The paper's claims", "", *titles, *lines, *tracking, *note])


def _tracking_claims(lab: Lab) -> list[str]:
    """What the paper says of queries over time and of T: Fig 2, Tab 7."""
    lines, reasons = [], lab.reasons
    for variant in (lab.variants[name] for name in lab.rows):
        if variant.retention:
            found = lab.rows[variant.name].against(lab.full, ("retention", 10))
            what, says, why = f"{variant.says} †", variant.retention, reasons.get("retention", "")
            lines.append(_claim(what, says, "retention 10", found, 1, why))
    if _measured(lab.full, "medium", "cosine", 12):
        for t, says, claim in ((3, "the best trade (Tab 7)", 0), (12, "faster, less exact (Tab 7)", 1)):
            time = milliseconds(lab.full, "cosine", t) / milliseconds(lab.full, "cosine", 1)
            what = f"T = {t} in the place of 1, {time:.0%} of the time †"
            found = lab.full.against(lab.full, *(("video", "medium", "cosine", interval) for interval in (t, 1)))
            lines.append(_claim(what, says, COLUMNS[VIDEO], found, claim, reasons.get(f"T={t}", "")))
    return lines


def _claim(what: str, says: str, figure: str, found: Comparison | None, claim: int, why: str) -> str:
    """A line of the table of claims; found: None where variant and full model have no seed in common."""
    if found is None:
        return f"| {what} | {says} | no seed in common | | | |"
    each = ", ".join(map(_signed, found.seeds))
    return _cells(what, says, f"{figure}: {_interval(found)}", each, f"**{found.verdict(claim)}**", why)


def _all_rows(lab: Lab) -> str:
    lines, group = [], None
    for name, row in lab.rows.items():
        variant = lab.variants[name]
        if variant.group != group:
            group = variant.group
            lines.append(f"| **{group}** |" + " |" * (len(COLUMNS) + 3))
        cells = [_spread(row.spread(key)) for key in COLUMNS]
        found = lab.difference(name)
        difference = _interval(found) if found else ""
        size = row.runs[0].metrics["model"]
        cells += [difference, f"{size['macs'] / 1e6:.0f}"]
        lines.append(f"| {variant.says} (`{name}`, {len(row.runs)}) | " + " | ".join(cells) + " |")
    head = ["the model (its name, seeds)", *COLUMNS.values(), "difference in what decides", "MMACs"]
    note = (
        "Image AP decides rows of architecture and size, video AP by cosine at T = 3 those of temporal training. Retention: "
        "the share of queries that still hold their instance 3 or 10 frames on. MMACs: of a 128 x 128 frame, millions."
    )
    return "\n".join(["## All rows", "", note, "", *_titles(*head), *lines])


def _intervals(lab: Lab) -> str:
    parts = ["## Reuse interval T and speed (the full model)", ""]
    parts += [
        "Speeds are factors on the motion of the training clips: " + ", ".join(f"{k} {v:g}" for k, v in SPEEDS.items())
        + ". Milliseconds: one thread, a frame of 160 x 128, the least disturbed of all runs' measurements.", "",
    ]  # fmt: skip
    columns, rows = [f"T = {t}" for t in INTERVALS], [(by, speed) for by in ("cosine", "mask") for speed in SPEEDS]
    full = lab.full
    parts += _titles("video AP", *columns)
    for by, speed in rows:
        parts.append(_cells(f"{by}, {speed}", *(_spread(full.spread(("video", speed, by, t))) for t in INTERVALS)))
    for by, speed in rows:
        found = [full.against(full, ("video", speed, by, t), ("video", speed, by, 1)) for t in INTERVALS[1:]]
        parts.append(_cells(f"{by}, {speed}, to T = 1", "", *map(_interval, found)))
    parts += ["", "How long tracks stay on their instance: the share of instances held by a track that the same track still holds "
              "10 frames on, if they are visible there (the same of queries: retention, above).", ""]  # fmt: skip
    parts += _titles("tracks kept 10 frames on", *columns)
    for by, speed in rows:
        parts.append(_cells(f"{by}, {speed}", *(_spread(full.spread(("tracks", speed, by, t, 10))) for t in INTERVALS)))
    parts += ["", *_titles("time", *columns)]
    for by in ("cosine", "mask"):
        parts.append(_cells(f"ms a frame, {by}", *(f"{milliseconds(full, by, t):.1f}" for t in INTERVALS)))
    return "\n".join(parts)


def _associations(lab: Lab) -> str:
    parts = ["## Association (clips of medium speed)", ""]
    parts += [
        'Video AP, and in brackets the share of live slots that go on with another query than before: "none" never does. '
        "Last: tracks that still hold their instance 10 frames on. "
        "Shipped weights, where they stand, learned ten times as long, on the default shapes (256 x 192, eight kinds), and "
        "are judged by clips of those; they were added when the first rows of the grid were seen.",
        "", f"| the model | association | {' | '.join(f'T = {t}' for t in (1, 3, 6))} | to none, T = 1 | kept 10 on, T = 1 |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for says, row in lab.probed.items():
        for by in row.associations:
            cells = []
            for t in (1, 3, 6):
                entries = row.settings("medium", by, t)
                moved, of = (sum(entry[key] for entry in entries) for key in ("moved", "associated"))
                cells.append(f"{_spread(row.spread(('video', 'medium', by, t)))} ({moved / of if of else 0:.1%})")
            found = row.against(row, ("video", "medium", by, 1), ("video", "medium", "none", 1))
            cells.append("" if by == "none" else _interval(found))
            cells.append(_spread(row.spread(("tracks", "medium", by, 1, 10))))
            parts.append(f"| {says} | {by} | {' | '.join(cells)} |")
    why = lab.reasons.get("association")
    return "\n".join(parts + (["", why] if why else []))


def _beyond(lab: Lab) -> str:
    full = lab.full
    parts = ["## Beyond the paper (the full model, association by mask)", ""]
    parts += [
        "Frozen X6: frames between key frames take X6, and with it all that is injected, from the key frame and skip the "
        "transformer. Adaptive: a key frame when the agreement of old kernels with the new frame falls below a share of "
        "what it was (at the latest after 12 frames). Key: the share of frames that are key frames, on medium clips.", "",
        f"| | key | {' | '.join(SPEEDS)} | ms a frame |", "|---" * (len(SPEEDS) + 3) + "|",
    ]  # fmt: skip
    chosen = [("mask", t, f"as the paper, T = {t}") for t in INTERVALS]
    chosen += [("frozen", t, f"frozen X6, T = {t}") for t in FROZEN]
    chosen += [("adaptive", a, f"adaptive, {a:g}") for a in ADAPTIVE]
    for by, value, says in chosen:
        entries = full.settings("medium", by, value)
        share = sum(e["keys"] for e in entries) / sum(e["frames"] for e in entries)
        cells = [_spread(full.spread(("video", speed, by, value))) for speed in SPEEDS]
        parts.append(f"| {says} | {share:.0%} | {' | '.join(cells)} | {milliseconds(full, by, value):.1f} |")
    why = lab.reasons.get("beyond")
    return "\n".join(parts + (["", why] if why else []))


def seeds_table(lab: Lab) -> str:
    """How many seeds it takes to see 1, 2, 4 points, as Markdown; empty without two seeds of anything."""
    lines = []
    for key, title in COLUMNS.items():
        found = [row.differences(lab.full, key) for name, row in lab.rows.items() if name != "full"]
        needed = [seeds_needed(found, effect) for effect in (1.0, 2.0, 4.0)]
        if None not in needed:
            alone = lab.full.spread(key).sd
            lines.append(f"| {title} | {alone:.1f} | {' | '.join(str(n) for n in needed)} |")
    if not lines:
        return ""
    head = "| figure | sd of the full model | to see 1 point | 2 points | 4 points |\n|---|---|---|---|---|"
    note = (
        "Seeds with which a true difference of this size would be seen four times out of five, from the spread of the "
        "paired differences between seeds (pooled over all rows)."
    )
    return "\n".join(["## How many seeds?", "", note, "", head, *lines])


def _cost(lab: Lab) -> str:
    seconds = [
        run.metrics["seconds_per_iteration"] * lab.budget["iterations"] for r in lab.rows.values() for run in r.runs
    ]
    versions = sorted({run.metrics["torch"] for row in lab.rows.values() for run in row.runs})
    return (
        f"Training took {sum(seconds) / 3600:.1f} hours of one thread in all, {min(seconds) / 60:.0f} to "
        f"{max(seconds) / 60:.0f} minutes a run (torch {', '.join(versions)}; the machine was not idle). "
        "Every figure of every run: [runs.csv](runs.csv); means and intervals: [rows.csv](rows.csv)."
    )


def _runs_csv(lab: Lab) -> str:
    rows = [("variant", "seed", "figure", "speed", "by", "value", "points")]
    for name, row in (lab.rows | lab.shipped).items():
        for run in row.runs:
            for key, title in COLUMNS.items():
                if key in (IMAGE,) or key[0] == "retention":
                    rows.append((name, run.run.seed, title, "medium", "", "", f"{100 * run.figure(key).value:.3f}"))
            for entry in run.metrics["settings"]:
                where = (entry["speed"], entry["by"], f"{entry['value']:g}")
                rows.append((name, run.run.seed, "video AP", *where, f"{100 * entry['AP']:.3f}"))
                rows.append((name, run.run.seed, "video AP50", *where, f"{100 * entry['AP50']:.3f}"))
                for frames in DISTANCES:
                    kept = run.figure(("tracks", entry["speed"], entry["by"], entry["value"], frames)).value
                    rows.append((name, run.run.seed, f"track retention {frames}", *where, f"{100 * kept:.3f}"))
    return _csv(rows)


def _rows_csv(lab: Lab) -> str:
    rows = [("variant", "seeds", "figure", "mean", "sd", "difference", "low", "high", "decides", "verdict")]
    for name, row in lab.rows.items():
        variant = lab.variants[name]
        for key, title in COLUMNS.items():
            mean, sd, values = row.spread(key)
            found = None if name == "full" else row.against(lab.full, key)
            decides = bool(found) and key == JUDGED[variant.judged_by]
            numbers = [f"{x:.3f}" for x in found[:3]] if found else ["", "", ""]
            verdict = found.verdict(variant.claim) if decides else ""
            rows.append((name, len(values), title, f"{mean:.3f}", f"{sd:.3f}", *numbers, decides, verdict))
    return _csv(rows)


def _csv(rows: Sequence[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _picture(name: str, pictures: Sequence[str]) -> str:
    return f"![{name}]({name}.png)" if name in pictures else ""


def _measured(row: Row, speed: str, by: str, value: float) -> bool:
    return all(
        any((s["speed"], s["by"], s["value"]) == (speed, by, value) for s in run.metrics["settings"])
        for run in row.runs
    )


def milliseconds(row: Row, by: str, value: float) -> float:
    """A frame's time, from those of a key frame and of the others and how many of each there are on medium clips.

    The two depend on the kind of tracker alone, not on T: each is the least disturbed measurement of all that there are.
    """
    timed = [(name.split()[0], times) for run in row.runs for name, times in run.metrics["milliseconds"].items()]
    key, other = (min(t[kind] for name, t in timed if name == by and t[kind] > 0) for kind in ("key", "other"))
    entries = row.settings("medium", by, value)
    share = sum(e["keys"] for e in entries) / sum(e["frames"] for e in entries)
    return share * key + (1 - share) * other


def _titles(*cells: str) -> list[str]:
    """The head of a table."""
    return [_cells(*cells), "|---" * len(cells) + "|"]


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(found: Spread) -> str:
    if math.isnan(found.mean):
        return "–"
    return f"{found.mean:.1f}" if math.isnan(found.sd) else f"{found.mean:.1f} ± {found.sd:.1f}"


def _interval(found: Comparison) -> str:
    return f"{_signed(found.difference)} [{_signed(found.low)}, {_signed(found.high)}]"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−")
