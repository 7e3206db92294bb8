"""What the explorer draws over and below its pictures, as SVG: crisp at any size, clickable, small.

    chart    how alike the selected query's kernels are over time, a row for every identity below
    halo     a dashed box around the selected object
    captions words on the small pictures

What can be clicked carries `data-pick="frame,identity"` (see `minst.visualize.view`).

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import html
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.ndimage import find_objects

from minst.visualize.masks import class_name, color_of
from minst.visualize.recording import Replay
from minst.visualize.style import INK, RED

__all__ = ["WIDTH", "captions", "chart", "cursor", "halo", "rows", "strips", "svg"]

# Pixels: all, the names of rows, their figures, frame numbers; a strip, a row of an identity.
WIDTH, LEFT, RIGHT, TOP = 740, 160, 48, 20
STRIP, ROW, MAX_ROWS = 18, 22, 10
STRIPS = TOP, TOP + STRIP + 2  # where each of the two begins
ROWS = STRIPS[1] + STRIP + 20  # where the identities begin


def svg(width: int, height: int, content: str) -> str:
    """An SVG of a size in pixels."""
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    return _tag("svg", content, xmlns="http://www.w3.org/2000/svg", **size)


def halo(mask: np.ndarray, width: int, height: int) -> str:
    """A dashed box around a mask (H, W) bool that is shown `width` x `height` pixels large."""
    ((rows, columns),) = find_objects(mask.astype(np.uint8))
    sy, sx = height / mask.shape[0], width / mask.shape[1]
    x, y = round(columns.start * sx) - 7, round(rows.start * sy) - 7
    w, h = round(columns.stop * sx) + 7 - x, round(rows.stop * sy) + 7 - y
    box = {"x": x, "y": y, "width": w, "height": h, "rx": 8, "fill": "none"}
    light = _tag("rect", stroke="#fff", stroke_width=4, **box)
    return light + _tag("rect", stroke=INK, stroke_width=2, stroke_dasharray="6 5", **box)


def captions(texts: Sequence[str], width: int, height: int) -> str:
    """A text on each of the pictures of `width` x `height` pixels that stand above each other."""
    parts = []
    for y, text in zip(range(0, height * len(texts), height), texts):
        parts.append(_tag("rect", y=y, width=width, height=17, fill="#000", opacity=".6"))
        parts.append(_text(5, y + 12.5, text, "start", fill="#fff"))
    return svg(width, height * len(texts), "".join(parts))


def chart(
    replay: Replay, names: Sequence[str], query: int, t: int, own: np.ndarray, every: np.ndarray
) -> str:
    """Similarity strips and timeline, with frame `t` marked.

    own (L,): cosine of the query's kernel in use with its own over time; every (L, N): with all.
    """
    content, bottom, height = rows(replay, names, query)
    content = strips(query, own, every) + content + cursor(t, len(own), bottom)
    return svg(WIDTH, height, content)


def cursor(t: int, count: int, bottom: int) -> str:
    """A frame around all that the chart says of frame `t`."""
    look = {"fill": "none", "stroke": INK, "stroke_width": 2, "rx": 3, "pointer_events": "none"}
    return _cell(t, count, TOP - 3, bottom - TOP + 4, **look)


def strips(query: int, own: np.ndarray, every: np.ndarray) -> str:
    """How alike the kernels are, and the numbers of the frames above."""
    others = np.delete(every, query, axis=1)
    named = {f"kernel of query {query}, itself": own}
    if others.shape[1]:
        named["and its nearest rival"] = others.max(1)
    low = min(0.5, *(np.floor(10 * values.min()) / 10 for values in named.values()))
    parts = [_numbers(len(own))]
    for y, (name, values) in zip(STRIPS, named.items()):
        parts.append(_strip(y, name, values, low))
    words = f"cosine: dark {low:.1f}, bright 1"
    return "".join([*parts, _text(LEFT - 8, ROWS - 9, words, size=9)])


def rows(replay: Replay, names: Sequence[str], query: int) -> tuple[str, int, int]:
    """Key frames, identities and legend; where the identities end, and all of it."""
    y, parts, count = ROWS, [], len(replay.frames)
    for key in sorted(set(replay.keys)):
        half = min(4.0, _x(0.5, count) - LEFT)
        triangle = f"M{_x(key + 0.5, count):.1f} {y - 4}l{-half:.1f} -7h{2 * half:.1f}z"
        parts.append(_tag("path", d=triangle, fill=INK))
    # The identities that are seen longest.
    tracks = sorted(replay.result.tracks, key=lambda track: -len(_seen(track)))
    for track in sorted(tracks[:MAX_ROWS], key=lambda track: track.id):
        parts.append(_track(y, track, class_name(names, track.label), replay, query))
        y += ROW
    if not tracks:
        words = "no identity in any frame: lower the score threshold"
        parts.append(_text(LEFT, y + 14, words, "start"))
        y += ROW
    elif len(tracks) > MAX_ROWS:
        parts.append(_text(LEFT, y + 12, f"and {len(tracks) - MAX_ROWS} shorter ones", "start"))
        y += 16
    legend, height = _legend(y + 18, replay.identity is not None)
    return "".join([*parts, legend]), y, height


def _tag(name: str, content: str = "", title: str = "", **attributes) -> str:
    """One element. Numbers have one decimal at most; an attribute a_b is written a-b."""
    if title:
        content += f"<title>{html.escape(title)}</title>"
    words = [name]
    for key, value in attributes.items():
        if isinstance(value, (int, float)):
            value = f"{value:.1f}".removesuffix(".0")
        words.append(f"{key.replace('_', '-')}='{value}'")
    return f"<{' '.join(words)}>{content}</{name}>"


def _text(
    x: float, y: float, text: str, anchor: str = "end", size: int = 11, fill: str = INK
) -> str:
    look = {"text_anchor": anchor, "font_size": size, "fill": fill}
    return _tag("text", html.escape(text), x=x, y=y, **look)


def _x(t: float, count: int) -> float:
    """Where frame `t` of `count` begins."""
    return LEFT + t * (WIDTH - LEFT - RIGHT) / count


def _cell(t: int, count: int, y: float, height: float, title: str = "", **look) -> str:
    """A rectangle in the column of frame `t`."""
    place = {"x": _x(t, count), "y": y, "width": _x(1, count) - LEFT, "height": height}
    return _tag("rect", title=title, **place, **look)


def _numbers(count: int) -> str:
    """Frame numbers from 1, as many as there is room for."""
    room = _x(1, count) - LEFT
    every = next(k for k in (1, 2, 5, 10, 20, 50) if k * room >= 22 or k == 50)
    shown = [t for t in range(count) if t == 0 or (t + 1) % every == 0]
    numbers = [_text(_x(t + 0.5, count), 12, str(t + 1), "middle", 10) for t in shown]
    return _text(LEFT - 8, 12, "frame") + "".join(numbers)


def _strip(y: int, name: str, values: np.ndarray, low: float) -> str:
    """A cell for every frame, dark at `low` and bright at 1."""
    parts = [_text(LEFT - 8, y + 13, name, size=10)]
    shades = map(to_hex, colormaps["cividis"]((values - low) / (1 - low)))
    for t, (value, shade) in enumerate(zip(values, shades)):
        look = {"fill": shade, "stroke": shade, "stroke_width": 0.4, "data_pick": f"{t},0"}
        parts.append(_cell(t, len(values), y, STRIP, f"frame {t + 1}: cosine {value:.2f}", **look))
    return "".join([*parts, _text(WIDTH - RIGHT + 6, y + 13, f"⌀ {values.mean():.2f}", "start")])


def _seen(track) -> list[int]:
    return [t for t, code in enumerate(track.segmentations) if code is not None]


def _track(y: float, track, name: str, replay: Replay, query: int) -> str:
    """One identity: a cell for every frame that sees it, a thin line between, and what happens."""
    color = "rgb({},{},{})".format(*color_of(track.id))
    seen, middle, count = _seen(track), y + ROW / 2 - 1, len(replay.frames)
    served = replay.serves(query)
    line = f"M{_x(seen[0] + 0.5, count):.1f} {middle}H{_x(seen[-1] + 0.5, count):.1f}"
    parts = [
        _text(LEFT - 8, middle + 4, f"{track.id} {name}"),
        _tag("path", d=line, stroke=color, stroke_width=2),
    ]
    for t in seen:
        look = {"fill": color, "data_pick": f"{t},{track.id}", "stroke": "#fff"}
        title = f"frame {t + 1}: identity {track.id}"
        parts.append(_cell(t, count, y + 2, ROW - 6, title, stroke_width=0.6, **look))
        if served[t] == track.id:
            parts.append(_cell(t, count, y + ROW - 4, 3, fill=INK, **{"class": "selected"}))
    for t, identity, kind, words in _marks(replay):
        if identity == track.id:
            place = f"translate({_x(t + 0.5, count):.1f} {middle:.1f})"
            title = f"frame {t + 1}: {words}"
            look = {"class": kind, "data_pick": f"{t},{identity}", "transform": place}
            parts.append(_tag("g", SHAPES[kind], title, **look))
    parts.append(_text(WIDTH - RIGHT + 6, middle + 4, f"{len(seen)}/{count}", "start"))
    return "".join(parts)


def _marks(replay: Replay) -> Iterator[tuple[int, int, str, str]]:
    """(frame, identity, kind, words) of everything that happens to identities."""
    for t, identity, old, new in replay.handovers:
        yield t, identity, "handover", f"query {new} takes over from query {old}"
    for event in replay.identity.events if replay.identity else ():
        if event.kind == "swap":
            yield event.frame, event.new_id, "swap", f"this object was identity {event.old_id}"
        elif event.kind == "lost":
            yield event.frame, event.old_id, "lost", "its object is visible, but lost"


# What marks an event, about its place; the legend: mark, words, does it take annotations?
SHAPES = {
    "handover": _tag("path", d="M0 -6l5 6-5 6-5-6z", fill="#fff", stroke=INK),
    "swap": _tag("circle", r=7, fill=RED)
    + _tag("path", d="M-3 -3l6 6m0-6l-6 6", stroke="#fff", stroke_width=2),
    "lost": _tag("circle", r=5, fill="#fff", stroke=RED, stroke_width=2),
}
LEGEND = (
    (_tag("path", d="M-7 0h14", stroke="#888", stroke_width=10), "seen", False),
    (_tag("path", d="M-5 -6h10", stroke=INK, stroke_width=3), "by the selected query", False),
    (SHAPES["handover"], "another query takes over", False),
    (SHAPES["swap"], "identities swapped", True),
    (SHAPES["lost"], "object lost", True),
    (_tag("path", d="M0 4l-4-7h8z", fill=INK), "key frame", False),
)


def _legend(y: float, annotated: bool) -> tuple[str, int]:
    """What the marks mean, in as many lines as it takes; and where the drawing ends."""
    x, parts = 8.0, []
    for shape, words, of_annotations in LEGEND:
        if of_annotations and not annotated:
            continue
        length = 34 + 6.1 * len(words)
        if x + length > WIDTH:
            x, y = 8.0, y + 18
        parts.append(_tag("g", shape, transform=f"translate({x + 7:.0f} {y - 4:.0f})"))
        parts.append(_text(x + 20, y, words, "start"))
        x += length
    return "".join(parts), round(y + 8)
