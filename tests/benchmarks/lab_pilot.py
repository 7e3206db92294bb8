"""The pilot of the grid (results/lab/PLAN.md): three rows with a seed that the grid does not use. Goes on where it was stopped.

    python tests/benchmarks/lab_pilot.py [--out runs/lab-pilot]

Prints the figures and the core-seconds that the plan has places for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

from minst.lab import runs
from minst.lab.grid import FULL, metrics_of

SEED, ROWS = 100, ("full", "passing=shared", "passing=off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/lab-pilot"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    runs._claim(out, FULL)
    with contextlib.chdir(out):
        runs._work(runs._jobs(ROWS, range(SEED, SEED + 1), FULL, "cpu"))
    for name in ROWS:
        file = metrics_of(out, name, SEED)
        metrics = json.loads(file.read_text())
        last = json.loads(file.with_name("log.jsonl").read_text().splitlines()[-1])
        steps = FULL.iterations if name == "full" else FULL.further
        print(name, {figure: round(100 * values[0], 1) for figure, values in metrics["figures"].items()})
        seconds = steps * last["seconds_per_iteration"], metrics["seconds"]
        print("    seconds of training and of measuring:", *(round(each) for each in seconds))


if __name__ == "__main__":
    main()
