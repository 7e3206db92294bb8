"""Instance decoder: which tokens each variant looks at, the stages written a second time, what padding must not do."""

import pytest
import torch
import torch.nn.functional as F

from minst.instance_decoder import DecoderStage, DualInstanceDecoder, InstanceHeads

C6, D, N, K = 12, 16, 5, 3
VARIANTS = ["global-local", "global", "local", "local-local"]


def make(decoder="global-local", **options) -> DualInstanceDecoder:
    torch.manual_seed(0)
    return DualInstanceDecoder(C6, D, N, K, heads=4, decoder=decoder, **{"pool_size": 4, **options})


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


def stage_by_hand(stage: DecoderStage, queries, tokens, position):
    queries = queries + attend(stage.cross_attention, queries, tokens + position, tokens)
    queries = F.layer_norm(queries, (D,), stage.norm1.weight, stage.norm1.bias)
    queries = queries + attend(stage.self_attention, queries, queries, queries)
    return F.layer_norm(queries, (D,), stage.norm2.weight, stage.norm2.bias)


@torch.no_grad()
def test_a_stage_is_cross_then_self_attention():
    stage = DecoderStage(D, 4)
    queries, tokens, position = torch.randn(2, N, D), torch.randn(2, 7, D), torch.randn(1, 7, D)
    expected = stage_by_hand(stage, queries, tokens, position)
    torch.testing.assert_close(stage(queries, tokens, position), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_global_then_local(pooling):
    """Q -> X_G -> Q_G -> X_L -> Q_L, tokens taken cell by cell."""
    decoder, (x6, x_mask) = make(pooling=pooling), frame()
    x_g = torch.stack([decoder.project_global(x6[:, :, i // 3, i % 3]) for i in range(6)], 1)
    reduce = torch.amax if pooling == "max" else torch.mean
    x_l = torch.stack([
        reduce(x_mask[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4], dim=(2, 3)) for i in range(2) for j in range(3)
    ], 1)  # fmt: skip
    position = decoder.position(2, 3)
    q_g = stage_by_hand(decoder.stages[0], decoder.queries.expand(2, N, D), x_g, position)
    q_l = stage_by_hand(decoder.stages[1], q_g, x_l, position)
    first, last = decoder(x6, x_mask)
    torch.testing.assert_close(first, q_g, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, q_l, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_looks_where_its_name_says(variant):
    decoder, (x6, x_mask) = make(variant), frame()
    first, last = decoder(x6, x_mask)
    assert torch.equal(first, last) is ("-" not in variant)
    for changed, source in (((x6 + torch.randn_like(x6), x_mask), "global"), ((x6, torch.randn_like(x_mask)), "local")):
        other_first, other_last = decoder(*changed)
        assert torch.equal(other_first, first) is (variant.split("-")[0] != source)
        assert torch.equal(other_last, last) is (source not in variant.split("-"))
    assert (decoder.project_global is None) is ("global" not in variant)
    # query passing runs the last stage: of its own frame's Q_G in a decoder of two stages this is the decoder itself
    if "-" in variant:
        torch.testing.assert_close(decoder.last_stage(first, x6, x_mask), last)


@torch.no_grad()
def test_a_normalised_global_feature_has_one_length_for_all_tokens():
    decoder, (x6, x_mask) = make(normalise_global=True), frame()
    tokens, _ = decoder.tokens("global", 100 * x6, x_mask)
    torch.testing.assert_close(tokens.var(-1, unbiased=False), torch.ones(tokens.shape[:2]), atol=1e-3, rtol=1e-3)
    projected = decoder.project_global[0](100 * x6.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens, F.layer_norm(projected, (D,)))
    assert make("local", normalise_global=True).project_global is None


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(variant, pooling):
    decoder = make(variant, pooling=pooling)
    classes, objectness, kernels = decoder.heads(decoder(*frame())[1])
    (classes.square().mean() + objectness.square().mean() + kernels.square().mean()).backward()
    # adding one number to all keys changes no softmax: the bias of k is without effect by nature
    for name, p in decoder.named_parameters():
        assert p.grad is not None and (p.grad.any() or name.endswith("k.bias")), name


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_tokens_say_nothing(variant):
    decoder, (x6, x_mask) = make(variant), frame()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, [2, 5]] = True  # the last column of the first frame
    before = decoder(x6, x_mask, padding)
    x6[0, :, :, 2], x_mask[0, :, :, 8:] = 100.0, 100.0
    after = decoder(x6, x_mask, padding)
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert not torch.allclose(decoder(x6, x_mask)[1][0], after[1][0], atol=1e-3)


@torch.no_grad()
def test_queries_have_no_order():
    decoder, (x6, x_mask) = make(), frame()
    first, last = decoder(x6, x_mask)
    order = torch.randperm(N)
    decoder.queries.copy_(decoder.queries[order].clone())
    other_first, other_last = decoder(x6, x_mask)
    torch.testing.assert_close(other_first, first[:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other_last, last[:, order], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_heads():
    heads, queries = InstanceHeads(D, K), torch.randn(2, N, D)
    classes, objectness, kernels = heads(queries)
    assert (classes.shape, objectness.shape, kernels.shape) == ((2, N, K), (2, N), (2, N, D))
    hidden = (queries @ heads.ffn[0].weight.T + heads.ffn[0].bias).clamp(min=0)
    hidden = hidden @ heads.ffn[2].weight.T + heads.ffn[2].bias
    normed = F.layer_norm(queries + hidden, (D,))
    torch.testing.assert_close(kernels, normed @ heads.kernel.weight.T + heads.kernel.bias, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads.classes.bias.sigmoid(), torch.full((K,), 0.01))
