"""The decoder orders that the paper compares with "global, then local": one alone, or local twice.

    "global"        Q -> decoder <- X_G -> heads
    "local"         Q -> decoder <- X_L -> heads
    "local-local"   Q -> decoder <- X_L -> decoder <- X_L -> heads

They are trained on single images alone: query passing would have to say which decoder runs again.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from minst import weights
from minst.data.ytvis import YouTubeVIS
from minst.instance_decoder import DualInstanceDecoder, Predictions
from minst.model import MobileInst
from minst.training import TrainConfig, initial_model

__all__ = ["build", "load"]


class ReorderedDecoder(DualInstanceDecoder):
    """The parts of a dual decoder in another order, without those that would never learn. The first
    decoder keeps the name `global_decoder`, whatever it looks at."""

    def __init__(self, dual: DualInstanceDecoder, order: str):
        nn.Module.__init__(self)
        self.is_global, self.is_alone = order == "global", order != "local-local"
        names = ["pooling", "pool_size", "queries", "position", "heads", "global_decoder"]
        names += ["global_projection", "global_norm"] if self.is_global else []
        names += [] if self.is_alone else ["local_decoder"]
        for name in names:
            setattr(self, name, getattr(dual, name))

    def forward(self, x6: Tensor, x_mask: Tensor, padding: Tensor | None = None):
        """As `DualInstanceDecoder.forward`, but that the first decoder may look at X_mask."""
        return super().forward(x6 if self.is_global else x_mask, x_mask, padding)

    def global_tokens(self, x6: Tensor) -> tuple[Tensor, Tensor]:
        """What the first decoder looks at."""
        return super().global_tokens(x6) if self.is_global else self.local_tokens(x6)

    def local(self, q_g: Tensor, x_mask: Tensor, padding: Tensor | None = None) -> Predictions:
        """The second half, if there is one."""
        return self.predict(q_g) if self.is_alone else super().local(q_g, x_mask, padding)


def reordered(model: MobileInst, order: str) -> MobileInst:
    """The model with its decoders in another order; "": as they are."""
    if order:
        model.instance_decoder = ReorderedDecoder(model.instance_decoder, order)
    return model


def build(order: str, config: TrainConfig) -> MobileInst:
    """The model that `config` describes, for the categories of its clips; its parts start as those
    of the full model of the same seed do."""
    torch.manual_seed(config.seed)
    return reordered(initial_model(config, YouTubeVIS(config.data).categories), order)


def load(folder: str | Path, order: str = "") -> MobileInst:
    """The weights of a run, in eval mode."""
    return weights.load(lambda config: reordered(MobileInst(config), order), folder)
