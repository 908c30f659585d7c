import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools.errors import DataError

pytest.importorskip("torch", reason="needs the extra `train`")

from fevertools.train.datasets.fec import Fec, read_fec
from fevertools.train.losses.fec_triplet import ONE_CLASS, THREE_CLASS, TWO_CLASS

HOST = "http://farm1.staticflickr.com"
URLS = {name: f"{HOST}/1/{name}_b.jpg" for name in "abcdef"}
BOX = (0.25, 0.75, 0.2, 0.6)  # as published: left and right column, top and bottom row
TABLE = "faceexp-comparison-data-train-public.csv"


def picture(name: str) -> np.ndarray:
    """40 wide, 50 high; the red channel tells which."""
    y, x = np.mgrid[:50, :40]
    return np.stack([0 * x + 30 * (ord(name) - 96), 4 * y, 6 * x], axis=2).astype(np.uint8)


def row(faces: str, kind: str, annotations: str, boxes: tuple = (BOX, BOX, BOX)) -> list[object]:
    fields: list[object] = []
    for name, box in zip(faces, boxes, strict=True):
        fields += [URLS[name], *box]
    fields.append(kind)
    for number, annotation in enumerate(annotations):
        fields += [f"{number:x}5f1c", annotation]
    return fields


ROWS = [
    row("abc", "TWO_CLASS_TRIPLET", "111113"),  # a is odd
    row("abd", "ONE_CLASS_TRIPLET", "222213"),  # b is odd: four of six are two thirds
    row("bcd", "THREE_CLASS_TRIPLET", "33331"),  # d is odd: four of five
    row("acd", "THREE_CLASS_TRIPLET", "33312"),  # three of five are fewer than two thirds
    row("acd", "TWO_CLASS_TRIPLET", "111222"),  # a tie
    row("abe", "TWO_CLASS_TRIPLET", "333333"),  # e has no picture
]


def write(root: Path, rows: list[list[object]], names: dict[str, str]) -> Path:
    """The list, and the pictures under the given names."""
    (root / "images").mkdir(parents=True)
    with (root / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for letter, name in names.items():
        (root / "images" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(letter)).save(root / "images" / name, format="PNG")
    return root


def shown(data: Fec, index: int) -> tuple[str, int]:
    """The letters of a triplet as their pictures tell them, and its type."""
    *faces, kind = data.triplet(index)
    return "".join(chr(96 + round(float(data.image(face)[..., 0].mean()) / 30)) for face in faces), kind


def test_similar_pair_first_and_strong_agreement_only(tmp_path: Path) -> None:
    write(tmp_path, ROWS, {name: f"{name}_b.jpg" for name in "abcd"})
    data = read_fec(tmp_path, "train")
    assert [shown(data, i) for i in range(len(data))] == [
        ("bca", TWO_CLASS),
        ("adb", ONE_CLASS),
        ("bcd", THREE_CLASS),
    ]
    assert (data.missing, data.skipped, data.disputed) == (1, 1, 2)
    assert len(data.paths) == 4  # a face that several triplets share is one face


def test_three_ways_to_name_the_pictures(tmp_path: Path) -> None:
    digest = hashlib.sha1(URLS["b"].encode()).hexdigest()
    write(tmp_path, ROWS[:1], {"a": "a_b.jpg", "b": f"deep/{digest}.png", "c": "elsewhere.dat"})
    # What the table says goes first: a file with the right name and another picture.
    Image.fromarray(picture("f")).save(tmp_path / "images" / "c_b.jpg", format="PNG")
    (tmp_path / "images" / "urls.csv").write_text(f"url,path\n{URLS['c']},elsewhere.dat\n{URLS['a']},\n")
    assert shown(read_fec(tmp_path, "train"), 0) == ("bca", TWO_CLASS)


def test_a_name_that_two_urls_share_stands_for_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(URLS, "b", f"{HOST}/2/a_b.jpg?size=b")
    write(tmp_path, [row("abc", "TWO_CLASS_TRIPLET", "111113")], {"a": "a_b.jpg", "c": "c_b.jpg"})
    data = read_fec(tmp_path, "train")
    assert (len(data), data.missing, data.skipped) == (0, 2, 1)


def test_a_page_in_place_of_a_photo_is_missing(tmp_path: Path) -> None:
    write(tmp_path, ROWS[:1], {"a": "a_b.jpg", "b": "b_b.jpg"})
    (tmp_path / "images" / "c_b.jpg").write_text("<html>This photo is no longer available</html>")
    data = read_fec(tmp_path, "train")
    assert (len(data), data.missing, data.skipped) == (0, 1, 1)


def test_boxes_are_columns_then_rows(tmp_path: Path) -> None:
    write(tmp_path, ROWS[:1], {name: f"{name}_b.jpg" for name in "abc"})
    first = read_fec(tmp_path, "train").triplet(0)[0]
    # Columns 10 to 30 of 40, rows 10 to 30 of 50.
    np.testing.assert_array_equal(read_fec(tmp_path, "train").image(first), picture("b")[10:30, 10:30])
    wide = read_fec(tmp_path, "train", margin=0.25).image(first)
    np.testing.assert_array_equal(wide, picture("b")[5:35, 5:35])


def test_two_faces_of_one_picture(tmp_path: Path) -> None:
    boxes = (BOX, (0.0, 0.5, 0.0, 0.4), BOX)
    write(tmp_path, [row("aab", "TWO_CLASS_TRIPLET", "33333", boxes)], {"a": "a_b.jpg", "b": "b_b.jpg"})
    data = read_fec(tmp_path, "train")
    first, second, odd, _ = data.triplet(0)
    assert len({first, second, odd}) == 3
    np.testing.assert_array_equal(data.image(second), picture("a")[:20, :20])


def test_other_places(tmp_path: Path) -> None:
    write(tmp_path / "fec" / "FEC_dataset", ROWS, {"a": "a_b.jpg"})
    pictures = write(tmp_path / "elsewhere", [], {name: f"{name}_b.jpg" for name in "abcd"}) / "images"
    assert len(read_fec(tmp_path, "train")) == 0
    assert len(read_fec(tmp_path, "train", pictures)) == 3
    with pytest.raises(DataError, match="faceexp-comparison-data-test-public"):
        read_fec(tmp_path, "test")
    with pytest.raises(DataError, match="no folder of downloaded pictures"):
        read_fec(tmp_path, "train", tmp_path / "absent")


@pytest.mark.parametrize(
    "bad",
    [
        row("abc", "FOUR_CLASS_TRIPLET", "11111"),
        row("abc", "ONE_CLASS_TRIPLET", "11114"),
        row("abc", "ONE_CLASS_TRIPLET", ""),
        row("abc", "ONE_CLASS_TRIPLET", "11111")[1:],
        row("abc", "ONE_CLASS_TRIPLET", "11111", ((0.5, 0.2, 0.1, 0.3), BOX, BOX)),
        row("abc", "ONE_CLASS_TRIPLET", "11111", (("left", 0.2, 0.1, 0.3), BOX, BOX)),
    ],
)
def test_refusals(tmp_path: Path, bad: list[object]) -> None:
    write(tmp_path, [*ROWS[:2], bad], {"a": "a_b.jpg"})
    with pytest.raises(DataError, match=r"public\.csv, line 3"):
        read_fec(tmp_path, "train")


def test_a_mapping_without_its_columns(tmp_path: Path) -> None:
    write(tmp_path, ROWS, {"a": "a_b.jpg"})
    (tmp_path / "images" / "urls.csv").write_text("address,file\n")
    with pytest.raises(DataError, match="columns url and path"):
        read_fec(tmp_path, "train")
