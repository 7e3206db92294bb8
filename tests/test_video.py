import errno
import itertools
import os
import resource
import warnings
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from minst.data import video as module
from minst.data.video import TimedFrame, read_timed, read_video, video_info, write_gif, write_mp4


def movie(frames=5, height=96, width=128):
    """A bright square that walks to the right over a smooth gradient: survives compression."""
    x = np.linspace(40, 160, width, dtype=np.float32)
    images = np.zeros((frames, height, width, 3), np.uint8)
    images[..., 0], images[..., 1], images[..., 2] = x, x[::-1], 90
    for t in range(frames):
        images[t, 30:60, 10 + 16 * t : 40 + 16 * t] = (240, 60, 30)
    return images


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean()


def test_mp4_round_trip_keeps_count_size_order_and_pixels(tmp_path):
    frames = movie()
    path = write_mp4(iter(frames), tmp_path / "new" / "a.mp4", fps=7.5)
    back = list(read_video(path))
    assert [f.shape for f in back] == [(96, 128, 3)] * 5 and back[0].dtype == np.uint8
    for t, image in enumerate(back):
        assert difference(image, frames[t]) < 4
        assert np.argmin([difference(image, other) for other in frames]) == t
    assert video_info(path)[:4] == (128, 96, 5, 7.5)
    assert [round(frame.seconds, 3) for frame in read_timed(path)] == [0, 0.133, 0.267, 0.4, 0.533]


def test_odd_sizes_are_padded_by_their_last_row_and_column(tmp_path):
    frames = movie(height=95, width=127)
    back = next(read_video(write_mp4(frames, tmp_path / "a.mp4")))
    assert back.shape == (96, 128, 3)
    assert difference(back[:95, :127], frames[0]) < 4
    assert difference(back[95, :127], frames[0][94]) < 8 and difference(back[:95, 127], frames[0][:, 126]) < 8


def test_a_phone_held_upright_is_turned_upright(tmp_path):
    path = write_mp4(movie(), tmp_path / "a.mp4")
    identity = bytes.fromhex("00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000")
    clockwise = bytes.fromhex("00000000 00010000 00000000 ffff0000 00000000 00000000 00000000 00000000 40000000")
    data = path.read_bytes()
    tkhd = data.index(b"tkhd")
    at = data.index(identity, tkhd)
    path.write_bytes(data[:at] + clockwise + data[at + len(identity) :])
    image = next(read_video(path))
    assert image.shape == (128, 96, 3)
    assert difference(image, np.rot90(movie()[0], -1)) < 4  # "turn a quarter clockwise to show"
    assert video_info(path)[:2] == (96, 128)


