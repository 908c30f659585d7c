"""The posed sets on small trees of their real layout, and the ten folds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.posed import folds, read_bu3dfe, read_ck_plus, read_mmi, read_oulu_casia


def write(path: Path, gray: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24, 3), gray, np.uint8)).save(path)


def write_ck_plus(root: Path) -> None:
    """Fourteen subjects; S005 has a second sequence without a label."""
    for number in range(5, 19):
        subject = f"S{number:03}"
        for frame in range(1, 7):
            write(root / "cohn-kanade-images" / subject / "001" / f"{subject}_001_{frame:08}.png", frame)
        label = root / "Emotion" / subject / "001" / f"{subject}_001_00000006_emotion.txt"
        label.parent.mkdir(parents=True)
        label.write_text(f"   {number % 7 + 1}.0000000e+00\n")
    write(root / "cohn-kanade-images" / "S005" / "002" / "S005_002_00000001.png")
    (root / "Emotion" / "S005" / "002").mkdir()
    (root / "cohn-kanade-images" / "S005" / ".DS_Store").touch()


def test_ck_plus(tmp_path: Path) -> None:
    write_ck_plus(tmp_path)
    faces = read_ck_plus(tmp_path)
    assert (len(faces), faces.skipped) == (42, 1)
    assert [path.stem[-1] for path in faces.paths[:3]] == ["4", "5", "6"]
    assert faces.image(0)[0, 0, 0] == 4
    published = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    assert EMOTIONS[faces.label[0]] == published[5 % 7]  # S005
    assert {EMOTIONS[k] for k in faces.label} == set(published)
    assert faces.target(0).sum() == 1


def test_ten_folds_share_no_subject(tmp_path: Path) -> None:
    write_ck_plus(tmp_path)
    faces = read_ck_plus(tmp_path)
    split = folds(faces.subject)
    assert len(split) == 10
    judged = np.concatenate([rows for _, rows in split])
    assert sorted(judged.tolist()) == list(range(42))  # every frame once
    for training, own in split:
        assert not {faces.subject[i] for i in training} & {faces.subject[i] for i in own}
        assert len(training) + len(own) == 42
    # Ascending order, every tenth: the first group has the 1st and the 11th subject.
    assert {faces.subject[i] for i in split[0][1]} == {"S005", "S015"}
    assert {faces.subject[i] for i in split[9][1]} == {"S014"}
    with pytest.raises(DataError, match="9 subjects"):
        folds(tuple(f"S{i}" for i in range(9)))


def test_ck_plus_refuses_a_broken_label(tmp_path: Path) -> None:
    write_ck_plus(tmp_path)
    (tmp_path / "Emotion" / "S007" / "001" / "S007_001_00000006_emotion.txt").write_text("8.0")
    with pytest.raises(DataError, match="S007"):
        read_ck_plus(tmp_path)


@pytest.mark.parametrize("below", [".", "OriginalImg"])
def test_oulu_casia(tmp_path: Path, below: str) -> None:
    for emotion in ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"):
        for frame in range(5):
            write(tmp_path / below / "VL" / "Strong" / "P001" / emotion / f"{frame:03}.jpeg")
            write(tmp_path / below / "NI" / "Strong" / "P001" / emotion / f"{frame:03}.jpeg")
            write(tmp_path / below / "VL" / "Weak" / "P001" / emotion / f"{frame:03}.jpeg")
    faces = read_oulu_casia(tmp_path)
    assert len(faces) == 18
    assert all("VL" in path.parts and "Strong" in path.parts for path in faces.paths)
    assert [EMOTIONS[k] for k in faces.label[::3]] == ["anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    assert [path.stem for path in faces.paths[:3]] == ["002", "003", "004"]


def test_bu3dfe(tmp_path: Path) -> None:
    for subject in ("F0001", "M0044"):
        for code in ("AN", "DI", "FE", "HA", "SA", "SU"):
            for level in (1, 2, 3, 4):
                write(tmp_path / subject / f"{subject}_{code}0{level}WH_F2D.bmp")
                write(tmp_path / subject / f"{subject}_{code}0{level}WH_F3D.bmp")
        write(tmp_path / subject / f"{subject}_NE00WH_F2D.bmp")
    faces = read_bu3dfe(tmp_path)
    assert len(faces) == 24  # two subjects, six expressions, two levels
    assert set(faces.subject) == {"F0001", "M0044"}
    assert "neutral" not in {EMOTIONS[k] for k in faces.label}


def test_mmi(tmp_path: Path) -> None:
    for number, (subject, emotion) in enumerate((("2", "4"), ("10", "6"), ("2", "")), start=1):
        folder = tmp_path / "Sessions" / str(number)
        for frame in range(9):
            write(folder / "frames" / f"{frame:04}.png", frame)
        tag = f'<metatag name="Emotion" value="{emotion}"/>' if emotion else ""
        text = f'<session sessionId="{number}"><subject id="{subject}"/><track>{tag}</track></session>'
        (folder / "session.xml").write_text(text)
    faces = read_mmi(tmp_path)
    assert (len(faces), faces.skipped) == (6, 1)
    assert [faces.image(i)[0, 0, 0] for i in range(3)] == [3, 4, 5]
    assert [EMOTIONS[k] for k in faces.label[::3]] == ["happiness", "surprise"]
    assert faces.subject[::3] == ("002", "010")
    (tmp_path / "Sessions" / "1" / "session.xml").write_text("<session>")
    with pytest.raises(DataError, match="not XML"):
        read_mmi(tmp_path)


@pytest.mark.parametrize("read", [read_ck_plus, read_oulu_casia, read_bu3dfe, read_mmi])
def test_an_empty_folder_says_where_to_look(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match="layout"):
        read(tmp_path)
