"""What a row of output holds: one face. Records are what is known of one image, in plain JSON values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.labels import EMOTIONS, LANDMARKS
from fevertools.types import Float32

Record: TypeAlias = dict[str, Any]
"""One image: {"source": str, "faces": [{column: value}], "error": str or None}."""

Row: TypeAlias = dict[str, Any]
"""One face: the name of a column -> its value; arrays are nested lists."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the output."""

    name: str
    dtype: str  # "str", "int32", "float32" or "float64"
    shape: tuple[int, ...] = ()  # of one value
    flat: tuple[str, ...] = ()  # its names in CSV, where an array takes several columns
    keys: tuple[str, ...] = ()  # its keys in JSON, where it is an object


_FACE: Final = (
    Column("source", "str"),
    Column("face", "int32"),
    Column("box", "float32", (4,), ("x1", "y1", "x2", "y2")),
    Column("score", "float32"),
    Column(
        "landmarks",
        "float32",
        (len(LANDMARKS), 2),
        tuple(f"{point.replace(' ', '_')}_{axis}" for point in LANDMARKS for axis in "xy"),
    ),
)

_OF_THE_IMAGE: Final = ("source", "face")
_TYPES: Final[Mapping[str, type]] = MappingProxyType({"str": str, "int32": int, "float32": float, "float64": float})

_EXPRESSION: Final = (
    Column("label", "str"),
    Column("probabilities", "float32", (len(EMOTIONS),), tuple(f"p_{label}" for label in EMOTIONS), EMOTIONS),
    Column("entropy", "float32"),
)


def columns(command: str, dimension: int = 0) -> tuple[Column, ...]:
    """The columns of a command's output.

    Args:
        command: "detect", "embed" or "classify".
        dimension: of the embeddings of `embed`.
    """
    embedding = Column("embedding", "float32", (dimension,), tuple(f"e{i}" for i in range(dimension)))
    extra: Mapping[str, Sequence[Column]] = MappingProxyType(
        {"detect": (), "embed": (embedding,), "classify": _EXPRESSION}
    )
    return (*_FACE, *extra[command])


def rows(record: Record) -> Iterator[Row]:
    """The faces of one image, numbered from 0, largest first."""
    source = printable(record["source"])
    for index, face in enumerate(record["faces"]):
        yield {"source": source, "face": index, **face}


_FEW: Final = 32  # numbers whose texts are made as soon
_POWERS: Final = 10.0 ** np.arange(23)  # all that float64 holds exactly


def floats(values: npt.ArrayLike) -> list[float]:
    """The shortest decimals that give the same float32 numbers back, flattened in C order."""
    flat = np.asarray(values, np.float32).ravel()
    found = _shortest(flat) if len(flat) > _FEW else None
    return [float(text) for text in flat.astype(np.str_).tolist()] if found is None else found.tolist()


def _shortest(flat: Float32) -> npt.NDArray[np.float64] | None:
    """The same without making texts; None where a number is too large or too small for it."""
    size = np.where(flat == 0, np.float32(1), np.abs(flat))
    if not (size.min() > 1e-13 and size.max() < 1e6):
        return None
    wide = size.astype(np.float64)
    # Of 6 to 9 digits: fewer never tell less, more never tell more. Whole numbers over powers of ten are rounded once.
    power = np.arange(5, 9)[:, None] - np.floor(np.log10(wide)).astype(np.intp)
    decimals = np.rint(wide * _POWERS[power]) / _POWERS[power]  # (4, N)
    same = decimals.astype(np.float32) == size
    if not same.any(axis=0).all():
        return None
    shortest = decimals[same.argmax(axis=0), np.arange(len(flat))]
    return np.copysign(np.where(flat == 0, 0.0, shortest), flat)


def is_record(record: Record, columns: Sequence[Column]) -> bool:
    """Whether this object is a record with the values of these columns, and no other damaged or foreign one."""
    cells = {column.name: column for column in columns if column.name not in _OF_THE_IMAGE}
    return (
        record.keys() == {"source", "faces", "error"}
        and isinstance(record["source"], str)
        and isinstance(record["error"], str | None)
        and isinstance(record["faces"], list)
        and all(
            isinstance(face, dict)
            and face.keys() == cells.keys()
            and all(_fits(face[name], column.dtype, column.shape) for name, column in cells.items())
            for face in record["faces"]
        )
    )


def _fits(value: object, dtype: str, shape: tuple[int, ...]) -> bool:
    if not shape:
        return type(value) is _TYPES[dtype]
    if not isinstance(value, list) or len(value) != shape[0]:
        return False
    if len(shape) == 1:
        return set(map(type, value)) == {_TYPES[dtype]}  # embeddings are long
    return all(_fits(item, dtype, shape[1:]) for item in value)


def printable(path: str) -> str:
    """The path as text that UTF-8 can hold: bytes of a file name that are none become \\udcXX escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
