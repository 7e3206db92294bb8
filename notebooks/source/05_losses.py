# %% [markdown]
# # 05 · Losses
#
# **Twenty queries, three creatures: who learns what, and why does nobody say the same thing twice?**

# %% [markdown]
# ## You will be able to …
#
# - count who is matched, who is left over, and what both are told (exercise 1)
# - compute the score by which queries and instances find each other (exercise 2)
# - write the dice loss and the focal loss, and say what their gradients want (exercises 3 and 4)
# - build the table on which a greedy matcher fails (exercise 5)
#
# From lesson 04 you need one thing: each query gives one mask and eight class scores.

# %% tags=["setup"]
import itertools
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
import minst
from minst import losses, matcher, visualize
from minst.course import lesson05 as check
from minst.model import image_to_batch

# %% [markdown]
# ## The map
#
# Today's block exists in training only; none of it runs on the phone.

# %%
model = minst.MobileInst.from_pretrained("shapes-tiny")
visualize.plot_pipeline(model, size=(192, 256), highlight="losses")

# %% [markdown]
# **What it shows.** The architecture as in lesson 00, with the block *matching and losses* lit behind the instance decoder:
# classes, objectness and masks go in; numbers to be made smaller come out.
#
# | symbol | meaning | shape here |
# |---|---|---|
# | N, K, M | queries; classes; instances in this frame | 20; 8; 3 |
# | class logits | before the sigmoid; there is no class "background" | (N, K) |
# | objectness | logit of "how good is my mask?" | (N,) |
# | mask logits | at 1/8 of the frame, 24 x 32 here | (N, h, w) |
# | R | cells of a target mask, at 1/2 of the frame, 96 x 128 here | 12,288 |
# | x, y | enlarged mask after the sigmoid; target mask, soft at its edge | (R,) |
#
# ## See the problem
#
# One frame with a butterfly, a jellyfish and a leaf. The shipped model answers twenty times.

# %%
clip = minst.load_sample("easy")
image, masks = clip.render(0)
with torch.no_grad():
    encoded = model.encode(image_to_batch(image))
    out = encoded.out
soft = minst.data.transforms.resize_masks(torch.from_numpy(masks))  # at 1/2: a section below says how and why
target = matcher.Instances(torch.as_tensor(clip.labels), soft, torch.arange(3))
assert out.class_logits.shape == (1, 20, 8) and out.objectness.shape == (1, 20)
assert out.mask_logits.shape == (1, 20, 24, 32) and target.masks.shape == (3, 96, 128)
titles = ["the frame", *(f"query {q}: {score:.2f}" for q, score in enumerate(out.scores()[0].amax(-1)))]
visualize.plot_images(
    [image, *out.mask_logits[0].sigmoid()], titles, columns=7, limits=(0, 1),
    head="Twenty answers to a question with three right ones",
    note="Top left: the frame. The others: each query's mask, probability from 0 (dark) to 1 (bright), and its score.",
)

# %% [markdown]
# **What it shows.** Some of the twenty masks look alike: they draw the same creature. Yet the scores in the titles differ: few
# are high. No NMS (non-maximum suppression) has removed copies. The model has *learned* to say each thing once, or nearly:
# lesson 04 counts the exceptions.
#
# > **Loss Function** (paper): the predictions of a frame and its instances are paired by bipartite matching; the loss is a
# > weighted sum of a class term (focal), a mask term (dice and pixel-wise cross-entropy) and an objectness term.
#
# ## Predict
#
# Two queries draw the same perfect mask of the butterfly, and both say "butterfly" with probability 0.9. Is the second one
# praised, ignored or blamed?
#
# <details><summary>Answer, after you have thought</summary>
#
# Its class is blamed and its mask ignored. One query is matched with the butterfly. The other is left over: its class
# targets are all 0, so its 0.9 is an error. Its mask enters no loss.
#
# </details>
#
# ## Build it: the matching
#
# Four queries, three instances, made-up scores. Each gets at most one partner; the sum shall be as large as possible.
# *Greedy*: take the largest score, strike out its row and column, go on. *Brute force*: choose queries for instances 0, 1
# and 2 in all 4 · 3 · 2 = 24 ways.

# %%
table = torch.tensor([[0.90, 0.80, 0.10], [0.85, 0.30, 0.20], [0.20, 0.25, 0.70], [0.10, 0.40, 0.60]])  # (N, M)
left, greedy = table.clone(), {}
while len(greedy) < 3:
    q, m = divmod(int(left.argmax()), 3)
    greedy[m] = q
    left[q], left[:, m] = -1, -1
