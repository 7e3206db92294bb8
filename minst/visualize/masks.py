"""Masks and identities drawn on frames: an identity has the same colour in every picture.

    video, VideoResult ─ draw_tracks ─> frames (sH, sW, 3) bytes ─ animate ─> Player or a file
    one frame, its masks and ids ─ draw_frame ─┘

A contour that is smooth at any scale: blur the enlarged mask a little, m = G_sigma * mask. At a
distance d inside a straight edge m = (1 + erf(d / (sigma sqrt 2))) / 2; solved for d (pixels), it
gives fill, line and halo as ramps of d.

Labels do not jump: each is tied to the box of its mask, smoothed over a run of frames.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import base64
import io
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pycocotools import mask as rle_codec
from scipy.ndimage import gaussian_filter1d
from scipy.special import erfinv

from minst.data.video import VideoInfo, read_video, video_info, write_gif, write_mp4
from minst.data.ytvis import decode_mask
from minst.tracking import Track, VideoResult, encode_mask

__all__ = ["Player", "animate", "color_of", "draw_frame", "draw_tracks", "place_labels"]

# Okabe and Ito's colours, told apart with every common kind of colour vision; then lighter and
# darker ones.
PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
)
# Opacity of masks; half widths of contour and of the white line around it, height of a tag's
# letters: in pixels of a picture that is `UNIT` pixels long or less. In larger ones they grow.
FILL, LINE, HALO, LETTERS, UNIT = 0.42, 1.1, 2.2, 12, 720
SMOOTH_FRAMES = 1.5  # of label positions


def color_of(identity: int) -> tuple[int, int, int]:
    """The colour (r, g, b) of an identity 1, 2, ...: distinct for 21 of them, then they repeat."""
    shade, tone = divmod(identity - 1, len(PALETTE))
    other, share = ((0, 0.0), (255, 0.5), (0, 0.45))[shade % 3]
    return tuple(round(c + (other - c) * share) for c in PALETTE[tone])


def draw_frame(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    ids: Sequence[int],
    texts: Sequence[str] | None = None,
    scale: int | None = None,
    anchors: Sequence[tuple[float, float]] | None = None,
    opacity: float = FILL,
) -> np.ndarray:
    """Masks half transparent with crisp contours, a tag for each: (H, W, 3) -> (sH, sW, 3) bytes.

    masks (n, H, W) bool, the last on top; ids choose the colours; texts: None draws no tags, ""
    none for that mask. scale: how much to enlarge; default 2 up to 400 pixels, so that tags are
    legible, else 1. anchors: the point (x, y), in pixels of `image`, above which a tag stands;
    default the top of the mask. opacity: of the masks, 0 to 1.
    """
    masks = [np.asarray(mask, dtype=bool) for mask in masks]
    height, width = image.shape[:2]
    if shapes := {mask.shape for mask in masks} - {(height, width)}:
        words = f"masks of shapes {sorted(shapes)} on an image of shape {(height, width)}"
        raise ValueError(words)
    counts = len(masks), len(ids), len(masks if texts is None else texts)
    if len({*counts}) > 1:
        raise ValueError("{} masks, {} ids, {} texts: one each".format(*counts))
    scale = scale or (2 if max(height, width) <= 400 else 1)
    canvas = resized(image, (height * scale, width * scale)).astype(np.float32)
    for mask, identity in zip(masks, ids):
        _paint(canvas, mask, np.float32(color_of(identity)), scale, opacity)
    canvas = canvas.round().astype(np.uint8)
    if not texts:
        return canvas
    anchors = _anchors(map(encode_mask, masks)) if anchors is None else anchors
    # The mask on top chooses its place first.
    tagged = [i for i in reversed(range(len(masks))) if texts[i] and masks[i].any()]
    tags = [(texts[i], color_of(ids[i]), np.multiply(anchors[i], scale)) for i in tagged]
    if tags:
        _tags(canvas, tags)
    return canvas


def draw_tracks(
    video: Iterable[np.ndarray], result: VideoResult, scale: int | None = None
) -> Iterator[np.ndarray]:
    """Annotated frames of a video, one at a time: masks and tags "id category score" of all tracks.

    video: an iterable of (H, W, 3) bytes, or a clip with `render(t)`. Raises ValueError when it has
    fewer or more frames than the result.
    """
    anchors = {track.id: _smooth_anchors(track) for track in result.tracks}
    names, total, count = result.class_names, result.num_frames, 0
    for t, (image, _) in enumerate(shown_frames(video)):
        if (count := t + 1) > total:
            break
        # The best on top.
        here = [k for k in reversed(result.tracks) if k.segmentations[t] is not None]
        masks = [decode_mask(k.segmentations[t], *image.shape[:2]) for k in here]
        texts = [f"{k.id} {class_name(names, k.label)} {k.score:.2f}" for k in here]
        places = [anchors[k.id][t] for k in here]
        yield draw_frame(image, masks, [k.id for k in here], texts, scale, places)
    if count != total:
        few, many = f"has {count} frames, the result {total}", f"goes on after the {total} frames"
        raise ValueError(f"draw_tracks: the video {few if count < total else many}")


class Player(NamedTuple):
    """A film as a notebook shows it; its middle frame where films do not play (GitHub, PDF)."""

    video: bytes  # .mp4
    still: bytes  # .jpg
    info: VideoInfo

    def __repr__(self) -> str:
        width, height, count, fps = self.info[:4]
        size = f"{width} x {height}, {count / fps:.1f} s, {len(self.video) / 1024:.0f} KB"
        return f"Film: {count} frame{'s' * (count != 1)}, {size}"

    def _repr_html_(self) -> str:
        video, still = (base64.b64encode(data).decode() for data in (self.video, self.still))
        still = f"data:image/jpeg;base64,{still}"
        place = "position:absolute;left:0;top:0;width:100%"
        return (
            "<div style='position:relative;display:inline-block;max-width:100%;line-height:0'>"
            f"<img alt='{self} (its middle frame)' style='max-width:100%' src='{still}'>"
            f"<video controls autoplay loop muted playsinline aria-label='{self}' style='{place}' "
            f"src='data:video/mp4;base64,{video}' poster='{still}'></video></div>"
        )

    def _repr_jpeg_(self) -> bytes:
        return self.still


def animate(
    frames: Iterable[np.ndarray], path: str | Path | None = None, fps: float = 8.0
) -> Player | Path:
    """Without a path a `Player`, which a notebook shows; else a file, whose path is returned.

    .mp4, or .gif (all frames in memory). Raises ValueError without frames.
    """
    if path is not None:
        writers = {".mp4": write_mp4, ".gif": write_gif}
        suffix = Path(path).suffix.lower()
        if suffix not in writers:
            raise ValueError(f"{path}: write .mp4 or .gif, not {suffix or 'a name without suffix'}")
        return writers[suffix](frames, path, fps)
    first = next(frames := iter(frames), None)
    if first is None:
        raise ValueError("animate: no frames to show")
    with tempfile.TemporaryDirectory() as folder:
        film = write_mp4(chain([first], frames), Path(folder) / "film.mp4", fps)
        info, still = video_info(film), io.BytesIO()
        # Read back: frames may be too many to keep.
        middle = next(islice(read_video(film), info.frames // 2, None))
        Image.fromarray(middle).save(still, "JPEG", quality=70)
        return Player(film.read_bytes(), still.getvalue(), info)


def place_labels(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[int, int]], frame: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1) of tags of `sizes` (w, h) above anchors (x, y), in a frame (w, h).

    A tag that would cover one placed before it gives way up or down, by as little as will do.
    """
    placed: list[tuple[int, int, int, int]] = []
    for (x, y), (w, h) in zip(anchors, sizes):
        x0 = round(min(max(x - w / 2, 0), max(frame[0] - w, 0)))
        lowest = max(frame[1] - h, 0)
        wanted = min(max(y - h - 2, 0), lowest)
        beside = [b for b in placed if b[0] < x0 + w and x0 < b[2]]
        options = [wanted] + [y0 for b in beside for y0 in (b[1] - h, b[3]) if 0 <= y0 <= lowest]
        free = [y0 for y0 in options if all(y0 + h <= b[1] or y0 >= b[3] for b in beside)]
        y0 = round(min(free or [wanted], key=lambda option: abs(option - wanted)))
        placed.append((x0, y0, min(x0 + w, frame[0]), min(y0 + h, frame[1])))
    return placed


