import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minst import MobileInst, MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.model import Frame, FrameOutput
from minst.visualize import queries as fig2
from minst.visualize.masks import color_of
from minst.visualize.queries import (
    choose_queries,
    class_probabilities,
    plot_query_consistency,
)
from minst.visualize.recording import Recording, read_frames
from minst.visualize.style import RED, rgb, save

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MobileInst(MobileInstConfig.preset("shapes-tiny", class_names=CATEGORIES)).eval()


def query_states(model, video, num_frames=11):
    return Recording(model, read_frames(video, frames=range(num_frames)))


def blob(y=20, x=30, size=20, shape=(64, 96)):
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


def recorded(logits, scores, kernels=None, images=(), probabilities=None, names=()):
    """A Recording in which it was said: logits (T, N, h, w), scores and probabilities (T, N, K)."""
    found = object.__new__(Recording)
    T, N, h, w = logits.shape
    found.kernels = torch.eye(N).expand(T, N, N)  # so that feature n is the mask of query n
    found.frames = [Frame(None, None, masks[None], None, (8 * h, 8 * w)) for masks in logits]
    found.class_scores, found.scores = scores, scores.amax(-1)
    found.probabilities = scores if probabilities is None else probabilities
    found.images = images or [np.zeros((8 * h, 8 * w, 3), np.uint8)] * T
    found.config = SimpleNamespace(class_names=names)
    return found


class Scripted:
    """A model that answers with the annotations of CLIP: query 3 + i has instance i, in frame t instance holds[i, t].

    `holds` may name another one, or None for an empty mask.
    """

    config = SimpleNamespace(class_names=CATEGORIES)
    pixel_mean = torch.zeros(1)

    def __init__(self, holds=None, queries=8, first=3, start=0):
        self.holds, self.queries, self.first, self.t = holds or {}, queries, first, start
        self.objectness = 3.0
        self.kernels = torch.nn.functional.one_hot(torch.arange(queries), 16).float()

    def eval(self):
        return self

    def encode(self, frame):
        out, features = self(frame), torch.zeros(1, 16, 12, 16)
        features[0, : self.queries] = out.mask_logits[0]  # kernels are one-hot
        found = Frame(self, frame, features, None, (96, 128))
        found.out = out
        return found

    def __call__(self, frame):
        masks = torch.from_numpy(CLIP.render(self.t).masks).float()
        small = torch.nn.functional.interpolate(masks[None], size=(12, 16), mode="area")[0]
        logits = torch.full((self.queries, 12, 16), -8.0)
        classes = torch.full((self.queries, 8), -6.0)
        for i in range(len(masks)):
            instance = self.holds.get((i, self.t), i)
            if instance is not None:
                logits[self.first + i] = 16 * small[instance] - 8
            classes[self.first + i, int(CLIP.labels[i])] = 2.0 - i
        self.t += 1
        objectness = torch.full((self.queries,), self.objectness)
        return FrameOutput(
            classes[None], objectness[None], self.kernels[None], None, logits[None], None
        )


def strip_axes(fig):
    return [axes for axes in fig.axes if "query" in axes.get_ylabel()]


def rows_of(fig):
    """{query: its row of masks}"""
    words = {axes: re.search(r"query (\d+)", axes.get_ylabel()) for axes in fig.axes}
    return {int(found[1]): axes for axes, found in words.items() if found}


def red_frames(axes):
    boxes = [p for p in axes.patches if isinstance(p, Rectangle) and not p.get_fill()]
    assert [to_hex(p.get_edgecolor()) for p in boxes] == [RED] * len(boxes)
    return [round(p.get_x() + p.get_width() / 2) for p in boxes]


def tags(axes):
    return [text.get_text() for text in axes.texts if text.get_text().startswith("×")]


def shares_of(fig):
    """What is written beside each row of how often its query holds its instance."""
    words = [axes.get_ylabel().split("\n")[-1] for axes in rows_of(fig).values()]
    return [line for line in words if line.startswith("held")]


