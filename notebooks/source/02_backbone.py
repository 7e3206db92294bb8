# %% [markdown]
# # 02 · Backbone
#
# **How does a network see details and the whole scene with the budget of a phone?**

# %% [markdown]
# ## You will be able to …
#
# - say the sizes of X3, X4, X5 and X6 for any frame, padding included (exercise 1)
# - count the multiply-accumulates (MACs) of a block by hand (exercise 2)
# - write attention, and the squeezed kind that costs even less (exercise 3)
# - construct what average pooling cannot see, and say why the fine levels stay (exercise 4)
#
# You need PyTorch's convolutions and matrix products. Lesson 00 helps, but nothing of it is used.

# %% tags=["setup"]
from itertools import product
from time import process_time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import minst
from minst import backbones, visualize
from minst.course import lesson02 as check
from minst.layers import h_sigmoid
from minst.visualize.features import pca_rgb

# %% [markdown]
# ## The map

# %%
torch.set_grad_enabled(False)  # nothing is trained today
torch.set_num_threads(1)  # one core, as the paper measures
model = minst.MobileInst.from_pretrained("shapes-tiny")
clip = minst.load_sample("easy")
visualize.plot_pipeline(model, size=(192, 256), highlight="backbone")

# %% [markdown]
# **What it shows.** The backbone stands first: the frame goes in, X3 to X6 come out. X3, X4 and X5 go to the mask decoder,
# X6 to both decoders. It also has the largest share of the MACs: whoever wants a fast model starts here.
#
# | symbol | what | shape |
# |---|---|---|
# | B, C, H, W | batch, channels, height and width of the frame | |
# | X3, X4, X5 | local features | (B, C, H/8, W/8), then /16, then /32 |
# | X6 | global feature: made of *tokens*, each a cell of the frame | (B, C6, H/64, W/64) |
# | S | number of tokens | H/64 · W/64 |
#
# > **Overall Architecture** (paper): a mobile transformer is the backbone; its convolutions give local features at three
# > scales and its transformer blocks one global feature.
#
# ### See the problem
#
# An outline is decided within a few pixels. A name is not. Look at one frame through a keyhole, and then with half-closed
# eyes:

# %%
image = clip.image(12)
pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255  # (3, H, W)
visualize.plot_images(
    [pixels, pixels[:, 76:100, 92:124], F.avg_pool2d(pixels, 8), F.avg_pool2d(pixels, 32)],
    ["frame, 192 x 256", "24 x 32 of its pixels", "means of 8 x 8 pixels", "means of 32 x 32 pixels"],
    head="Near you see an outline but no creature; far a scene but no outline",
    note="From left to right: the frame; a small window of it, enlarged; the frame at 1/8; at 1/32.")

# %% [markdown]
# **What it shows.** The window has a sharp edge, and you cannot tell whose. At 1/8 creatures are coarse but there. At 1/32
# they are blots of colour, though the whole scene fits into 48 cells. A segmenter needs both, at every place.
#
# The way out is a pyramid of resolutions. Fine levels have many cells and little work for each; the coarsest has so few that
# each may look at all.

# %% [markdown]
# ## Predict
#
# A frame of 640 x 640 goes through TopFormer-base at the paper's strides. What are height and width of X3, X4, X5 and X6, and
# how many tokens are there? What if the frame is 480 x 854?
#
# <details><summary>Answer, after you have thought</summary>
#
# 640/8 = 80, then 40, 20, 10: 100 tokens. Neither 480 nor 854 is a multiple of 64, so the model pads with zeros, right and
# below, to 512 x 896. Then X3 is 64 x 112, X4 32 x 56, X5 16 x 28 and X6 8 x 14: 112 tokens. The next cell runs it.
#
# </details>
#
# Shapes need no data. On the device `meta` tensors have a shape and nothing else, so even a large backbone runs at once.
# Its convolutions are counted on the way:


