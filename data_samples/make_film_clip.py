"""Makes the clip `walk` of photo/: two seconds of a real film, in which somebody walks in, with masks.

    python data_samples/make_film_clip.py one-by-one-person-detection.mp4
    python data_samples/make_samples.py --sums

The film is `one-by-one-person-detection.mp4` of Intel's sample videos, CC BY 4.0 (Intel Corporation); what is
taken are 21 frames at 10 a second, made smaller. The camera stands still, so that the masks need no hand: a pixel
belongs to the person where it differs from the empty room, whose picture is the median of the second before. The
largest connected piece counts, holes are filled. Thresholds were set by looking at the outlines of all frames, and
before any model was asked. `make_photo_clip.py --drawn` draws its picture. Run it after make_photo_clip.py, which
writes the folder anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage

from minst.data.video import read_video
from minst.rle import encode

HERE = Path(__file__).resolve().parent
FILM = "a5964aa259099a482a8b360ffc2c57b5a30f84d5919236a4dad01f8e929ac07c"  # sha256
FIRST, FRAMES, BEFORE = 228, 21, 10  # frames of the film; of the empty room
SIZE = (180, 320)  # height, width
LEAST = 26  # of 255, by which a colour differs from the room's
NOTE = "walk: one-by-one-person-detection of Intel's sample videos, CC BY 4.0, cut and made smaller. Masks: see make_film_clip.py."


def person(frame: np.ndarray, room: np.ndarray) -> np.ndarray:
    """(H, W) bool: where a frame (H, W, 3) differs from the empty room; all False in an empty frame."""
    apart = np.abs(frame.astype(int) - room).max(-1)
    # a speck is noise of the camera, a gap in the person is a colour like the wall's
    seen = ndimage.binary_closing(ndimage.binary_opening(apart > LEAST, iterations=1), iterations=4)
    pieces, count = ndimage.label(seen)
    if not count:
        return seen
    sizes = ndimage.sum(seen, pieces, range(1, count + 1))
    return ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(sizes)))


def write(film: Path, out: Path) -> None:
    """Add the clip to the folder, which is in YouTube-VIS form."""
    frames = list(islice(read_video(film), FIRST - BEFORE, FIRST + FRAMES))
    frames = [np.asarray(Image.fromarray(frame).resize(SIZE[::-1], Image.Resampling.BOX)) for frame in frames]
    room = np.median(frames[:BEFORE], axis=0)
    folder = out / "JPEGImages" / "walk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    codes, files = [], [f"walk/{t:05}.jpg" for t in range(FRAMES)]
    for file, frame in zip(files, frames[BEFORE:], strict=True):
        Image.fromarray(frame).save(out / "JPEGImages" / file, quality=85)
        mask = person(frame, room)
        codes.append(encode(mask) if mask.sum() > 50 else None)
    content = json.loads((out / "annotations.json").read_text(encoding="utf-8"))
    content["info"]["description"] = content["info"]["description"].split(" walk:")[0] + " " + NOTE
    content["licenses"] = [content["licenses"][0], {"id": 2, "name": "CC BY 4.0"}]
    content["categories"] = [*content["categories"][:2], {"id": 3, "name": "person"}]
    video = {"id": 2, "name": "walk", "file_names": files, "length": FRAMES}
    content["videos"] = [content["videos"][0], video | {"height": SIZE[0], "width": SIZE[1], "license": 2}]
    track = {"id": 2, "video_id": 2, "category_id": 3, "iscrowd": 0, "segmentations": codes}
    track |= {"areas": [code and int(coco.area(code)) for code in codes]}
    track |= {"bboxes": [code and coco.toBbox(code).tolist() for code in codes]}
    content["annotations"] = [content["annotations"][0], track]
    (out / "annotations.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("film", type=Path)
    film = parser.parse_args().film
    if hashlib.sha256(film.read_bytes()).hexdigest() != FILM:
        raise SystemExit(f"{film} is not the film of Intel's sample videos that this clip was cut from")
    write(film, HERE / "photo")


if __name__ == "__main__":
    main()
