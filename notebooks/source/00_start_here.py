# %% [markdown]
# # 00 · Start here
#
# **What does it mean to see a video instance by instance, and does everything work on this machine?**

# %% [markdown]
# ## You will be able to …
#
# - say what video instance segmentation asks for, and what its neighbours ask for (exercise 1)
# - turn masks into a map of instances (exercise 2)
# - tell an online method from an offline one by what it may look at (exercise 3)
# - build the error that no single frame shows, which is a swap of identities (exercise 4)
#
# You need Python and a little NumPy, and neither a GPU nor a network. Every lesson is made for two CPU cores.

# %% tags=["setup"]
import numpy as np

import minst
from minst import visualize
from minst.course import lesson00 as check

# %% [markdown]
# ## Is everything here?
#
# `report` looks at every package that the lessons use. If something is missing or too old, its last lines name the one command
# that repairs it. If they name none, you are ready.

# %%
from minst.environment import environment, report

findings = environment()
print(report(findings).splitlines()[-1])

# %% [markdown]
# `print(report(findings))` shows the whole table, and so does `minst env` in a terminal. These findings are common:
#
# | finding | what to do |
# |---|---|
# | a package is `missing` or outside its versions | Run the `pip install` line that the report prints. |
# | `XNNPACK no` | Nothing. Only lesson 08's lite format needs XNNPACK, a library of fast layers. |
# | widgets show as text | Install the extra `notebooks` into the environment of this notebook, then restart JupyterLab. |

# %% [markdown]
# ## See the problem
#
# A small network that ships with this package watches a clip that it has never seen. It outlines every creature, names it, and
# knows it again in the next frame.

# %%
model = minst.MobileInst.from_pretrained("shapes-tiny")
clip = minst.load_sample("easy")
tracker = minst.KernelTracker(model, reuse_interval=3, association="mask")
result = tracker.track(clip)
print(f"{len(result.tracks)} tracks for {len(clip.labels)} creatures")
drawn = list(visualize.draw_tracks(clip, result, scale=1))
visualize.animate(drawn[:14])

# %% [markdown]
# **What it shows.** This is the whole course in two seconds: each creature keeps its colour and its number while it moves. If
# there were more tracks than creatures, some creature would have been found twice.
#
# Four words stay with us to the end:
#
# | term | meaning here |
# |---|---|
# | instance | one object: this ladybird, not "ladybird" |
# | mask | the pixels of one instance in one frame: `(H, W)` of true and false, H rows and W columns |
# | track | the masks of one instance over all frames of a video; also called a *tube* |
# | identity | the number that says which masks belong to the same track |
#
# ## Who needs this, and why on a phone?
#
# A video call replaces the background. A film editor cuts one dancer out of a scene. In augmented reality a drawn cat walks
# *behind* the real chair. An app for blind people says that the same person still stands at the door. A farmer counts apples while
# walking along the trees, each apple once. Robots and drones need all of this.
#
# On the device no picture leaves its owner, no network is needed, and no answer waits for a server. The price is a small processor
# and a battery.
#
# MobileInst stands among these families of models:
#
# | family | where masks and identities come from | models |
# |---|---|---|
# | boxes first | A mask inside each box; boxes are linked over time. | Mask R-CNN 2017, MaskTrack R-CNN 2019 |
# | shared maps | A mask is a weighted sum of maps that all instances share. | YOLACT 2019, SipMask 2020 |
# | the whole clip at once | One transformer sees all frames together. | VisTR 2020, IFC 2021 |
# | queries, frame by frame | Learned queries find instances, which are then linked. | MinVIS 2022, IDOL 2022 |
# | small models for images | Few queries, no boxes. | SparseInst 2022 |
# | small backbones | Features of a frame, made for phones. | MobileNetV2 2018, TopFormer 2022, SeaFormer 2023 |
# | **MobileInst 2023** | The three rows above, joined for video on a phone. | |
#
# These are the results that the paper reports. AP, *average precision*, is the score of the field. Lesson 01 computes it.
#
# | measured | version 1 (arXiv, 2023) | version 2 (AAAI, 2024) |
# |---|---|---|
# | COCO test-dev (images), mask AP | 30.5 | 31.2 |
# | time per image | 176 ms; its introduction says 172 ms | 433 ms |
# | YouTube-VIS 2019 (videos), AP | 35.0 | 35.0 |
# | time per frame | 158 ms | |
# | YouTube-VIS 2021 (videos), AP | | 30.1 |
#
# The times of version 1 are from one CPU core of a Snapdragon 778G, without quantisation. We do not
# know why the two versions differ, so do not mix the columns. The headline is a ratio: half the latency of the previous best.

