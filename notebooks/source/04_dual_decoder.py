# %% [markdown]
# # 04 · Dual decoder
#
# **How do twenty learned vectors become one mask kernel for each object?**

# %% [markdown]
# ## You will be able to …
#
# - say the shape of every attention map in the decoder, for any frame (exercise 1)
# - write cross-attention from queries to tokens, and say where the position goes (exercise 2)
# - turn class and objectness logits into one score (exercise 3)
# - turn kernels and the mask feature into masks (exercise 4)
# - say what makes two queries different, and break it (exercise 5)
#
# You need lesson 03 (X_mask) and a rough idea of `softmax`.

# %% tags=["setup"]
import copy

import torch
import torch.nn.functional as F
from torch import Tensor

import minst
from minst import visualize
from minst.check import lesson04 as check
from minst.evaluation.consistency import assign_queries, mask_ious
from minst.model import apply_kernels, as_frames, upsample_masks

# %% [markdown]
# ## The map
#
# Backbone and mask decoder have done their work: X6 and X_mask are there.

# %%
gradients = torch.set_grad_enabled(False)  # we only look today
model = minst.MobileInst.from_pretrained("shapes-tiny")
decoder = model.instance_decoder
visualize.plot_pipeline(model, size=(192, 256), highlight="instance_decoder")

# %% [markdown]
# **What it shows.** The queries pass through a global stage that looks at X_G and a local stage that looks at X_L. The
# heads turn each into a class, an objectness and a kernel. All of it costs about 1 % of the frame.
#
# | symbol | what | shape today |
# |---|---|---|
# | Q | the learned queries, the same for every frame | (N, D) = (20, 64) |
# | X_G | X6, projected to D channels, as a list of tokens | (B, S, D), S = 48 |
# | X_L | X_mask, max-pooled to the size of X6, as a list of tokens | (B, S, D), S = 48 |
# | Q_G, Q_L | the queries after the global and after the local stage | (B, N, D) |
# | K | the mask kernels | (B, N, D) |
#
# ## See the problem
#
# X_mask knows *what looks like what* at every place, but it is one feature for all creatures. Someone has to ask it for
# this one and not for that one. Four of the twenty queries, in two clips:


# %%
def find(model, code):
    """Masks (N, H, W) bool and the best class score (N,) of all queries, in one encoded frame."""
    out = model.decode(code)
    masks = upsample_masks(out.mask_logits, code.size)[0] > 0  # a logit above 0: a probability above 0.5
    return masks.numpy(), out.scores()[0].amax(-1).numpy()


frame, other = minst.load_sample("crowd").render(0), minst.load_sample("fast").render(18)
pictures, titles, some = [], [], (0, 4, 18, 16)
for clip, image in (("crowd", frame.image), ("fast", other.image)):
    masks, scores = find(model, model.encode(as_frames(image)))
    pictures += [image, *masks[list(some)]]
    titles += [f"clip {clip}", *(f"query {q}, score {scores[q]:.2f}" for q in some)]
visualize.plot_images(
    pictures, titles, columns=5, head="The same vectors find other creatures in other frames",
    note="A row is a frame, and beside it the masks of four queries: white is what the query claims.",
)  # fmt: skip

# %% [markdown]
# **What it shows.** In either frame, queries 0, 4 and 18 claim one creature each: snail, starfish and jellyfish above, two
# snails and a fish below. Query 16 has the fish above; below it draws the mask of query 18 once more, but with a low score:
# a duplicate that gives way. The vectors are constants, stored with the weights. So they must *look at the frame*, and know
# of each other, before they can ask X_mask.
#
# > **Dual Transformer Instance Decoder** (paper): learnable queries are refined twice, first on global features and then on
# > local ones, where other methods use six stages. Neither stage has a feed-forward network, to save time.
#
# ## Predict
#
# A stage has two steps: queries look at the frame, then queries look *at each other*. In the trained model, switch the
# second step off. What happens: nothing, creatures are lost, or creatures are found several times?
#
# <details><summary>Answer, after you have thought</summary>
#
# Mostly the third: nearly twice as many queries speak up, several for one creature. Some creatures are lost on top. We
# measure it below, under "Look inside".
#
# </details>

