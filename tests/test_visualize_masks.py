import io
import math
import re

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import erfinv

from minst import MobileInst, MobileInstConfig
from minst.data.shapes import CATEGORIES, ShapesConfig, shapes_clip
from minst.data.video import read_video
from minst.tracking import Track, VideoResult, encode_mask
from minst.visualize import masks as drawing
from minst.visualize.masks import (
    Player,
    animate,
    color_of,
    draw_frame,
    draw_tracks,
    place_labels,
)

CLIP = shapes_clip("val", 3, ShapesConfig(width=128, height=96, frames=6))


def truth_of(clip) -> VideoResult:
    """The annotations of a clip as if a perfect tracker had found them."""
    shown = [clip.render(t).masks for t in range(len(clip))]  # T x (M, H, W)
    tracks = []
    for i, label in enumerate(clip.labels):
        codes = [encode_mask(masks[i]) if masks[i].any() else None for masks in shown]
        scores = [float(k == label) for k in range(len(clip.categories))]
        tracks.append(Track(i + 1, scores, codes))
    return VideoResult(tracks, len(clip), tuple(clip.categories))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MobileInst(MobileInstConfig.preset("shapes-tiny", class_names=CATEGORIES)).eval()


def blob(y=20, x=30, size=20, shape=(64, 96)):
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


def test_colors_are_distinct_stable_and_told_apart_without_red_green_vision():
    colors = np.array([color_of(i) for i in range(1, 22)], float)
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(21)
    assert apart.min() > 40
    assert color_of(1) == (0, 114, 178) and color_of(22) == color_of(
        1
    )  # what pictures in the lessons rely on
    first = colors[:7] / 255  # a dichromat without the red cone (Vienot 1999, in linear light)
    project = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    seen = first**2.2 @ project.T
    assert (np.abs(seen[:, None] - seen[None]).sum(-1) + 9 * np.eye(7)).min() > 0.1


def test_a_mask_is_tinted_inside_outlined_and_leaves_the_rest_alone():
    image = np.full((64, 96, 3), 128, np.uint8)
    picture = draw_frame(image, [blob()], [2], scale=1).astype(int)
    color = np.array(color_of(2))
    assert np.abs(picture[30, 40] - (128 + (color - 128) * drawing.FILL)).max() <= 1
    assert np.abs(picture[30, 30] - color).max() < 30  # on the contour
    away = ~np.pad(blob(), 4)[2:-6, 2:-6] & ~np.pad(blob(), 4)[4:-4, 4:-4]
    away[16:45, 26:55] = False
    assert (picture[away] == 128).all()
    assert draw_frame(image, [blob()], [2]).shape == (128, 192, 3)  # small frames are enlarged
    assert (image == 128).all()


def test_contours_keep_their_width_at_every_scale():
    for scale in (1, 2, 3):
        image = np.zeros((64, 96, 3), np.uint8)
        row = draw_frame(image, [blob(10, 20, 40)], [1], scale=scale, opacity=0.0)[30 * scale].max(
            -1
        )
        assert 2.0 < (row[: 40 * scale] > 100).sum() < 7.5, scale
        assert (
            np.abs(np.flatnonzero(row[: 40 * scale]).mean() - (20 * scale - 0.5)) < 1
        )  # centred on the edge


def test_tables_of_256_levels_give_what_painting_every_pixel_in_layers_gives(monkeypatch):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    mask, color, scale = random.random((64, 96)) < 0.5, np.array(color_of(3), float), 2
    size = (mask.shape[0] * scale, mask.shape[1] * scale)
    soft = Image.fromarray(drawing.resized(mask.astype(np.uint8) * 255, size))
    soft = np.asarray(soft.filter(drawing.ImageFilter.GaussianBlur(0.8 * scale))) / 255.0
    distance = 0.8 * scale * math.sqrt(2) * erfinv(2 * soft - 1)
    expected = drawing.resized(image, size).astype(float)
    fill, line = np.clip(distance + 0.5, 0, 1), np.clip(drawing.LINE + 0.5 - np.abs(distance), 0, 1)
    halo = np.clip(drawing.HALO + 0.5 - np.abs(distance), 0, 1)
    for paint, cover in ((color, 0.6 * fill), (255.0, 0.75 * halo), (color, line)):
        expected += (paint - expected) * cover[..., None]
    drawn = draw_frame(image, [mask], [3], scale=scale, opacity=0.6)
    assert np.abs(drawn - expected).max() <= 0.51  # rounding alone


def test_later_masks_lie_on_top_and_empty_ones_do_nothing():
    image = np.zeros((64, 96, 3), np.uint8)
    both = draw_frame(image, [blob(), blob()], [1, 2], scale=1, opacity=1.0)
    assert tuple(both[30, 40]) == color_of(2)
    nothing = draw_frame(image, [np.zeros((64, 96), bool)], [1], ["1 fish"], scale=1)
    assert (nothing == image).all()
    assert (draw_frame(image, [], [], [], scale=1) == image).all()


