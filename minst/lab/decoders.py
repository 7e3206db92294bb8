"""The decoder orders that the paper compares with "global, then local": one alone, or local twice.

    "global"        Q -> decoder <- X_G -> heads
    "local"         Q -> decoder <- X_L -> heads
    "local-local"   Q -> decoder <- X_L -> decoder <- X_L -> heads

    build(order, config)      a model for `minst.training.train(config, model=...)`
    load(folder, order)       what that training saved

They are trained on single images alone: query passing would have to say which decoder runs again.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from minst import weights
from minst.config import MobileInstConfig
from minst.data.ytvis import YouTubeVIS
from minst.instance_decoder import DualInstanceDecoder, Predictions
from minst.model import MobileInst
from minst.training import TrainConfig, initial_model

__all__ = ["ORDERS", "build", "load"]

ORDERS = ("global", "local", "local-local")


class ReorderedDecoder(DualInstanceDecoder):
    """The parts of a dual decoder in another order; those that would never learn are left out.

    The first decoder keeps the name `global_decoder`, whatever it looks at.
    """

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


class Reordered(MobileInst):
    """A MobileInst with such a decoder. Its parts start as the full model's of the same seed do."""

    def __init__(self, config: MobileInstConfig, order: str):
        super().__init__(config)
        self.instance_decoder = ReorderedDecoder(self.instance_decoder, order)


def build(order: str, config: TrainConfig) -> Reordered:
    """The model that `config` describes, for the categories of its clips, with another decoder."""
    torch.manual_seed(config.seed)
    full = initial_model(config, YouTubeVIS(config.data).categories)
    torch.manual_seed(config.seed)
    model = Reordered(full.config, order)
    model.backbone.load_state_dict(full.backbone.state_dict())  # what it has been pre-trained to
    return model


def load(folder: str | Path, order: str = "") -> MobileInst:
    """The weights of a run, in eval mode; order "": the full model's."""
    return weights.load(partial(Reordered, order=order) if order else MobileInst, folder)
