"""Results as tables: what rows hold, that nothing is lost, and that vectors of different weights are never mixed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fevertools import Analyzer, ImageResult
from fevertools.errors import MissingExtraError, OptionError, UnreadableImageError
from fevertools.tables import metadata_of, read_parquet, to_backend, to_table, vectors, write_parquet
from tests._tiny import DIMENSION, write_weights

pytest.importorskip("pyarrow", reason="needs the extra `parquet`")

CROPS = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)


@pytest.fixture
def analyzer(tiny_weights):
    with Analyzer(tiny_weights, device="cpu", threads=1) as made:
        yield made


def test_to_dict_is_json(analyzer):
    result = analyzer.analyze(CROPS[0], cropped=True)
    (face,) = json.loads(json.dumps(result.to_dict() | {"source": "a"}))["faces"]
    np.testing.assert_allclose(face["embedding"], result.faces[0].embedding, rtol=1e-6)
    assert face["box"] == [0, 0, 48, 48]
    assert face["label"] == result.faces[0].expression.label
    assert sum(face["probabilities"].values()) == pytest.approx(1)
    assert analyzer.analyze(CROPS[0], cropped=True).to_dict()["source"] == "<ndarray>"
    broken = ImageResult("b.jpg", (), UnreadableImageError("empty")).to_dict()
    assert broken == {"source": "b.jpg", "faces": [], "error": "empty"}


def test_rows_are_faces(analyzer):
    frame = analyzer.to_frame(list(CROPS), cropped=True, backend="arrow")
    assert frame.num_rows == 3
    results = list(analyzer.stream(list(CROPS), cropped=True))
    np.testing.assert_allclose(vectors(frame), [r.faces[0].embedding for r in results], rtol=1e-6)
    row = frame.to_pylist()[1]
    assert (row["source"], row["face"]) == ("#1", 0)
    assert row["label"] == results[1].faces[0].expression.label
    np.testing.assert_allclose(row["probabilities"], list(results[1].faces[0].expression.probabilities.values()))
    assert row["error"] is None
    assert frame.schema.field("embedding").type.list_size == DIMENSION
    assert metadata_of(frame)["weights"]["name"] == "tiny"


def test_nothing_is_lost(analyzer):
    results = [*analyzer.stream([CROPS[0], b"junk"], cropped=True), ImageResult("nobody.jpg", ())]
    table = to_table(results, analyzer.entry)
    assert table["face"].to_pylist() == [0, None]
    assert "image" in table["error"].to_pylist()[1]
    kept = to_table(results, analyzer.entry, keep_empty=True)
    assert kept["source"].to_pylist()[2] == "nobody.jpg"
    assert kept["error"].to_pylist()[2] is None
    assert vectors(kept).shape == (1, DIMENSION)
    assert vectors(to_table([], analyzer.entry)).shape == (0, DIMENSION)


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_data_frames(analyzer, backend):
    library = pytest.importorskip(backend)
    frame = analyzer.to_frame(list(CROPS), cropped=True, backend=backend)
    assert isinstance(frame, library.DataFrame)
    assert frame.shape[0] == 3
    table = analyzer.to_frame(list(CROPS), cropped=True, backend="arrow")
    np.testing.assert_allclose(np.stack([np.asarray(v) for v in frame["embedding"]]), vectors(table))
    if backend == "pandas":
        assert frame.attrs["fevertools"]["weights"]["name"] == "tiny"
    with pytest.raises(OptionError, match="no backend named 'excel'"):
        analyzer.to_frame([], backend="excel")


def test_parquet_keeps_the_weights_and_refuses_to_mix_them(analyzer, tmp_path):
    table = analyzer.to_frame(list(CROPS), cropped=True, backend="arrow")
    first, second, other = (tmp_path / f"{name}.parquet" for name in ("a", "b", "other"))
    write_parquet(table, first)
    write_parquet(table.slice(1), second)
    both = read_parquet([first, second])
    assert both.num_rows == 5
    assert metadata_of(both) == metadata_of(table)
    np.testing.assert_array_equal(vectors(both)[:3], vectors(table))
    (tmp_path / "other").mkdir()
    manifest = write_weights(tmp_path / "other", head=np.zeros((32, DIMENSION + 1), np.float32))
    text = manifest.read_text()
    manifest.write_text(text.replace('"version": "1"', '"version": "2"'))
    with Analyzer(manifest, device="cpu") as later:
        write_parquet(later.to_frame([CROPS[0]], cropped=True, backend="arrow"), other)
        with pytest.raises(OptionError, match=r"other\.parquet .* version 2 .*, .* version 1"):
            read_parquet([first, other])
        with pytest.raises(OptionError, match="not of tiny, version 2"):
            vectors(table, later.entry)
    assert len(vectors(table, analyzer.entry)) == 3


def test_what_the_command_line_wrote_can_be_read(tiny_weights, tmp_path):
    from PIL import Image

    for number, crop in enumerate(CROPS):
        Image.fromarray(crop).save(tmp_path / f"{number}.png")
    output = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "fevertools", "embed", str(tmp_path), "-o", str(output), "--cropped"]
    subprocess.run([*command, "--weights", str(tiny_weights), "--quiet"], check=True)
    with Analyzer(tiny_weights, device="cpu") as analyzer:
        found = vectors(read_parquet(output), analyzer.entry)
        np.testing.assert_allclose(found, np.concatenate([analyzer.embed(c, cropped=True) for c in CROPS]), rtol=1e-5)


def test_files_and_tables_of_others_are_refused(analyzer, tmp_path):
    import pyarrow as pa

    stranger = pa.table({"x": [1]})
    write_parquet(stranger, tmp_path / "x.parquet")
    with pytest.raises(OptionError, match="which weights"):
        read_parquet(tmp_path / "x.parquet")
    with pytest.raises(OptionError, match="no embeddings"):
        vectors(stranger)
    with pytest.raises(OptionError, match="no Parquet file"):
        read_parquet([])


@pytest.mark.parametrize("missing", ["pyarrow", "polars"])
def test_says_what_to_install(analyzer, monkeypatch, missing):
    table = analyzer.to_frame([CROPS[0]], cropped=True, backend="arrow")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match="pip install"):
        to_backend(table, "polars") if missing == "polars" else to_table([], analyzer.entry)


def test_paths_stay_as_they_were_given(analyzer, tmp_path):
    table = analyzer.to_frame([tmp_path / "missing.jpg"], backend="arrow", cropped=True)
    assert table["source"].to_pylist() == [str(Path(tmp_path / "missing.jpg"))]
    assert table["error"].to_pylist()[0]
