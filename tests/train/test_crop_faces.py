import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fevertools.align import crop_face
from fevertools.errors import DataError, OptionError
from fevertools.image import load
from fevertools.pipeline import Analyzer
from fevertools.train.__main__ import main
from fevertools.train.crop_faces import Counts, CropOptions, crop_faces
from fevertools.train.datasets.faces import read_faces
from fevertools.train.datasets.framing import served_geometry

RATE = 10.0
OPTIONS = CropOptions(every="5", min_size=40, size=64)

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def face(data_root: Path) -> np.ndarray:
    """uint8 RGB (200, 200, 3) with one face of about 90 pixels."""
    return load(data_root / "photos" / "astronaut.png")[20:220, 125:325]


def write_video(path: Path, face: np.ndarray, frames: int) -> None:
    """Frames with the face, 10 a second; those of odd seconds are gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (200, 200))
    assert writer.isOpened()
    for number in range(frames):
        gray = int(number / RATE) % 2 == 1
        writer.write(np.full((200, 200, 3), 128, np.uint8) if gray else face[:, :, ::-1])
    writer.release()


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.rglob("*.jpg"))


def test_faces_of_a_video(tmp_path: Path, face: np.ndarray) -> None:
    write_video(tmp_path / "a.avi", face, 23)
    counts = crop_faces([tmp_path / "a.avi"], tmp_path / "out", OPTIONS, threads=1)
    # Frames 0, 5, 10, 15, 20 are looked at; 10 and 15 lie in the gray second.
    assert counts == Counts(faces=3, files=1, earlier=0, broken=0)
    assert [name.split("-", 1)[1] for name in names(tmp_path / "out")] == [
        "0000000-0.jpg",
        "0000005-0.jpg",
        "0000020-0.jpg",
    ]
    source = read_faces(tmp_path / "out")
    assert len(source) == 3
    with Analyzer(threads=1) as analyzer:
        (found,) = analyzer.detect(face)
    expected = crop_face(face, found.landmarks, served_geometry(64))
    for i in range(3):
        image = source.image(i)
        assert image.shape == (64, 64, 3)
        # Two lossy codings and the detector's small change between them; RGB taken for BGR would cost 30 levels.
        assert np.abs(image.astype(int) - expected).mean() < 8


def test_every_in_seconds(tmp_path: Path, face: np.ndarray) -> None:
    write_video(tmp_path / "a.avi", face, 23)
    crop_faces([tmp_path / "a.avi"], tmp_path / "out", CropOptions("0.4s", 40, 64), threads=1)
    assert [name.split("-")[1] for name in names(tmp_path / "out")] == ["0000000", "0000004", "0000008", "0000020"]


def test_folders_of_all_kinds_and_broken_files(
    tmp_path: Path, face: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "in" / "b" / "good.avi", face, 3)
    Image.fromarray(face).save(tmp_path / "in" / "photo.png")
    Image.fromarray(np.full((90, 90, 3), 99, np.uint8)).save(tmp_path / "in" / "nobody.png")
    (tmp_path / "in" / "notes.txt").write_text("no video")
    (tmp_path / "in" / "a.mp4").write_bytes(b"\0" * 5000)
    (tmp_path / "in" / "empty.mkv").touch()
    (tmp_path / "in" / "page.jpg").write_text("<html>")
    (tmp_path / "in" / "cut.mp4").write_bytes((tmp_path / "in" / "b" / "good.avi").read_bytes()[:300])
    output = tmp_path / "in" / "out"  # inside its own input
    counts = crop_faces([tmp_path / "in"], output, OPTIONS, threads=1)
    assert counts == Counts(faces=2, files=3, earlier=0, broken=4)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert [line.split(": ")[0].rpartition("/")[2] for line in told] == ["a.mp4", "cut.mp4", "empty.mkv", "page.jpg"]
    # The crops are not taken for pictures of a second run.
    assert crop_faces([tmp_path / "in"], output, OPTIONS, threads=1) == Counts(0, 0, earlier=3, broken=4)


def test_an_interrupted_run_goes_on(tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_video(tmp_path / "in" / f"{name}.avi", face, 11 if name == "b" else 1)
    looked = []
    detect = Analyzer.detect

    def stopping(self: Analyzer, image: np.ndarray) -> list:
        looked.append(image)
        if len(looked) == 3:  # in the midst of b
            raise KeyboardInterrupt
        return detect(self, image)

    monkeypatch.setattr(Analyzer, "detect", stopping)
    with pytest.raises(KeyboardInterrupt):
        crop_faces([tmp_path / "in"], tmp_path / "out", OPTIONS, threads=1)
    before = names(tmp_path / "out")
    with (tmp_path / "out" / "finished.jsonl").open("a") as file:
        file.write('{"file": "12')  # what a killed process may leave
    assert len(before) == 2
    counts = crop_faces([tmp_path / "in"], tmp_path / "out", OPTIONS, threads=1)
    assert counts == Counts(faces=3, files=2, earlier=1, broken=0)
    assert len(names(tmp_path / "out")) == 4
    assert set(before) < set(names(tmp_path / "out"))  # b was done again under the same names
    lines = (tmp_path / "out" / "finished.jsonl").read_text().splitlines()
    assert [json.loads(line)["faces"] for line in lines[1:]] == [1, 2, 1]
    # A file that changed is another file.
    write_video(tmp_path / "in" / "c.avi", face, 2)
    assert crop_faces([tmp_path / "in"], tmp_path / "out", OPTIONS, threads=1).earlier == 2


def test_small_faces_are_left_out(tmp_path: Path, face: np.ndarray) -> None:
    Image.fromarray(face).save(tmp_path / "photo.png")
    with Analyzer(threads=1) as analyzer:
        (found,) = analyzer.detect(face)
    side = int((found.box[2:] - found.box[:2]).min())
    for least, faces in ((side - 8, 1), (side + 8, 0)):
        options = CropOptions("1", least, 64)
        assert crop_faces([tmp_path / "photo.png"], tmp_path / str(least), options, threads=1).faces == faces


def test_refusals(tmp_path: Path, face: np.ndarray) -> None:
    write_video(tmp_path / "a.avi", face, 1)
    for every in ("0", "0s", "s", "-1", "1m", ""):
        with pytest.raises(OptionError, match="such as"):
            crop_faces([tmp_path / "a.avi"], tmp_path / "out", CropOptions(every=every))
    with pytest.raises(DataError, match="check the path"):
        crop_faces([tmp_path / "b.avi"], tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no videos or pictures"):
        crop_faces([tmp_path / "none"], tmp_path / "out")
    (tmp_path / "none" / "a.mp4").touch()
    with pytest.raises(DataError, match="none of the 1 files"):
        crop_faces([tmp_path / "none"], tmp_path / "out")
    with pytest.raises(DataError, match="other options"):
        crop_faces([tmp_path / "a.avi"], tmp_path / "out", OPTIONS)


def test_the_command(tmp_path: Path, face: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "a.avi", face, 1)
    arguments = ["crop-faces", str(tmp_path / "a.avi"), "--output", str(tmp_path / "out"), "--size", "64"]
    assert main(arguments) == 0
    assert "faces written: 1; files: 1 done, 0 done earlier, 0 unreadable" in capsys.readouterr().out
    assert main([*arguments, "--every", "2"]) == 2
    assert "other options" in capsys.readouterr().err
