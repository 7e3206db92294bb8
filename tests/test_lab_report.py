"""minst.lab.report and plots: the same bytes from the same metrics, and nothing in them that was not measured."""

import csv
import json
import shutil
from pathlib import Path

import fake_lab
import numpy as np
import pytest

from minst import cli
from minst.lab import statistics
from minst.lab.grid import VARIANTS
from minst.lab.measure import INTERVALS
from minst.lab.plots import PLOTS
from minst.lab.report import markdown, write_report
from minst.lab.results import IMAGE, VIDEO, Lab

SAMPLES = statistics.SAMPLES
COMMITTED = Path(__file__).resolve().parent.parent / "results" / "lab"


@pytest.fixture(autouse=True, scope="module")
def few_samples():
    """Intervals need no third digit here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "SAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_lab.write(tmp_path_factory.mktemp("lab"), seeds=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return fake_lab.write(tmp_path_factory.mktemp("lab"), seeds=2, names=("full", "images", "pooling=avg"))


@pytest.fixture(scope="module")
def lab(folder):
    return Lab(folder)


@pytest.fixture(scope="module")
def text(lab):
    return markdown(lab)


def test_twice_the_same_bytes(small, tmp_path):
    first, second = (write_report(small, tmp_path / name, plots=False).parent for name in "ab")
    for name in ("README.md", "runs.csv", "rows.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.skipif(not (COMMITTED / "report").is_dir(), reason="the grid has not been run")
def test_the_committed_tables_are_those_of_the_committed_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLES", SAMPLES)
    lab = tmp_path / "lab"
    shutil.copytree(COMMITTED, lab, ignore=shutil.ignore_patterns("data", "weights", "checkpoint*", "*.png", "report"))
    pictures = sorted(path.stem for path in (COMMITTED / "report").glob("*.png"))
    written = write_report(lab, tmp_path / "out", plots=False).parent
    again = (written / "README.md").read_text()
    for name in pictures:  # drawn again they may differ in a pixel with another matplotlib; that they are there is text
        assert f"![{name}]({name}.png)" in (COMMITTED / "report" / "README.md").read_text()
    plain = [
        line for line in (COMMITTED / "report" / "README.md").read_text().splitlines() if not line.startswith("![")
    ]
    assert [line for line in again.splitlines() if line] == [line for line in plain if line]
    for name in ("runs.csv", "rows.csv"):
        assert (written / name).read_bytes() == (COMMITTED / "report" / name).read_bytes()


def test_a_report_speaks_of_the_rows_that_the_lab_was_run_with(small, tmp_path):
    """An older lab: rows that today's grid has no more, and what to know of it at the top."""
    shutil.copytree(small, tmp_path / "lab")
    held = json.loads((tmp_path / "lab" / "lab.json").read_text())
    row = next(row for row in held["grid"] if row["name"] == "images")
    row.update(name="identity=none", says="as it once was", paper="1.7 AP worse", retention="They stay (Fig 2)")
    (tmp_path / "lab" / "lab.json").write_text(json.dumps(held | {"note": "Of an older model."}))
    for seed in (0, 1):
        (tmp_path / "lab" / f"images-{seed}").rename(tmp_path / "lab" / f"identity=none-{seed}")
    assert "identity=none" not in VARIANTS
    text = markdown(Lab(tmp_path / "lab"))
    assert text.splitlines()[2] == "**Of an older model.**"
    assert "as it once was (`identity=none`, 2)" in text and "| as it once was | 1.7 AP worse |" in text
    assert "| as it once was † | They stay (Fig 2) | retention 10: " in text
    assert "| as it once was | cosine |" in text and "(`images`" not in text


@pytest.mark.skipif(not (COMMITTED / "lab.json").is_file(), reason="the grid has not been run")
def test_the_report_of_the_committed_lab_says_of_which_model_it_is():
    lab = Lab(COMMITTED)
    assert "6bed8d7" in lab.note and lab.note in (COMMITTED / "report" / "README.md").read_text().splitlines()[2]
    assert {"identity=fresh", "identity=none", "global_norm", "decoder=local"} <= set(lab.rows)
    assert lab.full.associations == ["none", "cosine", "greedy", "scores", "centred", "dot", "mask"]


