import csv
from pathlib import Path

import numpy as np
import pytest

from fevertools.errors import DataError
from fevertools.train.datasets import ferplus
from tests.train.conftest import made_arrays

USAGE_NAMES = ("Training", "PublicTest", "PrivateTest")


def write_csv(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """The two files as they are distributed."""
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for image, label, usage in zip(arrays["images"], arrays["label"], arrays["usage"], strict=True):
            writer.writerow([label, " ".join(map(str, image.ravel())), USAGE_NAMES[usage]])
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
        writer.writerow(["Usage", "Image name", *names])
        for row, (votes, usage) in enumerate(zip(arrays["ferplus_votes"], arrays["usage"], strict=True)):
            writer.writerow([USAGE_NAMES[usage], f"fer{row:07}.png", *votes])


def test_csv_and_npz_give_the_same(tmp_path: Path, made_data: Path) -> None:
    write_csv(tmp_path, made_arrays())
    from_csv, from_npz = ferplus.read_ferplus(tmp_path), ferplus.read_ferplus(made_data)
    for name in ("images", "split", "label", "votes", "twin"):
        np.testing.assert_array_equal(getattr(from_csv, name), getattr(from_npz, name))


def test_protocols_on_rows_made_for_them(made_data: Path) -> None:
    data = ferplus.read_ferplus(made_data)
    eight = ferplus.select(data, "ferplus8", "train")
    assert set(range(160)) - set(eight.rows) == {5}
    np.testing.assert_allclose(eight.target[list(eight.rows).index(6)], [0.4, 0.3, 0.3, 0, 0, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(eight.target[0], [1, 0, 0, 0, 0, 0, 0, 0])  # the single vote is gone
    assert set(range(160)) - set(ferplus.select(data, "ferplus8-majority", "train").rows) == {5, 6}
    seven = ferplus.select(data, "ferplus7", "train")
    assert set(range(160)) - set(seven.rows) == {5, 7}
    assert seven.target.shape[1] == 7
    np.testing.assert_allclose(seven.target.sum(axis=1), 1, rtol=1e-6)


def test_twins(made_data: Path) -> None:
    data = ferplus.read_ferplus(made_data)
    assert data.twin[200] == 3
    assert data.twin[170] == 161
    train, test = np.arange(160), np.arange(200, 240)
    assert np.flatnonzero(~ferplus.without_evaluated_twins(data, train)).tolist() == [3]
    assert np.flatnonzero(~ferplus.without_earlier_twin(data, test)).tolist() == [0]
    # Twins inside one split are nobody's leak.
    assert ferplus.without_earlier_twin(data, np.arange(160, 200)).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "no FER-2013 in"),
        (lambda folder: (folder / "fer2013.csv").write_text("emotion,pixels,Usage\n"), "fer2013new.csv"),
        (lambda folder: (folder / "fer2013.npz").write_bytes(b"not a zip"), "not a FER-2013 archive"),
        (
            lambda folder: np.savez(folder / "fer2013.npz", images=np.zeros((2, 48, 48), np.uint8)),
            "not a FER-2013 archive",
        ),
        (lambda folder: _write(folder, images=np.zeros((240, 8, 8), np.uint8)), "expected images uint8"),
        (lambda folder: _csv_with(folder, "0,1 2 3,Training"), "fer2013.csv, line 2"),
        (lambda folder: _csv_with(folder, "0," + " ".join(["300"] * 2304) + ",Training"), "fer2013.csv, line 2"),
    ],
)
def test_refusals(tmp_path: Path, spoil, message: str) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        ferplus.read_ferplus(tmp_path)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    arrays = made_arrays()
    write_csv(tmp_path, arrays)
    lines = (tmp_path / "fer2013new.csv").read_text().splitlines()
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(DataError, match="row by row"):
        ferplus.read_ferplus(tmp_path)


def test_unknown_protocol(made_data: Path) -> None:
    with pytest.raises(DataError, match="ferplus8-majority"):
        ferplus.select(ferplus.read_ferplus(made_data), "ferplus9", "test")


@pytest.mark.data
@pytest.mark.slow
def test_published_counts(data_root: Path) -> None:
    """Row counts found in the literature, and the duplicates known to cross the splits."""
    data = ferplus.read_ferplus(data_root)
    counts = {p: [len(ferplus.select(data, p, s).rows) for s in ferplus.SPLITS] for p in ferplus.PROTOCOLS}
    assert counts["ferplus8"] == [28389, 3553, 3546]
    assert counts["ferplus8-majority"] == [25060, 3199, 3153]
    rows = [np.flatnonzero(data.split == s) for s in range(3)]
    assert [int((~ferplus.without_earlier_twin(data, r)).sum()) for r in rows] == [0, 280, 314]


def _write(folder: Path, **changes: np.ndarray) -> None:
    np.savez(folder / "fer2013.npz", **{**made_arrays(), **changes})


def _csv_with(folder: Path, line: str) -> None:
    (folder / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{line}\n")
    (folder / "fer2013new.csv").write_text("Usage,Image name\n")
