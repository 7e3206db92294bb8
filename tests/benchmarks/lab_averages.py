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
from minst.lab.grid import VARIANTS
from minst.lab.measure import of_frames
from minst.lab.results import Lab, Row
from minst.lab.runs import Run

FIGURES = ("image AP", "dice", "class")


def of_last_weights(run: Run) -> dict[str, float]:
    """Points of the weights after the last step of a run."""
    model = decoders.load(run.folder / "weights", VARIANTS[run.variant].decoder)
    held = torch.load(run.folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(held["model"])
    found = of_frames(model.eval().fuse(), COCO(run.lab / "data" / f"frames-{run.seed}"))
    return {name: round(100 * found[name].value, 2) for name in FIGURES}


def of_average(row: Row, seed: int) -> dict[str, float]:
    """Points of the average, as the lab measured them."""
    return {name: round(row.values(name)[seed], 2) for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lab", type=Path)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="names of folders, full-1 say")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    found = json.loads(args.out.read_text()) if args.out.is_file() else {}
    rows = Lab(args.lab).rows
    for run in (Run(args.lab, name, seed) for name, row in rows.items() for seed in row.runs):
        wanted = run.name in args.runs if args.runs else not VARIANTS[run.variant].start
        if not wanted or run.name in found or not (run.folder / "checkpoint.pt").is_file():
            continue
        found[run.name] = {"average": of_average(rows[run.variant], run.seed), "last": of_last_weights(run)}
        with replacing(args.out) as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n")
    print(f"| run | {' | '.join(f'{name}: average, last' for name in FIGURES)} |")
    print("|---|" + "---|" * len(FIGURES))
    for name, said in found.items():
        print(f"| {name} | " + " | ".join(f"{said['average'][k]:.1f}, {said['last'][k]:.1f}" for k in FIGURES) + " |")


if __name__ == "__main__":
    main()
