"""What glibc's malloc costs a frame, and a step of training: the default, and one that keeps its memory, in turns.

    python tests/benchmarks/malloc_faults.py --preset topformer-tiny --size 640 --rounds 20

Where the default gives memory back depends on what lies at the top of the heap: of equal processes some pay for
thousands of page faults a frame and some for none, at small sizes. So there are several of each kind, and the page
faults of each are told apart. Frames go through the model as it is (eager) and with batch norms folded (fused); a step
is one of `minst train` for shapes, with half of its pairs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from statistics import mean, median

import torch

from minst.data.batches import ClipBatches, ShapesTraining
from minst.mobile.programs import settled_model
from minst.mobile.timing import milliseconds, page_faults, turns
from minst.training import TrainConfig, start, step

KEEP = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "4294967296"}
WARM_UP = 3  # rounds not counted
MODELS = ("eager", "fused", "step")


def measure(preset: str, size: int, rounds: int, processes: int) -> dict:
    """{kind of malloc: {model: {"median_ms", "faults": a frame, of each process}}}."""
    untouched = {
        k: v for k, v in os.environ.items() if k not in (*KEEP, "GLIBC_TUNABLES", "LD_PRELOAD")
    }
    kinds = {"default": untouched, "tuned": {**untouched, **KEEP}}
    command = [sys.executable, __file__, "--preset", preset, "--size", str(size), "--child"]
    children = []  # (kind, process, what it said in each round)
    with ExitStack() as stack:
        for kind, env in processes * list(kinds.items()):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            child = stack.enter_context(subprocess.Popen(command, env=env, **pipes))
            stack.callback(child.kill)
            children.append((kind, child, []))
        for _, child, said in turns(children, WARM_UP + rounds):
            child.stdin.write("\n")
            child.stdin.flush()
            said.append(json.loads(child.stdout.readline()))
    found = {}
    for kind in kinds:
        laps = [said[WARM_UP:] for name, _, said in children if name == kind]
        found[kind] = {
            model: {
                "median_ms": median(lap[model][0] for said in laps for lap in said),
                "faults": [mean(lap[model][1] for lap in said) for said in laps],
            }
            for model in MODELS
        }
    return found


def answer(preset: str, size: int) -> None:
    """In a process of its own: for every line that comes in, each once; {model: [ms, page faults]} goes out."""
    torch.set_num_threads(1)
    frame, plain = torch.rand(1, 3, size, size), settled_model(preset)
    fused = copy.deepcopy(plain).fuse()
    config = TrainConfig(pairs=4)
    state, batch = start(config), ClipBatches(config, ShapesTraining(0))[0]
    jobs = {"eager": lambda: plain(frame), "fused": lambda: fused(frame)}
    jobs = {name: torch.inference_mode()(job) for name, job in jobs.items()}
    jobs["step"] = lambda: step(state, [batch], 0, config)
    for _ in sys.stdin:
        said = {}
        for name, job in jobs.items():
            before = page_faults()
            said[name] = milliseconds(job), page_faults() - before
        print(json.dumps(said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="topformer-tiny")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=3, help="of each kind")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return answer(given.preset, given.size)
    if platform.libc_ver()[0] != "glibc":
        sys.exit("the allocator in question is glibc's, which this system does not use")
    found = measure(given.preset, given.size, given.rounds, given.processes)
    for model in MODELS:
        default, tuned = (found[kind][model] for kind in ("default", "tuned"))
        faults = [", ".join(f"{count:.0f}" for count in row["faults"]) for row in (default, tuned)]
        print(
            f"{model}: {default['median_ms']:.2f} ms ({faults[0]} page faults a frame), tuned {tuned['median_ms']:.2f} "
            f"({faults[1]}): the default costs {default['median_ms'] / tuned['median_ms'] - 1:+.0%}"
        )


if __name__ == "__main__":
    main()
