"""How good is it? Video AP (`ytvis`), AP of frames (`coco`), whether a query stays on its object
(`consistency`) and an identity on its instance (`identity`), both for easy and for hard instances
(`difficulty`); results files (`submission`).

Lesson: notebooks/01_task_and_data.ipynb
"""

from minst.evaluation.coco import FIGURES, evaluate_coco
from minst.evaluation.consistency import ConsistencyMeter, assign_queries, query_consistency
from minst.evaluation.difficulty import difficulty_levels, instance_measures
from minst.evaluation.identity import (
    IdentityEvent,
    IdentityEvents,
    IdentityMeter,
    identity_events,
    tracking_figures,
    tracking_scores,  # fmt: skip
)
from minst.evaluation.submission import evaluate_results, write_results, write_submission
from minst.evaluation.ytvis import YTVISEval, evaluate_ytvis

__all__ = [
    "FIGURES",
    "ConsistencyMeter",
    "IdentityEvent",
    "IdentityEvents",
    "IdentityMeter",
    "YTVISEval",
    "assign_queries",
    "difficulty_levels",
    "evaluate_coco",
    "evaluate_results",
    "evaluate_ytvis",
    "identity_events",
    "instance_measures",
    "query_consistency",
    "tracking_figures",
    "tracking_scores",
    "write_results",
    "write_submission",
]
