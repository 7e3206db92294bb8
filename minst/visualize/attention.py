"""Where a query looks: the cross-attention of the global and of the local decoder, over the frame.

    frame ─ encode ─> X6 ─ global_tokens ─> X_G (B, S, D);  X_mask ─ local_tokens ─> X_L (B, S, D)
    queries (B, N, D) ─ cross_attention(queries, X + pos, X) ─> (B, heads, N, S)
                      ─ crop padding ─> (B, heads, N, h, w)

"x chance": the share of attention inside the query's own mask over the mask's share of the frame;
1 if spread evenly.

Symbols: B batch, N queries, S tokens, D channels, H W frame size, h w = H, W over the token stride,
rounded up. Assumption: a token stands for its cell of the frame; it has seen more than that.

Lesson: notebooks/04_dual_decoder.ipynb
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from torch import Tensor

from minst.evaluation.consistency import mask_ious
from minst.model import Frame, MobileInst, image_to_batch, upsample_masks
from minst.visualize.features import evaluating, frame_at
from minst.visualize.masks import class_name
from minst.visualize.style import INK, WIDTH, Picture, bare, caption, headline, new_figure, rgb

__all__ = ["AttentionMaps", "attention_maps", "plot_attention"]

MAP = colormaps["inferno"]
DECODERS, TOKENS = ("global decoder", "local decoder"), ("X_G", "X_L")
LEFT, RIGHT, TOP, GAP, TITLE = 1.22, 0.12, 0.66, 0.06, 0.17  # inches


class AttentionMaps(NamedTuple):
    """Cross-attention of all queries in B frames of a size. Decoder 0 is global, 1 local."""

    weights: tuple[Tensor, Tensor]  # to X_G and to X_L: (B, heads, N, h, w), of sum 1 over h, w
    # A token's cell has stride x stride pixels; the last row and column may overhang the frame.
    stride: int
    size: tuple[int, int]  # (H, W) of the frames

    def on_frame(self, decoder: int, query: int, image: int = 0) -> np.ndarray:
        """The maps of one query, smooth, over the frame: (heads, H, W), 1 = even attention."""
        weights = self.weights[decoder][image, :, query].float().cpu()  # (heads, h, w)
        light = (weights * weights[0].numel())[None]
        # Bilinear, its creases rounded. (Bicubic shows attention where there is none.)
        light = F.interpolate(light, scale_factor=self.stride, mode="bilinear")
        blur = self.stride // 4
        light = F.pad(light, (blur,) * 4, mode="replicate")
        for window in ((1, 2 * blur + 1), (2 * blur + 1, 1)):
            light = F.avg_pool2d(light, window, 1)
        return light[0, :, : self.size[0], : self.size[1]].numpy()

    def inside(self, decoder: int, query: int, mask: np.ndarray, image: int = 0) -> np.ndarray:
        """The share of a query's attention inside a mask (H, W) bool: (heads,) in [0, 1]."""
        mask = torch.from_numpy(np.asarray(mask, dtype=np.float32))
        overhang = (0, -self.size[1] % self.stride, 0, -self.size[0] % self.stride)
        pixels = F.pad(torch.stack([mask, torch.ones_like(mask)]), overhang)
        covered, whole = F.avg_pool2d(pixels, self.stride)  # of a cell: by the mask, by the frame
        weights = self.weights[decoder][image, :, query].cpu()
        return (weights * covered / whole).sum((-2, -1)).numpy()


def attention_maps(model: MobileInst, frames: Frame | Tensor | np.ndarray) -> AttentionMaps:
    """Cross-attention weights of both decoders, without padded tokens.

    frames: what `model.encode` gave (nothing is encoded twice), a tensor (B, 3, H, W) in [0, 1], or
    one image (H, W, 3) in bytes. A token that is padding alone (see `pad_batch`) has weight 0.
    """
    with evaluating(model):
        if not isinstance(frames, Frame):
            frames = model.encode(frames if isinstance(frames, Tensor) else image_to_batch(frames))
        dual, stride = model.instance_decoder, model.config.token_stride
        height, width = (math.ceil(n / stride) for n in frames.size)
        scene, details = dual.global_tokens(frames.x6), dual.local_tokens(frames.padded_x_mask)
        who, weights = dual.queries, []
        content = who.new_zeros(len(frames.x6), *who.shape)  # (B, N, D), nothing has been seen yet
        for decoder, (x, pos) in ((dual.global_decoder, scene), (dual.local_decoder, details)):
            attend = decoder.cross_attention
            _, seen = attend(content + who, x + pos, x, frames.token_padding, return_weights=True)
            seen = seen.unflatten(-1, frames.x6.shape[-2:])  # (B, heads, N, h, w), still padded
            weights.append(seen[..., :height, :width])
            content = decoder(content, who, x, pos, frames.token_padding)
    return AttentionMaps(tuple(weights), stride, tuple(frames.size))


