"""Reference solutions of lesson 09, ablation lab. Made by notebooks/build.py: do not edit."""

# %%
import contextlib, io, tempfile, time
from pathlib import Path
import numpy as np
import minst
from IPython.display import Markdown
from minst import visualize
from minst.course import lesson09 as check
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.lab import Lab, measure, plots, report, statistics
from minst.training import TrainConfig, train

# %%
def verdict_of(difference: float, low: float, high: float, claim: int) -> str:
    """What a row says of a claim: "agrees", "disagrees", "cannot tell" or "no claim".

    difference: the setting minus what it is compared with, mean; low, high: its 95 % interval. claim: +1, it is said
    that the setting is worse; -1, better; 0, nothing is said.
    """
    if claim == 0:
        return "no claim"
    if low <= 0 <= high:
        return "cannot tell"
    return "agrees" if difference * claim < 0 else "disagrees"

# %%
print(check.verdict_of(verdict_of))

# %%
def paired_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The 95 % interval (low, high) of the difference ours - theirs, by the jackknife.

    ours, theirs (21,): AP with all clips, then without each of 20 groups of clips, the same groups for both.
    """
    d = ours - theirs
    pseudo = 20 * d[0] - 19 * d[1:]
    half = 2.093 * pseudo.std(ddof=1) / np.sqrt(20)
    return float(d[0] - half), float(d[0] + half)

# %%
print(check.paired_interval(paired_interval))

# %%
def hidden_by_noise(seeds: int) -> tuple[list[float], list[float]]:
    """AP (0..100) of the changed model and of the full model, `seeds` values each, seed by seed.

    The mean difference is at most 2 points, and differs between seeds (standard deviation 0.1 or more). The paired
    interval lies wholly below zero; the unpaired one holds zero.
    """
    full = [20 + 5.0 * s for s in range(seeds)]  # seeds differ a lot, for both models alike
    changed = [ap - 1 - 0.3 * (s % 2) for s, ap in enumerate(full)]
    return changed, full

# %%
print(check.hidden_by_noise(hidden_by_noise))

# %%
def seeds_for(differences: list[list[float]], effect: float) -> int:
    """Seeds needed to see `effect` points, from the paired differences of several rows (one list per row).

    Rows may have different numbers of seeds; a row with one seed says nothing of the spread. A whole number, rounded
    up; at least 2, since one seed has no spread at all.
    """
    squares = sum(np.var(row) * len(row) for row in differences)
    freedom = sum(len(row) - 1 for row in differences)
    return max(2, int(np.ceil((1.96 + 0.84) ** 2 * squares / freedom / effect**2)))

# %%
print(check.seeds_for(seeds_for))
