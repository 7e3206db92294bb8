"""One plain training loop: image batches and frame pairs, exact resume, one process or many.

    batch(iteration) -> frames (2P, 3, H, W), instances      the second half is t+delta of the first
      -> set losses on all frames  +  query-passing losses from the first half to the second
      -> AdamW (backbone apart), clipped gradients, warm-up and cosine decay
      -> moving average of the weights, which is what is measured and shipped

Everything random is a function of (seed, iteration) alone: batch, augmentation, drop path. So a
checkpoint is weights, average, optimiser and one number, and a run killed at any moment goes on to
the same weights, bit for bit (on CPU, with the same number of threads and processes).

`pairs` is the whole batch of one step. Processes share it, and each may compute its share in
several parts (`accumulate`): losses are divided by the counts of the whole batch, so that the step
is the same however it is cut, but for batch norms, which see each their own part (all processes' on
GPUs: synchronised batch norm), and for drop path.

Deviation: the paper starts from a backbone that has learned to classify ImageNet. On shapes nothing
is pre-trained, and masks were learned long before classes (after 2,900 iterations: IoU 0.74, class
accuracy 0.2). So a 1x1 classifier on the tokens of X6 is trained along, saying which categories
each cell holds, and is thrown away at the end.

Lesson: notebooks/06_temporal_training.ipynb
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from torchvision.ops import StochasticDepth
from tqdm.auto import tqdm

from minst.config import MobileInstConfig
from minst.data.batches import Batch, ClipBatches, FolderClips, ShapesTraining
from minst.data.coco import open_folder
from minst.data.shapes import CATEGORIES
from minst.engine import Engine, spawn
from minst.losses import LOSS_WEIGHTS, set_losses
from minst.matcher import Instances, Match, hungarian_match
from minst.model import Frame, MobileInst
from minst.recipes import TrainConfig, switches
from minst.temporal import kept_pairs, query_passing_losses
from minst.weights import load_backbone_weights

__all__ = [
    "ClipBatches",
    "ShapesTraining",
    "TrainConfig",
    "learning_rate",
    "train",
    "training_losses",
]


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """The share of the peak: linear warm-up, then constant, then a cosine down to `final_lr` in the
    last `cosine_share`.

    While it is constant, a run does not depend on where it will end: `iterations` may still be
    changed.
    """
    warm = min(1.0, (iteration + 1) / max(1, config.warmup))
    start = (1 - config.cosine_share) * config.iterations
    done = max(0.0, iteration - start) / max(1.0, config.iterations - start)
    return warm * (
        config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    )


def training_losses(
    model: MobileInst,
    batch: Batch,
    config: TrainConfig,
    token_classifier: nn.Module | None = None,
    counts: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """All losses of one batch (frames as floats in [0, 1]), unweighted, by name: those of
    `set_losses`, the same of Q_G ("global_cls", …), those of query passing ("pass_dice",
    "pass_pixel") and "token".

    counts: what losses are divided by, (instances, instances that a passed query is held to); None
    = those of `batch`.
    """
    frames, instances, is_pairs, padding = batch
    seen, passed_on = counts or [max(1.0, n) for n in instance_counts([batch], config)]
    frame = model.encode(frames, padding)
    out = model.decode(frame)
    losses, matches = set_losses(out.class_logits, out.objectness, out.mask_logits, instances, seen)
    if config.global_weight:
        losses |= _prefixed(
            "global", global_losses(model, frame, out.global_queries, instances, matches, seen)
        )
    if is_pairs and config.query_passing != "off":
        half = len(frames) // 2  # the first half are the frames t, the second the frames t+delta
        later = frame.select(slice(half, None))
        passed = model.pass_queries(out.global_queries[:half], later)  # (P, N, h, w)
        held = _passed_matches(config, out.class_logits[half:], passed, matches, instances)
        losses |= _prefixed("pass", query_passing_losses(passed, held, instances[half:], passed_on))
    if token_classifier is not None:
        losses["token"] = token_loss(token_classifier(frame.x6), instances)
    return losses


def _prefixed(name: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}_{key}": value for key, value in losses.items()}


def global_losses(
    model: MobileInst,
    frame: Frame,
    global_queries: Tensor,
    instances: Sequence[Instances],
    matches: Sequence[Match],
    num_instances: float,
) -> dict[str, Tensor]:
    """The same losses of what the heads say of Q_G already, which is to answer for the same
    instances."""
    said = model.instance_decoder.predict(global_queries)
    return set_losses(
        said.class_logits,
        said.objectness,
        frame.masks(said.kernels),
        instances,
        num_instances,
        matches,
    )[0]


def _passed_matches(
    config: TrainConfig, class_logits: Tensor, passed: Tensor, matches: list, instances: list
) -> list:
    """Which instance of frame t+delta each passed query is held to, pair by pair (see
    minst/temporal.py)."""
    half = len(passed)
    if config.query_passing == "shared":
        return matches[half:]
    if config.query_passing == "fresh":
        return hungarian_match(class_logits, passed, instances[half:])
    return [
        kept_pairs(*of)
        for of in zip(matches[:half], instances[:half], instances[half:], strict=True)
    ]


def instance_counts(parts: Sequence[Batch], config: TrainConfig) -> tuple[float, float]:
    """Instances in all frames of a batch cut into `parts`, and those that a passed query is held
    to."""
    seen = sum(len(target.labels) for part in parts for target in part.instances)
    passed_on = 0
    for part in parts:
        half = len(part.instances) // 2 if part.is_pairs else 0
        for now, later in zip(part.instances[:half], part.instances[half:]):
            # "kept" leaves out what frame t does not show
            kept = (
                torch.isin(later.ids, now.ids)
                if config.query_passing == "kept"
                else torch.ones_like(later.ids)
            )
            passed_on += int(kept.sum())
    return float(seen), float(passed_on)


def token_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Which categories does the cell of a token hold? BCE, summed over classes, mean over tokens.

    logits (B, K, h, w) of X6. Target of a class: 1 when its instances cover half of the cell, less
    in proportion.
    """
    targets = torch.zeros_like(logits, dtype=torch.float32)
    for target, (labels, masks, _) in zip(targets, instances):
        if not len(labels):  # pooling refuses an empty batch
            continue
        cover = F.adaptive_avg_pool2d(masks.float()[None], logits.shape[-2:])[0]  # (m, h, w)
        for label, cells in zip(labels.tolist(), cover):
            target[label] = torch.maximum(target[label], (2 * cells).clamp(max=1))
    return F.binary_cross_entropy_with_logits(logits.float(), targets) * logits.shape[1]


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """2 L_cls + 2 L_mask + L_obj, and the mask losses of query passing and of Q_G with the same
    weights."""
    weights = {**LOSS_WEIGHTS, "token": config.token_weight}
    for name, weight in LOSS_WEIGHTS.items():
        weights[f"pass_{name}"] = config.passing_weight * weight
        weights[f"global_{name}"] = config.global_weight * weight
    return sum(weights[name] * value for name, value in losses.items())


