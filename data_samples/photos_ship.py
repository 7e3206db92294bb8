"""From a trained model of photographs to `weights/photos-tiny` of this folder, with its model card.

    python data_samples/photos_ship.py mean PART1 PART2 MEAN       if it measures better than both
    python data_samples/photos_ship.py half RUN/weights HALF       floats of 16 bits, as they ship
    python tests/benchmarks/photos.py HALF --photos PHOTOS --data FOLDER --films FILMS --out OUT
    python tests/benchmarks/photos_speed.py HALF --out OUT/speed.json
    (look at OUT/sheets, count, and write OUT/counts.tsv by hand)
    python data_samples/photos_ship.py ship HALF --run RUN [RUN ...] --figures OUT --data FOLDER
    python data_samples/make_samples.py --sums

What is measured are the numbers that ship: `ship` refuses figures of other weights, and weights
that fail the gate for cats. With `--only-card` nothing is shipped, and the card is printed.
`--note` adds to the card what the runs do not say, as that the weights are a mean.

counts.tsv has the columns film, thing, seen, named, same, note: of 20 frames of a film, in how many
a human sees the thing, in how many it has a mask and the right name, and in how many the identity
that it has most often. Its first line is a comment that says who counted when, and the first eight
digits of the SHA-256 of the weights. A note that begins with "far" marks a thing of less than about
a fiftieth of the picture; shares are given with and without these.

No training image ships: `images.tsv` lists their names and hashes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SAME_GATE = 0.8  # of the frames in which a human sees the thing

CARD = """# photos-tiny

A MobileInst that finds {classes} in photographs and films: {parameters:.1f} million parameters,
{megabytes:.1f} MB, trained by us from a public backbone. Its weights are Apache-2.0, as the code.

## What it learned from

{trained} photographs, {held} more were held out. No image ships, `images.tsv` lists names, hashes
and halves. Licences are given as their sources state them:

{sources}

The backbone began as a MobileNetV2 out of a public quantised DeepLab (Apache-2.0), trained on VOC
and COCO. Which half a photograph belongs to is decided by the hash of its name. {left_out}
photographs to learn from were left out, since a perceptual hash finds a near-duplicate in the
held-out half. VOC's masks join persons who touch, and `cats` and `pets` label none. So all of them
were looked at: `photos_people.tsv`, two folders up, says which parts are one person each.

Arguments and logs of the training lie beside this file: {runs}.{note}

## How good it is

On {images} held-out photographs, as the network sees them in training, in percent. In brackets
stands how many instances there are. "All" are all held-out photographs, "shown" those that hold the
category, and then follow those of one source.

{table}

The threshold is {threshold:.2f}: name it, as in `minst track --score-threshold {threshold:.2f}`.
`reliability.png` shows whether scores mean what they say. They were calibrated on every other
held-out photograph, by a scale and a shift of each logit (`tests/benchmarks/photos_calibrate.py`);
`calibrate.txt` has the figures of the others alone. `metrics.json` holds every figure.

{speed}

## Counted by hand

Of 20 frames of each film: in how many a human sees the thing, in how many the model reports it with
the right name, and in how many of them it has the identity that it has most often.

{counts}

## What it fails at

- **Crowds.** Of several that touch, one mask often covers two: see the neighbours above.
- **Far objects.** What is smaller than a twentieth of the picture is mostly missed: compare the
  columns of all objects and of large ones.
- **Who is who.** A person who comes where another has just left may get that one's identity.
- **Night**, blur and unusual views. The training has next to no such photographs.
- **Other animals and soft toys.** It knows {classes} and nothing else, so that what looks like one
  of them may be called so. See the films without one above.

