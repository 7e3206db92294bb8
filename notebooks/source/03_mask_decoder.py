# %% [markdown]
# # 03 · Mask decoder
#
# **How does one feature map serve the masks of all instances at once?**

# %% [markdown]
# ## You will be able to …
#
# - read all masks from one map with one product (exercise 1)
# - say the shape of every map inside the mask decoder, for any frame (exercise 2)
# - let the whole scene speak to every cell: the semantic enhancer (exercise 3)
# - carry coarse features down to fine ones, and train a small decoder with it (exercise 4)
# - test whether the map needs both signs, and say what a ReLU would take away (exercise 5)
#
# You need convolutions, and the features of lesson 02: X3, X4, X5 at three scales, and X6, the scene. Each exercise stands where
# its idea is built, and *your* function draws the next picture. Until your answer is correct, the lesson goes on with ours.

# %% tags=["setup"]
import copy

import torch
import torch.nn.functional as F

import minst
from minst import visualize
from minst.course import lesson03 as check
from minst.layers import h_sigmoid
from minst.model import image_to_batch

# %% [markdown]
# ## The map

# %%
torch.set_num_threads(1)
model = minst.MobileInst.from_pretrained("shapes-tiny").requires_grad_(False)
visualize.plot_pipeline(model, size=(192, 256), highlight="mask_decoder")

# %% [markdown]
# **What it shows.** Today's block stands between the backbone and everything that has to do with instances. One map leaves it.
#
# | symbol | shape, for a frame of 192 x 256 | what it is |
# |---|---|---|
# | X3, X4, X5 | (B, 128, 24, 32), (B, 128, 12, 16), (B, 128, 6, 8) | local features at 1/8, 1/16, 1/32 |
# | X6 | (B, 208, 6, 8) | the tokens: what the transformer blocks know of the scene |
# | P3, P4, P5 | (B, D, 24, 32), … | the levels after the first pass down; D = 64 channels |
# | N4, N5 | (B, D, 12, 16), (B, D, 6, 8) | the levels after the pass up |
# | X_mask | (B, D, 24, 32) | the mask feature, at 1/8 |
# | K, M | (B, N, D), (B, N, 24, 32) | *kernels* of N = 20 queries, and their masks, as logits |
#
# G is the number of true instances in a frame.
#
# ## See the problem
#
# Here are six creatures, some behind others. Mask R-CNN runs a small mask network on a piece of the frame for each object, so
# twice the objects are twice that work. MobileInst makes one map for all. Three helpers come first:


# %%
def enlarge(logits, size=(192, 256)):
    """Mask logits (G, h, w) at any scale -> masks (G, H, W)."""
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0] > 0


def iou(inside, true):
    """IoU of bool masks (..., H, W)."""
    return (inside & true).sum((-2, -1)) / (inside | true).sum((-2, -1)).clamp_min(1)


def best_masks(network, image, true):
    """For each true mask (G, H, W) the query that fits it best: IoU (G,), query (G,), logits (G, h, w)."""
    logits = network(image_to_batch(image)).mask_logits[0]  # (N, h, w)
    scores, queries = iou(enlarge(logits)[:, None], true).max(0)
    return scores, queries, logits[queries]


# %%
clip = minst.load_sample("crowd")
image, masks = clip.render(0)
truth = torch.from_numpy(masks)  # (G, H, W)
names = [clip.categories[label] for label in clip.labels]
out = model(image_to_batch(image))
x_mask = out.mask_features[0]  # (D, h, w)
scores, queries, logits = best_masks(model, image, truth)
(colours,), _ = visualize.features.pca_rgb(x_mask)
titles = [f"{name}: query {q}\nIoU {score:.2f}" for name, q, score in zip(names, queries, scores)]
visualize.plot_images(
    [image, (255 * colours).astype("uint8"), *logits.sigmoid()],
    ["the frame", "X_mask, 64 channels\nas three colours", *titles], columns=4, limits=(0, 1),
    head="One map for the whole frame, and every mask is read from it",
    note="Masks are probabilities at 1/8: bright is inside. The butterfly is nearly hidden behind the snail.",
)

