"""Video files, folders of images and webcams, in and out, a frame at a time.

    clip.mp4 .mov .webm .gif       ─┐              ┌─ read_video ─> (H, W, 3) bytes ...     ┌─>  write_mp4   H.264
    folder/, "frames/**/*.png"      ├─ one frame  ─┤                                       ─┤
    0, 1, ...  a webcam            ─┘  in memory   └─ read_timed ─> bytes, and when shown   └─>  write_gif   small

A phone's "turn me upright" note is obeyed, in videos and in photographs. What is transparent becomes white. Times are
true: a video whose rate varies, or of which frames are missing, is written as long as it was. Sound is dropped.

Broken frames are skipped, with one warning at the end that counts them. Frames that build upon a lost one are kept, as
every player does: they may be smeared until the next key frame. What the reader of a container leaps over without a word
(webm does) cannot be counted, but leaves a true gap in time.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import glob
import itertools
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from minst.data.files import natural, read_image, replacing

__all__ = [
    "TimedFrame", "VideoInfo", "read_timed", "read_video", "video_info", "write_gif", "write_mp4",
]  # fmt: skip

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
GIF_COLORS = 255
GIF_TOLERANCE = 14  # of 255: what changes less than this from frame to frame stands still, and then costs nothing
LOOK = 500  # packets in which `video_info` looks for a rate that varies: reading all of a long video takes too long
REORDERED = 16  # at most so many frames wait for a later packet (H.264's limit)
CUT_SECONDS = 1.0  # a video that ends so much before it says it does was cut short
CLOCK = 90_000  # ticks a second of the videos that we write
# FFmpeg's name of each system's webcams
CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


class VideoInfo(NamedTuple):
    """What a video says of itself."""

    width: int  # of the upright picture
    height: int
    frames: int | None  # None when the file does not say
    fps: float | None  # the average; None for images
    seconds: float | None = None  # None for images, for a webcam, or when the file does not say
    varies: bool = False  # some frames are shown longer than others; judged by the first 500

    @property
    def expected(self) -> int | None:
        """`frames`, or about as many as its seconds and rate say."""
        known = self.seconds and self.fps
        return self.frames or (round(self.seconds * self.fps) if known else None)


class TimedFrame(NamedTuple):
    """A frame and when it is shown."""

    image: np.ndarray  # (H, W, 3) uint8
    seconds: float | None  # since the start of the video; None for images


def read_video(source: str | Path | int) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of a video file; of JPEG / PNG images, a folder's or those a pattern names ("a/*.png",
    "a/**/*.jpg"), in natural order (2 before 10); or, without end, of a webcam by number.

    Errors come at once where they can: FileNotFoundError for what is missing, ValueError for a folder without images or
    a file without video. Broken frames are skipped with a warning; ValueError when none can be read, or when an image
    has another size than the first.
    """
    return (frame.image for frame in read_timed(source))


def read_timed(source: str | Path | int) -> Iterator[TimedFrame]:
    """`read_video`, with the time at which each frame is shown."""
    found, broken = _find(source), []
    if isinstance(found, list):
        return _told(_read_images(found, broken), source, broken)
    return _told(_read_stream(_open(found), broken), source, broken)


def video_info(source: str | Path | int) -> VideoInfo:
    """Size, number of frames and frame rate; decodes the first frame. Raises what `read_video` raises."""
    found = _find(source)
    frames = _read_images(found, []) if isinstance(found, list) else _read_stream(_open(found), [])
    first = next(frames, None)
    frames.close()
    if first is None:
        raise ValueError(f"{source}: holds no frame that can be read")
    height, width = first.image.shape[:2]
    if isinstance(found, list):
        return VideoInfo(width, height, len(found), None)
    with _open(found) as container:
        stream = container.streams.video[0]
        average = float(stream.average_rate) if stream.average_rate else None
        if isinstance(found, int):
            return VideoInfo(width, height, None, average)
        times, whole = _first_times(container, stream)
        gaps, tick = np.diff(times), float(stream.time_base)
        varies = len(gaps) > 1 and bool(np.ptp(gaps) > max(2 * tick, np.median(gaps) / 10))
        count = stream.frames or (len(times) if whole else None)
        # webm states a rate, whatever it holds
        unsure = average is None or (varies and not stream.frames)
        if unsure and len(gaps) and times[-1] > times[0]:
            average = float(len(gaps) / (times[-1] - times[0]))
        return VideoInfo(width, height, count, average, _seconds(container, stream), varies)