def test_query_states_are_those_of_single_key_frames(model):
    states = query_states(model, CLIP, num_frames=3)
    assert len(states.images) == 3 and (states.images[0] == CLIP.render(0).image).all()
    with torch.inference_mode():
        frame = torch.from_numpy(CLIP.render(1).image).permute(2, 0, 1).float()[None] / 255
        out = model(frame)
    torch.testing.assert_close(states.kernels[1], out.kernels[0])
    torch.testing.assert_close(states.mask_logits(1), out.mask_logits[0])
    torch.testing.assert_close(states.class_scores[1], out.scores()[0])
    torch.testing.assert_close(states.scores[1], out.scores()[0].amax(-1))
    torch.testing.assert_close(states.probabilities[1], out.class_logits[0].sigmoid())
    assert states.soft_mask(5, 1, 1).shape == (96, 128)
    assert len(query_states(model, CLIP, num_frames=11).images) == 6  # the video ends
    for video, count in ((CLIP, 0), ([], 3)):
        with pytest.raises(ValueError):
            query_states(model, video, count)


def test_similarity_is_the_cosine_of_kernels(model):
    states = query_states(model, CLIP, num_frames=4)
    row = fig2._row(states, 7, {2: 2, 7: 1}, None, None)

    def cosine(query, other):
        a, b = (states.kernels[:, q].double().numpy() for q in (query, other))
        return [[u @ v / np.sqrt((u @ u) * (v @ v)) for v in b] for u in a]

    np.testing.assert_allclose(row.similarity, cosine(7, 7), atol=1e-5)
    np.testing.assert_allclose(row.others, [np.mean(cosine(7, 2))], atol=1e-5)


def test_chosen_queries_are_strong_and_of_different_objects():
    logits = torch.full((3, 5, 8, 8), -9.0)
    for query, row in enumerate((0, 2, 4, 6, 2)):  # query 4 segments what query 1 does
        logits[:, query, row : row + 2] = 9.0
    scores = torch.zeros(3, 5, 2)
    scores[:, :, 1] = torch.tensor([0.5, 0.9, 0.6, 0.1, 0.8])
    states = recorded(logits, scores)
    assert choose_queries(states) == [1, 2, 0]  # not 4, a copy, nor 3, weak
    assert choose_queries(states, count=2) == [1, 2]


def test_fig2_shows_the_frames_the_masks_and_the_similarities(model):
    before = (
        set(sys.modules.get("matplotlib.pyplot").get_fignums())
        if "matplotlib.pyplot" in sys.modules
        else set()
    )
    fig = plot_query_consistency(model, [CLIP.render(t).image for t in range(5)])
    assert isinstance(fig, Figure)
    if "matplotlib.pyplot" in sys.modules:
        assert set(sys.modules["matplotlib.pyplot"].get_fignums()) == before
    rows = strip_axes(fig)
    states = query_states(model, CLIP, 5)
    chosen = choose_queries(states)
    words = [axes.get_ylabel().split("\n")[0] for axes in rows]
    assert words == ["frames, masks", *(f"query {q}" for q in chosen)]
    images = [im for axes in fig.axes for im in axes.images if im.get_array().shape == (5, 5)]
    for image, query in zip(images, chosen, strict=True):
        kernels = torch.nn.functional.normalize(states.kernels[:, query], dim=1)
        np.testing.assert_allclose(image.get_array(), kernels @ kernels.T, atol=1e-5)
    numbers = [[t.get_text() for t in axes.get_xticklabels()] for axes in fig.axes]
    assert ["frame 0", "+1", "+2", "+3", "+4"] in numbers
    # the strip of frames: five cells as wide as a frame, tinted in the colours of the queries only
    strip = rows[0].images[0].get_array()
    assert strip.shape[0] == 96 and strip.shape[1] == 5 * (128 + 2 * round(fig2.GAP * 128))


