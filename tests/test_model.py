"""The whole model: shapes at any size, batches, padding, export, folding, files, switches, what it
costs."""

import copy
import io
import json
import math
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from minst.config import PRESETS, MobileInstConfig
from minst.data.batches import pad_batch
from minst.data.shapes import ShapesConfig, shapes_clip
from minst.macs import summary
from minst.model import FrameOutput, MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.samples import weights_names


def frames(batch, height, width, seed=0):
    """Smooth random pictures, as frames are."""
    coarse = torch.rand(
        batch, 3, -(-height // 8), -(-width // 8), generator=torch.Generator().manual_seed(seed)
    )
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


def assert_same(ours, theirs, tolerance=1e-4):
    for a, b, name in zip(ours, theirs, FrameOutput._fields, strict=True):
        assert a.shape == b.shape, name
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name


def shapes(out):
    return {name: tuple(value.shape) for name, value in out._asdict().items()}


def expected_shapes(config, batch, height, width):
    n, d, h, w = config.num_queries, config.dim, -(-height // 8), -(-width // 8)
    return {
        "class_logits": (batch, n, config.num_classes),
        "objectness": (batch, n),
        "kernels": (batch, n, d),
        "mask_features": (batch, d, h, w),
        "mask_logits": (batch, n, h, w),
        "global_queries": (batch, n, d),
    }


@torch.no_grad()
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset(preset):
    config = MobileInstConfig.preset(preset)
    out = MobileInst(config).eval()(frames(1, 64, 128))
    assert shapes(out) == expected_shapes(config, 1, 64, 128)
    assert all(torch.isfinite(value).all() for value in out)


@torch.no_grad()
@settings(max_examples=10)
@given(height=st.integers(64, 140), width=st.integers(64, 140), batch=st.integers(1, 2))
def test_any_size(tiny, height, width, batch):
    out = tiny(frames(batch, height, width))
    assert shapes(out) == expected_shapes(tiny.config, batch, height, width)


@torch.no_grad()
def test_masks_are_kernels_times_features_and_scores_a_geometric_mean(tiny):
    out = tiny(frames(2, 65, 97))
    torch.testing.assert_close(
        out.mask_logits,
        torch.einsum("bnd,bdhw->bnhw", out.kernels, out.mask_features),
        atol=1e-4,
        rtol=1e-4,
    )
    expected = out.class_logits.sigmoid().mul(out.objectness.sigmoid().unsqueeze(-1)) ** 0.5
    torch.testing.assert_close(out.scores(), expected)
    assert_same(tiny.decode(tiny.encode(frames(2, 65, 97))), out, 0)


# --------------------------------------------------------------------------------- an encoded frame


class Counting(nn.Module):
    """A module that counts how often it is called."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *inputs):
        self.calls += 1
        return self.inner(*inputs)


@torch.no_grad()
def test_a_frame_is_decoded_once_and_only_when_it_is_asked_for(make_model):
    model = make_model()
    x = frames(2, 70, 97)
    expected = model(x)
    model.instance_decoder = decoder = Counting(model.instance_decoder)
    frame = model.encode(x)
    frame.masks(expected.kernels), frame.x_mask, frame.select(slice(1))
    assert decoder.calls == 0
    first, again = frame.out, frame.out
    assert first is again and decoder.calls == 1
    assert_same(first, expected, 0)
    assert model.encode(x).out is not first and decoder.calls == 2  # another frame is another one


@torch.no_grad()
@settings(max_examples=10)
@given(height=st.integers(64, 140), width=st.integers(64, 140))
def test_x_mask_is_the_mask_feature_without_its_padding(tiny, height, width):
    frame = tiny.encode(frames(1, height, width))
    padded = frame.padded_x_mask
    assert padded.shape == (1, 64, -(-height // 64) * 8, -(-width // 64) * 8)
    # cell (i, j) belongs to the frame if its first pixel (8 i, 8 j) does
    rows = [i for i in range(padded.shape[2]) if 8 * i < height]
    columns = [j for j in range(padded.shape[3]) if 8 * j < width]
    assert torch.equal(frame.x_mask, padded[:, :, rows][:, :, :, columns])
    assert torch.equal(frame.x_mask, frame.out.mask_features) and frame.size == (height, width)
    assert torch.equal(frame.masks(frame.out.kernels), frame.out.mask_logits)


@torch.no_grad()
@pytest.mark.parametrize("which", [slice(0, 1), slice(1, None), slice(None, None, 2)], ids=str)
def test_some_frames_of_a_batch_are_those_frames_encoded_alone(tiny, which):
    """Also in their padding: the first frame is smaller than its batch."""
    batch, mask = pad_batch(
        [frames(1, 70, 90)[0], frames(1, 100, 128, 1)[0], frames(1, 100, 128, 2)[0]]
    )
    chosen, alone = tiny.encode(batch, mask).select(which), tiny.encode(batch[which], mask[which])
    assert chosen.size == alone.size == (100, 128)
    assert torch.equal(chosen.token_padding, alone.token_padding)
    torch.testing.assert_close(chosen.x6, alone.x6, atol=1e-4, rtol=1e-4)
    assert_same(chosen.out, alone.out)
    assert tiny.encode(frames(2, 64, 64)).select(slice(1)).token_padding is None


@torch.no_grad()
def test_kernels_of_one_frame_draw_on_another(tiny):
    """What kernel reuse does: K of frame t, X_mask of frame t + 1."""
    now, later = (tiny.encode(frames(1, 65, 97, seed)) for seed in (1, 2))
    expected = torch.einsum("bnd,bdhw->bnhw", now.out.kernels, later.out.mask_features)
    torch.testing.assert_close(later.masks(now.out.kernels), expected, atol=1e-4, rtol=1e-4)
    assert later.masks(now.out.kernels[:, :0]).shape == (1, 0, 9, 13)


def test_an_image_becomes_a_batch_of_one():
    bytes_ = torch.randint(256, (64, 70, 3), dtype=torch.uint8)
    batch = image_to_batch(bytes_.numpy())
    assert batch.dtype == torch.float32 and torch.equal(batch, bytes_.permute(2, 0, 1)[None] / 255)
    floats = torch.rand(3, 64, 70)
    assert torch.equal(image_to_batch(floats), floats[None])
    # what a user may have instead: the same image
    same = (bytes_, bytes_.permute(2, 0, 1), bytes_.numpy()[::-1, ::-1][::-1, ::-1])
    for image in (*same, np.asfortranarray(bytes_.numpy()), Image.fromarray(bytes_.numpy())):
        assert torch.equal(image_to_batch(image), batch)
    for image in (floats.numpy(), floats.double().numpy(), floats.permute(1, 2, 0).numpy()):
        torch.testing.assert_close(image_to_batch(image).float(), floats[None])
    grey = Image.new("L", (70, 64), 51)
    assert torch.equal(image_to_batch(grey), torch.full((1, 3, 64, 70), 0.2))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (torch.rand(1, 3, 64, 70), "one frame"),
        (torch.rand(64, 70), "must be .3, H, W. or .H, W, 3., got .64, 70."),
        (torch.rand(4, 64, 70), "got .1, 4, 64, 70."),
        ("film.mp4", "must be an image, got str"),
        (None, "must be an image, got NoneType"),
        (np.zeros((64, 70, 3), int), "must be an image, got ndarray of int64"),
        (np.full((64, 70, 3), 200.0), r"floats in \[0, 1\], got 200 .. 200; divide bytes by 255"),
        (torch.full((3, 64, 70), math.nan), "NaN"),
    ],
)
def test_what_is_no_image_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        image_to_batch(wrong)


# ------------------------------------------------------------------------------------------ batches


@torch.no_grad()
def test_one_batch_is_its_frames_one_by_one(tiny):
    batch = frames(3, 100, 128)
    out = tiny(batch)
    for i in range(3):
        assert_same([value[i : i + 1] for value in out], tiny(batch[i : i + 1]))


@torch.no_grad()
def test_frames_are_normalised_inside(tiny):
    plain = copy.deepcopy(tiny)
    plain.pixel_mean.zero_(), plain.pixel_std.fill_(1.0)
    x = 0.3 + 0.4 * frames(1, 64, 64)  # or else what is normalised looks it, and is refused
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    assert_same(plain((x - mean) / std), tiny(x))


@pytest.mark.parametrize(
    "bad, message",
    [
        (torch.zeros(3, 64, 64), r"\(B, 3, H, W\), got \(3, 64, 64\)"),
        (torch.zeros(1, 4, 64, 64), "got"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "uint8; divide bytes by 255"),
        (torch.zeros(1, 3, 63, 80), r"at least 64 x 64, got \(63, 80\)"),
        (np.zeros((1, 3, 64, 64)), "must be a tensor .B, 3, H, W., got ndarray"),
        ("film.mp4", "got str"),
        (torch.rand(1, 3, 64, 64) * 255, "divide bytes by 255"),
        ((torch.rand(1, 3, 64, 64) - 0.45) / 0.22, "leave normalising to the model"),
        (torch.full((1, 3, 64, 64), math.nan), "got nan .. nan; .* NaN out"),
        (torch.full((1, 3, 64, 64), -math.inf), "got -inf .. -inf"),
    ],
)
def test_bad_frames_are_refused(tiny, bad, message):
    with pytest.raises(ValueError, match=message):
        tiny(bad)


# ------------------------------------------------------------------------------------------ padding


def moved(model, frame, beside):
    """By how much `frame` comes out otherwise when it shares a batch with `beside`: largest and
    mean change of mask probabilities, the same of class scores, mean IoU of the masks that score
    0.3 or more alone."""
    alone = model(frame[None])
    padded = model(*pad_batch([frame, beside]))
    h, w = alone.mask_logits.shape[-2:]
    before, after = alone.mask_logits.sigmoid()[0], padded.mask_logits[0, :, :h, :w].sigmoid()
    masks, scores = (after - before).abs(), (padded.scores()[0] - alone.scores()[0]).abs()
    live = alone.scores()[0].amax(-1) >= 0.3
    a, b = before[live] >= 0.5, after[live] >= 0.5
    iou = (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)
    return torch.stack(
        [masks.max(), masks.mean(), scores.max(), scores.mean(), iou.mean().nan_to_num(1.0)]
    )


def shapes_frame(height, width, index):
    image = (
        shapes_clip("val", index, ShapesConfig(width=width, height=height, frames=8))
        .render(3)
        .image
    )
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@torch.no_grad()
@pytest.mark.parametrize("size", [(128, 192), (120, 180)], ids=["multiples of 64", "any size"])
def test_padding_to_more_than_its_own_multiple_moves_a_frame(size):
    """The figures of model.py's docstring, within loose bounds (12 frames there, 4 here)."""
    if "shapes-tiny" not in weights_names():
        pytest.skip("no shipped weights: a random network says nothing of this")
    model = MobileInst.from_pretrained("shapes-tiny")
    pairs = [(shapes_frame(*size, i), shapes_frame(192, 256, i + 50)) for i in range(4)]
    change = torch.stack([moved(model, *pair) for pair in pairs]).mean(0)
    print("masks max, mean, scores max, mean, IoU:", [round(float(x), 3) for x in change])
    assert change[1] < 0.12 and change[3] < 0.12 and change[4] > 0.4


@torch.no_grad()
@pytest.mark.parametrize("sizes", [((100, 150), (120, 180)), ((65, 129), (128, 192))])
def test_padding_to_its_own_multiple_moves_nothing(tiny, sizes):
    change = moved(tiny, *(frames(1, *size)[0] for size in sizes))
    assert change[:4].max() <= 1e-4 and change[4] > 0.999


@torch.no_grad()
def test_what_lies_in_the_padding_means_nothing(tiny):
    batch, mask = pad_batch([frames(1, 70, 90)[0], frames(1, 128, 128, 1)[0]])
    out = tiny(batch, mask)
    assert_same(tiny(torch.where(mask[:, None], torch.rand_like(batch), batch), mask), out, 0)
    # the largest frame carries no padding but that of its own: it comes out as alone
    alone = tiny(frames(1, 128, 128, 1))
    assert_same([value[1:] for value in out], alone)


def test_pad_batch():
    small, large = torch.rand(3, 70, 100), torch.rand(3, 64, 130)
    batch, mask = pad_batch([small, large])
    assert (
        batch.shape == (2, 3, 70, 130) and mask.shape == (2, 70, 130) and mask.dtype == torch.bool
    )
    assert torch.equal(batch[0, :, :, :100], small) and torch.equal(batch[1, :, :64], large)
    assert (
        mask[0, :, 100:].all()
        and not mask[0, :, :100].any()
        and mask[1, 64:].all()
        and not mask[1, :64].any()
    )
    assert not batch[mask[:, None].expand_as(batch)].any()
    together, nothing = pad_batch([small, small])
    assert nothing is None and torch.equal(together, torch.stack([small, small]))


@torch.no_grad()
def test_tokens_wholly_in_padding_are_marked(tiny):
    """At a token stride of 32, 70 x 97 is padded to 128 x 128: 3 of 4 rows and 4 of 4 columns hold
    pixels."""
    padding = tiny.encode(frames(1, 70, 97)).token_padding.view(4, 4)
    assert padding.tolist() == [[False] * 4] * 3 + [[True] * 4]
    assert tiny.encode(frames(1, 64, 128)).token_padding is None
    batch, mask = pad_batch([torch.rand(3, 64, 64), torch.rand(3, 128, 128)])
    padding = tiny.encode(batch, mask).token_padding.view(2, 4, 4)
    assert not padding[1].any() and (~padding[0]).nonzero().tolist() == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
    ]


# ---------------------------------------------------------------------------------- export, folding


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 128), (70, 97)])
def test_trace(tiny, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer says that sizes become constants: they may
        traced = torch.jit.trace(tiny, frames(1, *size), check_trace=False)
    x = frames(1, *size, 5)
    assert_same(tuple(traced(x)), tiny(x), 1e-5)


@torch.no_grad()
def test_export(tiny):
    size = (70, 97)
    program = torch.export.export(tiny, (frames(1, *size),))
    x = frames(1, *size, 5)
    assert_same(tuple(program.module()(x)), tiny(x), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["shapes-tiny", "seaformer-tiny", "mobilenetv2"])
def test_fuse_changes_no_output(make_model, preset):
    model = make_model(preset)
    x = frames(1, 128, 128)
    before, keys = model(x), set(model.state_dict())
    fused = model.train().fuse()
    assert fused is model and not model.training
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert_same(model(x), before)
    # every convolution that had a norm has a bias now, and nothing else came or went
    norms = {key for key in keys if key.endswith("running_mean")}
    gone = keys - set(model.state_dict())
    assert len(gone) == 5 * len(norms) and len(set(model.state_dict()) - keys) == len(norms)
    with pytest.raises(ValueError, match="fused"):
        model.save_pretrained("never-written")


# -------------------------------------------------------------------------------------------- files


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_and_loaded(make_model, tmp_path, dtype):
    model = make_model(class_names=tuple("abcdefgh"), pooling="avg")
    model.save_pretrained(tmp_path / "weights", dtype)
    loaded = MobileInst.from_pretrained(tmp_path / "weights")
    assert loaded.config == model.config and not loaded.training
    for key, value in model.state_dict().items():
        expected = value.to(dtype).to(value.dtype) if value.is_floating_point() else value
        assert (
            torch.equal(loaded.state_dict()[key], expected)
            and loaded.state_dict()[key].dtype == value.dtype
        )
    assert_same(
        loaded(frames(1, 64, 64)), model(frames(1, 64, 64)), 0 if dtype == torch.float32 else 0.05
    )
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "weights").iterdir()}
    plain = tmp_path / "plain"  # another user of this machine may read what may be read of it
    plain.touch()
    assert modes == dict.fromkeys(
        ("config.json", "model.safetensors"), plain.stat().st_mode & 0o777
    )
    stored = load_file(tmp_path / "weights" / "model.safetensors")
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {dtype}


