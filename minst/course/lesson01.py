"""Lesson 01: frames that count, run-length codes, IoU of tracks, average precision, perfect masks without a score."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np

from minst.course.verdict import Mistake, Verdict, attempt, correct, difference, judge, wrong
from minst.evaluation import YTVISEval, evaluate_ytvis
from minst.evaluation.coco import run_lengths
from minst.tracking import encode_mask

__all__ = ["average_precision", "counted_frames", "perfect_and_worthless", "rle_encode", "tube_iou"]

POINTS = np.linspace(0, 1, 101)


def counted_frames(answer: Callable) -> Verdict:
    """counted_frames(first: list of bool, second: list of bool) -> numbers of the frames in the union."""

    def rule(counts):
        return lambda first, second: [t for t, (a, b) in enumerate(zip(first, second)) if counts(a, b)]

    def draw(rng):  # neither, first, second, both: each at least once
        kinds = rng.permutation([0, 1, 2, 3, *rng.integers(4, size=int(rng.integers(2, 6)))])
        return [bool(k & 1) for k in kinds], [bool(k & 2) for k in kinds]

    mistakes = [
        Mistake(
            rule(lambda a, b: a and b),
            "This is the intersection. Where one track is missing, the other's area is added below.",
        ),
        Mistake(rule(lambda a, b: True), "Where both are absent there is no pixel to add: that frame costs nothing."),
        Mistake(
            rule(lambda a, b: a),
            "A frame in which only the second track is there counts too: its pixels are in the union.",
        ),
        Mistake(
            rule(lambda a, b: b),
            "A frame in which only the first track is there counts too: its pixels are in the union.",
        ),
        Mistake(rule(lambda a, b: a != b), "Frames in which both are there add their union as well."),
    ]
    return judge(answer, rule(lambda a, b: a or b), draw, mistakes, exercise="counted_frames")


def rle_encode(answer: Callable) -> Verdict:
    """rle_encode(mask (H, W) bool) -> counts, column by column, beginning with zeros."""

    def rle_encode(mask):
        rows, _ = run_lengths([encode_mask(mask)["counts"]], mask.size)
        counts = rows.reshape(-1).tolist()
        return counts[:-1] if counts[-1] == 0 else counts

    def along_rows(mask):
        return rle_encode(mask.reshape(-1, 1))

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
        Mistake(along_rows, "You read row by row; the code goes down the columns."),
        Mistake(lambda m: bare(rle_encode(m)), "The first count is of zeros; where the first pixel is a one, it is 0."),
        Mistake(
            lambda m: bare(along_rows(m)), "Go down the columns, not along the rows; and the first count is of zeros."
        ),
        Mistake(lambda m: rle_encode(m)[:-1], "The last run is missing: it ends with the mask, not with a change."),
        Mistake(lambda m: np.cumsum(rle_encode(m)), "These are positions; a count is the length of its run."),
        Mistake(lambda m: rle_encode(~m), "Zeros and ones are exchanged: the first count is of zeros."),
    ]
    return judge(answer, rle_encode, draw, mistakes, rounds=10)


def tube_iou(answer: Callable) -> Verdict:
    """tube_iou(predictions (P, T, H, W) bool, truths (M, T, H, W) bool) -> (P, M)."""

    def tube_iou(predictions, truths):
        return _judged(predictions, truths).ious[1, 1]

    def pairs(predictions, truths):
        """Of every pair and frame (P, M, T): shared, covered, both areas added; whether both tracks are there."""
        p, g = predictions[:, None], truths[None]
        there = [tracks.any((3, 4)) for tracks in (p, g)]
        return (p & g).sum((3, 4)), (p | g).sum((3, 4)), p.sum((3, 4)) + g.sum((3, 4)), there[0] & there[1]

    def mean_of_frames(which):
        def imitate(predictions, truths):
            shared, covered, _, both = pairs(predictions, truths)
            frames = {"all": covered >= 0, "any": covered > 0, "both": both}[which]
            return (shared / np.maximum(covered, 1) * frames).sum(2) / np.maximum(frames.sum(2), 1)

        return Mistake(
            imitate, "This is a mean of frames' IoUs. Sum both areas over all frames first, then divide once."
        )

    def where_both(predictions, truths):
        shared, covered, _, both = pairs(predictions, truths)
        return shared.sum(2) / np.maximum((covered * both).sum(2), 1)

    def over_areas(predictions, truths):
        shared, _, areas, _ = pairs(predictions, truths)
        return shared.sum(2) / areas.sum(2)

    def draw(rng):
        return tuple(_tracks(rng, int(count)) for count in rng.permutation([2, 3]) + rng.integers(2))

    mistakes = [
        *map(mean_of_frames, ("all", "any", "both")),
        Mistake(where_both, "Frames in which one track is absent are left out; the other's area counts below."),
        Mistake(lambda a, g: tube_iou(a, g).T, "Predictions are the rows (P), truths the columns (M)."),
        Mistake(over_areas, "The sum of the two areas has the shared pixels twice; the union has them once."),
        Mistake(
            lambda a, g: 2 * over_areas(a, g), "This is dice, 2 shared / (sum of areas); IoU divides by the union."
        ),
    ]
    return judge(answer, tube_iou, draw, mistakes)


def average_precision(answer: Callable) -> Verdict:
    """average_precision(scores (P,), hits (P,) bool, num_truths) -> AP at one threshold, 101 points."""

    def average_precision(scores, hits, num_truths):
        """minst's own, on videos of one pixel with one truth each; a hit covers the next truth, a miss nothing."""
        pixel, places = np.ones((1, 1, 1, 1), dtype=bool), np.where(hits, np.cumsum(hits), 1).tolist()
        truths = [_entries(pixel, [1], video)[0] for video in range(1, num_truths + 1)]
        predictions = [_entries(pixel & hit, [score], video)[0] for score, hit, video in zip(scores, hits, places)]
        return evaluate_ytvis(_truth_file(truths, pixel.repeat(num_truths, 0)), predictions)["AP50"]

    def curve(scores, hits, num_truths):
        found = np.cumsum(hits[np.argsort(-scores)])
        return found / np.arange(1, len(hits) + 1), found / num_truths

    def first_reached(*given):
        precision, recall = curve(*given)
        return np.mean([next(iter(precision[recall >= r]), 0.0) for r in POINTS])

    def reached_only(*given):
        return average_precision(*given) * len(POINTS) / (curve(*given)[1].max() >= POINTS).sum()

    def at_hits(*given):
        precision, recall = curve(*given)
        return precision @ np.diff(recall, prepend=0)

    def draw(rng):
        num_truths = int(rng.choice([7, 9, 11, 13]))  # k / num_truths never is one of the 101 recalls
        hits = [True] * int(rng.integers(3, num_truths - 1)) + [False] * int(rng.integers(3, 7))
        return rng.permutation(np.linspace(0.95, 0.05, len(hits))), rng.permutation(hits), num_truths

    mistakes = [
        Mistake(
            lambda s, h, n: average_precision(-np.arange(len(h)), h, n),
            "The predictions come in no order: sort them by falling score.",
        ),
        Mistake(lambda s, h, n: average_precision(-s, h, n), "They are sorted by rising score; the best comes first."),
        Mistake(first_reached, "Take the best precision at that recall or beyond, not that of the first one there."),
        Mistake(lambda s, h, n: average_precision(s, h, int(h.sum())), "Recall divides by all truths, found or not."),
        Mistake(reached_only, "Recalls that are never reached belong to the mean, with precision 0."),
        Mistake(
            at_hits, "This is the mean precision at the hits; read it at 101 recalls, each the best from there on."
        ),
    ]
    return judge(answer, average_precision, draw, mistakes)


