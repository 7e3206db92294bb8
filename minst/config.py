"""What a MobileInst is made of, as one frozen dataclass: the presets, and switches for ablations.

    MobileInstConfig.preset("topformer-base")               the paper's scale, 100 queries
    MobileInstConfig.preset("shapes-tiny", pooling="avg")   the shipped model, one switch thrown

Only `model.py` reads a config; every other module takes plain keyword arguments.

Lesson: notebooks/00_start_here.ipynb
"""

import dataclasses
import json
from typing import Annotated, Literal, NoReturn, Self, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

__all__ = ["MASK_STRIDE", "MobileInstConfig"]

MASK_STRIDE = 8  # pixels along a cell of X_mask and of the mask logits
Count = Annotated[int, Meta(ge=1, le=2**20)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0, le=1)]


@dataclasses.dataclass(frozen=True)
class MobileInstConfig:
    """All that is needed to rebuild a model. ValueError names the field whose value is bad."""

    backbone: str = "topformer-base"  # a name of minst.backbones.NAMES
    injection: bool = True  # TopFormer: inject X6 into X3..X5 inside the backbone
    # stride of the tokens of X_G and X_L: 64 (paper) or 32 (small frames)
    token_stride: Literal[32, 64] = 64
    num_classes: Count = 80
    class_names: tuple[str, ...] = ()  # in the order of the class logits; empty = not named
    num_queries: Count = 100
    dim: Count = 128  # D: channels of queries, kernels and mask features
    heads: Count = 8  # of every attention of the instance decoder
    pooling: Literal["max", "avg"] = "max"  # X_mask -> X_L: "max" (paper) | "avg"
    normalise_global: bool = True  # a layer norm on X_G, not in the paper: keeps attention alive
    semantic_enhancer: bool = True  # inject X6 into the levels of the mask decoder
    bottom_up: bool = True  # iterative top-down and bottom-up (paper) | top-down only
    pixel_mean: tuple[Share, Share, Share] = (0.485, 0.456, 0.406)  # of ImageNet
    pixel_std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            try:
                # Types are exact: "off" would count as true, and true as a number. But JSON has no
                # tuples, so that a list is taken for one.
                value = msgspec.convert(getattr(self, name), kind)
            except msgspec.ValidationError as error:
                choices = get_args(kind) if get_origin(kind) is Literal else ()
                self._refuse(name, f"choose one of {choices}" if choices else str(error))
            object.__setattr__(self, name, value)
        # The heads share the channels evenly; the position embedding needs fours of them.
        if self.dim % self.heads or self.dim % 4:
            self._refuse("dim", f"it must be a multiple of 4 and of heads ({self.heads})")
        named = len(set(self.class_names))
        if named < len(self.class_names) or named not in (0, self.num_classes):
            self._refuse("class_names", f"{self.num_classes} different ones are needed, or none")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise ValueError(f"config: {name} is {repr(getattr(self, name))[:200]}; {why}")

    @classmethod
    def preset(cls, name: str, **overrides) -> Self:
        """A named config, with single fields replaced. ValueError names what exists."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The inverse of `to_dict`; for an unknown field ValueError names it and the known ones."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = ", ".join(sorted(set(values) - set(known)))
        if unknown:
            raise ValueError(f"config: unknown field(s) {unknown}; known: {', '.join(known)}")
        return cls(**values)

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
