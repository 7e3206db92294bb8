"""Weights of a whole model as files: a folder with config.json and model.safetensors, which never runs code.

    save(model, folder, dtype)          what `MobileInst.save_pretrained` does
    load(name_or_folder, class_names)   what `MobileInst.from_pretrained` does; class_names: for other categories

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minst.config import MobileInstConfig
from minst.samples import weights_folder

if TYPE_CHECKING:
    from minst.model import MobileInst

__all__ = ["load", "save"]

CLASS_HEAD = "instance_decoder.heads.classes."
# The decoders' names, and a field of the config, that only earlier weights have.
EARLIER_KEYS = (
    "instance_decoder.stages.",
    "instance_decoder.project_global.",
    "mask_decoder.laterals.",
)
EARLIER_FIELD = "decoder"


def save(model: MobileInst, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model.safetensors (floats as `dtype`) and config.json into `folder`. ValueError for a fused model."""
    if any(isinstance(m, nn.Identity) and name.endswith(".bn") for name, m in model.named_modules()):
        raise ValueError("save_pretrained: this model is fused; save the one before fuse()")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / "model.safetensors"), {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=1) + "\n")


def load(cls: type[MobileInst], name_or_folder: str | Path, class_names: Sequence[str] | None = None) -> MobileInst:
    """A model of class `cls` in eval mode, float32. `MobileInst.from_pretrained` says what is raised."""
    folder = _folder(name_or_folder)
    config = _config(folder)
    model = cls(config)
    try:
        state = load_file(str(folder / "model.safetensors"))
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is no safetensors file, or cut short: {error}") from None
    _check_state(state, model.state_dict(), folder)
    if class_names is not None and tuple(class_names) != config.class_names:
        model = cls(replace(config, class_names=tuple(class_names), num_classes=len(class_names)))
        state |= _same_classes(state, config.class_names, model)
    model.load_state_dict(state)
    return model.eval()


def _folder(name_or_folder: str | Path) -> Path:
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = weights_folder(str(name_or_folder))
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is no MobileInst folder: {' and '.join(missing)} missing")
    return folder


def _config(folder: Path) -> MobileInstConfig:
    """What config.json says."""
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text())
        if EARLIER_FIELD not in values:
            return MobileInstConfig.from_dict(values)
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no MobileInst config: {error}") from None
    raise _of_an_earlier_release(folder)


def _same_classes(state: dict[str, Tensor], known: Sequence[str], model: MobileInst) -> dict[str, Tensor]:
    """The class head of `model`, with the rows of categories that stand in `known` taken from `state` by name."""
    head = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(CLASS_HEAD)}
    for row, name in enumerate(model.config.class_names):
        if name in known:
            for key, tensor in head.items():
                tensor[row] = state[key][known.index(name)]
    return head


def _of_an_earlier_release(folder: Path) -> ValueError:
    """The error for weights that were written before the decoders got the names that they have now."""
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
            raise ValueError(f"{folder}: the weights lack {key!r}; config.json describes another model")
        if state[key].shape != expected[key].shape:
            shapes = f"{tuple(state[key].shape)} in the file, {tuple(expected[key].shape)} by config.json"
            raise ValueError(f"{folder}: {key!r} has shape {shapes}")
    extra = [key for key in state if key not in expected]
    if extra:
        raise ValueError(
            f"{folder}: the weights hold {extra[0]!r} ({len(extra)} such keys), unknown to config.json's model"
        )
