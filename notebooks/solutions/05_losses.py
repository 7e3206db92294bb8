"""Reference solutions of lesson 05, losses. Made by notebooks/build.py: do not edit."""

# %%
import copy
import itertools
import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
import minst
from minst import losses, matcher, visualize
from minst.course import lesson05 as check
from minst.evaluation.consistency import assign_queries, mask_ious
from minst.model import image_to_batch, upsample_masks

# %%
def greedy_trap(num_queries: int, num_instances: int) -> np.ndarray:
    """Scores (N, G) in [0, 1], N >= G >= 2: greedy gets less than 60 % of the sum that Hungarian matching gets."""
    scores = np.zeros((num_queries, num_instances))
    scores[:2, :2] = [[1.0, 0.9], [0.9, 0.0]]
    return scores

# %%
print(check.greedy_trap(greedy_trap))

# %%
def matching_scores(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """Eq. 5.2 of all pairs: logits (N, C) and (N, R) of the queries, labels (G,), masks (G, R) of the truth -> (N, G).

    Add 1e-4 to the denominator of dice: two empty masks would divide by 0.
    """
    x, p = mask_logits.sigmoid(), class_logits.sigmoid()[:, labels]
    sizes = x.square().sum(-1)[:, None] + masks.square().sum(-1)
    return (2 * x @ masks.T / (sizes + 1e-4)) ** 0.8 * p**0.2

# %%
print(check.matching_scores(matching_scores))

# %%
def target_counts(num_queries: int, num_instances: int, num_classes: int) -> tuple[int, int, int, int]:
    """(matched queries, left-over queries, class targets of 1, class targets of 0) of one image.

    There may be more instances than queries.
    """
    matched = min(num_queries, num_instances)
    return matched, num_queries - matched, matched, num_queries * num_classes - matched

# %%
print(check.target_counts(target_counts))

# %%
def focal_term(logits: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """The terms of Eq. 5.3 before the sum: logits (n,), targets (n,) of 0.0 or 1.0 -> (n,).

    Gradients must come back through it (no .item(), no NumPy): it is trained with below.
    """
    p = logits.sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    alpha_t = torch.where(targets == 1, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * p_t.log()

# %%
print(check.focal_term(focal_term))

# %%
def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One term of Eq. 5.4: mask logits (R,), soft target mask (R,) -> a single number that carries a gradient.

    Add 1e-4 to the denominator.
    """
    x = logits.sigmoid()
    return 1 - 2 * (x @ target) / (x @ x + target @ target + 1e-4)

# %%
print(check.dice_loss(dice_loss))
