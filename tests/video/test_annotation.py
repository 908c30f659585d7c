"""The time line and the file that is written."""

import numpy as np
import pytest

from fevertools import EMOTIONS
from fevertools.drawing import COLORS
from fevertools.errors import MissingExtraError, OptionError, VideoError
from fevertools.video.annotation import CODECS, AnnotatedVideo, TimeLine
from fevertools.video.results import TrackedFace
from fevertools.video.sources import open_source
from tests.video.conftest import found, picture


def tracked(track, label="anger", probability=1.0, place=(4, 4)):
    values = np.full(len(EMOTIONS), (1 - probability) / (len(EMOTIONS) - 1))
    values[EMOTIONS.index(label)] = probability
    face = found(*place, side=20, probabilities=values)
    return TrackedFace(track, face.face, face.embedding, face.expression, face)


def columns_of(strip, label, lane):
    """Columns of one lane in which the colour of a label is seen."""
    rows = (strip.shape[0] - legend(strip)) // 4
    return np.nonzero((strip[lane * rows : (lane + 1) * rows] == COLORS[label]).all(2).any(0))[0]


def legend(strip):
    """Rows at the foot of the strip: TimeLine(400, 200) has one row of names."""
    return TimeLine(strip.shape[1], 200, 1.0).height - 4 * 19


def test_the_line_is_painted_up_to_now():
    line = TimeLine(1000, 200, 10.0)
    assert line.height == line.add(0.0, []).shape[0]
    strip = line.add(5.0, [tracked(1, "fear")])
    painted = columns_of(strip, "fear", 0)
    assert (painted[0], painted[-1]) == (1, 500)  # from the column after the frame before, 5 of 10 seconds
    strip = line.add(7.5, [tracked(1, "happiness")])
    assert columns_of(strip, "fear", 0)[-1] == 500
    assert (columns_of(strip, "happiness", 0)[0], columns_of(strip, "happiness", 0)[-1]) == (501, 750)
    assert len(columns_of(strip, "happiness", 1)) == 0


def test_a_column_is_as_high_as_the_labels_are_probable():
    line = TimeLine(400, 2000, 1.0)
    column = line.add(0.5, [tracked(1, "anger", 0.75)])[:, 100]
    rows = [(column[: line._lane + 1] == COLORS[label]).all(1).sum() for label in EMOTIONS]
    assert sum(rows) == line._lane
    assert rows[EMOTIONS.index("anger")] == pytest.approx(0.75 * line._lane, abs=1)


def test_lanes_are_given_to_the_next_when_a_face_has_gone():
    line = TimeLine(1000, 200, 100.0)
    first = [tracked(number, EMOTIONS[number]) for number in (1, 2, 3, 4, 5)]
    strip = line.add(1.0, first)
    for number in (1, 2, 3, 4):
        assert len(columns_of(strip, EMOTIONS[number], number - 1))
    assert not any(len(columns_of(strip, EMOTIONS[5], lane)) for lane in range(4))  # no fifth lane
    strip = line.add(50.0, [tracked(9, "contempt")])
    assert columns_of(strip, "contempt", 0)[-1] == 500


def test_an_unknown_length_moves_on():
    line = TimeLine(300, 200, None)  # 30 seconds: 10 columns a second
    strip = line.add(10.0, [tracked(1, "fear")])
    assert columns_of(strip, "fear", 0)[-1] == 100
    for time in np.arange(11, 200, 1.0):
        strip = line.add(time, [tracked(1, "anger")])
        assert (200 if time > 30 else 100) < columns_of(strip, "anger", 0)[-1] < 300
    assert len(columns_of(strip, "fear", 0)) == 0


def read(path):
    with open_source(path) as shots:
        return [(shot.time, shot.picture()) for shot in shots]


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_come_out_at_their_times(tmp_path, suffix):
    pytest.importorskip("av")
    path = tmp_path / f"gruß 顔{suffix}"
    times = [0.0, 0.04, 0.5, 0.54, 2.0]
    with AnnotatedVideo(path, 3.0) as film:
        for time in times:
            film.add(time, picture(1, 120, 168), [tracked(7, place=(30, 40))])
    frames = read(path)
    np.testing.assert_allclose([time for time, _ in frames], times, atol=1e-3)
    height = 120 + TimeLine(168, 120, 3.0).height
    assert frames[0][1].shape == (height + height % 2, 168, 3)
    box = frames[2][1][40:60, 30:50].astype(int)
    assert (np.abs(box - COLORS["anger"]).sum(2) < 150).any()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_odd_sizes_and_sizes_that_change(tmp_path):
    pytest.importorskip("av")
    with AnnotatedVideo(tmp_path / "a.mp4") as film:
        for time, (height, width) in enumerate([(81, 99), (200, 40), (30, 300)]):
            film.add(time, np.full((height, width, 3), 200, np.uint8), [])
    frames = read(tmp_path / "a.mp4")
    assert {shown.shape for _, shown in frames} == {frames[0][1].shape}
    assert frames[0][1].shape[1] == 100
    assert frames[1][1][70, 20].mean() > 150
    assert frames[1][1][70, 80].mean() < 50  # black ground


def test_what_was_written_is_whole_after_an_interruption(tmp_path):
    pytest.importorskip("av")
    film = AnnotatedVideo(tmp_path / "a.mp4")
    for index in range(5):
        film.add(index / 25, picture(index, 64, 64), [])
    with pytest.raises(KeyboardInterrupt), film:
        raise KeyboardInterrupt
    assert len(read(tmp_path / "a.mp4")) == 5


def test_without_a_frame_there_is_no_file(tmp_path):
    pytest.importorskip("av")
    with AnnotatedVideo(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
    pytest.importorskip("av")
    with pytest.raises(OptionError, match=r"\.mp4"):
        AnnotatedVideo(tmp_path / "a.txt")
    with pytest.raises(OptionError, match="no folder"):
        AnnotatedVideo(tmp_path / "no" / "a.mp4")
    film = AnnotatedVideo(tmp_path / "a.mp4")
    film._temporary = tmp_path / "gone" / "a.mp4"
    with pytest.raises(VideoError, match="cannot write"), film:
        film.add(0.0, picture(0), [])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError):
        AnnotatedVideo(tmp_path / "b.mp4")
