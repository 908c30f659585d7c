import copy
import json
import os
import sys
import types
from pathlib import Path

import huggingface_hub
import pytest

from fevertools import weights
from fevertools.errors import (
    ManifestError,
    UnknownWeightsError,
    WeightsIntegrityError,
    WeightsUnavailableError,
)
from fevertools.labels import EMOTIONS
from fevertools.manifest import load_manifest, manifest_path, parse_manifest
from fevertools.weights import resolve
from tests._tiny import file_entry, manifest_value

HUB = {"repo_id": "someone/tiny", "revision": "0123456789abcdef0123456789abcdef01234567"}


def value():
    return manifest_value({"path": "tiny.onnx", "size": 5, "sha256": "0" * 64})


def changed(place, new):
    """A valid manifest with one thing changed; `...` removes it."""
    result = value()
    *path, last = place
    target = result
    for key in path:
        target = target[key]
    if new is ...:
        del target[last]
    else:
        target[last] = new
    return result


ENTRY = ("weights", "tiny")
FILE = (*ENTRY, "files", "onnx")
INPUT = (*ENTRY, "input")


def test_a_manifest_is_read(tmp_path):
    manifest = parse_manifest(value(), tmp_path)
    entry = manifest.entry(None, "encoder")
    assert entry is manifest.entry("tiny", "encoder") is manifest.named("tiny")
    assert entry.files["onnx"].size == 5
    assert (entry.geometry.height, entry.geometry.width) == (48, 48)
    assert entry.geometry.landmarks[1] == (0.693, 0.390)
    assert (entry.dimension, entry.outputs["logits"], entry.labels) == (16, 8, EMOTIONS)
    assert entry.metrics["ferplus8"]["accuracy"] == 0.125
    assert entry.folder == tmp_path
    with pytest.raises(TypeError):
        entry.metrics["ferplus8"]["accuracy"] = 1.0


