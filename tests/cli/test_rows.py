"""Numbers of the output: the shortest decimals of float32, by two routes."""

import json

import numpy as np
import pytest

from fevertools.cli import _rows, main
from fevertools.cli._rows import floats

POWERS = [*(2.0**i for i in range(-40, 19)), *(10.0**i for i in range(-12, 6))]
DRAWN = np.random.default_rng(0)
NUMBERS = {
    "embeddings": DRAWN.normal(size=100_000),
    "every size": 10 ** DRAWN.uniform(-12.9, 5.9, 100_000) * DRAWN.choice([-1, 1], 100_000),
    "few digits": np.round(DRAWN.uniform(0, 2000, 100_000), 2),
    "powers": np.repeat(POWERS, 2),
    "next to powers": [np.nextafter(np.float32(p), np.float32(side)) for p in POWERS for side in (0, 1e9)],
    "zeros": [0.0, -0.0, 1.0, -1.0] * 20,
}
BEYOND = [[1e-20, 1], [1e30, 1], [np.inf, 1], [-np.inf, 1]]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_their_shortest_texts(name):
    values = np.asarray(NUMBERS[name], np.float32)
    assert _rows._shortest(values) is not None
    # repr tells -0.0 from 0.0, and any last digit.
    assert list(map(repr, floats(values))) == [repr(float(str(value))) for value in values]


@pytest.mark.parametrize("beyond", BEYOND)
def test_numbers_beyond_go_by_their_texts(beyond):
    values = np.asarray(beyond * 40, np.float32)
    assert _rows._shortest(values) is None
    assert floats(values) == [float(str(value)) for value in values]


def test_no_number_is_lost_on_the_way():
    assert floats([]) == []
    assert floats(np.zeros((40, 2, 3))) == [0.0] * 240
    assert all(np.isnan(floats([np.nan] * 50)))
    assert floats(0.1) == [0.1]
    values = DRAWN.normal(size=512).astype(np.float32)
    assert np.array_equal(np.asarray(json.loads(json.dumps(floats(values))), np.float32), values)


def test_a_journal_of_drafts_is_not_gone_on_with_without(crops, tiny_weights, capsys, monkeypatch):
    """What changes the rows is in the header of the journal."""
    options = ["--weights", str(tiny_weights), "--device", "cpu", "--min-face-size", "30"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fevertools.cli._output.os.replace", interrupted)
        assert main(["embed", "crops", "-o", "x.csv", "--draft", *options]) == 130
    assert main(["embed", "crops", "-o", "x.csv", "--resume", *options]) == 2
    assert '"draft": true' in capsys.readouterr().err
    assert main(["embed", "crops", "-o", "x.csv", "--resume", "--draft", *options]) == 0


def test_detect_by_draft_draws_at_full_size(astronaut, tmp_path, capsys):
    from PIL import Image

    photo = tmp_path / "astronaut.jpg"
    Image.open(astronaut).save(photo, quality=95)
    boxes = []
    for more in ([], ["--draft", "--draw", str(tmp_path / "drawn.png")]):
        assert main(["detect", str(photo), "--min-face-size", "96", "--format", "jsonl", "--device", "cpu", *more]) == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        boxes.append(row["box"])
    assert boxes[0] != boxes[1]
    assert np.allclose(*boxes, atol=8)
    assert Image.open(tmp_path / "drawn.png").size == (512, 512)
