"""Data sets of your own: converted from what annotation tools write, checked, split.

    minst data convert   `convert`   labelme, CVAT, COCO, MOTS, DAVIS -> YouTube-VIS form, and back
    minst data check     `check`     every problem of a data set, named with file and entry
    minst data split     `split`     a local split that anybody can make again

Lesson: notebooks/10_capstone.ipynb
"""

from minst.lazy import lazy

# public name -> the module that defines it
_HOMES = {"check_dataset": "check", "split_annotations": "split", "verify_split": "split"}

__all__ = [*_HOMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy(__name__, _HOMES)