# %% [markdown]
# ## Build it: where a token lies
#
# Attention sees a *set* of tokens; it cannot know that token 9 lies below token 1. So every token's place is written into
# its key, as sines and cosines of its row (first half of the channels) and of its column (second half):

# %%
place = decoder.position(6, 8)[0]  # (S, D): 6 x 8 tokens, row by row
row = torch.arange(6).repeat_interleave(8)
torch.testing.assert_close(place[:, 0], torch.sin((row + 0.5) / 6 * 2 * torch.pi))  # channel 0 by hand
waves = [place[:, channel].view(6, 8) for channel in (0, 16, 32, 40)]
alike = [F.cosine_similarity(place[token], place, dim=-1).view(6, 8) for token in (9, 30)]
names = ["sine of the row", "cosine of the row", "sine of the column", "a slower wave"]
visualize.plot_images(
    [*waves, *alike], [*names, "alike: token (1, 1)", "alike: token (3, 6)"], limits=(-1, 1),
    head="Sines and cosines make neighbours alike and far tokens different",
    note="Four of the 64 channels; then how alike (cosine) the code of one token is to all others.",
)  # fmt: skip

# %% [markdown]
# **What it shows.** The first two maps change from row to row only, the next two from column to column. In the last two maps
# the similarity is 1 at the token itself and falls with distance. Nothing is learned, and any resolution has codes.
#
# > **Dual Transformer Instance Decoder** (paper): sine position embedding goes with the features of both stages.
#
# ### Cross-attention
#
# A query scores every key, turns the scores into shares, and takes that mixture of the values. A *head* is a slice of the
# channels which does so by itself, with $d = D / \text{heads}$ channels:
#
# $$A = \operatorname{softmax}\left(\frac{q\,k^\top}{\sqrt d}\right), \qquad
# q = W_q Q,\quad k = W_k (X + \text{position}),\quad v = W_v X, \qquad \text{out} = W_o\,(A\,v)$$
#
# The position is in the keys: it may decide *where* to look. It is not in the values: what is brought home is content. First
# by loops, one head, one query, one token at a time; then vectorised; then `minst`'s own module with the same weights:


# %%
def attend_by_loops(attention, queries, keys, values):
    """queries (N, D), keys (S, D), values (S, D) -> (N, D)."""
    q, k, v = attention.q(queries), attention.k(keys), attention.v(values)
    d = q.shape[1] // attention.heads
    mixed = torch.zeros_like(q)
    for head in range(attention.heads):
        part = slice(head * d, (head + 1) * d)
        for n in range(len(q)):
            scores = torch.stack([q[n, part] @ k[s, part] for s in range(len(k))]) / d**0.5
            mixed[n, part] = scores.softmax(0) @ v[:, part]
    return attention.out(mixed)


code = model.encode(as_frames(frame.image))
x_g, position = decoder.tokens("global", code.x6, code.mask_features)  # (1, S, D) both
queries, stage = decoder.queries, decoder.stages[0]
slow = attend_by_loops(stage.cross_attention, queries, (x_g + position)[0], x_g[0])


# %%
# NBVAL_CHECK_OUTPUT
def attend(attention, queries, keys, values):
    """The same without loops, heads as a dimension of their own -> (N, D) and the attention A (heads, N, S)."""
    split = lambda x: x.unflatten(-1, (attention.heads, -1)).transpose(0, 1)  # (S, D) -> (heads, S, d)
    q, k, v = split(attention.q(queries)), split(attention.k(keys)), split(attention.v(values))
    shares = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    return attention.out((shares @ v).transpose(0, 1).flatten(1)), shares


fast, shares = attend(stage.cross_attention, queries, (x_g + position)[0], x_g[0])
ours, weights = stage.cross_attention(queries[None], x_g + position, x_g, return_weights=True)
torch.testing.assert_close(slow, fast, rtol=1e-4, atol=1e-2)  # numbers here are in the thousands
torch.testing.assert_close(fast, ours[0], rtol=1e-4, atol=1e-2)
torch.testing.assert_close(shares, weights[0], rtol=1e-4, atol=1e-4)
print("queries", tuple(queries.shape), "tokens", tuple(x_g.shape), "attention", tuple(weights.shape))

