"""The ablation lab: the paper's claims, shown again at a scale that a laptop can repeat.

    minst lab run       grid.py, decoders.py (what is trained) -> runs.py (trainings)
                        -> measure.py, associations.py
    minst lab report    metrics.json of every run -> results.py, on statistics.py and matches.py
                        -> report.py: Markdown and CSV, plots.py

Lesson: notebooks/09_ablation_lab.ipynb
"""

from minst.lazy import lazy

__getattr__, __dir__ = lazy(
    __name__,
    {
        "FULL": "grid",
        "VARIANTS": "grid",
        "Budget": "grid",
        "Lab": "results",
        "write_report": "report",
        "run_lab": "runs",
        "Matches": "matches",
        "compare_clips": "statistics",
        "average_precision": "matches",
    },
)