# %% tags=["nbval-check-output"]
def trace(module, *shape):
    """Run a module on a tensor of `shape` without data: its output, and MACs by name of its parts."""
    with FlopCounterMode(display=False) as counter:
        out = module.to("meta")(torch.empty(*shape, device="meta"))
    return out, {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}


base = backbones.build("topformer-base").eval()
for height, width in ((640, 640), (512, 896)):
    features, macs = trace(base, 1, 3, height, width)
    print(f"{height} x {width}:", *(f"X{i} {tuple(x.shape[1:])}" for i, x in enumerate(features, 3)))

# %% [markdown]
# ## Build it
#
# ### A convolution at a mobile price
#
# One MAC is one multiplication and one addition. A plain convolution costs `H W · C_out · C_in · k²`: channels multiply
# channels, and that again 9 times. A **depth-wise** convolution filters each channel alone, `H W · C · k²`. A **point-wise**
# one (1x1) mixes channels and sees no neighbours, `H W · C_out · C_in`. An **inverted residual** (MobileNetV2) chains three:
# point-wise to *more* channels, depth-wise there, point-wise back, and adds its input where shapes allow.
#
# First a plain convolution by loops, counting. Then `layer7` of TopFormer-base on a 640 x 640 frame by hand: at 1/16, 128
# channels, expansion 3, k = 3. It agrees with what was counted while `minst`'s block ran.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
x, weight = torch.randn(2, 5, 6), torch.randn(3, 2, 3, 3)  # (C_in, H, W), (C_out, C_in, k, k)
padded, looped, count = F.pad(x, (1, 1, 1, 1)), torch.zeros(3, 5, 6), 0
for o, row, column, i, dy, dx in product(range(3), range(5), range(6), range(2), range(3), range(3)):
    looped[o, row, column] += weight[o, i, dy, dx] * padded[i, row + dy, column + dx]
    count += 1
torch.testing.assert_close(looped, F.conv2d(x[None], weight, padding=1)[0])
print(count, "MACs =", 5 * 6 * 3 * 2 * 3 * 3, "= H W C_out C_in k k\n")
macs = trace(base, 1, 3, 640, 640)[1]
cells, narrow, wide = 40 * 40, 128, 3 * 128
by_hand = {
    "plain 3x3, 128 channels": cells * narrow * narrow * 9,
    "plain 3x3, 384 channels": cells * wide * wide * 9,
    "inverted residual": cells * (narrow * wide + wide * 9 + wide * narrow),
}
assert macs["TopFormer.tpm.layer7"] == by_hand["inverted residual"]
for name, value in by_hand.items():
    print(f"{name:24} {value / 1e6:7.1f} M MACs")

# %% [markdown]
# The block filters 384 channels in space for less than a plain convolution asks for 128. Every convolution in it has a batch
# norm, which folds into the convolution for inference and costs no MACs then. Now the whole backbone, part by part:

# %%
bars = {"stem": macs["TopFormer.tpm.stem"]}
bars |= {f"layer\n{i}": macs[f"TopFormer.tpm.layer{i}"] for i in range(1, 11)}
bars["attention\nblocks (4)"] = macs["TopFormer.trans"]
bars["injection"] = sum(macs[f"TopFormer.SIM.{i}"] for i in (1, 2, 3))
percent = 100 * macs["TopFormer.trans"] / macs["Global"]
fig = visualize.new_figure(3.0)
visualize.headline(
    fig, f"Seeing the whole scene costs {percent:.0f} % of the backbone; the details cost the rest",
    "M MACs of TopFormer-base at 640 x 640. Layers 1 to 10 are the inverted residuals, fine to coarse.",
)
axes = fig.add_axes((0.05, 0.15, 0.94, 0.6))
colours = ["#8fb3d9"] * 11 + ["#d9822b", "#8fb3d9"]
drawn = axes.bar(list(bars), [m / 1e6 for m in bars.values()], color=colours)
axes.bar_label(drawn, fmt="%.0f", fontsize=8)
axes.tick_params(labelsize=8)
axes.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **What it shows.** Bars of MACs from the stem to the injection. Halving height and width divides the cells by four while
# channels double, so no layer dominates. The four transformer blocks together are the tallest bar, about a fifth of the
# whole. Without the trick of the next two sections that bar would leave the page.
#
# ### The token pyramid
#
# TopFormer's convolutions leave *four* maps behind, at 1/4, 1/8, 1/16 and 1/32. All are averaged down to one small size and
# stacked, so that one token knows its cell at all scales. The shipped model is TopFormer-tiny with tokens at 1/32, not 1/64
# (`Deviation:` at 192 x 256 the paper's stride leaves 12 tokens).

