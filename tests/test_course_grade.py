"""A made-up class: every way to hand something in, and what the tutor is told of it."""

import csv
import json
import re
from pathlib import Path

import pytest

from minst import cli
from minst.course.grade import Grade, code_cells, definitions, grade, lesson_of, report, write_grades

SOLUTION = (Path(__file__).parents[1] / "notebooks" / "solutions" / "00_start_here.py").read_text(encoding="utf-8")
CELLS = [cell for cell in re.split(r"^# %%.*\n", SOLUTION, flags=re.MULTILINE) if not cell.startswith("print(")]
ASKED = [cell for cell in CELLS if "def swap_identities" in cell or "def running_mean" in cell]
SETUP = [cell for cell in CELLS if not re.search(r"^def ", cell, re.MULTILINE)]


def book(folder, name, cells):
    content = {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "nbformat": 4}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def body(name, *lines):
    """The head of an exercise, as the solution has it, and other lines below it."""
    (cell,) = [cell for cell in CELLS if f"def {name}(" in cell]
    head = cell[: re.search(r'""".*?"""', cell, re.DOTALL).end()]
    return head + "\n    " + "\n    ".join(lines) + "\n"


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Eleven notebooks, of which two exercises are looked at, and one that never ends; and where."""
    root = tmp_path_factory.mktemp("class")
    mean, swap = "running_mean", "swap_identities"
    (right,) = [cell for cell in CELLS if f"def {mean}(" in cell]
    (exchanged,) = [cell for cell in CELLS if f"def {swap}(" in cell]
    book(root, "ada.ipynb", [*SETUP, right, exchanged])
    book(root, "copy of ada (1).ipynb", [*SETUP, "# mine!\n" + right, exchanged])
    book(root, "group b/bo.ipynb", ["%matplotlib inline\n!ls", *SETUP, right.replace("return", "return  0 *")])
    book(root, "cy.ipynb", [*SETUP, body(mean, 'raise NotImplementedError("your turn")')])
    book(root, "ed.ipynb", [*SETUP, body(mean, "import os; os._exit(7)")])
    book(root, "fe.ipynb", [*SETUP, body(mean, "return [")])
    book(root, "gus.ipynb", [*SETUP, body(mean, "return [", ), right])  # mended in a later cell
    calls = "import socket\n    socket.create_connection(('127.0.0.1', 9), 1)"
    book(root, "hal.ipynb", [*SETUP, body(mean, calls)])
    book(root, "ida.ipynb", [*SETUP, "raise SystemExit", "1 / 0", "x = open('/nowhere')", right])  # half-run
    (root / "jo.ipynb").write_text('{"cells": [', encoding="utf-8")
    book(root, "kim.ipynb", ["print('hello')"])
    book(root, ".ipynb_checkpoints/ada.ipynb", [right])
    grades = grade(root, seconds=1200)
    # By itself: no other answer may be too slow, on any machine.
    book(root / "endless", "di.ipynb", [*SETUP, body(mean, "while True: pass")])
    return grades + grade(root / "endless", seconds=5), root


def of(graded, student, exercise="running_mean"):
    (found,) = [g for g in graded[0] if (g.student, g.exercise) == (student, exercise)]
    return found


def test_each_exercise_of_each_notebook_is_graded(graded):
    grades, _ = graded
    students = {g.student for g in grades}
    assert students == {"ada", "copy of ada (1)", "group b/bo", *"cy di ed fe gus hal ida jo kim".split()}
    assert len(grades) == 10 * 4 + 2  # lesson 00 has four exercises; two files are no lesson


@pytest.mark.parametrize(
    ("student", "state", "words"),
    [
        ("ada", "correct", ""), ("copy of ada (1)", "correct", ""), ("group b/bo", "wrong", "expected"),
        ("cy", "not attempted", ""), ("di", "stopped", "not done within 5 s"), ("ed", "stopped", "ended with 7"),
        ("fe", "wrong", "is no Python"), ("gus", "correct", ""), ("hal", "wrong", "the network is closed"), ("ida", "correct", ""),
    ],
)  # fmt: skip
def test_what_is_handed_in_gets_its_state(graded, student, state, words):
    found = of(graded, student)
    assert found.state == state and words in found.reason, found


def test_what_cannot_be_judged_is_said(graded):
    assert of(graded, "jo", "").reason.startswith("no notebook that can be read: JSONDecodeError")
    assert of(graded, "kim", "").reason == "it holds no exercise of a lesson"
    assert of(graded, "cy", "swap_identities").state == "missing"


def test_the_same_answer_is_found_without_its_comments(graded):
    assert of(graded, "ada", "swap_identities").same_as == "copy of ada (1)"
    assert of(graded, "cy").same_as == ""


def test_table_and_page(graded, tmp_path):
    grades, _ = graded
    page = write_grades(grades, tmp_path / "out.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8")))
    assert len(rows) == len(grades) and rows[0]["student"] == grades[0].student
    assert page == report(grades) and "12 notebooks, 2 of which could not be judged" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| 00 | `running_mean` |")]
    assert row == "| 00 | `running_mean` | 4 | 3 | 1 | 2 |"
    assert "jo: no notebook that can be read" in page and "ada and copy of ada (1)" in page


def test_beliefs_are_gathered_whatever_numbers_were_drawn(tmp_path):
    grades = [Grade("a", 1, "f", "wrong", "", "it is 3, expected 4.5"), Grade("b", 1, "f", "wrong", "", "it is 17, expected 2")]
    grades += [Grade("c", 1, "f", "wrong", "Divide.", "x"), Grade("=d()", 1, "f", "wrong", "Divide.", "y")]
    page = report(grades)
    assert "01 `f`, 2: it is …, expected … (a, b)" in page and "01 `f`, 2: Divide. (c, =d())" in page
    write_grades(grades, tmp_path / "g.csv")
    assert "'=d()" in (tmp_path / "g.csv").read_text(encoding="utf-8")  # no formula


def test_a_listed_mistake_is_named(tmp_path):
    """What the check of lesson 07 knows as a mistake comes back as the student's misconception."""
    code = "import torch\ndef cosine_association(old, new):\n    return torch.arange(len(old))\n"
    book(tmp_path, "lee.ipynb", [code])
    found = {g.exercise: g for g in grade(tmp_path, seconds=1200)}["cosine_association"]
    assert found.state == "wrong" and "keeps its own index" in found.misconception


def test_definitions_alone_are_kept():
    nodes, broken = definitions(["import os\nx = 3\ny = f()\nz = [1, -2]\nprint(x)\ndef g():\n    return 1", "def h(:"])
    assert [type(n).__name__ for n in nodes] == ["Import", "Assign", "Assign", "FunctionDef"] and set(broken) == {"h"}
    assert lesson_of(["def tube_iou(): pass"]) == 1 and lesson_of(["def nothing(): pass"]) == -1


def test_errors_of_the_command(tmp_path, capsys):
    assert cli.main(["grade", str(tmp_path)]) == 2
    assert "no notebook (.ipynb) is in this folder" in capsys.readouterr().err
    (tmp_path / "x.ipynb").write_text('{"cells": [{"cell_type": "code"}]}')
    with pytest.raises(ValueError, match="KeyError: 'source'"):
        code_cells(tmp_path / "x.ipynb")
