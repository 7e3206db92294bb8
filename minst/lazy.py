"""Packages whose names are imported when they are first used (PEP 562): who tracks need not wait for matplotlib.

    __getattr__, __dir__ = lazy(__name__, {"COCO": "coco", ...})       public name -> the module that defines it
                                                                   (with dots: one of another package)

Lesson: notebooks/00_start_here.ipynb
"""

import importlib
import sys
from collections.abc import Callable

__all__ = ["lazy"]


def lazy(package: str, homes: dict[str, str]) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` of `package`: the names of `homes`, and its modules as attributes."""
    namespace = vars(sys.modules[package])

    def find(name: str):
        if name in homes:
            home = homes[name] if "." in homes[name] else f"{package}.{homes[name]}"
            value = getattr(importlib.import_module(home), name)
            namespace[name] = value  # found at once the next time
            return value
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":  # a module of ours that needs a package that is missing
                raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(sorted(homes))}")

    return find, lambda: sorted({*namespace, *homes})
