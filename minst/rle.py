"""Masks as run-length codes (RLE): so many pixels of background, of foreground, ...

    mask (H, W) bool --encode--> {"size": [H, W], "counts": text} --decode--> mask
    text, list of counts or polygons --compress--> text --unpack--> runs (R, 2), checked

A file may hold a mask in three forms: `counts` as a list of numbers ("uncompressed"), `counts` as
text ("compressed"), or polygons [[x1, y1, x2, y2, ...], ...], which are drawn and then compressed.

The text packs a number into characters of six bits, the least significant first, as chr(48 + bits):

    bit 32     another character of this number follows
    bit 16     of a number's last character: the number is negative (two's complement)
    the rest   five bits of the number

From a mask's fourth count on the text holds the difference to the count before the last, which is
small where an outline goes straight on. For example, 5 4 6 5 is stored as 5, 4, 6, 5 - 4 = 1: the
text "5461".

pycocotools does not look whether a code covers its frame exactly or where a polygon leads, and may
loop for ever, ask for all memory or read foreign memory. So everything is checked here first.

Lesson: notebooks/01_task_and_data.ipynb
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
from pycocotools import mask as rle_codec

__all__ = [
    "MaskError", "check", "check_frame", "compress", "decode", "encode", "ious", "track", "unpack",
]  # fmt: skip

SIDE = 65_535  # pixels: what JPEG can hold
PIXELS = 2**28  # of a frame; its mask takes as many bytes
OUTLINE = 2**22  # pixels along all polygons of a mask: drawing takes some 50 bytes for each
# Masks unpacked at a time: the arrays made of more would leave the processor's cache.
TOGETHER = 1000
LONGEST = 6  # characters a number: 30 bits are more pixels than any frame has


class MaskError(ValueError):
    """A mask that is none, and why. `mask`: which of many it is, counted from 0."""

    def __init__(self, what: str, mask: int = 0):
        super().__init__(what)
        self.mask = mask


def encode(mask: np.ndarray) -> dict:
    """A mask (H, W) bool -> compressed RLE with `counts` as text, as JSON wants it."""
    code = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in code["size"]], "counts": code["counts"].decode("ascii")}


def decode(segmentation, height: int, width: int) -> np.ndarray:
    """A mask in any of the three forms, or None for no pixel -> (height, width) bool; ValueError
    says what is wrong."""
    check_frame(height, width)
    text = compress(segmentation, height, width)
    if text is None:
        return np.zeros((height, width), dtype=bool)
    runs, _ = unpack([text], height * width)
    column_by_column = np.repeat(np.tile([False, True], len(runs)), runs.reshape(-1))
    return column_by_column.reshape(width, height).T


def check_frame(height: int, width: int) -> None:
    """MaskError for a frame that no image can have, or whose masks no memory could hold."""
    if not (1 <= height <= SIDE and 1 <= width <= SIDE and height * width <= PIXELS):
        most = f"at most {SIDE:,} a side and {PIXELS:,} in all"
        pixels = f"{height} x {width} (height, width), {height * width:,} pixels"
        raise MaskError(f"no frame is of {pixels}; {most}")


def check(
    segmentations: Sequence, height: int, width: int, polygons: bool = True
) -> tuple[list[dict | None], np.ndarray]:
    """n masks of one size, each in any of the three forms or None -> what pycocotools may trust.

    Returns n compressed codes {"size", "counts"}, None where there is no mask, and their areas (n,)
    in pixels. polygons=False refuses them. MaskError says what is wrong, and with which mask.
    """
    check_frame(height, width)
    size, areas = [height, width], np.zeros(len(segmentations), dtype=np.int64)
    codes: list[dict | None] = []
    for i, segmentation in enumerate(segmentations):
        try:
            text = compress(segmentation, height, width, polygons)
        except ValueError as error:
            raise MaskError(str(error), i) from None
        codes.append(None if text is None else {"size": size, "counts": text})
    places = [i for i, code in enumerate(codes) if code]
    for start in range(0, len(places), TOGETHER):
        some = places[start : start + TOGETHER]
        try:
            runs, first = unpack([codes[i]["counts"] for i in some], height * width)
        except MaskError as error:
            raise MaskError(str(error), some[error.mask]) from None
        areas[some] = np.add.reduceat(runs[:, 1], first)
    return codes, areas


def compress(segmentation, height: int, width: int, polygons: bool = True) -> str | None:
    """A mask in any of the three forms -> the text of its compressed code.

    None or no polygon -> None. What is text already is handed on as it is: `unpack` checks it, many
    at a time. polygons=False refuses them. ValueError says what is wrong.
    """
    if segmentation is None:
        return None
    if isinstance(segmentation, Mapping) and {"size", "counts"} <= segmentation.keys():
        return _text(segmentation["size"], segmentation["counts"], height, width)
    if polygons and isinstance(segmentation, (list, tuple)):
        return _draw(segmentation, height, width)
    forms = "null, polygons, or RLE" if polygons else "null or RLE"
    given = type(segmentation).__name__
    raise ValueError(f"a mask must be {forms} with 'size' and 'counts', got {given}")


def unpack(texts: Sequence[str], pixels: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n compressed codes -> their runs, checked: every code covers its frame exactly.

    texts: n counts. pixels: height * width, one number or (n,). Returns runs (R, 2) int64,
    (background before the run, its length), the last of a code perhaps of length 0; and first (n,):
    code i is runs[first[i] : first[i + 1]], never without a row. MaskError says which is wrong, and
    why.
    """
    codes = [text.encode("utf-8", "surrogatepass") for text in texts]
    if not codes:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not all(codes):
        raise MaskError("not a valid RLE: its text is empty", codes.index(b""))
    # (n,) where each code ends among all characters
    end = np.cumsum([len(code) for code in codes])
    char = np.frombuffer(b"".join(codes), dtype=np.uint8).astype(np.int64) - 48
    _refuse("its text holds characters that RLE never uses", end, (char < 0) | (char > 63))
    _refuse("its text breaks off within a number", None, char[end - 1] >= 32)

    # the numbers: from `start` to `stop`, the last character the most significant
    stop = np.flatnonzero(char < 32) + 1
    start = np.append(0, stop[:-1])
    digits = stop - start
    # (n,) where each code ends among all numbers
    number_end = np.searchsorted(stop, end, side="right")
    _refuse("one of its counts is too large", number_end, digits > LONGEST)
    place = np.arange(len(char)) - np.repeat(start, digits)
    number = np.add.reduceat((char & 31) << 5 * place, start)
    # a negative one: less 32 ** digits
    number -= (char[stop - 1] & 16) << (5 * digits - 4)

    # pairs of background and foreground: a code that ends in background gets a run of length 0
    odd = np.flatnonzero(np.diff(number_end, prepend=0) % 2)
    runs = np.insert(number, number_end[odd], 0).reshape(-1, 2)
    run_end = (number_end + np.searchsorted(odd, np.arange(len(codes)), side="right")) // 2
    first = np.append(0, run_end[:-1])

    # undo the differences: running sums down both columns, which start anew with every code
    leading = runs[first, 0]
    runs[first, 0] = 0  # the first background counts for itself alone
    before = np.add.reduceat(runs, first)  # (n, 2) what each code adds up to
    runs[first[1:]] -= before[:-1]
    runs = np.cumsum(runs, axis=0)
    runs[first, 0] = leading
    runs[run_end[odd] - 1, 1] = 0
    _refuse("one of its counts is negative", run_end, (runs < 0).any(axis=1))

    covered = np.add.reduceat(runs.sum(axis=1), first)
    wanted = np.broadcast_to(pixels, covered.shape)
    for i in np.flatnonzero(covered != wanted)[:1].tolist():
        raise MaskError(f"not a valid RLE: it covers {covered[i]} pixels of {wanted[i]}", i)
    return runs, first


