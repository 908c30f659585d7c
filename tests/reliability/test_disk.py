"""No room, a limit on file sizes, nothing but reading allowed."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("onnx")

from PIL import Image

from fevertools.cli import main
from fevertools.errors import WeightsUnavailableError
from fevertools.pipeline import Analyzer
from fevertools.weights import find, resolve
from tests._tiny import DIMENSION, file_entry, manifest_value
from tests.reliability.conftest import FORMATS, litter

# What a destructor says on stderr would be a traceback too.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

PAGE = 4096
PLENTY = 2**20


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("phase", ["journal", "output"])
def test_a_full_disk(batch, disk, capsys, form, phase):
    """The disk has room for half of the journal, or for all of it and one page of the output."""
    pages = -(-len(batch.journal) // PAGE)
    folder = disk(PAGE * (pages // 2 if phase == "journal" else pages + 1))
    assert batch.run(folder / f"x.{form}") == 2
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert litter(folder) == [f"x.{form}.partial"]
    written = (folder / f"x.{form}.partial").read_bytes()
    assert batch.journal.startswith(written)
    assert (written == batch.journal) == (phase == "output")
    disk(PLENTY)
    assert batch.run(folder / f"x.{form}", "--resume") == 1
    assert (folder / f"x.{form}").read_bytes() == batch.whole[form]
    assert litter(folder) == [f"x.{form}"]


def test_a_full_disk_keeps_the_old_output(batch, disk):
    folder = disk(PLENTY)
    (folder / "x.npz").write_bytes(b"of an earlier run")
    disk(PAGE * (-(-len(batch.journal) // PAGE) + 2))
    assert batch.run(folder / "x.npz", "--overwrite") == 2
    assert (folder / "x.npz").read_bytes() == b"of an earlier run"


@pytest.mark.parametrize("form", FORMATS)
def test_a_limit_on_file_sizes(batch, tmp_path, form):
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(batch.journal) // 2, resource.RLIM_INFINITY))

    with batch.start(tmp_path / f"x.{form}", preexec_fn=limit) as running:
        told = running.communicate(timeout=120)[1].decode()
    assert running.returncode == 2
    assert told.endswith("File too large\n")
    assert "Traceback" not in told
    assert litter(tmp_path) == [f"x.{form}.partial"]
    assert batch.run(tmp_path / f"x.{form}", "--resume") == 1
    assert (tmp_path / f"x.{form}").read_bytes() == batch.whole[form]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stdout(batch):
    with open("/dev/full", "wb") as full, batch.start("-", stdout=full) as running:
        told = running.communicate(timeout=120)[1].decode()
    assert (running.returncode, told) == (2, "fevertools: error: [Errno 28] No space left on device\n")


def test_an_output_folder_that_is_read_only(batch, tmp_path, read_only, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    read_only(folder)
    assert batch.run(folder / "x.csv") == 2
    told = capsys.readouterr().err
    assert "Read-only file system" in told or "Permission denied" in told
    assert "x.csv" in told
    assert litter(folder) == []


def test_no_half_picture_on_a_full_disk(disk, tmp_path, capsys):
    folder = disk(16 * PAGE)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)  # more than 16 pages
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert main(["detect", str(tmp_path / "noise.png"), "--draw", str(folder / "drawn.png")]) == 2
    assert "No space left" in capsys.readouterr().err
    assert litter(folder) == []


# -------------------------------------------------------------------------------------------------- the weights' cache


@pytest.fixture
def published(hub, tiny_weights):
    """A repository with weights, pinned."""
    files = {path.name: path.read_bytes() for path in tiny_weights.parent.iterdir()}
    return f"example/faces@{hub.repo('example/faces', files)}"


CROP = np.zeros((48, 48), np.uint8)


def test_a_cache_that_is_read_only_serves_what_it_has(hub, published, tmp_path, read_only):
    cache = tmp_path / "cache"
    resolve(find(published, cache_dir=cache), cache_dir=cache)
    read_only(cache)
    asked = len(hub.requests)
    with Analyzer(published, cache_dir=cache) as analyzer:
        assert analyzer.embed(CROP, cropped=True).shape == (1, DIMENSION)
    assert len(hub.requests) == asked


def test_a_cache_that_is_read_only_and_empty(hub, published, tmp_path, read_only):
    cache = tmp_path / "cache"
    cache.mkdir()
    read_only(cache)
    with pytest.raises(WeightsUnavailableError, match=r"Read-only file system|Permission denied"):
        find(published, cache_dir=cache)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_cache_on_a_full_disk(hub, disk, tmp_path):
    heavy = tmp_path / "tiny.onnx"
    heavy.write_bytes(bytes(64 * PAGE))
    manifest = json.dumps(manifest_value(file_entry(heavy))).encode()
    commit = hub.repo("example/faces", {heavy.name: heavy.read_bytes(), "weights_manifest.json": manifest})
    cache = disk(16 * PAGE)
    entry = find(f"example/faces@{commit}", cache_dir=cache)
    with pytest.raises(WeightsUnavailableError, match="No space left on device"):
        resolve(entry, cache_dir=cache)
    with pytest.raises(WeightsUnavailableError):
        resolve(entry, cache_dir=cache, local_files_only=True)
    disk(PLENTY)
    assert resolve(entry, cache_dir=cache)["onnx"].read_bytes() == heavy.read_bytes()
