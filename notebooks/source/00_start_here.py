# %% [markdown]
# # 00 · Start here
#
# **What does it mean to see a video instance by instance, and does everything work on this machine?**

# %% [markdown]
# ## You will be able to …
#
# - say what video instance segmentation asks for, and what its neighbours ask for (exercise 1)
# - turn masks into a map of instances, and back again in your head (exercise 2)
# - tell an online method from an offline one by what it may look at (exercise 3)
# - build the error that no single frame shows: swapped identities (exercise 4)
#
# You need Python and a little NumPy. You need neither a GPU nor a network.

# %% tags=["setup"]
import numpy as np

import minst
from minst import visualize
from minst.course import lesson00 as check

# %% [markdown]
# ## Is everything here?
#
# `report` looks at every package that the lessons use. Where something is missing or too old, its last lines name the one
# command that mends it; without such lines you are ready.

# %%
from minst.environment import environment, report

findings = environment()
print(report(findings).splitlines()[-1])

# %% [markdown]
# The whole table is `print(report(findings))`, or `minst env` in a terminal. Common findings:
#
# | finding | what to do |
# |---|---|
# | a package is `missing` or outside its versions | run the `pip install` line that the report prints |
# | `XNNPACK no` | torch is not 2.12; only the lite format of lesson 08 needs it |
# | no accelerator | nothing: every lesson is made for two CPU cores |
# | widgets show as text | install the extra `notebooks` into the environment of this kernel, then restart JupyterLab |

# %% [markdown]
# ## See the problem
#
# Here is the whole thing at work: a small network that ships with this package watches a clip that it has never seen. It
# outlines every creature, names it, and knows it again in the next frame.

# %%
model = minst.MobileInst.from_pretrained("shapes-tiny")
clip = minst.load_sample("easy")
tracker = minst.KernelTracker(model, reuse_interval=3, association="mask")
result = tracker.track(clip)
print(f"{len(result.tracks)} tracks for {len(clip.labels)} creatures")
drawn = list(visualize.draw_tracks(clip, result, scale=1))
visualize.animate(drawn)

# %% [markdown]
# **What it shows.** A film of 24 frames. Butterfly, leaf and jellyfish are covered by one colour each, with number, name and
# score on a tag, and keep their number while they move. The line above the film counts tracks: more of them than creatures
# would mean that a creature was found twice for a while, under a number of its own. Lesson 04 counts how often two queries
# claim one creature, lesson 05 explains what training does against such duplicates, lesson 07 what a tracker does.
#
# The words *instance*, *mask*, *track* and *identity* will be with us to the end:
#
# | term | meaning here |
# |---|---|
# | instance | one object: this ladybird, not "ladybird" |
# | mask | the pixels of one instance in one frame, `(H, W)` of true and false |
# | track | the masks of one instance over all frames of a video; also called a *tube* |
# | identity | the number that says which masks belong to the same track |
#
# ### Four questions to one picture
#
# Each task in this field adds one demand to the one before it. Take frame 0 and frame 12 of the clip:

# %%
first, later = clip.render(0), clip.render(12)
semantic = first.masks.any(0)
separate = visualize.draw_frame(first.image, first.masks, range(1, 4), scale=1)
again = visualize.draw_frame(later.image, later.masks, range(1, 4), scale=1)
visualize.plot_images(
    [first.image, semantic, separate, again],
    [
        "frame 0",
        "where is any creature?\n(semantic segmentation)",
        "which pixels are whose?\n(instance segmentation)",
        "frame 12: and who is who?\n(video instance segmentation)",
    ],
    head="Each task asks one more question",
    note="Left to right: a frame; all creatures as one white area; one colour per creature; the same, later.",
)

# %% [markdown]
# **What it shows.** One frame, then three answers. The white area does not know how many creatures there are. The coloured
# outlines do, and only the last one, twelve frames later, needs a memory: colours must match those of frame 0.
#
# > **Video instance segmentation** (task definition, YouTube-VIS; used in the paper's experiments): find all instances of the
# > given classes in a video and give each one mask per frame, a class, a score, and one identity throughout.

# %% [markdown]
# ## Predict
#
# A network segments **every frame perfectly**, and in the middle of the video swaps the names of two creatures that cross.
# How much of the score does it lose: nothing, a little, or most of it?
#
# <details><summary>Answer, after you have thought</summary>
#
# Most of it. The metric compares whole tracks. Two tracks that are swapped half-way overlap with the truth in about half of
# their frames, an IoU near 1/3, below every threshold that counts (0.5 and up). Lesson 01 computes it; exercise 4 builds it.
#
# </details>

# %% [markdown]
# ## Online and offline
#
# An **online** method answers frame by frame and never takes anything back: frame 7 is answered when frame 8 does not exist
# yet. A phone's camera needs that. An **offline** method sees the whole video first, and may revise.
#
# MobileInst is online. `step` takes one frame and returns what is known now. Its memory is one small kernel for each query,
# whatever the length of the video:

# %% tags=["nbval-check-output"]
tracker.reset()
for t, image in zip(range(4), clip):
    now = tracker.step(image)
    kind = "key frame" if now.is_key else "kernel reuse"
    print(f"frame {t}: {kind:12} identities {sorted(now.ids)}")

# %% [markdown]
# Only every third frame is a **key frame**, where new kernels are computed; the frames between reuse them. That is the trick
# that the paper is about, and lesson 07 takes it apart. Move through the frames yourself:


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
# **What it shows.** On the left the bare frame 12, in the middle the pixels that truly belong to a creature, on the right the
# tracked masks. The slider moves all three through the clip.

