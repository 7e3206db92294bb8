"""Images beside one another: frames, masks, maps of numbers. The lessons' plainest picture.

    [(H, W, 3) bytes | (H, W) bool | (H, W) float, ...] -> rows, a title under each image

Lesson: notebooks/01_task_and_data.ipynb
"""

from collections.abc import Sequence

import numpy as np
import torch

from minst.visualize.style import CENTER, WIDTH, Picture, bare, headline, new_figure

__all__ = ["plot_images"]


def plot_images(
    images: Sequence,
    titles: Sequence[str] | None = None,
    head: str = "",
    note: str = "",
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    colors: str = "viridis",
    values: bool = False,
) -> Picture:
    """Images in rows of `columns` (default: all in one row, up to 6).

    images: (H, W, 3) bytes, (3, H, W) floats in [0, 1] (a model's frames), (H, W) bool masks, or
    (H, W) numbers, which share one colour scale, `limits` (default: their least and largest), drawn
    with the colormap `colors` and a bar. values: write each number into its cell (small maps).
    head, note: see `headline`; they are the picture's alt text.
    """
    images = [_readable(image) for image in images]
    if not images:
        raise ValueError("plot_images: no images")
    titles = list(titles or [""] * len(images))
    if len(titles) != len(images):
        raise ValueError(f"plot_images: {len(titles)} titles for {len(images)} images")
    columns = min(columns or 6, len(images))
    maps = [image for image in images if image.ndim == 2 and image.dtype != bool]
    low, high = limits or (min(map(np.min, maps), default=0), max(map(np.max, maps), default=1))
    # All in inches: a picture, the lines of words below it, and what stands above all.
    bar = 0.7 if maps else 0.0
    wide = (WIDTH - 0.2 - bar) / columns
    tall = min(wide * max(image.shape[0] / image.shape[1] for image in images), 4.2)
    words = 0.18 * max(title.count("\n") + 1 for title in titles) + 0.08 if any(titles) else 0.06
    top = (0.62 if note else 0.4) if head else 0.08
    fig = new_figure()
    headline(fig, head, note)
    for i, (image, title) in enumerate(zip(images, titles)):
        row, column = divmod(i, columns)
        left, above = 0.14 + column * wide, top + row * (tall + words)
        axes = bare(fig.place(left, above, wide - 0.08, tall, below=words + 0.05))
        look = {"vmin": 0, "vmax": 1, "cmap": "gray", "interpolation": "nearest"}
        if image.ndim == 3:
            look = {}
        elif image.dtype != bool:
            look |= {"vmin": low, "vmax": high, "cmap": colors}
        shown = axes.imshow(image, **look)
        fig.write(left + wide / 2 - 0.04, above + tall + 0.04, title, ha="center", fontsize=8)
        if values and image.ndim == 2:
            form = "{:.0f}" if np.all(image == np.round(image)) else "{:.2f}"
            for (y, x), value in np.ndenumerate(image):
                ink = "white" if value < (look["vmin"] + look["vmax"]) / 2 else "black"
                axes.text(x, y, form.format(value), fontsize=7, color=ink, **CENTER)
        if maps and image is maps[-1]:
            scale = fig.place(WIDTH - bar + 0.1, above, 0.12, tall)
            fig.colorbar(shown, cax=scale).ax.tick_params(labelsize=7)
    return fig


def _readable(image) -> np.ndarray:
    image = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    if image.size == 0 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
        given = f"an image of shape {image.shape}"
        raise ValueError(f"plot_images: {given}; give (H, W, 3), (3, H, W) or (H, W)")
    return image if image.ndim == 2 or image.dtype == np.uint8 else image.clip(0, 1)
