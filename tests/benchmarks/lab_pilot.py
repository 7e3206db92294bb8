"""The pilot of the grid (results/lab/PLAN.md): three rows with a seed that the grid does not use. Goes on where it was stopped.

    python tests/benchmarks/lab_pilot.py [--out runs/lab-pilot]

Prints the figures and the core-seconds that the plan has places for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minst.lab import runs
from minst.lab.grid import FULL
from minst.lab.runs import Run

SEED, ROWS = 100, ("full", "passing=shared", "passing=off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/lab-pilot"))
    out = parser.parse_args().out
    pilot = [Run(out, name, SEED) for name in ROWS]
    with runs._alone(out) as lock:
        runs._claim(out, FULL)
        if todo := runs._jobs(out, [], pilot):
            runs._write_clips(out / "data", FULL, todo)
            runs._work(todo, 1, (out, "cpu", lock))
    for run in pilot:
        metrics = json.loads((run.folder / "metrics.json").read_text())
        steps = FULL.further if run.variant != "full" else FULL.iterations
        print(run.name, {name: round(100 * figure["value"], 1) for name, figure in metrics["figures"].items()})
        seconds = steps * metrics["seconds of a step"], metrics["seconds of measuring"]
        print("    seconds of training and of measuring:", *(round(each) for each in seconds))


if __name__ == "__main__":
    main()
