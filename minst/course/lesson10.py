"""Lesson 10: polygons, classes of category ids, split by video, what is submitted, linear scaling.

`plant_defect` is no verdict: it breaks a data set in one place, for a student to find.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from operator import itemgetter, mul, truediv
from pathlib import Path

import numpy as np

from minst.course.verdict import Verdict, judge, plain_text
from minst.data.files import read_image, read_json
from minst.labels.convert.common import polygon_mask

__all__ = ["class_ids", "linear_scaling", "polygon_area", "top_entries", "validation_frames"]


def polygon_area(answer: Callable) -> Verdict:
    """polygon_area(points (corners, 2)) -> float: the area within; the last joins the first."""

    def terms(points):
        (x, y), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
        return x * y1 - x1 * y

    def polygon_area(points):
        return abs(terms(points).sum()) / 2

    def covered(points, size=(130, 160)):
        """Pixels whose middle lies within: crossed an odd number of times on the way out."""
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        (ax, ay), (bx, by) = points.T[..., None, None], np.roll(points, -1, 0).T[..., None, None]
        crosses = (ay > y) != (by > y)
        beyond = ((y - ay) * (bx - ax) - (x - ax) * (by - ay)) * (by - ay) > 0
        return (crosses & beyond).sum(0) % 2

    sides = itertools.cycle((1, -1))  # every other polygon goes round the other way

    def draw(rng):
        turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 12))) * next(sides)
        reach = rng.uniform(5, 40, len(turn))  # a star, seen from its middle
        return (np.stack([100 + reach * np.cos(turn), 80 + reach * np.sin(turn)], 1),)

    mistakes = [
        "If the corners go the other way round, the sum is negative: take its absolute value.",
        lambda points: terms(points).sum() / 2,
        "Each term is the area of a parallelogram; the triangles are half of it.",
        lambda points: 2 * polygon_area(points),
        "The last corner joins the first: that side is missing (np.roll gives the next corners).",
        lambda points: abs(terms(points)[:-1].sum()) / 2,
        "This is the area of the box around the polygon.",
        lambda points: np.ptp(points, axis=0).prod(),
        "A count of pixels comes near. Give the area itself, since an outline cuts through pixels.",
        lambda points: covered(points).sum(),
        lambda points: polygon_mask(points, (130, 160), "polygon").sum(),
        "This is the length of the outline, not the area within it.",
        lambda points: np.hypot(*np.diff(points, axis=0, append=points[:1]).T).sum(),
    ]
    return judge(answer, polygon_area, draw, mistakes, rounds=10)


def class_ids(answer: Callable) -> Verdict:
    """class_ids(categories: [{"id", "name"}]) -> ({file's id: class}, [id of class 0, ...])."""

    def class_ids(categories):
        back = [category["id"] for category in categories]
        return {number: k for k, number in enumerate(back)}, back

    def forward(wrong):
        """wrong(file's ids) in the place of the dict."""
        return lambda categories: (wrong(class_ids(categories)[1]), class_ids(categories)[1])

    def draw(rng):
        ids = rng.choice(np.arange(1, 91), rng.integers(5, 9), replace=False).tolist()
        names = rng.permutation(["crab", "fish", "leaf", "snail", "turtle", "bee", "mouse", "owl"])
        return ([{"id": number, "name": name} for number, name in zip(ids, names.tolist())],)

    mistakes = [
        "Ids have gaps (COCO's 80 categories go up to 90): id - 1 needs rows that nobody fills.",
        forward(lambda ids: {number: number - 1 for number in ids}),
        "The order is that of the file, which need not be that of the ids.",
        lambda categories: class_ids(sorted(categories, key=itemgetter("id"))),
        "The order is that of the file; lists of several years differ, so do not sort by name.",
        lambda categories: class_ids(sorted(categories, key=itemgetter("name"))),
        "The dict is turned round: its keys are the file's ids, its values the classes.",
        forward(lambda ids: dict(enumerate(ids))),
        "The keys are the file's ids, which the entries of results name too, not the names.",
        lambda all: ({of["name"]: k for k, of in enumerate(all)}, class_ids(all)[1]),
        "The way back lists ids, class by class, not the names.",
        lambda categories: (class_ids(categories)[0], [each["name"] for each in categories]),
        "The way back lists the ids in the order of their classes; here they are sorted.",
        lambda categories: (class_ids(categories)[0], sorted(class_ids(categories)[1])),
        "Classes count from 0: class k is row k of the class head.",
        forward(lambda ids: {number: k for k, number in enumerate(ids, start=1)}),
    ]
    return judge(answer, class_ids, draw, mistakes, rounds=8)


def validation_frames(answer: Callable) -> Verdict:
    """validation_frames(frames: ["video/frame.jpg"], seed, val) -> those of the validation side."""

    def place(text, order="big"):
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], order) / 2**64

    def seeded_video(frame, seed):
        return f"{seed}:{frame.split('/')[0]}"

    def validation_frames(frames, seed, val, text=seeded_video, place=place):
        return [frame for frame in frames if place(text(frame, seed)) < val]

    def draw(rng):
        names = ["bay", "beach", "dune", "meadow", "night", "pond", "reef", "street"]
        videos = [(name, rng.integers(3, 6)) for name in rng.permutation(names)]
        frames = [f"{name}/{t:05d}.jpg" for name, count in videos for t in range(count)]
        return frames, rng.integers(1000), rng.uniform(0.3, 0.6)

    mistakes = [
        "Frames of one video land on both sides: hash the name of the video, not of the frame.",
        partial(validation_frames, text=lambda frame, seed: f"{seed}:{frame}"),
        'The seed is not used: another seed gives another split, so hash the text "seed:video".',
        partial(validation_frames, text=lambda frame, seed: frame.split("/")[0]),
        "Python's hash of a text differs from process to process, and so would the split: SHA-256.",
        partial(validation_frames, place=lambda text: hash(text) % 2**64 / 2**64),
        "The bytes are read in the other order: big-endian, the first byte weighs most.",
        partial(validation_frames, place=partial(place, order="little")),
        "This is the training side: validation is where the number is less than val.",
        lambda frames, *how: [f for f in frames if f not in validation_frames(frames, *how)],
        "These are videos; return their frames, as they are named in the list.",
        lambda *given: [*dict.fromkeys(name.split("/")[0] for name in validation_frames(*given))],
        "The first frames of the list: their order decides then, and a video is cut in two.",
        lambda frames, seed, val: frames[: round(val * len(frames))],
    ]

    return judge(answer, validation_frames, draw, mistakes, rounds=10, view=plain_text)


