import csv
import dataclasses
import io
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.align import crop_face
from fevertools.errors import DataError
from fevertools.image import load
from fevertools.labels import EMOTIONS
from fevertools.pipeline import Analyzer
from fevertools.preprocess import to_luminance
from fevertools.train.datasets.framing import served_geometry
from fevertools.train.datasets.lfw import Lfw, crop_lfw

# Made-up people: two with one image, one with three. Sorted by name, then number, as the reader counts.
FILES = ("Ann_Alder_0001", "Bo_Birch_0001", "Bo_Birch_0002", "Bo_Birch_0010", "Cy_Cedar-Elm_0001")
PEOPLE = [0, 1, 1, 1, 2]
PAIRS = "1\t2\nBo_Birch\t1\t10\nBo_Birch\t2\t10\nAnn_Alder\t1\tCy_Cedar-Elm\t1\nBo_Birch\t2\tAnn_Alder\t1\n"
LABELS = (
    "file,emotion,annotators,conflict,smile\n"
    "Cy_Cedar-Elm/Cy_Cedar-Elm_0001.jpg,contempt,302,0,\n"
    "Bo_Birch/Bo_Birch_0002.jpg,happiness,302,0,1\n"
    "Bo_Birch/Bo_Birch_0001.jpg,,,0,1\n"
    "Ann_Alder/Ann_Alder_0001.jpg,neutral,dwdii,0,0\n"
)


def gray(value: int) -> np.ndarray:
    return np.full((250, 250, 3), value, np.uint8)


def write_archive(root: Path, pictures: list[np.ndarray] | None = None) -> Path:
    """The archive as it is distributed, members out of order, tables inside and beside it."""
    root.mkdir(parents=True, exist_ok=True)
    pictures = [gray(40 * i + 20) for i in range(len(FILES))] if pictures is None else pictures
    with zipfile.ZipFile(root / "lfw_deepfunneled.zip", "w") as archive:
        for name, picture in reversed(list(zip(FILES, pictures, strict=True))):
            data = io.BytesIO()
            Image.fromarray(picture).save(data, "JPEG", quality=95)
            archive.writestr(f"lfw-deepfunneled/{name[:-5]}/{name}.jpg", data.getvalue())
        archive.writestr("pairs.txt", "not this one")
        archive.writestr("README.txt", "LFW")
    (root / "pairs.txt").write_text(PAIRS)
    (root / "lfw_expression_labels.csv").write_text(LABELS)
    return root


@pytest.mark.parametrize("extracted", [False, True])
def test_images_people_labels_and_pairs(tmp_path: Path, extracted: bool) -> None:
    root = write_archive(tmp_path / "lfw")
    if extracted:
        with zipfile.ZipFile(root / "lfw_deepfunneled.zip") as archive:
            archive.extractall(root)
        (root / "lfw_deepfunneled.zip").unlink()
        (root / "pairs.txt").write_text(PAIRS)
    lfw = Lfw(tmp_path)
    assert len(lfw) == 5
    assert lfw.person.tolist() == PEOPLE
    assert [round(lfw.image(i).mean()) for i in range(5)] == [20, 60, 100, 140, 180]
    assert (lfw.image(0).dtype, lfw.image(0).shape) == (np.uint8, (250, 250, 3))
    labels = lfw.labels()
    assert labels.rows.tolist() == [0, 2, 4]
    assert [EMOTIONS[label] for label in labels.label] == ["neutral", "happiness", "contempt"]
    pairs = lfw.pairs()
    assert pairs.index.tolist() == [[1, 3], [2, 3], [0, 4], [2, 0]]
    assert pairs.same.tolist() == [True, True, False, False]


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    lfw = Lfw(write_archive(tmp_path))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lfw)).image(3), lfw.image(3))  # noqa: S301 - our own bytes


