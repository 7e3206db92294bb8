"""One plain training loop: image batches and frame pairs, exact resume, one process or many.

    batch(iteration) -> frames (2P, 3, H, W), instances      the second half is t+delta of the first
      -> set losses on all frames  +  query-passing losses from the first half to the second
      -> AdamW (backbone apart), clipped gradients, warm-up and cosine decay
      -> moving average of the weights, which is what is measured and shipped; it grows with the
         run, up to `ema`, since random weights of the start must not be in it

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

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
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
from minst.data.coco import COCO, open_folder
from minst.data.files import read_json, replacing
from minst.data.photos import PhotoClips
from minst.data.shapes import CATEGORIES
from minst.engine import Engine, keep_memory, owned, spawn
from minst.losses import LOSS_WEIGHTS, set_losses
from minst.matcher import Instances
from minst.model import MobileInst
from minst.recipes import TrainConfig, switches
from minst.temporal import passed_matches, query_passing_losses
from minst.weights import load_backbone_weights

__all__ = ["ClipBatches", "ShapesTraining", "TrainConfig", "train", "training_losses"]

# What may change between the parts of one run: the machine, on which weights depend by rounding and
# batch norms alone.
FREE_FIELDS = ("out", "workers", "log_every", "save_every", "threads", "device")
FREE_FIELDS += ("processes", "accumulate", "checkpointing")


# ------------------------------------------------------------------------------------- the losses


def training_losses(
    model: MobileInst,
    batch: Batch,  # frames as floats in [0, 1]
    config: TrainConfig,
    token_classifier: nn.Module | None = None,
    counts: Sequence[float] | None = None,  # of `instance_counts`, to divide by; None: of `batch`
) -> dict[str, Tensor]:
    """All losses of one batch, unweighted, by name: those of `set_losses`, the same of Q_G
    ("global_cls", …), those of query passing ("pass_dice", "pass_pixel") and "token".
    """
    frames, instances, is_pairs, padding = batch
    seen, passed_on = counts or [max(1.0, n) for n in instance_counts([batch], config)]
    # Every frame by itself: what the model says, and which query answers for which instance.
    frame = model.encode(frames, padding)
    if config.train_on == "tokens":  # which categories are where: what ImageNet is to the paper
        return {"token": token_loss(token_classifier(frame.x6), instances)}
    out = model.decode(frame)
    losses, matches = set_losses(out.class_logits, out.objectness, out.mask_logits, instances, seen)
    if config.global_weight:
        # What the heads say of Q_G already is to answer for the same instances.
        said = model.instance_decoder.predict(out.global_queries)
        masks = frame.masks(said.kernels)
        early, _ = set_losses(said.class_logits, said.objectness, masks, instances, seen, matches)
        losses |= {f"global_{name}": value for name, value in early.items()}
    if is_pairs and config.query_passing != "off":
        # The first half are the frames t, the second half the frames t+delta: Q_G of each t looks
        # at its t+delta, and is to draw what is there.
        half = len(frames) // 2
        later = frame.select(slice(half, None))
        passed = model.pass_queries(out.global_queries[:half], later)  # (B, N, h, w)
        logits = out.class_logits[half:]
        held = passed_matches(config.query_passing, logits, passed, matches, instances)
        drawn = query_passing_losses(passed, held, instances[half:], passed_on)
        losses |= {f"pass_{name}": value for name, value in drawn.items()}
    if token_classifier is not None:
        losses["token"] = token_loss(token_classifier(frame.x6), instances)
    return losses


def instance_counts(parts: Sequence[Batch], config: TrainConfig) -> tuple[float, float]:
    """Instances in all frames of a batch cut into `parts`; those that a passed query is held to."""
    seen = passed_on = 0
    for part in parts:
        # What an image holds is counted however few queries there are to find it.
        seen += sum(len(target.labels) for target in part.instances)
        half = len(part.instances) // 2 if part.is_pairs else 0
        for now, later in zip(part.instances[:half], part.instances[half:]):
            passed_on += len(later.ids)
            if config.query_passing == "kept":  # without those that frame t does not show
                passed_on -= int((~torch.isin(later.ids, now.ids)).sum())
    return float(seen), float(passed_on)


def token_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Which categories does the cell of a token hold? BCE, summed over classes, mean over tokens.

    logits (B, C, h, w) of X6. Target of a class: 1 when its instances cover half of the cell, less
    in proportion.
    """
    # Nothing is in any cell ...
    targets = torch.zeros_like(logits, dtype=torch.float32)
    # ... until an instance says that it is.
    for target, (labels, masks, _) in zip(targets, instances):
        if not len(labels):  # pooling refuses an empty batch
            continue
        # The share of each cell that an instance covers; of one class the larger share counts.
        cover = F.adaptive_avg_pool2d(masks.float()[None], logits.shape[-2:])[0]  # (m, h, w)
        for label, cells in zip(labels.tolist(), cover):
            target[label] = torch.maximum(target[label], (2 * cells).clamp(max=1))
    # The mean over tokens and classes, times the classes: a sum over these, as of the other losses.
    return F.binary_cross_entropy_with_logits(logits.float(), targets) * logits.shape[1]


