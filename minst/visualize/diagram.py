"""What the explorer draws over and below its pictures, as SVG: crisp at any size, clickable, a few kilobytes.

    chart    how alike the selected query's kernels are over time, and below it a row for every identity
    halo     a dashed box around the selected object
    captions words on the small pictures

What can be clicked carries `data-pick="frame,identity"` (see `minst.visualize.view`).

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from minst.visualize.masks import class_name, color_of
from minst.visualize.style import INK, RED

if TYPE_CHECKING:
    from minst.visualize.recording import Replay

__all__ = ["captions", "chart", "halo", "svg"]

WIDTH, LEFT, RIGHT, TOP = (
    740,
    160,
    48,
    20,
)  # pixels: all, the names of rows, their figures, frame numbers
STRIP, ROW, MAX_ROWS = 18, 22, 10
LEGEND = (
    ("<path d='M0 4h14' stroke='#888' stroke-width='10'/>", "seen"),
    ("<path d='M0 4h14' stroke='#888' stroke-width='10' opacity='.35'/>", "covers no annotated object"),
    ("<path d='M2 -2h10' stroke='{ink}' stroke-width='3'/>", "by the selected query"),
    ("<path d='M7 -2l5 6-5 6-5-6z' fill='#fff' stroke='{ink}'/>", "another query takes over"),
    ("<circle cx='7' cy='4' r='6.5' fill='{red}'/><path d='M4 1l6 6m0-6l-6 6' stroke='#fff' stroke-width='2'/>", "identities swapped"),
    ("<circle cx='7' cy='4' r='5' fill='#fff' stroke='{red}' stroke-width='2'/>", "object lost"),
    ("<path d='M7 8l-4-7h8z' fill='{ink}'/>", "key frame"),
)  # fmt: skip


def svg(width: int, height: int, content: str) -> str:
    """An SVG of a size in pixels."""
    return f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>{content}</svg>"


def halo(mask: np.ndarray, width: int, height: int) -> str:
    """A dashed box around a mask (H, W) bool that is shown `width` x `height` pixels large."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    sy, sx = height / mask.shape[0], width / mask.shape[1]
    x, y = columns[0] * sx - 7, rows[0] * sy - 7
    w, h = (columns[-1] + 1) * sx + 7 - x, (rows[-1] + 1) * sy + 7 - y
    box = f"x='{x:.0f}' y='{y:.0f}' width='{w:.0f}' height='{h:.0f}' rx='8' fill='none'"
    return f"<rect {box} stroke='#fff' stroke-width='4'/><rect {box} stroke='{INK}' stroke-width='2' stroke-dasharray='6 5'/>"


def captions(texts: Sequence[str], width: int, height: int) -> str:
    """One text on each of the pictures of `width` x `height` pixels that stand above each other."""
    words = "".join(
        f"<rect y='{i * height}' width='{width}' height='17' fill='#000' opacity='.6'/>"
        f"<text x='5' y='{i * height + 12.5}' font-size='11' fill='#fff'>{html.escape(text)}</text>"
        for i, text in enumerate(texts)
    )
    return svg(width, height * len(texts), words)