def train(
    config: TrainConfig,
    resume: bool = True,
    clips: Callable | None = None,
    model: MobileInst | None = None,
) -> Path:
    """Train, and write into `config.out`: log.jsonl, checkpoint.pt, averaged weights in weights/.

    With `resume` a run that was interrupted goes on from its last checkpoint; without, it starts
    anew. clips, model: in the place of those that the config names; what `ClipBatches` takes, and a
    model to be changed. Raises FloatingPointError when a loss is not finite (iteration, which
    losses), ValueError when the folder holds a run of another config, what the readers raise for
    `config.data`. Returns the folder of the weights.
    """
    if config.processes == 1:
        _run(config, resume, clips, model)
    else:
        spawn(_run, config.processes, config, resume, clips, model)
    return Path(config.out) / "weights"


def _run(
    config: TrainConfig, resume: bool, clips: Callable | None, model: MobileInst | None
) -> None:
    """The loop of one process; rank 0 writes."""
    engine, out = Engine(config.device, config.precision), Path(config.out)
    clips = clips or _clips(config)
    batches = ClipBatches(config, clips, engine.rank, engine.processes)
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    state = start(config, engine, getattr(clips, "categories", CATEGORIES), model)
    if not resume and not engine.rank:
        # Or a new run, killed early, would go on from the old one.
        (out / "checkpoint.pt").unlink(missing_ok=True)
    first = _resume(state, out, config) if resume else 0
    engine.wait()  # all have read what rank 0 is about to overwrite
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first * config.accumulate, len(batches)),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=engine.device.type == "cuda",
    )
    parts = iter(loader)
    log = _Log(out, first, config, engine)
    for iteration in range(first, config.iterations):
        losses = step(state, _next(parts, config.accumulate), iteration, config)
        done = iteration + 1
        log.line(done, losses)
        if not engine.rank and (done % config.save_every == 0 or done == config.iterations):
            _save(state, out, done)
    engine.wait()


