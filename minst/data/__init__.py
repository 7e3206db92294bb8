"""Data: readers, checks, and the shapes that the course starts on.

    minst.data.YouTubeVIS(DIR, "train")[0].image(0)          minst.data.check_dataset(DIR)

Names, and the modules they live in, are imported when they are first used.

Lesson: notebooks/01_task_and_data.ipynb
"""

from minst.lazy import lazy

# public name -> the module that defines it
_HOMES = {
    "COCO": "coco",
    "YouTubeVIS": "ytvis",
    "check_dataset": "minst.labels.check",
    "open_folder": "coco",
    "read_video": "video",
    "split_annotations": "minst.labels.split",
    "verify_split": "minst.labels.split",
    "write_shapes_dataset": "shapes",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy(__name__, _HOMES)
