"""What losses on enlarged masks cost: time and memory of a training step by the size of a target's cell.

    python tests/benchmarks/enlarged_losses.py                  shapes-tiny, 192 x 256, 8 pairs; some 3 minutes
    python tests/benchmarks/enlarged_losses.py --rounds 2 --steps 3

Each round runs every stride in a process of its own, one after the other, on the same batches; ratios are to stride 8, which
compares masks at the resolution of the mask logits.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

STRIDES = (8, 4, 2, 1)


def measure(stride: int, steps: int) -> dict[str, float]:
    """Median seconds of a step, and the process's largest memory in MiB."""
    import torch

    from minst import training
    from minst.data.batches import ClipBatches, ShapesTraining

    torch.set_num_threads(1)
    config = training.TrainConfig(target_stride=stride)
    state, batches = training.start(config), ClipBatches(config, ShapesTraining(0))
    times = []
    for i in range(steps + 1):
        batch = batches[i]
        start = time.perf_counter()
        training.step(state, [batch], i, config)
        times.append(time.perf_counter() - start)
    # the first step also allocates
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(times[1:]), "MiB": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--stride", type=int, help=argparse.SUPPRESS)  # a process of its own
    arguments = parser.parse_args()
    if arguments.stride:
        print(json.dumps(measure(arguments.stride, arguments.steps)))
        return
    found: dict[int, list[dict]] = {stride: [] for stride in STRIDES}
    for _ in range(arguments.rounds):
        for stride in STRIDES:
            command = [sys.executable, __file__, "--stride", str(stride), "--steps", str(arguments.steps)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[stride].append(json.loads(said.splitlines()[-1]))
    print("target_stride  seconds  ratio   MiB  ratio")
    for stride, rounds in found.items():
        seconds, memory = (statistics.median(r[what] for r in rounds) for what in ("seconds", "MiB"))
        slower = statistics.median(r["seconds"] / b["seconds"] for r, b in zip(rounds, found[8]))
        larger = statistics.median(r["MiB"] / b["MiB"] for r, b in zip(rounds, found[8]))
        print(f"{stride:13d}  {seconds:7.3f}  {slower:5.2f}  {memory:5.0f}  {larger:5.2f}")


if __name__ == "__main__":
    main()
