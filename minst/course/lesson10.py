"""Lesson 10: area of a polygon, classes of category ids, split by video, what is submitted, linear scaling.

`plant_defect` is no verdict: it breaks a data set in one place, for a student to find.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minst.course.verdict import Mistake, Verdict, judge
from minst.data.files import read_image, read_json

__all__ = ["class_ids", "linear_scaling", "polygon_area", "top_entries", "validation_frames"]


def polygon_area(answer: Callable) -> Verdict:
    """polygon_area(points (P, 2)) -> float: pixels within a polygon whose last corner joins the first."""

    def doubled(points, closed=True):
        (x, y), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
        return (x * y1 - x1 * y)[: None if closed else -1].sum()

    def polygon_area(points):
        return float(abs(doubled(points)) / 2)

    sides = itertools.cycle((1, -1))  # every other polygon goes round the other way

    def draw(rng):
        turn = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 12)))) * next(sides)
        reach = rng.uniform(5, 40, len(turn))  # a star seen from its middle: no side crosses another
        return (np.stack([100 + reach * np.cos(turn), 80 + reach * np.sin(turn)], 1),)

    return judge(
        answer,
        polygon_area,
        draw,
        [
            Mistake(
                lambda p: doubled(p) / 2,
                "Clicked the other way round, the same polygon has a negative sum: take the absolute value at the end.",
            ),
            Mistake(
                lambda p: abs(doubled(p)), "Each term is the area of a parallelogram; the triangles are half of it."
            ),
            Mistake(
                lambda p: abs(doubled(p, closed=False)) / 2,
                "The last corner joins the first: that side is missing (np.roll gives every corner its next one).",
            ),
            Mistake(lambda p: np.ptp(p, axis=0).prod(), "This is the area of the box around the polygon."),
            Mistake(
                lambda p: np.sqrt((np.diff(p, axis=0, append=p[:1]) ** 2).sum(1)).sum(),
                "This is the length of the outline, not what lies within it.",
            ),
        ],
        rounds=10,
    )


def class_ids(answer: Callable) -> Verdict:
    """class_ids(categories: [{"id", "name"}]) -> ({file's id: class}, [file's id of class 0, 1, ...])."""

    def class_ids(categories):
        back = [category["id"] for category in categories]
        return {number: k for k, number in enumerate(back)}, back

    def by(key):
        return lambda categories: class_ids(sorted(categories, key=lambda category: category[key]))

    def draw(rng):
        ids = rng.choice(np.arange(1, 91), int(rng.integers(5, 9)), replace=False).tolist()
        names = rng.permutation(["crab", "fish", "leaf", "snail", "turtle", "bee", "mouse", "owl"]).tolist()
        return ([{"id": number, "name": name} for number, name in zip(ids, names)],)

    return judge(
        answer,
        class_ids,
        draw,
        [
            Mistake(
                lambda categories: ({c["id"]: c["id"] - 1 for c in categories}, [c["id"] for c in categories]),
                "Ids have gaps (COCO's 80 categories go up to 90): id - 1 would need rows that nobody fills.",
            ),
            Mistake(by("id"), "The order is that of the file, which need not be that of the ids."),
            Mistake(
                by("name"), "The order is that of the file; lists of several years differ, so do not sort by name."
            ),
            Mistake(
                lambda categories: (dict(enumerate(class_ids(categories)[1])), class_ids(categories)[1]),
                "The dict is turned round: its keys are the file's ids, its values the classes.",
            ),
            Mistake(
                lambda categories: ({n: k + 1 for n, k in class_ids(categories)[0].items()}, class_ids(categories)[1]),
                "Classes count from 0: class k is row k of the class head.",
            ),
        ],
        rounds=8,
    )


def validation_frames(answer: Callable) -> Verdict:
    """validation_frames(frames: ["video/frame.jpg"], seed, val) -> those of the validation side, in their order."""

    def place(text):
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64

    def chosen(text, after=False):
        def frames_of(frames, seed, val):
            return [f for f in frames if (place(text(f, seed)) < val) != after]

        return frames_of

    def video(frame, seed):
        return f"{seed}:{frame.split('/')[0]}"

    reference = chosen(video)

    def draw(rng):
        videos = rng.choice(["bay", "beach", "dune", "meadow", "night", "pond", "reef", "street"], 8, replace=False)
        frames = [f"{name}/{t:05d}.jpg" for name in videos for t in range(int(rng.integers(3, 6)))]
        return frames, int(rng.integers(0, 1000)), float(rng.uniform(0.3, 0.6))

    return judge(
        answer,
        reference,
        draw,
        [
            Mistake(
                chosen(lambda frame, seed: f"{seed}:{frame}"),
                "Frames of one video land on both sides: hash the name of the video, never that of the frame.",
            ),
            Mistake(
                chosen(lambda frame, seed: video(frame, seed).split(":")[1]),
                'The seed is not used: hash the text "seed:video", so that another seed gives another split.',
            ),
            Mistake(
                chosen(video, after=True), "This is the training side: validation is where the number is less than val."
            ),
            Mistake(
                lambda frames, seed, val: frames[: round(val * len(frames))],
                "The first frames of the list: their order decides then, and a video is cut in two.",
            ),
        ],
        exercise="validation_frames",
        rounds=10,
    )


def top_entries(answer: Callable) -> Verdict:
    """top_entries(results: [{"video_id", "category_id", "score"}], limit) -> best `limit` of each video, best first."""

    def best(results, limit, groups=("video_id",), sign=-1):
        kept, places = [], [tuple(entry[key] for key in groups) for entry in results]
        for group in sorted(set(places)):
            own = [entry for entry, place in zip(results, places) if place == group]
            kept += sorted(own, key=lambda entry: sign * entry["score"])[:limit]
        return kept

    def top_entries(results, limit):
        return best(results, limit)

    def draw(rng):
        count = int(rng.integers(30, 40))
        scores = rng.permutation(np.arange(1, 100))[:count] / 100  # all different
        return [
            {"video_id": int(v), "category_id": int(c), "score": float(s)}
            for v, c, s in zip(rng.integers(1, 4, count), rng.integers(1, 4, count), scores)
        ], int(rng.integers(3, 6))

    return judge(
        answer,
        top_entries,
        draw,
        [
            Mistake(
                lambda results, limit: sorted(results, key=lambda entry: -entry["score"])[:limit],
                "These are the best of all videos together; the limit holds for each video.",
            ),
            Mistake(
                lambda results, limit: best(best(results, limit, ("video_id", "category_id")), 10**6),
                "The limit holds for a video, whatever the categories of its entries.",
            ),
            Mistake(lambda results, limit: best(results, limit, sign=1), "The worst are kept: sort by falling score."),
            Mistake(
                lambda results, limit: best(results, limit, sign=0),
                "The first of each video are kept, as they stand: sort by score before the cut.",
            ),
            Mistake(
                lambda results, limit: sorted(best(results, limit), key=lambda entry: -entry["score"]),
                "The right ones, in another order: video by video, ids rising, and the best first within a video.",
            ),
        ],
        rounds=8,
    )


def linear_scaling(answer: Callable) -> Verdict:
    """linear_scaling(lr, iterations, recipe_batch, per_gpu, gpus, accumulate) -> (lr, iterations) for that machine."""

    def scaled(power=1.0, with_gpus=True, with_parts=True, same_length=False, longer=False):
        def linear_scaling(lr, iterations, recipe_batch, per_gpu, gpus, accumulate):
            batch = per_gpu * (gpus if with_gpus else 1) * (accumulate if with_parts else 1)
            times = batch / recipe_batch
            steps = iterations * times if longer else iterations / times
            return lr * times**power, iterations if same_length else round(steps)

        return linear_scaling

    def draw(rng):
        sizes = int(rng.choice([1, 3, 5])), int(rng.choice([2, 3, 6])), int(rng.choice([2, 4, 7]))
        return float(rng.choice([1e-4, 2e-4, 5e-5])), int(rng.integers(10, 271)) * 1000, 16, *sizes

    return judge(
        answer,
        scaled(),
        draw,
        [
            Mistake(scaled(power=0.5), "Linear, not the square root: twice the batch, twice the learning rate."),
            Mistake(
                scaled(power=-1), "The other way round: a larger batch is a surer direction, so take larger steps."
            ),
            Mistake(scaled(with_gpus=False), "Every GPU has a share of its own: multiply by their number."),
            Mistake(scaled(with_parts=False), "Accumulated parts belong to the same step: multiply by their number."),
            Mistake(
                scaled(same_length=True),
                "As many iterations with a larger batch see more images: keep images, iterations * batch, the same.",
            ),
            Mistake(scaled(longer=True), "A larger batch needs fewer iterations for the same number of images."),
        ],
        exercise="linear_scaling",
        rounds=10,
        tolerance=1e-9,  # a learning rate is a small number
    )


def plant_defect(folder: str | Path, which: int = 0) -> None:
    """Break the data set in `folder` (annotations.json, JPEGImages/) in one place, as it happens; which: 0 to 3."""
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
