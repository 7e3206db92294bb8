"""Slides for a talk of 45 minutes and a workshop of 3 hours, as pages of the book: pictures and slide tags of the lessons.

A picture becomes a slide with what it shows; prose, hints and answers are the speaker's notes. The talk is planned here,
the workshop in TUTOR.md, and each slide says until which minute its part lasts. A language with all their lessons has the
slides, too: its cells and headings stand in the order of the English, and words.json has what is written here.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import jinja2
import nbformat
from book import THEME, WORDS, Book, Page, coloured
from language import say

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


@cache
def slides_of(book: Book, page: Page) -> list[Slide]:
    """A slide for each heading, and for each picture below it after the first."""
    slides, env = [], {"page": page, "ids": {}, "seen": set()}
    shows = say("slides", page.language)("**What it shows.**")
    for cell in nbformat.read(page.source, 4).cells[:-1]:
        if cell.cell_type == "markdown":
            heading, text = re.fullmatch(r"(?:#+ (.+)\n*)?((?s:.*))", cell.source).groups()
            if heading and cell.metadata.slideshow.slide_type in ("slide", "subslide"):
                slides.append(Slide(heading, [], []))
            parts = re.sub(r"(?s)<details>.*?</details>", "", text).split("\n\n")
            seen = [part for part in parts if part.strip().startswith((shows, "$$"))]
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


def talk(book: Book, said: str) -> list[Slide]:
    """The pictures of the plan above, without exercises' code."""
    slides, word = [], say("slides", said)
    for (_, number, heading, title), until in zip(TALK, accumulate(minutes for minutes, *_ in TALK)):
        english = next(page for page in book.pages if page.language == "en" and page.slug.startswith(f"{number}_"))
        pairs = zip(slides_of(book, english), slides_of(book, book.page(said, english.slug)), strict=True)
        found = [slide for first, slide in pairs if first.title == heading and "<img" in "".join(slide.shown)]
        if not found:
            raise SystemExit(f"slides.py, TALK: lesson {number} has no picture below the heading {heading!r}")
        for slide in found:
            shown = [part for part in slide.shown if not part.startswith("<pre>")]
            slides.append(Slide(word(title), shown, slide.notes, until))
    return slides


def plan_of(book: Book, said: str) -> str:
    """The tutor's plan of the workshop; a translation has as many headings, in the same order."""
    first, there = (book.page(name, "tutor").source.read_text(encoding="utf-8") for name in ("en", said))
    return there.split("\n### ")[first.partition(f"\n{WORKSHOP}")[0].count("\n### ") + 1]


def workshop(book: Book, said: str) -> list[Slide]:
    """The lessons of the tutor's plan, each after a slide with its minutes and what to do."""
    slides, until, word = [], 0, say("slides", said)
    rows = re.findall(r"^\| (\d+) \|(.*?)\|(.*?)\|(.*?)\|$", plan_of(book, said), re.MULTILINE)
    for minutes, lesson, do, skip in rows:
        until += int(minutes)
        file = re.search(r"\[(.+)\]\((\w+)\.ipynb\)", lesson)
        do, skip = do.strip(), skip.strip()
        text = word("{minutes} minutes: {do}.").format(minutes=minutes, do=do)
        text += word(" Skip {skip}.").format(skip=skip) if skip else ""
        shown = book.markdown.render(text, {"page": book.page(said, "tutor"), "ids": {}, "seen": set()})
        slides.append(Slide(file[1] if file else word("Together"), [shown], [], until))
        if file:
            slides += [slide._replace(until=until) for slide in slides_of(book, book.page(said, file[2]))[1:]]
    return slides


def languages(book: Book) -> list[str]:
    """Those into which the tutor's guide and every lesson of the slides are translated."""
    numbers = {number for _, number, *_ in TALK}
    slugs = {page.slug for page in book.pages if page.slug[:2] in numbers} | {"tutor"}
    slugs |= set(re.findall(r"\((\w+)\.ipynb\)", plan_of(book, "en")))
    return [said for said in book.terms if all(book.page(said, slug) for slug in slugs)]


def write(book: Book) -> dict[str, int]:
    """talk.html, ko/talk.html and so on, beside the pages of the book; how many slides each has."""
    source, decks = THEME / "slides.html", {}
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(source.read_text("utf-8"))
    for said in languages(book):
        for title, plan in (("Video instance segmentation in 45 minutes", talk), ("A workshop of 3 hours", workshop)):
            deck = Page(said, "slides", plan.__name__, source, say("slides", said)(title))
            decks[deck] = [Slide(deck.title, [], []), *plan(book, said)]
    for deck, slides in decks.items():
        text = template.render(
            deck=deck, slides=slides, say=say("slides", deck.language), names=WORDS,
            start=book.page(deck.language, "index") or book.page("en", "index"),
            others=[other for other in decks if other.slug == deck.slug and other != deck],
            to=lambda there, deck=deck: book.to(deck, there),
        )  # fmt: skip
        (book.out / deck.out).parent.mkdir(exist_ok=True)
        (book.out / deck.out).write_text(text, encoding="utf-8")
    return {deck.out: len(slides) for deck, slides in decks.items()}
