import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minst import MobileInst, MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.model import FrameOutput
from minst.visualize import queries as fig2
from minst.visualize.masks import color_of
from minst.visualize.queries import choose_queries, plot_query_consistency, query_states
from minst.visualize.style import save

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MobileInst(MobileInstConfig.preset("shapes-tiny", class_names=CATEGORIES)).eval()


def blob(y=20, x=30, size=20, shape=(64, 96)):
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


class Scripted:
    """A model that answers with the annotations of CLIP: query 3 + i has instance i, but loses it in frames `lost`."""

    config = SimpleNamespace(class_names=CATEGORIES)
    pixel_mean = torch.zeros(1)

    def __init__(self, lost=(), queries=8):
        self.lost, self.queries, self.t = lost, queries, 0
        self.kernels = torch.nn.functional.one_hot(torch.arange(queries), 16).float()

    def eval(self):
        return self

    def __call__(self, frame):
        masks = torch.from_numpy(CLIP.render(self.t).masks).float()
        small = torch.nn.functional.interpolate(masks[None], size=(12, 16), mode="area")[0]
        logits = torch.full((self.queries, 12, 16), -8.0)
        classes = torch.full((self.queries, 8), -6.0)
        for i in range(len(masks)):
            if (i, self.t) not in self.lost:
                logits[3 + i] = 16 * small[i] - 8
            classes[3 + i, int(CLIP.labels[i])] = 2.0 - i
        self.t += 1
        objectness = torch.full((self.queries,), 3.0)
        return FrameOutput(classes[None], objectness[None], self.kernels[None], None, logits[None], None)


def strip_axes(fig):
    return [axes for axes in fig.axes if axes.get_ylabel().startswith(("frames", "query"))]


