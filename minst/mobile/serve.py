"""No phone at hand, no adb: a page on which the visitor's own browser is the device.

    weights -> export(onnx) -> key, reuse, weights ---+
    shipped clip -> raw RGB bytes, clip.rgb ----------+-> a fresh folder
    page/: index.html, app, draw, worker, tracker .mjs +      -> `make_server`: GET and HEAD only
    onnxruntime-web, pinned by hash: a CDN, or `assets`          or any server, `write_pages`
                the browser: fetch -> worker (WASM) -> tracker -> canvas, JSON

That folder alone is served, and nothing is uploaded. Everything that runs in the browser is ours or
has a hash below, and the content security policy of our server allows nothing else.

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
import io
import json
import re
import shutil
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Annotated, Literal

import minst
from minst.data.files import new_folder
from minst.mobile.export import export
from minst.mobile.programs import real_frames
from minst.mobile.runtime import ExportedModel, require
from minst.model import MobileInst
from minst.options import Count, FrameSize, Range, check_call
from minst.samples import PHOTO, load_sample, weights_for
from minst.tracking import KernelTracker
from minst.visualize.masks import color_of

__all__ = ["PageServer", "lan_address", "make_server", "qr_code", "serve", "write_pages"]

PORT = 8867
PASSES = 3  # over the clip, for one measurement
ORT_VERSION = "1.26.0"
# the build that knows WASM alone is the smallest: 73 KB of script with its glue, 13 MB of program
ORT_FILES = {
    "ort.wasm.bundle.min.mjs": "sha384-c/j3bOrcHs8KY9g2f6bdoUnP02UAzmkc29rmGa/y5k1AUJqanFbqHyki702g28sW",  # noqa: E501
    "ort-wasm-simd-threaded.wasm": "sha384-wr7M1C6iNW3VC/2ZcY8NgYHkS1JqhtT6XO1KrErv3Sr588B9M0NzTOhBco0UgAZj",  # noqa: E501
}
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{ORT_VERSION}/dist/"
GET_ASSETS = (
    f"`npm pack onnxruntime-web@{ORT_VERSION}`, unpack it, and give its folder package/dist"
)
PAGE = Path(__file__).parent / "page"
WEIGHTS = "weights.bin"
LEAST_SHARED = 1024  # bytes
PALETTE_SIZE = 21  # colours before they repeat
HEADERS = {
    # an isolated page may share memory between threads, and no other page can look into it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# our own files, the runtime (fetched with its hash, then run as a blob), nothing else
POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "connect-src 'self' {cdn}; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def serve(open_browser: bool = False, **options) -> None:
    """Serve the page until Ctrl-C; prints its address, and for a network address a QR code.

    options: those of `make_server`. open_browser: show the page here.
    """
    with make_server(**options) as server:
        print("\n".join(_greeting(server.address)), flush=True)
        if open_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("the page is closed")


def make_server(
    host: str = "127.0.0.1", port: Annotated[int, Range(0, 65535)] = PORT, **pages
) -> PageServer:
    """The server, bound and filled: `serve_forever` answers, leaving its `with` block closes it.

    host: who can reach it; 127.0.0.1 is this machine alone, 0.0.0.0 everybody on the network (there
    is no password). port: 0 takes any free one. pages: as for `write_pages`. Raises what that
    raises, and OSError for a port in use, all before anything is exported or served.
    """
    check_call(make_server, {"host": host, "port": port})
    # an empty host would be all addresses, and nobody asked for that
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", host):
        raise ValueError(f"host is {host!r}; give a name or an IPv4 address, such as 127.0.0.1")
    write = _writer(**pages)
    server = PageServer(host, port)  # a port in use is said before the export, which takes seconds
    try:
        write(server.folder)
        policy = POLICY.format(cdn=CDN if pages.get("assets") is None else "")
        server.headers = {**HEADERS, "Content-Security-Policy": policy}
    except BaseException:
        server.server_close()
        raise
    return server


def write_pages(folder: str | Path, **pages) -> int:
    """The same pages for any server, in a new folder; how many bytes it has.

    pages:
        weights: shipped ones by name, or a folder; exported for frames of `size` (H, W), by default
            those of the clip. None: the usual ones for `sample`, and for the film of a photograph
            on a second page.
        sample: name of a shipped clip. reuse_interval, association: to begin with.
        programs: in the place of weights and size, a folder with key.onnx and reuse.onnx of
            `minst export --format onnx`.
        assets: a folder with onnxruntime-web's files, for networks without internet.
        passes: how often one measurement goes over the clip.
    Raises OSError for a file that is missing, ValueError (settings, sizes, files with another hash,
    a folder that holds something), ImportError (no ONNX), all before anything is exported.
    """
    write = _writer(**pages)
    with new_folder(folder) as new:
        write(new)
        return sum(path.stat().st_size for path in new.rglob("*") if path.is_file())


def _writer(
    weights: str | Path | None = None,
    sample: str = "easy",
    size: FrameSize | None = None,
    reuse_interval: Count = 3,
    association: Literal["mask", "cosine"] = "mask",
    assets: str | Path | None = None,
    programs: str | Path | None = None,
    passes: Count = PASSES,
) -> Callable[[Path], None]:
    """What writes the pages into a folder; all that can be wrong has been found before."""
    check_call(_writer, locals())
    if size is not None and programs is not None:
        what = f"size {size} and programs {programs}: exported programs have their size"
        raise ValueError(f"{what}; give one of them")
    pages = {sample: weights or weights_for(sample)[0]}
    other = weights_for(PHOTO)[0]
    if weights is programs is None and other not in pages.values():
        pages[PHOTO] = other
    clips = {name: load_sample(name) for name in pages}
    parameters = inspect.signature(KernelTracker).parameters
    setting = {name: p.default for name, p in parameters.items() if name != "model"}
    about = {
        "minst": minst.__version__,
        "passes": passes,
        "setting": setting | {"reuse_interval": reuse_interval, "association": association},
        "runtime": _runtime(assets),
        "palette": [color_of(identity) for identity in range(1, PALETTE_SIZE + 1)],
        "pages": {"" if name == sample else f"{name}/": name for name in pages},
    }
    if programs is None:
        require("onnx")
        for each in pages.values():
            MobileInst.from_pretrained(each)
    else:
        ExportedModel(programs, "onnx")

    def write(folder: Path) -> None:
        for (place, name), clip in zip(about["pages"].items(), clips.values()):
            shutil.copytree(PAGE, folder / place, dirs_exist_ok=True)
            if programs is None:
                shape = tuple(size or clip.image(0).shape[:2])
                export(pages[name], "onnx", folder / place, shape)
            else:
                _copy(("key.onnx", "reuse.onnx"), programs, folder / place)
            # addresses are relative, so that the folder may lie anywhere on a server
            told = {"sample": name, "frames": len(clip), "root": "../" if place else "./"}
            _write_clip(folder / place, about | told)
            _share_weights(folder / place)
        if assets is not None:
            _copy(ORT_FILES, assets, folder / "ort")

    return write


class PageServer(ThreadingHTTPServer):
    """A fresh `folder` on a socket; OSError, with what to do, where it cannot be had."""

    daemon_threads = True  # a visitor who is still loading does not keep Ctrl-C waiting
    request_queue_size = 64  # a class opens the page at once

    def __init__(self, host: str, port: int):
        self.headers: dict[str, str] = {}
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        try:
            super().__init__((host, port), partial(_Handler, directory=self.folder))
        except OSError as error:
            advice = "choose another with --port"
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                advice = "give an address of this machine with --host"
            why = error.strerror or error
            raise OSError(f"port {port} on {host} cannot be used ({why}); {advice}") from None

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the machine's name, which may take seconds offline."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def server_close(self) -> None:
        """Give the port back, and the folder."""
        super().server_close()
        self._temporary.cleanup()

    @property
    def address(self) -> str:
        """Where the page is; when all are served, as the network reaches it."""
        host, port = self.server_address[:2]
        return f"http://{lan_address() if host == '0.0.0.0' else host}:{port}/"


class _Handler(SimpleHTTPRequestHandler):
    """GET and HEAD of the files in the server's folder; it is not listed."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "minst", ""
    timeout = 60  # seconds that a silent visitor may hold a thread
    # not every system knows these
    extensions_map = {".mjs": "text/javascript; charset=utf-8", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        """Those of every answer are added."""
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: str) -> None:
        """There is nothing to see."""
        self.send_error(404)

    def handle(self) -> None:
        """Answer until the visitor closes the page."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):  # the visitor closed the page
            self.close_connection = True

    def log_message(self, *_) -> None:
        """Quiet: the terminal keeps showing the address."""


def lan_address() -> str:
    """The IPv4 address of this machine that others on the network can reach; else 127.0.0.1."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # sends nothing: asks which way a packet would leave (an address of RFC 5737)
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]
    return "127.0.0.1"


