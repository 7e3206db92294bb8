import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

pytest.importorskip(
    "ipywidgets", reason="the explorer's extra is missing: pip install -e '.[test]'"
)
pytest.importorskip("anywidget", reason="the explorer's extra is missing: pip install -e '.[test]'")

import io

import torch

from minst import MobileInst
from minst.model import image_to_batch
from minst.visualize import explorer as module
from minst.visualize.explorer import explore
from minst.visualize.recording import Settings


@pytest.fixture(scope="module")
def live():
    return explore("shapes-tiny", "occlusion")


@pytest.fixture
def explorer(live):
    """The explorer with all its controls where they were at the start."""
    for control, value in (
        (live.interval, 3),
        (live.association, "mask"),
        (live.score, 0.5),
        (live.mask, 0.5),
        (live.frame, 1),
    ):
        control.value = value
    return live


def pixels(view) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(view.image)))


def test_it_starts_with_controls_open_and_the_first_frame(explorer):
    assert explorer.panels.layout.display is None and explorer.bar.layout.display == "none"
    assert (
        explorer.frame.max == explorer.play.max == 30 and explorer.switch.layout.display == "none"
    )
    assert "frame 1 of 30" in explorer.caption.value and "key frame" in explorer.caption.value
    assert pixels(explorer.picture).shape == (384, 512, 3)
    assert f"soft mask of query {explorer.query}" in explorer.tiles.overlay


def who_serves(explorer) -> list[set]:
    """{(identity, query)} of every frame: what the timeline shows."""
    return [{*zip(frame.ids, frame.queries)} for frame in explorer.replay.frames]


@pytest.mark.parametrize(
    "control, value",
    [("frame", 7), ("interval", 6), ("association", "cosine"), ("score", 0.7), ("mask", 0.7)],
)
def test_every_control_is_followed(explorer, control, value):
    explorer.frame.value = 11
    chart, served = explorer.chart.overlay, who_serves(explorer)
    image, caption = explorer.picture.image, explorer.caption.value
    getattr(explorer, control).value = value
    if control == "association":  # which may find the same
        assert (explorer.chart.overlay != chart) == (who_serves(explorer) != served)
    elif control != "mask":  # which moves contours alone
        assert explorer.chart.overlay != chart
    if control in ("frame", "interval"):
        assert explorer.caption.value != caption
    if control in ("frame", "mask"):
        assert explorer.picture.image != image
    s = explorer.settings
    assert s == Settings(
        explorer.interval.value,
        explorer.association.value,
        explorer.score.value,
        explorer.mask.value,
    )
    assert explorer.replay.frames == explorer.recording.replay(s).frames


def test_a_click_on_an_object_selects_its_query_and_one_beside_it_changes_nothing(explorer):
    frame = explorer.replay.frames[0]
    masks = frame.masks()
    for query, mask in zip(frame.queries, masks):
        y, x = np.argwhere(mask & (masks.sum(0) == 1))[20]
        explorer.picture.click = {
            "x": (x + 0.5) / 256,
            "y": (y + 0.5) / 192,
            "pick": "",
            "count": query,
        }
        assert explorer.query == query and f"query {query}</b> serves" in explorer.caption.value
        with torch.inference_mode():
            scores = explorer.recording.model(image_to_batch(explorer.recording.images[0])).scores()
        assert f"score {scores[0, query].max():.2f} in this key frame" in explorer.caption.value
    y, x = np.argwhere(~masks.any(0))[0]
    explorer.picture.click = {"x": (x + 0.5) / 256, "y": (y + 0.5) / 192, "pick": "", "count": 99}
    assert explorer.query == query


