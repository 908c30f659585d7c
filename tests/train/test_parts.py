"""The part of an evaluation that looks at PublicTest whatever the split is."""

from pathlib import Path

import numpy as np
import pytest

from fevertools.train.datasets.ferplus import SPLITS, read_ferplus
from fevertools.train.evaluate import command
from fevertools.train.evaluate.networks import Outputs


def test_public_test_beside_private_test(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows every face of PublicTest and is wrong about every one of PrivateTest."""
    data = read_ferplus(made_data)
    by_image = {image.tobytes(): int(label) for image, label in zip(data.images, data.label, strict=True)}
    private = {image.tobytes() for image in data.images[data.split == SPLITS["test"]]}

    def predict(crops: np.ndarray) -> Outputs:
        keys = [
            min(crop[..., 0].tobytes(), crop[:, ::-1, 0].tobytes(), key=lambda k: k not in by_image) for crop in crops
        ]
        label = np.array([by_image.get(key, 0) + (key in private) for key in keys]) % 7
        return Outputs(np.zeros((len(crops), 2), np.float32), fer2013=10 * np.eye(7, dtype=np.float32)[label])

    monkeypatch.setattr(command, "load_network", lambda *_: predict)
    options = command.EvaluateOptions(("ferplus", "public"))
    result = command.evaluate("x", data, "test", None, None, options)
    # Two rows of PublicTest are one image with two labels.
    assert result["PublicTest"]["single"]["fer2013"]["all"]["accuracy"] == 97.5
    assert result["PrivateTest"]["single"]["fer2013"]["all"]["accuracy"] == 0
    assert set(command.summary(result)) == {"PublicTest", "PrivateTest"}