def weighted_sum(losses: dict[str, Tensor], config: TrainConfig) -> Tensor:
    """2 L_cls + 2 L_mask + L_obj, and with the same weights what Q_G and passed queries draw."""
    # The paper's lambdas. An early answer, or one for another frame, is worth as much as any.
    weights = {**LOSS_WEIGHTS, "token": config.token_weight}
    for name, weight in LOSS_WEIGHTS.items():
        weights[f"pass_{name}"] = config.passing_weight * weight
        weights[f"global_{name}"] = config.global_weight * weight
    return sum(weights[name] * value for name, value in losses.items())


# ------------------------------------------------------------------------- what is learned, and how


class Learner(nn.Module):
    """Model, token classifier and losses as one module, which is what several processes wrap."""

    def __init__(self, model: MobileInst, config: TrainConfig):
        super().__init__()
        self.model, self.config, self.tokens = model, config, None
        if config.token_weight:
            # A 1x1 convolution: every token is judged by itself.
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
        freeze(_blocks(model.backbone), config.freeze_blocks)
        # The average is a copy: made before anything is wrapped around the model.
        growing = partial(_average, config.ema)
        self.average = AveragedModel(model, multi_avg_fn=growing, use_buffers=True)
        if config.checkpointing:
            for block in _blocks(model.backbone) + _blocks(model.mask_decoder):
                block.forward = partial(_forgetting, block, block.forward)
        self.parameters = list(self.learner.parameters())
        # Fused: one kernel for all parameters. A second moment of 0.99 forgets sooner than AdamW's
        # usual 0.999, since runs are short.
        groups = _parameter_groups(self.learner, config)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        # Last of all: from here on a backward pass is one of all processes.
        self.wrapped = self.engine.prepare(self.learner)
        self.parts = {"model": model, "average": self.average, "optimizer": self.optimizer}
        if self.learner.tokens:
            self.parts["tokens"] = self.learner.tokens

    def is_finite(self) -> bool:
        """Are all weights numbers? One that is not is in every weight a step later."""
        parts = (self.learner, self.average)
        values = [value for part in parts for value in part.state_dict().values()]
        return all(bool(torch.isfinite(value).all()) for value in values)


