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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import minst
from minst import visualize
from minst.course import lesson04 as check
from minst.evaluation.consistency import assign_queries, frame_share, mask_ious
from minst.model import Frame, apply_kernels, image_to_batch, upsample_masks

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
# **What it shows.** The queries pass through a global decoder that looks at X_G and a local decoder that looks at X_L. The
# heads turn each into a class, an objectness and a kernel. All of it costs about 1 % of the frame.
#
# | symbol | what | shape today |
# |---|---|---|
# | Q | the learned queries, the same for every frame | (N, D) = (20, 64) |
# | C | the *content* of each query: what it has seen so far | (B, N, D) |
# | X_G | X6, projected to D channels and normalised, as a list of tokens | (B, S, D), S = 48 |
# | X_L | X_mask, max-pooled to the size of X6, as a list of tokens | (B, S, D), S = 48 |
# | Q_G, Q_L | the content after the global and after the local decoder | (B, N, D) |
# | K | the mask kernels | (B, N, D) |
#
# ## See the problem
#
# X_mask knows *what looks like what* at every place, but it is one feature for all creatures. Someone has to ask it for
# this one and not for that one. Here are the four queries that are surest in both of two clips:


# %%
def find(out):
    """Masks (N, H, W) bool and the best class score (N,) of all queries of one frame, from what the decoder says."""
    masks = upsample_masks(out.mask_logits, (192, 256))[0] > 0  # a logit above 0: a probability above 0.5
    return masks.numpy(), out.scores()[0].amax(-1).numpy()


shown = {"crowd": minst.load_sample("crowd").render(0), "fast": minst.load_sample("fast").render(18)}
found = {name: find(model(image_to_batch(f.image))) for name, f in shown.items()}
surest = np.minimum(*(scores for _, scores in found.values())).argsort()[:-5:-1]  # the lower of the two scores decides
pictures, titles = [], []
for name, (masks, scores) in found.items():
    pictures += [shown[name].image, *masks[surest]]
    titles += [f"clip {name}", *(f"query {q}, score {scores[q]:.2f}" for q in surest)]
visualize.plot_images(
    pictures, titles, columns=5, head="The same vectors find other creatures in other frames",
    note="A row is a frame, and beside it the masks of four queries: white is what the query claims.",
)

# %% [markdown]
# **What it shows.** Each of the four queries claims a creature in the upper frame and a creature in the lower one. The two
# frames have nothing in common: other creatures, other places, another background. Yet the query vectors are constants,
# stored with the weights. So they must *look at the frame*, and know of each other, before they can ask X_mask.
#
# > **Dual Transformer Instance Decoder** (paper): learnable queries are refined twice, by a global decoder and then by a local
# > decoder, where other methods use six decoder layers. Neither has a feed-forward network inside, to save time.
#
# ## Predict
#
# Each decoder has two steps: queries look at the frame, then queries look *at each other*. In the trained model, switch the
# second step off. What happens: nothing, creatures are lost, or creatures are found several times?
#
# <details><summary>Answer, after you have thought</summary>
#
# The third: queries crowd on some creatures. Whether others are lost, we count below.
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
)

# %% [markdown]
# **What it shows.** The first two maps change from row to row only, the next two from column to column. In the last two maps
# the similarity is 1 at the token itself and falls with distance. Nothing is learned, and any resolution has codes.
#
# > **Dual Transformer Instance Decoder** (paper): sine position embedding goes with the features of both decoders.
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


frame = shown["crowd"]
encoded = model.encode(image_to_batch(frame.image))  # a minst.model.Frame: it has X6 and X_mask
x_g, position = decoder.global_tokens(encoded.x6)  # (1, S, D) both
queries, look, nothing = decoder.queries, decoder.global_decoder, torch.zeros(1, 20, 64)  # nothing is seen so far
slow = attend_by_loops(look.cross_attention, queries, (x_g + position)[0], x_g[0])


# %% tags=["nbval-check-output"]
def attend(attention, queries, keys, values):
    """The same without loops, heads as a dimension of their own -> (N, D) and the attention A (heads, N, S)."""
    split = lambda x: x.unflatten(-1, (attention.heads, -1)).transpose(0, 1)  # (S, D) -> (heads, S, d)
    q, k, v = split(attention.q(queries)), split(attention.k(keys)), split(attention.v(values))
    shares = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    return attention.out((shares @ v).transpose(0, 1).flatten(1)), shares


