"""Where a query looks: the cross-attention of the global and of the local decoder, over the frame.

    frame ─ encode ─> X6 ─ global_tokens ─> X_G (B, S, D);  X_mask ─ local_tokens ─> X_L (B, S, D)
    queries (B, N, D) ─ cross_attention(queries, X + pos, X) ─> (B, heads, N, S)
                      ─ crop padding ─> (B, heads, N, h, w)

Symbols: B batch, N queries, S tokens, D channels, H W frame size, h w = H, W over the token stride,
rounded up. Assumption: a token stands for its cell of the frame; it has seen more than that.

Lesson: notebooks/04_dual_decoder.ipynb
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import uniform_filter
from torch import Tensor

from minst.model import Frame, MobileInst, image_to_batch

__all__ = ["AttentionMaps", "attention_maps"]


class AttentionMaps(NamedTuple):
    """Cross-attention of all queries in B frames of a size. Decoder 0 is global, 1 local."""

    weights: tuple[Tensor, Tensor]  # to X_G and to X_L: (B, heads, N, h, w), of sum 1 over h, w
    # A token's cell has stride x stride pixels; the last row and column may overhang the frame.
    stride: int
    size: tuple[int, int]  # (H, W) of the frames

    def on_frame(self, decoder: int, query: int, image: int = 0) -> np.ndarray:
        """The maps of one query, smooth, over the frame: (heads, H, W), 1 = even attention."""
        weights = self.weights[decoder][image, :, query].float().cpu()  # (heads, h, w)
        light = (weights * weights[0].numel())[None]
        # Bilinear, its creases rounded. (Bicubic shows attention where there is none.)
        light = F.interpolate(light, scale_factor=self.stride, mode="bilinear")[0].numpy()
        window = 2 * (self.stride // 4) + 1
        light = uniform_filter(light, (1, window, window), mode="nearest")
        return light[:, : self.size[0], : self.size[1]]

    def inside(self, decoder: int, query: int, mask: np.ndarray, image: int = 0) -> np.ndarray:
        """The share of a query's attention inside a mask (H, W) bool: (heads,) in [0, 1]."""
        mask = torch.from_numpy(np.asarray(mask, dtype=np.float32))
        overhang = (0, -self.size[1] % self.stride, 0, -self.size[0] % self.stride)
        pixels = F.pad(torch.stack([mask, torch.ones_like(mask)]), overhang)
        covered, whole = F.avg_pool2d(pixels, self.stride)  # of a cell: by the mask, by the frame
        weights = self.weights[decoder][image, :, query].cpu()
        return (weights * covered / whole).sum((-2, -1)).numpy()


@torch.inference_mode()
def attention_maps(model: MobileInst, frames: Frame | Tensor | np.ndarray) -> AttentionMaps:
    """Cross-attention weights of both decoders, without padded tokens.

    frames: what `model.encode` gave (nothing is encoded twice), a tensor (B, 3, H, W) in [0, 1], or
    one image (H, W, 3) in bytes. A token that is padding alone (see `pad_batch`) has weight 0.
    """
    if not isinstance(frames, Frame):
        training = model.training
        batch = frames if isinstance(frames, Tensor) else image_to_batch(frames)
        frames = model.eval().encode(batch)
        model.train(training)
    dual, stride = model.instance_decoder, model.config.token_stride
    height, width = (math.ceil(n / stride) for n in frames.size)
    scene, details = dual.global_tokens(frames.x6), dual.local_tokens(frames.padded_x_mask)
    who, weights = dual.queries, []
    content = who.new_zeros(len(frames.x6), *who.shape)  # (B, N, D), nothing has been seen yet
    for decoder, (x, pos) in ((dual.global_decoder, scene), (dual.local_decoder, details)):
        attend = decoder.cross_attention
        _, seen = attend(content + who, x + pos, x, frames.token_padding, return_weights=True)
        seen = seen.unflatten(-1, frames.x6.shape[-2:])  # (B, heads, N, h, w), still padded
        weights.append(seen[..., :height, :width])
        content = decoder(content, who, x, pos, frames.token_padding)
    return AttentionMaps(tuple(weights), stride, tuple(frames.size))
