"""Measures the shipped models and writes metrics.json beside their weights (some minutes each on two cores).

    python data_samples/measure_weights.py                            every model, 50 clips x 24 frames of the val split
    python data_samples/measure_weights.py --weights shapes-tiny      that one alone

metrics.json holds, for each association (mask, cosine) and T = 1, 3, the video AP and the identities: swaps,
fragmentations, HOTA, IDF1, also per category and difficulty. "consistency" is that of the queries at the distances
1 ... 10, also per category and difficulty; no setting changes it. The same as, for each of the four settings,

    minst data shapes --videos 50 --frames 24 --size 256x192 --split val --seed 0 --out val
    minst eval val --weights shapes-tiny --reuse-interval 3 --association mask --json out.json

HOTA and IDF1 need the extra `track`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from minst.data.shapes import write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.run import evaluate_model, write_figures
from minst.model import MobileInst
from minst.samples import weights_folder, weights_names

SETTINGS = [(interval, association) for association in ("mask", "cosine") for interval in (1, 3)]


def measure(weights: str, dataset: YouTubeVIS, seed: int) -> dict:
    """Figures of every setting, and the consistency of the queries."""
    model = MobileInst.from_pretrained(weights).fuse()
    said = {"split": "val", "seed": seed, "videos": len(dataset), "torch": torch.__version__, "settings": []}
    for interval, association in SETTINGS:
        figures = evaluate_model(model, dataset, interval, association)
        if "note" in figures["identity"]:
            raise SystemExit(figures["identity"]["note"])
        said["consistency"] = figures.pop("consistency")
        figures.pop("per_video")
        said["settings"].append(figures)
        print(f"{weights}, {association}, T = {interval}: {_in_short(figures)}", flush=True)
    return said


def _in_short(figures: dict) -> str:
    identity = figures["identity"]
    scores = {"AP": figures["AP"], "AP50": figures["AP50"], "HOTA": identity["HOTA"], "IDF1": identity["IDF1"]}
    counts = [f"{identity[name]} {name}" for name in ("swaps", "fragmentations")]
    return ", ".join([f"{name} {100 * value:.1f}" for name, value in scores.items()] + counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=weights_names(), metavar="NAME")
    parser.add_argument("--videos", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    paths = {name: weights_folder(name) / "metrics.json" for name in arguments.weights}  # an unknown name stops here
    with tempfile.TemporaryDirectory() as folder:
        write_shapes_dataset(Path(folder) / "val", arguments.videos, seed=arguments.seed, split="val")
        dataset = YouTubeVIS(Path(folder) / "val")
        for name, path in paths.items():
            found = measure(name, dataset, arguments.seed)
            write_figures(found, path)
            retention = ", ".join(f"{k}: {100 * share:.1f}" for k, share in found["consistency"]["retention"].items())
            print(f"{name}, retention over {retention}; written: {name}/{path.name}", flush=True)
