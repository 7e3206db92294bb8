"""Words in scripts that the usual fonts lack, on films and on figures."""

import json
import logging
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from minst.visualize import draw_frame, fonts, headline, new_figure, preview_dataset, save

WORD = "자동차"


@pytest.fixture
def machine(monkeypatch):
    """What fonts the machine has is what the test says."""

    def has(*paths):
        monkeypatch.setattr(fonts, "find_spec", lambda name: None)
        there = [str(p) for p in paths]
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda at=None: there if at is None else [])
        fonts._font_with.cache_clear()
        fonts._warn.cache_clear()

    has()
    yield has
    fonts._font_with.cache_clear()


@pytest.fixture
def hangul(tmp_path):
    """A font whose three Hangul letters are black squares, above each other's place."""
    pen = TTGlyphPen(None)
    for point in ((50, 0), (50, 700), (950, 700), (950, 0)):
        (pen.lineTo if pen.points else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"h{i}" for i in range(len(WORD))), *(f"a{i}" for i in range(32, 127))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    letters = {ord(c): f"h{i}" for i, c in enumerate(WORD)}
    builder.setupCharacterMap(letters | {i: f"a{i}" for i in range(32, 127)})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "Squares-Regular.ttf")
    return tmp_path / "Squares-Regular.ttf"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (WORD, "ja-dong-ca"),
        ("1 자동차 0.9", "1 ja-dong-ca 0.9"),
        ("車", "U+8ECA"),
        ("рыба é\n→", "рыба é\n→"),
        ("車\nx", "U+8ECA\nx"),
        ("fish", "fish"),
    ],
)
def test_without_a_font_words_are_spelled_out_and_that_is_said_once(machine, caplog, text, spelled):
    with caplog.at_level(logging.WARNING, "minst"):
        assert fonts.legible(text) == spelled
        fonts.legible(text)
    assert len(caplog.records) == (spelled != text)
    assert all("fonts-noto-cjk" in message for message in caplog.messages)


def test_a_font_of_the_machine_that_covers_the_words_is_taken(machine, hangul, tmp_path):
    broken = tmp_path / "Regular-broken.ttf"
    broken.write_bytes(b"no font")
    machine(broken, font_manager.findfont("DejaVu Sans Mono"), hangul)
    assert fonts.font_for(WORD) == str(hangul) and fonts.legible(WORD) == WORD
    assert fonts.font_for(WORD + "車") is None
    black = np.zeros((100, 300, 3), np.uint8)
    mask = np.zeros((100, 300), bool)
    mask[50:, 100:200] = True
    tags = [draw_frame(black, [mask], [1], [text], scale=1)[:48] for text in (WORD, "x")]
    white = [(tag > 250).all(-1).sum() for tag in tags]
    assert white[0] > 200 > 3 * white[1]  # three squares of some 8 by 11 pixels


def test_the_font_of_the_extra_is_found(machine, hangul, monkeypatch):
    monkeypatch.undo()
    package = SimpleNamespace(submodule_search_locations=[str(hangul.parent)])
    monkeypatch.setattr(fonts, "find_spec", {"koreanize_matplotlib": package}.get)
    monkeypatch.setattr(fonts, "USUAL", fonts.USUAL)
    fonts._font_with.cache_clear()
    assert fonts.font_for(WORD) and fonts.legible(WORD) == WORD


def test_figures_draw_every_script_without_a_warning_of_matplotlib(machine, hangul, tmp_path):
    fig = new_figure(1)
    headline(fig, WORD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(fig, tmp_path / "spelled.png")
    assert fig.texts[0].get_text() == "ja-dong-ca"
    machine(hangul)
    fig = new_figure(1)
    headline(fig, WORD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(fig, tmp_path / "drawn.png", dpi=100)
    assert fig.texts[0].get_text() == WORD
    dark = np.asarray(Image.open(tmp_path / "drawn.png").convert("L"))[:35] < 60
    assert dark.sum() > 3 * 150  # squares are fuller than letters


def test_the_sheet_of_a_data_set_with_korean_names(machine, tmp_path):
    (tmp_path / "JPEGImages" / "v").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages/v/0.jpg")
    video = {"id": 1, "width": 64, "height": 48, "length": 1, "file_names": ["v/0.jpg"]}
    code = {"size": [48, 64], "counts": [0, 100, 2972]}
    row = {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": [code]}
    row |= {"bboxes": [None], "areas": [100]}
    data = {"videos": [video], "categories": [{"id": 1, "name": WORD}], "annotations": [row]}
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(preview := preview_dataset(tmp_path), tmp_path / "sheet.png")
    assert "1 ja-dong-ca" in [text.get_text() for text in preview.texts]
