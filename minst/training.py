"""One plain training loop: image batches and frame pairs, query passing, EMA, exact resume.

    batch(iteration) -> frames (2P, 3, H, W), instances      every second half is t+delta of the first
      -> set losses on all frames  +  query-passing losses from the first half to the second
      -> AdamW (backbone apart), clipped gradients, warm-up and cosine decay, moving average of the weights

Everything random is a function of (seed, iteration) alone: batch, augmentation, drop path. So a checkpoint is weights,
average, optimiser and one number, and a run killed at any moment goes on to the same weights, bit for bit (on CPU,
with the same number of threads).

Deviation: the paper starts from a backbone that has learned to classify ImageNet. Here nothing is pre-trained, and
masks were learned long before classes (after 2,900 iterations: IoU 0.74, class accuracy 0.2). So a 1x1 classifier on
the tokens of X6 is trained along, saying which categories each cell holds, and is thrown away at the end.

Several processes share each batch: gradients are averaged, batch norms see each their own share (as on several GPUs
without synchronised batch norm). Two processes of one thread are about 1.4 times as fast as one process of two.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from minst.config import MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.data.transforms import augmentation, frame_instances, transform_clip
from minst.losses import LOSS_WEIGHTS, set_losses
from minst.matcher import Instances
from minst.model import MobileInst
from minst.temporal import query_passing_losses

__all__ = ["ClipBatches", "ShapesTraining", "TrainConfig", "learning_rate", "train", "training_losses"]


@dataclass(frozen=True)
class TrainConfig:
    """Every argument of `minst train`; the help text of an argument is its `help` here."""

    out: str = field(default="runs/shapes-tiny", metadata={"help": "folder of log, checkpoint and weights"})
    preset: str = field(default="shapes-tiny", metadata={"help": "model preset"})
    init: str = field(default="", metadata={"help": "weights to start from (a folder or a shipped name); '' = random"})
    iterations: int = field(default=15000, metadata={"help": "optimiser steps"})
    pairs: int = field(default=8, metadata={"help": "pairs of frames a batch (an image batch has twice as many frames)"})
    height: int = field(default=192, metadata={"help": "height of training frames, pixels"})
    width: int = field(default=256, metadata={"help": "width of training frames, pixels"})
    small_until: int = field(default=0, metadata={"help": "iterations at the start at some 3/4 of that size"})
    image_share: float = field(default=0.1, metadata={"help": "share of image batches, without query passing"})
    max_gap: int = field(default=5, metadata={"help": "largest distance delta of the frames of a pair"})
    passing_weight: float = field(default=1.0, metadata={"help": "weight of query passing; 0 trains on images only"})
    token_weight: float = field(default=1.0, metadata={"help": "weight of the token classifier on X6; 0 = without"})
    identity: str = field(default="kept", metadata={"help": "kept | fresh: targets of passed queries"})
    min_scale: float = field(default=0.6, metadata={"help": "smallest share of the area that a random crop keeps"})
    lr: float = field(default=1.5e-3, metadata={"help": "peak learning rate"})
    backbone_lr: float = field(default=1.0, metadata={"help": "factor on the learning rate of the backbone"})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, not on norms, biases and queries"})
    warmup: int = field(default=300, metadata={"help": "iterations of linear warm-up"})
    decay: float = field(default=0.5, metadata={"help": "share of the run, at its end, in which the rate decays"})
    final_lr: float = field(default=0.01, metadata={"help": "learning rate at the end, as a share of the peak"})
    clip: float = field(default=1.0, metadata={"help": "largest norm of the gradient"})
    ema: float = field(default=0.999, metadata={"help": "decay of the moving average of the weights"})
    seed: int = field(default=0, metadata={"help": "seed of weights, clips and augmentation"})
    threads: int = field(default=0, metadata={"help": "CPU threads of the network; 0 = torch's choice"})
    processes: int = field(default=1, metadata={"help": "processes that share each batch and average gradients"})
    workers: int = field(default=1, metadata={"help": "processes that make clips, each; 0 = the training one does"})
    log_every: int = field(default=50, metadata={"help": "iterations between lines of the log"})
    save_every: int = field(default=500, metadata={"help": "iterations between checkpoints"})
    device: str = field(default="cpu", metadata={"help": "cpu | cuda"})

    def __post_init__(self):
        for name in ("iterations", "pairs", "max_gap", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name} is {getattr(self, name)}; it must be at least 1")
        if self.processes < 1 or self.pairs % self.processes:
            raise ValueError(f"training: {self.processes} processes cannot share {self.pairs} pairs evenly")
        if self.identity not in ("kept", "fresh"):
            raise ValueError(f"training: identity is {self.identity!r}; choose 'kept' or 'fresh'")
        if min(self.height, self.width) < 64:
            raise ValueError(f"training: frames of {self.height} x {self.width}; at least 64 x 64")


class ClipBatches(Dataset):
    """Process `rank`'s share of batch i, made on the fly: the same whoever asks for it, and when.

    `clip(index)` returns an object with `labels` (M,), `len()` and `render(t)` with `.image` (H, W, 3) uint8 and
    `.masks` (M, H, W) bool. An item is (frames (2P, 3, H, W) uint8, instances (2P), is_pairs).
    """

    def __init__(self, config: TrainConfig, clip: Callable, rank: int = 0):
        self.config, self.clip, self.rank = config, clip, rank

    def __len__(self) -> int:
        return self.config.iterations

    def __getitem__(self, iteration: int) -> tuple[Tensor, list[Instances], bool]:
        c = self.config
        rng = np.random.default_rng([c.seed, iteration, self.rank])
        torch.manual_seed(int(rng.integers(2**62)))  # what the augmentation draws from
        share = c.pairs // c.processes
        is_pairs = bool(c.passing_weight) and rng.random() >= c.image_share
        # three quarters of the size, down to a multiple of 64: more would be padding
        size = [n * 3 // 4 // 64 * 64 if iteration < c.small_until and n >= 128 else n for n in (c.height, c.width)]
        transform = augmentation(tuple(size), c.min_scale)
        count, frames_each = (share, 2) if is_pairs else (2 * share, 1)
        first = 2 * (iteration * c.pairs + self.rank * share)  # no clip is ever seen twice
        samples = [self.sample(first + i, frames_each, rng, transform) for i in range(count)]
        # first all frames t, then all frames t+delta
        return (
            torch.stack([frames[k] for k in range(frames_each) for frames, _ in samples]),
            [instances[k] for k in range(frames_each) for _, instances in samples],
            is_pairs,
        )

    def sample(self, index: int, frames_each: int, rng: np.random.Generator, transform) -> tuple[Tensor, list[Instances]]:
        """One or two frames of clip `index`, augmented alike."""
        clip = self.clip(index)
        gap = int(rng.integers(1, min(self.config.max_gap, len(clip) - 1) + 1)) if frames_each == 2 else 0
        t = int(rng.integers(len(clip) - gap))
        times = [t, t + gap][:frames_each]
        if rng.random() < 0.5:
            times.reverse()
        rendered = [clip.render(time) for time in times]
        frames = torch.stack([torch.from_numpy(r.image).permute(2, 0, 1) for r in rendered])
        masks = torch.stack([torch.from_numpy(r.masks) for r in rendered])
        frames, masks = transform_clip(transform, frames, masks)
        labels = torch.as_tensor(clip.labels, dtype=torch.long)
        return frames, [frame_instances(m, labels) for m in masks]


class ShapesTraining:
    """Clip number `index` of the training split (a class, so that worker processes can receive it)."""

    def __init__(self, seed: int, config: ShapesConfig | None = None):
        self.seed, self.config = seed, config or ShapesConfig()

    def __call__(self, index: int):
        return shapes_clip("train", index, self.config, self.seed)


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """The share of the peak: linear warm-up, then constant, then a cosine down to `final_lr` in the last `decay`.

    While it is constant, a run does not depend on where it will end: `iterations` may still be changed.
    """
    warm = min(1.0, (iteration + 1) / max(1, config.warmup))
    start = (1 - config.decay) * config.iterations
    done = max(0.0, iteration - start) / max(1.0, config.iterations - start)
    return warm * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def training_losses(
    model: MobileInst,
    frames: Tensor,
    instances: list[Instances],
    is_pairs: bool,
    config: TrainConfig,
    token_classifier: nn.Module | None = None,
) -> dict[str, Tensor]:
    """All losses of one batch, unweighted, by name; those of query passing as "pass_dice" and "pass_pixel"."""
    encoded = model.encode(frames)
    out = model.decode(encoded)
    count = _instances_per_process(instances)
    losses, matches = set_losses(out.class_logits, out.objectness, out.mask_logits, instances, count)
    if is_pairs:
        half = len(frames) // 2
        now = type(out)(*(x[:half] for x in out))
        later = encoded._replace(
            x6=encoded.x6[half:],
            mask_features=encoded.mask_features[half:],
            token_padding=None if encoded.token_padding is None else encoded.token_padding[half:],
        )
        passed = query_passing_losses(
            model, now, later, matches[:half], instances[:half], instances[half:], out.class_logits[half:], config.identity
        )
        losses.update({f"pass_{name}": value for name, value in passed.items()})
    if token_classifier is not None:
        losses["token"] = token_loss(token_classifier(encoded.x6), instances)
    return losses


def token_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Which categories does the cell of a token hold? BCE, summed over classes, mean over tokens.

    logits (B, K, h, w) of X6. Target of a class: 1 when its instances cover half of the cell, less in proportion.
    """
    targets = torch.zeros_like(logits, dtype=torch.float32)
    for target, (labels, masks, _) in zip(targets, instances):
        cover = F.adaptive_avg_pool2d(masks.float()[None], logits.shape[-2:])[0] if len(labels) else masks  # (m, h, w)
        for label, cells in zip(labels.tolist(), cover):
            target[label] = torch.maximum(target[label], (2 * cells).clamp(max=1))
    return F.binary_cross_entropy_with_logits(logits.float(), targets) * logits.shape[1]


