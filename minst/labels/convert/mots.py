"""MOTS (KITTI MOTS, MOTSChallenge): text files or 16-bit PNGs, and images beside them.

    instances_txt/<video>.txt, <video>/gt/gt.txt     a line a mask:
                                                     frame, id, class, height, width, compressed RLE
    instances/<video>/<frame>.png, instances/*.png   ids as pixels; CVAT adds labels.txt, one class a
                                                     line from 1 on
    training/image_02/<video>, image_02/<video>, images/<video>, <video>/img1, images: the images

id = 1000 class + instance; without labels.txt the classes are 1 car, 2 pedestrian. 10000 is a region
to be ignored, whatever the class: it becomes one crowd track for each category.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minst import rle
from minst.data.files import natural, read_image
from minst.labels.convert.common import (
    Found,
    Masks,
    Track,
    Video,
    image_files,
    numbered_frames,
    read_text,
    subfolders,
)

__all__ = ["mots_sequences", "read_mots"]

IGNORE = 10_000
CLASSES = ("car", "pedestrian")
OF_IDS = ("I;16", "I;16B", "I"), "the 16 bit of MOTS"


def mots_sequences(source: Path) -> list[tuple[str, Path]]:
    """Name and annotations, a .txt or a folder of PNGs, of each video."""
    if source.is_file():
        return [(source.stem, source)]
    pngs = source / "instances"
    texts = [*(source / "instances_txt").glob("*.txt")] or [*source.glob("*.txt")]
    found = [(t.stem, t) for t in sorted(texts, key=natural) if t.stem != "labels"]
    found = found or [
        (f.resolve().name, f / "gt" / "gt.txt") for f in (*subfolders(source), source)
    ]
    found = [(name, text) for name, text in found if text.is_file()]
    found = found or [(f.name, f) for f in subfolders(pngs) if image_files(f)]
    return found or [(source.resolve().name, pngs)] * bool(image_files(pngs))


def read_mots(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their names."""
    sequences = mots_sequences(source)
    if not sequences:
        what = "no instances_txt/, instances/, gt/gt.txt or <video>/gt/gt.txt there"
        raise ValueError(f"{source}: {what}")
    root = source if source.is_dir() else source.parent
    labels = [f / "labels.txt" for f in (root / "instances", root)]
    labels = [read_text(file).rstrip().splitlines() for file in labels if file.is_file()]
    found.categories.extend([*labels, CLASSES][0])
    for name, place in sequences:
        paths = _images(root, images, name)
        if place.is_file():
            size = read_image(paths[0]).shape[:2]
            masks = _read_text(place, paths, size)
        else:
            paths, size, masks = numbered_frames(place, paths, *OF_IDS, found)
        tracks = []
        for identity in sorted(masks.keys() - {IGNORE}):
            number, names = identity // 1000, found.categories
            if number == 0:
                file = place / f"{paths[min(masks[identity])].stem}.png"
                what = f"id {identity} has no class; ids are 1000 class + instance"
                raise ValueError(f"{file}: {what}")
            category = names[number - 1] if number <= len(names) else f"class {number}"
            tracks.append(Track(category, masks[identity]))
        if IGNORE in masks:
            tracks += [Track(category, masks[IGNORE], crowd=True) for category in found.categories]
        yield Video(name, size, paths, tracks)


def _images(root: Path, images: Path | None, name: str) -> list[Path]:
    beside = [root / place for place in ("training/image_02", "image_02", "images", "")]
    base = [images] if images else beside
    folders = [folder for b in base for folder in (b / name / "img1", b / name)]
    for folder in [*folders, *(b / "img1" for b in base), *base]:
        if paths := image_files(folder):
            return paths
    raise ValueError(f"{root}: no images of video {name} there; say where they are (--images)")


def _read_text(file: Path, paths: list[Path], size: tuple[int, int]) -> Masks:
    """The masks of a text file. A frame's number is the one at the end of its image's name."""
    ends = [re.search(r"([0-9]+)$", path.stem) for path in paths]
    index = {int(end[1]): t for t, end in enumerate(ends) if end}
    masks: Masks = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where, words = f"{file}: line {number}", line.split()
        if not words:
            continue
        if len(words) != 6 or not all(word.isdecimal() for word in words[:5]):
            raise ValueError(f"{where}: not 'frame id class height width rle'")
        frame, identity, category, *said = map(int, words[:5])
        if identity // 1000 != category or category == 0:
            what = f"id {identity} is not of class {category}; ids are 1000 class + instance"
            raise ValueError(f"{where}: {what}")
        if frame not in index:
            raise ValueError(f"{where}: there is no image of frame {frame}")
        if tuple(said) != size:
            what = f"a mask of {said[1]}x{said[0]}, the images are {size[1]}x{size[0]}"
            raise ValueError(f"{where}: {what}")
        try:
            mask = rle.decode({"size": said, "counts": words[5]}, *size)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        track = masks.setdefault(identity, {})
        before = track.get(index[frame])
        if before and identity != IGNORE:
            raise ValueError(f"{where}: id {identity} has another mask in frame {frame}")
        track[index[frame]] = rle.encode(mask | rle.decode(before, *size))
    return masks