@pytest.mark.skipif(not (COMMITTED / "lab.json").is_file(), reason="the grid has not been run")
def test_committed_runs_hold_no_path_of_a_machine_and_are_whole():
    for path in COMMITTED.rglob("*.json*"):
        if "data" not in path.relative_to(COMMITTED).parts:
            assert '"/' not in path.read_text(), path
    for train in COMMITTED.glob("*-*/train.json"):
        assert train.with_name("log.jsonl").is_file(), train


def test_every_row_and_every_claim_is_there(lab, text):
    for name, variant in VARIANTS.items():
        assert f"{variant.says} (`{name}`, 2)" in text
    claims = text.split("## All rows")[0]
    assert (
        claims.count("**agrees**") + claims.count("**cannot tell**") + claims.count("**disagrees**")
        == sum(v.claim != 0 for v in VARIANTS.values()) + 2
    )  # Fig 2, and Tab 7 at T = 12
    assert text.count("| shipped weights: shapes-tiny | cosine |") == 1 and "shapes-tiny-images" not in text
    for title in ("Reuse interval T and speed", "Association", "Beyond the paper", "How many seeds?"):
        assert f"## {title}" in text


def test_claims_of_fig_2_and_tab_7_by_hand(lab, text):
    def cells(says: str) -> list[str]:
        return next(line for line in text.splitlines() if says in line).split(" | ")

    def difference(row, key, other, other_key):
        pairs = zip(lab.rows[row].runs, lab.rows[other].runs)
        return 100 * np.mean([a.estimate(key).value - b.estimate(other_key).value for a, b in pairs])

    def shown(value: float) -> str:
        return f"{value:+.1f} [".replace("-", "−")

    kept = difference("passing=off", ("retention", 10), "full", ("retention", 10))
    assert f"retention 10: {shown(kept)}" in cells("(Fig 2)")[2]
    for t, says in ((3, "best trade"), (12, "less exact")):
        lost = difference("full", ("video", "medium", "cosine", t), "full", ("video", "medium", "cosine", 1))
        assert f"video AP, cosine: {shown(lost)}" in cells(says)[2]
    assert cells("best trade")[4] == "**no claim**" and cells("less exact")[4] != "**no claim**"
    kept = lab.full.spread(("tracks", "fast", "mask", 9, 10)).mean
    assert f"{kept:.1f} ±" in text.split("| tracks kept 10 frames on |")[1].split("| mask, fast |")[1].split("|")[5]


def test_figures_of_a_row_by_hand(lab):
    row = lab.rows["images"]
    values = [100 * run.estimate(VIDEO).value for run in row.runs]
    assert row.spread(VIDEO)[:2] == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    full = [100 * run.estimate(VIDEO).value for run in lab.full.runs]
    found = lab.difference("images")
    assert found.difference == pytest.approx(np.mean(values) - np.mean(full))
    assert found.seeds == pytest.approx([a - b for a, b in zip(values, full)])
    assert found.low <= found.difference <= found.high
    assert row.differences(lab.full, VIDEO) == pytest.approx(found.seeds)
    assert lab.difference("images") is found and row.against(lab.rows["pooling=avg"], VIDEO) != found
    assert row.against(lab.full, IMAGE) != found != row.against(lab.full, VIDEO, IMAGE)
    assert lab.difference("pooling=avg") == lab.rows["pooling=avg"].against(lab.full, IMAGE)
    assert lab.difference("full") is None


def test_the_csv_holds_what_the_table_says(folder, lab, tmp_path, text):
    out = write_report(folder, tmp_path, plots=False).parent
    rows = list(csv.DictReader((out / "rows.csv").open()))
    assert len(rows) == 5 * len(VARIANTS)
    row = next(r for r in rows if r["variant"] == "pooling=avg" and r["figure"] == "image AP")
    found = lab.difference("pooling=avg")
    assert float(row["difference"]) == pytest.approx(found.difference, abs=6e-4)
    assert row["decides"] == "True" and row["verdict"] == found.verdict(1)
    assert f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}" in text
    runs = list(csv.DictReader((out / "runs.csv").open()))
    kept = next(r for r in runs if r["seed"] == "1" and r["figure"] == "track retention 3" and r["by"] == "mask")
    assert (kept["variant"], kept["speed"], kept["value"]) == ("full", "medium", "3")
    pairs = np.array(lab.full.runs[1].settings["medium", "mask", 3]["pairs"]).sum(axis=0)
    assert float(kept["points"]) == pytest.approx(100 * pairs[2] / pairs[3], abs=6e-4)
    assert {(r["variant"], r["seed"]) for r in runs} == {
        *((name, str(s)) for name in VARIANTS for s in (0, 1)),
        ("shapes-tiny", "0"),
    }


