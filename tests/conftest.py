"""What several test modules share: small models whose random weights behave like trained ones."""

import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# Two processes test at a time, so each has one thread, and so has what it starts; before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
from torch import nn

from minst.config import MobileInstConfig
from minst.model import MobileInst
from minst.protocol import QueryConfig, QueryFrame

# a busy machine makes any example slow: time is not what these properties are about
hypothesis.settings.register_profile("minst", deadline=None)
hypothesis.settings.load_profile("minst")


# Files that take half a minute or more on one core, the longest first. Two processes take one file after the other: a long
# one at the end would leave one of them idle.
LONG = (
    "06_temporal_training", "10_capstone", "09_ablation_lab", "test_training", "test_lab_runs", "test_mobile_export",
    "08_on_device_latency", "test_mobile_lite", "test_lab_report",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first, then the other lessons, then all else; within a file nothing moves."""
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), item.path.suffix != ".ipynb"))


def _calibrate(model: MobileInst) -> MobileInst:
    """Show the batch norms some frames and return the model in eval mode: at their initial values activations explode,
    attention saturates, and rounding alone changes outputs by percents."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all passes
    model.train()
    with torch.no_grad():
        for _ in range(2):
            coarse = torch.rand(4, 3, 16, 16)
            model(nn.functional.interpolate(coarse, size=(128, 128), mode="bicubic").clamp(0, 1))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.fixture(scope="session")
def make_model():
    """make_model(preset="shapes-tiny", seed=0, **config fields) -> a calibrated random model in eval mode.

    Classes are as likely as not (a fresh model says 0.01 for all), so that scores pass a tracker's threshold.
    """

    def make(preset: str = "shapes-tiny", seed: int = 0, **fields) -> MobileInst:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MobileInst(MobileInstConfig.preset(preset, **{"num_queries": 8, **fields}))
            nn.init.zeros_(model.instance_decoder.heads.classes.bias)
            return _calibrate(model)

    return make


@pytest.fixture(scope="session")
def tiny(make_model) -> MobileInst:
    """One calibrated "shapes-tiny" with 8 queries for all tests that do not change it."""
    return make_model()


class Colours(nn.Module):
    """A model that is not ours, by `minst.protocol` alone: query q finds what is red, green or blue, and calls it class q."""

    def __init__(self, *names: str):
        super().__init__()
        self.config = QueryConfig(names, 3, 3)

    def encode(self, frames: torch.Tensor) -> QueryFrame:
        features = nn.functional.avg_pool2d(frames, 4) - 0.5
        kernels = (24 * torch.eye(3)).expand(len(frames), -1, -1)
        said = (0.9 * torch.eye(3) + 0.05).expand_as(kernels)
        return QueryFrame(features, lambda: (said, kernels), tuple(frames.shape[-2:]))


@pytest.fixture(scope="session")
def colours() -> type[Colours]:
    """colours("fish", "pizza", "turtle") -> such a model, with these names of red, green and blue."""
    return Colours


@pytest.fixture(scope="module")
def one_thread():
    """Two threads on a busy machine wait for each other far longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by playwright; skips where one of them is missing (`.ci/run` installs it)."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[test]'")
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        browser.new_page, browser.new_context = patient(browser.new_page), patient(browser.new_context)
        yield browser
        browser.close()


def patient(opened):
    """Pages that wait 20 minutes for what they are asked: that tells a hang from a busy machine."""

    def open_one(**options):
        made = opened(**options)
        made.set_default_timeout(1_200_000)
        return made

    return open_one


@contextmanager
def plain_server(folder):
    """What `python -m http.server --directory FOLDER` is; its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def any_server():
    """`with any_server(folder) as address:` a server that knows nothing of minst."""
    return plain_server


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where browser tests leave what they saw: screenshots/ beside tests/, kept by continuous integration."""
    folder = Path(__file__).resolve().parent.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
