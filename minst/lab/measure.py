"""What is measured of a trained run, and of the shipped weights; writes metrics.json.

    every run        on 1,600 frames of as many clips: image AP, dice and class loss
                     on 400 clips: video AP at T = 3, retention, holders, share of Q_G
    shipped weights  on clips of one speed, or with a scene cut: video AP of each setting

The network looks at a frame once; all settings ("cosine 3": a rule of association, and T) share
what it saw. Of AP is kept what it is without every twentieth clip, for the jackknife.

Assumption: AP is that of the ten best predictions of a clip, as the YouTube-VIS servers count.

Lesson: notebooks/09_ablation_lab.ipynb
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minst.data.coco import COCO
from minst.data.files import replacing
from minst.data.transforms import frame_instances
from minst.data.ytvis import Clip, YouTubeVIS
from minst.environment import commit
from minst.evaluation.coco import Evaluation, mean_of_known
from minst.evaluation.consistency import ConsistencyMeter, frame_share
from minst.evaluation.ytvis import YTVISEval
from minst.lab import decoders
from minst.lab.associations import ASSOCIATIONS, Oracle, encode_with
from minst.lab.grid import CUT, VARIANTS, metrics_of
from minst.lab.statistics import groups
from minst.losses import set_losses
from minst.macs import summary
from minst.model import Frame, FrameOutput, MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD, detections, masks_of_queries
from minst.results import FrameResult, VideoResult
from minst.tracking import KernelTracker

__all__ = ["FIGURES", "KEPT", "measure_run", "measure_shipped", "pairs"]

KEPT = 10  # predictions of a clip, or of a frame
AFTER = 3  # retention: does a query still hold its instance so many frames later?
# What is measured of every run, with what one point of it is.
FIGURES = {
    "image AP": "AP of masks of single frames",
    "video AP": "AP of tracks at T = 3, by cosine x scores",
    "dice": "dice loss x 100 on the frames of image AP",
    "class": "class loss x 100 there",
    "retention": "% of queries that hold their instance 3 frames later",
    "holders": "queries x 100 that segment a held instance",
    "share of Q_G": "% of the variance of Q_G that depends on the frame",
}


def pairs(weights: str, speed: str) -> dict[str, tuple[str, str]]:
    """What is compared on such clips: {in words: (a setting, the one in whose place it stands)}.
    "frozen" keeps X6 between key frames, and "told" knows of a scene cut, both by cosine."""
    rules = [by for by in (*ASSOCIATIONS, "oracle") if by != "cosine"]
    rules = [(f"{by} for cosine", by, t) for by in rules for t in (1, 3)]
    changes, intervals = [("X6 frozen", "frozen", t) for t in (3, 6)], (3, 6, 12)
    if speed == CUT:
        changes, intervals = [("told of the cut", "told", t) for t in (1, 3, 6)], (3, 6)
    elif weights == "shapes-tiny-images":
        changes, intervals = rules, (3,)
    elif speed == "medium":
        changes = rules + changes
    found = {f"{says}, T = {t}": (f"{by} {t}", f"cosine {t}") for says, by, t in changes}
    return found | {f"T = {t} for 1": (f"cosine {t}", "cosine 1") for t in intervals}


def measure_run(lab: Path, variant: str, seed: int) -> Path:
    """Measure a run that has been trained; returns its metrics.json, which is written last."""
    file, began = metrics_of(lab, variant, seed), time.process_time()
    model = decoders.load(file.with_name("weights"), VARIANTS[variant].decoder)
    macs = summary(model, (128, 128))["total"]["macs"]
    model = model.fuse().to(memory_format=torch.channels_last)  # fast for many frames at once
    found = of_frames(model, COCO(lab / "data" / f"frames-{seed}"))
    found |= of_clips(model, YouTubeVIS(lab / "data" / f"val-{seed}"))
    return _write(file, {"variant": variant, "seed": seed, "macs": macs}, found, began)


def measure_shipped(lab: Path, name: str, speed: str) -> Path:
    """Video AP of every setting of shipped weights; returns the file."""
    model, began = MobileInst.from_pretrained(name), time.process_time()
    macs = {part: row["macs"] for part, row in summary(model, (192, 256)).items()}
    clips = YouTubeVIS(lab / "data" / f"shipped-{speed}")
    settings = dict.fromkeys(itertools.chain(*pairs(name, speed).values()))
    found = track_all(model.fuse(), clips, settings, has_cuts=speed == CUT)
    whose = {"variant": name, "speed": speed, "macs": macs}
    return _write(metrics_of(lab, name, speed), whose, found, began)


def _write(path: Path, whose: dict, figures: dict[str, np.ndarray], began: float) -> Path:
    found = {"version": 3, "commit": commit(), "torch": torch.__version__, **whose}
    found["seconds"] = round(time.process_time() - began, 1)
    # NaN, where there was nothing to count, is taken for 0.
    found["figures"] = {k: np.nan_to_num(each).round(6).tolist() for k, each in figures.items()}
    with replacing(path) as beside:
        beside.write_text(json.dumps(found).replace("], ", "],\n") + "\n")
    return path


def average_precision(evaluation: Evaluation) -> np.ndarray:
    """AP of all pictures, and without each group of them (21,); nothing to find counts as 0."""
    pictures = np.array([*evaluation.run().pictures])
    samples = (pictures[kept > 0].tolist() for kept in groups(len(pictures)))
    return np.array([max(0, mean_of_known(evaluation.precision_of(some))) for some in samples])


@torch.inference_mode()
def of_frames(model: MobileInst, images: COCO) -> dict[str, np.ndarray]:
    """Image AP; dice and class loss for each instance."""
    results, sums = [], np.zeros(3)
    clips = [images[k] for k in range(len(images))]
    for clip, frame in zip(clips, look(model, (clip.image(0) for clip in clips))):
        results += detections(frame, clip, images.category_ids, most=KEPT)
        out, masks = frame.out, torch.from_numpy(clip.masks(0))
        targets = [frame_instances(masks, torch.as_tensor(clip.labels).long())]
        losses, _ = set_losses(out.class_logits, out.objectness, out.mask_logits, targets, 1.0)
        sums += float(losses["dice"]), float(losses["cls"]), len(targets[0].labels)
    dice, classes, instances = sums[:, None]
    losses = {"dice": dice / instances, "class": classes / instances}
    return {"image AP": average_precision(Evaluation(images.dataset, results))} | losses


@torch.inference_mode()
def look(model: MobileInst, images: Iterable[np.ndarray], at_once: int = 16) -> Iterator[Frame]:
    """Images of one size, encoded and decoded. Together they take less than half of the time."""
    images = iter(images)
    while some := list(itertools.islice(images, at_once)):
        seen = model.encode(torch.cat([image_to_batch(image) for image in some]))
        for k in range(len(some)):
            frame = seen.select(slice(k, k + 1))
            frame.out = FrameOutput(*(part[k : k + 1] for part in seen.out))
            yield frame


def cut_of(clip: Clip) -> int:
    """Where a second scene begins: at T = 3 and 6 no key frame is due there, nor just after."""
    return len(clip) // 2 // 6 * 6 + 1


def scenes(clips: YouTubeVIS) -> Iterator[Clip]:
    """Two clips each, the first half of one and the second of the other."""
    for k in range(0, len(clips) - 1, 2):
        first, second = clips[k], clips[k + 1]
        cut, tracks = cut_of(first), []
        names = first.video["file_names"][:cut] + second.video["file_names"][cut:]
        for clip, scene in ((first, range(cut)), (second, range(cut, len(second)))):
            for track in clip.tracks:
                own = {
                    key: [each if t in scene else None for t, each in enumerate(track[key])]
                    for key in ("segmentations", "areas")
                }
                if any(own["segmentations"]):
                    tracks.append(track | own | {"video_id": first.video["id"]})
        yield Clip(clips, first.video | {"file_names": names}, None, None, partial(list, tracks))


def of_clips(model: MobileInst, clips: YouTubeVIS) -> dict[str, np.ndarray]:
    """Video AP; do queries stay, how many are duplicates, and is Q_G alive?"""
    meter, firsts = ConsistencyMeter(AFTER), []

    def watch(clip: Clip, frames: list[Frame]) -> None:
        """What the queries of a clip do."""
        truths = (clip.masks(t) for t in range(len(clip)))
        given = [frame.out.class_logits[0].sigmoid()[:, clip.labels].numpy() for frame in frames]
        meter.add_clip(map(masks_of_queries, frames), truths, probabilities=given)
        firsts.append(frames[0].out.global_queries[0].numpy())

    found, said = track_all(model, clips, ["cosine 3"], watch=watch), meter.result()
    return {
        "video AP": found["cosine 3"],
        "retention": np.array([said["retention"][AFTER]]),
        "holders": np.array([said["holders"]]),
        "share of Q_G": np.array([frame_share(np.stack(firsts))]),
    }


def track_all(
    model: MobileInst,
    clips: YouTubeVIS,
    settings: Iterable[str],
    has_cuts: bool = False,
    watch: Callable[[Clip, list[Frame]], object] = lambda clip, frames: None,
) -> dict[str, np.ndarray]:
    """Video AP of every setting on the same clips, or on halves of them with a cut in between;
    `watch` is shown each clip, and its frames as the network has seen them."""
    truth = {"videos": [], "categories": clips.category_entries, "annotations": []}
    results: dict[str, list] = {setting: [] for setting in settings}
    for clip in scenes(clips) if has_cuts else clips:
        truth["videos"].append(clip.video)
        truth["annotations"] += clip.tracks
        frames = list(look(model, clip))
        for setting, entries in results.items():
            found = track(model, setting, clip, frames)
            found = found.to_ytvis(clip.video["id"], clips.category_ids)
            entries += sorted(found, key=lambda entry: -entry["score"])[:KEPT]
        watch(clip, frames)
    return {name: average_precision(YTVISEval(truth, found)) for name, found in results.items()}


@torch.inference_mode()
def track(model: MobileInst, setting: str, clip: Clip, frames: list[Frame]) -> VideoResult:
    """The tracks of a clip whose frames the network has seen."""
    by, interval = setting.split()
    rule = Oracle() if by == "oracle" else ASSOCIATIONS.get(by, "cosine")
    tracker = KernelTracker(model, int(interval), rule, score_threshold=EVALUATION_THRESHOLD)

    def steps() -> Iterator[FrameResult]:
        """One frame after the other, as the setting has it."""
        x6 = frames[0].x6
        for t, frame in enumerate(frames):
            if by == "told" and t == cut_of(clip):
                tracker.slots = None  # so this is a key frame, and identities are new
            if t % tracker.reuse_interval == 0:  # a key frame
                x6 = frame.x6
                if by == "oracle":
                    rule.see(frame, clip.masks(t))
            elif by == "frozen":
                frame = encode_with(model, image_to_batch(clip.image(t)), x6)
            yield tracker.advance(frame)

    return tracker.gather(steps())
