"""What is measured of a trained run, from single frames up to the beyond-the-paper trackers; writes metrics.json.

    every run          image AP; video AP at T = 3 by cosine and by mask; consistency of the queries at 1, 3, 10 frames
    every tracker      besides its AP, consistency of its tracks: do they stay on their instance?
    PROBED runs        video AP of every association at T = 1, 3, 6; the same for the shipped weights, on clips of theirs
    the full model     video AP at T = 1 .. 12 on slow, medium and fast clips; frozen X6; adaptive T; ms per frame

The network looks at a frame once; all settings share what it saw. What is kept allows to draw samples of the clips
again (figures.py).

Lesson: notebooks/09_ablation_lab.ipynb
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from minst.data.files import replacing
from minst.data.ytvis import Clip, YouTubeVIS, encode_mask
from minst.evaluation.consistency import ConsistencyMeter
from minst.evaluation.identity import frame_ious
from minst.evaluation.ytvis import YTVISEval
from minst.lab.figures import Matches, average_precision, keep
from minst.lab.grid import SPEEDS, Budget
from minst.lab.rivals import ASSOCIATIONS, AdaptiveRival, FrozenX6, Rival, mean_kernels
from minst.model import Encoded, FrameOutput, MobileInst, as_frames, summary, upsample_masks
from minst.tracking import VideoResult

__all__ = ["ADAPTIVE", "DISTANCES", "FROZEN", "INTERVALS", "PROBED", "Setting", "measure_run", "measure_shipped",
           "settings"]  # fmt: skip

INTERVALS = (1, 2, 3, 4, 6, 9, 12)
PROBED = ("full", "identity=none", "images")  # temporal training, the same frames without it, single images
ADAPTIVE = (0.9, 0.95, 0.98, 0.99)  # agreement below which a key frame is taken
FROZEN = (2, 3, 6)
EVERY = 6  # image AP looks at every sixth frame: neighbours are nearly the same picture
DISTANCES = (1, 3, 10)  # of consistency, in frames


class Setting(NamedTuple):
    """A tracker on clips of one speed. by: an association, "frozen" or "adaptive"; value: T, or the agreement."""

    speed: str
    by: str
    value: float

    def tracker(self, model, means: torch.Tensor | None = None) -> Rival:
        """A fresh tracker of this setting; means: of `mean_kernels`, for "centred" alone."""
        if self.by == "adaptive":
            return AdaptiveRival(model, self.value)
        if self.by == "frozen":
            return FrozenX6(model, int(self.value), "mask")
        return Rival(model, int(self.value), self.by, means)


def settings(variant: str) -> list[Setting]:
    """What is measured of a variant, without repeats."""
    found = [Setting("medium", by, 3) for by in ("cosine", "mask")]
    if variant in PROBED:
        found += [Setting("medium", by, interval) for by in ASSOCIATIONS for interval in (1, 3, 6)]
    if variant == "full":
        found += [Setting(s, by, interval) for s in SPEEDS for by in ("cosine", "mask") for interval in INTERVALS]
        found += [Setting(s, "frozen", interval) for s in SPEEDS for interval in FROZEN]
        found += [Setting(s, "adaptive", agreement) for s in SPEEDS for agreement in ADAPTIVE]
    return list(dict.fromkeys(found))


def measure_run(lab: Path, variant: str, seed: int, budget: Budget) -> Path:
    """Measure the weights of a run that has been trained; returns its metrics.json, which is written last."""
    folder = lab / f"{variant}-{seed}"
    model = MobileInst.from_pretrained(folder / "weights")
    size = summary(model, (128, 128))["total"]
    model.fuse()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found = {
        "version": 1,
        "variant": variant,
        "seed": seed,
        "budget": budget.name,
        "torch": torch.__version__,
        "model": {"params": size["params"], "macs": size["macs"]},
        "loss": log[-1]["loss"],
        "seconds_per_iteration": log[-1]["seconds_per_iteration"],
        **_measure_clips(model, lab / "data", settings(variant)),
    }
    if variant == "full":
        found["milliseconds"] = frame_times(model, YouTubeVIS(lab / "data" / "medium"))
    with replacing(folder / "metrics.json") as beside:
        beside.write_text(json.dumps(found, allow_nan=False) + "\n")
    return folder / "metrics.json"


def measure_shipped(lab: Path, name: str, budget: Budget) -> Path:
    """Image AP, consistency and every association of shipped weights; returns the file, which is written last."""
    model = MobileInst.from_pretrained(name)
    size = summary(model, (192, 256))["total"]
    model.fuse()
    wanted = [Setting("medium", by, interval) for by in ASSOCIATIONS for interval in (1, 3, 6)]
    found = {
        "version": 1,
        "variant": name,
        "seed": 0,
        "budget": budget.name,
        "torch": torch.__version__,
        "model": {"params": size["params"], "macs": size["macs"]},
        **_measure_clips(model, lab / "data" / "shipped", wanted),
    }
    path = lab / "shipped" / f"{name}.json"
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, allow_nan=False) + "\n")
    return path


def _measure_clips(model: MobileInst, data: Path, wanted: list[Setting]) -> dict:
    means = None
    if any(setting.by == "centred" for setting in wanted):
        train = YouTubeVIS(data / "train")
        means = mean_kernels(model, (train[i].image(0) for i in range(min(len(train), 200))))
    tracked, images, consistency = [], None, []
    for speed in SPEEDS:
        mine = [setting for setting in wanted if setting.speed == speed]
        if not mine:
            continue
        clips = YouTubeVIS(data / speed)
        trackers = {setting: setting.tracker(model, means) for setting in mine}
        results: dict[Setting, list] = {setting: [] for setting in mine}
        kept: dict[Setting, list] = {setting: [] for setting in mine}
        seen_images: list[dict] = []
        for clip in (clips[i] for i in range(len(clips))):
            frames = list(clip)
            seen = _Seen(model, frames)
            for setting, tracker in trackers.items():
                result = seen.track(tracker)
                results[setting] += result.to_ytvis(clip.video["id"], clips.category_ids)
                kept[setting].append(_track_pairs(result, clip.tracks))
            if speed == "medium":
                seen_images += _image_results(clip, seen, clips.category_ids)
                consistency.append(_pairs(clip, seen))
        for setting in mine:
            tracked.append(_row(setting, trackers[setting], clips, results[setting], kept[setting]))
        if speed == "medium":
            images = _image_matches(clips, seen_images)
    return {
        "image": {"AP": _share(average_precision(images)), **images.to_dict()},
        "consistency": {"distances": DISTANCES, "pairs": consistency},
        "settings": tracked,
    }


def _row(setting: Setting, tracker: Rival, clips: YouTubeVIS, results: list[dict], pairs: list[list[int]]) -> dict:
    entries = [clips[i] for i in range(len(clips))]
    truth = {
        "videos": [clip.video for clip in entries],
        "categories": clips.category_entries,
        "annotations": [track for clip in entries for track in clip.tracks],
    }
    matches = keep(YTVISEval(truth, results).run(), list(range(len(clips))))
    return {
        **setting._asdict(),
        "AP": _share(average_precision(matches)),
        "AP50": _share(average_precision(matches, threshold=0)),
        "keys": tracker.keys,  # key frames, of all frames of the clips
        "frames": sum(len(clip) for clip in entries),
        "moved": tracker.moved,  # live slots that went on with another query, of
        "associated": tracker.moved + tracker.stayed,
        **matches.to_dict(),
        "pairs": pairs,  # as those of "consistency", of tracks
    }


class _Seen:
    """A clip as the network sees it: every frame encoded, and decoded where somebody asks for it, once."""

    def __init__(self, model: MobileInst, frames: list[np.ndarray]):
        self.model, self.frames = model, frames
        self._decoded: dict[int, FrameOutput] = {}
        with torch.inference_mode():
            self.encoded = [model.encode(as_frames(frame)) for frame in frames]

    def decode(self, encoded: Encoded) -> FrameOutput:
        if id(encoded) not in self._decoded:
            with torch.inference_mode():
                self._decoded[id(encoded)] = self.model.decode(encoded)
        return self._decoded[id(encoded)]

    def track(self, tracker: Rival) -> VideoResult:
        """The tracks of the clip; a tracker that encodes for itself gets the frames."""
        tracker.reset()
        if isinstance(tracker, FrozenX6):
            return tracker.gather(tracker.step(frame) for frame in self.frames)
        tracker.model = _Remembering(self.model, self.decode)
        return tracker.gather(tracker.advance(encoded) for encoded in self.encoded)


class _Remembering(NamedTuple):
    """What a tracker needs of a model whose frames have been seen."""

    model: MobileInst
    decode: Callable[[Encoded], FrameOutput]

    @property
    def config(self):
        return self.model.config


def _query_masks(seen: _Seen, clip: Clip) -> Iterator[np.ndarray]:
    for encoded in seen.encoded:
        logits = upsample_masks(seen.decode(encoded).mask_logits, (clip.height, clip.width))
        yield (logits[0] > 0).numpy()


def _pairs(clip: Clip, seen: _Seen) -> list[int]:
    """Kept, and of how many, at each of `DISTANCES`: six numbers of a clip."""
    meter = ConsistencyMeter(max(DISTANCES)).add_clip(
        _query_masks(seen, clip), (clip.masks(t) for t in range(len(clip)))
    )
    return _counts(meter)


def _track_pairs(result: VideoResult, instances: list[dict]) -> list[int]:
    """`_pairs` of tracks in the place of queries: a key frame may take a track off its instance, or bring it back.

    instances: the annotations of the clip, with a run-length code for every frame in which they are visible.
    """
    truths = list(zip(*(instance["segmentations"] for instance in instances)))  # (T, M)
    ious = [frame_ious([track.segmentations[t] for track in result.tracks], codes) for t, codes in enumerate(truths)]
    visible = np.array([[code is not None for code in codes] for codes in truths])
    return _counts(ConsistencyMeter(max(DISTANCES)).add_ious(np.stack(ious), visible))


def _counts(meter: ConsistencyMeter) -> list[int]:
    pairs = meter.result()["pairs"]
    return [pairs[k][what] for k in DISTANCES for what in ("kept", "of")]


def _image_frames(clip: Clip) -> range:
    return range(min(EVERY // 2, len(clip) - 1), len(clip), EVERY)


def _image_results(clip: Clip, seen: _Seen, category_ids: list[int]) -> list[dict]:
    """The best predictions of every `EVERY`-th frame, each frame a video of its own."""
    found = []
    for t in _image_frames(clip):
        out = seen.decode(seen.encoded[t])
        scores = out.scores()[0]  # (N, K)
        best = scores.flatten().topk(min(20, scores.numel())).indices
        masks = (upsample_masks(out.mask_logits, (clip.height, clip.width))[0] > 0).numpy()
        for query, label in zip(*(x.tolist() for x in (best // scores.shape[1], best % scores.shape[1]))):
            found.append({
                "video_id": _frame_id(clip, t),
                "category_id": category_ids[label],
                "score": float(scores[query, label]),
                "segmentations": [encode_mask(masks[query])],
            })  # fmt: skip
    return found


def _image_matches(clips: YouTubeVIS, results: list[dict]) -> Matches:
    videos, annotations, of_clip = [], [], []
    for i in range(len(clips)):
        clip = clips[i]
        for t in _image_frames(clip):
            videos.append({"id": _frame_id(clip, t), "height": clip.height, "width": clip.width, "length": 1})
            of_clip.append(i)
            for track in clip.tracks:
                if track["segmentations"][t] is not None:
                    annotations.append({
                        "id": len(annotations) + 1,
                        "video_id": _frame_id(clip, t),
                        "category_id": track["category_id"],
                        "segmentations": [track["segmentations"][t]],
                        "areas": [track["areas"][t]],
                    })  # fmt: skip
    truth = {"videos": videos, "categories": clips.category_entries, "annotations": annotations}
    return keep(YTVISEval(truth, results).run(), of_clip)


def _frame_id(clip: Clip, t: int) -> int:
    return clip.video["id"] * 10_000 + t  # rises with clip and frame, as the evaluation sorts by it


def _share(value: np.ndarray) -> float:
    return round(float(value[0]), 6)


def frame_times(model: MobileInst, clips: YouTubeVIS, count: int = 4) -> dict[str, dict[str, float]]:
    """Milliseconds of a key frame and of the others, and their mean by the share of each, of every setting.

    All settings take turns, clip by clip, so that whatever else the machine does falls on all of them; of each kind of
    frame the fastest fifth ends at what is said, since the slow ones were interrupted.
    """
    medium = [s for s in settings("full") if s.speed == "medium" and s.by in ("mask", "cosine", "frozen", "adaptive")]
    trackers = {setting: setting.tracker(model) for setting in medium}
    times: dict[Setting, tuple[list, list]] = {setting: ([], []) for setting in medium}
    for clip in (clips[i] for i in range(min(count, len(clips)))):
        frames = list(clip)
        for setting, tracker in trackers.items():
            tracker.reset()
            for frame in frames:
                start = time.perf_counter()
                is_key = tracker.step(frame).is_key
                times[setting][is_key].append(1000 * (time.perf_counter() - start))
    return {f"{setting.by} {setting.value:g}": _summary(*both) for setting, both in times.items()}


def _summary(others: list[float], keys: list[float]) -> dict[str, float]:
    key, other = (round(float(np.percentile(values, 20)), 3) if values else 0.0 for values in (keys, others))
    mean = (key * len(keys) + other * len(others)) / (len(keys) + len(others))
    return {"key": key, "other": other, "mean": round(mean, 3)}
