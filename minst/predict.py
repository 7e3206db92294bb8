"""Using a model: frames in; a table, a film, a results file, or how good it is, out.

    frames --track_frame--> FrameResult, masks at full size     (one loop, whoever asks)

    track_video      one video of any length     tracks.mp4, results.json, the table of its tracks
    run_demo         a shipped clip              the same, its AP, times, Fig. 2
    predict_folder   a data set                  entries of a results file; labels may be withheld
    evaluate_model   a data set with labels      AP, whether queries and identities stay

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst.data.coco import COCO, open_folder
from minst.data.video import TimedFrame, VideoInfo, read_timed, video_info, write_mp4
from minst.data.ytvis import Clip, YouTubeVIS, encode_mask
from minst.engine import Engine
from minst.evaluation.coco import evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, FrameShare, mask_ious
from minst.evaluation.identity import IdentityMeter, category_names
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import Frame, MobileInst, image_to_batch, upsample_masks
from minst.results import FrameResult, gather_frames
from minst.samples import load_sample, sample_names
from minst.tracking import KernelTracker

__all__ = [
    "EVALUATION_THRESHOLD",
    "category_ids",
    "evaluate_folder",
    "evaluate_model",
    "gathered",
    "predict_folder",
    "query_masks",
    "run_demo",
    "track_frame",
    "track_video",
    "write_figures",
]

# AP ranks all tracks, so that sure and unsure ones both count; a picture wants the sure ones alone.
EVALUATION_THRESHOLD = 0.1
LARGEST_SIDE = 480  # shorter side of frames: the largest that the paper trains and tests videos at
LARGEST_IMAGE = 640  # and of images
DETECTIONS = 100  # an image, as COCO counts
FOLDER_FPS = 8.0  # images in a folder, and shipped clips, do not say how fast they were taken
MAX_FPS = 240.0  # what a file says beyond is an error of its header


# --------------------------------------------------------------------------------------- one frame


def track_frame(
    tracker: KernelTracker, image: np.ndarray, size: int | None = None
) -> tuple[FrameResult, float]:
    """The next frame (H, W, 3) of a video: its result, masks of its own size, and milliseconds.

    size: shorter side, in pixels, of what the network sees; by default the frame's, up to 480.
    """
    start = time.perf_counter()
    result = tracker.step(resized(image, size))
    codes = [at_size(code, *image.shape[:2]) for code in result.segmentations]
    milliseconds = 1000 * (time.perf_counter() - start)
    return result._replace(segmentations=codes), milliseconds


def resized(image: np.ndarray, size: int | None, largest: int = LARGEST_SIDE) -> np.ndarray:
    """The image (H, W, 3), its shorter side `size` pixels long, by default at most `largest`."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    wanted = size or min(shorter, largest)
    if wanted == shorter:
        return image
    shape = (round(width * wanted / shorter), round(height * wanted / shorter))
    smooth = Image.Resampling.BILINEAR
    return np.array(Image.fromarray(image).resize(shape, smooth, reducing_gap=2))


def at_size(code: dict, height: int, width: int) -> dict:
    """A run-length code enlarged, or made smaller, to `height` x `width`."""
    if code["size"] == [height, width]:
        return code
    levels = Image.fromarray(rle_codec.decode(code) * 255)
    levels = levels.resize((width, height), Image.Resampling.BILINEAR)
    return encode_mask(np.asarray(levels) >= 128)


# --------------------------------------------------------------------------------------- one video


