"""Opening annotation files against json.loads: the same entries; what is broken is named and placed."""

import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from minst.data.formats import Image, JsonFile, Track, explained

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
ENTRIES = st.lists(
    st.dictionaries(st.sampled_from(["a", "ä", "日"]), VALUES, max_size=3), max_size=5
)


class Entry(Struct):
    a: Any = 7


class Strict(Struct):
    a: list[int]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("formats") / "äö 日本.json"


@given(
    document=st.fixed_dictionaries({}, optional={"list": ENTRIES, "kept": VALUES, "x": VALUES}),
    indent=st.sampled_from([None, 0, 1, "\t"]),
    ascii=st.booleans(),
    mark=st.sampled_from([b"", "\ufeff".encode()]),
)
def test_the_same_as_json(file, document, indent, ascii, mark):
    written = json.dumps(document, indent=indent, ensure_ascii=ascii).encode()
    file.write_bytes(mark + b"\n " + written + b" \n")
    opened = JsonFile(file)
    assert list(opened.values) == list(document)
    assert all(opened.parsed(key, Any) == value for key, value in document.items())
    found = list(opened.entries("list", Entry))
    expected = document.get("list") or []
    assert [place for place, *_ in found] == [f"{file}: list[{i}]" for i in range(len(expected))]
    assert [entry.a for _, entry, _ in found] == [entry.get("a", 7) for entry in expected]
    texts = pickle.loads(pickle.dumps([text for *_, text in found]))
    assert [msgspec.json.decode(text) for text in texts] == expected


@given(entries=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=3), min_size=1, max_size=4),
       cut=st.randoms(use_true_random=False))  # fmt: skip
def test_cut_short_anywhere(file, entries, cut):
    text = json.dumps({"x": 1, "list": entries}, indent=cut.choice([None, 1]))
    text = text[: cut.randrange(len(text))]
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="breaks off|is empty") as refused:
        JsonFile(file)
    if text.strip():
        assert f"at line {text.rstrip().count(chr(10)) + 1}, column " in str(refused.value)


@pytest.mark.parametrize("text, message", [
    ("", "is empty"),
    (" \n\t", "is empty"),
    ("[]", "got `array`, as results are; annotations are an object"),
    ('[{"score": 0.5, "image_id": 1}]', "as results are"),
    ("3", "expected `object`, got `int`"),
    ('{"list": [{}, {"a": 1,}]}', "line 1, column 2[23]"),
    ('{"list": [{}\n {}]}', "line 2, column 2"),
    ('{"list": [{}, 3]}', r"list\[1\]: expected `object`, got `int`"),
    ('{"list": [{}, null]}', r"list\[1\]: expected `object`, got `null`"),
    ('{"list": {}}', "list: expected `array | null`, got `object`"),
    ('{"list" []}', "line 1, column 9"),
    ("{'list': []}", "line 1, column 2"),
    ('{"list": [],}', "line 1, column 1[23]"),
    ('{"list": []} {}', "line 1, column 14"),
    ('{"ä": "é", x}', "line 1, column 12"),  # columns are characters, not bytes
    ('{"list": [{"a": "line\nbreak"}]}', "line 1, column 22"),
    ('{"list": [{"a": NaN}]}', "broken JSON at line 1, .*byte 16.*write null"),
    ('{"list": [{"a": -Infinity}]}', "write null"),
    ('{"list": [{"a": "\\ud800 half a pair"}]}', "broken JSON at line 1, .*half a character is no text"),
    ('{"list": [{"a": ' + "9" * 5000 + "}]}", r"list\[0\]\.a: integer value out of range"),
    ('{"x": ' + "[" * 200_000, "nested too deeply"),
])  # fmt: skip
def test_what_is_broken_is_placed(file, text, message):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        list(JsonFile(file).entries("list", Entry))
    assert str(refused.value).startswith(f"{file}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("entry, message", [
    ("{}", r"list\[1\]: lacks `a`"),
    ('{"a": [1, "2"]}', r"list\[1\]\.a\[1\]: expected `int`, got `str`"),
    ('{"a": [1.0]}', r"list\[1\]\.a\[0\]: expected `int`, got `float`"),
    ('{"a": [true]}', r"list\[1\]\.a\[0\]: expected `int`, got `bool`"),
])  # fmt: skip
def test_an_entry_of_another_kind_is_placed(file, entry, message):
    file.write_text('{"list": [{"a": [3]}, ' + entry + "]}")
    with pytest.raises(ValueError, match=message):
        list(JsonFile(file).entries("list", Strict))


