"""How long does a fused minst frame take beside Ultralytics' YOLO11-seg and a ResNet-50 SparseInst, in one run?

    python tests/benchmarks/rivals.py [--threads 1 --rounds 30 --channels-last --models topformer-tiny@80,...]

Ultralytics is AGPL-3.0 and no dependency of minst, not even of its tests: this script alone imports it. Install it
into an environment of its own, beside minst (`pip install . ultralytics`); without it the other models still run.

All models are fused (batch norms folded), eager, float32, with random weights: time does not depend on them. Each
round times every model once, in turning order, so that a busy machine disturbs all alike; a ratio is the median over
rounds of the two times of one round. `wall` is what a user waits; `cpu` is the process' own time, the better judge of
one thread on a machine that does other things, too.

Included for minst: normalisation, backbone, both decoders, heads, masks of all 100 queries at 1/8 (nothing is left but
upsampling). For SparseInst: the same. For YOLO11: the network up to boxes, scores, mask coefficients and prototypes at
1/4, *without* non-maximum suppression and without masks, which flatters it.
Exit status 1 when a target of the chosen `--clock` is missed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2]))
from minst.config import PRESETS, MobileInstConfig  # noqa: E402
from minst.layers import fold_batch_norms  # noqa: E402
from minst.model import MobileInst  # noqa: E402

TARGETS = {  # (ours, rival): largest ratio of times
    ("topformer-tiny", "yolo11n-seg"): 0.85,
    ("topformer-base", "yolo11s-seg"): 0.60,
    ("topformer-base", "sparseinst-r50"): 0.25,
}
MODELS = ("topformer-tiny", "topformer-base", "yolo11n-seg", "yolo11s-seg", "sparseinst-r50")


def conv_relu(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, kernel, padding=kernel // 2), nn.ReLU(inplace=True))


class SparseInstR50(nn.Module):
    """SparseInst's plain sizes: ResNet-50, 256-channel context encoder, 100 activation maps, 128-d kernels, at 1/8."""

    def __init__(self, classes: int = 80, instances: int = 100, dim: int = 256, kernel_dim: int = 128):
        super().__init__()
        from torchvision.models import resnet50

        self.backbone = resnet50(weights=None)
        self.backbone.fc = nn.Identity()
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in (512, 1024, 2048))
        self.outputs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(3))
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), conv_relu(dim, dim // 4, 1)) for n in (1, 2, 3, 6)
        )
        self.bottleneck = conv_relu(2 * dim, dim, 1)
        self.fusion = conv_relu(3 * dim, dim, 1)
        self.instance_branch = nn.Sequential(conv_relu(dim + 2, dim), *(conv_relu(dim, dim) for _ in range(3)))
        self.mask_branch = nn.Sequential(
            conv_relu(dim + 2, dim), *(conv_relu(dim, dim) for _ in range(3)), nn.Conv2d(dim, kernel_dim, 1)
        )
        self.activation_maps = nn.Conv2d(dim, instances, 3, padding=1)
        self.heads = nn.ModuleList(nn.Linear(dim, n) for n in (classes, 1, kernel_dim))

    def fuse(self) -> SparseInstR50:
        fold_batch_norms(self.eval())  # those in an nn.Sequential: the downsampling branches
        for module in self.backbone.modules():
            for n in ("1", "2", "3"):
                conv, bn = getattr(module, f"conv{n}", None), getattr(module, f"bn{n}", None)
                if isinstance(bn, nn.BatchNorm2d):
                    setattr(module, f"conv{n}", nn.utils.fuse_conv_bn_eval(conv, bn))
                    setattr(module, f"bn{n}", nn.Identity())
        return self

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # -> (B, N, K), (B, N, 1), (B, N, H/8, W/8)
        b = self.backbone
        x = b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(frames)))))
        c3 = b.layer2(x)
        c4 = b.layer3(c3)
        x = self.encode(c3, c4, b.layer4(c4))  # (B, 256, H/8, W/8)
        rows, columns = (torch.linspace(-1, 1, n) for n in x.shape[-2:])
        position = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        x = torch.cat([x, position], 1)
        features = self.instance_branch(x)
        activation = self.activation_maps(features).sigmoid().flatten(2)  # (B, N, h*w)
        activation = activation / activation.sum(-1, keepdim=True).clamp(min=1e-6)
        instances = activation @ features.flatten(2).transpose(1, 2)  # (B, N, 256)
        classes, objectness, kernels = (head(instances) for head in self.heads)
        masks = self.mask_branch(x)
        return classes, objectness, (kernels @ masks.flatten(2)).view(len(x), -1, *masks.shape[-2:])

    def encode(self, *levels: Tensor) -> Tensor:
        p3, p4, p5 = (lateral(x) for lateral, x in zip(self.laterals, levels))
        size = p5.shape[-2:]
        pooled = [F.interpolate(pool(p5), size=size, mode="bilinear", align_corners=False) for pool in self.pools]
        p5 = self.bottleneck(torch.cat([p5, *pooled], 1))
        p4 = p4 + F.interpolate(p5, size=p4.shape[-2:])
        p3 = p3 + F.interpolate(p4, size=p3.shape[-2:])
        outputs = [
            F.interpolate(output(p), size=p3.shape[-2:], mode="bilinear", align_corners=False)
            for output, p in zip(self.outputs, (p3, p4, p5))
        ]
        return self.fusion(torch.cat(outputs, 1))


