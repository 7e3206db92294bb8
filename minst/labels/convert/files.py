"""Files that the readers of all formats go through: folders, texts, PNGs of numbers, films, zips.

Lesson: notebooks/10_capstone.ipynb
"""

import contextlib
import errno
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from minst import rle
from minst.data.files import image_files, inside, natural, open_image, read_image
from minst.data.video import read_video, video_info
from minst.labels.convert.common import Found, Shape, refuse

__all__ = [
    "film", "head", "images_of", "numbered", "only_file", "read_text", "subfolders",
    "unpacked", "visible",
]  # fmt: skip

# of a zip; images hardly shrink, XML and JSON to a twentieth: what claims more than both is a bomb
MOST_FILES, LARGEST, MOST_TIMES = 500_000, 2**28, 100


def visible(folder: Path, suffix: str = "") -> list[Path]:
    """What lies in a folder and is not hidden, in natural order; none if it is no folder."""
    paths = folder.iterdir() if folder.is_dir() else ()
    shown = (path for path in paths if path.name[0] != "." and path.name.endswith(suffix))
    return sorted(shown, key=lambda path: natural(path.name))


def images_of(*folders: Path) -> list[Path]:
    """The images of the first of some folders that has any, in natural order; none if none has."""
    return next(filter(None, (image_files(visible(folder)) for folder in folders)), [])


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder in natural order; none if it is no folder."""
    return [path for path in visible(folder) if path.is_dir()]


def only_file(source: Path, suffix: str, *folders: Path) -> Path:
    """`source`, if it is a file, else the only file of this suffix in the folders."""
    files = [source] if source.is_file() else []
    files = files or [path for folder in folders for path in visible(folder, suffix)]
    names = ", ".join(path.name for path in files[:4])
    which = f"several {suffix} files ({names})" if files else f"no {suffix} file"
    refuse(source, f"{which} there; name the one to read", len(files) != 1)
    return files[0]


def read_text(path: Path) -> str:
    """A text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not text in UTF-8 ({error.reason} at byte {error.start})"
        raise ValueError(f"{path}: {what}") from None


def head(path: Path) -> str:
    """How a text file begins: blanks before it, and the zeros of UTF-16, left out."""
    with path.open("rb") as file:
        return file.read(4000).replace(b"\0", b"").decode("utf-8-sig", "replace").strip()


def numbered(
    folders: dict[str, Path], shown: list[Path], modes: str, what: str, found: Found
) -> tuple[list[Path], tuple[int, int], list[Shape]]:
    """PNGs whose pixels are numbers of instances, 0 the background, each named as its image.

    folders: of PNGs, by the object that they show; "": of several, by their pixels. shown: the
    images. modes: of Pillow, one channel; what: those modes in words. Returns the images that have
    a PNG, their size, and the shapes by number, without category.
    """
    pngs = defaultdict(list)
    for name, folder in folders.items():
        for png in visible(folder, ".png"):
            pngs[png.stem].append((name, png))
    for missing in sorted(pngs.keys() - {path.stem for path in shown}):
        refuse(pngs[missing][0][1], "there is no image of this name")
    paths = [path for path in shown if path.stem in pngs]
    found.lost["frames without a PNG, left out"] += len(shown) - len(paths)
    size, shapes = read_image(paths[0]).shape[:2], []
    for t, path in enumerate(paths):
        for name, png in pngs[path.stem]:
            with open_image(png) as image:
                numbers, mode = np.array(image), image.mode
            refuse(png, f"an image of mode {mode}, not {what}", mode not in modes.split())
            said = "{1}x{0}, its image is {3}x{2}".format(*numbers.shape, *size)
            refuse(png, said, numbers.shape != size)
            if name:
                masks = {int(name) if name.isdecimal() else name: numbers > 0}
            else:
                masks = {n: numbers == n for n in np.unique(numbers[numbers > 0]).tolist()}
            shapes += [Shape(str(png), t, n, "", rle.encode(masks[n])) for n in masks]
    shapes.sort(key=lambda shape: natural(shape.identity))
    return paths, size, shapes


def film(path: Path, steps: range) -> tuple[tuple[int, int], Iterator[tuple[str, np.ndarray]]]:
    """The size of a video file, and its frames of these numbers with names."""
    info = video_info(path)
    return (info.height, info.width), _frames(path, steps)


def _frames(path: Path, steps: range) -> Iterator[tuple[str, np.ndarray]]:
    frames = read_video(path)
    for number in count():
        with warnings.catch_warnings(record=True) as broken:
            warnings.simplefilter("always")
            image = next(frames, None) if number <= steps[-1] else frames.close()
        if broken:  # it skipped some: the frames after them would have the masks of others
            raise ValueError(f"{broken[0].message}; give its frames as images (--images)")
        if image is None:
            return
        if number in steps:
            yield f"{number:06d}.jpg", image


@contextlib.contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """`source`; of a zip a folder of its content. ValueError says what is wrong with the zip.

    A zip comes from strangers: how large it says it is, and where its names lead, is checked before
    a byte is written. Python reads no more of a file than its stated size.
    """
    if not (source.is_file() and source.suffix.lower() == ".zip"):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="minst-") as folder:
        content = Path(folder) / source.stem  # the name of the video, if nothing else is one
        try:
            _unpack(source, content)
            yield content
        except ValueError as error:  # of the readers, too: the folder is gone when it is read
            raise ValueError(str(error).replace(str(content), str(source))) from None


def _unpack(source: Path, content: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            # macOS adds a folder of its own
            ours = (e for e in archive.infolist() if not e.filename.startswith("__MACOSX/"))
            entries = [entry for entry in ours if not entry.is_dir()]
            total, size = sum(entry.file_size for entry in entries), source.stat().st_size
            what = f"{len(entries):,} files of {total:,} bytes in a zip of {size:,}, is it a bomb?"
            is_bomb = len(entries) > MOST_FILES or total > max(LARGEST, MOST_TIMES * size)
            refuse(source, f"{what} Unpack it first, if you trust it", is_bomb)
            paths = [inside(content, entry.filename.replace("\\", "/")) for entry in entries]
            content.mkdir()
            for path, entry in zip(paths, entries):
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, path.open("wb") as file:
                    shutil.copyfileobj(packed, file)
    # RuntimeError: a password, or an unknown method; OSError: places and names that cannot be
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise ValueError(f"{source}: not a readable zip ({error}); unpack it first") from None
