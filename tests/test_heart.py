"""The heart is compact and explained: its lines and comments are counted, and who imports whom is looked at."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import minst

PACKAGE = Path(minst.__file__).parent
MODULES = ("config", "layers", "mask_decoder", "instance_decoder", "model", "matcher", "losses", "temporal", "tracking")
HEART = [PACKAGE / f"{name}.py" for name in MODULES] + sorted((PACKAGE / "backbones").glob("*.py"))


def counted_lines(path: Path) -> int:
    """Lines of a file, docstrings and blank lines too, less those that hold a comment alone."""
    return sum(not line.lstrip().startswith("#") for line in path.read_text(encoding="utf-8").splitlines())


def comments_per_hundred(path: Path) -> float:
    """Comments per 100 lines of code; docstrings and blank lines are no code."""
    text = path.read_text(encoding="utf-8")
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    outside = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    said = {line for node in ast.walk(ast.parse(text)) for line in docstring_lines(node)}
    code = {line for t in tokens if t.type not in outside for line in range(t.start[0], t.end[0] + 1)}
    return 100 * sum(t.type == tokenize.COMMENT for t in tokens) / len(code - said)


def docstring_lines(node: ast.AST) -> range:
    """Where the docstring of a module, class or function stands."""
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or ast.get_docstring(node) is None:
        return range(0)
    return range(node.body[0].lineno, node.body[0].end_lineno + 1)


def test_the_heart_has_at_most_1650_lines():
    counts = {path.relative_to(PACKAGE).as_posix(): counted_lines(path) for path in HEART}
    assert sum(counts.values()) <= 1650, counts


@pytest.mark.parametrize("path", HEART, ids=lambda path: path.stem)
def test_lines_of_the_heart_are_short(path):
    assert max(len(line) for line in path.read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("name", ["model", "losses", "temporal", "tracking", "training"])
def test_every_step_is_commented(name):
    assert comments_per_hundred(PACKAGE / f"{name}.py") >= 20


def test_what_is_counted(tmp_path):
    """By hand: of these eleven lines two are comments alone; seven are code, with three comments."""
    path = tmp_path / "counted.py"
    path.write_text(
        '"""Not code."""\n\n# alone\nx = 1  # beside\n\n\ndef f():\n    """Nor this."""\n    # alone\n    y = """\n    a string"""\n'
    )
    assert counted_lines(path) == 9
    assert comments_per_hundred(path) == pytest.approx(100 * 3 / 4)  # x, def, and the two lines of y


LEAVES = ("visualize", "mobile", "lab", "check", "cli", "course", "labels")


@pytest.mark.parametrize("path", HEART, ids=lambda path: path.stem)
def test_the_heart_imports_no_leaf_and_no_underscore_name(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minst"):
            assert node.module.split(".")[1:2] not in ([leaf] for leaf in LEAVES), node.module
            assert not any(alias.name in LEAVES or alias.name.startswith("_") for alias in node.names), node.module


def test_below_the_model_nothing_knows_of_videos():
    below = ("layers", "config", "mask_decoder", "instance_decoder", "matcher", "losses")
    for name in below:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("minst")}
        assert found <= {"minst.layers", "minst.config", "minst.matcher"}, (name, found)
