"""How the lessons read, in numbers: `python tests/benchmarks/language.py [--before REV]`.

A row per lesson: words, the median length of a sentence, colons and semicolons per 1,000 words, exercises, the share of
exercises whose answer stands in a cell above them (as the lint of tests/test_notebooks.py finds it), minutes as planned.
With --before the same of an earlier commit stands to the left of each number.
"""

import argparse
import ast
import importlib.util
import re
import statistics
import subprocess
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lint", ROOT / "tests" / "test_notebooks.py")
lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)

COLUMNS = ("words", "median sentence", ": and ; per 1,000", "exercises", "answer above", "minutes")


def read(path: str, revision: str | None) -> str:
    """A file of this working tree, or as it was at a revision."""
    if revision is None:
        return (ROOT / path).read_text(encoding="utf-8")
    shown = subprocess.run(["git", "show", f"{revision}:{path}"], cwd=ROOT, check=True, capture_output=True)
    return shown.stdout.decode("utf-8")


def sentences(text: str) -> list[str]:
    """Sentences of Markdown prose; code blocks, tables, formulas and HTML are no prose."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]+>", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.lstrip("> ").startswith("|")]
    blocks = re.split(r"\n\s*\n|\n(?=[\s>]*(?:[-#]|\d\. ))", "\n".join(lines))
    pieces = [piece for block in blocks for piece in re.split(r"(?<=[.!?])[*)\"]*\s+(?=[\W\d]*[A-Z])", block)]
    return [piece for piece in pieces if len(re.findall(r"\w+", piece)) > 1]


def measure(slug: str, revision: str | None) -> list[float]:
    """The numbers of COLUMNS."""
    book = nbformat.reads(read(f"notebooks/{slug}.ipynb", revision), 4)
    prose = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    said = [sentence for text in prose for sentence in sentences(text)]
    words, marks = sum(len(text.split()) for text in prose), len(re.findall(r"[:;](?=\s|$)", "\n".join(said)))
    cells = jupytext.reads(read(f"notebooks/source/{slug}.py", revision), fmt="py:percent").cells
    exercises, above = 0, 0
    for i, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            (function,) = [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
            earlier = [other.source for other in cells[:i] if other.cell_type == "code"]
            exercises += 1
            above += any(lint.stands_in(lint.answer_of(function), source) for source in earlier)
    minutes = int(re.search(r"\*\*Time\*\*: (\d+) minutes", prose[0])[1])
    length = statistics.median(len(sentence.split()) for sentence in said)
    per_thousand = 1000 * marks / sum(len(sentence.split()) for sentence in said)
    return [words, length, round(per_thousand), exercises, round(100 * above / exercises), minutes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REV", help="an earlier commit to compare with")
    options = parser.parse_args()
    print("| lesson |", " | ".join(COLUMNS), "|\n|---|" + "---|" * len(COLUMNS))
    for lesson in lint.build.LESSONS:
        tables = [measure(lesson.slug, rev) for rev in [options.before, None][options.before is None :]]
        cells = (" → ".join(f"{value:g}" for value in values) for values in zip(*tables))
        print(f"| {lesson.slug[:2]} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