ways = list(itertools.permutations(range(4), 3))  # way[m] = the query of instance m
best = max(ways, key=lambda way: sum(table[q, m] for m, q in enumerate(way)))
print(f"greedy:      {greedy}, sum {sum(table[q, m] for m, q in greedy.items()):.2f}  (instance: query)")
print(f"brute force: {dict(enumerate(best))}, sum {table[best, range(3)].sum():.2f}, of {len(ways)} ways")
visualize.plot_assignment(
    table, row_names=[f"query {q}" for q in range(4)], column_names=["butterfly", "jellyfish", "leaf"],
    title="The best sum does not take the best score",
)

# %% [markdown]
# **What it shows.** Three boxes: query 1 has the butterfly (0.85), query 0 the jellyfish (0.80), query 2 the leaf (0.70);
# query 3 is left over. A dashed ring marks 0.90, the largest score of all: greedy takes it, and pays with 0.40 for the
# jellyfish, a sum of 2.00 against 2.35.
#
# For twenty queries there are 6,840 ways, for a hundred queries and twenty instances more than 10^39. The **Hungarian
# algorithm** takes steps in proportion to the cube of the size. `scipy` has it; `minst.matcher.hungarian_match` calls it,
# but wants logits. So we make some: where all masks are perfect, the score is p^0.2 (see below), thus p = score^5.

# %%
rows, columns = linear_sum_assignment(table, maximize=True)
class_logits = torch.logit(table**5)[None]  # (1, 4, 3): instance m is of class m
mask_logits = torch.full((1, 4, 2, 2), 20.0)  # every query draws the same perfect mask
perfect = matcher.Instances(torch.arange(3), torch.ones(3, 2, 2), torch.arange(3))
remade = matcher.matching_scores(class_logits[0], mask_logits[0], perfect)
torch.testing.assert_close(remade, table, atol=1e-3, rtol=0)
queries, instances = matcher.hungarian_match(class_logits, mask_logits, [perfect])[0]
assert dict(zip(columns, rows)) == dict(zip(instances.tolist(), queries.tolist())) == dict(enumerate(best))

# %% [markdown]
# ### The score of a pair
#
#     score(query n, instance m) = dice(x_n, y_m)^0.8 · p(class of m | query n)^0.2
#
# dice = 2 x·y / (x·x + y·y) is 1 for equal masks and 0 for disjoint ones. On which grid? Mask logits have a cell for every 8 x
# 8 pixels, and are enlarged bilinearly when the model is used. So they are in training: to the grid of the target, whose cells
# of 2 x 2 pixels hold the *share that the instance covers*. Why not compare at 1/8? The first cell says how well a target can
# hold the truth at all. Then one pair by hand, then all:

# %%
for stride in (8, 4, 2):
    coverage = minst.data.transforms.resize_masks(torch.from_numpy(masks), stride)  # (M, H', W')
    again = torch.nn.functional.interpolate(coverage[None], size=(192, 256), mode="bilinear")[0] > 0.5
    both, either = (again.numpy() & masks).sum(), (again.numpy() | masks).sum()
    print(f"targets at 1/{stride}: {tuple(coverage.shape[1:])} cells hold an IoU of {both / either:.3f} with the truth")

# %%
scores = matcher.matching_scores(out.class_logits[0], out.mask_logits[0], target)  # (N, M)
m = 0  # the butterfly
q = int(scores[:, m].argmax())
large = torch.nn.functional.interpolate(out.mask_logits[:, [q]], scale_factor=4, mode="bilinear")[0, 0]  # (96, 128)
torch.testing.assert_close(large[None], matcher.enlarge(out.mask_logits[0, [q]], target.masks))
x, y = large.sigmoid().flatten(), target.masks[m].flatten()  # (R,), (R,)
dice = 2 * (x @ y) / (x @ x + y @ y + 1e-4)
p = out.class_logits[0, q, target.labels[m]].sigmoid()
torch.testing.assert_close(dice**0.8 * p**0.2, scores[q, m])
print(f"query {q}, {clip.categories[target.labels[m]]}: dice {dice:.2f}, p {p:.2f}, score {scores[q, m]:.2f}")
visualize.plot_matching(model, clip, frame=0)

