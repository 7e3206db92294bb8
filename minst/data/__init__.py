"""Data: readers, and the shapes that the course starts on.

    minst.data.YouTubeVIS(DIR, "train")[0].image(0)          minst.data.open_folder(DIR)

Names, and the modules they live in, are imported when they are first used.

Lesson: notebooks/01_task_and_data.ipynb
"""

from minst.lazy import lazy

# public name -> the module that defines it
_HOMES = {
    "COCO": "coco",
    "YouTubeVIS": "ytvis",
    "open_folder": "coco",
    "read_video": "video",
    "write_shapes_dataset": "shapes",
}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy(__name__, _HOMES)
