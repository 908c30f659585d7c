import copy
import dataclasses
import json
import os
import pickle
import re
import shutil
import sys
import types
from pathlib import Path

import huggingface_hub
import numpy as np
import onnxruntime
import pytest

from fevertools import Analyzer, hub, weights
from fevertools.errors import (
    ManifestError,
    UnknownWeightsError,
    WeightsIntegrityError,
    WeightsUnavailableError,
)
from fevertools.labels import EMOTIONS
from fevertools.manifest import load_manifest, manifest_path, parse_manifest
from fevertools.weights import load_head, resolve
from tests._tiny import DIMENSION, HEAD, file_entry, manifest_value

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


def nested(levels):
    """Metrics of so many objects in each other."""
    innermost = {"accuracy": 1}
    for _ in range(levels - 1):
        innermost = {"x": innermost}
    return innermost


FILE_VALUE = {"path": "tiny.onnx", "size": 5, "sha256": "0" * 64}
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
    assert set(detector.served) == {"pnet", "rnet", "onet"}
    with pytest.raises(ManifestError, match="name an encoder"):
        _ = detector.geometry


def test_inference_reads_no_files_for_training(tmp_path):
    file = {"path": "tiny.onnx", "size": 5, "sha256": "0" * 64}
    raw = manifest_value(file, {**file, "path": "tiny.npy"})
    raw["weights"]["tiny"]["files"]["safetensors"] = {**file, "path": "tiny.safetensors"}
    entry = parse_manifest(raw, tmp_path).named("tiny")
    assert entry.outputs["triplet"] == 32
    assert entry.served == ("onnx", "triplet")


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
        (changed((*FILE, "path"), "tiny.pt"), "weights.tiny.files.onnx.path: .* .onnx, .safetensors or .npy"),
        (changed((*FILE, "path"), "tiny.npz"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "NUL.onnx"), "weights.tiny.files.onnx.path"),
        (changed((*FILE, "path"), "x" * 121 + ".onnx"), "weights.tiny.files.onnx.path"),
        (changed((*ENTRY, "files", "safetensors"), FILE_VALUE | {"path": "TINY.onnx"}), "two roles name the same file"),
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
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "a--b/tiny"}), "weights.tiny.hub.repo_id"),
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "someone/tiny.git"}), "weights.tiny.hub.repo_id"),
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "someone/tiny-"}), "weights.tiny.hub.repo_id"),
        (changed((*ENTRY, "hub"), HUB | {"repo_id": "a" * 50 + "/" + "b" * 50}), "weights.tiny.hub.repo_id"),
        (changed((*ENTRY, "hub"), HUB | {"revision": "0" * 39}), "weights.tiny.hub.revision"),
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
        (changed((*ENTRY, "outputs", "triplet"), 32), "weights.tiny.files: triplet missing, which weights.tiny.out"),
        (changed((*ENTRY, "outputs", "triplet"), 0), "weights.tiny.outputs.triplet: must be a whole number from 1"),
        (
            changed((*ENTRY, "files", "triplet"), {"path": "tiny.npy", "size": 5, "sha256": "0" * 64}),
            "weights.tiny.outputs: triplet missing, which weights.tiny.files has",
        ),
        (changed((*ENTRY, "labels"), sorted(EMOTIONS)), "weights.tiny.labels: the order must be neutral, happiness"),
        (changed((*ENTRY, "labels"), "neutral"), "weights.tiny.labels: must be a list"),
        (changed((*ENTRY, "data"), {}), "weights.tiny.data: must be a list"),
        (changed((*ENTRY, "data", 0), {"name": "x"}), r"weights.tiny.data\[0\]: terms missing"),
        (changed((*ENTRY, "data", 0, "url"), "javascript:x"), r"weights.tiny.data\[0\].url: must start with https://"),
        (changed((*ENTRY, "title"), "two\nlines"), "weights.tiny.title: must be text, one line"),
        (changed((*ENTRY, "licence"), "\x1b[31mMIT"), "weights.tiny.licence: must be text"),
        (changed((*ENTRY, "metrics", "ferplus8", "protocol"), "\x07"), "weights.tiny.metrics.ferplus8.protocol"),
        (changed((*ENTRY, "metrics"), nested(17)), "weights.tiny.metrics.*: more than 16 levels"),
        (changed((*ENTRY, "metrics"), nested(400)), "weights.tiny.metrics.*: more than 16 levels"),
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
        ('{"\\u001b[2J": 1}', r"the key '\\x1b\[2J' has control characters"),
        (" " * (4 * 1024**2 + 1), "more than any manifest needs"),
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


