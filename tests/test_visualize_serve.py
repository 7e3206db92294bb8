"""The explorer as a visitor uses it: `minst explore` in a process of its own, a page in chromium, every control."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from minst.cli import main
from minst.samples import load_sample, weights_folder
from minst.visualize.recording import Settings
from minst.visualize.serve import PROTOCOL, labelled, open_clip, page_of, refusal, serve

pytest.importorskip("voila", reason="the explorer's extra is missing: pip install -e '.[test]'")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def explorer(browser, *arguments, size=(900, 960)):
    """`minst explore …` and its page, when the first picture is there. Errors of scripts on the page fail the test."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "minst",
        "explore",
        *map(str, arguments),
        "--no-browser",
        "--port",
        str(port),
    ]
    server = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        for _ in range(240):
            assert server.poll() is None, server.stdout.read()
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.25)
        page.goto(f"http://127.0.0.1:{port}/", timeout=1_200_000)
        try:
            page.locator(".minst-view img").first.wait_for(state="visible", timeout=1_200_000)
        except Exception as error:
            raise AssertionError(
                f"no picture; the page says: {page.inner_text('body')[:2000]}"
            ) from error
        try:
            yield page
        except Exception as error:  # what a person would have seen
            raise AssertionError(
                f"scripts: {errors}; the page says: {page.inner_text('body')[:2000]}"
            ) from error
        assert not errors
    finally:
        page.close()
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=1200)


def picture(page) -> str:
    """The address of the tracked frame: another picture has another one."""
    return page.locator(".minst-view[data-label='tracked frame'] img").get_attribute("src")


def slide(page, name: str, value: float, low: float, high: float) -> None:
    """Take the slider's handle to a value, as a hand does, and check what it reads."""
    row = page.locator(".widget-inline-hbox", has_text=re.compile(f"^{name}"))
    track, handle = (row.locator(part).bounding_box() for part in (".noUi-base", ".noUi-handle"))
    y = handle["y"] + handle["height"] / 2
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * (value - low) / (high - low), y, steps=5)
    page.mouse.up()
    assert float(row.locator(".widget-readout").inner_text()) == value


def frame(page, number: int) -> None:
    slide(page, "frame", number, 1, 30)


def said(page, text: str) -> None:
    """Wait until the page says it."""
    page.get_by_text(re.compile(text)).first.wait_for(timeout=1_200_000)


def changed(page, look, before) -> None:
    for _ in range(200):
        if look(page) != before:
            return
        page.wait_for_timeout(50)
    raise AssertionError("nothing changed")


def timeline(page) -> str:
    return page.locator(".minst-view[data-label='timeline'] svg").inner_html()


@pytest.fixture(scope="module")
def page(browser):
    with explorer(browser, "occlusion", "--weights", "shapes-tiny") as page:
        yield page


def test_the_page_opens_on_the_first_frame_and_says_what_to_do(page, screenshots):
    said(page, "Queries are good trackers")
    said(page, "Click an object")
    said(page, "frame 1 of 30")
    assert page.locator(".minst-view[data-label='timeline'] rect.selected").count()
    page.screenshot(path=screenshots / "explorer.png")


def test_the_frame_slider_moves_picture_caption_and_cursor(page):
    before, chart = picture(page), timeline(page)
    frame(page, 5)
    said(page, r"frame 5 of 30.*reuses the kernels of frame 4")
    changed(page, picture, before)
    assert timeline(page) != chart
    frame(page, 1)
    said(page, r"frame 1 of 30")


def test_dragging_quickly_ends_where_the_slider_ends(page):
    box = (
        page.locator(".widget-inline-hbox", has_text=re.compile("^frame"))
        .locator(".noUi-handle")
        .bounding_box()
    )
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(150):
        page.mouse.move(x + 3 * (step if step < 100 else 200 - step), y)
    page.mouse.up()
    end = (
        page.locator(".widget-inline-hbox", has_text=re.compile("^frame"))
        .locator(".widget-readout")
        .inner_text()
    )
    assert 3 < int(end) < 25
    said(page, rf"frame {end} of 30")
    frame(page, 1)


