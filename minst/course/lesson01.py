"""Lesson 01: frames that count, run-length codes, IoU of tracks, AP, perfect masks, no score."""

from collections.abc import Callable
from functools import partial
from itertools import cycle

import numpy as np

from minst.course.lesson00 import judged  # noqa: F401  lesson 01 asks it too
from minst.course.pictures import Film, film, plot_lines  # noqa: F401  and draws with it
from minst.course.verdict import Verdict, examine, judge, numbers, say
from minst.visualize.style import GREY, INK, RED, Picture, bare, headline, new_figure, plain, rgb

__all__ = ["average_precision", "counted_frames", "perfect_and_worthless", "rle_encode", "tube_iou"]


def counted_frames(answer: Callable) -> Verdict:
    """counted_frames(first: list of bool, second: list of bool) -> frames in the union."""

    def counted_frames(first, second, counts=lambda a, b: a or b):
        return [t for t, (a, b) in enumerate(zip(first, second)) if counts(a, b)]

    def draw(rng):  # neither, first, second, both: each at least once
        kinds = rng.permutation([0, 1, 2, 3, *rng.integers(4, size=rng.integers(2, 6))])
        return [bool(k & 1) for k in kinds], [bool(k & 2) for k in kinds]

    def bare_places(got):  # np.where gives a tuple of one array
        alone = isinstance(got, tuple) and len(got) == 1 and isinstance(got[0], np.ndarray)
        return got[0] if alone else got

    mistakes = [
        "This is the intersection. Where one track is missing, the union has the other's area.",
        partial(counted_frames, counts=lambda a, b: a and b),
        "Where both are absent there is no pixel to add: that frame costs nothing.",
        partial(counted_frames, counts=lambda a, b: True),
        "A frame in which only the second track is there counts too: its pixels are in the union.",
        partial(counted_frames, counts=lambda a, b: a),
        "A frame in which only the first track is there counts too: its pixels are in the union.",
        partial(counted_frames, counts=lambda a, b: b),
        "Frames in which both are there add their union as well.",
        partial(counted_frames, counts=lambda a, b: a != b),
    ]
    return judge(answer, counted_frames, draw, mistakes, view=bare_places)