# %% tags=["nbval-check-output"]
backbone = model.backbone
frame = (pixels[None] - model.pixel_mean) / model.pixel_std  # (1, 3, 192, 256)
tokens = backbone.tpm(frame)
looped = torch.zeros(1, 32, 6, 8)  # the level at 1/8, by hand: cells of 4 x 4
for row, column in product(range(6), range(8)):
    block = tokens[1][:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    looped[:, :, row, column] = block.mean((2, 3))
torch.testing.assert_close(looped, F.adaptive_avg_pool2d(tokens[1], (6, 8)))  # the same in one call
stacked = torch.cat([F.adaptive_avg_pool2d(t, (6, 8)) for t in tokens], dim=1)
torch.testing.assert_close(stacked, backbone.pool(tokens))  # and minst's
print("local tokens:", *(tuple(t.shape[1:]) for t in tokens))
print("pooled and stacked:", tuple(stacked.shape), "16 + 32 + 64 + 96 =", 16 + 32 + 64 + 96)

# %% [markdown]
# ### Attention, where it is cheap
#
# In attention every token asks every token. With S tokens there are S² pairs; a pair costs `d` MACs for its score and `d_v`
# for its share of the value, in each head. TopFormer-base has 8 heads, `d` = 16, `d_v` = 32: 384 MACs a pair. S falls with
# the square of the stride, so S² falls with its fourth power.

# %%
strides, pair = (8, 16, 32, 64), 8 * (16 + 32)
full = [(640 // s) ** 4 * pair for s in strides]
axial = [2 * (640 // s) ** 2 * pair for s in strides]
fig = visualize.new_figure(3.2)
visualize.headline(
    fig, "At 1/8 one attention layer costs more than the whole backbone; at 1/64 next to nothing",
    "M MACs of scores and mixing in one layer, 8 heads, 640 x 640. A grid line is ten times the last.",
)
axes = fig.add_axes((0.06, 0.1, 0.92, 0.7))
for shift, kind, color, values in ((-0.2, "every cell asks every cell", "#d9822b", full),
                                   (0.2, "rows ask rows, columns columns", "#8fb3d9", axial)):
    places = [i + shift for i in range(4)]
    drawn = axes.bar(places, [v / 1e6 for v in values], 0.38, label=kind, color=color, zorder=2)
    labels = [f"{v / 1e6:,.0f}" if v > 1e7 else f"{v / 1e6:.2g}" for v in values]
    axes.bar_label(drawn, labels, fontsize=8, padding=2, bbox=dict(fc="white", ec="none", pad=0.4))
axes.axhline(macs["Global"] / 1e6, color=visualize.INK, linestyle="--", label="all of TopFormer-base")
axes.set(yscale="log", ylim=(0.03, 2e6))
axes.set_xticks(range(4), [f"stride {s}: {(640 // s) ** 2} cells" for s in strides])
axes.tick_params(labelsize=8)
axes.grid(axis="y", alpha=0.3)
axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper right")
fig

# %% [markdown]
# **What it shows.** For each stride two bars on a logarithmic scale, and a dashed line for the whole backbone. At stride 8 the
# left bar stands far above the line: 6400² pairs. Each doubling of the stride divides it by 16; at stride 64 it is about
# 4 M MACs, a small part of its transformer block (the 1x1 convolutions around it cost more). The right bars belong to
# SeaFormer, which comes below.
#
# Now by loops, for every head and every token of our frame; then vectorised, `A = softmax(qᵀ k)` and `out = v Aᵀ`; then
# `minst`'s layer. The last lines shuffle the tokens. **Predict:** what will come out?

# %% tags=["nbval-check-output"]
attention, mlp = (getattr(backbone.trans.transformer_blocks[0], name) for name in ("attn", "mlp"))
q, k, v = (f(stacked).view(4, -1, 48) for f in (attention.to_q, attention.to_k, attention.to_v))
looped = torch.zeros_like(v)
for head, i in product(range(4), range(48)):
    scores = torch.stack([q[head, :, i] @ k[head, :, j] for j in range(48)])
    for j, share in enumerate(scores.softmax(0)):
        looped[head, :, i] += share * v[head, :, j]
weights = (q.mT @ k).softmax(-1)  # (heads, S, S), each row sums to 1
mixed = v @ weights.mT  # (heads, 32, S)
torch.testing.assert_close(mixed, looped, rtol=1e-4, atol=1e-4)
print("q, k, v:", *(tuple(x.shape) for x in (q, k, v)), "weights:", tuple(weights.shape))
by_hand = attention.proj(mixed.reshape(1, 128, 6, 8))  # minst's layer has one more 1x1 convolution
torch.testing.assert_close(by_hand, attention(stacked), rtol=1e-4, atol=1e-4)
order = torch.randperm(48)
shuffle = lambda x: x.flatten(2)[..., order].view_as(x)
for name, part in (("attention", attention), ("MLP", mlp)):
    gap = (part(shuffle(stacked)) - shuffle(part(stacked))).abs().max()
    print(f"{name:9}: shuffled in,", "the same shuffled out" if gap < 1e-3 else "something else out")

# %% [markdown]
# **Where is the position?** No line of attention knows where a token lies: shuffle the tokens, and the output is the same,
# shuffled. What tells left from right is the 3x3 depth-wise convolution in the MLP after it.
#
# Keys and queries have half the channels of the values: enough to compare, cheap to multiply. There is no division by
# `sqrt(d)`: the batch norms of q and k learn the scale, and the official checkpoints rely on it.
#
# ### Semantic injection
#
# Four blocks later the tokens are X6, and know the scene. The details do not, yet. So each level takes back the channels that
# it gave: they *gate* the local feature, cell by cell, and add a *value*:
#
# `X_i = local · up(h_sigmoid(gate)) + up(value)`
#
# A 1x1 convolution makes each of the three: gate and value from X6's slice, local from the level's own map. `h_sigmoid(x) =
# relu6(x + 3) / 6` is a sigmoid without an exponential, `up` is bilinear. By hand, equal to the backbone's X3:

# %% tags=["nbval-check-output"]
semantics = backbone.trans(stacked).split([16, 32, 64, 96], dim=1)[1]  # X6's channels for 1/8
up = lambda x: F.interpolate(x, size=(24, 32), mode="bilinear")
part = backbone.SIM[1]  # its 1x1 convolutions
gate, value = h_sigmoid(part.global_act(semantics)), part.global_embedding(semantics)
x3 = part.local_embedding(tokens[1]) * up(gate) + up(value)
torch.testing.assert_close(x3, backbone(frame).x3, rtol=1e-4, atol=1e-4)
print("local", *tokens[1].shape, "+ semantics", *semantics.shape, "-> X3", *x3.shape)

# %% [markdown]
# ## Look inside: what they see
#
# Features have dozens of channels; a screen has three. So we take the three directions in which the features vary most (PCA)
# as red, green and blue, map by map.

# %%
NAMES = ["local 1/8", "local 1/16", "local 1/32", "X6, 1/32", "X3, 1/8", "X4, 1/16", "X5, 1/32"]


def levels(frame):
    """Local features before injection, X6, then X3, X4, X5 after it: 7 maps (B, C, h, w)."""
    tokens = backbone.tpm(frame)
    x6 = backbone.trans(backbone.pool(tokens))
    slices = x6.split(backbone.tpm.channels, dim=1)
    return [*tokens[1:], x6, *(backbone.SIM[i](tokens[i], slices[i]) for i in (1, 2, 3))]


visualize.plot_images(
    [image, *(pca_rgb(x[0])[0][0] for x in levels(frame))], ["frame 12", *NAMES], columns=4,
    head="Fine levels see outlines, coarse ones regions",
    note="Above: the frame, local features. Below: X6, and X3 to X5 with its help. Compare within a panel.",
)

# %% [markdown]
# **What it shows.** Two rows of mosaics. At 1/8 wings and stripes can be told apart; at 1/16 each creature is a patch; at 1/32
# and in X6 a cell holds a whole part of the scene. X3 keeps the outlines of the local map above it. What injection adds is
# hard to see in colours; the next figure measures it. (`visualize.plot_features(model, clip, 12)` goes on to lesson 03.)
#
# ### How far does a cell see?
#
# A convolution of size k widens the view by (k - 1) cells of its input, and cells grow with the stride: a sum that the next
# cell does, level by level. Then test it on two frames side by side, 192 x 512: cover one patch of 32 x 32 pixels with grey
# and measure how much each cell changes. **Predict:** which of the seven maps will change in the *other* frame?

# %% tags=["nbval-check-output"]
for name, net in (("TopFormer-tiny", backbone.tpm), ("MobileNetV2", backbones.build("mobilenetv2"))):
    fields, field, step = {}, 1, 1
    for conv in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        field, step = field + (conv.kernel_size[0] - 1) * step, step * conv.stride[0]
        fields[step] = field  # of the last convolution at this stride
    print(f"{name:15}", *(f"1/{step}: {field} pixels  " for step, field in fields.items()))


# %%
others = torch.from_numpy(minst.load_sample("crowd").image(12).copy()).permute(2, 0, 1) / 255
two = torch.cat([pixels, others], dim=2)[None]  # (1, 3, 192, 512)
frames = (two - model.pixel_mean) / model.pixel_std
before = levels(frames)


def show_change(row: int, column: int):
    """How much each level changes when the patch at (32 row, 32 column) is covered."""
    patch = (..., slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
    covered, marked = frames.clone(), two[0].clone()
    covered[patch] = 0  # the mean colour
    marked[patch] = 1
    change = [(a - b).norm(dim=1)[0] / b.norm(dim=1).mean() for a, b in zip(levels(covered), before)]
    return visualize.plot_images(
        [marked, *(c.clamp_min(1e-4).log10() for c in change)], ["covered: the white patch", *NAMES],
        columns=4, limits=(-4, 0),
        head="One covered patch: local maps change in a box, X6 everywhere, and X3 to X5 with it",
        note="Brightness: change of a cell, in powers of ten of the map's mean norm (-4: none).",
    )


visualize.interact(show_change, row=((0, 5), 2), column=((0, 15), 2))

# %%
show_change(2, 2)

# %% [markdown]
# **What it shows.** Above, the local maps: a box of change around the patch, and darkness (none at all) outside it. The box is
# about as wide as the number computed by hand, plus the patch; even at 1/32 it ends half-way. Below, X6 is lit in every cell:
# that is attention. X3, X4 and X5 have a bright core in a lit field: that is the injection. At 1/8 a cell in the other frame
# knows that something happened in this one.
#
# ### Three backbones
#
# MobileInst runs on any of them. They differ in how X6 comes about:
#
# | | X6 is made by | fusion with details | view of X6 |
# |---|---|---|---|
# | **TopFormer** | attention over pooled tokens of all levels | semantic injection | whole frame |
# | **SeaFormer** | squeeze-axial attention, at 1/32 and at 1/64 | left to the mask decoder | whole frame |
# | **MobileNetV2** | one more convolution block (ours) | none | a window of 555 pixels |
#
# **Squeeze-axial** attention averages a map over its width: H tokens, one a row. They attend to one another; so do the W
# averages of columns. Row and column outputs are added and spread back over the map: H² + W² pairs instead of (H W)². What
# averaging loses, a depth-wise convolution beside it keeps. Exercise 3 builds the row half. Now count, and time one frame:

# %%
chosen = ("topformer-tiny", "seaformer-tiny", "topformer-base", "seaformer-base", "mobilenetv2")
nets, small = {name: backbones.build(name).eval() for name in chosen}, torch.rand(1, 3, 192, 256)
seconds = dict.fromkeys(chosen, float("inf"))
for _, name in product(range(10), chosen):  # in turns: a busy moment hits all; the least counts
    start = process_time()
    nets[name](small)
    seconds[name] = min(seconds[name], process_time() - start)
panels = {
    "M parameters": [sum(p.numel() for p in net.parameters()) / 1e6 for net in nets.values()],
    "G MACs at 640 x 640": [trace(net, 1, 3, 640, 640)[1]["Global"] / 1e9 for net in nets.values()],
    "CPU time at 192 x 256, one core,\nthe fastest = 1": [s / min(seconds.values()) for s in seconds.values()],
}

# %%
fig = visualize.new_figure(2.9)
visualize.headline(
    fig, "Few parameters are not few operations: look at MobileNetV2",
    "Backbones alone. Parameters take memory, MACs take time; how much time, the machine decides.",
)
for i, (title, values) in enumerate(panels.items()):
    axes = fig.add_axes((0.13 + 0.295 * i, 0.04, 0.24, 0.58))
    drawn = axes.barh(chosen, values, color=["#d9822b", "#8fb3d9", "#d9822b", "#8fb3d9", "#9a9a9a"])
    axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    axes.set(xlim=(0, 1.2 * max(values)), xticks=[])
    axes.tick_params(labelsize=8, labelleft=i == 0, length=0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
fig

# %% [markdown]
# **What it shows.** Five bars in each of three panels. MobileNetV2 has less than half of TopFormer-base's parameters and more
# of its MACs: its expansion is 6 at nearly every layer, TopFormer's 3 or 4 while the maps are large. Times are this machine's,
# with random weights; on a phone the order may differ, and lesson 08 measures it.

# %% [markdown]
# ## Exercises
#
# Solutions: [solutions/02_backbone.py](solutions/02_backbone.py).
#
# ### Exercise 1 (recall): sizes of all levels


# %% tags=["exercise"]
def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(h, w) of X3, X4, X5 and X6 for a frame of height x width pixels, at the paper's strides.

    The frame is first padded, right and below, to the next multiples of 64.
    """
    # solution
    height, width = height + -height % 64, width + -width % 64
    return [(height // stride, width // stride) for stride in (8, 16, 32, 64)]


# %%
check.level_sizes(level_sizes)

# %% [markdown]
# <details><summary>Hint</summary>
#
# In Python `-n % 64` is what is missing to the next multiple of 64: `-640 % 64` is 0, `-854 % 64` is 42.
#
# </details>
#
# ### Exercise 2 (code): MACs of an inverted residual


# %% tags=["exercise"]
def macs_of_inverted_residual(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int,
    height: int, width: int,
) -> int:
    """MACs of `InvertedResidual` on an input (1, in_channels, height, width).

    height and width are multiples of `stride`. With expansion 1 there is no expanding convolution.
    """
    # solution
    hidden = in_channels * expansion
    cells_in, cells_out = height * width, height * width // stride**2
    expand = cells_in * in_channels * hidden if expansion != 1 else 0
    return expand + cells_out * hidden * kernel_size**2 + cells_out * hidden * out_channels


# %%
check.macs_of_inverted_residual(macs_of_inverted_residual)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three convolutions, each *number of outputs* times *inputs that each output reads*. Which of the three carries the stride?
# Read `InvertedResidual` in `minst/backbones/base.py`.
#
# </details>
#
# ### Exercise 3 (code): attention among rows


# %% tags=["exercise"]
def row_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The row half of squeeze-axial attention, one head.

    q, k: (B, d, H, W), v: (B, d_v, H, W) -> (B, d_v, H). Average all three over the width, then attend
    among the H rows. SeaFormer does scale: the scores q^T k are multiplied by d ** -0.5.
    """
    # solution
    q, k, v = q.mean(3), k.mean(3), v.mean(3)
    weights = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1)
    return v @ weights.mT


# %%
check.row_attention(row_attention)

# %% [markdown]
# <details><summary>Hint</summary>
#
# After the averages these are the two vectorised lines of the attention section, with a scale. `x.mT` swaps the last two axes.
#
# </details>
#
# ### Exercise 4 (break it): what pooling cannot see
#
# X6 is made from averages. Make a change to a fine map, in every cell, that no token can notice.


# %% tags=["exercise"]
def unseen_change(feature: torch.Tensor, cell: int) -> torch.Tensor:
    """A fine map (B, C, H, W) -> another one, with the same mean over every block of cell x cell values.

    Every block must change, in every channel. H and W are multiples of `cell`, which is even.
    """
    # solution
    blocks = feature.unflatten(3, (-1, cell))  # (B, C, H, W / cell, cell)
    return blocks.flip(4).flatten(3)


# %%
check.unseen_change(unseen_change)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Moving values about within a block leaves its mean alone. Or add a pattern that sums to zero in each block, such as a
# chessboard of +1 and -1.
#
# </details>

# %% [markdown]
# ## Paper against ours
#
# - `Assumption:` semantic injection is on, as in the official TopFormer; the paper does not say. MobileNetV2 as a third
#   backbone, and its block for X6, are our reading of the paper's baseline.
# - `Deviation:` SeaFormer's own fusion belongs to its segmentation head. Here the mask decoder does that work (lesson 03).
# - `Deviation:` the shipped model keeps tokens at 1/32. In a prototype at 128 x 128 video AP was 27.0 with tokens at 1/32 and
#   24.6 at 1/64 (one seed; measured while this package was designed).
# - **What a toy run does not show.** In a frame of 256 x 192 the convolutions at 1/32, with their 307 pixels, see nearly
#   everything already. How much attention is *worth*, in AP, needs larger frames and photographs, which we cannot train on.
# - **Negative result.** MACs do not give the time. Depth-wise convolutions move much memory for few MACs, and so the ratio of
#   times above is not the ratio of MACs.

# %% [markdown]
# ## Summary
#
# - Depth-wise and point-wise convolutions replace `C_in · C_out · k²` by `C · k² + C_in · C_out`.
# - Attention costs S²; pooled to 1/64 there are few tokens, and all may ask all.
# - X6 knows the scene, X3 to X5 the details; injection gives each of them some of both.
#
# **Quiz.** (1) A frame is 1280 x 1280 instead of 640 x 640. How much more do convolutions cost, and how much more do scores
# of attention? (2) Why may TopFormer's attention do without a position embedding? (3) A covered patch
# changes X3 in the far corner, although its convolutions see 67 pixels. Why?
#
# <details><summary>Answers</summary>
#
# (1) 4 times, and 16 times. (2) The 3x3 depth-wise convolution in each MLP tells neighbours apart. (3) Injection: X3 gets a
# gate and a value from X6, and X6 has seen everything.
#
# </details>
#
# **References.** W. Zhang et al., *TopFormer: Token Pyramid Transformer for Mobile Semantic Segmentation*, CVPR 2022, arXiv
# 2204.05525 · Q. Wan et al., *SeaFormer: Squeeze-enhanced Axial Transformer for Mobile Semantic Segmentation*, ICLR 2023,
# arXiv 2301.13156 · M. Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018, arXiv 1801.04381.
# Code: `minst/backbones/`.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 45 minutes: 5 to the problem and the prediction, 8 for MACs, 5 for the token pyramid, 10 for attention, 5 for PCA and the
# covered patch (let the room predict it first), 12 for exercises 2 and 4; the others are homework. Common mistakes: rounding
# up at each level instead of padding first; the stride put on the expansion; softmax over the wrong axis, or a scale
# forgotten; a swap within a cell through an alias.
#
# </details>
