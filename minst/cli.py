"""`minst …` on the command line: a function for every command, whose signature is its options.

    argv --build_parser, from the signatures--> function(**arguments) -> exit status
    0 done   1 the work failed (a loss that is not finite, a missing package)
    2 wrong arguments or input   130 Ctrl-C   143 SIGTERM

A parameter is an argument; one that is named only, after the *, is an option; the comment beside it
is its help. What goes wrong is said in one line on stderr that starts with `minst: `. A module of
ours is imported when a command names it (`minst.predict`), so that `minst --help` answers at once.

Lesson: notebooks/00_start_here.ipynb
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import minst
from minst.config import PRESETS
from minst.options import (
    Count,
    File,
    Folder,
    Natural,
    NewFile,
    NewFolder,
    NewPicture,
    Number,
    Pixels,
    Port,
    Positive,
    Range,
    Report,
    Share,
    Size,
    add_options,
)
from minst.recipes import RECIPES, TrainConfig, recipe

__all__ = ["COMMANDS", "build_parser", "main"]

Association = Literal["mask", "cosine"]
Device = Literal["auto", "cpu", "cuda"]
Preset = Literal[tuple(PRESETS)]
Recipe = Literal[tuple(RECIPES)]
Seeds = Annotated[int, Range(1, 1000)]

MOST_TILES = 64  # frames of a figure
LONGEST = 700  # characters at the start, and at the end, of a long message that are shown

# What a parameter without a comment is.
SHARED = {
    "annotations": "the annotation file, when it lies elsewhere",
    "association": "mask (ours) or cosine (as in the paper)",
    "folder": "folder of a data set in YouTube-VIS or COCO form",
    "host": "who can reach it: 127.0.0.1 is this machine alone, 0.0.0.0 the whole network",
    "json": "write all figures to this file",
    "model": "a model of transformers: its name on the hub, or a folder of save_pretrained",
    "port": "where the page is served",
    "preset": "random weights (topformer-tiny if nothing is said)",
    "reuse_interval": "T: a key frame every T frames",
    "revision": "commit or tag of the hub, of the model",
    "sample": "name of a shipped clip",
    "seed": "another seed, other clips; another split",
    "size": "width x height of the frames",
    "split": "train, valid, ... (default: the only annotation file, or train)",
    "threads": "CPU threads of the network",
    "videos": "only the first N videos, or images",
    "weights": "shipped weights by name, or a folder that save_pretrained wrote",
}


# ------------------------------------------------------------------------------------ using a model


@dataclass
class Tracker:
    """Which model tracks, and how: options of `track`, `eval` and `predict`."""

    weights: str | None = None  # shipped ones by name, or a folder (default: those for the film)
    model: str | None = None
    revision: str | None = None
    size: Pixels | None = None  # shorter side of what the network sees (default: as in training)
    reuse_interval: Count = 3
    association: Association = "mask"

    def for_film(self, film: str) -> tuple:
        """Model, interval, association; the size of frames, None for one that resizes them."""
        if self.weights and self.model:
            raise ValueError("say --weights or --model, not both")
        foreign = _foreign(self.model, self.revision, self.size if self.model else None)
        model = foreign or self.weights or _usual(film)[0]
        return model, self.reuse_interval, self.association, None if foreign else self.size


@dataclass
class Models:
    """Which models show a film: options of `explore` and `fig2`."""

    # names or folders; several are shown together (default: for the film, or --model alone)
    weights: list[str] | None = None
    model: str | None = None
    revision: str | None = None
    size: Pixels | None = None  # shorter side of what the network of --model sees

    def for_film(self, film: str) -> tuple[list[str], object]:
        """The weights, and the model that --model names, or None."""
        foreign = _foreign(self.model, self.revision, self.size)
        weights = self.weights or ([] if foreign else _usual(film))
        if not foreign:
            _warn(film, weights)
        return weights, foreign


def demo(
    *,
    sample: str | None = None,  # name of a shipped clip (default: the demo's own choice)
    photo: bool = False,  # a photograph of a cat, moved as if by a hand
    film: bool = False,  # a real film: somebody walks in
    out: NewFolder = "minst-demo",  # folder of what is written
    reuse_interval: Count = 3,
    static: NewFolder | None = None,  # write here a page that tracks by itself, without Python
    assets: Folder | None = None,  # onnxruntime-web for that page (default: from the internet)
) -> None:
    """Track a shipped clip, print a table, write pictures."""
    if photo + film + bool(sample) > 1:
        raise ValueError("demo: say one of --photo, --film and --sample")
    if assets and not static:
        raise ValueError("demo: --assets goes with --static")
    sample = minst.samples.PHOTO if photo else minst.samples.FILM if film else sample
    if static:
        sample = sample or "easy"
        page = {"sample": sample, "weights": minst.samples.weights_for(sample)[0]}
        page |= {"reuse_interval": reuse_interval, "assets": assets}
        _say_static(static, minst.mobile.serve.write_pages(static, **page))
        return
    if sample in (minst.samples.PHOTO, minst.samples.FILM):
        _usual(sample)  # says what they know
    said = minst.predict.run_demo(out=out, sample=sample, reuse_interval=reuse_interval)
    print(f"{said['sample']}: {said['frames']} frames, a key frame every {reuse_interval}\n")
    _print_tracks(said["tracks"])
    reuse = f", others {said['ms_reuse']:.1f} ms" if said["ms_reuse"] else ""
    print(f"\nkey frames {said['ms_key']:.1f} ms{reuse} (median)")
    print(f"AP {100 * said['AP']:.1f}, AP50 {100 * said['AP50']:.1f} on this clip")
    print("written: " + ", ".join(said["files"].values()) + f" in {said['seconds']:.1f} s")


def _say_static(folder: str, size: int) -> None:
    print(f"written: {folder}, {size / 1e6:.1f} MB, for any web server, such as")
    print(f"    python3 -m http.server --bind 127.0.0.1 --directory {folder}")


def track(
    # video file, folder of images in order of their names, pattern ("a/*.png"), or webcam (0)
    video: str,
    *,
    out: NewFolder = "minst-track",  # folder of what is written
    score_threshold: Share = 0.5,  # identities are shown from this score on, 0 to 1
    every: Count = 1,  # use every N-th frame
    max_frames: Count | None = None,  # stop after N frames
    no_video: bool = False,  # write results.json alone
    **tracker: Tracker,
) -> int | None:
    """Track a video, images or a webcam; write an MP4 and results.json."""
    (*tracker, size) = Tracker(**tracker).for_film(video)
    _warn(video, tracker[:1])
    tracker += [score_threshold, size, every, max_frames]
    said = minst.predict.track_video(video, out, *tracker, video=not no_video)
    if said["interrupted"]:
        print("stopped by Ctrl-C; what was tracked so far is written, complete")
    milliseconds = f"{said['ms_per_frame']:.1f} ms a frame"
    print(f"{said['frames']} frames, {len(said['tracks'])} tracks, {milliseconds}")
    _print_tracks(said["tracks"])
    print("written: " + ", ".join(str(said[name]) for name in ("video", "results") if said[name]))
    return 130 if said["interrupted"] else None


def lessons(
    folder: NewFolder = "minst-lessons",  # where they go; what is there already is left alone
) -> None:
    """Copy the lessons, their solutions and the glossary to a folder of your own."""
    written = minst.samples.write_lessons(folder)
    print(f"written: {written}; open it with: jupyter lab {written}")


def grade(
    submissions: Folder,  # the notebooks that were handed in, whatever they are called
    *,
    csv: NewFile = "grades.csv",  # a row per exercise; beside it goes a page for the tutor, .md
    seconds: Positive = 90.0,  # most time for one exercise
    megabytes: Count = 8192,  # most address space of one exercise
    jobs: Count = 2,  # exercises that are judged at a time
) -> None:
    """Judge the exercises of a class. This runs the code of others: read minst/course/grade.py."""
    from minst.course import grade as judge

    grades = judge.grade(submissions, seconds, megabytes, jobs)
    page = judge.write_grades(grades, csv)
    print(f"{sum(of.state == 'correct' for of in grades)} of {len(grades)} answers are correct")
    print(f"written: {csv}, {page}")


def explore(
    # shipped clip, video file, folder of images or in YouTube-VIS form
    source: str = "easy",
    *,
    reuse_interval: Count = 3,  # T: a key frame every T frames, to begin with
    association: Association = "mask",  # to begin with
    port: Port = 8866,
    host: str = "127.0.0.1",
    no_browser: bool = False,  # do not open a browser
    static: NewFolder | None = None,  # write a page that needs no Python here, and end
    **models: Models,
) -> None:
    """A page in the browser: click an object and watch its query."""
    chosen = Models(**models)
    if static and len(chosen.weights or ()) + bool(chosen.model) > 1:  # each would double the page
        raise ValueError("explore: a page of --static shows one model; name one alone")
    weights, foreign = chosen.for_film(source)  # what is wrong is said here, and not on the page
    others = [(chosen.model, chosen.revision, chosen.size)] if foreign else []
    settings = minst.visualize.Settings(reuse_interval, association)
    if static:
        shown = foreign or weights[0]
        clip = minst.visualize.serve.open_clip(source)
        pages = minst.visualize.static
        explorer = minst.visualize.explore(shown, clip, settings, max_frames=pages.MOST_FRAMES)
        _say_static(static, pages.save_explorer(explorer, static))
        return
    minst.visualize.serve.serve(source, weights, settings, port, host, not no_browser, others)


def fig2(
    # shipped clip, video file, folder of images or in YouTube-VIS form
    film: str = "easy",
    *,
    out: NewPicture = "fig2.png",  # the figure: .png, .pdf or .svg
    frames: list[Natural] | None = None,  # these, from 0 on, in the place of --every and --count
    every: Count = 1,  # every N-th frame
    count: Annotated[int, Range(1, MOST_TILES)] = 11,  # so many of them, or fewer if the film ends
    # width of a frame in the figure, in pixels of a PNG (default: what fits a page)
    tile: Annotated[int, Range(48, 512)] | None = None,
    **models: Models,
) -> None:
    """Fig 2 of the paper: does a query keep its instance? Its masks, scores and kernels."""
    if frames and (len(frames) > MOST_TILES or (every, count) != (1, 11)):
        raise ValueError(f"fig2: say up to {MOST_TILES} --frames, or --every and --count")
    chosen, clip = Models(**models), minst.visualize.serve.open_clip(film)
    weights, foreign = chosen.for_film(film)
    if not chosen.weights:
        weights = weights[:1]  # two are compared only where they are named
    named = minst.visualize.serve.labelled([chosen.model, *weights] if foreign else weights)
    shown = {
        name: foreign if of == chosen.model else minst.protocol.open_model(of)
        for name, of in named.items()
    }
    which = frames or range(0, count * every, every)
    inches = tile and tile / minst.visualize.style.DPI
    figure = minst.visualize.plot_query_consistency(shown, clip, frames=which, tile=inches)
    print(f"{figure.alt}\nwritten: {minst.visualize.save(figure, out)}")


def eval_(
    folder: str,
    *,
    split: str | None = None,
    annotations: File | None = None,
    results: File | None = None,  # judge this results file; no model is run
    videos: Count | None = None,
    json: Report | None = None,
    **tracker: Tracker,
) -> None:
    """Video AP, query consistency and identities on a YouTube-VIS data set."""
    if results:
        truth = annotations or minst.data.layouts.find_annotations(folder, split)
        if videos:
            dataset = minst.data.open_folder(folder, split, truth)
            truth = minst.predict.first_videos(dataset, videos)
        figures = minst.evaluation.evaluate_results(truth, results)
    else:
        (*tracker, size) = Tracker(**tracker).for_film(folder)
        tracker += [videos, split, annotations, size]
        figures = minst.predict.evaluate_folder(folder, *tracker)
    _print_table(_numbers(figures))
    for part in ("identity", "tracking"):
        if "note" in figures.get(part, ()):
            print(f"note: {figures[part]['note']}")
    if json:
        minst.predict.write_figures(figures, json)
        print(f"written: {json}")


def predict(
    folder: str,
    *,
    split: str | None = None,
    annotations: File | None = None,
    videos: Count | None = None,
    device: Device = "cpu",  # under `accelerate launch` auto is what it says
    out: NewFile = "results.json",  # the results file
    **tracker: Tracker,
) -> None:
    """A results file for all videos, or images, of a data set; no labels needed."""
    engine = minst.engine.Engine(device)
    (*tracker, size) = Tracker(**tracker).for_film(folder)
    tracker += [split, annotations, size]
    entries = minst.predict.predict_folder(folder, *tracker, videos=videos, engine=engine)
    if not engine.rank:
        count = minst.evaluation.write_results(entries, out)
        print(f"written: {out}, {count} entries, one for each class of a mask")


def submit(
    results: str,  # results file of `minst predict`
    *,
    annotations: File,  # annotation file of the split; its labels may be withheld
    out: NewFile = "results.zip",  # the zip
    top: Count = 10,  # tracks of highest score kept a video
) -> None:
    """Check a results file and pack it as the YouTube-VIS servers want it."""
    said = minst.evaluation.write_submission(results, annotations, out, top)
    _print_table(_numbers(said))
    print(f"written: {said['file']}")


def train(
    *,
    config: Recipe = "shapes",  # recipe: the values of what is not said otherwise
    restart: bool = False,  # start anew, over a run that is already in the folder
    **fields: TrainConfig,
) -> None:
    """Train on shapes made on the fly, or on a folder; an interrupted run goes on."""
    written = minst.training.train(recipe(config, **fields), resume=not restart)
    print(f"weights: {written}")


# --------------------------------------------------------------------------------------------- data


def data_shapes(
    *,
    out: NewFolder,  # a new or empty folder
    videos: Count = 50,  # number of clips, or of images with --images
    frames: Count = 24,  # frames a clip
    size: Size = "256x192",
    seed: Natural = 0,
    split: Literal["train", "val", "test"] = "val",  # splits never share a clip, whatever the seed
    images: bool = False,  # still images in COCO form in the place of clips
    speed: Number = 1.0,  # factor on all motion, 0 to 4
    occlusion: Number = 1.0,  # how often paths are led across each other, 0 to 3
    crowding: Number = 1.0,  # how many objects a clip has, 0 to 4
    clutter: Number = 1.0,  # how many untracked things lie in the background, 0 to 4
) -> None:
    """Write clips of moving creatures in YouTube-VIS or COCO form."""
    knobs = {"speed": speed, "occlusion": occlusion, "crowding": crowding, "clutter": clutter}
    height, width = size
    config = minst.data.shapes.ShapesConfig(width, height, frames, **knobs)
    written = minst.data.write_shapes_dataset(out, videos, config, seed, split, images)
    print(f"written: {written}")


def data_check(
    folder: str,
    *,
    split: str | None = None,
    annotations: File | None = None,
    # read only the headers of images: a file that is cut short goes unseen
    fast: bool = False,
    json: Report | None = None,  # write all problems to this file, not the first of each kind
) -> int:
    """Every error of a data set, with file and entry; exit status 1 if any."""
    report = minst.labels.check_dataset(folder, split, annotations, read_images=not fast)
    print(report)
    if json:
        report.save(json)
        print(f"written: {json}")
    return int(bool(report.errors))


def data_preview(
    folder: str,
    *,
    split: str | None = None,
    annotations: File | None = None,
    videos: Count = 12,  # videos, or images, on the sheet
    out: NewPicture = "preview.png",  # the sheet: .png, .pdf or .svg
) -> None:
    """A sheet of videos or images with masks, identities, categories."""
    sheet = minst.visualize.preview_dataset(folder, split, annotations, count=videos)
    print(f"written: {minst.visualize.save(sheet, out)}")


def data_split(
    annotations: str,  # annotation file in YouTube-VIS or COCO form, with labels
    *,
    val: float = 0.1,  # share of videos (images) of the validation side, within 0 and 1
    seed: Natural = 0,
    out: NewFolder = "minst-split",  # folder of train.json, valid.json and split.json
    # compare with the split of this split.json; nothing is written
    verify: File | None = None,
) -> int | None:
    """A local train / valid split by video; its hash is recorded."""
    if verify:
        same = minst.labels.verify_split(verify, annotations)
        _print_table([(name, "the same" if value else "differs") for name, value in same.items()])
        return int(not all(value for name, value in same.items() if name != "source"))
    record = minst.labels.split_annotations(annotations, out, val=val, seed=seed)
    for side in ("train", "valid"):
        print(f"{side}  " + "  ".join(f"{key} {count}" for key, count in record[side].items()))
    for side, names in record["missing"].items():
        if names:
            print(f"note: no instance in {side}: {', '.join(names)}")
    print(f"written: {Path(out) / 'split.json'}, beside train.json and valid.json")
    return None


def data_convert(
    source: str,  # file, folder or zip; with --to davis a folder in YouTube-VIS form
    *,
    # what it is (default: guessed)
    from_: Literal["coco", "labelme", "cvat", "mots", "davis", "yolo", "sav"] | None = None,
    to: Literal["ytvis", "davis"] = "ytvis",  # what is written
    out: NewFolder,  # a new or empty folder
    # where the images are (cvat, yolo, sav: or the film), if not beside it
    images: Folder | None = None,
    # make tracks of shapes without an identity, by overlap from frame to frame; says which
    link: bool = False,
    split: str | None = None,  # of the folder, with --to davis
) -> None:
    """Other tools' annotations to YouTube-VIS form, and to indexed PNGs."""
    if to == "davis" and (from_ or images or link):
        what = "reads YouTube-VIS form; --from, --images and --link are not for it"
        raise ValueError(f"data convert --to davis {what}")
    if to != "davis" and split:
        what = "--split goes with --to davis; name the file of the split as the source"
        raise ValueError(f"data convert: {what}")
    tool = minst.labels.convert
    if to == "davis":
        written = tool.to_indexed_png(source, out, split, progress=print)
    else:
        written = tool.convert(source, out, from_, images, progress=print, link=link)
    print(f"written: {written}")


