"""The picture of matching: what is boxed is the best of all permutations."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.patches import Ellipse, Rectangle

from minst.visualize.assignment import plot_assignment
from minst.visualize.style import save

CONFLICT = torch.tensor([[0.9, 0.8, 0.1], [0.85, 0.2, 0.3], [0.2, 0.1, 0.6], [0.3, 0.4, 0.5]])


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
