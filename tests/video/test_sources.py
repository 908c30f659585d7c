"""Frames and their times from files, cameras and iterables, and what is none of them."""

import sys

import numpy as np
import pytest

from fevertools.errors import ImageError, MissingExtraError, OptionError, VideoError
from fevertools.video import sources
from fevertools.video.sources import open_source
from tests.video.conftest import picture


def read(source, **options):
    with open_source(source, **options) as shots:
        return [(shot.index, shot.time, shot.picture()) for shot in shots]


def test_frames_of_a_file(clip):
    path = clip(np.arange(12) / 25)
    with open_source(path) as shots:
        assert shots.frames == 12
        assert shots.seconds == pytest.approx(12 / 25, abs=0.02)
    frames = read(str(path))
    assert [index for index, *_ in frames] == list(range(12))
    np.testing.assert_allclose([time for _, time, _ in frames], np.arange(12) / 25, atol=1e-9)
    for index, _, found in frames:
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - picture(index)).mean() < 12  # lossy


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_times_of_a_varying_rate(clip, name):
    times = np.cumsum([0.0, 0.04, 0.5, 0.033, 1.25, 0.02])
    found = [time for _, time, _ in read(clip(times, name))]
    np.testing.assert_allclose(found, times, atol=1e-3 if name.endswith("mkv") else 1e-4)


def test_times_begin_with_the_stream(clip):
    np.testing.assert_allclose([time for _, time, _ in read(clip([7.0, 7.1, 7.3]))], [0, 0.1, 0.3], atol=1e-4)


def test_frames_without_times_come_at_the_nominal_rate(clip):
    import av

    path = clip(np.arange(6) / 30)
    raw = path.with_suffix(".h264")  # a bare stream: the container that had the times is gone
    with av.open(str(path)) as given, av.open(str(raw), "w") as bare:
        stream = bare.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                bare.mux(packet)
    times = np.array([time for _, time, _ in read(raw)])
    assert len(times) == 6
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(np.diff(times), np.diff(times)[0], atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_rotation_of_a_phone_is_applied(tmp_path, degrees):
    av = pytest.importorskip("av")
    shown = picture(5)
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *shown.shape[:2], "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a rotation")
        stream.set_display_rotation(degrees)  # counter-clockwise, as it is to be shown
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")), *stream.encode(None)):
            container.mux(packet)
    ((_, _, found),) = read(tmp_path / "turned.mp4")
    assert np.abs(found.astype(int) - np.rot90(shown, degrees // 90)).mean() < 12


def test_damaged_parts_are_left_out_and_counted(clip):
    path = clip(np.arange(60) / 30, height=96, width=128)
    data = bytearray(path.read_bytes())
    begin, end = data.index(b"mdat") + 200, data.index(b"moov")
    rng = np.random.default_rng(0)
    for place in rng.integers(begin, end, 400):
        data[place] = rng.integers(256)
    path.write_bytes(bytes(data))
    with open_source(path) as shots:
        frames = sum(1 for _ in shots)
        assert 0 < frames < 60
        assert shots.damaged > 0


def test_a_file_that_is_cut_off_gives_what_it_has(clip):
    path = clip(np.arange(60) / 30, "clip.mkv", height=96, width=128)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < len(read(path)) < 60


def wreck(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # its index is at the end
    return path


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder, clip: folder / "missing.mp4", "no such file"),
        (lambda folder, clip: folder, "is a folder"),
        (lambda folder, clip: (folder / "notes.txt").write_text("words " * 400) and folder / "notes.txt", "no video"),
        (lambda folder, clip: (folder / "e.mp4").write_bytes(b"") or folder / "e.mp4", "damaged"),
        (lambda folder, clip: wreck(clip(np.arange(9) / 9)), "damaged"),
        (lambda folder, clip: "http://localhost/clip.mp4", "no such file"),
        (lambda folder, clip: "a\0b.mp4", "no such file"),
    ],
    ids=["missing", "folder", "text", "empty", "wrecked", "url", "nul"],
)
def test_what_is_no_video(tmp_path, clip, make, word):
    with pytest.raises(VideoError, match=word):
        open_source(make(tmp_path, clip))


