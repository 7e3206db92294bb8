"""YOLO's text files (Ultralytics): one a frame, a line an object, in shares of width and height.

    labels/<frame>.txt   class x1 y1 x2 y2 ... [confidence] [id]   polygons, as of `yolo track`
                         class x y width height [confidence] [id]  boxes
    images/<frame>.jpg   beside labels/; or the film, with --images, whose frames count from 1
    data.yaml            names: the classes; or classes.txt, one a line

Frames `clip_1`, `clip_2`, ... are the video `clip`; others that of their folder. An id counts
within its class. An image without a text shows no object.

Lesson: notebooks/10_capstone.ipynb
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

import numpy as np

from minst import rle
from minst.data.files import natural, read_image
from minst.labels.convert import common, files
from minst.labels.convert.common import Found, Shape, Video, refuse

__all__ = ["read_yolo", "yolo_folders"]

NUMBER = r"-?\d+(\.\d*)?(e[-+]?\d+)?"
ROW = re.compile(rf"\d+(\s+{NUMBER}){{4,}}.*")
# "clip_12" is frame 12 of clip; of what Roboflow appends the frame's name comes first
FRAME = re.compile(r"(.*?)[_-]?(\d*)(?:_(?:jpe?g|png)\.rf\..*)?")


def yolo_folders(source: Path) -> list[Path]:
    """The folders of texts: the first line of one of them is a class and shares of the image."""
    below = [inner for folder in files.subfolders(source) for inner in files.subfolders(folder)]
    folders = [source, *files.subfolders(source), *below]
    return [folder for folder in folders if any(map(_is_labels, files.visible(folder, ".txt")))]


def _is_labels(path: Path) -> bool:
    line = files.head(path).partition("\n")[0]
    return bool(ROW.fullmatch(line)) and max(map(float, line.split()[1:5])) <= 1.5


def read_yolo(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their folders and names."""
    folders = yolo_folders(source)
    refuse(source, "no labels/ with .txt files of YOLO there", not folders)
    names = _class_names(source)
    found.categories.extend(names.values())
    for folder in folders:
        texts = {path.stem: path for path in files.visible(folder, ".txt")}
        texts.pop("classes", None)
        place, videos = _images(source, folder, images), defaultdict(dict)
        stems = texts if place.is_file() else {p.stem: p for p in files.images_of(place)}
        for missing in sorted(texts.keys() - stems.keys()):
            what = f"there is no image of this name in {place}; say where they are (--images)"
            refuse(texts[missing], what)
        for stem in sorted(stems, key=natural):
            prefix, number = FRAME.fullmatch(stem).groups()
            videos[prefix if number else ""][stem] = int(number or 0)
        parts = [part for part in folder.relative_to(source).parts if part != "labels"]
        what = f"texts of several films ({', '.join(videos)}); convert them one by one"
        refuse(folder, what, place.is_file() and len(videos) > 1)
        for prefix, frames in videos.items():
            shown = [stems[stem] for stem in frames]
            if place.is_file():
                refuse(shown[0], "frames of a film count from 1", min(frames.values()) < 1)
                size, shown = files.film(place, range(max(frames.values())))
            else:
                size, frames = read_image(shown[0]).shape[:2], dict(zip(frames, count(1)))
            rows = [
                (f"{texts[stem]}: line {i}", frames[stem] - 1, line.split())
                for stem in sorted(frames.keys() & texts.keys(), key=frames.get)
                for i, line in enumerate(files.read_text(texts[stem]).splitlines(), 1)
                if line.strip()
            ]
            name = "-".join(filter(None, [*parts, prefix])) or source.resolve().name
            yield Video(name, size, shown, [*_shapes(rows, size, names, found)])


def _images(source: Path, folder: Path, images: Path | None) -> Path:
    """The film, or the folder of the images: Ultralytics' path, labels/ called images/."""
    if images is None:
        parts = folder.relative_to(source).parts
        swapped = source.joinpath(*("images" if part == "labels" else part for part in parts))
        places = [swapped, source / "images", source.parent / "images", folder]
    elif images.is_file():
        return images
    else:
        places = [images / part for part in (folder.name, folder.parent.name)]
        places = [place for place in places if place.is_dir()] + [images]
    return next((place for place in places if files.images_of(place)), places[0])


def _shapes(rows: list, size: tuple[int, int], names: dict, found: Found) -> Iterator[Shape]:
    """rows: (place, frame, words) of each line of a video."""
    # pairs of numbers after the class, or also a confidence and an id, which then ends every line
    odd = [words for _, _, words in rows if len(words) % 2]
    ends_in_id = all(words[-1].isdecimal() for words in odd)
    for where, t, (label, *words) in rows:
        number = None
        if words and (len(words) % 2 or ends_in_id):
            last = words.pop()
            number = int(last) if last.isdecimal() else None
            words = words[: len(words) // 2 * 2]
        try:
            points = np.array(words, dtype=float).reshape(-1, 2)
            kind = int(label)
            if len(points) < 2 or not (np.abs(points) <= 2).all():
                raise ValueError
        except ValueError:
            what = "not 'class x1 y1 x2 y2 ... [id]', numbers from 0 to 1"
            raise ValueError(f"{where}: {what}") from None
        points = points * (size[1], size[0])
        if len(points) == 2:  # the middle of a box, its width and height
            found.lost[common.BOXES] += 1
            points = common.corners([*(points[0] - points[1] / 2), *(points[0] + points[1] / 2)])
        mask = rle.encode(common.polygon_mask(points, size, where))
        category = names.get(kind, f"class {kind}")
        yield Shape(where, t, None if number is None else (kind, number), category, mask)


def _class_names(source: Path) -> dict[int, str]:
    """Names by number: of data.yaml, of which `names` alone is read, or classes.txt."""
    names = ("data.yaml", "classes.txt")
    places = (place / name for name in names for place in (source, source.parent))
    file = next((path for path in places if path.is_file()), None)
    if file is None:
        return {}
    text = files.read_text(file)
    if file.suffix == ".txt":
        return dict(enumerate(text.strip().splitlines()))
    block = re.split(r"^names:", text, maxsplit=1, flags=re.MULTILINE)[-1].strip()
    if block[:1] in ("[", "{"):
        entries = re.split(r"[\]}]", block[1:])[0].split(",")
    else:
        entries = takewhile(lambda line: re.match(r"[\s\d#-]|$", line), block.splitlines())
    names: dict[int, str] = {}
    for entry in entries:
        number, name = re.match(r"\s*(?:-|(\d+)\s*:)?\s*(.*?)\s*(?:#|$)", entry).groups()
        if name:
            names[int(number) if number else len(names)] = name.strip("'\"")
    return names
