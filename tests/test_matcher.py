"""Matching: its score by hand, its assignment against every permutation there is, targets of every awkward number."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minst import matcher
from minst.matcher import Instances, hungarian_match, matching_scores, pairwise_dice, resize_masks


def instances(count, classes=3, size=(4, 5)) -> Instances:
    return Instances(torch.randint(classes, (count,)), torch.rand(count, *size), torch.arange(count))


def score_by_hand(class_logits, mask_logits, target, n, m):
    """SparseInst's dice^0.8 p^0.2 for one pair, pixel by pixel in Python's floats."""
    x = [1 / (1 + math.exp(-v)) for v in mask_logits[n].flatten().tolist()]
    y = target.masks[m].flatten().tolist()
    dice = 2 * sum(a * b for a, b in zip(x, y)) / (sum(a * a for a in x) + sum(b * b for b in y) + 1e-4)
    probability = 1 / (1 + math.exp(-float(class_logits[n, target.labels[m]])))
    return dice**0.8 * probability**0.2


@settings(max_examples=60)
@given(queries=st.integers(1, 5), counts=st.lists(st.integers(0, 5), min_size=1, max_size=3),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_the_match_is_the_best_of_all(queries, counts, seed):
    torch.manual_seed(seed)
    class_logits, mask_logits = torch.randn(len(counts), queries, 3) * 2, torch.randn(len(counts), queries, 4, 5) * 2
    targets = [instances(count) for count in counts]
    for i, (rows, columns) in enumerate(hungarian_match(class_logits, mask_logits, targets)):
        pairs = min(queries, counts[i])
        assert rows.dtype == columns.dtype == torch.long and len(rows) == len(columns) == pairs
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == pairs  # one to one
        score = [[score_by_hand(class_logits[i], mask_logits[i], targets[i], n, m) for m in range(counts[i])]
                 for n in range(queries)]  # fmt: skip
        if counts[i] <= queries:
            every = (zip(p, range(counts[i])) for p in itertools.permutations(range(queries), counts[i]))
        else:
            every = (zip(range(queries), p) for p in itertools.permutations(range(counts[i]), queries))
        best = max(sum(score[n][m] for n, m in pairing) for pairing in every)
        assert sum(score[n][m] for n, m in zip(rows.tolist(), columns.tolist())) == pytest.approx(best, abs=1e-5)


def test_score_by_hand():
    target = Instances(torch.tensor([1]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([0]))
    # probabilities (1/2, 1/2): dice = 2 * 0.5 / (0.5 + 1 + 1e-4); p = sigmoid(log 3) = 3/4
    score = matching_scores(torch.tensor([[9.0, math.log(3)]]), torch.zeros(1, 1, 2), target)
    assert score.item() == pytest.approx((1 / 1.5001) ** 0.8 * 0.75**0.2, rel=1e-6)
    dice = pairwise_dice(torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]]), torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 1]]))
    torch.testing.assert_close(dice, torch.tensor([[4 / 4.0001, 2 / 5.0001], [0, 0]]))


def test_a_mask_outweighs_a_class_and_a_class_decides_between_equal_masks():
    square = torch.zeros(1, 8, 8)
    square[:, 2:6, 2:6] = 1.0
    target = Instances(torch.tensor([0]), square, torch.tensor([0]))
    good, bad = (square[0] * 2 - 1) * 8, (0.5 - square[0]) * 8
    found = hungarian_match(torch.tensor([[[3.0], [-1.0]]]), torch.stack([bad, good])[None], [target])
    assert found[0][0].tolist() == [1]
    found = hungarian_match(torch.tensor([[[-1.0], [0.0]]]), torch.stack([good, good])[None], [target])
    assert found[0][0].tolist() == [1]


def test_bool_masks_serve_as_targets():
    target = Instances(torch.tensor([2]), torch.rand(1, 4, 5) > 0.5, torch.tensor([7]))
    soft = target._replace(masks=target.masks.float())
    logits = torch.randn(1, 3, 3), torch.randn(1, 3, 4, 5)
    assert torch.equal(hungarian_match(*logits, [target])[0][0], hungarian_match(*logits, [soft])[0][0])


@pytest.mark.parametrize("poison", [float("nan"), float("inf") * 0])
@pytest.mark.parametrize("where", ["class", "mask"])
def test_a_diverged_model_is_not_matched(where, poison):
    class_logits, mask_logits = torch.zeros(1, 3, 3), torch.zeros(1, 3, 4, 5)
    (class_logits if where == "class" else mask_logits)[0, 1] = poison
    with pytest.raises(FloatingPointError, match="not finite"):
        hungarian_match(class_logits, mask_logits, [instances(2)])


def test_a_batch_and_its_targets_must_be_as_long():
    with pytest.raises(ValueError):
        hungarian_match(torch.zeros(2, 3, 3), torch.zeros(2, 3, 4, 5), [instances(1)])


@given(count=st.integers(0, 3), height=st.integers(1, 40), width=st.integers(1, 40), extra=st.integers(0, 2))
def test_resized_masks_are_torchs_interpolation_of_padded_ones(count, height, width, extra):
    size = (-(-height // 8) + extra, -(-width // 8) + extra)  # extra cells: the frame was padded in its batch
    masks = torch.rand(count, height, width) > 0.5
    resized = resize_masks(masks, size)
    assert resized.shape == (count, *size) and resized.dtype == torch.float32
    if count and (height, width) != size:
        canvas = torch.zeros(count, size[0] * 8, size[1] * 8)
        canvas[:, :height, :width] = masks
        torch.testing.assert_close(resized, F.interpolate(canvas[None], scale_factor=1 / 8, mode="bilinear")[0])


def test_resized_masks_by_hand():
    """At one eighth, bilinear resizing takes the mean of the middle four of 64 pixels."""
    masks = torch.rand(2, 16, 24)
    expected = torch.stack([masks[:, 8 * i + 3 : 8 * i + 5, 8 * j + 3 : 8 * j + 5].mean((1, 2))
                            for i in range(2) for j in range(3)], 1).view(2, 2, 3)  # fmt: skip
    torch.testing.assert_close(resize_masks(masks, (2, 3)), expected)
    assert torch.equal(resize_masks(expected, (2, 3)), expected)  # already there


def test_masks_larger_than_the_logits_are_refused():
    with pytest.raises(ValueError, match="masks of 100 x 64.*8 x 8"):
        resize_masks(torch.ones(1, 100, 64), (8, 8))


def test_scores_are_compared_in_full_precision_whatever_the_training_does(monkeypatch):
    """bf16 knows eight bits: of many queries that are nearly alike, the wrong one would win."""
    torch.manual_seed(0)
    class_logits, mask_logits = torch.randn(1, 6, 3), torch.randn(1, 1, 8, 8) + 0.01 * torch.randn(1, 6, 8, 8)
    target = Instances(torch.tensor([1, 2]), (torch.rand(2, 8, 8) > 0.5).float(), torch.arange(2))
    seen = []
    monkeypatch.setattr(matcher, "matching_scores", lambda *a: (seen.append(matching_scores(*a)), seen[-1])[1])
    matcher.hungarian_match(class_logits, mask_logits, [target])
    with torch.autocast("cpu", torch.bfloat16):
        matcher.hungarian_match(class_logits, mask_logits, [target])
    assert torch.equal(*seen)
