"""minst.mobile.export, runtime, programs: files compute what the model does, say what they are, and fail in one line.

The oracle is the model itself, called as a user calls it: unfused, `model(frame)`, and K . X_mask as an einsum.
ExecuTorch's compiler takes most of the time, so it exports once, and of four equal transformer blocks one.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import random
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from minst.mobile import export as exporting
from minst.mobile import runtime
from minst.mobile.export import WRITERS, export, metadata, parity
from minst.mobile.programs import PARTS, Program, make_programs, real_frames, settled_model
from minst.mobile.runtime import FORMATS, ExportedModel, load_program, require, sealed
from minst.model import MobileInst
from minst.samples import load_sample
from minst.tracking import KernelTracker

SUFFIXES = {name: about.suffix for name, about in FORMATS.items()}
pytestmark = pytest.mark.usefixtures("one_thread")
CLIP = (192, 256)  # (H, W) of the shipped clips
KEY = ["class_logits", "objectness", "kernels", "mask_features", "mask_logits"]


def has(format: str) -> str:
    """The format, where its packages are; else the test is skipped."""
    try:
        require(format)
    except ImportError as error:
        pytest.skip(str(error))
    return format


@pytest.fixture(scope="module")
def shapes() -> MobileInst:
    return MobileInst.from_pretrained("shapes-tiny")


@pytest.fixture(scope="module")
def network(shapes):
    """network(format) -> the model whose programs `folder` holds: shapes-tiny; for ExecuTorch with one block."""
    short = copy.deepcopy(shapes)
    short.backbone.trans.transformer_blocks = short.backbone.trans.transformer_blocks[:1]
    return lambda format: short if format == "executorch" else shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    """folder(format) -> where key.* and reuse.* of `network` lie, exported once for the whole module."""
    made = {}

    def get(format: str):
        if format not in made:
            out = tmp_path_factory.mktemp(has(format))
            weights = network(format) if format == "executorch" else "shapes-tiny"
            assert [path.name for path in export(weights, format, out)] == [
                f"key{SUFFIXES[format]}", f"reuse{SUFFIXES[format]}"
            ]  # fmt: skip
            made[format] = out
        return made[format]

    return get


@pytest.fixture(scope="module")
def masks(tmp_path_factory, tiny):
    """masks(format) -> the smallest file there is: a program without weights."""
    made = {}

    def get(format: str):
        if format not in made:
            made[format] = export(
                tiny, has(format), tmp_path_factory.mktemp(format), (64, 64), "masks"
            )[0]
        return made[format]

    return get


@torch.inference_mode()
def truth(model: MobileInst, frame: torch.Tensor) -> dict[str, torch.Tensor]:
    out = model.eval()(frame)
    return {name: getattr(out, name) for name in KEY}


def close(got, want) -> bool:
    """Within 1e-4 of the largest value."""
    return got.shape == want.shape and bool(
        (got - want).abs().max() <= 1e-4 * want.abs().max().clamp(min=1)
    )


@pytest.mark.parametrize("format", SUFFIXES)
def test_files_compute_what_the_model_does(folder, network, format):
    frames = real_frames(CLIP, 6, "occlusion")[-2:]  # none that was exported with
    key, reuse = (
        load_program(folder(format) / f"{name}{SUFFIXES[format]}") for name in ("key", "reuse")
    )
    first, second = (truth(network(format), frame[None]) for frame in frames)
    for got, want in zip(key(frames[:1]), first.values(), strict=True):
        assert close(got, want)
    again = key(frames[1:])
    assert not torch.equal(
        again[0], key(frames[:1])[0]
    )  # one call's outputs are not overwritten by the next
    assert close(again[0], second["class_logits"])
    # reuse: kernels of the first frame on the second
    want = torch.einsum("bnd,bdhw->bnhw", first["kernels"], second["mask_features"])
    (got,) = reuse(frames[1:], first["kernels"])
    assert close(got, want)


@pytest.mark.parametrize("format", SUFFIXES)
def test_files_say_what_they_are(folder, shapes, format):
    about = load_program(folder(format) / f"key{SUFFIXES[format]}").metadata
    weights = "a model" if format == "executorch" else "shapes-tiny"
    assert (about["program"], about["weights"], about["size"]) == ("key", weights, [192, 256])
    assert about["classes"] == list(shapes.config.class_names) and len(about["classes"]) == 8
    assert about["inputs"] == {"frame": [1, 3, 192, 256]}
    n, d, h, w = shapes.config.num_queries, shapes.config.dim, 24, 32
    assert about["outputs"] == {"class_logits": [1, n, 8], "objectness": [1, n], "kernels": [1, n, d],
                                "mask_features": [1, d, h, w], "mask_logits": [1, n, h, w]}  # fmt: skip
    assert list(about["outputs"]) == KEY
    normalisation = about["normalisation"]
    assert normalisation["inside"] is True and normalisation["mean"] == pytest.approx(
        [0.485, 0.456, 0.406]
    )
    assert (
        normalisation["std"] == pytest.approx([0.229, 0.224, 0.225])
        and "RGB" in normalisation["input"]
    )
    assert about["format_version"] == 1 and about["torch"] == torch.__version__ and about["minst"]
    assert (
        "upsampling" in about["postprocessing"]
        and about["token_stride"] == shapes.config.token_stride
    )
    reuse = load_program(folder(format) / f"reuse{SUFFIXES[format]}").metadata
    assert reuse["inputs"] == {"frame": [1, 3, 192, 256], "kernels": [1, n, d]}
    assert reuse["program"] == "reuse" and reuse["outputs"] == {"mask_logits": [1, n, h, w]}


@pytest.mark.parametrize("format", ["lite", "onnx"])
def test_a_whole_clip_is_tracked_alike(folder, shapes, format):
    frames = list(itertools.islice(load_sample("easy"), 14))
    want, got = KernelTracker(shapes), KernelTracker(ExportedModel(folder(format)))
    seen = 0
    for frame in frames:
        a, b = want.step(frame), got.step(frame)
        assert (a.ids, a.labels, a.queries, a.is_key) == (b.ids, b.labels, b.queries, b.is_key)
        assert b.scores == pytest.approx(a.scores, abs=1e-3)
        if a.ids:  # a pixel at probability 0.5 may fall on either side
            assert (a.masks() != b.masks()).sum() <= 2e-4 * a.masks().size
        seen += len(a.ids)
    assert seen >= 2 * len(frames)  # there was something to be alike


def test_lite_files_carry_the_real_frames(folder):
    module = _mobile(folder("lite") / "reuse.ptl")
    bundled = module.run_method("get_all_bundled_inputs")
    frames, clip = real_frames(CLIP, 3), load_sample("easy")
    assert len(bundled) == 3
    for (frame, kernels), want, image in zip(bundled, frames, clip):
        assert torch.equal(frame[0], want) and frame.shape == (1, 3, 192, 256)
        assert torch.equal(
            (frame[0] * 255).round().to(torch.uint8), torch.tensor(image).permute(2, 0, 1)
        )
        assert kernels.abs().max() > 0.1
    assert (folder("lite") / "reuse.ptl").stat().st_size < (
        folder("lite") / "key.ptl"
    ).stat().st_size


@pytest.mark.parametrize(
    ("part", "size"), [("full", (100, 130)), ("features", (100, 130)), ("masks", (64, 64)), ("reuse", (64, 64))]
)
def test_every_part_at_sizes_that_need_padding(shapes, tmp_path, part, size):
    paths = export(shapes, "torchscript", tmp_path, size, part)
    assert [path.stem for path in paths] == list(PARTS[part])
    frame = real_frames(size, 2)[1:]
    want = truth(shapes, frame)
    with torch.inference_mode():
        want["x6"] = shapes.encode(frame).x6
    for path in paths:
        program = load_program(path)
        given = {"frame": frame, "kernels": want["kernels"], "mask_features": want["mask_features"]}
        out = program(*(given[name] for name in program.metadata["inputs"]))
        for name, got in zip(program.metadata["outputs"], out, strict=True):
            assert list(got.shape) == program.metadata["outputs"][name] and close(
                got, want[name]
            ), name


def test_reuse_programs_leave_the_instance_decoder_out(tiny):
    key, reuse = make_programs(tiny, (64, 64))
    assert not any("instance_decoder" in name for name, _ in reuse.module.named_parameters())
    assert any("instance_decoder" in name for name, _ in key.module.named_parameters())
    assert "instance_decoder" in dict(tiny.named_children())  # the model keeps it


def test_export_leaves_the_model_as_it_was(tiny, tmp_path):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    export(tiny, "torchscript", tmp_path / "new" / "folder", (64, 64), "features")
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert len(before) == len(tiny.state_dict())  # not fused


def test_a_settled_model_is_the_same_every_time_and_takes_no_random_numbers():
    torch.manual_seed(5)
    a, after = settled_model("shapes-tiny", size=(64, 64)), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    b = settled_model("shapes-tiny", size=(64, 64))
    assert (
        all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
        and not a.training
    )
    assert (
        float(
            a.backbone.state_dict()[next(k for k in a.backbone.state_dict() if "running_mean" in k)]
            .abs()
            .max()
        )
        > 0
    )


def test_parity_is_asserted_and_the_old_file_stays(tiny, tmp_path, monkeypatch):
    (path,) = export(tiny, "torchscript", tmp_path, (64, 64), "features")
    before, write = path.read_bytes(), WRITERS["torchscript"]

    def wrong(program: Program, about: dict) -> bytes:
        with torch.no_grad():
            next(program.module.parameters()).mul_(1.01)
        return write(program, about)

    monkeypatch.setitem(WRITERS, "torchscript", wrong)
    with pytest.raises(
        ValueError, match=r"features' differs from eager PyTorch by .* 1e-04 is allowed"
    ):
        export(tiny, "torchscript", tmp_path, (64, 64), "features")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["features.pt"]


def test_parity_measures_every_example(tiny, tmp_path):
    program = make_programs(tiny, (64, 64), "features")[0]
    path = tmp_path / "features.pt"
    path.write_bytes(WRITERS["torchscript"](program, metadata(program, tiny, "tiny", (64, 64))))
    assert max(parity(path, program).values()) <= 1e-4

    class Off(torch.nn.Module):
        outputs = program.outputs

        def forward(self, frame):
            x6, mask_features = program.module(frame)
            return x6, mask_features + 0.5 * torch.equal(frame, program.examples[-1]["frame"])

    with pytest.raises(ValueError, match="mask_features of 'features' differs"):
        parity(path, program._replace(module=Off()))
    off = program._replace(module=Off()).differences(load_program(path))
    largest = max(1.0, float(Off()(program.examples[-1]["frame"])[1].detach().abs().max()))
    assert off["mask_features"] == pytest.approx(0.5 / largest, rel=0.01) and off["x6"] <= 1e-4


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"format": "tflite"},
            "format is 'tflite'; choose one of lite, torchscript, executorch, onnx",
        ),
        ({"part": "half"}, "part is 'half'; choose one of full, features, masks"),
        ({"size": (63, 128)}, r"size is \(63, 128\); it must be at least 64"),
        ({"size": (10**6, 64)}, "at most 8192"),
        ({"size": (128, 32)}, r"size is \(128, 32\); it must be at least 64"),
    ],
)
def test_bad_arguments(tiny, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(tiny, **{"format": "torchscript", "out": tmp_path / "new", **arguments})
    assert not (tmp_path / "new").exists()


def test_places_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    arguments = {"format": "torchscript", "size": (64, 64), "part": "masks"}
    (tmp_path / "file").write_text("kept")
    with pytest.raises((OSError, ValueError), match="file"):
        export(tiny, out=tmp_path / "file", **arguments)
    with pytest.raises(OSError, match="file"):
        export(tiny, out=tmp_path / "file" / "below", **arguments)
    assert (tmp_path / "file").read_text() == "kept"

    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "touch", refused)
    with pytest.raises(PermissionError, match="closed"):
        export(tiny, out=tmp_path / "closed", **arguments)


def test_a_torch_without_xnnpack_says_so_and_the_others_go_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch._C, "_is_xnnpack_enabled", lambda: False)
    arguments = {"out": tmp_path, "size": (64, 64), "part": "masks"}
    with pytest.raises(
        ImportError,
        match=r"lite needs XNNPACK.*2\.13.*mobileinst\[lite\].*--format executorch, onnx",
    ) as error:
        export(tiny, "lite", **arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
    for format in ("torchscript", "onnx"):
        assert export(tiny, has(format), **arguments)[0].is_file()


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="`minst export` writes it"):
        load_program(tmp_path / "key.onnx")
    (tmp_path / "key.tflite").write_bytes(b"x")
    with pytest.raises(
        ValueError, match="unknown format '.tflite'; there are .ptl, .pt, .pte, .onnx"
    ):
        load_program(tmp_path / "key.tflite")
    with pytest.raises(FileNotFoundError, match="does not hold key.* and reuse.*minst export"):
        ExportedModel(tmp_path)


@pytest.mark.parametrize("format", SUFFIXES)
def test_damaged_files_are_refused(masks, tmp_path, format):
    whole = masks(format).read_bytes()
    middle, path = len(whole) // 2, tmp_path / f"masks{SUFFIXES[format]}"
    flipped = bytearray(whole)
    flipped[middle] ^= 1
    bad = {"empty": b"", "garbage": b"hello" * 99, "half": whole[:middle], "almost": whole[:-9]}
    if format in (
        "executorch",
        "onnx",
    ):  # a zip archive has checksums of its own, but not of its alignment
        bad |= {"one bit": bytes(flipped), "first byte": b"?" + whole[1:], "longer": whole + b"\0"}
    for what, data in bad.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged") as error:
            load_program(path)
            pytest.fail(what)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("format", ["lite", "torchscript"])
def test_no_flipped_bit_of_an_archive_changes_results(masks, tmp_path, format):
    whole, rng, refused = masks(format).read_bytes(), random.Random(0), 0
    inputs = [
        torch.rand(shape) for shape in load_program(masks(format)).metadata["inputs"].values()
    ]
    (want,), path = load_program(masks(format))(*inputs), tmp_path / f"masks{SUFFIXES[format]}"
    for _ in range(30):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert torch.equal(load_program(path)(*inputs)[0], want)
        except ValueError:
            refused += 1
    assert refused


@pytest.mark.parametrize("format", ["lite", "torchscript"])
def test_a_flipped_bit_in_the_weights_of_an_archive_is_seen(folder, tmp_path, format):
    data = bytearray((folder(format) / f"key{SUFFIXES[format]}").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / f"key{SUFFIXES[format]}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged .*checksum of "):
        load_program(path)


def test_metadata_of_another_kind(masks, tmp_path):
    onnx, path = pytest.importorskip("onnx"), tmp_path / "masks.onnx"
    model = onnx.load(masks("onnx"))

    def write(text: str | None) -> None:
        kept = (
            [onnx.StringStringEntryProto(key="minst.json", value=text)] if text is not None else []
        )
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        path.write_bytes(sealed(model.SerializeToString()))

    about = load_program(masks("onnx")).metadata
    write(json.dumps({**about, "format_version": 2}))
    with pytest.raises(ValueError, match="of format version 2, this minst reads 1"):
        load_program(path)
    for text in ("{", "[]", "{}", "7", "null"):
        write(text)
        with pytest.raises(ValueError, match="its minst.json is damaged"):
            load_program(path)
    write(None)
    with pytest.raises(ValueError, match="has no minst.json inside"):
        load_program(path)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="not written by `minst export`"):
        load_program(path)


@pytest.mark.parametrize("format", ["lite", "torchscript"])
def test_archives_without_metadata(masks, tmp_path, format):
    path = tmp_path / f"masks{SUFFIXES[format]}"
    with zipfile.ZipFile(masks(format)) as whole, zipfile.ZipFile(path, "w") as less:
        for name in whole.namelist():
            if "minst.json" not in name:
                less.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match="has no minst.json inside"):
        load_program(path)


def test_key_and_reuse_must_belong_together(tiny, tmp_path):
    about = metadata(make_programs(tiny, (64, 64))[0], tiny, "a", (64, 64))
    (small,) = make_programs(
        tiny, (64, 64), "masks"
    )  # what they say decides, not what they compute
    (tmp_path / "key.pt").write_bytes(WRITERS["torchscript"](small, about))
    for field, value in {"size": [64, 128], "weights": "b", "classes": ["fish"]}.items():
        (tmp_path / "reuse.pt").write_bytes(WRITERS["torchscript"](small, {**about, field: value}))
        with pytest.raises(ValueError, match=f"key and reuse differ in {field}: "):
            ExportedModel(tmp_path)
    (tmp_path / "reuse.pt").write_bytes(WRITERS["torchscript"](small, about))
    assert ExportedModel(tmp_path).size == (64, 64)
    (tmp_path / "reuse.pt").unlink()
    with pytest.raises(FileNotFoundError, match="does not hold"):
        ExportedModel(tmp_path)


def test_a_folder_of_several_formats_and_frames_of_another_size(tiny, tmp_path):
    export(tiny, "torchscript", tmp_path, (64, 128))
    for name in ("key", "reuse"):
        (tmp_path / f"{name}.onnx").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"several formats \(.pt, .onnx\); choose one with format="
    ):
        ExportedModel(tmp_path)
    with pytest.raises(FileNotFoundError, match="key.ptl and reuse.ptl"):
        ExportedModel(tmp_path, "lite")
    with pytest.raises(ValueError, match="format is 'pt'"):
        ExportedModel(tmp_path, "pt")
    tracker = KernelTracker(ExportedModel(tmp_path, "torchscript"), score_threshold=0.3)
    tracker.step(torch.rand(3, 64, 128))
    with pytest.raises(
        ValueError, match=r"frame 1: is \(128, 64\) \(H, W\), the programs are for \(64, 128\)"
    ):
        tracker.step(torch.rand(3, 128, 64))
    assert tracker.step(torch.rand(3, 64, 128)).frame == 1  # the state was left as it was


def test_a_frame_runs_the_key_program_once_and_reuse_only_without_it(tiny, tmp_path):
    export(tiny, "torchscript", tmp_path, (64, 128))
    model, ran = ExportedModel(tmp_path), []

    def counted(name: str, run):
        return lambda *inputs: (ran.append(name), run(*inputs))[1]

    for name in ("key", "reuse"):
        program = getattr(model, name)
        setattr(model, name, program._replace(run=counted(name, program.run)))
    # a real frame: noise makes the activations of random weights so large that rounding alone is seen
    image = real_frames((64, 128), 1)
    kernels = torch.randn(1, 3, tiny.config.dim, generator=torch.Generator().manual_seed(0))
    want = tiny.encode(image)
    frame = model.encode(image)
    assert frame.size == (64, 128) and ran == []  # nothing yet: who asks decides
    assert close(frame.masks(kernels), want.masks(kernels).detach()) and ran == ["reuse"]
    assert close(frame.out.kernels, want.out.kernels.detach()) and frame.out.global_queries is None
    assert close(frame.out.scores(), want.out.scores().detach()) and ran == ["reuse", "key"]
    # now the mask features are known, and no program is needed
    assert close(frame.masks(kernels), want.masks(kernels).detach()) and ran == ["reuse", "key"]


def test_programs_take_their_own_shapes_alone(masks):
    program = load_program(masks("torchscript"))
    with pytest.raises(
        ValueError, match=r"takes kernels \[1, 8, 64\], mask_features .*got \[\[1, 8, 64\]\]"
    ):
        program(torch.rand(1, 8, 64))


def test_a_missing_runtime_is_named(masks, monkeypatch):
    path = masks("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="onnx needs the package onnxruntime, .*minst env"):
        load_program(path)
    with pytest.raises(ImportError, match="onnx needs the package onnxruntime, .*minst env"):
        export("shapes-tiny", "onnx", path.parent / "new")
    assert not (path.parent / "new").exists()


@pytest.mark.parametrize("format", ["lite", "torchscript", "onnx"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tiny, tmp_path, format):
    """No file may grow beyond 1,000 bytes: torch's own writers would end the process here."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / f"masks{SUFFIXES[format]}").write_text("kept")
    has(format)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="not written") as caught:
            export(tiny, format, tmp_path, (64, 64), "masks")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "kept" and caught.value.filename == str(left)


