"""The pictures of a layer table: bars and dots are the rows' numbers, words say what is so, nothing is cut off."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

import minst
from minst.mobile.roofline import layer_table
from minst.visualize.roofline import CHEAP, FAMILIES, plot_layers, plot_roofline
from minst.visualize.style import save

PEAK = {"gflop_s": 100.0, "gb_s": 25.0, "cache_gb_s": 90.0, "mm_size": 512}


def of_model(model):
    """A layer table with made-up times: 1 ms a megabyte and 0.01 ms a call, so that pictures are always the same."""
    rows = layer_table(model, (128, 192), rounds=1)
    for row in rows:
        row["ms"] = 0.01 + 1e-6 * row["bytes"]
        row["gflop_s"] = 2e-6 * row["macs"] / row["ms"]
    whole = sum(row["ms"] for row in rows)
    return [{**row, "share": row["ms"] / whole} for row in rows]


@pytest.fixture(scope="module")
def rows(make_model):
    return of_model(make_model().fuse())


def words(fig):
    return [text.get_text() for axes in (fig, *fig.axes) for text in axes.texts]


def share(rows, field, **wanted):
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return 100 * sum(row[field] for row in chosen) / sum(row[field] for row in rows)


def dots(fig):
    """{(x, y): (area, colour)} of all dots."""
    return {
        tuple(np.round(at, 9)): (area, to_hex(drawn.get_facecolor()[0]))
        for drawn in fig.axes[0].collections
        for at, area in zip(np.asarray(drawn.get_offsets()), drawn.get_sizes())
    }


def test_bars_are_the_shares_of_macs_and_of_time(rows):
    fig = plot_layers(rows)
    axes = fig.axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches])
    assert heights[heights > 0].sum() == pytest.approx(100) and heights[
        heights < 0
    ].sum() == pytest.approx(-100)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[0] == "input" and names[-2:] == ["instance decoder", "masks"]
    assert names.count("in between") == 2 and len(set(names)) == len(names) - 1
    order = [
        "stem",
        "layer1",
        "layer9",
        "trans",
        "SIM.1",
        "lateral_x3",
        "enhance_x4",
        "fuse_p5",
        "fuse_p3",
        "fuse_n5",
        "out",
    ]
    assert [name for name in names if name in order] == order
    assert (
        names[names.index("lateral_x3") - 1] == names[-3] == "in between"
    )  # at the end of their parts
    for up in (True, False):  # what is drawn over each other adds up without gaps, from 0 on
        stacked = [
            b
            for b in axes.patches
            if round(b.get_x() + 0.4) == names.index("trans") and (b.get_height() > 0) == up
        ]
        ends = sorted((abs(b.get_y()), abs(b.get_y() + b.get_height())) for b in stacked)
        assert len(ends) > 2 and [a for a, _ in ends] == pytest.approx(
            [0.0, *(b for _, b in ends[:-1])]
        )
    layer2 = [row for row in rows if row["name"].startswith("backbone.tpm.layer2")]
    for kind, family in (("conv 1x1", "1x1, linear"), ("depth-wise 3x3", "depth-wise")):
        own = [row for row in layer2 if row["kind"] == kind]
        for sign, field in ((1, "macs"), (-1, "ms")):
            (bar,) = [
                bar
                for bar in axes.patches
                if round(bar.get_x() + bar.get_width() / 2) == names.index("layer2")
                and sign * bar.get_height() > 0
                and to_hex(bar.get_facecolor()) == to_hex(FAMILIES[family][1])
            ]
            assert sign * bar.get_height() == pytest.approx(
                100 * sum(r[field] for r in own) / sum(r[field] for r in rows)
            )


def test_words_above_the_bars_are_the_rows_sums(rows):
    texts = words(plot_layers(rows))
    for part in ("backbone", "mask decoder"):
        few, long = (share(rows, field, part=part) for field in ("macs", "ms"))
        assert f"{part}: {few:.0f}% of MACs, {long:.0f}% of time" in texts
    cheap = [r for r in rows if not r["macs"] or r["kind"].startswith("depth-wise")]
    few, long = (100 * sum(r[f] for r in cheap) / sum(r[f] for r in rows) for f in ("macs", "ms"))
    assert f"layers with {few:.0f}% of the MACs take {long:.0f}% of the time" in texts[0]
    assert (
        f"{sum(r['macs'] for r in rows) / 1e6:,.0f} million MACs, {sum(r['ms'] for r in rows):.0f} ms"
        in texts[1]
    )


def test_dots_are_the_layers_with_macs(rows):
    found = dots(plot_roofline(rows, PEAK))
    layers = [row for row in rows if row["macs"]]
    assert set(found) == {(round(row["intensity"], 9), round(row["gflop_s"], 9)) for row in layers}
    slow, quick = max(layers, key=lambda row: row["ms"]), min(layers, key=lambda row: row["ms"])
    area = {
        r["name"]: found[round(r["intensity"], 9), round(r["gflop_s"], 9)][0] for r in (slow, quick)
    }
    assert area[slow["name"]] - 6 == pytest.approx(
        (area[quick["name"]] - 6) * slow["share"] / quick["share"]
    )
    deep = next(row for row in layers if row["kind"] == "depth-wise 5x5")
    colour = found[round(deep["intensity"], 9), round(deep["gflop_s"], 9)][1]
    assert colour == to_hex(FAMILIES["depth-wise"][1])


def test_the_roof_is_the_lower_of_peak_and_bandwidth(rows):
    fig = plot_roofline(rows, PEAK)
    axes = fig.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    for line, bandwidth in zip(axes.lines, (25.0, 90.0)):
        x, y = line.get_data()
        assert y == pytest.approx(np.where(bandwidth * x < 100, bandwidth * x, 100.0))
        assert x[0] < min(r["intensity"] for r in rows if r["macs"]) and x[-1] > max(
            r["intensity"] for r in rows
        )
    assert {"memory 25 GB/s", "cache 90 GB/s", "matrix products 100 GFLOP/s"} <= set(words(fig))


def test_the_slowest_layers_are_named_with_their_share_of_the_roof(rows):
    texts = words(plot_roofline(rows, PEAK))
    listed = next(text for text in texts if "the slowest" in text).splitlines()[1:]
    slowest = sorted((row for row in rows if row["macs"]), key=lambda row: row["ms"])[:-4:-1]
    for i, (row, line) in enumerate(zip(slowest, listed, strict=True), start=1):
        roof = min(100.0, 25.0 * row["intensity"])
        expected = (
            f"{row['kind']}, {row['ms']:.1f} ms, {100 * row['gflop_s'] / roof:.0f}% of its roof"
        )
        assert line == f"{i}  {row['name']}: {expected}" and str(i) in texts


def test_headline_of_the_roofline(rows):
    def reached(chosen):
        return 100 * 2e-6 * sum(r["macs"] for r in chosen) / sum(r["ms"] for r in chosen) / 100.0

    head, note = words(plot_roofline(rows, PEAK))[:2]
    deep = [row for row in rows if row["kind"].startswith("depth-wise")]
    assert (
        head
        == f"The frame reaches {reached(rows):.0f}% of what this core can multiply, its depth-wise layers {reached(deep):.0f}%"
    )
    without = 100 * sum(r["ms"] for r in rows if not r["macs"]) / sum(r["ms"] for r in rows)
    assert f"takes {without:.0f}% of the time" in note
    plain = [row for row in rows if not row["kind"].startswith("depth-wise")]
    assert "depth-wise" not in words(plot_roofline(plain, PEAK))[0]


@pytest.mark.parametrize("preset", ["topformer-base", "seaformer-tiny", "mobilenetv2"])
def test_no_words_are_cut_off_and_every_kind_has_its_family(preset, tmp_path):
    table = of_model(minst.MobileInst(minst.MobileInstConfig.preset(preset)).fuse())
    for fig in (plot_layers(table), plot_roofline(table, PEAK)):
        assert save(fig, tmp_path / "figure.png").stat().st_size > 10_000
        renderer = FigureCanvasAgg(fig).get_renderer()
        drawn = [text for axes in (fig, *fig.axes) for text in axes.texts]
        # an axis with a logarithm also has labels beyond its ends, which are not drawn
        for text in drawn + [
            label
            for axes in fig.axes
            if axes.get_xscale() == "linear"
            for label in axes.get_xticklabels()
        ]:
            box = text.get_window_extent(renderer)
            assert (
                box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1
            ), text.get_text()
        assert (
            fig.alt.startswith(("Time does not follow MACs", "The frame reaches"))
            and len(fig.alt) < 250
        )
    assert set(CHEAP) < set(FAMILIES)


def test_rows_stay_as_they_were_and_empty_ones_are_named(rows):
    before = copy.deepcopy(rows)
    plot_layers(rows), plot_roofline(rows, PEAK)
    assert rows == before
    for wrong in (
        [],
        [row for row in rows if not row["macs"]],
        [{**row, "ms": 0.0} for row in rows],
    ):
        for plot in (plot_layers, lambda table: plot_roofline(table, PEAK)):
            with pytest.raises(ValueError, match=f"of these {len(wrong)} rows"):
                plot(wrong)
