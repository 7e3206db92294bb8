"""Reference solutions of lesson 07, kernel reuse and association. Made by notebooks/build.py: do not edit."""

# %%
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
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
def track(model: minst.MobileInst, frames: list, reuse_interval: int, threshold: float) -> list[dict]:
    """Online tracking by kernels: for every frame {identity: mask (H, W) bool}.

    frames: images (H, W, 3) bytes. A slot is live, and reported, when its score on the last key frame (the largest over
    the classes) is at least `threshold`. Association: cosine * score of the slot * score of the new query, for all N
    slots. A slot gets the next identity 1, 2, ... when it is first live; several at once in the order of the slots,
    which is that of the queries on frame 0. `model.encode(image_to_batch(image))` gives an encoded frame with
    `.out.kernels` (1, N, D), `.out.scores()` (1, N, C), `.masks(kernels (1, n, D))` and `.size`; `assign`,
    `cosine_similarity` and `upsample_masks` are imported.
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
def from_memory(model: minst.MobileInst) -> dict[str, Callable]:
    """{"product": product, ...}: your MobileInst as small functions; leave out those that you have not written.

    Borrow: model.backbone, .mask_decoder, .pixel_mean, .pixel_std, and of model.instance_decoder .queries, .pool_size,
    .position(h, w), .global_projection, .global_norm, .global_decoder, .local_decoder, .heads. Your stages:
      encode(frames (B, 3, H, W) in 0 .. 1) -> X6, X_mask
      attend(layer, query, key, value) -> (B, N, D)        layer: .q .k .v .out linear, .heads how many
      look(stage, Z, Q, X, pos) -> Z                       stage: .cross_attention .self_attention .norm1 .norm2
      say(heads, Z, Q) -> class logits (B, N, C), objectness (B, N), K
                                                           heads: .ffn .norm .classes .objectness .kernel
      decode(X6, X_mask) -> class logits, objectness, K, Q_G
      product(K, X_mask) -> mask logits (B, N, h, w)
      score(class logits, objectness) -> (B, N, C)
      matching(class logits (N, C), mask logits (N, h, w), instances) -> scores (N, G)
                                                           instances: .labels (G,), .masks (G, H', W')
      focal(logits, targets, count)   dice(mask logits (n, R), masks (n, R), count) -> a number
      total(class logits, objectness, mask logits, [instances, ...], [(queries, found), ...]) -> L of a batch
      passing(Q_G, X_mask of t + delta) -> mask logits
      reuse(K (N, D), X_mask of L frames (L, D, h, w)) -> (L, N, h, w)
      associate(K_old, s_old, K_new, s_new) -> new query of each slot (N,)
      running(scores of one slot (L, C), T, threshold) -> its class scores as known at each frame (L, C)
    """
    decoder = model.instance_decoder

    def tokens(x):
        return x.flatten(2).transpose(1, 2)

    def enlarge(masks, like):
        return F.interpolate(masks[None], like.shape[-2:], mode="bilinear", align_corners=False)[0]

    def encode(frames):
        x3, x4, x5, x6 = model.backbone((frames - model.pixel_mean) / model.pixel_std)
        return x6, model.mask_decoder(x3, x4, x5, x6)

    def attend(layer, query, key, value):
        B, N, D = query.shape
        d = D // layer.heads
        q, k, v = (part(x).view(B, -1, layer.heads, d).transpose(1, 2)
                   for part, x in ((layer.q, query), (layer.k, key), (layer.v, value)))
        shares = (q @ k.transpose(-1, -2) / d**0.5).softmax(-1)  # (B, heads, N, S)
        return layer.out((shares @ v).transpose(1, 2).reshape(B, N, D))

    def look(stage, z, q, x, pos):
        z = stage.norm1(z + attend(stage.cross_attention, z + q, x + pos, x))
        return stage.norm2(z + attend(stage.self_attention, z + q, z + q, z))

    def say(heads, z, q):
        y = z + q
        y = heads.norm(y + heads.ffn(y))
        return heads.classes(y), heads.objectness(y)[..., 0], heads.kernel(y)

    def local(q_g, x_mask):
        pooled = F.max_pool2d(x_mask, decoder.pool_size)
        pos = decoder.position(*pooled.shape[-2:])
        z = look(decoder.local_decoder, q_g, decoder.queries, tokens(pooled), pos)
        return say(decoder.heads, z, decoder.queries)

    def decode(x6, x_mask):
        x_g = decoder.global_norm(decoder.global_projection(tokens(x6)))
        nothing = torch.zeros(len(x6), *decoder.queries.shape)
        q_g = look(decoder.global_decoder, nothing, decoder.queries, x_g, decoder.position(*x6.shape[-2:]))
        return *local(q_g, x_mask), q_g

    def product(k, x_mask):
        return torch.einsum("bnd,bdhw->bnhw", k, x_mask)

    def score(classes, objectness):
        return (classes.sigmoid() * objectness.sigmoid()[..., None]).sqrt()

    def matching(classes, masks, instances):
        x, y = enlarge(masks, instances.masks).sigmoid().flatten(1), instances.masks.flatten(1)
        alike = 2 * x @ y.T / ((x * x).sum(1)[:, None] + (y * y).sum(1) + 1e-4)
        return alike**0.8 * classes.sigmoid()[:, instances.labels] ** 0.2

    def focal(logits, targets, count):
        log_p = F.logsigmoid(logits * (2 * targets - 1))  # of what is true
        alpha = 0.25 * targets + 0.75 * (1 - targets)
        return -(alpha * (1 - log_p.exp()) ** 2 * log_p).sum() / count

    def dice(logits, masks, count):
        x = logits.sigmoid()
        alike = 2 * (x * masks).sum(1) / ((x * x).sum(1) + (masks * masks).sum(1) + 1e-4)
        return (1 - alike).sum() / count

    def total(classes, objectness, masks, targets, matches):
        count = max(1, sum(len(target.labels) for target in targets))
        yes, loss = torch.zeros_like(classes), 0.0
        for b, (target, (queries, found)) in enumerate(zip(targets, matches)):
            yes[b, queries, target.labels[found]] = 1.0
            x, y = enlarge(masks[b, queries], target.masks).flatten(1), target.masks[found].flatten(1)
            pixel = F.binary_cross_entropy_with_logits(x, y, reduction="none").mean(1).sum() / count
            drawn, true = x.sigmoid() >= 0.4, y > 0.5
            iou = (drawn & true).sum(1) / (drawn | true).sum(1)
            right = F.binary_cross_entropy_with_logits(objectness[b, queries], iou, reduction="sum") / count
            loss = loss + 2 * dice(x, y, count) + 2 * pixel + right
        return loss + 2 * focal(classes, yes, count)

    def passing(q_g, x_mask):
        return product(local(q_g, x_mask)[2], x_mask)

    def reuse(k, x_masks):
        return torch.einsum("nd,ldhw->lnhw", k, x_masks)

    def associate(k_old, s_old, k_new, s_new):
        alike = F.normalize(k_old, dim=1) @ F.normalize(k_new, dim=1).T * s_old[:, None] * s_new
        return torch.as_tensor(linear_sum_assignment(alike.numpy(), maximize=True)[1])

    def running(scores, interval, threshold):
        total, count, known = torch.zeros_like(scores[0]), 0, []
        for t, now in enumerate(scores):
            if t % interval == 0 and now.max() >= threshold:
                total, count = total + now, count + 1
            known.append(total / max(count, 1))
        return torch.stack(known)

    stages = (encode, attend, look, say, decode, product, score, matching, focal, dice, total, passing, reuse,
              associate, running)
    return {stage.__name__: stage for stage in stages}

# %%
print(check.from_memory(from_memory))
