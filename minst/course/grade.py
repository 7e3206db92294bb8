"""A class at a glance: all exercises that were handed in, each judged in a process of its own.

    folder of .ipynb --definitions--> exercise functions --check--> Grade of each -> .csv, .md

This runs code that others wrote. Each exercise gets a process with limits of time and memory, an
empty folder to work in and, where the system allows it, no network (Linux: a name space without
one; elsewhere Python's sockets are closed). That keeps accidents away. It is no wall against
somebody who means harm: grade strangers' notebooks on a machine that has nothing to lose.

Only imports, functions, classes and constants of a notebook are run, so that a half-run one, or one
that trains for an hour, is judged like any other. A file may have any name.

Lesson: notebooks/TUTOR.md
"""

import ast
import csv
import ctypes
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

__all__ = ["Grade", "grade", "report", "write_grades"]

LESSONS = len(list(Path(__file__).parent.glob("lesson[0-9][0-9].py")))
WORTH_A_LOOK = 40  # parts of an answer, from which on two that are the same are no chance
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)


@dataclass
class Grade:
    """One exercise of one student, a row of the table."""

    student: str  # the file, below the folder, without its ending
    lesson: int  # -1: the file is no lesson that can be read
    exercise: str
    state: str  # "correct" | "wrong" | "not attempted" | "missing" | "stopped" | "unreadable"
    misconception: str = ""
    reason: str = ""
    seconds: float = 0.0
    same_as: str = ""  # students whose answer is the same but for comments


def grade(
    folder: str | Path, seconds: float = 90.0, megabytes: int = 8192, jobs: int = 2
) -> list[Grade]:
    """Judge every notebook below a folder.

    seconds: for one exercise, the start of Python included. megabytes: of address space, of which
    torch takes more than it uses. jobs: how many exercises are judged at a time. Raises
    FileNotFoundError without a folder or without notebooks.
    """
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if not files:
        raise FileNotFoundError(f"{folder}: no notebook (.ipynb) is in this folder or below it")
    asked, grades, answers = [], [], defaultdict(list)
    for file in files:
        student = file.relative_to(folder).with_suffix("").as_posix()
        try:
            cells = code_cells(file)
        except (OSError, ValueError) as error:
            grades.append(Grade(student, -1, "", "unreadable", reason=str(error)))
            continue
        lesson = lesson_of(cells)
        if lesson < 0:
            reason = "it holds no exercise of a lesson"
            grades.append(Grade(student, -1, "", "unreadable", reason=reason))
        nodes, broken = definitions(cells)
        for name in exercises(lesson):
            if state := at_a_glance(nodes, broken, name):
                grades.append(Grade(student, lesson, name, *state))
            else:
                asked.append((student, cells, lesson, name))
                answers[name, _answer(nodes, name)].append(student)
    with ThreadPoolExecutor(jobs) as pool:
        limits = seconds, megabytes
        grades += pool.map(lambda one: _apart(*one, *limits), asked)
    for (name, answer), students in answers.items():
        for of in grades:
            if answer and of.exercise == name and of.student in students:
                of.same_as = ", ".join(other for other in students if other != of.student)
    return sorted(grades, key=lambda of: (of.student, of.lesson))


def code_cells(file: Path) -> list[str]:
    """The code of a notebook. ValueError says what is wrong with the file."""
    try:
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        found = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no notebook that can be read: {type(error).__name__}: {error}") from None
    return [text if isinstance(text, str) else "".join(text) for text in found]


@cache
def exercises(lesson: int) -> tuple[str, ...]:
    """The names of a lesson's exercises; none of no lesson."""
    if lesson < 0:
        return ()
    return tuple(importlib.import_module(f"minst.course.lesson{lesson:02d}").__all__)


def lesson_of(cells: Iterable[str]) -> int:
    """The lesson most of whose exercises are defined here; -1 if there is none."""
    names = set(re.findall(r"^def (\w+)", "\n".join(cells), re.MULTILINE))
    known = {lesson: len(names & set(exercises(lesson))) for lesson in range(LESSONS)}
    best = max(known, key=known.get)
    return best if known[best] else -1


def definitions(cells: Iterable[str]) -> tuple[list[ast.stmt], dict[str, str]]:
    """What cells define, in their order, and {function: the error of the cell that defines it}."""
    found, broken = [], {}
    for cell in cells:
        text = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell, flags=re.MULTILINE)
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            said = f"line {error.lineno} of its cell is no Python: {error.msg}"
            broken |= dict.fromkeys(re.findall(r"^def (\w+)", text, re.MULTILINE), said)
            continue
        kept = [node for node in tree.body if isinstance(node, KEPT)]
        kept = [n for n in kept if not isinstance(n, ast.Assign) or _is_plain(n.value)]
        found += kept
        for node in kept:
            broken.pop(getattr(node, "name", ""), None)  # written again, and now well
    return found, broken


def at_a_glance(
    nodes: list[ast.stmt], broken: dict[str, str], exercise: str
) -> tuple[str, str, str] | None:
    """State, misconception and reason of what needs no process to be seen; None for an answer."""
    if exercise in broken:
        return "wrong", "", broken[exercise]
    bound = [node for node in nodes if exercise in _binds(node)]
    if not bound:
        return "missing", "", "the notebook does not define this function"
    *_, line = getattr(bound[-1], "body", bound[-1:])
    is_stub = isinstance(line, ast.Raise) and "NotImplementedError" in ast.unparse(line)
    return ("not attempted", "", "") if is_stub else None


