"""Is a model of photographs good enough to ship? Held-out photographs and films, in one command.

    python data_samples/photos_prepare.py --from PHOTOS --out FOLDER
    python tests/benchmarks/photos.py WEIGHTS --photos PHOTOS --data FOLDER --out OUT

    OUT/figures.json, OUT/table.md     every figure, and the gates of issue 19
    OUT/reliability.png                do scores mean what they say?
    OUT/sheets/<film>.png              20 frames of each film, to be looked at (never commit them)

AP            of masks, on the held-out photographs as the network sees them in training, of objects
              of any size, of more than 5 % and of more than 15 % of their image. Smaller ones are
              ignored as COCO ignores areas out of range. Detections of a score of 0.02 count.
              "shown" counts only images that hold the category, "all" also those without it.
false         Frames of films without a category that report it at the threshold, and photographs
              of none of the categories with a detection.
neighbours    Two instances of more than 5 % that come closer to each other than a fiftieth of the
              shorter side. Found: two different predictions at the threshold have an IoU of 0.5
              with one of them each, whatever their class. Merged: one prediction covers more than
              half of both.
calibration   A detection is right if COCO's matching at IoU 0.5 gives it an instance of its class.
              Precision by score in ten bins; the expected calibration error; the best threshold;
              and the monotone map from scores to precision, learned from one half of the images
              and tried on the other.
films         The tracker as `minst track` runs it. Names: how often a track's name changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from scipy.ndimage import distance_transform_edt
from scipy.optimize import isotonic_regression

from minst.data.coco import COCO
from minst.data.video import read_video, video_info
from minst.environment import commit
from minst.evaluation.coco import Evaluation, mean_of_known
from minst.model import MobileInst
from minst.predict import network_size, predict_folder, resized
from minst.results import FrameResult
from minst.tracking import KernelTracker
from minst.visualize.masks import draw_frame
from minst.visualize.style import BLUE, GREY, headline, new_figure, save

AREAS = {"all": 0.0, "> 5 %": 0.05, "> 15 %": 0.15}  # least share of the image
LEAST_SCORE = 0.02
THRESHOLD = 0.5  # of `minst track`
BINS = 10
CLOSE = 0.02  # of the shorter side
SHEET = (4, 5)  # columns, rows
# What is seen in the films, by the beginning of their names; in the others nothing that counts.
SHOWS = {"01_dog": ["dog", "person"], "webcam-pets-d2aea7": ["dog"], "webcam": ["cat"]}
WITH_PEOPLE = "05_default_juggle classroom face-demo one-by-one people-detection person-bicycle"
SHOWS |= {name: ["person"] for name in WITH_PEOPLE.split()}
GATES = {"cat": 0.75, "person": 0.45}  # AP50 of objects of more than 5 %
FALSE_GATE, NEIGHBOURS_GATE = 0.05, 0.6
TRIALS = {  # issue 19: on 296 held-out cat photographs of another split, in percent
    "trial: cats and dogs, DeepLab weights, 4.8 CPU minutes": (22.6, 58, 80),
    "trial: the same, 13.4 CPU minutes": (29.4, 66, 82),
}


# ------------------------------------------------------------------------------------ photographs


def shares_of(truth: dict, found: Iterable[dict]) -> tuple[list[dict], list[dict]]:
    """Annotations and detections whose `area` is a share of their image."""
    pixels = {image["id"]: image["height"] * image["width"] for image in truth["images"]}

    def entry(where: int, of: dict) -> dict:
        area = float(rle.area(of["segmentation"])) / pixels[of["image_id"]]
        return {**of, "id": where + 1, "where": str(where), "area": area}

    truths = [{"iscrowd": 0, **of} for of in truth["annotations"]]
    return tuple([entry(i, of) for i, of in enumerate(side)] for side in (truths, found))


def evaluated(truth: dict, truths: list[dict], found: list[dict], images: set[int]) -> Evaluation:
    """COCO's evaluation on some images, with `AREAS` for areas and at most 100 detections."""
    truths, found = [[of for of in side if of["image_id"] in images] for side in (truths, found)]
    shown = [image for image in truth["images"] if image["id"] in images]
    evaluation = Evaluation({**truth, "images": shown, "annotations": truths}, found)
    for entry, of in zip(evaluation.predictions, found):
        entry |= {"id": of["id"], "area": of["area"]}
    evaluation.params.areaRng = [[least, 1.0] for least in AREAS.values()]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.params.maxDets = [1, 10, 100]
    return evaluation.run()