def rle_encode(answer: Callable) -> Verdict:
    """rle_encode(mask (H, W) bool) -> counts, column by column, beginning with zeros."""

    def rle_encode(mask):  # a test holds it to the package's own codes
        changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
        return np.diff(changes, prepend=0, append=mask.size).tolist()

    def bare(counts):
        return counts[1:] if counts[0] == 0 else counts

    def pairs(mask, base, flat):  # (start, length) of every run of ones
        counts = rle_encode(mask)
        starts = np.cumsum([0, *counts[:-1]])[1::2] + base
        found = np.stack([starts, counts[1::2]], axis=1)
        return found.ravel() if flat else found

    starts = cycle([False, True])  # the first pixel: both are met

    def draw(rng):
        mask = rng.random(rng.permutation([4, 6])) < 0.5
        mask[:2, 0] = next(starts)
        mask[:2, 1] = ~mask[:2, 0]  # rows and columns begin with runs of different lengths
        return (mask,)

    mistakes = [
        "You read row by row; the code goes down the columns.",
        lambda mask: rle_encode(mask.T),
        "The first count is of zeros; where the first pixel is a one, it is 0.",
        lambda mask: bare(rle_encode(mask)),
        "Go down the columns, not along the rows; and the first count is of zeros.",
        lambda mask: bare(rle_encode(mask.T)),
        "The last run is missing: it ends with the mask, not with a change.",
        lambda mask: rle_encode(mask)[:-1],
        "These are positions; a count is the length of its run.",
        lambda mask: np.cumsum(rle_encode(mask)),
        "Zeros and ones are exchanged: the first count is of zeros.",
        lambda mask: rle_encode(~mask),
        "A run begins with the pixel that changed: it starts at length 1, not at 0.",
        lambda mask: rle_encode(mask)[:1] + [count - 1 for count in rle_encode(mask)[1:]],
        "These are pairs (start, length). Give lengths alone, those of the zeros as well.",
        *(partial(pairs, base=base, flat=flat) for base in (0, 1) for flat in (False, True)),
        *(lambda mask, n=n: pairs(mask.T, n // 2, n % 2) for n in range(4)),
    ]
    return judge(answer, rle_encode, draw, mistakes, rounds=10)


def tube_iou(answer: Callable) -> Verdict:
    """tube_iou(predictions (R, L, H, W) bool, truths (G, L, H, W) bool) -> (R, G)."""

    def some_frames(predictions, truths, counts, mean=True):
        """The mean over the frames that count, or the quotient of their sums."""
        shared, covered = _areas(predictions, truths)
        frames = counts(covered, predictions.any((2, 3))[:, None] & truths.any((2, 3)))
        below = frames if mean else covered * frames
        shares = shared / np.maximum(covered, 1) if mean else shared
        return (shares * frames).sum(2) / np.maximum(below.sum(2), 1)

    def over_areas(predictions, truths):
        iou = _tube_iou(predictions, truths)
        return iou / (1 + iou)  # |p & g| / (|p| + |g|)

    def by_product(predictions, truths, kind):
        p, g = (tracks.reshape(len(tracks), -1) for tracks in (predictions, truths))
        shared = p.astype(kind) @ g.T.astype(kind)
        return shared / (p.sum(1)[:, None] + g.sum(1) - shared.astype(int))

    def draw(rng):
        return [_tracks(rng, count) for count in rng.permutation([2, 3]) + rng.integers(2)]

    mistakes = [
        "This is a mean of frames' IoUs. Sum both areas over all frames first, then divide once.",
        partial(some_frames, counts=lambda covered, both: covered >= 0),
        partial(some_frames, counts=lambda covered, both: covered > 0),
        partial(some_frames, counts=lambda covered, both: both),
        "Frames in which one track is absent are left out; the other's area counts below.",
        partial(some_frames, counts=lambda covered, both: both, mean=False),
        "Predictions are the rows (R), truths the columns (G).",
        lambda predictions, truths: _tube_iou(truths, predictions),
        "The sum of the two areas has the shared pixels twice; the union has them once.",
        over_areas,
        "This is dice, 2 shared / (sum of areas); IoU divides by the union.",
        lambda predictions, truths: 2 * over_areas(predictions, truths),
        "The product of two boolean arrays says only whether any pixel is shared: use floats.",
        partial(by_product, kind=bool),
        "An integer of 8 bits ends at 255 or 127, and sums go round: use floats.",
        *(partial(by_product, kind=kind) for kind in (np.uint8, np.int8)),
    ]
    return judge(answer, _tube_iou, draw, mistakes, exercise="tube_iou", tolerance=1e-3)


def average_precision(answer: Callable) -> Verdict:
    """average_precision(scores (R,), hits (R,) bool, num_truths) -> AP of 101 points."""

    points = np.linspace(0, 1, 101)

    def curve(scores, hits, num_truths):
        found = np.cumsum(hits[np.argsort(-scores)])
        return found / np.arange(1, len(hits) + 1), found / num_truths

    best = partial(max, default=0.0)

    def average_precision(scores, hits, num_truths, read=best, reached=np.greater_equal):
        precision, recall = curve(scores, hits, num_truths)  # a test holds it to evaluate_ytvis
        return np.mean([read(precision[reached(recall, point)]) for point in points])

    def reached_only(*given, nothing=0.0):
        reached = (curve(*given)[1].max() >= points).sum()
        return average_precision(*given) * len(points) / reached if given[1].any() else nothing

    kinds = cycle(["some", "all", "none"])  # of the truths are found: each is met

    def draw(rng):
        num_truths = rng.choice([7, 9, 11, 13])  # k / num_truths is one of 101 recalls only at 1
        found = {"some": rng.integers(3, num_truths - 1), "all": num_truths, "none": 0}[next(kinds)]
        hits = [True] * found + [False] * rng.integers(3, 7)
        scores = np.linspace(0.95, 0.05, len(hits))
        return rng.permutation(scores), rng.permutation(hits), num_truths

    mistakes = [
        "The predictions come in no order: sort them by falling score.",
        lambda scores, hits, n: average_precision(-np.arange(len(hits)), hits, n),
        "They are sorted by rising score; the best comes first.",
        lambda scores, hits, n: average_precision(-scores, hits, n),
        "Take the best precision at that recall or beyond, not that of the first one there.",
        partial(average_precision, read=lambda beyond: next(iter(beyond), 0.0)),
        "Recall divides by all truths, found or not.",
        lambda scores, hits, n: average_precision(scores, hits, max(1, hits.sum())),
        "Recalls that are never reached belong to the mean, with precision 0.",
        reached_only,
        partial(reached_only, nothing=np.nan),
        "A recall that is reached exactly counts: recall >= point.",
        partial(average_precision, reached=np.greater),
        "Where nothing hits, AP is 0 and not undefined.",
        lambda scores, hits, n: average_precision(scores, hits, n) if hits.any() else np.nan,
        "This is the mean precision at the hits; read it at 101 recalls, each the best from there.",
        lambda *given: curve(*given)[0] @ np.diff(curve(*given)[1], prepend=0),
    ]
    return judge(answer, average_precision, draw, mistakes, tolerance=1e-3)


def perfect_and_worthless(answer: Callable) -> Verdict:
    """perfect_and_worthless(truths (G, L, H, W)) -> the same masks in every frame, AP50 = 0."""

    def fault(got, truths):
        got = numbers(got, *truths.shape).astype(bool)
        for t in range(truths.shape[1]):
            if sorted(m.tobytes() for m in got[:, t]) != sorted(m.tobytes() for m in truths[:, t]):
                wrong = "frame {t} does not hold exactly the {count} true masks."
                hint = "Each true mask must be there once, whole: what may change is whose it is."
                return say(wrong, hint, t=t, count=len(truths))
        best = _tube_iou(got, truths).max(axis=0)  # (G,) of every truth
        if best.max() < 0.5:  # nothing is found at the lowest threshold, AP50 = 0
            return ""
        if best.min() > 0.999:
            hint = "Tracks were renamed, and names are free: exchange masks in some frames only."
        elif best.max() > 0.999:
            hint = "That track was left whole: every track must change hands, not only two of them."
        else:
            hint = "Too few frames change hands: each prediction must lose its creature for half."
        found = "with {count} tracks, truth {g} has an IoU of {iou:.2f}."
        return say(found, hint, count=len(truths), g=best.argmax(), iou=best.max())

    def by_turns(truths):  # one of many right answers: everybody takes the next one's mask
        return np.stack([np.roll(truths[:, t], t, axis=0) for t in range(truths.shape[1])], axis=1)

    cases = [(_lanes(np.random.default_rng(), num_tracks),) for num_tracks in (2, 3, 4)]
    praise = "No frame is wrong, and nothing is left of the score. Lesson 07 keeps identities."
    return examine(answer, perfect_and_worthless, cases, fault, praise, by_turns)


def _areas(predictions: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of every pair and frame (R, G, L): pixels shared, pixels covered."""
    p, g = predictions[:, None], truths[None]
    return (p & g).sum((3, 4)), (p | g).sum((3, 4))


def _tube_iou(predictions: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """(R, L, H, W), (G, L, H, W) -> (R, G); a test holds it to the package's own judge."""
    shared, covered = _areas(predictions, truths)
    return shared.sum(2) / covered.sum(2)


def _tracks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random tracks (count, 5, 20, 24) bool, each absent in one frame or two."""
    tracks = rng.random((count, 5, 20, 24)) < rng.uniform(0.2, 0.8, (count, 5, 1, 1))
    tracks[:, :, 1, 1] = True  # not empty by chance
    for track in tracks:
        track[rng.choice(5, rng.integers(1, 3), replace=False)] = False
    return tracks


def _lanes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Discs (count, L, 12 * count, 40) bool, one a lane, that move and stay whole and in sight."""
    y, x = np.mgrid[: 12 * count, :40]
    lane = np.arange(count)[:, None, None, None]
    frame = np.arange(rng.integers(6, 11))[:, None, None]
    start, pace, radius = (rng.uniform(*span, lane.shape) for span in ((7, 9), (1, 2), (4.2, 5)))
    return (y - 12 * lane - 6) ** 2 + (x - start - pace * frame) ** 2 < radius**2


def plot_squares(predictions: np.ndarray, truths: np.ndarray) -> Picture:
    """Three frames: truths (G, L, H, W) filled, with letters; predictions (R, L, H, W) outlined."""
    fig = new_figure()
    note = "Filled, with a letter: truths. Outlined, with a number: predictions, best score first."
    headline(fig, "Three truths and four predictions, which is one too many", note)
    for t in range(truths.shape[1]):
        axes = fig.place(0.14 + 3.07 * t, 0.65, 3.0, 0.95, below=0.3)
        axes.imshow(truths[:, t].any(0), cmap="Greys", vmax=3)
        bare(axes).set(xlabel=f"frame {t}")
        for letter, truth in zip("ABC", truths[:, t]):
            axes.text(*np.argwhere(truth).mean(0)[::-1], letter, ha="center", va="center")
        for k, mask in enumerate(predictions[:, t]):
            if mask.any():
                axes.contour(mask, [0.5], colors=[rgb(k + 1)])
                y, x = np.argwhere(mask).max(0)
                axes.text(x + 1, y + 2.5 * (-1) ** k, k + 1, fontsize=8, color=rgb(k + 1))
    return fig


def plot_precision(hits: np.ndarray, num_truths: int, ap: Callable, shown: int) -> Picture:
    """Precision over recall after the first `shown` predictions, and AP as the area below it."""
    fig, found = new_figure(width=6.4), np.cumsum(hits[:shown])
    precision, recall = found / np.arange(1, shown + 1), found / num_truths
    points = np.linspace(0, 1, 101)
    best = [max(precision[recall >= point], default=0.0) for point in points]
    value = ap(np.linspace(1, 0, shown), hits[:shown], num_truths) if shown else 0.0
    note = f"{num_truths} truths. Above: predictions by falling score, a hit is a full circle. "
    headline(fig, f"{shown} predictions, AP {value:.2f}", note + "Below: the grey area is AP.")
    row = bare(fig.place(0.6, 0.65, 5.6, 0.3))
    row.set(xlim=(-0.5, len(hits) - 0.5), ylim=(-1, 1))
    axes = plain(fig.place(0.6, 1.05, 5.6, 1.9, below=0.45), labelsize=8)
    axes.fill_between(points, best, color=GREY, alpha=0.35, linewidth=0)
    axes.plot(points, best, color=INK)
    axes.plot(recall, precision, ":", color=RED)
    for k, hit in enumerate(hits[:shown]):
        look = {"marker": "o", "color": RED, "markerfacecolor": RED if hit else "white"}
        row.plot(k, 0, **look)
        axes.plot(recall[k], precision[k], markersize=4, **look)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.08))
    return fig


def film_of_precision(hits: np.ndarray, num_truths: int, ap: Callable) -> Film:
    """`plot_precision`, prediction by prediction, as a loop that a notebook shows."""
    drawn = [plot_precision(hits, num_truths, ap, shown) for shown in range(len(hits) + 1)]
    alt = f"A film. The curve of precision over recall grows. At its end: {drawn[-1].alt}"
    # its last frame stands below it
    return film(drawn, alt, fps=1.25, dpi=90)._replace(still=b"")