def _next(parts: Iterator[Batch], count: int) -> list[Batch]:
    """The next parts of a batch. ValueError names the file at fault, whichever process read it."""
    try:
        return [next(parts) for _ in range(count)]
    except ValueError as error:
        # A worker sends its traceback along.
        said = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        hint = "`minst data check` finds all such; what was trained is kept"
        raise ValueError(f"{said}; {hint}") from None


def _clips(config: TrainConfig) -> Callable:
    if not config.data:
        return ShapesTraining(config.seed)
    return FolderClips(open_folder(config.data, config.split or None), config.seed)


class _Log:
    """log.jsonl, one line every `log_every` iterations, and the progress bar; rank 0 writes."""

    def __init__(self, out: Path, first: int, config: TrainConfig, engine: Engine):
        self.first, self.config, self.engine = first, config, engine
        self.started = time.perf_counter()
        if engine.rank:
            return
        (out / "train.tmp").write_text(json.dumps(asdict(config), indent=1) + "\n")
        os.replace(out / "train.tmp", out / "train.json")  # a kill in between costs nothing
        self.path = out / "log.jsonl"
        if not first:
            self.path.write_text("")
        total = config.iterations
        self.progress = tqdm(total=total, initial=first, desc="training", mininterval=5.0)

    def line(self, iteration: int, losses: dict[str, Tensor]) -> None:
        """A line holds the mean over all processes, so that all must take part in it."""
        means = None
        if iteration % self.config.log_every == 0 or iteration == self.config.iterations:
            means = self.engine.total(torch.stack(list(losses.values()))) / self.engine.processes
        if self.engine.rank:
            return
        self.progress.update()
        if means is None:
            return
        seconds = (time.perf_counter() - self.started) / (iteration - self.first)
        line = {name: round(value, 5) for name, value in zip(losses, means.tolist())}
        line = {"iteration": iteration, **line, "seconds_per_iteration": round(seconds, 4)}
        if torch.cuda.is_available():
            line["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self.progress.set_postfix(loss=f"{line['loss']:.3f}")


class Learner(nn.Module):
    """Model, token classifier and losses as one module, which is what several processes wrap."""

    def __init__(self, model: MobileInst, config: TrainConfig):
        super().__init__()
        self.model, self.config, self.tokens = model, config, None
        if config.token_weight:
            channels, classes = model.backbone.out_channels[-1], model.config.num_classes
            self.tokens = nn.Conv2d(channels, classes, 1)
            # X6 may be large; start from "rarely anything here".
            nn.init.zeros_(self.tokens.weight)
            nn.init.constant_(self.tokens.bias, -3.0)

    def forward(self, batch: Batch, counts: Sequence[float]) -> dict[str, Tensor]:
        """`training_losses` of a batch."""
        return training_losses(self.model, batch, self.config, self.tokens, counts)


class State:
    """What a run carries from iteration to iteration; `parts` are what a checkpoint holds."""

    def __init__(self, model: MobileInst, config: TrainConfig, engine: Engine | None = None):
        self.engine = engine or Engine("cpu")
        self.model = model.to(self.engine.device)
        self.learner = Learner(model, config).to(self.engine.device).train()
        if config.freeze_norms:
            freeze_norms(model)
        ema = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(model, multi_avg_fn=ema, use_buffers=True)
        if config.checkpointing:
            checkpoint_blocks(model)
        self.parameters = list(self.learner.parameters())
        groups = _parameter_groups(self.learner, config)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.wrapped = self.engine.prepare(self.learner)
        self.parts = {"model": model, "average": self.average, "optimizer": self.optimizer}
        if self.learner.tokens:
            self.parts["tokens"] = self.learner.tokens


def freeze_norms(model: nn.Module) -> None:
    """Batch norms use the statistics they have, without drop path: for few frames, and in tests."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, StochasticDepth)):
            module.eval()


def checkpoint_blocks(model: MobileInst) -> None:
    """Keep the input of every block of backbone and mask decoder, compute the rest again if needed.

    Gradients are the same. Batch norms learn their statistics in the first pass alone.
    """
    for block in _blocks(model.backbone) + _blocks(model.mask_decoder):

        def forward(*inputs, block=block, inner=block.forward):
            if not torch.is_grad_enabled():
                return inner(*inputs)
            # Looked for now, since several GPUs put synchronised ones in their place.
            norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

            def contexts():  # of the first pass and of the second
                return contextlib.nullcontext(), _without_momentum(norms)

            return checkpoint(inner, *inputs, use_reentrant=False, context_fn=contexts)

        block.forward = forward


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules with parameters that are no mere rows of modules.

    A row with an activation of its own is a block: an activation in place changes what the part
    before it has put out.
    """
    found = []
    for child in module.children():
        row = isinstance(child, nn.ModuleList)
        row = row or (isinstance(child, nn.Sequential) and all(map(_learns, child)))
        if row:
            found += _blocks(child)
        elif _learns(child):
            found.append(child)
    return found


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


@contextlib.contextmanager
def _without_momentum(norms: Sequence[_BatchNorm]):
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before):
            norm.momentum = momentum


