"""fevertools video: tables, annotated videos, stopping and going on."""

import csv
import io
import json
import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("av")

from benchmarks._clip import Moment, write
from fevertools import EMOTIONS, Analyzer
from fevertools.cli import _video, main
from fevertools.video import sources, track
from fevertools.video.sources import open_source
from tests._tiny import DIMENSION
from tests.cli.conftest import json_rows, start
from tests.video.conftest import picture
from tests.video.test_sources import FakeCapture

TIMES = np.cumsum([0.0, *[0.04, 0.1, 0.033] * 6])  # 19 frames of varying distance


def write_clip(path, times=TIMES, first=0):
    nothing = np.empty((0, 2), np.float32), np.empty(0, np.float32)
    write(path, [Moment(at, picture(first + index, 64, 64), *nothing) for index, at in enumerate(times)])
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with clip.mp4."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def shown(path):
    with open_source(path) as shots:
        return [(shot.time, shot.picture()) for shot in shots]


def times_of(path):
    return [time for time, _ in shown(path)]


def test_rows_are_those_of_track(folder, cropped, tiny_weights, capsys):
    assert main(["video", "clip.mp4", "--format", "jsonl", "--smooth", "0.2", *cropped]) == 0
    captured = capsys.readouterr()
    rows = json_rows(captured.out)
    with Analyzer(tiny_weights, device="cpu", threads=1) as analyzer:
        frames = list(track("clip.mp4", analyzer, smoothing=0.2, cropped=True))
    assert [row["frame"] for row in rows] == list(range(19))
    assert np.allclose([row["time"] for row in rows], TIMES, atol=1e-4)
    for row, frame in zip(rows, frames, strict=True):
        (face,) = frame.faces
        assert (row["source"], row["track"], row["face"], row["label"]) == ("clip.mp4", 1, 0, face.expression.label)
        assert row["box"] == [0, 0, 64, 64]
        assert row["probabilities"] == pytest.approx(face.expression.probabilities, abs=1e-7)
        assert row["weights"].startswith("tiny@1 sha256:")
    assert "fevertools: 19 frames, 19 faces, 1 tracks" in captured.err


