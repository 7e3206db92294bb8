"""How hard is `shapes`? Its measured statistics beside those that the paper's data sets publish.

    python tests/benchmarks/shapes_statistics.py [--videos 200] [--split val] [--seed 0] [--json out.json]

Sources: YouTube-VIS 2019 and 2021, "Dataset Statistics" of https://youtube-vos.org/dataset/vis/ (videos, categories,
instances, masks); OVIS, https://songbai.site/ovis/ (the same and 5.80 instances a video). Frames a video of YouTube-VIS
2019: the 27 that the project's brief states. What the sources do not say stays '-'; 'masks an instance' is a quotient.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from minst.data.shapes import SPLITS, ShapesClip, shapes_clip

PUBLISHED = {
    "YouTube-VIS 2019": {"videos": 2883, "categories": 40, "instances": 4883, "masks": 131_000, "frames_per_video": 27},
    "YouTube-VIS 2021": {"videos": 3859, "categories": 40, "instances": 8171, "masks": 232_000},
    "OVIS": {"videos": 901, "categories": 25, "instances": 5223, "masks": 296_000},
}
ROWS = (  # key, words, format, what the default split promises
    ("videos", "videos", "{:,.0f}", None),
    ("categories", "categories", "{:.0f}", (8, 8)),
    ("instances", "instances", "{:,.0f}", None),
    ("masks", "masks", "{:,.0f}", None),
    ("frames_per_video", "frames a video", "{:.0f}", None),
    ("instances_per_video", "instances a video", "{:.2f}", (3, 4)),
    ("masks_per_instance", "masks an instance", "{:.1f}", None),
    ("visible_area", "visible area, mean share of the frame", "{:.1%}", (0.04, 0.12)),
    ("half_hidden", "instances half hidden at some time", "{:.1%}", (0.4, 1)),
    ("in_and_out", "instances that enter, leave or return", "{:.1%}", (0.25, 1)),
    ("speed", "median speed, share of the width a frame", "{:.2%}", (0.015, 1)),
)


def clip_statistics(clips: Iterable[ShapesClip]) -> dict[str, float]:
    """Draw every frame of the clips; counts videos, frames_per_video, categories, instances, masks, and

    visible_area  mean share of the frame that an instance covers in a frame where it is visible
    half_hidden   share of instances of which more than half is occluded or cut off by the border in some frame
    in_and_out    share of instances that are visible in some frame and wholly outside in another
    speed         median way of a visible mask's centroid from one frame to the next, as a share of the width
    """
    videos = frames = instances = half_hidden = in_and_out = 0
    areas, ways, labels = [], [], set()
    for clip in clips:
        drawn = [clip.render(t) for t in range(len(clip))]
        height, width = drawn[0].image.shape[:2]
        amodal = np.stack([frame.amodal for frame in drawn])  # (T, n)
        visible = np.stack([frame.masks.sum((1, 2)) for frame in drawn])
        sums = [
            [frame.masks.sum(1) @ np.arange(width), frame.masks.sum(2) @ np.arange(height)]
            for frame in drawn
        ]
        centroid = np.stack(sums) / np.maximum(visible, 1)[:, None]  # (T, 2, n)
        seen = visible > 0
        way = np.sqrt((np.diff(centroid, axis=0) ** 2).sum(1)) / width
        areas.append(visible[seen] / (height * width))
        ways.append(way[seen[1:] & seen[:-1]])
        half_hidden += int((seen & (2 * visible < amodal)).any(0).sum())
        in_and_out += int((seen.any(0) & (amodal == 0).any(0)).sum())
        videos, frames, instances = videos + 1, frames + len(clip), instances + len(clip.labels)
        labels.update(clip.labels.tolist())
    if not videos:
        raise ValueError("clip_statistics: no clips were given")
    areas, ways = np.concatenate(areas), np.concatenate(ways)
    return {
        "videos": videos,
        "frames_per_video": frames / videos,
        "categories": len(labels),
        "instances": instances,
        "masks": len(areas),
        "instances_per_video": instances / videos,
        "visible_area": float(areas.mean()) if len(areas) else 0.0,
        "half_hidden": half_hidden / instances,
        "in_and_out": in_and_out / instances,
        "speed": float(np.median(ways)) if len(ways) else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    numbers = tqdm(range(arguments.videos), unit="clip")
    ours = clip_statistics(shapes_clip(arguments.split, i, seed=arguments.seed) for i in numbers)
    columns = {f"shapes {arguments.split}": ours, **PUBLISHED}
    for column in columns.values():
        column["instances_per_video"] = column["instances"] / column["videos"]
        column["masks_per_instance"] = column["masks"] / column["instances"]
    print("| | " + " | ".join(columns) + " | promised |\n" + "|---" * (len(columns) + 2) + "|")
    kept = True
    for key, words, form, promise in ROWS:
        cells = [form.format(column[key]) if key in column else "-" for column in columns.values()]
        holds = promise is None or promise[0] <= ours[key] <= promise[1]
        kept &= holds
        cells.append("-" if promise is None else f"{form.format(promise[0])} to {form.format(promise[1])}, "
                     + ("kept" if holds else "BROKEN"))
        print(f"| {words} | " + " | ".join(cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(columns, indent=1))
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