def start(
    config: TrainConfig,
    engine: Engine | None = None,
    categories: Sequence[str] = CATEGORIES,
    model: MobileInst | None = None,
) -> State:
    """The state before the first step; model: in the place of the one that the config names."""
    torch.manual_seed(config.seed)
    model = model or initial_model(config, categories)
    sides = (config.short_max, config.long_max) if config.short_max else None
    model.trained_size = sides or (config.height, config.width)
    # channels_last makes CPU training about 1.7 times as fast
    return State(model.to(memory_format=torch.channels_last), config, engine)


def initial_model(config: TrainConfig, categories: Sequence[str] = CATEGORIES) -> MobileInst:
    """What a config starts from; random weights are those of torch's generator as it stands."""
    if config.init:
        model = MobileInst.from_pretrained(config.init, categories)
    else:
        named = {"class_names": tuple(categories), "num_classes": len(categories)}
        changes = named | switches(config.switches)
        model = MobileInst(MobileInstConfig.preset(config.preset, **changes))
    if config.backbone_weights:
        load_backbone_weights(model.backbone, config.backbone_weights)
    return model


def _parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """Backbone and the rest, each with weight decay and, for vectors and queries, without."""
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or name.endswith("queries")  # norms, biases
        groups.setdefault((".backbone." in name, plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * (config.backbone_lr if backbone else 1.0),
            "weight_decay": 0.0 if plain else config.weight_decay,
        }
        for (backbone, plain), parameters in groups.items()
    ]


