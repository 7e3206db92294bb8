"""What is measured of a trained run, and of the shipped weights; writes metrics.json.

    every run        on 1,600 frames of as many clips: image AP, dice and class loss
                     on 400 clips: video AP at T = 3, retention, holders, share of Q_G
    shipped weights  on clips of one speed, or with a scene cut: video AP of each `Setting`

The network looks at a frame once; all settings share what it saw. Of each figure is kept what it is
without every twentieth clip, for the jackknife (statistics.py).

Lesson: notebooks/09_ablation_lab.ipynb
"""

import itertools
import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import minst
from minst.data.coco import COCO
from minst.data.files import replacing
from minst.data.transforms import frame_instances
from minst.data.ytvis import YouTubeVIS, encode_mask
from minst.evaluation.consistency import ConsistencyMeter, frame_share, mask_ious
from minst.evaluation.ytvis import YTVISEval
from minst.lab import decoders
from minst.lab.associations import ASSOCIATIONS, FrozenX6, Oracle, TellsCuts
from minst.lab.grid import CUT, VARIANTS, Budget
from minst.lab.matches import average_precision, keep
from minst.lab.statistics import Figure, groups
from minst.losses import set_losses
from minst.macs import summary
from minst.model import Frame, FrameOutput, MobileInst, image_to_batch
from minst.predict import EVALUATION_THRESHOLD, masks_of_queries
from minst.tracking import KernelTracker

__all__ = ["FIGURES", "INTERVALS", "Setting", "measure_run", "measure_shipped", "settings"]

INTERVALS = (1, 3, 6, 12)
FROZEN = (3, 6)
RULES = (*ASSOCIATIONS, "oracle")
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


class Setting(NamedTuple):
    """A tracker. by: one of `RULES`, "frozen" (X6, by cosine), or "told" (of cuts, by cosine)."""

    by: str
    interval: int  # T

    @property
    def name(self) -> str:
        """As metrics call it."""
        return f"{self.by} {self.interval}"

    def tracker(self, model: MobileInst, cut: int) -> KernelTracker:
        """A fresh tracker of this setting."""
        rule = {"oracle": Oracle(), "frozen": "cosine", "told": "cosine", **ASSOCIATIONS}[self.by]
        kind = {"frozen": FrozenX6, "told": TellsCuts}.get(self.by, KernelTracker)
        tracker = kind(model, self.interval, rule, score_threshold=EVALUATION_THRESHOLD)
        tracker.cut = cut
        return tracker


def settings(weights: str, speed: str) -> list[Setting]:
    """What is measured of shipped weights on such clips."""
    if speed == CUT:
        return [Setting(by, t) for by in ("cosine", "told") for t in (1, 3, 6)]
    found = [Setting("cosine", t) for t in INTERVALS]
    found += [Setting("frozen", t) for t in FROZEN]
    if speed == "medium":
        rules = [Setting(by, t) for by in RULES for t in (1, 3)]
        found = rules if weights == "shapes-tiny-images" else [*rules, *found]
    return list(dict.fromkeys(found))


def measure_run(lab: Path, variant: str, seed: int, budget: Budget) -> Path:
    """Measure a run that has been trained; returns its metrics.json, which is written last."""
    folder, began = lab / f"{variant}-{seed}", time.process_time()
    model = decoders.load(folder / "weights", VARIANTS[variant].decoder)
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    cost = {"macs": summary(model, (128, 128))["total"]["macs"], "loss": last["loss"]}
    cost["seconds of a step"] = last["seconds_per_iteration"]
    model = model.fuse().to(memory_format=torch.channels_last)  # fast for many frames at once
    found = of_frames(model, COCO(lab / "data" / f"frames-{seed}"))
    found |= of_clips(model, YouTubeVIS(lab / "data" / f"val-{seed}"))
    cost["seconds of measuring"] = round(time.process_time() - began, 1)
    whose = {"variant": variant, "seed": seed, "budget": budget.name}
    return _write(folder / "metrics.json", whose | cost, found)


def measure_shipped(lab: Path, name: str, speed: str, budget: Budget) -> Path:
    """Video AP of every setting of shipped weights; returns the file."""
    model, data, began = MobileInst.from_pretrained(name), lab / "data", time.process_time()
    macs = {part: row["macs"] for part, row in summary(model, (192, 256)).items()}
    clips = YouTubeVIS(data / f"shipped-{'medium' if speed == CUT else speed}")
    videos = scenes(clips) if speed == CUT else map(Video.of, clips)
    found = track_all(model.fuse(), videos, settings(name, speed), clips)
    whose = {"variant": name, "speed": speed, "budget": budget.name, "macs": macs}
    whose["seconds of measuring"] = round(time.process_time() - began, 1)
    return _write(lab / "shipped" / f"{name}-{speed}.json", whose, found)


