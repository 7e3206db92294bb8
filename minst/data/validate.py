"""Is a data set whole? Every problem of annotations and images, named with file and entry, none of which stops the rest.

    DIR, its JSON ─ check_dataset ─> Report: counts, categories, problems ─ print ─> table     ─ save ─> JSON
                     │ entries   fields, ids, lengths, names
                     │ masks     measured without pycocotools wherever it might crash on a broken one
                     └ images    headers, then all bytes, in threads; what lies there and is not named

YouTube-VIS ("videos") and COCO ("images": videos of one frame) are told apart by their keys. The readers stop at the
first error, this goes on, so it reads raw JSON. An error is what a reader, training or evaluation would fail on or learn
wrongly; a warning is worth a look.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst.data.files import inside, read_json, replacing
from minst.data.layouts import find_annotations, find_images, split_of

__all__ = ["ERRORS", "WARNINGS", "Problem", "Report", "check_dataset"]

ERRORS = ("broken file", "wrong field", "duplicate id", "unknown picture", "unknown category", "wrong length",
          "file named twice", "name leads out", "missing file", "link loop", "unreadable image",
          "image of another size", "broken mask", "mask of another size", "mask outside the frame", "empty mask",
          "never visible", "wrong box", "wrong area")  # fmt: skip
WARNINGS = ("id 0", "no areas", "mask beyond the frame", "mask of 1 pixel", "box off its mask", "area off its mask",
            "images not named")  # fmt: skip
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SHOWN, SHOWN_CATEGORIES = 3, 12  # examples of a kind of problem, and categories, in the printed table
LARGEST_SIDE = 65_535  # pixels, as in JPEG; pycocotools counts the pixels of a frame in 32 bits


class Problem(NamedTuple):
    """Something wrong in a dataset, and where."""

    kind: str  # one of ERRORS or WARNINGS
    file: str  # the annotation file, or an image
    entry: str  # "annotations[17].segmentations[3]"
    what: str

    @property
    def level(self) -> str:
        """"error": it must be mended; "warning": it may be meant."""
        return "error" if self.kind in ERRORS else "warning"

    def __str__(self) -> str:
        return _printable(": ".join(part for part in (self.file, self.entry, self.what) if part))


@dataclass
class Report:
    """What `check_dataset` found. Prints as a table."""

    file: str
    form: str = "unknown"
    counts: dict[str, int] = field(default_factory=dict)  # videos or images, frames, instances, masks, categories
    categories: list[dict] = field(default_factory=list)  # id, name, instances, masks, and videos or images
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """The problems that must be mended."""
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """The problems that may be meant."""
        return [problem for problem in self.problems if problem.level == "warning"]

    def add(self, kind: str, entry: str, what: str, file: str | Path | None = None) -> None:
        """Note a problem; file: where it is, default the file that the report is about."""
        self.problems.append(Problem(kind, str(file or self.file), entry, what))

    def save(self, path: str | Path) -> None:
        """Everything as JSON: all problems, not the first of each kind."""
        problems = [{"level": problem.level, **problem._asdict()} for problem in self.problems]
        with replacing(path) as file:
            file.write_text(json.dumps({**vars(self), "problems": problems}, indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        lines = [f"{_printable(self.file)}: {self.form} form"]
        lines += [f"  {name:12}{count:10,}" for name, count in self.counts.items()]
        rows = sorted(self.categories, key=lambda row: -row["instances"])  # id, name, three counts
        cells = [("category", *list(row)[2:]) for row in rows[:1]]
        cells += [(_printable(row["name"])[:20], *list(row.values())[2:]) for row in rows[:SHOWN_CATEGORIES]]
        lines += ["  {:20}{:>12}{:>12}{:>12}".format(*cell) for cell in cells]
        lines += [f"  … and {len(rows) - SHOWN_CATEGORIES} more"] if len(rows) > SHOWN_CATEGORIES else []
        lines += [f"note: {note}" for note in self.notes]
        for kind in (*ERRORS, *WARNINGS):
            found = [problem for problem in self.problems if problem.kind == kind]
            texts = [str(problem) for problem in found[:SHOWN]]
            texts += [f"… and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
            heads = [f"{problem.level:8}{kind:23}{len(found):6,}  " for problem in found[:1]] + [" " * 39] * SHOWN
            lines += [head + text for head, text in zip(heads, texts)]
        return "\n".join([*lines, f"errors: {len(self.errors):,}, warnings: {len(self.warnings):,}"])


def check_dataset(
    folder: str | Path, split: str | None = None, annotations: str | Path | None = None, read_images: bool = True
) -> Report:
    """Check a folder in YouTube-VIS or COCO form: its annotation file, every mask, every image.

    split, annotations: as for the readers. read_images: decode every image in full; False: only its size, from its
    header, so that a file cut short goes unseen. Raises OSError when there is nothing to check; whatever stands in the
    files is reported, not raised.
    """
    folder = Path(folder)
    file = Path(annotations) if annotations else find_annotations(folder, split)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder of images", str(folder))
    report = Report(str(file))
    data, form = _load(report, file)
    if form:
        report.form = form.name
        pictures = _check_pictures(report, form, data[form.pictures])
        categories = _check_categories(report, form, data.get("categories"))
        frames = sum(len(picture.names) for picture in pictures.values())
        report.counts = {form.pictures: len(data[form.pictures]), "frames": frames, "instances": 0, "masks": 0}
        report.counts["categories"] = len(categories)
        _check_annotations(report, form, data.get("annotations"), pictures, categories)
        _check_images(report, folder, split or split_of(folder, file), pictures, read_images)
    return report


class Form(NamedTuple):
    """How a form calls its things."""

    name: str
    pictures: str
    names: str
    owner: str
    masks: str
    boxes: str
    areas: str


YTVIS = Form("YouTube-VIS", "videos", "file_names", "video_id", "segmentations", "bboxes", "areas")
COCO = Form("COCO", "images", "file_name", "image_id", "segmentation", "bbox", "area")


class Picture(NamedTuple):
    """A video or an image."""

    size: tuple[int, int] | None  # height, width; None: unusable, and already reported
    names: list[tuple[str, Any]]  # entry and name of each frame


class Mask(NamedTuple):
    """Area and box (x, y, width, height) of a mask, or what is wrong with it; empty: it has no pixel."""

    area: float = 0
    box: tuple[float, ...] = ()
    kind: str = ""
    what: str = ""


# ---------------------------------------------------------------------------------------------- entries


def _load(report: Report, file: Path) -> tuple[Any, Form | None]:
    try:
        data = read_json(file)
        other = _other_task(data)
    except (ValueError, RecursionError) as error:
        data, other = None, str(error).removeprefix(f"{file}: ")
    if other:
        report.add("broken file", "", other)
        return None, None
    return data, YTVIS if isinstance(data.get("videos"), list) else COCO


def _other_task(data: Any) -> str:
    """What else the JSON is; "" for the annotations of a data set."""
    if not isinstance(data, dict):
        what = "a list, as results are" if isinstance(data, list) else _said(data)
        return f"holds {what}; annotations are an object with a list 'videos' or 'images'"
    if "shapes" in data and "imagePath" in data:
        return "the labelme file of one image; `minst data convert` makes a data set of a folder of them"
    videos, images = (isinstance(data.get(key), list) for key in ("videos", "images"))
    if images and videos and not any(isinstance(v, dict) and "file_names" in v for v in data["videos"]):
        return "videos with one annotation a frame; `minst data convert` makes YouTube-VIS form of them"
    if not images and not videos:
        return f"no list 'videos' (YouTube-VIS) and none of 'images' (COCO), its keys are {_said(sorted(data))}"
    return ""


def _objects(report: Report, name: str, entries: Any) -> Iterator[tuple[str, dict]]:
    """The entries of a list, with their places; what is no list, or no object, is reported."""
    if not isinstance(entries, list):
        report.add("wrong field", name, f"must be a list, is {_said(entries)}")
        return
    for i, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield f"{name}[{i}]", entry
        else:
            report.add("wrong field", f"{name}[{i}]", f"must be an object, is {_said(entry)}")


def _check_pictures(report: Report, form: Form, entries: list) -> dict[Any, Picture]:
    """{id: picture}; one without an id of its own stands under its place."""
    pictures: dict[Any, Picture] = {}
    seen: dict[PurePosixPath, str] = {}
    for where, entry in _objects(report, form.pictures, entries):
        number = _check_id(report, where, entry, pictures)
        sides = [_field(report, where, entry, key, "a number of pixels") for key in ("height", "width")]
        names = _check_names(report, form, where, entry, seen)
        pictures[where if number is None else number] = Picture(None if None in sides else tuple(sides), names)
        if form is YTVIS and entry.get("length", len(names)) != len(names):
            report.add("wrong length", f"{where}.length", f"{_said(entry['length'])}, but {len(names)} file names")
    return pictures


def _check_names(report: Report, form: Form, where: str, entry: dict, seen: dict[PurePosixPath, str]) -> list:
    at = f"{where}.{form.names}"
    if form is COCO:
        named = [(at, entry.get(form.names))]
    else:
        names = _field(report, where, entry, form.names, "a list of names") or []
        named = [(f"{at}[{t}]", name) for t, name in enumerate(names)]
    for at, name in named:
        if not _is_name(name):
            report.add("wrong field", at, f"must be the name of a file, is {_said(name)}")
        elif seen.setdefault(PurePosixPath(name), at) != at:
            report.add("file named twice", at, f"{name!r} is {seen[PurePosixPath(name)]}, too")
    return named


def _check_categories(report: Report, form: Form, entries: Any) -> dict[int, dict]:
    """{id: its row in the report}."""
    rows: dict[int, dict] = {}
    for where, entry in _objects(report, "categories", entries):
        name, number = _field(report, where, entry, "name", "a text"), _check_id(report, where, entry, rows)
        if number == 0:
            report.add("id 0", f"{where}.id", "many tools take category 0 for the background; number them from 1")
        if number is not None:
            rows[number] = {"id": number, "name": name or "", "instances": 0, "masks": 0, form.pictures: 0}
    report.categories = list(rows.values())
    return rows


def _check_annotations(report: Report, form: Form, entries: Any, pictures: dict, categories: dict) -> None:
    if entries is None or entries == []:
        report.notes.append(f"labels withheld: 'annotations' is {'empty' if entries == [] else 'absent or null'}")
        return
    ids: dict[int, None] = {}
    seen: set[tuple] = set()  # (category, picture)
    progress = tqdm(total=len(entries) if isinstance(entries, list) else 0, desc="masks", disable=None)
    for where, entry in _objects(report, "annotations", entries):
        number = _check_id(report, where, entry, ids)
        ids[number] = None
        if number == 0:
            report.add("id 0", f"{where}.id", "official evaluation takes annotation 0 for 'not found'")
        owner, label = (_field(report, where, entry, key, "a whole number") for key in (form.owner, "category_id"))
        if owner is not None and owner not in pictures:
            report.add("unknown picture", f"{where}.{form.owner}", f"{owner} is the id of none of the {form.pictures}")
        if label is not None and label not in categories:
            report.add("unknown category", f"{where}.category_id", f"{label} is the id of none of the categories")
        masks = _check_instance(report, form, where, entry, pictures.get(owner))
        row = categories.get(label, {form.pictures: 0, "instances": 0, "masks": 0})
        row[form.pictures] += owner in pictures and (label, owner) not in seen
        seen.add((label, owner))
        for counts in (report.counts, row):
            counts["instances"], counts["masks"] = counts["instances"] + 1, counts["masks"] + masks
        progress.update()
    progress.close()


def _check_instance(report: Report, form: Form, where: str, entry: dict, picture: Picture | None) -> int:
    """Check the masks, boxes and areas of one annotation; returns how many masks it has."""
    if entry.get("iscrowd") not in (0, 1, None):
        report.add("wrong field", f"{where}.iscrowd", f"must be 0 or 1, is {_said(entry['iscrowd'])}")
    if entry.get(form.areas) is None:
        report.add("no areas", f"{where}.{form.areas}", f"{_given(entry, form.areas)}: evaluation needs it")
    masks, boxes, areas = (
        _per_frame(report, form, where, entry, key, picture) for key in (form.masks, form.boxes, form.areas)
    )
    absent = (None, []) if form is YTVIS else ()
    if masks and all(mask in absent for _, mask in masks):
        report.add("never visible", f"{where}.{form.masks}", "null in every frame")
    measured: list[Mask | None] = []  # None: unknown
    for at, mask in masks:
        own = Mask() if mask in absent else _measure(mask, picture.size if picture else None)
        if own.kind:
            report.add(own.kind, at, own.what)
        measured.append(None if own.kind else own)
    for values, check in ((boxes, _check_box), (areas, _check_area)):
        for (at, value), own in zip_longest(values, measured[: len(values)]):
            if value is not None:
                check(report, at, value, own)
    return sum(mask not in absent for _, mask in masks)


def _per_frame(report: Report, form: Form, where: str, entry: dict, key: str, picture: Picture | None) -> list:
    """[(place, value)] of each frame; empty for what is absent or, then reported, no list."""
    where, value = f"{where}.{key}", entry.get(key)
    if value is None and key != form.masks:
        return []
    if form is COCO:
        return [(where, value)]
    if not isinstance(value, list):
        report.add("wrong field", where, f"must be a list with one for each frame, is {_given(entry, key)}")
        return []
    if picture and len(value) != len(picture.names):
        report.add("wrong length", where, f"{len(value)} of them for {len(picture.names)} frames")
    return [(f"{where}[{t}]", item) for t, item in enumerate(value)]


def _check_id(report: Report, where: str, entry: dict, known: dict) -> int | None:
    number = _field(report, where, entry, "id", "a whole number")
    if number is not None and number in known:
        report.add("duplicate id", f"{where}.id", f"{number} is the id of an earlier one, too")
        return None
    return number


def _field(report: Report, where: str, entry: dict, key: str, wanted: str) -> Any:
    """The value of `key` if it is what is wanted, else None, and the report says so."""
    value = entry.get(key)
    fits = {
        "a text": isinstance(value, str),
        "a list of names": isinstance(value, list) and len(value) > 0,
        "a whole number": _is_whole(value),
        "a number of pixels": _is_whole(value) and 1 <= value <= LARGEST_SIDE,
    }[wanted]
    if not fits:
        report.add("wrong field", f"{where}.{key}", f"must be {wanted}, is {_given(entry, key)}")
    return value if fits else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _numbers(values: Any) -> np.ndarray | None:
    """A list of finite numbers as an array; None if it is anything else."""
    try:
        array = np.array(values) if isinstance(values, list) else np.array("")
    except (ValueError, OverflowError):  # lists of lists of several lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in "if" and np.isfinite(array).all() else None


def _given(entry: dict, key: str) -> str:
    return _said(entry[key]) if key in entry else "missing"


def _said(value: Any) -> str:
    return "null" if value is None else reprlib.repr(value)


def _printable(text: str) -> str:
    """Names come from strangers: no control characters of a terminal, and nothing that UTF-8 cannot hold."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# ---------------------------------------------------------------------------------------------- masks, boxes, areas