def _binds(node: ast.stmt) -> set[str]:
    """The names that a function, a class or an assignment binds."""
    targets = {of.id for of in getattr(node, "targets", []) if isinstance(of, ast.Name)}
    return targets | {getattr(node, "name", "")} - {""}


def _answer(nodes: list[ast.stmt], exercise: str) -> str:
    """An answer without its comments and docstring; "" if it is too short to tell two apart."""
    *_, last = [node for node in nodes if exercise in _binds(node)]
    body = getattr(last, "body", [])
    whole = ast.Module(body[1:] if body and ast.get_docstring(last) else body, [])
    return ast.dump(whole) if sum(1 for _ in ast.walk(whole)) >= WORTH_A_LOOK else ""


def _is_plain(value: ast.expr) -> bool:
    """A constant, an arithmetic or a collection of some, or a function in one expression."""
    if isinstance(value, ast.Lambda):
        return True
    plain = (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp)
    parts = (ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(node, plain + parts) for node in ast.walk(value))


def judged(cells: Iterable[str], lesson: int, exercise: str) -> dict:
    """{state, misconception, reason} of one exercise, judged in this process."""
    names: dict = {"__name__": "handed_in"}
    for node in definitions(cells)[0]:
        try:
            exec(compile(ast.Module([node], []), "<notebook>", "exec"), names)
        except Exception:  # what needs it will fail, and say so
            continue
    check = getattr(importlib.import_module(f"minst.course.lesson{lesson:02d}"), exercise)
    verdict = check(names.get(exercise))
    return {
        "state": verdict.state,
        "misconception": verdict.hint,
        "reason": verdict.reason if verdict.state == "wrong" else "",
    }


def _apart(
    student: str, cells: list[str], lesson: int, exercise: str, seconds: float, megabytes: int
) -> Grade:
    """The grade of one exercise, from a process that is stopped at its limits."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "answer.json"
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))
        known = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        limits = {"PYTHONPATH": path, "HOME": place, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(answer)], cwd=place, env=known | limits,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True, text=True, errors="replace", encoding="utf-8",
        )  # fmt: skip
        try:
            asked = json.dumps([cells, lesson, exercise, megabytes])
            _, said = process.communicate(asked, timeout=seconds)
            last = (said.strip().splitlines() or [f"it ended with {process.returncode}"])[-1]
            found = {"state": "stopped", "reason": f"the process died: {last[:200]}"}
            if answer.exists():
                found = json.loads(answer.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):  # what it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
            found = {"state": "stopped", "reason": f"not done within {seconds:g} s"}
    taken = round(time.monotonic() - start, 1)
    return Grade(student, lesson, exercise, **found, seconds=taken)


def report(grades: list[Grade]) -> str:
    """A page for the tutor, in Markdown: what the class can do, and what it believes."""
    lines = ["# The class", ""]
    by_exercise = defaultdict(list)
    for of in grades:
        by_exercise[of.lesson, of.exercise].append(of)
    unread = by_exercise.pop((-1, ""), [])
    students = len({of.student for of in grades})
    lines += [f"{students} notebooks, {len(unread)} of which could not be judged.", ""]
    lines += ["| lesson | exercise | correct | wrong | not attempted | other |", "|---" * 6 + "|"]
    believed = ["", "## What is believed", ""]
    for (lesson, name), of_all in sorted(by_exercise.items()):
        states, beliefs = Counter(of.state for of in of_all), defaultdict(list)
        counts = [states.pop(state, 0) for state in ("correct", "wrong", "not attempted")]
        row = [f"{lesson:02d}", f"`{name}`", *counts, states.total()]
        lines.append(f"| {' | '.join(map(str, row))} |")
        for of in of_all:
            if of.state in ("wrong", "stopped"):
                told = re.sub(r"\d+(\.\d+)?", "…", of.reason)  # numbers are drawn anew each time
                beliefs[of.misconception or told].append(of.student)
        for belief, who in sorted(beliefs.items(), key=lambda pair: -len(pair[1])):
            believed.append(f"- {lesson:02d} `{name}`, {len(who)}: {belief} ({', '.join(who)})")
    alike = [of for of in grades if of.same_as]
    lines += [*believed, "", "## The same answer", ""] if alike else believed
    lines += [f"- {of.lesson:02d} `{of.exercise}`: {of.student} and {of.same_as}" for of in alike]
    lines += ["", "## Not judged", ""] if unread else []
    lines += [f"- {of.student}: {of.reason}" for of in unread]
    return "\n".join(lines) + "\n"


def write_grades(grades: list[Grade], file: str | Path) -> Path:
    """The table as .csv, and the tutor's page beside it, whose path is returned."""
    file = Path(file)
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(field.name for field in fields(Grade))
        rows.writerows(map(_cell, astuple(of)) for of in grades)
    page = file.with_suffix(".md")
    page.write_text(report(grades), encoding="utf-8")
    return page


def _cell(value: str | float) -> str | float:
    """A text that a spreadsheet would take for a formula gets a mark in front."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if formula else value


def main(answer: str) -> None:
    """The process of one exercise: read what is asked, write the answer to a file."""
    cells, lesson, exercise, megabytes = json.load(sys.stdin)
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)

    def closed(*_, **__):
        raise OSError("the network is closed while exercises are graded")

    socket.socket.connect = closed  # also where there is no name space of its own
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none
    Path(answer).write_text(json.dumps(judged(cells, lesson, exercise)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
