"""`minst …` on the command line: every command parses its arguments and calls one public function.

    argv -> build_parser(command) -> arguments.run(arguments) -> exit status
    0 done   1 the work failed (a loss that is not finite, a missing package)   2 wrong arguments or input   130 Ctrl-C

What goes wrong is said in one line on stderr that starts with `minst: `. Heavy imports stand inside the commands, so
that `minst --help` answers at once.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import minst
from minst.config import PRESETS

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `--help`, `--version` and wrong arguments raise SystemExit."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser(argv[0] if argv else None).parse_args(argv)
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        resume = {
            "train": "; the same command without --restart goes on from the last checkpoint",
            "lab": "; the same command goes on: what is done stays done, the rest from its last checkpoint",
        }
        return _complain("interrupted" + resume.get(arguments.command, ""), 130)
    except BrokenPipeError:  # `minst … | head`: nobody reads on, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        return _complain(f"the package {error.name!r} is missing; `python -m minst env` says how to install it", 1)
    except (FloatingPointError, ImportError) as error:
        return _complain(str(error), 1)
    except OSError as error:
        known = error.filename is not None and error.strerror
        return _complain(f"{error.filename}: {error.strerror}" if known else str(error), 2)
    except ValueError as error:
        return _complain(str(error), 2)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands. Arguments of `train` are filled in when `command` is "train": they need torch."""
    parser = _Parser(prog="minst", description="MobileInst: video instance segmentation on the mobile (not MNIST).")
    parser.add_argument("--version", action="version", version=f"minst {minst.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    add = _command(commands, "demo", _demo, "track a shipped clip, print a table, write pictures")
    add("--sample", default=None, help="name of a shipped clip (default: the demo's own choice)")
    add("--out", default="minst-demo", help="folder of what is written")
    add("--reuse-interval", type=int, default=3, metavar="T", help="a key frame every T frames")

    add = _command(commands, "track", _track, "track a video, images or a webcam; write an MP4 and results.json")
    add("video", help='video file, folder of images in order of their names, pattern ("a/*.png"), or webcam (0)')
    add("--out", default="minst-track", help="folder of what is written")
    _tracker_arguments(add)
    add("--score-threshold", type=float, default=0.5, help="identities are shown from this score on, 0 to 1")
    add(
        "--size", type=int, default=None, metavar="N", help="shorter side of what the network sees (default: up to 480)"
    )
    add("--every", type=int, default=1, metavar="N", help="use every N-th frame")
    add("--max-frames", type=int, default=None, metavar="N", help="stop after N frames")
    add("--no-video", action="store_true", help="write results.json alone")

    add = _command(commands, "explore", _explore, "a page in the browser: click an object and watch its query")
    add("source", nargs="?", default="easy", help="shipped clip, video file, folder of images or in YouTube-VIS form")
    add("--weights", nargs="+", default=None, help="names or folders; several can be switched (default: all shipped)")
    add("--reuse-interval", type=int, default=3, metavar="T", help="a key frame every T frames, to begin with")
    add("--association", choices=("mask", "cosine"), default="mask", help="to begin with")
    add("--port", type=int, default=8866, help="where the page is served")
    add("--host", default="127.0.0.1", help="who can reach it: 127.0.0.1 is this machine alone")
    add("--no-browser", action="store_true", help="do not open a browser")

    add = _command(commands, "eval", _eval, "video AP, query consistency and identities on a YouTube-VIS data set")
    _data_arguments(add)
    _tracker_arguments(add)
    add("--results", default=None, metavar="FILE", help="judge this results file; no model is run")
    add("--videos", type=int, default=None, metavar="N", help="only the first N videos")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")

    add = _command(
        commands, "predict", _predict, "a results file for all videos, or images, of a data set; no labels needed"
    )
    _data_arguments(add)
    _tracker_arguments(add)
    add(
        "--size", type=int, default=None, metavar="N", help="shorter side of what the network sees (default: up to 480)"
    )
    add("--videos", type=int, default=None, metavar="N", help="only the first N videos, or images")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="cpu",
        help="under `accelerate launch` auto is what it says",
    )
    add("--out", default="results.json", metavar="FILE", help="the results file")

    add = _command(commands, "submit", _submit, "check a results file and pack it as the YouTube-VIS servers want it")
    add("results", help="results file of `minst predict`")
    add("--annotations", required=True, metavar="FILE", help="annotation file of the split; its labels may be withheld")
    add("--out", default="results.zip", metavar="FILE", help="the zip")
    add("--top", type=int, default=10, metavar="N", help="tracks of highest score kept a video")

    add = _command(
        commands, "train", _train, "train on shapes made on the fly, or on a folder; an interrupted run goes on"
    )
    if command == "train":
        _train_arguments(add)

    kinds = _group(commands, "data", "make data sets")
    add = _command(kinds, "shapes", _data_shapes, "write clips of moving creatures in YouTube-VIS or COCO form")
    add("--out", required=True, help="a new or empty folder")
    add("--videos", type=int, default=50, help="number of clips, or of images with --images")
    add("--frames", type=int, default=24, help="frames a clip")
    add("--size", type=_size, default=(256, 192), metavar="WxH", help="width x height in pixels (default: 256x192)")
    add("--seed", type=int, default=0, help="another seed, other clips")
    add("--split", choices=("train", "val", "test"), default="val", help="splits never share a clip, whatever the seed")
    add("--images", action="store_true", help="still images in COCO form in the place of clips")
    for knob, what in _KNOBS.items():
        add(f"--{knob}", type=float, default=1.0, help=what)
    add = _command(kinds, "check", _data_check, "every error of a data set, with file and entry; exit status 1 if any")
    _data_arguments(add)
    add("--fast", action="store_true", help="read only the headers of images: a file that is cut short goes unseen")
    add("--json", default=None, metavar="FILE", help="write all problems to this file, not the first of each kind")
    add = _command(kinds, "preview", _data_preview, "a sheet of videos or images with masks, identities, categories")
    _data_arguments(add)
    add("--videos", type=int, default=12, metavar="N", help="videos, or images, on the sheet")
    add("--out", default="preview.png", metavar="FILE", help="the sheet: .png, .pdf or .svg")
    add = _command(kinds, "split", _data_split, "a local train / valid split by video; its hash is recorded")
    add("annotations", help="annotation file in YouTube-VIS or COCO form, with labels")
    add("--val", type=float, default=0.1, help="share of videos (images) of the validation side, within 0 and 1")
    add("--seed", type=int, default=0, help="another seed, another split")
    add("--out", default="minst-split", metavar="DIR", help="folder of train.json, valid.json and split.json")
    add("--verify", default=None, metavar="FILE", help="compare with the split of this split.json; nothing is written")
    add = _command(kinds, "convert", _data_convert, "other tools' annotations to YouTube-VIS form, and to indexed PNGs")
    add("source", help="file or folder; with --to davis a folder in YouTube-VIS form")
    formats = ("coco", "labelme", "cvat", "mots", "davis")
    add("--from", choices=formats, default=None, dest="format", help="what it is (default: guessed)")
    add("--to", choices=("ytvis", "davis"), default="ytvis", help="what is written")
    add("--out", required=True, help="a new or empty folder")
    add("--images", default=None, metavar="DIR", help="where the images are (cvat: or the video), if not beside it")
    add("--split", default=None, help="of the folder, with --to davis")

    _command(commands, "env", _env, "versions, processor, XNNPACK; what is missing and the command that installs it")

    add = _command(commands, "summary", _summary, "parameters and multiply-accumulates of every part of a model")
    _model_arguments(commands.choices["summary"])
    add("--size", type=_size, default=(640, 640), metavar="WxH", help="width x height of the frame (default: 640x640)")

    add = _command(commands, "export", _export, "write the programs that a device runs, each compared with PyTorch")
    add("--weights", default="shapes-tiny", help="shipped weights by name, or a folder that save_pretrained wrote")
    add("--format", default="lite", help="lite (.ptl), torchscript (.pt), executorch (.pte) or onnx (.onnx)")
    add("--out", default="minst-export", help="folder of what is written: key.*, reuse.*, ...")
    add("--size", type=_size, default=(256, 192), metavar="WxH", help="width x height of the frames (default: 256x192)")
    add("--part", default="full", help="full (the tracker's two: key, reuse), features, or masks")

    kinds = _group(commands, "bench", "measure times: on this machine, on a phone, in a browser")
    add = _command(kinds, "latency", _bench_latency, "milliseconds a frame, stage by stage, fused and not, T = 1, 3, 6")
    _model_arguments(kinds.choices["latency"])
    add("--size", type=_size, default=(640, 640), metavar="WxH", help="width x height of the frame (default: 640x640)")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--frames", type=int, default=30, help="frames measured")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")
    add = _command(kinds, "mobile", _bench_mobile, "eager, TorchScript, lite, ExecuTorch and ONNX Runtime in one table")
    add("--models", nargs="+", default=None, help="presets (default: topformer-tiny, -small and -base)")
    add("--weights", default=None, help="shipped weights by name, or a folder, in place of --models")
    add("--sizes", nargs="+", type=int, default=[320, 512, 640], help="sides of square frames, in pixels")
    add("--runtimes", nargs="+", default=None, help="eager, fused, torchscript, lite, executorch, onnx (default: all)")
    add("--rounds", type=int, default=20, help="frames measured, all runtimes in turns")
    add("--programs", default=None, metavar="DIR", help="keep the exported programs here for the next run")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")
    add("--out", default=None, metavar="FILE", help="draw the table into this PNG")
    add = _command(
        kinds, "layers", _bench_layers, "MACs, parameters, bytes and time of every layer, and this core's roofline"
    )
    _model_arguments(kinds.choices["layers"])
    add("--size", type=_size, default=(256, 192), metavar="WxH", help="width x height of the frame (default: 256x192)")
    add("--rounds", type=int, default=15, help="frames measured")
    add("--json", default=None, metavar="FILE", help="write the table and the core's peak to this file")
    add("--out", default=None, metavar="DIR", help="draw layers.png and roofline.png into this folder")
    add = _command(kinds, "lite", _bench_lite, "a .ptl with our benchmarker on libtorch, compiled when first used")
    add("model", help="a file of `minst export --format lite`")
    add("--warmup", type=int, default=10, help="runs not counted")
    add("--iter", type=int, default=50, dest="iterations", help="runs measured")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--log", default=None, metavar="FILE", help="keep its log, which `minst bench parse` reads")
    add = _command(kinds, "phone", _bench_phone, "a .ptl or .pte on one core of a phone")
    add("model", help="a file of `minst export --format lite` or `--format executorch`")
    add("--adb", action="store_true", help="reach the phone by adb (USB); so far the only way there is")
    add("--dry-run", action="store_true", help="print the commands; needs neither adb nor a phone")
    add("--binary", default=None, metavar="FILE", help="the benchmarker, built for the phone")
    add("--runner", default=None, help="speed_benchmark_torch or executor_runner (default: what the model asks for)")
    add("--serial", default=None, help="which phone, as `adb devices` names it")
    add("--core", type=int, default=None, help="which core (default: the one with the highest clock)")
    add("--warmup", type=int, default=5, help="runs not counted")
    add("--iter", type=int, default=50, dest="iterations", help="runs measured in a round")
    add("--rounds", type=int, default=3, help="rounds, with a pause between")
    add("--cooldown", type=int, default=30, dest="cooldown_s", metavar="SECONDS", help="the pause")
    add("--logs", default=None, metavar="DIR", help="keep the logs of the rounds here")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")
    add = _command(
        kinds, "parse", _bench_parse, "the log of speed_benchmark_torch or executor_runner as median, p95, spread"
    )
    add("log", help="a file, or - for what comes in")
    add("--warmup", type=int, default=5, help="first runs of executor_runner that are not counted")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")
    add = _command(kinds, "web", _bench_web, "a page on which the visitor's own browser runs the tracker and is timed")
    add("--weights", default="shapes-tiny", help="shipped weights by name, or a folder that save_pretrained wrote")
    add(
        "--programs",
        default=None,
        metavar="DIR",
        help="key.onnx and reuse.onnx of `minst export`, in place of --weights",
    )
    add("--sample", default="easy", help="name of a shipped clip")
    add("--size", type=_size, default=None, metavar="WxH", help="width x height of the frames (default: the clip's)")
    add("--reuse-interval", type=int, default=3, metavar="T", help="a key frame every T frames, to begin with")
    add("--association", choices=("mask", "cosine"), default="mask", help="to begin with")
    add("--port", type=int, default=8867, help="where the page is served")
    add(
        "--host",
        default="127.0.0.1",
        help="who can reach it: 127.0.0.1 is this machine alone, 0.0.0.0 the whole network",
    )
    add("--assets", default=None, metavar="DIR", help="folder with onnxruntime-web, for networks without internet")
    add("--browser", action="store_true", help="open the page here")
    add = _command(kinds, "data", _bench_data, "clips made a second against clips trained on a second")
    add("--threads", type=int, default=1, help="CPU threads of the network")
    add("--batches", type=int, default=20, help="batches measured")
    add("--json", default=None, metavar="FILE", help="write all figures to this file")

    kinds = _group(commands, "lab", "the ablation lab: the paper's claims, shown again at a laptop's scale")
    add = _command(kinds, "run", _lab_run, "train and measure runs of the grid; skips what is done, goes on after Ctrl-C")
    add("names", nargs="*", metavar="NAME", help="variants (default: all; `minst lab list` names them)")
    add("--seeds", type=int, default=None, metavar="N", help="seeds 0 to N - 1 of each (default: 3; with --smoke: 1)")
    add("--smoke", action="store_true", help="a budget of seconds a run, to see that all works; its figures mean nothing")
    add("--out", default=None, metavar="DIR", help="folder of the lab (default: runs/lab; with --smoke: runs/lab-smoke)")
    add("--jobs", type=int, default=None, metavar="N", help="runs at a time (default: 2 on a CPU, 8 on an accelerator)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it trains")
    add = _command(kinds, "report", _lab_report, "tables (Markdown, CSV) and plots from the metrics of a lab's runs")
    add("folder", nargs="?", default="runs/lab", metavar="DIR", help="folder of the lab")
    add("--out", default=None, metavar="DIR", help="where the report goes (default: DIR/report)")
    add("--no-plots", action="store_true", help="tables alone")
    _command(kinds, "list", _lab_list, "the variants of the grid, and what the paper says of each")
    return parser


