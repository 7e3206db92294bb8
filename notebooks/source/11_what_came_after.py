# %% [markdown]
# # 11 · What came after, and what stayed
#
# **Which ideas of MobileInst live on in the models that came after it, and do they work on a model that is not ours?**

# %% [markdown]
# ## You will be able to …
#
# - take the kernels and the mask features out of a model that somebody else wrote (exercise 1)
# - say what attention over a whole clip costs, and where that cost comes from (exercise 2)
# - decide whether a kernel carries its query or its instance (exercise 3)
# - bring a model of your own into our tracker (exercise 4)
#
# You need lesson 07, with kernel reuse and association, and the extra `models`, which brings `transformers`.
# Nothing is downloaded: a small Mask2Former ships with the course.
#
# Each exercise stands where its idea is built, and the next picture is drawn by *your* function (by ours until it is correct).

# %% tags=["setup"]
import importlib.util
import json
import time
import numpy as np
import torch
import torch.nn.functional as F
import minst
from minst import visualize
from minst.course import lesson11 as check
from minst.evaluation.consistency import assign_queries, mask_ious
from minst.model import apply_kernels, image_to_batch
from minst.predict import encode, masks_of_queries
from minst.protocol import QueryConfig, QueryFrame

# %% [markdown]
# ## The map

# %%
torch.set_grad_enabled(False)  # nothing is learned today
torch.set_num_threads(1)
ours = minst.MobileInst.from_pretrained("shapes-tiny").fuse()
visualize.plot_pipeline(ours, size=(192, 256), highlight="tracking")

# %% [markdown]
# **What it shows.** Our network, with its last block lit. Today we keep that block, the tracker, and exchange everything before
# it. The tracker asks a model for kernels, scores and mask features, and for nothing else.
#
# | symbol | meaning |
# |---|---|
# | K, X_mask | kernels and the mask feature, now of any model |
# | L, S | the number of frames of a clip, and of tokens of one frame |
# | C | the number of classes |
# | T | the reuse interval of our tracker |
# | t, u | a frame, and a frame some way after it |
#
# ## See the problem
#
# Papers have new names for everything. To find a known idea in them, ask four questions. Is a mask the product of a kernel and
# one feature map? Do queries of one frame enter another frame? Are kernels kept for several frames? Does something decide which
# instance of this frame continues which one of the frame before?

# %%
MODELS = {  # K . X_mask, query passing, kernel reuse, association: # the same idea, o another form, . not that we know
    "Mask R-CNN": (2017, "...."),
    "YOLACT": (2019, "#..."),
    "VisTR": (2020, "...."),
    "Mask2Former": (2021, "#..."),
    "SparseInst": (2022, "#..."),
    "IDOL": (2022, "o..#"),
    "MinVIS": (2022, "#..#"),
    "MobileInst": (2023, "####"),
    "CAVIS": (2024, "#..#"),
    "SAM 2": (2024, "#o.."),
    "TROY-VIS": (2024, "#.o."),
    "EdgeTAM": (2025, "#o.."),
    "YOLO26-seg": (2026, "#..."),
    "VidEoMT": (2026, "##.."),
    "SegFS": (2026, "ooo."),
}
check.plot_family(MODELS)

