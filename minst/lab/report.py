"""The report of a lab: Markdown and pictures, the same bytes from the same metrics.

<lab>/reasons.json {row: sentence} is written by people who have looked at the results; a row
without one says nothing.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from minst.data.files import replacing
from minst.data.formats import read_typed
from minst.lab.measure import FIGURES
from minst.lab.results import Lab
from minst.lab.statistics import MARGIN, Comparison, seeds_needed, signed, spread

__all__ = ["claims_table", "markdown", "seeds_table", "shipped_table", "write_report"]

POINTS = (0.4, 1.0, 2.0)  # the paper's effect of max pooling; what we count as equal; twice that


def write_report(folder: str | Path, out: str | Path | None = None, plots: bool = True) -> Path:
    """Write the report of a lab to `out` (default: <folder>/report); returns its README.md."""
    lab = Lab(folder)
    out = Path(out or lab.folder / "report")
    out.mkdir(parents=True, exist_ok=True)  # before the work, which takes its time
    pictures = {}
    if plots:
        from minst.lab.plots import PLOTS  # matplotlib: only who draws waits for it
        from minst.visualize.style import save

        there = {"differences": lab.judged, "shipped": lab.compared}
        for name in filter(there.get, there):
            picture = PLOTS[name](lab)
            save(picture, out / f"{name}.png", dpi=100)
            pictures[name] = f"![{picture.alt}]({name}.png)"
    with replacing(out / "README.md") as beside:
        beside.write_text(markdown(lab, pictures), encoding="utf-8", newline="\n")
    return out / "README.md"


def markdown(lab: Lab, pictures: Mapping[str, str] | None = None) -> str:
    """One picture and ten sentences, then all tables; pictures: in Markdown, by their names."""
    pictures = pictures or {}
    parts = [f'# The ablation lab: results of the budget "{lab.budget.name}"']
    parts += [pictures.get("differences"), first_page(lab), _head(lab), claims_table(lab)]
    parts += [pictures.get("shipped"), shipped_table(lab), seeds_table(lab), _all_figures(lab)]
    return "\n\n".join(filter(None, parts)) + "\n"


def first_page(lab: Lab, most: int = 10) -> str:
    """At most so many rows in words, decided ones first: effect, interval, the paper, and why."""
    lines, rows = [], sorted(lab.judged.items(), key=lambda row: row[1].decided == "open")
    verdicts = {"open": "which leaves it open", "equal": "which counts as equal"}
    for name, found in rows[:most]:
        variant, way = lab.variants[name], "more" if found.difference >= 0 else "less"
        effect = f"{abs(found.difference):.1f} points of {variant.judged_by} {way}"
        between = f"between {signed(found.low)} and {signed(found.high)}"
        verdict = verdicts.get(found.decided, f"so **{found.decided}**")
        paper = f"In the paper it is {variant.paper}." if variant.paper else "The paper is silent."
        words = f"- {variant.says[0].upper()}{variant.says[1:]}: {effect}, {between}, {verdict}."
        lines.append(f"{words} {paper} {lab.reasons.get(name, '')}".rstrip())
    return "\n".join(lines)


def _head(lab: Lab) -> str:
    """What was run, and by which code."""
    b, runs = lab.budget, [run for row in lab.rows.values() for run in row.values()]
    every = runs + lab.shipped_metrics
    commits, versions = (", ".join(sorted({run[k] for run in every})) for k in ("commit", "torch"))
    missing = f"Started and not finished, so not here: {', '.join(lab.unfinished)}."
    files = [file for file in ("PLAN.md", "LOG.md") if (lab.folder / file).is_file()]
    beside = f"Written by people: {', '.join(f'[{file}](../{file})' for file in files)}."
    sure, file = "", lab.folder / "simulation.json"
    if file.is_file():
        coverage = read_typed(file, dict)["numbers"]["3 seeds"]["alike"]["pooled t"]["coverage"]
        sure = f"Simulated intervals of three seeds hold the truth in {coverage} % of the rows."
    trained = f"""\
A row of architecture learned {b.iterations:,} steps of {2 * b.pairs} images from a backbone that \
can classify, a row of training {b.further:,} steps more, from the weights of `full` of the same \
seed. Each seed has {b.train_clips} clips to learn from, {b.val_clips} for video AP and \
{b.val_frames:,} frames for image AP. {sure}"""
    return f"""## What this is

