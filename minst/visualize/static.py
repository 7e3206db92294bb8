"""The explorer as files: a page that answers clicks, sliders and keys without Python.

    Explorer ─ all that can be asked for, drawn now ─> index.html, about.json
                                                       T-association/  frames, said.json
                                                       query-N/        soft masks, attention

The page only looks things up; whatever is drawn is drawn by the same methods as in a notebook.
Thresholds cannot be moved on it, since each of their values would be another page.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from pathlib import Path

import numpy as np

from minst.data.files import new_folder
from minst.visualize import diagram
from minst.visualize.explorer import KEYS, TITLE, Explorer
from minst.visualize.recording import Replay, Settings

__all__ = ["MOST_FRAMES", "save_explorer"]

PAGE = Path(__file__).with_name("explorer.html")
INTERVALS = (1, 2, 3, 4, 6, 12)
MOST_BYTES, MOST_FRAMES = 40e6, 32
GRID = (60, 80)  # rows and columns of the cells that say what a click hits


def save_explorer(
    explorer: Explorer, folder: str | Path, intervals: Sequence[int] = INTERVALS
) -> int:
    """Write what `explore` shows as a page for any web server, in a new folder; its bytes.

    Computed are tracking with both associations at each T of `intervals` and at that of the
    explorer, and every query that serves an identity in one of them. Model and thresholds are
    those that the explorer has now. Raises ValueError for a folder that holds something, and for a
    page of more than 40 MB.
    """
    settings, query = explorer.settings, explorer.query
    with new_folder(folder) as new:
        try:
            files = dict(_files(explorer, settings, query, intervals))
        finally:
            explorer.settings, explorer.query = settings, query
        size = sum(map(len, files.values()))
        if size > MOST_BYTES:
            what = f"a page of {len(explorer.recording)} frames would have {size / 1e6:.0f} MB"
            raise ValueError(f"{what}, more than {MOST_BYTES / 1e6:.0f}; take a shorter clip")
        for name, content in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(content)
    return size


def _files(
    explorer: Explorer, settings: Settings, query: int, intervals: Sequence[int]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents; leaves the explorer at other settings."""
    recording, label = explorer.recording, explorer.weights.value
    every = sorted({*intervals, settings.reuse_interval})
    choices = {
        f"{T}-{how}": settings._replace(reuse_interval=T, association=how)
        for T, how in product(every, ("mask", "cosine"))
    }
    replays = [explorer.replay_of(label, each) for each in choices.values()]
    served = {q for replay in replays for frame in replay.frames for q in frame.queries}
    queries = sorted(served | {query})
    # What depends on the query and the key frame alone.
    strips, captions, looks = {}, {}, []
    for explorer.query in queries:
        likeness = [recording.similarity(explorer.query, key) for key in range(len(recording))]
        strips[explorer.query] = [diagram.strips(explorer.query, *each) for each in likeness]
        for key in range(len(recording)):
            if looks := explorer.looks(label, key, explorer.query):
                yield f"query-{explorer.query}/looks-{key}.jpg", explorer.column(looks)
        captions[explorer.query] = explorer.captions(1 + len(looks))
    start = {"T": settings.reuse_interval, "association": settings.association, "query": query}
    about = {"title": TITLE, "keys": KEYS, "frames": len(recording), "size": explorer.size()}
    about |= {"intervals": every, "start": start, "grid": GRID, "chart": diagram.WIDTH}
    about["tiles"] = 1 + len(looks)
    yield "index.html", PAGE.read_bytes()
    yield "about.json", _json(about | {"captions": captions, "strips": strips})
    # What depends on T and the association, too; most pictures of a query serve several of them.
    drawn: set[str] = set()
    for (choice, explorer.settings), replay in zip(choices.items(), replays):
        said = {"keys": replay.keys, "rows": {}, "cursors": [], "frames": []}
        said["frames"] = [_frame(explorer, replay, t) for t in range(len(recording))]
        for explorer.query in queries:
            names = recording.config.class_names
            rows, bottom, said["height"] = diagram.rows(replay, names, explorer.query)
            said["rows"][explorer.query] = rows
            for t, frame in enumerate(said["frames"]):
                which = f"soft-{replay.keys[t]}-{t}-{explorer.identity(t)}"
                tile = f"query-{explorer.query}/{which}.jpg"
                if tile not in drawn:
                    drawn.add(tile)
                    yield tile, explorer.column([explorer.soft(t)])
                words = explorer.query_caption(t)
                frame["of"][explorer.query] = {
                    "tile": tile,
                    "halo": explorer.halo(t),
                    "words": words,
                }
        said["cursors"] = [diagram.cursor(t, len(recording), bottom) for t in range(len(recording))]
        for t in range(len(recording)):
            yield f"{choice}/{t}.jpg", explorer.picture_at(label, explorer.settings, t)
        yield f"{choice}/said.json", _json(said)


def _frame(explorer: Explorer, replay: Replay, t: int) -> dict:
    """What a frame says; `hits` are runs of cells, row after row: the query, how many."""
    middles = ((np.arange(count) + 0.5) / count for count in GRID)
    cells = replay.queries_at(t, *middles).ravel().tolist()
    hits = [n for query, run in groupby(cells) for n in (query, len([*run]))]
    found = replay.frames[t]
    frame = {"words": explorer.frame_caption(t), "hits": hits, "of": {}}
    return frame | {"ids": found.ids, "queries": found.queries}


def _json(content: dict) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
