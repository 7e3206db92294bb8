"""`minst track` and `minst predict` on what people have: long, broken, endless, of a varying rate, without labels."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image

import minst
from minst import predict
from minst.cli import main
from minst.data import video
from minst.data.files import read_json
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip, write_shapes_dataset
from minst.data.video import TimedFrame, read_timed, read_video, write_mp4
from minst.data.ytvis import decode_mask
from minst.evaluation import FIGURES, evaluate_results, write_submission
from minst.predict import (
    TracksOnDisk,
    at_size,
    evaluate_folder,
    network_size,
    predict_folder,
    resized,
    track_video,
)
from minst.results import FrameResult
from minst.tracking import KernelTracker, encode_mask

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def ctrl_c():
    """As in a terminal: what is started in the background, as this may be, ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*argv):
    """(exit status, stdout, stderr) of one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(a) for a in argv])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(class_names=CATEGORIES, num_classes=len(CATEGORIES))


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip():
    return shapes_clip("test", 0, ShapesConfig(width=128, height=96, frames=9), seed=3)


@pytest.fixture(scope="module")
def film(clip, tmp_path_factory):
    """Nine frames, the last three a second apart."""
    times = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 2.5, 3.5]
    frames = (TimedFrame(clip.render(t).image, seconds) for t, seconds in enumerate(times))
    return write_mp4(frames, tmp_path_factory.mktemp("film") / "fïlm.mp4", 10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three clips in YouTube-VIS form."""
    folder = tmp_path_factory.mktemp("data") / "set"
    write_shapes_dataset(
        folder, videos=3, config=ShapesConfig(width=96, height=64, frames=4), seed=1
    )
    return folder


@pytest.fixture
def camera(monkeypatch):
    """FFmpeg's test picture in the place of a webcam: it never ends."""
    monkeypatch.setattr(video, "_camera", lambda number: ("testsrc=size=128x96:rate=10", "lavfi"))


# ---------------------------------------------------------------------------------------------- track


def test_every_nth_frame_up_to_a_number_keeps_its_time(film, weights, model, tmp_path):
    said = track_video(film, tmp_path, weights, 2, score_threshold=0.1, every=3, max_frames=2)
    assert said["frames"] == 2 and not said["interrupted"]
    assert [round(f.seconds, 3) for f in read_timed(said["video"])] == [0, 0.3]
    chosen = list(read_video(film))[0:6:3]
    whole = KernelTracker(model, 2, "mask", 0.1).track(chosen)
    results = read_json(said["results"])
    assert (
        {e["id"]: len(e["segmentations"]) for e in results} == {t.id: 2 for t in whole.tracks} != {}
    )
    assert track_video(film, tmp_path, weights, every=4)["frames"] == 3  # frames 0, 4, 8
    assert [f.seconds for f in read_timed(tmp_path / "tracks.mp4")] == pytest.approx([0, 0.4, 3.5])
    assert track_video(film, tmp_path, weights, every=100)["frames"] == 1
    assert track_video(film, tmp_path, weights, max_frames=100)["frames"] == 9


def test_no_frame_is_read_beyond_the_last_one_wanted(film, weights, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        predict, "read_timed", lambda source: (read.append(1) or f for f in read_timed(source))
    )
    track_video(film, tmp_path, weights, every=2, max_frames=3, video=False)
    assert len(read) == 5


def test_the_annotated_video_is_as_long_as_its_source(film, weights, tmp_path):
    track_video(film, tmp_path, weights)
    source, drawn = (
        [f.seconds for f in read_timed(path)] for path in (film, tmp_path / "tracks.mp4")
    )
    assert drawn == pytest.approx(source, abs=1e-4) and len(drawn) == 9


def test_without_a_video_results_alone_are_written_and_are_the_same(film, weights, tmp_path):
    with_video = track_video(film, tmp_path / "a", weights, score_threshold=0.1)
    said = track_video(film, tmp_path / "b", weights, score_threshold=0.1, video=False)
    assert said["video"] is None and [p.name for p in (tmp_path / "b").iterdir()] == [
        "results.json"
    ]
    assert read_json(said["results"]) == read_json(with_video["results"]) != []
    status, text, _ = run(
        "track",
        film,
        "--weights",
        weights,
        "--out",
        tmp_path / "c",
        "--no-video",
        "--max-frames",
        2,
    )
    assert (
        status == 0 and "2 frames" in text and "tracks.mp4" not in text and "results.json" in text
    )


