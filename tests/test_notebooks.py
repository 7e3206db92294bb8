"""The lessons as texts: built from their source, whole, in order, small, linked, described. nbval runs them."""

import ast
import difflib
import dis
import importlib
import importlib.util
import json
import re
import sys
import statistics
import types
from pathlib import Path

import nbformat
import pytest
import torch

import minst

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

WRITTEN = [number for number, lesson in enumerate(build.LESSONS) if lesson.written]
SECTIONS = ["## You will be able to", "## Predict", "## Exercises", "## Paper against ours", "## Summary"]
KINDS = {"recall", "code", "break it", "extend"}


def path_of(number: int) -> Path:
    return NOTEBOOKS / f"{build.LESSONS[number].slug}.ipynb"


@pytest.fixture(params=WRITTEN, ids=lambda number: f"{number:02d}")
def number(request):
    return request.param


@pytest.fixture
def book(number):
    return nbformat.read(path_of(number), 4)


def prose(book) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "markdown"]


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def is_picture(output) -> bool:
    return bool({"image/png", "image/jpeg"} & set(output.get("data", {})))


def test_notebook_and_solutions_are_what_the_source_gives(number):
    assert build.stale(number) == []


def test_readme_has_the_measured_table_and_the_tutor_the_mistakes():
    assert build.README.read_text(encoding="utf-8") == build.readme_with_table()
    assert build.TUTOR.read_text(encoding="utf-8") == build.tutor_with_mistakes()
    assert all(f"### {number:02d} " in build.mistakes() for number in WRITTEN)


def test_executed_once_in_order_without_errors(number, book):
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_sections_in_the_order_of_the_template(number, book):
    text = "\n".join(prose(book))
    in_place = [section for section in SECTIONS if section != "## Exercises"]
    wanted = SECTIONS if "\n## Exercises" in text else in_place
    places = [text.find(f"\n{section}") for section in wanted]
    assert -1 not in places and places == sorted(places), dict(zip(wanted, places))
    if wanted == in_place:  # then each exercise stands under the heading of its own idea, before the summing up
        parts = re.split(r"\n## ", text[: places[-2]])
        assert sum("### Exercise" in part for part in parts) == text.count("### Exercise") >= 3
    assert "\n## The map" in text or "\n## Map" in text
    first = book.cells[0].source
    assert re.match(rf"# {number:02d} · \S", first) and re.search(r"^\*\*.+\?\*\*$", first, re.MULTILINE | re.DOTALL)
    assert any("tutor" in cell.metadata.get("tags", []) for cell in book.cells)
    assert "plot_pipeline(" in "\n".join(cell.source for cell in code(book))


def test_budgets(number, book):
    words = sum(len(text.split()) for text in prose(book))
    lengths = [len(cell.source.splitlines()) for cell in code(book)]
    cells = len(build.read_source(number).cells)  # the notebook has some more: one a heading, for the slides
    assert 30 <= cells <= 50 and words <= 2500, (cells, words)
    assert statistics.median(lengths) <= 8 and max(lengths) <= 30, (statistics.median(lengths), max(lengths))
    assert max(len(line) for cell in code(book) for line in cell.source.splitlines()) <= 120
    assert path_of(number).stat().st_size <= 500_000


def test_measured_time_and_memory_are_within_the_promise(number, book):
    measured = build.timings()[build.LESSONS[number].slug]
    assert measured["seconds"] <= 120 and measured["peak_mb"] <= 2000, measured
    assert build.time_line(number) in book.cells[0].source


def test_metadata_is_clean(number, book):
    assert set(book.metadata) == {"kernelspec", "language_info"} and set(book.metadata.language_info) <= {
        "name", "file_extension", "mimetype"}  # fmt: skip
    for cell in book.cells:
        assert set(cell.metadata) <= {"tags", "slideshow"}, cell.id
        assert cell.metadata.slideshow.slide_type in {"slide", "subslide", "-", "notes", "skip"}
    assert "widget-view" not in path_of(number).read_text(encoding="utf-8")