# ------------------------------------------------------------------------ this machine, and a phone


def env() -> None:
    """Versions, processor, XNNPACK; what is missing and the command that installs it."""
    print(minst.environment.report(minst.environment.environment()))


def summary(
    *, preset: Preset | None = None, weights: str | None = None, size: Size = "640x640"
) -> None:
    """Parameters and multiply-accumulates of every part of a model."""
    if weights:
        model = minst.MobileInst.from_pretrained(weights)
    else:
        config = minst.MobileInstConfig.preset(preset or "topformer-tiny")
        model = minst.MobileInst(config)
    rows = [("part", "parameters", f"MACs at {size[1]}x{size[0]}")]
    for part, n in minst.summary(model, size).items():
        rows.append((part, f"{n['params']:,}", f"{n['macs'] / 1e9:.3f} G"))
    _print_table(rows)


def export(
    *,
    weights: str = "shapes-tiny",
    format: str = "lite",  # lite (.ptl), torchscript (.pt), executorch (.pte) or onnx (.onnx)
    out: NewFolder = "minst-export",  # folder of what is written: key.*, reuse.*, ...
    size: Size = "256x192",
    part: str = "full",  # full (the tracker's two: key, reuse), features, masks, or reuse alone
) -> None:
    """Write the programs that a device runs, each compared with PyTorch."""
    minst.mobile.export.export(weights, format, out, size, part, progress=print)