def test_hub_safetensors_and_detectors_are_read(tmp_path):
    raw = changed((*ENTRY, "hub"), HUB)
    raw["weights"]["tiny"]["files"]["safetensors"] = {"path": "tiny.safetensors", "size": 1, "sha256": "f" * 64}
    entry = parse_manifest(raw, tmp_path).named("tiny")
    assert entry.hub.repo_id == "someone/tiny"
    assert "safetensors" in entry.files
    detector = parse_manifest(json.loads(manifest_path().read_text("utf-8")), tmp_path).entry(None, "detector")
    assert set(detector.files) == {"pnet", "rnet", "onet"}
    assert (detector.input, detector.dimension, detector.labels) == (None, 0, ())
    with pytest.raises(ManifestError, match="name an encoder"):
        _ = detector.geometry


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "manifest: must be an object"),
        ({}, "manifest: manifest_version, default, weights missing"),
        (changed(("manifest_version",), 2), "manifest_version: 2 is not 1.*upgrade"),
        (changed(("manifest_version",), True), "manifest_version"),
        (changed(("extra",), 1), "manifest.extra: unknown key"),
        (changed(("default", "encoder"), "gone"), "default.encoder: 'gone' is not an entry; known: tiny"),
        (changed(("default", "encoder"), ["tiny"]), "default.encoder"),
        (changed(("default", "detector"), "tiny"), "default.detector: 'tiny' is of kind encoder"),
        (changed(("default", "colour"), "tiny"), "default.colour: unknown key"),
        (changed(("weights", "../x"), value()["weights"]["tiny"]), "weights.../x: must be a name"),
        (changed(ENTRY, "x"), "weights.tiny.kind"),
        (changed((*ENTRY, "kind"), "oracle"), "weights.tiny.kind: must be 'encoder' or 'detector', got 'oracle'"),
        (changed((*ENTRY, "kind"), ["encoder"]), "weights.tiny.kind"),
        (changed((*ENTRY, "title"), " "), "weights.tiny.title: must be text"),
        (changed((*ENTRY, "version"), 1), "weights.tiny.version: must be text"),
        (changed((*ENTRY, "licence"), ...), "weights.tiny: licence missing"),
        (changed((*ENTRY, "lisence"), "MIT"), "weights.tiny.lisence: unknown key; known: kind"),
        (changed((*ENTRY, "bundled"), 1), "weights.tiny.bundled: must be true or false, got 1"),
        (changed((*ENTRY, "bundled"), False), "weights.tiny: neither bundled nor on a hub"),
        (changed((*ENTRY, "files"), {}), "weights.tiny.files: onnx missing"),
        (changed((*ENTRY, "files", "pickle"), {}), "weights.tiny.files.pickle: unknown key"),
        (changed((*FILE, "path"), "a/b.onnx"), "weights.tiny.files.onnx.path: must be a plain file name"),
        (changed((*FILE, "path"), "a\\b.onnx"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "..onnx"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "a..onnx"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "C:x"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "a.onnx\n"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "size"), 0), "weights.tiny.files.onnx.size: must be a whole number from 1"),
        (changed((*FILE, "size"), 10**13), "weights.tiny.files.onnx.size"),
        (changed((*FILE, "size"), 5.0), "weights.tiny.files.onnx.size"),
        (changed((*FILE, "size"), True), "weights.tiny.files.onnx.size"),
        (changed((*FILE, "sha256"), "0" * 63), "weights.tiny.files.onnx.sha256: must be 64 lower-case hex digits"),
        (changed((*FILE, "sha256"), "G" * 64), "weights.tiny.files.onnx.sha256"),
        (changed((*FILE, "url"), "x"), "weights.tiny.files.onnx.url: unknown key"),
        (changed((*ENTRY, "hub"), "someone/tiny"), "weights.tiny.hub: must be an object"),
        (changed((*ENTRY, "hub"), HUB | {"revision": "main"}), "weights.tiny.hub.revision: must be a full commit"),
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "tiny"}), "weights.tiny.hub.repo_id"),
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "../tiny"}), "weights.tiny.hub.repo_id"),
        (changed((*INPUT, "height"), 0), "weights.tiny.input.height"),
        (changed((*INPUT, "width"), 10**6), "weights.tiny.input.width"),
        (changed((*INPUT, "channels"), "rgb"), "weights.tiny.input.channels: must be 'luminance', got 'rgb'"),
        (changed((*INPUT, "layout"), "NCHW"), "weights.tiny.input.layout"),
        (changed((*INPUT, "dtype"), "float32"), "weights.tiny.input.dtype"),
        (changed((*INPUT, "std"), 0), "weights.tiny.input.std: must be above 0"),
        (changed((*INPUT, "mean"), "0.5"), "weights.tiny.input.mean: must be a number"),
        (changed((*INPUT, "mean"), 10**400), "weights.tiny.input.mean: must be a number"),
        (changed((*INPUT, "landmarks"), [[0, 0]]), "weights.tiny.input.landmarks: 5 points"),
        (changed((*INPUT, "landmarks", 3), [0.1, 0.2, 0.3]), r"weights.tiny.input.landmarks\[3\]: must be \[x, y\]"),
        (changed((*INPUT, "landmarks", 3), [0.1, 48]), r"weights.tiny.input.landmarks\[3\]"),
        (changed((*INPUT, "landmarks", 0), [0.9, 0.4]), "weights.tiny.input.landmarks: the left eye"),
        (changed((*INPUT, "normalization"), "x"), "weights.tiny.input.normalization: unknown key"),
        (changed((*ENTRY, "outputs", "logits"), 7), "weights.tiny.outputs.logits: must be 8, got 7"),
        (changed((*ENTRY, "dimension"), 256), "weights.tiny.outputs.embedding: must be 256, got 16"),
        (changed((*ENTRY, "outputs", "boxes"), 4), "weights.tiny.outputs.boxes: unknown key"),
        (changed((*ENTRY, "labels"), sorted(EMOTIONS)), "weights.tiny.labels: the order must be neutral, happiness"),
        (changed((*ENTRY, "labels"), "neutral"), "weights.tiny.labels: must be a list"),
        (changed((*ENTRY, "data"), {}), "weights.tiny.data: must be a list"),
        (changed((*ENTRY, "data", 0), {"name": "x"}), r"weights.tiny.data\[0\]: terms missing"),
        (changed((*ENTRY, "metrics"), 0.9), "weights.tiny.metrics: must be an object"),
        (changed((*ENTRY, "metrics", "ferplus8", "f1"), [0.1]), "weights.tiny.metrics.ferplus8.f1: must be a number"),
        (changed((*ENTRY, "metrics", "ferplus8", "ok"), True), "weights.tiny.metrics.ferplus8.ok"),
        (changed((*ENTRY, "metrics", "ferplus8", "f1"), None), "weights.tiny.metrics.ferplus8.f1"),
    ],
)
def test_what_is_wrong_is_named(raw, message, tmp_path):
    with pytest.raises(ManifestError, match=message):
        parse_manifest(raw, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
    ],
)
def test_what_is_not_json_is_refused(text, message, tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)


