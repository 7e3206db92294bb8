import copy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from minst.data.shapes import ShapesConfig, shapes_clip
from minst.visualize.features import frame_at, frame_features, pca_rgb, plot_features
from minst.visualize.style import save

CLIP = shapes_clip("val", 3, ShapesConfig(width=160, height=96, frames=3))
LEVELS = ("X3", "X4", "X5")


def by_hand(model, image):
    """The feature maps of an image by calling the parts one after the other, still padded."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[:2]
    with torch.inference_mode():
        x = (x - model.pixel_mean) / model.pixel_std
        x = torch.nn.functional.pad(x, (0, -width % 64, 0, -height % 64))
        levels = model.backbone(x)
        decoder, (x3, x4, x5, x6) = model.mask_decoder, levels
        before = [decoder.lateral_x3(x3), decoder.lateral_x4(x4), decoder.lateral_x5(x5)]
        enhancers = decoder.enhance_x3, decoder.enhance_x4, decoder.enhance_x5
        after = [enhance(x, x6) for enhance, x in zip(enhancers, before)]
        return [*levels, decoder(*levels)], before, after


@pytest.mark.parametrize("preset", ["shapes-tiny", "seaformer-tiny", "mobilenetv2"])
@pytest.mark.parametrize("size", [(128, 192), (96, 160), (131, 70)])
def test_features_are_those_of_the_model_without_padding(make_model, preset, size):
    model = make_model(preset)
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    found = frame_features(model, image)
    maps, before, after = by_hand(model, image)
    stride = model.config.token_stride
    assert found.strides == {"X3": 8, "X4": 16, "X5": 32, "X6": stride, "X_mask": 8}
    expected = [*zip(found.maps.items(), maps, strict=True)]
    for ours, theirs in ((found.before, before), (found.after, after)):
        assert tuple(ours) == LEVELS
        expected += zip(ours.items(), theirs, strict=True)
    for (name, x), whole in expected:
        rows, columns = (-(-n // found.strides[name]) for n in size)
        assert x.shape == (whole.shape[1], rows, columns)
        torch.testing.assert_close(x, whole[0, :, :rows, :columns], rtol=1e-4, atol=1e-4)


def test_no_hook_stays_and_the_model_is_left_as_it_was(make_model):
    model = make_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    frame_features(model, CLIP.render(0).image)
    with pytest.raises(ValueError, match="at least 64"):
        frame_features(model, np.zeros((32, 64, 3), np.uint8))
    assert model.training and not any(part._forward_hooks for part in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_pca_is_that_of_numpys_svd():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(5, 6, 7)) * np.array([5, 3, 2, 0.5, 0.1])[:, None, None]
    (picture,), share = pca_rgb(torch.from_numpy(data))
    x = data.reshape(5, -1) - data.reshape(5, -1).mean(1, keepdims=True)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    assert share == pytest.approx((s[:3] ** 2).sum() / (s**2).sum())
    for i in range(3):
        direction = u[:, i] * np.sign(u[np.abs(u[:, i]).argmax(), i])
        scores = direction @ x
        low, high = np.quantile(scores, (0.01, 0.99))
        expected = np.clip((scores - low) / (high - low), 0, 1).reshape(6, 7)
        np.testing.assert_allclose(picture[..., i], expected, atol=1e-6)


def test_pictures_do_not_flip_with_rounding_or_another_solver(monkeypatch):
    x = torch.randn(16, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x *= torch.linspace(3, 0.2, 16, dtype=torch.float64)[:, None, None]
    (picture,), _ = pca_rgb(x)
    for other, back in (
        (x * 1.7 + 3, lambda p: p),
        (x + 1e-9 * x**2, lambda p: p),
        (x.flip(2), lambda p: p[:, ::-1]),
    ):
        np.testing.assert_allclose(back(pca_rgb(other)[0][0]), picture, atol=1e-4)
    eigh = torch.linalg.eigh
    for signs in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):  # which sign a solver gives is chance
        flips = torch.cat([torch.ones(13), torch.tensor(signs)]).double()
        monkeypatch.setattr(
            torch.linalg, "eigh", lambda a, flips=flips: (eigh(a)[0], eigh(a)[1] * flips)
        )
        np.testing.assert_allclose(pca_rgb(x)[0][0], picture, atol=1e-9)


def test_pairs_share_their_colors():
    a = torch.randn(8, 6, 6, generator=torch.Generator().manual_seed(0))
    b = a.clone()
    b[:, 3:] += 2
    (first, second), _ = pca_rgb(a, b)
    assert (first[:3] == second[:3]).all() and np.abs(first[3:] - second[3:]).mean() > 0.1
    small, large = pca_rgb(a, a.repeat_interleave(2, 1))[0]  # of two sizes
    assert small.shape == (6, 6, 3) and (large[::2] == small).all()


def test_what_does_not_vary_is_grey():
    flat = torch.ones(4, 3, 5) * torch.tensor([1.0, -2, 0.1, 7])[:, None, None]
    (picture,), share = pca_rgb(flat)
    assert (picture == 0.5).all() and share == 0
    assert (pca_rgb(torch.randn(8, 1, 1))[0][0] == 0.5).all()
    line = torch.randn(8, 1, 1) * torch.linspace(-1, 1, 12).reshape(
        1, 3, 4
    )  # varies in one direction
    (picture,), share = pca_rgb(line)
    assert (
        np.ptp(picture[..., 0]) == 1
        and (picture[..., 1:] == 0.5).all()
        and share == pytest.approx(1)
    )


def titled(fig):
    """{name: (its words, its picture)}"""
    words = [text.get_text() for text in fig.texts[2:]]
    shown = [axes.images[0].get_array() for axes in fig.axes]
    return {w.split(",")[0].split("\n")[0]: (w, x) for w, x in zip(words, shown, strict=True)}


def test_the_figure_shows_every_map_with_name_shape_and_stride(make_model, tmp_path):
    model = make_model()
    fig = plot_features(model, CLIP, frame=2)
    found = frame_features(model, CLIP.render(2).image)
    shown = titled(fig)
    names = [f"{name} {when}" for name in LEVELS for when in ("before", "after")]
    assert isinstance(fig, Figure) and set(shown) == {
        "frame 2",
        "X3",
        "X4",
        "X5",
        "X6",
        "X_mask",
        *names,
    }
    for name, x in found.maps.items():
        words, picture = shown[name]
        assert f"1/{found.strides[name]}\n{' x '.join(map(str, x.shape))}, " in words
        pictures, share = pca_rgb(x)
        np.testing.assert_allclose(picture, pictures[0])
        assert words.endswith(f"{100 * share:.0f} % shown")
    for name in LEVELS:
        pair, _ = pca_rgb(found.before[name], found.after[name])
        for when, picture in zip(("before", "after"), pair):
            np.testing.assert_allclose(shown[f"{name} {when}"][1], picture)
    x, y = found.before["X4"], found.after["X4"]
    assert (
        f"X4 by {100 * np.linalg.norm(y - x) / np.linalg.norm(x):.0f} %" in fig.texts[0].get_text()
    )
    save(fig, tmp_path / "features.png", dpi=40)


def test_without_enhancers_the_figure_says_so_and_fused_is_the_same(make_model):
    off = plot_features(make_model(semantic_enhancer=False), CLIP)
    assert "enhancers are off" in off.texts[0].get_text()
    assert set(titled(off)) == {"frame 0", "X3", "X4", "X5", "X6", "X_mask"}
    model = make_model()
    ours, fused = (
        frame_features(m, CLIP.render(0).image) for m in (model, copy.deepcopy(model).fuse())
    )
    for name in LEVELS:
        torch.testing.assert_close(fused.before[name], ours.before[name], rtol=1e-2, atol=0.05)
        torch.testing.assert_close(fused.after[name], ours.after[name], rtol=1e-2, atol=0.05)


def test_a_frame_that_is_not_there_is_refused(make_model):
    images = [CLIP.render(t).image for t in range(3)]
    assert (frame_at(iter(images), 2) == images[2]).all() and (frame_at(CLIP, 1) == images[1]).all()
    for video, frame, said in (
        (CLIP, 3, "no frame 3 but 3 frames"),
        (iter(images), 9, "no frame 9, counted from 0"),
        (images, -1, "frame is -1"),
        (images, 1.5, "frame is 1.5"),
        ([], 0, "no frame 0 but 0 frames"),
    ):
        with pytest.raises(ValueError, match=said):
            plot_features(make_model(), video, frame)