def test_fig2_marks_where_a_query_holds_and_loses_its_instance():
    fig = plot_query_consistency(Scripted({(1, 2): None, (1, 5): None, (0, 4): None}), CLIP)
    rows = rows_of(fig)
    assert list(rows) == [4, 3]  # instance 1 covers more over the frames: it comes first
    assert red_frames(rows[3]) == [4] and red_frames(rows[4]) == [2, 5]
    assert tags(rows[3]) == ["× lost"] and tags(rows[4]) == ["× lost"] * 2  # not by colour alone
    assert shares_of(fig) == ["held 4 of 6", "held 5 of 6"]
    assert CATEGORIES[CLIP.labels[0]] in rows[3].get_ylabel()
    assert "held 9 of 12 times (75 %)" in fig.texts[0].get_text()
    assert "annotation" in fig.texts[1].get_text()
    for instance, axes in ((1, rows[4]), (0, rows[3])):  # the same colour everywhere
        assert axes.spines["left"].get_edgecolor()[:3] == rgb(instance + 1)
    plain = plot_query_consistency(
        Scripted({(1, 2): None}), [CLIP.render(t).image for t in range(6)]
    )
    assert all(red_frames(axes) == [] for axes in strip_axes(plain))  # nothing to compare with
    assert "held" not in plain.texts[0].get_text() and shares_of(plain) == []


def test_the_instance_is_the_one_held_first_not_the_best_in_hindsight():
    late = {
        (0, 0): None,
        (0, 1): None,
        **{(0, t): 1 for t in (3, 4, 5)},
        **{(1, t): None for t in range(6)},
    }
    fig = plot_query_consistency(
        Scripted(late), CLIP
    )  # query 3: nothing, nothing, instance 0, then instance 1
    rows = rows_of(fig)
    assert list(rows)[1] == 3 and len(rows) == 2
    assert red_frames(rows[3]) == [0, 1, 3, 4, 5]
    assert tags(rows[3]) == ["× not yet"] * 2 + ["× lost"] * 3
    # query 3 has its instance: instance 1, which nobody else holds, is not given to it as well
    other = next(axes for query, axes in rows.items() if query != 3)
    assert red_frames(other) == list(range(6)) and tags(other) == ["× never"] * 6
    assert "held 1 of 12 times (8 %)" in fig.texts[0].get_text()


def test_first_holders_are_one_to_one_and_keep_what_they_have():
    ious = np.zeros((3, 4, 3))
    ious[0, 2, 1] = ious[1, 2, 0] = 0.9  # query 2 moves on to instance 0 ...
    ious[1, 0, 0] = 0.3
    ious[2, 0, 0] = 0.6  # ... which query 0 then holds
    ious[2, 3, 1] = 1.0
    ious[:, 1, 2] = 0.49
    assert fig2._first_holders(ious, np.ones(ious.shape)) == {1: 2, 0: 0}
    ious[0, 1, 1] = 0.8  # a rougher mask of instance 1, whose query knows its class
    said = np.full(ious.shape, 0.01)
    said[0, 1, 1] = 0.9
    assert fig2._first_holders(ious, said)[1] == 1


def test_the_probabilities_are_those_of_the_instances_classes():
    said = torch.rand(2, 5, 3)  # T, N, K

    def of(clip, count, names):
        states = recorded(torch.zeros(2, 5, 1, 1), said.sqrt(), probabilities=said, names=names)
        return class_probabilities(states, clip, count)

    clip = SimpleNamespace(labels=np.array([2, 0, 1]))
    for names in (("a", "b", "c"), ()):
        np.testing.assert_array_equal(of(clip, 3, names), said[:, :, [2, 0, 1]])
    clip.categories = ["c", "a", "d"]  # in another order, and "d" is unknown: decides nothing
    found = of(clip, 3, ("a", "b", "c"))
    np.testing.assert_array_equal(found[:, :, 1:], said[:, :, [2, 0]])
    assert (found[:, :, 0] == 1).all()
    assert (of(SimpleNamespace(), 2, ("a",)) == np.ones((2, 5, 2))).all()  # no labels


class Doubled(Scripted):
    """As Scripted, and query 6 segments what query 3 does, without a flaw, but is silent."""

    def __call__(self, frame):
        out = super().__call__(frame)
        exact = out.mask_logits[0, 3].clone()
        out.mask_logits[0, 3] = exact.roll(1, -1).maximum(exact)  # rougher, and still IoU >= 0.5
        out.mask_logits[0, 6] = exact
        return out


def test_the_silent_duplicate_of_a_better_outline_is_not_the_holder():
    assert set(rows_of(plot_query_consistency(Doubled(), CLIP))) == {4, 3}
    # without labels p is unknown: the outline decides
    nameless = type("Clip", (), {"render": lambda _, t: CLIP.render(t), "__len__": lambda _: 6})()
    assert set(rows_of(plot_query_consistency(Doubled(), nameless))) == {4, 6}


