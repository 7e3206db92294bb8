"""`shapes`: an endless, seeded generator of short videos, a fair miniature of the task.

    (seed, index) -> script of the clip -> render(t) -> image (H, W, 3) uint8, masks (n, H, W) bool
                     objects, paths, light     from back to front: background, shadow and body of
                                               every object, light, noise

Eight kinds of creatures (creatures.py) swim, flutter, crawl and drift over a picture-book
background. Silhouette and markings together tell them apart; hues come from one pool for all kinds.
They curve, speed up, bounce, grow, turn, deform, hide behind one another, enter, leave and come
back, while the camera pans, the light changes and the sensor adds noise.
`tests/benchmarks/shapes_statistics.py` measures how hard that is.

The same clip on every machine: random numbers are PCG64's raw bits; sines and cosines, whose last
bit differs between machines, are rounded (1/64 px, 1/1024) before anything is drawn; pixels see
only exact arithmetic (creatures.py). `render(t)` depends on t alone, in any order.

Train, val and test own the seeds 3s, 3s + 1, 3s + 2: whatever s each is given, they never meet.

Assumption: paths are written in frame coordinates, as a camera that follows sees them; the pan
    moves the background.

Lesson: notebooks/01_task_and_data.ipynb
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from minst import rle
from minst.data import creatures
from minst.data.creatures import CREATURES, Creature, clip01, clip_patch, oklch, shadow, stamp
from minst.data.files import new_folder
from minst.data.formats import COCO, YTVIS
from minst.options import Range, check, check_call

__all__ = [
    "CATEGORIES", "SPLITS", "ShapesClip", "ShapesConfig", "ShapesFrame", "shapes_clip",
    "write_shapes_dataset",
]  # fmt: skip

CATEGORIES = tuple(CREATURES)  # index = class id
SPLITS = ("train", "val", "test")
MIN_AREA = 12  # px: of less than this nobody can tell what it is, so it counts as absent
_TILE = 512  # side of the periodic noise tiles
_PI2 = 2 * math.pi


Seed = Annotated[int, Range(0, 2**32 - 1)]
Instances = Annotated[int, Range(1, 64)]
UpTo4 = Annotated[float, Range(0, 4)]


@dataclass(frozen=True)
class ShapesConfig:
    """What clips look like and how hard they are; of the four factors 0 switches off.

    Args:
        width, height: of a frame in pixels; objects and speeds grow with it. frames: of a clip.
        min_instances, max_instances: objects in a clip.
        speed: of motion, turning and deformation (0 to 4).
        occlusion: how often a path is led across another (0 to 3).
        crowding: 0 always takes `min_instances`, more leans towards `max_instances` (0 to 4).
        clutter: things in the background that are nobody's instance (0 to 4).
        category: names that may appear, None = all of `CATEGORIES`. It changes no class id.
    """

    width: Annotated[int, Range(64, 4096)] = 256
    height: Annotated[int, Range(48, 4096)] = 192
    frames: Annotated[int, Range(1, 100_000)] = 24
    min_instances: Instances = 2
    max_instances: Instances = 6
    speed: UpTo4 = 1.0
    occlusion: Annotated[float, Range(0, 3)] = 1.0
    crowding: UpTo4 = 1.0
    clutter: UpTo4 = 1.0
    category: tuple[str, ...] | None = None

    def __post_init__(self):
        check(self, "shapes")
        if self.max_instances < self.min_instances:
            what = f"{self.max_instances}, min_instances {self.min_instances}"
            raise ValueError(f"shapes: max_instances is {what}")
        names = self.category
        is_tuple = names is None or (not isinstance(names, str) and bool(names))
        if not is_tuple or not set(names or ()) <= set(CATEGORIES):
            what = f"None or a tuple out of {CATEGORIES}, got {names!r}"
            raise ValueError(f"shapes: category must be {what}")


class ShapesFrame(NamedTuple):
    """A frame with all that is known of it; n instances, the same in every frame of a clip."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (n, H, W) bool, what is visible: disjoint, all False where absent
    # (n,) int64 whole area in pixels, hidden and cut-off parts too; 0 = outside of the frame
    amodal: np.ndarray


