# %% [markdown]
# # 03 · Mask decoder
#
# **How does one feature map serve the masks of all instances at once?**

# %% [markdown]
# ## You will be able to …
#
# - say the shape of every map inside the mask decoder, for any frame (exercise 1)
# - carry coarse features down to fine ones: the top-down pass of a feature pyramid (exercise 2)
# - let the whole scene speak to every cell: the semantic enhancer (exercise 3)
# - read all masks from one map with one product (exercise 4)
# - test whether that map needs both signs, and say what a ReLU would take away (exercise 5)
#
# You need convolutions and from lesson 02 the features: X3, X4, X5 at three scales, and X6, the scene.

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
#
# Today's block stands between the backbone and everything that has to do with instances.

# %%
model = minst.MobileInst.from_pretrained("shapes-tiny").requires_grad_(False)
visualize.plot_pipeline(model, size=(192, 256), highlight="mask_decoder")

# %% [markdown]
# **What it shows.** X3, X4, X5 and, by an arrow of its own, X6 enter the mask decoder. One map X_mask comes out: kernels are
# multiplied with it, and a pooled copy goes to the instance decoder.
#
# | symbol | shape, for a frame of 192 x 256 | what it is |
# |---|---|---|
# | X3, X4, X5 | (B, 128, 24, 32), (B, 128, 12, 16), (B, 128, 6, 8) | local features at 1/8, 1/16, 1/32 |
# | X6 | (B, 208, 6, 8) | the tokens: what the transformer blocks know of the scene |
# | P3, P4, P5 | (B, D, 24, 32), … | the levels after the first pass down; D = 64 channels |
# | N4, N5 | (B, D, 12, 16), (B, D, 6, 8) | the levels after the pass up |
# | X_mask | (B, D, 24, 32) | the mask feature, at 1/8 |
# | K, M | (B, N, D), (B, N, 24, 32) | kernels of N = 20 queries, and their masks, as logits |
#
# ## See the problem
#
# Six creatures, some behind others. Two-stage methods such as Mask R-CNN run a small mask network on a piece for each object:
# twice the objects, twice that work. Here everything happens once. First the helpers that we shall use throughout:


# %%
def enlarge(logits, size=(192, 256)):
    """Mask logits (M, h, w) at any scale -> masks (M, H, W)."""
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0] > 0


def iou(inside, true):
    """IoU of bool masks (..., H, W)."""
    return (inside & true).sum((-2, -1)) / (inside | true).sum((-2, -1)).clamp_min(1)


def best_masks(network, image, true):
    """For each of the true masks (M, H, W) the query that fits it best: IoU (M,), query (M,), logits (M, h, w)."""
    logits = network(image_to_batch(image)).mask_logits[0]  # (N, h, w)
    scores, queries = iou(enlarge(logits)[:, None], true).max(0)
    return scores, queries, logits[queries]


# %%
clip = minst.load_sample("crowd")
image, masks = clip.render(0)
truth = torch.from_numpy(masks)  # (M, H, W)
names = [clip.categories[label] for label in clip.labels]
out = model(image_to_batch(image))
x_mask = out.mask_features[0]  # (D, h, w)
scores, queries, logits = best_masks(model, image, truth)
(colours,), _ = visualize.features.pca_rgb(x_mask)
visualize.plot_images(
    [image, (255 * colours).astype("uint8"), *logits.sigmoid()],
    ["the frame", "X_mask, 64 channels\nas three colours"]
    + [f"{name}: query {q}\nIoU {s:.2f}" for name, q, s in zip(names, queries, scores)],
    head="One map for the whole frame, and every mask is read from it",
    note="Masks are probabilities at 1/8: bright is inside. The butterfly is nearly hidden behind the snail.",
    columns=4, limits=(0, 1),
)