def _average(longest: float, average: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
    """One step of the average of the weights, after `count` others: the start is soon forgotten."""
    # With 0.999 from the first step on, 74 % of what 300 steps ship would be random weights.
    done = count.item()  # once: it may lie on a GPU
    get_ema_multi_avg_fn(min(longest, (1 + done) / (10 + done)))(average, weights, count)


def start(
    config: TrainConfig,
    engine: Engine | None = None,
    categories: Sequence[str] = CATEGORIES,
    model: MobileInst | None = None,
) -> State:
    """The state before the first step; model: in the place of the one that the config names."""
    # Random weights are a function of the seed alone, ...
    torch.manual_seed(config.seed)
    model = model or initial_model(config, categories)
    # Whoever uses the weights is told the size of frames that they know.
    sides = (config.short_max, config.long_max) if config.short_max else None
    model.trained_size = sides or (config.height, config.width)
    # channels_last makes CPU training about 1.7 times as fast
    return State(model.to(memory_format=torch.channels_last), config, engine)


def initial_model(config: TrainConfig, categories: Sequence[str] = CATEGORIES) -> MobileInst:
    """What a config starts from; random weights are those of torch's generator as it stands."""
    if config.init:
        # Weights know which model they are of; only the categories may be others.
        model = MobileInst.from_pretrained(config.init, categories)
    else:
        named = {"class_names": tuple(categories), "num_classes": len(categories)}
        changes = named | switches(config.switches)
        model = MobileInst(MobileInstConfig.preset(config.preset, **changes))
    # After the rest, which so starts as it would without them.
    if config.backbone_weights:
        load_backbone_weights(model.backbone, config.backbone_weights)
    return model


def freeze_norms(model: nn.Module) -> None:
    """Batch norms use the statistics they have, without drop path: for few frames, and in tests."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, StochasticDepth)):
            module.eval()


def freeze(blocks: Sequence[nn.Module], count: int) -> None:
    """The first `count` blocks stay as they are, norms too. ValueError where there are fewer."""
    if count > len(blocks):
        what = f"freeze_blocks is {count}; the backbone has {len(blocks)} blocks"
        raise ValueError(f"training: {what}")
    for block in blocks[:count]:
        block.requires_grad_(False)
        freeze_norms(block)


def _parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """Backbone and the rest, each with weight decay and, for vectors and queries, without."""
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in model.named_parameters():
        in_backbone = ".backbone." in name
        # Decay keeps products small. A norm, a bias or a query is added, and is left alone.
        plain = parameter.ndim < 2 or name.endswith("queries")
        rate = config.lr * (config.backbone_lr if in_backbone else 1.0)
        decay = 0.0 if plain else config.weight_decay
        group = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((in_backbone, plain), group)["params"].append(parameter)
    return list(groups.values())


def _forgetting(block: nn.Module, forward: Callable, *inputs: Tensor) -> Tensor:
    """A block that keeps its input alone, and computes the rest again when gradients need it."""
    # Looked for now, since several GPUs put synchronised ones in their place.
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

    @contextlib.contextmanager
    def again():
        # Batch norms learn their statistics in the first pass alone.
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:  # the second pass is left as soon as it has what is needed, by an exception
            for norm, momentum in zip(norms, before):
                norm.momentum = momentum

    def contexts():
        return contextlib.nullcontext(), again()

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules with parameters that are no mere rows of modules."""
    found = []
    for child in module.children():
        # A row with an activation of its own is a block: an activation in place changes what the
        # part before it has put out.
        learns = [any(True for _ in part.parameters()) for part in child.children()]
        row = isinstance(child, nn.ModuleList) or (isinstance(child, nn.Sequential) and all(learns))
        if row:
            found += _blocks(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found


# ---------------------------------------------------------------------------------------- one step


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """The share of the peak: linear warm-up, constant, a cosine in the last `cosine_share`."""
    # Moments of AdamW are guesses at first: small steps until they are known.
    warm = min(1.0, (iteration + 1) / max(1, config.warmup))
    start = (1 - config.cosine_share) * config.iterations
    # Before the decay a run does not depend on where it will end: `iterations` may still change.
    done = max(0.0, iteration - start) / max(1.0, config.iterations - start)  # of the decay, 0..1
    # From 1 down to 0, slowly at both ends.
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return warm * (config.final_lr + (1 - config.final_lr) * cosine)


def step(
    state: State, parts: list[Batch], iteration: int, config: TrainConfig
) -> dict[str, Tensor]:
    """One step on a batch, of which this process has its own `parts`: the weighted "loss", and all
    losses. FloatingPointError where one, or the gradient, is not finite; no weight is changed then.
    """
    engine = state.engine
    # What drop path draws is a function of the iteration, so that resume is exact, and of the
    # process.
    torch.manual_seed(config.seed * 1_000_003 + iteration + 7_919 * engine.rank)
    # The schedule.
    for group, base in zip(state.optimizer.param_groups, state.base_rates):
        group["lr"] = base * learning_rate(iteration, config)
    # Losses are divided by the counts of the whole batch, however it is shared and cut.
    counts = engine.total(torch.tensor(instance_counts(parts, config), device=engine.device))
    counts = (counts.clamp(min=1) / (engine.processes * len(parts))).tolist()
    # Gradients of all parts add up; processes exchange them with the last part alone.
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}  # what is logged: the mean over the parts
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        with contextlib.nullcontext() if last else engine.no_sync(state.wrapped):
            losses = _losses(state, part, counts, iteration, config)
            (losses["loss"] / len(parts)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value.detach() / len(parts)
    # A gradient that is not finite must not reach the weights and, through them, a checkpoint.
    # One that is only too long is cut: a rare batch shall not undo what many have taught.
    norm = nn.utils.clip_grad_norm_(state.parameters, config.max_grad_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"training: gradient not finite at iteration {iteration + 1}")
    state.optimizer.step()
    # What is measured and shipped is the moving average of the weights.
    state.average.update_parameters(state.model)
    return sums


def _losses(
    state: State, part: Batch, counts: Sequence[float], iteration: int, config: TrainConfig
) -> dict[str, Tensor]:
    """The weighted "loss" first, then its terms."""
    device = state.engine.device
    # Bytes travel; floats are made where they are needed.
    frames = part.frames.to(device, non_blocking=True).float().div(255)
    frames = frames.contiguous(memory_format=torch.channels_last)
    instances = [Instances(*(x.to(device) for x in target)) for target in part.instances]
    padding = part.padding
    if padding is not None:
        padding = padding.to(device)
    try:
        with state.engine.autocast():
            losses = state.wrapped(Batch(frames, instances, part.is_pairs, padding), counts)
        loss = weighted_sum(losses, config)
        if not torch.isfinite(loss):
            wrong = [name for name, value in losses.items() if not torch.isfinite(value)]
            raise FloatingPointError(", ".join(wrong) or "their sum")
    except FloatingPointError as error:  # of the matching, too: it meets a diverged model first
        where = f"iteration {iteration + 1} ({error})"
        raise FloatingPointError(f"training: loss not finite at {where}") from None
    return {"loss": loss, **losses}


# ----------------------------------------------------------------------------------------- the loop


def train(
    config: TrainConfig,
    resume: bool = True,
    clips: Callable | None = None,
    model: MobileInst | None = None,
) -> Path:
    """Train, and write into `config.out`: log.jsonl, checkpoint.pt, averaged weights in weights/.

    With `resume` an interrupted run goes on from its last checkpoint; without, it starts anew.
    clips (what `ClipBatches` takes), model: in the place of those that the config names. Raises
    FloatingPointError when a loss is not finite (where, what to do), ValueError when the folder
    holds another run, a broken one, or one that is being trained; what the readers of clips raise.
    """
    out = Path(config.out)
    with owned(out, "train"):
        if config.processes == 1:
            _run(config, resume, clips, model)
        else:
            spawn(_run, config.processes, config, resume, clips, model)
    return out / "weights"


def _run(c: TrainConfig, resume: bool, clips: Callable | None, model: MobileInst | None) -> None:
    """The loop of one process; rank 0 writes."""
    engine, out = Engine(c.device, c.precision), Path(c.out)
    # Of all processes one writes; what all have to do together stands outside of such an `if`.
    writes = engine.rank == 0
    if clips is None and c.data:
        clips = folder_clips(c)
    clips = clips or ShapesTraining(c.seed)
    # Item i is batch i, whoever asks: so the loader may be started anywhere.
    batches = ClipBatches(c, clips, engine.rank, engine.processes)
    if c.threads:
        torch.set_num_threads(c.threads)
    if engine.device.type == "cpu":
        keep_memory()
    state = start(c, engine, getattr(clips, "categories", CATEGORIES), model)
    first = saved = _resume(state, out, c) if resume else 0
    engine.wait()  # all have read what rank 0 is about to overwrite
    if writes:
        _begin(out, c, first)
    # Workers draw the next clips while this process computes.
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first * c.accumulate, len(batches)),
        num_workers=c.workers,
        prefetch_factor=4 if c.workers else None,
        pin_memory=engine.device.type == "cuda",
    )
    parts, started, total = iter(loader), time.perf_counter(), c.iterations
    bar = tqdm(total=total, initial=first, desc="training", mininterval=5.0, disable=not writes)
    try:
        for iteration in range(first, total):
            losses = step(state, _next(parts, c.accumulate), iteration, c)
            done = iteration + 1
            bar.update()
            if done % c.log_every == 0 or done == total:
                # The mean over all processes, so that all must take part in it.
                means = engine.total(torch.stack(list(losses.values()))) / engine.processes
                seconds = (time.perf_counter() - started) / (done - first)
                if writes:
                    _log(out, done, dict(zip(losses, means.tolist())), seconds)
                    bar.set_postfix(loss=f"{float(means[0]):.3f}")
            if done % c.save_every == 0 or done == total:
                if writes:
                    _save(state, out, done)
                saved = done
    except FloatingPointError as error:
        # What to do depends on what there is to go on from.
        good = f"the weights of iteration {saved}, its last checkpoint, are finite: resume"
        start_from = good if saved else "no checkpoint was written: start anew"
        hint = f"{start_from} with a lower --lr or --max-grad-norm"
        raise FloatingPointError(f"{error}; {hint}") from None
    # Who has nothing left to do waits for rank 0 to have written.
    engine.wait()


