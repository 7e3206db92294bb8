"""A data set on one sheet: frames with masks, identities and categories, as a reader gives them.

    folder ─ YouTubeVIS ─> a row of frames for each video: the same colour is the same instance, in every frame
           └ COCO       ─> images beside one another in rows of one height: colours tell instances apart

What cannot be read is drawn as an empty frame with the reason, so that one broken image does not hide the others.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from minst.data.coco import COCO, holds_images
from minst.data.layouts import find_annotations
from minst.data.ytvis import Clip, YouTubeVIS
from minst.visualize.masks import draw_frame
from minst.visualize.style import INK, RED, WIDTH, Picture, headline, new_figure, rgb

__all__ = ["preview_dataset"]

LEFT, EDGE, GAP, HEAD = 1.2, 0.12, 0.05, 0.66  # inches: words beside a video, margin, between pictures, headline
ROW_VIDEO, ROW_IMAGES, WORDS = 1.25, 1.7, 0.17  # inches: height of a row of frames, of images, of a line of words
LINE, LINES = 0.115, 10  # inches and number of the lines of words beside a video
MOST_TAGS, DPI = 6, 150  # names on an image; as `save` writes


def preview_dataset(
    folder: str | Path, split: str | None = None, annotations: str | Path | None = None, count: int = 12
) -> Picture:
    """A sheet of `count` videos or images, evenly spaced over the data set. Without annotations: frames alone.

    Raises what the readers raise for an annotation file that is missing or broken, and ValueError for count < 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}: show at least one video or image")
    file = Path(annotations) if annotations else find_annotations(folder, split)
    videos = not holds_images(file)
    dataset = (YouTubeVIS if videos else COCO)(folder, split, file)
    if not len(dataset):
        raise ValueError(f"{file}: holds no videos or images")
    chosen = sorted({round(i) for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset)))})
    clips = [dataset[i] for i in chosen]
    fig = (_video_sheet if videos else _image_sheet)(clips)
    _headline(fig, dataset, file, "video" if videos else "image", len(clips))
    return fig


def _headline(fig: Picture, dataset: YouTubeVIS, file: Path, what: str, shown: int) -> None:
    total, instances = len(dataset), int(dataset.track_counts.sum())
    which = f"All {total:,}" if shown == total else f"{shown} of {total:,}"
    head = f"{which} {what}{'s' * (total > 1)} of {_shortened(f'{file.parent.name}/{file.name}', 60)}"
    means = {
        "video": "In a row, one colour and number is one instance in every frame",
        "image": "Colours tell the instances of an image apart",
    }[what]
    said = f"{instances:,} instances of {len(dataset.categories)} categories. {means}."
    headline(fig, head, said if instances else "No annotations: the labels are withheld.")


def _video_sheet(clips: list[Clip]) -> Picture:
    """A row of evenly spaced frames for each video, as many as fit, and words to their left."""
    room, rows = WIDTH - LEFT - EDGE, []
    for clip in clips:
        number = max(3, round(room / (ROW_VIDEO * clip.width / clip.height)))
        width = min((room + GAP) / number - GAP, ROW_VIDEO * clip.width / clip.height)
        height = width * clip.height / clip.width
        lines = min(len(clip.labels) + 2, LINES)
        rows.append((clip, number, width, height, lines, max(height + WORDS, lines * LINE) + GAP))
    fig, top = new_figure(HEAD + sum(row[-1] for row in rows) + EDGE), HEAD
    for clip, number, width, height, lines, needed in rows:
        _legend(fig, clip, top, lines)
        texts = [str(i + 1) for i in range(len(clip.labels))]
        for k, t in enumerate(sorted({round(t) for t in np.linspace(0, len(clip) - 1, number)})):
            place = (LEFT + k * (width + GAP), top, width, height)
            _picture(fig, place, clip, t, lambda masks: texts, f"frame {t}" if width > 0.45 else str(t))
        top += needed
    return fig