def _measure(segmentation: Any, size: tuple[int, int] | None) -> Mask:
    """Area and box of RLE or polygons, or what is wrong with them. size: of the frame, where it is known."""
    if isinstance(segmentation, dict):
        mask = _measure_rle(segmentation, size)
    elif isinstance(segmentation, list):
        mask = _measure_polygons(segmentation, size)
    else:
        return Mask(kind="wrong field", what=f"must be RLE or polygons, is {_said(segmentation)}")
    if not mask.kind and mask.area < 1:
        return Mask(kind="empty mask", what="it has no pixel")
    if not mask.kind and mask.area == 1:
        return Mask(kind="mask of 1 pixel", what="at x = {:g}, y = {:g}".format(*mask.box))
    return mask


def _measure_rle(code: dict, size: tuple[int, int] | None) -> Mask:
    """Runs of background and foreground in turn, down the columns."""
    own, counts = code.get("size"), code.get("counts")
    if not (isinstance(own, list) and len(own) == 2 and all(_is_whole(n) and 1 <= n <= LARGEST_SIDE for n in own)):
        return Mask(kind="broken mask", what=f"its size must be [height, width], is {_given(code, 'size')}")
    if size and tuple(own) != size:
        return Mask(kind="mask of another size", what="{} x {} in a frame of {} x {}".format(*own, *size))
    runs = _unpack(counts) if isinstance(counts, str) else _numbers(counts)
    if runs is None or runs.dtype.kind != "i" or not len(runs) or runs.min() < 0:
        return Mask(kind="broken mask", what=f"its counts are no lengths of runs: {_given(code, 'counts')}")
    height, pixels = own[0], own[0] * own[1]
    covered = int(runs.sum()) if runs.max() <= pixels else int(runs.max())  # no sum that overflows
    if covered != pixels:
        return Mask(kind="broken mask", what=f"its runs cover {covered} pixels, the frame has {pixels}")
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]  # runs may be empty
    if not len(first):
        return Mask()
    left, right = int(first[0]) // height, int(last[-1]) // height
    across = (first // height != last // height).any()  # a run that goes on in the next column
    top, bottom = (0, height - 1) if across else (int((first % height).min()), int((last % height).max()))
    return Mask(float((last - first + 1).sum()), (left, top, right - left + 1, bottom - top + 1))


def _unpack(text: str) -> np.ndarray | None:
    """The run lengths of a compressed RLE; None where it is none.

    A number is little-endian, five bits a character: 32 says "goes on", 16 of the last one is the sign. From the fourth
    on a number is the difference to the one before the last.
    """
    char = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) - np.uint8(48)  # below "0" it wraps round
    if not len(char) or char.max() > 63 or char[-1] > 31:
        return None
    last = np.flatnonzero(char < 32)
    first = np.append(0, last[:-1] + 1)
    digits = last - first + 1
    if digits.max() > 7:  # 35 bits: more pixels than any frame has
        return None
    place = np.arange(len(char)) - np.repeat(first, digits)
    number = np.add.reduceat((char & 31).astype(np.int64) << 5 * place, first)
    number -= (char[last] >> 4 & 1).astype(np.int64) << 5 * digits
    for side in (1, 2):
        number[side::2] = np.cumsum(number[side::2])
    return number