# %% [markdown]
# **What it shows.** The first column is nearly full, so **the product stayed**. Its two parts go by many names, such as coefficients
# and prototypes (YOLACT, YOLO) or mask embeddings and pixel embeddings (Mask2Former). Query passing moved from training into the network itself: VidEoMT hands the queries of each frame to the next
# one, so that a query *is* an identity and nothing is left to associate. Kernel reuse has few heirs. TROY-VIS interpolates
# kernels between key frames, and SegFS lets a small network find the key frame's instances again.
#
# Some marks are our reading of what a paper says of itself. If you have read a newer one, add a line to `MODELS`.
#
# ### In figures, as of November 2026
#
# | model | what its authors report | source |
# |---|---|---|
# | Mask R-CNN | COCO 35.7 mask AP (R101-FPN), 5 FPS | arXiv 1703.06870, 2017 |
# | YOLACT | COCO 29.8, 33.5 FPS on a Titan Xp | arXiv 1904.02689, 2019 |
# | VisTR | YouTube-VIS 2019 36.5 AP (R101), 57.7 FPS | its repository, 2021 |
# | SparseInst | COCO 37.9, 40 FPS | arXiv 2203.12827, 2022 |
# | IDOL | YouTube-VIS 2019 49.5, OVIS 30.2 | arXiv 2207.10661, 2022 |
# | MinVIS | YouTube-VIS 2019 47.3 (R50), 62.0 (Swin-L) | its model zoo, 2022 |
# | **MobileInst** | YouTube-VIS 2019 35.0, 2021 30.1; COCO 31.2 in 433 ms on one phone core | AAAI 2024 |
# | CAVIS | 15 FPS, as VidEoMT's authors measured | arXiv 2602.17807 |
# | SAM 2.1 tiny | SA-V test 76.5 J&F, 47.2 FPS | its repository, 2024 |
# | TROY-VIS | 25 FPS where GLEE-Lite has 1.25 | arXiv 2412.04434, 2024 |
# | EdgeTAM | SA-V test 71.7 J&F, 16 FPS on an iPhone 15 Pro Max | arXiv 2501.07256, 2025 |
# | YOLO26n-seg | COCO 33.9 mask AP, 53.3 ms on a CPU (ONNX) | Ultralytics' documentation, 2026 |
# | VidEoMT | YouTube-VIS 2019 52.8 (S, 294 FPS), 68.6 (L, 160 FPS), on an H100 | its model zoo, 2026 |
# | SegFS | its fast branch needs up to 14 times less time than MOBIUS | arXiv 2607.00124, 2026 |
#
# Do not rank this table, because its rows differ in data, size and machine. SAM 2 and EdgeTAM follow what a person points at, which
# is another task. We found no other figure for this task on one core of a phone.
#
# ## Predict
#
# The Mask2Former that ships here learned from single frames. Nobody trained it for video. (1) Of its queries that hold a
# creature, how many still hold it three frames later: one in five, half, or four in five? (2) Our tracker associates its
# kernels by their cosine. Will that help as much as it helps us?
#
# <details><summary>Answer, after you have thought</summary>
#
# (1) About four in five. (2) No, the cosine gains next to nothing. Step 4 finds out why.
#
# </details>
#
# ## Step 1: are its masks products, too?

# %%
if importlib.util.find_spec("transformers") is None:
    raise SystemExit('This lesson needs transformers: python3 -m pip install "mobileinst[models]"')
theirs = check.foreign_model()  # an adapter around the library's own model
for name, module in theirs.model.named_modules():
    if "transformer_module.decoder." in name and "layers" not in name:
        print(name.removeprefix("model."), "·", type(module).__name__)
print(*theirs.model(pixel_values=torch.zeros(1, 3, 96, 96)), sep=" · ")

# %% [markdown]
# The upper lines are what surrounds the decoder's layers. The last line names all that the model returns. Among that are the mask
# logits, `masks_queries_logits`, and two candidates for their factors:
#
# $$M = K \cdot X_{mask}$$
#
# ### Exercise 1 (code): find the two factors


