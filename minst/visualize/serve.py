"""The explorer as a web page: a notebook of one cell, shown by Voilà, a kernel for every visitor.

Any page in the browser can send requests to this machine, and any program on the network to an
open host. So each request passes `refusal` first, and there are never more than `MOST` kernels.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

import os
import secrets
import socket
import tempfile
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from minst.data.video import read_video
from minst.data.ytvis import YouTubeVIS
from minst.model import MobileInst
from minst.options import Port, check_call
from minst.samples import FILM, PHOTO, load_sample, sample_names
from minst.tracking import KernelTracker
from minst.visualize.recording import Settings

__all__ = ["labelled", "open_clip", "page_of", "serve"]

PORT = 8866
MOST = 6  # kernels, of some 700 MB each
PROTOCOL = "v1.kernel.websocket.jupyter.org"  # without it the server spins on the first message
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def serve(
    source: str = "easy",
    weights: Sequence[str] = ("shapes-tiny",),
    settings: Settings = Settings(),
    port: Port = PORT,
    host: str = "127.0.0.1",
    browser: bool = True,
    others: Sequence[tuple] = (),
) -> None:
    """Show the explorer on http://host:port until Ctrl-C.

    source: what `open_clip` opens. weights: shipped weights by name, or folders; several can be
    switched on the page. host: who can reach it; 127.0.0.1 is this machine alone, 0.0.0.0 everybody
    on the network who has the token that is printed. others: models of others, as the arguments of
    `minst.adapters.from_transformers`, who has taken them. All else is checked before the server
    starts. Raises ImportError without the extra "notebooks", ValueError for a port that is taken
    or settings out of range, and what `open_clip` and `MobileInst.from_pretrained` raise.
    """
    check_call(serve, locals())
    try:
        from nbformat import write

        import minst.visualize.explorer  # noqa: F401 (what the page will import)

        server = _server()
    except ImportError:
        needs = 'Voilà: python3 -m pip install "mobileinst[notebooks]"'
        raise ImportError(f"minst explore needs {needs}") from None
    open_clip(source)  # what is wrong with it is said here, and not on the page
    for each in weights:
        KernelTracker(MobileInst.from_pretrained(each), *settings)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = f"cannot be used ({error.strerror}); choose another with --port"
        raise ValueError(f"port {port} on {host} {why}") from None
    source = _absolute(source)
    weights = [_absolute(each) for each in weights]
    others = [(_absolute(name), *rest) for name, *rest in others]
    token = "" if _is_local(host) else secrets.token_urlsafe(16)
    options = [
        f"--Voila.ip={host}",
        f"--Voila.token={token}",
        "--Voila.identity_provider_class=voila.voila_identity_provider.VoilaIdentityProvider",
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
    if token or not browser:  # Voilà would open the page without its token
        options.append("--no-browser")
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    if token:
        address += f"/?token={token}"
        print("warning: whoever on the network has this address can use the page; no encryption")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "minst.ipynb"
        write(page_of(source, weights, settings, others), page)
        print(f"the explorer: {address}   (Ctrl-C ends it)", flush=True)
        server.launch_instance([str(page), *options])


def refusal(headers, host: str) -> str:
    """Why a request with these headers is not answered by a server on `host`; "" if it is."""
    # Browsers say who asks. "same-site" is another port of this machine.
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "a page of another site asked for it: type the address yourself"
    # A foreign name that leads to this machine makes a foreign page one of "ours".
    name = headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
    if _is_local(host) and not _is_local(name):
        return f"the explorer is asked for as {name!r}: use localhost or {host}"
    spoken = [word.strip() for word in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if headers.get("Upgrade", "").lower() == "websocket" and PROTOCOL not in spoken:
        return f"a WebSocket here speaks {PROTOCOL}"
    return ""


def _is_local(host: str) -> bool:
    """Is it a name of this machine that no other one can use?"""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _server():
    """Voilà's application, which refuses what `refusal` says, and kernels beyond `MOST`."""
    from tornado.web import HTTPError, RequestHandler
    from voila.app import Voila

    class Refuse(RequestHandler):
        def initialize(self, words: str):
            self.words = words

        def prepare(self):
            self.set_status(403)
            self.finish(f"Refused: {self.words}.\n")

    class Explorer(Voila):
        def init_settings(self) -> dict:
            settings = super().init_settings()
            manager, coming = self.kernel_manager, []
            start = manager.start_kernel

            async def start_one_more(*args, **kwargs):
                if len(manager) + len(coming) >= MOST:
                    words = f"{MOST} pages are open already: close one, or try later"
                    raise HTTPError(503, words, reason=words)
                coming.append(1)
                try:
                    return await start(*args, **kwargs)
                finally:
                    coming.pop()

            manager.start_kernel = start_one_more
            return settings

        def init_handlers(self) -> list:
            find = self.app.find_handler

            def find_or_refuse(request, **kwargs):
                if words := refusal(request.headers, self.ip):
                    return self.app.get_handler_delegate(request, Refuse, {"words": words})
                return find(request, **kwargs)

            self.app.find_handler = find_or_refuse
            return super().init_handlers()

    return Explorer


def open_clip(source: str):
    """A shipped clip by name, the first clip of a folder in YouTube-VIS form, a video, or images.

    Returns a clip with `render(t)` or an iterator of frames. FileNotFoundError or ValueError.
    """
    names = [*sample_names(), PHOTO, FILM]
    if source in names:
        return load_sample(source)
    if not Path(source).exists():
        shipped = f"a shipped clip ({', '.join(names)})"
        raise FileNotFoundError(f"{source!r} is neither a file or folder nor {shipped}")
    try:
        clips = YouTubeVIS(source)
    except FileNotFoundError:  # no annotations
        return read_video(source)
    if not len(clips):
        raise ValueError(f"{clips.file}: holds no videos")
    return clips[0]


def labelled(names: Sequence[str]) -> dict[str, str]:
    """{what a model is called: its name or folder}: the last part of it, where those differ."""
    last = [Path(name).name for name in names]
    return dict(zip(last if len({*last}) == len(last) else names, names))


def _absolute(name: str) -> str:
    """What is a path here, as it can be found from everywhere; a name as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def page_of(source: str, weights: Sequence[str], settings: Settings, others: Sequence[tuple] = ()):
    """A notebook of one cell, which shows the explorer."""
    from nbformat.v4 import new_code_cell, new_notebook

    # a model of others first: all look at pixels of the size that suits the first
    made = {name: f"lambda: from_transformers{(name, *rest)!r}" for name, *rest in others}
    named = labelled([*made, *weights]).items()
    models = [f"{label!r}: {made.get(each, repr(each))}" for label, each in named]
    # The kernel starts elsewhere, and must find this very minst.
    root = str(Path(__file__).resolve().parents[2])
    code = [
        f"import sys; sys.path.insert(0, {root!r})",
        *(["from minst.adapters import from_transformers"] if others else []),
        "from minst.visualize.explorer import explore",
        "from minst.visualize.recording import Settings",
        "from minst.visualize.serve import open_clip",
        f"clip, settings = open_clip({source!r}), Settings(*{tuple(settings)!r})",
        f"explore({{{', '.join(models)}}}, clip, settings, background=True).widget",
    ]
    return new_notebook(cells=[new_code_cell("\n".join(code))], metadata=KERNEL)
