"""The explorer as a web page: a notebook of one cell, shown by Voilà, a kernel for every visitor.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

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

    source: what `open_clip` opens. weights: shipped weights by name, or folders; several can be
    switched on the page. host: who can reach it; 127.0.0.1 is this machine alone, 0.0.0.0 everybody
    on the network (there is no password). Raises ImportError without the extra "notebooks",
    ValueError for a port that is taken, and what `open_clip` raises.
    """
    try:
        from nbformat import write
        from voila.app import Voila

        import minst.visualize.explorer  # noqa: F401 (what the page will import)
    except ImportError:
        needs = 'Voilà: python3 -m pip install "mobileinst[notebooks]"'
        raise ImportError(f"minst explore needs {needs}") from None
    open_clip(source)  # what is wrong with it is said here, and not on the page
    _check_port(host, port)
    source = str(Path(source).absolute()) if Path(source).exists() else source
    weights = [str(Path(w).absolute()) if Path(w).is_dir() else w for w in weights]
    options = [
        f"--Voila.ip={host}",
        f"--port={port}",
        "--Voila.port_retries=0",
        "--Voila.log_level=ERROR",
        "--show_tracebacks=True",
        # A page that was closed without saying so must not keep its kernel for ever.
        "--MappingKernelManager.cull_idle_timeout=900",
        "--MappingKernelManager.cull_interval=60",
    ]
    if os.name == "posix":  # kernels by sockets of the file system: no other user can listen
        options.append("--KernelManager.transport=ipc")
    if not browser:
        options.append("--no-browser")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "minst.ipynb"
        write(_notebook(source, weights, settings), page)
        print(f"the explorer: http://{host}:{port}   (Ctrl-C ends it)", flush=True)
        Voila.launch_instance([str(page), *options])


def open_clip(source: str):
    """A shipped clip by name, the first clip of a folder in YouTube-VIS form, a video, or images.

    Returns a clip with `render(t)` or an iterator of frames. FileNotFoundError or ValueError.
    """
    from minst.data.layouts import find_annotations
    from minst.data.video import read_video
    from minst.data.ytvis import YouTubeVIS
    from minst.samples import load_sample, sample_names

    path = Path(source)
    if source in sample_names():
        return load_sample(source)
    if not path.exists():
        shipped = ", ".join(sample_names())
        raise FileNotFoundError(
            f"{source!r} is neither a file or folder nor a shipped clip ({shipped})"
        )
    try:
        file = find_annotations(path)
    except FileNotFoundError:
        return read_video(path)
    clips = YouTubeVIS(path, annotations=file)
    if not len(clips):
        raise ValueError(f"{clips.file}: holds no videos")
    return clips[0]


def _notebook(source: str, weights: Sequence[str], settings: Settings):
    """A notebook of one cell, which shows the explorer."""
    from nbformat.v4 import new_code_cell, new_notebook

    names = [Path(w).name for w in weights]
    models = dict(zip(names if len(set(names)) == len(names) else weights, weights))
    # The kernel starts elsewhere, and must find this very minst.
    root = str(Path(__file__).resolve().parents[2])
    code = [
        f"import sys; sys.path.insert(0, {root!r})",
        "from minst.visualize.explorer import explore",
        "from minst.visualize.recording import Settings",
        "from minst.visualize.serve import open_clip",
        f"clip, settings = open_clip({source!r}), Settings(*{tuple(settings)!r})",
        f"explore({models!r}, clip, settings, background=True).widget",
    ]
    return new_notebook(cells=[new_code_cell("\n".join(code))], metadata=KERNEL)


def _check_port(host: str, port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"port {port}: give one of 1 to 65535")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        why = f"cannot be used ({error.strerror}); choose another with --port"
        raise ValueError(f"port {port} on {host} {why}") from None