def write_mp4(
    frames: Iterable[np.ndarray | TimedFrame], path: str | Path, fps: float = 8.0
) -> Path:
    """Write (H, W, 3) bytes as H.264 (yuv420p, for browsers and phones); odd sizes repeat their last row or column.

    Frames that say when they are shown (`TimedFrame`) keep their times, from 0; the others follow 1 / `fps` after the
    one before. The file appears when it is complete. ValueError for frames of another kind, or none.
    """
    path, rate = Path(path), _rate(fps)
    size = start = ticks = None
    options = {"movflags": "+faststart"}
    with (
        replacing(path) as beside,
        av.open(str(beside), "w", format="mp4", options=options) as container,
    ):
        for frame in frames:
            image, seconds = frame if isinstance(frame, TimedFrame) else (frame, None)
            size = _check_size(image, size)
            if ticks is None:
                stream, start = _add_stream(container, rate, size), seconds
            even = np.pad(image, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            ticks = _ticks(ticks, seconds, start, rate)
            picture.pts, picture.time_base = ticks, Fraction(1, CLOCK)
            container.mux(stream.encode(picture))
        if size is None:
            raise ValueError(f"{path}: no frames to write")
        container.mux(stream.encode())  # what the encoder still holds back
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
    options = {"append_images": pictures[1:], "duration": round(1000 / rate), "loop": 0}
    with replacing(path) as beside:
        pictures[0].save(beside, "GIF", save_all=True, **options)
    return path


# ---------------------------------------------------------------------------------------------- where frames come from


def _find(source: str | Path | int) -> Path | list[Path] | int:
    """A video file, images in their order, or the number of a webcam."""
    if isinstance(source, int):
        return source
    path, name = Path(source), str(source)
    if path.is_dir():
        what = f"no {', '.join(IMAGE_SUFFIXES)} images in this folder"
        return _images(path.iterdir()) or _refuse(f"{path}: {what}")
    if path.exists():
        return path
    if re.fullmatch("[0-9]+", name):
        return int(name)
    if not glob.has_magic(name):
        raise FileNotFoundError(f"{name}: no such file or folder")
    # not `glob.glob`: it walks through links, for ever where they lead in a circle
    found = [p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.is_file()]
    if not found:
        raise FileNotFoundError(f"{name}: no file has such a name")
    return _images(found) or (
        found[0] if len(found) == 1 else _refuse(f"{name}: {len(found)} files, none an image")
    )


def _refuse(message: str):
    raise ValueError(message)


def _images(paths: Iterable[Path]) -> list[Path]:
    """Those that are images, 2 before 10."""
    images = (p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=natural)


def _open(found: Path | int) -> av.container.InputContainer:
    address, kind = _camera(found) if isinstance(found, int) else (str(found), None)
    try:
        container = av.open(address, format=kind)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = f"webcam {found} ({address}): cannot be opened"
        what = what if kind else f"{found}: not a readable video"
        raise ValueError(f"{what} ({getattr(error, 'strerror', None) or error})") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{found}: holds no video stream")
    return container


def _camera(number: int) -> tuple[str, str]:
    """(address, format) by which FFmpeg opens a webcam; FileNotFoundError says which there are."""
    kind = CAMERAS.get(sys.platform, "v4l2")
    if kind == "avfoundation":  # says by itself which there are
        return str(number), kind
    if kind == "dshow":
        devices = av.enumerate_input_devices(kind)
        there = [f"video={device.name}" for device in devices if "video" in device.media_types]
        address = there[number] if number < len(there) else ""
    else:
        there, address = sorted(map(str, Path("/dev").glob("video*"))), f"/dev/video{number}"
    if address not in there:
        others = ", ".join(there) or f"none at all ({kind})"
        raise FileNotFoundError(f"webcam {number}: not here; there is {others}")
    return address, kind


# ---------------------------------------------------------------------------------------------- frames, one by one


def _told(frames: Iterator[TimedFrame], source, broken: list[str]) -> Iterator[TimedFrame]:
    """Pass frames on; say at the end, early or late, what was skipped. ValueError when nothing is left."""
    count = 0
    try:
        for frame in frames:
            count += 1
            yield frame
    finally:
        if broken and count:
            last = f", the last: {broken[-1]}" if len(broken) > 1 else ""
            what = f"skipped {len(broken)} that are broken, the first: {broken[0]}{last}"
            warnings.warn(f"{source}: {what}", stacklevel=3)
    if not count:
        why = f" ({broken[0]})" if broken else ""
        raise ValueError(f"{source}: holds no frame that can be read{why}")


def _read_images(paths: list[Path], broken: list[str]) -> Iterator[TimedFrame]:
    first = None
    for path in paths:
        try:
            image = read_image(path)
        except ValueError as error:
            broken.append(str(error))
            continue
        first = first or (path.name, image.shape[1], image.shape[0])
        if image.shape[1::-1] != first[1:]:
            sizes = f"{image.shape[1]}x{image.shape[0]}, but {first[0]} is {first[1]}x{first[2]}"
            raise ValueError(f"{path}: {sizes}; the images of a video must have one size")
        yield TimedFrame(image, None)


def _read_stream(container: av.container.InputContainer, broken: list[str]) -> Iterator[TimedFrame]:
    with container:
        stream, count, now = container.streams.video[0], 0, 0.0
        for number, packet in enumerate(_packets(container, stream, broken)):
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                known = packet.pts is not None
                when = f" (at {float(packet.pts * packet.time_base):.2f} s)" if known else ""
                broken.append(f"frame {number}{when}: {error.strerror}")
                continue
            for frame in frames:
                now = frame.time if frame.time is not None else now
                if frame.is_corrupt:
                    broken.append(f"frame {number} (at {now:.2f} s)")
                    continue
                count += 1
                # a phone held upright films lying and says so
                turns = round(getattr(frame, "rotation", 0) / 90)
                image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                yield TimedFrame(image, frame.time)
        total = _seconds(container, stream)
        if count and total and total - now > CUT_SECONDS + total / count:
            broken.append(f"all after {now:.1f} of its {total:.1f} s, as if cut off")


def _packets(
    container: av.container.InputContainer, stream, broken: list[str]
) -> Iterator[av.Packet]:
    """The packets of a stream; damage that the container's reader does not get over ends it."""
    while True:
        try:
            yield from container.demux(stream)
            return
        except av.error.BlockingIOError:  # a camera without a new frame yet
            time.sleep(0.005)
        except av.error.FFmpegError as error:
            broken.append(f"the rest of the file: {error.strerror}")
            return


def _first_times(container: av.container.InputContainer, stream) -> tuple[np.ndarray, bool]:
    """When the first frames are shown, in seconds, nothing decoded; and whether these are all."""
    packets = itertools.islice(_packets(container, stream, []), LOOK)
    times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None)
    whole = len(times) < LOOK - 1  # the very last packet is empty
    return np.array(times if whole else times[:-REORDERED]), whole