def test_t_moves_the_key_frames(page):
    keys = "document.querySelectorAll(\"[data-label='timeline'] path[fill='#222222']\").length"
    before = page.evaluate(keys)
    slide(page, "reuse interval T", 6, 1, 12)
    page.wait_for_function(f"{keys} < {before}")
    frame(page, 6)
    said(page, r"frame 6 of 30.*reuses the kernels of frame 1")
    slide(page, "reuse interval T", 1, 1, 12)
    said(page, r"frame 6 of 30.*key frame: new kernels")
    slide(page, "reuse interval T", 3, 1, 12)
    frame(page, 1)


def test_thresholds_change_what_is_found(page):
    before = picture(page)
    slide(page, "mask threshold", 0.7, 0.05, 0.95)
    changed(page, picture, before)
    slide(page, "score threshold", 0.95, 0.05, 0.95)
    said(page, "nothing found: lower the score threshold")
    said(page, "no identity in any frame")
    slide(page, "score threshold", 0.5, 0.05, 0.95)
    said(page, r"frame 1 of 30.*\d objects found")
    slide(page, "mask threshold", 0.5, 0.05, 0.95)


def test_association_is_switched(page):
    slide(page, "reuse interval T", 6, 1, 12)  # at T = 3 both give this clip the same tracks
    page.wait_for_timeout(500)
    before = timeline(page)
    page.get_by_role("button", name="cosine (the paper's)").click()
    changed(page, timeline, before)
    cosine = timeline(page)
    page.get_by_role("button", name="masks (ours)").click()
    changed(page, timeline, cosine)
    slide(page, "reuse interval T", 3, 1, 12)
    page.wait_for_timeout(500)


def test_a_click_selects_the_query_behind_an_object(page, screenshots):
    box = page.locator(".minst-view[data-label='tracked frame']").bounding_box()
    caption = page.locator(".widget-html", has_text="serves")
    queries = []
    for x, y in (
        (0.62, 0.45),
        (0.8, 0.75),
        (0.45, 0.1),
    ):  # starfish, fish, and the ladybird that was selected
        before = caption.inner_text()
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        changed(page, lambda _: caption.inner_text(), before)
        queries.append(re.search(r"query (\d+)", caption.inner_text())[1])
        page.locator("[data-label='selected query']").get_by_text(
            f"soft mask of query {queries[-1]}"
        ).wait_for()
    assert len(set(queries)) == 3
    page.screenshot(path=screenshots / "explorer-query.png")


def test_a_click_in_the_timeline_goes_to_frame_and_identity(page, screenshots):
    page.locator("[data-label='timeline'] rect[data-pick^='19,']").nth(2).click()
    said(page, r"frame 20 of 30")
    page.wait_for_timeout(500)  # all panels have followed
    page.screenshot(path=screenshots / "explorer-swap.png")
    frame(page, 1)


def test_keys_move_frame_and_object_and_the_caption_is_announced(page):
    view = page.locator(".minst-view[data-label='tracked frame']")
    view.focus()
    spoken = view.locator("[aria-live=polite]")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    view.locator("p", has_text=re.compile("^frame 2 of 30")).wait_for(state="attached", timeout=1_200_000)
    before = re.search(r"query \d+", spoken.inner_text())[0]
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        "before => !document.querySelector('.minst-view [aria-live]').innerText.includes(before + ' ')", arg=before
    )
    assert spoken.inner_text().startswith("frame 2 of 30")
    assert view.get_attribute("aria-label").startswith("The tracked frame. Left and right arrow")


def test_the_player_plays_and_stops(page):
    page.locator(".widget-play button").first.click()
    said(page, r"frame ([4-9]|[12]\d) of 30")
    page.locator(".widget-play button").nth(1).click()
    said(page, r"frame 1 of 30")