def average_precisions(
    truth: dict, truths: list[dict], found: list[dict], images: set[int], category: str
) -> dict[str, dict]:
    """{area: {AP, AP50, instances}} of one category; -1 where nothing is to be found."""
    numbers = [entry["id"] for entry in truth["categories"]]
    names = [entry["name"] for entry in truth["categories"]]
    number = numbers[names.index(category)]
    precision = evaluated(truth, truths, found, images).precision[
        ..., sorted(numbers).index(number), :, 2
    ]  # (T, R, areas)
    areas = [
        of["area"]
        for of in truths
        if of["image_id"] in images and of["category_id"] == number and not of["iscrowd"]
    ]
    return {
        name: {
            "AP": mean_of_known(precision[..., a]),
            "AP50": mean_of_known(precision[0, :, a]),
            "instances": sum(area >= least for area in areas),
        }
        for a, (name, least) in enumerate(AREAS.items())
    }


def by_source(truth: dict, truths: list[dict], found: list[dict]) -> dict:
    """{category: {group of images: average_precisions}}."""
    groups: dict = {}
    for category in truth["categories"]:
        shown = {of["image_id"] for of in truths if of["category_id"] == category["id"]}
        of: dict[str, set[int]] = {"all": {image["id"] for image in truth["images"]}}
        of["shown"] = shown
        for image in truth["images"]:
            if image["id"] in shown:
                of.setdefault(image.get("source", "?"), set()).add(image["id"])
        groups[category["name"]] = {
            name: average_precisions(truth, truths, found, images, category["name"])
            | {"images": len(images)}
            for name, images in of.items()
            if images
        }
    return groups


def false_photographs(truth: dict, found: list[dict], threshold: float) -> dict:
    """Of the photographs without annotation, how many have a detection at the threshold."""
    shown = {of["image_id"] for of in truth["annotations"]}
    empty = {image["id"] for image in truth["images"]} - shown
    wrong = {of["image_id"] for of in found if of["score"] >= threshold} & empty
    return {"photographs": len(empty), "share": len(wrong) / max(len(empty), 1)}


def by_image(entries: Iterable[dict]) -> dict[int, list[dict]]:
    """{image: its entries}."""
    found = defaultdict(list)
    for entry in entries:
        found[entry["image_id"]].append(entry)
    return found


# ------------------------------------------------------------------------------------- neighbours


def gap(one: np.ndarray, other: np.ndarray) -> float:
    """The least distance of two masks (H, W) bool, in pixels; 0 where they overlap."""
    return float(distance_transform_edt(~one)[other].min())


def two_found(ious: np.ndarray) -> bool:
    """(P, 2) IoU of predictions and a pair: is each found, by a prediction of its own?"""
    first, second = (set(np.flatnonzero(ious[:, k] >= 0.5)) for k in (0, 1))
    return bool(first) and bool(second) and len(first | second) > 1


