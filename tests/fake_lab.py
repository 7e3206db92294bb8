"""A lab that nobody ran: metrics of every variant, drawn at random around a quality, to test what reads them."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from minst.lab.matches import ROW, Matches
from minst.lab.grid import SMOKE, VARIANTS
from minst.lab.measure import settings

CLIPS, KINDS = 12, 4


def matches(rng: np.random.Generator, quality: float) -> Matches:
    """Three instances a clip, found with probability `quality` at IoU 0.5 and less above; some false positives."""
    rows, instances = [], np.zeros((CLIPS, KINDS), dtype=int)
    for clip in range(CLIPS):
        for kind in rng.integers(KINDS, size=3):
            instances[clip, kind] += 1
            right = int(rng.random() < quality) * int(rng.integers(1, 11))
            rows.append((clip, kind, rng.uniform(0.3, 1) if right else rng.uniform(0, 0.8), (1 << right) - 1))
        rows += [(clip, rng.integers(KINDS), rng.uniform(0, 0.6), 0) for _ in range(3)]
    return Matches(np.array(rows, dtype=ROW), instances)


def pairs(rng: np.random.Generator, quality: float) -> list[list[int]]:
    """Kept, and of how many, 1, 3 and 10 frames on."""
    of = rng.integers(20, 40, size=(CLIPS, 3))
    return np.stack([(of * max(quality, 0)).astype(int), of], axis=2).reshape(CLIPS, 6).tolist()


def metrics(variant: str, seed: int, quality: float) -> dict:
    rng = np.random.default_rng([seed, *variant.encode()])
    image, rows = matches(rng, quality), []
    for setting in settings(variant):
        speed = {"slow": 0.05, "medium": 0.0, "fast": -0.1}[setting.speed]
        found = matches(rng, quality + speed - (0.015 * setting.value if setting.by != "adaptive" else 0.02))
        counts = {"AP": 0.1, "AP50": 0.2, "keys": 60, "frames": 96, "moved": 5, "associated": 100}
        rows.append({**setting._asdict(), **counts, **found.to_dict(), "pairs": pairs(rng, quality)})
    found = {
        "version": 1, "variant": variant, "seed": seed, "budget": "smoke", "torch": "2.12.1", "loss": 1.0,
        "model": {"params": 1_800_000, "macs": 72_000_000}, "seconds_per_iteration": 0.2,
        "image": {"AP": 0.1, **image.to_dict()}, "settings": rows,
        "consistency": {"distances": [1, 3, 10], "pairs": pairs(rng, quality)},
    }  # fmt: skip
    if variant == "full":
        times = {f"{s.by} {s.value:g}": {"key": 12.0, "other": 9.0} for s in settings("full")}
        found["milliseconds"] = times
    return found


def shipped(name: str) -> dict:
    return metrics("images", 0, 0.7) | {"variant": name}


def write(
    folder: Path, seeds: int = 3, names=tuple(VARIANTS), quality=lambda name: 0.8 if name == "full" else 0.6
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    grid = [dataclasses.asdict(variant) for variant in VARIANTS.values()]
    held = {"version": 1, "budget": dataclasses.asdict(SMOKE), "grid": grid}
    (folder / "lab.json").write_text(json.dumps(held))
    for name in names:
        for seed in range(seeds):
            run = folder / f"{name}-{seed}"
            run.mkdir(exist_ok=True)
            (run / "train.json").write_text("{}")
            (run / "metrics.json").write_text(json.dumps(metrics(name, seed, quality(name))))
    (folder / "shipped").mkdir(exist_ok=True)
    (folder / "shipped" / "shapes-tiny.json").write_text(json.dumps(shipped("shapes-tiny")))
    return folder
