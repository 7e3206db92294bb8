"""Weights as files, which never run code: a whole model as a folder with config.json and
model.safetensors, or the public checkpoint of a backbone.

    save(model, folder, dtype)          what `MobileInst.save_pretrained` does
    load(cls, name_or_folder, …)        what `MobileInst.from_pretrained` does
    load_backbone_weights(backbone, f)  a backbone alone, from .safetensors, .pth or .pt

Lesson: notebooks/10_capstone.ipynb
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from minst.config import MobileInstConfig
from minst.data.files import read_json, replacing
from minst.samples import weights_folder

__all__ = ["load", "load_backbone_weights", "save", "trained_side"]

CONFIG, TENSORS = "config.json", "model.safetensors"
# Beside the model's fields in config.json: [height, width] of the frames in training, where known.
SIZE_FIELD = "size"
CLASS_HEAD = "instance_decoder.heads.classes."


def save(model: nn.Module, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write model.safetensors (floats as `dtype`) and config.json; ValueError if it is fused."""
    modules = model.named_modules()
    if any(isinstance(m, nn.Identity) and name.endswith(".bn") for name, m in modules):
        raise ValueError("save_pretrained: this model is fused; save the one before fuse()")
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    state = {key: v.to(dtype) if v.is_floating_point() else v for key, v in state.items()}
    values = model.config.to_dict()
    if model.trained_size:
        values[SIZE_FIELD] = list(model.trained_size)
    # As bytes, since a file that safetensors makes itself can be read by its owner alone.
    with replacing(Path(folder) / TENSORS) as beside:
        beside.write_bytes(to_bytes(state, {"format": "pt"}))
    with replacing(Path(folder) / CONFIG) as beside:
        beside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def load(
    cls: type[nn.Module], name_or_folder: str | Path, class_names: Sequence[str] | None = None
) -> nn.Module:
    """A model in eval mode, float32. `MobileInst.from_pretrained` says what is raised."""
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = weights_folder(str(name_or_folder))
    missing = " and ".join(name for name in (CONFIG, TENSORS) if not (folder / name).is_file())
    if missing:
        raise FileNotFoundError(f"{folder} is no MobileInst folder: {missing} missing")
    config, size = _read_config(folder / CONFIG)
    # Absurd numbers cost nothing so far: a model on "meta" has shapes alone.
    with torch.device("meta"):
        expected = cls(config).state_dict()
    state = _read_tensors(folder / TENSORS, expected)
    model = cls(config)
    if class_names is not None and tuple(class_names) != config.class_names:
        model = cls(replace(config, class_names=tuple(class_names), num_classes=len(class_names)))
        # Rows of the class head that both know are kept; those of new categories start as they are.
        for key, head in model.state_dict().items():
            if key.startswith(CLASS_HEAD):
                known, state[key] = state[key], head.clone()
                for row, name in enumerate(class_names):
                    if name in config.class_names:
                        state[key][row] = known[config.class_names.index(name)]
    model.load_state_dict(state)
    model.trained_size = size
    return model.eval()


def _read_config(file: Path) -> tuple[MobileInstConfig, tuple[int, int] | None]:
    """What config.json says of the model, and the size of frames that it was trained at."""
    try:
        values = read_json(file)
        if not isinstance(values, dict):
            raise TypeError("it holds no object {...}")
        size = values.pop(SIZE_FIELD, None)
        sides = size if isinstance(size, list) else []
        fits = len(sides) == 2 and all(type(n) is int and 64 <= n <= 8192 for n in sides)
        if not (size is None or fits):
            raise ValueError(f"{SIZE_FIELD} is {size!r}, not a height and a width of frames")
        return MobileInstConfig.from_dict(values), size and tuple(size)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no MobileInst config: {error}") from None


def _read_tensors(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, whose header is compared before anything is read."""
    try:
        with safe_open(file, "pt") as header:
            keys = header.keys()
            found = {key: tuple(header.get_slice(key).get_shape()) for key in keys}
        _compare(file, found, expected, "in the model that config.json describes")
        return load_file(file)
    except SafetensorError as error:
        what = f"{file} is no safetensors file, or cut short: {error}"
        raise ValueError(what) from None


def _compare(file: Path, found: Mapping, expected: Mapping[str, Tensor], where: str) -> None:
    """ValueError for the first key whose shapes (found) and tensors (expected) differ."""
    for key in [*expected, *found]:
        wanted = tuple(expected[key].shape) if key in expected else "missing"
        there = found.get(key, "missing")
        if there != wanted:
            raise ValueError(f"{file}: {key} is {there} in the file, {wanted} {where}")


def trained_side(model) -> int | None:
    """The shorter side of the frames of a model's training, None where its weights do not know."""
    trained = getattr(model, "trained_size", None)  # a model of others has none
    return min(trained) if trained else None


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> tuple[list[str], list[str]]:
    """Fill a backbone of `build` from a checkpoint: .safetensors, or tensors that torch has saved.

    Returns as `load_state_dict` does missing_keys, which keep their values, and unexpected_keys.
    Raises FileNotFoundError, or ValueError that names the first key at fault; nothing is changed.
    """
    state = _read_backbone(Path(path))
    expected = backbone.state_dict()
    # A part that no ImageNet checkpoint has may be missing, but only as a whole.
    if not any(key.startswith(backbone.optional_keys) for key in state):
        expected = {k: v for k, v in expected.items() if not k.startswith(backbone.optional_keys)}
    # A classifier, say, is in the file alone: that is no fault.
    found = {key: tuple(value.shape) for key, value in state.items() if key in expected}
    where = "in the backbone; is it a checkpoint of another backbone or size?"
    _compare(Path(path), found, expected, where)
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
