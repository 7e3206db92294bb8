"""Query-based models of `transformers` in our instruments: tracker, Fig 2, retention, evaluation.

    from_transformers("facebook/mask2former-swin-small-coco-instance") -> QueryAdapter
    frames (B, 3, H, W) -> the library's image processor -> its model -> QueryFrame
        kernels K (B, N, D), mask features (B, D, h, w), whose product are the model's own masks

    Mask2Former, OneFormer      encode: backbone and pixel decoder; `out`: the queries' decoder
    EoMT, EoMT-DINOv3, VidEoMT  queries are tokens of the last blocks: `encode` costs all there is
    RF-DETR-Seg                 the same, and queries are made anew of the frame's best proposals

Mask features are kept at 1/4 of the frame, since K . resize(F) = resize(K . F), without padding.
VidEoMT runs frame by frame: the queries that it passes on are left out. Scores are p(class), times
the mean probability inside the mask where the library's post-processing does so.

Lesson: notebooks/11_what_came_after.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from minst.model import check_frames
from minst.protocol import QueryConfig, QueryFrame, Said

__all__ = ["FAMILIES", "QueryAdapter", "from_transformers"]


class QueryAdapter(nn.Module):
    """A model of `transformers` that keeps `minst.protocol.QueryModel`; in eval mode."""

    def __init__(self, model: nn.Module, family: Family, processor, options: dict, task: Tensor):
        super().__init__()
        self.model, self.family, self.processor = model, family, processor
        names = tuple(name for _, name in sorted(model.config.id2label.items()))
        known = any(name != f"LABEL_{i}" for i, name in enumerate(names))
        self.config = QueryConfig(names if known else (), len(names), model.config.num_queries)
        self.name = model.config.name_or_path or type(model).__name__
        self.options = options  # of the processor
        side = options.get("size") or processor.size
        self.seen_side = side.get("shortest_edge") or side["height"]  # pixels, at most
        self.register_buffer("task", task, persistent=False)
        self._inside: dict[tuple[int, int], tuple[float, float]] = {}
        self.eval()

    def forward(self, frames: Tensor) -> Said:
        """frames (B, 3, H, W) floats in [0, 1], at least 64 x 64; ValueError for others."""
        return self.encode(frames).out

    def encode(self, frames: Tensor) -> QueryFrame:
        """What every frame costs: see the module's table for how much that is."""
        check_frames(frames)
        x, size = self.processed(frames.to(self.task.device)), tuple(frames.shape[-2:])
        features, decode = self.family.encode(self.model, x, self.task)
        return QueryFrame(features, decode, size, self._inside_of(size), self.family.rate_masks)

    def processed(self, frames: Tensor, **options) -> Tensor:
        """Frames (B, 3, H, W) as the model's own image processor resizes, normalises, pads them."""
        options |= {"do_rescale": False, "return_tensors": "pt", **self.options}
        if self.family.video:
            return self.processor(videos=list(frames[:, None]), **options)["pixel_values_videos"]
        return self.processor(images=list(frames), **options)["pixel_values"]

    def _inside_of(self, size: tuple[int, int]) -> tuple[float, float]:
        """The share of what `processed` gives that shows a frame of this size."""
        if size not in self._inside:
            # Where a white frame stays white it is; padding is black.
            white = self.processed(self.task.new_ones(1, 3, *size).float(), do_normalize=False)
            shown = white.flatten(0, -3)[0] > 0.5  # (n, m)
            self._inside[size] = tuple(shown.any(i).float().mean().item() for i in (1, 0))
        return self._inside[size]


def with_outputs(run: Callable[[], Any], *modules: nn.Module) -> list:
    """What `run` returns, then what each module put out when it was last called."""
    said: dict[nn.Module, Any] = {}
    hooks = [m.register_forward_hook(lambda m, _, out: said.update({m: out})) for m in modules]
    try:
        return [run(), *(said[module] for module in modules)]
    finally:
        for hook in hooks:
            hook.remove()


