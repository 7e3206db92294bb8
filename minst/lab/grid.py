"""The grid of the ablation lab: which models are trained, on what, for how long.

    run = variant x seed x budget        "max_gap=10", seed 2, FULL  ->  <folder>/max_gap=10-2/

Every variant is the full model with one thing changed, trained on the same clips, in the same
order, for the same number of steps. Measurements that need no training (reuse interval,
association, beyond the paper) are taken on trained runs: see measure.py. A lab keeps the grid that
it was run with in its lab.json, so that a report never speaks of rows by the words of another:
results/lab is of an older one. How its values were found stands in results/lab/PILOT.md.

Assumption: the paper trains on COCO and YouTube-VIS from ImageNet weights; here it is shapes from
    nothing, small frames and few steps. So a row shows what a component does at this scale, and no
    more.
Assumption: a decoder that stands alone has no Q_G before its last queries, and so no losses of
    Q_G: with them all its losses would count twice.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from dataclasses import dataclass, field
from typing import Literal

from minst.config import MobileInstConfig
from minst.data.shapes import ShapesConfig
from minst.training import TrainConfig, switches

__all__ = ["FULL", "SHIPPED", "SMOKE", "SPEEDS", "VARIANTS", "Budget", "Variant", "train_config"]

SPEEDS = {"slow": 0.4, "medium": 1.0, "fast": 2.0}  # of shapes; training sees medium alone
# Trained ten times as long on larger frames: what they show of association, short trainings
# cannot. They are measured alone.
SHIPPED = ("shapes-tiny", "shapes-tiny-images")
# Within a lab: what variants of a backbone start from.
PRETRAINED = "backbones/{}/backbone.safetensors"
KINDS = ("fish", "butterfly", "starfish", "ladybird")


@dataclass(frozen=True)
class Variant:
    """One line of the grid."""

    name: str
    group: str  # the question that it belongs to
    says: str  # what is changed, for a table
    changes: dict = field(default_factory=dict)  # fields of TrainConfig
    paper: str = ""  # what the paper claims of it, against the full model
    # what decides: image AP, or video AP by cosine at T = 3, as there
    judged_by: Literal["image", "video"] = "image"
    # +1: the paper says that this is worse; 0: it says nothing that could fail
    claim: Literal[-1, 0, 1] = 0
    retention: str = ""  # what the paper says of the full model's retention, against this
    decoder: str = ""  # one of `minst.lab.decoders.ORDERS`; "" = global, then local


def _grid() -> dict[str, Variant]:
    decoder, fusion, temporal = "instance decoder", "mask decoder", "temporal training"
    ours = "beyond the paper"
    # No Q_G, no losses of it: see above.
    alone = {"changes": {"global_weight": 0.0}, "paper": "worse", "claim": 1}
    passing = {"judged_by": "video"}

    def switch(text: str) -> dict:
        return {"switches": text}

    trained = {"paper": "0.8 to 1.3 AP worse", "judged_by": "video", "claim": 1}
    rows = [
        Variant("full", "the model", "as minst has it"),
        Variant("decoder=global", decoder, "global decoder alone", decoder="global", **alone),
        Variant("decoder=local", decoder, "local decoder alone", decoder="local", **alone),
        Variant("decoder=local-local", decoder, "two local decoders", {}, "worse", claim=1,
                decoder="local-local"),
        Variant("pooling=avg", decoder, "X_L by average pooling", switch("pooling=avg"),
                "0.4 AP worse", claim=1),
        Variant("enhancer=off", fusion, "no semantic enhancers", switch("semantic_enhancer=off"),
                "worse", claim=1),
        Variant("bottom_up=off", fusion, "top-down fusion alone", switch("bottom_up=off"), "worse",
                claim=1),
        Variant("passing=kept", temporal, "passed queries keep frame t's instance",
                {"query_passing": "kept"}, **passing),
        Variant("passing=fresh", temporal, "passed queries matched anew at t + delta",
                {"query_passing": "fresh"}, **passing),
        Variant("passing=off", temporal, "pairs of frames, no query passing",
                {"query_passing": "off"}, **trained,
                retention="queries keep their instance over 11 frames (Fig 2)"),
        Variant("images", temporal, "single images, no query passing", {"train_on": "images"},
                **trained),
        Variant("max_gap=2", temporal, "delta 1 to 2 (full: 1 to 5)", {"max_gap": 2}, **passing),
        Variant("max_gap=10", temporal, "delta 1 to 10 (full: 1 to 5)", {"max_gap": 10}, **passing),
        Variant("queries=10", "size", "10 queries (full: 20)", switch("num_queries=10")),
        Variant("queries=50", "size", "50 queries", switch("num_queries=50")),
        Variant("queries=100", "size", "100 queries", switch("num_queries=100")),
        Variant("seaformer-tiny", "size", "SeaFormer-T (full: TopFormer-T)",
                switch("backbone=seaformer-tiny")),
        Variant("mobilenetv2-0.6", "size", "MobileNetV2, 0.6 wide",
                switch("backbone=mobilenetv2-0.6"), "worse", claim=1),
        Variant("global_norm=off", ours, "no LayerNorm on X_G", switch("normalise_global=off")),
        Variant("global_loss=off", ours, "no losses of Q_G", {"global_weight": 0.0}),
        Variant("targets=8", ours, "masks learn at 1/8 (full: 1/2)", {"target_stride": 8}),
    ]  # fmt: skip
    return {row.name: row for row in rows}


VARIANTS = _grid()


@dataclass(frozen=True)
class Budget:
    """What every run may spend, and the clips it learns from and is judged by (of fixed seeds)."""

    name: str
    pretraining: int  # steps of a backbone before
    iterations: int
    pairs: int
    train_clips: int
    val_clips: int  # of each speed
    frames: int  # of a clip
    save_every: int

    def clips(self, speed: float = 1.0) -> ShapesConfig:
        """The clips to learn from and to be judged by, at this factor on their motion."""
        return ShapesConfig(
            width=160, height=128, frames=self.frames, min_instances=2, max_instances=4,
            speed=speed, category=KINDS,
        )  # fmt: skip

    def shipped_clips(self) -> ShapesConfig:
        """What the shipped weights are judged by: the default shapes, as they have learned from."""
        return ShapesConfig(frames=self.frames)


FULL = Budget(
    "full", pretraining=2500, iterations=1500, pairs=6, train_clips=600, val_clips=40, frames=24,
    save_every=150,
)  # fmt: skip
SMOKE = Budget(
    "smoke", pretraining=10, iterations=20, pairs=2, train_clips=8, val_clips=2, frames=8,
    save_every=10,
)  # fmt: skip


def backbone_of(variant: str) -> str:
    """The name of the backbone of a variant."""
    changed = switches(VARIANTS[variant].changes.get("switches", ""))
    return MobileInstConfig.preset("shapes-tiny", **changed).backbone


def train_config(variant: str, seed: int, budget: Budget, **machine) -> TrainConfig:
    """The training of one run; paths are relative to the lab. machine: device, threads, …"""
    base = {
        "out": f"{variant}-{seed}",
        "data": "data/train",
        "backbone_weights": PRETRAINED.format(backbone_of(variant)),
        "seed": seed,
        "iterations": budget.iterations,
        "pairs": budget.pairs,
        "height": 128,
        "width": 128,
        "warmup": min(200, budget.iterations // 5),
        "ema": 0.998,
        "workers": 0,
        "log_every": min(50, budget.save_every),
        "save_every": budget.save_every,
    }
    return TrainConfig(**{**base, **VARIANTS[variant].changes, **machine})