# %% [markdown]
# ## Predict
#
# A network segments **every frame perfectly**. In the middle of the video it swaps the names of two creatures. How much of the
# score of these two does it lose: nothing, a little, or most of it? Step 4 computes the answer with a function of yours.

# %% [markdown]
# ## Step 1: which questions can be asked of a video?
#
# Each task of this field adds one demand to the one before it. *Semantic segmentation* asks where any creature is. *Instance
# segmentation* wants two creatures that touch to get a mask each. The third task is ours:
#
# > **Video instance segmentation** (task definition, YouTube-VIS; used in the paper's experiments): find all instances of the
# > given classes in a video and give each one mask per frame, a class, a score, and one identity throughout.
#
# ### How an exercise works
#
# An exercise is a function with one line to replace. Run its cell, then the check below it, which calls your function on fresh
# random input. You may skip an exercise: the lesson then goes on with our function, which is what `.or_ours` stands for. All
# solutions are in [solutions/](solutions/00_start_here.py).
#
# A check keeps the input on which your function failed. Put `verdict = _` into a new cell below the check, where `_` is Python's
# name for the last output. Then `verdict.given` holds the arguments, `verdict.expected` the right result, and `verdict.got` what
# your function gave.
#
# ### Exercise 1 (recall): which task is it?


# %% tags=["exercise"]
def task_name(separates_objects: bool, through_time: bool) -> str:
    """The name of the task, in lower-case words.

    separates_objects: two swans that touch get two masks. through_time: a swan keeps its identity between frames.
    One of "semantic segmentation", "instance segmentation", "video instance segmentation".
    """
    # solution
    if not separates_objects:
        return "semantic segmentation"
    return "video instance segmentation" if through_time else "instance segmentation"


# %%
check.task_name(task_name)

# %% [markdown]
# <details><summary>Hint</summary>
#
# One of the four combinations is odd: it follows identities without separating objects. Without objects there is nobody to follow,
# so count it as the plainest task.
#
# </details>
#
# Your function names the pictures below.

# %%
task_name = check.task_name(task_name).or_ours  # yours, if it is correct
first, later = clip.render(0), clip.render(12)  # image (H, W, 3) bytes, masks (G, H, W) bool
paper = np.full_like(first.image, 245)
separate, again = (visualize.draw_frame(paper, f.masks, [1, 2, 3], scale=1, opacity=1) for f in (first, later))
questions = ["where is any creature?", "which pixels are whose?", "frame 12: who is who?"]
names = [task_name(False, False), task_name(True, False), task_name(True, True)]
visualize.plot_images(
    [part[24:] for part in (first.image, first.masks.any(0), separate, again)],
    ["frame 0", *(f"{question}\n({name})" for question, name in zip(questions, names))],
    head="Each task asks one more question",
    note="Left to right: a frame; all creatures as one white area; one colour per creature; the same, later.",
)

# %% [markdown]
# **What it shows.** The white area does not know how many creatures there are. The colours do. Only the last picture needs a
# memory, because its colours have to be those of frame 0.
#
# ## Step 2: can one picture hold all instances?
#
# The network gives one mask per creature, and masks can overlap. A *map of instances* has one number per pixel, and so it must
# decide what lies on top.
#
# ### Exercise 2 (code): a map of instances
#
# From here on G is the number of true instances, or of masks that stand for them.


# %% tags=["exercise"]
def instance_map(masks: np.ndarray) -> np.ndarray:
    """One number per pixel: masks (G, H, W) bool -> (H, W) whole numbers, 0 = background, g + 1 = instance g.

    Where instances overlap, the later one lies on top.
    """
    # solution
    image = np.zeros(masks.shape[1:], dtype=np.int64)
    for g, mask in enumerate(masks):
        image[mask] = g + 1
    return image


