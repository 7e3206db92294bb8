"""The checks of lesson 01: students' mistakes meet their hint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minst import rle
from minst.course import lesson01 as check
from minst.evaluation import YTVISEval, evaluate_ytvis
from minst.tracking import encode_mask

RECALLS = np.linspace(0, 1, 101)


# --- what students write


def both(first, second):
    return [t for t in range(len(first)) if first[t] and second[t]]


def every(first, second):
    return list(range(len(first)))


def first_only(first, second):
    return [t for t, there in enumerate(first) if there]


def either_not_both(first, second):
    return [t for t in range(len(first)) if first[t] ^ second[t]]


def by_loop(mask, pixels=None, start=False, last=True):
    pixels = mask.T.flatten().tolist() if pixels is None else pixels
    counts, value, run = [], start, 0
    for pixel in pixels:
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return counts + [run] if last else counts


def rows(mask):
    return by_loop(mask, mask.flatten().tolist())


def no_leading_zero(mask):
    return by_loop(mask, start=bool(mask[0, 0]))


def rows_no_leading_zero(mask):
    return by_loop(mask, mask.flatten().tolist(), bool(mask[0, 0]))


def lost_last_run(mask):
    return by_loop(mask, last=False)


def ones_first(mask):
    return by_loop(mask, start=True)


def ends_of_runs(mask):
    return np.cumsum(by_loop(mask)).tolist()


def restarted_at_zero(mask):
    counts, value, run = [], False, 0
    for pixel in mask.flatten("F"):
        if pixel == value:
            run += 1
        else:
            counts.append(run)
            value, run = pixel, 0
    return counts + [run]


def starts_and_lengths(mask):
    found, start = [], None
    for i, pixel in enumerate([*mask.T.flatten(), False]):
        if pixel and start is None:
            start = i
        elif not pixel and start is not None:
            found.append((start, i - start))
            start = None
    return found


def starts_and_lengths_of_kaggle(mask):
    return [number for start, length in starts_and_lengths(mask) for number in (start + 1, length)]


def table(answers, truths, pair):
    return np.array([[pair(p, g) for g in truths] for p in answers])


def mean_over_frames(answers, truths):
    def pair(p, g):
        covered = (p | g).sum((1, 2))
        return np.mean((p & g).sum((1, 2))[covered > 0] / covered[covered > 0])

    return table(answers, truths, pair)


def mean_with_zeros(answers, truths):
    def pair(p, g):
        return sum(
            (a & b).sum() / (a | b).sum() if (a | b).any() else 0.0 for a, b in zip(p, g)
        ) / len(p)

    return table(answers, truths, pair)


def only_where_both(answers, truths):
    def pair(p, g):
        both = [t for t in range(len(p)) if p[t].any() and g[t].any()]
        return (p & g)[both].sum() / (p | g)[both].sum() if both else 0.0

    return table(answers, truths, pair)


def turned(answers, truths):
    return table(truths, answers, lambda p, g: (p & g).sum() / (p | g).sum())


def dice(answers, truths):
    return table(answers, truths, lambda p, g: 2 * (p & g).sum() / (p.sum() + g.sum()))


def union_of_rows(p, g, shared):
    return p.sum(1, keepdims=True) + g.sum(1)[None] - shared


def boolean_product(answers, truths):
    p, g = answers.reshape(len(answers), -1), truths.reshape(len(truths), -1)
    return (p @ g.T) / union_of_rows(p, g, p @ g.T)


def product_of_bytes(answers, truths):
    p, g = (tracks.reshape(len(tracks), -1).astype("u1") for tracks in (answers, truths))
    return (p @ g.T) / union_of_rows(p, g, p @ g.T)


def double_union(answers, truths):
    return table(answers, truths, lambda p, g: (p & g).sum() / (p.sum() + g.sum()))


def ap(
    hits,
    num_truths,
    at=lambda precision, reached: precision[reached].max() if reached.any() else 0.0,
):
    found = np.cumsum(hits)
    precision, recall = found / (np.arange(len(hits)) + 1), found / num_truths
    return [at(precision, recall >= r) for r in RECALLS]


def not_sorted(scores, hits, num_truths):
    return float(np.mean(ap(hits, num_truths)))


def worst_first(scores, hits, num_truths):
    return float(np.mean(ap(hits[scores.argsort()], num_truths)))


def not_interpolated(scores, hits, num_truths):
    precisions = ap(
        hits[scores.argsort()[::-1]],
        num_truths,
        lambda p, reached: p[reached][0] if reached.any() else 0,
    )
    return np.mean(precisions)


def recall_of_found(scores, hits, num_truths):
    return np.mean(ap(hits[scores.argsort()[::-1]], sum(hits)))


def mean_of_reached(scores, hits, num_truths):
    return np.mean([value for value in ap(hits[scores.argsort()[::-1]], num_truths) if value > 0])


def beyond_only(scores, hits, num_truths):
    found = np.cumsum(hits[np.argsort(scores)[::-1]])
    precision, recall = found / np.arange(1, len(hits) + 1), found / num_truths
    best = [precision[recall > r].max() if (recall > r).any() else 0.0 for r in RECALLS]
    return sum(best) / 101


def divides_by_the_hits(scores, hits, num_truths):
    right = np.mean(ap(hits[scores.argsort()[::-1]], num_truths))
    return right * (int(hits.sum()) / int(hits.sum()))


def undefined_without_hits(scores, hits, num_truths):
    right = np.mean(ap(hits[scores.argsort()[::-1]], num_truths))
    return right if hits.any() else float("nan")


def at_the_hits(scores, hits, num_truths):
    ordered = hits[scores.argsort()[::-1]]
    return (
        sum(ordered[: i + 1].sum() / (i + 1) for i in range(len(hits)) if ordered[i]) / num_truths
    )


def renamed(truths):
    return np.roll(truths, 1, axis=0)


def untouched(truths):
    return truths.copy()


def two_of_them(truths):
    answers, half = truths.copy(), truths.shape[1] // 2
    answers[:2, half:] = truths[1::-1, half:] if len(truths) > 2 else np.flip(truths, 0)[:, half:]
    return answers


def one_frame(truths):
    answers = truths.copy()
    answers[:, 2] = np.roll(truths[:, 2], 1, axis=0)
    return answers


def swapped_by_turns(truths):
    return np.stack([np.roll(truths[:, t], t, axis=0) for t in range(truths.shape[1])], axis=1)


def without_masks(truths):
    return np.zeros_like(truths)


def shifted_masks(truths):
    return np.roll(truths, 15, axis=3)


def through_an_alias(truths):
    half = truths.shape[1] // 2
    truths[:, half:] = truths[::-1, half:].copy()
    return truths


@pytest.mark.parametrize(
    "name, answer, word",
    [
        ("counted_frames", both, "intersection"),
        ("counted_frames", every, "costs nothing"),
        ("counted_frames", first_only, "only the second"),
        ("counted_frames", either_not_both, "both are there"),
        ("rle_encode", rows, "row by row"),
        ("rle_encode", no_leading_zero, "it is 0"),
        ("rle_encode", rows_no_leading_zero, "not along the rows"),
        ("rle_encode", lost_last_run, "last run"),
        ("rle_encode", ones_first, "exchanged"),
        ("rle_encode", ends_of_runs, "positions"),
        ("rle_encode", restarted_at_zero, "starts at length 1"),
        ("rle_encode", starts_and_lengths, "pairs (start, length)"),
        ("rle_encode", starts_and_lengths_of_kaggle, "pairs (start, length)"),
        ("tube_iou", mean_over_frames, "divide once"),
        ("tube_iou", mean_with_zeros, "divide once"),
        ("tube_iou", only_where_both, "left out"),
        ("tube_iou", turned, "columns (G)"),
        ("tube_iou", boolean_product, "two boolean arrays"),
        ("tube_iou", product_of_bytes, "8 bits"),
        ("tube_iou", dice, "dice"),
        ("tube_iou", double_union, "twice"),
        ("average_precision", not_sorted, "no order"),
        ("average_precision", worst_first, "rising"),
        ("average_precision", not_interpolated, "or beyond"),
        ("average_precision", recall_of_found, "found or not"),
        ("average_precision", mean_of_reached, "never reached"),
        ("average_precision", at_the_hits, "at the hits"),
        ("average_precision", beyond_only, "reached exactly"),
        ("average_precision", divides_by_the_hits, "ZeroDivisionError"),
        ("average_precision", undefined_without_hits, "not undefined"),
        ("perfect_and_worthless", renamed, "names are free"),
        ("perfect_and_worthless", untouched, "names are free"),
        ("perfect_and_worthless", two_of_them, "left whole"),
        ("perfect_and_worthless", one_frame, "Too few"),
        ("perfect_and_worthless", without_masks, "true masks"),
        ("perfect_and_worthless", shifted_masks, "true masks"),
        ("perfect_and_worthless", through_an_alias, "left whole"),
    ],
)
def test_a_mistake_meets_its_hint(name, answer, word):
    for _ in range(3):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


def test_other_ways_to_be_right():
    assert check.rle_encode(lambda mask: np.array(by_loop(mask)))
    assert check.tube_iou(lambda a, g: table(a, g, lambda p, q: (p & q).sum() / (p | q).sum()))
    assert check.average_precision(lambda s, h, n: np.mean(ap(h[np.argsort(s)[::-1]], n)))
    assert check.counted_frames(lambda a, b: np.flatnonzero(np.logical_or(a, b)))
    assert check.counted_frames(lambda a, b: np.where(np.logical_or(a, b)))
    assert check.counted_frames(lambda a, b: (torch.tensor(a) | torch.tensor(b)).nonzero()[:, 0])
    assert check.counted_frames(in_place)
    assert check.tube_iou(lambda a, g: torch.from_numpy(by_einsum(a, g)).half())
    assert check.average_precision(lambda s, h, n: np.float16(np.mean(ap(h[np.argsort(-s)], n))))
    assert check.perfect_and_worthless(swapped_in_place)
    assert check.perfect_and_worthless(swapped_at_half)


def in_place(first, second):
    for t, there in enumerate(second):
        first[t] |= there
    return [t for t, there in enumerate(first) if there]


def by_einsum(answers, truths):
    shared = np.einsum("rlhw,glhw->rg", answers.astype("f4"), truths.astype("f4"))
    return shared / (answers.sum((1, 2, 3))[:, None] + truths.sum((1, 2, 3)) - shared)


def swapped_at_half(truths):
    half = truths.shape[1] // 2
    return np.concatenate([truths[:, :half], np.roll(truths, 1, axis=0)[:, half:]], axis=1)


def swapped_in_place(truths):
    for t in range(truths.shape[1]):
        truths[:, t] = np.roll(truths[:, t], t, axis=0)
    return truths


# --- the package's own functions are right answers


def judged(predictions, truths):
    """The package's judge of tracks (R, L, H, W) against (G, L, H, W) in one video."""
    scores = np.linspace(0.9, 0.1, len(predictions))  # falling: `ious` keeps the order
    return YTVISEval(
        truth_file(entries(truths, [1] * len(truths)), truths), entries(predictions, scores)
    ).run()