def ious(ours: Sequence[dict | None], theirs: Sequence[dict | None]) -> np.ndarray:
    """IoU (N, G) of checked codes of one frame; 0 where one is None, or both are empty."""
    found = np.zeros((len(ours), len(theirs)))
    rows, columns = ([i for i, code in enumerate(side) if code] for side in (ours, theirs))
    if rows and columns:
        sides = [ours[i] for i in rows], [theirs[j] for j in columns]
        found[np.ix_(rows, columns)] = rle_codec.iou(*sides, [0] * len(columns))
    return found


def track(codes: Sequence[dict | None]) -> dict:
    """Masks, boxes [x, y, w, h] and areas of an instance in each frame, as YouTube-VIS has them."""
    return {
        "segmentations": list(codes),
        "bboxes": [code and rle_codec.toBbox(code).tolist() for code in codes],
        "areas": [code and int(rle_codec.area(code)) for code in codes],
    }


def _refuse(what: str, ends: np.ndarray | None, bad: np.ndarray) -> None:
    """MaskError for the first that is bad. ends: where the parts of each code end; None: each has
    one part."""
    for i in np.flatnonzero(bad)[:1].tolist():
        mask = i if ends is None else int(np.searchsorted(ends, i, side="right"))
        raise MaskError(f"not a valid RLE: {what}", mask)


