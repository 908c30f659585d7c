"""classify --draw and --explain."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

from fevertools import EMOTIONS, Analyzer
from fevertools.cli import main
from fevertools.drawing import COLORS, draw_expressions, draw_maps
from fevertools.image import load
from tests._tiny import write_weights
from tests.cli.conftest import ORDER, json_rows, save_crop


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Weights with maps, as options."""
    return ["--weights", str(write_weights(tmp_path_factory.mktemp("mapped"), maps=True)), "--device", "cpu"]


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_classify_draws_what_it_tells(astronaut, tmp_path, tiny_weights, capsys):
    target = tmp_path / "gruß 顔.png"
    options = ["--weights", str(tiny_weights), "--min-face-size", "60"]
    assert main(["classify", str(astronaut), "--draw", str(target), "--format", "jsonl", *options]) == 0
    (row,) = json_rows(capsys.readouterr().out)
    with Analyzer(tiny_weights, min_face_size=60) as analyzer:
        expected = draw_expressions(load(astronaut), analyzer.analyze(astronaut).faces)
    np.testing.assert_array_equal(pixels(target), expected)
    x1, y1, x2, y2 = (round(value) for value in row["box"])
    sides = (pixels(target)[y1:y2, x1], pixels(target)[y1, x1:x2])
    assert all((side == COLORS[row["label"]]).all(1).mean() > 0.8 for side in sides)


def test_explain_draws_the_map_of_the_label(astronaut, tmp_path, mapped, capsys):
    target = tmp_path / "looked.png"
    assert main(["classify", str(astronaut), "--explain", str(target), "--largest", *mapped]) == 0
    with Analyzer(mapped[1], device="cpu", largest=True) as analyzer:
        expected = draw_maps(load(astronaut), analyzer.explain(astronaut))
    np.testing.assert_array_equal(pixels(target), expected)
    assert main(["classify", str(astronaut), "--explain", str(target), *mapped]) == 2
    assert "name another with --explain" in capsys.readouterr().err


def test_weights_without_maps_say_so_and_write_nothing(astronaut, tmp_path, tiny_weights, capsys):
    command = ["classify", str(astronaut), "--explain", str(tmp_path / "x.png"), "--draw", str(tmp_path / "y.png")]
    assert main([*command, "--weights", str(tiny_weights)]) == 2
    assert "tiny has no class activation maps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_both_go_into_folders(crops, mapped, tmp_path):
    (crops / "b.png").write_bytes(b"broken")
    command = ["classify", "crops", "--cropped", "--draw", "drawn", "--explain", "looked", *mapped]
    assert main(command) == 1
    for folder in ("drawn", "looked"):
        written = {path.relative_to(tmp_path / folder).as_posix() for path in (tmp_path / folder).rglob("*.*")}
        assert written == {name.removeprefix("crops/") for name in ORDER} - {"b.png"}


def test_a_resumed_run_draws_the_rest(crops, mapped, tmp_path):
    (crops / "b.png").write_bytes(b"broken")
    command = ["classify", "crops", "--cropped", "-o", "x.csv", "--draw", "drawn", "--on-error", "raise"]
    command += ["--batch-size", "1", *mapped]
    assert main(command) == 1
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["a.png"]
    save_crop(crops / "b.png", 1)  # mended
    done = (tmp_path / "drawn" / "a.png").stat().st_mtime_ns
    assert main([*command, "--resume"]) == 0
    assert len(list((tmp_path / "drawn").rglob("*.*"))) == len(ORDER)
    assert (tmp_path / "drawn" / "a.png").stat().st_mtime_ns == done


def test_framed_faces_get_their_bars_too(crops, mapped, tmp_path):
    assert main(["classify", "crops/a.png", "--cropped", "--draw", "a.png", *mapped]) == 0
    drawn = pixels(tmp_path / "a.png")
    assert drawn.shape[0] == 48 * 7
    assert drawn.shape[1] > 48 * 7  # the bars stand beside it
    assert any((drawn[:, 48 * 7 :] == COLORS[label]).all(2).sum() > 200 for label in EMOTIONS)
