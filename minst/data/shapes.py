"""`shapes`: an endless, seeded generator of short videos, a fair miniature of video instance segmentation.

    (seed, index) -> script of the clip -> render(t) -> image (H, W, 3) uint8, masks (n, H, W) bool
                     objects, paths, light     back to front: background, shadow and body of every object, light, noise

Eight kinds of creatures swim, flutter and crawl over a picture-book background. A kind is told by its silhouette and
its markings together (a fish by forked tail and stripes, a ladybird by legs and dots, ...); hues are drawn from one pool
for all kinds, so that colour never gives the kind away. Fish, butterfly, turtle and jellyfish deform as they move.

How a creature is drawn: a *signed distance* d(u, v) says how far a point of the creature's own frame (u forward, v to
its right) lies outside its outline; parts are joined with `min`, cut with `max`. d <= 0 is the mask, a ramp one pixel
wide around 0 is the anti-aliased edge, and the same d gives outline, rounded shading and shadow.

The same clip on every machine: random numbers come from PCG64 raw draws; sines and cosines (whose last bit differs
between machines) are scalars or paths that are rounded (1/64 px, 1/1024) before anything is drawn; pixels see only
+ - * / sqrt min max floor, which IEEE 754 defines to the last bit. `render(t)` depends on t alone, in any order.

Train, val and test use the seeds 3s, 3s + 1, 3s + 2: whatever s each of them takes, they never meet.

Assumption: paths are drawn in frame coordinates (as if the camera already moved); the pan moves background and clutter.

Lesson: notebooks/02_data.ipynb
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from tqdm.auto import tqdm

__all__ = ["CATEGORIES", "SPLITS", "ShapesClip", "ShapesConfig", "ShapesFrame", "clip_statistics", "shapes_clip",
           "write_shapes_dataset"]

CATEGORIES = ("fish", "butterfly", "turtle", "snail", "starfish", "jellyfish", "leaf", "ladybird")
SPLITS = ("train", "val", "test")
MIN_AREA = 12  # px: of less than this nobody can tell what it is, so it counts as absent
_TILE = 512  # side of the periodic noise tiles


@dataclass(frozen=True)
class ShapesConfig:
    """What a clip looks like and how hard it is. The knobs are factors: 1 is the default split, 0 switches off.

    Args:
        width, height: frame size in pixels; objects and speeds grow with it. frames: length of a clip.
        min_instances, max_instances: objects in a clip.
        speed: of all motion and deformation (0 to 4). occlusion: how often paths are led across each other (0 to 3).
        crowding: 0 always takes `min_instances`, more leans towards `max_instances` (0 to 4).
        clutter: number of untracked things in the background (0 to 4).
        category: names the clips may show; None is all of `CATEGORIES`. Class ids never change.
    """

    width: int = 256
    height: int = 192
    frames: int = 24
    min_instances: int = 2
    max_instances: int = 6
    speed: float = 1.0
    occlusion: float = 1.0
    crowding: float = 1.0
    clutter: float = 1.0
    category: tuple[str, ...] | None = None

    def __post_init__(self):
        ranges = {"width": (64, 4096), "height": (48, 4096), "frames": (1, 100_000), "min_instances": (1, 64),
                  "max_instances": (1, 64), "speed": (0, 4), "occlusion": (0, 3), "crowding": (0, 4), "clutter": (0, 4)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(high, int) and isinstance(getattr(type(self), name), int) and not isinstance(value, int):
                raise ValueError(f"ShapesConfig.{name} must be a whole number, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"ShapesConfig.{name} must lie in {low} .. {high}, got {value!r}")
        if self.min_instances > self.max_instances:
            raise ValueError(f"ShapesConfig.min_instances ({self.min_instances}) is larger than max_instances "
                             f"({self.max_instances})")
        if self.category is not None:
            unknown = [c for c in self.category if c not in CATEGORIES] if not isinstance(self.category, str) else [1]
            if unknown or not self.category:
                raise ValueError(f"ShapesConfig.category must be a tuple of names out of {', '.join(CATEGORIES)}; "
                                 f"got {self.category!r}")


class ShapesFrame(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (n, H, W) bool, what is visible; disjoint; all False where absent
    amodal: np.ndarray  # (n,) whole projected area in pixels, hidden and cut-off parts too; 0 = wholly outside the frame


# ---------------------------------------------------------------------------------------------- colours and noise


def _oklch(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """Colour of equal perceived lightness -> (3, 1, 1) float32, whole numbers 0..255. Hue in turns."""
    a, b = chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)
    l, m, s = (x**3 for x in (lightness + 0.3963377774 * a + 0.2158037573 * b,
                              lightness - 0.1055613458 * a - 0.0638541728 * b,
                              lightness - 0.0894841775 * a - 1.2914855480 * b))
    linear = (4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
              -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
              -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)
    rgb = [255 * max(0.0, min(1.0, x)) ** (1 / 2.2) for x in linear]
    return np.array([round(x) for x in rgb], np.float32).reshape(3, 1, 1)


class _Random:
    """The few draws we need, straight from PCG64's raw 64 bit numbers: these never change between NumPy versions."""

    def __init__(self, *entropy: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * ((int(self.bits.random_raw()) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        return int(self.uniform() * n)

    def chance(self, p: float) -> bool:
        return self.uniform() < p

    def array(self, *shape: int) -> np.ndarray:
        raw = self.bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(40)).astype(np.float32).reshape(shape) * np.float32(2.0**-24)


@lru_cache(maxsize=None)
def _noise(kind: str) -> np.ndarray:
    """A periodic tile (512, 512) float32: 'cloud' and 'grain' in [0, 1], 'sensor' around 0 with deviation 1."""
    random = _Random(2303, 17594, ("cloud", "grain", "sensor").index(kind))
    if kind == "sensor":  # the sum of 4 uniform numbers is nearly normal
        a, b, c, d = random.array(4, _TILE, _TILE)
        return (a + b + c + d - 2) * np.float32(math.sqrt(3.0))
    total = np.zeros((_TILE, _TILE), np.float32)
    for cells, weight in {"cloud": ((4, 1.0), (8, 0.5), (16, 0.25)), "grain": ((64, 1.0), (128, 0.7), (256, 0.5))}[kind]:
        lattice, step = random.array(cells, cells), _TILE // cells
        part = (np.arange(step, dtype=np.float32) + 0.5) / step
        part = part * part * (3 - 2 * part)  # smoothstep between the lattice points
        rows = lattice[:, None] + part[None, :, None] * (np.roll(lattice, -1, 0) - lattice)[:, None]
        rows = rows.reshape(_TILE, cells)
        full = rows[:, :, None] + part * (np.roll(rows, -1, 1) - rows)[:, :, None]
        total += full.reshape(_TILE, _TILE) * np.float32(weight)
    return (total - total.min()) / (total.max() - total.min())


def _window(tile: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
    """A window of a periodic tile, of any size (a view where it fits)."""
    if max(height, width) <= _TILE:
        y, x = y % (_TILE - height + 1), x % (_TILE - width + 1)
        return tile[y : y + height, x : x + width]
    return tile[np.ix_((np.arange(height) + y) % _TILE, (np.arange(width) + x) % _TILE)]


# ---------------------------------------------------------------------------------------------- distance functions
# All take float32 arrays x, y; exact elementwise arithmetic only.


def _unit(x):
    return np.minimum(np.maximum(x, 0.0), 1.0)


def _disc(x, y, cx, cy, r):
    x, y = x - cx, y - cy
    return np.sqrt(x * x + y * y) - r


def _ellipse(x, y, cx, cy, a, b):
    x, y = (x - cx) * (1 / a), (y - cy) * (1 / b)
    k = np.sqrt(x * x + y * y)
    x, y = x * (1 / a), y * (1 / b)
    return k * (k - 1) / (np.sqrt(x * x + y * y) + 1e-6)  # first-order distance: f / |grad f|


def _limb(x, y, ax, ay, bx, by, ra, rb):
    """A limb from a to b whose radius goes from ra to rb."""
    dx, dy = bx - ax, by - ay
    x, y = x - ax, y - ay
    h = _unit((x * dx + y * dy) * (1 / (dx * dx + dy * dy)))
    x, y = x - h * dx, y - h * dy
    return np.sqrt(x * x + y * y) - (h * (rb - ra) + ra)


def _join(a, b, k):
    """Union with a rounded joint of width k."""
    h = np.maximum(k - np.abs(a - b), 0.0)
    return np.minimum(a, b) - h * h * (0.25 / k)


def _saw(x):
    """Distance to the nearest whole number, 0 .. 0.5."""
    return np.abs(x - np.floor(x + 0.5))


def _wave(x):
    """A sine of period 1 made of parabolas: exact on every machine."""
    x = x - np.floor(x + 0.5)
    return 8 * x * (1 - 2 * np.abs(x))


def _angle(y, x):
    """Angle of (x, y) in turns, -0.5 .. 0.5, to 1e-3."""
    ax, ay = np.abs(x), np.abs(y)
    q = np.minimum(ax, ay) / (np.maximum(ax, ay) + 1e-6)
    q = q * (0.125 + 0.0434 * (1 - q))  # atan(q) / 2 pi for q in 0 .. 1
    q = np.where(ay > ax, 0.25 - q, q)
    q = np.where(x < 0, 0.5 - q, q)
    return np.where(y < 0, -q, q)


# ---------------------------------------------------------------------------------------------- the eight creatures
# Each gets its own frame's coordinates u (forward), v (right) and a beat (sin, cos) of its movement; it returns the
# signed distance of its silhouette and its layers, painted in this order: (signed distance, colour name).


def _fish(u, v, sin, cos):
    w = np.maximum(0.55 - u, 0.0)
    v = v - w * (w * (0.13 * sin) + 0.05 * cos)
    a = np.abs(v)
    body = _ellipse(u, v, 0.22, 0.0, 0.86, 0.52)
    tail = np.maximum(np.maximum(a * 0.8 + (u + 0.4) * 0.6 - 0.03, (0.5 - a) * 0.5 - u * 0.85 - 0.98), u + 0.3)
    fins = np.minimum(_ellipse(u + 0.5 * v, v, -0.12, -0.46, 0.36, 0.28), _ellipse(u - 0.6 * v, v, -0.22, 0.44, 0.24, 0.22))
    tail = np.minimum(np.maximum(tail, a - 0.6) - 0.06, fins)
    stripes = np.maximum(np.maximum(_saw((u - 0.1 * a * a) * 2.4 + 0.14) * 0.42 - 0.095, body + 0.03), u - 0.5)
    return _join(body, tail, 0.12), (
        (tail, "mark"), (body, "base"), (stripes, "mark"), (np.maximum(body + 0.03, 0.62 - u), "skin"),
        (_disc(u, v, 0.72, -0.12, 0.15), "light"), (_disc(u, v, 0.75, -0.12, 0.085), "dark"))


def _butterfly(u, v, sin, cos):
    beat = 0.74 + 0.26 * sin
    a = np.abs(v) * (1 / beat)
    fore = _ellipse(u - 0.35 * a, a + 0.15 * u, 0.14, 0.64, 0.46, 0.58)
    hind = _ellipse(u + 0.3 * a, a, -0.36, 0.48, 0.42, 0.42)
    wings = np.minimum(fore, hind) * min(1.0, beat + 0.1)
    a0 = np.abs(v)
    body = _limb(u, a0, -0.62, 0.0, 0.5, 0.0, 0.07, 0.11)
    feelers = _limb(u, a0, 0.5, 0.05, 0.95, 0.32, 0.035, 0.045)
    spots = np.minimum(_disc(u, a, 0.44, 0.72, 0.2), _disc(u, a, -0.52, 0.5, 0.17))
    return np.minimum(np.minimum(wings, body), feelers), (
        (wings, "mark"), (wings + 0.11, "base"), (np.abs(fore) - 0.02, "dark"), (spots, "light"), (spots + 0.09, "dark"),
        (np.minimum(body, feelers), "dark"))


def _turtle(u, v, sin, cos):
    a = np.abs(v)
    shell = _ellipse(u, v, 0.0, 0.0, 0.8, 0.64)
    front = _limb(u, a, 0.4, 0.45, 0.62 + 0.22 * sin, 0.98, 0.2, 0.11)
    back = _limb(u, a, -0.5, 0.4, -0.82 - 0.1 * sin, 0.7, 0.17, 0.1)
    head = _join(_disc(u, v, 1.04, 0.05 * cos, 0.23), _limb(u, v, 0.6, 0, 1.0, 0.05 * cos, 0.18, 0.16), 0.1)
    skin = np.minimum(np.minimum(front, back), np.minimum(head, _limb(u, v, -0.7, 0.0, -1.02, 0.0, 0.12, 0.03)))
    # plates: hexagons, the nearer of two interleaved rectangular lattices
    w, h = 0.52, 0.52 * 0.8660254 * 2
    x1, y1 = (v * (1 / w) - np.floor(v * (1 / w) + 0.5)) * w, (u * (1 / h) - np.floor(u * (1 / h) + 0.5)) * h
    x2, y2 = v * (1 / w) - 0.5, u * (1 / h) - 0.5
    x2, y2 = (x2 - np.floor(x2 + 0.5)) * w, (y2 - np.floor(y2 + 0.5)) * h
    near = x1 * x1 + y1 * y1 < x2 * x2 + y2 * y2
    x, y = np.abs(np.where(near, x1, x2)), np.abs(np.where(near, y1, y2))
    plates = np.maximum(x, x * 0.5 + y * 0.8660254) - (w / 2 - 0.035)
    return np.minimum(shell, skin), (
        (skin, "skin"), (shell, "dark"), (shell + 0.05, "mark"), (np.maximum(shell + 0.13, plates), "base"),
        (np.maximum(shell + 0.13, plates + 0.11), "mark"), (_disc(u, a, 1.12, 0.12, 0.055), "dark"))


def _snail(u, v, sin, cos):
    shell = _disc(u, v, -0.14, -0.12, 0.7)
    foot = _join(_limb(u, v, -1.05 - 0.06 * sin, 0.66, 0.62, 0.6, 0.06, 0.2),
                 _limb(u, v, 0.6, 0.56, 0.92 + 0.05 * sin, 0.12, 0.21, 0.17), 0.15)
    stalks = np.minimum(_limb(u, v, 0.9, 0.1, 0.84 + 0.08 * sin, -0.38, 0.06, 0.06),
                        _limb(u, v, 0.98, 0.1, 1.14 + 0.08 * sin, -0.32, 0.06, 0.06))
    tips = np.minimum(_disc(u, v, 0.84 + 0.08 * sin, -0.4, 0.1), _disc(u, v, 1.14 + 0.08 * sin, -0.34, 0.1))
    x, y = u + 0.14, v + 0.12
    r = np.sqrt(x * x + y * y)
    spiral = (_saw(_angle(y, x) + r * 3.1) - 0.2) * 0.32
    skin = np.minimum(_join(foot, stalks, 0.06), tips)
    return np.minimum(shell, skin), (
        (skin, "skin"), (tips, "dark"), (shell, "dark"), (shell + 0.05, "base"), (np.maximum(shell + 0.05, spiral), "mark"))


def _starfish(u, v, sin, cos):
    r = np.sqrt(u * u + v * v) * (0.2 * sin)
    x, y = u - r * v, np.abs(v + r * u)  # the arms swirl a little
    for _ in range(2):  # fold the plane along the line at 36 degrees: five arms become one
        beyond = 2 * np.maximum(y * 0.80901699 - x * 0.58778525, 0.0)
        x, y = x + beyond * 0.58778525, np.abs(y - beyond * 0.80901699)
    arm = _limb(x, y, 0.0, 0.0, 1.0, 0.0, 0.44, 0.13)
    dots = np.minimum(np.minimum(_disc(x, y, 0.36, 0.0, 0.12), _disc(x, y, 0.64, 0.0, 0.1)), _disc(x, y, 0.9, 0.0, 0.075))
    star = _limb(x, y, 0.0, 0.0, 0.95, 0.0, 0.28, 0.04)
    return arm, ((arm, "base"), (star, "deep"), (np.minimum(dots, _disc(x, y, 0.0, 0.0, 0.15)), "light"))


def _jellyfish(u, v, sin, cos):
    squeeze = 1 + 0.14 * sin
    w = v * squeeze
    bell = _ellipse(u * (2 - squeeze), w, 0.02, 0.0, 0.88, 0.76)
    hem = -0.06 - 0.07 * (_saw(w * 2.6) * 4 - 1)
    bell = np.maximum(bell, hem - u)
    t = np.minimum(np.maximum(-u, 0.0), 1.2)
    z = w + 0.13 * t * _wave(u * 0.9 + 0.16 * cos + 0.1) + 0.1 * t * sin
    strand = np.minimum(np.maximum(np.floor(z * (1 / 0.36)), -2), 1) + 0.5  # four arms
    arms = np.abs(z - strand * 0.36) - (0.13 - 0.03 * t)
    arms = np.maximum(np.maximum(arms * 0.9, u - 0.1), (-1.12 + 0.12 * np.abs(strand)) - u)
    ribs = (_saw(w * 1.9 / np.maximum(1.35 - 0.85 * np.maximum(u, 0.0), 0.4) + 0.5) - 0.16) * 0.4
    return np.minimum(bell, arms), (
        (arms, "skin"), (bell, "base"), (np.maximum(np.maximum(bell + 0.05, ribs), hem + 0.14 - u), "mark"),
        (np.maximum(bell + 0.02, u - hem - 0.12), "light"))


def _leaf(u, v, sin, cos):
    v = v - (u * u - 0.3) * (0.22 * sin)
    a = np.abs(v)
    x, y = u, a + 0.8
    blade = np.sqrt(x * x + y * y) - 1.32 + (_saw(u * 4.0 + a) - 0.25) * 0.14
    stem = _limb(u, v, -0.9, 0.0, -1.42, 0.1, 0.065, 0.05)
    veins = np.maximum(_saw((u - a * 0.75) * 2.9) * 0.27 - 0.032, blade + 0.1)
    rib = np.maximum(a - 0.045, blade + 0.04)
    return np.minimum(blade, stem), (
        (stem, "skin"), (blade, "base"), (np.maximum(blade, v), "deep"), (np.minimum(veins, rib), "mark"))


def _ladybird(u, v, sin, cos):
    a = np.abs(v)
    wings = _ellipse(u, v, -0.1, 0.0, 0.88, 0.8)
    head = _ellipse(u, v, 0.72, 0.0, 0.3, 0.44)
    step = 0.1 * sin * np.where(v > 0, 1.0, -1.0).astype(np.float32)
    legs = np.minimum(np.minimum(_limb(u - step, a, 0.35, 0.6, 0.62, 1.02, 0.09, 0.06),
                                 _limb(u + step, a, -0.1, 0.7, -0.1, 1.12, 0.09, 0.06)),
                      _limb(u - step, a, -0.5, 0.6, -0.78, 0.96, 0.09, 0.06))
    legs = np.minimum(legs, _limb(u, a, 0.9, 0.15, 1.2, 0.34, 0.05, 0.06))
    dots = np.minimum(np.minimum(_disc(u, a, 0.22, 0.4, 0.19), _disc(u, a, -0.3, 0.5, 0.2)), _disc(u, a, -0.66, 0.2, 0.16))
    seam = np.maximum(a - 0.035, wings)
    return np.minimum(np.minimum(wings, head), legs), (
        (np.minimum(head, legs), "dark"), (_disc(u, a, 0.82, 0.24, 0.1), "light"), (wings, "base"),
        (np.minimum(dots, seam), "mark"))


class _Creature(NamedTuple):
    draw: object  # (u, v, sin, cos) -> distance, layers
    reach: tuple[float, float]  # nothing of it lies further from its origin along u, along v
    area: float  # of the silhouette at scale 1
    upright: bool  # seen from the side: it turns over rather than swim on its back
    spins: bool  # turns about itself rather than heading where it goes


_CREATURES = (
    _Creature(_fish, (1.35, 1.15), 2.08, True, False),
    _Creature(_butterfly, (1.05, 1.2), 2.2, False, False),
    _Creature(_turtle, (1.31, 1.12), 2.38, False, False),
    _Creature(_snail, (1.36, 0.86), 2.34, True, False),
    _Creature(_starfish, (1.16, 1.14), 2.02, False, True),
    _Creature(_jellyfish, (1.1, 0.92), 2.02, False, False),
    _Creature(_leaf, (1.5, 0.66), 1.58, False, True),
    _Creature(_ladybird, (1.3, 1.21), 2.83, False, False),
)


# ---------------------------------------------------------------------------------------------- the script of a clip
# Lengths in the script are in units: 1 unit = 1 px at 256 x 192.


@dataclass
class _Object:
    label: int
    colors: dict[str, np.ndarray]
    scale: np.ndarray  # (T,) units for 1 of the creature's own lengths
    path: np.ndarray  # (T, 2) centre x, y in units
    turn: np.ndarray  # (T, 3) cos, sin of the heading, and +1 or -1: which side is up
    beat: tuple[float, float]  # phase and rate in turns per frame
    texture: tuple[int, int]


def _exact(x, steps: int = 64):
    """Round to 1/steps: what differs between machines in the last bit is equal afterwards."""
    return np.floor(np.asarray(x, np.float64) * steps + 0.5) / steps


def _bounce(x: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Reflect a free path at walls; None = no wall on this side."""
    if low is not None and high is not None:
        span = max(high - low, 1.0)
        return low + span - np.abs((x - low) % (2 * span) - span)
    if low is not None:
        return low + np.abs(x - low)
    return x if high is None else high - np.abs(high - x)


def _path(random: _Random, manner: str, anchor, radius: float, frames: int, size, pace: float, heading: float | None):
    """A path (T, 2) that is curved, changes its pace, and bounces off the walls that its manner leaves it.

    manner: 'stay', 'enter', 'leave' or 'return' (out and back in); anchor: (frame, x, y) it must pass, or None.
    """
    width, height = size
    t = np.arange(frames) - (anchor[0] if anchor else frames * random.uniform(0.3, 0.7))
    middle = frames * random.uniform(0.42, 0.58)
    depth = 1.3 * radius + random.uniform(1, 6)
    needed = (depth + 0.5 * radius) / max(math.sqrt(min(middle, frames - middle) ** 2 + 4) - 2, 0.01)
    if manner == "return" and needed > 2.2 * pace:
        manner = "stay"  # too slow to come back in time
    steady = pace
    pace = pace * random.uniform(0.55, 1.5) * (1.8 if random.chance(0.12) else 1.0)
    vertical, far = random.chance(0.35), random.chance(0.5)  # which border it crosses
    across, along = (height, width) if vertical else (width, height)
    inset = 0.75 * radius
    walls = [[inset, width - inset], [inset, height - inset]]
    inward = math.pi / 2 * vertical + math.pi * far
    if anchor:
        x, y = anchor[1:]
    else:
        x, y = (random.uniform(min(w[0], w[1] - 1), max(w[1], w[0] + 1)) for w in walls)
    if manner == "stay":
        heading = random.uniform(0, 2 * math.pi) if heading is None else heading
    else:
        border = across * far
        x, y = (x, border) if vertical else (border, y)
        heading = inward + random.uniform(-0.5, 0.5)
        walls[vertical][far] = None
        pace = max(pace, min(steady, 2.9 * radius / frames))  # fast enough to be wholly outside for a while
        away = (1.35 * radius + random.uniform(4, 20)) / max(pace * 0.8, 0.3)  # frames from there to the border
        crossing = min(away, frames * random.uniform(0.5, 0.65))
        t = np.arange(frames) - crossing
        if manner == "return":
            t = np.arange(frames) - middle
    swing, bend = random.uniform(0.0, 0.6), random.uniform(-0.06, 0.06)
    period, phase = random.uniform(14, 40), random.uniform(0, 2 * math.pi)
    angle = heading + bend * t + random.uniform(0, 0.5) * np.sin(2 * math.pi * t / period + phase)
    rate = pace * (1 + swing * np.sin(2 * math.pi * t / random.uniform(14, 40) + phase))
    steps = rate[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    free = np.cumsum(steps, 0)
    at = int(min(max(-t[0], 0), frames - 1))
    free += np.array([x, y]) - free[at]
    if manner == "leave":
        free = free[::-1]
    if manner == "return":  # a hyperbola: in along one branch, out again along the other
        inwards = max(1.25 * pace, needed) * (np.sqrt(t * t + 4) - 2) - depth
        free[:, int(vertical)] = across - inwards if far else inwards
        slide = pace * random.uniform(-0.6, 0.6) * t
        free[:, 1 - int(vertical)] = along * random.uniform(0.25, 0.75) + slide
    return _exact(np.stack([_bounce(free[:, i], *walls[i]) for i in (0, 1)], 1))


def _headings(random: _Random, path: np.ndarray, creature: _Creature, speed: float) -> np.ndarray:
    """(T, 3) cos, sin, side: towards where the path goes, turning by at most 20 degrees a frame."""
    frames = len(path)
    if creature.spins or frames == 1:
        spin = random.uniform(0.03, 0.12) * speed * (1 if random.chance(0.5) else -1)
        angles = random.uniform(0, 2 * math.pi) + spin * np.arange(frames)
        sides = np.ones(frames)
    else:
        offset = random.uniform(-0.25, 0.25)
        wanted = [math.atan2(dy, dx) for dx, dy in np.diff(path, axis=0)]
        angle, side, angles, sides = wanted[0], 1.0, [], []
        for goal in [wanted[0], *wanted]:
            angle += max(-0.35, min(0.35, (goal - angle + math.pi) % (2 * math.pi) - math.pi))
            if creature.upright and abs(math.cos(angle)) > 0.3:
                side = 1.0 if math.cos(angle) > 0 else -1.0
            angles.append(angle + offset)
            sides.append(side)
    return np.stack([_exact(np.cos(angles), 1024), _exact(np.sin(angles), 1024), np.asarray(sides)], 1)


def _colors(random: _Random, hue: float) -> dict[str, np.ndarray]:
    """A creature's own harmony: body, markings clearly lighter or darker, skin between them."""
    light = random.uniform(0.58, 0.8)
    chroma = random.uniform(0.1, 0.17)
    dark_marks = random.chance(0.5) if light > 0.64 else False
    mark_hue = hue + random.uniform(-0.12, 0.12)
    mark = _oklch(light - 0.27, chroma * 0.9, mark_hue) if dark_marks else _oklch(min(light + 0.24, 0.95), 0.06, mark_hue)
    return {"base": _oklch(light, chroma, hue), "deep": _oklch(light - 0.09, chroma, hue - 0.02), "mark": mark,
            "skin": _oklch(light - 0.02 if dark_marks else light + 0.1, chroma * 0.7, hue + random.uniform(-0.08, 0.08)),
            "dark": _oklch(0.27, 0.05, hue), "light": _oklch(0.96, 0.025, hue + 0.2)}


class ShapesClip:
    """One clip: the script is made here (cheap), a frame is drawn by `render(t)`, in any order.

    labels: (n,) int64, index into `CATEGORIES`. Instances are numbered from back to front.
    """

    def __init__(self, config: ShapesConfig, seed: int, index: int):
        if not (isinstance(seed, int | np.integer) and isinstance(index, int | np.integer)):
            raise ValueError(f"shapes: seed and index must be whole numbers, got {seed!r} and {index!r}")
        if not (0 <= seed < 2**32 and 0 <= index < 2**32):
            raise ValueError(f"shapes: seed and index must lie in 0 .. 2**32 - 1, got {seed} and {index}")
        self.config, self.seed, self.index = config, int(seed), int(index)
        self.unit = math.sqrt(config.width * config.height / (256 * 192))
        random = _Random(int(seed), int(index))
        self._objects = self._script(random)
        self.labels = np.array([o.label for o in self._objects], np.int64)  # (n,)
        self._scene = self._light_and_camera(random)
        self._background_seed = random.below(2**31)
        self._canvas = None

    @property
    def num_frames(self) -> int:
        return self.config.frames

    def __len__(self) -> int:
        return self.config.frames

    def _script(self, random: _Random) -> list[_Object]:
        cfg, frames = self.config, self.config.frames
        size = (cfg.width / self.unit, cfg.height / self.unit)
        spread = cfg.max_instances - cfg.min_instances + 1
        count = cfg.min_instances
        if cfg.crowding > 0:
            count += min(int(spread * random.uniform() ** (1.4 / cfg.crowding)), spread - 1)
        allowed = [CATEGORIES.index(c) for c in cfg.category or CATEGORIES]
        self.hue = random.uniform()
        twins = random.chance(0.3)
        objects: list[_Object] = []
        for k in range(count):
            twin = objects[0] if twins and k == 1 else None
            label = twin.label if twin else allowed[random.below(len(allowed))]
            creature = _CREATURES[label]
            hue = self.hue + 0.382 * random.below(5) + random.uniform(-0.05, 0.05)
            colors = twin.colors if twin and random.chance(0.7) else _colors(random, hue)
            across = 55 * (92 / 55) ** random.uniform()  # diameter of the disc of equal area
            radius = across / 2
            growth = random.uniform(-0.25, 0.25)
            tau = np.linspace(-0.5, 0.5, frames) if frames > 1 else np.zeros(1)
            scale = _exact(math.sqrt(math.pi / creature.area) * radius * (1 + growth * tau))
            path = self._choose_path(random, objects, radius, size)
            objects.append(_Object(label, colors, scale, path, _headings(random, path, creature, cfg.speed),
                                   (random.uniform(), random.uniform(0.06, 0.12) * cfg.speed),
                                   (random.below(_TILE), random.below(_TILE))))
        return objects

    def _choose_path(self, random: _Random, others: list[_Object], radius: float, size) -> np.ndarray:
        cfg, frames = self.config, self.config.frames
        pace = 4.9 * cfg.speed
        if others and random.chance(0.09 * cfg.occlusion):  # led across the path of another
            other = others[random.below(len(others))].path
            t = int(frames * random.uniform(0.25, 0.75))
            step = other[min(t + 1, frames - 1)] - other[t]
            heading = math.atan2(step[1], step[0]) + math.pi * random.uniform(0.5, 1.5)
            x, y = (min(max(other[t][i] + random.uniform(-6, 6), 0.6 * radius), size[i] - 0.6 * radius) for i in (0, 1))
            return _path(random, "stay", (t, x, y), radius, frames, size, pace, heading)
        draw = random.uniform()
        manner = "enter" if draw < 0.15 else "leave" if draw < 0.3 else "return" if draw < 0.39 else "stay"
        best, least = None, math.inf
        for _ in range(5):  # of five paths the one that meets the others least
            path = _path(random, manner, None, radius, frames, size, pace, None)
            near = sum(int((((path - o.path) ** 2).sum(1) < (1.5 * radius + 8) ** 2).sum()) for o in others)
            if near < least:
                best, least = path, near
        return best

    def _light_and_camera(self, random: _Random) -> dict:
        t = np.arange(self.config.frames)
        turn = lambda: random.uniform(0, 2 * math.pi)  # noqa: E731
        angle, wobble = turn(), turn()
        drift = random.uniform(0, 1.6) * self.config.speed
        reach = 26.0
        pan = [np.clip(drift * (t - t.mean()) * f(angle) + random.uniform(0, 5) * np.sin(t * 0.2 + wobble), -reach, reach)
               for f in (math.cos, math.sin)]
        pulse = random.uniform(0.02, 0.13) * np.sin(2 * math.pi * t / random.uniform(16, 50) + turn())
        warmth = random.uniform(-0.05, 0.05) * np.linspace(-1, 1, len(t))
        gain = np.stack([1 + pulse + warmth, 1 + pulse, 1 + pulse - warmth], 1)
        slope = random.uniform(0.0, 0.13)
        fall = turn() + random.uniform(-0.04, 0.04) * t
        return {"pan": _exact(np.stack(pan, 1) * self.unit), "gain": _exact(gain, 1024),  # (T, 2), (T, 3)
                "slope": _exact(np.stack([slope * np.cos(fall), slope * np.sin(fall)], 1), 1024),  # (T, 2)
                "noise": random.uniform(1.0, 4.5), "reach": math.ceil(reach * self.unit) + 1,
                "noise_at": (random.below(_TILE), random.below(_TILE))}

    # ------------------------------------------------------------------------------------------ drawing

    def render(self, t: int) -> ShapesFrame:
        """Draw frame t (0 .. frames - 1): background, then every creature from back to front, then light and noise."""
        cfg = self.config
        if not 0 <= t < cfg.frames:
            raise ValueError(f"shapes: frame {t} does not exist; the clip has frames 0 .. {cfg.frames - 1}")
        if self._canvas is None:
            self._canvas = self._paint_background()
        frame = self._camera(t)  # (3, H, W) float32
        owner = np.full((cfg.height, cfg.width), -1, np.int8)
        amodal = np.zeros(len(self._objects), np.int64)
        for i, thing in enumerate(self._objects):
            amodal[i] = self._paint_object(frame, owner, i, thing, t)
        image = self._light(frame, t)
        masks = owner == np.arange(len(self._objects), dtype=np.int8)[:, None, None]  # (n, H, W)
        for mask in masks:
            if np.count_nonzero(mask) < MIN_AREA:
                mask[:] = False
        return ShapesFrame(image, masks, amodal)

    def _camera(self, t: int) -> np.ndarray:
        """The part of the canvas that the camera sees, at 1/64 px."""
        cfg, reach = self.config, self._scene["reach"]
        dx, dy = self._scene["pan"][t] + reach
        x, y = int(dx), int(dy)
        part = self._canvas[:, y : y + cfg.height + 1, x : x + cfg.width + 1]
        rows = part[:, :-1] + (part[:, 1:] - part[:, :-1]) * np.float32(dy - y)
        return rows[:, :, :-1] + (rows[:, :, 1:] - rows[:, :, :-1]) * np.float32(dx - x)

    def _light(self, frame: np.ndarray, t: int) -> np.ndarray:
        cfg, scene = self.config, self._scene
        sx, sy = scene["slope"][t]
        x = np.arange(cfg.width, dtype=np.float32) * np.float32(2 / cfg.width) - 1
        y = np.arange(cfg.height, dtype=np.float32) * np.float32(2 / cfg.height) - 1
        light = 1 + x * np.float32(sx) + (y * np.float32(sy))[:, None]
        frame *= light
        frame *= scene["gain"][t].astype(np.float32)[:, None, None]
        oy, ox = scene["noise_at"]
        for c in range(3):  # every frame and channel sees another window of the noise
            noise = _window(_noise("sensor"), oy + 97 * t + 171 * c, ox + 211 * t + 59 * c, cfg.height, cfg.width)
            frame[c] += noise * np.float32(scene["noise"])
        np.minimum(np.maximum(frame + 0.5, 0, out=frame), 255, out=frame)
        return np.ascontiguousarray(frame.astype(np.uint8).transpose(1, 2, 0))

    def _paint_object(self, frame: np.ndarray, owner: np.ndarray, i: int, thing: _Object, t: int) -> int:
        """Paint object i, mark its pixels in `owner`, return its whole projected area (0: nothing in the frame)."""
        creature = _CREATURES[thing.label]
        scale = float(thing.scale[t] * self.unit)
        cx, cy = _exact(thing.path[t] * self.unit)
        cos, sin, side = (float(z) for z in thing.turn[t])
        ru, rv = (r * scale for r in creature.reach)
        rx, ry = (abs(a) * ru + abs(b) * rv + 3 * self.unit for a, b in ((cos, sin), (sin, cos)))
        x0, y0, x1, y1 = math.floor(cx - rx), math.floor(cy - ry), math.ceil(cx + rx), math.ceil(cy + ry)
        cut = _overlap(frame.shape, y0, x0, (y1 - y0, x1 - x0))
        if cut is None:
            return 0
        x = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - cx)
        y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
        u = x * np.float32(cos / scale) + y * np.float32(sin / scale)
        v = x * np.float32(-sin * side / scale) + y * np.float32(cos * side / scale)
        phase = 2 * math.pi * (thing.beat[0] + thing.beat[1] * t)
        distance, layers = creature.draw(u, v, float(_exact(math.sin(phase), 1024)), float(_exact(math.cos(phase), 1024)))
        view, patch = cut
        inside = distance <= 0
        seen = inside[patch]
        if not seen.any():
            return 0
        row, column = thing.texture
        grain = _noise("cloud")[(v[patch] * 60.0).astype(np.int32) + row & _TILE - 1,
                                (u[patch] * 60.0).astype(np.int32) + column & _TILE - 1]
        near = distance[patch]
        shade = 0.67 + 0.2 * _unit(near * -3.0) + grain * 0.3
        shade -= (x[patch[1]] * 0.5 + y[patch[0]] * 0.85) * np.float32(0.16 / scale)
        _shadow(frame, y0 + round(3 * self.unit), x0 + round(2 * self.unit), distance * np.float32(scale / self.unit))
        _stamp(frame, y0, x0, distance, layers, thing.colors, scale, shade, 1.3 * self.unit)
        owner[view][seen] = i
        return int(np.count_nonzero(inside))

    def _paint_background(self) -> np.ndarray:
        """The world behind the creatures, larger than the frame by the camera's reach -> (3, H + 2r, W + 2r) float32."""
        cfg, unit = self.config, self.unit
        random = _Random(self._background_seed, 1)
        height, width = (n + 2 * self._scene["reach"] + 1 for n in (cfg.height, cfg.width))
        at = lambda: (random.below(_TILE), random.below(_TILE))  # noqa: E731
        cloud = _window(_noise("cloud"), *at(), height, width)
        y = (np.arange(height, dtype=np.float32) * np.float32(1 / height))[:, None]
        x = np.arange(width, dtype=np.float32) * np.float32(1 / width)
        style = random.below(5)
        if style == 0:  # sky: clouds over a gradient
            field = 0.25 + 0.35 * y + 0.45 * (cloud - 0.4)
        elif style == 1:  # hills, one behind the other
            field = 0.08 + 0.1 * y + 0 * x
            for k in range(4):
                ridge = _noise("cloud")[random.below(_TILE)][np.arange(width) * (k + 2) // 3 % _TILE]
                depth = y - (0.12 + 0.2 * k + 0.3 * (ridge - 0.4))
                hill = 0.2 + 0.2 * k + 0.16 * _unit(1 - depth * 3) + 0.06 * (cloud - 0.5)
                field = field + (hill - field) * _unit(depth * height)
        elif style == 2:  # water: bands of equal height of a noise
            field = 0.2 + 0.3 * y + 0.5 * _saw(cloud * 5 + y * 2)
        elif style == 3:  # wallpaper: soft dots
            n = random.uniform(5, 9)
            dx, dy = _saw(x * n * width / height + 0.2 * cloud), _saw(y * n)
            field = 0.3 + 0.3 * cloud + 0.3 * _unit((0.06 - dx * dx - dy * dy) * 12)
        else:  # dunes: slanted waves
            field = 0.45 + 0.2 * _wave(x * random.uniform(2, 5) + y * random.uniform(-6, 6) + 0.8 * cloud) + 0.35 * (y - 0.5)
        hue = self.hue + random.uniform(0.3, 0.7)
        low = (0.36, 0.5, 0.66)[random.below(3)] + random.uniform(-0.04, 0.04)
        chroma = random.uniform(0.03, 0.075)
        turn = random.uniform(-0.14, 0.14)
        stops = [_oklch(low + 0.24 * k, chroma * (1.1 - 0.4 * k), hue + turn * k).ravel() for k in (0.0, 0.5, 1.0)]
        ramp = np.concatenate([a + (b - a) * np.arange(128, dtype=np.float32)[:, None] / 128
                               for a, b in zip(stops, stops[1:])]).T.copy()  # (3, 256)
        level = (_unit(field) * 255).astype(np.uint8)
        canvas = np.stack([channel[level] for channel in ramp])
        canvas *= 0.94 + 0.12 * _window(_noise("grain"), *at(), height, width)
        kinds = [random.below(5), random.below(5)]
        for _ in range(int(cfg.clutter * random.uniform(5, 16) + 0.5)):
            self._paint_clutter(canvas, random, kinds[random.below(2)], hue, low, chroma)
        return canvas

    def _paint_clutter(self, canvas: np.ndarray, random: _Random, kind: int, hue: float, low: float, chroma: float) -> None:
        """A pebble, blade, bubble, spark or tuft that belongs to no category and is not tracked."""
        size = random.uniform(5, 15) * self.unit
        cx, cy = random.uniform(0, canvas.shape[2]), random.uniform(0, canvas.shape[1])
        angle = random.uniform(0, 2 * math.pi)
        cos, sin = float(_exact(math.cos(angle), 1024)), float(_exact(math.sin(angle), 1024))
        reach = 2.2 * size
        x0, y0 = int(cx - reach), int(cy - reach)
        x = np.arange(x0, int(cx + reach) + 1, dtype=np.float32) + np.float32(0.5 - cx)
        y = (np.arange(y0, int(cy + reach) + 1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
        u, v = (x * cos + y * sin) * np.float32(1 / size), (y * cos - x * sin) * np.float32(1 / size)
        if kind == 0:  # pebble
            d = _ellipse(u, v, 0, 0, 1.0, random.uniform(0.5, 0.9))
        elif kind == 1:  # blade
            d = _limb(u, v - 0.25 * u * u, -1.7, 0, 1.7, 0, 0.05, 0.25)
        elif kind == 2:  # bubble
            d = np.abs(_disc(u, v, 0, 0, 0.8)) - 0.12
        elif kind == 3:  # spark
            d = (np.sqrt(np.abs(u)) + np.sqrt(np.abs(v)) - 1) * 0.7
        else:  # tuft
            d = np.minimum(np.minimum(_disc(u, v, -0.6, 0.1, 0.5), _disc(u, v, 0.1, -0.2, 0.6)), _disc(u, v, 0.7, 0.15, 0.42))
        vivid = random.chance(0.35)
        light = (random.uniform(0.55, 0.8) if vivid else low + random.uniform(-0.08, 0.36))
        color = _oklch(light, 0.11 if vivid else chroma + 0.02, hue + (random.uniform(-0.5, 0.5) if vivid else 0.0))
        colors = {"base": color, "dark": color * 0.7}
        _stamp(canvas, y0, x0, d, ((d, "base"),), colors, size, 1.0, 0.8 * self.unit)


# ---------------------------------------------------------------------------------------------- painting


def _overlap(frame_shape, y0: int, x0: int, shape) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where a patch at (y0, x0) meets the frame: slices of the frame, slices of the patch; None if nowhere."""
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y0 + shape[0], frame_shape[1]), min(x0 + shape[1], frame_shape[2])
    if top >= bottom or left >= right:
        return None
    return (slice(top, bottom), slice(left, right)), (slice(top - y0, bottom - y0), slice(left - x0, right - x0))


def _shadow(frame: np.ndarray, y0: int, x0: int, distance: np.ndarray) -> None:
    cut = _overlap(frame.shape, y0, x0, distance.shape)
    if cut:
        frame[(slice(None), *cut[0])] *= 1 - 0.34 * _unit(0.45 - distance[cut[1]] * 0.1)


def _stamp(frame, y0, x0, distance, layers, colors, scale, shade, line) -> None:
    """Paint layers (distance, colour name) over each other, shade them, draw the outline, lay all onto the frame."""
    cut = _overlap(frame.shape, y0, x0, distance.shape)
    if cut is None:
        return
    view, patch = (slice(None), *cut[0]), cut[1]
    distance = distance[patch] * np.float32(scale)  # from here on in pixels
    paint = np.empty((3, *distance.shape), np.float32)
    paint[:] = colors["base"]
    for d, name in layers:
        paint += (colors[name] - paint) * _unit(0.5 - d[patch] * np.float32(scale))
    paint *= shade
    paint += (colors["dark"] - paint) * (_unit(distance + np.float32(line + 0.5)) * 0.85)
    target = frame[view]
    target += (paint - target) * _unit(0.5 - distance)


# ---------------------------------------------------------------------------------------------- splits, statistics, files


def shapes_clip(split: str, index: int, config: ShapesConfig = ShapesConfig(), seed: int = 0) -> ShapesClip:
    """Clip `index` of a split. Splits never share a clip's seed, whatever `seed` is: they own 3 seed + 0, 1, 2."""
    if split not in SPLITS:
        raise ValueError(f"shapes: split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**30:
        raise ValueError(f"shapes: seed must be a whole number in 0 .. 2**30 - 1, got {seed!r}")
    return ShapesClip(config, 3 * int(seed) + SPLITS.index(split), index)


def clip_statistics(clips: Iterable[ShapesClip]) -> dict:
    """Measure clips by drawing every frame.

    Returns videos, frames_per_video, instances, instances_per_video, categories, and
        visible_area: mean share of the frame that an instance covers where it is visible
        half_hidden: share of instances of which, in some frame, more than half is occluded or cut off by the frame
        in_and_out: share of instances seen in some frame and wholly outside in another
        speed: median move of the visible mask's centroid from one frame to the next, as a share of the width
    """
    videos = frames = instances = half = inout = 0
    areas, moves, labels, smallest = [], [], set(), []
    for clip in clips:
        drawn = [clip.render(t) for t in range(len(clip))]
        visible = np.stack([f.masks.sum((1, 2)) for f in drawn])  # (T, n)
        amodal = np.stack([f.amodal for f in drawn])
        seen = visible > 0
        height, width = drawn[0].image.shape[:2]
        videos, frames, instances = videos + 1, frames + len(clip), instances + len(clip.labels)
        labels.update(clip.labels.tolist())
        half += int((seen & (2 * visible < amodal)).any(0).sum())
        inout += int((seen.any(0) & (amodal == 0).any(0)).sum())
        areas += (visible[seen] / (height * width)).tolist()
        rows = np.stack([f.masks.sum(2) @ np.arange(height) for f in drawn]) / np.maximum(visible, 1)
        cols = np.stack([f.masks.sum(1) @ np.arange(width) for f in drawn]) / np.maximum(visible, 1)
        both = seen[1:] & seen[:-1]
        moves += (np.sqrt(np.diff(rows, axis=0) ** 2 + np.diff(cols, axis=0) ** 2)[both] / width).tolist()
    if not videos:
        raise ValueError("clip_statistics: no clips were given")
    return {"videos": videos, "frames_per_video": frames / videos, "instances": instances,
            "instances_per_video": instances / videos, "categories": len(labels),
            "visible_area": float(np.mean(areas)) if areas else 0.0, "half_hidden": half / instances,
            "in_and_out": inout / instances, "speed": float(np.median(moves)) if moves else 0.0}


def write_shapes_dataset(out_dir, videos: int, config: ShapesConfig = ShapesConfig(), seed: int = 0, split: str = "val",
                         images: bool = False) -> Path:
    """Write clips 0 .. videos - 1 of a split and return the path of `annotations.json`.

    YouTube-VIS form: JPEGImages/<video>/<frame>.jpg; with `images` COCO form: images/<clip>.jpg, a random frame of each.
    """
    out = Path(out_dir)
    if videos < 1:
        raise ValueError(f"shapes: videos must be at least 1, got {videos}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"shapes: {out} is not an empty directory; choose another one or empty it first")
    data = {"info": {"description": f"minst shapes, split {split}, seed {seed}", "version": "1.0", "year": 2026},
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images" if images else "videos": [], "annotations": [],
            "categories": [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CATEGORIES)]}
    size = {"width": config.width, "height": config.height}
    for number in tqdm(range(videos), desc="shapes", unit="clip"):
        clip = shapes_clip(split, number, config, seed)
        times = [_Random(clip.seed, number, 1).below(len(clip))] if images else list(range(len(clip)))
        names = [f"{number:05d}.jpg"] if images else [f"{number:05d}/{t:05d}.jpg" for t in times]
        folder = out / ("images" if images else f"JPEGImages/{number:05d}")
        folder.mkdir(parents=True, exist_ok=True)
        tracks = [[] for _ in clip.labels]
        for t, name in zip(times, names):
            frame = clip.render(t)
            Image.fromarray(frame.image).save(folder / Path(name).name, quality=92)
            for track, mask in zip(tracks, frame.masks):
                track.append(rle.encode(np.asfortranarray(mask, np.uint8)) if mask.any() else None)
        common = {"license": 1, "id": number + 1, **size}
        if images:
            data["images"].append({**common, "file_name": names[0]})
        else:
            data["videos"].append({**common, "length": len(clip), "file_names": names})
        for label, track in zip(clip.labels, tracks):
            if not any(track):
                continue  # never seen: nothing to learn and nothing to find
            area = [None if r is None else int(rle.area(r)) for r in track]
            box = [None if r is None else rle.toBbox(r).tolist() for r in track]
            track = [None if r is None else {"size": list(r["size"]), "counts": r["counts"].decode()} for r in track]
            entry = {"id": len(data["annotations"]) + 1, "category_id": int(label) + 1, "iscrowd": 0}
            if images:
                entry |= {"image_id": number + 1, "segmentation": track[0], "bbox": box[0], "area": area[0]}
            else:
                entry |= {"video_id": number + 1, "segmentations": track, "bboxes": box, "areas": area,
                          "length": len(clip), **size}
            data["annotations"].append(entry)
    path = out / "annotations.json"
    path.write_text(json.dumps(data))
    return path
