"""The real huggingface_hub client against a Hub on the loopback interface that errs on order."""

import errno
import hashlib
import json
import logging
import os
import re
import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import huggingface_hub
from huggingface_hub import constants

import fevertools.hub
from fevertools import Analyzer, pipeline
from fevertools.cli import main
from fevertools.errors import ManifestError, UnknownWeightsError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.hub import PASSING, WAITS, Reference, parse_reference
from fevertools.manifest import MAX_MANIFEST_SIZE, Hub
from fevertools.weights import find, load_head, resolve
from tests._tiny import HEAD, reference
from tests.hub_server import READ, after, answer, break_off, flip, reset, short, stall

REPO = "example/faces"
CROP = np.random.default_rng(3).integers(0, 256, (48, 48), np.uint8)


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Seconds that were to be slept, which are not."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def commit(hub, files):
    """A repository with the tiny student, its triplet head and their manifest; its one commit."""
    return hub.repo(REPO, files)


@pytest.fixture
def pinned(hub, commit):
    """Its entry, with nothing but the manifest fetched. The log of requests starts here."""
    entry = find(f"{REPO}@{commit}:tiny")
    hub.requests.clear()
    return entry


def is_whole(paths, files):
    return all(path.read_bytes() == files[path.name] for path in paths.values())


# ---------------------------------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example/faces", Reference("example/faces", "main", None)),
        ("example/faces@v1.0", Reference("example/faces", "v1.0", None)),
        ("example/faces:small", Reference("example/faces", "main", "small")),
        (f"example/faces@{'a' * 40}:small", Reference("example/faces", "a" * 40, "small")),
        ("example/faces@refs/pr/1", Reference("example/faces", "refs/pr/1", None)),
    ],
)
def test_a_reference_is_read(text, expected):
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "./faces/x", "../faces", "a/b/c", "example/faces@", "example/faces@../../x", "example/faces:",
     "example/faces:Small/x", "example/..", "https://example/faces", "example/faces\n", "", "example/fäces"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(UnknownWeightsError, match="organisation/name@revision:entry"):
        parse_reference(text)


def test_a_folder_is_no_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    with pytest.raises(UnknownWeightsError, match=r"runs/mine is a file or folder here; .*\.json"):
        find("runs/mine")


# ---------------------------------------------------------------------------------------------------------- what works


def test_weights_of_anyone_are_served(hub, commit):
    with Analyzer(f"{REPO}@{commit}:tiny", device="cpu") as analyzer:
        assert analyzer.entry.hub == Hub(REPO, commit)
        assert not analyzer.entry.bundled
        assert np.allclose(analyzer.embed(CROP, cropped=True), reference(CROP[None, :, :, None])[0], atol=1e-5)
        analyzer.similarity(*np.eye(2, 16, dtype=np.float32))
    assert np.array_equal(load_head(analyzer.entry), HEAD)
    assert hub.count("GET /storage") == 2  # each file once: the storage refuses requests that carry a token


def test_a_branch_becomes_a_commit_and_the_log_says_so(hub, commit, caplog):
    with caplog.at_level(logging.WARNING):
        entry = find(REPO)
    assert (entry.name, entry.hub) == ("tiny", Hub(REPO, commit))
    assert f"{REPO}@main is at the commit {commit}" in caplog.text
    caplog.clear()
    find(f"{REPO}@{commit}")
    assert caplog.text == ""


def test_a_branch_that_moves_moves_nothing_that_was_read(hub, commit, files):
    entry = find(REPO)
    hub.repos[REPO].commit({**files, "tiny.onnx": b"something else"})
    assert is_whole(resolve(entry), files)
    assert find(REPO).hub.revision != commit
    assert find(f"{REPO}@{commit}").hub.revision == commit


def test_a_branch_that_moves_between_two_requests_gives_no_mixture(hub, commit, files):
    """The library asks for the commit first and then for the bytes, of the branch."""
    younger = files["weights_manifest.json"].replace(b"Tiny student", b"Late student")

    hub.order(after(lambda: hub.repos[REPO].commit({"weights_manifest.json": younger})), "weights_manifest")
    entry = find(REPO)
    assert entry.hub.revision == commit
    assert entry.title == "Tiny student for tests"


def test_what_is_cached_is_not_asked_for_again(hub, commit, files):
    entry = find(f"{REPO}@{commit}")
    resolve(entry)
    hub.requests.clear()
    assert is_whole(resolve(find(f"{REPO}@{commit}")), files)
    assert hub.requests == []


def test_the_cache_is_that_of_the_hubs_own_tools(hub, commit, files):
    paths = resolve(find(f"{REPO}@{commit}"))
    own = huggingface_hub.hf_hub_download(REPO, "tiny.onnx", revision=commit, local_files_only=True)
    assert paths["onnx"] == Path(own)


def test_a_renamed_repository_is_followed(hub, commit, files):
    hub.moved["example/old"] = REPO
    assert is_whole(resolve(find("example/old")), files)