# %% [markdown]
# **What it shows.** The frame; X_mask, its 64 channels squeezed into three colours; six masks. In X_mask nearly every creature
# has a colour of its own, and a kernel says *which colour is mine*. The titles name the query that comes nearest to each
# creature, and its IoU. The butterfly is the hardest: the snail leaves little of it.
#
# ## Predict
#
# A frame with two creatures, then one with twenty. How much more does the mask decoder compute?
#
# <details><summary>Answer, after you have thought</summary>
#
# Nothing more. It does not know that there are instances. Kernels are computed for all N queries anyway, and 20 masks cost
# about 1 % of what X_mask costs: one multiplication per channel and cell. We shall count it below.
#
# </details>
#
# ## Build it
#
# We rebuild the trained decoder with its own weights, step by step, and must arrive at the same X_mask.
#
# > **Semantic-enhanced Mask Decoder** (paper): take the backbone's features of three scales, fuse them top-down and bottom-up,
# > iteratively, with 3x3 convolutions, enrich them with the global feature, and give one mask feature at 1/8.
#
# ### Step 1: one width
#
# The levels come with as many channels as the backbone likes. A 1x1 convolution per level, the *lateral*, gives all of them D
# channels. At inference, batch norm is one fixed scale and shift per channel, so it folds into the convolution before it:
# `w' = w gamma / sigma`, `b' = beta - mean gamma / sigma`. That is `ConvNorm` in `minst.layers`. `minst.mask_decoder` names
# each part after the level that it serves: `lateral_x3` belongs to X3, `enhance_x4` to level 4, `fuse_p5` makes P5.


# %% tags=["nbval-check-output"]
def conv(block, x):
    """A `ConvNorm` in eval mode: one convolution, the batch norm folded in, then the activation."""
    scale = block.bn.weight / (block.bn.running_var + block.bn.eps).sqrt()  # (C_out,)
    weight = block.conv.weight * scale[:, None, None, None]
    bias = block.bn.bias - block.bn.running_mean * scale
    return block.act(F.conv2d(x, weight, bias, block.conv.stride, block.conv.padding, groups=block.conv.groups))


decoder = model.mask_decoder
x3, x4, x5, x6 = model.backbone((image_to_batch(image) - model.pixel_mean) / model.pixel_std)
l3, l4, l5 = conv(decoder.lateral_x3, x3), conv(decoder.lateral_x4, x4), conv(decoder.lateral_x5, x5)
torch.testing.assert_close(l3, decoder.lateral_x3(x3), atol=1e-3, rtol=1e-3)
for name, x in {"x3": x3, "x4": x4, "x5": x5, "x6": x6, "l3": l3, "l4": l4, "l5": l5}.items():
    print(name, tuple(x.shape))

# %% [markdown]
# ### Step 2: the semantic enhancer
#
# Before the levels are fused, the scene has its say in each of them. X6 gives two maps of D channels:
#
# ```text
# E = L * h_sigmoid(gate(X6)) + value(X6)          h_sigmoid(x) = relu6(x + 3) / 6, between 0 and 1
# ```
#
# The *gate* turns local features up or down ("stripes count here, this is a fish"); the *value* adds what local features
# cannot know. Both are computed on the few tokens and upsampled afterwards. Is that the same as upsampling X6 first? A 1x1
# convolution works on each cell alone, bilinear upsampling mixes cells with weights that sum to 1: these two may change places.
# The hard sigmoid is bent, so for the gate it is only nearly the same. The cost is not:


# %% tags=["nbval-check-output"]
def up(x, like):
    """Bilinear, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def enhance(enhancer, local):
    """local (B, D, h, w), with this frame's X6 -> (B, D, h, w)."""
    gate, value = h_sigmoid(conv(enhancer.gate, x6)), conv(enhancer.value, x6)  # (B, D, 6, 8)
    return local * up(gate, local) + up(value, local)