# ---------------------------------------------------------------------------------------------- the commands


def _demo(arguments: argparse.Namespace) -> None:
    from minst.demo import run_demo

    run_demo(**_named(arguments, "out", "sample", "reuse_interval"))


def _track(arguments: argparse.Namespace) -> int | None:
    from minst.applications import track_video

    names = ("out", "weights", "reuse_interval", "association", "score_threshold", "size", "every", "max_frames")
    said = track_video(arguments.video, **_named(arguments, *names), video=not arguments.no_video)
    if said["interrupted"]:
        print("stopped by Ctrl-C; what was tracked so far is written, complete")
    print(f"{said['frames']} frames, {len(said['tracks'])} tracks, {said['ms_per_frame']:.1f} ms a frame")
    _print_table([("track", "category", "score", "frames"), *(tuple(t.values()) for t in said["tracks"])])
    print("written: " + ", ".join(str(path) for path in (said["video"], said["results"]) if path))
    return 130 if said["interrupted"] else None


def _explore(arguments: argparse.Namespace) -> None:
    from minst.samples import weights_names
    from minst.visualize.recording import Settings
    from minst.visualize.serve import serve

    settings = Settings(arguments.reuse_interval, arguments.association)
    weights = arguments.weights or weights_names()
    serve(arguments.source, weights, settings, arguments.port, arguments.host, not arguments.no_browser)