def scores_below(axes):
    """{frame: the number below its mask}"""
    return {int(t.xy[0]): float(t.get_text()) for t in axes.texts if hasattr(t, "xy")}


def test_the_score_of_the_query_stands_below_each_mask(model):
    fig = plot_query_consistency(model, CLIP, num_frames=5)
    states = query_states(model, CLIP, 5)
    for query, axes in rows_of(fig).items():
        expected = dict(enumerate(states.scores[:, query].tolist()))
        assert scores_below(axes) == pytest.approx(expected, abs=0.0051)
    assert "Below a mask: its score" in fig.texts[1].get_text()


def test_a_sliver_of_an_instance_chooses_no_query():
    truth = np.zeros((3, 1, 32, 48), bool)
    truth[0, 0, 10:16, :2] = truth[1:, 0, 8:24, :16] = True  # it comes in: 12, 256 pixels
    logits = torch.full((3, 3, 4, 6), -9.0)
    logits[1:, 2, 1:3, :2] = 9.0
    states, said = recorded(logits, torch.ones(3, 3, 1)), [np.ones((3, 3, 1))]
    states.truth = truth
    np.testing.assert_allclose(states.ious(1)[:, 0], [0, 0, 1], atol=0.5)
    states.ious = lambda t: np.array([[[1.0], [0], [0]], [[0.0], [0], [1]], [[0.0], [0], [1]]])[t]
    assert fig2._holders([states], truth, said) == ([0], [[2]])
    truth[0, 0, :8, :4] = True  # 44 pixels: more than a tenth
    assert fig2._holders([states], truth, said) == ([0], [[0]])


def test_two_models_are_compared_on_the_same_instances():
    models = {"with": Scripted(), "without": Scripted({(1, t): 0 for t in (2, 3)}, first=5)}
    fig = plot_query_consistency(models, CLIP)
    names = [axes.get_ylabel().split("\n")[:2] for axes in strip_axes(fig)]
    assert names[:2] == [["with", "frames, masks"], ["without", "frames, masks"]]
    assert names[2:] == [
        ["with", "query 4"],
        ["without", "query 6"],
        ["with", "query 3"],
        ["without", "query 5"],
    ]
    rows = rows_of(fig)
    assert {query: red_frames(axes) for query, axes in rows.items()} == {
        4: [],
        6: [2, 3],
        3: [],
        5: [],
    }
    tops = [axes.get_position().y1 for axes in rows.values()]
    assert tops == sorted(tops, reverse=True)
    assert (
        tops[0] - tops[1] == pytest.approx(tops[2] - tops[3])
        and tops[1] - tops[2] > tops[0] - tops[1] + 0.01
    )
    for pair, instance in (((4, 6), 1), ((3, 5), 0)):
        assert [rows[q].spines["left"].get_edgecolor()[:3] for q in pair] == [rgb(instance + 1)] * 2
    assert fig.texts[0].get_text().endswith("100 % with, 83 % without")
    assert shares_of(fig) == ["held 6 of 6", "held 4 of 6", "held 6 of 6", "held 6 of 6"]
    plain = {"a": Scripted(), "b": Scripted()}
    with pytest.raises(ValueError, match="annotated instances"):
        plot_query_consistency(plain, [CLIP.render(0).image])


def test_a_model_that_finds_nothing(model):
    nothing = Scripted({(i, t): None for i in (0, 1) for t in range(6)})
    frames = [CLIP.render(t).image for t in range(6)]
    nothing.objectness = -9.0
    fig = plot_query_consistency(nothing, frames)
    assert fig.texts[0].get_text().startswith("Nothing found in 6 frames")
    nothing.objectness = 3.0
    nothing.t = 0
    fig = plot_query_consistency(nothing, CLIP)
    assert "held 0 of 12 times (0 %)" in fig.texts[0].get_text()
    assert all(tags(axes) == ["× never"] * 6 for axes in rows_of(fig).values())

    class Empty:
        def __len__(self):
            return 1

        def render(self, t):
            return SimpleNamespace(image=CLIP.render(t).image, masks=np.zeros((0, 96, 128), bool))

    fig = plot_query_consistency(Scripted(), Empty())
    assert "No annotated instance" in fig.texts[1].get_text() and shares_of(fig) == []


