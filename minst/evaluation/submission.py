"""Results files: written, checked against annotations, packed as servers want them, judged.

    entries ─ write_results ─> results.json ─┬─ write_submission ─> results.zip   10 tracks a video
                                             └─ evaluate_results ─> AP, and HOTA, IDF1, MOTA

An entry is a track: {video_id, category_id, score, segmentations: [RLE or null a frame]}. A server
says no more than "failed", and the number of uploads is limited: here the first wrong entry is
named. Labels are not needed for that.

Assumption: a score lies in [0, 1]; servers take any number, but what lies beyond is a logit that
was not squashed.

Lesson: notebooks/10_capstone.ipynb
"""

from __future__ import annotations

import io
import json
import os
import reprlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from minst.data.files import read_json, replacing
from minst.evaluation.coco import Category, evaluate_coco, read
from minst.evaluation.identity import tracking_figures
from minst.evaluation.ytvis import Prediction, YTVISEval, evaluate_ytvis

__all__ = ["TOP", "evaluate_results", "read_predictions", "write_results", "write_submission"]

TOP = 10  # tracks a video, by the rules of the YouTube-VIS and OVIS challenges
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: the same results give the same bytes


def write_submission(
    results: str | os.PathLike | list,
    annotations: str | os.PathLike | dict,
    out: str | Path,
    top: int = TOP,
) -> dict:
    """Check results against the videos and categories of an annotation file and write `out`, a zip
    of results.json.

    Of each video the `top` tracks of highest score are kept (of equals the earlier), in the order
    of the file's videos, without keys that the format does not know. ValueError names the first
    entry that is wrong; see `read_predictions`.

    Returns {"videos", "videos_without_tracks", "kept", "dropped", "bytes": int, "file": Path}.
    """
    if top < 1:
        raise ValueError(f"top is {top}; it must be at least 1")
    evaluation = read_predictions(results, annotations)
    per_video: dict[int, list[dict]] = {v: [] for v in evaluation.videos}
    for track in evaluation.predictions:
        per_video[track["video_id"]].append(track)
    best = {
        v: sorted(tracks, key=lambda t: -t["score"])[:top] for v, tracks in per_video.items()
    }  # stable
    kept = [
        {
            "video_id": video,
            "category_id": track["category_id"],
            "score": track["score"],
            "segmentations": track["codes"],
        }
        for video, tracks in best.items()
        for track in tracks
    ]
    with replacing(out) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("results.json", EPOCH)
        info.compress_type, info.external_attr, info.create_system = (
            zipfile.ZIP_DEFLATED,
            0o644 << 16,
            3,
        )
        with (
            archive.open(info, "w", force_zip64=True) as file,
            io.TextIOWrapper(file, encoding="utf-8") as text,
        ):
            _write_entries(kept, text)
    return {
        "videos": len(best),
        "videos_without_tracks": sum(not tracks for tracks in best.values()),
        "kept": len(kept),
        "dropped": len(evaluation.predictions) - len(kept),
        "bytes": Path(out).stat().st_size,
        "file": Path(out),
    }


def read_predictions(
    results: str | os.PathLike | list, annotations: str | os.PathLike | dict
) -> YTVISEval:
    """Results and the videos they are about, checked; nothing is judged, the file's labels may be
    withheld.

    ValueError names the entry whose video_id or category_id is unknown, whose segmentations are not
    one a frame, whose run-length code has another size than the video or does not cover it, or
    whose score is not within [0, 1].
    """
    file = read_json(annotations) if isinstance(annotations, (str, os.PathLike)) else annotations
    for key in ("videos", "categories"):
        if not isinstance(file, Mapping) or not isinstance(file.get(key), list):
            where = annotations if isinstance(annotations, (str, os.PathLike)) else "annotations"
            raise ValueError(f"{where}: no list {key!r}; is this a YouTube-VIS annotation file?")
    known = {entry.id for entry in read(file["categories"], list[Category], "categories")}
    for i, track in enumerate(read(results, list[Prediction], "results")):
        if track.category_id not in known:
            ids = reprlib.repr(sorted(known))  # the first of them
            raise ValueError(
                f"results[{i}]: unknown category_id {track.category_id}; the file's: {ids}"
            )
        if not 0 <= track.score <= 1:
            raise ValueError(f"results[{i}]: score {track.score} is not within 0 and 1")
    return YTVISEval({**file, "annotations": []}, results)


def write_results(entries: Iterable[dict], path: str | Path) -> int:
    """Entries as a results file, one at a time; returns how many."""
    with replacing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        return _write_entries(entries, file)


def evaluate_results(gt: str | os.PathLike | dict, results: str | os.PathLike | list) -> dict:
    """The dict of `evaluate_ytvis`, and "tracking": that of `tracking_figures`, or {"note"} without
    trackeval.

    For ground truth and results in COCO form: the dict of `evaluate_coco`.
    """
    gt = read_json(gt) if isinstance(gt, (str, os.PathLike)) else gt
    if isinstance(gt, Mapping) and "images" in gt and "videos" not in gt:
        return evaluate_coco(gt, results)
    if isinstance(results, (str, os.PathLike)):
        results = read_json(results)
    figures = evaluate_ytvis(gt, results)
    try:
        tracking = tracking_figures(gt, results)
    except ImportError as error:
        tracking = {"note": str(error)}
    return {**figures, "tracking": tracking}


def _write_entries(entries: Iterable[dict], file) -> int:
    count = 0
    file.write("[")
    for count, entry in enumerate(entries, start=1):
        file.write(("," if count > 1 else "") + "\n" + json.dumps(entry, allow_nan=False))
    file.write("\n]\n")
    return count