def _write(path: Path, whose: dict, figures: dict[str, Figure]) -> Path:
    shown = {name: figure._asdict() for name, figure in figures.items()}
    code = {"version": 2, "commit": commit(), "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        text = json.dumps(code | whose | {"figures": shown}, allow_nan=False)
        beside.write_text(text.replace("}, ", "},\n") + "\n")
    return path


def commit() -> str:
    """The commit of the package that runs, with a "+" where its files differ; else its version."""
    asked = ["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "."]
    git = ["git", "-C", str(Path(minst.__file__).parent)]
    look = {"capture_output": True, "text": True, "check": False}
    try:
        said = [subprocess.run([*git, *what], **look) for what in asked]  # noqa: PLW1510
    except OSError:  # no git here
        return minst.__version__
    name, changed = (each.stdout.strip() for each in said)
    return name + "+" * bool(changed) if name else minst.__version__


# ------------------------------------------------------------------------------------------- frames


@torch.inference_mode()
def of_frames(model: MobileInst, images: COCO) -> dict[str, Figure]:
    """Image AP, dice and class loss."""
    truth, results, sums = Truth(images.category_entries), [], []
    each = [images[k] for k in range(len(images))]
    for image, frame in zip(each, look(model, (image.image(0) for image in each))):
        number = truth.add(image.tracks, image.height, image.width, 1)
        results += predictions(frame, number, images.category_ids)
        masks, labels = torch.from_numpy(image.masks(0)), torch.as_tensor(image.labels)
        targets = [frame_instances(masks, labels.long())]
        out = frame.out
        losses, _ = set_losses(out.class_logits, out.objectness, out.mask_logits, targets, 1.0)
        sums.append((float(losses["dice"]), float(losses["cls"]), len(targets[0].labels)))
    dice, classes, count = np.array(sums).T
    losses = {"dice": ratio(dice, count), "class": ratio(classes, count)}
    return {"image AP": truth.ap(results)} | losses


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


def predictions(frame: Frame, video: int, category_ids: Sequence[int]) -> list[dict]:
    """The best entries of a results file that a frame alone gives, as if it were a video."""
    scores, masks = frame.out.scores()[0], masks_of_queries(frame)  # (N, C), (N, H, W)
    best = scores.flatten().topk(min(20, scores.numel()))
    places = [divmod(place, scores.shape[1]) for place in best.indices.tolist()]
    return [
        {
            "video_id": video,
            "category_id": category_ids[label],
            "score": score,
            "segmentations": [encode_mask(masks[query])],
        }
        for score, (query, label) in zip(best.values.tolist(), places)
    ]


class Truth:
    """The ground truth of videos, as it grows; `ap` judges results by it."""

    def __init__(self, categories: list[dict]):
        self.file = {"categories": categories, "videos": [], "annotations": []}

    def add(self, tracks: Sequence[dict], height: int, width: int, length: int) -> int:
        """One more video; returns its id."""
        videos, annotations = self.file["videos"], self.file["annotations"]
        videos.append({"id": len(videos) + 1, "height": height, "width": width, "length": length})
        for track in tracks:
            annotations.append(track | {"id": len(annotations) + 1, "video_id": len(videos)})
        return len(videos)

    def ap(self, results: list[dict]) -> Figure:
        """AP, with and without groups of videos."""
        videos = range(len(self.file["videos"]))
        matches = keep(YTVISEval(self.file, results).run(), videos)
        return _figure(average_precision(matches, groups(len(videos))))


def ratio(part: Sequence[float], of: Sequence[float]) -> Figure:
    """A sum over clips divided by another."""
    weights = groups(len(of))
    return _figure((weights @ part) / np.maximum(weights @ of, 1e-9))


def _figure(values: np.ndarray) -> Figure:
    """NaN, where a sample has nothing to count, is taken for 0."""
    rounded = np.nan_to_num(np.asarray(values, dtype=float)).round(6).tolist()
    return Figure(rounded[0], rounded[1:])


# -------------------------------------------------------------------------------------------- clips


class Video(NamedTuple):
    """Frames and truth of a video, whatever it was cut from."""

    images: list[np.ndarray]
    tracks: list[dict]
    masks: list[np.ndarray]  # (G, H, W) each; for who is told the truth, so not beside cuts
    cut: int  # the frame where another scene begins; 0 = none

    @classmethod
    def of(cls, clip) -> "Video":
        """A clip as it is."""
        return cls(list(clip), clip.tracks, [clip.masks(t) for t in range(len(clip))], 0)


def scenes(clips: YouTubeVIS) -> Iterator[Video]:
    """Two clips each, the first half of one and the second of the other."""
    for first, second in zip(*(map(clips.__getitem__, range(k, len(clips), 2)) for k in (0, 1))):
        length = len(first)
        # At T = 3 and 6 no key frame is due there, nor on the frame after.
        cut = length // 2 // 6 * 6 + 1
        inside = [first] * cut + [second] * (length - cut)
        tracks = []
        for clip in (first, second):
            own = [shown is clip for shown in inside]
            for track in clip.tracks:
                kept = {}
                for key in ("segmentations", "areas"):
                    kept[key] = [each if mine else None for each, mine in zip(track[key], own)]
                if any(kept["segmentations"]):
                    tracks.append(track | kept)
        yield Video([clip.image(t) for t, clip in enumerate(inside)], tracks, [], cut)


def of_clips(model: MobileInst, clips: YouTubeVIS) -> dict[str, Figure]:
    """Video AP, and what queries do over time."""
    watch = Watch()
    found = track_all(model, map(Video.of, clips), [Setting("cosine", 3)], clips, watch)
    return {"video AP": found["cosine 3"]} | watch.figures()


def track_all(
    model: MobileInst,
    videos: Iterator[Video],
    wanted: Sequence[Setting],
    clips: YouTubeVIS,
    watch: "Watch | None" = None,
) -> dict[str, Figure]:
    """Video AP of every setting, by its name."""
    truth, results = Truth(clips.category_entries), {setting: [] for setting in wanted}
    for images, tracks, masks, cut in videos:
        number = truth.add(tracks, *images[0].shape[:2], len(images))
        frames = list(look(model, images))
        for setting in wanted:
            tracker = setting.tracker(model, cut)
            seen = _steps(tracker, images, frames, masks)
            results[setting] += tracker.gather(seen).to_ytvis(number, clips.category_ids)
        if watch:
            watch.add(frames, masks, [clips.category_ids.index(t["category_id"]) for t in tracks])
    return {setting.name: truth.ap(found) for setting, found in results.items()}


def _steps(tracker: KernelTracker, images: list, frames: list[Frame], masks: list) -> Iterator:
    """The results of a video's frames."""
    # Frozen X6 changes what the network sees, so that it has to look for itself.
    if isinstance(tracker, FrozenX6):
        yield from map(tracker.step, images)
        return
    for t, frame in enumerate(frames):
        if isinstance(tracker.association, Oracle) and t % tracker.reuse_interval == 0:
            tracker.association.see(frame, masks[t])
        yield tracker.advance(frame)


class Watch:
    """Queries over the frames of clips: do they stay, how many are duplicates, is Q_G alive?"""

    def __init__(self):
        self.counts, self.queries = [], []

    def add(self, frames: list[Frame], masks: list[np.ndarray], labels: list[int]) -> None:
        """One clip."""
        meter = ConsistencyMeter(AFTER)
        ious = np.stack([mask_ious(masks_of_queries(f), m) for f, m in zip(frames, masks)])
        given = np.stack([f.out.class_logits[0].sigmoid()[:, labels].numpy() for f in frames])
        visible = np.stack([m.any(axis=(1, 2)) for m in masks])
        said = meter.add_ious(ious, visible, probabilities=given).result()
        pairs, held = said["pairs"][AFTER], said["held"]
        holders = held and round(said["holders"] * held)
        self.counts.append((pairs["kept"], pairs["of"], holders, held))
        self.queries.append(frames[0].out.global_queries[0].numpy())

    def figures(self) -> dict[str, Figure]:
        """Retention, holders, and the share of Q_G that depends on the frame."""
        kept, of, holders, held = np.array(self.counts, dtype=float).T
        queries = np.stack(self.queries)
        shares = [frame_share(queries[weights > 0]) for weights in groups(len(queries))]
        return {
            "retention": ratio(kept, of),
            "holders": ratio(holders, held),
            "share of Q_G": _figure(np.array(shares)),
        }