def bench_latency(
    *,
    preset: Preset | None = None,
    weights: str | None = None,
    size: Size = "640x640",
    threads: Count = 1,
    frames: Count = 30,  # frames measured
    json: Report | None = None,
) -> None:
    """Milliseconds a frame, stage by stage, fused and not, T = 1, 3, 6."""
    measured = (size, threads, frames)
    minst.mobile.benchmark.bench_latency(preset, *measured, json_path=json, weights=weights)


def bench_mobile(
    *,
    models: list[str] | None = None,  # presets (default: topformer-tiny, -small and -base)
    weights: str | None = None,  # shipped weights by name, or a folder, in place of --models
    sizes: list[Pixels] = (320, 512, 640),  # sides of square frames, in pixels
    # eager, fused, torchscript, lite, executorch, onnx (default: all)
    runtimes: list[str] | None = None,
    rounds: Count = 20,  # frames measured, all runtimes in turns
    programs: NewFolder | None = None,  # keep the exported programs here for the next run
    json: Report | None = None,
    out: NewPicture | None = None,  # draw the table into this file: .png, .pdf or .svg
) -> None:
    """Eager, TorchScript, lite, ExecuTorch and ONNX Runtime in one table."""
    bench = minst.mobile.benchmark
    measured = (sizes, runtimes or bench.RUNTIMES, rounds)
    found = bench.bench_mobile(models, *measured, json, weights, programs)
    if out:
        minst.visualize.save(minst.visualize.plot_latency(found), out)
        print(f"written: {out}")


