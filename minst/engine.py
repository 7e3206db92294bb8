"""One process or many: what the training loop needs of the machines it runs on.

    python -m minst train …                    this process, CPU or GPU
    minst train --processes 2 …                processes of this machine's CPU, started here (gloo)
    accelerate launch … -m minst train …       GPUs, several machines: what `accelerate config` says

A launcher says by environment variables who a process is: RANK, LOCAL_RANK, WORLD_SIZE (as torchrun
does too), and accelerate's precision. Nothing else of it is needed here.

Lesson: notebooks/10_capstone.ipynb
"""

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

__all__ = ["Engine", "keep_memory", "on_signal", "owned", "spawn"]


class Engine:
    """One process, of `processes` that share each batch; it is number `rank`.

    device: "auto", "cpu", "cuda". precision: "fp32" or "bf16" (autocast). ValueError where there is
    no GPU, or the launcher says another precision.
    """

    def __init__(self, device: str = "auto", precision: str = "fp32"):
        said = os.environ
        several = "LOCAL_RANK" in said  # a launcher, or `spawn`, has started this one
        self.rank = int(said["RANK"]) if several else 0
        self.processes = int(said["WORLD_SIZE"]) if several else 1
        launched = said.get("ACCELERATE_MIXED_PRECISION", "no")
        if launched not in ("no", "bf16"):
            raise ValueError(f"training: accelerate's {launched} is not supported; take bf16 or no")
        self.precision = "bf16" if launched == "bf16" else precision
        seen = torch.cuda.is_available()
        if device == "auto":
            wanted = seen and said.get("ACCELERATE_USE_CPU", "").lower() != "true"
            device = "cuda" if wanted else "cpu"
        if device == "cuda" and not seen:
            raise ValueError("training: --device cuda, but PyTorch sees no GPU here; choose cpu")
        self.device = torch.device(device)
        if several and device == "cuda":
            self.device = torch.device("cuda", int(said["LOCAL_RANK"]))
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
        devices = None
        if self.device.type == "cuda":
            # Small shares make poor statistics: batch norms share them.
            module, devices = nn.SyncBatchNorm.convert_sync_batchnorm(module), [self.device]
        # A branch without instances in any image of the batch, say, leaves parameters without a
        # gradient.
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


def keep_memory() -> bool:
    """Let glibc's malloc keep what this process frees; False where there is no glibc.

    Every step of training takes the same memory again. By default malloc has given it back to the
    system by then, and pays in page faults (tests/benchmarks/malloc_faults.py measures how much).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    # M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD, as large as an int can say
    settings = {-1: 2**31 - 1, -2: 2**28, -3: 2**31 - 1}
    return all(ctypes.CDLL(None).mallopt(*each) for each in settings.items())


@contextlib.contextmanager
def on_signal(number: int, handler: Callable | int) -> Iterator[None]:
    """Within, `handler` answers a signal. Threads but the main one have no say in this."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(number, handler) if is_main else None
    try:
        yield
    finally:
        if is_main:
            signal.signal(number, before)


@contextlib.contextmanager
def owned(folder: Path, command: str) -> Iterator[None]:
    """ValueError where another process is at work: two in one folder would spoil each other's."""
    folder.mkdir(parents=True, exist_ok=True)
    # SIGTERM ends the work as Ctrl-C does, so that no file is left half written.
    ending = on_signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ending, open(folder / f"{command}.lock", "a") as lock:
        # Of the processes of a launcher the first one owns the folder for all.
        if os.environ.get("RANK", "0") == "0":
            try:
                import fcntl  # Windows has none

                # It ends with this process, and no process that this one starts has a share in it.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass
            except (BlockingIOError, PermissionError):
                what = f"another `minst {command}` is at work here; choose another --out"
                raise ValueError(f"{folder}: {what}") from None
        yield


def spawn(work: Callable, processes: int, *arguments, meet: bool = True) -> None:
    """Run `work(*arguments)` in several processes of this machine.

    meet: their `Engine`s share each batch, on the CPU; else each process works alone. An error of
    one of them ends all; the usual ones (ValueError, OSError, FloatingPointError) are raised here
    again. None outlives this process, however it ends.
    """
    several = torch.multiprocessing
    with tempfile.TemporaryDirectory() as folder:  # they meet in a file: no port, no network
        given = (work, processes, f"file://{folder}/meeting" if meet else "", arguments)
        # A Ctrl-C in the terminal reaches all processes. It is for this one to end the others:
        # started while it is ignored, they do not know of it.
        with on_signal(signal.SIGINT, signal.SIG_IGN):
            members = several.spawn(_member, given, processes, join=False)
        try:
            while not members.join():
                pass
        except (several.ProcessRaisedException, several.ProcessExitedException) as error:
            # The last line of a traceback, such as "ValueError: what was wrong".
            name, _, message = str(error).strip().splitlines()[-1].partition(": ")
            kinds = (ValueError, FileNotFoundError, OSError, FloatingPointError)
            usual = {kind.__name__: kind for kind in kinds}
            raise usual.get(name, ChildProcessError)(message or name) from error
        finally:
            for member in members.processes:
                member.kill()


def _member(rank: int, work: Callable, processes: int, meeting: str, arguments: tuple) -> None:
    # Nobody tells a process that its parent was killed, unless it waits for that.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The usual lock of bars is the system's, and would outlive a process that is killed.
    tqdm.set_lock(threading.RLock())
    if not meeting:
        work(*arguments)
        return
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in who.items()}
    os.environ["ACCELERATE_USE_CPU"] = "true"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
