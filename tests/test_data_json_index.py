"""The index against json.loads: the same entries, whatever the window; what is broken is placed as json places it."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minst.data import json_index
from minst.data.json_index import has_key, scan

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.lists(st.dictionaries(st.sampled_from(["a", "ä", "日"]), VALUES, max_size=3), max_size=5)


def keep(entry):
    return len(entry), 7


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("index") / "äö 日本.json"


def with_window(bytes_at_a_time, call, *args):
    before = json_index.WINDOW
    json_index.WINDOW = bytes_at_a_time
    try:
        return call(*args)
    finally:
        json_index.WINDOW = before


@given(
    document=st.fixed_dictionaries({}, optional={"list": ENTRIES, "other": ENTRIES, "kept": VALUES, "x": VALUES}),
    indent=st.sampled_from([None, 0, 1, "\t"]),
    ascii=st.booleans(),
    window=st.integers(1, 90),
    order=st.randoms(use_true_random=False),
)
def test_the_same_as_json(file, document, indent, ascii, window, order):
    keys = list(document)
    order.shuffle(keys)
    document = {key: document[key] for key in keys}
    written = json.dumps(document, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    if b"\xed" in written:  # half a pair is no UTF-8
        written = json.dumps(document, indent=indent).encode()
    file.write_bytes(b"\n " + written + b" \n")
    source, lists, found = with_window(window, scan, file, {"list": keep, "other": keep}, ["kept"])
    assert list(found) == keys and found.get("kept") == document.get("kept") and found.get("x") is None
    for key in ("list", "other"):
        if document.get(key) is None:
            assert lists[key] is None
            continue
        assert pickle.loads(pickle.dumps(source)).read(lists[key].spans) == document[key]
        assert lists[key].rows.tolist() == [[len(entry), 7] for entry in document[key]]


@given(
    entries=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=3), min_size=1, max_size=4),
    cut=st.randoms(use_true_random=False),
    window=st.integers(1, 90),
)
def test_cut_short_anywhere_is_placed_as_json_places_it(file, entries, cut, window):
    text = json.dumps({"x": 1, "list": entries}, indent=cut.choice([None, 1]))
    text = text[: cut.randrange(len(text))]
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="breaks off|is empty") as refused:
        with_window(window, scan, file, {"list": keep})
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if text:
            assert f"at line {error.lineno}, column {error.colno}: " in str(refused.value)


@pytest.mark.parametrize("text, message", [
    ("", "is empty"),
    (" \n\t", "is empty"),
    ("[]", "a list; annotations are an object"),
    ('[{"score": 0.5, "image_id": 1}]', "a list of results, with scores"),
    ('[{"score": 0.5,}]', "broken JSON at line 1, column 16"),
    ("3", "begins with '3'"),
    ('{"list": [{}, {"a": 1,}]}', r"line 1, column 23.*\(in list\[1\]\)"),
    ('{"list": [{}\n {}]}', r"line 2, column 2: Expecting ',' delimiter \(in list\[0\]\)"),
    ('{"list": [{}, 3]}', r"list\[1\]: must be an object"),
    ('{"list": [{}, null]}', r"list\[1\]: must be an object"),
    ('{"list": {}}', "'list' must be a list"),
    ('{"list": [{"b": 1, "a": 2, "a": 3}]}', r"the key 'a' stands twice in an object \(in list\[0\]\)"),
    ('{"x": [{"deep": {"k": 1, "k": 1}}]}', "the key 'k' stands twice"),
    ('{"list": [],\n "x": 1, "list": []}', "line 2, column 10: the key 'list' stands there twice"),
    ('{"list" []}', "line 1, column 9: Expecting ':'"),
    ("{'list': []}", "line 1, column 2: Expecting property name"),
    ('{"list": [],}', "line 1, column 13: Expecting property name"),
    ('{"list": []} {}', "line 1, column 14: something follows"),
    ('{"ä": "é", x}', "line 1, column 12"),  # columns are characters, not bytes
    ('{"list": [{"a": "line\nbreak"}]}', "line 1, column 22: Invalid control character"),
    ('{"list": [{"a": ' + "9" * 5000 + "}]}", "line 1, column 11.*digits"),
    ('{"x": ' + "[" * 200_000, "line 1, column.*recursion"),
])  # fmt: skip
def test_what_is_broken_is_placed(file, text, message):
    file.write_text(text, encoding="utf-8")
    for window in (3, 1 << 22):
        with pytest.raises(ValueError, match=message) as refused:
            with_window(window, scan, file, {"list": keep})
        assert str(refused.value).startswith(f"{file}: ") and "\n" not in str(refused.value)


def test_an_early_error_does_not_read_the_rest(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"list": [{"a": nonsense}, ' + '"' + "x" * 100_000 + '"]}')
    reads = []
    more = json_index._Text._more
    monkeypatch.setattr(json_index._Text, "_more", lambda text: reads.append(1) or more(text))
    with pytest.raises(ValueError, match="line 1, column 17"):
        with_window(1000, scan, tmp_path / "a.json", {"list": keep})
    assert len(reads) == 1


def test_a_long_entry_is_parsed_a_few_times(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"list": [{"a": "' + "x" * 100_000 + '"}]}')
    reads = []
    more = json_index._Text._more
    monkeypatch.setattr(json_index._Text, "_more", lambda text: reads.append(1) or more(text))
    _, lists, _ = with_window(1000, scan, tmp_path / "a.json", {"list": keep})
    assert np.diff(lists["list"].spans).tolist() == [[100_009]] and len(reads) < 12  # doubled from 1,000


def test_only_a_window_is_held(tmp_path, monkeypatch):
    """The text in memory is a window or twice the longest entry, not the file."""
    with open(tmp_path / "a.json", "w") as file:
        json.dump({"skipped": [{"x": "y" * 50}] * 2000, "list": [{"a": "b" * 300}] * 500}, file)
    longest = []
    more = json_index._Text._more
    monkeypatch.setattr(json_index._Text, "_more", lambda text: [more(text), longest.append(len(text.text))][0])
    _, lists, _ = with_window(1000, scan, tmp_path / "a.json", {"list": keep})
    assert len(lists["list"].spans) == 500 and max(longest) < 2000


def test_a_mark_at_the_begin_and_a_null_list(file):
    file.write_bytes("\ufeff".encode() + b'{"list": null, "kept": [1]}')
    _, lists, keys = scan(file, {"list": keep}, ["kept", "absent"])
    assert lists == {"list": None} and keys == {"list": None, "kept": [1]}


def test_bytes_that_are_no_utf8_are_placed(file):
    file.write_bytes(b'{"list": [{"a": "\xff"}]}')
    source, lists, _ = scan(file, {"list": keep})
    with pytest.raises(ValueError, match="not UTF-8 .*at byte 17"):
        source.read(lists["list"].spans)


def test_a_file_that_has_changed_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"list": [{"a": 1}]}')
    source, lists, _ = scan(path, {"list": keep})
    assert source.read(lists["list"].spans) == [{"a": 1}]
    path.write_text('{"list": [{"a": 22}]}')  # another size, the same time
    os.utime(path, ns=(source.changed,) * 2)
    with pytest.raises(ValueError, match="a.json: has changed"):
        source.read(lists["list"].spans)
    path.write_text('{"list": [{"a": 2}]}')  # the same size, another time
    os.utime(path, ns=(source.changed + 10**9,) * 2)
    with pytest.raises(ValueError, match="a.json: has changed"):
        source.read(lists["list"].spans)
    os.utime(path, ns=(source.changed,) * 2)
    assert source.read(np.array(lists["list"].spans)) == [{"a": 2}]


@pytest.mark.parametrize("value, message", [
    ("1.0", "id is 1.0, no whole number"), ('"1"', "id is '1'"), ("null", "id is None"), ("true", "id is True"),
    ("1" + "0" * 30, "id is 10.*, no whole number"), ("NaN", "id is nan"),
])  # fmt: skip
def test_numbers_that_are_not_whole(file, value, message):
    file.write_text('{"list": [{"id": 3}, {"id": ' + value + "}]}")
    with pytest.raises(ValueError, match=r"list\[1\]: " + message):
        scan(file, {"list": lambda entry: (json_index.integer(entry, "id"),)})


def test_a_key_is_found_without_reading_on(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"info": {"videos": 1}, "images": [{"videos": 2}], "videos": [], "broken')
    assert has_key(path, "videos") and has_key(path, "images")
    path.write_text('{"info": {"videos": 1}, "images": [{"videos": 2}]}')
    assert not has_key(path, "videos")
    path.write_text('{"images": [1, 2')
    with pytest.raises(ValueError, match="breaks off"):
        has_key(path, "videos")