def bench_rivals(
    *,
    preset: Preset = "topformer-base",  # which MobileInst
    size: Size = "576x320",
    rounds: Annotated[int, Range(6, 10**6)] = 12,  # frames measured of each, in turns
    json: Report | None = None,
) -> None:
    """MobileInst beside a SparseInst with ResNet-50, random weights, one core."""
    minst.mobile.rivals.bench_rivals(preset, size, rounds, json)


def bench_layers(
    *,
    preset: Preset | None = None,
    weights: str | None = None,
    size: Size = "256x192",
    rounds: Count = 15,  # frames measured
    json: Report | None = None,  # write the table and the core's peak to this file
    out: NewFolder | None = None,  # draw layers.png and roofline.png into this folder
) -> None:
    """MACs, parameters, bytes and time of every layer, and this core's roofline."""
    minst.mobile.roofline.bench_layers(preset, weights, size, rounds, json_path=json, out=out)


def bench_lite(
    model: str,  # a file of `minst export --format lite`
    *,
    warmup: Natural = 10,  # runs not counted
    iter: Count = 50,  # runs measured
    threads: Count = 1,
    log: Report | None = None,  # keep its log, which `minst bench parse` reads
) -> None:
    """A .ptl with our benchmarker on libtorch, compiled when first used."""
    found = minst.mobile.lite.bench_lite(model, warmup, iterations=iter, threads=threads)
    _print_table([(model, ""), *_numbers(found)])
    if log:
        Path(log).write_text(found["log"])
        print(f"written: {log}")