def test_draw_frame_refuses_what_does_not_fit():
    image = np.zeros((64, 96, 3), np.uint8)
    with pytest.raises(ValueError, match="shapes"):
        draw_frame(image, [np.zeros((64, 64), bool)], [1])
    with pytest.raises(ValueError, match="1 masks, 2 ids"):
        draw_frame(image, [blob()], [1, 2])


def test_labels_stay_inside_the_frame_and_apart():
    random = np.random.default_rng(0)
    for _ in range(200):
        n = random.integers(1, 6)
        anchors = random.uniform(-50, 400, (n, 2))
        sizes = [(int(w), 15) for w in random.integers(20, 120, n)]
        boxes = place_labels(anchors, sizes, (300, 200))
        for (x0, y0, x1, y1), (w, h) in zip(boxes, sizes):
            assert 0 <= x0 and x1 <= 300 and 0 <= y0 and y1 <= 200
            assert (x1 - x0, y1 - y0) == (w, h)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert place_labels([(50, 40)], [(20, 10)], (100, 80)) == [(40, 28, 60, 38)]
    assert place_labels([(5, 5)], [(500, 10)], (100, 80)) == [
        (0, 0, 100, 10)
    ]  # wider than the frame


def test_the_tag_of_the_mask_on_top_has_the_first_choice(monkeypatch):
    wanted = []
    monkeypatch.setattr(
        drawing, "_tags", lambda canvas, tags: wanted.append([text for text, *_ in tags])
    )
    masks = [blob(), blob(), np.zeros((64, 96), bool), blob()]
    draw_frame(np.zeros((64, 96, 3), np.uint8), masks, [1, 2, 3, 4], ["low", "", "unseen", "top"])
    assert wanted == [["top", "low"]]


def test_a_tag_is_drawn_above_its_mask_in_its_color():
    picture = draw_frame(
        np.zeros((64, 96, 3), np.uint8), [blob(30, 30, 20)], [1], ["1 fish"], scale=2, opacity=0
    )
    rows, _ = np.nonzero((picture == color_of(1)).all(-1)[: 30 * 2 - 4])
    assert len(rows) > 100 and rows.min() > 30 * 2 - 25


def test_labels_follow_a_trembling_mask_calmly_but_jump_with_a_new_run():
    tops = [20, 24, 20, 24, 20, 24, None, 60, 60, 60]
    codes = [None if y is None else encode_mask(blob(y, 30, 20, (100, 96))) for y in tops]
    anchors = drawing._smooth_anchors(Track(1, [1.0], codes))
    assert sorted(anchors) == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    y = [anchors[t][1] for t in range(6)]
    assert np.abs(np.diff(y)).max() < 1.5 and 20 < min(y) and max(y) < 24
    assert anchors[7] == pytest.approx((40, 60))  # what came before the gap does not pull


def test_draw_tracks_draws_every_frame_of_the_result():
    result = truth_of(CLIP)
    assert result.num_frames == 6 and result.class_names == CATEGORIES
    for i, track in enumerate(result.tracks):
        assert track.label == CLIP.labels[i] and track.score == 1.0
        assert [c is not None for c in track.segmentations] == [
            bool(CLIP.render(t).masks[i].any()) for t in range(6)
        ]
    drawn = list(draw_tracks(CLIP, result))
    assert len(drawn) == 6 and drawn[0].shape == (192, 256, 3)
    images = [CLIP.render(t).image for t in range(6)]
    assert all((a == b).all() for a, b in zip(drawn, draw_tracks(iter(images), result, scale=2)))
    tensors = [torch.from_numpy(i).permute(2, 0, 1) / 255 for i in images]
    assert (next(draw_tracks(tensors, result)) == drawn[0]).all()
    with pytest.raises(ValueError, match="4 frames, the result 6"):
        list(draw_tracks(images[:4], result))
    with pytest.raises(ValueError, match="goes on after the 6"):
        list(draw_tracks(images + images, result))
    plain = list(draw_tracks(images, VideoResult([], 6, ()), scale=1))
    assert all((a == b).all() for a, b in zip(plain, images))


def test_tags_say_id_category_and_score(monkeypatch):
    said = []
    monkeypatch.setattr(
        drawing, "draw_frame", lambda image, masks, ids, texts, *rest: said.append((ids, texts))
    )
    code = encode_mask(blob())
    tracks = [
        Track(4, [0.2, 0.75], [code]),
        Track(9, [0.5, 0.1], [code]),
        Track(5, [0.4, 0.1], [None]),
    ]
    list(draw_tracks([np.zeros((64, 96, 3), np.uint8)], VideoResult(tracks, 1, ("fish", "leaf"))))
    list(draw_tracks([np.zeros((64, 96, 3), np.uint8)], VideoResult(tracks, 1, ())))
    assert said[0] == ([9, 4], ["9 fish 0.50", "4 leaf 0.75"])  # the best last: on top
    assert said[1][1] == ["9 class 0 0.50", "4 class 1 0.75"]


