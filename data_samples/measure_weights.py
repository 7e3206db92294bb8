"""Measures a shipped model and writes metrics.json beside its weights (some minutes on two cores).

    python data_samples/measure_weights.py            shapes-tiny on 50 clips x 24 frames of the val split, seed 0

The same as, for each of the four settings,

    minst data shapes --videos 50 --frames 24 --size 256x192 --split val --seed 0 --out val
    minst eval val --weights shapes-tiny --reuse-interval 3 --association mask --json out.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from minst.data.shapes import write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.run import evaluate_model
from minst.model import MobileInst
from minst.samples import weights_folder

SETTINGS = [(interval, association) for association in ("mask", "cosine") for interval in (1, 3)]


def measure(weights: str, videos: int, seed: int) -> dict:
    """Figures of every setting, and the consistency of the queries, which no setting changes."""
    model = MobileInst.from_pretrained(weights).fuse()
    with tempfile.TemporaryDirectory() as folder:
        write_shapes_dataset(Path(folder) / "val", videos, seed=seed, split="val")
        dataset = YouTubeVIS(Path(folder) / "val")
        said = {"split": "val", "seed": seed, "videos": videos, "torch": torch.__version__, "settings": []}
        for interval, association in SETTINGS:
            figures = evaluate_model(model, dataset, interval, association)
            said["consistency"] = figures.pop("consistency")
            figures.pop("per_video")
            said["settings"].append(figures)
            print(association, interval, round(100 * figures["AP"], 2), round(100 * figures["AP50"], 2), flush=True)
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="shapes-tiny")
    parser.add_argument("--videos", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = measure(arguments.weights, arguments.videos, arguments.seed)
    path = weights_folder(arguments.weights) / "metrics.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["consistency"]["retention"]), f"written: {path.name}")