def _measure_polygons(polygons: list, size: tuple[int, int] | None) -> Mask:
    """What is far outside of the frame is not drawn: pycocotools walks along every edge."""
    for k, points in enumerate(polygons):
        if _numbers(points) is None or len(points) < 6 or len(points) % 2:
            what = f"polygon {k} must be a list x1, y1, x2, y2, ... of at least three points, is {_said(points)}"
            return Mask(kind="broken mask", what=what)
    if not polygons:
        return Mask()
    height, width = size or (LARGEST_SIDE, LARGEST_SIDE)
    x, y = ([value for points in polygons for value in points[k::2]] for k in (0, 1))
    left, right, top, bottom = min(x), max(x), min(y), max(y)
    where = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}, in a frame {width} wide and {height} high"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return Mask(kind="mask outside the frame", what=where)
    if min(left, top) < -1 or right > width + 1 or bottom > height + 1:
        return Mask(kind="mask beyond the frame", what=where)
    code = rle_codec.merge(rle_codec.frPyObjects(polygons, height, width))
    return Mask(float(rle_codec.area(code)), tuple(rle_codec.toBbox(code).tolist()))


def _check_box(report: Report, at: str, box: Any, own: Mask | None) -> None:
    """own: the mask; None: unknown."""
    if _numbers(box) is None or len(box) != 4 or min(box[2:]) < 0 or min(box[:2]) < -1:
        report.add("wrong box", at, f"must be [x, y, width, height] within the frame, is {_said(box)}")
    elif own and not own.box and min(box[2:]) > 0:
        report.add("box off its mask", at, f"{_said(box)}, but there is no mask")
    elif own and own.box and _overlap(box, own.box) < 0.5:
        shown = ", ".join(f"{n:g}" for n in own.box)
        report.add("box off its mask", at, f"{_said(box)}, the mask's own is [{shown}]")


