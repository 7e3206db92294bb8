"""The map of the architecture with one block lit: the first picture of every lesson.

    frame -> backbone -> X3, X4, X5 -> mask decoder -> X_mask ------> M = K . X_mask -> tracker
                         X6 -----------^                 | pool            ^ K
                          '-> queries -> global decoder -> local decoder -> heads
          training:                            |                              '-> matching, losses
                                               '-> local decoder of frame t + delta ---^

Nothing is typed in: the model runs once on tensors without data (device "meta"); shapes, the share of each block in
the multiply-accumulates (MACs) and the switches of an ablation are read from that run and from the config.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

import copy

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path

from minst.config import MobileInstConfig
from minst.macs import summary
from minst.model import MobileInst
from minst.visualize.style import INK, WIDTH, headline, new_figure, rgb

__all__ = ["BLOCKS", "plot_pipeline"]

# block: (identity that has its colour, title, what it does)
BLOCKS = {
    "data": (6, "data", "A video comes frame by frame."),
    "backbone": (
        1,
        "backbone",
        "Convolutions see details (X3, X4, X5), transformer blocks see the whole scene (X6).",
    ),
    "mask_decoder": (
        3,
        "mask decoder",
        "All levels become one feature map, from which every mask is read.",
    ),
    "instance_decoder": (
        2,
        "instance decoder",
        "Every query becomes a class, an objectness and a kernel: its mask.",
    ),
    "losses": (
        4,
        "matching and losses",
        "Each annotated instance teaches the one query that fits it best.",
    ),
    "temporal": (
        7,
        "temporal training",
        "The queries of frame t must find the same instances in another frame.",
    ),
    "tracking": (
        19,
        "tracking",
        "Kernels are reused between key frames, and matched from one key frame to the next.",
    ),
}
HEIGHT = 2.6  # of the map, in inches; the headline stands above
ARROW, QUIET, QUIET_TEXT, DASH = "#7d7d7d", "#c9c9c9", "#767676", (0, (3, 2))
DELTA, TIMES = "\u03b4", "\u00d7"
X_MASK, X_G, X_L, Q_G = (
    rf"{x[0]}$_{{\mathregular{{{x[1:]}}}}}$" for x in ("Xmask", "XG", "XL", "QG")
)


def plot_pipeline(
    model: MobileInst | None = None,
    size: tuple[int, int] = (640, 640),
    highlight: str | None = None,
) -> Figure:
    """The way of a frame of `size` (H, W) through a model (default: a new "shapes-tiny"), with all shapes.

    highlight: the block to light, a name of `BLOCKS`; None lights all. Raises ValueError for another name or size.
    """
    if highlight is not None and highlight not in BLOCKS:
        raise ValueError(
            f"plot_pipeline: no block {highlight!r}; highlight one of {', '.join(BLOCKS)}, or None"
        )
    if (
        not isinstance(size, (tuple, list))
        or len(size) != 2
        or not all(isinstance(n, int) and n >= 64 for n in size)
    ):
        raise ValueError(
            f"plot_pipeline: size is {size!r}; give (H, W), whole numbers of at least 64"
        )
    if model is None:
        with torch.device("meta"):
            model = MobileInst(MobileInstConfig.preset("shapes-tiny"))
    shapes, table = _read(model, size)
    params, macs = (table["total"][key] for key in ("params", "macs"))
    percent = {part: 100 * row["macs"] / macs for part, row in table.items()}
    shares = {
        part: f"{p:.0f} % of MACs" if p >= 0.95 else "< 1 % of MACs" for part, p in percent.items()
    }
    head = "From a video to instances with masks and identities"
    note = f"{model.config.backbone}: {params / 1e6:.1f} M parameters, {macs / 1e9:.1f} G MACs (multiply-accumulates)."
    if highlight:
        head, note = f"You are here: {BLOCKS[highlight][1]}", BLOCKS[highlight][2]
    fig = new_figure(HEIGHT + 0.6)
    headline(fig, head, note)
    _draw(_Map(fig, highlight), model.config, shapes, shares, size)
    return fig


def _read(model: MobileInst, size: tuple[int, int]) -> tuple[dict[str, str], dict]:
    """Shapes "C x H x W" by name, and the table of `summary`, from one run without data."""
    meta, seen = copy.deepcopy(model).to("meta"), {}
    for name, part in meta.named_modules():
        part.register_forward_hook(
            lambda _, args, out, name=name: seen.__setitem__(name, (args, out))
        )
    table = summary(meta, size)
    tensors = {
        **seen["backbone"][1]._asdict(),
        "x_mask": seen["mask_decoder"][1],
        "masks": seen[""][1].mask_logits,
    }
    tensors |= dict(zip(("classes", "objectness", "kernels"), seen["instance_decoder.heads"][1]))
    for tokens in ("global", "local"):
        content, _, tensors[tokens], *_ = seen[f"instance_decoder.{tokens}_decoder"][0]
        tensors["queries"] = content  # of the shape of the queries
    return {
        name: f" {TIMES} ".join(str(n) for n in tensor.shape[1:])
        for name, tensor in tensors.items()
    }, table


class _Map:
    """Axes in inches over the lower part of a figure, and the few marks that the map is made of."""

    def __init__(self, fig: Figure, lit: str | None):
        self.lit = lit
        self.color = {
            block: rgb(row[0]) if lit in (None, block) else QUIET for block, row in BLOCKS.items()
        }
        self.axes = fig.add_axes(
            (0, 0, 1, HEIGHT / fig.get_figheight()), xlim=(0, WIDTH), ylim=(0, HEIGHT)
        )
        self.axes.axis("off")

    def box(
        self,
        block: str,
        x: float,
        y: float,
        w: float,
        h: float,
        *lines: str,
        inner=False,
        dashed=False,
    ) -> None:
        """A rounded box with its lower left corner at (x, y): the first line is its title."""
        tint = (
            "#f6f6f6"
            if self.color[block] == QUIET
            else tuple(0.84 + 0.16 * c for c in self.color[block])
        )
        look = {"edgecolor": self.color[block], "facecolor": "white" if inner else tint}
        look |= {
            "linewidth": 2.2 if self.lit == block and not inner else 1.1,
            "linestyle": DASH if dashed else "-",
        }
        self.axes.add_patch(
            FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=0.07", **look)
        )
        top = y + h / 2 + 0.07 * (len(lines) - 1)
        for i, line in enumerate(lines):
            place = top if i == 0 else top - 0.03 - 0.13 * i
            title = {} if i else {"size": 7.5 if inner else 8.5, "weight": "bold"}
            self.words(block, x + w / 2, place, line, **title)

    def words(
        self,
        block: str,
        x: float,
        y: float,
        text: str,
        size: float = 6.8,
        ha: str = "center",
        **more,
    ) -> None:
        color = QUIET_TEXT if self.color[block] == QUIET else INK
        self.axes.text(x, y, text, fontsize=size, color=color, ha=ha, va="center", **more)

    def arrow(self, block: str, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through `points` with a head at the last."""
        color = self.color[block] if self.lit == block else ARROW if self.lit is None else "#ababab"
        look = {
            "linewidth": 1.7 if self.lit == block else 1.0,
            "linestyle": DASH if dashed else "-",
            "color": color,
        }
        tip = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(path=Path(points), **look, **tip, zorder=1.5))

    def picture(
        self, block: str, x: float, y: float, w: float, h: float, moved: float | None = 0.0
    ) -> None:
        """A frame with two objects that have moved by a share of it; None: an empty one."""
        self.axes.add_patch(
            Rectangle((x, y), w, h, facecolor="white", edgecolor=self.color[block], linewidth=1)
        )
        if moved is not None:
            told_apart = block == "tracking" and self.lit in (None, block)
            disk, triangle = (rgb(2), rgb(1)) if told_apart else ("#bdbdbd", "#a3a3a3")
            u, cx, cy = 0.19 * min(w, h), x + w * (0.7 - moved), y + h * 0.3
            self.axes.add_patch(
                Circle((x + w * (0.3 + moved), y + h * 0.66), u, color=disk, linewidth=0)
            )
            corners = [(cx - u, cy - 0.8 * u), (cx + u, cy - 0.8 * u), (cx, cy + u)]
            self.axes.add_patch(Polygon(corners, color=triangle, linewidth=0))