# %% [markdown]
# **What it shows.** In X_mask nearly every creature has a colour of its own, and a mask is *the cells of my colour*. Where little of
# a creature is left, as of the butterfly, little can be read.
#
# ## Predict
#
# A frame with two creatures, then one with twenty. How much more does the mask decoder compute?
#
# <details><summary>Answer, after you have thought</summary>
#
# Nothing more. It does not know that there are instances. Kernels are made for all N queries anyway, and 20 masks cost about 1 %
# of what X_mask costs. Step 5 counts it.
#
# </details>
#
# ## Step 1: what is a mask?
#
# A mask is a weighted sum of the D channels of X_mask. The weights of query n are its *kernel*, row n of K. In a CNN "kernel" means
# fixed 3x3 weights; here it is D numbers, made anew for each frame by the instance decoder. A cell is inside where the sum is
# above 0:
#
# ```text
# M = K · X_mask         M[n] = K[n, 0] X_mask[0] + … + K[n, D-1] X_mask[D-1]                                 (03.1)
# ```
#
# ### Exercise 1 (code): all masks in one product


# %% tags=["exercise"]
def apply_kernels(kernels: torch.Tensor, x_mask: torch.Tensor) -> torch.Tensor:
    """M = K . X_mask, the logits of all masks: kernels (B, N, D), x_mask (B, D, h, w) -> (B, N, h, w)."""
    # solution
    return torch.einsum("bnd,bdhw->bnhw", kernels, x_mask)


