"""A model on a whole data set, whose labels may be withheld: the entries of a results file, as servers take them.

    YouTubeVIS(DIR) --> KernelTracker.track, video by video --> {video_id, category_id, score, segmentations}
    COCO(DIR)       --> every query, image by image         --> {image_id, category_id, score, segmentation}

One video is in memory at a time. Several processes each take every n-th video, or image, and gather once, at the end.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst.data.coco import COCO, open_folder
from minst.data.ytvis import Clip, YouTubeVIS, encode_mask
from minst.model import MobileInst, image_to_batch, upsample_masks
from minst.processes import Alone
from minst.tracking import KernelTracker

__all__ = ["at_size", "category_ids", "gathered", "predict_folder", "resized"]

LARGEST_SIDE = 480  # shorter side of frames: the largest that the paper trains and tests videos at
LARGEST_IMAGE = 640  # and of images
DETECTIONS = 100  # an image, as COCO counts


def predict_folder(
    folder: str | Path | YouTubeVIS,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    split: str | None = None,
    annotations: str | Path | None = None,
    size: int | None = None,
    score_threshold: float = 0.1,
    videos: int | None = None,
    engine: Alone | None = None,
) -> Iterator[dict]:
    """Entries of a results file for the first `videos` of a folder in YouTube-VIS form (images, in COCO form).

    A data set that is open already may stand in the place of its folder.
    `write_results` writes them as they come. Category ids are those of the file: by name, or by position when the model
    has no names and as many classes as the file has categories. size: shorter side of what the network sees, in pixels;
    by default the file's, up to 480 (images: 640); masks are of the file's size. score_threshold: of tracks and
    detections; low, since AP ranks sure and unsure ones.
    engine: of `minst.processes.join`; each process gives the entries of its own share.
    Raises ValueError at once where categories do not fit.
    """
    engine = engine or Alone("cpu")
    dataset = folder if isinstance(folder, YouTubeVIS) else open_folder(folder, split, annotations)
    model = MobileInst.from_pretrained(weights).fuse().to(engine.device)
    ids = category_ids(model, dataset)
    if isinstance(dataset, COCO):
        of_clip = lambda clip: _of_image(model, clip, ids, size, score_threshold)  # noqa: E731
    else:
        tracker = KernelTracker(model, reuse_interval, association, score_threshold)
        of_clip = lambda clip: _of_video(tracker, clip, ids, size)  # noqa: E731
    mine = range(engine.rank, min(videos or len(dataset), len(dataset)), engine.processes)
    shown = tqdm(mine, desc="predicting", unit=dataset.unit, disable=None if not engine.rank else True)
    return (entry for i in shown for entry in of_clip(dataset[i]))


def gathered(engine: Alone, entries: Iterable[dict]) -> Iterable[dict]:
    """The entries of all processes, by video or image; one process's as they come."""
    if engine.processes == 1:
        return entries
    return sorted(engine.gather(list(entries)), key=lambda entry: entry.get("video_id", entry.get("image_id")))


def category_ids(model: MobileInst, dataset: YouTubeVIS) -> list[int]:
    """The file's id of every class of the model."""
    names, known = model.config.class_names, dict(zip(dataset.categories, dataset.category_ids))
    if not names and model.config.num_classes == len(known):
        return dataset.category_ids
    missing = [name for name in names if name not in known]
    if missing or not names:
        model_has = ", ".join(names) or f"{model.config.num_classes} classes without names"
        raise ValueError(f"the model knows {model_has}; {dataset.file} has {', '.join(known)}")
    return [known[name] for name in names]


def resized(image: np.ndarray, size: int | None, largest: int = LARGEST_SIDE) -> np.ndarray:
    """The image (H, W, 3) with a shorter side of `size` pixels, by default of `largest` at most."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    wanted = size or min(shorter, largest)
    if wanted == shorter:
        return image
    shape = (round(width * wanted / shorter), round(height * wanted / shorter))
    return np.array(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR, reducing_gap=2))


def at_size(code: dict, height: int, width: int) -> dict:
    """A run-length code enlarged, or made smaller, to `height` x `width`."""
    if code["size"] == [height, width]:
        return code
    levels = Image.fromarray(rle_codec.decode(code) * 255)
    return encode_mask(np.asarray(levels.resize((width, height), Image.Resampling.BILINEAR)) >= 128)


def _of_video(tracker: KernelTracker, clip: Clip, ids: list[int], size: int | None) -> Iterator[dict]:
    result = tracker.track(resized(image, size) for image in clip)
    for entry in result.to_ytvis(clip.video["id"], ids):
        masks = (code and at_size(code, clip.height, clip.width) for code in entry["segmentations"])
        yield entry | {"segmentations": list(masks)}


@torch.inference_mode()
def _of_image(model: MobileInst, clip: Clip, ids: list[int], size: int | None, threshold: float) -> Iterator[dict]:
    """The detections of highest score: each query in each class, no suppression."""
    image = resized(clip.image(0), size, LARGEST_IMAGE)
    out = model(image_to_batch(image))
    scores, places = out.scores()[0].flatten().sort(descending=True)  # (N * K,)
    queries, classes = places // len(ids), places % len(ids)
    count = min(DETECTIONS, int((scores >= threshold).sum()))
    codes: dict[int, dict] = {}
    for score, query, label in zip(scores[:count].tolist(), queries[:count].tolist(), classes[:count].tolist()):
        if query not in codes:
            logits = upsample_masks(out.mask_logits[:, [query]], image.shape[:2])[0, 0]
            codes[query] = at_size(encode_mask((logits > 0).cpu().numpy()), clip.height, clip.width)
        yield {
            "image_id": clip.video["id"],
            "category_id": ids[label],
            "score": score,
            "segmentation": codes[query],
        }
