"""Tiny random models of every family that `minst.adapters` knows, held against what the library itself says of a frame.

Nothing is downloaded: configs are written here, and the hub is switched off.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from minst import adapters
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip, write_shapes_dataset
from minst.data.ytvis import YouTubeVIS
from minst.evaluation.consistency import ConsistencyMeter
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import MobileInst, apply_kernels, image_to_batch, upsample_masks
from minst.predict import encode, evaluate_model, masks_of_queries
from minst.protocol import EncodedFrame, QueryConfig, QueryFrame, QueryModel
from minst.samples import load_sample
from minst.tracking import KernelTracker
from minst.visualize.kernels import plot_similarity
from minst.visualize.queries import plot_query_consistency
from minst.visualize.recording import Recording, Settings, read_frames

os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported
T = pytest.importorskip("transformers", reason='transformers is missing: pip install "mobileinst[models]"')
NAMES = {"id2label": dict(enumerate(CATEGORIES)), "label2id": {name: i for i, name in enumerate(CATEGORIES)}}
WEIGHTS = Path(__file__).parents[1] / "data_samples/foreign/mask2former-tiny"
BENCHMARK = Path(__file__).parent / "benchmarks/foreign.py"
ANY_SIZE = ("Mask2Former", "OneFormer")
FAMILIES = ("Mask2Former", "OneFormer", "Eomt", "EomtDinov3", "Videomt", "RfDetr")
CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))


def query_masks(model, clip):
    """The mask of every query in every frame, each as a key frame: T arrays (N, H, W) bool."""
    return (masks_of_queries(encode(model, image)) for image in clip)


def resnet():
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return T.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=stages
    )


def build(family: str) -> nn.Module:
    """A model of the family with random weights, 7 queries and the 8 classes of shapes."""
    small = dict(NAMES, num_queries=7, num_attention_heads=2)
    if family in ANY_SIZE:
        small |= {"backbone_config": resnet(), "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 3}
        small |= {"encoder_feedforward_dim": 16, "dim_feedforward": 16}
    if family == "Mask2Former":
        config = T.Mask2FormerConfig(**small, feature_size=32, mask_feature_size=32)
        return T.Mask2FormerForUniversalSegmentation(config)
    if family == "OneFormer":
        return T.OneFormerForUniversalSegmentation(T.OneFormerConfig(**small, conv_dim=32, mask_dim=32))
    if family == "RfDetr":
        grid = {"image_size": 64, "patch_size": 8, "num_windows": 2, "num_register_tokens": 0}
        tokens = T.RfDetrDinov2Config(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=2, out_features=["stage2", "stage4"], **grid
        )
        heads = {
            "decoder_self_attention_heads": 2,
            "decoder_cross_attention_heads": 2,
            "decoder_layers": 2,
            "group_detr": 2,
        }
        config = T.RfDetrConfig(
            backbone_config=tokens, d_model=32, num_queries=7, intermediate_size=32, **heads, **NAMES
        )
        model = T.RfDetrForInstanceSegmentation(config)
        nn.init.constant_(model.segmentation_bias, 0.3)
        return model
    small |= {"hidden_size": 32, "num_hidden_layers": 3, "num_blocks": 1, "image_size": 64, "num_register_tokens": 1}
    small |= {"intermediate_size": 32} if family == "EomtDinov3" else {}
    return getattr(T, f"{family}ForUniversalSegmentation")(getattr(T, f"{family}Config")(**small))


def words(texts, max_length, **_):
    """In the place of a tokenizer, which needs a vocabulary."""
    ids = torch.arange(max_length)[None] % 50
    return {"input_ids": ids, "attention_mask": (ids < 9).long()}


def smooth(module, args, features: torch.Tensor) -> torch.Tensor:
    """In the place of noise: mask features as of a trained model, whose masks are large and sure."""
    features = nn.functional.avg_pool2d(features, 7, 1, 3, count_include_pad=False)
    features = features - features.mean((2, 3), keepdim=True)
    return 30 * features / features.std((2, 3), keepdim=True)


@pytest.fixture(scope="module")
def adapted(one_thread):
    """{family: QueryAdapter}; those that take any size see frames with a shorter side of 64."""
    found, size = {}, {"shortest_edge": 64, "longest_edge": 256}
    for i, family in enumerate(FAMILIES):
        torch.manual_seed(i)
        model, processor = build(family), None
        for name, parameter in model.named_parameters():  # as of a model that is sure of something
            if "class" in name and parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.5)
        for name, module in model.named_modules():
            if name.endswith(("mask_projection", "upscale_block", "spatial_features_proj")):
                module.register_forward_hook(smooth)
        if family == "Mask2Former":
            processor = T.Mask2FormerImageProcessor(size=size, size_divisor=32)
        if family == "OneFormer":
            images = T.OneFormerImageProcessor(size=size)
            images.class_info_file = ""  # a file of the hub
            processor = SimpleNamespace(image_processor=images, tokenizer=words)
        found[family] = adapters.from_transformers(model, processor=processor)
    return found


def library_says(adapter: adapters.QueryAdapter, frames: torch.Tensor):
    """The output of the library's own forward, and the masks' logits."""
    x = adapter.processed(frames)
    more = {"task_inputs": adapter.task.expand(len(x), -1)} if adapter.task.shape[-1] > 1 else {}
    said = adapter.model(x, **more)
    return said, said.pred_masks if hasattr(said, "pred_masks") else said.masks_queries_logits


def blobs(height: int, width: int, count: int = 2) -> torch.Tensor:
    """Smooth frames (B, 3, H, W) in [0, 1]."""
    torch.manual_seed(height + width)
    coarse = torch.rand(count, 3, 6, 6)
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_kernels_times_features_are_the_models_own_mask_logits(adapted, family):
    adapter, frames = adapted[family], blobs(64, 96 if family in ANY_SIZE else 64)
    out = adapter(frames)
    said, masks = library_says(adapter, frames)
    assert masks.std() > 1e-3 and (masks[0] - masks[1]).abs().max() > 1e-3
    torch.testing.assert_close(apply_kernels(out.kernels, out.mask_features), masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.mask_logits, masks, atol=1e-4, rtol=1e-4)
    logits = said.logits if family == "RfDetr" else said.class_queries_logits
    wanted = logits.sigmoid() if family == "RfDetr" else logits.softmax(-1)[..., :-1]
    torch.testing.assert_close(out.class_logits.sigmoid(), wanted, atol=2e-6, rtol=0)
    assert out.class_logits.shape == (2, 7, 8) and adapter.config == QueryConfig(CATEGORIES, 8, 7)


@pytest.mark.parametrize("size", [(64, 64), (72, 150), (131, 90)])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_classes_and_masks_are_those_of_the_librarys_post_processing(adapted, family, size):
    adapter, frame = adapted[family], blobs(*size, count=1)
    more = {"return_binary_maps": True} if family in ("Mask2Former", "RfDetr") else {}
    more |= {"overlap_mask_area_threshold": 0.0} if family == "OneFormer" else {}
    process = adapter.processor.post_process_instance_segmentation
    found = process(library_says(adapter, frame)[0], threshold=0.05, target_sizes=[size], **more)[0]
    out = adapter(frame)
    logits, scores = upsample_masks(out.mask_logits, size)[0], out.scores()[0]
    segments, theirs = found["segments_info"], found["segmentation"]
    assert len(segments) > 2
    gaps = [(scores[:, segment["label_id"]] - segment["score"]).abs() for segment in segments]
    assert max(gap.min() for gap in gaps) < 0.02
    ours = logits[[int(gap.argmin()) for gap in gaps]]  # (S, H, W)
    # nothing is resized where the frame is what the network sees
    least = 0.999 if size == (64, 64) and family not in ANY_SIZE else 0.9
    if family == "OneFormer":  # it gives each pixel to the query of the largest logit times score
        ours = (ours * torch.tensor([segment["score"] for segment in segments])[:, None, None]).argmax(0)
        assert (theirs == torch.tensor([segment["id"] for segment in segments])[ours]).float().mean() > least
    elif more:
        assert ((theirs > 0) == (ours > 0)).float().mean() > least
    else:  # later segments are painted over earlier ones
        painted = torch.full(size, -1.0)
        for i, mask in enumerate(ours > 0):
            painted[mask] = i
        assert (painted == theirs).float().mean() > least


def test_features_are_read_at_the_centres_of_the_frames_cells():
    n, m, size, inside = 20, 30, (70, 90), (0.7, 1.0)
    rows = (torch.arange(n) + 0.5)[:, None].expand(n, m)
    columns = (torch.arange(m) + 0.5)[None].expand(n, m)
    frame = QueryFrame(torch.stack([rows, columns])[None], lambda: None, size, inside)
    assert frame.x_mask.shape == (1, 2, 18, 23)
    # cell i of a side covers pixels 4 i to 4 i + 3, and a pixel is so many rows of the grid
    y, x = (torch.arange(18) + 0.5) * 4 * 0.7 * n / 70, (torch.arange(23) + 0.5) * 4 * m / 90
    torch.testing.assert_close(frame.x_mask[0, 0, :, 5], y.clamp(0.5, n - 0.5))
    torch.testing.assert_close(frame.x_mask[0, 1, 5], x.clamp(0.5, m - 0.5))


@pytest.mark.parametrize("size", [(64, 64), (70, 90), (65, 131)])
def test_masks_at_a_quarter_are_enlarged_onto_the_same_pixels(size):
    h, w = (-(-side // 4) for side in size)
    ramp = ((torch.arange(h) + 0.5) * 4)[:, None].expand(h, w)
    enlarged = upsample_masks(ramp[None, None], size)[0, 0]
    assert enlarged.shape == size
    inner = torch.arange(2, 4 * h - 2)[: size[0] - 2]
    torch.testing.assert_close(enlarged[inner, 3], inner + 0.5)


@torch.inference_mode()
def test_padding_is_cut_off(adapted):
    frames = blobs(64, 128)
    adapter = adapted["Eomt"]
    frame, (_, native) = adapter.encode(frames), library_says(adapter, frames)
    assert frame.out.mask_logits.shape[-2:] == (16, 32)
    # the frame fills the upper half of 64 x 64: 8 of 16 rows
    wanted = nn.functional.interpolate(native[:, :, :8], (16, 32), mode="bilinear")
    torch.testing.assert_close(frame.out.mask_logits[:, :, :14], wanted[:, :, :14], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_batch_is_computed_as_its_frames_are_alone(adapted, family):
    frames = blobs(72, 100, count=3)
    together = adapted[family](frames)
    for b in range(3):
        alone = adapted[family](frames[b : b + 1])
        for field in ("class_logits", "objectness", "kernels", "mask_features", "mask_logits"):
            torch.testing.assert_close(getattr(together, field)[b], getattr(alone, field)[0], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("reuse_interval", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_tracker_and_recording_run(adapted, family, reuse_interval):
    adapter = adapted[family]
    tracker = KernelTracker(adapter, reuse_interval, "mask", score_threshold=0.05)
    frames = [CLIP.render(t).image for t in range(5)]
    results = [tracker.step(frame) for frame in frames]
    assert [r.is_key for r in results] == [t % reuse_interval == 0 for t in range(5)]
    assert all(r.ids for r in results) and results[0].masks().shape[1:] == (96, 128)
    with torch.inference_mode():  # frame 1 has the kernels of frame 0, or its own
        key, shown = (adapter.encode(image_to_batch(frames[t])).out for t in (reuse_interval == 1, 1))
        logits = apply_kernels(key.kernels[:, results[1].queries], shown.mask_features)
    assert (results[1].masks() == (upsample_masks(logits, (96, 128))[0] >= 0).numpy()).all()
    shots = read_frames(frames, max_side=128)
    for association in ("mask", "cosine"):
        replay = Recording(adapter, shots).replay(Settings(reuse_interval, association, 0.05))
        assert len(replay.frames) == 5 and replay.result.class_names == CATEGORIES
    assert replay.frames[0].segmentations == results[0].segmentations


def test_between_key_frames_mask2former_does_not_run_its_decoder(adapted):
    adapter, calls = adapted["Mask2Former"], []
    part = adapter.model.model.transformer_module
    hook = part.register_forward_hook(lambda *_: calls.append(1))
    tracker = KernelTracker(adapter, reuse_interval=3)
    for t in range(6):
        tracker.step(CLIP.render(t).image)
    hook.remove()
    assert len(calls) == 2


@pytest.mark.parametrize("family", ["Mask2Former", "RfDetr"])
def test_fig_2_and_similarity_are_drawn(adapted, family):
    models = {"ours": MobileInst.from_pretrained("shapes-tiny").fuse(), family: adapted[family]}
    for model in (adapted[family], models):
        figure = plot_query_consistency(model, CLIP, num_frames=4)
        assert any("One query, one instance" in text.get_text() for text in figure.texts)
    plot_query_consistency(adapted[family], (CLIP.render(t).image for t in range(3)), num_frames=3)
    assert plot_similarity(adapted[family], CLIP, 0, 3).axes


def test_retention_and_ap_are_measured(adapted, tmp_path):
    adapter, knobs = adapted["Mask2Former"], ShapesConfig(width=128, height=96, frames=4)
    write_shapes_dataset(tmp_path / "val", 2, knobs, seed=5, split="val")
    dataset, meter = YouTubeVIS(tmp_path / "val"), ConsistencyMeter()
    for clip in (dataset[0], dataset[1]):
        meter.add_clip(query_masks(adapter, clip), map(clip.masks, range(len(clip))))
    figures = evaluate_model(adapter, dataset, 3, "cosine")
    assert meter.result()["visible"] == figures["consistency"]["visible"] > 0
    assert meter.result()["held"] == figures["consistency"]["held"]
    assert 0 <= figures["AP"] < 0.3 and 0 < figures["frame_share"]["kernels"] < 1
    assert np.isnan(figures["frame_share"]["global_queries"])  # it has no Q_G


def test_the_shipped_model_of_others_has_learned_shapes(one_thread):
    clip, model = load_sample("easy"), adapters.from_transformers(WEIGHTS)
    assert model.config == QueryConfig(CATEGORIES, 8, 20) and min(model.processed(blobs(192, 256)).shape[-2:]) == 160
    found = KernelTracker(model, 3, "mask", 0.1).track(clip).to_ytvis(clip.video["id"], clip.category_ids)
    assert evaluate_ytvis(clip.annotations(), found)["AP"] > 0.3
    said = ConsistencyMeter().add_clip(query_masks(model, clip), map(clip.masks, range(len(clip)))).result()
    assert said["held_share"] > 0.9 and said["retention"][3] > 0.7 > 3 * said["chance"][3]


def test_the_measurement_beside_ours_runs(adapted, tmp_path):
    """tests/benchmarks/foreign.py, by which the figures of data_samples/foreign were made."""
    foreign, knobs = runpy.run_path(str(BENCHMARK)), ShapesConfig(width=128, height=96, frames=4)
    write_shapes_dataset(tmp_path / "val", 2, knobs, seed=5, split="val")
    figures = foreign["measure"](adapted["Mask2Former"], YouTubeVIS(tmp_path / "val"), torch.zeros(7, 32))
    assert set(figures) == set(json.loads((WEIGHTS / "metrics-9001.json").read_text())["models"]["shapes-tiny"])
    assert 0 < figures["kernels_depend_on_the_frame"] < 1 and figures["queries"] == 7
    assert "| mask |" in foreign["table"]({"theirs": figures})


def test_no_object_is_nobodys_score(adapted):
    model = build("Eomt")
    nn.init.zeros_(model.class_predictor.weight)
    with torch.no_grad():
        model.class_predictor.bias.copy_(torch.tensor([0.0] * 8 + [9.0]))
        out = adapters.from_transformers(model)(blobs(64, 64))
    assert out.scores().max() < 2e-4


def test_a_folder_gives_a_model_in_float32_with_its_own_normalisation(tmp_path, one_thread):
    build("Mask2Former").half().save_pretrained(tmp_path)
    look = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    T.Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 256}, **look).save_pretrained(tmp_path)
    loaded = adapters.from_transformers(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32} and not loaded.training
    grey = loaded.processed(torch.full((1, 3, 64, 64), 0.5))
    torch.testing.assert_close(grey[0, :, 5, 5], torch.tensor([0.4 / 0.5, 0.3 / 0.6, 0.2 / 0.7]))
    assert loaded.processed(blobs(200, 300)).shape[-2:] == (64, 96)
    assert adapters.from_transformers(tmp_path, size=128).processed(blobs(200, 300)).shape[-2:] == (128, 192)
    (tmp_path / "preprocessor_config.json").unlink()
    bare = adapters.from_transformers(str(tmp_path))  # the library's own: 800
    assert min(bare.processed(blobs(100, 100, 1)).shape[-2:]) == 800


@pytest.mark.parametrize("family", ["Eomt", "EomtDinov3", "Videomt", "RfDetr"])
@torch.inference_mode()
def test_a_folder_with_its_processor_says_what_was_saved(tmp_path, family):
    saved = adapters.from_transformers(build(family))
    saved.model.save_pretrained(tmp_path)
    saved.processor.image_mean = [0.3, 0.4, 0.5]
    saved.processor.save_pretrained(tmp_path)
    wanted, found = (model(blobs(96, 70)) for model in (saved, adapters.from_transformers(tmp_path)))
    torch.testing.assert_close(found.mask_logits, wanted.mask_logits)
    torch.testing.assert_close(found.class_logits, wanted.class_logits)


def test_an_adapter_says_its_name_and_what_its_network_sees(adapted, tmp_path):
    assert {adapter.seen_side for adapter in adapted.values()} == {64}
    assert adapted["Eomt"].name == "EomtForUniversalSegmentation"
    build("Mask2Former").save_pretrained(tmp_path)
    assert adapters.from_transformers(tmp_path).seen_side == 800 and adapters.from_transformers(tmp_path).name
    assert adapters.from_transformers(str(tmp_path), size=128).seen_side == 128
    assert adapters.from_transformers(str(tmp_path), size=128).name == str(tmp_path)


def test_classes_without_names(adapted):
    model = build("Eomt")
    model.config.id2label = {i: f"LABEL_{i}" for i in range(8)}
    assert adapters.from_transformers(model).config == QueryConfig((), 8, 7)


def one_line(call, kind, *parts):
    with pytest.raises(kind) as error:
        call()
    said = str(error.value)
    assert "\n" not in said and len(said) < 500 and all(part in said for part in parts), said


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path, adapted, monkeypatch):
    load = adapters.from_transformers
    one_line(lambda: load("nobody/nothing-here"), OSError, "nobody/nothing-here", "hf download", "folder")
    one_line(lambda: load(tmp_path), ValueError, str(tmp_path), "holds no model")
    boxes = T.DetrConfig(use_timm_backbone=False, backbone_config=resnet(), use_pretrained_backbone=False)
    boxes.architectures = ["DetrForObjectDetection"]
    boxes.save_pretrained(tmp_path / "detr")
    one_line(lambda: load(tmp_path / "detr"), ValueError, "DetrForObjectDetection", "boxes", "Mask2Former")
    one_line(lambda: load(nn.Linear(2, 2)), ValueError, "Linear", "products")
    one_line(lambda: load(build("OneFormer")), ValueError, "OneFormerProcessor")
    one_line(lambda: load(build("Eomt"), size=128), ValueError, "64 x 64", "128")
    one_line(lambda: load(build("Mask2Former"), size=32), ValueError, "at least 64")
    model = build("Eomt")
    state = {k: v for k, v in model.state_dict().items() if k != "mask_head.fc3.weight"}
    model.save_pretrained(tmp_path / "lacks", state_dict=state)
    one_line(lambda: load(tmp_path / "lacks"), ValueError, "lacks", "mask_head.fc3.weight")
    model.save_pretrained(tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    one_line(lambda: load(tmp_path / "cut"), ValueError, "cut", "transformers can read")
    monkeypatch.setitem(sys.modules, "transformers", None)
    one_line(lambda: load("any"), ImportError, "mobileinst[models]")


def test_frames_that_cannot_be_taken_are_said_in_one_line(adapted):
    adapter = adapted["Mask2Former"]
    one_line(lambda: adapter.encode(torch.rand(3, 64, 64)), ValueError, "(B, 3, H, W)")
    one_line(lambda: adapter.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), ValueError, "floats")
    one_line(lambda: adapter.encode(torch.rand(1, 3, 63, 64)), ValueError, "64 x 64")


class Mine(nn.Module):
    """A model of a student's own: three queries, each a colour."""

    config = QueryConfig(("red", "green", "blue"), 3, 3)

    def encode(self, frames: torch.Tensor) -> QueryFrame:
        features = nn.functional.avg_pool2d(frames, 4) - 0.5
        kernels = (24 * torch.eye(3)).expand(len(frames), -1, -1)
        return QueryFrame(features, lambda: (torch.eye(3).expand_as(kernels), kernels), tuple(frames.shape[-2:]))


def test_a_model_of_ones_own_keeps_the_protocol(adapted, tiny):
    frame = Mine().encode(torch.rand(1, 3, 64, 64))
    for model in (Mine(), tiny, adapted["Videomt"]):
        assert isinstance(model, QueryModel)
        assert isinstance(model.encode(torch.rand(1, 3, 64, 64)), EncodedFrame)
    assert not isinstance(nn.Linear(2, 2), QueryModel) and frame.forget_masks().out.mask_logits is None
    image = np.zeros((64, 96, 3), np.uint8)
    image[8:40, 16:64, 1] = 255
    result = KernelTracker(Mine(), 3).track([image] * 4)
    assert [track.label for track in result.tracks] == [1]
    found, mask = KernelTracker(Mine()).step(image).masks()[0], image[..., 1] > 0
    assert (found & mask).sum() / (found | mask).sum() > 0.9
