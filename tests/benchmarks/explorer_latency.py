"""How quickly the explorer answers: python tests/benchmarks/explorer_latency.py [CLIP …]

For each control the time from its change until all panels are made, in this process: median and largest of many random
changes, each to a setting that was not computed before; and the first computation of the clip. 200 ms is what a hand
takes for "at once". What a browser adds on top (transport and drawing) is measured with --browser: from a key on a
slider to the timeline that follows.
"""

import argparse
import random
import socket
import statistics
import subprocess
import sys
import time

from minst.visualize.explorer import explore
from minst.visualize.serve import open_clip

CONTROLS = {
    "frame": lambda explorer: (explorer.frame, range(1, explorer.frame.max + 1)),
    "reuse interval T": lambda explorer: (explorer.interval, range(1, 13)),
    "association": lambda explorer: (explorer.association, ("mask", "cosine")),
    "score threshold": lambda explorer: (explorer.score, [0.05 * k for k in range(2, 19)]),
    "mask threshold": lambda explorer: (explorer.mask, [0.05 * k for k in range(2, 19)]),
}


def measure(source: str, changes: int) -> None:
    start = time.perf_counter()
    explorer = explore("shapes-tiny", open_clip(source))
    print(f"{source}: {explorer.frame.max} frames, computed in {time.perf_counter() - start:.2f} s")
    rng = random.Random(0)
    for name, control in CONTROLS.items():
        widget, values = control(explorer)
        times = []
        for _ in range(changes):
            value = rng.choice([v for v in values if v != widget.value])
            explorer._replay.cache_clear()
            explorer._picture.cache_clear()
            start = time.perf_counter()
            widget.value = value
            times.append(1000 * (time.perf_counter() - start))
        print(f"  {name:18} median {statistics.median(times):5.0f} ms   largest {max(times):5.0f} ms")


def in_browser(source: str, changes: int) -> None:
    from playwright.sync_api import sync_playwright

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "minst",
        "explore",
        source,
        "--weights",
        "shapes-tiny",
        "--no-browser",
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 900, "height": 960})
            while True:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.1)
            start = time.perf_counter()
            page.goto(f"http://127.0.0.1:{port}/", timeout=120_000)
            page.locator(".minst-view img").first.wait_for(state="visible", timeout=120_000)
            print(f"{source} in the browser: page after {time.perf_counter() - start:.1f} s")
            for name in ("frame", "reuse interval T"):
                row = page.locator(".widget-inline-hbox", has_text=name)
                times = [_key(page, row, key) for _ in range(changes) for key in ("ArrowRight", "ArrowLeft")]
                print(f"  {name:18} median {statistics.median(times):5.0f} ms   largest {max(times):5.0f} ms")
            browser.close()
    finally:
        server.terminate()


def _key(page, row, key: str) -> float:
    """Milliseconds from a key on a slider until the timeline has changed, by the clock of the page."""
    return page.evaluate(
        """([handle, key]) => new Promise((done) => {
            const chart = document.querySelector("[data-label='timeline'] > div");
            const start = performance.now();
            new MutationObserver((_, observer) => { observer.disconnect(); done(performance.now() - start); })
                .observe(chart, { childList: true });
            handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        })""",
        [row.locator(".noUi-handle").element_handle(), key],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", default=["easy", "in-and-out"])
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--browser", action="store_true")
    arguments = parser.parse_args()
    for clip in arguments.clips:
        measure(clip, arguments.changes)
        if arguments.browser:
            in_browser(clip, arguments.changes)
