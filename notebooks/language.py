"""The lessons in another language: `python notebooks/language.py ko 03` (or without a number: everything).

    source/03_mask_decoder.py       the lesson; its code cells, and outputs, serve every language
    source/ko/03_mask_decoder.md    its texts in Korean, cell by cell, each below the mark of the English one
        '-- ko/03_mask_decoder.ipynb

A mark is `<!-- 1a2b3c4d: first words -->`: eight digits of the SHA-256 of the English text. So a text whose English was
changed is found, and code cannot differ. This script writes the marks: it keeps what is translated, in the order of the
English, and puts what is missing there in English below `<!-- todo 1a2b3c4d: … -->`, with the earlier translation of a
text that changed below `<!-- was -->`. Who translates replaces the text and the word `todo `. GLOSSARY, TUTOR, PHONE and
README are translated section by section in the same way. `words.json` has the words that the builder adds, and, by their
English, those of the hand-out and the slides; `TERMS.tsv` has the terms, each decided once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCUMENTS = ["GLOSSARY.md", "TUTOR.md", "PHONE.md", "../README.md"]
LANGUAGES = ["ko"]
MARK = re.compile(r"^<!-- (todo )?([0-9a-f]{8}): .* -->$", re.MULTILINE)
WAS = "<!-- was -->"  # above the earlier translation of a text that changed
# What the builder writes by itself: it differs with every run, and needs no translation.
GENERATED = {
    "<!-- table of lessons -->": re.compile(r"^\| no \| lesson \|.*?(?=\n\n)", re.MULTILINE | re.DOTALL),
    "<!-- mistakes -->\n<!-- end of mistakes -->": re.compile(r"<!-- mistakes -->.*<!-- end of mistakes -->", re.DOTALL),
}


def digest(text: str) -> str:
    """The mark of an English text."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def sections(document: str) -> list[str]:
    """A document, cut before each heading `## ` that stands in no block of code; generated parts are marks."""
    for mark, pattern in GENERATED.items():
        document = pattern.sub(mark, document)
    found, fenced = [[]], False
    for line in document.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            found.append([])
        found[-1].append(line)
    return ["\n".join(lines).strip() for lines in found if any(lines)]


def english(name: str) -> list[str]:
    """The texts of a lesson's cells or of a document's sections. name: `03_mask_decoder.md` or a name in DOCUMENTS."""
    if name in DOCUMENTS:
        return sections((HERE / name).read_text(encoding="utf-8"))
    import jupytext  # reads lessons; who only asks for words needs none

    cells = jupytext.read(HERE / "source" / f"{Path(name).stem}.py", fmt="py:percent").cells
    return [cell.source.strip() for cell in cells if cell.cell_type == "markdown"]


def source(name: str, language: str) -> Path:
    """The file of translated texts."""
    return HERE / "source" / language / Path(name).name


def parts_of(name: str, language: str) -> list[tuple[str | None, str, str]]:
    """("todo " or None, mark, what stands below it) in the order of the file; [] where no file is."""
    path = source(name, language)
    parts = MARK.split(path.read_text(encoding="utf-8")) if path.exists() else [""]
    return [(todo, mark, text.strip()) for todo, mark, text in zip(*[iter(parts[1:])] * 3)]


def translated(name: str, language: str) -> dict[str, str]:
    """{mark of the English text: text}; what is still to do is left out."""
    return {mark: text for todo, mark, text in parts_of(name, language) if not todo}


def missing(name: str, language: str) -> list[str]:
    """The first words of every English text that is not translated, or was changed since."""
    known = translated(name, language)
    return [text.splitlines()[0][:60] for text in english(name) if digest(text) not in known]


def words(language: str) -> dict:
    """What the builder itself says, in a language."""
    return json.loads((HERE / "source" / language / "words.json").read_text(encoding="utf-8"))


def say(part: str, language: str) -> Callable[[str], str]:
    """English text -> what a part of words.json has for it; SystemExit for a text that was changed since."""
    known = words(language).get(part, {}) if language != "en" else None

    def said(text: str) -> str:
        if known is not None and text not in known:
            raise SystemExit(f"source/{language}/words.json, {part!r}: there is no {text!r}; translate it there")
        return text if known is None else known[text]

    return said


def verdicts(language: str) -> dict[str, str]:
    """{English sentence of a check: the translated one}."""
    return json.loads((HERE.parent / "minst" / "course" / f"{language}.json").read_text(encoding="utf-8"))


def terms(language: str) -> dict[str, list[str]]:
    """{English term: its translations, the first one preferred}."""
    lines = (HERE / "source" / language / "TERMS.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {term: said.split("|") for term, said in rows}


def update(name: str, language: str) -> str:
    """Write the marks of a file anew; one line about what is to do."""
    known, texts, parts = translated(name, language), english(name), []
    # Of as many texts as before, the one at the same place was changed; of one to do, what it was is kept.
    before = parts_of(name, language)
    earlier = [text.partition(f"{WAS}\n")[2] if todo else text for todo, _, text in before]
    earlier = earlier if len(earlier) == len(texts) else [""] * len(texts)
    for text, was in zip(texts, earlier):
        mark, first = digest(text), text.splitlines()[0][:60].replace("-->", "")
        if mark in known:
            parts.append(f"<!-- {mark}: {first} -->\n{known[mark]}\n")
        else:
            below = f"\n{WAS}\n{was}\n" if was else ""
            parts.append(f"<!-- todo {mark}: {first} -->\n{text}\n{below}")
    path = source(name, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return f"{path.name}: {len(missing(name, language))} of {len(parts)} to do"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("names", nargs="*", help="beginnings of lessons or documents: 03, GLOSSARY (default: all)")
    said = parser.parse_args()
    lessons = [f"{path.stem}.md" for path in sorted((HERE / "source").glob("*.py"))]
    for name in lessons + DOCUMENTS:
        if not said.names or any(Path(name).name.startswith(start) for start in said.names):
            print(update(name, said.language))


if __name__ == "__main__":
    main()
