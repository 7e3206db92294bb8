"""Pictures of kernels: their numbers against NumPy, their marks against scripted queries that swap instances."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse, Rectangle

from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.model import Frame, FrameOutput
from minst.visualize.assignment import BLUE
from minst.visualize.kernels import LIGHT, plot_kernels, plot_similarity
from minst.visualize.recording import Recording, read_frames
from minst.visualize.style import GREY, RED, rgb, save

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))
NUM_QUERIES, DIM = 6, 12


class Squares:
    """A clip with two squares that stand still, a model of 6 queries, and what each of them holds in each frame.

    A kernel is a part of the query, which no mask feature answers to, and a part of the instance that it holds.
    """

    config = SimpleNamespace(class_names=("a", "b"))
    pixel_mean = torch.zeros(1)
    labels = np.array([0, 1])

    def __init__(self, holds, query_part=9.0, idle=-6.0):
        self.holds, self.query_part, self.idle = holds, query_part, idle
        self.masks = np.zeros((2, 64, 96), bool)
        self.masks[0, 16:48, 8:40] = self.masks[1, 16:48, 56:88] = True
        self.features = torch.zeros(DIM, 8, 12)
        self.features[0], self.features[1, 2:6, 1:5], self.features[2, 2:6, 7:11] = 1.0, 1.0, 1.0

    def __len__(self):
        return len(self.holds)

    def render(self, t):
        return SimpleNamespace(image=np.full((64, 96, 3), 9 * t, np.uint8), masks=self.masks)

    def eval(self):
        return self

    def encode(self, frame):
        return Frame(self, frame, self.features[None], None, (64, 96))

    def decode(self, frame):
        return self(frame.x6)

    def kernels(self, t):
        kernels = torch.zeros(NUM_QUERIES, DIM)
        kernels[:, 3:9] = self.query_part * torch.eye(NUM_QUERIES)
        kernels[:, 0] = -4.0
        for query, instance in self.holds[t].items():
            kernels[query, 1 + instance] = 8.0
        return kernels

    def __call__(self, frame):
        t = round(float(frame.max()) * 255 / 9)
        kernels = self.kernels(t)
        classes = torch.full((NUM_QUERIES, 2), self.idle)
        for query, instance in self.holds[t].items():
            classes[query, instance] = 3.0
        logits = torch.einsum("nd,dhw->nhw", kernels, self.features)
        objectness = torch.full((NUM_QUERIES,), 3.0)
        return FrameOutput(
            classes[None], objectness[None], kernels[None], self.features[None], logits[None], None
        )


SWAP = [{1: 0, 4: 1}] * 3 + [
    {4: 0, 1: 1}
] * 3  # queries 1 and 4 swap their instances between frames 2 and 3
STAY = [{1: 0, 4: 1}] * 6
TURN = [{1: 0, 4: 1}] * 3 + [
    {2: 0, 1: 1}
] * 3  # query 1 hands its instance to query 2 and gets that of query 4


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(class_names=CATEGORIES)


def words(fig):
    return [text.get_text() for text in fig.texts]


def clouds(axes):
    """Positions of the grey and of the coloured dots, by colour; without rings and diamonds."""
    found = {}
    for dots in axes.collections:
        if hasattr(dots, "get_offsets") and dots.get_linewidths()[0] == 0:
            colors = np.broadcast_to(dots.get_facecolors(), (len(dots.get_offsets()), 4))
            for place, color in zip(dots.get_offsets(), colors):
                found.setdefault(to_hex(color), []).append(place)
    return {color: np.array(places) for color, places in found.items()}


def test_the_shares_of_variance_are_those_of_numpy(model):
    fig = plot_kernels(model, CLIP, num_frames=5)
    kernels = Recording(model, read_frames(CLIP, frames=range(5))).kernels.double().numpy()  # (T, N, D)
    rows = kernels.reshape(-1, kernels.shape[-1])
    between = 5 * ((kernels.mean(0) - rows.mean(0)) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    assert f"{100 * between:.0f} % of their variance lies between queries" in words(fig)[0]
    left, right = fig.axes
    assert f"{100 * (1 - between):.0f} % is left" in right.get_title(loc="left")
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert f"{100 * variances[0] / variances.sum():.0f} % of the variance" in left.get_xlabel()
    assert f"{100 * variances[1] / variances.sum():.0f} %" in left.get_ylabel()
    places = np.concatenate(list(clouds(left).values()))
    assert len(places) == len(rows)
    np.testing.assert_allclose(
        np.sort(places.var(0))[::-1], variances[:2] * (len(rows) - 1) / len(rows), rtol=1e-6
    )


def test_dots_have_the_colour_of_what_the_query_holds():
    script = Squares(SWAP)
    fig = plot_kernels(script, script)
    for axes in fig.axes:
        dots = clouds(axes)
        assert {color: len(places) for color, places in dots.items()} == {
            LIGHT: 6 * 4, to_hex(rgb(1)): 6, to_hex(rgb(2)): 6}  # fmt: skip
    labels = [[t.get_text() for t in axes.texts] for axes in fig.axes]
    assert sorted(labels[0]) == ["q1 a 1", "q1 b 2", "q4 a 1", "q4 b 2"]  # each for 3 of 6 frames
    assert labels[1][:2] == ["a 1", "b 2"] and "explains 100 %" in labels[1][2]
    # without its query a kernel is its instance: one place for each
    first, second = (
        np.unique(clouds(fig.axes[1])[to_hex(rgb(m))].round(6), axis=0) for m in (1, 2)
    )
    assert len(first) == len(second) == 1 and np.linalg.norm(first - second) > 1


def test_a_query_that_never_changes_leaves_nothing():
    script = Squares(STAY)
    fig = plot_kernels(script, script)
    assert "100 % of their variance" in words(fig)[0]
    assert all(np.abs(places).max() < 1e-6 for places in clouds(fig.axes[1]).values())


def test_trajectories_lead_from_ring_to_diamond():
    script = Squares([{}, {1: 0}, {}, {1: 0}, {}, {}])
    axes = plot_kernels(script, script).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [3]  # frames 1-2-3
    marks = [c for c in axes.collections if c.get_linewidths()[0] > 0]
    assert len(marks) == 2 and all(to_hex(c.get_edgecolors()[0]) == to_hex(rgb(1)) for c in marks)
    sizes = [c.get_sizes() for c in axes.collections if len(c.get_offsets()) == 2]
    assert len(sizes) == 1 and sizes[0][0] < sizes[0][1]  # dots grow with time


def test_labels_stand_above_their_dots():
    fig = plot_kernels(*[Squares(SWAP)] * 2)
    fig.draw_without_rendering()
    axes = fig.axes[1]
    for text, m in zip(axes.texts, (1, 2)):
        x, y = axes.transData.transform(clouds(axes)[to_hex(rgb(m))][0])  # all in one place
        box = text.get_window_extent()
        assert abs((box.x0 + box.x1) / 2 - x) < 2 and y < box.y0 < y + 15


def test_kernels_of_a_clip_without_objects_and_of_one_frame(tmp_path):
    script, nothing = Squares(SWAP), Squares([{}] * 3)
    nothing.masks, nothing.labels = np.zeros((0, 64, 96), bool), np.zeros(0, int)
    for video, count in ((nothing, 9), (script, 1)):
        fig = plot_kernels(video, video, count)
        assert save(fig, tmp_path / "figure.png").stat().st_size > 1000
    assert "1 frame x" in words(fig)[1]
    for plot in (plot_kernels, plot_similarity):
        with pytest.raises(ValueError, match="give a clip with annotations"):
            plot(script, [script.render(t).image for t in range(6)])


def test_kernels_of_long_videos_stop_at_a_hundred_frames():
    script = Squares([{1: 0}] * 120)
    script.render = lambda t: SimpleNamespace(
        image=np.full((64, 96, 3), 9, np.uint8), masks=script.masks
    )
    assert "100 frames x 6" in words(plot_kernels(script, script))[1]


def matrices(fig):
    return fig.axes[3:]


def marks(axes, kind):
    """{(row, column, colour)} of boxes (Rectangle) or rings (Ellipse) within a matrix."""
    found = set()
    for patch in axes.patches:
        if isinstance(patch, kind) and patch.get_clip_on():
            place = patch.center if kind is Ellipse else patch.get_center()
            found.add((round(place[1]), round(place[0]), to_hex(patch.get_edgecolor())))
    return found


def query_numbers(axes, which):
    labels = axes.get_yticklabels() if which == "rows" else axes.get_xticklabels()
    return [int(re.match(r"q(\d+) ", label.get_text())[1]) for label in labels]


def test_when_queries_swap_their_instances_cosine_misses_what_masks_find():
    script = Squares(SWAP)
    fig = plot_similarity(script, script, 1, 3)
    assert words(fig)[0] == "Of 2 true pairs cosine finds 0, centred cosine 2, masks 2"
    cosine, centred, masks = matrices(fig)
    rows, columns = query_numbers(cosine, "rows"), query_numbers(cosine, "columns")
    assert (
        rows == columns and rows[:2] == [1, 4] and len(rows) == 4
    )  # by instance, filled up to four
    labels = (
        [t.get_text() for t in cosine.get_yticklabels()],
        [t.get_text() for t in masks.get_xticklabels()],
    )
    # with the score: sqrt(sigmoid(3) sigmoid(3)), of an idle query sqrt(sigmoid(-6) sigmoid(3))
    assert labels[0][:2] == ["q1 a 1  0.95", "q4 b 2  0.95"]
    assert labels[1][:2] == ["q1 b 2  0.95", "q4 a 1  0.95"]
    assert labels[0][2].endswith("(a)  0.05")  # the class that an idle query says
    live = {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {m for m in marks(cosine, Rectangle) if m[:2] in live} == {(0, 0, RED), (1, 1, RED)}
    assert marks(cosine, Ellipse) == {(0, 1, RED), (1, 0, RED)}
    for axes in (centred, masks):
        assert {m for m in marks(axes, Rectangle) if m[:2] in live} == {(0, 1, BLUE), (1, 0, BLUE)}
        assert marks(axes, Ellipse) == {(0, 1, BLUE), (1, 0, BLUE)}
    assert [axes.get_title(loc="left").split(": ")[1] for axes in matrices(fig)] == [
        "0 of 2",
        "2 of 2",
        "2 of 2",
    ]
    colors = {line.get_linestyle() for line in cosine.patches if isinstance(line, Ellipse)}
    assert colors == {"--"}  # not by colour alone


def test_boxes_stand_in_the_row_of_the_old_query_and_the_column_of_the_new_one():
    script = Squares(TURN)
    masks = matrices(plot_similarity(script, script, 0, 4))[2]
    place = query_numbers(masks, "columns").index
    assert marks(masks, Ellipse) == {(place(1), place(2), BLUE), (place(4), place(1), BLUE)}
    assert {m for m in marks(masks, Rectangle) if m[2] != GREY} == marks(masks, Ellipse)


def written(axes):
    """The numbers in the cells of a matrix."""
    cells = {t.get_position(): t.get_text() for t in axes.texts}
    count = len(axes.get_xticklabels())
    return [[float(cells[j, i]) for j in range(count)] for i in range(count)]


def test_the_numbers_are_cosines_and_dice():
    script = Squares(TURN)
    mean = torch.stack([script.kernels(t) for t in range(6)]).mean(0)  # over the whole clip
    fig = plot_similarity(script, script, 0, 4)
    live = query_numbers(fig.axes[3], "rows")
    old, new, centre = (
        k.numpy().astype(float)[live] for k in (script.kernels(0), script.kernels(4), mean)
    )

    def cosine(a, b):
        sizes = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        return a @ b.T / np.maximum(sizes, 1e-9)  # a kernel that never changes is its mean

    probability = [
        1 / (1 + np.exp(-np.einsum("nd,dp->np", k, script.features.flatten(1).numpy())))
        for k in (old, new)
    ]
    dice = 2 * probability[0] @ probability[1].T
    dice /= (probability[0] ** 2).sum(1)[:, None] + (probability[1] ** 2).sum(1)
    sure, other = (np.sqrt(1 / (1 + np.exp(-c)) / (1 + np.exp(-3.0))) for c in (3.0, -6.0))
    scores = [np.array([sure if q in script.holds[t] else other for q in live]) for t in (0, 4)]
    expected = [cosine(old, new), cosine(old - centre, new - centre), dice]
    for axes, matrix in zip(matrices(fig), expected):
        live_alone = matrix * scores[0][:, None] * scores[1]  # as the tracker associates
        np.testing.assert_allclose(written(axes), live_alone, atol=0.0051)


def test_a_duplicate_is_as_right_and_who_lost_its_instance_is_grey():
    script = Squares(
        [{1: 0, 4: 1}, {1: 0, 2: 0}]
    )  # query 2 copies query 1; instance 1 is held no more
    fig = plot_similarity(script, script, 0, 1)
    assert words(fig)[0].startswith("Of 1 true pair cosine finds 1, centred cosine")
    cosine, rows = matrices(fig)[0], query_numbers(matrices(fig)[0], "rows")
    row, lost = rows.index(1), rows.index(4)
    assert marks(cosine, Ellipse) == {(row, rows.index(q), BLUE) for q in (1, 2)}
    # query 2 is live now and query 4 is not: by the scores it goes on with what was lost
    boxes = {m for m in marks(cosine, Rectangle) if m[0] in (row, lost)}
    assert boxes == {(row, row, BLUE), (lost, rows.index(2), GREY)}
    script = Squares([{1: 0}, {4: 1}])
    assert words(plot_similarity(script, script, 0, 1))[0].startswith(
        "No instance is held in both frames"
    )


def test_an_assignment_to_a_query_that_is_not_shown_is_named():
    script = Squares(STAY, query_part=30.0, idle=-2.4)  # its score is 0.28: not live, and yet
    kernels = script.kernels  # what a kernel has of its query decides

    def moved(t):  # what query 1 and query 5 were, they exchange; 5 is idle and not shown
        found = kernels(t)
        if t == 3:
            found[[1, 5], 3:] = found[[5, 1], 3:]
        return found

    script.kernels = moved
    fig = plot_similarity(script, script, 0, 3)
    assert query_numbers(matrices(fig)[0], "rows")[:2] == [1, 4] and 5 not in query_numbers(
        matrices(fig)[0], "rows"
    )
    (arrow,) = [t for t in matrices(fig)[0].texts if t.get_text() == "→q5"]
    assert to_hex(arrow.get_color()) == RED
    assert words(fig)[0].startswith("Of 2 true pairs cosine finds 1")


def test_similarity_of_a_clip_without_objects(tmp_path):
    nothing = Squares([{}] * 4)
    nothing.masks, nothing.labels = np.zeros((0, 64, 96), bool), np.zeros(0, int)
    save(plot_similarity(nothing, nothing), tmp_path / "figure.png")


def test_the_legend_ends_above_the_matrices_of_wide_frames(model):
    wide = shapes_clip("val", 3, ShapesConfig(width=160, height=64, frames=4))
    fig = plot_similarity(model, wide)
    fig.draw_without_rendering()
    title = fig.axes[5]._left_title.get_window_extent()
    assert all(text.get_window_extent().y0 > title.y1 for text in fig.axes[2].texts)


def test_frames_outside_the_clip_are_refused():
    script = Squares(STAY)
    for first, second in ((2, 2), (3, 1), (-1, 3)):
        with pytest.raises(ValueError, match=f"first is {first}, second {second}"):
            plot_similarity(script, script, first, second)
    with pytest.raises(ValueError, match="second is 6, but the video ends with frame 5"):
        plot_similarity(script, script, 0, 6)