def qr_code(text: str) -> str:
    """`text` as a QR code of block characters; without the package qrcode, how to install it."""
    try:
        import qrcode
    except ModuleNotFoundError:
        return "(a QR code needs the package qrcode: `python -m minst env` says how to install it)"
    code = qrcode.QRCode(border=2)
    code.add_data(text)
    drawn = io.StringIO()
    code.print_ascii(out=drawn, invert=True)  # dark on light on a dark terminal
    return drawn.getvalue().rstrip()


def _greeting(address: str) -> list[str]:
    first = f"the page: {address}   (Ctrl-C ends it)"
    if "//127." in address or "localhost" in address:
        other = "for a phone in the same network, with a QR code: --host 0.0.0.0"
        return [first, f"for this machine alone; {other}"]
    return [first, qr_code(address), "whoever is in this network can open it; it is read-only"]


def _runtime(assets: str | Path | None) -> dict:
    """Where the page finds onnxruntime-web; files in `assets` are those of the hashes."""
    files = {}
    for name, pin in ORT_FILES.items():
        url = (CDN if assets is None else "ort/") + name
        files[Path(name).suffix[1:]] = {"url": url, "integrity": pin}
        if assets is None:
            continue
        path = Path(assets) / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; {GET_ASSETS}")
        if pin != "sha384-" + base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode():
            what = f"{path} is not that of onnxruntime-web {ORT_VERSION} (another hash)"
            raise ValueError(f"{what}; {GET_ASSETS}")
    return {"name": "onnxruntime-web", "version": ORT_VERSION, "files": files, "get": GET_ASSETS}


