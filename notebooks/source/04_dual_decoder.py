# %% [markdown]
# # 04 · Dual decoder
#
# **How do twenty learned vectors become one mask kernel for each object?**

# %% [markdown]
# ## You will be able to …
#
# - write cross-attention from queries to tokens, train it, and watch its shares form (exercise 1)
# - say what makes two queries different, and break it (exercise 2)
# - say the shape of every attention map in the decoder, for any frame (exercise 3)
# - turn kernels and the mask feature into masks (exercise 4)
# - turn class and objectness logits into one score (exercise 5)
#
# You need lesson 03 (X_mask) and a rough idea of `softmax`. The pictures after an exercise are drawn by *your* function; until it
# is correct, by ours.

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
from minst.layers import MultiHeadAttention
from minst.model import Frame, image_to_batch, upsample_masks

# %% [markdown]
# ## The map

# %%
gradients = torch.set_grad_enabled(False)  # one cell below switches them on
torch.set_num_threads(1)  # tensors this small are slower on several
model = minst.MobileInst.from_pretrained("shapes-tiny")
decoder = model.instance_decoder
visualize.plot_pipeline(model, size=(192, 256), highlight="instance_decoder")

# %% [markdown]
# **What it shows.** Today's block is the only one that knows of single objects. It costs about 1 % of the frame.
#
# | symbol | what | shape today |
# |---|---|---|
# | Q | the learned queries, the same for every frame | (N, D) = (20, 64) |
# | Z | the *content* of each query: what it has seen so far | (B, N, D) |
# | X_G | X6, projected to D channels and normalised, as a list of tokens | (B, S, D), S = 48 |
# | X_L | X_mask, max-pooled to the size of X6, as a list of tokens | (B, S, D), S = 48 |
# | A | attention: one row per query, one column per token, per head | (B, heads, N, S) |
# | Q_G, Q_L | the content after the global and after the local decoder | (B, N, D) |
# | K | the mask kernels: one 1x1 filter per query, made from the frame, unlike a learned 3x3 weight | (B, N, D) |
#
# ## See the problem
#
# X_mask says *what looks like what*, but it is one feature for all creatures. Somebody has to ask it for one of them. Here are
# the three queries that are surest in both of two frames:


# %%
def find(out):
    """Masks (N, H, W) bool and the best class score (N,) of all queries of one frame, from what the decoder says."""
    masks = upsample_masks(out.mask_logits, (192, 256))[0] > 0  # a logit above 0: a probability above 0.5
    return masks.numpy(), out.scores()[0].amax(-1).numpy()


shown = {"crowd": minst.load_sample("crowd").render(0), "occlusion": minst.load_sample("occlusion").render(24)}
found = {name: find(model(image_to_batch(f.image))) for name, f in shown.items()}
surest = np.minimum(*(scores for _, scores in found.values())).argsort()[:-4:-1]  # the lower of the two scores decides
pictures, titles = [], []
for name, (claims, scores) in found.items():
    pictures += [shown[name].image, *claims[surest]]
    titles += [f"clip {name}", *(f"query {q}, score {scores[q]:.2f}" for q in surest)]
visualize.plot_images(
    pictures, titles, columns=4, head="The same vectors find other creatures in other frames",
    note="A row is a frame, and beside it the masks of three queries: white is what the query claims.",
)

# %% [markdown]
# **What it shows.** The query vectors are constants, stored with the weights. Yet each claims a creature in two frames that have
# nothing in common. So queries must *look at the frame*, and know of each other, before they can ask X_mask.
#
# > **Dual Transformer Instance Decoder** (paper): learnable queries are refined twice, by a global decoder and then by a local
# > decoder, where others use six layers. Neither has a feed-forward network inside, to save time.
#
# ## Predict
#
# Each decoder has two steps. First the queries look at the frame, then they look *at each other*. In the trained model, switch
# the second step off. What happens: nothing, creatures are lost, or creatures are found several times?
#
# <details><summary>Answer, after you have thought</summary>
#
# They are found several times. A table at the end counts how often, and whether any are lost.
#
# </details>
#
# ## Step 1: how does a query look?
#
# Attention sees a *set* of tokens. It cannot know that token 9 lies below token 1. So the place of every token is written into
# its key, by sines and cosines of its row (first half of the channels) and its column (second half). On an axis of l cells,
# cell p stands at the angle $a_p$. The fastest wave takes one turn per axis, the slowest is nearly 100 times as long:
#
# $$a_p = 2\pi\,\frac{p + \frac12}{l}, \qquad \omega_i = 100^{-4i/D},\; i = 0 \dots \tfrac D4 - 1, \qquad
# \operatorname{PE}(p) = [\sin(a_p\,\omega_i),\; \cos(a_p\,\omega_i)] \tag{4.1}$$

