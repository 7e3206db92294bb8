"""A data set on one sheet: frames with masks, identities and categories, as a reader gives them.

    folder ─ YouTubeVIS ─> a row of frames for each video: one colour is one instance in it
           └ COCO       ─> images in rows of one height: colours tell instances apart

What cannot be read is drawn as an empty frame with the reason, so that one broken image does not
hide the others.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from minst.data.coco import COCO, holds_images
from minst.data.layouts import find_annotations
from minst.data.ytvis import Clip, YouTubeVIS
from minst.visualize.masks import draw_frame, resized, resized_masks
from minst.visualize.style import INK, RED, WIDTH, Picture, bare, headline, new_figure, rgb

__all__ = ["preview_dataset"]

# Inches: words beside a video, margin, between pictures, headline.
LEFT, EDGE, GAP, HEAD = 1.2, 0.12, 0.05, 0.66
# Inches: height of a row of frames, of a row of images, of a line of words below a picture.
ROW_VIDEO, ROW_IMAGES, WORDS = 1.25, 1.7, 0.17
LINE, LINES = 0.115, 10  # inches and number of the lines of words beside a video
MOST_TAGS, DPI = 6, 150  # names on an image; as `save` writes


def preview_dataset(
    folder: str | Path,
    split: str | None = None,
    annotations: str | Path | None = None,
    count: int = 12,
) -> Picture:
    """A sheet of `count` videos or images, evenly spaced over a data set, with any annotations.

    Raises what the readers raise for an annotation file that is missing or broken, and ValueError
    for count < 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}: show at least one video or image")
    file = Path(annotations) if annotations else find_annotations(folder, split)
    videos = not holds_images(file)
    dataset = (YouTubeVIS if videos else COCO)(folder, split, file)
    total = len(dataset)
    if not total:
        raise ValueError(f"{file}: holds no videos or images")
    chosen = sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})
    fig, clips = new_figure(), [dataset[i] for i in chosen]
    (_video_sheet if videos else _image_sheet)(fig, clips)
    which = f"All {total:,}" if len(clips) == total else f"{len(clips)} of {total:,}"
    what = f"{'video' if videos else 'image'}{'s' * (total > 1)}"
    head = f"{which} {what} of {_shortened(f'{file.parent.name}/{file.name}', 60)}"
    note = "No annotations: the labels are withheld."
    if instances := int(dataset.track_counts.sum()):
        note = f"{instances:,} instances of {len(dataset.categories)} categories. "
        note += "In a row, one colour and number is one instance in every frame." * videos
        note += "Colours tell the instances of an image apart." * (not videos)
    headline(fig, head, note)
    return fig


def _video_sheet(fig: Picture, clips: list[Clip]) -> None:
    """A row of evenly spaced frames for each video, as many as fit, and words to their left."""
    room, top = WIDTH - LEFT - EDGE, HEAD
    for clip in clips:
        widest = ROW_VIDEO * clip.width / clip.height
        number = max(3, round(room / widest))
        width = min((room + GAP) / number - GAP, widest)
        height = width * clip.height / clip.width
        lines = min(len(clip.labels) + 2, LINES)
        _legend(fig, clip, top, lines)
        texts = [str(i + 1) for i in range(len(clip.labels))]
        # The words beside the frames may need more room than these.
        needed = max(height + WORDS, lines * LINE) + GAP
        for k, t in enumerate(sorted({round(t) for t in np.linspace(0, len(clip) - 1, number)})):
            axes = fig.place(LEFT + k * (width + GAP), top, width, height, needed - height + EDGE)
            _picture(axes, clip, t, texts, f"frame {t}" if width > 0.45 else str(t))
        top += needed


def _image_sheet(fig: Picture, clips: list[Clip]) -> None:
    """Rows as wide as the sheet, each of one height; the last is left as it comes."""
    room, top, row = WIDTH - 2 * EDGE, HEAD, []
    for clip in clips:
        row.append(clip)
        wide = sum(c.width / c.height for c in row)
        height = min((room - GAP * (len(row) - 1)) / wide, ROW_IMAGES)
        if height == ROW_IMAGES and clip is not clips[-1]:
            continue  # there is room for more
        left = EDGE
        for each in row:
            width = height * each.width / each.height
            axes = fig.place(left, top, width, height, below=WORDS + GAP + EDGE)
            name = Path(each.video["file_names"][0]).name
            _picture(axes, each, 0, None, f"{name}, {each.width}x{each.height}")
            left += width + GAP
        top += height + WORDS + GAP
        row = []


def _picture(axes: Axes, clip: Clip, t: int, texts: list[str] | None, words: str) -> None:
    """One frame with its masks and words below. texts: a tag each; None names the largest masks."""
    width, height = axes.get_position().size * axes.figure.get_size_inches()
    bare(axes)
    try:
        size = round(height * DPI), round(width * DPI)
        axes.imshow(_drawn(clip, t, size, texts), aspect="auto")
    except ValueError as error:
        axes.set_facecolor("#eeeeee")
        reason = _plain(str(error).replace(f"{clip.root}/", ""))
        lines = max(int(height / 0.11), 1)
        reason = textwrap.fill(reason, max(int(width / 0.055), 8), max_lines=lines)
        look = {"fontsize": 6, "color": RED, "va": "top"}
        axes.text(0.03, 0.97, reason, transform=axes.transAxes, **look)
    said = _shortened(words, max(int(width / 0.052), 3))
    look = {"fontsize": 6, "color": INK, "va": "top"}
    axes.text(0, -0.03 / height, said, transform=axes.transAxes, **look)


def _drawn(clip: Clip, t: int, size: tuple[int, int], texts: list[str] | None) -> np.ndarray:
    """Frame `t` at the size at which it is printed, so that contours and tags are sharp."""
    image, masks = clip.render(t)
    if texts is None:  # of the others tags would hide the masks
        largest = set(np.argsort(-masks.sum((1, 2)), kind="stable")[:MOST_TAGS].tolist())
        names = [clip.categories[label] for label in clip.labels]
        texts = [name if i in largest else "" for i, name in enumerate(names)]
    image = resized(image, size, Image.Resampling.LANCZOS)
    small = resized_masks(masks, size)
    return draw_frame(image, small, range(1, len(small) + 1), texts, scale=1)


def _legend(fig: Picture, clip: Clip, top: float, lines: int) -> None:
    """Name and size of a video, and which number is what: `lines` lines."""
    count, frames = len(clip.labels), f"{len(clip)} frame{'s' * (len(clip) > 1)}"
    shown = count if count <= lines - 2 else lines - 3
    rows = [(clip.name, ""), (f"{frames}, {clip.width}x{clip.height}", "")]
    for i, label in enumerate(clip.labels[:shown], start=1):
        rows.append((f"{i} {clip.categories[label]}", rgb(i)))
    if shown < count:
        rows.append((f"… and {count - shown} more", ""))
    for k, (text, color) in enumerate(rows):
        left, y = EDGE, top + k * LINE
        if color:  # a square of the colour, since yellow words could not be read
            fig.write(left, y, "■", fontsize=6.5, color=color)
            left += 0.1
        fig.write(left, y, _shortened(text, 22), fontsize=6.5)


def _shortened(text: str, most: int) -> str:
    return _plain(text if len(text) <= most else text[: max(most - 1, 1)] + "…")


def _plain(text: str) -> str:
    """No formulas: matplotlib sets what stands between two dollar signs."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
