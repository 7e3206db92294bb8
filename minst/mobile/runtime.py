"""The four formats, and their files, run: one as a function, two as a model for the tracker.

    lite         .ptl   PyTorch's lite interpreter     executorch   .pte   ExecuTorch
    torchscript  .pt    libtorch                       onnx         .onnx  ONNX Runtime

    key.*    frame          -> class_logits, objectness, kernels, mask_features, mask_logits
    reuse.*  frame, kernels -> mask_logits
                       ExportedModel("DIR")  --encode-->  ExportedFrame  -->  KernelTracker

Paper: kernel reuse. Every file holds metadata as JSON, under the name `METADATA`: classes, size,
normalisation, inputs and outputs, versions.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import logging
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minst.model import FrameOutput, apply_kernels

__all__ = ["FORMATS", "ExportedModel", "load_program"]

FORMAT_VERSION = 1
METADATA = "minst.json"
METADATA_METHOD = "minst"  # in an ExecuTorch file a method, which returns a constant
SEAL_KEY = "sha256"
# in protobuf one more metadata entry, "sha256" of 64 characters
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"

Run = Callable[..., "Tensor | Sequence[Tensor]"]
Loaded = tuple[Run | None, str | None]  # the program, and its metadata as text


class LoadedProgram(NamedTuple):
    """A program of a file: call it with its inputs in order; gives its outputs in order."""

    path: Path
    metadata: dict
    run: Run

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors of the shapes of metadata["inputs"] -> those of metadata["outputs"].

        Raises ValueError for other shapes.
        """
        wanted, given = self.metadata["inputs"], [list(x.shape) for x in inputs]
        if given != list(wanted.values()):
            said = ", ".join(f"{name} {shape}" for name, shape in wanted.items())
            other = "export it for another size with `minst export --size`"
            raise ValueError(f"{self.path} takes {said}; got {given}; {other}")
        out = self.run(*inputs)
        return (out,) if isinstance(out, Tensor) else tuple(out)


class ExportedFrame:
    """A frame that has been taken in but not computed: who asks for `out` runs the key program.

    Encoding is a part of both programs, so the first question decides which of them runs.
    `size` is (H, W).
    """

    def __init__(self, image: Tensor, key: LoadedProgram, reuse: LoadedProgram):
        self.image, self.key, self.reuse = image, key, reuse  # image (1, 3, H, W)
        self.size = tuple(image.shape[-2:])

    @cached_property
    def out(self) -> FrameOutput:
        """What the key program says; it runs once. Without Q_G, which is for training alone."""
        return FrameOutput(*self.key(self.image), global_queries=None)

    def masks(self, kernels: Tensor) -> Tensor:
        """Kernels (1, n, D), perhaps those of an earlier frame, on this frame -> (1, n, h, w)."""
        # On a key frame the mask features are there: `out` lies in the object once it is computed.
        if "out" in vars(self):
            return apply_kernels(kernels, self.out.mask_features)
        # The reuse program takes N kernels, no more and no fewer: the others are zeros.
        n, N = kernels.shape[1], self.reuse.metadata["inputs"]["kernels"][1]
        padded = F.pad(kernels, (0, 0, 0, N - n))  # (1, N, D)
        return self.reuse(self.image, padded)[0][:, :n]


class ExportedModel:
    """Two exported programs in the place of a MobileInst: `KernelTracker(ExportedModel("DIR"))`.

    Args:
        folder: with key.* and reuse.* of one format and one size.
        format: needed when the folder holds several.
    ONNX Runtime and ExecuTorch run on one thread, the others on those of torch. Raises as
    `load_program`, and ValueError when the two do not belong together.
    """

    def __init__(self, folder: str | Path, format: str | None = None):
        self.key, self.reuse = map(load_program, _pair(Path(folder), format))
        about = self.key.metadata
        for field in ("size", "weights", "classes"):
            if about[field] != self.reuse.metadata[field]:
                apart = f"{about[field]}, {self.reuse.metadata[field]}"
                raise ValueError(f"{folder}: key and reuse differ in {field}: {apart}")
        self.size = tuple(about["size"])
        self.config = SimpleNamespace(class_names=tuple(about["classes"]))

    def eval(self) -> ExportedModel:
        """Nothing to do: exported programs know no training."""
        return self

    def encode(self, image: Tensor) -> ExportedFrame:
        """A frame (1, 3, H, W) of the programs' size, floats in [0, 1]; ValueError for another."""
        if tuple(image.shape) != (1, 3, *self.size):
            given = f"is {tuple(image.shape[-2:])} (H, W)"
            raise ValueError(f"{given}, the programs are for {self.size}: `minst export --size`")
        return ExportedFrame(image, self.key, self.reuse)


def load_program(path: str | Path) -> LoadedProgram:
    """A file that `minst export` wrote.

    Raises FileNotFoundError, ValueError (unknown format, not readable, no metadata, another
    version) or ImportError (the runtime is not installed).
    """
    path = Path(path)
    formats = {about.suffix: format for format, about in FORMATS.items()}
    if path.suffix not in formats:
        raise ValueError(f"{path}: unknown format {path.suffix!r}; there are {', '.join(formats)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `minst export` writes it")
    format = formats[path.suffix]
    require(format, loading=True)
    try:
        run, text = FORMATS[format].load(path)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a runtime says of a broken file
        what = "cannot be loaded, it may be damaged or of another runtime's version"
        raise ValueError(f"{path} {what}: {' '.join(str(error).split())[:200]}") from None
    return LoadedProgram(path, _checked(text, path), run)


