"""Using a model: frames in; a table, a film, a results file, or how good it is, out.

    frames --track_frame--> FrameResult, masks at full size     (one loop, whoever asks)

    track_video      one video of any length     tracks.mp4, results.json, the table of its tracks
    run_demo         a shipped clip              the same, its AP, times, Fig. 2
    predict_folder   a data set                  entries of a results file; labels may be withheld
    evaluate_folder  a data set with labels      AP, whether queries and identities stay

A model is named (shipped weights, or a folder) or handed over: any of `minst.protocol`. It sees
frames at `network_size`: that of its training, if the weights know it.

Lesson: notebooks/07_kernel_reuse_and_association.ipynb
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as rle_codec
from tqdm.auto import tqdm

from minst.data.coco import COCO, open_folder
from minst.data.files import replacing, unfinished
from minst.data.video import TimedFrame, read_timed, video_info, write_mp4
from minst.data.ytvis import Clip, YouTubeVIS, encode_mask
from minst.engine import Engine, on_signal
from minst.evaluation.coco import evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, frame_share, mask_ious
from minst.evaluation.identity import IdentityMeter, category_names
from minst.evaluation.submission import write_results
from minst.evaluation.ytvis import evaluate_ytvis
from minst.model import image_to_batch, upsample_masks
from minst.options import Count, Pixels, Share, check_call
from minst.protocol import EncodedFrame, QueryModel, category_key, open_model
from minst.results import FrameResult, gather_frames
from minst.samples import load_sample, sample_names, weights_for
from minst.tracking import KernelTracker
from minst.weights import trained_side

__all__ = ["EVALUATION_THRESHOLD", "category_ids", "detections", "encode", "evaluate_folder",
           "first_videos", "masks_of_queries", "network_size", "predict_folder", "run_demo",
           "track_frame", "track_video", "write_figures"]  # fmt: skip

# AP ranks all tracks, so that sure and unsure ones both count; a picture wants the sure ones alone.
EVALUATION_THRESHOLD = 0.1
# Of weights that do not know the size of their training:
LARGEST_SIDE = 480  # shorter side of frames: the largest that the paper trains and tests videos at
LARGEST_IMAGE = 640  # and of images
LONGEST_SIDE = 16_384  # of what the network may see: more would take all memory
DETECTIONS = 100  # an image, as COCO counts
FOLDER_FPS = 8.0  # images in a folder, and shipped clips, do not say how fast they were taken
MAX_FPS = 240.0  # what a file says beyond is an error of its header


# --------------------------------------------------------------------------------------- one frame


def network_size(
    model, frame: tuple[int, int], size: int | None = None, largest: int = LARGEST_SIDE
) -> tuple[int, int]:
    """(height, width) at which a model sees frames of (height, width): aspect kept.

    size: the shorter side, in pixels; by default that of its training, or, where the weights do not
    know it, the frame's, up to `largest`, or to `seen_side` of a model that resizes frames itself.
    ValueError for a frame so narrow that the longer side would have more than 16,384 pixels.
    """
    shorter = min(frame)
    largest = max(largest, getattr(model, "seen_side", 0))
    wanted = size or trained_side(model) or min(shorter, largest)
    height, width = (round(side * wanted / shorter) for side in frame)
    if max(height, width) > LONGEST_SIDE:
        seen = f"a frame of {frame[1]}x{frame[0]} would be seen at {width}x{height}"
        raise ValueError(f"{seen}; name a smaller size than {wanted}, or crop it")
    return height, width


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3) at another (height, width)."""
    if image.shape[:2] == size:
        return image
    smooth = Image.Resampling.BILINEAR
    return np.array(Image.fromarray(image).resize(size[::-1], smooth, reducing_gap=2))


def at_size(code: dict, size: tuple[int, int]) -> dict:
    """A run-length code enlarged, or made smaller, to (height, width)."""
    if code["size"] == list(size):
        return code
    levels = Image.fromarray(rle_codec.decode(code) * 255)
    return encode_mask(np.asarray(levels.resize(size[::-1], Image.Resampling.BILINEAR)) >= 128)


