"""Files that change or go away while they are used, and clocks that jump."""

import os
import shutil
import threading
import time

import numpy as np
import pytest

pytest.importorskip("onnx")

from PIL import Image

from fevertools import image as image_module
from fevertools import weights
from fevertools.errors import ImageError, UnreadableImageError, WeightsIntegrityError, WeightsUnavailableError
from fevertools.image import load
from fevertools.manifest import load_manifest
from fevertools.pipeline import Analyzer
from fevertools.weights import find, resolve
from tests._tiny import DIMENSION, write_weights
from tests.cli.conftest import save_crop
from tests.reliability.conftest import litter

CROP = np.zeros((48, 48), np.uint8)
TIMES = (-(10**9), 0, 1, 4_102_444_800, 2**33)  # seconds: 1938, 1970, 2100, 2242


# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", ["bmp", "tif", "png", "jpg", "gif"])  # WebP is read as a whole when it is opened
def test_an_image_that_is_cut_between_its_header_and_its_pixels(tmp_path, monkeypatch, suffix):
    """No memory map is read, which would end the process."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    decode = image_module._decode

    def cut(*arguments):
        os.truncate(path, 3000)
        return decode(*arguments)

    assert load(path).shape == (400, 400, 3)
    monkeypatch.setattr(image_module, "_decode", cut)
    with pytest.raises(UnreadableImageError):
        load(path)


@pytest.mark.parametrize("suffix", ["bmp", "png"])
def test_an_image_that_is_written_while_it_is_read(tmp_path, suffix):
    """It is read as a whole, or refused."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    data, done = path.read_bytes(), threading.Event()

    def write():
        while not done.is_set():
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(data), 1000):
                    file.write(data[start : start + 1000])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        whole = 0
        for _ in range(400):
            try:
                assert np.array_equal(load(path), noise)
                whole += 1
            except ImageError:
                continue
    finally:
        done.set()
        writer.join()
    assert np.array_equal(load(path), noise)
    assert whole < 400


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_pipe_is_no_file_of_pixels(tmp_path):
    """As of `fevertools embed <(curl ...)`: what cannot be read twice is refused, and does not hang."""
    reader, writer = os.pipe()
    os.write(writer, b"\xff\xd8\xff")
    os.close(writer)
    with pytest.raises(UnreadableImageError):
        load(f"/dev/fd/{reader}")
    os.close(reader)


def test_images_that_go_away_during_a_batch(batch, tmp_path, monkeypatch, capsys):
    """They are told of, and the rest is done."""
    shutil.copytree("many", tmp_path / "many")
    monkeypatch.chdir(tmp_path)
    stream = Analyzer.stream

    def removing(self, images, **options):
        for number, result in enumerate(stream(self, images, **options)):
            if number == 0:
                for name in batch.names()[30:33]:
                    os.unlink(name)
            yield result

    monkeypatch.setattr(Analyzer, "stream", removing)
    assert batch.run(tmp_path / "x.csv") == 1
    told = capsys.readouterr().err
    assert told.count("no such file") == 3
    assert "40 images, 36 faces, 0 images without a face, 4 errors" in told


def test_an_output_folder_that_goes_away_during_a_batch(batch, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    stream = Analyzer.stream

    def removing(self, images, **options):
        yield from stream(self, images, **options)
        shutil.rmtree(folder)

    monkeypatch.setattr(Analyzer, "stream", removing)
    assert batch.run(folder / "x.csv") == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert litter(tmp_path) == []


# ------------------------------------------------------------------------------------------------------------ weights


def test_weights_that_are_swapped_under_an_old_date(tmp_path):
    """Same name, same size, same time of the last change."""
    entry = load_manifest(write_weights(tmp_path)).named("tiny")
    path = resolve(entry)["onnx"]
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WeightsIntegrityError, match="SHA-256"):
        resolve(entry)


@pytest.mark.parametrize("seconds", TIMES)
def test_dates_of_files_do_not_matter(tmp_path, monkeypatch, seconds):
    manifest = write_weights(tmp_path)
    crop = save_crop(tmp_path / "a.png", 1)
    for path in (manifest, tmp_path / "tiny.onnx", crop):
        os.utime(path, (seconds, seconds))
    digests = []
    digest = weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *a: digests.append(a) or digest(*a))
    for _ in range(3):
        with Analyzer(str(manifest), device="cpu") as analyzer:
            assert analyzer.embed(crop, cropped=True).shape == (1, DIMENSION)
    assert len(digests) == 1


@pytest.fixture
def published(hub, tiny_weights):
    files = {path.name: path.read_bytes() for path in tiny_weights.parent.iterdir()}
    return f"example/faces@{hub.repo('example/faces', files)}"


def test_a_cache_that_goes_away_while_it_is_used(hub, published, tmp_path):
    cache = tmp_path / "cache"
    with Analyzer(published, cache_dir=cache) as used, Analyzer(published, cache_dir=cache) as unused:
        vector = used.embed(CROP, cropped=True)
        shutil.rmtree(cache)
        assert np.array_equal(used.embed(CROP, cropped=True), vector)  # its network is in memory
        assert np.array_equal(unused.embed(CROP, cropped=True), vector)  # fetched again
        shutil.rmtree(cache)
    with (
        pytest.raises(WeightsUnavailableError, match="not in the local cache"),
        Analyzer(published, cache_dir=cache, local_files_only=True) as offline,
    ):
        offline.embed(CROP, cropped=True)


@pytest.mark.parametrize("part", ["blobs", "snapshots", "refs"])
def test_a_part_of_the_cache_that_goes_away(hub, published, tmp_path, part):
    cache = tmp_path / "cache"
    before = resolve(find(published, cache_dir=cache), cache_dir=cache)["onnx"].read_bytes()
    for folder in cache.rglob(part):
        shutil.rmtree(folder)
    entry = find(published, cache_dir=cache)
    assert resolve(entry, cache_dir=cache)["onnx"].read_bytes() == before


def test_weights_that_go_away_between_the_check_and_the_network(tmp_path, monkeypatch):
    manifest = write_weights(tmp_path)
    found = weights._verify

    def verify_and_remove(path, *arguments):
        found(path, *arguments).unlink()
        return path

    monkeypatch.setattr(weights, "_verify", verify_and_remove)
    with (
        Analyzer(str(manifest), device="cpu") as analyzer,
        pytest.raises(WeightsUnavailableError, match=r"cannot read the model file .*tiny\.onnx"),
    ):
        analyzer.embed(CROP, cropped=True)


# -------------------------------------------------------------------------------------------------------------- clocks


class Terminal:
    """A stderr that shows the progress line."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("step", [-3600, -1e-9, 0, 1e9], ids=str)
@pytest.mark.parametrize("form", ["csv", "npz", "parquet"])
def test_clocks_that_jump_during_a_batch(batch, tmp_path, monkeypatch, step, form):
    """Every look at a clock finds it an hour earlier, standing still, or decades later."""
    now = iter(range(10**9))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: 1.7e9 + step * next(now))
    code = batch.run(tmp_path / f"x.{form}")
    monkeypatch.undo()
    os.chdir(batch.folder)
    assert code == 1
    assert "images" in terminal.text
    assert (tmp_path / f"x.{form}").read_bytes() == batch.whole[form]
