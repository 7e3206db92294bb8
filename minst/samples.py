"""What ships with minst: a few clips and images with their ground truth, and weights.

    data_samples/clips/      six clips, one YouTube-VIS folder     load_sample(name) -> Clip
    data_samples/photo/      a moved photograph, a real film       load_sample(PHOTO or FILM)
    data_samples/images/     twelve still images in COCO form
    data_samples/weights/    one folder a model                    weights_folder(name)
    results/                 runs of the lab                       results_folder(name)
    notebooks/               lessons, solutions, glossary          write_lessons(folder)

`weights_for(film)` names the weights that suit a film, where nobody has named any.

In a clone (and an editable install of it) these folders lie beside the package, in an installed
wheel inside it, in `shipped`.

Lesson: notebooks/01_task_and_data.ipynb
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minst.data.ytvis import Clip, YouTubeVIS

__all__ = ["FILM", "PHOTO", "data_folder", "load_sample", "out_of_place", "results_folder",
           "sample_names", "weights_classes", "weights_folder", "weights_for", "weights_names",
           "write_lessons"]  # fmt: skip

# A moved photograph, and a real film: none of the drawn clips of `sample_names`.
PHOTO, FILM = "chelsea", "walk"
DRAWN = b'"description": "minst shapes'  # in the annotation files of `minst data shapes`
# What builds the lessons is for who writes them, not for who takes them.
NOT_TAKEN = (
    "source",
    "build.py",
    "book.py",
    "slides.py",
    "theme",
    "handout.py",
    "language.py",
    "timings.json",
    "__pycache__",
    ".ipynb_checkpoints",
)


def data_folder() -> Path:
    """The folder `data_samples`; FileNotFoundError names the places where it was looked for."""
    return _shipped("data_samples")


def results_folder(name: str) -> Path:
    """Folder of the shipped results `name`, "lab" or so; FileNotFoundError where none is."""
    return _shipped(f"results/{name}")


def write_lessons(folder: str | Path) -> Path:
    """Copy the lessons, their solutions, glossary and tutor's guide to `folder`/notebooks.

    `folder`/README.md lists them, README.ko.md those in Korean; `folder`/results holds the lab's
    runs, of which lesson 09 tells.
    Returns the folder of the notebooks. FileExistsError where one of the three is there already,
    since a student's answers may be in it.
    """
    lessons, out = _shipped("notebooks"), Path(folder)
    for target in (out / "notebooks", out / "results", out / "README.md"):
        if target.exists():
            raise FileExistsError(f"{target} is there already; name another folder")
    lists = {path.name: _list_of_lessons(path) for path in lessons.parent.glob("README*.md")}
    out.mkdir(parents=True, exist_ok=True)
    # all or nothing: half of them would be "there already" the next time
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as unfinished:
        new = Path(unfinished)
        shutil.copytree(lessons, new / "notebooks", ignore=shutil.ignore_patterns(*NOT_TAKEN))
        shutil.copytree(_shipped("results"), new / "results")
        for name, listed in lists.items():
            (new / name).write_text(listed, encoding="utf-8")
        for name in (*lists, "results", "notebooks"):
            (new / name).rename(out / name)
    return out / "notebooks"


def _list_of_lessons(readme: Path) -> str:
    """The section of a README that has their table, as a page of its own."""
    sections = re.split(r"^(?=## )", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next(section[1:].rstrip() + "\n" for section in sections if "\n| 0" in section)


def sample_names() -> list[str]:
    """Names of the shipped clips that are drawn, in the order of their file."""
    clips = _clips()
    return [clips[i].name for i in range(len(clips))]


def load_sample(name: str) -> Clip:
    """The shipped clip `name`: its frames, (H, W, 3) bytes; labels and masks are the truth."""
    if name in (PHOTO, FILM):
        return _clips("photo")[(PHOTO, FILM).index(name)]
    names = sample_names()
    if name not in names:
        raise ValueError(f"no shipped clip {name!r}; there are: {', '.join([*names, PHOTO, FILM])}")
    return _clips()[names.index(name)]


def weights_names() -> list[str]:
    """Names of the shipped weights."""
    folder = data_folder() / "weights"
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def weights_folder(name: str) -> Path:
    """Folder of the shipped weights `name`; FileNotFoundError lists what is shipped."""
    names = weights_names()
    if name not in names:
        shipped = ", ".join(names) or "none"
        raise FileNotFoundError(
            f"no weights {name!r}: neither a folder of that name nor shipped (shipped: {shipped})"
        )
    return data_folder() / "weights" / name


def weights_classes(name: str) -> list[str]:
    """What the shipped weights `name` know."""
    config = (weights_folder(name) / "config.json").read_text(encoding="utf-8")
    return json.loads(config)["class_names"]


def weights_for(film: str | Path | int) -> list[str]:
    """Names of the shipped weights that suit a film, or a data set; the first is the usual one.

    Those of drawn creatures for our clips and what `minst data shapes` wrote, those of photographs
    for all else; all of them where none of that kind ship.
    """
    kind, names = "shapes-" if _is_drawn(film) else "photos-", weights_names()
    return [name for name in names if name.startswith(kind)] or names


def out_of_place(weights: str, film: str | Path | int) -> bool:
    """Have these shipped weights seen drawn creatures alone, and the film shows something else?"""
    drawings_alone = weights in weights_names() and weights.startswith("shapes-")
    return drawings_alone and not _is_drawn(film)


def _is_drawn(film: str | Path | int) -> bool:
    """Is it a shipped clip, by name or path, or lies it in what `minst data shapes` wrote?"""
    path = Path(str(film)).absolute()
    shipped, photo = data_folder(), data_folder() / "photo"
    if str(film) in sample_names() or path.is_relative_to(shipped):
        return not path.is_relative_to(photo)
    # a data set, a video of it, or "JPEGImages/00000/*.jpg"
    files = [folder / "annotations.json" for folder in (path, *path.parents[:3])]
    for file in filter(Path.is_file, files):
        with open(file, "rb") as opened:  # its first key says who wrote it
            if DRAWN in opened.read(100):
                return True
    return False


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    places = [package / "shipped" / name, package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"{name} is neither at {places[0]} nor at {places[1]}; install minst again"
    )


def _clips(folder: str = "clips") -> YouTubeVIS:
    from minst.data.ytvis import YouTubeVIS  # needs numpy, pillow and pycocotools; a path does not

    return YouTubeVIS(data_folder() / folder)