def test_csv_on_stdout(folder, cropped, capsys):
    assert main(["video", "clip.mp4", "--every", "5", "-q", *cropped]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [int(row["frame"]) for row in rows] == [0, 5, 10, 15]
    assert list(rows[0])[:9] == ["source", "frame", "time", "face", "track", "x1", "y1", "x2", "y2"]
    assert [name for name in rows[0] if name.startswith("p_")] == [f"p_{label}" for label in EMOTIONS]
    assert captured.err == ""


def test_parquet_says_which_weights(folder, cropped):
    pytest.importorskip("pyarrow")
    from fevertools import tables

    assert main(["video", "clip.mp4", "-o", "clip.parquet", "--embeddings", *cropped]) == 0
    table = tables.read_parquet("clip.parquet")
    assert tables.vectors(table).shape == (19, DIMENSION)
    known = tables.metadata_of(table)
    assert known["weights"]["name"] == "tiny"
    assert known["options"]["smooth"] == 0.5
    assert table.schema.field("time").type == "double"
    assert table["track"].to_pylist() == [1] * 19
    assert names(folder) == ["clip.mp4", "clip.parquet"]


@pytest.mark.parametrize("form", ["npz", "jsonl", "csv"])
def test_other_files(folder, cropped, form):
    assert main(["video", "clip.mp4", "-o", f"clip.{form}", *cropped]) == 0
    if form == "npz":
        arrays = np.load("clip.npz", allow_pickle=False)
        assert arrays["time"].dtype == np.float64
        assert arrays["probabilities"].shape == (19, 8)
    else:
        assert len((folder / f"clip.{form}").read_text().splitlines()) == 19 + (form == "csv")


def test_annotated_video(folder, cropped, capsys):
    command = ["video", "clip.mp4", "-o", "clip.csv", "--annotate", "out.mp4", "--every", "2", *cropped]
    assert main(command) == 0
    assert np.allclose(times_of("out.mp4"), TIMES[::2], atol=1e-4)
    (folder / "clip.csv").unlink()
    assert main(command) == 2
    assert "out.mp4 exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main([*command[:4], "--overwrite", "--annotate", "clip.mp4", *cropped]) == 2
    assert "is the input" in capsys.readouterr().err
    assert times_of("clip.mp4")


def test_a_video_without_a_face_is_fine(folder, tiny_weights, capsys):
    assert main(["video", "clip.mp4", "-o", "x.csv", "--weights", str(tiny_weights), "--min-face-size", "40"]) == 0
    assert "19 frames, 0 faces, 0 tracks" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- stopping, going on


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C after so many frames: how a run is stopped in this process."""

    def interrupt(command, frames):
        from fevertools.cli import _output

        record, seen = _output.JournalSink.write, []

        def stop(self, kept):
            if len(seen) == frames:
                raise KeyboardInterrupt
            seen.append(kept)
            record(self, kept)

        with monkeypatch.context() as patch:
            patch.setattr(_output.JournalSink, "write", stop)
            return main(command)

    return interrupt


@pytest.fixture
def undisturbed(folder, cropped):
    """The rows of a run that nothing stopped."""
    assert main(["video", "clip.mp4", "-o", "whole.jsonl", "--annotate", "whole.mp4", *cropped]) == 0
    return folder / "whole.jsonl"


@pytest.mark.parametrize("stops", [(1,), (7,), (5, 9), (18,)])
@pytest.mark.parametrize("embeddings", [[], ["--embeddings"]])
def test_a_stopped_run_is_whole_and_goes_on(folder, cropped, undisturbed, interrupted, capsys, stops, embeddings):
    command = ["video", "clip.mp4", "-o", "x.jsonl", "--annotate", "x.mp4", *cropped, *embeddings]
    if embeddings:
        assert main([*command, "--overwrite"]) == 0
        undisturbed.write_bytes((folder / "x.jsonl").read_bytes())
        (folder / "x.jsonl").unlink()
        (folder / "x.mp4").unlink()
    done = 0
    for frames in stops:
        assert interrupted([*command, *(["--resume"] if done else [])], frames) == 130
        done += frames
        assert len((folder / "x.jsonl").read_text().splitlines()) == done
        assert undisturbed.read_bytes().startswith((folder / "x.jsonl").read_bytes())
        # The frame at which Ctrl-C came may be drawn already.
        assert len(times_of("x.mp4")) in (done, done + 1)
        assert "--resume" in capsys.readouterr().err
    assert main(command) == 2  # not without a word
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert f"19 frames ({done} of them by an earlier run), 19 faces, 1 tracks" in capsys.readouterr().err
    assert (folder / "x.jsonl").read_bytes() == undisturbed.read_bytes()
    # Not its bytes: x264 does not always give the same ones for the same pictures.
    for (at, found), (whole_at, whole) in zip(shown("x.mp4"), shown("whole.mp4"), strict=True):
        assert at == whole_at
        assert np.abs(found.astype(int) - whole).mean() < 4
    assert not (folder / "x.jsonl.partial").exists()


def test_a_killed_run_goes_on(folder, cropped, undisturbed, interrupted):
    command = ["video", "clip.mp4", "-o", "x.jsonl", *cropped]
    assert interrupted(command, 9) == 130
    (folder / "x.jsonl").unlink()  # a kill leaves the journal alone, its last line cut
    journal = folder / "x.jsonl.partial"
    journal.write_bytes(journal.read_bytes()[:-40])
    assert main([*command, "--resume"]) == 0
    assert (folder / "x.jsonl").read_bytes() == undisturbed.read_bytes()


def test_frames_that_are_done_are_not_analysed_again(folder, cropped, undisturbed, interrupted, monkeypatch):
    command = ["video", "clip.mp4", "-o", "x.jsonl", *cropped]
    assert interrupted(command, 12) == 130
    analyzed, analyze = [], Analyzer.analyze
    monkeypatch.setattr(Analyzer, "analyze", lambda self, *a, **k: analyzed.append(1) or analyze(self, *a, **k))
    assert main([*command, "--resume"]) == 0
    assert len(analyzed) == 7


@pytest.mark.parametrize(
    ("change", "word"),
    [(["--smooth", "2"], "smooth"), (["--every", "2"], "every"), (["--embeddings"], "embeddings"), ([], "video")],
)
def test_another_run_is_not_gone_on_with(folder, cropped, interrupted, capsys, change, word):
    command = ["video", "clip.mp4", "-o", "x.jsonl", *cropped]
    assert interrupted(command, 5) == 130
    if not change:
        write_clip(folder / "clip.mp4", TIMES[:9], first=50)
    capsys.readouterr()
    assert main([*command, *change, "--resume"]) == 2
    message = capsys.readouterr().err
    assert "was made with" in message
    assert word in message


def test_overwrite_starts_anew(folder, cropped, undisturbed, interrupted):
    command = ["video", "clip.mp4", "-o", "x.jsonl", *cropped]
    assert interrupted(command, 5) == 130
    assert main([*command, "--overwrite"]) == 0
    assert (folder / "x.jsonl").read_bytes() == undisturbed.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_leaves_whole_files(folder, cropped):
    write_clip(folder / "long.mp4", np.arange(900) / 30)
    command = ["video", "long.mp4", "-o", "x.csv", "--annotate", "x.mp4", *cropped]
    with start(*command) as process:
        journal = folder / "x.csv.partial"
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 20) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    rows = list(csv.DictReader(io.StringIO((folder / "x.csv").read_text())))
    assert 20 <= len(rows) < 900
    assert [int(row["frame"]) for row in rows] == list(range(len(rows)))
    assert abs(len(times_of("x.mp4")) - len(rows)) <= 1
    assert main([*command, "--resume"]) == 0
    rows = list(csv.DictReader(io.StringIO((folder / "x.csv").read_text())))
    assert [int(row["frame"]) for row in rows] == list(range(900))
    assert {row["track"] for row in rows} == {"1"}


# ------------------------------------------------------------------------------------------------- what cannot be read


def test_what_is_no_video(folder, cropped, capsys):
    (folder / "notes.txt").write_text("words " * 300)
    for name, word in (("notes.txt", "no video"), ("missing.mp4", "no such file"), (".", "folder")):
        assert main(["video", name, "-o", "x.csv", *cropped]) == 1
        assert word in capsys.readouterr().err
    assert names(folder) == ["clip.mp4", "notes.txt"]


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--on-error", "raise"], 1)])
def test_damaged_parts_are_told(folder, cropped, capsys, options, code):
    write_clip(folder / "long.mp4", np.arange(60) / 30)
    data = bytearray((folder / "long.mp4").read_bytes())
    begin, end = data.index(b"mdat") + 200, data.index(b"moov")
    rng = np.random.default_rng(0)
    for place in rng.integers(begin, end, 300):
        data[place] = rng.integers(256)
    (folder / "long.mp4").write_bytes(bytes(data))
    assert main(["video", "long.mp4", "-o", "x.csv", *options, *cropped]) == code
    assert "damaged parts" in capsys.readouterr().err
    assert (folder / "x.csv").exists() == (not options)


def test_a_video_that_is_cut_off_is_told(folder, cropped, capsys):
    write_clip(folder / "long.mkv", np.arange(90) / 30)
    data = (folder / "long.mkv").read_bytes()
    (folder / "long.mkv").write_bytes(data[: len(data) // 2])
    assert main(["video", "long.mkv", "-o", "x.csv", *cropped]) == 1
    assert "cut off" in capsys.readouterr().err
    assert (folder / "x.csv").exists()


def test_a_camera_is_named_by_its_number(folder, cropped, monkeypatch, capsys):
    asked = []

    def opened(source):
        asked.append(source)
        return open_source([picture(0, 48, 48)])

    monkeypatch.setattr(_video, "open_source", opened)
    assert main(["video", "0", *cropped]) == 0
    (folder / "7").write_bytes(b"a file of this name")
    assert main(["video", "7", *cropped]) == 0
    assert asked == [0, "7"]


def test_a_camera_ends_with_ctrl_c(folder, cropped, monkeypatch, capsys):
    class Endless(FakeCapture):
        def grab(self):
            if self.at == 4:
                raise KeyboardInterrupt
            return super().grab()

    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda device: Endless([picture(i, 48, 48) for i in range(9)]))
    command = ["video", "0", "-o", "x.csv", "--annotate", "x.mp4", *cropped]
    assert main(command) == 0
    assert "5 frames, 5 faces, 1 tracks" in capsys.readouterr().err
    assert len((folder / "x.csv").read_text().splitlines()) == 6
    assert names(folder) == ["clip.mp4", "x.csv", "x.mp4"]
    assert len(times_of("x.mp4")) == 5
    assert main([*command, "--resume"]) == 2
    assert "camera" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--every", "0"], ["--smooth", "-1"], ["--smooth", "nan"]])
def test_usage_errors(option, capsys):
    assert main(["video", "x.mp4", *option]) == 2
    assert "usage:" in capsys.readouterr().err


def test_help_says_what_is_resumed(capsys):
    assert main(["video", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "tracks keep their numbers and go on" in text


def test_the_journal_is_json_lines(folder, cropped, interrupted):
    assert interrupted(["video", "clip.mp4", "-o", "x.csv", *cropped], 3) == 130
    header, *records = [json.loads(line) for line in (folder / "x.csv.partial").read_text().splitlines()]
    assert header["video"]["source"] == "clip.mp4"
    assert [record["faces"][0]["frame"] for record in records] == [0, 1, 2]