def _draw(
    m: _Map, config: MobileInstConfig, shapes: dict[str, str], shares: dict[str, str], size
) -> None:
    """The upper lane, from the frame to masks and tracks; then what lies below it."""
    scale = 0.66 / max(size)
    for i in (2, 1, 0):
        m.picture(
            "data",
            0.14 + 0.07 * i,
            1.76 + 0.06 * i,
            size[1] * scale,
            size[0] * scale,
            None if i else 0.0,
        )
    m.words("data", 0.1, 1.6, f"frame  3 {TIMES} {size[0]} {TIMES} {size[1]}", ha="left")
    m.arrow("data", (1.0, 2.02), (1.35, 2.02))
    plain = not config.injection and config.backbone.startswith("topformer")
    m.box(
        "backbone",
        1.35,
        1.57,
        1.05,
        0.9,
        "backbone",
        config.backbone,
        shares["backbone"],
        *["no injection"] * plain,
    )
    for i, name in enumerate(
        ("x3", "x4", "x5", "x6")
    ):  # a bar each, shorter as the level is coarser
        y = 2.38 - 0.2 * i
        m.axes.add_patch(
            Rectangle((2.47, y - 0.05), 0.34 / 1.7**i, 0.1, color=m.color["backbone"], linewidth=0)
        )
        m.words("backbone", 2.87, y, f"{name.upper()}  {shapes[name]}", ha="left")
    m.axes.plot(
        (3.86, 3.92, 3.92, 3.86), (2.42, 2.42, 1.94, 1.94), color=m.color["backbone"], linewidth=1
    )
    m.arrow("backbone", (3.92, 2.18), (4.15, 2.18))
    if config.semantic_enhancer:
        m.arrow("backbone", (3.86, 1.78), (4.15, 1.78))
    enhancer = "X6 enhances X3..X5" if config.semantic_enhancer else "no semantic enhancer"
    fusion = "down, up, down" if config.bottom_up else "top-down only"
    m.box(
        "mask_decoder",
        4.15,
        1.57,
        1.2,
        0.9,
        "mask decoder",
        enhancer,
        fusion,
        shares["mask_decoder"],
    )
    m.arrow("mask_decoder", (5.35, 2.02), (6.6, 2.02))
    m.words("mask_decoder", 6.03, 2.14, X_MASK, size=9)
    m.words("mask_decoder", 6.03, 1.9, shapes["x_mask"])
    m.box(
        "instance_decoder",
        6.6,
        1.57,
        0.95,
        0.9,
        f"M = K \u00b7 {X_MASK}",
        shapes["masks"],
        shares["masks"],
    )
    _instance_decoder(m, config, shapes, shares["instance_decoder"])
    m.box("tracking", 7.95, 1.2, 1.33, 1.27)
    m.words("tracking", 8.615, 2.34, "tracker", size=8.5, weight="bold")
    for i in range(3):
        m.picture(
            "tracking", 8.09 + 0.405 * i, 1.83, 0.32, 0.32 * min(1.0, size[0] / size[1]), 0.14 * i
        )
    m.words("tracking", 8.25, 1.72, "key frame")
    m.words("tracking", 8.86, 1.72, "K reused")
    m.words("tracking", 8.615, 1.42, "next key frame:\nmatch old K, new K")


