"""Backbones that have learned to classify: what ImageNet is to the paper's model.

    frame -> backbone -> X6 --1x1 convolution--> which categories does the cell of a token hold?

One for each architecture, on the lab's own training clips, shared by all of its variants and seeds.
Nothing of it knows of masks, instances or video, so that no variant is favoured. Without it 1,800
steps of the whole model outline creatures well and cannot tell them apart (AP 5,
results/lab-older/PILOT.md), and no row would differ from another.

Assumption: as in the paper, the backbone starts from classification; 1,500 steps of 16 frames are
    enough here.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from minst.data.batches import Batch, ClipBatches, FolderClips
from minst.data.files import replacing
from minst.data.ytvis import YouTubeVIS
from minst.engine import Engine
from minst.lab.grid import PRETRAINED, Budget
from minst.training import Learner, TrainConfig, start, step, token_loss

__all__ = ["pretrain"]


def pretrain(backbone: str, lab: Path, budget: Budget, device: str = "cpu") -> Path:
    """Train on `lab`/data/train-0; returns the weights, for `minst train --backbone-weights`.

    Writes log.jsonl and, at the end, backbone.safetensors into `lab`/backbones/<name>; goes on from
    its last checkpoint.
    """
    out = lab / PRETRAINED.format(backbone)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        switches=f"backbone={backbone}", iterations=budget.pretraining, pairs=8, height=128,
        width=128, train_on="images", seed=1000, lr=2e-3, cosine_share=0.6,
        warmup=min(200, budget.pretraining // 5), ema=0.998,
    )  # fmt: skip
    clips = FolderClips(YouTubeVIS(lab / "data" / "train-0"), config.seed)
    batches = ClipBatches(config, clips)
    state = start(config, Engine(device), clips.categories)
    # All is as in any training, but that the token classifier's loss is the only one.
    state.wrapped = partial(_tokens_alone, state.learner)
    checkpoint, first, log = out.parent / "checkpoint.pt", 0, []  # a line of it every 50 steps
    if checkpoint.is_file():
        held = torch.load(checkpoint, weights_only=True, map_location=device)
        first, log = held["iteration"], held["log"]
        for name, part in state.parts.items():
            part.load_state_dict(held[name])
    for done in range(first + 1, config.iterations + 1):
        loss = float(step(state, [batches[done - 1]], done - 1, config)["loss"])
        if done % min(50, budget.save_every) == 0:
            log.append(json.dumps({"iteration": done, "loss": round(loss, 5)}) + "\n")
            (out.parent / "log.jsonl").write_text("".join(log))
        if done % budget.save_every == 0:
            parts = {name: part.state_dict() for name, part in state.parts.items()}
            with replacing(checkpoint) as beside:
                torch.save({"iteration": done, "log": log, **parts}, beside)
    weights = state.average.module.backbone.state_dict()
    with replacing(out) as beside:
        save_file({key: value.contiguous().cpu() for key, value in weights.items()}, beside)
    return out


def _tokens_alone(learner: Learner, batch: Batch, counts: Sequence[float]) -> dict[str, Tensor]:
    """Of `Learner.forward` the loss of the token classifier."""
    model = learner.model
    x6 = model.backbone((batch.frames - model.pixel_mean) / model.pixel_std).x6
    return {"token": token_loss(learner.tokens(x6), batch.instances)}
