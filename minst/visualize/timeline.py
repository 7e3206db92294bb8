"""The explorer as a still picture: a few tracked frames, the soft masks of one query, and who is seen when.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from minst.visualize.masks import class_name, color_of, draw_frame
from minst.visualize.recording import Recording, Replay
from minst.visualize.style import GREY, INK, RED, WIDTH, Picture, caption, headline, new_figure, rgb

__all__ = ["plot_timeline"]

SHOWN, LEFT, RIGHT, ROW, MAX_ROWS = (
    6,
    1.15,
    0.15,
    0.2,
    10,
)  # frames; inches; inches; inches; identities


def plot_timeline(recording: Recording, replay: Replay, query: int | None = None) -> Picture:
    """Six frames with all identities, the soft mask of one query in them, and a row for each identity over all frames.

    query: default the one that serves most frames. Diamonds: another query takes over; red crosses: identities swapped
    (only with annotations).
    """
    query = replay.best_query(recording) if query is None else query
    if not 0 <= query < recording.kernels.shape[1]:
        raise ValueError(
            f"query {query}: the model has queries 0..{recording.kernels.shape[1] - 1}"
        )
    tracks = sorted(
        replay.result.tracks, key=lambda t: -sum(s is not None for s in t.segmentations)
    )[:MAX_ROWS]
    tracks.sort(key=lambda track: track.id)
    times = sorted({round(t) for t in np.linspace(0, len(recording) - 1, SHOWN)})
    height, width = recording.images[0].shape[:2]
    cell = min((WIDTH - LEFT - RIGHT) / SHOWN * height / width, 1.8)
    total = 0.68 + 2 * cell + 0.1 + ROW * max(len(tracks), 1) + 0.5
    fig = new_figure(total)
    served = replay.serves(query)
    _headline(fig, replay, query, served)
    top = 0.68
    for words, pictures in (
        ("every identity\nhas its colour", [_tracked(recording, replay, t) for t in times]),
        (
            f"soft mask of\nquery {query}",
            [_soft(recording, replay, query, t, served) for t in times],
        ),
    ):
        axes = _axes(fig, top, cell, total)
        _strip(axes, pictures)
        caption(axes, words, pad=8)
        top += cell + 0.05
    _rows(
        _axes(fig, top + 0.05, ROW * max(len(tracks), 1), total), recording, replay, tracks, times
    )
    return fig


def _axes(fig: Figure, top: float, height: float, total: float):
    return fig.add_axes(
        (LEFT / WIDTH, 1 - (top + height) / total, 1 - (LEFT + RIGHT) / WIDTH, height / total)
    )


def _headline(fig: Figure, replay: Replay, query: int, served: list[int]) -> None:
    identity = max(served, key=lambda i: (i > 0, served.count(i)))
    what = (
        f"serves identity {identity} in {served.count(identity)} of {len(served)} frames"
        if identity
        else "finds nothing"
    )
    s = replay.settings
    note = f"A key frame every {s.reuse_interval}, association by {s.association}, scores from {s.score_threshold:.2f} on."
    note += "  Diamond: another query takes over."
    if replay.identity is not None:
        swaps = sum(event.kind == "swap" for event in replay.identity.events)
        note += f"  Red cross: identities swapped ({swaps} times)."
    headline(fig, f"Query {query} {what}", note)


def _tracked(recording: Recording, replay: Replay, t: int) -> np.ndarray:
    frame = replay.frames[t]
    masks = frame.masks()[::-1] if frame.ids else ()
    return draw_frame(recording.images[t], masks, frame.ids[::-1], scale=1, opacity=0.6)


def _soft(
    recording: Recording, replay: Replay, query: int, t: int, served: list[int]
) -> np.ndarray:
    now = served[t] or max(served, key=lambda i: (i > 0, served.count(i)))
    color = np.array(color_of(now) if now else (150, 150, 150))
    return (recording.soft_mask(query, replay.keys[t], t)[..., None] * color).astype(np.uint8)


def _strip(axes, pictures: list[np.ndarray]) -> None:
    gap = np.full((pictures[0].shape[0], 4, 3), 255, np.uint8)
    axes.imshow(
        np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1),
        aspect="auto",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _rows(axes, recording: Recording, replay: Replay, tracks, times: list[int]) -> None:
    for row, track in enumerate(tracks):
        seen = [t for t, code in enumerate(track.segmentations) if code is not None]
        axes.plot([seen[0], seen[-1]], [row, row], color=rgb(track.id), linewidth=1)
        axes.broken_barh([(t - 0.5, 0.94) for t in seen], (row - 0.35, 0.7), color=rgb(track.id))
    place = {track.id: row for row, track in enumerate(tracks)}
    for t, identity, _, _ in replay.handovers:
        if identity in place:
            axes.plot(
                t,
                place[identity],
                "D",
                color="white",
                markeredgecolor=INK,
                markersize=4,
                markeredgewidth=0.8,
            )
    for event in replay.identity.events if replay.identity else ():
        if event.kind == "swap" and event.new_id in place:
            axes.plot(
                event.frame,
                place[event.new_id],
                "X",
                color=RED,
                markeredgecolor="white",
                markersize=7,
            )
    if not tracks:
        axes.text(
            0.5,
            0.5,
            "no identity in any frame",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8,
        )
    names = recording.config.class_names
    axes.set_yticks(
        range(len(tracks)),
        [f"{track.id} {class_name(names, track.label)}" for track in tracks],
        fontsize=7,
    )
    axes.set(
        xlim=(-0.5, len(recording) - 0.5), ylim=(max(len(tracks), 1) - 0.5, -0.5), xticks=times
    )
    axes.set_xticklabels([f"frame {t * recording.step + 1}" for t in times], fontsize=7)
    axes.tick_params(length=2, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
