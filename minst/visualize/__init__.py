"""Pictures of a model at work. Every `plot_…` returns a matplotlib Figure, and `save` writes it; `explore` is live.

    what comes out    draw_frame, draw_tracks, animate          masks and identities on frames, as a video
    the method's claim    plot_query_consistency                Fig 2: one query, one instance
    on the way there  plot_pipeline, plot_features, plot_attention, plot_kernels, plot_similarity, plot_timeline
    learning          plot_matching, plot_assignment, plot_training
    data              preview_dataset                           a sheet of videos or images with their annotations
    on the device     plot_latency, plot_layers, plot_roofline  runtimes side by side; time against MACs
    plain             plot_images, new_figure + headline        what the lessons draw themselves
    live              explore, interact                         in a notebook; `minst explore` as a page

Lesson: notebooks/00_start_here.ipynb
"""

from minst.lazy import lazy

# public name -> its module, imported when the name is first used: tracking needs no matplotlib, figures no widgets
_HOMES = {
    "plot_assignment": "assignment",
    "plot_matching": "assignment",
    "attention_maps": "attention",
    "plot_attention": "attention",
    "interact": "controls",
    "Explorer": "explorer",
    "explore": "explorer",
    "plot_features": "features",
    "plot_images": "images",
    "plot_kernels": "kernels",
    "plot_similarity": "kernels",
    "plot_latency": "latency",
    "animate": "masks",
    "color_of": "masks",
    "draw_frame": "masks",
    "draw_tracks": "masks",
    "ground_truth_result": "masks",
    "plot_pipeline": "pipeline",
    "preview_dataset": "preview",
    "choose_queries": "queries",
    "plot_query_consistency": "queries",
    "query_states": "queries",
    "Recording": "recording",
    "Settings": "recording",
    "read_frames": "recording",
    "plot_layers": "roofline",
    "plot_roofline": "roofline",
    "GREY": "style",
    "INK": "style",
    "RED": "style",
    "headline": "style",
    "new_figure": "style",
    "rgb": "style",
    "save": "style",
    "plot_timeline": "timeline",
    "plot_training": "training",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
