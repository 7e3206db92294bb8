"""The explorer as files: each state of the page is what the explorer itself would show, in chromium, without Python."""

import html
import json
import os
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ipywidgets", reason="the extra is missing: pip install -e '.[test]'")

from minst.cli import main
from minst.samples import load_sample
from minst.visualize import explore, static
from minst.visualize.recording import Settings

AXE = os.environ.get("MINST_AXE")  # axe.min.js of npm's axe-core
SETTINGS = Settings(3, "mask")


@pytest.fixture(scope="module")
def explorer():
    """Eight frames of a clip in which creatures hide each other."""
    return explore("shapes-tiny", list(load_sample("occlusion"))[::4], SETTINGS)


@pytest.fixture(scope="module")
def folder(explorer, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "my clip"
    before = explorer.settings, explorer.query
    assert static.save_explorer(explorer, out, (1, 3)) == sum(path.stat().st_size for path in out.rglob("*.*"))
    assert (explorer.settings, explorer.query) == before
    return out


@pytest.fixture(scope="module")
def address(folder, any_server):
    with any_server(folder.parent) as root:
        yield f"{root}my%20clip/"


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 900, "height": 1000})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto(address)
    page.locator("main").wait_for()
    yield page
    assert not errors
    context.close()


def middles(rows: int, columns: int):
    return (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns


def words(text: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def wanted(explorer, t: int, query: int, settings=SETTINGS) -> str:
    """What the explorer says in this state."""
    before = explorer.settings, explorer.query
    explorer.settings, explorer.query = settings, query
    said = words(explorer.frame_caption(t) + " " + explorer.query_caption(t))
    explorer.settings, explorer.query = before
    return said


def shows(page, said: str) -> None:
    """Wait until the caption says it and nothing else."""
    said = json.dumps(said)
    page.wait_for_function(f"document.getElementById('caption').innerText.split(/\\s+/).join(' ') === {said}")


def at(page, part: str, number: int = 0) -> str:
    """The file that a picture of the page shows, once it has come."""
    place = f"document.querySelectorAll('#{part} img')[{number}]"
    page.wait_for_function(f"{place}.complete && {place}.naturalWidth > 0")
    return page.evaluate(f"{place}.src").split("/my%20clip/")[1]


def test_it_opens_as_the_explorer_does_and_every_picture_is_the_explorers(page, explorer, folder, screenshots):
    shows(page, wanted(explorer, 0, explorer.query))
    label = explorer.weights.value
    assert (folder / at(page, "stage")).read_bytes() == explorer.picture_at(label, SETTINGS, 0)
    assert (folder / at(page, "tiles")).read_bytes() == explorer.column([explorer.soft(0)])
    looks = explorer.looks(label, 0, explorer.query)
    assert (folder / at(page, "tiles", 1)).read_bytes() == explorer.column(looks)
    # the chart is the same elements in the same order
    drawn = page.evaluate("document.querySelector('#chart svg').innerHTML")
    live = page.evaluate("text => { const e = document.createElement('div'); e.innerHTML = text; return e.firstChild.innerHTML }", explorer.chart.overlay)
    assert drawn == live and len(drawn) > 5000
    page.screenshot(path=screenshots / "explorer-static.png", full_page=True)


def test_every_state_has_its_files(folder, explorer):
    about = json.loads((folder / "about.json").read_text())
    queries = {*map(int, about["strips"])}
    assert about["frames"] == 8 and explorer.query in queries
    for T, how in product((1, 3), ("mask", "cosine")):
        said = json.loads((folder / f"{T}-{how}" / "said.json").read_text())
        replay = explorer.recording.replay(SETTINGS._replace(reuse_interval=T, association=how))
        assert said["keys"] == replay.keys == [t - t % T for t in range(8)]
        for t, frame in enumerate(said["frames"]):
            assert frame["queries"] == replay.frames[t].queries and frame["ids"] == replay.frames[t].ids
            assert {*frame["queries"]} <= queries == {*map(int, frame["of"])}
            assert (folder / f"{T}-{how}" / f"{t}.jpg").is_file()
            for query, of in frame["of"].items():
                assert (folder / of["tile"]).is_file()
                assert (folder / f"query-{query}" / f"looks-{said['keys'][t]}.jpg").is_file()
                assert ("<rect" in of["halo"]) == (int(query) in frame["queries"])


def test_cells_are_what_a_click_in_their_middle_finds(explorer):
    replay = explorer.replay
    for t in (0, 5):
        cells = replay.queries_at(t, *middles(20, 30))
        for row, column in np.ndindex(20, 30):
            there = replay.query_at(t, (column + 0.5) / 30, (row + 0.5) / 20)
            assert cells[row, column] == (-1 if there is None else there)
            # the first mask that holds the pixel, which is the best
            masks = replay.frames[t].masks()
            h, w = masks.shape[1:]
            hit = masks[:, int((row + 0.5) * h / 20), int((column + 0.5) * w / 30)].tolist()
            assert cells[row, column] == (replay.frames[t].queries[hit.index(True)] if any(hit) else -1)
        assert len({*cells.ravel().tolist()}) > 2


def test_keys_go_through_frames_and_objects(page, explorer):
    page.locator("#stage").focus()
    query = explorer.query
    for key, t in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 7), ("ArrowRight", 7), ("Home", 0), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        shows(page, wanted(explorer, t, query))
    queries = explorer.replay.frames[0].queries
    place = queries.index(query)
    for key, step in (("ArrowDown", 1), ("ArrowDown", 1), ("ArrowUp", -1)):
        place = (place + step) % len(queries)
        page.keyboard.press(key)
        shows(page, wanted(explorer, 0, queries[place]))
    assert page.evaluate("scrollY") == 0
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Pause"
    page.wait_for_function("document.getElementById('frame').value > 2")
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Play"


def test_a_click_selects_what_lies_there_and_nothing_where_nothing_is(page, explorer):
    box = page.locator("#stage").bounding_box()
    cells = explorer.replay.queries_at(0, *middles(*static.GRID))
    found = set()
    for query in explorer.replay.frames[0].queries:
        row, column = np.argwhere(cells == query)[len(np.argwhere(cells == query)) // 2]
        x, y = (column + 0.5) / static.GRID[1], (row + 0.5) / static.GRID[0]
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        shows(page, wanted(explorer, 0, query))
        found.add(query)
    row, column = np.argwhere(cells == -1)[0]
    page.mouse.click(box["x"] + (column + 0.5) / 80 * box["width"], box["y"] + (row + 0.5) / 60 * box["height"])
    shows(page, wanted(explorer, 0, query))
    assert len(found) > 2


def test_t_association_slider_and_timeline_are_followed(page, explorer):
    query = explorer.query
    page.get_by_role("slider", name="frame").fill("6")
    shows(page, wanted(explorer, 5, query))
    for name, settings in (
        ("1 (no reuse)", SETTINGS._replace(reuse_interval=1)),
        ("cosine (the paper's)", Settings(1, "cosine")),
        ("3", Settings(3, "cosine")),
        ("masks (ours)", SETTINGS),
    ):
        page.get_by_role("radio", name=name, exact=True).check()
        shows(page, wanted(explorer, 5, query, settings))
    frame = explorer.replay.frames[3]
    # the mark of a hand-over lies on its cell
    marks = page.locator("#chart g.handover[data-pick^='3,']")
    assert marks.count() and "1" in marks.first.get_attribute("data-pick")
    marks.first.click()
    shows(page, wanted(explorer, 3, frame.queries[frame.ids.index(1)]))
    frame = explorer.replay.frames[1]
    page.locator(f"#chart rect[data-pick='1,{frame.ids[-1]}']").click()
    shows(page, wanted(explorer, 1, frame.queries[-1]))
    page.locator("#chart [data-pick='2,0']").first.click()
    shows(page, wanted(explorer, 2, frame.queries[-1]))


def test_it_fits_a_phone_and_axe_finds_nothing_serious(browser, address, screenshots):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.locator("main").wait_for()
    at(page, "stage")
    page.screenshot(path=screenshots / "explorer-static-phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if AXE:
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
        assert [one for one in found if one[0] in ("serious", "critical")] == []
    page.close()


def test_a_page_without_its_files_says_so(browser, folder, any_server, tmp_path):
    (tmp_path / "index.html").write_bytes((folder / "index.html").read_bytes())
    with any_server(tmp_path) as root:
        page = browser.new_page()
        page.goto(root)
        page.get_by_role("alert").filter(has_text="Could not load about.json: 404").wait_for()
        page.close()


def test_a_folder_that_holds_something_and_a_page_too_large_are_refused(explorer, folder, tmp_path, monkeypatch):
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(ValueError, match="is not an empty folder; choose another"):
        static.save_explorer(explorer, folder, (3,))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == kept
    monkeypatch.setattr(static, "MOST_BYTES", 1e5)
    before = explorer.settings, explorer.query
    with pytest.raises(ValueError, match="a page of 8 frames would have .* take a shorter clip"):
        static.save_explorer(explorer, tmp_path / "new", (3,))
    assert not (tmp_path / "new").exists() and (explorer.settings, explorer.query) == before


def test_the_command_writes_a_page_of_a_long_film_thinned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(static, "MOST_FRAMES", 3)
    monkeypatch.setattr(static.save_explorer, "__defaults__", ((2,),))
    assert main(["explore", "easy", "--static", str(tmp_path / "page"), "--weights", "shapes-tiny"]) == 0
    assert f"{tmp_path / 'page'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "page" / "about.json").read_text())["frames"] == 3


@pytest.mark.parametrize("models", [["--weights", "shapes-tiny", "shapes-tiny-images"], ["--weights", "shapes-tiny", "--model", "hf:a/b"]])
def test_a_page_of_one_model_refuses_several_and_writes_nothing(tmp_path, capsys, models):
    assert main(["explore", "easy", "--static", str(tmp_path / "page"), *models]) == 2
    assert "shows one model" in capsys.readouterr().err and not list(tmp_path.iterdir())
