"""Local splits: disjoint, complete, the same for ever, unmoved by order and by what is added."""

import hashlib
import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minst.cli import main
from minst.labels.split import SIDES, _side_ids, split_annotations, verify_split

NAMES = {1: "cat", 2: "dog", 3: "owl"}


def dataset(form="videos", count=20, per=2):
    """`count` videos of two annotations each; category 3 only in the first video."""
    owner = form[:-1] + "_id"
    items = [{"id": 10 * i, "note": f"item {i}"} for i in range(1, count + 1)]
    annotations = [
        {"id": 100 * i + k, owner: 10 * i, "category_id": k + 1}
        for i in range(1, count + 1)
        for k in range(per)
    ]
    annotations.append({"id": 1, owner: 10, "category_id": 3})
    return {"info": {"year": 2026}, "licenses": [{"id": 1}], "categories": [{"id": k, "name": n} for k, n in NAMES.items()],
            form: items, "annotations": annotations, "of our own": {"é": [1, 2]}}  # fmt: skip


def write(path, data):
    path.write_text(json.dumps(data))
    return path


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", ["videos", "images"])
def test_sides_are_disjoint_complete_and_keep_the_rest(tmp_path, form):
    data = dataset(form)
    source = write(tmp_path / "ann.json", data)
    record = split_annotations(source, tmp_path / "out", val=0.3, seed=5)
    sides = {side: read(tmp_path / "out" / f"{side}.json") for side in SIDES}
    for key in (form, "annotations"):
        together = sides["train"][key] + sides["valid"][key]
        assert sorted(together, key=lambda e: e["id"]) == sorted(data[key], key=lambda e: e["id"])
        for side in SIDES:  # in the order of the file
            assert sides[side][key] == [entry for entry in data[key] if entry in sides[side][key]]
    for side, part in sides.items():
        ids = [item["id"] for item in part[form]]
        assert {a[form[:-1] + "_id"] for a in part["annotations"]} == set(ids)
        assert {k: v for k, v in part.items() if k not in (form, "annotations")} == {
            k: v for k, v in data.items() if k not in (form, "annotations")
        }
        expected = hashlib.sha256("\n".join(str(i) for i in sorted(ids)).encode()).hexdigest()
        assert record[side] == {
            form: len(ids),
            "annotations": len(part["annotations"]),
            "ids_sha256": expected,
        }
        seen = {NAMES[a["category_id"]] for a in part["annotations"]}
        assert record["missing"][side] == sorted({"cat", "dog", "owl"} - seen)
    assert (
        record["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        and record["source"] == "ann.json"
    )
    assert record["seed"] == 5 and record["val"] == 0.3
    assert read(tmp_path / "out/split.json") == record


def test_the_rule_is_kept_for_ever():
    """Written out another way; a change of the rule would break the splits that were cited."""
    for i in range(1, 200):
        number = int(hashlib.sha256(b"0:%d" % i).hexdigest()[:16], 16)
        assert (i in _side_ids(list(range(1, 200)), 0.1, 0)["valid"]) == (number < 0.1 * 2**64)
    assert sorted(_side_ids(list(range(1, 61)), 0.1, 0)["valid"]) == [15, 44, 46]


@given(ids=st.sets(st.integers(-50, 10**12), min_size=2, max_size=60), more=st.sets(st.integers(-50, 10**12), max_size=30),
       val=st.floats(0.01, 0.99), seed=st.integers(0, 9), data=st.data())  # fmt: skip
def test_order_and_additions_move_no_video(ids, more, val, seed, data):
    sides = _side_ids(sorted(ids), val, seed)
    assert sides["train"] | sides["valid"] == ids and not sides["train"] & sides["valid"]
    assert all(sides.values())
    assert _side_ids(data.draw(st.permutations(sorted(ids))), val, seed) == sides
    larger = _side_ids(sorted(ids | more), val, seed)
    moved = {i for i in ids if (i in sides["valid"]) != (i in larger["valid"])}
    assert len(moved) <= 1  # one alone, and only where a side would have been empty
    if moved:
        assert min(map(len, sides.values())) == 1
    higher = _side_ids(sorted(ids), min(val + 0.2, 0.999), seed)
    assert sides["valid"] <= higher["valid"]


def test_shares_and_seeds():
    ids = list(range(1, 2239))  # as many as the videos of YouTube-VIS 2019
    valid = [_side_ids(ids, 0.1, seed)["valid"] for seed in range(20)]
    assert all(
        224 - 4 * 14.2 < len(side) < 224 + 4 * 14.2 for side in valid
    )  # 4 standard deviations
    assert len({frozenset(side) for side in valid}) == 20


def test_the_same_again_is_fine_and_another_is_refused(tmp_path):
    source = write(tmp_path / "ann.json", dataset())
    record = split_annotations(source, tmp_path / "out", val=0.3)
    assert split_annotations(source, tmp_path / "out", val=0.3) == record
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(FileExistsError, match="json"):
        split_annotations(source, tmp_path / "out", val=0.6)
    (tmp_path / "out/train.json").unlink()
    with pytest.raises(
        FileExistsError, match="json"
    ):  # nothing is written where one file is refused
        split_annotations(source, tmp_path / "out", val=0.6)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*before} - {"train.json"}