def _eval(arguments: argparse.Namespace) -> None:
    from minst.evaluation.run import evaluate_folder, write_figures

    if arguments.results:
        from minst.data.layouts import find_annotations
        from minst.evaluation.submission import evaluate_results

        gt = arguments.annotations or find_annotations(arguments.folder, arguments.split)
        figures = evaluate_results(gt, arguments.results)
    else:
        chosen = _named(arguments, "weights", "reuse_interval", "association", "videos")
        where = {key: value for key, value in _named(arguments, "split", "annotations").items() if value}
        figures = evaluate_folder(arguments.folder, **chosen, **where)
    _print_table(_numbers(figures))
    for part in ("identity", "tracking"):
        if "note" in figures.get(part, ()):
            print(f"note: {figures[part]['note']}")
    if arguments.json:
        write_figures(figures, arguments.json)
        print(f"written: {arguments.json}")


def _predict(arguments: argparse.Namespace) -> None:
    from minst.evaluation.submission import write_results
    from minst.prediction import gathered, predict_folder
    from minst.processes import join

    engine = join(arguments.device)
    names = ("weights", "reuse_interval", "association", "split", "annotations", "size", "videos")
    entries = gathered(engine, predict_folder(arguments.folder, **_named(arguments, *names), engine=engine))
    if not engine.rank:
        print(
            f"written: {arguments.out}, {write_results(entries, arguments.out)} entries, one for each class of a mask"
        )


