"""How good is it? Names, and the modules they live in, are imported when they are first used.

    ytvis        video AP                       consistency  does a query stay on its object?
    coco         AP of single frames            identity     does an identity stay on its instance?
    submission   results files                  difficulty   easy and hard instances

Lesson: notebooks/01_task_and_data.ipynb
"""

from minst.lazy import lazy

# module -> its public names
_NAMES = {
    "coco": ("FIGURES", "evaluate_coco"),
    "consistency": ("ConsistencyMeter", "assign_queries", "query_consistency"),
    "difficulty": ("clip_measures", "difficulty_levels", "frame_measures"),
    "identity": ("IdentityEvent", "IdentityEvents", "IdentityMeter", "identity_events",
                 "tracking_figures"),
    "submission": ("evaluate_results", "write_results", "write_submission"),
    "ytvis": ("YTVISEval", "evaluate_ytvis"),
}  # fmt: skip
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
