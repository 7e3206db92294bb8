import io

import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from minst.visualize.style import headline, new_figure, save


def test_a_notebook_shows_a_figure_without_any_magic():
    fig = new_figure(2.0, 5.0)
    headline(fig, "a head", "a note")
    assert isinstance(fig, Figure)
    data, _ = DisplayFormatter().format(fig)
    assert Image.open(io.BytesIO(data["image/png"])).size == (500, 200)
    assert [text.get_text() for text in fig.texts] == ["a head", "a note"]


@pytest.mark.parametrize(
    "suffix, head", [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")]
)
def test_save_writes_three_formats_into_new_folders(tmp_path, suffix, head):
    assert save(new_figure(1.0), tmp_path / "new" / f"fig{suffix}").read_bytes().startswith(head)


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(ValueError, match=r"fig.bmp: write .png, .pdf or .svg"):
        save(new_figure(1.0), tmp_path / "fig.bmp")