def _instances_per_process(instances: list[Instances]) -> float:
    """The number of ground truths, averaged over processes (so that averaged gradients are those of one batch)."""
    count = torch.tensor(float(sum(len(target.labels) for target in instances)))
    if dist.is_initialized():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return max(1.0, float(count))


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """2 L_cls + 2 L_mask + L_obj, and the mask losses of query passing with the same weights."""
    weights = {**LOSS_WEIGHTS, **{f"pass_{k}": config.passing_weight * LOSS_WEIGHTS[k] for k in ("dice", "pixel")}}
    weights["token"] = config.token_weight
    return sum(weights[name] * value for name, value in losses.items())


def train(config: TrainConfig, resume: bool = True, clip: Callable | None = None) -> Path:
    """Train, and write into `config.out`: log.jsonl, checkpoint.pt, and the averaged weights in weights/.

    With `resume` a run that was interrupted goes on from its last checkpoint; without, it starts anew.
    Raises FloatingPointError when a loss is not finite (iteration, which losses), ValueError when the folder holds
    a run of another config. Returns the folder of the weights.
    """
    if config.processes == 1:
        _run(0, config, resume, clip, None)
    else:
        with tempfile.TemporaryDirectory() as folder:  # processes meet in a file: no port, no network
            args = (config, resume, clip, f"file://{folder}/meeting")
            torch.multiprocessing.spawn(_run, args, nprocs=config.processes)
    return Path(config.out) / "weights"


