"""Masks and identities drawn on frames: the same identity has the same colour in every picture of this package.

    video, VideoResult ─ draw_tracks ─> annotated frames (sH, sW, 3) bytes ─ animate ─> Player | .mp4 | .gif | .html
    one frame, its masks and ids ─ draw_frame ─┘

A contour that is smooth at any scale: blur the enlarged mask a little, m = G_sigma * mask. At a distance d inside a
straight edge m = (1 + erf(d / (sigma sqrt 2))) / 2; solved for d (pixels), it gives fill, line and halo as ramps of d.

Labels do not jump: each is tied to the box of its mask, smoothed over time within a run of frames in which it is seen.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import base64
import html
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

__all__ = [
    "Player",
    "animate",
    "color_of",
    "draw_frame",
    "draw_tracks",
    "ground_truth_result",
    "place_labels",
]

# Okabe and Ito's colours, told apart with every common kind of colour vision; then lighter, then darker ones
PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
)
FILL, LINE, HALO = (
    0.42,
    1.1,
    2.2,
)  # opacity of masks; half widths of contour and of the white line around it, in pixels
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
    """Masks half transparent with crisp contours, and a label tag for each: (H, W, 3) bytes -> (sH, sW, 3) bytes.

    masks (n, H, W) bool, the last on top; ids choose the colours; texts: None draws no tags, "" none for that mask.
    scale: how much to enlarge; default 2 for frames up to 400 pixels, so that tags are legible, else 1.
    anchors: the point (x, y), in pixels of `image`, above which a tag stands; default the top of the mask.
    opacity: of the masks, 0 to 1.
    """
    masks = [np.asarray(mask, dtype=bool) for mask in masks]
    height, width = image.shape[:2]
    if any(mask.shape != (height, width) for mask in masks):
        raise ValueError(
            f"masks of shapes {sorted({m.shape for m in masks})} on an image of shape {(height, width)}"
        )
    if len(ids) != len(masks) or (texts is not None and len(texts) != len(masks)):
        count = len(masks if texts is None else texts)
        raise ValueError(f"{len(masks)} masks, {len(ids)} ids, {count} texts: one each")
    scale = scale or _default_scale(image)
    canvas = _resize(image, scale).astype(np.float32)
    for mask, identity in zip(masks, ids):
        _paint(canvas, mask, np.float32(color_of(identity)), scale, opacity)
    canvas = canvas.round().astype(np.uint8)
    if not texts:
        return canvas
    anchors = [_anchor(encode_mask(mask)) for mask in masks] if anchors is None else anchors
    tagged = [
        i for i in reversed(range(len(masks))) if texts[i] and masks[i].any()
    ]  # the mask on top chooses first
    _tags(canvas, [(texts[i], color_of(ids[i]), np.multiply(anchors[i], scale)) for i in tagged])
    return canvas


def draw_tracks(
    video: Iterable[np.ndarray], result: VideoResult, scale: int | None = None
) -> Iterator[np.ndarray]:
    """Annotated frames of a video, one at a time: masks, contours and tags "id category score" of every track.

    video: an iterable of (H, W, 3) bytes, or a clip with `render(t)`. Raises ValueError when it has fewer or more
    frames than the result.
    """
    anchors = {track.id: _smooth_anchors(track) for track in result.tracks}
    count = 0
    for t, image in enumerate(frames_of(video)):
        if t >= result.num_frames:
            raise ValueError(
                f"draw_tracks: the video goes on after the {result.num_frames} frames of the result"
            )
        here = [
            track for track in reversed(result.tracks) if track.segmentations[t] is not None
        ]  # the best on top
        masks = [decode_mask(track.segmentations[t], *image.shape[:2]) for track in here]
        texts = [
            f"{track.id} {class_name(result.class_names, track.label)} {track.score:.2f}"
            for track in here
        ]
        yield draw_frame(
            image, masks, [k.id for k in here], texts, scale, [anchors[k.id][t] for k in here]
        )
        count += 1
    if count < result.num_frames:
        raise ValueError(
            f"draw_tracks: the video has {count} frames, the result {result.num_frames}"
        )


class Player(NamedTuple):
    """A film as a notebook shows it, no other file needed; its middle frame where films do not play (GitHub, PDF)."""

    video: bytes  # .mp4
    still: bytes  # .jpg
    info: VideoInfo

    def __repr__(self) -> str:
        width, height, count, fps = self.info[:4]
        size = f"{width} x {height}, {count / fps:.1f} s, {len(self.video) / 1024:.0f} KB"
        return f"Film: {count} frame{'s' * (count != 1)}, {size}"

    def _repr_html_(self) -> str:
        video, still = (base64.b64encode(data).decode("ascii") for data in (self.video, self.still))
        return (
            "<div style='position:relative;display:inline-block;max-width:100%;line-height:0'>"
            f"<img alt='{self} (its middle frame)' style='max-width:100%' src='data:image/jpeg;base64,{still}'>"
            f"<video controls autoplay loop muted playsinline aria-label='{self}' src='data:video/mp4;base64,{video}' "
            f"style='position:absolute;left:0;top:0;width:100%' poster='data:image/jpeg;base64,{still}'></video></div>"
        )

    def _repr_jpeg_(self) -> bytes:
        return self.still


def animate(
    frames: Iterable[np.ndarray], path: str | Path | None = None, fps: float = 8.0
) -> Player | Path:
    """Without a path a `Player`, which a notebook shows; else a file as the suffix says, whose path is returned.

    .mp4, .gif (all frames in memory), or .html, a page that needs no other file. Raises ValueError without frames.
    """
    suffix = ".html" if path is None else Path(path).suffix.lower()
    if suffix in (".mp4", ".gif"):
        return (write_mp4 if suffix == ".mp4" else write_gif)(frames, path, fps)
    if suffix != ".html":
        raise ValueError(
            f"{path}: write .mp4, .gif or .html, not {suffix or 'a name without suffix'}"
        )
    first = next(frames := iter(frames), None)
    if first is None:
        raise ValueError(f"{path or 'animate'}: no frames to show")
    with tempfile.TemporaryDirectory() as folder:
        film = write_mp4(chain([first], frames), Path(folder) / "film.mp4", fps)
        info, still = video_info(film), io.BytesIO()
        middle = next(
            islice(read_video(film), info.frames // 2, None)
        )  # read back: frames may be too many to keep
        Image.fromarray(middle).save(still, "JPEG", quality=70)
        player = Player(film.read_bytes(), still.getvalue(), info)
    if path is None:
        return player
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"<!doctype html>\n<meta charset='utf-8'>\n<title>{html.escape(path.stem)}</title>\n"
    path.write_text(head + player._repr_html_() + "\n")
    return path


def ground_truth_result(clip) -> VideoResult:
    """The annotations of a clip (`Clip` or `ShapesClip`) as if a perfect tracker had found them."""
    shown = [clip.render(t).masks for t in range(len(clip))]  # T x (M, H, W)
    names = tuple(clip.categories)
    tracks = []
    for i, label in enumerate(clip.labels):
        codes = [encode_mask(masks[i]) if masks[i].any() else None for masks in shown]
        tracks.append(Track(i + 1, [float(k == label) for k in range(len(names))], codes))
    return VideoResult(tracks, len(clip), names)


def place_labels(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[int, int]], frame: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Boxes (x0, y0, x1, y1) of tags of `sizes` (w, h) above their anchors (x, y), inside a frame (width, height).

    A tag that would cover one placed before it gives way upwards or downwards, by as little as will do.
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


def frames_of(video, start: int = 0) -> Iterator[np.ndarray]:
    """Images from `start` on of a clip with `render(t)` or iterable of frames; tensors (3, H, W) become bytes."""
    clip = hasattr(video, "render")
    frames = (
        (video.render(t).image for t in range(start, len(video)))
        if clip
        else islice(video, start, None)
    )
    for frame in frames:
        if not isinstance(frame, np.ndarray):
            frame = (
                frame.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
            )
        yield frame


def class_name(names: Sequence[str], label: int) -> str:
    """The name of a class; a model without names says "class 3"."""
    return names[label] if names else f"class {label}"


def _default_scale(image: np.ndarray) -> int:
    return 2 if max(image.shape[:2]) <= 400 else 1


def _resize(image: np.ndarray, scale: int) -> np.ndarray:
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _paint(
    canvas: np.ndarray, mask: np.ndarray, color: np.ndarray, scale: int, opacity: float
) -> None:
    """Lay one mask on the enlarged canvas (sH, sW, 3) float32, in place."""
    if not mask.any():
        return
    margin, (height, width) = 4, mask.shape
    (top, bottom), (left, right) = ((np.flatnonzero(mask.any(axis))[[0, -1]]) for axis in (1, 0))
    top, left = max(top - margin, 0), max(left - margin, 0)
    bottom, right = min(bottom + margin + 1, height), min(right + margin + 1, width)
    sigma = 0.8 * scale
    soft = Image.fromarray(_resize(mask[top:bottom, left:right].astype(np.uint8) * 255, scale))
    soft = np.asarray(soft.filter(ImageFilter.GaussianBlur(sigma)))
    # bytes: what becomes of each of 256 levels is computed once, and looked up for every pixel
    distance = (sigma * math.sqrt(2)) * erfinv(
        2 * np.arange(256) / 255 - 1
    )  # > 0 inside, infinite far from the edge
    layers = (
        (color, opacity * np.clip(distance + 0.5, 0, 1)),
        (np.float32((255, 255, 255)), 0.75 * np.clip(HALO + 0.5 - np.abs(distance), 0, 1)),
        (color, np.clip(LINE + 0.5 - np.abs(distance), 0, 1)),
    )
    keep, add = (
        np.ones((256, 3), np.float32),
        np.zeros((256, 3), np.float32),
    )  # new = keep * old + add
    for paint, cover in layers:
        keep *= 1 - cover[:, None]
        add += (paint - add) * cover[:, None]
    box = np.s_[top * scale : bottom * scale, left * scale : right * scale]
    canvas[box] = canvas[box] * keep.take(soft, axis=0) + add.take(soft, axis=0)


def _tags(canvas: np.ndarray, tags: list[tuple[str, tuple[int, int, int], np.ndarray]]) -> None:
    """Draw label tags (text, colour, anchor) on bytes (H, W, 3), in place."""
    height, width = canvas.shape[:2]
    font = ImageFont.load_default(12 if max(height, width) < 700 else 16)
    ascent = font.getbbox("Ag0")  # one height for all tags
    sizes = [
        (math.ceil(font.getlength(text)) + 6, ascent[3] - ascent[1] + 5) for text, _, _ in tags
    ]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for box, (text, color, _) in zip(
        place_labels([tag[2] for tag in tags], sizes, (width, height)), tags
    ):
        dark = np.dot(color, (0.299, 0.587, 0.114)) < 140
        draw.rounded_rectangle((box[0], box[1], box[2] - 1, box[3] - 1), 3, fill=color)
        draw.text(
            (box[0] + 3, box[1] + 2 - ascent[1]), text, font=font, fill="white" if dark else "black"
        )
    canvas[:] = np.asarray(picture)


def _anchor(code: dict) -> tuple[float, float]:
    x, y, width, _ = rle_codec.toBbox(code)
    return float(x + width / 2), float(y)


def _smooth_anchors(track: Track) -> dict[int, tuple[float, float]]:
    """Where the tag of a track stands in every frame in which it is seen."""
    anchors = {}
    for seen, run in groupby(
        range(len(track.segmentations)), key=lambda t: track.segmentations[t] is not None
    ):
        if seen:
            frames = list(run)
            points = np.array([_anchor(track.segmentations[t]) for t in frames])
            anchors.update(
                zip(
                    frames,
                    gaussian_filter1d(points, SMOOTH_FRAMES, axis=0, mode="nearest").tolist(),
                )
            )
    return anchors