class _Random:
    """The few draws we need, from PCG64's raw 64 bit numbers, which no version of NumPy changes."""

    def __init__(self, *entropy: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((int(self.bits.random_raw()) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self.uniform() * n)

    def chance(self, p: float) -> bool:
        """True once in 1/p times."""
        return self.uniform() < p

    def array(self, *shape: int) -> np.ndarray:
        """float32 in [0, 1)."""
        raw = self.bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(40)).astype(np.float32).reshape(shape) * np.float32(2.0**-24)


def _exact(x, steps: int = 64) -> np.ndarray:
    """Round to 1/steps: what differs between machines in its last bit is the same afterwards."""
    return np.floor(np.asarray(x, np.float64) * steps + 0.5) / steps


@cache
def _noise(kind: str) -> np.ndarray:
    """A periodic tile (512, 512) float32: "cloud" and "grain" fill [0, 1], "sensor" has mean 0 and
    deviation 1."""
    random = _Random(2303, 17594, ("cloud", "grain", "sensor").index(kind))
    if kind == "sensor":  # the sum of 4 uniform numbers is nearly normal
        a, b, c, d = random.array(4, _TILE, _TILE)
        return (a + b + c + d - 2) * np.float32(math.sqrt(3.0))
    total = np.zeros((_TILE, _TILE), np.float32)
    cloud, grain = {4: 1.0, 8: 0.5, 16: 0.25}, {64: 1.0, 128: 0.7, 256: 0.5}  # octaves
    for cells, weight in (cloud if kind == "cloud" else grain).items():
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


# The script of a clip. Its lengths are in units: 1 unit = 1 px at 256 x 192.


@dataclass
class _Object:
    label: int
    colors: dict[str, np.ndarray]  # name -> (3, 1, 1)
    scale: np.ndarray  # (L,) units for 1 of the creature's own lengths
    path: np.ndarray  # (L, 2) centre x, y in units
    turn: np.ndarray  # (L, 3) cos and sin of the heading; +1 or -1, which side is up
    beat: tuple[float, float]  # phase and rate of its movement, in turns and turns per frame
    texture: tuple[int, int]


def _bounce(x: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Reflect a free path at its walls; None = no wall on this side."""
    if low is None:
        return x if high is None else high - np.abs(high - x)
    if high is None:
        return low + np.abs(x - low)
    span = max(high - low, 1.0)
    return low + span - np.abs((x - low) % (2 * span) - span)


def _path(
    random: _Random, manner: str, radius: float, frames: int, size, pace: float, crossing=None
) -> np.ndarray:
    """A path (L, 2) that curves, changes its pace and bounces off the walls that it has.

    manner: "stay", "enter", "leave" or "return" (out and in again). crossing: (frame, x, y,
    heading) that it must meet.
    """
    start = crossing[0] if crossing else frames * random.uniform(0.3, 0.7)
    middle = frames * random.uniform(0.42, 0.58)
    depth = 1.3 * radius + random.uniform(1, 6)  # wholly outside
    way = math.sqrt(min(middle, frames - middle) ** 2 + 4) - 2
    needed = (depth + 0.5 * radius) / max(way, 0.01)
    if manner == "return" and needed > 2.2 * pace:
        manner = "stay"  # too slow to come back in time
    steady, pace = pace, pace * random.uniform(0.55, 1.5) * (1.8 if random.chance(0.12) else 1.0)
    # the border to cross: of x or y, near 0 or not
    axis, far = int(random.chance(0.35)), int(random.chance(0.5))
    walls = [[0.75 * radius, length - 0.75 * radius] for length in size]
    if crossing:
        at, heading = list(crossing[1:3]), crossing[3]
    else:
        at = [random.uniform(min(low, high - 1), max(high, low + 1)) for low, high in walls]
        inwards = math.pi * (axis / 2 + far)
        stays = manner == "stay"
        heading = random.uniform(0, _PI2) if stays else inwards + random.uniform(-0.5, 0.5)
    if manner != "stay":
        at[axis], walls[axis][far] = size[axis] * far, None
        # fast enough to be wholly outside for a while
        pace = max(pace, min(steady, 2.9 * radius / frames))
        # frames from there to the border
        away = (1.35 * radius + random.uniform(4, 20)) / max(pace * 0.8, 0.3)
        start = min(away, frames * random.uniform(0.5, 0.65))
    t = np.arange(frames) - (middle if manner == "return" else start)
    swing, bend = random.uniform(0.0, 0.6), random.uniform(-0.06, 0.06)
    period, phase = random.uniform(14, 40), random.uniform(0, _PI2)
    angle = heading + bend * t + random.uniform(0, 0.5) * np.sin(_PI2 * t / period + phase)
    rate = pace * (1 + swing * np.sin(_PI2 * t / random.uniform(14, 40) + phase))
    free = np.cumsum(rate[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), 0)  # (L, 2)
    free += np.array(at) - free[int(min(max(-t[0], 0), frames - 1))]
    if manner == "leave":
        free = free[::-1]  # entering, seen backwards
    if manner == "return":  # a hyperbola: out along one branch, in again along the other
        inwards = max(1.25 * pace, needed) * (np.sqrt(t * t + 4) - 2) - depth
        free[:, axis] = size[axis] - inwards if far else inwards
        slide = pace * random.uniform(-0.6, 0.6) * t
        free[:, 1 - axis] = size[1 - axis] * random.uniform(0.25, 0.75) + slide
    return _exact(np.stack([_bounce(free[:, i], *walls[i]) for i in (0, 1)], 1))


def _headings(random: _Random, path: np.ndarray, creature: Creature, speed: float) -> np.ndarray:
    """(L, 3) cos, sin, side: spinning, or facing where the path leads.

    It turns by at most 0.35 (20 degrees) a frame.
    """
    sides = np.ones(len(path))
    if creature.spins or len(path) == 1:
        spin = random.uniform(0.03, 0.12) * speed * (1 if random.chance(0.5) else -1)
        angles = random.uniform(0, _PI2) + spin * np.arange(len(path))
    else:
        offset = random.uniform(-0.25, 0.25)
        goals = [math.atan2(dy, dx) for dx, dy in np.diff(path, axis=0)]
        angle, side, angles = goals[0], 1.0, []
        for t, goal in enumerate([goals[0], *goals]):
            angle += max(-0.35, min(0.35, (goal - angle + math.pi) % _PI2 - math.pi))
            if creature.upright and abs(math.cos(angle)) > 0.3:
                side = math.copysign(1.0, math.cos(angle))
            angles.append(angle + offset)
            sides[t] = side
    return np.stack([_exact(np.cos(angles), 1024), _exact(np.sin(angles), 1024), sides], 1)


def _colors(random: _Random, hue: float) -> dict[str, np.ndarray]:
    """A creature's own harmony: body, markings clearly lighter or darker, skin in between."""
    light, chroma = random.uniform(0.58, 0.8), random.uniform(0.1, 0.17)
    dark_marks = light > 0.64 and random.chance(0.5)
    mark_hue = hue + random.uniform(-0.12, 0.12)
    dark, bright = (light - 0.27, chroma * 0.9), (min(light + 0.24, 0.95), 0.06)
    skin_light = light - 0.02 if dark_marks else light + 0.1
    return {
        "base": oklch(light, chroma, hue),
        "deep": oklch(light - 0.09, chroma, hue - 0.02),
        "mark": oklch(*(dark if dark_marks else bright), mark_hue),
        "skin": oklch(skin_light, chroma * 0.7, hue + random.uniform(-0.08, 0.08)),
        "dark": oklch(0.27, 0.05, hue),
        "light": oklch(0.96, 0.025, hue + 0.2),
    }


# how a path goes that is not led across another: up to which number between 0 and 1
_MANNERS = {"enter": 0.15, "leave": 0.3, "return": 0.39, "stay": 1.0}


class ShapesClip:
    """One clip. Its script is written at construction (cheap); `render(t)` draws a frame.

    labels: (n,) int64, index into `categories`. Instances are numbered from back to front.
    """

    categories = CATEGORIES

    def __init__(self, config: ShapesConfig, seed: Seed, index: Seed):
        check_call(ShapesClip.__init__, locals(), "shapes")
        self.config, self.seed, self.index = config, int(seed), int(index)
        self.unit = math.sqrt(config.width * config.height / (256 * 192))  # pixels
        random = _Random(self.seed, self.index)
        self._write_objects(random)
        self.labels = np.array([thing.label for thing in self._objects], np.int64)  # (n,)
        self._write_light_and_camera(random)
        self._background_seed, self._canvas = random.below(2**31), None

    def __len__(self) -> int:
        return self.config.frames

    def _write_objects(self, random: _Random) -> None:
        cfg, frames = self.config, self.config.frames
        count, spread = cfg.min_instances, cfg.max_instances - cfg.min_instances
        if cfg.crowding > 0:
            count += min(int((spread + 1) * random.uniform() ** (1.4 / cfg.crowding)), spread)
        allowed = [CATEGORIES.index(name) for name in cfg.category or CATEGORIES]
        self._hue, twins = random.uniform(), random.chance(0.3)
        self._objects: list[_Object] = []
        along = np.linspace(-0.5, 0.5, frames) if frames > 1 else np.zeros(1)
        for k in range(count):
            # same kind, mostly the same colours
            twin = self._objects[0] if twins and k == 1 else None
            label = twin.label if twin else allowed[random.below(len(allowed))]
            creature = CREATURES[CATEGORIES[label]]
            # golden section: hues that go well
            hue = self._hue + 0.382 * random.below(5) + random.uniform(-0.05, 0.05)
            colors = twin.colors if twin and random.chance(0.7) else _colors(random, hue)
            radius = 55 * (92 / 55) ** random.uniform() / 2  # of the disc of equal area
            growth = random.uniform(-0.25, 0.25) * along
            scale = _exact(math.sqrt(math.pi / creature.area) * radius * (1 + growth))
            path = self._choose_path(random, radius)
            turn = _headings(random, path, creature, cfg.speed)
            beat = random.uniform(), random.uniform(0.06, 0.12) * cfg.speed
            texture = random.below(_TILE), random.below(_TILE)
            self._objects.append(_Object(label, colors, scale, path, turn, beat, texture))

    def _choose_path(self, random: _Random, radius: float) -> np.ndarray:
        cfg, frames, others = self.config, self.config.frames, self._objects
        size, pace = (cfg.width / self.unit, cfg.height / self.unit), 4.9 * cfg.speed
        if others and random.chance(0.09 * cfg.occlusion**2):  # led across the path of another
            other = others[random.below(len(others))].path
            t = int(frames * random.uniform(0.25, 0.75))
            dx, dy = other[min(t + 1, frames - 1)] - other[t]
            heading = math.atan2(dy, dx) + math.pi * random.uniform(0.5, 1.5)
            near, edge = [at + random.uniform(-6, 6) for at in other[t]], 0.6 * radius
            x, y = (min(max(near[i], edge), size[i] - edge) for i in (0, 1))
            return _path(random, "stay", radius, frames, size, pace, (t, x, y, heading))
        draw = random.uniform()
        manner = next(name for name, below in _MANNERS.items() if draw < below)
        paths = [_path(random, manner, radius, frames, size, pace) for _ in range(5)]
        # of five paths the one that meets the others least
        reach = (1.5 * radius + 8) ** 2
        met = [sum((((p - o.path) ** 2).sum(1) < reach).sum() for o in others) for p in paths]
        return paths[met.index(min(met))]

    def _write_light_and_camera(self, random: _Random) -> None:
        t, reach = np.arange(self.config.frames), 26.0  # units the camera can move each way
        angle, wobble = random.uniform(0, _PI2), random.uniform(0, _PI2)
        drift = random.uniform(0, 1.6) * self.config.speed * (t - t.mean())
        pan = [
            drift * f(angle) + random.uniform(0, 5) * np.sin(t * 0.2 + wobble)
            for f in (math.cos, math.sin)
        ]
        pan = np.clip(np.stack(pan, 1), -reach, reach)
        strength, period = random.uniform(0.02, 0.13), random.uniform(16, 50)
        pulse = strength * np.sin(_PI2 * t / period + random.uniform(0, _PI2))
        warmth = random.uniform(-0.05, 0.05) * np.linspace(-1, 1, len(t))
        slope, side = random.uniform(0.0, 0.13), random.uniform(0, _PI2)
        fall = side + random.uniform(-0.04, 0.04) * t
        self._reach = math.ceil(reach * self.unit) + 1  # pixels
        self._pan = _exact(pan * self.unit) + self._reach  # (L, 2)
        gain = 1 + np.stack([pulse + warmth, pulse, pulse - warmth], 1)  # (L, 3)
        self._gain = _exact(gain, 1024).astype(np.float32)
        slopes = slope * np.stack([np.cos(fall), np.sin(fall)], 1)  # (L, 2)
        self._slope = _exact(slopes, 1024).astype(np.float32)
        self._grain = np.float32(random.uniform(1.0, 4.5)), random.below(_TILE), random.below(_TILE)

    def render(self, t: int) -> ShapesFrame:
        """Draw frame t: background, every creature from back to front, then light and noise."""
        height, width, count = self.config.height, self.config.width, len(self.labels)
        if not 0 <= t < len(self):
            there = f"the clip has frames 0 .. {len(self) - 1}"
            raise ValueError(f"shapes: there is no frame {t}; {there}")
        if self._canvas is None:
            self._canvas = self._paint_background()
        dx, dy = self._pan[t]  # the part of the canvas that the camera sees, bilinear at 1/64 px
        x, y = int(dx), int(dy)
        part = self._canvas[:, y : y + height + 1, x : x + width + 1]
        part = part[:, :-1] + (part[:, 1:] - part[:, :-1]) * np.float32(dy - y)
        # (3, H, W) float32
        frame = part[:, :, :-1] + (part[:, :, 1:] - part[:, :, :-1]) * np.float32(dx - x)
        owner = np.full((height, width), -1, np.int8)
        amodal = [self._paint_object(frame, owner, i, t) for i in range(count)]
        masks = owner == np.arange(count, dtype=np.int8)[:, None, None]  # (n, H, W)
        for mask in masks:
            if np.count_nonzero(mask) < MIN_AREA:
                mask[:] = False
        return ShapesFrame(self._expose(frame, t), masks, np.array(amodal, np.int64))

    def _expose(self, frame: np.ndarray, t: int) -> np.ndarray:
        """Light from one side, its colour over time, noise: (3, H, W) float -> (H, W, 3) bytes."""
        height, width = frame.shape[1:]
        x, y = (np.arange(n, dtype=np.float32) * np.float32(2 / n) - 1 for n in (width, height))
        frame *= 1 + x * self._slope[t, 0] + (y * self._slope[t, 1])[:, None]
        frame *= self._gain[t][:, None, None]
        strength, oy, ox = self._grain
        for c in range(3):  # every frame and channel sees another window of the noise
            at = oy + 97 * t + 171 * c, ox + 211 * t + 59 * c
            frame[c] += _window(_noise("sensor"), *at, height, width) * strength
        np.minimum(np.maximum(frame + 0.5, 0, out=frame), 255, out=frame)
        return np.ascontiguousarray(frame.astype(np.uint8).transpose(1, 2, 0))

    def _paint_object(self, frame: np.ndarray, owner: np.ndarray, i: int, t: int) -> int:
        """Paint object i and mark its pixels in `owner`; its whole area, 0 outside of the frame."""
        thing, unit = self._objects[i], self.unit
        creature = CREATURES[CATEGORIES[thing.label]]
        scale = float(thing.scale[t] * unit)
        (cx, cy), (cos, sin, side) = _exact(thing.path[t] * unit), (float(z) for z in thing.turn[t])
        far, wide = creature.reach
        rx = scale * (abs(cos) * far + abs(sin) * wide) + 3 * unit
        ry = scale * (abs(sin) * far + abs(cos) * wide) + 3 * unit
        x0, x1 = math.floor(cx - rx), math.ceil(cx + rx)
        y0, y1 = math.floor(cy - ry), math.ceil(cy + ry)
        meet = clip_patch(frame.shape, y0, x0, (y1 - y0, x1 - x0))
        if meet is None:
            return 0
        x = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - cx)
        y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
        # the creature's own coordinates
        u = x * np.float32(cos / scale) + y * np.float32(sin / scale)
        v = x * np.float32(-sin * side / scale) + y * np.float32(cos * side / scale)
        phase = _PI2 * (thing.beat[0] + thing.beat[1] * t)
        beat = (float(_exact(f(phase), 1024)) for f in (math.sin, math.cos))
        distance, layers = creature.draw(u, v, *beat)
        (view, patch), inside = meet, distance <= 0
        if not inside[patch].any():
            return 0
        down, right = (
            (along[patch] * 60.0).astype(np.int32) + start & _TILE - 1
            for along, start in zip((v, u), thing.texture)
        )
        # round, lit from above
        shade = 0.67 + 0.2 * clip01(distance[patch] * -3.0) + _noise("cloud")[down, right] * 0.3
        shade -= (x[patch[1]] * 0.5 + y[patch[0]] * 0.85) * np.float32(0.16 / scale)
        below, beside = y0 + round(3 * unit), x0 + round(2 * unit)
        shadow(frame, below, beside, distance * np.float32(scale / unit))
        stamp(frame, y0, x0, distance, layers, thing.colors, scale, shade, 1.3 * unit)
        owner[view][inside[patch]] = i
        return int(np.count_nonzero(inside))

    def _paint_background(self) -> np.ndarray:
        """The world behind the creatures, with the camera's reach: (3, H + 2r + 1, W + 2r + 1)."""
        random = _Random(self._background_seed, 1)
        height, width = (n + 2 * self._reach + 1 for n in (self.config.height, self.config.width))
        cloud = _window(_noise("cloud"), random.below(_TILE), random.below(_TILE), height, width)
        x, y = (np.arange(n, dtype=np.float32) * np.float32(1 / n) for n in (width, height))
        field = self._height_map(random, cloud, x, y[:, None])
        # three colours along the height make the picture
        hue = self._hue + random.uniform(0.3, 0.7)
        low = (0.36, 0.5, 0.66)[random.below(3)] + random.uniform(-0.04, 0.04)  # night, dusk or day
        chroma, turn = random.uniform(0.03, 0.075), random.uniform(-0.14, 0.14)
        a, b, c = (
            oklch(low + 0.24 * k, chroma * (1.1 - 0.4 * k), hue + turn * k)[:, 0]
            for k in (0.0, 0.5, 1.0)
        )
        step = np.arange(128, dtype=np.float32) / 128
        ramp = np.concatenate([a + (b - a) * step, b + (c - b) * step], 1)  # (3, 256)
        level = (clip01(field) * 255).astype(np.uint8)
        canvas = np.stack([channel[level] for channel in ramp])
        corner = random.below(_TILE), random.below(_TILE)
        canvas *= 0.94 + 0.12 * _window(_noise("grain"), *corner, height, width)
        kinds = random.below(5), random.below(5)
        for _ in range(int(self.config.clutter * random.uniform(5, 16) + 0.5)):
            self._paint_clutter(canvas, random, kinds[random.below(2)], (low, chroma, hue))
        return canvas

    @staticmethod
    def _height_map(random: _Random, cloud: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One of five landscapes (H, W), about 0 to 1; x (W,) and y (H, 1) go from 0 to 1."""
        height, width = cloud.shape
        style = random.below(5)
        if style == 0:  # sky: clouds over a gradient
            return 0.25 + 0.35 * y + 0.45 * (cloud - 0.4)
        if style == 1:  # hills, one behind the other
            field = 0.08 + 0.1 * y + 0 * x
            for k in range(4):
                across = np.arange(width) * (k + 2) // 3 % _TILE
                ridge = _noise("cloud")[random.below(_TILE)][across]
                depth = y - (0.12 + 0.2 * k + 0.3 * (ridge - 0.4))
                hill = 0.2 + 0.2 * k + 0.16 * clip01(1 - depth * 3) + 0.06 * (cloud - 0.5)
                field = field + (hill - field) * clip01(depth * height)
            return field
        if style == 2:  # water: bands of equal height of a noise
            return 0.2 + 0.3 * y + 0.5 * creatures.saw(cloud * 5 + y * 2)
        if style == 3:  # wallpaper: soft dots
            n = random.uniform(5, 9)
            dx, dy = creatures.saw(x * n * width / height + 0.2 * cloud), creatures.saw(y * n)
            return 0.3 + 0.3 * cloud + 0.3 * clip01((0.06 - dx * dx - dy * dy) * 12)
        # dunes: slanted waves
        slant = x * random.uniform(2, 5) + y * random.uniform(-6, 6)
        return 0.45 + 0.2 * creatures.wave(slant + 0.8 * cloud) + 0.35 * (y - 0.5)

    def _paint_clutter(self, canvas: np.ndarray, random: _Random, kind: int, ground: tuple) -> None:
        """A pebble, blade, bubble, spark or tuft: of no category, never tracked."""
        (low, chroma, hue), size = ground, random.uniform(5, 15) * self.unit
        cx, cy = random.uniform(0, canvas.shape[2]), random.uniform(0, canvas.shape[1])
        angle = random.uniform(0, _PI2)
        cos, sin = float(_exact(math.cos(angle), 1024)), float(_exact(math.sin(angle), 1024))
        reach, per_size = 2.2 * size, np.float32(1 / size)
        x0, y0 = int(cx - reach), int(cy - reach)
        x = np.arange(x0, int(cx + reach) + 1, dtype=np.float32) + np.float32(0.5 - cx)
        y = (np.arange(y0, int(cy + reach) + 1, dtype=np.float32) + np.float32(0.5 - cy))[:, None]
        u, v = (x * cos + y * sin) * per_size, (y * cos - x * sin) * per_size
        if kind == 0:
            d = creatures.ellipse(u, v, 0, 0, 1.0, random.uniform(0.5, 0.9))
        elif kind == 1:
            d = creatures.limb(u, v - 0.25 * u * u, -1.7, 0, 1.7, 0, 0.05, 0.25)
        elif kind == 2:
            d = np.abs(creatures.disc(u, v, 0, 0, 0.8)) - 0.12
        elif kind == 3:
            d = (np.sqrt(np.abs(u)) + np.sqrt(np.abs(v)) - 1) * 0.7
        else:
            d = creatures.discs(u, v, (-0.6, 0.1, 0.5), (0.1, -0.2, 0.6), (0.7, 0.15, 0.42))
        if random.chance(0.35):  # as vivid as a creature: colour alone does not make an object
            color = oklch(random.uniform(0.55, 0.8), 0.11, hue + random.uniform(-0.5, 0.5))
        else:
            color = oklch(low + random.uniform(-0.08, 0.36), chroma + 0.02, hue)
        colors = {"base": color, "dark": color * 0.7}
        stamp(canvas, y0, x0, d, ((d, "base"),), colors, size, 1.0, 0.8 * self.unit)


def shapes_clip(
    split: Literal[SPLITS],
    index: Seed,
    config: ShapesConfig = ShapesConfig(),
    seed: Annotated[int, Range(0, 2**30 - 1)] = 0,
) -> ShapesClip:
    """Clip `index` of a split. No two splits share a clip's seed, whatever `seed` is."""
    check_call(shapes_clip, locals(), "shapes")
    return ShapesClip(config, 3 * int(seed) + SPLITS.index(split), index)


def write_shapes_dataset(
    out_dir: str | Path,
    videos: Annotated[int, Range(1, 10**6)],
    config: ShapesConfig = ShapesConfig(),
    seed: int = 0,
    split: str = "val",
    images: bool = False,
) -> Path:
    """Write clips 0 .. videos - 1 of a split as JPEG and `annotations.json`; returns the latter.

    YouTube-VIS form, JPEGImages/<video>/<frame>.jpg; with `images` COCO form, images/<clip>.jpg,
    one random frame each. `out_dir` is new or empty, and stays so if this is interrupted.
    """
    check_call(write_shapes_dataset, locals(), "shapes")
    form, size = COCO if images else YTVIS, {"width": config.width, "height": config.height}
    length = {} if images else {"length": config.frames}
    pictures, annotations = [], []
    with new_folder(out_dir) as out:
        for i in tqdm(range(videos), desc="shapes", unit="clip"):
            clip = shapes_clip(split, i, config, seed)
            times = [_Random(clip.seed, i, 1).below(len(clip))] if images else range(len(clip))
            names = [f"{i:05d}.jpg"] if images else [f"{i:05d}/{t:05d}.jpg" for t in times]
            codes = []  # of each frame: a code or None of each instance
            for t, name in zip(times, names):
                frame, path = clip.render(t), out / ("images" if images else "JPEGImages") / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(frame.image).save(path, quality=92)
                codes.append([rle.encode(mask) if mask.any() else None for mask in frame.masks])
            named = {form.names: names[0] if images else names}
            pictures.append({"id": i + 1, "license": 1, **size, **named, **length})
            for label, track in zip(clip.labels, zip(*codes)):
                if not any(track):
                    continue  # never visible: nothing to find
                entry = {"id": len(annotations) + 1, "category_id": int(label) + 1, "iscrowd": 0}
                known = rle.track(track)
                if images:
                    keys = form.masks, form.boxes, form.areas
                    known = {key: value[0] for key, value in zip(keys, known.values())}
                else:
                    known |= size | length
                annotations.append({**entry, form.owner: i + 1, **known})
        about = f"minst shapes, split {split}, seed {seed}"
        licence = "https://www.apache.org/licenses/LICENSE-2.0"
        categories = enumerate(CATEGORIES, 1)
        data = {
            "info": {"description": about, "version": "1.0", "year": 2026},
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": licence}],
            "categories": [{"id": n, "name": k, "supercategory": "shape"} for n, k in categories],
            form.pictures: pictures,
            "annotations": annotations,
        }
        (out / "annotations.json").write_text(json.dumps(data))
    return Path(out_dir) / "annotations.json"