@torch.no_grad()
@pytest.mark.parametrize("preset", ["shapes-tiny", "seaformer-tiny", "mobilenetv2"])
def test_a_model_is_copied_pickled_and_computes_in_any_precision(make_model, preset):
    model, x = make_model(preset), frames(1, 64, 96)
    expected, file = model(x), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for again in (*copies, torch.load(file, weights_only=False)):
        assert all(torch.equal(a, b) for a, b in zip(again(x), expected))
    assert all(torch.equal(a, b) for a, b in zip(model(x.double()), expected))
    for dtype, near in ((torch.float64, 0.001), (torch.half, 0.04), (torch.bfloat16, 0.08)):
        out = copy.deepcopy(model).to(dtype)(x)
        assert {value.dtype for value in out} == {dtype}
        torch.testing.assert_close(out.scores().float(), expected.scores(), atol=near, rtol=0)


def test_weights_remember_the_size_of_their_training_frames(make_model, tmp_path):
    """Files of before that say nothing, and so does a model whose weights are random."""
    model = make_model()
    assert model.trained_size is None
    model.save_pretrained(tmp_path / "random")
    assert "size" not in json.loads((tmp_path / "random" / "config.json").read_text())
    assert MobileInst.from_pretrained(tmp_path / "random").trained_size is None
    model.trained_size = (192, 256)
    model.save_pretrained(tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["size"] == [192, 256]
    assert MobileInst.from_pretrained(tmp_path / "trained").trained_size == (192, 256)
    assert MobileInst.from_pretrained("shapes-tiny").trained_size == (192, 256)
    assert MobileInst.from_pretrained("shapes-tiny", ["crab"]).trained_size == (192, 256)


@pytest.mark.parametrize(
    "size", [0, 5, [], [192], [192.0, 256], [True, 256], [0, 10**9], "192x256"]
)
def test_a_size_of_training_that_is_none_is_refused(folder, size):
    edit_config(folder, size=size)
    with pytest.raises(ValueError, match="config.json.*size is"):
        MobileInst.from_pretrained(folder)


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


BREAK = {
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        FileNotFoundError,
        "model.safetensors missing",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, "config.json missing"),
    "empty weights": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        ValueError,
        "model.safetensors.*cut short",
    ),
    "other weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"PK" * 99),
        ValueError,
        "no safetensors file",
    ),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-999]
        ),
        ValueError,
        "model.safetensors.*cut short",
    ),
    "cut config": (
        lambda f: (f / "config.json").write_text('{"dim": 6'),
        ValueError,
        "config.json is no MobileInst",
    ),
    "list as config": (
        lambda f: (f / "config.json").write_text("[1]"),
        ValueError,
        "config.json is no MobileInst",
    ),
    "unknown field": (
        lambda f: edit_config(f, depth=3),
        ValueError,
        "config.json.*unknown field.*depth",
    ),
    "bad value": (
        lambda f: edit_config(f, pooling="sum"),
        ValueError,
        "config.json.*pooling is 'sum'",
    ),
    "bad backbone": (
        lambda f: edit_config(f, backbone="resnet50"),
        ValueError,
        "backbone 'resnet50'",
    ),
    "other size": (
        lambda f: edit_config(f, num_queries=9),
        ValueError,
        r"instance_decoder.queries is \(8, 64\) in the file, \(9, 64\) in the model",
    ),
    "other model": (
        lambda f: edit_config(f, normalise_global=False),
        ValueError,
        r"instance_decoder.global_norm.\w+ is \(64,\) in the file, missing in the model",
    ),
    "missing key": (
        lambda f: edit_weights(f, lambda s: s.pop("mask_decoder.out.bn.bias")),
        ValueError,
        "mask_decoder.out.bn.bias is missing in the file",
    ),
    "extra key": (
        lambda f: edit_weights(f, lambda s: s.update(extra=torch.zeros(1))),
        ValueError,
        r"extra is \(1,\) in the file, missing in the model",
    ),
    "absurd numbers": (
        lambda f: edit_config(f, dim=2**20, num_queries=2**20, num_classes=2**20, class_names=[]),
        ValueError,
        r"lateral_x3.conv.weight is \(64, 128, 1, 1\) in the file, \(1048576, 128, 1, 1\) in",
    ),
    "a text for a switch": (
        lambda f: edit_config(f, injection="off"),
        ValueError,
        "config.json.*injection is 'off'; Expected `bool`, got `str`",
    ),
    "deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        ValueError,
        "config.json is no MobileInst",
    ),
}


