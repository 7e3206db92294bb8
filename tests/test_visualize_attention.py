import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm

from minst.data.batches import pad_batch
from minst.visualize.attention import AttentionMaps, attention_maps


def frames(height, width, count=2, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def update(decoder, content, who, weights, values):
    """A decoder's output from content and learned queries (N, D), attention weights (heads, N, S)
    and values (S, D), by loops over heads, in float64."""
    cross, own = decoder.cross_attention, decoder.self_attention
    state = {name: p.detach().double() for name, p in decoder.named_parameters()}

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def mix(name, attention, weights, values):
        parts = linear(values, f"{name}.v").chunk(attention.heads, dim=-1)
        return linear(
            torch.cat([w @ part for w, part in zip(weights, parts)], dim=-1), f"{name}.out"
        )

    content = norm(
        content + mix("cross_attention", cross, weights.double(), values.double()), "norm1"
    )
    q, k = (linear(content + who, f"self_attention.{n}").chunk(own.heads, dim=-1) for n in "qk")
    among = [(a @ b.T / math.sqrt(a.shape[-1])).softmax(-1) for a, b in zip(q, k)]
    return norm(content + mix("self_attention", own, among, content), "norm2")


@pytest.mark.parametrize("normalise_global", [True, False])
@pytest.mark.parametrize("size", [(128, 192), (96, 160), (70, 131)])
def test_the_maps_are_the_weights_that_the_model_uses(make_model, normalise_global, size):
    model = make_model(normalise_global=normalise_global)
    maps = attention_maps(model, frames(*size))
    rows, columns = (-(-n // 32) for n in size)
    assert maps.stride == 32 and maps.size == size
    dual = model.instance_decoder
    with torch.inference_mode():
        frame = model.encode(frames(*size))
        q_g = frame.out.global_queries  # of the global decoder
        tokens = dual.global_tokens(frame.x6)[0], dual.local_tokens(frame.padded_x_mask)[0]
        _, pos = dual.local_tokens(frame.padded_x_mask)
        q_l = dual.local_decoder(q_g, dual.queries, tokens[1], pos, frame.token_padding)
    for image in range(2):
        who = dual.queries.detach().double()
        content = torch.zeros_like(who)
        steps = zip((dual.global_decoder, dual.local_decoder), tokens, maps.weights, (q_g, q_l))
        for decoder, x, weights, theirs in steps:
            assert weights.shape == (2, model.config.heads, 8, rows, columns)
            torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(2, model.config.heads, 8))
            # by hand: no padded token
            inside = x[image].unflatten(0, frame.x6.shape[-2:])[:rows, :columns].flatten(0, 1)
            content = update(decoder, content, who, weights[image].flatten(-2), inside)
            torch.testing.assert_close(content, theirs[image].double(), rtol=1e-4, atol=1e-4)


def test_batched_encoded_single_and_fused_are_the_same(make_model):
    model = make_model()
    batch = (frames(96, 160, 3) * 255).round() / 255
    image = (batch[1] * 255).round().byte().permute(1, 2, 0).numpy()
    together, encoded, alone = (
        attention_maps(model, x) for x in (batch, model.encode(batch), image)
    )
    torch.testing.assert_close(together.weights, encoded.weights)
    for decoder in range(2):
        assert not together.weights[decoder].requires_grad and alone.weights[decoder].shape[0] == 1
        # random weights amplify rounding, which depends on the number of threads; other frames differ by far more
        torch.testing.assert_close(
            together.weights[decoder][1:2], alone.weights[decoder], rtol=0.05, atol=5e-3
        )
        assert (together.weights[decoder][0] - alone.weights[decoder][0]).abs().max() > 0.02
        np.testing.assert_allclose(
            together.on_frame(decoder, 3, 1), alone.on_frame(decoder, 3), rtol=0.05, atol=0.1
        )
    fused = attention_maps(copy.deepcopy(model).fuse(), image)
    for ours, theirs in zip(fused.weights, alone.weights, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-2, atol=5e-3
        )  # a softmax enlarges the rounding


def test_a_smaller_frame_of_a_batch_has_no_attention_on_its_padding(make_model):
    model = make_model()
    batch, padding = pad_batch([frames(128, 192)[0], frames(96, 128)[0]])
    for weights in attention_maps(model, model.encode(batch, padding)).weights:
        assert weights.shape[-2:] == (4, 6)
        assert (
            (weights[1, ..., 3:, :] == 0).all()
            and (weights[1, ..., 4:] == 0).all()
            and (weights[0] > 0).any()
        )


def test_a_model_in_training_stays_so_and_learns_nothing(make_model):
    model = make_model()
    expected = attention_maps(model, frames(64, 64))
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.testing.assert_close(attention_maps(model, frames(64, 64)).weights, expected.weights)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_map_lies_over_its_cells_and_even_attention_is_one():
    weights = torch.zeros(1, 2, 3, 3, 4)
    weights[0, 0, 1] = 1 / 12
    weights[0, 1, 1, 2, 3] = 1.0
    maps = AttentionMaps((weights,), 32, (70, 101))  # 3 x 4 cells, of which the last overhang
    even, corner = maps.on_frame(0, 1)
    assert even.shape == (70, 101)
    np.testing.assert_allclose(even, 1, rtol=1e-5)
    assert np.unravel_index(corner.argmax(), corner.shape)[0] >= 64 and (corner[:30] == 0).all()
    assert (
        (corner[:, :60] == 0).all() and (np.diff(corner[69]) >= 0).all() and 4 < corner.max() <= 12
    )
    assert (
        np.abs(np.diff(corner, 2)).max() < 0.05
    )  # smooth: no crease, such as of a bilinear ramp (12 / 32)


def test_the_share_inside_a_mask_counts_pixels():
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.dirichlet(np.ones(12), (1, 2, 3)).reshape(1, 2, 3, 3, 4)).float()
    maps = AttentionMaps((weights,), 32, (70, 101))
    mask = rng.random((70, 101)) < 0.3
    mask[20:, 70:] = True
    expected = np.zeros(2)
    for row in range(3):
        for column in range(4):
            cell = mask[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            expected += weights[0, :, 2, row, column].numpy() * cell.mean()
    np.testing.assert_allclose(maps.inside(0, 2, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(maps.inside(0, 2, np.ones((70, 101), bool)), 1, rtol=1e-5)


def test_a_frame_that_no_model_takes_is_refused(make_model):
    with pytest.raises(ValueError, match=r"\(H, W, 3\), got \(64, 64\)"):
        attention_maps(make_model(), np.zeros((64, 64), np.uint8))
