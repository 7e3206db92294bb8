"""minst.lab.decoders: each order looks at what it says, has nothing that never learns, trains and loads again."""

import dataclasses

import pytest
import torch

from minst.data.batches import ClipBatches, FolderClips
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.instance_decoder import DecoderStage
from minst.lab import decoders
from minst.model import MobileInst
from minst.training import TrainConfig, initial_model, train, training_losses


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders")
    clips = ShapesConfig(width=64, height=64, frames=4, min_instances=1, max_instances=2, category=("fish", "snail"))
    write_shapes_dataset(folder / "train", 3, clips, 3, "train")
    return TrainConfig(
        out=str(folder / "run"), data=str(folder / "train"), seed=4, iterations=2, pairs=2, height=64, width=64,
        image_share=0.0, workers=0, log_every=1, save_every=1, warmup=1, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module", params=["global", "local", "local-local"])
def order(request):
    return request.param


@pytest.fixture(scope="module")
def model(order, config):
    return decoders.build(order, config).eval()


@pytest.fixture(scope="module")
def frame(model):
    with torch.inference_mode():
        return model.encode(torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))


@torch.inference_mode()
def test_what_it_looks_at_and_what_it_does_not(model, order, frame):
    def kernels(x6, x_mask):
        return model.instance_decoder(x6, x_mask, frame.token_padding)[0].kernels

    plain = kernels(frame.x6, frame.padded_x_mask)
    sees = {
        "global": not torch.equal(kernels(frame.x6 * 2 + 1, frame.padded_x_mask), plain),
        "local": not torch.equal(kernels(frame.x6, frame.padded_x_mask * 2 + 1), plain),
    }
    assert sees == {"global": order == "global", "local": order != "global"}


def watched(model, run):
    """What `run` hands to each decoder and gets of it: [(content, tokens, output)], in the order of the calls."""
    seen = []
    parts = [part for part in model.instance_decoder.modules() if isinstance(part, DecoderStage)]
    hooks = [part.register_forward_hook(lambda _, x, out: seen.append((x[0], x[2], out))) for part in parts]
    found = run()
    for hook in hooks:
        hook.remove()
    return seen, found


def tokens_of(model, order, frame):
    """X_G or X_L, as the paper has them."""
    d = model.instance_decoder
    if order == "global":
        return d.global_norm(d.global_projection(frame.x6.flatten(2).mT))
    return torch.nn.functional.max_pool2d(frame.padded_x_mask, d.pool_size).flatten(2).mT


@torch.inference_mode()
def test_queries_pass_one_decoder_after_the_other(model, order, frame):
    seen, out = watched(model, lambda: model.decode(frame))
    assert len(seen) == (2 if order == "local-local" else 1)
    for _, tokens, _ in seen:
        torch.testing.assert_close(tokens, tokens_of(model, order, frame))
    if len(seen) == 2:
        assert torch.equal(seen[1][0], seen[0][2])
    assert torch.equal(out.global_queries, seen[0][2])
    torch.testing.assert_close(out.kernels, model.instance_decoder.predict(seen[-1][2]).kernels)


def test_every_parameter_learns(order, config):
    model = decoders.build(order, config).train()
    batch = ClipBatches(config, FolderClips(YouTubeVIS(config.data), 0))[0]
    batch = batch._replace(frames=batch.frames.float() / 255)
    losses = training_losses(model, batch, dataclasses.replace(config, global_weight=0.0))
    sum(losses.values()).backward()
    # the kernels' bias and the like have gradients, if small ones; a part that nothing uses has none at all
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    names = {name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("instance_decoder")}
    assert ("global_projection" in names) == (order == "global")


def test_it_starts_as_the_full_model_does(model, config):
    torch.manual_seed(config.seed)
    full = initial_model(config, YouTubeVIS(config.data).categories).state_dict()
    own = model.state_dict()
    shared = [key for key in own if key in full]
    assert "instance_decoder.queries" in shared and any(key.startswith("backbone") for key in shared)
    assert all(torch.equal(own[key], full[key]) for key in shared)
    assert model.config.class_names == YouTubeVIS(config.data).categories
    assert len(shared) == len(own) < len(full)


def test_trained_saved_and_loaded_again(order, config, tmp_path):
    config = dataclasses.replace(config, out=str(tmp_path / "run"))
    weights = train(config, model=decoders.build(order, config))
    average = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["average"]
    loaded = decoders.load(weights, order).state_dict()
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in loaded.items())
    with pytest.raises(ValueError, match="in the model that config.json describes"):
        MobileInst.from_pretrained(weights)


def test_without_an_order_the_full_model_is_loaded():
    assert type(decoders.load("shapes-tiny")) is MobileInst