def entries(tracks, scores, video_id=1):
    codes = [[encode_mask(mask) if mask.any() else None for mask in track] for track in tracks]
    ids = {"video_id": video_id, "category_id": 1}
    return [ids | {"score": float(s), "segmentations": code} for s, code in zip(scores, codes)]


def truth_file(entries, tracks):
    size = dict(zip(("length", "height", "width"), tracks.shape[1:]))
    areas = tracks.sum((2, 3)).tolist()
    truths = [e | {"id": i, "areas": a} for i, (e, a) in enumerate(zip(entries, areas), start=1)]
    videos = [{"id": video} | size for video in sorted({e["video_id"] for e in entries})]
    return {"videos": videos, "categories": [{"id": 1, "name": "thing"}], "annotations": truths}


def ap50(scores, hits, num_truths):
    """On videos of one pixel with one truth each; a hit covers the next truth, a miss nothing."""
    pixel, places = np.ones((1, 1, 1, 1), dtype=bool), np.where(hits, np.cumsum(hits), 1).tolist()
    truths = [entries(pixel, [1], video)[0] for video in range(1, num_truths + 1)]
    found = zip(scores, hits, places)
    predictions = [entries(pixel & hit, [score], video)[0] for score, hit, video in found]
    return evaluate_ytvis(truth_file(truths, pixel.repeat(num_truths, 0)), predictions)["AP50"]


