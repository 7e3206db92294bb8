"""Names that stay within their folder, images and JSON that are broken, files that are never half written."""

import errno
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minst.data import files
from minst.data.files import inside, new_folder, read_image, read_json, replacing, unfinished


@pytest.mark.parametrize(
    "name", ["a.jpg", "v/00001.jpg", "v/a..b.jpg", "видео/кадр 1.jpg", "v/.hidden/1.jpg"]
)
def test_a_name_within(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "v/../../a.jpg",
        "/etc/passwd",
        "C:\\a.jpg",
        "C:a.jpg",
        "\\\\host\\a",
        "v\\..\\a",
        "\\a",
        "",
        " ",
        "a\0b",
    ],
)
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leads out of the data set|is no name of a file"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", [None, 7, ["a.jpg"]])
def test_a_name_that_is_no_text(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a file"):
        inside(tmp_path, name)


def test_images_that_cannot_be_read(tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    assert read_image(tmp_path / "whole.jpg").shape == (40, 50, 3)
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("loop.jpg", "empty.jpg", "cut.jpg", "text.jpg", "missing.jpg"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    "text, place", [('{"a": [1, 2', "line 1, column 12"), ('{"a": 1}\n}', "line 2, column 1")]
)
def test_broken_json_says_where(tmp_path, text, place):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json: broken JSON at {place}"):
        read_json(tmp_path / "a.json")


def test_json_in_another_encoding(tmp_path):
    (tmp_path / "a.json").write_bytes('{"name": "Größe"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="a.json: not JSON in UTF-8"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(
        json.dumps({"name": "Größe"}, ensure_ascii=False), encoding="utf-8"
    )
    assert read_json(tmp_path / "a.json") == {"name": "Größe"}


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.json"
    with replacing(path) as beside:
        beside.write_text("1")
        assert not path.exists() and beside.suffix == ".json" and beside.parent == path.parent
    assert path.read_text() == "1" and list(path.parent.iterdir()) == [path]
    (tmp_path / "b").touch()
    assert (
        path.stat().st_mode == (tmp_path / "b").stat().st_mode
    )  # readable by whoever may read other new files


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), ValueError("x")],
)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, replacing(path) as beside:
        beside.write_text("ha")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert raised.value.filename == str(path) and "No space left" in raised.value.strerror


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "folder.json", tmp_path / "file" / "a.json"):
        with pytest.raises(OSError, match="cannot be written") as raised, replacing(path):
            pytest.fail("nothing is written")
        assert raised.value.filename == str(path)

    def refuse(path, **_):  # a read-only disk (root may write to read-only folders)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(OSError, match="Read-only") as raised, replacing(tmp_path / "a.json"):
        pytest.fail("nothing is written")
    assert raised.value.filename == str(tmp_path / "a.json")


def saved(path, picture, orientation=None, **options):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    picture.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("kind", ["jpg", "png", "deep.png", "tif", "alpha.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held(tmp_path, kind, orientation):
    levels = np.zeros((40, 60), np.uint8)
    levels[:20, :30] = 250
    picture = {
        "deep.png": Image.fromarray(levels.astype(np.uint16) * 257),
        "alpha.png": Image.fromarray(np.dstack([levels] * 3 + [np.full_like(levels, 255)])),
    }.get(kind, Image.fromarray(np.dstack([levels] * 3)))
    path = saved(tmp_path / f"a.{kind}", picture, orientation)
    turns, mirrored = {
        1: (0, 0),
        2: (0, 1),
        3: (2, 0),
        4: (2, 1),
        5: (3, 1),
        6: (3, 0),
        7: (1, 1),
        8: (1, 0),
    }[orientation]
    expected = np.rot90(levels, turns)
    expected = expected[:, ::-1] if mirrored else expected
    image = read_image(path)
    assert image.shape == (*expected.shape, 3)
    assert np.abs(image[..., 0].astype(int) - expected).mean() < 2
    if kind != "tif":  # its record tells who saw the stored pixels; Pillow itself turns a TIFF
        assert read_image(path, (40, 60)).shape == (40, 60, 3)
    assert read_image(path, expected.shape).shape == image.shape
    assert read_image(path, (7, 7)).shape == image.shape


def test_a_square_image_is_turned_whatever_its_record_says(tmp_path):
    levels = np.zeros((40, 40), np.uint8)
    levels[:20] = 250
    path = saved(tmp_path / "a.png", Image.fromarray(levels), 6)
    assert read_image(path, (40, 40))[:, 0, 0].tolist() == [0] * 40  # the top is on the right


def test_content_in_memory_and_formats_that_start_programs(tmp_path):
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "a.bmp")
    assert read_image((tmp_path / "a.bmp").read_bytes())[2, 3].tolist() == [9, 8, 7]
    with pytest.raises(ValueError, match="an image in memory: not a readable image"):
        read_image(b"no image")
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png", "EPS")
    with pytest.raises(ValueError, match="a.png: not a readable image .cannot identify"):
        read_image(tmp_path / "a.png")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ValueError, match="a folder or device"):
            read_image(path)


