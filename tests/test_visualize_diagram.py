import xml.etree.ElementTree as ET

import numpy as np
import pytest

from minst.data.shapes import CATEGORIES
from minst.samples import load_sample
from minst.tracking import FrameResult, encode_mask
from minst.visualize import diagram
from minst.visualize.recording import Replay, Settings

SVG = "{http://www.w3.org/2000/svg}"


class Recorded:
    """What a replay asks of a recording: five frames of two squares, 20 x 30 pixels, one of which changes its place."""

    class config:
        class_names = ("fish", "<b>")

    def __init__(self, annotated=True):
        self.left, self.right = np.zeros((2, 20, 30), bool)
        self.left[5:12, 2:9], self.right[5:12, 20:28] = True, True
        self.truth = [np.stack([self.left, self.right])] * 5 if annotated else None

    def __len__(self):
        return 5

    def masks(self, t):
        return self.truth[t]


def frame(t, found):
    """found: (id, query, mask) each."""
    ids, queries, masks = zip(*found) if found else ((), (), ())
    codes = [encode_mask(mask) for mask in masks]
    return FrameResult(
        t, t % 2 == 0, list(ids), [0] * len(ids), [0.9] * len(ids), codes, list(queries)
    )


@pytest.fixture(params=[True, False], ids=["annotated", "not"])
def recorded(request):
    return Recorded(request.param)


def replay_of(recorded):
    left, right = recorded.left, recorded.right
    return Replay(recorded, Settings(2), [
        frame(0, [(1, 0, left), (2, 1, right)]),
        frame(1, [(1, 0, left), (2, 1, right)]),
        frame(2, [(1, 2, left), (2, 1, right)]),  # query 2 takes over identity 1
        frame(3, [(1, 2, left)]),  # 2 is lost
        frame(4, [(1, 2, right)]),  # and 1 jumps to its object
    ])  # fmt: skip


def chart(replay, query=0, t=1):
    own, every = np.array([1, 0.9, 0.2, 0.1, 0.0]), np.tile([1, 0.4, 0.3], (5, 1))
    return ET.fromstring(diagram.chart(replay, Recorded.config.class_names, query, t, own, every))


def test_a_cell_for_every_frame_that_sees_an_identity_can_be_clicked(recorded):
    picks = [
        cell.get("data-pick")
        for cell in chart(replay_of(recorded)).iter(f"{SVG}rect")
        if cell.get("data-pick")
    ]
    assert sorted(p for p in picks if p.endswith(",1")) == [f"{t},1" for t in range(5)]
    assert sorted(p for p in picks if p.endswith(",2")) == [f"{t},2" for t in range(3)]
    assert sorted(p for p in picks if p.endswith(",0")) == sorted(
        [f"{t},0" for t in range(5)] * 2
    )  # two strips


def test_events_stand_in_their_frame_and_row_and_need_annotations(recorded):
    marks = {}
    for group in chart(replay_of(recorded)).iter(f"{SVG}g"):
        if group.get("class"):
            marks.setdefault(group.get("class"), []).append(group.find(f"{SVG}title").text)
    assert marks["handover"] == ["frame 3: query 2 takes over from query 0"]
    if recorded.truth is None:
        assert set(marks) == {"handover"}
    else:
        assert marks["swap"] == ["frame 5: this object was identity 2"]
        assert set(marks["lost"]) == {f"frame {t}: its object is visible, but lost" for t in (4, 5)}


def test_the_selected_query_is_underlined_where_it_serves(recorded):
    for query, count in ((0, 2), (1, 3), (2, 3)):
        lines = [
            r
            for r in chart(replay_of(recorded), query).iter(f"{SVG}rect")
            if r.get("class") == "selected"
        ]
        assert len(lines) == count


def test_the_cursor_is_on_its_frame(recorded):
    def cursor(t):
        return next(
            r for r in chart(replay_of(recorded), t=t).iter(f"{SVG}rect") if r.get("fill") == "none"
        )

    width = float(cursor(1).get("x")) - float(cursor(0).get("x"))
    assert float(cursor(4).get("x")) == pytest.approx(
        float(cursor(0).get("x")) + 4 * width, abs=0.2
    )


def test_strips_are_brighter_where_kernels_are_more_alike(recorded):
    cells = [
        r
        for r in chart(replay_of(recorded)).iter(f"{SVG}rect")
        if r.find(f"{SVG}title") is not None
    ][:5]
    light = [sum(int(cell.get("fill")[i : i + 2], 16) for i in (1, 3, 5)) for cell in cells]
    assert light == sorted(light, reverse=True) and light[0] > light[-1]
    assert cells[2].find(f"{SVG}title").text == "frame 3: cosine 0.20"


def test_words_are_escaped_and_the_legend_fits_what_is_drawn(recorded):
    text = " ".join(chart(replay_of(recorded)).itertext())
    assert ("identities swapped" in text) == (recorded.truth is not None)
    names = ("<i>", "b")
    drawn = diagram.chart(replay_of(recorded), names, 0, 0, np.ones(5), np.ones((5, 3)))
    assert "&lt;i&gt;" in drawn and "<i>" not in drawn


def test_without_tracks_or_rivals_the_chart_still_stands(recorded):
    empty = Replay(recorded, Settings(2), [frame(t, []) for t in range(5)])
    drawn = ET.fromstring(diagram.chart(empty, (), 0, 0, np.ones(5), np.ones((5, 1))))
    text = " ".join(drawn.itertext())
    assert "no identity in any frame" in text and "rival" not in text


def test_many_identities_are_cut_to_the_longest():
    recorded = Recorded(annotated=False)
    frames = [
        frame(t, [(i, 0, recorded.left) for i in range(1, 13) if i != 1 or t == 0])
        for t in range(5)
    ]
    text = " ".join(chart(Replay(recorded, Settings(2), frames)).itertext())
    assert "and 2 shorter ones" in text and "1 fish" not in text.replace("11 fish", "")


def test_the_halo_surrounds_the_mask_at_its_size_on_the_page():
    mask = np.zeros((20, 30), bool)
    mask[5:12, 3:9] = True
    box = ET.fromstring(diagram.svg(300, 200, diagram.halo(mask, 300, 200))).find(f"{SVG}rect")
    x, y, w, h = (float(box.get(name)) for name in ("x", "y", "width", "height"))
    assert (x, y, x + w, y + h) == (30 - 7, 50 - 7, 90 + 7, 120 + 7)


def test_sample_names_of_classes_are_those_of_the_model():
    assert load_sample("easy").categories == CATEGORIES