def test_no_machine_and_no_network(number, book):
    text = "\n".join(
        [*(cell.source for cell in book.cells)]
        + [
            o.get("text", "") + str(o.get("data", {}).get("text/plain", ""))
            for cell in code(book)
            for o in cell.outputs
        ]
    )
    assert not re.search(r"(?:^|[\s\"'(=])(?:/(?:home|root|work|tmp|usr|opt|var)/|[A-Z]:\\)", text, re.MULTILINE)
    for cell in code(book):
        if "install" not in cell.metadata.get("tags", []):
            assert not re.search(r"^\s*[!%]|urllib|requests|http", cell.source, re.MULTILINE), cell.source


def test_every_picture_has_alt_text_and_is_described(number, book):
    cells = book.cells
    for i, cell in enumerate(cells):
        pictures = [output for output in cell.get("outputs", []) if is_picture(output)]
        for output in pictures:
            data, metadata = output["data"], output.metadata
            kind = "image/png" if "image/png" in data else "image/jpeg"
            film = "text/html" in data  # a film carries its description itself
            assert film or len(metadata.get(kind, {}).get("alt", "")) > 15, (i, metadata)
        if pictures:
            following = next(c.source for c in cells[i + 1 :] if c.cell_type == "markdown")
            assert re.search(r"\*\*What (it|they) shows?\.?\*\*", following), (i, following[:200])


def test_a_still_picture_stands_beside_every_widget(number, book):
    for i, cell in enumerate(book.cells):
        if cell.cell_type == "code" and re.search(r"visualize\.(interact|explore)\(", cell.source):
            near = book.cells[max(0, i - 2) : i + 3]
            assert any(is_picture(o) for c in near if c.cell_type == "code" for o in c.outputs), cell.source


