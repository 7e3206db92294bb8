"""Measures the shipped models and writes metrics.json beside their weights (some minutes each on two cores).

    python data_samples/measure_weights.py                            every model, 50 clips x 24 frames of the val split
    python data_samples/measure_weights.py --weights shapes-tiny      that one alone
    python data_samples/measure_weights.py --tables                   the tables of README.md, from what was measured

metrics.json holds, for each association (mask, cosine) and T = 1, 3, the video AP and the identities: swaps,
fragmentations, HOTA, IDF1, also per category and difficulty. "consistency" is that of the queries at the distances
1 ... 10, with chance and the number of queries that fit an instance; "frame_share" says how much of Q_G and of the kernels
depends on the frame. No setting changes these two. The same as, for each of the four settings,

    minst data shapes --videos 50 --frames 24 --size 256x192 --split val --seed 0 --out val
    minst eval val --weights shapes-tiny --reuse-interval 3 --association mask --json out.json

"fresh" holds all of it once more, on 50 clips of the test split with a seed that nothing else uses. HOTA and IDF1 need the
extra `track`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from minst.data.shapes import write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.model import MobileInst
from minst.predict import evaluate_folder, write_figures
from minst.samples import weights_folder, weights_for

SETTINGS = [(interval, association) for association in ("mask", "cosine") for interval in (1, 3)]
NAMES = {"mask": "masks (ours)", "cosine": "cosine (the paper's)"}
FRESH = ("test", 60_601)  # no clip, no test and no figure of this project was ever made with this seed


def measure(weights: str, videos: int, split: str, seed: int) -> dict:
    """Figures of every setting, and what does not depend on a setting."""
    model = MobileInst.from_pretrained(weights).fuse()
    said = {"split": split, "seed": seed, "videos": videos, "torch": torch.__version__, "settings": []}
    with tempfile.TemporaryDirectory() as folder:
        write_shapes_dataset(Path(folder) / split, videos, seed=seed, split=split)
        dataset = YouTubeVIS(Path(folder) / split)
        for interval, association in SETTINGS:
            figures = evaluate_folder(dataset, model, interval, association)
            if "note" in figures["identity"]:
                raise SystemExit(figures["identity"]["note"])
            said["consistency"] = figures.pop("consistency")
            said["frame_share"] = figures.pop("frame_share")
            for name in ("per_video", "weights", "folder"):
                figures.pop(name)
            said["settings"].append(figures)
            print(f"{weights}, {split} {seed}, {association}, T = {interval}: {_in_short(figures)}", flush=True)
    return said


def _in_short(figures: dict) -> str:
    identity = figures["identity"]
    scores = {"AP": figures["AP"], "AP50": figures["AP50"], "HOTA": identity["HOTA"], "IDF1": identity["IDF1"]}
    counts = [f"{identity[name]} {name}" for name in ("swaps", "fragmentations")]
    return ", ".join([f"{name} {100 * value:.1f}" for name, value in scores.items()] + counts)


def tables(found: dict) -> str:
    """The tables of README.md: AP and identities by setting, then what the queries do."""
    lines = ["| association | T | AP | AP50 | AP75 | AR10 | HOTA | IDF1 | swaps |", "|---" * 9 + "|"]
    for figures in found["settings"]:
        setting, identity = figures["setting"], figures["identity"]
        row = [NAMES[setting["association"]], setting["reuse_interval"]]
        row += [f"{100 * figures[name]:.1f}" for name in ("AP", "AP50", "AP75", "AR10")]
        row += [f"{100 * identity[name]:.1f}" for name in ("HOTA", "IDF1")] + [identity["swaps"]]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    said = found["consistency"]
    apart = ("1", "2", "3", "5", "10")
    lines += ["", "| frames apart | " + " | ".join(apart) + " |", "|---" * 6 + "|"]
    groups = {"all instances": said, "a query drawn by lot": {"retention": said["chance"]}}
    levels = said["per_difficulty"]
    groups |= {"hardly hidden ones": levels["occlusion"]["low"], "often hidden ones": levels["occlusion"]["high"]}
    groups |= {"slow ones": levels["speed"]["low"], "fast ones": levels["speed"]["high"]}
    for name, group in groups.items():
        kept = [f"{group['retention'][frames]:.3f}" for frames in apart]
        lines.append(f"| {name} | " + " | ".join(kept) + " |")
    share = found["frame_share"]
    lines += ["", f"held {said['held_share']:.3f} of the instances; queries of IoU >= 0.5 per held instance "
              f"{said['holders']:.2f}, with a score of at least 0.3 {said['sure_holders']:.2f}; share of the variance that "
              f"depends on the frame: Q_G {share['global_queries']:.2f}, kernels {share['kernels']:.2f}"]  # fmt: skip
    best = found["settings"][1]["per_category"]
    lines += ["by category, masks, T = 3: " + ", ".join(f"{n} {100 * c['AP']:.0f}" for n, c in best.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=weights_for("easy"), metavar="NAME")
    parser.add_argument("--videos", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="measure nothing: print what stands in metrics.json")
    arguments = parser.parse_args()
    paths = {name: weights_folder(name) / "metrics.json" for name in arguments.weights}  # an unknown name stops here
    for name, path in paths.items():
        if not arguments.tables:
            found = measure(name, arguments.videos, "val", arguments.seed)
            found["fresh"] = measure(name, arguments.videos, *FRESH)
            write_figures(found, path)
            print(f"written: {name}/{path.name}", flush=True)
        found = json.loads(path.read_text())
        for title, part in ((f"{name}, val", found), (f"{name}, fresh clips", found.get("fresh"))):
            if part:
                print(f"\n{title}\n\n{tables(part)}")
