"""The recipe for Spark in docs/scale.md, on the iterators of data frames that Spark would give."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fevertools

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")

TYPES = {"string": pa.string(), "int": pa.int32(), "float": pa.float32(), "array<float>": pa.list_(pa.float32())}


@pytest.fixture(scope="module")
def recipe():
    """The names that the block with the recipe defines."""
    text = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")
    (block,) = (
        found for found in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def embed_partition" in found
    )
    names = {}
    exec(block, names)
    return names


def test_partitions_become_rows_of_the_schema(recipe, tmp_path, tiny_weights, monkeypatch):
    made = []
    analyzer = fevertools.Analyzer

    def cropped(**options):
        """As the recipe's, for crops: its photos would need faces."""
        made.append(analyzer(tiny_weights, device="cpu", **options))
        to_frame = made[-1].to_frame
        made[-1].to_frame = lambda images, **more: to_frame(images, cropped=True, **more)
        return made[-1]

    monkeypatch.setattr(fevertools, "Analyzer", cropped)
    crops = np.random.default_rng(9).integers(0, 256, (5, 48, 48)).astype(np.uint8)
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for path, crop in zip(paths, crops, strict=True):
        Image.fromarray(crop).save(path)
    paths.insert(3, str(tmp_path / "missing.png"))
    # Rows of a partition come with whatever index the batches have.
    frames = (pd.DataFrame({"path": part}, index=[7] * len(part)) for part in (paths[:2], paths[2:], []))
    found = list(recipe["embed_partition"](frames))
    assert len(made) == 1
    assert [len(frame) for frame in found] == [2, 4, 0]

    schema = pa.schema([(name, TYPES[kind]) for name, kind in (cell.split() for cell in recipe["SCHEMA"].split(", "))])
    # Column by column, with NaN as null: so does Spark.
    tables = [pa.Table.from_pandas(frame, schema=schema, preserve_index=False) for frame in found]
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["source"] for row in rows] == paths
    assert [row["error"] is None for row in rows] == [True] * 3 + [False] + [True] * 2
    expected = [analyzer(tiny_weights, device="cpu").embed(crop, cropped=True)[0] for crop in crops]
    np.testing.assert_allclose([row["embedding"] for row in rows if row["embedding"]], expected, atol=1e-5)
    assert all(len(row["box"]) == 4 and len(row["probabilities"]) == 8 for row in rows if row["box"])