# %%
check.instance_map(instance_map)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Start with zeros of shape `masks.shape[1:]` and write instance after instance, `image[mask] = …`. The order does the rest.
#
# </details>
#
# Your function draws the masks that the network finds in the most crowded clip that we ship.

# %%
instance_map = check.instance_map(instance_map).or_ours
crowd = minst.load_sample("crowd")
masks = minst.KernelTracker(model).step(crowd.image(0)).masks()  # (n, H, W), best score first
shared = masks.sum(0) > 1
print(f"{shared.sum()} of {shared.size} pixels belong to two masks or more")
visualize.plot_images(
    [part[:112] for part in (crowd.image(0), masks.any(0), instance_map(masks))],
    ["frame 0 of the clip crowd, upper part", "where is any creature?", "the map of instances"],
    head="One number per pixel, drawn as a colour", colors="nipy_spectral",
    note="Left: the frame. Middle: all masks of the network together. Right: the map, 0 for the background.",
)

# %% [markdown]
# **What it shows.** Creatures that are one white area in the middle come apart on the right. But where two masks overlap, the map
# has cut one of them off, and nobody can tell.
#
# <details><summary>What <code>minst</code> does</summary>
#
# It stores no such map. In a results file each mask stands by itself, as the text that lesson 01 takes apart.
#
# </details>
#
# ## Step 3: what may be known, and when?
#
# An **online** method answers frame by frame and takes nothing back. It answers frame 7 when frame 8 does not exist yet. An
# **offline** method sees the whole video first. MobileInst is online: `step` takes one frame and returns what is known now.

# %% tags=["nbval-check-output"]
tracker.reset()
for t, image in zip(range(4), clip):
    now = tracker.step(image)
    kind = "key frame" if now.is_key else "kernel reuse"
    print(f"frame {t}: {kind:12} identities {sorted(now.ids)}")

# %% [markdown]
# A *query* is a learned vector that looks for one instance. A *kernel*, 64 numbers, is what it remembers of that instance. It is
# not the 3x3 weights of a convolution, which training has fixed: it is computed from the frame. Its product with the features of
# a pixel says how surely this pixel belongs to the instance.
#
# Only every third frame is a **key frame**, where new kernels are computed. The frames between reuse them. So the memory of the
# tracker is one kernel per query, whatever the length of the video.
#
# A tracker reports a score per identity as well. A single frame gives a shaky one, so it is averaged. Over which frames?
#
# ### Exercise 3 (code): a score that an online method may report


# %% tags=["exercise"]
def running_mean(scores: list[float]) -> list[float]:
    """After every frame, the mean of the scores so far: [s0, (s0 + s1) / 2, ...]."""
    # solution
    return [sum(scores[: t + 1]) / (t + 1) for t in range(len(scores))]


# %%
check.running_mean(running_mean)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Entry `t` may use `scores[0]` to `scores[t]`, but not the length of the list.
#
# </details>
#
# In the clip *in-and-out*, creature 1 leaves the picture. Your function averages its scores.

# %%
running_mean = check.running_mean(running_mean).or_ours
scores = check.scores_over_time(model, minst.load_sample("in-and-out"), identity=1)
curves = {"the frame alone": scores, "online": running_mean(scores), "offline": [np.mean(scores)] * len(scores)}
check.plot_lines(
    {"": curves}, list(range(len(scores))), "An online score changes its mind; an offline score knows the end",
    "One creature that leaves the picture. Offline is the mean of all frames.", xlabel="frame", ylim=(0, 1),
)

# %% [markdown]
# **What it shows.** At first the online score is high, because nothing says yet that the creature will leave. The offline score is
# low from the first frame on, because it has seen the end. A phone could not have known it.
#
# <details><summary>What <code>minst</code> does</summary>
#
# `KernelTracker.step` reports a running mean over the key frames that see the identity, so that absence costs nothing.
#
# </details>
#
# Now move through the frames of the first clip.


