# %% [markdown]
# # 09 · The ablation lab
#
# **Which parts of MobileInst matter, and how sure can we be?**

# %% [markdown]
# ## You will be able to …
#
# - read a verdict off an interval and a claim (exercise 1)
# - compute the interval of two settings on the same clips (exercise 2)
# - build results that only a paired comparison can tell apart (exercise 3)
# - say how many seeds it takes to see one point of AP (exercise 4)
# - train rows of your own in a minute, and read the outcome honestly
#
# You need lesson 01 (AP) and lesson 05 (losses). Lesson 07 helps with associations.
#
# Each exercise stands where its idea is built, and the next picture is drawn by *your* function (by ours until it is correct).
#
# ## The map

# %% tags=["setup"]
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
visualize.plot_pipeline(size=(128, 160))

# %% [markdown]
# **What it shows.** This is the whole network. No block is lit today, because nearly every box and arrow is changed or removed once.
#
# | symbol | shape | meaning |
# |---|---|---|
# | setting | a name | one way to train or to run the model |
# | figure | a number | image AP or video AP in points; in code (21,), with all clips and without each of 20 groups |
# | difference | a number | the figure of a setting minus that of another, in points |
# | row | a line of a table | one change, and the difference that it makes |
# | seed | a number | where all random numbers of a training start |
#
# ## See the problem
#
# We believe in a component when switching it off hurts. An **ablation** changes one thing, and keeps all else.
#
# > **Ablations** (paper, paraphrased)
# >
# > | claim | without it, says the paper | where we ask |
# > |---|---|---|
# > | a short reuse interval T keeps accuracy | worse, the longer T is (Tab 7) | step 1 |
# > | global then local beats one decoder, and local twice | worse | step 5, three rows of decoders |
# > | max pooling of X_L beats average pooling | 0.4 AP worse | step 5, average pooling |
# > | semantic enhancers help | worse | step 5, no semantic enhancers |
# > | training by query passing helps | 0.8 to 1.3 AP worse | step 5, pairs or images without it |
# > | a mobile transformer beats a plain CNN | worse | step 5, MobileNetV2 |
#
# Most of these effects are small, about 1 AP. Two trainings of *one* model with different seeds may lie further apart. So we begin
# with changes that need no training.
#
# ## Predict
#
# The shipped model tracks the same clips in several ways. By *cosine*, kernels that look alike go on together, if both score high (lesson
# 07). By *none*, each query simply goes on with itself. Write down, before you scroll, which costs most:
#
# - no association at all (*none*),
# - to look at every sixth frame only (T = 6),
# - to let the transformer rest between key frames (*X6 frozen*),
# - a scene cut of which the tracker is not told.
#
# ## Step 1: a row that decides
#
# Twenty clips are drawn that the model has never seen, and each is tracked in three ways.

# %%
room = tempfile.TemporaryDirectory()
folder = Path(room.name)
quiet = contextlib.redirect_stderr(io.StringIO())  # bars of progress
with quiet:
    write_shapes_dataset(folder / "clips", 20, ShapesConfig(frames=12, min_instances=2, max_instances=4), 909, "val")
clips = minst.data.YouTubeVIS(folder / "clips")
model = minst.MobileInst.from_pretrained("shapes-tiny").fuse()
three = ["cosine 1", "none 1", "cosine 6"]  # a rule and T
measured = {name: 100 * figure for name, figure in measure.track_all(model, clips, three).items()}
for name, figure in measured.items():
    print(f"{name:9} video AP {figure[0]:.1f}; without the first groups {figure[1:5].round(1)}")

# %% [markdown]
# Is the difference real, or were these twenty clips lucky? The lab asked the same of 100 clips. Each dot below is a difference in video AP,
# and *none for cosine* says that *none* takes the place of *cosine*. Each line is the **95 % interval** of its dot. Such intervals hold the
# true difference in 95 of 100 cases.
#
# The names are those of lesson 07, and T stands behind them. *cosine* is times both scores, as we read the paper (`Assumption:`).
# *cosine-all* is without scores, and *cosine-live* takes kernels with a score of at least 0.3 first. *mask* compares masks in the place of
# kernels. Of the *oracle* the truth says who goes on. *X6 frozen* is compared with the same T. `Deviation:` all rules but cosine are ours.

# %%
lab = Lab(minst.samples.results_folder("lab"))
plots.plot_shipped(lab, "shapes-tiny, medium")