@pytest.mark.parametrize("case", BREAK)
def test_files_that_do_not_fit_are_refused_by_name(folder, case):
    damage, error, message = BREAK[case]
    damage(folder)
    with pytest.raises(error, match=message) as caught:
        MobileInst.from_pretrained(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_other_categories_keep_what_the_weights_know_by_name(make_model, tmp_path):
    """A class that both know says the same of a frame; a new one starts rare; nothing else is
    touched."""
    make_model("shapes-tiny", class_names=tuple("abcdefgh")).save_pretrained(tmp_path)
    old = MobileInst.from_pretrained(tmp_path)
    torch.manual_seed(7)
    new = MobileInst.from_pretrained(tmp_path, class_names=["h", "new", "a"])
    assert (
        new.config.class_names == ("h", "new", "a")
        and new.config.num_classes == 3
        and not new.training
    )
    frames = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        theirs, ours = old(frames), new(frames)
    torch.testing.assert_close(ours.class_logits[..., [0, 2]], theirs.class_logits[..., [7, 0]])
    assert torch.equal(ours.mask_logits, theirs.mask_logits) and torch.equal(
        ours.objectness, theirs.objectness
    )
    assert new.instance_decoder.heads.classes.bias[1].item() == pytest.approx(
        -math.log(99)
    )  # a probability of 0.01
    assert MobileInst.from_pretrained(tmp_path, class_names=tuple("abcdefgh")).config == old.config
    with pytest.raises(ValueError, match="num_classes is 0"):
        MobileInst.from_pretrained(tmp_path, class_names=[])


def test_an_unknown_name_of_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("nothing-of-the-kind")):
        MobileInst.from_pretrained(tmp_path / "nothing-of-the-kind")