def test_nobody_else_waits_for_a_manifest(hub, commit, tiny_weights, monkeypatch):
    monkeypatch.setattr(pipeline, "_shared", type(pipeline._shared)())
    asked, answered = threading.Event(), threading.Event()
    hub.order(after(lambda: (asked.set(), answered.wait(60))), "weights_manifest", "HEAD")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fevertools.embed, CROP, weights=REPO, cropped=True)
        assert asked.wait(60)
        vectors = fevertools.embed(CROP, weights=tiny_weights, cropped=True)
        assert not waiting.done()
        answered.set()
        assert np.allclose(waiting.result(60), vectors, atol=1e-6)


def test_a_private_repository_takes_a_token(hub, files, monkeypatch):
    hub.repo("example/private", files, private=True)
    with pytest.raises(WeightsUnavailableError, match=r"example/private at main: HTTP 401\. .*hf auth login.*HF_TOKEN"):
        find("example/private")
    monkeypatch.setenv("HF_TOKEN", READ)
    assert is_whole(resolve(find("example/private")), files)


def test_offline_with_a_cache(hub, commit, files, monkeypatch):
    resolve(find(REPO))
    hub.requests.clear()
    assert is_whole(resolve(find(REPO, local_files_only=True), local_files_only=True), files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert is_whole(resolve(find(f"{REPO}@{commit}")), files)
    with Analyzer(REPO, local_files_only=True) as analyzer:
        assert analyzer.embed(CROP, cropped=True).shape == (1, 16)
    assert hub.requests == []


def test_a_hub_that_is_gone_is_not_missed_with_a_cache(hub, commit, files, monkeypatch):
    resolve(find(REPO))
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}")
    assert is_whole(resolve(find(REPO)), files)


# ------------------------------------------------------------------------------------------- failures that pass, or not


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_servers_error_passes(hub, pinned, files, slept, code):
    hub.order(answer(code), "/storage/", times=2)
    assert is_whole(resolve(pinned), files)
    assert slept[:2] == list(WAITS[:2])
    assert hub.count("GET /storage") == 4  # two that failed, two files


def test_a_servers_error_that_stays_is_told(hub, pinned, slept):
    hub.order(answer(500), "/storage/", times=99)
    with pytest.raises(WeightsUnavailableError, match=rf"tiny\.onnx .* {REPO} at {pinned.hub.revision}: HTTP 500\. "):
        resolve(pinned, roles=["onnx"])
    assert slept == list(WAITS)
    assert hub.count("GET /storage") == 1 + len(WAITS)


def test_errors_in_asking_for_the_commit_pass_too(hub, pinned, files):
    hub.order(answer(502), "/resolve/", "HEAD", times=2)
    assert is_whole(resolve(pinned), files)