def _run(rank: int, config: TrainConfig, resume: bool, clip: Callable | None, meeting: str | None) -> None:
    """The loop of one process; rank 0 writes."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    if meeting:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=config.processes)
    state = _start(config)
    if not resume and rank == 0:
        (out / "checkpoint.pt").unlink(missing_ok=True)  # or a new run, killed early, would go on from the old one
    first = _resume(state, out, config) if resume else 0
    if meeting:
        dist.barrier()  # all have read what rank 0 is about to overwrite
    loader = DataLoader(
        ClipBatches(config, clip or ShapesTraining(config.seed), rank),
        batch_size=None,
        sampler=range(first, config.iterations),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    log = _Log(out, first, config) if rank == 0 else None
    for iteration, batch in enumerate(loader, start=first):
        losses = _step(state, batch, iteration, config)
        if log:
            log.line(iteration + 1, losses)
        if (iteration + 1) % config.save_every == 0 or iteration + 1 == config.iterations:
            state.same_buffers()
            if rank == 0:
                _save(state, out, iteration + 1, config)
    if meeting:
        dist.destroy_process_group()


class _Log:
    """log.jsonl, one line every `log_every` iterations, and the progress bar."""

    def __init__(self, out: Path, first: int, config: TrainConfig):
        (out / "train.tmp").write_text(json.dumps(asdict(config), indent=1) + "\n")
        os.replace(out / "train.tmp", out / "train.json")  # a kill in between must not cost the run
        self.file = open(out / "log.jsonl", "a" if first else "w")
        self.first, self.config, self.started = first, config, time.perf_counter()
        self.progress = tqdm(total=config.iterations, initial=first, desc="training", mininterval=5.0)

    def line(self, iteration: int, losses: dict[str, Tensor]) -> None:
        self.progress.update()
        if iteration % self.config.log_every and iteration != self.config.iterations:
            return
        line = {"iteration": iteration, **{k: round(float(v), 5) for k, v in losses.items()}}
        line["seconds_per_iteration"] = round((time.perf_counter() - self.started) / (iteration - self.first), 4)
        print(json.dumps(line), file=self.file, flush=True)
        self.progress.set_postfix(loss=f"{line['loss']:.3f}")


class _State:
    """What a run carries from iteration to iteration."""

    def __init__(self, model: MobileInst, config: TrainConfig):
        self.model = model.train()
        self.token_classifier = None
        if config.token_weight:
            self.token_classifier = nn.Conv2d(model.backbone.out_channels[-1], model.config.num_classes, 1).to(config.device)
            nn.init.zeros_(self.token_classifier.weight)  # X6 may be large; start from "rarely anything here"
            nn.init.constant_(self.token_classifier.bias, -3.0)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
        learned = nn.ModuleDict({"model": model, **({"tokens": self.token_classifier} if self.token_classifier else {})})
        self.parameters = list(learned.parameters())
        self.optimizer = torch.optim.AdamW(_parameter_groups(learned, config), lr=config.lr, betas=(0.9, 0.99), fused=True)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def average_gradients(self) -> None:
        """The mean of all processes' gradients, in one message; nothing to do for one process."""
        if not dist.is_initialized():
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(mean.view(gradient.shape))

    def same_buffers(self) -> None:
        """Give all processes the batch-norm statistics of rank 0, which are those that a checkpoint keeps."""
        if dist.is_initialized():
            for module in (self.model, self.average):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict:
        parts = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        return {**parts, "tokens": self.token_classifier} if self.token_classifier else parts


