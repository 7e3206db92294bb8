"""Losses: each against an independent implementation, gradients against finite differences, every
empty case."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from minst.data.transforms import resize_masks
from minst.losses import (
    LOSS_WEIGHTS,
    Pairs,
    count_instances,
    dice_loss,
    focal_loss,
    mask_iou,
    mask_losses,
    objectness_loss,
    pixel_loss,
    set_losses,
)
from minst.matcher import Instances


def test_weights_are_the_papers():
    """2 L_cls + 2 L_mask + 1 L_obj, the mask loss being dice and pixels."""
    assert LOSS_WEIGHTS == {"cls": 2.0, "dice": 2.0, "pixel": 2.0, "obj": 1.0}


@settings(max_examples=30)
@given(
    queries=st.integers(1, 5),
    classes=st.integers(1, 4),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_focal_is_torchvisions(queries, classes, count, seed):
    torch.manual_seed(seed)
    logits, targets = (
        torch.randn(2, queries, classes) * 4,
        (torch.rand(2, queries, classes) < 0.3).float(),
    )
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="sum") / count
    torch.testing.assert_close(focal_loss(logits, targets, count), expected)


def test_focal_by_hand():
    # an easy positive is worth 1/4 of (1 - p)^2 of its cross-entropy, an easy negative 3/4 of p^2
    p = 0.8
    logit = torch.tensor([math.log(p / (1 - p))])
    assert focal_loss(logit, torch.ones(1), 1).item() == pytest.approx(
        -0.25 * (1 - p) ** 2 * math.log(p), rel=1e-5
    )
    assert focal_loss(logit, torch.zeros(1), 2).item() == pytest.approx(
        -0.75 * p**2 * math.log(1 - p) / 2, rel=1e-5
    )


@settings(max_examples=30)
@given(
    pairs=st.integers(0, 4),
    pixels=st.integers(1, 9),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_mask_losses_pixel_by_pixel(pairs, pixels, count, seed):
    torch.manual_seed(seed)
    logits, targets = torch.randn(pairs, pixels) * 3, torch.rand(pairs, pixels)
    dice = 0.0
    for x, y in zip(logits.double().sigmoid().tolist(), targets.double().tolist()):
        top = 2 * sum(a * b for a, b in zip(x, y))
        dice += 1 - top / (sum(a * a for a in x) + sum(b * b for b in y) + 1e-4)
    assert dice_loss(logits, targets, count).item() == pytest.approx(
        dice / count, rel=1e-4, abs=1e-5
    )
    pixel = 0.0  # the mean over the pixels of a pair, summed over the pairs
    for x, y in zip(logits.double().sigmoid().tolist(), targets.double().tolist()):
        pixel -= sum(b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(x, y)) / pixels
    assert pixel_loss(logits, targets, count).item() == pytest.approx(
        pixel / count, rel=1e-4, abs=1e-6
    )


def test_dice_of_a_perfect_mask_is_nothing_and_of_a_missed_one_everything():
    target = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert dice_loss(40 * (target - 0.5), target, 1).item() == pytest.approx(0, abs=1e-4)
    assert dice_loss(40 * (0.5 - target), target, 1).item() == pytest.approx(1, abs=1e-4)


def test_iou_takes_predictions_from_0_4_and_targets_above_half():
    p = torch.tensor([[0.41, 0.39, 0.9, 0.1], [0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    target = torch.tensor([[0.51, 1.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    iou = mask_iou(p.logit().requires_grad_(), target)
    torch.testing.assert_close(iou, torch.tensor([1 / (3 + 1e-6), 4 / (4 + 1e-6), 0.0]))
    assert not iou.requires_grad


def test_objectness_learns_the_iou():
    logits, iou = torch.randn(5), torch.rand(5)
    expected = F.binary_cross_entropy(logits.sigmoid(), iou, reduction="sum") / 7
    torch.testing.assert_close(objectness_loss(logits, iou, 7), expected)
    assert objectness_loss(torch.zeros(0), torch.zeros(0), 1) == 0
    best = torch.tensor([0.3]).logit().requires_grad_()
    objectness_loss(best, torch.tensor([0.3]), 1).backward()
    assert best.grad.abs() < 1e-6  # least where the probability is the IoU


@pytest.mark.parametrize("loss", [
    lambda x: focal_loss(x, (torch.arange(12).view(3, 4) % 3 == 0).double(), 2.0),
    lambda x: dice_loss(x, torch.linspace(0, 1, 12).double().view(3, 4), 2.0),
    lambda x: pixel_loss(x, torch.linspace(0, 1, 12).double().view(3, 4), 2.0),
    lambda x: objectness_loss(x[:, 0], torch.tensor([0.0, 0.4, 1.0]).double(), 2.0),
], ids=["focal", "dice", "pixel", "objectness"])  # fmt: skip
def test_gradients_are_those_of_finite_differences(loss):
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(
        loss, torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_saturated_logits_keep_finite_gradients(extreme):
    logits = torch.full((2, 6), extreme, requires_grad=True)
    targets = torch.tensor([[0.0, 1.0] * 3, [1.0] * 6])
    total = (
        focal_loss(logits, targets, 1)
        + dice_loss(logits, targets, 1)
        + pixel_loss(logits, targets, 1)
    )
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(logits.grad).all()


# ------------------------------------------------------------------------------------ matched pairs


COUNTS = [(2, 3), (0, 2), (2, 0, 1), (0,), (0, 0), (7,), (6, 0, 2)]
any_counts = pytest.mark.parametrize("counts", COUNTS, ids=lambda c: "-".join(map(str, c)))


def batch(counts, queries=4, classes=3, size=(2, 3), stride=2, seed=None):
    """Logits with gradients, masks at full size, and the instances of every image."""
    torch.manual_seed(sum(counts) + 1 if seed is None else seed)
    logits = [torch.randn(len(counts), queries, classes), torch.randn(len(counts), queries),
              torch.randn(len(counts), queries, *size) * 2]  # fmt: skip
    pixels = [torch.rand(n, size[0] * 8, size[1] * 8 - 3) > 0.5 for n in counts]
    labels = [torch.randint(classes, (n,)) for n in counts]
    targets = [
        Instances(l, resize_masks(m, stride), torch.arange(len(l))) for l, m in zip(labels, pixels)
    ]
    return [x.requires_grad_() for x in logits], pixels, targets


def some_matches(counts, queries):
    """Matches as the matcher gives them: distinct queries, distinct instances, as many as the fewer
    of both."""
    found = []
    for count in counts:
        pairs = min(count, queries)
        found.append((torch.randperm(queries)[:pairs], torch.randperm(count)[:pairs]))
    return found


@any_counts
def test_pairs_are_the_matches_of_all_images_behind_one_another(counts):
    (_, _, mask_logits), _, targets = batch(counts)
    matches = some_matches(counts, 4)
    pairs = Pairs.of(matches, targets)
    rows = [
        (image, query, int(targets[image].labels[m]), targets[image].masks[m])
        for image, (queries, found) in enumerate(matches)
        for query, m in zip(queries.tolist(), found.tolist())
    ]
    assert pairs.image.tolist() == [row[0] for row in rows] and pairs.query.tolist() == [
        row[1] for row in rows
    ]
    assert pairs.labels.tolist() == [row[2] for row in rows] and len(pairs.masks) == len(rows)
    assert all(x.dtype == torch.long for x in pairs[:3]) and pairs.masks.dtype == torch.float32
    assert pairs.masks.shape[1:] == (8, 12)  # also without any pair
    logits = pairs.logits(mask_logits)
    assert logits.shape == (len(rows), 8, 12)
    for (image, query, _, mask), found, enlarged in zip(rows, pairs.masks, logits):
        assert torch.equal(found, mask)
        expected = F.interpolate(
            mask_logits[image, query][None, None], scale_factor=4, mode="bilinear"
        )[0, 0]
        torch.testing.assert_close(enlarged, expected)


@any_counts
def test_mask_losses_are_those_of_each_pair(counts):
    (_, _, mask_logits), _, targets = batch(counts)
    matches, found = some_matches(counts, 4), {"dice": 0.0, "pixel": 0.0}
    for i, (queries, instances) in enumerate(matches):
        for query, m in zip(queries.tolist(), instances.tolist()):
            x = F.interpolate(
                mask_logits[i, query][None, None], scale_factor=4, mode="bilinear"
            ).flatten(1)
            y = targets[i].masks[m].flatten()[None]
            found["dice"] += dice_loss(x, y, 5.0)
            found["pixel"] += pixel_loss(x, y, 5.0)
    losses = mask_losses(mask_logits, Pairs.of(matches, targets), 5.0)
    assert losses.keys() == found.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, torch.as_tensor(found[name]), atol=1e-5, rtol=1e-5)
    sum(losses.values()).backward()
    assert torch.isfinite(mask_logits.grad).all() and bool(mask_logits.grad.any()) is bool(
        sum(counts)
    )


def test_bool_masks_make_pairs_too():
    (_, _, mask_logits), _, (target,) = batch((2,), stride=1)
    whole = target._replace(masks=target.masks.bool())
    matches = some_matches((2,), 4)
    torch.testing.assert_close(
        mask_losses(mask_logits, Pairs.of(matches, [whole]), 2.0),
        mask_losses(mask_logits, Pairs.of(matches, [target]), 2.0),
    )


# ------------------------------------------------------------------------------------ a whole batch


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def covered(mask, stride, cells):
    """The share of each cell of `stride` pixels that lies in a mask of pixels (H, W)."""
    padded = np.zeros((cells[0] * stride, cells[1] * stride))
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.reshape(cells[0], stride, cells[1], stride).mean((1, 3))


def enlarged(logits, factor):
    """Bilinear interpolation as two products of matrices, one a direction."""

    def weights(cells):
        out = np.zeros((cells * factor, cells))
        for i in range(cells * factor):
            place = min(max((i + 0.5) / factor - 0.5, 0), cells - 1)
            left = min(int(place), cells - 2) if cells > 1 else 0
            out[i, left] = 1 - (place - left)
            if cells > 1:
                out[i, left + 1] = place - left
        return out

    return weights(logits.shape[0]) @ logits @ weights(logits.shape[1]).T


def best_pairs(score):
    """All one-to-one assignments of queries (rows) to instances (columns); that of the largest
    sum."""
    queries, count = score.shape
    if count <= queries:
        every = (list(zip(p, range(count))) for p in itertools.permutations(range(queries), count))
    else:
        every = (
            list(zip(range(queries), p)) for p in itertools.permutations(range(count), queries)
        )
    return max(every, key=lambda pairs: sum(score[n, m] for n, m in pairs))


def losses_by_hand(logits, pixels, labels, stride):
    """All four losses of a batch in NumPy, from masks of pixels: nothing of minst takes part."""
    class_logits, objectness, mask_logits = (x.detach().double().numpy() for x in logits)
    factor, sums, pairs_of_all = (
        8 // stride,
        dict.fromkeys(("cls", "dice", "pixel", "obj"), 0.0),
        [],
    )
    for i, (masks, label) in enumerate(zip(pixels, labels)):
        x = np.array([sigmoid(enlarged(m, factor)) for m in mask_logits[i]])  # (N, H', W')
        cells = x.shape[1:]
        y = np.array([covered(m, stride, cells) for m in masks.numpy()]).reshape(-1, *cells)
        p = sigmoid(class_logits[i])
        dice = np.array(
            [[2 * (a * b).sum() / ((a * a).sum() + (b * b).sum() + 1e-4) for b in y] for a in x]
        )
        dice = dice.reshape(len(x), len(y))
        pairs = best_pairs(dice**0.8 * p[:, label.numpy()] ** 0.2)
        pairs_of_all.append(sorted(pairs))
        wanted = np.zeros_like(p)
        for n, m in pairs:
            wanted[n, label[m]] = 1.0
            sums["dice"] += 1 - dice[n, m]
            sums["pixel"] -= (y[m] * np.log(x[n]) + (1 - y[m]) * np.log(1 - x[n])).mean()
            drawn, true = x[n] >= 0.4, y[m] > 0.5
            iou = (drawn & true).sum() / ((drawn | true).sum() + 1e-6)
            said = sigmoid(objectness[i, n])
            sums["obj"] -= iou * np.log(said) + (1 - iou) * np.log(1 - said)
        right = np.where(wanted == 1, p, 1 - p)
        sums["cls"] -= (np.where(wanted == 1, 0.25, 0.75) * (1 - right) ** 2 * np.log(right)).sum()
    count = max(1, sum(len(label) for label in labels))
    return {name: value / count for name, value in sums.items()}, pairs_of_all


@any_counts
@pytest.mark.parametrize("stride", [1, 2, 8])
def test_any_number_of_instances(counts, stride):
    """Empty images, mixed batches, more instances than queries, on three grids of targets."""
    logits, pixels, targets = batch(counts, stride=stride)
    expected, pairs = losses_by_hand(logits, pixels, [target.labels for target in targets], stride)
    found, matches = set_losses(*logits, targets)
    assert [sorted(zip(q.tolist(), m.tolist())) for q, m in matches] == pairs
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name
    sum(found.values()).backward()
    for x in logits:
        assert x.grad is not None and torch.isfinite(x.grad).all()
    assert logits[0].grad.abs().sum() > 0 and bool(logits[2].grad.any()) is bool(sum(counts))


@any_counts
def test_a_batch_is_the_sum_of_its_images(counts):
    """Whatever is in the other images, an image adds its own losses, divided by the instances of
    all."""
    logits, _, targets = batch(counts)
    together, matches = set_losses(*logits, targets)
    assert count_instances(targets) == max(1, sum(counts))
    sums = dict.fromkeys(together, 0.0)
    for i in range(len(counts)):
        alone, [match] = set_losses(
            *(x[i : i + 1] for x in logits), targets[i : i + 1], num_instances=1.0
        )
        assert all(torch.equal(a, b) for a, b in zip(match, matches[i], strict=True))
        for name, value in alone.items():
            sums[name] += value / max(1, sum(counts))
    for name, value in together.items():
        torch.testing.assert_close(value, torch.as_tensor(sums[name]), atol=1e-6, rtol=1e-5)


@settings(max_examples=30)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=3), seed=st.integers(0, 2**31))
def test_neither_queries_nor_instances_nor_images_have_an_order(counts, seed):
    logits, _, targets = batch(counts, seed=seed)
    before, matches = set_losses(*logits, targets)
    images, queries = torch.randperm(len(counts)).tolist(), torch.randperm(4)
    orders = [torch.randperm(count) for count in counts]
    shuffled = [Instances(*(x[order] for x in target)) for target, order in zip(targets, orders)]
    moved = [x[images][:, queries] for x in logits]
    after, moved_matches = set_losses(*moved, [shuffled[i] for i in images])
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)
    for place, image in enumerate(images):
        rows, columns = moved_matches[place]
        same = zip(queries[rows].tolist(), orders[image][columns].tolist())
        assert set(same) == set(zip(*(x.tolist() for x in matches[image])))


@any_counts
def test_matches_may_come_from_outside(counts):
    """As of two frames that were matched together: nothing is matched then, and the losses are of
    those pairs."""
    logits, _, targets = batch(counts)
    matches = some_matches(counts, 4)
    found, same = set_losses(*logits, targets, num_instances=3.0, matches=matches)
    assert same is matches
    expected = mask_losses(logits[2], Pairs.of(matches, targets), 3.0)
    wanted = torch.zeros_like(logits[0])
    for i, (queries, instances) in enumerate(matches):
        for query, m in zip(queries.tolist(), instances.tolist()):
            wanted[i, query, targets[i].labels[m]] = 1.0
    expected["cls"] = (
        sigmoid_focal_loss(logits[0], wanted, alpha=0.25, gamma=2.0, reduction="sum") / 3
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    ours, found_matches = set_losses(*logits, targets)
    again, _ = set_losses(*logits, targets, matches=found_matches)
    assert all(torch.equal(again[name], value) for name, value in ours.items())


def test_the_number_of_instances_may_come_from_outside():
    logits, _, targets = batch((2, 1))
    ours, _ = set_losses(*logits, targets)
    shared, _ = set_losses(*logits, targets, num_instances=6.0)
    for name, value in ours.items():
        torch.testing.assert_close(shared[name], value / 2)


def test_unmatched_objectness_and_masks_are_left_alone():
    (classes, objectness, masks), _, targets = batch((2,))
    found, [(rows, _)] = set_losses(classes, objectness, masks, targets)
    (found["obj"] + found["dice"] + found["pixel"]).backward()
    idle = [n for n in range(4) if n not in rows.tolist()]
    assert not objectness.grad[0, idle].any() and not masks.grad[0, idle].any()
    assert objectness.grad[0, rows].all()


def test_half_precision_logits_are_judged_in_full_precision():
    """What autocast hands over: sums over thousands of cells would lose all but two digits."""
    logits, _, targets = batch((2, 1))
    half = [x.detach().bfloat16() for x in logits]
    found, _ = set_losses(*half, targets)
    expected, _ = set_losses(*(x.float() for x in half), targets)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], value), name


def test_targets_that_are_none_are_refused_where_the_match_is_given():
    """As in query passing, where nothing is matched anew."""
    target = Instances(torch.tensor([1]), torch.rand(1, 8, 12), torch.tensor([0]))
    match = [(torch.tensor([2]), torch.tensor([0]))]
    with pytest.raises(ValueError, match="masks hold 0 .. 255"):
        Pairs.of(match, [target._replace(masks=(target.masks > 0.5) * 255)])
    with pytest.raises(ValueError, match=r"labels \[-1\]"):
        Pairs.of(match, [target._replace(labels=torch.tensor([-1]))])
