"""Photographs with masks as two folders in COCO form: one to learn from, one that is held out.

    python data_samples/photos_prepare.py --from PHOTOS --out FOLDER [--categories cat,dog]

PHOTOS holds one folder a source (voc, cats, pets, coco), each with `annotations.json` in COCO form
and `images/`. What is written, outside of this repository:

    FOLDER/train/annotations.json, images/    `minst train --data FOLDER --split train`
    FOLDER/valid/annotations.json, images/    held out: `tests/benchmarks/photos.py` measures on it
    FOLDER/images.tsv                         every image: source, name, SHA-256, split, categories
    FOLDER/duplicates.tsv                     pairs that look alike, and how far apart they are

Images are symbolic links (`--copy`: copies). An image whose entry holds none of the categories is
a negative: it stays, with no annotation. Each entry of an image names its `source`.

split       The first byte of the SHA-256 of "source/file_name": below 32 is held out, an eighth.
duplicates  Two images are near-duplicates if their difference hashes of 256 bits (or that of the
            one and that of the mirrored other) differ in at most 40 bits. Up to 39 bits every pair
            that was looked at is one photograph, taken or edited twice, apart from planes in an
            empty sky; from 52 bits on all 57 pairs across the split that were looked at are
            different photographs. Images to learn from that are near-duplicates of a held-out one
            are left out. A file that stands twice in its source counts once. Besides, the 96 pairs
            across the split that are closest by the features of a MobileNetV2 were looked at: none
            is the same photograph, a few show the same animal at the same place a moment later.
instances   `cats` and `coco` hold true instances. An image of `pets` shows one animal; an image
            without its mask is left out, since it is no negative.
`voc`       has masks of a class, in connected components: touching things are one, and a thing
            behind a bar is two. All 206 images with a cat or a dog were looked at, once, on
            29 November 2026: SEVERAL lists components that hold several animals, or of which that
            is not sure, which become `iscrowd`; of the images in PARTS the components are one
            animal. The other components of cats and dogs are instances. All 353 images with a
            person were looked at, too: `photos_people.tsv` says which components are one person
            each (`0+2` = two parts of one), the others are `iscrowd`. Those of other categories
            nobody has looked at: all of them are `iscrowd`.
unlabelled  `cats` labels cats alone, `pets` cats and dogs alone. All their images were looked at
            for persons: where `photos_people.tsv` names one, a person or a part of one is seen,
            and all of the image but its animals becomes an `iscrowd` region of persons, which
            says that there are some. Of other categories, cars say, their entries list these as
            `not_labelled`: one may well be seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

SOURCES = {  # folder: (what it is, the licence as its source states it, what is labelled)
    "voc": ("PASCAL VOC 2012, class masks", "images under Flickr's terms", None),
    "cats": ("feral-cat segmentation", "public domain, as its author states", {"cat"}),
    "pets": ("Oxford-IIIT Pet, trimaps", "CC BY-SA 4.0", {"cat", "dog"}),
    "coco": ("COCO 2017, small subsets", "annotations CC BY 4.0, images each their own", None),
}
HELD_OUT = 32  # of 256
ALIKE = 40  # bits of 256
SIDE = 16  # of the difference hash
HERE = Path(__file__).resolve().parent
PEOPLE = HERE / "photos_people.tsv"  # source, file name, what was seen

# Components of `voc`, counted in the order of the file, by the first digits of the image's name.
SEVERAL = {
    "005d14": [0], "0e0ee8": [0, 1], "17e13c": [0], "1ea6a6": [0, 1], "26537c": [0, 1, 2, 3],
    "3c3c73": [0], "42b6c5": [0], "59bd11": [0, 1], "6381d4": [1], "6caa95": [0, 1],
    "6e9111": [2, 3], "7d335b": [0], "933857": [0], "a3950d": [0], "b7bbd5": [1],
    "b84bf9": [0, 1], "c8f2ca": [0], "cf0e48": [0], "dbf0a1": [1, 2, 3],
    "ded657": list(range(20)),
}  # fmt: skip
PARTS = (
    "08517e", "100148", "2f2ed8", "3d990b", "4893e1", "4ef59e", "5cf4bd", "797e66", "88bc74",
    "a16cc6", "a2400b", "ab53bc", "c86558", "cd30e6", "dedf5f", "e1d786", "e2a2d8",
)  # fmt: skip


def split_of(source: str, file_name: str) -> str:
    """The half of an image, by its name alone, so that no later choice moves it."""
    digest = hashlib.sha256(f"{source}/{file_name}".encode()).digest()
    return "valid" if digest[0] < HELD_OUT else "train"


def difference_hash(image: Image.Image) -> np.ndarray:
    """(256,) bool: is a pixel of the grey image, 17 x 16, darker than its right neighbour?"""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), int)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def mirrored(bits: np.ndarray) -> np.ndarray:
    """The hashes (M, 256) of the mirrored images, but for neighbours that are equal."""
    return ~bits.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(bits.shape)


def distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(M, N): bits that differ, the smaller number of the images as they are and mirrored."""

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (2 * bits.astype(np.float32) - 1 for bits in (a, b))
        return np.rint((a.shape[1] - a @ b.T) / 2).astype(int)

    return np.minimum(apart(ours, theirs), apart(ours, mirrored(theirs)))


