"""A local split of an annotation file, where a data set withholds its validation labels.

    ann.json ─ split_annotations(val, seed) ─> out/train.json   out/valid.json   out/split.json
    split.json, ann.json ─ verify_split ─> the same split?

A video (an image in COCO form) goes to the validation side if h(seed, id) < val, where h is SHA-256
of "seed:id" read as a number in [0, 1). So its side depends on nothing but the seed and its own id:

    guaranteed      the same split on every machine, in every order of the file; added videos
                    move no other; a larger `val` only adds; no side is empty
    not guaranteed  the exact share (of 2,238 videos at val = 0.1: 224, give or take 14), and that a
                    category is on both sides: those that are not stand in "missing"

Lesson: notebooks/10_capstone.ipynb
"""

import errno
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from minst.data.files import replacing
from minst.data.formats import COCO, YTVIS, Form, Id, JsonFile, read_typed

__all__ = ["split_annotations", "verify_split"]

SIDES = ("train", "valid")
RULE = "valid if SHA-256 of 'seed:id', its first 8 bytes as a number / 2**64, is less than val"


class Picture(Struct):
    """What a split needs of a video or an image."""

    id: Id
    video_id: Any = None  # of an image that is a frame


class Record(Struct):
    """split.json, as far as it is verified."""

    source_sha256: str
    val: float
    seed: int
    train: dict[str, str | int]
    valid: dict[str, str | int]


def split_annotations(
    annotations: str | Path, out: str | Path, val: float = 0.1, seed: int = 0
) -> dict:
    """Write train.json, valid.json and split.json into `out`; returns split.json's content.

    annotations: a file in YouTube-VIS or COCO form; all its other keys go to both sides. val: the
    share of videos (or images) of the validation side, within (0, 1). split.json: source and its
    SHA-256, rule, seed, val, of each side the counts and the SHA-256 of its sorted ids, and
    "missing", the categories that a side has no instance of.

    Raises ValueError for a file that cannot be split, and FileExistsError rather than replace a
    file that differs.
    """
    if not 0 < val < 1:
        raise ValueError(f"val is {val}: the share of the validation side must lie within 0 and 1")
    if type(seed) is not int:
        raise ValueError(f"seed is {seed!r}: it must be a whole number")
    source, out = Path(annotations), Path(out)
    data, form, ids = _read(source)
    if not data.get("annotations"):
        raise ValueError(f"{source}: its labels are withheld; split a file with annotations")
    if len(ids) < 2:
        raise ValueError(f"{source}: {len(ids)} of {form.pictures}; a split takes two or more")
    record = {"source": source.name, "source_sha256": _sha256(source.read_bytes())}
    record |= {"rule": RULE, "seed": seed, "val": float(val)}
    texts, used = {}, {}
    for side, mine in _side_ids(ids, float(val), seed).items():
        part = {
            form.pictures: [item for item in data[form.pictures] if item["id"] in mine],
            "annotations": [a for a in data["annotations"] if a[form.owner] in mine],
        }
        record[side] = {key: len(part[key]) for key in part} | {"ids_sha256": _hash(mine)}
        used[side] = {str(entry.get("category_id")) for entry in part["annotations"]}
        texts[f"{side}.json"] = json.dumps(data | part)
    categories = [c for c in data.get("categories") or () if isinstance(c, dict)]
    names = {str(c.get("id")): str(c.get("name")) for c in categories}
    annotated = names.keys() & set().union(*used.values())
    record["missing"] = {s: sorted(names[i] for i in annotated - used[s]) for s in SIDES}
    _write(out, texts | {"split.json": json.dumps(record, indent=1) + "\n"})
    return record


def verify_split(split: str | Path, annotations: str | Path) -> dict[str, bool]:
    """Is this the split that split.json describes? {"source", "train", "valid", ...}, each a bool.

    The split is made anew from `annotations`. "source": the file is the same to the byte (a copy
    that was written anew is not, but may hold the same videos); "train", "valid": the same ids;
    "train.json", "valid.json": so are those of the files beside split.json, where there are any.
    """
    split, source = Path(split), Path(annotations)
    try:
        record = read_typed(split, Record)
    except ValueError as error:
        what = str(error).removeprefix(f"{split}: ")
        raise ValueError(f"{split}: not a split.json of `minst data split`: {what}") from None
    ids = _side_ids(_read(source)[2], record.val, record.seed)
    known = {side: getattr(record, side).get("ids_sha256") for side in SIDES}
    same = {"source": _sha256(source.read_bytes()) == record.source_sha256}
    same |= {side: _hash(ids[side]) == known[side] for side in SIDES}
    for side in SIDES:
        if (file := split.with_name(f"{side}.json")).is_file():
            same[file.name] = _hash(_read(file)[2]) == known[side]
    return same


def _read(source: Path) -> tuple[dict, Form, list[int]]:
    """(content, its form, ids of its videos or images), checked as far as a split needs it."""
    opened = JsonFile(source)
    data, ids = {key: opened.parsed(key, Any) for key in opened.values}, {}
    forms = [form for form in (YTVIS, COCO) if isinstance(data.get(form.pictures), list)]
    if len(forms) != 1:
        found = " and ".join(form.pictures for form in forms) or "none"
        raise ValueError(f"{source}: must hold a list 'videos' or a list 'images', has {found}")
    (form,) = forms
    for where, picture, _ in opened.entries(form.pictures, Picture):
        if form is COCO and picture.video_id is not None:
            what = "is the frame of a video, which must not be split; convert it first"
            raise ValueError(f"{where} {what}")
        ids[picture.id] = where
    owned = msgspec.defstruct("Owned", [(form.owner, Id)])
    for _ in opened.entries("annotations", owned, **{form.owner: ids}):
        pass  # each belongs to one of them
    return data, form, list(ids)


def _side_ids(ids: list[int], val: float, seed: int) -> dict[str, set[int]]:
    digests = {i: hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in ids}
    place = {i: int.from_bytes(digest[:8], "big") / 2**64 for i, digest in digests.items()}
    ordered = sorted(ids, key=lambda i: (place[i], i))
    # of a few videos, the nearest is moved so that no side is empty
    count = min(max(sum(place[i] < val for i in ids), 1), len(ids) - 1)
    return {"train": set(ordered[count:]), "valid": set(ordered[:count])}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash(ids: Iterable[int]) -> str:
    """SHA-256 of the ids in order, one a line."""
    return _sha256("\n".join(map(str, sorted(ids))).encode())


def _write(out: Path, texts: dict[str, str]) -> None:
    """All files, or, when one of them is there with other content, none."""
    for name, text in texts.items():
        if (out / name).exists() and (out / name).read_bytes() != text.encode():
            what = "is there and differs; choose another folder"
            raise FileExistsError(errno.EEXIST, what, str(out / name))
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write_bytes(text.encode())