fast, shares = attend(look.cross_attention, queries, (x_g + position)[0], x_g[0])
ours, weights = look.cross_attention(queries[None], x_g + position, x_g, return_weights=True)
torch.testing.assert_close(slow, fast, rtol=1e-3, atol=1e-2)
torch.testing.assert_close(fast, ours[0], rtol=1e-3, atol=1e-2)
torch.testing.assert_close(shares, weights[0], rtol=1e-4, atol=1e-4)
print("queries", tuple(queries.shape), "tokens", tuple(x_g.shape), "attention", tuple(weights.shape))

# %% [markdown]
# ### Self-attention, and the whole global decoder
#
# A decoder keeps two things apart: the learned query Q says *who is asking*, the content C *what has been seen so far*. C starts
# from nothing. Q is added to it wherever somebody must know who asks, but it is never part of what is seen:
#
# $$C \leftarrow \operatorname{norm}(C + \operatorname{Cross}(C + Q,\; X)), \qquad
# C \leftarrow \operatorname{norm}(C + \operatorname{Self}(C + Q,\; C + Q,\; C))$$
#
# Self-attention is the same module, with queries as keys. A query has no place. So nothing but its own vector tells query 3 from
# query 4, and a decoder is *equivariant*: shuffle the queries and the answers are shuffled alike, no more.

# %% tags=["nbval-check-output"]
seen = look.norm1(nothing + ours)
among, talk = look.self_attention(seen + queries, seen + queries, seen, return_weights=True)
q_g = look.norm2(seen + among)  # (1, N, D)
torch.testing.assert_close(q_g, look(nothing, queries, x_g, position))
order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
torch.testing.assert_close(look(nothing, queries[order], x_g, position), q_g[:, order], rtol=1e-3, atol=1e-3)
print("self-attention", tuple(talk.shape), "Q_G", tuple(q_g.shape), "shuffled in, shuffled out")

# %% [markdown]
# ### Global, then local
#
# The local decoder has the same form, other weights, and other tokens. X_mask has 768 cells, too many to attend to in every
# frame; pooling by 4 leaves the 48 of X6. How should one number stand for 16?
#
# > **Dual Transformer Instance Decoder** (paper): X_L is max-pooled from the mask features, since a maximum keeps more of the
# > details than a mean does.

# %%
x_mask = encoded.x_mask  # (1, D, 24, 32)
x_l, position = decoder.local_tokens(x_mask)  # (1, 48, D)
channel = int(x_mask[0].amax((1, 2)).argmax())  # the one with the highest peak
torch.testing.assert_close(x_l[0, 10], x_mask[0, :, 4:8, 8:12].amax((1, 2)))  # token 10: row 1, column 2
largest, mean = F.max_pool2d(x_mask, 4)[0], F.avg_pool2d(x_mask, 4)[0]
kept = (mean.amax((1, 2)) / x_mask[0].amax((1, 2))).median()
print(f"averaging leaves {100 * kept:.0f} % of a channel's highest peak (median of 64), the maximum all")
visualize.plot_images(
    [frame.image, x_mask[0, channel], largest[channel], mean[channel]],
    ["frame", f"X_mask, channel {channel}", "max-pooled: X_L", "average-pooled"],
    head="Max pooling keeps the peaks that averaging washes out",
    note="One channel, 24 x 32 cells, and the 6 x 8 tokens made from it. One scale for all.",
)

# %% [markdown]
# **What it shows.** The channel with the highest peak. In the max-pooled map the peak has its full height; averaged with the
# cells around it, it is lower. Max pooling has a price, too: all but the largest of 16 values are gone, and so are strong
# *negative* answers.
#
# ### The whole decoder, the heads, the masks
#
# One feed-forward network at the very end, then three linear heads. Classes go through a *sigmoid* each: there is no
# background class. A query that holds nothing says so with low scores everywhere. *Objectness* is trained to predict the IoU
# of the query's own mask, so the score $\sqrt{p \cdot \text{objectness}}$ asks for both: the right name and a good mask.
# A kernel times X_mask is a mask, a 1x1 convolution made for one object: $M_n(y, x) = \sum_d K_{nd}\,X_{mask}(d, y, x)$.