def bench_phone(
    model: str,  # a file of `minst export --format lite` or `--format executorch`
    *,
    adb: bool = False,  # reach the phone by adb (USB); so far the only way there is
    dry_run: bool = False,  # print the commands; needs neither adb nor a phone
    binary: File | None = None,  # the benchmarker, built for the phone
    # speed_benchmark_torch or executor_runner (default: what the model asks for)
    runner: str | None = None,
    serial: str | None = None,  # which phone, as `adb devices` names it
    # which core (default: the one with the highest clock)
    core: Annotated[int, Range(0, 255)] | None = None,
    warmup: Natural = 5,  # runs not counted
    iter: Count = 50,  # runs measured in a round
    rounds: Count = 3,  # rounds, with a pause between
    cooldown: Natural = 30,  # seconds of the pause
    logs: NewFolder | None = None,  # keep the logs of the rounds here
    json: Report | None = None,
) -> None:
    """A .ptl or .pte on one core of a phone."""
    # a model that is not there is said below
    if not (adb or dry_run) and Path(model).is_file():
        raise ValueError("bench phone: say --adb to run on the phone, or --dry-run to see commands")
    where = {"runner": runner, "binary": binary, "serial": serial, "core": core, "logs": logs}
    often = {"warmup": warmup, "iterations": iter, "rounds": rounds, "cooldown_s": cooldown}
    minst.mobile.phone.bench_phone(model, **where, **often, dry_run=dry_run, json_path=json)