def neighbours(truth: dict, truths: list[dict], found: list[dict], threshold: float) -> dict:
    """How many pairs of close instances there are, and which share is found or merged."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    sure = by_image(of for of in found if of["score"] >= threshold)
    counts = {"pairs": 0, "two_found": 0, "merged": 0}
    for image, entries in by_image(of for of in truths if not of["iscrowd"]).items():
        large = [of for of in entries if of["area"] > 0.05]
        masks = [rle.decode(of["segmentation"]).astype(bool) for of in large]
        # A query may stand there once for each class: its mask counts once.
        codes = list(
            {of["segmentation"]["counts"]: of["segmentation"] for of in sure[image]}.values()
        )
        shown = [rle.decode(code).astype(bool) for code in codes]
        for i, one in enumerate(masks):
            for other in masks[:i]:
                if gap(one, other) > CLOSE * min(sizes[image]):
                    continue
                pair = np.stack([one, other]).reshape(2, -1).astype(float)
                said = np.reshape(shown, (len(shown), one.size)).astype(float)
                both = said @ pair.T  # (P, 2) pixels
                either = said.sum(1)[:, None] + pair.sum(1) - both
                counts["pairs"] += 1
                counts["two_found"] += two_found(both / either)
                counts["merged"] += bool((both / pair.sum(1) > 0.5).all(1).any())
    pairs = max(counts["pairs"], 1)
    return counts | {key + "_share": counts[key] / pairs for key in ("two_found", "merged")}


# ------------------------------------------------------------------------------------ calibration


def judged(evaluation: Evaluation) -> list[tuple[int, int, float, bool]]:
    """(id, image, score, right) of every detection that counts, at IoU 0.5 and any size."""
    found = []
    for entry in evaluation.evalImgs:
        if entry is None or entry["aRng"] != evaluation.params.areaRng[0]:
            continue
        matches, ignored = entry["dtMatches"][0], entry["dtIgnore"][0]
        rows = zip(entry["dtIds"], entry["dtScores"], matches, ignored)
        image = entry["image_id"]
        found += [(of, image, s, bool(m)) for of, s, m, ignore in rows if not ignore]
    return found


def reliability(scores: np.ndarray, right: np.ndarray) -> list[dict]:
    """Ten bins of scores: {score: the mean, precision, count}; empty bins are left out."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        {
            "score": float(scores[places == k].mean()),
            "precision": float(right[places == k].mean()),
            "count": int((places == k).sum()),
        }
        for k in range(BINS)
        if (places == k).any()
    ]


def calibration_error(rows: list[dict]) -> float:
    """The mean distance of score and precision, each bin weighted by its count."""
    total = sum(row["count"] for row in rows)
    return sum(row["count"] * abs(row["score"] - row["precision"]) for row in rows) / max(total, 1)


def best_threshold(scores: np.ndarray, right: np.ndarray, instances: int) -> dict:
    """The threshold of the highest F1, with its precision and recall."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + instances)
    best = int(f1.argmax())
    return {
        "threshold": float(scores[order[best]]),
        "F1": float(f1[best]),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / instances),
    }


def monotone_map(scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores in rising order and the precision that isotonic regression gives them."""
    order = np.argsort(scores, kind="stable")
    return scores[order], isotonic_regression(right[order].astype(float)).x


def calibration(evaluation: Evaluation, instances: int) -> dict:
    """Everything of the section; {} without detections."""
    found = judged(evaluation)
    if not found:
        return {}
    _, images, scores, right = (np.array(column) for column in zip(*found))
    rows = reliability(scores, right)
    odd = images % 2 == 1
    mapped = {}
    if odd.any() and not odd.all():
        known, precision = monotone_map(scores[odd], right[odd])
        others = reliability(np.interp(scores[~odd], known, precision), right[~odd])
        steps = [float(score) for score in np.linspace(0.05, 0.95, 19)]
        mapped = {
            "error_before": calibration_error(reliability(scores[~odd], right[~odd])),
            "error_after": calibration_error(others),
            "map": {f"{s:.2f}": float(np.interp(s, known, precision)) for s in steps},
        }
    sure = reliability(scores[scores >= 0.1], right[scores >= 0.1])
    return {
        "bins": rows,
        "error": calibration_error(rows),
        "error_from_0.1": calibration_error(sure),
        "best": best_threshold(scores, right, instances),
        "monotone": mapped,
    }


def reliability_picture(found: dict, title: str):
    """Precision of each bin beside its score."""
    figure = new_figure()
    axes = figure.place(0.7, 0.9, 4.2, 4.2, below=0.6)
    rows = found.get("bins", [])
    axes.plot([0, 1], [0, 1], color=GREY, lw=1)
    scores, precisions = ([row[key] for row in rows] for key in ("score", "precision"))
    axes.plot(scores, precisions, "o-", color=BLUE)
    for row in rows:
        axes.annotate(str(row["count"]), (row["score"], row["precision"]), xytext=(4, -11),
                      textcoords="offset points", fontsize=7, color=GREY)  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="precision at IoU 0.5")
    headline(figure, title, "on the line scores mean what they say; below it they promise too much")
    return figure