def _start(config: TrainConfig) -> _State:
    torch.manual_seed(config.seed)
    named = {"class_names": CATEGORIES, "num_classes": len(CATEGORIES)}
    model = MobileInst(MobileInstConfig.preset(config.preset, **named))
    if config.init:
        model.load_state_dict(MobileInst.from_pretrained(config.init).state_dict())
    # channels_last makes CPU training about 1.7 times as fast
    return _State(model.to(config.device, memory_format=torch.channels_last), config)


def _parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """Backbone and the rest, each with and without weight decay (none on vectors: norms, biases; nor on queries)."""
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.endswith("queries")
        groups.setdefault((".backbone." in name, plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * (config.backbone_lr if backbone else 1.0),
            "weight_decay": 0.0 if plain else config.weight_decay,
        }
        for (backbone, plain), parameters in groups.items()
    ]


def _step(state: _State, batch: tuple, iteration: int, config: TrainConfig) -> dict[str, Tensor]:
    frames, instances, is_pairs = batch
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # drop path: a function of the iteration, so resume is exact
    frames = frames.to(config.device).float().div(255).contiguous(memory_format=torch.channels_last)
    instances = [Instances(*(x.to(config.device) for x in target)) for target in instances]
    try:
        losses = training_losses(state.model, frames, instances, is_pairs, config, state.token_classifier)
    except FloatingPointError as error:  # matching meets a diverged model first
        raise _not_finite(iteration, str(error)) from None
    loss = weighted_sum(losses, config)
    if not torch.isfinite(loss):
        raise _not_finite(iteration, ", ".join(name for name, value in losses.items() if not torch.isfinite(value)))
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.average_gradients()
    if not torch.isfinite(nn.utils.clip_grad_norm_(state.parameters, config.clip)):
        raise _not_finite(iteration, "gradient")  # before it reaches the weights and, through them, a checkpoint
    for group, base in zip(state.optimizer.param_groups, state.base_rates):
        group["lr"] = base * learning_rate(iteration, config)
    state.optimizer.step()
    state.average.update_parameters(state.model)
    return {"loss": loss.detach(), **{k: v.detach() for k, v in losses.items()}}


def _not_finite(iteration: int, what: str) -> FloatingPointError:
    return FloatingPointError(
        f"training: loss is not finite at iteration {iteration + 1} ({what}); "
        "the last checkpoint is good: lower --lr or --clip and resume"
    )


def _save(state: _State, out: Path, iteration: int, config: TrainConfig) -> None:
    """Averaged weights and checkpoint, which is moved into place, so that a kill never leaves half of one."""
    torch.save({"iteration": iteration, **state.state_dict()}, out / "checkpoint.tmp")
    state.average.module.save_pretrained(out / "weights")
    # last: a run killed before this line writes its weights again, one killed after it has them
    os.replace(out / "checkpoint.tmp", out / "checkpoint.pt")


# what may change between the parts of one run without changing its weights
_FREE_FIELDS = {"out", "workers", "log_every", "save_every", "threads"}


def _resume(state: _State, out: Path, config: TrainConfig) -> int:
    """Load the last checkpoint, cut the log back to it, return the iteration to go on with (0 = nothing there)."""
    if not (out / "checkpoint.pt").is_file():
        return 0
    before = json.loads((out / "train.json").read_text())
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True, map_location=config.device)
    free = _FREE_FIELDS | _free_length(before, config, checkpoint["iteration"])
    changed = [k for k, v in asdict(config).items() if k not in free and before.get(k) != v]
    if changed:
        raise ValueError(
            f"{out} holds a run with another {', '.join(changed)}; choose another --out, or --restart to overwrite it"
        )
    state.load_state_dict(checkpoint)
    lines = (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["iteration"] <= checkpoint["iteration"]]
    (out / "log.jsonl").write_text("".join(line + "\n" for line in kept))
    return checkpoint["iteration"]


def _free_length(before: dict, config: TrainConfig, iteration: int) -> set[str]:
    """`iterations` may change as long as neither the old nor the new schedule has begun to decay."""
    begin = min((1 - run["decay"]) * run["iterations"] for run in (before, asdict(config)))
    return {"iterations", "decay"} if iteration <= begin else set()
