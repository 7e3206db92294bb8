"""minst.lab.report and plots: the same bytes from the same metrics, and nothing in them that was not measured."""

import json
import re
import shutil
from pathlib import Path

import fake_lab
import numpy as np
import pytest

from minst import cli
from minst.lab.grid import VARIANTS
from minst.lab.measure import FIGURES
from minst.lab.plots import PLOTS
from minst.lab.report import claims_table, first_page, markdown, seeds_table, shipped_table, write_report
from minst.lab.results import Lab
from minst.lab.statistics import Family, compare_clips, holm

RESULTS = Path(__file__).resolve().parent.parent / "results"
COMMITTED = [path.parent for path in sorted(RESULTS.glob("lab*/lab.json"))]
FEW = ("full", "pooling=avg", "passing=shared", "images")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_lab.write(tmp_path_factory.mktemp("lab"), seeds=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return fake_lab.write(tmp_path_factory.mktemp("lab"), seeds=2, names=FEW)


@pytest.fixture(scope="module")
def lab(folder):
    return Lab(folder)


@pytest.fixture(scope="module")
def text(lab):
    return markdown(lab)


def test_twice_the_same_bytes(small, tmp_path):
    first, second = (write_report(small, tmp_path / name, plots=False) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("held", COMMITTED, ids=lambda path: path.name)
def test_the_committed_report_is_that_of_the_committed_metrics(held, tmp_path):
    Lab(held)  # what is committed can be read
    written = write_report(held, tmp_path, plots=False).parent
    report = (held / "report" / "README.md").read_text()
    for path in (held / "report").glob("*.png"):  # drawn again they may differ in a pixel with another matplotlib
        assert re.search(rf"!\[[A-Z][^\]]+\.\]\({path.name}\)", report)  # sentences for who does not see it
    plain = [line for line in report.splitlines() if line and not line.startswith("![")]
    assert [line for line in (written / "README.md").read_text().splitlines() if line] == plain


@pytest.mark.parametrize("held", COMMITTED, ids=lambda path: path.name)
def test_committed_runs_hold_no_path_of_a_machine_and_name_their_commit(held):
    for path in held.rglob("*.json*"):
        assert '"/' not in path.read_text(), path
    for path in [*held.glob("*-*/metrics.json"), *held.glob("shipped/*.json")]:
        assert len(json.loads(path.read_text())["commit"]) >= 7, path


def test_every_row_is_judged_against_its_base(lab, text):
    judged = [name for name, variant in VARIANTS.items() if name != variant.base]
    assert judged == list(lab.judged)
    for name, variant in VARIANTS.items():
        assert f"{variant.says} (`{name}`, 3)" in text
    for name in ("pooling=avg", "images"):
        variant = VARIANTS[name]
        theirs = lab.values(variant.base, variant.judged_by)
        wanted = [ours - theirs[seed] for seed, ours in lab.values(name, variant.judged_by).items()]
        assert lab.difference(name).seeds == pytest.approx(wanted)
        assert lab.difference(name).difference == pytest.approx(np.mean(wanted))


def test_the_spread_is_pooled_within_a_family_and_p_over_all_rows(lab):
    base, rows = lab.values("passing=shared", "video AP"), {}
    for name, variant in VARIANTS.items():
        if variant.base == "passing=shared" and name != variant.base:
            rows[name] = {seed: ours - base[seed] for seed, ours in lab.values(name, "video AP").items()}
    assert lab.difference("images") == Family(rows).compare("images")
    assert lab.judged == holm({name: lab.difference(name) for name in lab.judged})


def test_values_are_points_of_what_the_runs_wrote(folder, lab):
    for name, seed in (("full", 0), ("images", 2)):
        held = json.loads((folder / f"{name}-{seed}" / "metrics.json").read_text())["figures"]
        assert lab.values(name, "dice")[seed] == pytest.approx(100 * held["dice"][0])
    held = json.loads((folder / "shipped" / "shapes-tiny-cut.json").read_text())["figures"]
    np.testing.assert_allclose(lab.shipped["shapes-tiny", "cut"]["told 3"], 100 * np.array(held["told 3"]))


def test_the_tables_say_what_was_computed(lab):
    claims = claims_table(lab)
    for name, found in lab.judged.items():
        line = next(line for line in claims.splitlines() if line.startswith(f"| {VARIANTS[name].says} |"))
        assert f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]".replace("-", "−") in line
        assert f"**{found.decided}**" in line and found.verdict(VARIANTS[name].claim) in line
    shown, alone = shipped_table(lab), []
    for of, says, (ours, theirs), found in lab.compared:
        alone.append(compare_clips(ours, theirs))
        assert found[:4] == alone[-1][:4]
        line = next(line for line in shown.splitlines() if f"{of} | {says} |" in line)
        assert f"**{found.decided}** (p" in line or f"**{found.decided}** |" in line
        assert f"| {ours[0]:.1f} | {theirs[0]:.1f} |" in line
    assert [each[-1].p for each in lab.compared] == [c.p for c in holm(dict(enumerate(alone))).values()]
    assert "told of the cut, T = 3" in shown and "oracle for cosine, T = 1" in shown and "X6 frozen, T = 6" in shown


def test_what_differs_by_far_is_decided(lab):
    none = next(c for c in lab.compared if c[:2] == ("shapes-tiny, medium", "none for cosine, T = 1"))
    assert none[3].decided == "worse" and none[3].difference == pytest.approx(-20, abs=1)
    late = next(c for c in lab.compared if c[:2] == ("shapes-tiny, slow", "T = 12 for 1"))
    assert late[3].difference == pytest.approx(-11, abs=1)


def test_a_clear_difference_agrees_and_its_opposite_disagrees(tmp_path):
    worse = fake_lab.write(tmp_path / "a", 3, FEW[:2], lambda n: 0.9 if n == "full" else 0.2)
    better = fake_lab.write(tmp_path / "b", 3, FEW[:2], lambda n: 0.2 if n == "full" else 0.9)
    for held, words in ((worse, ("worse", "agrees")), (better, ("better", "disagrees"))):
        found = claims_table(Lab(held))
        assert f"**{words[0]}**" in found and f"| {words[1]} |" in found


def test_the_simulated_coverage_is_quoted(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    assert "Simulated" not in markdown(Lab(tmp_path / "lab"))
    found = {"numbers": {"3 seeds": {"alike": {"pooled t": {"coverage": 94.7, "half width": 1.4}}}}}
    (tmp_path / "lab" / "simulation.json").write_text(json.dumps(found))
    assert "three seeds hold the truth in 94.7 % of the rows." in markdown(Lab(tmp_path / "lab"))


def test_what_can_be_seen(lab):
    family = lab.family("full", "image AP")
    line = next(line for line in seeds_table(lab).splitlines() if "image AP, against `full`" in line)
    assert f"| {family.sd:.2f} | {family.freedom:.0f} | {family.detectable(3):.1f} (3 seeds) |" in line


def test_a_report_speaks_of_the_rows_that_the_lab_was_run_with(small, tmp_path):
    """An older lab: rows that today's grid has no more."""
    shutil.copytree(small, tmp_path / "lab")
    held = json.loads((tmp_path / "lab" / "lab.json").read_text())
    row = next(row for row in held["grid"] if row["name"] == "images")
    row.update(name="identity=none", says="as it once was", paper="1.7 AP worse")
    (tmp_path / "lab" / "lab.json").write_text(json.dumps(held))
    for seed in (0, 1):
        (tmp_path / "lab" / f"images-{seed}").rename(tmp_path / "lab" / f"identity=none-{seed}")
    assert "identity=none" not in VARIANTS
    text = markdown(Lab(tmp_path / "lab"))
    assert "as it once was (`identity=none`, 2)" in text and "| 1.7 AP worse |" in text and "(`images`" not in text


def test_plan_and_log_are_linked_only_where_they_are(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    assert "by people" not in markdown(Lab(tmp_path / "lab"))
    (tmp_path / "lab" / "LOG.md").write_text("It ran.")
    text = markdown(Lab(tmp_path / "lab"))
    assert "Written by people: [LOG.md](../LOG.md)." in text and "PLAN" not in text


def test_what_was_started_and_is_not_done_is_named(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "images-1" / "metrics.json").unlink()
    text = markdown(Lab(tmp_path / "lab"))
    assert "not here: images-1." in text and "(`images`, 1)" in text


def test_a_row_that_shares_no_seed_with_its_base_is_not_compared(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "full-1" / "metrics.json").unlink()
    (tmp_path / "lab" / "pooling=avg-0" / "metrics.json").unlink()
    lab = Lab(tmp_path / "lab")
    assert lab.difference("pooling=avg") is None and "pooling=avg" not in lab.judged
    assert "(`pooling=avg`, 1)" in markdown(lab)


def test_reasons_are_taken_from_their_file(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    (tmp_path / "lab" / "reasons.json").write_text(json.dumps({"pooling=avg": "Because so."}))
    text = markdown(Lab(tmp_path / "lab"))
    assert "| Because so. |" in text
    page = first_page(Lab(tmp_path / "lab"))
    assert [line.split(":")[0] for line in page.splitlines() if line.endswith("Because so.")] == ["- X_L by average pooling"]


def test_one_seed_has_neither_spread_nor_interval(tmp_path):
    lab = Lab(fake_lab.write(tmp_path, seeds=1, names=FEW[:2]))
    text = markdown(lab)
    assert "What can be seen" not in text and "nan" not in text and "–]" not in text
    assert not lab.judged and not first_page(lab) and "What is decided" not in text  # nothing to say yet
    assert f"{lab.values('pooling=avg', 'dice')[0]:.1f}, {lab.difference('pooling=avg', 'dice').difference:+.1f} |".replace("-", "−") in text
    assert not list(write_report(lab.folder, tmp_path / "out").parent.glob("differences.png"))


def test_shipped_weights_alone_are_a_report(tmp_path):
    lab = Lab(fake_lab.write(tmp_path, seeds=0))
    text = markdown(lab)
    assert "0 trained runs and 4 measurements" in text and "The grid is not trained yet" in text
    assert not lab.judged and "## What needs no training" in text and "## What is decided" not in text


def test_nothing_to_report_is_said(tmp_path, capsys):
    lab = fake_lab.write(tmp_path / "lab", seeds=0)
    shutil.rmtree(lab / "shipped")
    with pytest.raises(ValueError, match="no run is done yet"):
        Lab(lab)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "empty", "file"):
        assert cli.main(["lab", "report", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert f"{name} is no lab (lab.json is missing)" in said and said.count("\n") == 1


BROKEN = [  # what is done to a run's metrics, or the text in their place; where, and what is said
    ("", "metrics.json: is empty"),
    ('{"version": 1, "image"', "metrics.json: broken JSON at line 1, column"),
    ('{"image":' * 10**5, "metrics.json: broken JSON: nested too deeply"),
    ("[]", "metrics.json: expected `object`, got `array`"),
    (lambda m: m.update(version=1), "metrics.json: version 1, not 3; remove it"),
    (
        lambda m: m.update(version=2, figures={"dice": {"value": 0.2, "without": [0.2] * 20}}),
        "metrics.json: version 2, not 3; remove it, and `minst lab run` measures again",
    ),
    (lambda m: m.pop("figures"), "metrics.json: lacks `figures`"),
    (lambda m: m["figures"].update(dice=["much"]), "metrics.json: figures[...][0]: expected `float`"),
    (lambda m: m["figures"]["image AP"].pop(), "metrics.json: image AP has not 21 finite values"),
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
    (tmp_path / "lab" / "reasons.json").write_text('{"images": ["no", "sentence"]}')
    assert cli.main(["lab", "report", str(tmp_path / "lab")]) == 2
    assert "reasons.json: [...]: expected `str`, got `array`" in capsys.readouterr().err
    (tmp_path / "lab" / "reasons.json").unlink()
    (tmp_path / "lab" / "shipped" / "shapes-tiny-cut.json").write_text("{}")
    assert cli.main(["lab", "report", str(tmp_path / "lab")]) == 2
    assert "shapes-tiny-cut.json: lacks `version`" in capsys.readouterr().err


def test_pictures_draw_the_tables_numbers_and_stand_beside_them(small, tmp_path):
    shutil.copytree(small, tmp_path / "lab")
    lab = Lab(small)
    wanted = {"differences": [found.difference for found in lab.judged.values()],
              "shipped": [found.difference for *_, found in lab.compared]}  # fmt: skip
    for name, plot in PLOTS.items():
        axes = plot(lab).axes[0]
        drawn = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
        assert drawn == pytest.approx(wanted[name])
    out = write_report(tmp_path / "lab").parent
    assert out == tmp_path / "lab" / "report" and sorted(p.stem for p in out.glob("*.png")) == sorted(PLOTS)
    text = (out / "README.md").read_text()
    assert all(f"![{PLOTS[name](lab).alt}]({name}.png)" in text for name in PLOTS)


def test_the_first_page_is_a_picture_and_ten_sentences_that_say_what_the_tables_say(lab, small, tmp_path, monkeypatch):
    shutil.copytree(small, tmp_path / "lab")
    page = write_report(tmp_path / "lab").read_text().split("\n## ")[0]
    # four rows, of which two are the bases
    assert page.count("![") == 1 and "differences.png" in page and page.count("\n- ") == 2
    last = [*lab.judged][-3:]  # with three decided rows at the end
    judged = {name: each._replace(p=0.001 if name in last else 1.0) for name, each in lab.judged.items()}
    monkeypatch.setitem(vars(lab), "judged", judged)
    page = markdown(lab).split("\n## ")[0]
    lines = [line[2:] for line in page.splitlines() if line.startswith("- ")]
    assert len(lines) == 10 and len({*lines}) == 10
    said = {}
    for line in lines:
        what, effect, way, low, high, end = re.fullmatch(
            r"(.+): (\d+\.\d) points of (?:image|video) AP (more|less), between (.\d+\.\d) and (.\d+\.\d), (?:so \*\*|which )(\w+).*", line
        ).groups()
        said[what] = (float(effect) if way == "more" else -float(effect), *(float(x.replace("−", "-")) for x in (low, high)), end)
    trained = 0
    for name, found in judged.items():
        variant = VARIANTS[name]
        what = variant.says[0].upper() + variant.says[1:]
        if what not in said:
            continue
        trained += 1
        *numbers, end = said[what]
        assert numbers == pytest.approx([found.difference, found.low, found.high], abs=0.051)
        assert {"leaves": "open", "counts": "equal"}.get(end, end) == found.decided
        paper = f"In the paper it is {variant.paper}." if variant.paper else "The paper is silent."
        assert any(line.startswith(what) and paper in line for line in lines)
    assert trained == 10
    # nobody reads past an open one to find a decided one
    opened = [said[what][-1] == "leaves" for what in said]
    assert opened == sorted(opened)
    decided = sum(found.decided != "open" for found in judged.values())
    assert 0 < decided < len(judged) and opened.count(False) == min(10, decided)
