"""Run-length codes: pycocotools as the oracle, every form of a mask, and codes that are none."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle_codec

from minst import rle

masks = st.builds(
    lambda height, width, density, seed: (
        np.random.default_rng(seed).random((height, width)) < density
    ),
    *(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31)),
)


def runs(mask):
    """The counts of a mask in the plainest way."""
    counts, last = [0], False
    for pixel in np.asarray(mask).T.reshape(-1).tolist():
        counts += [0] * (pixel != last)
        counts[-1] += 1
        last = pixel
    return counts


def packed(counts):
    """The text of counts, as pycocotools' rleToString writes it."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        done = False
        while not done:
            bits, x = x & 31, x >> 5
            done = x == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if done else bits | 32))
    return text


# ------------------------------------------------------------------------------------------------ what is right


@given(masks)
def test_every_form_of_a_mask_is_read_as_pycocotools_reads_it(mask):
    code = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert rle.encode(mask) == {"size": list(mask.shape), "counts": code["counts"].decode()}
    for form in (code, rle.encode(mask), {"size": list(mask.shape), "counts": runs(mask)}):
        decoded = rle.decode(form, *mask.shape)
        assert decoded.dtype == bool and np.array_equal(decoded, mask)
        assert rle.compress(form, *mask.shape) == code["counts"].decode()


@given(st.lists(masks, max_size=6))
def test_many_codes_at_once_are_those_of_one_at_a_time(many):
    texts = [rle.encode(mask)["counts"] for mask in many]
    rows, first = rle.unpack(texts, np.array([mask.size for mask in many], dtype=int))
    assert len(first) == len(many)
    for mask, part in zip(many, np.split(rows, first[1:])):
        counts = part.reshape(-1).tolist()
        assert counts == runs(mask) + [0] * (len(runs(mask)) % 2)
        assert np.array_equal(part, rle.unpack([rle.encode(mask)["counts"]], mask.size)[0])


@given(counts=st.lists(st.integers(0, 3000), min_size=1, max_size=12))
def test_runs_of_any_length_even_of_none(counts):
    """Runs of no pixel, and numbers of one to three characters that grow and shrink."""
    rows, _ = rle.unpack([packed(counts)], sum(counts))
    assert rows.reshape(-1).tolist() == counts + [0] * (len(counts) % 2)
    if sum(counts):
        expected = np.repeat(np.arange(len(counts)) % 2 > 0, counts)[:, None]
        for form in (counts, packed(counts), packed(counts).encode()):
            assert np.array_equal(
                rle.decode({"size": [sum(counts), 1], "counts": form}, sum(counts), 1), expected
            )


def test_long_runs():
    mask = np.zeros((1100, 1000), dtype=bool)
    mask[:, 990:] = True
    rows, first = rle.unpack([rle.encode(mask)["counts"]], mask.size)
    assert rows.tolist() == [[990 * 1100, 10 * 1100]] and first.tolist() == [0]
    assert np.array_equal(rle.decode(rle.encode(mask), 1100, 1000), mask)


def test_numpy_counts_and_no_codes():
    assert rle.decode({"size": (2, 3), "counts": np.array([1, 2, 3])}, 2, 3).sum() == 2
    assert rle.unpack([], 80)[0].shape == (0, 2) and rle.unpack([], 80)[1].shape == (0,)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_a_mask_as_polygons_and_back(height, width, seed):
    """Each run of a row becomes a rectangle of its own."""
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    parts = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(row, prepend=False, append=False)).tolist()
        parts += [[x0, y, x1, y, x1, y + 1, x0, y + 1] for x0, x1 in zip(edges[::2], edges[1::2])]
    assert np.array_equal(rle.decode(parts, height, width), mask)


def test_no_mask_is_no_pixel():
    for nothing in (None, []):
        assert rle.compress(nothing, 4, 6) is None
        assert rle.decode(nothing, 4, 6).shape == (4, 6) and not rle.decode(nothing, 4, 6).any()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 4))
def test_ious_are_those_of_the_pixels(seed, ours, theirs):
    rng = np.random.default_rng(seed)
    sides = [
        rng.random((count, 6, 7)) < rng.uniform(0, 0.8, (count, 1, 1)) for count in (ours, theirs)
    ]
    codes = [[rle.encode(m) if m.any() else None for m in side] for side in sides]
    found = rle.ious(*codes)
    for k, a in enumerate(sides[0]):
        for m, b in enumerate(sides[1]):
            assert found[k, m] == pytest.approx((a & b).sum() / max((a | b).sum(), 1), abs=1e-12)
    assert found.shape == (ours, theirs)