# %% [markdown]
# **What it shows.** The frame's own matching: the twelve best of twenty queries as rows with their masks, the three instances as
# columns. There is one box per column: 3 queries are matched. Below each of them stand queries that want the same instance.
# In training they would be told to be silent.
#
# **Who holds an instance?** The same score answers this wherever this course asks it: among the queries whose mask has an IoU
# of at least 0.5 with the instance, the one with the best matching score *holds* it. A silent copy with a slightly better
# outline does not count. (There dice is 2 IoU / (1 + IoU), of the masks at full size.)
#
# ## Build it: the losses
#
# Of each loss we ask: where does its **gradient** pull, and how hard? *Pull* means the size of its derivative with respect
# to a logit.
#
# ### Class: focal loss
#
# Every query has a target for every class: 1 for a matched query at its instance's class, else 0. Here that is 3 ones among
# 160 numbers. The focal loss multiplies cross-entropy (CE) by (1 - p_t)^gamma, where p_t is the probability given to what is
# right. What is nearly right then counts nearly nothing.
#
#     L_cls = sum over queries and classes of  alpha_t (1 - p_t)^gamma CE,  divided by the number of instances

# %%
z, truth = torch.tensor([-2.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 1.0])
right = torch.where(truth == 1, z.sigmoid(), 1 - z.sigmoid())  # p_t
by_hand = torch.where(truth == 1, 0.25, 0.75) * (1 - right) ** 2 * -right.log()
torch.testing.assert_close(by_hand.sum() / 2, losses.focal_loss(z, truth, num_instances=2))


def pull(logits: torch.Tensor, truth: float, gamma: float = 2.0) -> torch.Tensor:
    """Size of the focal loss's gradient at each logit, all with the same target."""
    z = logits.clone().requires_grad_()
    losses.focal_loss(z, torch.full_like(z, truth), 1.0, gamma=gamma).backward()
    return z.grad.abs()


start = torch.logit(torch.tensor([0.01]))  # where the heads begin
for name, ones, zeros in (("here", 3, 157), ("COCO", 7, 7993)):
    focal = f"{ones * pull(start, 1.0).item():.2f} against {zeros * pull(start, 0.0).item():.4f}"
    print(f"{name}: {ones} ones, {zeros} zeros: CE {ones * 0.99:.1f} against {zeros * 0.01:.1f}, focal {focal}")

# %%
line = torch.linspace(-6, 6, 121)
fig = visualize.new_figure(3.5)
visualize.headline(fig, "Focal loss forgets what is nearly right", "Pull on a class logit, logarithmic: low = ignored.")
axes = fig.subplots(1, 2, sharey=True, gridspec_kw=dict(top=0.75, bottom=0.14, left=0.08, right=0.98, wspace=0.06))
for ax, truth, name in zip(axes, (1.0, 0.0), ("target 1: a matched query, its class", "target 0: everything else")):
    ax.plot(line, (line.sigmoid() - truth).abs(), "--", color=visualize.GREY, linewidth=2, label="cross-entropy")
    for gamma, style in ((0.0, ":"), (1.0, "-."), (2.0, "-")):
        ax.plot(line, pull(line, truth, gamma), style, color=visualize.INK, label=f"focal, gamma {gamma:g}")
    ax.set_xticks(torch.logit(torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])), ["0.01", "0.1", "0.5", "0.9", "0.99"])
    ax.set(yscale="log", ylim=(1e-7, 3), xlabel="probability p given to the class")
    ax.set_title(name, fontsize=9)
axes[0].legend(fontsize=8, frameon=False, loc="lower left")
axes[0].set_ylabel("pull")
fig

# %% [markdown]
# **What it shows.** Two panels, the same four curves: dashed cross-entropy, and focal loss with gamma 0 (dotted), 1
# (dash-dotted) and 2 (solid, ours). Left, target 1: all pull hard while p is small and let go as p nears 1, gamma 2 soonest.
# Right, target 0: at p = 0.01 cross-entropy still pulls with 0.01, focal loss with a few millionths.
#
# The lines printed above say why that matters: total pulls at p = 0.01, where the heads begin. With 100 queries, the 80
# classes of COCO and, say, 7 instances, the easy zeros of cross-entropy shout down the few ones; with focal loss they
# whisper.
#
# ### Mask: dice and pixels. Objectness
#
#     L_dice  = 1 - 2 x·y / (x·x + y·y)       for each matched pair, divided by the number of instances
#     L_pixel = binary cross-entropy          mean over the R cells of a pair, summed and divided likewise
#     L_obj   = binary cross-entropy of objectness against the IoU of the query's own mask, matched queries only

