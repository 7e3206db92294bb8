"""Pictures of a model at work. Every `plot_…` returns a matplotlib Figure, and `save` writes it; `explore` is live.

    what comes out    draw_frame, draw_tracks, animate          masks and identities on frames, as a video
    the method's claim    plot_query_consistency                Fig 2: one query, one instance
    on the way there  plot_pipeline, plot_features, plot_attention, plot_kernels, plot_similarity, plot_timeline
    learning          plot_matching, plot_assignment, plot_training
    on the device     plot_latency, plot_layers, plot_roofline  runtimes side by side; time against MACs
    plain             plot_images, new_figure + headline        what the lessons draw themselves
    live              explore, interact                         in a notebook; `minst explore` as a page

Lesson: notebooks/00_start_here.ipynb
"""

import importlib

from minst.visualize.assignment import plot_assignment, plot_matching
from minst.visualize.attention import attention_maps, plot_attention
from minst.visualize.features import plot_features
from minst.visualize.images import plot_images
from minst.visualize.kernels import plot_kernels, plot_similarity
from minst.visualize.latency import plot_latency
from minst.visualize.masks import animate, color_of, draw_frame, draw_tracks, ground_truth_result
from minst.visualize.pipeline import plot_pipeline
from minst.visualize.queries import choose_queries, plot_query_consistency, query_states
from minst.visualize.recording import Recording, Settings, read_frames
from minst.visualize.roofline import plot_layers, plot_roofline
from minst.visualize.style import GREY, INK, RED, headline, new_figure, rgb, save
from minst.visualize.timeline import plot_timeline
from minst.visualize.training import plot_training

_LIVE = {"Explorer": "explorer", "explore": "explorer", "interact": "controls"}  # these need the extra "notebooks"

__all__ = ["GREY", "INK", "RED", "Recording", "Settings", "animate", "attention_maps", "choose_queries", "color_of",
           "draw_frame", "draw_tracks", "ground_truth_result", "headline", "new_figure", "plot_assignment", "plot_attention",
           "plot_features", "plot_images", "plot_kernels", "plot_latency", "plot_layers", "plot_matching", "plot_pipeline",
           "plot_query_consistency", "plot_roofline", "plot_similarity", "plot_timeline", "plot_training", "query_states",
           "read_frames", "rgb", "save", *_LIVE]  # fmt: skip


def __getattr__(name: str):
    if name in _LIVE:
        return getattr(importlib.import_module(f"minst.visualize.{_LIVE[name]}"), name)
    raise AttributeError(f"module 'minst.visualize' has no attribute {name!r}; it offers {', '.join(sorted(__all__))}")
