"""The checks of lesson 09: students' mistakes meet their hint."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from minst.course import lesson09 as check
from minst.lab import Lab

# --- what students write


def judged_by_the_mean(difference, low, high, claim):
    if claim == 0:
        return "no claim"
    return "agrees" if math.copysign(1, difference) == -claim else "disagrees"


def worded(unsure="cannot tell", silent="no claim", sign=-1, one_way=False):
    """Reads the interval, with some slip."""

    def verdict_of(difference, low, high, claim):
        if claim == 0 and silent:
            return silent
        if low < 0 < high:
            return unsure
        wanted = sign * (1 if one_way or claim == 0 else claim)
        return "agrees" if wanted * high > 0 and wanted * low > 0 else "disagrees"

    return verdict_of


def jackknife(swap=False, pseudo=True, root=True, ddof=1, t=2.093, middle="all", pair=True):
    """By loops over groups, with some slip."""

    def half_of(d):
        values = [20 * d[0] - 19 * without if pseudo else without for without in d[1:]]
        mean = sum(values) / 20
        variance = sum((value - mean) ** 2 for value in values) / (20 - ddof)
        return t * math.sqrt(variance / (20 if root else 1)), mean

    def paired_interval(ours, theirs):
        if swap:
            ours, theirs = theirs, ours
        if not pair:
            (a, _), (b, _) = half_of(ours), half_of(theirs)
            return ours[0] - a - (theirs[0] + b), ours[0] + a - (theirs[0] - b)
        d = [x - y for x, y in zip(ours, theirs)]
        half, mean = half_of(d)
        centre = d[0] if middle == "all" else mean
        return centre - half, centre + half

    return paired_interval


def results(lucky=5.0, worse=-1.0, uneven=0.3, share=True, turn=False, short=0):
    def hidden_by_noise(seeds):
        rng = np.random.default_rng(seeds)
        full = 30 + lucky * np.arange(seeds - short)
        noise = np.zeros(seeds) if share else 8 * rng.permutation(np.linspace(-1, 1, seeds))
        changed = full + worse + uneven * (np.arange(seeds - short) % 2) + noise[: seeds - short]
        return (full, changed) if turn else (changed, full)

    return hidden_by_noise


def power(ddof=1, variance=True, factor=2.8, pool="squares", up=True, effect_power=2, least=2):
    def seeds_for(differences, effect):
        rows = [np.array(row) for row in differences if len(row) > 1]
        if pool == "squares":
            found = sum(((row - row.mean()) ** 2).sum() for row in rows) / sum(
                len(row) - ddof for row in rows
            )
        elif pool == "sd":
            found = np.mean([row.std(ddof=1) for row in rows]) ** 2
        elif pool == "var":
            found = np.mean([row.var(ddof=1) for row in rows])
        else:
            found = np.concatenate([np.array(row) for row in differences]).var(ddof=1)
        n = factor**2 * (found if variance else found**0.5) / effect**effect_power
        return max(least, math.ceil(n) if up else math.floor(n))

    return seeds_for


WRONG = [
    ("verdict_of", judged_by_the_mean, "whole interval"),
    ("verdict_of", worded(sign=1), "turned round"),
    ("verdict_of", worded(unsure="disagrees"), "refutes nothing"),
    ("verdict_of", worded(unsure="agrees"), "confirms nothing"),
    ("verdict_of", worded(silent=None), "nothing is said"),
    ("verdict_of", worded(one_way=True), "better"),
    ("paired_interval", jackknife(swap=True), "ours - theirs"),
    ("paired_interval", jackknife(pseudo=False), "take the pseudo-values"),
    ("paired_interval", jackknife(root=False), "root of 20"),
    ("paired_interval", jackknife(ddof=0), "divides by 19"),
    ("paired_interval", jackknife(t=1.96), "t is 2.093"),
    ("paired_interval", jackknife(middle="mean"), "with all clips"),
    ("paired_interval", jackknife(pair=False), "pairing is lost"),
    ("paired_interval", lambda ours, theirs: check.unpaired_interval(ours, theirs), "pairing is lost"),
    ("hidden_by_noise", results(uneven=0), "too alike"),
    ("hidden_by_noise", results(worse=-9), "at most 2"),
    ("hidden_by_noise", results(turn=True), "Changed comes first"),
    ("hidden_by_noise", results(share=False), "share the noise"),
    ("hidden_by_noise", results(lucky=0.01), "two tables"),
    ("hidden_by_noise", results(lucky=40), "0 to 100"),
    ("hidden_by_noise", results(short=1), "the shape is"),
    ("hidden_by_noise", lambda seeds: results()(4), "the shape is"),
    ("seeds_for", power(ddof=0), "less one"),
    ("seeds_for", power(variance=False), "wants the variance"),
    ("seeds_for", power(factor=1.96), "0.84"),
    ("seeds_for", power(pool="sd"), "deviations are averaged"),
    ("seeds_for", power(pool="var"), "Variances of rows"),
    ("seeds_for", power(pool="all"), "thrown together"),
    ("seeds_for", power(up=False), "round up"),
    ("seeds_for", power(least=0), "At least 2"),
    ("seeds_for", power(effect_power=1), "squared too"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_wrong_answer_meets_its_hint(name, answer, word):
    for _ in range(2 if name == "paired_interval" else 5):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


def test_another_way_to_the_same_answers():
    assert check.verdict_of(worded()).state == "correct"
    assert check.paired_interval(jackknife()).state == "correct"
    assert check.hidden_by_noise(results(lucky=3, worse=-1.5, uneven=0.4)).state == "correct"
    assert check.seeds_for(power()).state == "correct"


def test_answers_as_numpy_gives_them_are_right():
    def by_where(difference, low, high, claim):
        sure = np.where(difference * claim < 0, "agrees", "disagrees")
        return np.select([claim == 0, low <= 0 <= high], ["no claim", "cannot tell"], sure)

    assert check.verdict_of(by_where).state == "correct"
    assert check.verdict_of(lambda *given: by_where(*given)[()]).state == "correct"
    assert check.verdict_of(lambda *given: None).state == "wrong"
    assert check.seeds_for(lambda *given: np.float64(power()(*given))).state == "correct"
    assert check.hidden_by_noise(lambda seeds: np.array(results()(seeds))).state == "correct"
    assert check.paired_interval(lambda *given: np.array(jackknife()(*given))).state == "correct"


def test_the_reference_is_the_lab_s_interval_of_clips_and_that_of_a_mean():
    rng = np.random.default_rng(1)
    ours = check.paired_interval(jackknife(swap=True)).or_ours
    # Of a mean the pseudo-values are the values themselves, so that the interval is the t of a mean.
    values = rng.normal(3, 1, 20)
    without = [np.delete(values, g).mean() for g in range(20)]
    low, high = ours(np.array([values.mean(), *without]), np.zeros(21))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 19, values.mean(), stats.sem(values)), abs=1e-4)
    lab = Lab(Path(__file__).parents[1] / "results" / "lab")
    for _, _, (a, b), found in lab.compared[::7]:
        assert ours(a, b) == pytest.approx(found[1:3], abs=1e-3)


@pytest.mark.parametrize("name", check.__all__)
def test_the_lesson_goes_on_with_ours_until_an_answer_is_correct(name):
    def stub(*given):
        raise NotImplementedError

    ours = getattr(check, name)(stub).or_ours
    assert getattr(check, name)(ours).state == "correct"


def test_the_unpaired_interval_adds_the_errors_of_both():
    rng = np.random.default_rng(3)
    clips = rng.normal(60, 5, 20)  # some are hard for both settings
    figures = []
    for values in (clips - 1 + rng.normal(0, 0.1, 20), clips):
        figures.append(np.array([values.mean(), *(np.delete(values, g).mean() for g in range(20))]))
        sem = stats.sem(values)
        alone = check.unpaired_interval(figures[-1], np.zeros(21))
        assert alone[1] - alone[0] == pytest.approx(2 * 2.093 * sem)
    low, high = check.unpaired_interval(*figures)
    half = 2.093 * math.hypot(*(stats.sem(20 * f[0] - 19 * f[1:]) for f in figures))
    assert (low, high) == pytest.approx((figures[0][0] - figures[1][0] - half, figures[0][0] - figures[1][0] + half))
    paired = check.paired_interval(jackknife()).or_ours(*figures)
    assert low < 0 < high and paired[1] < 0  # only the pairs tell
    picture = check.plot_intervals({"row": paired}, {"row": (low, high)})
    assert f"{(high - low) / np.ptp(paired):.1f} times" in picture.alt


@pytest.mark.parametrize(("ends", "word"), [((-3, -1), "worse"), ((0.1, 4), "better"), ((-0.5, 0.4), "equal"), ((-2, 1), "open")])
def test_a_row_that_stands_alone_is_decided_by_its_interval(ends, word):
    says, found = check.row_of("a row", *ends)
    assert (says, found.decided, found[1:3]) == ("a row", word, ends)


def test_the_picture_of_pairs_draws_both_intervals():
    changed, full = check.hidden_by_noise(results()).or_ours(8)
    left, right = check.plot_pairs(changed, full).axes
    assert [line.get_ydata()[1] for line in left.lines] == pytest.approx(changed)
    (bars,) = right.containers[0].lines[2]
    paired, apart = (segment[:, 0] for segment in bars.get_segments())
    assert paired[1] < 0 < apart[1] and apart[0] < paired[0]
