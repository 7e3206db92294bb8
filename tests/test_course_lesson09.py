"""The checks of lesson 09: students' mistakes meet their hint."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from minst.course import lesson09 as check
from minst.lab import Lab, average_precision
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


def bootstrap(
    ends=(2.5, 97.5),
    swap=False,
    whole=True,
    seeds_drawn=True,
    clips_drawn=True,
    mean=True,
    pair=True,
    pool=False,
):
    """By loops over samples, with some slip."""

    def paired_interval(ours, theirs, clips, seeds):
        def retention(run, weights):
            if not clips_drawn:
                weights = np.ones_like(weights)
            if whole:
                return (weights * run[:, 0]).sum() / (weights * run[:, 1]).sum()
            return np.average(run[:, 0] / run[:, 1], weights=weights)

        tables = np.array(
            [[[retention(run, w) for w in clips] for run in model] for model in (ours, theirs)]
        )
        if swap:
            tables = tables[::-1]
        shares = seeds.T if seeds_drawn else np.ones_like(seeds.T)  # (S, B)
        if not pair:
            (a, b), (c, d) = (np.percentile((t * shares).sum(0) / len(t), ends) for t in tables)
            return a - d, b - c
        each = tables[0] - tables[1]
        if pool:
            return np.percentile(each, ends)
        total = (each * shares).sum(0)
        return list(np.percentile(total / len(each) if mean else total, ends))

    return paired_interval


def seeds_thrown_together(ours, theirs, clips, seeds):
    """One ratio for all drawn seeds, in the place of a mean of their ratios."""
    found = []
    for chosen, weights in zip(clips, seeds):
        kept, of = zip(*((chosen @ model.sum(0)) for model in (ours, theirs)))
        found.append(weights.mean() * (kept[0] / of[0] - kept[1] / of[1]))
    return np.percentile(found, (2.5, 97.5))


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
    ("verdict_of", worded(silent=None), "says nothing"),
    ("verdict_of", worded(one_way=True), "better"),
    ("paired_interval", bootstrap(swap=True), "ours - theirs"),
    ("paired_interval", bootstrap(seeds_drawn=False), "seeds are not"),
    ("paired_interval", bootstrap(clips_drawn=False), "clips are not"),
    ("paired_interval", bootstrap(mean=False), "divide by their number"),
    ("paired_interval", bootstrap(ends=(5, 95)), "middle 90 %"),
    ("paired_interval", bootstrap(pair=False), "pairing is lost"),
    ("paired_interval", bootstrap(pool=True), "percentiles over single seeds"),
    ("paired_interval", lambda *given: seeds_thrown_together(*given), "Each seed has a retention"),
    ("paired_interval", bootstrap(whole=False), "one sum divided"),
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
    assert check.paired_interval(bootstrap()).state == "correct"
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
    assert check.paired_interval(lambda *given: np.array(bootstrap()(*given))).state == "correct"


def test_the_reference_of_the_bootstrap_is_a_loop_over_drawn_clips_and_seeds():
    rng = np.random.default_rng(1)
    of = rng.integers(5, 30, (2, 3, 8))
    pairs = np.stack([rng.binomial(of, 0.7), of], axis=-1).astype(float)
    ours = check.paired_interval(bootstrap(swap=True)).or_ours
    draws = check.draw(4000, 8, 0), check.draw(4000, 3, 1)
    means = []
    for _ in range(4000):
        clips, seeds = rng.integers(8, size=8), rng.integers(3, size=3)
        kept, count = np.moveaxis(pairs[:, seeds][:, :, clips].sum(2), -1, 0)  # (2, seeds)
        means.append(np.subtract(*(kept / count)).mean())
    assert ours(*pairs, *draws) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_a_draw_takes_as_many_as_there_are_and_every_one_equally_often():
    drawn = check.draw(4000, 7, 3)
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.07)
    assert (check.draw(10, 5, 0) == check.draw(10, 5, 0)).all() and (check.draw(10, 5, 0) != check.draw(10, 5, 1)).any()


def test_what_is_kept_of_the_first_grid_gives_its_figures():
    lab = Lab(Path(__file__).parents[1] / "results" / "lab-older")
    matches, rows = check.kept(lab)
    assert 100 * average_precision(matches)[0] == pytest.approx(lab.rows["full"].values("image AP")[0], abs=1e-3)
    for name, counts in rows.items():
        kept, of = counts.sum(1).T
        assert 100 * kept / of == pytest.approx([*lab.rows[name].values("retention").values()], abs=1e-3)


@pytest.mark.parametrize("name", check.__all__)
def test_the_lesson_goes_on_with_ours_until_an_answer_is_correct(name):
    def stub(*given):
        raise NotImplementedError

    ours = getattr(check, name)(stub).or_ours
    assert getattr(check, name)(ours).state == "correct"


@pytest.mark.parametrize(("hard", "lucky"), [(0.2, 0), (0, 5)])
def test_the_unpaired_interval_is_the_wider_one_where_both_models_share_their_luck(hard, lucky):
    of = np.full((3, 20), 50.0)
    kept = 50 * np.clip(np.random.default_rng(0).normal(0.6, hard, 20), 0.1, 0.9)  # hard clips, or lucky seeds
    kept = kept + lucky * np.array([[-1], [0], [1]])
    ours, theirs = np.stack([kept - 1, of], axis=-1), np.stack([kept, of], axis=-1)
    low, high = check.unpaired_interval(ours, theirs)
    assert low < -0.02 < high and high - low > 0.1  # paired it is -0.02 in every sample
    picture = check.plot_intervals({"row": (-0.021, -0.019)}, {"row": (low, high)})
    assert f"{(high - low) / 0.002:.1f} times" in picture.alt


def test_the_picture_of_pairs_draws_both_intervals():
    changed, full = check.hidden_by_noise(results()).or_ours(8)
    left, right = check.plot_pairs(changed, full).axes
    assert [line.get_ydata()[1] for line in left.lines] == pytest.approx(changed)
    (bars,) = right.containers[0].lines[2]
    paired, apart = (segment[:, 0] for segment in bars.get_segments())
    assert paired[1] < 0 < apart[1] and apart[0] < paired[0]
