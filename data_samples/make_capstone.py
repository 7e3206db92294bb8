"""Makes capstone/ of this folder, the sample set of lesson 10: a creature that no shipped weights have seen.

    python data_samples/make_capstone.py     then `make_samples.py --sums`

    capstone/labelled/<moment>/<frame>.jpg, .json   12 frames of four moments, every creature outlined, as by hand in labelme
    capstone/clip.mp4                               3 s to track
    capstone/clip_truth/annotations.json            what it shows, in YouTube-VIS form: never to be trained on

The ninth creature is a crab. It is no part of `minst.data.shapes`: there the eight categories and all clips stay as they
are. Seeds were chosen by eye, before anything was trained: the moments among 24 scenes (crabs in several colours and poses,
some in two parts), the clip among 220 (two crabs that meet a leaf and a turtle and come apart again). JPEG and JSON are the
same bit for bit with the same Pillow; the bits of the MP4 also depend on its encoder and on the number of CPU cores.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from contourpy import contour_generator
from PIL import Image
from pycocotools import mask as rle

from minst.data import shapes
from minst.data.creatures import CREATURES, Creature, clip01, cut, disc, ellipse, limb, union
from minst.data.video import write_mp4

HERE = Path(__file__).resolve().parent
FPS = 8

# a leg: hip, knee, foot, and which of them step together
_LEGS = (
    ((0.45, 0.05), (0.98, 0.02), (1.16, 0.32), 1.0),
    ((0.4, 0.3), (0.82, 0.46), (0.94, 0.8), -1.0),
    ((0.25, 0.4), (0.5, 0.7), (0.5, 1.0), 1.0),
)


def crab(u, v, sin, cos):
    """It walks sideways: its width lies along u, where it goes; its claws point to -v."""
    a = np.abs(u)  # the right half is the left half, but for the moment of its step
    side = np.where(u > 0, 1.0, -1.0).astype(np.float32)
    step, lift = (0.09 * sin) * side, (0.07 * cos) * side
    body = ellipse(u, v, 0.0, 0.06, 0.78, 0.56)
    legs = []
    for (hx, hy), (kx, ky), (fx, fy), sign in _LEGS:
        w = v - sign * step * clip01((a - hx) * 4)  # the hip stays
        legs += [limb(a, w, hx, hy, kx, ky, 0.15, 0.12), limb(a, w, kx, ky, fx, fy, 0.12, 0.05)]
    legs, w = union(*legs), v - lift * clip01((a - 0.5) * 4)
    arms = limb(a, w, 0.5, -0.15, 0.86, -0.5, 0.15, 0.13)
    claws = cut(ellipse(a, w, 0.78, -0.84, 0.33, 0.36), -limb(a, w, 0.62, -0.9, 0.48, -1.3, 0.02, 0.2))
    stalks, eyes = limb(a, v, 0.2, -0.35, 0.22, -0.6, 0.07, 0.07), disc(a, v, 0.22, -0.64, 0.13)
    return union(body, legs, arms, claws, eyes, stalks), (
        (union(legs, stalks), "deep"), (union(arms, claws), "base"), (body, "base"), (cut(body + 0.07, 0.34 - v), "mark"),
        (eyes, "light"), (disc(a, v, 0.23, -0.67, 0.075), "dark"))  # fmt: skip


CRAB = Creature(crab, (1.25, 1.3), 3.0)
NAMES = (*CREATURES, "crab")
OFTEN = (*CREATURES, *["crab"] * 8)  # every second creature

# moment -> seed, frames; and the clip's seed
MOMENTS = {"beach": (103, (2, 5, 8)), "bay": (114, (2, 5, 8)), "meadow": (275, (2, 5, 8)), "night": (100, (2, 5, 8))}
CLIP = 278


@contextlib.contextmanager
def nine_creatures() -> Iterator[None]:
    """Within this block the generator of shapes knows the crab too."""
    with mock.patch.multiple(shapes, CREATURES={**CREATURES, "crab": CRAB}, CATEGORIES=NAMES):
        yield


def scene(seed: int) -> shapes.ShapesClip:
    """A clip of 24 frames whose creatures are crabs every second time; draw it within `nine_creatures`."""
    config = shapes.ShapesConfig(min_instances=3, max_instances=4, category=OFTEN, speed=0.9)
    return shapes.ShapesClip(config, seed, 0)


def outlines(mask: np.ndarray, tolerance: float = 0.9) -> list[list[list[float]]]:
    """Polygons [[x, y], ...] around the parts of a mask (H, W) bool, as a careful hand would click them; no holes."""
    lines = contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5)
    rings = [np.round(_fewer(line - 0.5, tolerance), 1) for line in lines]  # a pixel's middle lies at + 0.5
    return [ring.tolist() for ring in rings if _area(ring) >= 12]  # a hole goes round the other way: less than 0


def _area(ring: np.ndarray) -> float:
    (x, y), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    return float(np.sum(x * y1 - x1 * y)) / 2


def _fewer(points: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed line with fewer points, none of the others further than `tolerance` from it (Douglas and Peucker)."""
    keep = np.zeros(len(points), bool)
    far = int(np.abs(points - points[0]).sum(1).argmax())
    keep[[0, far]] = True
    parts = [(0, far), (far, len(points) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        way, steps = points[last] - points[first], points[first + 1 : last] - points[first]
        length = np.sqrt((way * way).sum())
        off = np.abs(way[0] * steps[:, 1] - way[1] * steps[:, 0]) / length if length else np.sqrt((steps**2).sum(1))
        if off.max() > tolerance:
            at = first + 1 + int(off.argmax())
            keep[at] = True
            parts += [(first, at), (at, last)]
    return points[keep]


def labelme(name: str, masks: np.ndarray, labels: np.ndarray) -> dict:
    """What labelme writes for one frame: a polygon for each visible part; `group_id` is the creature's number."""
    polygons = [
        {
            "label": NAMES[label],
            "points": points,
            "group_id": i + 1,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for i, (mask, label) in enumerate(zip(masks, labels))
        for points in outlines(mask)
    ]
    height, width = masks.shape[1:]
    return {"version": "5.5.0", "flags": {}, "shapes": polygons, "imagePath": name, "imageData": None,
            "imageHeight": height, "imageWidth": width}  # fmt: skip


def write_labelled(folder: Path) -> None:
    """Four folders of three frames, .jpg and .json."""
    for moment, (seed, times) in MOMENTS.items():
        clip = scene(seed)
        (folder / moment).mkdir(parents=True, exist_ok=True)
        for t in times:
            frame, path = clip.render(t), folder / moment / f"{t:05d}.jpg"
            Image.fromarray(frame.image).save(path, quality=90)
            text = json.dumps(labelme(path.name, frame.masks, clip.labels), indent=1)
            path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def write_clip(folder: Path) -> None:
    """clip.mp4, and clip_truth/annotations.json in YouTube-VIS form, without frames."""
    clip = scene(CLIP)
    frames = [clip.render(t) for t in range(len(clip))]
    write_mp4((frame.image for frame in frames), folder / "clip.mp4", FPS)
    size = {"height": clip.config.height, "width": clip.config.width}
    tracks = []
    for i, label in enumerate(clip.labels.tolist()):
        codes = [rle.encode(np.asfortranarray(f.masks[i], np.uint8)) if f.masks[i].any() else None for f in frames]
        tracks.append({
            "id": i + 1, "video_id": 1, "category_id": label + 1, "iscrowd": 0, "length": len(frames), **size,
            "segmentations": [c and {"size": list(c["size"]), "counts": c["counts"].decode()} for c in codes],
            "bboxes": [c and rle.toBbox(c).tolist() for c in codes], "areas": [c and int(rle.area(c)) for c in codes],
        })  # fmt: skip
    video = {"id": 1, "length": len(frames), **size, "file_names": [f"clip/{t:05d}.jpg" for t in range(len(frames))]}
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    truth = {"info": {"description": "minst capstone clip", "version": "1.0"}, "videos": [video],
             "categories": categories, "annotations": [track for track in tracks if any(track["areas"])]}  # fmt: skip
    (folder / "clip_truth").mkdir(parents=True, exist_ok=True)
    (folder / "clip_truth" / "annotations.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")


def main(folder: Path = HERE / "capstone") -> None:
    with nine_creatures():
        write_labelled(folder / "labelled")
        write_clip(folder)


if __name__ == "__main__":
    main()
