"""Config: presets, validation that names the field, the way to JSON and back."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minst import backbones
from minst.config import PRESETS, MobileInstConfig


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name):
    config = MobileInstConfig.preset(name)
    assert config.backbone in backbones.NAMES
    assert MobileInstConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_presets_cover_every_backbone_at_paper_scale_and_one_small_model():
    assert {PRESETS[name]["backbone"] for name in PRESETS} == set(backbones.NAMES)
    assert all(MobileInstConfig.preset(name).num_queries == 100 for name in backbones.NAMES)
    assert all(MobileInstConfig.preset(name).token_stride == 64 for name in backbones.NAMES)
    small = MobileInstConfig.preset("shapes-tiny")
    assert (small.backbone, small.token_stride, small.num_queries) == ("topformer-tiny", 32, 20)


@given(st.fixed_dictionaries({}, optional={
    "normalise_global": st.booleans(),
    "pooling": st.sampled_from(["max", "avg"]),
    "token_stride": st.sampled_from([32, 64]),
    "semantic_enhancer": st.booleans(),
    "bottom_up": st.booleans(),
    "injection": st.booleans(),
    "num_queries": st.integers(1, 500),
    "pixel_mean": st.tuples(*[st.floats(0, 1)] * 3),
}))  # fmt: skip
def test_overrides_replace_single_fields_and_round_trip(fields):
    config = MobileInstConfig.preset("shapes-tiny", **fields)
    expected = {**MobileInstConfig.preset("shapes-tiny").to_dict(), **json.loads(json.dumps(fields))}
    assert config.to_dict() == expected
    assert MobileInstConfig.from_dict(config.to_dict()) == config and hash(config) is not None


@pytest.mark.parametrize("field, value", [
    ("decoder", "local"), ("pooling", "median"), ("token_stride", 16), ("num_classes", 0), ("num_queries", -1),
    ("num_queries", 2.0), ("dim", "64"), ("heads", 0), ("heads", 7), ("dim", 66), ("class_names", ("cat", "dog")),
    ("injection", "off"), ("bottom_up", 1), ("num_classes", True), ("dim", 4_000_000), ("num_queries", 10**40),
    ("heads", 10**9), ("backbone", 7), ("pixel_mean", (0.5, 0.5)), ("pixel_mean", (0.5, math.nan, 0.5)),
    ("pixel_std", (0.2, 0, 0.2)), ("pixel_std", "abc"), ("class_names", (1,) * 80), ("class_names", ("cat",) * 80),
])  # fmt: skip
def test_a_bad_value_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=rf"config: .*\b{field}\b"):
        MobileInstConfig.preset("topformer-tiny", **{field: value})


def test_unknown_names_are_refused_and_the_known_ones_listed():
    with pytest.raises(ValueError, match="no preset 'resnet'.*shapes-tiny"):
        MobileInstConfig.preset("resnet")
    with pytest.raises(ValueError, match="unknown field.*querys.*num_queries"):
        MobileInstConfig.from_dict({"querys": 5})
    with pytest.raises(ValueError, match="dim is 6; it must be a multiple of 4"):  # the position embedding needs it
        MobileInstConfig(dim=6, heads=3)
    with pytest.raises(ValueError, match="class_names is .*; 1 different ones are needed"):
        MobileInstConfig(num_classes=1, class_names=("cat", "cat"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        MobileInstConfig().dim = 8