# %%
check.apply_kernels(apply_kernels)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.einsum("…,…->…", kernels, x_mask)`: give each axis a letter. The letter that is summed over is missing on the right.
#
# </details>
#
# Your product draws the mask of the starfish growing. Channels are added one by one, those with the largest contribution first:
# the largest mean of |weight · channel| over the frame.

# %%
apply_kernels = check.apply_kernels(apply_kernels).or_ours
star = names.index("starfish")
kernel = out.kernels[:, queries[star], None]  # (1, 1, D)
size_of_term = (kernel[0, 0, :, None, None] * x_mask).abs().mean((1, 2))
order = size_of_term.argsort(descending=True)
kernel, ordered = kernel[..., order], x_mask[None, order]
sums = torch.cat([apply_kernels(kernel[..., :d], ordered[:, :d])[0] for d in range(1, 65)])  # (D, h, w)
terms = torch.cat([sums[:1], sums[1:] - sums[:-1]])
cells = F.avg_pool2d(truth[star][None].float(), 8)[0] > 0.5  # the true mask at 1/8
check.film_of_sums(
    terms[:18], sums[:18], cells,
    "A film of 18 steps. Left: a channel times its weight. Middle: the sum so far. Right: its mask, from a "
    "sheet with many wrong cells in red to a starfish.")

# %%
steps = (1, 2, 4, 8, 16, 64)
visualize.plot_images(
    [sums[d - 1] > 0 for d in steps], [f"{d} of 64: IoU {iou(sums[d - 1] > 0, cells):.2f}" for d in steps],
    head="A mask grows out of channels, none of which is the mask",
    note="The film, standing still: the sum of the strongest channels, above 0. IoU with the true mask at 1/8.",
)

# %% [markdown]
# **What it shows.** No channel belongs to one creature. Each is positive on some and negative on others, and only their sum singles
# one out. (`minst.model.apply_kernels` has the same product as one matrix multiplication.)
#
# Try it yourself with two channels. Choose weights so that `w_a X_a + w_b X_b > 0` is the fish and nothing else. A search over all
# 2,016 pairs has found the two that can do it best.

# %%
fish = F.avg_pool2d(truth[names.index("fish")][None].float(), 8)[0] > 0.5  # (h, w)
unit = x_mask / x_mask.abs().amax((1, 2), keepdim=True)
both = torch.combinations(torch.arange(64))  # (2016, 2)
turns = torch.linspace(-torch.pi, torch.pi, 65)[:-1]  # the directions of (w_a, w_b)
fits = torch.stack([iou(a.cos() * unit[both[:, 0]] + a.sin() * unit[both[:, 1]] > 0, fish) for a in turns])
turn, which = divmod(int(fits.argmax()), len(both))
x_a, x_b = unit[both[which]]


def two_channels(w_a, w_b):
    """Two channels, their weighted sum, and how its mask meets the fish."""
    total = w_a * x_a + w_b * x_b
    meets = torch.where(fish, 0.3, 0.0) + torch.where(total > 0, 0.7, 0.0)
    return visualize.plot_images(
        [x_a, x_b, total, 2 * meets - 1], ["X_a", "X_b", "the weighted sum", "its mask (red), the fish (pale)"],
        head=f"{w_a:+.2f} X_a {w_b:+.2f} X_b > 0: IoU {iou(total > 0, fish):.2f} with the fish",
        note="Red: above 0. Blue: below 0. In the last picture dark red is right.", colors="coolwarm", limits=(-1, 1))


visualize.interact(two_channels, w_a=((-1, 1, 0.05), 0.5), w_b=((-1, 1, 0.05), 0.5))

# %%
two_channels(float(turns[turn].cos()), float(turns[turn].sin()))

# %% [markdown]
# **What it shows.** Neither channel is the fish, and their difference nearly is. A sum twice as large has the same sign, so only
# the *direction* of a kernel decides the mask.
#
# ## Step 2: where does X_mask come from?
#
# > **Semantic-enhanced Mask Decoder** (paper): take the backbone's features of three scales, fuse them top-down and bottom-up,
# > iteratively, with 3x3 convolutions, enrich them with the global feature, and give one mask feature at 1/8.
#
# The paper gives no formula. Ours begins with a 1x1 convolution per level, the *lateral*, which gives each level the same D
# channels: L3, L4, L5. The number of a level says its scale, 1/2^i of the frame, before and after every step. Each convolution has
# a batch norm. At inference that is one fixed scale and shift per channel, which fold into the weights and bias before it:
# `w' = w γ/σ`, `b' = β - μ γ/σ`.
#
# ### Exercise 2 (recall): the shapes inside


# %% tags=["exercise"]
def level_shapes(height: int, width: int, dim: int) -> dict[str, tuple[int, int, int]]:
    """Shapes (channels, rows, columns) of the maps in the mask decoder for a frame of height x width pixels.

    dim: D. height and width are multiples of 64. Keys: "P3", "P4", "P5", "N4", "N5", "X_mask".
    """
    # solution
    at = {s: (dim, height // s, width // s) for s in (8, 16, 32)}
    return {"P3": at[8], "P4": at[16], "P5": at[32], "N4": at[16], "N5": at[32], "X_mask": at[8]}


# %%
check.level_shapes(level_shapes)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Level i lies at 1/2^i of the frame. Which level ends in X_mask? Rows come before columns.
#
# </details>

# %%
level_shapes = check.level_shapes(level_shapes).or_ours
check.plot_decoder(level_shapes(192, 256, 64))

# %% [markdown]
# **What it shows.** Coarse levels know *what* there is, fine ones *where* its edges are. So the *what* travels down to P3, the
# *where* travels up to N5, and the result comes down once more. Your shapes stand in the boxes.
#
# ## Step 3: how does the scene speak to each cell?
#
# Before the levels are fused, X6 has its say in each. A *gate* turns local features up or down ("stripes count here, this is a
# fish"), and a *value* adds what local features cannot know:
#
# ```text
# E = L · up(h_sigmoid(to_gate(X6))) + up(to_value(X6))          h_sigmoid(x) = relu6(x + 3) / 6               (03.2)
#
# L (D,h,w) ──────────────────────────────────── × ── + ─► E (D,h,w)
# X6 (208,6,8) ─┬─ 1x1 ─► h_sigmoid ─► up ───────┘    │
#               └─ 1x1 ─► up ─────────────────────────┘
# ```
#
# Both 1x1 convolutions run on the few tokens, and only their results are upsampled. On every cell of every level they would cost
# seven times as much. For the value this makes no difference, since bilinear weights sum to 1. The gate is bent by h_sigmoid, so
# there the order matters a little.
#
# ### Exercise 3 (code): the semantic enhancer


