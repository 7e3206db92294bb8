"""A process of the lab, in the lab's folder: `python -m minst.lab.job DEVICE run VARIANT BUDGET SEED`, or
`… DEVICE pretrain BACKBONE BUDGET`.

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from minst.lab.grid import BUDGETS, train_config
from minst.lab.measure import measure_run
from minst.lab.pretrain import pretrain
from minst.training import train


def main(device: str, what: str, name: str, budget: str, seed: str = "0") -> None:
    if device == "cpu":
        torch.set_num_threads(1)
    if what == "pretrain":
        pretrain(name, Path("."), BUDGETS[budget], device)
        return
    train(train_config(name, int(seed), BUDGETS[budget], device=device))
    measure_run(Path("."), name, int(seed), BUDGETS[budget])


if __name__ == "__main__":
    main(*sys.argv[1:])