def test_a_source_named_train_json_is_not_replaced(tmp_path):
    source = write(tmp_path / "train.json", dataset())
    before = source.read_bytes()
    with pytest.raises(FileExistsError, match="train.json"):
        split_annotations(source, tmp_path)
    assert source.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_verify(tmp_path):
    source = write(tmp_path / "ann.json", dataset())
    split_annotations(source, tmp_path / "out", val=0.1)
    split = tmp_path / "out/split.json"
    assert verify_split(split, source) == dict.fromkeys(
        ["source", "train", "valid", "train.json", "valid.json"], True
    )
    data = dataset()
    data["videos"].reverse()
    other = write(tmp_path / "other.json", data)
    assert verify_split(split, other) == {
        "source": False,
        "train": True,
        "valid": True,
        "train.json": True,
        "valid.json": True,
    }
    for video in dataset(count=40)["videos"][20:]:
        data["videos"].append(video)
    said = verify_split(split, write(tmp_path / "more.json", data))
    assert not said["train"] and said["train.json"]
    (tmp_path / "out/valid.json").write_text((tmp_path / "out/train.json").read_text())
    assert verify_split(split, source)["valid.json"] is False
    with pytest.raises(ValueError, match="ann.json: not a split.json"):
        verify_split(source, source)


def test_a_side_without_any_annotation_is_verified(tmp_path):
    data = dataset("images", count=3)
    sides = _side_ids([10, 20, 30], 0.4, 0)
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in sides["train"]]
    source = write(tmp_path / "ann.json", data)
    record = split_annotations(source, tmp_path / "out", val=0.4)
    assert record["valid"]["annotations"] == 0 and record["missing"]["valid"]
    assert all(verify_split(tmp_path / "out/split.json", source).values())


def broken(change):
    data = dataset(count=3)
    return change(data) or data


