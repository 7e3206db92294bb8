"""The old name of `minst.course`, which earlier copies of the lessons import."""

from minst.course import __path__  # noqa: F401  (its modules are found below this name too)