# %%
def show(frame: int):
    """One frame of the tracked clip."""
    kind = "key frame: new kernels" if frame % 3 == 0 else "kernels of the last key frame, reused"
    titles = ["what the camera gives", "where a creature is, by the annotation", f"the tracker ({kind})"]
    images = [clip.image(frame), clip.masks(frame).any(0), drawn[frame]]
    return visualize.plot_images(images, titles, head=f"Frame {frame}, before and after")


visualize.interact(show, frame=((0, 23), 12))

# %%
show(12)

# %% [markdown]
# **What it shows.** The truth in the middle is never shown to the network. Compare it with the masks on the right: the errors are
# thin and sit at the borders.
#
# ## Step 4: which error does no single frame show?
#
# You predicted what a swap of two names costs. Build that swap.
#
# ### Exercise 4 (break it): swapped identities
#
# L is the number of frames of a clip.


# %% tags=["exercise"]
def swap_identities(masks: np.ndarray, frame: int) -> np.ndarray:
    """Tracks (G, L, H, W) bool -> the same with instances 0 and 1 swapped in `frame` and all later frames."""
    # solution
    swapped = masks.copy()
    swapped[0, frame:], swapped[1, frame:] = masks[1, frame:], masks[0, frame:]
    return swapped


# %%
check.swap_identities(swap_identities)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `a[0], a[1] = a[1], a[0]` does not swap parts of one array: the second assignment reads what the first one wrote. Read from
# the original, write to a copy.
#
# </details>
#
# Your function swaps two of three true tracks at frame 12, and the judge of YouTube-VIS says what is left.

# %%
swap_identities = check.swap_identities(swap_identities).or_ours
truth = np.stack([clip.masks(t) for t in range(len(clip))], axis=1)  # (G, L, H, W)
swapped = swap_identities(truth, 12)
before, after = (check.judged(tracks, truth, clip.labels)["AP"] for tracks in (truth, swapped))
times, white = (0, 11, 12, 23), np.full_like(clip.image(0), 245)
visualize.plot_images(
    [visualize.draw_frame(white, swapped[:, t], [1, 2, 3], ["1", "2", "3"], scale=1, opacity=1) for t in times],
    [f"frame {t}" for t in times],
    head=f"Every mask is perfect, and AP falls from {100 * before:.0f} to {100 * after:.0f}",
    note="True masks of the clip easy. The numbers 1 and 2 are exchanged from frame 12 on; 3 keeps its own.",
)

# %% [markdown]
# **What it shows.** Take any of these frames by itself and you find no error. Yet only creature 3 is left of the score. The metric
# compares whole tracks, and a track that is right for half of its time is worth nothing here. Lesson 01 shows why.
#
# ## The map
#
# This is all of MobileInst. Each lesson lights one block of it. Come back here when you are lost.

# %%
visualize.plot_pipeline(model, size=(192, 256))

# %% [markdown]
# **What it shows.** The backbone gives features at four scales, and the mask decoder joins them into one mask feature. The
# instance decoder turns learned queries into one kernel each. Kernel times mask feature is a mask, and the tracker carries
# kernels to the next frames.
#
# | lesson | block | module |
# |---|---|---|
# | [01](01_task_and_data.ipynb) | clips, annotations, the metric | `minst.data`, `minst.evaluation` |
# | [02](02_backbone.ipynb) | backbone | `minst.backbones` |
# | [03](03_mask_decoder.ipynb) | mask decoder | `minst.mask_decoder` |
# | [04](04_dual_decoder.ipynb) | dual transformer instance decoder | `minst.instance_decoder` |
# | [05](05_losses.ipynb) | matching and losses | `minst.matcher`, `minst.losses` |
# | [06](06_temporal_training.ipynb) | query passing | `minst.temporal` |
# | [07](07_kernel_reuse_and_association.ipynb) | kernel reuse, kernel association | `minst.tracking` |
#
# If you are in a hurry, do 00, 01, 04 and 07: the task, the metric, the idea, the tracker. Lesson
# [11](11_what_came_after.ipynb) tells what came after MobileInst, and what of it has stayed.
#
# ## The same on a photograph
#
# We draw creatures because a drawing comes with its truth. The method works on photographs as well. `photos-tiny` is the same
# network with another backbone. We trained it on photographs of cats, dogs and people, on this kind of machine. Lesson 10 tells how.

