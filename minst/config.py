"""What a MobileInst is made of, as one frozen dataclass: the presets, and switches for ablations.

    MobileInstConfig.preset("topformer-base")               the paper's scale, 100 queries
    MobileInstConfig.preset("shapes-tiny", pooling="avg")   the shipped model, one switch thrown

Only `model.py` reads a config; every other module takes plain keyword arguments.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import dataclasses
import json

__all__ = ["MASK_STRIDE", "MobileInstConfig"]

MASK_STRIDE = 8  # pixels along a cell of X_mask and of the mask logits


@dataclasses.dataclass(frozen=True)
class MobileInstConfig:
    """All that is needed to rebuild a model. ValueError names the field whose value is bad."""

    backbone: str = "topformer-base"  # a name of minst.backbones.NAMES
    injection: bool = True  # TopFormer: inject X6 into X3..X5 inside the backbone
    token_stride: int = 64  # stride of the tokens of X_G and X_L: 64 (paper) or 32 (small frames)
    num_classes: int = 80
    class_names: tuple[str, ...] = ()  # in the order of the class logits; empty = not named
    num_queries: int = 100
    dim: int = 128  # D: channels of queries, kernels and mask features
    heads: int = 8  # of every attention of the instance decoder
    pooling: str = "max"  # X_mask -> X_L: "max" (paper) | "avg"
    normalise_global: bool = True  # a layer norm on X_G, not in the paper: keeps attention alive
    semantic_enhancer: bool = True  # inject X6 into the levels of the mask decoder
    bottom_up: bool = True  # iterative top-down and bottom-up (paper) | top-down only
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for field, allowed in {"pooling": ("max", "avg"), "token_stride": (32, 64)}.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"config: {field} is {value!r}; choose one of {allowed}")
        for field in ("num_classes", "num_queries", "dim", "heads"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"config: {field} is {value!r}, not a positive whole number")
        # The heads share the channels evenly; the position embedding needs fours of them.
        dim, heads, named = self.dim, self.heads, len(self.class_names)
        if dim % heads or dim % 4:
            raise ValueError(f"config: dim {dim} must be a multiple of 4 and of heads ({heads})")
        if named and named != self.num_classes:
            raise ValueError(f"config: {named} class_names for num_classes {self.num_classes}")

    @classmethod
    def preset(cls, name: str, **overrides) -> MobileInstConfig:
        """A named config, with single fields replaced. ValueError names what exists."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict) -> MobileInstConfig:
        """The inverse of `to_dict`; for an unknown field ValueError names it and the known ones."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = ", ".join(sorted(set(values) - set(known)))
        if unknown:
            raise ValueError(f"config: unknown field(s) {unknown}; known: {', '.join(known)}")
        # JSON knows lists alone; a frozen config needs tuples.
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict:
        """Plain values, as they stand in config.json."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


# Assumption: 100 queries, 8 heads, D = 128 channels (96 with the tiny backbones; `shapes-tiny`: 20
# queries, D = 64). The paper's text names none of them.
PRESETS = {
    "topformer-tiny": {"backbone": "topformer-tiny", "dim": 96},
    "topformer-small": {"backbone": "topformer-small"},
    "topformer-base": {"backbone": "topformer-base"},
    "seaformer-tiny": {"backbone": "seaformer-tiny", "dim": 96},
    "seaformer-small": {"backbone": "seaformer-small"},
    "seaformer-base": {"backbone": "seaformer-base"},
    "mobilenetv2": {"backbone": "mobilenetv2"},
    "mobilenetv2-0.6": {"backbone": "mobilenetv2-0.6"},
    "shapes-tiny": {"backbone": "topformer-tiny", "num_classes": 8, "num_queries": 20, "dim": 64},
}
# Deviation: the paper's stride of 64 leaves 12 tokens of a 256 x 192 frame; 32 leaves 48.
PRESETS["shapes-tiny"]["token_stride"] = 32