e3, e4, e5 = enhance(decoder.enhance_x3, l3), enhance(decoder.enhance_x4, l4), enhance(decoder.enhance_x5, l5)
torch.testing.assert_close(e3, decoder.enhance_x3(l3, x6), atol=1e-3, rtol=1e-3)

large, gate, value = up(x6, l3), decoder.enhance_x3.gate, decoder.enhance_x3.value
torch.testing.assert_close(conv(value, large), up(conv(value, x6), l3), atol=1e-3, rtol=1e-3)
assert (h_sigmoid(conv(gate, large)) - up(h_sigmoid(conv(gate, x6)), l3)).abs().mean() < 0.02
macs = [2 * 208 * 64 * cells for cells in (3 * 6 * 8, 24 * 32 + 12 * 16 + 6 * 8)]
print(f"gates and values on the tokens: {macs[0]:,} MACs; on every cell: {macs[1]:,}, {macs[1] // macs[0]} times")

# %% [markdown]
# ### Step 3: down, up, and down again
#
# Fine levels know *where* an edge is, coarse ones *what* is there. A feature pyramid network (FPN) hands the *what* down:
# upsample the coarser level, add, smooth by a 3x3 convolution, and stop at P3. Here fine details then travel *up* (strided
# depth-wise convolutions, nearly free), and the result comes down a second time:
#
# ```text
# down    P5 = conv(E5)                 P4 = conv(E4 + up(P5))        P3 = conv(E3 + up(P4))
# up      N4 = conv(P4 + down(P3))      N5 = conv(P5 + down(N4))
# down    X_mask = conv(P3 + up(N4 + up(N5)))
# ```
#
# What is the way up good for? Once the decoder stands, ask one cell of X_mask, in the middle of the frame, which cells of X3
# could change it. The gradient answers.

# %% tags=["nbval-check-output"]
p5 = conv(decoder.fuse_p5, e5)
p4 = conv(decoder.fuse_p4, e4 + up(p5, e4))
p3 = conv(decoder.fuse_p3, e3 + up(p4, e3))
n4 = conv(decoder.fuse_n4, p4 + conv(decoder.down_p3, p3))
n5 = conv(decoder.fuse_n5, p5 + conv(decoder.down_n4, n4))
by_hand = conv(decoder.out, p3 + up(n4 + up(n5, n4), p3))

torch.testing.assert_close(by_hand, decoder(x3, x4, x5, x6), atol=1e-3, rtol=1e-3)  # minst's own
torch.testing.assert_close(by_hand, out.mask_features, atol=1e-3, rtol=1e-3)  # and what the model used
for name, x in {"p3": p3, "p4": p4, "p5": p5, "n4": n4, "n5": n5, "X_mask": by_hand}.items():
    print(name, tuple(x.shape))

# %%
def reach(decoder):
    """|d X_mask[middle] / d X3|, summed over channels: (24, 32)."""
    x = x3.clone().requires_grad_()
    decoder(x, x4, x5, x6)[0, :, 12, 16].sum().backward()
    return x.grad[0].abs().sum(0)


# %%
top_down_only = copy.deepcopy(decoder)
top_down_only.bottom_up = False  # what the switch of this name does
reached = [reach(d) for d in (top_down_only, decoder)]
counts = [int((r > 0).sum()) for r in reached]
visualize.plot_images(
    [(r / r.max()).clamp_min(1e-4).log10() for r in reached],
    [f"top-down only: {counts[0]} cells of 768", f"down, up, down: {counts[1]} cells of 768"],
    head="On the way up, fine details reach the whole frame",
    note="How much each cell of X3 can move the middle cell of X_mask, in powers of ten: 0 most, -4 hardly or not.",
)

# %% [markdown]
# **What it shows.** Left: X3 reaches X_mask through two 3x3 convolutions, a patch of five by five cells; all else is dark.
# Right: through N4 and N5 nearly all cells count, less with distance. A mask must know where its creature ends, and that may
# be far away. (X4 to X6 bring *coarse* context either way.)
#
# ## Look inside
#
# First all maps on the way, then eight channels of X_mask.

