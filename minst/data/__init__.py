"""Data: readers, checks, converters, and the shapes that the course starts on.

    minst.data.YouTubeVIS(DIR, "train")[0].image(0)          minst.data.check_dataset(DIR)

Names, and the modules they live in, are imported when they are first used.

Lesson: notebooks/01_task_and_data.ipynb
"""

import importlib

# public name -> the module that defines it
_HOMES = {
    "COCO": "coco",
    "YouTubeVIS": "ytvis",
    "check_dataset": "validate",
    "open_folder": "coco",
    "read_video": "video",
    "split_annotations": "split",
    "verify_split": "split",
    "write_shapes_dataset": "shapes",
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # found at once the next time
        return value
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":  # a module of ours that needs a package that is missing
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
