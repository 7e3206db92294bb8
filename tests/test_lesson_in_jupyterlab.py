"""A lesson as a student meets it: JupyterLab in a browser, Run All, a stub is answered, the picture follows.

MINST_LESSONS=00,05 names the lessons (default: 00, whose slider is moved as well); all of them take some six minutes.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

Timeout = pytest.importorskip("playwright.sync_api").TimeoutError

ROOT = Path(__file__).resolve().parent.parent
LESSONS = os.environ.get("MINST_LESSONS", "00").split(",")
SLIDER = "frame"
ERROR = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']"
SHOWN = "img, .jp-RenderedMarkdown table"  # what an answer draws: a picture, or the table of lesson 09
# Around the answer: each call says in a file whether it came from the judge.
SPY = """

import traceback
ANSWER = {name}

def {name}(*given, **named):
    judges = any(frame.filename.endswith("verdict.py") for frame in traceback.extract_stack())
    with open({calls!r}, "a") as file:
        file.write("judged\\n" if judges else "drawn\\n")
    return ANSWER(*given, **named)
"""
WAITING = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on this machine that has a copy of the lessons, without outputs; gives its address."""
    pytest.importorskip("jupyterlab")
    home = tmp_path / "notebooks"
    home.mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        book = json.loads(path.read_text(encoding="utf-8"))
        for cell in book["cells"]:
            cell.update({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
        (home / path.name).write_text(json.dumps(book), encoding="utf-8")
    settings = tmp_path / "config" / "lab" / "user-settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)  # all cells stay on the page, also those out of sight
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    quiet = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    here = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    options = ["--no-browser", "--port=0", "--ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={home}"]
    log = open(tmp_path / "lab.log", "w")
    server = subprocess.Popen(command, env={**os.environ, **quiet, **here}, stdout=log, stderr=log)
    try:
        yield address(server, tmp_path / "runtime")
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def address(server, runtime: Path) -> str:
    """Where the server listens, as it says itself."""
    until = time.monotonic() + 600
    while time.monotonic() < until and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            url = json.loads(path.read_text())["url"]
            try:
                urllib.request.urlopen(f"{url}api", timeout=5).read()
                return url
            except OSError:
                pass
        time.sleep(0.3)
    raise AssertionError("JupyterLab did not start")


def run_all(page, screenshots):
    """Asks for Run All until it has begun; a menu that closes under the pointer, or a kernel still starting, costs a try.

    It has begun when cells wait, or when one has a number: no glimpse is needed.
    """
    numbered = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => /\\d/.test(p.textContent))"
    begun = f"() => {WAITING} || {numbered}"
    for _ in range(20):
        page.locator("li.lm-MenuBar-item >> text=Run").click()
        page.locator("li.lm-Menu-item", has_text=re.compile("^Run All Cells$")).click()
        try:
            return page.wait_for_function(begun, timeout=60_000)
        except Timeout:
            page.keyboard.press("Escape")
    page.screenshot(path=screenshots / "lesson00-jupyterlab-not-run.png")
    shown = page.locator("dialog.jp-Dialog, .jp-InputPrompt, .jp-Notebook-ExecutionIndicator").all_inner_texts()
    raise AssertionError(f"Run All did nothing in twenty tries; the page shows {shown}")


@pytest.fixture
def opened(lab, browser, screenshots):
    """opened("05"): the page of that lesson after Run All, without an error in it."""
    pages = []

    def open_lesson(number):
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        pages.append(page)
        page.goto(f"{lab}lab/tree/{path.name}?reset", timeout=1200_000)
        page.locator(".jp-NotebookPanel-toolbar").first.wait_for(timeout=1200_000)
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=1200_000)
        assert not page.locator("dialog.jp-Dialog").count(), page.locator("dialog.jp-Dialog").first.inner_text()
        run_all(page, screenshots)
        all_have_run(page)
        assert page.locator(ERROR).count() == 0
        return page

    yield open_lesson
    for page in pages:
        page.close()


def all_have_run(page):
    """Every code cell has a number, which only this kernel can have given, and the kernel is idle again."""
    numbered = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(p => /\\d/.test(p.textContent))"
    idle = "document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle'"
    page.wait_for_function(f"() => {idle} && {numbered}", timeout=1200_000)
    assert not page.locator("dialog.jp-Dialog").count(), page.locator("dialog.jp-Dialog").first.inner_text()


@pytest.mark.parametrize("number", LESSONS)
def test_a_stub_is_answered_and_the_next_picture_is_drawn_by_the_answer(number, opened, screenshots, tmp_path):
    """The answer is typed: the solution of the first exercise, which notes each call."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    book = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cells, run = ["".join(cell["source"]) for cell in book], sum(cell["cell_type"] == "code" for cell in book)
    stub = next(i for i, source in enumerate(cells) if "NotImplementedError" in source and source.startswith("def "))
    name = re.match(r"def (\w+)", cells[stub])[1]
    goes_on = next(i for i in range(stub, len(cells)) if f"{name} = check.{name}({name}).or_ours" in cells[i])
    solved = (ROOT / "notebooks" / "solutions" / path.with_suffix(".py").name).read_text(encoding="utf-8")
    (answer,) = [part.strip() for part in solved.split("# %%") if f"def {name}(" in part]

    page = opened(number)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(stub)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(answer + SPY.format(name=name, calls=str(tmp_path / "calls.txt")))
    active = "i => [...document.querySelectorAll('.jp-Notebook .jp-Cell')][i].classList.contains('jp-mod-active')"
    for here in range(stub, goes_on + 7):  # and some cells more: a picture may be drawn by the next code cell
        page.wait_for_function(active, arg=here, timeout=1200_000)
        page.keyboard.press("Shift+Enter")
    prompt = "document.querySelectorAll('.jp-Notebook .jp-Cell')[i].querySelector('.jp-InputPrompt').textContent"
    later = f"i => +{prompt}.replace(/\\D/g, '') > {run}"
    page.wait_for_function(later, arg=goes_on, timeout=1200_000)  # it has run once more, after all the others
    all_have_run(page)
    verdict = page.locator(".jp-Notebook .jp-Cell").nth(stub + 1).locator(".jp-OutputArea-output").first.inner_text()
    assert verdict.startswith(f"✔ {name}: correct"), verdict
    assert page.locator(ERROR).count() == 0
    assert set((tmp_path / "calls.txt").read_text().split()) == {"judged", "drawn"}
    drawn = [page.locator(".jp-Notebook .jp-Cell").nth(goes_on + i).locator(SHOWN).count() for i in range(7)]
    assert any(drawn)
    page.screenshot(path=screenshots / f"lesson{number}-answered.png")


def test_a_slider_is_moved_and_its_picture_follows(opened, screenshots):
    page = opened("00")
    box = page.locator(".widget-vbox", has=page.locator(f".widget-label:text-is('{SLIDER}')")).last
    box.scroll_into_view_if_needed(timeout=1200_000)
    picture = box.locator("img").first
    before = picture.get_attribute("src")
    handle = box.locator(".widget-slider", has_text=SLIDER).locator(".noUi-handle, [role=slider]").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([img, src]) => img.src !== src", arg=[picture.element_handle(), before], timeout=1200_000)
    page.screenshot(path=screenshots / "lesson00-jupyterlab.png")
    size = picture.evaluate("img => img.complete && [img.naturalWidth, img.naturalHeight]")
    assert size and min(size) > 100
