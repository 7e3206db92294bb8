"""Scores that mean what they say: four numbers a class, learned from half of the held-out images.

    python tests/benchmarks/photos_calibrate.py WEIGHTS --data FOLDER --out NEW

A score is sqrt(class probability * objectness). Both logits come from a linear layer, so that a
scale and a shift of each, which are fitted, can be folded into its weights: the network stays what
it is. What is minimised is the cross-entropy of the score and "right at IoU 0.5" (Platt's scaling,
with two logits), over every query and class of the odd images. Printed is the expected calibration
error, and AP50, on the even ones, before and after. The scale and shift of objectness are shared
by all classes; those of a class are its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import photos

from minst.data.coco import COCO
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.predict import LARGEST_IMAGE, at_size, category_ids, network_size, resized
from minst.rle import encode


@torch.inference_mode()
def every_query(model: MobileInst, dataset: COCO) -> list[dict]:
    """Each query in each class of each image: a detection, with its two `logits`."""
    ids, found = category_ids(model, dataset), []
    for i in range(len(dataset)):
        clip = dataset[i]
        full = (clip.height, clip.width)
        seen = network_size(model, full, largest=LARGEST_IMAGE)
        out = model(image_to_batch(resized(clip.image(0), seen)))
        masks = upsample_masks(out.mask_logits, seen)[0] > 0
        codes = [at_size(encode(mask.numpy()), full) for mask in masks]
        for query, code in enumerate(codes):
            for label, number in enumerate(ids):
                said = {"image_id": clip.video["id"], "category_id": number, "label": label}
                said["segmentation"] = code
                said["score"] = float(out.scores()[0, query, label])
                logits = out.class_logits[0, query, label], out.objectness[0, query]
                found.append(said | {"logits": tuple(map(float, logits))})
    return found


def scored(numbers: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Scores (M,) of logits (M, 2) of classes (M,). numbers (K + 1, 2): log scale and shift of each
    class, then of objectness."""
    of_class, of_object = numbers[labels], numbers[-1]
    log = torch.nn.functional.logsigmoid
    sure = log(of_class[:, 0].exp() * logits[:, 0] + of_class[:, 1])
    sure = sure + log(of_object[0].exp() * logits[:, 1] + of_object[1])
    return (sure / 2).exp()


def fit(logits: Tensor, labels: Tensor, right: Tensor, classes: int) -> Tensor:
    """The numbers (K + 1, 2) of the least cross-entropy, from where nothing is changed."""
    numbers = torch.zeros(classes + 1, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([numbers], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = scored(numbers, logits.double(), labels).clamp(1e-9, 1 - 1e-9)
        value = torch.nn.functional.binary_cross_entropy(scores, right.double())
        value = value + 1e-6 * (numbers**2).sum()  # two shifts may undo each other
        value.backward()
        return value

    optimiser.step(loss)
    return numbers.detach()


@torch.no_grad()
def fold(model: MobileInst, numbers: Tensor) -> None:
    """Scales and shifts become part of the two heads, in place."""
    heads = model.instance_decoder.heads
    for layer, of in ((heads.classes, numbers[:-1]), (heads.objectness, numbers[-1:])):
        scale, shift = of[:, 0].exp().to(layer.weight), of[:, 1].to(layer.weight)
        layer.weight.mul_(scale[:, None])
        layer.bias.mul_(scale).add_(shift)


def judge(truth: dict, found: list[dict], odd: bool) -> tuple[list[dict], dict]:
    """Detections of the odd or even images with `right`, and their figures."""
    images = {image["id"] for image in truth["images"] if image["id"] % 2 == odd}
    truths, said = photos.shares_of(truth, found)
    rows = photos.judged(photos.evaluated(truth, truths, said, images))
    kept = [found[number - 1] | {"right": right} for number, _, _, right in rows]
    scores, right = (np.array([of[key] for of in kept]) for key in ("score", "right"))
    shown = scores >= 0.1
    figures = {"error": photos.calibration_error(photos.reliability(scores[shown], right[shown]))}
    for category in truth["categories"]:
        of_all = photos.average_precisions(truth, truths, said, images, category["name"])
        figures[category["name"]] = of_all["> 5 %"]["AP50"]
    return kept, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    torch.set_num_threads(1)
    model = MobileInst.from_pretrained(said.weights)
    dataset = COCO(said.data, "valid")
    found, truth = every_query(model, dataset), dataset.dataset
    learned, _ = judge(truth, found, odd=True)
    logits, labels, right = (
        torch.tensor([of[key] for of in learned]) for key in ("logits", "label", "right")
    )
    numbers = fit(logits, labels, right, len(model.config.class_names))
    print("log scale, shift of each class and of objectness:", numbers.tolist())
    print("before, on the other half:", judge(truth, found, odd=False)[1])
    every = torch.tensor([of["logits"] for of in found]).double()
    scores = scored(numbers, every, torch.tensor([of["label"] for of in found])).tolist()
    new = [of | {"score": score} for of, score in zip(found, scores)]
    print("after:", judge(truth, new, odd=False)[1])
    fold(model, numbers)
    model.save_pretrained(said.out)


if __name__ == "__main__":
    main()
