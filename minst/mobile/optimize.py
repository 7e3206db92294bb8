"""What PyTorch's mobile optimiser does, one pass at a time.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import torch
from torch.utils.mobile_optimizer import optimize_for_mobile

__all__ = ["optimize"]


def optimize(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """All default passes of `optimize_for_mobile`."""
    return optimize_for_mobile(module)
