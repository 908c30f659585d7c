"""What an ONNX file says of itself: its operator sets, and whether its weights are all inside.

ONNX Runtime tells neither and the package onnx is no dependency of inference, so these few fields of onnx.proto3 are
read here, from the bytes (https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

_Field: TypeAlias = tuple[int, int | memoryview]  # number; a whole number, or the bytes of a message or string

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2
_DATA_LOCATION = 14
_INSIDE = 0
_STANDARD = {"ai.onnx": ""}

_TENSORS_BELOW: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "function": {7: "node", 11: "attribute"},
        "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
        "sparse tensor": {1: "tensor", 2: "tensor"},
    }
)
"""Message -> the fields on the way to its tensors, and what message each is."""


def opsets(model: bytes) -> dict[str, int]:
    """Domain -> version of the operator sets of an ONNX model. The standard domain is "".

    Raises:
        ValueError: these are not the bytes of an ONNX model.
    """
    found = {}
    for number, value in _fields(memoryview(model)):
        if number == _OPSET_IMPORT:
            fields = dict(_fields(_message(value)))
            domain, version = fields.get(_DOMAIN, memoryview(b"")), fields.get(_VERSION, 0)
            if not isinstance(version, int):
                raise ValueError("an operator set without a version")
            found[_STANDARD.get(name := str(_message(domain), "utf-8"), name)] = version
    return found


def leans_on_other_files(model: bytes) -> bool:
    """Whether a tensor of the model has its numbers in another file.

    Raises:
        ValueError: these are not the bytes of an ONNX model.
    """
    return any(dict(_fields(tensor)).get(_DATA_LOCATION, _INSIDE) != _INSIDE for tensor in _tensors(model))


def _tensors(model: bytes) -> Iterator[memoryview]:
    waiting = [("model", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        if kind == "tensor":
            yield message
            continue
        below = _TENSORS_BELOW[kind]
        waiting.extend((below[number], _message(value)) for number, value in _fields(message) if number in below)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one message, in their order."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"no field is of kind {kind}")
        if place + size > len(message):
            raise ValueError("a field reaches past the end")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, low bits first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("the file ends inside a number")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
