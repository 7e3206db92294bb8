"""The picture of runtimes: bars are the rows' medians, whiskers their p95, words what is so; gaps are said."""

from __future__ import annotations

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from minst.visualize.latency import NAMES, plot_latency
from minst.visualize.style import rgb, save

FACTORS = {
    "eager": 1.0,
    "fused": 0.8,
    "torchscript": 0.75,
    "lite": 1.1,
    "executorch": 0.4,
    "onnx": 0.5,
}


def result(models=("tiny", "base"), sizes=(320, 640), factors=FACTORS, missing=()):
    """Medians of 100 ms times the runtime's factor, at 640 twice that; p95 a quarter above."""
    rows = []
    for model in models:
        for size in sizes:
            for runtime, factor in factors.items():
                ms = 100 * factor * (size / 320)
                row = {"model": model, "size": size, "runtime": runtime}
                figures = {
                    "median_ms": ms,
                    "p95_ms": 1.25 * ms,
                    "to_eager": factor if "eager" in factors else None,
                }
                rows.append(
                    {**row, **({"missing": "not installed"} if runtime in missing else figures)}
                )
    return {
        "rows": rows,
        "rounds": 20,
        "device": {"cpu": "A processor with a rather long name @ 2.60GHz"},
    }


def words(fig):
    return [text.get_text() for place in (fig, *fig.axes) for text in place.texts]


def test_bars_and_whiskers_are_the_rows():
    fig = plot_latency(result())
    titles = [axes.get_title(loc="left") for axes in fig.axes]
    assert titles == ["tiny, 320 x 320", "tiny, 640 x 640", "base, 320 x 320", "base, 640 x 640"]
    for axes, size in zip(fig.axes, (320, 640, 320, 640)):
        expected = [100 * factor * size / 320 for factor in FACTORS.values()]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(expected)
        assert [line.get_xdata()[-1] for line in axes.lines] == pytest.approx(
            [1.25 * ms for ms in expected]
        )
        colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
        assert [colour == to_hex(rgb(1)) for colour in colours] == [
            name == "executorch" for name in FACTORS
        ]
        said = [text.get_text() for text in axes.texts]
        assert said[0] == f"{expected[0]:.0f} ms" and said[4].endswith(" ms, x 0.40")
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == [NAMES[runtime] for runtime in FACTORS]


def test_the_headline_is_the_best_on_the_whole():
    found = result(models=("tiny",))
    assert "ExecuTorch takes 40% of eager PyTorch's time" in plot_latency(found).alt
    for row in found[
        "rows"
    ]:  # ONNX Runtime is ahead at one size, by the geometric mean on the whole
        if (row["size"], row["runtime"]) == (640, "onnx"):
            row["to_eager"] = 0.2
    assert f"ONNX Runtime takes {math.sqrt(0.5 * 0.2):.0%}" in plot_latency(found).alt
    assert "20 rounds" in plot_latency(found).alt and "one thread" in plot_latency(found).alt


def test_slower_ones_and_no_eager():
    assert "no runtime is faster" in plot_latency(result(factors={"eager": 1.0, "lite": 1.1})).alt
    fig = plot_latency(result(factors={"onnx": 0.5, "lite": 1.1}))
    assert "50.0 ms at best" in fig.alt and not any("ms, x" in text for text in words(fig))


def test_what_was_not_measured_is_said():
    fig = plot_latency(result(missing=("lite",)))
    assert words(fig).count(" not measured here") == 4 and len(fig.axes[0].patches) == 5
    with pytest.raises(ValueError, match="none of these 24 rows"):
        plot_latency(result(missing=FACTORS))


@pytest.mark.parametrize(
    "grid",
    [{}, {"models": ("tiny",), "sizes": (320,)}, {"models": "abc", "sizes": (320, 512, 640)}],
)
def test_nothing_is_cut_off_and_nothing_overlaps(grid):
    fig = plot_latency(result(**grid))
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    for axes in fig.axes:
        boxes = [
            text.get_window_extent(canvas.get_renderer())
            for text in (*axes.texts, axes._left_title)
        ]
        for box in boxes:
            assert (
                box.x0 >= 0 and box.x1 <= axes.get_window_extent().x1 + 1 and box.y1 <= fig.bbox.y1
            )
        for a, b in zip(boxes, boxes[1:]):
            assert not a.overlaps(b)
    for label in fig.axes[0].get_yticklabels():
        assert label.get_window_extent(canvas.get_renderer()).x0 >= 0


def test_it_is_saved(tmp_path):
    assert save(plot_latency(result()), tmp_path / "latency.png").stat().st_size > 5000
