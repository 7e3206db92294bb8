"""Files in and out: JSON, images, names that stay within their folder, writing whole or not at all.

    path ─ read_json ─> content         folder, name of a file ─ inside ─> path within the folder
    path ─ read_image ─> (H, W, 3)      replacing, new_folder: complete, or as it was before

Lesson: notebooks/10_capstone.ipynb
"""

import contextlib
import errno
import glob
import io
import json
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, ImageOps

try:
    import fcntl
except ImportError:  # Windows has no such locks: what a killed writer left stays there
    fcntl = None

__all__ = [
    "IMAGE_SUFFIXES", "TwiceError", "image_files", "inside", "is_quarter_turned", "natural",
    "new_folder", "open_image", "read_image", "read_json", "replacing", "unfinished",
]  # fmt: skip

# the frames of a video that is a folder; a GIF is a video of its own
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Pillow's names of the formats that pictures come in; EPS would start another program to draw it
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
ORIENTATION = 0x0112  # the EXIF tag


@contextlib.contextmanager
def open_image(source: str | Path | bytes) -> Iterator[Image.Image]:
    """An image file, or the content of one, as Pillow opens it, its pixels as they are stored.

    ValueError names a file that is missing, empty, cut short, too large, no image, or no file: a
    pipe would be waited for without end.
    """
    name = "an image in memory" if isinstance(source, bytes) else source
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):
            raise OSError("a folder or device")
        readable = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(readable, formats=IMAGE_FORMATS) as image:
            if image.mode == "F":
                raise OSError("its levels are floating-point; save it with 8 or 16 bits")
            yield image
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except (OSError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable image ({error})") from None


def read_image(source: str | Path | bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as it is to be seen, (H, W, 3) bytes; ValueError as `open_image`.

    It is turned as the note of its camera says, laid on white where it is transparent, and scaled
    to 8 bits. size: height and width by its record; a quarter turn that contradicts it is not made,
    since then whoever made the record saw the stored pixels.
    """
    with open_image(source) as image:
        is_as_recorded = size and size[0] != size[1] and image.size == (size[1], size[0])
        if not (is_as_recorded and is_quarter_turned(image)):
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # 16 bits, or 32 of which 16 are used
            levels = np.asarray(image).astype(np.uint32) // 257
            image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        elif image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        # a copy: torch warns of arrays that cannot be written to
        return np.array(image.convert("RGB"))


def is_quarter_turned(image: Image.Image) -> bool:
    """Does the note of its camera say that height and width change places?"""
    return image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)


class TwiceError(ValueError):
    """A key that stands twice in one object of a JSON file."""

    def __init__(self, path: object, key: str):
        super().__init__(f"{path}: the key {key!r} stands twice in one object")


def read_json(path: str | Path) -> dict | list:
    """A JSON file in UTF-8; ValueError says where it is broken."""

    def each_once(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise TwiceError(path, next(key for key in found if keys.count(key) > 1))
        return found

    try:
        # some editors begin with a mark
        text = Path(path).read_text(encoding="utf-8-sig").rstrip()
        return json.loads(text, object_pairs_hook=each_once)
    except TwiceError:
        raise
    except json.JSONDecodeError as error:
        if not text:
            raise ValueError(f"{path}: is empty") from None
        place, what = f"line {error.lineno}, column {error.colno}", error.msg
        if error.pos >= len(text) or text[-1] not in "}]":
            what += "; the file breaks off, was it copied whole?"
        raise ValueError(f"{path}: broken JSON at {place}: {what}") from None
    except UnicodeDecodeError as error:
        what = f"{error.reason} at byte {error.start}"
        raise ValueError(f"{path}: not JSON in UTF-8 ({what})") from None
    except (ValueError, RecursionError) as error:  # another encoding, thousands of digits
        what = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}: broken JSON: {what}") from None


def inside(folder: str | Path, name: str) -> Path:
    """`folder`/`name`; ValueError when `name` is absolute, climbs up by "..", is empty or no text.

    Annotation files come from strangers: none may point a reader, or a writer, at files outside of
    its data set. What is looked at is the name alone: a folder may be a link to another disk.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ValueError(f"{folder}: {name!r} is no name of a file")
    # an annotation file made on one system is read on the other
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            what = "leads out of the data set; names must stay within it"
            raise ValueError(f"{folder}: the name {name!r} {what}")
    # elsewhere than on Windows a backslash may be part of a name
    is_windows = "\\" in name and not os.path.exists(Path(folder) / name)
    return Path(folder) / (name.replace("\\", "/") if is_windows else name)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to, beside `path`; it is moved there if no error comes.

    So a disk that is full or a Ctrl-C leaves the old file as it was, or none. Folders above `path`
    are made. OSError names `path` and what is wrong (read-only, no space, a folder stands there).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder stands there")
        _sweep(path.parent, f".{glob.escape(path.stem)}.{'[0-9a-f]' * 8}{path.suffix}")
        beside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
        beside.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from None
    try:
        with _held(beside):
            yield beside
            os.replace(beside, path)
    except OSError as error:
        raise _of(path, beside, error) from None
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished(folder: str | Path) -> Iterator[Path]:
    """A new folder within `folder` for what is not complete yet; it is gone afterwards."""
    _sweep(Path(folder), ".unfinished-*")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as new, _held(Path(new)):
        yield Path(new)


def _sweep(folder: Path, names: str) -> None:
    """Remove what writers have left that were killed: the system has taken their locks away."""
    for left in folder.glob(names) if fcntl else ():
        with contextlib.suppress(OSError), _held(left, is_ours=False):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextlib.contextmanager
def _held(path: Path, is_ours: bool = True) -> Iterator[None]:
    """With the lock of a file or folder that is being written; OSError for another's in use."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # some network disks have no locks
            if not is_ours:
                raise
        yield
    finally:
        os.close(handle)


def _of(path: Path, beside: Path, error: OSError) -> OSError:
    """What went wrong with `beside`, said of `path`: nobody knows the name of the unfinished."""
    if str(beside) not in str(error.filename or beside):
        return error
    return OSError(error.errno, f"not written ({error.strerror or error})", str(path))


@contextlib.contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write into; what it holds moves up into `out`, new or empty, if no error comes.

    It stands within `out`, which may be a mounted disk, or where a shell stands. What a writer left
    there that was killed is removed. ValueError where `out` holds anything else.
    """
    out, was_there = Path(out), Path(out).exists()
    held = out.iterdir() if out.is_dir() else [out] * was_there
    if not all(path.name.startswith(".unfinished-") for path in held):
        raise ValueError(f"{out} is not an empty folder; choose another one or empty it first")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with unfinished(out) as beside:
            yield beside
            # files last: annotations say that their images are there
            for path in sorted(beside.iterdir(), key=Path.is_file):
                path.rename(out / path.name)
    except OSError as error:
        raise _of(out, out, error) from None
    finally:
        if not was_there:
            with contextlib.suppress(OSError):  # it holds what was written
                out.rmdir()


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those that are images and not hidden, 2 before 10."""
    images = (p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted(images, key=natural)


def natural(name: object) -> list:
    """A sort key under which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", str(name))
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]
