"""What is measured of a trained run, from single frames up to the trackers; writes metrics.json.

    every run          image AP; video AP at T = 3 by cosine and by mask; consistency of queries at
                       1, 3, 10 frames
    every tracker      besides its AP, consistency of its tracks: do they stay on their instance?
    PROBED runs        video AP of every association at T = 1, 3, 6; the same for the shipped
                       weights, on clips of theirs
    the full model     video AP at T = 1 .. 12 on slow, medium and fast clips; frozen X6;
                       adaptive T; ms per frame

The network looks at a frame once; all settings share what it saw. What is kept allows to draw
samples of the clips again (matches.py).

Lesson: notebooks/09_ablation_lab.ipynb
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from minst import rle
from minst.data.files import replacing
from minst.data.ytvis import Clip, YouTubeVIS, encode_mask
from minst.evaluation.consistency import ConsistencyMeter
from minst.evaluation.ytvis import YTVISEval
from minst.lab import associations, decoders
from minst.lab.associations import AdaptiveT, FrozenX6, Moves
from minst.lab.grid import SPEEDS, VARIANTS, Budget
from minst.lab.matches import average_precision, keep
from minst.macs import summary
from minst.model import Frame, MobileInst
from minst.predict import EVALUATION_THRESHOLD, encode, masks_of_queries
from minst.results import VideoResult
from minst.tracking import KernelTracker

__all__ = ["ADAPTIVE", "DISTANCES", "FROZEN", "INTERVALS", "PROBED", "Setting", "measure_run",
           "measure_shipped", "settings"]  # fmt: skip

INTERVALS = (1, 2, 3, 4, 6, 9, 12)
PROBED = ("full", "passing=off", "images")  # temporal training, the same frames without it, images
ADAPTIVE = (0.9, 0.95, 0.98, 0.99)  # agreement below which a key frame is taken
FROZEN = (2, 3, 6)
EVERY = 6  # image AP looks at every sixth frame: neighbours are nearly the same picture
DISTANCES = (1, 3, 10)  # of consistency, in frames


class Setting(NamedTuple):
    """A tracker on clips of one speed. by: an association, "frozen" or "adaptive"; value: T, or
    the agreement."""

    speed: str
    by: str
    value: float

    def tracker(self, model: MobileInst, means: torch.Tensor | None = None) -> KernelTracker:
        """A fresh tracker of this setting; means: of `mean_kernels`, for "centred" alone."""
        if self.by == "adaptive":
            return AdaptiveT(model, self.value)
        kind, by = (FrozenX6, "mask") if self.by == "frozen" else (KernelTracker, self.by)
        chosen = associations.association(by, means)
        return kind(model, int(self.value), chosen, score_threshold=EVALUATION_THRESHOLD)


def settings(variant: str) -> list[Setting]:
    """What is measured of a variant, without repeats."""
    found = [Setting("medium", by, 3) for by in ("cosine", "mask")]
    if variant in PROBED:
        found += of_shipped()
    if variant == "full":
        found += [Setting(s, by, t) for s in SPEEDS for by in ("cosine", "mask") for t in INTERVALS]
        found += [Setting(s, "frozen", interval) for s in SPEEDS for interval in FROZEN]
        found += [Setting(s, "adaptive", agreement) for s in SPEEDS for agreement in ADAPTIVE]
    return list(dict.fromkeys(found))


def of_shipped() -> list[Setting]:
    """What is measured of shipped weights."""
    return [Setting("medium", by, t) for by in associations.ASSOCIATIONS for t in (1, 3, 6)]


def measure_run(lab: Path, variant: str, seed: int, budget: Budget) -> Path:
    """Measure a run that has been trained; returns its metrics.json, which is written last."""
    folder = lab / f"{variant}-{seed}"
    model = decoders.load(folder / "weights", VARIANTS[variant].decoder)
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    found = {key: last[key] for key in ("loss", "seconds_per_iteration")}
    found |= _measure(model, (128, 128), lab / "data", settings(variant))
    if variant == "full":
        found["milliseconds"] = frame_times(model, YouTubeVIS(lab / "data" / "medium"))
    return _write(folder / "metrics.json", found, variant, seed, budget)


def measure_shipped(lab: Path, name: str, budget: Budget) -> Path:
    """Image AP, consistency and every association of shipped weights; returns the file."""
    model = MobileInst.from_pretrained(name)
    found = _measure(model, (192, 256), lab / "data" / "shipped", of_shipped())
    return _write(lab / "shipped" / f"{name}.json", found, name, 0, budget)


def _write(path: Path, found: dict, name: str, seed: int, budget: Budget) -> Path:
    whose = {"version": 1, "variant": name, "seed": seed, "budget": budget.name}
    with replacing(path) as beside:
        beside.write_text(json.dumps(whose | found, allow_nan=False) + "\n")
    return path


def _measure(model: MobileInst, size: tuple[int, int], data: Path, wanted: list[Setting]) -> dict:
    """Costs at `size` (H, W), and what `_measure_clips` finds; fuses the model."""
    cost = {"torch": torch.__version__, "model": summary(model, size)["total"]}
    return cost | _measure_clips(model.fuse(), data, wanted)


def _measure_clips(model: MobileInst, data: Path, wanted: list[Setting]) -> dict:
    """What all settings find on the clips of their speeds; queries are measured on medium clips."""
    means, tracked, queries = None, [], None
    if any(setting.by == "centred" for setting in wanted):
        train = YouTubeVIS(data / "train")
        means = associations.mean_kernels(
            model, (train[i].image(0) for i in range(min(len(train), 200)))
        )
    for speed in dict.fromkeys(setting.speed for setting in wanted):
        clips = YouTubeVIS(data / speed)
        found = [_Tracking(setting, model, means) for setting in wanted if setting.speed == speed]
        if speed == "medium":
            queries = _Queries(clips)
        for clip in (clips[i] for i in range(len(clips))):
            images = list(clip)
            frames = [encode(model, image) for image in images]  # each decodes itself once
            for tracking in found:
                tracking.add_clip(clip, images, frames, clips.category_ids)
            if speed == "medium":
                queries.add_clip(clip, frames)
        truth = clips.dataset  # parsed once for all settings
        tracked += [tracking.row(truth) for tracking in found]
    return {**queries.figures(), "settings": tracked}


class _Tracking:
    """One setting on all clips of its speed."""

    def __init__(self, setting: Setting, model: MobileInst, means: torch.Tensor | None):
        self.setting, self.tracker, self.moves = setting, setting.tracker(model, means), Moves()
        self.results: list[dict] = []
        self.pairs: list[list[int]] = []

    def add_clip(self, clip: Clip, images: list, frames: list[Frame], category_ids: list) -> None:
        """Track one clip and keep its results."""
        tracker = self.tracker
        tracker.reset()
        # Frozen X6 changes what the network sees, so that it has to look for itself.
        frozen = isinstance(tracker, FrozenX6)
        results = map(tracker.step, images) if frozen else map(tracker.advance, frames)
        video = tracker.gather(self.moves.watch(tracker, results))
        self.results += video.to_ytvis(clip.video["id"], category_ids)
        self.pairs.append(_track_pairs(video, clip.tracks))

    def row(self, truth: dict) -> dict:
        """Video AP and what was counted, of all clips."""
        moves, videos = self.moves, truth["videos"]
        matches = keep(YTVISEval(truth, self.results).run(), range(len(videos)))
        return {
            **self.setting._asdict(),
            "AP": _share(average_precision(matches)),
            "AP50": _share(average_precision(matches, threshold=0)),
            "keys": moves.keys,  # key frames, of all frames of the clips
            "frames": sum(len(video["file_names"]) for video in videos),
            "moved": moves.moved,  # live slots that went on with another query, of
            "associated": moves.moved + moves.stayed,
            **matches.to_dict(),
            "pairs": self.pairs,  # as those of "consistency", of tracks
        }


class _Queries:
    """What single frames and the queries over time are worth, on clips of medium speed.

    Of image AP every `EVERY`-th frame is a video of its own, in the order of the clips.
    """

    def __init__(self, clips: YouTubeVIS):
        self.truth = {"categories": clips.category_entries, "videos": [], "annotations": []}
        self.ids, self.results = clips.category_ids, []
        self.clip_of: list[int] = []  # of those videos
        self.pairs: list[list[int]] = []

    @torch.inference_mode()
    def add_clip(self, clip: Clip, frames: list[Frame]) -> None:
        """Keep what some frames alone say, and how long the queries of all stay."""
        videos, annotations = self.truth["videos"], self.truth["annotations"]
        for t in range(min(EVERY // 2, len(clip) - 1), len(clip), EVERY):
            number = len(videos) + 1
            size = {"height": clip.height, "width": clip.width}
            videos.append({"id": number, **size, "length": 1})
            self.clip_of.append(len(self.pairs))
            for track in clip.tracks:
                alone = {key: [track[key][t]] for key in ("segmentations", "areas")}
                alone |= {"id": len(annotations) + 1, "video_id": number}
                if track["segmentations"][t] is not None:
                    annotations.append(track | alone)
            self.results += _predictions(frames[t], number, self.ids)
        probabilities = [f.out.class_logits[0].sigmoid()[:, clip.labels].numpy() for f in frames]
        masks, truths = map(masks_of_queries, frames), (clip.masks(t) for t in range(len(clip)))
        meter = ConsistencyMeter(max(DISTANCES))
        self.pairs.append(_counts(meter.add_clip(masks, truths, probabilities=probabilities)))

    def figures(self) -> dict:
        """Image AP, and the counts of pairs of frames."""
        images = keep(YTVISEval(self.truth, self.results).run(), self.clip_of)
        return {
            "image": {"AP": _share(average_precision(images)), **images.to_dict()},
            "consistency": {"distances": DISTANCES, "pairs": self.pairs},
        }


def _predictions(frame: Frame, video: int, category_ids: list[int]) -> list[dict]:
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


def _track_pairs(result: VideoResult, instances: list[dict]) -> list[int]:
    """The consistency of tracks in the place of queries: a key frame may take one off its instance.

    instances: the annotations of the clip, with a code for every frame in which they are visible.
    """
    truths = list(zip(*(instance["segmentations"] for instance in instances)))  # (T, M)
    tracks = list(zip(*(track.segmentations for track in result.tracks))) or [()] * len(truths)
    ious = np.stack([rle.ious(*codes) for codes in zip(tracks, truths, strict=True)])
    visible = np.array([[code is not None for code in codes] for codes in truths])
    return _counts(ConsistencyMeter(max(DISTANCES)).add_ious(ious, visible))


def _counts(meter: ConsistencyMeter) -> list[int]:
    """Kept, and of how many, at each of `DISTANCES`: six numbers of a clip."""
    pairs = meter.result()["pairs"]
    return [pairs[k][what] for k in DISTANCES for what in ("kept", "of")]


def _share(value: np.ndarray) -> float:
    return round(float(value[0]), 6)


def frame_times(model: MobileInst, clips: YouTubeVIS, count: int = 4) -> dict[str, dict]:
    """Milliseconds of a "key" frame and of an "other", 0 where there is none, of every setting.

    All settings take turns, clip by clip, so that whatever else the machine does falls on all of
    them; of each kind of frame the fastest fifth ends at what is said, since the slow ones were
    interrupted.
    """
    kinds = ("mask", "cosine", "frozen", "adaptive")
    medium = [s for s in settings("full") if s.speed == "medium" and s.by in kinds]
    trackers = {setting: setting.tracker(model) for setting in medium}
    times = {setting: {"key": [], "other": []} for setting in medium}
    for clip in (clips[i] for i in range(min(count, len(clips)))):
        frames = list(clip)
        for setting, tracker in trackers.items():
            tracker.reset()
            for frame in frames:
                start = time.perf_counter()
                kind = "key" if tracker.step(frame).is_key else "other"
                times[setting][kind].append(1000 * (time.perf_counter() - start))
    return {
        f"{s.by} {s.value:g}": {k: _fastest(t) for k, t in of.items()} for s, of in times.items()
    }


def _fastest(times: list[float]) -> float:
    return round(float(np.percentile(times, 20)), 3) if times else 0.0
