"""The report of a lab: Markdown, CSV and plots, the same bytes from the same metrics.

    <lab>/*/metrics.json, shipped/*.json --> <out>/README.md    verdicts, all figures, power
                                             runs.csv           each figure of each run
                                             *.png

<lab>/reasons.json {row: sentence} is written by people who have looked at the results; a row
without one says nothing. <lab>/simulation.json, of tests/benchmarks/lab_simulation.py, says how
often such intervals hold the truth.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from minst.data.files import read_json, replacing
from minst.lab.measure import FIGURES
from minst.lab.results import Lab
from minst.lab.statistics import MARGIN, Comparison, seeds_needed, signed, spread

__all__ = ["claims_table", "markdown", "seeds_table", "shipped_table", "write_report"]

RULES = {
    "none": "each query goes on with itself",
    "cosine-all": "association by cosine without scores",
    "cosine-live": "association by cosine of live kernels alone",
    "mask": "association by masks x scores",
    "mask-all": "association by masks without scores",
    "oracle": "association by the truth",
}
KINDS = {
    "X6 frozen": "X6 kept from the last key frame",
    "told of the cut": "a tracker that is told of a scene cut",
}
POINTS = (0.4, 1.0, 2.0)  # the paper's effect of max pooling; what we count as equal; twice that


def write_report(folder: str | Path, out: str | Path | None = None, plots: bool = True) -> Path:
    """Write the report of the lab in `folder`; returns the path of its README.md.

    out: default <folder>/report.
    """
    lab = Lab(folder)
    out = Path(out or lab.folder / "report")
    out.mkdir(parents=True, exist_ok=True)  # before the work, which takes its time
    pictures = {}
    if plots:
        from minst.lab.plots import PLOTS  # matplotlib: only who draws waits for it
        from minst.visualize.style import save

        there = {"differences": _with_intervals(lab), "shipped": lab.compared}
        for name, plot in PLOTS.items():
            if there[name]:
                picture = plot(lab)
                save(picture, out / f"{name}.png", dpi=100)
                pictures[name] = f"![{picture.alt}]({name}.png)"
    for name, text in {"README.md": markdown(lab, pictures), "runs.csv": _csv(lab)}.items():
        with replacing(out / name) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    return out / "README.md"


# ----------------------------------------------------------------------------------------- Markdown


def markdown(lab: Lab, pictures: Mapping[str, str] | None = None) -> str:
    """A page to begin with, one picture and ten sentences; then all tables, as Markdown.

    pictures: {"differences": a picture in Markdown, "shipped": another}; each may be missing.
    """
    pictures = pictures or {}
    first = pictures.get("differences") or pictures.get("shipped")
    title = f'# The ablation lab: results of the budget "{lab.budget["name"]}"'
    parts = [title, first, first_page(lab), _head(lab), claims_table(lab)]
    parts += [pictures.get("shipped") if lab.judged else None, shipped_table(lab)]
    parts += [seeds_table(lab), _all_figures(lab), _cost(lab)]
    return _paragraphs(*parts) + "\n"


def first_page(lab: Lab, most: int = 10) -> str:
    """At most so many lines: effect, interval, verdict, what the paper says, and why.

    Trained rows come before shipped weights, of which each kind has its turn, and what is decided
    before what is open. A row of one seed has no interval, and so no sentence.
    """
    trained = []
    for variant, found, adjusted in _with_intervals(lab):
        words = _sentence(variant.says, variant.judged_by, found, adjusted)
        paper = f"In the paper it is {variant.paper}." if variant.paper else "The paper is silent."
        why = lab.reasons.get(variant.name, "")
        trained.append((found.decided(adjusted), f"{words} {paper} {why}".rstrip()))
    kinds: dict[str, list] = {}
    for shipped, says, _, found, adjusted in lab.compared:
        words, kind = _in_words(says)
        what = f"{words} ({shipped.name}, {shipped.speed} clips)"
        line = found.decided(adjusted), _sentence(what, "video AP", found, adjusted)
        kinds.setdefault(kind, []).append(line)
    for lines in kinds.values():
        lines.sort(key=lambda line: line[0] == "open")
    in_turn = [line for turn in zip_longest(*kinds.values()) for line in turn if line]
    lines = sorted(trained, key=lambda line: line[0] == "open") + in_turn
    return "\n".join(f"- {words}" for _, words in lines[:most])


def _with_intervals(lab: Lab) -> list[tuple]:
    """Of `lab.judged` the rows of which two seeds, or others of their family, are done."""
    return [judged for judged in lab.judged.values() if not math.isnan(judged[1].low)]


def _in_words(says: str) -> tuple[str, str]:
    """A comparison of shipped weights for who has not read the tables, and its kind."""
    what, _, rest = says.partition(" for ")
    if what in RULES:
        return f"{RULES[what]}, in the place of {rest.replace('cosine', 'cosine x scores')}", what
    if rest:  # T = 6 for 1
        return f"a key frame every {what[4:]} frames, in the place of every frame", "T"
    what, _, t = says.partition(", ")
    return f"{KINDS[what]}, {t}", what


def _sentence(what: str, figure: str, found: Comparison, adjusted: float) -> str:
    """One difference in words."""
    way = "more" if found.difference >= 0 else "less"
    effect = f"{abs(found.difference):.1f} points of {figure} {way}"
    between = f"between {signed(found.low)} and {signed(found.high)}"
    word = found.decided(adjusted)
    verdict = {"open": "which leaves it open", "equal": "which counts as equal"}
    says = verdict.get(word, f"so **{word}**")
    return f"{what[0].upper()}{what[1:]}: {effect}, {between}, {says}."


def _paragraphs(*parts: str | None) -> str:
    return "\n\n".join(filter(None, parts))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a row that is too short ends in empty cells."""
    cells = [titles, ["---"] * len(titles)]
    cells += [[*row, *[""] * (len(titles) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _head(lab: Lab) -> str:
    b, done = lab.budget, sum(len(row.runs) for row in lab.rows.values())
    missing = ", ".join(run.name for run in lab.unfinished)
    whole = f"Started and not finished, so not here: {missing}." if missing else ""
    trained = f"""
A row of architecture learned {b["iterations"]:,} steps of {2 * b["pairs"]} images of 128 x 128 \
from a backbone that can
classify ({b["pretraining"]:,} steps; all rows of a seed share it). A row of training learned \
{b["further"]:,} steps
more, from the weights of `full` of the same seed. {b["train_clips"]} clips to learn from, \
{b["val_clips"]} for video AP, {b["val_frames"]:,} frames for
image AP. Differences are paired by seed and clip; their interval is that of a t with the spread \
of all rows of a family."""
    return f"""## What this is

Written by `minst lab report` from the metrics of {done} trained runs and {len(lab.shipped)} \
measurements of shipped weights. Nothing here is
typed by hand but the sentences under *why*, which are our reading and no measurement.
{whole or "Every run that was started is here."}{_beside(lab)}\
{trained if done else " The grid is not trained yet."}{_coverage(lab)}"""


def _beside(lab: Lab) -> str:
    """What people wrote of this lab, before it ran (PLAN) and afterwards (LOG); "" without."""
    there = [name for name in ("PLAN.md", "LOG.md") if (lab.folder / name).is_file()]
    links = ", ".join(f"[{name}](../{name})" for name in there)
    return f"\nWhat was fixed before it ran, and what was found afterwards: {links}." * bool(there)


def _coverage(lab: Lab) -> str:
    """What the simulation says of the intervals; "" without one."""
    file = lab.folder / "simulation.json"
    if not file.is_file():
        return ""
    found = read_json(file)
    alike, unlike = (found["numbers"]["4 seeds"][k]["pooled t"] for k in ("alike", "unlike"))
    return f"""

How often such 95 % intervals hold the truth was simulated: in {alike["coverage"]:.1f} % of the \
rows of {found["labs"]:,} labs of four seeds, in
{found["AP"]["4 seeds"]["clips of their own"]["coverage"]:.1f} % where AP itself was drawn, in \
{unlike["of the noisiest row"]:.1f} % for a row that is 1.6 times as noisy as the others, and in
{found["jackknife"]["coverage"]:.1f} % for two settings of one model."""


def claims_table(lab: Lab) -> str:
    """Each row against its base: effect, interval, the paper's figure, verdict; "" without rows."""
    rows = []
    for name, (variant, found, adjusted) in lab.judged.items():
        effect, each = _interval(found), ", ".join(map(signed, found.seeds))
        decided, says = _decided(found, adjusted), variant.paper or "nothing"
        cells = [variant.says, variant.judged_by, effect, each, decided, says]
        rows.append([*cells, found.verdict(variant.claim), lab.reasons.get(name, "")])
    titles = ["changed", "judged by", "effect", "each seed", "decided", "the paper says"]
    shown = table([*titles, "its claim", "why"], rows)
    note = "A row is *worse* or *better* if p < 0.05 when all rows are counted (Holm), *equal* if "
    note += f"its interval lies within ±{MARGIN:g} point, else *open*. *Its claim* reads the "
    return _paragraphs("## What is decided", note + "interval alone.", shown) if rows else ""


def shipped_table(lab: Lab) -> str:
    """Rules of association, T, frozen X6 and scene cuts: what needs no training; "" without."""
    rows = []
    for shipped, says, (ours, theirs), found, adjusted in lab.compared:
        values = (f"{shipped.figure(setting).value:.1f}" for setting in (ours, theirs))
        cells = [f"{shipped.name}, {shipped.speed}", says, *values, _interval(found)]
        rows.append([*cells, _decided(found, adjusted)])
    note = (
        "Video AP of the shipped weights, two settings on the same clips. *Cosine* is that x both "
        "scores, *mask* dice x both scores; *-all* is without scores, *-live* of kernels with a "
        "score of at least 0.3, *none* lets each query go on with itself, and of the *oracle* the "
        "truth says who goes on. Slow, medium and fast: 0.4, 1 and 2 times the motion of training. "
        "*Frozen*: between key frames X6 is the last key frame's. *Cut*: half of one clip, then "
        "half of another; who is told of it begins anew."
    )
    titles = ["weights, clips", "what", "AP", "in the place of", "difference", "decided"]
    title, why = "## What needs no training", lab.reasons.get("shipped")
    return _paragraphs(title, note, table(titles, rows), why) if rows else ""


def _decided(found: Comparison, adjusted: float) -> str:
    word = found.decided(adjusted)
    p = f"p {adjusted:.3f}" if adjusted >= 0.001 else "p < 0.001"
    return f"**{word}**" + f" ({p})" * (word in ("worse", "better"))


def _all_figures(lab: Lab) -> str:
    rows, group = [], None
    for name, row in lab.rows.items():
        variant = lab.variants[name]
        if variant.group != group:
            group = variant.group
            rows.append([f"**{group}**"])
        cells = [f"{variant.says} (`{name}`, {len(row.runs)})"]
        for figure in FIGURES:
            found = lab.difference(name, figure) if name != variant.base else None
            cells.append(_spread(row.values(figure)) + (f", {_interval(found)}" if found else ""))
        rows.append([*cells, f"{next(iter(row.runs.values()))['macs'] / 1e6:.0f}"])
    note = "Mean ± standard deviation over the seeds, then the difference to the base. "
    note += " ".join(f"*{name}*: {says}." for name, says in FIGURES.items())
    shown = table(["the model (its name, seeds)", *FIGURES, "MMACs"], rows)
    return _paragraphs("## All figures", note, shown) if rows else ""


def seeds_table(lab: Lab) -> str:
    """What can be seen, and how many seeds it would take; "" without two seeds of anything."""
    rows = []
    for base in dict.fromkeys(variant.base for variant in lab.variants.values()):
        for figure in ("image AP", "video AP"):
            family = lab.family(base, figure)
            each = [list(values.values()) for values in family.rows.values()]
            if not family.freedom or not each:
                continue
            seeds = max(map(len, each))
            seen = f"{family.detectable(seeds):.1f} ({seeds} seeds)"
            needed = (str(seeds_needed(each, effect)) for effect in POINTS)
            cells = [f"{figure}, against `{base}`", f"{family.sd:.2f}", f"{family.freedom:.0f}"]
            rows.append([*cells, seen, *needed])
    note = (
        "The spread of differences between seeds, the true difference that is seen four times out "
        "of five, and the seeds that it would take to see others."
    )
    titles = ["figure", "sd of a seed", "degrees of freedom", "is seen"]
    shown = table([*titles, *(f"seeds for {effect:g}" for effect in POINTS)], rows)
    return _paragraphs("## What can be seen?", note, shown) if rows else ""


def _cost(lab: Lab) -> str:
    trained = [run for row in lab.rows.values() for run in row.runs.values()]
    runs = trained + [shipped.metrics for shipped in lab.shipped]
    commits, versions = (", ".join(sorted({run[k] for run in runs})) for k in ("commit", "torch"))
    minutes = sum(run.get("seconds of measuring", 0.0) for run in runs) / 60
    return (
        f"Measured at commit {commits} with torch {versions}; measuring took {minutes:.0f} minutes "
        "of a core. Every figure of every run: [runs.csv](runs.csv)."
    )


def _spread(values: dict[int, float]) -> str:
    mean, sd = spread(list(values.values()) or [math.nan])
    if math.isnan(mean):
        return "–"
    return f"{mean:.1f}" if math.isnan(sd) else f"{mean:.1f} ± {sd:.1f}"


def _interval(found: Comparison) -> str:
    ends = "" if math.isnan(found.low) else f" [{signed(found.low)}, {signed(found.high)}]"
    return signed(found.difference) + ends


def _csv(lab: Lab) -> str:
    """Every figure of every run."""
    runs = [(row.name, seed, run) for row in lab.rows.values() for seed, run in row.runs.items()]
    runs += [(f"{each.name}, {each.speed}", "", each.metrics) for each in lab.shipped]
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(("variant", "seed", "figure", "points", "commit"))
    for name, seed, run in runs:
        for figure, found in run["figures"].items():
            write((name, seed, figure, f"{100 * found['value']:.3f}", run["commit"]))
    return text.getvalue()