# %% [markdown]
# ### Self-attention, and one stage
#
# Self-attention is the same module with queries as queries, keys and values. It has no position: a query has no place. So
# nothing but its own vector tells query 3 from query 4, and a stage is *equivariant*: shuffle the queries and the answers
# are shuffled alike, no more.
#
# $$Q \leftarrow \operatorname{norm}(Q + \operatorname{Cross}(Q, X)), \qquad Q \leftarrow \operatorname{norm}(Q + \operatorname{Self}(Q))$$

# %%
# NBVAL_CHECK_OUTPUT
looked = stage.norm1(queries[None] + ours)
among, talk = stage.self_attention(looked, looked, looked, return_weights=True)
q_g = stage.norm2(looked + among)  # (1, N, D)
torch.testing.assert_close(q_g, stage(queries[None], x_g, position))

order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
shuffled = stage(queries[None, order], x_g, position)
torch.testing.assert_close(shuffled, q_g[:, order], rtol=1e-3, atol=1e-3)
print("self-attention", tuple(talk.shape), "Q_G", tuple(q_g.shape), "shuffled in, shuffled out")

# %% [markdown]
# ### Global, then local
#
# The second stage has the same form, other weights, and other tokens. X_mask has 768 cells, too many to attend to in every
# frame; pooling by 4 leaves the 48 of X6. How should one number stand for 16?
#
# > **Dual Transformer Instance Decoder** (paper): X_L is max-pooled from the mask features, since a maximum keeps more of the
# > details than a mean does.

# %%
x_mask = code.mask_features  # (1, D, 24, 32)
x_l, position = decoder.tokens("local", code.x6, x_mask)  # (1, 48, D)
torch.testing.assert_close(x_l[0, 10], x_mask[0, :, 4:8, 8:12].amax((1, 2)))  # token 10: row 1, column 2
largest, mean = F.max_pool2d(x_mask, 4)[0], F.avg_pool2d(x_mask, 4)[0]
kept = (mean.amax((1, 2)) / x_mask[0].amax((1, 2))).median()
print(f"averaging leaves {100 * kept:.0f} % of a channel's highest peak (median of 64), the maximum all")
visualize.plot_images(
    [frame.image, x_mask[0, 57], largest[57], mean[57]],
    ["frame", "X_mask, channel 57", "max-pooled: X_L", "average-pooled"],
    head="Max pooling keeps the peaks that averaging washes out",
    note="One channel, 24 x 32 cells, and the 6 x 8 tokens made from it. One scale for all.",
)

# %% [markdown]
# **What it shows.** The channel has a bright peak on the fish at the lower right, fainter ones on the jellyfish. In the
# max-pooled map the peak has its full height; averaged with the cells around it, it is about half as high.
# Max pooling has a price, too: all but the largest of 16 values are gone, and so are strong *negative* answers.
#
# ### The whole decoder, the heads, the masks
#
# One feed-forward network at the very end, then three linear heads. Classes go through a *sigmoid* each: there is no
# background class. A query that holds nothing says so with low scores everywhere. *Objectness* is trained to predict the IoU
# of the query's own mask, so the score $\sqrt{p \cdot \text{objectness}}$ asks for both: the right name and a good mask.
# A kernel times X_mask is a mask, a 1x1 convolution made for one object: $M_n(y, x) = \sum_d K_{nd}\,X_{mask}(d, y, x)$.

