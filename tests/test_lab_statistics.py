"""minst.lab.statistics and results: paired differences, their interval, the verdict, how many seeds are needed."""

import fake_lab
import numpy as np
import pytest

from minst.lab.results import Lab
from minst.lab.statistics import Estimate, compare, draw, seeds_needed, spread


def mean_of(values):
    """An estimate that is the mean of a value a clip."""
    values = np.asarray(values, dtype=float)
    return Estimate(len(values), lambda weights: weights @ values / weights.sum(axis=1))


def test_a_draw_takes_as_many_as_there_are_and_every_one_equally_often():
    drawn = draw(4000, 7, 3)
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.07)
    assert (draw(10, 5, 0) == draw(10, 5, 0)).all() and (draw(10, 5, 0) != draw(10, 5, 1)).any()


def test_a_constant_difference_is_sure_however_noisy_the_clips():
    noise = np.random.default_rng(0).normal(0, 10, (3, 30))
    found = compare([mean_of(row - 1) for row in noise], [mean_of(row) for row in noise])
    assert found[:3] == pytest.approx((-1, -1, -1))
    assert found.verdict(+1) == "agrees" and found.verdict(-1) == "disagrees" and found.verdict(0) == "no claim"


def test_the_same_runs_do_not_differ_and_nothing_can_be_told():
    figures = [mean_of(np.random.default_rng(s).normal(size=9)) for s in range(3)]
    found = compare(figures, figures)
    assert found == (0, 0, 0, (0, 0, 0)) and found.verdict(1) == "cannot tell"


def test_the_interval_is_that_of_a_plain_loop_over_samples():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.4, 1, (3, 12)), rng.normal(0, 1, (3, 12))
    found = compare([mean_of(v) for v in ours], [mean_of(v) for v in theirs])
    again = []
    for _ in range(4000):
        seeds, clips = rng.integers(3, size=3), rng.integers(12, size=12)
        again.append(np.mean([ours[s][clips].mean() - theirs[s][clips].mean() for s in seeds]))
    low, high = np.percentile(again, [2.5, 97.5])
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_of_a_hundred_true_differences_of_zero_few_are_called_sure():
    """With many seeds: of few, a bootstrap over seeds is too narrow, as the report says."""
    rng, sure = np.random.default_rng(5), 0
    for _ in range(100):
        ours, theirs = rng.normal(size=(2, 8, 1)) + rng.normal(size=(2, 8, 20))
        found = compare([mean_of(v) for v in ours], [mean_of(v) for v in theirs])
        sure += found.low > 0 or found.high < 0
    assert sure <= 16


def test_pairing_takes_away_what_both_runs_share():
    rng = np.random.default_rng(2)
    shared, own = rng.normal(0, 5, (3, 20)), rng.normal(0, 0.1, (3, 20))
    paired = compare([mean_of(s + o + 0.5) for s, o in zip(shared, own)], [mean_of(s) for s in shared])
    mixed = compare([mean_of(s + o + 0.5) for s, o in zip(shared, own)], [mean_of(s) for s in np.roll(shared, 1, 0)])
    assert 20 * (paired.high - paired.low) < mixed.high - mixed.low
    assert paired.verdict(-1) == "agrees" and mixed.verdict(-1) == "cannot tell"


@pytest.mark.parametrize("ours, theirs", [(2, 3), (0, 0)])
def test_runs_that_have_no_partner_are_refused(ours, theirs):
    with pytest.raises(ValueError, match=f"cannot pair {ours} runs with {theirs}"):
        compare([mean_of([1, 2])] * ours, [mean_of([1, 2])] * theirs)
    with pytest.raises(ValueError, match=r"\[2, 3\] clips"):
        compare([mean_of([1, 2])], [mean_of([1, 2, 3])])


def test_spread_by_hand():
    assert spread([1.0, 2.0, 6.0])[:2] == pytest.approx((3, np.std([1, 2, 6], ddof=1)))
    assert np.isnan(spread([4.0]).sd) and spread([4.0]).mean == 4


def test_seeds_needed_by_hand():
    two = (1.0, 3.0)  # variance 2
    three = (0.0, 3.0, 6.0)  # variance 9
    pooled = (1 * 2 + 2 * 9) / 3
    assert seeds_needed([two, three], 1.0) == int(np.ceil(2.8**2 * pooled))
    assert seeds_needed([two, three], 10.0) == 2
    assert seeds_needed([(1.0,)], 1.0) is None


def test_the_seeds_it_asks_for_are_enough_four_times_out_of_five():
    rng, sd, effect = np.random.default_rng(0), 2.0, 1.5
    sample = rng.normal(0, sd, 4000)
    count = seeds_needed([sample], effect)
    seen = rng.normal(effect, sd, (4000, count)).mean(axis=1) > 1.96 * sd / np.sqrt(count)
    assert 0.77 < seen.mean() < 0.86


def test_a_lab_is_loaded_in_the_order_of_the_grid_with_what_is_unfinished(tmp_path):
    lab = fake_lab.write(tmp_path, seeds=2, names=("images", "full"))
    (lab / "full-2").mkdir()
    (lab / "full-2" / "train.json").write_text("{}")
    found = Lab(lab)
    done, unfinished = [run for row in found.rows.values() for run in row.runs], found.unfinished
    assert [run.run.name for run in done] == ["full-0", "full-1", "images-0", "images-1"]
    assert [run.name for run in unfinished] == ["full-2"]
    pairs = np.array(done[0].metrics["consistency"]["pairs"])
    assert done[0].estimate(("retention", 10)).value == pytest.approx(pairs[:, 4].sum() / pairs[:, 5].sum())
    once = done[0].estimate(("retention", 3))
    assert once.sample(np.eye(fake_lab.CLIPS))[4] == pytest.approx(pairs[4, 2] / pairs[4, 3])
    assert done[0].estimate(("retention", 3)) is once
    tracks = np.array(done[0].settings["fast", "mask", 9]["pairs"])
    value = done[0].estimate(("tracks", "fast", "mask", 9, 1)).value
    assert value == pytest.approx(tracks[:, 0].sum() / tracks[:, 1].sum())
    with pytest.raises(ValueError, match="images-0: nothing was measured of the tracker"):
        done[2].estimate(("video", "slow", "mask", 3))  # not measured of this variant
