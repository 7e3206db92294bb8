# %% [markdown]
# # 02 · Backbone
#
# **How does a network see details and the whole scene with the budget of a phone?**

# %% [markdown]
# ## You will be able to …
#
# - say the sizes of X3, X4, X5 and X6 for any frame, padding included (exercise 1)
# - count the multiply-accumulates (MACs) of a mobile block by hand (exercise 2)
# - write squeezed attention, and train a small network with it (exercise 3)
# - construct what average pooling cannot see, and say why the fine levels stay (exercise 4)
#
# You need PyTorch's convolutions and matrix products. Each exercise stands where its idea is built, and *your* function draws
# the next picture. Until your answer is correct, the lesson goes on with ours.

# %% tags=["setup"]
from itertools import product
from time import process_time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import minst
from minst import backbones, visualize
from minst.backbones.topformer import TOPFORMER_SIZES
from minst.course import lesson02 as check
from minst.layers import ConvNorm, h_sigmoid

# %% [markdown]
# ## The map

# %%
torch.set_num_threads(1)  # one core, as the paper measures
model = minst.MobileInst.from_pretrained("shapes-tiny").requires_grad_(False)
clip = minst.load_sample("easy")
visualize.plot_pipeline(model, size=(192, 256), highlight="backbone")

# %% [markdown]
# **What it shows.** Everything that follows works on X3 to X6, and the backbone that makes them has the largest share of the
# MACs. If you want a fast model, start here.
#
# | symbol | what | shape |
# |---|---|---|
# | B, H, W | batch, height and width of the frame in pixels | |
# | h, w | height and width of a map in *cells* | |
# | X3, X4, X5 | local features at 1/8, 1/16, 1/32 | (B, C3, H/8, W/8), (B, C4, H/16, W/16), (B, C5, H/32, W/32) |
# | X6 | global feature; each of its cells is a *token* | (B, C6, H/64, W/64) |
# | S | number of tokens of a frame, h · w of X6 | |
#
# > **Overall Architecture** (paper): a mobile transformer is the backbone. Its convolutions give local features at three
# > scales, and its transformer blocks give one global feature.
#
# The paper writes no equations for the backbone. Those below are numbered (02.1) and so on, and are our reading of TopFormer.
#
# ### See the problem
#
# An outline is decided within a few pixels. A name is not.

# %%
image, masks = clip.render(12)
small = [F.avg_pool2d(torch.from_numpy(image.copy()).permute(2, 0, 1).float(), s) for s in (8, 32)]
means = [x.permute(1, 2, 0).byte().numpy() for x in small]
visualize.plot_images(
    [image, image[76:100, 92:124], *(check.outlined(x, masks) for x in means)],
    ["frame, 192 x 256", "24 x 32 of its pixels", "means of 8 x 8 pixels", "means of 32 x 32 pixels"],
    head="Near you see an outline but no creature; far a scene but no outline",
    note="From left to right: the frame; a small window, enlarged; the frame at 1/8; at 1/32. White: true outlines.")

# %% [markdown]
# **What it shows.** A segmenter needs both views at every place. Through the window you cannot tell whose edge you see. At 1/32
# the scene fits into 48 cells, but no cell knows where within it an outline runs.
#
# The way out is a pyramid of resolutions. Fine levels have many cells and do little work in each. The coarsest level has so few
# cells that each may look at all others.
#
# ## Predict
#
# A frame of 640 x 640 pixels meets the paper's strides, 8, 16, 32 and 64. What are height and width of X3 to X6, and how many
# tokens are there? What changes if the frame is 480 x 854?
#
# <details><summary>Answer, after you have thought</summary>
#
# 640/8 = 80, then 40, 20 and 10, which makes 100 tokens. A frame of 480 x 854 is padded with zeros to 512 x 896. X3 is then
# 64 x 112, and X6 is 8 x 14, which makes 112 tokens.
#
# </details>
#
# ## Step 1: how large are the levels?
#
# Each level halves the one before it. So that all sizes stay whole numbers down to 1/64, the model first pads the frame, at the
# right and at the bottom, to the next multiples of 64.
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
# Your sizes draw the cells of each level over a frame of 150 x 200 pixels.