# %%
# NBVAL_CHECK_OUTPUT
heads = decoder.heads
q_l = decoder.stages[1](q_g, x_l, position)
last = heads.norm(q_l + heads.ffn(q_l))
logits, objectness, kernels = heads.classes(last), heads.objectness(last)[..., 0], heads.kernel(last)
scores = (logits.sigmoid() * objectness.sigmoid()[..., None]).sqrt()
small = torch.einsum("bnd,bdyx->bnyx", kernels, x_mask)  # at 1/8
out = model(as_frames(frame.image))  # the model, from the frame
close = {"rtol": 1e-3, "atol": 1e-3}
torch.testing.assert_close(scores, out.scores(), **close)
torch.testing.assert_close(kernels, out.kernels, **close)
torch.testing.assert_close(small, out.mask_logits, **close)
torch.testing.assert_close(small, apply_kernels(kernels, x_mask), **close)
masks = upsample_masks(small, code.size)
for name, x in {"X_L": x_l, "scores": scores, "K": kernels, "M": small, "masks": masks}.items():
    print(f"{name:7}", tuple(x.shape))

# %%
visualize.plot_kernels(model, minst.load_sample("crowd"), 12)

# %% [markdown]
# **What it shows.** Kernels of 12 frames, a dot each, in the plane where they vary most. On the left, dots of one query lie
# together, and queries lie apart: most of the variance (the headline has the share) is *which query*. On the right each
# query's mean is taken away; what is left is *which instance and which frame*. Keep this picture for lesson 07: whoever
# compares kernels of two frames compares queries first.
#
# ## Look inside
#
# Where does a query look? We take four frames of each of the six clips, and all queries that hold a creature (IoU at least
# 0.5). *x chance* is the attention inside the query's own mask over the mask's share of the frame.

# %%
frames = [minst.load_sample(name).render(t) for name in minst.sample_names() for t in (0, 6, 12, 18)]
codes = [model.encode(as_frames(f.image)) for f in frames]
top, chance = ([], []), ([], [])
for f, code in zip(frames, codes):
    maps, (masks, _) = visualize.attention_maps(model, code), find(model, code)
    for query, _ in assign_queries(mask_ious(masks, f.masks)):
        for i in (0, 1):
            top[i].append(maps.weights[i][0, :, query].amax((-2, -1)).mean())  # mean of 8 heads
            chance[i].append(maps.inside(i, query, masks[query]).mean() / masks[query].mean())
for i, name in enumerate(("global", "local ")):
    share, times = torch.stack(top[i]), torch.tensor(chance[i])
    low, high, middle = 100 * share.min(), 100 * share.max(), times.median()
    print(f"{name}: a head's top token takes {low:.0f} to {high:.0f} %; own mask: {middle:.1f} x chance")
visualize.plot_attention(model, minst.load_sample("in-and-out"), frame=0, query=18)

# %% [markdown]
# **What it shows.** Query 18, which holds the ladybird: its outline is drawn into every panel. Upper row, global stage:
# every head puts all of its attention on one token, in the corner or below the outline, and nothing inside. Lower row,
# local stage: attention is spread over more tokens, and much of it lies on the ladybird.
#
# **An honest finding.** In these weights the global stage is *saturated*: of 48 tokens a head sees one, often background,
# and for most queries none of it is their own creature. Only the local attention finds that, several times as often as
# chance. The probable reason is length, and we can measure it: softmax turns large scores into all or nothing. After that,
# look for yourself: choose a query that holds a creature, and a head.

# %%
x_gs = torch.cat([decoder.tokens("global", c.x6, c.mask_features)[0] for c in codes])  # (24, S, D)
x_ls = torch.cat([decoder.tokens("local", c.x6, c.mask_features)[0] for c in codes])
lengths = {"X_G": x_gs, "X_L": x_ls, "position": position, "Q": queries}
print("median length:", ", ".join(f"{name} {x.norm(dim=-1).median():.0f}" for name, x in lengths.items()))

maps = [visualize.attention_maps(model, c).weights[0] for c in codes]  # (1, heads, N, 6, 8) each
seen = torch.cat([x.mean((1, 2)).flatten(1) for x in maps])  # (24, S)
two = seen.topk(2)
longest = (two.indices == x_gs.norm(dim=-1).argmax(1, keepdim=True)).any(1).float().mean()
print(f"two of 48 tokens take {100 * two.values.sum(1).mean():.0f} % of all attention to X_G;")
print(f"in {100 * longest:.0f} % of the frames one of the two is the longest token")