def red_frames(axes):
    boxes = [p for p in axes.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [round(p.get_x() + p.get_width() / 2) for p in boxes]


def test_query_states_are_those_of_single_key_frames(model):
    states = query_states(model, CLIP, num_frames=3, start=2)
    assert len(states.images) == 3 and (states.images[0] == CLIP.render(2).image).all()
    with torch.inference_mode():
        frame = torch.from_numpy(CLIP.render(3).image).permute(2, 0, 1).float()[None] / 255
        out = model(frame)
    assert torch.equal(states.kernels[1], out.kernels[0]) and torch.equal(states.mask_logits[1], out.mask_logits[0])
    assert torch.equal(states.scores[1], out.scores()[0])
    assert states.soft_masks(5).shape == (3, 96, 128)
    assert len(query_states(model, CLIP, num_frames=11, start=4).images) == 2  # the video ends
    for bad in ({"start": 6}, {"start": -1}, {"num_frames": 0}):
        with pytest.raises(ValueError):
            query_states(model, CLIP, **bad)


def test_similarity_is_the_cosine_of_kernels(model):
    states = query_states(model, CLIP, num_frames=4)
    for query, other in ((7, None), (7, 2)):
        a, b = (states.kernels[:, q].double().numpy() for q in (query, query if other is None else other))
        expected = [[u @ v / np.sqrt((u @ u) * (v @ v)) for v in b] for u in a]
        np.testing.assert_allclose(states.similarity(query, other), expected, atol=1e-5)


def test_chosen_queries_are_strong_and_of_different_objects():
    logits = torch.full((3, 5, 8, 8), -9.0)
    for query, row in enumerate((0, 2, 4, 6, 2)):  # query 4 segments what query 1 does
        logits[:, query, row : row + 2] = 9.0
    scores = torch.zeros(3, 5, 2)
    scores[:, :, 1] = torch.tensor([0.5, 0.9, 0.6, 0.1, 0.8])
    states = fig2.QueryStates([], scores, torch.zeros(3, 5, 4), logits)
    assert choose_queries(states) == [1, 2, 0]  # not 4, a copy, nor 3, weak
    assert choose_queries(states, count=2) == [1, 2]


def test_fig2_shows_the_frames_the_masks_and_the_similarities(model):
    before = set(sys.modules.get("matplotlib.pyplot").get_fignums()) if "matplotlib.pyplot" in sys.modules else set()
    fig = plot_query_consistency(model, CLIP, num_frames=5, queries=[6, 2, 11], start=1)
    assert isinstance(fig, Figure)
    if "matplotlib.pyplot" in sys.modules:
        assert set(sys.modules["matplotlib.pyplot"].get_fignums()) == before
    rows = strip_axes(fig)
    assert [axes.get_ylabel().split("\n")[0] for axes in rows] == ["frames, masks", "query 6", "query 2", "query 11"]
    states = query_states(model, CLIP, 5, 1)
    images = [im for axes in fig.axes for im in axes.images if im.get_array().shape == (5, 5)]
    for image, query in zip(images, (6, 2, 11), strict=True):
        kernels = torch.nn.functional.normalize(states.kernels[:, query], dim=1)
        np.testing.assert_allclose(image.get_array(), kernels @ kernels.T, atol=1e-5)
    lines = next(axes for axes in fig.axes if axes.get_ylabel().startswith("cosine"))
    curves = [line.get_ydata() for line in lines.lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(curves, [states.similarity(q)[:, 0] for q in (6, 2, 11)], atol=1e-6)
    assert [t.get_text() for t in lines.get_xticklabels()] == ["frame 1", "+1", "+2", "+3", "+4"]
    # the strip of frames: five cells as wide as a frame, tinted in the colours of the queries only
    strip = rows[0].images[0].get_array()
    assert strip.shape[0] == 96 and strip.shape[1] == 5 * (128 + 2 * round(fig2.GAP * 128))


def test_fig2_marks_where_a_query_holds_and_loses_its_instance():
    visible = np.array([CLIP.render(t).masks.any((1, 2)) for t in range(6)])
    assert visible[:, :2].all()  # else choose another clip for these tests
    fig = plot_query_consistency(Scripted(lost=[(1, 2), (1, 5)]), CLIP, num_frames=6)
    rows = {axes.get_ylabel().split("\n")[0]: axes for axes in strip_axes(fig)}
    assert red_frames(rows["query 3"]) == [] and red_frames(rows["query 4"]) == [2, 5]
    assert rows["query 3"].get_ylabel().endswith("held 6 of 6")
    assert rows["query 4"].get_ylabel().endswith("held 4 of 6")
    assert CATEGORIES[CLIP.labels[0]] in rows["query 3"].get_ylabel()
    total, lost = int(visible[:, : len(rows) - 1].sum()), 2
    assert f"held {total - lost} of {total} times" in fig.texts[0].get_text()
    plain = plot_query_consistency(Scripted(lost=[(1, 2)]), [CLIP.render(t).image for t in range(6)])
    assert all(red_frames(axes) == [] for axes in strip_axes(plain))  # nothing to compare with
    assert "held" not in plain.texts[0].get_text()


def test_fig2_compares_with_the_annotations_of_the_frames_it_shows():
    asked = []

    class Watched:
        def __len__(self):
            return len(CLIP)

        def render(self, t):
            asked.append(t)
            return CLIP.render(t)

    model = Scripted()
    model.t = 2
    fig = plot_query_consistency(model, Watched(), num_frames=3, start=2)
    assert sorted(asked) == [2, 2, 3, 3, 4, 4]  # once for the image, once for the annotations
    assert "(100 %)" in fig.texts[0].get_text()


def test_an_instance_that_is_not_visible_is_neither_held_nor_lost():
    soft = np.zeros((4, 10, 10))
    truth = [np.zeros((2, 10, 10), bool) for _ in range(4)]
    for t in (0, 1, 3):
        truth[t][1, 2:6, 2:6] = True
    soft[0, 2:6, 2:6], soft[1, 2:6, 2:4], soft[3, 2:6, 3:4] = 0.9, 0.9, 0.9  # IoU 1, 1/2, 1/4
    assert fig2._fate(soft, truth) == (1, [True, True, None, False])
    assert fig2._fate(soft, None) == (None, [None] * 4)
    assert fig2._fate(soft, [np.zeros((0, 10, 10), bool)] * 4) == (None, [None] * 4)


def test_the_window_is_tight_inside_and_of_the_frames_shape():
    ever = np.zeros((90, 120), bool)
    ever[60:89, 100:120] = True
    rows, columns = fig2._window(ever)
    assert rows.start <= 60 and rows.stop == 90 and columns.start <= 100 and columns.stop == 120
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert height < 40 and abs(width / height - 120 / 90) < 0.06
    assert fig2._window(np.zeros((90, 120), bool)) == (slice(0, 90), slice(0, 120))


def test_fig2_of_odd_videos_and_bad_queries(model, tmp_path):
    one = plot_query_consistency(model, CLIP, num_frames=1, queries=[0])
    save(one, tmp_path / "one.png")
    assert "nan" not in [text.get_text() for axes in one.axes for text in axes.texts]  # no pair of frames, no mean
    odd = [np.full((70, 101, 3), 90, np.uint8)] * 3
    save(plot_query_consistency(model, odd), tmp_path / "odd.svg")
    for queries in ([], [20], [0, 1, 2, 3, 4], [-1]):
        with pytest.raises(ValueError, match="give 1 to 4 of 0..19"):
            plot_query_consistency(model, CLIP, queries=queries)


def test_save_writes_three_formats_and_replaces(model, tmp_path):
    fig = plot_query_consistency(Scripted(), CLIP, num_frames=6)
    for suffix, head in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        path = tmp_path / "new" / f"fig{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        assert save(fig, path).read_bytes().startswith(head)
    assert 1350 < matplotlib.image.imread(tmp_path / "new" / "fig.png").shape[1] < 1450  # README's width
    with pytest.raises(ValueError, match="png"):
        save(fig, tmp_path / "fig.bmp")


def test_on_the_frames_a_query_has_one_color_and_copies_of_it_are_left_out():
    image = np.full((64, 96, 3), 128, np.uint8)
    logits = torch.full((2, 9, 8, 12), -9.0)
    logits[:, 7, 1:4, 1:4] = 9.0  # chosen
    logits[:, 2, 1:4, 1:4] = 9.0  # its copy, of better score
    logits[0, 5, 5:7, 6:10] = logits[1, 5, 1:4, 6:10] = 9.0  # another object
    scores = torch.zeros(2, 9, 1)
    scores[:, [2, 5, 7], 0] = torch.tensor([0.9, 0.8, 0.5])
    states = fig2.QueryStates([image, image], scores, torch.zeros(2, 9, 4), logits)

    def tint(picture, y, x):  # of a pixel: what the opaque part of its colour must have been
        return (picture[y, x] - 0.35 * 166) / 0.65

    first, second = (fig2._colored(states, t, [7]).astype(float) for t in range(2))
    for picture in (first, second):
        assert np.abs(tint(picture, 20, 20) - color_of(1)).max() < 3
    assert np.abs(tint(first, 48, 64) - tint(second, 20, 64)).max() < 3  # the other one keeps its colour as well
    assert np.abs(tint(first, 48, 64) - color_of(1)).max() > 40
    scores[0, 5] = 0.2  # weak
    assert np.ptp(fig2._colored(states, 0, [7])[48, 64]) == 0  # grey: not drawn
