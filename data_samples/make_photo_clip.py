"""Makes photo/, a film of two seconds of one photograph of a cat, and its picture for the README.

    pip download --no-deps scikit-image && unzip scikit_image-*.whl skimage/data/chelsea.png
    python data_samples/make_photo_clip.py skimage/data/chelsea.png      the film and its masks
    python data_samples/make_photo_clip.py --drawn            pictures/chelsea.jpg and walk.jpg
    python data_samples/make_samples.py --sums

The photograph is "Chelsea the cat" by Stefan van der Walt. scikit-image, which ships it, says: "No
copyright restrictions. CC0 by the photographer". The film is a moved photograph, not a real film:
`tests/benchmarks/photos_webcam.py` moves it as a hand moves a webcam, and a dark bar passes once.
The cat herself never moves, so that identities are easy here.

The outline was clicked by hand, on a grid laid over the photograph. Whiskers are left out, and so
is what lies out of focus to the right of her chin, where it cannot be told what is fur. Seed and
frames were set before any model had seen the film.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
PICTURE = "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"  # sha256
FRAMES, EVERY, SEED = 30, 2, 0  # every second moment: the hand moves twice as fast
# Frames of the pictures: before and while the bar passes; who walks in comes near and turns away.
SHOWN = {"chelsea": (0, 12, 19, 29), "walk": (3, 7, 12, 20)}
DESCRIPTION = (
    "A moved photograph: Chelsea the cat, by Stefan van der Walt, CC0, from scikit-image "
    "(skimage.data.chelsea). Outline by hand."
)
OUTLINE = """
    40,0 36,25 33,50 30,75 30,95 28,112 10,120 0,125 0,300 320,300 300,279 308,270 316,255 316,235
    318,215 333,203 348,185 357,165 363,148 362,125 362,105 357,90 358,75 368,60 378,40 390,15 398,0
"""


def outline(size: tuple[int, int]) -> np.ndarray:
    """(1, H, W) bool: the cat in the photograph."""
    mask = Image.new("1", size[::-1])
    corners = [tuple(map(int, pair.split(","))) for pair in OUTLINE.split()]
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    return np.asarray(mask)[None]


def write(picture: Path, out: Path) -> None:
    """The film in YouTube-VIS form; ValueError where the photograph is another one."""
    sys.path.insert(0, str(HERE.parent / "tests" / "benchmarks"))
    from photos_webcam import SIZE, film
    from pycocotools import mask as coco

    from minst.rle import encode

    if hashlib.sha256(picture.read_bytes()).hexdigest() != PICTURE:
        raise ValueError(f"{picture} is not the chelsea.png of scikit-image 0.26")
    image = np.asarray(Image.open(picture).convert("RGB"))
    shutil.rmtree(out, ignore_errors=True)
    frames = out / "JPEGImages" / "chelsea"
    frames.mkdir(parents=True)
    codes, files = [], [f"chelsea/{t:05}.jpg" for t in range(FRAMES)]
    moments = list(film(image, outline(image.shape[:2]), FRAMES * EVERY, SEED))[::EVERY]
    for file, (seen, masks) in zip(files, moments):
        Image.fromarray(seen).save(out / "JPEGImages" / file, quality=60)
        codes.append(encode(masks[0]))
    video = {"id": 1, "name": "chelsea", "file_names": files, "length": FRAMES}
    track = {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": codes}
    track |= {"areas": [int(coco.area(code)) for code in codes]}
    track |= {"bboxes": [coco.toBbox(code).tolist() for code in codes]}
    content = {
        "info": {"description": DESCRIPTION},
        "licenses": [{"id": 1, "name": "CC0 1.0"}],
        "videos": [video | {"height": SIZE[0], "width": SIZE[1], "license": 1}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [track],
    }
    (out / "annotations.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def draw(name: str, out: Path) -> None:
    """What `minst demo --photo` or `--film` tracks, four frames of it side by side."""
    import minst
    from minst.predict import track_frame
    from minst.samples import weights_for
    from minst.visualize import draw_tracks

    clip = minst.load_sample(name)
    model = minst.MobileInst.from_pretrained(weights_for(name)[0])
    tracker = minst.KernelTracker(model, reuse_interval=3, association="mask")
    result = tracker.gather(track_frame(tracker, image)[0] for image in clip)
    drawn = [frame for t, frame in enumerate(draw_tracks(clip, result, scale=1)) if t in SHOWN[name]]
    Image.fromarray(np.concatenate(drawn, 1)).save(out, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("photograph", nargs="?", type=Path)
    what.add_argument("--drawn", action="store_true", help="only the pictures")
    said = parser.parse_args()
    if said.drawn:
        for name in SHOWN:
            draw(name, HERE / "pictures" / f"{name}.jpg")
    else:
        write(said.photograph, HERE / "photo")


if __name__ == "__main__":
    main()
