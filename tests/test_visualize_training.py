import json
from pathlib import Path

import numpy as np
import pytest

from minst.training import TrainConfig, learning_rate
from minst.visualize.style import save
from minst.visualize.training import plot_training, read_log

SHIPPED = Path(__file__).parents[1] / "data_samples" / "weights" / "shapes-tiny"


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def losses(count, value=2.0, step=10, **more):
    return [{"iteration": step * (i + 1), "loss": value, **more} for i in range(count)]


def panels(fig):
    return {axes.get_title(loc="left"): axes for axes in fig.axes}


def points(axes):
    return [line for line in axes.lines if line.get_marker() == "."]


def curves(axes):
    return [line for line in axes.lines if line.get_marker() != "." and line.get_linestyle() == "-"]


def test_the_later_line_of_an_iteration_wins_and_order_is_restored(tmp_path):
    lines = [(10, 5.0), (30, 3.0), (20, 1.0), (30, 0.5)]  # resumed from 10
    path = write(tmp_path / "log.jsonl", [{"iteration": i, "loss": v} for i, v in lines])
    assert [(e["iteration"], e["loss"]) for e in read_log(path)] == [
        (10, 5.0),
        (20, 1.0),
        (30, 0.5),
    ]
    assert read_log(tmp_path) == read_log(path)  # the folder of a run
    assert "in 30 iterations" in plot_training(path).texts[0].get_text()


def test_learning_rate_is_that_of_the_step_that_was_logged(tmp_path):
    config = {
        "lr": 0.5,
        "iterations": 100,
        "warmup": 20,
        "decay": 0.5,
        "unknown_to_this_version": 1,
    }
    path = write(tmp_path / "log-2.jsonl", losses(10))
    (tmp_path / "train-2.json").write_text(json.dumps(config))
    expected = [
        0.5 * learning_rate(i - 1, TrainConfig(lr=0.5, iterations=100, warmup=20))
        for i in range(10, 101, 10)
    ]
    assert [e["lr"] for e in read_log(path)] == pytest.approx(expected)
    assert expected[0] == 0.25  # step number 10 of a warm-up of 20
    line = curves(panels(plot_training(path))["learning rate"])[0]
    np.testing.assert_allclose(line.get_ydata(), expected)  # exact: not smoothed
    assert "lr" not in read_log(write(tmp_path / "other.jsonl", losses(2)))[0]


def test_smoothed_lines_keep_a_constant_and_calm_noise(tmp_path):
    noise = np.random.default_rng(0).normal(2, 0.5, 200)
    log = write(
        tmp_path / "log.jsonl",
        [{"iteration": i + 1, "loss": v, "cls": 3.0} for i, v in enumerate(noise)],
    )
    axes = panels(plot_training(log))
    np.testing.assert_allclose(points(axes["total loss"])[0].get_ydata(), noise)
    line = curves(axes["total loss"])[0].get_ydata()
    assert line.std() < 0.35 * noise.std() and abs(line.mean() - noise.mean()) < 0.05
    np.testing.assert_allclose(curves(axes["class (focal)"])[0].get_ydata(), 3.0)


def test_runs_are_compared_by_color_with_a_legend(tmp_path):
    a = write(tmp_path / "a.jsonl", losses(5, value=3.0))
    b = write(tmp_path / "b.jsonl", losses(9, value=1.0, mask_iou=0.7))
    fig = plot_training({"plain": a, "other": b})
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["plain", "other"]
    axes = panels(fig)
    assert list(axes) == ["total loss", "mask iou"]  # what is not known is shown as well, last
    assert len(points(axes["mask iou"])[1].get_xdata()) == 9  # only the second run has it
    assert {panel.get_xlim() for panel in fig.axes} == {(0, 1.02 * 90)}  # one for all panels
    assert len({line.get_color() for line in curves(axes["total loss"])}) == 2
    assert [text.get_text() for text in axes["total loss"].texts] == ["3", "1"]
    handles = fig.legends[0].legend_handles
    assert [h.get_color() for h in handles] == [
        text.get_color() for text in axes["total loss"].texts
    ]


def test_shipped_logs_and_a_log_of_one_line(tmp_path):
    fig = plot_training(SHIPPED)
    log = [json.loads(line) for line in (SHIPPED / "log.jsonl").open()]
    ends = [line["loss"] for line in log][-5:]
    # where the line ends
    assert min(ends) <= float(panels(fig)["total loss"].texts[0].get_text()) <= max(ends)
    logged = {name for line in log for name in line} - {"iteration"}
    # and the learning rate, from the arguments beside the log
    assert len(fig.axes) == len(logged) + 1
    assert f"{log[-1]['iteration']:,} iterations" in fig.texts[0].get_text()
    assert save(fig, tmp_path / "training.png").stat().st_size > 10_000
    one = plot_training(write(tmp_path / "one.jsonl", losses(1)))
    save(one, tmp_path / "one.pdf")
    assert not one.legends


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no entries"),
        ("\n\n", "no entries"),
        ('{"iteration": 1, "loss": 2}\n\n{"iteration": 2, "lo', "line 3 is broken"),
        ('{"iteration": 1}', "line 1 lacks 'loss'"),
        ('{"iteration": 1, "loss": 2}\n{"loss": 2}', "line 2 lacks 'iteration'"),
        ('{"iteration": 1, "loss": NaN}', "line 1 is broken"),
        ('{"iteration": 1, "loss": "low"}', "line 1 is broken"),
        ("[1, 2]", "line 1 is broken"),
    ],
)
def test_a_bad_log_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=rf"log\.jsonl.*{message}"):
        plot_training(tmp_path / "log.jsonl")


def test_missing_logs(tmp_path):
    with pytest.raises(ValueError, match="there is no file .*gone.jsonl"):
        plot_training(tmp_path / "gone.jsonl")
    with pytest.raises(ValueError, match="no logs given"):
        plot_training({})
