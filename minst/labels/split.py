"""A local split of an annotation file: the official validation labels are withheld.

    ann.json ─ split_annotations(val, seed) ─> out/train.json   out/valid.json   out/split.json
    split.json, ann.json ─ verify_split ─> the same split?

A video (an image in COCO form) goes to the validation side if h(seed, id) < val, where h is SHA-256 of
"seed:id" read as a number in [0, 1). So its side depends on nothing but the seed and its own id:

    guaranteed      no video on both sides, none on neither; the same split on every machine, in every
                    order of the file; videos that are added move no other; a larger `val` only adds;
                    no side is empty
    not guaranteed  the exact share (of 2,238 videos at val = 0.1: 224, give or take 14), and that a
                    category is on both sides: those that are not stand in "missing", and another seed
                    may do better

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from minst.data.files import read_json, replacing
from minst.data.formats import COCO, YTVIS, Form, Id, JsonFile

__all__ = ["split_annotations", "verify_split"]

SIDES = ("train", "valid")
RULE = "valid if SHA-256 of 'seed:id', its first 8 bytes as a number / 2**64, is less than val"


class Picture(Struct):
    """What a split needs of a video or an image."""

    id: Id
    video_id: Any = None  # of an image that is a frame


def split_annotations(
    annotations: str | Path, out: str | Path, val: float = 0.1, seed: int = 0
) -> dict:
    """Write train.json, valid.json and split.json into the folder `out`; returns split.json's content.

    annotations: a file in YouTube-VIS or COCO form; all its other keys go to both sides. val: the share
    of videos (or images) of the validation side, within (0, 1). split.json: source and its SHA-256,
    rule, seed, val, of each side the counts and the SHA-256 of its sorted ids, and "missing", the
    categories that a side has no instance of.

    Raises ValueError for a file that cannot be split, and FileExistsError rather than replace a file
    that differs.
    """
    if not 0 < val < 1:
        raise ValueError(f"val is {val}: the share of the validation side must lie within 0 and 1")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed is {seed!r}: it must be a whole number")  # noqa: TRY004
    source, out = Path(annotations), Path(out)
    data, form, ids = _read(source)
    if not data.get("annotations"):
        raise ValueError(f"{source}: its labels are withheld; split a file with annotations")
    if len(ids) < 2:
        raise ValueError(f"{source}: {len(ids)} of {form.pictures}; a split takes two or more")
    sides = _side_ids(ids, float(val), seed)
    parts = {
        side: data | {
            form.pictures: [item for item in data[form.pictures] if item["id"] in mine],
            "annotations": [a for a in data["annotations"] if a[form.owner] in mine],
        }
        for side, mine in sides.items()
    }  # fmt: skip
    record = {
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "rule": RULE,
        "seed": seed,
        "val": float(val),
    }
    for side, part in parts.items():
        counts = {key: len(part[key]) for key in (form.pictures, "annotations")}
        record[side] = counts | {"ids_sha256": _hash(sides[side])}
    record["missing"] = _missing(data, parts)
    texts = {f"{side}.json": json.dumps(part) for side, part in parts.items()}
    _write(out, texts | {"split.json": json.dumps(record, indent=1) + "\n"})
    return record


def verify_split(split: str | Path, annotations: str | Path) -> dict[str, bool]:
    """Is this the split that split.json describes? {"source", "train", "valid", ...}, True or False.

    The split is made anew from `annotations`. "source": the file is the same to the byte (a copy that
    was written anew is not, but may hold the same videos); "train", "valid": the same ids;
    "train.json", "valid.json": so are those of the files beside split.json, where there are any.
    """
    split, source = Path(split), Path(annotations)
    record, digest = read_json(split), hashlib.sha256(source.read_bytes()).hexdigest()
    try:
        val, seed = float(record["val"]), int(record["seed"])
        known = {side: record[side]["ids_sha256"] for side in SIDES}
        same = {"source": digest == record["source_sha256"]}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{split}: not a split.json of `minst data split`") from None
    ids = _side_ids(_read(source)[2], val, seed)
    same |= {side: _hash(ids[side]) == known[side] for side in SIDES}
    for side in SIDES:
        file = split.with_name(f"{side}.json")
        if file.is_file():
            same[file.name] = _hash(_read(file)[2]) == known[side]
    return same


def _read(source: Path) -> tuple[dict, Form, list[int]]:
    """(content, its form, ids of its videos or images), checked as far as a split needs it."""
    opened = JsonFile(source)
    data = {key: opened.parsed(key, Any) for key in opened.values}
    forms = [form for form in (YTVIS, COCO) if isinstance(data.get(form.pictures), list)]
    if len(forms) != 1:
        found = " and ".join(form.pictures for form in forms) or "none"
        raise ValueError(f"{source}: must hold a list 'videos' or a list 'images', has {found}")
    (form,) = forms
    ids: set[int] = set()
    for i, (picture, _) in enumerate(opened.entries(form.pictures, Picture)):
        where = f"{source}: {form.pictures}[{i}]"
        if form is COCO and picture.video_id is not None:
            what = "is the frame of a video, which must not be split; convert it first"
            raise ValueError(f"{where} {what}")
        if picture.id in ids:
            raise ValueError(f"{where}: the id {picture.id} stands there twice")
        ids.add(picture.id)
    owned = msgspec.defstruct("Owned", [(form.owner, Id)])
    for i, (entry, _) in enumerate(opened.entries("annotations", owned)):
        owner = getattr(entry, form.owner)
        if owner not in ids:
            what = f"{form.owner} {owner} is not among the {form.pictures}"
            raise ValueError(f"{source}: annotations[{i}]: {what}")
    return data, form, list(ids)


def _side_ids(ids: list[int], val: float, seed: int) -> dict[str, set[int]]:
    digests = {i: hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in ids}
    place = {i: int.from_bytes(digest[:8], "big") / 2**64 for i, digest in digests.items()}
    ordered = sorted(ids, key=lambda i: (place[i], i))
    count = sum(place[i] < val for i in ids)
    # of a few videos, the nearest is moved so that no side is empty
    count = min(max(count, 1), len(ids) - 1)
    return {"train": set(ordered[count:]), "valid": set(ordered[:count])}


def _hash(ids: Iterable[int]) -> str:
    """SHA-256 of the ids in order, one a line."""
    return hashlib.sha256("\n".join(map(str, sorted(ids))).encode()).hexdigest()


def _missing(data: dict, parts: dict[str, dict]) -> dict[str, list[str]]:
    """Names of the categories that are annotated at all, but not on this side."""
    categories = [c for c in data.get("categories") or () if isinstance(c, dict)]
    names = {str(category.get("id")): str(category.get("name")) for category in categories}
    used = {
        side: {str(entry.get("category_id")) for entry in part["annotations"]}
        for side, part in parts.items()
    }
    annotated = names.keys() & set().union(*used.values())
    return {side: sorted(names[i] for i in annotated - used[side]) for side in SIDES}


def _write(out: Path, texts: dict[str, str]) -> None:
    """All files, or, when one of them is there with other content, none."""
    for name, text in texts.items():
        if (out / name).exists() and (out / name).read_bytes() != text.encode():
            what = "is there and differs; choose another folder"
            raise FileExistsError(errno.EEXIST, what, str(out / name))
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write_bytes(text.encode())