It must not be used to judge people, nor to recognise them, and not where a mistake may harm
somebody. What the photographs show, and what they do not, comes from the sources: pets and strays
of the web, and the people of two data sets of Flickr's photographs, mostly in daylight.
"""


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def half(source: Path, out: Path) -> None:
    """The same model with floats of 16 bits."""
    from minst.model import MobileInst

    MobileInst.from_pretrained(source).save_pretrained(out, torch.float16)


def mean(one: Path, other: Path, out: Path) -> None:
    """The mean of two parts of one training, number by number, at the size of the second."""
    from minst.model import MobileInst

    first, model = (MobileInst.from_pretrained(folder) for folder in (one, other))
    ours, theirs = first.state_dict(), model.state_dict()
    said = {k: (v + ours[k]) / 2 if v.is_floating_point() else v for k, v in theirs.items()}
    model.load_state_dict(said)
    model.save_pretrained(out)


def read_counts(file: Path) -> list[dict]:
    """The rows of counts.tsv, numbers as int; none where the file is missing."""
    if not file.is_file():
        return []
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t"))
    for row in rows:
        row |= {key: int(row[key]) for key in ("seen", "named", "same")}
        if not 0 <= row["same"] <= row["named"] <= row["seen"] <= 20:
            raise ValueError(f"{file}: {row['film']}: same <= named <= seen <= 20 does not hold")
    return rows


def counts_table(rows: list[dict]) -> str:
    """Markdown, and the share that the gate asks for."""
    lines = ["| film | thing | seen | named | same identity | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (row[key] for key in ("film", "thing", "seen", "named", "same", "note"))
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    if not rows:
        return "Nothing was counted."
    near = [row for row in rows if not row["note"].startswith("far")] or rows
    shares = [sum(row["same"] for row in of) / sum(row["seen"] for row in of) for of in (rows, near)]
    verdict = "passed" if shares[0] >= SAME_GATE else "FAILED"
    said = (
        f"The identity stays in {100 * shares[0]:.0f} % of the frames in which it is seen (gate: "
        f"{100 * SAME_GATE:.0f} %, {verdict}), and in {100 * shares[1]:.0f} % of those without what "
        "is far."
    )
    return "\n".join(lines) + f"\n\n{said}"


def speed_table(speed: dict) -> str:
    """What photos_speed.py measured, as a sentence for each."""
    if not speed:
        return ""
    height, width = speed["setting"]["frame"]
    lines = [
        f"On one core of {speed['setting']['machine']}, frames of {width} x {height}, one run:"
    ]
    lines += ["", "| | frames a second | times of ours |", "|---|---|---|"]
    for name, of in speed["models"].items():
        lines.append(f"| {name} | {1000 / of['ms']:.0f} | {of['ratio']:.2f} |")
    lines += ["", "| | million parameters | GMACs | MB held at most |", "|---|---|---|---|"]
    for name, of in speed["sizes"].items():
        cells = f"{of['parameters'] / 1e6:.2f}", f"{of['giga_macs']:.2f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {of['memory']['peak']:.0f} |")
    return "\n".join(lines)


def sources_of(images: str) -> tuple[str, dict[str, int]]:
    """Markdown list of the sources with their counts, from images.tsv; {split: images}."""
    rows = [line.split("\t") for line in images.splitlines() if not line.startswith("#")][1:]
    said = [line[2:].partition(": ") for line in images.splitlines() if line.startswith("#")]
    lines, splits = [], {}
    for name, _, words in said:
        mine = [row for row in rows if row[0] == name]
        what, licence = words.split("; ", 1)
        train, valid = (sum(row[3] == s for row in mine) for s in ("train", "valid"))
        lines.append(f"- **{name}**, {what}: {train} and {valid} held out. Licence: {licence}.")
    for row in rows:
        splits[row[3]] = splits.get(row[3], 0) + 1
    return "\n".join(lines), splits


def card(weights: Path, figures: Path, data: Path, runs: list[Path], note: str = "") -> str:
    """The model card, from what was measured."""
    found = json.loads((figures / "figures.json").read_text())
    speed = figures / "speed.json"
    names = json.loads((weights / "config.json").read_text())["class_names"]
    plural = [f"{name}s" for name in names]
    sources, splits = sources_of((data / "images.tsv").read_text())
    logs = [f"`{name}`" for i in range(len(runs)) for name in run_files(i, len(runs))]
    return CARD.format(
        classes=" and ".join(filter(None, [", ".join(plural[:-1]), plural[-1]])),
        parameters=found["setting"]["parameters"] / 1e6,
        megabytes=(weights / "model.safetensors").stat().st_size / 1e6,
        trained=splits["train"],
        held=splits["valid"],
        left_out=splits.get("left out", 0),
        sources=sources,
        runs=", ".join(logs),
        note=f"\n{note}" if note else "",
        threshold=found["setting"]["threshold"],
        images=next(iter(found["photographs"].values()))["all"]["images"],
        table=(figures / "table.md").read_text().strip(),
        speed=speed_table(json.loads(speed.read_text()) if speed.is_file() else {}),
        counts=counts_table(read_counts(figures / "counts.tsv")),
    )


def run_files(number: int, of: int) -> tuple[str, str]:
    """How arguments and log of a part of the training are called, as beside shapes-tiny."""
    part = "" if number == of - 1 else f"-{number + 1}"
    return f"train{part}.json", f"log{part}.jsonl"


def ship(
    weights: Path, figures: Path, data: Path, runs: list[Path], out: Path, note: str = ""
) -> None:
    """Write `out`; ValueError where the figures are of other weights, or the gate is not passed."""
    found = json.loads((figures / "figures.json").read_text())
    if found["setting"]["weights_sha256"] != sha256(weights / "model.safetensors"):
        raise ValueError(f"{figures} holds figures of other weights than {weights}; measure again")
    if found["setting"].get("split", "valid") != "valid":
        raise ValueError(f"{figures} is of photographs to learn from; measure the held-out ones")
    if found["setting"]["data_sha256"] != sha256(data / "images.tsv"):
        raise ValueError(f"{figures} was measured on other data than {data}")
    if not found["gates"].get("cat: AP50 of objects > 5 %", {}).get("passed"):
        raise ValueError("the gate for cats is not passed: nothing ships")
    out.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(weights / file, out / file)
    for number, run in enumerate(runs):
        arguments, log = run_files(number, len(runs))
        said = json.loads((run / "train.json").read_text())
        # a path of this machine tells nobody anything but its last part
        said = {key: Path(v).name if str(v).startswith("/") else v for key, v in said.items()}
        (out / arguments).write_text(json.dumps(said, indent=1) + "\n")
        shutil.copyfile(run / "log.jsonl", out / log)
    shutil.copyfile(figures / "figures.json", out / "metrics.json")
    shutil.copyfile(data / "images.tsv", out / "images.tsv")
    for file in ("calibrate.txt", "counts.tsv", "reliability.png", "speed.json"):
        if (figures / file).is_file():
            shutil.copyfile(figures / file, out / file)
    text = card(weights, figures, data, runs, note)
    (out / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    first = what.add_parser("half")
    first.add_argument("weights", type=Path)
    first.add_argument("out", type=Path)
    between = what.add_parser("mean")
    for name in ("one", "other", "out"):
        between.add_argument(name, type=Path)
    second = what.add_parser("ship")
    second.add_argument("weights", type=Path)
    second.add_argument("--run", type=Path, nargs="+", required=True, help="parts, in their order")
    second.add_argument("--figures", type=Path, required=True)
    second.add_argument("--data", type=Path, required=True)
    second.add_argument("--note", default="", help="what the card says of how they came about")
    second.add_argument("--out", type=Path, default=HERE / "weights" / "photos-tiny")
    second.add_argument("--only-card", action="store_true", help="print the card, write nothing")
    said = parser.parse_args()
    if said.what == "half":
        half(said.weights, said.out)
    elif said.what == "mean":
        mean(said.one, said.other, said.out)
    elif said.only_card:
        print(card(said.weights, said.figures, said.data, said.run, said.note))
    else:
        ship(said.weights, said.figures, said.data, said.run, said.out, said.note)
        print(f"written: {said.out}; now `python data_samples/make_samples.py --sums`")


if __name__ == "__main__":
    main()