# %%
level_sizes = check.level_sizes(level_sizes).or_ours
sizes = level_sizes(150, 200)
rows, columns = sizes[-1]
padded = torch.zeros(64 * rows, 64 * columns, 3, dtype=torch.uint8).numpy()
padded[:150, :200] = image[:150, :200]
visualize.plot_images(
    [check.gridded(padded, *size) for size in sizes],
    [f"X{i}: {h} x {w} = {h * w} cells" for i, (h, w) in enumerate(sizes, 3)],
    head="Four times fewer cells per level, and 12 of them for the whole scene",
    note="A frame of 150 x 200 pixels, padded with black to 192 x 256. White lines: the cells of each level.")

# %% [markdown]
# **What it shows.** A cell of X3 is smaller than an eye of the butterfly, and a cell of X6 is as large as a creature. What is small
# can only be outlined by X3.
#
# Does a real backbone agree? On the device `meta`, tensors have a shape and no data, so even a large backbone runs at once. We
# count its MACs on the way.


# %% tags=["nbval-check-output"]
def trace(module, *shape):
    """Run a module on a tensor of `shape` without data: its output, and MACs by name of its parts."""
    with FlopCounterMode(display=False) as counter:
        out = module.to("meta")(torch.empty(*shape, device="meta"))
    return out, {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}


base = backbones.build("topformer-base").eval().requires_grad_(False)
for height, width in ((640, 640), (512, 896)):
    features, macs = trace(base, 1, 3, height, width)
    assert [tuple(x.shape[-2:]) for x in features] == level_sizes(height, width)
    print(f"{height} x {width}:", *(f"X{i} {tuple(x.shape[1:])}" for i, x in enumerate(features, 3)))

# %% [markdown]
# `Deviation:` the shipped model is TopFormer-tiny with tokens at 1/32, because at 192 x 256 the paper's stride would leave only 12
# of them. So wherever this lesson runs the shipped model, X6 is 6 x 8, as large as X5.
#
# ## Step 2: what does a mobile convolution cost?
#
# One MAC is one multiplication and one addition. A layer costs *the number of its outputs* times *the inputs that each output
# reads*, for a map of h x w cells and 3x3 or 5x5 weights (k = 3 or 5):
#
# ```text
# plain          every output channel reads k k cells of every input channel     h w · C_out · C_in · k²      (02.1)
# depth-wise     each channel is filtered alone                                  h w · C · k²
# point-wise     1x1: channels are mixed, no neighbours are seen                 h w · C_out · C_in
# ```
#
# An **inverted residual** (MobileNetV2) is wide in the middle. The *expansion* e says how much wider. The stride s sits on the
# depth-wise convolution:
#
# ```text
# x (C_in,h,w) ┬ 1x1, ReLU ─► (e·C_in,h,w) ── depth-wise k x k, stride s, ReLU ─► (e·C_in,h/s,w/s) ── 1x1 ─► (C_out,h/s,w/s) + ─► y
#              └─────────────────────────────── x itself, if s=1 and C_in=C_out ─────────────────────────────────────────────┘
# ```
#
# With e = 1 the first 1x1 convolution is left out. Each convolution has a batch norm, which folds into its weights at inference
# and costs nothing.
#
# ### Exercise 2 (code): MACs of an inverted residual