# %%
torch.manual_seed(0)
z, y, o = torch.randn(2, 6), torch.rand(2, 6), torch.randn(2)  # two pairs of six pixels, two objectness logits
x = z.sigmoid()
dice = 1 - 2 * (x * y).sum(1) / (x.square().sum(1) + y.square().sum(1) + 1e-4)
pixel = -(y * x.log() + (1 - y) * (1 - x).log())
iou = ((x >= 0.4) & (y > 0.5)).sum(1) / ((x >= 0.4) | (y > 0.5)).sum(1)
obj = -(iou * o.sigmoid().log() + (1 - iou) * (1 - o.sigmoid()).log())
torch.testing.assert_close(dice.sum() / 2, losses.dice_loss(z, y, num_instances=2))
torch.testing.assert_close(pixel.mean(1).sum() / 2, losses.pixel_loss(z, y, num_instances=2))
torch.testing.assert_close(iou, losses.mask_iou(z, y))
torch.testing.assert_close(obj.sum() / 2, losses.objectness_loss(o, iou, num_instances=2))
for exact in (1.0, 0.9, 0.6):  # objectness says the IoU exactly: no answer has a smaller loss
    floor = losses.objectness_loss(torch.logit(torch.tensor(exact), 1e-6), torch.tensor(exact), 1.0)
    print(f"IoU {exact}: the objectness loss is {floor:.2f} at best")


def object_pull(loss, area: int, inside: float = 0.6) -> torch.Tensor:
    """Pull on each pixel of an object (area,), of P = 768: x is `inside` on the object and 0.05 elsewhere."""
    y = (torch.arange(768) < area).float()[None]
    z = torch.logit(torch.where(y == 1, inside, 0.05)).requires_grad_()
    return torch.autograd.grad(loss(z, y), z)[0][0, :area].abs()


MASK_LOSSES = {"dice": lambda z, y: losses.dice_loss(z, y, 1.0),
               "pixel cross-entropy": lambda z, y: losses.pixel_loss(z, y, 1.0)}

# %%
fig = visualize.new_figure(3.4)
head = "Dice minds every object, cross-entropy every pixel, objectness the truth"
visualize.headline(fig, head, "Left, middle: size of the gradient with respect to logits. Right: with its sign.")
left, middle, right = fig.subplots(1, 3, gridspec_kw=dict(top=0.74, bottom=0.15, left=0.07, right=0.98, wspace=0.28))
areas, sure = [4, 8, 16, 32, 64, 128, 256], torch.linspace(0.01, 0.99, 50)
for (name, loss), style in zip(MASK_LOSSES.items(), ("o-", "s--")):
    left.loglog(areas, [object_pull(loss, area).sum() for area in areas], style, color=visualize.INK, label=name)
    force = torch.stack([object_pull(loss, 32, float(s)).mean() for s in sure])
    middle.plot(sure, force / force.max(), style[1:], color=visualize.INK, label=name)
for iou, style in ((0.3, ":"), (0.6, "--"), (0.9, "-")):
    z = torch.logit(sure).requires_grad_()
    slope = torch.autograd.grad(losses.objectness_loss(z, torch.full_like(z, iou), 1.0), z)[0]
    right.plot(sure, slope, style, color=visualize.INK, label=f"IoU {iou}")
right.axhline(0, color=visualize.GREY, linewidth=0.8)
left.set(title="on a whole object", xlabel="area of the object, pixels of 768")
middle.set(title="on one object pixel (largest = 1)", xlabel="probability on the object")
right.set(title="on objectness (above 0: down)", xlabel="predicted objectness")
for ax in (left, middle, right):
    ax.legend(fontsize=7.5, frameon=False)
    ax.title.set_fontsize(9)
fig

# %% [markdown]
# **What it shows.** Left: the pull on all pixels of an object together, against its area (x is 0.6 on it, 0.05 elsewhere).
# Dice (solid) is nearly flat: 4 pixels get about as much as 256. Cross-entropy (dashed) rises with the area: small ones
# hardly count. Middle: the pull on a pixel against the probability there. Cross-entropy is strongest where the answer is
# sure and wrong (near 0); dice lets go there, for its gradient carries the sigmoid's x (1 - x). Right: objectness is made
# larger below the IoU of its mask and smaller above: it learns to say how good the mask is.
#
# The lines printed above matter for training curves: a target between 0 and 1 leaves a loss that nothing can remove, its
# *entropy*. Early in training, while IoUs rise from 0 towards a half, this floor rises, and the objectness loss with it.
#
# ### A mask of two pixels
#
# Dice or cross-entropy, or why not both? With two pixels the loss is a landscape over two logits. The walk is gradient
# descent from a start that is sure and wrong.