def _image_sheet(clips: list[Clip]) -> Picture:
    """Rows as wide as the sheet, each of one height; the last is left as it comes."""
    room, rows, row = WIDTH - 2 * EDGE, [], []
    for clip in clips:
        row = [*row, clip]
        wide = sum(c.width / c.height for c in row)
        height = (room - GAP * (len(row) - 1)) / wide
        if height <= ROW_IMAGES:
            rows, row = [*rows, (row, height)], []
    rows += [(row, ROW_IMAGES)] if row else []
    fig, top = new_figure(HEAD + sum(height + WORDS + GAP for _, height in rows) + EDGE), HEAD
    for row, height in rows:
        left = EDGE
        for clip in row:
            width = height * clip.width / clip.height
            words = f"{Path(clip.video['file_names'][0]).name}, {clip.width}x{clip.height}"
            _picture(fig, (left, top, width, height), clip, 0, _largest_named(clip), words)
            left += width + GAP
        top += height + WORDS + GAP
    return fig


def _largest_named(clip: Clip) -> Callable[[np.ndarray], list[str]]:
    """Category names for the largest masks of an image, none for the others: tags would hide them."""

    def texts(masks: np.ndarray) -> list[str]:
        largest = set(np.argsort(-masks.sum((1, 2)), kind="stable")[:MOST_TAGS].tolist())
        return [clip.categories[label] if i in largest else "" for i, label in enumerate(clip.labels)]

    return texts


def _picture(fig: Picture, place: tuple, clip: Clip, t: int, texts: Callable, words: str) -> None:
    """One frame with its masks at `place`, (left, top, width, height) in inches from the upper left, and words."""
    left, top, width, height = place
    tall = fig.get_figheight()
    axes = fig.add_axes((left / WIDTH, 1 - (top + height) / tall, width / WIDTH, height / tall))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    try:
        axes.imshow(_drawn(clip, t, (round(width * DPI), round(height * DPI)), texts), aspect="auto")
    except ValueError as error:
        axes.set_facecolor("#eeeeee")
        reason = _plain(str(error).replace(f"{clip.root}/", ""))
        reason = textwrap.fill(reason, max(int(width / 0.055), 8), max_lines=max(int(height / 0.11), 1))
        axes.text(0.03, 0.97, reason, transform=axes.transAxes, fontsize=6, color=RED, va="top")
    said = _shortened(words, max(int(width / 0.052), 3))
    axes.text(0, -0.03 / height, said, transform=axes.transAxes, fontsize=6, color=INK, va="top")


def _drawn(clip: Clip, t: int, size: tuple[int, int], texts: Callable) -> np.ndarray:
    """Frame `t` at the size at which it is printed, so that contours and tags are as sharp as they can be."""
    image, masks = clip.render(t)
    shown = texts(masks)
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    small = [np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)) > 100 for mask in masks]
    return draw_frame(image, small, range(1, len(small) + 1), shown, scale=1)


def _legend(fig: Picture, clip: Clip, top: float, lines: int) -> None:
    """Name and size of a video, and which number is what: `lines` lines."""
    shown = len(clip.labels) if len(clip.labels) <= lines - 2 else lines - 3
    rows = [(clip.name, ""), (f"{len(clip)} frame{'s' * (len(clip) > 1)}, {clip.width}x{clip.height}", "")]
    rows += [(f"{i + 1} {clip.categories[label]}", rgb(i + 1)) for i, label in enumerate(clip.labels[:shown])]
    rows += [(f"… and {len(clip.labels) - shown} more", "")] if shown < len(clip.labels) else []
    for k, (text, color) in enumerate(rows):
        y = 1 - (top + k * LINE) / fig.get_figheight()
        if color:  # a square of the colour, since yellow words could not be read
            fig.text(EDGE / WIDTH, y, "■", fontsize=6.5, color=color, va="top")
        fig.text((EDGE + 0.1 * bool(color)) / WIDTH, y, _shortened(text, 22), fontsize=6.5, color=INK, va="top")


def _shortened(text: str, most: int) -> str:
    text = text if len(text) <= most else text[: max(most - 1, 1)] + "…"
    return _plain(text)


def _plain(text: str) -> str:
    """No formulas: matplotlib sets what stands between two dollar signs."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