# ------------------------------------------------------------------------------------------------ what is none


@given(
    text=st.text(st.characters(min_codepoint=32, max_codepoint=130), max_size=8),
    size=st.integers(1, 50),
)
@example("", 4)
@example("o" * 30, 4)
@example("4", 5)  # covers 4 of 5 pixels
@example("T2", 4)  # begins with a negative count
def test_text_that_is_no_rle_is_refused_or_read_as_pycocotools_reads_it(text, size):
    try:
        mask = rle.decode({"size": [size, 1], "counts": text}, size, 1)
    except rle.MaskError as error:
        assert "not a valid RLE" in str(error) and error.mask == 0
    else:
        assert np.array_equal(
            mask, rle_codec.decode({"size": [size, 1], "counts": text.encode()}).astype(bool)
        )


@pytest.mark.parametrize("counts, message", [
    ("", "text is empty"),
    ("0", "covers 0 pixels of 80"),
    ("`", "breaks off"),
    ("0`", "breaks off"),
    ("0~", "characters"),
    ("\u00e9", "characters"),
    ("0\u20ac", "characters"),
    ("/", "characters"),
    ("p0", "characters"),  # "p" is one beyond the last
    ("3" + "P" * 6 + "1", "too large"),
    ("3" + "P" * 20 + "1", "too large"),
    (packed([10, 20, 10, -5, 45]), "negative"),  # which sums to 80
    (packed([-20, 100]), "negative"),
])  # fmt: skip
def test_broken_text_is_refused_and_counted_among_many(counts, message):
    good = rle.encode(np.eye(8, 10) > 0)["counts"]
    for texts in ([counts], [good, counts], [good, good, counts, good]):
        with pytest.raises(rle.MaskError, match=f"not a valid RLE: .*{message}") as refused:
            rle.unpack(texts, 80)
        assert refused.value.mask == texts.index(counts)


def test_each_code_against_its_own_frame():
    texts = [rle.encode(np.ones(size))["counts"] for size in ((3, 4), (5, 6))]
    rle.unpack(texts, np.array([12, 30]))
    with pytest.raises(rle.MaskError, match="covers 30 pixels of 31") as refused:
        rle.unpack(texts, np.array([12, 31]))
    assert refused.value.mask == 1


@pytest.mark.parametrize("segmentation, message", [
    ({"size": [4, 6], "counts": [23]}, "covers 23 pixels of 24"),
    ({"size": [4, 6], "counts": [20, 5]}, "covers 25 pixels of 24"),
    ({"size": [4, 6], "counts": []}, "whole numbers"),
    ({"size": [4, 6], "counts": [30, -6]}, "whole numbers >= 0"),
    ({"size": [4, 6], "counts": [12.5, 11.5]}, "whole numbers"),
    ({"size": [4, 6], "counts": [23, True]}, "whole numbers"),
    ({"size": [4, 6], "counts": ["24"]}, "whole numbers"),
    ({"size": [4, 6], "counts": [2**63 - 1, 2**63 - 1, 26]}, "whole numbers"),  # 24 with 64 bits
    ({"size": [4, 6], "counts": [2**70]}, "whole numbers >= 0, at most 268,435,456"),
    ({"size": [4, 6], "counts": None}, "whole numbers"),
    ({"size": [4, 6], "counts": ""}, "text is empty"),
    ({"size": [4, 6]}, "'size' and 'counts'"),
    ({"size": None, "counts": [24]}, "a mask of None"),
    ({"size": 5, "counts": [24]}, "a mask of 5 in a frame of 4 x 6"),
    ({"size": [4, [6]], "counts": [24]}, r"a mask of 4 x \[6\] in a frame"),
    ({"size": [4, 6, 1], "counts": [24]}, "a mask of 4 x 6 x 1 in a frame"),
    ({"size": [6, 4], "counts": [24]}, "a mask of 6 x 4 in a frame of 4 x 6"),
    ("PYn0", "must be null, polygons, or RLE"),
    (3, "must be null, polygons, or RLE"),
    ([[1, 1, 2, 2]], "polygon 0 must"),  # pycocotools would take it for a box
    ([[1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3]], "polygon 1 must"),
    ([[1, 1, 2, 2, 3, None]], "polygon 0 must"),
    ([[1, 1, 2, 2, 3, float("nan")]], "polygon 0 must"),
    ([[1, 1, 2, 2, 3, 1e300]], "near the frame"),  # pycocotools would ask for all the memory there is
    ([[1, 1, 2, 2, 3, 10**400]], "near the frame"),
    ([[1, 1, 1e9, 2, 3, 3]], "near the frame"),  # pycocotools would end the process
    ([[1, 1, 2, 2, 3, -6.1]], r"near the frame \(at most 6 pixels outside of 4 x 6\)"),
    ([[1, 1, 2, 2, 3, 12.1]], "near the frame"),
    ([[0, 0, "6", 0, 6, 4]], "polygon 0 must"),
    ([1, 1, 2, 2, 3, 3], "polygon 0 must"),
    ([{"size": [4, 6], "counts": [24]}], "polygon 0 must"),
])  # fmt: skip
def test_a_mask_that_is_none_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        rle.decode(segmentation, 4, 6)


