"""Figures of results: what is drawn is what the files say."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fevertools.errors import DataError, MissingExtraError
from fevertools.labels import EMOTIONS_7, FER2013
from fevertools.train import figures
from fevertools.train.__main__ import main
from fevertools.train.figures import draw_confusion, draw_cost, read_confusion


def write_run(folder: Path, steps: int) -> Path:
    """A run of `steps` steps whose loss is 1 / step, validated half-way and at the end."""
    lines = [{"step": step, "epoch": 0, "loss": 1 / step} for step in range(10, steps + 1, 10)]
    lines += [{"step": steps // 2, "validation": {"accuracy": 40}}, {"step": steps, "validation": {"accuracy": 60}}]
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_confusion_in_percent_of_each_label(tmp_path: Path) -> None:
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]])
    percent = draw_confusion(matrix, ("a", "b", "c"), tmp_path / "deep" / "c.png")
    np.testing.assert_allclose(percent, [[75, 25, 0], [0, 0, 0], [25, 25, 50]])
    picture = cv2.imread(str(tmp_path / "deep" / "c.png"))
    assert picture.shape[0] > 300


def test_confusion_of_an_evaluation_and_of_folds(tmp_path: Path) -> None:
    seven, file = np.diag(np.arange(7)), tmp_path / "figures.json"
    protocols = {"fer2013": {"confusion": seven.tolist()}, "ferplus7": {"confusion": (2 * seven).tolist()}}
    file.write_text(json.dumps({"PublicTest": {"single": {}}, "PrivateTest": {"single": protocols}}))
    matrix, classes = read_confusion(file, "fer2013")
    np.testing.assert_array_equal(matrix, seven)
    assert classes == FER2013
    matrix, classes = read_confusion(file, "ferplus7")
    np.testing.assert_array_equal(matrix, 2 * seven)
    assert classes == EMOTIONS_7
    assert main(["confusion", str(file), "--protocol", "ferplus7", "-o", str(tmp_path / "a.svg")]) == 0
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    for text in ('{"PrivateTest": {"single": {}}}', "{}", "junk"):
        file.write_text(text)
        with pytest.raises(DataError, match="ferplus7"):
            read_confusion(file, "ferplus7")
    file.write_text(json.dumps({"folds": [], "confusion": [[1, 2], [3, 4]], "classes": ["a", "b"]}))
    matrix, classes = read_confusion(file, "fer2013")
    assert (matrix.tolist(), classes) == ([[1, 2], [3, 4]], ("a", "b"))


def test_cost_of_runs_over_their_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {"none": write_run(tmp_path / "a", 100), "VAS": write_run(tmp_path / "b", 200)}
    curves = draw_cost(runs, tmp_path / "cost.png")
    np.testing.assert_allclose(curves["none"]["loss"][:, 1], 1 / curves["none"]["loss"][:, 0])
    np.testing.assert_array_equal(curves["VAS"]["accuracy"], [[100, 40], [200, 60]])
    picture = cv2.imread(str(tmp_path / "cost.png"))
    assert picture.shape[1] > 2 * picture.shape[0]
    arguments = ["cost", f"none={tmp_path / 'a'}", str(tmp_path / "b"), "-o", str(tmp_path / "two.png")]
    assert main(arguments) == 0
    assert (tmp_path / "two.png").is_file()
    assert main(["cost", str(tmp_path / "c"), "-o", str(tmp_path / "three.png")]) == 2
    assert "folders of runs" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="pip install matplotlib"):
        figures.pyplot()