# %% tags=["nbval-check-output"]
heads = decoder.heads
q_l = decoder.local_decoder(q_g, queries, x_l, position) + queries  # the heads, too, must know who says it
last = heads.norm(q_l + heads.ffn(q_l))
logits, objectness, kernels = heads.classes(last), heads.objectness(last)[..., 0], heads.kernel(last)
scores = (logits.sigmoid() * objectness.sigmoid()[..., None]).sqrt()
small = torch.einsum("bnd,bdyx->bnyx", kernels, x_mask)  # at 1/8
out = encoded.out  # what the model says of this frame
close = {"rtol": 1e-3, "atol": 1e-3}
torch.testing.assert_close(scores, out.scores(), **close)
torch.testing.assert_close(kernels, out.kernels, **close)
torch.testing.assert_close(small, out.mask_logits, **close)
torch.testing.assert_close(small, apply_kernels(kernels, x_mask), **close)
masks = upsample_masks(small, encoded.size)
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
# Where does a query look? We take four frames of each of the six clips, and every query that *holds* a creature. The word
# means the same in all lessons: of the queries whose IoU with the creature is at least 0.5, the holder is the one with the
# best matching score (lesson 05). *x chance* is the attention inside the query's own mask over the mask's share of the frame.

# %%
def holders(out, masks, truth, labels):
    """{query: the instance that it holds}, of one frame."""
    p = out.class_logits[0].sigmoid()[:, labels].numpy()  # (N, M): the probability of each instance's class
    return dict(assign_queries(mask_ious(masks, truth), p))


videos = [minst.load_sample(name) for name in minst.sample_names()]
shots = [(video, video.render(t)) for video in videos for t in (0, 6, 12, 18)]
codes = [model.encode(image_to_batch(shot.image)) for _, shot in shots]  # encoded frames
held = [holders(e.out, find(e.out)[0], shot.masks, video.labels) for e, (video, shot) in zip(codes, shots)]
print(f"{sum(map(len, held))} creatures are held in {len(shots)} frames")


def best_iou(logits):
    """Mean IoU of the best query with each creature that is seen; logits: (1, N, h, w) per frame."""
    masks = [(upsample_masks(m, (192, 256))[0] > 0).numpy() for m in logits]
    seen = [shot.masks[shot.masks.any((1, 2))] for _, shot in shots]
    return np.concatenate([mask_ious(m, truth).max(0) for m, truth in zip(masks, seen)]).mean()


# %%
top, chance = ([], []), ([], [])
for e, queries_held in zip(codes, held):
    maps, (masks, _) = visualize.attention_maps(model, e), find(e.out)
    for query in queries_held:
        for i in (0, 1):
            top[i].append(maps.weights[i][0, :, query].amax((-2, -1)).mean())  # mean of 8 heads
            chance[i].append(maps.inside(i, query, masks[query]).mean() / masks[query].mean())
for i, name in enumerate(("global", "local ")):
    share, times = torch.stack(top[i]), torch.tensor(chance[i])
    low, high, middle = 100 * share.min(), 100 * share.max(), times.median()
    print(f"{name}: a head's top token takes {low:.0f} to {high:.0f} %; own mask: {middle:.1f} x chance")
ladybird = next(i for i, (video, _) in enumerate(shots) if video is videos[minst.sample_names().index("in-and-out")])
visualize.plot_attention(model, shots[ladybird][0], frame=0, query=min(held[ladybird]))

# %% [markdown]
# **What it shows.** The query that holds the ladybird, with its outline in every panel. The upper row shows where the
# global decoder looks, first the mean and then head by head, the lower row where the local decoder looks. The headline says
# how much of either attention lies inside the query's own mask.
#
# ### What keeps the global decoder alive
#
# Q_G should say what is in *this* frame, since query passing (lesson 06) hands it to another one. But the local decoder sees the
# frame anyway, so training can leave Q_G a constant. It did: in an earlier model of ours, 0.4 % of its variance depended on the
# frame (untrained: 84 %). What is different now:
#
# - `Assumption:` the content starts from nothing, as in DETR. Our earlier model handed Q itself on, and Q_G was little else.
# - `Deviation:` a layer norm on X_G. Softmax turns large scores into all or nothing, and scores grow with the length of tokens,
#   as the next cell shows. Without the norm that length grew from 19 to 33 within 400 steps, and a head's top token took 80 % of
#   the attention in place of 43 %; with it, 28 %.
# - `Deviation:` deep supervision. In training, what the heads say of Q_G alone gets the same losses for the same instances
#   (`global_weight` in `minst.training`). The class loss helped: without it at most 10 % depended on the frame. A constant kernel
#   can draw masks, for X_mask knows the place; a class must be seen.
#
# Two figures tell how well: the share of Q_G's variance that depends on the frame, and how good its own masks are.


