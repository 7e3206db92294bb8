"""What a step of the paper's recipes costs at full resolution on this machine: images a second, memory, GPU busy.

    python tests/benchmarks/recipe_steps.py [--config coco] [--pairs 1] [--steps 6] [--json FILE]

Data: 640x480 images (or clips) of shapes in COCO (YouTube-VIS) form, written to a temporary folder. Each variant runs in
a process of its own; ratios are to the first, in the same run: fp32, bf16, bf16 with checkpointed activations. The first
two steps warm up and are not counted. GPU busy is nvidia-smi's utilisation, sampled twice a second.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean, median

VARIANTS = {
    "fp32": {"precision": "fp32"},
    "fp32, checkpointing": {"precision": "fp32", "checkpointing": True},
    "bf16": {"precision": "bf16"},
    "bf16, checkpointing": {"precision": "bf16", "checkpointing": True},
}
WARM = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="coco")
    parser.add_argument("--pairs", type=int, default=1, help="a step sees twice as many images")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", default=None)
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_data(arguments, Path(folder) / "data")
        for name, changes in VARIANTS.items():
            given = {**vars(arguments), "folder": folder, "changes": changes}
            done = subprocess.run(
                [sys.executable, __file__, "--child", json.dumps(given)], capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            rows[name] = json.loads(done.stdout.splitlines()[-1])
    first = next(iter(rows.values()))
    print(f"{arguments.config}, {2 * arguments.pairs} images a step, {first['device']}")
    print(f"{'':22}{'images/s':>10}{'ratio':>8}{'memory GiB':>12}{'ratio':>8}{'GPU busy':>10}")
    for name, row in rows.items():
        speed, memory = (row[key] / first[key] for key in ("images_per_s", "memory_gib"))
        busy = "-" if row["gpu_busy"] is None else f"{row['gpu_busy']:.0f} %"
        print(f"{name:22}{row['images_per_s']:10.2f}{speed:8.2f}{row['memory_gib']:12.2f}{memory:8.2f}{busy:>10}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), "rows": rows}, indent=1) + "\n")


def _write_data(arguments: argparse.Namespace, out: Path) -> None:
    from minst.data.shapes import ShapesConfig, write_shapes_dataset

    images = arguments.config == "coco"
    config = ShapesConfig(width=640, height=480, frames=8)
    write_shapes_dataset(out, 32 if images else 8, config, split="train", images=images)


def _child(given: dict) -> None:
    """Train for a few steps and print what it took, as one line of JSON."""
    import torch

    from minst import training
    from minst.recipes import recipe

    fields = {k: v for k, v in {**given["changes"], "pairs": given["pairs"], "threads": given["threads"]}.items()}
    config = recipe(given["config"], data=f"{given['folder']}/data", split="", out=f"{given['folder']}/run",
                    iterations=given["steps"], workers=2, save_every=10**6, **fields)  # fmt: skip
    times, busy, step = [], [], training.step

    def timed(*args):
        start = time.perf_counter()
        losses = step(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        return losses

    training.step = timed
    ended = threading.Event()
    if torch.cuda.is_available():
        threading.Thread(target=_watch, args=(ended, busy), daemon=True).start()
    start = time.perf_counter()
    training.train(config, resume=False)
    ended.set()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "device": device, "images_per_s": 2 * config.pairs / median(times[WARM:]), "memory_gib": memory / 2**30,
        "gpu_busy": mean(busy) if busy else None, "seconds_in_all": time.perf_counter() - start,
    }))  # fmt: skip


def _watch(ended: threading.Event, busy: list[float]) -> None:
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    while not ended.wait(0.5):
        busy.append(float(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(json.loads(sys.argv[2]))
    else:
        main()
