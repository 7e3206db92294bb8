"""Our instruments on a model that is not ours, beside shapes-tiny, on the same clips.

    python tests/benchmarks/foreign.py [--foreign data_samples/foreign/mask2former-tiny --clips 20 --out figures.json]

For each model, on `--clips` clips of 24 frames of the val split of shapes: video AP with five associations and T = 1, 3,
6, 12; of the queries, each frame a key frame: retention over 1, 3, 10 frames and its chance, how many instances are held,
queries per held instance; how much of a kernel's variance depends on the frame; median milliseconds of what every frame
costs and of what a key frame adds. And with --fig2 FOLDER Fig 2 of both on two shipped clips, which neither has seen.

    none        the same query goes on                            what a model with steady queries needs
    cosine-all  cos of all kernels                                the paper's, to the letter
    cosine      cos * s_old * s_new                               the paper's, as our tracker reads it
    centred     cos less the mean kernel of each query            is it the query or the instance that a kernel carries?
    mask        dice of the masks * s_old * s_new                 ours

"centred" takes its means from five other clips of the split. If "cosine" falls far when they are taken away, kernels say
which query they are of; if nothing is lost, they say which instance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from minst import adapters
from minst.data.shapes import CATEGORIES, shapes_clip, write_shapes_dataset
from minst.data.ytvis import Clip, YouTubeVIS
from minst.evaluation.consistency import ConsistencyMeter, frame_share, mask_ious
from minst.evaluation.ytvis import evaluate_ytvis
from minst.lab.associations import ASSOCIATIONS as RULES
from minst.model import MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD, category_ids, encode, masks_of_queries
from minst.samples import load_sample
from minst.tracking import Candidates, KernelTracker, cosine_similarity
from minst.visualize.queries import plot_query_consistency
from minst.visualize.style import save

HERE = Path(__file__).parents[2]
ASSOCIATIONS = ("none", "cosine-all", "cosine", "centred", "mask")
INTERVALS = (1, 3, 6, 12)
FRAMES = 24


@torch.inference_mode()
def mean_kernels(model, images: Iterable[np.ndarray]) -> torch.Tensor:
    """The mean kernel of every query over images (H, W, 3): (N, D). It says nothing of instances."""
    return torch.stack([model.encode(image_to_batch(image)).out.kernels[0] for image in images]).mean(0)


def centred(means: torch.Tensor, old: Candidates, new: Candidates, x_mask: torch.Tensor) -> torch.Tensor:
    """Cosine less the means (N, D) of the queries whose kernels these are."""
    return cosine_similarity(old.kernels - means[old.queries], new.kernels - means[new.queries])


def encoded(model, clip: Clip, costs: dict[str, list[float]]) -> Iterator:
    """Every frame of a clip, decoded; seconds go to costs["encode"] and costs["decode"]."""
    for image in clip:
        start = time.process_time()
        frame = encode(model, image)
        middle = time.process_time()
        with torch.inference_mode():
            frame.out  # noqa: B018 (computed when it is asked for)
        costs["encode"].append(middle - start)
        costs["decode"].append(time.process_time() - middle)
        yield frame


def measure(model, dataset: YouTubeVIS, means: torch.Tensor) -> dict:
    """The figures of one model, in 0 .. 1."""
    ids, own = category_ids(model, dataset), model.config.class_names
    settings = [(name, interval) for name in ASSOCIATIONS for interval in INTERVALS]
    results: dict[tuple, list] = {setting: [] for setting in settings}
    queries, firsts, costs = ConsistencyMeter(), [], {"encode": [], "decode": []}
    for i in range(len(dataset)):
        clip = dataset[i]
        names = [dataset.categories[label] for label in clip.labels]
        frames = list(encoded(model, clip, costs))
        firsts.append(frames[0].out.kernels[0].numpy())
        labels = [own.index(name) for name in names]
        seen = [
            (
                mask_ious(masks_of_queries(frame), clip.masks(t)),
                frame.out.class_logits[0].sigmoid()[:, labels].numpy(),
                frame.out.scores()[0].amax(-1).numpy(),
            )
            for t, frame in enumerate(frames)
        ]
        ious, probabilities, scores = (np.stack(part) for part in zip(*seen))
        visible = np.stack([clip.masks(t).any((1, 2)) for t in range(len(clip))])
        queries.add_ious(ious, visible, names, None, probabilities, scores)
        for name, interval in settings:
            rule = partial(centred, means) if name == "centred" else RULES[name]
            tracker = KernelTracker(model, interval, rule, EVALUATION_THRESHOLD)
            tracked = tracker.gather(map(tracker.advance, frames))
            results[name, interval] += tracked.to_ytvis(clip.video["id"], ids)
        print(f"clip {i + 1} of {len(dataset)}", flush=True)
    truth = {
        "videos": [dataset[i].video for i in range(len(dataset))],
        "categories": dataset.category_entries,
        "annotations": [track for i in range(len(dataset)) for track in dataset[i].tracks],
    }
    said = queries.result()
    ap = {setting: evaluate_ytvis(truth, found) for setting, found in results.items()}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "queries": model.config.num_queries,
        "AP": {name: {t: ap[name, t]["AP"] for t in INTERVALS} for name in ASSOCIATIONS},
        "AP50": {name: {t: ap[name, t]["AP50"] for t in INTERVALS} for name in ASSOCIATIONS},
        "retention": {k: said["retention"][k] for k in (1, 3, 10)},
        "chance": {k: said["chance"][k] for k in (1, 3, 10)},
        **{key: said[key] for key in ("held_share", "holders", "sure_holders", "queries_used", "queries_per_clip")},
        "kernels_depend_on_the_frame": frame_share(np.array(firsts)),
        "cpu_ms": {key: 1000 * median(values) for key, values in costs.items()},
    }


def table(figures: dict[str, dict]) -> str:
    """What was measured, as Markdown."""
    lines = ["| AP | " + " | ".join(f"{name}, T = {t}" for name in figures for t in INTERVALS) + " |"]
    lines.append("|---|" + "---|" * len(figures) * len(INTERVALS))
    for name in ASSOCIATIONS:
        cells = [f"{100 * of['AP'][name][t]:.1f}" for of in figures.values() for t in INTERVALS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rows = {
        f"retention over {k}": lambda of, k=k: f"{of['retention'][k]:.2f} ({of['chance'][k]:.2f})" for k in (1, 3, 10)
    }
    rows |= {"held": lambda of: f"{of['held_share']:.2f}"}
    rows |= {"queries per held instance": lambda of: f"{of['holders']:.2f} / {of['sure_holders']:.2f}"}
    rows |= {"kernels depend on the frame": lambda of: f"{of['kernels_depend_on_the_frame']:.2f}"}
    rows |= {"encode, decode (CPU ms)": lambda of: "{encode:.0f}, {decode:.0f}".format(**of["cpu_ms"])}
    lines += ["", "| | " + " | ".join(figures) + " |", "|---|" + "---|" * len(figures)]
    lines += [f"| {name} | " + " | ".join(say(of) for of in figures.values()) + " |" for name, say in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--foreign", default=str(HERE / "data_samples/foreign/mask2former-tiny"))
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--fig2", type=Path, help="a folder for the pictures")
    said = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        "shapes-tiny": MobileInst.from_pretrained("shapes-tiny").fuse(),
        Path(said.foreign).name: adapters.from_transformers(said.foreign),
    }
    if said.fig2:
        for name in ("easy", "twins"):
            save(plot_query_consistency(models, load_sample(name)), said.fig2 / f"fig2-foreign-{name}.png")
    others = [shapes_clip("val", i, seed=said.seed + 1).render(t).image for i in range(5) for t in range(0, FRAMES, 4)]
    with tempfile.TemporaryDirectory() as folder:
        write_shapes_dataset(Path(folder) / "val", said.clips, seed=said.seed, split="val")
        dataset = YouTubeVIS(Path(folder) / "val")
        assert tuple(dataset.categories) == CATEGORIES
        figures = {name: measure(model, dataset, mean_kernels(model, others)) for name, model in models.items()}
    setting = {"split": "val", "seed": said.seed, "clips": said.clips, "frames": FRAMES, "torch": torch.__version__}
    if said.out:
        said.out.write_text(json.dumps({"setting": setting, "models": figures}, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