def test_exercises_have_stub_check_and_hint(number, book):
    cells, kinds = book.cells, []
    places = [i for i, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", [])]
    assert 3 <= len(places) <= 5
    checks = importlib.import_module(f"minst.course.lesson{number:02d}")
    for i in places:
        (function,) = [node for node in ast.parse(cells[i].source).body if isinstance(node, ast.FunctionDef)]
        assert ast.get_docstring(function) and build.STUB in cells[i].source
        assert function.returns is not None and all(argument.annotation for argument in function.args.args), (
            function.name
        )
        assert cells[i + 1].source == f"check.{function.name}({function.name})"
        assert "nbval-check-output" in cells[i + 1].metadata.tags
        assert "not attempted" in cells[i + 1].outputs[0]["data"]["text/plain"]
        assert callable(getattr(checks, function.name)) and function.name in checks.__all__
        assert "<details><summary>" in cells[i + 2].source
        title = re.findall(r"^### Exercise \d.*", cells[i - 1].source, re.MULTILINE)[-1]
        kinds += [kind for kind in KINDS if f"({kind}" in title or f"or {kind}" in title]
    assert len(checks.__all__) == len(places)
    assert {"recall", "code"} <= set(kinds) and set(kinds) & {"break it", "extend"}, kinds


def test_details_render_their_markdown(number, book):
    for text in prose(book):
        for opening in re.finditer(r"</summary>(.*)", text):
            assert opening[1] == "" and text[opening.end() : opening.end() + 2] == "\n\n", text[:200]
        assert text.count("<details>") == text.count("</details>")


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of the headings of a Markdown file or notebook."""
    text = "\n\n".join(prose(nbformat.read(path, 4))) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["GLOSSARY.md", "TUTOR.md", *(path_of(n).name for n in WRITTEN)])
def test_links_and_anchors_resolve(name):
    path = NOTEBOOKS / name
    text = "\n".join(prose(nbformat.read(path, 4))) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        assert not target.startswith("http"), f"{link}: hosts die; name the source instead"
        there = (NOTEBOOKS / target).resolve() if target else path
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_solution_is_shipped_and_parses(number):
    solved = NOTEBOOKS / "solutions" / f"{build.LESSONS[number].slug}.py"
    names = {
        node.name for node in ast.parse(solved.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    }
    assert names == set(importlib.import_module(f"minst.course.lesson{number:02d}").__all__)
    assert "NotImplementedError" not in solved.read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not set(line) <= set("|-: ")][1:]


def test_glossary_terms_lead_to_their_lesson_and_module():
    text = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
    entries = rows(text)
    assert len(entries) >= 40
    terms = [entry[0] for entry in entries]
    assert terms == sorted(terms, key=str.lower) and len(set(terms)) == len(terms)
    for term, _symbol, meaning, lesson, module in entries:
        name = re.search(r"\((\d\d_\w+)\.ipynb\)", lesson)[1]
        words = "\n".join(prose(nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4))).lower()
        assert term.lower().replace("*", "") in words, f"{term} is not in lesson {name}"
        assert meaning
        for dotted in re.findall(r"`(minst[\w.]*)`", module):
            resolve(dotted)


def resolve(dotted: str):
    """The module or attribute that a dotted name stands for."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise AssertionError(f"{dotted} is nothing")


def test_modules_named_in_lessons_exist(number, book):
    for text in prose(book):
        for dotted in re.findall(r"`(minst\.[a-z_]+(?:\.\w+)*)`", text):
            resolve(dotted)


def test_tutor_plans_name_every_lesson_and_its_measured_minutes():
    text = (NOTEBOOKS / "TUTOR.md").read_text(encoding="utf-8")
    for lesson in build.LESSONS:
        if lesson.written:
            assert f"({lesson.slug}.ipynb)" in text, lesson.slug
    assert json.loads(build.TIMINGS.read_text(encoding="utf-8")).keys() >= {build.LESSONS[n].slug for n in WRITTEN}


def known_shapes() -> list[dict[str, tuple[int, ...]]]:
    """Symbol -> the shape that the code gives: shapes-tiny on a shipped frame, and topformer-base at the paper's size."""
    tables = []
    for preset, size in (("shapes-tiny", (192, 256)), ("topformer-base", (640, 640))):
        with torch.device("meta"):
            model = minst.MobileInst(minst.MobileInstConfig.preset(preset)).eval()
            features = model.backbone(torch.zeros(1, 3, *size))
            x_mask = model.mask_decoder(*features)
            x_g, _ = model.instance_decoder.global_tokens(features.x6)
            x_l, _ = model.instance_decoder.local_tokens(x_mask)
            said, q_g = model.instance_decoder(features.x6, x_mask)
        kernels, q = said.kernels, model.instance_decoder.queries
        shapes = dict(zip(("X3", "X4", "X5", "X6"), features)) | {"X_mask": x_mask, "X_L": x_l, "X_G": x_g}
        shapes |= {"Q_G": q_g, "Q_L": q_g, "C": q_g, "K": kernels, "Q": q, "P3": x_mask}
        shapes["M"] = x_mask[:, : kernels.shape[1]]
        (n, d), (height, width) = kernels.shape[1:], size
        dims = {"B": 1, "N": n, "D": d, "S": x_l.shape[1], "C6": features.x6.shape[1], "H": height, "W": width,
                "h": height // 8, "w": width // 8}  # fmt: skip
        tables.append({name: tuple(x.shape) for name, x in shapes.items()} | {"dims": dims})
    return tables


def documented_shapes(text: str):
    """(symbol, what is written for it) from rows such as `| X3, X4 | (B, C, H/8, W/8), (B, C, H/16, W/16) |`."""
    for row in rows(text):
        symbols = [symbol.strip("`* ") for symbol in row[0].split(",")]
        written = re.findall(r"\(([^()]*,[^()]*)\)", " ".join(row[1:]))
        if len(written) == len(symbols):
            yield from zip(symbols, written)


def agrees(written: str, shape: tuple[int, ...], dims: dict[str, int]) -> bool:
    """Is "B, D, H/8, W/8" this shape? A name without a fixed size (C, T) agrees with anything."""
    parts = [part.strip() for part in written.split(",")]
    values = [re.sub(r"[A-Za-z]\w*", lambda m: str(dims.get(m[0], "None")), part) for part in parts]
    sizes = [None if "None" in v else eval(v.replace("·", "*"), {"__builtins__": {}}) for v in values]  # noqa: S307
    return len(sizes) == len(shape) and all(size is None or size == have for size, have in zip(sizes, shape))


def test_every_shape_in_a_table_of_symbols_is_true():
    tables, checked = known_shapes(), 0
    for number in WRITTEN:
        for symbol, written in documented_shapes("\n".join(prose(nbformat.read(path_of(number), 4)))):
            if symbol in tables[0] and "…" not in written and not (symbol == "M" and number not in (3, 4)):
                assert any(agrees(written, t[symbol], t["dims"]) for t in tables), (number, symbol, written)
                checked += 1
    assert checked >= 10, checked


def test_the_table_of_the_shipped_pair_is_what_was_measured():
    measured = [
        json.loads((minst.samples.weights_folder(name) / "metrics.json").read_text(encoding="utf-8"))
        for name in ("shapes-tiny", "shapes-tiny-images")
    ]
    outputs = [output for cell in code(nbformat.read(path_of(6), 4)) for output in cell.outputs]
    tables = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    written = [row for row in rows("\n".join(tables)) if row[0] in ("masks (ours)", "cosine (the paper's)")]
    assert len(written) == 4
    for association, interval, *figures in written:
        key = ("mask" if "masks" in association else "cosine", int(interval))
        assert [float(figure.strip("*")) for figure in figures] == [round(100 * ap_of(m, *key), 1) for m in measured]


def ap_of(metrics: dict, association: str, interval: int) -> float:
    wanted = (association, interval)
    (found,) = [
        s for s in metrics["settings"] if (s["setting"]["association"], s["setting"]["reuse_interval"]) == wanted
    ]
    return found["AP"]


# ------------------------------------------------------------------------------------- lint of code


def shape_of(node: ast.AST) -> str:
    """A piece of code whatever its variables are called: names by the order of their appearance."""
    numbers: dict[str, str] = {}

    class Renamed(ast.NodeTransformer):
        def visit_Name(self, name):
            return ast.Name(numbers.setdefault(name.id, f"v{len(numbers)}"), ast.Load())

        def visit_arg(self, argument):
            return ast.arg(numbers.setdefault(argument.arg, f"v{len(numbers)}"), None)

    return ast.dump(Renamed().visit(ast.parse(ast.unparse(node))))


def values_of(statements: list[ast.stmt]) -> list[str]:
    """Statements as they count for a copy: of the last one its value alone, returned, kept or shown."""
    *before, last = statements
    value = last.value if isinstance(last, (ast.Return, ast.Assign, ast.Expr)) and last.value else last
    return shape_of(ast.Module([*before, ast.Expr(value) if isinstance(value, ast.expr) else value], []))


def answer_of(function: ast.FunctionDef) -> list[ast.stmt]:
    """The statements of a solution, without its docstring."""
    return function.body[1:] if ast.get_docstring(function) else function.body


def near(one: str, other: str) -> bool:
    """The same, or, from 40 words of the syntax tree on, four of five of them in the same order."""
    ours, theirs = (re.findall(r"[\w.]+", text) for text in (one, other))
    alike = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    return one == other or min(len(ours), len(theirs)) >= 40 and alike.quick_ratio() >= 0.8 <= alike.ratio()


def stands_in(answer: list[ast.stmt], cell: str) -> bool:
    """Does a cell hold the answer, whatever its variables are called? A single line counts from ten parts on."""
    tree, wanted = ast.parse(re.sub(r"^\s*[%!].*$", "", cell, flags=re.MULTILINE)), values_of(answer)
    if len(answer) == 1 and len(list(ast.walk(answer[0]))) < 10:
        return False
    bodies = [getattr(node, field, None) for node in ast.walk(tree) for field in ("body", "orelse")]
    for body in (body for body in bodies if isinstance(body, list)):
        windows = (body[i : i + len(answer)] for i in range(len(body) - len(answer) + 1))
        if any(near(values_of(window), wanted) for window in windows):
            return True
    nodes = ast.walk(tree) if len(answer) == 1 else ()
    no_values = (ast.Slice, ast.Tuple, ast.JoinedStr, ast.FormattedValue)
    values = [node for node in nodes if isinstance(node, ast.expr) and not isinstance(node, no_values)]
    return any(values_of([ast.Expr(value)]) == wanted for value in values)


@pytest.mark.parametrize(
    ("answer", "cell", "there"),
    [
        ("def f(a, b):\n    c = a @ b\n    return c.softmax(-1)", "p = q @ r\nshares = p.softmax(-1)\nprint(1)", True),
        ("def f(a, b):\n    c = a @ b\n    return c.softmax(-1)", "def g(x, y):\n    z = x @ y\n    return z.softmax(-1)", True),
        ("def f(a, b):\n    c = a @ b\n    return c.softmax(-1)", "names = list(p)\nshares = sorted(names, key=len)", False),
        ("def f(a, b):\n    return (a @ b.T / a.shape[1] ** 0.5).sum()", "n = 3 * (k @ q.T / k.shape[1] ** 0.5).sum()", True),
        ("def f(a):\n    return a[0]", "b = c[0]", False),
    ],
)  # fmt: skip
def test_the_lint_finds_an_answer_under_other_names(answer, cell, there):
    assert stands_in(answer_of(ast.parse(answer).body[0]), cell) == there




def test_no_answer_stands_in_a_cell_above_its_exercise(number):
    cells = build.read_source(number).cells
    for i, cell in enumerate(cells):
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        (function,) = [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
        above = [c.source for c in cells[:i] if c.cell_type == "code"]
        copies = [source for source in above if stands_in(answer_of(function), source)]
        assert not copies, f"{function.name} stands above its exercise:\n{copies[0]}"


def test_exercises_stand_where_their_idea_is_built_and_the_lesson_goes_on_with_the_answer(number):
    cells = build.read_source(number).cells
    for i, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            (name,) = [n.name for n in ast.parse(cell.source).body if isinstance(n, ast.FunctionDef)]
            used = f"{name} = check.{name}({name}).or_ours"
            assert any(used in later.source for later in cells[i + 2 :]), f"nothing is drawn by {name}"


def names_set(tree: ast.AST) -> set[str]:
    """What a cell binds at its top level, loops and all, but not inside of functions."""
    found, open_nodes = set(), list(ast.iter_child_nodes(tree))
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            found |= {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
            open_nodes += ast.iter_child_nodes(node)
    return found


def globals_read(function: ast.FunctionDef) -> set[str]:
    found, codes = set(), [compile(ast.Module([function], []), "cell", "exec")]
    while codes:
        code = codes.pop()
        found |= {of.argval for of in dis.get_instructions(code) if of.opname == "LOAD_GLOBAL"}
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return found


def test_no_global_of_a_widgets_function_is_bound_anew_later(number):
    cells = [cell.source for cell in build.read_source(number).cells if cell.cell_type == "code"]
    trees = [ast.parse(source) for source in cells]
    for i, tree in enumerate(trees):
        drawn = re.findall(r"interact\(\s*(\w+)", cells[i])
        functions = [n for t in trees[: i + 1] for n in t.body if isinstance(n, ast.FunctionDef) and n.name in drawn]
        for function in functions:
            for later in trees[i + 1 :]:
                again = globals_read(function) & names_set(later)
                assert not again, f"{function.name} reads {again}, which a later cell binds anew"


def test_cells_hold_no_comment_for_a_tool(number, book):
    for cell in code(book):
        assert not re.search(r"# *(NBVAL|noqa|fmt:|type: ignore|pragma|pylint)", cell.source), cell.source