def test_a_fresh_clip_two_weights_and_t_beyond_its_end(browser, screenshots, tmp_path):
    made = [
        "data",
        "shapes",
        "--videos",
        "1",
        "--frames",
        "6",
        "--size",
        "192x128",
        "--seed",
        "5",
        "--out",
        str(tmp_path / "new"),
    ]
    assert main(made) == 0
    other = tmp_path / "other"
    other.symlink_to(weights_folder("shapes-tiny"))
    with explorer(
        browser, tmp_path / "new", "--weights", "shapes-tiny", other, "--reuse-interval", "20"
    ) as page:
        said(page, "frame 1 of 6.*T is longer than the clip")
        page.get_by_role("button", name="other").click()
        page.wait_for_timeout(500)
        said(page, "frame 1 of 6")
        page.screenshot(path=screenshots / "explorer-fresh.png")


def test_what_cannot_be_opened_is_said_before_a_server_starts(tmp_path, capsys):
    assert main(["explore", "nothing-here", "--no-browser"]) == 2
    assert "shipped clip" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["explore", str(tmp_path / "empty"), "--no-browser"]) == 2
    assert "no .jpg" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["explore", "easy", "--no-browser", "--port", str(port)]) == 2
    assert "--port" in capsys.readouterr().err
    with pytest.raises(ValueError, match="port is 0"):
        serve("easy", port=0)
    assert main(["explore", "easy", "--no-browser", "--weights", "nope"]) == 2
    assert "nope" in capsys.readouterr().err
    with pytest.raises(ValueError, match="reuse_interval"):
        serve("easy", settings=Settings(0), port=free_port())
    with pytest.raises(ValueError, match="threshold"):
        serve("easy", settings=Settings(mask_threshold=2.0), port=free_port())


def test_open_clip_knows_samples_folders_and_images(tmp_path):
    assert open_clip("easy").name == "easy"
    clip = load_sample("easy")
    data = clip.annotations()
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "annotations.json").write_text(
        json.dumps({**data, "videos": []} | {"annotations": []})
    )
    with pytest.raises(ValueError, match="holds no videos"):
        open_clip(str(folder))
    (folder / "annotations.json").write_text(json.dumps(data))
    assert len(open_clip(str(folder))) == len(clip)
    frames = clip.root / "JPEGImages" / clip.name
    assert next(open_clip(str(frames))).shape == (192, 256, 3)


def test_models_are_called_by_the_last_part_of_their_names_where_those_differ():
    assert labelled(["org/mask", "shapes-tiny"]) == {"mask": "org/mask", "shapes-tiny": "shapes-tiny"}
    runs = ["runs/a/weights", "runs/b/weights"]
    assert labelled(runs) == dict(zip(runs, runs)) and labelled([]) == {}


def test_the_page_makes_the_models_that_were_asked_for():
    """Its code, with stand-ins for the two functions that it imports."""
    others = [("org/mask", "v1", 384), ("/a 'folder'", None, None)]
    cell = page_of("easy", ["shapes-tiny"], Settings(5, "cosine"), others).cells[0].source
    assert "from minst.adapters import from_transformers" in cell and cell.splitlines()[-1].startswith("explore(")
    lines = [line for line in cell.splitlines() if not line.startswith(("from minst", "import"))]
    said = {}

    def explore(models, clip, settings, background):
        said.update(models=models, clip=clip, settings=settings, background=background)
        return SimpleNamespace(widget=None)

    names = {"explore": explore, "open_clip": str.upper, "Settings": Settings, "from_transformers": lambda *a: a}
    exec("\n".join(lines), names)
    models = said.pop("models")
    assert said == {"clip": "EASY", "settings": Settings(5, "cosine"), "background": True}
    assert list(models) == ["mask", "a 'folder'", "shapes-tiny"] and models["shapes-tiny"] == "shapes-tiny"
    assert [models[name]() for name in list(models)[:2]] == others  # made when they are needed
    assert "adapters" not in page_of("easy", ["shapes-tiny"], Settings()).cells[0].source


