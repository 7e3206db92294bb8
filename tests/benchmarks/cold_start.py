"""What a key program takes at first, each in a process of its own: loading, the first run, and memory.

    minst export --format onnx --out phone && python tests/benchmarks/cold_start.py phone/key.onnx phone/key.ptl
    python tests/benchmarks/cold_start.py shapes-tiny            weights by name or folder: eager PyTorch

Memory is what loading and running adds to a process that has imported torch and the runtime. The file is read from
the system's cache. A frame is what the program says it takes; for weights 192 x 256.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

from minst.mobile.runtime import FORMATS, load_program, require
from minst.mobile.timing import table
from minst.model import MobileInst

COLUMNS = {"load ms": ("load_ms", ".1f"), "first ms": ("first_ms", ".1f"), "MB": ("peak_mb", ".1f")}


def peak_bytes(reset: bool = False) -> int:
    """The most memory that this process has held; 0 where the system does not say (Windows).

    reset: begin anew from what is held now, which Linux alone can.
    """
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    # Not ru_maxrss: on Linux that starts with the size of the process that started this one.
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


@torch.inference_mode()
def cold(what: str) -> dict:
    """{"load_ms", "first_ms", "peak_mb"} of a file or of weights; meant for a fresh process."""
    torch.set_num_threads(1)
    format = {about.suffix: name for name, about in FORMATS.items()}.get(Path(what).suffix)
    if format:
        require(format, loading=True)
    imports, laps = peak_bytes(reset=True), [time.perf_counter()]
    run = load_program(what) if format else MobileInst.from_pretrained(what).eval()
    laps.append(time.perf_counter())
    frame = torch.rand(run.metadata["inputs"]["frame"] if format else (1, 3, 192, 256))
    laps.append(time.perf_counter())
    run(frame)
    laps.append(time.perf_counter())
    for _ in range(3):
        run(frame)
    load, _, first = (1e3 * (end - start) for start, end in pairwise(laps))
    return {"load_ms": load, "first_ms": first, "peak_mb": (peak_bytes() - imports) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", help="key programs, or weights")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return print(json.dumps(cold(*given.what)))
    rows = []
    for what in given.what:
        command = [sys.executable, __file__, "--child", what]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append((what, json.loads(done.stdout.splitlines()[-1])))
    print(table("", COLUMNS, rows))


if __name__ == "__main__":
    main()