def test_the_network_sees_small_frames_and_masks_are_of_full_size(film, weights, model, tmp_path):
    said = track_video(film, tmp_path, weights, 3, score_threshold=0.1, size=64, video=False)
    small = (resized(image, (64, 85)) for image in read_video(film))
    whole = {t.id: t for t in KernelTracker(model, 3, "mask", 0.1).track(small).tracks}
    results = read_json(said["results"])
    assert len(results) == len(whole) > 0
    for entry in results:
        for code, original in zip(
            entry["segmentations"], whole[entry["id"]].segmentations, strict=True
        ):
            assert (code is None) == (original is None)
            if code:
                mask, wanted = decode_mask(code, 96, 128), decode_mask(original, 64, 85)
                share = mask.mean() / wanted.mean()
                assert abs(share - 1) < 0.1 or wanted.sum() < 100


def test_sizes():
    """By the training of the weights; of those that do not know it, up to 480."""
    unknown, trained = types.SimpleNamespace(), types.SimpleNamespace(trained_size=(192, 256))
    assert network_size(unknown, (1280, 720)) == (853, 480)
    assert network_size(unknown, (1280, 720), 64) == network_size(trained, (1280, 720), 64)
    assert network_size(unknown, (300, 400)) == (300, 400)
    assert network_size(unknown, (300, 400), 600) == (600, 800)
    assert network_size(unknown, (2000, 1000), largest=640) == (1280, 640)
    assert network_size(trained, (1280, 720)) == (341, 192)
    assert network_size(trained, (96, 128)) == network_size(trained, (192, 256)) == (192, 256)
    with pytest.raises(ValueError, match="400x2 would be seen at 38400x192; name a smaller size"):
        network_size(trained, (2, 400))
    small = np.zeros((300, 400, 3), np.uint8)
    assert resized(small, (300, 400)) is small and resized(small, (600, 800)).shape == (600, 800, 3)
    bright = np.zeros((96, 128, 3), np.uint8)
    bright[:, 64:] = 200
    half = resized(bright, (48, 64))
    assert abs(half[:, :31]).max() == 0 and abs(half[:, 33:] - 200).max() == 0


def test_enlarged_masks_stay_where_they_were():
    mask = np.zeros((48, 64), bool)
    mask[12:24, 16:48] = True
    large = decode_mask(at_size(encode_mask(mask), (96, 128)), 96, 128)
    wanted = mask.repeat(2, 0).repeat(2, 1)
    assert (large != wanted).sum() <= 8  # four corners may be rounded
    back = decode_mask(at_size(encode_mask(large), (48, 64)), 48, 64)
    assert (back == mask).all()
    code = encode_mask(mask)
    assert at_size(code, (48, 64)) is code


