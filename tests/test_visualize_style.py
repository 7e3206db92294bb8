import io

import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from minst.visualize.style import bare, headline, new_figure, save


def test_a_notebook_shows_a_figure_without_any_magic():
    fig = new_figure(2.0, 5.0)
    headline(fig, "a head", "a note")
    assert isinstance(fig, Figure)
    data, _ = DisplayFormatter().format(fig)
    assert Image.open(io.BytesIO(data["image/png"])).size == (500, 200)
    assert [text.get_text() for text in fig.texts] == ["a head", "a note"]


def inches(fig, box):
    """(left, top, width, height) of a box in pixels."""
    return [n / fig.dpi for n in (box.x0, fig.bbox.y1 - box.y1, box.width, box.height)]


def test_a_figure_grows_and_what_it_holds_stays_in_place():
    fig = new_figure()
    headline(fig, "a head")
    title = inches(fig, fig.texts[0].get_window_extent())
    first = fig.place(1, 0.7, 2, 1.5, below=0.3)
    assert fig.get_size_inches() == pytest.approx((9.4, 2.5))
    words = fig.write(4, 2.2, "below")
    second = fig.place(3.5, 3, 1, 0.5)
    assert fig.get_size_inches() == pytest.approx((9.4, 3.6))
    fig.place(0, 0, 1, 1)  # for which there is room
    assert fig.get_figheight() == pytest.approx(3.6)
    assert inches(fig, first.get_window_extent()) == pytest.approx([1, 0.7, 2, 1.5])
    assert inches(fig, second.get_window_extent()) == pytest.approx([3.5, 3, 1, 0.5])
    assert inches(fig, fig.texts[0].get_window_extent()) == pytest.approx(title, abs=0.02)
    assert title[:2] == pytest.approx([0.11, 0.1], abs=0.05)
    assert inches(fig, words.get_window_extent())[:2] == pytest.approx([4, 2.2], abs=0.05)
    assert new_figure(5.0).place(1, 1, 1, 1).figure.get_figheight() == 5.0  # as high as asked for


def test_bare_axes_keep_their_caption():
    axes = bare(new_figure().place(0, 0, 1, 1))
    axes.set_ylabel("words")
    assert not axes.get_xticks().size and not any(s.get_visible() for s in axes.spines.values())
    assert axes.axison and axes.yaxis.label.get_visible()


@pytest.mark.parametrize(
    "suffix, head", [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")]
)
def test_save_writes_three_formats_into_new_folders(tmp_path, suffix, head):
    assert save(new_figure(1.0), tmp_path / "new" / f"fig{suffix}").read_bytes().startswith(head)


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(ValueError, match=r"fig.bmp: write .png, .pdf or .svg"):
        save(new_figure(1.0), tmp_path / "fig.bmp")