def folder_clips(c: TrainConfig) -> FolderClips | PhotoClips:
    """The clips of a folder: its own, or those that are made of its images in COCO form."""
    folder = open_folder(c.data, c.split or None, c.annotations or None)
    if not (c.pseudo_clips and isinstance(folder, COCO)):
        return FolderClips(folder, c.seed)
    names = tuple(filter(None, c.categories.split(",")))
    return PhotoClips(folder, c.seed, (c.height, c.width), names)


def _next(parts: Iterator[Batch], count: int) -> list[Batch]:
    """The next parts of a batch. ValueError names the file at fault, whichever process read it."""
    try:
        return [next(parts) for _ in range(count)]
    except ValueError as error:
        # A worker sends its traceback along.
        said = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        hint = "`minst data check` finds all such; what was trained is kept"
        raise ValueError(f"{said}; {hint}") from None


# ---------------------------------------------------------------------------------- files of a run


def _begin(out: Path, config: TrainConfig, first: int) -> None:
    """train.json, and of log.jsonl what is true of a run that has come to iteration `first`."""
    if not first:  # or a new run, killed early, would go on from the old one
        (out / "checkpoint.pt").unlink(missing_ok=True)
    # What this run is, for who resumes it.
    with replacing(out / "train.json") as beside:
        beside.write_text(json.dumps(asdict(config), indent=1) + "\n")
    log, kept = out / "log.jsonl", []
    for line in log.read_text(errors="replace").splitlines() if log.is_file() else []:
        # A line that a kill or a full disk has cut is no reason to stop.
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            if json.loads(line)["iteration"] <= first:
                kept.append(line + "\n")
    # What came after the checkpoint will be computed, and logged, again.
    with replacing(log) as beside:
        beside.write_text("".join(kept))


