import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def save_crop(path, seed):
    """A made-up face crop: a little picture of grey blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((8, 8), np.uint8))).save(path)
    return path


@pytest.fixture
def crops(tmp_path, monkeypatch):
    """A working folder with crops/: five images in two levels, one hidden, one not an image."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.png", "b.png", "below/c.PNG", "below/d.bmp", "gruß 顔.png")):
        save_crop(tmp_path / "crops" / name, seed)
    save_crop(tmp_path / "crops" / ".hidden.png", 9)
    (tmp_path / "crops" / "notes.txt").write_text("not an image")
    return tmp_path / "crops"


ORDER = [os.path.join("crops", name) for name in ("a.png", "b.png", "below/c.PNG", "below/d.bmp", "gruß 顔.png")]


@pytest.fixture(scope="session")
def astronaut(tmp_path_factory):
    """A photo of 512 x 512 pixels with one face."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("astronaut") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture
def cropped(tiny_weights):
    """Options that need neither detector nor default weights."""
    return ["--cropped", "--weights", str(tiny_weights), "--device", "cpu", "--threads", "1"]


@pytest.fixture
def feed(monkeypatch):
    def feed(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return feed


def json_rows(text):
    return [json.loads(line) for line in text.splitlines()]


def start(*arguments, **options):
    """A process of its own, under way."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    given = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    if os.name != "nt":
        # A shell gives its background jobs, and so the tests where they are one, SIGINT ignored.
        given["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-m", "fevertools", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **given | options)


def process(*arguments):
    """The same in a process of its own, to its end."""
    with start(*arguments) as running:
        output, errors = running.communicate(timeout=120)
    return subprocess.CompletedProcess(running.args, running.returncode, output, errors)
