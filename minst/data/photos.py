"""Pseudo-clips from photographs: who has images with masks needs no video to learn from.

    a folder in COCO form --PhotoClips(dataset, seed)--> clip(index), never one twice
    clip(index) -> labels (G,), len(), render(t) -> image (H, W, 3), masks (G, H, W)

A photograph is seen through a window that moves, zooms, turns and bends a little. Instances cut out
of other photographs lie on it and go their own ways, often beside another: that is where two
neighbours are told apart, be they two persons or a person and a dog. Of several, the larger ones
often hide the smaller ones, as what is near hides what is far. Two clips in five show four
photographs, two above two, so that small things are seen amid what surrounds them (the mosaic of
YOLOv4). Things of no category hide what lies behind them. Motion blur, noise and JPEG come last.
Masks are what is still seen. So the field begins, too: SeqFormer, IDOL and CTVIS make pseudo-videos
of COCO's images, MinVIS learns from single images alone.

A clip is a function of (seed, index), a frame of t as well. A category is drawn by the square root
of its number of photographs (as LVIS repeats rare ones). Half of the clips without an instance show
a plain surface: a piece of any photograph in which no instance lies, enlarged or mirrored at its
edges. Without these a floor or a road, seen from near, became a cat.

Assumption: a photograph without any instance of the categories teaches that nothing is there.
Assumption: a crowd region (`iscrowd`, or a mask of a class in which neighbours are one) teaches
    neither that many are one nor that nothing is there. The losses have no word for "unknown": a
    photograph with such a region of a category to learn is a source of other cut-outs alone.
Assumption: how much is moved, pasted and spoilt is ours, chosen by looking.

Lesson: notebooks/10_capstone.ipynb
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image, ImageOps
from torch import Tensor

from minst.data.ytvis import ClipFrame, YouTubeVIS

__all__ = ["PhotoClip", "PhotoClips"]

LENGTH = 12  # frames of a clip
UNTAUGHT = -1  # the label of an instance of a category that is not to be learned
SMALLEST_CUT = 400  # pixels of an instance that is worth cutting out
SURFACES = 0.5  # share of the negatives
MOSAICS = 0.4  # share of the clips, surfaces aside, that show four photographs
BESIDE = 0.7  # share of the cut-outs that lie beside, behind or before something else
SMALLEST = 0.04  # half of the side of the smallest cut-out, in heights of the frame
BEND = 3.0  # pixels by which a layer is bent at most, about
KEPT_PHOTOS = 4096  # decoded ones, some 300 kB each


class Photo(NamedTuple):
    """One decoded photograph, reduced; a pixel belongs to at most one instance."""

    image: np.ndarray  # (H, W, 3) uint8
    owner: np.ndarray  # (H, W) uint8, 0 = no instance, k + 1 = instance k
    labels: np.ndarray  # (n,) of its instances, UNTAUGHT among them


class Path(NamedTuple):
    """Where a point of the frame lies in a layer, at time s in [-0.5, 0.5], in pixels of both.

    layer point = anchor + R(turn + spin s) scale e^(-growth s) (frame point - place - velocity s)
    """

    anchor: np.ndarray  # (2,) x, y of the layer
    place: np.ndarray  # (2,) where the anchor is seen in the frame
    velocity: np.ndarray  # (2,) pixels in the time of the clip
    scale: np.ndarray  # (2,) pixels of the layer along one of the frame
    growth: float
    turn: float  # radians
    spin: float
    bends: np.ndarray | None  # (2, 2, 3, 4): amplitudes and phases at the points of a grid

    def grid(self, s: float, box: Sequence[int]) -> Tensor:
        """Layer coordinates (h, w, 2) of the frame's pixels in `box` (left, top, right, bottom)."""
        left, top, right, bottom = box
        (x0, y0), (vx, vy), (ax, ay) = (
            pair.tolist() for pair in (self.place, self.velocity, self.anchor)
        )
        x = (torch.arange(left, right, dtype=torch.float32) - x0 - vx * s)[None]
        y = (torch.arange(top, bottom, dtype=torch.float32) - y0 - vy * s)[:, None]
        if self.bends is not None:
            amplitude, phase = self.bends
            points = torch.from_numpy(amplitude * np.sin(phase + 2 * s)).float()[None]
            size = (bottom - top, right - left)
            dx, dy = F.interpolate(points, size, mode="bicubic", align_corners=True)[0]
            x, y = x + dx, y + dy
        sx, sy = (self.scale * np.exp(-self.growth * s)).tolist()
        cos, sin = (float(of(self.turn + self.spin * s)) for of in (np.cos, np.sin))
        across, down = ax + sx * (cos * x - sin * y), ay + sy * (sin * x + cos * y)
        return torch.stack(torch.broadcast_tensors(across, down), -1)

    def box(self, s: float, layer: Sequence[int], frame: Sequence[int]) -> list[int]:
        """Where in a frame (H, W) a layer (h, w) may be seen: left, top, right, bottom."""
        reach = np.hypot(*layer) / 2 / self.scale.min() * np.exp(abs(self.growth) / 2) + 2 * BEND
        middle, most = self.place + self.velocity * s, frame[::-1]
        ends = np.clip([middle - reach, middle + reach + 1], 0, most).astype(int)
        return ends.ravel().tolist()


