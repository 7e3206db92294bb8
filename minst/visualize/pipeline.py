"""The map of the architecture with one block lit: the first picture of every lesson.

    frame -> backbone -> X3, X4, X5 -> mask decoder -> X_mask ------> M = K . X_mask -> tracker
                         X6 -----------^                 | pool            ^ K
                          '-> queries -> global decoder -> local decoder -> heads
          training:                            |                              '-> matching, losses
                                               '-> local decoder of frame t + delta ---^

Nothing is typed in: the model runs once on tensors without data (device "meta"); shapes, the share
of each block in the multiply-accumulates (MACs) and the switches of an ablation are read from that
run and from the config.

Lesson: notebooks/00_start_here.ipynb
"""

import copy

import torch
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.path import Path

from minst.config import MobileInstConfig
from minst.macs import summary
from minst.model import MobileInst
from minst.visualize.style import CENTER, INK, WIDTH, Picture, headline, new_figure, rgb

__all__ = ["BLOCKS", "plot_pipeline"]

# What each block does, for the headline of its lesson.
DATA = "A video comes frame by frame."
BACKBONE = "Convolutions see details (X3, X4, X5), transformer blocks see the whole scene (X6)."
MASK_DECODER = "All levels become one feature map, from which every mask is read."
INSTANCE_DECODER = "Every query becomes a class, an objectness and a kernel: its mask."
LOSSES = "Each annotated instance teaches the one query that fits it best."
TEMPORAL = "The queries of frame t must find the same instances in another frame."
TRACKING = "Kernels are reused between key frames, and matched from one key frame to the next."
# block: (identity that has its colour, title, what it does)
BLOCKS = {
    "data": (6, "data", DATA),
    "backbone": (1, "backbone", BACKBONE),
    "mask_decoder": (3, "mask decoder", MASK_DECODER),
    "instance_decoder": (2, "instance decoder", INSTANCE_DECODER),
    "losses": (4, "matching and losses", LOSSES),
    "temporal": (7, "temporal training", TEMPORAL),
    "tracking": (19, "tracking", TRACKING),
}
HEIGHT = 2.6  # of the map, in inches; the headline stands above
ARROW, QUIET, QUIET_TEXT, DASH = "#7d7d7d", "#c9c9c9", "#767676", (0, (3, 2))
DELTA, TIMES = "\u03b4", "\u00d7"
X_MASK, X_G, X_L, Q_G = (
    rf"{x[0]}$_{{\mathregular{{{x[1:]}}}}}$" for x in ("Xmask", "XG", "XL", "QG")
)
TITLE = {"size": 8.5, "weight": "bold"}


def plot_pipeline(
    model: MobileInst | None = None,
    size: tuple[int, int] = (640, 640),
    highlight: str | None = None,
) -> Picture:
    """The way of a frame of `size` (H, W) through a model (default: a new "shapes-tiny").

    highlight: the block to light, a name of `BLOCKS`; None lights all. Raises ValueError for
    another name, or a side of less than 64 pixels.
    """
    if highlight is not None and highlight not in BLOCKS:
        raise ValueError(f"no block {highlight!r}; highlight one of {', '.join(BLOCKS)}, or None")
    if model is None:
        with torch.device("meta"):
            model = MobileInst(MobileInstConfig.preset("shapes-tiny"))
    shapes, table = _read(model, size)
    params, macs = (table["total"][key] for key in ("params", "macs"))
    shares = {}
    for part, row in table.items():
        percent = 100 * row["macs"] / macs
        shares[part] = f"{percent:.0f} % of MACs" if percent >= 0.95 else "< 1 % of MACs"
    head = "From a video to instances with masks and identities"
    note = f"{model.config.backbone}: {params / 1e6:.1f} M parameters, "
    note += f"{macs / 1e9:.1f} G MACs (multiply-accumulates)."
    if highlight:
        head, note = f"You are here: {BLOCKS[highlight][1]}", BLOCKS[highlight][2]
    fig = new_figure()
    headline(fig, head, note)
    drawing = _Map(fig, highlight)
    _upper_lane(drawing, model.config, shapes, shares, size)
    _instance_decoder(drawing, model.config, shapes, shares["instance_decoder"])
    _training(drawing)
    return fig


def _read(model: MobileInst, size: tuple[int, int]) -> tuple[dict[str, str], dict]:
    """Shapes "C x H x W" by name, and the table of `summary`, from one run without data."""
    meta, seen = copy.deepcopy(model).to("meta"), {}
    for name, part in meta.named_modules():
        part.register_forward_hook(
            lambda _, args, out, name=name: seen.__setitem__(name, (args, out))
        )
    table = summary(meta, size)
    tensors = seen["backbone"][1]._asdict() | {"x_mask": seen["mask_decoder"][1]}
    tensors["masks"] = seen[""][1].mask_logits
    tensors |= dict(zip(("classes", "objectness", "kernels"), seen["instance_decoder.heads"][1]))
    for tokens in ("global", "local"):
        content, _, tensors[tokens], *_ = seen[f"instance_decoder.{tokens}_decoder"][0]
        tensors["queries"] = content  # of the shape of the queries
    shapes = {name: map(str, tensor.shape[1:]) for name, tensor in tensors.items()}
    return {name: f" {TIMES} ".join(sides) for name, sides in shapes.items()}, table