def top_entries(answer: Callable) -> Verdict:
    """top_entries(results, limit) -> the best `limit` of each video, best first, ids rising."""

    def score(entry):
        return -entry["score"]

    def top_entries(results, limit, groups=("video_id",), order=score):
        kept = {}
        for entry in sorted(results, key=order):
            kept.setdefault(tuple(entry[key] for key in groups), []).append(entry)
        return [entry for _, own in sorted(kept.items()) for entry in own[:limit]]

    def of_each_category(results, limit):
        kept = top_entries(results, limit, groups=("video_id", "category_id"))
        return top_entries(kept, len(results))

    def draw(rng):
        count, names = rng.integers(30, 40), ("video_id", "category_id", "score")
        scores = rng.permutation(np.arange(1, 100))[:count] / 100  # all different
        rows = zip(*rng.integers(1, 4, (2, count)).tolist(), scores.tolist())
        return [dict(zip(names, row)) for row in rows], rng.integers(3, 6)

    mistakes = [
        "These are the best of all videos together; the limit holds for each video.",
        partial(top_entries, groups=()),
        "The limit holds for a video, whatever the categories of its entries.",
        of_each_category,
        partial(top_entries, groups=("video_id", "category_id")),
        partial(top_entries, groups=("category_id",)),
        "The worst entries are kept. Sort by falling score.",
        partial(top_entries, order=lambda entry: entry["score"]),
        "The first of each video are kept, as they stand: sort by score before the cut.",
        partial(top_entries, order=lambda entry: 0),
        "These are right, but in another order. Videos come by rising id, the best entry first.",
        lambda results, limit: sorted(top_entries(results, limit), key=score),
    ]
    return judge(answer, top_entries, draw, mistakes, rounds=8)


def linear_scaling(answer: Callable) -> Verdict:
    """linear_scaling(lr, iterations, batch, per_gpu, gpus, accumulate) -> (lr, iterations)."""

    def linear_scaling(lr, n, batch, each, gpus, parts, power=1.0, steps=truediv, whole=round):
        times = each * gpus * parts / batch
        return lr * times**power, whole(steps(n, times))

    def draw(rng):
        sizes = rng.choice([1, 3, 5]), rng.choice([2, 3, 6]), rng.choice([2, 4, 7])
        return rng.choice([1e-4, 2e-4, 5e-5]), rng.integers(10, 271) * 1000, 16, *sizes

    mistakes = [
        "Linear, not the square root: twice the batch, twice the learning rate.",
        partial(linear_scaling, power=0.5),
        "The other way round: a larger batch is a surer direction, so take larger steps.",
        partial(linear_scaling, power=-1),
        "Every GPU has a share of its own: multiply by their number.",
        lambda lr, n, batch, each, gpus, parts: linear_scaling(lr, n, batch, each, 1, parts),
        "Accumulated parts belong to the same step: multiply by their number.",
        lambda lr, n, batch, each, gpus, parts: linear_scaling(lr, n, batch, each, gpus, 1),
        "A larger batch sees more images in as many iterations: keep iterations * batch the same.",
        partial(linear_scaling, steps=lambda iterations, times: iterations),
        "A number of iterations is whole: round it to the nearest.",
        partial(linear_scaling, whole=float),
        partial(linear_scaling, whole=math.floor),
        partial(linear_scaling, whole=math.ceil),
        "A larger batch needs fewer iterations for the same number of images.",
        partial(linear_scaling, steps=mul),
    ]
    tolerance = 1e-9  # a learning rate is a small number
    return judge(answer, linear_scaling, draw, mistakes, rounds=10, tolerance=tolerance)


def plant_defect(folder: str | Path, which: int = 0) -> None:
    """Break the data set in `folder` (annotations.json, JPEGImages/) in one place, 0 to 3."""
    file = Path(folder) / "annotations.json"
    data = read_json(file)
    track = data["annotations"][len(data["annotations"]) // 2]
    if which == 0:  # a chat program made a picture smaller
        from PIL import Image

        name = data["videos"][-1]["file_names"][1]
        path = Path(folder) / "JPEGImages" / name
        image = Image.fromarray(read_image(path))
        image.resize((image.width // 2, image.height // 2)).save(path)
    elif which == 1:  # a frame was taken out of the video, but not of this track
        track["segmentations"] = track["segmentations"][:-1]
    elif which == 2:  # two people numbered their tracks
        track["id"] = data["annotations"][0]["id"]
    else:  # a category was deleted from the list
        track["category_id"] = 1 + max(category["id"] for category in data["categories"])
    file.write_text(json.dumps(data), encoding="utf-8")
