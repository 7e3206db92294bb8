"""The decoder orders that the paper compares with "global, then local": one alone, or local twice.

    "global"        Q -> decoder <- X_G -> heads
    "local"         Q -> decoder <- X_L -> heads
    "local-local"   Q -> decoder <- X_L -> decoder <- X_L -> heads

    build(order, config)      a model for `minst.training.train(config, model=...)`
    load(folder, order)       what that training saved

Query passing hands on what the first decoder has put out, and the last one runs on the other
frame; a decoder that stands alone is both, and runs again.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from minst import weights
from minst.config import MobileInstConfig
from minst.data.ytvis import YouTubeVIS
from minst.instance_decoder import DualInstanceDecoder, Predictions
from minst.model import Frame, MobileInst
from minst.training import TrainConfig, initial_model

__all__ = ["ORDERS", "Reordered", "ReorderedDecoder", "build", "load"]

ORDERS = ("global", "local", "local-local")


class ReorderedDecoder(DualInstanceDecoder):
    """The parts of a dual decoder in another order; those that would never learn are left out."""

    def __init__(self, dual: DualInstanceDecoder, order: str):
        nn.Module.__init__(self)
        self.sources = order.split("-")  # what each decoder looks at
        names = ["pool", "pool_size", "queries", "position", "heads"]
        names += ["global_projection", "global_norm"] if "global" in self.sources else []
        for name in names:
            setattr(self, name, getattr(dual, name))
        both = dual.global_decoder, dual.local_decoder  # of one shape
        self.decoders = nn.ModuleList(both[: len(self.sources)])

    def forward(self, x6: Tensor, x_mask: Tensor, padding: Tensor | None = None):
        """As `DualInstanceDecoder.forward`; the queries to pass on are the first decoder's."""
        first = self.look(0, self.queries.expand(len(x6), -1, -1), x6, x_mask, padding)
        last = first if len(self.decoders) == 1 else self.look(1, first, x6, x_mask, padding)
        return self.heads(last), first

    def look(self, number: int, q: Tensor, x6: Tensor, x_mask: Tensor, padding) -> Tensor:
        """Queries (B, N, D) -> the same after decoder `number`."""
        is_global = self.sources[number] == "global"
        tokens, pos = self.global_tokens(x6) if is_global else self.local_tokens(x_mask)
        return self.decoders[number](q, tokens, pos, padding)

    def passed(self, q_g: Tensor, frame: Frame) -> Predictions:
        """Another frame's queries (B, N, D) on this frame: the last decoder, and the heads."""
        of_frame = frame.x6, frame.padded_x_mask, frame.token_padding
        return self.heads(self.look(-1, q_g, *of_frame))


class Reordered(MobileInst):
    """A MobileInst with such a decoder. Its parts start as the full model's of the same seed do."""

    def __init__(self, config: MobileInstConfig, order: str):
        super().__init__(config)
        self.instance_decoder = ReorderedDecoder(self.instance_decoder, order)

    def pass_queries(self, global_queries: Tensor, frame: Frame) -> Tensor:
        """As `MobileInst.pass_queries`."""
        return frame.masks(self.instance_decoder.passed(global_queries, frame).kernels)


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
