"""Instance decoder: what each of its halves looks at, both written a second time, what padding must
not do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minst.instance_decoder import DecoderStage, DualInstanceDecoder, InstanceHeads

C6, D, N, K = 12, 16, 5, 3


def make(**options) -> DualInstanceDecoder:
    torch.manual_seed(0)
    return DualInstanceDecoder(C6, D, N, K, heads=4, **{"pool_size": 4, **options})


def flat(said):
    """Predictions and Q_G in one row."""
    predictions, q_g = said
    return [*predictions, q_g]


def frame(batch=2, height=2, width=3):
    return torch.randn(batch, C6, height, width), torch.randn(batch, D, 4 * height, 4 * width)


def attend(attention, query, key, value):
    """Attention, one head and one query at a time."""
    q, k, v = attention.q(query), attention.k(key), attention.v(value)
    size = q.shape[-1] // attention.heads
    out = torch.zeros_like(q)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for b in range(q.shape[0]):
            for n in range(q.shape[1]):
                weights = (k[b, :, part] @ q[b, n, part] / size**0.5).softmax(0)
                out[b, n, part] = weights @ v[b, :, part]
    return attention.out(out)


def stage_by_hand(stage: DecoderStage, content, queries, tokens, position):
    """The learned queries say who is asking; they are added where a query looks, and never handed
    on."""
    content = content + attend(stage.cross_attention, content + queries, tokens + position, tokens)
    content = F.layer_norm(content, (D,), stage.norm1.weight, stage.norm1.bias)
    asking = content + queries
    content = content + attend(stage.self_attention, asking, asking, content)
    return F.layer_norm(content, (D,), stage.norm2.weight, stage.norm2.bias)


@torch.no_grad()
def test_a_stage_is_cross_then_self_attention():
    torch.manual_seed(0)
    stage = DecoderStage(D, 4)
    content, queries = torch.randn(2, N, D), torch.randn(N, D)
    tokens, position = torch.randn(2, 7, D), torch.randn(1, 7, D)
    expected = stage_by_hand(stage, content, queries, tokens, position)
    torch.testing.assert_close(
        stage(content, queries, tokens, position), expected, atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("normalise_global", [True, False])
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_global_then_local(pooling, normalise_global):
    """0 -> X_G -> Q_G -> X_L -> Q_L -> heads, tokens taken cell by cell; Q is added at each
    step."""
    decoder, (x6, x_mask) = make(pooling=pooling, normalise_global=normalise_global), frame()
    if normalise_global:  # as after training, not ones and zeros
        (
            nn.init.uniform_(decoder.global_norm.weight, 0.5, 2.0),
            nn.init.normal_(decoder.global_norm.bias),
        )
    weight, bias = decoder.global_projection.weight, decoder.global_projection.bias
    x_g = torch.stack([x6[:, :, i // 3, i % 3] @ weight.T + bias for i in range(6)], 1)
    if normalise_global:
        spread = ((x_g - x_g.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
        x_g = (x_g - x_g.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt()
        x_g = x_g * decoder.global_norm.weight + decoder.global_norm.bias
    reduce = torch.amax if pooling == "max" else torch.mean
    x_l = torch.stack(
        [
            reduce(x_mask[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4], dim=(2, 3))
            for i in range(2)
            for j in range(3)
        ],
        1,
    )
    position = decoder.position(2, 3)
    for tokens, expected in ((decoder.global_tokens(x6), x_g), (decoder.local_tokens(x_mask), x_l)):
        torch.testing.assert_close(tokens[0], expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(tokens[1], position)
    q = decoder.queries
    q_g = stage_by_hand(decoder.global_decoder, torch.zeros(2, N, D), q, x_g, position)
    q_l = stage_by_hand(decoder.local_decoder, q_g, q, x_l, position)
    predictions, found = decoder(x6, x_mask)
    torch.testing.assert_close(found, q_g, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(predictions, decoder.heads(q_l + q), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    # in training the heads speak of Q_G as well
    for ours, theirs in zip(decoder.predict(q_g), decoder.heads(q_g + q), strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_the_global_decoder_sees_the_scene_and_the_local_one_the_mask_feature():
    decoder, (x6, x_mask) = make(), frame()
    predictions, q_g = decoder(x6, x_mask)
    other_details = decoder(x6, torch.randn_like(x_mask))
    assert torch.equal(other_details[1], q_g) and not torch.allclose(
        other_details[0].kernels, predictions.kernels
    )
    other_scene = decoder(torch.randn_like(x6), x_mask)
    assert not torch.allclose(other_scene[1], q_g, atol=1e-2)
    assert not torch.allclose(other_scene[0].kernels, predictions.kernels, atol=1e-3)


@torch.no_grad()
def test_the_local_half_alone_takes_the_queries_of_another_frame():
    """Query passing: of its own frame's Q_G it makes what the whole decoder makes; of another's,
    something else."""
    decoder, (x6, x_mask) = make(), frame()
    predictions, q_g = decoder(x6, x_mask)
    for ours, theirs in zip(decoder.local(q_g, x_mask), predictions, strict=True):
        assert torch.equal(ours, theirs)
    passed = decoder.local(q_g.flip(0), x_mask)
    q_l = stage_by_hand(
        decoder.local_decoder, q_g.flip(0), decoder.queries, *decoder.local_tokens(x_mask)
    )
    expected = decoder.heads(q_l + decoder.queries)
    torch.testing.assert_close(passed.kernels, expected.kernels, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_is_handed_on_is_what_the_frame_has_shown():
    """If all tokens of X_G are one and the same, queries have brought back one and the same thing
    before they talk."""
    decoder, (x6, _) = make(), frame()
    x6 = x6[:, :, :1, :1].expand_as(x6)
    seen = {}
    decoder.global_decoder.norm1.register_forward_hook(
        lambda module, inputs, out: seen.update(content=out)
    )
    x_g, position = decoder.global_tokens(x6)
    decoder.global_decoder(torch.zeros(2, N, D), decoder.queries, x_g, position)
    torch.testing.assert_close(
        seen["content"], seen["content"][:, :1].expand(2, N, D), atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(seen["content"][0], seen["content"][1], atol=1e-2)


@torch.no_grad()
def test_a_normalised_global_feature_has_one_length_for_all_tokens():
    decoder, (x6, _) = make(), frame()
    tokens, _ = decoder.global_tokens(100 * x6)
    torch.testing.assert_close(
        tokens.var(-1, unbiased=False), torch.ones(tokens.shape[:2]), atol=1e-3, rtol=1e-3
    )
    projected = decoder.global_projection(100 * x6.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens, F.layer_norm(projected, (D,)))
    plain, _ = make(normalise_global=False).global_tokens(100 * x6)
    torch.testing.assert_close(plain, projected)  # the same seed: the same projection


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("normalise_global", [True, False])
def test_every_parameter_learns(normalise_global, pooling):
    decoder = make(normalise_global=normalise_global, pooling=pooling)
    (classes, objectness, kernels), _ = decoder(*frame())
    (classes.square().mean() + objectness.square().mean() + kernels.square().mean()).backward()
    # adding one number to all keys changes no softmax: the bias of k is without effect by nature
    for name, p in decoder.named_parameters():
        assert p.grad is not None and (p.grad.any() or name.endswith("k.bias")), name


@torch.no_grad()
def test_padded_tokens_say_nothing():
    decoder, (x6, x_mask) = make(), frame()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, [2, 5]] = True  # the last column of the first frame
    before = flat(decoder(x6, x_mask, padding))
    local = decoder.local(before[-1], x_mask, padding)
    x6[0, :, :, 2], x_mask[0, :, :, 8:] = 100.0, 100.0
    after = flat(decoder(x6, x_mask, padding))
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert all(torch.equal(a, b) for a, b in zip(local, before))
    unmasked = flat(decoder(x6, x_mask))
    for part in (-1, 2):  # Q_G and kernels: both halves would have looked there
        assert not torch.allclose(unmasked[part][0], after[part][0], atol=1e-3)
    # and each half by itself
    assert not torch.allclose(decoder.local(after[-1], x_mask).kernels[0], after[2][0], atol=1e-3)


@torch.no_grad()
def test_queries_have_no_order():
    decoder, (x6, x_mask) = make(), frame()
    before = flat(decoder(x6, x_mask))
    order = torch.randperm(N)
    decoder.queries.copy_(decoder.queries[order].clone())
    for one, other in zip(before, flat(decoder(x6, x_mask)), strict=True):
        torch.testing.assert_close(other, one[:, order], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_heads():
    heads, queries = InstanceHeads(D, K), torch.randn(2, N, D)
    classes, objectness, kernels = heads(queries)
    assert (classes.shape, objectness.shape, kernels.shape) == ((2, N, K), (2, N), (2, N, D))
    hidden = (queries @ heads.ffn[0].weight.T + heads.ffn[0].bias).clamp(min=0)
    hidden = hidden @ heads.ffn[2].weight.T + heads.ffn[2].bias
    normed = F.layer_norm(queries + hidden, (D,))
    torch.testing.assert_close(
        kernels, normed @ heads.kernel.weight.T + heads.kernel.bias, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(heads.classes.bias.sigmoid(), torch.full((K,), 0.01))
