"""minst.lab.statistics: intervals of paired runs and of paired clips, Holm, how many seeds are needed; the simulation."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from minst.lab.statistics import (
    GROUPS,
    Comparison,
    Family,
    compare_clips,
    groups,
    holm,
    pooled_sd,
    seeds_needed,
    signed,
    spread,
)

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import lab_simulation  # noqa: E402


def family(d) -> Family:
    return lab_simulation.as_family(np.asarray(d, dtype=float))


def test_the_groups_leave_out_every_clip_once():
    weights = groups(50)
    assert weights.shape == (1 + GROUPS, 50) and (weights[0] == 1).all()
    assert (weights[1:].sum(0) == GROUPS - 1).all() and (weights[3] == 0).nonzero()[0].tolist() == [2, 22, 42]


def test_one_row_is_the_t_test_of_scipy():
    d = [1.0, 2.5, 0.5, 1.7]
    found, wanted = family([d]).compare("0"), stats.ttest_1samp(d, 0)
    low, high = wanted.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, wanted.pvalue))
    assert found.difference == pytest.approx(np.mean(d)) and found.seeds == tuple(d)


def test_rows_that_share_no_luck_lend_each_other_their_spread():
    """Luck that cancels: in every seed as much above as below, so that nothing is shared."""
    luck = np.array([[1.0, -1, 1, -1], [-1, 1, -1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]])
    found = family(luck + [[1], [2], [3], [4]])
    assert found.freedom == pytest.approx(9) and found.sd == pytest.approx(math.sqrt(4 / 3))
    half = stats.t.ppf(0.975, 9) * found.sd / 2
    assert found.compare("2")[:3] == pytest.approx((3, 3 - half, 3 + half))


def test_rows_that_share_all_their_luck_are_one_row():
    assert family([[1.0, 2, 4], [2, 3, 5], [0, 1, 3]]).freedom == pytest.approx(2)


def test_a_family_whose_rows_lack_seeds():
    found = Family({"a": {0: 1.0, 1: 3.0, 2: 2.0}, "b": {1: 1.0, 2: 2.5}, "c": {}})
    assert list(found.rows) == ["a", "b"] and found.freedom >= 2
    assert found.sd == pytest.approx(math.sqrt((2 * 1.0 + 1 * 1.125) / 3))
    assert found.compare("b").seeds == (1.0, 2.5)
    alone = Family({"a": {0: 1.0}})
    assert math.isnan(alone.compare("a").low) and alone.compare("a").decided == "open"
    assert math.isnan(alone.detectable(3))


def test_the_family_is_the_one_that_was_simulated():
    d = lab_simulation.draw_numbers(np.random.default_rng(0), 20, 4, np.zeros(6), np.ones(6))
    mean, half = lab_simulation.intervals(d)["pooled t"]
    for lab, means, halves in zip(d, mean, half):
        found = family(lab)
        for row in range(6):
            one = found.compare(str(row))
            assert (one.difference, one.high - one.low) == pytest.approx((means[row], 2 * halves[row]))


def test_nineteen_of_twenty_intervals_hold_the_truth_and_those_of_a_bootstrap_do_not():
    found = lab_simulation.coverage(3000, 4)["alike"]
    assert 94 <= found["pooled t"]["coverage"] <= 96 and 94 <= found["own t"]["coverage"] <= 96
    assert found["pooled t"]["half width"] < 0.85 * found["own t"]["half width"]
    assert found["bootstrap over seeds"]["coverage"] < 90


def test_power_is_what_detectable_says():
    rng = np.random.default_rng(3)
    sure = family(lab_simulation.draw_numbers(rng, 1, 400, np.zeros(9), np.ones(9))[0])
    sure.freedom = 9
    assert 74 < lab_simulation.power(3000, 4, sure.detectable(4)) < 88


def test_the_jackknife_of_a_mean_is_the_t_of_its_groups():
    values = np.random.default_rng(1).normal(0.3, 1, 200)
    kept = groups(200)
    found = compare_clips((kept @ values) / kept.sum(1), np.zeros(1 + GROUPS))
    means = [values[g::GROUPS].mean() for g in range(GROUPS)]
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high)) and found.difference == pytest.approx(values.mean())


def test_the_same_setting_does_not_differ():
    one = np.append(0.5, np.linspace(0.49, 0.51, GROUPS))
    assert compare_clips(one, one)[:3] == (0, 0, 0) and compare_clips(one, one).decided == "equal"


def test_holm_by_hand():
    def adjusted(**p):
        found = holm({name: Comparison(len(name), -1, 1, (), value) for name, value in p.items()})
        assert list(found) == list(p) and all(each.difference == len(name) for name, each in found.items())
        return {name: each.p for name, each in found.items()}

    assert adjusted(a=0.01, b=0.04, cc=0.03) == pytest.approx({"a": 0.03, "b": 0.06, "cc": 0.06})
    assert adjusted(a=0.6, b=0.5) == {"a": 1.0, "b": 1.0} and adjusted() == {}


def test_holm_keeps_false_alarms_rare():
    found = lab_simulation.alarms(100, 4)
    assert found["after Holm"] < 12 < found["each row at 5 %"]


@pytest.mark.parametrize(
    "found, word",
    [
        (Comparison(-2, -3, -1, (), 0.02), "worse"),
        (Comparison(-2, -3, -1, (), 0.06), "open"),
        (Comparison(2, 1, 3, (), 0.001), "better"),
        (Comparison(0.1, -0.8, 0.9, (), 1.0), "equal"),
        (Comparison(0.1, -0.8, 1.1, (), 1.0), "open"),
        (Comparison(0.5, 0.2, 0.8, (), 0.2), "equal"),
        (Comparison(-2, math.nan, math.nan, ()), "open"),
    ],
)
def test_what_is_decided(found, word):
    assert found.decided == word


def test_verdicts():
    worse, unsure = Comparison(-1, -1.5, -0.5, ()), Comparison(-1, -2.5, 0.5, ())
    assert [worse.verdict(claim) for claim in (1, -1, 0)] == ["agrees", "disagrees", "no claim"]
    assert unsure.verdict(1) == unsure.verdict(-1) == "cannot tell"


def test_spread_by_hand():
    assert spread([1.0, 2.0, 6.0]) == pytest.approx((3, np.std([1, 2, 6], ddof=1)))
    mean, sd = spread([4.0])
    assert mean == 4 and np.isnan(sd)


def test_seeds_needed_by_hand():
    two, three = (1.0, 3.0), (0.0, 3.0, 6.0)  # variances 2 and 9
    pooled = (1 * 2 + 2 * 9) / 3
    assert pooled_sd([two, three]) == pytest.approx(math.sqrt(pooled))
    assert seeds_needed([two, three], 1.0) == int(np.ceil(2.8**2 * pooled))
    assert seeds_needed([two, three], 10.0) == 2 and seeds_needed([(1.0,)], 1.0) is None


def test_signs_as_people_write_them():
    assert signed(-1.25) == "−1.2" and signed(0.5) == "+0.5" and signed(math.nan) == "–"