def test_fingerprint_tells_sets_of_images_apart_and_not_how_they_are_kept(tmp_path: Path) -> None:
    archived = Lfw(write_archive(tmp_path))
    with zipfile.ZipFile(tmp_path / "lfw_deepfunneled.zip") as archive:
        archive.extractall(tmp_path / "extracted")
    assert Lfw(tmp_path / "extracted").fingerprint() == archived.fingerprint()
    (tmp_path / "extracted" / "lfw-deepfunneled" / "Bo_Birch" / "Bo_Birch_0002.jpg").unlink()
    assert Lfw(tmp_path / "extracted").fingerprint() != archived.fingerprint()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pairs.txt", PAIRS.replace("\t10\n", "\t11\n", 1), r"pairs\.txt, line 2: no such image"),
        ("pairs.txt", PAIRS.replace("Cy_Cedar-Elm", "Di_Dogwood"), r"pairs\.txt, line 4: no such image"),
        ("pairs.txt", PAIRS.rsplit("Bo_Birch", 1)[0], "3 pairs"),
        ("pairs.txt", PAIRS.replace("Bo_Birch\t1\t10", "Bo_Birch\t1"), r"pairs\.txt, line 2: not a person"),
        ("pairs.txt", "", "0 pairs"),
        ("lfw_expression_labels.csv", LABELS.replace("contempt", "calm"), r"labels\.csv, line 2"),
        ("lfw_expression_labels.csv", LABELS.replace("_0002", "_0003"), r"labels\.csv, line 3: no such image"),
        ("lfw_expression_labels.csv", "name,label\nx,neutral\n", r"labels\.csv, line 2"),
    ],
)
def test_tables_that_do_not_fit_and_errors_without_names(tmp_path: Path, name: str, text: str, message: str) -> None:
    lfw = Lfw(write_archive(tmp_path))
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        lfw.pairs() if name == "pairs.txt" else lfw.labels()
    assert not any(person in str(caught.value) for person in ("Ann", "Birch", "Cedar", "Dogwood"))


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no LFW in"):
        Lfw(tmp_path)
    lfw = Lfw(write_archive(tmp_path))
    (tmp_path / "pairs.txt").unlink()
    with pytest.raises(DataError, match=r"put pairs\.txt beside"):
        lfw.pairs()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lfw_deepfunneled.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a zip archive"):
        Lfw(tmp_path / "other")
    (tmp_path / "empty" / "lfw-deepfunneled").mkdir(parents=True)
    with pytest.raises(DataError, match="no images"):
        Lfw(tmp_path / "empty")


@pytest.mark.data
def test_crops_are_what_the_pipeline_would_cut(tmp_path: Path, data_root: Path) -> None:
    photo = load(data_root / "photos" / "astronaut.png")
    centred, beside = photo[0:250, 100:350], photo[0:250, 200:450]  # the face lies about (225, 115)
    root = write_archive(tmp_path / "data", [centred, gray(128), beside, centred[:, ::-1], gray(0)])
    geometry = served_geometry(48)
    crops = crop_lfw(root, geometry, tmp_path / "cache", threads=1)
    assert (crops.images.dtype, crops.images.shape) == (np.uint8, (2, 48, 48))
    assert (crops.rows.tolist(), crops.missing) == ([0, 3], 3)
    with Analyzer(threads=1) as analyzer:
        for crop, row in zip(crops.images, crops.rows, strict=True):
            picture = Lfw(root).image(row)
            (face,) = analyzer.detect(picture)
            np.testing.assert_array_equal(crop, to_luminance(crop_face(picture, face.landmarks, geometry)))


@pytest.mark.data
def test_crops_are_made_once_for_each_geometry_and_archive(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = load(data_root / "photos" / "astronaut.png")[0:250, 100:350]
    root = write_archive(tmp_path / "data", [photo, *(gray(9) for _ in range(4))])
    cache, geometry = tmp_path / "cache", served_geometry(48)
    first = crop_lfw(root, geometry, cache, threads=1)
    detected = []
    monkeypatch.setattr(Analyzer, "detect", lambda self, image, **options: detected.append(image) or [])
    again = crop_lfw(root, geometry, cache)
    np.testing.assert_array_equal(again.images, first.images)
    assert not detected
    assert crop_lfw(root, dataclasses.replace(geometry, height=96, width=96), cache).images.shape == (0, 96, 96)
    assert len(detected) == 5
    moved = dataclasses.replace(geometry, landmarks=((0.3, 0.4), *geometry.landmarks[1:]))
    crop_lfw(root, moved, cache)
    assert len(detected) == 10
    with zipfile.ZipFile(root / "lfw_deepfunneled.zip") as archive:
        archive.extractall(tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "lfw-deepfunneled" / "Ann_Alder")
    assert crop_lfw(tmp_path / "fewer", geometry, cache).missing == 4
    (file,) = (path for path in cache.iterdir() if np.load(path)["images"].shape == (1, 48, 48))
    assert {path.suffix for path in cache.iterdir()} == {".npz"}
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="delete it"):
        crop_lfw(root, geometry, cache)


@pytest.mark.data
@pytest.mark.slow
def test_the_whole_data_set(data_root: Path) -> None:
    """Published counts; and pairs agree with the people, which come from another file."""
    lfw = Lfw(data_root)
    assert len(lfw) == 13233
    assert len(np.unique(lfw.person)) == 5749
    pairs = lfw.pairs()
    assert (len(pairs.index), int(pairs.same.sum())) == (6000, 3000)
    np.testing.assert_array_equal(np.diff(lfw.person[pairs.index], axis=1)[:, 0] == 0, pairs.same)
    labels = lfw.labels()
    counts = dict(zip(EMOTIONS, np.bincount(labels.label, minlength=8).tolist(), strict=True))
    with (data_root / "lfw" / "lfw_expression_labels.csv").open(newline="") as file:
        listed = [row["emotion"] for row in csv.DictReader(file)]
    assert counts == {emotion: listed.count(emotion) for emotion in EMOTIONS}
    assert len(labels.rows) == 12758
