"""Submissions: what is kept, what is refused, the same bytes each time; judged files end to end."""

import copy
import io
import json
import resource
import sys
import warnings
import zipfile
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle_codec

from minst.cli import main
from minst.evaluation import evaluate_results, evaluate_ytvis, write_results, write_submission

SIZE = (4, 6)


def run(*argv):
    """(exit status, stdout, stderr) of one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(a) for a in argv])
    return status, out.getvalue(), err.getvalue()


def annotations(labels=False):
    """Two videos of 3 and 2 frames, 4 x 6 pixels; without labels unless asked for."""
    videos = [
        {
            "id": 7,
            "height": 4,
            "width": 6,
            "length": 3,
            "file_names": ["a/0.jpg", "a/1.jpg", "a/2.jpg"],
        },
        {"id": 3, "height": 4, "width": 6, "length": 2, "file_names": ["b/0.jpg", "b/1.jpg"]},
    ]
    file = {
        "info": {},
        "videos": videos,
        "categories": [{"id": 5, "name": "fish"}, {"id": 9, "name": "cät"}],
    }
    if labels:
        tracks = [(1, 7, 5, [0, 1, None]), (2, 3, 9, [2, 2])]
        file["annotations"] = [
            {"id": i, "video_id": v, "category_id": c, "iscrowd": 0, "areas": [k is not None and 8 for k in cells],
             "segmentations": [None if k is None else code(k) for k in cells]}
            for i, v, c, cells in tracks
        ]  # fmt: skip
        for track in file["annotations"]:
            track["areas"] = [8 if s else None for s in track["segmentations"]]
    return file


def code(cell):
    """Columns 2 cell and 2 cell + 1, as compressed RLE."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[:, 2 * cell : 2 * cell + 2] = 1
    return {"size": list(SIZE), "counts": rle_codec.encode(mask)["counts"].decode()}


def track(video=7, category=5, score=0.5, cells=(0, 1, None), **more):
    masks = [None if cell is None else code(cell) for cell in cells]
    return {
        "video_id": video,
        "category_id": category,
        "score": score,
        "segmentations": masks,
        **more,
    }


def packed(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["results.json"] and archive.testzip() is None
        return json.loads(archive.read("results.json"))


# ---------------------------------------------------------------------------------------------- what is kept


def test_a_submission_by_hand(tmp_path):
    counts = {
        "size": [4, 6],
        "counts": [8, 8, 8],
    }  # not compressed: columns 2 and 3, that is cell 1
    results = [
        track(score=0.25),
        track(3, 9, 0.5, (2, None), id=4, name="cät", bbox=[0, 0, 1, 1]),
        track(score=1, category=9),
        {
            **track(score=0.75),
            "segmentations": [None, counts, {"size": [4, 6], "counts": code(2)["counts"].encode()}],
        },
    ]
    given = copy.deepcopy(results)
    said = write_submission(results, annotations(), tmp_path / "new" / "a.zip", top=2)
    size = (tmp_path / "new" / "a.zip").stat().st_size
    assert said == {
        "videos": 2, "videos_without_tracks": 0, "kept": 3, "dropped": 1, "bytes": size, "file": tmp_path / "new" / "a.zip"
    }  # fmt: skip
    assert packed(said["file"]) == [
        track(score=1.0, category=9),
        {**track(score=0.75), "segmentations": [None, code(1), code(2)]},
        track(3, 9, 0.5, (2, None)),
    ]
    assert results == given  # what is given is not changed


def test_ten_are_kept_by_default_and_of_equals_the_earlier(tmp_path):
    results = [track(score=0.5, cells=(i % 3, None, None)) for i in range(12)]
    said = write_submission(results, annotations(), tmp_path / "a.zip")
    assert (said["kept"], said["dropped"], said["videos_without_tracks"]) == (10, 2, 1)
    assert packed(said["file"]) == results[:10]


@given(
    st.lists(st.tuples(st.sampled_from([7, 3]), st.floats(0, 1)), max_size=30), st.integers(1, 5)
)
def test_the_best_of_each_video_are_kept(tmp_path_factory, drawn, top):
    results = [track(v, score=s, cells=(0, 0, 0)[: 3 if v == 7 else 2]) for v, s in drawn]
    said = write_submission(results, annotations(), tmp_path_factory.getbasetemp() / "a.zip", top)
    kept = packed(said["file"])
    for video in (7, 3):
        scores = sorted((s for v, s in drawn if v == video), reverse=True)
        assert [e["score"] for e in kept if e["video_id"] == video] == scores[:top]
    assert said["kept"] + said["dropped"] == len(drawn) and said["kept"] == len(kept)


def test_the_same_results_give_the_same_bytes(tmp_path, monkeypatch):
    results = [track(), track(3, cells=(1, 1))]
    first = write_submission(results, annotations(), tmp_path / "a.zip")["file"].read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert (
        write_submission(results, annotations(), tmp_path / "b.zip")["file"].read_bytes() == first
    )
    (entry,) = zipfile.ZipFile(tmp_path / "a.zip").infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0) and entry.compress_type == zipfile.ZIP_DEFLATED