def _submit(arguments: argparse.Namespace) -> None:
    from minst.evaluation.submission import write_submission

    said = write_submission(**_named(arguments, "results", "annotations", "out", "top"))
    rows = [("videos", said["videos"]), ("without any track", said["videos_without_tracks"])]
    rows += [("tracks kept", said["kept"]), ("tracks dropped", said["dropped"]), ("size", f"{said['bytes']:,} bytes")]
    _print_table(rows)
    print(f"written: {said['file']}")


def _train(arguments: argparse.Namespace) -> None:
    from minst.recipes import recipe
    from minst.training import TrainConfig, train

    given = {f.name: vars(arguments)[f.name] for f in dataclasses.fields(TrainConfig) if f.name in vars(arguments)}
    print(f"weights: {train(recipe(arguments.config, **given), resume=not arguments.restart)}")


def _data_shapes(arguments: argparse.Namespace) -> None:
    from minst.data.shapes import ShapesConfig, write_shapes_dataset

    width, height = arguments.size
    config = ShapesConfig(width=width, height=height, **_named(arguments, "frames", *_KNOBS))
    path = write_shapes_dataset(arguments.out, config=config, **_named(arguments, "videos", "seed", "split", "images"))
    print(f"written: {path}")


def _data_check(arguments: argparse.Namespace) -> int:
    from minst.labels.check import check_dataset

    report = check_dataset(**_named(arguments, "folder", "split", "annotations"), read_images=not arguments.fast)
    print(report)
    if arguments.json:
        report.save(arguments.json)
        print(f"written: {arguments.json}")
    return int(bool(report.errors))


