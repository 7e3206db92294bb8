"""The report of a lab: Markdown, CSV and plots, the same bytes from the same metrics.

    <lab>/*/metrics.json, reasons.json --> <out>/README.md     claims and verdicts, all rows, T, ...
                                           runs.csv, rows.csv  each figure of each run; of each row
                                           *.png

reasons.json {variant: sentence} is written by people who have looked at the results; a row without
one says nothing. Keys beside the variants: "retention", "T=3", "T=12", "association", "beyond".

Lesson: notebooks/09_ablation_lab.ipynb
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from minst.data.files import replacing
from minst.lab.grid import SPEEDS
from minst.lab.measure import ADAPTIVE, DISTANCES, FROZEN, INTERVALS
from minst.lab.results import COLUMNS, IMAGE, JUDGED, VIDEO, Lab
from minst.lab.statistics import Comparison, Spread, seeds_needed, signed

__all__ = ["claims_table", "markdown", "seeds_table", "write_report"]


def write_report(folder: str | Path, out: str | Path | None = None, plots: bool = True) -> Path:
    """Write the report of the lab in `folder`; returns the path of its README.md.

    out: default <folder>/report.
    """
    lab = Lab(folder)
    out = Path(out or lab.folder / "report")
    out.mkdir(parents=True, exist_ok=True)  # before the work, which takes its time
    pictures = []
    if plots:
        from minst.lab.plots import PLOTS  # matplotlib: only who draws waits for it
        from minst.visualize.style import save

        pictures = list(PLOTS) if len(lab.rows) > 1 else list(PLOTS)[1:]
        for name in pictures:
            save(PLOTS[name](lab), out / f"{name}.png", dpi=100)
    runs, rows = (RUNS_HEAD, *runs_of(lab)), (ROWS_HEAD, *rows_of(lab))
    files = {"README.md": markdown(lab, pictures), "runs.csv": _csv(runs), "rows.csv": _csv(rows)}
    for name, text in files.items():
        with replacing(out / name) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    return out / "README.md"


# ----------------------------------------------------------------------------------------- Markdown


def markdown(lab: Lab, pictures: Sequence[str] = ()) -> str:
    """The tables, as Markdown."""
    picture = {name: f"![{name}]({name}.png)" for name in pictures}
    parts = [_head(lab), claims_table(lab), picture.get("differences"), _all_rows(lab)]
    if lab.full.has("slow", "mask", 12):
        parts += [_intervals(lab), picture.get("intervals")]
    parts += [_associations(lab), picture.get("associations")]
    if lab.full.has("medium", "frozen", 3):
        parts += [_beyond(lab), picture.get("beyond")]
    parts += [seeds_table(lab), _cost(lab)]
    return _paragraphs(*parts) + "\n"


def _paragraphs(*parts: str | None) -> str:
    return "\n\n".join(filter(None, parts))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a row that is too short ends in empty cells."""
    # in the head an empty cell is one space wide, in the rows it is two
    lines = [_line(titles).replace("|  |", "| |"), "|---" * len(titles) + "|"]
    lines += [_line(row) + " |" * (len(titles) - len(row)) for row in rows]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(lab: Lab) -> str:
    b, done = lab.budget, [len(row.runs) for row in lab.rows.values()]
    least, most = min(done), max(done)
    seeds = f"{least} to {most} seeds" if least < most else f"{most} seed{'s' * (most > 1)}"
    note = f"**{lab.note}**\n\n" if lab.note else ""
    missing = ", ".join(run.name for run in lab.unfinished)
    missing = f"Started and not finished, so not here: {missing}." if missing else ""
    return f"""# The ablation lab: results of the budget "{b["name"]}"

{note}Written by `minst lab report` from the metrics of {sum(done)} runs; nothing here is typed by \
hand but the sentences
"why", which are our reading and no measurement.
{missing or "Every run that was started is here."}
Each run: {b["iterations"]:,} steps of {b["pairs"]} pairs of 128 x 128 crops, from a backbone \
that learned to classify for
{b["pretraining"]:,} steps (one for all seeds: no interval holds its luck); {b["train_clips"]} \
clips to learn from, {b["val_clips"]} of {b["frames"]} frames to judge by. Figures are
points of 100: mean ± standard deviation over the seeds. Differences are to the full model, \
paired by seed and clip, with
the 95 % interval of a bootstrap over seeds and clips ({seeds}; such intervals of few seeds are \
rather too narrow).
How difficulty, budget and rules were fixed before: [PILOT.md](../PILOT.md)."""


