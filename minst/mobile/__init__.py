"""MobileInst on a phone, and how fast it is.

    programs   what a device runs: key, reuse        export     as files of four formats
    runtime    those files, run: ExportedModel       serve      a page that times the browser

    timing     turns, medians, tables                benchmark  a frame's stages, six runtimes, data
    roofline   every layer; what this core can do    lite       our benchmarker in C++, for .ptl
    phone      the adb commands                      logs       what its benchmarkers print
    rivals     beside a SparseInst with ResNet-50

Lesson: notebooks/08_on_device_latency.ipynb
"""

from minst.lazy import lazy

__all__ = ["ExportedModel", "load_program"]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(__all__, "runtime"))