def _instance_decoder(
    m: _Map, config: MobileInstConfig, shapes: dict[str, str], share: str
) -> None:
    """The middle lane: queries, decoders, heads; and the lower one, what only training does."""
    block = "instance_decoder"
    m.box(block, 1.35, 0.62, 6.2, 0.76)
    for i, line in enumerate(("instance decoder", f"queries Q  {shapes['queries']}", share)):
        m.words(
            block,
            1.43,
            1.21 - 0.16 * i,
            line,
            ha="left",
            **({} if i else {"size": 8.5, "weight": "bold"}),
        )
    m.arrow(block, (2.5, 1.0), (2.75, 1.0))
    m.arrow("backbone", (3.25, 1.69), (3.25, 1.29))
    m.box(block, 2.75, 0.71, 1.0, 0.58, "global decoder", f"{X_G}  {shapes['global']}", inner=True)
    m.arrow(block, (3.75, 1.0), (4.95, 1.0))
    m.words(block, 4.35, 1.12, Q_G, size=8)
    m.arrow("mask_decoder", (5.45, 2.02), (5.45, 1.29))
    m.box(block, 4.95, 0.71, 1.0, 0.58, "local decoder", f"{X_L}  {shapes['local']}", inner=True)
    m.words(block, 5.51, 1.46, f"{config.pooling} pool", ha="left")
    m.arrow(block, (5.95, 1.0), (6.3, 1.0))
    heads = (
        f"class  {shapes['classes']}",
        f"objectness  {shapes['objectness']}",
        f"kernels K  {shapes['kernels']}",
    )
    m.box(block, 6.3, 0.67, 1.15, 0.66, "heads", *heads, inner=True)
    m.arrow(block, (6.87, 1.33), (6.87, 1.57))
    m.words(block, 6.97, 1.46, "K", size=7.5, weight="bold")
    m.arrow(block, (7.45, 1.0), (7.72, 1.0), (7.72, 2.02), (7.95, 2.02))
    m.arrow(block, (7.55, 2.02), (7.95, 2.02))
    # training: matching and losses on all outputs, query passing through another frame's decoder
    m.arrow("losses", (7.72, 1.0), (7.72, 0.72), (7.95, 0.72), dashed=True)
    lines = ("matching, losses", "class, objectness, masks", "against the annotation")
    m.box("losses", 7.95, 0.08, 1.33, 0.92, *lines, dashed=True)
    m.arrow("temporal", (4.35, 1.0), (4.35, 0.27), (4.88, 0.27), dashed=True)
    m.box("temporal", 4.88, 0.08, 1.14, 0.38, "local decoder", f"frame t + {DELTA}", dashed=True)
    m.arrow("temporal", (6.02, 0.27), (7.95, 0.27), dashed=True)
    m.words("temporal", 6.95, 0.36, f"masks of frame t + {DELTA}")
    m.words("temporal", 4.25, 0.35, "query passing", size=8.5, ha="right", weight="bold")
    m.words("temporal", 4.25, 0.19, f"{Q_G} of frame t, used in frame t + {DELTA}", ha="right")
    m.axes.plot((0.14, 0.44), (0.27, 0.27), color=ARROW, linewidth=1, linestyle=DASH)
    m.axes.text(0.52, 0.27, "training only", fontsize=6.8, color="#555555", va="center")
