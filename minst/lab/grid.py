"""The grid of the ablation lab: which models are trained, on what, for how long.

    backbone --images--> full, and every other architecture           family of "full"
    weights of full, same seed --pairs--> passing=shared, and other trainings   of "passing=shared"

As in the paper, a model learns from single images first, and from pairs of frames afterwards. Rows
of architecture start from a backbone that can classify. Rows of training start from the *same*
trained weights and take some hundred steps more, so they are cheap and differ in one thing alone.
results/lab/PLAN.md was written before the grid ran: rows, what judges them, and how many seeds.

Assumption: the paper trains on COCO and YouTube-VIS from ImageNet weights; here it is shapes from
    nothing, small frames and few steps. So a row shows what a component does at this scale, and no
    more. A row that is trained on shows what the last steps do, not what a whole training would.
Assumption: as in the paper, backbones start from classification; here 1,500 steps of 16 frames.
Assumption: a decoder that stands alone has no Q_G before its last queries, and so no losses of
    Q_G: with them all its losses would count twice.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minst.config import MobileInstConfig
from minst.data.shapes import ShapesConfig
from minst.training import TrainConfig, switches

__all__ = ["FULL", "SHIPPED", "SMOKE", "VARIANTS", "Budget", "Variant", "metrics_of"]

CUT = "cut"  # clips of medium speed, half of one and half of another
SPEEDS = {"slow": 0.4, "medium": 1.0, CUT: 1.0, "fast": 2.0}  # of shapes; training sees medium
# Shipped weights, and the clips on which all rules of association and T are compared.
SHIPPED = {"shapes-tiny": ("medium", CUT, "fast", "slow"), "shapes-tiny-images": ("medium",)}
SHIPPED_SEED = 17594  # of their clips, on which nothing was ever tuned
SHIPPED_FRAMES = 15  # of a clip for the shipped weights: T = 12 needs some after its key frame
# Within a lab: what variants of a backbone start from.
PRETRAINED = "backbones/{}/backbone.safetensors"


@dataclass(frozen=True)
class Variant:
    """One line of the grid."""

    name: str
    says: str  # what is changed, for a table
    changes: dict = field(default_factory=dict)  # fields of TrainConfig
    paper: str = ""  # what the paper claims of it, against the base
    judged_by: Literal["image AP", "video AP"] = "image AP"
    # +1: the paper says that this is worse; 0: it says nothing that could fail
    claim: Literal[-1, 0, 1] = 0
    decoder: str = ""  # an order of `minst.lab.decoders`; "" = global, then local
    base: str = "full"  # the row that it is compared with
    start: str = ""  # the row whose weights of the same seed it goes on from; "" = a backbone


def _grid() -> dict[str, Variant]:
    # No Q_G, no losses of it: see above.
    alone = {"changes": {"global_weight": 0.0}}
    worse = {"paper": "worse", "claim": 1}
    order = {**worse, "judged_by": "video AP"}
    trained = {"start": "full", "base": "passing=shared", "judged_by": "video AP"}
    without = {**trained, "paper": "0.8 to 1.3 AP worse", "claim": 1}
    rows = [
        Variant("full", "single images"),
        Variant("decoder=global", "global decoder alone", decoder="global", **alone, **order),
        Variant("decoder=local", "local decoder alone", decoder="local", **alone, **order),
        Variant("decoder=local-local", "two local decoders", decoder="local-local", **order),
        Variant("pooling=avg", "X_L by average pooling", {"switches": "pooling=avg"},
                "0.4 AP worse", claim=1),
        Variant("enhancer=off", "no semantic enhancers",
                {"switches": "semantic_enhancer=off"}, **worse),
        Variant("global_loss=off", "no losses of Q_G", {"global_weight": 0.0}),
        Variant("queries=10", "10 queries (full: 20)", {"switches": "num_queries=10"}),
        Variant("seaformer-tiny", "SeaFormer-T (full: TopFormer-T)",
                {"switches": "backbone=seaformer-tiny"}),
        Variant("mobilenetv2-0.6", "MobileNetV2, 0.6 wide",
                {"switches": "backbone=mobilenetv2-0.6"}, **worse),
        Variant("passing=shared", "pairs, query passing (paper)", start="full",
                base="passing=shared"),
        Variant("passing=kept", "passed queries keep frame t's instance",
                {"query_passing": "kept"}, **trained),
        Variant("passing=fresh", "passed queries matched anew at t + delta",
                {"query_passing": "fresh"}, **trained),
        Variant("passing=off", "pairs of frames, no query passing", {"query_passing": "off"},
                **without),
        Variant("images", "single images, as before", {"train_on": "images"}, **without),
        Variant("targets=8", "masks learn at 1/8 (else: 1/2)", {"target_stride": 8},
                **trained | {"judged_by": "image AP"}),
    ]  # fmt: skip
    return {row.name: row for row in rows}


VARIANTS = _grid()


@dataclass(frozen=True)
class Budget:
    """What every run may spend, and the clips it learns from and is judged by."""

    name: str
    pretraining: int  # steps of a backbone before
    iterations: int  # of a row of architecture, from there
    further: int  # of a row of training, from the weights of "full"
    pairs: int  # frames of a step / 2
    train_clips: int  # of each seed
    val_clips: int  # of each seed, for video AP
    val_frames: int  # of each seed, for image AP; each of a clip of its own
    shipped_clips: int  # for the shipped weights, of medium speed; half as many of all else
    frames: int  # of a clip
    save_every: int

    def clips(self, name: str) -> tuple:
        """What `write_shapes_dataset` takes for a set of clips: "train-0", "shipped-slow", …"""
        what, _, of = name.partition("-")
        if what == "shipped":
            config = ShapesConfig(frames=SHIPPED_FRAMES, speed=SPEEDS[of])
            count = self.shipped_clips // (1 if of in ("medium", CUT) else 2)
            return count, config, SHIPPED_SEED, "val"
        config = ShapesConfig(
            width=160, height=128, frames=self.frames, min_instances=2, max_instances=4,
            category=("fish", "butterfly", "starfish", "ladybird"),
        )  # fmt: skip
        return {
            "train": (self.train_clips, config, int(of), "train"),
            "val": (self.val_clips, config, int(of), "val"),
            # Others than those of video AP: another seed of the same split.
            "frames": (self.val_frames, config, SHIPPED_SEED + 1 + int(of), "val", True),
        }[what]


FULL = Budget(
    "full", pretraining=1500, iterations=900, further=350, pairs=6, train_clips=600,
    val_clips=400, val_frames=1600, shipped_clips=100, frames=12, save_every=100,
)  # fmt: skip
SMOKE = Budget(
    "smoke", pretraining=4, iterations=6, further=3, pairs=2, train_clips=6, val_clips=2,
    val_frames=4, shipped_clips=2, frames=6, save_every=3,
)  # fmt: skip


def metrics_of(lab: Path, name: str, of: int | str) -> Path:
    """Is there when a variant of a seed, or shipped weights on clips of a speed, are measured."""
    return lab / (f"shipped/{name}-{of}.json" if name in SHIPPED else f"{name}-{of}/metrics.json")


def backbone_of(variant: str) -> str:
    """The name of the backbone of a variant."""
    changed = switches(VARIANTS[variant].changes.get("switches", ""))
    return MobileInstConfig.preset("shapes-tiny", **changed).backbone


def backbone_config(backbone: str, budget: Budget, device: str) -> TrainConfig:
    """The pre-training of a backbone: it learns to classify, and nothing of masks or of video.

    One for all seeds and variants, so that none is favoured. Without it 1,800 steps of the whole
    model outline creatures well and cannot tell them apart (results/lab/HISTORY.md).
    """
    return TrainConfig(
        out=str(Path(PRETRAINED.format(backbone)).parent), data="data/train-0", train_on="tokens",
        switches=f"backbone={backbone}", iterations=budget.pretraining, pairs=8, height=128,
        width=128, seed=1000, lr=2e-3, cosine_share=0.6, warmup=min(200, budget.pretraining // 5),
        workers=0, save_every=budget.save_every, threads=1, device=device,
    )  # fmt: skip


def train_config(variant: str, seed: int, budget: Budget, device: str = "cpu") -> TrainConfig:
    """The training of one run; paths are relative to the lab."""
    row = VARIANTS[variant]
    steps = budget.further if row.start else budget.iterations
    weights = PRETRAINED.format(backbone_of(variant))
    changed = {"backbone_weights": weights, "train_on": "images"}
    if row.start:
        # A small rate that falls from the beginning: the start is a good one.
        changed = {"init": f"{row.start}-{seed}/weights", "lr": 5e-4, "cosine_share": 1.0}
    return TrainConfig(
        out=f"{variant}-{seed}", data=f"data/train-{seed}", seed=seed, iterations=steps,
        pairs=budget.pairs, height=128, width=128, image_share=0.0, warmup=min(200, steps // 5),
        workers=0, save_every=budget.save_every, threads=1, device=device,
        **changed | row.changes,
    )  # fmt: skip
