"""The evaluation from predictor to files, with predictors whose figures are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from fevertools.train.__main__ import main
from fevertools.train.datasets.ferplus import FerPlus, read_ferplus, select
from fevertools.train.evaluate.protocols import Predict, evaluate_ferplus
from fevertools.train.export import update_manifest


def oracle(data: FerPlus, split: str) -> Predict:
    """Knows the votes of every image, but takes mirrored ones for strangers and calls them all contempt."""
    chosen = select(data, "ferplus8", split)  # type: ignore[arg-type]
    known = {data.images[row].tobytes(): target for row, target in zip(chosen.rows, chosen.target, strict=True)}
    contempt = np.eye(8, dtype=np.float32)[7]

    def predict(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        targets = np.stack([known.get(crop.tobytes(), contempt) for crop in crops])
        return np.zeros((len(crops), 4), np.float32), np.log(targets + 1e-6)

    return predict


@pytest.fixture
def data(made_data: Path) -> FerPlus:
    data = read_ferplus(made_data)
    # The patterns but for the noise are their own mirror images; with a mark they are not.
    data.images[:, :4, :4] = 255
    data.images[:, :4, -4:] = 0
    return data


def test_oracle_scores_full_marks(data: FerPlus) -> None:
    figures = evaluate_ferplus(oracle(data, "train"), data, "train")["single"]
    assert {p: f["all"]["accuracy"] for p, f in figures.items()} == dict.fromkeys(figures, 100.0)
    assert figures["ferplus8"]["all"]["n"] == 159
    assert figures["ferplus7"]["all"]["n"] == 158
    assert figures["ferplus8"]["all"]["kl"] == pytest.approx(0, abs=1e-3)
    assert figures["ferplus8"]["all"]["ece"] < 0.01
    assert figures["ferplus8"]["recall"]["contempt"] == 100.0
    assert "fear" not in figures["ferplus8"]["recall"]  # the made data has none
    assert np.trace(figures["ferplus8"]["confusion"]) == 159


def test_mirror_averaging_uses_the_mirror(data: FerPlus) -> None:
    """log p + log contempt: the two labels tie, and the true one comes first, except in the row that is contempt."""
    single, flip = (evaluate_ferplus(oracle(data, "train"), data, "train")[view] for view in ("single", "flip"))
    assert flip["ferplus8"]["all"]["cross_entropy"] > single["ferplus8"]["all"]["cross_entropy"] + 0.5


def test_rows_without_twins_are_counted_apart(made_data: Path) -> None:
    data = read_ferplus(made_data)
    figures = evaluate_ferplus(oracle(data, "test"), data, "test")["single"]["ferplus8"]
    assert (figures["all"]["n"], figures["without earlier twins"]["n"]) == (40, 39)


def test_command_on_a_checkpoint(made_data: Path, tmp_path: Path) -> None:
    options = ["--data", str(made_data), "--workers", "0", "--max-steps", "1", "--output", str(tmp_path / "run")]
    small = ["--set", "model.start=random", "--set", "model.resolution=48", "--set", "optim.batch_size=16"]
    assert main(["fit", "ferplus_mobilenet", *options, *small]) == 0
    checkpoint, output = tmp_path / "run" / "checkpoint.safetensors", tmp_path / "figures.json"
    assert main(["evaluate", str(checkpoint), "--data", str(made_data), "--output", str(output)]) == 0
    figures = json.loads(output.read_text())
    assert figures["PublicTest"]["flip"]["ferplus8"]["all"]["n"] == 40
    assert "PrivateTest" not in figures
    assert main(["export", str(tmp_path / "no.safetensors"), "--name", "x", "--data", str(made_data)]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the manifest"),
        ("{", "cannot read"),
        ("[]", "not a weights"),
        ('{"weights": {}}', "no entry"),
    ],
)
def test_a_manifest_that_cannot_be_filled_is_told_at_once(
    made_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    file = tmp_path / "manifest.json"
    if text is not None:
        file.write_text(text)
    # No such checkpoint either: the manifest is looked at before any work.
    arguments = ["evaluate", "none.safetensors", "--data", str(made_data), "--manifest", str(file)]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_update_manifest_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"manifest_version": 1, "default": {}, "weights": {"a": {"kind": "x"}}}))
    update_manifest(file, "b", {"kind": "y"})
    assert json.loads(file.read_text())["weights"] == {"a": {"kind": "x"}, "b": {"kind": "y"}}