def whole(parts: list[dict]) -> dict:
    """The one animal or person that all these entries show."""
    code = rle.merge([entry["segmentation"] for entry in parts])
    return {**parts[0], "segmentation": {**code, "counts": code["counts"].decode()}}


def seen_people() -> dict[tuple[str, str], str]:
    """{(source, file name): groups of components, `0+2 1`, or `seen`}, from `PEOPLE`."""
    lines = PEOPLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {(source, name): what for source, name, what in rows}


def single_people(components: list[dict], groups: str, file_name: str) -> list[dict]:
    """Persons of `voc`: each group is an instance, and what is in none is a crowd."""
    found = [{**entry, "iscrowd": 1} for entry in components]
    taken: set[int] = set()
    for group in groups.split():
        numbers = {int(number) for number in group.split("+")}
        if taken & numbers or not numbers <= set(range(len(found))):
            raise ValueError(f"{PEOPLE.name}: {file_name}: {groups!r} does not fit {len(found)} parts")
        taken |= numbers
        found.append({**whole([components[k] for k in sorted(numbers)]), "iscrowd": 0})
    return [entry for k, entry in enumerate(found) if k not in taken]


def unlabelled_people(image: dict, animals: list[dict]) -> dict:
    """A crowd of persons: all of the image but its animals."""
    rest = np.ones((image["height"], image["width"]), dtype=np.uint8, order="F")
    for entry in animals:
        rest[rle.decode(entry["segmentation"]) > 0] = 0
    code = rle.encode(rest)
    code["counts"] = code["counts"].decode()
    return {"category": "person", "segmentation": code, "iscrowd": 1}


def instances(image: dict, source: str, entries: list[dict], people: str = "") -> list[dict]:
    """The annotations of an image as instances and crowds: {category, segmentation, iscrowd}.

    entries: those of the file that are of a chosen category, with their name as `category`.
    people: what was seen of persons; "" where nobody looked, or where none are asked for.
    """
    found = [{key: e[key] for key in ("category", "segmentation", "iscrowd")} for e in entries]
    if source != "voc":
        return found + [unlabelled_people(image, found)] if people else found
    digits = image["file_name"].removeprefix("voc-")[:6]
    animals = [entry for entry in found if entry["category"] in ("cat", "dog")]
    persons = [entry for entry in found if entry["category"] == "person"]
    for number, entry in enumerate(animals):
        entry["iscrowd"] = int(number in SEVERAL.get(digits, ()))
    others = [{**entry, "iscrowd": 1} for entry in found if entry not in animals + persons]
    if digits in PARTS and len(animals) > 1:
        if len({entry["category"] for entry in animals}) > 1:
            text = "its parts are of two categories, not of one animal"
            raise ValueError(f"{image['file_name']}: {text}")
        animals = [whole(animals)]
    return animals + single_people(persons, people, image["file_name"]) + others


