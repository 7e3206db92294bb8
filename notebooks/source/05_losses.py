# %% [markdown]
# # 05 · Losses
#
# **Twenty queries, three creatures: who learns what, and why does nobody say the same thing twice?**

# %% [markdown]
# ## You will be able to …
#
# - build the table on which a greedy matcher fails (exercise 1)
# - compute the score by which queries and instances find each other (exercise 2)
# - count who is matched, who is left over, and what both are told (exercise 3)
# - write the focal loss and the dice loss, and train with them (exercises 4 and 5)
#
# From lesson 04 you need one thing: each query gives one mask and eight class scores. What follows an exercise is drawn and
# trained by *your* function; until it is correct, by ours.

# %% tags=["setup"]
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

# %% [markdown]
# ## The map

# %%
torch.set_num_threads(1)  # tensors this small are slower on several
model = minst.MobileInst.from_pretrained("shapes-tiny")
visualize.plot_pipeline(model, size=(192, 256), highlight="losses")

# %% [markdown]
# **What it shows.** The lit block, *matching and losses*, exists in training only. None of it runs on the phone.
#
# | symbol | meaning | shape here |
# |---|---|---|
# | N, C, G | queries; classes; true instances in this frame | 20; 8; 3 |
# | class logits | before the sigmoid; there is no class "background" | (N, C) |
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
soft = minst.data.transforms.resize_masks(torch.from_numpy(masks))  # at 1/2: step 2 says how and why
target = matcher.Instances(torch.as_tensor(clip.labels), soft, torch.arange(3))
NAMES = [clip.categories[label] for label in clip.labels]
titles = ["the frame", *(f"query {q}: {score:.2f}" for q, score in enumerate(out.scores()[0].amax(-1)))]
visualize.plot_images(
    [image, *out.mask_logits[0].sigmoid()], titles, columns=7, limits=(0, 1),
    head="Twenty answers to a question with three right ones",
    note="Top left: the frame. The others: each query's mask, probability from 0 (dark) to 1 (bright), and its score.",
)

# %% [markdown]
# **What it shows.** Some masks draw the same creature, yet few scores are high. No NMS (non-maximum suppression) has removed copies.
# The model has *learned* to say each thing once, or nearly: lesson 04 counts the exceptions.
#
# > **Loss Function** (paper): predictions and instances of a frame are paired by bipartite matching; the loss is a weighted sum
# > of a class, a mask and an objectness term.
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
# ## Step 1: who answers for whom?
#
# Every instance needs one query $\pi(g)$ of its own, and the sum of their scores shall be as large as possible:
#
# $$\hat\pi = \arg\max_\pi \sum_{g=1}^{G} s_{\pi(g),\,g}, \qquad \pi(g) \ne \pi(g') \text{ for } g \ne g' \tag{5.1}$$
#
# Take made-up scores. *Greedy* takes the largest, strikes out its row and column, and goes on. *Brute force* tries all
# 4 · 3 · 2 = 24 ways.


# %%
def greedy(table) -> dict[int, int]:
    """{instance: query} of scores (N, G): the largest, then the largest of what is left, and so on."""
    left, pairs = torch.as_tensor(table).clone(), {}
    while len(pairs) < left.shape[1]:
        q, g = divmod(int(left.argmax()), left.shape[1])
        pairs[g] = q
        left[q], left[:, g] = -1, -1
    return pairs


table = torch.tensor([[0.90, 0.80, 0.10], [0.85, 0.30, 0.20], [0.20, 0.25, 0.70], [0.10, 0.40, 0.60]])  # (N, G)
ways = list(itertools.permutations(range(4), 3))  # way[g] = the query of instance g
best = max(ways, key=lambda way: sum(table[q, g] for g, q in enumerate(way)))
print(f"greedy:      {greedy(table)}, sum {sum(table[q, g] for g, q in greedy(table).items()):.2f}  (instance: query)")
print(f"brute force: {dict(enumerate(best))}, sum {table[best, range(3)].sum():.2f}, of {len(ways)} ways")
visualize.plot_assignment(
    table, [f"query {q}" for q in range(4)], NAMES, title="The best sum does not take the best score"
)

