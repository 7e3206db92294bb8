"""MobileInst on a phone, and how fast it is.

    programs   what a device runs: key, reuse        export     as files of four formats, compared with eager PyTorch
    runtime    those files, run: ExportedModel       optimize   PyTorch's mobile optimiser, pass by pass
    variants   beyond the paper: 8 bits, channels-last

    benchmark  stages of a frame, kernel reuse       compare    six runtimes in turns, in one table
    roofline   every layer; what this core can do    lite       our benchmarker in C++, for .ptl files
    phone      the adb commands; logs reads them     serve      a page that measures the visitor's browser

Lesson: notebooks/08_on_device_latency.ipynb
"""

import importlib

__all__ = ["ExportedModel", "load_program"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module("minst.mobile.runtime"), name)
    raise AttributeError(
        f"module 'minst.mobile' has no attribute {name!r}; it offers {', '.join(__all__)} and its modules"
    )