def test_a_colon_in_the_name_of_a_folder_is_no_protocol(film, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = track_video(film, "take:2", weights, max_frames=1)
    assert (
        str(said["video"]) == "take:2/tracks.mp4"
        and len(list(read_video(tmp_path / said["video"]))) == 1
    )
    assert sorted(p.name for p in (tmp_path / "take:2").iterdir()) == ["results.json", "tracks.mp4"]


def test_a_broken_frame_costs_that_frame_alone(clip, weights, tmp_path):
    for t in range(6):
        Image.fromarray(clip.render(t).image).save(tmp_path / f"{t}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"skipped 1 that are broken, the first: .*2\.png") as said:
        assert track_video(tmp_path, tmp_path / "out", weights)["frames"] == 5
    assert sum("broken" in str(w.message) for w in said) == 1


def test_progress_has_a_total_where_the_file_does_not_state_one(
    film, weights, tmp_path, monkeypatch
):
    totals = []

    def note(frames, total, **_):
        totals.append(total)
        return frames

    monkeypatch.setattr(predict, "tqdm", note)
    info = video.video_info(film)
    for stated, options in (
        (info, {}),
        (info._replace(frames=None, seconds=3.0, fps=20.0), {}),
        (info._replace(frames=None, seconds=3.0, fps=20.0), {"every": 7}),
        (info._replace(frames=None, seconds=3.0, fps=20.0), {"every": 7, "max_frames": 4}),
        (info._replace(frames=None, seconds=None), {}),
        (info._replace(frames=None, seconds=None), {"max_frames": 5}),
    ):
        monkeypatch.setattr(predict, "video_info", lambda source, stated=stated: stated)
        track_video(film, tmp_path, weights, video=False, **options)
    assert totals == [9, 60, 9, 4, None, 5]


def interrupt_after(monkeypatch, steps, times=1):
    """Ctrl-C, as the terminal sends it, while frame number `steps` is tracked."""
    step = KernelTracker.step

    def watched(self, frame):
        if self.frame == steps - 1:
            for _ in range(times):
                signal.raise_signal(
                    signal.SIGINT
                )  # to this thread: a process's signals may meet on their way
        return step(self, frame)

    monkeypatch.setattr(KernelTracker, "step", watched)


def test_ctrl_c_ends_a_webcam_and_keeps_what_there_is(camera, weights, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 4)
    before = signal.getsignal(signal.SIGINT)
    status, text, err = run(
        "track", 0, "--weights", weights, "--out", tmp_path, "--score-threshold", 0.1
    )
    assert "stopped by Ctrl-C" in text and "4 frames" in text and "Traceback" not in err
    assert len(list(read_video(tmp_path / "tracks.mp4"))) == 4
    results = read_json(tmp_path / "results.json")
    assert results and {len(e["segmentations"]) for e in results} == {4}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "tracks.mp4"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_says_by_its_status_that_it_was_stopped(film, weights, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 2)
    command = ["track", film, "--weights", weights, "--out", tmp_path]
    assert run(*command)[0] == 130
    before = signal.getsignal(signal.SIGINT)
    assert run(*command, "--max-frames", 1)[0] == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_leaves_nothing_but_what_was_there(camera, weights, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("before")
    interrupt_after(monkeypatch, 3, times=2)
    with pytest.raises(KeyboardInterrupt):
        track_video(0, tmp_path, weights)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("results.json", "before")]


def test_in_the_background_ctrl_c_is_not_for_us(film, weights, tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_after(monkeypatch, 2)
    said = track_video(film, tmp_path, weights, max_frames=4)
    assert said["frames"] == 4 and not said["interrupted"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_outside_of_the_main_thread_nothing_is_asked_of_signals(film, weights, tmp_path):
    said = []
    thread = threading.Thread(
        target=lambda: said.append(track_video(film, tmp_path, weights, max_frames=2))
    )
    thread.start()
    thread.join()
    assert said[0]["frames"] == 2


def test_long_tracks_are_kept_on_disk(tmp_path):
    """Of 40,000 masks next to nothing stays in memory, and all of them are in the file."""
    length, code = 20_000, {"size": [720, 1280], "counts": "k" * 500}
    tracemalloc.start()
    tracks = TracksOnDisk(tmp_path, ())
    for t in range(length):
        tracks.take(FrameResult(t, True, [2, 7], [0, 0], [0.5, 0.6], [code, code], [0, 1]))
    tracks.write(tmp_path / "results.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = read_json(tmp_path / "results.json")
    assert [(e["id"], e["segmentations"]) for e in results] == [
        (7, [code] * length),
        (2, [code] * length),
    ]
    assert peak < 1e6 < (tmp_path / "7").stat().st_size


@pytest.mark.parametrize("name, value", [("size", 63), ("every", 0), ("max_frames", 0)])
def test_numbers_below_their_least_are_refused(film, weights, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least"):
        track_video(film, tmp_path / "out", weights, **{name: value})
    assert not (tmp_path / "out").exists()


ENDLESS = """
import sys
from minst.cli import main
from minst.data import video
video._camera = lambda number: ("testsrc=size=128x96:rate=10", "lavfi")
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_kill_leaves_the_results_of_before_and_the_next_run_no_rubbish(film, weights, tmp_path):
    for name in ("tracks.mp4", "results.json"):
        (tmp_path / name).write_text("before")
    command = [sys.executable, "-c", ENDLESS, "track", "0", "--out", str(tmp_path)]
    tracking = subprocess.Popen([*command, "--weights", str(weights)], stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size for path in tmp_path.glob(".unfinished-*/*")):
        assert tracking.poll() is None
        time.sleep(0.05)
    tracking.kill()
    assert tracking.wait(1200) == -signal.SIGKILL
    left = {path.name: path for path in tmp_path.iterdir()}
    assert left.pop("tracks.mp4").read_text() == left.pop("results.json").read_text() == "before"
    assert all(name.startswith(".unfinished-") for name in left)
    track_video(film, tmp_path, weights, max_frames=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "tracks.mp4"]
    assert len(list(read_video(tmp_path / "tracks.mp4"))) == 2
    assert isinstance(read_json(tmp_path / "results.json"), list)


def test_a_full_disk_leaves_the_results_of_before(film, weights, tmp_path):
    import resource

    for name in ("tracks.mp4", "results.json"):
        (tmp_path / name).write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))  # no file may be larger
    try:
        with pytest.raises(OSError):
            track_video(film, tmp_path, weights, score_threshold=0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "tracks.mp4": "before",
        "results.json": "before",
    }


# ---------------------------------------------------------------------------------------------- predict


def unlabelled(dataset, tmp_path, categories=None):
    """The annotation file without labels, its categories renumbered and in another order."""
    file = read_json(dataset / "annotations.json")
    file.pop("annotations")
    names = categories or [c["name"] for c in file["categories"]][::-1]
    file["categories"] = [{"id": 10 + 3 * i, "name": name} for i, name in enumerate(names)]
    path = tmp_path / "valid.json"
    path.write_text(json.dumps(file))
    return path


def test_from_a_model_to_a_submission_without_labels(dataset, weights, tmp_path):
    path = unlabelled(dataset, tmp_path)
    out = tmp_path / "new" / "results.json"
    status, text, _ = run(
        "predict", dataset, "--weights", weights, "--annotations", path, "--out", out
    )
    entries = read_json(out)
    assert status == 0 and f"{len(entries)} entries" in text and entries
    file = read_json(path)
    names = {c["id"]: c["name"] for c in file["categories"]}
    images = [
        np.asarray(Image.open(dataset / "JPEGImages" / n).convert("RGB"))
        for n in file["videos"][1]["file_names"]
    ]
    fused = minst.MobileInst.from_pretrained(weights).fuse()
    whole = KernelTracker(fused, 3, "mask", 0.1).track(np.array(i) for i in images)
    wanted = [
        (CATEGORIES[e["category_id"] - 1], e["score"], e["segmentations"])
        for e in whole.to_ytvis(1)
    ]
    mine = [e for e in entries if e["video_id"] == file["videos"][1]["id"]]
    assert [(names[e["category_id"]], e["score"], e["segmentations"]) for e in mine] == wanted
    assert {e["video_id"] for e in entries} <= {v["id"] for v in file["videos"]}
    said = write_submission(out, path, tmp_path / "results.zip", top=3)
    assert (
        said["videos"] == 3 and said["kept"] <= 9 and said["kept"] + said["dropped"] == len(entries)
    )
    # and with its labels the same file is judged
    figures = evaluate_results(dataset / "annotations.json", list(predict_folder(dataset, weights)))
    assert 0 <= figures["AP"] <= 1 and set(figures["tracking"]["per_category"]) == set(CATEGORIES)


def test_predictions_come_video_by_video(dataset, weights, tmp_path):
    read = []
    entries = predict_folder(dataset, weights, videos=2)
    one = next(entries)
    read = [one["video_id"], *(e["video_id"] for e in entries)]
    assert len(set(read)) == 2 and read == sorted(read)


def test_predictions_of_small_frames_are_of_the_size_of_the_video(weights, tmp_path):
    folder = tmp_path / "set"
    write_shapes_dataset(
        folder, videos=1, config=ShapesConfig(width=192, height=128, frames=2), seed=1
    )
    codes = [s for e in predict_folder(folder, weights, size=64) for s in e["segmentations"] if s]
    assert codes and all(code["size"] == [128, 192] for code in codes)


@pytest.mark.parametrize("images", [False, True])
def test_eval_is_predict_and_eval_of_its_results(make_model, tmp_path, images):
    """At the size of the training, which is not that of the files, and at another.

    The labels are what the model says at the size of its training: so AP is above 0 with random
    weights, and smaller at any other size.
    """
    size, folder = ShapesConfig(width=192, height=128, frames=3), tmp_path / "set"
    write_shapes_dataset(folder, videos=2, config=size, seed=1, images=images)
    learner = make_model(class_names=CATEGORIES, num_classes=len(CATEGORIES))
    learner.trained_size = (64, 96)
    learner.save_pretrained(tmp_path / "w")
    learner.trained_size = None
    learner.save_pretrained(tmp_path / "old")
    truth = read_json(folder / "annotations.json")
    truth["annotations"] = [
        {**entry, "id": i, "iscrowd": 0, "area": 100, "areas": [100] * 3}
        for i, entry in enumerate(predict_folder(folder, tmp_path / "w", size=64), start=1)
        if entry["score"] > 0.55 or i == 1
    ]
    (folder / "annotations.json").write_text(json.dumps(truth))
    data, ap = ("eval", folder, "--json", tmp_path / "f.json"), []
    for name, said in (("w", ()), ("w", ("--size", 96)), ("old", ()), ("w", ("--videos", 1))):
        options, out = ("--weights", tmp_path / name, *said), ("--out", tmp_path / "r.json")
        assert run("predict", folder, *options, *out)[0] == 0
        assert run(*data, "--results", tmp_path / "r.json", *said)[0] == 0
        wanted = read_json(tmp_path / "f.json")
        assert run(*data, *options)[0] == 0
        found = read_json(tmp_path / "f.json")
        for figure in FIGURES:
            assert found[figure] == pytest.approx(wanted[figure], abs=1e-6)
        ap.append(found["AP"])
    assert ap[0] > 0.2 and len({*ap[:3]}) == 3 and ap[0] == max(ap[:3])


def test_a_film_is_tracked_at_the_size_of_the_training(make_model, film, tmp_path):
    learner = make_model(class_names=CATEGORIES, num_classes=len(CATEGORIES))
    learner.trained_size = (64, 80)
    learner.save_pretrained(tmp_path / "w")
    found = []
    for size in (None, 64, 96):
        track_video(film, tmp_path, tmp_path / "w", score_threshold=0.1, size=size, video=False)
        found.append(read_json(tmp_path / "results.json"))
    assert found[0] == found[1] != found[2]
    masks = [code for entry in found[0] for code in entry["segmentations"] if code]
    assert masks and all(code["size"] == [96, 128] for code in masks)


@pytest.mark.parametrize("argument", [{"size": 0}, {"size": 10**6}, {"videos": 0}, {"videos": 1.5}])
def test_sizes_and_counts_out_of_range_are_refused(dataset, weights, argument):
    (name,) = argument
    for function in (predict_folder, evaluate_folder):
        with pytest.raises(ValueError, match=f"{function.__name__}: {name} is .*it must be"):
            function(dataset, weights, **argument)
    for command in ("eval", "predict"):
        with pytest.raises(SystemExit) as stop, redirect_stderr(io.StringIO()) as said:
            main([command, str(dataset), f"--{name}", str(argument[name])])
        assert stop.value.code == 2 and f"--{name}" in said.getvalue()


def test_withheld_labels_are_told_before_the_work(dataset, weights, tmp_path, monkeypatch):
    path = unlabelled(dataset, tmp_path, CATEGORIES)
    monkeypatch.setattr(minst.MobileInst, "encode", None)  # nothing is computed
    with pytest.raises(ValueError, match="withheld"):
        evaluate_folder(dataset, weights, annotations=path)


def test_categories_that_do_not_fit_are_refused_before_anything_is_tracked(
    dataset, weights, make_model, tmp_path
):
    few = unlabelled(dataset, tmp_path, ["okapi", "zebra"])
    with pytest.raises(
        ValueError, match=f"no category fits.*the model knows {CATEGORIES[0]}.*valid.json has .*zebra"
    ):
        predict_folder(dataset, weights, annotations=few)
    assert (
        run(
            "predict",
            dataset,
            "--weights",
            weights,
            "--annotations",
            few,
            "--out",
            tmp_path / "r.json",
        )[0]
        == 2
    )
    assert not (tmp_path / "r.json").exists()
    make_model(class_names=(), num_classes=2).save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match="2 classes without names"):
        predict_folder(dataset, tmp_path / "two")
    both = unlabelled(dataset, tmp_path, ["left", "right"])  # by position
    assert {
        e["category_id"] for e in predict_folder(dataset, tmp_path / "two", annotations=both)
    } <= {10, 13}
    more = unlabelled(dataset, tmp_path, [*CATEGORIES, "zebra"])  # the file may have more
    ids = {e["category_id"] for e in predict_folder(dataset, weights, annotations=more)}
    assert ids and ids <= {10 + 3 * i for i in range(len(CATEGORIES))}
