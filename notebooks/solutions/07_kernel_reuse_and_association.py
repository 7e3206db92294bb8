"""Reference solutions of lesson 07, kernel reuse and association. Made by notebooks/build.py: do not edit."""

# %%
import time
from functools import cache
import torch
from scipy.optimize import linear_sum_assignment
import minst
from minst import visualize
from minst.course import lesson07 as check
from minst.evaluation.consistency import assign_queries, mask_ious
from minst.model import apply_kernels, image_to_batch, upsample_masks
from minst.tracking import Candidates, assign, by_masks, cosine_similarity, mask_similarity

# %%
def modules_run(frame: int, reuse_interval: int) -> list[str]:
    """What runs on frame 0, 1, 2, ... of a video, in the order in which it runs.

    A list of some of "backbone", "mask decoder", "instance decoder", "association".
    """
    names = ["backbone", "mask decoder"]
    if frame % reuse_interval == 0:
        names.append("instance decoder")
        if frame > 0:
            names.append("association")
    return names

# %%
print(check.modules_run(modules_run))

# %%
def cosine_association(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The new query of every old kernel, one to one, of largest total cosine: (N, D), (N, D) -> (N,) whole numbers.

    Without minst.tracking: use linear_sum_assignment.
    """
    old = old / old.norm(dim=1, keepdim=True)
    new = new / new.norm(dim=1, keepdim=True)
    _, columns = linear_sum_assignment((old @ new.T).numpy(), maximize=True)
    return torch.as_tensor(columns)

# %%
print(check.cosine_association(cosine_association))

# %%
def track(model: minst.MobileInst, frames: list, reuse_interval: int, threshold: float) -> list[dict]:
    """Online tracking by kernels: for every frame {identity: mask (H, W) bool}.

    frames: images (H, W, 3) bytes. A slot is live, and reported, when its score on the last key frame (the largest over
    the classes) is at least `threshold`. Association: cosine * score of the slot * score of the new query. A slot gets
    the next identity 1, 2, ... when it is first live; several at once in the order of the slots, which is that of the
    queries on frame 0.
    """
    slots, scores, ids, result = None, None, {}, []
    for t, image in enumerate(frames):
        frame = model.encode(image_to_batch(image))
        if t % reuse_interval == 0:
            new, new_scores = frame.out.kernels[0], frame.out.scores()[0].amax(-1)
            order = torch.arange(len(new))
            if slots is not None:
                order = assign(cosine_similarity(slots, new) * scores[:, None] * new_scores)
            slots, scores = new[order], new_scores[order]
        live = (scores >= threshold).nonzero().flatten().tolist()
        masks = upsample_masks(frame.masks(slots[live][None]), frame.size)[0] >= 0
        for slot in live:
            ids.setdefault(slot, len(ids) + 1)
        result.append({ids[slot]: mask for slot, mask in zip(live, masks)})
    return result

# %%
print(check.track(track))

# %%
def fool_cosine(x_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernels (old, new), both (2, D), of two instances that swap their queries, which cosine does not see.

    x_mask (D, h, w), D >= 4: channel 0 is +1 on instance A and -1 elsewhere, channel 1 the same for B, others 0.
    old[0] . x_mask is positive exactly on A, old[1] on B; new[0] on B, new[1] on A. And yet the assignment of largest
    total cosine is [0, 1]: every query goes on with itself.
    """
    old, new = torch.zeros(2, len(x_mask)), torch.zeros(2, len(x_mask))
    old[0, 0] = old[1, 1] = new[0, 1] = new[1, 0] = 1.0  # what the masks see
    old[0, 2] = new[0, 2] = old[1, 3] = new[1, 3] = 3.0  # which query I am
    return old, new

# %%
print(check.fool_cosine(fool_cosine))

# %%
def running_class_scores(scores: torch.Tensor, reuse_interval: int, threshold: float) -> torch.Tensor:
    """What is known of one identity's classes after every frame: (T, K) -> (T, K).

    scores[t] is what the decoder would say on frame t; it is asked on key frames only. Entry t: the mean over the key
    frames up to t whose best class scores at least `threshold`; zeros as long as there is none.
    """
    total, count, known = torch.zeros_like(scores[0]), 0, []
    for t, now in enumerate(scores):
        if t % reuse_interval == 0 and now.max() >= threshold:
            total, count = total + now, count + 1
        known.append(total / max(count, 1))
    return torch.stack(known)

# %%
print(check.running_class_scores(running_class_scores))