def _data_preview(arguments: argparse.Namespace) -> None:
    from minst.visualize import preview_dataset, save

    fig = preview_dataset(**_named(arguments, "folder", "split", "annotations"), count=arguments.videos)
    print(f"written: {save(fig, arguments.out)}")


def _data_split(arguments: argparse.Namespace) -> int | None:
    from minst.labels.split import split_annotations, verify_split

    if arguments.verify:
        same = verify_split(arguments.verify, arguments.annotations)
        _print_table([(name, "the same" if value else "differs") for name, value in same.items()])
        return int(not all(value for name, value in same.items() if name != "source"))
    record = split_annotations(**_named(arguments, "annotations", "out", "val", "seed"))
    _print_table([(side, *(f"{key} {record[side][key]}" for key in record[side])) for side in ("train", "valid")])
    for side, names in record["missing"].items():
        if names:
            print(f"note: no instance in {side}: {', '.join(names)}")
    print(f"written: {Path(arguments.out) / 'split.json'}, beside train.json and valid.json")


def _data_convert(arguments: argparse.Namespace) -> None:
    from minst.labels.convert import convert, to_indexed_png

    if arguments.to == "davis":
        if arguments.format or arguments.images:
            raise ValueError("data convert --to davis reads YouTube-VIS form; --from and --images are not for it")
        written = to_indexed_png(arguments.source, arguments.out, arguments.split, print)
    else:
        if arguments.split:
            raise ValueError("data convert: --split goes with --to davis; name the file of the split as the source")
        written = convert(arguments.source, arguments.out, progress=print, **_named(arguments, "format", "images"))
    print(f"written: {written}")