# %%
visualize.plot_features(model, clip, 0)

# %%
strong = x_mask.flatten(1).std(1).argsort(descending=True)[:8].sort().values.tolist()
negative = 100 * float((x_mask < 0).float().mean())
assert (x_mask > 0).any(0).all()  # every cell is above 0 in some channel: exercise 5 asks what if not
visualize.plot_images(
    [x_mask[d] / x_mask[d].abs().max() for d in strong], [f"channel {d}" for d in strong],
    head=f"Channels say yes and no: {negative:.0f} % of all values are negative",
    note="The eight channels that vary most, each over its largest magnitude. Red: above 0. Blue: below 0.",
    colors="coolwarm", limits=(-1, 1), columns=4,
)

# %% [markdown]
# **What they show.** The first figure, upper row: X3 to X5, ever coarser; X3 sees edges and textures. Below, each level before
# and after its enhancer in shared colours. Left: the frame, X6 and X_mask. In X_mask stripes have merged, creatures have colours.
# The second figure: no channel belongs to one creature. Each is positive on some and negative on others.
#
# ### Any mask is a weighted sum of channels
#
# A *combination* of channels belongs to one creature, and the kernel holds its weights:
# `M[n] = K[n, 0] X_mask[0] + … + K[n, 63] X_mask[63]`. As a loop, as one product, as minst has it.
#
# Then try it yourself, with two channels alone: choose weights so that `w_a X_a + w_b X_b > 0` is the fish and nothing else.
# (The cell searches all 2,016 pairs for the one that can do it best.)

# %%
assert out.kernels.shape == (1, 20, 64) and out.mask_logits.shape == (1, 20, 24, 32)
kernels, looped = out.kernels[0], torch.zeros(20, 24, 32)  # (N, D), (N, h, w)
for n, d in [(n, d) for n in range(20) for d in range(64)]:
    looped[n] += kernels[n, d] * x_mask[d]
product = (kernels @ x_mask.flatten(1)).view(20, 24, 32)
torch.testing.assert_close(looped, product, atol=1e-3, rtol=1e-3)
package = minst.model.apply_kernels(out.kernels, out.mask_features)[0]
torch.testing.assert_close(product, package, atol=1e-3, rtol=1e-3)

# %%
fish = F.avg_pool2d(truth[names.index("fish")][None].float(), 8)[0] > 0.5  # (h, w)
unit, both = x_mask / x_mask.abs().amax((1, 2), keepdim=True), torch.combinations(torch.arange(64))  # (2016, 2)
turns = torch.linspace(-torch.pi, torch.pi, 65)[:-1]  # the directions of (w_a, w_b)
fits = torch.stack([iou(a.cos() * unit[both[:, 0]] + a.sin() * unit[both[:, 1]] > 0, fish) for a in turns])
turn, which = divmod(int(fits.argmax()), len(both))
pair, best = unit[both[which]], (float(turns[turn].cos()), float(turns[turn].sin()))  # (2, h, w)
w = torch.linspace(-1, 1, 41)
landscape = iou(w[:, None, None, None] * pair[1] + w[:, None, None] * pair[0] > 0, fish)  # (w_b, w_a)


