"""Pseudo-clips from photographs: who has images with masks needs no video to learn from.

    a folder in COCO form --PhotoClips(dataset, seed)--> clip(index), never one twice
    clip(index) -> labels (M,), len(), render(t) -> image (H, W, 3), masks (M, H, W)

A photograph is seen through a window that moves, zooms, turns and bends a little. Instances cut out
of other photographs are laid on it and go their own ways, often beside one of their own category:
that is where two neighbours are told apart. Others, of no category or plain, hide what lies behind
them. Motion blur, noise and JPEG come last. Masks are what is still seen of each instance.

So the field itself begins: VisTR's successors (SeqFormer, IDOL, VITA, MinVIS' Mask2Former) learn
from COCO images, moved and cropped, before or beside videos.

Everything is a function of (seed, index), and of t. A clip draws a category by the square root of
its number of photographs (repeat factors of LVIS), or, in `negatives` of all cases, a photograph
that holds none.

Assumption: a photograph without any instance of the categories is a negative: it teaches that
    nothing is there. So it must be true that nothing is.
Assumption: a crowd region (`iscrowd`, or the mask of a class in which neighbours are one) teaches
    neither that many are one nor that nothing is there. The losses have no word for "unknown", so
    photographs with such a region of a category that is learned serve as sources of cut-outs alone.
Assumption: how much is moved, pasted and spoilt is ours, chosen by looking.

Lesson: notebooks/10_capstone.ipynb
"""

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minst.data.ytvis import ClipFrame, YouTubeVIS

__all__ = ["PhotoClip", "PhotoClips"]

LENGTH = 12  # frames of a clip
UNTAUGHT = -1  # the label of an instance of a category that is not learned
SMALLEST_CUT = 400  # pixels of an instance that is worth cutting out
BEND = 3.0  # pixels by which a window is bent at most, about
KEPT_PHOTOS = 4096  # decoded ones, some 300 kB each


class Photo(NamedTuple):
    """One decoded photograph, reduced; a pixel belongs to at most one instance."""

    image: np.ndarray  # (H, W, 3) uint8
    owner: np.ndarray  # (H, W) uint8, 0 = no instance, k + 1 = instance k
    labels: np.ndarray  # (n,) of its instances, UNTAUGHT among them


class Layer(NamedTuple):
    """Something that lies in the scene and moves on a path of its own."""

    pixels: Tensor  # (4, h, w) float: colours in 0..255, and opacity in 0..1
    owner: Tensor  # (1, h, w) float: numbers of instances, 0 = none
    path: "Path"


class Path(NamedTuple):
    """Where a point of the frame lies in a layer, at time s in [-0.5, 0.5], in pixels of both.

    layer point = anchor + R(turn + spin s) scale e^(-growth s) (frame point - place - velocity s)
    """

    anchor: np.ndarray  # (2,) x, y of the layer
    place: np.ndarray  # (2,) where the anchor is seen in the frame
    velocity: np.ndarray  # (2,) pixels in the time of the clip
    scale: np.ndarray  # (2,) pixels of the layer along one of the frame
    growth: float = 0.0
    turn: float = 0.0  # radians
    spin: float = 0.0
    bends: np.ndarray | None = None  # (2, 2, 3, 4): amplitudes and phases at points of a grid

    def grid(self, s: float, box: tuple[int, int, int, int]) -> Tensor:
        """Layer coordinates (h, w, 2) of the frame's pixels in `box` (left, top, right, bottom)."""
        left, top, right, bottom = box
        x = torch.arange(left, right, dtype=torch.float32) - float(self.place[0])
        y = torch.arange(top, bottom, dtype=torch.float32) - float(self.place[1])
        x, y = (x - float(self.velocity[0]) * s)[None], (y - float(self.velocity[1]) * s)[:, None]
        if self.bends is not None:
            amplitude, phase = self.bends
            points = torch.from_numpy(amplitude * np.sin(phase + 2 * s)).float()[None]
            size = (bottom - top, right - left)
            dx, dy = F.interpolate(points, size, mode="bicubic", align_corners=True)[0]
            x, y = x + dx, y + dy
        sx, sy = (self.scale * np.exp(-self.growth * s)).tolist()
        cos, sin = np.cos(self.turn + self.spin * s), np.sin(self.turn + self.spin * s)
        across = float(self.anchor[0]) + sx * (float(cos) * x - float(sin) * y)
        down = float(self.anchor[1]) + sy * (float(sin) * x + float(cos) * y)
        return torch.stack(torch.broadcast_tensors(across, down), -1)

    def box(self, s: float, layer: tuple[int, int], frame: tuple[int, int]):
        """The part of a frame (H, W) in which a layer (h, w) may be seen: left, top, right, bottom."""
        h, w = layer
        reach = np.hypot(w, h) / 2 / self.scale.min() * np.exp(abs(self.growth) / 2) + 2 * BEND
        x, y = self.place + self.velocity * s
        spans = [(x - reach, x + reach, frame[1]), (y - reach, y + reach, frame[0])]
        (l, r), (t, b) = [np.clip([lo, hi + 1], 0, most).astype(int) for lo, hi, most in spans]
        return int(l), int(t), int(r), int(b)