# ------------------------------------------------------------------------------------------ films


def name_changes(results: Sequence[FrameResult]) -> dict:
    """Of all steps from a frame to the next in which an identity is seen: does its name change?"""
    names: dict[int, int] = {}
    steps = changes = 0
    for result in results:
        for identity, label in zip(result.ids, result.labels):
            steps += identity in names
            changes += names.get(identity, label) != label
            names[identity] = label
    return {"identities": len(names), "steps": steps, "changes": changes}


def reported(results: Sequence[FrameResult], names: Sequence[str]) -> dict[str, float]:
    """{category, and "any": the share of frames in which it is reported}."""
    of_frames = [{names[label] for label in result.labels} for result in results]
    shares = {name: float(np.mean([name in of for of in of_frames])) for name in names}
    return {"any": float(np.mean([bool(of) for of in of_frames])), **shares}


def sheet(
    film: Path, results: Sequence[FrameResult], every: int, names: Sequence[str], width: int = 480
) -> Image.Image:
    """20 frames of a film with masks, identities, names and scores."""
    columns, rows = SHEET
    wanted = np.linspace(0, len(results) - 1, columns * rows).round().astype(int).tolist()
    cells = {}
    for t, image in enumerate(read_video(film)):
        if t % every or t // every not in wanted:
            continue
        result = results[t // every]
        size = result.segmentations[0]["size"] if result.ids else image.shape[:2]
        said = zip(result.ids, result.labels, result.scores)
        texts = [f"{i} {names[label]} {score:.2f}" for i, label, score in said]
        seen = resized(image, tuple(size))
        drawn = Image.fromarray(draw_frame(seen, result.masks()[: len(texts)], result.ids, texts))
        drawn = drawn.resize((width, round(width * image.shape[0] / image.shape[1])))
        ImageDraw.Draw(drawn).text((4, drawn.height - 14), f"frame {t}", fill="white")
        cells[t // every] = drawn
    height = next(iter(cells.values())).height
    whole = Image.new("RGB", (columns * (width + 4), rows * (height + 4)), "white")
    for place, t in enumerate(wanted):
        row, column = divmod(place, columns)
        whole.paste(cells[t], (column * (width + 4), row * (height + 4)))
    return whole


def films(
    model: MobileInst, paths: Iterable[Path], out: Path, threshold: float, every: int, most: int
) -> dict:
    """{film: what the tracker says of its first `most` frames}; a sheet of each is written."""
    names, found = model.config.class_names, {}
    # by masks, as `minst track` associates if nothing is said
    tracker = KernelTracker(model, association="mask", score_threshold=threshold)
    (out / "sheets").mkdir(parents=True, exist_ok=True)
    for path in paths:
        tracker.reset()
        results = []
        for t, image in enumerate(islice(read_video(path), most)):
            if t % every == 0:
                seen = resized(image, network_size(model, image.shape[:2]))
                results.append(tracker.step(seen))
        sheet(path, results, every, names).save(out / "sheets" / f"{path.stem}.png")
        found[path.stem] = {
            "frames": len(results),
            "of": video_info(path).frames,
            "shows": next((SHOWS[start] for start in SHOWS if path.stem.startswith(start)), []),
            "reported": reported(results, names),
            "names": name_changes(results),
        }
        print(path.stem, found[path.stem], flush=True)
    return found


def false_alarms(found: dict, category: str) -> dict:
    """In films without it: the share of frames that report it, as a mean of films and of frames.

    The webcam-like films, which are made of photographs, do not count.
    """
    of = {name: film for name, film in found.items() if not name.startswith("webcam")}
    of = {name: film for name, film in of.items() if category not in film["shows"]}
    if not of:
        return {}
    shares = {name: film["reported"][category] for name, film in of.items()}
    frames = [film["frames"] for film in of.values()]
    worst = max(shares, key=shares.get)
    return {
        "films": len(of),
        "mean": float(np.mean(list(shares.values()))),
        "all_frames": float(np.average(list(shares.values()), weights=frames)),
        "worst": [worst, shares[worst]],
    }


# ---------------------------------------------------------------------------------------- writing


def percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.1f}"


def ap_row(name: str, of: dict) -> str:
    cells = [percent(of["all"]["AP"])]
    cells += [f"{percent(of[area]['AP50'])} ({of[area]['instances']})" for area in AREAS]
    return f"| {name} | {of.get('images', '')} | " + " | ".join(cells) + " |"


def table(figures: dict) -> str:
    """What was measured, as Markdown, in percent."""
    heading = "| | images | AP | AP50, all (instances) | > 5 % | > 15 % |"
    lines = [heading, "|---|---|---|---|---|---|"]
    for category, groups in figures["photographs"].items():
        lines += [ap_row(f"{category}, {name}", of) for name, of in groups.items()]
    for category, of in figures.get("untrained", {}).items():
        lines.append(ap_row(f"{category}, untrained model, all", of["all"]))
    for name, (ap50, five, fifteen) in TRIALS.items():
        lines.append(f"| {name} | 296 | | {ap50} | {five} | {fifteen} |")
    near = figures["neighbours"][f"{figures['setting']['threshold']:.2f}"]
    empty = figures["false_photographs"]
    lines += ["", f"Photographs of none of the categories with a detection at the threshold: "
              f"{percent(empty['share'])} % of {empty['photographs']}."]  # fmt: skip
    lines.append(
        f"Neighbours: of {near['pairs']} pairs {percent(near['two_found_share'])} % are found as "
        f"two, {percent(near['merged_share'])} % are covered by one prediction. Found as two at "
        "other thresholds: "
        + ", ".join(
            f"{percent(of['two_found_share'])} % at {threshold}"
            for threshold, of in figures["neighbours"].items()
            if of is not near
        )
        + "."
    )
    if said := figures["calibration"]:
        best = said["best"]
        lines.append(
            f"Calibration: expected error {percent(said['error'])} points "
            f"({percent(said['error_from_0.1'])} for scores from 0.1 on). The threshold of the "
            f"highest F1 is {best['threshold']:.2f} (precision {percent(best['precision'])}, "
            f"recall {percent(best['recall'])})."
        )
        if mapped := said["monotone"]:
            lines.append(
                f"A monotone map, learned from one half of the images, takes the error on the "
                f"other from {percent(mapped['error_before'])} to "
                f"{percent(mapped['error_after'])} points."
            )
    if figures["films"]:
        lines += ["", "| film | frames | frames that report | identities | changes of name |"]
        lines.append("|---|---|---|---|---|")
        for name, of in figures["films"].items():
            says = ", ".join(f"{key} {percent(v)} %" for key, v in of["reported"].items())
            mark = f" (shows a {' and a '.join(of['shows'])})" if of["shows"] else ""
            changes = f"{of['names']['changes']} of {of['names']['steps']}"
            cells = [name + mark, of["frames"], says, of["names"]["identities"], changes]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| gate | wanted | measured | |", "|---|---|---|---|"]
    for name, gate in figures["gates"].items():
        sign = ">=" if gate["at_least"] else "<="
        verdict = "passed" if gate["passed"] else "FAILED"
        wanted, measured = percent(gate["wanted"]), percent(gate["measured"])
        lines.append(f"| {name} | {sign} {wanted} | {measured} | {verdict} |")
    return "\n".join(lines) + "\n"


def gates(figures: dict) -> dict:
    """Issue 19's gates that a machine can judge: {name: {wanted, measured, at_least, passed}}."""
    found = {}

    def gate(name: str, wanted: float, measured: float, at_least: bool = True) -> None:
        passed = measured >= wanted if at_least else measured <= wanted
        found[name] = {"wanted": wanted, "measured": measured, "at_least": at_least}
        found[name]["passed"] = bool(passed)

    for category, wanted in GATES.items():
        groups = figures["photographs"].get(category)
        # people are judged on COCO's photographs, whose instances are true ones
        group = groups and groups.get("coco" if category == "person" else "all")
        if group:
            gate(f"{category}: AP50 of objects > 5 %", wanted, group["> 5 %"]["AP50"])
    for category, of in figures["false_alarms"].items():
        if of:
            name = f"{category}: frames of films without one that report it"
            gate(name, FALSE_GATE, of["all_frames"], at_least=False)
            gate(name + ", mean of the films", FALSE_GATE, of["mean"], at_least=False)
    near = figures["neighbours"][f"{figures['setting']['threshold']:.2f}"]
    gate("neighbours stay two", NEIGHBOURS_GATE, near["two_found_share"])
    return found


def measure(
    weights: Path, data: Path, threshold: float, count: int | None, split: str = "valid"
) -> dict:
    """The figures of the held-out photographs, or of those to learn from."""
    dataset = COCO(data, split)
    truth = dict(dataset.dataset)
    truth["images"] = truth["images"][:count]
    images = {image["id"] for image in truth["images"]}
    truth["annotations"] = [of for of in truth["annotations"] if of["image_id"] in images]
    said = predict_folder(dataset, weights, score_threshold=LEAST_SCORE, videos=count)
    truths, found = shares_of(truth, list(said))
    evaluation = evaluated(truth, truths, found, images)
    instances = sum(not of["iscrowd"] for of in truths)
    return {
        "photographs": by_source(truth, truths, found),
        "false_photographs": false_photographs(truth, found, threshold),
        "neighbours": {
            f"{level:.2f}": neighbours(truth, truths, found, level)
            for level in sorted({0.2, 0.3, 0.4, 0.5, threshold})
        },
        "calibration": calibration(evaluation, instances),
    }


def untrained(weights: Path, data: Path, count: int | None, split: str) -> dict:
    """AP of the same network before it has learned anything, seed 0."""
    torch.manual_seed(0)
    learned = MobileInst.from_pretrained(weights)
    model = MobileInst(learned.config)
    model.trained_size = learned.trained_size
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return measure(Path(folder), data, THRESHOLD, count, split)["photographs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--photos", type=Path, required=True, help="holds clips/")
    parser.add_argument("--data", type=Path, required=True, help="of photos_prepare.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--films", type=Path, help="a folder of more films")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--every", type=int, default=1, help="only every n-th frame of a film")
    parser.add_argument("--most", type=int, default=10_000, help="frames of a film")
    parser.add_argument("--images", type=int, help="only the first so many photographs")
    parser.add_argument("--split", default="valid", help="train: what it has learned from")
    parser.add_argument("--only", choices=("photographs", "films"), help="leave the rest out")
    said = parser.parse_args()
    torch.set_num_threads(1)
    said.out.mkdir(parents=True, exist_ok=True)
    file = said.out / "figures.json"
    figures = json.loads(file.read_text()) if said.only and file.exists() else {}
    if said.only == "films" and "photographs" not in figures:
        parser.error(f"{file} holds no figures of photographs; measure these into {said.out} first")
    model = MobileInst.from_pretrained(said.weights).fuse()
    figures["setting"] = {
        "weights_sha256": hashlib.sha256(
            (said.weights / "model.safetensors").read_bytes()
        ).hexdigest(),
        "data_sha256": hashlib.sha256((said.data / "images.tsv").read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_size": model.trained_size,
        "threshold": said.threshold,
        "every": said.every,
        "most": said.most,
        "images": said.images,
        "split": said.split,
        "commit": commit(),
        "torch": torch.__version__,
    }
    if said.only != "films":
        figures |= measure(said.weights, said.data, said.threshold, said.images, said.split)
        figures["untrained"] = untrained(said.weights, said.data, said.images, said.split)
        which = "held-out photographs" if said.split == "valid" else f"the split {said.split}"
        title = f"{said.weights.resolve().name}: scores on {which}"
        save(reliability_picture(figures["calibration"], title), said.out / "reliability.png")
    if said.only != "photographs":
        paths = sorted((said.photos / "clips").iterdir())
        paths += sorted(said.films.iterdir()) if said.films else []
        figures["films"] = films(model, paths, said.out, said.threshold, said.every, said.most)
    figures.setdefault("films", {})
    names = model.config.class_names
    figures["false_alarms"] = {name: false_alarms(figures["films"], name) for name in names}
    figures["gates"] = gates(figures)
    file.write_text(json.dumps(figures, indent=1) + "\n")
    (said.out / "table.md").write_text(table(figures), encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