def perfect_and_worthless(answer: Callable) -> Verdict:
    """perfect_and_worthless(truths (M, T, H, W) bool) -> the same masks in every frame, AP50 = 0."""
    exercise, rng = "perfect_and_worthless", np.random.default_rng()
    mistakes = [  # by the best IoU of every truth
        Mistake(
            lambda best: best.min() > 0.999,
            "Whole tracks were renamed, and names are free: exchange masks in some frames, not in all.",
        ),
        Mistake(
            lambda best: best.max() > 0.999,
            "That track was left whole: every track must change hands, not only two of them.",
        ),
        Mistake(
            lambda best: best.max() >= 0.5,
            "Too few frames change hands: every prediction must lose its creature for about half of the clip.",
        ),
    ]
    for num_tracks in (2, 3, 4):
        truths = _lanes(rng, num_tracks)
        given = truths.copy()
        got, verdict = attempt(exercise, answer, given, where=f"with {num_tracks} tracks, ")
        if verdict is not None:
            return verdict
        if (given != truths).any():
            return wrong(exercise, "it changes its argument in place; work on a copy.")
        try:
            fits = np.shape(got) == truths.shape
        except ValueError:  # rows of unequal length
            fits = False
        if not fits:
            return wrong(exercise, f"{difference(got, truths)}.")
        got = np.asarray(got).astype(bool)
        for t in range(truths.shape[1]):
            if sorted(m.tobytes() for m in got[:, t]) != sorted(m.tobytes() for m in truths[:, t]):
                hint = "Each true mask must be there once, whole: all that may change is whose it is."
                return wrong(exercise, f"frame {t} does not hold exactly the {num_tracks} true masks. {hint}")
        judged = _judged(got, truths)
        if judged.precision[0, :, 0, 0, 2].max() > 0:
            best = judged.ious[1, 1].max(axis=0)  # (M,) of every truth
            hint = next(mistake.hint for mistake in mistakes if mistake.imitate(best))
            return wrong(
                exercise, f"with {num_tracks} tracks, truth {best.argmax()} has an IoU of {best.max():.2f}. {hint}"
            )
    return correct(
        exercise, "No frame is wrong, and nothing is left of the score. Lesson 07 is about keeping identities."
    )