# %%
photo = minst.load_sample("chelsea")
cat_tracker = minst.KernelTracker(minst.MobileInst.from_pretrained("photos-tiny"), reuse_interval=3, association="mask")
# as `minst track` does it: the network sees each frame at the size of its training
cats = cat_tracker.gather(minst.predict.track_frame(cat_tracker, image)[0] for image in photo)
print(f"tracks: {len(cats.tracks)}, cats: {len(photo.labels)}")
found = list(visualize.draw_tracks(photo, cats, scale=1))
moments = (0, 10, 16, 19, 22, 29)
visualize.plot_images(
    [found[t][:112] for t in moments],
    [f"frame {t}" for t in moments],
    head="A cat, and what hides her for a moment",
    note="The upper half of six frames of a film of two seconds. A colour and a number are an identity.",
)

# %% [markdown]
# **What it shows.** A dark bar passes before the cat. The mask leaves the bar out, and the cat is the same one afterwards. What is
# out of focus beside her gets into the mask. This is a moved photograph and not a real
# film: only the window moves. (Photograph: Chelsea the cat, by Stefan van der Walt, CC0, from scikit-image.)
#
# For a film of your own, type `minst track my_video.mp4`. It finds cats, dogs and people. Its model card is
# `data_samples/weights/photos-tiny/README.md`.

# %% [markdown]
# ## Paper against ours
#
# - The paper's clips are photographs (YouTube-VIS 2019 and 2021), and its model first learns from COCO. Those data sets cannot be
#   shipped. Ours are drawn creatures of eight kinds, and `shapes-tiny` knows nothing else. `photos-tiny` knows cats, dogs
#   and people. The method is the same.
# - `Deviation:` the film above associates by masks, which is ours. The paper compares kernels by their cosine. Both are in the
#   tracker, and lesson 07 shows where they differ.
# - The paper reports its speed on a phone. `minst bench latency` measures yours on your laptop, and lesson 08 on your phone.
#
# ## Summary
#
# - Video instance segmentation is masks, classes, scores, and one identity through time.
# - Tracks are judged whole. A swapped identity costs more than a ragged outline.
# - MobileInst is online. Its memory is one kernel per query.
#
# **Quiz.** (1) Which task can count swans? (2) Which information does an online tracker lack at frame 7? (3) What is computed on
# key frames only?
#
# <details><summary>Answers</summary>
#
# (1) Instance segmentation, and with it video instance segmentation. (2) All frames from 8 on. (3) The kernels: the instance
# decoder runs on key frames alone.
#
# </details>
#
# **An open question**, which no cell answers. Suppose that an app may show its picture half a second late, so that the tracker
# knows the next fifteen frames. Which errors could it now avoid, what does that cost on a phone, and which error remains?
#
# **References.** R. Zhang et al., *MobileInst: Video Instance Segmentation on the Mobile*, AAAI 2024, arXiv 2303.17594 ·
# L. Yang, Y. Fan, N. Xu, *Video Instance Segmentation*, ICCV 2019, arXiv 1905.04804 (the task, its metric, MaskTrack R-CNN) ·
# J. Cao et al., *SipMask*, ECCV 2020, arXiv 2007.14772 · S. Hwang et al., *IFC*, NeurIPS 2021, arXiv 2106.03299 · others in
# [lesson 11](11_what_came_after.ipynb).

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 35 minutes: 5 for the environment, 5 for the film and who needs it, 5 for each step, 5 for the map. Ask for the *Predict* answer
# by show of hands: most rooms say "a little". Common mistakes: background and instance 0 share the number 0; the mean of the
# whole video is called online; a swap through an alias.
#
# The open question, a point for each: (1) a mechanism, such as deciding who is who after a crossing, waiting before a new identity
# is shown, or filling masks in a short gap; (2) the cost: fifteen frames or their features in memory, a picture that lags behind
# the hand; (3) an error that remains: whoever is hidden for longer than the delay, or two that look alike and part later; (4) the
# memory stays constant, so this is not yet offline.
#
# </details>