def test_keys_go_through_frames_and_objects_and_are_read_aloud(explorer):
    def press(name, count):
        explorer.picture.key = {"name": name, "count": count}

    assert "arrow" in explorer.picture.help
    for count, (name, frame) in enumerate(
        [("ArrowLeft", 1), ("ArrowRight", 2), ("End", 30), ("ArrowRight", 30), ("ArrowLeft", 29), ("Home", 1)]
    ):
        press(name, count)
        assert explorer.frame.value == frame
        assert explorer.picture.spoken.startswith(f"frame {frame} of 30 · ")
    queries = explorer.replay.frames[0].queries
    explorer.query = queries[0]
    seen = [press("ArrowDown", 10 + k) or explorer.query for k in range(len(queries))]
    assert seen == [*queries[1:], queries[0]]
    press("ArrowUp", 20)
    assert explorer.query == queries[-1] and f"query {queries[-1]} serves" in explorer.picture.spoken
    explorer.query = next(q for q in range(20) if q not in queries)
    press("ArrowUp", 21)
    assert explorer.query == queries[0] and "<" not in explorer.picture.spoken


def test_a_click_in_the_timeline_goes_there(explorer):
    frame = explorer.replay.frames[15]
    explorer.chart.click = {"x": 0, "y": 0, "pick": f"15,{frame.ids[-1]}", "count": 1}
    assert explorer.frame.value == 16 and explorer.query == frame.queries[-1]
    explorer.chart.click = {"x": 0, "y": 0, "pick": "3,0", "count": 2}
    assert explorer.frame.value == 4 and explorer.query == frame.queries[-1]
    explorer.chart.click = {"x": 0, "y": 0, "pick": "", "count": 3}
    assert explorer.frame.value == 4


def test_nothing_found_is_said(explorer):
    explorer.score.value = 0.95
    assert (
        "nothing found" in explorer.caption.value and "serves no identity" in explorer.caption.value
    )
    assert "no identity in any frame" in explorer.chart.overlay


def test_the_still_shows_tracked_frames_above_the_soft_masks_of_the_query(explorer):
    fig, replay = explorer.figure(), explorer.replay
    assert fig.alt.startswith(f"Query {explorer.query} serves identity ")
    swaps = sum(event.kind == "swap" for event in replay.identity.events)
    assert (
        f"takes over {len(replay.handovers)} times, identities are swapped {swaps} times" in fig.alt
    )
    shown, titles = (
        [axes.images[0].get_array() for axes in fig.axes],
        [t.get_text() for t in fig.texts[2:]],
    )
    assert len(shown) == 12 and titles[0] == "frame 1" and titles[5] == "frame 30"
    served, query = replay.serves(explorer.query), explorer.query
    now = f"identity {served[29]}" if served[29] else "no identity"
    assert titles[11] == f"query {query}: {now}"
    soft = explorer.recording.soft_mask(query, replay.keys[29], 29)
    color = module.color_of(served[29] or max(set(served) - {0}, key=served.count))
    np.testing.assert_allclose(shown[11], soft[..., None] * np.array(color), atol=1)
    assert np.abs(shown[0].astype(int) - explorer.recording.images[0]).max() > 30  # masks are drawn
    explorer.score.value = 0.95
    assert "serves no identity" in explorer.figure().alt


def test_the_network_runs_once(explorer, monkeypatch):
    monkeypatch.setattr(explorer.recording.model, "encode", None)
    explorer.interval.value, explorer.frame.value, explorer.association.value = 2, 9, "cosine"
    assert "frame 9 of 30" in explorer.caption.value


def test_frames_are_drawn_ahead_and_kept(explorer, monkeypatch):
    monkeypatch.setattr(module, "draw_frame", None)  # a second drawing would fail
    for frame in (1, 17, 30):
        explorer.frame.value = frame
    assert "frame 30 of 30" in explorer.caption.value


def test_weights_are_switched_with_their_own_queries():
    models = {
        "shipped": "shapes-tiny",
        "random": MobileInst(MobileInst.from_pretrained("shapes-tiny").config),
    }
    explorer = explore(models, "easy")
    assert explorer.switch.layout.display is None and explorer.weights.options == (
        "shipped",
        "random",
    )
    before = explorer.chart.overlay
    explorer.weights.value = "random"
    assert explorer.recording.model is models["random"] and explorer.chart.overlay != before
    explorer.weights.value = "shipped"
    assert explorer.chart.overlay == before


