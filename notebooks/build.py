"""Notebooks and solutions from one source: `python notebooks/build.py 01` (or without a number: all).

    source/01_task_and_data.py   cells marked by # %% (jupytext's percent form), exercises with their solutions
        |-- 01_task_and_data.ipynb             stubs for the exercises, navigation, slide tags; executed
        |-- solutions/01_task_and_data.py      the set-up and every exercise solved, with its check
        '-- ko/01_task_and_data.ipynb          where all its texts are translated (language.py): the same code and outputs

Cells may carry tags: `setup` (also part of the solutions), `exercise` (a function; what follows its line "# solution" is
replaced by a `raise NotImplementedError`), `tutor` (speaker notes). The first cell has the title and the question;
navigation, measured time and the install cell are added here. Executing also measures, for timings.json, the lessons'
headers and README's table.

    --no-execute    keep the outputs of cells whose text has not changed
    --check         write nothing, fail when a notebook or solution is not what its source gives

`python notebooks/build.py book` (or slides) writes the lessons as web pages to build/book, and slides (book.py, slides.py).
"""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import os
import re
import sys
import time
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jupytext
import language
import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
TIMINGS = HERE / "timings.json"
README, TUTOR = HERE.parent / "README.md", HERE / "TUTOR.md"
STUB = 'raise NotImplementedError("your turn: replace this line")'
WIDGET = "application/vnd.jupyter.widget-view+json"
MAX_PNG = 25_000  # bytes; larger pictures are reduced to 256 colours
LARGE_PNG = 75_000  # bytes; pictures that are larger even then, to 64


class Lesson(NamedTuple):
    slug: str
    title: str
    minutes: int  # to work through, planned
    heart: str
    needs: str
    written: bool = True
    extras: str = "notebooks"  # of minst, that its install cell asks for


LESSONS = [
    Lesson("00_start_here", "Start here", 35, "the environment, a film, what the task is, the map", "nothing"),
    Lesson("01_task_and_data", "Task and data", 75, "clips, masks, run-length codes and the metric by hand", "00"),
    Lesson("02_backbone", "Backbone", 70, "token pyramid, attention at 1/64, injection; shapes and MACs by hand", "PyTorch"),
    Lesson("03_mask_decoder", "Mask decoder", 70, "one mask feature for everything; the enhancer on and off", "02"),
    Lesson("04_dual_decoder", "Dual decoder", 75, "queries become kernels; global, then local", "03"),
    Lesson("05_losses", "Losses", 55, "matching by hand; why duplicates vanish without NMS", "04"),
    Lesson("06_temporal_training", "Temporal training", 60, "query passing; two tiny models trained live", "05"),
    Lesson("07_kernel_reuse_and_association", "Kernel reuse and association", 70,
           "a tracker in 20 lines; Fig 2 in full; what T costs", "04"),
    Lesson("08_on_device_latency", "On-device latency", 70, "export, the mobile benchmarker, a phone", "07",
           extras="notebooks,mobile,lite"),
    Lesson("09_ablation_lab", "Ablation lab", 75, "the paper's claims, shown again at our scale", "05"),
    Lesson("10_capstone", "Capstone", 80, "your own clips and categories", "all"),
    Lesson("11_what_came_after", "What came after, and what stayed", 70,
           "the models around it; a foreign one in our tracker", "07; extra `models`", extras="notebooks,models"),
]  # fmt: skip


# What is said around a lesson; other languages have theirs in source/<language>/words.json.
ENGLISH = {
    "all lessons": "[all lessons](../README.md#the-lessons)",
    "glossary": "glossary",
    "previous": "previous",
    "next": "next",
    "time": "**Time**: {minutes} minutes with the exercises; *Run All* takes {seconds:.0f} s and {gigabytes:.1f} GB "
    "(measured, two CPU cores).",
    "table": ["no", "lesson", "heart of it", "time", "*Run All*", "needs"],
    "minutes": "{} min",
    "run": "{:.0f} s, {:.1f} GB",
    "lessons": {lesson.slug: [lesson.title.lower(), lesson.heart, lesson.needs] for lesson in LESSONS},
}


def words(said: str) -> dict:
    """What the builder adds, in a language; "" is English."""
    return language.words(said) if said else ENGLISH


def navigation(number: int, said: str = "") -> str:
    """previous / contents / next, as links."""
    word = words(said)
    parts = [word["all lessons"], f"[{word['glossary']}](GLOSSARY.md)"]
    for at, name, where in ((number - 1, "previous", 0), (number + 1, "next", 99)):
        if 0 <= at < len(LESSONS):
            slug = LESSONS[at].slug
            link = f"[{slug[:2]} {word['lessons'][slug][0]}]({slug}.ipynb)"
            parts.insert(min(where, len(parts)), f"{word[name]}: {link}")
    return " · ".join(parts)


