"""No phone at hand, no adb: a page on which the visitor's own browser is the device.

    weights -> export(onnx) -> key.onnx, reuse.onnx --+
    shipped clip -> raw RGB bytes --------------------+-> a fixed table {path: bytes}
    page/: index.html, app, draw, worker, tracker .mjs +      -> HTTP, GET and HEAD only
    onnxruntime-web, pinned by hash: a CDN, or `assets`
                the browser: fetch -> worker (WASM) -> tracker -> canvas, JSON

Paper: latency on one core. Nothing is read from the disk by a visitor's path, nothing is uploaded.
Everything that runs in the browser is ours or has a hash below: the page fetches it with that hash,
and its content security policy allows nothing else.

Assumption: threads in WASM need shared memory, which browsers grant to isolated pages on https or
    localhost alone (hence the headers); on a plain network address the page runs on one thread,
    and says so.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import inspect
import json
import socket
import tempfile
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import NamedTuple

import minst
from minst.mobile import timing
from minst.samples import load_sample

__all__ = [
    "ORT_FILES",
    "ORT_VERSION",
    "PageServer",
    "lan_addresses",
    "make_server",
    "qr_code",
    "serve",
]

PORT = 8867
PASSES = 3  # over the clip, for one measurement
ORT_VERSION = "1.26.0"
# the build that knows WASM alone is the smallest: 73 KB of script with its glue, 13 MB of program
ORT_FILES = {
    "ort.wasm.bundle.min.mjs": "sha384-c/j3bOrcHs8KY9g2f6bdoUnP02UAzmkc29rmGa/y5k1AUJqanFbqHyki702g28sW",
    "ort-wasm-simd-threaded.wasm": "sha384-wr7M1C6iNW3VC/2ZcY8NgYHkS1JqhtT6XO1KrErv3Sr588B9M0NzTOhBco0UgAZj",
}
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{ORT_VERSION}/dist/"
GET_ASSETS = (
    f"`npm pack onnxruntime-web@{ORT_VERSION}`, unpack it, and give its folder package/dist"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
PALETTE_SIZE = 21  # colours before they repeat
HEADERS = {
    # an isolated page may share memory between threads, and no other page can look into it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# our own files, the runtime (fetched with its hash, then run as a blob), nothing else
POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "connect-src 'self' {cdn}; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def serve(
    weights: str | Path = "shapes-tiny",
    sample: str = "easy",
    size: tuple[int, int] | None = None,
    reuse_interval: int = 3,
    association: str = "mask",
    host: str = "127.0.0.1",
    port: int = PORT,
    assets: str | Path | None = None,
    programs: str | Path | None = None,
    passes: int = PASSES,
    open_browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C; prints its address, and for a network address a QR code.

    Arguments: `make_server`. open_browser: show the page here.
    """
    with make_server(
        weights, sample, size, reuse_interval, association, host, port, assets, programs, passes
    ) as server:
        print("\n".join(_greeting(server.addresses)), flush=True)
        if open_browser:
            webbrowser.open(server.addresses[0])
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("the page is closed")


def make_server(
    weights: str | Path = "shapes-tiny",
    sample: str = "easy",
    size: tuple[int, int] | None = None,
    reuse_interval: int = 3,
    association: str = "mask",
    host: str = "127.0.0.1",
    port: int = PORT,
    assets: str | Path | None = None,
    programs: str | Path | None = None,
    passes: int = PASSES,
) -> PageServer:
    """The server, bound and filled: `serve_forever` answers, leaving its `with` block closes it.

    Args:
        weights: shipped ones by name, or a folder; exported for frames of `size` (H, W), by default
            those of the clip.
        programs: in the place of both, a folder with key.onnx and reuse.onnx of
            `minst export --format onnx`.
        host: who can reach it; 127.0.0.1 is this machine alone, 0.0.0.0 everybody on the network
            (there is no password).
        port: 0 takes any free one.
        assets: a folder with onnxruntime-web's files, for networks without internet.
        passes: how often one measurement goes over the clip.
    Raises OSError (port in use, a file that is missing), ValueError (settings, sizes, files with
    another hash).
    """
    _check_settings(reuse_interval, association, port, passes)
    runtime, files = _runtime(assets)
    server = PageServer(host, port)  # a port in use is said before the export, which takes seconds
    try:
        made, metadata = _programs(weights, sample, size, programs)
        settings = {"reuse_interval": reuse_interval, "association": association}
        about = _about(metadata, sample, runtime, settings, passes)
        server.routes = {**files, **_content(made, about)}
        policy = POLICY.format(cdn=CDN if assets is None else "")
        server.headers = {**HEADERS, "Content-Security-Policy": policy}
    except BaseException:
        server.server_close()
        raise
    return server


