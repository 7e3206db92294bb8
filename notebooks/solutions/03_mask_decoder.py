"""Reference solutions of lesson 03, mask decoder. Made by notebooks/build.py: do not edit."""

# %%
import copy

import torch
import torch.nn.functional as F

import minst
from minst import visualize
from minst.course import lesson03 as check
from minst.layers import h_sigmoid
from minst.model import image_to_batch

# %%
def level_shapes(height: int, width: int, dim: int) -> dict[str, tuple[int, int, int]]:
    """Shapes (channels, rows, columns) of the maps in the mask decoder for a frame of height x width pixels.

    dim: D. height and width are multiples of 64. Keys: "P3", "P4", "P5", "N4", "N5", "X_mask".
    """
    at = {s: (dim, height // s, width // s) for s in (8, 16, 32)}
    return {"P3": at[8], "P4": at[16], "P5": at[32], "N4": at[16], "N5": at[32], "X_mask": at[8]}

# %%
print(check.level_shapes(level_shapes))

# %%
def top_down(l3: torch.Tensor, l4: torch.Tensor, l5: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The top-down pass without its convolutions: levels (B, D, h_i, w_i), fine to coarse -> (P3, P4, P5), same shapes.

    P5 is l5. Each finer level adds the one below it, upsampled bilinearly (align_corners=False) to its own size.
    """
    p4 = l4 + F.interpolate(l5, size=l4.shape[-2:], mode="bilinear", align_corners=False)
    return l3 + F.interpolate(p4, size=l3.shape[-2:], mode="bilinear", align_corners=False), p4, l5

# %%
print(check.top_down(top_down))

# %%
def semantic_enhancer(local: torch.Tensor, gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """local * h_sigmoid(gate) + value, gate and value upsampled to `local`: (B, D, h, w).

    local (B, D, h, w); gate, value (B, D, h6, w6): what the two 1x1 convolutions made of X6, nothing applied yet.
    Upsample bilinearly (align_corners=False), the gate after its h_sigmoid. `h_sigmoid` is imported above.
    """
    gate = F.interpolate(h_sigmoid(gate), size=local.shape[-2:], mode="bilinear", align_corners=False)
    return local * gate + F.interpolate(value, size=local.shape[-2:], mode="bilinear", align_corners=False)

# %%
print(check.semantic_enhancer(semantic_enhancer))

# %%
def apply_kernels(kernels: torch.Tensor, x_mask: torch.Tensor) -> torch.Tensor:
    """M = K . X_mask, the logits of all masks: kernels (B, N, D), x_mask (B, D, h, w) -> (B, N, h, w)."""
    return torch.einsum("bnd,bdhw->bnhw", kernels, x_mask)

# %%
print(check.apply_kernels(apply_kernels))

# %%
def unreachable(x_mask: torch.Tensor) -> torch.Tensor:
    """Cells that no kernel can put inside a mask (logit > 0) once X_mask has gone through a ReLU.

    x_mask (D, h, w), before the ReLU -> (h, w) bool, True where the logit stays at 0 or below for every kernel.
    """
    return (x_mask <= 0).all(0)

# %%
print(check.unreachable(unreachable))