# %%
def share_by_frame(q):
    """Of the variance of Q_G (frames, N, D): the share that depends on the frame, whatever the query."""
    over_frames = (q - q.mean(0)).square().mean((0, 1)).sum()  # mean over queries of the variance over frames
    return over_frames / (q - q.mean((0, 1))).square().mean((0, 1)).sum()


for factor in (0.5, 1, 2, 4, 8):
    _, shares = look.cross_attention(queries[None], factor * x_g + position, x_g, return_weights=True)
    print(f"X_G {factor:3} times as long: a head's top token takes {100 * shares.amax(-1).mean():.0f} %")

torch.manual_seed(0)
newborn = minst.MobileInst(model.config).eval()
for name, net in (("untrained", newborn), ("trained", model)):
    q_gs = torch.cat([net(image_to_batch(shot.image)).global_queries for _, shot in shots])  # (24, N, D)
    assert abs(share_by_frame(q_gs) - frame_share(q_gs.numpy())) < 1e-3  # minst's own
    print(f"{name}: {100 * share_by_frame(q_gs):.1f} % of the variance of Q_G depends on the frame")
draft = best_iou([e.masks(decoder.predict(e.out.global_queries).kernels) for e in codes])
final = best_iou([e.out.mask_logits for e in codes])
print(f"mean IoU of the best query: {draft:.2f} from Q_G alone, {final:.2f} in the end")

# %% [markdown]
# A share near 0 would mean that Q_G says only *which query* this is. The higher it is, the more Q_G says *what is here*. The
# last line compares what the global decoder finds by itself with what the local one makes of it.
#
# Now look for yourself: choose a query that holds a creature, and a head.

# %%
CROWD = next(i for i, (_, shot) in enumerate(shots) if np.array_equal(shot.image, frame.image))
masks, _ = find(codes[CROWD].out)
maps = visualize.attention_maps(model, codes[CROWD])
light = {query: [maps.on_frame(i, query) for i in (0, 1)] for query in held[CROWD]}  # (heads, H, W) each


def lit(image, light):
    """An image (H, W, 3), dark where `light` (H, W) in [0, 1] is low."""
    return image / 255 * (0.2 + 0.8 * light[..., None])


def show(query: int, head: int):
    """A query's mask, and the frame lit where one of its heads looks, in both decoders."""
    spots = [(x[head - 1] / x[head - 1].max()) ** 0.5 for x in light[query]]
    tokens = [100 * float(w[0, head - 1, query].max()) for w in maps.weights]
    return visualize.plot_images(
        [lit(frame.image, spot) for spot in (masks[query], *spots)],
        [f"mask of query {query}", *(f"{s}: top token {t:.0f} %" for s, t in zip(("global", "local"), tokens))],
        head=f"Where head {head} of query {query} looks",
        note="Left: the query's mask is lit. Then the places are lit where this head of it looks.",
    )


visualize.interact(show, query=sorted(held[CROWD]), head=((1, 8, 1), 1))

# %%
show(min(held[CROWD]), 1)

# %% [markdown]
# **What it shows.** On the left the query lights the creature that it holds; then one head of the global decoder lights where it
# looks, and one of the local decoder. The titles say how much of its attention the head gives to one token.
#
# ### What does the decoder need?
#
# Take one part away from the trained model, and count creatures in the 24 frames. A query *speaks* when its score is at
# least 0.3. This includes the question of *Predict*.


# %%
def count(model, codes):
    """How many queries speak; how many creatures have two or more of them, and how many have none."""
    speak = double = none = 0
    for (_, shot), e in zip(shots, codes):
        masks, scores = find(model.decode(e))
        claims = (mask_ious(masks[scores >= 0.3], shot.masks[shot.masks.any((1, 2))]) >= 0.5).sum(0)
        speak, double, none = speak + (scores >= 0.3).sum(), double + (claims > 1).sum(), none + (claims == 0).sum()
    return f"{speak:4} speak, {double:3} creatures twice or more, {none:3} missed"


silent, placeless = copy.deepcopy(model), copy.deepcopy(model)
for part in (silent.instance_decoder.global_decoder, silent.instance_decoder.local_decoder):
    part.self_attention.out.weight.zero_(), part.self_attention.out.bias.zero_()  # C + 0