def shown_frames(video) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Images and annotations (G, H, W); None where there are no annotations.

    video: a clip with `render(t)`, or an iterable of frames; tensors (3, H, W) become bytes.
    """
    if hasattr(video, "render"):
        for t in range(len(video)):
            shown = video.render(t)
            yield shown.image, getattr(shown, "masks", None)
        return
    for frame in video:
        if not isinstance(frame, np.ndarray):
            pixels = frame.detach().cpu().clamp(0, 1).mul(255).round().byte()
            frame = pixels.permute(1, 2, 0).numpy()
        yield frame, None


def resized(
    image: np.ndarray, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
    """Bytes (H, W, 3) or (H, W) at another size (height, width)."""
    return np.array(Image.fromarray(image).resize(size[::-1], how))


def resized_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks (G, H, W) bool, made smaller: (G, *size), true where half of a cell is covered."""
    shares = [resized(mask.astype(np.uint8) * 255, size, Image.Resampling.BOX) for mask in masks]
    return np.reshape(shares, (-1, *size)) >= 128


def faded(image: np.ndarray) -> np.ndarray:
    """Greyer and lighter, so that colour means an instance."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    return (0.15 * image + 0.55 * grey + 0.3 * 255).astype(np.uint8)


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class; a model without names says "class 3"."""
    return names[label] if names else f"class {label}"


