"""The page of `minst bench web` as visitors use it, in chromium, and its tracker against Python's. Minutes on a busy machine.

onnxruntime-web is not in the repository: the folder MINST_ORT_ASSETS, or npm, has it; else tests of the page are skipped.
"""

import base64
import functools
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_codec
from scipy.optimize import linear_sum_assignment

from minst.matcher import pairwise_dice
from minst.cli import main as minst
from minst.mobile import serve as web
from minst.mobile.export import export
from minst.model import FrameOutput, MobileInst, apply_kernels, upsample_masks
from minst.samples import PHOTO, load_sample
from minst.tracking import KernelTracker, cosine_similarity, encode_mask
from minst.visualize.masks import color_of

pytest.importorskip("onnxruntime", reason="the extra is missing: pip install -e '.[test]'")
pytest.importorskip("onnxscript", reason="the extra is missing: pip install -e '.[test]'")

PAGE = Path(web.__file__).parent / "page"


@pytest.fixture(scope="module")
def assets():
    """The folder `dist` of onnxruntime-web."""
    if folder := os.environ.get("MINST_ORT_ASSETS"):
        return Path(folder)
    place = Path(tempfile.gettempdir()) / f"minst-onnxruntime-web-{web.ORT_VERSION}"
    if not (place / "package").is_dir():
        if not shutil.which("npm"):
            pytest.skip("onnxruntime-web is missing: set MINST_ORT_ASSETS, or install npm")
        place.mkdir(exist_ok=True)
        pack = ["npm", "pack", "--silent", f"onnxruntime-web@{web.ORT_VERSION}"]
        done = subprocess.run(pack, cwd=place, capture_output=True, text=True, timeout=1200)
        if done.returncode:
            pytest.skip(f"npm cannot fetch onnxruntime-web: {done.stderr.strip()[-300:]}")
        with tarfile.open(next(place.glob("*.tgz"))) as archive:
            archive.extractall(place, filter="data")
    return place / "package" / "dist"


@contextmanager
def serving(**options):
    with web.make_server(port=0, **{"passes": 1, **options}) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """What `minst export` writes, once for all servers."""
    folder = tmp_path_factory.mktemp("programs")
    export("shapes-tiny", "onnx", folder, (192, 256))
    return folder


@pytest.fixture(scope="module")
def local(programs, assets):
    with serving(programs=programs, assets=assets) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(programs):
    """A server whose page wants the runtime from the CDN, which no test can reach: they answer in its place."""
    with serving(programs=programs) as server:
        yield server