def two_channels(w_a, w_b):
    """Two channels, their weighted sum, its mask, and where this choice stands among all."""
    fig, total = visualize.new_figure(2.5), w_a * pair[0] + w_b * pair[1]
    head = f"{w_a:+.2f} X_a {w_b:+.2f} X_b > 0: IoU {iou(total > 0, fish):.2f} with the fish"
    visualize.headline(fig, head, "Line: true outline. Right: IoU of every choice, bright is high; cross: this one.")
    panels = {"X_a": pair[0], "X_b": pair[1], "the sum: red above 0": total, "its mask: white": total > 0}
    for i, (words, panel) in enumerate(panels.items()):
        axes = fig.add_axes((0.01 + 0.19 * i, 0.15, 0.18, 0.53), xticks=[], yticks=[])
        axes.imshow(panel, vmin=0 if i == 3 else -1, vmax=1, cmap="gray" if i == 3 else "coolwarm")
        axes.contour(fish, [0.5], colors=visualize.RED if i == 3 else visualize.INK, linewidths=1)
        axes.set_title(words, fontsize=8)
    axes = fig.add_axes((0.83, 0.2, 0.15, 0.5), xlabel="w_a", ylabel="w_b")
    axes.imshow(landscape, extent=(-1, 1, -1, 1), origin="lower", vmin=0, vmax=1)
    axes.plot(w_a, w_b, "wX", markersize=9, markeredgecolor="black")
    return fig


visualize.interact(two_channels, w_a=((-1, 1, 0.05), 0.5), w_b=((-1, 1, 0.05), 0.5))

# %%
two_channels(*best)

# %% [markdown]
# **What it shows.** Two channels, neither of which is the fish, and their best weighted sum, which is above 0 nearly on the fish
# alone. At the right good choices form a bright wedge: only the direction of the weights moves this mask, for a sum twice as
# large has the same sign. On the axes of that square one channel stands alone: compare its IoU with that of the wedge.
# `Assumption:` X_mask is linear, with no ReLU at its end, so that one channel can say both yes and no.
#
# ### What could a kernel say, at best?
#
# Leave the instance decoder out. Take the *true* mask and find, by least squares (with a small ridge), the kernel whose product
# with X_mask comes nearest to it: +1 inside, -1 outside. But 64 numbers fit something in any features. So there is a control,
# an untrained mask decoder behind the same trained backbone, and a test: the same kernels three frames later, where nothing was
# fitted. A third row puts a ReLU behind the trained X_mask.


# %%
def fit(features, true):
    """Kernels (M, D) whose sums of features (D, h, w) come nearest to masks (M, H, W): ridge regression."""
    x = features.flatten(1)  # (D, P)
    wanted = 2 * F.avg_pool2d(true[:, None].float(), 8).flatten(1) - 1  # (M, P)
    ridge = 1e-4 * x.square().sum() / len(x) * torch.eye(len(x))
    return torch.linalg.solve(x @ x.T + ridge, x @ wanted.T).T


def fitted_masks(network, pictures, true):
    """Kernels fitted to `true` in the first of two pictures, and applied in both: two times masks (M, H, W)."""
    features = [network.encode(image_to_batch(picture)).x_mask[0] for picture in pictures]
    kernels = fit(features[0], true)
    return [enlarge(torch.einsum("md,dhw->mhw", kernels, x)) for x in features]


torch.manual_seed(0)
control, clipped = copy.deepcopy(model), copy.deepcopy(model)
control.mask_decoder = minst.mask_decoder.MaskDecoder(model.backbone.out_channels, 64).eval().requires_grad_(False)
clipped.mask_decoder.out.act = torch.nn.ReLU()

# %%
clips = [minst.load_sample(name) for name in minst.sample_names()]
for words, network in {"trained": model, "untrained": control, "trained, ReLU": clipped}.items():
    found = [], []
    for some, t in [(some, t) for some in clips for t in (0, 6, 12, 18)]:
        pictures, true = zip(some.render(t), some.render(t + 3))
        seen = (true[0].sum((1, 2)) >= 12) & (true[1].sum((1, 2)) >= 12)
        true = [torch.from_numpy(m[seen]) for m in true]
        for row, got, m in zip(found, fitted_masks(network, pictures, true[0]), true):
            row += iou(got, m).tolist()
    own, later = (sum(row) / len(row) for row in found)
    print(f"{words:>13}: IoU {own:.2f} where fitted, {later:.2f} three frames later")