def run_length_code(mask):
    rows, _ = rle.unpack([encode_mask(mask)["counts"]], mask.size)
    counts = rows.reshape(-1).tolist()
    return counts[:-1] if counts[-1] == 0 else counts


def test_the_package_gives_the_right_answers():
    for _ in range(3):
        assert check.tube_iou(lambda predictions, truths: judged(predictions, truths).ious[1, 1])
        assert check.average_precision(ap50)
        assert check.rle_encode(run_length_code)


@pytest.mark.parametrize("answer", [swapped_by_turns, one_frame, two_of_them, renamed])
def test_worthless_is_what_the_package_scores_with_zero(answer):
    said = []

    def watched(truths):
        got = answer(truths)
        said.append(judged(got, truths).precision[0, :, 0, 0, 2].max() > 0)
        return got

    assert bool(check.perfect_and_worthless(watched)) != any(said)


@pytest.mark.parametrize("name", check.__all__)
def test_the_lesson_goes_on_with_the_answer_or_with_ours(name):
    def stub(*given):
        raise NotImplementedError

    ours = getattr(check, name)(stub).or_ours
    verdict = getattr(check, name)(ours)
    assert verdict and verdict.or_ours is ours


def test_the_film_ends_with_the_ap_that_it_was_given():
    hits = np.array([True, False, True])
    film = check.film_of_precision(hits, 4, lambda scores, hits, num_truths: np.sum(hits) / 4)
    assert film.gif[:6] == b"GIF89a" and "3 predictions, AP 0.50" in film.alt
    assert 1000 < len(film.gif) < 150_000
