"""Losses: each against an independent implementation, gradients against finite differences, every empty case."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from minst.losses import (LOSS_WEIGHTS, dice_loss, focal_loss, mask_iou, mask_losses, objectness_loss, pixel_loss,
                          set_losses)
from minst.matcher import Instances, hungarian_match, resize_masks


def test_weights_are_the_papers():
    """2 L_cls + 2 L_mask + 1 L_obj, the mask loss being dice and pixels."""
    assert LOSS_WEIGHTS == {"cls": 2.0, "dice": 2.0, "pixel": 2.0, "obj": 1.0}


@settings(max_examples=30)
@given(queries=st.integers(1, 5), classes=st.integers(1, 4), count=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_focal_is_torchvisions(queries, classes, count, seed):
    torch.manual_seed(seed)
    logits, targets = torch.randn(2, queries, classes) * 4, (torch.rand(2, queries, classes) < 0.3).float()
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="sum") / count
    torch.testing.assert_close(focal_loss(logits, targets, count), expected)


def test_focal_by_hand():
    p = 0.8  # an easy positive is worth 1/4 of (1 - p)^2 of its cross-entropy, an easy negative 3/4 of p^2
    logit = torch.tensor([math.log(p / (1 - p))])
    assert focal_loss(logit, torch.ones(1), 1).item() == pytest.approx(-0.25 * (1 - p) ** 2 * math.log(p), rel=1e-5)
    assert focal_loss(logit, torch.zeros(1), 2).item() == pytest.approx(-0.75 * p**2 * math.log(1 - p) / 2, rel=1e-5)


@settings(max_examples=30)
@given(pairs=st.integers(0, 4), pixels=st.integers(1, 9), count=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_mask_losses_pixel_by_pixel(pairs, pixels, count, seed):
    torch.manual_seed(seed)
    logits, targets = torch.randn(pairs, pixels) * 3, torch.rand(pairs, pixels)
    dice = 0.0
    for x, y in zip(logits.double().sigmoid().tolist(), targets.double().tolist()):
        top = 2 * sum(a * b for a, b in zip(x, y))
        dice += 1 - top / (sum(a * a for a in x) + sum(b * b for b in y) + 1e-4)
    assert dice_loss(logits, targets, count).item() == pytest.approx(dice / count, rel=1e-4, abs=1e-5)
    expected = F.binary_cross_entropy(logits.sigmoid(), targets).item() if pairs else 0.0
    assert pixel_loss(logits, targets).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    both = mask_losses(logits.view(pairs, 1, pixels), targets.view(pairs, 1, pixels), count)
    assert both["dice"] == dice_loss(logits, targets, count) and both["pixel"] == pixel_loss(logits, targets, count)


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
    torch.testing.assert_close(objectness_loss(logits, iou), F.binary_cross_entropy(logits.sigmoid(), iou))
    assert objectness_loss(torch.zeros(0), torch.zeros(0)) == 0
    best = torch.tensor([0.3]).logit().requires_grad_()
    objectness_loss(best, torch.tensor([0.3])).backward()
    assert best.grad.abs() < 1e-6  # least where the probability is the IoU


@pytest.mark.parametrize("loss", [
    lambda x: focal_loss(x, (torch.arange(12).view(3, 4) % 3 == 0).double(), 2.0),
    lambda x: dice_loss(x, torch.linspace(0, 1, 12).double().view(3, 4), 2.0),
    lambda x: pixel_loss(x, torch.linspace(0, 1, 12).double().view(3, 4)),
    lambda x: objectness_loss(x[:, 0], torch.tensor([0.0, 0.4, 1.0]).double()),
], ids=["focal", "dice", "pixel", "objectness"])  # fmt: skip
def test_gradients_are_those_of_finite_differences(loss):
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(loss, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_saturated_logits_keep_finite_gradients(extreme):
    logits = torch.full((2, 6), extreme, requires_grad=True)
    targets = torch.tensor([[0.0, 1.0] * 3, [1.0] * 6])
    total = focal_loss(logits, targets, 1) + dice_loss(logits, targets, 1) + pixel_loss(logits, targets)
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(logits.grad).all()


# ------------------------------------------------------------------------------------------------ a whole batch


def batch(counts, queries=4, classes=3, size=(6, 7)):
    torch.manual_seed(sum(counts) + 1)
    logits = [torch.randn(len(counts), queries, classes), torch.randn(len(counts), queries),
              torch.randn(len(counts), queries, *size)]  # fmt: skip
    targets = [Instances(torch.randint(classes, (n,)), (torch.rand(n, 6 * 8, 7 * 8 - 3) > 0.5), torch.arange(n))
               for n in counts]  # fmt: skip
    return [x.requires_grad_() for x in logits], targets


@pytest.mark.parametrize("counts", [(2, 3), (0, 2), (2, 0, 1), (0,), (0, 0), (7,), (6, 0, 2)],
                         ids=lambda c: "-".join(map(str, c)))  # fmt: skip
def test_any_number_of_instances(counts):
    """Image by image in a loop, with no indexing of batches; empty, mixed, and more instances than queries."""
    (classes, objectness, masks), targets = batch(counts)
    found, matches = set_losses(classes, objectness, masks, targets)
    count = max(1, sum(counts))
    focal, dice, pixel, obj = 0.0, 0.0, [], []
    for i, target in enumerate(targets):
        soft = resize_masks(target.masks, (6, 7))
        ((rows, columns),) = hungarian_match(classes[i : i + 1], masks[i : i + 1], [target._replace(masks=soft)])
        assert torch.equal(rows, matches[i][0]) and torch.equal(columns, matches[i][1])
        assert len(rows) == min(counts[i], 4)
        wanted = torch.zeros(4, 3)
        for n, m in zip(rows.tolist(), columns.tolist()):
            wanted[n, target.labels[m]] = 1.0
            x, y = masks[i, n].sigmoid(), soft[m]
            dice += 1 - 2 * (x * y).sum() / ((x * x).sum() + (y * y).sum() + 1e-4)
            pixel.append(F.binary_cross_entropy(x, y))
            hit, truth = x >= 0.4, y > 0.5
            iou = (hit & truth).sum() / ((hit | truth).sum() + 1e-6)
            obj.append(F.binary_cross_entropy(objectness[i, n].sigmoid(), iou))
        focal += sigmoid_focal_loss(classes[i], wanted, alpha=0.25, gamma=2.0, reduction="sum")
    expected = {"cls": focal / count, "dice": dice / count, "pixel": sum(pixel) / count, "obj": sum(obj) / count}  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(found[name], torch.as_tensor(value), atol=1e-6, rtol=1e-4)
    sum(found.values()).backward()
    for logits in (classes, objectness, masks):
        assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert classes.grad.abs().sum() > 0 and bool(masks.grad.any()) is bool(sum(counts))


def test_the_number_of_instances_may_come_from_outside():
    (classes, objectness, masks), targets = batch((2, 1))
    ours, _ = set_losses(classes, objectness, masks, targets)
    shared, _ = set_losses(classes, objectness, masks, targets, num_instances=6.0)
    for name, value in ours.items():
        torch.testing.assert_close(shared[name], value / 2)


def test_unmatched_objectness_and_masks_are_left_alone():
    (classes, objectness, masks), targets = batch((2,))
    found, [(rows, _)] = set_losses(classes, objectness, masks, targets)
    (found["obj"] + found["dice"] + found["pixel"]).backward()
    idle = [n for n in range(4) if n not in rows.tolist()]
    assert not objectness.grad[0, idle].any() and not masks.grad[0, idle].any()
    assert objectness.grad[0, rows].all()