def build(name: str) -> nn.Module | None:
    """The fused model; None where Ultralytics is missing. ValueError for a name that nobody knows."""
    preset, _, dim = name.partition("@")
    if preset in PRESETS:
        return MobileInst(MobileInstConfig.preset(preset, **({"dim": int(dim)} if dim else {}))).fuse()
    if name == "sparseinst-r50":
        return SparseInstR50().fuse()
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join([*MODELS, *PRESETS])}")
    try:
        from ultralytics import YOLO
    except ImportError:
        print(f"{name} left out: ultralytics is missing; install it with `{sys.executable} -m pip install ultralytics`")
        return None
    return YOLO(f"{name}.yaml").model.fuse(verbose=False).eval()


def giga_macs(model: nn.Module, frames: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:  # not under no_grad: it hooks on parameters with gradients
        model(frames)
    return counter.get_total_flops() / 2e9


@torch.inference_mode()
def measure(models: dict[str, nn.Module], frames: Tensor, rounds: int) -> dict[str, dict[str, list[float]]]:
    """{model: {"wall": ms of every round, "cpu": ms of every round}}."""
    for model in models.values():
        for _ in range(2):
            model(frames)
    times: dict = {name: {"wall": [], "cpu": []} for name in models}
    names = list(models)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            wall, cpu = time.perf_counter(), time.process_time()
            models[name](frames)
            times[name]["cpu"].append(1e3 * (time.process_time() - cpu))
            times[name]["wall"].append(1e3 * (time.perf_counter() - wall))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description="minst beside YOLO11-seg and SparseInst, in one run")
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="which one the targets are held to")
    parser.add_argument("--channels-last", action="store_true", help="memory format of all models and the frame")
    parser.add_argument("--models", default=",".join(MODELS), help="separated by commas; preset@dim changes dim")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    models = {name: model for name in args.models.split(",") if (model := build(name)) is not None}
    width, height = map(int, args.size.split("x"))
    frames = torch.rand(1, 3, height, width)
    macs = {name: giga_macs(model, frames) for name, model in models.items()}
    if args.channels_last:
        frames = frames.contiguous(memory_format=torch.channels_last)
        models = {name: model.to(memory_format=torch.channels_last) for name, model in models.items()}
    times = measure(models, frames, args.rounds)

    layout = "channels last" if args.channels_last else "channels first"
    print(f"{width}x{height}, {args.threads} thread(s), {args.rounds} rounds, {layout}, "
          f"torch {torch.__version__}, {platform.machine()}")  # fmt: skip
    print(f"{'model':20}{'GMACs':>8}{'wall ms: median':>17}{'min':>8}{'cpu ms: median':>16}{'min':>8}")
    for name, t in times.items():
        wall, cpu = t["wall"], t["cpu"]
        print(f"{name:20}{macs[name]:8.2f}{median(wall):17.1f}{min(wall):8.1f}{median(cpu):16.1f}{min(cpu):8.1f}")
    missed = 0
    for ours in times:
        for rival in times:
            target = TARGETS.get((ours.partition("@")[0], rival))
            if target is not None:
                ratio = {c: median(a / b for a, b in zip(times[ours][c], times[rival][c])) for c in ("wall", "cpu")}
                verdict = "reached" if ratio[args.clock] <= target else "MISSED"
                missed += verdict == "MISSED"
                found = f"wall {ratio['wall']:.3f}, cpu {ratio['cpu']:.3f}"
                print(f"{ours} / {rival}: {found} (target {target}: {verdict})")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