@pytest.mark.parametrize("fault", [reset, break_off, stall])
def test_a_broken_transfer_is_made_up_for(hub, pinned, files, fault, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.order(fault, "/storage/")
    assert is_whole(resolve(pinned), files)
    assert hub.count("GET /storage") == 3


def test_a_server_that_never_goes_on_is_given_up(hub, pinned, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr(fevertools.hub, "PATIENCE", 0)
    hub.order(stall, "/storage/", times=99)
    with pytest.raises(WeightsUnavailableError, match=r"[Tt]ime"):
        resolve(pinned, roles=["onnx"])


def test_nobody_waits_for_what_does_not_pass(hub, pinned, slept):
    assert 404 not in PASSING
    hub.order(answer(404, "EntryNotFound"), "/resolve/", "HEAD")
    with pytest.raises(WeightsUnavailableError, match="HTTP 404"):
        resolve(pinned)
    assert slept == []
    assert hub.count("") == 1


@pytest.mark.parametrize(
    ("repo", "name", "message"),
    [
        ({}, "example/nothing", "HTTP 401.*log in.*hf auth login.*else check its name"),
        ({}, f"{REPO}@v9", "HTTP 404.*Check the names and the revision"),
        ({"gated": True}, REPO, "HTTP 403.*Ask for access.*hf auth login"),
    ],
)
def test_refusals_say_what_to_do(hub, files, repo, name, message, slept):
    hub.repo(REPO, files, **repo)
    with pytest.raises(WeightsUnavailableError, match=message):
        find(name)
    assert slept == []


def test_a_wrong_token_is_not_shown(hub, commit, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test_wrong")
    with pytest.raises(WeightsUnavailableError, match=r"HTTP 401.*HF_TOKEN") as caught:
        find(REPO)
    assert "hf_test_wrong" not in str(caught.value)


@pytest.mark.parametrize("offline", ["option", "environment"])
def test_offline_without_a_cache_says_so_at_once(hub, commit, monkeypatch, slept, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline == "environment")
    with pytest.raises(WeightsUnavailableError, match=r"Connect once \(without HF_HUB_OFFLINE\), or .*--cache-dir"):
        find(REPO, local_files_only=offline == "option")
    assert (slept, hub.requests) == ([], [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_trouble_with_the_cache_is_no_trouble_with_the_hub(hub, pinned, monkeypatch, slept, code):
    def download(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match=rf"{os.strerror(code)}\. Make room in the cache, or the right"):
        resolve(pinned)
    assert slept == []


def test_a_repository_without_a_manifest_says_so(hub):
    hub.repo("example/other", {"README.md": b"# Other"})
    with pytest.raises(WeightsUnavailableError, match=r"weights_manifest\.json .* example/other .*HTTP 404"):
        find("example/other")


def test_an_entry_that_the_manifest_lacks_lists_the_known(hub, commit):
    with pytest.raises(UnknownWeightsError, match="no encoder weights named 'large'; known: tiny"):
        find(f"{REPO}:large", "encoder")


# --------------------------------------------------------------------------------------------------------- wrong bytes


def mended_by(error, capsys):
    """Run the command that a message ends with; the paths that it prints."""
    command = re.search(r"fevertools (weights pull --force .*)$", str(error.value))
    assert main(shlex.split(command[1])) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines()]


def test_wrong_bytes_from_the_server_are_refused(hub, pinned, files, capsys):
    hub.order(flip, "/storage/")
    with pytest.raises(
        WeightsIntegrityError, match=r"tiny\.onnx has the SHA-256 .* the manifest says .*fetch it again"
    ):
        resolve(pinned)
    with pytest.raises(WeightsIntegrityError, match=r"tiny\.onnx") as error:  # and stays refused
        resolve(pinned, local_files_only=True)
    assert len(mended_by(error, capsys)) == 2
    assert is_whole(resolve(pinned, local_files_only=True), files)


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("own_cache", [True, False])
def test_wrong_bytes_in_the_cache_are_mended(hub, pinned, files, monkeypatch, tmp_path, capsys, links, own_cache):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", not links)
    cache = {"cache_dir": tmp_path / "my cache"} if own_cache else {}
    for name, path in resolve(pinned, **cache).items():
        data = bytearray(path.read_bytes())
        data[7] ^= 128
        path.write_bytes(bytes(data))
        with pytest.raises(WeightsIntegrityError, match=re.escape(str(path))) as error:
            resolve(pinned, roles=[name], **cache)
        assert path in mended_by(error, capsys)
    assert is_whole(resolve(pinned, **cache), files)


def test_half_a_file_that_passes_for_whole_is_refused(hub, pinned, files):
    hub.order(short, "/storage/")
    with pytest.raises(WeightsUnavailableError, match=r"file should be of size \d+ but has size"):
        resolve(pinned)
    assert is_whole(resolve(pinned), files)


def test_a_damaged_manifest_in_the_cache_is_fetched_again(hub, commit, files):
    find(f"{REPO}@{commit}")
    (cached,) = Path(constants.HF_HUB_CACHE).rglob("weights_manifest.json")
    cached.write_bytes(b"{" * 10)
    with pytest.raises(ManifestError, match=rf"not JSON.*weights pull --force {REPO}@{commit}"):
        find(f"{REPO}@{commit}", local_files_only=True)
    assert find(f"{REPO}@{commit}").name == "tiny"
    assert cached.read_bytes() == files["weights_manifest.json"]


def test_another_commit_than_the_pinned_is_refused(hub, files):
    hub.repo(REPO, files)
    asked = "0" * 40
    etag = hashlib.sha1(files["weights_manifest.json"]).hexdigest()
    hub.repos[REPO].commits[asked] = files
    hub.order(answer(200, ETag=f'"{etag}"', X_Repo_Commit="1" * 40), "/resolve/", "HEAD")
    with pytest.raises(WeightsIntegrityError, match=f"{asked}: the server answered with the commit '1111"):
        find(f"{REPO}@{asked}")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("weights", "tiny", "files", "onnx", "path"), "../../tiny.onnx", "a plain file name"),
        (("weights", "tiny", "files", "onnx", "path"), "tiny.pt", "a plain file name"),
        (("weights", "tiny", "title"), "\x1b[2J", "must be text"),
        (("weights", "tiny", "code"), "import os", "weights.tiny.code: unknown key"),
    ],
)
def test_a_strangers_manifest_is_read_strictly(hub, files, place, value, message):
    manifest = json.loads(files["weights_manifest.json"])
    target = manifest
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    hub.repo(REPO, {**files, "weights_manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ManifestError, match=message):
        find(REPO)
    assert hub.count("storage") == 0


def test_a_manifest_without_end_is_not_read(hub, files):
    hub.repo(REPO, {**files, "weights_manifest.json": b" " * (MAX_MANIFEST_SIZE + 1)})
    with pytest.raises(ManifestError, match="more than any manifest needs"):
        find(REPO)


def test_files_come_from_the_repository_itself_whatever_its_manifest_says(hub, files):
    manifest = json.loads(files["weights_manifest.json"])
    manifest["weights"]["tiny"] |= {"bundled": False, "hub": {"repo_id": "example/elsewhere", "revision": "0" * 40}}
    commit = hub.repo(REPO, {**files, "weights_manifest.json": json.dumps(manifest).encode()})
    entry = find(REPO)
    assert entry.hub == Hub(REPO, commit)
    assert is_whole(resolve(entry), files)
    assert hub.count("elsewhere") == 0