def test_the_time_of_a_frame_is_the_least_disturbed_of_its_parts(tmp_path):
    lab = fake_lab.write(tmp_path, 2, ("full",))
    for seed, slow in ((0, 5.0), (1, 0.0)):  # the machine was busy in the first run
        path = lab / f"full-{seed}" / "metrics.json"
        metrics = json.loads(path.read_text())
        for name, times in metrics["milliseconds"].items():
            times.update(key=14.0 + slow, other=(0.0 if name.endswith(" 1") else 10.0 + slow))
        for entry in metrics["settings"]:
            entry.update(keys=24, frames=96)
        path.write_text(json.dumps(metrics))
    assert Lab(lab).full.milliseconds("mask", 4) == pytest.approx(0.25 * 14 + 0.75 * 10)


def test_what_was_started_and_is_not_done_is_named(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "images-1" / "metrics.json").unlink()
    text = markdown(Lab(tmp_path / "lab"))
    assert "not here: images-1." in text and "(`images`, 1)" in text and "1 to 2 seeds" in text


def test_a_seed_that_the_full_model_lacks_is_not_compared(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "full-1" / "metrics.json").unlink()
    lab = Lab(tmp_path / "lab")
    assert len(lab.difference("images").seeds) == 1
    (tmp_path / "lab" / "images-0" / "metrics.json").unlink()
    assert Lab(tmp_path / "lab").difference("images") is None
    assert "no seed in common" in markdown(Lab(tmp_path / "lab"))


def test_reasons_are_taken_from_their_file(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "reasons.json").write_text(json.dumps({"pooling=avg": "Because so.", "association": "Thus."}))
    text = markdown(Lab(tmp_path / "lab"))
    assert "| Because so. |" in text and "\nThus.\n" in text


