"""Trains a tiny Mask2Former of `transformers` on shapes: a model that is not ours, for lesson 11 and tests.

    OMP_NUM_THREADS=1 python data_samples/train_foreign.py --out runs/mask2former-tiny

A ResNet of 13 convolutions, its own pixel decoder, three layers of its own decoder, 20 queries, and its own losses
(cross entropy with "no object", mask, dice, after every layer). Frames are single ones, drawn on the fly, so that no
temporal training is in it. As in `minst.training` a 1x1 classifier on the backbone's last features says which
categories a cell holds, and is thrown away at the end: classes are learned long after masks otherwise.

A run that was killed goes on from its last checkpoint, and while the rate is constant --iterations may be changed.
A step takes half a second on a free core, so that all take half an hour.
Writes into --out: train.json, log.jsonl, checkpoint.pt, and weights/ (fp16, with the image processor).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    ResNetConfig,
)

from minst.data.batches import ClipBatches, ShapesTraining
from minst.data.shapes import CATEGORIES
from minst.recipes import TrainConfig
from minst.training import learning_rate, token_loss

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOKEN_WEIGHT = 4.0  # the other losses are summed over four sets of predictions


def build() -> Mask2FormerForUniversalSegmentation:
    """The model with random weights: some 1.4 million parameters."""
    backbone = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 192],
        depths=[1, 1, 2, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_layers=1,
        encoder_feedforward_dim=192,
        decoder_layers=4,  # counts the prediction before the first layer as one
        dim_feedforward=192,
        num_attention_heads=4,
        num_queries=20,
        train_num_points=1024,
        id2label=dict(enumerate(CATEGORIES)),
        label2id={name: i for i, name in enumerate(CATEGORIES)},
    )
    return Mask2FormerForUniversalSegmentation(config)


def save(model: nn.Module, folder: Path) -> None:
    """Weights as fp16, config, image processor."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    # Crops of 128 x 192 show four fifths of a frame and more: so large is a creature in training.
    size = {"shortest_edge": 144, "longest_edge": 256}
    processor = Mask2FormerImageProcessor(size=size, size_divisor=32, image_mean=MEAN, image_std=STD)
    processor.save_pretrained(folder)


def parse() -> tuple[TrainConfig, Path]:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/mask2former-tiny"))
    parser.add_argument("--iterations", type=int, default=3200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    config = TrainConfig(
        out=said.out.name,
        iterations=said.iterations,
        small_until=said.iterations,  # crops of 128 x 192
        lr=said.lr,
        seed=said.seed,
        pairs=4,  # 8 frames a step
        train_on="images",
        jitter_probability=0.0,
        min_scale=0.8,
        warmup=200,
        cosine_share=0.14,
        ema=0.0,  # the last weights were better than their moving average
        token_weight=TOKEN_WEIGHT,
    )
    return config, said.out


def main() -> None:
    config, out = parse()
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    model = build().train()
    tokens = nn.Conv2d(model.config.backbone_config.hidden_sizes[-1], len(CATEGORIES), 1)
    nn.init.zeros_(tokens.weight)
    nn.init.constant_(tokens.bias, -3.0)
    learned = [*model.parameters(), *tokens.parameters()]
    groups = [  # no decay on norms and biases
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
    parts = {"model": model, "tokens": tokens, "optimizer": optimizer}
    out.mkdir(parents=True, exist_ok=True)
    file, log, first = out / "checkpoint.pt", out / "log.jsonl", 0
    if file.exists():
        found = torch.load(file, weights_only=True)
        first = found.pop("iteration")
        for name, part in parts.items():
            part.load_state_dict(found[name])
    lines = log.read_text().splitlines() if log.exists() else []
    kept = [line for line in lines if json.loads(line)["iteration"] <= first]
    log.write_text("".join(line + "\n" for line in kept))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    said = {"command": sys.argv, "commit": commit.stdout.strip(), "from_iteration": first}
    with open(out / "commands.jsonl", "a") as commands:
        commands.write(json.dumps(said) + "\n")
    (out / "train.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    batches, started, sums = ClipBatches(config, ShapesTraining(config.seed)), time.perf_counter(), {}
    for iteration in range(first, config.iterations):
        torch.manual_seed(1_000_003 * config.seed + iteration)  # what the loss draws its points from
        batch = batches[iteration]
        for group in optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(iteration, config)
        said = model(
            pixel_values=(batch.frames / 255 - mean) / std,
            mask_labels=[target.masks for target in batch.instances],
            class_labels=[target.labels for target in batch.instances],
        )
        token = token_loss(tokens(said.encoder_last_hidden_state), batch.instances)
        optimizer.zero_grad()
        (said.loss + TOKEN_WEIGHT * token).backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        losses = {"loss": said.loss.item(), "token": token.item()}
        sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
        done = iteration + 1
        if done % 50 == 0:
            seconds = (time.perf_counter() - started) / (done - first)
            means = {name: round(value / 50, 4) for name, value in sums.items()}
            with open(log, "a") as lines:
                lines.write(json.dumps({"iteration": done, **means, "seconds": round(seconds, 3)}) + "\n")
            sums = {}
        if done % 250 == 0 or done == config.iterations:
            found = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"iteration": done, **found}, out / "checkpoint.tmp")
            os.replace(out / "checkpoint.tmp", file)
    save(model, out / "weights")


if __name__ == "__main__":
    main()