class Route(NamedTuple):
    """What is sent for one path."""

    body: bytes
    type: str


class PageServer(ThreadingHTTPServer):
    """A table of routes on a socket; OSError, with what to do, where it cannot be had."""

    daemon_threads = True  # a visitor who is still loading does not keep Ctrl-C waiting
    request_queue_size = 64  # a class opens the page at once

    def __init__(self, host: str, port: int):
        self.routes: dict[str, Route] = {}
        self.headers: dict[str, str] = {}
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            advice = "choose another with --port"
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                advice = "give an address of this machine with --host"
            raise OSError(
                f"port {port} on {host} cannot be used ({error.strerror or error}); {advice}"
            ) from None

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the machine's name, which may take seconds offline."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def addresses(self) -> list[str]:
        """Where the page is: as many as this machine has on the network when all are served."""
        host, port = self.server_address[:2]
        names = lan_addresses() if host == "0.0.0.0" else [host]
        return [f"http://{name}:{port}/" for name in names]


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the paths in the table; anything else 404 or 405."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "minst", ""
    timeout = 60  # seconds that a silent visitor may hold a thread

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        self._send(200, route) if route else self._send(404, Route(b"not found\n", "text/plain"))

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # what was sent along stays unread
        said = Route(b"read only: GET and HEAD\n", "text/plain")
        self._send(405, said, {"Allow": "GET, HEAD", "Connection": "close"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _send(self, status: int, route: Route, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sizes = {"Content-Type": route.type, "Content-Length": str(len(route.body))}
        for name, value in {**self.server.headers, **sizes, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(route.body)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):  # the visitor closed the page
            self.close_connection = True

    def log_message(self, *_) -> None:
        """Quiet: the terminal keeps showing the address."""


def lan_addresses() -> list[str]:
    """IPv4 addresses of this machine that others on the network can reach; else 127.0.0.1.

    The usual one comes first.
    """
    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # sends nothing: asks which way a packet would leave (an address of RFC 5737)
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    return list(dict.fromkeys(a for a in found if not a.startswith("127."))) or ["127.0.0.1"]


def qr_code(text: str) -> str:
    """`text` as a QR code of block characters; without the package qrcode, how to install it."""
    try:
        import qrcode
    except ModuleNotFoundError:
        return '(for a QR code: python3 -m pip install "mobileinst[mobile]")'
    import io

    code = qrcode.QRCode(border=2)
    code.add_data(text)
    drawn = io.StringIO()
    code.print_ascii(out=drawn, invert=True)  # dark on light on a dark terminal
    return drawn.getvalue().rstrip()


def _greeting(addresses: list[str]) -> list[str]:
    lines = [f"the page: {'   '.join(addresses)}   (Ctrl-C ends it)"]
    if "//127." in addresses[0] or "localhost" in addresses[0]:
        other = "for a phone in the same network, with a QR code: --host 0.0.0.0"
        return [*lines, f"for this machine alone; {other}"]
    read_only = "whoever is in this network can open it; it is read-only"
    return [*lines, qr_code(addresses[0]), read_only]


def _check_settings(reuse_interval: int, association: str, port: int, passes: int) -> None:
    from minst.tracking import ASSOCIATIONS

    timing.check_whole(reuse_interval=(reuse_interval, 1), passes=(passes, 1))
    if association not in ASSOCIATIONS:
        raise ValueError(f"association is {association!r}; choose one of {', '.join(ASSOCIATIONS)}")
    if not 0 <= port < 65536:
        raise ValueError(f"port {port}: give one of 1 to 65535, or 0 for any that is free")


def _runtime(assets: str | Path | None) -> tuple[dict, dict[str, Route]]:
    """Where the page finds onnxruntime-web, and the routes of its files when they are local."""
    where = CDN if assets is None else "/ort/"
    files = {
        Path(name).suffix[1:]: {"url": where + name, "integrity": pin}
        for name, pin in ORT_FILES.items()
    }
    said = {"name": "onnxruntime-web", "version": ORT_VERSION, "source": where}
    said |= {"files": files, "get": GET_ASSETS}
    if assets is None:
        return said, {}
    routes = {}
    for name, pin in ORT_FILES.items():
        path = Path(assets) / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; {GET_ASSETS}")
        body = path.read_bytes()
        if pin != "sha384-" + base64.b64encode(hashlib.sha384(body).digest()).decode():
            raise ValueError(
                f"{path} is not that of onnxruntime-web {ORT_VERSION} (another hash); {GET_ASSETS}"
            )
        routes["/ort/" + name] = Route(body, TYPES[path.suffix])
    return said, routes


def _programs(
    weights, sample: str, size: tuple[int, int] | None, folder
) -> tuple[dict[str, bytes], dict]:
    """key.onnx and reuse.onnx, exported now or of a folder, and what they say of themselves.

    They are checked as a pair.
    """
    from minst.mobile.runtime import ExportedModel

    if folder is None:
        from minst.mobile.export import export

        with tempfile.TemporaryDirectory() as fresh:
            size = size or next(iter(load_sample(sample))).shape[:2]
            export(weights, "onnx", fresh, tuple(size), "full")
            return _programs(weights, sample, None, fresh)
    if size is not None:
        raise ValueError(
            f"size {size} and programs {folder}: exported programs have their size; "
            "give one of them"
        )
    pair = ExportedModel(folder, "onnx")
    about = {**pair.key.metadata, "inputs": pair.reuse.metadata["inputs"]}
    return {name: (Path(folder) / name).read_bytes() for name in ("key.onnx", "reuse.onnx")}, about


def _about(metadata: dict, sample: str, runtime: dict, settings: dict, passes: int) -> dict:
    """What the page must know: the model, the tracker's settings, the runtime, colours."""
    from minst.tracking import KernelTracker
    from minst.visualize.masks import color_of

    parameters = inspect.signature(KernelTracker).parameters
    defaults = {name: p.default for name, p in parameters.items() if name != "model"}
    return {
        "minst": minst.__version__,
        "sample": sample,
        "frames": len(load_sample(sample)),
        "passes": passes,
        **{name: metadata[name] for name in ("weights", "size", "classes", "inputs", "outputs")},
        "setting": {**defaults, **settings},
        "runtime": runtime,
        "palette": [color_of(identity) for identity in range(1, PALETTE_SIZE + 1)],
    }


def _content(programs: dict[str, bytes], about: dict) -> dict[str, Route]:
    """The page, the two programs, the clip, and /about.json."""
    from minst.mobile.programs import real_frames

    # RGB bytes (T, H, W, 3): no picture format, no colour management, the very pixels of Python
    frames = real_frames(about["size"], about["frames"], about["sample"]).mul(255).round().byte()
    data = {**programs, "clip.rgb": frames.permute(0, 2, 3, 1).numpy().tobytes()}
    routes = {f"/{name}": Route(body, "application/octet-stream") for name, body in data.items()}
    page = Path(__file__).parent / "page"
    for name in ("index.html", "app.mjs", "draw.mjs", "worker.mjs", "tracker.mjs"):
        routes[f"/{name}"] = Route((page / name).read_bytes(), TYPES[Path(name).suffix])
    routes["/"] = routes["/index.html"]
    routes["/about.json"] = Route(json.dumps(about).encode(), TYPES[".json"])
    return routes