def bench_parse(
    log: str,  # a file, or - for what comes in
    *,
    warmup: Natural = 5,  # first runs of executor_runner that are not counted
    json: Report | None = None,
) -> None:
    """The log of speed_benchmark_torch or executor_runner as median, p95, spread."""
    text = sys.stdin.read() if log == "-" else Path(log).read_text(errors="replace")
    parsed = minst.mobile.logs.parse_log(text, warmup)
    print(minst.mobile.logs.report_log(parsed))
    minst.mobile.timing.write_json(parsed, json)


def bench_web(
    *,
    # shipped ones by name, or a folder (default: all that suit the shipped films, to choose from)
    weights: str | None = None,
    # key.onnx and reuse.onnx of `minst export`, in place of --weights
    programs: Folder | None = None,
    sample: str = "easy",
    size: Size | None = None,  # width x height of the frames (default: the clip's)
    reuse_interval: Count = 3,  # T: a key frame every T frames, to begin with
    association: Association = "mask",  # to begin with
    port: Port = 8867,
    host: str = "127.0.0.1",
    assets: Folder | None = None,  # folder with onnxruntime-web, for networks without internet
    browser: bool = False,  # open the page here
) -> None:
    """A page on which the visitor's own browser runs the tracker and is timed."""
    shown = {"weights": weights, "programs": programs, "sample": sample, "size": size}
    shown |= {"reuse_interval": reuse_interval, "association": association, "assets": assets}
    minst.mobile.serve.serve(**shown, host=host, port=port, open_browser=browser)