def claims_table(lab: Lab) -> str:
    """The paper's claims, ours, the verdicts and why; "" where nothing was run that has a claim."""
    tracking = _tracking_claims(lab)
    rows = []
    for name in lab.rows:
        variant = lab.variants[name]
        if variant.claim:
            figure, why = COLUMNS[JUDGED[variant.judged_by]], lab.reasons.get(name, "")
            says = variant.says, variant.paper, figure
            rows.append(_claim(*says, lab.difference(name), 1, why))
    if not rows + tracking:
        return ""
    titles = ("changed", "the paper says", "ours", "each seed", "with the paper it", "why")
    form = "their form was chosen when two seeds were in."
    note = f"† Of these the pilot fixed no rule; {form}" if tracking else ""
    return _paragraphs("## The paper's claims", table(titles, rows + tracking), note)


def _tracking_claims(lab: Lab) -> list[tuple[str, ...]]:
    """What the paper says of queries over time and of T: Fig 2, Tab 7."""
    rows, full = [], lab.full
    for name, row in lab.rows.items():
        if says := lab.variants[name].retention:
            found, why = row.against(full, ("retention", 10)), lab.reasons.get("retention", "")
            what = f"{lab.variants[name].says} †"
            rows.append(_claim(what, says, "retention 10", found, 1, why))
    if full.has("medium", "cosine", 12):
        tab7 = (3, "the best trade (Tab 7)", 0), (12, "faster, less exact (Tab 7)", 1)
        for t, says, claim in tab7:
            time = full.milliseconds("cosine", t) / full.milliseconds("cosine", 1)
            what = f"T = {t} in the place of 1, {time:.0%} of the time †"
            found = full.against(full, (*VIDEO[:3], t), (*VIDEO[:3], 1))
            why = lab.reasons.get(f"T={t}", "")
            rows.append(_claim(what, says, COLUMNS[VIDEO], found, claim, why))
    return rows


def _claim(
    what: str, says: str, figure: str, found: Comparison | None, claim: int, why: str
) -> tuple[str, ...]:
    """A row of the table of claims; found: None where the two have no seed in common."""
    if found is None:
        return what, says, "no seed in common"
    each = ", ".join(map(signed, found.seeds))
    return what, says, f"{figure}: {_interval(found)}", each, f"**{found.verdict(claim)}**", why


def _all_rows(lab: Lab) -> str:
    rows, group = [], None
    for name, row in lab.rows.items():
        variant, found = lab.variants[name], lab.difference(name)
        if variant.group != group:
            group = variant.group
            rows.append([f"**{group}** |"])  # the committed report has a cell too many here
        cells = [f"{variant.says} (`{name}`, {len(row.runs)})"]
        cells += [_spread(row.spread(key)) for key in COLUMNS]
        macs = row.runs[0].metrics["model"]["macs"]
        rows.append([*cells, _interval(found) if found else "", f"{macs / 1e6:.0f}"])
    titles = ["the model (its name, seeds)", *COLUMNS.values()]
    note = (
        "Image AP decides rows of architecture and size, video AP by cosine at T = 3 those of "
        "temporal training. Retention: the share of queries that still hold their instance 3 or "
        "10 frames on. MMACs: of a 128 x 128 frame, millions."
    )
    titles += ["difference in what decides", "MMACs"]
    return _paragraphs("## All rows", note, table(titles, rows))