def _seconds(container: av.container.InputContainer, stream) -> float | None:
    """How long the video says it is."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


# ---------------------------------------------------------------------------------------------- writing


def _add_stream(container: av.container.OutputContainer, rate: Fraction, size: tuple[int, int]):
    # no B-frames: with them FFmpeg states too short a length when the rate varies, and players stop early
    options = {"crf": "23", "preset": "veryfast", "bf": "0"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = (n + n % 2 for n in size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, CLOCK)
    return stream


def _ticks(before: int | None, seconds: float | None, start: float | None, rate: Fraction) -> int:
    """When a frame is shown, in ticks of CLOCK from the first frame on; always later than the one `before`."""
    if before is None:
        return 0
    if seconds is None or start is None:
        return before + round(CLOCK / rate)
    return max(before + 1, round((seconds - start) * CLOCK))


def _rate(fps: float) -> Fraction:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps!r}; it must lie above 0, up to 1000")
    return Fraction(fps).limit_denominator(1001)


def _check_size(image: np.ndarray, size: tuple[int, int] | None) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"frames must be (H, W, 3) bytes, got {image.shape} {image.dtype}")
    if size is not None and image.shape[:2] != size:
        sizes = f"{image.shape[:2]} after {size} (height, width)"
        raise ValueError(f"frames of different size: {sizes}")
    return image.shape[:2]