def test_a_missing_manifest_says_so(tmp_path):
    with pytest.raises(ManifestError, match=r"cannot read .*gone\.json.*check the path"):
        load_manifest(tmp_path / "gone.json")


def test_unknown_names_list_the_known(tmp_path):
    manifest = parse_manifest(value(), tmp_path)
    with pytest.raises(UnknownWeightsError, match="no encoder weights named 'small'; known: tiny"):
        manifest.entry("small", "encoder")
    with pytest.raises(UnknownWeightsError, match="no detector weights named 'tiny'; known: none"):
        manifest.entry("tiny", "detector")
    with pytest.raises(UnknownWeightsError, match="no default detector"):
        manifest.entry(None, "detector")
    with pytest.raises(UnknownWeightsError, match=r"no weights named 'nothing'; known: .*mtcnn"):
        resolve("nothing")


def test_everything_bundled_is_what_the_manifest_says():
    manifest = load_manifest()
    total = 0
    for entry in manifest.weights.values():
        if entry.bundled:
            paths = resolve(entry)
            assert set(paths) <= set(entry.files)
            total += sum(path.stat().st_size for path in paths.values())
    assert 0 < total <= 15 * 1024**2  # the wheel's share of weights
    assert "detector" in manifest.default


# --- resolve


@pytest.fixture
def student(tmp_path):
    """An entry with one bundled file, and that file."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    path = folder / "tiny.onnx"
    path.write_bytes(b"weights of a student")
    return parse_manifest(manifest_value(file_entry(path)), folder).named("tiny"), path


@pytest.fixture
def published(tmp_path):
    """An entry that is only on the Hub, and its bytes."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(b"published weights")
    raw = manifest_value(file_entry(path))
    raw["weights"]["tiny"] |= {"bundled": False, "hub": HUB}
    return parse_manifest(raw, tmp_path).named("tiny"), path


def test_a_bundled_file_is_found(student):
    entry, path = student
    assert resolve(entry) == {"onnx": path}


def test_one_changed_byte_is_seen(student):
    entry, path = student
    path.write_bytes(b"weights of A student")
    with pytest.raises(WeightsIntegrityError, match=r"tiny\.onnx has the SHA-256 .*reinstall"):
        resolve(entry)


def test_a_change_after_the_first_use_is_seen(student):
    entry, path = student
    resolve(entry)
    path.write_bytes(b"weights of A student")
    os.utime(path, ns=(0, 1))
    with pytest.raises(WeightsIntegrityError, match="SHA-256"):
        resolve(entry)


def test_another_size_is_seen(student):
    entry, path = student
    path.write_bytes(b"weights")
    with pytest.raises(WeightsIntegrityError, match="has 7 bytes, the manifest says 20"):
        resolve(entry)


