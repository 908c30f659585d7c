"""`fevertools weights`, and weights of the Hub in other commands, against the Hub of `hub_server.py`."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("onnx")

from fevertools.cli import main
from tests.cli.conftest import ROOT, json_rows, save_crop
from tests.hub_server import READ, environment

REPO = "example/faces"


@pytest.fixture
def commit(hub, files):
    return hub.repo(REPO, files)


def test_a_repository_is_listed(hub, commit, capsys):
    assert main(["weights", "list", REPO]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert title.split() == ["NAME", "VERSION", "KIND", "SIZE", "FROM", "LICENCE", "TITLE"]
    assert line.startswith("tiny (default)")
    assert f"{REPO}@{commit}  Apache-2.0  Tiny student for tests" in line
    assert hub.count("storage") == 0
    hub.requests.clear()
    assert main(["weights", "list", f"{REPO}@{commit}", "--offline"]) == 0
    assert hub.requests == []


def test_a_manifest_file_is_listed(triplet_weights, capsys):
    assert main(["weights", "list", str(triplet_weights)]) == 0
    assert "here  Apache-2.0  Tiny student" in capsys.readouterr().out


@pytest.mark.parametrize("cache", [[], ["--cache-dir", "elsewhere"]])
def test_pull_verify_and_path(hub, commit, files, capsys, tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    name = f"{REPO}@{commit}:tiny"
    assert main(["weights", "verify", name, *cache]) == 2
    assert "weights_manifest.json is not in the local cache" in capsys.readouterr().err
    assert main(["weights", "path", name, *cache]) == 2
    capsys.readouterr()
    assert main(["weights", "pull", name, *cache]) == 0
    paths = [tmp_path / line for line in capsys.readouterr().out.splitlines()]
    assert [path.read_bytes() for path in paths] == [files["tiny.onnx"], files["tiny-triplet.npy"]]
    assert all(("elsewhere" in path.parts) == bool(cache) for path in paths)
    assert main(["weights", "path", name, *cache]) == 0
    assert [tmp_path / line for line in capsys.readouterr().out.splitlines()] == paths
    assert main(["weights", "verify", name, *cache]) == 0
    assert capsys.readouterr().out == "tiny: ok\n"


def test_broken_files_are_told_and_fetched_again(hub, commit, files, capsys):
    name = f"{REPO}@{commit}:tiny"
    main(["weights", "pull", name])
    (path,) = hub_cache_files("tiny.onnx")
    path.write_bytes(files["tiny.onnx"][:-1] + b"?")
    assert main(["weights", "verify", name]) == 1
    assert f"weights pull --force {name}" in capsys.readouterr().err
    assert main(["weights", "pull", name]) == 2
    assert main(["weights", "pull", "--force", name]) == 0
    assert path.read_bytes() == files["tiny.onnx"]


def hub_cache_files(name):
    from pathlib import Path

    from huggingface_hub import constants

    return list(Path(constants.HF_HUB_CACHE).rglob(name))


def run(hub, home, *arguments, **variables):
    """The command in a process of its own, as someone who has set these variables."""
    return subprocess.run(
        [sys.executable, "-m", "fevertools", *arguments],
        env={**environment(hub, home), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_environment_is_heeded(hub, files, tmp_path):
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, which the client reads when it is imported."""
    commit = hub.repo("example/private", files, private=True)
    refused = run(hub, tmp_path / "home", "weights", "pull", "example/private")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "HTTP 401. If it is private, log in" in refused.stderr
    assert "Traceback" not in refused.stderr
    pulled = run(hub, tmp_path / "home", "weights", "pull", "example/private", HF_TOKEN=READ)
    assert pulled.returncode == 0, pulled.stderr
    assert f"example/private@main is at the commit {commit}" in pulled.stderr
    assert all(str(tmp_path / "home" / "hub") in line for line in pulled.stdout.splitlines())

    hub.requests.clear()
    crop = save_crop(tmp_path / "crop.png", 1)
    command = ["classify", str(crop), "--cropped", "--format", "jsonl", "--device", "cpu", "--weights"]
    served = run(hub, tmp_path / "home", *command, "example/private", HF_HUB_OFFLINE="1")
    assert served.returncode == 0, served.stderr
    (row,) = json_rows(served.stdout)
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    onnx = json.loads(files["weights_manifest.json"])["weights"]["tiny"]["files"]["onnx"]
    assert onnx["sha256"] in json.dumps(row)
    assert hub.requests == []


def test_a_command_takes_weights_of_the_hub_and_can_stay_offline(hub, commit, tmp_path, capsys):
    command = ["embed", str(save_crop(tmp_path / "crop.png", 2)), "--cropped", "--format", "jsonl", "--weights", REPO]
    assert main([*command, "--offline"]) == 2
    assert "Connect once" in capsys.readouterr().err
    assert main(command) == 0
    online = capsys.readouterr().out
    hub.requests.clear()
    assert main([*command, "--offline"]) == 0
    assert capsys.readouterr().out == online
    assert hub.requests == []