def _intervals(lab: Lab) -> str:
    full, columns = lab.full, [f"T = {t}" for t in INTERVALS]
    ap, kept, lost = [], [], []
    for by in ("cosine", "mask"):
        for speed in SPEEDS:
            what = f"{by}, {speed}"
            keys = [("video", speed, by, t) for t in INTERVALS]
            ap.append([what, *(_spread(full.spread(key)) for key in keys)])
            found = [_interval(full.against(full, key, keys[0])) for key in keys[1:]]
            lost.append([f"{what}, to T = 1", "", *found])
            keys = [("tracks", *key[1:], 10) for key in keys]
            kept.append([what, *(_spread(full.spread(key)) for key in keys)])
    times = [
        [f"ms a frame, {by}", *(f"{full.milliseconds(by, t):.1f}" for t in INTERVALS)]
        for by in ("cosine", "mask")
    ]
    speeds = (
        "Speeds are factors on the motion of the training clips: "
        + ", ".join(f"{speed} {factor:g}" for speed, factor in SPEEDS.items())
        + ". Milliseconds: one thread, a frame of 160 x 128, the least disturbed of all runs' "
        "measurements."
    )
    staying = (
        "How long tracks stay on their instance: the share of instances held by a track that the "
        "same track still holds 10 frames on, if they are visible there (the same of queries: "
        "retention, above)."
    )
    return _paragraphs(
        "## Reuse interval T and speed (the full model)",
        speeds,
        table(["video AP", *columns], ap + lost),
        staying,
        table(["tracks kept 10 frames on", *columns], kept),
        table(["time", *columns], times),
    )


def _associations(lab: Lab) -> str:
    rows = []
    for says, row in lab.probed.items():
        for by in row.associations:
            cells = [says, by]
            for t in (1, 3, 6):
                moved, of = (row.total(k, "medium", by, t) for k in ("moved", "associated"))
                ap = _spread(row.spread(("video", "medium", by, t)))
                cells.append(f"{ap} ({moved / of if of else 0:.1%})")
            found = row.against(row, ("video", "medium", by, 1), ("video", "medium", "none", 1))
            cells.append("" if by == "none" else _interval(found))
            rows.append([*cells, _spread(row.spread(("tracks", "medium", by, 1, 10)))])
    titles = ["the model", "association", *(f"T = {t}" for t in (1, 3, 6))]
    note = (
        "Video AP, and in brackets the share of live slots that go on with another query than "
        'before: "none" never does. Last: tracks that still hold their instance 10 frames on. '
        "Shipped weights, where they stand, learned ten times as long, on the default shapes "
        "(256 x 192, eight kinds), and are judged by clips of those; they were added when the "
        "first rows of the grid were seen."
    )
    shown = table([*titles, "to none, T = 1", "kept 10 on, T = 1"], rows)
    why = lab.reasons.get("association")
    return _paragraphs("## Association (clips of medium speed)", note, shown, why)


def _beyond(lab: Lab) -> str:
    full, rows = lab.full, []
    trackers = [("mask", t, f"as the paper, T = {t}") for t in INTERVALS]
    trackers += [("frozen", t, f"frozen X6, T = {t}") for t in FROZEN]
    trackers += [("adaptive", a, f"adaptive, {a:g}") for a in ADAPTIVE]
    for by, value, says in trackers:
        cells = [_spread(full.spread(("video", speed, by, value))) for speed in SPEEDS]
        share, time = full.key_share(by, value), full.milliseconds(by, value)
        rows.append([says, f"{share:.0%}", *cells, f"{time:.1f}"])
    note = (
        "Frozen X6: frames between key frames take X6, and with it all that is injected, from the "
        "key frame and skip the transformer. Adaptive: a key frame when the agreement of old "
        "kernels with the new frame falls below a share of what it was (at the latest after 12 "
        "frames). Key: the share of frames that are key frames, on medium clips."
    )
    title = "## Beyond the paper (the full model, association by mask)"
    shown = table(["", "key", *SPEEDS, "ms a frame"], rows)
    return _paragraphs(title, note, shown, lab.reasons.get("beyond"))


