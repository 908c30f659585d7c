import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The data folder: FEVERTOOLS_DATA, else `../shared/data` beside the repository root. Skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("FEVERTOOLS_DATA", default))
    if not root.is_dir():
        pytest.skip("no data folder: set FEVERTOOLS_DATA")
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """The manifest of a tiny student with random weights, see `_tiny.py`."""
    pytest.importorskip("onnx")
    from tests._tiny import write_weights

    return write_weights(tmp_path_factory.mktemp("tiny"))
