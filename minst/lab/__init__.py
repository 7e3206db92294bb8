"""The ablation lab: the paper's claims, shown again at a scale that a laptop can repeat.

    minst lab run       grid.py, decoders.py -> runs.py -> measure.py, associations.py
    minst lab report    metrics.json -> results.py, statistics.py -> report.py, plots.py

Lesson: notebooks/09_ablation_lab.ipynb
"""

from minst.lazy import lazy

_HOMES = {"VARIANTS": "grid", "run_lab": "runs", "Lab": "results", "write_report": "report"}
__getattr__, __dir__ = lazy(__name__, _HOMES)