def masks_at_size(result: FrameResult, size: tuple[int, int]) -> FrameResult:
    """The same with masks of another (height, width)."""
    return result._replace(segmentations=[at_size(code, size) for code in result.segmentations])


def track_frame(
    tracker: KernelTracker, image: np.ndarray, size: int | None = None
) -> tuple[FrameResult, float]:
    """The next frame (H, W, 3) of a video: its result, masks of its own size, and milliseconds.

    size: shorter side, in pixels, of what the network sees; by default as `network_size` says.
    """
    start = time.perf_counter()
    seen = resized(image, network_size(tracker.model, image.shape[:2], size))
    result = masks_at_size(tracker.step(seen), image.shape[:2])
    return result, 1000 * (time.perf_counter() - start)


@torch.inference_mode()
def encode(model: QueryModel, image: np.ndarray) -> EncodedFrame:
    """One image (H, W, 3) bytes as the network sees it."""
    return model.encode(image_to_batch(image))


@torch.inference_mode()
def masks_of_queries(frame: EncodedFrame, size: tuple[int, int] | None = None) -> np.ndarray:
    """The mask of every query of a key frame: (N, H, W) bool, of the frame's size or another."""
    logits = upsample_masks(frame.out.mask_logits, frame.size)
    if size and size != tuple(frame.size):
        logits = F.interpolate(logits, size, mode="bilinear")
    return (logits[0] > 0).cpu().numpy()


# --------------------------------------------------------------------------------------- one video


