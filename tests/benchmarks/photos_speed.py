"""Frames per second on one core, and memory: photos-tiny beside YOLO11n-seg, in one run.

    python tests/benchmarks/photos_speed.py WEIGHTS [--rounds 40 --out speed.json]

Ultralytics is AGPL-3.0 and no dependency of minst: it is imported here alone, by `rivals.py`, and
has to be installed into an environment of its own, beside minst. Its network is built from its own
description with random weights, since time does not depend on them; it has 80 classes.

Both networks take a frame of 320 x 256, since a height of 240 is no multiple of what either needs
and both pad it. All are fused, eager, float32, one thread. Each round times every network once, in
turning order, so that a busy machine disturbs all alike: a ratio is the median over rounds.

network    ours with the masks of all queries at 1/8; YOLO's up to boxes, scores, mask coefficients
           and prototypes, without suppression and without masks, which flatters it
reuse      ours on a frame that reuses the kernels of a key frame: backbone, mask decoder, masks
track      what `minst track` does with a frame of 320 x 240: seen at the size of the training,
           every third a key frame, masks enlarged to the frame and encoded; of YOLO there is no
           such figure, since random weights find nothing to suppress or draw
memory     the most that a process of its own has held, in MB, and how much of it came after the
           imports: with the network and 20 frames
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from rivals import build, giga_macs, measure

from minst.model import MobileInst
from minst.predict import track_frame
from minst.tracking import KernelTracker

RIVAL = "yolo11n-seg"
FRAME, PADDED = (240, 320), (256, 320)


def peak() -> float:
    """The most that this process has held, in MB. (Linux: `getrusage` counts its parent, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def load(name: str) -> torch.nn.Module | None:
    """The rival by its name; ours by the folder of its weights."""
    return build(name) if name == RIVAL else MobileInst.from_pretrained(name).fuse()


def reusing(model: MobileInst, frames: Tensor) -> Callable[[Tensor], Tensor]:
    """A frame between two key frames: kernels of the five surest queries on new mask features."""
    with torch.inference_mode():
        key = model.encode(frames)
        best = key.out.scores()[0].amax(-1).topk(5).indices
        kernels = key.out.kernels[:, best]
    return lambda frame: model.encode(frame).masks(kernels)


def tracking(model: MobileInst) -> Callable[[Tensor], object]:
    """A frame of `minst track`; it takes its own picture, of 320 x 240."""
    tracker = KernelTracker(model, score_threshold=0.1)
    picture = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), dtype=np.uint8)
    return lambda frame: track_frame(tracker, picture)


def memory(name: str) -> dict:
    """{peak, after_imports} in MB, of a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, name, "--memory"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def say_memory(name: str) -> None:
    """What the process of its own prints."""
    torch.rand(1, 3, *PADDED)
    if name == RIVAL:
        import ultralytics.nn.tasks  # noqa: F401 (its imports are no part of the model)
    before = peak()
    model = load(name)
    with torch.inference_mode():
        for _ in range(20):
            model(torch.rand(1, 3, *PADDED))
    print(json.dumps({"peak": peak(), "after_imports": peak() - before}))


def table(found: dict) -> str:
    """Markdown."""
    lines = ["| | frames a second | ms, median | ms, least | CPU ms, median | times of ours |"]
    lines.append("|---|---|---|---|---|---|")
    for name, of in found["models"].items():
        cells = [f"{1000 / of['ms']:.0f}", f"{of['ms']:.1f}", f"{of['ms_least']:.1f}"]
        cells += [f"{of['cpu_ms']:.1f}", f"{of['ratio']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| | parameters | GMACs at 320 x 256 | MB at most | of these after imports |"]
    lines.append("|---|---|---|---|---|")
    for name, of in found["sizes"].items():
        cells = [f"{of['parameters'] / 1e6:.2f} M", f"{of['giga_macs']:.2f}"]
        cells += [f"{of['memory']['peak']:.0f}", f"{of['memory']['after_imports']:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    said = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if said.memory:
        return say_memory(said.weights)
    ours, rival = load(said.weights), load(RIVAL)
    label = Path(said.weights).name
    frames = torch.rand(1, 3, *PADDED)
    networks = {label: ours} | ({RIVAL: rival} if rival is not None else {})
    timed = {f"{name}, network": network for name, network in networks.items()}
    timed |= {f"{label}, reuse": reusing(ours, frames), f"{label}, track": tracking(ours)}
    macs = {name: giga_macs(network, frames) for name, network in networks.items()}
    times = measure(timed, frames, said.rounds)
    first = times[f"{label}, network"]["wall"]
    found: dict = {
        "setting": {
            "frame": FRAME, "padded": PADDED, "trained_size": ours.trained_size,
            "rounds": said.rounds, "threads": 1, "torch": torch.__version__,
            "machine": platform.machine(), "load": os.getloadavg()[0],
        },
        "models": {
            name: {
                "ms": median(of["wall"]), "ms_least": min(of["wall"]), "cpu_ms": median(of["cpu"]),
                "ratio": median(a / b for a, b in zip(of["wall"], first)),
            }
            for name, of in times.items()
        },
        "sizes": {
            name: {
                "parameters": sum(p.numel() for p in network.parameters()),
                "giga_macs": macs[name],
                "memory": memory(RIVAL if name == RIVAL else said.weights),
            }
            for name, network in networks.items()
        },
    }  # fmt: skip
    if said.out:
        said.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