drawn = [clip.masks(3), *(fitted_masks(x, (image, clip.image(3)), truth)[1].numpy() for x in (model, control))]
visualize.plot_images(
    [visualize.draw_frame(0 * image + 225, m, range(1, 7), scale=1) for m in drawn],
    ["frame 3: the truth", "kernels of frame 0, trained X_mask", "kernels of frame 0, untrained X_mask"],
    head="Kernels fitted on the trained X_mask find their creatures three frames later",
    note="An outline and a colour for each creature. Kernels were fitted to the true masks of frame 0.",
)

# %% [markdown]
# **What it shows.** Left the truth of frame 3. In the middle the kernels of frame 0 on the trained X_mask still give their
# creatures, the hidden butterfly least. Right, on the untrained one, masks crumble and mix. The means over all clips, printed
# above it, agree: three frames later the control has lost far more than the trained one. Fitting is easy; what the decoder has
# *learned* is that a creature keeps its combination of channels while it moves. Lesson 07 lives on that.
#
# ### The enhancers, switched off
#
# A gate of 1 and a value of 0 leave local features as they are. Batch norm's scale 0 and shift 3 make the gate's hard sigmoid 1:


# %%
def without(gate=False, value=False):
    """The trained model with all gates set to 1, or all values to 0, or both."""
    changed = copy.deepcopy(model)
    fusion = changed.mask_decoder
    for enhancer in (fusion.enhance_x3, fusion.enhance_x4, fusion.enhance_x5):
        for part, shift, switched in ((enhancer.gate, 3.0, gate), (enhancer.value, 0.0, value)):
            if switched:
                part.bn.weight.fill_(0.0), part.bn.bias.fill_(shift)
    return changed


# %%
settings = {"as trained": model, "no value": without(value=True), "no gate": without(gate=True)}
settings["neither"] = without(gate=True, value=True)
torch.testing.assert_close(settings["neither"].mask_decoder.enhance_x3(l3, x6), l3)  # nothing is enhanced
for words, network in settings.items():
    frames = [some.render(t) for some in clips for t in range(0, len(some), 6)]
    found = [best_masks(network, x, torch.from_numpy(m[m.any((1, 2))]))[0] for x, m in frames]
    print(f"{words:>10}: mean IoU of the best query {torch.cat(found).mean():.2f}")
drawn = [masks, *(enlarge(best_masks(settings[s], image, truth)[2]).numpy() for s in ("as trained", "neither"))]
visualize.plot_images(
    [visualize.draw_frame(0 * image + 225, m, range(1, 7), scale=1) for m in drawn],
    ["the truth", "enhancers as trained", "enhancers off"],
    head="Without enhancers the same weights give poorer masks",
    note="For every creature the query that fits it best. On the right all gates are 1 and all values 0.",
)

# %% [markdown]
# **What it shows.** True outlines, then the best masks with and without enhancers. The four lines above say what that costs over
# all clips. Compare *no value* with *neither*: a gate that turns features down does harm when no value refills them.
#
# Mind what this is. The weights were trained *with* enhancers. That they lean on them does not show that a network trained
# without them would be worse. The paper's ablation trains without; lesson 09 will.
#
# ### Resolution against cost
#
# Why 1/8? Count the decoder by hand: a convolution costs `k k C_in C_out / groups` per cell. Then the gain: reduce each true
# mask to the covered share of every cell, upsample it, and compute the IoU with the original. No network is involved.