def time_line(number: int, said: str = "") -> str:
    """How long: planned for a person, measured for the machine."""
    lesson, measured = LESSONS[number], timings().get(LESSONS[number].slug)
    if not measured:
        return f"**Time**: {lesson.minutes} minutes with the exercises; not measured yet."
    seconds, gigabytes = measured["seconds"], measured["peak_mb"] / 1000
    return words(said)["time"].format(minutes=lesson.minutes, seconds=seconds, gigabytes=gigabytes)


def timings() -> dict:
    """{slug: {seconds, peak_mb}} of the last executions."""
    return json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.exists() else {}


def address() -> str | None:
    """The public address of the repository, where pyproject.toml has one."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def install_cell(extras: str, said: str = "") -> str:
    """The guarded installation: does nothing where minst is there. Checks answer in the lesson's language."""
    public = address()
    source = f'"mobileinst[{extras}] @ git+{public}"' if public else f'"..[{extras}]"'
    where = "from its repository" if public else "from the folder above this one, a copy of the repository"
    answers = f'import os\n\nos.environ["MINST_LANGUAGE"] = "{said}"  # of the verdicts\n\n' if said else ""
    return (
        f"{answers}# Only where minst is missing (a fresh Colab, say): install it {where}.\n"
        "import importlib.util\n\n"
        'if importlib.util.find_spec("minst") is None:\n'
        f"    %pip install --quiet {source}"
    )


def stub(source: str) -> str:
    """An exercise without its solution: all above the line "# solution", then the raise."""
    head, mark, _ = source.partition("    # solution\n")
    if not mark:
        raise ValueError(f"an exercise without the line '    # solution':\n{source}")
    return f"{head}    {STUB}"


def read_source(number: int) -> nbformat.NotebookNode:
    """The cells of a source, as they stand."""
    path = HERE / "source" / f"{LESSONS[number].slug}.py"
    return jupytext.read(path, fmt="py:percent")


def notebook(number: int, said: str = "") -> nbformat.NotebookNode:
    """The notebook of a lesson, not executed. said: a language into which all its texts are translated."""
    source = read_source(number)
    known = language.translated(f"{LESSONS[number].slug}.md", said) if said else {}
    for cell in source.cells if said else []:
        if cell.cell_type == "markdown":
            cell.source = at_home(known[language.digest(cell.source)], said)
    way = at_home(navigation(number, said), said) if said else navigation(number)
    around = f"{way}\n\n{time_line(number, said)}"
    cells = [nbformat.v4.new_markdown_cell(f"{source.cells[0].source}\n\n{around}")]
    installed = False
    for before, cell in zip(source.cells, source.cells[1:]):
        if cell.cell_type == "code" and not installed:
            install = install_cell(LESSONS[number].extras, said)
            cells.append(nbformat.v4.new_code_cell(install, metadata={"tags": ["install"]}))
            installed = True
        tags = cell.metadata.get("tags", [])
        if "exercise" in before.metadata.get("tags", []):  # its verdict: nbval compares what it says
            tags = [*tags, "nbval-check-output"]
        metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cells.append(
                nbformat.v4.new_code_cell(stub(cell.source) if "exercise" in tags else cell.source, metadata=metadata)
            )
        else:  # a heading opens a slide, and a slide is a cell
            parts = re.split(r"\n+(?=##+ )", cell.source)
            cells += [nbformat.v4.new_markdown_cell(part, metadata=dict(metadata)) for part in parts]
    cells.append(nbformat.v4.new_markdown_cell(f"---\n{way}"))
    for i, cell in enumerate(cells):
        cell["id"] = f"lesson{number:02d}-{i:02d}"
        cell.metadata["slideshow"] = {"slide_type": slide_type(cell, first=i == 0, last=i == len(cells) - 1)}
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    info = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": info})


@cache
def translated_files(said: str) -> set[str]:
    """What stands in the folder of a language; read once, since every text asks for it."""
    lessons = {f"{lesson.slug}.ipynb" for number, lesson in enumerate(LESSONS) if is_translated(number, said)}
    written = {path.name for path in (HERE / said).glob("*.pdf")}  # handout.py writes it
    return lessons | written | {name for name in language.DOCUMENTS if not language.missing(name, said)}