@pytest.mark.parametrize("shape, frames", [((96, 128), 1), ((240, 110), 3), ((100, 700), 2)])
def test_one_frame_and_other_sizes(shape, frames):
    rng = np.random.default_rng(0)
    explorer = explore(
        "shapes-tiny",
        [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(frames)],
        Settings(9),
    )
    assert f"frame 1 of {frames}" in explorer.caption.value
    assert ("longer than the clip" in explorer.caption.value) == (frames > 1)
    explorer.frame.value = frames
    height, width = pixels(explorer.picture).shape[:2]
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)


def test_a_long_video_says_that_it_is_thinned():
    video = (np.full((64, 64, 3), t % 200, np.uint8) for t in range(41))
    explorer = explore("shapes-tiny", video, max_frames=10)
    assert "41 frames" in explorer.status.value and "every 8th" in explorer.status.value
    assert explorer.frame.max == 6


def test_large_frames_are_seen_at_the_size_of_the_training():
    video = [np.full((480, 640, 3), 99, np.uint8)] * 2
    recording = explore("shapes-tiny", video, max_frames=10).recording
    assert [image.shape for image in recording.images] == [(192, 256, 3)] * 2


def test_in_the_background_it_opens_itself_and_shows_errors():
    import threading

    def wait(explorer):
        for thread in threading.enumerate():
            if (
                thread is not threading.current_thread()
                and thread.daemon
                and "compute" in thread.name
            ):
                thread.join(1200)
        return explorer

    assert wait(explore("shapes-tiny", "easy", background=True)).panels.layout.display is None
    broken = wait(explore("shapes-tiny", [], background=True))
    assert "no frames" in broken.status.value and broken.panels.layout.display == "none"


def test_bad_arguments():
    with pytest.raises(ValueError, match="no shipped clip 'nowhere'"):
        explore("shapes-tiny", "nowhere")
    with pytest.raises(ValueError, match="no model"):
        explore({}, "easy")
    with pytest.raises(ValueError, match="reuse_interval"):
        explore("shapes-tiny", "easy", Settings(0))


def test_an_executed_notebook_is_valid_and_has_a_still_for_readers_without_a_kernel(tmp_path):
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    cell = nbformat.v4.new_code_cell(
        "import minst.visualize\nminst.visualize.explore('shapes-tiny', 'easy')"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    nbformat.validate(notebook)
    data = next(
        output.data
        for output in notebook.cells[0].outputs
        if output.output_type == "execute_result"
    )
    assert data["image/png"] and "application/vnd.jupyter.widget-view+json" in data
    assert "state" in notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]
    del notebook.metadata[
        "widgets"
    ]  # as a notebook is stored: without state the still is what is shown
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "data:image/png;base64" in page and len(data["image/png"]) < 400_000


def test_without_the_extra_a_figure_still_works_and_explore_says_what_to_install():
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "import minst.visualize as v\n"
        "assert v.plot_query_consistency\n"
        "try: v.explore('shapes-tiny', 'easy')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mobileinst[notebooks]" in done.stdout


def test_a_model_of_others_has_no_attention_to_show_and_ours_has(colours):
    """Both on one page; a model may be given by a function, which is called when it is needed."""
    image = np.zeros((96, 128, 3), np.uint8)
    image[20:70, 30:90, 1] = 255
    models = {"theirs": lambda: colours("red", "green", "blue"), "ours": "shapes-tiny"}
    explorer = explore(models, [image] * 3)
    assert "1 object found" in explorer.caption.value and explorer.query == 1
    assert "soft mask of query 1" in explorer.tiles.overlay and "it looks at" not in explorer.tiles.overlay
    height, width = pixels(explorer.tiles).shape[:2]
    assert width / height == pytest.approx(128 / 96, rel=0.02)
    assert pixels(explorer.tiles)[height // 2, width // 2].max() > 100  # the mask, and no map beside it
    explorer.weights.value = "ours"
    assert explorer.tiles.overlay.count("it looks at") == 2
    assert pixels(explorer.tiles).shape[0] == 3 * height
    explorer.weights.value = "theirs"
    assert "it looks at" not in explorer.tiles.overlay and explorer.figure().alt.startswith("Query 1 serves identity 1")
