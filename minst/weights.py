"""Weights as files, which never run code: a whole model as a folder with config.json and
model.safetensors, or the public checkpoint of a backbone.

    save(model, folder, dtype)          what `MobileInst.save_pretrained` does
    load(cls, name_or_folder, …)        what `MobileInst.from_pretrained` does
    load_backbone_weights(backbone, f)  a backbone alone, from .safetensors, .pth or .pt

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minst.config import MobileInstConfig
from minst.samples import weights_folder

__all__ = ["load", "load_backbone_weights", "save"]

CLASS_HEAD = "instance_decoder.heads.classes."
# The decoders' names, and a field of the config, that only earlier weights have.
EARLIER_KEYS = (
    "instance_decoder.stages.",
    "instance_decoder.project_global.",
    "mask_decoder.laterals.",
)
EARLIER_FIELD = "decoder"
# Beside the model's fields in config.json: [height, width] of the frames in training, where known.
SIZE_FIELD = "size"


def save(model: nn.Module, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model.safetensors (floats as `dtype`) and config.json; ValueError if it is fused."""
    if any(
        isinstance(m, nn.Identity) and name.endswith(".bn") for name, m in model.named_modules()
    ):
        raise ValueError("save_pretrained: this model is fused; save the one before fuse()")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()
    }
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        str(folder / "model.safetensors"),
        {"format": "pt"},
    )
    values = model.config.to_dict()
    if model.trained_size:
        values[SIZE_FIELD] = list(model.trained_size)
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n")


def load(
    cls: type[nn.Module], name_or_folder: str | Path, class_names: Sequence[str] | None = None
) -> nn.Module:
    """A model in eval mode, float32. `MobileInst.from_pretrained` says what is raised."""
    folder = _folder(name_or_folder)
    config, size = _config(folder)
    model = cls(config)
    try:
        state = load_file(str(folder / "model.safetensors"))
    except SafetensorError as error:
        raise ValueError(
            f"{folder / 'model.safetensors'} is no safetensors file, or cut short: {error}"
        ) from None
    _check_state(state, model.state_dict(), folder)
    if class_names is not None and tuple(class_names) != config.class_names:
        model = cls(replace(config, class_names=tuple(class_names), num_classes=len(class_names)))
        state |= _same_classes(state, config.class_names, model)
    model.load_state_dict(state)
    model.trained_size = size
    return model.eval()


def _folder(name_or_folder: str | Path) -> Path:
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = weights_folder(str(name_or_folder))
    missing = [
        name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f"{folder} is no MobileInst folder: {' and '.join(missing)} missing"
        )
    return folder


def _config(folder: Path) -> tuple[MobileInstConfig, tuple[int, int] | None]:
    """What config.json says of the model, and the size of frames that it was trained at."""
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text())
        if EARLIER_FIELD not in values:
            size = values.pop(SIZE_FIELD, None)
            pair = isinstance(size, list) and len(size) == 2
            if size is not None and not (
                pair and all(type(n) is int and 64 <= n <= 8192 for n in size)
            ):
                raise ValueError(f"{SIZE_FIELD} is {size!r}, not a height and a width of frames")
            return MobileInstConfig.from_dict(values), size and tuple(size)
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no MobileInst config: {error}") from None
    raise _of_an_earlier_release(folder)


def _same_classes(
    state: dict[str, Tensor], known: Sequence[str], model: nn.Module
) -> dict[str, Tensor]:
    """The class head of `model`; the rows of `known` categories are taken from `state` by name."""
    head = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(CLASS_HEAD)
    }
    for row, name in enumerate(model.config.class_names):
        if name in known:
            for key, tensor in head.items():
                tensor[row] = state[key][known.index(name)]
    return head


def _of_an_earlier_release(folder: Path) -> ValueError:
    """The error for weights that were written before the decoders had their present names."""
    return ValueError(
        f"{folder}: these weights are of an earlier minst whose decoder had other names; "
        "train again, or use the release that wrote them"
    )


def _check_state(state: dict[str, Tensor], expected: dict[str, Tensor], folder: Path) -> None:
    """Refuse weights of another model, naming the first key at fault."""
    if any(key.startswith(EARLIER_KEYS) for key in state):
        raise _of_an_earlier_release(folder)
    for key in expected:
        if key not in state:
            raise ValueError(
                f"{folder}: the weights lack {key!r}; config.json describes another model"
            )
        if state[key].shape != expected[key].shape:
            there, wanted = tuple(state[key].shape), tuple(expected[key].shape)
            raise ValueError(
                f"{folder}: {key!r} has shape {there} in the file, {wanted} by config.json"
            )
    extra = [key for key in state if key not in expected]
    if extra:
        raise ValueError(
            f"{folder}: the weights hold {extra[0]!r} ({len(extra)} such keys), "
            "unknown to config.json's model"
        )


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Fill a backbone of `build` from a checkpoint: .safetensors, or tensors that torch has saved.

    Returns as `load_state_dict` does missing_keys, which keep their values, and unexpected_keys.
    Raises FileNotFoundError, or ValueError that names the first key at fault; nothing is changed.
    """
    state = _read_backbone(Path(path))
    # A part that no ImageNet checkpoint has may be missing, but only as a whole.
    absent = not any(key.startswith(backbone.optional_keys) for key in state)
    for key, value in backbone.state_dict().items():
        found = tuple(state[key].shape) if key in state else "missing"
        if found != tuple(value.shape) and not (absent and key.startswith(backbone.optional_keys)):
            wrong = f"{key} is {found} in the file, {tuple(value.shape)} in the backbone"
            raise ValueError(f"{path}: {wrong}; is it a checkpoint of another backbone or size?")
    return backbone.load_state_dict(state, strict=False)


def _read_backbone(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without what training scripts put around them and before the keys."""
    path.stat()  # A file that is not there says so itself.
    try:
        # Code is never run. A Namespace, such as the arguments of a training, only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            safe = path.suffix == ".safetensors"
            found = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
        for wrapping in ("model", "state_dict_ema", "state_dict"):
            if isinstance(found.get(wrapping), dict):
                found = found[wrapping]
        tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
        state = {re.sub(r"^((module|backbone)\.)+", "", key): tensors[key] for key in tensors}
    except Exception as error:  # What a damaged file raises depends on the byte that is wrong.
        what = "damaged, or not tensors alone; convert it to .safetensors where you trust it"
        raise ValueError(f"{path} is not readable as weights: {what}") from error
    if len(state) < len(tensors):
        raise ValueError(f"{path} holds a key twice, with and without a prefix; keep one of them")
    return state