def step(
    state: State, parts: list[Batch], iteration: int, config: TrainConfig
) -> dict[str, Tensor]:
    """One step of the optimiser on a batch, of which this process has its own `parts`; its
    losses."""
    engine = state.engine
    # What drop path draws is a function of the iteration, so that resume is exact, and of the
    # process.
    torch.manual_seed(config.seed * 1_000_003 + iteration + 7_919 * engine.rank)
    for group, base in zip(state.optimizer.param_groups, state.base_rates):
        group["lr"] = base * learning_rate(iteration, config)
    # Losses are divided by the counts of the whole batch, however it is shared and cut.
    counts = engine.total(torch.tensor(instance_counts(parts, config), device=engine.device))
    counts = (counts.clamp(min=1) / (engine.processes * len(parts))).tolist()
    # Gradients of all parts add up; processes exchange them with the last part alone.
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with contextlib.nullcontext() if last else engine.no_sync(state.wrapped):
            losses = _losses(state, part, counts, iteration, config)
            (losses["loss"] / len(parts)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value.detach() / len(parts)
    # A gradient that is not finite must not reach the weights and, through them, a checkpoint.
    norm = nn.utils.clip_grad_norm_(state.parameters, config.max_grad_norm)
    if not torch.isfinite(norm):
        raise _not_finite(iteration, "gradient")
    state.optimizer.step()
    # What is measured and shipped is the moving average of the weights.
    state.average.update_parameters(state.model)
    return sums


def _losses(
    state: State, part: Batch, counts: Sequence[float], iteration: int, config: TrainConfig
) -> dict[str, Tensor]:
    """The weighted "loss" first, then its terms; FloatingPointError when it is not finite."""
    try:
        with state.engine.autocast():
            losses = state.wrapped(_to(part, state.engine.device), counts)
    except FloatingPointError as error:  # matching meets a diverged model first
        raise _not_finite(iteration, str(error)) from None
    loss = weighted_sum(losses, config)
    if not torch.isfinite(loss):
        wrong = [name for name, value in losses.items() if not torch.isfinite(value)]
        raise _not_finite(iteration, ", ".join(wrong))
    return {"loss": loss, **losses}


def _to(batch: Batch, device: torch.device) -> Batch:
    frames = batch.frames.to(device, non_blocking=True).float().div(255)
    frames = frames.contiguous(memory_format=torch.channels_last)
    instances = [Instances(*(x.to(device) for x in target)) for target in batch.instances]
    padding = None if batch.padding is None else batch.padding.to(device)
    return Batch(frames, instances, batch.is_pairs, padding)


def _not_finite(iteration: int, what: str) -> FloatingPointError:
    return FloatingPointError(
        f"training: loss is not finite at iteration {iteration + 1} ({what}); "
        "the last checkpoint is good: lower --lr or --max-grad-norm and resume"
    )


def _save(state: State, out: Path, iteration: int) -> None:
    """Averaged weights and checkpoint, moved into place, so that a kill never leaves half of
    one."""
    parts = {name: part.state_dict() for name, part in state.parts.items()}
    torch.save({"iteration": iteration, **parts}, out / "checkpoint.tmp")
    state.average.module.save_pretrained(out / "weights")
    # Last: a run killed before this line writes its weights again, one killed after it has them.
    os.replace(out / "checkpoint.tmp", out / "checkpoint.pt")


# What may change between the parts of one run: the machine, on which weights depend by rounding and
# batch norms alone.
FREE_FIELDS = ("out", "workers", "log_every", "save_every", "threads", "device")
FREE_FIELDS += ("processes", "accumulate", "checkpointing")


def _resume(state: State, out: Path, config: TrainConfig) -> int:
    """Load the last checkpoint, cut the log back to it; the iteration to go on with (0: none)."""
    if not (out / "checkpoint.pt").is_file():
        return 0
    before, now = json.loads((out / "train.json").read_text()), asdict(config)
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True, map_location="cpu")
    done = checkpoint["iteration"]
    free = set(FREE_FIELDS)
    # The length may change as long as neither the old nor the new schedule has begun to decay.
    # (An earlier release had another name for this share, and other fields that differ.)
    shares = [(run.get("cosine_share", 1), run["iterations"]) for run in (before, now)]
    if all(done <= (1 - share) * iterations for share, iterations in shares):
        free |= {"iterations", "cosine_share"}
    changed = [name for name in now if name not in free and before.get(name) != now[name]]
    if changed:
        hint = "choose another --out, or --restart to overwrite it"
        raise ValueError(f"{out} holds a run with another {', '.join(changed)}; {hint}")
    for name, part in state.parts.items():
        part.load_state_dict(checkpoint[name])
    log = out / "log.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["iteration"] <= done]
    log.write_text("".join(line + "\n" for line in kept))
    return done
