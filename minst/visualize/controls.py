"""Sliders and menus under a picture: `interact(draw, threshold=(0, 1, 0.05), query=[0, 3, 7])`.

    a control moves --> draw(**values) -> Picture --> PNG bytes, put into one image in place

The image is the only thing that changes, so a saved notebook does not swell; what is on the page
stays when a drawing fails, and the error is written below it.

Lesson: notebooks/01_task_and_data.ipynb
"""

from collections.abc import Callable

import ipywidgets

from minst.visualize.style import Picture

__all__ = ["control", "interact"]


def control(name: str, choice) -> ipywidgets.Widget:
    """The control for an argument: (low, high[, step]): slider, list or dict: menu, bool: box.

    A slider begins at its middle; ((low, high, step), start) says another start. A dict is
    {label: value}. Raises ValueError for anything else.
    """
    nested = isinstance(choice, tuple) and len(choice) == 2 and isinstance(choice[0], tuple)
    span, *start = choice if nested else (choice,)
    kinds = "(low, high, step), ((low, high, step), start), a list, a dict or a bool"
    try:
        box = ipywidgets.interactive.widget_from_abbrev(span, *start)
    except ValueError:
        box = None
    if not isinstance(choice, (tuple, list, dict, bool)) or box is None or choice in ([], {}):
        raise ValueError(f"{name}={choice!r}: give {kinds}")
    box.description, box.style = name.replace("_", " "), {"description_width": "initial"}
    return box


def interact(draw: Callable[..., Picture], **choices) -> ipywidgets.VBox:
    """Controls above the picture that `draw(**values)` returns, redrawn in place when one moves.

    choices: one for every argument of `draw`, see `control`. Raises what `draw` raises at first.
    """
    controls = {name: control(name, choice) for name, choice in choices.items()}
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
    trouble = ipywidgets.HTML()

    def redraw() -> None:
        picture.value = draw(**{name: box.value for name, box in controls.items()}).png()

    def follow(_change) -> None:
        try:
            redraw()
            trouble.value = ""
        except Exception as error:  # noqa: BLE001  in a callback of a widget it would be lost
            trouble.value = f"{type(error).__name__}: {error}".replace("<", "&lt;")

    redraw()
    for box in controls.values():
        box.observe(follow, names="value")
    row = ipywidgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([row, picture, trouble])
