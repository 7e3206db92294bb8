"""Slides for a talk of 45 minutes and a workshop of 3 hours, as pages of the book: pictures and slide tags of the lessons.

A picture becomes a slide with what it shows; prose, hints and answers are the speaker's notes. The talk is planned here, the
workshop in TUTOR.md, and each slide says until which minute its part lasts.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import NamedTuple

import jinja2
import nbformat
from book import THEME, Book, Page, coloured

TALK = [  # minutes, lesson, heading of the part whose pictures are shown, title
    (3, "00", "See the problem", "Every creature keeps its colour"),
    (4, "00", "Exercise 1 (recall): which task is it?", "Four tasks, each with one question more"),
    (4, "00", "Exercise 4 (break it): swapped identities", "Every mask is right, and the result is not"),
    (3, "00", "The map", "The map: from a video to identities"),
    (4, "03", "See the problem", "One map for the masks of all"),
    (5, "03", "Exercise 1 (code): all masks in one product", "A mask is a weighted sum of channels"),
    (5, "04", "See the problem", "The same vectors find other creatures"),
    (5, "04", "Exercise 1 (code): cross-attention", "How a query looks: cross-attention"),
    (4, "06", "See the problem", "Without temporal training, queries let go"),
    (3, "07", "Step 1: how far does a kernel reach?", "How far does a kernel reach?"),
    (5, "07", "Exercise 4 (code): a tracker in 20 lines", "A tracker, and a cut in the film"),
]
WORKSHOP = "### Half a day (3 hours)"  # a heading of TUTOR.md
PICTURES = {"image/png", "image/jpeg", "text/html"}


class Slide(NamedTuple):
    title: str
    shown: list[str]  # HTML
    notes: list[str]
    until: int = 0  # the minute at which its part ends


def slides_of(book: Book, page: Page) -> list[Slide]:
    """A slide for each heading, and for each picture below it after the first."""
    slides, env = [], {"page": page, "ids": {}, "seen": set()}
    for cell in nbformat.read(page.source, 4).cells[:-1]:
        if cell.cell_type == "markdown":
            heading, text = re.fullmatch(r"(?:#+ (.+)\n*)?((?s:.*))", cell.source).groups()
            if heading and cell.metadata.slideshow.slide_type in ("slide", "subslide"):
                slides.append(Slide(heading, [], []))
            parts = re.sub(r"(?s)<details>.*?</details>", "", text).split("\n\n")
            seen = [part for part in parts if re.match(r"\*\*What (it|they) shows?|\$\$", part.strip())]
            slides[-1].shown.extend(book.markdown.render(part, env) for part in seen)
            slides[-1].notes.append(book.markdown.render(text, env))
        elif "exercise" in cell.metadata.get("tags", []):
            slides[-1].shown.append(coloured(cell.source, "python"))
        for output in cell.get("outputs", []):
            if PICTURES & set(output.get("data", {})):
                if any("<img" in part for part in slides[-1].shown):
                    slides.append(Slide(slides[-1].title, [], []))
                slides[-1].shown.append(book.output(output, env))
    return [slide if slide.shown else slide._replace(shown=slide.notes, notes=[]) for slide in slides]


def talk(book: Book) -> list[Slide]:
    """The pictures of the plan above, without exercises' code."""
    slides = []
    for (_, number, heading, title), until in zip(TALK, accumulate(minutes for minutes, *_ in TALK)):
        page = next(page for page in book.pages if page.language == "en" and page.slug.startswith(f"{number}_"))
        found = [slide for slide in slides_of(book, page) if slide.title == heading and "<img" in "".join(slide.shown)]
        if not found:
            raise SystemExit(f"slides.py, TALK: lesson {number} has no picture below the heading {heading!r}")
        for slide in found:
            shown = [part for part in slide.shown if not part.startswith("<pre>")]
            slides.append(Slide(title, shown, slide.notes, until))
    return slides


def workshop(book: Book) -> list[Slide]:
    """The lessons of the tutor's plan, each after a slide with its minutes and what to do."""
    slides, until = [], 0
    plan = book.page("en", "tutor").source.read_text(encoding="utf-8").partition(WORKSHOP)[2].partition("\n###")[0]
    for minutes, lesson, do, skip in re.findall(r"^\| (\d+) \|(.*?)\|(.*?)\|(.*?)\|$", plan, re.MULTILINE):
        until += int(minutes)
        file = re.search(r"\[(.+)\]\((\w+)\.ipynb\)", lesson)
        do, skip = do.strip(), skip.strip()
        said = f"{minutes} minutes: {do}." + (f" Skip {skip}." if skip else "")
        shown = book.markdown.render(said, {"page": book.page("en", "tutor"), "ids": {}, "seen": set()})
        slides.append(Slide(file[1] if file else "Together", [shown], [], until))
        if file:
            slides += [slide._replace(until=until) for slide in slides_of(book, book.page("en", file[2]))[1:]]
    return slides


def write(book: Book) -> dict[str, int]:
    """talk.html and workshop.html beside the pages of the book; how many slides each has."""
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string((THEME / "slides.html").read_text("utf-8"))
    decks = {"talk": ("Video instance segmentation in 45 minutes", talk), "workshop": ("A workshop of 3 hours", workshop)}
    counts = {}
    for name, (title, plan) in decks.items():
        slides = [Slide(title, [], []), *plan(book)]
        (book.out / f"{name}.html").write_text(template.render(title=title, slides=slides), encoding="utf-8")
        counts[name] = len(slides)
    return counts