hook = placeless.instance_decoder.position.register_forward_hook(lambda module, inputs, place: 0 * place)
swapped = [Frame(model, b.x6, a.padded_x_mask, None, a.size) for a, b in zip(codes, codes[5:] + codes[:5])]
empty = [Frame(model, 0 * a.x6, a.padded_x_mask, None, a.size) for a in codes]
trials = {"as trained": (model, codes), "no self-attention": (silent, codes), "no position": (placeless, codes),
          "X6 of another clip": (model, swapped), "X6 of zeros": (model, empty)}
print(f"{sum(int(shot.masks.any((1, 2)).sum()) for _, shot in shots)} creatures in {len(shots)} frames")
for name, trial in trials.items():
    print(f"{name:20}", count(*trial))

# %%
claims, titles, names = [], [], ("ladybird", "fish", "starfish")  # frame 7: clip occlusion, frame 18
for who, title in ((model, "as trained"), (silent, "no self-attention")):
    masks, scores = find(who.decode(codes[7]))
    masks = masks[scores >= 0.3]
    counts = (mask_ious(masks, shots[7][1].masks) >= 0.5).sum(0)
    claims.append(masks.sum(0))
    titles.append(f"{title}: " + ", ".join(f"{name} {n}" for name, n in zip(names, counts)))
visualize.plot_images(
    [shots[7][1].image, *claims], ["frame", *titles], colors="turbo",
    head="Self-attention is how queries agree on who takes what",
    note="Colour: how many of the queries that speak claim a pixel. Above: how many hold each creature.",
)

# %% [markdown]
# **What it shows.** The middle map is the trained model's, the right one the same without self-attention. The titles count the
# queries for each creature. Losses that allow one query per creature have taught the queries to agree (lesson 05).
#
# The first row of the table is the model as it is: also as trained, some creatures are claimed twice. In *X6 of
# another clip* the local decoder sees the right frame and the global decoder a wrong one: what this row loses is what the
# global decoder contributes. In *X6 of zeros* it gets something that it never saw in training.
#
# ## Exercises
#
# All solutions lie in [solutions/](solutions/04_dual_decoder.py).
#
# ### Exercise 1 (recall): the shapes of attention


# %% tags=["exercise"]
def attention_shapes(height: int, width: int, queries: int, heads: int, token_stride: int) -> list[tuple]:
    """Shapes of the attention weights A of one frame (B = 1): [global decoder, local decoder, among queries].

    height, width: of the frame, multiples of 64. token_stride: from token to token of X6 and X_L, 32 or 64.
    """
    # solution
    tokens = (height // token_stride) * (width // token_stride)
    return [(1, heads, queries, tokens), (1, heads, queries, tokens), (1, heads, queries, queries)]


# %%
check.attention_shapes(attention_shapes)

# %% [markdown]
# <details><summary>Hint</summary>
#
# There is one row per query and one column per key. X_mask lies at 1/8, but X_L is X_mask *after* pooling.
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
check.one_voice(one_voice)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Each decoder is equivariant: it knows no "first" and no "second" query. What is then the only thing that can make two answers
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
# - The content that starts from nothing, the norm on X_G and the losses on Q_G are not in the paper's text. Without them the
#   global decoder of our small model became a constant. Whether that happens in the paper's model was not measured.
# - Position codes may matter less than one expects (see the table): features that come out of padded convolutions can know
#   their place already.
# - Taking a part from a *trained* model shows what these weights rely on. It does not show what a model trained without the
#   part would do: zeros were never seen in training.
#
# > **Ablations** (paper): global-then-local does better than one decoder, or the same source twice; max pooling gains 0.4 AP on
# > average pooling. Lesson 09 tests both at our scale.

# %% [markdown]
# ## Summary
#
# - Queries are constants, content is not. Cross-attention lets each look at the frame, self-attention lets them share the work.
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
# start. (3) 0.3: the name is clear, the mask is expected to be bad. (4) Q alone. How much Q_G and K change was measured above.
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
# exercises 2 and 5. Short of time: leave out the position codes and exercises 1 and 3. Common mistakes: the local decoder is
# thought to attend to all of X_mask; position added to the values; softmax over the queries; no square root of d; softmax
# over classes, as if there were a background; the sigmoid before the upsampling; parallel queries thought to be equal.
# Ask which experiment would show that the global decoder is needed, before the table is run.
#
# </details>
