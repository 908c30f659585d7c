"""What a row of output holds: one face. Records are what is known of one image, in plain JSON values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fevertools.labels import EMOTIONS, LANDMARKS

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
