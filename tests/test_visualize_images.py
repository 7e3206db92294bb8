"""minst.visualize.images and controls: what is drawn where, bad input, and controls that redraw in place."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from minst import visualize


def pixels(fig) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(fig.png())).convert("RGB"))


def test_every_kind_of_image_is_drawn():
    red = np.zeros((4, 6, 3), np.uint8) + np.uint8([255, 0, 0])
    frame = torch.zeros(3, 4, 6)
    frame[1] = 1.0  # green, as a model takes it
    fig = visualize.plot_images(
        [red, frame, np.ones((4, 6), bool)], ["a", "b", "c"], head="Three", note="of a kind"
    )
    shown = pixels(fig)
    middle = shown[int(shown.shape[0] * 0.6)]
    assert [tuple(middle[int(x * shown.shape[1])]) for x in (0.16, 0.5, 0.83)] == [
        (255, 0, 0),
        (0, 255, 0),
        (255,) * 3,
    ]
    assert fig.alt == "Three. of a kind" and repr(fig) == "Picture: Three. of a kind"


def test_maps_share_one_scale():
    fig = visualize.plot_images(
        [np.zeros((3, 3)), np.full((3, 3), 0.5), np.ones((3, 3))], values=True
    )
    drawn = [axes.images[0] for axes in fig.axes if axes.images]
    assert {image.get_clim() for image in drawn} == {(0.0, 1.0)}
    assert [text.get_text() for text in fig.axes[1].texts].count("0.50") == 9


def test_rows():
    fig = visualize.plot_images([np.zeros((2, 2), bool)] * 5, columns=2)
    assert len({round(axes.get_position().y0, 3) for axes in fig.axes}) == 3


def test_titles_stand_below_the_middle_of_their_images():
    fig = visualize.plot_images([np.zeros((2, 4), bool)] * 3, ["a", "longer", "c"], columns=2)
    for axes, title in zip(fig.axes, fig.texts[2:], strict=True):
        image, words = axes.get_window_extent(), title.get_window_extent()
        assert words.x0 + words.x1 == pytest.approx(image.x0 + image.x1, abs=4)
        assert image.y0 - 10 < words.y1 <= image.y0


@pytest.mark.parametrize(
    "images, titles, words",
    [
        ([], None, "no images"),
        ([np.zeros(3)], None, r"shape \(3,\)"),
        ([np.zeros((2, 2))], ["a", "b"], "2 titles for 1"),
    ],
)
def test_bad_input(images, titles, words):
    with pytest.raises(ValueError, match=words):
        visualize.plot_images(images, titles)


def test_a_notebook_gets_the_alt_text():
    fig = visualize.new_figure(1.0)
    visualize.headline(fig, "One sentence")
    png, metadata = fig._repr_png_()
    assert png.startswith(b"\x89PNG") and metadata == {"alt": "One sentence"}


def grey(level: int, invert: bool = False):
    if level == 13:
        raise ValueError("thirteen is <unlucky>")
    fig = visualize.new_figure(1.0, 1.0)
    fig.set_facecolor(str((255 - level if invert else level) / 255))
    return fig


def shown(box) -> int:
    return int(np.array(Image.open(io.BytesIO(box.children[1].value)).convert("L"))[5, 5])


def test_interact_redraws_in_place_and_survives_an_error():
    box = visualize.interact(grey, level=((0, 255, 1), 51), invert=False)
    level, invert = box.children[0].children
    picture, trouble = box.children[1:]
    assert level.description == "level" and shown(box) == 51
    level.value = 102
    assert shown(box) == 102
    invert.value = True
    assert shown(box) == 153
    level.value = 13
    assert (
        shown(box) == 153 and trouble.value == "ValueError: thirteen is &lt;unlucky>"
    )  # the picture stays
    level.value = 14
    assert shown(box) == 241 and trouble.value == "" and box.children[1] is picture
    assert callable(visualize.interact)  # still the function, for the next cell


def test_controls():
    from minst.visualize.controls import control

    assert (
        control("reuse_interval", (1, 12)).value == 6
        and control("reuse_interval", (1, 12)).description == "reuse interval"
    )
    box = control("x", ((0.0, 1.0, 0.1), 0.7))
    assert (box.min, box.max, box.step, box.value) == (0, 1, 0.1, 0.7)
    assert control("x", (0, 1, 0.5)).step == 0.5 and control("x", True).value is True
    assert control("x", ["a", "b"]).value == "a" and control("x", {"first": 7}).value == 7
    for bad in (3, "abc", (1,), []):
        with pytest.raises(ValueError, match="x="):
            control("x", bad)