def test_checked_codes_and_their_areas():
    mask, other = np.eye(4, 6) > 0, np.ones((4, 6), dtype=bool)
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    forms = [
        None,
        rle.encode(mask),
        [],
        {"size": [4, 6], "counts": [0, 24]},
        square,
        rle.encode(~other),
    ]
    codes, areas = rle.check(forms, 4, 6)
    assert areas.tolist() == [0, 4, 0, 24, 4, 0] and [
        i for i, c in enumerate(codes) if c is None
    ] == [0, 2]
    for code, wanted in ((codes[1], mask), (codes[3], other), (codes[5], ~other)):
        assert np.array_equal(rle_codec.decode(code), wanted)
    for broken, message in (("08", "covers 8 pixels of 24"), ([1], "covers 1 pixels of 24")):
        with pytest.raises(rle.MaskError, match=message) as refused:
            rle.check([None, forms[1], {"size": [4, 6], "counts": broken}, None], 4, 6)
        assert refused.value.mask == 2
    with pytest.raises(rle.MaskError, match="must be null or RLE") as refused:
        rle.check(forms, 4, 6, polygons=False)
    assert refused.value.mask == 2  # no polygon is a list of polygons, too
    assert rle.check([], 4, 6)[1].shape == (0,)


def test_polygons_may_be_refused():
    with pytest.raises(ValueError, match="must be null or RLE.*got list"):
        rle.compress([[0, 0, 4, 0, 4, 4]], 4, 6, polygons=False)
    assert rle.compress(None, 4, 6, polygons=False) is None


def test_polygons_outside_of_the_frame_are_cut_at_its_border():
    whole = [[-6, -6, 12, -6, 12, 12, -6, 12]]
    assert rle.decode(whole, 4, 6).all()
    half = rle.decode([[3, -6, 12, -6, 12, 12, 3, 12]], 4, 6)
    assert half[:, 3:].all() and not half[:, :3].any()


def test_an_outline_that_would_take_gigabytes_to_draw_is_refused():
    """1,000 points from side to side of a wide frame, all of them within it."""
    zigzag = [[x for i in range(1000) for x in (60_000 * (i % 2), i)]]
    tracemalloc.start()
    for judge in (rle.decode, lambda *mask: rle.check([mask[0]], *mask[1:])):
        with pytest.raises(ValueError, match="polygons 60,000,.* pixels long; at most 4,194,304"):
            judge(zigzag, 1000, 60_000)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    short = [[x for i in range(1000) for x in (4_000 * (i % 2), i)]]
    assert rle.decode(short, 1000, 4_000).any()  # four millions are drawn
    with pytest.raises(ValueError, match="pixels long"):
        rle.decode(short * 2, 1000, 4_000)  # all polygons of a mask count


@pytest.mark.parametrize("size", [(70_000, 8), (8, 10**9), (2**32, 1), (0, 8), (60_000, 60_000)])
def test_a_frame_of_impossible_size_is_named_before_anything_is_made(size):
    """Of 10^9 rows pycocotools would count the pixels in 32 bits."""
    pixels = f"{size[0]} x {size[1]} .height, width., {size[0] * size[1]:,} pixels"
    for mask in (None, {"size": list(size), "counts": [size[0] * size[1]]}, [[0, 0, 4, 0, 4, 4]]):
        for judge in (rle.decode, lambda mask, *size: rle.check([mask], *size)):
            with pytest.raises(rle.MaskError, match=pixels):
                judge(mask, *size)
