"""Ray Data on a local cluster: each image comes out once, whatever happens to the processes that do the work."""

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fevertools import Analyzer
from fevertools.errors import OptionError, UnknownWeightsError
from fevertools.tables import identity, metadata_of, read_parquet, vectors
from tests._tiny import reference

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="needs the extra `ray`")
pytest.importorskip("ray.data", reason="needs the extra `ray`")

from fevertools.ray import COLUMNS, embed_dataset  # noqa: E402 - after the settings of Ray

pytestmark = pytest.mark.slow  # a cluster takes seconds to start

CROPS = np.random.default_rng(3).integers(0, 256, (10, 48, 48)).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    # Sockets have short names only, shorter than those of pytest's folders.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        # Two for the actors, and one for the tasks that read.
        ray.init(num_cpus=3, num_gpus=1, object_store_memory=100 * 2**20, _temp_dir=folder, **quiet)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    for number, crop in enumerate(CROPS):
        Image.fromarray(crop).save(folder / f"{number:02}.png")
    return folder


def rows_of(dataset, *names):
    rows = sorted(dataset.take_all(), key=lambda row: (row["source"], row["face"] or 0))
    return [tuple(row[name] for name in names) for row in rows] if names else rows


@pytest.mark.parametrize("column", COLUMNS)
def test_rows_are_those_of_one_analyzer(column, folder, tiny_weights):
    paths = sorted(map(str, folder.iterdir()))
    read = {
        "path": lambda: ray.data.from_items([{"path": path, "other": 1} for path in paths]),
        "bytes": lambda: ray.data.read_binary_files(paths, include_paths=True),
        "image": lambda: ray.data.read_images(paths, include_paths=True),
    }
    found = embed_dataset(read[column](), column, weights=tiny_weights, cropped=True, concurrency=2, batch_size=3)
    rows = rows_of(found)
    assert [row["source"] for row in rows] == paths
    np.testing.assert_allclose([row["embedding"] for row in rows], reference(CROPS[..., None])[0], atol=1e-4)
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        table = analyzer.to_frame(paths, cropped=True, backend="arrow")
    assert set(found.columns()) == set(table.column_names)
    assert [row["label"] for row in rows] == table["label"].to_pylist()


def test_every_image_has_a_row(tiny_weights, tmp_path):
    blank, broken, missing = tmp_path / "blank.png", tmp_path / "broken.png", tmp_path / "missing.png"
    Image.new("RGB", (64, 64)).save(blank)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    dataset = ray.data.from_items([{"path": str(path)} for path in (blank, broken, missing)])
    rows = rows_of(embed_dataset(dataset, weights=tiny_weights), "source", "face", "error")
    assert [(Path(source).name, face, error is None) for source, face, error in rows] == [
        ("blank.png", None, True),
        ("broken.png", None, False),
        ("missing.png", None, False),
    ]
    assert "no such file" in rows[2][2]
    kept = embed_dataset(dataset, weights=tiny_weights, keep_empty=False)
    assert [Path(source).name for (source,) in rows_of(kept, "source")] == ["broken.png", "missing.png"]


def test_images_that_are_none_have_a_row_too(tiny_weights):
    arrays = [CROPS[0], np.stack([CROPS[1]] * 3, axis=2), np.zeros((4, 4, 7), np.uint8), CROPS[0].astype(np.float32)]
    dataset = ray.data.from_items([{"image": array, "id": f"n{i}"} for i, array in enumerate(arrays)])
    rows = rows_of(
        embed_dataset(dataset, "image", source="id", weights=tiny_weights, cropped=True, batch_size=1),
        "source", "face", "error",
    )  # fmt: skip
    assert [(source, face) for source, face, _ in rows] == [("n0", 0), ("n1", 0), ("n2", None), ("n3", None)]
    assert "shape (4, 4, 7)" in rows[2][2]
    assert "dtype float32" in rows[3][2]


def test_vectors_in_files_say_which_weights_made_them(folder, tiny_weights, tmp_path):
    dataset = ray.data.from_items([{"path": str(path)} for path in folder.iterdir()])
    embed_dataset(dataset, weights=tiny_weights, cropped=True, batch_size=4).write_parquet(str(tmp_path / "faces"))
    table = read_parquet(sorted((tmp_path / "faces").glob("*.parquet")))
    entry = Analyzer(tiny_weights).entry
    assert metadata_of(table)["weights"] == identity(entry)
    assert vectors(table, entry).shape == (len(CROPS), entry.dimension)


def workers():
    """Processes of actors of Ray Data."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_nothing_is_lost_with_a_process(tiny_weights, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    names = [tmp_path / f"{number:03}.png" for number in range(72)]
    for name in names:
        os.link(tmp_path / "noise.png", name)  # slow enough to decode that there is a middle
    dataset = ray.data.from_items([{"path": str(name)} for name in names])
    found = embed_dataset(dataset, weights=tiny_weights, cropped=True, concurrency=2, batch_size=3)
    sources, seen, killed = [], set(), None
    for batch in found.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        sources += batch["source"].to_pylist()
        assert batch["error"].null_count == len(batch)
        seen |= workers()
        if killed is None and len(seen) == 2:
            killed = min(seen)
            os.kill(killed, signal.SIGKILL)
            left = len(names) - len(sources)
    assert left > 0
    assert len(seen) == 3  # two, and the one that took the place of the killed one
    assert sorted(sources) == sorted(map(str, names))


def test_actors_ask_for_what_they_use(folder, tiny_weights, monkeypatch):
    dataset = ray.data.from_items([{"path": str(path)} for path in folder.iterdir()])
    monkeypatch.setattr(ray.data.Dataset, "map_batches", lambda self, fn, **options: options)

    def asked(**options):
        given = embed_dataset(dataset, weights=tiny_weights, **options)
        return given["num_cpus"], given["num_gpus"], given["fn_constructor_args"][0]["device"]

    assert asked() == (1, None, "cpu")
    assert asked(threads=2) == (2, None, "cpu")
    assert asked(device="cuda") == (1, 1, "cuda")
    assert asked(num_gpus=0.25) == (1, 0.25, "auto")


def test_mistakes_are_told_at_once(folder):
    dataset = ray.data.from_items([{"path": str(path)} for path in folder.iterdir()])
    with pytest.raises(UnknownWeightsError, match="'nothing'"):
        embed_dataset(dataset, weights="nothing")
    with pytest.raises(OptionError, match=r"no column named 'picture'; known: path, bytes, image"):
        embed_dataset(dataset, "picture")
    with pytest.raises(OptionError, match="no column 'bytes'; it has path"):
        embed_dataset(dataset, "bytes")
    for option in ("concurrency", "threads", "batch_size"):
        with pytest.raises(OptionError, match=option):
            embed_dataset(dataset, **{option: 0})
