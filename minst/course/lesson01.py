"""Lesson 01: frames that count, run-length codes, IoU of tracks, AP, perfect masks, no score."""

from collections.abc import Callable
from functools import partial
from itertools import cycle

import numpy as np

from minst.course.verdict import Verdict, examine, judge, numbers

__all__ = ["average_precision", "counted_frames", "perfect_and_worthless", "rle_encode", "tube_iou"]


def counted_frames(answer: Callable) -> Verdict:
    """counted_frames(first: list of bool, second: list of bool) -> frames in the union."""

    def counted_frames(first, second, counts=lambda a, b: a or b):
        return [t for t, (a, b) in enumerate(zip(first, second)) if counts(a, b)]

    def rule(counts):
        return partial(counted_frames, counts=counts)

    def draw(rng):  # neither, first, second, both: each at least once
        kinds = rng.permutation([0, 1, 2, 3, *rng.integers(4, size=rng.integers(2, 6))])
        return [bool(k & 1) for k in kinds], [bool(k & 2) for k in kinds]

    mistakes = [
        "This is the intersection. Where one track is missing, the other's area is added below.",
        rule(lambda a, b: a and b),
        "Where both are absent there is no pixel to add: that frame costs nothing.",
        rule(lambda a, b: True),
        "A frame in which only the second track is there counts too: its pixels are in the union.",
        rule(lambda a, b: a),
        "A frame in which only the first track is there counts too: its pixels are in the union.",
        rule(lambda a, b: b),
        "Frames in which both are there add their union as well.",
        rule(lambda a, b: a != b),
    ]
    return judge(answer, counted_frames, draw, mistakes)


def rle_encode(answer: Callable) -> Verdict:
    """rle_encode(mask (H, W) bool) -> counts, column by column, beginning with zeros."""

    def rle_encode(mask):  # a test holds it to the package's own codes
        changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
        return np.diff(changes, prepend=0, append=mask.size).tolist()

    def bare(counts):
        return counts[1:] if counts[0] == 0 else counts

    starts = cycle([False, True])  # the first pixel: both are met

    def draw(rng):
        mask = rng.random(rng.permutation([4, 6])) < 0.5
        mask[0, 0] = next(starts)
        mask[0, 1] = mask[1, 1] = not mask[0, 0]
        mask[1, 0] = mask[0, 0]  # rows and columns begin with runs of different lengths
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
    ]
    return judge(answer, rle_encode, draw, mistakes, rounds=10)


def tube_iou(answer: Callable) -> Verdict:
    """tube_iou(predictions (P, T, H, W) bool, truths (M, T, H, W) bool) -> (P, M)."""

    def mean_of_frames(counts):
        def imitate(predictions, truths):
            shared, covered, _ = _areas(predictions, truths)
            there = [tracks.any((2, 3)) for tracks in (predictions, truths)]
            frames = counts(covered, there[0][:, None] & there[1])
            return (shared / np.maximum(covered, 1) * frames).sum(2) / np.maximum(frames.sum(2), 1)

        return imitate

    def where_both(predictions, truths):
        shared, covered, _ = _areas(predictions, truths)
        both = predictions.any((2, 3))[:, None] & truths.any((2, 3))
        return shared.sum(2) / np.maximum((covered * both).sum(2), 1)

    def over_areas(predictions, truths):
        shared, _, areas = _areas(predictions, truths)
        return shared.sum(2) / areas.sum(2)

    def draw(rng):
        return [_tracks(rng, count) for count in rng.permutation([2, 3]) + rng.integers(2)]

    mistakes = [
        "This is a mean of frames' IoUs. Sum both areas over all frames first, then divide once.",
        mean_of_frames(lambda covered, both: covered >= 0),
        mean_of_frames(lambda covered, both: covered > 0),
        mean_of_frames(lambda covered, both: both),
        "Frames in which one track is absent are left out; the other's area counts below.",
        where_both,
        "Predictions are the rows (P), truths the columns (M).",
        lambda predictions, truths: _tube_iou(truths, predictions),
        "The sum of the two areas has the shared pixels twice; the union has them once.",
        over_areas,
        "This is dice, 2 shared / (sum of areas); IoU divides by the union.",
        lambda predictions, truths: 2 * over_areas(predictions, truths),
    ]
    return judge(answer, _tube_iou, draw, mistakes, exercise="tube_iou")


