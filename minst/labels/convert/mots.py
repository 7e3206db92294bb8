"""MOTS (KITTI MOTS, MOTSChallenge): text files or 16-bit PNGs, and images beside them.

    instances_txt/<video>.txt, <video>/gt/gt.txt     a line a mask: frame, id, class, height, width, compressed RLE
    instances/<video>/<frame>.png, instances/*.png   ids as pixels; CVAT adds labels.txt, one class a line from 1 on
    images: training/image_02/<video>, image_02/<video>, images/<video>, <video>/img1, images

id = 1000 class + instance; without labels.txt the classes are 1 car, 2 pedestrian. 10000 is a region to be ignored,
whatever the class: it becomes one crowd track for each category.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minst import rle
from minst.data.files import natural, read_image
from minst.labels.convert.common import (
    Found,
    Track,
    Video,
    image_files,
    index_image,
    read_text,
    subfolders,
)

__all__ = ["mots_sequences", "read_mots"]

IGNORE = 10_000
CLASSES = ("car", "pedestrian")


def mots_sequences(source: Path) -> list[tuple[str, Path]]:
    """Name and annotations, a .txt or a folder of PNGs, of each video."""
    if source.is_file():
        return [(source.stem, source)]
    texts = sorted((source / "instances_txt").glob("*.txt"), key=natural) or sorted(
        source.glob("*.txt"), key=natural
    )
    pngs = [
        folder
        for folder in (*subfolders(source / "instances"), source / "instances")
        if image_files(folder)
    ]
    truth = [
        folder for folder in (*subfolders(source), source) if (folder / "gt" / "gt.txt").is_file()
    ]
    return (
        [(text.stem, text) for text in texts if text.stem != "labels"]
        or [(folder.resolve().name, folder / "gt" / "gt.txt") for folder in truth]
        or [
            ((source if folder.name == "instances" else folder).resolve().name, folder)
            for folder in pngs
        ]
    )


def read_mots(source: Path, images: Path | None, found: Found) -> Iterator[Video]:
    """Videos in natural order of their names."""
    sequences = mots_sequences(source)
    if not sequences:
        raise ValueError(
            f"{source}: no instances_txt/, instances/, gt/gt.txt or <video>/gt/gt.txt there"
        )
    root = source if source.is_dir() else source.parent
    labels = next(
        (p for p in (root / "instances" / "labels.txt", root / "labels.txt") if p.is_file()), None
    )
    found.categories.extend(read_text(labels).rstrip().splitlines() if labels else CLASSES)
    for name, place in sequences:
        paths = _images(root, images, name)
        size = read_image(paths[0]).shape[:2]
        if place.is_file():
            masks = _read_text(place, paths, size)
        else:
            stems = {path.stem for path in image_files(place)}
            found.lost["images without a PNG of ids, left out"] += sum(
                path.stem not in stems for path in paths
            )
            masks = _read_pngs(place, paths := [p for p in paths if p.stem in stems], size)
        tracks = [Track(_category(i, found), masks[i]) for i in sorted(masks) if i != IGNORE]
        if IGNORE in masks:
            tracks += [Track(category, masks[IGNORE], crowd=True) for category in found.categories]
        yield Video(name, size, [(path.name, path) for path in paths], tracks)


def _images(root: Path, images: Path | None, name: str) -> list[Path]:
    base = (
        [images]
        if images
        else [root / "training" / "image_02", root / "image_02", root / "images", root]
    )
    folders = (
        [f for b in base for f in (b / name / "img1", b / name)] + [b / "img1" for b in base] + base
    )
    for folder in folders:
        if paths := image_files(folder):
            return paths
    raise ValueError(f"{root}: no images of video {name} there; say where they are (--images)")


def _category(identity: int, found: Found) -> str:
    number = identity // 1000
    return found.categories[number - 1] if number <= len(found.categories) else f"class {number}"


def _read_text(file: Path, paths: list[Path], size: tuple[int, int]) -> dict[int, dict[int, dict]]:
    """{id: {index of the frame: RLE}} of a text file. A frame's number is the one at the end of its image's name."""
    ends = [re.search(r"([0-9]+)$", path.stem) for path in paths]
    index = {int(end[1]): t for t, end in enumerate(ends) if end}
    masks: dict[int, dict[int, dict]] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where, words = f"{file}: line {number}", line.split()
        if not words:
            continue
        if len(words) != 6 or not all(word.isdecimal() for word in words[:5]):
            raise ValueError(f"{where}: not 'frame id class height width rle'")
        frame, identity, category, *said = map(int, words[:5])
        if identity // 1000 != category or category == 0:
            raise ValueError(
                f"{where}: id {identity} is not of class {category}; ids are 1000 class + instance"
            )
        if frame not in index:
            raise ValueError(f"{where}: there is no image of frame {frame}")
        if tuple(said) != size:
            raise ValueError(
                f"{where}: a mask of {said[1]}x{said[0]}, the images are {size[1]}x{size[0]}"
            )
        try:
            mask = rle.decode({"size": said, "counts": words[5]}, *size)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        track = masks.setdefault(identity, {})
        if index[frame] in track and identity != IGNORE:
            raise ValueError(f"{where}: id {identity} has another mask in frame {frame}")
        before = track.get(index[frame])
        track[index[frame]] = rle.encode(mask | rle.decode(before, *size))
    return masks


def _read_pngs(
    folder: Path, paths: list[Path], size: tuple[int, int]
) -> dict[int, dict[int, dict]]:
    """{id: {index of the frame: RLE}} of a folder of PNGs, each named as its image."""
    index, masks = {path.stem: t for t, path in enumerate(paths)}, {}
    for path in image_files(folder):
        if path.stem not in index:
            raise ValueError(f"{path}: there is no image of this name")
        ids = index_image(path, ("I;16", "I;16B", "I"), "the 16 bit of MOTS", size)
        for identity in np.unique(ids[ids > 0]).tolist():
            if identity < 1000:
                raise ValueError(
                    f"{path}: id {identity} has no class; ids are 1000 class + instance"
                )
            masks.setdefault(identity, {})[index[path.stem]] = rle.encode(ids == identity)
    return masks
