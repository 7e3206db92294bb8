"""Is a data set whole? Every problem, named with file and entry, none of which stops the rest.

    DIR, its JSON ─ check_dataset ─> Report: counts, categories, problems ─> table, JSON
                     │ entries   fields of the types in `minst.data.formats`, ids, lengths, names
                     │ masks     by `minst.rle`, then their boxes and areas
                     └ images    headers, all bytes, in threads; what lies there unnamed

YouTube-VIS ("videos") and COCO ("images": videos of one frame) are told apart by their keys. The
readers stop at the first error, this goes on, entry by entry and field by field. An error is what a
reader, training or evaluation would fail on or learn wrongly; a warning is worth a look.

Lesson: notebooks/10_capstone.ipynb
"""

import errno
import json
import os
import reprlib
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst import rle
from minst.data import files, formats
from minst.data.files import IMAGE_SUFFIXES, inside, open_image
from minst.data.layouts import find_annotations, find_images, split_of

__all__ = ["ERRORS", "WARNINGS", "Problem", "Report", "check_dataset"]

ERRORS = (
    "broken file", "wrong field", "duplicate id", "unknown picture", "unknown category",
    "wrong length", "file named twice", "name leads out", "missing file", "link loop",
    "unreadable image", "image of another size", "broken mask", "mask of another size",
    "mask outside the frame", "empty mask", "never visible", "wrong box", "wrong area",
)  # fmt: skip
WARNINGS = (
    "id 0", "no areas", "mask beyond the frame", "mask of 1 pixel", "box off its mask",
    "area off its mask", "images not named",
)  # fmt: skip
SHOWN, SHOWN_CATEGORIES = 3, 12  # of a kind of problem, and of categories, in the printed table
LARGEST_FRAME = (2**14, 2**14)  # for polygons in a frame of unknown size
ID_ZERO = {  # why ids should begin at 1
    "categories": "many tools take category 0 for the background; number them from 1",
    "annotations": "official evaluation takes annotation 0 for 'not found'",
}


class Problem(NamedTuple):
    """Something wrong in a dataset, and where."""

    kind: str  # one of ERRORS or WARNINGS
    file: str  # the annotation file, or an image
    entry: str  # "annotations[17].segmentations[3]"
    what: str

    @property
    def level(self) -> str:
        """'error': it must be mended; 'warning': it may be meant."""
        return "error" if self.kind in ERRORS else "warning"

    def __str__(self) -> str:
        return _printable(": ".join(part for part in (self.file, self.entry, self.what) if part))


@dataclass
class Report:
    """What `check_dataset` found. Prints as a table."""

    file: str
    form: str = "unknown"
    # videos or images, frames, instances, masks, categories
    counts: dict[str, int] = field(default_factory=dict)
    # of each category: id, name, instances, masks, and videos or images
    categories: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    # the problems that must be mended, and those that may be meant
    errors = property(lambda self: [p for p in self.problems if p.level == "error"])
    warnings = property(lambda self: [p for p in self.problems if p.level == "warning"])

    def save(self, path: str | Path) -> None:
        """Everything as JSON: all problems, not the first of each kind."""
        problems = [{"level": problem.level, **problem._asdict()} for problem in self.problems]
        text = json.dumps({**vars(self), "problems": problems}, indent=1)
        with files.replacing(path) as file:
            file.write_text(text + "\n", encoding="utf-8")

    def __str__(self) -> str:
        lines = [f"{_printable(self.file)}: {self.form} form"]
        lines += [f"  {name:12}{count:10,}" for name, count in self.counts.items()]
        row = "  {:20}{:>12}{:>12}{:>12}".format
        lines += [row("category", *list(first)[2:]) for first in self.categories[:1]]
        frequent = sorted(self.categories, key=lambda category: -category["instances"])
        rows = [row(_printable(c["name"])[:20], *list(c.values())[2:]) for c in frequent]
        lines += _first_of(SHOWN_CATEGORIES, rows)
        lines += [f"note: {note}" for note in self.notes]
        for kind in (*ERRORS, *WARNINGS):
            found = [problem for problem in self.problems if problem.kind == kind]
            for i, text in enumerate(_first_of(SHOWN, found)):
                head = f"{found[0].level:8}{kind:23}{len(found):6,}  "
                lines.append(f"{head if i == 0 else ' ' * len(head)}{text}")
        lines.append(f"errors: {len(self.errors):,}, warnings: {len(self.warnings):,}")
        return "\n".join(lines)


