"""Weights that are fetched by several processes at once, or by one that is killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("onnx")

from fevertools.errors import WeightsUnavailableError
from fevertools.weights import find, resolve
from tests._tiny import file_entry, manifest_value
from tests.cli.conftest import ROOT
from tests.hub_server import environment, stall

SIZE = 24_000_000  # huggingface_hub writes 10 MiB at a time


@pytest.fixture
def published(hub, tmp_path):
    """The name of an entry with a large file, and its bytes."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(os.urandom(SIZE))
    entry = manifest_value(file_entry(path))
    files = {path.name: path.read_bytes(), "weights_manifest.json": json.dumps(entry).encode()}
    return f"example/faces@{hub.repo('example/faces', files)}:tiny", path.read_bytes()


def pull(hub, home, name):
    command = [sys.executable, "-m", "fevertools", "weights", "pull", name]
    variables = {**environment(hub, home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cached(home, name):
    entry = find(name, cache_dir=home / "hub", local_files_only=True)
    return resolve(entry, cache_dir=home / "hub", local_files_only=True)["onnx"]


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_pull_the_same_weights_at_once(hub, published, tmp_path, count):
    name, data = published
    home = tmp_path / "shared"
    processes = [pull(hub, home, name) for _ in range(count)]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, told
    assert len({path for path, _ in told}) == 1
    assert cached(home, name).read_bytes() == data
    assert not list(home.rglob("*.incomplete"))


def test_processes_that_pull_while_one_of_them_is_killed(hub, published, tmp_path):
    """The lock of the killed one does not outlive it."""
    name, data = published
    home = tmp_path / "shared"
    hub.order(stall, "/storage/")  # whoever comes first waits for its second half
    first = pull(hub, home, name)
    wait_for_half(home)
    others = [pull(hub, home, name) for _ in range(2)]
    time.sleep(1)
    first.kill()
    first.communicate(timeout=60)
    for process in others:
        assert process.wait(120) == 0, process.communicate()
        process.communicate()
    assert cached(home, name).read_bytes() == data


def wait_for_half(home):
    deadline = time.monotonic() + 60
    while not half_there(home):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def half_there(home):
    try:
        return any(path.stat().st_size for path in home.rglob("*.incomplete"))
    except FileNotFoundError:  # huggingface_hub makes folders that it removes at once, while they are walked through
        return False


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_a_pull_that_is_stopped_half_way(hub, published, tmp_path, name):
    reference, data = published
    home = tmp_path / "home"
    hub.order(stall, "/storage/")
    process = pull(hub, home, reference)
    wait_for_half(home)
    process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=60)
    assert process.returncode == {"SIGKILL": -9, "SIGINT": 130, "SIGTERM": -15}[name]
    assert "Traceback" not in told
    with pytest.raises(WeightsUnavailableError):  # half of it does not pass for whole
        cached(home, reference)
    again = pull(hub, home, reference)
    path, told = again.communicate(timeout=120)
    assert (again.returncode, told) == (0, "")
    assert cached(home, reference).read_bytes() == data
    with open(path.rstrip("\n"), "rb") as file:
        assert file.read() == data
