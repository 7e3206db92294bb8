"""Video files and folders of images, in and out, a frame at a time.

    clip.mp4, clip.mov, ...   ─┐                                     ┌─>  write_mp4   H.264, plays everywhere
                               ├─ read_video ─> (H, W, 3) bytes ... ─┤
    folder/1.jpg, 2.jpg, ...  ─┘                                     └─>  write_gif   one palette, small

Reading keeps one frame in memory, whatever the length of the video. A phone's "turn me upright" note is obeyed.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from minst.data.files import read_image

__all__ = ["VideoInfo", "read_video", "video_info", "write_gif", "write_mp4"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
GIF_COLORS = 255
GIF_TOLERANCE = 14  # of 255: what changes less than this from frame to frame stands still, and then costs nothing


class VideoInfo(NamedTuple):
    """What a video says of itself."""

    width: int  # of the upright picture
    height: int
    frames: int | None  # None when the file does not say
    fps: float | None  # None for a folder of images


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video file, or of a folder of JPEG / PNG images in natural order (2 before 10).

    Errors come at once where they can: FileNotFoundError for a missing path, ValueError for a folder without images or
    a file without video. Broken data and images of another size than the first raise ValueError when their turn comes.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(_images(path))
    _open(path).close()
    return _read_file(path)


def video_info(path: str | Path) -> VideoInfo:
    """Size, number of frames and frame rate; decodes the first frame. Raises what `read_video` raises."""
    path = Path(path)
    first = next(read_video(path), None)
    if first is None:
        raise ValueError(f"{path}: holds no frames")
    height, width = first.shape[:2]
    if path.is_dir():
        return VideoInfo(width, height, len(_images(path)), None)
    with _open(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate) if stream.average_rate else None
        return VideoInfo(width, height, stream.frames or None, fps)


def write_mp4(frames: Iterable[np.ndarray], path: str | Path, fps: float = 8.0) -> Path:
    """Write (H, W, 3) bytes as H.264 (yuv420p, for browsers and phones); odd sizes repeat their last row or column."""
    path, rate = Path(path), _rate(fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = None
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            for image in frames:
                size = _check_size(image, size)
                if not container.streams.video:
                    stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
                    stream.height, stream.width = (n + n % 2 for n in size)
                    stream.pix_fmt = "yuv420p"
                even = np.pad(image, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            if size is None:
                raise ValueError(f"{path}: no frames to write")
            container.mux(stream.encode())  # what the encoder still holds back
    except BaseException:  # Ctrl-C too: half a file would look like a whole one
        path.unlink(missing_ok=True)
        raise
    return path


def write_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float = 8.0) -> Path:
    """Write (H, W, 3) bytes as an endless GIF: one adaptive palette for all frames, no dither, calm pixels kept.

    Needs all frames at once to choose the palette: for short clips.
    """
    path, rate = Path(path), _rate(fps)
    frames, size = list(frames), None
    for image in frames:
        size = _check_size(image, size)
    if size is None:
        raise ValueError(f"{path}: no frames to write")
    sample = np.concatenate(frames[:: max(1, len(frames) // 8)])[::3, ::3]
    palette = Image.fromarray(sample).quantize(GIF_COLORS, Image.Quantize.MEDIANCUT)
    shown, pictures = frames[0], []
    for image in frames:
        moved = np.abs(image.astype(np.int16) - shown).max(-1, keepdims=True) > GIF_TOLERANCE
        shown = np.where(moved, image, shown)
        pictures.append(Image.fromarray(shown).quantize(palette=palette, dither=Image.Dither.NONE))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0)
    return path


def _images(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise ValueError(f"{folder}: no {', '.join(IMAGE_SUFFIXES)} images in this folder")
    parts = {path: re.split(r"([0-9]+)", path.name) for path in paths}
    return sorted(paths, key=lambda path: [(int(s), "") if s.isdigit() else (-1, s) for s in parts[path]])


def _read_folder(paths: list[Path]) -> Iterator[np.ndarray]:
    size = None
    for path in paths:
        image = read_image(path)
        size = size or image.shape[:2]
        if image.shape[:2] != size:
            raise ValueError(
                f"{path}: {image.shape[1]}x{image.shape[0]}, but {paths[0].name} is {size[1]}x{size[0]}; "
                "the images of a video must have one size"
            )
        yield image


def _open(path: Path) -> av.container.InputContainer:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror})") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path}: holds no video stream")
    return container


def _read_file(path: Path) -> Iterator[np.ndarray]:
    count = 0
    with _open(path) as container:
        try:
            for frame in container.decode(video=0):
                turns = round(getattr(frame, "rotation", 0) / 90)  # a phone held upright films lying and says so
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                count += 1
        except av.error.FFmpegError as error:
            raise ValueError(f"{path}: broken after frame {count} ({error.strerror})") from None


def _rate(fps: float) -> Fraction:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps!r}; it must lie above 0, up to 1000")
    return Fraction(fps).limit_denominator(1001)


def _check_size(image: np.ndarray, size: tuple[int, int] | None) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"frames must be (H, W, 3) bytes, got {image.shape} {image.dtype}")
    if size is not None and image.shape[:2] != size:
        raise ValueError(f"frames of different size: {image.shape[:2]} after {size} (height, width)")
    return image.shape[:2]
