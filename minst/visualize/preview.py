"""A data set on one sheet: frames with masks, identities and categories, as a reader gives them.

    folder ─ YouTubeVIS ─> a row of frames for each video: one colour is one instance in it
           └ COCO       ─> images in rows of one height: colours tell instances apart

What cannot be read is drawn as an empty frame with the reason, so that one broken image does not
hide the others.

Lesson: notebooks/10_capstone.ipynb
"""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

from minst.data.coco import COCO, holds_images
from minst.data.layouts import find_annotations
from minst.data.ytvis import Clip, YouTubeVIS
from minst.visualize.masks import draw_frame, resized, resized_masks
from minst.visualize.style import DPI, INK, RED, WIDTH, Picture, bare, headline, new_figure, rgb

__all__ = ["preview_dataset"]

# Inches: words beside a video, margin, between pictures, headline.
LEFT, EDGE, GAP, HEAD = 1.2, 0.12, 0.05, 0.66
# Inches: height of a row of frames, of a row of images, of a line of words below a picture.
ROW_VIDEO, ROW_IMAGES, WORDS = 1.25, 1.68, 0.17
LINE, LINES = 0.115, 10  # inches and number of the lines of words beside a video
MOST_TAGS = 6  # names on an image


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
    which = f"All {total:,}" if len(clips) == total else f"{len(clips)} of {total:,}"
    what = f"{'video' if videos else 'image'}{'s' * (total > 1)}"
    head = f"{which} {what} of {_shortened(f'{file.parent.name}/{file.name}', 60)}"
    note = "No annotations: the labels are withheld."
    if instances := int(dataset.track_counts.sum()):
        note = f"{instances:,} instances of {len(dataset.categories)} categories. "
        note += "In a row, one colour and number is one instance in every frame." * videos
        note += "Colours tell the instances of an image apart." * (not videos)
    headline(fig, head, note)
    (_video_sheet if videos else _image_sheet)(fig, clips)
    return fig


def _video_sheet(fig: Picture, clips: list[Clip]) -> None:
    """A row of evenly spaced frames for each video, as many as fit, and words to their left."""
    room, top = WIDTH - LEFT - EDGE, HEAD
    for clip in clips:
        aspect = clip.width / clip.height
        number = max(3, round(room / (ROW_VIDEO * aspect)))
        width = min((room + GAP) / number - GAP, ROW_VIDEO * aspect)
        height = width / aspect
        # The words beside the frames may need more room than these.
        needed = max(height + WORDS, _legend(fig, clip, top) * LINE) + GAP
        for k, t in enumerate(sorted({round(t) for t in np.linspace(0, len(clip) - 1, number)})):
            place = LEFT + k * (width + GAP), top, width, height, needed - height + EDGE
            texts = [str(i + 1) for i in range(len(clip.labels))]
            _picture(fig, place, clip, t, texts, f"frame {t}" if width > 0.45 else str(t))
        top += needed


def _image_sheet(fig: Picture, clips: list[Clip]) -> None:
    """Images of one height beside each other, as many in a row as fit."""
    left, top = EDGE, HEAD
    for clip in clips:
        width = min(ROW_IMAGES * clip.width / clip.height, WIDTH - 2 * EDGE)
        if left > EDGE and left + width > WIDTH - EDGE:
            left, top = EDGE, top + ROW_IMAGES + WORDS + GAP
        name = Path(clip.video["file_names"][0]).name
        words = f"{name}, {clip.width}x{clip.height}"
        place = left, top, width, width * clip.height / clip.width, WORDS + EDGE
        _picture(fig, place, clip, 0, None, words)
        left += width + GAP


def _picture(
    fig: Picture, place: tuple, clip: Clip, t: int, texts: list[str] | None, words: str
) -> None:
    """One frame with its masks and words below. texts: a tag each; None names the largest masks."""
    axes, (width, height) = bare(fig.place(*place)), place[2:4]
    look = {"fontsize": 6, "va": "top", "transform": axes.transAxes}
    try:
        size = round(height * DPI), round(width * DPI)
        axes.imshow(_drawn(clip, t, size, texts), aspect="auto")
    except ValueError as error:
        axes.set_facecolor("#eeeeee")
        reason = _plain(str(error).replace(f"{clip.root}/", ""))
        lines = max(int(height / 0.11), 1)
        reason = textwrap.fill(reason, max(int(width / 0.055), 8), max_lines=lines)
        axes.text(0.03, 0.97, reason, color=RED, **look)
    said = _shortened(words, max(int(width / 0.052), 3))
    axes.text(0, -0.03 / height, said, color=INK, **look)


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


def _legend(fig: Picture, clip: Clip, top: float) -> int:
    """Name and size of a video, and which number is what; returns the number of lines."""
    count, frames = len(clip.labels), f"{len(clip)} frame{'s' * (len(clip) > 1)}"
    lines = [clip.name, f"{frames}, {clip.width}x{clip.height}"]
    lines += [f"{i} {clip.categories[label]}" for i, label in enumerate(clip.labels, start=1)]
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"… and {count - (LINES - 3)} more"]
    for k, text in enumerate(lines):
        left, y = EDGE, top + k * LINE
        if k >= 2 and text[0] != "…":
            # A square of the colour, since yellow words could not be read.
            fig.write(left, y, "■", fontsize=6.5, color=rgb(k - 1))
            left += 0.1
        fig.write(left, y, _shortened(text, 22), fontsize=6.5)
    return len(lines)


def _shortened(text: str, most: int) -> str:
    return _plain(text if len(text) <= most else text[: max(most - 1, 1)] + "…")


def _plain(text: str) -> str:
    """No formulas: matplotlib sets what stands between two dollar signs."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
