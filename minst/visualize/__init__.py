"""Pictures: masks and tracks on frames (`masks`), whether a query stays on its object (`queries`, Fig 2 of the paper).

Lesson: notebooks/00_start_here.ipynb
"""

from minst.visualize.masks import animate, color_of, draw_frame, draw_tracks, ground_truth_result
from minst.visualize.queries import choose_queries, plot_query_consistency, query_states
from minst.visualize.style import save

__all__ = ["animate", "choose_queries", "color_of", "draw_frame", "draw_tracks", "ground_truth_result",
           "plot_query_consistency", "query_states", "save"]  # fmt: skip
