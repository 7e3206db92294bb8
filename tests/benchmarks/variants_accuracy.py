"""What 8-bit weights and channels-last cost and give: accuracy on the val split, milliseconds and megabytes, in one run.

    python tests/benchmarks/variants_accuracy.py                  20 clips x 24 frames of the val split (some 15 minutes)
    python tests/benchmarks/variants_accuracy.py --videos 50      as data_samples/measure_weights.py

Beyond the paper's setting. All variants see the same clips (mask association, T = 3; one thread) and are timed in
turns on one real frame: a key frame, and a frame between key frames. Megabytes are those of the weights (eager) or of
key.onnx. Writes variants_accuracy.json beside this file.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from variants import VARIANTS, int8_programs, linear_share, make_variant  # beside this file

from minst.data.shapes import write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.environment import environment
from minst.mobile.export import export
from minst.mobile.programs import real_frames
from minst.mobile.runtime import ExportedModel
from minst.model import MobileInst
from minst.predict import evaluate_folder

SIZE = (192, 256)


def measure(weights: str, videos: int, rounds: int, seed: int = 0) -> dict:
    """{"variants": {name: {"key_ms", "reuse_ms", "mb", "AP", "AP50", "swaps", "fragmentations"}}, and the setting."""
    torch.set_num_threads(1)
    plain = MobileInst.from_pretrained(weights)
    share = linear_share(plain, SIZE)
    with tempfile.TemporaryDirectory() as folder:
        models, megabytes = _models(plain, Path(folder))
        rows = {
            name: {**times, "mb": megabytes[name]} for name, times in _times(models, rounds).items()
        }
        write_shapes_dataset(Path(folder) / "val", videos, seed=seed, split="val")
        dataset = YouTubeVIS(Path(folder) / "val")
        for name, model in models.items():
            figures = evaluate_folder(dataset, model, 3, "mask")
            identity = {key: figures["identity"][key] for key in ("swaps", "fragmentations")}
            rows[name] |= {"AP": figures["AP"], "AP50": figures["AP50"], **identity}
            print(f"{name}: {rows[name]}", flush=True)
    return {"weights": weights, "size": list(SIZE), "split": "val", "videos": videos, "seed": seed, "rounds": rounds,
            "threads": 1, "torch": torch.__version__, "cpu": environment()["cpu"], "linear_share": share,
            "variants": rows}  # fmt: skip


def _models(plain: MobileInst, folder: Path) -> tuple[dict, dict[str, float]]:
    """Everything that a tracker takes, by name, and megabytes."""
    models = {"float32": copy.deepcopy(plain).fuse()}
    models |= {name: make_variant(plain, name) for name in VARIANTS}
    megabytes = {name: _weights_mb(model) for name, model in models.items()}
    export(plain, "onnx", folder / "onnx", SIZE)
    int8_programs(folder / "onnx", folder / "onnx-int8")
    for name in ("onnx", "onnx-int8"):
        models[name] = ExportedModel(folder / name)
        megabytes[name] = (folder / name / "key.onnx").stat().st_size / 1e6
    return models, megabytes


def _weights_mb(model: MobileInst) -> float:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell() / 1e6


@torch.inference_mode()
def _times(models: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of a key frame (everything) and of a frame between key frames, in turns."""
    frame, kernels = real_frames(SIZE, 1), {}
    ms = {name: {"key_ms": [], "reuse_ms": []} for name in models}
    for i in range(3 + rounds):
        names = list(models)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            model, start = models[name], time.perf_counter()
            kernels[name] = model.encode(frame).out.kernels
            middle = time.perf_counter()
            model.encode(frame).masks(kernels[name])
            ms[name]["key_ms"].append(1e3 * (middle - start))
            ms[name]["reuse_ms"].append(1e3 * (time.perf_counter() - middle))
    return {
        name: {key: median(values[3:]) for key, values in row.items()} for name, row in ms.items()
    }


def _print(result: dict) -> None:
    print(
        f"\n{'':14}"
        + "".join(
            f"{heading:>9}" for heading in ("key ms", "reuse ms", "MB", "AP", "AP50", "swaps")
        )
    )
    for name, row in result["variants"].items():
        print(
            f"{name:14}{row['key_ms']:9.1f}{row['reuse_ms']:9.1f}{row['mb']:9.1f}"
            f"{100 * row['AP']:9.1f}{100 * row['AP50']:9.1f}{row['swaps']:9}"
        )
    print(
        f"{result['weights']}, {result['videos']} clips; linear layers: {result['linear_share']:.1%} of the MACs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="shapes-tiny")
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", default=Path(__file__).with_suffix(".json"), type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.weights, arguments.videos, arguments.rounds)
    _print(found)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
