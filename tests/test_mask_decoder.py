"""Mask decoder: its drawing, written a second time, must give the same X_mask; what each switch
takes away."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minst.mask_decoder import MaskDecoder, SemanticEnhancer

CHANNELS, DIM = (4, 6, 8, 10), 16
SWITCHES = [(True, True), (True, False), (False, True), (False, False)]


def features(height=64, width=128, tokens_at=64, batch=2):
    strides = (8, 16, 32, tokens_at)
    return [torch.randn(batch, c, height // s, width // s) for c, s in zip(CHANNELS, strides)]


def up(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def drawing(decoder: MaskDecoder, x3, x4, x5, x6):
    """The diagram of the module's docstring, step by step, in eval mode."""

    def norm(block, x, stride=1, groups=1):
        x = F.conv2d(
            x,
            block.conv.weight,
            stride=stride,
            padding=block.conv.weight.shape[-1] // 2,
            groups=groups,
        )
        bn = block.bn
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    def level(x, lateral, name):
        x = norm(lateral, x)
        if not decoder.semantic_enhancer:
            return x
        enhancer = getattr(decoder, f"enhance_{name}")
        gate, value = norm(enhancer.gate, x6), norm(enhancer.value, x6)
        return x * up(((gate + 3) / 6).clamp(0, 1), x.shape[2:]) + up(value, x.shape[2:])

    l3 = level(x3, decoder.lateral_x3, "x3")
    l4 = level(x4, decoder.lateral_x4, "x4")
    l5 = level(x5, decoder.lateral_x5, "x5")
    p5 = norm(decoder.fuse_p5, l5).relu()
    p4 = norm(decoder.fuse_p4, l4 + up(p5, l4.shape[2:])).relu()
    p3 = norm(decoder.fuse_p3, l3 + up(p4, l3.shape[2:])).relu()
    if not decoder.bottom_up:
        return norm(decoder.out, p3)
    n4 = norm(decoder.fuse_n4, p4 + norm(decoder.down_p3, p3, 2, DIM)).relu()
    n5 = norm(decoder.fuse_n5, p5 + norm(decoder.down_n4, n4, 2, DIM)).relu()
    return norm(decoder.out, p3 + up(n4 + up(n5, n4.shape[2:]), p3.shape[2:]))


@pytest.mark.parametrize("enhancer, bottom_up", SWITCHES)
@pytest.mark.parametrize("tokens_at", [32, 64])
def test_x_mask_is_what_the_drawing_says(enhancer, bottom_up, tokens_at):
    torch.manual_seed(0)
    decoder = MaskDecoder(CHANNELS, DIM, enhancer, bottom_up)
    for norm in decoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.bias)
    decoder.eval()
    inputs = features(64, 192, tokens_at)
    x_mask = decoder(*inputs)
    assert x_mask.shape == (2, DIM, 8, 24)
    torch.testing.assert_close(x_mask, drawing(decoder, *inputs), atol=1e-4, rtol=1e-4)
    assert x_mask.min() < 0 < x_mask.max()  # linear: a kernel can say yes and no with one channel


@pytest.mark.parametrize("enhancer, bottom_up", SWITCHES)
def test_every_parameter_learns(enhancer, bottom_up):
    decoder = MaskDecoder(CHANNELS, DIM, enhancer, bottom_up)
    decoder(*features()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_the_scene_enters_by_the_enhancers_alone():
    x3, x4, x5, x6 = features()
    for enhancer in (True, False):
        decoder = MaskDecoder(CHANNELS, DIM, enhancer).eval()
        same = torch.allclose(decoder(x3, x4, x5, x6), decoder(x3, x4, x5, x6 + 1), atol=1e-6)
        assert same is not enhancer


def test_switches_take_away_exactly_their_parts():
    def parameters(**switches):
        return sum(p.numel() for p in MaskDecoder(CHANNELS, DIM, **switches).parameters())

    enhancer = (
        3 * 2 * (CHANNELS[3] * DIM + 2 * DIM)
    )  # a gate and a value a level: 1x1 convolution, norm
    bottom_up = 2 * (9 * DIM + 2 * DIM) + 2 * (
        9 * DIM * DIM + 2 * DIM
    )  # two depth-wise down, two full 3x3
    whole = parameters()
    assert parameters(semantic_enhancer=False) == whole - enhancer
    assert parameters(bottom_up=False) == whole - bottom_up
    plain = {
        name.split(".")[0]
        for name, _ in MaskDecoder(CHANNELS, DIM, False, False).named_parameters()
    }
    assert plain == {f"lateral_x{i}" for i in (3, 4, 5)} | {f"fuse_p{i}" for i in (3, 4, 5)} | {
        "out"
    }


def test_an_open_gate_passes_local_features_and_a_closed_one_none():
    enhance = SemanticEnhancer(3, 5).eval()
    local, x6 = torch.randn(1, 5, 8, 8), torch.randn(1, 3, 2, 2)
    value = up(enhance.value(x6), (8, 8))
    for bias, expected in ((1e3, local + value), (-1e3, value)):
        nn.init.constant_(enhance.gate.bn.bias, bias)
        torch.testing.assert_close(enhance(local, x6), expected)