def read_source(folder: Path, source: str, chosen: list[str]) -> list[dict]:
    """The images of one source, each {source, file_name, width, height, annotations, ...}."""
    content = json.loads((folder / source / "annotations.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    entries_of: dict[int, list[dict]] = {}
    for entry in content["annotations"]:
        entries_of.setdefault(entry["image_id"], []).append(
            {**entry, "category": names[entry["category_id"]]}
        )
    labelled = SOURCES[source][2]
    seen = seen_people() if "person" in chosen else {}
    images: dict[str, dict] = {}
    for image in content["images"]:
        entries = entries_of.get(image["id"], [])
        if labelled and not entries:
            continue  # its mask is missing
        wanted = [entry for entry in entries if entry["category"] in chosen]
        images[image["file_name"]] = {
            "source": source,
            "file_name": image["file_name"],
            "width": image["width"],
            "height": image["height"],
        }
        people = seen.get((source, image["file_name"]), "")
        of_image = images[image["file_name"]]
        of_image["annotations"] = instances(image, source, wanted, people)
        if unknown := labelled and set(chosen) - labelled - {"person"}:
            of_image["not_labelled"] = sorted(unknown)
    return list(images.values())


def near_duplicates(images: list[dict], hashes: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs (i, j, bits that differ), i < j, closest first."""
    apart = distances(hashes, hashes)
    pairs = np.argwhere(np.triu(apart <= ALIKE, 1))
    return sorted((int(i), int(j), int(apart[i, j])) for i, j in pairs)


def write_split(folder: Path, photos: Path, images: list[dict], chosen: list[str], copy: bool):
    """One folder in COCO form."""
    (folder / "images").mkdir(parents=True)
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(chosen, 1)]
    for number, image in enumerate(images, 1):
        annotations = image["annotations"]
        content["images"].append(
            {"id": number} | {key: image[key] for key in image if key != "annotations"}
        )
        for entry in annotations:
            code = entry["segmentation"]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1 + chosen.index(entry["category"]),
                    "segmentation": code,
                    "area": int(rle.area(code)),
                    "bbox": rle.toBbox(code).tolist(),
                    "iscrowd": entry["iscrowd"],
                }
            )
        there = photos / image["source"] / "images" / image["file_name"]
        here = folder / "images" / image["file_name"]
        shutil.copyfile(there, here) if copy else here.symlink_to(there.resolve())
    text = json.dumps(content)
    (folder / "annotations.json").write_text(text + "\n", encoding="utf-8")


def listed(images: list[dict], photos: Path) -> str:
    """The list of the data, which can be shown: names and hashes, no picture."""
    lines = [f"# {name}: {what}; {licence}" for name, (what, licence, _) in SOURCES.items()]
    lines.append("source\tfile_name\tsha256\tsplit\tcategories")
    for image in images:
        path = photos / image["source"] / "images" / image["file_name"]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        seen = ",".join(sorted({entry["category"] for entry in image["annotations"]})) or "-"
        lines.append("\t".join([image["source"], image["file_name"], digest, image["split"], seen]))
    return "\n".join(lines) + "\n"


def prepare(photos: Path, out: Path, chosen: list[str], copy: bool = False) -> dict:
    """Write everything; how many images and instances of which kind there are."""
    if out.exists():
        raise FileExistsError(f"{out} is there already; name another folder, or remove it")
    images = [image for source in SOURCES for image in read_source(photos, source, chosen)]
    bits = []
    for image in images:
        with Image.open(photos / image["source"] / "images" / image["file_name"]) as picture:
            bits.append(difference_hash(picture))
        image["split"] = split_of(image["source"], image["file_name"])
    pairs = near_duplicates(images, np.array(bits))
    across = [pair for pair in pairs if len({images[i]["split"] for i in pair[:2]}) == 2]
    for i in {i for pair in across for i in pair[:2] if images[i]["split"] == "train"}:
        images[i]["split"] = "left out"
    for split in ("train", "valid"):
        of_split = [image for image in images if image["split"] == split]
        write_split(out / split, photos, of_split, chosen, copy)
    (out / "images.tsv").write_text(listed(images, photos), encoding="utf-8")
    lines = [f"{images[i]['file_name']}\t{images[j]['file_name']}\t{n}" for i, j, n in pairs]
    (out / "duplicates.tsv").write_text("\n".join(["a\tb\tbits", *lines]) + "\n", encoding="utf-8")
    counts: dict = {"near-duplicates": len(pairs), "across the split": len(across)}
    for split in ("train", "valid", "left out"):
        of_split = [image for image in images if image["split"] == split]
        counts[split] = {"images": len(of_split)}
        counts[split]["negatives"] = sum(not image["annotations"] for image in of_split)
        entries = [entry for image in of_split for entry in image["annotations"]]
        for name in chosen:
            mine = [entry["iscrowd"] for entry in entries if entry["category"] == name]
            counts[split][name] = {"instances": mine.count(0), "crowds": mine.count(1)}
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--categories", default="cat,dog", help="separated by commas")
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")
    said = parser.parse_args()
    print(json.dumps(prepare(said.photos, said.out, said.categories.split(","), said.copy)))


if __name__ == "__main__":
    main()
