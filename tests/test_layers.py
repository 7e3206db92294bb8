"""The bricks: attention against torch's own, position embedding by hand values, folding of batch norms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minst.layers import ConvNorm, MultiHeadAttention, SinePositionEmbedding, fold_batch_norms, h_sigmoid


def torch_attention(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's attention with our weights."""
    theirs = nn.MultiheadAttention(ours.q.in_features, ours.heads, batch_first=True)
    theirs.load_state_dict({
        "in_proj_weight": torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]),
        "in_proj_bias": torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]),
        "out_proj.weight": ours.out.weight,
        "out_proj.bias": ours.out.bias,
    })  # fmt: skip
    return theirs


def make_attention(dim=8, heads=2) -> MultiHeadAttention:
    attention = MultiHeadAttention(dim, heads)
    for linear in (attention.q, attention.k, attention.v, attention.out):
        nn.init.normal_(linear.bias)  # a fresh bias is zero and would hide a mistake
    return attention


@settings(max_examples=25)
@given(batch=st.integers(1, 3), queries=st.integers(1, 6), tokens=st.integers(1, 7), heads=st.sampled_from([1, 2, 4]),
       padded=st.booleans(), seed=st.integers(0, 2**31))  # fmt: skip
def test_attention_is_torchs(batch, queries, tokens, heads, padded, seed):
    torch.manual_seed(seed)
    ours = make_attention(8, heads)
    query = torch.randn(batch, queries, 8)
    key, value = torch.randn(2, batch, tokens, 8)
    mask = None
    if padded:
        mask = torch.rand(batch, tokens) < 0.5
        mask[:, torch.randint(tokens, ())] = False  # at least one token is left
    out, weights = ours(query, key, value, mask, return_weights=True)
    expected, expected_weights = torch_attention(ours)(query, key, value, mask, average_attn_weights=False)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours(query, key, value, mask), out)


def test_attention_is_torchs_functional():
    ours, query, tokens = make_attention(8, 2), torch.randn(2, 5, 8), torch.randn(2, 9, 8)
    q, k, v = (linear(x).unflatten(-1, (2, 4)).transpose(1, 2) for linear, x in
               ((ours.q, query), (ours.k, tokens), (ours.v, tokens)))  # fmt: skip
    expected = ours.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours(query, tokens, tokens), expected)