# %% tags=["exercise"]
def semantic_enhancer(
    local: torch.Tensor, x6: torch.Tensor, to_gate: torch.nn.Module, to_value: torch.nn.Module
) -> torch.Tensor:
    """(03.2): local (B, D, h, w), x6 (B, C6, h6, w6) -> (B, D, h, w).

    to_gate, to_value: 1x1 convolutions, (B, C6, h6, w6) -> (B, D, h6, w6). Call them on x6 as it is. Upsample
    bilinearly (align_corners=False), the gate after its h_sigmoid. `h_sigmoid` is imported above.
    """
    # solution
    maps = torch.stack([h_sigmoid(to_gate(x6)), to_value(x6)])  # (2, B, D, h6, w6)
    large = F.interpolate(maps.flatten(0, 1), size=local.shape[-2:], mode="bilinear", align_corners=False)
    gate, value = large.unflatten(0, (2, -1))
    return gate * local + value


# %%
check.semantic_enhancer(semantic_enhancer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Squash the gate on its few tokens, upsample both, multiply by one and add the other.
#
# </details>
#
# Your enhancer now replaces all three in the trained decoder. With h_sigmoid(3) = 1 we can also open its gates for good, and with
# 0 switch off its values.


# %%
class Enhancer(torch.nn.Module):
    """Your function with the convolutions of a trained enhancer, some of them switched off."""

    def __init__(self, trained, gate=True, value=True):
        super().__init__()
        self.to_gate = trained.gate if gate else lambda x6: 0 * trained.gate(x6) + 3
        self.to_value = trained.value if value else lambda x6: 0 * trained.value(x6)

    def forward(self, local, x6):
        return semantic_enhancer(local, x6, self.to_gate, self.to_value)


def with_enhancers(**switches):
    """The trained model with your enhancers."""
    changed = copy.deepcopy(model)
    for name in ("enhance_x3", "enhance_x4", "enhance_x5"):
        setattr(changed.mask_decoder, name, Enhancer(getattr(model.mask_decoder, name), **switches))
    return changed


# %%
semantic_enhancer = check.semantic_enhancer(semantic_enhancer).or_ours
clips = [minst.load_sample(name) for name in minst.sample_names()]
settings = {"yours, as trained": with_enhancers(), "no value": with_enhancers(value=False)}
settings |= {"no gate": with_enhancers(gate=False), "neither": with_enhancers(gate=False, value=False)}
same = settings["yours, as trained"](image_to_batch(image)).mask_features
torch.testing.assert_close(same, out.mask_features, atol=1e-3, rtol=1e-3)  # equal to minst's own
for words, network in settings.items():
    frames = [some.render(t) for some in clips for t in range(0, len(some), 6)]
    found = [best_masks(network, x, torch.from_numpy(m[m.any((1, 2))]))[0] for x, m in frames]
    print(f"{words:>17}: mean IoU of the best query {torch.cat(found).mean():.2f}")

# %%
drawn = [masks]
for words in ("yours, as trained", "neither"):
    drawn.append(enlarge(best_masks(settings[words], image, truth)[2]).numpy())
visualize.plot_images(
    [visualize.draw_frame(0 * image + 225, m, range(1, 7), scale=1) for m in drawn],
    ["the truth", "your enhancers, trained weights", "enhancers off"],
    head="Without enhancers the same weights give poorer masks",
    note="For every creature the query that fits it best. On the right all gates are 1 and all values 0.")

# %% [markdown]
# **What it shows.** Holes and scraps appear where the scene cannot speak. Compare *no value* with *neither* above: a gate that turns
# features down does harm when no value refills them.
#
# Mind what this is. These weights were trained *with* enhancers and lean on them. Only a network trained without them could show
# what they are worth, which is the paper's ablation and lesson 09's.
#
# ## Step 4: how do fine and coarse levels meet?
#
# A feature pyramid network (FPN) hands the *what* down: upsample the coarser level, add it, smooth by a 3x3 convolution. Our decoder
# goes up again, with depth-wise convolutions of stride 2 (`down`), and then down a second time:
#
# ```text
# down    P5 = conv(E5)               P4 = conv(E4 + up(P5))       P3 = conv(E3 + up(P4))                      (03.3)
# up      N4 = conv(P4 + down(P3))    N5 = conv(P5 + down(N4))
# down    X_mask = conv(P3 + up(N4 + up(N5)))
# ```
#
# Each `conv` is 3x3 with a batch norm and a ReLU; the last one has no ReLU. `minst.mask_decoder` is (03.3) line by line. The stage
# `P4 = conv(E4 + up(P5))` is the pattern of all others, and your exercise is the first pass without its convolutions.
#
# ### Exercise 4 (code): down the pyramid


# %% tags=["exercise"]
def top_down(l3: torch.Tensor, l4: torch.Tensor, l5: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The top-down pass without its convolutions: levels (B, D, h_i, w_i), fine to coarse -> (P3, P4, P5), same shapes.

    P5 is l5. Each finer level adds the one below it, upsampled bilinearly (align_corners=False) to its own size.
    """
    # solution
    p4 = l4 + F.interpolate(l5, size=l4.shape[-2:], mode="bilinear", align_corners=False)
    return l3 + F.interpolate(p4, size=l3.shape[-2:], mode="bilinear", align_corners=False), p4, l5


# %%
check.top_down(top_down)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Begin at the coarse end. P3 gets P4, which already holds P5. The default mode of `F.interpolate` is not bilinear.
#
# </details>
#
# Now train. A tiny mask decoder of your three functions overfits the clip `twins`: two equal starfish that move. Its kernels are
# two parameters, one per starfish. It learns from every fourth frame, and we test it on the frames half-way between. **Predict:**
# what helps more to tell the twins apart, the coarser levels or the scene?


# %%
class TinyDecoder(torch.nn.Module):
    def __init__(self, coarser, scene, dim=32):
        super().__init__()
        conv = torch.nn.Conv2d
        self.lateral = torch.nn.ModuleList(conv(c, dim, 1) for c in (32, 64, 96))
        self.gate, self.value = (torch.nn.ModuleList(conv(208, dim, 1) for _ in "345") for _ in "gv")
        self.mix = torch.nn.Sequential(conv(dim, dim, 3, padding=1), torch.nn.ReLU(), conv(dim, dim, 3, padding=1))
        self.kernels = torch.nn.Parameter(0.1 * torch.randn(1, 2, dim))
        self.coarser, self.scene = coarser, scene

    def forward(self, x3, x4, x5, x6):
        """Local maps of B frames and their X6 -> mask logits (B, 2, 24, 32)."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, (x3, x4, x5))]
        if self.scene:
            parts = zip(levels, self.gate, self.value)
            levels = [semantic_enhancer(level, x6, gate, value) for level, gate, value in parts]
        p3 = top_down(*levels)[0] if self.coarser else levels[0]
        return apply_kernels(self.kernels.expand(len(p3), -1, -1), self.mix(p3))


# %%
def maps_and_masks(clip, times):
    """Local maps at 1/8, 1/16, 1/32 before any injection, X6; true masks (B, G, H, W)."""
    frames = torch.cat([image_to_batch(clip.image(t)) for t in times])
    tokens = model.backbone.tpm((frames - model.pixel_mean) / model.pixel_std)
    x6 = model.backbone.trans(model.backbone.pool(tokens))
    return [*tokens[1:], x6], torch.stack([torch.from_numpy(clip.masks(t)) for t in times])


def overfit(net, maps, true, steps=220):
    """Adam on the covered share of each cell."""
    wanted, optimizer = F.avg_pool2d(true.float(), 8), torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(net(*maps), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# %%
top_down = check.top_down(top_down).or_ours
twins = minst.load_sample("twins")
learned, between = maps_and_masks(twins, range(0, 28, 4)), maps_and_masks(twins, range(2, 24, 4))
tested = {}
for words, parts in {"X3 alone": (0, 0), "your top-down": (1, 0), "and your enhancer": (1, 1)}.items():
    torch.manual_seed(0)
    net = TinyDecoder(*parts)
    overfit(net, *learned)
    here, there = (torch.stack([enlarge(x) for x in net(*maps).detach()]) for maps, _ in (learned, between))
    tested[words] = there
    print(f"{words:>17}: IoU {iou(here, learned[1]).mean():.2f} on the frames that it learned,", end=" ")
    print(f"{iou(there, between[1]).mean():.2f} between them")

drawn = {"the truth": between[1], **tested}
pictures = []
for i in (2, 5):  # frames 10 and 22
    pictures += [visualize.draw_frame(0 * image + 225, x[i].numpy(), [1, 3], scale=1) for x in drawn.values()]
visualize.plot_images(
    pictures, 2 * list(drawn), columns=4, head="To know a starfish is easy, to know which one is not",
    note="Above, frame 10, below, frame 22; both lie between learned frames. A colour for each of the two.",
)

# %% [markdown]
# **What it shows.** All three fit the learned frames about equally well. On the frames between them, X3 alone gives the twins parts
# of each other. On average your top-down pass helps, and the scene helps again: cells that look alike are told apart by what else is known of
# the frame. Three seeds gave us the same order. It is one clip, though, and no proof that an enhancer helps in general.
#
# What is the way up good for? Ask one cell of X_mask, in the middle of the frame, which cells of X3 could change it. The gradient
# answers.

# %%
def reach(decoder):
    """|d X_mask[middle] / d X3|, summed over channels: (24, 32)."""
    features = model.backbone((image_to_batch(image) - model.pixel_mean) / model.pixel_std)
    x3 = features.x3.clone().requires_grad_()
    decoder(x3, *features[1:])[0, :, 12, 16].sum().backward()
    return x3.grad[0].abs().sum(0)


top_down_only = copy.deepcopy(model.mask_decoder)
top_down_only.bottom_up = False  # what the switch of this name does
reached = [reach(d) for d in (top_down_only, model.mask_decoder)]
counts = [int((r > 0).sum()) for r in reached]
visualize.plot_images(
    [(r / r.max()).clamp_min(1e-4).log10() for r in reached],
    [f"top-down only: {counts[0]} cells of 768", f"down, up, down: {counts[1]} cells of 768"],
    head="On the way up, fine details reach the whole frame",
    note="How much each cell of X3 can move the middle cell of X_mask, in powers of ten: 0 most, -4 hardly or not.",
)

# %% [markdown]
# **What it shows.** With the way down alone, X3 reaches X_mask through two 3x3 convolutions, a patch of five by five cells. With the
# way up, nearly all cells count. A mask must know where its creature ends, and that may be far away.
#
# ## Step 5: what can no kernel say?
#
# `Assumption:` X_mask is linear, with no ReLU at its end, so that one channel can say both yes and no. Is that needed? Suppose that
# X_mask ended in a ReLU. Some cells might then be lost for every kernel that anybody could choose.
#
# ### Exercise 5 (break it): a ReLU at the end


# %% tags=["exercise"]
def unreachable(x_mask: torch.Tensor) -> torch.Tensor:
    """Cells that no kernel can put inside a mask (logit > 0) once X_mask has gone through a ReLU.

    x_mask (D, h, w), before the ReLU -> (h, w) bool, True where the logit stays at 0 or below for every kernel.
    """
    # solution
    return (x_mask <= 0).all(0)


# %%
check.unreachable(unreachable)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Weights of a kernel may be negative. One channel that is above 0 at a cell is enough for it: which kernel proves that?
#
# </details>

# %%
unreachable = check.unreachable(unreachable).or_ours
strongest = x_mask[x_mask.flatten(1).std(1).argsort(descending=True)]  # the channel that varies most comes first
counts = (1, 2, 4, 8, 16, 64)
lost = [torch.as_tensor(unreachable(strongest[:d])) for d in counts]
visualize.plot_images(
    lost, [f"D = {d}: {int(cells_lost.sum())} of 768 lost" for d, cells_lost in zip(counts, lost)],
    head="With few channels a ReLU would lose cells; with 64 it loses none",
    note="White: cells that no kernel could put inside a mask, if X_mask had only its D channels that vary most.")

# %% [markdown]
# **What it shows.** The argument of two signs holds for one channel. It does not show that 64 channels need them.
#
# So test it. Leave the instance decoder out, and find by least squares (with a small ridge) the kernel whose product with X_mask comes
# nearest to a *true* mask: +1 inside, -1 outside. As 64 numbers fit something in any features, there is a control, an untrained mask
# decoder. And there is a harder test: the same kernels three frames later, where nothing was fitted.


# %%
def fit(features, true):
    """Kernels (G, D) whose sums of features (D, h, w) come nearest to masks (G, H, W): ridge regression."""
    x = features.flatten(1)  # (D, h w)
    wanted = 2 * F.avg_pool2d(true[:, None].float(), 8).flatten(1) - 1  # (G, h w)
    ridge = 1e-4 * x.square().sum() / len(x) * torch.eye(len(x))
    return torch.linalg.solve(x @ x.T + ridge, x @ wanted.T).T


torch.manual_seed(0)
control, clipped = copy.deepcopy(model), copy.deepcopy(model)
control.mask_decoder = minst.mask_decoder.MaskDecoder(model.backbone.out_channels, 64).eval().requires_grad_(False)
clipped.mask_decoder.out.act = torch.nn.ReLU()

# %%
for words, network in {"trained": model, "untrained": control, "trained, ReLU": clipped}.items():
    found = [], []
    for some, t in [(some, t) for some in clips for t in (0, 6, 12, 18)]:
        (first, true), (later, moved) = some.render(t), some.render(t + 3)
        seen = (true.sum((1, 2)) >= 12) & (moved.sum((1, 2)) >= 12)
        true, moved = (torch.from_numpy(m[seen]) for m in (true, moved))
        features = [network.encode(image_to_batch(picture)).x_mask for picture in (first, later)]
        kernels = fit(features[0][0], true)[None]
        for row, x, m in zip(found, features, (true, moved)):
            row += iou(enlarge(apply_kernels(kernels, x)[0]), m).tolist()
    own, after = (sum(row) / len(row) for row in found)
    print(f"{words:>13}: IoU {own:.2f} where fitted, {after:.2f} three frames later")

# %% [markdown]
# Fitting is easy. What the decoder has *learned* is that a creature keeps its combination of channels while it moves: three frames
# later the control has lost far more. Lesson 07 lives on that. **Negative result:** with the ReLU, kernels fit no worse, even a
# little better. Nothing that we measured supports our assumption of two signs.
#
# ### Why 1/8?
#
# A convolution costs `k k C_in C_out / groups` per cell. For the gain, reduce each true mask to its *coverage*, the covered
# fraction of every cell, upsample it, and compute the IoU with the original. No network is involved.


# %%
def decoder_macs(finest, height=192, width=256, d=64):
    """MACs of the mask decoder when its levels lie at 1/finest, 1/(2 finest), 1/(4 finest)."""
    fine, middle, coarse = (height * width // s**2 for s in (finest, 2 * finest, 4 * finest))
    laterals = 128 * d * (fine + middle + coarse)
    enhancers = 3 * 2 * 208 * d * (height // 32) * (width // 32)  # on the tokens, wherever the levels lie
    first_down = 9 * d * d * (fine + middle + coarse)
    bottom_up = (9 * d + 9 * d * d) * (middle + coarse)  # depth-wise with stride 2, then a full 3x3
    return laterals + enhancers + first_down + bottom_up + 9 * d * d * fine  # and the last one


table = {part: row["macs"] for part, row in minst.summary(model, (192, 256)).items()}
assert decoder_macs(8) == table["mask_decoder"] and table["masks"] == 20 * 64 * 24 * 32
true = torch.cat([torch.from_numpy(some.masks(t)) for some in clips for t in range(0, len(some), 3)])
true = true[true.sum((1, 2)) >= 16]
for s in (4, 8, 16):
    kept = iou(enlarge(2 * F.avg_pool2d(true[:, None].float(), s)[:, 0] - 1), true)
    print(f"X_mask at 1/{s:<2}: {decoder_macs(s) / 1e6:3.0f} million MACs, IoU {kept.mean():.2f} kept by storing")
print(f"backbone: {table['backbone'] / 1e6:.0f} million; masks of 20 queries: {table['masks'] / 1e6:.0f} million")

# %% [markdown]
# Each finer step costs about four times as much, and the second buys less than the first. At 1/4 the decoder alone outweighs the
# backbone. So 1/8 is a trade, not a law. It is no strict ceiling either, as better logits than coverage exist. That is why lesson
# 05 enlarges the logits before it compares them.
#
# ## Paper against ours
#
# - `Assumption:` sums, one 3x3 convolution after each, one round down - up - down, depth-wise convolutions on the way up.
# - `Assumption:` the enhancer is TopFormer's semantic injection, put into the mask decoder. The backbone of `shapes-tiny` injects X6
#   once already, so switching the enhancers off leaves a scene in X3 to X5.
# - `Deviation:` tokens at 1/32, not 1/64: small frames have few of them.
# - Our creatures are large, most above 40 pixels. Small objects would lose more by storing.
#
# ## Summary
#
# - X_mask is computed once per frame. A mask is a weighted sum of its channels, and a kernel holds the weights.
# - Top-down brings *what* to the fine levels, bottom-up spreads *where* over the frame.
# - The enhancer lets the scene gate and refill local features, computed on the few tokens.
#
# **Quiz.** (1) Why is the enhancer's gate cheap? (2) What is the mask of the kernel -K? (3) Who suffers first from a coarser X_mask?
#
# <details><summary>Answers</summary>
#
# (1) Its convolution runs on the tokens. (2) The complement of K's mask, but for cells at exactly 0. (3) Small and thin instances.
#
# </details>
#
# **An open question**, which no cell answers. Convolutions treat all places alike. Two equal starfish lie on an even ground, far from
# the borders. What in X_mask could differ between them, so that a kernel can have one without the other? Predict where that
# difference comes from, and describe an experiment that would tell.
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · T.-Y. Lin et al., *Feature Pyramid Networks*, CVPR 2017,
# arXiv 1612.03144 · S. Liu et al., *Path Aggregation Network*, CVPR 2018, arXiv 1803.01534 (the way up) · W. Zhang et al.,
# *TopFormer*, CVPR 2022, arXiv 2204.05525 · K. He et al., *Mask R-CNN*, ICCV 2017, arXiv 1703.06870.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 70 minutes with all exercises: 15 for step 1 (let the room find the fish), 10 for step 2, 15 for step 3, 20 for step 4, 10 for step
# 5. In 30 minutes, show steps 1 and 4. Common mistakes: rows and columns change places; N4 is taken for coarser than P4; P3 adds
# L4, not P4; `F.interpolate` is left at nearest; the value is squashed or multiplied; one clipped channel is taken for a lost cell.
#
# The open question, a point each. (1) Equal surroundings give equal features, and then one kernel takes both. (2) Differences can
# come from padding at the borders, from neighbours within the view, and from X6, whose tokens have seen everything. (3) An
# experiment: paste one starfish twice, compare X_mask at both places, with X6 as it is and averaged over the frame. (4) A remedy, such
# as coordinates as channels, and what it would break: a kernel that knows a place loses what moves. We tried it on photographs. Masks
# came to lean on the coordinates, and no more neighbours were told apart (`results/photos/TRIALS.md`, phase 7).
#
# </details>
