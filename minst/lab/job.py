"""A process of the lab, in the lab's folder: `python -m minst.lab.job DEVICE run VARIANT SEED`, or
`… DEVICE pretrain BACKBONE`, `… DEVICE shipped WEIGHTS`. What it may spend stands in lab.json.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from minst.data.files import read_json
from minst.lab import decoders
from minst.lab.grid import VARIANTS, Budget, train_config
from minst.lab.measure import measure_run, measure_shipped
from minst.lab.pretrain import pretrain
from minst.training import train


def main(device: str, what: str, name: str, seed: str = "0") -> None:
    """Do one job of the lab in the current folder; the strings are those of the command line."""
    budget = Budget(**read_json("lab.json")["budget"])
    torch.set_num_threads(1)
    if what == "pretrain":
        pretrain(name, Path("."), budget, device)
    elif what == "shipped":
        measure_shipped(Path("."), name, budget)
    else:
        config, order = train_config(name, int(seed), budget, device=device), VARIANTS[name].decoder
        train(config, model=decoders.build(order, config) if order else None)
        measure_run(Path("."), name, int(seed), budget)


if __name__ == "__main__":
    main(*sys.argv[1:])