def test_a_real_film_with_a_model_of_others(browser, screenshots, tmp_path):
    """A small Mask2Former of random weights, from a folder as `save_pretrained` writes it; and ours beside it."""
    pytest.importorskip("transformers", reason='transformers is missing: pip install "mobileinst[models]"')
    from test_adapters import T, build

    from minst.data.video import write_mp4

    folder = tmp_path / "mask2former-of-nobody"
    build("Mask2Former").save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    T.Mask2FormerImageProcessor(size=size, size_divisor=32).save_pretrained(folder)
    clip = load_sample("easy")
    write_mp4((clip.image(t) for t in range(4)), tmp_path / "film.mp4")
    models = ["--model", folder, "--weights", "shapes-tiny"]
    with explorer(browser, tmp_path / "film.mp4", *models) as page:
        said(page, "frame 1 of 4")
        tiles = page.locator("[data-label='selected query']")
        tiles.get_by_text("soft mask of query").wait_for()
        assert not tiles.get_by_text("it looks at").count()
        page.screenshot(path=screenshots / "explorer-of-others.png")
        page.get_by_role("button", name="shapes-tiny").click()
        tiles.get_by_text("it looks at X_G").wait_for(timeout=1_200_000)
        page.get_by_role("button", name="mask2former-of-nobody").click()
        tiles.get_by_text("it looks at X_G").wait_for(state="detached", timeout=1_200_000)


@pytest.mark.parametrize(
    ("host", "headers", "why"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8866"}, ""),
        ("127.0.0.1", {"Host": "localhost:8866", "Sec-Fetch-Site": "none"}, ""),
        ("::1", {"Host": "[::1]:8866", "Sec-Fetch-Site": "same-origin"}, ""),
        ("0.0.0.0", {"Host": "lab.example:8866"}, ""),
        ("127.0.0.1", {"Host": "localhost:8866", "Sec-Fetch-Site": "cross-site"}, "another site"),
        ("0.0.0.0", {"Host": "lab.example", "Sec-Fetch-Site": "same-site"}, "another site"),
        ("127.0.0.1", {"Host": "evil.example:8866"}, "evil.example"),
        ("localhost", {"Host": "127.0.0.1.evil.example"}, "evil.example"),
        ("0.0.0.0", {"Host": "a", "Upgrade": "WebSocket"}, PROTOCOL),
        (
            "0.0.0.0",
            {"Host": "a", "Upgrade": "websocket", "Sec-WebSocket-Protocol": "v2"},
            PROTOCOL,
        ),
    ],
)
def test_who_is_refused(host, headers, why):
    said = refusal(headers, host)
    assert bool(said) == bool(why) and why in said


def test_a_jupyter_client_may_speak_several_protocols():
    spoken = {"Sec-WebSocket-Protocol": f"a, {PROTOCOL}", "Upgrade": "websocket"}
    assert refusal({"Host": "localhost"} | spoken, "127.0.0.1") == ""


def answer(address: str, **headers) -> tuple[int, str]:
    request = urllib.request.Request(
        address, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=1200) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_an_open_host_asks_for_its_token_and_has_no_more_kernels_than_it_may():
    port = free_port()
    code = f"from minst.visualize import serve as s; s.MOST = 1; s.serve(port={port}, host='0.0.0.0', browser=False)"
    server = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    try:
        assert "warning: whoever on the network" in server.stdout.readline()
        token = re.search(r"\?token=[\w-]{16,}", server.stdout.readline())[0]
        page = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.25)
        assert "explorer" not in answer(page)[1]  # the form that asks for the token
        assert answer(page + token, Sec_Fetch_Site="cross-site")[0] == 403
        channels = f"{page}api/kernels/1-2-3-4-5/channels{token}"
        assert answer(channels, Upgrade="websocket", Connection="Upgrade")[0] == 403
        status, body = answer(page + token)
        assert status == 200 and "kernel" in body
        status, body = answer(page + token)
        assert status == 503 and "1 pages are open already" in body
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=1200)