class PhotoClip:
    """One pseudo-clip: `labels` (M,), `len()`, `render(t)`; numbers of instances are 1..M."""

    def __init__(self, layers, labels, size, seeds, effects: float):
        self.layers, self.labels = layers, np.asarray(labels, dtype=np.int64)
        self.size, self._seeds, self._effects = size, seeds, effects

    def __len__(self) -> int:
        return LENGTH

    def render(self, t: int) -> ClipFrame:
        """Frame `t`, and what is seen of each instance in it."""
        s = t / (LENGTH - 1) - 0.5
        H, W = self.size
        frame, owner = torch.zeros(3, H, W), torch.zeros(1, H, W)
        for number, (pixels, numbers, path) in enumerate(self.layers):
            h, w = pixels.shape[1:]
            whole = (0, 0, W, H)
            left, top, right, bottom = path.box(s, (h, w), self.size) if number else whole
            if left >= right or top >= bottom:
                continue
            grid = path.grid(s, (left, top, right, bottom))
            # grid_sample counts from the edges, -1 and 1
            grid = ((2 * grid + 1) / torch.tensor([w, h]) - 1)[None]
            seen = _sampled(pixels, grid, "bilinear", "border")
            # beyond the edge of a photograph its colours go on, its instances do not
            found = _sampled(numbers, grid, "nearest", "zeros")
            here = (slice(None), slice(top, bottom), slice(left, right))
            if not number:
                frame, owner = seen[:3], found
                continue
            frame[here] = torch.lerp(frame[here], seen[:3], seen[3:])
            owner[here] = torch.where(seen[3:] > 0.5, found, owner[here])
        image = frame.permute(1, 2, 0).numpy()
        if self._effects:
            image = spoilt(image, np.random.default_rng([*self._seeds, t + 1]), self._effects)
        masks = owner.numpy() == np.arange(1, len(self.labels) + 1)[:, None, None]
        return ClipFrame(np.clip(image + 0.5, 0, 255).astype(np.uint8), masks)


