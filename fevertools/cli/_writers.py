"""Rows -> CSV, JSON lines, NPZ or Parquet."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from fevertools.cli._rows import Column, Row
from fevertools.errors import MissingExtraError

Metadata: TypeAlias = Mapping[str, Any]
"""Says how the rows were made: command, versions, options, and the `weights` with name, version and sha256."""

_CHUNK: Final = 4096
"""Rows that become arrays at a time, and the row group of a Parquet file."""


def weights_text(metadata: Metadata) -> str:
    """The weights in one cell, such as `deepfever-s@1 sha256:0123...`."""
    return "{name}@{version} sha256:{sha256}".format(**metadata["weights"])


class RowText(Protocol):
    """A text format, one line a row."""

    def __init__(self, columns: Sequence[Column], metadata: Metadata) -> None: ...

    def header(self) -> str:
        """What comes before the first row."""

    def line(self, row: Row) -> str:
        """One row, with its end of line."""


class CsvText:
    """Numbers are the shortest decimals that give the same float32 back."""

    def __init__(self, columns: Sequence[Column], metadata: Metadata) -> None:
        self._columns, self._weights = columns, weights_text(metadata)
        self._writer: Any = csv.writer(_Echo(), lineterminator="\n")

    def header(self) -> str:
        names = chain.from_iterable(column.flat or (column.name,) for column in self._columns)
        return str(self._writer.writerow([*names, "weights"]))

    def line(self, row: Row) -> str:
        cells = chain.from_iterable(_flat(row[column.name], len(column.shape)) for column in self._columns)
        return str(self._writer.writerow([*cells, self._weights]))


class _Echo:
    """A file whose write gives the text back, so that `csv` makes lines instead of writing them."""

    def write(self, text: str) -> str:
        return text


def _flat(value: Any, depth: int) -> Iterable[Any]:
    if depth == 0:
        return (value,)
    return chain.from_iterable(value) if depth == 2 else value


class JsonText:
    """One JSON object a row."""

    def __init__(self, columns: Sequence[Column], metadata: Metadata) -> None:
        self._columns, self._weights = columns, weights_text(metadata)

    def header(self) -> str:
        return ""

    def line(self, row: Row) -> str:
        cells = {
            column.name: dict(zip(column.keys, row[column.name], strict=True)) if column.keys else row[column.name]
            for column in self._columns
        }
        return json.dumps({**cells, "weights": self._weights}, ensure_ascii=False) + "\n"


TEXTS: Final[Mapping[str, type[RowText]]] = MappingProxyType({"csv": CsvText, "jsonl": JsonText})
"""The formats that can also be streamed to stdout."""


def _write_csv(path: Path, rows: Iterable[Row], columns: Sequence[Column], metadata: Metadata) -> None:
    _write_text(path, rows, CsvText(columns, metadata))


def _write_jsonl(path: Path, rows: Iterable[Row], columns: Sequence[Column], metadata: Metadata) -> None:
    _write_text(path, rows, JsonText(columns, metadata))


def _write_text(path: Path, rows: Iterable[Row], text: RowText) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text.header())
        stream.writelines(map(text.line, rows))


def _write_npz(path: Path, rows: Iterable[Row], columns: Sequence[Column], metadata: Metadata) -> None:
    """One array a column, named as it, and `metadata`: JSON text. Nothing in it needs pickle."""
    import numpy as np

    chunks = list(_chunks(rows, columns))
    arrays: dict[str, Any] = {
        column.name: np.concatenate([chunk.pop(column.name) for chunk in chunks]) for column in columns
    }
    # As `np.savez`, which before NumPy 2 leaves its archive open on a full disk, and a traceback on stderr.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"metadata": np.array(json.dumps(metadata)), **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_parquet(path: Path, rows: Iterable[Row], columns: Sequence[Column], metadata: Metadata) -> None:
    """Arrays are fixed-size lists, flattened in C order; `metadata` is JSON under the key `fevertools`."""
    pyarrow, parquet = import_parquet()
    kinds = {"str": pyarrow.string()} | {name: getattr(pyarrow, name)() for name in ("int32", "float32", "float64")}

    def kind(column: Column) -> Any:
        return pyarrow.list_(kinds[column.dtype], _size(column)) if column.shape else kinds[column.dtype]

    schema = pyarrow.schema(
        [pyarrow.field(column.name, kind(column), nullable=False) for column in columns],
        metadata={"fevertools": json.dumps(metadata)},
    )

    def array(column: Column, values: Any) -> Any:
        if not column.shape:
            return pyarrow.array(values.tolist(), kinds[column.dtype])
        items = pyarrow.array(values.reshape(-1))
        return pyarrow.FixedSizeListArray.from_arrays(items, type=schema.field(column.name).type)

    with parquet.ParquetWriter(path, schema) as writer:
        for chunk in _chunks(rows, columns):
            arrays = [array(column, chunk[column.name]) for column in columns]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def import_parquet() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet needs pyarrow: pip install "fevertools[parquet]", or write .npz, .jsonl or .csv'
        ) from error
    return pyarrow, pyarrow.parquet


def _size(column: Column) -> int:
    size = 1
    for length in column.shape:
        size *= length
    return size


def _chunks(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """Column name -> array, for a few thousand rows at a time; one empty chunk where there are no rows."""
    import numpy as np

    iterator = iter(rows)
    chunk = list(islice(iterator, _CHUNK))
    while True:
        yield {
            column.name: np.asarray([row[column.name] for row in chunk], column.dtype).reshape(-1, *column.shape)
            if chunk
            else np.empty((0, *column.shape), "U1" if column.dtype == "str" else column.dtype)
            for column in columns
        }
        chunk = list(islice(iterator, _CHUNK))
        if not chunk:
            return


WRITERS: Final[Mapping[str, Callable[[Path, Iterable[Row], Sequence[Column], Metadata], None]]] = MappingProxyType(
    {"csv": _write_csv, "jsonl": _write_jsonl, "npz": _write_npz, "parquet": _write_parquet}
)
"""Format -> function that writes a whole file."""
