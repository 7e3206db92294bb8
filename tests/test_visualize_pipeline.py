import itertools
import math

import matplotlib.colors
import pytest
import torch
from matplotlib.patches import FancyBboxPatch

from minst import MobileInst, MobileInstConfig
from minst.macs import summary
from minst.visualize import pipeline
from minst.visualize.pipeline import BLOCKS, QUIET, plot_pipeline
from minst.visualize.style import rgb, save


def words(fig):
    return [text.get_text() for axes in fig.axes for text in axes.texts] + [
        text.get_text() for text in fig.texts
    ]


def colors_of_boxes(fig):
    edges = [
        p.get_edgecolor()
        for axes in fig.axes
        for p in axes.patches
        if isinstance(p, FancyBboxPatch)
    ]
    return {matplotlib.colors.to_hex(edge) for edge in edges}


def times(*sizes):
    return " \u00d7 ".join(map(str, sizes))


@pytest.mark.parametrize(
    "preset, size", [("shapes-tiny", (192, 256)), ("seaformer-small", (130, 200))]
)
def test_every_shape_on_the_map_is_that_of_a_real_run(preset, size):
    model = MobileInst(MobileInstConfig.preset(preset)).eval()
    with torch.no_grad():
        frames = torch.zeros(1, 3, *size)
        out, encoded = model(frames), model.encode(frames)
        padded = torch.zeros(1, 3, *(math.ceil(n / 64) * 64 for n in size))
        levels = model.backbone(padded)
    said = words(plot_pipeline(model, size))
    for name, level in zip(("X3", "X4", "X5", "X6"), levels, strict=True):
        assert f"{name}  {times(*level.shape[1:])}" in said
    assert (
        times(*encoded.padded_x_mask.shape[1:]) in said
        and times(*out.mask_logits.shape[1:]) in said
    )
    assert f"class  {times(*out.class_logits.shape[1:])}" in said
    assert f"objectness  {out.objectness.shape[1]}" in said
    assert f"kernels K  {times(*out.kernels.shape[1:])}" in said
    assert f"queries Q  {times(*out.global_queries.shape[1:])}" in said
    tokens = times(levels.x6[0, 0].numel(), model.config.dim)  # as many of X_L: one stride for both
    assert sum(text.endswith(f"  {tokens}") and text.startswith("X$") for text in said) == 2
    assert f"frame  3 \u00d7 {times(*size)}" in said


def test_shares_of_cost_are_those_of_summary():
    model = MobileInst(MobileInstConfig.preset("topformer-tiny"))
    table = summary(model, (128, 128))
    said = words(plot_pipeline(model, (128, 128)))
    for part in ("backbone", "mask_decoder", "instance_decoder"):
        assert f"{100 * table[part]['macs'] / table['total']['macs']:.0f} % of MACs" in said
    assert f"{table['total']['params'] / 1e6:.1f} M parameters" in said[-1]


@pytest.fixture(scope="module")
def read_once():
    model = MobileInst(MobileInstConfig.preset("shapes-tiny"))
    return pipeline._read(model, (64, 64))


@pytest.mark.parametrize("block", BLOCKS)
def test_one_block_is_lit_and_the_rest_is_grey(block, read_once, monkeypatch):
    monkeypatch.setattr(pipeline, "_read", lambda *_: read_once)
    fig = plot_pipeline(size=(64, 64), highlight=block)
    lit = {matplotlib.colors.to_hex(rgb(BLOCKS[block][0]))}
    assert colors_of_boxes(fig) == {QUIET} | (
        lit if block != "data" else set()
    )  # data is frames, not a box
    assert fig.texts[0].get_text() == f"You are here: {BLOCKS[block][1]}"
    bold = {t.get_text(): t.get_color() for t in fig.axes[0].texts if t.get_fontweight() == "bold"}
    assert len(set(bold.values())) == (1 if block == "data" else 2)


def test_without_highlight_every_block_has_its_own_color():
    fig = plot_pipeline(size=(64, 64))
    seen = colors_of_boxes(fig)
    assert seen == {
        matplotlib.colors.to_hex(rgb(row[0])) for name, row in BLOCKS.items() if name != "data"
    }
    assert len(seen) == len(BLOCKS) - 1
    assert {matplotlib.colors.to_hex(p.get_edgecolor()) for p in fig.axes[0].patches} >= {
        matplotlib.colors.to_hex(rgb(6))
    }


def test_the_switches_of_an_ablation_are_seen():
    def of(**fields):
        model = MobileInst(MobileInstConfig.preset("shapes-tiny", **fields))
        return words(plot_pipeline(model, (64, 64)))

    paper = of()
    assert paper.count("global decoder") == 1
    assert paper.count("local decoder") == 2  # of frames t and t + delta
    assert {"max pool", "X6 enhances X3..X5", "down, up, down"} <= set(paper)
    assert "no injection" not in paper
    plain = of(semantic_enhancer=False, injection=False)
    assert {"no semantic enhancer", "down, up, down", "no injection"} <= set(plain)
    other = of(pooling="avg", bottom_up=False)
    assert other.count("avg pool") == 1 and "max pool" not in other
    assert {"X6 enhances X3..X5", "top-down only"} <= set(other)


def test_the_map_leaves_model_and_random_numbers_as_they_are(tmp_path):
    model = MobileInst(MobileInstConfig.preset("shapes-tiny")).train()
    before, state = (
        {k: v.clone() for k, v in model.state_dict().items()},
        torch.random.get_rng_state(),
    )
    fig = plot_pipeline(model, (96, 64))
    plot_pipeline()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(part._forward_hooks for part in model.modules())
    assert fig.get_figwidth() == 9.4 and fig.get_figheight() <= 3.3
    assert save(fig, tmp_path / "map.svg").stat().st_size > 1000


def test_words_are_legible_and_stay_inside_the_figure():
    model = MobileInst(MobileInstConfig.preset("seaformer-base"))
    fig = plot_pipeline(model, (1088, 1920))
    fig.draw_without_rendering()
    page = fig.bbox
    texts = [text for text in [*fig.axes[0].texts, *fig.texts] if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes):
        assert text.get_fontsize() >= 6.5
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1, (
            text.get_text()
        )
    for (one, a), (other, b) in itertools.combinations(zip(texts, boxes), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 0 or height <= 2, (one.get_text(), other.get_text())


def test_bad_input_says_what_to_give():
    with pytest.raises(
        ValueError, match="no block 'decoder'; highlight one of data, backbone, .*tracking"
    ):
        plot_pipeline(highlight="decoder")
    with pytest.raises(ValueError, match="at least 64"):
        plot_pipeline(size=(640, 32))
