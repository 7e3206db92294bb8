"""MOTS (KITTI MOTS, MOTSChallenge): text files or 16-bit PNGs, and images beside them.

    instances_txt/<video>.txt, <video>/gt/gt.txt     a line a mask:
                                                     frame, id, class, height, width, compressed RLE
    instances/<video>/<frame>.png, instances/*.png   ids as pixels; CVAT adds labels.txt, a class a
                                                     line from 1 on
    training/image_02/<video>, image_02/<video>, images/<video>, <video>/img1, images: the images

id = 1000 class + instance; without labels.txt the classes are 1 car, 2 pedestrian. 10000 is a
region to be ignored, whatever the class: it becomes one crowd track for each category.

Lesson: notebooks/10_capstone.ipynb
"""

import re
from collections.abc import Iterator
from pathlib import Path

from minst import rle
from minst.data.files import read_image
from minst.labels.convert.common import Found, Shape, Video, refuse
from minst.labels.convert.files import images_of, numbered, read_text, subfolders, visible

__all__ = ["mots_sequences", "read_mots"]

IGNORE = 10_000
CLASSES = ("car", "pedestrian")
OF_IDS = "I;16 I;16B I", "the 16 bit of MOTS"


def mots_sequences(source: Path) -> list[tuple[str, Path]]:
    """Name and annotations, a .txt or a folder of PNGs, of each video."""
    if source.is_file():
        return [(source.stem, source)]
    pngs = source / "instances"
    texts = visible(source / "instances_txt", ".txt") or visible(source, ".txt")
    found = [(text.stem, text) for text in texts if text.stem != "labels"]
    found = found or [(f.resolve().name, f / "gt/gt.txt") for f in (*subfolders(source), source)]
    found = [(name, text) for name, text in found if text.is_file()]
    found = found or [(f.name, f) for f in subfolders(pngs) if images_of(f)]
    return found or [(source.resolve().name, pngs)] * bool(images_of(pngs))


def read_mots(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their names."""
    sequences = mots_sequences(source)
    what = "no instances_txt/, instances/, gt/gt.txt or <video>/gt/gt.txt there"
    refuse(source, what, not sequences)
    root = source if source.is_dir() else source.parent
    labels = [f / "labels.txt" for f in (root / "instances", root)]
    labels = [read_text(file).rstrip().splitlines() for file in labels if file.is_file()]
    names = [*labels, CLASSES][0]
    found.categories.extend(names)
    for name, place in sequences:
        paths = _images(root, images, name)
        if place.is_file():
            size = read_image(paths[0]).shape[:2]
            shapes = sorted(_read_text(place, paths, size), key=lambda shape: shape.identity)
        else:
            paths, size, shapes = numbered({"": place}, paths, *OF_IDS, found)
        tracks, ignored = [], []
        for shape in shapes:
            number = shape.identity // 1000
            what = f"id {shape.identity} has no class; ids are 1000 class + instance"
            refuse(shape.where, what, number == 0)
            category = names[number - 1] if number <= len(names) else f"class {number}"
            tracks += [shape._replace(category=category)] * (shape.identity != IGNORE)
            ignored += [shape] * (shape.identity == IGNORE)
        for category in names:
            crowd = {"identity": (IGNORE, category), "category": category, "crowd": True}
            tracks += [shape._replace(**crowd) for shape in ignored]
        yield Video(name, size, paths, tracks)


def _images(root: Path, images: Path | None, name: str) -> list[Path]:
    beside = [root / place for place in ("training/image_02", "image_02", "images", "")]
    base = [images] if images else beside
    folders = [folder for b in base for folder in (b / name / "img1", b / name)]
    paths = images_of(*folders, *(b / "img1" for b in base), *base)
    refuse(root, f"no images of video {name} there; say where they are (--images)", not paths)
    return paths


def _read_text(file: Path, paths: list[Path], size: tuple[int, int]) -> Iterator[Shape]:
    """The masks of a text file. A frame's number is the one at the end of its image's name."""
    ends = [re.search(r"([0-9]+)$", path.stem) for path in paths]
    index = {int(end[1]): t for t, end in enumerate(ends) if end}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where, words = f"{file}: line {number}", line.split()
        if not words:
            continue
        is_row = len(words) == 6 and all(word.isdecimal() for word in words[:5])
        refuse(where, "not 'frame id class height width rle'", not is_row)
        frame, identity, category, *said = map(int, words[:5])
        what = f"id {identity} is not of class {category}; ids are 1000 class + instance"
        refuse(where, what, identity // 1000 != category or category == 0)
        refuse(where, f"there is no image of frame {frame}", frame not in index)
        what = f"a mask of {said[1]}x{said[0]}, the images are {size[1]}x{size[0]}"
        refuse(where, what, tuple(said) != size)
        try:
            (code,), _ = rle.check([{"size": said, "counts": words[5]}], *size)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield Shape(where, index[frame], identity, "", code)