# %% [markdown]
# **What it shows.** The best sum leaves the largest score, 0.90, aside. Greedy takes it, and pays with 0.40 for the jellyfish.
#
# For a hundred queries and twenty instances there are more than 10^39 ways. The time of the **Hungarian algorithm** grows only with
# the cube of the size. `minst.matcher.hungarian_match` calls that of `scipy`.
#
# ### Exercise 1 (break it): a trap for the greedy
#
# Above, greedy got 85 % of the best sum. Build scores from which it gets less than 60 %, also where it is lucky.


# %% tags=["exercise"]
def greedy_trap(num_queries: int, num_instances: int) -> np.ndarray:
    """Scores (N, G) in [0, 1], N >= G >= 2: greedy gets less than 60 % of the sum that Hungarian matching gets."""
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

# %%
greedy_trap = check.greedy_trap(greedy_trap).or_ours  # yours, if it is correct
trap = np.array(greedy_trap(4, 3), dtype=float)
rows, columns = linear_sum_assignment(trap, maximize=True)
assert trap[rows, columns].sum() >= max(trap[list(way), range(3)].sum() for way in ways) - 1e-6  # brute force
share = sum(trap[q, g] for g, q in greedy(trap).items()) / trap[rows, columns].sum()
visualize.plot_assignment(
    trap, [f"query {q}" for q in range(4)], NAMES, title=f"Your trap leaves greedy {share:.0%} of the best sum"
)

# %% [markdown]
# **What it shows.** Greedy's first choice costs two others. In training, a query would be taught the wrong creature.
#
# ## Step 2: what is a good pair?
#
# $$s_{ng} = \operatorname{dice}(x_n, y_g)^{0.8} \cdot p_n(\text{class of } g)^{0.2}, \qquad
# \operatorname{dice}(x, y) = \frac{2\,x \cdot y}{x \cdot x + y \cdot y} \tag{5.2}$$
#
# Dice is 1 for equal masks and 0 for disjoint ones. **Why 0.8 and 0.2?** The mask shall decide first, for a class can be learned by
# whoever has the mask. At the start every head says p = 0.01, and $0.01^{0.2} = 0.4$: however sure a class is, its factor
# lies between 0.4 and 1. Halve the dice instead, and the score falls to 57 %.
#
# ### Exercise 2 (code): the scores of all pairs