def test_nothing_is_fetched_for_a_playlist(tmp_path):
    pytest.importorskip("av")
    listed = tmp_path / "list.m3u8"
    listed.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError):
        read(listed)


def test_a_video_error_is_an_image_error():
    assert issubclass(VideoError, ImageError)


def test_a_file_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"fevertools\[video\]"):
        open_source(tmp_path / "clip.mp4")
    assert len(read([picture(0)])) == 1  # pictures do not need it


# ----------------------------------------------------------------------------------------------------------- iterables


def test_pictures_come_at_a_rate_or_at_their_times():
    pictures = [picture(i) for i in range(4)]
    frames = read(pictures, rate=10)
    assert [time for _, time, _ in frames] == [0, 0.1, 0.2, pytest.approx(0.3)]
    np.testing.assert_array_equal(frames[3][2], pictures[3])
    with open_source(pictures, rate=8) as shots:
        assert (shots.frames, shots.seconds) == (4, 0.5)
    with open_source([(0.0, pictures[0]), (7.0, pictures[1])]) as shots:
        assert shots.seconds == 7
    timed = read(((2.0 + i**2, found) for i, found in enumerate(pictures)))
    assert [time for _, time, _ in timed] == [2, 3, 6, 11]
    ((_, _, turned),) = read(pictures[:1], color="bgr")
    np.testing.assert_array_equal(turned, pictures[0][..., ::-1])


@pytest.mark.parametrize("times", [(0, 1, 1), (3, 2, 4), (0, float("nan"), 2)])
def test_times_that_do_not_go_on_are_refused(times):
    with pytest.raises(OptionError, match=r"picture [12]"):
        read([(time, picture(0)) for time in times])


@pytest.mark.parametrize("source", [np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), b"bytes", None, True])
def test_a_single_picture_is_no_video(source):
    with pytest.raises(OptionError, match="single"):
        open_source(source)


def test_an_empty_iterable_is_told():
    with pytest.raises(VideoError, match="no picture"):
        read([])


def test_pictures_are_made_only_when_asked_for():
    with open_source([b"no picture", picture(1)]) as shots:
        first, second = shots
        np.testing.assert_array_equal(second.picture(), picture(1))
        with pytest.raises(ImageError):
            first.picture()


# ------------------------------------------------------------------------------------------------------------- cameras


class FakeCapture:
    """A camera of OpenCV with so many frames, BGR."""

    def __init__(self, frames, opens=True):
        self.frames, self.opens, self.released, self.at = frames, opens, False, -1

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.opens

    def set(self, *_):
        return True

    def grab(self):
        self.at += 1
        return self.at < len(self.frames)

    def retrieve(self):
        return True, self.frames[self.at][..., ::-1]

    def release(self):
        self.released = True


def test_a_camera_gives_rgb_with_the_time_it_came(monkeypatch):
    capture = FakeCapture([picture(i) for i in range(3)])
    asked = []
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda device: asked.append(device) or capture)
    clock = iter([50.0, 50.4, 51.0])
    monkeypatch.setattr(sources.time, "monotonic", lambda: next(clock))
    with open_source(1) as shots:
        assert (shots.frames, shots.seconds) == (None, None)
        found = [(shot.index, round(shot.time, 6), shot.picture()) for shot in shots]
    assert asked == [1]
    assert [entry[:2] for entry in found] == [(0, 0.0), (1, 0.4), (2, 1.0)]
    for index, _, shown in found:
        np.testing.assert_array_equal(shown, picture(index))
    assert capture.released


@pytest.mark.parametrize(
    ("capture", "word"), [(FakeCapture([], opens=False), "cannot open"), (FakeCapture([]), "no frame")]
)
def test_a_camera_that_gives_nothing_is_told(monkeypatch, capture, word):
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda device: capture)
    with pytest.raises(VideoError, match=word):
        read(0)