creatures = torch.stack([torch.from_numpy(f.masks.any(0)).float() for f in frames])
bare = (F.avg_pool2d(creatures, 32).flatten(1) < 0.1).float()  # (24, S): tokens with hardly any creature
there = (seen * bare).sum(1).mean()
print(f"{100 * bare.mean():.0f} % of tokens are bare, and have {100 * there:.0f} % of the attention")

q_gs = torch.cat([model.decode(c).global_queries for c in codes])  # (24, N, D)
moved = (q_gs - q_gs.mean(0)).square().sum() / (q_gs - q_gs.mean((0, 1))).square().sum()
print(f"{100 * moved:.1f} % of the variance of Q_G lies between frames, the rest between queries")

# %%
code, masks = codes[20], find(model, codes[20])[0]  # clip crowd, frame 0
maps, holds = visualize.attention_maps(model, code), dict(assign_queries(mask_ious(masks, frame.masks)))
light = {query: [maps.on_frame(stage, query) for stage in (0, 1)] for query in holds}  # (heads, H, W) each


def lit(image, light):
    """An image (H, W, 3), dark where `light` (H, W) in [0, 1] is low."""
    return image / 255 * (0.2 + 0.8 * light[..., None])


def show(query: int, head: int):
    """A query's mask, and the frame lit where one of its heads looks, in both stages."""
    spots = [(x[head - 1] / x[head - 1].max()) ** 0.5 for x in light[query]]
    tokens = [100 * float(w[0, head - 1, query].max()) for w in maps.weights]
    return visualize.plot_images(
        [lit(frame.image, spot) for spot in (masks[query], *spots)],
        [f"mask of query {query}", *(f"{s}: top token {t:.0f} %" for s, t in zip(("global", "local"), tokens))],
        head=f"Where head {head} of query {query} looks",
        note="Left: the query's mask is lit. Then the places are lit where this head of it looks.",
    )


visualize.interact(show, query=sorted(holds, reverse=True), head=((1, 8, 1), 1))

# %%
show(18, 1)

# %% [markdown]
# **What it shows.** On the left query 18 lights the large jellyfish. In the middle one spot of light, elsewhere: the single
# token that this head sees in X_G. On the right the light of the local stage, softer, and on the jellyfish.
#
# The numbers above say the same. Tokens of X_G are long, two of them take most of the attention, and they hold a creature
# no more often than tokens taken by lot. Q_G is almost the same in every frame. In these weights the global stage gives the
# queries a better starting point; the local stage does the looking.
#
# ### What does the decoder need?
#
# Take one part away from the trained model, and count creatures in the 24 frames. A query *speaks* when its score is at
# least 0.3. This includes the question of *Predict*.


# %%
def count(model, codes):
    """How many queries speak; how many creatures have two or more of them, and how many have none."""
    speak = double = none = 0
    for f, code in zip(frames, codes):
        masks, scores = find(model, code)
        held = mask_ious(masks[scores >= 0.3], f.masks[f.masks.any((1, 2))]) >= 0.5
        claims = held.sum(0)  # of each creature
        speak, double, none = speak + len(held), double + (claims > 1).sum(), none + (claims == 0).sum()
    return f"{speak:4} speak, {double:3} creatures twice or more, {none:3} missed"


silent, placeless = copy.deepcopy(model), copy.deepcopy(model)
for s in silent.instance_decoder.stages:
    s.self_attention.out.weight.zero_(), s.self_attention.out.bias.zero_()  # Q + 0
hook = placeless.instance_decoder.position.register_forward_hook(lambda module, inputs, place: 0 * place)
swapped = [a._replace(x6=b.x6) for a, b in zip(codes, codes[5:] + codes[:5])]
empty = [c._replace(x6=0 * c.x6) for c in codes]
trials = {"as trained": (model, codes), "no self-attention": (silent, codes), "no position": (placeless, codes),
          "X_G of another clip": (model, swapped), "X_G of zeros": (model, empty)}  # fmt: skip
print(f"{sum(int(f.masks.any((1, 2)).sum()) for f in frames)} creatures in {len(frames)} frames")
for name, trial in trials.items():
    print(f"{name:20}", count(*trial))