@contextmanager
def visitor(browser, address, size=(1180, 900), scale=1, cdn=None, init=None):
    """A page in a fresh profile; errors of its scripts fail the test. cdn: answers for requests to other hosts."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale
    )
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    host = address.split("/")[2]
    context.route(
        lambda url: host not in url and not url.startswith("blob:"),
        cdn or (lambda route: route.abort()),
    )
    if init:
        page.add_init_script(init)
    page.goto(address)
    try:
        yield page
        assert not errors
    finally:
        context.close()


def measured(page) -> None:
    """Wait until the page has measured; an error it shows fails the test."""
    page.locator("#status", has_text="Measured").or_(page.locator("#error:visible")).first.wait_for(
        timeout=1_200_000
    )
    assert not page.is_visible("#error"), page.inner_text("#error")


def choose(page, name: str) -> None:
    """A setting; then wait for its measurement."""
    page.get_by_role("radio", name=name, exact=True).check()
    page.locator("#status", has_text="Measured").wait_for(state="hidden")
    measured(page)


def downloaded(page) -> dict:
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download JSON").click()
    assert caught.value.suggested_filename.startswith("minst-web-")
    return json.loads(Path(caught.value.path()).read_text())


@functools.cache
def python_tracks(**setting) -> list:
    tracker, threads = (
        KernelTracker(MobileInst.from_pretrained("shapes-tiny"), **setting),
        torch.get_num_threads(),
    )
    torch.set_num_threads(1)  # the browser is busy on the other cores
    frames = [tracker.step(image) for image in load_sample("easy")]
    torch.set_num_threads(threads)
    return frames


def assert_tracks_equal_python(run: dict) -> None:
    """Ids, classes, queries and key frames equal; scores to 1e-3; a mask may differ in 3 pixels, where rounding crosses 0."""
    found = 0
    for want, frame in zip(python_tracks(**run["setting"]), run["frames"], strict=True):
        said = (frame["frame"], frame["is_key"], frame["ids"], frame["labels"], frame["queries"])
        assert said == (want.frame, want.is_key, want.ids, want.labels, want.queries)
        assert frame["scores"] == pytest.approx(want.scores, abs=1e-3)
        for mask, segmentation in zip(want.masks(), frame["segmentations"]):
            mine = rle_codec.decode(
                rle_codec.frPyObjects(segmentation, *segmentation["size"])
            ).astype(bool)
            assert (mine != mask).sum() <= 3
            found += 1
    assert found > 50


@pytest.fixture(scope="module")
def page(browser, local):
    with visitor(browser, local.address) as page:
        measured(page)
        yield page


def test_the_clip_is_tracked_as_in_python_by_masks_and_by_cosine(page, screenshots):
    """With all threads, too, and where a setting is changed in the middle of a measurement."""
    page.screenshot(path=screenshots / "web.png", full_page=True)
    several = page.locator("input[name=threads]").nth(1)
    if several.count():
        several.check()
    page.get_by_role("radio", name="cosine (paper)").check()
    page.locator("#status", has_text="pass 1").wait_for()
    page.get_by_role("radio", name="frame", exact=True).check()
    page.get_by_role("radio", name="6 frames").check()
    page.locator("#status", has_text="Measured").wait_for(state="hidden")
    measured(page)
    masks, cosine = downloaded(page)["runs"]
    for run, association, interval in ((masks, "mask", 3), (cosine, "cosine", 6)):
        setting = run["setting"]
        assert (setting["association"], setting["reuse_interval"]) == (association, interval)
        assert_tracks_equal_python(run)
    assert cosine["threads"] == max(1, several.count() and int(several.get_attribute("value")))
    page.get_by_role("radio", name="1", exact=True).check()
    page.get_by_role("radio", name="masks (ours)").check()
    choose(page, "3 frames")


def test_the_json_says_what_was_measured_and_its_figures_are_those_of_the_samples(page):
    report = downloaded(page)
    run = report["runs"][-1]
    assert (
        report["kind"] == "minst bench web"
        and report["weights"] == "shapes-tiny"
        and report["size"] == [192, 256]
    )
    device = report["device"]
    assert (
        device["cross_origin_isolated"]
        and device["secure_context"]
        and "Chrome" in device["user_agent"]
    )
    assert device["cores"] >= 1
    assert report["runtime"]["version"] == web.ORT_VERSION and run["threads"] == 1
    assert {name: f["integrity"] for name, f in report["runtime"]["files"].items()} == {
        Path(name).suffix[1:]: pin for name, pin in web.ORT_FILES.items()
    }
    frames = len(load_sample("easy"))
    assert run["network"]["key"]["n"] + run["network"]["reuse"]["n"] == run["passes"] * frames
    for kind, samples in run["samples_ms"].items():
        figures = run["network"][kind]
        assert len(samples) == figures["n"] and min(samples) > 0
        wanted = np.percentile(samples, [25, 50, 75, 95])
        assert [figures[f"{name}_ms"] for name in ("p25", "median", "p75", "p95")] == pytest.approx(
            list(wanted)
        )
    key, reuse = (run["network"][kind]["median_ms"] for kind in ("key", "reuse"))
    means = {t: (key + (int(t) - 1) * reuse) / int(t) for t in ("1", "3", "6")}
    assert run["mean_frame_ms"] == pytest.approx(means)
    assert (
        len(run["warm_up_ms"]["key"]) == 3
        and run["first_run_ms"]["reuse"] > 0
        and run["load_ms"]["key"] > 0
    )
    for stage in ("before", "after", "drawing"):
        assert run["apart"][stage]["key"]["n"] == run["network"]["key"]["n"]
    for place, value in (("#network", key), ("#mean", means["6"])):
        assert (f"{value:.1f}" if value < 100 else f"{value:.0f}") in page.inner_text(place)


def test_play_pause_slider_and_bars_choose_the_frame(page):
    where, play = page.locator("#where"), page.locator("#play")
    play.click()
    assert play.inner_text() == "Play"
    before = where.inner_text()
    page.wait_for_timeout(400)
    assert where.inner_text() == before
    page.locator("#frame").fill("5")
    assert where.inner_text().startswith("5 of") and page.inner_text("#badge") == "reuse frame"
    assert "kernels of frame 4" in page.inner_text("#said")
    page.locator("#strip span").nth(6).click()
    assert where.inner_text().startswith("7 of") and page.inner_text("#badge") == "key frame"
    assert "butterfly" in page.locator("#view").get_attribute("aria-label")
    play.click()
    page.locator("#where", has_text="7 of").wait_for(state="hidden")
    assert play.inner_text() == "Pause"


def test_masks_are_drawn_where_they_are_in_the_colour_of_their_identity(page):
    page.locator("#frame").fill("4")
    run = downloaded(page)["runs"][-1]
    frame = run["frames"][3]
    png = page.evaluate('document.getElementById("view").toDataURL()').partition(",")[2]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(float)
    width = picture.shape[1]
    scale = width // 256
    original = np.kron(list(load_sample("easy"))[3].astype(float), np.ones((scale, scale, 1)))
    changed = np.abs(picture - original).sum(-1) > 40
    masks = [
        rle_codec.decode(rle_codec.frPyObjects(s, *s["size"])).astype(bool)
        for s in frame["segmentations"]
    ]
    union = np.kron(np.any(masks, axis=0), np.ones((scale, scale), dtype=bool))
    assert (
        changed[union].mean() > 0.9 and changed[~union].mean() < 0.12
    )  # tags and halos are outside
    for identity, mask in zip(frame["ids"], masks):
        ys, xs = np.nonzero(mask)
        inside = (
            picture[(ys * scale) + 1, (xs * scale) + 1]
            - original[(ys * scale) + 1, (xs * scale) + 1]
        )
        wanted = 0.42 * (color_of(identity) - original[(ys * scale) + 1, (xs * scale) + 1])
        assert np.median(np.abs(inside - wanted)) < 6


def test_a_phone_on_the_network_has_one_thread_and_is_told_why(
    browser, programs, assets, screenshots
):
    address = web.lan_address()
    if address.startswith("127."):
        pytest.skip("this machine has no network address")
    with serving(programs=programs, assets=assets, host="0.0.0.0", passes=2) as server:
        with visitor(browser, server.address, size=(390, 844), scale=2) as page:
            measured(page)
            assert page.is_visible("#alone") and "https" in page.inner_text("#alone")
            assert page.locator("input[name=threads]:enabled").count() == 1
            assert (
                page.evaluate("document.documentElement.scrollWidth") <= 390
            )  # nothing sticks out
            report = downloaded(page)
            assert (
                not report["device"]["cross_origin_isolated"] and report["runs"][0]["threads"] == 1
            )
            assert report["runs"][0]["network"]["reuse"]["n"] == 32  # two passes
            assert_tracks_equal_python(report["runs"][0])
            page.locator("#play").click()
            page.screenshot(path=screenshots / "web-phone.png", full_page=True)


def cdn_of(assets, tampered="", seen=None):
    """What the CDN would answer; one file may have a byte too many."""

    def answer(route):
        path = assets / route.request.url.rsplit("/", 1)[-1]
        if seen is not None:
            seen.append(route.request.url)
        kind = {".mjs": "text/javascript", ".wasm": "application/wasm"}[path.suffix]
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": kind}
        route.fulfill(
            status=200, headers=headers, body=path.read_bytes() + b"\n" * (path.name == tampered)
        )

    return answer


def test_the_runtime_comes_from_the_cdn_when_its_bytes_are_the_pinned_ones(
    browser, elsewhere, assets, screenshots
):
    seen = []
    with visitor(browser, elsewhere.address, cdn=cdn_of(assets, seen=seen)) as page:
        measured(page)
        assert sorted(seen) == sorted(web.CDN + name for name in web.ORT_FILES)
    for name in web.ORT_FILES:
        with visitor(browser, elsewhere.address, cdn=cdn_of(assets, tampered=name)) as page:
            page.locator("#error:visible").wait_for()
            said = page.inner_text("#error")
            assert (
                name in said
                and "not the file that was expected" in said
                and not page.is_visible("main")
            )
    with visitor(browser, elsewhere.address) as page:  # offline
        page.locator("#error:visible").wait_for()
        assert "--assets FOLDER" in page.inner_text("#error")
        page.screenshot(path=screenshots / "web-offline.png", full_page=True)


def test_a_browser_without_webassembly_is_told(browser, local):
    with visitor(browser, local.address, init="delete globalThis.WebAssembly") as page:
        page.locator("#error:visible").wait_for()
        assert "no WebAssembly" in page.inner_text("#error")


def test_the_pages_policy_stops_what_is_not_its_own(browser, local):
    with visitor(browser, local.address) as page:
        blocked = page.evaluate("""async () => { try { await fetch("https://example.org/"); return "sent"; }
            catch (error) { return "blocked"; } }""")
        violated = page.evaluate("""() => new Promise((done) => { document.addEventListener("securitypolicyviolation",
            (event) => done(event.effectiveDirective)); const s = document.createElement("script");
            s.textContent = "1"; document.head.append(s); setTimeout(() => done("nothing"), 2000); })""")
        assert blocked == "blocked" and violated.startswith("script-src")


def request(server, method: str, path: str, body=None):
    connection = HTTPConnection(*server.server_address[:2], timeout=1200)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(body or b"")))
    connection.endheaders(body)
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def test_only_the_table_is_served_and_only_to_be_read(elsewhere):
    for path in (
        "/nothing",
        "/../serve.py",
        "/..%2f..%2fserve.py",
        "/page/app.mjs",
        "//etc/passwd",
        "/ort/",
        "/app.mjs/",
    ):
        assert request(elsewhere, "GET", path).status == 404, path
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = request(elsewhere, method, "/", b"x" * 100)
        assert answer.status == 501 and answer.headers["Connection"] == "close", method
    whole, head = (request(elsewhere, method, "/key.onnx?x=1") for method in ("GET", "HEAD"))
    assert whole.status == head.status == 200 and not head.body
    assert head.headers["Content-Length"] == str(len(whole.body))
    with socket.create_connection(
        elsewhere.server_address[:2], timeout=1200
    ) as raw:  # http.client would hide a body
        raw.sendall(b"HEAD /about.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.makefile("rb").read().endswith(b"\r\n\r\n")
    assert request(elsewhere, "GET", "/").headers["Content-Type"].startswith("text/html")


def test_headers_isolate_the_page_and_the_clip_is_served_pixel_by_pixel(
    elsewhere, programs, assets
):
    headers = request(elsewhere, "GET", "/app.mjs").headers
    assert headers["Content-Type"].startswith("text/javascript")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert web.CDN in headers["Content-Security-Policy"]
    bytes_ = np.frombuffer(request(elsewhere, "GET", "/clip.rgb").body, dtype=np.uint8)
    assert (bytes_.reshape(-1, 192, 256, 3) == np.stack(list(load_sample("easy")))).all()
    with serving(programs=programs, assets=assets) as server:
        answer = request(server, "GET", "/ort/ort-wasm-simd-threaded.wasm")
        assert "https:" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Type"] == "application/wasm"
        assert (assets / "ort.mjs").is_file() and request(server, "GET", "/ort/ort.mjs").status == 404


def test_the_film_of_a_photograph_is_a_second_page_where_weights_of_photographs_ship(
    monkeypatch, assets, browser, tmp_path
):
    """With weights, classes and pixels of its own; each page leads to the other."""
    MobileInst.from_pretrained("shapes-tiny", ["fish", "leaf"]).save_pretrained(tmp_path / "photos")
    suit = {"easy": "shapes-tiny", PHOTO: str(tmp_path / "photos")}
    monkeypatch.setattr(web, "weights_for", lambda film: [suit[film]])
    with serving(assets=assets, size=(64, 96)) as server:
        told = [json.loads((server.folder / at / "about.json").read_text()) for at in (".", "chelsea")]
        assert [(each["sample"], each["frames"], len(each["classes"])) for each in told] == [
            ("easy", 24, 8),
            (PHOTO, 30, 2),
        ]
        assert [each["pages"] for each in told] == [{"": "easy", "chelsea/": PHOTO}] * 2
        assert (server.folder / "chelsea" / "clip.rgb").stat().st_size == 30 * 64 * 96 * 3
        with visitor(browser, f"{server.address}chelsea/") as page:
            measured(page)
            assert f"clip “{PHOTO}”" in page.inner_text("#device")
            assert page.locator("#films [aria-current]").inner_text() == PHOTO
            page.get_by_role("link", name="easy").click()
            page.locator("#device", has_text="clip “easy”").wait_for()
            assert page.locator("#films [aria-current]").inner_text() == "easy"


def test_the_static_demo_tracks_on_any_server_and_in_any_folder_of_it(
    browser, assets, any_server, tmp_path, capsys, screenshots
):
    out = tmp_path / "of my own" / "demo"
    assert minst(["demo", "--static", str(out), "--assets", str(assets)]) == 0
    said = capsys.readouterr().out
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert f"{out}, {size / 1e6:.1f} MB" in said and "http.server" in said
    assert size < 40e6
    with any_server(tmp_path) as address, visitor(browser, f"{address}of%20my%20own/demo/") as page:
        measured(page)
        assert_tracks_equal_python(downloaded(page)["runs"][0])
        page.screenshot(path=screenshots / "demo-static.png", full_page=True)
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert minst(["demo", "--static", str(out)]) != 0
    assert "is not an empty folder; choose another" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == kept


def test_the_workflow_of_the_book_takes_the_pinned_runtime():
    lines = (Path(__file__).parent.parent / ".github" / "workflows" / "book.yml").read_text()
    assert lines.count(f"onnxruntime-web@{web.ORT_VERSION} ") == 1
    assert f"onnxruntime-web-{web.ORT_VERSION}.tgz" in lines


def test_programs_of_a_page_share_their_weights_and_compute_the_same(programs, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    for name in ("key.onnx", "reuse.onnx"):
        shutil.copy(programs / name, tmp_path)
    web._share_weights(tmp_path)
    before, after = (sum(path.stat().st_size for path in at.glob("*.*")) for at in (programs, tmp_path))
    assert after < 0.62 * before
    rng = np.random.default_rng(0)
    for name in ("key.onnx", "reuse.onnx"):
        old, new = (ort.InferenceSession(at / name) for at in (programs, tmp_path))
        given = {of.name: rng.random(of.shape, dtype=np.float32) for of in old.get_inputs()}
        for wanted, got in zip(old.run(None, given), new.run(None, given), strict=True):
            assert (wanted == got).all()


@pytest.mark.parametrize(
    ("photos", "named", "pages"),
    [
        ("photos-tiny", None, {"": "easy", "chelsea/": PHOTO}),
        ("photos-tiny", "shapes-tiny", {"": "easy"}),
        ("shapes-tiny", None, {"": "easy"}),
    ],
)
def test_there_is_one_page_where_weights_are_named_or_none_of_photographs_ship(monkeypatch, photos, named, pages):
    monkeypatch.setattr(web, "weights_for", lambda film: ["shapes-tiny" if film == "easy" else photos])
    monkeypatch.setattr(web.MobileInst, "from_pretrained", lambda name: None)
    for name in ("export", "_share_weights"):
        monkeypatch.setattr(web, name, lambda *_: None)
    written = {}
    monkeypatch.setattr(web, "_write_clip", lambda folder, about: written.update({folder: about}))
    with web.make_server(port=0, weights=named) as server:
        wanted = {server.folder / place: (clip, pages) for place, clip in pages.items()}
        assert {folder: (said["sample"], said["pages"]) for folder, said in written.items()} == wanted
    assert not server.folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": ""}, "host is ''; give a name or an IPv4 address"),
        ({"host": "a b"}, "host is 'a b'"),
        ({"host": "::"}, "host is '::'"),
        ({"reuse_interval": 0}, "reuse_interval is 0"),
        ({"passes": 0}, "passes is 0"),
        ({"association": "iou"}, "association is 'iou'"),
        ({"port": 70000}, "port is 70000"),
        ({"port": -1}, "port is -1"),
        ({"sample": "nothing"}, "no shipped clip"),
        ({"size": (64, 32)}, r"size is \(64, 32\); it must be at least 64"),
        ({"size": (64, 10**6)}, "at most 8192"),
        ({"size": (64, 64), "programs": "here"}, "give one of them"),
        ({"weights": "nope"}, "nope"),
        ({"programs": "/nowhere"}, "does not hold key.onnx"),
        ({"assets": "/nowhere"}, "npm pack onnxruntime-web@"),
    ],
)
def test_bad_arguments_are_said_before_anything_is_bound_or_exported(monkeypatch, options, said):
    monkeypatch.setattr(web, "PageServer", lambda *_: pytest.fail("a server has been bound"))
    with pytest.raises((ValueError, OSError), match=said) as caught:
        web.make_server(**options)
    assert "\n" not in str(caught.value)


def test_a_port_or_host_that_cannot_be_had_and_a_runtime_of_another_hash(programs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1 cannot be used .*--port"):
            web.make_server(programs=programs, port=port)
    with pytest.raises(OSError, match="--host"):
        web.make_server(programs=programs, port=0, host="192.0.2.77")
    for name in web.ORT_FILES:
        (tmp_path / name).write_bytes(b"another version")
    with pytest.raises(ValueError, match="another hash"):
        web.make_server(programs=programs, port=0, assets=tmp_path)


def test_a_network_address_is_printed_with_its_qr_code_and_loopback_without(monkeypatch):
    qrcode = pytest.importorskip("qrcode")
    text = "http://192.0.2.7:8867/"
    drawn = "\n".join(web._greeting(text))
    assert text in drawn and "read-only" in drawn
    code = qrcode.QRCode(border=2)
    code.add_data(text)
    code.make()
    # a character is two modules, one above the other; light ones are drawn
    rows = [line for line in web.qr_code(text).splitlines()]
    modules = [[c not in "█" + half for c in row] for row in rows for half in "▀▄"]
    wanted = np.array(code.get_matrix())
    assert (np.array(modules)[: len(wanted), : len(wanted)] == wanted).all()
    alone = "\n".join(web._greeting("http://127.0.0.1:8867/"))
    assert "--host 0.0.0.0" in alone and "█" not in alone
    monkeypatch.setitem(__import__("sys").modules, "qrcode", None)
    assert "minst env" in web.qr_code(text)


def test_serve_prints_the_address_and_ends_with_ctrl_c(monkeypatch, programs):
    monkeypatch.setattr(
        web.PageServer, "serve_forever", lambda self: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    opened = []
    monkeypatch.setattr(web.webbrowser, "open", opened.append)
    with redirect_stdout(io.StringIO()) as said:
        web.serve(programs=programs, port=0, open_browser=True)
    assert opened[0] in said.getvalue() and "closed" in said.getvalue()


# ---------------------------------------------------------------------------------------------- the tracker, in node


def in_node(code: str, **given):
    """Run lines of JavaScript that make `result` from `given` and the functions of tracker.mjs."""
    if not shutil.which("node"):
        pytest.skip("node is missing")
    script = f"""import * as tracker from {json.dumps((PAGE / "tracker.mjs").as_uri())};
        const f32 = (x) => Float32Array.from(x.flat(9));
        const given = JSON.parse((await import("node:fs")).readFileSync(0, "utf8"));
        let result; {code}
        console.log(JSON.stringify(result));"""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_assignment_is_as_good_as_scipys():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(n, n)) for n in (1, 2, 3, 5, 8, 20, 50) for _ in range(10)]
    tables += [rng.integers(0, 3, (6, 6)) for _ in range(30)]  # many optima
    answers = in_node(
        "result = given.tables.map((t) => tracker.assign(f32(t), t.length));",
        tables=[t.tolist() for t in tables],
    )
    for similarity, columns in zip(tables, answers):
        n = len(similarity)
        assert sorted(columns) == list(range(n))
        best = linear_sum_assignment(similarity, maximize=True)
        assert similarity[range(n), columns].sum() == pytest.approx(
            similarity[best].sum(), abs=2e-5 * n
        )


def test_equal_similarities_leave_queries_where_they_are_and_nan_is_refused():
    code = """result = tracker.assign(new Float32Array(36), 6);
        try { tracker.assign(new Float32Array(4).fill(NaN), 2); result = "accepted"; } catch (error) {}"""
    assert in_node(code) == list(range(6))
    # both assignments are worth 1; the cheapest column of the first row is not its own
    assert in_node("result = tracker.assign(f32([0.25, 0.5, 0.5, 0.75]), 2);") == [0, 1]


def test_similarities_and_scores_are_pythons():
    torch.manual_seed(0)
    old, new = torch.randn(5, 7), torch.randn(5, 7)
    a, b = torch.randn(5, 12), torch.randn(5, 12)
    classes, objectness = torch.randn(5, 3), torch.randn(5)
    features = torch.randn(7, 12)
    given = {"old": old, "new": new, "a": a, "b": b, "c": classes, "o": objectness, "f": features}
    cosine, mask, score, applied = in_node(
        """const { old, a, b, c, o, f } = given;
        result = [tracker.cosineSimilarity(f32(old), f32(given.new), 5, 7),
          tracker.maskSimilarity(f32(a), f32(b), 5), tracker.classScores(f32(c), f32(o), 5, 3),
          tracker.applyKernels(f32(old), f32(f), 5, 7)].map((x) => [...x]);""",
        **{name: value.tolist() for name, value in given.items()},
    )
    assert cosine == pytest.approx(cosine_similarity(old, new).flatten().tolist(), abs=1e-6)
    dice = pairwise_dice(a.sigmoid(), b.sigmoid())
    assert mask == pytest.approx(dice.flatten().tolist(), abs=1e-6)
    assert score == pytest.approx(
        (classes.sigmoid() * objectness.sigmoid()[:, None]).sqrt().flatten().tolist(), abs=1e-6
    )
    assert applied == pytest.approx((old @ features).flatten().tolist(), abs=1e-5)


@pytest.mark.parametrize("size", [(24, 32), (21, 27)])
def test_enlargement_and_run_length_codes_are_pythons(size):
    height, width = size
    small = torch.randn(1, 1, 3, 4)
    grown, code = in_node(
        """const big = tracker.upsample(f32(given.small), 3, 4, ...given.size);
        result = [[...big], tracker.encodeMask(big, 0, ...given.size)];""",
        small=small.tolist(),
        size=size,
    )
    wanted = upsample_masks(small, size)[0, 0]
    assert grown == pytest.approx(wanted.flatten().tolist(), abs=1e-5)
    mask = (np.array(grown) >= 0).reshape(height, width)
    assert (
        rle_codec.frPyObjects(code, height, width)["counts"].decode() == encode_mask(mask)["counts"]
    )


def test_lost_and_small_and_ended_instances_are_treated_as_in_python():
    """A stand-in for the network, made to flicker: one query's score comes and goes, one mask shrinks to nothing."""
    steps, n, k, d, h, w = 14, 4, 3, 5, 8, 8
    rng = torch.Generator().manual_seed(3)
    base = {
        "kernels": torch.randn(1, n, d, generator=rng),
        "mask_features": torch.randn(1, d, h, w, generator=rng),
    }
    frames = []
    for t in range(steps):
        classes = torch.full((1, n, k), -4.0)
        for query in range(n):
            classes[0, query] += 0.1 * torch.arange(k) + 0.01 * t  # no two means are equal
            classes[0, query, (query + t // 5) % k] = (
                4.0 + 0.1 * t if (t // (query + 1)) % 3 != 1 else -4.0
            )
        features = (
            base["mask_features"]
            + (20.0 if t in (4, 5) else 0.0)
            * torch.ones(1, d, h, w)
            * base["kernels"].mean(1)[0, :, None, None]
        )
        kernels = base["kernels"].roll(t // 4, dims=1)
        logits = torch.einsum("bnd,bdhw->bnhw", kernels, features)
        frames.append({"class_logits": classes, "objectness": torch.full((1, n), 3.0), "kernels": kernels,
                       "mask_features": features, "mask_logits": logits})  # fmt: skip
    for association in ("mask", "cosine"):
        setting = {"reuse_interval": 2, "association": association, "score_threshold": 0.5, "mask_threshold": 0.6,
                   "min_area": 1200, "max_absence": 2}  # fmt: skip
        result = in_node(
            """const t = new tracker.KernelTracker(given.setting, [64, 64], { N: 4, K: 3, D: 5, h: 8, w: 8 });
            result = given.frames.map((frame) => {
              const out = Object.fromEntries(Object.entries(frame).map(([name, x]) => [name, f32(x)]));
              if (!t.isKey) out.mask_logits = tracker.applyKernels(t.kernels, out.mask_features, 4, 5);
              const said = t.step(out);
              const area = (logits) => logits.filter((x) => x >= Math.log(0.6 / 0.4)).length;
              return [said.is_key, said.instances.map((i) => [i.id, i.label, i.query, area(i.logits)])];
            });""",
            frames=[{name: value.tolist() for name, value in frame.items()} for frame in frames],
            setting=setting,
        )
        wanted = _python_tracks(frames, setting)
        assert result == wanted
        assert sum(len(found) for _, found in wanted) < sum(
            len(found) for _, found in _python_tracks(frames, {**setting, "min_area": 1})
        )
        ids = {instance[0] for _, found in wanted for instance in found}
        assert len(ids) > n  # some ended and came back as new


def _python_tracks(frames, setting):
    class Stand:
        def eval(self):
            return self

    class StandFrame:
        size = (64, 64)

        def __init__(self, out):
            self.out = FrameOutput(**out, global_queries=None)

        def masks(self, kernels):
            return apply_kernels(kernels, self.out.mask_features)

    tracker = KernelTracker(Stand(), **setting)
    said = []
    for out in frames:
        result = tracker.advance(StandFrame(out))
        said.append(
            [
                result.is_key,
                [
                    list(row)
                    for row in zip(
                        result.ids,
                        result.labels,
                        result.queries,
                        result.masks().sum((1, 2)).tolist(),
                    )
                ],
            ]
        )
    return said
