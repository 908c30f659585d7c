"""Publishing to the Hub of `hub_server.py` with the real client, and reading back what was published."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("onnx")

from huggingface_hub import RepoCard

from fevertools import Analyzer
from fevertools.errors import ManifestError, PublishError, UnknownWeightsError, WeightsIntegrityError
from fevertools.manifest import Hub, load_manifest
from fevertools.train.__main__ import main
from fevertools.train.publish import publish
from fevertools.weights import load_head, resolve
from tests._tiny import HEAD, reference
from tests.hub_server import READ, WRITE, answer

REPO = "example/tiny"
CROP = np.random.default_rng(5).integers(0, 256, (48, 48), np.uint8)


@pytest.fixture
def manifest(triplet_weights, tmp_path):
    """A copy, for it is written to."""
    shutil.copytree(triplet_weights.parent, tmp_path / "mine")
    return tmp_path / "mine" / triplet_weights.name


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITE)


def command(manifest, *arguments):
    return main(["publish", "tiny", "--repo-id", REPO, "--manifest", str(manifest), *arguments])


def test_what_is_published_is_what_others_load(hub, writer, manifest, capsys):
    before = json.loads(manifest.read_text())
    assert command(manifest) == 0
    repo = hub.repos[REPO]
    commit = repo.branches["main"]
    published = repo.commits[commit]
    assert set(published) == {".gitattributes", "tiny.onnx", "tiny-triplet.npy", "weights_manifest.json", "README.md"}
    assert published["tiny.onnx"] == (manifest.parent / "tiny.onnx").read_bytes()
    assert len(repo.commits) == 2  # the one that made it, and one with everything
    assert not repo.private

    with Analyzer(f"{REPO}@{commit}:tiny", device="cpu") as analyzer:
        assert np.allclose(analyzer.embed(CROP, cropped=True), reference(CROP[None, :, :, None])[0], atol=1e-5)
    assert np.array_equal(load_head(analyzer.entry), HEAD)

    after = json.loads(manifest.read_text())
    assert after["weights"]["tiny"].pop("hub") == {"repo_id": REPO, "revision": commit}
    assert before["weights"]["tiny"].pop("hub") is None
    assert after == before
    assert f"published {REPO}@{commit}:tiny" in capsys.readouterr().out
    local = load_manifest(manifest).named("tiny")
    (manifest.parent / "tiny.onnx").unlink()  # as in a wheel that leaves it out
    assert resolve(local, roles=["onnx"])["onnx"].read_bytes() == published["tiny.onnx"]


def test_the_repository_is_whole_by_itself(hub, writer, manifest, tmp_path):
    """A copy of it is as good as an export: its manifest describes the files beside it."""
    publish("tiny", REPO, manifest=manifest)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in hub.repos[REPO].commits[hub.repos[REPO].branches["main"]].items():
        (copy / name).write_bytes(data)
    entry = load_manifest(copy / "weights_manifest.json").entry(None, "encoder")
    assert entry.bundled
    assert set(resolve(entry)) == {"onnx", "triplet"}
    card = RepoCard((copy / "README.md").read_text(encoding="utf-8"))
    assert card.data.license == "apache-2.0"
    assert f'ft.Analyzer("{REPO}@COMMIT:tiny")' in card.text


def test_weights_for_training_join_the_entry(hub, writer, manifest, tmp_path):
    extra = tmp_path / "tiny.safetensors"
    extra.write_bytes(b"weights to train on from")
    commit = publish("tiny", REPO, manifest=manifest, safetensors=extra)
    entry = load_manifest(manifest).named("tiny")
    assert entry.hub == Hub(REPO, commit)
    assert entry.files["safetensors"].size == extra.stat().st_size
    assert "safetensors" not in entry.served
    assert resolve(entry, roles=["safetensors"])["safetensors"].read_bytes() == extra.read_bytes()
    again = publish("tiny", REPO, manifest=manifest)  # nothing to change but the card of the same content
    assert hub.repos[REPO].commits[again]["tiny.safetensors"] == extra.read_bytes()


def test_a_dry_run_shows_everything_and_touches_nothing(hub, writer, manifest, capsys):
    before = {path: path.read_bytes() for path in manifest.parent.iterdir()}
    assert command(manifest, "--dry-run", "--private") == 0
    shown = capsys.readouterr().out
    assert hub.requests == []
    assert {path: path.read_bytes() for path in manifest.parent.iterdir()} == before
    assert f"would upload to the private {REPO}, as the commit 'tiny, version 1'" in shown
    entry = load_manifest(manifest).named("tiny")
    for file in entry.files.values():
        assert f"{file.path} " in shown
        assert f"{file.size:,} bytes  sha256 {file.sha256}" in shown
    assert "weights_manifest.json " in shown
    card = shown[shown.index("---\n") :]
    assert command(manifest) == 0
    assert card == hub.repos[REPO].commits[hub.repos[REPO].branches["main"]]["README.md"].decode()


def test_private_is_private_or_nothing(hub, writer, manifest, capsys):
    assert command(manifest, "--private") == 0
    assert hub.repos[REPO].private
    hub.repo("example/open", {"a.txt": b"a"})
    hub.requests.clear()
    assert main(["publish", "tiny", "--repo-id", "example/open", "--private", "--manifest", str(manifest)]) == 2
    assert "example/open exists and is public" in capsys.readouterr().err
    assert hub.count("commit|preupload|upload") == 0


def test_a_damaged_file_is_not_published(hub, writer, manifest):
    path = manifest.parent / "tiny-triplet.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsIntegrityError, match=r"tiny-triplet\.npy has the SHA-256"):
        publish("tiny", REPO, manifest=manifest)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "repo_id", "error", "message"),
    [
        ("large", REPO, UnknownWeightsError, "no encoder weights named 'large'; known: tiny"),
        ("tiny", "tiny", ManifestError, "weights.tiny.hub.repo_id: must be 'organisation/name'"),
        ("tiny", "example/a/b", ManifestError, "weights.tiny.hub.repo_id"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_sent(hub, writer, manifest, name, repo_id, error, message):
    with pytest.raises(error, match=message):
        publish(name, repo_id, manifest=manifest)
    assert hub.requests == []


def test_the_detector_is_not_ours_to_publish(hub):
    with pytest.raises(UnknownWeightsError, match="no encoder weights named 'mtcnn'"):
        publish("mtcnn", REPO)


@pytest.mark.parametrize(("token", "code"), [(None, 401), (READ, 403)])
def test_who_may_not_write_is_told_what_to_do(hub, manifest, monkeypatch, capsys, token, code):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    before = manifest.read_bytes()
    assert command(manifest) == 2
    error = capsys.readouterr().err
    assert f"HTTP {code}; " in error
    assert "hf auth login" in error
    assert "Traceback" not in error
    assert manifest.read_bytes() == before


@pytest.mark.parametrize("path", ["preupload", "info/lfs", "commit"])
def test_a_failure_on_the_way_writes_nothing_and_can_be_repeated(hub, writer, manifest, path):
    before = manifest.read_bytes()
    hub.order(answer(400), path, "POST")
    with pytest.raises(PublishError, match="HTTP 400; give the same command again"):
        publish("tiny", REPO, manifest=manifest)
    assert manifest.read_bytes() == before
    commit = publish("tiny", REPO, manifest=manifest)
    assert load_manifest(manifest).named("tiny").hub == Hub(REPO, commit)
    assert hub.count("PUT /upload") == 2  # what has arrived is not sent twice


def test_bytes_that_the_storage_does_not_take_end_it(hub, writer, manifest):
    hub.order(answer(403), "/upload/", "PUT", times=2)
    with pytest.raises(PublishError, match="HTTP 403"):
        publish("tiny", REPO, manifest=manifest)
    assert len(hub.repos[REPO].commits) == 1


def test_a_missing_file_for_training_says_so(manifest, capsys):
    assert command(manifest, "--safetensors", str(Path("nowhere.safetensors"))) == 2
    assert "no file nowhere.safetensors" in capsys.readouterr().err