def test_animate_writes_what_the_suffix_says(tmp_path):
    frames = list(draw_tracks(CLIP, truth_of(CLIP)))
    mp4 = animate(frames, tmp_path / "a.mp4")
    assert len(list(read_video(mp4))) == 6
    with Image.open(animate(iter(frames), tmp_path / "a.gif")) as gif:
        assert gif.n_frames == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.mp4"]
    with pytest.raises(ValueError, match="avi"):
        animate(frames, tmp_path / "a.avi")


def test_without_a_path_animate_gives_a_player_for_the_notebook():
    shades = np.linspace(30, 220, 9).astype(np.uint8)
    frames = (np.full((48, 64, 3), shade, np.uint8) for shade in shades)
    player = animate(frames, fps=4.0)
    assert isinstance(player, Player)
    assert re.fullmatch(r"Film: 9 frames, 64 x 48, 2\.\d s, \d+ KB", repr(player))
    page = player._repr_html_()
    for word in ("controls", "autoplay", "loop", "muted", "playsinline", "max-width:100%"):
        assert word in page
    # where <video> is stripped with all that is in it, the middle frame is left, with words for who cannot see it
    left = re.sub("<video.*</video>", "", page)
    assert (
        "<img " in left and f"alt='{player!r} (its middle frame)'" in left and "<video" not in left
    )
    with Image.open(io.BytesIO(player._repr_jpeg_())) as still:
        assert still.size == (64, 48) and abs(np.asarray(still).mean() - shades[4]) < 4
    assert page.count("data:image/jpeg;base64,") == 2  # under the film, and as its poster
    assert page.count("'") % 2 == 0 and "http" not in re.sub("base64,[^']*", "", page)


def test_the_film_of_a_player_is_one_that_browsers_play(tmp_path):
    player = animate(draw_tracks(CLIP, truth_of(CLIP)))
    (tmp_path / "film.mp4").write_bytes(player.video)
    with av.open(str(tmp_path / "film.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.frames) == (
            "h264",
            "yuv420p",
            6,
        )
    assert repr(animate([np.zeros((31, 45, 3), np.uint8)])).startswith(
        "Film: 1 frame, 46 x 32, 0.1 s"
    )


@pytest.mark.parametrize("name", [None, "a.mp4", "a.gif"])
def test_animate_refuses_nothing_and_leaves_no_file(tmp_path, name):
    for frames in ([], iter(())):
        with pytest.raises(ValueError, match="no frames"):
            animate(frames, name and tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_player_holds_one_frame_at_a_time():
    alive, most = [0], [0]

    class Counted(np.ndarray):
        def __del__(self):
            alive[0] -= self.base is None

    def frames():
        for _ in range(30):
            frame = np.ndarray.__new__(Counted, (32, 32, 3), np.uint8)
            frame[:] = 90
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield frame

    assert animate(frames()).info.frames == 30
    assert most[0] <= 4


def test_the_page_plays_in_a_browser_and_fits_a_narrow_one(tmp_path, browser):
    page_path = tmp_path / "film.html"
    page_path.write_text(animate(draw_tracks(CLIP, truth_of(CLIP)))._repr_html_())
    page = browser.new_page(viewport={"width": 180, "height": 300})
    try:
        page.goto(page_path.as_uri())
        page.wait_for_function("document.querySelector('video').readyState >= 2")
        page.wait_for_function(
            "document.querySelector('video').currentTime > 0.1"
        )  # autoplay, muted
        film, still = (
            page.evaluate(f"document.querySelector('{tag}').getBoundingClientRect().toJSON()")
            for tag in ("video", "img")
        )
        assert page.evaluate("document.querySelector('video').videoWidth") == 256
    finally:
        page.close()
    assert 100 < film["width"] <= 180 and film["width"] / film["height"] == pytest.approx(
        256 / 192, abs=0.02
    )
    for side in ("x", "y", "width", "height"):
        assert film[side] == pytest.approx(still[side], abs=1)  # the film covers the still


def test_tags_and_contours_grow_with_the_frame(monkeypatch):
    sizes, place = [], drawing.place_labels

    def noted(anchors, tags, frame):
        sizes.extend(tags)
        return place(anchors, tags, frame)

    def drawn(factor):
        image = np.full((240 * factor, 320 * factor, 3), 90, np.uint8)
        mask = blob(100 * factor, 100 * factor, 60 * factor, image.shape[:2])
        row = draw_frame(image, [mask], [1], ["1 fish"], scale=1)[130 * factor].astype(int)
        return (np.abs(row - color_of(1)).max(-1) < 25).sum()  # pixels of two contours

    monkeypatch.setattr(drawing, "place_labels", noted)
    small, large = drawn(2), drawn(6)  # 640 and 1920 pixels long
    share = 1920 / drawing.UNIT
    np.testing.assert_allclose(sizes[1], np.multiply(sizes[0], share), rtol=0.1)
    assert small >= 2 and large == pytest.approx(share * small, rel=0.3)
