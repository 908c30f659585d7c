"""A classifier of one's own in two commands."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fevertools.cli import main
from tests.cli.conftest import save_crop

pytest.importorskip("sklearn", reason="needs the extra `sklearn`")
pytest.importorskip("skops", reason="needs the extra `sklearn`")


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """faces/bright and faces/dark: crops that a look tells apart."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "faces" / label).mkdir(parents=True)
        for number in range(12):
            crop = rng.integers(low, low + 128, (48, 48)).astype(np.uint8)
            Image.fromarray(crop).save(tmp_path / "faces" / label / f"{number:02}.png")
    return tmp_path / "faces"


def run(tiny_weights, *words):
    return main(["probe", *words, "--weights", str(tiny_weights), "--cropped", "--threads", "1"])


def test_fit_and_predict(faces, tiny_weights, capsys):
    assert run(tiny_weights, "fit", "faces", "-o", "own.skops", "-C", "10") == 0
    told = capsys.readouterr().out
    assert "own.skops: 24 faces (bright 12, dark 12)" in told
    assert float(told.split("folds: ")[1].split(" %")[0]) > 90
    assert run(tiny_weights, "predict", "own.skops", "faces", "-o", "out.csv", "--quiet") == 0
    with open("out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert all(row["label"] in row["source"] for row in rows)
    for row in rows:
        assert float(row["p_bright"]) + float(row["p_dark"]) == pytest.approx(1, abs=1e-5)
        assert row["weights"].startswith("tiny@1")
    assert run(tiny_weights, "predict", "own.skops", "faces/dark/00.png", "--format", "jsonl") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["label"] == "dark"
    assert set(row["probabilities"]) == {"bright", "dark"}


def test_fit_from_a_table(faces, tiny_weights, capsys):
    lines = [f"faces/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(faces.glob("*/*.png"))]
    (faces.parent / "labels.csv").write_text("\n".join(["path,label", *lines]), "utf-8")
    assert run(tiny_weights, "fit", "labels.csv", "-o", "a/b.skops", "--balanced", "--calibration", "sigmoid") == 0
    assert "24 faces" in capsys.readouterr().out
    assert run(tiny_weights, "predict", "a/b.skops", "faces/bright") == 0


def test_a_broken_picture_is_told_and_left_out(faces, tiny_weights, capsys):
    (faces / "dark" / "broken.png").write_bytes(b"junk")
    assert run(tiny_weights, "fit", "faces", "-o", "own.skops") == 1
    streams = capsys.readouterr()
    assert "broken.png" in streams.err
    assert "24 faces" in streams.out


def test_refusals(faces, tiny_weights, capsys, tmp_path):
    assert run(tiny_weights, "fit", "faces/dark", "-o", "own.skops") == 2
    assert "subfolder" in capsys.readouterr().err
    assert run(tiny_weights, "fit", "nothing.csv", "-o", "own.skops") == 2
    assert "columns path and label" in capsys.readouterr().err
    save_crop(tmp_path / "one" / "only" / "a.png", 1)
    assert run(tiny_weights, "fit", "one", "-o", "own.skops") == 2
    assert "two labels" in capsys.readouterr().err
    (tmp_path / "own.skops").write_text("something of mine")
    assert run(tiny_weights, "fit", "faces", "-o", "own.skops") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "own.skops").read_text() == "something of mine"
    assert run(tiny_weights, "predict", "own.skops", "faces") == 2
    assert "not a probe" in capsys.readouterr().err


def test_a_probe_of_other_weights_is_refused(faces, tiny_weights, capsys):
    assert run(tiny_weights, "fit", "faces", "-o", "own.skops") == 0
    assert main(["probe", "predict", "own.skops", "faces", "--cropped"]) == 2
    assert "embeddings of" in capsys.readouterr().err


def test_too_few_faces_for_an_estimate(faces, tiny_weights, capsys):
    for path in sorted((faces / "dark").iterdir())[1:]:
        path.unlink()
    assert run(tiny_weights, "fit", "faces", "-o", "own.skops") == 0
    assert "too few" in capsys.readouterr().out