Written by `minst lab report` from the metrics of {len(runs)} trained runs and {len(lab.shipped)} \
measurements of shipped weights; only the sentences under *why* are typed by hand. \
{missing if lab.unfinished else "Every run that was started is here."} {beside if files else ""}

{trained if runs else "The grid is not trained yet."}

Measured at commit {commits} with torch {versions}."""


def claims_table(lab: Lab) -> str:
    """Each row against its base: effect, interval, the paper's figure, verdict; "" without rows."""
    rows = []
    for name, found in lab.judged.items():
        variant, each = lab.variants[name], ", ".join(map(signed, found.seeds))
        ours = [variant.says, variant.judged_by, _interval(found), each, _decided(found)]
        theirs = [variant.paper or "nothing", found.verdict(variant.claim)]
        rows.append([*ours, *theirs, lab.reasons.get(name, "")])
    titles = ["changed", "judged by", "effect", "each seed", "decided", "the paper says"]
    note = (
        "A row is *worse* or *better* if p < 0.05 among all rows (Holm), *equal* if its interval "
        f"lies within ±{MARGIN:g} point, else *open*. *Its claim* reads the interval alone."
    )
    return _section("What is decided", note, [*titles, "its claim", "why"], rows)


def shipped_table(lab: Lab) -> str:
    """Rules of association, T, frozen X6 and scene cuts: what needs no training; "" without."""
    rows = []
    for of, says, both, found in lab.compared:
        values = (f"{figure[0]:.1f}" for figure in both)
        rows.append([of, says, *values, _interval(found), _decided(found)])
    note = (
        "Video AP, two settings on the same clips. *Cosine* is that x both scores, *mask* dice x "
        "both scores; *-all* is without scores, *-live* of kernels with a score of at least 0.3, "
        "*none* lets each query go on with itself, of the *oracle* the truth says who goes on. "
        "Slow, medium, fast: 0.4, 1 and 2 times the motion of training. *Frozen*: between key "
        "frames X6 is the last key frame's. *Cut*: half of one clip, then half of another."
    )
    titles = ["weights, clips", "what", "AP", "in the place of", "difference", "decided"]
    return _section("What needs no training", note, titles, rows)


def seeds_table(lab: Lab) -> str:
    """What can be seen, and how many seeds it would take; "" without two seeds of anything."""
    rows = []
    bases = dict.fromkeys(variant.base for variant in lab.variants.values())
    for base, figure in ((base, figure) for base in bases for figure in ("image AP", "video AP")):
        family = lab.family(base, figure)
        if not family.freedom:
            continue
        each = [list(values.values()) for values in family.rows.values()]
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
    titles += [f"seeds for {effect:g}" for effect in POINTS]
    return _section("What can be seen?", note, titles, rows)


def _all_figures(lab: Lab) -> str:
    """Every figure of every row, and its difference to the base's."""
    rows = []
    for name, runs in lab.rows.items():
        cells = [f"{lab.variants[name].says} (`{name}`, {len(runs)})"]
        for figure in FIGURES:
            mean, sd = spread([*lab.values(name, figure).values()] or [math.nan])
            value = f"{mean:.1f} ± {sd:.1f}" if sd >= 0 else f"{mean:.1f}"
            found = lab.difference(name, figure)
            cells.append(f"{value}, {_interval(found)}" if found else value)
        rows.append([*cells, f"{next(iter(runs.values()))['macs'] / 1e6:.0f}"])
    note = "Mean ± standard deviation over the seeds, then the difference to the base. "
    note += " ".join(f"*{name}*: {says}." for name, says in FIGURES.items())
    return _section("All figures", note, ["the model (its name, seeds)", *FIGURES, "MMACs"], rows)


def _section(title: str, note: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A heading, how to read its table, and the table; "" without rows."""
    lines = [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]
    return "\n\n".join([f"## {title}", note, "\n".join(lines)]) if len(lines) > 2 else ""


def _decided(found: Comparison) -> str:
    p = f" (p {found.p:.3f})" if found.p >= 0.001 else " (p < 0.001)"
    return f"**{found.decided}**" + p * (found.decided in ("worse", "better"))


def _interval(found: Comparison) -> str:
    ends = "" if math.isnan(found.low) else f" [{signed(found.low)}, {signed(found.high)}]"
    return signed(found.difference) + ends