def test_fig2_compares_with_the_annotations_of_the_frames_it_shows():
    asked = []

    class Watched:
        def __len__(self):
            return len(CLIP)

        def render(self, t):
            asked.append(t)
            return CLIP.render(t)

    fig = plot_query_consistency(Scripted(), Watched(), num_frames=3)
    assert asked == [0, 1, 2]  # once for image and annotations
    assert "(100 %)" in fig.texts[0].get_text()


def test_an_instance_that_is_not_visible_is_neither_held_nor_lost():
    truth = np.zeros((4, 2, 16, 16), bool)
    truth[[0, 1, 3], 1, :8] = True
    logits = torch.full((4, 3, 2, 2), -9.0)
    logits[[0, 1, 2], 1, 0] = 9.0  # in frame 2 as well, where nothing is
    states = recorded(logits, torch.ones(4, 3, 1), names=("fish",))
    row = fig2._row(states, 1, {1: 2}, 1, truth)
    assert row.held == [True, True, None, False] and row.label == "fish 1.00" and row.others == []
    assert (row.outline == truth[:, 1]).all()
    assert fig2._share([row, row]) == (4, 6, "67 %")
    assert fig2._row(states, 1, {1: 2}, None, truth).held == [None] * 4


def test_the_window_is_tight_inside_and_of_the_frames_shape():
    ever = np.zeros((90, 120), bool)
    ever[60:89, 100:120] = True
    rows, columns = fig2._window(ever)
    assert rows.start <= 60 and rows.stop == 90 and columns.start <= 100 and columns.stop == 120
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert height < 40 and abs(width / height - 120 / 90) < 0.06
    assert fig2._window(np.zeros((90, 120), bool)) == (slice(0, 90), slice(0, 120))


def test_fig2_of_odd_videos_and_bad_input(model, tmp_path):
    one = plot_query_consistency({"a": model, "b": model}, CLIP, num_frames=1)
    save(one, tmp_path / "one.png")
    assert "nan" not in [
        text.get_text() for axes in one.axes for text in axes.texts
    ]  # no pair of frames, no mean
    for shape in ((70, 101), (101, 70)):
        odd = plot_query_consistency(model, [np.full((*shape, 3), 90, np.uint8)] * 3)
        save(odd, tmp_path / "odd.svg")
        for axes in strip_axes(odd):  # pictures are not stretched
            box = axes.get_window_extent()
            assert box.width / box.height == pytest.approx(3 * shape[1] / shape[0], rel=0.01)
    for models in ({}, {"a": model, "b": model, "c": model}):
        with pytest.raises(ValueError, match="one or two"):
            plot_query_consistency(models, CLIP)
    frame = np.zeros((64, 96, 3), np.uint8)
    for bad in (frame[:32], frame[..., 0], frame.astype(float)):
        with pytest.raises(ValueError, match="frame 1 is"):
            plot_query_consistency(model, [frame, bad])


def test_the_words_of_fig2_stay_on_the_page(model):
    names = {"with temporal training": model, "without temporal training, a long name": model}
    for models, frames in ((names, 6), (model, 36), (model, 6)):
        video = CLIP if frames == 6 else [CLIP.render(t % 6).image for t in range(frames)]
        fig = plot_query_consistency(models, video, num_frames=36)
        fig.canvas.draw()
        boxes = [
            *(axes.get_tightbbox() for axes in fig.axes),
            *(t.get_window_extent() for t in fig.texts),
        ]
        assert min(min(box.x0, box.y0) for box in boxes) >= 0
        assert (
            max(box.x1 for box in boxes) <= fig.bbox.x1
            and max(box.y1 for box in boxes) <= fig.bbox.y1
        )
        for axes in fig.axes:
            numbers = [t.get_window_extent() for t in axes.get_xticklabels()]
            assert all(a.x1 < b.x0 for a, b in pairwise(numbers))
            below = [t.get_window_extent() for t in axes.texts if hasattr(t, "xy")]
            below = below if axes in rows_of(fig).values() else []
            assert all(a.x1 < b.x0 for a, b in pairwise(below))