# %%
claims, titles, names = [], [], ("ladybird", "fish", "starfish")  # frame 7: clip occlusion, frame 18
for who, title in ((model, "as trained"), (silent, "no self-attention")):
    masks, scores = find(who, codes[7])
    masks = masks[scores >= 0.3]
    held = (mask_ious(masks, frames[7].masks) >= 0.5).sum(0)
    claims.append(masks.sum(0))
    titles.append(f"{title}: " + ", ".join(f"{name} {n}" for name, n in zip(names, held)))
visualize.plot_images(
    [frames[7].image, *claims], ["frame", *titles], colors="turbo",
    head="Without self-attention, several queries claim one creature",
    note="Colour: how many of the queries that speak claim a pixel. Below: how many hold each creature.",
)  # fmt: skip

# %% [markdown]
# **What it shows.** As trained (middle), one query holds each creature. Without self-attention (right) five pile up on the
# starfish, and none is left for the fish, where the map says 0. Self-attention is how queries agree on who takes what;
# losses that allow one query per creature have taught them (lesson 05).
#
# The table has more surprises. Position codes and the frame's own X_G are hardly missed, while zeros for X_G are fatal: of the
# global stage these weights need *something*, but not what it sees. And even as trained, one creature in five or six is
# claimed twice.
#
# ## Exercises
#
# All solutions lie in [solutions/](solutions/04_dual_decoder.py).
#
# ### Exercise 1 (recall): the shapes of attention


