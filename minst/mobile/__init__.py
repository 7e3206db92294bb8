"""MobileInst on a phone, and how fast it is.

    programs   what a device runs: key, reuse        optimize   PyTorch's mobile optimiser
    export     as files of four formats              runtime    those files, run: ExportedModel

    timing     turns, medians, tables                benchmark  stages of a frame, kernel reuse
    compare    six runtimes in one table             lite       our benchmarker in C++, for .ptl files
    roofline   every layer; what this core can do    phone      the adb commands; logs reads them
    serve      a page that measures the visitor's browser

No two of them import each other. Lesson: notebooks/08_on_device_latency.ipynb
"""

import importlib

__all__ = ["ExportedModel", "load_program"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module("minst.mobile.runtime"), name)
    raise AttributeError(
        f"module 'minst.mobile' has no attribute {name!r}; "
        f"it offers {', '.join(__all__)} and its modules"
    )