# %%
MASK_LOSSES["dice + pixel"] = lambda z, y: sum(MASK_LOSSES[name](z, y) for name in ("dice", "pixel cross-entropy"))
axis = torch.linspace(-6, 6, 37)
grid = torch.cartesian_prod(axis, axis)  # (37 * 37, 2): the logits of pixel 1 and pixel 2


def walk(loss, y: torch.Tensor) -> torch.Tensor:
    """40 steps of gradient descent on two logits from (-4, 4): (41, 2)."""
    path = [torch.tensor([[-4.0, 4.0]])]
    for _ in range(40):
        z = path[-1].clone().requires_grad_()
        path.append(z.detach() - torch.autograd.grad(loss(z, y), z)[0])
    return torch.cat(path)


# %%
def landscape(loss: str, target_1: float, target_2: float):
    """The loss of a two-pixel mask over its two logits, and a walk downhill."""
    goals = torch.tensor([[target_1, target_2]])
    height = torch.vmap(lambda z: MASK_LOSSES[loss](z[None], goals))(grid).view(37, 37).T
    path = walk(MASK_LOSSES[loss], goals)
    fig = visualize.new_figure(4.2)
    end = " and ".join(f"{p:.2f}" for p in path[-1].sigmoid())
    head = f"{loss}: 40 steps lead to {end}; targets {target_1:g} and {target_2:g}"
    visualize.headline(fig, head, "Left: the loss (dark = low), the walk from the cross to the disc. Right: its steps.")
    left, right = fig.subplots(1, 2, gridspec_kw=dict(top=0.82, bottom=0.12, left=0.06, right=0.98, wspace=0.15))
    levels = torch.linspace(0, max(1, float(height.max())), 11)
    fig.colorbar(left.contourf(axis, axis, height, levels, cmap="Greys_r"), ax=left, format="%.1f")
    left.plot(*path.T, ".-", color=visualize.RED, markersize=4, linewidth=1)
    left.plot(*path[0], "X", color=visualize.RED, markersize=10)
    left.plot(*path[-1], "o", color=visualize.RED, markersize=10)
    left.set(xlabel="logit of pixel 1", ylabel="logit of pixel 2")
    for i, style in enumerate(("-", "--")):
        right.plot(path[:, i].sigmoid(), style, color=visualize.RED, label=f"pixel {i + 1}, target {goals[0, i]:g}")
    right.set(xlabel="step", ylabel="probability", ylim=(-0.05, 1.05))
    right.legend(fontsize=8, frameon=False)
    return fig


visualize.interact(landscape, loss=list(MASK_LOSSES), target_1=((0.0, 1.0, 0.1), 1.0), target_2=((0.0, 1.0, 0.1), 0.0))

# %%
landscape("dice", 1.0, 0.0)

# %% [markdown]
# **What it shows.** Left a grey landscape with a red walk from a cross (pixel 1 sure of "no", pixel 2 sure of "yes", both
# wrong) to a disc. Right the two probabilities. With dice they hardly move: the corner is a plateau. Choose *pixel
# cross-entropy* and the walk sets off at once; the sum has its slope and dice's care for small objects. Then set both
# targets to 0: dice is flat everywhere. It has nothing to say of an empty mask.
#
# ### All together, and nothing at all
#
# `set_losses` matches and returns the four losses unweighted. Ours takes the pairs as an argument, since we shall want
# other pairs soon. The paper's weights: 2 for the class, 2 for the mask (dice and pixel), 1 for objectness. A frame may
# also be **empty**: nobody is matched, no mean may divide by zero, and the class loss still teaches twenty queries
# silence.


# %% tags=["nbval-check-output"]
def losses_of(out, target, queries, instances) -> dict[str, torch.Tensor]:
    """The losses of one image when queries[i] answers for instances[i]."""
    one_hot = torch.zeros_like(out.class_logits[0])  # (N, K)
    one_hot[queries, target.labels[instances]] = 1
    pairs, count = losses.Pairs.of([(queries, instances)], [target]), max(1, len(queries))
    iou = losses.mask_iou(pairs.logits(out.mask_logits).flatten(1), pairs.masks.flatten(1))  # on enlarged logits
    focal = losses.focal_loss(out.class_logits[0], one_hot, count)
    objectness = losses.objectness_loss(out.objectness[0, queries], iou, count)
    return {"cls": focal, **losses.mask_losses(out.mask_logits, pairs, count), "obj": objectness}


