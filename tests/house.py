"""The house: how many lines each room has, who imports whom, and the floors that follow from it.

    python tests/house.py [picture.svg]

Lines count as `ruff format` lays them out at 100 columns; those that hold a comment alone do not.
An import counts wherever it stands, inside a function too.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "minst"
SUFFIXES = {".py", ".mjs", ".html", ".cpp"}

# Rooms of several modules on the top floor; a folder is a room of its own.
ROOMS = {
    "the network": "config layers mask_decoder instance_decoder model protocol backbones",
    "learning": "matcher losses temporal training recipes engine",
    "video": "tracking results",
    "using": "__init__ __main__ cli options predict samples weights macs environment lazy check",
    "masks": "rle",
    "models of others": "adapters",
}
ROOM_OF = {name: room for room, names in ROOMS.items() for name in names.split()}
# Nobody but the command line and the exercises' verdicts may import these.
LEAVES = {"mobile", "lab", "labels", "course", "adapters"}
# These know of no picture.
GROUND = {"the network", "learning", "video", "data", "evaluation", "masks"}


def lines(path: Path) -> int:
    """Lines of a file, docstrings and blank lines too, less those that hold a comment alone."""
    mark = "#" if path.suffix == ".py" else "//"
    return sum(not line.lstrip().startswith(mark) for line in path.read_text("utf-8").splitlines())


def room(path: Path) -> str:
    """The room of a file of the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return ROOM_OF.get(first, first)


def lines_by_room() -> Counter:
    """{room: lines}, the largest first."""
    counts: Counter = Counter()
    for path in PACKAGE.rglob("*"):
        if path.suffix in SUFFIXES:
            counts[room(path)] += lines(path)
    return counts


def module_name(path: Path) -> str:
    """minst/data/rle.py -> minst.data.rle; a package is named without its __init__."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports() -> dict[str, set[str]]:
    """{module: the modules of the package that it imports}, those inside of functions too.

    `minst.a.b` in code counts as an import of `minst.a`: packages import when a name is first used.
    """
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                # `from minst.data import shapes` names a module, `from minst.data import COCO` a name in one.
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [i if i in paths else node.module for i in inner]
            elif isinstance(node, ast.Attribute):
                dotted = ast.unparse(node)
                wanted = [dotted] if dotted in paths else []
            else:
                continue
            found[name] |= {module for module in wanted if module in paths and module != name}
    return found


def rooms_imports() -> dict[str, set[str]]:
    """{room: the rooms that it imports}; the top of the house (`minst` itself) is left out."""
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, others in imports().items():
        here = room(paths[name])
        rooms = {room(paths[other]) for other in others if other != "minst"}
        found[here] = found.get(here, set()) | rooms - {here}
    return found


def floors() -> list[list[str]]:
    """Modules from the ground up: each imports only from floors below. graphlib.CycleError names a circle."""
    sorter = TopologicalSorter(imports())
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found


def picture() -> str:
    """The floors as SVG: the ground below, the command line on top, a colour for every room."""
    colors = (
        "4477aa 66ccee 228833 ccbb44 ee6677 aa3377 999933 cc6677 88ccee ddaa77 7788aa 99aa55 bb99cc"
    ).split()
    rooms = sorted({room(path) for path in PACKAGE.rglob("*.py")})
    color = {name: f"#{colors[i % len(colors)]}" for i, name in enumerate(rooms)}
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    width, left, step, high = 1200, 20, 150, 22
    boxes, top = [], 20
    for level in reversed(floors()):
        x = left
        for name in level:
            if x + step > width:
                x, top = left, top + high + 4
            fill = color[room(paths[name])]
            label = escape(name.removeprefix("minst."))
            boxes.append(
                f'<rect x="{x}" y="{top}" width="{step - 6}" height="{high}" rx="3" fill="{fill}" opacity="0.35"/>'
                f'<text x="{x + 5}" y="{top + 15}">{label[:24]}</text>'
            )
            x += step
        top += high + 4
        boxes.append(f'<line x1="{left}" x2="{width - left}" y1="{top}" y2="{top}" stroke="#999"/>')
        top += 6
    for i, name in enumerate(rooms):
        x = left + i % 7 * 165
        y = top + 14 + i // 7 * 20
        boxes.append(
            f'<rect x="{x}" y="{y}" width="14" height="14" fill="{color[name]}" opacity="0.35"/>'
            f'<text x="{x + 20}" y="{y + 12}">{name}</text>'
        )
    height = top + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">{"".join(boxes)}</svg>\n'
    )


def main() -> None:
    counts = lines_by_room()
    for name, n in counts.most_common():
        print(f"{n:6,}  {name}")
    print(f"{sum(counts.values()):6,}  in all, on {len(floors())} floors")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
        print(f"written: {sys.argv[1]}")


if __name__ == "__main__":
    main()