# %% [markdown]
# **What it shows.** Without association 19 points are lost, and the interval is far from zero. **This row decides.** T = 6 costs 5 points.
# The oracle gains as many, so this is about what association could still win. A row is *equal* if its whole line lies in the grey band of
# ±1 point, as X6 frozen at T = 3 does.
#
# The five grey rows are *open*. That does not say "no effect". Two of them hold zero, so that a loss, a gain and no change all fit what was seen.
# The other three miss it, and after exercise 1 you will see why that is not enough. And the scene cut?

# %%
table = [line for line in report.shipped_table(lab).splitlines() if line.startswith("| ")]
Markdown("\n".join(table[:2] + [line for line in table if ", cut " in line]))

# %% [markdown]
# Who is not told of a cut loses 63 points, since the creatures of the old scene live on in those of the new one.
#
# ### Exercise 1 (recall): does the claim hold?


# %% tags=["exercise"]
def verdict_of(difference: float, low: float, high: float, claim: int) -> str:
    """What a row says of a claim: "agrees", "disagrees", "cannot tell" or "no claim".

    difference: the setting minus what it is compared with, mean; low, high: its 95 % interval. claim: +1, it is said
    that the setting is worse; -1, better; 0, nothing is said.
    """
    # solution
    if claim == 0:
        return "no claim"
    if low <= 0 <= high:
        return "cannot tell"
    return "agrees" if difference * claim < 0 else "disagrees"


# %%
check.verdict_of(verdict_of)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Worse is a difference below zero. First ask whether zero is inside. Only then ask on which side the whole interval lies.
#
# </details>
#
# Tab 7 says that a longer T costs accuracy. Your function judges this at three speeds of motion.

# %%
verdict_of = check.verdict_of(verdict_of).or_ours
head = "| weights, clips | what | difference | the claim of Tab 7 |\n|---|---|---|---|\n"
lines = [
    f"| {of} | {says} | {found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f}) | "
    f"{verdict_of(*found[:3], claim=1)} |"
    for of, says, _, found in lab.compared if says.startswith("T =") and "cut" not in of
]
Markdown(head + "\n".join(lines))

# %% [markdown]
# Read one by one, the intervals agree with Tab 7 at T = 12, and at T = 6 unless things move slowly. Else we cannot tell.
#
# Even if no change had any effect, one interval in twenty would miss zero, so that 45 rows make two false alarms. For each row **p** says how
# often chance alone would give so large a difference. A row alone is decided below 0.05, just
# where its interval misses zero. **Holm's correction** multiplies the smallest p by 45, the next one by 44, and so on. So a row may
# agree with a claim and still be open.
#
# ## Step 2: where does an interval come from?
#
# Other clips would have given another AP. AP is no mean over clips, because it ranks the predictions of all clips together. But we can leave
# clips out, and rank anew. The **jackknife** cuts the clips into G = 20 groups and leaves each out
# once. Let d be the difference of two settings with all clips, and $d_{-g}$ without group g. What did group g alone say? Its
# **pseudo-value** is
#
# $$v_g = G\,d - (G - 1)\,d_{-g}$$
#
# Were AP a mean, $v_g$ would be the difference within group g. The twenty values are as good as independent, so that the interval is that of a mean.
# With s for their standard deviation,
#
# $$d \pm 2.093\,\frac{s(v)}{\sqrt{G}}$$
#
# The 2.093 leaves 2.5 % at each end of a t distribution with 19 degrees of freedom.
#
# ### Exercise 2 (code): the interval of a pair