def bench_data(
    *,
    threads: Count = 1,
    batches: Count = 20,  # batches measured
    json: Report | None = None,
) -> None:
    """Clips made a second against clips trained on a second."""
    minst.mobile.benchmark.bench_data(threads, batches, json_path=json)


# ------------------------------------------------------------------------------------------ the lab


def lab_run(
    names: list[str] = (),  # variants (default: all; `minst lab list` names them)
    *,
    seeds: Seeds | None = None,  # seeds 0 to N - 1 of each (default: 3; with --smoke: 1)
    # a budget of seconds a run, to see that all works; its figures mean nothing
    smoke: bool = False,
    # folder of the lab (default: runs/lab; with --smoke: runs/lab-smoke)
    out: NewFolder | None = None,
    jobs: Count | None = None,  # processes (default: 2 on a CPU, 8 on an accelerator)
    device: Device = "auto",  # where it trains
) -> int | None:
    """Train and measure runs of the grid; skips what is done, goes on after Ctrl-C."""
    grid = minst.lab.grid
    budget = grid.SMOKE if smoke else grid.FULL
    seeds, out = seeds or (1 if smoke else 3), out or ("runs/lab-smoke" if smoke else "runs/lab")
    try:
        done = minst.lab.run_lab(names, seeds, out, budget, jobs=jobs, device=device)
    except RuntimeError as error:  # some runs have failed; each has said why in its log
        return _complain(str(error), 1)
    print(f"{len(done)} jobs were done in {out}; `minst lab report {out}` compares them")
    return None


def lab_report(
    folder: str = "runs/lab",  # folder of the lab
    *,
    out: NewFolder | None = None,  # where the report goes (default: report in that folder)
    no_plots: bool = False,  # tables alone
) -> None:
    """Tables (Markdown) and plots from the metrics of a lab's runs."""
    print(f"written: {minst.lab.write_report(folder, out, plots=not no_plots)}")


def lab_list() -> None:
    """The variants of the grid, and what the paper says of each."""
    rows = [(of.name, of.says, of.judged_by, of.paper) for of in minst.lab.VARIANTS.values()]
    _print_table([("name", "what is changed", "judged by", "the paper"), *rows])


# ------------------------------------------------------------------------------ from argv to them

