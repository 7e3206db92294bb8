"""A local split of an annotation file: the official validation labels are withheld, and the server has closed.

    ann.json ─ split_annotations(val, seed) ─> out/train.json   out/valid.json   out/split.json ─ verify_split ─> same?

A video (an image in COCO form) goes to the validation side if h(seed, id) < val, where h is SHA-256 of "seed:id" read
as a number in [0, 1). So the side of a video depends on nothing but the seed and its own id:

    guaranteed      no video on both sides, none on neither; the same split on every machine, in every order of the file;
                    videos that are added move no other; a larger `val` only adds; no side is empty
    not guaranteed  the exact share (of 2,238 videos at val = 0.1: 224, give or take 14), and that a category is on both
                    sides: those that are not stand in "missing", and another seed may do better

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

from minst.data.files import read_json, replacing

__all__ = ["split_annotations", "verify_split"]

SIDES = ("train", "valid")


def split_annotations(
    annotations: str | Path, out: str | Path, val: float = 0.1, seed: int = 0
) -> dict:
    """Write train.json, valid.json and split.json into the folder `out`; returns what stands in split.json.

    annotations: a file in YouTube-VIS or COCO form; all its other keys go to both sides. val: the share of videos (or
    images) of the validation side, within (0, 1). split.json: source and its SHA-256, form, seed, val, of each side
    the counts and the SHA-256 of its sorted ids, and "missing", the categories that a side has no instance of.

    Raises ValueError for a file that cannot be split, and FileExistsError rather than replace a file that differs.
    """
    if not 0 < val < 1:
        raise ValueError(
            f"val is {val}: the share of the validation side must lie within 0 and 1, such as 0.1"
        )
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed is {seed!r}: it must be a whole number")
    source, out = Path(annotations), Path(out)
    data, items, owner = _read(source)
    if not data.get("annotations"):
        raise ValueError(
            f"{source}: its labels are withheld; split a file with annotations, such as that of train"
        )
    if len(data[items]) < 2:
        raise ValueError(f"{source}: {len(data[items])} of {items}; a split takes two or more")
    ids = _side_ids([item["id"] for item in data[items]], float(val), seed)
    parts = {side: _part(data, items, owner, ids[side]) for side in SIDES}
    record = {
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "rule": "valid if SHA-256 of 'seed:id', its first 8 bytes as a number / 2**64, is less than val",
        "seed": seed,
        "val": float(val),
        **{side: _described(parts[side], items) for side in SIDES},
        "missing": _missing(data, parts),
    }
    texts = {f"{side}.json": json.dumps(part) for side, part in parts.items()}
    _write(out, texts | {"split.json": json.dumps(record, indent=1) + "\n"})
    return record


def verify_split(split: str | Path, annotations: str | Path) -> dict[str, bool]:
    """Is this the split that split.json describes? {"source", "train", "valid", ...}, each True or False.

    The split is made anew from `annotations`. "source": the file is the same to the byte (a copy that was written anew
    is not, but may hold the same videos); "train", "valid": the same ids; "train.json", "valid.json": so are those of
    the files beside split.json, where there are any.
    """
    split = Path(split)
    record = read_json(split)
    try:
        val, seed = float(record["val"]), int(record["seed"])
        known = {side: record[side]["ids_sha256"] for side in SIDES}
        same = {
            "source": hashlib.sha256(Path(annotations).read_bytes()).hexdigest()
            == record["source_sha256"]
        }
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{split}: not a split.json of `minst data split`") from None
    data, items, _ = _read(Path(annotations))
    ids = _side_ids([item["id"] for item in data[items]], val, seed)
    same |= {side: _hash(ids[side]) == known[side] for side in SIDES}
    for side in SIDES:
        file = split.with_name(f"{side}.json")
        if file.is_file():
            data, items, _ = _read(file)
            same[file.name] = _hash(item["id"] for item in data[items]) == known[side]
    return same


def _read(source: Path) -> tuple[dict, str, str]:
    """(content, "videos" | "images", "video_id" | "image_id"), checked as far as a split needs it."""
    data = read_json(source)
    found = [
        key
        for key in ("videos", "images")
        if isinstance(data, dict) and isinstance(data.get(key), list)
    ]
    if len(found) != 1:
        raise ValueError(
            f"{source}: must hold a list 'videos' or a list 'images', has {' and '.join(found) or 'none'}"
        )
    items = found[0]
    owner = items[:-1] + "_id"
    for key, wanted in ((items, "id"), ("annotations", owner)):
        entries = data.get(key) or []
        for i, entry in enumerate(entries if isinstance(entries, list) else [None]):
            if not isinstance(entry, dict) or type(entry.get(wanted)) is not int:
                raise ValueError(
                    f"{source}: {key}[{i}] has no whole number {wanted!r}; see `minst data check`"
                )
            if key == "images" and "video_id" in entry:
                raise ValueError(
                    f"{source}: {key}[{i}] is the frame of a video, which must not be split; convert it first"
                )
    ids = {item["id"] for item in data[items]}
    if len(ids) < len(data[items]):
        raise ValueError(f"{source}: an id of {items} stands there twice; see `minst data check`")
    for i, entry in enumerate(data.get("annotations") or []):
        if entry[owner] not in ids:
            raise ValueError(
                f"{source}: annotations[{i}]: {owner} {entry[owner]} is not among the {items}"
            )
    return data, items, owner


def _side_ids(ids: list[int], val: float, seed: int) -> dict[str, set[int]]:
    place = {
        i: int.from_bytes(hashlib.sha256(f"{seed}:{i}".encode()).digest()[:8], "big") / 2**64
        for i in ids
    }
    ordered = sorted(ids, key=lambda i: (place[i], i))
    count = sum(place[i] < val for i in ids)
    count = min(
        max(count, 1), len(ids) - 1
    )  # of a few videos, the nearest is moved so that no side is empty
    return {"train": set(ordered[count:]), "valid": set(ordered[:count])}


def _part(data: dict, items: str, owner: str, ids: set[int]) -> dict:
    """The file with these videos alone, in its order."""
    keep = {
        items: [item for item in data[items] if item["id"] in ids],
        "annotations": [entry for entry in data["annotations"] if entry[owner] in ids],
    }
    return data | keep


def _described(part: dict, items: str) -> dict:
    ids = _hash(item["id"] for item in part[items])
    return {items: len(part[items]), "annotations": len(part["annotations"]), "ids_sha256": ids}


def _hash(ids) -> str:
    """SHA-256 of the ids in order, one a line."""
    return hashlib.sha256("\n".join(map(str, sorted(ids))).encode()).hexdigest()


def _missing(data: dict, parts: dict[str, dict]) -> dict[str, list[str]]:
    """Names of the categories that are annotated at all, but not on this side."""
    names = {
        c.get("id"): str(c.get("name")) for c in data.get("categories") or () if isinstance(c, dict)
    }
    used = {
        side: {str(entry.get("category_id")) for entry in part["annotations"]}
        for side, part in parts.items()
    }
    return {
        side: sorted(
            name
            for number, name in names.items()
            if str(number) in set().union(*used.values()) - used[side]
        )
        for side in SIDES
    }


def _write(out: Path, texts: dict[str, str]) -> None:
    """All files, or, when one of them is there with other content, none."""
    for name, text in texts.items():
        if (out / name).exists() and (out / name).read_bytes() != text.encode():
            what = "is there and differs; choose another folder"
            raise FileExistsError(errno.EEXIST, what, str(out / name))
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write_bytes(text.encode())