def seeds_table(lab: Lab) -> str:
    """How many seeds it takes to see 1, 2, 4 points; "" without two seeds of anything."""
    rows = []
    for key, title in COLUMNS.items():
        found = [r.differences(lab.full, key) for name, r in lab.rows.items() if name != "full"]
        needed = [seeds_needed(found, effect) for effect in (1.0, 2.0, 4.0)]
        if None not in needed:
            rows.append([title, f"{lab.full.spread(key).sd:.1f}", *map(str, needed)])
    if not rows:
        return ""
    note = (
        "Seeds with which a true difference of this size would be seen four times out of five, "
        "from the spread of the paired differences between seeds (pooled over all rows)."
    )
    titles = ("figure", "sd of the full model", "to see 1 point", "2 points", "4 points")
    return _paragraphs("## How many seeds?", note, table(titles, rows))


def _cost(lab: Lab) -> str:
    runs = [run.metrics for row in lab.rows.values() for run in row.runs]
    steps = lab.budget["iterations"]
    seconds = [run.get("seconds_per_iteration", math.nan) * steps for run in runs]
    versions = ", ".join(sorted({run["torch"] for run in runs}))
    return (
        f"Training took {sum(seconds) / 3600:.1f} hours of one thread in all, "
        f"{min(seconds) / 60:.0f} to {max(seconds) / 60:.0f} minutes a run (torch {versions}; the "
        "machine was not idle). Every figure of every run: [runs.csv](runs.csv); means and "
        "intervals: [rows.csv](rows.csv)."
    )


def _spread(found: Spread) -> str:
    if math.isnan(found.mean):
        return "–"
    return f"{found.mean:.1f}" if math.isnan(found.sd) else f"{found.mean:.1f} ± {found.sd:.1f}"


def _interval(found: Comparison) -> str:
    return f"{signed(found.difference)} [{signed(found.low)}, {signed(found.high)}]"


# ---------------------------------------------------------------------------------------------- CSV

RUNS_HEAD = ("variant", "seed", "figure", "speed", "by", "value", "points")
ROWS_HEAD = ("variant", "seeds", "figure", "mean", "sd", "difference", "low", "high")
ROWS_HEAD += ("decides", "verdict")


def runs_of(lab: Lab) -> Iterable[tuple]:
    """Every figure of every run, as `RUNS_HEAD` says."""
    alone = [key for key in COLUMNS if key == IMAGE or key[0] == "retention"]
    for name, row in (lab.rows | lab.shipped).items():
        for run in row.runs:
            figures = [(COLUMNS[key], "medium", "", "", run.estimate(key).value) for key in alone]
            for (speed, by, value), entry in run.settings.items():
                where = (speed, by, f"{value:g}")
                figures += [(f"video {ap}", *where, entry[ap]) for ap in ("AP", "AP50")]
                for frames in DISTANCES:
                    kept = run.estimate(("tracks", speed, by, value, frames)).value
                    figures.append((f"track retention {frames}", *where, kept))
            for *figure, share in figures:
                yield name, run.run.seed, *figure, f"{100 * share:.3f}"


def rows_of(lab: Lab) -> Iterable[tuple]:
    """Means, spreads and intervals of every row, as `ROWS_HEAD` says."""
    for name, row in lab.rows.items():
        variant = lab.variants[name]
        for key, title in COLUMNS.items():
            mean, sd, values = row.spread(key)
            found = None if name == "full" else row.against(lab.full, key)
            decides = bool(found) and key == JUDGED[variant.judged_by]
            numbers = [f"{x:.3f}" for x in found[:3]] if found else ["", "", ""]
            verdict = found.verdict(variant.claim) if decides else ""
            spread = (f"{mean:.3f}", f"{sd:.3f}")
            yield name, len(values), title, *spread, *numbers, decides, verdict


def _csv(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