def require(format: str, loading: bool = False) -> None:
    """ImportError in one line that says what to install where a format cannot be had here.

    loading: files of it are run; else they are written as well.
    """
    for package in FORMATS[format].packages[-1 if loading else 0 :]:
        try:
            with quiet():
                importlib.import_module(package)
        except Exception as error:  # noqa: BLE001  a package for another torch raises what it likes
            name, why = package.partition(".")[0], " ".join(str(error).split())[:100]
            what = f"needs the package {name}, which cannot be imported ({why})"
            cure = "`python -m minst env` says how to install it"
            raise ImportError(f"the format {format} {what}; {cure}", name=name) from None
    if format == "lite" and not loading and not torch._C._is_xnnpack_enabled():
        raise ImportError(
            f"the format lite needs XNNPACK, and torch {torch.__version__} has none (no wheel from "
            '2.13 on has): python -m pip install "mobileinst[lite]" brings torch 2.12, or export '
            "with --format executorch, onnx or torchscript"
        )


def sealed(body: bytes) -> bytes:
    """A program and its SHA-256: to ONNX a metadata entry, to ExecuTorch bytes behind the end."""
    body += SEAL
    return body + hashlib.sha256(body).hexdigest().encode()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own insides.

    Deprecated names, shapes that a trace makes constant: nothing that a user could mend.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_seal(path: Path) -> None:
    """Neither runtime notices a wrong weight, and ExecuTorch ends the process on some files."""
    data = path.read_bytes()
    if data != sealed(data[: -len(SEAL) - 64]):
        wrong = "its SHA-256 is wrong or missing"
        raise ValueError(f"cut short or not written by `minst export`, {wrong}")


def _checked(text: str | None, path: Path) -> dict:
    """The metadata, of this version."""
    if text is None:
        what = f"has no {METADATA} inside: not written by `minst export`"
        raise ValueError(f"{path} {what}; export it again")
    try:
        about = json.loads(text)
        version = about["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its {METADATA} is damaged ({error}); export it again") from None
    if version != FORMAT_VERSION:
        what = f"is of format version {version}, this minst reads {FORMAT_VERSION}"
        raise ValueError(f"{path} {what}; export it again")
    return about


def _load_archive(path: Path) -> Loaded:
    """TorchScript, lite or not: a zip archive, whose metadata is read before anything is run."""
    from torch.jit.mobile import _load_for_lite_interpreter

    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"checksum of {broken}")
        names = [name for name in archive.namelist() if name.endswith(f"extra/{METADATA}")]
        if not names:
            return None, None
        about = archive.read(names[0]).decode()
    load = _load_for_lite_interpreter if path.suffix == ".ptl" else torch.jit.load
    return load(str(path)), about


def _load_executorch(path: Path) -> Loaded:
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

    _check_seal(path)
    with _without_stderr():
        # one pool a process: replacing it while a program holds it hangs, so it is done once
        if portable_lib._threadpool_get_thread_count() != 1:
            portable_lib._unsafe_reset_threadpool(1)
        consistency = Verification.InternalConsistency
        program = Runtime.get().load_program(path, verification=consistency)
        if METADATA_METHOD not in program.method_names:
            return None, None
        about = program.load_method(METADATA_METHOD).execute([])[0]
        method = program.load_method("forward")

    # the program must live as long as its method
    def run(*inputs: Tensor, program=program) -> list[Tensor]:
        # outputs lie in memory that the next call overwrites
        return [x.clone() for x in method.execute([x.contiguous() for x in inputs])]

    return run, about


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """ExecuTorch tells the terminal, and a notebook's sys.stderr, how it counts processors."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _load_onnx(path: Path) -> Loaded:
    import onnxruntime

    _check_seal(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = (np.ascontiguousarray(x.numpy()) for x in inputs)
        return [torch.from_numpy(x) for x in session.run(None, dict(zip(names, arrays)))]

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA)


class Format(NamedTuple):
    """What is known of a format: how it is written stands in `export.WRITERS`."""

    suffix: str
    load: Callable[[Path], Loaded]
    packages: tuple[str, ...] = ()  # beyond torch, to write it; the last one runs it


FORMATS = {
    "lite": Format(".ptl", _load_archive),
    "torchscript": Format(".pt", _load_archive),
    "executorch": Format(".pte", _load_executorch, ("executorch.exir", "executorch.runtime")),
    "onnx": Format(".onnx", _load_onnx, ("onnx", "onnxscript", "onnxruntime")),
}


def _pair(folder: Path, format: str | None) -> tuple[Path, Path]:
    """key.* and reuse.* of the folder."""
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is {format!r}; choose one of {', '.join(FORMATS)}")
    endings = [about.suffix for name, about in FORMATS.items() if format in (None, name)]
    pairs = [(folder / f"key{ending}", folder / f"reuse{ending}") for ending in endings]
    found = [(key, reuse) for key, reuse in pairs if key.is_file() and reuse.is_file()]
    if not found:
        ending = ".*" if format is None else endings[0]
        names = f"key{ending} and reuse{ending}"
        what = f"{folder} does not hold {names}; `minst export --part full` writes them"
        raise FileNotFoundError(what)
    if len(found) > 1:
        several = ", ".join(key.suffix for key, _ in found)
        raise ValueError(f"{folder} holds several formats ({several}); choose one with format=")
    return found[0]
