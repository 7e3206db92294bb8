"""Does `minst track` stay small on a long video, and how long does it take?

    python tests/benchmarks/long_video.py [--minutes 10 --size N --every N --no-video --limit 1000]

Encodes a clip of 1280x720 shapes that move, two seconds, and strings copies of its packets together to the length asked
for: cheap, whatever the length. Then `minst track` runs on it as a child process. Printed: its peak of resident memory,
the milliseconds a frame of the tracker alone and of everything, and the total. Exits with 1 above `--limit` MB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 30, 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--limit", type=float, default=1000.0, metavar="MB", help="exit with 1 above this")
    options, passed_on = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "long.mp4"
        # in a process of its own: Linux counts what its parent holds at its start as a child's peak, too
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            frames = pool.apply(write_long, (video, options.minutes))
        print(f"{video.name}: {frames} frames of {WIDTH}x{HEIGHT}, {video.stat().st_size / 1e6:.0f} MB", flush=True)
        command = [sys.executable, "-m", "minst", "track", str(video), "--out", str(Path(folder) / "out"), *passed_on]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        started = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        total = time.perf_counter() - started
        size = sum(file.stat().st_size for file in (Path(folder) / "out").glob("*"))
    if status:
        return os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    tracked, tracks, ms = re.match(r"(\d+) frames, (\d+) tracks, ([0-9.]+) ms", said).groups()
    print(f"{tracked} frames, {tracks} tracks, {size / 1e6:.0f} MB written")
    print(f"peak {peak:.0f} MB; {ms} ms a frame for the tracker, {1000 * total / int(tracked):.1f} ms for all")
    print(f"total {total:.0f} s")
    return int(peak > options.limit)


def write_long(path: Path, minutes: float) -> int:
    """A video of `minutes`; returns how many frames."""
    import av
    import numpy as np
    from PIL import Image

    from minst.data.shapes import ShapesConfig, shapes_clip
    from minst.data.video import write_mp4

    clip = shapes_clip("test", 0, ShapesConfig(frames=FPS * SECONDS), seed=3)
    images = (Image.fromarray(clip.render(t).image).resize((WIDTH, HEIGHT)) for t in range(len(clip)))
    short = write_mp4(map(np.array, images), path.with_name("short.mp4"), FPS)
    wanted = round(minutes * 60 * FPS)
    with av.open(str(short)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number in range(wanted):
            if number % len(clip) == 0:
                source.seek(0)
                packets = source.demux(video=0)
            packet = next(packets)
            packet.pts = packet.dts = round(number / FPS / packet.time_base)
            packet.stream = stream
            target.mux(packet)
    return wanted


if __name__ == "__main__":
    sys.exit(main())