def at_home(text: str, said: str) -> str:
    """A text whose links start in the folder of its language: what is not translated is one folder up."""
    here = translated_files(said)

    def link(match: re.Match) -> str:
        target, _, place = match[1].partition("#")
        if target == "../README.md" and target in here:  # its headings are others, too
            return f"](../../README.{said}.md)"
        away = target and ":" not in target and target not in here
        return f"](../{match[1]})" if away else match[0]

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def slide_type(cell, first: bool, last: bool) -> str:
    """A heading opens a slide, a smaller one and an exercise a slide below it, the tutor's note is for the speaker."""
    tags = cell.metadata.get("tags", [])
    if last or "install" in tags:
        return "skip"
    if "tutor" in tags:
        return "notes"
    if first or (cell.cell_type == "markdown" and cell.source.startswith("## ")):
        return "slide"
    smaller = cell.cell_type == "markdown" and cell.source.startswith("### ")
    return "subslide" if smaller or "exercise" in tags else "-"


def solutions(number: int) -> str:
    """The set-up and every exercise solved, with its check: a script, and a notebook for editors that read # %%."""
    slug, title = LESSONS[number].slug, LESSONS[number].title
    parts = [
        f'"""Reference solutions of lesson {slug[:2]}, {title.lower()}. Made by notebooks/build.py: do not edit."""'
    ]
    cells = read_source(number).cells
    for i, cell in enumerate(cells):
        tags = cell.metadata.get("tags", [])
        if "setup" in tags:
            parts.append(cell.source)
        if "exercise" in tags:
            parts.append(cell.source.replace("    # solution\n", ""))
            parts.append(f"print({cells[i + 1].source.strip()})")
    return "\n\n# %%\n".join(parts) + "\n"


def execute(book: nbformat.NotebookNode) -> dict:
    """Run All in a fresh kernel in notebooks/; the seconds that took, start included, and the kernel's peak memory."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        book, timeout=300, kernel_name="python3", coalesce_streams=True, resources={"metadata": {"path": str(HERE)}}
    )
    start = time.perf_counter()
    with client.setup_kernel():
        for i, cell in enumerate(book.cells):
            client.execute_cell(cell, i)
        seconds = time.perf_counter() - start
        probe = nbformat.v4.new_code_cell("import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
        book.cells.append(probe)  # the client runs cells of its notebook only
        client.execute_cell(probe, len(book.cells) - 1, store_history=False)
        book.cells.pop()
    return {"seconds": round(seconds, 1), "peak_mb": round(int(probe.outputs[0].text) / 1024)}


def clean(book: nbformat.NotebookNode) -> None:
    """Outputs as they are committed: no widget without its kernel, no times of execution, small pictures."""
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data:
                still = "Interactive: run this cell to move its controls. The picture beside it stands still."
                output["data"] = {"text/plain": still}
            if "image/png" in data:
                compress(data, output.metadata)
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"{cell.id} writes to stderr: {output.text[:300]}")


def is_progress_bar(output) -> bool:
    """A tqdm bar: a widget whose text is a bar."""
    data = output.get("data", {})
    return WIDGET in data and "%|" in "".join(data.get("text/plain", ""))


def compress(data: dict, metadata: dict) -> None:
    """A large picture with 256 colours or, where that is much smaller (photographs), as JPEG."""
    raw = base64.b64decode(data["image/png"])
    if len(raw) < MAX_PNG:
        return
    image, png, jpeg = Image.open(io.BytesIO(raw)).convert("RGB"), io.BytesIO(), io.BytesIO()
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(png, "PNG", optimize=True)
    if len(png.getvalue()) > LARGE_PNG:  # dithering costs most where there is most
        png = io.BytesIO()
        image.quantize(64, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=82, subsampling=0, optimize=True)
    if len(jpeg.getvalue()) < 0.75 * min(len(png.getvalue()), len(raw)):
        data["image/jpeg"] = base64.b64encode(jpeg.getvalue()).decode() + "\n"
        data.pop("image/png")
        metadata["image/jpeg"] = metadata.pop("image/png", {})
    else:
        data["image/png"] = base64.b64encode(min(raw, png.getvalue(), key=len)).decode() + "\n"


def keep_outputs(book: nbformat.NotebookNode, path: Path) -> None:
    """Outputs of an earlier execution, for cells whose text is the same."""
    old = (
        {cell.source: cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"}
        if path.exists()
        else {}
    )
    for cell in book.cells:
        if cell.cell_type == "code" and cell.source in old:
            cell.outputs, cell.execution_count = old[cell.source].outputs, old[cell.source].execution_count


def translate_verdicts(book: nbformat.NotebookNode, said: str) -> None:
    """Of exercises not attempted: the English notebook's outputs, as a check says the same in a language."""
    known = language.verdicts(said)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            verdict = re.fullmatch(r"○ (\w+): not attempted\. (.+)", output.get("data", {}).get("text/plain", ""))
            if verdict:
                form = known["○ {exercise}: not attempted. {reason}"]
                output["data"]["text/plain"] = form.format(exercise=verdict[1], reason=known[verdict[2]])


