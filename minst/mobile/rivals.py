"""Half of whose latency? MobileInst beside the kind of model that it was made to replace.

    frame -> ResNet-50 -> C3, C4, C5 -> 1x1, pyramid pooling, FPN, fusion -> F (B, 258, H/8, W/8)
      F -> 4 x conv 3x3 -> conv 1x1 -> mask features (B, 128, h, w)       with 2 coordinates
      F -> 4 x conv 3x3 = G -> conv 3x3 -> A, 100 activation maps
           sigmoid(A) . G / sum(sigmoid(A)) -> class logits, objectness, kernels (B, 100, 128)

Paper: abstract and Tab 1, half the latency of the best before it.

Assumption: that is SparseInst (T. Cheng et al., CVPR 2022, arXiv 2203.12827) with ResNet-50, whose
    losses MobileInst follows and whose encoder it calls a burden; our sources name none.
Assumption: 256 channels; pooled to 1, 2, 3 and 6 cells, 64 channels each; one group of maps.
Deviation: random weights, norms folded (so ResNet has none), masks left at 1/8; the mask branch is
    counted as a part of `mask_decoder`, so that both models have the same parts.

Lesson: notebooks/08_on_device_latency.ipynb
"""

from statistics import median
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.feature_extraction import create_feature_extractor

from minst.layers import resize_to
from minst.mobile import roofline, timing
from minst.mobile.programs import real_frames, settled_model
from minst.model import apply_kernels
from minst.options import FrameSize, Range, Report, check_call

__all__ = ["SparseInst", "bench_rivals"]

WARM_UP = 2
RIVAL = "SparseInst, ResNet-50"
PARTS = ("backbone", "mask decoder", "instance decoder")


def bench_rivals(
    preset: str = "topformer-base",
    size: FrameSize = (320, 576),
    rounds: Annotated[int, Range(timing.FEWEST, 10**6)] = 12,
    json_path: Report | None = None,
) -> dict:
    """Print a preset of MobileInst beside `SparseInst`, one thread, in turns.

    size: (H, W), multiples of 64, so that neither pads. rounds: frames of each.
    Returns, and writes to `json_path`, {"size", "rounds", "rows": {model: row}, "ratio"}. A row:
    "median_ms", "p95_ms", "ms" and "macs" {part: number}, "weights_mb", "layer_mb" (1e6 bytes of
    the layer that touches most). "ratio": MobileInst's time over the rival's, paired within rounds,
    see `timing.median_interval`. Raises ValueError for bad arguments.
    """
    check_call(bench_rivals, locals(), "bench")
    if size[0] % 64 or size[1] % 64:
        raise ValueError(f"bench: size is {size}; both sides must be multiples of 64")
    with timing.fixed_setting(1), torch.no_grad():
        models = {preset: settled_model(preset).fuse(), RIVAL: SparseInst()}
        frame, laps = real_frames(size, 1), {name: [] for name in models}
        for name in timing.turns(list(models), WARM_UP + rounds):
            laps[name].append(roofline.part_times(models[name], frame))
        rows = {name: _row(m, frame, laps[name][WARM_UP:]) for name, m in models.items()}
    ours, theirs = ([sum(parts) for parts in times[WARM_UP:]] for times in laps.values())
    ratio = timing.median_interval([a / b for a, b in zip(ours, theirs)])
    result = {"size": list(size), "rounds": rounds, "rows": rows, "ratio": ratio}
    columns = {name: (name, ".1f") for name in ("median_ms", *PARTS, "weights_mb", "layer_mb")}
    columns["million MACs"] = ("all", ",.0f")
    lines = [(k, {**r, **r["ms"], "all": sum(r["macs"].values()) / 1e6}) for k, r in rows.items()]
    print(timing.table(f"{size[1]}x{size[0]}, one thread", columns, lines))
    print(f"{preset} takes this share of the rival's time: {timing.said(ratio)}")
    timing.write_json(result, json_path)
    return result


