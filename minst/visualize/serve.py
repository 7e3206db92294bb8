"""The explorer as a web page of its own: a notebook of one cell, shown by Voilà, a kernel for every visitor.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from minst.visualize.recording import Settings

__all__ = ["open_clip", "serve"]

PORT = 8866
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def serve(
    source: str = "easy",
    weights: Sequence[str] = ("shapes-tiny",),
    settings: Settings = Settings(),
    port: int = PORT,
    host: str = "127.0.0.1",
    browser: bool = True,
) -> None:
    """Show the explorer on http://host:port until Ctrl-C.

    source: what `open_clip` opens. weights: shipped weights by name, or folders; several can be switched on the page.
    host: who can reach it; 127.0.0.1 is this machine alone, 0.0.0.0 everybody on the network (there is no password).
    Raises ImportError without the extra "notebooks", ValueError for a port that is taken, what `open_clip` raises.
    """
    try:
        from voila.app import Voila

        import minst.visualize.explorer  # noqa: F401 (what the page will import)
    except ImportError:
        raise ImportError(
            'minst explore needs Voilà: python3 -m pip install "minst[notebooks]"'
        ) from None
    open_clip(source)  # what is wrong with it is said here, and not on the page
    _check_port(host, port)
    source = str(Path(source).absolute()) if Path(source).exists() else source
    weights = [str(Path(w).absolute()) if Path(w).is_dir() else w for w in weights]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "minst.ipynb"
        page.write_text(json.dumps(_notebook(source, weights, settings)))
        print(f"the explorer: http://{host}:{port}   (Ctrl-C ends it)", flush=True)
        options = [
            f"--Voila.ip={host}",
            f"--port={port}",
            "--Voila.port_retries=0",
            "--Voila.log_level=ERROR",
            "--show_tracebacks=True",
        ]
        if os.name == "posix":  # kernels by sockets of the file system: no other user can listen
            options.append("--KernelManager.transport=ipc")
        # a page that was closed without saying so must not keep its kernel for ever
        options += [
            "--MappingKernelManager.cull_idle_timeout=900",
            "--MappingKernelManager.cull_interval=60",
        ]
        Voila.launch_instance([str(page), *options, *([] if browser else ["--no-browser"])])


def open_clip(source: str):
    """A shipped clip by name, the first clip of a folder in YouTube-VIS form, a video file, or a folder of images.

    Returns a clip with `render(t)`, or an iterator of frames. Raises FileNotFoundError or ValueError.
    """
    from minst.data.layouts import find_annotations
    from minst.data.video import read_video
    from minst.data.ytvis import YouTubeVIS
    from minst.samples import load_sample, sample_names

    path = Path(source)
    if source in sample_names():
        return load_sample(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{source!r} is neither a file or folder nor a shipped clip ({', '.join(sample_names())})"
        )
    try:
        file = find_annotations(path)
    except FileNotFoundError:
        return read_video(path)
    clips = YouTubeVIS(path, annotations=file)
    if not len(clips):
        raise ValueError(f"{clips.file}: holds no videos")
    return clips[0]


def _notebook(source: str, weights: Sequence[str], settings: Settings) -> dict:
    names = [Path(w).name for w in weights]
    models = dict(zip(names if len(set(names)) == len(names) else weights, weights))
    root = str(
        Path(__file__).resolve().parents[2]
    )  # the kernel starts elsewhere, and must find this very minst
    code = (
        f"import sys\nsys.path.insert(0, {root!r})\n"
        "from minst.visualize.explorer import explore\n"
        "from minst.visualize.recording import Settings\n"
        "from minst.visualize.serve import open_clip\n"
        f"explore({models!r}, open_clip({source!r}), Settings(*{tuple(settings)!r}), background=True).widget"
    )
    cell = {
        "cell_type": "code",
        "id": "explorer",
        "source": code,
        "metadata": {},
        "execution_count": None,
        "outputs": [],
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": KERNEL, "cells": [cell]}


def _check_port(host: str, port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"port {port}: give one of 1 to 65535")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise ValueError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another with --port"
        ) from None