def test_order_of_queries_and_of_tokens_means_nothing():
    attention, query, key, value = make_attention(), *torch.randn(3, 2, 6, 8)
    padding = torch.tensor([[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    out = attention(query, key, value, padding)
    order = torch.randperm(6)
    torch.testing.assert_close(attention(query[:, order], key, value, padding), out[:, order])
    torch.testing.assert_close(attention(query, key[:, order], value[:, order], padding[:, order]), out)


def test_masking_a_token_is_removing_it():
    attention, query, key, value = make_attention(), *torch.randn(3, 1, 6, 8)
    padding = torch.tensor([[False, True, False, False, True, True]])
    out, weights = attention(query, key, value, padding, return_weights=True)
    torch.testing.assert_close(out, attention(query, key[~padding][None], value[~padding][None]))
    assert weights[..., padding[0]].eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 6))
    assert not torch.allclose(out, attention(query, key, value), atol=1e-3)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        MultiHeadAttention(8, 3)


def test_position_embedding_by_hand():
    embedding = SinePositionEmbedding(8)(2, 3)  # frequencies 1 and 100^(-1/2) = 0.1
    assert embedding.shape == (1, 6, 8)
    for row in range(2):
        for column in range(3):
            y, x = (row + 0.5) / 2 * 2 * math.pi, (column + 0.5) / 3 * 2 * math.pi
            expected = [f(p * w) for p in (y, x) for f in (math.sin, math.cos) for w in (1.0, 0.1)]
            torch.testing.assert_close(embedding[0, row * 3 + column], torch.tensor(expected))


@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_position_does_not_depend_on_the_resolution(height, width):
    """At three times the resolution, the middle one of every 3 x 3 cells lies where the one cell lay."""
    position = SinePositionEmbedding(16)
    fine = position(3 * height, 3 * width).view(3 * height, 3 * width, 16)
    torch.testing.assert_close(fine[1::3, 1::3].reshape(1, -1, 16), position(height, width), atol=1e-5, rtol=0)


def test_position_tells_every_cell_apart_and_is_no_weight():
    position = SinePositionEmbedding(64)
    cells = position(12, 16)[0]
    assert torch.cdist(cells, cells).fill_diagonal_(1.0).min() > 0.1
    assert not position.state_dict() and position.frequencies.dtype == torch.float32
    with pytest.raises(ValueError, match="10 channels is not a multiple of 4"):
        SinePositionEmbedding(10)


def test_h_sigmoid():
    x = torch.linspace(-5, 5, 101)
    torch.testing.assert_close(h_sigmoid(x), F.hardsigmoid(x))


def test_waves_are_the_formula_in_double_precision():
    """PE(p) = [sin(a_p w_i), cos(a_p w_i)], a_p = 2 pi (p + 1/2) / L, w_i = tau^(-4i / D), with numpy alone."""
    for length, dim, tau in ((1, 8, 100.0), (7, 64, 100.0), (32, 20, 10000.0)):
        a = 2 * np.pi * (np.arange(length) + 0.5) / length
        w = tau ** (-4 * np.arange(dim // 4) / dim)
        expected = np.concatenate([np.sin(np.outer(a, w)), np.cos(np.outer(a, w))], axis=1)
        waves = SinePositionEmbedding(dim, tau)._waves(length)
        assert waves.dtype == torch.float32
        np.testing.assert_allclose(waves.numpy(), expected, atol=2e-6)


def lived_in(network: nn.Module) -> nn.Module:
    """Batch norms as after training: none of their four tensors at its initial value."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            for values in (norm.running_var, norm.weight):
                nn.init.uniform_(values, 0.5, 2.0)
            nn.init.normal_(norm.bias)
    return network.eval()


class Renamed(ConvNorm):
    conv_name = "c"


@pytest.mark.parametrize("network", [
    ConvNorm(4, 8, 3, stride=2, groups=2, activation=nn.ReLU()),
    Renamed(4, 6),
    nn.Sequential(Renamed(4, 8, 5), nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())),
    nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
], ids=["ConvNorm", "renamed", "nested", "two in a row, with biases"])  # fmt: skip
def test_folding_changes_no_output(network):
    lived_in(network)
    x = torch.randn(2, 4, 9, 11)
    before = network(x)
    assert fold_batch_norms(network) is network
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(network(x), before, atol=1e-5, rtol=1e-5)
    once = {key: value.clone() for key, value in network.state_dict().items()}
    fold_batch_norms(network)  # a second time changes nothing
    assert all(torch.equal(value, once[key]) for key, value in network.state_dict().items())


def test_conv_norm_keeps_sizes_and_names():
    assert ConvNorm(3, 5, 5)(torch.randn(1, 3, 7, 10)).shape == (1, 5, 7, 10)
    assert ConvNorm(3, 5, 3, stride=2)(torch.randn(1, 3, 7, 10)).shape == (1, 5, 4, 5)
    assert {key.partition(".")[0] for key in Renamed(3, 5).state_dict()} == {"c", "bn"}
    assert "conv.bias" not in ConvNorm(3, 5).state_dict()


def test_only_a_norm_directly_behind_its_convolution_is_folded():
    """Not one behind an activation, nor the one of another row, where the outputs would change."""
    network = lived_in(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
    )
    x = torch.randn(2, 4, 5, 5)
    before = network(x)
    fold_batch_norms(network)
    assert torch.equal(network(x), before)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in network.modules()) == 2


@pytest.mark.parametrize("network", [ConvNorm(2, 2), nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))])
def test_folding_while_training_is_refused_and_changes_nothing(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="eval mode"):
        fold_batch_norms(network.train())
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_conv_norm_is_convolution_norm_and_activation_in_this_order():
    layer = lived_in(ConvNorm(4, 6, 3, stride=2, groups=2, activation=nn.ReLU()))
    x = torch.randn(2, 4, 9, 10)
    y = F.conv2d(x, layer.conv.weight, stride=2, padding=1, groups=2)
    y = F.batch_norm(y, layer.bn.running_mean, layer.bn.running_var, layer.bn.weight, layer.bn.bias)
    torch.testing.assert_close(layer(x), y.clamp(min=0))
    torch.manual_seed(0)
    weight = ConvNorm(64, 128, 3, groups=4).conv.weight  # 32 channels fan out of a group
    assert weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.02)