STUCK = """
import sys, time
from minst.cli import main
from minst.mobile import export
export.parity = lambda *_: time.sleep(1200)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_kill_leaves_the_file_of_before_and_the_next_export_no_rubbish(tiny, tmp_path):
    (tmp_path / "masks.pt").write_text("before")
    command = ["export", "--format", "torchscript", "--part", "masks", "--size", "64x64"]
    exporting = subprocess.Popen([sys.executable, "-c", STUCK, *command, "--out", str(tmp_path)])
    while not any(path.stat().st_size for path in tmp_path.glob(".masks.*.pt")):
        assert exporting.poll() is None
        time.sleep(0.05)
    exporting.kill()
    assert exporting.wait(1200) == -signal.SIGKILL
    assert (tmp_path / "masks.pt").read_text() == "before" and len(list(tmp_path.iterdir())) == 2
    (path,) = export(tiny, "torchscript", tmp_path, (64, 64), "masks")
    assert list(tmp_path.iterdir()) == [path] and load_program(path).metadata["program"] == "masks"


def _mobile(path):
    from torch.jit.mobile import _load_for_lite_interpreter

    return _load_for_lite_interpreter(str(path))


def test_a_notebooks_stderr_stays_quiet_too(monkeypatch):
    """ExecuTorch's bindings write to Python's sys.stderr, which in a notebook is no file of the system."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with runtime._without_stderr():
        print("Resetting threadpool to 1 threads.", file=sys.stderr)
    assert said.getvalue() == "" and sys.stderr is said