def test_no_results_are_a_submission_too(tmp_path):
    said = write_submission([], annotations(), tmp_path / "a.zip")
    assert packed(said["file"]) == [] and said["videos_without_tracks"] == 2


def test_results_written_one_at_a_time_are_read_back(tmp_path):
    for results in ([], [track()], [track(), track(3, cells=(0, None))]):
        assert write_results(iter(results), tmp_path / "sub" / "r.json") == len(results)
        assert json.loads((tmp_path / "sub" / "r.json").read_text(encoding="utf-8")) == results

    def breaks():
        yield track()
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write_results(breaks(), tmp_path / "sub" / "r.json")
    assert len(json.loads((tmp_path / "sub" / "r.json").read_text())) == 2  # as it was
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["r.json"]


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "change, said",
    [
        ({"video_id": 8}, r"results\[1\]: unknown video_id 8"),
        ({"video_id": "7"}, r"results\[1\].video_id: expected `int`, got `str`"),
        ({"category_id": 0}, r"results\[1\]: unknown category_id 0; the file's: \[5, 9\]"),
        ({"category_id": None}, r"results\[1\].category_id: expected `int`, got `null`"),
        ({"score": 1.01}, r"results\[1\]: score 1.01 is not within 0 and 1"),
        ({"score": -0.1}, r"results\[1\]: score -0.1"),
        ({"score": float("nan")}, r"results\[1\]: 'score' must be a finite number"),
        ({"score": None}, r"results\[1\].score: expected `float`, got `null`"),
        ({"segmentations": [None, None]}, r"results\[1\]: segmentations has 2 entries, video 7 has 3 frames"),
        ({"segmentations": None}, r"results\[1\].segmentations: expected `array`, got `null`"),
        ({"segmentations": {"size": [4, 6]}}, r"results\[1\].segmentations: expected `array`, got `object`"),
        ({"segmentations": [None, {**code(0), "size": [6, 4]}, None]}, r"results\[1\].segmentations\[1\]: a mask of 6 x 4 in a frame of 4 x 6"),
        ({"segmentations": [None, {"size": [4, 6], "counts": [8, 8]}, None]}, r"results\[1\].segmentations\[1\]: .*covers 16"),
        ({"segmentations": [None, None, {"size": [4, 6], "counts": "08"}]}, r"results\[1\].segmentations\[2\]: .*covers 8"),
        ({"segmentations": [None, {"size": [4, 6], "counts": "0~"}, None]}, r"results\[1\].segmentations\[1\]: .*character"),
        ({"segmentations": [None, {"size": [4, 6], "counts": ""}, None]}, r"results\[1\].segmentations\[1\]: .*empty"),
        ({"segmentations": [[0, 0, 4, 0, 4, 4], None, None]}, r"results\[1\].segmentations\[0\]: .*RLE"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_and_nothing_is_written(tmp_path, change, said):
    (tmp_path / "a.zip").write_text("before")
    with pytest.raises(ValueError, match=said):
        write_submission([track(), {**track(), **change}], annotations(), tmp_path / "a.zip")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.zip", "before")]


@pytest.mark.parametrize(
    "results, file, said",
    [
        ({"results": []}, annotations(), "results: expected `array`, got `object`"),
        ([7], annotations(), r"results\[0\]: expected `object`, got `int`"),
        (
            [],
            {"images": [], "categories": []},
            "annotations: no list 'videos'; is this a YouTube-VIS annotation file",
        ),
        ([], [], "no list 'videos'"),
        ([], {**annotations(), "categories": None}, "no list 'categories'"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, results, file, said):
    with pytest.raises(ValueError, match=said):
        write_submission(results, file, tmp_path / "a.zip")
    with pytest.raises(ValueError, match="top is 0"):
        write_submission([], annotations(), tmp_path / "a.zip", top=0)
    assert not list(tmp_path.iterdir())


def test_files_that_are_cut_or_missing_are_named(tmp_path):
    good, cut = tmp_path / "good.json", tmp_path / "cut.json"
    good.write_text(json.dumps(annotations()))
    cut.write_text(json.dumps([track()])[:40])
    for results, file, word in (
        (cut, good, "cut.json: broken JSON"),
        (tmp_path / "no.json", good, "no.json"),
        (good, cut, "cut.json"),
    ):
        status, _, err = run("submit", results, "--annotations", file, "--out", tmp_path / "a.zip")
        assert status == 2 and err.startswith("minst: ") and err.count("\n") == 1 and word in err
    assert not (tmp_path / "a.zip").exists()


def test_a_full_disk_leaves_the_old_zip(tmp_path):
    noise = np.random.default_rng(0)
    file = annotations()
    for video in file["videos"]:
        video |= {"height": 200, "width": 200}

    def mask():
        made = rle_codec.encode(np.asfortranarray(noise.integers(0, 2, (200, 200), dtype=np.uint8)))
        return {"size": [200, 200], "counts": made["counts"].decode()}

    results = [{**track(), "segmentations": [mask(), None, mask()]} for _ in range(4)]
    out = tmp_path / "a.zip"
    out.write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # no file may be larger
    try:
        with pytest.raises(OSError, match="not written") as said:
            write_submission(results, file, out)
        assert said.value.filename == str(out)
        with pytest.raises(OSError, match="not written"):
            write_results(results, tmp_path / "r.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.zip", "before")]
    assert write_submission(results, file, out)["bytes"] > 10_000


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "file" / "a.zip", tmp_path / "folder"):
        with pytest.raises(OSError) as said:
            write_submission([], annotations(), out)
        assert said.value.filename == str(out)


# ---------------------------------------------------------------------------------------------- the commands


def test_the_command_prints_what_was_kept(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([track(), track(score=0.9), track(score=0.1)]))
    (tmp_path / "ann.json").write_text(
        json.dumps({**annotations(), "annotations": None}), encoding="utf-8"
    )
    argv = [
        "submit",
        tmp_path / "r.json",
        "--annotations",
        tmp_path / "ann.json",
        "--out",
        tmp_path / "z" / "a.zip",
        "--top",
        2,
    ]
    status, text, err = run(*argv)
    rows = [line.rsplit("  ", 1) for line in text.splitlines()]
    table = {name.strip(): value.strip() for name, value in rows[:-1]}
    size = str((tmp_path / "z" / "a.zip").stat().st_size)
    assert (status, err) == (0, "") and rows[-1][0].startswith("written: ")
    assert table == {
        "videos": "2",
        "videos_without_tracks": "1",
        "kept": "2",
        "dropped": "1",
        "bytes": size,
    }
    assert [e["score"] for e in packed(tmp_path / "z" / "a.zip")] == [0.9, 0.5]


def right():
    return [track(score=0.9), track(3, 9, 0.8, (2, 2)), track(3, 5, 0.7, (0, 0))]


def test_a_results_file_is_judged(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "valid.json").write_text(json.dumps(annotations(labels=True)))
    (tmp_path / "r.json").write_text(json.dumps(right()))
    figures = evaluate_results(folder / "valid.json", tmp_path / "r.json")
    assert {k: v for k, v in figures.items() if k != "tracking"} == evaluate_ytvis(
        annotations(labels=True), right()
    )
    assert figures["AP"] == pytest.approx(1) and figures["tracking"]["MOTA"] == pytest.approx(
        (4 - 2) / 4
    )
    for chosen in (["--split", "valid"], ["--annotations", folder / "valid.json"], []):
        status, text, _ = run(
            "eval", folder, "--results", tmp_path / "r.json", *chosen, "--json", tmp_path / "f.json"
        )
        assert (
            status == 0
            and "tracking MOTA" in text
            and "tracking mean HOTA" in text
            and "AP50" in text
        )
    kept = json.loads((tmp_path / "f.json").read_text())
    assert kept["tracking"]["per_category"]["cät"]["IDF1"] == 1 and "note" not in text


def test_withheld_labels_cannot_be_judged(tmp_path):
    (tmp_path / "valid.json").write_text(json.dumps(annotations()))
    (tmp_path / "r.json").write_text("[]")
    status, _, err = run("eval", tmp_path, "--results", tmp_path / "r.json")
    assert status == 2 and "withheld" in err and err.count("\n") == 1


def test_without_trackeval_a_note_says_how_to_get_it(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("trackeval")] + ["trackeval.metrics"]:
        monkeypatch.setitem(sys.modules, name, None)
    figures = evaluate_results(annotations(labels=True), right())
    assert figures["AP"] == pytest.approx(1) and "mobileinst[track]" in figures["tracking"]["note"]
    (tmp_path / "valid.json").write_text(json.dumps(annotations(labels=True)))
    (tmp_path / "r.json").write_text(json.dumps(right()))
    status, text, _ = run("eval", tmp_path, "--results", tmp_path / "r.json")
    assert status == 0 and "note: " in text and "mobileinst[track]" in text


def test_nothing_is_printed_or_warned_by_what_is_right(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_submission(right(), annotations(), tmp_path / "a.zip")
        evaluate_results(annotations(labels=True), right())
    assert capsys.readouterr() == ("", "")


def test_entries_stand_video_by_video_and_the_best_first(tmp_path):
    """In the order of the file's videos (7, 3), however the results are mixed, and keys in one order."""
    drawn = [(3, 0.2), (7, 0.1), (3, 0.9), (7, 0.8), (7, 0.3), (3, 0.5)]
    results = [track(v, score=s, cells=(0, 0, 0)[: 3 if v == 7 else 2]) for v, s in drawn]
    said = write_submission(results, annotations(), tmp_path / "a.zip")
    order = [(e["video_id"], e["score"]) for e in packed(said["file"])]
    assert order == [(7, 0.8), (7, 0.3), (7, 0.1), (3, 0.9), (3, 0.5), (3, 0.2)]
    keys = ["video_id", "category_id", "score", "segmentations"]
    assert all([*entry] == keys for entry in packed(said["file"]))


@pytest.mark.parametrize("deep", [300, 985, 5000])
def test_deep_json_is_refused_in_one_line(tmp_path, deep):
    nest = "[" * deep + "]" * deep
    good, deep_file = tmp_path / "good.json", tmp_path / "deep.json"
    good.write_text(json.dumps({**annotations(labels=True), "annotations": []}))
    (tmp_path / "r.json").write_text("[]")
    texts = (
        nest,
        f'[{{"video_id": 7, "category_id": 5, "score": 0.5, "segmentations": [null, {nest}, null]}}]',
    )
    for text in texts:
        deep_file.write_text(text)
        for argv in (
            ["submit", deep_file, "--annotations", good],
            ["eval", tmp_path, "--results", deep_file, "--annotations", good],
        ):
            out = ["--out", tmp_path / "a.zip"] * (argv[0] == "submit")
            status, _, err = run(*argv, *out)
            assert status == 2 and err.startswith("minst: ") and err.count("\n") == 1, err
    deep_file.write_text(
        json.dumps({**annotations(), "annotations": []})[:-1] + f', "deep": {nest}}}'
    )
    status, _, err = run(
        "submit", tmp_path / "r.json", "--annotations", deep_file, "--out", tmp_path / "a.zip"
    )
    assert status == 0 or err.startswith("minst: ") and err.count("\n") == 1


def test_whatever_the_depth_it_is_a_value_error(tmp_path):
    """The readers' limits differ by a frame or two: all depths near them are tried."""
    file = tmp_path / "r.json"
    for deep in range(880, 1000):
        entry = {**track(), "segmentations": [None, 0, None]}
        file.write_text(
            json.dumps([entry]).replace("0, null]", "[" * deep + "]" * deep + ", null]")
        )
        with pytest.raises(ValueError):
            write_submission(file, annotations(), tmp_path / "a.zip")
        with pytest.raises(ValueError):
            evaluate_results(annotations(labels=True), file)