# %% tags=["exercise"]
def attention_shapes(height: int, width: int, queries: int, heads: int, token_stride: int) -> list[tuple]:
    """Shapes of the attention weights A of one frame (B = 1): [global stage, local stage, among queries].

    height, width: of the frame, multiples of 64. token_stride: from token to token of X6 and X_L, 32 or 64.
    """
    # solution
    tokens = (height // token_stride) * (width // token_stride)
    return [(1, heads, queries, tokens), (1, heads, queries, tokens), (1, heads, queries, queries)]


# %%
# NBVAL_CHECK_OUTPUT
check.attention_shapes(attention_shapes)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A row for each who asks, a column for each who is asked. X_mask lies at 1/8, but X_L is X_mask *after* pooling.
#
# </details>
#
# ### Exercise 2 (code): cross-attention


# %% tags=["exercise"]
def cross_attention(
    queries: Tensor, tokens: Tensor, position: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor
) -> Tensor:
    """One head, no biases, no output projection: queries (N, D), tokens (S, D), position (S, D) -> (N, D).

    The weights w_q, w_k, w_v are (D, D) and stand on the right: q = queries @ w_q.
    """
    # solution
    q, k, v = queries @ w_q, (tokens + position) @ w_k, tokens @ w_v
    return (q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v


# %%
# NBVAL_CHECK_OUTPUT
check.cross_attention(cross_attention)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Scores are (N, S). Each *row* of shares sums to 1. Where does `position` help, and where would it only be in the way?
#
# </details>
#
# ### Exercise 3 (code): one score


# %% tags=["exercise"]
def instance_scores(class_logits: Tensor, objectness: Tensor) -> Tensor:
    """sqrt(class probability * objectness), of logits (N, K) and objectness logits (N,): scores (N, K)."""
    # solution
    return (class_logits.sigmoid() * objectness.sigmoid()[:, None]).sqrt()


# %%
# NBVAL_CHECK_OUTPUT
check.instance_scores(instance_scores)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Both are logits. Classes do not compete with each other here. `objectness[:, None]` is (N, 1) and meets (N, K).
#
# </details>
#
# ### Exercise 4 (code): from kernels to masks


# %% tags=["exercise"]
def masks_from_kernels(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Soft masks at full size: kernels (N, D), X_mask (D, h, w) -> probabilities (N, 8 h, 8 w).

    Kernel times features, then bilinear upsampling by 8, then the sigmoid: in this order.
    """
    # solution
    logits = torch.einsum("nd,dyx->nyx", kernels, mask_features)
    return F.interpolate(logits[None], scale_factor=8, mode="bilinear")[0].sigmoid()


# %%
# NBVAL_CHECK_OUTPUT
check.masks_from_kernels(masks_from_kernels)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `F.interpolate` wants a batch dimension, (1, N, h, w), and a `mode`; its default repeats pixels.
#
# </details>
#
# ### Exercise 5 (break it): twenty queries, one answer
#
# Give the decoder other starting queries, so that all N of them return *the same kernel*, whatever its weights and whatever
# the frame. The check runs decoders with random weights on random features.


# %% tags=["exercise"]
def one_voice(queries: Tensor) -> Tensor:
    """Learned queries (N, D) -> other queries (N, D), with which all N kernels of a frame are equal."""
    # solution
    return queries[:1].repeat(len(queries), 1)


# %%
# NBVAL_CHECK_OUTPUT
check.one_voice(one_voice)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The stage is equivariant: it knows no "first" and no "second" query. What is then the only thing that can make two answers
# differ?
#
# </details>

# %% [markdown]
# ## Paper against ours
#
# - `Assumption:` cross- before self-attention, norms after the residuals, one feed-forward network of width 2 D before the
#   heads, 8 heads, N = 20 queries and D = 64 for small data. The paper's text does not fix them.
# - `Assumption:` score = sqrt(class probability × objectness), as in SparseInst, whose losses the paper follows.
# - `Assumption:` waves as long as 1 to 75 frames. DETR's go up to thousands, which are constants on 6 x 8 tokens.
# - `Deviation:` tokens at 1/32 here. The paper's 1/64 would leave 12 tokens of our frame; at 640 x 640 it leaves 100.
# - **Negative results**, of these weights and these clips. The global stage is saturated, and Q_G hardly depends on the frame:
#   X_G of another clip does as well. Position codes could be taken away, too: features that come out of padded
#   convolutions may know their place already. Neither result was measured on the paper's model. Normalised X_G tokens
#   might change the first; we have not trained such a model.
# - Taking a part from a *trained* model shows what these weights rely on. It does not show what a model trained without the
#   part would do: zeros were never seen in training.
#
# > **Ablations** (paper): global-then-local does better than one decoder, or the same source twice; max pooling gains 0.4 AP on
# > average pooling. Lesson 09 tests both at our scale.

# %% [markdown]
# ## Summary
#
# - Queries are constants. Cross-attention lets each look at the frame, self-attention lets them share the work out.
# - Keys carry position, values do not; queries are told apart by their vectors alone.
# - Global tokens are X6, local ones X_mask after max pooling: equally many, and different in what they know.
# - Kernel times X_mask is the mask. Score = sqrt(p × objectness), without a background class.
#
# **Quiz.** (1) Why does self-attention need no position? (2) All queries start as zeros: what do they learn? (3) A query has
# p = 0.9 and objectness 0.1: what is its score, and what went wrong? (4) Which of Q, Q_G and K are the same in every frame?
#
# <details><summary>Answers</summary>
#
# (1) A query has no place; its vector says who it is. (2) All the same: equal answers, equal gradients; hence the random
# start. (3) 0.3: the name is clear, the mask is expected to be bad. (4) Q by design; Q_G nearly, in these weights, by
# accident.
#
# </details>
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · N. Carion et al., *End-to-End Object Detection
# with Transformers* (DETR), ECCV 2020, arXiv 2005.12872 · T. Cheng et al., *Sparse Instance Activation* (SparseInst), CVPR
# 2022, arXiv 2203.12827 · A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, arXiv 1706.03762.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 45 minutes: 5 map and problem, 5 *Predict* (by show of hands), 10 attention, 5 pooling and heads, 10 "Look inside", 10
# exercises 2 and 5. Short of time: leave out the position codes and exercises 1 and 3. Common mistakes: the local stage is
# thought to attend to all of X_mask; position added to the values; softmax over the queries; no square root of d; softmax
# over classes, as if there were a background; the sigmoid before the upsampling; parallel queries thought to be equal.
# Do not hide the saturated stage: ask which experiment would show that it is needed.
#
# </details>
