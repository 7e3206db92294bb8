"""Matching: its score by hand, its assignment against every permutation there is, targets of every
awkward number, and the grid that masks are compared on."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minst import matcher
from minst.data.transforms import TARGET_STRIDE, resize_masks
from minst.matcher import Instances, enlarge, hungarian_match, matching_scores, pairwise_dice
from minst.model import upsample_masks


def instances(count, classes=3, size=(4, 5)) -> Instances:
    return Instances(
        torch.randint(classes, (count,)), torch.rand(count, *size), torch.arange(count)
    )


def score_by_hand(class_logits, mask_logits, target, n, m):
    """SparseInst's dice^0.8 p^0.2 for one pair, pixel by pixel in Python's floats."""
    x = [1 / (1 + math.exp(-v)) for v in mask_logits[n].flatten().tolist()]
    y = target.masks[m].flatten().tolist()
    dice = (
        2
        * sum(a * b for a, b in zip(x, y))
        / (sum(a * a for a in x) + sum(b * b for b in y) + 1e-4)
    )
    probability = 1 / (1 + math.exp(-float(class_logits[n, target.labels[m]])))
    return dice**0.8 * probability**0.2


@settings(max_examples=60)
@given(queries=st.integers(1, 5), counts=st.lists(st.integers(0, 5), min_size=1, max_size=3),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_the_match_is_the_best_of_all(queries, counts, seed):
    torch.manual_seed(seed)
    class_logits, mask_logits = (
        torch.randn(len(counts), queries, 3) * 2,
        torch.randn(len(counts), queries, 4, 5) * 2,
    )
    targets = [instances(count) for count in counts]
    for i, (rows, columns) in enumerate(hungarian_match(class_logits, mask_logits, targets)):
        pairs = min(queries, counts[i])
        assert rows.dtype == columns.dtype == torch.long and len(rows) == len(columns) == pairs
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == pairs  # one to one
        score = [
            [
                score_by_hand(class_logits[i], mask_logits[i], targets[i], n, m)
                for m in range(counts[i])
            ]
            for n in range(queries)
        ]
        if counts[i] <= queries:
            every = (
                zip(p, range(counts[i])) for p in itertools.permutations(range(queries), counts[i])
            )
        else:
            every = (
                zip(range(queries), p) for p in itertools.permutations(range(counts[i]), queries)
            )
        best = max(sum(score[n][m] for n, m in pairing) for pairing in every)
        assert sum(score[n][m] for n, m in zip(rows.tolist(), columns.tolist())) == pytest.approx(
            best, abs=1e-5
        )


def test_score_by_hand():
    target = Instances(torch.tensor([1]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([0]))
    # probabilities (1/2, 1/2): dice = 2 * 0.5 / (0.5 + 1 + 1e-4); p = sigmoid(log 3) = 3/4
    score = matching_scores(torch.tensor([[9.0, math.log(3)]]), torch.zeros(1, 1, 2), target)
    assert score.item() == pytest.approx((1 / 1.5001) ** 0.8 * 0.75**0.2, rel=1e-6)
    dice = pairwise_dice(
        torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]]), torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 1]])
    )
    torch.testing.assert_close(dice, torch.tensor([[4 / 4.0001, 2 / 5.0001], [0, 0]]))


def test_a_mask_outweighs_a_class_and_a_class_decides_between_equal_masks():
    square = torch.zeros(1, 8, 8)
    square[:, 2:6, 2:6] = 1.0
    target = Instances(torch.tensor([0]), square, torch.tensor([0]))
    good, bad = (square[0] * 2 - 1) * 8, (0.5 - square[0]) * 8
    found = hungarian_match(
        torch.tensor([[[3.0], [-1.0]]]), torch.stack([bad, good])[None], [target]
    )
    assert found[0][0].tolist() == [1]
    found = hungarian_match(
        torch.tensor([[[-1.0], [0.0]]]), torch.stack([good, good])[None], [target]
    )
    assert found[0][0].tolist() == [1]


def test_bool_masks_serve_as_targets():
    target = Instances(torch.tensor([2]), torch.rand(1, 4, 5) > 0.5, torch.tensor([7]))
    soft = target._replace(masks=target.masks.float())
    logits = torch.randn(1, 3, 3), torch.randn(1, 3, 4, 5)
    assert torch.equal(
        hungarian_match(*logits, [target])[0][0], hungarian_match(*logits, [soft])[0][0]
    )


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


@settings(max_examples=40)
@given(queries=st.integers(1, 4), count=st.integers(0, 4), factor=st.sampled_from([1, 2, 4, 8]),
       seed=st.integers(0, 2**31))  # fmt: skip
def test_matching_on_a_finer_grid_is_matching_of_the_enlarged_logits(queries, count, factor, seed):
    torch.manual_seed(seed)
    class_logits, mask_logits = torch.randn(queries, 3), torch.randn(queries, 3, 4) * 2
    target = instances(count, size=(3 * factor, 4 * factor))
    larger = F.interpolate(mask_logits[None], size=(3 * factor, 4 * factor), mode="bilinear")[0]
    ours = matching_scores(class_logits, mask_logits, target)
    assert ours.shape == (queries, count)
    for n, m in itertools.product(range(queries), range(count)):
        assert float(ours[n, m]) == pytest.approx(
            score_by_hand(class_logits, larger, target, n, m), rel=1e-4
        )
    ((rows, columns),) = hungarian_match(class_logits[None], mask_logits[None], [target])
    ((same_rows, same_columns),) = hungarian_match(class_logits[None], larger[None], [target])
    assert torch.equal(rows, same_rows) and torch.equal(columns, same_columns)


# -------------------------------------------------------------------------------- the targets' grid


def covered_shares(mask, stride):
    """Pixel by pixel: the share of every cell of `stride` pixels that lies in the mask; no pixel
    beyond the frame does."""
    height, width = mask.shape
    rows, columns = (-(-side // 8) * 8 // stride for side in (height, width))
    shares = np.zeros((rows, columns))
    for y, x in zip(*np.nonzero(mask)):
        shares[y // stride, x // stride] += mask[y, x] / stride**2
    return shares


@settings(max_examples=60)
@given(
    count=st.integers(0, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    stride=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 2**31),
    soft=st.booleans(),
)
def test_a_target_holds_the_covered_share_of_each_cell(count, height, width, stride, seed, soft):
    masks = torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed))
    masks = masks if soft else masks > 0.5
    shares = resize_masks(masks, stride)
    assert shares.shape == (count, -(-height // 8) * 8 // stride, -(-width // 8) * 8 // stride)
    assert shares.dtype == torch.float32
    for mask, found in zip(masks, shares):
        np.testing.assert_allclose(found, covered_shares(mask.numpy(), stride), atol=1e-5)
    # no pixel is lost and none is invented
    torch.testing.assert_close(
        shares.sum((1, 2)) * stride**2, masks.float().sum((1, 2)), atol=1e-2, rtol=1e-4
    )


def test_targets_are_at_one_half_unless_told_otherwise():
    masks = torch.rand(2, 20, 30) > 0.5
    assert TARGET_STRIDE == 2 and torch.equal(resize_masks(masks), resize_masks(masks, 2))
    assert torch.equal(
        resize_masks(masks, 1)[:, :20, :30], masks.float()
    )  # at full size nothing is rounded


@pytest.mark.parametrize("stride", [3, 0, -2, 16, 2.5])
def test_a_stride_that_does_not_divide_a_cell_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride is {stride}; .* 1, 2, 4 or 8"):
        resize_masks(torch.ones(1, 16, 16), stride)


@given(
    count=st.integers(0, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    factor=st.sampled_from([1, 2, 3, 4, 8]),
    targets=st.integers(0, 2),
    seed=st.integers(0, 2**31),
)
def test_enlarged_logits_are_torchs_interpolation(count, height, width, factor, targets, seed):
    logits = torch.randn(count, height, width, generator=torch.Generator().manual_seed(seed))
    grid = torch.zeros(targets, height * factor, width * factor)
    found = enlarge(logits, grid)
    assert found.shape == (count, height * factor, width * factor) and found.dtype == logits.dtype
    if count:
        expected = F.interpolate(
            logits[None], size=tuple(grid.shape[1:]), mode="bilinear", align_corners=False
        )[0]
        torch.testing.assert_close(found, expected)


def bilinear(logits, factor):
    """Cell by cell in Python: the centre of cell i lies at (i + 0.5) / factor - 0.5 on the grid of
    the logits."""
    height, width = logits.shape
    out = np.zeros((height * factor, width * factor))
    for i, j in np.ndindex(out.shape):
        y = min(max((i + 0.5) / factor - 0.5, 0), height - 1)
        x = min(max((j + 0.5) / factor - 0.5, 0), width - 1)
        top, left = int(y), int(x)
        down, right = min(top + 1, height - 1), min(left + 1, width - 1)
        a, b = y - top, x - left
        upper = (1 - b) * logits[top, left] + b * logits[top, right]
        lower = (1 - b) * logits[down, left] + b * logits[down, right]
        out[i, j] = (1 - a) * upper + a * lower
    return out


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_enlarged_logits_by_hand(factor):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4)
    for found, one in zip(
        enlarge(logits, torch.zeros(1, 3 * factor, 4 * factor)), logits.double().numpy()
    ):
        np.testing.assert_allclose(found, bilinear(one, factor), atol=1e-5)


@settings(max_examples=30)
@given(
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    stride=st.sampled_from([2, 4]),
    seed=st.integers(0, 2**31),
)
def test_training_sees_the_masks_that_a_viewer_sees(height, width, stride, seed):
    """The centre of a cell of `stride` pixels lies between four pixels: between the outermost
    centres of the logits' cells, where bilinear surfaces are linear from pixel to pixel, the value
    there is the mean of those four."""
    logits = torch.randn(1, height, width, generator=torch.Generator().manual_seed(seed))
    cells = enlarge(logits, torch.zeros(1, height * 8 // stride, width * 8 // stride))[0]
    pixels = upsample_masks(logits[None], (height * 8, width * 8))[0, 0]
    for i, j in itertools.product(range(cells.shape[0]), range(cells.shape[1])):
        y, x = (
            i * stride + stride // 2,
            j * stride + stride // 2,
        )  # the pixel below and to the right of the centre
        expected = pixels[y - 1 : y + 1, x - 1 : x + 1].mean()
        if all(4 <= v <= 8 * n - 4 for v, n in ((y, height), (x, width))):
            assert float(cells[i, j]) == pytest.approx(float(expected), abs=1e-4)
    # at full size it is the very same
    torch.testing.assert_close(enlarge(logits, torch.zeros(1, height * 8, width * 8))[0], pixels)


def test_no_logits_enlarged_are_still_part_of_the_computation():
    """A batch without any instance has losses of zero, whose gradient is zero, not none."""
    logits = torch.zeros(3, 2, 3, requires_grad=True)
    found = enlarge(logits[:0], torch.zeros(2, 8, 12))
    assert found.shape == (0, 8, 12)
    found.sum().backward()
    assert torch.equal(logits.grad, torch.zeros(3, 2, 3))


@pytest.mark.parametrize("grid", [(12, 16), (16, 12), (4, 4), (8, 9), (10, 10)])
def test_a_grid_that_is_no_multiple_of_the_logits_is_refused(grid):
    with pytest.raises(
        ValueError,
        match=rf"targets of \W*{grid[0]}\W+(x )?{grid[1]}\W+cells .*mask logits of \W*8\W+(x )?8",
    ):
        enlarge(torch.zeros(1, 8, 8), torch.zeros(1, *grid))


def test_scores_are_compared_in_full_precision_whatever_the_training_does(monkeypatch):
    """bf16 knows eight bits: of many queries that are nearly alike, the wrong one would win."""
    torch.manual_seed(0)
    class_logits, mask_logits = (
        torch.randn(1, 6, 3),
        torch.randn(1, 1, 8, 8) + 0.01 * torch.randn(1, 6, 8, 8),
    )
    target = Instances(torch.tensor([1, 2]), (torch.rand(2, 8, 8) > 0.5).float(), torch.arange(2))
    seen = []
    monkeypatch.setattr(
        matcher, "matching_scores", lambda *a: (seen.append(matching_scores(*a)), seen[-1])[1]
    )
    matcher.hungarian_match(class_logits, mask_logits, [target])
    with torch.autocast("cpu", torch.bfloat16):
        matcher.hungarian_match(class_logits, mask_logits, [target])
    assert torch.equal(*seen)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label):
    """-1 would be Python's last class, and teach it."""
    target = instances(2)._replace(labels=torch.tensor([0, label]))
    with pytest.raises(ValueError, match=rf"labels \[0, {label}\] are not all of the classes 0..2"):
        hungarian_match(torch.randn(1, 4, 3), torch.randn(1, 4, 4, 5), [target])


@pytest.mark.parametrize("value", [255.0, -1.0, math.nan])
def test_masks_that_are_no_shares_are_refused(value):
    """0 and 255 would make a dice of more than 1, and the larger instance would always win."""
    target = instances(2)
    target.masks[1, 2, 3] = value
    with pytest.raises(ValueError, match="masks hold .* their cells are in .0, 1."):
        hungarian_match(torch.randn(1, 4, 3), torch.randn(1, 4, 4, 5), [target])