none = matcher.Instances(torch.zeros(0, dtype=torch.long), torch.zeros(0, 96, 128), torch.zeros(0, dtype=torch.long))
leaves = out._make(part.clone().requires_grad_() for part in out)
for name, truth in {"three instances": target, "empty": none}.items():
    reference, [pairs] = losses.set_losses(leaves.class_logits, leaves.objectness, leaves.mask_logits, [truth])
    torch.testing.assert_close(losses_of(leaves, truth, *pairs), reference)
    found = torch.autograd.grad(sum(reference.values()), [leaves.class_logits, leaves.mask_logits])
    taught = [int((part[0].flatten(1) != 0).any(1).sum()) for part in found]
    print(f"{name}: {len(pairs[0])} pairs; a gradient for the class of {taught[0]} queries, the mask of {taught[1]}")

# %% [markdown]
# ## Look inside: two twins compete
#
# Now live. We keep the shipped backbone and mask decoder and teach a new instance decoder this single frame. After 60 steps we
# copy the surest of the matched queries onto the most silent one, plus a little noise. These **twins** say the same thing. Then
# we go on for 200 steps.


# %%
def all_scores(out) -> torch.Tensor:
    """dice^0.8 p^0.2 of all queries and instances: (N, M)."""
    return matcher.matching_scores(out.class_logits[0], out.mask_logits[0], target)


def one_to_one(out):
    """The paper's rule: the best sum, every query and every instance at most once."""
    return matcher.hungarian_match(out.class_logits, out.mask_logits, [target])[0]


