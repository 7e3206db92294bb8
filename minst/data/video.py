"""Video files, folders of images and webcams, in and out, a frame at a time.

    clip.mp4 .mov .webm .gif     ─┐             ┌─ read_video ─> (H, W, 3) bytes
    folder/, "frames/**/*.png"   ─┼─ one frame ─┤
    0, 1, ... a webcam           ─┘  in memory  └─ read_timed ─> bytes, and when they are shown

    frames ── write_mp4 ─> H.264         frames ── write_gif ─> a small GIF

A frame is as a player shows it: turned as the phone was held, its pixels square, all of the size of
the first (a recording may change it), white where it is transparent. Times are true: a video whose
rate varies, or of which frames are missing, is written as long as it was. Sound is dropped.

Broken frames are skipped, with one warning at the end that counts them. Frames that build upon a
lost one are kept, as every player does: they may be smeared until the next key frame. What the
reader of a container leaps over in silence (webm does) cannot be counted, but leaves a true gap.

A name is that of a file, whatever colons it has: FFmpeg opens no address, pipe or list of files.

Lesson: notebooks/01_task_and_data.ipynb
"""

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

from minst.data.files import IMAGE_SUFFIXES, image_files, read_image, replacing

__all__ = [
    "TimedFrame", "VideoInfo", "read_timed", "read_video", "video_info", "write_gif", "write_mp4",
]  # fmt: skip

GIF_COLORS = 255
# of 255: what changes less than this from frame to frame stands still, and then costs nothing
GIF_TOLERANCE = 14
# packets in which `video_info` looks for a rate that varies: all of a long video take too long
LOOK = 500
REORDERED = 16  # at most so many frames wait for a later packet (H.264's limit)
CUT_SECONDS = 1.0  # a video that ends so much before it says it does was cut short
ANEW_SECONDS = 0.5  # times that fall back so far: another recording begins in the same file
CLOCK = 90_000  # ticks a second of the videos that we write
# FFmpeg's name of each system's webcams
CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
# FFmpeg's names of the files that hold a film themselves; others lead to more files (hls, concat)
FORMATS = (
    "mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,mxf,rm,dv,ivf,nut,wtv,swf,"
    "h261,h263,h264,hevc,vvc,av1,obu,vc1,mjpeg,mjpeg_2000,yuv4mpegpipe"
)
FILE_ALONE = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
WITHOUT_TIMES = 0x80  # FFmpeg's flag of a format that holds bare pictures, such as .h264
SEEN_THROUGH = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the decoders that know transparency


class VideoInfo(NamedTuple):
    """What a video says of itself."""

    width: int  # of the upright picture
    height: int
    frames: int | None  # None when the file does not say
    fps: float | None  # the average; None for images
    seconds: float | None = None  # None for images, for a webcam, or when the file does not say

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
    """Frames (H, W, 3) uint8 of a video file; of images, a folder's or those that a pattern names
    ("a/*.png", "a/**/*.jpg"), in natural order (2 before 10); or, without end, of a webcam.

    Errors come at once where they can: FileNotFoundError for what is missing, ValueError for a
    folder without images or a file without video. Broken frames are skipped with a warning;
    ValueError when none can be read, or when an image has another size than the first.
    """
    return (frame.image for frame in read_timed(source))


def read_timed(source: str | Path | int) -> Iterator[TimedFrame]:
    """`read_video`, with the time at which each frame is shown."""
    broken: list[str] = []
    return _told(_read(_find(source), broken), source, broken)


def video_info(source: str | Path | int) -> VideoInfo:
    """Size, number of frames and rate; decodes the first frame. Raises what `read_video` raises."""
    found = _find(source)
    first = next(_read(found, []), None)
    if first is None:
        raise ValueError(f"{source}: holds no frame that can be read")
    height, width = first.image.shape[:2]
    if isinstance(found, list):
        return VideoInfo(width, height, len(found), None)
    with _open(found) as container:
        stream = container.streams.video[0]
        average = _average_rate(container, stream)
        if isinstance(found, int):
            return VideoInfo(width, height, None, average)
        times, count = _first_times(container, stream)
        gaps, tick = np.diff(times), float(stream.time_base)
        varies = len(gaps) > 1 and np.ptp(gaps) > max(2 * tick, np.median(gaps) / 10)
        # webm states a rate, whatever it holds
        unsure = average is None or (varies and not stream.frames)
        if unsure and len(gaps) and times[-1] > times[0]:
            average = float(len(gaps) / (times[-1] - times[0]))
        seconds = _seconds(container, stream)
        return VideoInfo(width, height, stream.frames or count, average, seconds)


