"""minst: MobileInst, video instance segmentation on the mobile (not MNIST).

    model = minst.MobileInst.from_pretrained("shapes-tiny")
    result = minst.KernelTracker(model, reuse_interval=3).track(minst.load_sample("easy"))

What is where, in the order of the lessons:

    config, layers, backbones, mask_decoder, instance_decoder, model    the network
    matcher, losses, temporal, training, recipes, engine                learning
    tracking, results                                                   video: one query, one track
    predict, samples, weights, cli                                      using a model
    data, rle                     clips and images: drawn ones, films, annotation files
    evaluation                    AP, identities, whether queries stay with their instance
    visualize                     masks, Fig 2, the explorer
    mobile                        programs for phones and browsers, and how fast they are
    labels, course, lab           data sets of your own, the exercises' verdicts, the ablations

Names are imported when they are first used: `import minst` does not wait for torch.

Lesson: notebooks/00_start_here.ipynb
"""

from minst.lazy import lazy

__version__ = "0.1.0"

# public name -> the module that defines it
_HOMES = {
    "KernelTracker": "tracking",
    "MobileInst": "model",
    "MobileInstConfig": "config",
    "evaluate_coco": "evaluation",
    "evaluate_ytvis": "evaluation",
    "load_backbone_weights": "weights",
    "load_sample": "samples",
    "query_consistency": "evaluation.consistency",
    "sample_names": "samples",
    "summary": "macs",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  (names, all of them)
__getattr__, __dir__ = lazy(__name__, _HOMES)