def _log(out: Path, iteration: int, losses: dict[str, float], seconds: float) -> None:
    line = {"iteration": iteration, **{name: round(value, 5) for name, value in losses.items()}}
    line["seconds_per_iteration"] = round(seconds, 4)
    if torch.cuda.is_available():
        line["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    # One short write at the end of a file: a kill leaves it whole, or without this line.
    try:
        with open(out / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:  # of a full disk, which names no file
        raise OSError(error.errno, error.strerror, str(out / "log.jsonl")) from None


def _save(state: State, out: Path, iteration: int) -> None:
    """Averaged weights and checkpoint, moved into place: a kill never leaves half of one."""
    if not state.is_finite():  # or the run could not be gone on with
        raise FloatingPointError(f"training: weights not finite after iteration {iteration}")
    parts = {name: part.state_dict() for name, part in state.parts.items()}
    content = io.BytesIO()  # what a full disk means to torch.save is not to be understood
    torch.save({"iteration": iteration, **parts}, content)
    # A run killed within writes its weights again, one killed after it has them.
    with replacing(out / "checkpoint.pt") as beside:
        beside.write_bytes(content.getbuffer())
        state.average.module.save_pretrained(out / "weights")


def _resume(state: State, out: Path, config: TrainConfig) -> int:
    """Load the last checkpoint; the iteration to go on with (0: there is none)."""
    file, anew = out / "checkpoint.pt", "choose another --out, or --restart to overwrite it"
    if not file.is_file():
        return 0
    # Is it a checkpoint at all, and of this run?
    try:
        before = read_json(out / "train.json")
        # Tensors and plain values alone: code in a file is never run.
        checkpoint = torch.load(file, weights_only=True, map_location="cpu")
        done = checkpoint["iteration"]
        if type(done) is not int or done < 1:
            raise ValueError(f"iteration {done!r}")
        changed = _changed(before, asdict(config), done)
    except Exception as error:  # noqa: BLE001  what a damaged file raises depends on the byte
        said = str(error).strip().split("\n")[0][:200] or type(error).__name__
        what = f"{file}, or train.json beside it, is damaged or of something else ({said})"
        raise ValueError(f"{what}; {anew}") from None
    if changed:
        raise ValueError(f"{out} holds a run with another {', '.join(changed)}; {anew}")
    # Model, average, optimiser and token classifier go on as if nothing had happened.
    try:
        for name, part in state.parts.items():
            part.load_state_dict(checkpoint[name])
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError):
        raise ValueError(f"{file} holds another model than its train.json says; {anew}") from None
    if not state.is_finite():
        raise ValueError(f"{file} holds weights that are not finite; {anew}")
    return done


def _changed(before: dict, now: dict, done: int) -> list[str]:
    """The fields by which a run that has done so many iterations would be another one."""
    free = {*FREE_FIELDS}
    # A run that diverges may go on more carefully.
    free |= {name for name in ("lr", "max_grad_norm") if now[name] < before.get(name, 0)}
    # The length may change as long as neither the old nor the new schedule has begun to decay.
    # (An earlier release had another name for this share, and other fields that differ.)
    shares = [(run.get("cosine_share", 1), run["iterations"]) for run in (before, now)]
    if all(done <= (1 - share) * iterations for share, iterations in shares):
        free |= {"iterations", "cosine_share"}
    return [name for name in now if name not in free and before.get(name, "") != now[name]]