def check_dataset(
    folder: str | Path,
    split: str | None = None,
    annotations: str | Path | None = None,
    read_images: bool = True,
) -> Report:
    """Check a folder in YouTube-VIS or COCO form: its annotation file, every mask, every image.

    split, annotations: as for the readers. read_images: decode every image in full; False: only its
    size, from its header, so that a file cut short goes unseen. Raises OSError when there is
    nothing to check; whatever stands in the files is reported, not raised.
    """
    folder = Path(folder)
    file = Path(annotations) if annotations else find_annotations(folder, split)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder of images", str(folder))
    report = Report(str(file))
    data = _load(report, file)
    if data:
        form = formats.YTVIS if isinstance(data.get("videos"), list) else formats.COCO
        check = _Check(report, form)
        check.pictures_of(data[form.pictures])
        check.categories_of(data.get("categories"))
        check.annotations_of(data.get("annotations"))
        _check_images(check, folder, split or split_of(folder, file), read_images)
    return report


class Mask(NamedTuple):
    """What a mask covers."""

    area: float = 0
    box: tuple[float, ...] = ()  # x, y, width, height


class Finding(Exception):
    """What is wrong with a value: kind, what."""


# ------------------------------------------------------------------------------------- entries


def _load(report: Report, file: Path) -> dict | None:
    """The content of a data set's file; None, and reported, where it is none."""
    said, twice, data = [], [], None
    try:
        formats.JsonFile(file)
    except files.TwiceError:  # each of them is named below
        pass
    except ValueError as error:
        said.append(str(error).removeprefix(f"{file}: "))

    def noted(pairs: list[tuple[str, Any]]) -> dict:
        count = Counter(key for key, _ in pairs)
        twice.extend(key for key in count if count[key] > 1)
        return dict(pairs)

    try:  # json sees what the readers do not: a key that stands twice. And it reads on over NaN
        data = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=noted)
    except (ValueError, RecursionError) as error:
        said = said or [str(error)]
    other = _other_task(data) if isinstance(data, dict) else ""
    said += [other] * bool(other)
    said += [f"the key {key!r} stands twice in one object" for key in dict.fromkeys(twice)]
    report.problems += [Problem("broken file", report.file, "", what) for what in said]
    return data if isinstance(data, dict) and not other else None


def _other_task(data: dict) -> str:
    """What else the JSON is; "" for the annotations of a data set."""
    if "shapes" in data and "imagePath" in data:
        return "the labelme file of one image; `minst data convert` makes a data set of them"
    videos, images = (isinstance(data.get(key), list) for key in ("videos", "images"))
    if not images and not videos:
        keys = _said(sorted(data))
        return f"no list 'videos' (YouTube-VIS) and none of 'images' (COCO), its keys are {keys}"
    named = videos and any(isinstance(v, dict) and "file_names" in v for v in data["videos"])
    if images and videos and not named:
        return "videos with one annotation a frame; convert them by `minst data convert`"
    return ""


