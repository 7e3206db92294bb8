"""Lesson 00 as a student meets it: JupyterLab in a browser, Run All, a slider is moved, the picture follows."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

Timeout = pytest.importorskip("playwright.sync_api").TimeoutError

ROOT = Path(__file__).resolve().parent.parent
LESSON = "00_start_here.ipynb"
SLIDER = "frame"
WAITING = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on this machine that has a copy of the lesson; gives its address."""
    pytest.importorskip("jupyterlab")
    shutil.copy(ROOT / "notebooks" / LESSON, tmp_path)
    settings = tmp_path / "config" / "lab" / "user-settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)  # all cells stay on the page, also those out of sight
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    quiet = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    here = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    options = ["--no-browser", "--port=0", "--ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={tmp_path}"]
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

    It has begun when cells wait or when the slider is there, which only a kernel can put there: no glimpse is needed.
    """
    begun = f"() => {WAITING} || [...document.querySelectorAll('.widget-label')].some(l => l.textContent === '{SLIDER}')"
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


def test_run_all_then_move_a_slider(lab, browser, screenshots):
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto(f"{lab}lab/tree/{LESSON}?reset", timeout=1200_000)
    page.locator(".jp-NotebookPanel-toolbar").first.wait_for(timeout=1200_000)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=1200_000)
    assert not page.locator("dialog.jp-Dialog").count(), page.locator("dialog.jp-Dialog").first.inner_text()
    run_all(page, screenshots)
    # all have run: idle again, and no cell waits
    page.wait_for_function(
        f"() => document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle' && !{WAITING}",
        timeout=1200_000,
    )
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
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
    page.close()