# %% tags=["exercise"]
def factors(model: torch.nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernels (B, N, D) and mask features (B, D, h, w) of a Mask2Former of `transformers`.

    pixels (B, 3, H, W), normalised. Their product is what `model(pixel_values=pixels)` gives as `masks_queries_logits`.
    """
    # solution
    said, decoder = model(pixel_values=pixels), model.model.transformer_module.decoder
    queries = decoder.layernorm(said.transformer_decoder_last_hidden_state)
    return decoder.mask_predictor.mask_embedder(queries), said.pixel_decoder_last_hidden_state


# %%
check.factors(factors)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The features are `pixel_decoder_last_hidden_state`. The queries are `transformer_decoder_last_hidden_state`. On their way to
# kernels they meet two modules of `model.model.transformer_module.decoder`, one of which normalises.
#
# </details>
#
# With the factors in hand, kernel reuse is free. We take the kernels of frame 0 and apply them to later frames.

# %%
factors = check.factors(factors).or_ours  # yours, if it is correct
clip, times = minst.load_sample("easy"), (0, 4, 8, 12)
frames = [clip.image(t) for t in times]
pixels = torch.cat([theirs.processed(image_to_batch(image)) for image in frames])  # resized, normalised
kernels, features = factors(theirs.model, pixels)
first = mask_ious(masks_of_queries(encode(theirs, frames[0])), clip.masks(0))  # (N, G)
held, instances = (list(pair) for pair in zip(*assign_queries(first)))

# %%
logits = apply_kernels(kernels[:1, held].expand(4, -1, -1), features)  # kernels of frame 0, features of all four
masks = (F.interpolate(logits, frames[0].shape[:2], mode="bilinear") > 0).numpy()  # (4, creatures, H, W)
pictures, titles = [], []
for what, found in (("kernel reused", masks), ("mask copied", masks[:1].repeat(4, axis=0))):
    for t, image, mask in zip(times, frames, found):
        iou = mask_ious(mask, clip.masks(t)[instances]).diagonal().mean()
        pictures.append(visualize.draw_frame(image, mask, [1, 2, 3], [""] * 3, scale=1))
        titles.append(f"frame {t}, {what}: IoU {iou:.2f}")
visualize.plot_images(
    pictures, titles, columns=4, head="A kernel finds its creature again, in a model that knows no video",
    note="Mask2Former on the clip \"easy\". Above, kernels of frame 0 on later frames; below, its masks, copied.",
)

# %% [markdown]
# **What it shows.** Where old kernels meet new features, the outlines still lie on the creatures twelve frames later, while copied
# masks stay behind. So kernel reuse is no peculiarity of MobileInst. A kernel says *what to look for*, and the features say where
# that is now. Any model of this form whose decoder stands apart can let it rest between key frames.
#
# ## Step 2: why not look at the whole clip at once?
#
# VisTR took another road. It puts the tokens of all L frames into one long sequence, and lets each token ask all others. No tracker
# is needed, since everything is decided together. What does that cost?
#
# ### Exercise 2 (recall): memory of attention


# %% tags=["exercise"]
def attention_bytes(frames: int, tokens: int, queries: int, heads: int) -> tuple[int, int]:
    """Bytes of float32 attention weights that one layer holds at once: (over the clip, frame by frame).

    Over the clip, all tokens of all frames ask each other; `tokens` are those of one frame. Frame by frame, `queries`
    ask the tokens of one frame, whose weights are gone before the next frame comes.
    """
    # solution
    clip = heads * (frames * tokens) ** 2
    online = heads * queries * tokens
    return 4 * clip, 4 * online


# %%
check.attention_bytes(attention_bytes)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The weights are a table, with one row per token that asks and one column per token that is asked. Each head has its own table.
#
# </details>
#
# Now we measure, with 192 tokens per frame, 8 heads and 20 queries. We count the bytes of every tensor that is made.

# %%
attention_bytes = check.attention_bytes(attention_bytes).or_ours
LENGTHS, S, HEADS, N = [1, 2, 4, 8, 12], 192, 8, 20


def attend(asking, asked):
    """Attention (1, heads, n, 32), (1, heads, m, 32) -> (1, heads, n, 32), its weights held in memory."""
    weights = (asking @ asked.transpose(-1, -2) / 32**0.5).softmax(-1)
    return weights @ asked


def cost(run):
    """Bytes of all that is made, and seconds of the processor: the best of three."""
    seconds = []
    with check.Allocations() as made:
        run()
    for _ in range(3):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return made.bytes, min(seconds)


# %%
ways, predicted = ("over the clip", "the same, fused", "frame by frame"), []
megabytes, milliseconds = {way: [] for way in ways}, {way: [] for way in ways}
for L in LENGTHS:
    tokens, queries = torch.randn(1, HEADS, L * S, 32), torch.randn(1, HEADS, N, 32)
    runs = (
        lambda: attend(tokens, tokens),
        lambda: F.scaled_dot_product_attention(tokens, tokens, tokens),
        lambda: [attend(queries, frame) for frame in tokens.split(S, dim=2)],
    )
    for way, run, frames_at_once in zip(ways, runs, (L, L, 1)):
        made, seconds = cost(run)
        megabytes[way].append(made / 2**20 * frames_at_once / L)
        milliseconds[way].append(1000 * seconds)
    predicted.append(attention_bytes(L, S, N, HEADS)[0] / 2**20)
megabytes["your formula, over the clip"] = predicted
panels = {"megabytes at once": megabytes, "milliseconds for L frames": milliseconds}
check.plot_lines(
    panels, LENGTHS, "Attention over a clip: twice the frames cost four times as much",
    "One layer of attention. Both axes are logarithmic: what grows with the square of L is twice as steep as L.",
    xscale="log", yscale="log", xlabel="frames L",
)

# %% [markdown]
# **What it shows.** The memory of attention over the clip grows with the square of L, in parallel to your formula. It is some three
# times as much, because three such tables are made: the product, its scaled copy, and the softmax. Frame by frame the memory does
# not grow at all, and the time grows only in proportion to L.
#
# The second curve is what came after. A *fused* attention computes the table in small blocks and never holds it, and so the
# memory problem is solved. It is quicker, too, but its time still grows with the square of L, since every pair of tokens must
# meet. And a clip has to be complete before its first mask appears, which no fused attention changes.

# %%
L, tokens = 36, 170  # VisTR's code has 36 frames and 8 heads; 170 tokens per frame are 300 x 540 pixels at 1/32
clip_bytes, online_bytes = attention_bytes(L, tokens, 10, 8)
print(f"{clip_bytes / 2**30:.1f} GiB for one layer over the clip, {online_bytes / 2**20:.2f} MiB frame by frame")

# %% [markdown]
# There are six such layers in its encoder, and training keeps what each of them made. Its authors ask for a GPU of 32 GB.
#
# ## Step 3: two models under one lens
#
# > **Introduction, Fig 2** (paper): the same query keeps segmenting the same instance, though every frame is computed by itself.
#
# Is that so in a model that the paper's authors have never seen?

# %%
visualize.plot_query_consistency({"shapes-tiny (ours)": ours, "Mask2Former": theirs}, minst.load_sample("easy"))

# %% [markdown]
# **What it shows.** The observation is not ours alone. Three creatures are followed by the query of our model that holds each of
# them, and by that of Mask2Former. Here our query lets go of the butterfly as it turns its edge to us (red crosses), and those of
# Mask2Former hold theirs throughout. The squares at the right compare the kernels of a query in all pairs of frames. Those of
# Mask2Former hardly change, and ours change more. Remember that for step 4.
#
# `minst fig2 my_film.mp4 --model NAME` draws this for a film of your own.
#
# One clip proves little. `tests/benchmarks/foreign.py` measured both models on twenty clips that neither had seen, and that had
# no part in any choice.

# %%
folder = minst.samples.data_folder() / "foreign" / "mask2former-tiny"
measured = json.loads((folder / "metrics-9001.json").read_text())["models"]
print(f"{'retention over':18}  1 frame  3 frames  10 frames | held | queries per instance")
for name, of in measured.items():
    kept = "      ".join(f"{of['retention'][k]:.2f}" for k in ("1", "3", "10"))
    print(f"{name:18}     {kept}   | {of['held_share']:.2f} | {of['holders']:.2f}")
check.plot_lines(
    {name: {how: [100 * ap for ap in by_T.values()] for how, by_T in of["AP"].items()}
     for name, of in measured.items()}, [1, 3, 6, 12], "What helps our kernels does nothing for those of Mask2Former",
    "Video AP by five associations, over the reuse interval T. Twenty clips of the val split, seed 9001.",
    ylim=(0, 75), xlabel="reuse interval T",
)

# %% [markdown]
# **What it shows.** *None* lets each query go on with itself. On our kernels, cosine and masks with scores double its AP.
# On those of Mask2Former nothing beats it by much. The plain cosine (*cosine-all*) lies on *none*, as if it hardly ever chose
# another query. And when the mean kernel of each query is taken away (*centred*), half of the AP is gone, so what
# remains of a kernel knows little of its instance. At T = 3 both models lose little.
#
# Compare curves within a panel, not panels, because this Mask2Former learned for half an hour only.
#
# ## Step 4: the query or the instance?
#
# A kernel is made from a query that has looked at an instance. Which of the two does it take after? Most of the time nobody can
# tell, since the same query holds the same instance. So look at **handovers**. In frame t the query *old* holds an instance. In
# frame u, three frames later, another query *new* holds it, and the mask of *old* has left it. Now the old kernel has two
# possible successors. One belongs to the same query, and the other to the same instance.
#
# ### Exercise 3 (code): who wins?


# %% tags=["exercise"]
def instance_wins(kernels: torch.Tensor, handovers: torch.Tensor) -> float:
    """The share of handovers in which the instance's new kernel is more like the old kernel than the query's new one.

    kernels (L, N, D), of N queries in L frames. handovers (rows, 4), whole numbers, one row (t, u, old, new) for each.
    More alike means of larger cosine.
    """
    # solution
    t, u, old, new = handovers.T
    before, of_query, of_instance = kernels[t, old], kernels[u, old], kernels[u, new]
    to_query = torch.cosine_similarity(before, of_query, dim=-1)
    to_instance = torch.cosine_similarity(before, of_instance, dim=-1)
    return (to_instance > to_query).float().mean().item()


# %%
check.instance_wins(instance_wins)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `t, u, old, new = handovers.T` gives four columns, and `kernels[t, old]` is then (rows, D), one old kernel per row.
#
# </details>
#
# Your function judges three models. One of them is ours without temporal training, learned from single images alone.

# %%
instance_wins = check.instance_wins(instance_wins).or_ours
images_only = minst.MobileInst.from_pretrained("shapes-tiny-images").fuse()
clips = [minst.load_sample(name) for name in minst.sample_names()]
fig = visualize.new_figure()
visualize.headline(fig, "Kernels of Mask2Former take after their query, ours after both",
                   "One point per handover. Above the line, the instance's kernel is the more alike.")
for i, (name, model) in enumerate({"ours": ours, "ours, images alone": images_only, "Mask2Former": theirs}.items()):
    kernels, rows = check.handovers(model, clips, gap=3)
    t, u, old, new = rows.T
    axes = fig.place(0.6 + 3.05 * i, 1.15, 2.5, 2.5, below=0.5)
    similar = [torch.cosine_similarity(kernels[t, old], kernels[u, other], dim=-1) for other in (old, new)]
    axes.scatter(*similar, s=10, color=visualize.rgb(i + 1), alpha=0.6)
    axes.plot([0, 1], [0, 1], color=visualize.INK, lw=1)
    axes.set(xlim=(0.4, 1.02), ylim=(0, 1.02), xlabel="cosine with the query's new kernel")
    axes.set_title(f"{name}\nthe instance wins {instance_wins(kernels, rows):.0%} of {len(rows)}", fontsize=9)
    axes.set_ylabel("cosine with the instance's new kernel" if i == 0 else "")
fig

# %% [markdown]
# **What it shows.** Our points lie on both sides of the line, so a kernel of ours takes after its query and after its instance. The
# points of Mask2Former lie below it. There the query's own kernel is nearly the same as before, although it has left the
# instance. So its cosine follows the query, right or wrong. These are few clips, and handovers of neighbouring frames are not
# independent. Gaps of one and of six frames give the same order of the three.
#
# Is query passing the cause? The middle panel speaks against it. The model that has never seen two frames together has
# kernels that follow the instance at least as much. The two also differ in the layers of the decoder, in how these look at
# features, in the losses and in the length of training. Nothing here decides between these.
#
# ## Step 5: a model of your own
#
# `minst.protocol` says what our instruments ask of a model: a `config`, and `encode`, which returns a `QueryFrame`. Here is
# somebody else's network, `check.Prototypes`. It finds blue, green and red things, in the manner of YOLACT, and its habits differ
# from ours:
#
# - It takes images (B, H, W, 3) in 0 .. 255, with blue as the first channel.
# - It returns a dict with "protos" (B, h, w, D), "coefficients" (B, N, D), and "logits" (B, N, C + 1) for a softmax, whose last
#   column means "no object".
#
# ### Exercise 4 (extend): an adapter


# %% tags=["exercise"]
def encode_frames(model: torch.nn.Module, frames: torch.Tensor) -> QueryFrame:
    """What `model`, a `check.Prototypes`, says of frames (B, 3, H, W) in 0 .. 1, red first.

    QueryFrame(features (B, D, h, w), decode, (H, W)), where `decode` is a function without arguments that returns
    probabilities (B, N, C), "no object" left out, and kernels (B, N, D).
    """
    # solution
    said = model(255 * frames.flip(1).permute(0, 2, 3, 1))
    probabilities = said["logits"].softmax(-1)[..., :-1]
    features = said["protos"].permute(0, 3, 1, 2)
    return QueryFrame(features, lambda: (probabilities, said["coefficients"]), tuple(frames.shape[-2:]))


# %%
check.encode_frames(encode_frames)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `frames.flip(1)` reverses the order of the colours, and `permute` moves the channels. Apply softmax to all C + 1 columns, and
# leave the last one out afterwards. `lambda: (probabilities, kernels)` is a function without arguments.
#
# </details>
#
# Around your function goes a class of six lines, and the tracker takes it. The film shows three squares. Red and green cross,
# and a grey one is nothing that this network knows.

# %%
encode_frames = check.encode_frames(encode_frames).or_ours


class Mine(torch.nn.Module):
    config = QueryConfig(("red", "green", "blue"), num_classes=3, num_queries=4)
    network = check.Prototypes()

    def encode(self, frames):
        return encode_frames(self.network, frames)


film = np.full((12, 96, 160, 3), 40, np.uint8)
for t, frame in enumerate(film):
    for x, y, color in ((8 + 9 * t, 16, (255, 0, 0)), (110 - 9 * t, 28, (0, 255, 0)), (60, 64 - t, (110, 110, 110))):
        frame[y : y + 28, x : x + 28] = color

# %%
tracker, pictures = minst.KernelTracker(Mine(), reuse_interval=3, association="mask"), []
for frame in film:
    result = tracker.step(frame)
    names = [f"{i} {Mine.config.class_names[label]}" for i, label in zip(result.ids, result.labels)]
    pictures.append(visualize.draw_frame(frame, result.masks(), result.ids, names, scale=2))
visualize.plot_images(
    pictures[::3], [f"frame {t}" for t in range(0, 12, 3)], head="Somebody else's network in our tracker",
    note="Key frames, T = 3. Number and name: identity, class. The grey square is \"no object\" and gets no outline.",
)

# %% [markdown]
# **What it shows.** Red and green keep their identities, although red is hidden for a while, and the grey square gets none. Nothing
# in the tracker knows whose kernels these are.
#
# `minst.adapters` does the same for six families of `transformers`: Mask2Former, OneFormer, EoMT, EoMT-DINOv3, VidEoMT and
# RF-DETR-Seg. It catches the factors by hooks instead of computing them again. We have tried it on random weights of each
# family and on this small Mask2Former, not on weights of a hub.
#
# ## Paper against ours
#
# - The paper compares itself with models of its time. All of this lesson is ours.
# - `Deviation:` the adapter runs VidEoMT frame by frame, and the queries that it passes on are left out.
# - This was one foreign model, one seed, and drawn clips. A Mask2Former that learned from photographs for days may have other
#   kernels. Exercise 3 would tell.
#
# ## Summary
#
# - The product K . X_mask is in nearly all models since YOLACT. So our instruments fit most of them.
# - Attention over a clip costs the square of its frames. A kernel kept costs nothing.
# - Queries are good trackers in a foreign model too, but its kernels carry the query. Cosine needs kernels that carry the
#   instance, while masks need only the product.
#
# **Quiz.** (1) Why does VidEoMT need no association? (2) What does fused attention save, and what not? (3) Cosine and *none* give
# equal AP. What do you learn about the kernels?
#
# <details><summary>Answers</summary>
#
# (1) The queries of a frame enter the next one, so that each goes on with its instance. (2) It saves the memory, but its time still
# grows with the square of L. (3) They hardly differ from frame to frame, so that each is most like itself.
#
# </details>
#
# **An open question**, which no cell answers. Suppose that you want kernels which carry the instance, so that the cosine can
# be trusted. What would you change in training, and which experiment of an hour on this laptop would show whether it worked?
#
# **References.** B. Cheng et al., *Mask2Former*, CVPR 2022, arXiv 2112.01527 · D. Bolya et al., *YOLACT*, ICCV 2019 · Y. Wang et al.,
# *VisTR*, CVPR 2021, arXiv 2011.14503 · N. Norouzi et al., *VidEoMT*, CVPR 2026, arXiv 2602.17807; others in the table above.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 70 minutes: 10 for the family, 14 for step 1, 12 for step 2, 8 for step 3, 14 for step 4, 12 for step 5. Short of time: skip step 2,
# or give exercise 4 as homework. Ask before the last panel of step 4: "on which side of the line will the points lie, if cosine
# and *none* gave equal AP?" Common mistakes: queries taken for kernels; the decoder's normalisation forgotten; L not squared.
#
# Rubric of the open question, a point each: (1) a mechanism that moves kernels towards the instance. (2) One change at a time,
# against the same training without it. (3) A measure that can fail, with a value named in advance. (4) The price is measured too,
# and chance is (seeds or intervals). TUTOR.md has examples.
#
# </details>