def chart(
    replay: Replay, names: Sequence[str], query: int, t: int, own: np.ndarray, every: np.ndarray
) -> str:
    """Similarity strips and timeline, with frame `t` marked.

    own (T,): cosine of the query's kernel that is in use with its kernels in all frames; every (T, N): with all.
    """
    others = np.delete(every, query, axis=1)
    strips = [(f"kernel of query {query}, itself", own)]
    if others.shape[1]:
        strips.append(("and its nearest rival", others.max(1)))
    low = min(0.5, *(np.floor(10 * values.min()) / 10 for _, values in strips))
    columns = _Columns(len(own))
    y, parts = TOP, [_numbers(columns, replay)]
    for name, values in strips:
        parts.append(_strip(columns, y, name, values, low))
        y += STRIP + 2
    parts.append(_text(LEFT - 8, y + 9, f"cosine: dark {low:.1f}, bright 1", size=9))
    y += 18
    parts.append(_keys(columns, y - 4, replay.keys))
    rows = sorted(
        replay.result.tracks, key=lambda track: -sum(s is not None for s in track.segmentations)
    )[:MAX_ROWS]
    rows.sort(key=lambda track: track.id)
    served = replay.serves(query)
    marks = _marks(replay)
    for track in rows:
        parts.append(
            _track(
                columns,
                y,
                track,
                class_name(names, track.label),
                served,
                _uncovered(replay, track.id),
            )
        )
        parts.extend(
            _mark(columns.middle(f), y + ROW / 2 - 1, kind, words)
            for f, i, kind, words in marks
            if i == track.id
        )
        y += ROW
    if not rows:
        parts.append(
            _text(
                LEFT, y + 14, "no identity in any frame: lower the score threshold", anchor="start"
            )
        )
        y += ROW
    elif len(replay.result.tracks) > len(rows):
        parts.append(
            _text(
                LEFT,
                y + 12,
                f"and {len(replay.result.tracks) - len(rows)} shorter ones",
                anchor="start",
            )
        )
        y += 16
    cursor = f"<rect x='{columns.x(t) - 1:.1f}' y='{TOP - 3}' width='{columns.width + 1:.1f}' height='{y - TOP + 4}' rx='3'"
    parts.append(cursor + f" fill='none' stroke='{INK}' stroke-width='2' pointer-events='none'/>")
    legend, height = _legend(y + 18, replay.identity is not None)
    return svg(WIDTH, height, "".join([*parts, legend]))


class _Columns:
    """Where frames stand."""

    def __init__(self, count: int):
        self.count = count
        self.width = (WIDTH - LEFT - RIGHT) / count

    def x(self, t: int) -> float:
        return LEFT + t * self.width

    def middle(self, t: int) -> float:
        return self.x(t) + self.width / 2


def _text(x: float, y: float, text: str, anchor: str = "end", size: int = 11) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' fill='{INK}'>{html.escape(text)}</text>"


def _numbers(columns: _Columns, replay: Replay) -> str:
    """Frame numbers from 1, as many as there is room for."""
    every = next(k for k in (1, 2, 5, 10, 20, 50) if k * columns.width >= 22 or k == 50)
    shown = [t for t in range(columns.count) if t == 0 or (t + 1) % every == 0]
    return _text(LEFT - 8, 12, "frame") + "".join(
        _text(columns.middle(t), 12, str(t + 1), "middle", 10) for t in shown
    )


def _strip(columns: _Columns, y: int, name: str, values: np.ndarray, low: float) -> str:
    """A cell for every frame, dark at `low` and bright at 1."""
    shades = colormaps["cividis"]((values - low) / (1 - low))
    cells = "".join(
        f"<rect x='{columns.x(t):.1f}' y='{y}' width='{columns.width + 0.3:.1f}' height='{STRIP}' fill='{to_hex(shades[t])}'"
        f" data-pick='{t},0'><title>frame {t + 1}: cosine {v:.2f}</title></rect>"
        for t, v in enumerate(values)
    )
    return (
        _text(LEFT - 8, y + 13, name, size=10)
        + cells
        + _text(WIDTH - RIGHT + 6, y + 13, f"⌀ {values.mean():.2f}", "start")
    )


def _keys(columns: _Columns, y: float, keys: Sequence[int]) -> str:
    middles = [columns.middle(t) for t in sorted(set(keys))]
    half = min(4.0, columns.width / 2)
    return "".join(
        f"<path d='M{x:.1f} {y}l{-half:.1f} -7h{2 * half:.1f}z' fill='{INK}'/>" for x in middles
    )