def _paint(
    canvas: np.ndarray, mask: np.ndarray, color: np.ndarray, scale: int, opacity: float
) -> None:
    """Lay one mask on the enlarged canvas (sH, sW, 3) float32, in place."""
    if not mask.any():
        return
    unit = max(1.0, max(canvas.shape) / UNIT)
    margin, (height, width) = math.ceil(4 * unit), mask.shape
    (top, bottom), (left, right) = ((np.flatnonzero(mask.any(axis))[[0, -1]]) for axis in (1, 0))
    top, left = max(top - margin, 0), max(left - margin, 0)
    bottom, right = min(bottom + margin + 1, height), min(right + margin + 1, width)
    sigma = 0.8 * scale * unit
    hard = mask[top:bottom, left:right].astype(np.uint8) * 255
    soft = Image.fromarray(resized(hard, (hard.shape[0] * scale, hard.shape[1] * scale)))
    soft = np.asarray(soft.filter(ImageFilter.GaussianBlur(sigma)))
    # bytes: what becomes of each of 256 levels is computed once, and looked up for every pixel
    # > 0 inside, infinite far from the edge
    distance = (sigma * math.sqrt(2)) * erfinv(2 * np.arange(256) / 255 - 1)
    line, halo = LINE * unit, HALO * unit
    layers = (
        (color, opacity * np.clip(distance + 0.5, 0, 1)),
        (np.float32((255, 255, 255)), 0.75 * np.clip(halo + 0.5 - np.abs(distance), 0, 1)),
        (color, np.clip(line + 0.5 - np.abs(distance), 0, 1)),
    )
    # new = keep * old + add
    keep, add = np.ones((256, 3), np.float32), np.zeros((256, 3), np.float32)
    for paint, cover in layers:
        keep *= 1 - cover[:, None]
        add += (paint - add) * cover[:, None]
    box = np.s_[top * scale : bottom * scale, left * scale : right * scale]
    canvas[box] = canvas[box] * keep.take(soft, axis=0) + add.take(soft, axis=0)


def _tags(canvas: np.ndarray, tags: list[tuple[str, tuple[int, int, int], np.ndarray]]) -> None:
    """Draw label tags (text, colour, anchor) on bytes (H, W, 3), in place."""
    height, width = canvas.shape[:2]
    unit = max(1.0, max(height, width) / UNIT)
    words, fonts = zip(*(_lettering(text, round(LETTERS * unit)) for text, _, _ in tags))
    boxes = [font.getbbox("Ag0") for font in fonts]
    tall = max(below - above for _, above, _, below in boxes) + round(5 * unit)  # of all tags
    edge = round(3 * unit)
    sizes = [(math.ceil(f.getlength(text)) + 2 * edge, tall) for text, f in zip(words, fonts)]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    places = place_labels([anchor for _, _, anchor in tags], sizes, (width, height))
    for (x0, y0, x1, y1), text, font, (_, color, _) in zip(places, words, fonts, tags):
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), edge, fill=color)
        ink = "white" if np.dot(color, (0.299, 0.587, 0.114)) < 140 else "black"
        above = font.getbbox("Ag0")[1]
        draw.text((x0 + edge, y0 + round(2 * unit) - above), text, font=font, fill=ink)
    canvas[:] = np.asarray(picture)


def _lettering(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text as it can be drawn, and a font of `size` pixels that has its letters."""
    if text.isascii():
        return text, ImageFont.load_default(size)
    from minst.visualize import fonts  # by matplotlib, which most films do not need

    text = fonts.legible(text)
    return text, ImageFont.truetype(fonts.font_for(text), size)


def _anchors(codes: Iterable[dict]) -> np.ndarray:
    """(x, y) of the middle of the upper side of each mask's box: (n, 2)."""
    x, y, width, _ = rle_codec.toBbox(list(codes)).T
    return np.stack([x + width / 2, y], axis=1)


def _smooth_anchors(track: Track) -> dict[int, np.ndarray]:
    """Where the tag of a track stands in every frame in which it is seen."""
    anchors = {}
    for seen, run in groupby(enumerate(track.segmentations), lambda item: item[1] is not None):
        if seen:
            times, codes = zip(*run)
            smooth = gaussian_filter1d(_anchors(codes), SMOOTH_FRAMES, axis=0, mode="nearest")
            anchors.update(zip(times, smooth))
    return anchors