def track_video(
    source: str | Path | int,
    out: str | Path,
    weights: str | Path | QueryModel = "shapes-tiny",
    reuse_interval: Count = 3,
    association: str = "mask",
    score_threshold: Share = 0.5,
    size: Pixels | None = None,
    every: Count = 1,
    max_frames: Count | None = None,
    video: bool = True,
) -> dict:
    """Track what `read_video` reads; write `out`/results.json and, unless told not to, tracks.mp4.

    Memory does not grow with the length of the video. Category and score of a track are the running
    ones of the last frame that saw it. Ctrl-C ends the video there, and what was tracked so far is
    written, complete; a second one leaves without writing. Files of an earlier run are replaced
    when the new ones are complete.

    size: as for `track_frame`; masks are of the video's size. every, max_frames: only frames 0,
    every, 2 every, ... count, and the first so many of these. Raises what `read_video`,
    `from_pretrained` and `KernelTracker.step` raise; ValueError for numbers out of range; OSError
    when the disk is full.

    Returns {"frames": int, "tracks": [{"track", "category", "score", "frames"}], "ms_per_frame":
    float of the tracker alone, "interrupted": bool, "video": Path | None, "results": Path};
    results.json has one entry a track, its id and category by name included.
    """
    check_call(track_video, locals())
    info = video_info(source)
    model = open_model(weights)
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with (
        # absolute: FFmpeg would take the "take" of take:2/tracks.mp4 for a protocol
        unfinished(out.absolute()) as folder,
        _stop_at_ctrl_c() as stopped,
    ):
        tracks = TracksOnDisk(Path(folder), model.config.class_names)
        # Up to the last frame wanted: none is read for nothing after it.
        frames = islice(read_timed(source), 0, max_frames and (max_frames - 1) * every + 1, every)
        known = (info.expected and -(-info.expected // every), max_frames)
        total = min((count for count in known if count), default=None)
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


@contextlib.contextmanager
def _stop_at_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, instead of an exception; the second is as ever."""
    stopped = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def note(*_) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    # Shells start what runs in the background so that it ignores Ctrl-C. It goes on doing so.
    with on_signal(signal.SIGINT, before if before is signal.SIG_IGN else note):
        yield stopped


class TracksOnDisk:
    """What is known of every identity: a few values in memory, its masks in a file of its own."""

    def __init__(self, folder: Path, class_names: tuple[str, ...]):
        self.folder, self.class_names = folder, class_names
        # identity -> label and score in the last frame that saw it, how many did, how many are in
        # its file
        self.known: dict[int, tuple[int, float, int, int]] = {}
        self.frames, self.milliseconds = 0, 0.0

    def take(self, result: FrameResult, milliseconds: float = 0.0) -> None:
        """One frame more."""
        self.frames = result.frame + 1
        self.milliseconds += milliseconds
        for identity, label, score, code in zip(*result[2:6], strict=True):
            _, _, count, written = self.known.get(identity, (0, 0, 0, 0))
            # null in the frames that did not see it
            codes = ["null"] * (result.frame - written) + [json.dumps(code)]
            with open(self.folder / str(identity), "a", encoding="utf-8") as file:
                file.write((", " if written else "") + ", ".join(codes))
            self.known[identity] = (label, score, count + 1, self.frames)

    def table(self) -> list[dict]:
        """The tracks, best score first."""
        from minst.visualize.masks import class_name

        names = {label: class_name(self.class_names, label) for label, *_ in self.known.values()}
        rows = [
            {"track": identity, "category": names[label], "score": score, "frames": count}
            for identity, (label, score, count, _) in self.known.items()
        ]
        return sorted(rows, key=lambda row: -row["score"])

    def write(self, path: Path) -> None:
        """A results file: of a long video not even one track need fit into memory."""
        with open(path, "w", encoding="utf-8") as file:
            file.write("[")
            for number, row in enumerate(self.table()):
                label, score, _, written = self.known[row["track"]]
                entry = {"video_id": 1, "category_id": label + 1, "score": score}
                entry |= {"id": row["track"], "category": row["category"]}
                start = json.dumps(entry).removesuffix("}")
                file.write((",\n" if number else "\n") + start + ', "segmentations": [')
                with open(self.folder / str(row["track"]), encoding="utf-8") as codes:
                    shutil.copyfileobj(codes, file)
                file.write(", null" * (self.frames - written) + "]}")
            file.write("\n]\n")


# ---------------------------------------------------------------------------------------- the demo


def run_demo(
    out: str | Path = "minst-demo",
    sample: str | None = None,
    reuse_interval: int = 3,
) -> dict:
    """The first two minutes: track a shipped clip, write pictures to `out`; files are replaced.

    sample: one that `minst.load_sample` knows, default the first that is drawn. Returns sample,
    frames, tracks [{track, category, score, frames}], ms_key and ms_reuse (median milliseconds of a
    key frame and of a frame that reuses its kernels; None if there is none), AP, AP50 (fractions of
    1, of this clip alone), files {name: path}, seconds. OSError where `out` is a file.
    """
    from minst.visualize.masks import animate, class_name, draw_tracks
    from minst.visualize.queries import plot_query_consistency
    from minst.visualize.style import save

    started, out = time.perf_counter(), Path(out)
    clip = load_sample(sample or sample_names()[0])
    model = open_model(weights_for(clip.name)[0])
    ids = category_ids(model, clip)
    tracker = KernelTracker(model, reuse_interval=reuse_interval, association="mask")
    out.mkdir(parents=True, exist_ok=True)
    track_frame(tracker, clip.image(0))  # the very first frame pays for setting up: not timed
    tracker.reset()
    times: dict[bool, list[float]] = {True: [], False: []}  # of key frames, of those between
    result = tracker.gather(_timed(clip, tracker, times))
    entries = result.to_ytvis(clip.video["id"], ids)
    scores = evaluate_ytvis(clip.annotations(), entries)

    files = {name: out / name for name in ("tracks.mp4", "tracks.gif", "fig2.png", "results.json")}
    write_results(entries, files["results.json"])
    drawn = list(draw_tracks(clip, result))
    animate(drawn, files["tracks.mp4"], FOLDER_FPS)
    animate(drawn, files["tracks.gif"], FOLDER_FPS)
    with replacing(files["fig2.png"]) as beside:
        save(plot_query_consistency(model, clip, num_frames=min(11, len(clip))), beside)
    names = result.class_names or clip.categories
    return {
        "sample": clip.name,
        "frames": len(clip),
        "tracks": [
            {
                "track": track.id,
                "category": class_name(names, track.label),
                "score": track.score,
                "frames": sum(code is not None for code in track.segmentations),
            }
            for track in result.tracks
        ],
        "ms_key": median(times[True]),
        "ms_reuse": median(times[False]) if times[False] else None,
        "AP": scores["AP"],
        "AP50": scores["AP50"],
        "files": {name: str(path) for name, path in files.items()},
        "seconds": time.perf_counter() - started,
    }


def _timed(
    clip: Clip, tracker: KernelTracker, times: dict[bool, list[float]]
) -> Iterator[FrameResult]:
    """The frames of a clip, tracked; how long each took goes to the times of its kind."""
    # disable=None: shown only on a terminal
    for image in tqdm(clip, desc="tracking", unit="frame", leave=False, disable=None):
        result, milliseconds = track_frame(tracker, image)
        times[result.is_key].append(milliseconds)
        yield result


# ------------------------------------------------------------------------ a data set, labels or not


def predict_folder(
    folder: str | Path | YouTubeVIS,
    weights: str | Path | QueryModel = "shapes-tiny",
    reuse_interval: Count = 3,
    association: str = "mask",
    split: str | None = None,
    annotations: str | Path | None = None,
    size: Pixels | None = None,
    score_threshold: Share = EVALUATION_THRESHOLD,
    videos: Count | None = None,
    engine: Engine | None = None,
    watch: Callable[[Clip, Iterator[EncodedFrame]], Iterator[EncodedFrame]] | None = None,
) -> Iterable[dict]:
    """Entries of a results file for the first `videos` of a folder (images, if in COCO form).

    folder: or a data set that is open already. Entries come video by video, one of which is in
    memory at a time. Category ids are those of the file, as `category_ids` says. size: as for
    `track_frame`; masks are of the file's size. engine: several processes share the videos, and
    each gives the entries of all, by video. watch: of each video it is handed the frames that the
    network has seen, and hands them on. Raises ValueError at once for numbers out of range, and
    where no category fits.
    """
    check_call(predict_folder, locals())
    engine = engine or Engine("cpu")
    dataset = _opened(folder, split, annotations)
    model = open_model(weights, engine.device)
    ids = category_ids(model, dataset, (lambda _line: None) if engine.rank else print)
    tracker = KernelTracker(model, reuse_interval, association, score_threshold)

    def entries_of(clip: Clip) -> Iterable[dict]:
        if isinstance(dataset, COCO):
            seen = network_size(model, (clip.height, clip.width), size, LARGEST_IMAGE)
            frame = encode(model, resized(clip.image(0), seen))
            return detections(frame, clip, ids, score_threshold)
        tracker.reset()
        full = (clip.height, clip.width)
        seen = network_size(model, full, size)
        frames = (encode(model, resized(image, seen)) for image in clip)
        frames = watch(clip, frames) if watch else frames
        result = tracker.gather(masks_at_size(tracker.advance(frame), full) for frame in frames)
        return result.to_ytvis(clip.video["id"], ids)

    mine = range(engine.rank, min(videos or len(dataset), len(dataset)), engine.processes)
    silent = None if not engine.rank else True  # None: shown only on a terminal
    shown = tqdm(mine, desc="predicting", unit=dataset.unit, disable=silent)
    entries = (entry for i in shown for entry in entries_of(dataset[i]))
    if engine.processes == 1:
        return entries
    return sorted(engine.gather(list(entries)), key=itemgetter(dataset.form.owner))


def _opened(
    folder: str | Path | YouTubeVIS, split: str | None, annotations: str | Path | None
) -> YouTubeVIS:
    return folder if isinstance(folder, YouTubeVIS) else open_folder(folder, split, annotations)


def category_ids(
    model: QueryModel, dataset: YouTubeVIS | Clip, say: Callable[[str], None] = print
) -> list[int | None]:
    """The file's id of every class of the model, by `category_key`; None where the file has none.

    A model without names fits a file of as many categories, by position. say: is told in a line
    what only the model knows, and in another what only the file has. ValueError where nothing fits.
    """
    names, theirs = model.config.class_names, dataset.categories
    if not names and model.config.num_classes == len(theirs):
        return dataset.category_ids
    known = dict(zip(map(category_key, theirs), dataset.category_ids))
    ids = [known.get(category_key(name)) for name in names]
    if not {*ids} - {None}:
        model_has = ", ".join(names) or f"{model.config.num_classes} classes without names"
        what = "no category fits; take another model, or train one on these labels (lesson 10)"
        raise ValueError(f"{what}: the model knows {model_has}; {dataset.file} has {theirs}")
    ours_alone = [name for name, found in zip(names, ids) if found is None]
    theirs_alone = [name for name, i in zip(theirs, dataset.category_ids) if i not in ids]
    for alone, what in (
        (ours_alone, "classes of the model that the file lacks are left out"),
        (theirs_alone, "categories of the file that the model cannot find"),
    ):
        if alone:
            say(f"note: {what}: {', '.join(alone)}")
    return ids


@torch.inference_mode()
def detections(
    frame: EncodedFrame,
    clip: Clip,
    ids: list[int | None],
    threshold: float = 0.0,
    most: int = DETECTIONS,
) -> Iterator[dict]:
    """The detections of highest score in an image: each query in each class, no suppression.

    clip: the image, as a data set gives it. ids: the file's of each class, as `category_ids` says.
    """
    known = [label for label, found in enumerate(ids) if found is not None]
    scores, places = frame.out.scores()[0, :, known].flatten().sort(descending=True)  # (N * C,)
    count = min(most, int((scores >= threshold).sum()))
    codes: dict[int, dict] = {}
    for score, place in zip(scores[:count].tolist(), places[:count].tolist()):
        query, label = divmod(place, len(known))
        if query not in codes:
            logits = upsample_masks(frame.out.mask_logits[:, [query]], frame.size)[0, 0]
            mask = encode_mask((logits > 0).cpu().numpy())
            codes[query] = at_size(mask, (clip.height, clip.width))
        yield {
            "image_id": clip.video["id"],
            "category_id": ids[known[label]],
            "score": score,
            "segmentation": codes[query],
        }


# --------------------------------------------------------------------------- a data set with labels


def evaluate_folder(
    folder: str | Path | YouTubeVIS,
    weights: str | Path | QueryModel = "shapes-tiny",
    reuse_interval: int = 3,
    association: str = "mask",
    videos: Count | None = None,
    split: str | None = None,
    annotations: str | Path | None = None,
    size: Pixels | None = None,
) -> dict:
    """How good a model is on the first `videos` of a folder, or of a data set that is open already.

    In COCO form the dict of `evaluate_coco`, in YouTube-VIS form that of `evaluate_ytvis` (figures
    in 0..1, per category, per video) and

    "consistency"  what `ConsistencyMeter.result` says of the queries, each frame a key frame
    "frame_share"  `frame_share` of Q_G and of the kernels, in the first frame of each clip
    "identity"     what `IdentityMeter.result` says of tracks of score "score_threshold" and more
    "setting"      videos, reuse_interval, association

    in both "weights" and "folder", by name. AP ranks tracks by score. Identities need one set of
    tracks that all count: those of a second tracker, at its default threshold, which are what a
    user sees. Trackers and queries look at a frame together: the network computes it once. size:
    shorter side of what the network sees, by default as `network_size` says; masks are compared at
    the size of the file. ValueError where no category fits, or labels are withheld.
    """
    check_call(evaluate_folder, locals())
    dataset = _opened(folder, split, annotations)
    truth, model = first_videos(dataset, videos), open_model(weights)
    is_images = isinstance(dataset, COCO)
    evaluate = evaluate_coco if is_images else evaluate_ytvis
    evaluate(truth, [])  # what is wrong with the labels is said before the work
    watch = None if is_images else Watch(model, dataset, reuse_interval, association)
    chosen = {"size": size, "videos": videos, "watch": watch}
    results = predict_folder(dataset, model, reuse_interval, association, **chosen)
    figures = evaluate(truth, list(results))
    if watch:
        figures |= watch.result()
    if not isinstance(weights, (str, Path)):
        weights = getattr(weights, "name", type(weights).__name__)
    return figures | {"weights": str(weights), "folder": dataset.root.name}


def first_videos(dataset: YouTubeVIS, count: int | None) -> dict:
    """The content of an annotation file, as if it had no more than `count` videos, or images."""
    truth, form = dataset.dataset, dataset.form
    pictures, labels = truth[form.pictures][:count], truth.get("annotations")
    ids = {picture["id"] for picture in pictures}
    kept = labels and [entry for entry in labels if entry[form.owner] in ids]
    return {**truth, form.pictures: pictures, "annotations": kept}


class Watch:
    """What `evaluate_folder` looks at beside the tracks that are ranked."""

    def __init__(
        self, model: QueryModel, dataset: YouTubeVIS, reuse_interval: int, association: str
    ):
        self.ids = category_ids(model, dataset, say=lambda _line: None)
        self.tracker = KernelTracker(model, reuse_interval, association)  # as a user has it
        self.queries, self.identities = ConsistencyMeter(), IdentityMeter()
        self.firsts: dict[str, list] = {"global_queries": [], "kernels": []}

    def __call__(self, clip: Clip, frames: Iterator[EncodedFrame]) -> Iterator[EncodedFrame]:
        """The frames of a clip, which are handed on; at its end all is counted."""
        full = (clip.height, clip.width)
        # The model's classes may stand in another order than the file's categories. One that it
        # does not know is the last, -1.
        wanted = [clip.category_ids[label] for label in clip.labels]
        labels = [self.ids.index(i) if i in self.ids else -1 for i in wanted]
        results, ious, probabilities, scores = [], [], [], []
        self.tracker.reset()
        for t, frame in enumerate(frames):
            results.append(masks_at_size(self.tracker.advance(frame), full))
            ious.append(mask_ious(masks_of_queries(frame, full), clip.masks(t)))  # (N, G)
            # 1 of the category that the model does not know
            known = F.pad(frame.out.class_logits[0].sigmoid(), (0, 1), value=1.0)
            probabilities.append(known[:, labels].cpu().numpy())  # (N, G)
            scores.append(frame.out.scores()[0].amax(-1).cpu().numpy())  # (N,)
            for name, found in self.firsts.items() if t == 0 else ():
                value = getattr(frame.out, name)
                if value is not None:  # None of an exported model
                    found.append(value[0].cpu().numpy())
            yield frame
        found = self.identities.add_clip(gather_frames(results), clip)
        ious, names = np.stack(ious), category_names(clip)
        self.queries.add_ious(ious, found.visible, names, found.levels, probabilities, scores)

    def result(self) -> dict:
        """The figures of all clips so far."""
        of, consistency = self.tracker, self.queries.result()
        setting = {"reuse_interval": of.reuse_interval, "association": of.association}
        return {
            "consistency": consistency,
            "frame_share": {name: frame_share(np.array(f)) for name, f in self.firsts.items()},
            "identity": {"score_threshold": of.score_threshold, **self.identities.result()},
            "setting": {"videos": consistency["clips"], **setting},
        }


def write_figures(figures: dict, path: str | Path) -> None:
    """Figures as JSON, which has no NaN: where a group had nothing to count stands null."""
    text = msgspec.json.format(msgspec.json.encode(figures), indent=1)
    with replacing(path) as beside:
        beside.write_bytes(text + b"\n")