# Each `encode` returns mask features (B, D, n, m), and what decodes: () -> probabilities (B, N, C)
# of the classes, without the last one, "no object", and kernels (B, N, D).


def _mask2former(model, x: Tensor, task: Tensor) -> tuple:
    level, part = model.model.pixel_level_module(x), model.model.transformer_module

    def decode() -> tuple[Tensor, Tensor]:
        levels = level.decoder_hidden_states, level.decoder_last_hidden_state
        heads = part.decoder.mask_predictor
        out, kernels = with_outputs(lambda: part(*levels), heads.mask_embedder)
        queries = out.intermediate_hidden_states[-1].transpose(0, 1)  # (B, N, C)
        return model.class_predictor(queries).softmax(-1)[..., :-1], kernels

    return level.decoder_last_hidden_state, decode


def _oneformer(model, x: Tensor, task: Tensor) -> tuple:
    level, part = model.model.pixel_level_module(x), model.model.transformer_module

    def decode() -> tuple[Tensor, Tensor]:
        token = model.model.task_encoder(task.expand(len(x), -1).to(x.dtype))
        given, heads = (level.decoder_features, level.decoder_last_feature, token), part.decoder
        _, logits, kernels = with_outputs(lambda: part(*given), heads.class_embed, heads.mask_embed)
        return logits.softmax(-1)[..., :-1], kernels

    return level.decoder_last_feature, decode


def _eomt(model, x: Tensor, task: Tensor) -> tuple:
    parts = model.class_predictor, model.mask_head, model.upscale_block
    _, logits, kernels, features = with_outputs(lambda: model(x), *parts)
    return features, lambda: (logits.softmax(-1)[..., :-1], kernels)


def _rf_detr(model, x: Tensor, task: Tensor) -> tuple:
    parts = model.query_features_proj, model.spatial_features_proj
    out, kernels, features = with_outputs(lambda: model(x), *parts)
    # Its masks have a bias, here one more channel: of the kernels' length it is next to nothing.
    kernels = F.pad(kernels, (0, 1), value=1e-3)
    bias = (1000 * model.segmentation_bias).expand_as(features[:, :1])
    return torch.cat([features, bias], 1), lambda: (out.logits.sigmoid(), kernels)