def _env(arguments: argparse.Namespace) -> None:
    from minst.environment import environment, report

    print(report(environment()))


def _summary(arguments: argparse.Namespace) -> None:
    from minst.macs import summary
    from minst.model import MobileInst, MobileInstConfig

    if arguments.weights:
        model = MobileInst.from_pretrained(arguments.weights)
    else:
        model = MobileInst(MobileInstConfig.preset(arguments.preset or "topformer-tiny"))
    width, height = arguments.size
    counted = summary(model, (height, width))
    rows = [(part, f"{n['params']:,}", f"{n['macs'] / 1e9:.3f} G") for part, n in counted.items()]
    _print_table([("part", "parameters", f"MACs at {width}x{height}"), *rows])


def _export(arguments: argparse.Namespace) -> None:
    from minst.mobile.export import export

    export(**_named(arguments, "weights", "format", "out", "part"), size=arguments.size[::-1], progress=print)


def _bench_latency(arguments: argparse.Namespace) -> None:
    from minst.mobile.benchmark import bench_latency

    chosen = _named(arguments, "preset", "weights", "threads", "frames")
    bench_latency(size=arguments.size[::-1], json_path=arguments.json, **chosen)


def _bench_mobile(arguments: argparse.Namespace) -> None:
    from minst.mobile.compare import RUNTIMES, bench_mobile

    chosen = _named(arguments, "sizes", "rounds", "weights")
    runtimes = arguments.runtimes or tuple(RUNTIMES)
    found = bench_mobile(
        arguments.models, runtimes=runtimes, json_path=arguments.json, programs_folder=arguments.programs, **chosen
    )
    if arguments.out:
        from minst.visualize import plot_latency, save

        save(plot_latency(found), arguments.out)
        print(f"written: {arguments.out}")


def _bench_layers(arguments: argparse.Namespace) -> None:
    from minst.mobile.roofline import bench_layers

    chosen = _named(arguments, "preset", "weights", "rounds", "out")
    bench_layers(size=arguments.size[::-1], json_path=arguments.json, **chosen)


def _bench_lite(arguments: argparse.Namespace) -> None:
    from minst.mobile.lite import bench_lite

    found = bench_lite(arguments.model, **_named(arguments, "warmup", "iterations", "threads"))
    _print_table([(found.pop("runner"), ""), *_numbers(found)])
    if arguments.log:
        Path(arguments.log).write_text(found["log"])
        print(f"written: {arguments.log}")


def _bench_phone(arguments: argparse.Namespace) -> None:
    from minst.mobile.phone import bench_phone

    if not (arguments.adb or arguments.dry_run):
        raise ValueError("bench phone: say --adb to run on the phone, or --dry-run to see the commands")
    names = ("runner", "binary", "serial", "core", "dry_run", "logs", "warmup", "iterations", "rounds", "cooldown_s")
    bench_phone(arguments.model, **_named(arguments, *names), json_path=arguments.json)


def _bench_parse(arguments: argparse.Namespace) -> None:
    from minst.mobile.logs import parse_log, report_log

    text = sys.stdin.read() if arguments.log == "-" else Path(arguments.log).read_text(errors="replace")
    parsed = parse_log(text, arguments.warmup)
    print(report_log(parsed))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(parsed, indent=1) + "\n")
        print(f"written: {arguments.json}")


def _bench_web(arguments: argparse.Namespace) -> None:
    from minst.mobile.serve import serve

    names = ("weights", "programs", "sample", "reuse_interval", "association", "port", "host", "assets")
    size = arguments.size and arguments.size[::-1]
    serve(**_named(arguments, *names), size=size, open_browser=arguments.browser)


def _bench_data(arguments: argparse.Namespace) -> None:
    from minst.mobile.benchmark import bench_data

    bench_data(**_named(arguments, "threads", "batches"), json_path=arguments.json)


