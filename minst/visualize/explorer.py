"""The explorer: a clip, its identities, and the query behind each of them, live.

    Recording ─ replay(Settings) ─> Replay ─┬─ tracked frame (click an object: its query)
        │                                   ├─ timeline of all identities (hand-overs, swaps)
        └─ the selected query ──────────────┴─ soft mask, attention in X_G and X_L, its kernels

The network runs once (with a progress bar); afterwards a control only replays the tracker and draws
what is looked at. There is attention where the model is a MobileInst, whose tokens are known.
`explore` shows it in a notebook, `minst explore` as a page of its own (`minst.visualize.serve`).

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import html
import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import FunctionType

import numpy as np
from matplotlib import colormaps
from PIL import Image
from tqdm.auto import tqdm

from minst.protocol import QueryModel, open_model
from minst.results import FrameResult
from minst.visualize import diagram
from minst.visualize.attention import AttentionMaps, attention_maps
from minst.visualize.images import plot_images
from minst.visualize.masks import class_name, color_of, draw_frame, resized
from minst.visualize.recording import (
    MAX_FRAMES,
    Recording,
    Replay,
    Settings,
    Shots,
    read_frames,
)
from minst.visualize.style import Picture
from minst.weights import trained_side

try:
    import ipywidgets as widgets

    from minst.visualize.view import View
except ImportError as error:  # an extra: figures must work without it
    words = f'the explorer needs {error.name}: python3 -m pip install "mobileinst[notebooks]"'
    raise ImportError(words) from None

__all__ = ["Explorer", "explore"]

STILL = 6  # frames of the still
STAGE = (540, 405)  # width and height of the tracked frame, at most, in pixels of the page
KEYS = (
    "The tracked frame. Left and right arrow: frame before, next frame. Up and down arrow: another "
    "object, and its query. Home and End: first and last frame."
)
TITLE = (
    "<h2 style='margin:0'>Queries are good trackers</h2><div style='line-height:1.45;color:#444'>"
    "Each colour is one identity; one <b>query</b> of the network finds it, frame after frame. "
    "<b>Click an object</b> to see its query at work. Then play the clip, renew the kernels less "
    "often (T), or change how they are associated.</div>"
)


def explore(
    model: QueryModel | str | Mapping[str, QueryModel | str | Callable] = "shapes-tiny",
    video="easy",
    settings: Settings = Settings(),
    background: bool = False,
    max_frames: int = MAX_FRAMES,
) -> Explorer:
    """Track a video and show the query behind every identity, with controls, in a notebook.

    model: a model, the name of shipped weights, or {label: either, or a function that gives it} to
    switch between several.
    video: the name of a shipped clip, a clip with `render(t)`, or any iterable of (H, W, 3) bytes.
    Videos of more than `max_frames` are thinned and large ones made smaller, as `read_frames` says.
    background: return at once and compute in a thread. Raises ImportError without the extra
    "notebooks", ValueError for a video without frames or settings out of range.
    """
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    if not models:
        raise ValueError("explore: no model given")
    if isinstance(video, str):
        from minst.samples import load_sample

        video = load_sample(video)
    explorer = Explorer(settings, max_frames)
    if background:
        work = {"target": explorer.compute_safely, "args": (models, video)}
        threading.Thread(**work, daemon=True).start()
    else:
        explorer.compute(models, video)
    return explorer


class Explorer:
    """What `explore` returns: `widget`, the whole of it; `figure()`, a still of it."""

    def __init__(self, settings: Settings = Settings(), max_frames: int = MAX_FRAMES):
        self.settings, self.max_frames, self.query = settings, max_frames, 0
        self.recordings: dict[str, Recording] = {}
        self.replay_of = lru_cache(64)(lambda label, s: self.recordings[label].replay(s))
        self.picture_at = lru_cache(512)(self._draw_picture)
        self.looks = lru_cache(64)(self._look)
        self._attention = lru_cache(64)(self._attend)
        self._build()

    @property
    def recording(self) -> Recording:
        """What the chosen model says of the clip."""
        return self.recordings[self.weights.value]

    @property
    def replay(self) -> Replay:
        """The clip as it is tracked with the chosen model and settings."""
        return self.replay_of(self.weights.value, self.settings)

    # ------------------------------------------------------------------------ computing

    def compute(self, models: Mapping[str, QueryModel | str | Callable], video) -> None:
        """Run every model over the video; then the controls come alive."""
        models = {
            label: open_model(model() if isinstance(model, FunctionType) else model)
            for label, model in models.items()
        }
        # All models look at the same pixels: those that the first was trained for.
        side = trained_side(next(iter(models.values())))
        shots = read_frames(video, self.max_frames, shorter_side=side)
        for label, model in models.items():
            self.recordings[label] = Recording(model, shots, partial(self._counted, label))
        self.weights.options = list(models)
        for t in range(len(shots.images)):
            self.picture_at(self.weights.value, self.settings, t)
        self.query = self.replay.best_query(self.recording)
        self._open_controls(shots)

    def compute_safely(self, *args) -> None:
        """`compute` in a thread: an error is shown on the page, which else would wait for ever."""
        try:
            self.compute(*args)
        except Exception as error:  # noqa: BLE001  in a thread nobody sees a traceback
            self.status.value = f"<b>This clip cannot be shown.</b> {html.escape(str(error))}"
            self.bar.bar_style = "danger"

    def _counted(self, label: str, images: list) -> Iterator:
        whose = f" with {html.escape(label)}" if label else ""
        self.status.value = f"computing {len(images)} frames once{whose}…"
        self.bar.max = len(images)
        look = {"unit": "frame", "leave": False, "disable": None}
        for i, image in enumerate(tqdm(images, desc=f"computing {label}".strip(), **look)):
            yield image
            self.bar.value = i + 1

    # ------------------------------------------------------------------------ widgets

    def _build(self) -> None:
        T, association, score, mask = self.settings
        self.status, self.bar = widgets.HTML("reading the clip…"), widgets.IntProgress(0, 0, 1)
        self.picture = View(label="tracked frame", help=KEYS)
        self.tiles = View(label="selected query")
        self.chart, self.caption = View(label="timeline"), widgets.HTML()
        wide = widgets.Layout(width="540px")
        self.frame = widgets.IntSlider(1, 1, 2, description="frame", layout=wide)
        self.play = widgets.Play(value=1, min=1, max=2, interval=150, repeat=True)
        widgets.jslink((self.play, "value"), (self.frame, "value"))
        look = {"style": {"description_width": "110px"}, "layout": widgets.Layout(width="345px")}
        self.interval = widgets.IntSlider(T, 1, max(12, T), description="reuse interval T", **look)
        look |= {"min": 0.05, "max": 0.95, "step": 0.05}
        self.score = widgets.FloatSlider(score, description="score threshold", **look)
        self.mask = widgets.FloatSlider(mask, description="mask threshold", **look)
        options = [("masks (ours)", "mask"), ("cosine (the paper's)", "cosine")]
        self.association = widgets.ToggleButtons(options=options, value=association)
        self.weights = widgets.ToggleButtons(options=[""])
        self.association.style.button_width, self.weights.style.button_width = "160px", "auto"
        self.switch = _row(_words("model"), self.weights)
        rows = [
            _row(self.picture, self.tiles),
            _row(self.play, self.frame),
            _row(self.interval, _words("association"), self.association),
            _row(self.score, self.mask),
        ]
        self.panels = widgets.VBox([*rows, self.switch, self.caption, self.chart])
        self.panels.layout.display = "none"
        self.widget = widgets.VBox([widgets.HTML(TITLE), self.status, self.bar, self.panels])
        self.widget.layout.max_width = "860px"

    def _open_controls(self, shots: Shots) -> None:
        count, self.status.value = len(shots.images), ""
        if count < shots.total:
            every = f"every {shots.times[1] - shots.times[0]}th" if count > 1 else "the first"
            self.status.value = f"Of {shots.total} frames {every} is shown, {count} in all."
        self.frame.max = self.play.max = count
        self.switch.layout.display = None if len(self.recordings) > 1 else "none"
        self.bar.layout.display = "none"
        for control in (self.interval, self.association, self.score, self.mask, self.weights):
            control.observe(self._on_settings, "value")
        self.frame.observe(lambda _change: self._show_all(), "value")
        self.picture.observe(self._on_picture, "click")
        self.picture.observe(self._on_key, "key")
        self.chart.observe(self._on_chart, "click")
        self._show_all()
        self.panels.layout.display = None

    # ------------------------------------------------------------------------ what controls do

    def _on_settings(self, change) -> None:
        controls = self.interval, self.association, self.score, self.mask
        self.settings = Settings(*(control.value for control in controls))
        if change["owner"] is self.weights:  # their queries have other numbers
            self.query = self.replay.best_query(self.recording)
        self._show_all()

    def _on_picture(self, change) -> None:
        query = self.replay.query_at(self.frame.value - 1, change["new"]["x"], change["new"]["y"])
        if query is not None:
            self.query = query
            self._show_all()

    def _on_key(self, change) -> None:
        """Left and right: a frame back, a frame on. Up and down: the queries of this frame."""
        name, t, last = change["new"]["name"], self.frame.value, self.frame.max
        if name in ("ArrowUp", "ArrowDown"):
            queries = self.replay.frames[t - 1].queries
            step = 1 if name == "ArrowDown" else -1
            if self.query in queries:
                self.query = queries[(queries.index(self.query) + step) % len(queries)]
            elif queries:
                self.query = queries[0]
            self._show_all()
        else:
            to = {"ArrowLeft": t - 1, "ArrowRight": t + 1, "Home": 1, "End": last}[name]
            self.frame.value = min(max(to, 1), last)

    def _on_chart(self, change) -> None:
        """A cell of the timeline, "frame,identity"; identity 0 or none: the frame alone."""
        if not change["new"]["pick"]:
            return
        t, identity = map(int, change["new"]["pick"].split(","))
        frame = self.replay.frames[t]
        if identity in frame.ids:
            self.query = frame.queries[frame.ids.index(identity)]
        if self.frame.value == t + 1:
            self._show_all()
        else:
            self.frame.value = t + 1

    def _show_all(self) -> None:
        t = self.frame.value - 1  # people count from 1
        self.picture.image = self.picture_at(self.weights.value, self.settings, t)
        self.picture.overlay = self.halo(t)
        self.tiles.image, self.tiles.overlay = self.tiles_at(t)
        own, every = self.recording.similarity(self.query, self.replay.keys[t])
        names = self.recording.config.class_names
        self.chart.overlay = diagram.chart(self.replay, names, self.query, t, own, every)
        self.caption.value = self.frame_caption(t) + "<br>" + self.query_caption(t)
        words = html.unescape(re.sub("<[^>]*>", " ", self.caption.value))
        self.picture.spoken = " ".join(words.split())

    # ------------------------------------------------------------------------ drawing

    def size(self) -> tuple[int, int]:
        """Width and height of the tracked frame on the page."""
        height, width = self.recording.images[0].shape[:2]
        share = min(STAGE[0] / width, STAGE[1] / height)
        return round(width * share), round(height * share)

    def _draw_picture(self, label: str, settings: Settings, t: int) -> bytes:
        recording, frame = self.recordings[label], self.replay_of(label, settings).frames[t]
        said = [class_name(recording.config.class_names, k) for k in frame.labels]
        texts = [f"{i} {name} {s:.2f}" for i, name, s in zip(frame.ids, said, frame.scores)]
        return _jpeg(_drawn(recording.images[t], frame, texts[::-1]))

    def halo(self, t: int) -> str:
        """A dashed box around what the selected query has in this frame."""
        frame, (width, height) = self.replay.frames[t], self.size()
        box = ""
        if self.query in frame.queries:
            box = diagram.halo(frame.masks()[frame.queries.index(self.query)], width, height)
        return diagram.svg(width, height, box)

    def identity(self, t: int) -> int:
        """That which the query serves in frame `t`, or most often; 0 if none."""
        served = self.replay.serves(self.query)
        return served[t] or max(served, key=lambda i: (i > 0, served.count(i)))

    def _color(self, t: int) -> tuple[int, int, int]:
        identity = self.identity(t)
        return color_of(identity) if identity else (150, 150, 150)

    def soft(self, t: int) -> np.ndarray:
        """The selected query's mask in frame `t`, from black to its colour: (H, W, 3) bytes."""
        mask = self.recording.soft_mask(self.query, self.replay.keys[t], t)
        return (mask[..., None] * np.array(self._color(t))).astype(np.uint8)

    def _attend(self, label: str, key: int) -> AttentionMaps:
        recording = self.recordings[label]
        return attention_maps(recording.model, recording.frames[key])

    def _look(self, label: str, key: int, query: int) -> list[np.ndarray]:
        """Where a query looks in a key frame: on X_G, on X_L; nothing where tokens are unknown."""
        recording = self.recordings[label]
        if not hasattr(recording.model, "instance_decoder"):
            return []
        maps = self._attention(label, key)
        return [_heat(recording.images[key], maps.on_frame(i, query).mean(0)) for i in (0, 1)]

    def tiles_at(self, t: int) -> tuple[bytes, str]:
        """Soft mask and, of a MobileInst, attention of the selected query; captions over them."""
        looks = self.looks(self.weights.value, self.replay.keys[t], self.query)
        return self.column([self.soft(t), *looks]), self.captions(1 + len(looks))

    def captions(self, count: int) -> str:
        """Words for so many small pictures."""
        words = f"soft mask of query {self.query}", "it looks at X_G, the scene"
        words = [*words, "it looks at X_L, the details"][:count]
        return diagram.captions(words, *(round(n / 3) for n in self.size()))

    def column(self, pictures: list[np.ndarray]) -> bytes:
        """Small pictures above each other, as JPEG."""
        width, height = (round(n / 3) for n in self.size())
        return _jpeg(np.concatenate([resized(p, (2 * height, 2 * width)) for p in pictures]))

    def frame_caption(self, t: int) -> str:
        """What is said of frame t, as HTML."""
        key, count, found = self.replay.keys[t], len(self.recording), len(self.replay.frames[t].ids)
        said = f"<b>frame {t + 1} of {count}</b> · "
        said += "key frame: new kernels" if key == t else f"reuses the kernels of frame {key + 1}"
        many = f"{found} object{'s' * (found != 1)} found"
        said += f" · {many if found else 'nothing found: lower the score threshold?'}"
        if self.settings.reuse_interval > count > 1:
            said += " · T is longer than the clip: frame 1 is its only key frame"
        return said

    def _what_it_serves(self) -> str:
        served = self.replay.serves(self.query)
        parts = [f"{i} in {served.count(i)}" for i in dict.fromkeys(served) if i]
        if not parts:
            return "serves no identity with these settings"
        return f"serves identity {', '.join(parts)} of {len(served)} frames"

    def query_caption(self, t: int) -> str:
        """What is said of the query that was chosen, as HTML."""
        score = float(self.recording.scores[self.replay.keys[t], self.query])
        color = "rgb({},{},{})".format(*self._color(t))
        said = f"<b>query {self.query}</b> {self._what_it_serves()}"
        said += f" · score {score:.2f} in this key frame"
        return f"<span style='border-left:8px solid {color};padding-left:6px'>{said}</span>"

    # ------------------------------------------------------------------------ without a kernel

    def figure(self) -> Picture:
        """A still: six frames with all identities, and below each the query's soft mask."""
        recording, replay, s = self.recording, self.replay, self.settings
        served, frames = replay.serves(self.query), replay.frames
        times = sorted({round(t) for t in np.linspace(0, len(recording) - 1, STILL)})
        look = {"scale": 1, "opacity": 0.6}
        pictures = [_drawn(recording.images[t], frames[t], **look) for t in times]
        titles = [f"frame {recording.times[t] + 1}" for t in times]
        for t in times:
            now = f"identity {served[t]}" if served[t] else "no identity"
            pictures.append(self.soft(t))
            titles.append(f"query {self.query}: {now}")
        note = f"A key frame every {s.reuse_interval}, association by {s.association}, "
        note += f"scores from {s.score_threshold:.2f} on.  {len(replay.result.tracks)} identities; "
        note += f"another query takes over {len(replay.handovers)} times"
        if replay.identity is not None:
            swaps = sum(event.kind == "swap" for event in replay.identity.events)
            note += f", identities are swapped {swaps} times"
        head = f"Query {self.query} {self._what_it_serves()}"
        return plot_images(pictures, titles, head, f"{note}.", columns=len(times))

    def _repr_mimebundle_(self, include=None, exclude=None):
        """The live widget, and the still for whoever has no kernel (GitHub, a printed notebook)."""
        bundle = self.widget._repr_mimebundle_(include=include, exclude=exclude)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "image/png": self.figure().png(dpi=90)}, metadata


def _row(*children: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(children, layout=widgets.Layout(align_items="center", flex_flow="row wrap"))


def _words(text: str) -> widgets.Widget:
    layout = widgets.Layout(width="80px", display="flex", justify_content="flex-end")
    return widgets.Label(text, layout=layout)


def _drawn(image: np.ndarray, frame: FrameResult, texts=None, **look) -> np.ndarray:
    """A frame with the masks of its identities, the best on top."""
    masks = frame.masks()[::-1] if frame.ids else ()
    return draw_frame(image, masks, frame.ids[::-1], texts, **look)


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _heat(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Attention (H, W) over a darkened grey frame: bright where the query looks."""
    share = np.clip(attention / max(float(attention.max()), 1e-6), 0, 1)[..., None]
    grey = 0.45 * image.mean(-1, keepdims=True)
    light = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    return (grey * (1 - 0.8 * share) + light * 0.8 * share).astype(np.uint8)
