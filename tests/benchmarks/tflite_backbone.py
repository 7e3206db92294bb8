"""A public quantised MobileNetV2 (.tflite) as a backbone for `minst train --backbone-weights`.

    pip install tflite                                      the schema of the format, no runtime
    python tests/benchmarks/tflite_backbone.py model.tflite out.safetensors [--images FOLDER]

    conv and depthwise operators, in their order  ->  `features.*` of torchvision's mobilenet_v2
    integers (q - zero point) * scale             ->  floats of 16 bits
    batch norms, folded into the convolutions     ->  norms that change nothing

A classifier and a DeepLab begin with the same 51 or 52 convolutions; what follows them is left out.
With --images, some pictures are sent through, so that each norm knows the mean and variance of what
it gets. In training with batch statistics it then changes nothing either.

Deviation: TensorFlow pads a convolution of stride 2 at the right and below, torchvision on all
    sides. Features lie half a stride beside the original ones, and training makes up for it.
Deviation: this network expects pixels from -1 to 1, ours are normalised as for ImageNet. The first
    convolution takes that over; at the border of the frame, where it sees padding, it differs.

Tried on a MobileNetV2 of tensorflow-cpu 2.21 with random weights, which its converter quantised to
integers of 8 bits with a scale for each channel, beside the network before that. With TensorFlow's
padding put in, the outputs of stages 1, 2, 6 and 13 correlate with the originals by 1.000, 1.000,
0.998 and 0.976: what is left are the rounded weights, and nothing was trained. With torchvision's
padding they lie 21 to 44 % away. ValueError names the first operator that does not fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CONVOLUTIONS = 51  # at least: all but the last one, which a segmenter lacks
SIDE = 224  # of the pictures that are sent through


def tensor(model, graph, number: int) -> np.ndarray:
    """A constant of the file as floats."""
    import tflite

    found = graph.Tensors(number)
    kinds = {
        tflite.TensorType.INT8: np.int8, tflite.TensorType.UINT8: np.uint8,
        tflite.TensorType.INT32: np.int32, tflite.TensorType.FLOAT32: np.float32,
    }  # fmt: skip
    if found.Type() not in kinds:
        raise ValueError(f"tensor {number}: type {found.Type()} is not one of {sorted(kinds)}")
    data = model.Buffers(found.Buffer()).DataAsNumpy()
    values = data.tobytes() if isinstance(data, np.ndarray) else b""
    values = np.frombuffer(values, kinds[found.Type()]).astype(np.float32)
    values = values.reshape(found.ShapeAsNumpy())
    how = found.Quantization()
    if how is None or how.ScaleLength() == 0:
        return values
    along = [1] * values.ndim  # a scale for each output channel, or one for all
    along[how.QuantizedDimension()] = -1
    scale, zero = (np.reshape(x, along) for x in (how.ScaleAsNumpy(), how.ZeroPointAsNumpy()))
    return (values - zero.astype(np.float32)) * scale


def convolutions(content: bytes) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (out, in, k, k) and biases (out,) of the file's convolutions, in their order."""
    import tflite

    if content[4:8] != b"TFL3":
        raise ValueError("this is no .tflite file: its bytes 4 to 8 are not TFL3")
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    orders = {  # of the axes in the file, as torch wants them
        tflite.BuiltinOperator.CONV_2D: (0, 3, 1, 2),
        tflite.BuiltinOperator.DEPTHWISE_CONV_2D: (3, 0, 1, 2),
    }
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind in orders:
            weight = tensor(model, graph, operator.Inputs(1)).transpose(orders[kind])
            bias = tensor(model, graph, operator.Inputs(2))
            yield torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())


def network(content: bytes) -> nn.Sequential:
    """torchvision's features with the file's weights; norms that change nothing."""
    features = mobilenet_v2(weights=None).features.eval()
    pairs = [m for m in features.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    filled = 0
    for conv, norm, (weight, bias) in zip(pairs[::2], pairs[1::2], convolutions(content)):
        if weight.shape != conv.weight.shape:
            if filled >= CONVOLUTIONS:
                break
            want, got = tuple(conv.weight.shape), tuple(weight.shape)
            raise ValueError(f"convolution {filled} is {got}, MobileNetV2 has {want} there")
        if not filled:  # x = 2 (y std + mean) - 1
            bias = bias + weight.sum((2, 3)) @ (2 * MEAN - 1)
            weight = weight * (2 * STD)[:, None, None]
        conv.weight.data = weight
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.data.fill_(1)
        norm.bias.data = bias
        filled += 1
    if filled < CONVOLUTIONS:
        raise ValueError(f"only {filled} convolutions were found, MobileNetV2 has 52")
    return features if filled == len(pairs) // 2 else features[:-1]


@torch.inference_mode()
def know_statistics(features: nn.Sequential, pixels: Tensor) -> None:
    """Each norm learns the mean and variance of what it gets, and gives what it gave before."""
    got = {}
    norms = [m for m in features.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [
        norm.register_forward_pre_hook(
            lambda norm, x: got.update({norm: torch.var_mean(x[0], (0, 2, 3), correction=0)})
        )
        for norm in norms
    ]
    features(pixels)
    for norm, hook in zip(norms, hooks):
        hook.remove()
        variance, mean = got[norm]
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.data += (mean - norm.running_mean) * gain
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data = gain * (variance + norm.eps).sqrt()


def pictures(folder: Path, most: int = 64) -> Tensor:
    """(B, 3, SIDE, SIDE), normalised: the first pictures of a folder, by name."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"{folder}: no .jpg or .png file is in it")
    opened = (Image.open(file).convert("RGB").resize((SIDE, SIDE)) for file in files[:most])
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in opened]) / 255
    return ((pixels - MEAN) / STD).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tflite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, help="a folder of pictures, for the norms")
    said = parser.parse_args()
    features = network(said.tflite.read_bytes())
    if said.images:
        know_statistics(features, pictures(said.images))
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    halves = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    save_file(halves, said.out)
    print(f"{said.out}: {len(features)} stages, {sum(v.numel() for v in halves.values())} numbers")


if __name__ == "__main__":
    main()