def test_a_folder_is_read_in_natural_order_one_image_at_a_time(tmp_path):
    for number in (10, 9, 2, 1):
        Image.fromarray(np.full((64, 80, 3), number * 10, np.uint8)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._f3.png").write_bytes(b"macOS leaves such files")
    frames = read_video(tmp_path)
    assert next(frames)[0, 0, 0] == 10
    (tmp_path / "f9.png").write_bytes(b"broken later")  # not yet read: memory is bounded
    assert next(frames)[0, 0, 0] == 20
    with pytest.warns(
        UserWarning, match=r"skipped 1 that are broken, the first: .*f9\.png: not a readable image"
    ) as said:
        assert [image[0, 0, 0] for image in frames] == [100]
    assert len(said) == 1
    assert video_info(tmp_path)[:4] == (80, 64, 4, None) and video_info(tmp_path).expected == 4


def test_neither_writing_nor_reading_keeps_old_frames(tmp_path):
    written = []

    class Frame(np.ndarray):  # can be watched
        pass

    def frames():
        for t in range(60):
            image = np.full((64, 64, 3), t, np.uint8).view(Frame)
            written.append(weakref.ref(image))
            assert sum(old() is not None for old in written) < 5
            yield image

    path = write_mp4(frames(), tmp_path / "a.mp4")
    images = read_video(path)
    assert iter(images) is images  # an iterator, no list
    assert len(list(images)) == 60


def test_half_a_file_is_not_left_behind(tmp_path):
    def frames():
        yield from movie(80)  # so many that the encoder has begun to write
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(frames(), tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()


def test_errors_name_the_file_and_come_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        read_video(tmp_path / "nowhere.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is not a video" * 50)
    with pytest.raises(ValueError, match="broken.mp4.*not a readable video"):
        read_video(broken)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty.*no .jpg"):
        read_video(tmp_path / "empty")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="sound.mkv.*no video stream"):
        read_video(tmp_path / "sound.mkv")


def test_a_file_of_which_nothing_decodes_is_an_error(tmp_path):
    path = write_mp4(movie(30), tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 8 :] = b"\xff" * (len(data) - start - 8)
    path.write_bytes(data)
    for read in (lambda: list(read_video(path)), lambda: video_info(path)):
        with pytest.raises(ValueError, match=r"a\.mp4: holds no frame that can be read"):
            read()
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("1.jpg", "2.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"frames: holds no frame that can be read \(.*1\.jpg"):
        list(read_video(folder))


def film(frames=90, height=120, width=160):
    """A fine pattern that moves, with a key frame a second at 30 fps, in the two containers of the web."""
    tile = np.random.default_rng(0).integers(60, 200, (height // 8, width // 8, 3))
    pattern = tile.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return [np.roll(pattern, 3 * t, axis=1) for t in range(frames)]


def encode(path, frames, times, codec="libx264", options=(("g", "30"), ("preset", "veryfast"))):
    """Written by PyAV alone; times in seconds, in ticks of 1/90000."""
    with av.open(str(path), "w", options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=30, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        for image, seconds in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = round(seconds * 90000), Fraction(1, 90000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def even(frames):
    return [t / 30 for t in range(frames)]


def damaged(path, start, stop, with_bytes):
    data = bytearray(path.read_bytes())
    a, b = round(len(data) * start), round(len(data) * stop)
    data[a:b] = with_bytes(b - a)
    path.write_bytes(data)


@pytest.mark.parametrize("filling", [bytes, np.random.default_rng(1).bytes, lambda n: b"\xff" * n])
def test_broken_bytes_in_the_middle_are_skipped_with_one_warning(tmp_path, filling):
    frames = film()
    path = encode(tmp_path / "a.mp4", frames, even(90))
    damaged(path, 0.5, 0.55, filling)
    with pytest.warns(UserWarning) as said:
        back = list(read_timed(path))
    lost = 90 - len(back)
    missing = sorted(set(range(90)) - {round(frame.seconds * 30) for frame in back})
    assert len(said) == 1 and 0 < lost < 30 and len(missing) == lost
    assert f"a.mp4: skipped {lost} that are broken, the first: frame " in str(said[0].message)
    first = float(str(said[0].message).split("(at ")[1].split(" s)")[0])
    assert round(first * 30) in missing
    for frame in back[: missing[0] - 2] + back[-28:]:  # before the damage and after the next key frame all is well
        assert difference(frame.image, frames[round(frame.seconds * 30)]) < 12


@pytest.mark.parametrize("name, codec", [("a.mp4", "libx264"), ("a.webm", "libvpx")])
def test_a_file_cut_in_the_middle_gives_what_is_there_and_says_where_it_ends(tmp_path, name, codec):
    path = encode(
        tmp_path / name,
        film(),
        even(90),
        codec,
        [("g", "30"), ("deadline", "realtime"), ("cpu-used", "8")][: 1 + 2 * (codec == "libvpx")],
    )
    damaged(path, 0.5, 1, lambda n: b"")
    with pytest.warns(UserWarning, match=r"after \d\.\d of its 3\.0 s, as if cut off") as said:
        count = len(list(read_video(path)))
    assert 20 < count < 60 and len(said) == 1


def test_a_whole_file_is_read_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read_video(encode(tmp_path / "a.mp4", film(60), even(60))))) == 60


@pytest.mark.parametrize("suffix, codec", [(".mp4", "libx264"), (".mov", "libx264"), (".webm", "libvpx")])
def test_a_varying_rate_is_said_and_kept(tmp_path, suffix, codec):
    times = np.cumsum([0] + [1 / 30] * 20 + [1 / 10] * 20 + [0.5] * 3).tolist()  # 4.17 s; at its average rate: drift
    path = encode(tmp_path / f"a{suffix}", movie(len(times)), times, codec, ())
    info = video_info(path)
    assert info.frames == 44 and info.expected == 44
    assert suffix != ".webm" or info.fps == pytest.approx(43 / times[-1], rel=0.01)  # though its header says 30
    given = [frame.seconds for frame in read_timed(path)]
    assert given == pytest.approx(times, abs=0.0011)  # webm counts milliseconds
    copy = write_mp4(read_timed(path), tmp_path / "copy.mp4", info.fps)
    assert [frame.seconds for frame in read_timed(copy)] == pytest.approx(given, abs=1e-4)
    with av.open(str(copy)) as container:  # a player stops at the stated length: the last frame must lie within
        assert times[-1] < container.duration / av.time_base < times[-1] + 0.3
    steady = video_info(encode(tmp_path / f"b{suffix}", movie(40), even(40), codec, ()))
    assert steady.fps == pytest.approx(30, rel=0.01)


@settings(max_examples=15)
@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=12), st.floats(0, 5))
def test_written_times_are_those_given_from_zero_on(tmp_path_factory, gaps, start):
    times = np.cumsum([start, *gaps]).tolist()
    frames = (TimedFrame(np.zeros((64, 64, 3), np.uint8), seconds) for seconds in times)
    path = write_mp4(frames, tmp_path_factory.getbasetemp() / "times.mp4", 10)
    assert [f.seconds for f in read_timed(path)] == pytest.approx([t - start for t in times], abs=2e-5)


def test_times_that_stand_still_or_are_missing_still_go_forward(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    path = write_mp4([TimedFrame(image, t) for t in (1.0, 1.0, 0.5, None, 3.0)], tmp_path / "a.mp4", 10)
    times = [frame.seconds for frame in read_timed(path)]
    assert times == sorted(set(times)) and times[3] - times[2] == pytest.approx(0.1) and times[4] == pytest.approx(2)


def test_a_missing_frame_leaves_a_gap_and_no_drift(tmp_path):
    source = [TimedFrame(image, t / 10) for t, image in enumerate(movie(6)) if t not in (2, 3)]
    path = write_mp4(source, tmp_path / "a.mp4", 10)
    assert [round(f.seconds, 4) for f in read_timed(path)] == [0, 0.1, 0.4, 0.5]


def test_every_container_that_people_have_is_read(tmp_path):
    frames = list(movie(6))
    for name, codec in (("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.webm", "libvpx"), ("ä ü.MP4", "libx264")):
        path = encode(tmp_path / name, frames, even(6), codec, ())
        back = list(read_video(path))
        assert len(back) == 6 and max(map(difference, back, frames)) < 8, name
    info = video_info(write_gif(frames, tmp_path / "a.gif", fps=10))
    assert info[:3] == (128, 96, 6) and info.fps == pytest.approx(10) and info.seconds == pytest.approx(0.6)


def test_gif_disposal_and_transparency_are_those_of_pillow_on_white(tmp_path):
    shots = []
    for t in range(4):
        shot = np.zeros((64, 80, 4), np.uint8)
        shot[10 * t : 10 * t + 20, 10:30] = (200, 30, 30, 255)
        shots.append(Image.fromarray(shot))
    for disposal in (1, 2):
        path = tmp_path / f"{disposal}.gif"
        shots[0].save(path, save_all=True, append_images=shots[1:], duration=[100, 100, 300, 100], disposal=disposal)
        back = list(read_video(path))
        with Image.open(path) as gif:
            for t, image in enumerate(back):
                gif.seek(t)
                shown = gif.convert("RGBA")
                white = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
                assert difference(image, np.asarray(white)) == 0, (disposal, t)
        assert len(back) == 4
        assert [round(f.seconds, 2) for f in read_timed(path)] == [0, 0.1, 0.2, 0.5]


def test_patterns_name_images_in_natural_order(tmp_path, monkeypatch):
    for name in ("b/2.png", "b/10.png", "a/1.png", "b/1.jpg", "b/deep/3.png", "b/.hidden.png", "b/3²4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (len(name) * 3, 0, 0)).save(tmp_path / name)
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")  # a circle: each image once all the same
    found = module._find
    names = lambda pattern: [str(p.relative_to(tmp_path)) for p in found(str(tmp_path / pattern))]  # noqa: E731
    assert names("b/*.png") == ["b/2.png", "b/3²4.png", "b/10.png"]
    assert names("*/[0-9].*") == ["a/1.png", "b/1.jpg", "b/2.png"]
    assert names("**/*.png") == ["a/1.png", "b/2.png", "b/3²4.png", "b/10.png", "b/deep/3.png"]
    monkeypatch.chdir(tmp_path)
    assert [str(p) for p in found("b/*.jpg")] == ["b/1.jpg"] and len(list(read_video("b/*.png"))) == 3
    with pytest.raises(FileNotFoundError, match=r"x\*\.png: no file has such a name"):
        read_video("x*.png")
    write_mp4(movie(3), tmp_path / "clip [1].mp4")
    assert len(list(read_video("clip [1].mp4"))) == 3  # the name itself comes first
    assert len(list(read_video("cl*.mp4"))) == 3
    write_mp4(movie(3), tmp_path / "clip2.mp4")
    with pytest.raises(ValueError, match=r"cl\*\.mp4: 2 files, none an image"):
        read_video("cl*.mp4")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(FileNotFoundError, match="round: no such file"):
        read_video("round")


def test_photographs_are_turned_as_their_camera_was_held(tmp_path):
    stored = np.zeros((64, 80, 3), np.uint8)
    stored[:32, :40] = (250, 250, 250)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}" / "a.jpg"
        path.parent.mkdir()
        Image.fromarray(stored).save(path, exif=exif, quality=95)
        (image,) = read_video(path.parent)
        with Image.open(path) as file:
            wanted = np.asarray(ImageOps.exif_transpose(file))
        assert image.shape == wanted.shape and difference(image, wanted) == 0
        bright = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
        corners = image[[[0, 0], [-1, -1]], [[0, -1], [0, -1]], 0]  # by the table of the EXIF standard
        assert corners[bright] > 200 and (corners > 200).sum() == 1


def test_all_kinds_of_images_become_rgb_bytes(tmp_path):
    ramp = np.arange(64 * 65).reshape(64, 65)
    rgba = np.zeros((64, 65, 4), np.uint8)
    rgba[..., 0], rgba[:32, :, 3], rgba[32:48, :, 3] = 200, 255, 51  # opaque, a fifth, nothing
    kinds = {
        "gray": (Image.fromarray((ramp % 256).astype(np.uint8)), lambda i: i[..., 1] == ramp % 256),
        "deep": (Image.fromarray((ramp * 15).astype(np.uint16)), lambda i: i[..., 2] == ramp * 15 // 257),
        "see-through": (
            Image.fromarray(rgba),
            lambda i: [*i[0, 0], *i[40, 0], *i[63, 0]] == [200, 0, 0, 244, 204, 204, 255, 255, 255],
        ),
        "palette": (Image.fromarray(rgba[..., :3]).quantize(8), lambda i: abs(i[..., 0].astype(int) - 200) < 3),
        "one-bit": (Image.fromarray(ramp % 2 > 0), lambda i: i[..., 0] == ramp % 2 * 255),
    }
    for name, (picture, right) in kinds.items():
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "1.png")
        (image,) = read_video(tmp_path / name)
        assert image.shape == (64, 65, 3) and image.dtype == np.uint8 and np.all(right(image)), name


@pytest.mark.parametrize("system, said", [("linux", "v4l2"), ("win32", "dshow")])
def test_a_webcam_that_is_not_there_is_refused_with_those_that_are(monkeypatch, system, said):
    monkeypatch.setattr(module.sys, "platform", system)
    monkeypatch.setattr(module.Path, "glob", lambda *_: iter(()))
    monkeypatch.setattr(module.av, "enumerate_input_devices", lambda kind: [], raising=False)
    for source in (0, "0"):
        with pytest.raises(FileNotFoundError, match=f"webcam 0: not here; there is none at all .{said}"):
            read_video(source)
    monkeypatch.setattr(module.Path, "glob", lambda *_: iter([module.Path("/dev/video2")]))
    if system == "linux":
        with pytest.raises(FileNotFoundError, match="webcam 0: not here; there is /dev/video2"):
            video_info(0)
        with pytest.raises(ValueError, match=r"webcam 2 \(/dev/video2\): cannot be opened"):
            read_video("2")


@pytest.fixture
def camera(monkeypatch):
    """FFmpeg's test picture in the place of a webcam: it never ends."""
    monkeypatch.setattr(module, "_camera", lambda number: (f"testsrc=size=128x{96 + 2 * number}:rate=10", "lavfi"))


def test_a_webcam_goes_on_for_ever(camera):
    assert video_info("1") == (128, 98, None, 10.0, None) and video_info(0).expected is None
    frames = list(itertools.islice(read_timed(0), 25))
    assert [f.seconds for f in frames] == pytest.approx([t / 10 for t in range(25)])
    assert frames[0].image.shape == (96, 128, 3)


def test_a_camera_that_has_no_frame_yet_is_asked_again():
    class Slow:
        asked = 0

        def demux(self, stream):
            self.asked += 1
            if self.asked < 3:
                raise av.error.BlockingIOError(errno.EAGAIN, "not yet")
            yield from ("a", "b")

    assert list(module._packets(Slow(), None, [])) == ["a", "b"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path, noise = tmp_path / "a.mp4", np.random.default_rng(0)
    frames = [noise.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(40)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write, name in ((write_mp4, "a.mp4"), (write_gif, "a.gif")):
        path = tmp_path / name
        path.write_text("before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file may be larger
        try:
            with pytest.raises(OSError, match="not written") as said:
                write(frames, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert said.value.filename == str(path) and path.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.mp4"]


def test_images_of_different_size_are_refused(tmp_path):
    for name, size in (("1.jpg", (80, 64)), ("2.jpg", (64, 80))):
        Image.new("RGB", size).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"2\.jpg: 64x80, but 1\.jpg is 80x64"):
        list(read_video(tmp_path))
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    for write, name in ((write_mp4, "a.mp4"), (write_gif, "a.gif")):
        with pytest.raises(ValueError, match="different size"):
            write(frames, tmp_path / name)
        assert not (tmp_path / name).exists()
        with pytest.raises(ValueError, match="no frames"):
            write([], tmp_path / name)
        with pytest.raises(ValueError, match="bytes"):
            write([np.zeros((64, 64, 3))], tmp_path / name)
        with pytest.raises(ValueError, match="fps"):
            write(frames[:1], tmp_path / name, fps=0)


def test_gif_plays_all_frames_in_few_colours(tmp_path):
    frames = movie()
    path = write_gif(iter(frames), tmp_path / "a.gif", fps=10)
    with Image.open(path) as gif:
        assert gif.n_frames == 5 and gif.info["duration"] == 100 and gif.info["loop"] == 0
        for t in range(5):
            gif.seek(t)
            assert difference(np.asarray(gif.convert("RGB")), frames[t]) < 8
    noise = np.random.default_rng(0).integers(-3, 4, (10, 96, 128, 3))
    calm = np.clip(movie(1) + noise, 0, 255).astype(np.uint8)  # sensor noise alone moves
    one = write_gif(calm[:1], tmp_path / "one.gif").stat().st_size
    assert write_gif(calm, tmp_path / "ten.gif").stat().st_size < 1.3 * one


# ------------------------------------------------------------------------------------------------ as a player shows it


def record(path, shots, codec="libx264", kind=None, rate=25, pixels="yuv420p", aspect=None, **options):
    """Frames written by PyAV alone; those of each shot have a size of their own, and times of their own."""
    with av.open(str(path), "w", format=kind) as container:
        stream = None
        for shot in shots:
            encoder = av.CodecContext.create(codec, "w")
            encoder.height, encoder.width, encoder.pix_fmt = *shot[0].shape[:2], pixels
            encoder.time_base, encoder.framerate, encoder.options = Fraction(1, rate), rate, options
            if aspect:
                encoder.sample_aspect_ratio = aspect
            stream = stream or container.add_stream(codec, rate=rate)
            if shot is shots[0]:
                stream.height, stream.width, stream.pix_fmt = encoder.height, encoder.width, pixels
                if aspect:
                    stream.sample_aspect_ratio = aspect
            pictures = [av.VideoFrame.from_ndarray(i, format="rgb24" if i.shape[2] == 3 else "rgba") for i in shot]
            for t, picture in enumerate(pictures):
                picture = picture.reformat(format=pixels)
                picture.pts, picture.time_base = t, Fraction(1, rate)
                for packet in encoder.encode(picture):
                    packet.stream = stream
                    container.mux(packet)
            for packet in encoder.encode():
                packet.stream = stream
                container.mux(packet)
    return path


def grey(frames, height, width):
    return [np.full((height, width, 3), 20 + 20 * t % 220, np.uint8) for t in range(frames)]


def test_a_recording_that_changes_its_size_keeps_the_first(tmp_path):
    """As ffmpeg does; times that begin anew go on."""
    path = record(tmp_path / "a.h264", [grey(10, 96, 128), grey(10, 64, 80)], kind="h264")
    frames = list(read_timed(path))
    assert len(frames) == 20 and {f.image.shape for f in frames} == {(96, 128, 3)}
    levels = [int(f.image.mean()) for f in frames]
    assert np.abs(np.array(levels) - np.tile(20 + 20 * np.arange(10), 2)).max() < 4
    assert [f.seconds for f in frames] == pytest.approx([t / 25 for t in range(20)])
    copy = write_mp4(read_timed(path), tmp_path / "copy.mp4", 25)
    assert video_info(copy)[:3] == (128, 96, 20)


def test_times_that_begin_anew_go_on(tmp_path):
    """The first of 25 frames a second, the second of 10."""
    kinds = ((96, 128), 25), ((64, 80), 10)
    parts = [record(tmp_path / f"{rate}.ts", [grey(30, *size)], rate=rate, bf="0") for size, rate in kinds]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = list(read_timed(path))
    assert len(frames) == 60 and {f.image.shape for f in frames} == {(96, 128, 3)}
    assert np.diff([f.seconds for f in frames]) == pytest.approx([1 / 25] * 30 + [1 / 10] * 29, abs=1e-3)
    info = video_info(path)
    assert info[:3] == (128, 96, 60) and info.fps == pytest.approx(25, rel=0.01)  # that of the first


@pytest.mark.parametrize("rate", [10, 50])
def test_bare_pictures_follow_each_other_at_the_rate_of_their_codec(tmp_path, rate):
    """A raw .h264 has no times, and FFmpeg says 25 a second of each."""
    path = record(tmp_path / "a.h264", [grey(10, 96, 128)], kind="h264", rate=rate)
    info = video_info(path)
    assert info[:4] == (128, 96, 10, rate) and info.expected == 10
    assert [f.seconds for f in read_timed(path)] == pytest.approx([t / rate for t in range(10)])
    copy = write_mp4(read_timed(path), tmp_path / "a.mp4", info.fps)
    assert [f.seconds for f in read_timed(copy)] == pytest.approx([t / rate for t in range(10)], abs=1e-4)


@pytest.mark.parametrize("codec, name, pixels", [
    ("qtrle", "a.mov", "argb"), ("png", "a.mov", "rgba"), ("libvpx-vp9", "a.webm", "yuva420p")])  # fmt: skip
def test_what_is_transparent_in_a_film_is_white(tmp_path, codec, name, pixels):
    """Left opaque, in the middle half, to the right nothing: (200, 0, 0) on white."""
    image = np.zeros((48, 96, 4), np.uint8)
    image[..., 0] = 200
    image[:, :32, 3], image[:, 32:64, 3] = 255, 128
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 96, pixels
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pixels)))
        container.mux(stream.encode())
    frames = list(read_timed(tmp_path / name))
    assert [round(f.seconds, 3) for f in frames] == [0, 0.1, 0.2]
    found = frames[1].image[24, [8, 48, 88]].astype(int)
    assert np.abs(found - [[200, 0, 0], [227, 127, 127], [255, 255, 255]]).max() <= (8 if codec == "libvpx-vp9" else 1)


@pytest.mark.parametrize("aspect, width", [(Fraction(2), 256), (Fraction(3, 4), 96), (Fraction(20), 128)])
def test_pixels_that_are_not_square_are_made_so(tmp_path, aspect, width):
    image = np.zeros((96, 128, 3), np.uint8)
    image[:, 64:] = 200
    path = record(tmp_path / "a.mp4", [[image] * 3], aspect=aspect)
    assert video_info(path)[:3] == (width, 96, 3)
    for frame in read_video(path):
        assert frame.shape == (96, width, 3)
        assert frame[:, : width // 2 - 4].max() < 20 and frame[:, width // 2 + 4 :].min() > 180


# ------------------------------------------------------------------------------------------------ names and files


@pytest.mark.parametrize("name", ["take:2.mp4", "10:30.mp4", "http:x.mp4", "concat:a|b.mp4", "pipe:.mp4", "file:a.mp4",
                                  "subfile,,start,0,end,9,,:x.mp4", "crypto:a.mp4", "a%03d.mp4"])  # fmt: skip
def test_a_name_with_a_colon_is_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert write_mp4(movie(3), name) == module.Path(name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(list(read_video(name))) == 3 and video_info(name).frames == 3
    write_gif(movie(3), name + ".gif")
    assert len(list(read_video(name + ".gif"))) == 3


def test_no_list_of_other_files_is_followed(tmp_path):
    for name in ("secret.mp4", "secret.ts"):
        record(tmp_path / name, [grey(30, 96, 128)])
        assert len(list(read_video(tmp_path / name))) == 30
    lists = {
        "a.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "b.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "c.sdp": "v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        for read in (read_video, video_info):
            with pytest.raises(ValueError, match=f"{name}: not a readable video"):
                read(tmp_path / name)


def test_addresses_and_devices_are_refused_at_once(tmp_path):
    for name in ("http://127.0.0.1:9/x.mp4", "rtsp://127.0.0.1:9/x", "file:///etc/hostname"):
        with pytest.raises(FileNotFoundError, match="no address is opened"):
            read_video(name)
    os.mkfifo(tmp_path / "x.mp4")
    for path in (tmp_path / "x.mp4", "/dev/zero"):
        with pytest.raises(ValueError, match="a device or pipe, not a file"):
            read_video(path)


@pytest.mark.parametrize("suffix", ["bmp", "tif", "tiff", "webp", "BMP"])
def test_frames_of_other_image_formats(tmp_path, suffix):
    for t in (0, 1, 2, 10):
        Image.new("RGB", (64, 48), (20 * t, 0, 0)).save(tmp_path / f"{t}.{suffix}", **{"lossless": True} if suffix == "webp" else {})
    assert [int(f[0, 0, 0]) for f in read_video(tmp_path)] == [0, 20, 40, 200]
    assert video_info(tmp_path)[:3] == (64, 48, 4)
    (alone,) = read_video(tmp_path / f"10.{suffix}")  # an image is a video of one frame
    assert alone[0, 0].tolist() == [200, 0, 0]
