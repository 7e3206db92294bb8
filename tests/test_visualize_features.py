import numpy as np
import pytest
import torch

from minst.visualize.features import pca_rgb


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