# %% [markdown]
# ## The map
#
# This is all of MobileInst. Each lesson lights one block of it; come back here when you are lost.

# %%
visualize.plot_pipeline(model, size=(192, 256))

# %% [markdown]
# **What it shows.** From left to right: a frame goes through the backbone, which gives features at four scales; the mask
# decoder turns them into one mask feature; the instance decoder turns learned queries into one kernel each; kernel times
# mask feature is a mask; tracking carries kernels to the next frames.
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
# In a hurry? Do 00, 01, 04 and 07: the task, the metric, the idea, the tracker. What has come after MobileInst, and what of it
# has stayed, is in [11](11_what_came_after.ipynb).

# %% [markdown]
# ## The same on a photograph
#
# Creatures are drawn here because a drawing comes with its truth. The method does not care. `photos-tiny` is the same
# network with another backbone. We trained it on photographs of cats and dogs, on this kind of machine. Lesson 10 tells how.

# %%
photo = minst.load_sample("chelsea")
cats = minst.KernelTracker(minst.MobileInst.from_pretrained("photos-tiny"), reuse_interval=3).track(photo)
print(f"{len(cats.tracks)} tracks for {len(photo.labels)} cat")
found = list(visualize.draw_tracks(photo, cats, scale=1))
times = (0, 10, 16, 19, 22, 29)
visualize.plot_images(
    [found[t][:112] for t in times],
    [f"frame {t}" for t in times],
    head="A cat, and what hides her for a moment",
    note="The upper half of six frames of a film of two seconds. A colour and a number are an identity.",
)

# %% [markdown]
# **What it shows.** A cat's face, covered by one colour as long as her identity stays, and a dark bar that passes before her.
# The colour does not cover the bar. More tracks than cats would mean that something behind her was taken for another cat.
# This is a moved photograph and not a real film: the cat never moves, only the window does. (Photograph: Chelsea the cat, by
# Stefan van der Walt, CC0, from scikit-image.)
#
# Your own film: `minst track my_video.mp4`. It finds cats and dogs and nothing else. The model card says how often, and when
# it fails: `data_samples/weights/photos-tiny/README.md`.

# %% [markdown]
# ## Exercises
#
# Each exercise is a function with a line to replace. Run it, then run the cell below it: the check says *not attempted*,
# *wrong, because …* or *correct*, on fresh random input each time. All solutions lie in
# [solutions/](solutions/00_start_here.py).
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
# One of the four combinations is odd: a method that follows identities without separating objects. Without objects there is
# nobody to follow, so it counts as the plainest task.
#
# </details>
#
# ### Exercise 2 (code): a map of instances


# %% tags=["exercise"]
def instance_map(masks: np.ndarray) -> np.ndarray:
    """One number a pixel: masks (M, H, W) bool -> (H, W) whole numbers, 0 = background, m + 1 = instance m.

    Where instances overlap, the later one lies on top.
    """
    # solution
    image = np.zeros(masks.shape[1:], dtype=np.int64)
    for m, mask in enumerate(masks):
        image[mask] = m + 1
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
# Entry `t` may use `scores[0]` to `scores[t]`, and not the length of the list.
#
# </details>
#
# ### Exercise 4 (break it): an error that no single frame shows


# %% tags=["exercise"]
def swap_identities(masks: np.ndarray, frame: int) -> np.ndarray:
    """Tracks (M, T, H, W) bool -> the same with instances 0 and 1 swapped in `frame` and all later frames."""
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

# %% [markdown]
# ## Paper against ours
#
# - The paper's clips are photographs (YouTube-VIS 2019 and 2021) and its model is pre-trained on COCO. Those data sets cannot
#   be shipped. Ours are drawn creatures, eight kinds, and `shapes-tiny` knows nothing else: on a photograph it finds
#   nothing of use. `photos-tiny` knows cats and dogs alone. The method is the same, line by line.
# - `Deviation:` the film above associates by masks, which is ours; the paper's association is the cosine of kernels. Both are
#   in the tracker, and lesson 07 shows where they differ and what the scores add to either.
# - The paper reports its speed on a phone. Your laptop's figures are your laptop's: `minst bench latency`.

# %% [markdown]
# ## Summary
#
# - Video instance segmentation = masks + classes + scores + one identity through time.
# - Tracks are judged whole: a swapped identity costs more than a ragged outline.
# - MobileInst is online; its memory is a kernel for each query.
#
# **Quiz.** (1) Which task can count swans? (2) Which information does an online tracker lack at frame 7? (3) What is
# computed on key frames only?
#
# <details><summary>Answers</summary>
#
# (1) Instance segmentation, and with it video instance segmentation. (2) All frames from 8 on. (3) The kernels: the instance
# decoder runs on key frames alone.
#
# </details>
#
# **References.** R. Zhang et al., *MobileInst: Video Instance Segmentation on the Mobile*, AAAI 2024, arXiv 2303.17594 ·
# L. Yang, Y. Fan, N. Xu, *Video Instance Segmentation*, ICCV 2019, arXiv 1905.04804 (the task and its metric).

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 20 minutes: 5 for the environment, 5 for the film and the four questions, 5 for the map, 5 for exercise 4. Ask for the
# *Predict* answer by show of hands before opening it: most rooms say "a little". Common mistakes: background and instance 0
# share the number 0; the mean of the whole video is called online; a swap through an alias.
#
# </details>