@pytest.mark.parametrize("text, message", [
    ("[" * 100_000, "broken JSON: nested too deeply"),
    ('{"a": ' * 100_000, "broken JSON: nested too deeply"),
    ('{"b": 1, "a": [{"x": 1, "y": 2, "x": 3}]}', "the key 'x' stands twice in one object"),
    ('{"a": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
    (" \n", "a.json: is empty"),
    ('{"a": [1, 2', "the file breaks off, was it copied whole"),
    ('{"a": "\\ud800"', "broken JSON at line 1"),
])  # fmt: skip
def test_json_that_is_hard_to_read_is_named_in_one_line(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        read_json(tmp_path / "a.json")
    assert str(refused.value).startswith(f"{tmp_path / 'a.json'}: ")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_a_mark_before_json_is_no_part_of_it(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(tmp_path / "a.json") == {"a": [1]}


def test_names_written_on_windows(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.jpg").touch()
    assert inside(tmp_path, "v\\a.jpg") == tmp_path / "v" / "a.jpg"
    assert inside(tmp_path, "v\\none.jpg") == tmp_path / "v" / "none.jpg"
    (tmp_path / "b\\c.jpg").touch()  # a name of this system
    assert inside(tmp_path, "b\\c.jpg") == tmp_path / "b\\c.jpg"


def test_levels_of_floating_point_are_refused(tmp_path):
    """Pillow would make them black or white."""
    Image.fromarray(np.full((4, 5), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: not a readable image .*floating-point; save it"):
        read_image(tmp_path / "a.tif")


def test_an_image_that_no_memory_could_hold_is_refused_with_its_size(tmp_path):
    """The header of a PNG of 100,000 x 100,000; nothing is allocated."""
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="a.png: not a readable image .*10000000000 pixels"):
        read_image(tmp_path / "a.png")


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "images").mkdir()
        (folder / "images" / "a.jpg").touch()
        (folder / "a.json").touch()
        assert [path for path in out.iterdir() if path != folder] == []
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "images"]
    for stop in (KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else OSError) as raised:
            with new_folder(tmp_path / "other") as folder:
                (folder / "a.jpg").touch()
                raise stop
        assert not (tmp_path / "other").exists()
    assert raised.value.filename == str(tmp_path / "other")
    for taken in (out, out / "a.json"):
        with pytest.raises(ValueError, match="is not an empty folder; choose another one"):
            with new_folder(taken):
                pytest.fail("nothing is written")


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".unfinished-0a1b").mkdir()
    (tmp_path / ".unfinished-0a1b" / "a.jpg").touch()
    with new_folder(tmp_path) as folder:
        (folder / "b.jpg").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["b.jpg"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks that tell the living from the dead")
def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    (tmp_path / ".unfinished-0a1b").mkdir()
    for name in (".a.0123abcd.json", ".b.0123abcd.json", ".a.notes.json"):
        (tmp_path / name).touch()
    with unfinished(tmp_path) as one, replacing(tmp_path / "a.json") as first:
        assert {path.name for path in tmp_path.iterdir()} == {
            one.name, first.name, ".b.0123abcd.json", ".a.notes.json"
        }  # fmt: skip
        (one / "b").touch()
        first.write_text("first")
        with unfinished(tmp_path) as other, replacing(tmp_path / "a.json") as second:
            second.write_text("second")
            assert other != one and first != second
        assert (one / "b").is_file() and (tmp_path / "a.json").read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.notes.json", ".b.0123abcd.json", "a.json"]
    assert (tmp_path / "a.json").read_text() == "first"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_a_disk_without_locks_is_written_and_nothing_is_taken_away(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refused)
    (tmp_path / ".a.0123abcd.json").touch()
    with replacing(tmp_path / "a.json") as beside:
        beside.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.0123abcd.json", "a.json"]
