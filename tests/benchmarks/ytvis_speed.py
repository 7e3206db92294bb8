"""How much faster is `minst.evaluation.evaluate_ytvis` than the straightforward double loop? And are they equal?

    python tests/benchmarks/ytvis_speed.py [--videos 50 --predictions 100 --frames 24 --size 256x192 --categories 8]

The straightforward one merges the masks of every pair of tracks frame by frame and leaves the rest to pycocotools'
COCOeval as it stands. Both get the same objects in memory; ours also checks them and adds the figures per category and
per video, so the ratio understates the gain. Processor time, best of `--repeat` runs in turn, because other work on the
machine disturbs less that way. The more predictions share a category with objects of their video, the more pairs there
are to compare and the greater the gain: the fewer `--categories`, the greater. Exits with 1 if the figures differ.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).parents[2]))
from minst.evaluation import FIGURES, evaluate_ytvis  # noqa: E402
from minst.evaluation.coco import figures  # noqa: E402


class DoubleLoop(COCOeval):
    """The reference: the protocol in its plainest form, trusting its input."""

    def __init__(self, gt: dict, results: list):
        super().__init__(iouType="segm")
        self.gt, self.results = gt, results
        self.params.imgIds = sorted(v["id"] for v in gt["videos"])
        self.params.catIds = sorted(c["id"] for c in gt["categories"])
        self.params.areaRng = [[0, 1e5**2], [0, 128**2], [128**2, 256**2], [256**2, 1e5**2]]

    def _prepare(self):
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for a in self.gt["annotations"]:
            areas = [x for x in a["areas"] if x]
            extra = {"ignore": a["iscrowd"], "area": np.mean(areas) if areas else 0}
            self._gts[a["video_id"], a["category_id"]].append(a | extra)
        for i, r in enumerate(self.results):
            areas = [mask_utils.area(s) for s in r["segmentations"] if s]
            areas = [x for x in areas if x]
            extra = {"id": i + 1, "area": np.mean(areas) if areas else 0}
            self._dts[r["video_id"], r["category_id"]].append(r | extra)

    def computeIoU(self, imgId, catId):  # noqa: N802, N803
        gts, dts = self._gts[imgId, catId], self._dts[imgId, catId]
        dts = sorted(dts, key=lambda d: -d["score"])[: self.params.maxDets[-1]]
        return np.array([[self.iou(d["segmentations"], g["segmentations"]) for g in gts] for d in dts])

    @staticmethod
    def iou(p, g):
        both = either = 0.0
        for a, b in zip(p, g, strict=True):
            if a and b:
                both += mask_utils.area(mask_utils.merge([a, b], True))
                either += mask_utils.area(mask_utils.merge([a, b], False))
            elif a or b:
                either += mask_utils.area(a or b)
        return both / either if either else 0.0

    def run(self) -> dict:
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()
        return figures(self.eval["precision"], self.eval["recall"])


def wobbly(rng, frames, height, width, centre, velocity, radii, gone=0.1):
    """A track: an ellipse with a wavy rim that moves through the picture, absent in some frames."""
    reach = np.ceil(1.2 * radii).astype(int)
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    rim = 1 + 0.15 * np.sin(rng.integers(2, 7) * np.arctan2(y, x) + rng.uniform(0, 6.3))
    shape = np.hypot(y / radii[0], x / radii[1]) < rim
    canvas = np.zeros((height + 2 * len(y), width + 2 * len(y[0])), dtype=np.uint8, order="F")
    track = []
    for t in range(frames):
        corner = (centre + t * velocity).astype(int) + shape.shape - reach
        top, left = np.clip(corner, 0, np.subtract(canvas.shape, shape.shape))
        canvas[top : top + len(shape), left : left + len(shape[0])] = shape
        mask = canvas[len(y) : len(y) + height, len(y[0]) : len(y[0]) + width]
        track.append(None if rng.random() < gone else mask_utils.encode(np.asfortranarray(mask)))
        canvas[top : top + len(shape), left : left + len(shape[0])] = 0
    return track


def make(videos=50, predictions=100, frames=24, height=192, width=256, categories=4, seed=0):
    rng = np.random.default_rng(seed)
    gt = {"videos": [], "annotations": [], "categories": [{"id": c + 1, "name": f"c{c}"} for c in range(categories)]}
    results = []
    for v in range(1, videos + 1):
        gt["videos"].append({"id": v, "height": height, "width": width, "length": frames})
        shapes = []
        for _ in range(rng.integers(2, 7)):
            shape = dict(
                centre=rng.uniform(0.2, 0.8, 2) * (height, width),
                velocity=rng.normal(0, 2, 2),
                radii=rng.uniform(0.08, 0.2, 2) * height,
            )
            category = int(rng.integers(categories)) + 1
            shapes.append((shape, category))
            track = wobbly(rng, frames, height, width, **shape)
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]) + 1,
                    "video_id": v,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentations": track,
                    "areas": [None if s is None else int(mask_utils.area(s)) for s in track],
                }
            )
        for _ in range(predictions):  # near one of the objects, its category in half of the cases
            shape, category = shapes[rng.integers(len(shapes))]
            near = {key: v * rng.normal(1, 0.06, 2) for key, v in shape.items()}
            category = category if rng.random() < 0.5 else int(rng.integers(categories)) + 1
            track = wobbly(rng, frames, height, width, **near)
            results.append(
                {"video_id": v, "category_id": category, "score": float(rng.random()), "segmentations": track}
            )
    for track in gt["annotations"] + results:  # text, as in a file
        for s in track["segmentations"]:
            if s:
                s["counts"], s["size"] = s["counts"].decode(), list(map(int, s["size"]))
    return gt, results


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("videos", 50), ("predictions", 100), ("frames", 24), ("categories", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size", default="256x192", help="width x height")
    args = parser.parse_args(argv)
    width, height = map(int, args.size.split("x"))
    gt, results = make(args.videos, args.predictions, args.frames, height, width, args.categories)

    fast, slow = [], []
    for _ in range(args.repeat):
        start = time.process_time()
        ours = evaluate_ytvis(gt, results)
        middle = time.process_time()
        reference = DoubleLoop(gt, results).run()
        fast.append(middle - start)
        slow.append(time.process_time() - middle)
    gap = max(abs(ours[name] - reference[name]) for name in FIGURES)
    ratio = min(slow) / min(fast)
    print(f"double loop {min(slow):.2f} s, evaluate_ytvis {min(fast):.2f} s: {ratio:.1f} times as fast")
    print(f"AP {ours['AP']:.4f}; largest difference of the 12 figures {gap:.1e}")
    return 0 if gap <= 1e-9 else 1


if __name__ == "__main__":
    raise SystemExit(main())
