"""Films as from a webcam in the hand, made of held-out photographs, with their truth.

    python tests/benchmarks/photos_webcam.py --data FOLDER --out OUT [--photographs a,b --frames 90]

FOLDER is one of `photos_prepare.py`. Of each photograph of its held-out half that is named (by the
beginning of its name) comes

    OUT/films/webcam-<name>.mp4                 for `minst track`, and `photos.py --films OUT/films`
    OUT/truth/annotations.json, JPEGImages/     the same frames and masks, in YouTube-VIS form

    python tests/benchmarks/photos_webcam.py --image cat.png --out OUT     one film of any picture

The hand wanders and trembles, the lens zooms a little, exposure drifts, the sensor is noisy, and a
dark bar passes once in front. Nothing in the picture moves by itself: an easy film, in which
identities have no excuse. Never commit these films: the photographs are not ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from minst.data.coco import COCO
from minst.data.video import write_mp4
from minst.rle import encode

SIZE = (240, 320)  # height, width
FPS = 15
CHOSEN = "pets-5f8452,pets-d2aea7,cats-c5e88c,cats-4c2896"


def wander(random: np.random.Generator, frames: int, slow: float, tremble: float) -> np.ndarray:
    """(frames,) offsets: three slow waves of about `slow` in all, and trembling."""
    t = np.arange(frames)
    waves = sum(
        np.sin(2 * np.pi * (t / period + random.random())) for period in random.uniform(40, 150, 3)
    )
    shaking = np.convolve(random.normal(0, tremble, frames + 4), np.ones(5) / 5, "valid")
    return slow * waves / 3 + shaking


def views(random: np.random.Generator, size: tuple[int, int], frames: int) -> Iterator[tuple]:
    """Pillow's affine coefficients of each frame: where in the photograph a pixel comes from."""
    height, width = size
    fit = min(height / SIZE[0], width / SIZE[1])  # photograph pixels a pixel, all of it seen
    zoom = fit * (0.85 + wander(random, frames, 0.08, 0.002))
    turn = np.radians(wander(random, frames, 2.5, 0.3))
    right = width / 2 + wander(random, frames, 0.08 * width, 1.0)
    down = height / 2 + wander(random, frames, 0.08 * height, 1.0)
    for z, a, x, y in zip(zoom, turn, right, down):
        cos, sin = z * np.cos(a), z * np.sin(a)
        middle = SIZE[1] / 2, SIZE[0] / 2
        yield (
            cos, -sin, x - cos * middle[0] + sin * middle[1],
            sin, cos, y - sin * middle[0] - cos * middle[1],
        )  # fmt: skip


def film(image: np.ndarray, masks: np.ndarray, frames: int, seed: int) -> Iterator[tuple]:
    """(frame (240, 320, 3) bytes, masks (M, 240, 320) bool) of every moment."""
    random = np.random.default_rng(seed)
    picture = Image.fromarray(image)
    layers = [Image.fromarray(mask) for mask in masks]
    light = 1 + wander(random, frames, 0.08, 0.01)
    for t, view in enumerate(views(random, image.shape[:2], frames)):
        out, affine = SIZE[::-1], Image.Transform.AFFINE
        seen = picture.transform(out, affine, view, Image.Resampling.BICUBIC)
        pixels = np.asarray(seen, float) * light[t] + random.normal(0, 4, (*SIZE, 3))
        shown = [np.asarray(layer.transform(out, affine, view)) for layer in layers]
        shown = np.array(shown, bool).reshape(-1, *SIZE)
        # a bar as wide as a sixth of the frame crosses it in the third quarter
        left = round((t / frames - 0.5) * 4 * (SIZE[1] + SIZE[1] // 6)) - SIZE[1] // 6
        bar = slice(max(left, 0), max(left + SIZE[1] // 6, 0))
        pixels[:, bar] = 45 + random.normal(0, 4, pixels[:, bar].shape)
        shown[:, :, bar] = False
        yield pixels.clip(0, 255).astype(np.uint8), shown


def write(data: Path, out: Path, wanted: list[str], frames: int, seed: int) -> list[str]:
    """Write all films; their names."""
    dataset = COCO(data, "valid")
    truth: dict = {"videos": [], "annotations": [], "categories": dataset.category_entries}
    places = [picture["file_name"] for picture in dataset.dataset["images"]]
    for start in wanted:
        fits = [i for i, place in enumerate(places) if place.startswith(start)]
        if len(fits) != 1:
            raise ValueError(f"{start}: {len(fits)} held-out photographs begin so; name one")
        clip, name = dataset[fits[0]], f"webcam-{start}"
        (out / "films").mkdir(parents=True, exist_ok=True)
        (out / "truth" / "JPEGImages" / name).mkdir(parents=True, exist_ok=True)
        made = list(film(clip.image(0), clip.masks(0), frames, seed + fits[0]))
        pictures = [picture for picture, _ in made]
        write_mp4(pictures, out / "films" / f"{name}.mp4", FPS)
        number, files = len(truth["videos"]) + 1, [f"{name}/{t:05}.jpg" for t in range(frames)]
        for file, picture in zip(files, pictures):
            Image.fromarray(picture).save(out / "truth" / "JPEGImages" / file, quality=92)
        video = {"id": number, "file_names": files, "length": frames, "name": name}
        truth["videos"].append(video | {"height": SIZE[0], "width": SIZE[1]})
        for k, (label, crowd) in enumerate(zip(clip.labels, clip.crowd)):
            masks = [masks[k] for _, masks in made]
            track = {"id": len(truth["annotations"]) + 1, "video_id": number}
            track |= {"category_id": dataset.category_ids[label], "iscrowd": int(crowd)}
            track["segmentations"] = [encode(mask) if mask.any() else None for mask in masks]
            track["areas"] = [int(mask.sum()) or None for mask in masks]
            truth["annotations"].append(track | {"bboxes": [None] * frames})
    (out / "truth" / "annotations.json").write_text(json.dumps(truth), encoding="utf-8")
    return [video["name"] for video in truth["videos"]]


def write_one(picture: Path, out: Path, frames: int, seed: int) -> Path:
    """A film of one picture, without truth; its path."""
    with Image.open(picture) as opened:
        image = np.asarray(opened.convert("RGB"))
    made = film(image, np.zeros((0, *image.shape[:2]), bool), frames, seed)
    path = out / "films" / f"webcam-{picture.stem}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4((frame for frame, _ in made), path, FPS)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--image", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photographs", default=CHOSEN, help="separated by commas")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    if said.image:
        return print(write_one(said.image, said.out, said.frames, said.seed))
    wanted = said.photographs.split(",")
    print(", ".join(write(said.data, said.out, wanted, said.frames, said.seed)))


if __name__ == "__main__":
    main()
