import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.errors import DataError
from fevertools.labels import EMOTIONS
from fevertools.train.datasets.affectnet import AffectNet, read_affectnet
from fevertools.train.datasets.framing import served_geometry

GEOMETRY = served_geometry(48)
LEFT, TOP = 10, 20  # where the frame of every made face lies in its picture

# Published order of the codes, against which the mapping is proved by name.
PUBLISHED = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
NAMES = {"Happy": "happiness", "Sad": "sadness"}

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


def picture(seed: int) -> np.ndarray:
    """Smooth enough for the JPEG file to keep it."""
    y, x = np.mgrid[:80, :72]
    return np.stack([2 * y + seed, 3 * x, 128 + 0 * x], axis=2).astype(np.uint8)


def points_68() -> np.ndarray:
    """Points that put the frame of GEOMETRY at (LEFT, TOP); those that the reader has no use for lie anywhere."""
    rng = np.random.default_rng(68)
    points = rng.uniform(-500, 500, (68, 2))
    left_eye, right_eye, nose, left_mouth, right_mouth = GEOMETRY.template().astype(float) + np.array([LEFT, TOP])
    around = np.array([[-3, 0], [-1, -2], [1, -2], [3, 0], [1, 2], [-1, 2]])  # lids, as iBUG 300-W numbers them
    points[36:42], points[42:48] = left_eye + around, right_eye + around
    points[30], points[48], points[54] = nose, left_mouth, right_mouth
    return points


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, quality=100, subsampling=0)


def line(name: str, code: int, points: str) -> str:
    return f"{name},11,21,46,46,{points},{code},-0.25,0.5"


def write_original(root: Path, *, header: bool = True) -> None:
    """Codes 0 to 10, then a face without a picture, one without landmarks and one whose landmarks coincide."""
    good = ";".join(f"{value:.4f}" for value in points_68().ravel())
    lines = [HEADER] if header else []
    for code in range(11):
        save(root / "Manually_Annotated_Images" / str(code % 3) / f"a{code}.jpg", code)
        lines.append(line(f"{code % 3}/a{code}.jpg", code, good))
    lines.append(line("0/gone.jpg", 1, good))
    lines.append(line("0/a0.jpg", 1, "NULL"))
    lines.append(line("0/a0.jpg", 1, ";".join(["7"] * 136)))
    lines.append(line("0/gone.jpg", 9, good))  # no emotion, so not missed
    (root / "training.csv").write_text("\n".join(lines) + "\n")


def write_later(root: Path) -> None:
    folder = root / "val_set"
    (folder / "annotations").mkdir(parents=True)
    for code in range(8):
        name = 4 * code + 1  # numbers with gaps, as in the distribution
        save(folder / "images" / f"{name}.jpg", code)
        for kind, value in (("exp", np.array(str(code))), ("val", np.array("-0.25")), ("aro", np.array("0.5"))):
            np.save(folder / "annotations" / f"{name}_{kind}.npy", value)
        np.save(folder / "annotations" / f"{name}_lnd.npy", points_68().ravel())
    np.save(folder / "annotations" / "90_exp.npy", np.array("3"))  # neither picture nor landmarks


def check_eight(data: AffectNet) -> None:
    """Eight faces, one a code: label by name, and the frame cut out of the right picture."""
    assert len(data) == 8
    seen = {}
    for i in range(len(data)):
        target = data.target(i)
        assert (target.dtype, target.shape, target.sum(), target.max()) == (np.float32, (8,), 1, 1)
        image = data.image(i)
        assert (image.dtype, image.shape) == (np.uint8, (48, 48, 3))
        code = int(np.rint((image.astype(float) - picture(0)[TOP : TOP + 48, LEFT : LEFT + 48])[..., 0].mean()))
        assert np.abs(image.astype(int) - picture(code)[TOP : TOP + 48, LEFT : LEFT + 48]).max() <= 3  # JPEG
        seen[PUBLISHED[code]] = EMOTIONS[int(target.argmax())]
    assert seen == {name: NAMES.get(name, name.lower()) for name in PUBLISHED}


@pytest.mark.parametrize("header", [True, False])
def test_original_release(tmp_path: Path, header: bool) -> None:
    write_original(tmp_path, header=header)
    data = read_affectnet(tmp_path, "train", GEOMETRY)
    check_eight(data)
    assert data.missing == 3


def test_original_release_as_its_archives_unpack(tmp_path: Path) -> None:
    write_original(tmp_path)
    top = tmp_path / "affectnet"
    (top / "Manually_Annotated_file_lists").mkdir(parents=True)
    (tmp_path / "training.csv").rename(top / "Manually_Annotated_file_lists" / "training.csv")
    (top / "Manually_Annotated").mkdir()
    (tmp_path / "Manually_Annotated_Images").rename(top / "Manually_Annotated" / "Manually_Annotated_Images")
    check_eight(read_affectnet(tmp_path, "train", GEOMETRY))


def test_later_distribution(tmp_path: Path) -> None:
    write_later(tmp_path)
    data = read_affectnet(tmp_path, "validation", GEOMETRY)
    check_eight(data)
    assert data.missing == 1


def test_seven_classes_leave_contempt_out_and_keep_the_width(tmp_path: Path) -> None:
    write_original(tmp_path)
    data = read_affectnet(tmp_path, "train", GEOMETRY, classes=7)
    assert len(data) == 7
    targets = np.stack([data.target(i) for i in range(7)])
    assert targets.shape == (7, 8)
    np.testing.assert_array_equal(targets.sum(axis=0), [1, 1, 1, 1, 1, 1, 1, 0])


def test_the_size_of_the_frame_is_the_caller_s(tmp_path: Path) -> None:
    write_later(tmp_path)
    twice = dataclasses.replace(GEOMETRY, height=96, width=96)
    small, large = (read_affectnet(tmp_path, "validation", g).image(0) for g in (GEOMETRY, twice))
    assert large.shape == (96, 96, 3)
    # The same frame: its 2 x 2 means are the small crop.
    means = large.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - small)[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no AffectNet train split in"),
        (f"{HEADER}\na.jpg,1,2,3", "training.csv, line 2: 4 fields"),
        (f"{HEADER}\n{line('a.jpg', 0, '1')}\n{line('a.jpg', 11, '1')}", "training.csv, line 3: expression '11'"),
        (f"{HEADER}\n{line('a.jpg', -1, '1')}", "expression '-1'"),
    ],
)
def test_refusals(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "Manually_Annotated_Images").mkdir()
        (tmp_path / "training.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_affectnet(tmp_path, "train", GEOMETRY)


def test_an_expression_file_that_is_none(tmp_path: Path) -> None:
    write_later(tmp_path)
    (tmp_path / "val_set" / "annotations" / "1_exp.npy").write_bytes(b"oops")
    with pytest.raises(DataError, match=r"1_exp\.npy is not an expression code"):
        read_affectnet(tmp_path, "validation", GEOMETRY)


def test_the_table_is_read_as_csv(tmp_path: Path) -> None:
    """Names may hold commas and quotes."""
    write_original(tmp_path)
    rows = list(csv.reader((tmp_path / "training.csv").open(newline="")))
    rows[1][0] = 'x, "y".jpg'
    save(tmp_path / "Manually_Annotated_Images" / rows[1][0], 0)
    with (tmp_path / "training.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    check_eight(read_affectnet(tmp_path, "train", GEOMETRY))
