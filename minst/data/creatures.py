"""The eight creatures of `shapes`: each is a formula for its outline and its markings.

    u forward, v to its right, beat (sin, cos) of its movement
      -> signed distance of the silhouette, layers of paint

A *signed distance* d(u, v) says how far a point lies outside an outline (negative: inside). Parts
are united with `min` and cut with `max`. d <= 0 is the mask, a ramp one pixel wide around 0 is the
anti-aliased edge, and the same d gives outline, rounded shading and shadow: no polygons, any size,
any rotation, and the bend of a swimming fish is another v. Layers are (signed distance, name of a
colour), painted over each other in order.

All but the ladybird's body deform as they move. Colours come from outside and are the same for all
kinds. Arrays are float32 and see only + - * / sqrt min max floor, which IEEE 754 defines to the
last bit.

Lesson: notebooks/01_task_and_data.ipynb
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np

__all__ = [
    "CREATURES", "Creature", "clip01", "clip_patch", "cut", "disc", "ellipse", "limb", "oklch",
    "saw", "shadow", "stamp", "union", "wave",
]  # fmt: skip


def clip01(x):
    """x held between 0 and 1."""
    return np.minimum(np.maximum(x, 0.0), 1.0)


def union(*distances):
    """Where any of them is: the smallest distance."""
    return reduce(np.minimum, distances)


def cut(*distances):
    """What all have in common; `cut(a, -b)` takes b out of a."""
    return reduce(np.maximum, distances)


def disc(x, y, cx, cy, r):
    """Signed distance of (x, y) to a circle of radius r about (cx, cy): negative inside."""
    x, y = x - cx, y - cy
    return np.sqrt(x * x + y * y) - r


def ellipse(x, y, cx, cy, a, b):
    """Signed distance, to first order, to an ellipse about (cx, cy) of half axes a and b."""
    x, y = (x - cx) * (1 / a), (y - cy) * (1 / b)
    k = np.sqrt(x * x + y * y)
    x, y = x * (1 / a), y * (1 / b)
    return k * (k - 1) / (np.sqrt(x * x + y * y) + 1e-6)  # first-order distance: f / |grad f|


def limb(x, y, ax, ay, bx, by, ra, rb):
    """A limb from a to b whose radius goes from ra to rb."""
    dx, dy = bx - ax, by - ay
    x, y = x - ax, y - ay
    h = clip01((x * dx + y * dy) * (1 / (dx * dx + dy * dy)))
    x, y = x - h * dx, y - h * dy
    return np.sqrt(x * x + y * y) - (h * (rb - ra) + ra)


def discs(x, y, *circles):
    """The union of circles (cx, cy, r)."""
    return union(*(disc(x, y, *circle) for circle in circles))


def limbs(x, y, *rows):
    """The union of limbs (ax, ay, bx, by, ra, rb)."""
    return union(*(limb(x, y, *row) for row in rows))


def join(a, b, k):
    """Union with a rounded joint of width k."""
    h = np.maximum(k - np.abs(a - b), 0.0)
    return np.minimum(a, b) - h * h * (0.25 / k)


def saw(x):
    """Distance to the nearest whole number, 0 .. 0.5."""
    return np.abs(x - np.floor(x + 0.5))


def wave(x):
    """A sine of period 1 made of parabolas: exact on every machine."""
    x = x - np.floor(x + 0.5)
    return 8 * x * (1 - 2 * np.abs(x))


def angle(y, x):
    """Angle of (x, y) in turns, -0.5 .. 0.5, to 1e-3."""
    ax, ay = np.abs(x), np.abs(y)
    q = np.minimum(ax, ay) / (np.maximum(ax, ay) + 1e-6)
    q = q * (0.125 + 0.0434 * (1 - q))  # atan(q) / 2 pi for q in 0 .. 1
    q = np.where(ay > ax, 0.25 - q, q)
    q = np.where(x < 0, 0.5 - q, q)
    return np.where(y < 0, -q, q)


def fish(u, v, sin, cos):
    """Seen from the side; the tail swings."""
    w = np.maximum(0.55 - u, 0.0)
    v = v - w * (w * (0.13 * sin) + 0.05 * cos)
    a = np.abs(v)
    body = ellipse(u, v, 0.22, 0.0, 0.86, 0.52)
    above = ellipse(u + 0.5 * v, v, -0.12, -0.46, 0.36, 0.28)
    below = ellipse(u - 0.6 * v, v, -0.22, 0.44, 0.24, 0.22)
    tail = cut(a * 0.8 + (u + 0.4) * 0.6 - 0.03, (0.5 - a) * 0.5 - u * 0.85 - 0.98, u + 0.3)
    tail = union(cut(tail, a - 0.6) - 0.06, above, below)
    stripes = cut(saw((u - 0.1 * a * a) * 2.4 + 0.14) * 0.42 - 0.095, body + 0.03, u - 0.5)
    return join(body, tail, 0.12), (
        (tail, "mark"),
        (body, "base"),
        (stripes, "mark"),
        (cut(body + 0.03, 0.62 - u), "skin"),
        (disc(u, v, 0.72, -0.12, 0.15), "light"),
        (disc(u, v, 0.75, -0.12, 0.085), "dark"),
    )


def butterfly(u, v, sin, cos):
    """Seen from above; the wings beat."""
    beat = 0.74 + 0.26 * sin
    a0 = np.abs(v)
    a = a0 * (1 / beat)
    fore = ellipse(u - 0.35 * a, a + 0.15 * u, 0.14, 0.64, 0.46, 0.58)
    hind = ellipse(u + 0.3 * a, a, -0.36, 0.48, 0.42, 0.42)
    wings = union(fore, hind) * min(1.0, beat + 0.1)
    feelers = 0.5, 0.05, 0.95, 0.32, 0.035, 0.045
    body = limbs(u, a0, (-0.62, 0.0, 0.5, 0.0, 0.07, 0.11), feelers)
    spots = discs(u, a, (0.44, 0.72, 0.2), (-0.52, 0.5, 0.17))
    return union(wings, body), (
        (wings, "mark"),
        (wings + 0.11, "base"),
        (np.abs(fore) - 0.02, "dark"),
        (spots, "light"),
        (spots + 0.09, "dark"),
        (body, "dark"),
    )


def turtle(u, v, sin, cos):
    """Seen from above; the limbs paddle, the head sways."""
    a = np.abs(v)
    shell = ellipse(u, v, 0.0, 0.0, 0.8, 0.64)
    front = 0.4, 0.45, 0.62 + 0.22 * sin, 0.98, 0.2, 0.11
    back = -0.5, 0.4, -0.82 - 0.1 * sin, 0.7, 0.17, 0.1
    neck = limb(u, v, 0.6, 0, 1.0, 0.05 * cos, 0.18, 0.16)
    head = join(disc(u, v, 1.04, 0.05 * cos, 0.23), neck, 0.1)
    tail = limb(u, v, -0.7, 0.0, -1.02, 0.0, 0.12, 0.03)
    skin = union(limbs(u, a, front, back), head, tail)
    # plates: hexagons, the nearer of two interleaved rectangular lattices
    w, h = 0.52, 0.52 * 0.8660254 * 2
    x1, y1 = saw(v * (1 / w)) * w, saw(u * (1 / h)) * h
    x2, y2 = saw(v * (1 / w) - 0.5) * w, saw(u * (1 / h) - 0.5) * h
    near = x1 * x1 + y1 * y1 < x2 * x2 + y2 * y2
    x, y = np.where(near, x1, x2), np.where(near, y1, y2)
    plates = cut(x, x * 0.5 + y * 0.8660254) - (w / 2 - 0.035)
    return union(shell, skin), (
        (skin, "skin"),
        (shell, "dark"),
        (shell + 0.05, "mark"),
        (cut(shell + 0.13, plates), "base"),
        (cut(shell + 0.13, plates + 0.11), "mark"),
        (disc(u, a, 1.12, 0.12, 0.055), "dark"),
    )


def snail(u, v, sin, cos):
    """Seen from the side; foot and stalks stretch."""
    shell, lean = disc(u, v, -0.14, -0.12, 0.7), 0.08 * sin
    sole = limb(u, v, -1.05 - 0.06 * sin, 0.66, 0.62, 0.6, 0.06, 0.2)
    neck = limb(u, v, 0.6, 0.56, 0.92 + 0.05 * sin, 0.12, 0.21, 0.17)
    left = 0.9, 0.1, 0.84 + lean, -0.38, 0.06, 0.06
    right = 0.98, 0.1, 1.14 + lean, -0.32, 0.06, 0.06
    tips = discs(u, v, (0.84 + lean, -0.4, 0.1), (1.14 + lean, -0.34, 0.1))
    x, y = u + 0.14, v + 0.12
    r = np.sqrt(x * x + y * y)
    spiral = (saw(angle(y, x) + r * 3.1) - 0.2) * 0.32
    skin = union(join(join(sole, neck, 0.15), limbs(u, v, left, right), 0.06), tips)
    return union(shell, skin), (
        (skin, "skin"),
        (tips, "dark"),
        (shell, "dark"),
        (shell + 0.05, "base"),
        (cut(shell + 0.05, spiral), "mark"),
    )


def starfish(u, v, sin, cos):
    """Five arms that swirl."""
    r = np.sqrt(u * u + v * v) * (0.2 * sin)
    x, y = u - r * v, np.abs(v + r * u)  # the arms swirl a little
    for _ in range(2):  # fold the plane along the line at 36 degrees: five arms become one
        beyond = 2 * np.maximum(y * 0.80901699 - x * 0.58778525, 0.0)
        x, y = x + beyond * 0.58778525, np.abs(y - beyond * 0.80901699)
    arm = limb(x, y, 0.0, 0.0, 1.0, 0.0, 0.44, 0.13)
    star = limb(x, y, 0.0, 0.0, 0.95, 0.0, 0.28, 0.04)
    dots = discs(x, y, (0.0, 0.0, 0.15), (0.36, 0.0, 0.12), (0.64, 0.0, 0.1), (0.9, 0.0, 0.075))
    return arm, ((arm, "base"), (star, "deep"), (dots, "light"))


def jellyfish(u, v, sin, cos):
    """Seen from the side; the bell squeezes, the arms trail."""
    squeeze = 1 + 0.14 * sin
    w = v * squeeze
    bell = ellipse(u * (2 - squeeze), w, 0.02, 0.0, 0.88, 0.76)
    hem = -0.06 - 0.07 * (saw(w * 2.6) * 4 - 1)
    bell = cut(bell, hem - u)
    t = np.minimum(np.maximum(-u, 0.0), 1.2)
    z = w + 0.13 * t * wave(u * 0.9 + 0.16 * cos + 0.1) + 0.1 * t * sin
    strand = np.minimum(np.maximum(np.floor(z * (1 / 0.36)), -2), 1) + 0.5  # four arms
    arms = np.abs(z - strand * 0.36) - (0.13 - 0.03 * t)
    arms = cut(arms * 0.9, u - 0.1, (-1.12 + 0.12 * np.abs(strand)) - u)
    ribs = (saw(w * 1.9 / np.maximum(1.35 - 0.85 * np.maximum(u, 0.0), 0.4) + 0.5) - 0.16) * 0.4
    return union(bell, arms), (
        (arms, "skin"),
        (bell, "base"),
        (cut(bell + 0.05, ribs, hem + 0.14 - u), "mark"),
        (cut(bell + 0.02, u - hem - 0.12), "light"),
    )


def leaf(u, v, sin, cos):
    """A blade with veins, which bends."""
    v = v - (u * u - 0.3) * (0.22 * sin)
    a = np.abs(v)
    y = a + 0.8
    blade = np.sqrt(u * u + y * y) - 1.32 + (saw(u * 4.0 + a) - 0.25) * 0.14
    stem = limb(u, v, -0.9, 0.0, -1.42, 0.1, 0.065, 0.05)
    veins = cut(saw((u - a * 0.75) * 2.9) * 0.27 - 0.032, blade + 0.1)
    rib = cut(a - 0.045, blade + 0.04)
    return union(blade, stem), (
        (stem, "skin"),
        (blade, "base"),
        (cut(blade, v), "deep"),
        (union(veins, rib), "mark"),
    )


def ladybird(u, v, sin, cos):
    """Seen from above; the legs step."""
    a = np.abs(v)
    wings = ellipse(u, v, -0.1, 0.0, 0.88, 0.8)
    head = ellipse(u, v, 0.72, 0.0, 0.3, 0.44)
    step = 0.1 * sin * np.where(v > 0, 1.0, -1.0).astype(np.float32)
    front, hind = (0.35, 0.6, 0.62, 1.02, 0.09, 0.06), (-0.5, 0.6, -0.78, 0.96, 0.09, 0.06)
    middle = limb(u + step, a, -0.1, 0.7, -0.1, 1.12, 0.09, 0.06)
    feelers = limb(u, a, 0.9, 0.15, 1.2, 0.34, 0.05, 0.06)
    legs = union(limbs(u - step, a, front, hind), middle, feelers)
    dots = discs(u, a, (0.22, 0.4, 0.19), (-0.3, 0.5, 0.2), (-0.66, 0.2, 0.16))
    seam = cut(a - 0.035, wings)
    return union(wings, head, legs), (
        (union(head, legs), "dark"),
        (disc(u, a, 0.82, 0.24, 0.1), "light"),
        (wings, "base"),
        (union(dots, seam), "mark"),
    )


class Creature(NamedTuple):
    """How one kind of creature is drawn, and how it may move."""

    draw: Callable  # (u, v, sin, cos) -> signed distance, layers
    reach: tuple[float, float]  # nothing of it lies further from its origin along u, along v
    area: float  # of the silhouette, mean over its movement
    upright: bool = False  # seen from the side: it turns over rather than swim on its back
    spins: bool = False  # turns about itself rather than face where it goes


CREATURES = {
    "fish": Creature(fish, (1.35, 1.15), 2.08, upright=True),
    "butterfly": Creature(butterfly, (1.05, 1.2), 2.2),
    "turtle": Creature(turtle, (1.31, 1.12), 2.38),
    "snail": Creature(snail, (1.36, 0.86), 2.34, upright=True),
    "starfish": Creature(starfish, (1.16, 1.14), 2.02, spins=True),
    "jellyfish": Creature(jellyfish, (1.1, 0.92), 2.02),
    "leaf": Creature(leaf, (1.5, 0.66), 1.58, spins=True),
    "ladybird": Creature(ladybird, (1.3, 1.21), 2.83),
}


# OKLab's two matrices: (lightness, a, b) -> cube roots of cone responses; those cubed -> linear RGB
_CONES = (
    (0.3963377774, 0.2158037573),
    (-0.1055613458, -0.0638541728),
    (-0.0894841775, -1.2914855480),
)
_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def oklch(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """Colour by perceived lightness, chroma and hue (in turns) -> (3, 1, 1) float32, 0 .. 255."""
    a, b = chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)
    long, m, s = ((lightness + x * a + y * b) ** 3 for x, y in _CONES)
    linear = [x * long + y * m + z * s for x, y, z in _RGB]
    rgb = [round(255 * max(0.0, min(1.0, x)) ** (1 / 2.2)) for x in linear]
    return np.array(rgb, np.float32).reshape(3, 1, 1)


def clip_patch(frame_shape, y0: int, x0: int, shape) -> tuple[tuple, tuple] | None:
    """Where a patch at (y0, x0) meets a frame (3, H, W): two slices of each; None if nowhere."""
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y0 + shape[0], frame_shape[1]), min(x0 + shape[1], frame_shape[2])
    if top >= bottom or left >= right:
        return None
    patch = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    return (slice(top, bottom), slice(left, right)), patch


def shadow(frame: np.ndarray, y0: int, x0: int, distance: np.ndarray) -> None:
    """Darken the frame softly where distance is small."""
    if meet := clip_patch(frame.shape, y0, x0, distance.shape):
        frame[(slice(None), *meet[0])] *= 1 - 0.34 * clip01(0.45 - distance[meet[1]] * 0.1)


def stamp(
    frame, y0: int, x0: int, distance, layers, colors, scale: float, shade, line: float
) -> None:
    """Paint layers over each other, shade and outline them, lay all onto the frame (3, H, W).

    scale: pixels per length of the creature. shade: of the part of the patch inside the frame.
    line: width of the outline in pixels.
    """
    meet = clip_patch(frame.shape, y0, x0, distance.shape)
    if meet is None:
        return
    view, patch = (slice(None), *meet[0]), meet[1]
    distance = distance[patch] * np.float32(scale)  # in pixels from here on
    paint = np.empty((3, *distance.shape), np.float32)
    paint[:] = colors["base"]
    for d, name in layers:
        paint += (colors[name] - paint) * clip01(0.5 - d[patch] * np.float32(scale))
    paint *= shade
    paint += (colors["dark"] - paint) * (clip01(distance + np.float32(line + 0.5)) * 0.85)
    target = frame[view]
    target += (paint - target) * clip01(0.5 - distance)
