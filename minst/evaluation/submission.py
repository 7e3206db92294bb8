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

import json
import os
import reprlib
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from minst.data.files import replacing
from minst.evaluation.coco import evaluate_coco, loaded
from minst.evaluation.identity import tracking_figures
from minst.evaluation.ytvis import YTVISEval, evaluate_ytvis

__all__ = ["evaluate_results", "write_results", "write_submission"]

TOP = 10  # tracks a video, by the rules of the YouTube-VIS and OVIS challenges
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: the same results give the same bytes


def write_submission(
    results: str | os.PathLike | list,
    annotations: str | os.PathLike | dict,
    out: str | Path,
    top: int = TOP,
) -> dict:
    """Check results against an annotation file, and write `out`: a zip of results.json.

    Of each video the `top` tracks of highest score are kept (of equals the earlier), in the order
    of the file's videos, without keys that the format does not know. ValueError names an entry that
    is wrong; see `read_predictions`.

    Returns {"videos", "videos_without_tracks", "kept", "dropped", "bytes": int, "file": Path}.
    """
    if top < 1:
        raise ValueError(f"top is {top}; it must be at least 1")
    evaluation = read_predictions(results, annotations)
    best: dict[int, list[dict]] = {video: [] for video in evaluation.pictures}
    for track in sorted(evaluation.predictions, key=lambda track: -track["score"]):  # stable
        if len(best[track["video_id"]]) < top:
            entry = {key: track[key] for key in ("video_id", "category_id", "score")}
            best[track["video_id"]].append({**entry, "segmentations": track["codes"]})
    kept = [entry for tracks in best.values() for entry in tracks]
    text = f"[{','.join(map(_line, kept))}\n]\n"
    info = zipfile.ZipInfo("results.json", EPOCH)
    info.external_attr, info.create_system = 0o644 << 16, 3  # as Unix writes it, on every system
    with replacing(out) as beside, zipfile.ZipFile(beside, "w") as archive:
        archive.writestr(info, text, zipfile.ZIP_DEFLATED)
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
    """Results and the videos they are about, checked; nothing is judged, labels may be withheld.

    ValueError names the entry whose video_id or category_id is unknown, whose segmentations are not
    one a frame, whose run-length code has another size than the video or does not cover it, or
    whose score is not within [0, 1].
    """
    file, results = loaded(annotations), loaded(results)
    for key in ("videos", "categories"):
        if not isinstance(file, Mapping) or not isinstance(file.get(key), list):
            where = "annotations" if file is annotations else annotations
            raise ValueError(f"{where}: no list {key!r}; is this a YouTube-VIS annotation file?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown category is an error here
        evaluation = YTVISEval({**file, "annotations": []}, results)
    known = sorted(evaluation.categories)
    for track in evaluation.predictions:
        if track["category_id"] not in known:
            wrong = f"{track['where']}: unknown category_id {track['category_id']}"
            raise ValueError(f"{wrong}; the file's: {reprlib.repr(known)}")
        if not 0 <= track["score"] <= 1:
            raise ValueError(f"{track['where']}: score {track['score']} is not within 0 and 1")
    return evaluation


def write_results(entries: Iterable[dict], path: str | Path) -> int:
    """Entries as a results file, one at a time; returns how many."""
    count = 0
    with replacing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        file.write("[")
        for count, entry in enumerate(entries, start=1):
            file.write("," * (count > 1) + _line(entry))
        file.write("\n]\n")
    return count


def _line(entry: dict) -> str:
    return "\n" + json.dumps(entry, allow_nan=False)


def evaluate_results(gt: str | os.PathLike | dict, results: str | os.PathLike | list) -> dict:
    """The dict of `evaluate_ytvis`, and "tracking": that of `tracking_figures`.

    Without trackeval "tracking" is {"note": how to get it}. For files in COCO form: the dict of
    `evaluate_coco`.
    """
    gt, results = loaded(gt), loaded(results)
    if isinstance(gt, Mapping) and "images" in gt and "videos" not in gt:
        return evaluate_coco(gt, results)
    figures = evaluate_ytvis(gt, results)
    try:
        tracking = tracking_figures(gt, results)
    except ImportError as error:
        tracking = {"note": str(error)}
    return {**figures, "tracking": tracking}
