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
def apply_kernels(kernels: torch.Tensor, x_mask: torch.Tensor) -> torch.Tensor:
    """M = K . X_mask, the logits of all masks: kernels (B, N, D), x_mask (B, D, h, w) -> (B, N, h, w)."""
    return torch.einsum("bnd,bdhw->bnhw", kernels, x_mask)

# %%
print(check.apply_kernels(apply_kernels))

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
def semantic_enhancer(
    local: torch.Tensor, x6: torch.Tensor, to_gate: torch.nn.Module, to_value: torch.nn.Module
) -> torch.Tensor:
    """(03.2): local (B, D, h, w), x6 (B, C6, h6, w6) -> (B, D, h, w).

    to_gate, to_value: 1x1 convolutions, (B, C6, h6, w6) -> (B, D, h6, w6). Call them on x6 as it is. Upsample
    bilinearly (align_corners=False), the gate after its h_sigmoid. `h_sigmoid` is imported above.
    """
    maps = torch.stack([h_sigmoid(to_gate(x6)), to_value(x6)])  # (2, B, D, h6, w6)
    large = F.interpolate(maps.flatten(0, 1), size=local.shape[-2:], mode="bilinear", align_corners=False)
    gate, value = large.unflatten(0, (2, -1))
    return gate * local + value

# %%
print(check.semantic_enhancer(semantic_enhancer))

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
def unreachable(x_mask: torch.Tensor) -> torch.Tensor:
    """Cells that no kernel can put inside a mask (logit > 0) once X_mask has gone through a ReLU.

    x_mask (D, h, w), before the ReLU -> (h, w) bool, True where the logit stays at 0 or below for every kernel.
    """
    return (x_mask <= 0).all(0)

# %%
print(check.unreachable(unreachable))
