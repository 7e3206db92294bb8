"""A lab that nobody ran: metrics of every row, drawn at random around a quality, to test what reads them."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from minst.lab.grid import SHIPPED, SMOKE, VARIANTS
from minst.lab.measure import FIGURES, pairs
from minst.lab.statistics import GROUPS


def figure(rng: np.random.Generator, value: float) -> list[float]:
    value = float(np.clip(value, 0, 3))
    return [value, *np.clip(value + rng.normal(0, 0.002, GROUPS), 0, 3).tolist()]


def metrics(variant: str, seed: int, quality: float) -> dict:
    """Figures near `quality`; what a seed is lucky by is the same for all variants."""
    rng, luck = np.random.default_rng([seed, *variant.encode()]), np.random.default_rng(seed).normal(0, 0.05)
    found = {name: figure(rng, quality + luck + rng.normal(0, 0.005)) for name in FIGURES}
    return {
        "version": 3, "commit": "abc", "torch": "2.12.1", "variant": variant, "seed": seed, "macs": 72_000_000,
        "seconds": 60.0, "figures": {name: each if "AP" in name else each[:1] for name, each in found.items()},
    }  # fmt: skip


def shipped(name: str, speed: str) -> dict:
    rng = np.random.default_rng([len(name), *speed.encode()])
    names = dict.fromkeys(setting for pair in pairs(name, speed).values() for setting in pair)
    found = {s: figure(rng, 0.6 - 0.01 * int(s.split()[1]) - 0.2 * s.startswith("none")) for s in names}
    macs = {"backbone": 60, "mask_decoder": 30, "instance_decoder": 5, "masks": 5, "total": 100}
    return metrics(name, 0, 0.5) | {"macs": macs, "figures": found}


def write(
    folder: Path, seeds: int = 3, names=tuple(VARIANTS), quality=lambda name: 0.5 if name == "full" else 0.48
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    grid = [dataclasses.asdict(variant) for variant in VARIANTS.values()]
    held = {"budget": dataclasses.asdict(SMOKE), "grid": grid}
    (folder / "lab.json").write_text(json.dumps(held))
    for name in names:
        for seed in range(seeds):
            run = folder / f"{name}-{seed}"
            run.mkdir(exist_ok=True)
            (run / "train.json").write_text("{}")
            (run / "metrics.json").write_text(json.dumps(metrics(name, seed, quality(name))))
    (folder / "shipped").mkdir(exist_ok=True)
    for speed in SHIPPED["shapes-tiny"]:
        (folder / "shipped" / f"shapes-tiny-{speed}.json").write_text(json.dumps(shipped("shapes-tiny", speed)))
    return folder
