"""The old name of `minst.course`: earlier copies of the lessons say `from minst.check import lesson01 as check`."""

from minst.course import __path__  # noqa: F401  (the modules of the course are found below this name too)