def _row(model: nn.Module, frame: Tensor, laps: list[list[float]]) -> dict:
    middle = dict(zip(roofline.PARTS, map(median, zip(*laps))))
    layers = roofline.describe(model, frame)
    return {
        **timing.summarize([sum(parts) for parts in laps]),
        "ms": {part: middle[part] for part in PARTS},
        "macs": {p: sum(row["macs"] for row in layers if row["part"] == p) for p in PARTS},
        "weights_mb": sum(p.nbytes for p in model.parameters()) / 1e6,
        "layer_mb": max(row["bytes"] for row in layers) / 1e6,
    }


class SparseInst(nn.Module):
    """The rival, in eval mode; see the module."""

    def __init__(self, num_classes: int = 80, num_queries: int = 100):
        super().__init__()
        net = resnet50(weights=None, norm_layer=nn.Identity)
        self.backbone = create_feature_extractor(net, ["layer2", "layer3", "layer4"])
        self.mask_decoder = _MaskDecoder()
        self.instance_decoder = _InstanceDecoder(num_classes, num_queries)
        self.eval()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> class logits (B, N, C), objectness (B, N, 1), kernels (B, N, 128), M (B, N, h, w)."""
        features, mask_features = self.mask_decoder(*self.backbone(frames).values())
        logits, objectness, kernels = self.instance_decoder(features)
        return logits, objectness, kernels, apply_kernels(kernels, mask_features)


def _branch(*last: nn.Module) -> nn.Sequential:
    convs = [nn.Conv2d(c, 256, 3, padding=1) for c in (258, 256, 256, 256)]
    return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU())), *last)


class _MaskDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.laterals = nn.ModuleList([nn.Conv2d(c, 256, 1) for c in (512, 1024, 2048)])
        self.pooled = nn.ModuleList([nn.Conv2d(256, 64, 1) for _ in range(4)])
        self.context, self.fusion = nn.Conv2d(512, 256, 1), nn.Conv2d(768, 256, 1)
        self.outputs = nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1) for _ in range(3)])
        self.branch = _branch(nn.Conv2d(256, 128, 1))

    def forward(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        p3, p4, p5 = (lateral(x) for lateral, x in zip(self.laterals, levels))
        pools = [F.adaptive_avg_pool2d(p5, cells) for cells in (1, 2, 3, 6)]
        pools = [resize_to(conv(x).relu(), p5) for conv, x in zip(self.pooled, pools)]
        p5 = self.context(torch.cat([*pools, p5], dim=1)).relu()
        p4 = p4 + F.interpolate(p5, p4.shape[-2:], mode="nearest")
        p3 = p3 + F.interpolate(p4, p3.shape[-2:], mode="nearest")
        fine = [resize_to(out(x), p3) for out, x in zip(self.outputs, (p3, p4, p5))]
        y, x = (torch.linspace(-1, 1, n) for n in p3.shape[-2:])
        place = torch.stack(torch.meshgrid(x, y, indexing="xy")).expand(len(p3), -1, -1, -1)
        features = torch.cat([place, self.fusion(torch.cat(fine, dim=1))], dim=1)
        return features, self.branch(features)


class _InstanceDecoder(nn.Module):
    def __init__(self, num_classes: int, num_queries: int):
        super().__init__()
        self.branch, self.maps = _branch(), nn.Conv2d(256, num_queries, 3, padding=1)
        self.heads = nn.ModuleList([nn.Linear(256, n) for n in (num_classes, 1, 128)])

    def forward(self, features: Tensor) -> list[Tensor]:
        features = self.branch(features)
        maps = self.maps(features).sigmoid().flatten(2)  # (B, N, h w)
        # the mean of the features under each map: an instance is where its map is active
        found = maps @ features.flatten(2).transpose(1, 2) / maps.sum(2, keepdim=True)
        return [head(found) for head in self.heads]
