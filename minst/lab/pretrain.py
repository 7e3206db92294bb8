"""Backbones that have learned to classify: what ImageNet is to the paper's model, on the lab's own training clips.

    frame -> backbone -> X6 --1x1 convolution--> which categories does the cell of each token hold?   (token_loss)

One for each architecture, shared by all of its variants and seeds. Nothing of it knows of masks, instances or video, so
that no variant is favoured. Without it 1,800 steps of the whole model outline creatures well and cannot tell them apart
(AP 5, results/lab/PILOT.md), and no row would differ from another.

Assumption: as in the paper, the backbone starts from classification; 2,500 steps of 16 frames are enough here.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minst import backbones
from minst.config import MobileInstConfig
from minst.data.batches import Batch, ClipBatches, FolderClips
from minst.data.files import replacing
from minst.data.ytvis import YouTubeVIS
from minst.lab.grid import PRETRAINED, Budget
from minst.training import TrainConfig, learning_rate, token_loss

__all__ = ["TokenClassifier", "pretrain"]


class TokenClassifier(nn.Module):
    """A backbone and what it says of its tokens: frames (B, 3, H, W) in [0, 1] -> logits (B, K, h, w) of X6."""

    def __init__(self, backbone: str, num_classes: int):
        super().__init__()
        config = MobileInstConfig.preset("shapes-tiny")
        self.backbone = backbones.build(backbone, token_stride=config.token_stride)
        self.classes = nn.Conv2d(self.backbone.out_channels[-1], num_classes, 1)
        nn.init.zeros_(self.classes.weight)
        nn.init.constant_(self.classes.bias, -3.0)  # rarely anything here
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, torch.tensor(getattr(config, name)).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in 0..1 -> logits of the kinds at every token of X6, (B, K, h, w)."""
        return self.classes(self.backbone((frames - self.pixel_mean) / self.pixel_std).x6)


def pretrain(backbone: str, lab: Path, budget: Budget, device: str = "cpu") -> Path:
    """Train on `lab`/data/train; writes log.jsonl and, at the end, backbone.safetensors into `lab`/backbones/<name>.

    Goes on from its last checkpoint. Returns the file of weights, for `minst train --backbone-weights`.
    """
    out = lab / PRETRAINED.format(backbone)
    out.parent.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(
        iterations=budget.pretraining, pairs=8, height=128, width=128, train_on="images", seed=1000,
        lr=2e-3, cosine_share=0.6, warmup=min(200, budget.pretraining // 5), ema=0.998,
    )  # fmt: skip
    clips = FolderClips(YouTubeVIS(lab / "data" / "train"), config.seed)
    batches = ClipBatches(config, clips)
    torch.manual_seed(config.seed)
    model = TokenClassifier(backbone, len(clips.categories)).to(device, memory_format=torch.channels_last).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    parts = {"model": model, "average": average, "optimizer": optimizer}
    first = _resume(out.parent, parts, device)
    with open(out.parent / "log.jsonl", "a" if first else "w") as log:
        for iteration in range(first, config.iterations):
            loss = _step(model, optimizer, batches[iteration], iteration, config, device)
            average.update_parameters(model)
            if (iteration + 1) % min(50, budget.save_every) == 0:
                print(json.dumps({"iteration": iteration + 1, "loss": round(loss, 5)}), file=log, flush=True)
            if (iteration + 1) % budget.save_every == 0:
                with replacing(out.parent / "checkpoint.pt") as beside:
                    torch.save({"iteration": iteration + 1, **{k: p.state_dict() for k, p in parts.items()}}, beside)
    state = {key: value.contiguous().cpu() for key, value in average.module.backbone.state_dict().items()}
    with replacing(out) as beside:
        save_file(state, str(beside))
    return out


def _step(model: nn.Module, optimizer, batch: Batch, iteration: int, config: TrainConfig, device: str) -> float:
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # of drop path: resume is exact
    frames = batch.frames.to(device).float().div(255).contiguous(memory_format=torch.channels_last)
    instances = [type(target)(*(x.to(device) for x in target)) for target in batch.instances]
    loss = token_loss(model(frames), instances)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = config.lr * learning_rate(iteration, config)
    optimizer.step()
    return float(loss.detach())


def _resume(folder: Path, parts: dict, device: str) -> int:
    """Load the last checkpoint into `parts` and cut the log back to it; the iteration to go on with."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return 0
    checkpoint = torch.load(path, weights_only=True, map_location=device)
    for name, part in parts.items():
        part.load_state_dict(checkpoint[name])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if line.endswith("}")]
    kept = [json.dumps(line) + "\n" for line in lines if line["iteration"] <= checkpoint["iteration"]]
    (folder / "log.tmp").write_text("".join(kept))
    os.replace(folder / "log.tmp", folder / "log.jsonl")
    return checkpoint["iteration"]