def write_mp4(
    frames: Iterable[np.ndarray | TimedFrame], path: str | Path, fps: float = 8.0
) -> Path:
    """Write (H, W, 3) bytes as H.264 (yuv420p, for browsers and phones).

    Odd sizes repeat their last row or column. Frames that say when they are shown (`TimedFrame`)
    keep their times, from 0; the others follow 1 / `fps` after the one before. The file appears
    when it is complete. ValueError for frames of another kind, or none.
    """
    path, rate, start, ticks = Path(path), _rate(fps), None, None
    options = {"movflags": "+faststart"}
    with (
        replacing(path) as beside,
        av.open(f"file:{beside}", "w", format="mp4", options=options) as container,
    ):
        for image, seconds in _checked(frames, path):
            height, width = image.shape[:2]
            if ticks is None:
                stream, start = _add_stream(container, rate, (height, width)), seconds
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            ticks = _ticks(ticks, seconds, start, rate)
            picture.pts, picture.time_base = ticks, Fraction(1, CLOCK)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())  # what the encoder still holds back
    return path


def write_gif(frames: Iterable[np.ndarray], path: str | Path, fps: float = 8.0) -> Path:
    """Write (H, W, 3) bytes as an endless GIF, one palette for all frames; for short clips."""
    path, rate = Path(path), _rate(fps)
    images = [frame.image for frame in _checked(frames, path)]
    sample = np.concatenate(images[:: max(1, len(images) // 8)])[::3, ::3]
    palette = Image.fromarray(sample).quantize(GIF_COLORS, Image.Quantize.MEDIANCUT)
    shown, pictures = images[0], []
    for image in images:
        moved = np.abs(image.astype(np.int16) - shown).max(-1, keepdims=True) > GIF_TOLERANCE
        shown = np.where(moved, image, shown)
        pictures.append(Image.fromarray(shown).quantize(palette=palette, dither=Image.Dither.NONE))
    options = {"append_images": pictures[1:], "duration": round(1000 / rate), "loop": 0}
    with replacing(path) as beside:
        pictures[0].save(beside, "GIF", save_all=True, **options)
    return path


# ------------------------------------------------------------------------- where frames come from


def _find(source: str | Path | int) -> Path | list[Path] | int:
    """A video file, images in their order, or the number of a webcam."""
    if isinstance(source, int):
        return source
    path, name = Path(source), str(source)
    if path.is_dir():
        what = f"no {', '.join(IMAGE_SUFFIXES)} images in this folder"
        return image_files(path.iterdir()) or _refuse(f"{path}: {what}")
    if path.is_file():
        return image_files([path]) or path
    if path.exists():
        _refuse(f"{path}: a device or pipe, not a file; a webcam is given by its number")
    if re.fullmatch("[0-9]+", name):
        return int(name)
    if not glob.has_magic(name):
        address = "; no address is opened, save the film to a file first" if "://" in name else ""
        raise FileNotFoundError(f"{name}: no such file or folder{address}")
    # not `glob.glob`: it walks through links, for ever where they lead in a circle
    found = [p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.is_file()]
    if not found:
        raise FileNotFoundError(f"{name}: no file has such a name")
    return image_files(found) or (
        found[0] if len(found) == 1 else _refuse(f"{name}: {len(found)} files, none an image")
    )


def _refuse(message: str):
    raise ValueError(message)


def _open(found: Path | int) -> av.container.InputContainer:
    if isinstance(found, int):
        address, kind = _camera(found)
        what, options = f"webcam {found} ({address}): cannot be opened", {}
    else:
        # without "file:" the part before a colon would name a protocol
        address, kind, options = f"file:{found}", None, FILE_ALONE
        what = f"{found}: not a readable video"
    try:
        container = av.open(address, format=kind, options=options)
    except av.error.ArgumentError:
        raise ValueError(f"{what} (it holds no film, or leads to other files)") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{what} ({getattr(error, 'strerror', None) or error})") from None
    # a damaged header may name a stream that nothing can decode
    if not container.streams.video or container.streams.video[0].codec_context is None:
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


# ----------------------------------------------------------------------------- frames, one by one


def _told(frames: Iterator[TimedFrame], source, broken: list[str]) -> Iterator[TimedFrame]:
    """Pass frames on; say at the end what was skipped. ValueError when nothing is left."""
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


def _read(found: Path | list[Path] | int, broken: list[str]) -> Iterator[TimedFrame]:
    """The frames of what `_find` has found; what is broken is noted."""
    if isinstance(found, list):
        return _read_images(found, broken)
    return _read_stream(_open(found), broken)


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
        stream, count, now, shift, size = container.streams.video[0], 0, 0.0, 0.0, None
        step, decoder = 1 / (_average_rate(container, stream) or 25), _decoder(stream)
        for number, packet in enumerate(_packets(container, stream, broken)):
            try:
                frames = decoder.decode(packet)
            except av.error.FFmpegError as error:
                known = packet.pts is not None
                when = f" (at {float(packet.pts * packet.time_base):.2f} s)" if known else ""
                broken.append(f"frame {number}{when}: {error.strerror}")
                continue
            for frame in frames:
                # bare pictures follow each other at the rate of the stream
                seconds = shift + frame.time if frame.time is not None else count * step
                if count and now - seconds > ANEW_SECONDS:
                    shift += now + step - seconds
                    seconds = now + step
                now = seconds
                if frame.is_corrupt:
                    broken.append(f"frame {number} (at {now:.2f} s)")
                    continue
                count += 1
                size = size or _shown_size(frame, stream)
                yield TimedFrame(_picture(frame, size), seconds)
        total = _seconds(container, stream)
        if count and total and total - now > CUT_SECONDS + total / count:
            broken.append(f"all after {now:.1f} of its {total:.1f} s, as if cut off")


def _decoder(stream) -> av.CodecContext:
    """FFmpeg's decoder of a stream; one that knows transparency where a webm film has it."""
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and context.name in SEEN_THROUGH:
        return av.CodecContext.create(SEEN_THROUGH[context.name], "r")
    return context


def _shown_size(frame: av.VideoFrame, stream) -> tuple[int, int]:
    """Width and height of a frame with square pixels."""
    aspect = float(stream.sample_aspect_ratio or 1)
    # what is further from 1 was never meant
    return round(frame.width * aspect) if 1 / 8 <= aspect <= 8 else frame.width, frame.height


def _picture(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """A frame as it is to be seen, before it is turned `size` (width, height): (H, W, 3) bytes."""
    is_clear = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if is_clear else "rgb24"
    image = frame.to_ndarray(format=kind, width=size[0], height=size[1])
    if is_clear:
        alpha = image[..., 3:].astype(np.uint16)
        image = ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    # a phone held upright films lying and says so
    return np.ascontiguousarray(np.rot90(image, round(getattr(frame, "rotation", 0) / 90)))


def _average_rate(container: av.container.InputContainer, stream) -> float | None:
    """Frames a second; of bare pictures, for which FFmpeg says 25, what their codec says."""
    bare = container.format.flags & WITHOUT_TIMES
    rate = (bare and stream.guessed_rate) or stream.average_rate
    return float(rate) if rate else None


def _packets(container, stream, broken: list[str]) -> Iterator[av.Packet]:
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


def _first_times(container, stream) -> tuple[np.ndarray, int | None]:
    """When the first frames are shown, in seconds, nothing decoded; how many, if these are all."""
    packets = [p for p in itertools.islice(_packets(container, stream, []), LOOK) if p.size]
    times = np.array([float(p.pts * p.time_base) for p in packets if p.pts is not None])
    whole = len(packets) < LOOK - 1  # the very last packet is empty
    times = times if whole else times[:-REORDERED]
    anew = np.flatnonzero(np.maximum.accumulate(times) - times > ANEW_SECONDS)
    return np.sort(times[: anew[0]] if len(anew) else times), len(packets) if whole else None


def _seconds(container: av.container.InputContainer, stream) -> float | None:
    """How long the video says it is."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


# ---------------------------------------------------------------------------------------- writing


def _add_stream(container: av.container.OutputContainer, rate: Fraction, size: tuple[int, int]):
    # no B-frames: with them FFmpeg states too short a length when the rate varies
    options = {"crf": "23", "preset": "veryfast", "bf": "0"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = (n + n % 2 for n in size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, CLOCK)
    return stream


def _ticks(before: int | None, seconds: float | None, start: float | None, rate: Fraction) -> int:
    """When a frame is shown, in ticks of CLOCK from the first on; later than the one before."""
    if before is None:
        return 0
    if seconds is None or start is None:
        return before + round(CLOCK / rate)
    return max(before + 1, round((seconds - start) * CLOCK))


def _rate(fps: float) -> Fraction:
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps!r}; it must lie above 0, up to 1000")
    return Fraction(fps).limit_denominator(1001)


def _checked(frames: Iterable[np.ndarray | TimedFrame], path: Path) -> Iterator[TimedFrame]:
    """Frames of one size and kind; ValueError for others, and where there is none."""
    size = None
    for frame in frames:
        frame = frame if isinstance(frame, TimedFrame) else TimedFrame(frame, None)
        image = frame.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"frames must be (H, W, 3) bytes, got {image.shape} {image.dtype}")
        size = size or image.shape
        if image.shape != size:
            sizes = f"{image.shape[:2]} after {size[:2]} (height, width)"
            raise ValueError(f"frames of different size: {sizes}")
        yield frame
    if size is None:
        raise ValueError(f"{path}: no frames to write")