@pytest.mark.parametrize("change, message", [
    (lambda d: d.pop("annotations") and None, "withheld"),
    (lambda d: d.update(annotations=None), "withheld"),
    (lambda d: d.update(annotations=[]), "withheld"),
    (lambda d: d["videos"][1].pop("id") and None, r"videos\[1\]: lacks `id`"),
    (lambda d: d["videos"][1].update(id="20"), r"videos\[1\]\.id: expected `int`, got `str`"),
    (lambda d: d["videos"][1].update(id=10), r"videos\[1\]: id 10 is that of videos\[0\], too"),
    (lambda d: d["annotations"][2].update(video_id=11), r"annotations\[2\]: video_id 11"),
    (lambda d: d["annotations"][2].pop("video_id") and None, r"annotations\[2\]: lacks `video_id`"),
    (lambda d: d["annotations"].append(4), r"annotations\[7\]"),
    (lambda d: d.update(annotations={"a": 1}), r"annotations"),
    (lambda d: d.update(videos=d["videos"][:1], annotations=d["annotations"][:2]), "two or more"),
    (lambda d: d.update(images=[]), "videos and images"),
    (lambda d: d["videos"], "expected `object`, got `array`"),
    (lambda d: d.pop("videos") and None, "has none"),
    (lambda d: {"images": [{"id": 1, "video_id": 1}, {"id": 2, "video_id": 1}], "annotations": [{"image_id": 1}]}, "convert"),
])  # fmt: skip
def test_what_cannot_be_split(tmp_path, change, message):
    source = write(tmp_path / "ann.json", broken(change))
    with pytest.raises(ValueError, match=message) as error:
        split_annotations(source, tmp_path / "out")
    assert (
        "\n" not in str(error.value)
        and "ann.json" in str(error.value)
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize(
    "options", [{"val": 0}, {"val": 1}, {"val": float("nan")}, {"seed": 1.5}, {"seed": True}]
)
def test_shares_and_seeds_that_are_none(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        split_annotations(write(tmp_path / "ann.json", dataset()), tmp_path / "out", **options)


def run(*argv):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        return main([str(a) for a in argv]), out.getvalue(), err.getvalue()


def test_the_command(tmp_path):
    source, out = write(tmp_path / "ann.json", dataset()), tmp_path / "out"
    status, said, _ = run("data", "split", source, "--val", 0.25, "--seed", 3, "--out", out)
    record = read(out / "split.json")
    assert (
        status == 0
        and record["val"] == 0.25
        and record["seed"] == 3
        and record["valid"]["ids_sha256"] in said
    )
    assert "owl" in said  # it is in one video alone
    status, said, _ = run("data", "split", source, "--verify", out / "split.json")
    assert status == 0 and "differs" not in said
    (out / "train.json").write_text((out / "valid.json").read_text())
    status, said, _ = run("data", "split", source, "--verify", out / "split.json")
    assert status == 1 and said.count("differs") == 1
    status, _, err = run("data", "split", source, "--val", 1.5, "--out", out)
    assert status == 2 and err.startswith("minst: val is 1.5")


@pytest.mark.parametrize("val, valid", [(1e-9, 1), (1 - 1e-9, 4)])
def test_no_side_is_ever_empty(tmp_path, val, valid):
    """No hash of five videos is so near to 0 or 1: one video is moved."""
    record = split_annotations(
        write(tmp_path / "ann.json", dataset(count=5)), tmp_path / "out", val
    )
    assert (record["train"]["videos"], record["valid"]["videos"]) == (5 - valid, valid)
    for side in SIDES:
        assert len(read(tmp_path / "out" / f"{side}.json")["videos"]) == record[side]["videos"]


@pytest.mark.parametrize("deep", [300, *range(910, 1001, 6), 5000])
def test_deep_json_is_split_or_refused_in_one_line(tmp_path, deep):
    data = json.dumps(dataset())[:-1] + ', "deep": ' + "[" * deep + "]" * deep + "}"
    (tmp_path / "ann.json").write_text(data)
    status, _, err = run("data", "split", tmp_path / "ann.json", "--out", tmp_path / "out")
    assert status in (0, 2) and err.count("\n") == status // 2
    assert status == 0 or "ann.json" in err and "deep" in err or "recursion" in err
    (tmp_path / "split.json").write_text("[" * deep + "]" * deep)
    status, _, err = run(
        "data", "split", tmp_path / "ann.json", "--verify", tmp_path / "split.json"
    )
    assert status == 2 and err.startswith("minst: ") and "not a split.json" in err


@pytest.mark.parametrize("change, word", [({"val": "x"}, "val: expected `float`"), ({"train": 3}, "train: expected"),
                                          ({"seed": None}, "seed: expected `int`"), ({"source_sha256": 1}, "source_sha256")])  # fmt: skip
def test_a_broken_split_json_names_its_field(tmp_path, change, word):
    source = write(tmp_path / "ann.json", dataset())
    record = split_annotations(source, tmp_path / "out")
    split = write(tmp_path / "split.json", record | change)
    with pytest.raises(ValueError, match=f"split.json: not a split.json of .*{word}"):
        verify_split(split, source)