def test_nothing_to_report_is_said(tmp_path, capsys):
    lab = fake_lab.write(tmp_path / "lab", seeds=1, names=("images",))
    with pytest.raises(ValueError, match="no run of the full model is done"):
        Lab(lab)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "empty", "file"):
        assert cli.main(["lab", "report", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert f"{name} is no lab (lab.json is missing)" in said and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "lab"]


HUGE = 10**400
BROKEN = [  # what is done to a run's metrics, or the text in their place; where, and what is said
    ("", "metrics.json: is empty"),
    ('{"version": 1, "image"', "metrics.json: broken JSON at line 1, column"),
    ('{"image":' * 10**5, "metrics.json: broken JSON: nested too deeply"),
    ("[]", "metrics.json: expected `object`, got `array`"),
    (lambda m: m.update(version=2), "metrics.json: version: invalid enum value 2"),
    (lambda m: m.pop("model"), "metrics.json: lacks `model`"),
    (lambda m: m["model"].pop("macs"), "metrics.json: model: lacks `macs`"),
    (lambda m: m["settings"][1].update(AP="much"), "metrics.json: settings[1].AP: expected `float`, got `str`"),
    (lambda m: m["settings"][1].pop("pairs"), "metrics.json: settings[1]: lacks `pairs`"),
    (lambda m: m["settings"][1].update(keys=HUGE), "metrics.json: settings[1].keys: "),
    (lambda m: m["settings"][1]["pairs"].pop(), "metrics.json: settings[1]: `consistency` knows 12 clips"),
    (lambda m: m["settings"][1]["pairs"][3].pop(), "metrics.json: settings[1]: `pairs` are two numbers"),
    (lambda m: m["image"].update(rows="?"), "metrics.json: image: "),
    (lambda m: m["image"].update(rows="AAAA"), "metrics.json: image: buffer size must be"),
    (lambda m: m["image"]["instances"][0].pop(), "metrics.json: image: "),
    (lambda m: m["image"].update(instances=[[-1] * 4] * 12), "metrics.json: image.instances[0][0]: "),
    (lambda m: m["image"].update(instances=[[1]] * 12), "metrics.json: image: `rows` speak of more than"),
    (lambda m: m["consistency"].update(pairs=[]), "metrics.json: "),
    (lambda m: m["consistency"].update(distances=[1, 3]), "metrics.json: consistency.distances: "),
    (lambda m: m["settings"].clear(), "nothing was measured of the tracker ('medium', 'cosine', 3)"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN, ids=map(str, range(len(BROKEN))))
def test_metrics_that_are_broken_or_foreign_are_named(small, tmp_path, capsys, change, words):
    shutil.copytree(small, tmp_path / "lab")
    path = tmp_path / "lab" / "images-1" / "metrics.json"
    metrics = json.loads(path.read_text())
    if callable(change):
        change(metrics)
        change = json.dumps(metrics)
    path.write_text(change)
    assert cli.main(["lab", "report", str(tmp_path / "lab"), "--no-plots"]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and len(said) < 500 and "images-1" in said
    assert not list((tmp_path / "lab").glob("report/*"))


def test_the_other_files_of_a_lab_are_looked_at_too(small, tmp_path, capsys):
    shutil.copytree(small, tmp_path / "lab")
    reasons, shipped = tmp_path / "lab" / "reasons.json", tmp_path / "lab" / "shipped" / "shapes-tiny.json"
    reasons.write_text('{"images": ["no", "sentence"]}')
    assert cli.main(["lab", "report", str(tmp_path / "lab")]) == 2
    assert "reasons.json: [...]: expected `str`, got `array`" in capsys.readouterr().err
    reasons.unlink()
    shipped.write_text("{}")
    assert cli.main(["lab", "report", str(tmp_path / "lab")]) == 2
    assert "shapes-tiny.json: lacks `version`" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        cli.main(["lab", "report", str(small), "--out", str(tmp_path / "file")])
    assert "file" in capsys.readouterr().err


def test_one_seed_has_no_spread_and_no_seeds_needed(tmp_path):
    text = markdown(Lab(fake_lab.write(tmp_path, seeds=1, names=("full", "pooling=avg"))))
    assert "(1 seed;" in text and "How many seeds?" not in text and "nan" not in text


def test_metrics_that_found_nothing_to_count_are_dashes(tmp_path):
    lab = fake_lab.write(tmp_path, seeds=2, names=("full", "pooling=avg"))
    for path in lab.glob("*/metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["consistency"]["pairs"] = [[0] * 6] * fake_lab.CLIPS
        path.write_text(json.dumps(metrics))
    text = markdown(Lab(lab))
    assert "| – | – |" in text and "nan" not in text


def test_a_clear_difference_agrees_and_its_opposite_disagrees(tmp_path):
    worse = fake_lab.write(tmp_path / "a", 3, ("full", "pooling=avg"), lambda n: 0.95 if n == "full" else 0.2)
    better = fake_lab.write(tmp_path / "b", 3, ("full", "pooling=avg"), lambda n: 0.2 if n == "full" else 0.95)
    assert "**agrees**" in markdown(Lab(worse)) and "**disagrees**" in markdown(Lab(better))


@pytest.mark.filterwarnings("error")
def test_plots_of_a_lab_that_found_nothing(tmp_path):
    lab = Lab(fake_lab.write(tmp_path, 1, ("full", "pooling=avg"), lambda name: -1.0))
    assert lab.full.spread(VIDEO).mean == 0
    for plot in PLOTS.values():
        figure = plot(lab)
        assert len(figure.alt) > 20 and figure.png(30).startswith(b"\x89PNG")


def test_the_plot_of_differences_draws_the_table_s_numbers(lab):
    axes = PLOTS["differences"](lab).axes[0]
    points = sorted(float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o")
    assert points == pytest.approx(sorted(lab.difference(name).difference for name in lab.rows if name != "full"))
    hollow = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    unsure = [n for n in lab.rows if n != "full" and lab.difference(n).low <= 0 <= lab.difference(n).high]
    assert len(hollow) == len(unsure)


def test_the_plot_of_intervals_draws_ap_above_and_tracks_below(lab):
    above, _, _, below = PLOTS["intervals"](lab).axes[:4]
    for axes, key in ((above, ("video", "fast", "cosine")), (below, ("tracks", "fast", "mask"))):
        wanted = [lab.full.spread((*key, t, *(10,) * (key[0] == "tracks"))).mean for t in INTERVALS]
        drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert drawn["fast"] == pytest.approx(wanted)


def test_pictures_stand_beside_the_tables(tmp_path):
    lab = fake_lab.write(tmp_path / "lab", 1, ("full", "images", "pooling=avg"))
    out = write_report(lab).parent
    assert out == lab / "report" and sorted(p.stem for p in out.glob("*.png")) == sorted(PLOTS)
    text = (out / "README.md").read_text()
    assert all(f"![{name}]({name}.png)" in text for name in PLOTS)