def lesson_table(said: str = "") -> str:
    """README's table: all lessons, planned time, measured seconds and memory."""
    word = words(said)
    rows = [f"| {' | '.join(word['table'])} |", "|---|---|---|---|---|---|"]
    for lesson in LESSONS:
        measured = timings().get(lesson.slug)
        title, heart, needs = word["lessons"][lesson.slug]
        link = f"[{title}](notebooks/{lesson.slug}.ipynb)"
        run = word["run"].format(measured["seconds"], measured["peak_mb"] / 1000) if measured else ""
        cells = [lesson.slug[:2], link, heart, word["minutes"].format(lesson.minutes), run, needs]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def readme_with_table() -> str:
    """README.md with its table of lessons as it should be."""
    text = README.read_text(encoding="utf-8")
    start, end = text.index("| no | lesson |"), text.index("\n\n", text.index("| no | lesson |"))
    return text[:start] + lesson_table() + text[end:]


def mistakes(said: str = "") -> str:
    """What the checks know of wrong answers: the hints, by lesson and exercise, in a language; "" is English."""
    lines, titles, known = [], words(said)["lessons"], language.verdicts(said) if said else {}
    for number, lesson in enumerate(LESSONS):
        path = HERE.parent / "minst" / "course" / f"lesson{number:02d}.py"
        if not path.exists():
            continue
        lines += [f"### {number:02d} {titles[lesson.slug][0]}", ""]
        checks = [
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        ]
        for check in checks:
            hints = [known.get(text) or text[:1].upper() + text[1:] for text in hints_of(check)]
            lines += [f"- `{check.name}`", *(f"  - {hint}" for hint in hints)] if hints else []
        lines.append("")
    return "\n".join(lines)