def _text(size, counts, height: int, width: int) -> str:
    """The text of a run-length code: its size is checked, and its counts if they are numbers."""
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        said = " x ".join(map(str, size)) if isinstance(size, (list, tuple)) else size
        raise ValueError(f"a mask of {said!s:.40} in a frame of {height} x {width}")
    if isinstance(counts, str):
        return counts
    if isinstance(counts, bytes):  # as pycocotools has them
        return counts.decode("latin-1")
    counts = counts.tolist() if isinstance(counts, np.ndarray) else counts
    is_list = isinstance(counts, (list, tuple)) and len(counts)
    if not is_list or not all(_lies(n, Integral, 0, PIXELS) for n in counts):
        what = f"its counts must be a text or whole numbers >= 0, at most {PIXELS:,}"
        raise MaskError(f"not a valid RLE: {what}")
    if sum(counts) != height * width:
        raise MaskError(f"not a valid RLE: it covers {sum(counts)} pixels of {height * width}")
    code = {"size": [height, width], "counts": list(map(int, counts))}
    return rle_codec.frPyObjects(code, height, width)["counts"].decode("ascii")


def _draw(polygons: Sequence, height: int, width: int) -> str | None:
    """Polygons, checked, as the text of one code; what lies in two of them counts once."""
    far, outline = max(height, width), 0.0
    for i, points in enumerate(polygons):
        is_whole = isinstance(points, (list, tuple)) and len(points) >= 6 and len(points) % 2 == 0
        if not is_whole or not all(_lies(n, Real, -far, 2 * far) for n in points):
            wanted = "a list x1, y1, x2, y2, ... of three points or more, near the frame"
            where = f"at most {far} pixels outside of {height} x {width}"
            raise ValueError(f"polygon {i} must be {wanted} ({where})")
        corners = np.array(points, dtype=float).reshape(-1, 2)
        outline += 1 + np.abs(np.diff(corners, axis=0, append=corners[:1])).max(1).sum()
    if outline > OUTLINE:
        raise ValueError(f"polygons {outline:,.0f} pixels long; at most {OUTLINE:,} are drawn")
    if not polygons:
        return None
    drawn = rle_codec.frPyObjects([list(points) for points in polygons], height, width)
    return rle_codec.merge(drawn)["counts"].decode("ascii")


def _lies(number, kind: type, low: float, high: float) -> bool:
    """Is it a number of this kind within its bounds? NaN and booleans are not."""
    return isinstance(number, kind) and not isinstance(number, bool) and low <= number <= high