# %% tags=["exercise"]
def matching_scores(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """Eq. 5.2 of all pairs: logits (N, C) and (N, R) of the queries, labels (G,), masks (G, R) of the truth -> (N, G).

    Add 1e-4 to the denominator of dice: two empty masks would divide by 0.
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
# `x @ masks.T` gives all overlaps at once, (N, G). For the sizes add a column (N, 1) and a row (G,). `p[:, labels]` picks
# for each instance the column of its class.
#
# </details>
#
# On which grid? Mask logits have a cell per 8 x 8 pixels, and are enlarged bilinearly when the model is used. So they are in
# training, to the grid of the target, whose cells of 2 x 2 pixels hold the *share that the instance covers*. How well can a target
# hold the truth at all?

# %%
for stride in (8, 4, 2):
    coverage = minst.data.transforms.resize_masks(torch.from_numpy(masks), stride)  # (G, H', W')
    again = F.interpolate(coverage[None], size=(192, 256), mode="bilinear")[0] > 0.5
    both, either = (again.numpy() & masks).sum(), (again.numpy() | masks).sum()
    print(f"targets at 1/{stride}: {tuple(coverage.shape[1:])} cells hold an IoU of {both / either:.3f} with the truth")

# %%
matching_scores = check.matching_scores(matching_scores).or_ours
large = matcher.enlarge(out.mask_logits[0], target.masks).flatten(1)  # (N, R)
scores = torch.as_tensor(matching_scores(out.class_logits[0], large, target.labels, target.masks.flatten(1)))
own = matcher.matching_scores(out.class_logits[0], out.mask_logits[0], target)  # minst's
torch.testing.assert_close(scores.float(), own, rtol=1e-2, atol=1e-2)
queries, instances = matcher.hungarian_match(out.class_logits, out.mask_logits, [target])[0]
print("matched:", {NAMES[g]: q for q, g in zip(queries.tolist(), instances.tolist())})
fitting = mask_ious((upsample_masks(out.mask_logits, (192, 256))[0] > 0).numpy(), masks)  # IoU (N, G) at full size
p = out.class_logits[0].sigmoid()[:, target.labels].numpy()
print("holders:", {NAMES[g]: q for q, g in assign_queries(fitting, p)})

first = scores.amax(1).argsort(descending=True)[:8]
drawn = [np.uint8(255 * mask.numpy())[..., None].repeat(3, -1) for mask in out.mask_logits[0, first].sigmoid()]
truths = [visualize.draw_frame(image, [mask], [g + 1], scale=1) for g, mask in enumerate(masks)]
head = "One query for one instance; the others want what is taken"
visualize.plot_assignment(scores[first], [f"query {q}" for q in first], NAMES, head, drawn, truths)

# %% [markdown]
# **What it shows.** The queries that are left over want an instance, too. In training they would be told to be silent.
#
# **Who holds an instance?** Wherever this course asks, it is the query with the best matching score among those whose mask has an
# IoU of at least 0.5 with it. A silent copy with a slightly better outline does not count. (There dice is 2 IoU / (1 + IoU), of
# the masks at full size.) Here holders and matched queries are the same, as printed above the picture.
#
# ## Step 3: what is each query told?
#
# The targets of the classes form a table (N, C). A matched query has a 1 at its instance's class. Everything else is 0.
#
# ### Exercise 3 (recall): who is told what?


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
# One to one: the smaller of N and G decides. The table of class targets has N · C entries, and every matched query has a
# single 1 in its row.
#
# </details>
#
# ## Step 4: what is nearly right shall not count
#
# A few ones stand among many zeros. The focal loss keeps the zeros from shouting them down. With p the sigmoid of a class logit,
# and a target t of 0 or 1:
#
# $$L_{cls} = \frac1G \sum_{n,c} -\alpha_t\,(1 - p_t)^\gamma \log p_t, \qquad
# p_t = \begin{cases} p & t = 1 \\ 1 - p & t = 0 \end{cases}, \qquad
# \alpha_t = \begin{cases} \alpha & t = 1 \\ 1 - \alpha & t = 0 \end{cases} \tag{5.3}$$
#
# $p_t$ is the probability given to what is right, and $-\log p_t$ is cross-entropy. The factor $(1 - p_t)^\gamma$ fades
# out what is nearly right. Here $\alpha = 0.25$ and $\gamma = 2$.
#
# ### Exercise 4 (code): one term of the focal loss


# %% tags=["exercise"]
def focal_term(logits: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """The terms of Eq. 5.3 before the sum: logits (n,), targets (n,) of 0.0 or 1.0 -> (n,).

    Gradients must come back through it (no .item(), no NumPy): it is trained with below.
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
# `torch.where(targets == 1, a, b)` chooses element by element. A loss is never negative.
#
# </details>
#
# Where does its **gradient** pull, and how hard? *Pull* means the size of the derivative with respect to a logit.

# %%
focal_term = check.focal_term(focal_term).or_ours
target_counts = check.target_counts(target_counts).or_ours


def pull(logits: torch.Tensor, truth: float, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """Size of the gradient of your focal term at each logit, all with the same target."""
    z = logits.clone().requires_grad_()
    focal_term(z, torch.full_like(z, truth), alpha, gamma).sum().backward()
    return z.grad.abs()


start = torch.logit(torch.tensor([0.01]))  # where the heads begin
for name, sizes in {"here": (20, 3, 8), "COCO": (100, 7, 80)}.items():
    *_, ones, zeros = target_counts(*sizes)
    focal = f"{ones * pull(start, 1.0).item():.2f} against {zeros * pull(start, 0.0).item():.4f}"
    plain = f"{ones * 0.99:.1f} against {zeros * 0.01:.1f}"
    print(f"{name}: {ones} ones and {zeros} zeros pull: cross-entropy {plain}, focal {focal}")

# %%
line, panels = torch.linspace(-6, 6, 61), {}
for truth, name in ((1.0, "target 1: a matched query, its class"), (0.0, "target 0: everything else")):
    panels[name] = {"cross-entropy": (line.sigmoid(), (line.sigmoid() - truth).abs())}
    panels[name] |= {f"focal, gamma {g}": (line.sigmoid(), pull(line, truth, gamma=g)) for g in (1, 2)}
check.plot_curves(
    panels, "Focal loss forgets what is nearly right", "Pull on a class logit, logarithmic: low = ignored.",
    yscale="log", ylim=(1e-6, 3), xlabel="probability p given to the class",
)

# %% [markdown]
# **What it shows.** Where p is already right, focal loss lets go much sooner than cross-entropy. With 100 queries and the 80
# classes of COCO, the easy zeros of cross-entropy outweigh seven ones. With focal loss they whisper.
#
# **Why 0.25 for the ones**, which are few already? Because $\gamma = 2$ has silenced the zeros so well that the ones now pull far
# harder, as each line says at its end. $\alpha$ gives a little back. Lin et al. tried both together: with $\gamma = 0$ the best
# $\alpha$ was 0.75, with $\gamma = 2$ it was 0.25.
#
# ## Step 5: how shall a mask be drawn?
#
# $$L_{dice} = \frac1G \sum_{\text{pairs}} \Big(1 - \frac{2\,x \cdot y}{x \cdot x + y \cdot y}\Big) \tag{5.4}$$
# $$L_{pixel} = \frac1G \sum_{\text{pairs}} \frac1R \sum_{r} -\big(y_r \log x_r + (1 - y_r) \log(1 - x_r)\big) \tag{5.5}$$
#
# Only matched pairs count. Dice is a share of the object; pixel-wise cross-entropy is a mean over the frame.
#
# ### Exercise 5 (code): the dice loss of one pair


# %% tags=["exercise"]
def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One term of Eq. 5.4: mask logits (R,), soft target mask (R,) -> a single number that carries a gradient.

    Add 1e-4 to the denominator.
    """
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
# Now train with it. X_mask of a crowded frame is frozen. Six kernels start silent, near 2 % everywhere, and learn one creature each
# by gradient descent, with your dice loss, with the pixel loss, or with both.

# %%
dice_loss = check.dice_loss(dice_loss).or_ours
MASK_LOSSES = {"dice": dice_loss, "pixel": F.binary_cross_entropy_with_logits,
               "dice + pixel": lambda z, y: dice_loss(z, y) + F.binary_cross_entropy_with_logits(z, y)}
crowd = minst.load_sample("crowd").render(0)
goals = minst.data.transforms.resize_masks(torch.from_numpy(crowd.masks))  # (G, 96, 128)
with torch.no_grad():
    features = model.encode(image_to_batch(crowd.image)).x_mask[0]  # (D, h, w)
low = torch.full((24 * 32, 1), -4.0)  # the logits of a silent mask
silent = torch.linalg.lstsq(features.flatten(1).T, low).solution.T  # the kernel (1, D) that comes closest


def learn(loss, rate: float = 1.0, steps: int = 60) -> torch.Tensor:
    """IoU (steps, G) of kernels that learn one creature each, by one loss of a pair."""
    kernels, ious = silent.repeat(len(goals), 1).requires_grad_(), []
    for _ in range(steps):
        logits = torch.einsum("gd,dyx->gyx", kernels, features)
        logits = matcher.enlarge(logits, goals).flatten(1)  # (G, R)
        ious.append(losses.mask_iou(logits.detach(), goals.flatten(1)))
        total = sum(loss(z, y) for z, y in zip(logits, goals.flatten(1)))
        (slope,) = torch.autograd.grad(total, kernels)
        kernels = (kernels - rate * slope).detach().requires_grad_()
    return torch.stack(ious)


# %%
curves = {name: learn(loss) for name, loss in MASK_LOSSES.items()}
curves["pixel, steps 10 times as long"] = learn(MASK_LOSSES["pixel"], rate=10.0)
areas = goals.mean((1, 2))  # the share of the frame that each creature covers
panels = {
    f"{name} creature: {100 * areas[g]:.0f} % of the frame": {
        label: (range(60), ious[:, g]) for label, ious in curves.items()}
    for name, g in (("largest", int(areas.argmax())), ("smallest", int(areas.argmin())))
}
check.plot_curves(
    panels, "The pixel loss overlooks a small creature, dice does not",
    "IoU of the mask while its kernel learns. All take the same steps, but for the last curve.",
    ylim=(0, 1), xlabel="step",
)

# %% [markdown]
# **What it shows.** A mean over the frame hardly notices the cells of a small creature. Longer steps help, but dice needs none: it is a
# share of each creature and pulls on all alike. (The smallest is half hidden, so that no loss does well.)
#
# Why keep the pixel loss? With two pixels the loss is a landscape over two logits. Let both be sure and wrong.


# %%
def landscape(loss: str, target_1: float, target_2: float):
    """The loss of a two-pixel mask over its two logits, and a walk downhill from (-4, 4)."""
    return check.plot_landscape(MASK_LOSSES[loss], (target_1, target_2), loss)


visualize.interact(landscape, loss=list(MASK_LOSSES), target_1=((0.0, 1.0, 0.1), 1.0), target_2=((0.0, 1.0, 0.1), 0.0))

# %%
landscape("dice", 1.0, 0.0)

# %% [markdown]
# **What it shows.** Dice has a plateau where pixels are sure and wrong, since its gradient carries x (1 - x) of the sigmoid. Choose
# *pixel*, and the walk sets off at once. The sum has its slope and dice's care for small objects. With both targets at 0, dice is flat
# everywhere: it has nothing to say of an empty mask.
#
# ## The whole loss
#
# Objectness learns to predict the IoU of the query's own mask, again for matched queries only:
#
# $$L_{obj} = \frac1G \sum_{\text{pairs}} -\big(u \log \sigma(o) + (1 - u) \log(1 - \sigma(o))\big), \qquad
# u = \operatorname{IoU}(x \ge 0.4,\; y > 0.5) \tag{5.6}$$
#
# Its gradient is $\sigma(o) - u$: it raises o where the mask is better than announced. As u lies between 0 and 1, a part of the loss
# can never be removed, the *entropy* of u. No gradient enters u.
#
# **The paper's total loss**, with its weights, the same for images and for videos:
#
# $$L = \lambda_c L_{cls} + \lambda_{mask}\,(L_{dice} + L_{pixel}) + \lambda_{obj} L_{obj}, \qquad
# \lambda_c = 2,\;\; \lambda_{mask} = 2,\;\; \lambda_{obj} = 1 \tag{5.7}$$
#
# The weights are to balance the terms. A frame may also be **empty**. Then nobody is matched, G is taken as 1, and the class
# loss still teaches twenty queries silence. Here is all of it, from your focal and dice terms, for any pairs:


# %%
def losses_of(out, target, queries, instances) -> dict[str, torch.Tensor]:
    """The losses of one image when queries[i] answers for instances[i]."""
    one_hot = torch.zeros_like(out.class_logits[0])  # (N, C)
    one_hot[queries, target.labels[instances]] = 1
    count = max(1, len(queries))
    z = matcher.enlarge(out.mask_logits[0, queries], target.masks).flatten(1)  # (pairs, R)
    y = target.masks[instances].flatten(1)
    return {
        "cls": focal_term(out.class_logits[0].flatten(), one_hot.flatten(), 0.25, 2.0).sum() / count,
        "dice": sum((dice_loss(*pair) for pair in zip(z, y)), start=0 * z.sum()) / count,
        "pixel": losses.pixel_loss(z, y, count),
        "obj": losses.objectness_loss(out.objectness[0, queries], losses.mask_iou(z, y), count),
    }


none = matcher.Instances(torch.zeros(0, dtype=torch.long), torch.zeros(0, 96, 128), torch.zeros(0, dtype=torch.long))
leaves = out._make(part.clone().requires_grad_() for part in out)
for name, truth in {"three instances": target, "empty": none}.items():
    reference, [pairs] = losses.set_losses(leaves.class_logits, leaves.objectness, leaves.mask_logits, [truth])
    found = losses_of(leaves, truth, *pairs)
    torch.testing.assert_close(found, reference, rtol=1e-2, atol=1e-3)  # minst's own
    parts = [leaves.class_logits, leaves.mask_logits, leaves.objectness]
    taught = [int((g[0].reshape(20, -1) != 0).any(1).sum()) for g in torch.autograd.grad(sum(found.values()), parts)]
    print(f"{name}: {taught[0]} queries learn their classes, {taught[1]} a mask, {taught[2]} objectness")

# %%
y = target.masks[instances].flatten(1) > 0.5
for at in (0.4, 0.5):
    x = large[queries].sigmoid() >= at
    print(f"u with the threshold {at}: {((x & y).sum(1) / (x | y).sum(1)).mean():.3f}")
o, left_over = out.objectness[0].sigmoid(), torch.ones(20, dtype=torch.bool)
left_over[queries] = False
for name, values in {"matched": o[queries], "left over": o[left_over]}.items():
    print(f"objectness, {name}: {values.min():.2f} to {values.max():.2f}")

# %% [markdown]
# **The objectness of left-over queries is untrained**: no gradient reaches it, and it may say anything. So in the score
# $\sqrt{p \cdot o}$ it is p that must silence them. The threshold 0.4 is SparseInst's, for which its authors give no reason; as
# the line above says, it matters little.
#
# ## Look inside: two twins compete
#
# We teach a new instance decoder this single frame, with your losses. After 60 steps we copy the surest matched query onto the most
# silent one, plus a little noise. These **twins** say the same thing. Then we go on.


# %%
def one_to_one(out):
    """The paper's rule: the best sum, every query and every instance at most once."""
    return matcher.hungarian_match(out.class_logits, out.mask_logits, [target])[0]


def overfit(fresh, rule, steps: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Learn one frame by heart; the scores (steps, N) and the IoUs with every instance (steps, N, G) on the way."""
    optimizer = torch.optim.AdamW(fresh.instance_decoder.parameters(), lr=1e-3)
    scores, ious = [], []
    for _ in range(steps):
        now = fresh.decode(encoded)
        found = losses_of(now, target, *rule(now))
        optimizer.zero_grad()
        sum(losses.LOSS_WEIGHTS[name] * value for name, value in found.items()).backward()  # Eq. 5.7
        torch.nn.utils.clip_grad_norm_(fresh.instance_decoder.parameters(), 1.0)
        optimizer.step()
        scores.append(now.scores()[0].detach().amax(-1))
        large = matcher.enlarge(now.mask_logits[0].detach(), target.masks).flatten(1)  # (N, R)
        ious.append(losses.mask_iou(large[:, None], target.masks.flatten(1)[None]))
    return torch.stack(scores), torch.stack(ious)


# %%
torch.manual_seed(3)
born = minst.MobileInst(model.config)
overfit(born, one_to_one, 60)
out = born.decode(encoded)
matched, silence = one_to_one(out)[0], out.scores()[0].amax(-1)
twins = [int(matched[silence[matched].argmax()]), int(silence.argmin())]
with torch.no_grad():
    queries = born.instance_decoder.queries  # (N, D)
    queries[twins[1]] = queries[twins[0]] + 0.01 * torch.randn(64)
runs = {"one to one": overfit(copy.deepcopy(born), one_to_one)}

# %%
scores, ious = runs["one to one"]
wanted = int(ious[-1, twins].amax(0).argmax())  # the instance over which the twins compete
steps, others = range(len(scores)), [q for q in range(20) if q not in twins]
panels = {
    "score of every query": {f"_{q}": (steps, scores[:, q]) for q in others}
    | {f"!query {q}": (steps, scores[:, q]) for q in twins},
    f"IoU of the twins' masks with the {NAMES[wanted]}": {f"!query {q}": (steps, ious[:, q, wanted]) for q in twins},
}
check.plot_curves(
    panels, "Two queries say the same, until one is told to be silent",
    "Red: the twins, one solid, one dashed. Grey: the other queries.", ylim=(0, 1.02), xlabel="step",
)

# %% [markdown]
# **What it shows.** The scores fork while both masks are equally good. **The loser is blamed for its class alone**; its mask decays
# afterwards, for nothing keeps it. The class gradient points up for the matched twin and down for the other. It acts on the little
# that differs between them, the noise, and makes it grow.
#
# Is it the matching? Change the rule only. *Four each*: the four queries that fit an instance best answer for it, as in many
# detectors that then need NMS. *Favourite*: each query answers for the instance that it fits best. And once more one to one,
# but without self-attention, so that queries do not see one another.


# %%
def all_scores(out) -> torch.Tensor:
    """Eq. 5.2 of all queries and instances: (N, G)."""
    return matcher.matching_scores(out.class_logits[0], out.mask_logits[0], target)


rules = {
    "four each": lambda out: (all_scores(out).topk(4, dim=0).indices.flatten(), torch.arange(3).repeat(4)),
    "favourite": lambda out: (torch.arange(20), all_scores(out).argmax(1)),
    "no self-attention": one_to_one,
}
for name, rule in rules.items():
    fresh = copy.deepcopy(born)
    for part in (fresh.instance_decoder.global_decoder, fresh.instance_decoder.local_decoder):
        if name == "no self-attention":
            part.self_attention.register_forward_hook(lambda module, given, output: 0 * output)
    runs[name] = overfit(fresh, rule)

# %%
panels = {}
for name, (scores, ious) in runs.items():
    loud = scores[-1] >= 0.5
    said = ious[-1, loud].argmax(-1).unique()  # the instances that the loud ones draw
    panels[f"{name}\n{int(loud.sum())} above 0.5; {len(said)} of 3 drawn"] = {
        f"!query {q}" if q in twins else f"_{q}": (range(len(scores)), scores[:, q]) for q in [*others, *twins]
    }
check.plot_curves(
    panels, "Only one-to-one matching silences copies", "Score of every query. Red: the twins.", 1.8,
    ylim=(0, 1.02), xlabel="step",
)

# %% [markdown]
# **What it shows.** One to one leaves one high line per creature, with and without self-attention. *Four each* leaves every creature
# several times. Under *favourite* nothing makes the queries share the work.
#
# ## Paper against ours
#
# - Eq. 5.7 is the paper's, which names its terms and spells none out. The numbers of equations are ours.
# - `Assumption:` the paper says *bipartite matching* and gives no cost. Ours is SparseInst's, Eq. 5.2, whose losses the paper
#   follows. So are alpha 0.25, gamma 2, the threshold 0.4, and the division by the number of instances.
# - `Assumption:` dice and pixel loss weigh alike (2 and 2). SparseInst uses 2 and 5; the paper names one weight for both.
# - `Assumption:` targets at 1/2 of the frame. SparseInst compares at 1/4; the paper does not say.
# - `Deviation:` when the shipped model was trained, a classifier on the tokens of X6 was trained along and thrown away
#   (`minst.training` says why).
# - **What the toy does not show.** One frame learned by heart is no test. The twins fork without self-attention too, since for one
#   image each query can be told once and for all to be loud or silent. On new images that depends on the image.
#
# ## Summary
#
# - Matching decides who learns what: G queries learn class, mask and objectness; the others learn silence.
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
# **An open question**, which no cell answers. Suppose that you trained the objectness of left-over queries too, with a target of 0.
# What would improve, what might get worse, and which comparison would tell?
#
# **References.** H. Kuhn, *The Hungarian Method for the Assignment Problem*, 1955 · F. Milletari et al., *V-Net*, 2016,
# arXiv 1606.04797 (dice loss) · T.-Y. Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, arXiv 1708.02002 ·
# T. Cheng et al., *SparseInst*, CVPR 2022, arXiv 2203.12827.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 60 minutes: 10 problem and *Predict* (by show of hands; "ignored" is the tempting answer), 10 step 1, 10 step 2, 10 steps 3
# and 4, 10 step 5, 5 the whole loss, 5 the twins. Let the room bet on solid or dashed before the twins run. Common mistakes: a trap by ties; logits without
# the sigmoid; a softmax over classes, as in DETR; p in the place of p_t for targets of 0; alpha for the zeros.
#
# Rubric of the open question, a point each: (1) left-over queries would score lower even where p is high, so fewer copies. (2)
# Objectness would then say "am I matched?" and no longer "is my mask good?": a copy with a good mask is told 0. (3) 17 zeros against
# 3 trained values: a weight or focal form is needed. (4) A paired comparison over several seeds of AP, copies, and how well
# objectness predicts IoU.
#
# </details>