# %% tags=["nbval-check-output"]
def decoder_macs(finest, height=192, width=256, d=64):
    """MACs of the mask decoder when its levels lie at 1/finest, 1/(2 finest), 1/(4 finest)."""
    fine, middle, coarse = (height * width // s**2 for s in (finest, 2 * finest, 4 * finest))
    laterals = 128 * d * (fine + middle + coarse)
    enhancers = 3 * 2 * 208 * d * (height // 32) * (width // 32)  # on the tokens, wherever the levels lie
    top_down = 9 * d * d * (fine + middle + coarse)
    bottom_up = (9 * d + 9 * d * d) * (middle + coarse)  # depth-wise with stride 2, then a full 3x3
    return laterals + enhancers + top_down + bottom_up + 9 * d * d * fine  # and the last one


table = {part: row["macs"] for part, row in minst.summary(model, (192, 256)).items()}
assert decoder_macs(8) == table["mask_decoder"] and table["masks"] == 20 * 64 * 24 * 32
for finest in (4, 8, 16):
    print(f"mask decoder with X_mask at 1/{finest}: {decoder_macs(finest) / 1e6:.0f} M MACs")
print(f"backbone: {table['backbone'] / 1e6:.0f} M; masks of 20 queries at 1/8: {table['masks'] / 1e6:.0f} M")

# %%
true = torch.cat([torch.from_numpy(some.masks(t)) for some in clips for t in range(0, len(some), 3)])
sides = true.flatten(1).sum(1).sqrt()  # of a square of the same area, in pixels
true, sides = true[sides >= 4], sides[sides >= 4]
kept = {s: iou(enlarge(2 * F.avg_pool2d(true[:, None].float(), s)[:, 0] - 1), true) for s in (4, 8, 16, 32)}
groups = torch.bucketize(sides, torch.tensor([40.0, 48.0, 56.0, 64.0]))
fig = visualize.new_figure(3.3)
visualize.headline(fig, f"Storing at 1/8 keeps IoU {kept[8].mean():.2f}; 1/4 keeps more, for four times the cost",
                   f"{len(sides)} true masks of the shipped clips, stored as coverage of cells and enlarged again.")
left = fig.add_axes((0.07, 0.15, 0.42, 0.6), xlabel="size: square root of the area, pixels", ylabel="IoU kept")
right = fig.add_axes((0.57, 0.15, 0.41, 0.6), xlabel="mask decoder, M MACs", xscale="log", xlim=(10, 1500))
left.set_ylim(0, 1), right.set_ylim(0.6, 1)
for (s, values), mark in zip(kept.items(), "^osD"):
    places, means = zip(*((sides[groups == g].mean(), values[groups == g].mean()) for g in range(5)))
    left.plot(places, means, f"-{mark}", label=f"1/{s}")
    if s <= 16:
        right.plot(decoder_macs(s) / 1e6, values.mean(), mark, markersize=10)
        right.text(decoder_macs(s) / 1e6 / 1.2, values.mean() - 0.01, f"1/{s}", fontsize=9, ha="right")
left.legend(ncols=4, fontsize=8, loc="lower right")
right.axvline(table["backbone"] / 1e6, color=visualize.GREY, linestyle="--")
right.text(table["backbone"] / 1e6 * 1.1, 0.62, "the whole backbone", fontsize=8)
fig

# %% [markdown]
# **What it shows.** Left: IoU kept against size, a line for each scale. Small instances and coarse cells lose most; what counts
# is how many cells lie across a creature. Right: IoU kept against cost, on a logarithmic axis. Each finer step costs about four
# times as much, and the second buys less than the first. At 1/4 the decoder alone outweighs the backbone. So 1/8 is a trade, not
# a law; nor is it a strict ceiling: better logits than coverage exist. That is why the losses of lesson 05 enlarge the logits and
# compare them with targets at 1/2: a target at 1/8 would teach the network nothing finer than a stored mask at 1/8.
#
# ## Exercises
#
# Solutions lie in [solutions/](solutions/03_mask_decoder.py).
#
# ### Exercise 1 (recall): the shapes inside


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
#
# ### Exercise 2 (code): down the pyramid


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
# ### Exercise 3 (code): the semantic enhancer


# %% tags=["exercise"]
def semantic_enhancer(local: torch.Tensor, gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """local * h_sigmoid(gate) + value, gate and value upsampled to `local`: (B, D, h, w).

    local (B, D, h, w); gate, value (B, D, h6, w6): what the two 1x1 convolutions made of X6, nothing applied yet.
    Upsample bilinearly (align_corners=False), the gate after its h_sigmoid. `h_sigmoid` is imported above.
    """
    # solution
    gate = F.interpolate(h_sigmoid(gate), size=local.shape[-2:], mode="bilinear", align_corners=False)
    return local * gate + F.interpolate(value, size=local.shape[-2:], mode="bilinear", align_corners=False)


# %%
check.semantic_enhancer(semantic_enhancer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Squash the gate on its few tokens, upsample both, multiply by one and add the other.
#
# </details>
#
# ### Exercise 4 (code): all masks in one product


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
# ### Exercise 5 (break it): a ReLU at the end
#
# Suppose that X_mask ended in a ReLU. Some cells would then be lost for every kernel that anybody could choose. Which?


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
#
# How much does it matter? Less than we thought. With few channels such cells exist; with 64 our frame has none (try it on
# `x_mask`), and in the table above kernels fitted *after* the ReLU are even a little better. The argument of two signs holds for
# one channel; it does not show that 64 need it.
#
# ## Paper against ours
#
# - `Assumption:` the paper names iterative top-down and bottom-up fusion, 3x3 convolutions and semantic enhancers, and gives no
#   formula. Ours: sums, one 3x3 convolution after each, one round down - up - down, depth-wise convolutions on the way up.
# - `Assumption:` the enhancer is TopFormer's semantic injection, gate and value, put into the mask decoder. The backbone of
#   `shapes-tiny` injects X6 once already, so switching the enhancers off leaves a scene in X3 to X5.
# - `Assumption:` X_mask is linear. Nothing that we measured here decides it.
# - `Deviation:` tokens at 1/32, not 1/64: small frames have few of them.
# - Our creatures are large, most above 40 pixels in 256 x 192. Small objects would lose more by storing.

# %% [markdown]
# ## Summary
#
# - X_mask is computed once a frame; a mask is a weighted sum of its channels, and a kernel holds the weights.
# - Coarse levels bring *what*, fine ones *where*; the way up spreads details over the frame.
# - The enhancer lets the scene gate and refill local features, computed on the few tokens.
# - 1/8 is a trade: each finer step costs four times as much, and there is less and less to gain.
#
# **Quiz.** (1) What changes in the mask decoder when there are more instances? (2) Why is the enhancer's gate cheap? (3) What
# is the mask of the kernel -K? (4) Who suffers first from a coarser X_mask?
#
# <details><summary>Answers</summary>
#
# (1) Nothing. (2) Its convolution runs on the tokens; only the result is upsampled. (3) The complement of K's mask, but for
# cells at exactly 0. (4) Small and thin instances: they have few cells across.
#
# </details>
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · T.-Y. Lin et al., *Feature Pyramid Networks for
# Object Detection*, CVPR 2017, arXiv 1612.03144 · S. Liu et al., *Path Aggregation Network for Instance Segmentation*, CVPR
# 2018, arXiv 1803.01534 (the way up) · W. Zhang et al., *TopFormer*, CVPR 2022, arXiv 2204.05525 · K. He et al., *Mask
# R-CNN*, ICCV 2017, arXiv 1703.06870.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 30 minutes: 3 for the first picture, 8 for the rebuild, 4 for the two channels (let the room find the fish before anybody
# explains the wedge), 5 for the fit and its control, 3 for resolution, 7 for exercises 3 and 5. Common mistakes: rows and
# columns change places; N4 is taken for coarser than P4; P3 adds the lateral of level 4, not P4; `F.interpolate` is left at its
# default, nearest; the gate goes in without its squashing, or the value is multiplied; kernels of one frame serve the whole
# batch; one clipped channel is taken for a lost cell. Ask what an honest ablation of the enhancer would need.
#
# </details>