def _lab_run(arguments: argparse.Namespace) -> int | None:
    from minst.lab.grid import FULL, SMOKE
    from minst.lab.runs import run_lab

    budget = SMOKE if arguments.smoke else FULL
    out = arguments.out or ("runs/lab-smoke" if arguments.smoke else "runs/lab")
    seeds = (1 if arguments.smoke else 3) if arguments.seeds is None else arguments.seeds
    try:
        runs = run_lab(arguments.names, seeds, out, budget, **_named(arguments, "jobs", "device"))
    except RuntimeError as error:  # some runs have failed; each has said why in its log
        return _complain(str(error), 1)
    print(f"{len(runs)} runs are done in {out}; `minst lab report {out}` compares them")


def _lab_report(arguments: argparse.Namespace) -> None:
    from minst.lab.report import write_report

    print(f"written: {write_report(arguments.folder, arguments.out, plots=not arguments.no_plots)}")


def _lab_list(arguments: argparse.Namespace) -> None:
    from minst.lab.grid import VARIANTS

    header = ("name", "what is changed", "group", "the paper")
    _print_table([header, *((v.name, v.says, v.group, v.paper) for v in VARIANTS.values())])


def _named(arguments: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(arguments, name) for name in names}


# ---------------------------------------------------------------------------------------------- arguments

_KNOBS = {
    "speed": "factor on all motion, 0 to 4",
    "occlusion": "how often paths are led across each other, 0 to 3",
    "crowding": "how many objects a clip has, 0 to 4",
    "clutter": "how many untracked things lie in the background, 0 to 4",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with complaints of one line and `--options` spelled out in full."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)

    def error(self, message: str) -> typing.NoReturn:
        sys.exit(_complain(f"{message} (see `{self.prog} --help`)", 2))


def _command(commands, name: str, run: typing.Callable, what: str) -> typing.Callable:
    """Add one command and return its `add_argument`."""
    parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(run=run)
    return parser.add_argument


def _group(commands, name: str, what: str):
    """Add a command that has commands of its own."""
    parser = commands.add_parser(name, help=what, description=what)
    return parser.add_subparsers(dest="what", metavar="WHAT", required=True)


def _data_arguments(add: typing.Callable) -> None:
    add("folder", help="folder of a data set in YouTube-VIS or COCO form")
    add("--split", default=None, help="train, valid, ... (default: the only annotation file, or train)")
    add("--annotations", default=None, metavar="FILE", help="the annotation file, when it lies elsewhere")


def _tracker_arguments(add: typing.Callable) -> None:
    add("--weights", default="shapes-tiny", help="shipped weights by name, or a folder that save_pretrained wrote")
    add("--reuse-interval", type=int, default=3, metavar="T", help="a key frame every T frames")
    add("--association", choices=("mask", "cosine"), default="mask", help="mask (ours) or cosine (as in the paper)")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--preset", choices=tuple(PRESETS), help="random weights (topformer-tiny if nothing is said)")
    which.add_argument("--weights", help="shipped weights by name, or a folder that save_pretrained wrote")


def _train_arguments(add: typing.Callable) -> None:
    """--config, --restart, and one argument for every field of TrainConfig; what is not said is left to the recipe."""
    from minst.recipes import RECIPES
    from minst.training import TrainConfig

    add("--config", choices=tuple(RECIPES), default="shapes", help="recipe: the values of what is not said otherwise")
    add("--restart", action="store_true", help="start anew, over a run that is already in the folder")
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        kind = {"action": argparse.BooleanOptionalAction} if types[field.name] is bool else {"type": types[field.name]}
        text = f"{field.metadata['help']} (default: {field.default})".replace("%", "%%")
        add(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **kind)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 256x192")
    return int(match[1]), int(match[2])


# ---------------------------------------------------------------------------------------------- output


def _complain(message: str, status: int) -> int:
    print("minst: " + " ".join(message.split()), file=sys.stderr)
    return status


def _numbers(figures: dict, prefix: str = "", depth: int = 2) -> list[tuple[str, str]]:
    """The numbers of a nested dict as rows (name, value); per category, per video and deeper ones stay in the JSON."""
    rows = []
    for name, value in figures.items():
        if isinstance(value, dict) and depth and not str(name).startswith("per_"):
            rows += _numbers(value, f"{prefix}{name} ", depth - 1)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append((f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows


def _print_table(rows: Sequence[tuple]) -> None:
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    texts = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for first, *others in texts:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        print("  ".join(cells).rstrip())