def test_an_id_stands_once_and_leads_to_what_there_is(file):
    owned = {"id": 3, "video_id": 1, "category_id": 2, "segmentations": []}
    known = {"video_id": {1}, "category_id": {2: "cat"}}
    file.write_text(json.dumps({"list": [owned, {**owned, "id": 4}]}))
    assert [track.id for _, track, _ in JsonFile(file).entries("list", Track, **known)] == [3, 4]
    for change, message in (
        ({}, r"list\[1\]: id 3 is that of list\[0\], too"),
        ({"id": 4, "video_id": 2}, r"list\[1\]: video_id 2 is not among the videos"),
        ({"id": 4, "category_id": 1}, r"list\[1\]: category_id 1 is not among the categories"),
    ):
        file.write_text(json.dumps({"list": [owned, owned | change]}))
        with pytest.raises(ValueError, match=message):
            list(JsonFile(file).entries("list", Track, **known))


def test_a_null_list_and_one_that_is_not_there(file):
    file.write_text('{"list": null}')
    assert [*JsonFile(file).entries("list", Entry), *JsonFile(file).entries("other", Entry)] == []


def test_bytes_that_are_no_utf8_are_placed(file):
    file.write_bytes(b'{"list": [{"a": 1, "b": "\xff"}]}')
    assert len(list(JsonFile(file).entries("list", Entry))) == 1  # "b" is not looked at
    file.write_bytes(b'{"list": [{"a": "\xff"}]}')
    with pytest.raises(ValueError, match=r"list\[0\]: not text in UTF-8"):
        list(JsonFile(file).entries("list", Entry))
    file.write_bytes(b'{"\xff": 1}')
    with pytest.raises(ValueError, match="not JSON in UTF-8 .invalid start byte at byte 2"):
        JsonFile(file)


def test_words_of_an_error():
    error = ValueError("Expected `int`, got `str` - at `$.a[2]`")
    assert explained(error, "x[1]") == ("x[1].a[2]", "expected `int`, got `str`")


@pytest.mark.parametrize("text, key", [
    ('{"list": [{}], "x": 1, "list": []}', "list"),
    ('{"x": {"list": "}"}, "ü": 2, "list": 3, "x": 1}', "x"),
    ('{"a\\"b": 2, "a\\"b": 3}', '.*b'),
])  # fmt: skip
def test_a_key_that_stands_twice_loses_no_list_in_silence(file, text, key):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"the key '{key}' stands twice in one object"):
        JsonFile(file)


@pytest.mark.parametrize("size, message", [
    ((70_000, 8), r"list\[0\]\.height: expected `int` <= 65535"),
    ((10**9, 8), r"list\[0\]\.height: expected `int` <= 65535"),
    ((8, 2**32), r"list\[0\]\.width: expected `int` <= 65535"),
    ((60_000, 60_000), r"list\[0\]: no frame is of 60000 x 60000 .*3,600,000,000 pixels; at most"),
])  # fmt: skip
def test_frames_that_no_memory_could_hold_are_named(file, size, message):
    entry = {"id": 1, "height": size[0], "width": size[1], "file_name": "a.jpg"}
    file.write_text(json.dumps({"list": [entry]}))
    with pytest.raises(ValueError, match=message):
        list(JsonFile(file).entries("list", Image))