# %% tags=["exercise"]
def paired_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The 95 % interval (low, high) of the difference ours - theirs, by the jackknife.

    ours, theirs (21,): AP with all clips, then without each of 20 groups of clips, the same groups for both.
    """
    # solution
    d = ours - theirs
    pseudo = 20 * d[0] - 19 * d[1:]
    half = 2.093 * pseudo.std(ddof=1) / np.sqrt(20)
    return float(d[0] - half), float(d[0] + half)


# %%
check.paired_interval(paired_interval)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Subtract first: `d = ours - theirs` has 21 values too. `d[0]` is the difference with all clips, `d[1:]` are the twenty others. `std`
# wants `ddof=1`.
#
# </details>
#
# Your function judges the clips of step 1.

# %%
paired_interval = check.paired_interval(paired_interval).or_ours
for name in ("none 1", "cosine 6"):
    low, high = paired_interval(measured[name], measured["cosine 1"])
    said = verdict_of((low + high) / 2, low, high, claim=1)
    print(f"{name:9} less cosine 1: {low:+.1f} to {high:+.1f} points. The claim that it is worse: {said}")

# %% [markdown]
# A clip that is hard for one setting is hard for the other. The difference does not see it, because *both settings have the same clips*.
# Somebody who compares the tables of two papers knows two figures only. Each has an error $s(v)/\sqrt{G}$ of its own, and the square of the
# difference's error is the sum of both squares. What is pairing worth?

# %%
pairs = {says: both for of, says, both, _ in lab.compared if of == "shapes-tiny, medium"}
paired = {says: paired_interval(*pair) for says, pair in pairs.items()}
apart = {says: check.unpaired_interval(*pair) for says, pair in pairs.items()}
check.plot_intervals(paired, apart)

# %% [markdown]
# **What it shows.** Pairing makes every interval narrower. It needs the same clips for both, and what both score without each group. Now choose any
# two settings yourself.

# %%
medium = lab.shipped["shapes-tiny", "medium"]
names = list(medium)


def draw_pair(setting: str, compared_with: str):
    """Two settings on the same 100 clips."""
    both = medium[setting], medium[compared_with]
    ends = {"pairs": paired_interval(*both), "two tables": check.unpaired_interval(*both)}
    lines = [check.row_of(how, *each) for how, each in ends.items()]
    return plots.plot_forest(lines, f"{setting} less {compared_with}.", "points of video AP", left=1.2)


visualize.interact(draw_pair, setting=names, compared_with=names)

# %%
draw_pair("mask 3", "cosine 3")

# %% [markdown]
# **What it shows.** With pairs, masks associate better than kernels; two tables would leave it open. This row stands alone here. Among all 45
# it is open again, as step 1 shows. So decide beforehand how many rows you look at.
#
# ## Step 3: train rows of your own
#
# Rows that **start from the same trained weights** share nearly all of their luck, and need few steps. Our masks learn at 1/2 of the
# frame (`Assumption:` of lesson 05), and not at the 1/8 of the mask logits. Losses of Q_G keep the global stage alive (lesson 04). Take
# one of them away. Predict: will 30 steps show what it costs?

# %%
with quiet:
    write_shapes_dataset(folder / "frames", 100, ShapesConfig(160, 128), 910, "val", images=True)
frames = minst.data.COCO(folder / "frames")


def fine_tuned(seed: int = 10, **changes) -> np.ndarray:
    """Image AP (21,) after 30 steps from weights that have learned from images, with changes of the training."""
    start, out = time.monotonic(), tempfile.mkdtemp(dir=folder)
    usual = dict(
        out=out, init="shapes-tiny-images", seed=seed, iterations=30, pairs=4, height=128, width=160, train_on="images",
        lr=5e-4, warmup=10, cosine_share=1.0, workers=0, log_every=20,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        weights = train(TrainConfig(**usual | changes))
    found = measure.of_frames(minst.MobileInst.from_pretrained(weights).fuse(), frames)["image AP"]
    print(f"seed {seed}, {changes or 'as it was'}: image AP {100 * found[0]:.1f}, {time.monotonic() - start:.0f} s")
    return 100 * found


base = fine_tuned()
rows = {"masks learn at 1/8": fine_tuned(target_stride=8), "no losses of Q_G": fine_tuned(global_weight=0.0)}

# %%
lines = [check.row_of(says, *paired_interval(row, base)) for says, row in rows.items()]
plots.plot_forest(lines, "Intervals over 100 frames.", "points of image AP more than the training as it was", left=1.8)

# %% [markdown]
# **What it shows.** Thirty steps with coarse targets cost some 3 points. Without the losses of Q_G the row counts as equal; perhaps since the
# global stage was alive before. Both rows say what a *change* does to a model that has learned otherwise. Neither says what the same training
# would do from the beginning.
#
# Is the first row true of such *changes*, or of this training alone? The interval holds the luck of the frames, and not that of the seed, which
# decides which images are drawn and how they are cropped. Write down what a second seed would change, and run it.

# %%
again = [fine_tuned(seed=11), fine_tuned(seed=11, target_stride=8)]  # your turn: another change, or another seed
both = {"seed 10": paired_interval(rows["masks learn at 1/8"], base), "seed 11": paired_interval(again[1], again[0])}
lines = [check.row_of(says, *ends) for says, ends in both.items()]
plots.plot_forest(lines, "Masks learn at 1/8.", "points of image AP more than the training as it was", left=0.8)

# %% [markdown]
# **What it shows.** The verdict stays. The difference moves, although the 100 frames are the same, so that training made this. So a claim
# about trainings wants several seeds.
#
# ## Step 4: what can only pairs tell?
#
# Two trainings of one seed see the same images in the same order. If that makes both lucky or both unlucky, pairs of seeds remove it, as
# pairs of clips did. Whether it does must be measured. Let a and b be the figures of the changed and of the full model, with a value per
# seed, $\bar d$ the mean of a − b, n the number of seeds, and s a standard deviation:
#
# $$\text{paired: } \bar d \pm 1.96\,\frac{s(a - b)}{\sqrt n} \qquad
# \text{unpaired: } \bar d \pm 1.96\,\sqrt{\frac{s(a)^2 + s(b)^2}{n}}$$
#
# The 1.96 is for a known spread. Few seeds need more: t is 3.18 for four.
#
# ### Exercise 3 (break it): hidden by noise
#
# Build results in which the change surely hurts when seeds are paired, while somebody who compares two tables *cannot tell*.


# %% tags=["exercise"]
def hidden_by_noise(seeds: int) -> tuple[list[float], list[float]]:
    """AP (0..100) of the changed model and of the full model, `seeds` values each, seed by seed.

    The mean difference is at most 2 points, and differs between seeds (standard deviation 0.1 or more). The paired
    interval lies wholly below zero; the unpaired one holds zero.
    """
    # solution
    full = [20 + 5.0 * s for s in range(seeds)]  # seeds differ a lot, for both models alike
    changed = [ap - 1 - 0.3 * (s % 2) for s, ap in enumerate(full)]
    return changed, full


# %%
check.hidden_by_noise(hidden_by_noise)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Let seeds be lucky and unlucky by many points, both models alike.
#
# </details>

# %%
hidden_by_noise = check.hidden_by_noise(hidden_by_noise).or_ours
check.plot_pairs(*hidden_by_noise(8))

# %% [markdown]
# **What it shows.** These are your eight seeds. The lines fall on average, but the two columns overlap, so that two tables hide the fall.
# Step 5 asks whether this is the usual case.
#
# ## Step 5: how many seeds would it take?
#
# We *see* an effect when the paired interval misses zero. To see a true one four times out of five takes
#
# $$n = (1.96 + 0.84)^2\,\frac{\sigma^2}{\text{effect}^2}$$
#
# seeds. Here σ² is the variance of paired differences, and 80 % of a normal distribution lie below 0.84. Three seeds say little about σ.
# `Assumption:` all rows have one spread, so that it is pooled. Let $d_{ri}$ be the difference of row r with seed i, and $n_r$ the number of
# its seeds:
#
# $$\sigma^2 = \frac{\sum_r \sum_i (d_{ri} - \bar d_r)^2}{\sum_r (n_r - 1)}$$
#
# ### Exercise 4 (extend): seeds for an effect


# %% tags=["exercise"]
def seeds_for(differences: list[list[float]], effect: float) -> int:
    """Seeds needed to see `effect` points, from the paired differences of several rows (one list per row).

    Rows may have different numbers of seeds; a row with one seed says nothing of the spread. A whole number, rounded
    up; at least 2, since one seed has no spread at all.
    """
    # solution
    squares = sum(np.var(row) * len(row) for row in differences)
    freedom = sum(len(row) - 1 for row in differences)
    return max(2, int(np.ceil((1.96 + 0.84) ** 2 * squares / freedom / effect**2)))


# %%
check.seeds_for(seeds_for)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.var(row) * len(row)` is the sum of squared deviations from the row's own mean. Take the larger of 2 and what the formula
# says, rounded up.
#
# </details>

# %%
seeds_for = check.seeds_for(seeds_for).or_ours
EFFECTS = [0.4, 0.8, 1, 1.3, 2, 4]  # 0.4, 0.8 and 1.3 are the paper's
spread = {}
for says, base in {"from a backbone": "full", "from shared weights": "passing=shared"}.items():
    rows = lab.family(base, "video AP").rows
    spread[says] = [[*each.values()] for each in rows.values()]
    tables = [[*lab.values(name, "video AP").values()] for name in rows]
    alone = [[*lab.values(base, "video AP").values()]]
    apart = np.hypot(statistics.pooled_sd(tables), statistics.pooled_sd(alone))
    pairs_sd = statistics.pooled_sd(spread[says])
    print(f"{says}: paired differences spread by {pairs_sd:.2f} points, two tables by {apart:.2f}")
needed = {says: [seeds_for(rows, effect) for effect in EFFECTS] for says, rows in spread.items()}
needed["seeds we ran"] = [len(lab.rows["full"])] * len(EFFECTS)
check.plot_lines(
    {"seeds needed": needed}, EFFECTS, xscale="log", yscale="log",
    head=f"To see 0.4 points of video AP takes {needed['from a backbone'][0]} seeds", xlabel="effect, points of AP",
    note="To see a true effect four times out of five, with 400 clips for each seed. Both axes are logarithmic.",
)

# %% [markdown]
# **What it shows.** The claims of the paper lie at the left, where the upper curve is far above our three seeds. Half the effect takes four
# times the seeds. Rows from shared weights need far fewer, since there pairs leave a quarter of the spread. From a backbone pairs gain little.
# What did three seeds say? Ticks are seeds.

# %%
plots.plot_differences(lab)

# %% [markdown]
# **What it shows.** Six rows are decided. Masks learned at 1/8 lose again, 1.8 points. *Kept*, *fresh* and no query passing (lesson 06)
# equal the paper's. Single images beat pairs by 1.6 points of video AP, against the paper, but they show twice as many clips per step. And
# MobileNetV2 beats the full model. The parts of the decoder stay open.
#
# In a first training MobileNetV2 **lost** 15.5 points, as the paper says, and the interval was as narrow. We measure a moving average of the
# weights, and a sixth of it was still the start ([history](../results/lab/HISTORY.md)). So `minst train` was mended, and every row trained
# anew. No interval knows a mistake that all seeds share. Look for one where a row is larger than you would believe.
#
# ## Paper against ours
#
# From the lab's report:

# %%
Markdown("\n\n".join((report.claims_table(lab), report.seeds_table(lab))).replace("## ", "### "))

# %% [markdown]
# *Agrees* means the same sign at this scale, not the same size.
#
# - `Assumption:` the paper trains on COCO and YouTube-VIS from ImageNet weights. The grid took generated clips, 900 steps, and 350
#   more for rows from shared weights; backbones learned to classify for 1,500.
# - `Deviation:` X_G and X_L have 16 tokens there instead of 100, and the full model has 20 queries.
# - Rows have equal steps, not equal MACs.
#
# ## Summary
#
# - An ablation changes one thing. What decides is fixed before, and the interval speaks, not the mean.
# - The jackknife leaves groups of clips out. Pairing removes what both settings share.
# - A row without training speaks of these weights alone. A row from shared weights speaks of the last steps.
# - The interval of one training knows nothing of the next seed, and none of a mistake that all seeds share.
#
# **Quiz.** (1) The interval is −2.1 to +0.3, and the paper says "0.4 worse". What is the verdict? (2) Somebody ran ten
# seeds and shows the best of each model. What is wrong?
#
# <details><summary>Answers</summary>
#
# (1) Cannot tell: −0.4 and 0 are both inside. (2) The luckiest seeds are compared, not the models, and the pairs are torn apart.
#
# </details>
#
# **An open question.** You have ten hours of two cores, some 150 runs from a backbone, and want to know whether query
# passing helps. How do you spend them, on which figure, and which outcome would make you say that it does not?
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · B. Efron, R. Tibshirani, *An Introduction to the
# Bootstrap*, 1993 · X. Bouthillier et al., *Accounting for Variance in Machine Learning Benchmarks*, MLSys 2021.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 75 minutes: 10 for the claims and *Predict* (on paper), 15 for step 1, 15 for step 2, 12 for step 3 (talk on while it trains), 12 for step
# 4, 11 for step 5. Short of time: skip the second seed. Ask at the picture of step 1: "which of these would you publish?" Common mistakes: the
# mean decides; "open" is read as "no effect"; the interval of one training is taken for one of all trainings.
#
# Rubric of the open question, a point each: (1) one change, `passing=off`, with seeds paired. (2) The number of seeds follows from
# step 5, and clips are added where they are the bottleneck. (3) The figure and a smallest effect of interest are named before the
# first run. (4) "Does not help" is an interval whose upper end is below that effect, not one that holds zero.
#
# </details>