class _Check:
    """Goes through the entries of one file, and reports."""

    def __init__(self, report: Report, form: formats.Form):
        self.report, self.form = report, form
        # by id, without one by its place: (height, width), None where it is unusable, and the names
        # of its frames, each with its entry
        self.pictures: dict[Any, tuple[tuple[int, int] | None, list[tuple[str, Any]]]] = {}
        self.categories: dict[int, dict] = {}  # by id: its row in the report
        report.form = form.name

    def add(self, kind: str, entry: str, what: str, file: str | Path = "") -> None:
        """Note a problem; file: where (default: what the report is about)."""
        self.report.problems.append(Problem(kind, str(file or self.report.file), entry, what))

    def look(self, entry: str, measure: Callable, *values: Any) -> Any:
        """What `measure` returns; None, and reported, where it raises a Finding."""
        try:
            return measure(*values)
        except Finding as found:
            kind, what = found.args
            self.add(kind, entry, what)
            return None

    def pictures_of(self, entries: list) -> None:
        """Check the videos or images."""
        form, seen = self.form, {}
        for where, entry, typed in self._entries(form.pictures, entries, form.picture, form.names):
            named = self._items(where, entry, form.names, least=1)
            for at, name in named:
                if not _is_name(name):
                    self.add("wrong field", at, f"must be the name of a file, is {_said(name)}")
                elif (first := seen.setdefault(PurePosixPath(name), at)) != at:
                    self.add("file named twice", at, f"{name!r} is {first}, too")
            size = typed.get("height"), typed.get("width")
            self.pictures[typed.get("id", where)] = None if None in size else size, named
            length = entry.get("length", len(named))
            if form is formats.YTVIS and length != len(named):
                what = f"{_said(length)}, but {len(named)} file names"
                self.add("wrong length", f"{where}.length", what)
        frames = sum(len(named) for _, named in self.pictures.values())
        self.report.counts = {form.pictures: len(entries), "frames": frames}

    def categories_of(self, entries: Any) -> None:
        """Check the categories."""
        for _, _, typed in self._entries("categories", entries, formats.Category):
            if "id" in typed:
                row = {"id": typed["id"], "name": typed.get("name", "")}
                row |= {"instances": 0, "masks": 0, self.form.pictures: 0}
                self.categories[typed["id"]] = row
        self.report.categories = list(self.categories.values())
        self.report.counts |= {"instances": 0, "masks": 0, "categories": len(self.categories)}

    def annotations_of(self, entries: Any) -> None:
        """Check the annotations, and count them."""
        if entries is None or entries == []:
            which = "absent or null" if entries is None else "empty"
            self.report.notes.append(f"labels withheld: 'annotations' is {which}")
            return
        form, seen = self.form, set()  # seen: (category, picture)
        walk = self._entries("annotations", entries, form.track, form.masks)
        total = len(entries) if isinstance(entries, list) else 0
        for where, entry, typed in tqdm(walk, "masks", total, disable=None):
            owner, label = typed.get(form.owner), typed.get("category_id")
            for kind, key, name, known in (
                ("unknown picture", form.owner, form.pictures, self.pictures),
                ("unknown category", "category_id", "categories", self.categories),
            ):
                if key in typed and typed[key] not in known:
                    self.add(
                        kind, f"{where}.{key}", f"{typed[key]} is the id of none of the {name}"
                    )
            masks = self._instance(where, entry, *self.pictures.get(owner, (None, None)))
            for counts in (self.report.counts, self.categories.get(label, Counter())):
                counts["instances"] += 1
                counts["masks"] += masks
            if owner in self.pictures:
                seen.add((label, owner))
        for label, _ in seen:
            self.categories.get(label, Counter())[form.pictures] += 1

    def _entries(
        self, name: str, entries: Any, kind: type[msgspec.Struct], later: str = ""
    ) -> Iterator[tuple[str, dict, dict]]:
        """(place, entry, those of its fields that are of their types) of each entry of a list.

        What is no list, no object or of another type is reported, and an id that an earlier entry
        has. later: a field that is looked at elsewhere, one item after another.
        """
        if not isinstance(entries, list):
            self.add("wrong field", name, f"must be a list, is {_said(entries)}")
            return
        ids = set()
        for i, entry in enumerate(entries):
            where, typed = f"{name}[{i}]", {}
            if not isinstance(entry, dict):
                self.add("wrong field", where, f"must be an object, is {_said(entry)}")
                continue
            for wanted in msgspec.structs.fields(kind):
                key = wanted.encode_name
                if key == later:
                    continue
                try:
                    if key in entry:
                        typed[key] = msgspec.convert(entry[key], wanted.type)
                    elif wanted.required:
                        self.add("wrong field", f"{where}.{key}", "is missing")
                except msgspec.ValidationError as error:
                    place, what = formats.explained(error, f"{where}.{key}")
                    self.add("wrong field", place, f"{what}: {_said(entry[key])}")
            number = typed.get("id")
            if number in ids:
                self.add(
                    "duplicate id", f"{where}.id", f"{number} is the id of an earlier one, too"
                )
                del typed["id"]
            elif number == 0 and name in ID_ZERO:
                self.add("id 0", f"{where}.id", ID_ZERO[name])
            ids |= {number} - {None}
            yield where, entry, typed

    def _items(self, where: str, entry: dict, key: str, least: int = 0) -> list[tuple[str, Any]]:
        """[(place, value)] of a key with a value a frame; empty, and reported, if no list."""
        at, value = f"{where}.{key}", entry.get(key)
        if self.form is formats.COCO:
            return [(at, value)]
        if isinstance(value, list) and len(value) >= least:
            return [(f"{at}[{t}]", item) for t, item in enumerate(value)]
        given = _said(value) if key in entry else "missing"
        self.add("wrong field", at, f"must be a list with one for each frame, is {given}")
        return []

    def _instance(
        self, where: str, entry: dict, size: tuple[int, int] | None, named: list | None
    ) -> int:
        """Check the masks, boxes and areas of one annotation; returns how many masks it has."""
        form = self.form
        if entry.get(form.areas) is None:
            given = "null" if form.areas in entry else "missing"
            self.add("no areas", f"{where}.{form.areas}", f"{given}: evaluation needs it")
        given = [key for key in (form.boxes, form.areas) if entry.get(key) is not None]
        items = {key: self._items(where, entry, key) for key in (form.masks, *given)}
        for key, values in items.items():
            frames = len(values if named is None else named)
            if isinstance(entry.get(key), list) and len(values) != frames:
                what = f"{len(values)} of them for {frames} frames"
                self.add("wrong length", f"{where}.{key}", what)
        masks = items[form.masks]
        absent = (None, []) if form is formats.YTVIS else ()
        if masks and all(mask in absent for _, mask in masks):
            self.add("never visible", f"{where}.{form.masks}", "null in every frame")
        measured = [  # None: unknown
            Mask() if mask in absent else self.look(at, _measure, mask, size) for at, mask in masks
        ]
        for key, fits in ((form.boxes, _box_fits), (form.areas, _area_fits)):
            values = items.get(key, [])
            for (at, value), own in zip_longest(values, measured[: len(values)]):
                if value is not None:
                    self.look(at, fits, value, own)
        return sum(mask not in absent for _, mask in masks)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _said(value: Any) -> str:
    return "null" if value is None else reprlib.repr(value)


