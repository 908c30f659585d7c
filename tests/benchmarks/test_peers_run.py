"""The comparisons at tiny settings: our own contestant, with no environment of a peer."""

import json

import numpy as np
import pytest

from benchmarks import embedding, end_to_end, setup_peers
from benchmarks._peer import Contestant

OURS = Contestant("fevertools", "ours")
FER = Contestant("`fer`", "fer", (), "fer")


def test_embedding(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(embedding, "CONTESTANTS", {"float32": OURS, "fer": FER})
    monkeypatch.setattr(embedding, "LATENCIES", 2)
    monkeypatch.setattr(embedding, "TURN", 0.0)
    path = tmp_path / "embedding.json"
    embedding.main(["--threads", "1", "--rounds", "2", "--peers", str(tmp_path), "--output", str(path)])
    result = json.loads(path.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert [(row["threads"], row["batch"], row["calls"]) for row in result["rows"]] == [
        (1, 1, 4),
        (1, 8, 2),
        (1, 64, 2),
    ]
    assert all(row["crops_per_second"]["median"] > 0 and row["way"] == "Encoder.encode" for row in result["rows"])
    assert "setup_peers" in result["missing"]["fer"]
    assert "| 1 | fevertools |" in embedding.table(tmp_path)


def test_end_to_end(tmp_path, monkeypatch) -> None:
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    Image.fromarray(data.astronaut()).save(tmp_path / "one.png")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "none.png")
    monkeypatch.setattr(end_to_end, "CONTESTANTS", {"exact": OURS, "fer": FER})
    monkeypatch.setattr(end_to_end, "REFERENCE", "exact")
    options = ["--photos", str(tmp_path), "--threads", "1", "--rounds", "2", "--peers", str(tmp_path)]
    end_to_end.main([*options, "--output", str(tmp_path / "end_to_end.json")])
    result = json.loads((tmp_path / "end_to_end.json").read_text())
    ours = result["contestants"]["exact"]
    assert ours["faces"] == ours["faces_of_reference"] == {"none.png": 0, "one.png": 1}
    assert ours["peak_bytes"] > 50e6
    assert "setup_peers" in result["missing"]["fer"]
    assert "| fevertools |" in end_to_end.table(tmp_path)


def entry(name: str, version: str, digest: str = "") -> dict:
    hashes = {"hashes": {"sha256": digest}}
    return {"metadata": {"name": name, "version": version}, "download_info": {"archive_info": hashes}}


def test_pins_and_what_is_left_out() -> None:
    peer = setup_peers.Peer("fer", "fer", setup_peers.TORCH, ("setuptools==80.9.0", "six==1.0"))
    entries = [entry("Fer", "2"), entry("torch", "2.2.2"), entry("nvidia_cudnn_cu12", "8"), entry("torchmetrics", "1"),
               entry("setuptools", "84")]  # fmt: skip
    assert setup_peers.pinned(entries, peer) == ["fer==2", "setuptools==80.9.0", "six==1.0", "torchmetrics==1"]
    known = setup_peers.facts(peer, entries, 7)
    assert known["left_out"] == ["nvidia-cudnn-cu12", "torch"]
    assert (known["version"], known["packages"], known["download_bytes"]) == ("2", 5, 7)
    assert setup_peers.pinned(entries, setup_peers.Peer("fer", "fer"))[-1] == "torchmetrics==1"


def test_installed_bytes_are_those_of_the_files(tmp_path) -> None:
    for name, text in (("one", "12345"), ("other_two", "1234567")):
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}.py,,\nabsent.py,,\n")
    assert setup_peers.installed_bytes(tmp_path, {"one"}) == 5
    assert setup_peers.installed_bytes(tmp_path, {"one", "other-two", "absent"}) == 12
