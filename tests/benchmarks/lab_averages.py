"""What a lab's figures would be without the moving average of the weights: those of the last step.

    python tests/benchmarks/lab_averages.py LAB [RUN ...] --out FILE

Image AP, dice and class loss of the last weights of runs (default: all trained from a backbone), on the frames that judged their average.
A run needs its checkpoint and the clips of its seed. FILE (JSON) holds points by run; what stands in it already is kept. Prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from minst.data.coco import COCO
from minst.data.files import replacing
from minst.engine import keep_memory
from minst.lab import decoders
from minst.lab.grid import VARIANTS, metrics_of
from minst.lab.measure import of_frames
from minst.lab.results import Lab

FIGURES = ("image AP", "dice", "class")


def of_last_weights(lab: Path, variant: str, seed: int) -> dict[str, float]:
    """Points of the weights after the last step of a run."""
    folder = metrics_of(lab, variant, seed).parent
    model = decoders.load(folder / "weights", VARIANTS[variant].decoder)
    held = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(held["model"])
    found = of_frames(model.eval().fuse(), COCO(lab / "data" / f"frames-{seed}"))
    return {name: round(100 * float(found[name][0]), 2) for name in FIGURES}


def of_average(lab: Lab, variant: str, seed: int) -> dict[str, float]:
    """Points of the average, as the lab measured them."""
    return {name: round(lab.values(variant, name)[seed], 2) for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lab", type=Path)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names of folders, full-1 say")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    lab = Lab(args.lab)
    for variant, seed in ((variant, seed) for variant, runs in lab.rows.items() for seed in runs):
        name, checkpoint = f"{variant}-{seed}", metrics_of(args.lab, variant, seed).with_name("checkpoint.pt")
        wanted = name in args.runs if args.runs else not VARIANTS[variant].start
        if not wanted or name in found or not checkpoint.is_file():
            continue
        found[name] = {"average": of_average(lab, variant, seed), "last": of_last_weights(args.lab, variant, seed)}
        with replacing(args.out) as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n")
    print(f"| run | {' | '.join(f'{name}: average, last' for name in FIGURES)} |")
    print("|---|" + "---|" * len(FIGURES))
    for name, said in found.items():
        print(f"| {name} | " + " | ".join(f"{said['average'][k]:.1f}, {said['last'][k]:.1f}" for k in FIGURES) + " |")


if __name__ == "__main__":
    main()