def _first_of(most: int, things: list) -> list:
    return things[:most] + [f"… and {len(things) - most:,} more"] * (len(things) > most)


def _printable(text: str) -> str:
    """Names come from strangers: no control characters, and nothing that UTF-8 cannot hold."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# ------------------------------------------------------------------------- masks, boxes, areas


def _measure(mask: Any, size: tuple[int, int] | None) -> Mask:
    """RLE or polygons, measured. size: of its frame, if known."""
    if not isinstance(mask, (dict, list)):
        raise Finding("wrong field", f"must be RLE or polygons, is {_said(mask)}")
    height, width = size or LARGEST_FRAME
    try:
        typed = formats.typed(mask, formats.Mask, "")
        if isinstance(typed, formats.RunLengths):
            if size not in (None, typed.size):
                what = "{} x {} in a frame of {} x {}".format(*typed.size, *size)
                raise Finding("mask of another size", what)
            height, width = typed.size
        (code,), (area,) = rle.check([mask], height, width)
    except ValueError as error:
        raise Finding("broken mask", str(error).removeprefix(": ")) from None
    if isinstance(mask, list) and mask:
        _is_within(typed, height, width)
    if area == 0:
        raise Finding("empty mask", "it has no pixel")
    box = tuple(rle_codec.toBbox(code).tolist())
    if area == 1:
        raise Finding("mask of 1 pixel", "at x = {:g}, y = {:g}".format(*box))
    return Mask(float(area), box)


def _is_within(polygons: list[list[float]], height: int, width: int) -> None:
    """Finding where polygons leave their frame."""
    x, y = (np.concatenate([points[k::2] for points in polygons]) for k in (0, 1))
    where = f"x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}"
    where += f", in a frame {width} wide and {height} high"
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        raise Finding("mask outside the frame", where)
    if min(x.min(), y.min()) < -1 or x.max() > width + 1 or y.max() > height + 1:
        raise Finding("mask beyond the frame", where)


def _box_fits(box: Any, own: Mask | None) -> None:
    """Finding where it is no box, or not that of the mask. own: the mask; None: unknown."""
    if not _is(box, formats.Box) or min(box[2:]) < 0 or min(box[:2]) < -1:
        what = f"must be [x, y, width, height] within the frame, is {_said(box)}"
        raise Finding("wrong box", what)
    if own and not own.box and min(box[2:]) > 0:
        raise Finding("box off its mask", f"{_said(box)}, but there is no mask")
    if own and own.box and _overlap(box, own.box) < 0.5:
        shown = ", ".join(f"{n:g}" for n in own.box)
        raise Finding("box off its mask", f"{_said(box)}, the mask's own is [{shown}]")


def _overlap(box: list, own: tuple) -> float:
    """IoU of two boxes, each a pixel wider all round, as those of polygons and pixels differ."""
    wide = [np.array([each], dtype=float) + (-1, -1, 2, 2) for each in (box, own)]
    return float(rle_codec.iou(*wide, [0])[0, 0])


def _area_fits(area: Any, own: Mask | None) -> None:
    """As `_box_fits`."""
    if not _is(area, formats.Area):
        raise Finding("wrong area", f"must be a number of pixels, is {_said(area)}")
    if own and abs(area - own.area) > max(10, min(area, own.area)):  # beyond a factor of two
        raise Finding("area off its mask", f"{_said(area)}, the mask's own is {own.area:g}")


def _is(value: Any, kind: Any) -> bool:
    """Is it of this type, its numbers finite?"""
    try:
        return bool(np.isfinite(msgspec.convert(value, kind)).all())
    except msgspec.ValidationError:
        return False


# -------------------------------------------------------------------------------------- images


def _check_images(check: _Check, folder: Path, split: str | None, read: bool) -> None:
    pictures = check.pictures.values()
    named = [(at, name, size) for size, names in pictures for at, name in names if _is_name(name)]
    root = _image_root(folder, split, [name for _, name, _ in named])
    jobs: dict[Path, tuple[str, tuple[int, int] | None]] = {}
    for at, name, size in named:
        try:
            jobs.setdefault(inside(root, name), (at, size))
        except ValueError:
            check.add("name leads out", at, f"{name!r} is no name within the data set")
    there = set()
    pool = ThreadPoolExecutor()
    try:  # Pillow decodes outside of Python's lock
        looks = pool.map(lambda job: _look(job[0], job[1][1], read), jobs.items())
        looks = tqdm(looks, "images", len(jobs), disable=None)
        for (path, (at, _)), (kind, what) in zip(jobs.items(), looks):
            if kind:
                check.add(kind, at, what, path)
            if os.path.lexists(path):
                there.add(os.path.realpath(path))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C: at once
    _check_unnamed(check, root, there)


def _image_root(folder: Path, split: str | None, names: list[str]) -> Path:
    """Where the images are: as a reader of the first one that is there would look for it."""
    roots = []
    for name in names[:50]:
        try:
            roots.append(find_images(folder, split, name))
            if inside(roots[-1], name).is_file():
                return roots[-1]
        except (ValueError, OSError):  # it leads out, or is longer than a name can be
            continue
    return [*roots, folder][0]


def _look(path: Path, size: tuple[int, int] | None, read: bool) -> tuple[str, str]:
    """What is wrong with one image: (kind, what); the kind is "" if nothing is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: no system has such a name
        kind = "link loop" if getattr(error, "errno", 0) == errno.ELOOP else "missing file"
        hint = "; a backslash is part of a name here, write /" if "\\" in path.name else ""
        return kind, (getattr(error, "strerror", "") or "no name of a file") + hint
    if not stat.S_ISREG(found.st_mode):
        return "missing file", "a folder or device stands there"
    if not found.st_size:
        return "unreadable image", "zero bytes"
    try:
        with open_image(path) as image:
            width, height = image.size
            sizes = {(height, width), (width, height) if files.is_quarter_turned(image) else None}
            if read:
                # of a JPEG every byte is read, but only an eighth of the picture made
                image.draft("L", (1, 1))
                image.load()
    except Exception as error:  # noqa: BLE001 Pillow raises whatever broken bytes lead it to
        what = str(error).removeprefix(f"{path}: ").replace(f" {str(path)!r}", "")
        return "unreadable image", what
    if size and size not in sizes:
        what = f"{width}x{height}, its record says {size[1]}x{size[0]}"
        what += "; turned by 90 degrees?" if (width, height) == size else ""
        return "image of another size", what
    return "", ""


def _check_unnamed(check: _Check, root: Path, named: set[str]) -> None:
    """Images that lie there and no entry names, folder by folder; links to folders stay closed."""
    suffixes = (*IMAGE_SUFFIXES, ".gif")
    for folder, below, names in os.walk(root):
        # in place: what the walk goes on to, and in which order
        below[:] = sorted(name for name in below if not name.startswith("."))
        there = sorted(n for n in names if n.lower().endswith(suffixes) and n[0] != ".")
        unnamed = [n for n in there if os.path.realpath(os.path.join(folder, n)) not in named]
        if unnamed:
            what = f"{len(unnamed)} of its {len(there)} images are named by no entry"
            check.add("images not named", "", f"{what}, the first is {unnamed[0]!r}", folder)
