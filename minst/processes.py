"""One process or many: what the training loop needs of the machines it runs on.

    python -m minst train …                    Alone          this process, CPU or GPU, nothing to install
    minst train --processes 2 …                Accelerated    processes of this machine's CPU, started here (gloo)
    accelerate launch … -m minst train …       Accelerated    GPUs, several machines: what `accelerate config` says

Both offer the same: rank, processes, device, precision; prepare, no_sync, backward, total, gather, wait.

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

__all__ = ["Accelerated", "Alone", "join", "spawn"]


class Alone:
    """One process that needs nobody. precision: "fp32" or "bf16" (autocast). device: "auto", "cpu", "cuda"."""

    rank, processes = 0, 1

    def __init__(self, device: str = "auto", precision: str = "fp32"):
        self.precision = precision
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("training: --device cuda, but PyTorch sees no GPU here; choose cpu")

    def autocast(self):
        """A context in which the forward pass runs in the precision asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, module: nn.Module) -> nn.Module:
        """On the device; with several processes also wrapped, so that backward averages the gradients."""
        return module.to(self.device)

    def no_sync(self, module: nn.Module):
        """A context in which backward keeps its gradients to this process: more parts of the batch are to come."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`."""
        loss.backward()

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def gather(self, items: list) -> list:
        """The items of all processes, by rank."""
        return items

    def wait(self) -> None:
        """Until all processes are here."""


class Accelerated(Alone):
    """One process of those that `accelerate launch`, or `spawn`, has started. Needs the extra `train`."""

    def __init__(self, device: str = "auto", precision: str = "fp32"):
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # a branch without instances in any image of the batch, say, leaves parameters without a gradient
        handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(cpu=device == "cpu" or None, kwargs_handlers=[handler])
        launched = self.accelerator.mixed_precision
        if launched not in ("no", "bf16"):
            raise ValueError(f"training: accelerate was launched with {launched}; only bf16 and no are supported")
        self.precision = "bf16" if launched == "bf16" else precision
        self.device = self.accelerator.device
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes

    def prepare(self, module: nn.Module) -> nn.Module:
        """As `Alone.prepare`; on GPUs batch norms share their statistics."""
        if self.processes > 1 and self.device.type == "cuda":  # small shares make poor statistics
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self.accelerator.prepare_model(module)

    def no_sync(self, module: nn.Module):
        """As `Alone.no_sync`: a context in which gradients are not averaged yet."""
        return self.accelerator.no_sync(module)

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss`, averaged over the processes."""
        self.accelerator.backward(loss)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.accelerator.reduce(values, "sum")

    def gather(self, items: list) -> list:
        """The items of all processes."""
        from accelerate.utils import gather_object

        return gather_object(items)

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()


def join(device: str = "auto", precision: str = "fp32") -> Alone:
    """`Accelerated` in a process that a launcher has started, else `Alone`."""
    launched = "LOCAL_RANK" in os.environ or any(name.startswith("ACCELERATE_") for name in os.environ)
    return (Accelerated if launched else Alone)(device, precision)


def spawn(work: Callable, processes: int, *arguments) -> None:
    """Run `work(*arguments)` in several processes on this machine's CPU; `join` within it finds the others.

    An error of one of them ends all; the usual ones (ValueError, OSError, FloatingPointError) are raised here again.
    """
    import accelerate  # noqa: F401 - if it is missing, this process says so

    with tempfile.TemporaryDirectory() as folder:  # they meet in a file: no port, no network
        try:
            torch.multiprocessing.spawn(_member, (work, processes, f"file://{folder}/meeting", arguments), processes)
        except torch.multiprocessing.ProcessRaisedException as error:
            name, _, message = str(error).strip().splitlines()[-1].partition(": ")
            usual = {kind.__name__: kind for kind in (ValueError, FileNotFoundError, OSError, FloatingPointError)}
            raise usual.get(name, RuntimeError)(message) from error


def _member(rank: int, work: Callable, processes: int, meeting: str, arguments: tuple) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()