def test_a_file_is_read_once_a_process(student, monkeypatch):
    entry, _ = student
    resolve(entry)
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    resolve(entry)


def test_a_missing_bundled_file_without_a_hub_asks_to_reinstall(student):
    entry, path = student
    path.unlink()
    with pytest.raises(WeightsUnavailableError, match=r"tiny\.onnx is missing.*reinstall fevertools"):
        resolve(entry)


def test_a_file_that_cannot_be_read_says_so(student, monkeypatch):
    entry, _ = student

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights.hashlib, "file_digest", refuse)
    with pytest.raises(WeightsUnavailableError, match=r"cannot read .*tiny\.onnx: Permission denied; reinstall"):
        resolve(entry)


def test_an_unknown_role_lists_the_known(student):
    with pytest.raises(UnknownWeightsError, match="no 'safetensors' file; it has: onnx"):
        resolve(student[0], roles=["safetensors"])


def test_the_hub_is_asked_for_the_full_revision(published, monkeypatch, tmp_path):
    entry, path = published
    calls = []

    def download(repo_id, filename, **options):
        calls.append((repo_id, filename, options))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert resolve(entry, cache_dir=tmp_path / "cache", local_files_only=True) == {"onnx": path}
    options = {"revision": HUB["revision"], "cache_dir": tmp_path / "cache", "local_files_only": True}
    assert calls == [("someone/tiny", "tiny.onnx", options)]


def test_a_broken_download_is_seen(published, monkeypatch):
    entry, path = published
    path.write_bytes(b"published weightz")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(path))
    with pytest.raises(WeightsIntegrityError, match=r"delete .*tiny\.onnx"):
        resolve(entry)


def test_a_missing_bundled_file_comes_from_the_hub(student, monkeypatch, tmp_path):
    entry, path = student
    raw = manifest_value(file_entry(path))
    raw["weights"]["tiny"]["hub"] = HUB
    entry = parse_manifest(raw, path.parent).named("tiny")
    moved = path.rename(tmp_path / "elsewhere.onnx")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(moved))
    assert resolve(entry) == {"onnx": moved}


def cache_with(folder: Path, data: bytes) -> Path:
    """The Hub library's own cache layout, holding one file."""
    snapshot = folder / "models--someone--tiny" / "snapshots" / HUB["revision"]
    snapshot.mkdir(parents=True)
    (snapshot / "tiny.onnx").write_bytes(data)
    return snapshot / "tiny.onnx"


def test_the_real_library_finds_the_cache_offline(published, tmp_path):
    entry, path = published
    cached = cache_with(tmp_path / "cache", path.read_bytes())
    found = resolve(entry, cache_dir=tmp_path / "cache", local_files_only=True)
    assert found["onnx"].samefile(cached)


def test_the_real_library_without_network_says_what_to_do(published, tmp_path):
    with pytest.raises(WeightsUnavailableError, match=r"someone/tiny at 0123.*LocalEntryNotFoundError.*cache_dir"):
        resolve(published[0], cache_dir=tmp_path / "empty", local_files_only=True)


@pytest.mark.parametrize("error", [ConnectionError("down"), ValueError("bad name"), RuntimeError("xet"), "http"])
def test_errors_of_the_library_become_ours(published, monkeypatch, error):
    class HttpError(Exception):  # as httpx has it: neither OSError nor ValueError
        pass

    if error == "http":
        error = HttpError("503")
        monkeypatch.setitem(sys.modules, "huggingface_hub.errors", types.SimpleNamespace(HTTPError=HttpError))
        monkeypatch.setattr(huggingface_hub, "errors", sys.modules["huggingface_hub.errors"], raising=False)

    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match=type(error).__name__) as caught:
        resolve(published[0])
    assert caught.value.__cause__ is error


def test_the_manifest_is_not_changed_by_reading():
    raw = value()
    before = copy.deepcopy(raw)
    parse_manifest(raw, Path())
    assert raw == before