def _judged(predictions: np.ndarray, truths: np.ndarray) -> YTVISEval:
    """The package's judge of tracks (P, T, H, W) against (M, T, H, W) in one video."""
    scores = np.linspace(0.9, 0.1, len(predictions))  # falling: `ious` keeps the order
    return YTVISEval(_truth_file(_entries(truths, [1] * len(truths)), truths), _entries(predictions, scores)).run()


def _entries(tracks: np.ndarray, scores, video_id: int = 1) -> list[dict]:
    codes = [[encode_mask(mask) if mask.any() else None for mask in track] for track in tracks]
    ids = {"video_id": video_id, "category_id": 1}
    return [ids | {"score": float(s), "segmentations": code} for s, code in zip(scores, codes)]


def _truth_file(entries: list[dict], tracks: np.ndarray) -> dict:
    size = dict(zip(("length", "height", "width"), tracks.shape[1:]))
    truths = [e | {"id": i, "areas": a} for i, (e, a) in enumerate(zip(entries, tracks.sum((2, 3)).tolist()), start=1)]
    videos = [{"id": video} | size for video in sorted({e["video_id"] for e in entries})]
    return {"videos": videos, "categories": [{"id": 1, "name": "thing"}], "annotations": truths}


def _tracks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random tracks (count, 5, 4, 6) bool, each absent in one frame or two."""
    tracks = rng.random((count, 5, 4, 6)) < rng.uniform(0.2, 0.8, (count, 5, 1, 1))
    tracks[:, :, 1, 1] = True  # not empty by chance
    for track in tracks:
        track[rng.choice(5, int(rng.integers(1, 3)), replace=False)] = False
    return tracks


def _lanes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Discs (count, T, 12 * count, 40) bool, one a lane, that move and stay whole and in sight."""
    y, x = np.mgrid[: 12 * count, :40]
    lane, frame = np.arange(count)[:, None, None, None], np.arange(rng.integers(6, 11))[:, None, None]
    start, pace, radius = (rng.uniform(*span, (count, 1, 1, 1)) for span in ((7, 9), (1, 2), (4.2, 5)))
    return (y - 12 * lane - 6) ** 2 + (x - start - pace * frame) ** 2 < radius**2