def test_sixteen_levels_of_metrics_are_read(tmp_path):
    assert parse_manifest(changed((*ENTRY, "metrics"), nested(16)), tmp_path).named("tiny").metrics["x"]["x"]


# --- every byte counts


def flips(size, many):
    """Offsets in a file of this size: both ends, and some between, and one of the eight bits of each."""
    rng = np.random.default_rng(size)
    return [(int(place), int(rng.integers(8))) for place in (0, size - 1, *rng.integers(0, size, many))]


@pytest.mark.parametrize(
    ("name", "role"), [(entry.name, role) for entry in load_manifest().weights.values() for role in entry.served]
)
def test_a_flipped_bit_of_what_is_bundled_is_refused(name, role, tmp_path):
    entry = load_manifest().named(name)
    path = tmp_path / entry.files[role].path
    data = bytearray((entry.folder / path.name).read_bytes())
    entry = dataclasses.replace(entry, folder=tmp_path)
    for turn, (place, bit) in enumerate(flips(len(data), 6)):
        data[place] ^= 1 << bit
        path.write_bytes(data)
        os.utime(path, ns=(0, turn))  # two writes may fall into one tick of the file system
        with pytest.raises(WeightsIntegrityError, match=rf"{re.escape(str(path))} has the SHA-256 .*; reinstall"):
            resolve(entry, roles=[role])
        data[place] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(0, 99))
    assert resolve(entry, roles=[role]) == {role: path}


def test_a_flipped_bit_anywhere_never_reaches_a_network(triplet_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
    shutil.copytree(triplet_weights.parent, tmp_path, dirs_exist_ok=True)
    entry = load_manifest(tmp_path / triplet_weights.name).entry(None, "encoder")
    crop, vectors = np.zeros((48, 48), np.uint8), np.eye(2, 16, dtype=np.float32)
    uses = {"onnx": lambda a: a.embed(crop, cropped=True), "triplet": lambda a: a.similarity(*vectors)}
    for role, file in entry.files.items():
        path = tmp_path / file.path
        whole = path.read_bytes()
        for turn, (place, bit) in enumerate(flips(file.size, 60)):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            os.utime(path, ns=(0, turn))
            analyzer = Analyzer(tmp_path / triplet_weights.name)
            with pytest.raises(WeightsIntegrityError, match=rf"{re.escape(str(path))} .*; reinstall"):
                uses[role](analyzer)
        path.write_bytes(whole)


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
    with pytest.raises(WeightsIntegrityError, match=r"tiny\.onnx .*weights pull --force someone/tiny@0123.*:tiny$"):
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
        monkeypatch.setitem(sys.modules, "huggingface_hub.errors", types.SimpleNamespace(HfHubHTTPError=HttpError))
        monkeypatch.setattr(huggingface_hub, "errors", sys.modules["huggingface_hub.errors"], raising=False)

    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "WAITS", ())
    with pytest.raises(WeightsUnavailableError, match=type(error).__name__) as caught:
        resolve(published[0])
    assert caught.value.__cause__ is error


# --- the triplet head