def hints_of(check: ast.FunctionDef) -> list[str]:
    """The texts in a list `mistakes`, and what a function `fault` says or calls a `hint`, but for forms to fill in."""
    said = []
    for node in ast.walk(check):
        assigns = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if assigns and node.targets[0].id == "mistakes":
            said += node.value.elts
        if isinstance(node, ast.FunctionDef) and node.name == "fault":
            for part in ast.walk(node):
                hint = isinstance(part, ast.Assign) and getattr(part.targets[0], "id", "") == "hint"
                says = isinstance(part, ast.Call) and getattr(part.func, "id", "") == "say"
                said += [part.value] if hint else part.args if says else []
    texts = [part for part in said if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [text.value for text in sorted(texts, key=lambda text: text.lineno) if text.value and "{" not in text.value]


def tutor_with_mistakes() -> str:
    """TUTOR.md with its list of mistakes as it should be."""
    head, rest = TUTOR.read_text(encoding="utf-8").split("<!-- mistakes -->")
    return f"{head}<!-- mistakes -->\n{mistakes()}<!-- end of mistakes -->{rest.split('<!-- end of mistakes -->')[1]}"


def documents(said: str) -> dict[Path, str]:
    """{path: text} of the documents that are translated: README beside the English one, the others in their folder."""
    made = {"<!-- table of lessons -->": lesson_table(said)}
    made["<!-- mistakes -->\n<!-- end of mistakes -->"] = f"<!-- mistakes -->\n{mistakes(said)}<!-- end of mistakes -->"
    found = {}
    for name in language.DOCUMENTS:
        known = language.translated(name, said)
        if not known or language.missing(name, said):
            continue
        text = "\n\n".join(known[language.digest(part)] for part in language.english(name)) + "\n"
        for mark, generated in made.items():
            text = text.replace(mark, generated)
        if name == "../README.md":
            path = README.with_name(f"README.{said}.md")
            here = "|".join(map(re.escape, translated_files(said)))
            found[path] = re.sub(rf"\]\(notebooks/(?={here})", f"](notebooks/{said}/", text)
        else:
            found[HERE / said / name] = at_home(text, said)
    return found


def translations() -> dict[Path, str]:
    """The translated documents of all languages."""
    return {path: text for said in language.LANGUAGES for path, text in documents(said).items()}


def is_translated(number: int, said: str) -> bool:
    """Is there a text in the language for every one of the lesson?"""
    return not language.missing(f"{LESSONS[number].slug}.md", said)


def translation(number: int, said: str) -> str:
    """A lesson in another language: its texts, and the code, outputs and execution counts of the English notebook."""
    book, original = notebook(number, said), nbformat.read(HERE / f"{LESSONS[number].slug}.ipynb", 4)
    # By their order: the cell that installs says the language as well, and all others are the same.
    pairs = zip(book.cells, original.cells, strict=True)
    for cell, other in (pair for pair in pairs if pair[0].cell_type == "code"):
        cell.outputs, cell.execution_count = other.outputs, other.execution_count
    translate_verdicts(book, said)
    return nbformat.writes(book) + "\n"


def write(path: Path, text: str) -> None:
    """Replace a file at once: another run of this script may be reading it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def stale(number: int) -> list[str]:
    """What on disk is not what the source gives."""
    slug = LESSONS[number].slug
    path, solved = HERE / f"{slug}.ipynb", HERE / "solutions" / f"{slug}.py"
    old = [(c.cell_type, c.source) for c in nbformat.read(path, 4).cells] if path.exists() else []
    found = [] if old == [(c.cell_type, c.source) for c in notebook(number).cells] else [path.name]
    if not (solved.exists() and solved.read_text(encoding="utf-8") == solutions(number)):
        found.append(f"solutions/{solved.name}")
    for said in language.LANGUAGES:
        other = HERE / said / path.name
        if is_translated(number, said):
            if not other.exists() or other.read_text(encoding="utf-8") != translation(number, said):
                found.append(f"{said}/{path.name}")
        elif other.exists():
            found.append(f"{said}/{path.name}, whose texts are not all translated")
    return found


def build(number: int, run: bool = True) -> str:
    """Write one lesson and its solutions; one line about it."""
    slug = LESSONS[number].slug
    path = HERE / f"{slug}.ipynb"
    book = notebook(number)
    measured = timings().get(slug, {})
    if run:
        measured = execute(book)
        write(TIMINGS, json.dumps(timings() | {slug: measured}, indent=1, sort_keys=True) + "\n")
        book.cells[0].source = notebook(number).cells[0].source  # with the time just measured
        clean(book)
    else:  # what was cleaned once stays as it is: a picture would lose colours each time
        keep_outputs(book, path)
    nbformat.validate(book)
    write(path, nbformat.writes(book) + "\n")
    (HERE / "solutions").mkdir(exist_ok=True)
    write(HERE / "solutions" / f"{slug}.py", solutions(number))
    for said in language.LANGUAGES:
        if is_translated(number, said):
            (HERE / said).mkdir(exist_ok=True)
            write(HERE / said / path.name, translation(number, said))
    words = sum(len(c.source.split()) for c in book.cells if c.cell_type == "markdown")
    return f"{slug}: {len(book.cells)} cells, {words} words, {path.stat().st_size // 1000} kB, {measured}"


def web_book(arguments: list[str]) -> int:
    """`build.py book`: needs the extra `book`, which the lessons do not."""
    import book
    import slides

    parser = argparse.ArgumentParser(prog="build.py book", description=book.__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "book", help="folder of the pages")
    for name in ("explorer", "demo"):
        parser.add_argument(f"--{name}", type=Path, help="a folder of static pages to take in and link to")
    options = parser.parse_args(arguments)
    print(book.build(options.out, address(), slides.write, explorer=options.explorer, demo=options.demo))
    return 0


def main() -> int:
    if sys.argv[1:2] in (["book"], ["slides"]):
        return web_book(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, help="lessons (default: all that are written)")
    parser.add_argument("--no-execute", action="store_true", help="keep outputs of unchanged cells")
    parser.add_argument("--check", action="store_true", help="fail when something is not what its source gives")
    options = parser.parse_args()
    numbers = options.numbers or [i for i, lesson in enumerate(LESSONS) if lesson.written]
    if options.check:
        found = [name for number in numbers for name in stale(number)]
        texts = {README: readme_with_table(), TUTOR: tutor_with_mistakes()} | translations()
        current = {path: path.exists() and path.read_text(encoding="utf-8") == text for path, text in texts.items()}
        found += [str(path.relative_to(HERE.parent)) for path, same in current.items() if not same]
        print(
            "\n".join(f"{name}: not what its source gives; run notebooks/build.py" for name in found) or "all current"
        )
        return 1 if found else 0
    for number in numbers:
        print(build(number, run=not options.no_execute), flush=True)
    write(README, readme_with_table())
    write(TUTOR, tutor_with_mistakes())
    for path, text in translations().items():
        write(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
