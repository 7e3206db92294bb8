"""Declared ranges refuse what is outside, and a signature becomes the options that it says."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from minst.options import (
    Count,
    FrameSize,
    Natural,
    NewPicture,
    Positive,
    Range,
    Report,
    Share,
    Size,
    add_options,
    check,
    check_call,
    comments,
)
from minst.recipes import TrainConfig


def parsed(function, *argv, shared=None):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser, function, shared or {})
    return vars(parser.parse_args([str(a) for a in argv]))


@dataclasses.dataclass
class Fields:
    rate: Positive = 0.5  # how fast
    # a comment above,
    # of two lines
    bold: bool = False
    times: Count = 3  # how often


def example(
    first: str,  # what comes first
    more: list[int] = (),  # and all that follows
    *,
    needed: Natural,  # no default
    way: Literal["up", "down"] = "up",
    size: Size = "256x192",  # 100 % of it
    share: Share | None = None,  # of all
    flag: bool = False,  # whether
    from_: str | None = None,  # a word of Python's
    **fields: Fields,
):
    """An example."""
    inside: str = "no parameter"  # of the body
    return inside


def test_a_signature_becomes_arguments_and_options():
    said = parsed(example, "a", "--needed", 0, shared={"way": "where to"})
    assert said == {"first": "a", "more": (), "needed": 0, "way": "up", "size": (192, 256), "share": None,
                    "flag": False, "from_": None}  # fmt: skip
    options = [
        "--way",
        "down",
        "--size",
        "10x20",
        "--share",
        "1",
        "--flag",
        "--from",
        "x",
        "--rate",
        "2",
        "--no-bold",
    ]
    said = parsed(example, "a", "1", "2", "--needed", 7, *options, shared={"way": "where to"})
    assert said == {"first": "a", "more": [1, 2], "needed": 7, "way": "down", "size": (20, 10), "share": 1.0,
                    "flag": True, "from_": "x", "rate": 2.0, "bold": False}  # fmt: skip


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--needed", "-1"], "-1 is out of range: it must be at least 0"),
        (["--needed", "1.5"], "invalid int value: '1.5'"),
        (["--needed", "9" * 400], "is out of range: it must be at least 0"),
        (["--needed", "1", "--share", "nan"], "nan is out of range"),
        (["--needed", "1", "--share", "1.01"], "at least 0 and at most 1"),
        (["--needed", "1", "--rate", "inf"], "inf is out of range: it must be above 0"),
        (["--needed", "1", "--rate", "0"], "0 is out of range"),
        (["--needed", "1", "--way", "left"], "invalid choice: 'left'"),
        (["--needed", "1", "--size", "256"], "'256' is not WIDTHxHEIGHT"),
    ],
)
def test_what_is_out_of_range_is_refused(argv, words):
    with pytest.raises(argparse.ArgumentError, match=words):
        parsed(example, "a", *argv, shared={"way": "where to"})


def test_help_is_the_comment_and_the_default():
    parser = argparse.ArgumentParser()
    add_options(parser, example, {"way": "where to", "flag": "never said: it has a comment"})
    text = " ".join(parser.format_help().split())
    for line in ("first what comes first", "--needed N no default", "--size WxH 100 % of it (default: 256x192)",
                 "--way {up,down} where to (default: up)", "--rate X how fast (default: 0.5)", "--flag whether",
                 "--bold, --no-bold a comment above, of two lines", "--times N how often (default: 3)"):  # fmt: skip
        assert line in text
    assert "None" not in text and "False" not in text and "of the body" not in text


def test_comments_are_those_of_parameters():
    assert comments(Fields) == {
        "rate": "how fast",
        "bold": "a comment above, of two lines",
        "times": "how often",
    }


def test_of_preset_and_weights_one():
    def function(*, preset: str | None = None, weights: str | None = None):
        """Nothing."""

    said = {"preset": "a name", "weights": "a folder"}
    assert parsed(function, "--weights", "w", shared=said) == {"preset": None, "weights": "w"}
    with pytest.raises(argparse.ArgumentError, match="not allowed with"):
        parsed(function, "--weights", "w", "--preset", "p", shared=said)


def test_an_option_that_nobody_explains_is_a_fault_of_ours():
    with pytest.raises(KeyError, match="way"):
        parsed(example, "a", "--needed", 1)


@dataclasses.dataclass
class Checked:
    several: Annotated[float, Range(above=0, most=1)] = 1.0
    which: Literal[1, 2, 4] = 2
    free: str = ""


def test_fields_are_checked():
    check(Checked(), "here")
    with pytest.raises(ValueError, match="here: several is 0; it must be above 0 and at most 1"):
        check(Checked(several=0), "here")
    with pytest.raises(ValueError, match="here: which is 3; choose one of 1, 2, 4"):
        check(Checked(which=3), "here")


def called(
    times: Count = 1,
    share: Share | None = None,
    flag: bool = False,
    text: str = "",
    size: FrameSize | None = None,
    names: tuple[str, ...] | None = None,
    json: Report | None = None,
):
    """Looks at what it is given."""
    check_call(called, locals())


def test_arguments_of_a_function_are_checked():
    called(10**9, 0.5, True)
    called(np.int64(3), np.float32(1), size=(64, 8192), names=("a", "b", "c"))
    called(size=[100, 70], names=())
    called(json="figures.json")
    for wrong, words in (
        ({"times": 0}, "called: times is 0; it must be at least 1"),
        ({"times": 10**400}, "it must be at least 1"),
        ({"times": 2.0}, "times is 2.0; it must be a whole number"),
        ({"times": True}, "times is True; it must be a whole number"),
        ({"times": None}, "times is None; it must be a whole number"),
        ({"share": math.nan}, "share is nan; it must be at least 0 and at most 1"),
        ({"share": "0.5"}, "share is '0.5'; it must be a number"),
        ({"flag": "off"}, "flag is 'off'; it must be True or False"),
        ({"size": 640}, "size is 640; it must be 2 numbers, height and width"),
        ({"size": (64, 64, 64)}, "it must be 2 numbers"),
        ({"size": (64, 8193)}, "it must be at least 64 and at most 8192"),
        ({"size": (63, 64)}, "it must be at least 64 and at most 8192"),
        ({"json": "no/such/folder.json"}, "there is no folder"),
        ({"json": Path(".")}, "is a folder"),
    ):
        with pytest.raises(ValueError, match=words):
            called(**wrong)


NUMBERS = [
    field.name for field in dataclasses.fields(TrainConfig) if isinstance(field.default, float)
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_no_number_of_a_training_may_be_negative_or_no_number(name, value):
    with pytest.raises(ValueError, match=f"training: {name} is {value}; it must be"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    "name, value",
    [
        ("min_scale", 2),
        ("jitter_probability", 1.5),
        ("image_share", 7),
        ("cosine_share", 2),
        ("final_lr", 2),
        ("ema", 1.1),
        ("threads", -1),
        ("height", 100_000),
        ("max_grad_norm", 0),
        ("seed", -1),
        ("workers", -1),
    ],  # fmt: skip
)
def test_nor_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"training: {name} is {value}; it must be"):
        TrainConfig(**{name: value})


def test_a_picture_is_refused_by_its_ending_or_where_it_cannot_be(tmp_path, capsys):
    def draw(
        *,
        out: NewPicture = "a.png",  # the picture
    ):
        pass

    for good in ("a.png", "B.PDF", tmp_path / "new" / "c.svg"):
        assert parsed(draw, "--out", good) == {"out": str(good)}
    (tmp_path / "file").write_text("")
    for bad, word in (("a.jpg", ".png, .pdf or .svg"), ("png", ".pdf"), (tmp_path / "file" / "a.png", "is a file")):
        with pytest.raises(argparse.ArgumentError, match=word):
            parsed(draw, "--out", bad)
