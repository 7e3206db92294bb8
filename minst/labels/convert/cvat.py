"""CVAT 1.1: one XML file of shapes, with the frame that each is drawn in.

    for video   <track id label> <polygon | mask | box | ellipse frame outside z_order ...>
                images/frame_000000.png, ... ; or the images beside the file, or the video that
                <source> names
    for images  <image name> <polygon label ...>, its identity an attribute track_id, which counts
                within its label; a folder in the names is a video

CVAT lists every frame of a track, interpolated ones too: nothing is interpolated here, and a frame
that is not listed, or has outside="1", does not show the object. Where shapes of different z_order
overlap, the higher one is in front and hides the others; shapes of one z_order keep their overlap.

Assumption: images whose names do not say their frame are numbered in the order of their characters
(1, 10, 2), which is what CVAT does unless the task says otherwise.

Lesson: notebooks/10_capstone.ipynb
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from xml.etree.ElementTree import Element, ParseError, fromstring

import numpy as np
from msgspec import Meta, Struct, defstruct

from minst import rle
from minst.data.files import inside, natural, read_image
from minst.data.formats import typed
from minst.labels.convert import common, files
from minst.labels.convert.common import NO_AREA, Found, Shape, Video, refuse

__all__ = ["read_cvat"]

Whole = Annotated[int, Meta(ge=0)]
# what each shape must say of itself; rle: runs row by row within a box, background first
FIELDS = {
    "polygon": {"points": str},
    "box": dict.fromkeys(("xtl", "ytl", "xbr", "ybr"), float),
    "ellipse": dict.fromkeys(("cx", "cy", "rx", "ry"), float),
    "mask": {"rle": str, **dict.fromkeys(("left", "top", "width", "height"), Whole)},
}
MORE = [("outside", str, "0"), ("z_order", int, 0), ("rotation", float, 0)]  # in degrees
KINDS = {
    kind: defstruct(kind, [("frame", Whole), *fields.items(), *MORE])
    for kind, fields in FIELDS.items()
}


class Task(Struct):
    """What <meta> says."""

    start_frame: Whole = 0
    stop_frame: Whole = 999_999_999
    frame_filter: str = ""
    source: str = ""  # the name of the video

    @property
    def steps(self) -> range:
        """The numbers of the task's frames in its video."""
        step = re.search(r"step\s*=\s*([1-9][0-9]*)", self.frame_filter)
        return range(self.start_frame, self.stop_frame + 1, int(step[1]) if step else 1)


