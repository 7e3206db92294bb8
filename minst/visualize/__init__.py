"""Pictures of a model at work. Every `plot_…` returns a Figure; `save` writes it.

    what comes out    draw_frame, draw_tracks, animate          masks and identities on frames
    the method's claim    plot_query_consistency                Fig 2: one query, one instance
    on the way there  plot_pipeline, pca_rgb, attention_maps    shapes, features, where queries look
    between frames    plot_kernels, plot_similarity             what kernels know, who is matched
    learning          plot_assignment, plot_training
    data              preview_dataset                           a sheet of videos or images
    on the device     plot_latency, plot_layers, plot_roofline  runtimes; time against MACs
    plain             plot_images, new_figure + headline        what the lessons draw themselves
    live              explore, interact                         in a notebook; or `minst explore`

Lesson: notebooks/00_start_here.ipynb
"""

from minst.lazy import lazy

# module -> its public names. A module is imported when one of them is first used: tracking needs no
# matplotlib, figures need no widgets.
_NAMES = {
    "assignment": ("plot_assignment",),
    "attention": ("attention_maps",),
    "controls": ("interact",),
    "explorer": ("Explorer", "explore"),
    "features": ("pca_rgb",),
    "images": ("plot_images",),
    "kernels": ("plot_kernels", "plot_similarity"),
    "latency": ("plot_latency",),
    "masks": ("animate", "color_of", "draw_frame", "draw_tracks"),
    "pipeline": ("plot_pipeline",),
    "preview": ("preview_dataset",),
    "queries": ("choose_queries", "plot_query_consistency"),
    "recording": ("Recording", "Settings", "read_frames"),
    "roofline": ("plot_layers", "plot_roofline"),
    "style": ("GREY", "INK", "RED", "headline", "new_figure", "rgb", "save"),
    "training": ("plot_training",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