def _overlap(box: list, own: tuple) -> float:
    """IoU of two boxes, each a pixel wider all round: those of polygons and of pixels differ by that."""
    sides = (min(box[k] + box[k + 2], own[k] + own[k + 2]) - max(box[k], own[k]) + 2 for k in (0, 1))
    shared = math.prod(max(side, 0) for side in sides)
    return shared / ((box[2] + 2) * (box[3] + 2) + (own[2] + 2) * (own[3] + 2) - shared)


def _check_area(report: Report, at: str, area: Any, own: Mask | None) -> None:
    if _numbers([area]) is None or area < 0:
        report.add("wrong area", at, f"must be a number of pixels, is {_said(area)}")
    elif own and abs(area - own.area) > max(10, min(area, own.area)):  # beyond a factor of two
        report.add("area off its mask", at, f"{_said(area)}, the mask's own is {own.area:g}")


# ---------------------------------------------------------------------------------------------- images


def _check_images(report: Report, folder: Path, split: str | None, pictures: dict[Any, Picture], read: bool) -> None:
    named = [(at, name, p.size) for p in pictures.values() for at, name in p.names if _is_name(name)]
    root = _image_root(folder, split, [name for _, name, _ in named])
    jobs: dict[Path, tuple[str, tuple[int, int] | None]] = {}
    for at, name, size in named:
        try:
            jobs.setdefault(inside(root, name), (at, size))
        except ValueError:
            report.add("name leads out", at, f"{name!r} is no name within the data set")
    there = set()
    pool = ThreadPoolExecutor()
    try:  # Pillow decodes outside of Python's lock
        looks = pool.map(lambda job: _look(job[0], job[1][1], read), jobs.items())
        for (path, (at, _)), (kind, what) in zip(jobs.items(), tqdm(looks, "images", len(jobs), disable=None)):
            if kind:
                report.add(kind, at, what, path)
            if os.path.lexists(path):
                there.add(os.path.realpath(path))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C: at once
    _check_unnamed(report, root, there)