# ----------------------------------------------------------------------------------------- switches


@pytest.mark.parametrize("normalise_global", [True, False])
def test_every_parameter_learns(normalise_global):
    torch.manual_seed(0)
    fields = {"num_queries": 4, "normalise_global": normalise_global}
    model = MobileInst(MobileInstConfig.preset("shapes-tiny", **fields)).train()
    out = model(frames(2, 128, 128))
    sum(x.square().mean() for x in (out.class_logits, out.objectness, out.mask_logits)).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@torch.no_grad()
def test_switches_change_what_they_name(make_model):
    def count(**fields):
        model = MobileInst(MobileInstConfig.preset("shapes-tiny", **fields))
        return {part: row["params"] for part, row in summary(model, (64, 64)).items()}

    whole = count()
    x6 = MobileInst(MobileInstConfig.preset("shapes-tiny")).backbone.out_channels[-1]
    assert count(pooling="avg") == whole
    assert (
        count(normalise_global=False)["instance_decoder"] == whole["instance_decoder"] - 2 * 64
    )  # one layer norm
    assert count(semantic_enhancer=False)["total"] - whole["total"] == -6 * (x6 * 64 + 2 * 64)
    assert count(bottom_up=False)["mask_decoder"] < whole["mask_decoder"]
    assert count(injection=False)["backbone"] < whole["backbone"]
    # max and average differ in the decoder alone
    a, b = make_model(), make_model()
    b.instance_decoder.pool = F.avg_pool2d
    x = frames(1, 128, 128)
    assert torch.equal(a.encode(x).x_mask, b.encode(x).x_mask)
    assert not torch.allclose(a(x).kernels, b(x).kernels, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("stride", [32, 64])
def test_token_stride(make_model, stride):
    model = make_model(token_stride=stride)
    frame = model.encode(frames(1, 128, 192))
    assert frame.x6.shape[-2:] == (128 // stride, 192 // stride)
    decoder = model.instance_decoder
    for tokens, position in (
        decoder.global_tokens(frame.x6),
        decoder.local_tokens(frame.padded_x_mask),
    ):
        assert tokens.shape == position.shape == (1, 128 * 192 // stride**2, 64)


# --------------------------------------------------------------------------------- cost, upsampling


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
def test_summary_is_counted_by_hand(make_model, context, frozen):
    model = make_model(num_queries=5).requires_grad_(frozen is False)
    d, k, n, s, c6, h, w = 64, 8, 5, 2 * 4, model.backbone.out_channels[-1], 8, 16
    with context():
        table = summary(model, (64, 128))
    attention = lambda length: 2 * n * d * d + 2 * length * d * d + 2 * n * length * d  # noqa: E731
    stages = s * c6 * d + 2 * (attention(s) + attention(n))
    heads = n * (2 * d * 2 * d + d * k + d + d * d)
    assert table["instance_decoder"]["macs"] == stages + heads
    assert table["masks"] == {"params": 0, "macs": n * d * h * w}
    c3, c4, c5, _ = model.backbone.out_channels
    levels = [h * w, h * w // 4, h * w // 16]
    laterals = sum(c * d * size for c, size in zip((c3, c4, c5), levels))
    enhancers = 3 * 2 * c6 * d * s
    top_down = 9 * d * d * sum(levels)
    bottom_up = 9 * d * d * sum(levels[1:]) + 9 * d * sum(levels[1:])
    assert (
        table["mask_decoder"]["macs"]
        == laterals + enhancers + top_down + bottom_up + 9 * d * d * h * w
    )
    for column in ("params", "macs"):
        assert table["total"][column] == sum(
            table[part][column] for part in table if part != "total"
        )
    assert table["total"]["params"] == sum(p.numel() for p in model.parameters())
    assert table["backbone"]["macs"] > 0 and not model.training


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    cut=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_upsampled_masks_lie_where_they_belong(height, width, cut):
    """Cell i of a mask has its centre at pixel 8 i + 3.5: a linear ramp stays on its line up to the
    outer centres."""
    rows, columns = (torch.arange(n, dtype=torch.float32) * 8 + 3.5 for n in (height, width))
    ramp = rows[:, None] + 2 * columns[None]
    size = (8 * height - cut[0], 8 * width - cut[1])
    up = upsample_masks(ramp[None, None], size)[0, 0]
    assert up.shape == size
    y, x = (
        torch.arange(n, dtype=torch.float32).clamp(3.5, 8 * m - 4.5)
        for n, m in zip(size, (height, width))
    )
    torch.testing.assert_close(up, y[:, None] + 2 * x[None], atol=1e-4, rtol=1e-5)


def test_apply_kernels_by_hand():
    kernels, features = (
        torch.tensor([[[1.0, 2.0], [0.0, -1.0]]]),
        torch.arange(12.0).view(1, 2, 2, 3),
    )
    masks = apply_kernels(
        kernels, features[..., :2]
    )  # a crop, as of a padded frame: not contiguous
    for n in range(2):
        expected = (
            kernels[0, n, 0] * features[0, 0, :, :2] + kernels[0, n, 1] * features[0, 1, :, :2]
        )
        assert torch.equal(masks[0, n], expected)