def _track(
    columns: _Columns, y: float, track, name: str, served: Sequence[int], uncovered: set[int]
) -> str:
    """One identity: a cell for every frame that sees it, a thin line between."""
    color = "rgb({},{},{})".format(*color_of(track.id))
    seen = [t for t, code in enumerate(track.segmentations) if code is not None]
    middle = y + ROW / 2 - 1
    parts = [
        _text(LEFT - 8, middle + 4, f"{track.id} {name}"),
        f"<path d='M{columns.middle(seen[0]):.1f} {middle}H{columns.middle(seen[-1]):.1f}' stroke='{color}' stroke-width='2'/>",
    ]
    for t in seen:
        faint = " opacity='.35'" if t in uncovered else ""
        parts.append(
            f"<rect x='{columns.x(t):.1f}' y='{y + 2}' width='{columns.width - 0.6:.1f}' height='{ROW - 6}' fill='{color}'{faint}"
            f" data-pick='{t},{track.id}'><title>frame {t + 1}: identity {track.id}</title></rect>"
        )
        if served[t] == track.id:
            line = (
                f"x='{columns.x(t):.1f}' y='{y + ROW - 4}' width='{columns.width:.1f}' height='3'"
            )
            parts.append(f"<rect {line} fill='{INK}' class='selected'/>")
    parts.append(_text(WIDTH - RIGHT + 6, middle + 4, f"{len(seen)}/{columns.count}", "start"))
    return "".join(parts)


def _uncovered(replay: Replay, identity: int) -> set[int]:
    """Frames in which an identity's mask covers no annotated instance; none without annotations."""
    if replay.identity is None:
        return set()
    column = replay.identity.ids.tolist().index(identity)
    return set(
        np.flatnonzero(
            replay.identity.seen[:, column] & (replay.identity.covers[:, column] < 0)
        ).tolist()
    )


def _marks(replay: Replay) -> list[tuple[int, int, str, str]]:
    """(frame, identity, kind, words) of everything that happens to identities."""
    marks = [
        (t, i, "handover", f"frame {t + 1}: query {new} takes over from query {old}")
        for t, i, old, new in replay.handovers
    ]
    for event in replay.identity.events if replay.identity else ():
        if event.kind == "swap":
            words = f"frame {event.frame + 1}: this object was identity {event.old_id}"
            marks.append((event.frame, event.new_id, "swap", words))
        elif event.kind == "lost":
            marks.append(
                (
                    event.frame,
                    event.old_id,
                    "lost",
                    f"frame {event.frame + 1}: its object is visible, but lost",
                )
            )
    return marks


def _mark(x: float, y: float, kind: str, words: str) -> str:
    shape = {
        "handover": f"<path d='M0 -6l5 6-5 6-5-6z' fill='#fff' stroke='{INK}'/>",
        "swap": f"<circle r='7' fill='{RED}'/><path d='M-3 -3l6 6m0-6l-6 6' stroke='#fff' stroke-width='2'/>",
        "lost": f"<circle r='5' fill='#fff' stroke='{RED}' stroke-width='2'/>",
    }[kind]
    return f"<g class='{kind}' transform='translate({x:.1f} {y:.1f})'>{shape}<title>{html.escape(words)}</title></g>"


def _legend(y: float, annotated: bool) -> tuple[str, int]:
    """What the marks mean, in as many lines as it takes; and where the drawing ends."""
    x, parts = 8.0, []
    for shape, words in LEGEND:
        if not annotated and words in (
            "covers no annotated object",
            "identities swapped",
            "object lost",
        ):
            continue
        length = 34 + 6.1 * len(words)
        if x + length > WIDTH:
            x, y = 8.0, y + 18
        parts.append(
            f"<g transform='translate({x:.0f} {y - 8:.0f})'>{shape.format(ink=INK, red=RED)}</g>"
        )
        parts.append(_text(x + 20, y, words, "start", 11))
        x += length
    return "".join(parts), round(y + 8)