# %% tags=["exercise"]
def macs_of_inverted_residual(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int,
    height: int, width: int,
) -> int:
    """MACs of an inverted residual on an input (1, in_channels, height, width).

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
# Add up three convolutions. The expansion writes h x w cells, the two others h/s x w/s.
#
# </details>
#
# Your function now counts TopFormer-base on a frame of 640 x 640, layer by layer, from the table of its layers.

# %%
macs_of_inverted_residual = check.macs_of_inverted_residual(macs_of_inverted_residual).or_ours
macs = trace(base, 1, 3, 640, 640)[1]  # as counted while the backbone runs
levels = TOPFORMER_SIZES["topformer-base"]["levels"]
side, channels = 320, 16  # what the stem, a plain convolution of stride 2, leaves
bars = {"stem": macs["TopFormer.tpm.stem"]}
for i, (kernel, expansion, wanted, stride) in enumerate(sum(levels, []), start=1):
    counted = macs_of_inverted_residual(channels, wanted, kernel, stride, expansion, side, side)
    assert counted == macs[f"TopFormer.tpm.layer{i}"]
    bars[f"layer\n{i}"] = counted
    side, channels = side // stride, wanted

# %%
bars["attention\nblocks (4)"] = macs["TopFormer.trans"]
bars["injection"] = sum(macs[f"TopFormer.SIM.{i}"] for i in (1, 2, 3))
share = 100 * macs["TopFormer.trans"] / macs["Global"]
print("plain 3x3, 128 channels at 1/16:", 40 * 40 * 128 * 128 * 9 // 10**6, "million MACs")
print("inverted residual, 3 x 128 wide:", macs_of_inverted_residual(128, 128, 3, 1, 3, 40, 40) // 10**6, "million")
check.plot_bars(
    {"million MACs": {name: m / 1e6 for name, m in bars.items()}},
    head=f"Seeing the whole scene costs {share:.0f} % of the backbone; the details cost the rest",
    note="TopFormer-base at 640 x 640. Layers 1 to 10, counted by your function, go from fine to coarse.",
    lit=["attention\nblocks (4)"])

# %% [markdown]
# **What it shows.** No layer dominates, because each halving of height and width divides the cells by four while the channels
# only double. A block that filters 384 channels costs less than a plain convolution of 128. Without the trick of the next step the
# orange bar would leave the page.
#
# ## Step 3: who may look at everybody?
#
# In attention, every token looks at every other. A 1x1 convolution makes a query q, a key k and a value v for each. The table A
# has one row per query and one column per key, and each row sums to 1:
#
# ```text
# A = softmax(qᵀ k · scale)        q, k (d, S)  ->  A (S, S)                                                  (02.2)
# out = v Aᵀ                       v (d_v, S)   ->  (d_v, S): token i mixes all v[j], weighted by A[i, j]
# ```
#
# A **transformer block** adds attention and then an MLP, a small network that works on each token, to what came in:
#
# ```text
# x' = x + conv(ReLU6(v Aᵀ))                                                                                  (02.3)
# y = x' + conv(ReLU6(dw3x3(conv(x'))))        1x1 to twice the channels, 3x3 depth-wise, 1x1 back
# ```
#
# TopFormer has four such blocks. Its `d` is 16 and its `d_v` is 32: half the channels are enough to compare, and cheap. Its scale
# is 1, as the batch norms of q and k learn the scale. SeaFormer's is d ** -0.5, since a sum of d products grows like sqrt(d).
#
# S tokens make S² pairs. In each of its 8 heads a pair costs TopFormer-base d + d_v MACs.

# %% tags=["nbval-check-output"]
for stride in (8, 16, 32, 64):
    side = 640 // stride
    full, squeezed = side**4 * 8 * (16 + 32), 2 * side**2 * 8 * (16 + 32)
    print(f"1/{stride:<2}: {side**2:5} cells, {full / 1e6:8,.1f} million MACs per layer, squeezed {squeezed / 1e6:.2f}")
print(f"for comparison, all of TopFormer-base: {macs['Global'] / 1e6:,.0f} million")

# %% [markdown]
# S² falls with the fourth power of the stride. At 1/8, a single layer would cost more than the whole backbone, so attention waits
# until 1/64. **TopFormer** averages its four local maps down to the size of X6 and joins their channels. In this *token pyramid* a
# token knows its cell at all scales.
#
# **SeaFormer** stays finer, and squeezes instead. Averages over the width leave one token per row:
#
# ```text
# q,k,v ┬─ mean over w ─► h tokens ─attention─► (d_v,h), repeated over w ┐
#       ├─ mean over h ─► w tokens ─attention─► (d_v,w), repeated over h ┼+─ 1x1, h_sigmoid ┐
#       ├─ v ────────────────────────────────────────────────────────────┘                  ×─► out
#       └─ 3x3 depth-wise, 1x1: the detail that squeezing loses ────────────────────────────┘
# ```
#
# This **squeeze-axial attention** has h² + w² pairs instead of (h w)².
#
# ### Exercise 3 (code): attention among rows


# %% tags=["exercise"]
def row_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The row half of squeeze-axial attention, one head.

    q, k: (B, d, h, w), v: (B, d_v, h, w) -> (B, d_v, h). Average all three over the width, then attend
    among the h rows, (02.2), with SeaFormer's scale d ** -0.5.
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
# After the averages, write the two lines of (02.2), with the scale inside the softmax. `x.mT` swaps the last two axes.
#
# </details>
#
# What is it good for? Here is a task that no small window can solve. Each image has two blue squares. They count if the third
# square is red, but not if it is green. Two networks learn this, one of them with your attention.


# %%
class Tiny(torch.nn.Module):
    def __init__(self, attend=None, dim=16):
        super().__init__()
        self.see = torch.nn.Sequential(ConvNorm(3, dim, 3, 2, activation=torch.nn.ReLU()), torch.nn.Conv2d(dim, dim, 1))
        self.q, self.k, self.v = (torch.nn.Conv2d(dim, dim, 1) for _ in "qkv")
        self.gate, self.say = ConvNorm(dim, dim), torch.nn.Conv2d(dim, 1, 3, padding=1)
        self.attend = attend

    def forward(self, images):
        """(B, 3, 24, 24) -> mask logits (B, 1, 12, 12)."""
        x = self.see(images)
        if self.attend:  # the rows decide, through a gate, what counts in each cell
            rows = self.attend(self.q(x), self.k(x), self.v(x))  # (B, dim, 12)
            x = x * h_sigmoid(self.gate(rows[..., None]))
        return self.say(x)


# %%
def train(net, images, masks, steps=300):
    """Adam, 32 images per step; the learning rate falls to 0."""
    optimizer = torch.optim.Adam(net.parameters(), 2e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / steps)
        some = torch.randint(0, len(images), (32,))
        loss = F.binary_cross_entropy_with_logits(net(images[some]), masks[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


row_attention = check.row_attention(row_attention).or_ours
images, wanted = check.red_and_blue(512, seed=1)
fresh, truth = check.red_and_blue(128, seed=2)  # neither network learns from these
found = {}
for name, attend in {"convolutions alone": None, "with your attention": row_attention}.items():
    torch.manual_seed(0)
    found[name] = train(Tiny(attend), images, wanted)(fresh).detach() > 0
    iou = (found[name] & (truth > 0)).sum() / (found[name] | (truth > 0)).sum()
    print(f"{name:20} IoU {iou:.2f} on 128 fresh images")

# %%
pictures = []
for i in range(4):
    pictures += [fresh[i], truth[i, 0] > 0, *(said[i, 0] for said in found.values())]
visualize.plot_images(
    pictures, 4 * ["image", "what counts", "convolutions", "your attention"], columns=8,
    head="Only attention can know that a red square lies elsewhere",
    note="Four fresh images with a red or a green square. Beside each: what counts, and what the two networks say.")

# %% [markdown]
# **What it shows.** Without attention, the network cannot see from a blue square to the red one, and must guess. With your rows
# it learns in seconds that the scene decides what a detail means. (A toy, and one seed.)
#
# Equation (02.2) contains no position. **Predict:** shuffle the tokens before an attention layer of the shipped model, or before its
# MLP. Does the same come out, shuffled?

# %% tags=["nbval-check-output"]
backbone = model.backbone
pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
frame = (pixels - model.pixel_mean) / model.pixel_std  # (1, 3, 192, 256)
tokens = backbone.tpm(frame)  # four local maps, from 1/4 to 1/32
stacked = torch.cat([F.adaptive_avg_pool2d(x, (6, 8)) for x in tokens], dim=1)
torch.testing.assert_close(stacked, backbone.pool(tokens))  # the token pyramid, as minst has it
block, order = backbone.trans.transformer_blocks[0], torch.randperm(48)
shuffle = lambda x: x.flatten(2)[..., order].view_as(x)
for name, part in (("attention", block.attn), ("MLP", block.mlp)):
    gap = (part(shuffle(stacked)) - shuffle(part(stacked))).abs().max()
    print(f"{name:9}: shuffled in,", "the same shuffled out" if gap < 1e-3 else "something else out")

# %% [markdown]
# The 3x3 depth-wise convolution of the MLP tells left from right. It is TopFormer's only position code.
#
# ## Step 4: what do the details get from the scene?
#
# Four blocks later the tokens are X6 and know the scene. The details do not yet. So in *semantic injection* each level takes back
# the channels that it gave. They *gate* the local feature cell by cell, and add a *value*:
#
# ```text
# X_i = conv(local_i) · up(h_sigmoid(conv(X6_i))) + up(conv(X6_i))        h_sigmoid(x) = relu6(x + 3) / 6     (02.4)
# ```
#
# All three convolutions are 1x1 and have weights of their own; `up` is bilinear. The constants 3 and 6 make a line from 0 at -3
# to 1 at +3: a sigmoid without an exponential. You will build this yourself in lesson 03.
#
# To see what arrives, we put two frames side by side, cover a patch of 32 x 32 pixels and measure how much each cell of each map
# changes. **Predict:** which of the seven maps change in the *other* frame?

# %%
NAMES = ["local 1/8", "local 1/16", "local 1/32", "X6, 1/32", "X3, 1/8", "X4, 1/16", "X5, 1/32"]


def seven_maps(frame):
    """Local features before injection, X6, then X3, X4, X5 after it: 7 maps (B, channels, h, w)."""
    tokens = backbone.tpm(frame)
    x6 = backbone.trans(backbone.pool(tokens))
    slices = x6.split(backbone.tpm.channels, dim=1)
    return [*tokens[1:], x6, *(backbone.SIM[i](tokens[i], slices[i]) for i in (1, 2, 3))]


others = torch.from_numpy(minst.load_sample("crowd").image(12).copy()).permute(2, 0, 1)[None] / 255
two = torch.cat([pixels, others], dim=3)  # (1, 3, 192, 512)
pair = (two - model.pixel_mean) / model.pixel_std
before = seven_maps(pair)


# %%
def show_change(row: int, column: int):
    """How much each map changes when the patch at (32 row, 32 column) is covered."""
    patch = (..., slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
    covered, marked = pair.clone(), two[0].clone()
    covered[patch] = 0  # the mean colour
    marked[patch] = 1
    change = [(a - b).norm(dim=1)[0] / b.norm(dim=1).mean() for a, b in zip(seven_maps(covered), before)]
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
# **What it shows.** A convolution cannot look beyond its window, so local maps stay dark outside a box, even at 1/32. Attention
# lights X6 in every cell, and injection carries that light to X3 to X5.
#
# How wide is the box? A convolution of size k widens the view by (k - 1) cells of its input, and the cells grow with the stride.
# The next code cell adds this up, layer by layer.

# %% tags=["nbval-check-output"]
for name, net in (("TopFormer-tiny", backbone.tpm), ("MobileNetV2", backbones.build("mobilenetv2"))):
    fields, field, step = {}, 1, 1
    for conv in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        field += (conv.kernel_size[0] - 1) * step
        step *= conv.stride[0]
        fields[step] = field  # of the last convolution at this stride
    print(f"{name:15}", *(f"1/{step}: {field} pixels  " for step, field in fields.items()))

# %% [markdown]
# ## Step 5: what can X6 not see?
#
# X6 is made from averages. So there must be changes of a fine map that no token can notice.
#
# ### Exercise 4 (break it): what pooling cannot see


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
#
# Your function changes the frame in blocks of 32 x 32, and then the local map at 1/8 of the shipped model in blocks of 4 x 4.

# %%
unseen_change = check.unseen_change(unseen_change).or_ours
changed = unseen_change(pixels, 32)
torch.testing.assert_close(F.avg_pool2d(changed, 32), F.avg_pool2d(pixels, 32))
true, fine = backbone(frame), unseen_change(tokens[1], 4)  # the local map at 1/8, changed
x6 = backbone.trans(backbone.pool([tokens[0], fine, *tokens[2:]]))
x3 = backbone.SIM[1](fine, x6.split(backbone.tpm.channels, dim=1)[1])
for name, now, then in (("X6", x6, true.x6), ("X3", x3, true.x3)):
    print(f"{name} changes by {100 * (now - then).norm() / then.norm():.1f} % of its norm")
visualize.plot_images(
    [pixels[0], changed[0], F.avg_pool2d(pixels, 32)[0], F.avg_pool2d(changed, 32)[0]],
    ["frame", "changed by your function", "means of the frame", "means of the changed one"],
    head="Two different pictures with the same averages", note="Blocks of 32 x 32 pixels, and their means.")

# %% [markdown]
# **What it shows.** The outlines are broken, and the averages do not notice. X6 alone could never draw a mask. The line above the
# picture says the same of features: X6 stays, X3 does not.
#
# ## Which backbone?
#
# MobileInst runs on any of three:
#
# | | X6 is made by | fusion with details | view of X6 |
# |---|---|---|---|
# | **TopFormer** | attention over the token pyramid | semantic injection | whole frame |
# | **SeaFormer** | squeeze-axial attention, 1/32 and 1/64 | left to the mask decoder | whole frame |
# | **MobileNetV2** | one more convolution block (ours) | none | a window of 555 pixels |

# %%
chosen = ("topformer-tiny", "seaformer-tiny", "topformer-base", "seaformer-base", "mobilenetv2")
nets = {name: backbones.build(name).eval().requires_grad_(False) for name in chosen}
seconds = dict.fromkeys(chosen, float("inf"))
for _, name in product(range(10), chosen):  # in turns: a busy moment hits all; the least counts
    start = process_time()
    nets[name](pixels)
    seconds[name] = min(seconds[name], process_time() - start)
panels = {
    "million parameters": [sum(p.numel() for p in net.parameters()) / 1e6 for net in nets.values()],
    "billion MACs at 640 x 640": [trace(net, 1, 3, 640, 640)[1]["Global"] / 1e9 for net in nets.values()],
    "CPU time at 192 x 256, fastest = 1": [s / min(seconds.values()) for s in seconds.values()],
}
labels = [name.replace("-", "\n").replace("mobile", "mobile\n") for name in chosen]
check.plot_bars(
    {title: dict(zip(labels, values)) for title, values in panels.items()},
    head="Few parameters are not few operations: look at MobileNetV2",
    note="Backbones alone. Orange: without attention.", lit=["mobile\nnetv2"])

# %% [markdown]
# **What it shows.** MobileNetV2 has less than half of TopFormer-base's parameters and more of its MACs, because its expansion is 6
# at nearly every layer. Times are this machine's. On a phone the order may differ, and lesson 08 measures it.
#
# ## Paper against ours
#
# - `Assumption:` semantic injection is on, as in the official TopFormer; the paper does not say. MobileNetV2 as a third
#   backbone, and its block for X6, are our reading of the paper's baseline.
# - `Deviation:` SeaFormer's own fusion belongs to its segmentation head. Here the mask decoder does that work (lesson 03).
# - `Deviation:` the shipped model keeps tokens at 1/32. A prototype at 128 x 128 had a video AP of 27.0 with them
#   and of 24.6 at 1/64 (one seed; measured while this package was designed).
# - **What a toy run does not show.** In a small frame the convolutions at 1/32 see 307 pixels, nearly everything. What attention is
#   *worth*, in AP, needs larger frames and photographs.
# - **Negative result.** MACs do not give the time, because depth-wise convolutions move much memory for few MACs.

# %% [markdown]
# ## Summary
#
# - Depth-wise and point-wise convolutions replace `C_in · C_out · k²` by `C · k² + C_in · C_out`.
# - Attention costs S². Pooled to 1/64 there are few tokens, and each may look at all.
# - X6 knows the scene, X3 to X5 the details. Injection gives each of them some of both.
#
# **Quiz.** (1) A frame is 1280 x 1280 instead of 640 x 640. How much more do convolutions cost, and how much more do the scores
# of attention? (2) Why may TopFormer's attention do without a position embedding?
#
# <details><summary>Answers</summary>
#
# (1) 4 times, and 16 times. (2) The 3x3 depth-wise convolution in each MLP tells neighbours apart.
#
# </details>
#
# **An open question**, which no cell answers. The token pyramid takes *means*. Suppose that it took *maxima* instead. What would a
# token learn that it does not know now, and what would it lose? Would your answer to exercise 4 still go unseen? Predict for which
# creatures X6 would become better or worse, and name a measurement that could prove you wrong.
#
# **References.** W. Zhang et al., *TopFormer*, CVPR 2022, arXiv 2204.05525 · Q. Wan et al., *SeaFormer*, ICLR 2023, arXiv
# 2301.13156 · M. Sandler et al., *MobileNetV2*, CVPR 2018, arXiv 1801.04381. Code: `minst/backbones/`.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 70 minutes with all exercises: 10 for the problem and step 1, 15 for step 2, 20 for step 3, 10 for step 4 (let the room predict
# the covered patch first), 10 for step 5. In 45 minutes, show steps 1 and 4 only. Common mistakes: rounding up at each level
# instead of padding first; the stride put on the expansion or the projection; softmax over the wrong axis; q and k exchanged; a
# swap within a cell through an alias.
#
# The open question, a point each. (1) A maximum does not dilute what is small; a mean keeps amounts and textures. (2) Moved values
# still go unseen, a chessboard does not. (3) Small, strong things gain. (4) A measurement that can fail: IoU of small and of large
# creatures, the same training with both poolings, several seeds.
#
# </details>