def _any(config, processor, size: int | None) -> dict:
    return {"size": {"shortest_edge": size, "longest_edge": 5 * size // 3}} if size else {}


def _square(config, processor, size: int | None) -> dict:
    # What the places of its tokens are learned for, unless the processor knows better.
    side = getattr(config, "image_size", None) or config.backbone_config.image_size
    if size not in (None, side):
        raise ValueError(f"{type(config).__name__}: it takes {side} x {side} pixels, not {size}")
    known = getattr(config, "image_size", None) is None and processor.size["height"]
    return {} if known else {"size": {"height": side, "width": side}}


def _padded_square(config, processor, size: int | None) -> dict:
    side = _square(config, processor, size)["size"]["height"]
    square = {"shortest_edge": side, "longest_edge": side}
    return {"size": square, "do_pad": True, "do_split_image": False}


class Family(NamedTuple):
    """How the models of one class are run."""

    encode: Callable[[nn.Module, Tensor, Tensor], tuple]  # model, what the processor gave, task
    processor: str  # the class of the library that prepares its images
    options: Callable[..., dict]  # config, processor, size -> what the processor is told
    rate_masks: bool = True  # scores are p(class) times the certainty of the mask
    video: bool = False  # it takes (B, L, 3, H, W)


FAMILIES = {
    "Mask2FormerForUniversalSegmentation": Family(_mask2former, "Mask2FormerImageProcessor", _any),
    "OneFormerForUniversalSegmentation": Family(_oneformer, "OneFormerImageProcessor", _any, False),
    "EomtForUniversalSegmentation": Family(_eomt, "EomtImageProcessor", _padded_square),
    "EomtDinov3ForUniversalSegmentation": Family(_eomt, "EomtImageProcessor", _padded_square),
    "VideomtForUniversalSegmentation": Family(_eomt, "VideomtVideoProcessor", _square, video=True),
    "RfDetrForInstanceSegmentation": Family(_rf_detr, "RfDetrImageProcessor", _square, False),
}

MISSING = 'models of others need transformers: python3 -m pip install "mobileinst[models]"'
WHY_NOT = {  # a part of its class's name: why it has no place here
    "Detection": "it draws boxes and no masks",
    "Semantic": "it tells classes apart and no instances",
    "Sam": "it segments what points, boxes or words ask for",
}


def from_transformers(
    name_or_model: str | Path | nn.Module,
    revision: str | None = None,
    size: int | None = None,
    processor=None,
) -> QueryAdapter:
    """A model of `transformers`: its name on the hub, a folder of `save_pretrained`, or itself.

    revision: a commit or tag of the hub, so that the same weights come again. size: shorter side
    of what the network sees, of Mask2Former and OneFormer alone; by default the processor's.
    processor: in the place of what lies beside the weights. Where nothing does, the library's for
    the class: ImageNet's mean and deviation, a shorter side of 800 or the config's `image_size`.

    OSError: nothing to load. ValueError: no query-based model, weights that lack a part, a `size`
    that it cannot take. ImportError says what to install.
    """
    try:
        import transformers
    except ImportError:
        raise ImportError(MISSING) from None
    if size is not None and size < 64:
        raise ValueError(f"size is {size}; it must be at least 64")
    model = name_or_model
    if not isinstance(model, nn.Module):
        model, beside = _load(transformers, str(name_or_model), revision)
        processor = processor or beside
    family = _family(type(model).__name__)
    tokenizer = getattr(processor, "tokenizer", None)
    processor = getattr(processor, "image_processor", processor)
    processor = processor or getattr(transformers, family.processor)()
    task = torch.zeros(1, dtype=torch.long)
    if family.encode is _oneformer:
        if tokenizer is None:
            raise ValueError("OneFormer is told its task in words: give its OneFormerProcessor")
        how = {"max_length": model.config.task_seq_len, "padding": "max_length"}
        words = tokenizer(["the task is instance"], return_tensors="pt", **how)
        task = words["input_ids"] * words["attention_mask"]
    options = family.options(model.config, processor, size)
    return QueryAdapter(model, family, processor, options, task)


def _family(name: str) -> Family:
    """The entry of FAMILIES; ValueError says why there is none."""
    if name not in FAMILIES:
        why = "its masks are not known to be products of queries with mask features"
        why = next((reason for part, reason in WHY_NOT.items() if part in name), why)
        raise ValueError(f"{name} cannot be shown: {why}; known are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _load(transformers, name: str, revision: str | None) -> tuple:
    """The model of a name or a folder, as float32, and its processor; None for a folder without."""
    here = Path(name).is_dir()

    def load(kind: str, **how):
        try:
            return getattr(transformers, kind).from_pretrained(name, revision=revision, **how)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            said = " ".join(str(error).split()).split(". ")[0][:200]
        if here:
            raise ValueError(f"{name} holds no model that transformers can read: {said}")
        what_to_do = f"run `hf download {name}` where there is a network, or give a folder"
        raise OSError(f"{name} is no folder, and the hub gave nothing ({said}); {what_to_do}")

    config = load("AutoConfig")
    kind = (config.architectures or [type(config).__name__])[0]
    family = _family(kind)  # before anything large is loaded
    model, said = load(kind, dtype=torch.float32, output_loading_info=True)
    lacking = sorted({key for key, _ in model.named_parameters()} & {*said["missing_keys"]})
    if lacking:
        raise ValueError(f"{name}: the weights lack {lacking[0]} ({len(lacking)} such)")
    if here and not [*Path(name).glob("*processor_config.json")]:
        return model, None
    processor = "AutoVideoProcessor" if family.video else "AutoImageProcessor"
    return model, load("OneFormerProcessor" if family.encode is _oneformer else processor)