class _Map:
    """Axes in inches over the lower part of a figure, and the few marks that the map is made of."""

    def __init__(self, fig: Picture, lit: str | None):
        self.lit = lit
        self.color = {b: rgb(row[0]) if lit in (None, b) else QUIET for b, row in BLOCKS.items()}
        self.axes = fig.place(0, 0.6, WIDTH, HEIGHT, below=0)
        self.axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        self.axes.axis("off")

    def box(self, block: str, place: tuple, *lines: str, inner=False, dashed=False) -> None:
        """A rounded box, place = (left, bottom, width, height); the first line is its title."""
        x, y, w, h = place
        color, tint = self.color[block], "#f6f6f6"
        if color != QUIET:
            tint = tuple(0.84 + 0.16 * c for c in color)
        look = {"edgecolor": color, "facecolor": "white" if inner else tint}
        look["linewidth"] = 2.2 if self.lit == block and not inner else 1.1
        look["linestyle"] = DASH if dashed else "-"
        style = "round,pad=0,rounding_size=0.07"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, **look))
        top = y + h / 2 + 0.07 * (len(lines) - 1)
        for i, line in enumerate(lines):
            title = {} if i else TITLE | ({"size": 7.5} if inner else {})
            self.words(block, x + w / 2, top - 0.13 * i - 0.03 * bool(i), line, **title)

    def words(self, block: str, x: float, y: float, text: str, **look) -> None:
        """Write into a block, in a colour that is seen on it."""
        color = QUIET_TEXT if self.color[block] == QUIET else INK
        self.axes.text(x, y, text, **{"size": 6.8, "color": color} | CENTER | look)

    def bar(self, block: str, x: float, y: float, w: float, h: float, **look) -> None:
        """A filled rectangle in the colour of a block."""
        look = {"facecolor": self.color[block], "linewidth": 0} | look
        self.axes.add_patch(Rectangle((x, y), w, h, **look))

    def arrow(self, block: str, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through `points` with a head at the last."""
        look = {"linewidth": 1.7 if self.lit == block else 1.0, "color": ARROW}
        if self.lit is not None:
            look["color"] = self.color[block] if self.lit == block else "#ababab"
        look["linestyle"] = DASH if dashed else "-"
        tip = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(path=Path(points), **look, **tip, zorder=1.5))

    def picture(self, block: str, place: tuple, moved: float | None = 0.0) -> None:
        """A frame with two objects that have moved by a share of it; None: an empty one."""
        x, y, w, h = place
        self.bar(block, *place, facecolor="white", edgecolor=self.color[block], linewidth=1)
        if moved is None:
            return
        told_apart = block == "tracking" and self.lit in (None, block)
        disk, triangle = (rgb(2), rgb(1)) if told_apart else ("#bdbdbd", "#a3a3a3")
        u, cx, cy = 0.19 * min(w, h), x + w * (0.7 - moved), y + h * 0.3
        middle = (x + w * (0.3 + moved), y + h * 0.66)
        corners = [(cx - u, cy - 0.8 * u), (cx + u, cy - 0.8 * u), (cx, cy + u)]
        self.axes.add_patch(Circle(middle, u, color=disk, linewidth=0))
        self.axes.add_patch(Polygon(corners, color=triangle, linewidth=0))


def _upper_lane(m: _Map, config: MobileInstConfig, shapes: dict, shares: dict, size) -> None:
    """From the frame to masks and tracks."""
    H, W = size
    tall, wide = 0.66 * H / max(size), 0.66 * W / max(size)
    for i in (2, 1, 0):
        m.picture("data", (0.14 + 0.07 * i, 1.76 + 0.06 * i, wide, tall), None if i else 0.0)
    m.words("data", 0.1, 1.6, f"frame  3 {TIMES} {H} {TIMES} {W}", ha="left")
    m.arrow("data", (1.0, 2.02), (1.35, 2.02))

    block = "backbone"
    lines = [block, config.backbone, shares[block]]
    if not config.injection and config.backbone.startswith("topformer"):
        lines.append("no injection")
    m.box(block, (1.35, 1.57, 1.05, 0.9), *lines)
    for i, name in enumerate(("x3", "x4", "x5", "x6")):
        y = 2.38 - 0.2 * i
        m.bar(block, 2.47, y - 0.05, 0.34 / 1.7**i, 0.1)  # shorter as the level is coarser
        m.words(block, 2.87, y, f"{name.upper()}  {shapes[name]}", ha="left")
    bracket = (3.86, 3.92, 3.92, 3.86), (2.42, 2.42, 1.94, 1.94)
    m.axes.plot(*bracket, color=m.color[block], linewidth=1)
    m.arrow(block, (3.92, 2.18), (4.15, 2.18))
    if config.semantic_enhancer:
        m.arrow(block, (3.86, 1.78), (4.15, 1.78))

    block = "mask_decoder"
    enhancer = "X6 enhances X3..X5" if config.semantic_enhancer else "no semantic enhancer"
    fusion = "down, up, down" if config.bottom_up else "top-down only"
    m.box(block, (4.15, 1.57, 1.2, 0.9), "mask decoder", enhancer, fusion, shares[block])
    m.arrow(block, (5.35, 2.02), (6.6, 2.02))
    m.words(block, 6.03, 2.14, X_MASK, size=9)
    m.words(block, 6.03, 1.9, shapes["x_mask"])
    lines = f"M = K \u00b7 {X_MASK}", shapes["masks"], shares["masks"]
    m.box("instance_decoder", (6.6, 1.57, 0.95, 0.9), *lines)

    block = "tracking"
    m.box(block, (7.95, 1.2, 1.33, 1.27))
    m.words(block, 8.615, 2.34, "tracker", **TITLE)
    for i in range(3):
        m.picture(block, (8.09 + 0.405 * i, 1.83, 0.32, 0.32 * min(1.0, H / W)), 0.14 * i)
    m.words(block, 8.25, 1.72, "key frame")
    m.words(block, 8.86, 1.72, "K reused")
    m.words(block, 8.615, 1.42, "next key frame:\nmatch old K, new K")


def _instance_decoder(m: _Map, config: MobileInstConfig, shapes: dict, share: str) -> None:
    """The middle lane: queries, decoders, heads."""
    block = "instance_decoder"
    m.box(block, (1.35, 0.62, 6.2, 0.76))
    m.words(block, 1.43, 1.21, "instance decoder", ha="left", **TITLE)
    m.words(block, 1.43, 1.05, f"queries Q  {shapes['queries']}", ha="left")
    m.words(block, 1.43, 0.89, share, ha="left")
    m.arrow(block, (2.5, 1.0), (2.75, 1.0))
    m.arrow("backbone", (3.25, 1.69), (3.25, 1.29))
    lines = "global decoder", f"{X_G}  {shapes['global']}"
    m.box(block, (2.75, 0.71, 1.0, 0.58), *lines, inner=True)
    m.arrow(block, (3.75, 1.0), (4.95, 1.0))
    m.words(block, 4.35, 1.12, Q_G, size=8)
    m.arrow("mask_decoder", (5.45, 2.02), (5.45, 1.29))
    lines = "local decoder", f"{X_L}  {shapes['local']}"
    m.box(block, (4.95, 0.71, 1.0, 0.58), *lines, inner=True)
    m.words(block, 5.51, 1.46, f"{config.pooling} pool", ha="left")
    m.arrow(block, (5.95, 1.0), (6.3, 1.0))
    named = {"class": "classes", "objectness": "objectness", "kernels K": "kernels"}
    lines = [f"{words}  {shapes[name]}" for words, name in named.items()]
    m.box(block, (6.3, 0.67, 1.15, 0.66), "heads", *lines, inner=True)
    m.arrow(block, (6.87, 1.33), (6.87, 1.57))
    m.words(block, 6.97, 1.46, "K", size=7.5, weight="bold")
    m.arrow(block, (7.45, 1.0), (7.72, 1.0), (7.72, 2.02), (7.95, 2.02))
    m.arrow(block, (7.55, 2.02), (7.95, 2.02))


def _training(m: _Map) -> None:
    """Matching and losses on all outputs; query passing through another frame's decoder."""
    m.arrow("losses", (7.72, 1.0), (7.72, 0.72), (7.95, 0.72), dashed=True)
    lines = "matching, losses", "class, objectness, masks", "against the annotation"
    m.box("losses", (7.95, 0.08, 1.33, 0.92), *lines, dashed=True)
    m.arrow("temporal", (4.35, 1.0), (4.35, 0.27), (4.88, 0.27), dashed=True)
    lines = "local decoder", f"frame t + {DELTA}"
    m.box("temporal", (4.88, 0.08, 1.14, 0.38), *lines, dashed=True)
    m.arrow("temporal", (6.02, 0.27), (7.95, 0.27), dashed=True)
    m.words("temporal", 6.95, 0.36, f"masks of frame t + {DELTA}")
    m.words("temporal", 4.25, 0.35, "query passing", ha="right", **TITLE)
    m.words("temporal", 4.25, 0.19, f"{Q_G} of frame t, used in frame t + {DELTA}", ha="right")
    m.axes.plot((0.14, 0.44), (0.27, 0.27), color=ARROW, linewidth=1, linestyle=DASH)
    m.axes.text(0.52, 0.27, "training only", fontsize=6.8, color="#555555", va="center")