def track_video(
    source: str | Path | int,
    out: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    score_threshold: float = 0.5,
    size: int | None = None,
    every: int = 1,
    max_frames: int | None = None,
    video: bool = True,
) -> dict:
    """Track what `read_video` reads; write `out`/results.json and, unless told not to, tracks.mp4.

    Memory does not grow with the length of the video. Category and score of a track are the running
    ones of the last frame that saw it: all that an online tracker knows. Ctrl-C ends the video
    there: what was tracked so far is written, complete. A second one leaves without writing.

    size: as for `track_frame`; masks are of the video's size all the same.
    every: only frames 0, every, 2 every, ... count; results.json has one mask for each of them.
    max_frames: of these. Files of an earlier run are replaced when the new ones are complete.
    Raises what `read_video`, `from_pretrained` and `KernelTracker.step` raise; ValueError for
    numbers below their least; OSError when the disk is full.

    Returns {"frames": int, "tracks": [{"track", "category", "score", "frames"}], "ms_per_frame":
    float of the tracker alone, "interrupted": bool, "video": Path | None, "results": Path};
    results.json has one entry a track, its id and category by name included.
    """
    for name, value, least in (
        ("size", size, 64),
        ("every", every, 1),
        ("max_frames", max_frames, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    info = video_info(source)
    model = MobileInst.from_pretrained(weights).fuse()
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder,
        masks_on_disk(Path(folder) / "masks") as masks,
        _stop_at_ctrl_c() as stopped,
    ):
        tracks = TracksOnDisk(masks, model.config.class_names)
        # Up to the last frame wanted: none is read for nothing after it.
        frames = islice(read_timed(source), 0, max_frames and (max_frames - 1) * every + 1, every)
        total = _how_many(info, every, max_frames)
        frames = tqdm(frames, total=total, desc="tracking", unit="frame")
        drawn = _annotated(frames, tracker, tracks, stopped, size, draw=video)
        if video:
            rate = min(info.fps or FOLDER_FPS, MAX_FPS)
            write_mp4(drawn, Path(folder) / "tracks.mp4", rate)
        deque(drawn, maxlen=0)  # without a video: to the end all the same
        tracks.write(Path(folder) / "results.json")
        for name in ("tracks.mp4", "results.json")[not video :]:
            os.replace(Path(folder) / name, out / name)
    return {
        "frames": tracker.frame,
        "tracks": tracks.table(),
        "ms_per_frame": tracks.milliseconds / tracker.frame,
        "interrupted": stopped.is_set(),
        "video": out / "tracks.mp4" if video else None,
        "results": out / "results.json",
    }


def _annotated(
    frames: Iterable[TimedFrame],
    tracker: KernelTracker,
    tracks: TracksOnDisk,
    stopped: threading.Event,
    size: int | None,
    draw: bool,
) -> Iterator[TimedFrame]:
    """Track, remember and draw, a frame at a time, until they end or somebody stops it."""
    from minst.visualize.masks import class_name, draw_frame

    for image, shown in frames:
        if stopped.is_set():
            break
        result, milliseconds = track_frame(tracker, image, size)
        tracks.take(result, milliseconds)
        if draw:
            names = (class_name(tracks.class_names, label) for label in result.labels)
            texts = [f"{identity} {name}" for identity, name in zip(result.ids, names)]
            image = draw_frame(image, result.masks(), result.ids, texts)
        yield TimedFrame(image, shown)
    if stopped.is_set() and not tracker.frame:
        raise KeyboardInterrupt  # nothing was tracked: nothing to keep


def _how_many(info: VideoInfo, every: int, max_frames: int | None) -> int | None:
    """How many frames will be tracked, as far as one knows."""
    if info.expected is None:
        return max_frames
    total = -(-info.expected // every)
    return min(total, max_frames or total)


@contextlib.contextmanager
def _stop_at_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, instead of an exception; the second is as ever."""
    stopped = threading.Event()
    # Python lets signals be handled in the main thread alone; shells start what runs in the
    # background so that it ignores them.
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield stopped
        return

    def note(*_) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def masks_on_disk(file: Path) -> Iterator[sqlite3.Connection]:
    """A table of run-length codes in a file that nobody needs later; OSError for a full disk."""
    masks = sqlite3.connect(file)
    try:
        masks.execute("PRAGMA journal_mode = OFF")
        columns = "track INTEGER, frame INTEGER, code TEXT, PRIMARY KEY (track, frame)"
        masks.execute(f"CREATE TABLE masks ({columns}) WITHOUT ROWID")
        yield masks
    except sqlite3.Error as error:
        raise OSError(f"{file}: masks cannot be kept here: {error}") from error
    finally:
        masks.close()


class TracksOnDisk:
    """What is known of every identity: a few values in memory, its masks in a file (SQLite)."""

    def __init__(self, masks: sqlite3.Connection, class_names: tuple[str, ...]):
        self.masks, self.class_names = masks, class_names
        self.last: dict[int, tuple[int, float]] = {}  # identity -> label, score
        self.count: dict[int, int] = {}  # identity -> frames that saw it
        self.frames, self.milliseconds = 0, 0.0

    def take(self, result: FrameResult, milliseconds: float = 0.0) -> None:
        """One frame more."""
        self.frames = result.frame + 1
        self.milliseconds += milliseconds
        for identity, label, score, code in zip(*result[2:6], strict=True):
            self.last[identity] = (label, score)
            self.count[identity] = self.count.get(identity, 0) + 1
            row = (identity, result.frame, json.dumps(code))
            self.masks.execute("INSERT INTO masks VALUES (?, ?, ?)", row)

    def table(self) -> list[dict]:
        """The tracks, best score first."""
        from minst.visualize.masks import class_name

        rows = [
            {
                "track": identity,
                "category": class_name(self.class_names, label),
                "score": score,
                "frames": self.count[identity],
            }
            for identity, (label, score) in self.last.items()
        ]
        return sorted(rows, key=lambda row: -row["score"])

    def write(self, path: Path) -> None:
        """A results file, mask by mask: of a long video not even one track need fit into memory."""
        with open(path, "w", encoding="utf-8") as file:
            file.write("[")
            for number, row in enumerate(self.table()):
                label, score = self.last[row["track"]]
                entry = {"video_id": 1, "category_id": label + 1, "score": score}
                entry |= {"id": row["track"], "category": row["category"]}
                start = json.dumps(entry).removesuffix("}")
                file.write((",\n" if number else "\n") + start + ', "segmentations": [')
                codes = enumerate(self._codes(row["track"]))
                file.writelines((", " if frame else "") + code for frame, code in codes)
                file.write("]}")
            file.write("\n]\n")

    def _codes(self, identity: int) -> Iterator[str]:
        """One code a frame as JSON: null where the identity was not seen."""
        wanted = "SELECT frame, code FROM masks WHERE track = ? ORDER BY frame"
        expected = 0
        for frame, code in self.masks.execute(wanted, (identity,)):
            yield from ["null"] * (frame - expected)
            yield code
            expected = frame + 1
        yield from ["null"] * (self.frames - expected)


# ---------------------------------------------------------------------------------------- the demo


def run_demo(
    out: str | Path = "minst-demo",
    sample: str | None = None,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
) -> dict:
    """The first two minutes: track a shipped clip, print its tracks, write pictures to `out`.

    sample: a name of `minst.sample_names()`, default the first. Files that are there are replaced;
    a file named `out` raises ValueError. Returns what was printed: sample, frames, tracks [{id,
    category, score, frames}], ms_key and ms_reuse (median milliseconds of a key frame and of a
    frame that reuses its kernels; None if there is none), AP, AP50 (fractions of 1, of this clip
    alone), files {name: path}, seconds.
    """
    from minst.visualize.masks import animate, class_name, draw_tracks
    from minst.visualize.queries import plot_query_consistency
    from minst.visualize.style import save

    started, out = time.perf_counter(), Path(out)
    clip = load_sample(sample or sample_names()[0])
    model = MobileInst.from_pretrained(weights).fuse()
    tracker = KernelTracker(model, reuse_interval=reuse_interval, association="mask")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out} is or lies in a file; name a folder to write to") from None
    tracker.step(clip.image(0))  # the very first frame pays for setting up: not timed
    tracker.reset()
    times: dict[bool, list[float]] = {True: [], False: []}  # of key frames, of those between
    result = tracker.gather(_timed(clip, tracker, times))
    entries = result.to_ytvis(clip.video["id"], clip.category_ids)
    scores = evaluate_ytvis(clip.annotations(), entries)

    files = {name: out / name for name in ("tracks.mp4", "tracks.gif", "fig2.png", "results.json")}
    files["results.json"].write_text(json.dumps(entries))
    drawn = list(_progress(draw_tracks(clip, result), "drawing", len(clip)))
    animate(drawn, files["tracks.mp4"], FOLDER_FPS)
    animate(drawn, files["tracks.gif"], FOLDER_FPS)
    save(plot_query_consistency(model, clip, num_frames=min(11, len(clip))), files["fig2.png"])

    tracks = [
        {
            "id": track.id,
            "category": class_name(result.class_names or clip.categories, track.label),
            "score": track.score,
            "frames": sum(code is not None for code in track.segmentations),
        }
        for track in result.tracks
    ]
    said = {
        "sample": clip.name,
        "frames": len(clip),
        "tracks": tracks,
        "ms_key": median(times[True]),
        "ms_reuse": median(times[False]) if times[False] else None,
        "AP": scores["AP"],
        "AP50": scores["AP50"],
        "files": {name: str(path) for name, path in files.items()},
        "seconds": time.perf_counter() - started,
    }
    _tell(said, tracker.reuse_interval)
    return said


def _timed(
    clip: Clip, tracker: KernelTracker, times: dict[bool, list[float]]
) -> Iterator[FrameResult]:
    """The frames of a clip, tracked; how long each took goes to the times of its kind."""
    for image in _progress(clip, "tracking", len(clip)):
        result, milliseconds = track_frame(tracker, image)
        times[result.is_key].append(milliseconds)
        yield result


def _progress(frames: Iterable, what: str, total: int) -> Iterable:
    # disable=None: shown only on a terminal
    return tqdm(frames, desc=what, total=total, unit="frame", leave=False, disable=None)


def _tell(said: dict, every: int) -> None:
    print(f"{said['sample']}: {said['frames']} frames, a key frame every {every}\n")
    print(f"{'track':>5}  {'category':<12} {'score':>5}  frames seen")
    for track in said["tracks"]:
        seen = f"{track['frames']:>3} of {said['frames']}"
        print(f"{track['id']:>5}  {track['category']:<12} {track['score']:>5.2f}  {seen}")
    if not said["tracks"]:
        print("   no tracks found")
    reuse = f", others {said['ms_reuse']:.1f} ms" if said["ms_reuse"] else ""
    print(f"\nkey frames {said['ms_key']:.1f} ms{reuse} (median)")
    print(f"AP {100 * said['AP']:.1f}, AP50 {100 * said['AP50']:.1f} on this clip")
    print("written: " + ", ".join(said["files"].values()) + f" in {said['seconds']:.1f} s")


# ------------------------------------------------------------------------ a data set, labels or not


def predict_folder(
    folder: str | Path | YouTubeVIS,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    split: str | None = None,
    annotations: str | Path | None = None,
    size: int | None = None,
    score_threshold: float = EVALUATION_THRESHOLD,
    videos: int | None = None,
    engine: Engine | None = None,
) -> Iterator[dict]:
    """Entries of a results file for the first `videos` of a folder (images, if in COCO form).

    A data set that is open already may stand in the place of its folder. Entries come video by
    video, one of which is in memory at a time; `write_results` writes them as they come. Category
    ids are those of the file: by name, or by position when the model has no names and as many
    classes as the file has categories. size: shorter side of what the network sees, in pixels; by
    default the file's, up to 480 (images: 640); masks are of the file's size. score_threshold: of
    tracks and detections; low, since AP ranks sure and unsure ones.
    engine: of several processes each gives the entries of its own share, every n-th
    video. Raises ValueError at once where categories do not fit.
    """
    engine = engine or Engine("cpu")
    dataset = folder if isinstance(folder, YouTubeVIS) else open_folder(folder, split, annotations)
    model = MobileInst.from_pretrained(weights).fuse().to(engine.device)
    ids = category_ids(model, dataset)
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)

    def entries_of(clip: Clip) -> Iterable[dict]:
        if isinstance(dataset, COCO):
            return _detections(model, clip, ids, size, score_threshold)
        tracker.reset()
        result = tracker.gather(track_frame(tracker, image, size)[0] for image in clip)
        return result.to_ytvis(clip.video["id"], ids)

    mine = range(engine.rank, min(videos or len(dataset), len(dataset)), engine.processes)
    silent = None if not engine.rank else True  # None: shown only on a terminal
    shown = tqdm(mine, desc="predicting", unit=dataset.unit, disable=silent)
    return (entry for i in shown for entry in entries_of(dataset[i]))


def gathered(engine: Engine, entries: Iterable[dict]) -> Iterable[dict]:
    """The entries of all processes, by video or image; one process's as they come."""
    if engine.processes == 1:
        return entries
    everything = engine.gather(list(entries))
    return sorted(everything, key=lambda entry: entry.get("video_id", entry.get("image_id")))


def category_ids(model: MobileInst, dataset: YouTubeVIS, exact: bool = False) -> list[int]:
    """The file's id of every class of the model; exact: refuse a file that has more categories."""
    names = model.config.class_names
    known = dict(zip(dataset.categories, dataset.category_ids))
    if not names and model.config.num_classes == len(known):
        return dataset.category_ids
    fits = set(names) == set(known) if exact else names and set(names) <= set(known)
    if not fits:
        model_has = ", ".join(names) or f"{model.config.num_classes} classes without names"
        raise ValueError(f"the model knows {model_has}; {dataset.file} has {', '.join(known)}")
    return [known[name] for name in names]


@torch.inference_mode()
def _detections(
    model: MobileInst, clip: Clip, ids: list[int], size: int | None, threshold: float
) -> Iterator[dict]:
    """The detections of highest score in an image: each query in each class, no suppression."""
    image = resized(clip.image(0), size, LARGEST_IMAGE)
    out = model(image_to_batch(image))
    scores, places = out.scores()[0].flatten().sort(descending=True)  # (N * K,)
    count = min(DETECTIONS, int((scores >= threshold).sum()))
    codes: dict[int, dict] = {}
    for score, place in zip(scores[:count].tolist(), places[:count].tolist()):
        query, label = divmod(place, len(ids))
        if query not in codes:
            logits = upsample_masks(out.mask_logits[:, [query]], image.shape[:2])[0, 0]
            codes[query] = at_size(encode_mask((logits > 0).cpu().numpy()), clip.height, clip.width)
        yield {
            "image_id": clip.video["id"],
            "category_id": ids[label],
            "score": score,
            "segmentation": codes[query],
        }


# --------------------------------------------------------------------------- a data set with labels


def evaluate_folder(
    folder: str | Path,
    weights: str | Path = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    videos: int | None = None,
    split: str | None = None,
    annotations: str | Path | None = None,
) -> dict:
    """`evaluate_model` with weights by name or folder, on the first `videos` of a folder.

    A folder in COCO form: the figures of `evaluate_coco` on its first `videos` images.
    Raises ValueError when the categories of folder and model differ, or labels are withheld.
    """
    dataset = open_folder(folder, split, annotations)
    if isinstance(dataset, COCO):
        results = list(predict_folder(dataset, weights, videos=videos))
        figures = evaluate_coco(_first_images(dataset.dataset, videos), results)
    else:
        model = MobileInst.from_pretrained(weights).fuse()
        figures = evaluate_model(model, dataset, reuse_interval, association, videos)
    return figures | {"weights": str(weights), "folder": Path(folder).name}


def _first_images(truth: dict, count: int | None) -> dict:
    if truth.get("annotations") is None:
        return truth  # whose labels are withheld: `evaluate_coco` says so
    images = truth["images"][:count]
    ids = {image["id"] for image in images}
    kept = [entry for entry in truth["annotations"] if entry["image_id"] in ids]
    return {**truth, "images": images, "annotations": kept}


def evaluate_model(
    model: MobileInst,
    dataset: YouTubeVIS,
    reuse_interval: int = 3,
    association: str = "mask",
    videos: int | None = None,
) -> dict:
    """The dict of `evaluate_ytvis` (figures in 0..1, per category, per video) and

    "consistency"  what `ConsistencyMeter.result` says of the queries, each frame a key frame
    "frame_share"  what `FrameShare.result` says of the queries after each stage and of the kernels
    "identity"     what `IdentityMeter.result` says of tracks of score "score_threshold" and more
    "setting"      videos, reuse_interval, association

    AP ranks tracks by score. Identities need one set of tracks that all count: those of a second
    tracker, at its default threshold, which are what a user sees. Trackers and queries look at a
    frame together: the network computes it once.
    """
    ids = category_ids(model, dataset, exact=True)
    clips = [dataset[i] for i in range(min(videos or len(dataset), len(dataset)))]
    ranked = KernelTracker(model, reuse_interval, association, EVALUATION_THRESHOLD)
    shown = KernelTracker(model, reuse_interval, association)
    queries, identities, shares = ConsistencyMeter(), IdentityMeter(), FrameShare()
    results: list[dict] = []
    for clip in tqdm(clips, desc="evaluating", disable=None):
        # The model's classes may stand in another order than the file's categories.
        names = category_names(clip)
        own = model.config.class_names
        labels = [own.index(name) for name in names] if own else clip.labels
        seen: list[tuple[FrameResult, QueriesOfFrame]] = []

        def frames(clip=clip, labels=labels, seen=seen) -> Iterator[Frame]:
            """Before `ranked` gets a frame, `shown` tracks it and the queries meet the truth."""
            for t, image in enumerate(clip):
                frame = encode(model, image)
                seen.append((shown.advance(frame), queries_of(frame, clip.masks(t), labels)))
                if t == 0:
                    shares.add(frame)
                yield frame

        ranked.reset()
        shown.reset()
        tracked = ranked.gather(map(ranked.advance, frames()))
        results += tracked.to_ytvis(clip.video["id"], ids)
        of_shown, of_queries = zip(*seen)
        found = identities.add_clip(gather_frames(of_shown), clip)
        ious, probabilities, scores = (np.stack(part) for part in zip(*of_queries))
        queries.add_ious(ious, found.visible, names, found.levels, probabilities, scores)
    truth = {
        "videos": [clip.video for clip in clips],
        "categories": dataset.category_entries,
        "annotations": [track for clip in clips for track in clip.tracks],
    }
    return evaluate_ytvis(truth, results) | {
        "consistency": queries.result(),
        "frame_share": shares.result(),
        "identity": {"score_threshold": shown.score_threshold, **identities.result()},
        "setting": {
            "videos": len(clips),
            "reuse_interval": reuse_interval,
            "association": association,
        },
    }


# IoU with each instance (N, M), probability of the class of each instance (N, M), score (N,)
QueriesOfFrame = tuple[np.ndarray, np.ndarray, np.ndarray]


@torch.inference_mode()
def queries_of(frame: Frame, truths: np.ndarray, labels: Sequence[int]) -> QueriesOfFrame:
    """How the queries of a key frame meet M instances: masks (M, H, W), classes of the model."""
    ious = mask_ious(masks_of_queries(frame), truths)
    probabilities = frame.out.class_logits[0].sigmoid()[:, list(labels)]
    scores = frame.out.scores()[0].amax(-1)
    return ious, probabilities.cpu().numpy(), scores.cpu().numpy()


@torch.inference_mode()
def encode(model: MobileInst, image: np.ndarray) -> Frame:
    """One image (H, W, 3) bytes as the network sees it."""
    return model.encode(image_to_batch(image))


@torch.inference_mode()
def masks_of_queries(frame: Frame) -> np.ndarray:
    """The mask of every query of a key frame: (N, H, W) bool."""
    return (upsample_masks(frame.out.mask_logits, frame.size)[0] > 0).cpu().numpy()


def query_masks(model: MobileInst, clip: Clip) -> Iterator[np.ndarray]:
    """The mask of every query in every frame, each as a key frame: T arrays (N, H, W) bool."""
    return (masks_of_queries(encode(model, image)) for image in clip)


def write_figures(figures: dict, path: str | Path) -> None:
    """Figures as JSON, which has no NaN: where a group had nothing to count stands null."""

    def known(value):
        if isinstance(value, dict):
            return {key: known(part) for key, part in value.items()}
        if isinstance(value, list):
            return [known(part) for part in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    Path(path).write_text(json.dumps(known(figures), indent=1, allow_nan=False) + "\n")
