"""No network, unless weights are asked for that are not here: every socket of a process is refused, and counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_GUARD = """
import json, sys

asked = []

def refuse(event, arguments):
    if event.startswith("socket."):
        asked.append(event)
        raise ConnectionRefusedError("no network here")

sys.addaudithook(refuse)
"""

_EVERYTHING = """
import contextlib, io
import numpy as np
import fevertools as ft
from fevertools.cli import main

picture = np.add.outer(np.arange(96), np.arange(96)).astype(np.uint8)
from PIL import Image
Image.fromarray(picture).save("picture.png")
assert ft.detect(picture) == []
vectors = ft.embed(picture, cropped=True)
assert vectors.shape == (1, 256)
assert ft.embed("picture.png").shape == (0, 256)
(expression,) = ft.classify(picture, cropped=True)
assert ft.similarity(vectors[0], vectors[0]) > 0.99
with ft.Analyzer() as analyzer:
    (result,) = analyzer.stream(["picture.png"], cropped=True)
    assert result.error is None
lines = (
    ["embed", "picture.png", "--cropped", "-o", "out.npz"], ["detect", "picture.png"], ["classify", "picture.png"],
    ["similarity", "picture.png", "picture.png", "--cropped"], ["weights", "list"], ["weights", "verify"],
    ["weights", "path", "mtcnn"], ["doctor"],
)
for line in lines:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(line) == 0, (line, output.getvalue())
"""

_ASKED_FOR = """
import time
time.sleep = lambda seconds: None  # between two attempts
import fevertools as ft
try:
    ft.Analyzer("someone/weights@0123456789abcdef0123456789abcdef01234567")
except ft.errors.WeightsUnavailableError as error:
    assert "could not be fetched" in str(error), error
else:
    raise AssertionError("it was found")
"""


def run(code, folder):
    """What sockets the code asked for, in a process of its own with an empty cache."""
    done = subprocess.run(
        [sys.executable, "-c", f"{_GUARD}\n{code}\nprint(json.dumps(asked))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HOME": str(folder), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_asks_for_the_network(tmp_path):
    assert run(_EVERYTHING, tmp_path) == []


def test_weights_of_the_hub_do(tmp_path):
    """And so the guard would have seen it."""
    assert "socket.getaddrinfo" in run(_ASKED_FOR, tmp_path)


def test_without_a_network_at_all(tmp_path):
    """The same without any device but loopback, where the system can take them away: also for what is not Python."""
    alone = ["unshare", "--net", "--map-root-user"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("unshare --net is not allowed here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", _EVERYTHING],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
