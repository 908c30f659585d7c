import os
from pathlib import Path

import pytest

# For tests that import ONNX Runtime themselves; fevertools does the same.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


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


@pytest.fixture(scope="session")
def triplet_weights(tmp_path_factory) -> Path:
    """The manifest of the same student with a triplet head."""
    pytest.importorskip("onnx")
    from tests._tiny import HEAD, write_weights

    return write_weights(tmp_path_factory.mktemp("triplet"), head=HEAD)


@pytest.fixture(scope="session")
def int8_weights(tmp_path_factory) -> Path:
    """The manifest of the tiny student with an int8 graph, which tells itself: its embeddings are twice the others."""
    pytest.importorskip("onnx")
    from tests._tiny import write_weights

    return write_weights(tmp_path_factory.mktemp("int8"), int8=True)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on the loopback interface, see `hub_server.py`, that huggingface_hub takes for the Hub in this process."""
    from tests.hub_server import Hub, point_client

    with Hub() as server:
        point_client(monkeypatch, server, tmp_path / "home")
        yield server


@pytest.fixture
def files(triplet_weights):
    """What a repository on the Hub holds: the tiny student, its triplet head and their manifest, by name."""
    return {path.name: path.read_bytes() for path in triplet_weights.parent.iterdir()}