class PhotoClips:
    """Pseudo-clip number `index` of an endless series, of frames of `size` (H, W).

    Args:
        dataset: a folder of images, as `open_folder` reads it. seed: of all that is drawn.
        categories: names of those to learn (default: all); others are seen and mean nothing.
        motion, pasted, effects: how much is moved, pasted and spoilt, 0 = nothing, 1 = usual.
        negatives: share of clips on a photograph without any instance of the categories.
    Raises ValueError for a category that the folder has not, or when none of it is in any image;
    when a clip is made, what the reader of images raises, with the name of the file.
    """

    def __init__(
        self,
        dataset: YouTubeVIS,
        seed: int = 0,
        size: tuple[int, int] = (192, 256),
        categories: tuple[str, ...] = (),
        *,
        motion: float = 1.0,
        pasted: float = 1.0,
        effects: float = 1.0,
        negatives: float = 0.3,
    ):
        self.dataset, self.seed, self.size = dataset, seed, size
        self.categories = tuple(categories) or dataset.categories
        unknown = [name for name in self.categories if name not in dataset.categories]
        if unknown:
            what = f"no category {unknown[0]!r}; there are: {', '.join(dataset.categories)}"
            raise ValueError(f"{dataset.file}: {what}")
        self.motion, self.pasted, self.effects = motion, pasted, effects
        self._classes = np.full(len(dataset.categories), UNTAUGHT)
        for k, name in enumerate(self.categories):
            self._classes[dataset.categories.index(name)] = k
        self._photo = lru_cache(KEPT_PHOTOS)(self._read)
        self._sort(negatives)

    def _sort(self, negatives: float) -> None:
        """Which photographs hold which categories, and which none."""
        K = len(self.categories)
        self._with: list[list[int]] = [[] for _ in range(K)]
        self._without: list[int] = []
        # sources of cut-outs: photograph and number of the instance; the last list is UNTAUGHT's
        self._cuts: list[list[tuple[int, int]]] = [[] for _ in range(K + 1)]
        for i in range(len(self.dataset)):
            clip = self.dataset[i]
            labels, crowd = self._classes[clip.labels], clip.crowd
            for number, k in enumerate(np.flatnonzero(_single(labels, crowd))):
                self._cuts[labels[k]].append((i, number))
            if (labels[crowd] != UNTAUGHT).any():
                continue
            held = set(labels.tolist()) - {UNTAUGHT}
            for k in held:
                self._with[k].append(i)
            if not held:
                self._without.append(i)
        weights = np.sqrt([len(photos) for photos in self._with])
        if not weights.sum():
            what = f"no image with an instance of {', '.join(self.categories)} to learn from"
            raise ValueError(f"{self.dataset.file}: {what}")
        self._weights = weights / weights.sum()
        self._negatives = negatives if self._without else 0.0

    def __getstate__(self) -> dict:  # worker processes receive it without what was decoded
        return {key: value for key, value in self.__dict__.items() if key != "_photo"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._photo = lru_cache(KEPT_PHOTOS)(self._read)

    def _read(self, i: int) -> Photo:
        clip = self.dataset[i]
        labels = self._classes[clip.labels]
        kept = _single(labels, clip.crowd)
        image, masks = clip.image(0), clip.masks(0)[kept]
        owner = np.zeros(image.shape[:2], dtype=np.uint8)
        # small ones lie upon large ones; beyond 255 there is no number left
        order = np.argsort([-mask.sum() for mask in masks], kind="stable")
        for k in order[:255]:
            owner[masks[k]] = k + 1 if k < 255 else 0
        most = 1.5 * min(self.size)  # enough to zoom in
        if min(owner.shape) > most:
            image, owner = resized(image, owner, most / min(owner.shape))
        return Photo(image, owner, labels[kept])

    def __call__(self, index: int) -> PhotoClip:
        # index + 1: numpy takes [a] and [a, 0] for the same
        seeds = [self.seed, index + 1]
        rng = np.random.default_rng(seeds)
        nothing = rng.random() < self._negatives
        kind = int(rng.choice(len(self._weights), p=self._weights))
        chosen = self._without if nothing else self._with[kind]
        photo = self._photo(chosen[int(rng.integers(len(chosen)))])
        layers, labels = [], []
        background, places = self._background(photo, rng, labels)
        layers.append(background)
        light = _light(background.pixels[:3], torch.ones_like(background.pixels[3]))
        for label in self._to_paste(rng, nothing, labels):
            layer = self._cut_out(label, rng, places, len(labels) + 1, light)
            if layer is None:
                continue
            layers.append(layer)
            if label != UNTAUGHT:
                labels.append(label)
        return PhotoClip(layers, labels, self.size, seeds, self.effects)

    def _background(self, photo: Photo, rng: np.random.Generator, labels: list) -> tuple:
        """A window of the photograph; `labels` grows by what it holds. Where its instances are seen:
        (x, y, radius, class) of each."""
        H, W = self.size
        h, w = photo.owner.shape
        m = self.motion
        aspect = W / H * np.exp(m * rng.uniform(-0.2, 0.2))
        high = min(h, w / aspect) * np.exp(m * rng.uniform(-0.45, 0.25))
        wide = high * aspect
        if not m:
            high, wide = h, w
        reduced = min(1.0, H / high)  # what will be seen smaller is made smaller by an area filter
        image, owner = photo.image, photo.owner
        if reduced < 0.9:
            image, owner = resized(image, owner, reduced)
            high, wide = high * owner.shape[0] / h, wide * owner.shape[1] / w
            h, w = owner.shape
        # a window that is smaller than the photograph lies within it, and mostly on an instance
        ys, xs = np.nonzero(owner)
        aim = np.array([w, h]) / 2 - 0.5
        if len(ys) and rng.random() < 0.8:
            k = int(rng.integers(len(ys)))
            aim = aim + m * rng.uniform(0.3, 1.0) * (np.array([xs[k], ys[k]]) - aim)
        room = np.maximum(0, np.array([w - wide, h - high]) / 2)
        centre = np.array([w, h]) / 2 - 0.5
        aim = centre + np.clip(aim - centre, -room, room)
        path = Path(
            aim, np.array([W, H]) / 2 - 0.5, m * rng.uniform(-0.12, 0.12, 2) * [W, H],
            np.array([wide / W, high / H]), m * rng.normal(0, 0.12), m * rng.normal(0, 0.08),
            m * rng.normal(0, 0.06), self._bends(rng),
        )  # fmt: skip
        numbers, places = np.zeros(256, dtype=np.float32), []
        for k in np.flatnonzero(photo.labels != UNTAUGHT)[:255]:
            labels.append(int(photo.labels[k]))
            numbers[k + 1] = len(labels)
            ys, xs = np.nonzero(owner == k + 1)
            if len(ys) > 64:
                x, y = ((np.array([xs.mean(), ys.mean()]) - aim) / path.scale) + path.place
                radius = np.sqrt(len(ys) / path.scale.prod()) / 2
                if 0 < x < W and 0 < y < H:
                    places.append((x, y, radius, labels[-1]))
        pixels = torch.tensor(image).permute(2, 0, 1).float()
        pixels = torch.cat([pixels, torch.ones(1, *owner.shape)])
        return Layer(pixels, torch.from_numpy(numbers[owner])[None], path), places

    def _bends(self, rng: np.random.Generator) -> np.ndarray | None:
        if not self.motion or rng.random() < 0.4:
            return None
        amplitude = BEND * self.motion * rng.random() * rng.uniform(-1, 1, (2, 3, 4))
        return np.stack([amplitude, rng.uniform(0, 2 * np.pi, (2, 3, 4))])

    def _to_paste(self, rng: np.random.Generator, nothing: bool, labels: list) -> list[int]:
        """The classes of what is laid on the photograph, from behind to front."""
        found = []
        if rng.random() < self.pasted * (0.3 if nothing else 0.6):
            same = sorted(set(labels))
            for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
                alike = same and rng.random() < 0.7
                kind = (
                    rng.choice(same) if alike else rng.choice(len(self._weights), p=self._weights)
                )
                found.append(int(kind))
                same = same or found[:1]
        # what means nothing: as often where there is something as where there is not
        for _ in range(2):
            if rng.random() < self.pasted * 0.35:
                found.insert(int(rng.integers(len(found) + 1)), UNTAUGHT)
        return found

    def _cut_out(self, label: int, rng, places: list, number: int, light) -> Layer | None:
        """An instance of another photograph, or a plain patch, on its way through the scene."""
        H, W = self.size
        sources = self._cuts[label]
        if label == UNTAUGHT and (not sources or rng.random() < 0.15):
            pixels = patch(rng)
        elif not sources:
            return None
        else:
            i, k = sources[int(rng.integers(len(sources)))]
            photo = self._photo(i)
            mask = photo.owner == k + 1
            if mask.sum() < SMALLEST_CUT:
                return None
            pixels = cut(photo.image, mask)
        area = float(pixels[3].sum())
        neighbours = [p for p in places if p[3] == label] if label != UNTAUGHT else places
        if neighbours and rng.random() < 0.7:
            x, y, radius, _ = neighbours[int(rng.integers(len(neighbours)))]
            own = np.clip(radius * np.exp(rng.normal(0, 0.3)), 0.06 * H, 0.35 * H)
            angle = rng.normal(0, 0.5) + np.pi * rng.integers(2)
            apart = (radius + own) * rng.uniform(0.55, 1.15)
            place = np.array([x + apart * np.cos(angle), y + apart * np.sin(angle)])
        else:
            own = H * np.exp(rng.uniform(np.log(0.07), np.log(0.33)))
            place = rng.uniform(0.05, 0.95, 2) * [W, H]
        if label != UNTAUGHT:
            places.append((*place, own, label))
        shrink = 2 * own / np.sqrt(area)  # pixels of the frame along one of the cut-out
        if shrink < 0.9:
            size = [max(2, round(side * shrink)) for side in pixels.shape[1:]]
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
            shrink = 1.0
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        pixels = lit(pixels, light, float(rng.uniform(0.1, 0.7)))
        if rng.random() < 0.3:
            pixels = F.avg_pool2d(pixels[None], 3, 1, 1, count_include_pad=False)[0]
        m, (h, w) = self.motion, pixels.shape[1:]
        path = Path(
            np.array([w, h]) / 2 - 0.5, place, m * rng.normal(0, 0.12, 2) * [W, H],
            np.array([1, np.exp(m * rng.uniform(-0.15, 0.15))]) / shrink, m * rng.normal(0, 0.15),
            m * rng.normal(0, 0.15), m * rng.normal(0, 0.15), self._bends(rng),
        )  # fmt: skip
        value = number if label != UNTAUGHT else 0
        return Layer(pixels, torch.full((1, h, w), float(value)), path)


def _single(labels: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """What may be cut out: instances, and of what means nothing crowds, too."""
    return ~crowd | (labels == UNTAUGHT)


def resized(image: np.ndarray, owner: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """An image and its numbers, made smaller: colours by their mean, numbers by the nearest."""
    size = [max(2, round(side * factor)) for side in owner.shape[::-1]]
    smaller = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(smaller), np.asarray(Image.fromarray(owner).resize(size, 0))


def cut(image: np.ndarray, mask: np.ndarray) -> Tensor:
    """What a mask shows of an image, with soft edges: (4, h, w), colours and opacity."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    here = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    colours = torch.tensor(image[here]).permute(2, 0, 1).float()[None]
    opacity = F.pad(torch.tensor(mask[here]).float(), (2, 2, 2, 2))[None, None]
    # a pixel that is half background shows half of it
    opacity = F.avg_pool2d(opacity, 3, 1, 1)
    return torch.cat([F.pad(colours, (2, 2, 2, 2), mode="replicate"), opacity], 1)[0]


def patch(rng: np.random.Generator) -> Tensor:
    """Something plain, a box or an ellipse with a change of light across it: (4, h, w)."""
    h, w = (int(n) for n in rng.integers(24, 72, 2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    light = float(rng.uniform(-40, 40)) * x + float(rng.uniform(-40, 40)) * y
    colours = torch.tensor(rng.uniform(0, 255, 3), dtype=torch.float32)[:, None, None] + light
    round_ = rng.random() < 0.5
    opacity = ((x.square() + y.square() < 1) if round_ else torch.ones(h, w)).float()
    return torch.cat([colours.clamp(0, 255), opacity[None]])


def lit(pixels: Tensor, light: tuple[Tensor, Tensor], share: float) -> Tensor:
    """A cut-out whose mean and contrast come nearer to those of what it lies on by `share`."""
    mean, spread = _light(pixels[:3], pixels[3])
    contrast = 1 + share * ((light[1] / spread).clamp(0.5, 2) - 1)
    moved = (pixels[:3] - mean) * contrast + torch.lerp(mean, light[0], share)
    return torch.cat([moved.clamp(0, 255), pixels[3:]])


def _light(colours: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each colour and the spread of all, of what is seen: (3, 1, 1) and (1, 1, 1)."""
    total = weight.sum().clamp(min=1)
    mean = (colours * weight).sum((1, 2), keepdim=True) / total
    spread = ((colours - mean).square() * weight).sum((1, 2), keepdim=True).mean(0, True) / total
    return mean, spread.sqrt().clamp(min=8)


def spoilt(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """What a camera does to (H, W, 3) floats in 0..255: motion blur, noise, JPEG."""
    if rng.random() < 0.25 * strength:
        steps = int(rng.integers(2, 6))
        direction = rng.normal(size=2)
        direction /= np.abs(direction).max()
        shifts = [np.rint(direction * (k - (steps - 1) / 2)).astype(int) for k in range(steps)]
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
        H, W = image.shape[:2]
        image = sum(padded[3 + y : 3 + y + H, 3 + x : 3 + x + W] for x, y in shifts) / steps
    if rng.random() < 0.4 * strength:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + np.float32(rng.uniform(2, 12)) * noise
    if rng.random() < 0.4 * strength:
        content = io.BytesIO()
        exact = Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))
        exact.save(content, "JPEG", quality=int(rng.integers(25, 90)))
        image = np.asarray(Image.open(content)).astype(np.float32)
    return image


def _sampled(layer: Tensor, grid: Tensor, mode: str, beyond: str) -> Tensor:
    return F.grid_sample(layer[None], grid, mode, beyond, align_corners=False)[0]