def _copy(names: Iterable[str], source: str | Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(Path(source) / name, folder)


def _share_weights(folder: Path) -> None:
    """Both programs hold nearly the same weights: each tensor goes once to weights.bin."""
    import onnx

    places: dict[bytes, int] = {}  # where the bytes of a tensor begin
    end = 0
    for path in (folder / "key.onnx", folder / "reuse.onnx"):
        program = onnx.load(path)
        for tensor in program.graph.initializer:
            content = tensor.raw_data
            if len(content) < LEAST_SHARED:
                continue
            if content not in places:
                places[content], end = end, end + len(content)
            where = {"offset": places[content], "length": len(content)}
            onnx.external_data_helper.set_external_data(tensor, WEIGHTS, **where)
            tensor.ClearField("raw_data")
        path.write_bytes(program.SerializeToString())
    (folder / WEIGHTS).write_bytes(b"".join(places))


def _write_clip(folder: Path, about: dict) -> None:
    """The clip for the programs of the folder, and about.json: what the page must know of both."""
    pair = ExportedModel(folder, "onnx")
    told = {**pair.key.metadata, "inputs": pair.reuse.metadata["inputs"]}
    about |= {name: told[name] for name in ("weights", "size", "classes", "inputs", "outputs")}
    # RGB bytes (T, H, W, 3): no picture format, no colour management, the very pixels of Python
    frames = real_frames(about["size"], about["frames"], about["sample"]).mul(255).round().byte()
    (folder / "clip.rgb").write_bytes(frames.permute(0, 2, 3, 1).numpy().tobytes())
    (folder / "about.json").write_text(json.dumps(about))