# %%
place = decoder.position(6, 8)[0]  # (S, D): 6 x 8 tokens, row by row
row = torch.arange(6).repeat_interleave(8)
torch.testing.assert_close(place[:, 0], torch.sin(2 * torch.pi * (row + 0.5) / 6))  # channel 0 by hand
waves = [place[:, channel].view(6, 8) for channel in (0, 16, 32, 40)]
alike = [F.cosine_similarity(place[token], place, dim=-1).view(6, 8) for token in (9, 30)]
names = ["sine of the row", "cosine of the row", "sine of the column", "a slower wave"]
visualize.plot_images(
    [*waves, *alike], [*names, "alike: token (1, 1)", "alike: token (3, 6)"], limits=(-1, 1),
    head="Sines and cosines make neighbours alike and far tokens different",
    note="Four of the 64 channels; then how alike (cosine) the position of one token is to all others.",
)

# %% [markdown]
# **What it shows.** Likeness falls with distance, so a query can ask for "up here on the left". This *position embedding* is not
# learned, and any resolution has one.
#
# ### Exercise 1 (code): cross-attention
#
# A query scores every token's key, turns the scores into shares that sum to 1, and brings home the mixture of the values. The
# position is in the keys, where it helps to decide *where* to look. It is not in the values: what comes home is content.
#
# $$A = \operatorname{softmax}\left(\frac{q\,k^\top}{\sqrt D}\right), \qquad
# q = Q\,W_q,\quad k = (X + \operatorname{PE})\,W_k,\quad v = X\,W_v, \qquad \text{mixture} = A\,v \tag{4.2}$$
#
# Why $\sqrt D$? A sum of D products of unit variance has this standard deviation, and large scores make softmax all or nothing.


