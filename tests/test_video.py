import weakref

import av
import numpy as np
import pytest
from PIL import Image

from minst.data.video import read_video, video_info, write_gif, write_mp4


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
    assert video_info(path) == (128, 96, 5, 7.5)


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
    frames = read_video(tmp_path)
    assert next(frames)[0, 0, 0] == 10
    (tmp_path / "f9.png").write_bytes(b"broken later")  # not yet read: memory is bounded
    assert next(frames)[0, 0, 0] == 20
    with pytest.raises(ValueError, match=r"f9\.png"):
        next(frames)
    assert video_info(tmp_path) == (80, 64, 4, None)


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
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="sound.wav.*no video stream"):
        read_video(tmp_path / "sound.wav")


def test_broken_data_in_the_middle_is_an_error_not_a_silent_end(tmp_path):
    path = write_mp4(movie(30), tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 8 :] = b"\xff" * (len(data) - start - 8)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.mp4.*broken after frame 0"):
        list(read_video(path))


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