def read_cvat(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """The one video of a file for video, or the folders of one for images."""
    file = files.only_file(source, ".xml", source)
    root = _parse(file)
    found.categories.extend(name.text or "" for name in root.findall("meta//label/name"))
    if root.find("image") is None:
        yield _video(root, file, images, found)
    folders = defaultdict(list)
    for element in root.iterfind("image"):
        name = element.get("name", "").replace("\\", "/")
        folders[str(PurePosixPath(name).parent).strip("./")].append((name, element))
    for folder in sorted(folders, key=natural):
        yield _images(folder, folders[folder], file, images, found)


def _parse(file: Path) -> Element:
    """The root of an XML file that declares no document type: entities, and what they can do, begin
    there."""
    text = files.read_text(file)
    what = "declares a DOCTYPE, or is not in UTF-8, which CVAT never does; refused"
    # zeros: UTF-16, which the parser would see through
    refuse(file, what, "<!DOCTYPE" in text or "\0" in text)
    try:
        root = fromstring(text)
    except ParseError as error:
        raise ValueError(f"{file}: broken XML: {error}") from None
    refuse(file, f"<{root.tag}> is not the <annotations> of CVAT", root.tag != "annotations")
    tasks = {track.get("task_id") for track in root.findall("track")}
    refuse(file, "holds several tasks; export them one by one", len(tasks) > 1)
    return root


def _video(root: Element, file: Path, images: Path | None, found: Found) -> Video:
    meta = {element.tag: element.text for element in root.iterfind("meta//*") if element.text}
    task, tracks = typed(meta, Task, f"{file}: meta", strict=False), root.findall("track")
    what = f"stop_frame {task.stop_frame} comes before start_frame {task.start_frame}"
    refuse(file, what, not task.steps)
    place = images or _place(file.parent, task.source)
    if place.is_file():
        name, numbers, (size, frames) = place.stem, task.steps, files.film(place, task.steps)
    else:
        frames, numbers = _numbered(place, task, found)
        name, size = file.resolve().parent.name, read_image(frames[0]).shape[:2]
    drawn, brushed = [], 0
    for i, track in enumerate(tracks):
        seen = []
        for where, shape in _visible(track, file, task.steps.step, found):
            refuse(where, "there is no image of this frame", shape.frame not in numbers)
            t, label = numbers.index(shape.frame), track.get("label", "")
            seen.append(Shape(where, t, i, label, shape))
        found.lost[common.UNSEEN] += not seen and any(element.tag in KINDS for element in track)
        if len(seen) == 1 and isinstance(seen[0].mask, KINDS["mask"]):
            brushed += 1
            seen = [seen[0]._replace(identity=None if found.link else i)]
        drawn += seen
    if brushed and not found.link and len(numbers) > 1:
        what = f"{brushed} of {len(tracks)} tracks have one frame; CVAT's brush masks have no"
        found.notes.append(f"note: {what} identity; --link makes tracks by overlap")
    return Video(name, size, frames, _shapes(drawn, size, found))


def _place(folder: Path, source: str) -> Path:
    """Where the frames are: the folder images/, the video, or the folder of the file."""
    if (folder / "images").is_dir():
        return folder / "images"
    return inside(folder, source) if source and inside(folder, source).is_file() else folder


def _numbered(place: Path, task: Task, found: Found) -> tuple[list[Path], list[int] | range]:
    """The images, and the frame that each is of: what frame_000012.png says of itself, else counted
    in the order of CVAT."""
    paths = files.images_of(place)
    what = "no images of the frames there; say where they are (--images)"
    refuse(place, what, not paths)
    said = [re.fullmatch(r"frame_([0-9]+)", path.stem) for path in paths]
    if all(said):
        return paths, [int(number[1]) for number in said]
    what = f"{len(paths)} images, the task has {len(task.steps)} frames; which is which? Names"
    is_another = task.stop_frame < Task().stop_frame and len(paths) != len(task.steps)
    refuse(place, f"{what} such as frame_000012 would say it", is_another)
    ordered = sorted(paths, key=lambda path: path.name)
    if ordered != paths:
        names = ", ".join(path.name for path in ordered[:3])
        what = f"images are taken in the order of their characters ({names}, …), as CVAT sorts them"
        what += "; if the task was sorted in another way, name them frame_000000, frame_000001, …"
        found.notes.append(f"note: {what}")
    return ordered, task.steps[: len(paths)]


def _visible(track: Element, file: Path, step: int, found: Found) -> Iterator[tuple[str, Any]]:
    """The visible shapes of one track, each with its place. step: from a frame to the next."""
    of_track, seen, last = f"{file}: track {track.get('id')} ({track.get('label')})", set(), None
    for element in track:
        where = f"{of_track}, frame {element.get('frame')}"
        if element.tag not in KINDS:
            found.lost[NO_AREA.format(element.tag)] += element.get("outside") != "1"
            continue
        shape = typed(element.attrib, KINDS[element.tag], where, strict=False)
        refuse(where, "stands there twice", shape.frame in seen)
        seen.add(shape.frame)
        gap = 0 if last is None else max(0, (shape.frame - last) // step - 1)
        found.lost["frames that the file leaves out within a track, taken for not visible"] += gap
        last = None if shape.outside == "1" else shape.frame
        if last is not None:
            yield where, shape


def _images(folder: str, named: list, file: Path, images: Path | None, found: Found) -> Video:
    """One folder of a file for images. named: (name, element) of each."""
    named.sort(key=lambda entry: natural(entry[0]))
    places = [images] if images else [file.parent / "images", file.parent]
    place = next((p for p in places if inside(p, named[0][0]).is_file()), places[-1])
    paths = [inside(place, name) for name, _ in named]
    size, drawn = read_image(paths[0]).shape[:2], []
    for t, (name, image) in enumerate(named):
        for i, element in enumerate(image):
            where = f"{file}: image {name}, shape {i} ({element.tag})"
            if element.tag not in KINDS:
                found.lost[NO_AREA.format(element.tag)] += 1
                continue
            shape = typed({**element.attrib, "frame": t}, KINDS[element.tag], where, strict=False)
            said = {a.get("name"): a.text for a in element.iterfind("attribute")} | element.attrib
            number = (said.get("track_id") or said.get("instance_id") or "").strip()
            label = element.get("label", "")
            drawn.append(Shape(where, t, (label, number) if number else None, label, shape))
    name = folder or file.resolve().parent.name
    return Video(name, size, paths, _shapes(drawn, size, found))


def _shapes(drawn: list[Shape], size: tuple[int, int], found: Found) -> list[Shape]:
    """Masks of what is drawn, one of KINDS each, frame by frame from the highest z_order down: what
    is in front is cut out of what is behind. The order stays that of `drawn`."""
    masks = {}
    frontal = sorted(range(len(drawn)), key=lambda i: (drawn[i].frame, -drawn[i].mask.z_order))
    for _, frame in groupby(frontal, key=lambda i: drawn[i].frame):
        front = np.zeros(size, dtype=bool)
        for _, layer in groupby(frame, key=lambda i: drawn[i].mask.z_order):
            covered = front.copy()
            for i in layer:
                mask = _mask(drawn[i].mask, size, drawn[i].where, found)
                hidden = int((mask & front).sum())
                found.lost["pixels behind a shape of higher z_order"] += hidden
                masks[i] = rle.encode(mask & ~front)
                covered |= mask
            front = covered
    return [shape._replace(mask=masks[i]) for i, shape in enumerate(drawn)]


def _mask(shape: Any, size: tuple[int, int], where: str, found: Found) -> np.ndarray:
    match type(shape).__name__:
        case "polygon":
            points = [point.split(",") for point in shape.points.split(";")]
        case "box":
            found.lost[common.BOXES] += 1
            points = common.corners([shape.xtl, shape.ytl, shape.xbr, shape.ybr], shape.rotation)
        case "ellipse":
            points = common.ellipse(shape.cx, shape.cy, shape.rx, shape.ry, shape.rotation)
        case "mask":
            return _unrolled(shape, size, where)
    return common.polygon_mask(points, size, where)


def _unrolled(shape: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """The mask of runs, which must lie within the frame before it is made."""
    width, height = shape.width, shape.height
    rows_columns = common.window(shape.left, shape.top, width, height, size, where)
    words = [word.strip() for word in shape.rle.split(",")]
    runs = typed(words, list[Whole], f"{where}: rle", strict=False)
    what = f"rle covers {sum(runs)} pixels, its box {width}x{height}"
    refuse(where, what, sum(runs) != width * height)
    mask = np.zeros(size, dtype=bool)
    mask[rows_columns] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return mask