def _image_root(folder: Path, split: str | None, names: list[str]) -> Path:
    """Where the images are: as a reader of the first one that is there would look for it."""
    roots = []
    for name in names[:50]:
        try:
            roots.append(find_images(folder, split, name))
            if (roots[-1] / name).is_file():
                return roots[-1]
        except (ValueError, OSError):  # it leads out of the data set, or is longer than a name can be
            continue
    return [*roots, folder][0]


def _look(path: Path, size: tuple[int, int] | None, read: bool) -> tuple[str, str]:
    """What is wrong with one image: (kind, what); the kind is "" if nothing is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: no system has such a name
        loop = getattr(error, "errno", 0) == errno.ELOOP
        return "link loop" if loop else "missing file", getattr(error, "strerror", "") or "no name of a file"
    if not stat.S_ISREG(found.st_mode):
        return "missing file", "a folder or device stands there"
    if not found.st_size:
        return "unreadable image", "zero bytes"
    try:
        with Image.open(path) as image:
            width, height = image.size
            if read:
                image.draft("L", (1, 1))  # of a JPEG every byte is read, but only an eighth of the picture made
                image.load()
    except Exception as error:  # Pillow's decoders raise whatever broken bytes lead them to
        return "unreadable image", f"{type(error).__name__}: {error}".replace(f" {str(path)!r}", "")
    if size and (height, width) != size:
        turned = "; turned by 90 degrees?" if (width, height) == size else ""
        return "image of another size", f"{width}x{height}, its record says {size[1]}x{size[0]}{turned}"
    return "", ""


def _check_unnamed(report: Report, root: Path, named: set[str]) -> None:
    """Images that lie there and no entry names, folder by folder; and links that lead in a circle."""
    walked = {os.path.realpath(root)}
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below.sort()  # in place: the order of the walk
        for name in list(below):
            target = os.path.realpath(os.path.join(folder, name))
            if f"{real}{os.sep}".startswith(f"{target}{os.sep}"):
                report.add("link loop", "", "a link that leads to a folder it stands in", os.path.join(folder, name))
            if target in walked or name.startswith("."):
                below.remove(name)
            walked.add(target)
        files = sorted(name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        unnamed = [name for name in files if os.path.realpath(os.path.join(folder, name)) not in named]
        if unnamed:
            what = f"{len(unnamed)} of its {len(files)} images are named by no entry, the first is {unnamed[0]!r}"
            report.add("images not named", "", what, folder)
