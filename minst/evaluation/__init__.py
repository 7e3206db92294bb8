"""How good is it? Video AP (`ytvis`), AP of frames (`coco`), whether a query stays on its object (`consistency`).

Lesson: notebooks/01_task_and_data.ipynb
"""

from minst.evaluation.coco import FIGURES, evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, assign_queries, query_consistency
from minst.evaluation.ytvis import YTVISEval, evaluate_ytvis

__all__ = [
    "FIGURES",
    "ConsistencyMeter",
    "YTVISEval",
    "assign_queries",
    "evaluate_coco",
    "evaluate_ytvis",
    "query_consistency",
]