def average_precision(answer: Callable) -> Verdict:
    """average_precision(scores (P,), hits (P,) bool, num_truths) -> AP of 101 points."""

    points = np.linspace(0, 1, 101)

    def curve(scores, hits, num_truths):
        found = np.cumsum(hits[np.argsort(-scores)])
        return found / np.arange(1, len(hits) + 1), found / num_truths

    def average_precision(scores, hits, num_truths, read=lambda beyond: max(beyond, default=0.0)):
        precision, recall = curve(scores, hits, num_truths)  # a test holds it to evaluate_ytvis
        return np.mean([read(precision[recall >= point]) for point in points])

    def reached_only(*given):
        return average_precision(*given) * len(points) / (curve(*given)[1].max() >= points).sum()

    def at_hits(*given):
        precision, recall = curve(*given)
        return precision @ np.diff(recall, prepend=0)

    def draw(rng):
        num_truths = rng.choice([7, 9, 11, 13])  # k / num_truths never is one of the 101 recalls
        hits = [True] * rng.integers(3, num_truths - 1) + [False] * rng.integers(3, 7)
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
        lambda scores, hits, n: average_precision(scores, hits, hits.sum()),
        "Recalls that are never reached belong to the mean, with precision 0.",
        reached_only,
        "This is the mean precision at the hits; read it at 101 recalls, each the best from there.",
        at_hits,
    ]
    return judge(answer, average_precision, draw, mistakes)


def perfect_and_worthless(answer: Callable) -> Verdict:
    """perfect_and_worthless(truths (M, T, H, W)) -> the same masks in every frame, AP50 = 0."""

    def fault(got, truths):
        got = numbers(got, *truths.shape).astype(bool)
        for t in range(truths.shape[1]):
            if sorted(m.tobytes() for m in got[:, t]) != sorted(m.tobytes() for m in truths[:, t]):
                hint = "Each true mask must be there once, whole: what may change is whose it is."
                return f"frame {t} does not hold exactly the {len(truths)} true masks. {hint}"
        best = _tube_iou(got, truths).max(axis=0)  # (M,) of every truth
        if best.max() < 0.5:  # nothing is found at the lowest threshold, AP50 = 0
            return ""
        if best.min() > 0.999:
            hint = "Tracks were renamed, and names are free: exchange masks in some frames only."
        elif best.max() > 0.999:
            hint = "That track was left whole: every track must change hands, not only two of them."
        else:
            hint = "Too few frames change hands: each prediction must lose its creature for half."
        found = f"truth {best.argmax()} has an IoU of {best.max():.2f}"
        return f"with {len(truths)} tracks, {found}. {hint}"

    cases = [(_lanes(np.random.default_rng(), num_tracks),) for num_tracks in (2, 3, 4)]
    praise = "No frame is wrong, and nothing is left of the score. Lesson 07 keeps identities."
    return examine(answer, perfect_and_worthless, cases, fault, praise)


def _areas(predictions: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of every pair and frame (P, M, T): pixels shared, pixels covered, both areas added."""
    p, g = predictions[:, None], truths[None]
    shared, covered = (p & g).sum((3, 4)), (p | g).sum((3, 4))
    return shared, covered, shared + covered


def _tube_iou(predictions: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """(P, T, H, W), (M, T, H, W) -> (P, M); a test holds it to the package's own judge."""
    shared, covered, _ = _areas(predictions, truths)
    return shared.sum(2) / covered.sum(2)


def _tracks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random tracks (count, 5, 4, 6) bool, each absent in one frame or two."""
    tracks = rng.random((count, 5, 4, 6)) < rng.uniform(0.2, 0.8, (count, 5, 1, 1))
    tracks[:, :, 1, 1] = True  # not empty by chance
    for track in tracks:
        track[rng.choice(5, rng.integers(1, 3), replace=False)] = False
    return tracks


def _lanes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Discs (count, T, 12 * count, 40) bool, one a lane, that move and stay whole and in sight."""
    y, x = np.mgrid[: 12 * count, :40]
    lane = np.arange(count)[:, None, None, None]
    frame = np.arange(rng.integers(6, 11))[:, None, None]
    start, pace, radius = (rng.uniform(*span, lane.shape) for span in ((7, 9), (1, 2), (4.2, 5)))
    return (y - 12 * lane - 6) ** 2 + (x - start - pace * frame) ** 2 < radius**2
