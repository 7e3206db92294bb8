"""Packages whose names are imported when they are first used (PEP 562).

    __getattr__, __dir__ = lazy(__name__, {"COCO": "coco", ...})    public name -> its module

So who tracks need not wait for matplotlib.

Lesson: notebooks/00_start_here.ipynb
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable

__all__ = ["lazy"]


def lazy(package: str, homes: dict[str, str]) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` of `package`: the names of `homes`, and its modules."""
    namespace = vars(sys.modules[package])

    def find(name: str):
        if name in homes:
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
            namespace[name] = value  # found at once the next time
            return value
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":  # a module of ours, whose own package is missing
                raise
        offered = ", ".join(sorted(homes))
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {offered}")

    def names() -> list[str]:
        modules = (module.name for module in pkgutil.iter_modules(namespace["__path__"]))
        return sorted({*namespace, *homes, *modules})

    return find, names
