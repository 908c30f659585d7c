"""Results as tables: Arrow, pandas, polars and Parquet. Each table says which weights its vectors are from.

The extra `parquet` installs pyarrow; pandas and polars are the user's own.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from fevertools.errors import MissingExtraError, OptionError
from fevertools.labels import LANDMARKS
from fevertools.manifest import WeightsEntry
from fevertools.options import choice
from fevertools.types import Float32, ImageResult

if TYPE_CHECKING:
    import pyarrow as pa

Backend: TypeAlias = Literal["pandas", "polars", "arrow"]

BACKENDS: Final = ("pandas", "polars", "arrow")
KEY: Final = b"fevertools"
"""Key of the metadata, JSON, in the schema of a table and in a Parquet file."""


def to_table(results: Iterable[ImageResult], weights: WeightsEntry, *, keep_empty: bool = False) -> "pa.Table":
    """One row for each face.

    Args:
        results: what `Analyzer.stream` gives.
        weights: `Analyzer.entry`, that of the Analyzer that made them.
        keep_empty: also a row for each image without a face. One that could not be read always has a row.

    Returns:
        Columns source: str, the path, or of an image that is none its position, such as "#3"; face: int32, numbered
        from 0 in each image; box: float32[4], pixels; score: float32; landmarks: float32[10], x and y in turn;
        embedding: float32[D]; label: str; probabilities: float32[8] in the order of `labels.EMOTIONS`; entropy, nats:
        float32; error: str. Without a face all but source and error are null; error is null where there is none.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _arrow()
    schema = _schema(weights)
    rows: dict[str, list[Any]] = {name: [] for name in schema.names}
    for position, result in enumerate(results):
        named = isinstance(result.source, str | PathLike)
        for row in _rows(result, str(result.source) if named else f"#{position}", keep_empty):
            for name, column in rows.items():
                column.append(row.get(name))
    arrays = [pa.array(rows[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _rows(result: ImageResult, source: str, keep_empty: bool) -> Iterable[Mapping[str, Any]]:
    if not result.faces and (keep_empty or result.error is not None):
        yield {"source": source, "error": None if result.error is None else str(result.error)}
    for number, found in enumerate(result.faces):
        expression = found.expression
        yield {
            "source": source,
            "face": number,
            "box": found.face.box,
            "score": found.face.score,
            "landmarks": found.face.landmarks.ravel(),
            "embedding": found.embedding,
            "label": expression.label,
            "probabilities": np.fromiter(expression.probabilities.values(), np.float32),
            "entropy": expression.entropy,
        }


def _schema(weights: WeightsEntry) -> "pa.Schema":
    pa = _arrow()
    number = pa.float32()
    return pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            ("face", pa.int32()),
            ("box", pa.list_(number, 4)),
            ("score", number),
            ("landmarks", pa.list_(number, 2 * len(LANDMARKS))),
            ("embedding", pa.list_(number, weights.dimension)),
            ("label", pa.string()),
            ("probabilities", pa.list_(number, len(weights.labels))),
            ("entropy", number),
            ("error", pa.string()),
        ],
        metadata={KEY: json.dumps({"weights": identity(weights), "labels": list(weights.labels)})},
    )


def identity(weights: WeightsEntry) -> dict[str, str]:
    """What tells weights from others: {"name", "version", "sha256"}, the last of the network that made the vectors.

    It is that of the float32 graph whatever the precision: vectors of both can be compared with each other.
    """
    return {"name": weights.name, "version": weights.version, "sha256": weights.files["onnx"].sha256}


def to_backend(table: "pa.Table", backend: Backend) -> Any:
    """The same table as a data frame of another library; pandas keeps the metadata in `attrs`.

    Raises:
        OptionError: an unknown backend.
        MissingExtraError: that library is not installed.
    """
    choice(backend, "backend", BACKENDS)
    try:
        if backend == "polars":
            import polars

            return polars.from_arrow(table)
        if backend == "pandas":
            frame = table.to_pandas()
            frame.attrs["fevertools"] = metadata_of(table)
            return frame
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{backend} is not installed: pip install {backend}") from error
    return table


def write_parquet(table: "pa.Table", path: str | PathLike[str]) -> None:
    """Write a table, its metadata too."""
    _arrow()
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def read_parquet(paths: str | PathLike[str] | Sequence[str | PathLike[str]]) -> "pa.Table":
    """Read Parquet files of faces, this module's or those of the command line, as one table.

    Args:
        paths: one file, or several, whose vectors must be from the same weights.

    Raises:
        OptionError: no file, one that says nothing of its weights, or vectors of different weights, which mean
            different things and must not be mixed.
        MissingExtraError: pyarrow is not installed.
    """
    pa = _arrow()
    import pyarrow.parquet as pq

    files = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not files:
        raise OptionError("no Parquet file to read")
    tables = [pq.read_table(file) for file in files]
    first = _weights_of(tables[0], files[0])
    for table, file in zip(tables, files, strict=True):
        own = _weights_of(table, file)
        if own != first:
            raise OptionError(
                f"{Path(file)} has vectors of {_words(own)}, {Path(files[0])} of {_words(first)}; they cannot be "
                "compared, so embed the images of one anew"
            )
    return pa.concat_tables(tables)


def metadata_of(table: "pa.Table") -> dict[str, Any]:
    """What a table says of itself: weights and labels; empty where it is not one of fevertools."""
    text = (table.schema.metadata or {}).get(KEY)
    found: dict[str, Any] = {} if text is None else json.loads(text)
    return found


def vectors(table: "pa.Table", weights: WeightsEntry | None = None) -> Float32:
    """The embeddings of a table: float32 (n, D), rows without a face left out.

    Args:
        table: with a column `embedding`.
        weights: what the embeddings have to be from; None takes any.

    Raises:
        OptionError: no such column, or vectors of other weights.
    """
    if "embedding" not in table.column_names:
        raise OptionError(f"the table has no embeddings; its columns: {', '.join(table.column_names)}")
    if weights is not None and (own := _weights_of(table, "the table")) != identity(weights):
        raise OptionError(f"the table has vectors of {_words(own)}, not of {_words(identity(weights))}")
    column = table["embedding"].combine_chunks().drop_null()
    width = table.schema.field("embedding").type.list_size
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)


def _weights_of(table: "pa.Table", where: object) -> dict[str, str]:
    weights = metadata_of(table).get("weights")
    if not isinstance(weights, dict) or not {"name", "version", "sha256"} <= weights.keys():
        raise OptionError(f"{where} does not say which weights its vectors are from")
    return {name: weights[name] for name in ("name", "version", "sha256")}


def _words(weights: Mapping[str, str]) -> str:
    return f"{weights['name']}, version {weights['version']} (sha256 {weights['sha256'][:8]})"


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise MissingExtraError('tables need pyarrow: pip install "fevertools[parquet]"') from error
    return pyarrow