class Layer(NamedTuple):
    """Something that lies in the scene and moves on a path of its own."""

    pixels: Tensor  # (4, h, w) float: colours in 0..255, and opacity in 0..1
    owner: Tensor  # (1, h, w) float: numbers of instances, 0 = none
    path: Path

    def area(self) -> float:
        """Pixels of the frame that it covers in the middle of the clip."""
        return float(self.pixels[3].sum() / self.path.scale.prod())

    def seen(self, s: float, box: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pixels and owner in a box of the frame at time s."""
        h, w = self.pixels.shape[1:]
        # grid_sample counts from the edges, -1 and 1
        grid = ((2 * self.path.grid(s, box) + 1) / torch.tensor([w, h]) - 1)[None]
        # Beyond the edge of a photograph its colours go on, its instances do not.
        ways = (self.pixels, "bilinear", "border"), (self.owner, "nearest", "zeros")
        return tuple(F.grid_sample(x[None], grid, *how, align_corners=False)[0] for x, *how in ways)


@dataclass(eq=False)
class PhotoClip:
    """One pseudo-clip; instances are numbered from 1 on."""

    layers: list[Layer]  # from behind to front; the first one fills the frame
    labels: np.ndarray  # (G,)
    size: tuple[int, int]
    seeds: list[int]
    effects: float

    def __len__(self) -> int:
        return LENGTH

    def render(self, t: int) -> ClipFrame:
        """Frame `t`, and what is seen of each instance in it."""
        s, (H, W) = t / (LENGTH - 1) - 0.5, self.size
        frame, owner = self.layers[0].seen(s, (0, 0, W, H))
        frame = frame[:3]
        for layer in self.layers[1:]:
            box = layer.path.box(s, layer.pixels.shape[1:], self.size)
            here = (slice(None), slice(box[1], box[3]), slice(box[0], box[2]))
            if frame[here].numel():
                pixels, numbers = layer.seen(s, box)
                frame[here] = torch.lerp(frame[here], pixels[:3], pixels[3:])
                owner[here] = torch.where(pixels[3:] > 0.5, numbers, owner[here])
        image = frame.permute(1, 2, 0).numpy()
        image = spoilt(image, np.random.default_rng([*self.seeds, t + 1]), self.effects)
        masks = owner.numpy() == np.arange(1, len(self.labels) + 1)[:, None, None]
        return ClipFrame(np.clip(image + 0.5, 0, 255).astype(np.uint8), masks)


class PhotoClips:
    """Pseudo-clip number `index` of an endless series, of frames of `size` (H, W).

    Args:
        dataset: images, as `open_folder` reads them. seed: of all that is drawn.
        categories: names of those to learn (default: all); others are seen and mean nothing.
        motion, pasted, effects: how much is moved, pasted and spoilt; 0 = nothing, 1 = usual.
        negatives: share of clips on a photograph without any instance of the categories.
    Raises ValueError for a category that the folder has not, or when none of it is in any image;
    when a clip is made, what the reader of images raises, with the name of the file.
    """

    def __init__(
        self, dataset: YouTubeVIS, seed: int = 0, size: tuple[int, int] = (192, 256),
        categories: Sequence[str] = (), *, motion: float = 1.0, pasted: float = 1.0,
        effects: float = 1.0, negatives: float = 0.3,
    ):  # fmt: skip
        self.dataset, self.seed, self.size = dataset, seed, size
        self.motion, self.pasted, self.effects = motion, pasted, effects
        self.categories = tuple(dict.fromkeys(categories)) or dataset.categories
        self._photos: dict[int, Photo] = {}
        for name in set(self.categories) - set(dataset.categories):
            what = f"no category {name!r}; there are: {', '.join(dataset.categories)}"
            raise ValueError(f"{dataset.file}: {what}")
        order = {name: k for k, name in enumerate(self.categories)}
        self._classes = np.array([order.get(name, UNTAUGHT) for name in dataset.categories])
        # Photographs with each class, and without any; sources of cut-outs (photograph, number of
        # the instance) of each class, UNTAUGHT last.
        self._with: list[list[int]] = [[] for _ in order]
        self._without: list[int] = []
        self._complete: list[int] = []  # those of which every instance of the categories is known
        self._cuts: list[list[tuple[int, int]]] = [[] for _ in range(len(order) + 1)]
        for i in range(len(dataset)):
            labels, single = self._labels(dataset[i])
            for number, label in enumerate(labels[single]):
                self._cuts[label].append((i, number))
            held = set(labels.tolist()) - {UNTAUGHT}
            if single.all():
                self._complete.append(i)
                for photos in [self._with[k] for k in held] or [self._without]:
                    photos.append(i)
        weights = np.sqrt([len(photos) for photos in self._with])
        if not weights.sum():
            what = f"no image with an instance of {', '.join(self.categories)} to learn from"
            raise ValueError(f"{dataset.file}: {what}")
        self._weights = weights / weights.sum()
        self._negatives = negatives if self._without else 0.0

    def _labels(self, image) -> tuple[np.ndarray, np.ndarray]:
        """Classes of its annotations; which may be cut out (crowds, too, of what means nothing)."""
        labels = self._classes[image.labels]
        return labels, ~image.crowd | (labels == UNTAUGHT)

    def _photo(self, i: int) -> Photo:
        if i not in self._photos:
            if len(self._photos) >= KEPT_PHOTOS:
                self._photos.clear()
            clip = self.dataset[i]
            labels, single = self._labels(clip)
            image, masks = clip.image(0), clip.masks(0)[single]
            owner = np.zeros(image.shape[:2], dtype=np.uint8)
            # Small ones lie upon large ones; beyond 255 there is no number left.
            for k in np.argsort([-mask.sum() for mask in masks], kind="stable")[:255]:
                owner[masks[k]] = k + 1 if k < 255 else 0
            enough = 1.5 * min(self.size) / min(owner.shape)  # to zoom in
            self._photos[i] = Photo(*resized(image, owner, min(1.0, enough)), labels[single])
        return self._photos[i]

    def __call__(self, index: int) -> PhotoClip:
        # index + 1: numpy takes [a] and [a, 0] for the same
        seeds = [self.seed, index + 1]
        rng = np.random.default_rng(seeds)
        is_negative = rng.random() < self._negatives
        photo = self._drawn(rng, is_negative)
        if is_negative and rng.random() < SURFACES * self.motion:
            photo = self._surface(rng) or photo
        elif rng.random() < MOSAICS * self.motion:
            photo = self._mosaic([photo, *(self._drawn(rng, is_negative) for _ in range(3))])
        background, labels, places = self._background(photo, rng)
        layers = [background]
        light = light_of(background.pixels[:3], torch.ones_like(background.pixels[3]))
        for label in self._to_paste(rng, is_negative, labels):
            layer = self._cut_out(label, rng, places, len(labels) + 1, light)
            layers += [layer] if layer else []
            labels += [label] if layer and label != UNTAUGHT else []
        if rng.random() < 0.5:  # what is near is large, and hides what is far
            layers[1:] = sorted(layers[1:], key=Layer.area)
        return PhotoClip(layers, np.array(labels, dtype=np.int64), self.size, seeds, self.effects)

    def _drawn(self, rng: Generator, is_negative: bool) -> Photo:
        """A photograph without any instance, or one of a category."""
        held = self._with[int(rng.choice(len(self._weights), p=self._weights))]
        chosen = self._without if is_negative else held
        return self._photo(chosen[int(rng.integers(len(chosen)))])

    def _mosaic(self, photos: Sequence[Photo]) -> Photo:
        """Four photographs, two above two: what they show is seen from far."""
        size = [round(0.75 * side) for side in self.size[::-1]]  # together they may be zoomed in
        images, owners, count = [], [], 0
        for image, owner, labels in photos:
            images.append(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.BILINEAR))
            owner = np.asarray(ImageOps.fit(Image.fromarray(owner), size, Image.Resampling.NEAREST))
            numbers = owner + count * (owner > 0)  # wider than a byte
            owners.append(np.where(numbers < 256, numbers, 0).astype(np.uint8))
            count += len(labels)
        image, owner = (np.vstack([np.hstack(x[:2]), np.hstack(x[2:])]) for x in (images, owners))
        return Photo(image, owner, np.concatenate([photo.labels for photo in photos])[:255])

    def _surface(self, rng: Generator) -> Photo | None:
        """A piece of a photograph in which nothing lies; None if none was met in a few tries."""
        for _ in range(5):
            photo = self._photo(self._complete[int(rng.integers(len(self._complete)))])
            h, w = photo.owner.shape
            side = int(min(h, w) * rng.uniform(0.15, 0.5))
            y, x = int(rng.integers(h - side)), int(rng.integers(w - side))
            piece = slice(y, y + side), slice(x, x + side)
            present = photo.labels[np.setdiff1d(photo.owner[piece], 0).astype(int) - 1]
            if side > 8 and (present == UNTAUGHT).all():
                image = photo.image[piece]
                if rng.random() < 0.5:  # its grain stays as fine as it is
                    image = np.pad(image, ((side, side), (side, side), (0, 0)), mode="symmetric")
                return Photo(image, np.zeros(image.shape[:2], np.uint8), photo.labels[:0])
        return None

    def _background(self, photo: Photo, rng: Generator) -> tuple[Layer, list[int], list[tuple]]:
        """A window of a photograph, the labels of what it holds, and where that is seen: (x, y,
        radius) of each."""
        (H, W), (h, w), m = self.size, photo.owner.shape, self.motion
        aspect = W / H * np.exp(m * rng.uniform(-0.2, 0.2))
        high = min(h, w / aspect) * np.exp(m * rng.uniform(-0.45, 0.25))
        wide = high * aspect
        if not m:
            high, wide = h, w
        image, owner = photo.image, photo.owner
        if H / high < 0.9:  # what will be seen smaller is made smaller by an area filter
            image, owner = resized(image, owner, H / high)
            high, wide = high * owner.shape[0] / h, wide * owner.shape[1] / w
            h, w = owner.shape
        # A window that is smaller than the photograph lies within it, and mostly on an instance.
        ys, xs = np.nonzero(owner)
        centre = aim = np.array([w, h]) / 2 - 0.5
        if len(ys) and rng.random() < 0.8:
            k = int(rng.integers(len(ys)))
            aim = aim + m * rng.uniform(0.3, 1.0) * (np.array([xs[k], ys[k]]) - aim)
        room = np.maximum(0, np.array([w - wide, h - high]) / 2)
        aim = centre + np.clip(aim - centre, -room, room)
        path = Path(
            aim, np.array([W, H]) / 2 - 0.5, m * rng.uniform(-0.12, 0.12, 2) * [W, H],
            np.array([wide / W, high / H]), m * rng.normal(0, 0.12), m * rng.normal(0, 0.08),
            m * rng.normal(0, 0.06), self._bends(rng),
        )  # fmt: skip
        taught = np.flatnonzero(photo.labels != UNTAUGHT)[:255]
        labels, places = photo.labels[taught].tolist(), []
        numbers = np.zeros(256, dtype=np.float32)
        for number, k in enumerate(taught, start=1):
            numbers[k + 1] = number
            ys, xs = np.nonzero(owner == k + 1)
            if len(ys) > 64:
                x, y = ((np.array([xs.mean(), ys.mean()]) - aim) / path.scale) + path.place
                radius = np.sqrt(len(ys) / path.scale.prod()) / 2
                places += [(x, y, radius)] if 0 < x < W and 0 < y < H else []
        pixels = torch.tensor(image).permute(2, 0, 1).float()
        pixels = torch.cat([pixels, torch.ones(1, *owner.shape)])
        return Layer(pixels, torch.from_numpy(numbers[owner])[None], path), labels, places

    def _bends(self, rng: Generator) -> np.ndarray | None:
        if not self.motion or rng.random() < 0.4:
            return None
        amplitude = BEND * self.motion * rng.random() * rng.uniform(-1, 1, (2, 3, 4))
        return np.stack([amplitude, rng.uniform(0, 2 * np.pi, (2, 3, 4))])

    def _to_paste(self, rng: Generator, is_negative: bool, labels: list[int]) -> list[int]:
        """The classes of what is laid on the photograph, from behind to front."""
        found: list[int] = []
        if rng.random() < self.pasted * (0.3 if is_negative else 0.7):
            same = sorted(set(labels))
            for _ in range(int(rng.choice([1, 2, 3, 5], p=[0.25, 0.3, 0.25, 0.2]))):
                alike = same and rng.random() < 0.7
                k = rng.choice(same) if alike else rng.choice(len(self._weights), p=self._weights)
                found.append(int(k))
                same = same or found[:1]
        # What means nothing comes as often where there is something as where there is not.
        for _ in range(2):
            if rng.random() < self.pasted * 0.35:
                found.insert(int(rng.integers(len(found) + 1)), UNTAUGHT)
        return found

    def _cut_out(self, label: int, rng: Generator, places, number: int, light) -> Layer | None:
        """An instance of another photograph, or something plain, on its way through the scene."""
        (H, W), m, sources = self.size, self.motion, self._cuts[label]
        if label == UNTAUGHT and (not sources or rng.random() < 0.15):
            pixels = plain(rng)
        else:
            i, k = sources[int(rng.integers(len(sources)))]
            photo = self._photo(i)
            mask = photo.owner == k + 1
            if mask.sum() < SMALLEST_CUT:
                return None
            pixels = cut(photo.image, mask)
        area = float(pixels[3].sum())
        if places and rng.random() < BESIDE:
            x, y, radius = places[int(rng.integers(len(places)))]
            own = np.clip(radius * np.exp(rng.normal(-0.15, 0.5)), SMALLEST * H, 0.4 * H)
            angle = rng.normal(0, 0.5) + np.pi * rng.integers(2)
            apart = (radius + own) * rng.uniform(0.55, 1.15)
            place = np.array([x + apart * np.cos(angle), y + apart * np.sin(angle)])
        else:
            own = H * np.exp(rng.uniform(np.log(SMALLEST), np.log(0.36)))
            place = rng.uniform(0.05, 0.95, 2) * [W, H]
        if label != UNTAUGHT:
            places.append((*place, own))
        shrink = 2 * own / np.sqrt(area)  # pixels of the frame along one of the cut-out
        if shrink < 0.9:
            size = [max(2, round(side * shrink)) for side in pixels.shape[1:]]
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
            shrink = 1.0
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        # Seen from above, an animal points anywhere.
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.2 else rng.normal(0, 0.15)
        pixels = lit(pixels, light, float(rng.uniform(0.1, 0.7)))
        if rng.random() < 0.3:
            pixels = F.avg_pool2d(pixels[None], 3, 1, 1, count_include_pad=False)[0]
        h, w = pixels.shape[1:]
        path = Path(
            np.array([w, h]) / 2 - 0.5, place, m * rng.normal(0, 0.12, 2) * [W, H],
            np.array([1, np.exp(m * rng.uniform(-0.15, 0.15))]) / shrink, m * rng.normal(0, 0.15),
            m * turn, m * rng.normal(0, 0.15), self._bends(rng),
        )  # fmt: skip
        owner = torch.full((1, h, w), float(number if label != UNTAUGHT else 0))
        return Layer(pixels, owner, path)


def resized(image: np.ndarray, owner: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """An image and its numbers, made smaller: colours by their mean, numbers by the nearest."""
    if factor == 1:
        return image, owner
    size = [max(2, round(side * factor)) for side in owner.shape[::-1]]
    smaller = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(smaller), np.asarray(Image.fromarray(owner).resize(size, 0))


def cut(image: np.ndarray, mask: np.ndarray) -> Tensor:
    """What a mask shows of an image, with soft edges: (4, h, w), colours and opacity."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    here = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    colours = torch.tensor(image[here]).permute(2, 0, 1).float()[None]
    opacity = F.pad(torch.tensor(mask[here]).float(), (2, 2, 2, 2))[None, None]
    # A pixel that is half background shows half of it.
    opacity = F.avg_pool2d(opacity, 3, 1, 1)
    return torch.cat([F.pad(colours, (2, 2, 2, 2), mode="replicate"), opacity], 1)[0]


def plain(rng: Generator) -> Tensor:
    """A box or an ellipse of one colour, with a change of light across it: (4, h, w)."""
    h, w = (int(n) for n in rng.integers(24, 72, 2))
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    light = float(rng.uniform(-40, 40)) * x + float(rng.uniform(-40, 40)) * y
    colours = torch.tensor(rng.uniform(0, 255, 3), dtype=torch.float32)[:, None, None] + light
    opacity = ((x.square() + y.square() < 1) if rng.random() < 0.5 else torch.ones(h, w)).float()
    return torch.cat([colours.clamp(0, 255), opacity[None]])


def lit(pixels: Tensor, light: tuple[Tensor, Tensor], share: float) -> Tensor:
    """A cut-out whose mean and contrast come nearer to those of what it lies on by `share`."""
    mean, spread = light_of(pixels[:3], pixels[3])
    contrast = 1 + share * ((light[1] / spread).clamp(0.5, 2) - 1)
    moved = (pixels[:3] - mean) * contrast + torch.lerp(mean, light[0], share)
    return torch.cat([moved.clamp(0, 255), pixels[3:]])


def light_of(colours: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each colour and the spread of all, of what is seen: (3, 1, 1) and (1, 1, 1)."""
    total = weight.sum().clamp(min=1)
    mean = (colours * weight).sum((1, 2), keepdim=True) / total
    spread = ((colours - mean).square() * weight).sum((1, 2), keepdim=True).mean(0, True) / total
    return mean, spread.sqrt().clamp(min=8)


def spoilt(image: np.ndarray, rng: Generator, strength: float = 1.0) -> np.ndarray:
    """What a camera does to (H, W, 3) floats in 0..255: motion blur, noise, JPEG."""
    if rng.random() < 0.25 * strength:
        steps, direction = int(rng.integers(2, 6)), rng.normal(size=2)
        direction /= np.abs(direction).max()
        shifts = [np.rint(direction * (k - (steps - 1) / 2)).astype(int) for k in range(steps)]
        padded, (H, W) = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge"), image.shape[:2]
        image = sum(padded[3 + y : 3 + y + H, 3 + x : 3 + x + W] for x, y in shifts) / steps
    if rng.random() < 0.4 * strength:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + np.float32(rng.uniform(2, 12)) * noise
    if rng.random() < 0.4 * strength:
        content, exact = io.BytesIO(), np.clip(image + 0.5, 0, 255).astype(np.uint8)
        Image.fromarray(exact).save(content, "JPEG", quality=int(rng.integers(25, 90)))
        image = np.asarray(Image.open(content)).astype(np.float32)
    return image
