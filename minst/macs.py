"""What a frame costs before any clock is read: parameters and multiply-accumulates (MACs).

    summary(model, (192, 256))  ->  {"backbone": {"params": .., "macs": ..}, "mask_decoder": {..},
                                     "instance_decoder": {..}, "masks": {..}, "total": {..}}

A multiply-accumulate is one step a * b + c of a convolution or a product of matrices. ReLUs, sums,
norms and resizes have none and are not counted, though they take time: minst.mobile.roofline says
how much.

Lesson: notebooks/00_start_here.ipynb
"""

import torch

from minst.model import MobileInst

__all__ = ["summary"]


def summary(model: MobileInst, size: tuple[int, int] = (640, 640)) -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates (MACs) of one frame of `size` (H, W), part by part."""
    from torch.utils.flop_counter import FlopCounterMode  # brings 70 MB that only counting needs

    frames = torch.zeros(1, 3, *size, device=model.pixel_mean.device)
    training, counter = model.training, FlopCounterMode(display=False)
    # The counter hooks on gradients, so they are on whatever the caller's mode.
    with torch.inference_mode(False), torch.enable_grad(), counter:
        model.eval()(frames)
    model.train(training)
    # A multiplication and an addition are two floating-point operations, and one MAC.
    counts = counter.get_flop_counts()
    macs = {name: sum(flops.values()) // 2 for name, flops in counts.items()}
    table = {}
    for part in ("backbone", "mask_decoder", "instance_decoder"):
        params = sum(parameter.numel() for parameter in getattr(model, part).parameters())
        table[part] = {"params": params, "macs": macs.get(f"MobileInst.{part}", 0)}
    # M = K . X_mask is computed by the model itself: what no part has done.
    rest = macs["Global"] - sum(row["macs"] for row in table.values())
    params = sum(parameter.numel() for parameter in model.parameters())
    total = {"params": params, "macs": macs["Global"]}
    return {**table, "masks": {"params": 0, "macs": rest}, "total": total}
