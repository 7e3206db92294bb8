"""The picture of matching: what is boxed is the best of all permutations, and for a model the matcher's own answer."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.patches import Ellipse, Rectangle

from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.data.transforms import resize_masks
from minst.matcher import Instances, hungarian_match, matching_scores
from minst.visualize.assignment import plot_assignment, plot_matching
from minst.visualize.style import save

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))
CONFLICT = torch.tensor([[0.9, 0.8, 0.1], [0.85, 0.2, 0.3], [0.2, 0.1, 0.6], [0.3, 0.4, 0.5]])


class OneFrame:
    """A clip of one black frame with these masks (M, H, W)."""

    def __init__(self, masks, labels):
        self.masks, self.labels = masks, np.array(labels, int)

    def __len__(self):
        return 1

    def render(self, t):
        return SimpleNamespace(
            image=np.zeros((*self.masks.shape[1:], 3), np.uint8), masks=self.masks
        )


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(class_names=CATEGORIES, num_queries=16)


def boxes(axes):
    found = [p for p in axes.patches if isinstance(p, Rectangle)]
    return {
        (round(p.get_y() + p.get_height() / 2), round(p.get_x() + p.get_width() / 2)) for p in found
    }


def rings(axes):
    return {
        (round(p.center[1]), round(p.center[0])) for p in axes.patches if isinstance(p, Ellipse)
    }


def words(fig):
    return [text.get_text() for text in fig.texts]


def names(axes):
    return [
        [text.get_text() for text in labels]
        for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    ]


def numbers(axes, shape):
    """The numbers as they are written in the cells, by their place."""
    cells = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    return [[float(cells[i, j]) for j in range(shape[1])] for i in range(shape[0])]


def drawn(matrix, columns=None):
    columns = columns or [f"column {j}" for j in range(matrix.shape[1])]
    return plot_assignment(matrix, [f"row {i}" for i in range(len(matrix))], columns, "greedy?")


def test_the_matrix_by_hand_gives_way_where_two_columns_want_one_row():
    fig = drawn(CONFLICT, ["fish", "snail", "leaf"])
    axes = fig.axes[0]
    assert boxes(axes) == {(1, 0), (0, 1), (2, 2)} and rings(axes) == {(0, 0)}
    assert words(fig)[0] == "greedy?" and "sum 2.25, the largest there is" in words(fig)[1]
    assert numbers(axes, (4, 3)) == pytest.approx(np.array(CONFLICT.tolist()))
    assert [t.get_text() for t in axes.texts[-4:]] == ["→ snail", "→ fish", "→ leaf", "left over"]
    assert names(axes) == [["row 0", "row 1", "row 2", "row 3"], ["fish", "snail", "leaf"]]


def test_boxed_is_the_best_of_all_permutations():
    for seed in range(12):
        matrix = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
        every = itertools.permutations(range(4), 3)
        sums = {rows: sum(float(matrix[i, j]) for j, i in enumerate(rows)) for rows in every}
        best = max(sums, key=sums.get)
        fig = drawn(matrix)
        assert boxes(fig.axes[0]) == {(i, j) for j, i in enumerate(best)}
        own = enumerate(matrix.argmax(0))
        assert rings(fig.axes[0]) == {(int(i), j) for j, i in own if best[j] != i}
        assert f"sum {sums[best]:.2f}, the largest there is" in words(fig)[1]
        shade = fig.axes[0].images[0].get_array()
        assert (shade.argmax(), shade.argmin()) == (matrix.argmax(), matrix.argmin())


def test_more_columns_than_rows(tmp_path):
    assert boxes(drawn(CONFLICT.T).axes[0]) == {(0, 1), (1, 0), (2, 2)}
    assert save(drawn(torch.rand(12, 20)), tmp_path / "wide.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "scores",
    [torch.rand(3), torch.rand(0, 3), torch.rand(3, 0), torch.tensor([[1.0, float("nan")]])],
)
def test_matrices_without_an_assignment_are_refused(scores):
    with pytest.raises(ValueError, match="a finite matrix"):
        plot_assignment(scores, [], [], "")


@pytest.mark.parametrize("frame", [0, 4])
def test_matching_is_that_of_the_matcher(model, frame):
    image, masks = CLIP.render(frame).image, CLIP.render(frame).masks
    seen = np.flatnonzero(masks.any((1, 2)))
    with torch.no_grad():
        out = model(torch.from_numpy(image).permute(2, 0, 1).float()[None] / 255)
    small = resize_masks(torch.from_numpy(masks[seen]))
    target = Instances(torch.from_numpy(CLIP.labels[seen]), small, torch.arange(len(seen)))
    rows, columns = hungarian_match(out.class_logits, out.mask_logits, [target])[0]
    scores = matching_scores(out.class_logits[0], out.mask_logits[0], target)

    fig = plot_matching(model, CLIP, frame)
    axes = fig.axes[0]
    shown = [int(name.removeprefix("query ")) for name in names(axes)[0]]
    assert len(shown) == len(set(shown)) == 12
    assert {(shown[i], j) for i, j in boxes(axes)} == set(zip(rows.tolist(), columns.tolist()))
    assert [j for _, j in sorted(boxes(axes))] == sorted(
        columns.tolist()
    )  # below each other, by instance
    assert numbers(axes, (12, len(seen))) == pytest.approx(scores[shown].numpy(), abs=0.0051)
    assert names(axes)[1] == [f"{CATEGORIES[CLIP.labels[m]]} {m + 1}" for m in seen]
    assert f"{len(seen)} of 16 queries" in words(fig)[0]
    assert len(axes.images) == 1 + 12 + len(seen)
    left_out = set(range(16)) - set(shown)
    assert scores[sorted(left_out)].max() <= min(scores[q].max() for q in shown if q not in rows)


def test_matching_leaves_out_what_is_not_visible_and_counts_duplicates():
    """Queries 0 to 3 of a scripted model all segment instance 1; instance 0 is not to be seen."""
    masks = np.zeros((2, 64, 64), bool)
    masks[1, 16:48, 16:48] = True
    clip = OneFrame(masks, [0, 2])
    logits = torch.full((1, 6, 8, 8), -8.0)
    logits[:, :4, 2:6, 2:6] = 8.0
    classes = torch.full((1, 6, 3), -6.0)
    classes[0, :4, 2] = torch.tensor([1.0, 3.0, 2.0, -6.0])

    class Scripted:
        config, pixel_mean = SimpleNamespace(class_names=("a", "b", "c")), torch.zeros(1)

        def eval(self):
            return lambda frame: SimpleNamespace(
                class_logits=classes, mask_logits=logits, kernels=torch.zeros(1, 6, 4)
            )

    fig = plot_matching(Scripted(), clip)
    assert names(fig.axes[0])[1] == ["c 2"] and names(fig.axes[0])[0][:3] == [
        "query 1",
        "query 2",
        "query 0",
    ]
    assert boxes(fig.axes[0]) == {(0, 0)}
    assert (
        "1 of 6 queries matched, 2 duplicates left over" in words(fig)[0]
    )  # 0.0025 ** 0.2 = 0.3: query 3 is none


def test_matching_without_objects_or_annotations(model):
    empty = OneFrame(np.zeros((0, 64, 64), bool), [])
    for video in (empty, [CLIP.render(0).image]):
        with pytest.raises(ValueError, match="no annotated instance"):
            plot_matching(model, video)
    for frame in (-1, 6):
        with pytest.raises(ValueError, match=rf"frame.*{frame}"):
            plot_matching(model, CLIP, frame)