def overfit(fresh, rule, steps: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn one frame by heart; the scores (steps, N) and the IoUs with every instance (steps, N, M) on the way."""
    optimizer = torch.optim.AdamW(fresh.instance_decoder.parameters(), lr=1e-3)
    scores, ious = [], []
    for _ in range(steps):
        now = fresh.decode(encoded)
        found = losses_of(now, target, *rule(now))
        optimizer.zero_grad()
        sum(losses.LOSS_WEIGHTS[name] * value for name, value in found.items()).backward()
        torch.nn.utils.clip_grad_norm_(fresh.instance_decoder.parameters(), 1.0)
        optimizer.step()
        scores.append(now.scores()[0].detach().amax(-1))
        large = matcher.enlarge(now.mask_logits[0].detach(), target.masks).flatten(1)  # (N, R)
        ious.append(losses.mask_iou(large[:, None], target.masks.flatten(1)[None]))
    return torch.stack(scores), torch.stack(ious)


# %%
def with_twins():
    """A model with a new instance decoder that knows the frame a little, two of its queries being twins; which two."""
    torch.manual_seed(3)
    fresh = minst.MobileInst(model.config)
    overfit(fresh, one_to_one, 60)
    out = fresh.decode(encoded)
    matched = one_to_one(out)[0]
    sure, silent = matched[out.scores()[0].amax(-1)[matched].argmax()], out.scores()[0].amax(-1).argmin()
    with torch.no_grad():
        queries = fresh.instance_decoder.queries  # (N, D)
        queries[silent] = queries[sure] + 0.01 * torch.randn(64)
    return fresh, (int(sure), int(silent))


torch.set_num_threads(1)  # tensors this small are slower on several
fresh, twins = with_twins()
runs = {"one to one": overfit(fresh, one_to_one)}

# %%
scores, ious = runs["one to one"]
wanted = int(ious[-1, twins].amax(0).argmax())  # the instance over which the twins compete
fig = visualize.new_figure(3.5)
head = "Two queries say the same, until one is told to be silent"
visualize.headline(fig, head, "Thick: the twins, one solid, one dashed. Thin and grey: the other queries.")
left, right = fig.subplots(1, 2, gridspec_kw=dict(top=0.75, bottom=0.14, left=0.06, right=0.98, wspace=0.14))
left.plot(scores, color=visualize.GREY, linewidth=0.7)
for query, style in zip(twins, ("-", "--")):
    left.plot(scores[:, query], style, color=visualize.RED, linewidth=2, label=f"query {query}")
    right.plot(ious[:, query, wanted], style, color=visualize.RED, linewidth=2, label=f"query {query}")
left.set_title("score of every query", fontsize=9)
right.set_title(f"IoU of the twins' masks with the {clip.categories[target.labels[wanted]]}", fontsize=9)
for ax in (left, right):
    ax.set(xlabel="step", ylim=(0, 1.02))
    ax.legend(fontsize=8, frameon=False)
fig

# %% [markdown]
# **What it shows.** Left: the twins' scores, one solid, one dashed, begin as one line. Then they quarrel and fork: one goes to the
# top, the other sinks to the silent ones. Right: both drew the same creature, with equal masks. **The loser is blamed while its
# mask is good.** Nobody tells it to draw worse; its mask may decay as the query turns into something else.
#
# While the network cannot tell the twins apart, a step that lifts one lifts the other. But the class gradient points up for
# the matched one and down for the other. It acts on the little that differs between them, the noise, and makes it grow.
#
# ### The same with another rule
#
# Is it the matching? Change the rule only. *Four each*: the four queries that fit an instance best answer for it, as in many
# detectors that then need NMS. *Favourite*: each query answers for the instance that it fits best. And once more one to one,
# with self-attention switched off: queries do not see one another.


# %%
rules = {
    "four each": lambda out: (all_scores(out).topk(4, dim=0).indices.flatten(), torch.arange(3).repeat(4)),
    "favourite": lambda out: (torch.arange(20), all_scores(out).argmax(1)),
    "no self-attention": one_to_one,
}
for name, rule in rules.items():
    fresh, twins = with_twins()
    parts = (fresh.instance_decoder.global_decoder, fresh.instance_decoder.local_decoder)
    for part in parts if name == "no self-attention" else ():
        part.self_attention.register_forward_hook(lambda module, given, output: 0 * output)
    runs[name] = overfit(fresh, rule)

fig = visualize.new_figure(3.2)
visualize.headline(fig, "Only one-to-one matching silences copies", "Score of every query. Thick: the twins.")
for ax, (name, (scores, ious)) in zip(fig.subplots(1, 4, sharey=True), runs.items()):
    ax.plot(scores, color=visualize.GREY, linewidth=0.7)
    for query, style in zip(twins, ("-", "--")):
        ax.plot(scores[:, query], style, color=visualize.RED, linewidth=2)
    loud = scores[-1] >= 0.5
    said = ious[-1, loud].argmax(-1).unique()  # the instances that the loud ones draw
    ax.set_title(f"{name}\n{int(loud.sum())} above 0.5, for {len(said)} of 3 instances", fontsize=8)
    ax.set(ylim=(0, 1.02), xlabel="step")
fig.subplots_adjust(top=0.68, bottom=0.15, left=0.05, right=0.99, wspace=0.08)
fig

# %% [markdown]
# **What it shows.** Four panels with the scores of all queries, the twins thick. *One to one* ends with 3 high lines, with
# and without self-attention. *Four each* ends with about 12: every instance four times. *Favourite* ends with nearly all of
# them, and its title says for how many creatures: nothing makes the queries share the work.
#
# ## Exercises
#
# ### Exercise 1 (recall): who is told what?


# %% tags=["exercise"]
def target_counts(num_queries: int, num_instances: int, num_classes: int) -> tuple[int, int, int, int]:
    """(matched queries, left-over queries, class targets of 1, class targets of 0) of one image.

    There may be more instances than queries.
    """
    # solution
    matched = min(num_queries, num_instances)
    return matched, num_queries - matched, matched, num_queries * num_classes - matched


# %%
check.target_counts(target_counts)

# %% [markdown]
# <details><summary>Hint</summary>
#
# One to one: the smaller of N and M decides. The table of class targets has N · K entries, and every matched query has a
# single 1 in its row.
#
# </details>
#
# ### Exercise 2 (code): the scores of all pairs


# %% tags=["exercise"]
def matching_scores(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """dice^0.8 p^0.2 of all pairs: (N, K), (N, P) of the queries, (M,), (M, P) of the instances -> (N, M).

    dice = 2 x.y / (x.x + y.y + 1e-4); x and p come after the sigmoid.
    """
    # solution
    x, p = mask_logits.sigmoid(), class_logits.sigmoid()[:, labels]
    sizes = x.square().sum(-1)[:, None] + masks.square().sum(-1)
    return (2 * x @ masks.T / (sizes + 1e-4)) ** 0.8 * p**0.2


# %%
check.matching_scores(matching_scores)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `x @ masks.T` gives all overlaps at once, (N, M). For the sizes add a column (N, 1) and a row (M,). `p[:, labels]` picks
# for each instance the column of its class.
#
# </details>
#
# ### Exercise 3 (code): the dice loss of one pair


# %% tags=["exercise"]
def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - 2 x.y / (x.x + y.y + 1e-4): logits (P,), soft target mask (P,) -> a single number."""
    # solution
    x = logits.sigmoid()
    return 1 - 2 * (x @ target) / (x @ x + target @ target + 1e-4)


# %%
check.dice_loss(dice_loss)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Logits first become probabilities. The sizes are sums of squares, so that a soft target reached exactly has loss 0.
#
# </details>
#
# ### Exercise 4 (code): one term of the focal loss


# %% tags=["exercise"]
def focal_term(logits: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """alpha_t (1 - p_t)^gamma CE for each element: logits (n,), targets (n,) of 0.0 or 1.0 -> (n,), not summed.

    alpha_t is alpha where the target is 1, and 1 - alpha where it is 0.
    """
    # solution
    p = logits.sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    alpha_t = torch.where(targets == 1, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * p_t.log()


# %%
check.focal_term(focal_term)

# %% [markdown]
# <details><summary>Hint</summary>
#
# p_t is the probability of what is *right*: p for a target of 1, and 1 - p for a target of 0. The cross-entropy is -log p_t.
#
# </details>
#
# ### Exercise 5 (break it): a trap for the greedy
#
# Above, greedy got 85 % of the best sum. Build scores from which it gets less than 60 %.


# %% tags=["exercise"]
def greedy_trap(num_queries: int, num_instances: int) -> np.ndarray:
    """Scores (N, M) in [0, 1], N >= M >= 2: greedy gets less than 60 % of the sum that Hungarian matching gets."""
    # solution
    scores = np.zeros((num_queries, num_instances))
    scores[:2, :2] = [[1.0, 0.9], [0.9, 0.0]]
    return scores


# %%
check.greedy_trap(greedy_trap)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Let the largest score block two that are nearly as large, one in its row and one in its column, and leave nothing else.
#
# </details>
#
# ## Paper against ours
#
# - `Assumption:` the paper says *bipartite matching* and gives no cost. Ours is SparseInst's, dice^0.8 p^0.2, whose losses
#   the paper follows. So are alpha 0.25, gamma 2, and the division by the number of instances.
# - `Assumption:` dice and pixel loss weigh alike (2 and 2). SparseInst uses 2 and 5; the paper names one weight for both.
# - `Assumption:` targets at 1/2 of the frame. SparseInst compares at 1/4; the paper does not say.
# - `Deviation:` when the shipped model was trained, a classifier on the tokens of X6 was trained along and thrown away
#   (`minst.training` says why).
# - **What the toy does not show.** One frame learned by heart is no test of anything. The twins fork without self-attention
#   too: for one image, each query can be told once and for all to be loud or silent. On new images that depends on the
#   image, and queries that see one another should have it easier. We have not measured it.
# - Silence is not perfect: lesson 04 counts how many creatures are claimed twice by the shipped model.
#
# ## Summary
#
# - Matching decides who learns what: M queries learn class, mask and objectness; the others learn silence.
# - Best sum, not best score: Hungarian, equal to brute force.
# - Focal loss: easy zeros do not count. Dice: every object counts. Pixels: sure errors are heard. Objectness: honest masks.
# - One to one makes copies expensive, so there is nothing left for NMS to do.
#
# **Quiz.** (1) Why does a left-over query's mask get no gradient? (2) Which loss keeps a slope where a pixel is sure and
# wrong? (3) What is the best objectness for a mask of IoU 0.6?
#
# <details><summary>Answers</summary>
#
# (1) It has no target: mask losses are computed for matched pairs alone. (2) Cross-entropy. (3) A probability of 0.6.
#
# </details>
#
# **References.** H. Kuhn, *The Hungarian Method for the Assignment Problem*, 1955 · F. Milletari et al., *V-Net*, 2016,
# arXiv 1606.04797 (dice loss) · T.-Y. Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, arXiv 1708.02002 ·
# N. Carion et al., *End-to-End Object Detection with Transformers* (DETR), ECCV 2020, arXiv 2005.12872 · T. Cheng et al.,
# *SparseInst*, CVPR 2022, arXiv 2203.12827.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 45 minutes: 8 for matching, 12 for the losses and the landscape, 10 for the twins, 15 for exercises 1, 3 and 5. Ask for
# *Predict* by show of hands; "ignored" is the tempting answer. Let the room bet on solid or dashed before the twins run.
# Common mistakes: M matched even when M > N; the zeros of a matched query's other classes forgotten; logits used without
# the sigmoid; a softmax over classes, as in DETR; p instead of p_t for targets of 0; a trap whose left-over corner is
# worth as much.
#
# </details>