# %% tags=["exercise"]
def cross_attention(
    queries: Tensor, tokens: Tensor, position: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 4.2, one head: queries (N, D), tokens and position (S, D), weights (D, D) -> A (N, S), mixture (N, D).

    Gradients must come back through it (no .item(), no NumPy): it is trained below.
    """
    # solution
    q, k, v = queries @ w_q, (tokens + position) @ w_k, tokens @ w_v
    shares = (q @ k.T / q.shape[1] ** 0.5).softmax(-1)
    return shares, shares @ v


# %%
check.cross_attention(cross_attention)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Scores are (N, S). Each *row* of shares sums to 1. Where does `position` help, and where would it only be in the way?
#
# </details>
#
# Now train it. One query and the weights $W_q, W_k$ start at random, and $W_v$ is the identity. In eight frames, what comes home
# shall equal the mean of the snail's tokens. **No loss mentions a place.** Which tokens will the query choose?

# %%
cross_attention = check.cross_attention(cross_attention).or_ours  # yours, if it is correct
clip, SNAIL = minst.load_sample("crowd"), 5
renders = [clip.render(t) for t in range(0, 30, 2)]
x6 = torch.cat([model.encode(image_to_batch(shot.image)).x6 for shot in renders])
tokens, position = decoder.global_tokens(x6)  # X_G (15, S, D), and where each token lies
inside = torch.from_numpy(np.stack([shot.masks[SNAIL] for shot in renders])).float()
inside = F.avg_pool2d(inside, 32).flatten(1)  # (15, S): the part of each token's cell that the snail covers
goals = torch.einsum("fs,fsd->fd", inside / inside.sum(1, keepdim=True), tokens)

# %%
torch.manual_seed(1)
learned = [torch.randn(1, 64), torch.randn(64, 64) / 8, torch.randn(64, 64) / 8]  # the query, W_q, W_k
optimizer = torch.optim.Adam([x.requires_grad_() for x in learned], lr=1e-3)


def look_at(frame):
    """Your attention in one frame: shares (S,) and what comes home (D,)."""
    query, w_q, w_k = learned
    shares, mixture = cross_attention(query, tokens[frame], position[0], w_q, w_k, torch.eye(64))
    return shares[0], mixture[0]


UNSEEN, looks = 7, []
with torch.enable_grad():
    for step in range(41):
        looks.append([x.detach() for x in look_at(UNSEEN)])  # a frame from which nothing is learned
        loss = sum(F.mse_loss(look_at(frame)[1], goals[frame]) for frame in range(0, 15, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
pictures = []
for step in (0, 1, 2, 3, 4, 6, 8, 40):
    shares, mixture = looks[step]
    share = 100 * (shares * inside[UNSEEN]).sum()
    head = f"Step {step} of training: {share:.0f} % of the attention lies on the snail"
    shot = renders[UNSEEN]
    pictures.append(check.plot_look(shot.image, shot.masks[SNAIL], shares.view(6, 8), mixture, goals[UNSEEN], head))
check.film(pictures)

# %% [markdown]
# **What it shows.** Shares form in a frame that was not trained on. At first they are nearly even, and about the mean of the frame
# comes home. The gradient raises the scores of tokens whose values help. So the query finds the snail among six creatures,
# although nobody told it where to look. All attention is learned like this.
#
# ## Step 2: who takes what?
#
# The learned query Q says *who is asking*, the content Z *what has been seen so far*. Z starts from nothing. Q is added wherever
# somebody must know who asks, but it is never part of what is seen:
#
# $$Z \leftarrow \operatorname{norm}\big(Z + \operatorname{Cross}(Z + Q,\; X + \operatorname{PE},\; X)\big), \qquad
# Z \leftarrow \operatorname{norm}\big(Z + \operatorname{Self}(Z + Q,\; Z + Q,\; Z)\big) \tag{4.3}$$
#
# The arguments become queries, keys and values. One stage, drawn for a single head (a *head* is a slice of the channels that attends
# by itself, with $d = D/\text{heads}$ under its root; $W_o$ mixes the slices):
#
# ```text
#   N rows           S columns        N x S              N x S                N x D
#   (Z + Q) W_q  x  (X + PE) W_k  ->  scores -softmax->  shares A  x  X W_v = mixture -W_o-> + Z -norm-> Z
#   (Z + Q) W_q  x  (Z + Q) W_k   ->  N x N  -softmax->  N x N     x  Z W_v = mixture -W_o-> + Z -norm-> Z
# ```
#
# The second line is self-attention, with queries as keys. A query has no place. So nothing but its own vector tells it from another,
# and a decoder is *equivariant*: shuffle the queries, and the answers are shuffled alike.

# %% tags=["nbval-check-output"]
one = MultiHeadAttention(64, heads=1)  # with one head, yours is minst's module
x_g = tokens[:1]  # (1, S, D) of frame 0
_, weights = one(decoder.queries[None], x_g + position, x_g, return_weights=True)
A, _ = cross_attention(decoder.queries, x_g[0], position[0], one.q.weight.T, one.k.weight.T, one.v.weight.T)
torch.testing.assert_close(A, weights[0, 0], rtol=1e-2, atol=1e-2)

look, queries, nothing = decoder.global_decoder, decoder.queries, torch.zeros(1, 20, 64)  # nothing is seen so far
seen = look.norm1(nothing + look.cross_attention(nothing + queries, x_g + position, x_g))
q_g = look.norm2(seen + look.self_attention(seen + queries, seen + queries, seen))
torch.testing.assert_close(q_g, look(nothing, queries, x_g, position), rtol=1e-3, atol=1e-3)
order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
torch.testing.assert_close(look(nothing, queries[order], x_g, position), q_g[:, order], rtol=1e-3, atol=1e-3)
print("A", tuple(A.shape), "Q_G", tuple(q_g.shape), "shuffled in, shuffled out")

# %% [markdown]
# ### Exercise 2 (break it): twenty queries, one answer
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
#
# Three decoders look at one frame: as trained, without self-attention, and with *your* queries.

# %%
one_voice = check.one_voice(one_voice).or_ours
silent, alone = copy.deepcopy(model), copy.deepcopy(model)
alone.instance_decoder.queries.copy_(one_voice(decoder.queries))
for part in (silent.instance_decoder.global_decoder, silent.instance_decoder.local_decoder):
    part.self_attention.out.weight.zero_()  # Z + 0
    part.self_attention.out.bias.zero_()
easy = minst.load_sample("easy").render(0)
code = model.encode(image_to_batch(easy.image))
claims, titles = [], []
for who, title in ((model, "as trained"), (silent, "no self-attention"), (alone, "one voice, all 20")):
    masks, scores = find(who.decode(code))
    masks = masks[scores >= (0 if who is alone else 0.3)]
    counts = (mask_ious(masks, easy.masks) >= 0.5).sum(0)
    claims.append(masks.sum(0))
    names = (f"{n} x {name}" for n, name in zip(counts, ("butterfly", "jellyfish", "leaf")))
    titles.append(f"{title}\n{', '.join(names)}")
visualize.plot_images(
    [easy.image, *claims], ["frame", *titles], limits=(0, 4),
    head="Self-attention is how queries agree on who takes what",
    note="Brightness: how many queries of score 0.3 or more claim a pixel (yellow: 4 or more). Below: how many fit.",
)

# %% [markdown]
# **What it shows.** Without self-attention several queries take the same creature, since none can see that it is taken. Equal queries
# give one answer, twenty times. They also get equal gradients, so training could never part them. This is why queries start at
# random.
#
# ## Step 3: first the scene, then the details
#
# The local decoder has the same form, other weights and other tokens:
#
# $$Q_G = \operatorname{Global}(Q, X_G), \qquad Q_L = \operatorname{Local}(Q_G, X_L) \tag{4.4}$$
#
# X_mask has 768 cells, too many to attend to. Pooling by 4 leaves the 48 of X6. How should one number stand for 16?
#
# > **Dual Transformer Instance Decoder** (paper): X_L is max-pooled, since a maximum keeps more details than a mean.

# %%
frame = shown["crowd"]
encoded = model.encode(image_to_batch(frame.image))  # a minst.model.Frame: it has X6 and X_mask
x_mask = encoded.x_mask  # (1, D, 24, 32)
largest, mean = F.max_pool2d(x_mask, 4)[0], F.avg_pool2d(x_mask, 4)[0]
torch.testing.assert_close(decoder.local_tokens(x_mask)[0][0], largest.flatten(1).T)  # X_L
channel = int(x_mask[0].amax((1, 2)).argmax())  # the one with the highest peak
kept = (mean.amax((1, 2)) / x_mask[0].amax((1, 2))).median()
print(f"averaging leaves {100 * kept:.0f} % of a channel's highest peak (median of 64), the maximum all")
visualize.plot_images(
    [x_mask[0, channel], largest[channel], mean[channel]],
    [f"X_mask of clip crowd, channel {channel}", "max-pooled: X_L", "average-pooled"], columns=4,
    head="Max pooling keeps the peaks that averaging washes out",
    note="One channel, 24 x 32 cells, and the 6 x 8 tokens made from it. One scale for all.",
)

# %% [markdown]
# **What it shows.** A small strong answer survives max pooling and fades in the mean. The price: strong *negative* answers are gone.
#
# ### Exercise 3 (recall): the shapes of attention


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
# Your formula says what pooling saves.

# %%
attention_shapes = check.attention_shapes(attention_shapes).or_ours
for name, sizes in {"ours": (192, 256, 20, 8, 32), "640 x 640": (640, 640, 100, 8, 64)}.items():
    _, local, among = attention_shapes(*sizes)
    unpooled = sizes[0] // 8 * (sizes[1] // 8)  # cells of X_mask
    print(f"{name:9}: local {local}, among queries {among}; without pooling {unpooled // local[-1]} times the shares")

# %% [markdown]
# ### A healthy head, and a sick one
#
# We take four frames of each of the six clips, and the queries that *hold* a creature. The word means the same in all lessons: of
# the queries whose IoU with the creature is at least 0.5, the holder is the one with the best matching score (lesson 05).

# %%
videos = [minst.load_sample(name) for name in minst.sample_names()]
shots = [(video, video.render(t)) for video in videos for t in (0, 6, 12, 18)]
codes = [model.encode(image_to_batch(shot.image)) for _, shot in shots]
held = []  # of each frame the queries that hold a creature
for e, (video, shot) in zip(codes, shots):
    p = e.out.class_logits[0].sigmoid()[:, video.labels].numpy()  # (N, G): the probability of each instance's class
    held.append([query for query, _ in assign_queries(mask_ious(find(e.out)[0], shot.masks), p)])
CROWD = next(i for i, (_, shot) in enumerate(shots) if np.array_equal(shot.image, frame.image))

# %%
crowd_masks, maps = find(codes[CROWD].out)[0], visualize.attention_maps(model, codes[CROWD])
on_mask = {query: maps.inside(0, query, crowd_masks[query]) for query in held[CROWD]}  # share inside of it, per head
query = max(on_mask, key=lambda query: on_mask[query].mean())
head = int((on_mask[query] - maps.weights[0][0, :, query].amax((-2, -1)).numpy()).argmax())  # not on one token
_, sick = look.cross_attention(queries[None], 8 * x_g + position, x_g, return_weights=True)
sick = maps._replace(weights=(sick.unflatten(-1, (6, 8)), maps.weights[1]))


def lit(image, light):
    """An image (H, W, 3), dark where `light` (H, W) is low."""
    return image / 255 * (0.15 + 0.85 * (light / light.max())[..., None] ** 0.5)


shares = [m.weights[0][0, head, query] for m in (maps, sick)]  # (6, 8) each
top = [100 * float(share.max()) for share in shares]
visualize.plot_images(
    [lit(frame.image, crowd_masks[query]), *shares],
    [f"mask of query {query}", f"healthy: top token {top[0]:.0f} %", f"sick: top token {top[1]:.0f} %"],
    head="A healthy global head mixes tokens of its creature", limits=(0, 0.6),
    note=f"Left: the query's mask. Then the shares of 6 x 8 tokens in head {head + 1}; right, X_G is 8 times as long.",
)

# %% [markdown]
# **What it shows.** The healthy head mixes the tokens of its creature. With tokens 8 times as long the scores grow, softmax turns
# them into all or nothing, and the sick head copies a single token, whatever surrounds it.
#
# Look for yourself: choose a query and a head.

# %%
light = {query: [maps.on_frame(i, query) for i in (0, 1)] for query in held[CROWD]}  # (heads, H, W) each


def show(query: int, head: int):
    """A query's mask, and the frame lit where one of its heads looks, in both decoders."""
    tops = [100 * float(w[0, head - 1, query].max()) for w in maps.weights]
    return visualize.plot_images(
        [lit(frame.image, spot) for spot in (crowd_masks[query], *(x[head - 1] for x in light[query]))],
        [f"mask of query {query}", *(f"{s}: top token {t:.0f} %" for s, t in zip(("global", "local"), tops))],
        head=f"Where head {head} of query {query} looks",
        note="Left: the query's mask is lit. Then the places are lit where this head of it looks.",
    )


visualize.interact(show, query=sorted(held[CROWD]), head=((1, 8, 1), 1))

# %% [markdown]
# ### What keeps the global decoder alive
#
# Q_G should say what is in *this* frame, since query passing (lesson 06) hands it to another one. But the local decoder sees the
# frame anyway, so training can leave Q_G a constant. In an earlier model of ours, 0.4 % of its variance depended on the frame.
# What is different now:
#
# - `Assumption:` the content starts from nothing, as in DETR. Our earlier model handed Q itself on, and Q_G was little else.
# - `Deviation:` a layer norm on X_G. Without it, X_G grew from a length of 19 to 33 within 400 steps of training.
# - `Deviation:` deep supervision. In training, what the heads say of Q_G alone gets the same losses (`global_weight` in
#   `minst.training`). The class loss helped: a constant kernel can draw masks, for X_mask knows the place, but a class must be seen.

# %%
torch.manual_seed(0)
newborn = minst.MobileInst(model.config).eval()
for name, net in (("untrained", newborn), ("trained", model)):
    q_gs = torch.cat([net(image_to_batch(shot.image)).global_queries for _, shot in shots])  # (24, N, D)
    print(f"{name}: {100 * frame_share(q_gs.numpy()):.0f} % of the variance of Q_G depends on the frame")
best = []  # IoU of the best query with each creature, from Q_G alone and in the end
for e, (_, shot) in zip(codes, shots):
    drawn = (e.masks(decoder.predict(e.out.global_queries).kernels), e.out.mask_logits)
    masks = [(upsample_masks(logits, (192, 256))[0] > 0).numpy() for logits in drawn]
    best.append([mask_ious(m, shot.masks[shot.masks.any((1, 2))]).max(0) for m in masks])
draft, final = (np.concatenate(ious).mean() for ious in zip(*best))
print(f"mean IoU of the best query: {draft:.2f} from Q_G alone, {final:.2f} in the end")

# %% [markdown]
# Near 0, Q_G would say only *which query* this is.
#
# ## Step 4: from queries to masks
#
# One feed-forward network at the very end, then three linear heads on $h = \operatorname{norm}(u + \operatorname{FFN}(u))$, $u = Q_L + Q$:
# class logits $c$ (N, C), objectness logits $o$ (N,) and kernels. A kernel times X_mask is a mask. Enlarge the *logits*,
# so that outlines stay crisp, and apply the sigmoid last.
#
# $$M_n(y, x) = \sum_d K_{nd}\; X_{\text{mask}}(d, y, x), \qquad \text{mask}_n = \sigma(\operatorname{up}_8(M_n)) \tag{4.5}$$
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
# ## Step 5: one score
#
# Classes go through a sigmoid each. There is no background class: a query that holds nothing says so with low scores
# everywhere. *Objectness* is trained to predict the IoU of the query's own mask. The score asks for the right name and
# for a good mask. As a geometric mean, it is small if either is:
#
# $$s_{nc} = \sqrt{\sigma(c_{nc}) \cdot \sigma(o_n)} \tag{4.6}$$
#
# ### Exercise 5 (code): scores


# %% tags=["exercise"]
def instance_scores(class_logits: Tensor, objectness: Tensor) -> Tensor:
    """Eq. 4.6, of class logits (N, C) and objectness logits (N,): scores (N, C)."""
    # solution
    return (class_logits.sigmoid() * objectness.sigmoid()[:, None]).sqrt()


# %%
check.instance_scores(instance_scores)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Both are logits. Classes do not compete with each other here. `objectness[:, None]` is (N, 1) and meets (N, C).
#
# </details>
#
# Your two functions now finish a frame.

# %%
masks_from_kernels = check.masks_from_kernels(masks_from_kernels).or_ours
instance_scores = check.instance_scores(instance_scores).or_ours
out = encoded.out
soft = torch.as_tensor(masks_from_kernels(out.kernels[0], x_mask[0])).float()
said = torch.as_tensor(instance_scores(out.class_logits[0], out.objectness[0])).float()
torch.testing.assert_close(said, out.scores()[0], rtol=1e-2, atol=1e-2)  # minst's own
confident, label = said.max(-1)
first = confident.argsort(descending=True)[:9]
names = [f"{q}: {model.config.class_names[label[q]]} {confident[q]:.2f}" for q in first.tolist()]
visualize.plot_images(
    [frame.image, *soft[first]], ["frame", *names], columns=5, limits=(0, 1),
    head="After five creatures the scores fall off: the rest is left over",
    note="The nine queries of the best scores: number, class, score, and mask (0 dark, 1 bright).",
)

# %% [markdown]
# **What it shows.** No background class is needed: left-over queries draw scraps, and a low score says so. (The sixth creature, a
# butterfly behind the snail, is missed.) Lesson 05 explains how queries learn to be silent.
#
# ## What does the decoder need?
#
# Take one part away, and count creatures in the 24 frames. A query *speaks* when its score is at least 0.3. This answers *Predict*.


# %%
def count(model, codes):
    """How many queries speak; how many creatures have two or more of them, and how many have none."""
    speak = double = none = 0
    for (_, shot), e in zip(shots, codes):
        masks, scores = find(model.decode(e))
        claims = (mask_ious(masks[scores >= 0.3], shot.masks[shot.masks.any((1, 2))]) >= 0.5).sum(0)
        speak, double, none = speak + (scores >= 0.3).sum(), double + (claims > 1).sum(), none + (claims == 0).sum()
    return f"{speak:4} speak, {double:3} creatures twice or more, {none:3} missed"


placeless = copy.deepcopy(model)
hook = placeless.instance_decoder.position.register_forward_hook(lambda module, inputs, place: 0 * place)
swapped = [Frame(model, b.x6, a.padded_x_mask, None, a.size) for a, b in zip(codes, codes[5:] + codes[:5])]
empty = [Frame(model, 0 * a.x6, a.padded_x_mask, None, a.size) for a in codes]
trials = {"as trained": (model, codes), "no self-attention": (silent, codes), "no position": (placeless, codes),
          "X6 of another clip": (model, swapped), "X6 of zeros": (model, empty)}
print(f"{sum(int(shot.masks.any((1, 2)).sum()) for _, shot in shots)} creatures in {len(shots)} frames")
for name, trial in trials.items():
    print(f"{name:20}", count(*trial))

# %% [markdown]
# In *X6 of another clip* the local decoder sees the right frame and the global decoder a wrong one. What this row loses is what
# the global decoder contributes. *X6 of zeros* never occurred in training.
#
# ## Paper against ours
#
# - The paper formulates the dual update (4.4) and the product in 4.5. We spell out the rest; the numbers are ours.
# - `Assumption:` cross- before self-attention, norms after the residuals, one feed-forward network of width 2 D before the
#   heads, 8 heads, N = 20 queries and D = 64 for small data. The paper's text does not fix them.
# - `Assumption:` the score of Eq. 4.6, as in SparseInst, whose losses the paper follows.
# - `Assumption:` waves as long as 1 to nearly 100 axes. DETR's go up to thousands, which are constants on 6 x 8 tokens.
# - `Deviation:` tokens at 1/32 here. The paper's 1/64 would leave 12 tokens of our frame; at 640 x 640 it leaves 100.
# - Positions matter little in the table: features of padded convolutions can know their place already.
# - Taking a part from a *trained* model shows what these weights rely on, not what a model trained without it would do.
#
# > **Ablations** (paper): global-then-local does better than one decoder, or the same source twice; max pooling gains 0.4 AP on
# > average pooling. Lesson 09 tests both at our scale.

# %% [markdown]
# ## Summary
#
# - Queries are constants, content is not. Cross-attention lets each look at the frame, self-attention lets them share the work.
# - Keys carry position, values do not; queries are told apart by their vectors alone.
# - Kernel times X_mask is the mask. Score = sqrt(p · o), without a background class.
#
# **Quiz.** (1) Why does self-attention need no position? (2) A query has p = 0.9 and objectness 0.1: what is its score, and what
# went wrong? (3) Which of Q, Q_G and K are the same in every frame?
#
# <details><summary>Answers</summary>
#
# (1) A query has no place; its vector says who it is. (2) 0.3: the name is clear, the mask is expected to be bad. (3) Q alone.
#
# </details>
#
# **An open question**, which no cell answers. The clip `twins` shows two starfish that look alike, so two queries bring home nearly
# the same. How can a kernel light one of them only? Name each place in the model where the two still differ, and an experiment
# that tells which matters.
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · N. Carion et al., *End-to-End Object Detection
# with Transformers* (DETR), ECCV 2020, arXiv 2005.12872 · T. Cheng et al., *Sparse Instance Activation* (SparseInst), CVPR
# 2022, arXiv 2203.12827 · A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, arXiv 1706.03762.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 60 minutes: 10 map, problem and *Predict* (by show of hands), 15 step 1, 10 step 2, 10 step 3, 10 steps 4 and 5, 5 the table. Common mistakes: the local decoder is thought to attend to all of X_mask; position added to
# the values; softmax over the queries; softmax over classes, as if there were a background; the sigmoid before the upsampling.
#
# Rubric of the open question, a point each: (1) keys differ by position, so shares can differ although values hardly do. (2) The
# kernel lights every cell of X_mask that looks alike; so X_mask itself must know the place, from padding and large receptive fields.
# (3) Q and self-attention decide *who* takes which, but put no place into X_mask. (4) An experiment with a control, such as one
# creature pasted twice against two different ones, positions zeroed, counting masks that cover both.
#
# </details>
