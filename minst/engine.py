"""One process or many: what the training loop needs of the machines it runs on.

    python -m minst train …                    this process, CPU or GPU
    minst train --processes 2 …                processes of this machine's CPU, started here (gloo)
    accelerate launch … -m minst train …       GPUs, several machines: what `accelerate config` says

A launcher says by environment variables who a process is: RANK, LOCAL_RANK, WORLD_SIZE (as torchrun
does too), and accelerate's precision. Nothing else of it is needed here.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Engine", "spawn"]


class Engine:
    """One process, of `processes` that share each batch; it is number `rank`.

    device: "auto", "cpu", "cuda". precision: "fp32" or "bf16" (autocast). ValueError where there is
    no GPU, or the launcher says another precision.
    """

    def __init__(self, device: str = "auto", precision: str = "fp32"):
        several = "LOCAL_RANK" in os.environ
        self.rank = int(os.environ["RANK"]) if several else 0
        self.processes = int(os.environ["WORLD_SIZE"]) if several else 1
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if launched not in ("no", "bf16"):
            said = f"accelerate was launched with {launched}; only bf16 and no are supported"
            raise ValueError(f"training: {said}")
        self.precision = "bf16" if launched == "bf16" else precision
        if device == "auto":
            on_cpu = (
                os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
                or not torch.cuda.is_available()
            )
            device = "cpu" if on_cpu else "cuda"
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("training: --device cuda, but PyTorch sees no GPU here; choose cpu")
        self.device = torch.device(device)
        if several and device == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        if self.processes > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    def autocast(self):
        """A context in which the forward pass runs in the precision asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, module: nn.Module) -> nn.Module:
        """On the device; with several processes backward averages the gradients over them."""
        module = module.to(self.device)
        if self.processes == 1:
            return module
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # small shares make poor statistics: batch norms share them
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        # A branch without instances in any image of the batch, say, leaves parameters without a
        # gradient.
        devices = [self.device] if on_gpu else None
        return DistributedDataParallel(module, devices, find_unused_parameters=True)

    def no_sync(self, module: nn.Module):
        """A context in which backward keeps its gradients to this process: more parts follow."""
        return contextlib.nullcontext() if self.processes == 1 else module.no_sync()

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.processes > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, items: list) -> list:
        """The items of all processes, by rank."""
        if self.processes == 1:
            return items
        found: list = [None] * self.processes
        dist.all_gather_object(found, items)
        return [item for of_rank in found for item in of_rank]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.processes > 1:
            dist.barrier()


def spawn(work: Callable, processes: int, *arguments) -> None:
    """Run `work(*arguments)` in several processes on this machine's CPU, whose `Engine`s meet.

    An error of one of them ends all; the usual ones (ValueError, OSError, FloatingPointError) are
    raised here again.
    """
    with tempfile.TemporaryDirectory() as folder:  # they meet in a file: no port, no network
        given = (work, processes, f"file://{folder}/meeting", arguments)
        try:
            torch.multiprocessing.spawn(_member, given, processes)
        except torch.multiprocessing.ProcessRaisedException as error:
            name, _, message = str(error).strip().splitlines()[-1].partition(": ")
            kinds = (ValueError, FileNotFoundError, OSError, FloatingPointError)
            usual = {kind.__name__: kind for kind in kinds}
            raise usual.get(name, RuntimeError)(message) from error


def _member(rank: int, work: Callable, processes: int, meeting: str, arguments: tuple) -> None:
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in who.items()}
    os.environ["ACCELERATE_USE_CPU"] = "true"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()
