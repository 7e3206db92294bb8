"""minst: MobileInst, video instance segmentation on the mobile (not MNIST).

    model = minst.MobileInst.from_pretrained("shapes-tiny")
    result = minst.KernelTracker(model, reuse_interval=3).track(minst.load_sample("easy"))

Names are imported when they are first used (PEP 562): `import minst` and `minst --help` do not wait for torch.

Lesson: notebooks/00_start_here.ipynb
"""

import importlib

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
_MODULES = ("backbones", "check", "config", "course", "data", "evaluation", "instance_decoder", "layers", "losses",
            "mask_decoder", "matcher", "mobile", "model", "predict", "samples", "temporal", "tracking", "training", "visualize")  # fmt: skip

__all__ = [*_HOMES, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f"minst.{_HOMES[name]}"), name)
        globals()[name] = value  # found at once the next time
        return value
    if name in _MODULES:
        return importlib.import_module(f"minst.{name}")
    raise AttributeError(f"module 'minst' has no attribute {name!r}; it offers {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