def plot_attention(model: MobileInst, video, frame: int = 0, query: int | None = None) -> Picture:
    """Where a query looks in X_G (global decoder) and X_L (local decoder), per head and on average.

    video: a clip with `render(t)`, whose instances then give the mask its colour, or any iterable
    of frames. query: default the one of the best score. ValueError for a frame or a query that is
    not there.
    """
    image = frame_at(video, frame)
    with evaluating(model):
        seen = model.encode(image_to_batch(image))
        out, maps = seen.out, attention_maps(model, seen)
        scores = out.scores()[0].cpu()  # (N, C)
        query = int(scores.amax(-1).argmax()) if query is None else query
        if query not in range(len(scores)):
            raise ValueError(f"query {query}: give one of 0..{len(scores) - 1}")
        soft = upsample_masks(out.mask_logits[:, [query]], image.shape[:2])[0, 0].sigmoid()
        soft = soft.cpu().numpy()  # (H, W)
    mask = soft >= 0.5
    area = mask.mean()
    color = _color(mask, video.render(frame).masks if hasattr(video, "render") else None)
    rows = [maps.on_frame(decoder, query) for decoder in (0, 1)]
    brightest = max(2.0, *(float(heads.mean(0).max()) for heads in rows))
    # A root, so that faint attention is seen; single heads may exceed the end.
    norm = PowerNorm(0.45, 0, brightest, clip=True)
    fig, top, found = new_figure(), TOP + TITLE, []
    label = int(scores[query].argmax())
    name = class_name(model.config.class_names, label)
    for decoder, heads in enumerate(rows):
        share = maps.inside(decoder, query, mask)
        titles = [f"mean of {len(heads)} heads", *(f"head {i + 1}" for i in range(len(heads)))]
        if area:  # of an empty mask there is nothing to compare with
            parts = [part / area for part in (share.mean(), *share)]
            titles = [f"{title}: {part:.1f} x" for title, part in zip(titles, parts)]
            found.append(f"{parts[0]:.1f} x chance in {TOKENS[decoder]}")
        panels, bottom = _panels(fig, top, image.shape[1] / image.shape[0], len(heads))
        for axes, title, values in zip(panels, titles, [heads.mean(0), *heads]):
            _panel(axes, image, norm(values), soft, color)
            axes.set_title(title, fontsize=6.5, color=INK, pad=2.5, loc="left")
        weights = maps.weights[decoder][0, :, query]
        most = float(weights.amax((-2, -1)).mean())
        words = (
            f"query {query}\n{name} {float(scores[query, label]):.2f}",
            f"{DECODERS[decoder]}:\n{TOKENS[decoder]}, {weights[0].numel()} tokens",
            f"mask: {100 * area:.0f} % of area,\n{100 * share.mean():.0f} % of attention",
            f"a head's top token:\n{100 * most:.0f} % of attention",
        )
        caption(panels[0], "\n\n".join(words), pad=5)
        top = bottom + 0.12 + TITLE
    _scale(fig.place(LEFT, top - TITLE + 0.07, 2.2, 0.09, below=0.26), norm)
    head = f"Attention of query {query} on its own mask: "
    note = "x chance: attention inside the query's mask (the line) over the mask's share of area."
    headline(fig, head + (", ".join(found) or "the mask is empty"), note)
    return fig


def _panels(fig: Picture, top: float, aspect: float, heads: int) -> tuple[list[Axes], float]:
    """Axes of a large mean and of the heads in lines beside it; and where they end, in inches."""
    lines = max(2, math.ceil(heads / 8))
    columns, extra = math.ceil(heads / lines), (lines - 1) * TITLE
    room = (WIDTH - LEFT - RIGHT - columns * GAP) / aspect
    small = min((room - extra) / (lines + columns), 1.2)  # height of a head
    large = lines * small + extra  # of the mean: of all lines of heads together
    panels = [fig.place(LEFT, top, large * aspect, large)]
    for i in range(heads):
        line, column = divmod(i, columns)
        left = LEFT + large * aspect + GAP + column * (small * aspect + GAP)
        panels.append(fig.place(left, top + line * (small + TITLE), small * aspect, small))
    return [bare(axes) for axes in panels], top + large


def _panel(axes: Axes, image: np.ndarray, light: np.ndarray, soft: np.ndarray, color) -> None:
    """Light (H, W) in [0, 1] over the darkened frame, and the outline of the query's mask."""
    cover = np.clip(1.3 * light, 0, 0.9)[..., None]
    dark = 0.4 * image.mean(-1, keepdims=True) / 255
    axes.imshow(dark * (1 - cover) + MAP(light)[..., :3] * cover, interpolation="antialiased")
    for line, width in (("white", 2.0), (color, 1.1)) if soft.min() < 0.5 <= soft.max() else ():
        axes.contour(soft, [0.5], colors=[line], linewidths=width)
    axes.patch.set_visible(False)


def _color(mask: np.ndarray, truth: np.ndarray | None) -> tuple | str:
    """The colour of the instance that a mask covers."""
    if truth is None:
        return rgb(1)
    ious = mask_ious(mask[None], truth)[0]
    return rgb(int(ious.argmax()) + 1) if ious.max(initial=0) >= 0.5 else INK


def _scale(axes: Axes, norm: PowerNorm) -> None:
    """How attention becomes light."""
    ticks = [t for t in (0, 1, 5, 10, 20, 50, 100, 200, 500) if t <= norm.vmax]
    how = {"orientation": "horizontal", "ticks": ticks, "extend": "max"}
    bar = axes.figure.colorbar(ScalarMappable(norm, MAP), cax=axes, **how)
    bar.ax.tick_params(labelsize=6.5, length=2, pad=1)
    words = "attention at a place; 1 = spread evenly over the frame. The same scale in all panels."
    axes.text(1.06, 0.5, words, transform=axes.transAxes, fontsize=6.5, va="center", color=INK)