def test_save_writes_three_formats_and_replaces(model, tmp_path):
    fig = plot_query_consistency(Scripted(), CLIP, num_frames=6)
    for suffix, head in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        path = tmp_path / "new" / f"fig{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        assert save(fig, path).read_bytes().startswith(head)
    assert (
        1350 < matplotlib.image.imread(tmp_path / "new" / "fig.png").shape[1] < 1450
    )  # README's width
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
    states = recorded(logits, scores, images=[image, image])

    def tint(picture, y, x):  # of a pixel: what the opaque part of its colour must have been
        return (picture[y, x] - 0.35 * 166) / 0.65

    first, second = (fig2._colored(states, t, {7: 1}).astype(float) for t in range(2))
    for picture in (first, second):
        assert np.abs(tint(picture, 20, 20) - color_of(1)).max() < 3
    assert (
        np.abs(tint(first, 48, 64) - tint(second, 20, 64)).max() < 3
    )  # the other one keeps its colour as well
    assert np.abs(tint(first, 48, 64) - color_of(1)).max() > 40
    states.scores[0, 5] = 0.2  # weak
    assert np.ptp(fig2._colored(states, 0, {7: 1})[48, 64]) == 0  # grey: not drawn


def cell_inches(fig):
    """Width and height of a cell of each row, in inches."""
    wide, tall = fig.get_size_inches()
    boxes = [axes.get_position() for axes in rows_of(fig).values()]
    count = len(next(iter(rows_of(fig).values())).get_xlim())
    assert count == 2
    return [(box.width * wide, box.height * tall) for box in boxes]


@pytest.mark.parametrize("tile", [0.4, 1.5, 3.0])
def test_a_tile_is_as_wide_as_it_is_told_and_the_figure_grows(model, tile):
    figures = [plot_query_consistency(model, CLIP, 6, tile=wide) for wide in (tile, None)]
    for width, height in cell_inches(figures[0]):
        assert width == pytest.approx(6 * tile) and height == pytest.approx(tile * 96 / 128)
    wide, usual = (fig.get_figwidth() for fig in figures)
    assert wide >= usual == pytest.approx(9.4) and (wide > 9.4) == (6 * tile > 7)
    assert all(len(row.texts) >= 6 for row in rows_of(figures[0]).values())  # the scores are there


def test_the_frames_of_fig_2_are_chosen_and_named():
    holds = {(1, 1): 0}  # instance 1 is lost in the second frame that is looked at
    fig = plot_query_consistency(Scripted(holds), CLIP, frames=[0, 1, 4])
    ticks = [text.get_text() for text in fig.axes[-2].get_xticklabels()]
    last = [row for row in rows_of(fig).values() if row.get_xticks().size][-1]
    ticks = [text.get_text() for text in last.get_xticklabels()]
    assert ticks == ["frame 0", "+1", "+4"]
    fig = plot_query_consistency(Scripted(start=2), CLIP, frames=range(2, 6))
    last = [row for row in rows_of(fig).values() if row.get_xticks().size][-1]
    assert [text.get_text() for text in last.get_xticklabels()] == ["frame 2", "+1", "+2", "+3"]
    assert shares_of(fig)


def test_large_tiles_show_the_pixels_of_the_film():
    big = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    sizes = []
    for inches in (0.5, 3.0):
        fig = fig2.new_figure()
        axes = fig.place(0, 0, 2 * inches, inches)
        fig2._strip(axes, [big, big])
        sizes.append(axes.images[0].get_array().shape[0])
    assert sizes == [240, 480]


def test_instances_meet_the_models_classes_however_they_are_spelled():
    said = torch.tensor([[[0.1, 0.2, 0.7]]])  # (T, N, K)
    names = ("Sports Ball", "motorbike", "dog")
    recording = SimpleNamespace(
        probabilities=said, scores=said.amax(-1), config=SimpleNamespace(class_names=names)
    )
    video = SimpleNamespace(categories=("sports_ball", "DOG", "motorcycle", "okapi"), labels=[1, 2, 0, 3])
    np.testing.assert_allclose(class_probabilities(recording, video, 4)[0, 0], [0.7, 0.2, 0.1, 1.0])
