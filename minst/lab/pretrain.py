"""Backbones that have learned to classify: what ImageNet is to the paper's model.

    frame -> backbone -> X6 --1x1 convolution--> which categories does the cell of a token hold?

One for each architecture, on the lab's own training clips, shared by all of its variants and seeds.
Nothing of it knows of masks, instances or video, so that no variant is favoured. Without it 1,800
steps of the whole model outline creatures well and cannot tell them apart (AP 5,
results/lab/PILOT.md), and no row would differ from another.

Assumption: as in the paper, the backbone starts from classification; 2,500 steps of 16 frames are
    enough here.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minst import backbones
from minst.config import MobileInstConfig
from minst.data.batches import Batch, ClipBatches, FolderClips
from minst.data.files import replacing
from minst.data.ytvis import YouTubeVIS
from minst.lab.grid import PRETRAINED, Budget
from minst.matcher import Instances
from minst.training import TrainConfig, learning_rate, token_loss

__all__ = ["pretrain"]


class TokenClassifier(nn.Module):
    """A backbone, and which of C categories each of its tokens holds."""

    def __init__(self, backbone: str, num_classes: int):
        super().__init__()
        config = MobileInstConfig.preset("shapes-tiny")
        self.backbone = backbones.build(backbone, token_stride=config.token_stride)
        self.classes = nn.Conv2d(self.backbone.out_channels[-1], num_classes, 1)
        nn.init.zeros_(self.classes.weight)
        nn.init.constant_(self.classes.bias, -3.0)  # rarely anything here
        for name in ("pixel_mean", "pixel_std"):
            of_channels = torch.tensor(getattr(config, name)).view(1, 3, 1, 1)
            self.register_buffer(name, of_channels, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in 0..1 -> logits at every token of X6, (B, C, h, w)."""
        return self.classes(self.backbone((frames - self.pixel_mean) / self.pixel_std).x6)


def pretrain(backbone: str, lab: Path, budget: Budget, device: str = "cpu") -> Path:
    """Train on `lab`/data/train-0; returns the weights, for `minst train --backbone-weights`.

    Writes log.jsonl and, at the end, backbone.safetensors into `lab`/backbones/<name>; goes on from
    its last checkpoint.
    """
    out = lab / PRETRAINED.format(backbone)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        iterations=budget.pretraining, pairs=8, height=128, width=128, train_on="images", seed=1000,
        lr=2e-3, cosine_share=0.6, warmup=min(200, budget.pretraining // 5), ema=0.998,
    )  # fmt: skip
    clips = FolderClips(YouTubeVIS(lab / "data" / "train-0"), config.seed)
    batches = ClipBatches(config, clips)
    torch.manual_seed(config.seed)
    model = TokenClassifier(backbone, len(clips.categories)).train()
    model.to(device, memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    decay = config.weight_decay
    optimizer = AdamW(model.parameters(), config.lr, (0.9, 0.99), weight_decay=decay, fused=True)
    parts = {"model": model, "average": average, "optimizer": optimizer}
    checkpoint, log = out.parent / "checkpoint.pt", []  # a line of it every 50 steps
    first = 0
    if checkpoint.is_file():
        held = torch.load(checkpoint, weights_only=True, map_location=device)
        first, log = held["iteration"], held.get("log", [])  # an older minst kept none
        for name, part in parts.items():
            part.load_state_dict(held[name])
    for done in range(first + 1, config.iterations + 1):
        loss = _step(model, optimizer, batches[done - 1], done - 1, config)
        average.update_parameters(model)
        if done % min(50, budget.save_every) == 0:
            log.append(json.dumps({"iteration": done, "loss": round(loss, 5)}) + "\n")
            (out.parent / "log.jsonl").write_text("".join(log))
        if done % budget.save_every == 0:
            states = {name: part.state_dict() for name, part in parts.items()}
            with replacing(checkpoint) as beside:
                torch.save({"iteration": done, "log": log, **states}, beside)
    state = average.module.backbone.state_dict()
    with replacing(out) as beside:
        save_file({key: value.contiguous().cpu() for key, value in state.items()}, beside)
    return out


def _step(
    model: nn.Module, optimizer: AdamW, batch: Batch, iteration: int, config: TrainConfig
) -> float:
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # of drop path: resume is exact
    for group in optimizer.param_groups:
        group["lr"] = config.lr * learning_rate(iteration, config)
    device = model.pixel_mean.device
    frames = batch.frames.to(device).float().div(255).contiguous(memory_format=torch.channels_last)
    instances = [Instances(*(x.to(device) for x in target)) for target in batch.instances]
    loss = token_loss(model(frames), instances)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    return float(loss.detach())