# by name: "data shapes" -> data_shapes
COMMANDS = {
    each.__name__.rstrip("_").replace("_", " "): each
    for each in (
        demo, track, lessons, grade, explore, fig2, eval_, predict, submit, train,
        data_shapes, data_check, data_preview, data_split, data_convert, env, summary, export,
        bench_latency, bench_mobile, bench_rivals, bench_layers, bench_lite, bench_phone,
        bench_parse, bench_web, bench_data, lab_run, lab_report, lab_list,
    )
}  # fmt: skip
GROUPS = {
    "data": "Make data sets.",
    "bench": "Measure times: on this machine, on a phone, in a browser.",
    "lab": "The ablation lab: the paper's claims, shown again at a laptop's scale.",
}
RESUME = {
    train: "; the same command without --restart goes on from the last checkpoint",
    lab_run: "; the same command goes on: what is done stays done, the rest from its checkpoint",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. --help and wrong arguments raise SystemExit."""
    function = None
    try:
        arguments = vars(build_parser().parse_args(argv))
        function = arguments.pop("function")
        with _sigterm_raises():
            status = function(**arguments)
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt as stop:
        status = 143 if isinstance(stop, Terminated) else 130
        return _complain("interrupted" + RESUME.get(function, ""), status)
    except BrokenPipeError:  # `minst … | head`: nobody reads on, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        missing = f"the package {error.name!r} is missing"
        return _complain(f"{missing}; `python -m minst env` says how to install it", 1)
    except (FloatingPointError, ImportError, MemoryError) as error:
        return _complain(str(error) or "not enough memory", 1)
    except OSError as error:
        known = error.filename is not None and error.strerror
        return _complain(f"{error.filename}: {error.strerror}" if known else str(error), 2)
    except ValueError as error:
        return _complain(str(error), 2)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised: what tidies up after Ctrl-C does so here, and no half file stays."""


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(*_) -> NoReturn:
        raise Terminated

    # Python lets signals be handled in the main thread alone.
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands: what it parses is a `function` and its arguments."""
    what = "MobileInst: video instance segmentation on the mobile (not MNIST)."
    parser = Parser(prog="minst", description=what)
    parser.add_argument("--version", action="version", version=f"minst {minst.__version__}")
    commands = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for path, function in COMMANDS.items():
        group, _, name = path.rpartition(" ")
        if group not in commands:
            said = commands[""].add_parser(group, help=GROUPS[group], description=GROUPS[group])
            commands[group] = said.add_subparsers(metavar="WHAT", required=True)
        what = function.__doc__
        command = commands[group].add_parser(name, help=what, description=what)
        command.set_defaults(function=function)
        add_options(command, function, SHARED)
    return parser


class Parser(argparse.ArgumentParser):
    """argparse, with complaints of one line and `--options` spelled out in full."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say it in one line and leave."""
        sys.exit(_complain(f"{message} (see `{self.prog} --help`)", 2))


# ------------------------------------------------------------------------------------ which model


def _foreign(model: str | None, revision: str | None, size: int | None):
    """The model that --model names, or None where it is not said."""
    if model is None and (revision or size):
        raise ValueError(f"{'--revision' if revision else '--size'} goes with --model; say which")
    if model is None:
        return None
    found = minst.adapters.from_transformers(model, revision, size)
    if not revision and not Path(model).is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")  # .../snapshots/COMMIT/config.json
        if isinstance(cached, str):
            print(f"note: --revision {Path(cached).parent.name} brings these very weights again")
    return found


def _usual(film: str) -> list[str]:
    """The shipped weights for a film; a line says what those of photographs know."""
    names = minst.samples.weights_for(film)
    if names[0].startswith("photos-"):
        known = " and ".join(minst.samples.weights_classes(names[0]))
        advice = "--model NAME brings a model of others, lesson 10 finetunes on your labels"
        print(f"note: {names[0]} was chosen, which knows {known} alone; {advice}", flush=True)
    return names


def _warn(film: str, weights: list) -> None:
    """A line where weights that know drawn creatures alone are all that is to look at a film."""
    if all(minst.samples.out_of_place(each, film) for each in weights):
        print(
            f"note: {', '.join(weights)} learned from drawn creatures alone, of no use here; "
            "take a model that knows the world, such as --model "
            "facebook/mask2former-swin-small-coco-instance, or finetune on your labels (lesson 10)",
            flush=True,
        )


# ------------------------------------------------------------------------------------------- output


def _complain(message: str, status: int) -> int:
    line = " ".join(message.split())
    if len(line) > 2 * LONGEST:  # it quotes what somebody wrote
        line = f"{line[:LONGEST]} … {line[-LONGEST:]}"
    print("minst: " + line, file=sys.stderr)
    return status


def _numbers(figures: dict, prefix: str = "", depth: int = 2) -> list[tuple[str, str]]:
    """The numbers of a nested dict as rows (name, value); those per category stay in the JSON."""
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict) and depth and not str(name).startswith("per_"):
            rows += _numbers(value, f"{prefix}{name} ", depth - 1)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{name}", text))
    return rows


def _print_tracks(tracks: list[dict]) -> None:
    rows = [tuple(row.values()) for row in tracks] or [("no tracks found", "", "", "")]
    _print_table([("track", "category", "score", "frames"), *rows])


def _print_table(rows: Sequence[tuple]) -> None:
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    texts = [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for first, *others in texts:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        print("  ".join(cells).rstrip())