def head_entry(folder, array, *, width=None):
    """An entry whose triplet file holds what `np.save` makes of the arrays, or these bytes."""
    path = folder / "tiny-triplet.npy"
    with path.open("wb") as stream:
        if isinstance(array, bytes):
            stream.write(array)
        else:
            for one in array if isinstance(array, tuple) else (array,):
                np.save(stream, one)
    (folder / "tiny.onnx").write_bytes(b"weights of a student")
    raw = manifest_value(file_entry(folder / "tiny.onnx"), file_entry(path))
    if width is not None:
        raw["weights"]["tiny"]["outputs"]["triplet"] = width
    return parse_manifest(raw, folder).named("tiny")


def test_a_head_is_read(tmp_path):
    for array in (HEAD, np.asfortranarray(HEAD)):
        entry = head_entry(tmp_path, array)
        head = load_head(entry)
        assert head.dtype == np.float32
        assert np.array_equal(head, HEAD)
    assert set(resolve(entry)) == {"onnx", "triplet"}  # verified, and fetched, with the rest


def test_a_tampered_head_is_seen(tmp_path):
    entry = head_entry(tmp_path, HEAD)
    path = tmp_path / "tiny-triplet.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsIntegrityError, match=r"tiny-triplet\.npy has the SHA-256 .*reinstall"):
        load_head(entry)
    path.write_bytes(data[:-4])
    with pytest.raises(WeightsIntegrityError, match=r"tiny-triplet\.npy has \d+ bytes"):
        load_head(entry)


class Trap:
    """Says so where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def npy(header):
    """A .npy file, version 1.0, with this header and no data."""
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()


def of_shape(text):
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}")


def poisoned(value):
    head = HEAD.copy()
    head[3, 4] = value
    return head


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([Trap()], object), "Object arrays cannot be loaded"),
        (pickle.dumps(Trap()), r"is not a \.npy file of numbers"),
        (b"\x93NUMPY", r"is not a \.npy file of numbers"),
        (npy("{'descr': ("), "TokenError"),
        (npy("  1\n 2\n"), "IndentationError"),
        (npy("{[]: 1}"), "TypeError"),
        (npy("-" * 9000 + "1"), r"is not a \.npy file of numbers"),
        (of_shape(f"({2**70},)"), "OverflowError"),
        (of_shape(f"({2**60},)"), "MemoryError"),
        (of_shape("(32, 17)"), "ValueError"),
        ((HEAD, HEAD), "more than one array"),
        (HEAD.astype(np.float64), r"must hold float32 \(32, 17\), got float64 \(32, 17\)"),
        (HEAD[:, :-1], r"must hold float32 \(32, 17\), got float32 \(32, 16\)"),
        (HEAD[:31], r"got float32 \(31, 17\)"),
        (HEAD.T, r"got float32 \(17, 32\)"),
        (HEAD.ravel(), r"got float32 \(544,\)"),
        (poisoned(np.nan), "not finite"),
        (poisoned(np.inf), "not finite"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path, array, message):
    with pytest.raises(WeightsIntegrityError, match=f"{message}.*export the weights again"):
        load_head(head_entry(tmp_path, array))


def test_a_head_cut_short_is_refused(tmp_path):
    whole = head_entry(tmp_path, HEAD)
    data = (tmp_path / whole.files["triplet"].path).read_bytes()
    with pytest.raises(WeightsIntegrityError, match="export the weights again"):
        load_head(head_entry(tmp_path, data[:-4]))


def test_the_head_has_the_width_of_the_manifest(tmp_path):
    with pytest.raises(WeightsIntegrityError, match=r"must hold float32 \(16, 17\), got float32 \(32, 17\)"):
        load_head(head_entry(tmp_path, HEAD, width=16))
    assert load_head(head_entry(tmp_path, HEAD[:16], width=16)).shape == (16, DIMENSION + 1)


def test_weights_without_a_head_say_so(student):
    with pytest.raises(UnknownWeightsError, match="tiny has no 'triplet' file; it has: onnx"):
        load_head(student[0])


def test_the_manifest_is_not_changed_by_reading():
    raw = value()
    before = copy.deepcopy(raw)
    parse_manifest(raw, Path())
    assert raw == before
